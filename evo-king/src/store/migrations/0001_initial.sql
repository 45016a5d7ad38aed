-- Facts about this database: king's secret for splitting cases, the number of starts.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- One row per run: a cycle, or one candidate's way through the stages. `state` is the state
-- machine's whole state as JSON; the columns beside it exist to be searched.
CREATE TABLE runs (
    run_id          TEXT PRIMARY KEY,
    parent_run_id   TEXT REFERENCES runs (run_id),
    kind            TEXT NOT NULL,
    candidate       TEXT,
    definition      TEXT,
    -- The candidate's source as it was configured when it was found.
    source          TEXT,
    trigger         TEXT NOT NULL,
    look            INTEGER NOT NULL DEFAULT 1,
    version         TEXT NOT NULL DEFAULT '',
    state           TEXT NOT NULL,
    phase           TEXT NOT NULL,
    status          TEXT NOT NULL,
    stage           TEXT NOT NULL,
    attempt         INTEGER NOT NULL,
    agent_id        TEXT,
    artifact_id     TEXT NOT NULL DEFAULT '',
    decision        TEXT,
    code            TEXT,
    reason          TEXT,
    -- What was measured about the package, over all looks so far.
    evidence        TEXT,
    priority        INTEGER NOT NULL DEFAULT 0,
    idempotency_key TEXT UNIQUE,
    king_version    TEXT NOT NULL,
    boots           INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX runs_waiting ON runs (stage, priority DESC, run_id) WHERE phase = 'waiting';
CREATE INDEX runs_leased ON runs (agent_id) WHERE phase = 'leased';
CREATE INDEX runs_by_parent ON runs (parent_run_id, candidate);
CREATE INDEX runs_by_kind ON runs (kind, run_id);
CREATE INDEX runs_by_status ON runs (status, run_id);

-- One row per stage of a run; the last attempt's result.
CREATE TABLE stages (
    run_id      TEXT NOT NULL REFERENCES runs (run_id),
    ordinal     INTEGER NOT NULL,
    stage       TEXT NOT NULL,
    status      TEXT NOT NULL,
    attempt     INTEGER NOT NULL,
    agent_id    TEXT,
    artifact_id TEXT NOT NULL DEFAULT '',
    output      TEXT,
    error       TEXT,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    PRIMARY KEY (run_id, ordinal)
) STRICT;

-- One row per try of a stage: who had it, how it ended, and the digest of the answer that was
-- applied, so that a repeated answer is known as one.
CREATE TABLE attempts (
    run_id        TEXT NOT NULL REFERENCES runs (run_id),
    stage         TEXT NOT NULL,
    attempt       INTEGER NOT NULL,
    agent_id      TEXT NOT NULL,
    ended         TEXT,
    result_digest TEXT,
    started_at    INTEGER NOT NULL,
    ended_at      INTEGER,
    PRIMARY KEY (run_id, stage, attempt)
) STRICT;

-- The event log: append-only, the one source of every view of what happened.
CREATE TABLE events (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    run_id   TEXT,
    agent_id TEXT,
    payload  TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_run ON events (run_id, seq);
CREATE INDEX events_by_kind ON events (kind, seq);

-- Effects that were committed with a decision and have yet to be delivered.
CREATE TABLE outbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       TEXT NOT NULL,
    key        TEXT NOT NULL UNIQUE,
    agent_id   TEXT,
    payload    TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- The next moment at which a run needs attention; a run has one at most.
CREATE TABLE timers (
    run_id TEXT PRIMARY KEY REFERENCES runs (run_id),
    kind   TEXT NOT NULL,
    due_at INTEGER NOT NULL
) STRICT;
CREATE INDEX timers_due ON timers (due_at);

CREATE TABLE agents (
    agent_id            TEXT PRIMARY KEY,
    role                TEXT NOT NULL,
    status              TEXT NOT NULL,
    last_heartbeat      INTEGER NOT NULL,
    capabilities        TEXT NOT NULL,
    skills              TEXT NOT NULL,
    pid                 INTEGER,
    version             TEXT,
    binary_path         TEXT,
    soul_content        TEXT,
    session_id          TEXT,
    protocol            INTEGER,
    capacity            INTEGER NOT NULL,
    extra               TEXT NOT NULL,
    first_registered_at INTEGER NOT NULL,
    registration_count  INTEGER NOT NULL
) STRICT;

-- Test cases of a run's candidate. Held-out ones are given to Evaluation only.
CREATE TABLE cases (
    run_id  TEXT NOT NULL REFERENCES runs (run_id),
    case_id TEXT NOT NULL,
    split   TEXT NOT NULL,
    body    TEXT NOT NULL,
    PRIMARY KEY (run_id, case_id)
) STRICT;

CREATE TABLE skills (
    name        TEXT PRIMARY KEY,
    source      TEXT NOT NULL,
    locator     TEXT NOT NULL,
    description TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    status      TEXT NOT NULL,
    run_id      TEXT NOT NULL REFERENCES runs (run_id),
    look        INTEGER NOT NULL DEFAULT 1,
    decision    TEXT,
    code        TEXT,
    reason      TEXT,
    score       REAL,
    decided_at  INTEGER,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX skills_by_status ON skills (status, name);
CREATE INDEX skills_by_source ON skills (source, name);

CREATE TABLE skill_versions (
    skill       TEXT NOT NULL REFERENCES skills (name),
    artifact_id TEXT NOT NULL,
    version     TEXT NOT NULL,
    parent      TEXT,
    run_id      TEXT NOT NULL REFERENCES runs (run_id),
    fingerprint TEXT NOT NULL,
    manifest    TEXT NOT NULL,
    endpoints   TEXT NOT NULL,
    scores      TEXT,
    evidence    TEXT,
    decision    TEXT,
    code        TEXT,
    reason      TEXT,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (skill, artifact_id)
) STRICT;

-- Which version each channel of a skill points at; `fence` grows with every change.
CREATE TABLE skill_pointers (
    skill       TEXT NOT NULL REFERENCES skills (name),
    channel     TEXT NOT NULL,
    artifact_id TEXT NOT NULL,
    version     TEXT NOT NULL,
    fence       INTEGER NOT NULL,
    PRIMARY KEY (skill, channel)
) STRICT;

-- Every change of a pointer, append-only.
CREATE TABLE activations (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    skill       TEXT NOT NULL REFERENCES skills (name),
    channel     TEXT NOT NULL,
    artifact_id TEXT NOT NULL,
    version     TEXT NOT NULL,
    run_id      TEXT NOT NULL REFERENCES runs (run_id),
    reason      TEXT NOT NULL,
    at          INTEGER NOT NULL
) STRICT;
CREATE INDEX activations_by_run ON activations (run_id);

-- Every reported call of a skill: the fitness signal.
CREATE TABLE skill_calls (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    req_id      TEXT UNIQUE,
    skill       TEXT NOT NULL,
    artifact_id TEXT,
    agent_id    TEXT NOT NULL,
    result      TEXT NOT NULL,
    detail      TEXT,
    latency_ms  INTEGER,
    cost_usd    REAL,
    at          INTEGER NOT NULL
) STRICT;
CREATE INDEX skill_calls_by_skill ON skill_calls (skill, id);
