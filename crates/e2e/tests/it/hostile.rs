//! Hostile input against one process: the exact status of each request, and that nothing of it harms the next one.
//!
//! Each row is sent over a connection of its own and followed by a good webhook. At the end the feed must hold what the
//! rows say and nothing else, what was signed and cannot be handed out must have been kept, and the process must not
//! have answered 5xx or panicked once.

#[path = "hostile/bodies.rs"]
mod bodies;
#[path = "hostile/connections.rs"]
mod connections;
#[path = "hostile/oddities.rs"]
mod oddities;
#[path = "hostile/protocol.rs"]
mod protocol;
#[path = "hostile/signatures.rs"]
mod signatures;

use crate::http::{Answer, Connection};
use crate::meta::{self, NUMBER, PATH, VERIFY_TOKEN};
use crate::tenants::{import, wait_for_app};
use crate::wharf::{Setup, Wharf};

/// A number of the default app that is listed for a second tenant.
const SECOND_NUMBER: &str = "777000111222999";
/// An app of its own.
const OTHER_SECRET: &str = "secret-of-the-other-app-0123";

/// One request, or several in one write, and all that must come of it.
#[derive(Debug)]
struct Row {
    name: String,
    bytes: Vec<u8>,
    /// The statuses, in order; none if the connection must be closed without an answer.
    statuses: Vec<u16>,
    /// Answers without a body.
    head: bool,
    /// Nothing more is sent although the request is not complete.
    half_closed: bool,
    /// Names of the events that come out.
    events: Vec<String>,
    /// Envelopes parked as unreadable.
    unreadable: u64,
    /// Updates that become dead letters.
    dead: u64,
}

fn row(name: impl Into<String>, bytes: impl Into<Vec<u8>>, status: u16) -> Row {
    Row {
        name: name.into(),
        bytes: bytes.into(),
        statuses: vec![status],
        head: false,
        half_closed: false,
        events: Vec::new(),
        unreadable: 0,
        dead: 0,
    }
}

/// A signed body, which is answered 200 whatever is in it.
fn taken(name: impl Into<String>, body: impl AsRef<[u8]>) -> Row {
    row(name, meta::signed(body.as_ref()), 200)
}

impl Row {
    fn answers(self, statuses: &[u16]) -> Self {
        Self { statuses: statuses.to_vec(), ..self }
    }

    fn event(self, name: impl Into<String>) -> Self {
        self.events([name.into()])
    }

    /// Text messages come out.
    fn texts<'a>(self, ids: impl IntoIterator<Item = &'a str>) -> Self {
        self.events(ids.into_iter().map(|id| format!("message.received {id}")))
    }

    fn events(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.events.extend(names);
        self
    }

    fn unreadable(self) -> Self {
        Self { unreadable: 1, ..self }
    }

    fn dead(self, updates: u64) -> Self {
        Self { dead: updates, ..self }
    }

    fn without_body(self) -> Self {
        Self { head: true, ..self }
    }

    fn half_closed(self) -> Self {
        Self { half_closed: true, ..self }
    }

    /// Sends it, and compares the answers.
    fn run(&self, wharf: &Wharf) {
        let mut connection = Connection::open(wharf.public());
        connection.send(&self.bytes);
        if self.half_closed {
            connection.finish();
        }
        let mut statuses = Vec::new();
        for _ in &self.statuses {
            let answer = if self.head { connection.answer_to_head() } else { connection.answer() };
            let Some(answer) = answer else { break };
            statuses.push(answer.status);
            check(&self.name, &answer);
        }
        connection.finish();
        while let Some(answer) = connection.answer() {
            statuses.push(answer.status);
        }
        assert_eq!(statuses, self.statuses, "{}", self.name);
    }
}

/// What holds for every answer.
fn check(name: &str, answer: &Answer) {
    assert!(answer.status < 500, "{name}: {answer:?}");
    assert_eq!(answer.header("x-injected"), None, "{name}: {answer:?}");
    assert_eq!(answer.header("set-cookie"), None, "{name}: {answer:?}");
    assert!(answer.body.len() < 300, "{name}: a refusal repeats nothing: {answer:?}");
    if answer.status == 405 {
        assert_eq!(answer.header("allow"), Some("GET, POST"), "{name}: {answer:?}");
    }
}

/// A process with a default app that owns every number, one of them listed for a second tenant, and another app.
fn victim() -> Wharf {
    let wharf = Setup::new().without_limits().start();
    let document = format!(
        r#"
        tenants = [{{ id = "second" }}]
        apps = [{{ id = "other", secrets = ["{OTHER_SECRET}"], verify_tokens = ["other-token"], default = false }}]
        numbers = [{{ phone_number_id = "{SECOND_NUMBER}", app = "default", tenant = "second" }}]
        "#
    );
    let imported = import(&wharf, &wharf.setup().file("import.toml", &document));
    assert_eq!(imported.code, Some(0), "{imported:?}");
    wait_for_app(&wharf, "other", "other-token");
    wharf
}

