//! What becomes of envelopes that are to be delivered.

use common::envelope::Header;
use common::event::EventType;
use common::status::DeliveryState;
use common::update::{Provider, UpdateIdentity, UpdateKind};
use ports::event_store::Detail;

use crate::scene::{Scene, message_ids, of_number, status, tenant, text, webhook};

#[tokio::test]
async fn a_text_message_becomes_an_event_and_a_row() {
    let scene = Scene::new();
    let id = scene.send(&webhook("messages", &[text(1)])).await;
    assert_eq!(scene.step().await.events, 1);
    let stored = scene.backend.committed();
    let [update] = &stored[..] else { panic!("one update: {}", stored.len()) };
    assert_eq!((update.envelope, update.tenant.as_str()), (id, "acme"));
    assert_eq!(update.event.event_type, EventType::MessageReceived);
    assert_eq!(update.event.party.phone.as_deref(), Some("+4915100000001"));
    assert_eq!(update.event.number.as_ref().unwrap().as_str(), "777");
    assert_eq!(update.event.waba.as_deref(), Some("300"));
    assert!(matches!(&update.event.detail, Detail::Message { id, kind, text: Some(text) }
        if id == "wamid.00001" && kind == "text" && text == "private words 1"));
    let data: serde_json::Value = serde_json::from_slice(&update.event.data).unwrap();
    assert_eq!(data["text"]["body"], "private words 1");
    assert_eq!(scene.depth().await, 0);
}

/// Request records of the gateway name updates by this key.
#[tokio::test]
async fn an_update_has_the_key_that_the_gateway_gives_it() {
    let scene = Scene::new();
    scene.send(&webhook("messages", &[text(1)])).await;
    scene.step().await;
    let identity = UpdateIdentity {
        provider: Provider::Meta,
        number: Some("777"),
        kind: UpdateKind::Message,
        id: "wamid.00001",
        status: None,
        participant: None,
    };
    assert_eq!(scene.backend.committed()[0].key, scene.keys("acme").event_hash.event_key(&identity));
}

