-- What the start with this idempotency key asked for, so that another request with the same key is
-- known as one.
ALTER TABLE runs ADD COLUMN idempotency_digest TEXT;

-- One row per question to a runner, how a run is to go on after a failure.
CREATE TABLE recoveries (
    request_id    TEXT PRIMARY KEY,
    run_id        TEXT NOT NULL REFERENCES runs (run_id),
    stage         TEXT NOT NULL,
    attempt       INTEGER NOT NULL,
    agent_id      TEXT NOT NULL,
    error         TEXT NOT NULL,
    asked_at      INTEGER NOT NULL,
    deadline      INTEGER NOT NULL,
    -- `retry`, `skip`, `decompose`, `abort`, `expired` or `cancelled`; null while it is open.
    ended         TEXT,
    -- Digest of the answer that was taken, so that a repeated answer is known as one.
    answer_digest TEXT,
    reasoning     TEXT,
    ended_at      INTEGER
) STRICT;
CREATE INDEX recoveries_by_run ON recoveries (run_id);
