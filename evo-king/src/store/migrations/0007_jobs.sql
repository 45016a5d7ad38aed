-- Jobs by the clock. `due_at` is when it runs next; null while it is off.
CREATE TABLE cron_jobs (
    name        TEXT PRIMARY KEY,
    -- What it does.
    job         TEXT NOT NULL,
    description TEXT NOT NULL,
    schedule    TEXT NOT NULL,
    timezone    TEXT NOT NULL,
    enabled     INTEGER NOT NULL,
    -- What becomes of a moment at which king was not there: `skip` or `run_once`.
    missed      TEXT NOT NULL,
    params      TEXT NOT NULL,
    -- It is king's own: it can be changed and not deleted.
    builtin     INTEGER NOT NULL,
    due_at      INTEGER,
    last_run    INTEGER,
    -- `running`, `ok`, `failed`, `interrupted` or `skipped`.
    last_status TEXT,
    last_error  TEXT,
    last_result TEXT,
    run_count   INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX cron_jobs_due ON cron_jobs (due_at) WHERE due_at IS NOT NULL;

-- Messages over Socket.IO, cut to a bound; not those of the hot path, which the event log has.
CREATE TABLE socket_events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    -- `inbound` or `outbound`.
    direction  TEXT NOT NULL,
    event_name TEXT NOT NULL,
    agent_id   TEXT,
    socket_id  TEXT NOT NULL,
    payload    TEXT NOT NULL
) STRICT;
CREATE INDEX socket_events_by_agent ON socket_events (agent_id, id) WHERE agent_id IS NOT NULL;
CREATE INDEX socket_events_by_event ON socket_events (event_name, id);

-- For the retention: what refers to a run or to a package.
CREATE INDEX runs_by_fork ON runs (forked_from) WHERE forked_from IS NOT NULL;
CREATE INDEX runs_by_retry ON runs (retried_by) WHERE retried_by IS NOT NULL;
CREATE INDEX runs_by_artifact ON runs (artifact_id) WHERE artifact_id <> '';
CREATE INDEX stages_by_artifact ON stages (artifact_id) WHERE artifact_id <> '';
CREATE INDEX skills_by_run ON skills (run_id);
CREATE INDEX skill_versions_by_run ON skill_versions (run_id);
CREATE INDEX skill_versions_by_artifact ON skill_versions (artifact_id);
