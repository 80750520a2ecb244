//! The streams of the bus as JetStream has them: made by `wharf migrate`, verified by every process.
//!
//! A work queue is a stream with limits whose acknowledged messages are purged (see `work_queues`), so each lane of
//! envelopes is a stream of its own: a backlog of one does not keep what is done of the other. A server ignores settings
//! that it does not know, so what it echoes is compared.

use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, ErrorCode};
use common::envelope::Lane;
use ports::Unavailable;
use ports::event_bus::{Retention, Stream};

use crate::OpenError;
use crate::nats::publishing::is_batched;
use crate::nats::{HEADER_ROOM, unavailable};

/// The stream of the directory.
pub const DIRECTORY: &str = "directory";

/// Messages of `events` kept at most. The port promises fewer; readers outside depend on this stream alone.
const EVENTS_MAX_MESSAGES: i64 = 5_000_000;
/// Bytes of `events` kept at most.
const EVENTS_MAX_BYTES: i64 = 4 << 30;

/// Where probes of a lane go: a subject that no consumer reads.
pub(super) const fn probe_subject(lane: Lane) -> &'static str {
    match lane {
        Lane::Live => "inbound.probe.live",
        Lane::Bulk => "inbound.probe.bulk",
    }
}

/// What a consumer of a stream of the port reads.
pub(super) const fn subjects(stream: Stream) -> &'static str {
    match stream {
        Stream::Inbound(Lane::Live) => "inbound.live.>",
        Stream::Inbound(Lane::Bulk) => "inbound.bulk.>",
        Stream::Audit => "audit.>",
        Stream::Events => "wharf.events.>",
        Stream::Wakeups => "wakeups.>",
    }
}

/// The streams as they must be.
pub fn wanted(replicas: usize) -> Vec<Config> {
    let size = i32::try_from(Stream::MAX_MESSAGE_BYTES + HEADER_ROOM).unwrap_or(i32::MAX);
    let base = |name: &str, subjects: &[&str], description: &str| Config {
        name: name.to_owned(),
        subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
        retention: RetentionPolicy::Limits,
        description: Some(description.to_owned()),
        storage: StorageType::File,
        max_message_size: size,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        num_replicas: replicas,
        duplicate_window: Stream::DUPLICATE_WINDOW,
        allow_direct: true,
        ..Config::default()
    };
    let queue = |stream: Stream, more_subjects: &[&str], description: &str| {
        let subjects = [&[subjects(stream)], more_subjects].concat();
        let Retention::WorkQueue { max_per_subject } = stream.retention() else {
            return base(stream.name(), &subjects, description);
        };
        Config {
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            max_messages_per_subject: i64::try_from(max_per_subject).unwrap_or(i64::MAX),
            ..base(stream.name(), &subjects, description)
        }
    };
    let lane = |lane: Lane, description: &str| Config {
        // For the probes, which expire by themselves.
        allow_message_ttl: true,
        allow_atomic_publish: is_batched(Stream::Inbound(lane)),
        ..queue(Stream::Inbound(lane), &[probe_subject(lane)], description)
    };
    let Retention::Limits { max_age, .. } = Stream::Events.retention() else { return Vec::new() };
    vec![
        lane(Lane::Live, "Sealed envelopes of ordinary traffic on their way to the normalizer"),
        lane(Lane::Bulk, "Sealed envelopes of history on their way to the normalizer"),
        queue(Stream::Audit, &[], "Request records on their way to the recorder"),
        queue(Stream::Wakeups, &[], "Hints that there is work in a table"),
        Config {
            discard: DiscardPolicy::Old,
            max_age,
            max_messages: EVENTS_MAX_MESSAGES,
            max_bytes: EVENTS_MAX_BYTES,
            allow_atomic_publish: is_batched(Stream::Events),
            ..base(Stream::Events.name(), &[subjects(Stream::Events)], "Normalised events, CloudEvents JSON")
        },
        Config {
            discard: DiscardPolicy::Old,
            max_messages_per_subject: 1,
            ..base(DIRECTORY, &["directory.>"], "Tenants, apps and numbers: the last value of each key")
        },
    ]
}

