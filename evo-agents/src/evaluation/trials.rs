//! Trials: running cases of a package, one after the other.

use std::{collections::HashMap, time::Duration};

use evo_common::{
    case::Case,
    evidence::{TrialFailure, Trials},
    shape::{self, Shape},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::oracle::{self, InvalidCase, Oracle, Wrong};
use crate::skill::{
    execute::{CallError, CallPolicy, Executor, Fault},
    package::Package,
};

/// With at least this many cases a trial is one case with its repeats; with fewer, a trial is one
/// run of one case.
pub const MANY_CASES: usize = 50;
/// From so many answers on it is known which names are always there.
const ENOUGH_ANSWERS: u32 = 3;
/// Most failures that are reported.
const MAX_FAILURES: usize = 20;
/// Longest detail of a failure.
const MAX_DETAIL: usize = 200;

/// One run of one case.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What went wrong; [`None`] when the case passed.
    pub failure: Option<Failure>,
    /// How long it took, when there was an answer.
    pub latency: Option<Duration>,
    /// HTTP status, when there was an answer.
    pub status: Option<u16>,
}

/// Why a run did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Stable code.
    pub code: String,
    /// For people.
    pub detail: String,
}

impl Run {
    /// Whether the case passed.
    pub fn passed(&self) -> bool {
        self.failure.is_none()
    }

    /// Whether it failed with this code.
    pub fn failed_with(&self, code: &str) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.code == code)
    }

    /// Its latency in milliseconds.
    pub fn latency_ms(&self) -> Option<f64> {
        self.latency.map(|latency| latency.as_secs_f64() * 1_000.0)
    }
}

/// A case that is ready to run.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// The case.
    pub case: &'a Case,
    oracle: Oracle,
}

/// Makes cases ready: their schemas are compiled once.
pub fn prepare<'a>(cases: &'a [Case], success: &[u16]) -> Result<Vec<Prepared<'a>>, InvalidCase> {
    cases.iter().map(|case| Ok(Prepared { case, oracle: Oracle::new(case, success)? })).collect()
}

/// Runs the cases of one package and remembers what its answers look like.
#[derive(Debug)]
pub struct Bench<'a> {
    executor: &'a Executor,
    package: &'a Package,
    policy: &'a CallPolicy,
    /// What the right answers to each case looked like, to compare the later ones with.
    shapes: HashMap<String, Shape>,
    /// How often each case was run.
    runs: HashMap<String, u32>,
    /// Case and pointer → whether there ever was something.
    filled: HashMap<(String, String), bool>,
    /// Right answers of which the case itself does not know the values, and how many of them held
    /// something.
    unknown: Trials,
}

impl<'a> Bench<'a> {
    /// A bench for one package.
    pub fn new(executor: &'a Executor, package: &'a Package, policy: &'a CallPolicy) -> Self {
        Self {
            executor,
            package,
            policy,
            shapes: HashMap::new(),
            runs: HashMap::new(),
            filled: HashMap::new(),
            unknown: Trials::default(),
        }
    }

    /// Takes it as known what answers to this case look like, since somebody looked before.
    pub fn expect_like(&mut self, case_id: &str, observed: &Shape) {
        for pointer in observed.filled_places() {
            self.filled.entry((case_id.to_owned(), pointer)).or_default();
        }
        self.shapes.insert(case_id.to_owned(), observed.clone());
    }

    /// What the right answers to a case looked like so far.
    pub fn shape(&self, case_id: &str) -> Option<&Shape> {
        self.shapes.get(case_id)
    }

    /// Runs a case once. Every second run of a case gives its inputs in another order, which must
    /// make no difference.
    pub async fn run(&mut self, prepared: &Prepared<'_>) -> Run {
        let before = self.runs.entry(prepared.case.case_id.clone()).or_default();
        let reordered = *before % 2 == 1 && prepared.case.input.len() > 1;
        *before += 1;
        if !reordered {
            return self.run_as(prepared, self.policy).await;
        }
        let policy = CallPolicy { reordered: true, ..self.policy.clone() };
        let mut run = self.run_as(prepared, &policy).await;
        if let Some(failure) = &mut run.failure {
            let detail = format!("{} (inputs in another order)", failure.detail);
            failure.detail = detail.chars().take(MAX_DETAIL).collect();
        }
        run
    }

