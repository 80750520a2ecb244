use common::update::Provider;
use proptest::prelude::*;

use super::*;
use crate::meta::generate::{bodies, damaged};
use crate::meta::peek::peek;
use crate::peek::{Change, Peek, Update};

#[test]
fn keeps_everything_around_the_chosen_updates() {
    let body = br#" {"object":"w", "entry" : [ {"id":"1","x":1,"changes":[ {"field":"f","value":{"metadata":{"phone_number_id":"n"},
        "contacts":[{}], "messages" : [ {"id":"a"} , {"id":"b"} , {"id":"c"} ], "statuses":[{"id":"d"}],"errors":7}} , 5 ]}, 6,
        {"changes":[{"value":{}}]} ], "tail":[1]} "#;
    let peek = peek(body).unwrap();
    assert_eq!(peek.updates.len(), 8);
    let cut_to = |keep: [u8; 8]| String::from_utf8(cut(body, &peek, &keep.map(|flag| flag == 1)).into_owned()).unwrap();
    assert_eq!(
        cut_to([1, 0, 1, 0, 0, 0, 0, 0]),
        r#" {"object":"w", "entry" : [{"id":"1","x":1,"changes":[{"field":"f","value":{"metadata":{"phone_number_id":"n"},
        "contacts":[{}], "messages" : [{"id":"a"},{"id":"c"}], "statuses":[],"errors":[]}}]}], "tail":[1]} "#
    );
    assert_eq!(
        cut_to([0, 0, 0, 0, 0, 1, 1, 0]),
        r#" {"object":"w", "entry" : [{"id":"1","x":1,"changes":[5]},6], "tail":[1]} "#
    );
    assert_eq!(
        cut_to([0, 0, 0, 0, 0, 0, 0, 1]),
        r#" {"object":"w", "entry" : [{"changes":[{"value":{}}]}], "tail":[1]} "#
    );
    assert_eq!(cut_to([0; 8]), r#" {"object":"w", "entry" : [], "tail":[1]} "#);
    assert!(matches!(cut(body, &peek, &[true; 8]), Cow::Borrowed(all) if all == body));
}

#[test]
fn a_missing_flag_counts_as_false_and_a_surplus_one_as_nothing() {
    let body = br#"{"entry":[{"changes":[{"value":{"messages":[{"id":1},{"id":2}]}}]}]}"#;
    let peek = peek(body).unwrap();
    assert_eq!(&*cut(body, &peek, &[true]), br#"{"entry":[{"changes":[{"value":{"messages":[{"id":1}]}}]}]}"#);
    assert_eq!(&*cut(body, &peek, &[true; 9]), body);
    assert_eq!(&*cut(b"{}", &Peek::empty(Provider::Meta), &[]), b"{}");
}

#[test]
fn a_peek_of_another_body_does_no_harm() {
    let peek = peek(br#"{"entry":[{"changes":[{"value":{"messages":[{"id":1},{"id":2}]}}]}]}"#).unwrap();
    cut(b"{}", &peek, &[true]);
}

/// An update and its surroundings, without their places.
fn told<'a>(
    body: &'a [u8],
    peek: &'a Peek<'a>,
    update: &Update<'a>,
) -> (Update<'a>, &'a [u8], Change<'a>, Vec<&'a [u8]>) {
    let change = &peek.changes[update.change];
    let contacts = change.contacts.iter().map(|contact| &body[contact.range.clone()]).collect();
    let change = Change { contacts: Vec::new(), range: 0..0, ..change.clone() };
    (Update { change: 0, range: 0..0, ..update.clone() }, &body[update.range.clone()], change, contacts)
}

fn law(body: &[u8], keep: &[bool]) -> Result<(), TestCaseError> {
    let Ok(before) = peek(body) else { return Ok(()) };
    let keep: Vec<bool> = (0..before.updates.len()).map(|index| keep[index % keep.len()]).collect();
    let cut = cut(body, &before, &keep);
    let after = peek(&cut);
    prop_assert!(after.is_ok(), "{:?} {}", after, String::from_utf8_lossy(&cut));
    let after = after.unwrap_or_else(|_| Peek::empty(Provider::Meta));
    let chosen = before.updates.iter().zip(&keep).filter(|(_, kept)| **kept);
    let expected: Vec<_> = chosen.map(|(update, _)| told(body, &before, update)).collect();
    let found: Vec<_> = after.updates.iter().map(|update| told(&cut, &after, update)).collect();
    prop_assert_eq!(found, expected);
    prop_assert_eq!(matches!(cut, Cow::Borrowed(_)), keep.iter().all(|kept| *kept));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_cut_holds_exactly_the_chosen_updates(body in bodies(), keep in prop::collection::vec(any::<bool>(), 1..12)) {
        law(body.text.as_bytes(), &keep)?;
    }

    #[test]
    fn the_law_holds_for_damaged_bodies_too(body in damaged(), keep in prop::collection::vec(any::<bool>(), 1..12)) {
        law(&body, &keep)?;
    }
}
