//! Several tenants and apps on one Wharf, registered by the command line while it runs.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::binary::{self, Finished};
use crate::http::{Connection, exchange, get};
use crate::meta::{self, change, entry, text};
use crate::wait;
use crate::wharf::{Setup, Wharf};

pub(crate) const ONE: &str = "secret-of-the-first-app-01";
const TWO: &str = "secret-of-the-second-app-2";

const DOCUMENT: &str = r#"
[[tenants]]
id = "acme"
name = "Acme"

[[tenants]]
id = "umbrella"

[[apps]]
id = "first"
secrets = ["secret-of-the-first-app-01"]
verify_tokens = ["token-of-the-first-app"]

[[apps]]
id = "second"
secrets = ["secret-of-the-second-app-2", "its-former-secret-that-retires"]
verify_tokens = ["token-of-the-second-app"]

[[numbers]]
phone_number_id = "1001"
waba_id = "9001"
app = "first"
tenant = "acme"

[[numbers]]
phone_number_id = "1002"
waba_id = "9002"
app = "first"
tenant = "umbrella"

[[numbers]]
phone_number_id = "2001"
waba_id = "9003"
app = "second"
tenant = "umbrella"
"#;

/// `wharf tenants import` against a running process.
pub(crate) fn import(wharf: &Wharf, file: &Path) -> Finished {
    let url = format!("http://{}", wharf.api());
    let [flag, value] = wharf.credentials();
    binary::run(&["tenants", "import", "--api-url", &url, &flag, &value, file.to_str().unwrap()], &[])
}

pub(crate) fn with_two_tenants() -> Wharf {
    with_two_tenants_in(Setup::without_provider().without_limits())
}

fn with_two_tenants_in(setup: Setup) -> Wharf {
    let wharf = setup.start();
    let file = wharf.setup().file("tenants.toml", DOCUMENT);
    let imported = import(&wharf, &file);
    assert_eq!(imported.code, Some(0), "{imported:?}");
    assert!(imported.stdout.starts_with("7 entries changed"), "{imported:?}");
    wait_for_app(&wharf, "second", "token-of-the-second-app");
    wharf
}

/// Waits until the gateway has heard of an app.
pub(crate) fn wait_for_app(wharf: &Wharf, app: &str, token: &str) {
    let target = format!("/webhooks/meta/{app}?hub.mode=subscribe&hub.verify_token={token}&hub.challenge=1");
    wait::until("the gateway knows the app", || (get(wharf.public(), &target, "").status == 200).then_some(()));
}

/// Tenant and name of each event.
fn out(wharf: &Wharf) -> Vec<(String, String)> {
    wharf.events().iter().map(|event| (event.tenant.clone(), event.name())).collect()
}

fn of(tenant: &str, id: &str) -> (String, String) {
    (tenant.to_owned(), format!("message.received {id}"))
}

