//! What happens when king's own means against a failure are at an end.

use evo_common::messages::{
    ErrorRecoveryAction, ErrorRecoveryResponse, ModelPreference, RecoveryDispatch, RecoveryReport,
};

use super::{by_hand::ByHand, *};

const ADVISOR: &str = "advisor";

fn advice(request: &RecoveryDispatch, action: ErrorRecoveryAction) -> RecoveryReport {
    RecoveryReport {
        response: ErrorRecoveryResponse {
            request_id: request.request.request_id.clone(),
            run_id: request.request.run_id.clone(),
            task_id: String::new(),
            action,
            params: json!({}),
            reasoning: "so it seems".to_owned(),
        },
        req_id: Some("a".to_owned()),
    }
}

/// A king whose advisor has so long for an answer.
async fn king(folder: &TempDir, recovery_ms: u64) -> ByHand {
    let database = Database::File(folder.path().join("king.db"));
    let bench = Bench::with(folder, database, |config| config.recovery_ms = recovery_ms).await;
    let king = ByHand::over(bench);
    king.connect_all().await;
    king
}

impl ByHand {
    async fn asked(&mut self) -> (String, RecoveryDispatch) {
        let (agent, payload) = self.next(events::ERROR_RECOVERY_REQUEST).await;
        (agent, serde_json::from_value(payload).unwrap())
    }

    async fn advised(&self, agent: &str, report: RecoveryReport) -> (ReplyStatus, Option<String>) {
        let reply = self.bench.pipeline.advised(agent.to_owned(), report).await;
        (reply.status, reply.code)
    }

    /// Brings a direct run to this stage; gives its dispatch.
    async fn at(&mut self, wanted: PipelineStage) -> (RunId, String, StageDispatch) {
        let run_id = self.direct(json!({"a": 1})).await;
        loop {
            let (agent, dispatch) = self.dispatch().await;
            if dispatch.next.stage == wanted {
                return (run_id, agent, dispatch);
            }
            self.answer(&agent, &dispatch, Ok(json!({}))).await;
        }
    }
}

#[tokio::test]
async fn a_failed_stage_is_tried_again_when_the_advisor_says_so_three_times_at_most() {
    let folder = TempDir::new().unwrap();
    let mut king = king(&folder, 30_000).await;
    king.connect_with(ADVISOR, "evaluation", Some(2), &["recovery"]).await;
    let thinks = ModelPreference { model: "big".to_owned(), reasoning_effort: None };
    king.bench.registry.set_model(ADVISOR, Some(thinks.clone()));
    let (run_id, agent, mut dispatch) = king.at(PipelineStage::Building).await;
    for round in 1..=3 {
        king.answer(&agent, &dispatch, Err("broken")).await;
        let (asked, request) = king.asked().await;
        assert_eq!((&*asked, request.model.as_ref()), (ADVISOR, Some(&thinks)));
        assert_eq!(request.request.failed_stage, PipelineStage::Building);
        assert_eq!(request.request.error_message, "broken");
        assert_eq!(request.request.retry_count, round - 1);
        let run = king.run(&run_id).await;
        assert_eq!(run.run.status, PipelineRunStatus::Running);
        // Late answers about the attempt are refused.
        let reply = king.answer(&agent, &dispatch, Ok(json!({}))).await;
        assert_eq!(reply.code.as_deref(), Some("already_answered"));

        let retry = advice(&request, ErrorRecoveryAction::Retry);
        assert_eq!(king.advised("evo-building", retry.clone()).await.1.unwrap(), "not_asked");
        assert_eq!(king.advised(ADVISOR, retry.clone()).await.0, ReplyStatus::Accepted);
        assert_eq!(king.advised(ADVISOR, retry).await.0, ReplyStatus::Duplicate);
        let abort = advice(&request, ErrorRecoveryAction::Abort);
        assert_eq!(king.advised(ADVISOR, abort).await.1.unwrap(), "already_answered");
        let (_, again) = king.dispatch().await;
        assert_eq!(again.attempt, dispatch.attempt.next());
        dispatch = again;
    }
    king.answer(&agent, &dispatch, Err("broken")).await;
    let run = king.run(&run_id).await;
    assert_eq!(run.run.status, PipelineRunStatus::Failed, "nobody is asked a fourth time");
    assert_eq!(run.run.outcome.unwrap().code, "stage_failed");
    king.bench.shutdown.cancel();
}

