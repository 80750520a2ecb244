-- Tokens of the API by their SHA-256, and what was done through it.

CREATE TABLE access_tokens (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    hash       BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    name       TEXT    NOT NULL,
    scope      TEXT    NOT NULL,
    tenant     TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE actions (
    id        BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    at        INTEGER NOT NULL,
    token     BLOB,    -- none is the token of the configuration
    actor     TEXT    NOT NULL,
    action    TEXT    NOT NULL,
    target    TEXT,
    tenant    TEXT,
    source_ip TEXT    NOT NULL,
    status    INTEGER  -- none if the process ended before there was an answer
) STRICT, WITHOUT ROWID;
CREATE INDEX actions_tenant ON actions (tenant, id) WHERE tenant IS NOT NULL;
