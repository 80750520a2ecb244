-- The database of the distributed backend. JSON of events is kept as bytes; text columns hold U+FFFD where the original
-- has U+0000. Ids compare by their bytes (COLLATE "C"), whatever the locale. What is sealed does not compress
-- (STORAGE EXTERNAL). Uniqueness of events is decided by `event_keys` alone: no other table that is partitioned by time
-- can decide it.

CREATE TABLE directory (
    key      text   COLLATE "C" NOT NULL PRIMARY KEY,
    entry    text   NOT NULL, -- JSON, secrets wrapped
    revision bigint NOT NULL
);
CREATE INDEX directory_revision ON directory (revision);

-- One row, locked by whoever writes to the directory: revisions are in the order of commits.
CREATE TABLE directory_head (
    id       boolean PRIMARY KEY DEFAULT true CHECK (id),
    revision bigint  NOT NULL
);
INSERT INTO directory_head (revision) VALUES (0);

-- Lives longer than everything it guards. `first_seen` is the time of receipt of the row that was stored, by which
-- that row is found in the tables that are partitioned by time.
CREATE TABLE event_keys (
    tenant     text        COLLATE "C" NOT NULL,
    key        bytea       NOT NULL CHECK (octet_length(key) = 16),
    first_seen timestamptz NOT NULL,
    count      bigint      NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant, key)
) PARTITION BY HASH (key);

DO $$
BEGIN
    FOR i IN 0..15 LOOP
        -- Room on each page for the new version of a row that is counted again.
        EXECUTE format('CREATE TABLE event_keys_%s PARTITION OF event_keys FOR VALUES WITH (MODULUS 16, REMAINDER %s) '
                       'WITH (fillfactor = 90)', i, i);
    END LOOP;
END $$;

-- Positions in the feed are taken from this sequence as the last step of a commit; see `reserve_positions`.
CREATE SEQUENCE event_positions AS bigint;

