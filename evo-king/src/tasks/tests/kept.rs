//! What is kept over crashes, and what is gone when a task is removed.

use super::*;

#[tokio::test]
async fn leases_deadlines_and_questions_survive_a_crash() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let mut user = bench.connect("evo-user", "user", &[]);
    bench.connect("evo-evaluation", "evaluation", &["evaluate"]);
    let mut ids = Vec::new();
    let mut dispatches: Vec<TaskDispatch> = Vec::new();
    for _ in 0..2 {
        ids.push(bench.create(user_task("Count.")).await);
        dispatches.push(user.hears(wire::TASK_INVITE).await);
    }
    ids.push(bench.create(user_task("Wait.")).await);
    bench.tasks.joined("evo-user".to_owned(), ids[0].clone(), Attempt::FIRST).await.unwrap();
    let ended = report(&dispatches[1], TaskStatus::Completed);
    assert_eq!(
        bench.tasks.report("evo-user".to_owned(), ended.clone()).await.status,
        ReplyStatus::Accepted
    );
    let asked = async {
        loop {
            let load = async |c: &store::Connection| store::tasks::asked(c).await;
            if !bench.store.read(load).await.unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asked).await.unwrap();
    bench.crash().await;

    let bench = Bench::with(&folder, |config| config.grace_ms = 200).await;
    // The runner goes on with the first, sends the second's result again, and gets the third.
    let mut user = bench.connect("evo-user", "user", &[]);
    bench.tasks.registered("evo-user", vec![held(&dispatches[0])]).await.unwrap();
    bench.tasks.heartbeat("evo-user", &[held(&dispatches[0])]).await.unwrap();
    let again = bench.tasks.report("evo-user".to_owned(), ended).await;
    assert_eq!(again.status, ReplyStatus::Duplicate);
    let third: TaskDispatch = user.hears(wire::TASK_INVITE).await;
    assert_eq!(third.invite.task_id, ids[2]);
    // The question is put again, to whoever is there now.
    let mut evaluator = bench.connect("evo-other", "evaluation", &["evaluate"]);
    let ask: EvaluateDispatch = evaluator.hears(wire::TASK_EVALUATE).await;
    assert_eq!(ask.evaluate.task_id, ids[1]);
    let first = bench
        .tasks
        .report("evo-user".to_owned(), report(&dispatches[0], TaskStatus::Completed))
        .await;
    assert_eq!(first.status, ReplyStatus::Accepted);
}

#[tokio::test]
async fn a_runner_that_stays_silent_after_a_crash_loses_its_attempt() {
    let folder = TempDir::new().unwrap();
    let short = |config: &mut Config| (config.lease_ms, config.grace_ms) = (100, 100);
    let bench = Bench::with(&folder, short).await;
    let mut user = bench.connect("evo-user", "user", &[]);
    let task_id = bench.create(user_task("Count.")).await;
    let _: TaskDispatch = user.hears(wire::TASK_INVITE).await;
    bench.crash().await;
    let bench = Bench::with(&folder, short).await;
    bench.once(&task_id, TaskStatus::Recovering).await;
    let mut other = bench.connect("evo-other", "user", &[]);
    let second: TaskDispatch = other.hears(wire::TASK_INVITE).await;
    assert_eq!(second.attempt, Attempt(2));
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_over() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let mut user = bench.connect("evo-user", "user", &[]);
    let limits = TaskLimits { timeout_ms: 1_000, ..TaskLimits::default() };
    let new = NewTask { limits: Some(limits), ..user_task("Count.") };
    let task_id = bench.create(new).await;
    let dispatch: TaskDispatch = user.hears(wire::TASK_INVITE).await;
    assert_eq!(dispatch.limits.timeout_ms, 1_000);
    let task = bench.once(&task_id, TaskStatus::Failed).await;
    assert_eq!(task.error.as_deref(), Some("evo-user did not end it in time"));
    let _: evo_common::messages::TaskCancel = user.hears(wire::TASK_CANCEL).await;
}

#[tokio::test]
async fn a_removed_task_takes_everything_under_it_along_and_its_runner_stops() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let mut user = bench.connect("evo-user", "user", &[]);
    let top = bench.create(NewTask::new("folder", "All of it.", json!({}))).await;
    let under = |parent: &str| NewTask { parent_id: Some(parent.to_owned()), ..user_task("Part.") };
    let middle = bench.create(NewTask { task_type: "folder".to_owned(), ..under(&top) }).await;
    let leaf = bench.create(under(&middle)).await;
    let dispatch: TaskDispatch = user.hears(wire::TASK_INVITE).await;
    assert_eq!(dispatch.invite.task_id, leaf);
    let beside = bench.create(NewTask::new("folder", "Something else.", json!({}))).await;
    let bound = leaf.clone();
    bench
        .store
        .write(async move |connection: &store::Connection| {
            crate::memory::bind_task(connection, Timestamp::now(), &bound, "mem-evo").await
        })
        .await
        .unwrap();

    let gone = bench.tasks.delete(&top).await.unwrap();
    assert_eq!(gone, [top.clone(), middle, leaf.clone()]);
    let cancel: evo_common::messages::TaskCancel = user.hears(wire::TASK_CANCEL).await;
    assert_eq!((cancel.task_id.as_str(), cancel.attempt), (leaf.as_str(), dispatch.attempt));
    for id in &gone {
        assert!(bench.store.tasks_get(id).await.unwrap().is_none());
    }
    let bindings = async |connection: &store::Connection| {
        crate::store::memories::tasks_of_memory(connection, "mem-evo").await
    };
    assert!(bench.store.read(bindings).await.unwrap().is_empty());
    assert_eq!(bench.store.tasks_latest().await.unwrap(), Some(beside));
    let late =
        bench.tasks.report("evo-user".to_owned(), report(&dispatch, TaskStatus::Completed)).await;
    assert_eq!(late.code.as_deref(), Some("not_found"));
    assert!(matches!(bench.tasks.delete(&top).await, Err(Error::Unknown(_))));
}

