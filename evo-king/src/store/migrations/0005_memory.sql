-- What was learned from what happened. `id` is the row of the full-text index; `memory_id` is the
-- name, and grows with time. A memory with a key is the only one of its scope and agent with it.
CREATE TABLE memories (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    memory_id        TEXT NOT NULL UNIQUE,
    scope            TEXT NOT NULL,
    category         TEXT NOT NULL,
    key              TEXT NOT NULL,
    agent_id         TEXT NOT NULL,
    run_id           TEXT NOT NULL,
    skill_id         TEXT NOT NULL,
    metadata         TEXT NOT NULL,
    relevance_score  REAL NOT NULL,
    version          INTEGER NOT NULL,
    access_count     INTEGER NOT NULL,
    last_accessed_at INTEGER,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX memories_by_key ON memories (scope, agent_id, key) WHERE key <> '';
CREATE INDEX memories_by_scope ON memories (scope, memory_id);
CREATE INDEX memories_by_category ON memories (category, memory_id);
CREATE INDEX memories_by_agent ON memories (agent_id, memory_id) WHERE agent_id <> '';
CREATE INDEX memories_by_run ON memories (run_id, memory_id) WHERE run_id <> '';
CREATE INDEX memories_by_skill ON memories (skill_id, memory_id) WHERE skill_id <> '';
CREATE INDEX memories_by_change ON memories (updated_at);

-- A memory in up to three sizes: l0 a line, l1 the essential, l2 everything.
CREATE TABLE memory_tiers (
    memory_id  TEXT NOT NULL REFERENCES memories (memory_id) ON DELETE CASCADE,
    tier       TEXT NOT NULL CHECK (tier IN ('l0', 'l1', 'l2')),
    content    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (memory_id, tier)
) STRICT;

CREATE TABLE memory_tags (
    memory_id TEXT NOT NULL REFERENCES memories (memory_id) ON DELETE CASCADE,
    tag       TEXT NOT NULL,
    PRIMARY KEY (memory_id, tag)
) STRICT;
CREATE INDEX memory_tags_by_tag ON memory_tags (tag, memory_id);

-- Which memories a task has to do with.
CREATE TABLE task_memories (
    task_id    TEXT NOT NULL,
    memory_id  TEXT NOT NULL REFERENCES memories (memory_id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (task_id, memory_id)
) STRICT;
CREATE INDEX task_memories_by_memory ON task_memories (memory_id, task_id);

-- How many memories there are, so that nobody has to count them.
CREATE TABLE memory_counts (
    scope    TEXT NOT NULL,
    category TEXT NOT NULL,
    count    INTEGER NOT NULL,
    PRIMARY KEY (scope, category)
) STRICT;
CREATE TRIGGER memories_inserted AFTER INSERT ON memories BEGIN
    INSERT INTO memory_counts (scope, category, count) VALUES (new.scope, new.category, 1)
    ON CONFLICT (scope, category) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER memories_deleted AFTER DELETE ON memories BEGIN
    UPDATE memory_counts SET count = count - 1
    WHERE scope = old.scope AND category = old.category;
END;
CREATE TRIGGER memories_moved AFTER UPDATE OF category ON memories
WHEN old.category <> new.category BEGIN
    UPDATE memory_counts SET count = count - 1
    WHERE scope = old.scope AND category = old.category;
    INSERT INTO memory_counts (scope, category, count) VALUES (new.scope, new.category, 1)
    ON CONFLICT (scope, category) DO UPDATE SET count = count + 1;
END;

-- The full-text index. It holds no text of its own. The text comes prepared: Chinese, Japanese and
-- Korean characters stand apart, so that each is a word, and a phrase of them is found anywhere.
CREATE VIRTUAL TABLE memory_fts USING fts5 (
    key, tags, l0, l1, l2, details,
    content = '', contentless_delete = 1, tokenize = 'porter unicode61 remove_diacritics 2'
);

-- The first memory, so that there is one to look at.
INSERT INTO memories (id, memory_id, scope, category, key, agent_id, run_id, skill_id, metadata,
    relevance_score, version, access_count, created_at, updated_at)
VALUES (1, 'mem-evo', 'system', 'fact', 'evo:memory', '', '', '', '{}', 0.0, 1, 0,
    unixepoch() * 1000, unixepoch() * 1000);
INSERT INTO memory_tiers (memory_id, tier, content, created_at, updated_at)
VALUES ('mem-evo', 'l0', 'Evo remembers here how every operation that it tried to learn turned out.',
    unixepoch() * 1000, unixepoch() * 1000);
INSERT INTO memory_tags (memory_id, tag) VALUES ('mem-evo', 'evo');
INSERT INTO memory_fts (rowid, key, tags, l0)
VALUES (1, 'evo:memory', 'evo',
    'Evo remembers here how every operation that it tried to learn turned out.');
