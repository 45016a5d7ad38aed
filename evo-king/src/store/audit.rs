//! The audit log: every call that changes something.

use evo_common::{
    api::{AuditEntry, AuditList},
    clock::Timestamp,
};
use libsql::params;

use super::{AuditFilter, Connection, Result, Store, row};
use crate::access::{Identity, Remote};

/// Longest target that is kept.
const MAX_TARGET: usize = 512;

/// A row of the audit log to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditRow {
    pub(crate) at: Timestamp,
    pub(crate) token_id: String,
    pub(crate) token_name: String,
    pub(crate) scope: &'static str,
    pub(crate) action: String,
    pub(crate) target: String,
    pub(crate) status: u16,
    pub(crate) remote: String,
    pub(crate) request_id: String,
    /// What whoever did it said about it.
    pub(crate) detail: Option<String>,
}

impl AuditRow {
    /// A row of what is about to be done now, without its status.
    pub(crate) fn new(
        identity: &Identity,
        remote: Option<Remote>,
        action: String,
        target: &str,
        request_id: String,
    ) -> Self {
        Self {
            at: Timestamp::now(),
            token_id: identity.token_id.clone(),
            token_name: identity.name.clone(),
            scope: identity.scope.as_str(),
            action,
            target: bounded(target),
            status: 0,
            remote: remote.map_or_else(|| "unknown".to_owned(), |Remote(at)| at.to_string()),
            request_id,
            detail: None,
        }
    }

    /// Says what it is done to.
    pub(crate) fn set_target(&mut self, target: &str) {
        self.target = bounded(target);
    }
}

fn bounded(target: &str) -> String {
    target[..target.floor_char_boundary(MAX_TARGET)].to_owned()
}

/// Appends to the audit log.
pub(crate) async fn append(connection: &Connection, row: &AuditRow) -> Result<()> {
    connection
        .execute(
            "INSERT INTO audit
                 (at, token_id, token_name, scope, action, target, status, remote, request_id,
                  detail)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                row.at.0,
                row.token_id.as_str(),
                row.token_name.as_str(),
                row.scope,
                row.action.as_str(),
                row.target.as_str(),
                row.status,
                row.remote.as_str(),
                row.request_id.as_str(),
                row.detail.as_deref(),
            ],
        )
        .await?;
    Ok(())
}

/// A page of the audit log, newest first.
pub(crate) async fn list(connection: &Connection, filter: AuditFilter) -> Result<AuditList> {
    let (sql, params) = row::Conditions::default()
        .and("id < ?", filter.cursor)
        .and("token_id = ?", filter.token_id)
        // The log grows with time: whatever came since begins at the first entry since.
        .and(
            "id >= coalesce((SELECT id FROM audit WHERE at >= ? ORDER BY at LIMIT 1), 1 << 62)",
            filter.since.map(|at| at.0),
        )
        .query(
            "SELECT id, at, token_id, token_name, scope, action, target, status, remote, request_id,
                 detail FROM audit",
            "id DESC",
            i64::from(filter.limit),
        );
    let entries = row::all(connection, &sql, params, |row| {
        Ok(AuditEntry {
            id: row.get(0)?,
            at: row::moment(row, 1)?,
            token_id: row.get(2)?,
            token_name: row.get(3)?,
            scope: row.get(4)?,
            action: row.get(5)?,
            target: row.get(6)?,
            status: row.get(7)?,
            remote: row.get(8)?,
            request_id: row.get(9)?,
            detail: row.get(10)?,
        })
    })
    .await?;
    let full = entries.len() == filter.limit as usize;
    let next_cursor = entries.last().filter(|_| full).map(|entry| entry.id.to_string());
    Ok(AuditList { count: entries.len(), entries, next_cursor })
}

impl Store {
    /// Appends to the audit log.
    pub(crate) async fn audit_append(&self, row: AuditRow) -> Result<()> {
        self.write(async move |connection: &Connection| append(connection, &row).await).await
    }

    /// A page of the audit log.
    pub(crate) async fn audit_list(&self, filter: AuditFilter) -> Result<AuditList> {
        self.read(async move |connection| list(connection, filter).await).await
    }
}
