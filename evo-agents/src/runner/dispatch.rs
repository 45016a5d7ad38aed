//! One attempt: from the dispatch to the report.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use evo_common::{
    clock::Timestamp,
    ids::Attempt,
    messages::{
        DecodeError, PipelineRunStatus, PipelineStage, PipelineStageResult, StageDispatch,
        StageReport, TraceContext, decode, events,
    },
    stage::StageContext,
    tracing_context,
};
use futures_util::FutureExt as _;
use serde_json::Value;
use tracing::Instrument as _;

use crate::handler::{AgentHandler, Services, StageDone, StageError, StageJob};

/// How much earlier than king the runner gives up, so that its report still arrives in time.
const MARGIN_MS: u64 = 500;
/// Largest report. King's WebSocket takes frames of 16 MiB; the rest is room for the envelope.
const MAX_REPORT_BYTES: usize = 12 * 1024 * 1024;

/// A `pipeline:next` that can't be started.
#[derive(Debug)]
pub(super) enum Malformed {
    /// The attempt is known: its failure can be reported.
    Refused(Box<StageReport>),
    /// Not even the attempt is known.
    Unknown(DecodeError),
}

/// Reads a `pipeline:next`.
pub(super) fn read(payload: Value, agent_id: &str) -> Result<Box<StageDispatch>, Malformed> {
    let error = match decode::<StageDispatch>(events::PIPELINE_NEXT, payload.clone()) {
        Ok(dispatch) => return Ok(Box::new(dispatch)),
        Err(error) => error,
    };
    let payload = match payload {
        Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::Null),
        other => other,
    };
    let run_id = payload.get("run_id").and_then(Value::as_str);
    let stage = payload
        .get("stage")
        .and_then(Value::as_str)
        .and_then(|stage| stage.parse::<PipelineStage>().ok());
    let attempt = payload
        .get("attempt")
        .and_then(Value::as_u64)
        .and_then(|attempt| u32::try_from(attempt).ok());
    let (Some(run_id), Some(stage), Some(attempt)) = (run_id, stage, attempt) else {
        return Err(Malformed::Unknown(error));
    };
    Err(Malformed::Refused(Box::new(StageReport {
        result: PipelineStageResult {
            run_id: run_id.to_owned(),
            stage,
            agent_id: agent_id.to_owned(),
            status: PipelineRunStatus::Failed,
            artifact_id: String::new(),
            output: Value::Null,
            error: Some(error.to_string()),
        },
        attempt: Some(Attempt(attempt)),
        req_id: None,
        transient: false,
        seq: None,
        trace: None,
    })))
}

/// Runs the handler. `None` when the job was cancelled: nobody wants its result.
pub(super) async fn run(
    handler: Arc<dyn AgentHandler>,
    services: Services,
    dispatch: Box<StageDispatch>,
    agent_id: String,
) -> Option<Box<StageReport>> {
    let span = tracing::info_span!(
        "stage",
        run.id = %dispatch.run_id,
        stage = %dispatch.next.stage,
        attempt = %dispatch.attempt,
        agent.id = %agent_id,
        // In `evo up` the runners share a process: each is a component of its own in the trace.
        evo.component = %agent_id,
    );
    if let Some(TraceContext(carrier)) = &dispatch.trace {
        tracing_context::set_parent(&span, carrier);
    }
    attempt(handler, services, dispatch, agent_id).instrument(span).await
}

async fn attempt(
    handler: Arc<dyn AgentHandler>,
    services: Services,
    dispatch: Box<StageDispatch>,
    agent_id: String,
) -> Option<Box<StageReport>> {
    let cancel = services.cancel.clone();
    let started = tokio::time::Instant::now();
    let (run_id, stage, number) = (dispatch.run_id.clone(), dispatch.next.stage, dispatch.attempt);
    let artifact_id = dispatch.next.artifact_id.clone();
    tracing::info!("Stage {stage} of run {run_id} starts (attempt {number})");
    let done = tokio::select! {
        biased;
        () = cancel.cancelled() => {
            tracing::info!("Stage {stage} of run {run_id} was stopped (attempt {number})");
            return None;
        }
        done = until_deadline(handler, services, *dispatch) => done,
    };
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut carrier = HashMap::new();
    tracing_context::inject_context(&mut carrier);
    let (status, artifact_id, output, error, transient) = match done {
        Ok(StageDone { artifact_id, output }) => {
            tracing::info!(duration_ms, "Stage {stage} of run {run_id} completed");
            (PipelineRunStatus::Completed, artifact_id, output, None, false)
        }
        Err(StageError { message, transient }) => {
            tracing::warn!(
                duration_ms, transient, error = %message,
                "Stage {stage} of run {run_id} failed: {message}"
            );
            (PipelineRunStatus::Failed, artifact_id, Value::Null, Some(message), transient)
        }
    };
    Some(Box::new(within_limit(StageReport {
        result: PipelineStageResult { run_id, stage, agent_id, status, artifact_id, output, error },
        attempt: Some(number),
        req_id: None,
        transient,
        seq: None,
        trace: (!carrier.is_empty()).then_some(TraceContext(carrier)),
    })))
}

