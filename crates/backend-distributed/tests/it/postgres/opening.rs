use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_tables_is_refused_until_it_is_migrated() {
    let server = test_servers::Postgres::start();
    let postgres = connect(&server.url()).await;
    assert!(unsuitable(&postgres.verify().await.unwrap_err()).contains("run `wharf migrate`"));
    let lines = postgres.migrate().await.unwrap();
    let expected = [
        "applied migration 1 (foundation)",
        "applied migration 2 (outbox steps)",
        "applied migration 3 (access)",
        "applied migration 4 (statistics)",
        "applied migration 5 (parking)",
        "applied migration 6 (parked due)",
        "applied migration 7 (action details)",
        "made 20 time partitions",
    ];
    assert_eq!(lines, expected);
    postgres.verify().await.unwrap();
    assert!(postgres.migrate().await.unwrap().is_empty(), "there is nothing left to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_at_the_same_time_wait_for_each_other() {
    let server = test_servers::Postgres::start();
    let (one, two) = (connect(&server.url()).await, connect(&server.url()).await);
    let (one, two) = tokio::join!(one.migrate(), two.migrate());
    assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_other_software_are_refused() {
    let scene = PostgresHarness::fresh().await;
    scene.postgres.verify().await.unwrap();
    scene.run("INSERT INTO _sqlx_migrations SELECT 99, 'later', now(), true, '\\x00', 0").await;
    assert!(unsuitable(&scene.postgres.verify().await.unwrap_err()).contains("this program is older"));
    assert!(unsuitable(&scene.postgres.migrate().await.unwrap_err()).contains("this program is older"));
    scene.run("DELETE FROM _sqlx_migrations WHERE version = 99").await;
    scene.run("UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 1").await;
    assert!(unsuitable(&scene.postgres.verify().await.unwrap_err()).contains("of other software"));
    scene.run("DELETE FROM _sqlx_migrations").await;
    assert!(unsuitable(&scene.postgres.verify().await.unwrap_err()).contains("run `wharf migrate`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_another_encoding_is_refused() {
    let scene = PostgresHarness::fresh().await;
    // As good as made so: nothing in it is beyond ASCII, and the locale C fits every encoding.
    scene.run("UPDATE pg_database SET encoding = pg_char_to_encoding('LATIN1')").await;
    let latin = connect(&scene.server.url()).await;
    assert!(unsuitable(&latin.verify().await.unwrap_err()).contains("LATIN1"));
    assert!(unsuitable(&latin.migrate().await.unwrap_err()).contains("LATIN1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_ones_own_is_made_and_used() {
    let scene = PostgresHarness::fresh().await;
    let own = connect(&format!("{}?schema=my-own", scene.server.url())).await;
    own.migrate().await.unwrap();
    own.verify().await.unwrap();
    let clock = ManualClock::new();
    own.event_store(clock).commit(Batch { updates: vec![message(1)], ..Batch::default() }).await.unwrap();
    assert_eq!(scene.count("SELECT count(*) FROM \"my-own\".messages").await, 1);
    assert_eq!(scene.count("SELECT count(*) FROM public.messages").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_told_so_and_who_finds_nobody_may_try_again() {
    let mut server = test_servers::Postgres::start();
    let nowhere = server.url().replace("/wharf", "/nowhere");
    let error = Postgres::connect(config(&nowhere)).await.unwrap_err();
    assert!(unsuitable(&error).contains("nowhere"), "{error}");
    server.kill();
    let error = Postgres::connect(config(&server.url())).await.unwrap_err();
    assert!(matches!(error, OpenError::Unavailable(_)), "{error:?}");
}
