-- One row for every request that named a model.
CREATE TABLE usage (
    id INTEGER PRIMARY KEY,
    -- When it came, in milliseconds since 1970.
    at INTEGER NOT NULL,
    request_id TEXT,
    -- The virtual key's name; `operator`, `gateway` and `anybody` without one.
    key TEXT NOT NULL,
    -- The key's tags, a JSON array.
    tags TEXT NOT NULL,
    route TEXT NOT NULL,
    asked TEXT NOT NULL,
    provider TEXT,
    model TEXT,
    input_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    -- Billionths of a USD; absent when the model has no price.
    cost_nano INTEGER,
    -- Whether the provider did not count the tokens.
    estimated INTEGER NOT NULL,
    latency_us INTEGER NOT NULL,
    first_token_us INTEGER,
    status INTEGER,
    outcome TEXT NOT NULL,
    error TEXT,
    attempts INTEGER NOT NULL,
    stream INTEGER NOT NULL,
    -- `hit` or `miss`; absent when the cache had no part in it.
    cache TEXT,
    run_id TEXT,
    stage TEXT
) STRICT;

-- With all that the sums of budgets are made from.
CREATE INDEX usage_by_time ON usage (at, key, cost_nano);
CREATE INDEX usage_by_key ON usage (key, at);
CREATE INDEX usage_by_run ON usage (run_id) WHERE run_id IS NOT NULL;