/// Runs all rows, then looks at what has become of the process.
fn run(rows: &[Row]) {
    let mut wharf = victim();
    let mut expected = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        row.run(&wharf);
        expected.extend(row.events.iter().cloned());
        let id = format!("wamid.STILL{index}");
        let answer = meta::deliver(wharf.public(), &meta::messages(&[meta::text(&id, "still here")]));
        assert_eq!(answer.status, 200, "a good webhook after {:?}: {answer:?}", row.name);
        expected.push(format!("message.received {id}"));
    }
    wharf.wait_for_message(&format!("wamid.STILL{}", rows.len() - 1));
    let mut out: Vec<_> = wharf.events().iter().map(crate::feed::Event::name).collect();
    out.sort();
    expected.sort();
    let missing: Vec<_> = expected.iter().filter(|name| !out.contains(name)).collect();
    let foreign: Vec<_> = out.iter().filter(|name| !expected.contains(name)).collect();
    assert!(missing.is_empty() && foreign.is_empty(), "missing {missing:?}, and unexpected {foreign:?}");
    assert_eq!(out.len(), expected.len(), "each once");

    let metrics = wharf.metrics();
    let unreadable: u64 = rows.iter().map(|row| row.unreadable).sum();
    assert_eq!(metrics.count("wharf_normalizer_parked_total", &[r#"reason="unreadable""#]), unreadable);
    let dead: u64 = rows.iter().map(|row| row.dead).sum();
    assert_eq!(metrics.count("wharf_normalizer_dead_letters_total", &[]), dead);
    survived(&mut wharf);
}

fn survived(wharf: &mut Wharf) {
    assert!(wharf.is_alive());
    let metrics = wharf.metrics();
    assert_eq!(metrics.count("wharf_ingress_requests_total", &[r#"status="503""#]), 0);
    assert_eq!(metrics.count("wharf_ingress_publish_failures_total", &[]), 0);
    assert_eq!(metrics.count("wharf_normalizer_waiting_envelopes_total", &[]), 0);
    assert_eq!(metrics.count("wharf_normalizer_pauses_total", &[]), 0);
    assert!(!wharf.log().contains("panicked"), "{}", wharf.log());
    assert_eq!(crate::http::get(wharf.public(), "/ready", "").status, 200);
}

#[test]
fn a_signature_counts_only_in_its_exact_form() {
    let rows = signatures::rows();
    assert!(rows.len() >= 25, "{}", rows.len());
    run(&rows);
}

#[test]
fn whatever_is_signed_is_taken_and_kept() {
    let rows = bodies::rows();
    assert!(rows.len() >= 45, "{}", rows.len());
    run(&rows);
}

#[test]
fn odd_values_in_updates_harm_nobody_else() {
    let rows = oddities::rows();
    assert!(rows.len() >= 45, "{}", rows.len());
    run(&rows);
}

#[test]
fn broken_http_is_refused_without_harm() {
    let rows = protocol::rows();
    assert!(rows.len() >= 60, "{}", rows.len());
    run(&rows);
}

#[test]
fn one_entry_with_several_tenants_and_a_bad_update_is_split() {
    let mut wharf = victim();
    let change = |number: &str, list: &str| {
        format!(r#"{{"field":"messages","value":{{"metadata":{{"phone_number_id":"{number}"}},"messages":[{list}]}}}}"#)
    };
    let text = |id: &str| format!(r#"{{"id":"{id}","from":"351910000001","type":"text","text":{{"body":"hi"}}}}"#);
    let body = format!(
        r#"{{"entry":[{{"id":"1","changes":[{},{},7,{}]}}]}}"#,
        change(NUMBER, &format!("{},{{\"id\":{{}}}},{}", text("wamid.D1"), text("wamid.D2"))),
        change(SECOND_NUMBER, &format!("null,{}", text("wamid.S1"))),
        change(NUMBER, &text("wamid.D3")),
    );
    meta::accepted(wharf.public(), body.as_bytes());
    meta::accepted(wharf.public(), &meta::messages(&[meta::text("wamid.END", "the end")]));
    wharf.wait_for_message("wamid.END");
    let mut out: Vec<_> = wharf.events().into_iter().map(|event| (event.tenant.clone(), event.name())).collect();
    out.sort();
    let of = |tenant: &str, id: &str| (tenant.to_owned(), format!("message.received {id}"));
    let expected = [
        of("default", "wamid.D1"),
        of("default", "wamid.D2"),
        of("default", "wamid.D3"),
        of("default", "wamid.END"),
        of("second", "wamid.S1"),
    ];
    assert_eq!(out, expected);
    assert_eq!(wharf.metrics().count("wharf_normalizer_dead_letters_total", &[]), 3);
    survived(&mut wharf);
}

#[test]
fn the_token_of_a_handshake_is_nobodys_to_read() {
    let mut wharf = victim();
    let good = format!("hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}&hub.challenge=");
    for (challenge, status) in [
        ("x".repeat(4096), 200),
        ("x".repeat(4097), 403),
        ("%00".to_owned(), 200),
        ("%ff".to_owned(), 403),
        ("%".to_owned(), 403),
        ("<script>".to_owned(), 400),
    ] {
        let answer = crate::http::get(wharf.public(), &format!("{PATH}?{good}{challenge}"), "");
        assert_eq!(answer.status, status, "{challenge:.20}: {answer:?}");
    }
    assert!(!wharf.log().contains(VERIFY_TOKEN));
    survived(&mut wharf);
}
