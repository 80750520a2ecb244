//! The laws of [`MessageLog`](ports::message_log::MessageLog).
//!
//! Case is only ever folded in ASCII here: what a database does beyond it depends on its locale.
#![expect(missing_docs, reason = "the name of a law is its sentence")]

use std::time::Duration;

use common::EnvelopeId;
use common::message::Party;
use ports::event_store::{Detail, NewUpdate};
use ports::message_log::{LoggedMessage, MessageFilter, MessagePage, MessageTotals};

use crate::clock::START;
use crate::harness::Harness;
use crate::samples::{by_both, by_phone, by_user_id, impersonal, message, status};
use crate::scene::{Scene, tenant};

/// One test for each law of the message log.
#[macro_export]
macro_rules! message_log_contract {
    ($harness:ident) => {
        $crate::laws!($harness, message_log:
            an_empty_log_has_an_empty_page,
            a_message_is_found_as_soon_as_it_is_committed,
            a_message_shows_who_sent_it_to_whom_when_and_what,
            a_sender_without_a_phone_number_shows_as_the_user_id,
            only_inbound_messages_are_found,
            messages_come_in_the_order_of_time_and_id,
            a_message_shows_whose_it_is_and_the_envelope_that_brought_it_first,
            the_search_by_id_is_exact,
            the_search_by_sender_is_exact,
            the_search_by_time_includes_the_moment_itself,
            the_search_by_text_ignores_case,
            the_search_by_text_takes_wildcards_literally,
            the_search_by_text_finds_no_message_without_text,
            the_search_by_tenant_finds_only_its_messages,
            all_conditions_hold_together,
            limit_and_offset_cut_a_page_and_the_total_counts_all,
            the_totals_of_nothing_are_empty,
            the_totals_sum_up,
            the_totals_count_each_sender_once,
            the_totals_name_the_ten_senders_with_the_most_messages,
            the_totals_of_a_tenant_are_its_own,
            the_log_survives_a_restart,
        );
    };
}

const ANY: MessageFilter =
    MessageFilter { tenant: None, message_id: None, from: None, since: None, text: None, limit: 100, offset: 0 };

fn saying(n: u32, saying: Option<&str>) -> NewUpdate {
    let mut update = message(n);
    let kind = if saying.is_some() { "text" } else { "image" };
    let text = saying.map(str::to_owned);
    update.event.detail = Detail::Message { id: format!("wamid.{n}"), kind: kind.to_owned(), text };
    update
}

fn from(n: u32, party: Party) -> NewUpdate {
    let mut update = message(n);
    update.event.party = party;
    update
}

fn at_second(n: u32, second: u64) -> NewUpdate {
    let mut update = message(n);
    update.event.occurred_at = START.plus(Duration::from_secs(second));
    update
}

async fn search<H: Harness>(scene: &Scene<H>, filter: MessageFilter) -> MessagePage {
    scene.message_log().search(&filter).await.unwrap()
}

/// The ids that a filter finds; their count must be the total.
async fn found<H: Harness>(scene: &Scene<H>, filter: MessageFilter) -> Vec<String> {
    let page = search(scene, filter).await;
    assert_eq!(page.total, page.messages.len() as u64);
    page.messages.into_iter().map(|each| each.message_id).collect()
}

async fn totals<H: Harness>(scene: &Scene<H>) -> MessageTotals {
    scene.message_log().totals(None).await.unwrap()
}

fn text(text: &str) -> MessageFilter {
    MessageFilter { text: Some(text.to_owned()), ..ANY }
}

pub async fn an_empty_log_has_an_empty_page<H: Harness>() {
    let scene = Scene::<H>::open().await;
    assert_eq!(search(&scene, ANY).await, MessagePage::default());
}

pub async fn a_message_is_found_as_soon_as_it_is_committed<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit_new(vec![message(1)]).await;
    assert_eq!(found(&scene, ANY).await, ["wamid.1"], "also before its event is sequenced");
}

