//! A stage came to nothing and king's own means are at an end: an evaluation runner that can say
//! how to go on is asked, and has 30 seconds for its answer.

use evo_common::{
    api::RunKind,
    clock::Timestamp,
    ids::sha256_hex,
    messages::{
        AgentRole, ErrorRecoveryAction, ErrorRecoveryRequest, ErrorRecoveryResponse, PipelineStage,
        RecoveryDispatch, RecoveryReport, Reply, TaskSubtaskSpec, TraceContext, decode, events,
    },
    outcome::{Outcome, codes},
    tracing_context,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Coordinator, ReportError,
    apply::Report,
    state::{Advice, AdviceEnd, Advisor, Command, Decision, Policy, Rejection, RunState, decide},
};
use crate::store::{self, Connection, events as log, outbox, recoveries, runs, tasks};

/// The capability of a runner that can be asked.
const CAPABILITY: &str = "recovery";
/// Largest output of the failed stage that travels with the question.
const MAX_OUTPUT: usize = 16 * 1024;
/// Most parts that a task is split into.
const MAX_SUBTASKS: usize = 20;
/// Most runners that are asked about one failure.
const MAX_ASKED: usize = 3;
/// Longest reason that is kept.
const MAX_REASON: usize = 2_000;

impl Coordinator {
    /// What follows from a command. When it would give up a stage, and there is somebody who can
    /// say how to go on, that one is asked first.
    pub(super) fn decide(
        &self,
        holder: Option<&str>,
        state: &RunState,
        command: &Command,
    ) -> Result<Decision, Rejection> {
        let decision = decide(state, command, &self.parts.policy)?;
        let gives_up = matches!(
            (state, command, &decision.next),
            (
                RunState::Leased { .. },
                Command::Report { .. } | Command::RunnerLost { .. } | Command::Tick { .. },
                RunState::Ended { outcome: Some(Outcome { code, .. }), .. },
            ) if code == codes::STAGE_FAILED || code == codes::TIMED_OUT
        );
        if !gives_up {
            return Ok(decision);
        }
        let Some(advisor) = self.advisor(holder, &[]) else { return Ok(decision) };
        decide(state, command, &Policy { advisor: Some(advisor), ..self.parts.policy.clone() })
    }

    /// Who can be asked besides those that were; not the runner that just failed, if there is another
    /// one. The time is shared by all that can be asked one after the other.
    fn advisor(&self, holder: Option<&str>, asked: &[&str]) -> Option<Advisor> {
        let mut able = self.parts.registry.able(&AgentRole::Evaluation, CAPABILITY);
        let shares = able.len().clamp(1, MAX_ASKED);
        able.retain(|agent| !asked.contains(&agent.as_str()));
        let other = able.iter().find(|agent| Some(agent.as_str()) != holder).cloned();
        let agent = other.or_else(|| able.into_iter().next())?;
        let shares = u64::try_from(shares).unwrap_or(1);
        Some(Advisor {
            agent,
            request_id: format!("recovery-{}", uuid::Uuid::now_v7().simple()),
            share_ms: self.parts.policy.advice_ms / shares,
        })
    }

    /// Whether anybody can be asked.
    pub(super) fn can_be_advised(&self) -> bool {
        !self.parts.registry.able(&AgentRole::Evaluation, CAPABILITY).is_empty()
    }