    /// Runs a case once, and breaks the first try of its call.
    pub async fn run_broken(&mut self, prepared: &Prepared<'_>, fault: Fault) -> Run {
        let policy = CallPolicy { fault: Some(fault), ..self.policy.clone() };
        self.run_as(prepared, &policy).await
    }

    async fn run_as(&mut self, prepared: &Prepared<'_>, policy: &CallPolicy) -> Run {
        let result = self.executor.call(self.package, &prepared.case.input, policy).await;
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                return Run { failure: Some(failure_of(&error)), latency: None, status: None };
            }
        };
        let wrong = prepared
            .oracle
            .check(&answer)
            .and_then(|()| self.compare_shape(prepared, &answer.body))
            .err();
        if wrong.is_none() {
            self.note(prepared, &answer.body);
        }
        Run {
            failure: wrong.map(|wrong| Failure {
                code: wrong.code.to_owned(),
                detail: wrong.detail.chars().take(MAX_DETAIL).collect(),
            }),
            latency: Some(answer.latency),
            status: Some(answer.status),
        }
    }

    /// One trial of `repeats` runs; all must pass. The first failure counts, with the slowest
    /// latency.
    pub async fn trial(&mut self, prepared: &Prepared<'_>, repeats: u32) -> Run {
        let mut run = self.run(prepared).await;
        for _ in 1..repeats {
            if !run.passed() {
                break;
            }
            let next = self.run(prepared).await;
            run = Run { latency: run.latency.max(next.latency), ..next };
        }
        run
    }

    fn compare_shape(&self, prepared: &Prepared<'_>, body: &Value) -> Result<(), Wrong> {
        let oracle = &prepared.oracle;
        let known = self.shapes.get(&prepared.case.case_id);
        let Some(known) = known.filter(|_| oracle.compares_answers()) else { return Ok(()) };
        let keeps = |path: &[&str]| known.seen >= ENOUGH_ANSWERS && oracle.keeps_names(path);
        known.check(body, &keeps).map_err(|detail| Wrong { code: "shape", detail })
    }

    fn note(&mut self, prepared: &Prepared<'_>, body: &Value) {
        let (oracle, case_id) = (&prepared.oracle, &prepared.case.case_id);
        if oracle.compares_answers() {
            self.shapes.entry(case_id.clone()).or_default().note(body);
        }
        if !oracle.knows_values() {
            self.unknown.add(shape::holds_something(body));
        }
        let places = oracle.non_empty().iter().map(|pointer| (case_id.clone(), pointer.clone()));
        for place in places {
            self.filled.entry(place).or_default();
        }
        for ((case, pointer), filled) in &mut self.filled {
            *filled |= case == case_id && oracle::has_something(body, pointer);
        }
    }

    /// Whether no right answer ever held anything, where nothing says that it should not.
    pub fn saw_nothing(&self) -> bool {
        self.unknown.total > 0 && self.unknown.passed == 0
    }

    /// Cases whose right answers were all empty somewhere where the document's example is not,
    /// with that place.
    pub fn always_empty(&self) -> HashMap<String, String> {
        let empty = self.filled.iter().filter(|(_, filled)| !**filled);
        let mut cases: HashMap<String, String> = HashMap::new();
        for ((case_id, pointer), _) in empty {
            let place = cases.entry(case_id.clone()).or_insert_with(|| pointer.clone());
            if pointer < place {
                place.clone_from(pointer);
            }
        }
        cases
    }
}

/// What a call that had no answer means for its trial.
pub fn failure_of(error: &CallError) -> Failure {
    let code = match error {
        CallError::Unreachable(_) | CallError::Step { code: "unreachable", .. } => "connect",
        other => other.code(),
    };
    let detail: String =
        evo_common::redact::redact(&error.to_string()).chars().take(MAX_DETAIL).collect();
    Failure { code: code.to_owned(), detail }
}

/// Counts of trials, by case so that a case can be failed later.
#[derive(Debug, Default)]
pub struct Tally {
    by_case: Vec<(String, Trials)>,
    latencies_ms: Vec<f64>,
    failures: Vec<TrialFailure>,
}

impl Tally {
    /// Counts a trial.
    pub fn add(&mut self, case_id: &str, run: &Run) {
        self.latencies_ms.extend(run.latency_ms());
        self.entry(case_id).add(run.passed());
        if let Some(failure) = &run.failure {
            self.report(case_id, &failure.code, &failure.detail);
        }
    }

