//! What king says of an ended task when nobody else does. Pure.

use evo_common::api::{TaskVerdict, TaskView};
use serde_json::{Value, json};

/// Longest piece of a result in a summary.
const EXCERPT: usize = 300;
/// Longest text of a result that somebody is asked to look at.
const FOR_EVALUATION: usize = 8 * 1024;

/// A result as a text that can be read, cut to a length.
pub(super) fn text_of(task: &TaskView, most: usize) -> String {
    let text = match &task.result {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => task.output.clone(),
        Some(other) => other.to_string(),
    };
    super::cut(&text, most).to_owned()
}

/// What somebody who is to look at a task reads of its result.
pub(super) fn for_evaluation(task: &TaskView) -> String {
    text_of(task, FOR_EVALUATION)
}

/// The plain facts of how a task went.
pub(super) fn plain(task: &TaskView) -> TaskVerdict {
    let what = if task.summary.is_empty() {
        format!("A task of type {}", task.task_type)
    } else {
        super::cut(&task.summary, EXCERPT).trim_end_matches('.').to_owned()
    };
    let mut summary = format!("{what}: {}", task.status);
    if !task.agent_id.is_empty() {
        summary.push_str(&format!(" by {}", task.agent_id));
    }
    if let Some(work) = &task.work {
        let seconds = std::time::Duration::from_millis(work.latency_ms).as_secs_f64();
        let steps = if work.steps == 1 { "step" } else { "steps" };
        summary.push_str(&format!(" in {} {steps}, {seconds:.1} s", work.steps));
    }
    summary.push('.');
    if let Some(error) = &task.error {
        summary.push_str(&format!(" Error: {}", super::cut(error, EXCERPT)));
    }
    let result = text_of(task, EXCERPT);
    if !result.is_empty() {
        summary.push_str(&format!(" Result: {result}"));
    }
    TaskVerdict {
        agent_id: "king".to_owned(),
        summary,
        score: None,
        tags: vec![task.task_type.clone()],
        evaluation: json!({ "method": "plain" }),
    }
}
