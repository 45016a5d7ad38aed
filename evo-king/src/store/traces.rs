//! Traces and their spans. A trace's row is made anew from its spans whenever some come, so that
//! repeats and any order of arrival lead to the same.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use evo_common::{
    api::{RunKind, SpanView, TraceDetail, TraceList, TraceStatus, TraceSummary},
    messages::PipelineRunStatus,
    redact,
    tracing_context::{run_span_id, run_trace_id},
};
use libsql::{Row, Value, params};
use serde_json::json;

use super::{Connection, Result, Store, TraceFilter, row};

/// Spans that are kept of one trace at most.
const MAX_SPANS: i64 = 2_000;
/// Spans that one transaction of [`Store::traces_add`] writes. What the pipeline has to write waits
/// meanwhile.
const ADD_BATCH: usize = 128;
/// Traces that one transaction of [`Store::traces_purge`] takes away.
const PURGE_BATCH: i64 = 100;
/// Components of a trace that are listed.
const MAX_SERVICES: usize = 50;
/// The component that makes the root spans of runs.
const KING: &str = "evo-king";

/// A span that was received: checked, bounded and without secrets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewSpan {
    /// 32 hex digits.
    pub(crate) trace_id: String,
    /// 16 hex digits.
    pub(crate) span_id: String,
    pub(crate) parent_span_id: Option<String>,
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) kind: &'static str,
    /// Nanoseconds since 1970.
    pub(crate) start_ns: i64,
    /// Not before the start.
    pub(crate) end_ns: Option<i64>,
    /// `unset`, `ok`, `error` or `running`.
    pub(crate) status: &'static str,
    pub(crate) status_message: Option<String>,
    /// A JSON object.
    pub(crate) attributes: serde_json::Value,
    /// A list of JSON objects.
    pub(crate) events: serde_json::Value,
    /// The run that it says it is about.
    pub(crate) run_id: Option<String>,
}

/// Which spans are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accept {
    /// All.
    All,
    /// Those of traces that have a span already. A run's trace has its root from the beginning.
    KnownTraces,
}

/// How much is kept of traces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    /// Only traces that began then, in nanoseconds since 1970, or later.
    pub(crate) since_ns: i64,
    /// At most so many traces.
    pub(crate) traces: u32,
    /// At most so many spans.
    pub(crate) spans: u64,
}

/// Stores spans; those that are known stay as they are. Gives how many were refused because their
/// trace is full, or not known.
pub(crate) async fn add(connection: &Connection, spans: &[NewSpan], accept: Accept) -> Result<u64> {
    let mut refused = 0;
    let mut traces = BTreeMap::<&str, Vec<&NewSpan>>::new();
    for span in spans {
        traces.entry(&span.trace_id).or_default().push(span);
    }
    for (trace_id, spans) in traces {
        let mut known = count(connection, trace_id).await?;
        if known == 0 && accept == Accept::KnownTraces {
            refused += spans.len() as u64;
            continue;
        }
        for span in &spans {
            if known >= MAX_SPANS {
                refused += 1;
            } else {
                known += i64::try_from(insert(connection, span).await?).unwrap_or(0);
            }
        }
        // Whoever sends spans may say what it likes; the id of a run's trace can't be made up.
        let run_id = spans
            .iter()
            .filter_map(|span| span.run_id.as_deref())
            .find(|run_id| run_trace_id(run_id) == trace_id);
        sum_up(connection, trace_id, run_id).await?;
    }
    Ok(refused)
}

async fn count(connection: &Connection, trace_id: &str) -> Result<i64> {
    let sql = "SELECT COUNT(*) FROM spans WHERE trace_id = ?";
    row::number(connection, sql, params![trace_id]).await
}

