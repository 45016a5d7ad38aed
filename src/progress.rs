//! Live progress on stderr: a line that redraws itself on a terminal, plain lines otherwise.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    time::Duration,
};

use evo_common::{
    api::EventRecord,
    messages::PipelineStage,
    outcome::{Outcome, Verdict, codes},
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// A line for the person who started this. Goes to stderr, so that stdout holds results only.
#[expect(clippy::print_stderr, reason = "the one place where a command speaks while it works")]
pub(crate) fn say(line: impl fmt::Display) {
    eprintln!("{line}");
}

/// Where every run of a cycle is, as the event log tells it.
#[derive(Debug, Default)]
struct Counts {
    cycle: String,
    /// What Learning found; absent while it looks.
    candidates: Option<u64>,
    /// Runs that are in a stage now.
    stages: HashMap<String, PipelineStage>,
    ended: HashSet<String>,
    verdicts: BTreeMap<Verdict, u64>,
    /// Candidates that were decided in an earlier cycle.
    known: u64,
}

/// What an event is worth saying.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Found { candidates: u64, failed_sources: Vec<String> },
    Ended { name: String, outcome: Outcome },
    Again(String),
}

impl Counts {
    fn note(&mut self, event: &EventRecord) -> Option<News> {
        let run_id = event.run_id.as_deref()?;
        match event.kind.as_str() {
            "cycle.fanned_out" if run_id == self.cycle => {
                let candidates = event.payload["candidates"].as_u64().unwrap_or_default();
                self.candidates = Some(candidates);
                self.stages.remove(run_id);
                let failed_sources = event.payload["failed_sources"]
                    .as_array()
                    .map(|list| list.iter().filter_map(source_failure).collect())
                    .unwrap_or_default();
                Some(News::Found { candidates, failed_sources })
            }
            "stage.dispatched" => {
                let stage = event.payload["stage"].as_str()?.parse().ok()?;
                self.stages.insert(run_id.to_owned(), stage);
                None
            }
            "stage.completed" => {
                self.stages.remove(run_id);
                None
            }
            "stage.retried" => {
                let stage = text(&event.payload["stage"]).unwrap_or("a stage");
                self.stages.remove(run_id);
                Some(News::Again(format!("{stage} of {run_id} is tried again")))
            }
            "run.ended" if run_id != self.cycle => {
                self.stages.remove(run_id);
                // A repeat in the log must not count twice.
                if !self.ended.insert(run_id.to_owned()) {
                    return None;
                }
                let outcome: Outcome =
                    serde_json::from_value(event.payload["outcome"].clone()).ok()?;
                if outcome.code == codes::DUPLICATE {
                    self.known += 1;
                    return None;
                }
                *self.verdicts.entry(outcome.decision).or_default() += 1;
                let name = text(&event.payload["name"]).unwrap_or(run_id).to_owned();
                Some(News::Ended { name, outcome })
            }
            _ => None,
        }
    }

    /// `pre_load 2 · evaluation 6 | active 3 · held 9`.
    fn summary(&self) -> String {
        let working = PipelineStage::ALL.into_iter().filter_map(|stage| {
            let count = self.stages.values().filter(|at| **at == stage).count();
            (count > 0).then(|| format!("{stage} {count}"))
        });
        let ended =
            self.verdicts.iter().map(|(verdict, count)| format!("{} {count}", verdict.as_str()));
        let known = (self.known > 0).then(|| format!("known before {}", self.known));
        let parts: Vec<String> = working.chain(ended).chain(known).collect();
        parts.join(" · ")
    }
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

fn source_failure(value: &Value) -> Option<String> {
    let message = text(&value["message"])?;
    Some(format!("source {}: {message}", text(&value["name"]).unwrap_or("?")))
}

/// Shows how a cycle gets on.
pub(crate) struct Progress {
    counts: Counts,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `terminal`: whether a line may redraw itself.
    pub(crate) fn new(terminal: bool) -> Self {
        let bar = terminal.then(ProgressBar::new_spinner);
        Self { counts: Counts::default(), bar }
    }

