//! Rows that can't be read: found, and brought back to something that can be read. What such a row
//! means for whatever it belongs to is decided where that is kept.

use evo_common::{
    api::{RunKind, TaskVerdict, TaskWork},
    clock::Timestamp,
    config::SourceConfig,
    evidence::Evidence,
    messages::{ModelPreference, PipelineRunStatus, PipelineStage, TaskLimits},
    stage::Candidate,
};
use libsql::{Row, params};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Connection, Error, Result, Unreadable, events, row, tasks::Question};
use crate::{pipeline::state::RunState, tasks::state::TaskState};

/// Most bytes of a damaged text that are kept for whoever looks into it.
const SHOWN: usize = 2_000;

/// A table whose rows hold texts that must have a form.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    key: &'static str,
    columns: &'static [Column],
}

/// Such a text.
struct Column {
    name: &'static str,
    /// Why a text can't be read, if so.
    fault: fn(&str) -> Option<String>,
    /// What takes the place of one that can't be read.
    instead: Option<&'static str>,
}

const fn json_of<T: DeserializeOwned>(name: &'static str) -> Column {
    Column { name, fault: json_fault::<T>, instead: None }
}

const fn word_of<T: DeserializeOwned>(name: &'static str, instead: &'static str) -> Column {
    Column { name, fault: word_fault::<T>, instead: Some(instead) }
}

const fn object(name: &'static str) -> Column {
    Column { name, fault: json_fault::<Value>, instead: Some("{}") }
}

fn json_fault<T: DeserializeOwned>(text: &str) -> Option<String> {
    serde_json::from_str::<T>(text).err().map(|error| error.to_string())
}

fn word_fault<T: DeserializeOwned>(text: &str) -> Option<String> {
    let word = Value::String(text.to_owned());
    serde_json::from_value::<T>(word).err().map(|_| "it is no word that is known".to_owned())
}

pub(crate) const TASKS: Table = Table {
    name: "tasks",
    key: "task_id",
    columns: &[
        json_of::<TaskState>(STATE),
        object("payload"),
        json_of::<TaskLimits>("limits"),
        json_of::<ModelPreference>("model"),
        json_of::<Question>("question"),
        json_of::<Value>("result"),
        json_of::<TaskWork>("work"),
        json_of::<TaskVerdict>("evaluation"),
    ],
};

/// A run whose state can't be read counts as one that waits for its first stage, until whoever
/// mends it says how it ends.
pub(crate) const RUNS: Table = Table {
    name: "runs",
    key: "run_id",
    columns: &[
        Column {
            name: STATE,
            fault: json_fault::<RunState>,
            instead: Some(
                r#"{"phase":"waiting","stage":"learning","attempt":1,"tries":{"failed":0,"lost":0},"not_before":0}"#,
            ),
        },
        word_of::<RunKind>("kind", "direct"),
        word_of::<PipelineStage>("stage", "learning"),
        word_of::<PipelineRunStatus>("status", "failed"),
        json_of::<Candidate>("definition"),
        json_of::<SourceConfig>("source"),
        object("trigger"),
        json_of::<Evidence>("evidence"),
    ],
};

const OUTBOX: Table = Table { name: "outbox", key: "id", columns: &[object("payload")] };

const STAGES: Table =
    Table { name: "stages", key: "run_id", columns: &[json_of::<Value>("output")] };

pub(crate) const JOBS: Table = Table {
    name: "cron_jobs",
    key: "name",
    columns: &[object("params"), json_of::<Value>("last_result")],
};

const MEMORIES: Table =
    Table { name: "memories", key: "memory_id", columns: &[json_of::<Value>("metadata")] };

const EVENTS: Table = Table { name: "events", key: "seq", columns: &[json_of::<Value>("payload")] };

/// Every table that a check looks at.
pub(super) const ALL: [&Table; 7] = [&TASKS, &RUNS, &STAGES, &OUTBOX, &JOBS, &MEMORIES, &EVENTS];

/// The column of a task's or run's state.
pub(crate) const STATE: &str = "state";

/// A text that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) column: &'static str,
    /// Why it can't be read.
    pub(crate) fault: String,
    /// The beginning of it.
    pub(crate) text: String,
    instead: Option<&'static str>,
}

impl Table {
    fn select(&self) -> String {
        let columns: Vec<&str> = self.columns.iter().map(|column| column.name).collect();
        let Self { name, key, .. } = self;
        format!("SELECT CAST({key} AS TEXT), {} FROM {name}", columns.join(", "))
    }

