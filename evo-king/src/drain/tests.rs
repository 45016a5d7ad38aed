//! Tasks of user agents at the end of a king.

use std::{net::SocketAddr, path::Path, sync::Arc};

use evo_common::{
    messages::{
        AgentRole, ReplyStatus, RunnerStatus, TaskAttemptRef, TaskDispatch, TaskReport, TaskStatus,
        TaskUpdate, events as wire,
    },
    runtime::Shutdown,
    tokens::Tokens,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::{
    config::Config,
    registry::{Connected, Outlet},
    tasks::NewTask,
};

struct Channel(mpsc::Sender<(String, Value)>);

impl Outlet for Channel {
    fn send(&self, event: &'static str, payload: &Value) -> bool {
        self.0.try_send((event.to_owned(), payload.clone())).is_ok()
    }
}

/// A king at work, and what its user agent hears, which registered with these attempts in hand.
async fn open(
    folder: &Path,
    in_hand: Vec<TaskAttemptRef>,
) -> (King, mpsc::Receiver<(String, Value)>) {
    let config = Config::new(folder, Tokens::generate());
    let address = SocketAddr::from(([127, 0, 0, 1], 3000));
    let king = King::open(config, address, Shutdown::new()).await.unwrap();
    let this = king.clone();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
    tokio::spawn(async move { this.tasks.reconcile(this.shutdown.clone()).await.unwrap() });
    let (outlet, ear) = mpsc::channel(100);
    let connected = Connected {
        connection: "user".to_owned(),
        opened: king.registry.next_connection(),
        outlet: Arc::new(Channel(outlet)),
        role: "user".parse::<AgentRole>().unwrap(),
        capacity: 3,
        capabilities: [].into_iter().collect(),
        legacy: false,
        status: RunnerStatus::Ready,
    };
    // As the socket does it: what an agent has in hand is settled before it is given anything.
    king.tasks.registered("user", in_hand).await.unwrap();
    king.registry.connect("user", connected);
    king.tasks.wake();
    (king, ear)
}

async fn create(king: &King, summary: &str) -> String {
    king.tasks.create(NewTask::new("user", summary, json!({}))).await.unwrap().0
}

async fn invited(ear: &mut mpsc::Receiver<(String, Value)>) -> TaskDispatch {
    let listen = async {
        loop {
            let (event, payload) = ear.recv().await.unwrap();
            if event == wire::TASK_INVITE {
                return serde_json::from_value(payload).unwrap();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), listen).await.expect("an invitation")
}

async fn done(king: &King, dispatch: &TaskDispatch) -> ReplyStatus {
    let report = TaskReport {
        update: TaskUpdate {
            task_id: dispatch.invite.task_id.clone(),
            status: Some(TaskStatus::Completed),
            agent_id: Some("user".to_owned()),
            payload: Some(json!({"result": "Two."})),
        },
        attempt: dispatch.attempt,
        req_id: "r".to_owned(),
        error: None,
        transient: false,
        steps: 1,
        usage: None,
        latency_ms: 1,
        trace: None,
    };
    king.tasks.report("user".to_owned(), report).await.status
}

async fn status(king: &King, task_id: &str) -> TaskStatus {
    king.store.tasks_get(task_id).await.unwrap().unwrap().status
}

#[tokio::test]
async fn tasks_end_within_the_grace_or_go_on_with_the_next_king_and_none_is_given_out() {
    let folder = tempfile::tempdir().unwrap();
    let (king, mut ear) = open(folder.path(), vec![]).await;
    create(&king, "short").await;
    let short = invited(&mut ear).await;
    let long_id = create(&king, "long").await;
    let long = invited(&mut ear).await;
    king.tasks.joined("user".to_owned(), long_id.clone(), long.attempt).await.unwrap();
    begin(&king);
    let later = create(&king, "later").await;
    assert_eq!(busy(&king).await.unwrap(), 2);

    // One ends in the grace period, the other does not.
    let (end, ended) = tokio::join!(wait(&king, Duration::from_millis(600)), done(&king, &short));
    assert!(!end, "the long one goes on");
    assert_eq!((ended, busy(&king).await.unwrap()), (ReplyStatus::Accepted, 1));
    while let Ok((event, _)) = ear.try_recv() {
        assert_ne!(event, wire::TASK_INVITE, "nothing new is given out");
    }
    assert_eq!(status(&king, &later).await, TaskStatus::Pending);
    king.shutdown.cancel();
    king.store.close().await;

    // The runner went on with it and tells the next king, once; what waited is given out.
    let held = TaskAttemptRef { task_id: long_id.clone(), attempt: long.attempt };
    let (king, mut ear) = open(folder.path(), vec![held]).await;
    assert_eq!(status(&king, &long_id).await, TaskStatus::InProgress);
    let next = invited(&mut ear).await;
    assert_eq!(next.invite.task_id, later, "the long one is not given out twice");
    assert_eq!(done(&king, &long).await, ReplyStatus::Accepted);
    assert_eq!(done(&king, &long).await, ReplyStatus::Duplicate);
    assert_eq!(done(&king, &short).await, ReplyStatus::Duplicate);
    assert_eq!(done(&king, &next).await, ReplyStatus::Accepted);
    begin(&king);
    assert!(wait(&king, Duration::from_secs(20)).await, "nothing is under way");
    king.shutdown.cancel();
}
