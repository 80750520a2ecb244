//! Hostile input against one process: the exact status of each request, and that nothing of it harms the next one.
//!
//! Each row is sent over a connection of its own and followed by a good webhook. At the end the feed must hold what the
//! rows say and nothing else, what was signed and cannot be handed out must have been kept, and the process must not
//! have answered 5xx or panicked once.

#[path = "hostile/bodies.rs"]
mod bodies;
#[path = "hostile/oddities.rs"]
mod oddities;
#[path = "hostile/protocol.rs"]
mod protocol;
#[path = "hostile/signatures.rs"]
mod signatures;

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

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

/// A request that does not come to its end.
struct Slow {
    name: &'static str,
    at_once: Vec<u8>,
    /// What drips afterwards.
    drops: Vec<u8>,
    /// After how many seconds it must be given up.
    seconds: Range<f64>,
}

impl Slow {
    fn run(&self, wharf: &Wharf) {
        let start = Instant::now();
        let mut connection = Connection::open(wharf.public());
        connection.send(&self.at_once);
        connection.drip(&self.drops, Duration::from_millis(100));
        let answer = connection.answer().unwrap_or_else(|| panic!("{}: no answer", self.name));
        assert_eq!(answer.status, 408, "{}: {answer:?}", self.name);
        let took = start.elapsed().as_secs_f64();
        assert!(self.seconds.contains(&took), "{}: after {took:.1} s", self.name);
        assert!(connection.answer().is_none(), "{}: closed, not kept to be filled later", self.name);
    }
}

#[test]
fn what_comes_too_slowly_is_given_up() {
    let mut wharf = victim();
    let body = meta::messages(&[meta::text("wamid.SLOW", "slow")]);
    let head = |length: String| {
        let signature = meta::signature(meta::SECRET, &body);
        format!("POST {PATH} HTTP/1.1\r\nHost: wharf\r\n{length}\r\n{signature}\r\n").into_bytes()
    };
    let with_length = head(format!("Content-Length: {}", body.len()));
    let chunked = head("Transfer-Encoding: chunked".to_owned());
    let upgrade = head(format!("Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: {}", body.len()));
    let joined = |parts: &[&[u8]]| parts.concat();
    let slow = |name, at_once, drops, seconds| Slow { name, at_once, drops, seconds };
    let body_time = 2.9..4.5;
    let slow = [
        slow("a body that drips", with_length.clone(), body.clone(), body_time.clone()),
        slow("a body that stops", joined(&[&with_length, &body[..20]]), Vec::new(), body_time.clone()),
        slow("a body that never begins", with_length.clone(), Vec::new(), body_time.clone()),
        slow("chunks that drip", chunked.clone(), b"1\r\nx\r\n".repeat(100), body_time.clone()),
        slow("a chunk that never ends", joined(&[&chunked, b"ff\r\nx"]), Vec::new(), body_time),
        // The server takes the upgrade for a body without end: refused in time, and no webhook has one.
        slow("an upgrade of the protocol", [&upgrade[..], &body].concat(), Vec::new(), 2.9..4.5),
        slow("a head that drips", b"POST ".to_vec(), with_length[5..].to_vec(), 4.5..8.0),
        slow("a head that stops", b"POST /".to_vec(), Vec::new(), 4.5..8.0),
    ];
    std::thread::scope(|scope| {
        for each in &slow {
            scope.spawn(|| each.run(&wharf));
        }
        // Meanwhile others are served.
        for index in 0..20 {
            let id = format!("wamid.MEANWHILE{index}");
            meta::accepted(wharf.public(), &meta::messages(&[meta::text(&id, "quick")]));
        }
    });
    assert_eq!(wharf.events_when(20).len(), 20);
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

#[test]
fn a_body_without_end_ends_with_its_connection() {
    let mut wharf = victim();
    let chunk = [b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n"].concat();
    let [public, api, admin] = [wharf.public(), wharf.api(), wharf.admin()];
    let encoded = "Content-Encoding: gzip\r\n";
    let rows = [
        (public, format!("POST {PATH}"), "", 413),
        (public, format!("POST {PATH}"), encoded, 415),
        (public, "POST /nowhere".to_owned(), "", 404),
        (public, format!("PUT {PATH}"), "", 405),
        (public, "POST /webhooks/generic".to_owned(), "", 413),
        (public, "GET /health".to_owned(), "", 200),
        (api, "POST /api/tenants".to_owned(), "", 401),
        (admin, "GET /metrics".to_owned(), "", 200),
    ];
    std::thread::scope(|scope| {
        for (to, line, headers, status) in &rows {
            let chunk = &chunk;
            scope.spawn(move || {
                let head = format!("{line} HTTP/1.1\r\nHost: wharf\r\n{headers}Transfer-Encoding: chunked\r\n\r\n");
                let mut connection = Connection::open(*to);
                connection.send(head.as_bytes());
                let begun = Instant::now();
                // More than a second of it is read by nobody.
                while connection.send(chunk) {
                    assert!(begun.elapsed() < Duration::from_secs(8), "{line}: it is still read");
                }
                // What was answered before may be lost with a reset.
                if let Some(answer) = connection.answer() {
                    assert_eq!(answer.status, *status, "{line}: {answer:?}");
                }
            });
        }
    });
    survived(&mut wharf);
}
