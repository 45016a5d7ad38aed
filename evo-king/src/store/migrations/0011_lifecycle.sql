-- What becomes of versions of skills after the decision.

-- What people want of a skill, and why one should look at it. `pinned` is the version that it stays
-- on, `archived` the one that was active when it went to the archive.
ALTER TABLE skills ADD COLUMN pinned TEXT;
ALTER TABLE skills ADD COLUMN frozen INTEGER NOT NULL DEFAULT 0;
ALTER TABLE skills ADD COLUMN archived TEXT;
ALTER TABLE skills ADD COLUMN flag_code TEXT;
ALTER TABLE skills ADD COLUMN flag_reason TEXT;
ALTER TABLE skills ADD COLUMN flag_at INTEGER;
-- Grows with every change of what is in use.
ALTER TABLE skills ADD COLUMN fence INTEGER NOT NULL DEFAULT 0;
ALTER TABLE skills ADD COLUMN last_used_at INTEGER;
-- Reported calls, and what they cost.
ALTER TABLE skills ADD COLUMN calls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE skills ADD COLUMN calls_usd REAL NOT NULL DEFAULT 0;
-- How the calls went in its newest minute.
ALTER TABLE skills ADD COLUMN minute INTEGER NOT NULL DEFAULT 0;
ALTER TABLE skills ADD COLUMN minute_reports REAL NOT NULL DEFAULT 0;
ALTER TABLE skills ADD COLUMN minute_bad REAL NOT NULL DEFAULT 0;

-- Whether a version has passed Evaluation, whatever was decided then.
ALTER TABLE skill_versions ADD COLUMN passed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE skill_versions ADD COLUMN rolled_back_at INTEGER;
-- Where it comes from, as its package says.
ALTER TABLE skill_versions ADD COLUMN source TEXT;
ALTER TABLE skill_versions ADD COLUMN builder TEXT;
ALTER TABLE skill_versions ADD COLUMN operators TEXT;
ALTER TABLE skill_versions ADD COLUMN parents TEXT;
-- What is known of its calls in use: the monitor's whole state.
ALTER TABLE skill_versions ADD COLUMN live TEXT;
UPDATE skill_versions SET passed = 1 WHERE decision = 'active';

-- Of a canary: its share of the calls, since when it has it, and its reports since then.
ALTER TABLE skill_pointers ADD COLUMN share INTEGER NOT NULL DEFAULT 100;
ALTER TABLE skill_pointers ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
ALTER TABLE skill_pointers ADD COLUMN reports INTEGER NOT NULL DEFAULT 0;

-- What was done, by whom (null for king), and where the version stood afterwards.
ALTER TABLE activations ADD COLUMN action TEXT NOT NULL DEFAULT 'activated';
ALTER TABLE activations ADD COLUMN actor TEXT;
ALTER TABLE activations ADD COLUMN share INTEGER NOT NULL DEFAULT 100;
CREATE INDEX activations_by_skill ON activations (skill, id);

-- When a skill needs attention.
CREATE TABLE skill_timers (
    skill  TEXT PRIMARY KEY REFERENCES skills (name),
    due_at INTEGER NOT NULL
) STRICT;
CREATE INDEX skill_timers_due ON skill_timers (due_at);

-- How the calls of a source's skills went in its newest minute.
CREATE TABLE source_minutes (
    source  TEXT PRIMARY KEY,
    minute  INTEGER NOT NULL,
    reports REAL NOT NULL,
    bad     REAL NOT NULL
) STRICT;

-- Versions that wait, or waited, for a person.
CREATE TABLE approvals (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    skill       TEXT NOT NULL REFERENCES skills (name),
    artifact_id TEXT NOT NULL,
    version     TEXT NOT NULL,
    run_id      TEXT NOT NULL REFERENCES runs (run_id),
    risk        TEXT NOT NULL,
    incumbent   TEXT,
    reason      TEXT NOT NULL,
    status      TEXT NOT NULL,
    asked_at    INTEGER NOT NULL,
    decided_at  INTEGER,
    decided_by  TEXT,
    decided_why TEXT
) STRICT;
CREATE UNIQUE INDEX approvals_pending ON approvals (skill) WHERE status = 'pending';
CREATE INDEX approvals_by_skill ON approvals (skill, id);
CREATE INDEX approvals_by_status ON approvals (status, id);
CREATE INDEX approvals_by_run ON approvals (run_id);

-- Findings of the scan that a person has overruled, each for one package.
CREATE TABLE overrules (
    artifact_id TEXT NOT NULL,
    code        TEXT NOT NULL,
    skill       TEXT NOT NULL REFERENCES skills (name),
    by          TEXT NOT NULL,
    reason      TEXT NOT NULL,
    at          INTEGER NOT NULL,
    PRIMARY KEY (artifact_id, code)
) STRICT;
CREATE INDEX overrules_by_skill ON overrules (skill);

-- Cases made of failures in use: every later version is compared on them with the one in use.
CREATE TABLE pinned_cases (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    skill       TEXT NOT NULL REFERENCES skills (name),
    case_id     TEXT NOT NULL,
    artifact_id TEXT NOT NULL,
    body        TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    UNIQUE (skill, case_id)
) STRICT;

-- What somebody wants of Learning: a new skill, or a repair of one.
CREATE TABLE requests (
    request_id  TEXT PRIMARY KEY,
    -- `new` or `repair`.
    kind        TEXT NOT NULL,
    text        TEXT NOT NULL,
    -- Inputs with their right outputs, as a JSON list.
    examples    TEXT NOT NULL DEFAULT '[]',
    skill       TEXT,
    -- The version that is to be repaired.
    artifact_id TEXT,
    -- Names what failures have in common.
    cluster     TEXT,
    demand      REAL NOT NULL DEFAULT 1,
    -- `open`, `taken`, `done` or `dropped`.
    status      TEXT NOT NULL DEFAULT 'open',
    run_id      TEXT,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX requests_by_status ON requests (status, request_id);
CREATE UNIQUE INDEX requests_of_repair ON requests (skill, artifact_id) WHERE kind = 'repair';

ALTER TABLE skill_calls ADD COLUMN code TEXT;
-- What a failed call was made with, as JSON.
ALTER TABLE skill_calls ADD COLUMN input TEXT;

-- A person's name and reason, of what asks for them.
ALTER TABLE audit ADD COLUMN detail TEXT;

CREATE INDEX runs_by_candidate ON runs (candidate, run_id) WHERE candidate IS NOT NULL;
