//! Runs, their stages and attempts.

pub(crate) mod fork;
pub(crate) mod history;
pub(crate) mod queue;
pub(crate) mod search;
pub(crate) mod views;

pub(crate) use fork::{ForkSource, fork_source, stages_done, was_retried};
pub(crate) use queue::{
    leased, leased_by_agent, leased_to, open_children, place, set_paused, waiting,
};
pub(crate) use search::index_some;

use evo_common::{
    api::RunKind,
    clock::Timestamp,
    config::SourceConfig,
    evidence::Evidence,
    ids::Attempt,
    messages::{PipelineRunStatus, PipelineStage},
    outcome::codes,
    stage::Candidate,
};
use libsql::params;
use serde_json::Value;

use super::{Connection, Error, Result, RunFilter, Store, damaged, row, tasks, timers, traces};
use crate::pipeline::state::{AttemptEnd, RunState};

/// A run as the pipeline works with it.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) run_id: String,
    pub(crate) parent_run_id: Option<String>,
    pub(crate) kind: RunKind,
    /// The candidate, without its cases.
    pub(crate) candidate: Option<Candidate>,
    /// The candidate's source as it was configured when it was found.
    pub(crate) source: Option<SourceConfig>,
    pub(crate) trigger: Value,
    pub(crate) look: u32,
    pub(crate) version: String,
    pub(crate) artifact_id: String,
    /// What was measured about the package, over all looks so far.
    pub(crate) evidence: Option<Evidence>,
    pub(crate) priority: i32,
    pub(crate) paused: bool,
    /// Whether it has a trace.
    pub(crate) traced: bool,
    pub(crate) state: RunState,
}

/// A run to be made.
#[derive(Debug, Clone)]
pub(crate) struct NewRun<'r> {
    pub(crate) run_id: &'r str,
    pub(crate) parent_run_id: Option<&'r str>,
    pub(crate) kind: RunKind,
    pub(crate) candidate: Option<&'r Candidate>,
    pub(crate) source: Option<&'r SourceConfig>,
    pub(crate) trigger: &'r Value,
    pub(crate) look: u32,
    pub(crate) version: &'r str,
    pub(crate) artifact_id: &'r str,
    /// What earlier looks measured.
    pub(crate) evidence: Option<&'r Evidence>,
    pub(crate) state: &'r RunState,
    pub(crate) priority: i32,
    pub(crate) paused: bool,
    /// The run that it repeats from some stage on.
    pub(crate) forked_from: Option<&'r str>,
    pub(crate) once: Option<Once<'r>>,
    pub(crate) boots: i64,
    /// Whether it has a trace.
    pub(crate) traced: bool,
}

impl Run {
    /// A run that was just made, in this state.
    pub(crate) fn of(new: &NewRun<'_>, state: RunState) -> Self {
        Self {
            run_id: new.run_id.to_owned(),
            parent_run_id: new.parent_run_id.map(ToOwned::to_owned),
            kind: new.kind,
            candidate: new.candidate.cloned(),
            source: new.source.cloned(),
            trigger: new.trigger.clone(),
            priority: new.priority,
            paused: new.paused,
            traced: new.traced,
            look: new.look,
            version: new.version.to_owned(),
            artifact_id: new.artifact_id.to_owned(),
            evidence: new.evidence.cloned(),
            state,
        }
    }
}

/// What makes a start happen once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Once<'r> {
    /// The caller's key.
    pub(crate) key: &'r str,
    /// Digest of what was asked for with it.
    pub(crate) digest: &'r str,
}

/// Makes a run.
pub(crate) async fn insert(connection: &Connection, now: Timestamp, run: NewRun<'_>) -> Result<()> {
    let (stage, attempt) = run.state.at().unwrap_or((PipelineStage::Learning, Attempt::FIRST));
    connection
        .execute(
            "INSERT INTO runs (run_id, parent_run_id, kind, candidate, definition, source, trigger, look,
                 version, state, phase, status, stage, attempt, artifact_id, evidence, priority,
                 paused, forked_from, idempotency_key, idempotency_digest, king_version, boots, traced,
                 created_at, updated_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                run.run_id,
                run.parent_run_id,
                row::name_of(&run.kind),
                run.candidate.map(|candidate| candidate.name.clone()),
                run.candidate.map(row::to_json),
                run.source.map(row::to_json),
                row::to_json(run.trigger),
                run.look,
                run.version,
                row::to_json(run.state),
                phase_of(run.state, run.paused),
                row::name_of(&run.state.status()),
                stage.as_str(),
                attempt.0,
                run.artifact_id,
                run.evidence.map(row::to_json),
                run.priority,
                run.paused,
                run.forked_from,
                run.once.map(|once| once.key),
                run.once.map(|once| once.digest),
                crate::VERSION,
                run.boots,
                run.traced,
                now.0,
                now.0,
            ],
        )
        .await?;
    leaves_waiting(connection, run.state);
    if let (RunState::Leased { .. }, Some((kind, due_at))) = (run.state, run.state.due_at()) {
        timers::set(connection, run.run_id, kind, due_at).await?;
    }
    save_outcome(connection, run.run_id, run.state).await?;
    // A candidate's run is a part of its cycle's task.
    if run.kind != RunKind::Candidate {
        tasks::insert_for_run(connection, now, run.run_id).await?;
    }
    if run.traced {
        traces::begin(connection, run.run_id).await?;
    }
    Ok(())
}