    fn damages(&self, row: &Row) -> Result<Vec<Damage>> {
        let mut damages = Vec::new();
        for (place, column) in (1..).zip(self.columns) {
            let Some(text) = row.get::<Option<String>>(place)? else { continue };
            if let Some(fault) = (column.fault)(&text) {
                let text = text[..text.floor_char_boundary(SHOWN)].to_owned();
                let Column { name, instead, .. } = *column;
                damages.push(Damage { column: name, fault, text, instead });
            }
        }
        Ok(damages)
    }

    /// The rows that can't be read, at most so many.
    pub(super) async fn unreadable(
        &self,
        connection: &Connection,
        most: usize,
    ) -> Result<Vec<Unreadable>> {
        let mut found = Vec::new();
        let each = |row: &Row| {
            let damages = self.damages(row)?;
            if !damages.is_empty() && found.len() < most {
                let (table, id) = (self.name, row.get(0)?);
                found.push(Unreadable { table, id, reason: told(&damages) });
            }
            Ok(std::ops::ControlFlow::Continue(()))
        };
        connection.query(&self.select(), (), each).await?;
        Ok(found)
    }

    /// Takes what can't be read out of a row, and gives it.
    pub(crate) async fn repair(&self, connection: &Connection, id: &str) -> Result<Vec<Damage>> {
        let Self { name, key, .. } = self;
        let sql = format!("{} WHERE {key} = ?", self.select());
        let found = row::first(connection, &sql, params![id], |row| self.damages(row)).await?;
        let damages = found.unwrap_or_default();
        for Damage { column, instead, .. } in &damages {
            let sql = format!("UPDATE {name} SET {column} = ? WHERE {key} = ?");
            connection.execute(&sql, params![*instead, id]).await?;
        }
        Ok(damages)
    }
}

/// What is wrong with a row, in words.
pub(crate) fn told(damages: &[Damage]) -> String {
    let each: Vec<String> = damages
        .iter()
        .map(|Damage { column, fault, .. }| format!("column `{column}`: {fault}"))
        .collect();
    each.join("; ")
}

/// What stood in a row, for whoever looks into it.
pub(crate) fn remains(damages: &[Damage]) -> String {
    let each: Vec<String> =
        damages.iter().map(|Damage { column, text, .. }| format!("{column}: {text}")).collect();
    each.join("\n")
}

/// Takes away what can't be read of a run's stages.
pub(crate) async fn repair_stages(connection: &Connection, run_id: &str) -> Result<u64> {
    let sql = "UPDATE stages SET output = NULL WHERE run_id = ? AND NOT json_valid(output)";
    Ok(connection.execute(sql, params![run_id]).await?)
}

/// An effect that can't be read can't be delivered: it is taken out, and the log says so.
pub(crate) async fn drop_effect(
    connection: &Connection,
    now: Timestamp,
    bad: &Unreadable,
) -> Result<bool> {
    let gone = connection
        .execute("DELETE FROM outbox WHERE id = CAST(? AS INTEGER)", params![bad.id.as_str()])
        .await?;
    if gone > 0 {
        let payload = json!({"code": Unreadable::CODE, "id": bad.id, "reason": bad.reason});
        events::append(connection, now, "effect.dropped", None, None, &payload).await?;
    }
    Ok(gone > 0)
}

/// How many tries a task has had at most: each has a line in its log.
pub(crate) async fn tries_of_task(connection: &Connection, task_id: &str) -> Result<u32> {
    let sql = "SELECT COUNT(*) FROM task_logs WHERE task_id = ?";
    let lines = row::number(connection, sql, params![task_id]).await?;
    Ok(u32::try_from(lines).unwrap_or(u32::MAX - 1))
}

/// A run's attempt as the columns beside its state have it: agent, stage and try.
pub(crate) async fn leased_attempt(
    connection: &Connection,
    run_id: &str,
) -> Result<Option<(String, PipelineStage, u32)>> {
    let sql = "SELECT agent_id, stage, attempt FROM runs
               WHERE run_id = ? AND phase = 'leased' AND agent_id IS NOT NULL";
    row::first(connection, sql, params![run_id], |row| {
        Ok((row.get(0)?, row::parsed(row, 1)?, row.get(2)?))
    })
    .await
}

impl Error {
    /// The same, of this row.
    pub(crate) fn about(self, table: &Table, id: &str) -> Self {
        match self {
            Self::Corrupt(reason) => {
                Self::Unreadable(Unreadable { table: table.name, id: id.to_owned(), reason })
            }
            other => other,
        }
    }

    /// The row that can't be read, if that is what is wrong.
    pub(crate) fn unreadable(&self) -> Option<&Unreadable> {
        match self {
            Self::Unreadable(row) => Some(row),
            _ => None,
        }
    }
}

/// An effect's payload that can't be read.
pub(super) fn of_effect(error: Error, id: i64) -> Error {
    error.about(&OUTBOX, &id.to_string())
}
