use common::{Clock as _, SystemClock};
use port_contracts::queries;
use ports::event_store::Parked;
use ports::statistics::rollup::{Histogram, hour};
use sqlx::{Column as _, Executor as _, ValueRef as _};

use super::*;

/// A statement as a console runs it.
async fn printed(connection: &mut PgConnection, statement: &'static str) -> queries::Printed {
    let rows = connection.fetch_all(sqlx::raw_sql(statement)).await.unwrap();
    let cell = |row: &PgRow, at: usize| {
        let value = row.try_get_raw(at).unwrap();
        if value.is_null() { String::new() } else { value.as_str().unwrap().to_owned() }
    };
    let columns = |row: &PgRow| {
        row.columns().iter().map(|column| (column.name().to_owned(), cell(row, column.ordinal()))).collect()
    };
    rows.iter().map(columns).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statements_that_people_run_give_the_right_figures() {
    let scene = PostgresHarness::fresh().await;
    // Some of them ask the server for the time.
    let (clock, now) = (Arc::new(SystemClock), SystemClock.now());
    let (store, log) = (scene.postgres.event_store(clock.clone()), scene.postgres.request_log(clock));
    queries::load(&*store, &*log, now).await;
    queries::check(now, true, async |statement| printed(&mut scene.look().await, statement).await).await;
    let statistics = scene.statistics();
    let (since, until) = (now.minus(Duration::from_hours(24)), now.plus(Duration::from_mins(1)));
    let rows = statistics.performance(Some(Provider::Meta), since, until).await.unwrap();
    let view = scene.rows("SELECT p95_response_time_ms, p99_response_time_ms FROM webhook_performance_stats WHERE webhook_source = 'whatsapp'").await;
    assert!((rows[0].p95_ms - view[0].get::<f64, _>(0)).abs() < 1e-6, "the port and the view say the same");
    assert!((rows[0].p99_ms - view[0].get::<f64, _>(1)).abs() < 1e-6);
    let rows = statistics.processing(Some(Provider::Meta), since, until).await.unwrap();
    let seen: Vec<_> = rows.iter().map(|row| (row.status.as_str(), row.messages, row.duplicates, row.errors)).collect();
    assert_eq!(seen, [("completed", 67, 3, 0), ("failed", 1, 0, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_have_the_bounds_of_the_program() {
    let scene = PostgresHarness::fresh().await;
    let rows = scene.rows("SELECT upper_ms, lower_ms FROM webhook_histogram_bounds ORDER BY bucket").await;
    let upper: Vec<Option<f64>> = rows.iter().map(|row| row.get(0)).collect();
    let expected: Vec<Option<f64>> = Histogram::bounds().iter().copied().map(Some).chain([None]).collect();
    assert_eq!(upper, expected);
    assert!(rows.windows(2).all(|pair| pair[0].get::<Option<f64>, _>(0) == pair[1].get(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_senders_are_counted_by_hour_and_each_envelope_once() {
    let scene = PostgresHarness::fresh().await;
    let blocked = Parked {
        envelope: EnvelopeId::fresh(),
        tenant: TenantId::new("acme").unwrap(),
        provider: Provider::Twilio,
        reason: common::envelope::ParkReason::Throttled,
        number: None,
        received_at: START,
        updates: 2,
        sealed: b"sealed".as_slice().into(),
        due_at: None,
        pace: None,
        throttled: vec![Some("+491700000001".to_owned()), None],
    };
    let mut nameless = message(3);
    nameless.event.party = by_user_id("DE.1");
    let later = at(4, START.plus(Duration::from_hours(1)).as_millis());
    let updates = vec![message(1), message(2), nameless, later, status(5)];
    let batch = Batch { updates, parked: vec![blocked], ..Batch::default() };
    for _ in 0..2 {
        scene.store.commit(batch.clone()).await.unwrap();
    }
    let rows = scene
        .rows(
            "SELECT webhook_source, phone_number, request_count, blocked_count, \
             (extract(epoch FROM window_start) * 1000)::bigint, window_end - window_start = interval '1 hour' \
             FROM webhook_rate_limits ORDER BY window_start, webhook_source, phone_number",
        )
        .await;
    let seen: Vec<(&str, &str, i64, i64, i64)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))).collect();
    let (first, second) = (hour(START).as_millis(), hour(START).plus(Duration::from_hours(1)).as_millis());
    let phone = "+491700000001";
    let expected = [
        ("twilio", "", 0, 1, first),
        ("twilio", phone, 0, 1, first),
        ("whatsapp", "", 1, 0, first),
        ("whatsapp", phone, 2, 0, first),
        ("whatsapp", phone, 1, 0, second),
    ];
    assert_eq!(seen, expected);
    assert!(rows.iter().all(|row| row.get(5)));
}
