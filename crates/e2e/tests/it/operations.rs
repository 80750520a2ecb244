//! What operators do with a running Wharf, by its command line: tenants, tokens, parked and raw webhooks, statistics.

use serde_json::{Value, json};

use crate::binary::{self, Finished};
use crate::http::{exchange, get, post};
use crate::meta::{self, NUMBER, SECRET, WABA};
use crate::tenants;
use crate::wait;
use crate::wharf::{Setup, Wharf};

const OTHER_SECRET: &str = "another-app-secret-0123456789";
const LATER: &str = "999000111222333";

/// Apps of the other providers, with a number for each of two tenants.
const OTHER_PROVIDERS: &str = r#"
[[apps]]
id = "texts"
provider = "twilio"
secrets = ["e2e-auth-token-0123456789abcdef"]
account = "AC00000000000000000000000000000003"
public_url = "https://hooks.example.com"

[[apps]]
id = "ours"
provider = "generic"
secrets = ["e2e-generic-secret-0123456789abcdef"]

[[numbers]]
phone_number_id = "+15551230001"
app = "texts"
tenant = "acme"

[[numbers]]
phone_number_id = "+15551230002"
app = "ours"
tenant = "umbrella"
"#;

/// A command against a running process.
fn run(wharf: &Wharf, words: &[&str]) -> Finished {
    let url = format!("http://{}", wharf.api());
    let [flag, value] = wharf.credentials();
    let all = [words, &["--api-url", &url, &flag, &value]].concat();
    binary::run(&all, &[])
}

fn done(wharf: &Wharf, words: &[&str]) -> String {
    let finished = run(wharf, words);
    assert_eq!(finished.code, Some(0), "{words:?}: {finished:?}");
    finished.stdout
}

fn asked(wharf: &Wharf, words: &[&str]) -> Value {
    serde_json::from_str(&done(wharf, &[words, &["--json"]].concat())).unwrap()
}

/// An app besides the default one, whose numbers nobody has.
fn with_another_app() -> Wharf {
    let wharf = Setup::new().without_limits().start();
    let secret = wharf.setup().file("secret", OTHER_SECRET);
    let secret = secret.to_str().unwrap();
    done(&wharf, &["apps", "create", "other-app", "--secret-file", secret, "--verify-token", "v"]);
    wait::until("the gateway knows the app", || {
        let target = "/webhooks/meta/other-app?hub.mode=subscribe&hub.verify_token=v&hub.challenge=1";
        (get(wharf.public(), target, "").status == 200).then_some(())
    });
    wharf
}

fn names(wharf: &Wharf) -> Vec<(String, String)> {
    wharf.events().iter().map(|event| (event.tenant.clone(), event.name())).collect()
}

#[test]
fn a_tenant_that_is_registered_later_gets_what_was_parked_for_it() {
    let wharf = with_another_app();
    let body = meta::messages_to(LATER, &[meta::text("wamid.EARLY", "before anybody knew the number")]);
    assert_eq!(meta::deliver_to(wharf.public(), meta::PATH, OTHER_SECRET, &body).status, 200);
    let parked = wait::until("it is parked", || {
        let listed = asked(&wharf, &["parked", "list", "--reason", "unknown-tenant"]);
        listed["data"].as_array().filter(|rows| rows.len() == 1).map(|rows| rows[0].clone())
    });
    assert_eq!((&parked["number"], &parked["updates"]), (&json!(LATER), &json!(1)));
    let reference = parked["raw_payload_ref"].as_str().unwrap();
    let raw = asked(&wharf, &["raw", "show", reference]);
    assert_eq!(raw["payload"].as_str().unwrap().as_bytes(), body);
    // Who has no owner stays, whoever asks.
    done(&wharf, &["parked", "release", "--all"]);
    done(&wharf, &["tenants", "create", "late", "--name", "Late Ltd"]);
    done(&wharf, &["tenants", "assign", "late", LATER, "--app", "other-app"]);
    wharf.wait_for_message("wamid.EARLY");
    assert_eq!(names(&wharf), [("late".to_owned(), "message.received wamid.EARLY".to_owned())]);
    wait::until("nothing is parked", || {
        (asked(&wharf, &["parked", "list", "--groups"])["data"] == json!([])).then_some(())
    });
    let actions = done(&wharf, &["actions"]);
    for line in ["GET /api/raw/{id}", "POST /api/parked/release", "PUT /api/tenants/{tenant}/numbers/{number}"] {
        assert!(actions.contains(line), "{actions}");
    }
    assert!(!actions.contains(OTHER_SECRET));
}