#[tokio::test]
async fn only_what_the_rest_can_do_without_is_skipped() {
    let folder = TempDir::new().unwrap();
    let mut king = king(&folder, 30_000).await;
    king.connect_with(ADVISOR, "evaluation", Some(2), &["recovery"]).await;
    let (run_id, agent, dispatch) = king.at(PipelineStage::PreLoad).await;
    king.answer(&agent, &dispatch, Err("broken")).await;
    let (_, request) = king.asked().await;
    let skip = advice(&request, ErrorRecoveryAction::Skip);
    assert_eq!(king.advised(ADVISOR, skip).await.1.unwrap(), "cannot_skip");
    let mut unknown = advice(&request, ErrorRecoveryAction::Abort);
    unknown.response.request_id = "recovery-x".to_owned();
    assert_eq!(king.advised(ADVISOR, unknown).await.1.unwrap(), "unknown_request");
    let abort = advice(&request, ErrorRecoveryAction::Abort);
    assert_eq!(king.advised(ADVISOR, abort).await.0, ReplyStatus::Accepted);
    let outcome = king.run(&run_id).await.run.outcome.unwrap();
    assert_eq!(outcome.reason, "stage pre_load: broken (so it seems)");

    let (run_id, agent, dispatch) = king.at(PipelineStage::Evaluation).await;
    king.answer(&agent, &dispatch, Err("broken")).await;
    let (_, request) = king.asked().await;
    let skip = advice(&request, ErrorRecoveryAction::Skip);
    assert_eq!(king.advised(ADVISOR, skip).await.0, ReplyStatus::Accepted);
    let (agent, dispatch) = king.dispatch().await;
    assert_eq!(dispatch.next.stage, PipelineStage::SkillManage);
    assert_eq!(dispatch.next.metadata["outputs"].get("evaluation"), None);
    king.answer(&agent, &dispatch, Ok(json!({}))).await;
    let run = king.run(&run_id).await;
    assert_eq!(run.run.status, PipelineRunStatus::Completed);
    assert_eq!(run.stages[3].status, PipelineRunStatus::Failed);
    assert_eq!(run.stages[3].error.as_deref(), Some("broken (skipped: so it seems)"));
    king.bench.shutdown.cancel();
}

#[tokio::test]
async fn without_an_answer_in_time_the_run_is_given_up() {
    let folder = TempDir::new().unwrap();
    let mut king = king(&folder, 50).await;
    king.connect_with(ADVISOR, "evaluation", Some(2), &["recovery"]).await;
    let (run_id, agent, dispatch) = king.at(PipelineStage::Evaluation).await;
    king.answer(&agent, &dispatch, Err("broken")).await;
    let (_, request) = king.asked().await;
    let ended = king.event(&run_id, "recovery.ended").await;
    assert_eq!(ended["action"], "expired");
    let run = king.run(&run_id).await;
    assert_eq!(
        run.run.outcome.unwrap().reason,
        "stage evaluation: broken (no advice came in time)"
    );
    let late = advice(&request, ErrorRecoveryAction::Retry);
    assert_eq!(king.advised(ADVISOR, late).await.1.unwrap(), "stale_request");
    king.bench.shutdown.cancel();
}

#[tokio::test]
async fn a_question_survives_king_and_keeps_its_deadline() {
    let folder = TempDir::new().unwrap();
    let database = Database::File(folder.path().join("king.db"));
    let mut first = king(&folder, 30_000).await;
    first.connect_with(ADVISOR, "evaluation", Some(2), &["recovery"]).await;
    let (run_id, agent, dispatch) = first.at(PipelineStage::Learning).await;
    first.answer(&agent, &dispatch, Err("broken")).await;
    let (_, before) = first.asked().await;
    first.bench.shutdown.cancel();
    drop(first);

    let mut second = ByHand::over(Bench::on(&folder, database).await);
    second.connect_all().await;
    second.connect_with(ADVISOR, "evaluation", Some(2), &["recovery"]).await;
    let (_, after) = second.asked().await;
    assert_eq!(after, before);
    let task_id = format!("task-{}", run_id.as_str().strip_prefix("run-").unwrap());
    assert_eq!(after.request.task_id, task_id);
    let mut decompose = advice(&after, ErrorRecoveryAction::Decompose);
    assert_eq!(second.advised(ADVISOR, decompose.clone()).await.1.unwrap(), "invalid_field");
    decompose.response.params = json!({"subtasks": [{"task_type": "user", "summary": "one"}, {"task_type": "user", "summary": "two"}]});
    assert_eq!(second.advised(ADVISOR, decompose).await.0, ReplyStatus::Accepted);
    let run = second.run(&run_id).await;
    assert_eq!(
        (run.run.status, run.run.outcome.unwrap().code.as_str()),
        (PipelineRunStatus::Failed, "decomposed")
    );
    second.bench.shutdown.cancel();
}

#[tokio::test]
async fn a_cancelled_run_asks_no_longer_and_a_runner_without_the_capability_is_never_asked() {
    let folder = TempDir::new().unwrap();
    let mut king = king(&folder, 30_000).await;
    king.connect_with("old", "evaluation", None, &["recovery"]).await;
    king.connect_with("builder", "building", Some(2), &["recovery"]).await;
    let (run_id, agent, dispatch) = king.at(PipelineStage::Learning).await;
    king.answer(&agent, &dispatch, Err("broken")).await;
    assert_eq!(king.run(&run_id).await.run.status, PipelineRunStatus::Failed);

    king.connect_with(ADVISOR, "evaluation", Some(2), &["recovery"]).await;
    let (run_id, agent, dispatch) = king.at(PipelineStage::Learning).await;
    king.answer(&agent, &dispatch, Err("broken")).await;
    let (_, request) = king.asked().await;
    king.bench.pipeline.cancel(&run_id).await.unwrap();
    let retry = advice(&request, ErrorRecoveryAction::Retry);
    assert_eq!(king.advised(ADVISOR, retry).await.1.unwrap(), "stale_request");
    assert_eq!(king.run(&run_id).await.run.outcome.unwrap().code, "cancelled");
    king.bench.shutdown.cancel();
}

