//! Questions to runners, how a run is to go on after a failure.

use evo_common::{clock::Timestamp, ids::Attempt, messages::PipelineStage};
use libsql::params;

use super::{Connection, Result, row};

/// A question to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'q> {
    pub(crate) request_id: &'q str,
    pub(crate) run_id: &'q str,
    pub(crate) stage: PipelineStage,
    pub(crate) attempt: Attempt,
    pub(crate) agent_id: &'q str,
    pub(crate) error: &'q str,
    pub(crate) deadline: Timestamp,
}

/// What is known of a question.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) run_id: String,
    pub(crate) agent_id: String,
    /// How it was settled; `None` while it is open.
    pub(crate) ended: Option<String>,
    pub(crate) answer_digest: Option<String>,
}

/// A question was asked.
pub(crate) async fn insert(
    connection: &Connection,
    now: Timestamp,
    question: Question<'_>,
) -> Result<()> {
    connection
        .execute(
            "INSERT INTO recoveries (request_id, run_id, stage, attempt, agent_id, error, asked_at,
                 deadline)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                question.request_id,
                question.run_id,
                question.stage.as_str(),
                question.attempt.0,
                question.agent_id,
                question.error,
                now.0,
                question.deadline.0,
            ],
        )
        .await?;
    Ok(())
}

/// One question.
pub(crate) async fn get(connection: &Connection, request_id: &str) -> Result<Option<Asked>> {
    row::first(
        connection,
        "SELECT run_id, agent_id, ended, answer_digest FROM recoveries WHERE request_id = ?",
        params![request_id],
        |row| {
            Ok(Asked {
                run_id: row.get(0)?,
                agent_id: row.get(1)?,
                ended: row.get(2)?,
                answer_digest: row.get(3)?,
            })
        },
    )
    .await
}

/// A question is settled.
pub(crate) async fn close(
    connection: &Connection,
    now: Timestamp,
    request_id: &str,
    how: &str,
) -> Result<()> {
    connection
        .execute(
            "UPDATE recoveries SET ended = ?2, ended_at = ?3 WHERE request_id = ?1",
            params![request_id, how, now.0],
        )
        .await?;
    Ok(())
}

/// The answer that settled a question.
pub(crate) async fn save_answer(
    connection: &Connection,
    request_id: &str,
    digest: &str,
    reasoning: &str,
) -> Result<()> {
    connection
        .execute(
            "UPDATE recoveries SET answer_digest = ?2, reasoning = ?3 WHERE request_id = ?1",
            params![request_id, digest, reasoning],
        )
        .await?;
    Ok(())
}