/// The word to search for: a run that would wait is `paused` instead.
fn phase_of(state: &RunState, paused: bool) -> &'static str {
    match state.phase() {
        "waiting" if paused => "paused",
        phase => phase,
    }
}

/// Writes a run's new state, and its timer.
pub(crate) async fn save_state(
    connection: &Connection,
    now: Timestamp,
    run_id: &str,
    state: &RunState,
) -> Result<()> {
    let at = state.at();
    connection
        .execute(
            "UPDATE runs SET state = ?2, phase = iif(?3 = 'waiting' AND paused, 'paused', ?3),
                 status = ?4,
                 stage = coalesce(?5, stage), attempt = coalesce(?6, attempt), agent_id = ?7,
                 updated_at = ?8
             WHERE run_id = ?1",
            params![
                run_id,
                row::to_json(state),
                state.phase(),
                row::name_of(&state.status()),
                at.map(|(stage, _)| stage.as_str()),
                at.map(|(_, attempt)| attempt.0),
                state.agent(),
                now.0,
            ],
        )
        .await?;
    leaves_waiting(connection, state);
    match state.due_at() {
        Some((kind, due_at)) => timers::set(connection, run_id, kind, due_at).await?,
        None => timers::clear(connection, run_id).await?,
    }
    save_outcome(connection, run_id, state).await?;
    if matches!(state, RunState::Ended { .. }) {
        traces::save_root(connection, run_id).await?;
    }
    Ok(())
}

fn leaves_waiting(connection: &Connection, state: &RunState) {
    if let RunState::Waiting { stage, .. } = state {
        connection.leaves_waiting(*stage);
    }
}

async fn save_outcome(connection: &Connection, run_id: &str, state: &RunState) -> Result<()> {
    if let RunState::Ended { status, outcome: Some(outcome) } = state {
        let by_intent = [codes::CANCELLED, codes::DECOMPOSED].contains(&outcome.code.as_str());
        let dead = *status != PipelineRunStatus::Completed && !by_intent;
        connection
            .execute(
                "UPDATE runs SET decision = ?2, code = ?3, reason = ?4, dead = ?5
                 WHERE run_id = ?1",
                params![
                    run_id,
                    outcome.decision.as_str(),
                    outcome.code.clone(),
                    outcome.reason.clone(),
                    dead
                ],
            )
            .await?;
    }
    Ok(())
}

/// Writes the digest of a run's package.
pub(crate) async fn save_artifact(
    connection: &Connection,
    run_id: &str,
    artifact_id: &str,
) -> Result<()> {
    connection
        .execute("UPDATE runs SET artifact_id = ? WHERE run_id = ?", params![artifact_id, run_id])
        .await?;
    Ok(())
}

/// Writes what was measured about a run's package.
pub(crate) async fn save_evidence(
    connection: &Connection,
    run_id: &str,
    evidence: &Evidence,
) -> Result<()> {
    connection
        .execute(
            "UPDATE runs SET evidence = ? WHERE run_id = ?",
            params![row::to_json(evidence), run_id],
        )
        .await?;
    Ok(())
}

/// The cycle that a run belongs to: its parent, or for a further look its parent's.
pub(crate) async fn cycle_of(connection: &Connection, run: &Run) -> Result<Option<String>> {
    row::first(
        connection,
        "WITH RECURSIVE line (run_id, parent_run_id, kind) AS (
             SELECT run_id, parent_run_id, kind FROM runs WHERE run_id = ?1
             UNION ALL
             SELECT runs.run_id, runs.parent_run_id, runs.kind
             FROM line JOIN runs ON runs.run_id = line.parent_run_id)
         SELECT run_id FROM line WHERE kind = 'cycle' LIMIT 1",
        params![run.run_id.clone()],
        |row| Ok(row.get(0)?),
    )
    .await
}

/// One run.
pub(crate) async fn load(connection: &Connection, run_id: &str) -> Result<Option<Run>> {
    let run = row::first(
        connection,
        "SELECT run_id, parent_run_id, kind, definition, trigger, look, version, artifact_id, state,
             evidence, source, priority, paused, traced
         FROM runs WHERE run_id = ?",
        params![run_id],
        |row| {
            Ok(Run {
                run_id: row.get(0)?,
                parent_run_id: row.get(1)?,
                kind: row::named(row, 2)?,
                candidate: row::optional_json(row, 3)?,
                trigger: row::json(row, 4)?,
                look: row.get(5)?,
                version: row.get(6)?,
                artifact_id: row.get(7)?,
                state: row::json(row, 8)?,
                evidence: row::optional_json(row, 9)?,
                source: row::optional_json(row, 10)?,
                priority: row.get(11)?,
                paused: row.get(12)?,
                traced: row.get(13)?,
            })
        },
    )
    .await;
    run.map_err(|error| error.about(&damaged::RUNS, run_id))
}