#[test]
fn one_post_with_numbers_of_two_tenants_is_split() {
    let wharf = with_two_tenants();
    let change = |number, id| change(number, json!({"messages": [text(id, "hello")]}));
    let body = meta::body(&[
        entry("9001", &[change("1001", "wamid.A1"), change("1002", "wamid.U1"), change("1001", "wamid.A2")]),
        entry("9002", &[change("1002", "wamid.U2"), change("2001", "wamid.FOREIGN"), change("7777", "wamid.OF-9002")]),
        entry("5555", &[change("6666", "wamid.NOBODY")]),
    ]);
    let answer = meta::deliver_to(wharf.public(), meta::PATH, ONE, &body);
    assert_eq!(answer.status, 200);
    let second = meta::messages_to("2001", &[text("wamid.U3", "of the second app")]);
    assert_eq!(meta::deliver_to(wharf.public(), "/webhook", TWO, &second).status, 200);
    wharf.wait_for_message("wamid.U3");

    let mut all = out(&wharf);
    all.sort();
    let mut expected = vec![
        of("acme", "wamid.A1"),
        of("acme", "wamid.A2"),
        of("umbrella", "wamid.U1"),
        of("umbrella", "wamid.U2"),
        // A number that nobody has listed belongs to the owner of its account's numbers.
        of("umbrella", "wamid.OF-9002"),
        of("umbrella", "wamid.U3"),
    ];
    expected.sort();
    assert_eq!(all, expected);
    for event in wharf.events() {
        assert!(event.source.starts_with(&format!("//wharf/tenants/{}", event.tenant)), "{event:?}");
    }
    let of_acme = wharf.page("tenant=acme").events;
    assert_eq!(of_acme.iter().map(|event| event.tenant.as_str()).collect::<Vec<_>>(), ["acme", "acme"]);
    assert_eq!(wharf.ask_json("/messages?tenant=umbrella")["total"], 4);
    assert_eq!(wharf.ask_json("/stats?tenant=acme")["total_messages"], 2);
    let metrics = wharf.metrics();
    assert_eq!(metrics.count("wharf_normalizer_parked_total", &[r#"reason="foreign-app""#]), 1);
    assert_eq!(metrics.count("wharf_normalizer_parked_total", &[r#"reason="unknown-tenant""#]), 1);
}

#[test]
fn a_tenant_over_its_limit_leaves_the_rest_to_others() {
    let setup = Setup::without_provider().without_limits().set("WHARF__INGRESS__TENANT_LIMIT_PER_SECOND", "3");
    let wharf = with_two_tenants_in(setup);
    let to =
        |number: &str, id: &str| meta::signed_to(meta::PATH, ONE, &meta::messages_to(number, &[text(id, "hello")]));
    let start = Instant::now();
    let mut connection = Connection::open(wharf.public());
    connection.send(&["wamid.1", "wamid.2", "wamid.3", "wamid.4", "wamid.5"].map(|id| to("1001", id)).concat());
    connection.send(&to("1002", "wamid.OTHER"));
    let answers: Vec<_> = (0..6).map(|_| connection.answer().unwrap()).collect();
    assert!(start.elapsed() < Duration::from_secs(1), "this machine is too slow for a burst");
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429, 200]);
    let over = &answers[3];
    assert_eq!((&over.json()["code"], over.header("retry-after")), (&json!("tenant-limit"), Some("1")));
    assert_eq!(over.header("ratelimit-policy"), Some(r#""tenant-limit";q=3;w=1"#));
    wharf.wait_for_message("wamid.OTHER");
    wait::until("what was refused comes again", || {
        let again = exchange(wharf.public(), &to("1001", "wamid.4"))?;
        (again.status == 200).then_some(())
    });
    wharf.wait_for_message("wamid.4");
    assert_eq!(out(&wharf).len(), 5);
}

#[test]
fn the_same_id_at_two_numbers_is_two_messages() {
    let wharf = with_two_tenants();
    for number in ["1001", "1002", "1001"] {
        let body = meta::messages_to(number, &[text("wamid.SAME", "hello")]);
        assert_eq!(meta::deliver_to(wharf.public(), meta::PATH, ONE, &body).status, 200);
    }
    let last = meta::messages_to("1001", &[text("wamid.LAST", "bye")]);
    assert_eq!(meta::deliver_to(wharf.public(), meta::PATH, ONE, &last).status, 200);
    wharf.wait_for_message("wamid.LAST");
    let expected = [of("acme", "wamid.SAME"), of("umbrella", "wamid.SAME"), of("acme", "wamid.LAST")];
    assert_eq!(out(&wharf), expected);
}

#[test]
fn the_path_of_an_app_takes_its_own_signatures_only() {
    let wharf = with_two_tenants();
    let body = meta::messages_to("1001", &[text("wamid.A", "hello")]);
    let former = "its-former-secret-that-retires";
    for (path, secret, status) in [
        ("/webhooks/meta/second", ONE, 403),
        ("/webhooks/meta/first", TWO, 403),
        ("/webhooks/meta/third", ONE, 403),
        ("/webhooks/meta/FIRST", ONE, 403),
        ("/webhooks/meta/first%20", ONE, 403),
        ("/webhooks/meta/first", ONE, 200),
        ("/webhooks/meta", ONE, 200),
        ("/webhook", ONE, 200),
        ("/webhooks/meta/second", TWO, 200),
        ("/webhooks/meta/second", former, 200),
    ] {
        assert_eq!(meta::deliver_to(wharf.public(), path, secret, &body).status, status, "{path} {secret}");
    }
    for (path, token, status) in [
        ("/webhooks/meta/first", "token-of-the-first-app", 200),
        ("/webhooks/meta/first", "token-of-the-second-app", 403),
        ("/webhooks/meta/second", "token-of-the-second-app", 200),
        ("/webhooks/meta", "token-of-the-second-app", 200),
    ] {
        let target = format!("{path}?hub.mode=subscribe&hub.verify_token={token}&hub.challenge=1");
        assert_eq!(get(wharf.public(), &target, "").status, status, "{path} {token}");
    }
    wharf.wait_for_message("wamid.A");
    assert_eq!(out(&wharf), [of("acme", "wamid.A")], "what the second app signed is not the first one's");
}

#[test]
fn a_number_changes_hands_at_a_moment() {
    let wharf = with_two_tenants();
    let send = |id: &str| {
        let body = meta::messages_to("1001", &[text(id, "hello")]);
        assert_eq!(meta::deliver_to(wharf.public(), meta::PATH, ONE, &body).status, 200);
        wharf.wait_for_message(id);
    };
    send("wamid.BEFORE");
    let row = |from: &str| {
        format!(
            "[[numbers]]\nphone_number_id = \"1001\"\napp = \"first\"\ntenant = \"umbrella\"\nvalid_from = \"{from}\"\n"
        )
    };
    let later = wharf.setup().file("later.toml", &row("2999-01-01T00:00:00Z"));
    assert_eq!(import(&wharf, &later).code, Some(0));
    send("wamid.STILL");
    let now = wharf.setup().file("now.toml", &row("2020-01-01T00:00:00Z"));
    assert_eq!(import(&wharf, &now).code, Some(0));
    wait::until("the gateway has heard of it", || {
        let id = format!("wamid.T{}", wharf.events().len());
        send(&id);
        (out(&wharf).last() == Some(&of("umbrella", &id))).then_some(())
    });
    assert_eq!(out(&wharf)[..2], [of("acme", "wamid.BEFORE"), of("acme", "wamid.STILL")]);
}

#[test]
fn a_bad_import_lists_all_problems_and_changes_nothing() {
    let wharf = with_two_tenants();
    let bad = wharf.setup().file(
        "bad.toml",
        r#"
        tenants = [{ id = "Not Allowed" }, { id = "_unassigned" }, { id = "fresh" }]
        apps = [{ id = "third", secrets = [], verify_tokens = [" "] }]
        numbers = [
            { phone_number_id = "3001", app = "nowhere", tenant = "acme" },
            { phone_number_id = "3002", app = "first", tenant = "nobody" },
            { phone_number_id = "1001", app = "second", tenant = "acme" },
            { phone_number_id = "4001", waba_id = "4", app = "first", tenant = "fresh" },
        ]
        "#,
    );
    let refused = import(&wharf, &bad);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let problems = refused.stderr.lines().skip(1).count();
    assert_eq!(problems, 7, "{}", refused.stderr);
    for place in [
        "tenants[0].id",
        "tenants[1].id",
        "apps[0].secrets",
        "apps[0].verify_tokens[0]",
        "numbers[0].app",
        "numbers[1].tenant",
        "numbers[2].app",
    ] {
        assert!(refused.stderr.contains(place), "each problem names its place, {place} too:\n{}", refused.stderr);
    }
    // What was good in it was not written either.
    let body = meta::messages_to("4001", &[text("wamid.FRESH", "hello")]);
    assert_eq!(meta::deliver_to(wharf.public(), meta::PATH, ONE, &body).status, 200);
    let last = meta::messages_to("1001", &[text("wamid.LAST", "hello")]);
    assert_eq!(meta::deliver_to(wharf.public(), meta::PATH, ONE, &last).status, 200);
    wharf.wait_for_message("wamid.LAST");
    assert_eq!(out(&wharf), [of("acme", "wamid.LAST")]);

    let again = wharf.setup().file("again.toml", DOCUMENT);
    let imported = import(&wharf, &again);
    assert!(imported.stdout.starts_with("0 entries changed"), "the same again changes nothing: {imported:?}");
}

#[test]
fn a_long_import_is_read_to_its_end() {
    let wharf = Setup::without_provider().start();
    let name = "x".repeat(100);
    let tenants: Vec<_> = (0..3000).map(|n| format!("[[tenants]]\nid = \"t{n}\"\nname = \"{name}\"\n")).collect();
    let imported = import(&wharf, &wharf.setup().file("tenants.toml", &tenants.concat()));
    assert_eq!(imported.code, Some(0), "{imported:?}");
    let listed = crate::http::get(
        wharf.api(),
        "/api/tenants?limit=1000&after=t998",
        &format!("Authorization: Bearer {}\r\n", wharf.token),
    );
    assert_eq!(listed.json()["data"].as_array().unwrap().last().unwrap()["id"], "t999");
}

#[test]
fn an_import_needs_the_token_and_a_running_process() {
    let wharf = with_two_tenants();
    let file = wharf.setup().file("again.toml", DOCUMENT);
    let file = file.to_str().unwrap();
    let url = format!("http://{}", wharf.api());
    let refused = binary::run(&["tenants", "import", "--api-url", &url, "--token", "wrong", file], &[]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("401"), "{refused:?}");
    let missing = binary::run(&["tenants", "import", "--api-url", &url, "--data-dir", "/nonexistent", file], &[]);
    assert_eq!(missing.code, Some(1), "{missing:?}");
    assert!(missing.stderr.contains("admin.token"), "{missing:?}");
    let token = wharf.token.clone();
    let _folder = wharf.stop();
    let gone = binary::run(&["tenants", "import", "--api-url", &url, "--token", &token, file], &[]);
    assert_eq!(gone.code, Some(1), "{gone:?}");
    assert!(gone.stderr.contains("is it running?"), "{gone:?}");
}
