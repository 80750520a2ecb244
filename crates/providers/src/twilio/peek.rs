//! The peek into a request of Twilio: one update, told apart by the parameters that are there.
//!
//! Source: Twilio, "Twilio's request to your incoming message webhook URL" and "track outbound message status".

use std::borrow::Cow;

use common::update::{Provider, UpdateKind};

use super::parameters::Parameters;
use crate::peek::{Ambiguous, Change, Peek, Unreadable, Update};

/// The parameters that give a request its structure.
const STRUCTURE: [&str; 9] =
    ["MessageSid", "SmsMessageSid", "SmsSid", "AccountSid", "From", "To", "MessageStatus", "SmsStatus", "MessageType"];

/// Reads a body: a form, or a JSON object with the same names if it begins with `{`. Of a GET it is the query.
///
/// One update spans the whole body; a body without parameters has none. With an id (`MessageSid`, else one of its old
/// names) and a status word (`MessageStatus`, else `SmsStatus`) other than `received` and `receiving` it is an
/// [`UpdateKind::Status`]; with an id and one of these words, or `Body` or `NumMedia` and no word, an
/// [`UpdateKind::Message`]; else an [`UpdateKind::Change`] without an id. `AccountSid` is the account. The business
/// number is `To` of messages and `From` of statuses, other updates name none. Addresses lose `whatsapp:`, and numbers
/// are `+` and digits however they are written. There is no time.
///
/// [`UpdateKind::Malformed`] is a request that repeats one of these names (or `MessageType`) with different values, or
/// whose id or status is longer than 512 bytes or no text. [`Unreadable`] is a body that begins with `{` and is not one
/// JSON object in UTF-8, and one of more than 1000 parameters.
pub fn peek(body: &[u8]) -> Result<Peek<'_>, Unreadable> {
    let parameters = Parameters::read(body)?;
    if parameters.is_empty() {
        return Ok(Peek::empty(Provider::Twilio));
    }
    let word = parameters.get("MessageStatus").context().or_else(|| parameters.get("SmsStatus").context());
    let incoming = match word.as_deref() {
        Some(word) => is_received(word),
        None => parameters.get("Body").is_there() || parameters.get("NumMedia").is_there(),
    };
    let identity = identity(&parameters);
    let has_id = !matches!(identity, Ok((None, _)));
    let kind = match (incoming, word) {
        _ if !has_id => UpdateKind::Change,
        (true, _) => UpdateKind::Message,
        (false, Some(_)) => UpdateKind::Status,
        (false, None) => UpdateKind::Change,
    };
    let number = match kind {
        UpdateKind::Message => address(&parameters, "To"),
        UpdateKind::Status => address(&parameters, "From"),
        _ => None,
    };
    let change = Change {
        waba_id: parameters.get("AccountSid").context(),
        display_phone_number: number.clone(),
        phone_number_id: number,
        ..Change::default()
    };
    let update = match identity {
        Err(Ambiguous) => Update::blank(0, UpdateKind::Malformed, 0..0),
        Ok((id, status)) => {
            let (message, about_message) = (kind == UpdateKind::Message, kind != UpdateKind::Change);
            Update {
                id: id.filter(|_| about_message),
                status: status.filter(|_| kind == UpdateKind::Status),
                sender: if message { address(&parameters, "From") } else { None },
                r#type: parameters.get("MessageType").context().filter(|_| message),
                ..Update::blank(0, kind, 0..0)
            }
        }
    };
    Ok(Peek::whole(Provider::Twilio, body, change, update))
}

/// The id and the status word.
type Identity<'a> = (Option<Cow<'a, str>>, Option<Cow<'a, str>>);

fn identity<'a>(parameters: &Parameters<'a>) -> Result<Identity<'a>, Ambiguous> {
    if STRUCTURE.iter().any(|name| parameters.get(name).differs()) {
        return Err(Ambiguous);
    }
    let [sid, message_sid, sms_sid, status, sms_status] =
        ["MessageSid", "SmsMessageSid", "SmsSid", "MessageStatus", "SmsStatus"]
            .map(|name| parameters.get(name).identifying());
    Ok((sid?.or(message_sid?).or(sms_sid?), status?.or(sms_status?)))
}

fn is_received(word: &str) -> bool {
    matches!(word, "received" | "receiving")
}

/// The address under a name: a number with `+`, or a user id.
pub(super) fn address<'a>(parameters: &Parameters<'a>, name: &str) -> Option<Cow<'a, str>> {
    match parameters.get(name).context()? {
        Cow::Borrowed(text) => normal(text),
        Cow::Owned(text) => normal(&text).map(|address| Cow::Owned(address.into_owned())),
    }
}

/// An address without `whatsapp:`. A number is `+` and its digits (in a form somebody wrote by hand, `+` may have become
/// a space); what has a letter or a dot is an id and stays.
fn normal(address: &str) -> Option<Cow<'_, str>> {
    let address = match address.split_once(':') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("whatsapp") => rest,
        _ => address,
    }
    .trim_ascii();
    let is_normal = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_user_id(address) || address.strip_prefix('+').is_some_and(is_normal) {
        return Some(Cow::Borrowed(address));
    }
    let number: String = std::iter::once('+').chain(address.chars().filter(char::is_ascii_digit)).collect();
    (number.len() > 1).then_some(Cow::Owned(number))
}

/// User ids have a dot after the country (`BR.70010002000300`); phone numbers have neither dots nor letters.
pub(super) fn is_user_id(address: &str) -> bool {
    address.chars().any(|char| char == '.' || char.is_alphabetic())
}
