//! Whether and how to split a task.

use evo_common::messages::{TaskDecomposeRequest, TaskSubtaskSpec};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Advice, Asked, reason};

/// Fewest and most parts.
const FEWEST: usize = 2;
const MOST: usize = 16;
/// Longest word for the kind of a task, as king takes it.
const MAX_TYPE: usize = 64;
/// Longest description of a part.
const MAX_SUMMARY: usize = 2_000;
/// Largest payload of a part.
const MAX_PAYLOAD: usize = 8 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    should_decompose: bool,
    reasoning: String,
    #[serde(default)]
    subtasks: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    #[serde(default)]
    task_type: Option<String>,
    summary: String,
    #[serde(default)]
    payload: Map<String, Value>,
}

pub(super) async fn advise(
    request: &TaskDecomposeRequest,
    most: usize,
    asked: &Asked<'_>,
) -> Advice {
    let most = most.clamp(FEWEST, MOST);
    let system = format!(
        "Decide whether a task should be split into parts that can each be done and checked by \
         themselves. Split only when the parts are really separate; between {FEWEST} and {most} of \
         them. Answer with nothing but JSON: {{\"should_decompose\": true or false, \"reasoning\": \
         \"one sentence\", \"subtasks\": [{{\"task_type\": \"{}\", \"summary\": \"what is to be \
         done, complete in itself\", \"payload\": {{}}}}]}}",
        request.task_type
    );
    let data = json!({
        "task_type": request.task_type, "summary": request.summary, "payload": request.payload,
        "context": request.context, "asked_because": request.trigger,
    });
    let not = |reasoning: String| Advice::Decompose { subtasks: Vec::new(), reasoning };
    match asked.ask::<Plan>(&system, &data).await {
        Ok(plan) if !plan.should_decompose => not(reason(&plan.reasoning)),
        Ok(plan) => match check(plan.subtasks, &request.task_type, most) {
            Ok(subtasks) => Advice::Decompose { subtasks, reasoning: reason(&plan.reasoning) },
            Err(problem) => not(format!("the model's plan can't be used: {problem}")),
        },
        Err(problem) => not(problem),
    }
}

fn check(parts: Vec<Part>, parent: &str, most: usize) -> Result<Vec<TaskSubtaskSpec>, String> {
    if !(FEWEST..=most).contains(&parts.len()) {
        return Err(format!("it has {} parts, not {FEWEST} to {most}", parts.len()));
    }
    let part = |(number, part): (usize, Part)| {
        let number = number + 1;
        let summary = part.summary.trim().to_owned();
        if summary.is_empty() || summary.len() > MAX_SUMMARY {
            return Err(format!("part {number} has a summary of {} bytes", summary.len()));
        }
        let task_type = part.task_type.unwrap_or_else(|| parent.to_owned()).trim().to_owned();
        if task_type.is_empty() || task_type.chars().count() > MAX_TYPE {
            return Err(format!("part {number} has no usable task_type"));
        }
        let payload = Value::Object(part.payload);
        if payload.to_string().len() > MAX_PAYLOAD {
            return Err(format!("part {number} has a payload of more than {MAX_PAYLOAD} bytes"));
        }
        Ok(TaskSubtaskSpec { task_type, summary, payload })
    };
    parts.into_iter().enumerate().map(part).collect()
}
