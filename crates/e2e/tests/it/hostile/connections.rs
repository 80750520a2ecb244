//! Connections that are held, without the requests that they are for.

use std::io::{ErrorKind, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::{survived, victim};
use crate::http::Connection;
use crate::meta::{self, PATH};
use crate::wait;
use crate::wharf::{Setup, Wharf};

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
        scope.spawn(|| {
            let head =
                format!("POST /api/tenants HTTP/1.1\r\nHost: wharf\r\nAuthorization: Bearer {}\r\n", wharf.token);
            let mut connection = Connection::open(wharf.api());
            connection.send(format!("{head}Content-Length: 1000\r\n\r\n").as_bytes());
            let begun = Instant::now();
            connection.drip(&[b' '; 1000], Duration::from_millis(200));
            assert_eq!(connection.answer().unwrap().status, 408, "the API waits no longer either");
            assert!((9.5..14.0).contains(&begun.elapsed().as_secs_f64()));
        });
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

/// A request that is answered.
const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: wharf\r\n\r\n";
/// With a keep-alive of a second: that, and 5 s for a head, twice at most.
const LONGEST: f64 = 14.0;

/// Asks once and goes on with these bytes, one by one, which are no second request.
fn dawdle(mut connection: Connection, more: &[u8]) -> f64 {
    connection.send(HEALTH);
    assert_eq!(connection.answer().unwrap().status, 200);
    let begun = Instant::now();
    connection.drip(more, Duration::from_millis(200));
    assert!(connection.answer().is_none(), "closed without an answer");
    begun.elapsed().as_secs_f64()
}

/// Asks without an end, and reads no answer.
fn hoard(mut stream: TcpStream) -> f64 {
    let begun = Instant::now();
    stream.set_nonblocking(true).unwrap();
    let requests = HEALTH.repeat(1000);
    wait::until("the connection is closed", || {
        (!asks_more(&mut stream, &requests)).then_some(begun.elapsed().as_secs_f64())
    })
}

/// Writes what there is room for. False if the connection is closed.
fn asks_more(stream: &mut TcpStream, requests: &[u8]) -> bool {
    let written = stream.write(requests).map_err(|error| error.kind());
    written.is_ok_and(|bytes| bytes > 0) || written == Err(ErrorKind::WouldBlock)
}

#[test]
fn a_connection_on_which_nothing_is_answered_ends() {
    let mut wharf = Setup::new().set("WHARF__LISTEN__KEEP_ALIVE_SECONDS", "1").start();
    let before = wharf.gateway_cpu_seconds();
    std::thread::scope(|scope| {
        let to = [wharf.public(), wharf.api(), wharf.admin()];
        let idle =
            [&b"G"[..], b"GET /health HTTP/1.1\r\nHost: wharf\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"];
        let ways = to.into_iter().flat_map(|to| idle.map(|more| (to, more)));
        let dawdling = ways.map(|(to, more)| scope.spawn(move || dawdle(Connection::open(to), more)));
        let hoarding = to.map(|to| scope.spawn(move || hoard(TcpStream::connect(to).unwrap())));
        let all: Vec<_> = dawdling.chain(hoarding).collect();
        for each in all {
            let took = each.join().unwrap();
            assert!(took < LONGEST, "after {took:.1} s");
        }
    });
    let used = wharf.gateway_cpu_seconds() - before;
    assert!(used <= 3, "{used} s of processor time for connections on which nothing happens");
    survived(&mut wharf);
}

#[test]
fn who_reads_no_answers_takes_little_memory() {
    const CLIENTS: usize = 100;
    const MOST_EACH: u64 = 500;
    let requests = HEALTH.repeat(1000);
    let mut wharf = Setup::new()
        .set("WHARF__LISTEN__KEEP_ALIVE_SECONDS", "1")
        .set("WHARF__INGRESS__CONNECTIONS_PER_IP", &CLIENTS.to_string())
        .start();
    let before = wharf.gateway_memory();
    let mut streams: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(wharf.public()).unwrap()).collect();
    for stream in &streams {
        stream.set_nonblocking(true).unwrap();
    }
    let mut most = before;
    wait::until("all connections are closed", || {
        streams.retain_mut(|stream| asks_more(stream, &requests));
        most = most.max(wharf.gateway_memory());
        streams.is_empty().then_some(())
    });
    let each = (most - before) / CLIENTS as u64;
    assert!(each < MOST_EACH, "{each} KiB of memory for each");
    survived(&mut wharf);
}
