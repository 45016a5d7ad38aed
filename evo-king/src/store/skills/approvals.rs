//! Versions that wait for a person, and findings that a person has overruled.

use evo_common::{
    api::{ApprovalList, ApprovalView, RiskClass},
    clock::Timestamp,
};
use libsql::{Row, params};

use super::{Connection, Result, row};

/// A version that is to wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewApproval<'a> {
    pub(crate) skill: &'a str,
    pub(crate) artifact_id: &'a str,
    pub(crate) version: &'a str,
    pub(crate) run_id: &'a str,
    pub(crate) risk: RiskClass,
    /// The version in use that it was measured against.
    pub(crate) incumbent: Option<&'a str>,
    pub(crate) reason: &'a str,
}

/// A version waits for a person. No other one of the skill may wait.
pub(crate) async fn ask(
    connection: &Connection,
    now: Timestamp,
    new: NewApproval<'_>,
) -> Result<()> {
    connection
        .execute(
            "INSERT INTO approvals (skill, artifact_id, version, run_id, risk, incumbent, reason,
                 status, asked_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, 'pending', ?)",
            params![
                new.skill,
                new.artifact_id,
                new.version,
                new.run_id,
                new.risk.as_str(),
                new.incumbent,
                new.reason,
                now.0
            ],
        )
        .await?;
    Ok(())
}

/// What waits of a skill waits no more.
pub(crate) async fn supersede(
    connection: &Connection,
    now: Timestamp,
    skill: &str,
    why: &str,
) -> Result<()> {
    connection
        .execute(
            "UPDATE approvals SET status = 'superseded', decided_at = ?2, decided_why = ?3
             WHERE skill = ?1 AND status = 'pending'",
            params![skill, now.0, why],
        )
        .await?;
    Ok(())
}

/// A person has decided.
pub(crate) async fn decide(
    connection: &Connection,
    now: Timestamp,
    id: i64,
    status: &str,
    by: &str,
    why: &str,
) -> Result<()> {
    connection
        .execute(
            "UPDATE approvals SET status = ?2, decided_at = ?3, decided_by = ?4, decided_why = ?5
             WHERE id = ?1",
            params![id, status, now.0, by, why],
        )
        .await?;
    Ok(())
}

const COLUMNS: &str = "SELECT id, skill, version, artifact_id, risk, incumbent, reason, run_id,
    status, asked_at, decided_at, decided_by, decided_why FROM approvals";

fn read(row: &Row) -> Result<ApprovalView> {
    Ok(ApprovalView {
        id: row.get(0)?,
        skill: row.get(1)?,
        version: row.get(2)?,
        artifact_id: row.get(3)?,
        risk: row::named::<RiskClass>(row, 4)?,
        incumbent: row.get(5)?,
        reason: row.get(6)?,
        run_id: row.get(7)?,
        status: row.get(8)?,
        asked_at: row::moment(row, 9)?,
        decided_at: row.get::<Option<i64>>(10)?.map(|at| Timestamp(at).to_rfc3339()),
        decided_by: row.get(11)?,
        decided_why: row.get(12)?,
    })
}

/// The newest version of a skill that waits, or waited.
pub(crate) async fn newest(connection: &Connection, skill: &str) -> Result<Option<ApprovalView>> {
    let sql = format!("{COLUMNS} WHERE skill = ? ORDER BY id DESC LIMIT 1");
    row::first(connection, &sql, params![skill], read).await
}

/// A page of approvals, newest first.
pub(crate) async fn list(
    connection: &Connection,
    status: Option<String>,
    before: Option<i64>,
    limit: u32,
) -> Result<ApprovalList> {
    let (sql, params) = row::Conditions::default()
        .and("status = ?", status)
        .and("id < ?", before)
        .query(COLUMNS, "id DESC", i64::from(limit) + 1);
    let mut approvals = row::all(connection, &sql, params, read).await?;
    let more = row::cut(&mut approvals, 0, limit);
    let next_cursor = more.then(|| approvals.last().map(|last| last.id.to_string())).flatten();
    Ok(ApprovalList { count: approvals.len(), approvals, next_cursor })
}

/// A person overrules a finding for one package; false when one had before.
pub(crate) async fn overrule(
    connection: &Connection,
    now: Timestamp,
    skill: &str,
    artifact_id: &str,
    code: &str,
    by: &str,
    reason: &str,
) -> Result<bool> {
    let inserted = connection
        .execute(
            "INSERT OR IGNORE INTO overrules (artifact_id, code, skill, by, reason, at)
             VALUES (?, ?, ?, ?, ?, ?)",
            params![artifact_id, code, skill, by, reason, now.0],
        )
        .await?;
    Ok(inserted == 1)
}

/// Codes of the findings that a person has overruled for a package.
pub(crate) async fn overruled(connection: &Connection, artifact_id: &str) -> Result<Vec<String>> {
    row::all(
        connection,
        "SELECT code FROM overrules WHERE artifact_id = ? ORDER BY code",
        params![artifact_id],
        |row| Ok(row.get(0)?),
    )
    .await
}
