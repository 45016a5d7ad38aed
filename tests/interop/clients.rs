//! Dashboards, user agents and runners that nobody here wrote, each test against one king.

use std::time::Duration;

use evo_harness::King;
use reqwest::Method;
use serde_json::json;

use crate::{evo, file, python};

const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a script against a king of its own, with the tokens of these scopes and a runner's token for
/// user agents only; the script ends with "all is well".
async fn check(script: &str, scopes: &[&str]) {
    let Some(python) = python() else { return };
    let evo = evo();
    let (_running, url) = evo.king_alone("");
    let mut args = vec![url.clone()];
    for scope in scopes {
        if *scope == "user" {
            let king = King::new(&url, &evo.token("operator"));
            let body = json!({"name": "user agents", "scope": "runner"});
            let (_, answer) = king.send(Method::POST, "/tokens", Some(&body)).await;
            args.push(answer["token"].as_str().expect("a token").to_owned());
        } else {
            args.push(evo.token(scope));
        }
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    python.start(&file(script), &args).line_with("all is well", PATIENCE);
}

#[tokio::test]
async fn five_runners_carry_a_run_to_its_end() {
    check("stage_runners.py", &["operator", "runner"]).await;
}

#[tokio::test]
async fn a_user_agent_does_what_a_dashboard_wants() {
    check("task_agents.py", &["operator", "runner", "user"]).await;
}

#[tokio::test]
async fn an_agent_answers_only_for_itself_and_for_what_it_was_given() {
    check("own_attempts.py", &["operator", "runner"]).await;
}

#[tokio::test]
async fn the_exporter_of_opentelemetry_sends_traces_that_are_listed_whole() {
    check("otel_exporter.py", &["operator", "runner", "viewer"]).await;
}
