//! The body of a generic webhook, and what may be wrong with it.
//!
//! ```json
//! {"message_id": "m1", "from": "+4915155500011", "to": "+14155550100", "ts": "2026-11-18T11:06:40Z", "text": "Hello"}
//! ```
//!
//! The caller can be told what to repair, so all problems are found at once and nothing is guessed. Members that are not
//! named here are left alone: the archived body keeps them.

use std::borrow::Cow;

use common::Timestamp;

use crate::json::{Scanner, Value};

/// The longest `message_id`, in characters.
pub const MAX_MESSAGE_ID: usize = 255;
/// The longest `text`, in characters.
pub const MAX_TEXT: usize = 4096;

/// The members that are read.
const FIELDS: [&str; 5] = ["message_id", "from", "to", "ts", "text"];

/// A message that keeps the contract. Texts are borrowed from the body where they are not escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The sender's id of the message, 1 to 255 characters: what is sent again has the same.
    pub message_id: Cow<'a, str>,
    /// Who wrote: `+` and 7 to 15 digits.
    pub from: Cow<'a, str>,
    /// The business number: `+` and 7 to 15 digits.
    pub to: Cow<'a, str>,
    /// When it was written, from 1970 to the year 9999.
    pub ts: Timestamp,
    /// The text, at most 4096 characters; may be empty. `None` if it is absent or null.
    pub text: Option<Cow<'a, str>>,
}

/// One thing that is wrong with a body, in fixed words that never repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FieldProblem {
    /// The member, or `body` for the whole.
    pub field: &'static str,
    /// What it must be.
    pub message: &'static str,
}

/// Reads a body, or tells all that is wrong with it, never an empty list.
///
/// It must be one JSON object in UTF-8 with nothing after it, and none of the members read here may come twice. `text`
/// may be absent or null, the others must be there. Numbers are no texts, and `ts` is RFC 3339 with `Z` or an offset.
/// Depth does not matter.
pub fn validate(body: &[u8]) -> Result<Message<'_>, Vec<FieldProblem>> {
    let whole = |message| vec![FieldProblem { field: "body", message }];
    let text = std::str::from_utf8(body).map_err(|_| whole("must be UTF-8"))?;
    let mut scanner = Scanner::new(text);
    let members = scanner.members(&FIELDS).map_err(|_| whole("must be JSON"))?;
    let members = members.ok_or_else(|| whole("must be a JSON object"))?;
    if scanner.next().is_some() {
        return Err(whole("must end after the JSON object"));
    }
    let mut problems = Vec::new();
    let mut problem = |field, message| problems.push(FieldProblem { field, message });
    for (field, twice) in FIELDS.iter().zip(members.twice) {
        if twice {
            problem(field, "must not come twice");
        }
    }
    let [message_id, from, to, ts, text] = members.values;
    let message_id = required("message_id", message_id, &mut problem).filter(|id| {
        check(in_limits(id, 1, MAX_MESSAGE_ID), "message_id", "must have 1 to 255 characters", &mut problem)
    });
    let mut phone = |field, value| {
        let number = required(field, value, &mut problem)?;
        check(is_e164(&number), field, "must be + and 7 to 15 digits, the first of them not 0", &mut problem)
            .then_some(number)
    };
    let (from, to) = (phone("from", from), phone("to", to));
    let ts = required("ts", ts, &mut problem).and_then(|text| {
        let at = moment(&text);
        check(at.is_some(), "ts", "must be a date and time as in 2026-01-31T12:00:00Z, from 1970 on", &mut problem);
        at
    });
    let text = match text {
        Value::Null => None,
        value => required("text", value, &mut problem).filter(|text| {
            check(in_limits(text, 0, MAX_TEXT), "text", "must have at most 4096 characters", &mut problem)
        }),
    };
    match (message_id, from, to, ts) {
        (Some(message_id), Some(from), Some(to), Some(ts)) if problems.is_empty() => {
            Ok(Message { message_id, from, to, ts, text })
        }
        _ => Err(problems),
    }
}

/// The text that must be there.
fn required<'a>(
    field: &'static str,
    value: Value<'a>,
    problem: &mut impl FnMut(&'static str, &'static str),
) -> Option<Cow<'a, str>> {
    let text = match value {
        Value::Null => Err("is missing"),
        Value::Text(text) => text.strict().ok_or("must not have half a surrogate pair"),
        _ => Err("must be a string"),
    };
    text.inspect_err(|message| problem(field, message)).ok()
}

/// Tells a problem unless something holds.
fn check(
    holds: bool,
    field: &'static str,
    message: &'static str,
    problem: &mut impl FnMut(&'static str, &'static str),
) -> bool {
    if !holds {
        problem(field, message);
    }
    holds
}

fn in_limits(text: &str, least: usize, most: usize) -> bool {
    // Counting stops where the answer is known.
    (least..=most).contains(&text.chars().take(most + 1).count())
}

fn is_e164(number: &str) -> bool {
    number.strip_prefix('+').is_some_and(|digits| {
        (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0')
    })
}

fn moment(text: &str) -> Option<Timestamp> {
    text.parse().ok().filter(|at| *at >= Timestamp::default())
}
