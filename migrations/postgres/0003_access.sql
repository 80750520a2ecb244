-- Tokens of the API by their SHA-256, and what was done through it.

CREATE TABLE access_tokens (
    id         uuid        NOT NULL PRIMARY KEY,
    hash       bytea       NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    name       text        NOT NULL,
    scope      text        NOT NULL,
    tenant     text        COLLATE "C",
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz
);

CREATE TABLE actions (
    id        uuid        NOT NULL PRIMARY KEY,
    at        timestamptz NOT NULL,
    token     uuid,        -- none is the token of the configuration
    actor     text        NOT NULL,
    action    text        NOT NULL,
    target    text,
    tenant    text        COLLATE "C",
    source_ip text        NOT NULL,
    status    integer      -- none if the process ended before there was an answer
);
CREATE INDEX actions_tenant ON actions (tenant, id) WHERE tenant IS NOT NULL;
