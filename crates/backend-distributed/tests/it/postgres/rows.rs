use DeliveryState::{Delivered, Failed, Read, Sent};

use super::*;

fn letter(n: u32, reason: &str) -> DeadLetter {
    DeadLetter {
        tenant: TenantId::new("acme").unwrap(),
        provider: Provider::Meta,
        key: key(n),
        envelope: EnvelopeId::fresh(),
        received_at: START,
        reason: reason.to_owned(),
        sealed: b"sealed".as_slice().into(),
        message: Some((format!("wamid.{n}"), Some("+491700000001".to_owned()))),
    }
}

fn record(stored: &[EventKey], duplicates: &[EventKey], second: u64) -> RequestRecord {
    RequestRecord {
        request: RequestId::fresh(),
        received_at: START.plus(Duration::from_secs(second)),
        source_ip: std::net::Ipv4Addr::LOCALHOST.into(),
        provider: Provider::Meta,
        endpoint: "/webhooks/\0meta".to_owned(),
        app: None,
        tenant: Some(TenantId::new("acme").unwrap()),
        event: Some(key(1)),
        event_type: Some("message".to_owned()),
        event_count: 1,
        signature: SignatureStatus::Valid,
        http_status: 200,
        outcome: Outcome::Accepted,
        reason: None,
        suspicious: false,
        processing_ms: 1.25,
        weight: 1,
        messages: vec![RecordedMessages {
            tenant: TenantId::new("acme").unwrap(),
            stored: stored.to_vec(),
            duplicates: duplicates.to_vec(),
        }],
    }
}