async fn insert(connection: &Connection, span: &NewSpan) -> Result<u64> {
    let inserted = connection
        .execute(
            "INSERT OR IGNORE INTO spans (trace_id, span_id, parent_span_id, name, service, kind,
                 start_ns, end_ns, status, status_message, attributes, events)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                span.trace_id.as_str(),
                span.span_id.as_str(),
                span.parent_span_id.as_deref(),
                span.name.as_str(),
                span.service.as_str(),
                span.kind,
                span.start_ns,
                span.end_ns,
                span.status,
                span.status_message.as_deref(),
                row::to_json(&span.attributes),
                row::to_json(&span.events),
            ],
        )
        .await?;
    Ok(inserted)
}

/// Begins the trace of a run that has just been made. So the trace has its root from the beginning,
/// although the run may go on for hours and over restarts.
pub(super) async fn begin(connection: &Connection, run_id: &str) -> Result<()> {
    let Some(root) = root(connection, run_id).await? else { return Ok(()) };
    insert(connection, &root).await?;
    let status = match root.status {
        "running" => TraceStatus::Running,
        "error" => TraceStatus::Error,
        _ => TraceStatus::Ok,
    };
    // Nobody can have sent spans of a run before it had its id.
    let summed = Summed {
        run_id: root.run_id,
        root_span_id: root.span_id,
        root_name: root.name,
        status,
        span_count: 1,
        started_ns: root.start_ns,
        ended_ns: root.end_ns.unwrap_or(root.start_ns),
    };
    write(connection, &root.trace_id, summed).await
}

/// Writes the root span of a run's trace, if it has one, as the run stands now.
pub(super) async fn save_root(connection: &Connection, run_id: &str) -> Result<()> {
    let Some(root) = root(connection, run_id).await? else { return Ok(()) };
    connection
        .execute(
            "DELETE FROM spans WHERE trace_id = ? AND span_id = ?",
            params![root.trace_id.as_str(), root.span_id.as_str()],
        )
        .await?;
    insert(connection, &root).await?;
    sum_up(connection, &root.trace_id, Some(run_id)).await
}

/// The root span of a run's trace.
async fn root(connection: &Connection, run_id: &str) -> Result<Option<NewSpan>> {
    row::first(
        connection,
        "SELECT kind, candidate, parent_run_id, status, decision, code, look, artifact_id,
             king_version, created_at, updated_at
         FROM runs WHERE run_id = ? AND traced",
        params![run_id],
        |row| root_of(run_id, row),
    )
    .await
}

fn root_of(run_id: &str, row: &Row) -> Result<NewSpan> {
    let kind: RunKind = row::named(row, 0)?;
    let candidate: Option<String> = row.get(1)?;
    let parent: Option<String> = row.get(2)?;
    let status: PipelineRunStatus = row::named(row, 3)?;
    let ns = |column| Ok::<_, super::Error>(row.get::<i64>(column)?.saturating_mul(1_000_000));
    let start_ns = ns(9)?;
    let (status, end_ns) = match status {
        PipelineRunStatus::Running => ("running", None),
        PipelineRunStatus::Completed => ("ok", Some(ns(10)?.max(start_ns))),
        PipelineRunStatus::Failed | PipelineRunStatus::TimedOut => {
            ("error", Some(ns(10)?.max(start_ns)))
        }
    };
    let mut attributes = json!({
        "run.id": run_id,
        "run.kind": kind,
        "run.parent_id": parent,
        "run.parent_trace_id": parent.as_deref().map(run_trace_id),
        "run.look": row.get::<i64>(6)?,
        "skill.name": candidate,
        "artifact.id": Some(row.get::<String>(7)?).filter(|id| !id.is_empty()),
        "decision": row.get::<Option<String>>(4)?,
        "code": row.get::<Option<String>>(5)?,
        "king.version": row.get::<String>(8)?,
    });
    if let Some(attributes) = attributes.as_object_mut() {
        attributes.retain(|_, value| !value.is_null());
    }
    redact::redact_json(&mut attributes);
    Ok(NewSpan {
        trace_id: run_trace_id(run_id),
        span_id: run_span_id(run_id),
        parent_span_id: None,
        name: match (kind, candidate) {
            (_, Some(candidate)) => format!("run {candidate}"),
            (RunKind::Direct, None) => "direct run".to_owned(),
            (_, None) => "cycle".to_owned(),
        },
        service: KING.to_owned(),
        kind: "internal",
        start_ns,
        end_ns,
        status,
        status_message: None,
        attributes,
        events: json!([]),
        run_id: Some(run_id.to_owned()),
    })
}

