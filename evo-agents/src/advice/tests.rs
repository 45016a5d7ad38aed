use evo_common::messages::PipelineStage;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    recovery::{Options, options},
    *,
};
use crate::{
    artifacts::ArtifactClient,
    gateway::tests::fake::{FakeGateway, says},
    skill::execute::{Executor, ExecutorConfig},
};

fn failure(stage: PipelineStage, error: &str, retry_count: u32) -> ErrorRecoveryRequest {
    ErrorRecoveryRequest {
        request_id: "q".to_owned(),
        run_id: "run-1".to_owned(),
        task_id: "task-1".to_owned(),
        failed_stage: stage,
        error_message: error.to_owned(),
        stage_output: json!({}),
        retry_count,
        task_summary: String::new(),
    }
}

/// The answer of a runner whose model says this; without a model when it says nothing.
async fn advised(question: Question, model: Option<&'static str>) -> Advice {
    let fake = match model {
        Some(text) => Some(FakeGateway::start(move |_, _| says(text)).await),
        None => None,
    };
    let services = Services {
        executor: Executor::new(ExecutorConfig::default()),
        artifacts: ArtifactClient::local("/nonexistent".into()),
        gateway: fake.as_ref().map(FakeGateway::client),
        cancel: CancellationToken::new(),
        skills: crate::skill::in_use::SkillsInUse::none(),
    };
    let deadline = Timestamp::now().plus_ms(20_000);
    advise(AdviceJob { question, deadline, services }).await
}