/// Makes what is missing and changes what differs; returns what was done.
pub(super) async fn migrate(
    context: &jetstream::Context,
    replicas: usize,
    takes_batches: bool,
) -> Result<Vec<String>, OpenError> {
    let mut done = Vec::new();
    for mut config in wanted(replicas) {
        config.allow_atomic_publish &= takes_batches;
        let name = config.name.clone();
        let there = match context.get_stream(&name).await {
            Ok(stream) => Some(stream.cached_info().config.clone()),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => None,
                _ => return Err(unanswered(&error).into()),
            },
        };
        done.push(match &there {
            Some(there) if differing(&config, there).is_empty() => {
                format!("stream {name}: as it must be")
            }
            Some(there) => {
                let differing = differing(&config, there).join(", ");
                // Replicas and where they are are the operator's: what was scaled or moved by hand stays.
                let operators = there.clone();
                let config = Config {
                    num_replicas: operators.num_replicas,
                    placement: operators.placement,
                    compression: operators.compression,
                    ..config
                };
                context.update_stream(config).await.map_err(|error| refused(&name, &error.to_string()))?;
                format!("stream {name}: changed ({differing})")
            }
            None => {
                context.create_stream(config).await.map_err(|error| match error.kind() {
                    CreateStreamErrorKind::TimedOut => unavailable(error).into(),
                    _ => refused(&name, &error.to_string()),
                })?;
                format!("stream {name}: made")
            }
        });
    }
    Ok(done)
}

/// What is changed: also what a process can do without.
fn differing(wanted: &Config, there: &Config) -> Vec<&'static str> {
    let mut differing = differences(wanted, there);
    if wanted.allow_atomic_publish && !there.allow_atomic_publish {
        differing.push("batches");
    }
    differing
}

fn refused(name: &str, why: &str) -> OpenError {
    OpenError::Unsuitable(format!("the NATS server does not take the stream {name}: {why}"))
}

/// A server gives no answer to a request that its user may not make, so that is said with what else it may be.
fn unanswered(error: &GetStreamError) -> Unavailable {
    unavailable(match error.kind() {
        GetStreamErrorKind::Request => format!(
            "{error}; if it is up, does nats.url name the user of this process, with its permissions in deploy/nats.conf? \
             `wharf doctor` and `wharf migrate` need those of `migrate`"
        ),
        _ => error.to_string(),
    })
}

/// An error unless every stream is as it must be.
pub(super) async fn verify(context: &jetstream::Context) -> Result<(), OpenError> {
    for config in wanted(1) {
        let name = &config.name;
        let stream = context.get_stream(name).await.map_err(|error| match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                OpenError::Unsuitable(format!("the stream {name} is missing: run `wharf migrate`"))
            }
            _ => unanswered(&error).into(),
        })?;
        let differing = differences(&config, &stream.cached_info().config);
        if !differing.is_empty() {
            return Err(OpenError::Unsuitable(format!(
                "the stream {name} is not as it must be ({}): run `wharf migrate`",
                differing.join(", ")
            )));
        }
    }
    Ok(())
}

/// What of a stream would break a promise: lose messages, rewrite them, send them elsewhere, or let in others.
///
/// Not compared is what does none of that. Description, metadata and template are text. Replicas, placement and
/// compression are the operator's. The first sequence matters to a new stream only, reads from mirrors to mirrors, and a
/// pause to consumers. Limits on consumers and their number are an error where a consumer is made, and so lose nothing. A
/// time to live and a batch of either kind are what the publisher of a message asks for, and ours know.
fn differences(wanted: &Config, there: &Config) -> Vec<&'static str> {
    let checks = [
        ("subjects", wanted.subjects == there.subjects),
        ("storage", wanted.storage == there.storage),
        ("retention", wanted.retention == there.retention),
        ("discard policy", wanted.discard == there.discard),
        ("quota per subject", wanted.discard_new_per_subject == there.discard_new_per_subject),
        ("messages per subject", wanted.max_messages_per_subject == there.max_messages_per_subject),
        ("messages", at_least(wanted.max_messages, there.max_messages)),
        ("bytes", at_least(wanted.max_bytes, there.max_bytes)),
        ("age", age_at_least(wanted.max_age, there.max_age)),
        ("message size", at_least(wanted.max_message_size.into(), there.max_message_size.into())),
        ("duplicate window", wanted.duplicate_window <= there.duplicate_window),
        ("acknowledgements", !there.no_ack),
        ("sealing", !there.sealed),
        // The server would store a message under another subject, which no consumer reads, and acknowledge it.
        ("subject transform", there.subject_transform.is_none()),
        // And would show each message to whoever may subscribe to the other subject.
        ("republishing", there.republish.is_none()),
        ("sources", there.sources.as_ref().is_none_or(Vec::is_empty)),
        ("mirror", there.mirror.is_none()),
        // A header of one message would take out those before it.
        ("roll-ups", !there.allow_rollup),
        ("delete markers", there.subject_delete_marker_ttl.is_none_or(|keep| keep.is_zero())),
        // Headers of a message would hold it back and send it elsewhere, or make a number of it.
        ("schedules", !there.allow_message_schedules),
        ("counters", !there.allow_message_counter),
        // Nothing is taken out of `events`: there, to forbid it does no harm.
        ("denied purges", wanted.name == Stream::Events.name() || !there.deny_purge),
        ("denied deletes", wanted.name == Stream::Events.name() || !there.deny_delete),
        ("direct reads", there.allow_direct),
        ("expiring messages", !wanted.allow_message_ttl || there.allow_message_ttl),
        ("persistence", !matches!(there.persist_mode, Some(PersistenceMode::Async))),
    ];
    checks.into_iter().filter(|(_, holds)| !holds).map(|(what, _)| what).collect()
}

