//! What king asks beside work: prompts of operators, and advice.

use std::{panic::AssertUnwindSafe, sync::Arc};

use evo_common::{
    clock::Timestamp,
    messages::{
        DebugPrompt, DebugResponse, DecomposeReport, ErrorRecoveryResponse, ModelPreference,
        RecoveryReport, SummaryReport, TaskDecomposeResponse, TaskSummary, TraceContext,
    },
    tracing_context,
};
use futures_util::FutureExt as _;
use serde_json::json;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::dispatch::panic_text;
use crate::{
    advice::{Advice, AdviceJob, Question},
    handler::{AgentHandler, CommandError, Services},
    king::{Ask, ToKing},
    prompt::{PromptJob, PromptStream},
    task::progress::Say,
};

/// How long a prompt may take when king does not say.
const PROMPT_MS: u64 = 300_000;
/// Most parts of a task when king does not say.
const SUBTASKS: u32 = 8;

/// Who answers. Cheap to clone.
#[derive(Clone)]
pub(super) struct Adviser {
    pub(super) agent_id: String,
    pub(super) role: String,
    pub(super) behavior: String,
    pub(super) handler: Arc<dyn AgentHandler>,
    pub(super) services: Services,
    pub(super) say: Say,
}

impl Adviser {
    /// Finds an answer; none when nobody waits for it any more, or the agent has none.
    pub(super) async fn answer(self, ask: Ask) -> Option<ToKing> {
        let (name, trace) = match &ask {
            Ask::Prompt(prompt) => ("prompt", prompt.trace.clone()),
            Ask::Recovery(dispatch) => ("recovery", dispatch.trace.clone()),
            Ask::Decompose(dispatch) => ("decompose", dispatch.trace.clone()),
            Ask::Evaluate(dispatch) => ("evaluate", dispatch.trace.clone()),
        };
        let span = tracing::info_span!(
            "ask", ask = name, agent.id = %self.agent_id, evo.component = %self.agent_id
        );
        if let Some(TraceContext(carrier)) = &trace {
            tracing_context::set_parent(&span, carrier);
        }
        let cancel = self.services.cancel.clone();
        let work = async move {
            match ask {
                Ask::Prompt(prompt) => Some(self.prompt(*prompt).await),
                other => self.advice(other).await,
            }
        };
        tokio::select! {
            () = cancel.cancelled() => None,
            answer = work.instrument(span) => answer,
        }
    }

    fn services(
        &self,
        id: &str,
        kind: &'static str,
        deadline: Timestamp,
        model: Option<ModelPreference>,
    ) -> Services {
        let gateway = self.services.gateway.as_ref();
        let gateway = gateway.map(|gateway| gateway.for_work(id, kind, deadline).preferring(model));
        Services { gateway, ..self.services.clone() }
    }

    async fn prompt(self, prompt: DebugPrompt) -> ToKing {
        let started = Instant::now();
        let deadline =
            prompt.deadline_ms.map_or_else(|| Timestamp::now().plus_ms(PROMPT_MS), Timestamp);
        let services = self.services(&prompt.task_id, "debug", deadline, None);
        let (request_id, task_id) = (prompt.request_id.clone(), prompt.task_id.clone());
        let asked_model = prompt.model.clone();
        let stream = PromptStream::new(&prompt, Arc::clone(&self.say));
        let job = PromptJob::new(prompt, self.behavior.clone(), deadline, stream, services);
        let work = AssertUnwindSafe(self.handler.prompt(job)).catch_unwind();
        let result = work.await.unwrap_or_else(|panic| {
            let message = format!("the handler panicked: {}", panic_text(&*panic));
            Err(CommandError::new("panicked", message))
        });
        let mut response = DebugResponse {
            request_id,
            agent_id: self.agent_id,
            role: self.role,
            model: asked_model,
            response: None,
            error: None,
            latency_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            task_id: Some(task_id).filter(|id| !id.is_empty()),
            usage: None,
            req_id: None,
        };
        match result {
            Ok(done) => {
                response.model = done.model;
                response.response = Some(done.response);
                response.usage = Some(done.usage);
            }
            Err(error) => {
                tracing::warn!(%error, "A prompt failed: {error}");
                response.error = Some(format!("{}: {}", error.code, error.message));
            }
        }
        ToKing::DebugResponse(Box::new(response))
    }

