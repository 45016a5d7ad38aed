//! Runs that repeat others, and those that nobody has repeated yet.

use evo_common::{
    api::{DeadLetter, DeadLetterList},
    ids::Attempt,
    messages::PipelineStage,
};
use libsql::params;

use super::{Connection, Result, Store, row};

/// What has to be known of a run before it is repeated, besides the run itself.
#[derive(Debug, Clone)]
pub(crate) struct ForkSource {
    /// The current or last stage.
    pub(crate) stage: PipelineStage,
    /// What was decided about it.
    pub(crate) decision: Option<String>,
    pub(crate) retried_by: Option<String>,
}

/// What has to be known of a run before it is repeated.
pub(crate) async fn fork_source(
    connection: &Connection,
    run_id: &str,
) -> Result<Option<ForkSource>> {
    row::first(
        connection,
        "SELECT stage, decision, retried_by FROM runs WHERE run_id = ?",
        params![run_id],
        |row| {
            Ok(ForkSource {
                stage: row::parsed(row, 0)?,
                decision: row.get(1)?,
                retried_by: row.get(2)?,
            })
        },
    )
    .await
}

/// The completed stages of a run with the package after each, in order.
pub(crate) async fn stages_done(
    connection: &Connection,
    run_id: &str,
) -> Result<Vec<(PipelineStage, String)>> {
    row::all(
        connection,
        "SELECT stage, artifact_id FROM stages WHERE run_id = ? AND status = 'completed'
         ORDER BY ordinal",
        params![run_id],
        |row| Ok((row::parsed(row, 0)?, row.get(1)?)),
    )
    .await
}

/// Another run repeats this one: it needs no attention any more.
pub(crate) async fn was_retried(connection: &Connection, run_id: &str, by: &str) -> Result<()> {
    connection
        .execute("UPDATE runs SET retried_by = ?2, dead = 0 WHERE run_id = ?1", params![run_id, by])
        .await?;
    Ok(())
}

/// Puts a run that came to nothing aside; says whether it had needed attention.
pub(crate) async fn dismiss(connection: &Connection, run_id: &str) -> Result<bool> {
    let changed = connection
        .execute("UPDATE runs SET dead = 0 WHERE run_id = ? AND dead = 1", params![run_id])
        .await?;
    Ok(changed > 0)
}

/// A page of runs that came to nothing and that nobody has looked after yet, newest first.
pub(crate) async fn dead_letters(
    connection: &Connection,
    cursor: Option<String>,
    limit: u32,
) -> Result<DeadLetterList> {
    let (sql, params) = row::Conditions::default().and("run_id < ?", cursor).query(
        "SELECT run_id, kind, candidate, status, stage, attempt, code, reason, created_at,
             updated_at
         FROM (SELECT * FROM runs WHERE dead = 1)",
        "run_id DESC",
        i64::from(limit) + 1,
    );
    let mut letters = row::all(connection, &sql, params, |row| {
        Ok(DeadLetter {
            run_id: row.get(0)?,
            kind: row::named(row, 1)?,
            candidate: row.get(2)?,
            status: row::named(row, 3)?,
            stage: row::parsed(row, 4)?,
            attempts: Attempt(row.get(5)?),
            code: row.get::<Option<String>>(6)?.unwrap_or_default(),
            error: row.get::<Option<String>>(7)?.unwrap_or_default(),
            created_at: row::moment(row, 8)?,
            ended_at: row::moment(row, 9)?,
        })
    })
    .await?;
    let more = letters.len() > limit as usize;
    letters.truncate(limit as usize);
    let next_cursor = more.then(|| letters.last().map(|letter| letter.run_id.clone())).flatten();
    Ok(DeadLetterList { count: letters.len(), dead_letters: letters, next_cursor })
}

impl Store {
    /// A page of runs that came to nothing and that nobody has looked after yet, newest first.
    pub async fn runs_dead(&self, cursor: Option<String>, limit: u32) -> Result<DeadLetterList> {
        self.read(async move |connection| dead_letters(connection, cursor, limit).await).await
    }

    /// Puts a run that came to nothing aside; says whether it had needed attention.
    pub async fn runs_dismiss(&self, run_id: String) -> Result<bool> {
        self.write(async move |connection: &Connection| dismiss(connection, &run_id).await).await
    }
}
