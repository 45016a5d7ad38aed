-- Tasks, their logs and subtasks. A run's task has no state of its own (`state`, `phase` and
-- `status` are null): it is as its run is, and its id follows from the run's. Every other task's
-- `state` is the state machine's whole state as JSON; the columns beside it exist to be searched.
CREATE TABLE tasks (
    task_id            TEXT PRIMARY KEY,
    parent_id          TEXT REFERENCES tasks (task_id),
    -- How many tasks are above it.
    depth              INTEGER NOT NULL DEFAULT 0,
    task_type          TEXT NOT NULL,
    run_id             TEXT,
    -- Who has it, had it last, or is to have it.
    agent_id           TEXT,
    -- Who is to have it; null for whoever is free.
    wanted             TEXT,
    summary            TEXT NOT NULL DEFAULT '',
    payload            TEXT NOT NULL DEFAULT '{}',
    limits             TEXT,
    model              TEXT,
    state              TEXT,
    phase              TEXT,
    status             TEXT,
    current_stage      TEXT NOT NULL DEFAULT '',
    -- Not given out before this moment.
    not_before         INTEGER,
    -- When it needs attention: its lease, its deadline, or that of what was asked about it.
    due_at             INTEGER,
    -- What an evaluation runner was asked about it, as JSON.
    question           TEXT,
    result             TEXT,
    error              TEXT,
    work               TEXT,
    evaluation         TEXT,
    -- What it wrote while it was at work, as far as it is kept.
    output             TEXT NOT NULL DEFAULT '',
    -- The attempt whose report was applied last, and the report's digest.
    applied_attempt    INTEGER,
    applied_digest     TEXT,
    idempotency_key    TEXT,
    idempotency_digest TEXT,
    created_at         INTEGER NOT NULL,
    updated_at         INTEGER NOT NULL,
    ended_at           INTEGER
) STRICT;
CREATE INDEX tasks_waiting ON tasks (wanted, task_id) WHERE phase = 'waiting';
CREATE INDEX tasks_leased ON tasks (agent_id) WHERE phase = 'leased';
CREATE INDEX tasks_evaluating ON tasks (task_id) WHERE phase = 'evaluating';
CREATE INDEX tasks_asked ON tasks (task_id) WHERE question IS NOT NULL;
CREATE INDEX tasks_due ON tasks (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX tasks_by_status ON tasks (status, task_id) WHERE status IS NOT NULL;
CREATE INDEX tasks_by_parent ON tasks (parent_id, task_id) WHERE parent_id IS NOT NULL;
CREATE INDEX tasks_by_agent ON tasks (agent_id, task_id) WHERE agent_id IS NOT NULL;
CREATE INDEX tasks_by_end ON tasks (ended_at) WHERE ended_at IS NOT NULL;
CREATE UNIQUE INDEX tasks_by_key ON tasks (idempotency_key) WHERE idempotency_key IS NOT NULL;

-- What happened to a task. The log of a run's task is the run's part of the event log.
CREATE TABLE task_logs (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id    TEXT NOT NULL,
    level      TEXT NOT NULL,
    message    TEXT NOT NULL,
    detail     TEXT NOT NULL DEFAULT '',
    agent_id   TEXT NOT NULL DEFAULT '',
    stage      TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX task_logs_by_task ON task_logs (task_id, id);
