//! Values that laws and tests of jobs are made of.

use bytes::Bytes;
use common::envelope::ParkReason;
use common::event::{EventType, PARTITIONS, PartitionKey};
use common::message::Party;
use common::status::DeliveryState;
use common::update::Provider;
use common::{EnvelopeId, EventKey, NumberId, TenantId};
use ports::event_store::{Detail, NewEvent, NewUpdate, Parked, StatusDetail};
use std::time::Duration;
use uuid::Uuid;

use crate::clock::START;

/// The `n`th key.
pub fn key(n: u32) -> EventKey {
    let mut bytes = [0x4b; 16];
    bytes[12..].copy_from_slice(&n.to_be_bytes());
    EventKey(bytes)
}

/// A person known by the phone number only.
pub fn by_phone(phone: &str) -> Party {
    Party { phone: Some(phone.to_owned()), ..Party::default() }
}

/// A person known by the user id only.
pub fn by_user_id(user_id: &str) -> Party {
    Party { user_id: Some(user_id.to_owned()), ..Party::default() }
}

/// A person known by both.
pub fn by_both(phone: &str, user_id: &str) -> Party {
    Party { user_id: Some(user_id.to_owned()), ..by_phone(phone) }
}

/// The `n`th parked envelope of tenant `acme`, of nobody's number.
pub fn parked(n: u32) -> Parked {
    Parked {
        envelope: EnvelopeId(Uuid::from_u128(n.into())),
        tenant: TenantId::new("acme").unwrap(),
        provider: Provider::Meta,
        reason: ParkReason::UnknownTenant,
        number: None,
        received_at: START,
        updates: n + 1,
        sealed: Bytes::from(format!("sealed {n}")),
        due_at: None,
        pace: None,
        throttled: Vec::new(),
    }
}

/// The `n`th inbound message of tenant `acme`: `wamid.<n>`, sent `n` seconds after [`START`] by +491700000001 to number
/// 777 (+15550000777), saying `hello <n>`, in an envelope of its own.
pub fn message(n: u32) -> NewUpdate {
    NewUpdate {
        tenant: TenantId::new("acme").unwrap(),
        provider: Provider::Meta,
        key: key(n),
        envelope: EnvelopeId::fresh(),
        received_at: START.plus(Duration::from_secs(u64::from(n))),
        event: NewEvent {
            event_type: EventType::MessageReceived,
            occurred_at: START.plus(Duration::from_secs(u64::from(n))),
            number: Some(NumberId::new("777").unwrap()),
            display_number: Some("+15550000777".to_owned()),
            waba: Some("888".to_owned()),
            party: by_phone("+491700000001"),
            group: None,
            data: data(n),
            detail: Detail::Message {
                id: format!("wamid.{n}"),
                kind: "text".to_owned(),
                text: Some(format!("hello {n}")),
            },
        },
    }
}

/// Like [`message`], but a `delivered` status of message `wamid.out.<n>` to the same person.
pub fn status(n: u32) -> NewUpdate {
    let mut update = message(n);
    update.event.event_type = EventType::MessageStatus;
    update.event.detail = Detail::Status(StatusDetail {
        message_id: format!("wamid.out.{n}"),
        state: DeliveryState::Delivered,
        participant: None,
        conversation: None,
        pricing: None,
        errors: Vec::new(),
        biz_opaque_callback_data: None,
    });
    update
}

/// Like [`message`], but an event without a person, so that its partition is that of the number `number`.
pub fn impersonal(n: u32, number: &str) -> NewUpdate {
    let mut update = message(n);
    update.event.event_type = EventType::Unsupported;
    update.event.number = Some(NumberId::new(number).unwrap());
    update.event.party = Party::default();
    update.event.detail = Detail::None;
    update
}

/// Ids of numbers whose partitions all differ, at most as many as there are partitions.
pub fn numbers_of_different_partitions(count: usize) -> Vec<String> {
    assert!(count <= usize::from(PARTITIONS), "there are only {PARTITIONS} partitions");
    let mut partitions = Vec::new();
    let mut numbers = Vec::new();
    for id in 7000.. {
        if numbers.len() == count {
            break;
        }
        let id = id.to_string();
        let partition = PartitionKey::Text(&id).partition();
        if !partitions.contains(&partition) {
            partitions.push(partition);
            numbers.push(id);
        }
    }
    numbers
}

/// Some JSON with `n` in it.
pub fn data(n: u32) -> Bytes {
    Bytes::from(format!(r#"{{"n":{n},"text":"hello {n}"}}"#))
}