-- Reserves `count` positions and returns the last of them; until the end of the transaction nobody else gets any.
--
-- Locks are released after a commit has become visible. So commits become visible in the order of their positions, and
-- nothing lower than a visible position can appear later. A rollback leaves a gap.
CREATE FUNCTION reserve_positions(count bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(8239742001);
    PERFORM pg_notify('wharf_outbox', '');
    RETURN setval('event_positions', nextval('event_positions') + count - 1);
END $$;

CREATE TABLE events (
    position     bigint      NOT NULL,
    tenant       text        COLLATE "C" NOT NULL,
    key          bytea       NOT NULL,
    event_type   text        COLLATE "C" NOT NULL,
    occurred_at  timestamptz NOT NULL,
    received_at  timestamptz NOT NULL,
    number       text        COLLATE "C",
    conversation uuid,
    partition    smallint    NOT NULL,
    revision     integer     NOT NULL DEFAULT 1,
    data         bytea       NOT NULL
) PARTITION BY RANGE (received_at);
CREATE TABLE events_default PARTITION OF events DEFAULT;
CREATE INDEX events_position ON events (position);
CREATE INDEX events_tenant_position ON events (tenant, position);

-- One row: events up to it have their final position and are visible.
CREATE TABLE feed (
    id   boolean PRIMARY KEY DEFAULT true CHECK (id),
    head bigint  NOT NULL
);
INSERT INTO feed (head) VALUES (0);

-- One row: who may move the head.
CREATE TABLE sequencer (
    id    boolean     PRIMARY KEY DEFAULT true CHECK (id),
    owner uuid,
    fence bigint      NOT NULL,
    until timestamptz NOT NULL
);
INSERT INTO sequencer (fence, until) VALUES (0, '-infinity');

-- Events that are not on the bus yet. Rows come and go quickly: narrow, with room on the page so that a claim is no
-- change to the index, and vacuumed by number of rows instead of a share of the table.
CREATE TABLE outbox (
    position    bigint      NOT NULL PRIMARY KEY,
    received_at timestamptz NOT NULL, -- finds the event
    partition   smallint    NOT NULL,
    bytes       integer     NOT NULL, -- of the event's data
    owner       uuid,
    until       timestamptz
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 50000,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 50000,
    autovacuum_vacuum_cost_delay = 0
);

-- Inbound messages. Also the base of the view `webhook_messages`. A dead letter that is a message has a row too, with
-- the status `failed`; it is found by the letter's time of receipt.
CREATE TABLE messages (
    tenant            text         COLLATE "C" NOT NULL,
    key               bytea        NOT NULL,
    envelope          uuid         NOT NULL,
    webhook_source    text         NOT NULL,
    message_id        varchar(255) COLLATE "C" NOT NULL,
    type              text         NOT NULL,
    phone_number      text         COLLATE "C", -- the sender, E.164 with +
    user_id           text         COLLATE "C", -- the sender, business-scoped
    to_number         text,
    text              text,
    text_folded       text,        -- in lower case, for searching
    sent_at           timestamptz  NOT NULL,
    conversation      uuid,
    status            text         NOT NULL
                      CHECK (status IN ('received', 'queued', 'processing', 'completed', 'failed')),
    response_time_ms  double precision,
    duplicate_count   integer      NOT NULL DEFAULT 0,
    last_duplicate_at timestamptz,
    last_envelope     uuid,        -- the envelope of the last duplicate, so that its redelivery is not counted
    error_message     text,
    error_count       integer      NOT NULL DEFAULT 0,
    received_at       timestamptz  NOT NULL,
    created_at        timestamptz  NOT NULL
) PARTITION BY RANGE (received_at);
CREATE TABLE messages_default PARTITION OF messages DEFAULT;
CREATE INDEX messages_key ON messages (key);
CREATE INDEX messages_sent_at ON messages (sent_at, message_id);
CREATE INDEX messages_created_at ON messages (created_at);
CREATE INDEX messages_phone_number ON messages (phone_number) WHERE phone_number IS NOT NULL;
CREATE INDEX messages_duplicates ON messages (duplicate_count) WHERE duplicate_count > 0;
CREATE INDEX messages_slow ON messages (response_time_ms) WHERE response_time_ms > 1000;
CREATE INDEX messages_failed ON messages (created_at) WHERE status = 'failed';

CREATE VIEW webhook_messages AS
SELECT tenant AS tenant_id, message_id, webhook_source, phone_number, status, response_time_ms, duplicate_count,
       received_at AS first_received_at, last_duplicate_at, error_message, error_count, created_at
FROM messages;

-- What request records say of messages that are not stored yet; merged when they are.
CREATE TABLE message_receipts (
    tenant            text        COLLATE "C" NOT NULL,
    key               bytea       NOT NULL,
    response_time_ms  double precision,
    duplicate_count   integer     NOT NULL DEFAULT 0,
    last_duplicate_at timestamptz,
    recorded_at       timestamptz NOT NULL,
    PRIMARY KEY (tenant, key)
);

-- Every status that was reported, each with its own time, price and errors.
CREATE TABLE statuses (
    tenant       text         COLLATE "C" NOT NULL,
    key          bytea        NOT NULL,
    number       text         COLLATE "C",
    message_id   varchar(255) COLLATE "C" NOT NULL,
    status       text         NOT NULL,
    occurred_at  timestamptz  NOT NULL,
    received_at  timestamptz  NOT NULL,
    recipient    text,
    recipient_user_id text,
    participant  text,
    conversation_id     text, -- billing conversation
    conversation_origin text,
    conversation_expires_at bigint, -- seconds since 1970, as the provider says
    pricing_billable boolean,
    pricing_model    text,
    pricing_type     text,
    pricing_category text,
    errors       text, -- JSON
    biz_opaque_callback_data text
) PARTITION BY RANGE (received_at);
CREATE TABLE statuses_default PARTITION OF statuses DEFAULT;
CREATE INDEX statuses_message ON statuses (message_id);

-- The furthest state of each outbound message (per group participant).
CREATE TABLE message_states (
    tenant      text         COLLATE "C" NOT NULL,
    number      text         COLLATE "C" NOT NULL,
    message_id  varchar(255) COLLATE "C" NOT NULL,
    participant text         COLLATE "C" NOT NULL,
    state       text         NOT NULL,
    rank        smallint     NOT NULL,
    changed_at  timestamptz  NOT NULL,
    PRIMARY KEY (tenant, number, message_id, participant)
) WITH (fillfactor = 80);

-- People. Their ids at the provider are aliases: a business-scoped user id first, phone numbers where known.
CREATE TABLE identities (
    id         uuid        NOT NULL PRIMARY KEY,
    tenant     text        COLLATE "C" NOT NULL,
    user_id    text        COLLATE "C",
    created_at timestamptz NOT NULL
);

CREATE TABLE identity_aliases (
    tenant   text COLLATE "C" NOT NULL,
    kind     text COLLATE "C" NOT NULL CHECK (kind IN ('user', 'phone')),
    value    text COLLATE "C" NOT NULL,
    identity uuid NOT NULL,
    PRIMARY KEY (tenant, kind, value)
);

-- A conversation is one number with one identity, or with one group.
CREATE TABLE conversations (
    tenant     text        COLLATE "C" NOT NULL,
    number     text        COLLATE "C" NOT NULL,
    peer       bytea       NOT NULL, -- identity id, or the group's id as text bytes
    id         uuid        NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, number, peer)
);

