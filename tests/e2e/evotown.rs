//! `evo up` reports every run to Evotown exactly once, also when that is away for a while.

use std::{collections::BTreeMap, time::Duration};

use evo_harness::{Evo, Evotown, Process, eventually};
use serde_json::Value;

use crate::evo;

/// `evo up` that reports to this Evotown.
fn up(evo: &Evo, town: &Evotown, more: &[&str]) -> Process {
    let mut command = evo.command(&["up", "--json", "--king-port", "0", "--gateway-port", "0"]);
    command.args(more);
    command.env("EVO_EVOTOWN_URL", town.url());
    command.env("EVO_EVOTOWN_TOKEN", town.ingest_token());
    Process::start(command)
}

/// Each run of the data folder has been reported once, in order, to its end.
fn check(evo: &Evo, town: &Evotown) {
    let listed = evo.run(&["runs", "list", "--limit", "0", "--json"]).expect_code(0).json();
    let runs = listed["runs"].as_array().unwrap();
    assert!(runs.len() > 20, "{listed}");
    let mut completes: BTreeMap<String, usize> = BTreeMap::new();
    for complete in town.completes() {
        *completes.entry(complete.run_id).or_default() += 1;
    }
    assert_eq!(completes.len(), runs.len());
    assert!(completes.values().all(|times| *times == 1), "{completes:?}");
    for run in runs {
        let id = run["run_id"].as_str().unwrap();
        let reported = town.run(id).unwrap_or_else(|| panic!("{id} is not reported"));
        assert_eq!(reported["status"], "succeeded", "{reported}");
        assert_eq!(reported["exit_code"], 0, "{reported}");
        assert_eq!(reported["engine_type"], "custom", "{reported}");
        let signals = &reported["signals"];
        for number in ["latency_ms", "cost_usd", "input_tokens", "output_tokens"] {
            assert!(signals[number].is_number(), "{number}: {reported}");
        }
        let decision = &run["outcome"]["decision"];
        if !decision.is_null() {
            assert_eq!(&signals["decision"], decision, "{reported}");
            assert_eq!(signals["task_completed"], *decision == "active", "{reported}");
        }
        let events = town.events(id);
        let kinds: Vec<&str> =
            events.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
        assert_eq!(kinds.first(), Some(&"run.started"), "{id}: {kinds:?}");
        assert_eq!(kinds.last(), Some(&"run.completed"), "{id}: {kinds:?}");
        let order: Vec<i64> = events.iter().map(|event| event["seq"].as_i64().unwrap()).collect();
        assert_eq!(order, (0..i64::try_from(order.len()).unwrap()).collect::<Vec<_>>(), "{id}");
    }
    assert_eq!(town.disorder(), Vec::<String>::new());
    assert_eq!(town.violations(), Vec::<Value>::new());
    assert_eq!(town.registrations(), 1);
}

fn bridge(report: &Value) -> &Value {
    let parts = report["components"].as_array().unwrap();
    parts.iter().find(|part| part["name"] == "bridge").expect("the bridge is a component")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_run_is_reported_once() {
    let (evo, town) = (evo(), Evotown::start().await);
    let report = evo.finish(up(&evo, &town, &["--once"]), Duration::from_secs(240)).expect_code(0);
    assert_eq!(bridge(&report.json())["status"], "ok", "{report}");
    check(&evo, &town);
    let token = evo.data().join("evotown-token");
    let mode = std::os::unix::fs::PermissionsExt::mode(&token.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    for name in ["king.db", "bridge.db"] {
        let permissions = evo.data().join(name).metadata().unwrap().permissions();
        let mode = std::os::unix::fs::PermissionsExt::mode(&permissions);
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(!report.stderr.contains("evi_") && !report.stdout.contains("evi_"), "{report}");

    // The next cycle is reported as well, and nothing a second time.
    let again = evo.finish(up(&evo, &town, &["--once"]), Duration::from_secs(240)).expect_code(0);
    assert_eq!(bridge(&again.json())["status"], "ok", "{again}");
    check(&evo, &town);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evotown_that_is_away_for_the_first_half_misses_nothing() {
    let (evo, town) = (evo(), Evotown::start().await);
    town.set_down(true);
    let mut running = up(&evo, &town, &["--once"]);
    running.line_with_on_stderr("active", Duration::from_secs(120));
    assert_eq!(town.completes().len(), 0);
    town.set_down(false);
    let report = evo.finish(running, Duration::from_secs(240)).expect_code(0);
    assert_eq!(bridge(&report.json())["status"], "ok", "{report}");
    check(&evo, &town);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_evotown_did_not_take_is_delivered_at_the_next_start() {
    let (evo, town) = (evo(), Evotown::start().await);
    town.set_down(true);
    let mut running = up(&evo, &town, &[]);
    let report: Value =
        serde_json::from_str(&running.line_with("cycle_id", Duration::from_secs(240))).unwrap();
    assert!(report["active"].as_array().unwrap().len() >= 8, "Evo does not need it: {report}");
    running.kill();
    assert_eq!(town.completes().len(), 0);
    town.set_down(false);
    let mut running = up(&evo, &town, &[]);
    let reported = report["candidates"].as_u64().unwrap() + 1;
    eventually("the runs of the killed process", Duration::from_secs(60), || {
        assert_eq!(running.exited(), None, "{}", running.stderr());
        (town.completes().len() as u64 >= reported).then_some(())
    });
    running.line_with("cycle_id", Duration::from_secs(240));
    running.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(running.wait(Duration::from_secs(20)).success());
}