pub async fn a_message_shows_who_sent_it_to_whom_when_and_what<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let updates = vec![message(1), saying(2, None)];
    scene.commit_new(updates.clone()).await;
    let expected = |n: u64, text: Option<&str>| LoggedMessage {
        tenant: tenant("acme"),
        envelope: updates[usize::try_from(n).unwrap() - 1].envelope,
        received_at: START.plus(Duration::from_secs(n)),
        message_id: format!("wamid.{n}"),
        from: Some("+491700000001".to_owned()),
        to: Some("+15550000777".to_owned()),
        at: START.plus(Duration::from_secs(n)),
        text: text.map(str::to_owned),
    };
    assert_eq!(search(&scene, ANY).await.messages, [expected(1, Some("hello 1")), expected(2, None)]);
}

pub async fn a_sender_without_a_phone_number_shows_as_the_user_id<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let updates =
        vec![from(1, by_both("+491700000001", "DE.1")), from(2, by_user_id("DE.2")), from(3, Party::default())];
    scene.commit_new(updates).await;
    let senders: Vec<_> = search(&scene, ANY).await.messages.into_iter().map(|each| each.from).collect();
    assert_eq!(senders, [Some("+491700000001".to_owned()), Some("DE.2".to_owned()), None]);
}

pub async fn only_inbound_messages_are_found<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit_new(vec![status(1), message(2), impersonal(3, "777")]).await;
    assert_eq!(found(&scene, ANY).await, ["wamid.2"]);
    assert_eq!(totals(&scene).await.messages, 1);
}

pub async fn messages_come_in_the_order_of_time_and_id<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let updates = vec![at_second(3, 20), at_second(9, 10), at_second(2, 20), at_second(1, 30), at_second(4, 10)];
    scene.commit_new(updates).await;
    assert_eq!(found(&scene, ANY).await, ["wamid.4", "wamid.9", "wamid.2", "wamid.3", "wamid.1"]);
}

pub async fn a_message_shows_whose_it_is_and_the_envelope_that_brought_it_first<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let other =
        NewUpdate { tenant: tenant("other"), received_at: START.plus(Duration::from_millis(9_001)), ..message(2) };
    let updates = vec![message(1), other];
    scene.commit_new(updates.clone()).await;
    let later = START.plus(Duration::from_mins(1));
    let again = |update: &NewUpdate| NewUpdate { envelope: EnvelopeId::fresh(), received_at: later, ..update.clone() };
    scene.commit(updates.iter().map(again).collect()).await;
    let found = search(&scene, ANY).await.messages;
    let shown: Vec<_> = found.iter().map(|each| (&each.tenant, each.envelope, each.received_at)).collect();
    let first: Vec<_> = updates.iter().map(|each| (&each.tenant, each.envelope, each.received_at)).collect();
    assert_eq!(shown, first);
}

pub async fn the_search_by_id_is_exact<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let other = NewUpdate { tenant: tenant("other"), ..message(1) };
    scene.commit_new(vec![message(1), message(2), message(11), other]).await;
    let by = |id: &str| MessageFilter { message_id: Some(id.to_owned()), ..ANY };
    assert_eq!(found(&scene, by("wamid.1")).await, ["wamid.1", "wamid.1"], "each tenant's");
    let since = |second| Some(START.plus(Duration::from_secs(second)));
    assert_eq!(found(&scene, MessageFilter { since: since(2), ..by("wamid.2") }).await, ["wamid.2"]);
    assert!(found(&scene, MessageFilter { since: since(3), ..by("wamid.2") }).await.is_empty());
    for nobodys in ["wamid.", "WAMID.1", "wamid.1 ", "wamid.%", ""] {
        assert!(found(&scene, by(nobodys)).await.is_empty(), "{nobodys:?}");
    }
}

