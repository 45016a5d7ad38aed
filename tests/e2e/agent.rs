//! Agents at work: tasks that end in a result, prompts and commands of operators.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use evo_harness::{Evo, Instance, King, Process, eventually_async, llm::OpenAi};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::evo;

const PATIENCE: Duration = Duration::from_secs(240);
/// A skill that Evo learns of king's own document.
const SKILL: &str = "evo-king-get-health";

/// A running Evo whose gateway knows one provider.
struct Running {
    evo: Evo,
    process: Process,
    instance: Instance,
    king: King,
}

impl Running {
    /// `model` is a name at the provider.
    fn start(provider: &OpenAi, model: &str, king_toml: &str) -> Self {
        let evo = evo();
        let config = json!({
            "server": { "host": "127.0.0.1", "port": 0 },
            "providers": [{
                "name": "fake", "base_url": provider.base_url(), "api_key_envs": ["FAKE_KEY"],
                "enabled": true,
            }],
        });
        evo.file("data/config/gateway.toml", &toml::to_string(&config).unwrap());
        evo.file("data/config/king.toml", king_toml);
        let mut command = evo.command(&["up", "--king-port", "0", "--gateway-port", "0"]);
        command.env("EVO_MODEL", format!("fake:{model}")).env("EVO_MODEL_CALLS", "0");
        command.env("FAKE_KEY", OpenAi::KEYS[0]);
        let mut process = Process::start(command);
        let instance = evo.instance(&mut process);
        let king = evo.king(&instance);
        Self { evo, process, instance, king }
    }

    async fn until_active(&self) {
        eventually_async("the skill is active", PATIENCE, async || {
            let skill = self.king.try_get(&format!("/skills/{SKILL}")).await?;
            (skill["status"] == "active").then_some(())
        })
        .await;
    }

    async fn create(&self, task: &Value) -> String {
        let (status, body) = self.king.send(Method::POST, "/tasks", Some(task)).await;
        assert!(status.is_success(), "{status} {body}");
        body["task"]["id"].as_str().unwrap().to_owned()
    }

    /// A task as it is once it has one of these states.
    async fn once(&self, task_id: &str, states: &[&str]) -> Value {
        eventually_async("the task has ended", PATIENCE, async || {
            let task = self.king.try_get(&format!("/tasks/{task_id}")).await?;
            let task = task.get("task").cloned().unwrap_or(task);
            let status = task["status"].as_str()?.to_owned();
            let over = ["completed", "failed", "cancelled", "evaluated"].contains(&&*status);
            assert!(!over || states.contains(&&*status) || status == "completed", "{task}");
            states.contains(&&*status).then_some(task)
        })
        .await
    }
}

