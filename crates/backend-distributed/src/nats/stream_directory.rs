//! The directory as a stream: the last value of each key, and a head that says how much there is.
//!
//! Entries are written first and the head last, so whoever finds a head that covers every entry has the whole
//! directory; anything else is a write under way, or one that broke off and will be finished by the next one. A reader
//! never takes a part for the whole.

use std::fmt;
use std::time::Duration;

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

const HEAD: &str = "directory.head";
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
    pub(crate) async fn head(&self) -> Result<Option<Head>, Unavailable> {
        let stream = self.jetstream.get_stream_no_info(DIRECTORY).await.map_err(unavailable)?;
        match stream.direct_get_last_for_subject(HEAD).await {
            Ok(message) => serde_json::from_slice(&message.payload).map(Some).map_err(unavailable),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Writes entries and then the head. The caller sees to it that nobody else writes meanwhile.
    pub(crate) async fn publish(&self, entries: Vec<(String, Entry, u64)>, head: Head) -> Result<(), Unavailable> {
        for page in entries.chunks(PAGE) {
            let mut sent = Vec::with_capacity(page.len());
            for (key, entry, revision) in page {
                let subject = format!("{ENTRIES}{}", hex::encode(key));
                let written = Written { key: key.clone(), revision: *revision, entry: entry.clone() };
                let payload = serde_json::to_vec(&written).map_err(unavailable)?;
                let message = PublishMessage::build().payload(payload.into());
                sent.push(self.jetstream.send_publish(subject, message).await.map_err(unavailable)?);
            }
            try_join_all(sent.into_iter().map(IntoFuture::into_future)).await.map_err(unavailable)?;
        }
        let payload = serde_json::to_vec(&head).map_err(unavailable)?;
        let message = PublishMessage::build().payload(payload.into());
        let sent = self.jetstream.send_publish(HEAD, message).await.map_err(unavailable)?;
        sent.await.map_err(unavailable)?;
        Ok(())
    }

    /// Removes everything: what is published next is all there is.
    pub(crate) async fn clear(&self) -> Result<(), Unavailable> {
        let stream = self.jetstream.get_stream_no_info(DIRECTORY).await.map_err(unavailable)?;
        stream.purge().await.map_err(unavailable)?;
        Ok(())
    }

    /// Everything that is in the stream now, and the head.
    async fn read(&self) -> Result<(Directory, Option<Head>), Unavailable> {
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
        let (mut directory, mut head) = (Directory::default(), None);
        let mut pending = consumer.cached_info().num_pending;
        while pending > 0 {
            let page = consumer.fetch().max_messages(PAGE).expires(PAGE_TIMEOUT).messages();
            let mut page = page.await.map_err(unavailable)?;
            let mut any = false;
            while let Some(message) = tokio::time::timeout(PAGE_TIMEOUT * 2, page.next()).await.map_err(unavailable)? {
                let message = message.map_err(unavailable)?;
                any = true;
                pending = message.info().map_err(unavailable)?.pending;
                if message.subject.as_str() == HEAD {
                    head = Some(serde_json::from_slice(&message.payload).map_err(unavailable)?);
                } else {
                    let written: Written = serde_json::from_slice(&message.payload).map_err(|error| {
                        Unavailable::new("an entry of the directory (written by newer software?)", error)
                    })?;
                    directory.revision = directory.revision.max(written.revision);
                    directory.entries.insert(written.key, written.entry);
                }
            }
            if !any {
                return Err(unavailable("the stream of the directory ended early"));
            }
        }
        // It would go by itself soon.
        let _ = self.jetstream.delete_consumer_from_stream(&consumer.cached_info().name, DIRECTORY).await;
        Ok((directory, head))
    }
}

#[async_trait]
impl DirectoryStore for StreamDirectory {
    async fn snapshot(&self) -> Result<Directory, Unavailable> {
        let deadline = tokio::time::Instant::now() + WRITE_UNDER_WAY;
        loop {
            let (mut directory, head) = self.read().await?;
            let missing = match head {
                None => "nobody has published it yet; is `api` running?",
                Some(head) if head.revision >= directory.revision && head.entries == directory.entries.len() as u64 => {
                    directory.revision = head.revision;
                    return Ok(directory);
                }
                Some(_) => "it is being written, or the writer broke off; `api` completes it",
            };
            if tokio::time::Instant::now() >= deadline {
                return Err(Unavailable::new("the directory on the bus", missing));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
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

impl fmt::Debug for StreamDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamDirectory").finish_non_exhaustive()
    }
}