pub async fn the_search_by_sender_is_exact<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let numbers = ["+491700000001", "+4917000000011", "+491700000002"];
    scene.commit_new((1..).zip(numbers).map(|(n, phone)| from(n, by_phone(phone))).collect()).await;
    let by = |phone: &str| MessageFilter { from: Some(phone.to_owned()), ..ANY };
    assert_eq!(found(&scene, by("+491700000001")).await, ["wamid.1"]);
    assert!(found(&scene, by("+49170000000")).await.is_empty());
    assert!(found(&scene, by("%")).await.is_empty());
}

pub async fn the_search_by_time_includes_the_moment_itself<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit_new(vec![at_second(1, 10), at_second(2, 20), at_second(3, 30)]).await;
    let since = |second| MessageFilter { since: Some(START.plus(Duration::from_secs(second))), ..ANY };
    assert_eq!(found(&scene, since(20)).await, ["wamid.2", "wamid.3"]);
    assert_eq!(found(&scene, since(21)).await, ["wamid.3"]);
    let after = MessageFilter { since: Some(START.plus(Duration::from_millis(20_001))), ..ANY };
    assert_eq!(found(&scene, after).await, ["wamid.3"]);
}

pub async fn the_search_by_text_ignores_case<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene
        .commit_new(vec![saying(1, Some("Where is my ORDER?")), saying(2, Some("in order to")), saying(3, Some("no"))])
        .await;
    assert_eq!(found(&scene, text("order")).await, ["wamid.1", "wamid.2"]);
    assert_eq!(found(&scene, text("OrDeR")).await, ["wamid.1", "wamid.2"]);
    assert_eq!(found(&scene, text("my order?")).await, ["wamid.1"]);
}

pub async fn the_search_by_text_takes_wildcards_literally<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let sayings = ["100% sure", "100 sure", "a_b", "axb", r"c:\temp", "c:/temp", "it's", "[a]"];
    scene.commit_new((1..).zip(sayings).map(|(n, each)| saying(n, Some(each))).collect()).await;
    assert_eq!(found(&scene, text("%")).await, ["wamid.1"]);
    assert_eq!(found(&scene, text("0% s")).await, ["wamid.1"]);
    assert_eq!(found(&scene, text("_")).await, ["wamid.3"]);
    assert_eq!(found(&scene, text("a_b")).await, ["wamid.3"]);
    assert_eq!(found(&scene, text(r"\")).await, ["wamid.5"]);
    assert_eq!(found(&scene, text("'")).await, ["wamid.7"]);
    assert_eq!(found(&scene, text("[a]")).await, ["wamid.8"]);
    assert!(found(&scene, text("*")).await.is_empty());
}

pub async fn the_search_by_text_finds_no_message_without_text<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit_new(vec![saying(1, None), saying(2, Some("a picture"))]).await;
    assert_eq!(found(&scene, text("image")).await, Vec::<String>::new());
    assert_eq!(found(&scene, text("a")).await, ["wamid.2"]);
}

pub async fn the_search_by_tenant_finds_only_its_messages<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let other = |update| NewUpdate { tenant: tenant("other"), ..update };
    scene.commit_new(vec![message(1), other(message(2)), other(message(1))]).await;
    let of = |name| MessageFilter { tenant: Some(tenant(name)), ..ANY };
    assert_eq!(found(&scene, of("acme")).await, ["wamid.1"]);
    assert_eq!(found(&scene, of("other")).await, ["wamid.1", "wamid.2"]);
    assert_eq!(found(&scene, ANY).await.len(), 3);
    assert!(found(&scene, of("nobody")).await.is_empty());
}

pub async fn all_conditions_hold_together<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let other_tenant = NewUpdate { tenant: tenant("other"), ..message(20) };
    let updates = vec![message(1), message(2), from(3, by_phone("+491700000002")), saying(4, Some("bye")), message(5)];
    scene.commit_new([updates, vec![other_tenant]].concat()).await;
    let filter = MessageFilter {
        tenant: Some(tenant("acme")),
        message_id: None,
        from: Some("+491700000001".to_owned()),
        since: Some(START.plus(Duration::from_secs(2))),
        text: Some("HELLO".to_owned()),
        ..ANY
    };
    assert_eq!(found(&scene, filter.clone()).await, ["wamid.2", "wamid.5"]);
    for (id, expected) in [("wamid.5", &["wamid.5"][..]), ("wamid.1", &[]), ("wamid.4", &[])] {
        assert_eq!(found(&scene, MessageFilter { message_id: Some(id.to_owned()), ..filter.clone() }).await, expected);
    }
}

