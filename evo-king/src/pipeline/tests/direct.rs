//! Direct runs.

use super::{
    by_hand::{ByHand, report},
    *,
};

#[tokio::test]
async fn a_direct_run_goes_straight_through_and_hands_on_what_was_said() {
    let folder = TempDir::new().unwrap();
    let mut king = ByHand::start(&folder).await;
    king.connect_all().await;
    let trigger = json!({"kind": "mine", "names": ["a"]});
    let run_id = king.direct(trigger.clone()).await;
    let mut outputs = serde_json::Map::new();
    for stage in PipelineStage::ALL {
        let (agent, dispatch) = king.dispatch().await;
        assert_eq!((agent.as_str(), dispatch.next.stage), (&*agent_of(stage), stage));
        assert_eq!(dispatch.next.metadata["trigger"], trigger);
        assert_eq!(dispatch.next.metadata["outputs"], Value::Object(outputs.clone()), "{stage}");
        assert_eq!(dispatch.next.artifact_id, if outputs.is_empty() { "" } else { "mine-1" });
        // Whatever it is: nothing of it is checked.
        let output = json!({"candidates": stage.as_str(), "score": [1, null]});
        let mut report = report(&agent, &dispatch, Ok(output.clone()));
        report.result.artifact_id = "mine-1".to_owned();
        let pipeline = &king.bench.pipeline;
        assert_eq!(pipeline.report(report.clone()).await.status, ReplyStatus::Accepted);
        assert_eq!(pipeline.report(report).await.status, ReplyStatus::Duplicate);
        outputs.insert(stage.to_string(), output);
    }
    let run = king.run(&run_id).await;
    assert_eq!((run.run.kind, run.run.status), (RunKind::Direct, PipelineRunStatus::Completed));
    assert_eq!((run.run.outcome, run.run.artifact_id.as_str()), (None, "mine-1"));
    assert_eq!(run.stages.len(), 5);
    let log = store::EventFilter { after: 0, limit: 100, run_id: Some(run_id), kind: None };
    let log = king.bench.store.events_list(log).await.unwrap().events;
    let kinds: Vec<_> = log.iter().map(|event| event.kind.as_str()).collect();
    let mut wanted = vec!["run.started"];
    wanted.extend(["stage.dispatched", "stage.completed"].repeat(5));
    wanted.push("run.ended");
    assert_eq!(kinds, wanted);
    assert_eq!(log[11].payload["kind"], "direct");
    assert!(king.bench.store.skills_list(skills_of_all()).await.unwrap().skills.is_empty());
    king.bench.shutdown.cancel();
}

fn skills_of_all() -> store::SkillFilter {
    store::SkillFilter { limit: 5, cursor: None, status: None, source: None, bundle: None }
}

#[tokio::test]
async fn a_runner_of_the_original_finds_everything_at_the_top_of_metadata() {
    let folder = TempDir::new().unwrap();
    let mut king = ByHand::start(&folder).await;
    for stage in PipelineStage::ALL {
        king.connect(&agent_of(stage), stage.as_str(), None).await;
    }
    let run_id = king.direct(json!({"a": 1, "b": 1})).await;
    let mut seen = Vec::new();
    for output in [json!({"b": 2}), json!("text"), json!({"c": 3}), Value::Null, json!({})] {
        let (agent, dispatch) = king.dispatch().await;
        seen.push(json!(dispatch.next.metadata));
        // It names no attempt.
        let mut report = report(&agent, &dispatch, Ok(output));
        (report.attempt, report.req_id) = (None, None);
        let reply = king.bench.pipeline.report(report).await;
        assert_eq!(reply.status, ReplyStatus::Accepted, "{reply:?}");
    }
    let text = json!({"a": 1, "b": 2, "building": "text"});
    let all = json!({"a": 1, "b": 2, "building": "text", "c": 3});
    assert_eq!(seen, [json!({"a": 1, "b": 1}), json!({"a": 1, "b": 2}), text, all.clone(), all]);
    assert_eq!(king.run(&run_id).await.run.status, PipelineRunStatus::Completed);
    king.bench.shutdown.cancel();
}

#[tokio::test]
async fn an_output_that_is_too_large_fails_its_stage_by_name() {
    let folder = TempDir::new().unwrap();
    let mut king = ByHand::start(&folder).await;
    king.connect_all().await;
    let run_id = king.direct(Value::Null).await;
    let (agent, dispatch) = king.dispatch().await;
    let reply = king.answer(&agent, &dispatch, Ok(json!("x".repeat(300_000)))).await;
    assert_eq!(reply.status, ReplyStatus::Accepted, "{reply:?}");
    let run = king.run(&run_id).await;
    assert_eq!(run.run.status, PipelineRunStatus::Failed);
    let error = run.stages[0].error.clone().unwrap();
    assert!(error.contains("field `output` has 300002 bytes"), "{error}");
    assert_eq!(run.stages[0].result, None);
    king.bench.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_starts_one_run_whoever_asks_and_only_for_one_request() {
    let folder = TempDir::new().unwrap();
    let king = ByHand::start(&folder).await;
    let same = json!({"a": 1, "b": [2]});
    let starts = (0..32).map(|_| king.started(same.clone(), 3, Some("k")));
    let started = futures_util::future::join_all(starts).await;
    let ids: std::collections::HashSet<String> =
        started.iter().map(|started| started.as_ref().unwrap().run_id.clone()).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(started.iter().filter(|started| started.as_ref().unwrap().created).count(), 1);
    for other in [king.started(same.clone(), 4, Some("k")), king.started(json!(7), 3, Some("k"))] {
        let error = other.await.unwrap_err();
        assert!(matches!(&error, Error::KeyReused { key, .. } if key == "k"), "{error}");
    }
    assert!(king.started(same.clone(), 3, Some("other")).await.unwrap().created);
    for (priority, key) in [(101, None), (-101, None), (0, Some(""))] {
        let error = king.started(Value::Null, priority, key).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    }
    king.bench.shutdown.cancel();
}

#[tokio::test]
async fn runs_of_one_queue_go_by_priority_and_then_by_age() {
    let folder = TempDir::new().unwrap();
    let mut king = ByHand::start(&folder).await;
    let mut wanted = Vec::new();
    for (name, priority) in [("a", 0), ("b", 5), ("c", -1), ("d", 5), ("e", 0)] {
        king.started(json!(name), priority, None).await.unwrap();
        wanted.push((-priority, name));
    }
    wanted.sort_unstable();
    // One at a time: a runner of the original takes no more.
    king.connect("old", "learning", None).await;
    for (_, name) in wanted {
        let (agent, dispatch) = king.dispatch().await;
        assert_eq!(dispatch.next.metadata["trigger"], name);
        king.answer(&agent, &dispatch, Err("no")).await;
    }
    king.bench.shutdown.cancel();
}