async fn log(scene: &PostgresHarness, record: RequestRecord) {
    let batch = RecordBatch { id: Uuid::now_v7(), records: vec![record] };
    for _ in 0..2 {
        scene.request_log.record(std::slice::from_ref(&batch)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_counts_once_for_each_envelope() {
    let scene = PostgresHarness::fresh().await;
    let (first, second) = (message(1), message(1));
    scene.commit(vec![first.clone(), message(2)]).await;
    scene.commit(vec![first, second.clone(), second.clone()]).await;
    scene.commit(vec![second, message(1), message(1)]).await;
    let row =
        scene.rows("SELECT duplicate_count, last_duplicate_at = received_at FROM messages ORDER BY message_id").await;
    assert_eq!((row[0].get::<i32, _>(0), row[0].get::<bool, _>(1)), (3, true));
    assert_eq!((row[1].get::<i32, _>(0), row[1].get::<Option<bool>, _>(1)), (0, None));
    assert_eq!(scene.count("SELECT sum(count)::bigint FROM event_keys").await, 8, "all that came is counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_says_whose_webhook_it_came_in() {
    let scene = PostgresHarness::fresh().await;
    let updates = (1..).zip(Provider::ALL).map(|(n, provider)| NewUpdate { provider, ..message(n) });
    let dead_letters = (11..).zip(Provider::ALL).map(|(n, provider)| DeadLetter { provider, ..letter(n, "broken") });
    let batch = Batch { updates: updates.collect(), dead_letters: dead_letters.collect(), ..Batch::default() };
    scene.store.commit(batch).await.unwrap();
    let rows =
        scene.rows("SELECT webhook_source FROM webhook_messages ORDER BY status, length(message_id), message_id");
    let sources: Vec<String> = rows.await.iter().map(|row| row.get(0)).collect();
    assert_eq!(sources, ["whatsapp", "twilio", "generic", "whatsapp", "twilio", "generic"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_a_failed_message_until_it_is_released() {
    let scene = PostgresHarness::fresh().await;
    let bury = async |letter| {
        let batch = Batch { dead_letters: vec![letter], ..Batch::default() };
        scene.store.commit(batch).await.unwrap();
    };
    let first = letter(1, "first");
    bury(first.clone()).await;
    bury(first).await;
    bury(letter(1, "second")).await;
    let view = "SELECT status, error_message, error_count, duplicate_count, response_time_ms FROM webhook_messages";
    let row = &scene.rows(view).await[..];
    assert_eq!((row.len(), row[0].get::<&str, _>(0), row[0].get::<&str, _>(1)), (1, "failed", "second"));
    assert_eq!(row[0].get::<i32, _>(2), 2, "counted once for each envelope");
    log(&scene, record(&[key(1)], &[], 0)).await;
    let mut released = message(1);
    released.received_at = START.plus(Duration::from_hours(24 * 30));
    assert_eq!(scene.commit(vec![released]).await, [New]);
    let row = &scene.rows(view).await[..];
    assert_eq!((row.len(), row[0].get::<&str, _>(0), row[0].get::<i32, _>(2)), (1, "completed", 2));
    assert!((row[0].get::<f64, _>(4) - 1.25).abs() < 1e-9, "what was recorded of it stays");
    bury(letter(1, "third")).await;
    let row = &scene.rows(view).await[..];
    assert_eq!((row.len(), row[0].get::<&str, _>(0), row[0].get::<&str, _>(1)), (1, "failed", "third"));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_and_messages_meet_whichever_comes_first() {
    let scene = PostgresHarness::fresh().await;
    log(&scene, record(&[key(1)], &[key(2)], 5)).await;
    log(&scene, record(&[], &[key(1), key(1)], 9)).await;
    scene.commit((1..=3).map(message).collect()).await;
    log(&scene, record(&[key(2), key(3)], &[key(3)], 7)).await;
    let rows = scene
        .rows(
            "SELECT response_time_ms, duplicate_count, (extract(epoch FROM last_duplicate_at) * 1000)::bigint \
               FROM messages ORDER BY message_id",
        )
        .await;
    let last = |second: u64| START.plus(Duration::from_secs(second)).as_millis();
    let seen: Vec<(f64, i32, i64)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(seen, [(1.25, 2, last(9)), (1.25, 1, last(5)), (1.25, 1, last(7))]);
    assert_eq!(scene.count("SELECT count(*) FROM message_receipts").await, 0);
    assert_eq!(scene.count("SELECT count(*) FROM webhook_signature_log").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_and_messages_meet_when_they_come_at_the_same_time() {
    let scene = PostgresHarness::fresh().await;
    for round in 0..40 {
        let keys: Vec<EventKey> = (0..5).map(|n| key(round * 10 + n)).collect();
        let updates = (0..5).map(|n| message(round * 10 + n)).collect();
        tokio::join!(log(&scene, record(&keys, &keys, 1)), scene.commit(updates));
    }
    assert_eq!(scene.count("SELECT count(*) FROM message_receipts").await, 0);
    let met = "SELECT count(*) FROM messages WHERE response_time_ms IS NOT NULL AND duplicate_count = 1";
    assert_eq!(scene.count(met).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_only_moves_forward_in_whichever_order_statuses_come() {
    let scene = PostgresHarness::fresh().await;
    let with = |n: u32, of: u32, state: DeliveryState| {
        let mut update = status(n);
        if let Detail::Status(status) = &mut update.event.detail {
            status.state = state;
            status.message_id = format!("wamid.out.{of}");
        }
        update
    };
    scene.commit(vec![with(1, 1, Delivered), with(2, 2, Sent), with(3, 3, Sent)]).await;
    let more = [(10, 1, Failed), (11, 1, Read), (12, 2, Failed), (13, 2, Read), (14, 3, Read), (15, 3, Delivered)];
    scene.commit(more.map(|(n, of, state)| with(n, of, state)).to_vec()).await;
    let states = scene.rows("SELECT state FROM message_states ORDER BY message_id").await;
    assert_eq!(states.iter().map(|row| row.get(0)).collect::<Vec<&str>>(), ["read", "failed", "read"]);
    assert_eq!(scene.count("SELECT count(*) FROM statuses").await, 9, "every status is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_refuses_leaves_its_neighbours() {
    let scene = PostgresHarness::fresh().await;
    // Too long for an index, and not compressible.
    let long: String = (0..400).map(|_| Uuid::now_v7().simple().to_string()).collect();
    let mut updates: Vec<NewUpdate> = (0..20).map(message).collect();
    updates[3].event.party = by_phone(&long);
    updates[11].event.party = by_user_id(&long);
    updates[12].event.group = Some(long);
    let outcomes = scene.commit(updates.clone()).await;
    let refused: Vec<usize> = (0..20).filter(|index| matches!(outcomes[*index], Refused(_))).collect();
    assert_eq!(refused, [3, 11, 12]);
    let keys: Vec<EventKey> = scene.feed_after_sequencing().await.iter().map(|event| event.key).collect();
    assert_eq!(keys, (0..20).filter(|n| ![3, 11, 12].contains(n)).map(key).collect::<Vec<_>>(), "in order");
    assert_eq!(scene.count("SELECT count(*) FROM event_keys").await, 17);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_timestamps_and_texts_are_stored() {
    let scene = PostgresHarness::fresh().await;
    let moments = [i64::MIN, i64::MAX, -62_135_596_800_001, 253_402_300_800_000, -1, 0, 9_999_999_999_999_999];
    let mut updates: Vec<NewUpdate> = (0..).zip(moments).map(|(n, millis)| at(n, millis)).collect();
    let mut odd = with_text(50, "a\0b\u{1f680}\u{202e}\\'\"");
    odd.event.party = Party { user_id: Some("u\0\0".into()), ..by_phone("+49\0") };
    odd.event.display_number = Some("\0".into());
    updates.push(odd);
    let mut grouped = status(51);
    grouped.event.group = Some("g\0".into());
    grouped.event.occurred_at = Timestamp::from_millis(i64::MAX);
    updates.push(grouped);
    assert_eq!(scene.commit(updates.clone()).await, vec![New; 9]);
    assert_eq!(scene.commit(updates).await, vec![Duplicate; 9]);
    let events = scene.feed_after_sequencing().await;
    assert_eq!(events[0].occurred_at.to_string(), "0001-01-01T00:00:00Z");
    assert_eq!(events[1].occurred_at.to_string(), "9999-12-31T23:59:59.999Z");
    assert_eq!((events[4].occurred_at.as_millis(), events[5].occurred_at.as_millis()), (-1, 0));
    let since = Some(Timestamp::from_millis(i64::MAX));
    for filter in [
        MessageFilter { since, limit: 100, ..MessageFilter::default() },
        MessageFilter { text: Some("A\0B".into()), limit: 100, ..MessageFilter::default() },
        MessageFilter { from: Some("+49\0".into()), limit: 100, ..MessageFilter::default() },
    ] {
        assert!(scene.message_log().search(&filter).await.unwrap().total > 0, "{filter:?}");
    }
    assert!(scene.message_log().totals(None).await.unwrap().last.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_bounded_by_bytes_and_go_on() {
    let scene = PostgresHarness::fresh().await;
    for n in 0..5 {
        let mut update = impersonal(n, "777");
        update.event.data = vec![b'1'; 3 << 20].into();
        scene.commit(vec![update]).await;
    }
    let (mut next, mut sizes) = (0, Vec::new());
    scene.feed_after_sequencing().await;
    for _ in 0..3 {
        let page = scene.feed().read(next, 100, &FeedFilter::default()).await.unwrap();
        sizes.push(page.events.len());
        next = page.next;
    }
    assert_eq!(sizes, [3, 2, 0]);
    let claim = async || scene.outbox().claim(Uuid::from_u128(1), 100, Duration::from_mins(1)).await.unwrap().len();
    assert_eq!([claim().await, claim().await, claim().await], [3, 2, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_strangers_with_one_phone_number_stay_two_people() {
    let scene = PostgresHarness::fresh().await;
    for round in 0..20_u32 {
        let phone = format!("+4917000{round:05}");
        scene
            .commit(vec![NewUpdate { tenant: TenantId::new("acme").unwrap(), ..with(round * 10, &phone, None) }])
            .await;
        let (one, two) = (with(round * 10 + 1, &phone, Some("A")), with(round * 10 + 2, &phone, Some("B")));
        tokio::join!(scene.commit(vec![one]), scene.commit(vec![two]));
    }
    let people = "SELECT count(DISTINCT identity) FROM identity_aliases WHERE kind = 'user'";
    assert_eq!(scene.count(people).await, 40);
    let lost = "SELECT count(*) FROM identity_aliases AS a JOIN identities AS i ON i.id = a.identity \
                WHERE a.kind = 'user' AND i.user_id IS DISTINCT FROM a.value";
    assert_eq!(scene.count(lost).await, 0);
}

fn with(n: u32, phone: &str, user: Option<&str>) -> NewUpdate {
    let mut update = message(n);
    update.event.party = by_phone(phone);
    update.event.party.user_id = user.map(|user| format!("{user}{phone}"));
    update
}
