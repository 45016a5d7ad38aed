-- What the bridge knows of king's log and of itself: engine_id, cursor, anchor, generation.
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- Every run that was ever seen, so that none is told twice. `facts` is cut down at its end.
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY,
    task_id TEXT,
    decision TEXT,
    ended INTEGER NOT NULL DEFAULT 0,
    facts TEXT NOT NULL,
    next_ordinal INTEGER NOT NULL DEFAULT 0,
    -- Which reading of king's log saw it last.
    generation INTEGER NOT NULL,
    -- When its next delivery may be tried, in Unix milliseconds; null when none waits.
    due_at INTEGER
) STRICT;

CREATE INDEX runs_due ON runs (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX runs_task ON runs (task_id, decision);
CREATE INDEX runs_open ON runs (generation) WHERE ended = 0;

-- What is to be delivered. Within a run strictly by ordinal; the body never changes but by degrading.
CREATE TABLE deliveries (
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    ordinal INTEGER NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    -- waiting, sending (perhaps arrived), done, parked
    state TEXT NOT NULL DEFAULT 'waiting',
    tries INTEGER NOT NULL DEFAULT 0,
    -- How often something was taken out of the body.
    degraded INTEGER NOT NULL DEFAULT 0,
    next_at INTEGER NOT NULL,
    reason TEXT,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (run_id, ordinal),
    UNIQUE (run_id, key)
) STRICT;

CREATE INDEX deliveries_open ON deliveries (run_id, ordinal) WHERE state IN ('waiting', 'sending');
CREATE INDEX deliveries_parked ON deliveries (updated_at) WHERE state = 'parked';
CREATE INDEX deliveries_done ON deliveries (updated_at) WHERE state = 'done';