#[tokio::test]
async fn agents_change_their_own_tasks_and_no_others() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let own = NewTask {
        agent_id: Some("evo-learning".to_owned()),
        ..NewTask::new("study", "", json!({}))
    };
    let own = bench.create(own).await;
    let done = || evo_common::api::ChangeTask {
        status: Some(TaskStatus::Completed),
        payload: Some(json!({"result": [1, 2]})),
        ..Default::default()
    };
    let by = |agent: &str| Who::Agent(agent.to_owned());
    let refused = bench.tasks.change(&own, done(), by("evo-building")).await;
    assert!(matches!(refused, Err(Error::NotYours { .. })), "{refused:?}");
    bench.tasks.change(&own, done(), by("evo-learning")).await.unwrap();
    assert_eq!(bench.view(&own).await.result, Some(json!([1, 2])));
    let kings =
        evo_common::api::ChangeTask { status: Some(TaskStatus::Decomposed), ..Default::default() };
    let refused = bench.tasks.change(&own, kings, Who::Operator).await;
    assert!(matches!(refused, Err(Error::Rejected(Rejection::KingsOwn(_)))), "{refused:?}");
}

#[tokio::test]
async fn one_key_makes_one_task() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let keyed =
        |summary: &str| NewTask { idempotency_key: Some("key".to_owned()), ..user_task(summary) };
    let (first, created) = bench.tasks.create(keyed("one")).await.unwrap();
    assert!(created);
    assert_eq!(bench.tasks.create(keyed("one")).await.unwrap(), (first, false));
    let other = bench.tasks.create(keyed("two")).await;
    assert!(matches!(other, Err(Error::KeyReused { .. })), "{other:?}");
    for (field, new) in [
        ("task_type", NewTask::new("", "", json!({}))),
        ("task_type", NewTask::new("pipeline", "", json!({}))),
        ("payload", NewTask::new("x", "", json!({"a": "x".repeat(300_000)}))),
        ("parent_id", NewTask { parent_id: Some("task-none".to_owned()), ..user_task("") }),
        ("agent_id", NewTask { agent_id: Some("a/b".to_owned()), ..user_task("") }),
    ] {
        match bench.tasks.create(new).await {
            Err(Error::Invalid { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_payload_is_an_object_whatever_is_sent() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    for (sent, kept) in [
        (json!("{\"a\": 1}"), json!({"a": 1})),
        (json!("list the pets"), json!({"text": "list the pets"})),
        (json!(""), json!({})),
        (Value::Null, json!({})),
        (json!([1]), json!({"value": [1]})),
    ] {
        let task_id = bench.create(NewTask::new("x", "", sent)).await;
        assert_eq!(bench.view(&task_id).await.payload, kept);
    }
    let page = bench.store.tasks_list(TaskFilter { limit: 3, ..Default::default() }).await.unwrap();
    let cursor = page.next_cursor.clone();
    assert_eq!((page.count, cursor.is_some()), (3, true));
    let rest = bench
        .store
        .tasks_list(TaskFilter { limit: 3, cursor, ..Default::default() })
        .await
        .unwrap();
    assert_eq!((rest.count, rest.next_cursor), (2, None));
    assert!(page.tasks.last().unwrap().id > rest.tasks[0].id);
}

#[tokio::test]
async fn what_is_begun_again_waits_for_whom_it_waited_before() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let set = async |id: &str, status| {
        let change = evo_common::api::ChangeTask { status: Some(status), ..Default::default() };
        bench.tasks.change(id, change, Who::Operator).await.unwrap();
    };
    let note = bench.create(NewTask::new("note", "Mine.", json!({}))).await;
    let work = bench.create(user_task("Count.")).await;
    for id in [&note, &work] {
        for status in [TaskStatus::InProgress, TaskStatus::Cancelled, TaskStatus::Pending] {
            set(id, status).await;
        }
    }
    let mut user = bench.connect("evo-user", "user", &[]);
    let dispatch: TaskDispatch = user.hears(wire::TASK_INVITE).await;
    assert_eq!(dispatch.invite.task_id, work);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!user.has_heard(wire::TASK_INVITE));
    assert_eq!(bench.view(&note).await.status, TaskStatus::Pending);
}