#[test]
fn the_webhook_that_a_message_came_with_is_found_and_shown() {
    // Ids are in base64: what has a meaning in queries is in them too.
    const WAMID: &str = "wamid.HBgM+351/RAW==";
    let wharf = Setup::new().without_limits().start();
    meta::accepted(wharf.public(), &meta::messages(&[meta::text("wamid.OTHER", "another one")]));
    let body = meta::messages(&[meta::text(WAMID, "which webhook was it?")]);
    meta::accepted(wharf.public(), &body);
    wharf.wait_for_message(WAMID);
    let listed = asked(&wharf, &["raw", "list", "--message", WAMID, "--from", meta::SENDER, "--tenant", "default"]);
    assert_eq!((&listed["total"], &listed["data"][0]["messageId"]), (&json!(1), &json!(WAMID)));
    let webhook = &listed["data"][0];
    let reference = webhook["rawPayloadRef"].as_str().unwrap();
    assert_eq!(reference.strip_prefix("wharf:raw/"), webhook["eventId"].as_str());
    assert_eq!(webhook["channel"], "whatsapp");
    let shown = asked(&wharf, &["raw", "show", reference]);
    assert_eq!(shown["payload"].as_str().unwrap().as_bytes(), body);
    assert_eq!((&shown["received_at"], &shown["disposition"]), (&webhook["receivedAt"], &json!("deliver")));
    let table = done(&wharf, &["raw", "list", "--message", WAMID]);
    let received = webhook["receivedAt"].as_str().unwrap();
    assert!([reference, received, "default", WAMID].iter().all(|cell| table.contains(cell)), "{table}");
    assert_eq!(done(&wharf, &["raw", "list", "--message", "wamid.NOBODY"]).trim(), "none");
    assert_eq!(done(&wharf, &["raw", "list", "--from", "+10000000000"]).trim(), "none");
    assert_eq!(asked(&wharf, &["raw", "list", "--since", "2100-01-01T00:00:00Z"])["total"], 0);
    assert!(done(&wharf, &["raw", "list", "--limit", "1"]).ends_with("… and more\n"));
}

#[test]
fn a_paused_tenant_gets_everything_when_it_is_resumed() {
    let wharf = Setup::new().without_limits().start();
    done(&wharf, &["tenants", "pause", "default"]);
    let mut sent = 0;
    // Until the gateway has heard of it, webhooks are handed out.
    wait::until("it is paused", || {
        sent += 1;
        meta::accepted(wharf.public(), &meta::messages(&[meta::text(&format!("wamid.{sent:03}"), "hello")]));
        let rows = asked(&wharf, &["parked", "list", "--reason", "paused"])["data"].as_array().map_or(0, Vec::len);
        (rows > 0).then_some(())
    });
    done(&wharf, &["tenants", "resume", "default"]);
    let events = wharf.events_when(sent);
    assert_eq!(events.len(), sent);
    wait::until("nothing is parked", || (asked(&wharf, &["parked", "list"])["data"] == json!([])).then_some(()));
}

#[test]
fn a_tenants_token_reads_its_own_and_nothing_else() {
    let wharf = with_another_app();
    done(&wharf, &["tenants", "create", "late"]);
    done(&wharf, &["tenants", "assign", "late", LATER, "--app", "other-app"]);
    meta::accepted(wharf.public(), &meta::messages(&[meta::text("wamid.DEFAULT", "to the default tenant")]));
    wharf.wait_for_message("wamid.DEFAULT");
    let token = done(&wharf, &["tokens", "create", "reader", "--scope", "tenant-reader", "--tenant", "late"]);
    let bearer = format!("Authorization: Bearer {}\r\n", token.trim());
    let ask = |target: &str| get(wharf.api(), target, &bearer);
    assert_eq!(ask("/messages").json()["total"], 0);
    assert_eq!(ask("/v1/events").json()["events"], json!([]));
    for target in ["/messages?tenant=default", "/stats?hours=1", "/api/tenants", "/metrics", "/api/security"] {
        assert_eq!(ask(target).status, 403, "{target}");
    }
    assert_eq!(ask("/api/tenants/default").status, 404);
    assert_eq!(ask("/api/tenants/late").json()["numbers"][0]["phone_number_id"], LATER);
    let offboarded = done(&wharf, &["tenants", "offboard", "late", "--yes"]);
    assert!(offboarded.starts_with("late has left: 1 numbers released, 1 tokens revoked"), "{offboarded}");
    wait::until("the token opens nothing", || (ask("/messages").status == 401).then_some(()));
}

