//! One attempt at a task: from the dispatch to the report.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use evo_common::{
    clock::Timestamp,
    ids::Attempt,
    messages::{
        DecodeError, TaskDispatch, TaskReport, TaskStatus, TaskUpdate, TraceContext, decode, events,
    },
    tracing_context,
};
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tracing::Instrument as _;

use super::{dispatch::panic_text, work::Report};
use crate::{
    handler::{AgentHandler, Services},
    skill::package::Package,
    task::{
        Progress, Skills, TaskDone, TaskError, TaskJob, codes, cut, progress::Say, skills::text_of,
    },
};

/// How much earlier than king the runner gives up, so that its report still arrives in time.
const MARGIN_MS: u64 = 500;
/// Largest result.
const MAX_RESULT: usize = 1024 * 1024;

/// What king invites to.
#[derive(Debug)]
pub(super) enum Invited {
    /// Work for this runner.
    Work(Box<TaskDispatch>),
    /// Work that can't be started; its failure can be reported.
    Refused(Box<TaskReport>),
    /// Something that others work at.
    Other,
    /// Work, but not even the attempt is known.
    Unknown(DecodeError),
}

/// Reads a `task:invite`. One without an attempt is the original's: it only tells that there is a
/// task.
pub(super) fn read(payload: Value, agent_id: &str) -> Invited {
    let payload = match payload {
        Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::Null),
        other => other,
    };
    if payload.is_object() && payload.get("attempt").is_none() {
        return Invited::Other;
    }
    let task_id = payload.get("task_id").and_then(Value::as_str).map(str::to_owned);
    let attempt = payload.get("attempt").and_then(Value::as_u64);
    let attempt = attempt.and_then(|attempt| u32::try_from(attempt).ok());
    match (decode::<TaskDispatch>(events::TASK_INVITE, payload), task_id, attempt) {
        (Ok(dispatch), ..) => Invited::Work(Box::new(dispatch)),
        (Err(error), Some(task_id), Some(attempt)) => {
            let error = TaskError::permanent(codes::INVALID, error.to_string());
            let ended = Ended { result: Err(error), ..Ended::default() };
            Invited::Refused(Box::new(ended.report(agent_id, &task_id, Attempt(attempt))))
        }
        (Err(error), ..) => Invited::Unknown(error),
    }
}

/// What an attempt works with.
pub(super) struct Workshop {
    pub(super) agent_id: String,
    pub(super) handler: Arc<dyn AgentHandler>,
    pub(super) services: Services,
    pub(super) behavior: String,
    /// Skills of the agent's own folder.
    pub(super) local: Arc<Vec<Package>>,
    pub(super) servers: std::collections::BTreeMap<String, String>,
    pub(super) say: Say,
}

/// How an attempt ended.
struct Ended {
    result: Result<TaskDone, TaskError>,
    /// What was written before an attempt failed.
    text: String,
    calls: Value,
    steps: u32,
    usage: Option<evo_common::stage::ModelUsage>,
    latency_ms: u64,
}

impl Default for Ended {
    fn default() -> Self {
        Self {
            result: Ok(TaskDone { result: Value::Null }),
            text: String::new(),
            calls: json!([]),
            steps: 0,
            usage: None,
            latency_ms: 0,
        }
    }
}

impl Ended {
    fn report(self, agent_id: &str, task_id: &str, attempt: Attempt) -> TaskReport {
        let mut carrier = HashMap::new();
        tracing_context::inject_context(&mut carrier);
        let (status, payload, error, transient) = match self.result {
            Ok(TaskDone { result }) => {
                let payload = json!({"result": bounded(result), "tool_calls": self.calls});
                (TaskStatus::Completed, payload, None, false)
            }
            Err(TaskError { code, message, transient }) => {
                let message = evo_common::redact::redact(&message).into_owned();
                let text = Some(self.text).filter(|text| !text.is_empty());
                let payload = json!({
                    "result": text, "tool_calls": self.calls,
                    "error": {"code": code, "message": message},
                });
                (TaskStatus::Failed, payload, Some(format!("{code}: {message}")), transient)
            }
        };
        TaskReport {
            update: TaskUpdate {
                task_id: task_id.to_owned(),
                status: Some(status),
                agent_id: Some(agent_id.to_owned()),
                payload: Some(payload),
            },
            attempt,
            req_id: String::new(),
            error,
            transient,
            steps: self.steps,
            usage: self.usage,
            latency_ms: self.latency_ms,
            trace: (!carrier.is_empty()).then_some(TraceContext(carrier)),
        }
    }
}

