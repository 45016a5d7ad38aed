//! Writes a decision: state, stage and attempt rows, event-log rows, outbox effects, and what the
//! end of a run means for its skill and its cycle. All in the caller's transaction.

use evo_common::{
    api::RunKind,
    clock::Timestamp,
    ids::Attempt,
    messages::{PipelineRunStatus, PipelineStage},
    outcome::{Outcome, Verdict, codes},
    rollout::VersionRef,
    stage::CandidateKind,
};
use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};

use super::{
    Coordinator, recovery,
    state::{AttemptEnd, Command, Decision, Effect, RunState, decide},
};
use crate::{
    memory::outcomes,
    skills::{lifecycle, promotion, requests},
    store::{self, Connection, agents, events, outbox, runs, skills, timers},
};

/// What a report brings into a decision.
pub(super) struct Report<'r> {
    pub(super) agent_id: &'r str,
    pub(super) artifact_id: &'r str,
    pub(super) output: Option<&'r Value>,
    pub(super) digest: &'r str,
}

impl Coordinator {
    /// Writes a decision about a run. `report` is there when a result led to it.
    pub(super) fn apply<'a>(
        &'a self,
        connection: &'a Connection,
        now: Timestamp,
        run: &'a runs::Run,
        decision: Decision,
        report: Option<&'a Report<'a>>,
    ) -> LocalBoxFuture<'a, store::Result<()>> {
        // Boxed because the end of a run leads to a decision about its cycle.
        Box::pin(async move {
            // The package first: the end of a run writes what is known of it into its trace.
            if let Some(report) = report
                && !report.artifact_id.is_empty()
                && report.artifact_id != run.artifact_id
            {
                runs::save_artifact(connection, &run.run_id, report.artifact_id).await?;
            }
            runs::save_state(connection, now, &run.run_id, &decision.next).await?;
            if run.kind == RunKind::Candidate
                && is_building(&run.state)
                && !is_building(&decision.next)
            {
                // Its siblings may have waited for it.
                connection.leaves_waiting(PipelineStage::Evaluation);
            }
            if let Some(agent) = run.state.agent() {
                self.parts.registry.released(agent);
            }
            if let Some(agent) = decision.next.agent() {
                self.parts.registry.leased(agent);
            }
            for effect in &decision.effects {
                self.apply_effect(connection, now, run, &decision.next, effect, report).await?;
            }
            if let (
                RunState::Leased { stage, attempt, .. }
                | RunState::Recovering { stage, attempt, .. },
                RunState::Waiting { not_before, .. },
            ) = (&run.state, &decision.next)
                && run.state.at().map(|at| at.0) == decision.next.at().map(|at| at.0)
            {
                let payload = json!({
                    "stage": stage,
                    "attempt": attempt.next(),
                    "not_before": not_before.to_rfc3339(),
                });
                let id = Some(run.run_id.as_str());
                events::append(connection, now, "stage.retried", id, None, &payload).await?;
            }
            Ok(())
        })
    }

    pub(super) async fn apply_effect(
        &self,
        connection: &Connection,
        now: Timestamp,
        run: &runs::Run,
        next: &RunState,
        effect: &Effect,
        report: Option<&Report<'_>>,
    ) -> store::Result<()> {
        let run_id = run.run_id.as_str();
        match effect {
            Effect::Dispatch => {
                let RunState::Leased { stage, attempt, agent, .. } = next else { return Ok(()) };
                runs::open_attempt(connection, now, run_id, *stage, *attempt, agent).await?;
                let artifact_id = artifact_of(run, report);
                let row = runs::StageRow {
                    run_id,
                    stage: *stage,
                    status: PipelineRunStatus::Running,
                    attempt: *attempt,
                    agent_id: Some(agent),
                    artifact_id,
                    output: None,
                    error: None,
                };
                runs::save_stage(connection, now, row).await?;
                let payload = json!({
                    "run_id": run_id, "stage": stage, "attempt": attempt,
                    "artifact_id": artifact_id,
                });
                let (id, agent) = (Some(run_id), Some(agent.as_str()));
                events::append(connection, now, "stage.dispatched", id, agent, &payload).await?;
                // The lease itself is the effect: it says what is to be sent until it ends.
                self.send_after_commit(connection, run, next, artifact_id).await?;
            }
            Effect::CloseAttempt { stage, attempt, how } => {
                let digest = report.map(|report| report.digest);
                runs::close_attempt(connection, now, run_id, *stage, *attempt, *how, digest)
                    .await?;
                if let (AttemptEnd::Lost, Some(agent)) = (how, run.state.agent()) {
                    agents::lost_attempt(connection, now, agent).await?;
                }
                let (this, run_id) = (self.clone(), run_id.to_owned());
                let (stage, attempt) = (*stage, *attempt);
                connection.after_commit(move || {
                    this.parts.flights.remove(&run_id, stage, attempt);
                });
            }
            Effect::CancelAttempt { agent, stage, attempt, reason } => {
                let payload = json!({
                    "run_id": run_id, "stage": stage, "attempt": attempt, "reason": reason,
                });
                let key = format!("cancel:{run_id}:{stage}:{attempt}");
                outbox::push(connection, now, outbox::CANCEL, &key, Some(agent), &payload).await?;
            }
            Effect::Ask => self.ask(connection, now, run, next, report).await?,
            Effect::AdviceOver { request_id, how } => {
                recovery::over(connection, now, run, request_id, *how).await?;
            }
            Effect::StageEnded { stage, status, error } => {
                let attempt = run.state.at().map_or(Attempt::FIRST, |(_, attempt)| attempt);
                let agent_id = report.map(|report| report.agent_id).or_else(|| run.state.agent());
                let artifact_id = artifact_of(run, report);
                let output = report.and_then(|report| report.output);
                let row = runs::StageRow {
                    run_id,
                    stage: *stage,
                    status: *status,
                    attempt,
                    agent_id,
                    artifact_id,
                    output,
                    error: error.as_deref(),
                };
                runs::save_stage(connection, now, row).await?;
                let kind = match status {
                    PipelineRunStatus::Completed => "stage.completed",
                    _ => "stage.failed",
                };
                // The shape of a stage result, so that observers get it from the log as it is.
                let payload = json!({
                    "run_id": run_id, "stage": stage, "agent_id": agent_id.unwrap_or_default(),
                    "status": status, "artifact_id": artifact_id, "output": output,
                    "error": error, "attempt": attempt, "candidate": run.candidate.as_ref().map(|c| &c.name),
                });
                events::append(connection, now, kind, Some(run_id), agent_id, &payload).await?;
            }
            Effect::RunEnded => self.end_run(connection, now, run, next, report).await?,
        }
        Ok(())
    }

    /// What the end of a run means for its skill and its cycle.
    async fn end_run(
        &self,
        connection: &Connection,
        now: Timestamp,
        run: &runs::Run,
        next: &RunState,
        report: Option<&Report<'_>>,
    ) -> store::Result<()> {
        let RunState::Ended { status, outcome } = next else { return Ok(()) };
        let id = Some(run.run_id.as_str());
        if run.kind == RunKind::Cycle {
            let payload = json!({"status": status, "outcome": outcome});
            events::append(connection, now, "cycle.ended", id, None, &payload).await?;
            return Ok(());
        }
        if let (Some(candidate), Some(outcome)) = (&run.candidate, outcome) {
            let artifact_id = artifact_of(run, report);
            if candidate.kind == CandidateKind::InUse {
                // Whatever was found out, nothing of the skill changes.
                self.look_later(connection, now, run, outcome).await?;
            } else {
                let name = &candidate.name;
                self.end_candidate(connection, now, run, name, artifact_id, outcome).await?;
                outcomes::remember(connection, now, &run.run_id, candidate, outcome).await?;
            }
            if let Some(request_id) = &candidate.request_id {
                let looks_again = looks_again(run, outcome);
                let (run_id, name, version) = (&run.run_id, &candidate.name, &run.version);
                let ended = requests::Ended {
                    run_id,
                    name,
                    version,
                    artifact_id,
                    outcome,
                    looks_again,
                    reuses: candidate.kind.reuses(),
                };
                let next = requests::run_ended(connection, now, request_id, ended).await?;
                self.go_on(connection, now, request_id, next).await?;
            }
        }
        let name = run.candidate.as_ref().map(|candidate| &candidate.name);
        let payload = json!({"kind": run.kind, "name": name, "status": status, "outcome": outcome});
        events::append(connection, now, "run.ended", id, None, &payload).await?;
        if let Some(parent) = &run.parent_run_id
            && let Some(parent) = runs::load(connection, parent).await?
            && let Ok(decision) = decide(&parent.state, &Command::ChildEnded, &self.parts.policy)
        {
            self.apply(connection, now, &parent, decision, None).await?;
        }
        Ok(())
    }

    async fn end_candidate(
        &self,
        connection: &Connection,
        now: Timestamp,
        run: &runs::Run,
        name: &str,
        artifact_id: &str,
        outcome: &Outcome,
    ) -> store::Result<()> {
        let mut outcome = outcome.clone();
        if outcome.decision == Verdict::Active {
            let version =
                VersionRef { artifact_id: artifact_id.to_owned(), version: run.version.clone() };
            let (config, reason) = (&self.parts.config.skills, outcome.reason.as_str());
            let started =
                lifecycle::start(connection, now, config, name, &version, None, reason).await?;
            if let Some(share) = started {
                codes::CANARY.clone_into(&mut outcome.code);
                outcome.reason += &format!(" It gets {share} % of the calls at first.");
            }
        }
        skills::decide(connection, now, name, artifact_id, &outcome).await?;
        self.look_later(connection, now, run, &outcome).await
    }

    async fn look_later(
        &self,
        connection: &Connection,
        now: Timestamp,
        run: &runs::Run,
        outcome: &Outcome,
    ) -> store::Result<()> {
        if looks_again(run, outcome) {
            let due = now.plus_ms(self.parts.config.retry_look_after_ms);
            timers::set(connection, &run.run_id, timers::LOOK, due).await?;
        }
        Ok(())
    }
}

/// The package of a run once a report is applied.
fn artifact_of<'a>(run: &'a runs::Run, report: Option<&Report<'a>>) -> &'a str {
    report.map(|report| report.artifact_id).filter(|id| !id.is_empty()).unwrap_or(&run.artifact_id)
}

fn is_building(state: &RunState) -> bool {
    state.at().is_some_and(|(stage, _)| stage == PipelineStage::Building)
}

/// Whether a further look at a candidate follows.
fn looks_again(run: &runs::Run, outcome: &Outcome) -> bool {
    outcome.decision == Verdict::Held
        && run.look < evo_common::evidence::LOOKS
        && promotion::may_look_again(&outcome.code)
}
