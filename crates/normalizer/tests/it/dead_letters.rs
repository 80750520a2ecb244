//! What can never be normalised, and what it must not take with it.

use port_contracts::Operation;
use ports::event_bus::Stream;

use crate::scene::{Scene, message_ids, text, webhook};

/// A message that the peek reads and the parse refuses: a key of its content comes twice.
const TWO_TEXTS: &str =
    r#"{"from":"4915100000009","id":"wamid.TWICE","type":"text","text":{"body":"a"},"text":{"body":"b"}}"#;

#[tokio::test]
async fn a_malformed_update_becomes_a_dead_letter_and_its_neighbours_pass() {
    let scene = Scene::new();
    let id = scene.send(&webhook("messages", &[text(1), "[5]".to_owned(), text(2)])).await;
    scene.send(&webhook("messages", &[text(3)])).await;
    assert_eq!(scene.step().await.events, 3);
    assert_eq!(message_ids(&scene.backend), ["wamid.00001", "wamid.00002", "wamid.00003"]);
    let letters = scene.backend.dead_letters();
    let [letter] = &letters[..] else { panic!("one dead letter") };
    assert_eq!((letter.envelope, letter.tenant.as_str(), &letter.message), (id, "acme", &None));
    assert_eq!(letter.reason, "the update has not the documented shape");
    let (header, body) = scene.opened(&letter.sealed);
    assert_ne!(header.id, id, "it is an envelope of its own");
    assert_eq!((header.updates, header.tenant.as_str()), (1, "acme"));
    assert_eq!(body, webhook("messages", &["[5]".to_owned()]));
}

#[tokio::test]
async fn a_message_that_cannot_be_parsed_keeps_its_id_and_its_sender() {
    let scene = Scene::new();
    scene.send(&webhook("messages", &[TWO_TEXTS.to_owned()])).await;
    assert_eq!(scene.step().await.events, 0);
    let letter = scene.backend.dead_letters().remove(0);
    assert_eq!(letter.reason, "a key of the update comes twice");
    assert_eq!(letter.message, Some(("wamid.TWICE".to_owned(), Some("+4915100000009".to_owned()))));
}

#[tokio::test]
async fn a_dead_letter_is_written_once_however_often_its_envelope_comes() {
    let scene = Scene::new();
    scene.send(&webhook("messages", &[TWO_TEXTS.to_owned()])).await;
    scene.handle(scene.pull().await).await;
    let first = scene.backend.dead_letters();
    scene.backend.crash();
    scene.step().await;
    assert_eq!(scene.backend.dead_letters().len(), 1);
    assert_eq!(scene.opened(&first[0].sealed).0.id, scene.opened(&scene.backend.dead_letters()[0].sealed).0.id);
}

#[tokio::test]
async fn thousands_of_malformed_updates_share_a_dead_letter() {
    let scene = Scene::new();
    scene.send(&webhook("messages", &vec!["5".to_owned(); 50_000])).await;
    scene.step().await;
    let letters = scene.backend.dead_letters();
    assert_eq!(letters.len(), 65);
    let updates: u32 = letters.iter().map(|letter| scene.opened(&letter.sealed).0.updates).sum();
    assert_eq!(updates, 50_000, "nothing is lost");
}

#[tokio::test]
async fn what_the_database_refuses_becomes_a_dead_letter_and_its_neighbours_pass() {
    let scene = Scene::new();
    scene.backend.refuse_when(|update| {
        std::str::from_utf8(&update.event.data).unwrap().contains("words 2").then(|| "too long".to_owned())
    });
    scene.send(&webhook("messages", &[text(1), text(2), text(3)])).await;
    assert_eq!(scene.step().await.events, 2);
    assert_eq!(message_ids(&scene.backend), ["wamid.00001", "wamid.00003"]);
    let letters = scene.backend.dead_letters();
    assert_eq!((letters.len(), letters[0].reason.as_str()), (1, "too long"));
    assert_eq!(scene.opened(&letters[0].sealed).1, webhook("messages", &[text(2)]));
    assert_eq!(letters[0].message, Some(("wamid.00002".to_owned(), Some("+4915100000002".to_owned()))));
    assert_eq!(scene.depth().await, 0);
}

#[tokio::test]
async fn a_refused_update_is_kept_though_the_store_fails_before_its_dead_letter() {
    let scene = Scene::new();
    scene.backend.refuse_when(|_| Some("too long".to_owned()));
    scene.send(&webhook("messages", &[text(1)])).await;
    let mut work = normalizer::Work::split(scene.pull().await, &scene.config).remove(0);
    scene.backend.faults().lose_next_answers(Operation::Commit, 1);
    assert!(scene.normalizer.handle(&mut work).await.is_err());
    assert!(scene.backend.dead_letters().is_empty());
    assert_eq!(scene.normalizer.handle(&mut work).await.unwrap().done.len(), 1);
    assert_eq!(scene.backend.dead_letters().len(), 1);
}

