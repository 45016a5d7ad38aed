//! A Socket.IO client in another language, as a runner of the original and as an observer.

use std::time::Duration;

use evo_harness::{King, eventually_async};
use serde_json::Value;

use crate::{evo, file, python};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_runner_of_the_original_registers() {
    let Some(python) = python() else { return };
    let evo = evo();
    let (_running, url) = evo.king_alone("");
    let mut runner = python.start(&file("legacy_runner.py"), &[&url, &evo.token("runner")]);
    runner.line_with("system_info", MINUTE);

    let king = King::new(&url, &evo.token("operator"));
    let agent = eventually_async("the agent is ready", MINUTE, async || {
        let agent = king.get("/agents/legacy-1").await;
        // The original answered with the agent in a field of its own.
        let agent = agent.get("agent").cloned().unwrap_or(agent);
        (agent["status"] == "ready").then_some(agent)
    })
    .await;
    assert_eq!(agent["role"], "user");
    assert_eq!(agent["capabilities"], serde_json::json!(["dance"]));
    assert_eq!(agent["skills"], serde_json::json!(["waltz"]));
    runner.kill();
    eventually_async("the agent is offline", MINUTE, async || {
        let agent = king.get("/agents/legacy-1").await;
        let agent = agent.get("agent").cloned().unwrap_or(agent);
        (agent["status"] == "offline").then_some(())
    })
    .await;
}

#[test]
fn an_observer_sees_every_stage_result_once() {
    let Some(python) = python() else { return };
    let evo = evo();
    let mut running = evo.up::<&str>(&[]);
    let instance = evo.instance(&mut running);
    let token = evo.token("viewer");
    let mut observer = python.start(&file("observer.py"), &[&instance.king, &token]);
    observer.line_with("\"skill_manage\"", Duration::from_secs(120));
    // Whatever stands behind the last line break is still being written.
    let output = observer.stdout();
    let complete = output.rsplit_once('\n').map_or("", |(lines, _)| lines);
    let mut places: Vec<i64> = complete
        .lines()
        .filter_map(|line| line.strip_prefix("result "))
        .map(|text| serde_json::from_str::<Value>(text).unwrap())
        .map(|result| result["seq"].as_i64().expect("a place in the event log"))
        .collect();
    assert!(places.len() > 5, "{places:?}");
    // This client may hand messages over out of order; `seq` is what orders them.
    places.sort_unstable();
    assert!(places.is_sorted_by(|a, b| a < b), "one came twice: {places:?}");
}

#[test]
fn nobody_connects_with_a_wrong_token() {
    let Some(python) = python() else { return };
    let evo = evo();
    let (_running, url) = evo.king_alone("");
    let mut runner = python.start(&file("legacy_runner.py"), &[&url, "evo_rn_wrong"]);
    let status = runner.wait(MINUTE);
    assert!(!status.success());
    assert!(!runner.stdout().contains("system_info"), "{}", runner.stdout());
}

#[test]
fn memories_and_commands_are_answered_by_acks() {
    let Some(python) = python() else { return };
    let evo = evo();
    let (_running, url) = evo.king_alone("");
    let tokens = ["runner", "operator", "viewer"].map(|scope| evo.token(scope));
    let mut args = vec![url.as_str()];
    args.extend(tokens.iter().map(String::as_str));
    let mut client = python.start(&file("memory_client.py"), &args);
    client.line_with("all is well", MINUTE);
}