/// Whether a limit keeps no less than another; -1 and 0 are no limit.
const fn at_least(wanted: i64, there: i64) -> bool {
    there <= 0 || (wanted > 0 && there >= wanted)
}

fn age_at_least(wanted: Duration, there: Duration) -> bool {
    there.is_zero() || (!wanted.is_zero() && there >= wanted)
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::stream::{Republish, Source, SubjectTransform};

    use super::*;

    type Change = fn(&mut Config);

    #[test]
    fn nothing_unread_is_ever_dropped() {
        let queues = Stream::ALL.into_iter().filter(|each| matches!(each.retention(), Retention::WorkQueue { .. }));
        for queue in queues {
            let config = wanted(1).into_iter().find(|config| config.name == queue.name()).unwrap();
            assert_eq!(config.discard, DiscardPolicy::New, "{}", config.name);
            assert!(config.max_age.is_zero() && config.max_messages == -1 && config.max_bytes == -1);
        }
    }

    #[test]
    fn events_stay_for_as_long_as_the_port_promises() {
        let Retention::Limits { max_age, max_messages } = Stream::Events.retention() else { unreachable!() };
        let events = wanted(1).into_iter().find(|config| config.name == "events").unwrap();
        assert!(events.max_age >= max_age);
        assert!(events.max_messages >= i64::try_from(max_messages).unwrap());
    }

    #[test]
    fn a_stream_that_keeps_less_is_noticed_and_one_that_keeps_more_is_not() {
        let inbound = wanted(3).remove(0);
        let differs = |change: fn(&mut Config)| {
            let mut there = inbound.clone();
            change(&mut there);
            differences(&inbound, &there)
        };
        assert!(differs(|_| ()).is_empty());
        assert!(differs(|there| there.num_replicas = 5).is_empty());
        assert_eq!(differs(|there| there.discard = DiscardPolicy::Old), ["discard policy"]);
        assert_eq!(differs(|there| there.max_age = Duration::from_hours(1)), ["age"]);
        assert_eq!(differs(|there| there.max_messages = 10), ["messages"]);
        assert_eq!(differs(|there| there.storage = StorageType::Memory), ["storage"]);
        assert_eq!(differs(|there| there.persist_mode = Some(PersistenceMode::Async)), ["persistence"]);
        assert_eq!(differs(|there| there.no_ack = true), ["acknowledgements"]);
    }

    #[test]
    fn what_rewrites_diverts_or_adds_messages_is_noticed() {
        const fn transform() -> SubjectTransform {
            SubjectTransform { source: String::new(), destination: String::new() }
        }
        const fn republish() -> Republish {
            Republish { source: String::new(), destination: String::new(), headers_only: false }
        }
        let [inbound, events] =
            ["inbound_live", "events"].map(|name| wanted(1).into_iter().find(|config| config.name == name).unwrap());
        let differs = |wanted: &Config, change: Change| {
            let mut there = wanted.clone();
            change(&mut there);
            differences(wanted, &there)
        };
        let cases: [(Change, &str); 10] = [
            (|there| there.subject_transform = Some(transform()), "subject transform"),
            (|there| there.republish = Some(republish()), "republishing"),
            (|there| there.sources = Some(vec![Source::default()]), "sources"),
            (|there| there.mirror = Some(Source::default()), "mirror"),
            (|there| there.allow_rollup = true, "roll-ups"),
            (|there| there.subject_delete_marker_ttl = Some(Duration::from_secs(1)), "delete markers"),
            (|there| there.allow_message_schedules = true, "schedules"),
            (|there| there.allow_message_counter = true, "counters"),
            (|there| there.deny_purge = true, "denied purges"),
            (|there| there.deny_delete = true, "denied deletes"),
        ];
        for (change, name) in cases {
            assert_eq!(differs(&inbound, change), [name]);
        }
        assert!(differs(&events, |there| (there.deny_purge, there.deny_delete) = (true, true)).is_empty());
        assert!(differs(&inbound, |there| there.sources = Some(Vec::new())).is_empty());
    }
}
