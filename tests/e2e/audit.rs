//! What is said over Socket.IO and changes something is in the audit log.

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

/// A connection to which king has said welcome.
pub(crate) async fn connect(url: &str, token: &str) -> Socket {
    let token = Secret::new(token.to_owned());
    let mut socket = Socket::connect(url, Some(&token)).await.unwrap();
    hears(&mut socket, "king:welcome").await;
    socket
}

/// Waits for an event and gives its payload.
async fn hears(socket: &mut Socket, wanted: &str) -> Value {
    let heard = async {
        loop {
            match socket.next().await {
                Incoming::Event(event, payload) if event == wanted => return payload,
                Incoming::Connected | Incoming::Event(..) => {}
                end => panic!("waiting for {wanted}: {end:?}"),
            }
        }
    };
    tokio::time::timeout(MINUTE, heard).await.unwrap()
}

/// Who did what to what, and how that was answered.
type Row = (String, String, String, u64);

fn row(token: &str, action: &str, target: &str, status: u64) -> Row {
    (token.to_owned(), format!("socket {action}"), target.to_owned(), status)
}

async fn rows(operator: &King) -> Vec<Row> {
    let entries = operator.list("/audit", "entries").await;
    entries
        .iter()
        .rev()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap().to_owned();
            assert!(text("remote").starts_with("127.0.0.1:"), "{entry}");
            assert!(!text("request_id").is_empty(), "{entry}");
            assert!(!entry.to_string().contains("a secret"), "{entry}");
            let status = entry["status"].as_u64().unwrap();
            (text("token_id"), text("action"), text("target"), status)
        })
        .collect()
}

/// Sends a message and waits for its row.
async fn sends(socket: &Socket, operator: &King, event: &str, payload: Value) -> Row {
    let before = rows(operator).await.len();
    socket.emit(event, payload).await.unwrap();
    eventually_async("the message is in the audit log", MINUTE, async || {
        let rows = rows(operator).await;
        assert!(rows.len() <= before + 1, "{event} has several rows: {rows:?}");
        rows.get(before).cloned()
    })
    .await
}

/// The id of the only entry of a list.
async fn only(operator: &King, path: &str, field: &str, id: &str) -> String {
    let list = operator.get(path).await;
    assert_eq!(list["count"], 1, "{list}");
    list[field][0][id].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn messages_that_change_something_are_in_the_audit_log_and_others_are_not() {
    let evo = evo();
    let (_running, url) = king(&evo, "");
    let operator = King::new(&url, &evo.token("operator"));
    let by_operator = connect(&url, &evo.token("operator")).await;
    let viewer = connect(&url, &evo.token("viewer")).await;

    // None of these has a row; whatever has one would be there before those of the next messages.
    for (event, payload) in [
        ("task:list", json!({})),
        ("task:get", json!({"task_id": "none"})),
        ("task:join", json!({"task_id": "none", "agent_id": ""})),
        ("memory:query", json!({"query": "a secret"})),
        ("dashboard:subscribe", json!({})),
        ("king:system_info", json!({})),
        ("agent:status", json!({"agent_id": "nobody", "status": "ready", "metrics": {}})),
    ] {
        by_operator.emit(event, payload).await.unwrap();
    }
    let done = |action: &str, target: &str, status| row("file:operator", action, target, status);

    let task = json!({"task_type": "note", "summary": "a secret"});
    let made = sends(&by_operator, &operator, "task:create", task).await;
    let task = only(&operator, "/tasks", "tasks", "id").await;
    assert_eq!(made, done("task:create", &task, 200));
    for (event, payload) in [
        ("task:update", json!({"task_id": task, "summary": "a secret"})),
        ("task:summary", json!({"task_id": task, "agent_id": "", "summary": "", "evaluation": {}})),
        ("task:delete", json!({"task_id": task})),
    ] {
        let told = sends(&by_operator, &operator, event, payload).await;
        assert_eq!(told, done(event, &task, 200));
    }

    let memory = json!({"scope": "system", "category": "fact", "key": "a secret", "metadata": {}});
    // The task's summary is a memory, too.
    for kept in operator.list("/memories", "memories").await {
        let path = format!("/memories/{}", kept["id"].as_str().unwrap());
        operator.send(Method::DELETE, &path, None).await;
    }
    let stored = sends(&by_operator, &operator, "memory:store", memory).await;
    let memory = only(&operator, "/memories", "memories", "id").await;
    assert_eq!(stored, done("memory:store", &memory, 200));
    for event in ["memory:update", "memory:delete"] {
        let told = sends(&by_operator, &operator, event, json!({"memory_id": memory})).await;
        assert_eq!(told, done(event, &memory, 200));
    }

    // Refused, and written down like what is done.
    let command = json!({"command": "discover", "target_agent": "nobody", "params": {}});
    let advice = json!({
        "request_id": "r", "run_id": "run-1", "task_id": "t", "action": "retry", "params": {},
        "reasoning": "",
    });
    let answer = json!({
        "request_id": "r", "agent_id": "nobody", "role": "user", "model": "m", "response": "",
        "latency_ms": 1,
    });
    for (event, payload, target, status) in [
        ("task:delete", json!({"task_id": "none"}), "none", 404),
        ("task:create", json!({"task_type": 7}), "", 422),
        ("king:command", command.clone(), "nobody", 404),
        ("error:recovery_response", advice, "run-1", 403),
        ("task:decompose_result", json!({"request_id": "r", "task_id": "none"}), "none", 403),
        ("debug:response", answer, "r", 403),
    ] {
        let told = sends(&by_operator, &operator, event, payload).await;
        assert_eq!(told, done(event, target, status));
    }
    let tried = sends(&viewer, &operator, "king:command", command).await;
    assert_eq!(tried, row("file:viewer", "king:command", "", 403));
    registers(&evo, &url, &operator).await;
}

/// The row is there when the answer is, and what a runner says about its work has none.
async fn registers(evo: &Evo, url: &str, operator: &King) {
    let mut runner = connect(url, &evo.token("runner")).await;
    let before = rows(operator).await.len();
    let registration = json!({
        "agent_id": "audited", "role": "user", "capabilities": [], "protocol": 2, "req_id": "1",
    });
    runner.emit("agent:register", registration).await.unwrap();
    assert_eq!(hears(&mut runner, "king:reply").await["status"], "accepted");
    let all = rows(operator).await;
    assert_eq!(all[before..], [row("file:runner", "agent:register", "audited", 200)]);
    for (req_id, event, payload) in [
        ("2", "agent:status", json!({"agent_id": "audited", "status": "ready", "metrics": {}})),
        (
            "3",
            "pipeline:stage_result",
            json!({
                "run_id": "run-1", "stage": "learning", "agent_id": "audited", "attempt": 1,
                "status": "completed", "artifact_id": "", "output": {}, "error": null,
            }),
        ),
        (
            "4",
            "task:update",
            json!({"task_id": "none", "attempt": 1, "status": "completed", "result": {}}),
        ),
    ] {
        let mut payload = payload;
        payload["req_id"] = json!(req_id);
        runner.emit(event, payload).await.unwrap();
        assert_eq!(hears(&mut runner, "king:reply").await["req_id"], req_id, "{event}");
    }
    assert_eq!(rows(operator).await.len(), before + 1);
    runner.close().await;
}
