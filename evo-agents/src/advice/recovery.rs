//! How to go on after a failed stage.

use evo_common::messages::{ErrorRecoveryAction as Action, ErrorRecoveryRequest, PipelineStage};
use serde::Deserialize;
use serde_json::json;

use super::{Advice, Asked, reason};

/// Most new tries of a stage.
const MAX_RETRIES: u32 = 3;

/// What errors say that may pass by themselves.
const PASSING: [&str; 18] = [
    "timeout",
    "timed out",
    "deadline",
    "unreachable",
    "can't be reached",
    "connection",
    "refused the connection",
    "network",
    "temporar",
    "unavailable",
    "rate limit",
    "too many requests",
    "was lost",
    "overloaded",
    " 429",
    " 502",
    " 503",
    " 504",
];

/// What may be done, and what the rules would do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) allowed: Vec<Action>,
    pub(super) first: Action,
    /// Whether it is clear enough to ask nobody.
    pub(super) clear: bool,
    pub(super) why: String,
}

/// The rules. A task is never split here: a run is one candidate's way already.
pub(super) fn options(request: &ErrorRecoveryRequest) -> Options {
    let error = request.error_message.to_lowercase();
    let passing = PASSING.iter().any(|word| error.contains(word));
    let stage = request.failed_stage;
    let may_skip = matches!(stage, PipelineStage::Evaluation | PipelineStage::SkillManage);
    let may_retry = request.retry_count < MAX_RETRIES;
    let mut allowed = Vec::new();
    if may_retry {
        allowed.push(Action::Retry);
    }
    if may_skip {
        allowed.push(Action::Skip);
    }
    allowed.push(Action::Abort);
    let tried = request.retry_count;
    let (first, why) = if passing && may_retry {
        (Action::Retry, "such a failure may pass by itself".to_owned())
    } else if may_skip && tried == 0 {
        (Action::Retry, format!("{stage} failed for the first time"))
    } else if may_skip {
        let why =
            format!("{stage} failed again after {tried} new tries, and the run can do without");
        (Action::Skip, why)
    } else {
        let why = format!("{stage} would fail again in the same way ({tried} new tries)");
        (Action::Abort, why)
    };
    let clear = (passing && may_retry) || allowed.len() == 1;
    Options { allowed, first, clear, why }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    action: Action,
    reasoning: String,
}

pub(super) async fn advise(request: &ErrorRecoveryRequest, asked: &Asked<'_>) -> Advice {
    let Options { allowed, first, clear, why } = options(request);
    if clear {
        return Advice::Recovery { action: first, reasoning: why };
    }
    let names: Vec<String> = allowed.iter().map(|action| json!(action).to_string()).collect();
    let system = format!(
        "A stage of an automatic pipeline failed. Choose how to go on, from: {}. Retry only what \
         may pass the next time; skip only what the result can do without; else abort. Answer with \
         nothing but JSON: {{\"action\": …, \"reasoning\": \"one sentence\"}}",
        names.join(", ")
    );
    let data = json!({
        "stage": request.failed_stage, "error": request.error_message,
        "retries_so_far": request.retry_count, "run": request.task_summary,
        "stage_output": request.stage_output,
    });
    match asked.ask::<Choice>(&system, &data).await {
        Ok(choice) if allowed.contains(&choice.action) => {
            Advice::Recovery { action: choice.action, reasoning: reason(&choice.reasoning) }
        }
        Ok(choice) => {
            let reasoning =
                format!("{why}; a model's advice, {}, is not allowed", json!(choice.action));
            Advice::Recovery { action: first, reasoning }
        }
        Err(_) => Advice::Recovery { action: first, reasoning: why },
    }
}
