//! Histories that must not be, each told by its fault.

use serde_json::json;

use super::*;

struct Log(Vec<Value>);

impl Log {
    fn add(&mut self, kind: &str, stage: &str, attempt: u64) {
        let payload = json!({"stage": stage, "attempt": attempt});
        let seq = self.0.len() + 1;
        self.0.push(json!({"seq": seq, "kind": kind, "run_id": "r", "payload": payload}));
    }

    fn whole() -> Self {
        let mut log = Self(Vec::new());
        log.add("run.started", "", 0);
        for stage in PipelineStage::ALL {
            log.add("stage.dispatched", stage.as_str(), 1);
            log.add("stage.completed", stage.as_str(), 1);
        }
        log.add("run.ended", "", 0);
        log
    }

    fn history(self, status: &str) -> History {
        let run = json!({"run_id": "r", "kind": "direct", "status": status});
        History { events: self.0, runs: vec![run] }
    }
}

fn faults(log: Log, status: &str) -> String {
    let runs = BTreeSet::from(["r".to_owned()]);
    let expected = Expected { runs, ..Expected::default() };
    let faults = log.history(status).faults(&expected);
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_whole_run_with_a_lost_runner_has_no_fault() {
    assert_eq!(faults(Log::whole(), "completed"), "");
    let mut log = Log(Vec::new());
    log.add("stage.dispatched", "learning", 1);
    log.add("stage.retried", "learning", 2);
    log.add("stage.dispatched", "learning", 2);
    log.add("stage.failed", "learning", 2);
    log.add("run.ended", "", 0);
    assert_eq!(faults(log, "failed"), "");
}

#[test]
fn a_result_that_was_applied_twice_is_told() {
    let mut log = Log::whole();
    let ended = log.0.pop().unwrap();
    log.add("stage.completed", "skill_manage", 1);
    log.0.push(json!({"seq": 99, "kind": ended["kind"], "run_id": "r"}));
    let told = faults(log, "completed");
    assert!(told.contains("doubled: stage.completed of stage skill_manage"), "{told}");
    let mut log = Log::whole();
    log.add("run.ended", "", 0);
    assert!(faults(log, "completed").contains("doubled: the end of run r"));
}

#[test]
fn an_end_that_is_missing_is_told() {
    let mut log = Log::whole();
    log.0.pop();
    assert!(faults(log, "completed").contains("lost: the entry of the end of run r"));
    assert!(faults(Log::whole(), "running").contains("lost: the end of run r"));
    let mut log = Log(Vec::new());
    log.add("stage.dispatched", "learning", 1);
    assert!(faults(log, "running").contains("lost: run r has not ended"));
    let mut log = Log::whole();
    log.0.drain(5..7);
    assert!(faults(log, "completed").contains("lost: run r is completed with"));
}

#[test]
fn a_run_that_waits_visibly_may_do_so() {
    let mut log = Log(Vec::new());
    log.add("stage.dispatched", "learning", 1);
    let expected = Expected { may_wait: true, ..Expected::default() };
    assert_eq!(log.history("running").faults(&expected), []);
}

#[test]
fn what_was_confirmed_must_be_there() {
    let result =
        |attempt| Acknowledged { run_id: "r".to_owned(), stage: "building".to_owned(), attempt };
    let mut expected = Expected {
        runs: BTreeSet::from(["r".to_owned(), "gone".to_owned()]),
        results: BTreeSet::from([result(1), result(2)]),
        ..Expected::default()
    };
    let faults = Log::whole().history("completed").faults(&expected);
    let [Fault::Lost(run), Fault::Lost(result)] = &faults[..] else { panic!("{faults:?}") };
    assert!(run.contains("gone") && result.contains("attempt: 2"), "{faults:?}");
    expected.runs.remove("gone");
    expected.results.pop_last();
    assert_eq!(Log::whole().history("completed").faults(&expected), []);
}

#[test]
fn stages_and_attempts_out_of_order_are_told() {
    let wrong: [&[(&str, u64)]; 4] = [
        &[("learning", 1), ("pre_load", 1)],
        &[("learning", 2), ("learning", 1)],
        &[("learning", 1), ("learning", 1)],
        &[("building", 1), ("learning", 1)],
    ];
    for dispatches in wrong {
        let mut log = Log(Vec::new());
        for (stage, attempt) in dispatches {
            log.add("stage.dispatched", stage, *attempt);
        }
        log.add("run.ended", "", 0);
        assert!(faults(log, "failed").contains("out of order"), "{dispatches:?}");
    }
    let mut log = Log(Vec::new());
    log.add("stage.dispatched", "learning", 2);
    log.add("stage.completed", "learning", 1);
    log.add("run.ended", "", 0);
    assert!(faults(log, "failed").contains("which was not out"));
    let mut log = Log::whole();
    log.add("stage.dispatched", "learning", 2);
    assert!(faults(log, "completed").contains("after its end"));
}

#[test]
fn a_log_that_goes_back_or_forgets_is_told() {
    let mut log = Log::whole();
    log.0.swap(3, 4);
    assert!(faults(log, "completed").contains("entry 4 follows entry 5"));
    let earlier = Log::whole().history("completed");
    let mut now = earlier.clone();
    assert_eq!(now.since(&earlier), []);
    now.events[2]["kind"] = json!("stage.failed");
    now.events.pop();
    assert_eq!(now.since(&earlier).len(), 2);
}