/// The root of a trace: the run's own; else a span without a parent; else one whose parent is not
/// known (yet).
#[derive(Debug)]
struct Root {
    span_id: String,
    name: String,
    status: String,
    start_ns: i64,
}

/// What the spans of a trace add up to.
#[derive(Debug)]
struct Summed {
    run_id: Option<String>,
    root_span_id: String,
    root_name: String,
    status: TraceStatus,
    span_count: i64,
    started_ns: i64,
    ended_ns: i64,
}

/// Makes the trace's row from its spans.
async fn sum_up(connection: &Connection, trace_id: &str, run_id: Option<&str>) -> Result<()> {
    let known: Option<String> = row::first(
        connection,
        "SELECT run_id FROM traces WHERE trace_id = ?",
        params![trace_id],
        |row| Ok(row.get(0)?),
    )
    .await?
    .flatten();
    let run_id = known.or_else(|| run_id.map(ToOwned::to_owned));
    let own_root = run_id.as_deref().map(run_span_id).unwrap_or_default();
    let root = row::first(
        connection,
        "SELECT span_id, name, status, start_ns FROM spans AS span
         WHERE trace_id = ?1
           AND (parent_span_id IS NULL OR NOT EXISTS (
               SELECT 1 FROM spans AS parent
               WHERE parent.trace_id = ?1 AND parent.span_id = span.parent_span_id))
         ORDER BY span_id = ?2 DESC, parent_span_id IS NOT NULL, start_ns, span_id LIMIT 1",
        params![trace_id, own_root.as_str()],
        |row| {
            Ok(Root {
                span_id: row.get(0)?,
                name: row.get(1)?,
                status: row.get(2)?,
                start_ns: row.get(3)?,
            })
        },
    )
    .await?;
    // Spans that are each other's parents have no root.
    let root = root.unwrap_or_else(|| Root {
        span_id: String::new(),
        name: "unknown".to_owned(),
        status: String::new(),
        start_ns: 0,
    });
    let (count, started, ended, errors): (i64, i64, i64, i64) = row::first(
        connection,
        "SELECT COUNT(*), MIN(start_ns), MAX(coalesce(end_ns, start_ns)), SUM(status = 'error')
         FROM spans WHERE trace_id = ?",
        params![trace_id],
        |row| {
            let number = |column| Ok::<_, super::Error>(row.get::<Option<i64>>(column)?);
            let or_0 = |column| Ok::<_, super::Error>(number(column)?.unwrap_or(0));
            Ok((or_0(0)?, or_0(1)?, or_0(2)?, or_0(3)?))
        },
    )
    .await?
    .unwrap_or_default();
    if count == 0 {
        return Ok(());
    }
    let is_own = !root.span_id.is_empty() && root.span_id == own_root;
    // A run may succeed although an attempt failed; without its root nobody knows.
    let status = match root.status.as_str() {
        "running" => TraceStatus::Running,
        "ok" if is_own => TraceStatus::Ok,
        _ if errors > 0 => TraceStatus::Error,
        _ => TraceStatus::Ok,
    };
    // A run begins with its root, whatever the clocks of others say: traces are listed and taken
    // away by their age.
    let started_ns = if is_own { root.start_ns } else { started };
    let summed = Summed {
        run_id,
        root_span_id: root.span_id,
        root_name: root.name,
        status,
        span_count: count,
        started_ns,
        ended_ns: ended.max(started_ns),
    };
    write(connection, trace_id, summed).await
}

async fn write(connection: &Connection, trace_id: &str, summed: Summed) -> Result<()> {
    connection
        .execute(
            "INSERT OR REPLACE INTO traces (trace_id, run_id, root_span_id, root_name, status,
                 span_count, started_ns, ended_ns)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                trace_id,
                summed.run_id,
                summed.root_span_id,
                summed.root_name,
                summed.status.as_str(),
                summed.span_count,
                summed.started_ns,
                summed.ended_ns,
            ],
        )
        .await?;
    Ok(())
}