/// A candidate whose evaluation was skipped is held, whatever an earlier look measured.
#[tokio::test]
async fn a_skipped_evaluation_activates_nothing() {
    let folder = TempDir::new().unwrap();
    let mut king = king(&folder, 30_000).await;
    king.connect_with(ADVISOR, "evaluation", Some(2), &["recovery"]).await;
    let started = king.bench.pipeline.start(StartRun::default()).await.unwrap();
    let cycle = RunId::parse(started.run_id).unwrap();
    let mut skips = 0;
    while king.bench.store.cycle_report(&cycle).await.unwrap().unwrap().held.is_empty() {
        let (agent, dispatch) = king.dispatch().await;
        let mut context = StageContext::from_metadata(&dispatch.next.metadata).unwrap();
        context.trigger = json!({"names": ["api-a"]});
        if dispatch.next.stage == PipelineStage::Evaluation {
            king.answer(&agent, &dispatch, Err("broken")).await;
            let (_, request) = king.asked().await;
            let skip = advice(&request, ErrorRecoveryAction::Skip);
            assert_eq!(king.advised(ADVISOR, skip).await.0, ReplyStatus::Accepted);
            skips += 1;
            continue;
        }
        let mut report = script(&king.bench.artifacts, &dispatch, &context).await;
        report.result.agent_id = agent;
        assert_eq!(king.bench.pipeline.report(report).await.status, ReplyStatus::Accepted);
    }
    assert_eq!(skips, 1);
    let report = king.bench.store.cycle_report(&cycle).await.unwrap().unwrap();
    assert_eq!(report.held[0].code, "evaluation_skipped");
    assert!(report.active.is_empty());
    assert_eq!(report.status, PipelineRunStatus::Completed);
    king.bench.shutdown.cancel();
}

#[tokio::test]
async fn whoever_is_silent_or_gone_is_not_the_only_one_that_is_asked() {
    let folder = TempDir::new().unwrap();
    let mut king = king(&folder, 3_000).await;
    for advisor in ["a", "b"] {
        king.connect_with(advisor, "evaluation", Some(2), &["recovery"]).await;
    }
    let (run_id, agent, dispatch) = king.at(PipelineStage::Building).await;
    king.answer(&agent, &dispatch, Err("broken")).await;
    let (first, unanswered) = king.asked().await;
    let (second, request) = king.asked().await;
    assert_eq!((first.as_str(), second.as_str()), ("a", "b"));
    assert_ne!(request.request.request_id, unanswered.request.request_id);
    assert_eq!(request.request.error_message, "broken");
    assert_eq!(request.deadline_ms, unanswered.deadline_ms, "the deadline is one for all");
    assert_eq!(king.event(&run_id, "recovery.ended").await["action"], "passed_on");
    let late = advice(&unanswered, ErrorRecoveryAction::Abort);
    assert_eq!(king.advised("a", late).await.1.unwrap(), "stale_request");
    let retry = advice(&request, ErrorRecoveryAction::Retry);
    assert_eq!(king.advised("b", retry).await.0, ReplyStatus::Accepted);
    let (_, again) = king.dispatch().await;
    assert_eq!(again.attempt, dispatch.attempt.next());
    king.bench.shutdown.cancel();
}

#[tokio::test]
async fn a_lost_advisor_is_replaced_at_once_and_nobody_but_policy_is_left_in_the_end() {
    let folder = TempDir::new().unwrap();
    let mut king = king(&folder, 600_000).await;
    for advisor in ["a", "b"] {
        king.connect_with(advisor, "evaluation", Some(2), &["recovery"]).await;
    }
    let (_, agent, dispatch) = king.at(PipelineStage::Building).await;
    king.answer(&agent, &dispatch, Err("broken")).await;
    assert_eq!(king.asked().await.0, "a");
    assert!(king.bench.registry.disconnect("a", "a"));
    let (second, request) = king.asked().await;
    assert_eq!(second, "b");
    let retry = advice(&request, ErrorRecoveryAction::Retry);
    assert_eq!(king.advised("b", retry).await.0, ReplyStatus::Accepted);
    king.bench.shutdown.cancel();

    let folder = TempDir::new().unwrap();
    let mut king = self::king(&folder, 100).await;
    for advisor in ["a", "b"] {
        king.connect_with(advisor, "evaluation", Some(2), &["recovery"]).await;
    }
    let (run_id, agent, dispatch) = king.at(PipelineStage::Building).await;
    king.answer(&agent, &dispatch, Err("broken")).await;
    king.event(&run_id, "run.ended").await;
    let outcome = king.run(&run_id).await.run.outcome.unwrap();
    assert_eq!(outcome.reason, "stage building: broken (no advice came in time)");
    king.bench.shutdown.cancel();
}
