//! The bridge as a process of its own, between a running Evo and the fake Evotown.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use evo_harness::{Evo, Evotown, Fault, Instance, Process, eventually, eventually_async};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use crate::evo;

const PATIENCE: Duration = Duration::from_secs(120);
/// How often the bridge is killed.
const KILLS: u64 = 8;

/// `evo bridge` that follows this instance; what else is to be in its environment comes last.
fn bridge(evo: &Evo, instance: &Instance, town: &Evotown, more: &[(&str, &str)]) -> Process {
    let mut command = evo.command(&["bridge"]);
    command
        .env("KING_ADDRESS", &instance.king)
        .env("EVO_EVOTOWN_URL", town.url())
        .env("EVO_EVOTOWN_TOKEN", town.ingest_token())
        .env("EVO_EVOTOWN_TEAM_ID", "skills")
        .envs(more.iter().copied());
    Process::start(command)
}

/// Waits until every run of a cycle that has ended is completed at Evotown. Gives the runs.
fn wait_for_all(evo: &Evo, town: &Evotown, bridge: &mut Process) -> Vec<Value> {
    let listed = evo.run(&["runs", "list", "--limit", "0", "--json"]).expect_code(0).json();
    let runs = listed["runs"].as_array().unwrap().clone();
    eventually("every run is completed", PATIENCE, || {
        assert_eq!(bridge.exited(), None, "{}", bridge.stderr());
        let completed = town.runs().iter().filter(|run| run["status"] != "running").count();
        (completed == runs.len() && !backlog(evo)).then_some(())
    });
    runs
}

/// Whether something still waits.
fn backlog(evo: &Evo) -> bool {
    let status = evo.run(&["bridge", "status", "--json"]).expect_code(0).json();
    status["counts"]["backlog"] != 0
}

