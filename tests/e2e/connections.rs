//! What one connection may say, and what those who look on are told.

use std::time::Duration;

use evo_common::{
    king_socket::{Incoming, Socket},
    tokens::Secret,
};
use evo_harness::{Evo, King, eventually_async};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{evo, security::king};

const MINUTE: Duration = Duration::from_secs(60);

async fn connect(evo: &Evo, url: &str, scope: &str) -> Socket {
    let mut socket = Socket::connect(url, Some(&Secret::new(evo.token(scope)))).await.unwrap();
    heard(&mut socket, "king:welcome", |_| true).await;
    socket
}

/// Waits for a message of this kind that fits.
async fn heard(socket: &mut Socket, event: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let wait = async {
        loop {
            match socket.next().await {
                Incoming::Event(name, payload) if name == event && fits(&payload) => {
                    break payload;
                }
                Incoming::Broken(why) | Incoming::Rejected(why) => panic!("{event}: {why}"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(MINUTE, wait).await.unwrap_or_else(|_| panic!("no {event}"))
}

fn agent(id: &str, role: &str, req_id: &str) -> Value {
    json!({"agent_id": id, "role": role, "capabilities": [], "protocol": 2, "req_id": req_id})
}

async fn register(socket: &mut Socket, id: &str, role: &str) -> Value {
    let req_id = format!("{id}-{role}");
    socket.emit("agent:register", agent(id, role, &req_id)).await.unwrap();
    heard(socket, "king:reply", |reply| reply["req_id"] == req_id.as_str()).await
}

#[tokio::test]
async fn a_connection_speaks_for_one_agent_and_king_for_itself() {
    let evo = evo();
    let (_running, url) = king(&evo, "");
    let operator = King::new(&url, &evo.token("operator"));
    let mut dashboard = connect(&evo, &url, "viewer").await;
    dashboard.emit("dashboard:subscribe", json!({})).await.unwrap();

    let mut runner = connect(&evo, &url, "runner").await;
    let reply = register(&mut runner, "ann", "user").await;
    assert_eq!(reply["status"], "accepted", "{reply}");
    // The same again is as good; another agent needs a connection of its own.
    assert_eq!(register(&mut runner, "ann", "user").await["status"], "accepted");
    let reply = register(&mut runner, "bob", "user").await;
    assert_eq!(reply["code"], "already_registered", "{reply}");
    assert!(reply["message"].as_str().unwrap().contains("\"ann\""), "{reply}");
    assert!(operator.try_get("/agents/bob").await.is_none(), "bob is nowhere");
    let mut other = connect(&evo, &url, "runner").await;
    let reply = register(&mut other, "evo-king", "user").await;
    assert_eq!(reply["code"], "forbidden", "{reply}");

    // Dashboards of the original read these fields.
    let seen = |name: &'static str| {
        move |told: &Value| told["event"] == name && told["data"]["agent_id"] == "ann"
    };
    let told = heard(&mut dashboard, "dashboard:event", seen("agent:register")).await;
    assert_eq!((&told["data"]["role"], &told["data"]["status"]), (&json!("user"), &json!("ready")));
    let busy = json!({"agent_id": "ann", "status": "busy"});
    runner.emit("agent:status", busy).await.unwrap();
    let told = heard(&mut dashboard, "dashboard:event", seen("agent:status")).await;
    assert_eq!(told["data"]["status"], "busy", "{told}");
    runner.close().await;
    let told = heard(&mut dashboard, "dashboard:event", seen("agent:status")).await;
    assert_eq!(told["data"]["status"], "offline", "{told}");

    // Whoever is connected learns what king found when it looked at its machine again.
    let (status, found) = operator.send(Method::POST, "/system-info/refresh", None).await;
    assert!(status.is_success(), "{found}");
    let same = |told: &Value| told["discovered_at"] == found["discovered_at"];
    heard(&mut dashboard, "king:system_info", same).await;
}

#[tokio::test]
async fn an_agent_writes_memories_for_itself_and_its_own_tasks_only() {
    let evo = evo();
    let (_running, url) = king(&evo, "");
    let operator = King::new(&url, &evo.token("operator"));
    let mut runner = connect(&evo, &url, "runner").await;
    assert_eq!(register(&mut runner, "ann", "user").await["status"], "accepted");
    let task = json!({"task_type": "report", "summary": "by hand", "agent_id": "cleo"});
    let (status, theirs) = operator.send(Method::POST, "/tasks", Some(&task)).await;
    assert!(status.is_success(), "{theirs}");
    let theirs = theirs["task"]["id"].as_str().unwrap().to_owned();
    let memory = |key: &str, owner: &str, task_id: Option<&str>| {
        json!({
            "scope": "agent", "category": "fact", "key": key, "agent_id": owner,
            "task_id": task_id, "tiers": [{"tier": "l0", "content": key}],
        })
    };
    for (key, owner, task_id) in [
        ("of king", "evo-king", None),
        ("of another", "bob", None),
        ("for another's task", "ann", Some(theirs.as_str())),
        ("for no task", "ann", Some("task-none")),
        ("its own", "ann", None),
    ] {
        runner.emit("memory:store", memory(key, owner, task_id)).await.unwrap();
    }
    // King has one of its own from the beginning.
    let kept = async || {
        let page = operator.get("/memories?limit=50").await;
        let page = page["memories"].as_array().unwrap().clone();
        page.into_iter().filter(|memory| memory["key"] != "evo:memory").collect::<Vec<_>>()
    };
    eventually_async("the last memory", MINUTE, async || {
        kept().await.iter().any(|memory| memory["key"] == "its own").then_some(())
    })
    .await;
    // One connection's messages are handled side by side, so give the others their chance.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let kept = kept().await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0]["agent_id"], "ann");

    // More than king's limits is an operator's to give.
    let create = |steps: u32| {
        json!({
            "task_type": "report", "summary": steps.to_string(),
            "limits": {"max_steps": steps, "max_tokens": 1000, "timeout_ms": 1000},
        })
    };
    runner.emit("task:create", create(199)).await.unwrap();
    runner.emit("task:create", create(2)).await.unwrap();
    let tasks = eventually_async("the task within the limits", MINUTE, async || {
        let tasks = operator.list("/tasks", "tasks").await;
        tasks.iter().any(|task| task["summary"] == "2").then_some(tasks)
    })
    .await;
    assert!(tasks.iter().all(|task| task["summary"] != "199"), "{tasks:?}");
}
