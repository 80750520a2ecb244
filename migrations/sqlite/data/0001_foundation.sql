-- The embedded database. Times are milliseconds since the Unix epoch. JSON of events is kept as bytes (BLOB); text
-- columns hold U+FFFD where the original has U+0000. Uniqueness of events is decided by `event_keys` alone.

CREATE TABLE directory (
    key      TEXT    NOT NULL PRIMARY KEY,
    entry    TEXT    NOT NULL, -- JSON, secrets wrapped
    revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Lives longer than everything it guards.
CREATE TABLE event_keys (
    tenant     TEXT    NOT NULL,
    key        BLOB    NOT NULL CHECK (length(key) = 16),
    first_seen INTEGER NOT NULL,
    count      INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;

-- Events in the order of their commits: the rowid is the position in the feed once `feed.head` has reached it.
CREATE TABLE events (
    position     INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant       TEXT    NOT NULL,
    key          BLOB    NOT NULL,
    event_type   TEXT    NOT NULL,
    occurred_at  INTEGER NOT NULL,
    received_at  INTEGER NOT NULL,
    number       TEXT,
    conversation BLOB,
    partition    INTEGER NOT NULL,
    revision     INTEGER NOT NULL DEFAULT 1,
    data         BLOB    NOT NULL
) STRICT;

-- One row. `head`: events up to it have their final position and are visible. `published`: events up to it are on the
-- bus.
CREATE TABLE feed (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    head      INTEGER NOT NULL,
    published INTEGER NOT NULL
) STRICT;
INSERT INTO feed (id, head, published) VALUES (1, 0, 0);

-- Inbound messages. Also the base of the view `webhook_messages`.
CREATE TABLE messages (
    id               INTEGER PRIMARY KEY,
    tenant           TEXT    NOT NULL,
    key              BLOB    NOT NULL,
    envelope         BLOB    NOT NULL,
    webhook_source   TEXT    NOT NULL,
    message_id       TEXT    NOT NULL CHECK (length(message_id) <= 255),
    type             TEXT    NOT NULL,
    phone_number     TEXT,   -- the sender, E.164 with +
    user_id          TEXT,   -- the sender, business-scoped
    to_number        TEXT,
    text             TEXT,
    text_folded      TEXT,   -- in lower case, for searching
    sent_at          INTEGER NOT NULL,
    conversation     BLOB,
    status           TEXT    NOT NULL CHECK (status IN ('received', 'queued', 'processing', 'completed', 'failed')),
    response_time_ms REAL,
    duplicate_count  INTEGER NOT NULL DEFAULT 0,
    last_duplicate_at INTEGER,
    last_envelope    BLOB,   -- the envelope of the last duplicate, so that its redelivery is not counted
    error_message    TEXT,
    error_count      INTEGER NOT NULL DEFAULT 0,
    received_at      INTEGER NOT NULL,
    created_at       INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX messages_key ON messages (tenant, key);
CREATE INDEX messages_sent_at ON messages (sent_at, message_id);
CREATE INDEX messages_phone_number ON messages (phone_number) WHERE phone_number IS NOT NULL;
CREATE INDEX messages_duplicates ON messages (duplicate_count) WHERE duplicate_count > 0;
CREATE INDEX messages_slow ON messages (response_time_ms) WHERE response_time_ms > 1000;
CREATE INDEX messages_failed ON messages (created_at) WHERE status = 'failed';

CREATE VIEW webhook_messages AS
SELECT tenant AS tenant_id, message_id, webhook_source, phone_number, status, response_time_ms, duplicate_count,
       strftime('%Y-%m-%dT%H:%M:%fZ', received_at / 1000.0, 'unixepoch') AS first_received_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', last_duplicate_at / 1000.0, 'unixepoch') AS last_duplicate_at,
       error_message, error_count,
       strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1000.0, 'unixepoch') AS created_at
FROM messages;

-- What request records say of messages that are not stored yet; merged when they are.
CREATE TABLE message_receipts (
    tenant            TEXT    NOT NULL,
    key               BLOB    NOT NULL,
    response_time_ms  REAL,
    duplicate_count   INTEGER NOT NULL DEFAULT 0,
    last_duplicate_at INTEGER,
    recorded_at       INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;

-- Every status that was reported, each with its own time, price and errors.
CREATE TABLE statuses (
    id           INTEGER PRIMARY KEY,
    tenant       TEXT    NOT NULL,
    key          BLOB    NOT NULL,
    number       TEXT,
    message_id   TEXT    NOT NULL CHECK (length(message_id) <= 255),
    status       TEXT    NOT NULL,
    occurred_at  INTEGER NOT NULL,
    received_at  INTEGER NOT NULL,
    recipient    TEXT,
    recipient_user_id TEXT,
    participant  TEXT,
    conversation_id     TEXT, -- billing conversation
    conversation_origin TEXT,
    conversation_expires_at INTEGER, -- seconds
    pricing_billable INTEGER,
    pricing_model    TEXT,
    pricing_type     TEXT,
    pricing_category TEXT,
    errors       TEXT, -- JSON
    biz_opaque_callback_data TEXT
) STRICT;

-- The furthest state of each outbound message (per group participant).
CREATE TABLE message_states (
    tenant      TEXT    NOT NULL,
    number      TEXT    NOT NULL,
    message_id  TEXT    NOT NULL,
    participant TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    rank        INTEGER NOT NULL,
    changed_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant, number, message_id, participant)
) STRICT, WITHOUT ROWID;

-- People. Their ids at the provider are aliases: a business-scoped user id first, phone numbers where known.
CREATE TABLE identities (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    tenant     TEXT    NOT NULL,
    user_id    TEXT,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE identity_aliases (
    tenant   TEXT NOT NULL,
    kind     TEXT NOT NULL CHECK (kind IN ('user', 'phone')),
    value    TEXT NOT NULL,
    identity BLOB NOT NULL,
    PRIMARY KEY (tenant, kind, value)
) STRICT, WITHOUT ROWID;

-- A conversation is one number with one identity, or with one group.
CREATE TABLE conversations (
    tenant     TEXT    NOT NULL,
    number     TEXT    NOT NULL,
    peer       BLOB    NOT NULL, -- identity id, or the group's id as text bytes
    id         BLOB    NOT NULL CHECK (length(id) = 16),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, number, peer)
) STRICT, WITHOUT ROWID;

CREATE TABLE parked (
    envelope    BLOB    NOT NULL PRIMARY KEY,
    tenant      TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    number      TEXT,
    received_at INTEGER NOT NULL,
    updates     INTEGER NOT NULL,
    sealed      BLOB    NOT NULL
) STRICT;
CREATE INDEX parked_reason ON parked (reason, received_at);

CREATE TABLE dead_letters (
    tenant      TEXT    NOT NULL,
    key         BLOB    NOT NULL,
    envelope    BLOB    NOT NULL,
    received_at INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    sealed      BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT;

CREATE TABLE attempts (
    envelope BLOB    NOT NULL PRIMARY KEY,
    count    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE raw_objects (
    envelope BLOB    NOT NULL PRIMARY KEY,
    object   TEXT    NOT NULL,
    offset   INTEGER NOT NULL,
    length   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE raw_pending (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    envelope BLOB    NOT NULL UNIQUE,
    sealed   BLOB    NOT NULL
) STRICT;

CREATE TABLE webhook_signature_log (
    id                 BLOB    NOT NULL PRIMARY KEY, -- request id
    tenant_id          TEXT,
    webhook_source     TEXT    NOT NULL,
    endpoint_path      TEXT    NOT NULL,
    source_ip          TEXT    NOT NULL,
    event_id           TEXT,
    event_type         TEXT,
    event_count        INTEGER NOT NULL,
    signature_status   TEXT    NOT NULL,
    suspicious         INTEGER NOT NULL,
    reason             TEXT,
    processing_time_ms REAL    NOT NULL,
    http_status        INTEGER NOT NULL,
    outcome            TEXT    NOT NULL,
    received_at        INTEGER NOT NULL,
    weight             INTEGER NOT NULL -- requests this row stands for
) STRICT, WITHOUT ROWID;

-- Batches of request records that were stored, so that a repeated one is not counted again.
CREATE TABLE record_batches (
    id          BLOB    NOT NULL PRIMARY KEY,
    recorded_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
