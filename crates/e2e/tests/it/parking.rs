//! What is signed and not to be handed out: answered 200, kept, counted, and not in the feed.

use serde_json::json;

use crate::feed::Event;
use crate::meta::{self, NUMBER, SECRET, SENDER, WABA};
use crate::tenants::{import, wait_for_app};
use crate::wharf::{Setup, Wharf};

const OTHER_SECRET: &str = "another-app-secret-0123456789";
const OTHER_NUMBER: &str = "888000111222333";

/// A default app that owns every number not listed, and another app with one number.
fn two_apps() -> Wharf {
    let wharf = Setup::new().start();
    let document = format!(
        r#"
        tenants = [{{ id = "other" }}]
        apps = [{{ id = "other-app", secrets = ["{OTHER_SECRET}"], verify_tokens = ["other-verify-token"] }}]
        numbers = [{{ phone_number_id = "{OTHER_NUMBER}", waba_id = "999", app = "other-app", tenant = "other" }}]
        "#
    );
    let file = wharf.setup().file("import.toml", &document);
    let imported = import(&wharf, &file);
    assert_eq!(imported.code, Some(0), "{imported:?}");
    wait_for_app(&wharf, "other-app", "other-verify-token");
    wharf
}

fn taken(wharf: &Wharf, secret: &str, body: &[u8]) {
    let answer = meta::deliver_to(wharf.public(), meta::PATH, secret, body);
    assert_eq!((answer.status, answer.text()), (200, "OK"), "{answer:?}");
}

#[test]
fn what_belongs_to_nobody_or_comes_too_late_is_taken_and_parked() {
    let wharf = two_apps();
    let old = meta::now() - 9 * 24 * 3600;
    let recent = meta::now() - 7 * 24 * 3600;

    // Nobody has registered this number under the second app.
    taken(&wharf, OTHER_SECRET, &meta::messages_to("111", &[meta::text("wamid.UNKNOWN", "to nobody")]));
    // The number is the second app's, the signature the first one's, and the other way round.
    taken(&wharf, SECRET, &meta::messages_to(OTHER_NUMBER, &[meta::text("wamid.FOREIGN", "to others")]));
    taken(&wharf, SECRET, &meta::messages(&[meta::text_from(SENDER, "wamid.OLD", "long ago", old)]));
    taken(&wharf, SECRET, b"not a webhook");
    taken(&wharf, SECRET, b"");

    // Seven days are what Meta retries for.
    taken(&wharf, SECRET, &meta::messages(&[meta::text_from(SENDER, "wamid.RECENT", "last week", recent)]));
    // The old one does not hold its neighbour back.
    let mixed = [meta::text_from(SENDER, "wamid.OLD2", "long ago", old), meta::text("wamid.FRESH", "just now")];
    taken(&wharf, SECRET, &meta::messages(&mixed));
    taken(&wharf, OTHER_SECRET, &meta::messages_to(OTHER_NUMBER, &[meta::text("wamid.OTHER", "to the other app")]));
    wharf.wait_for_message("wamid.OTHER");

    let out: Vec<_> = wharf.events().iter().map(|event| (event.tenant.clone(), event.name())).collect();
    let of = |tenant: &str, id: &str| (tenant.to_owned(), format!("message.received wamid.{id}"));
    assert_eq!(out, [of("default", "RECENT"), of("default", "FRESH"), of("other", "OTHER")]);

    let metrics = wharf.metrics();
    for (reason, envelopes) in [("unknown-tenant", 1), ("foreign-app", 1), ("too-old", 2), ("unreadable", 2)] {
        let label = format!(r#"reason="{reason}""#);
        assert_eq!(metrics.count("wharf_normalizer_parked_total", &[&label]), envelopes, "{reason}");
        let label = format!(r#"disposition="{reason}""#);
        assert_eq!(metrics.count("wharf_ingress_envelopes_total", &[&label]), envelopes, "{reason}");
    }
    assert_eq!(metrics.count("wharf_ingress_requests_total", &[r#"status="200""#, r#"signature="valid""#]), 8);
    assert!(wharf.log().contains("Unknown Tenant"), "the log says so in these words");
    assert_eq!(wharf.ask_json("/messages")["total"], 3);
}

#[test]
fn the_101st_message_of_a_sender_within_the_hour_is_parked() {
    let wharf = Setup::new().start();
    let hundred: Vec<_> = (1..=100).map(|index| meta::text(&format!("wamid.N{index}"), "hello")).collect();
    taken(&wharf, SECRET, &meta::messages(&hundred));
    taken(&wharf, SECRET, &meta::messages(&[meta::text("wamid.N101", "one too many")]));
    // A repetition is not counted, statuses are not, other people and other numbers are counted by themselves.
    taken(&wharf, SECRET, &meta::messages(&hundred));
    let status = meta::change(NUMBER, json!({"statuses": [meta::status("wamid.OUT", "delivered")]}));
    taken(&wharf, SECRET, &meta::body(&[meta::entry(WABA, &[status])]));
    let both = [
        meta::text("wamid.N102", "and another"),
        meta::text_from("351910000002", "wamid.SOMEBODY", "first words", meta::now()),
    ];
    taken(&wharf, SECRET, &meta::messages(&both));
    taken(&wharf, SECRET, &meta::messages_to("777000111222334", &[meta::text("wamid.ELSEWHERE", "elsewhere")]));
    wharf.wait_for_message("wamid.ELSEWHERE");

    let out: Vec<_> = wharf.events().iter().map(Event::name).collect();
    let mut expected: Vec<_> = (1..=100).map(|index| format!("message.received wamid.N{index}")).collect();
    expected.push("message.status wamid.OUT delivered".to_owned());
    expected.push("message.received wamid.SOMEBODY".to_owned());
    expected.push("message.received wamid.ELSEWHERE".to_owned());
    assert_eq!(out, expected);
    let metrics = wharf.metrics();
    assert_eq!(metrics.count("wharf_ingress_updates_total", &[r#"admission="throttled""#]), 2);
    assert_eq!(metrics.count("wharf_normalizer_parked_total", &[r#"reason="throttled""#]), 2);
}

#[test]
fn the_limit_of_a_sender_can_be_set() {
    let wharf = Setup::new().set("WEBHOOK_RATE_LIMIT_MAX", "2").set("WEBHOOK_RATE_LIMIT_WINDOW", "1").start();
    let three: Vec<_> = (1..=3).map(|index| meta::text(&format!("wamid.N{index}"), "hello")).collect();
    taken(&wharf, SECRET, &meta::messages(&three));
    wharf.wait_for_message("wamid.N2");
    let metrics = wharf.metrics();
    assert_eq!(metrics.count("wharf_ingress_envelopes_total", &[r#"disposition="throttled""#]), 1);
    assert_eq!(wharf.events().len(), 2);
}
