//! Tasks that are split, and tasks of runs.

use evo_common::{
    ids::RunId,
    messages::{DecomposeDispatch, DecomposeReport, TaskDecomposeResponse, TaskSubtaskSpec},
};

use super::*;

fn parts(ask: &DecomposeDispatch, summaries: &[&str]) -> DecomposeReport {
    DecomposeReport {
        response: TaskDecomposeResponse {
            request_id: ask.request.request_id.clone(),
            run_id: String::new(),
            task_id: ask.request.task_id.clone(),
            should_decompose: !summaries.is_empty(),
            reasoning: "by kind".to_owned(),
            subtasks: summaries
                .iter()
                .map(|summary| TaskSubtaskSpec {
                    task_type: "user".to_owned(),
                    summary: (*summary).to_owned(),
                    payload: json!({}),
                })
                .collect(),
        },
        req_id: None,
    }
}

#[tokio::test]
async fn a_task_is_split_by_whom_king_asks_and_ends_with_its_parts() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let mut evaluator = bench.connect("evo-evaluation", "evaluation", &["decompose"]);
    let mut user = bench.connect("evo-user", "user", &[]);
    let task_id = bench.create(user_task("List the pets.")).await;
    let whole: TaskDispatch = user.hears(wire::TASK_INVITE).await;
    bench.tasks.decompose(&task_id, "manual").await.unwrap();
    let ask: DecomposeDispatch = evaluator.hears(wire::TASK_DECOMPOSE).await;
    assert_eq!(ask.request.summary, "List the pets.");
    let answer = parts(&ask, &["List the dogs.", "List the cats."]);
    let mut other = answer.clone();
    other.response.request_id = "another".to_owned();
    for (agent, answer) in [("evo-user", &answer), ("evo-evaluation", &other)] {
        let refused = bench.tasks.decomposed(agent, answer.clone()).await;
        assert!(matches!(refused, Err(Error::NotAsked(_))), "{refused:?}");
    }
    bench.tasks.decomposed("evo-evaluation", answer.clone()).await.unwrap();
    assert!(bench.tasks.decomposed("evo-evaluation", answer).await.is_err(), "it counts once");
    // The attempt at the whole is over.
    let _: evo_common::messages::TaskCancel = user.hears(wire::TASK_CANCEL).await;
    let late =
        bench.tasks.report("evo-user".to_owned(), report(&whole, TaskStatus::Completed)).await;
    assert_eq!(late.status, ReplyStatus::Rejected);
    assert_eq!(bench.view(&task_id).await.status, TaskStatus::Decomposed);

    let first: TaskDispatch = user.hears(wire::TASK_INVITE).await;
    let second: TaskDispatch = user.hears(wire::TASK_INVITE).await;
    assert_eq!([&first, &second].map(|d| d.summary.as_str()), ["List the dogs.", "List the cats."]);
    bench.tasks.report("evo-user".to_owned(), report(&first, TaskStatus::Completed)).await;
    let subtasks = bench.store.tasks_subtasks(task_id.clone(), 10, 0).await.unwrap();
    assert_eq!((subtasks.progress.total, subtasks.progress.completed), (2, 1));
    assert_eq!(bench.view(&task_id).await.status, TaskStatus::Decomposed);
    bench.tasks.report("evo-user".to_owned(), report(&second, TaskStatus::Completed)).await;
    let whole = bench.once(&task_id, TaskStatus::Evaluated).await;
    let result = whole.result.unwrap();
    assert_eq!(result["subtasks"][1]["summary"], "List the cats.");
    assert_eq!(result["subtasks"][1]["result"], "Two.");
}

#[tokio::test]
async fn king_splits_plainly_when_nobody_is_asked_or_nobody_answers() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let text = "List the dogs and then list the cats.";
    let alone = bench.create(NewTask::new("note", text, json!({}))).await;
    bench.tasks.decompose(&alone, "manual").await.unwrap();
    assert_eq!(bench.store.tasks_subtasks(alone.clone(), 9, 0).await.unwrap().count, 2);
    assert_eq!(bench.view(&alone).await.status, TaskStatus::Decomposed);
    assert!(bench.tasks.decompose(&alone, "manual").await.is_err(), "it is split already");
    let whole = bench.create(NewTask::new("note", "One thing.", json!({}))).await;
    bench.tasks.decompose(&whole, "manual").await.unwrap();
    assert_eq!(bench.view(&whole).await.status, TaskStatus::Pending);

    let _silent = bench.connect("evo-evaluation", "evaluation", &["decompose"]);
    let asked = bench.create(NewTask::new("note", text, json!({}))).await;
    bench.tasks.decompose(&asked, "manual").await.unwrap();
    assert_eq!(bench.view(&asked).await.status, TaskStatus::Pending);
    // The deadline is in the database: as if 30 s had gone by.
    let id = asked.clone();
    bench
        .store
        .write(async move |connection: &store::Connection| {
            let mut task = store::tasks::load(connection, &id).await?.unwrap();
            task.question.as_mut().unwrap().deadline = Timestamp(0);
            store::tasks::save(connection, Timestamp::now(), &task).await
        })
        .await
        .unwrap();
    bench.tasks.wake();
    bench.once(&asked, TaskStatus::Decomposed).await;
}

