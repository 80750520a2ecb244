//! Health, readiness and metrics on every listener that serves them.

use crate::http::{Answer, get};
use crate::wait;
use crate::wharf::{Check, DISTRIBUTED, Setup};

/// What readiness says when all is well but these.
fn readiness(checks: &[Check], missing: &[&str]) -> String {
    let is_red = checks.iter().any(|(name, required)| *required && missing.contains(name));
    let status = if is_red {
        "not_ready"
    } else if checks.iter().any(|(name, _)| missing.contains(name)) {
        "degraded"
    } else {
        "ready"
    };
    let line = |(name, required): &Check| {
        let ok = !missing.contains(name);
        format!(r#""{name}":{{"ok":{ok},"required":{required}}}"#)
    };
    let checks: Vec<_> = checks.iter().map(line).collect();
    format!(r#"{{"status":"{status}","checks":{{{}}}}}"#, checks.join(","))
}

fn is_json(answer: &Answer) -> bool {
    answer.header("content-type") == Some("application/json") && answer.header("cache-control") == Some("no-store")
}

#[test]
fn every_listener_tells_whether_the_process_lives_and_is_ready() {
    let wharf = Setup::new().start();
    for (address, checks) in wharf.listeners() {
        for path in ["/health", "/health/live"] {
            let answer = get(address, path, "");
            assert_eq!((answer.status, answer.text()), (200, r#"{"status":"ok"}"#), "{path}");
            assert!(is_json(&answer), "{answer:?}");
        }
        let expected = readiness(checks, &[]);
        wait::until(&expected, || (get(address, "/ready", "").text() == expected).then_some(()));
        for path in ["/ready", "/health/ready"] {
            let answer = get(address, path, "");
            assert_eq!((answer.status, answer.text()), (200, expected.as_str()), "{path}");
            assert!(is_json(&answer), "{answer:?}");
        }
    }
}

#[test]
fn without_a_secret_nothing_is_ready_and_every_webhook_is_refused() {
    let wharf = Setup::without_provider().start();
    for (address, checks) in wharf.listeners() {
        let expected = readiness(checks, &["secrets"]);
        wait::until(&expected, || (get(address, "/ready", "").text() == expected).then_some(()));
        // Who takes no webhooks needs no secrets.
        let takes_webhooks = checks.iter().any(|(name, _)| *name == "secrets");
        assert_eq!(get(address, "/ready", "").status, if takes_webhooks { 503 } else { 200 });
        assert_eq!(get(address, "/health", "").status, 200, "it lives");
    }
    let body = crate::meta::messages(&[crate::meta::text("wamid.A", "hello")]);
    for secret in [crate::meta::SECRET, ""] {
        assert_eq!(crate::meta::deliver_to(wharf.public(), crate::meta::PATH, secret, &body).status, 404);
    }
    let target = "/webhooks/meta?hub.mode=subscribe&hub.verify_token=a&hub.challenge=1";
    assert_eq!(get(wharf.public(), target, "").status, 403);
    // The advice is for the person who has started `wharf up`.
    if !DISTRIBUTED {
        let log = wharf.log();
        assert!(log.contains("WHATSAPP_APP_SECRET") && log.contains("wharf demo"), "it says what to do:\n{log}");
    }
    assert!(wharf.events().is_empty());
}

#[test]
fn metrics_are_open_to_the_machine_and_closed_to_the_network() {
    let wharf = Setup::new().start();
    // A gateway begins to count with its first request.
    get(wharf.public(), crate::meta::PATH, "");
    let open = get(wharf.admin(), "/metrics", "");
    assert_eq!(open.status, 200);
    assert!(open.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"), "{open:?}");
    assert!(open.text().contains("# TYPE "), "{open:?}");
    assert_eq!(get(wharf.api(), "/metrics", "").status, 401);
    assert_eq!(get(wharf.api(), "/metrics", "Authorization: Bearer wrong\r\n").status, 401);
    assert_eq!(wharf.ask("/metrics").status, 200);
    assert_eq!(get(wharf.public(), "/metrics", "").status, 404);
    assert_eq!(get(wharf.public(), "/metrics", &format!("Authorization: Bearer {}\r\n", wharf.token)).status, 404);
}

#[test]
fn the_api_opens_to_the_token_only_and_to_nobody_on_the_other_listeners() {
    let wharf = Setup::new().start();
    let token = &wharf.token;
    for path in ["/messages", "/stats", "/v1/events", "/nowhere"] {
        for headers in [
            String::new(),
            "Authorization: Bearer \r\n".to_owned(),
            format!("Authorization: {token}\r\n"),
            format!("Authorization: Basic {token}\r\n"),
            format!("Authorization: Bearer {token}0\r\n"),
            format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"),
            format!("X-Authorization: Bearer {token}\r\n"),
        ] {
            let answer = get(wharf.api(), path, &headers);
            assert_eq!(answer.status, 401, "{path} {headers}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert!(!answer.text().contains(token.as_str()));
        }
        let with_token = format!("Authorization: Bearer {token}\r\n");
        assert_eq!(get(wharf.public(), path, &with_token).status, 404, "{path} on the public listener");
        assert_eq!(get(wharf.admin(), path, &with_token).status, 404, "{path} on the admin listener");
    }
    assert_eq!(get(wharf.api(), &format!("/messages?token={token}"), "").status, 401, "not in the address");
    assert_eq!(wharf.ask("/nowhere").status, 404);
    assert_eq!(get(wharf.api(), "/webhooks/meta", "").status, 401, "no webhooks on the API listener");
}
