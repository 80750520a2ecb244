use std::fmt::Write;

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::{Value as Json, json};

use super::*;

/// Whether the scanner takes the whole text as one value.
fn accepts(text: &str) -> bool {
    let mut scanner = Scanner::new(text);
    scanner.skip().is_ok() && scanner.next().is_none()
}

fn text(json: &str) -> Text<'_> {
    let Ok(Value::Text(text)) = Scanner::new(json).value() else { panic!("{json}") };
    text
}

#[test]
fn takes_what_the_grammar_allows() {
    for good in [
        "0",
        "-0",
        "1e9",
        "-1.5E+10",
        "1e999",
        "true",
        " false ",
        "null",
        "\"\"",
        "[]",
        "{}",
        "[1,[],{}]",
        "{\"a\":1,\"a\":2}",
        "\t[ 1 , 2 ]\r\n",
        r#""\u00e4\ud800\/\b\f\n\r\t\\\"""#,
        "\"\u{7f}äöü😀\u{2028}\"",
    ] {
        assert!(accepts(good), "{good}");
    }
    for bad in [
        "",
        " ",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "+1",
        "tru",
        "nul",
        "True",
        "\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\u+123\"",
        "\"\n\"",
        "[",
        "]",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "[}",
        "{]",
        "[1]]",
        "1 2",
        "\u{feff}1",
        "'a'",
        "NaN",
        "//\n1",
    ] {
        assert!(!accepts(bad), "{bad}");
    }
}

#[test]
fn lone_surrogates_are_replaced_one_each_or_refused() {
    for (json, lossy) in [
        (r#""\ud83d\ude00""#, "😀"),
        (r#""a\ud83db""#, "a\u{fffd}b"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
        (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
        (r#""\ud83d\u0041""#, "\u{fffd}A"),
        (r#""\ud83d\n""#, "\u{fffd}\n"),
        (r#""\u0000\/\u002F""#, "\0//"),
    ] {
        assert_eq!(text(json).lossy(), lossy, "{json}");
        assert_eq!(text(json).strict().is_some(), !lossy.contains('\u{fffd}'), "{json}");
    }
    assert!(matches!(text("\"plain\"").strict(), Some(Cow::Borrowed("plain"))));
}

#[test]
fn members_are_found_by_their_unescaped_name() {
    let mut scanner = Scanner::new(r#"{"x":[1],"\u0069d":"A","n":null,"id2":{"id":7}} tail"#);
    let members = scanner.members(&["id", "n", "none"]).unwrap().unwrap();
    assert!(matches!(members.values[0], Value::Text(text) if text.lossy() == "A"));
    assert!(!members.repeated());
    assert_eq!(scanner.next(), Some(b't'));
    assert!(Scanner::new(r#"{"id":1,"\u0069d":null}"#).members(&["id"]).unwrap().unwrap().repeated());
    assert!(Scanner::new("[1]").members(&["id"]).unwrap().is_none());
    assert_eq!(Scanner::new("{\"id\":}").members(&["id"]).unwrap_err(), NotJson);
}

#[test]
fn depth_is_only_limited_by_length() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = open.repeat(500_000) + "1" + &close.repeat(500_000);
        assert!(accepts(&deep));
        assert!(!accepts(&deep[1..]));
    }
}

/// Any JSON, as a tree.
fn tree() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(|number| json!(number)),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
            prop::collection::btree_map(any::<String>(), inner, 0..5)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn judges_damaged_json_as_serde_json_does(tree in tree(), at in any::<prop::sample::Index>(), with in "[\\PC\\n]{0,2}") {
        let text = tree.to_string();
        prop_assert!(accepts(&text));
        let mut at = at.index(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        for damaged in [text[..at].to_owned(), format!("{}{with}{}", &text[..at], &text[at..])] {
            let expected = serde_json::from_str::<IgnoredAny>(&damaged).is_ok();
            prop_assert_eq!(accepts(&damaged), expected, "{}", damaged);
        }
    }

    #[test]
    fn judges_text_of_json_characters_as_serde_json_does(text in r#"[\[\]{},:"\\u0-9a-f.eE+\-tr ln]{0,24}"#) {
        prop_assert_eq!(accepts(&text), serde_json::from_str::<IgnoredAny>(&text).is_ok(), "{}", text);
    }

    #[test]
    fn strings_read_as_serde_json_reads_them(original in any::<String>(), escape in any::<u64>()) {
        let mut json = String::from("\"");
        for (index, char) in original.chars().enumerate() {
            if escape >> (index % 64) & 1 == 1 || char < ' ' || char == '"' || char == '\\' {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    let _ = write!(json, "\\u{unit:04x}");
                }
            } else {
                json.push(char);
            }
        }
        json.push('"');
        prop_assert_eq!(text(&json).strict().unwrap(), original.as_str());
        prop_assert_eq!(text(&json).lossy(), original.as_str());
    }

    #[test]
    fn plain_runs_end_where_they_must(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x1e..0x24_u8, 0x5a..0x5e_u8, Just(b'a')], 0..40)) {
        let expected = bytes.iter().position(|&b| b < 0x20 || b == b'"' || b == b'\\').unwrap_or(bytes.len());
        prop_assert_eq!(plain(&bytes), expected);
    }
}
