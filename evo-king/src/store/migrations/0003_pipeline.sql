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

-- Nothing new of a paused run is given to runners. Such a run that would wait has the phase
-- `paused`, so that it is in nobody's way.
ALTER TABLE runs ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
-- The run that this one repeats from some stage on, and the run that repeats this one.
ALTER TABLE runs ADD COLUMN forked_from TEXT REFERENCES runs (run_id);
ALTER TABLE runs ADD COLUMN retried_by TEXT REFERENCES runs (run_id);
-- It came to nothing, and nobody has tried it again or put it aside.
ALTER TABLE runs ADD COLUMN dead INTEGER NOT NULL DEFAULT 0;
UPDATE runs SET dead = 1
WHERE status IN ('failed', 'timed_out') AND coalesce(code, '') NOT IN ('cancelled', 'decomposed');

DROP INDEX runs_waiting;
CREATE INDEX runs_waiting ON runs (stage, priority DESC, run_id, updated_at) WHERE phase = 'waiting';
DROP INDEX runs_leased;
CREATE INDEX runs_leased ON runs (agent_id, stage) WHERE phase = 'leased';
CREATE INDEX runs_paused ON runs (stage) WHERE phase = 'paused';
-- An evaluation waits for its siblings that are being built.
CREATE INDEX runs_building ON runs (parent_run_id)
WHERE stage = 'building' AND phase NOT IN ('ended', 'paused') AND parent_run_id IS NOT NULL;
CREATE INDEX runs_dead ON runs (run_id) WHERE dead = 1;
CREATE INDEX runs_by_decision ON runs (decision, run_id) WHERE decision IS NOT NULL;
CREATE INDEX runs_by_code ON runs (code, run_id) WHERE code IS NOT NULL;
CREATE INDEX runs_by_last_stage ON runs (stage, run_id) WHERE phase = 'ended';

-- The full-text index of runs, made a little later than they are. It holds no text of its own.
CREATE TABLE run_docs (
    doc INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL UNIQUE
) STRICT;
CREATE VIRTUAL TABLE run_fts USING fts5 (
    text, content = '', contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 2'
);

-- What Learning is told of the names in use.
CREATE INDEX skills_by_use ON skills (status = 'active' DESC, created_at DESC, name);
