-- Tokens that were created beside those of the token file. Only the SHA-256 of a token is kept.
CREATE TABLE tokens (
    token_id   TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    scope      TEXT NOT NULL,
    -- Roles that a runner with this token may take, as a JSON list; `*` is every role.
    roles      TEXT NOT NULL,
    digest     TEXT NOT NULL UNIQUE,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT;
CREATE UNIQUE INDEX tokens_by_name ON tokens (name) WHERE revoked_at IS NULL;

-- Every call that changes something: who, what, from where, and what came of it.
CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    token_id   TEXT NOT NULL,
    token_name TEXT NOT NULL,
    scope      TEXT NOT NULL,
    -- `POST /pipeline/start`, or `socket task:create`.
    action     TEXT NOT NULL,
    -- What it was about: the path of a request.
    target     TEXT NOT NULL,
    -- The HTTP status, or for a message 200 when it was taken and 400 when it was not.
    status     INTEGER NOT NULL,
    remote     TEXT NOT NULL,
    request_id TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_token ON audit (token_id, id);
CREATE INDEX audit_by_time ON audit (at);

-- Agents that registered with a created token: nobody else registers under their names.
CREATE TABLE agent_owners (
    agent_id TEXT PRIMARY KEY,
    token_id TEXT NOT NULL REFERENCES tokens (token_id)
) STRICT;