#[tokio::test]
async fn a_part_that_fails_or_is_removed_lets_the_whole_end() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let whole =
        bench.create(NewTask::new("note", "One thing; another thing; a third", json!({}))).await;
    bench.tasks.decompose(&whole, "manual").await.unwrap();
    let parts = bench.store.tasks_subtasks(whole.clone(), 9, 0).await.unwrap().subtasks;
    let set = async |id: &str, status| {
        let change = evo_common::api::ChangeTask { status: Some(status), ..Default::default() };
        bench.tasks.change(id, change, Who::Operator).await.unwrap();
    };
    set(&parts[0].id, TaskStatus::Completed).await;
    set(&parts[1].id, TaskStatus::Failed).await;
    assert_eq!(bench.view(&whole).await.status, TaskStatus::Decomposed);
    bench.tasks.delete(&parts[2].id).await.unwrap();
    let whole = bench.view(&whole).await;
    assert_eq!(whole.status, TaskStatus::Failed);
    assert_eq!(whole.error.as_deref(), Some("1 of 2 subtasks did not succeed"));
}

async fn start(bench: &Bench, kind: RunKind) -> (RunId, String) {
    let request = StartRun { trigger: json!({"n": 1}), kind, ..StartRun::default() };
    let run_id = bench.pipeline.start(request).await.unwrap().run_id;
    let task_id = store::tasks::id_of_run(&run_id);
    (RunId::parse(run_id).unwrap(), task_id)
}

#[tokio::test]
async fn a_runs_task_is_as_its_run_is_and_subtasks_never_stand_for_it() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let (run_id, task_id) = start(&bench, RunKind::Direct).await;
    let current = || async { bench.store.tasks_current().await.unwrap().map(|task| task.id) };
    assert_eq!(current().await, Some(task_id.clone()));
    let task = bench.view(&task_id).await;
    assert_eq!((task.status, task.task_type.as_str()), (TaskStatus::InProgress, "pipeline"));
    assert_eq!(task.current_stage, "learning");
    assert_eq!(task.payload["trigger"], json!({"n": 1}));
    // A subtask shares the run's id, is newer, and ends first: the run's task stays as it is.
    let sub =
        NewTask { parent_id: Some(task_id.clone()), ..NewTask::new("note", "part", json!({})) };
    let sub = bench.create(sub).await;
    assert_eq!(bench.view(&sub).await.run_id, run_id.as_str());
    let done =
        evo_common::api::ChangeTask { status: Some(TaskStatus::Completed), ..Default::default() };
    bench.tasks.change(&sub, done.clone(), Who::Operator).await.unwrap();
    assert_eq!(bench.view(&task_id).await.status, TaskStatus::InProgress);
    assert_eq!(current().await, Some(task_id.clone()));
    let refused = bench.tasks.change(&task_id, done, Who::Operator).await;
    assert!(matches!(refused, Err(Error::OfRun { .. })), "{refused:?}");
    // Removing a subtask leaves the run alone.
    bench.tasks.delete(&sub).await.unwrap();
    assert_eq!(bench.view(&task_id).await.status, TaskStatus::InProgress);
    let list = async |status| {
        let filter = TaskFilter { limit: 9, status: Some(status), ..Default::default() };
        let page = bench.store.tasks_list(filter).await.unwrap();
        page.tasks.into_iter().map(|task| task.id).collect::<Vec<_>>()
    };
    assert_eq!(list(TaskStatus::InProgress).await, *std::slice::from_ref(&task_id));
    bench.pipeline.cancel(&run_id).await.unwrap();
    let task = bench.view(&task_id).await;
    assert_eq!((task.status, task.ended_at.is_some()), (TaskStatus::Cancelled, true));
    assert_eq!(list(TaskStatus::Cancelled).await, *std::slice::from_ref(&task_id));
    assert!(list(TaskStatus::Failed).await.is_empty() && current().await.is_none());
    assert!(bench.log(&task_id).await.iter().any(|line| line.contains("run")));
}

#[tokio::test]
async fn removing_a_runs_task_cancels_the_run() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    for kind in [RunKind::Cycle, RunKind::Direct] {
        let (run_id, task_id) = start(&bench, kind).await;
        let under =
            NewTask { parent_id: Some(task_id.clone()), ..NewTask::new("note", "", json!({})) };
        bench.create(under).await;
        assert_eq!(bench.tasks.delete(&task_id).await.unwrap().len(), 2);
        let run = bench.store.runs_get(&run_id).await.unwrap().unwrap();
        assert_eq!(run.run.status, evo_common::messages::PipelineRunStatus::Failed);
        // A run that has ended does not keep its task from going.
        let (run_id, task_id) = start(&bench, kind).await;
        bench.pipeline.cancel(&run_id).await.unwrap();
        assert_eq!(bench.tasks.delete(&task_id).await.unwrap(), [task_id]);
    }
    assert!(bench.store.tasks_latest().await.unwrap().is_none());
}
