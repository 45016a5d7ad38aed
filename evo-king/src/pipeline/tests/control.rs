//! What operators do to runs: pause, resume, retry, fork, cancel; and what they see of them.

use evo_common::api::{ForkRun, RunDetail};

use super::{by_hand::ByHand, *};
use crate::store::{RunFilter, runs};

fn id(run_id: String) -> RunId {
    RunId::parse(run_id).unwrap()
}

fn code_of<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
    match result.unwrap_err() {
        Error::Refused { code, .. } => code,
        Error::Rejected(rejection) => rejection.code(),
        Error::Invalid { field, .. } => field,
        other => panic!("{other}"),
    }
}

impl ByHand {
    /// Answers so many dispatches with the stage's name.
    async fn go_on(&mut self, dispatches: usize) {
        for _ in 0..dispatches {
            let (agent, dispatch) = self.dispatch().await;
            let output = json!({"said": dispatch.next.stage});
            self.answer(&agent, &dispatch, Ok(output)).await;
        }
    }

    async fn until(&self, run_id: &RunId, what: &str, is: impl Fn(&RunDetail) -> bool) {
        for _ in 0..1_000 {
            if is(&self.run(run_id).await) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not {what} within 10 s: {:?}", self.run(run_id).await);
    }

    async fn found(&self, filter: RunFilter) -> Vec<String> {
        self.bench.store.runs_index().await.unwrap();
        let list = self.bench.store.runs_list(RunFilter { limit: 50, ..filter }).await.unwrap();
        list.runs.into_iter().map(|run| run.run_id).collect()
    }
}

#[tokio::test]
async fn a_paused_run_ends_its_attempt_and_goes_on_when_it_is_resumed() {
    let folder = TempDir::new().unwrap();
    let mut king = ByHand::start(&folder).await;
    king.connect_all().await;
    let run_id = king.direct(json!(1)).await;
    let (agent, dispatch) = king.dispatch().await;
    assert!(king.bench.pipeline.pause(&run_id).await.unwrap());
    assert!(!king.bench.pipeline.pause(&run_id).await.unwrap(), "it is paused already");
    let run = king.run(&run_id).await.run;
    assert_eq!((run.phase.as_str(), run.paused), ("leased", true));
    assert_eq!(king.answer(&agent, &dispatch, Ok(json!({}))).await.status, ReplyStatus::Accepted);
    let run = king.run(&run_id).await.run;
    assert_eq!((run.phase.as_str(), run.stage), ("paused", PipelineStage::Building));

    // Another run passes it by.
    let other = king.direct(json!(2)).await;
    king.go_on(5).await;
    assert_eq!(king.run(&other).await.run.status, PipelineRunStatus::Completed);
    assert_eq!(king.run(&run_id).await.run.phase, "paused");
    let queues = king.bench.store.runs_queues().await.unwrap();
    assert_eq!(queues[&PipelineStage::Building].paused, 1);

    assert!(king.bench.pipeline.resume(&run_id).await.unwrap());
    king.go_on(4).await;
    assert_eq!(king.run(&run_id).await.run.status, PipelineRunStatus::Completed);
    assert_eq!(code_of(king.bench.pipeline.pause(&run_id).await), "run_ended");
    let unknown = id("run-x".to_owned());
    assert!(matches!(king.bench.pipeline.pause(&unknown).await, Err(Error::UnknownRun(_))));
    king.bench.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_cycle_pauses_its_children_also_those_that_it_gets_later() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let cycle = bench.start_cycle().await;
    bench.pipeline.pause(&cycle).await.unwrap();
    // Learning was not given out: nobody is asked.
    let mut silent = bench.runners("one", 0).await;
    let waits = tokio::time::timeout(Duration::from_millis(300), silent.recv());
    assert!(waits.await.is_err(), "a paused run was given out");
    bench.pipeline.resume(&cycle).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), silent.recv()).await.unwrap();
    // While Learning is at work, the cycle is paused again: its children wait.
    bench.pipeline.pause(&cycle).await.unwrap();
    bench.shutdown.cancel();
    drop(bench);

    let bench = Bench::start(&folder).await;
    let _silent = bench.runners("two", usize::MAX).await;
    bench.pipeline.resume(&cycle).await.unwrap();
    check(&bench.ended(&cycle).await);
    bench.shutdown.cancel();
}

