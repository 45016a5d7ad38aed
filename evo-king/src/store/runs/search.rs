//! The full-text index of runs. It is made from the event log a little later than the runs are, so
//! that starting and ending them costs nothing more.

use std::collections::BTreeSet;

use evo_common::api::RunSummary;
use libsql::params;
use serde_json::Value;

use super::{Connection, Result, RunFilter, Store, row, views};
use crate::memory::text;

/// Events that one step looks at.
const STEP: i64 = 2_000;
/// Steps that a search waits for at most.
const MAX_STEPS: usize = 100;
/// Characters of a run that are indexed.
const MAX_TEXT: usize = 4_000;
/// The fact that says how far the index is.
const INDEXED: &str = "runs_indexed_seq";

/// What is to be indexed next.
pub(crate) struct Step {
    /// Runs that began or ended.
    runs: BTreeSet<String>,
    from: i64,
    to: i64,
    /// Whether there is more.
    more: bool,
}

pub(crate) async fn next(connection: &Connection) -> Result<Step> {
    let sql = "SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?";
    let from = row::number(connection, sql, params![INDEXED]).await?;
    let events: Vec<(i64, String, Option<String>)> = row::all(
        connection,
        "SELECT seq, kind, run_id FROM events WHERE seq > ? ORDER BY seq LIMIT ?",
        params![from, STEP],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )
    .await?;
    let more = i64::try_from(events.len()).unwrap_or(STEP) == STEP;
    let to = events.last().map_or(from, |(seq, ..)| *seq);
    let is_told =
        |kind: &str| matches!(kind, "cycle.started" | "run.started" | "cycle.ended" | "run.ended");
    let runs =
        events.into_iter().filter(|(_, kind, _)| is_told(kind)).filter_map(|(.., id)| id).collect();
    Ok(Step { runs, from, to, more })
}

/// Puts some runs into the index that began or ended since it was made; says whether there are
/// more.
pub(crate) async fn index_some(store: &Store) -> Result<bool> {
    let step = store.read(async |connection| next(connection).await).await?;
    let more = step.more;
    if step.to > step.from {
        store.write(async move |connection: &Connection| write(connection, step).await).await?;
    }
    Ok(more)
}

async fn write(connection: &Connection, step: Step) -> Result<()> {
    for run_id in &step.runs {
        index(connection, run_id).await?;
    }
    connection
        .execute(
            "INSERT INTO meta (key, value) VALUES (?1, ?2)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            params![INDEXED, step.to.to_string()],
        )
        .await?;
    Ok(())
}

pub(crate) async fn index(connection: &Connection, run_id: &str) -> Result<()> {
    let found = row::first(
        connection,
        "SELECT candidate, code, reason, trigger, 
             iif(json_valid(definition), json_extract(definition, '$.locator'), NULL)
         FROM runs WHERE run_id = ?",
        params![run_id],
        |row| {
            let mut words = run_id.to_owned();
            for column in [0, 1, 2, 4] {
                words.push('\n');
                words.push_str(&row.get::<Option<String>>(column)?.unwrap_or_default());
            }
            // What can't be read can't be found either.
            texts_of(&row::json(row, 3).unwrap_or_default(), &mut words);
            Ok(words)
        },
    )
    .await?;
    let Some(words) = found else { return Ok(()) };
    let words: String = words.chars().take(MAX_TEXT).collect();
    connection.execute("INSERT OR IGNORE INTO run_docs (run) VALUES (?)", params![run_id]).await?;
    let sql = "SELECT doc FROM run_docs WHERE run = ?";
    let doc = row::number(connection, sql, params![run_id]).await?;
    connection
        .execute(
            "INSERT OR REPLACE INTO run_fts (rowid, text) VALUES (?, ?)",
            params![doc, text::prepare(&words)],
        )
        .await?;
    Ok(())
}

/// The texts in a JSON value, one a line.
fn texts_of(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => {
            out.push('\n');
            out.push_str(text);
        }
        Value::Array(list) => list.iter().for_each(|value| texts_of(value, out)),
        Value::Object(map) => map.values().for_each(|value| texts_of(value, out)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// One run more than the page has of those that match, newest first.
pub(super) async fn page(connection: &Connection, filter: &RunFilter) -> Result<Vec<RunSummary>> {
    let query = filter.query.as_deref().unwrap_or_default();
    let Some(expression) = text::expression(query) else { return Ok(Vec::new()) };
    let before = match &filter.cursor {
        None => None,
        Some(cursor) => {
            let sql = "SELECT doc FROM run_docs WHERE run = ?";
            Some(row::number(connection, sql, params![cursor.clone()]).await?)
        }
    };
    views::found(connection, expression.all, before, filter).await
}

impl Store {
    /// Brings the index up to date, as far as that can be waited for.
    pub(crate) async fn runs_index(&self) -> Result<()> {
        for _ in 0..MAX_STEPS {
            if !index_some(self).await? {
                break;
            }
        }
        Ok(())
    }
}