/// The run that an idempotency key started, and the digest of what was asked for.
pub(crate) async fn by_idempotency_key(
    connection: &Connection,
    key: &str,
) -> Result<Option<(String, Option<String>)>> {
    row::first(
        connection,
        "SELECT run_id, idempotency_digest FROM runs WHERE idempotency_key = ?",
        params![key],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
    .await
}

/// A stage's row to be written.
#[derive(Debug, Clone)]
pub(crate) struct StageRow<'s> {
    pub(crate) run_id: &'s str,
    pub(crate) stage: PipelineStage,
    pub(crate) status: PipelineRunStatus,
    pub(crate) attempt: Attempt,
    pub(crate) agent_id: Option<&'s str>,
    pub(crate) artifact_id: &'s str,
    pub(crate) output: Option<&'s Value>,
    pub(crate) error: Option<&'s str>,
}

/// Writes a stage; absent output and error keep what was known.
pub(crate) async fn save_stage(
    connection: &Connection,
    now: Timestamp,
    row: StageRow<'_>,
) -> Result<()> {
    let ordinal = PipelineStage::ALL.iter().position(|stage| *stage == row.stage).unwrap_or(0);
    connection
        .execute(
            "INSERT INTO stages (run_id, ordinal, stage, status, attempt, agent_id, artifact_id,
                 output, error, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)
             ON CONFLICT (run_id, ordinal) DO UPDATE SET
                 status = excluded.status, attempt = excluded.attempt,
                 agent_id = coalesce(excluded.agent_id, agent_id),
                 artifact_id = excluded.artifact_id,
                 output = coalesce(excluded.output, output),
                 error = excluded.error, updated_at = excluded.updated_at",
            params![
                row.run_id,
                i64::try_from(ordinal).expect("five stages"),
                row.stage.as_str(),
                row::name_of(&row.status),
                row.attempt.0,
                row.agent_id,
                row.artifact_id,
                row.output.map(row::to_json),
                row.error,
                now.0,
            ],
        )
        .await?;
    Ok(())
}

/// Gives a run the finished stages of another one before `before`.
pub(crate) async fn copy_stages(
    connection: &Connection,
    from: &str,
    to: &str,
    before: PipelineStage,
) -> Result<()> {
    let ordinal = PipelineStage::ALL.iter().position(|stage| *stage == before).unwrap_or(0);
    connection
        .execute(
            "INSERT INTO stages (run_id, ordinal, stage, status, attempt, agent_id, artifact_id,
                 output, error, created_at, updated_at)
             SELECT ?2, ordinal, stage, status, attempt, agent_id, artifact_id, output, error,
                 created_at, updated_at
             FROM stages WHERE run_id = ?1 AND ordinal < ?3",
            params![from, to, i64::try_from(ordinal).expect("five stages")],
        )
        .await?;
    Ok(())
}

/// Outputs of a run's completed stages.
pub(crate) async fn outputs(
    connection: &Connection,
    run_id: &str,
) -> Result<Vec<(PipelineStage, Value)>> {
    let outputs = row::all(
        connection,
        "SELECT stage, output FROM stages
         WHERE run_id = ? AND status = 'completed' AND output IS NOT NULL ORDER BY ordinal",
        params![run_id],
        |row| Ok((row::parsed(row, 0)?, row::json(row, 1)?)),
    )
    .await;
    outputs.map_err(|error| error.about(&damaged::RUNS, run_id))
}

/// An attempt went out.
pub(crate) async fn open_attempt(
    connection: &Connection,
    now: Timestamp,
    run_id: &str,
    stage: PipelineStage,
    attempt: Attempt,
    agent_id: &str,
) -> Result<()> {
    connection
        .execute(
            "INSERT INTO attempts (run_id, stage, attempt, agent_id, started_at)
             VALUES (?, ?, ?, ?, ?)",
            params![run_id, stage.as_str(), attempt.0, agent_id, now.0],
        )
        .await?;
    Ok(())
}

/// An attempt is over; `result_digest` is that of the answer that was applied.
pub(crate) async fn close_attempt(
    connection: &Connection,
    now: Timestamp,
    run_id: &str,
    stage: PipelineStage,
    attempt: Attempt,
    how: AttemptEnd,
    result_digest: Option<&str>,
) -> Result<()> {
    connection
        .execute(
            "UPDATE attempts SET ended = ?4, result_digest = ?5, ended_at = ?6
             WHERE run_id = ?1 AND stage = ?2 AND attempt = ?3",
            params![run_id, stage.as_str(), attempt.0, how.as_str(), result_digest, now.0],
        )
        .await?;
    Ok(())
}

/// The digest of the answer that was applied for an attempt.
pub(crate) async fn applied_digest(
    connection: &Connection,
    run_id: &str,
    stage: PipelineStage,
    attempt: Attempt,
) -> Result<Option<String>> {
    Ok(row::first(
        connection,
        "SELECT result_digest FROM attempts WHERE run_id = ? AND stage = ? AND attempt = ?",
        params![run_id, stage.as_str(), attempt.0],
        |row| Ok(row.get::<Option<String>>(0)?),
    )
    .await?
    .flatten())
}