#[tokio::test]
async fn a_failed_run_is_a_dead_letter_until_it_is_retried_from_where_it_failed() {
    let folder = TempDir::new().unwrap();
    let mut king = ByHand::start(&folder).await;
    king.connect_all().await;
    let run_id = king.direct(json!({"a": 1})).await;
    king.go_on(2).await;
    let (agent, dispatch) = king.dispatch().await;
    assert_eq!(code_of(king.bench.pipeline.retry(&run_id).await), "not_failed");
    king.answer(&agent, &dispatch, Err("broken")).await;
    let letters = king.bench.store.runs_dead(None, 10).await.unwrap().dead_letters;
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (letters[0].run_id.as_str(), letters[0].stage),
        (run_id.as_str(), PipelineStage::PreLoad)
    );
    assert_eq!(letters[0].error, "stage pre_load: broken");

    let retried = king.bench.pipeline.retry(&run_id).await.unwrap();
    let again = king.bench.pipeline.retry(&run_id).await.unwrap();
    assert_eq!((again.created, &again.run_id), (false, &retried.run_id));
    assert_eq!(king.bench.store.runs_dead(None, 10).await.unwrap().count, 0);
    let (_, dispatch) = king.dispatch().await;
    assert_eq!(
        (dispatch.run_id.as_str(), dispatch.next.stage),
        (&*retried.run_id, PipelineStage::PreLoad)
    );
    let metadata = &dispatch.next.metadata;
    assert_eq!(metadata["trigger"], json!({"a": 1}));
    assert_eq!(
        metadata["outputs"],
        json!({"learning": {"said": "learning"}, "building": {"said": "building"}})
    );
    king.answer(&agent_of(PipelineStage::PreLoad), &dispatch, Ok(json!({}))).await;
    king.go_on(2).await;
    let new = king.run(&id(retried.run_id.clone())).await;
    assert_eq!(new.run.status, PipelineRunStatus::Completed);
    assert_eq!(new.run.forked_from.as_deref(), Some(run_id.as_str()));
    assert_eq!(new.stages.len(), 5);
    let old = king.run(&run_id).await;
    assert_eq!(
        (old.run.status, old.run.retried_by),
        (PipelineRunStatus::Failed, Some(retried.run_id))
    );
    assert_eq!(old.run.error.as_deref(), Some("stage pre_load: broken"));

    // One that nobody wants any more is put aside, and a cancelled one never was a dead letter.
    let run_id = king.direct(json!(2)).await;
    let (agent, dispatch) = king.dispatch().await;
    king.answer(&agent, &dispatch, Err("broken")).await;
    assert!(king.bench.store.runs_dismiss(run_id.to_string()).await.unwrap());
    assert!(!king.bench.store.runs_dismiss(run_id.to_string()).await.unwrap());
    let run_id = king.direct(json!(3)).await;
    king.bench.pipeline.cancel(&run_id).await.unwrap();
    assert_eq!(king.bench.store.runs_dead(None, 10).await.unwrap().count, 0);
    king.bench.shutdown.cancel();
}

