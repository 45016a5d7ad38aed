//! Runs as others see them.

use evo_common::{
    api::{ActiveSkill, CycleReport, InactiveCandidate, RunDetail, RunList, RunSummary, StageView},
    clock::Timestamp,
    config::SourceConfig,
    ids::{Attempt, RunId},
    messages::PipelineRunStatus,
    outcome::{Outcome, Verdict},
    stage::LearningOutput,
};
use libsql::{Row, Value, params};

use super::{Connection, Error, Result, RunFilter, Store, place, row, search};

const SUMMARY: &str = "run_id, parent_run_id, kind, candidate, status, stage, attempt, artifact_id,
    decision, code, reason, created_at, updated_at, priority, phase, paused, agent_id, forked_from,
    retried_by";

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
    let status: PipelineRunStatus = row::named(row, 4)?;
    let failed = matches!(status, PipelineRunStatus::Failed | PipelineRunStatus::TimedOut);
    Ok(RunSummary {
        id: row.get(0)?,
        run_id: row.get(0)?,
        parent_run_id: row.get(1)?,
        kind: row::named(row, 2)?,
        candidate: row.get(3)?,
        status,
        stage: row::parsed(row, 5)?,
        attempt: Attempt(row.get(6)?),
        artifact_id: row.get(7)?,
        result: outcome.clone(),
        error: outcome.as_ref().filter(|_| failed).map(|outcome| outcome.reason.clone()),
        outcome,
        created_at: row::moment(row, 11)?,
        updated_at: row::moment(row, 12)?,
        priority: row.get(13)?,
        phase: row.get(14)?,
        paused: row.get(15)?,
        agent_id: row.get(16)?,
        forked_from: row.get(17)?,
        retried_by: row.get(18)?,
    })
}

/// The source of a run's candidate as it was configured when it was found.
pub(crate) async fn source(connection: &Connection, run_id: &str) -> Result<Option<SourceConfig>> {
    let sql = "SELECT source FROM runs WHERE run_id = ?";
    let source = row::first(connection, sql, params![run_id], |row| row::optional_json(row, 0));
    Ok(source.await?.flatten())
}

/// The newest cycle.
pub(crate) async fn latest_cycle(connection: &Connection) -> Result<Option<String>> {
    row::first(
        connection,
        "SELECT run_id FROM runs WHERE kind = 'cycle' ORDER BY run_id DESC LIMIT 1",
        (),
        |row| Ok(row.get(0)?),
    )
    .await
}

impl Store {
    /// The source of a run's candidate as it was configured when it was found.
    pub(crate) async fn runs_source(&self, run_id: &str) -> Result<Option<SourceConfig>> {
        let run_id = run_id.to_owned();
        self.read(async move |connection| source(connection, &run_id).await).await
    }

    /// A page of runs, newest first.
    pub async fn runs_list(&self, filter: RunFilter) -> Result<RunList> {
        self.read(async move |connection| list(connection, filter).await).await
    }

    /// The newest cycle.
    pub async fn runs_latest_cycle(&self) -> Result<Option<RunId>> {
        let id = self.read(async |connection| latest_cycle(connection).await).await?;
        id.map(|id| RunId::parse(id).map_err(|e| Error::Corrupt(e.to_string()))).transpose()
    }

    /// One run with its stages.
    pub async fn runs_get(&self, run_id: &RunId) -> Result<Option<RunDetail>> {
        let run_id = run_id.as_str().to_owned();
        self.read(async move |connection| get(connection, &run_id).await).await
    }

    /// What a cycle came to.
    pub async fn cycle_report(&self, run_id: &RunId) -> Result<Option<CycleReport>> {
        let cycle_id = run_id.as_str().to_owned();
        self.read(async move |connection| cycle_report(connection, cycle_id).await).await
    }
}

