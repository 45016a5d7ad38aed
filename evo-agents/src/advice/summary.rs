//! How a task went.

use evo_common::messages::TaskEvaluate;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Advice, Asked};
use crate::task::cut;

/// Longest summary.
const MAX_SUMMARY: usize = 2_000;
/// Longest part of the output in a plain summary.
const MAX_EXCERPT: usize = 300;
/// Most tags, and the longest one.
const MAX_TAGS: usize = 8;
const MAX_TAG: usize = 32;

const SYSTEM: &str = "\
Judge how a task went, by what is given. Answer with nothing but JSON: {\"summary\": \"what was \
done and what came out, in at most three sentences\", \"score\": a number from 0 (useless) to 1 \
(exactly what was asked for), \"tags\": [\"a few lower-case words\"]}";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Judged {
    summary: String,
    score: f64,
    #[serde(default)]
    tags: Vec<String>,
}

pub(super) async fn advise(task: &TaskEvaluate, asked: &Asked<'_>) -> Advice {
    let data = json!({
        "task_type": task.task_type, "output": task.output_summary, "exit_code": task.exit_code,
        "latency_ms": task.latency_ms, "facts": task.metadata,
    });
    let judged = asked.ask::<Judged>(SYSTEM, &data).await.and_then(check);
    let usage = asked.usage();
    match judged {
        Ok(Judged { summary, score, tags }) => Advice::Evaluate {
            summary,
            score: Some(score),
            tags,
            evaluation: json!({"by": "model"}),
            usage,
        },
        Err(reason) => Advice::Evaluate {
            summary: plain(task),
            score: has_failed(task).then_some(0.0),
            tags: vec![task.task_type.clone()],
            evaluation: json!({"by": "facts", "reason": reason}),
            usage,
        },
    }
}

fn check(judged: Judged) -> Result<Judged, String> {
    let summary = judged.summary.trim().to_owned();
    if summary.is_empty() || summary.len() > MAX_SUMMARY {
        return Err(format!("the model's summary has {} bytes", summary.len()));
    }
    if !(0.0..=1.0).contains(&judged.score) {
        return Err(format!("the model's score is {}, not from 0 to 1", judged.score));
    }
    let tags = judged.tags.iter().map(|tag| tag.trim().to_lowercase());
    let tags = tags
        .filter(|tag| !tag.is_empty() && tag.chars().count() <= MAX_TAG && !tag.contains(','))
        .take(MAX_TAGS)
        .collect();
    Ok(Judged { summary, tags, ..judged })
}

fn fact<'t>(task: &'t TaskEvaluate, name: &str) -> Option<&'t str> {
    task.metadata.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty())
}

fn has_failed(task: &TaskEvaluate) -> bool {
    task.exit_code.is_some_and(|code| code != 0) || fact(task, "status") == Some("failed")
}

/// What is known without judging.
fn plain(task: &TaskEvaluate) -> String {
    let mut summary = fact(task, "summary").unwrap_or(&task.task_type).trim().to_owned();
    summary.push_str(if has_failed(task) { ": failed" } else { ": completed" });
    if let Some(ms) = task.latency_ms {
        summary.push_str(&format!(" after {ms} ms"));
    }
    if let Some(steps) = task.metadata.get("steps").and_then(Value::as_u64) {
        summary.push_str(&format!(" in {steps} steps"));
    }
    if let Some(code) = task.exit_code {
        summary.push_str(&format!(", exit code {code}"));
    }
    match (fact(task, "error"), task.output_summary.trim()) {
        (Some(error), _) => summary.push_str(&format!(". {}", cut(error, MAX_EXCERPT))),
        (None, "") => summary.push('.'),
        (None, output) => summary.push_str(&format!(". {}", cut(output, MAX_EXCERPT))),
    }
    cut(&summary, MAX_SUMMARY)
}
