//! History of the gateway's configuration.

use evo_common::clock::Timestamp;
use libsql::{Row, params};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{Connection, Result, Store, events, row};

/// Rows that are kept.
const KEPT: i64 = 1_000;
/// The event of a configuration that runs now.
pub(crate) const UPDATED: &str = "config.updated";
/// The event of a configuration that was not taken over.
const REJECTED: &str = "config.rejected";

/// One key that differs between two configurations. Values that may be secret are `***`.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize, ToSchema)]
pub struct Difference {
    /// Its path: `providers.openai.enabled`.
    pub key: String,
    /// What was there; absent for a new key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// What is there now; absent for a key that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

/// One change of a configuration.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ConfigChange {
    /// Its place in the history.
    pub id: i64,
    /// Whose configuration: always `gateway`.
    pub config_type: String,
    /// SHA-256 of the new configuration's text.
    pub config_hash: String,
    /// SHA-256 of the one before, if that is known.
    pub previous_hash: Option<String>,
    /// `update` for a change that king carried out, `adopt` for one that the gateway ran already.
    pub action: String,
    /// Who wanted it: the name of a token, `file` or `cron`.
    pub who: String,
    /// `pending`, `applied`, `rejected`, or `superseded` by a later change.
    pub outcome: String,
    /// Stable code of why it was rejected, or is pending.
    pub code: Option<String>,
    /// The same for people.
    pub reason: Option<String>,
    /// What it changes.
    pub diff: Vec<Difference>,
    /// What was found that keeps nobody from running it: providers that can't be reached.
    pub warnings: Vec<String>,
    /// Where the configuration before it was saved.
    pub backup_path: Option<String>,
    /// Where a rejected configuration was saved.
    pub rejected_path: Option<String>,
    /// When it began (RFC 3339).
    pub timestamp: String,
    /// When it was decided (RFC 3339).
    pub finished_at: Option<String>,
}

/// A change that begins.
#[derive(Debug, Clone)]
pub(crate) struct NewChange {
    pub(crate) config_hash: String,
    pub(crate) previous_hash: Option<String>,
    pub(crate) action: &'static str,
    pub(crate) who: String,
    pub(crate) diff: Vec<Difference>,
}

/// How a change ends.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    /// It runs, with so many providers.
    Applied { providers: usize },
    /// It does not.
    Rejected { code: String, reason: String, rejected_path: Option<String> },
    /// Another one came before it was decided.
    Superseded,
}

const SELECT: &str = "SELECT id, config_type, config_hash, previous_hash, action, who, outcome, code,
    reason, diff, warnings, backup_path, rejected_path, created_at, finished_at FROM config_history";

fn read(row: &Row) -> Result<ConfigChange> {
    Ok(ConfigChange {
        id: row.get(0)?,
        config_type: row.get(1)?,
        config_hash: row.get(2)?,
        previous_hash: row.get(3)?,
        action: row.get(4)?,
        who: row.get(5)?,
        outcome: row.get(6)?,
        code: row.get(7)?,
        reason: row.get(8)?,
        diff: row::json(row, 9)?,
        warnings: row::json(row, 10)?,
        backup_path: row.get(11)?,
        rejected_path: row.get(12)?,
        timestamp: row::moment(row, 13)?,
        finished_at: row.get::<Option<i64>>(14)?.map(|at| Timestamp(at).to_rfc3339()),
    })
}

/// The newest change that is not decided.
pub(crate) async fn pending(connection: &Connection) -> Result<Option<ConfigChange>> {
    let sql = format!("{SELECT} WHERE outcome = 'pending' AND id > 0 ORDER BY id DESC LIMIT 1");
    row::first(connection, &sql, (), read).await
}

/// The newest change.
pub(crate) async fn newest(connection: &Connection) -> Result<Option<ConfigChange>> {
    let sql = format!("{SELECT} WHERE id = (SELECT MAX(id) FROM config_history)");
    row::first(connection, &sql, (), read).await
}

/// One change.
pub(crate) async fn get(connection: &Connection, id: i64) -> Result<Option<ConfigChange>> {
    row::first(connection, &format!("{SELECT} WHERE id = ?"), params![id], read).await
}

/// Changes, newest first: those before `cursor`.
pub(crate) async fn list(
    connection: &Connection,
    limit: u32,
    cursor: Option<i64>,
) -> Result<Vec<ConfigChange>> {
    let (sql, params) = row::Conditions::default()
        .and("id < ?", Some(cursor.unwrap_or(i64::MAX)))
        .query(SELECT, "id DESC", i64::from(limit));
    row::all(connection, &sql, params, read).await
}

