//! Runs, their stages and attempts.

use evo_common::{
    api::{
        ActiveSkill, CycleReport, InactiveCandidate, RunDetail, RunKind, RunList, RunSummary,
        StageView,
    },
    clock::Timestamp,
    config::SourceConfig,
    evidence::Evidence,
    ids::{Attempt, RunId},
    messages::{PipelineRunStatus, PipelineStage},
    outcome::{Outcome, Verdict},
    stage::{Candidate, LearningOutput},
};
use libsql::{Row, params};
use serde_json::Value;

use super::{Connection, Error, Result, RunFilter, Store, row, timers, traces};
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
    pub(crate) once: Option<Once<'r>>,
    pub(crate) boots: i64,
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
                 idempotency_key, idempotency_digest, king_version, boots, created_at, updated_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
                run.state.phase(),
                row::name_of(&run.state.status()),
                stage.as_str(),
                attempt.0,
                run.artifact_id,
                run.evidence.map(row::to_json),
                run.priority,
                run.once.map(|once| once.key),
                run.once.map(|once| once.digest),
                crate::VERSION,
                run.boots,
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
    traces::begin(connection, run.run_id).await
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
            "UPDATE runs SET state = ?2, phase = ?3, status = ?4,
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
    if let RunState::Ended { outcome: Some(outcome), .. } = state {
        connection
            .execute(
                "UPDATE runs SET decision = ?2, code = ?3, reason = ?4 WHERE run_id = ?1",
                params![
                    run_id,
                    outcome.decision.as_str(),
                    outcome.code.clone(),
                    outcome.reason.clone()
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
    row::first(
        connection,
        "SELECT run_id, parent_run_id, kind, definition, trigger, look, version, artifact_id, state,
             evidence, source, priority
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
            })
        },
    )
    .await
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

