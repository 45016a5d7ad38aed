//! What calls of skills in use came to.

use evo_common::{
    api::{SkillCallList, SkillCallView},
    case::Case,
    clock::Timestamp,
    evidence::Evidence,
    messages::{SkillCall, SkillResult},
};
use libsql::params;
use serde_json::{Map, Value};

use super::{Connection, Result, row};
use crate::skills::monitor::{Minute, Monitor};

/// Pinned cases that are kept of a skill, the newest.
const MAX_PINNED: i64 = 50;

/// What a report about a skill depends on.
#[derive(Debug, Clone)]
pub(crate) struct Called {
    pub(crate) source: String,
    /// How the calls of all its versions went in its newest minute.
    pub(crate) minute: Minute,
}

/// A skill that king knows, for a report about it.
pub(crate) async fn called(connection: &Connection, skill: &str) -> Result<Option<Called>> {
    row::first(
        connection,
        "SELECT source, minute, minute_reports, minute_bad FROM skills WHERE name = ?",
        params![skill],
        |row| {
            let minute = Minute { minute: row.get(1)?, reports: row.get(2)?, bad: row.get(3)? };
            Ok(Called { source: row.get(0)?, minute })
        },
    )
    .await
}

/// Keeps a reported call; false when it had been reported before.
pub(crate) async fn insert_call(
    connection: &Connection,
    now: Timestamp,
    call: &SkillCall,
) -> Result<bool> {
    let (result, detail) = match &call.report.result {
        SkillResult::Success => ("success", None),
        SkillResult::Failure(message) => ("failure", Some(message.as_str())),
        SkillResult::Partial(message) => ("partial", Some(message.as_str())),
    };
    let inserted = connection
        .execute(
            "INSERT OR IGNORE INTO skill_calls
                 (req_id, skill, artifact_id, agent_id, result, detail, latency_ms, cost_usd, at,
                  code, input)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                call.req_id.as_deref(),
                call.report.skill_id.as_str(),
                call.artifact_id.as_deref(),
                call.report.agent_id.as_str(),
                result,
                detail,
                call.latency_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
                call.cost_usd,
                now.0,
                call.code.as_deref(),
                call.input.as_ref().map(row::to_json),
            ],
        )
        .await?;
    Ok(inserted == 1)
}

/// A skill was called.
pub(crate) async fn count_call(
    connection: &Connection,
    now: Timestamp,
    skill: &str,
    cost_usd: f64,
    minute: Minute,
) -> Result<()> {
    connection
        .execute(
            "UPDATE skills SET calls = calls + 1, calls_usd = calls_usd + ?2, last_used_at = ?3,
                 minute = ?4, minute_reports = ?5, minute_bad = ?6
             WHERE name = ?1",
            params![skill, cost_usd, now.0, minute.minute, minute.reports, minute.bad],
        )
        .await?;
    Ok(())
}

/// What is known of a version's calls; as new when there were none. `None` for one that king has not
/// made.
pub(crate) async fn monitor(
    connection: &Connection,
    skill: &str,
    artifact_id: &str,
) -> Result<Option<Monitor>> {
    row::first(
        connection,
        "SELECT live, evidence FROM skill_versions WHERE skill = ? AND artifact_id = ?",
        params![skill, artifact_id],
        |row| {
            if let Some(monitor) = row::optional_json(row, 0)? {
                return Ok(monitor);
            }
            let evidence: Option<Evidence> = row::optional_json(row, 1)?;
            Ok(Monitor::new(evidence.unwrap_or_default().holdout))
        },
    )
    .await
}

/// Writes what is known of a version's calls.
pub(crate) async fn save_monitor(
    connection: &Connection,
    skill: &str,
    artifact_id: &str,
    monitor: &Monitor,
) -> Result<()> {
    connection
        .execute(
            "UPDATE skill_versions SET live = ? WHERE skill = ? AND artifact_id = ?",
            params![row::to_json(monitor), skill, artifact_id],
        )
        .await?;
    Ok(())
}

/// How the calls of a source's skills went in its newest minute.
pub(crate) async fn source_minute(connection: &Connection, source: &str) -> Result<Option<Minute>> {
    row::first(
        connection,
        "SELECT minute, reports, bad FROM source_minutes WHERE source = ?",
        params![source],
        |row| Ok(Minute { minute: row.get(0)?, reports: row.get(1)?, bad: row.get(2)? }),
    )
    .await
}