    /// A cycle is followed from here on.
    pub(crate) fn begin(&mut self, cycle: &str) {
        self.counts = Counts { cycle: cycle.to_owned(), ..Counts::default() };
        match &self.bar {
            Some(bar) => {
                bar.set_style(style("{spinner} {msg} ({elapsed})"));
                bar.set_message("Learning reads the sources");
                bar.enable_steady_tick(Duration::from_millis(120));
            }
            None => say("Learning reads the sources"),
        }
    }

    /// Takes an event in.
    pub(crate) fn note(&mut self, event: &EventRecord) {
        match self.counts.note(event) {
            Some(News::Found { candidates, failed_sources }) => {
                for failure in failed_sources {
                    self.line(&format!("  {failure}"));
                }
                match &self.bar {
                    Some(bar) => {
                        bar.set_length(candidates);
                        bar.set_style(style("{spinner} [{bar:24}] {pos}/{len} {msg} ({elapsed})"));
                    }
                    None => say(format!("Found {candidates} candidates")),
                }
            }
            Some(News::Ended { name, outcome }) if self.bar.is_none() => {
                say(format!("  {:<9} {name}: {}", outcome.decision.as_str(), outcome.code));
            }
            Some(News::Again(message)) => self.line(&format!("  {message}")),
            // On a terminal the counts in the line say it.
            Some(News::Ended { .. }) | None => (),
        }
    }

    /// Redraws the line.
    pub(crate) fn draw(&self) {
        if let Some(bar) = &self.bar
            && self.counts.candidates.is_some()
        {
            bar.set_position(self.counts.ended.len() as u64);
            bar.set_message(self.counts.summary());
        }
    }

    /// The cycle has ended.
    pub(crate) fn finish(&self) {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None => say(format!("The cycle has ended: {}", self.counts.summary())),
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => say(text),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are checked by a test")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, run: &str, payload: Value) -> EventRecord {
        EventRecord {
            seq: 1,
            at: String::new(),
            kind: kind.to_owned(),
            run_id: Some(run.to_owned()),
            agent_id: None,
            payload,
        }
    }

    #[test]
    fn the_log_tells_where_every_run_is() {
        let mut counts = Counts { cycle: "c".to_owned(), ..Counts::default() };
        let found =
            json!({ "candidates": 2, "failed_sources": [{ "name": "x", "message": "gone" }] });
        assert_eq!(
            counts.note(&event("cycle.fanned_out", "c", found)),
            Some(News::Found { candidates: 2, failed_sources: vec!["source x: gone".to_owned()] })
        );
        counts.note(&event("stage.dispatched", "r1", json!({ "stage": "building" })));
        counts.note(&event("stage.dispatched", "r2", json!({ "stage": "building" })));
        counts.note(&event("stage.dispatched", "r1", json!({ "stage": "pre_load" })));
        assert_eq!(counts.summary(), "building 1 · pre_load 1");
        let outcome = Outcome::held("unreachable", "nobody answers");
        let ended = event("run.ended", "r1", json!({ "name": "a", "outcome": outcome }));
        assert_eq!(counts.note(&ended), Some(News::Ended { name: "a".to_owned(), outcome }));
        assert_eq!(counts.note(&ended), None);
        let outcome = Outcome::discarded("duplicate", "active already");
        let known = event("run.ended", "r2", json!({ "name": "b", "outcome": outcome }));
        assert_eq!(counts.note(&known), None);
        assert_eq!(counts.summary(), "held 1 · known before 1");
    }

    #[test]
    fn an_event_of_a_later_release_is_no_error() {
        let mut counts = Counts::default();
        assert_eq!(counts.note(&event("stage.dispatched", "r", json!({ "stage": "new" }))), None);
        assert_eq!(counts.note(&event("something.new", "r", json!(null))), None);
        assert_eq!(counts.note(&event("run.ended", "r", json!({}))), None);
    }

    #[test]
    fn the_templates_are_valid() {
        let mut progress = Progress::new(true);
        progress.begin("c");
        progress.note(&event("cycle.fanned_out", "c", json!({ "candidates": 2 })));
        progress.draw();
        progress.finish();
    }
}
