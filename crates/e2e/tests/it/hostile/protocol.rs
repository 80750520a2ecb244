//! Requests that HTTP itself has an opinion about: methods, targets, framing, headers, and several in one write.

use super::{Row, row};
use crate::http::post;
use crate::meta::{self, PATH, SECRET, VERIFY_TOKEN, chunked, messages, signature, signed, text};

/// A request with any head. `headers` are complete lines.
fn request(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("{line}\r\n{headers}\r\n").as_bytes(), body].concat()
}

/// A signed message of its own, and the lines that frame and sign it.
struct Good {
    body: Vec<u8>,
    length: String,
    signature: String,
}

fn good(id: &str) -> Good {
    let body = messages(&[text(id, "hello")]);
    Good { length: format!("Content-Length: {}\r\n", body.len()), signature: signature(SECRET, &body), body }
}

const HOST: &str = "Host: wharf\r\n";

pub(super) fn rows() -> Vec<Row> {
    let mut rows = methods();
    rows.extend(targets());
    rows.extend(framing());
    rows.extend(headers());
    rows.extend(versions());
    rows.extend(several());
    rows
}

fn methods() -> Vec<Row> {
    let mut rows: Vec<_> = ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PURGE", "post", "GETT"]
        .into_iter()
        .map(|method| {
            row(format!("the method {method}"), request(&format!("{method} {PATH} HTTP/1.1"), HOST, b""), 405)
        })
        .collect();
    let body = messages(&[text("wamid.NEVER", "hello")]);
    let signed_put = String::from_utf8(signed(&body)).unwrap().replacen("POST", "PUT", 1);
    rows.extend([
        row("HEAD", request(&format!("HEAD {PATH} HTTP/1.1"), HOST, b""), 405).without_body(),
        row("a signed PUT", signed_put, 405),
        row("a PUT on an app's path", request(&format!("PUT {PATH}/default HTTP/1.1"), HOST, b""), 405),
        row("OPTIONS of everything", request("OPTIONS * HTTP/1.1", HOST, b""), 404),
        row("a tunnel", request(&format!("CONNECT {PATH} HTTP/1.1"), HOST, b""), 405),
        row("a tunnel to elsewhere", request("CONNECT elsewhere.example:443 HTTP/1.1", HOST, b""), 404),
        row("a method of symbols", request(&format!("P@ST {PATH} HTTP/1.1"), HOST, b""), 400),
        row("no method", request(&format!(" {PATH} HTTP/1.1"), HOST, b""), 400),
        row(
            "a GET with a body",
            request(&format!("GET {PATH} HTTP/1.1"), "Host: wharf\r\nContent-Length: 2\r\n", b"{}"),
            403,
        ),
    ]);
    rows
}

fn targets() -> Vec<Row> {
    let to = |name: &str, target: &str, status: u16| {
        let body = messages(&[text("wamid.TARGET", "hello")]);
        row(name, meta::signed_to(target, SECRET, &body), status)
    };
    vec![
        to("an unknown path", "/nowhere", 404),
        to("the root", "/", 404),
        to("a path too long by a slash", "/webhooks/meta/", 404),
        to("a path below an app", "/webhooks/meta/default/more", 404),
        to("a path above", "/webhooks", 404),
        to("double slashes", "//webhooks//meta", 404),
        to("a path in capitals", "/WEBHOOKS/META", 404),
        to("a way up and down", "/webhooks/../webhooks/meta", 404),
        to("a way out", "/webhooks/meta/../../../../etc/passwd", 404),
        to("two dots for an app", "/webhooks/meta/..", 403),
        to("encoded dots for an app", "/webhooks/meta/%2e%2e%2f%2e%2e", 403),
        to("a NUL for an app", "/webhooks/meta/%00", 403),
        to("a broken escape for an app", "/webhooks/meta/%zz", 403),
        to("bytes that are not UTF-8 for an app", "/webhooks/meta/%ff%fe", 403),
        to("a header for an app", "/webhooks/meta/x%0d%0aX-Injected:%201", 403),
        to("an app of a thousand characters", &format!("/webhooks/meta/{}", "a".repeat(1000)), 403),
        to("a path of 30 kB", &format!("/{}", "a".repeat(30_000)), 404),
        to("a path of 100 kB", &format!("/{}", "a".repeat(100_000)), 400),
        to("the API's paths", "/v1/directory/import", 404),
        to("the metrics' path", "/metrics", 404),
        to("a letter of the path encoded", "/webhooks/%6Deta", 200).texts(["wamid.TARGET"]),
        to("a query, which says nothing", "/webhooks/meta?x=1&app=other&hub.challenge=1", 200),
        to("an absolute address", "http://elsewhere.example/webhooks/meta", 200),
        to("a target without a slash", "webhooks/meta", 400),
        row("no target", request("GET HTTP/1.1", HOST, b""), 400),
        row("a target with a space", request("GET /a b HTTP/1.1", HOST, b""), 400),
        row("a target with a raw NUL", request("GET /a\0 HTTP/1.1", HOST, b""), 400),
        row(
            "a handshake with line ends in the challenge",
            request(
                &format!(
                    "GET {PATH}?hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}&hub.challenge=1%0D%0AX-Injected:%201 HTTP/1.1"
                ),
                HOST,
                b"",
            ),
            200,
        ),
    ]
}

