//! Rows that can't be read stop nothing, and a check names them.

use std::{net::SocketAddr, time::Duration};

use evo_common::{
    api::{RunKind, StartRun, TaskView},
    clock::Timestamp,
    ids::RunId,
    messages::{AgentRole, RunnerStatus, TaskStatus, events as wire},
    runtime::Shutdown,
    tokens::Tokens,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::{
    config::Config,
    registry::{Connected, Outlet},
    retention,
    state::King,
    store::Connection,
    tasks::NewTask,
};

struct Channel(mpsc::Sender<(String, Value)>);

impl Outlet for Channel {
    fn send(&self, event: &'static str, payload: &Value) -> bool {
        self.0.try_send((event.to_owned(), payload.clone())).is_ok()
    }
}

async fn open(folder: &Path) -> King {
    let config = Config::new(folder, Tokens::generate());
    let address = SocketAddr::from(([127, 0, 0, 1], 3000));
    King::open(config, address, Shutdown::new()).await.unwrap()
}

/// Lets the loops of a king run.
fn work(king: &King) {
    let (this, that) = (king.clone(), king.clone());
    #[expect(clippy::disallowed_methods, reason = "they end with the test")]
    tokio::spawn(async move { this.tasks.reconcile(this.shutdown.clone()).await.unwrap() });
    #[expect(clippy::disallowed_methods, reason = "they end with the test")]
    tokio::spawn(async move { that.pipeline.reconcile(that.shutdown.clone()).await.unwrap() });
}

fn connect(king: &King, agent_id: &str, role: &str) -> mpsc::Receiver<(String, Value)> {
    let (outlet, ear) = mpsc::channel(1_000);
    let connected = Connected {
        connection: agent_id.to_owned(),
        opened: king.registry.next_connection(),
        outlet: std::sync::Arc::new(Channel(outlet)),
        role: role.parse::<AgentRole>().unwrap(),
        capacity: 1,
        capabilities: [].into_iter().collect(),
        legacy: false,
        status: RunnerStatus::Ready,
    };
    king.registry.connect(agent_id, connected);
    king.tasks.wake();
    king.pipeline.wake();
    ear
}

async fn hears(ear: &mut mpsc::Receiver<(String, Value)>, event: &str) -> Value {
    let listen = async {
        loop {
            let (name, payload) = ear.recv().await.unwrap();
            if name == event {
                return payload;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), listen).await.expect(event)
}

async fn execute(king: &King, sql: String) {
    let work = async move |connection: &Connection| {
        connection.execute_batch(&sql).await?;
        Ok::<_, store::Error>(())
    };
    king.store.write(work).await.unwrap();
}

async fn task(king: &King, summary: &str) -> String {
    let new = NewTask::new("user", summary, json!({}));
    king.tasks.create(new).await.unwrap().0
}

async fn view(king: &King, task_id: &str) -> TaskView {
    king.store.tasks_get(task_id).await.unwrap().unwrap()
}

async fn direct(king: &King) -> RunId {
    let request = StartRun { kind: RunKind::Direct, ..StartRun::default() };
    RunId::parse(king.pipeline.start(request).await.unwrap().run_id).unwrap()
}

async fn run_ends(king: &King, run_id: &RunId) -> String {
    for _ in 0..1_000 {
        let run = king.store.runs_get(run_id).await;
        if let Ok(Some(run)) = run
            && let Some(outcome) = run.run.outcome
        {
            return outcome.code;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("run {run_id} does not end");
}

async fn codes(folder: &Path) -> Vec<(&'static str, String)> {
    let report =
        examine(&folder.join("king.db"), &folder.join("artifacts"), silent()).await.unwrap();
    report.findings.into_iter().map(|finding| (finding.code, finding.message)).collect()
}

#[tokio::test]
async fn rows_that_cant_be_read_stop_no_loop_and_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let king = open(folder.path()).await;
    let (state, payload, question) =
        (task(&king, "a").await, task(&king, "b").await, task(&king, "c").await);
    let part = NewTask { parent_id: Some(state.clone()), ..NewTask::new("note", "", json!({})) };
    let part = king.tasks.create(part).await.unwrap().0;
    let good = task(&king, "d").await;
    let (broken, candidate, fine) = (direct(&king).await, direct(&king).await, direct(&king).await);
    execute(
        &king,
        format!(
            "UPDATE tasks SET state = '{{\"phase\": \"lost\"}}' WHERE task_id = '{state}';
             UPDATE tasks SET payload = 'x{{' WHERE task_id = '{payload}';
             UPDATE tasks SET question = '{{}}', due_at = 1 WHERE task_id = '{question}';
             UPDATE runs SET state = '' WHERE run_id = '{broken}';
             UPDATE runs SET definition = '[', trigger = '?' WHERE run_id = '{candidate}';
             INSERT INTO outbox (kind, key, payload, created_at) VALUES ('cancel', 'k', '{{', 1);
             UPDATE cron_jobs SET params = 'no', due_at = 1 WHERE name = 'backup';
             UPDATE cron_jobs SET due_at = 1, missed = 'run_once' WHERE name = 'gateway_health';
             INSERT INTO events (at, kind, payload) VALUES (1, 'test', '{{');
             UPDATE memories SET metadata = '' WHERE memory_id = 'mem-evo';"
        ),
    )
    .await;
    let found = codes(folder.path()).await;
    for row in [state.as_str(), &payload, &question, broken.as_str(), candidate.as_str(), "mem-evo"]
    {
        let named = |(code, message): &(&str, String)| {
            *code == "unreadable_row" && message.contains(&format!("row {row} of"))
        };
        assert!(found.iter().any(named), "{row}: {found:?}");
    }
    assert_eq!(found.len(), 9, "{found:?}");
    let shown =
        king.store.tasks_list(crate::store::tasks::TaskFilter { limit: 10, ..Default::default() });
    assert_eq!(shown.await.unwrap().count, 8, "three tasks of runs, five of their own");
    king.store.close().await;

    // The next start is not stopped either, nor is any loop.
    let king = open(folder.path()).await;
    work(&king);
    let mut user = connect(&king, "user", "user");
    assert_eq!(hears(&mut user, wire::TASK_INVITE).await["task_id"], json!(good));
    let mut learning = connect(&king, "learning", "learning");
    assert_eq!(hears(&mut learning, wire::PIPELINE_NEXT).await["run_id"], json!(fine));
    for run_id in [&broken, &candidate] {
        assert_eq!(run_ends(&king, run_id).await, "unreadable");
    }
    for task_id in [&state, &payload, &question] {
        let task = view(&king, task_id).await;
        assert_eq!(task.status, TaskStatus::Failed, "{task:?}");
        assert!(task.error.as_deref().unwrap().starts_with("unreadable: column `"), "{task:?}");
        assert!(task.ended_at.is_some());
        let page = crate::store::tasks::LogPage { after: 0, offset: 0, limit: 100 };
        let log = king.store.tasks_logs(task_id.clone(), page).await.unwrap().unwrap();
        assert!(log.logs.iter().any(|line| line.message.contains("was set aside")), "{log:?}");
    }
    assert_eq!(view(&king, &part).await.status, TaskStatus::Pending);
    assert!(king.store.outbox_list().await.unwrap().is_empty());
    let jobs = king.crons.list(&king.store).await.unwrap();
    let backup = jobs.iter().find(|job| job.name == "backup").unwrap();
    assert!(!backup.enabled && backup.last_error.as_deref().unwrap().starts_with("unreadable: "));
    let health = jobs.iter().find(|job| job.name == "gateway_health").unwrap();
    assert_eq!(health.due_at, Some(Timestamp(1)), "it is still to be made up for");
    let filter = crate::store::EventFilter { after: 0, limit: 1_000, run_id: None, kind: None };
    let events = king.store.events_list(filter).await.unwrap().events;
    for kind in ["task.set_aside", "effect.dropped", "run.ended"] {
        assert!(events.iter().any(|event| event.kind == kind), "{kind}");
    }

    // What was set aside is named until somebody has looked at it.
    let found = codes(folder.path()).await;
    let count = |wanted: &str| found.iter().filter(|(code, _)| *code == wanted).count();
    assert_eq!((count("unreadable_row"), count("set_aside")), (2, 6), "{found:?}");
    assert_eq!(king.tasks.delete(&state).await.unwrap(), [state.clone(), part]);

    // Nor is retention stopped, by a row that turns out to be bad only now.
    execute(&king, format!("UPDATE tasks SET state = 'x' WHERE task_id = '{payload}'")).await;
    let later = Timestamp::now().plus_ms(400 * 24 * 3_600_000);
    let gone = retention::sweep(&king, later).await.unwrap();
    assert_eq!((gone["tasks"], gone["runs"]), (2, 2), "{gone:?}");
    king.shutdown.cancel();
}

#[tokio::test]
async fn a_broken_task_can_be_removed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let king = open(folder.path()).await;
    let id = task(&king, "a").await;
    execute(&king, format!("UPDATE tasks SET state = 'x' WHERE task_id = '{id}'")).await;
    assert_eq!(view(&king, &id).await.status, TaskStatus::Failed);
    assert_eq!(king.tasks.delete(&id).await.unwrap(), [id]);
    assert_eq!(codes(folder.path()).await, []);
}