/// Begins a change, and forgets the oldest ones.
pub(crate) async fn begin(
    connection: &Connection,
    now: Timestamp,
    change: &NewChange,
) -> Result<i64> {
    let NewChange { config_hash, previous_hash, action, who, diff } = change;
    connection
        .execute(
            "INSERT INTO config_history (config_type, config_hash, previous_hash, action, who,
                 outcome, diff, warnings, created_at)
             VALUES ('gateway', ?, ?, ?, ?, 'pending', ?, '[]', ?)",
            params![
                config_hash.clone(),
                previous_hash.clone(),
                *action,
                who.clone(),
                row::to_json(diff),
                now.0
            ],
        )
        .await?;
    let id = connection.last_insert_rowid();
    connection.execute("DELETE FROM config_history WHERE id <= ?", params![id - KEPT]).await?;
    Ok(id)
}

/// Ends a change, with its event. One that is decided already stays as it is.
async fn decide(connection: &Connection, now: Timestamp, id: i64, verdict: &Verdict) -> Result<()> {
    let Some(change) = get(connection, id).await?.filter(|change| change.outcome == "pending")
    else {
        return Ok(());
    };
    let (outcome, code, reason, rejected_path) = match verdict {
        Verdict::Applied { .. } => ("applied", None, None, None),
        Verdict::Rejected { code, reason, rejected_path } => {
            ("rejected", Some(code.clone()), Some(reason.clone()), rejected_path.clone())
        }
        Verdict::Superseded => ("superseded", None, None, None),
    };
    connection
        .execute(
            "UPDATE config_history SET outcome = ?2, code = ?3, reason = ?4, rejected_path = ?5,
                 finished_at = ?6 WHERE id = ?1",
            params![id, outcome, code.clone(), reason.clone(), rejected_path, now.0],
        )
        .await?;
    let ConfigChange { config_type, config_hash, previous_hash, who, .. } = change;
    let (kind, payload) = match verdict {
        Verdict::Applied { providers } => (
            UPDATED,
            json!({
                "config_type": config_type, "new_config_hash": config_hash,
                "config_hash": config_hash, "previous_hash": previous_hash,
                "providers": providers, "who": who, "change_id": id,
            }),
        ),
        Verdict::Rejected { .. } => (
            REJECTED,
            json!({
                "config_type": config_type, "config_hash": config_hash, "code": code,
                "reason": reason, "who": who, "change_id": id,
            }),
        ),
        Verdict::Superseded => return Ok(()),
    };
    events::append(connection, now, kind, None, None, &payload).await?;
    Ok(())
}

impl Store {
    /// Begins a change; gives its id.
    pub(crate) async fn config_begin(&self, change: NewChange) -> Result<i64> {
        self.write(async move |connection: &Connection| {
            begin(connection, Timestamp::now(), &change).await
        })
        .await
    }

    /// Notes where the configuration before a change was saved.
    pub(crate) async fn config_backed_up(&self, id: i64, path: String) -> Result<()> {
        self.write(async move |connection: &Connection| {
            let sql = "UPDATE config_history SET backup_path = ? WHERE id = ?";
            connection.execute(sql, params![path, id]).await?;
            Ok(())
        })
        .await
    }

    /// Notes why a change is not decided yet, and what was found meanwhile.
    pub(crate) async fn config_note(
        &self,
        id: i64,
        code: Option<&'static str>,
        reason: Option<String>,
        warnings: Vec<String>,
    ) -> Result<()> {
        self.write(async move |connection: &Connection| {
            let sql =
                "UPDATE config_history SET code = ?2, reason = ?3, warnings = ?4 WHERE id = ?1";
            let warnings = row::to_json(&warnings);
            connection.execute(sql, params![id, code, reason, warnings]).await?;
            Ok(())
        })
        .await
    }

    /// Notes that a change is about to be put back, and why: a king that is killed meanwhile knows it
    /// when it starts again.
    pub(crate) async fn config_refused(
        &self,
        id: i64,
        code: String,
        reason: String,
        rejected_path: String,
    ) -> Result<()> {
        self.write(async move |connection: &Connection| {
            let sql = "UPDATE config_history SET code = ?2, reason = ?3, rejected_path = ?4
                       WHERE id = ?1";
            connection.execute(sql, params![id, code, reason, rejected_path]).await?;
            Ok(())
        })
        .await
    }

    /// Ends a change and gives it as it is now.
    pub(crate) async fn config_decide(
        &self,
        id: i64,
        verdict: Verdict,
    ) -> Result<Option<ConfigChange>> {
        self.write(async move |connection: &Connection| {
            decide(connection, Timestamp::now(), id, &verdict).await?;
            get(connection, id).await
        })
        .await
    }

    /// The newest change that is not decided, and the newest of all.
    pub(crate) async fn config_state(
        &self,
    ) -> Result<(Option<ConfigChange>, Option<ConfigChange>)> {
        self.read(async |connection| Ok((pending(connection).await?, newest(connection).await?)))
            .await
    }

    /// One change.
    pub(crate) async fn config_change(&self, id: i64) -> Result<Option<ConfigChange>> {
        self.read(async move |connection| get(connection, id).await).await
    }

    /// A page of the history, newest first.
    pub(crate) async fn config_history(
        &self,
        limit: u32,
        cursor: Option<i64>,
    ) -> Result<Vec<ConfigChange>> {
        self.read(async move |connection| list(connection, limit, cursor).await).await
    }
}
