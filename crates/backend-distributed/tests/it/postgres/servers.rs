use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_an_error_in_time_and_serves_again_once_it_goes_on() {
    let scene = PostgresHarness::fresh().await;
    scene.commit(vec![message(1)]).await;
    assert!(scene.postgres.ping().await);
    scene.server.freeze();
    assert!(!bounded("the ping", scene.postgres.ping()).await);
    let attempts = (2..=5)
        .map(async |n| scene.store.commit(Batch { updates: vec![message(n)], ..Batch::default() }).await.is_err());
    let failed = bounded("the commits", futures_util::future::join_all(attempts)).await;
    assert_eq!(failed, [true; 4]);
    scene.server.thaw();
    until("the ping", async || scene.postgres.ping().await).await;
    // Whether they were stored is not known; doing it again makes it certain.
    let commit = |n| scene.store.commit(Batch { updates: vec![message(n)], ..Batch::default() });
    for n in 2..=5 {
        until("the commit", async || commit(n).await.is_ok()).await;
    }
    assert_eq!(scene.feed_after_sequencing().await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_before_a_kill_is_there_exactly_once_and_nothing_else() {
    let mut scene = PostgresHarness::fresh().await;
    let store = scene.store.clone();
    let mut writers = JoinSet::new();
    for who in 0..4_u32 {
        let store = store.clone();
        writers.spawn(async move {
            let mut done = 0;
            loop {
                let updates = (0..10).map(|n| message(who * 1_000_000 + done * 10 + n)).collect();
                match store.commit(Batch { updates, ..Batch::default() }).await {
                    Ok(_) => done += 1,
                    Err(_) => return (who, done),
                }
            }
        });
    }
    until("some commits", async || scene.count("SELECT count(*) FROM events").await > 500).await;
    scene.server.kill();
    let done = bounded("the end of the writers", writers.join_all()).await;
    let scene = scene.restart().await;
    let events = scene.feed_after_sequencing().await;
    let seen: std::collections::BTreeSet<EventKey> = events.iter().map(|event| event.key).collect();
    assert_eq!(seen.len(), events.len(), "each once");
    for (who, done) in &done {
        for n in 0..done * 10 {
            assert!(seen.contains(&key(who * 1_000_000 + n)), "writer {who}, update {n} of {}", done * 10);
        }
        // The last one was not acknowledged and is there as a whole or not at all.
        let last = (0..10).filter(|n| seen.contains(&key(who * 1_000_000 + done * 10 + n))).count();
        assert!(last == 0 || last == 10, "{last}");
    }
    assert_eq!(scene.count("SELECT count(*) FROM messages").await, i64::try_from(events.len()).unwrap());
    assert_eq!(scene.count("SELECT count(*) FROM event_keys").await, i64::try_from(events.len()).unwrap());
    assert!(done.iter().map(|(_, done)| done).sum::<u32>() >= 50, "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bell_rings_for_commits_of_other_processes_and_after_a_restart() {
    let mut scene = PostgresHarness::fresh().await;
    let other = connect(&scene.server.url()).await;
    let bell = Arc::new(Notify::new());
    let mut ringing = JoinSet::new();
    let rung = bell.clone();
    ringing.spawn(async move { other.ring_on_commit(rung).await });
    bounded("the first ring", bell.notified()).await;
    for n in 1..=3 {
        scene.commit(vec![message(n)]).await;
        bounded("a ring for a commit", bell.notified()).await;
    }
    // Neither duplicates nor what makes no event.
    scene.commit(vec![message(1)]).await;
    scene.commit(vec![]).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), bell.notified()).await.is_err());
    scene.server.kill();
    scene.server.start_again();
    bounded("a ring after the restart", bell.notified()).await;
    // The pool finds out by itself that its connections have gone.
    until("a commit", async || scene.store.commit(batch(9)).await.is_ok()).await;
    bounded("a ring for a commit after the restart", bell.notified()).await;
}

fn batch(n: u32) -> Batch {
    Batch { updates: vec![message(n)], ..Batch::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_directory_is_heard_of_by_other_processes() {
    let scene = PostgresHarness::fresh().await;
    let other = connect(&scene.server.url()).await;
    let mut watching = JoinSet::new();
    watching.spawn(async move { other.directory().changed(0).await.unwrap() });
    let written = scene.postgres.directory().write(vec![Entry::SingleTenant(true)], 0).await.unwrap();
    assert_eq!(bounded("the change", watching.join_all()).await, [written]);
    assert_eq!(scene.directory().write(vec![], 0).await.unwrap(), written, "nothing was written");
}

/// Not a law, since it is about speed; printed with `--no-capture`.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_256_messages_is_committed_in_less_than_a_second() {
    let scene = PostgresHarness::fresh().await;
    let mut times = Vec::new();
    for round in 0..8_u32 {
        let updates: Vec<NewUpdate> = (0..256).map(|n| message(round * 1000 + n)).collect();
        let start = tokio::time::Instant::now();
        scene.commit(updates).await;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    println!("commits of 256 messages took {times:?}");
    assert!(times[times.len() / 2] < Duration::from_secs(1), "{times:?}");
}
