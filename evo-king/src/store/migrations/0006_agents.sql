-- What an operator wants an agent to think with, and how often it broke.
ALTER TABLE agents ADD COLUMN preferred_model TEXT;
ALTER TABLE agents ADD COLUMN reasoning_effort TEXT;
ALTER TABLE agents ADD COLUMN crash_count INTEGER NOT NULL DEFAULT 0;
-- Whether the agent's session has neither said goodbye nor been counted as broken.
ALTER TABLE agents ADD COLUMN session_open INTEGER NOT NULL DEFAULT 0;

-- The newest changes of each agent's state.
CREATE TABLE agent_history (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    agent_id    TEXT NOT NULL,
    prev_status TEXT,
    new_status  TEXT NOT NULL,
    trigger     TEXT NOT NULL,
    detail      TEXT NOT NULL,
    pid         INTEGER,
    created_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX agent_history_by_agent ON agent_history (agent_id, id);
