//! `kill -9` of the whole process at random moments of a cycle, started again each time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use evo_harness::{
    Evo,
    faults::{Expected, History, Tally},
};
use serde_json::Value;

/// How often the process is killed.
const KILLS: u64 = 20;
/// Fixed, so that a failure can be repeated as far as timing allows.
const SEED: u64 = 0x0e50_2026;

/// Xorshift: good enough to choose moments.
struct Moments(u64);

impl Moments {
    fn next(&mut self) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // From before king listens until well into the evaluations.
        Duration::from_millis(100 + self.0 % 1_900)
    }
}

#[tokio::test]
async fn a_cycle_survives_twenty_kills_and_every_run_ends_once() {
    let mut moments = Moments(SEED);
    let mut evo = Evo::new(env!("CARGO_BIN_EXE_evo"));
    let mut tally = Tally::default();
    let mut resumed = 0;
    while tally.kills < KILLS {
        let mut process = evo.up(&["--once", "--json"]);
        std::thread::sleep(moments.next());
        resumed += u64::from(process.stderr().contains("Going on with the unfinished cycle"));
        if process.stdout().is_empty() && process.exited().is_none() {
            tally.kills += 1;
            tally.steps += 1;
            process.kill();
        } else {
            // This cycle has ended in spite of all kills; only a new one has a middle.
            let answer = evo.finish(process, Duration::from_secs(30)).expect_code(0);
            check(&evo, &answer.json(), &mut tally).await;
            evo = Evo::new(env!("CARGO_BIN_EXE_evo"));
        }
    }
    assert!(resumed >= KILLS / 4, "only {resumed} starts found an unfinished cycle");
    let report = evo.once::<&str>(&[]).expect_code(0).json();
    check(&evo, &report, &mut tally).await;
    println!("{tally}");
}

/// What must hold after a cycle, however often its process was killed.
async fn check(evo: &Evo, report: &Value, tally: &mut Tally) {
    assert!(report["active"].as_array().unwrap().len() >= 5, "{report}");
    check_outcomes(evo);
    check_log(evo, tally).await;
}

/// Every run of every cycle has ended, with one outcome each, and no candidate was run twice.
fn check_outcomes(evo: &Evo) {
    let cycles = evo.run(&["runs", "list", "--kind", "cycle", "--limit", "0", "--json"]);
    for cycle in cycles.expect_code(0).json()["runs"].as_array().unwrap() {
        assert_eq!(cycle["status"], "completed", "{cycle}");
        let id = cycle["run_id"].as_str().unwrap();
        let detail = evo.run(&["runs", "show", id, "--json"]).expect_code(0).json();
        assert_eq!(detail["children"], detail["children_ended"], "{detail}");
        let runs = evo.run(&["runs", "list", "--cycle", id, "--limit", "0", "--json"]);
        let runs = runs.expect_code(0).json();
        assert_eq!(runs["count"], detail["children"], "{id}");
        let mut names = BTreeSet::new();
        for run in runs["runs"].as_array().unwrap() {
            assert!(run["outcome"]["decision"].is_string(), "{run}");
            assert_ne!(run["status"], "running", "{run}");
            assert_ne!(run["outcome"]["decision"], "failed", "a kill is no failure: {run}");
            assert!(names.insert(run["candidate"].as_str().unwrap().to_owned()), "twice: {run}");
        }
    }
    let skills = evo.run(&["skill", "list", "--status", "active", "--json"]).expect_code(0).json();
    let skills = skills["skills"].as_array().unwrap();
    for skill in skills {
        let name = skill["name"].as_str().unwrap();
        let detail = evo.run(&["skill", "show", name, "--json"]).expect_code(0).json();
        let versions = detail["versions"].as_array().unwrap();
        assert_eq!(versions.iter().filter(|v| v["active"] == true).count(), 1, "{detail}");
        assert_eq!(versions.len(), 1, "the same definition was built twice: {detail}");
    }
}

/// The event log is in order and tells every end once. Counts what it tells.
async fn check_log(evo: &Evo, tally: &mut Tally) {
    let mut running = evo.up::<&str>(&[]);
    let instance = evo.instance(&mut running);
    let history = History::read(&evo.king(&instance)).await.expect("king answers");
    assert_eq!(history.faults(&Expected::default()), []);
    let events = &history.events;
    let places: Vec<i64> = events.iter().map(|event| event["seq"].as_i64().unwrap()).collect();
    assert!(places.is_sorted_by(|a, b| a < b), "seq grows");
    for kind in ["run.ended", "cycle.ended", "cycle.fanned_out", "skill.activated"] {
        for (run, count) in count_by_run(events, kind) {
            assert_eq!(count, 1, "{kind} of {run}");
        }
    }
    tally.finished += history.runs.len() as u64;
}

fn count_by_run(events: &[Value], kind: &str) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for event in events.iter().filter(|event| event["kind"] == kind) {
        let run = event["run_id"].as_str().expect("the event is about a run").to_owned();
        *counts.entry(run).or_default() += 1;
    }
    counts
}
