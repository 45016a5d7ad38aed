//! What must be true of king's event log and runs, whatever happened to king, its runners and the
//! network between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use evo_common::messages::PipelineStage;
use serde_json::Value;

use crate::King;

/// Kinds after which nothing more may happen in a run.
const ENDS: [&str; 2] = ["run.ended", "cycle.ended"];
/// Kinds that take part in a run's course.
const COURSE: [&str; 4] = ["stage.dispatched", "stage.completed", "stage.failed", "stage.retried"];

/// One result that king said it had taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acknowledged {
    /// The run.
    pub run_id: String,
    /// The stage.
    pub stage: String,
    /// The try.
    pub attempt: u64,
}

/// What king was asked and what it confirmed; the log must agree.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Runs whose start king confirmed.
    pub runs: BTreeSet<String>,
    /// Results of completed stages that king confirmed.
    pub results: BTreeSet<Acknowledged>,
    /// Whether a run may still wait for something.
    pub may_wait: bool,
}

/// The event log and the runs as king tells them.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// `GET /events`, all of it.
    pub events: Vec<Value>,
    /// `GET /pipeline/runs`, all of them.
    pub runs: Vec<Value>,
}

/// What must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Something that was confirmed is not there, or a run neither ended nor waits visibly.
    Lost(String),
    /// Something took effect twice.
    Doubled(String),
    /// Something happened out of order.
    Disorder(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, text) = match self {
            Self::Lost(text) => ("lost", text),
            Self::Doubled(text) => ("doubled", text),
            Self::Disorder(text) => ("out of order", text),
        };
        write!(f, "{what}: {text}")
    }
}

impl History {
    /// Reads all of it; `None` when king does not answer meanwhile.
    pub async fn read(king: &King) -> Option<Self> {
        let runs = king.try_list("/pipeline/runs", "runs").await?;
        Some(Self { events: king.try_events().await?, runs })
    }

    /// Everything that must not be and is.
    pub fn faults(&self, expected: &Expected) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.check_order_of_the_log(&mut faults);
        self.check_confirmed(expected, &mut faults);
        for run in &self.runs {
            self.check_run(run, expected.may_wait, &mut faults);
        }
        faults
    }

    /// Everything of an earlier look that is not here any more, or is another thing now.
    pub fn since(&self, earlier: &Self) -> Vec<Fault> {
        let now: BTreeMap<i64, &Value> =
            self.events.iter().map(|event| (seq(event), event)).collect();
        let lost = |event: &&Value| now.get(&seq(event)) != Some(event);
        let events = earlier.events.iter().filter(lost);
        events.map(|event| Fault::Lost(format!("the entry {event} of the log"))).collect()
    }

    /// Stages with a result, in the order of the log.
    pub fn completed(&self, run_id: &str) -> Vec<(String, u64)> {
        let events = self.about(run_id).filter(|event| event["kind"] == "stage.completed");
        events.map(|event| (stage(event), attempt(event))).collect()
    }

    fn about<'h>(&'h self, run_id: &'h str) -> impl Iterator<Item = &'h Value> {
        self.events.iter().filter(move |event| event["run_id"] == run_id)
    }

    fn check_order_of_the_log(&self, faults: &mut Vec<Fault>) {
        for pair in self.events.windows(2) {
            if seq(&pair[0]) >= seq(&pair[1]) {
                let text = format!("entry {} follows entry {}", seq(&pair[1]), seq(&pair[0]));
                faults.push(Fault::Disorder(text));
            }
        }
    }

    fn check_confirmed(&self, expected: &Expected, faults: &mut Vec<Fault>) {
        let known: BTreeSet<&str> =
            self.runs.iter().filter_map(|run| run["run_id"].as_str()).collect();
        for run_id in &expected.runs {
            if !known.contains(run_id.as_str()) {
                faults.push(Fault::Lost(format!("run {run_id}, whose start was confirmed")));
            }
        }
        let results: BTreeSet<Acknowledged> = self
            .events
            .iter()
            .filter(|event| event["kind"] == "stage.completed")
            .map(|event| Acknowledged {
                run_id: event["run_id"].as_str().unwrap_or_default().to_owned(),
                stage: stage(event),
                attempt: attempt(event),
            })
            .collect();
        for result in expected.results.difference(&results) {
            faults.push(Fault::Lost(format!("{result:?}, which was confirmed")));
        }
    }

    fn check_run(&self, run: &Value, may_wait: bool, faults: &mut Vec<Fault>) {
        let run_id = run["run_id"].as_str().unwrap_or_default();
        let mut course = Course::default();
        for event in self.about(run_id) {
            let kind = event["kind"].as_str().unwrap_or_default();
            if ENDS.contains(&kind) {
                course.end(run_id, faults);
            } else if COURSE.contains(&kind) {
                course.step(run_id, kind, event, faults);
            }
        }
        let open = run["status"] == "running";
        match (course.ended, open) {
            (true, true) => faults.push(Fault::Lost(format!("the end of run {run_id}: {run}"))),
            (false, false) => {
                faults.push(Fault::Lost(format!("the entry of the end of run {run_id}")));
            }
            (false, true) if !may_wait => {
                faults.push(Fault::Lost(format!("run {run_id} has not ended: {run}")));
            }
            _ => {}
        }
        if !open
            && run["status"] == "completed"
            && run["kind"] == "direct"
            && course.done.len() != 5
        {
            let text = format!("run {run_id} is completed with {:?} only", course.done);
            faults.push(Fault::Lost(text));
        }
    }
}

