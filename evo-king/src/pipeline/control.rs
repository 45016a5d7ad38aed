//! What operators do to runs: pause, resume, retry, fork.

use evo_common::{
    api::{ForkRun, RunKind, StartedRun},
    clock::Timestamp,
    evidence::LOOKS,
    ids::RunId,
    messages::{PipelineRunStatus, PipelineStage},
    outcome::Verdict,
    stage::CandidateKind,
};
use serde_json::{Value, json};

use super::{
    Coordinator, Error, Result,
    state::{Rejection, RunState},
};
use crate::store::{self, Connection, events, runs, skills, timers};

impl Coordinator {
    /// Gives nothing new of a run to runners; an attempt that is under way may finish. Of a cycle
    /// the same goes for its children. Says whether anything changed.
    pub async fn pause(&self, run_id: &RunId) -> Result<bool> {
        self.set_paused(run_id, true).await
    }

    /// A run, and of a cycle its children, go on. Says whether anything changed.
    pub async fn resume(&self, run_id: &RunId) -> Result<bool> {
        self.set_paused(run_id, false).await
    }

    async fn set_paused(&self, run_id: &RunId, paused: bool) -> Result<bool> {
        let run_id = run_id.as_str().to_owned();
        let changed = self
            .parts
            .store
            .write(async move |connection: &Connection| {
                let run = load(connection, &run_id).await?;
                if matches!(run.state, RunState::Ended { .. }) {
                    return Err(Rejection::Ended.into());
                }
                let mut ids = vec![run_id.clone()];
                if run.kind == RunKind::Cycle {
                    let children = runs::open_children(connection, &run_id).await?;
                    ids.extend(children.into_iter().map(|child| child.run_id));
                }
                let now = Timestamp::now();
                let kind = if paused { "run.paused" } else { "run.resumed" };
                let mut changed = false;
                for id in ids {
                    if runs::set_paused(connection, &id, paused).await? {
                        events::append(connection, now, kind, Some(&id), None, &json!({})).await?;
                        changed = true;
                    }
                }
                Ok::<_, Error>(changed)
            })
            .await?;
        self.parts.wake.notify_one();
        Ok(changed)
    }

    /// Repeats a run that failed from the stage on that it failed at. It stays ended, since its end
    /// was told; the new run has an id of its own. A second retry answers with the first one's run.
    pub async fn retry(&self, run_id: &RunId) -> Result<StartedRun> {
        let (this, run_id) = (self.clone(), run_id.as_str().to_owned());
        let started = self
            .parts
            .store
            .write(async move |connection: &Connection| {
                let run = load(connection, &run_id).await?;
                let known = fork_source(connection, &run_id).await?;
                if let Some(run_id) = known.retried_by {
                    return Ok(StartedRun { success: true, run_id, created: false });
                }
                if !matches!(
                    run.state.status(),
                    PipelineRunStatus::Failed | PipelineRunStatus::TimedOut
                ) {
                    return Err(refused(
                        "not_failed",
                        "only a run that failed or timed out is retried; fork it instead",
                    ));
                }
                let started = this.repeat(connection, &run, &known, known.stage, None).await?;
                runs::was_retried(connection, &run_id, &started.run_id).await?;
                Ok::<_, Error>(started)
            })
            .await?;
        self.parts.wake.notify_one();
        Ok(started)
    }

    /// Starts a run that repeats another one from a stage on, with copies of everything before.
    pub async fn fork(&self, run_id: &RunId, fork: ForkRun) -> Result<StartedRun> {
        let (this, run_id) = (self.clone(), run_id.clone());
        let started = self
            .parts
            .store
            .write(async move |connection: &Connection| {
                this.fork_within(connection, &run_id, fork).await
            })
            .await?;
        self.parts.wake.notify_one();
        Ok(started)
    }

    /// The same in the caller's transaction.
    pub(crate) async fn fork_within(
        &self,
        connection: &Connection,
        run_id: &RunId,
        fork: ForkRun,
    ) -> Result<StartedRun> {
        let run = load(connection, run_id.as_str()).await?;
        let known = fork_source(connection, run_id.as_str()).await?;
        self.repeat(connection, &run, &known, fork.from_stage, fork.trigger).await
    }