#[tokio::test]
async fn bytes_that_are_no_envelope_become_one_dead_letter() {
    let scene = Scene::new();
    for _ in 0..2 {
        scene.publish("no envelope").await;
    }
    assert_eq!(scene.step().await.done.len(), 2);
    let letters = scene.backend.dead_letters();
    let [letter] = &letters[..] else { panic!("one dead letter") };
    assert!(letter.tenant.is_unassigned());
    assert_eq!((letter.reason.as_str(), &letter.sealed[..]), ("corrupt envelope", &b"no envelope"[..]));
}

#[tokio::test]
async fn an_envelope_that_was_changed_becomes_a_dead_letter_as_it_is() {
    let scene = Scene::new();
    let header = scene.header("acme");
    let id = header.id;
    let mut sealed = scene.seal(header, &webhook("messages", &[text(1)])).to_vec();
    *sealed.last_mut().unwrap() ^= 1;
    scene.publish(sealed.clone()).await;
    scene.send(&webhook("messages", &[text(2)])).await;
    assert_eq!(scene.step().await.events, 1);
    let letter = scene.backend.dead_letters().remove(0);
    assert_eq!((letter.envelope, letter.reason.as_str(), &letter.sealed[..]), (id, "does not open", &sealed[..]));
}

#[tokio::test]
async fn an_envelope_that_nobody_survives_becomes_a_dead_letter_unopened() {
    let scene = Scene::new();
    let id = scene.send(&webhook("messages", &[text(1)])).await;
    for _ in 0..3 {
        // Three processes began and died.
        scene.backend.store().begin_attempt(id).await.unwrap();
        let taken = scene.pull().await;
        hand_back(&scene, &taken).await;
    }
    scene.send(&webhook("messages", &[text(2)])).await;
    assert_eq!(scene.step().await.events, 1, "the other one passes");
    let letter = scene.backend.dead_letters().remove(0);
    assert_eq!((letter.envelope, letter.reason.as_str()), (id, "unfinished attempts"));
    assert_eq!(scene.opened(&letter.sealed).0.id, id, "it is kept as it is");
    assert_eq!((message_ids(&scene.backend), scene.depth().await), (vec!["wamid.00002".to_owned()], 0));
}

#[tokio::test]
async fn an_envelope_that_was_only_delivered_often_is_handled_and_its_attempts_are_cleared() {
    let scene = Scene::new();
    let id = scene.send(&webhook("messages", &[text(1)])).await;
    for _ in 0..3 {
        let taken = scene.pull().await;
        hand_back(&scene, &taken).await;
    }
    assert_eq!(scene.step().await.events, 1);
    assert_eq!(scene.backend.faults().calls(Operation::BeginAttempt), 1);
    assert_eq!(scene.backend.attempts(id), 0);
}

#[tokio::test]
async fn an_outage_is_not_counted_as_an_attempt() {
    let scene = Scene::new();
    let id = scene.send(&webhook("messages", &[text(1)])).await;
    for _ in 0..3 {
        let taken = scene.pull().await;
        hand_back(&scene, &taken).await;
    }
    let mut work = normalizer::Work::split(scene.pull().await, &scene.config).remove(0);
    scene.backend.faults().fail_next(Operation::Commit, 20);
    for _ in 0..20 {
        assert!(scene.normalizer.handle(&mut work).await.is_err());
        assert_eq!(scene.backend.attempts(id), 0);
    }
    // Nor does one that the store does not let us take back count twice.
    scene.backend.faults().fail_next(Operation::Commit, 20);
    scene.backend.faults().take_down(Operation::TakeBackAttempt);
    for _ in 0..20 {
        assert!(scene.normalizer.handle(&mut work).await.is_err());
        assert_eq!(scene.backend.attempts(id), 1);
    }
    assert_eq!(scene.normalizer.handle(&mut work).await.unwrap().events, 1);
    assert!(scene.backend.dead_letters().is_empty());
}

async fn hand_back(scene: &Scene, taken: &[ports::event_bus::Delivery]) {
    let consumer = normalizer::consumer_live(&scene.config);
    assert_eq!(consumer.stream, Stream::Inbound(common::envelope::Lane::Live));
    let tokens: Vec<_> = taken.iter().map(|delivery| delivery.token.clone()).collect();
    scene.deps.bus.retry_after(&consumer, &tokens, std::time::Duration::ZERO).await.unwrap();
}