#[tokio::test]
async fn a_fork_copies_what_came_before_and_nothing_that_is_not_there() {
    let folder = TempDir::new().unwrap();
    let mut king = ByHand::start(&folder).await;
    king.connect_all().await;
    let run_id = king.direct(json!(1)).await;
    let fork = |from_stage, trigger| ForkRun { from_stage, trigger };
    let pipeline = king.bench.pipeline.clone();
    assert_eq!(
        code_of(pipeline.fork(&run_id, fork(PipelineStage::Building, None)).await),
        "stage_missing"
    );
    king.go_on(5).await;
    let forked =
        pipeline.fork(&run_id, fork(PipelineStage::SkillManage, Some(json!(7)))).await.unwrap();
    let (agent, dispatch) = king.dispatch().await;
    assert_eq!(dispatch.next.metadata["trigger"], json!(7));
    assert_eq!(dispatch.next.metadata["outputs"]["evaluation"]["said"], "evaluation");
    king.answer(&agent, &dispatch, Ok(json!({"said": "other"}))).await;
    let forked = king.run(&id(forked.run_id)).await;
    assert_eq!(forked.stages[4].result, Some(json!({"said": "other"})));
    assert_eq!(king.run(&run_id).await.stages[4].result, Some(json!({"said": "skill_manage"})));
    king.bench.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidates_fork_is_a_further_look_and_never_touches_what_is_active() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let _silent = bench.runners("one", usize::MAX).await;
    let report = bench.cycle_over(&["api-a", "api-seldom"]).await;
    assert_eq!(report.held[0].code, "need_more_evidence");
    let run_of = async |name: &str| {
        let filter = RunFilter { limit: 50, query: None, ..RunFilter::default() };
        let runs = bench.store.runs_list(filter).await.unwrap().runs;
        let run = runs.into_iter().find(|run| run.candidate.as_deref() == Some(name)).unwrap();
        id(run.run_id)
    };
    let fork = ForkRun { from_stage: PipelineStage::Evaluation, trigger: None };
    let active = run_of("api-a").await;
    assert_eq!(code_of(bench.pipeline.fork(&active, fork.clone()).await), "already_active");
    let first = run_of("api-seldom").await;
    let learning = ForkRun { from_stage: PipelineStage::Learning, trigger: None };
    assert_eq!(code_of(bench.pipeline.fork(&first, learning).await), "from_stage");
    let mut held = first.clone();
    for _ in 2..=5 {
        let forked = id(bench.pipeline.fork(&held, fork.clone()).await.unwrap().run_id);
        assert_eq!(code_of(bench.pipeline.fork(&held, fork.clone()).await), "superseded");
        while bench.store.runs_get(&forked).await.unwrap().unwrap().run.phase != "ended" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        held = forked;
    }
    let last = bench.store.runs_get(&held).await.unwrap().unwrap().run;
    assert_eq!(last.outcome.unwrap().code, "not_enough_evidence");
    assert_eq!(code_of(bench.pipeline.fork(&held, fork).await), "no_further_look");
    bench.shutdown.cancel();
}

#[tokio::test]
async fn queues_show_who_waits_and_a_limit_holds() {
    let folder = TempDir::new().unwrap();
    let database = Database::File(folder.path().join("king.db"));
    let bench =
        Bench::with(&folder, database, |config| config.concurrency.learning = Some(2)).await;
    let mut king = ByHand::over(bench);
    king.connect("a", "learning", Some(2)).await;
    king.connect("b", "learning", Some(2)).await;
    let mut run_ids = Vec::new();
    for number in 0..5 {
        run_ids.push(king.direct(json!(number)).await);
    }
    let mut out = vec![king.dispatch().await, king.dispatch().await];
    for (place, run_id) in (1..).zip(&run_ids[2..]) {
        king.until(run_id, "in its place", |run| {
            run.queue.as_ref().is_some_and(|queue| (queue.position, queue.waiting) == (place, 3))
        })
        .await;
    }
    let queues = king.bench.store.runs_queues().await.unwrap();
    let queue = queues[&PipelineStage::Learning];
    assert_eq!((queue.leased, queue.waiting, queue.paused), (2, 3, 0));
    assert!(queue.waiting_since.is_some());
    // Whoever ends makes room for the next one, in order.
    for wanted in &run_ids[2..] {
        let (agent, dispatch) = out.remove(0);
        king.answer(&agent, &dispatch, Err("no")).await;
        out.push(king.dispatch().await);
        assert_eq!(out[1].1.run_id, wanted.as_str());
    }
    king.bench.shutdown.cancel();
}

#[tokio::test]
async fn a_cancelled_runs_runner_is_told_and_its_answer_comes_too_late() {
    let folder = TempDir::new().unwrap();
    let mut king = ByHand::start(&folder).await;
    king.connect_all().await;
    let run_id = king.direct(Value::Null).await;
    let (agent, dispatch) = king.dispatch().await;
    king.bench.pipeline.cancel(&run_id).await.unwrap();
    let (told, payload) = king.next(events::PIPELINE_CANCEL).await;
    assert_eq!((told.as_str(), payload["run_id"].as_str()), (&*agent, Some(run_id.as_str())));
    let reply = king.answer(&agent, &dispatch, Ok(json!({}))).await;
    assert_eq!(reply.code.as_deref(), Some("run_ended"));
    king.bench.shutdown.cancel();
}

