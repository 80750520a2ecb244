-- The embedded event bus, the schema of both its files: `inbound.db` uses the two inbound tables, `bus.db` the others. A
-- table for each stream. A work queue deletes what is acknowledged; `events` is pruned by
-- age and number. AUTOINCREMENT, so that a sequence is never used twice, not even after everything was acknowledged.

CREATE TABLE inbound_live (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    subject      TEXT    NOT NULL,
    payload      BLOB    NOT NULL,
    published_at INTEGER NOT NULL, -- milliseconds
    dedup_id     TEXT
) STRICT;

CREATE TABLE inbound_bulk (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    subject      TEXT    NOT NULL,
    payload      BLOB    NOT NULL,
    published_at INTEGER NOT NULL,
    dedup_id     TEXT
) STRICT;

CREATE TABLE audit (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    subject      TEXT    NOT NULL,
    payload      BLOB    NOT NULL,
    published_at INTEGER NOT NULL,
    dedup_id     TEXT
) STRICT;

CREATE TABLE events (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    subject      TEXT    NOT NULL,
    payload      BLOB    NOT NULL,
    published_at INTEGER NOT NULL,
    dedup_id     TEXT
) STRICT;

CREATE TABLE wakeups (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    subject      TEXT    NOT NULL,
    payload      BLOB    NOT NULL,
    published_at INTEGER NOT NULL,
    dedup_id     TEXT
) STRICT;

-- Dedup ids of messages that were acknowledged (and so deleted) within the window, so that a restart does not forget.
CREATE TABLE dedup (
    stream       TEXT    NOT NULL,
    dedup_id     TEXT    NOT NULL,
    seq          INTEGER NOT NULL,
    published_at INTEGER NOT NULL,
    PRIMARY KEY (stream, dedup_id)
) STRICT, WITHOUT ROWID;

-- One row. Whether the last process that had the file open closed it in an orderly way.
CREATE TABLE process (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    clean INTEGER NOT NULL,
    probe BLOB -- written to see whether writing works
) STRICT;
INSERT INTO process (id, clean) VALUES (1, 1);

-- For each time it was not: the messages that may have been in somebody's hands then, which are the oldest of each
-- work queue. They count as delivered once more, so that a message that kills its reader is noticed.
CREATE TABLE crashes (
    id     INTEGER PRIMARY KEY,
    stream TEXT    NOT NULL,
    upto   INTEGER NOT NULL
) STRICT;

-- How far each consumer of a stream with limits has read: everything up to `floor` is acknowledged, and what
-- `consumer_acks` lists beyond it.
CREATE TABLE consumers (
    name  TEXT    NOT NULL PRIMARY KEY,
    floor INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE consumer_acks (
    name TEXT    NOT NULL,
    seq  INTEGER NOT NULL,
    PRIMARY KEY (name, seq)
) STRICT, WITHOUT ROWID;
