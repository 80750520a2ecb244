//! The parse of Twilio's requests.
//!
//! Text messages and the states of an outbound message are typed; everything else becomes an `unsupported` event with
//! the whole request as a JSON object, forms with all values as texts. Twilio sends no time, so everything happens when
//! it was received.
//!
//! Source: Twilio, "Twilio's request to your incoming message webhook URL" and "track outbound message status".

use common::Timestamp;
use common::message::Party;
use common::update::UpdateKind;

use super::parameters::Parameters;
use super::peek::is_user_id;
use crate::parse::{OTHER_BODY, ParseError, Parsed, ParsedContent, Source};
use crate::peek::Peek;

mod message;
mod status;

/// Parses the update of `peek`, which must be the peek of `body`.
///
/// Refuses a malformed request. Bytes that are no text, and lone surrogates, are U+FFFD. A parameter that comes twice
/// with different values is not read, but kept in what is unsupported.
pub fn parse(body: &[u8], peek: &Peek<'_>, index: usize, received_at: Timestamp) -> Result<Parsed, ParseError> {
    let source = Source::of(body, peek, index, received_at)?;
    if source.update.range != (0..body.len()) {
        return Err(OTHER_BODY);
    }
    let parameters = Parameters::read(body).map_err(|_| OTHER_BODY)?;
    match source.update.kind {
        UpdateKind::Malformed => Err(ParseError { reason: "what identifies the request cannot be read in one way" }),
        UpdateKind::Message => message::parse(source, &parameters),
        UpdateKind::Status => status::parse(source, &parameters),
        _ => unsupported(source, &parameters, Party::default(), None),
    }
}

fn unsupported(
    source: Source<'_>,
    parameters: &Parameters<'_>,
    party: Party,
    content: Option<ParsedContent>,
) -> Result<Parsed, ParseError> {
    let json = parameters.to_json()?;
    Source { json: &json, ..source }.unsupported(party, None, content)
}

/// The person with this address.
fn party_at(address: Option<&str>) -> Party {
    let address = address.map(str::to_owned);
    let (user_id, phone) = if address.as_deref().is_some_and(is_user_id) { (address, None) } else { (None, address) };
    Party { phone, user_id, ..Party::default() }
}