#[tokio::test]
async fn an_envelope_is_read_as_its_provider_writes() {
    let scene = Scene::new();
    scene.number("+15550001111", "app", &[("acme", common::Timestamp::default())]);
    let send = async |provider: Provider, body: &str| {
        let header = Header { provider, ..scene.header("acme") };
        scene.publish(scene.seal(header, body)).await;
    };
    let to = "To=whatsapp%3A%2B15550001111";
    send(Provider::Twilio, &format!("MessageSid=SM1&From=whatsapp%3A%2B15550009999&{to}&Body=one&NumMedia=0")).await;
    send(Provider::Twilio, &format!("MessageSid=SM2&From=whatsapp%3A%2B15550009999&{to}&Body=&NumMedia=1")).await;
    send(Provider::Twilio, "MessageSid=SM3&MessageStatus=read&From=whatsapp%3A%2B15550001111&To=whatsapp%3ADE.1").await;
    let ts = "1999-01-01T00:00:00Z";
    let generic =
        |id| format!(r#"{{"message_id":"{id}","from":"+15550009999","to":"+15550001111","ts":"{ts}","text":"three"}}"#);
    send(Provider::Generic, &generic("m1")).await;
    send(Provider::Generic, &generic("SM1")).await;
    assert_eq!(scene.step().await.events, 5);
    let stored = scene.backend.committed();
    let words: Vec<_> = stored.iter().map(|update| update.event.event_type.as_str()).collect();
    let (message, status, other) = ("wharf.message.received", "wharf.message.status", "wharf.unsupported");
    assert_eq!(words, [message, other, status, message, message]);
    let providers: Vec<_> = stored.iter().map(|update| update.provider).collect();
    let (twilio, generic) = (Provider::Twilio, Provider::Generic);
    assert_eq!(providers, [twilio, twilio, twilio, generic, generic]);
    assert_eq!(message_ids(&scene.backend), ["SM1", "SM2", "m1", "SM1"]);
    assert_eq!(stored[2].event.party.user_id.as_deref(), Some("DE.1"));
    assert!(stored.iter().all(|update| update.event.display_number.as_deref() == Some("+15550001111")));
    assert_eq!(
        [stored[0].event.occurred_at, stored[3].event.occurred_at],
        [scene.header("acme").received_at, ts.parse().unwrap()]
    );
}

#[tokio::test]
async fn a_malformed_request_of_twilio_is_a_dead_letter_with_its_bytes() {
    let scene = Scene::new();
    scene.number("+15550001111", "app", &[("acme", common::Timestamp::default())]);
    let body = "MessageSid=SM1&MessageSid=SM2&To=%2B15550001111&Body=x";
    let header = Header { provider: Provider::Twilio, ..scene.header("acme") };
    scene.publish(scene.seal(header, body)).await;
    assert_eq!(scene.step().await.events, 0);
    let letters = scene.backend.dead_letters();
    assert_eq!((letters.len(), letters[0].provider), (1, Provider::Twilio));
    assert_eq!(scene.opened(&letters[0].sealed).1, body);
}

#[tokio::test]
async fn statuses_become_events() {
    let scene = Scene::new();
    scene.send(&webhook("statuses", &[status(1, "sent"), status(1, "read"), status(1, "read")])).await;
    assert_eq!(scene.step().await.events, 2);
    let states: Vec<DeliveryState> = scene
        .backend
        .committed()
        .iter()
        .filter_map(|update| match &update.event.detail {
            Detail::Status(status) => Some(status.state),
            _ => None,
        })
        .collect();
    assert_eq!(states, [DeliveryState::Sent, DeliveryState::Read]);
}

#[tokio::test]
async fn unsupported_messages_are_kept_whole_and_count_as_messages() {
    let scene = Scene::new();
    let image = r#"{"from":"49151","id":"wamid.I","timestamp":"1794999999","type":"image","image":{"id":"1"}}"#;
    scene.send(&webhook("messages", &[image.to_owned()])).await;
    scene.send(&webhook("calls", &[r#"{"id":"wacid.C","event":"connect"}"#.to_owned()])).await;
    assert_eq!(scene.step().await.events, 2);
    let stored = scene.backend.committed();
    assert!(stored.iter().all(|update| update.event.event_type == EventType::Unsupported));
    assert!(matches!(&stored[0].event.detail, Detail::Message { kind, text: None, .. } if kind == "image"));
    assert!(matches!(&stored[1].event.detail, Detail::None));
    assert!(std::str::from_utf8(&stored[0].event.data).unwrap().contains(image));
}

#[tokio::test]
async fn a_duplicate_in_another_envelope_makes_no_second_event() {
    let scene = Scene::new();
    for _ in 0..3 {
        scene.send(&webhook("messages", &[text(1), text(2)])).await;
    }
    assert_eq!(scene.step().await.events, 2);
    assert_eq!(message_ids(&scene.backend), ["wamid.00001", "wamid.00002"]);
    assert_eq!(scene.backend.duplicates(), 4);
}

#[tokio::test]
async fn updates_without_an_id_are_never_duplicates_of_others() {
    let scene = Scene::new();
    let nameless = r#"{"from":"49151","type":"text","text":{"body":"x"}}"#.to_owned();
    for _ in 0..2 {
        scene.send(&webhook("messages", &[nameless.clone(), nameless.clone()])).await;
    }
    assert_eq!(scene.step().await.events, 4);
}

#[tokio::test]
async fn a_crash_between_commit_and_ack_changes_nothing() {
    let scene = Scene::new();
    let nameless = r#"{"type":"text","text":{"body":"x"}}"#.to_owned();
    scene.send(&webhook("messages", &[text(1), nameless, "5".to_owned()])).await;
    assert_eq!(scene.handle(scene.pull().await).await.events, 2);
    for _ in 0..2 {
        scene.backend.crash();
        let again = scene.handle(scene.pull().await).await;
        assert_eq!((again.done.len(), again.events), (1, 0));
    }
    assert_eq!(scene.backend.committed().len(), 2);
    assert_eq!(scene.backend.dead_letters().len(), 1);
    assert_eq!(scene.backend.duplicates(), 0, "an envelope is no duplicate of itself");
}

#[tokio::test]
async fn a_number_that_moved_belongs_to_its_owner_at_the_time_of_receipt() {
    let scene = Scene::new();
    let after = scene.now().plus(std::time::Duration::from_secs(1));
    scene.number("777", "app", &[("other", common::Timestamp::default()), ("acme", after)]);
    scene.send(&webhook("messages", &[text(1)])).await;
    assert_eq!(scene.step().await.events, 1);
    assert_eq!(scene.backend.committed()[0].tenant, tenant("other"));
    assert!(scene.backend.parked().is_empty());
}

#[tokio::test]
async fn a_large_batch_is_read_off_the_loop_and_committed_as_one() {
    let scene = Scene::new();
    for n in 0..300 {
        scene.send(&webhook("messages", &[text(n)])).await;
    }
    let deliveries = scene.pull().await;
    assert!(deliveries.iter().map(|delivery| delivery.payload.len()).sum::<usize>() > 64 << 10);
    assert_eq!(scene.handle(deliveries).await.events, 300);
    assert_eq!(scene.backend.faults().calls(port_contracts::Operation::Commit), 1);
    assert_eq!(message_ids(&scene.backend).len(), 300);
}

#[tokio::test]
async fn large_envelopes_are_committed_in_several_batches() {
    let scene = Scene::with(|config| config.batch_bytes = 2000);
    for n in 0..6 {
        scene.send(&webhook("messages", &[text(n)])).await;
    }
    assert_eq!(scene.step().await.events, 6);
    assert!(scene.backend.faults().calls(port_contracts::Operation::Commit) >= 3);
}

#[tokio::test]
async fn raw_envelopes_are_archived_in_one_object_for_each_batch() {
    let scene = Scene::new();
    scene.send(&webhook("messages", &[text(1)])).await;
    let sealed = scene.seal(scene.header("other"), &of_number("888", "messages", &[text(3)]));
    scene.publish(sealed.clone()).await;
    scene.publish("no envelope").await;
    scene.step().await;
    let objects = scene.backend.raw_objects();
    assert_eq!(objects.len(), 2);
    assert_eq!(objects[0].object, objects[1].object);
    assert!(objects[0].object.starts_with("raw/2026/11/18/11/"), "{}", objects[0].object);
    let bytes = std::fs::read(scene.folder.path().join(&objects[1].object)).unwrap();
    let offset = usize::try_from(objects[1].offset).unwrap();
    assert_eq!(&bytes[offset..][..usize::try_from(objects[1].length).unwrap()], &sealed[..]);
}