const SUMMARY: &str = "SELECT trace_id, run_id, root_name,
         (SELECT json_group_array(DISTINCT service) FROM spans
          WHERE spans.trace_id = traces.trace_id),
         status, span_count, started_ns, ended_ns
     FROM traces";

fn summary(row: &Row) -> Result<TraceSummary> {
    let (start, end) = (row.get(6)?, row.get(7)?);
    let mut services: Vec<String> = row::json(row, 3)?;
    services.truncate(MAX_SERVICES);
    Ok(TraceSummary {
        trace_id: row.get(0)?,
        run_id: row.get(1)?,
        root_span_name: row.get(2)?,
        services,
        status: row::named(row, 4)?,
        span_count: row.get(5)?,
        start_time: time_of(start),
        end_time: time_of(end),
        duration_ms: ms_between(start, end),
    })
}

/// A page of traces, newest first.
pub(super) async fn list(connection: &Connection, filter: TraceFilter) -> Result<TraceList> {
    let wanted = row::wanted(filter.offset, filter.limit);
    let (before, id) = filter.cursor.unwrap_or((i64::MAX, String::new()));
    let least_ns = filter
        .min_duration_ms
        .map(|ms| i64::try_from(ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX));
    let (sql, params) = row::Conditions::default()
        // Always there, so that the list walks along an index.
        .and_all("(started_ns, trace_id) < (?, ?)", [Value::from(before), Value::from(id)])
        .and("run_id = ?", filter.run_id)
        .and("status = ?", filter.status.map(TraceStatus::as_str))
        .and("ended_ns - started_ns >= ?", least_ns)
        .and(
            "EXISTS (SELECT 1 FROM spans
                     WHERE spans.trace_id = traces.trace_id AND service = ?)",
            filter.service,
        )
        .query(SUMMARY, "started_ns DESC, trace_id DESC", wanted);
    let mut traces =
        row::all(connection, &sql, params, |row| Ok((row.get::<i64>(6)?, summary(row)?))).await?;
    let more = row::cut(&mut traces, filter.offset, filter.limit);
    let last = traces.last().filter(|_| more);
    let next_cursor = last.map(|(started, trace)| format!("{started}-{}", trace.trace_id));
    let traces: Vec<TraceSummary> = traces.into_iter().map(|(_, trace)| trace).collect();
    Ok(TraceList { count: traces.len(), traces, next_cursor })
}

/// One trace with its spans.
pub(super) async fn get(connection: &Connection, trace_id: &str) -> Result<Option<TraceDetail>> {
    let sql = format!("{SUMMARY} WHERE trace_id = ?");
    let Some(trace) = row::first(connection, &sql, params![trace_id], summary).await? else {
        return Ok(None);
    };
    let spans = row::all(
        connection,
        "SELECT trace_id, span_id, parent_span_id, name, service, kind, start_ns, end_ns, status,
             status_message, attributes, events
         FROM spans WHERE trace_id = ? ORDER BY start_ns, parent_span_id IS NOT NULL, span_id",
        params![trace_id],
        |row| {
            let (start, end): (i64, Option<i64>) = (row.get(6)?, row.get(7)?);
            Ok(SpanView {
                trace_id: row.get(0)?,
                span_id: row.get(1)?,
                parent_span_id: row.get(2)?,
                name: row.get(3)?,
                service: row.get(4)?,
                kind: row.get(5)?,
                start_time: time_of(start),
                end_time: end.map(time_of),
                duration_ms: end.map(|end| ms_between(start, end)),
                status: row.get(8)?,
                status_message: row.get(9)?,
                attributes: row::json(row, 10)?,
                events: row::json(row, 11)?,
            })
        },
    )
    .await?;
    Ok(Some(TraceDetail { trace, spans }))
}

