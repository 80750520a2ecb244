//! The directory as a stream: the last value of each key, and a head that says how much there is.
//!
//! Entries are written first and the head last, so whoever finds a head that covers every entry has the whole
//! directory; anything else is a write under way, or one that broke off and will be finished by the next one. A reader
//! never takes a part for the whole.
//!
//! There may be what nobody of ours has written: NATS does not check where a request wants its answer. Under a subject
//! where the directory has nothing it is ignored, over an entry or the head it makes the directory incomplete.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::DirectGetErrorKind;
use async_trait::async_trait;
use common::directory::{Directory, Entry};
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use ports::Unavailable;
use ports::directory::{DirectoryStore, WriteError};
use serde::{Deserialize, Serialize};

use crate::nats::streams::DIRECTORY;
use crate::nats::unavailable;

pub(crate) const HEAD: &str = "directory.head";
const ENTRIES: &str = "directory.entry.";
const ALL: &str = "directory.>";
/// Entries of one fetch.
const PAGE: usize = 500;
/// A page that does not arrive within this is not coming.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reader waits for a write under way, and how often it looks.
const WRITE_UNDER_WAY: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A change that was not announced (a broken connection) is noticed after this.
const LOOK_ANYWAY: Duration = Duration::from_secs(5);

/// What the last message on [`HEAD`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) revision: u64,
    pub(crate) entries: u64,
}

/// What a message of an entry holds.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    key: String,
    revision: u64,
    entry: Entry,
}

/// No database counts this far, and one that is to go beyond could not.
const HIGHEST: u64 = u64::MAX >> 2;
const NO_REVISION: &str = "its revision is none that a database has";

/// Everything that is in the stream.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) head: Option<Head>,
    /// Entry and revision of each key.
    pub(crate) entries: BTreeMap<String, (Entry, u64)>,
    /// What cannot be read, by subject, and why.
    pub(crate) unreadable: BTreeMap<String, String>,
}

/// What tells whether anything was written to a stream or taken out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    created: i128,
    last_sequence: u64,
    messages: u64,
}

impl Position {
    /// After entries and a head were published, if nobody else wrote meanwhile.
    pub(crate) fn after(self, entries: usize, head: Head, head_at: u64) -> Option<Self> {
        let alone = head_at == self.last_sequence + entries as u64 + 1;
        alone.then_some(Self { last_sequence: head_at, messages: head.entries + 1, ..self })
    }
}

/// Where an entry is.
pub(crate) fn subject(key: &str) -> String {
    format!("{ENTRIES}{}", hex::encode(key))
}