/// Writes how the calls of a source's skills went in its newest minute.
pub(crate) async fn save_source_minute(
    connection: &Connection,
    source: &str,
    minute: Minute,
) -> Result<()> {
    connection
        .execute(
            "INSERT OR REPLACE INTO source_minutes (source, minute, reports, bad)
             VALUES (?, ?, ?, ?)",
            params![source, minute.minute, minute.reports, minute.bad],
        )
        .await?;
    Ok(())
}

/// A call that failed, with what it was called with.
#[derive(Debug, Clone)]
pub(crate) struct FailedCall {
    pub(crate) code: String,
    pub(crate) detail: String,
    pub(crate) input: Option<Map<String, Value>>,
}

/// The newest failed calls of a version, among the newest calls of its skill.
pub(crate) async fn failed_calls(
    connection: &Connection,
    skill: &str,
    artifact_id: &str,
) -> Result<Vec<FailedCall>> {
    let calls = row::all(
        connection,
        "SELECT artifact_id, result, code, detail, input FROM skill_calls
         WHERE skill = ? ORDER BY id DESC LIMIT 500",
        params![skill],
        |row| {
            let failed = row.get::<String>(1)? == "failure";
            let of: Option<String> = row.get(0)?;
            let call = FailedCall {
                code: row.get::<Option<String>>(2)?.unwrap_or_else(|| "failed".to_owned()),
                detail: row.get::<Option<String>>(3)?.unwrap_or_default(),
                input: row::optional_json(row, 4)?,
            };
            Ok((failed && of.is_none_or(|of| of == artifact_id)).then_some(call))
        },
    )
    .await?;
    Ok(calls.into_iter().flatten().collect())
}

/// Keeps a case for all later versions; the same one again is nothing new.
pub(crate) async fn pin_case(
    connection: &Connection,
    now: Timestamp,
    skill: &str,
    artifact_id: &str,
    case: &Case,
) -> Result<bool> {
    let inserted = connection
        .execute(
            "INSERT OR IGNORE INTO pinned_cases (skill, case_id, artifact_id, body, created_at)
             VALUES (?, ?, ?, ?, ?)",
            params![skill, case.case_id.as_str(), artifact_id, row::to_json(case), now.0],
        )
        .await?;
    connection
        .execute(
            "DELETE FROM pinned_cases WHERE skill = ?1 AND case_id IN
                 (SELECT case_id FROM pinned_cases WHERE skill = ?1
                  ORDER BY created_at DESC, id DESC LIMIT -1 OFFSET ?2)",
            params![skill, MAX_PINNED],
        )
        .await?;
    Ok(inserted == 1)
}

/// The cases that are kept for all later versions of a skill, the newest first.
pub(crate) async fn pinned_cases(connection: &Connection, skill: &str) -> Result<Vec<Case>> {
    row::all(
        connection,
        "SELECT body FROM pinned_cases WHERE skill = ? ORDER BY created_at DESC, id DESC",
        params![skill],
        |row| row::json(row, 0),
    )
    .await
}

/// A page of a skill's calls, newest first.
pub(crate) async fn calls(
    connection: &Connection,
    skill: &str,
    before: Option<i64>,
    limit: u32,
) -> Result<SkillCallList> {
    let mut calls = row::all(
        connection,
        "SELECT id, at, artifact_id, agent_id, result, code, detail, latency_ms, cost_usd
         FROM skill_calls WHERE skill = ? AND id < ? ORDER BY id DESC LIMIT ?",
        params![skill, before.unwrap_or(i64::MAX), i64::from(limit) + 1],
        |row| {
            Ok(SkillCallView {
                id: row.get(0)?,
                at: row::moment(row, 1)?,
                artifact_id: row.get(2)?,
                agent_id: row.get(3)?,
                result: row.get(4)?,
                code: row.get(5)?,
                detail: row.get(6)?,
                latency_ms: row.get::<Option<u64>>(7)?,
                cost_usd: row.get(8)?,
            })
        },
    )
    .await?;
    let more = row::cut(&mut calls, 0, limit);
    let next_cursor = more.then(|| calls.last().map(|call| call.id.to_string())).flatten();
    Ok(SkillCallList { count: calls.len(), calls, next_cursor })
}
