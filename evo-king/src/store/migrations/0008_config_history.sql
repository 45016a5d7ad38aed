-- History of the gateway's configuration. A row is `pending` from before the first step of a change
-- until its end, so that a king that was killed on the way knows what it was about.
CREATE TABLE config_history (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    config_type TEXT NOT NULL,
    config_hash TEXT NOT NULL,
    previous_hash TEXT,
    action TEXT NOT NULL,
    who TEXT NOT NULL,
    outcome TEXT NOT NULL,
    code TEXT,
    reason TEXT,
    diff TEXT NOT NULL,
    warnings TEXT NOT NULL,
    backup_path TEXT,
    rejected_path TEXT,
    created_at INTEGER NOT NULL,
    finished_at INTEGER
) STRICT;

CREATE INDEX config_history_pending ON config_history (id) WHERE outcome = 'pending';