#[test]
fn statistics_of_requests_count_what_was_sent() {
    let wharf = Setup::new().without_limits().start();
    let body = meta::messages(&[meta::text("wamid.ONE", "hello")]);
    for _ in 0..3 {
        meta::accepted(wharf.public(), &body);
    }
    let forged = post("/webhook", &meta::signature("wrong", &body), &body);
    for _ in 0..50 {
        assert_eq!(exchange(wharf.public(), &forged).unwrap().status, 403);
    }
    let other = meta::messages_to(NUMBER, &[meta::text("wamid.TWO", "hello")]);
    assert_eq!(meta::deliver_to(wharf.public(), "/api/v1/whatsapp-hardened/webhook", SECRET, &other).status, 200);
    let stats = wait::until("the recorder has counted", || {
        let stats = wharf.ask_json("/api/v1/whatsapp-hardened/stats?source=meta");
        let rows = stats["data"]["security"].as_array().unwrap();
        let total: u64 = rows.iter().map(|row| row["total_requests"].as_u64().unwrap()).sum();
        let answered = stats["data"]["processing"][0]["total_duplicates"] == 2;
        (total == 54 && answered).then_some(stats)
    });
    assert_eq!(stats["success"], true);
    let sum = |table: &str, column: &str| -> u64 {
        stats["data"][table].as_array().unwrap().iter().map(|row| row[column].as_u64().unwrap()).sum()
    };
    assert_eq!((sum("security", "valid_signatures"), sum("security", "invalid_signatures")), (4, 50));
    assert_eq!((sum("performance", "request_count"), sum("processing", "message_count")), (54, 2));
    let paths: Vec<_> =
        stats["data"]["performance"].as_array().unwrap().iter().map(|row| row["endpoint_path"].clone()).collect();
    assert!(paths.contains(&json!("/webhook")) && paths.contains(&json!("/webhooks/meta")), "{paths:?}");
    assert_eq!(wharf.ask_json("/stats?source=twilio")["data"]["security"], json!([]));
    let report = done(&wharf, &["security", "report", "--hours", "1"]);
    assert!(report.contains("54 requests") && report.contains("50        invalid"), "{report}");
}

#[test]
fn a_check_from_outside_holds() {
    let secrets = [
        ("WHATSAPP_APP_SECRET", SECRET),
        ("WHATSAPP_VERIFY_TOKEN", meta::VERIFY_TOKEN),
        ("TWILIO_AUTH_TOKEN", "e2e-auth-token-0123456789abcdef"),
        ("WEBHOOK_SECRET", "e2e-generic-secret-0123456789abcdef"),
    ];
    // In production nobody would know for which address Twilio signs.
    let setup = Setup::new().set("WHARF_MODE", "development");
    let setup = secrets[2..].iter().fold(setup, |setup, (name, value)| setup.set(name, value));
    let wharf = setup.start();
    let (url, api) = (format!("http://{}", wharf.public()), format!("http://{}", wharf.api()));
    let [flag, value] = wharf.credentials();
    let words = ["check", "--url", &url, "--api-url", &api, &flag, &value];
    let checked = binary::run(&words, &secrets);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stdout.lines().filter(|line| line.starts_with("ok")).count() >= 27, "{}", checked.stdout);
    let wrong = secrets.map(|(name, value)| (name, if name == "WHATSAPP_APP_SECRET" { "wrong" } else { value }));
    let failed = binary::run(&[&words[..], &["--without-limits"]].concat(), &wrong);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stdout.contains("FAILED     Meta: right signature"), "{}", failed.stdout);
}

#[test]
fn a_check_from_outside_holds_with_two_tenants() {
    let wharf = tenants::with_two_tenants();
    let file = wharf.setup().file("others.toml", OTHER_PROVIDERS);
    assert_eq!(tenants::import(&wharf, &file).code, Some(0));
    for path in ["/webhooks/twilio", "/webhooks/generic"] {
        wait::until("the gateway knows the app", || {
            (exchange(wharf.public(), &post(path, "", b""))?.status == 403).then_some(())
        });
    }
    let url = format!("http://{}", wharf.public());
    let words = [
        &["check", "--without-limits", "--url", &url, "--number", "9001:1001"][..],
        &["--app-secret", tenants::ONE, "--verify-token", "token-of-the-first-app"],
        &["--twilio-token", "e2e-auth-token-0123456789abcdef", "--twilio-number", "+15551230001"],
        &["--twilio-account", "AC00000000000000000000000000000003", "--public-url", "https://hooks.example.com"],
        &["--generic-secret", "e2e-generic-secret-0123456789abcdef", "--generic-number", "+15551230002"],
    ];
    let checked = done(&wharf, &words.concat());
    assert!(checked.lines().all(|line| line.starts_with("ok ")), "{checked}");
    let kept_back = checked.lines().find(|line| line.contains("Meta: what nobody has is kept back"));
    assert!(kept_back.unwrap().ends_with("not handed out"), "{checked}");
    let parked = asked(&wharf, &["parked", "list", "--reason", "unknown-tenant"]);
    assert_eq!(parked["data"].as_array().unwrap().len(), 1, "{parked}");
    let mut of: Vec<_> = wharf.events().into_iter().map(|event| event.tenant).collect();
    of.sort();
    assert_eq!(of, ["acme", "acme", "acme", "umbrella"], "two of Meta, one of Twilio, and the generic one");
    let unclear = run(&wharf, &["check", "--url", &url, "--twilio-number", "15551230001"]);
    assert!(unclear.code == Some(2) && unclear.stderr.contains("must be +"), "{unclear:?}");
}