pub async fn limit_and_offset_cut_a_page_and_the_total_counts_all<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit_new((11..=25).map(message).collect()).await;
    let mut all = Vec::new();
    for (offset, expected) in [(0, 6), (6, 6), (12, 3), (18, 0)] {
        let page = search(&scene, MessageFilter { limit: 6, offset, ..text("hello") }).await;
        assert_eq!((page.total, page.messages.len()), (15, expected));
        all.extend(page.messages.into_iter().map(|each| each.message_id));
    }
    assert_eq!(all, (11..=25).map(|n| format!("wamid.{n}")).collect::<Vec<_>>());
}

pub async fn the_totals_of_nothing_are_empty<H: Harness>() {
    let scene = Scene::<H>::open().await;
    assert_eq!(totals(&scene).await, MessageTotals::default());
}

pub async fn the_totals_sum_up<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let updates =
        vec![message(7), message(3), from(5, by_phone("+491700000002")), from(4, by_user_id("DE.9")), status(99)];
    scene.commit_new(updates).await;
    let mut sum = totals(&scene).await;
    // Senders with as many messages come in any order.
    sum.top_senders[1..].sort_unstable();
    let sender = |who: &str, count| (who.to_owned(), count);
    assert_eq!(
        sum,
        MessageTotals {
            messages: 4,
            senders: 3,
            top_senders: vec![sender("+491700000001", 2), sender("+491700000002", 1), sender("DE.9", 1)],
            first: Some(START.plus(Duration::from_secs(3))),
            last: Some(START.plus(Duration::from_secs(7))),
        }
    );
}

pub async fn the_totals_count_each_sender_once<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit_new((1..=20).map(|n| from(n, by_phone(&format!("+49170000000{}", n % 4)))).collect()).await;
    let sum = totals(&scene).await;
    assert_eq!((sum.messages, sum.senders), (20, 4));
    assert!(sum.top_senders.iter().all(|(_, count)| *count == 5));
}

pub async fn the_totals_name_the_ten_senders_with_the_most_messages<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let phone = |who: u32| format!("+4917000000{who:02}");
    // Sender `who` sends `who` messages.
    let updates = (1..=12).flat_map(|who| (0..who).map(move |n| from(who * 100 + n, by_phone(&phone(who))))).collect();
    scene.commit_new(updates).await;
    let sum = totals(&scene).await;
    assert_eq!((sum.messages, sum.senders), (78, 12));
    assert_eq!(sum.top_senders, (3..=12).rev().map(|who| (phone(who), u64::from(who))).collect::<Vec<_>>());
}

pub async fn the_totals_of_a_tenant_are_its_own<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit_new(vec![message(1), NewUpdate { tenant: tenant("other"), ..message(2) }, message(3)]).await;
    let own = scene.message_log().totals(Some(&tenant("other"))).await.unwrap();
    assert_eq!((own.messages, own.senders), (1, 1));
    assert_eq!(own.first, Some(START.plus(Duration::from_secs(2))));
    assert_eq!(own.first, own.last);
    let nobody = scene.message_log().totals(Some(&tenant("nobody"))).await.unwrap();
    assert_eq!(nobody, MessageTotals::default());
}

pub async fn the_log_survives_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit_new(vec![message(1), message(2)]).await;
    let (before, sum) = (search(&scene, ANY).await, totals(&scene).await);
    let scene = scene.restart().await;
    assert_eq!(search(&scene, ANY).await, before);
    assert_eq!(totals(&scene).await, sum);
}
