-- Requests as people and failing calls make them, and what becomes of them.

DROP INDEX requests_by_status;
DROP INDEX requests_of_repair;
-- How much it is asked for: ln(demand) + time / 7 days. So what was asked for at different times can be
-- compared without a clock.
ALTER TABLE requests ADD COLUMN rank REAL NOT NULL DEFAULT 0;
UPDATE requests SET rank = updated_at / 604800000.0;
ALTER TABLE requests DROP COLUMN demand;
ALTER TABLE requests DROP COLUMN examples;
-- `person`, `telemetry` or `rollback`.
ALTER TABLE requests ADD COLUMN origin TEXT NOT NULL DEFAULT 'rollback';
-- What wants the same has the same here.
ALTER TABLE requests ADD COLUMN same TEXT;
UPDATE requests SET same = 'repair ' || skill || ' ' || artifact_id WHERE kind = 'repair';
-- `open`, `taken`, `answered`, `rejected` or `cancelled`.
UPDATE requests SET status = 'answered' WHERE status = 'done';
UPDATE requests SET status = 'cancelled' WHERE status = 'dropped';
ALTER TABLE requests ADD COLUMN asked INTEGER NOT NULL DEFAULT 1;
ALTER TABLE requests ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE requests ADD COLUMN over_budget INTEGER NOT NULL DEFAULT 0;
ALTER TABLE requests ADD COLUMN code TEXT;
ALTER TABLE requests ADD COLUMN reason TEXT;
-- What it is answered by: {skill, version, artifact_id}.
ALTER TABLE requests ADD COLUMN answer TEXT;
CREATE INDEX requests_open ON requests (over_budget DESC, rank DESC) WHERE status = 'open';
CREATE INDEX requests_by_status ON requests (status, request_id);
CREATE INDEX requests_by_kind ON requests (kind, request_id);
CREATE INDEX requests_by_same ON requests (same, request_id);
CREATE UNIQUE INDEX requests_once ON requests (same) WHERE status IN ('open', 'taken');

-- Examples of requests; which of them builders may see never changes.
CREATE TABLE request_examples (
    request_id TEXT NOT NULL REFERENCES requests (request_id),
    case_id    TEXT NOT NULL,
    split      TEXT NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (request_id, case_id)
) STRICT;

-- What makes asking happen once.
CREATE TABLE request_keys (
    idempotency_key TEXT PRIMARY KEY,
    digest          TEXT NOT NULL,
    request_id      TEXT NOT NULL REFERENCES requests (request_id),
    created         INTEGER NOT NULL,
    cycle_id        TEXT
) STRICT;
CREATE INDEX request_keys_by_request ON request_keys (request_id);

-- Runs about requests: `running`, `waiting` or `ended`.
CREATE TABLE request_runs (
    run_id     TEXT PRIMARY KEY,
    request_id TEXT NOT NULL REFERENCES requests (request_id),
    name       TEXT NOT NULL,
    state      TEXT NOT NULL,
    decision   TEXT,
    code       TEXT,
    reason     TEXT,
    at         INTEGER NOT NULL
) STRICT;
CREATE INDEX request_runs_by_request ON request_runs (request_id, run_id);

-- What happened to requests.
CREATE TABLE request_history (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL REFERENCES requests (request_id),
    at         INTEGER NOT NULL,
    action     TEXT NOT NULL,
    run_id     TEXT,
    actor      TEXT,
    code       TEXT,
    reason     TEXT
) STRICT;
CREATE INDEX request_history_by_request ON request_history (request_id, id);

-- Failing calls that have error and shape of inputs in common. There are at most as many as the
-- configuration says; the lightest go.
CREATE TABLE failure_clusters (
    cluster_id  TEXT PRIMARY KEY,
    skill       TEXT NOT NULL,
    -- The version that failed last; none for a skill that there is not.
    artifact_id TEXT,
    code        TEXT NOT NULL,
    error       TEXT NOT NULL,
    shape       TEXT NOT NULL,
    failures    INTEGER NOT NULL,
    -- As that of requests.
    rank        REAL NOT NULL,
    -- When the last ones failed since a request was made of them, as a JSON list.
    recent      TEXT NOT NULL,
    -- The request that was made of it.
    request_id  TEXT,
    first_at    INTEGER NOT NULL,
    last_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX failure_clusters_by_rank ON failure_clusters (rank);
CREATE INDEX failure_clusters_by_request ON failure_clusters (request_id, rank) WHERE request_id IS NOT NULL;

-- What models were asked in a cycle, by its run.
CREATE TABLE cycle_spending (
    run_id   TEXT PRIMARY KEY,
    calls    INTEGER NOT NULL,
    tokens   INTEGER NOT NULL,
    usd      REAL NOT NULL,
    -- Calls whose price nobody knows.
    unpriced INTEGER NOT NULL
) STRICT;
