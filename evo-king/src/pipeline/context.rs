//! What a dispatch says: everything known about the run, less what its stage must not see.

use std::collections::BTreeMap;

use evo_common::{
    api::RunKind,
    clock::Timestamp,
    config::SourceConfig,
    messages::{PipelineNext, PipelineStage, StageDispatch},
    outcome::codes,
    stage::{CandidateKind, EvaluationPlan, StageContext},
};
use serde_json::{Value, json};

use super::{Coordinator, budget, direct, state::RunState};
use crate::{
    memory::outcomes,
    skills::{promotion, requests},
    store::{self, Connection, runs, skills},
};

impl Coordinator {
    /// The dispatch of a leased run; `None` when it is no longer leased.
    pub(super) async fn dispatch_of(
        &self,
        connection: &Connection,
        run_id: &str,
    ) -> store::Result<Option<(String, StageDispatch)>> {
        let Some(run) = runs::load(connection, run_id).await? else { return Ok(None) };
        self.dispatch(connection, &run, &run.state, &run.artifact_id).await
    }

    /// The dispatch of a run that is leased as `state` says.
    async fn dispatch(
        &self,
        connection: &Connection,
        run: &runs::Run,
        state: &RunState,
        artifact_id: &str,
    ) -> store::Result<Option<(String, StageDispatch)>> {
        let RunState::Leased { stage, attempt, agent, deadline, .. } = state else {
            return Ok(None);
        };
        let metadata = match run.kind {
            RunKind::Direct => {
                let legacy = self.parts.registry.is_legacy(agent);
                direct::metadata(connection, run, *stage, legacy).await?
            }
            RunKind::Cycle | RunKind::Candidate => {
                self.context(connection, run, *stage).await?.into_metadata()
            }
        };
        let dispatch = StageDispatch {
            next: PipelineNext { stage: *stage, artifact_id: artifact_id.to_owned(), metadata },
            run_id: run.run_id.clone(),
            attempt: *attempt,
            deadline_ms: deadline.0,
            model: self.parts.registry.model_of(agent),
            trace: None,
        };
        Ok(Some((agent.clone(), dispatch)))
    }

    /// Sends a lease's dispatch once it is committed. What a direct run is told is made here, where
    /// everything about it is at hand; the others' takes reading, which the loop does.
    pub(super) async fn send_after_commit(
        &self,
        connection: &Connection,
        run: &runs::Run,
        state: &RunState,
        artifact_id: &str,
    ) -> store::Result<()> {
        let dispatch = match run.kind {
            RunKind::Direct => self.dispatch(connection, run, state, artifact_id).await?,
            RunKind::Cycle | RunKind::Candidate => None,
        };
        let (this, run_id, state) = (self.clone(), run.run_id.clone(), state.clone());
        let traced = run.traced;
        connection.after_commit(move || {
            let flights = &this.parts.flights;
            flights.add(&run_id, &state, dispatch.is_some(), traced);
            match dispatch {
                // What can't be sent now is sent when it was not confirmed in time.
                Some((agent, dispatch)) => drop(this.hand_over(&agent, dispatch)),
                None => this.parts.wake.notify_one(),
            }
        });
        Ok(())
    }