/// The newest trace.
pub(super) async fn latest(connection: &Connection) -> Result<Option<String>> {
    row::first(
        connection,
        "SELECT trace_id FROM traces WHERE started_ns <= ? ORDER BY started_ns DESC LIMIT 1",
        params![i64::MAX],
        |row| Ok(row.get(0)?),
    )
    .await
}

/// When the newest trace began that is not to be kept, nor any older one.
pub(super) async fn newest_to_go(connection: &Connection, keep: Keep) -> Result<i64> {
    let newest: Vec<(i64, i64)> = row::all(
        connection,
        "SELECT started_ns, span_count FROM traces WHERE started_ns <= ?
         ORDER BY started_ns DESC LIMIT ?",
        params![i64::MAX, i64::from(keep.traces) + 1],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
    .await?;
    let mut traces = 0;
    let mut spans = 0_u64;
    let excess = newest.into_iter().find_map(|(started, count)| {
        traces += 1;
        spans = spans.saturating_add(u64::try_from(count).unwrap_or(0));
        (traces > keep.traces || spans > keep.spans).then_some(started)
    });
    Ok(keep.since_ns.saturating_sub(1).max(excess.unwrap_or(i64::MIN)))
}

/// Takes away some of the traces that began at `last_ns` or before, oldest first. Gives how many.
pub(super) async fn purge(connection: &Connection, last_ns: i64) -> Result<usize> {
    let old: Vec<String> = row::all(
        connection,
        "SELECT trace_id FROM traces WHERE started_ns <= ? ORDER BY started_ns LIMIT ?",
        params![last_ns, PURGE_BATCH],
        |row| Ok(row.get(0)?),
    )
    .await?;
    for trace_id in &old {
        for sql in ["DELETE FROM spans WHERE trace_id = ?", "DELETE FROM traces WHERE trace_id = ?"]
        {
            connection.execute(sql, params![trace_id.as_str()]).await?;
        }
    }
    Ok(old.len())
}

/// `2026-01-31T12:00:00.000000Z`.
fn time_of(ns: i64) -> String {
    DateTime::<Utc>::from_timestamp_nanos(ns).to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Milliseconds, to the microsecond.
fn ms_between(start_ns: i64, end_ns: i64) -> f64 {
    (end_ns.saturating_sub(start_ns) / 1_000) as f64 / 1_000.0
}

impl Store {
    /// Stores spans, in small transactions. Gives how many were refused because their trace is full,
    /// or not known.
    pub(crate) async fn traces_add(&self, mut spans: Vec<NewSpan>, accept: Accept) -> Result<u64> {
        // Each trace is summed up once if that can be.
        spans.sort_by(|a, b| a.trace_id.cmp(&b.trace_id));
        let mut refused = 0;
        while !spans.is_empty() {
            let rest = spans.split_off(ADD_BATCH.min(spans.len()));
            let batch = std::mem::replace(&mut spans, rest);
            refused += self
                .write(async move |connection: &Connection| add(connection, &batch, accept).await)
                .await?;
        }
        Ok(refused)
    }

    /// A page of traces.
    pub async fn traces_list(&self, filter: TraceFilter) -> Result<TraceList> {
        self.read(async move |connection| list(connection, filter).await).await
    }

    /// One trace with its spans.
    pub async fn traces_get(&self, trace_id: String) -> Result<Option<TraceDetail>> {
        self.read(async move |connection| get(connection, &trace_id).await).await
    }

    /// The id of the newest trace.
    pub async fn traces_latest(&self) -> Result<Option<String>> {
        self.read(async |connection| latest(connection).await).await
    }

    /// Takes away what is not to be kept, in small transactions. Gives how many traces went.
    pub(crate) async fn traces_purge(&self, keep: Keep) -> Result<usize> {
        let last_ns =
            self.read(async move |connection| newest_to_go(connection, keep).await).await?;
        let mut gone = 0;
        loop {
            let batch = self
                .write(async move |connection: &Connection| purge(connection, last_ns).await)
                .await?;
            gone += batch;
            if i64::try_from(batch).unwrap_or(0) < PURGE_BATCH {
                return Ok(gone);
            }
        }
    }
}
