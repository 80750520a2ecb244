//! Signature headers: absent, damaged, doubled, of another secret. Refused with 403 before a byte is parsed.

use super::{OTHER_SECRET, Row, row};
use crate::http::post;
use crate::meta::{self, PATH, SECRET, messages, text};

const NAME: &str = "X-Hub-Signature-256";

pub(super) fn rows() -> Vec<Row> {
    let body = messages(&[text("wamid.SIGNED", "hello")]);
    let good = simulator::sign(SECRET, &body);
    let digits = good.strip_prefix("sha256=").unwrap().to_owned();
    let with = |headers: String| post(PATH, &headers, &body);
    let value = |value: &str| with(format!("{NAME}: {value}\r\n"));
    let signed_by = |secret: &str| value(&simulator::sign(secret, &body));

    let mut rows = vec![
        row("no signature", with(String::new()), 403),
        row("an empty signature", value(""), 403),
        row("only the prefix", value("sha256="), 403),
        row("bare digits", value(&digits), 403),
        row("another prefix", value(&format!("sha512={digits}")), 403),
        row("the legacy prefix", value(&format!("sha1={digits}")), 403),
        row("a prefix in capitals", value(&format!("SHA256={digits}")), 403),
        row("a colon for the equals sign", value(&format!("sha256:{digits}")), 403),
        row("a space after the prefix", value(&format!("sha256= {digits}")), 403),
        row("a space before the equals sign", value(&format!("sha256 ={digits}")), 403),
        row("quotes around it", value(&format!("\"{good}\"")), 403),
        row("a digit too few", value(&good[..good.len() - 1]), 403),
        row("a digit too many", value(&format!("{good}0")), 403),
        row("twice the digits", value(&format!("{good}{digits}")), 403),
        row("ten thousand digits", value(&format!("sha256={}", "ab".repeat(5000))), 403),
        row("a letter that is no digit", value(&format!("{}g", &good[..good.len() - 1])), 403),
        row("one bit off", value(&flip(&good)), 403),
        row("all zeros", value(&format!("sha256={}", "0".repeat(64))), 403),
        row("two in one value", value(&format!("{good}, {good}")), 403),
        row("a second value behind it", value(&format!("{good}; sha256={digits}")), 403),
        row("two headers, both good", with(format!("{NAME}: {good}\r\n{NAME}: {good}\r\n")), 403),
        row("two headers, the first good", with(format!("{NAME}: {good}\r\n{NAME}: sha256=00\r\n")), 403),
        row("two headers, the second good", with(format!("{NAME}: \r\n{NAME}: {good}\r\n")), 403),
        row("two headers in different case", with(format!("{NAME}: {good}\r\nx-HUB-signature-256: {good}\r\n")), 403),
        row("the legacy header only", with(format!("X-Hub-Signature: sha1={}\r\n", &digits[..40])), 403),
        row("the right value in the legacy header", with(format!("X-Hub-Signature: {good}\r\n")), 403),
        row("an underscore in the name", with(format!("X_Hub_Signature_256: {good}\r\n")), 403),
        row("the signature of the generic scheme", with(format!("X-Signature: {digits}\r\n")), 403),
        row("bytes beyond ASCII", raw(b"sha256=\xff\xfe", &body), 403),
        row("a NUL in the value", raw(b"sha256=\0", &body), 400),
        row("another app's secret", signed_by(OTHER_SECRET), 403),
        row("an empty secret", signed_by(""), 403),
        row("a secret with a line end", signed_by(&format!("{SECRET}\n")), 403),
        row("the verify token as secret", signed_by(meta::VERIFY_TOKEN), 403),
        row("another body's signature", value(&simulator::sign(SECRET, b"{}")), 403),
        row(
            "the signature of the body and a line end",
            value(&simulator::sign(SECRET, &[&body, &b"\n"[..]].concat())),
            403,
        ),
        row("an unsigned body that is no JSON", post(PATH, "", b"\xff"), 403),
        row("an unsigned empty body", post(PATH, "", b""), 403),
        row(
            "the default app's signature on another app's path",
            meta::signed_to("/webhooks/meta/other", SECRET, &body),
            403,
        ),
        row("an app that does not exist", meta::signed_to("/webhooks/meta/nobody", SECRET, &body), 403),
    ];
    // What looks odd and is right.
    rows.extend([
        row("digits in capitals", value(&format!("sha256={}", digits.to_uppercase())), 200).texts(["wamid.SIGNED"]),
        row("white space around the value, which is not part of it", value(&format!(" \t{good} \t")), 200),
        row("the legacy header beside it", with(format!("X-Hub-Signature: sha1=00\r\n{NAME}: {good}\r\n")), 200),
        row("a name in capitals", with(format!("X-HUB-SIGNATURE-256: {good}\r\n")), 200),
        row("the app's own path", meta::signed_to("/webhooks/meta/default", SECRET, &body), 200),
        row("the short path", meta::signed_to("/webhook", SECRET, &body), 200),
    ]);
    rows
}

/// The same with one bit changed in the last digit.
fn flip(signature: &str) -> String {
    let (rest, last) = signature.split_at(signature.len() - 1);
    let digit = u8::from_str_radix(last, 16).unwrap();
    format!("{rest}{:x}", digit ^ 1)
}

/// A request whose signature is these bytes.
fn raw(value: &[u8], body: &[u8]) -> Vec<u8> {
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: wharf\r\nContent-Length: {}\r\n{NAME}: ", body.len());
    [head.as_bytes(), value, b"\r\n\r\n", body].concat()
}