    /// Asks somebody else when the time of whoever was asked is over, or when that one is gone. Says
    /// whether that was so.
    pub(super) async fn pass_on(
        &self,
        connection: &Connection,
        now: Timestamp,
        run: &runs::Run,
    ) -> super::Result<bool> {
        let RunState::Recovering { agent, deadline, turn_ends, silent, .. } = &run.state else {
            return Ok(false);
        };
        let turn_is_over = turn_ends.is_some_and(|turn| turn <= now);
        if *deadline <= now || !turn_is_over && self.parts.registry.is_connected(agent) {
            return Ok(false);
        }
        let mut asked: Vec<&str> = silent.iter().map(String::as_str).collect();
        asked.push(agent);
        let advisor = if silent.len() + 1 < MAX_ASKED { self.advisor(None, &asked) } else { None };
        if advisor.is_none() && !turn_is_over {
            // It may come back in time.
            return Ok(false);
        }
        match self.command(connection, run, &Command::PassOn { advisor, now }).await {
            Ok(()) => Ok(true),
            Err(super::Error::Rejected(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes a question.
    pub(super) async fn ask(
        &self,
        connection: &Connection,
        now: Timestamp,
        run: &runs::Run,
        next: &RunState,
        report: Option<&Report<'_>>,
    ) -> store::Result<()> {
        let RunState::Recovering {
            stage, attempt, agent, request_id, deadline, status, error, ..
        } = next
        else {
            return Ok(());
        };
        let question = recoveries::Question {
            request_id,
            run_id: &run.run_id,
            stage: *stage,
            attempt: *attempt,
            agent_id: agent,
            error,
            deadline: *deadline,
        };
        recoveries::insert(connection, now, question).await?;
        let output = match (&run.state, report.and_then(|report| report.output)) {
            // What the first one was told.
            (RunState::Recovering { request_id, .. }, None) => {
                let earlier = outbox::payload(connection, &outbox_key(request_id)).await?;
                earlier.map(|mut earlier| earlier["stage_output"].take())
            }
            (_, output) => output.cloned(),
        };
        // A direct run is its own; a candidate's is a part of its cycle's task.
        let cycle = runs::cycle_of(connection, run).await?;
        let dispatch = RecoveryDispatch {
            request: ErrorRecoveryRequest {
                request_id: request_id.clone(),
                run_id: run.run_id.clone(),
                task_id: tasks::id_of_run(&cycle.unwrap_or_else(|| run.run_id.clone())),
                failed_stage: *stage,
                error_message: error.clone(),
                stage_output: output
                    .filter(|output| output.is_object() && output.to_string().len() <= MAX_OUTPUT)
                    .unwrap_or_else(|| json!({})),
                retry_count: attempt.0.saturating_sub(1),
                task_summary: summary(run),
            },
            deadline_ms: deadline.0,
            model: self.parts.registry.model_of(agent),
            trace: Some(TraceContext(tracing_context::run_carrier(&run.run_id)))
                .filter(|TraceContext(carrier)| !carrier.is_empty()),
        };
        let payload = serde_json::to_value(&dispatch).expect("a question is plain data");
        let key = outbox_key(request_id);
        outbox::push(connection, now, outbox::RECOVERY, &key, Some(agent), &payload).await?;
        let payload = json!({
            "request_id": request_id, "stage": stage, "attempt": attempt, "status": status,
            "error": error, "deadline": deadline.to_rfc3339(),
        });
        let (id, agent) = (Some(run.run_id.as_str()), Some(agent.as_str()));
        log::append(connection, now, "recovery.requested", id, agent, &payload).await?;
        Ok(())
    }

    /// A runner says how to go on.
    pub async fn advised(&self, agent_id: String, report: RecoveryReport) -> Reply {
        let RecoveryReport { response, req_id } = report;
        let req_id = req_id.unwrap_or_default();
        let run_id = response.run_id.clone();
        let this = self.clone();
        let taken = self
            .parts
            .store
            .write(async move |connection: &Connection| {
                this.take_advice(connection, &agent_id, &response).await
            })
            .await;
        match taken {
            Ok(true) => {
                self.parts.wake.notify_one();
                Reply::accepted(req_id)
            }
            Ok(false) => Reply::duplicate(req_id),
            Err(ReportError::Rejected { code, message }) => {
                tracing::warn!(run.id = %run_id, code, "Advice was rejected: {message}");
                Reply::rejected(req_id, code, message)
            }
            Err(ReportError::Store(error)) => {
                tracing::error!(run.id = %run_id, %error, "Advice could not be stored: {error}");
                Reply::retry(req_id, "king could not store the answer; send it again")
            }
        }
    }

    /// Whether the answer was taken now (false: it had been before).
    async fn take_advice(
        &self,
        connection: &Connection,
        agent_id: &str,
        response: &ErrorRecoveryResponse,
    ) -> Result<bool, ReportError> {
        let request_id = response.request_id.as_str();
        let Some(asked) = recoveries::get(connection, request_id).await? else {
            let message = format!("king asked nobody under the request id {request_id:?}");
            return Err(ReportError::rejected("unknown_request", message));
        };
        if asked.agent_id != agent_id {
            let rejection =
                Rejection::NotAsked { asked: asked.agent_id, given: agent_id.to_owned() };
            return Err(ReportError::rejected(rejection.code(), rejection.to_string()));
        }
        let digest = digest_of(response);
        match (&asked.answer_digest, asked.ended) {
            (Some(taken), _) if *taken == digest => return Ok(false),
            (Some(_), _) => {
                let message = "the request has been answered with something else";
                return Err(ReportError::rejected("already_answered", message));
            }
            (None, Some(how)) => {
                let message = format!("the request is settled: {how}");
                return Err(ReportError::rejected("stale_request", message));
            }
            (None, None) => {}
        }
        let run = runs::load(connection, &asked.run_id).await?.ok_or_else(|| {
            ReportError::rejected("unknown_run", format!("there is no run {:?}", asked.run_id))
        })?;
        let now = Timestamp::now();
        let command = Command::Advised {
            agent: agent_id.to_owned(),
            request_id: request_id.to_owned(),
            advice: advice(&run, response)?,
            now,
        };
        let decision = decide(&run.state, &command, &self.parts.policy)
            .map_err(|rejection| ReportError::rejected(rejection.code(), rejection.to_string()))?;
        self.apply(connection, now, &run, decision, None).await?;
        if response.action == ErrorRecoveryAction::Decompose {
            let parts = subtasks(&response.params)?;
            crate::tasks::create_subtasks_of_run(connection, now, &run, &parts).await?;
        }
        let reasoning = short(&response.reasoning);
        recoveries::save_answer(connection, request_id, &digest, &reasoning).await?;
        Ok(true)
    }
}

/// A question is settled: it is not sent any more.
pub(super) async fn over(
    connection: &Connection,
    now: Timestamp,
    run: &runs::Run,
    request_id: &str,
    how: AdviceEnd,
) -> store::Result<()> {
    outbox::remove(connection, &outbox_key(request_id)).await?;
    recoveries::close(connection, now, request_id, how.as_str()).await?;
    let payload = json!({"request_id": request_id, "action": how.as_str()});
    let id = Some(run.run_id.as_str());
    log::append(connection, now, "recovery.ended", id, None, &payload).await?;
    Ok(())
}

fn outbox_key(request_id: &str) -> String {
    format!("recovery:{request_id}")
}

/// What a run is about, in a line.
fn summary(run: &runs::Run) -> String {
    match (&run.candidate, run.kind) {
        (Some(candidate), _) => format!("{} ({})", candidate.name, candidate.locator),
        (None, RunKind::Direct) => "a direct run".to_owned(),
        (None, _) => "a cycle".to_owned(),
    }
}

/// What an answer means for this run.
fn advice(run: &runs::Run, response: &ErrorRecoveryResponse) -> Result<Advice, ReportError> {
    let reason = match short(&response.reasoning) {
        reason if reason.is_empty() => "no reason was given".to_owned(),
        reason => reason,
    };
    Ok(match response.action {
        ErrorRecoveryAction::Retry => Advice::Retry,
        ErrorRecoveryAction::Abort => Advice::Abort { reason },
        ErrorRecoveryAction::Skip => Advice::Skip { ends: ends_by_skip(run, &reason), reason },
        ErrorRecoveryAction::Decompose => {
            Advice::Decompose { parts: subtasks(&response.params)?.len(), reason }
        }
    })
}

/// How a candidate's run ends when its stage is skipped: nothing becomes active unmeasured, or
/// undecided. A direct run goes on.
fn ends_by_skip(run: &runs::Run, reason: &str) -> Option<Outcome> {
    run.candidate.as_ref()?;
    let (code, what) = match run.state.at() {
        Some((PipelineStage::Evaluation, _)) => {
            (codes::EVALUATION_SKIPPED, "nothing was measured, so nothing becomes active")
        }
        _ => (codes::DECISION_SKIPPED, "nothing was decided, so nothing becomes active"),
    };
    Some(Outcome::held(code, format!("the stage failed and was skipped ({reason}): {what}")))
}

/// The parts that a task is to be split into.
fn subtasks(params: &Value) -> Result<Vec<TaskSubtaskSpec>, ReportError> {
    #[derive(Deserialize)]
    struct Params {
        subtasks: Vec<TaskSubtaskSpec>,
    }
    let invalid = |message: String| ReportError::rejected("invalid_field", message);
    let Params { subtasks } = decode(events::ERROR_RECOVERY_RESPONSE, params.clone())
        .map_err(|error| invalid(format!("field `params.{}`: {}", error.path, error.message)))?;
    if subtasks.is_empty() || subtasks.len() > MAX_SUBTASKS {
        return Err(invalid(format!(
            "field `params.subtasks` has {} entries; `decompose` needs 1 to {MAX_SUBTASKS}",
            subtasks.len()
        )));
    }
    Ok(subtasks)
}

fn digest_of(response: &ErrorRecoveryResponse) -> String {
    let said = json!([response.action, response.params, response.reasoning]);
    sha256_hex(said.to_string().as_bytes())
}

fn short(text: &str) -> String {
    text.chars().take(MAX_REASON).collect()
}