impl Contents {
    fn add(&mut self, subject: &str, payload: &[u8]) {
        let read = if subject == HEAD {
            match serde_json::from_slice::<Head>(payload) {
                Ok(head) if head.revision <= HIGHEST => {
                    self.head = Some(head);
                    Ok(())
                }
                Ok(_) => Err(NO_REVISION.to_owned()),
                Err(error) => Err(error.to_string()),
            }
        } else {
            match serde_json::from_slice::<Written>(payload) {
                Ok(written) if written.revision > HIGHEST => Err(NO_REVISION.to_owned()),
                Ok(written) if self::subject(&written.key) == subject => {
                    self.entries.insert(written.key, (written.entry, written.revision));
                    Ok(())
                }
                Ok(_) => Err("it is that of another key".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        };
        if let Err(why) = read {
            self.unreadable.insert(subject.to_owned(), why);
        }
    }

    /// The highest revision that there is.
    pub(crate) fn revision(&self) -> u64 {
        let newest = self.entries.values().map(|(_, revision)| *revision).max();
        newest.max(self.head.map(|head| head.revision)).unwrap_or(0)
    }

    /// The directory, or why this is not all of it.
    fn whole(self) -> Result<Directory, String> {
        let revision = self.revision();
        match self.head {
            Some(head) if head.revision == revision && head.entries == self.entries.len() as u64 => {
                let entries = self.entries.into_iter().map(|(key, (entry, _))| (key, entry)).collect();
                return Ok(Directory { revision, entries });
            }
            None if !self.unreadable.contains_key(HEAD) => {
                return Err("nobody has published it yet; is `api` running?".to_owned());
            }
            _ => {}
        }
        let Some((subject, why)) = self.unreadable.first_key_value() else {
            return Err("it is being written, or the writer broke off; `api` completes it".to_owned());
        };
        let what = if subject == HEAD { "its head" } else { "an entry" };
        Err(format!(
            "{what} cannot be read ({why}): overwritten by somebody, or written by newer software; `api` publishes \
             within seconds what was overwritten: is it running?"
        ))
    }
}

/// See the module's documentation. Reads; [`crate::directory::PublishedDirectory`] writes.
#[derive(Clone)]
pub struct StreamDirectory {
    client: async_nats::Client,
    jetstream: jetstream::Context,
}

impl StreamDirectory {
    pub(super) fn new(client: async_nats::Client, jetstream: jetstream::Context) -> Self {
        Self { client, jetstream }
    }

    /// The head; `None` if nothing was ever written.
    async fn head(&self) -> Result<Option<Head>, Unavailable> {
        let stream = self.jetstream.get_stream_no_info(DIRECTORY).await.map_err(unavailable)?;
        let mut contents = Contents::default();
        match stream.direct_get_last_for_subject(HEAD).await {
            Ok(message) => contents.add(HEAD, &message.payload),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unavailable(error)),
        }
        match contents.head {
            Some(head) => Ok(Some(head)),
            None => contents.whole().map(|_| None).map_err(incomplete),
        }
    }

    /// Where the stream is, at once or not at all.
    pub(crate) async fn position(&self) -> Result<Position, Unavailable> {
        if self.client.connection_state() != State::Connected {
            return Err(unavailable("there is no connection"));
        }
        let stream = self.jetstream.get_stream(DIRECTORY).await.map_err(unavailable)?;
        let info = stream.cached_info();
        Ok(Position {
            created: info.created.unix_timestamp_nanos(),
            last_sequence: info.state.last_sequence,
            messages: info.state.messages,
        })
    }

    /// Writes entries and then the head; returns where the head is. The caller sees to it that nobody else of us writes
    /// meanwhile.
    pub(crate) async fn publish(&self, entries: Vec<(String, Entry, u64)>, head: Head) -> Result<u64, Unavailable> {
        for page in entries.chunks(PAGE) {
            let mut sent = Vec::with_capacity(page.len());
            for (key, entry, revision) in page {
                let written = Written { key: key.clone(), revision: *revision, entry: entry.clone() };
                let payload = serde_json::to_vec(&written).map_err(unavailable)?;
                let message = PublishMessage::build().payload(payload.into());
                sent.push(self.jetstream.send_publish(subject(key), message).await.map_err(unavailable)?);
            }
            try_join_all(sent.into_iter().map(IntoFuture::into_future)).await.map_err(unavailable)?;
        }
        let payload = serde_json::to_vec(&head).map_err(unavailable)?;
        let message = PublishMessage::build().payload(payload.into());
        let sent = self.jetstream.send_publish(HEAD, message).await.map_err(unavailable)?;
        Ok(sent.await.map_err(unavailable)?.sequence)
    }

    /// Removes everything: what is published next is all there is.
    pub(crate) async fn clear(&self) -> Result<(), Unavailable> {
        let stream = self.jetstream.get_stream_no_info(DIRECTORY).await.map_err(unavailable)?;
        stream.purge().await.map_err(unavailable)?;
        Ok(())
    }

    /// Everything that is in the stream now.
    pub(crate) async fn contents(&self) -> Result<Contents, Unavailable> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::LastPerSubject,
            ack_policy: AckPolicy::None,
            filter_subject: ALL.to_owned(),
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: PAGE_TIMEOUT * 2,
            ..pull::Config::default()
        };
        let consumer = self.jetstream.create_consumer_on_stream(config, DIRECTORY).await.map_err(unavailable)?;
        let mut contents = Contents::default();
        let mut pending = consumer.cached_info().num_pending;
        while pending > 0 {
            let page = consumer.fetch().max_messages(PAGE).expires(PAGE_TIMEOUT).messages();
            let mut page = page.await.map_err(unavailable)?;
            let mut any = false;
            while let Some(message) = tokio::time::timeout(PAGE_TIMEOUT * 2, page.next()).await.map_err(unavailable)? {
                let message = message.map_err(unavailable)?;
                any = true;
                pending = message.info().map_err(unavailable)?.pending;
                contents.add(&message.subject, &message.payload);
            }
            if !any {
                return Err(unavailable("the stream of the directory ended early"));
            }
        }
        // It would go by itself soon.
        let _ = self.jetstream.delete_consumer_from_stream(&consumer.cached_info().name, DIRECTORY).await;
        Ok(contents)
    }
}

#[async_trait]
impl DirectoryStore for StreamDirectory {
    async fn snapshot(&self) -> Result<Directory, Unavailable> {
        let deadline = tokio::time::Instant::now() + WRITE_UNDER_WAY;
        loop {
            let missing = match self.contents().await?.whole() {
                Ok(directory) => return Ok(directory),
                Err(missing) => missing,
            };
            if tokio::time::Instant::now() >= deadline {
                return Err(incomplete(missing));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn revision(&self) -> Result<u64, Unavailable> {
        Ok(self.head().await?.map_or(0, |head| head.revision))
    }

    async fn changed(&self, revision: u64) -> Result<u64, Unavailable> {
        // Subscribed before the first look, so that no change falls between.
        let mut announced = self.client.subscribe(HEAD).await.map_err(unavailable)?;
        loop {
            if let Some(head) = self.head().await?.filter(|head| head.revision > revision) {
                return Ok(head.revision);
            }
            let _ = tokio::time::timeout(LOOK_ANYWAY, announced.next()).await;
        }
    }

    async fn write(&self, _entries: Vec<Entry>, _read_at: u64) -> Result<u64, WriteError> {
        Err(Unavailable::new("the directory", "only `api` writes it").into())
    }
}

/// NATS answers, but what it has is not the whole directory.
fn incomplete(why: String) -> Unavailable {
    Unavailable::new("the directory on the bus", why)
}

impl fmt::Debug for StreamDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamDirectory").finish_non_exhaustive()
    }
}