/// A report that king can take: a larger one would cost the connection on every send, so it
/// becomes a failure that no retry helps.
pub(super) fn within_limit(report: StageReport) -> StageReport {
    let size = serde_json::to_vec(&report).expect("a report is plain data").len();
    if size <= MAX_REPORT_BYTES {
        return report;
    }
    let stage = report.result.stage;
    let advice = match stage {
        PipelineStage::Learning => "set max_candidates or split the source",
        _ => "let the stage give less, or name large data instead of copying it",
    };
    let message = format!(
        "the result of {stage} has {size} bytes; at most {MAX_REPORT_BYTES} can be sent: {advice}"
    );
    tracing::error!(run.id = %report.result.run_id, %stage, size, error = %message, "{message}");
    StageReport {
        result: PipelineStageResult {
            status: PipelineRunStatus::Failed,
            output: Value::Null,
            error: Some(message),
            ..report.result
        },
        transient: false,
        ..report
    }
}

async fn until_deadline(
    handler: Arc<dyn AgentHandler>,
    services: Services,
    dispatch: StageDispatch,
) -> Result<StageDone, StageError> {
    let context = StageContext::from_metadata(&dispatch.next.metadata)
        .map_err(|error| StageError::permanent(format!("metadata of the dispatch: {error}")))?;
    let deadline = Timestamp(dispatch.deadline_ms);
    let left = deadline.ms_since(Timestamp::now());
    if left == 0 {
        return Err(StageError::transient("the deadline had passed before the stage started"));
    }
    let limit = Duration::from_millis(left - MARGIN_MS.min(left / 10));
    let cancel = services.cancel.child_token();
    let _stop_whatever_the_handler_started = cancel.clone().drop_guard();
    let gateway = services
        .gateway
        .as_ref()
        .map(|gateway| gateway.for_attempt(&dispatch.run_id, dispatch.next.stage, deadline))
        .map(|gateway| gateway.preferring(dispatch.model.clone()));
    let job = StageJob {
        run_id: dispatch.run_id,
        stage: dispatch.next.stage,
        attempt: dispatch.attempt,
        artifact_id: dispatch.next.artifact_id,
        context,
        deadline,
        services: Services { gateway, cancel, ..services },
    };
    let work = AssertUnwindSafe(async { handler.stage(job).await }).catch_unwind();
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => {
            Err(StageError::permanent(format!("the handler panicked: {}", panic_text(&*panic))))
        }
        Err(_) => Err(StageError::transient(format!(
            "the stage was not done within its deadline ({} ms)",
            limit.as_millis()
        ))),
    }
}