    async fn advice(self, ask: Ask) -> Option<ToKing> {
        let (question, task_id, kind, deadline_ms, model) = match &ask {
            Ask::Prompt(_) => return None,
            Ask::Recovery(asked) => {
                let question = Question::Recovery(asked.request.clone());
                let id = &asked.request.run_id;
                (question, id, "recovery", asked.deadline_ms, &asked.model)
            }
            Ask::Decompose(asked) => {
                let most = asked.max_subtasks.unwrap_or(SUBTASKS);
                let most = usize::try_from(most).unwrap_or(usize::MAX);
                let question = Question::Decompose(asked.request.clone(), most);
                let id = &asked.request.task_id;
                (question, id, "decompose", asked.deadline_ms, &asked.model)
            }
            Ask::Evaluate(asked) => {
                let question = Question::Evaluate(asked.evaluate.clone());
                let id = &asked.evaluate.task_id;
                (question, id, "evaluate", asked.deadline_ms, &asked.model)
            }
        };
        let deadline = Timestamp(deadline_ms);
        let services = self.services(task_id, kind, deadline, model.clone());
        let job = AdviceJob { question, deadline, services };
        let left = std::time::Duration::from_millis(deadline.ms_since(Timestamp::now()));
        let work = AssertUnwindSafe(self.handler.advice(job)).catch_unwind();
        let advice = match tokio::time::timeout(left, work).await {
            Ok(Ok(advice)) => advice?,
            Ok(Err(panic)) => {
                tracing::error!(
                    "No advice ({kind}): the handler panicked: {}",
                    panic_text(&*panic)
                );
                return None;
            }
            Err(_) => {
                tracing::warn!("No advice ({kind}) within {} ms", left.as_millis());
                return None;
            }
        };
        let answer = into_answer(ask, advice, self.agent_id);
        if answer.is_none() {
            tracing::error!("The handler gave advice that was not asked for ({kind})");
        }
        answer
    }
}

fn into_answer(ask: Ask, advice: Advice, agent_id: String) -> Option<ToKing> {
    Some(match (ask, advice) {
        (Ask::Recovery(asked), Advice::Recovery { action, reasoning }) => {
            let response = ErrorRecoveryResponse {
                request_id: asked.request.request_id,
                run_id: asked.request.run_id,
                task_id: asked.request.task_id,
                action,
                params: json!({}),
                reasoning,
            };
            ToKing::Recovery(Box::new(RecoveryReport { response, req_id: None }))
        }
        (Ask::Decompose(asked), Advice::Decompose { subtasks, reasoning }) => {
            let response = TaskDecomposeResponse {
                request_id: asked.request.request_id,
                run_id: asked.request.run_id,
                task_id: asked.request.task_id,
                should_decompose: !subtasks.is_empty(),
                reasoning,
                subtasks,
            };
            ToKing::Decomposed(Box::new(DecomposeReport { response, req_id: None }))
        }
        (Ask::Evaluate(asked), Advice::Evaluate { summary, score, tags, evaluation, usage }) => {
            let task_id = asked.evaluate.task_id;
            let summary = TaskSummary { task_id, agent_id, summary, score, tags, evaluation };
            ToKing::Summary(Box::new(SummaryReport {
                summary,
                request_id: Some(asked.request_id),
                req_id: None,
                usage: Some(usage).filter(|usage| usage.calls > 0),
            }))
        }
        _ => return None,
    })
}
