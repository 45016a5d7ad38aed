-- One row per trace, always what its spans add up to. Times are nanoseconds since 1970.
CREATE TABLE traces (
    trace_id     TEXT PRIMARY KEY,
    -- The run that this is the trace of.
    run_id       TEXT,
    root_span_id TEXT NOT NULL,
    root_name    TEXT NOT NULL,
    -- `running`, `ok` or `error`.
    status       TEXT NOT NULL,
    span_count   INTEGER NOT NULL,
    started_ns   INTEGER NOT NULL,
    ended_ns     INTEGER NOT NULL
) STRICT;
CREATE INDEX traces_by_start ON traces (started_ns, trace_id);
CREATE INDEX traces_by_status ON traces (status, started_ns, trace_id);
CREATE INDEX traces_by_run ON traces (run_id) WHERE run_id IS NOT NULL;

-- One row per span, as it came in first; the root span of a run is king's own.
CREATE TABLE spans (
    trace_id       TEXT NOT NULL,
    span_id        TEXT NOT NULL,
    parent_span_id TEXT,
    name           TEXT NOT NULL,
    service        TEXT NOT NULL,
    kind           TEXT NOT NULL,
    start_ns       INTEGER NOT NULL,
    -- Null while the span has not ended.
    end_ns         INTEGER,
    status         TEXT NOT NULL,
    status_message TEXT,
    attributes     TEXT NOT NULL,
    events         TEXT NOT NULL,
    PRIMARY KEY (trace_id, span_id)
) STRICT;
CREATE INDEX spans_by_service ON spans (trace_id, service);