/// A result that is too large is cut, as text.
fn bounded(result: Value) -> Value {
    let text = text_of(&result);
    if text.len() <= MAX_RESULT { result } else { Value::String(cut(&text, MAX_RESULT)) }
}

/// Runs the handler. `None` when the job was cancelled: nobody wants its result.
pub(super) async fn run(shop: Workshop, dispatch: Box<TaskDispatch>) -> Option<Report> {
    let span = tracing::info_span!(
        "task",
        task.id = %dispatch.invite.task_id,
        attempt = %dispatch.attempt,
        agent.id = %shop.agent_id,
        evo.component = %shop.agent_id,
    );
    if let Some(TraceContext(carrier)) = &dispatch.trace {
        tracing_context::set_parent(&span, carrier);
    }
    attempt(shop, *dispatch).instrument(span).await.map(|report| Report::Task(Box::new(report)))
}

async fn attempt(shop: Workshop, dispatch: TaskDispatch) -> Option<TaskReport> {
    let started = tokio::time::Instant::now();
    let (task_id, number) = (dispatch.invite.task_id.clone(), dispatch.attempt);
    let agent_id = shop.agent_id.clone();
    let deadline = Timestamp(dispatch.deadline_ms)
        .min(Timestamp::now().plus_ms(dispatch.limits.timeout_ms.max(1)));
    let cancel = shop.services.cancel.clone();
    let progress = Progress::new(&agent_id, &task_id, number, Arc::clone(&shop.say));
    let gateway = shop.services.gateway.as_ref().map(|gateway| {
        gateway.for_work(&task_id, "task", deadline).preferring(dispatch.model.clone())
    });
    tracing::info!("Task {task_id} starts (attempt {number})");
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => {
            tracing::info!("Task {task_id} was stopped (attempt {number})");
            return None;
        }
        result = until_deadline(shop, dispatch, deadline, gateway.clone(), &progress) => result,
    };
    match &result {
        Ok(_) => tracing::info!("Task {task_id} completed"),
        Err(error) => {
            tracing::warn!(%error, code = %error.code, "Task {task_id} failed: {error}");
            progress.error(&error.message, &error.code).await;
        }
    }
    progress.finish().await;
    let ended = Ended {
        result,
        text: progress.text(),
        calls: json!(progress.calls()),
        steps: progress.steps(),
        usage: gateway.map(|gateway| gateway.usage()).filter(|usage| usage.calls > 0),
        latency_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    Some(ended.report(&agent_id, &task_id, number))
}

async fn until_deadline(
    shop: Workshop,
    dispatch: TaskDispatch,
    deadline: Timestamp,
    gateway: Option<crate::gateway::GatewayClient>,
    progress: &Progress,
) -> Result<TaskDone, TaskError> {
    let left = deadline.ms_since(Timestamp::now());
    let limit = Duration::from_millis(left - MARGIN_MS.min(left / 10));
    let cancel = shop.services.cancel.child_token();
    let _stop_whatever_the_handler_started = cancel.clone().drop_guard();
    let work = async move {
        // Whoever gave out the task may know of a skill that was activated a moment ago.
        shop.services.skills.known().await;
        let skills = Skills::new(
            &shop.agent_id,
            shop.services.skills.clone(),
            &shop.local,
            shop.servers,
            shop.services.executor.clone(),
            progress.clone(),
            deadline,
        );
        let job = TaskJob {
            skills: skills.await,
            progress: progress.clone(),
            task_id: dispatch.invite.task_id,
            task_type: dispatch.invite.task_type,
            attempt: dispatch.attempt,
            summary: dispatch.summary,
            payload: dispatch.invite.payload,
            memories: dispatch.memories,
            limits: dispatch.limits,
            deadline,
            behavior: shop.behavior,
            services: Services { gateway, cancel, ..shop.services },
        };
        shop.handler.task(job).await
    };
    match tokio::time::timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => {
            let message = format!("the handler panicked: {}", panic_text(&*panic));
            Err(TaskError::permanent(codes::PANICKED, message))
        }
        Err(_) => {
            let ms = limit.as_millis();
            let message = format!("no result within {ms} ms; allow more with `limits.timeout_ms`");
            Err(TaskError::permanent(codes::DEADLINE, message))
        }
    }
}

#[cfg(test)]
mod tests;
