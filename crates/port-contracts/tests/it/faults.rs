//! The faults that the fakes can be made to have.

use std::time::Duration;

use bytes::Bytes;
use common::envelope::Lane;
use port_contracts::samples::{key, message};
use port_contracts::{ManualClock, MemoryBackend, Operation};
use ports::event_bus::{Consumer, Outgoing, PublishError, Stream};
use ports::event_store::{Batch, CommitOutcome};

const LIVE: Stream = Stream::Inbound(Lane::Live);
const CONSUMER: Consumer = Consumer { name: "normalizer", stream: LIVE, ack_wait: Duration::from_secs(30) };

fn backend() -> MemoryBackend {
    MemoryBackend::new(ManualClock::new())
}

fn outgoing(text: &'static str) -> Outgoing {
    let subject = "inbound.live.acme".to_owned();
    Outgoing { stream: LIVE, subject, payload: Bytes::from_static(text.as_bytes()), dedup_id: None }
}

fn batch(n: u32) -> Batch {
    Batch { updates: vec![message(n)], ..Batch::default() }
}

#[tokio::test]
async fn a_failed_call_does_nothing_and_the_one_after_succeeds() {
    let backend = backend();
    backend.faults().fail_next(Operation::Commit, 2);
    assert!(backend.store().commit(batch(1)).await.is_err());
    assert!(backend.store().commit(batch(1)).await.is_err());
    assert!(backend.committed().is_empty());
    assert_eq!(backend.store().commit(batch(1)).await.unwrap().outcomes, [CommitOutcome::New]);
    assert_eq!(backend.faults().calls(Operation::Commit), 3);
}

#[tokio::test]
async fn a_lost_answer_leaves_the_work_done() {
    let backend = backend();
    backend.faults().lose_next_answers(Operation::Publish, 1);
    let answers = backend.bus().publish(vec![outgoing("a"), outgoing("b")]).await;
    assert!(matches!(&answers[..], [Err(PublishError::Unavailable(_)), Err(PublishError::Unavailable(_))]));
    assert_eq!(backend.published(LIVE).len(), 2);
    backend.faults().lose_next_answers(Operation::Commit, 1);
    assert!(backend.store().commit(batch(1)).await.is_err());
    assert_eq!(backend.store().commit(batch(1)).await.unwrap().outcomes, [CommitOutcome::Duplicate]);
}

#[tokio::test]
async fn a_hanging_call_goes_on_when_restored() {
    let backend = backend();
    backend.faults().hang(Operation::Commit);
    let store = backend.store();
    let restore = async {
        backend.faults().hanging(Operation::Commit, 1).await;
        assert!(backend.committed().is_empty());
        backend.faults().restore(Operation::Commit);
    };
    let (committed, ()) = tokio::join!(store.commit(batch(1)), restore);
    assert_eq!(committed.unwrap().outcomes, [CommitOutcome::New]);
}

#[tokio::test]
async fn a_caller_who_gives_up_on_a_hanging_call_has_done_nothing() {
    let backend = backend();
    backend.faults().hang(Operation::Publish);
    let given_up = tokio::time::timeout(Duration::from_millis(10), backend.bus().publish(vec![outgoing("a")])).await;
    assert!(given_up.is_err());
    backend.faults().restore(Operation::Publish);
    assert!(backend.published(LIVE).is_empty());
}

#[tokio::test]
async fn what_is_down_stays_down_until_restored() {
    let backend = backend();
    backend.faults().take_down(Operation::Admit);
    let limit = ports::admission::SenderLimit { max: 1, window: Duration::from_secs(1) };
    for _ in 0..3 {
        assert!(backend.admission().admit(&[], limit).await.is_err());
    }
    backend.faults().restore(Operation::Admit);
    assert!(backend.admission().admit(&[], limit).await.is_ok());
}

#[tokio::test]
async fn a_disconnected_bus_says_so_and_fails() {
    let backend = backend();
    backend.faults().disconnect();
    assert!(!backend.bus().is_connected());
    assert!(backend.bus().pull(&CONSUMER, 1, Duration::ZERO).await.is_err());
    assert!(backend.bus().publish(vec![outgoing("a")]).await[0].is_err());
    backend.faults().reconnect();
    assert!(backend.bus().is_connected());
    assert!(backend.bus().publish(vec![outgoing("a")]).await[0].is_ok());
}

#[tokio::test]
async fn a_subject_can_be_full_while_others_are_not() {
    let backend = backend();
    backend.faults().fill("inbound.live.acme");
    let other = Outgoing { subject: "inbound.live.other".to_owned(), ..outgoing("b") };
    let answers = backend.bus().publish(vec![outgoing("a"), other]).await;
    assert!(matches!(&answers[..], [Err(PublishError::Full { stream: "inbound_live" }), Ok(_)]));
    backend.faults().make_room("inbound.live.acme");
    assert!(backend.bus().publish(vec![outgoing("a")]).await[0].is_ok());
}

#[tokio::test]
async fn the_database_refuses_what_it_is_told_to() {
    let backend = backend();
    backend.refuse_when(|update| (update.key == key(2)).then(|| "told to".to_owned()));
    let updates = (1..=3).map(message).collect();
    let outcomes = backend.store().commit(Batch { updates, ..Batch::default() }).await.unwrap().outcomes;
    assert_eq!(outcomes, [CommitOutcome::New, CommitOutcome::Refused("told to".to_owned()), CommitOutcome::New]);
    assert_eq!(backend.committed().iter().map(|update| update.key).collect::<Vec<_>>(), [key(1), key(3)]);
}

#[tokio::test]
async fn an_envelope_is_no_duplicate_of_itself() {
    let backend = backend();
    let first = batch(1);
    for again in [first.clone(), first, batch(1)] {
        backend.store().commit(again).await.unwrap();
    }
    assert_eq!(backend.duplicates(), 1);
}

#[tokio::test]
async fn a_turned_clock_wakes_a_waiting_pull() {
    let backend = backend();
    backend.bus().publish(vec![outgoing("a")]).await;
    backend.bus().pull(&CONSUMER, 1, Duration::ZERO).await.unwrap();
    let bus = backend.bus();
    let turn = async {
        backend.faults().called(Operation::Pull, 2).await;
        backend.clock().advance(CONSUMER.ack_wait);
    };
    let (taken, ()) = tokio::join!(bus.pull(&CONSUMER, 1, Duration::from_mins(1)), turn);
    assert_eq!(taken.unwrap()[0].delivered, 2);
}