    async fn context(
        &self,
        connection: &Connection,
        run: &runs::Run,
        stage: PipelineStage,
    ) -> store::Result<StageContext> {
        let parts = &self.parts;
        let mut context = StageContext {
            trigger: run.trigger.clone(),
            candidate: run.candidate.clone(),
            outputs: runs::outputs(connection, &run.run_id).await?.into_iter().collect(),
            sources: self.sources_for(run),
            servers: BTreeMap::new(),
            version: run.version.clone(),
            plan: EvaluationPlan { look: run.look, ..parts.config.plan.clone() },
            ..StageContext::default()
        };
        context.servers = match &run.candidate {
            // Its steps are skills of any source; what each of them may reach follows from its own.
            Some(candidate)
                if candidate.kind.reuses() || candidate.kind == CandidateKind::Repair =>
            {
                parts.sources.servers()
            }
            // What is asked for may be there already, whatever its source is.
            None if stage == PipelineStage::Learning => {
                let mut servers = parts.sources.servers();
                servers.extend(parts.sources.servers_of(&context.sources));
                servers
            }
            _ => parts.sources.servers_of(&context.sources),
        };
        if let Some(cycle) = runs::cycle_of(connection, run).await? {
            context.budget = budget::of(self, connection, &cycle).await?.left();
        }
        if let Some(gap) = run.trigger.get("sitting_gap_ms").and_then(Value::as_u64) {
            context.plan.sitting_gap_ms = gap;
        }
        if stage == PipelineStage::Learning {
            context.names = Some(skills::names(connection).await?);
            // No skill has an empty name, so all of them are compared with.
            context.known_skills = skills::comparable(connection, "", None).await?;
            let now = Timestamp::now();
            context.requests = requests::for_learning(connection, now, &run.trigger).await?;
            context.reread = self.reread(connection, &context).await?;
            context.servers.extend(parts.sources.servers_of(&context.reread));
            for source in context.sources.iter().chain(&context.reread) {
                let room = outcomes::MAX_TOLD.saturating_sub(context.past.len());
                let past = outcomes::of_source(connection, &source.name, room).await?;
                context.past.extend(past);
            }
        }
        let Some(candidate) = &run.candidate else { return Ok(context) };
        let (train, holdout) = store::cases::of_run(connection, &run.run_id).await?;
        context.train_cases = train;
        let is_answer = candidate.kind == CandidateKind::InUse;
        if is_answer && run.look > 1 {
            let usual = context.plan.trials;
            context.plan.trials = promotion::trials_of_next_look(codes::FLAKY, usual);
        } else if !is_answer && let Some(known) = skills::known(connection, &candidate.name).await?
        {
            if let Some(code) = known.code.as_deref().filter(|_| run.look > 1) {
                let usual = context.plan.trials;
                context.plan.trials = promotion::trials_of_next_look(code, usual);
            }
            context.incumbent = known.active.map(|(incumbent, _)| incumbent);
        }
        if stage == PipelineStage::Building {
            let (name, definition) = (&candidate.name, &candidate.fingerprint);
            context.earlier = skills::package_of(connection, name, definition).await?;
        }
        if matches!(stage, PipelineStage::PreLoad | PipelineStage::Evaluation) {
            context.overruled = skills::approvals::overruled(connection, &run.artifact_id).await?;
        }
        if stage == PipelineStage::Evaluation {
            context.holdout_cases = holdout;
            // What failed in use is always part of the comparison, and no builder sees it.
            if !is_answer {
                let pinned = skills::live::pinned_cases(connection, &candidate.name).await?;
                context.holdout_cases.extend(pinned);
            }
            let cycle = runs::cycle_of(connection, run).await?;
            context.known_skills =
                skills::comparable(connection, &candidate.name, cycle.as_deref()).await?;
        }
        if stage == PipelineStage::SkillManage
            && let Some(evidence) = &run.evidence
        {
            // The decision is about all looks together.
            let scores = evidence.scores();
            let output = context.outputs.entry(PipelineStage::Evaluation).or_default();
            output["evidence"] = json!(evidence);
            output["scores"] = json!(scores);
            output["overall_score"] = json!(scores.overall.low);
        }
        Ok(context)
    }

    /// The sources of skills whose repair is asked for, as far as the cycle does not look at them
    /// anyway.
    async fn reread(
        &self,
        connection: &Connection,
        context: &StageContext,
    ) -> store::Result<Vec<SourceConfig>> {
        let mut reread: Vec<SourceConfig> = Vec::new();
        for request in context.requests.iter().filter(|request| request.fingerprint.is_some()) {
            let Some(skill) = &request.skill else { continue };
            let Some(known) = skills::known(connection, skill).await? else { continue };
            let is_new = |source: &&SourceConfig| {
                !context.sources.iter().chain(&reread).any(|other| other.name == source.name)
            };
            let source = self.parts.sources.get(&known.source);
            let source = source.filter(|source| source.enabled).filter(is_new).cloned();
            reread.extend(source);
        }
        Ok(reread)
    }

    /// A run's source as an operator has configured it, or had when it was found.
    pub(super) fn source_of<'a>(
        &'a self,
        run: &'a runs::Run,
        name: &str,
    ) -> Option<&'a SourceConfig> {
        self.parts.sources.get(name).or(run.source.as_ref())
    }

    /// Learning sees the sources of its trigger, or all; a candidate its own.
    fn sources_for(&self, run: &runs::Run) -> Vec<SourceConfig> {
        let sources = &self.parts.sources;
        match (&run.kind, &run.candidate) {
            (RunKind::Candidate, Some(candidate)) => {
                // A source that is not configured any more counts as it was when the candidate was
                // found.
                let now = sources.get(&candidate.source).cloned();
                now.or_else(|| run.source.clone()).into_iter().collect()
            }
            _ => {
                let wanted = run.trigger.get("sources").and_then(Value::as_array);
                sources
                    .all()
                    .iter()
                    .filter(|source| match wanted {
                        Some(names) => names.iter().any(|name| name.as_str() == Some(&source.name)),
                        None => source.enabled,
                    })
                    .cloned()
                    .collect()
            }
        }
    }
}