    fn entry(&mut self, case_id: &str) -> &mut Trials {
        let at = self.by_case.iter().position(|(id, _)| id == case_id);
        let at = at.unwrap_or_else(|| {
            self.by_case.push((case_id.to_owned(), Trials::default()));
            self.by_case.len() - 1
        });
        &mut self.by_case[at].1
    }

    fn report(&mut self, case_id: &str, code: &str, detail: &str) {
        if self.failures.len() < MAX_FAILURES {
            self.failures.push(TrialFailure {
                case_id: case_id.to_owned(),
                code: code.to_owned(),
                detail: detail.to_owned(),
            });
        }
    }

    /// Takes back every pass of a case.
    pub fn fail_case(&mut self, case_id: &str, code: &str, detail: &str) {
        let trials = self.entry(case_id);
        if trials.passed > 0 {
            trials.passed = 0;
            self.report(case_id, code, detail);
        }
    }

    /// All trials together.
    pub fn total(&self) -> Trials {
        self.by_case.iter().fold(Trials::default(), |sum, (_, trials)| sum.plus(*trials))
    }

    /// The cases that had a trial.
    pub fn case_ids(&self) -> impl Iterator<Item = &str> {
        self.by_case.iter().map(|(case_id, _)| case_id.as_str())
    }

    /// Latencies of the answers in milliseconds.
    pub fn latencies_ms(&self) -> &[f64] {
        &self.latencies_ms
    }

    /// The first failures.
    pub fn failures(&self) -> &[TrialFailure] {
        &self.failures
    }
}

/// The work was called off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the evaluation was cancelled")]
pub struct Cancelled;

/// Waits, unless the work is called off.
pub async fn pause(duration: Duration, cancel: &CancellationToken) -> Result<(), Cancelled> {
    tokio::select! {
        () = cancel.cancelled() => Err(Cancelled),
        () = tokio::time::sleep(duration) => Ok(()),
    }
}

/// The cases of one look, in order: each trial is one of them. Later looks of many cases go on
/// where the earlier ones stopped.
pub fn schedule(cases: usize, trials: u32, look: u32) -> Vec<usize> {
    if cases == 0 {
        return Vec::new();
    }
    let trials = trials as usize;
    let start = (look.max(1) as usize - 1).wrapping_mul(trials);
    (0..trials).map(|i| start.wrapping_add(i) % cases).collect()
}

/// In which sitting a trial is made; sittings are as equal as they can be.
pub fn sitting_of(trial: usize, trials: usize, sittings: u32) -> usize {
    let sittings = (sittings.max(1) as usize).min(trials.max(1));
    trial * sittings / trials.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_cycle_over_the_cases_and_spread_over_the_sittings() {
        assert_eq!(schedule(3, 5, 1), [0, 1, 2, 0, 1]);
        assert_eq!(schedule(60, 3, 2), [3, 4, 5]);
        assert_eq!(schedule(0, 5, 1), [0; 0]);
        let sittings: Vec<usize> = (0..5).map(|i| sitting_of(i, 5, 2)).collect();
        assert_eq!(sittings, [0, 0, 0, 1, 1]);
        assert_eq!(sitting_of(0, 1, 4), 0);
        assert!((0..20).all(|i| sitting_of(i, 20, 0) == 0));
    }

    #[test]
    fn a_tally_counts_by_case_and_can_take_passes_back() {
        let run = |failure: Option<&str>| Run {
            failure: failure.map(|code| Failure { code: code.to_owned(), detail: "d".to_owned() }),
            latency: Some(Duration::from_millis(2)),
            status: Some(200),
        };
        let mut tally = Tally::default();
        tally.add("a", &run(None));
        tally.add("b", &run(Some("status")));
        tally.add("a", &run(None));
        assert_eq!(tally.total(), Trials { passed: 2, total: 3 });
        assert_eq!(tally.case_ids().collect::<Vec<_>>(), ["a", "b"]);
        tally.fail_case("a", "always_empty", "nothing at /x");
        assert_eq!(tally.total(), Trials { passed: 0, total: 3 });
        assert_eq!(tally.latencies_ms(), [2.0, 2.0, 2.0]);
        let codes: Vec<&str> = tally.failures().iter().map(|f| f.code.as_str()).collect();
        assert_eq!(codes, ["status", "always_empty"]);
    }
}
