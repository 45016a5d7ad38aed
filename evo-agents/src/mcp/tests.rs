//! Connections to a program that misbehaves in known ways.

use std::{path::Path, time::Duration};

use serde_json::{Map, Value};

use super::*;

fn start(mode: &str, env: &[(&str, &str)]) -> Start {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mcp/tests/server.py");
    let path = crate::config::environment("PATH").unwrap_or_default();
    let env = [("PATH", path.as_str())].into_iter().chain(env.iter().copied());
    Start::Program(Program {
        source: "fake".to_owned(),
        command: ["python3", "-B", script.to_str().unwrap(), mode].map(str::to_owned).to_vec(),
        folder: Some(std::env::temp_dir()),
        env: env.map(|(name, value)| (name.to_owned(), value.into())).collect(),
    })
}

async fn call(connections: &Connections, mode: &str, tool: &str) -> Result<ToolAnswer, Error> {
    let timeout_ms = if tool == "hang" { 300 } else { 20_000 };
    let call = Call { tool, arguments: Map::new(), timeout_ms, max_bytes: 100_000 };
    connections.call("fake", start(mode, &[]), call).await
}

async fn pids(connections: &Connections, mode: &str) -> (i64, Option<i64>) {
    let answer = call(connections, mode, "pid").await.unwrap();
    assert!(answer.is_json);
    (answer.body["own"].as_i64().unwrap(), answer.body["child"].as_i64())
}

/// Whether a process is there, other than as a zombie.
fn lives(pid: i64) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

async fn gone(pid: i64) -> bool {
    for _ in 0..500 {
        if !lives(pid) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn a_connection_is_kept_and_lists_every_page() {
    let connections = Connections::default();
    let listed = connections.list("fake", start("plain", &[])).await.unwrap();
    assert_eq!(listed.server, "fake 1");
    let names: Vec<&str> = listed.tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["pid", "env", "die", "hang"]);
    let first = pids(&connections, "plain").await.0;
    assert_eq!(pids(&connections, "plain").await.0, first, "one process for all calls");
    connections.close().await;
    assert!(gone(first).await, "closing ends it");
    let again = pids(&connections, "plain").await.0;
    assert_ne!(again, first, "a later call starts another one");
    drop(connections);
    assert!(gone(again).await, "and so does forgetting it");
}

#[tokio::test]
async fn a_crash_costs_the_call_that_was_on_its_way() {
    let connections = Connections::default();
    let first = pids(&connections, "plain").await.0;
    let error = call(&connections, "plain", "die").await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable(_)), "{error}");
    assert_ne!(pids(&connections, "plain").await.0, first);
    let unknown = call(&connections, "plain", "no-such-tool").await.unwrap();
    assert_eq!((unknown.ended, unknown.body), (Ended::Refused, "no tool no-such-tool".into()));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_that_hangs_is_ended_with_all_that_it_started() {
    let connections = Connections::default();
    let (own, child) = pids(&connections, "family").await;
    let child = child.unwrap();
    assert!(lives(own) && lives(child));
    let error = call(&connections, "family", "hang").await.unwrap_err();
    assert_eq!(error, Error::Timeout { ms: 300 });
    assert!(gone(own).await && gone(child).await);
}

#[tokio::test]
async fn a_program_gets_the_environment_that_it_is_given_and_no_more() {
    let connections = Connections::default();
    let call = Call { tool: "env", arguments: Map::new(), timeout_ms: 20_000, max_bytes: 100_000 };
    let env = [("EVO_TEST_KEY", "k-1")];
    let answer = connections.call("fake", start("plain", &env), call).await.unwrap();
    let has = |name: &str| answer.body.get(name).is_some();
    assert!(has("EVO_TEST_KEY") && has("PATH"), "{}", answer.body);
    // Cargo gives these to every test.
    assert!(!has("CARGO_PKG_NAME") && !has("CARGO_MANIFEST_DIR"), "{}", answer.body);
}

#[tokio::test]
async fn what_is_no_server_says_why_and_is_left_alone_for_a_while() {
    let connections = Connections::default();
    let error = connections.list("fake", start("mute", &[])).await.unwrap_err().to_string();
    assert!(error.contains("did not introduce itself"), "{error}");
    assert!(error.contains("nothing to say here"), "{error}");
    let circle = connections.list("circle", start("circle", &[])).await.unwrap_err();
    assert!(matches!(circle, Error::Protocol(_)), "{circle}");
    let nothing = Start::Program(Program {
        source: "x".to_owned(),
        command: vec!["/no/such/program".to_owned()],
        folder: None,
        env: Vec::new(),
    });
    let error = connections.list("x", nothing).await.unwrap_err().to_string();
    assert!(error.contains("/no/such/program can't be started"), "{error}");
    let failure = |count| Failure { error: Error::Timeout { ms: 1 }, count, at: Instant::now() };
    assert!(failure(1).rest() <= FIRST_REST && failure(40).rest() > MAX_REST / 2);
}

#[test]
fn a_server_is_what_the_operator_names() {
    let mut source = SourceConfig::openapi("time", "http://127.0.0.1:9/mcp");
    assert_eq!(McpServer::of(&source), None);
    source.kind = SourceKind::Mcp;
    let url = "http://127.0.0.1:9/mcp".to_owned();
    let expected = McpAddress::Url { url, auth_ref: None };
    assert_eq!(McpServer::of(&source).unwrap().address, expected);
    source.command = vec!["mcp-server-time".to_owned()];
    source.location = String::new();
    let address = McpServer::of(&source).unwrap().address;
    assert!(matches!(address, McpAddress::Command { folder: None, .. }), "{address:?}");
}

#[test]
fn a_tool_that_does_not_say_that_it_reads_does_not() {
    let tool = |hints: Value| -> Tool {
        serde_json::from_value(serde_json::json!({"name": "t", "annotations": hints})).unwrap()
    };
    assert!(tool(serde_json::json!({"readOnlyHint": true})).reads());
    assert!(!tool(serde_json::json!({"readOnlyHint": false})).reads());
    assert!(!tool(serde_json::json!({"destructiveHint": false})).reads());
}