fn framing() -> Vec<Row> {
    let post_line = format!("POST {PATH} HTTP/1.1");
    let with = |good: &Good, headers: &str, body: &[u8]| {
        request(&post_line, &format!("{HOST}{}{headers}", good.signature), body)
    };
    let in_chunks = "Transfer-Encoding: chunked\r\n";
    let a = good("wamid.FRAME1");
    let b = good("wamid.FRAME2");
    let c = good("wamid.FRAME3");
    let longer = format!("Content-Length: {}\r\n", a.body.len() + 1);
    let shorter = format!("Content-Length: {}\r\n", a.body.len() - 1);
    let length = |text: &str| with(&a, &format!("Content-Length: {text}\r\n"), &a.body);
    let extended = [b"5;name=value\r\n", &b.body[..5], b"\r\n", &chunked(&b.body[5..], 7)[..]].concat();
    let trailed = [&chunked(&c.body, 1000)[..chunked(&c.body, 1000).len() - 2], b"X-Trailer: 1\r\n\r\n"].concat();
    vec![
        row("chunks", with(&a, in_chunks, &chunked(&a.body, 3)), 200).texts(["wamid.FRAME1"]),
        row("chunks with extensions", with(&b, in_chunks, &extended), 200).texts(["wamid.FRAME2"]),
        row("chunks with a trailer", with(&c, in_chunks, &trailed), 200).texts(["wamid.FRAME3"]),
        row("no chunk at all", with(&a, in_chunks, b"0\r\n\r\n"), 403),
        row("a chunk without a size", with(&a, in_chunks, b"\r\nhello\r\n0\r\n\r\n"), 400),
        row("a chunk whose size is no number", with(&a, in_chunks, b"zz\r\nhello\r\n0\r\n\r\n"), 400),
        row("a chunk with a negative size", with(&a, in_chunks, b"-5\r\nhello\r\n0\r\n\r\n"), 400),
        row("a chunk with a size in 0x", with(&a, in_chunks, b"0x5\r\nhello\r\n0\r\n\r\n"), 400),
        row("a chunk with a size beyond all numbers", with(&a, in_chunks, b"fffffffffffffffff\r\nx"), 400),
        row("a chunk longer than its size", with(&a, in_chunks, b"2\r\nhello\r\n0\r\n\r\n"), 400),
        row("chunks that stop", with(&a, in_chunks, b"5\r\nhel"), 400).half_closed(),
        row("a length larger than the body", with(&a, &longer, &a.body), 400).half_closed(),
        row("a length smaller than the body", with(&a, &shorter, &a.body), 403).answers(&[403, 400]),
        row("a length and no body", with(&a, &a.length, b""), 400).half_closed(),
        row("no length, and a body that is a request of its own", with(&a, "", &a.body), 403).answers(&[403, 400]),
        row("two equal lengths", with(&a, &a.length.repeat(2), &a.body), 400),
        row("two different lengths", with(&a, &format!("{}{shorter}", a.length), &a.body), 400),
        row("two lengths in one header", length("5, 5"), 400),
        row("a negative length", length("-1"), 400),
        row("a length with a plus", length(&format!("+{}", a.body.len())), 400),
        row("a length in hex", length("0x10"), 400),
        row("a length in words", length("many"), 400),
        row("an empty length", length(""), 400),
        row("a length and chunks", with(&a, &format!("{}{in_chunks}", a.length), &chunked(&a.body, 9)), 400),
        row("chunks and a length", with(&a, &format!("{in_chunks}{}", a.length), &chunked(&a.body, 9)), 400),
        row("chunked twice", with(&a, &in_chunks.repeat(2), &chunked(&a.body, 9)), 400),
        row("an unknown transfer encoding", with(&a, "Transfer-Encoding: xchunked\r\n", &chunked(&a.body, 9)), 400),
        row("compressed and chunked", with(&a, "Transfer-Encoding: gzip, chunked\r\n", &chunked(&a.body, 9)), 400),
        row("the identity encoding", with(&a, &format!("Transfer-Encoding: identity\r\n{}", a.length), &a.body), 400),
    ]
}

