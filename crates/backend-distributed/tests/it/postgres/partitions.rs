use super::*;

const WEEK: i64 = 7 * 24 * 3600 * 1000;

#[tokio::test(flavor = "multi_thread")]
async fn making_them_again_makes_nothing_and_many_at_once_make_each_once() {
    let scene = PostgresHarness::fresh().await;
    assert_eq!(scene.postgres.make_partitions().await.unwrap(), 0);
    let of = |table: &str| {
        format!(
            "SELECT 'DROP TABLE ' || inhrelid::regclass FROM pg_inherits WHERE inhparent = '{table}'::regclass AND \
                 inhrelid::regclass::text NOT LIKE '%default'"
        )
    };
    for table in ["events", "messages", "statuses", "webhook_signature_log"] {
        for row in scene.rows(&of(table)).await {
            scene.run(row.get(0)).await;
        }
    }
    let all = (0..4).map(async |_| connect(&scene.server.url()).await.make_partitions().await.unwrap());
    let made: usize = futures_util::future::join_all(all).await.iter().sum();
    assert_eq!(made, 20);
    assert_eq!(scene.rows(&of("events")).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_lie_in_their_week_and_all_others_in_default() {
    let scene = PostgresHarness::fresh().await;
    let now: i64 = scene.count("SELECT (extract(epoch FROM now()) * 1000)::bigint").await;
    let mut late = status(4);
    late.received_at = Timestamp::from_millis(now + WEEK);
    let updates = vec![at(1, now), at(2, now + 2 * WEEK), at(3, now - 52 * WEEK), late];
    assert_eq!(scene.commit(updates.clone()).await, [New, New, New, New]);
    for table in ["events", "messages", "statuses"] {
        let misplaced = format!(
            "SELECT count(*) FROM {table} WHERE tableoid::regclass::text <> CASE WHEN received_at < now() - \
             interval '8 days' \
             THEN '{table}_default' ELSE '{table}_' || to_char(date_trunc('week', received_at), 'YYYYMMDD') END"
        );
        assert_eq!(scene.count(&misplaced).await, 0, "{table}");
    }
    assert_eq!(scene.count("SELECT count(*) FROM messages_default").await, 1);
    assert_eq!(scene.feed_after_sequencing().await.len(), 4, "the feed has them all");
    let claimed = scene.outbox().claim(Uuid::from_u128(1), 10, Duration::from_mins(1)).await.unwrap();
    assert_eq!(claimed.len(), 4, "and so has the outbox");
    assert_eq!(scene.commit(updates).await, vec![Duplicate; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_week_whose_rows_are_in_default_stays_there() {
    let scene = PostgresHarness::fresh().await;
    let next: i64 =
        scene.count("SELECT (extract(epoch FROM date_trunc('week', now()) + interval '8 days') * 1000)::bigint").await;
    let drop = "SELECT 'DROP TABLE messages_' || to_char(date_trunc('week', now()) + interval '7 days', 'YYYYMMDD')";
    scene.run(scene.rows(drop).await[0].get(0)).await;
    scene.commit(vec![at(1, next)]).await;
    assert_eq!(scene.postgres.make_partitions().await.unwrap(), 0);
    assert_eq!(scene.commit(vec![at(1, next), at(2, next)]).await, [Duplicate, New]);
    assert_eq!(scene.count("SELECT count(*) FROM messages_default").await, 2);
}