/// An Evo that has just begun its first cycle.
fn cycle(evo: &Evo) -> (Process, Instance) {
    let mut running = evo.up(&["--json"]);
    let instance = evo.instance(&mut running);
    (running, instance)
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_at_any_moment_loses_and_doubles_nothing() {
    let (evo, town) = (evo(), Evotown::start().await);
    let (mut running, instance) = cycle(&evo);
    for kill in 0..KILLS {
        let mut bridge = bridge(&evo, &instance, &town, &[]);
        // From before it has opened its queue until well into the cycle.
        std::thread::sleep(Duration::from_millis(100 + 170 * kill));
        assert_eq!(bridge.exited(), None, "{}", bridge.stderr());
        bridge.kill();
    }
    running.line_with("cycle_id", PATIENCE);
    let log = [("RUST_LOG", "info,evo_evotown_bridge=debug")];
    let mut last = bridge(&evo, &instance, &town, &log);
    let runs = wait_for_all(&evo, &town, &mut last);
    assert!(runs.len() > 20, "{runs:?}");
    let mut applied: BTreeMap<String, u32> = BTreeMap::new();
    for complete in town.completes() {
        *applied.entry(complete.run_id).or_default() += u32::from(!complete.idempotent);
    }
    let cycle = runs.iter().find(|run| run["kind"] == "cycle").unwrap();
    for run in &runs {
        let id = run["run_id"].as_str().unwrap();
        assert_eq!(applied.get(id), Some(&1), "{id} is completed once");
        let told = town.run(id).unwrap();
        assert_eq!(told["status"], "succeeded", "{told}");
        assert_eq!((&told["team_id"], &told["task_id"]), (&"skills".into(), &cycle["run_id"]));
        let decision = &run["outcome"]["decision"];
        if !decision.is_null() {
            assert_eq!(&told["signals"]["decision"], decision, "{told}");
        }
        // Only the very last event can be there twice: nothing tells whether it had arrived.
        let events = town.events(id);
        let mut order: Vec<i64> = events.iter().map(|e| e["seq"].as_i64().unwrap()).collect();
        assert!(order.is_sorted(), "{id}: {order:?}");
        order.dedup();
        let whole: Vec<i64> = (0..i64::try_from(order.len()).unwrap()).collect();
        assert_eq!(order, whole, "{id}");
        let kinds = events.iter().map(|event| event["event_type"].as_str().unwrap());
        let before_the_end = kinds.filter(|kind| *kind != "run.completed").count();
        assert_eq!(before_the_end, order.len() - 1, "{id}: {events:?}");
    }
    assert_eq!(town.disorder(), Vec::<String>::new());
    assert_eq!(town.violations(), Vec::<Value>::new());
    let active = town.runs().into_iter().find(|run| run["signals"]["decision"] == "active");
    let active = active.expect("a skill became active");
    assert_eq!(active["artifact_manifest"][0]["path"], "SKILL.md", "{active}");

    // A further cycle is followed as it happens, and is one trace with what was delivered.
    let king = evo.king(&instance);
    let (status, started) = king.send(Method::POST, "/pipeline/start", Some(&json!({}))).await;
    assert!(status.is_success(), "{started}");
    let id = started["run_id"].as_str().unwrap();
    let succeeded = || town.run(id).filter(|run| run["status"] == "succeeded");
    eventually("the further cycle is told", PATIENCE, succeeded);
    last.line_with("King tells of a stage result", PATIENCE);
    let span = || async {
        let trace = king.get(&format!("/traces/{id}")).await;
        let spans = trace["spans"].as_array().unwrap();
        let root = spans.iter().find(|span| span["parent_span_id"].is_null())?["span_id"].clone();
        let delivered = spans.iter().find(|span| span["name"] == "evotown.deliver")?.clone();
        Some((delivered, root))
    };
    let (span, root) = eventually_async("the bridge's spans", PATIENCE, span).await;
    assert_eq!(span["service"], "evo-evotown-bridge", "{span}");
    assert_eq!(span["parent_span_id"], root, "{span}");
    assert_eq!(span["attributes"]["run.id"], id, "{span}");

    let answer = evo.run(&["bridge", "status", "--check"]).expect_code(0);
    assert!(answer.stdout.contains("bridge   runs"), "{answer}");
    last.signal(Signal::SIGTERM);
    assert!(last.wait(Duration::from_secs(10)).success(), "{}", last.stderr());
    let answer = evo.run(&["bridge", "status", "--check"]).expect_code(1);
    answer.says(&["no bridge runs"]);
    for request in town.requests() {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        assert!(!body.contains("evo_vw_") && !body.contains("evi_"), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_in_time_while_nobody_answers() {
    let (evo, town) = (evo(), Evotown::start().await);
    let (mut running, instance) = cycle(&evo);
    running.line_with("cycle_id", PATIENCE);
    town.set_down(true);
    let mut bridge = bridge(&evo, &instance, &town, &[]);
    eventually("deliveries are queued", PATIENCE, || backlog(&evo).then_some(()));
    running.signal(Signal::SIGTERM);
    assert!(running.wait(Duration::from_secs(20)).success());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(bridge.exited(), None, "{}", bridge.stderr());
    bridge.signal(Signal::SIGTERM);
    let sent = SystemTime::now();
    assert!(bridge.wait(Duration::from_secs(10)).success(), "{}", bridge.stderr());
    assert!(sent.elapsed().unwrap() < Duration::from_secs(5), "three, and some for the machine");
    let status = evo.run(&["bridge", "status"]).expect_code(0);
    assert!(status.stdout.contains("wait"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_apart_what_has_to_be_changed() {
    let (evo, town) = (evo(), Evotown::start().await);
    let (_running, instance) = cycle(&evo);
    // It is a whole answer also when there is nothing to look at.
    let status = evo.run(&["bridge", "status", "--json"]).expect_code(0).json();
    assert_eq!((&status["running"], &status["counts"]["backlog"]), (&json!(false), &json!(0)));
    assert_eq!((&status["engine_id"], &status["problems"]), (&Value::Null, &json!([])));

    let wrong = [("EVO_TOKEN_VIEWER", "evo_vw_wrong")];
    let process = bridge(&evo, &instance, &town, &wrong);
    evo.finish(process, PATIENCE)
        .expect_code(2)
        .says(&["refuses the viewer token", "EVO_TOKEN_VIEWER"]);

    let answer = evo.run(&["bridge"]).expect_code(2);
    answer.says(&["EVO_EVOTOWN_URL is not set"]);
    let plain = [("EVO_EVOTOWN_URL", "http://evotown.example")];
    let process = bridge(&evo, &instance, &town, &plain);
    evo.finish(process, PATIENCE).expect_code(2).says(&["EVO_EVOTOWN_ALLOW_HTTP"]);

    let mut first = bridge(&evo, &instance, &town, &[]);
    eventually("the first one has its queue", PATIENCE, || {
        let status = evo.run(&["bridge", "status", "--json"]).expect_code(0).json();
        (status["running"] == true).then_some(())
    });
    let second = bridge(&evo, &instance, &town, &[]);
    let pid = format!("pid {}", first.pid());
    evo.finish(second, PATIENCE).expect_code(1).says(&["in use by another bridge", &pid]);
    assert_eq!(first.exited(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_is_registered_by_hand() {
    let (evo, town) = (evo(), Evotown::start().await);
    let mut command = evo.command(&["bridge", "register", "--evotown-url", &town.url()]);
    command.env("EVO_EVOTOWN_TOKEN", town.ingest_token());
    let answer = evo.finish(Process::start(command), PATIENCE).expect_code(0);
    let engine = town.engines().pop().unwrap();
    let id = engine["engine_id"].as_str().unwrap();
    assert_eq!(answer.stdout.trim(), format!("registered as {id}"));
    let status = evo.run(&["bridge", "status", "--json"]).expect_code(0).json();
    assert_eq!(status["engine_id"], id);

    let mut command = evo.command(&["bridge", "register", "--evotown-url", &town.url()]);
    command.env("EVO_EVOTOWN_TOKEN", "wrong");
    let answer = evo.finish(Process::start(command), PATIENCE).expect_code(1);
    answer.says(&["does not register this engine", "EVO_EVOTOWN_TOKEN"]);
    assert!(!answer.stderr.contains("wrong"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_pushed_and_replayed_and_refused_ones_looked_after_by_hand() {
    let (evo, town) = (evo(), Evotown::start().await);
    let (mut running, instance) = cycle(&evo);
    let envs = |command: &mut std::process::Command| {
        command
            .env("KING_ADDRESS", &instance.king)
            .env("EVO_EVOTOWN_URL", town.url())
            .env("EVO_EVOTOWN_TOKEN", town.ingest_token())
            .env("EVO_EVOTOWN_ENGINE_ID", "by-hand");
    };
    let ask = |args: &[&str]| {
        let mut command = evo.command(args);
        envs(&mut command);
        evo.finish(Process::start(command), PATIENCE)
    };
    eventually("the cycle ends", PATIENCE, || {
        assert_eq!(running.exited(), None, "{}", running.stderr());
        let cycles = evo.run(&["runs", "list", "--kind", "cycle", "--json"]).expect_code(0).json();
        (cycles["runs"][0]["status"] == "completed").then_some(())
    });
    let listed = evo.run(&["runs", "list", "--limit", "0", "--json"]).expect_code(0).json();
    let runs: Vec<&str> = listed["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["run_id"].as_str().unwrap())
        .collect();

    // Without a queue: one run, first on paper.
    ask(&["bridge", "replay", "--since", "1h"]).expect_code(1).says(&["no bridge has run"]);
    let shown = ask(&["bridge", "push", "--run-id", runs[1], "--dry-run"]).expect_code(0).json();
    assert_eq!(shown["engine_id"], "by-hand", "{shown}");
    assert_eq!(town.requests().len(), 0, "nothing was sent");
    let told = ask(&["bridge", "push", "--run-id", runs[1], "--json"]).expect_code(0).json();
    assert_eq!(told["idempotent"], false, "{told}");
    let again = ask(&["bridge", "push", "--run-id", runs[1]]).expect_code(0);
    assert!(again.stdout.contains("had it already"), "{again}");
    assert_eq!(town.registrations(), 1);
    ask(&["bridge", "push", "--run-id", "run-x"]).expect_code(1).says(&["does not know run run-x"]);

    // The whole log, in which one run is refused for good.
    town.fault(&format!("/runs/{}/complete", runs[2]), 1, Fault::Status(422));
    let mut bridge = bridge(&evo, &instance, &town, &[("EVO_EVOTOWN_ENGINE_ID", "by-hand")]);
    wait_for_all(&evo, &town, &mut bridge);
    let dead = ask(&["bridge", "dead", "list", "--json"]).expect_code(0).json();
    assert_eq!(dead["dead"][0]["run_id"], runs[2], "{dead}");
    assert_eq!(dead["dead"][0]["kind"], "complete", "{dead}");
    let retried = ask(&["bridge", "dead", "retry", "--run-id", runs[2]]).expect_code(0);
    assert_eq!(retried.stdout.trim(), "1 queued again");
    eventually("it is taken", PATIENCE, || {
        let status =
            ask(&["bridge", "status", "--run-id", runs[2], "--json"]).expect_code(0).json();
        let deliveries = status["deliveries"].as_array().unwrap();
        deliveries.iter().all(|delivery| delivery["state"] == "done").then_some(())
    });
    let none = ask(&["bridge", "dead", "drop", "--all"]).expect_code(0);
    assert_eq!(none.stdout.trim(), "0 forgotten");

    // Evotown is restarted empty: what it does not have any more is told again, once.
    let all = ask(&["bridge", "replay", "--since", "1h", "--json"]).expect_code(0).json();
    assert_eq!((all["queued"].as_array().unwrap().len(), &all["there"]), (0, &json!(runs.len())));
    town.forget();
    bridge.kill();
    let registered = ask(&["bridge", "register"]).expect_code(0);
    assert_eq!(registered.stdout.trim(), "registered as by-hand");
    let all = ask(&["bridge", "replay", "--since", "1h", "--json"]).expect_code(0).json();
    assert_eq!(all["queued"].as_array().unwrap().len(), runs.len(), "{all}");
    let mut bridge = self::bridge(&evo, &instance, &town, &[("EVO_EVOTOWN_ENGINE_ID", "by-hand")]);
    wait_for_all(&evo, &town, &mut bridge);
    assert_eq!(town.runs().len(), runs.len());
    assert_eq!(town.disorder(), Vec::<String>::new());
    assert_eq!(town.violations(), Vec::<Value>::new());
}
