//! The person an update is about: phone number, user ids, user name and name, from the update and its contact.
//!
//! A contact is found by its ids, never by its place in the list: Meta orders and omits contacts as it likes. Whether
//! two parties are the same person is not decided here.

use common::message::Party;

use super::{ParseError, Source, Value, members, members_of, owned, piece};
use crate::peek::{Change, Contact};

/// The party with this address (`from`, `recipient_id`: a phone number, or a user id where Meta puts one) and ids.
pub(super) fn party(
    source: &Source<'_>,
    address: Value<'_>,
    user_id: Value<'_>,
    parent_user_id: Value<'_>,
) -> Result<Party, ParseError> {
    party_at(source, address.lossy().as_deref(), user_id, parent_user_id)
}

/// As [`party`], with the address as text.
pub(super) fn party_at(
    source: &Source<'_>,
    address: Option<&str>,
    user_id: Value<'_>,
    parent_user_id: Value<'_>,
) -> Result<Party, ParseError> {
    let mut party = Party { user_id: owned(user_id), parent_user_id: owned(parent_user_id), ..Party::default() };
    if let Some(address) = address {
        if is_user_id(address) {
            party.user_id.get_or_insert_with(|| address.to_owned());
        } else {
            party.phone = phone(address);
        }
    }
    if let Some(contact) = contact_of(source.change, &party) {
        complete(&mut party, contact, source)?;
    }
    Ok(party)
}

/// Whom the business wrote to by other means.
pub(super) fn recipient_of_echo(source: &Source<'_>) -> Result<Party, ParseError> {
    let [to, to_user_id, to_parent_user_id] = members(source.json, &["to", "to_user_id", "to_parent_user_id"])?;
    party(source, to, to_user_id, to_parent_user_id)
}

/// The contact with the party's user id, else the one with its phone number and no other user id.
fn contact_of<'c, 'a>(change: &'c Change<'a>, party: &Party) -> Option<&'c Contact<'a>> {
    let user_id = party.user_id.as_deref();
    let by_user_id = || change.contacts.iter().find(|contact| contact.user_id.as_deref() == user_id);
    let by_phone = |phone| {
        change.contacts.iter().find(|contact| {
            let same_phone = contact.wa_id.as_deref().is_some_and(|id| !is_user_id(id) && digits(id).eq(digits(phone)));
            same_phone && (user_id.is_none() || contact.user_id.is_none() || contact.user_id.as_deref() == user_id)
        })
    };
    user_id.and_then(|_| by_user_id()).or_else(|| party.phone.as_deref().and_then(by_phone))
}

fn complete(party: &mut Party, contact: &Contact<'_>, source: &Source<'_>) -> Result<(), ParseError> {
    if party.phone.is_none() {
        party.phone = contact.wa_id.as_deref().filter(|id| !is_user_id(id)).and_then(phone);
    }
    if party.user_id.is_none() {
        party.user_id = contact.user_id.as_deref().map(str::to_owned);
    }
    let json = piece(source.body, &contact.range).unwrap_or_default();
    let [profile, parent_user_id] = members(json, &["profile", "parent_user_id"])?;
    if party.parent_user_id.is_none() {
        party.parent_user_id = owned(parent_user_id);
    }
    if let Some([name, username]) = members_of(profile, &["name", "username"])? {
        party.name = owned(name);
        party.username = username.lossy().and_then(|name| {
            let name = name.strip_prefix('@').unwrap_or(&name);
            (!name.is_empty()).then(|| name.to_owned())
        });
    }
    Ok(())
}

/// User ids have a dot after the country (`PT.70010002000300`); phone numbers have neither dots nor letters.
fn is_user_id(address: &str) -> bool {
    address.chars().any(|char| char == '.' || char.is_alphabetic())
}

/// The phone number with `+` and without formatting; `None` without a digit.
fn phone(address: &str) -> Option<String> {
    let phone: String = std::iter::once('+').chain(digits(address)).collect();
    (phone.len() > 1).then_some(phone)
}

fn digits(address: &str) -> impl Iterator<Item = char> + '_ {
    address.chars().filter(char::is_ascii_digit)
}