/// The message of a panic.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use evo_common::messages::PipelineNext;
    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        artifacts::ArtifactClient,
        handler::BoxFuture,
        skill::execute::{Executor, ExecutorConfig},
    };

    /// Does what `trigger.act` says.
    struct Actor;

    impl AgentHandler for Actor {
        fn stage(&self, job: StageJob) -> BoxFuture<'_, Result<StageDone, StageError>> {
            Box::pin(async move {
                match job.context.trigger["act"].as_str() {
                    Some("panic") => panic!("no paper left"),
                    Some("large") => Ok(StageDone {
                        artifact_id: "b".to_owned(),
                        output: "x".repeat(MAX_REPORT_BYTES).into(),
                    }),
                    Some("fail") => Err(StageError::transient("the network is down")),
                    Some("sleep") => {
                        std::future::pending::<()>().await;
                        Err(StageError::permanent("never"))
                    }
                    _ => Ok(StageDone { artifact_id: "b".to_owned(), output: json!({"ok": true}) }),
                }
            })
        }
    }

    fn services() -> Services {
        Services {
            executor: Executor::new(ExecutorConfig::default()),
            artifacts: ArtifactClient::local("/nonexistent".into()),
            gateway: None,
            cancel: CancellationToken::new(),
            skills: crate::skill::in_use::SkillsInUse::none(),
        }
    }

    fn dispatch(act: &str, ms: i64) -> Box<StageDispatch> {
        Box::new(StageDispatch {
            next: PipelineNext {
                stage: PipelineStage::Building,
                artifact_id: "a".to_owned(),
                metadata: [("trigger".to_owned(), json!({"act": act}))].into(),
            },
            run_id: "run-1".to_owned(),
            attempt: Attempt(2),
            deadline_ms: Timestamp::now().0 + ms,
            model: None,
            trace: None,
        })
    }

    async fn outcome(dispatch: Box<StageDispatch>) -> StageReport {
        *run(Arc::new(Actor), services(), dispatch, "me".to_owned()).await.unwrap()
    }

    #[tokio::test]
    async fn every_end_becomes_a_report() {
        let report = outcome(dispatch("", 60_000)).await;
        assert_eq!(report.result.status, PipelineRunStatus::Completed);
        assert_eq!((report.attempt, report.result.artifact_id.as_str()), (Some(Attempt(2)), "b"));
        let report = outcome(dispatch("fail", 60_000)).await;
        assert_eq!(report.result.status, PipelineRunStatus::Failed);
        assert_eq!((report.transient, report.result.artifact_id.as_str()), (true, "a"));
        let report = outcome(dispatch("panic", 60_000)).await;
        assert_eq!(report.result.error.as_deref(), Some("the handler panicked: no paper left"));
        let report = outcome(dispatch("", 0)).await;
        assert!(report.transient && report.result.error.unwrap().contains("deadline"));
    }

    #[tokio::test]
    async fn a_result_that_king_can_not_take_is_a_failure_that_names_its_size() {
        let report = outcome(dispatch("large", 60_000)).await;
        let error = report.result.error.clone().unwrap();
        assert!(error.starts_with("the result of building has 12583"), "{error}");
        assert_eq!((report.result.status, report.transient), (PipelineRunStatus::Failed, false));
        assert_eq!(report.result.output, Value::Null);
        assert_eq!(within_limit(report.clone()), report, "the failure itself is small");

        let mut learned = report;
        learned.result.stage = PipelineStage::Learning;
        learned.result.output = json!("x".repeat(MAX_REPORT_BYTES));
        let error = within_limit(learned).result.error.unwrap();
        assert!(error.ends_with("set max_candidates or split the source"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_a_stage_before_king_gives_up() {
        let started = tokio::time::Instant::now();
        let report = outcome(dispatch("sleep", 20_000)).await;
        assert!(report.transient && report.result.error.unwrap().contains("deadline"));
        let elapsed = started.elapsed();
        assert!(elapsed < Duration::from_secs(20) && elapsed > Duration::from_secs(19));
    }

    #[tokio::test]
    async fn a_cancelled_job_reports_nothing() {
        let services = services();
        services.cancel.cancel();
        let report =
            run(Arc::new(Actor), services, dispatch("sleep", 60_000), "me".to_owned()).await;
        assert_eq!(report, None);
    }

    #[tokio::test]
    async fn metadata_of_the_wrong_shape_is_named() {
        let mut dispatch = dispatch("", 60_000);
        dispatch.next.metadata.insert("sources".to_owned(), json!(7));
        let error = outcome(dispatch).await.result.error.unwrap();
        assert!(error.contains("`sources`"), "{error}");
    }

    #[test]
    fn a_malformed_dispatch_is_reported_when_its_attempt_is_known() {
        let good = json!({
            "run_id": "r", "stage": "pre-load", "attempt": 3, "artifact_id": "", "metadata": {},
            "deadline_ms": 1
        });
        assert!(read(good.clone(), "me").is_ok());
        assert!(read(Value::String(good.to_string()), "me").is_ok());
        let mut broken = good.clone();
        broken["deadline_ms"] = json!("soon");
        for payload in [broken.clone(), Value::String(broken.to_string())] {
            let Err(Malformed::Refused(report)) = read(payload, "me") else { panic!() };
            assert_eq!(
                (report.attempt, report.result.stage),
                (Some(Attempt(3)), PipelineStage::PreLoad)
            );
            assert!(report.result.error.unwrap().contains("deadline_ms"));
        }
        for missing in ["run_id", "stage", "attempt"] {
            let mut broken = good.clone();
            broken.as_object_mut().unwrap().remove(missing);
            let Err(Malformed::Unknown(error)) = read(broken, "me") else { panic!() };
            assert!(error.to_string().contains(missing), "{error}");
        }
    }
}
