//! The names of all metrics and spans, in one place, with what they mean.
//!
//! Labels are taken from fixed sets (providers, streams, outcomes) or are tenant ids; never a phone number, a wamid, a
//! payload or a secret.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Webhook requests by `provider`, `status` and `signature`.
pub const REQUESTS: &str = "wharf_ingress_requests_total";
/// Seconds from the last byte of a webhook to its answer.
pub const ANSWER_SECONDS: &str = "wharf_ingress_answer_seconds";
/// Connections that were closed at once, because their address had all of its places.
pub const CONNECTIONS_REFUSED: &str = "wharf_connections_refused_total";
/// TLS handshakes that came to nothing, by `reason`: `refused` (the client's certificate, or no TLS at all), `timeout`.
pub const HANDSHAKES_FAILED: &str = "wharf_tls_handshakes_failed_total";
/// Updates by what admission said: `new`, `known`, `throttled`.
pub const UPDATES: &str = "wharf_ingress_updates_total";
/// Envelopes published by `disposition`.
pub const ENVELOPES: &str = "wharf_ingress_envelopes_total";
/// Envelopes that the bus did not take, by `reason`.
pub const PUBLISH_FAILURES: &str = "wharf_ingress_publish_failures_total";
/// 1 while the breaker towards the bus is open.
pub const BREAKER_OPEN: &str = "wharf_ingress_breaker_open";
/// Admission calls that failed or took too long: the gateway went on without.
pub const ADMISSION_SKIPPED: &str = "wharf_ingress_admission_skipped_total";
/// Request records that were merged into another's weight instead of a row of their own.
pub const RECORDS_MERGED: &str = "wharf_ingress_records_merged_total";
/// Messages of one commit of the embedded bus.
pub const BUS_COMMIT_MESSAGES: &str = "wharf_bus_commit_messages";
/// Updates normalised by `outcome`: `new`, `duplicate`, `dead_letter`.
pub const NORMALIZED: &str = "wharf_normalizer_updates_total";
/// Events made by `type`.
pub const EVENTS: &str = "wharf_normalizer_events_total";
/// Unsupported updates by `field` and `type` (words of the documentation, or `other`).
pub const UNSUPPORTED: &str = "wharf_normalizer_unsupported_total";
/// Envelopes parked by `reason`.
pub const PARKED: &str = "wharf_normalizer_parked_total";
/// Requests answered by the API, by `status`.
pub const API_REQUESTS: &str = "wharf_api_requests_total";
/// From a request to the API to its answer, in seconds.
pub const API_ANSWER_SECONDS: &str = "wharf_api_answer_seconds";
/// What a person should look at, by `alert`: `signatures`, `slow-answers`, `errors`, `duplicates`, `limits`. Alert when it
/// grows.
pub const ALERTS: &str = "wharf_ingress_alerts_total";
/// Parked envelopes that were let go, by the `reason` they were parked for.
pub const RELEASED: &str = "wharf_normalizer_released_total";
/// Parked envelopes that were deleted because nobody released them in time, by `reason`. Alert when it grows.
pub const PARKED_EXPIRED: &str = "wharf_normalizer_parked_expired_total";
/// Objects of the raw archive that were deleted because their time was over.
pub const RAW_EXPIRED: &str = "wharf_normalizer_raw_expired_total";
/// Dead letters by `reason`.
pub const DEAD_LETTERS: &str = "wharf_normalizer_dead_letters_total";
/// Times an envelope was put aside to wait for a key or for newer software; each counts again when it is looked at
/// again. Alert when it grows.
pub const WAITING: &str = "wharf_normalizer_waiting_envelopes_total";
/// Times the normalizer paused because something it needs is down, by `what`.
pub const PAUSES: &str = "wharf_normalizer_pauses_total";
/// Updates of one commit.
pub const COMMIT_UPDATES: &str = "wharf_normalizer_commit_updates";
/// Raw payloads that could not go to the blob store at once and wait in the database.
pub const RAW_DEFERRED: &str = "wharf_normalizer_raw_deferred_total";
/// Age in seconds of the oldest unacknowledged message, by `consumer`.
pub const OLDEST_SECONDS: &str = "wharf_consumer_oldest_seconds";
/// Unacknowledged messages, by `consumer`.
pub const DEPTH: &str = "wharf_consumer_depth";
/// Events published to the bus.
pub const OUTBOX_PUBLISHED: &str = "wharf_outbox_published_total";
/// Events that can never be put on the bus, by `reason` (`too_large`, `not_json`); they stay readable in the feed.
pub const OUTBOX_UNPUBLISHABLE: &str = "wharf_outbox_unpublishable_total";
/// Batches of request records that could not be read and were dropped. Alert when not 0.
pub const RECORDS_UNREADABLE: &str = "wharf_recorder_unreadable_batches_total";
/// Request records stored.
pub const RECORDED: &str = "wharf_recorder_records_total";

/// Span of a webhook request.
pub const SPAN_REQUEST: &str = "webhook";
/// Span of a normalised batch.
pub const SPAN_BATCH: &str = "normalize";

/// Describes every metric to the recorder.
pub fn describe() {
    describe_counter!(REQUESTS, "Webhook requests by provider, status and signature check.");
    describe_histogram!(ANSWER_SECONDS, Unit::Seconds, "From the last byte of a webhook to its answer.");
    describe_counter!(
        CONNECTIONS_REFUSED,
        "Connections closed at once: their address had all of its places, or began too much TLS."
    );
    describe_counter!(HANDSHAKES_FAILED, "TLS handshakes that came to nothing, by reason.");
    describe_counter!(UPDATES, "Updates by what admission said.");
    describe_counter!(ENVELOPES, "Envelopes published, by disposition.");
    describe_counter!(PUBLISH_FAILURES, "Envelopes that the bus did not take, by reason.");
    describe_gauge!(BREAKER_OPEN, "1 while the breaker towards the bus is open.");
    describe_counter!(ADMISSION_SKIPPED, "Admission calls that failed or took too long.");
    describe_counter!(ALERTS, "What a person should look at, by alert.");
    describe_counter!(RECORDS_MERGED, "Request records merged into another's weight.");
    describe_histogram!(BUS_COMMIT_MESSAGES, "Messages of one commit of the embedded bus.");
    describe_counter!(NORMALIZED, "Updates normalised, by outcome.");
    describe_counter!(EVENTS, "Events made, by type.");
    describe_counter!(UNSUPPORTED, "Unsupported updates, by field and type.");
    describe_counter!(PARKED, "Envelopes parked, by reason.");
    describe_counter!(DEAD_LETTERS, "Dead letters, by reason.");
    describe_counter!(WAITING, "Times an envelope was put aside to wait for a key or for newer software.");
    describe_counter!(PAUSES, "Pauses of the normalizer, by what was down.");
    describe_histogram!(COMMIT_UPDATES, "Updates of one commit.");
    describe_counter!(RAW_DEFERRED, "Raw payloads that the blob store did not take; each try counts.");
    describe_gauge!(OLDEST_SECONDS, Unit::Seconds, "Age of the oldest unacknowledged message, by consumer.");
    describe_gauge!(DEPTH, "Unacknowledged messages, by consumer.");
    describe_counter!(OUTBOX_PUBLISHED, "Events published to the bus.");
    describe_counter!(OUTBOX_UNPUBLISHABLE, "Events that can never be put on the bus, by reason.");
    describe_counter!(RECORDS_UNREADABLE, "Batches of request records that could not be read.");
    describe_counter!(RECORDED, "Request records stored.");
}