#[test]
fn what_commands_are_refused_says_why() {
    let wharf = Setup::new().start();
    let refused = run(&wharf, &["tenants", "create", "Not An Id"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("id: a tenant id must be"), "{refused:?}");
    let unsure = run(&wharf, &["tenants", "offboard", "default"]);
    assert!(unsure.code != Some(0) && unsure.stderr.contains("--yes"), "{unsure:?}");
    let missing = run(&wharf, &["raw", "show", "wharf:raw/00000000-0000-0000-0000-000000000000"]);
    assert!(missing.stderr.contains("404"), "{missing:?}");
    for wrong in ["nonsense", "wharf:raw/nonsense", "what is it"] {
        let refused = run(&wharf, &["raw", "show", wrong]);
        assert!(refused.stderr.contains("422") && refused.stderr.contains("wharf:raw/<envelope id>"), "{refused:?}");
    }
    let listed = done(&wharf, &["tenants", "list", "--waba", WABA]);
    assert_eq!(listed.trim(), "none", "a wildcard owns no account");
}

#[test]
fn what_is_not_signed_can_be_kept_to_find_out_why() {
    const PUBLIC: &str = "https://hooks.example.com";
    let wharf = Setup::new()
        .without_limits()
        .set("WHARF__INGRESS__KEEP_REFUSED_PER_MINUTE", "2")
        .set("TWILIO_AUTH_TOKEN", "e2e-auth-token-0123456789abcdef")
        .set("WHARF__INGRESS__PUBLIC_URL", PUBLIC)
        .start();
    let body = meta::messages(&[meta::text("wamid.FORGED", "forged")]);
    let forged = meta::signature("not-the-secret", &body);
    let headers = format!("{forged}Authorization: Basic c2VjcmV0OnNlY3JldA==\r\nX-Odd: caf\u{e9}\r\n");
    assert_eq!(exchange(wharf.public(), &post(meta::PATH, &headers, &body)).unwrap().status, 403);
    let form =
        "X-Twilio-Signature: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let binary = [b"Body=".as_slice(), &[0xff, 0xfe]].concat();
    for _ in 0..4 {
        assert_eq!(exchange(wharf.public(), &post("/webhooks/twilio?a=b", form, &binary)).unwrap().status, 403);
    }
    let log = wharf.log();
    let kept: Vec<_> = log.split("wharf:raw/").skip(1).map(|rest| format!("wharf:raw/{}", &rest[..36])).collect();
    assert_eq!(kept.len(), 2, "as many as were asked for: {log}");
    // What is archived is there a moment after the answer.
    let shown = |reference: &str| {
        wait::until("it is in the archive", || {
            (run(&wharf, &["raw", "show", reference]).code == Some(0)).then_some(())
        });
        let shown = asked(&wharf, &["raw", "show", reference]);
        assert_eq!((&shown["disposition"], &shown["tenant"]), (&json!("refused"), &json!("_unassigned")));
        (shown["provider"].clone(), serde_json::from_str::<Value>(shown["payload"].as_str().unwrap()).unwrap())
    };
    let (provider, evidence) = shown(&kept[0]);
    assert_eq!(
        (provider, &evidence["signature"], &evidence["method"]),
        (json!("meta"), &json!("invalid"), &json!("POST"))
    );
    assert_eq!(evidence["body"].as_str().unwrap().as_bytes(), body);
    assert_eq!(
        (&evidence["path"], &evidence["tried"]),
        (&json!(meta::PATH), &json!([{"app": "default", "secrets": 1}]))
    );
    let headers = evidence["headers"].to_string();
    assert!(headers.contains(r#"["authorization","(not kept)"]"#) && headers.contains("caf\u{e9}"), "{headers}");
    let (provider, evidence) = shown(&kept[1]);
    assert_eq!((provider, &evidence["body"]), (json!("twilio"), &json!(null)));
    assert_eq!(evidence["body_base64"], "Qm9keT3//g==");
    let addresses = [format!("{PUBLIC}/webhooks/twilio?a=b"), format!("{PUBLIC}:443/webhooks/twilio?a=b")];
    assert_eq!(evidence["tried"], json!([{"app": "twilio", "secrets": 1, "addresses": addresses}]));
    // Nothing comes of them.
    assert_eq!(asked(&wharf, &["parked", "list"])["data"], json!([]));
    assert!(wharf.events().is_empty());
}
