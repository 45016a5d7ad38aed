//! Tasks that are split, removed, and that outlive a killed king, with the real agents.

use std::time::Duration;

use evo_harness::{Evo, King, Process, eventually_async, llm::OpenAi};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::evo;

const PATIENCE: Duration = Duration::from_secs(120);

/// An `evo up` whose agents think with a model of this provider.
fn up(provider: &OpenAi, model: &str) -> (Evo, Process, King) {
    let evo = evo();
    let config = json!({
        "server": { "host": "127.0.0.1", "port": 0 },
        "providers": [{
            "name": "fake", "base_url": provider.base_url(), "api_key_envs": ["FAKE_KEY"],
            "enabled": true,
        }],
    });
    evo.file("data/config/gateway.toml", &toml::to_string(&config).unwrap());
    evo.file("data/config/king.toml", "first_cycle = false\n");
    let (process, king) = start(&evo, model);
    (evo, process, king)
}

/// Starts Evo on its folder, once more too.
fn start(evo: &Evo, model: &str) -> (Process, King) {
    let mut command = evo.command(&["up", "--king-port", "0", "--gateway-port", "0"]);
    command.env("EVO_MODEL", format!("fake:{model}")).env("EVO_MODEL_CALLS", "0");
    command.env("FAKE_KEY", OpenAi::KEYS[0]);
    let mut process = Process::start(command);
    let king = evo.king(&evo.instance(&mut process));
    (process, king)
}

async fn create(king: &King, task: &Value) -> String {
    let (status, answer) = king.send(Method::POST, "/tasks", Some(task)).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    answer["task"]["id"].as_str().unwrap().to_owned()
}

/// What came out of a task, once it has ended.
async fn result(king: &King, task_id: &str) -> Value {
    eventually_async("the task ends", PATIENCE, async || {
        let result = king.get(&format!("/tasks/{task_id}/result?wait_ms=5000")).await;
        (result["ended"] == true).then_some(result)
    })
    .await
}

#[tokio::test]
async fn a_split_task_ends_with_its_parts_and_a_removed_one_is_gone() {
    let provider = OpenAi::start();
    provider.says("thinker", "Done.");
    let (_evo, _process, king) = up(&provider, "thinker");
    let task = json!({"task_type": "note", "summary": "Greet the dogs and then greet the cats."});
    let task_id = create(&king, &task).await;
    let (status, asked) =
        king.send(Method::POST, &format!("/tasks/{task_id}/decompose"), None).await;
    assert_eq!(status, StatusCode::OK, "{asked}");
    // The evaluation runner answers, or king splits by itself: either way it ends with its parts.
    let ended = result(&king, &task_id).await;
    assert_eq!(ended["result"]["subtasks"].as_array().unwrap().len(), 2, "{ended}");
    let subtasks = king.get(&format!("/task/{task_id}/subtasks")).await;
    assert_eq!(subtasks["progress"], json!({"total": 2, "completed": 2}), "{subtasks}");
    let (status, gone) = king.send(Method::DELETE, &format!("/tasks/{task_id}"), None).await;
    assert_eq!((status, &gone["deleted_count"]), (StatusCode::OK, &json!(3)));
    let (status, _) = king.send(Method::GET, &format!("/task/{task_id}"), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_killed_king_finishes_the_task_after_its_next_start() {
    let provider = OpenAi::start();
    provider.says("thinker", "Done.");
    let (evo, mut process, king) = up(&provider, "thinker");
    let waits = json!({"task_type": "user", "summary": "Wait.", "agent_id": "nobody-yet"});
    let waits = create(&king, &waits).await;
    let goes = create(&king, &json!({"task_type": "user", "summary": "Go."})).await;
    process.kill();
    drop(process);
    let (_process, king) = start(&evo, "thinker");
    let done = result(&king, &goes).await;
    assert!(done["result"].to_string().contains("Done."), "{done}");
    assert_eq!(king.get(&format!("/tasks/{waits}")).await["status"], "pending");
}
