//! The feed: all events in one order, read on from a position.

use async_trait::async_trait;
use bytes::Bytes;
use common::event::{CloudEvent, EventType};
use common::{EventId, EventKey, NumberId, TenantId, Timestamp};
use uuid::Uuid;

use crate::Unavailable;

/// A place in the feed. Positions grow; there may be gaps.
pub type Position = i64;

/// A stored event with its place.
#[derive(Clone, Debug)]
pub struct FeedEvent {
    /// Its place.
    pub position: Position,
    /// Whose it is.
    pub tenant: TenantId,
    /// What makes it unique; its id is made of it.
    pub key: EventKey,
    /// Its type, by name: rows of newer software may hold types that this one does not know.
    pub event_type: String,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// The business number.
    pub number: Option<NumberId>,
    /// The internal conversation.
    pub conversation: Option<Uuid>,
    /// The partition.
    pub partition: u16,
    /// 1 for the first emission.
    pub revision: u32,
    /// The `data`, JSON.
    pub data: Bytes,
}

impl FeedEvent {
    /// The event's id.
    pub fn id(&self) -> EventId {
        self.key.event_id()
    }

    /// The event as CloudEvents JSON: the same bytes on the bus and in the feed.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let data = serde_json::from_slice(&self.data)?;
        let mut source = format!("//wharf/tenants/{}", self.tenant);
        if let Some(number) = &self.number {
            source.push_str("/numbers/");
            source.push_str(number.as_str());
        }
        let schema = EventType::from_name(&self.event_type).map(EventType::data_schema);
        serde_json::to_vec(&CloudEvent {
            specversion: "1.0",
            id: self.id(),
            source,
            r#type: &self.event_type,
            time: self.occurred_at,
            datacontenttype: "application/json",
            dataschema: schema.unwrap_or_else(|| "wharf:schema/unknown".to_owned()),
            tenant: self.tenant.as_str(),
            conversation: self.conversation,
            partition: self.partition,
            revision: self.revision,
            data,
        })
    }
}

/// Which events to read.
#[derive(Clone, Debug, Default)]
pub struct FeedFilter {
    /// Only this tenant's.
    pub tenant: Option<TenantId>,
    /// Only of this type.
    pub event_type: Option<String>,
}

/// A page of the feed.
#[derive(Clone, Debug)]
pub struct FeedPage {
    /// The events, in order.
    pub events: Vec<FeedEvent>,
    /// Read on from here: the last position looked at, whether or not the filter let anything through.
    pub next: Position,
}

/// See the module's documentation.
#[async_trait]
pub trait Feed: Send + Sync {
    /// At most `limit` events after `after`. Complete up to `next`: an event at or before it never appears later.
    async fn read(&self, after: Position, limit: usize, filter: &FeedFilter) -> Result<FeedPage, Unavailable>;
}