CREATE TABLE parked (
    envelope    uuid        NOT NULL PRIMARY KEY,
    tenant      text        COLLATE "C" NOT NULL,
    reason      text        NOT NULL,
    number      text        COLLATE "C",
    received_at timestamptz NOT NULL,
    updates     bigint      NOT NULL,
    sealed      bytea       NOT NULL
);
ALTER TABLE parked ALTER COLUMN sealed SET STORAGE EXTERNAL;
CREATE INDEX parked_reason ON parked (reason, received_at);

CREATE TABLE dead_letters (
    tenant      text        COLLATE "C" NOT NULL,
    key         bytea       NOT NULL,
    envelope    uuid        NOT NULL,
    received_at timestamptz NOT NULL,
    reason      text        NOT NULL,
    sealed      bytea       NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant, key)
);
ALTER TABLE dead_letters ALTER COLUMN sealed SET STORAGE EXTERNAL;

CREATE TABLE attempts (
    envelope uuid    NOT NULL PRIMARY KEY,
    count    integer NOT NULL
);

CREATE TABLE raw_objects (
    envelope uuid   NOT NULL PRIMARY KEY,
    object   text   NOT NULL,
    "offset" bigint NOT NULL,
    length   bigint NOT NULL
);

CREATE TABLE raw_pending (
    id       bigint NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    envelope uuid   NOT NULL UNIQUE,
    sealed   bytea  NOT NULL
);
ALTER TABLE raw_pending ALTER COLUMN sealed SET STORAGE EXTERNAL;

CREATE TABLE webhook_signature_log (
    id                 uuid             NOT NULL, -- request id
    tenant_id          text             COLLATE "C",
    webhook_source     text             NOT NULL,
    endpoint_path      text             NOT NULL,
    source_ip          text             NOT NULL,
    event_id           text,
    event_type         text,
    event_count        bigint           NOT NULL,
    signature_status   text             NOT NULL,
    suspicious         boolean          NOT NULL,
    reason             text,
    processing_time_ms double precision NOT NULL,
    http_status        integer          NOT NULL,
    outcome            text             NOT NULL,
    received_at        timestamptz      NOT NULL,
    weight             bigint           NOT NULL, -- requests this row stands for
    PRIMARY KEY (id, received_at)
) PARTITION BY RANGE (received_at);
CREATE TABLE webhook_signature_log_default PARTITION OF webhook_signature_log DEFAULT;

-- Batches of request records that were stored, so that a repeated one is not counted again.
CREATE TABLE record_batches (
    id          uuid        NOT NULL PRIMARY KEY,
    recorded_at timestamptz NOT NULL
);
CREATE INDEX record_batches_recorded_at ON record_batches (recorded_at);
