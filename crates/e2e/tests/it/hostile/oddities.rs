//! Well-formed webhooks with values that nobody expects: ids, texts, times, people, numbers of their own kind.

use super::{Row, row, taken};
use crate::meta::{self, messages_as, now, signed, value_as};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = ids();
    rows.extend(texts());
    rows.extend(times());
    rows.extend(statuses());
    rows.extend(surroundings());
    rows
}

/// A text message with this id, as it stands in JSON, and a good neighbour.
fn id(name: &str, json: &str, neighbour: &str) -> Row {
    let message = |id: &str| format!(r#"{{"id":{id},"from":"351910000001","type":"text","text":{{"body":"hi"}}}}"#);
    let list = format!("[{},{}]", message(json), message(&format!("\"{neighbour}\"")));
    taken(name, messages_as(&list)).texts([neighbour])
}

fn ids() -> Vec<Row> {
    let long = |length: usize| format!("wamid.{}", "x".repeat(length - 6));
    let quoted = |text: &str| format!("\"{text}\"");
    vec![
        id("an id with an escaped slash", r#""wamid.A\/B+C=""#, "wamid.I1").texts(["wamid.A/B+C="]),
        // The same message, written differently.
        id("the same id with a plain slash", r#""wamid.A/B+C=""#, "wamid.I2"),
        id("the same id with a slash in hex", r#""wamid.A\u002fB+C=""#, "wamid.I3"),
        id("the same id all in hex", r#""\u0077amid.\u0041\u002FB\u002bC\u003d""#, "wamid.I4"),
        id("an id beyond ASCII", r#""wamid.\u00e4\ud83d\ude00""#, "wamid.I5").texts(["wamid.ä😀"]),
        id("the same id in raw UTF-8", "\"wamid.ä😀\"", "wamid.I6"),
        id("an id with quotes and backslashes", r#""wamid.\"\\'""#, "wamid.I7").texts([r#"wamid."\'"#]),
        id("an id like a path", r#""../../etc/passwd""#, "wamid.I8").texts(["../../etc/passwd"]),
        id("an id like a statement", r#""'; DROP TABLE messages; --""#, "wamid.I9")
            .texts(["'; DROP TABLE messages; --"]),
        id("an id that is a number", "12345", "wamid.I10").texts(["12345"]),
        id("an id that is the same number as text", "\"12345\"", "wamid.I11"),
        id("an id that is an object", r#"{"id":"wamid.X"}"#, "wamid.I12").dead(1),
        id("an id that is a list", r#"["wamid.X"]"#, "wamid.I13").dead(1),
        id("an id that is true", "true", "wamid.I14").dead(1),
        id("an id with a lone high surrogate", r#""wamid.\ud83d""#, "wamid.I15").dead(1),
        id("an id with a lone low surrogate", r#""\ude00wamid""#, "wamid.I16").dead(1),
        id("an id with surrogates in the wrong order", r#""\ude00\ud83d""#, "wamid.I17").dead(1),
        id("an id with 255 characters", &quoted(&long(255)), "wamid.I18").texts([long(255).as_str()]),
        id("an id with 513 characters", &quoted(&long(513)), "wamid.I19").dead(1),
        id("an id with ten thousand characters", &quoted(&long(10_000)), "wamid.I20").dead(1),
        id("an id with a NUL", r#""wamid.\u0000N""#, "wamid.I21").texts(["wamid.\0N"]),
        id("no id", "null", "wamid.I22").event("unsupported -"),
        id("an empty id", "\"\"", "wamid.I23").event("unsupported -"),
        id("an id twice in one message", r#""wamid.ONE","id":"wamid.TWO""#, "wamid.I24").dead(1),
        id("an id twice, one escaped", r#""wamid.ONE","\u0069d":"wamid.TWO""#, "wamid.I25").dead(1),
        id("one id in two messages of a webhook", "\"wamid.I26\"", "wamid.I26"),
    ]
}

/// A text message whose `text` is this JSON.
fn content(name: &str, id: &str, text: &str) -> Row {
    let list = format!(r#"[{{"id":"{id}","from":"351910000001","type":"text","text":{text}}}]"#);
    taken(name, messages_as(&list))
}

fn texts() -> Vec<Row> {
    let body = |name: &str, id: &str, body: &str| content(name, id, &format!(r#"{{"body":"{body}"}}"#)).texts([id]);
    vec![
        body("an escaped NUL in a text", "wamid.T1", r"a\u0000b"),
        body("a lone surrogate in a text", "wamid.T2", r"a\ud83db"),
        body("surrogates in the wrong order in a text", "wamid.T3", r"\ude00\ud83d"),
        body("control codes in a text", "wamid.T4", r"\u0001\u001b[31m\u007f\b\f"),
        body("line separators and directions", "wamid.T5", r"\u2028\u202e\ufeff\uffff"),
        body("markup in a text", "wamid.T6", "<script>alert(1)</script>"),
        body("an empty text", "wamid.T7", ""),
        body("a hundred thousand emoji", "wamid.T8", &"😀".repeat(100_000)),
        content("a text that is no object", "wamid.T9", "\"hello\"").event("unsupported wamid.T9"),
        content("a text that is null", "wamid.T10", "null").event("unsupported wamid.T10"),
        content("a body that is a number", "wamid.T11", r#"{"body":7}"#).event("unsupported wamid.T11"),
        content("two texts in one message", "wamid.T12", r#"{"body":"a"},"text":{"body":"b"}"#).dead(1),
        content("two bodies in one text", "wamid.T13", r#"{"body":"a","body":"b"}"#).dead(1),
        content("unknown keys, twice and dangerous", "wamid.T14", r#"{"body":"a"},"__proto__":{"x":1},"y":1,"y":2"#)
            .texts(["wamid.T14"]),
        content("a number with an absurd exponent", "wamid.T15", r#"{"body":"a"},"x":1e999999999,"y":-1e-999999999"#)
            .texts(["wamid.T15"]),
        content(
            "a number of ten thousand digits",
            "wamid.T16",
            &format!(r#"{{"body":"a"}},"x":{}"#, "9".repeat(10_000)),
        )
        .texts(["wamid.T16"]),
        content("an absurd number in an unknown message", "wamid.T17", r#"1,"x":1e999999999,"type2":"y""#)
            .event("unsupported wamid.T17"),
    ]
}

fn times() -> Vec<Row> {
    let time = |name: &str, id: &str, time: &str| {
        let list = format!(r#"[{{"id":"{id}","timestamp":{time},"type":"text","text":{{"body":"hi"}}}}]"#);
        taken(name, messages_as(&list))
    };
    let passes = |name: &str, id: &str, json: &str| time(name, id, json).texts([id]);
    vec![
        passes("a time that is a number", "wamid.C1", &now().to_string()),
        passes("a negative time", "wamid.C2", "\"-5\""),
        passes("a negative time as a number", "wamid.C3", "-5"),
        passes("a time beyond 64 bits", "wamid.C4", "\"99999999999999999999\""),
        passes("a time beyond the year 9999", "wamid.C5", "253402300800"),
        passes("the last second of the year 9999", "wamid.C6", "253402300799"),
        passes("a time in words", "wamid.C7", "\"yesterday\""),
        passes("a time with a fraction", "wamid.C8", "1795000000.5"),
        passes("a time with an exponent", "wamid.C9", "1e400"),
        passes("a time that is true", "wamid.C10", "true"),
        passes("a time that is an object", "wamid.C11", "{}"),
        passes("an empty time", "wamid.C12", "\"\""),
        passes("no time", "wamid.C13", "null"),
        time("the first second of 1970", "wamid.C14", "\"0\""),
        time("times that differ", "wamid.C15", r#""1795000000","timestamp":"1795000001""#).dead(1),
    ]
}

fn statuses() -> Vec<Row> {
    let status = |name: &str, members: &str| taken(name, value_as(&format!(r#""statuses":[{{{members}}}]"#)));
    vec![
        status("a status of no known word", r#""id":"wamid.S1","status":"pondered""#).event("unsupported wamid.S1"),
        status("a status without a word", r#""id":"wamid.S2""#).event("unsupported wamid.S2"),
        status("a status without an id", r#""status":"read""#).event("unsupported -"),
        status("a status that is an object", r#""id":"wamid.S3","status":{}"#).dead(1),
        status("a status with two words", r#""id":"wamid.S4","status":"sent","status":"read""#).dead(1),
        status("errors that are no list", r#""id":"wamid.S5","status":"failed","errors":"all""#)
            .event("message.status wamid.S5 failed"),
        status(
            "a status with a code beyond all numbers",
            r#""id":"wamid.S6","status":"failed","errors":[{"code":1e99}]"#,
        )
        .event("message.status wamid.S6 failed"),
        status("a status with prices of the wrong kind", r#""id":"wamid.S7","status":"sent","pricing":[1]"#)
            .event("message.status wamid.S7 sent"),
        status("a status of a wrong recipient", r#""id":"wamid.S8","status":"sent","recipient_id":{"x":1}"#)
            .event("message.status wamid.S8 sent"),
    ]
}

fn surroundings() -> Vec<Row> {
    let member = |name: &str, id: &str, member: &str| {
        let list = format!(r#"[{{"id":"{id}",{member},"type":"text","text":{{"body":"hi"}}}}]"#);
        taken(name, messages_as(&list)).texts([id])
    };
    let metadata = |name: &str, id: &str, metadata: &str| {
        let body = format!(
            r#"{{"entry":[{{"id":"1","changes":[{{"field":"messages","value":{{"metadata":{metadata},"messages":[{{"id":"{id}"}}]}}}}]}}]}}"#
        );
        taken(name, body).event(format!("unsupported {id}"))
    };
    let field = |name: &str, field: &str| {
        taken(name, format!(r#"{{"entry":[{{"id":"1","changes":[{{"field":{field},"value":{{"x":1}}}}]}}]}}"#))
            .event("unsupported -")
    };
    let whole = meta::messages(&[meta::text("wamid.R20", "hello")]);
    vec![
        member("a sender that is an object", "wamid.R1", r#""from":{"x":1}"#),
        member("a sender that is a number", "wamid.R2", r#""from":351910000001"#),
        member("a sender of letters", "wamid.R3", r#""from":"nobody""#),
        member("a sender of ten thousand digits", "wamid.R4", &format!(r#""from":"{}""#, "1".repeat(10_000))),
        member("a sender with a NUL", "wamid.R5", r#""from":"35191\u00000001""#),
        member("a user id that is a list", "wamid.R6", r#""from_user_id":["x"]"#),
        member("a context that is a text", "wamid.R7", r#""context":"x""#),
        metadata("metadata that is a list", "wamid.R8", "[]"),
        metadata("metadata that is null", "wamid.R9", "null"),
        metadata("a number id that is a number", "wamid.R10", r#"{"phone_number_id":777}"#),
        metadata("a number id like a path", "wamid.R11", r#"{"phone_number_id":"../x y"}"#),
        metadata("a number id with a wildcard", "wamid.R12", r#"{"phone_number_id":"inbound.>"}"#),
        metadata(
            "a number id that is too long",
            "wamid.R13",
            &format!(r#"{{"phone_number_id":"{}"}}"#, "7".repeat(500)),
        ),
        metadata("a number id with a lone surrogate", "wamid.R14", r#"{"phone_number_id":"\ud83d"}"#),
        field("a field that nobody knows", "\"horoscopes\""),
        field("a field that is a number", "7"),
        field("a field with a line end", r#""a\nb{c=\"d\"}""#),
        field("a field of ten thousand characters", &format!("\"{}\"", "f".repeat(10_000))),
        taken(
            "a message of a type that nobody knows",
            messages_as(r#"[{"id":"wamid.R19","type":"hologram\n{x=\"y\"}","hologram":{}}]"#),
        )
        .event("unsupported wamid.R19"),
        taken(
            "an object of another product",
            String::from_utf8_lossy(&whole).replace("whatsapp_business_account", "page"),
        )
        .texts(["wamid.R20"]),
        row("the same webhook again", signed(&whole), 200),
    ]
}