    async fn repeat(
        &self,
        connection: &Connection,
        run: &runs::Run,
        known: &runs::ForkSource,
        from: PipelineStage,
        trigger: Option<Value>,
    ) -> Result<StartedRun> {
        let first = first_stage(run.kind);
        if from < first || run.kind == RunKind::Cycle && from != first {
            let message = match run.kind {
                RunKind::Cycle => {
                    "a cycle is repeated from `learning`; its candidates have runs of their own"
                }
                _ => "the run of a candidate begins with `building`",
            };
            return Err(Error::Invalid { field: "from_stage", message: message.to_owned() });
        }
        let done = runs::stages_done(connection, &run.run_id).await?;
        let missing = PipelineStage::ALL
            .into_iter()
            .filter(|stage| (first..from).contains(stage))
            .find(|stage| done.iter().all(|(done, _)| done != stage));
        if let Some(stage) = missing {
            return Err(refused(
                "stage_missing",
                format!("stage {stage} of the run has not completed; fork it from there"),
            ));
        }
        let look = match &run.candidate {
            Some(candidate) => look_of(connection, run, known, &candidate.name, from).await?,
            None => run.look,
        };
        let artifact_id =
            done.iter().rev().find(|(stage, _)| *stage < from).map(|(_, id)| id.as_str());
        let now = Timestamp::now();
        let run_id = RunId::new();
        let trigger = trigger.as_ref().unwrap_or(&run.trigger);
        let new = runs::NewRun {
            run_id: run_id.as_str(),
            parent_run_id: run.candidate.as_ref().map(|_| run.run_id.as_str()),
            kind: run.kind,
            candidate: run.candidate.as_ref(),
            source: run.source.as_ref(),
            trigger,
            look,
            version: &run.version,
            artifact_id: artifact_id.unwrap_or_default(),
            evidence: run.evidence.as_ref(),
            state: &RunState::start(from, now),
            priority: run.priority,
            paused: false,
            forked_from: Some(&run.run_id),
            once: None,
            boots: self.parts.store.boots(),
            traced: true,
        };
        runs::insert(connection, now, new).await?;
        runs::copy_stages(connection, &run.run_id, run_id.as_str(), from).await?;
        if let Some(candidate) = &run.candidate {
            store::cases::copy(connection, &run.run_id, run_id.as_str()).await?;
            timers::clear(connection, &run.run_id).await?;
            if candidate.kind != CandidateKind::InUse {
                skills::start_candidate(connection, now, candidate, run_id.as_str(), look).await?;
            }
        }
        let mut payload = json!({
            "kind": run.kind, "trigger": trigger, "forked_from": run.run_id, "from_stage": from,
        });
        if let Some(candidate) = &run.candidate {
            payload["name"] = json!(candidate.name);
            payload["locator"] = json!(candidate.locator);
            payload["look"] = json!(look);
            payload["parent_run_id"] = json!(run.run_id);
        }
        let kind = if run.kind == RunKind::Cycle { "cycle.started" } else { "run.started" };
        events::append(connection, now, kind, Some(run_id.as_str()), None, &payload).await?;
        Ok(StartedRun { success: true, run_id: run_id.into(), created: true })
    }
}

/// Which look at its candidate the repeated run is. Nothing that was measured is forgotten: a
/// repeated evaluation adds to it, and counts as a look.
async fn look_of(
    connection: &Connection,
    run: &runs::Run,
    known: &runs::ForkSource,
    name: &str,
    from: PipelineStage,
) -> Result<u32> {
    if !matches!(run.state, RunState::Ended { .. }) {
        return Err(refused(
            "run_open",
            "the run has not ended, and a candidate has one run at a time; cancel it first",
        ));
    }
    if known.decision.as_deref() == Some(Verdict::Active.as_str()) {
        return Err(refused(
            "already_active",
            "the run's package is active; start a cycle instead",
        ));
    }
    let current = skills::known(connection, name).await?;
    if current.is_none_or(|current| current.run_id != run.run_id) {
        return Err(refused(
            "superseded",
            format!("another run is about the skill {name:?} by now; start a cycle instead"),
        ));
    }
    if run.evidence.is_none() || from > PipelineStage::Evaluation {
        return Ok(run.look);
    }
    if run.look >= LOOKS {
        return Err(refused(
            "no_further_look",
            format!("the candidate has had all of its {LOOKS} looks"),
        ));
    }
    Ok(run.look + 1)
}

fn first_stage(kind: RunKind) -> PipelineStage {
    match kind {
        RunKind::Cycle | RunKind::Direct => PipelineStage::Learning,
        RunKind::Candidate => PipelineStage::Building,
    }
}

async fn load(connection: &Connection, run_id: &str) -> Result<runs::Run> {
    runs::load(connection, run_id).await?.ok_or_else(|| Error::UnknownRun(run_id.to_owned()))
}

async fn fork_source(connection: &Connection, run_id: &str) -> Result<runs::ForkSource> {
    let known = runs::fork_source(connection, run_id).await?;
    known.ok_or_else(|| Error::UnknownRun(run_id.to_owned()))
}

fn refused(code: &'static str, message: impl Into<String>) -> Error {
    Error::Refused { code, message: message.into() }
}