/// Results of tasks below a folder that wait in a runner's outbox.
fn waiting_results(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // Whatever comes and goes meanwhile waits for nobody.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(waiting_results(&path));
        } else if path.parent().is_some_and(|parent| parent.ends_with("outbox")) {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn a_task_ends_in_a_result_that_a_skill_gave() {
    let provider = OpenAi::start();
    provider.calls("caller", "Let me look.", SKILL, &json!({}));
    let running = Running::start(&provider, "caller", "");
    running.until_active().await;
    let task = json!({"task_type": "user", "summary": "Is king well?", "payload": "{}"});
    let task_id = running.create(&task).await;
    let task = running.once(&task_id, &["evaluated"]).await;

    let result = task["result"].as_str().unwrap_or_else(|| panic!("{task}"));
    assert!(result.starts_with(&format!("The tools say: {SKILL}=Output of the skill")), "{result}");
    assert!(result.contains("evo-king") && result.contains("\"status\":\"ok\""), "{result}");
    assert_eq!(task["agent_id"], "evo-user");
    assert_eq!(task["work"]["steps"], 2);
    let call = &task["work"]["tool_calls"][0];
    assert_eq!((&call["skill"], &call["status"]), (&json!(SKILL), &json!("success")));
    // The last pieces may come after the result.
    eventually_async("the output is whole", PATIENCE, async || {
        let task = running.once(&task_id, &["evaluated"]).await;
        let output = task["output"].as_str()?.to_owned();
        (output.starts_with("Let me look.\n\nThe tools say") && output.ends_with("}."))
            .then_some(())
    })
    .await;
    let logs = running.king.get(&format!("/task/{task_id}/logs")).await;
    let logs = logs["logs"].to_string();
    for line in ["Step 1: fake:caller is asked", &format!("The skill {SKILL} gave an output")] {
        assert!(logs.contains(line), "{logs}");
    }

    eventually_async("king has answered the runner", PATIENCE, async || {
        waiting_results(&running.evo.data()).is_empty().then_some(())
    })
    .await;
    let asked: Vec<String> = provider
        .requests()
        .into_iter()
        .filter(|request| request.method == "POST")
        .map(|request| request.json()["messages"][0]["content"].to_string())
        .collect();
    assert!(asked.iter().any(|system| system.contains("You do tasks for people")), "{asked:?}");
    assert!(asked.iter().any(|system| system.contains("Judge how a task went")), "{asked:?}");
}

#[tokio::test]
async fn a_named_skill_is_run_without_a_model_and_a_missing_model_is_named() {
    let provider = OpenAi::start();
    let running = Running::start(&provider, "fault-400", "");
    running.until_active().await;
    let direct = json!({
        "task_type": "user", "summary": "", "payload": {"skill": SKILL, "input": {}},
    });
    let task_id = running.create(&direct).await;
    let task = running.once(&task_id, &["completed", "evaluated"]).await;
    assert_eq!(task["result"]["status"], "ok", "{task}");

    let task_id = running.create(&json!({"task_type": "user", "summary": "Think."})).await;
    let task = running.once(&task_id, &["failed"]).await;
    assert!(task["error"].as_str().unwrap().contains("model_failed"), "{task}");
}

#[tokio::test]
async fn an_operator_tries_a_model_through_an_agent_and_runs_what_is_configured() {
    let provider = OpenAi::start();
    provider.says("greeter", "Hello, 世界.");
    let king = "[debug]\ncommands = { where = [\"/bin/pwd\"] }\n";
    let running = Running::start(&provider, "greeter", king);
    let prompt = json!({"agent_role": "user", "prompt": "Greet.", "reasoning_effort": "low"});
    let begun = eventually_async("the user agent is asked", PATIENCE, async || {
        let (status, body) = running.king.send(Method::POST, "/debug/prompt", Some(&prompt)).await;
        status.is_success().then_some(body)
    })
    .await;
    let task = running.once(begun["task_id"].as_str().unwrap(), &["completed", "evaluated"]).await;
    assert_eq!(task["task_type"], "debug_prompt");
    assert_eq!(task["result"]["response"], "Hello, 世界.", "{task}");
    assert_eq!(task["result"]["model"], "fake:greeter");
    let asked = provider.requests();
    let efforts = asked.iter().map(|request| request.json()["reasoning_effort"].clone());
    assert_eq!(efforts.filter(|effort| effort == "low").count(), 1, "as it was asked for");

    let command = json!({"command": "where"});
    let (status, begun) = running.king.send(Method::POST, "/debug/bash", Some(&command)).await;
    assert_eq!(status, StatusCode::OK, "{begun}");
    let task = running.once(begun["task_id"].as_str().unwrap(), &["completed", "evaluated"]).await;
    assert_eq!(task["result"]["output"], "/\n", "{task}");

    // Nobody but the operator, and nothing else.
    let other = json!({"command": "rm -rf /"});
    let (status, body) = running.king.send(Method::POST, "/debug/bash", Some(&other)).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
    let viewer = King::new(&running.instance.king, &running.evo.token("viewer"));
    let (status, _) = viewer.send(Method::POST, "/debug/bash", Some(&command)).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    drop(running.process);
}