#[tokio::test]
async fn runs_are_found_by_words_and_filters() {
    let folder = TempDir::new().unwrap();
    let mut king = ByHand::start(&folder).await;
    king.connect_all().await;
    let weather = king.direct(json!({"about": "the weather in 北京市"})).await;
    let (agent, dispatch) = king.dispatch().await;
    king.answer(&agent, &dispatch, Err("the barometer is broken")).await;
    let other = king.direct(json!({"about": "tides"})).await;
    king.go_on(5).await;
    let by = |query: &str| RunFilter { query: Some(query.to_owned()), ..RunFilter::default() };
    let (weather, other) = (weather.to_string(), other.to_string());
    for words in ["weather", "WEATHER barom", "京市", "stage_failed", &weather] {
        assert_eq!(king.found(by(words)).await, *std::slice::from_ref(&weather), "{words}");
    }
    assert_eq!(king.found(by("tides")).await, *std::slice::from_ref(&other));
    assert!(king.found(by("moon")).await.is_empty());
    assert_eq!(king.found(by("direct \" OR *")).await, Vec::<String>::new());
    let failed = || RunFilter { stage: Some(PipelineStage::Learning), ..RunFilter::default() };
    assert_eq!(king.found(failed()).await, *std::slice::from_ref(&weather));
    let code = RunFilter { code: Some("stage_failed".to_owned()), ..RunFilter::default() };
    assert_eq!(king.found(code).await, *std::slice::from_ref(&weather));
    let now = Timestamp::now();
    let since = RunFilter { since: Some(now.plus_ms(1_000)), ..RunFilter::default() };
    assert!(king.found(since).await.is_empty());
    let until = RunFilter { until: Some(now.plus_ms(1_000)), ..RunFilter::default() };
    assert_eq!(king.found(until).await, [other, weather]);
    king.bench.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_has_everything_but_held_out_cases() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let _silent = bench.runners("one", usize::MAX).await;
    let cycle = bench.start_cycle().await;
    check(&bench.ended(&cycle).await);
    let history = bench.store.runs_history(&cycle).await.unwrap().unwrap();
    assert_eq!((history.children.len(), history.complete), (4, true));
    assert_eq!(history.trigger, json!({"kind": "test"}));
    let contexts = bench.contexts.lock().unwrap().clone();
    let held_out: Vec<String> = contexts
        .into_iter()
        .flat_map(|(_, context)| context.holdout_cases)
        .map(|case| case.case_id)
        .collect();
    assert!(!held_out.is_empty());
    for child in history.children {
        let history = bench.store.runs_history(&id(child)).await.unwrap().unwrap();
        assert!(!history.attempts.is_empty() && !history.events.is_empty());
        let text = serde_json::to_string(&history).unwrap();
        assert!(held_out.iter().all(|case| !text.contains(case.as_str())), "{text}");
    }
    bench.shutdown.cancel();
}

/// A sibling that is being built keeps evaluations back; a paused one does not.
#[tokio::test]
async fn a_paused_sibling_keeps_no_evaluation_back() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let now = Timestamp::now();
    let waiting = bench
        .store
        .write(async move |connection: &Connection| {
            let parent = RunId::new();
            let insert = async |run_id: &RunId, parent: Option<&str>, stage, paused| {
                let new = runs::NewRun {
                    run_id: run_id.as_str(),
                    parent_run_id: parent,
                    kind: RunKind::Candidate,
                    candidate: None,
                    source: None,
                    trigger: &Value::Null,
                    look: 1,
                    version: "",
                    artifact_id: "",
                    evidence: None,
                    state: &RunState::start(stage, now),
                    priority: 0,
                    paused,
                    forked_from: None,
                    once: None,
                    traced: true,
                    boots: 1,
                };
                runs::insert(connection, now, new).await
            };
            insert(&parent, None, PipelineStage::Learning, true).await?;
            let parent = Some(parent.as_str());
            let (evaluated, built) = (RunId::new(), RunId::new());
            insert(&evaluated, parent, PipelineStage::Evaluation, false).await?;
            insert(&built, parent, PipelineStage::Building, false).await?;
            let now = now.plus_ms(1);
            let waiting =
                async || runs::waiting(connection, PipelineStage::Evaluation, now, 9).await;
            let before = waiting().await?;
            runs::set_paused(connection, built.as_str(), true).await?;
            Ok::<_, Error>((before, waiting().await?, evaluated.to_string()))
        })
        .await
        .unwrap();
    assert_eq!(waiting, (Vec::new(), vec![waiting.2.clone()], waiting.2.clone()));
}
