//! What happened in a run, for people.

use std::fmt::Write as _;

use evo_common::messages::PipelineRunStatus;

use super::{End, facts::Facts};

/// The log of a run that has ended: a line for each stage result, with what came of it and what went
/// wrong, and one for the end.
pub(super) fn of(facts: &Facts, end: &End, at: &str) -> String {
    let mut log = String::new();
    let name = facts.name.as_deref().unwrap_or("run");
    line(&mut log, &facts.started_at, &format!("{name} started"));
    for stage in &facts.stages {
        let by = stage.agent_id.as_deref().map_or_else(String::new, |id| format!(" by {id}"));
        let of = stage.candidate.as_deref().map_or_else(String::new, |name| format!("{name}: "));
        let said = format!(
            "{of}{} {} (attempt {}{by})",
            stage.stage.as_str(),
            word(stage.status),
            stage.attempt
        );
        line(&mut log, &stage.at, &said);
        if let Some(error) = &stage.error {
            line(&mut log, "  error", error);
        }
        if !stage.output.is_empty() {
            line(&mut log, "  output", &stage.output);
        }
    }
    let reason = end.outcome.as_ref().map_or_else(String::new, |outcome| {
        format!(" ({}): {}", outcome.code, super::text(&outcome.reason))
    });
    line(&mut log, at, &format!("ended as {}{reason}", end.decision()));
    log
}

fn word(status: PipelineRunStatus) -> &'static str {
    match status {
        PipelineRunStatus::Running => "is running",
        PipelineRunStatus::Completed => "completed",
        PipelineRunStatus::Failed => "failed",
        PipelineRunStatus::TimedOut => "timed out",
    }
}

fn line(log: &mut String, what: &str, text: &str) {
    let between = if what.is_empty() { "" } else { " " };
    // Writing to a String can't fail.
    writeln!(log, "{what}{between}{text}").expect("a String grows");
}