/// What the log says of one run, entry by entry.
#[derive(Debug, Default)]
struct Course {
    /// The attempt that is out.
    out: Option<(String, u64)>,
    last: Option<(usize, u64)>,
    done: Vec<String>,
    ended: bool,
}

impl Course {
    fn end(&mut self, run_id: &str, faults: &mut Vec<Fault>) {
        if self.ended {
            faults.push(Fault::Doubled(format!("the end of run {run_id}")));
        }
        self.ended = true;
    }

    fn step(&mut self, run_id: &str, kind: &str, event: &Value, faults: &mut Vec<Fault>) {
        let (stage, attempt) = (stage(event), attempt(event));
        let at = format!("{kind} of stage {stage}, attempt {attempt}, in run {run_id}");
        if self.ended {
            faults.push(Fault::Disorder(format!("{at} after its end")));
        }
        match kind {
            "stage.dispatched" => {
                let place = place(&stage);
                let follows = match self.last {
                    None => true,
                    Some((last, tries)) if last == place => attempt > tries,
                    Some((last, _)) => place > last && attempt == 1,
                };
                if !follows {
                    faults.push(Fault::Disorder(format!("{at} after {:?}", self.last)));
                }
                let missing = PipelineStage::ALL[..place].last();
                if missing.is_some_and(|before| {
                    self.last.is_some_and(|(last, _)| last != place)
                        && !self.done.iter().any(|done| done == before.as_str())
                }) {
                    faults.push(Fault::Disorder(format!("{at} before the stage in front of it")));
                }
                self.last = Some((place, attempt));
                self.out = Some((stage, attempt));
            }
            "stage.completed" => {
                if self.done.contains(&stage) {
                    faults.push(Fault::Doubled(at.clone()));
                }
                if self.out.take() != Some((stage.clone(), attempt)) {
                    faults.push(Fault::Disorder(format!("{at}, which was not out")));
                }
                self.done.push(stage);
            }
            _ => self.out = None,
        }
    }
}

fn seq(event: &Value) -> i64 {
    event["seq"].as_i64().unwrap_or_default()
}

fn stage(event: &Value) -> String {
    event["payload"]["stage"].as_str().unwrap_or_default().to_owned()
}

fn attempt(event: &Value) -> u64 {
    event["payload"]["attempt"].as_u64().unwrap_or_default()
}

fn place(stage: &str) -> usize {
    PipelineStage::ALL.into_iter().position(|known| known.as_str() == stage).unwrap_or_default()
}

#[cfg(test)]
mod tests;
