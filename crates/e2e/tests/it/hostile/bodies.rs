//! Signed bodies that are not what they should be: answered 200, kept, and nothing made up from them.

use super::{Row, row, taken};
use crate::http::post;
use crate::meta::{self, PATH, SECRET, chunked, messages, messages_as, signature, signed, text, value_as};

/// The largest body.
const LIMIT: usize = 4 << 20;

pub(super) fn rows() -> Vec<Row> {
    let mut rows = unreadable();
    rows.extend(empty());
    rows.extend(misshapen());
    rows.extend(deep());
    rows.extend(large());
    rows
}

/// What no reader understands, or two could understand differently.
fn unreadable() -> Vec<Row> {
    let whole = messages(&[text("wamid.NEVER", "hello")]);
    let with = |bytes: &[u8]| [bytes, &whole[..]].concat();
    let utf16: Vec<u8> = String::from_utf8_lossy(&whole).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let replaced = |from: &str, to: &[u8]| {
        let at = whole.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        [&whole[..at], to, &whole[at + from.len()..]].concat()
    };
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("an empty body", Vec::new()),
        ("white space", b" \r\n\t ".to_vec()),
        ("a NUL", b"\0".to_vec()),
        ("words", b"not a webhook".to_vec()),
        ("a form", b"hub.mode=subscribe&hub.challenge=1".to_vec()),
        ("XML", b"<?xml version=\"1.0\"?><entry/>".to_vec()),
        ("compressed bytes", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec()),
        ("a list", b"[]".to_vec()),
        ("a list of webhooks", [b"[", &whole[..], b"]"].concat()),
        ("a number", b"1".to_vec()),
        ("null", b"null".to_vec()),
        ("true", b"true".to_vec()),
        ("a text", b"\"entry\"".to_vec()),
        ("an open brace", b"{".to_vec()),
        ("cut off in the middle", whole[..whole.len() / 2].to_vec()),
        ("cut off by one byte", whole[..whole.len() - 1].to_vec()),
        ("a brace too many", [&whole[..], b"}"].concat()),
        ("two webhooks one after the other", [&whole[..], &whole[..]].concat()),
        ("a byte order mark", with(b"\xef\xbb\xbf")),
        ("UTF-16", utf16),
        ("bytes that are not UTF-8 in a text", replaced("hello", b"\xff\xfe")),
        ("an overlong slash in a text", replaced("hello", b"\xc0\xaf")),
        ("a surrogate in UTF-8", replaced("hello", b"\xed\xa0\x80")),
        ("a raw NUL in a text", replaced("hello", b"a\0b")),
        ("a raw line end in a text", replaced("hello", b"a\nb")),
        ("an unknown escape", replaced("hello", b"\\x41")),
        ("half an escape", replaced("hello", b"\\u00")),
        ("a comment", with(b"/* webhook */")),
        ("single quotes", b"{'entry':[]}".to_vec()),
        ("a comma too many", b"{\"entry\":[],}".to_vec()),
        ("a key without quotes", b"{entry:[]}".to_vec()),
        ("a number with a leading zero", b"{\"entry\":[],\"x\":01}".to_vec()),
        ("not a number", b"{\"entry\":[],\"x\":NaN}".to_vec()),
        ("entries as an object", b"{\"entry\":{\"id\":\"1\"}}".to_vec()),
        ("entries as a text", b"{\"entry\":\"1\"}".to_vec()),
        ("two lists of entries", b"{\"entry\":[],\"entry\":[]}".to_vec()),
        ("two lists of entries, one escaped", b"{\"entry\":[],\"\\u0065ntry\":[]}".to_vec()),
        ("two lists of changes", b"{\"entry\":[{\"changes\":[],\"changes\":[]}]}".to_vec()),
        ("two values", b"{\"entry\":[{\"changes\":[{\"value\":{},\"value\":{}}]}]}".to_vec()),
        ("two lists of messages", value_as(r#""messages":[],"messages":[]"#)),
        ("two metadata", value_as(r#""metadata":{},"messages":[]"#)),
        ("two numbers addressed", {
            let two =
                r#"{"entry":[{"changes":[{"value":{"metadata":{"phone_number_id":"1","phone_number_id":"2"}}}]}]}"#;
            two.as_bytes().to_vec()
        }),
        ("a hundred thousand open brackets", b"[".repeat(100_000)),
        ("a hundred thousand open objects", b"{\"a\":".repeat(100_000)),
        ("a hundred thousand nested lists", [b"[".repeat(100_000), b"]".repeat(100_000)].concat()),
    ];
    bodies.into_iter().map(|(name, body)| taken(name, body).unreadable()).collect()
}

/// Readable, with nothing in it: kept whole, since it was signed.
fn empty() -> Vec<Row> {
    let bodies = [
        ("an empty object", "{}"),
        ("no entries", r#"{"object":"whatsapp_business_account","entry":[]}"#),
        ("entries that are null", r#"{"entry":null}"#),
        ("an entry without changes", r#"{"entry":[{"id":"1"}]}"#),
        ("an entry with no change", r#"{"entry":[{"id":"1","changes":[]}]}"#),
        ("white space around it", " \r\n{\"entry\" : [ ] }\t\n"),
        ("an unknown key", r#"{"surprise":{"entry":[1,2,3]}}"#),
    ];
    bodies.into_iter().map(|(name, body)| taken(name, body).unreadable()).collect()
}

/// Something else where a list or an object should be: one dead letter for the smallest piece around it, and the
/// neighbours pass.
fn misshapen() -> Vec<Row> {
    let beside = |name: &str, piece: &str, id: &str| {
        let good = format!(r#"{{"id":"{id}","from":"351910000001","type":"text","text":{{"body":"hi"}}}}"#);
        taken(name, messages_as(&format!("[{piece},{good},{piece}]"))).texts([id]).dead(2)
    };
    let entry_beside = |name: &str, piece: &str, id: &str| {
        let good = String::from_utf8(messages(&[text(id, "hello")])).unwrap();
        let at = good.find("\"entry\":[").unwrap() + "\"entry\":[".len();
        taken(name, format!("{}{piece},{}", &good[..at], &good[at..])).texts([id]).dead(1)
    };
    vec![
        beside("a message that is a text", r#""hello""#, "wamid.B1"),
        beside("a message that is a number", "7", "wamid.B2"),
        beside("a message that is null", "null", "wamid.B3"),
        beside("a message that is a list", r#"[{"id":"wamid.INNER"}]"#, "wamid.B4"),
        taken("messages as an object", value_as(r#""messages":{"id":"wamid.NEVER"}"#)).dead(1),
        taken("messages as a text", value_as(r#""messages":"wamid.NEVER""#)).dead(1),
        taken("statuses as a number", value_as(r#""statuses":1"#)).dead(1),
        taken("messages that are null", value_as(r#""messages":null"#)).event("unsupported -"),
        taken("messages that are empty", value_as(r#""messages":[]"#)).event("unsupported -"),
        taken("no list at all", value_as(r#""x":1"#)).event("unsupported -"),
        entry_beside("an entry that is a number", "7", "wamid.B5"),
        entry_beside("an entry that is null", "null", "wamid.B6"),
        entry_beside("changes as a text", r#"{"id":"1","changes":"all"}"#, "wamid.B7"),
        entry_beside("changes as an object", r#"{"id":"1","changes":{"field":"messages"}}"#, "wamid.B8"),
        entry_beside("a change that is a text", r#"{"id":"1","changes":["messages"]}"#, "wamid.B9"),
        entry_beside("a value that is a list", r#"{"id":"1","changes":[{"value":[]}]}"#, "wamid.B10"),
        entry_beside("a change without a value", r#"{"id":"1","changes":[{"field":"messages"}]}"#, "wamid.B11"),
        taken("contacts as a text", value_as(r#""contacts":"all","messages":[{"id":"wamid.B12"}]"#))
            .event("unsupported wamid.B12"),
        taken("errors beside messages", value_as(r#""errors":[{"code":1}],"messages":[{"id":"wamid.B13"}]"#))
            .event("unsupported -")
            .event("unsupported wamid.B13"),
    ]
}

/// Depth must not reach anybody's stack.
fn deep() -> Vec<Row> {
    let lists = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    let within = |id: &str, kind: &str, deep: &str| {
        messages_as(&format!(
            r#"[{{"id":"{id}","from":"351910000001","type":"{kind}","text":{{"body":"hi"}},"x":{deep}}}]"#
        ))
    };
    vec![
        taken("depth beside the entries", format!(r#"{{"x":{lists},"entry":[]}}"#)).unreadable(),
        taken("deep lists in a text message", within("wamid.DEEP1", "text", &lists)).texts(["wamid.DEEP1"]),
        taken("deep objects in a text message", within("wamid.DEEP2", "text", &objects)).texts(["wamid.DEEP2"]),
        taken("depth in an unknown message", within("wamid.DEEP3", "mystery", &lists)).event("unsupported wamid.DEEP3"),
        taken(
            "depth in the context of a message",
            messages_as(&format!(
                r#"[{{"id":"wamid.DEEP4","type":"text","text":{{"body":"hi"}},"context":{{"x":{objects}}}}}]"#
            )),
        )
        .texts(["wamid.DEEP4"]),
        taken("depth in a change", format!(r#"{{"entry":[{{"changes":[{{"value":{{"x":{lists}}}}}]}}]}}"#))
            .event("unsupported -"),
        taken("depth for an id", messages_as(&format!(r#"[{{"id":{lists}}}]"#))).dead(1),
        taken("depth for the metadata", {
            let body = r#"{"entry":[{"changes":[{"value":{"metadata":LISTS,"messages":[{"id":"wamid.DEEP5"}]}}]}]}"#;
            body.replace("LISTS", &lists)
        })
        .event("unsupported wamid.DEEP5"),
    ]
}

fn large() -> Vec<Row> {
    let many = |prefix: &str, count: usize, body: &str| {
        let ids: Vec<String> = (0..count).map(|index| format!("wamid.{prefix}{index}")).collect();
        let messages: Vec<_> = ids.iter().map(|id| text(id, body)).collect();
        (meta::messages(&messages), ids)
    };
    let (thousand, thousand_ids) = many("K", 1000, "hello");
    let (more, more_ids) = many("L", 1001, "hello");
    let (three_megabytes, large_ids) = many("M", 1000, &"0123456789".repeat(290));
    assert!((2_900_000..3_200_000).contains(&three_megabytes.len()), "{}", three_megabytes.len());
    let texts = |name: &str, body: &[u8], ids: &[String]| taken(name, body).texts(ids.iter().map(String::as_str));

    let fits = b"x".repeat(LIMIT);
    let too_large = b"x".repeat(LIMIT + 1);
    let announced = |length: &str| {
        let head = format!("POST {PATH} HTTP/1.1\r\nHost: wharf\r\nContent-Length: {length}\r\n\r\n{{");
        head.into_bytes()
    };
    let in_chunks = |body: &[u8]| {
        let signature = signature(SECRET, body);
        let head = format!("POST {PATH} HTTP/1.1\r\nHost: wharf\r\nTransfer-Encoding: chunked\r\n{signature}\r\n");
        [head.into_bytes(), chunked(body, 60_000)].concat()
    };
    vec![
        texts("a thousand messages", &thousand, &thousand_ids),
        row("the same again", signed(&thousand), 200),
        texts("one more than a thousand", &more, &more_ids),
        texts("three megabytes in a thousand messages", &three_megabytes, &large_ids),
        row("the same in chunks", in_chunks(&three_megabytes), 200),
        taken("three megabytes in one message", messages(&[text("wamid.HUGE", &"x".repeat(3_000_000))]))
            .texts(["wamid.HUGE"]),
        taken("as much as may be", &fits).unreadable(),
        row("as much as may be, in chunks", in_chunks(&fits), 200).unreadable(),
        row("a byte too much", signed(&too_large), 413),
        row("a byte too much, in chunks", in_chunks(&too_large), 413),
        row("a byte too much, not signed", post(PATH, "", &too_large), 413),
        row("ten gigabytes announced", announced("10000000000"), 413),
        row("all that can be announced", announced("18446744073709551615"), 413),
        row("more than can be announced", announced("18446744073709551616"), 400),
    ]
}