/// Runs that wait for a runner of this stage and may go now. An evaluation waits until none of its
/// siblings is being built, since it is compared with them.
pub(crate) async fn waiting(
    connection: &Connection,
    stage: PipelineStage,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<String>> {
    row::all(
        connection,
        "SELECT run_id FROM runs AS run
         WHERE phase = 'waiting' AND stage = ?1
           AND NOT EXISTS (SELECT 1 FROM timers WHERE timers.run_id = run.run_id AND due_at > ?2)
           AND (?1 <> 'evaluation' OR NOT EXISTS (
               SELECT 1 FROM runs AS sibling
               WHERE sibling.parent_run_id = run.parent_run_id AND sibling.stage = 'building'
                 AND sibling.phase <> 'ended'))
         ORDER BY priority DESC, run_id LIMIT ?3",
        params![stage.as_str(), now.0, limit],
        |row| Ok(row.get(0)?),
    )
    .await
}

/// How many attempts each agent has.
pub(crate) async fn leased_by_agent(connection: &Connection) -> Result<Vec<(String, u32)>> {
    row::all(
        connection,
        "SELECT agent_id, COUNT(*) FROM runs WHERE phase = 'leased' GROUP BY agent_id",
        (),
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
    .await
}

/// Runs whose attempt this agent has.
pub(crate) async fn leased_to(connection: &Connection, agent_id: &str) -> Result<Vec<Run>> {
    let ids: Vec<String> = row::all(
        connection,
        "SELECT run_id FROM runs WHERE phase = 'leased' AND agent_id = ?",
        params![agent_id],
        |row| Ok(row.get(0)?),
    )
    .await?;
    load_all(connection, ids).await
}

/// Every run that is leased.
pub(crate) async fn leased(connection: &Connection) -> Result<Vec<Run>> {
    let ids: Vec<String> =
        row::all(connection, "SELECT run_id FROM runs WHERE phase = 'leased'", (), |row| {
            Ok(row.get(0)?)
        })
        .await?;
    load_all(connection, ids).await
}

/// Children of a cycle that have not ended.
pub(crate) async fn open_children(connection: &Connection, run_id: &str) -> Result<Vec<Run>> {
    let ids: Vec<String> = row::all(
        connection,
        "SELECT run_id FROM runs WHERE parent_run_id = ? AND phase <> 'ended'",
        params![run_id],
        |row| Ok(row.get(0)?),
    )
    .await?;
    load_all(connection, ids).await
}

async fn load_all(connection: &Connection, ids: Vec<String>) -> Result<Vec<Run>> {
    let mut runs = Vec::with_capacity(ids.len());
    for id in ids {
        match load(connection, &id).await {
            Ok(run) => runs.extend(run),
            // One run that can't be read must not stop the others.
            Err(Error::Corrupt(reason)) => {
                tracing::error!(run.id = %id, "Run {id} can't be read: {reason}");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(runs)
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
    row::all(
        connection,
        "SELECT stage, output FROM stages
         WHERE run_id = ? AND status = 'completed' AND output IS NOT NULL ORDER BY ordinal",
        params![run_id],
        |row| Ok((row::parsed(row, 0)?, row::json(row, 1)?)),
    )
    .await
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

const SUMMARY: &str = "run_id, parent_run_id, kind, candidate, status, stage, attempt, artifact_id,
    decision, code, reason, created_at, updated_at, priority";

fn summary(row: &Row) -> Result<RunSummary> {
    let decision: Option<String> = row.get(8)?;
    let outcome = match decision {
        Some(_) => Some(Outcome {
            decision: row::parsed::<Verdict>(row, 8)?,
            code: row.get(9)?,
            reason: row.get(10)?,
        }),
        None => None,
    };
    Ok(RunSummary {
        run_id: row.get(0)?,
        parent_run_id: row.get(1)?,
        kind: row::named(row, 2)?,
        candidate: row.get(3)?,
        status: row::named(row, 4)?,
        stage: row::parsed(row, 5)?,
        attempt: Attempt(row.get(6)?),
        artifact_id: row.get(7)?,
        outcome,
        created_at: row::moment(row, 11)?,
        updated_at: row::moment(row, 12)?,
        priority: row.get(13)?,
    })
}

impl Store {
    /// The source of a run's candidate as it was configured when it was found.
    pub(crate) async fn runs_source(&self, run_id: &str) -> Result<Option<SourceConfig>> {
        let run_id = run_id.to_owned();
        self.read(async move |connection| {
            Ok(row::first(
                connection,
                "SELECT source FROM runs WHERE run_id = ?",
                params![run_id],
                |row| row::optional_json(row, 0),
            )
            .await?
            .flatten())
        })
        .await
    }

    /// A page of runs, newest first.
    pub async fn runs_list(&self, filter: RunFilter) -> Result<RunList> {
        self.read(async move |connection| list(connection, filter).await).await
    }

    /// The newest cycle.
    pub async fn runs_latest_cycle(&self) -> Result<Option<RunId>> {
        let id: Option<String> = self
            .read(async |connection| {
                row::first(
                    connection,
                    "SELECT run_id FROM runs WHERE kind = 'cycle' ORDER BY run_id DESC LIMIT 1",
                    (),
                    |row| Ok(row.get(0)?),
                )
                .await
            })
            .await?;
        id.map(|id| RunId::parse(id).map_err(|e| Error::Corrupt(e.to_string()))).transpose()
    }

    /// One run with its stages.
    pub async fn runs_get(&self, run_id: &RunId) -> Result<Option<RunDetail>> {
        let run_id = run_id.as_str().to_owned();
        self.read(async move |connection| {
            let sql = format!("SELECT {SUMMARY} FROM runs WHERE run_id = ?");
            let Some(run) = row::first(connection, &sql, params![run_id.clone()], summary).await?
            else {
                return Ok(None);
            };
            let stages = row::all(
                connection,
                "SELECT run_id, stage, status, attempt, agent_id, artifact_id, output, error,
                     created_at, updated_at
                 FROM stages WHERE run_id = ? ORDER BY ordinal",
                params![run_id.clone()],
                |row| {
                    Ok(StageView {
                        run_id: row.get(0)?,
                        stage: row::parsed(row, 1)?,
                        status: row::named(row, 2)?,
                        attempt: Attempt(row.get(3)?),
                        agent_id: row.get(4)?,
                        artifact_id: row.get(5)?,
                        result: row::optional_json(row, 6)?,
                        error: row.get(7)?,
                        created_at: row::moment(row, 8)?,
                        updated_at: row::moment(row, 9)?,
                    })
                },
            )
            .await?;
            let (children, children_ended) = children(connection, &run_id).await?;
            Ok(Some(RunDetail { run, count: stages.len(), stages, children, children_ended }))
        })
        .await
    }

    /// What a cycle came to.
    pub async fn cycle_report(&self, run_id: &RunId) -> Result<Option<CycleReport>> {
        let cycle_id = run_id.as_str().to_owned();
        self.read(async move |connection| cycle_report(connection, cycle_id).await).await
    }
}

/// A page of runs, newest first.
pub(super) async fn list(connection: &Connection, filter: RunFilter) -> Result<RunList> {
    let limit = i64::from(filter.limit);
    let (sql, params) = row::Conditions::default()
        .and("run_id < ?", filter.cursor)
        .and("kind = ?", filter.kind.as_ref().map(row::name_of))
        .and("status = ?", filter.status.as_ref().map(row::name_of))
        .and("parent_run_id = ?", filter.parent.map(String::from))
        .query(&format!("SELECT {SUMMARY} FROM runs"), "run_id DESC", limit + 1);
    let mut runs = row::all(connection, &sql, params, summary).await?;
    let more = runs.len() > usize::try_from(limit).unwrap_or(usize::MAX);
    if more {
        runs.pop();
    }
    let next_cursor = more.then(|| runs.last().map(|run| run.run_id.clone())).flatten();
    Ok(RunList { count: runs.len(), runs, next_cursor })
}

async fn children(connection: &Connection, run_id: &str) -> Result<(u64, u64)> {
    Ok(row::first(
        connection,
        "SELECT COUNT(*), coalesce(SUM(phase = 'ended'), 0) FROM runs WHERE parent_run_id = ?",
        params![run_id],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
    .await?
    .unwrap_or_default())
}

pub(super) async fn cycle_report(
    connection: &Connection,
    cycle_id: String,
) -> Result<Option<CycleReport>> {
    let cycle = row::first(
        connection,
        "SELECT status, boots, created_at, updated_at,
             (SELECT output FROM stages WHERE stages.run_id = runs.run_id AND stage = 'learning'),
             (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'boots')
         FROM runs WHERE run_id = ? AND kind = 'cycle'",
        params![cycle_id.clone()],
        |row| {
            let status: PipelineRunStatus = row::named(row, 0)?;
            let (boots, started, changed): (i64, i64, i64) =
                (row.get(1)?, row.get(2)?, row.get(3)?);
            let learning: Option<LearningOutput> = row::optional_json(row, 4)?;
            let now_boots: i64 = row.get(5)?;
            let until =
                if status == PipelineRunStatus::Running { Timestamp::now().0 } else { changed };
            let duration = Timestamp(until).ms_since(Timestamp(started));
            Ok((status, boots != now_boots, duration, learning))
        },
    )
    .await?;
    let Some((status, resumed, duration_ms, learning)) = cycle else { return Ok(None) };
    let ended = row::all(
        connection,
        "SELECT candidate, decision, code, reason FROM runs
         WHERE parent_run_id = ? AND phase = 'ended' ORDER BY candidate",
        params![cycle_id.clone()],
        |row| {
            let verdict = row::parsed::<Verdict>(row, 1)?;
            let candidate =
                InactiveCandidate { name: row.get(0)?, code: row.get(2)?, reason: row.get(3)? };
            Ok((verdict, candidate))
        },
    )
    .await?;
    let of = |wanted: Verdict| {
        ended
            .iter()
            .filter(|(verdict, _)| *verdict == wanted)
            .map(|(_, candidate)| candidate.clone())
            .collect()
    };
    let active = row::all(
        connection,
        "SELECT pointer.skill, pointer.version, version.scores, version.evidence,
             EXISTS (SELECT 1 FROM runs WHERE runs.parent_run_id = ?1
                 AND runs.candidate = pointer.skill AND runs.decision = 'active')
         FROM skill_pointers AS pointer
         JOIN skill_versions AS version
           ON version.skill = pointer.skill AND version.artifact_id = pointer.artifact_id
         WHERE pointer.channel = 'active' ORDER BY pointer.skill",
        params![cycle_id.clone()],
        |row| {
            let scores: Option<evo_common::evidence::Scores> = row::optional_json(row, 2)?;
            let evidence: Option<evo_common::evidence::Evidence> = row::optional_json(row, 3)?;
            let evidence = evidence.unwrap_or_default();
            Ok(ActiveSkill {
                name: row.get(0)?,
                version: row.get(1)?,
                score: scores.map_or(0.0, |scores| scores.overall.low),
                cases_run: evidence.cases_run,
                trials_run: evidence.holdout.total,
                new: row.get::<i64>(4)? != 0,
            })
        },
    )
    .await?;
    let (candidates, _) = children(connection, &cycle_id).await?;
    Ok(Some(CycleReport {
        cycle_id,
        resumed,
        status,
        candidates,
        active,
        held: of(Verdict::Held),
        discarded: of(Verdict::Discarded),
        failed: of(Verdict::Failed),
        failed_sources: learning.map(|output| output.failed_sources).unwrap_or_default(),
        duration_ms,
    }))
}
