//! Tasks over a real database, with agents that a test plays.

mod kept;
mod parts;

use std::time::Duration;

use evo_common::{
    api::{RunKind, StartRun, TaskView},
    clock::Timestamp,
    ids::Attempt,
    messages::{
        AgentRole, EvaluateDispatch, Reply, ReplyStatus, RunnerStatus, SummaryReport,
        TaskAttemptRef, TaskDispatch, TaskOutput, TaskReport, TaskStatus, TaskSummary, TaskUpdate,
        events as wire,
    },
    runtime::Shutdown,
    tokens::Tokens,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::{
    artifacts::ArtifactStore,
    registry::{Connected, Outlet},
    sources::Sources,
    store::{Database, tasks::TaskFilter},
};

struct Channel(mpsc::Sender<(String, Value)>);

impl Outlet for Channel {
    fn send(&self, event: &'static str, payload: &Value) -> bool {
        self.0.try_send((event.to_owned(), payload.clone())).is_ok()
    }
}

/// A king without network: tasks, their loop, and agents that the test plays.
struct Bench {
    tasks: Tasks,
    store: Store,
    registry: Registry,
    pipeline: Coordinator,
    shutdown: Shutdown,
}

/// What an agent hears.
struct Ear(mpsc::Receiver<(String, Value)>);

impl Ear {
    /// The next message of this kind.
    async fn hears<T: serde::de::DeserializeOwned>(&mut self, event: &str) -> T {
        let listen = async {
            loop {
                let (name, payload) = self.0.recv().await.expect("the bench is there");
                if name == event {
                    return serde_json::from_value(payload).unwrap();
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), listen).await.expect(event)
    }

    /// Whether a message of this kind has come.
    fn has_heard(&mut self, event: &str) -> bool {
        std::iter::from_fn(|| self.0.try_recv().ok()).any(|(name, _)| name == event)
    }
}

impl Bench {
    async fn start(folder: &TempDir) -> Self {
        Self::with(folder, |_| {}).await
    }

    async fn with(folder: &TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let bench = Self::still(folder, change).await;
        let (tasks, shutdown) = (bench.tasks.clone(), bench.shutdown.clone());
        #[expect(clippy::disallowed_methods, reason = "a test's helper ends with the test")]
        tokio::spawn(async move { tasks.reconcile(shutdown).await.unwrap() });
        bench
    }

    /// Without the loop: nothing happens but what the test does.
    async fn still(folder: &TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(folder.path(), Tokens::generate());
        change(&mut config);
        let config = Arc::new(config);
        let store = Store::open(Database::File(folder.path().join("king.db"))).await.unwrap();
        let artifacts = ArtifactStore::open(&folder.path().join("artifacts")).unwrap();
        let registry = Registry::default();
        let sources = Sources::new(Vec::new(), "http://127.0.0.1:1", None);
        let pipeline =
            Coordinator::new(store.clone(), artifacts, registry.clone(), sources, config.clone());
        let tasks = Tasks::new(store.clone(), registry.clone(), pipeline.clone(), config);
        tasks.recover().await.unwrap();
        Self { tasks, store, registry, pipeline, shutdown: Shutdown::new() }
    }

    /// Ends everything but the database's file, as a crash does.
    async fn crash(self) {
        self.shutdown.cancel();
        self.store.close().await;
    }

    fn connect(&self, agent_id: &str, role: &str, capabilities: &[&str]) -> Ear {
        let (outlet, ear) = mpsc::channel(1_000);
        self.registry.connect(
            agent_id,
            Connected {
                connection: format!("{agent_id} {}", uuid::Uuid::now_v7()),
                opened: self.registry.next_connection(),
                outlet: Arc::new(Channel(outlet)),
                role: role.parse::<AgentRole>().unwrap(),
                capacity: 2,
                capabilities: capabilities.iter().map(ToString::to_string).collect(),
                legacy: false,
                status: RunnerStatus::Ready,
            },
        );
        self.tasks.wake();
        Ear(ear)
    }

    async fn create(&self, new: NewTask) -> String {
        self.tasks.create(new).await.unwrap().0
    }

    async fn view(&self, task_id: &str) -> TaskView {
        self.store.tasks_get(task_id).await.unwrap().unwrap()
    }

    /// The task, once it is so.
    async fn once(&self, task_id: &str, status: TaskStatus) -> TaskView {
        for _ in 0..1_000 {
            let task = self.view(task_id).await;
            if task.status == status {
                return task;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?} did not become {status}", self.view(task_id).await);
    }

    async fn log(&self, task_id: &str) -> Vec<String> {
        let page = crate::store::tasks::LogPage { after: 0, offset: 0, limit: 100 };
        let logs = self.store.tasks_logs(task_id.to_owned(), page).await.unwrap().unwrap();
        logs.logs.into_iter().map(|line| line.message).collect()
    }
}

fn user_task(summary: &str) -> NewTask {
    NewTask::new("user", summary, json!({}))
}

fn report(dispatch: &TaskDispatch, status: TaskStatus) -> TaskReport {
    TaskReport {
        update: TaskUpdate {
            task_id: dispatch.invite.task_id.clone(),
            status: Some(status),
            agent_id: Some(dispatch.agent_id.clone()),
            payload: Some(json!({"result": "Two.", "tool_calls": [{"skill": "pets"}]})),
        },
        attempt: dispatch.attempt,
        req_id: "req-1".to_owned(),
        error: (status == TaskStatus::Failed).then(|| "no model".to_owned()),
        transient: false,
        steps: 2,
        usage: None,
        latency_ms: 1_500,
        trace: None,
    }
}

fn held(dispatch: &TaskDispatch) -> TaskAttemptRef {
    TaskAttemptRef { task_id: dispatch.invite.task_id.clone(), attempt: dispatch.attempt }
}

#[tokio::test]
async fn a_task_ends_in_a_result_that_is_looked_at_and_remembered() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let mut evaluator = bench.connect("evo-evaluation", "evaluation", &["evaluate"]);
    let task_id = bench.create(user_task("Count the pets.")).await;
    assert_eq!(bench.view(&task_id).await.status, TaskStatus::Pending);
    let mut user = bench.connect("evo-user", "user", &[]);
    let dispatch: TaskDispatch = user.hears(wire::TASK_INVITE).await;
    assert_eq!((dispatch.summary.as_str(), dispatch.attempt), ("Count the pets.", Attempt::FIRST));
    assert!(dispatch.deadline_ms > Timestamp::now().0);
    let agent = || "evo-user".to_owned();
    bench.tasks.joined(agent(), task_id.clone(), dispatch.attempt).await.unwrap();
    assert_eq!(bench.view(&task_id).await.status, TaskStatus::InProgress);

    // The pieces may come in any order; the second of one place counts for nothing.
    for (place, delta) in [(1, "pets."), (0, "Two "), (0, "Three ")] {
        let output = TaskOutput {
            task_id: task_id.clone(),
            request_id: "r".to_owned(),
            source: "llm".to_owned(),
            delta: delta.to_owned(),
            chunk_index: place,
            is_final: false,
        };
        bench.tasks.output("evo-user", &output).await.unwrap();
        assert!(bench.tasks.output("evo-evaluation", &output).await.is_err());
    }
    let done = report(&dispatch, TaskStatus::Completed);
    let stranger = bench.tasks.report("evo-other".to_owned(), done.clone()).await;
    assert_eq!(stranger.code.as_deref(), Some("not_your_attempt"));
    assert_eq!(bench.tasks.report(agent(), done.clone()).await, Reply::accepted("req-1"));
    assert_eq!(bench.tasks.report(agent(), done.clone()).await, Reply::duplicate("req-1"));
    let mut other = done;
    other.update.payload = Some(json!({"result": "Three."}));
    let other = bench.tasks.report(agent(), other).await;
    assert_eq!(
        (other.status, other.code.as_deref()),
        (ReplyStatus::Rejected, Some("stale_attempt"))
    );

    let until = tokio::time::Instant::now() + Duration::from_secs(5);
    let result = bench.tasks.result(&task_id, until).await.unwrap();
    assert!(result.ended);
    assert_eq!(result.result, Some(json!("Two.")));
    assert_eq!(result.work.unwrap().steps, 2);

    let ask: EvaluateDispatch = evaluator.hears(wire::TASK_EVALUATE).await;
    assert_eq!(ask.evaluate.output_summary, "Two.");
    assert_eq!(ask.evaluate.metadata["summary"], "Count the pets.");
    let summary = SummaryReport {
        summary: TaskSummary {
            task_id: task_id.clone(),
            agent_id: "evo-evaluation".to_owned(),
            summary: "Counted two pets.".to_owned(),
            score: Some(0.75),
            tags: vec!["pets".to_owned()],
            evaluation: json!({"complete": true}),
        },
        request_id: Some(ask.request_id),
        req_id: None,
        usage: None,
    };
    let by = |agent: &str| Who::Agent(agent.to_owned());
    let refused = bench.tasks.summarised(by("evo-user"), summary.clone()).await;
    assert!(matches!(refused, Err(Error::NotAsked(_))), "{refused:?}");
    bench.tasks.summarised(by("evo-evaluation"), summary.clone()).await.unwrap();
    assert!(bench.tasks.summarised(by("evo-evaluation"), summary).await.is_err());
    let task = bench.view(&task_id).await;
    assert_eq!((task.status, task.output.as_str()), (TaskStatus::Evaluated, "Two pets."));
    assert_eq!(task.evaluation.unwrap().summary, "Counted two pets.");
    let filter =
        store::MemoryFilter { limit: 5, task_id: Some(task_id.clone()), ..Default::default() };
    let memories = bench.store.memories_list(filter).await.unwrap().memories;
    assert_eq!(memories.len(), 1);
    let memory = &memories[0].memory;
    assert_eq!(
        (memory.key.as_str(), memory.scope.as_str()),
        (&*format!("task:{task_id}"), "system")
    );
    assert_eq!(memory.tiers[0].content, "Counted two pets.");
    assert_eq!(
        bench.log(&task_id).await,
        [
            "It was created",
            "Attempt 1 goes to evo-user",
            "It was completed",
            "evo-evaluation looked at it"
        ]
    );
}

#[tokio::test]
async fn pieces_that_a_result_overtook_are_kept() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let mut user = bench.connect("evo-user", "user", &[]);
    let task_id = bench.create(user_task("Count the pets.")).await;
    let dispatch: TaskDispatch = user.hears(wire::TASK_INVITE).await;
    let done = report(&dispatch, TaskStatus::Completed);
    let reply = bench.tasks.report("evo-user".to_owned(), done).await;
    assert_eq!(reply, Reply::accepted("req-1"));
    for (place, delta) in [(1, "pets."), (0, "Two ")] {
        let output = TaskOutput {
            task_id: task_id.clone(),
            request_id: "r".to_owned(),
            source: "llm".to_owned(),
            delta: delta.to_owned(),
            chunk_index: place,
            is_final: false,
        };
        bench.tasks.output("evo-user", &output).await.unwrap();
    }
    bench.tasks.wake();
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while bench.view(&task_id).await.output != "Two pets." {
        assert!(tokio::time::Instant::now() < until, "{:?}", bench.view(&task_id).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn without_an_evaluator_king_says_plainly_how_it_went() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let mut user = bench.connect("evo-user", "user", &[]);
    let completed = bench.create(user_task("Count the pets.")).await;
    let dispatch: TaskDispatch = user.hears(wire::TASK_INVITE).await;
    bench.tasks.report("evo-user".to_owned(), report(&dispatch, TaskStatus::Completed)).await;
    let task = bench.once(&completed, TaskStatus::Evaluated).await;
    let said = task.evaluation.unwrap();
    assert_eq!(said.agent_id, "king");
    assert_eq!(
        said.summary,
        "Count the pets: completed by evo-user in 2 steps, 1.5 s. Result: Two."
    );
    // What failed stays failed, however it is looked at.
    let failed = bench.create(user_task("")).await;
    let dispatch: TaskDispatch = user.hears(wire::TASK_INVITE).await;
    bench.tasks.report("evo-user".to_owned(), report(&dispatch, TaskStatus::Failed)).await;
    let task = bench.once(&failed, TaskStatus::Failed).await;
    assert_eq!(task.error.as_deref(), Some("no model"));
    for _ in 0..500 {
        if bench.view(&failed).await.evaluation.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a failed task is looked at too");
}

#[tokio::test]
async fn capacity_is_kept_and_a_named_agent_gets_what_is_its_own() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let named = NewTask { agent_id: Some("evo-b".to_owned()), ..user_task("for b") };
    let named = bench.create(named).await;
    let mut waiting = Vec::new();
    for number in 0..5 {
        waiting.push(bench.create(user_task(&format!("task {number}"))).await);
    }
    let mut a = bench.connect("evo-a", "user", &[]);
    let first: TaskDispatch = a.hears(wire::TASK_INVITE).await;
    let second: TaskDispatch = a.hears(wire::TASK_INVITE).await;
    assert_eq!([&first, &second].map(|d| &d.invite.task_id), [&waiting[0], &waiting[1]]);
    assert_eq!(bench.view(&named).await.status, TaskStatus::Pending);
    let mut b = bench.connect("evo-b", "user", &[]);
    let own: TaskDispatch = b.hears(wire::TASK_INVITE).await;
    assert_eq!(own.invite.task_id, named);
    let third: TaskDispatch = b.hears(wire::TASK_INVITE).await;
    assert_eq!(third.invite.task_id, waiting[2]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!a.has_heard("nothing") && !b.has_heard(wire::TASK_INVITE));
    bench.tasks.report("evo-a".to_owned(), report(&first, TaskStatus::Completed)).await;
    let fourth: TaskDispatch = a.hears(wire::TASK_INVITE).await;
    assert_eq!(fourth.invite.task_id, waiting[3]);
}

#[tokio::test]
async fn a_lost_runner_loses_the_attempt_and_its_late_answer_counts_for_nothing() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let mut old = bench.connect("evo-user", "user", &[]);
    let task_id = bench.create(user_task("Count.")).await;
    let first: TaskDispatch = old.hears(wire::TASK_INVITE).await;
    bench.tasks.joined("evo-user".to_owned(), task_id.clone(), first.attempt).await.unwrap();
    // It comes back with the attempt: nothing is lost.
    bench.tasks.registered("evo-user", vec![held(&first)]).await.unwrap();
    assert_eq!(bench.view(&task_id).await.status, TaskStatus::InProgress);
    // It comes back without.
    bench.tasks.registered("evo-user", vec![]).await.unwrap();
    assert_eq!(bench.view(&task_id).await.status, TaskStatus::Recovering);
    let mut new = bench.connect("evo-user", "user", &[]);
    let second: TaskDispatch = new.hears(wire::TASK_INVITE).await;
    assert_eq!(second.attempt, Attempt(2));
    let late =
        bench.tasks.report("evo-user".to_owned(), report(&first, TaskStatus::Completed)).await;
    assert_eq!(late.code.as_deref(), Some("stale_attempt"));
    // Whoever still works on the first one is told that nobody wants it.
    bench.tasks.heartbeat("evo-user", &[held(&first), held(&second)]).await.unwrap();
    let cancel: evo_common::messages::TaskCancel = new.hears(wire::TASK_CANCEL).await;
    assert_eq!(cancel.attempt, Attempt(1));
    let good =
        bench.tasks.report("evo-user".to_owned(), report(&second, TaskStatus::Completed)).await;
    assert_eq!(good.status, ReplyStatus::Accepted);
}