async fn recovery(
    request: ErrorRecoveryRequest,
    model: Option<&'static str>,
) -> ErrorRecoveryAction {
    match advised(Question::Recovery(request), model).await {
        Advice::Recovery { action, reasoning } => {
            assert!(!reasoning.is_empty());
            action
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn rules_come_first() {
    use ErrorRecoveryAction::{Abort, Retry, Skip};
    use PipelineStage::{Building, Evaluation, SkillManage};
    let lost = "the connection to the server was lost";
    let wrong = "`metadata.candidate` is missing";
    for (stage, error, retries, first, clear) in [
        (Building, lost, 0, Retry, true),
        (Building, lost, 2, Retry, true),
        (Building, lost, 3, Abort, true),
        (Building, wrong, 0, Abort, false),
        (Building, wrong, 3, Abort, true),
        (Evaluation, "no answer: HTTP 503", 1, Retry, true),
        (Evaluation, wrong, 0, Retry, false),
        (Evaluation, wrong, 1, Skip, false),
        (SkillManage, lost, 3, Skip, false),
    ] {
        let Options { allowed, first: found, clear: sure, .. } =
            options(&failure(stage, error, retries));
        assert_eq!((found, sure), (first, clear), "{stage} {error} {retries}");
        assert!(allowed.contains(&found));
        assert_eq!(allowed.contains(&Retry), retries < 3);
        assert_eq!(allowed.contains(&Skip), stage != Building);
    }
}

#[tokio::test]
async fn a_model_only_chooses_among_what_is_allowed() {
    use ErrorRecoveryAction::{Abort, Retry, Skip};
    let wrong = |stage| failure(stage, "it makes no sense", 1);
    let building = || wrong(PipelineStage::Building);
    assert_eq!(recovery(building(), None).await, Abort);
    let retry = r#"{"action": "retry", "reasoning": "It may have been cosmic rays."}"#;
    assert_eq!(recovery(building(), Some(retry)).await, Retry);
    let skip = r#"{"action": "skip", "reasoning": "Who needs it?"}"#;
    assert_eq!(recovery(building(), Some(skip)).await, Abort, "a building is never skipped");
    assert_eq!(recovery(wrong(PipelineStage::Evaluation), Some(skip)).await, Skip);
    for nonsense in
        ["Let it be.", r#"{"action": "reboot", "reasoning": ""}"#, r#"{"action": "retry"}"#]
    {
        assert_eq!(recovery(building(), Some(nonsense)).await, Abort, "{nonsense}");
    }
    let passing = failure(PipelineStage::Building, "HTTP 429", 0);
    let abort = r#"{"action": "abort", "reasoning": "No."}"#;
    assert_eq!(recovery(failure(PipelineStage::Building, "timeout", 0), Some(abort)).await, Retry);
    assert_eq!(recovery(passing, Some(abort)).await, Retry, "nobody is asked what is clear");
}

async fn split(model: Option<&'static str>) -> (usize, String) {
    let request = TaskDecomposeRequest {
        request_id: "q".to_owned(),
        run_id: String::new(),
        task_id: "task-1".to_owned(),
        task_type: "user".to_owned(),
        summary: "Compare two cities.".to_owned(),
        payload: json!({}),
        context: json!({}),
        trigger: "manual".to_owned(),
    };
    match advised(Question::Decompose(request, 3), model).await {
        Advice::Decompose { subtasks, reasoning } => {
            assert!(
                subtasks.iter().all(|part| part.task_type == "user" && part.payload.is_object())
            );
            (subtasks.len(), reasoning)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_split_is_checked_part_by_part() {
    let none = split(None).await;
    assert_eq!(none, (0, "this runner knows no gateway".to_owned()));
    let good = r#"{"should_decompose": true, "reasoning": "Two cities.", "subtasks": [
        {"summary": "Describe A."}, {"task_type": "user", "summary": "Describe B.", "payload": {"x": 1}}]}"#;
    assert_eq!(split(Some(good)).await, (2, "Two cities.".to_owned()));
    let not = r#"{"should_decompose": false, "reasoning": "It is one thing."}"#;
    assert_eq!(split(Some(not)).await, (0, "It is one thing.".to_owned()));
    for bad in [
        r#"{"should_decompose": true, "reasoning": "", "subtasks": []}"#,
        r#"{"should_decompose": true, "reasoning": "", "subtasks": [{"summary": "a"}, {"summary": " "}]}"#,
        r#"{"should_decompose": true, "reasoning": "", "subtasks": [{"summary": "a"}, {"summary": "b"}, {"summary": "c"}, {"summary": "d"}]}"#,
        r#"{"should_decompose": true, "reasoning": "", "subtasks": [{"summary": "a"}, {"summary": "b", "run": "rm"}]}"#,
        "Yes, please.",
    ] {
        let (parts, reasoning) = split(Some(bad)).await;
        assert!(parts == 0 && reasoning.contains("can't be used"), "{reasoning}");
    }
}

async fn judged(task: TaskEvaluate, model: Option<&'static str>) -> (String, Option<f64>, Value) {
    match advised(Question::Evaluate(task), model).await {
        Advice::Evaluate { summary, score, evaluation, .. } => {
            (summary, score, evaluation["by"].clone())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_summary_is_a_models_or_made_of_facts() {
    let task = |metadata: Value| TaskEvaluate {
        task_id: "task-1".to_owned(),
        task_type: "user".to_owned(),
        output_summary: "Clear, 20 degrees.".to_owned(),
        exit_code: None,
        latency_ms: Some(1_500),
        metadata,
    };
    let done = || task(json!({"summary": "Weather in Bern", "status": "completed", "steps": 2}));
    let plain = "Weather in Bern: completed after 1500 ms in 2 steps. Clear, 20 degrees.";
    assert_eq!(judged(done(), None).await, (plain.to_owned(), None, json!("facts")));
    let broken = || task(json!({"status": "failed", "error": "no_model: none"}));
    let (summary, score, _) = judged(broken(), None).await;
    assert_eq!(
        (summary.as_str(), score),
        ("user: failed after 1500 ms. no_model: none", Some(0.0))
    );

    let good =
        r#"{"summary": "It looked the weather up.", "score": 0.9, "tags": ["Weather", "a,b"]}"#;
    let expected = ("It looked the weather up.".to_owned(), Some(0.9), json!("model"));
    assert_eq!(judged(done(), Some(good)).await, expected);
    for bad in [
        r#"{"summary": "x", "score": 1.1}"#,
        r#"{"summary": " ", "score": 1}"#,
        r#"{"summary": "x", "score": "high"}"#,
        r#"{"summary": "x", "score": 0.5, "delete": true}"#,
    ] {
        assert_eq!(judged(done(), Some(bad)).await.2, json!("facts"), "{bad}");
    }
}