/// One run with its stages.
pub(crate) async fn get(connection: &Connection, run_id: &str) -> Result<Option<RunDetail>> {
    let sql = format!("SELECT {SUMMARY} FROM runs WHERE run_id = ?");
    let Some(run) = row::first(connection, &sql, params![run_id], summary).await? else {
        return Ok(None);
    };
    let stages = row::all(
        connection,
        "SELECT run_id, stage, status, attempt, agent_id, artifact_id, output, error, created_at,
             updated_at
         FROM stages WHERE run_id = ? ORDER BY ordinal",
        params![run_id],
        |row| {
            Ok(StageView {
                id: format!("{}:{}", row.get::<String>(0)?, row.get::<String>(1)?),
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
    let (children, children_ended) = children(connection, run_id).await?;
    let queue = match run.phase.as_str() {
        "waiting" => Some(place(connection, run_id, run.stage, run.priority).await?),
        _ => None,
    };
    Ok(Some(RunDetail { run, count: stages.len(), stages, children, children_ended, queue }))
}

/// A page of runs, newest first.
pub(crate) async fn list(connection: &Connection, filter: RunFilter) -> Result<RunList> {
    let mut runs = match (&filter.query, filter.stage) {
        (Some(_), _) => search::page(connection, &filter).await?,
        (None, None) => page(connection, filter.conditions(), &filter).await?,
        // The open runs are few, and those that have ended are in an index.
        (None, Some(stage)) => {
            let at = |conditions: row::Conditions, phase: &str| {
                let condition = format!("stage = ? AND {phase}");
                conditions.and(&condition, Some(stage.as_str().to_owned()))
            };
            let open = at(filter.conditions(), "status = 'running'");
            let mut runs = page(connection, open, &filter).await?;
            let ended = at(filter.conditions(), "phase = 'ended'");
            runs.extend(page(connection, ended, &filter).await?);
            runs.sort_by(|a, b| b.run_id.cmp(&a.run_id));
            runs
        }
    };
    let more = row::cut(&mut runs, filter.offset, filter.limit);
    let next_cursor = more.then(|| runs.last().map(|run| run.run_id.clone())).flatten();
    Ok(RunList { count: runs.len(), runs, next_cursor })
}

/// One run more than the page has, so that it is known whether there are more.
async fn page(
    connection: &Connection,
    conditions: row::Conditions,
    filter: &RunFilter,
) -> Result<Vec<RunSummary>> {
    let (sql, params) = conditions.and("run_id < ?", filter.cursor.clone()).query(
        &format!("SELECT {SUMMARY} FROM runs"),
        "run_id DESC",
        row::wanted(filter.offset, filter.limit),
    );
    row::all(connection, &sql, params, summary).await
}

/// What a search gives, newest first: of `run_fts` those that match, less what is filtered out.
pub(super) async fn found(
    connection: &Connection,
    expression: String,
    before: Option<i64>,
    filter: &RunFilter,
) -> Result<Vec<RunSummary>> {
    let mut conditions = filter.conditions();
    conditions = conditions.and("run_fts MATCH ?", Some(expression));
    conditions = conditions.and("run_fts.rowid < ?", before);
    conditions = conditions.and("stage = ?", filter.stage.map(|stage| Value::from(stage.as_str())));
    let (sql, params) = conditions.query(
        &format!(
            "SELECT {SUMMARY} FROM run_fts
             CROSS JOIN run_docs ON run_docs.doc = run_fts.rowid
             CROSS JOIN runs ON runs.run_id = run_docs.run"
        ),
        "run_fts.rowid DESC",
        row::wanted(filter.offset, filter.limit),
    );
    row::all(connection, &sql, params, summary).await
}

impl RunFilter {
    /// Everything but the search, the stage and the place. A run's id begins with its time.
    fn conditions(&self) -> row::Conditions {
        let id_at = |at: Timestamp| format!("run-{:012x}", at.0.max(0));
        row::Conditions::default()
            .and("kind = ?", self.kind.as_ref().map(row::name_of))
            .and("status = ?", self.status.as_ref().map(row::name_of))
            .and("parent_run_id = ?", self.parent.clone().map(String::from))
            .and("decision = ?", self.decision.map(|decision| decision.as_str().to_owned()))
            .and("code = ?", self.code.clone())
            .and("run_id >= ?", self.since.map(id_at))
            .and("run_id < ?", self.until.map(id_at))
    }
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

pub(crate) async fn cycle_report(
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
                 AND runs.candidate = pointer.skill AND runs.decision = 'active'
                 AND runs.code <> 'answers' AND runs.artifact_id = pointer.artifact_id)
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