fn headers() -> Vec<Row> {
    let post_line = format!("POST {PATH} HTTP/1.1");
    let taken = |name: &str, id: &str, more: &str| {
        let good = good(id);
        let headers = format!("{HOST}{}{}{more}", good.length, good.signature);
        row(name, request(&post_line, &headers, &good.body), 200)
    };
    let fresh = |name: &str, id: &str, more: &str| taken(name, id, more).texts([id]);
    let refused = |name: &str, more: &str, status: u16| {
        let row = taken(name, "wamid.NEVER", more);
        row.answers(&[status])
    };
    let unsigned = |name: &str, headers: &str, status: u16| row(name, request(&post_line, headers, b""), status);
    vec![
        refused("a compressed body", "Content-Encoding: gzip\r\n", 415),
        refused("a body in an unknown encoding", "Content-Encoding: zz\r\n", 415),
        refused("a body in two encodings", "Content-Encoding: identity\r\nContent-Encoding: gzip\r\n", 415),
        fresh("a body in no encoding", "wamid.H1", "Content-Encoding: identity\r\n"),
        fresh("another content type", "wamid.H2", "Content-Type: text/plain\r\n"),
        fresh("a form's content type", "wamid.H3", "Content-Type: application/x-www-form-urlencoded\r\n"),
        fresh("a multipart content type", "wamid.H4", "Content-Type: multipart/form-data; boundary=x\r\n"),
        fresh("another charset", "wamid.H5", "Content-Type: application/json; charset=utf-16\r\n"),
        fresh("no content type", "wamid.H6", ""),
        fresh("two content types", "wamid.H7", "Content-Type: text/html\r\nContent-Type: application/json\r\n"),
        fresh("a trace that is none", "wamid.H8", "traceparent: 00-zz-zz-zz\r\n"),
        fresh("a trace of ten thousand letters", "wamid.H9", &format!("traceparent: {}\r\n", "0".repeat(10_000))),
        fresh("addresses of others", "wamid.H10", "X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\n"),
        fresh("another method asked for", "wamid.H11", "X-HTTP-Method-Override: DELETE\r\n"),
        fresh("another address asked for", "wamid.H12", "X-Original-URL: /metrics\r\nX-Rewrite-URL: /metrics\r\n"),
        fresh("a header of 60 kB", "wamid.H13", &format!("X-Long: {}\r\n", "x".repeat(60_000))),
        fresh("a header beyond ASCII", "wamid.H14", "X-Odd: ä\r\n"),
        fresh("80 headers", "wamid.H15", &"X-More: 1\r\n".repeat(80)),
        fresh("an upgrade that is not wanted", "wamid.H16", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        refused("a header of 200 kB", &format!("X-Long: {}\r\n", "x".repeat(200_000)), 431),
        refused("200 headers", &"X-More: 1\r\n".repeat(200), 431),
        refused("a space before the colon", "X-Odd : 1\r\n", 400),
        refused("a header without a colon", "X-Odd\r\n", 400),
        refused("a header without a name", ": 1\r\n", 400),
        refused("a folded header", "X-Odd: 1\r\n 2\r\n", 400),
        refused("a carriage return in a header", "X-Odd: 1\rX-Injected: 1\r\n", 400),
        refused("a NUL in a header", "X-Odd: 1\0\r\n", 400),
        refused("a name in brackets", "X(Odd): 1\r\n", 400),
        unsigned("no host", "Content-Length: 0\r\n", 400),
        unsigned("two hosts", "Host: a\r\nHost: b\r\nContent-Length: 0\r\n", 400),
        unsigned("another host", "Host: elsewhere.example:1\r\nContent-Length: 0\r\n", 403),
        unsigned("an expectation that nobody meets", "Host: a\r\nExpect: miracles\r\nContent-Length: 0\r\n", 403),
    ]
}

fn versions() -> Vec<Row> {
    let old = good("wamid.V1");
    let headers = format!("{}{}", old.length, old.signature);
    let line = |version: &str| request(&format!("POST {PATH} {version}"), &format!("{HOST}{headers}"), &old.body);
    vec![
        row("HTTP/1.0", request(&format!("POST {PATH} HTTP/1.0"), &headers, &old.body), 200).texts(["wamid.V1"]),
        row("HTTP/1.0 without a length", request(&format!("POST {PATH} HTTP/1.0"), "", b""), 400),
        row(
            "HTTP/1.0 in chunks",
            request(&format!("POST {PATH} HTTP/1.0"), "Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
            400,
        ),
        row("HTTP/1.2", line("HTTP/1.2"), 400),
        row("HTTP/0.9", b"GET /webhooks/meta\r\n\r\n".to_vec(), 400),
        row("HTTP/2 without TLS", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 400),
        row("a version in small letters", line("http/1.1"), 400),
        row("another protocol", line("SIP/2.0"), 400),
        row("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), 400),
        row("zeros", vec![0; 1000], 400),
        row("nothing", Vec::new(), 0).answers(&[]).half_closed(),
        row("half a line", b"POST /webh".to_vec(), 0).answers(&[]).half_closed(),
        row(
            "line ends without carriage returns",
            {
                let good = String::from_utf8(request(
                    &format!("POST {PATH} HTTP/1.1"),
                    "Host: a\r\nContent-Length: 0\r\n",
                    b"",
                ));
                good.unwrap().replace("\r\n", "\n")
            },
            403,
        ),
    ]
}

fn several() -> Vec<Row> {
    let [one, two, three] = ["wamid.P1", "wamid.P2", "wamid.P3"].map(good);
    let post = |good: &Good| signed(&good.body);
    let forged = post_unsigned();
    let get = request(&format!("GET {PATH} HTTP/1.1"), HOST, b"");
    let missing = request("GET /nowhere HTTP/1.1", HOST, b"");
    let waits = good("wamid.P4");
    let expecting = request(
        &format!("POST {PATH} HTTP/1.1"),
        &format!("{HOST}Expect: 100-continue\r\n{}{}", waits.length, waits.signature),
        &waits.body,
    );
    let too_large = request(
        &format!("POST {PATH} HTTP/1.1"),
        &format!("{HOST}Expect: 100-continue\r\nContent-Length: 99999999\r\n"),
        b"",
    );
    let inside = good("wamid.SMUGGLED");
    let smuggled = request(
        &format!("POST {PATH} HTTP/1.1"),
        &format!("{HOST}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n"),
        &[b"0\r\n\r\n", &post(&inside)[..]].concat(),
    );
    vec![
        row("three webhooks in one write", [post(&one), post(&two), post(&three)].concat(), 200)
            .answers(&[200, 200, 200])
            .texts(["wamid.P1", "wamid.P2", "wamid.P3"]),
        row("good and bad in one write", [get, forged, post(&one), missing, post(&two)].concat(), 200)
            .answers(&[403, 403, 200, 404, 200]),
        row("a body that has to be asked for", expecting, 200).answers(&[100, 200]).texts(["wamid.P4"]),
        row("a body that is too large, asked for", too_large, 413).answers(&[100, 413]),
        row("a webhook inside another's framing", smuggled, 400),
        row("empty lines before a webhook", [b"\r\n\r\n", &post(&one)[..]].concat(), 200),
    ]
}

fn post_unsigned() -> Vec<u8> {
    post(PATH, "", b"{}")
}
