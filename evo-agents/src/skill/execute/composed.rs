//! Calls the skills of a composed one, step by step.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use evo_common::skill::Composition;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use super::{CallAnswer, CallError, CallPolicy, Executor, input};
use crate::skill::{
    composition::{Reference, escaped, reference},
    package::{Kind, Package},
    steps,
};

/// Composed skills inside of composed ones.
const MAX_DEPTH: u32 = 4;
/// Most calls of skills in one call.
const MAX_CALLS: u32 = 64;
/// Longest part of a message that is repeated.
const EXCERPT: usize = 400;

/// How deep a call is, and how many there were.
#[derive(Clone, Copy)]
pub(super) struct Depth<'c> {
    level: u32,
    calls: &'c AtomicU32,
}

impl<'c> Depth<'c> {
    pub(super) fn new(calls: &'c AtomicU32) -> Self {
        Self { level: 0, calls }
    }
}

/// Checks what can be known before the first step: the input, and that every step's skill is there.
pub(super) fn check(
    package: &Package,
    composition: &Composition,
    given: &Map<String, Value>,
    policy: &CallPolicy,
) -> Result<Map<String, Value>, CallError> {
    let input = input::check(&package.manifest.inputs, given)?;
    let gone = composition.skills().into_iter().find(|name| policy.parts.get(name).is_none());
    if let Some(name) = gone {
        return Err(CallError::InvalidPackage(format!("its step {name} is not active")));
    }
    match composition.skills().into_iter().find_map(|name| beyond(name, composition, policy)) {
        Some(message) => Err(CallError::InvalidPackage(message)),
        None => Ok(input),
    }
}

/// Why a step's skill may not be called any more, if so: it could do by now what none of the steps
/// could do when the whole was measured.
fn beyond(name: &str, composition: &Composition, policy: &CallPolicy) -> Option<String> {
    if composition.classes.is_empty() {
        return None;
    }
    let classes = policy.parts.get(name)?.package.classes();
    let new = classes.into_iter().find(|class| !composition.classes.contains(class))?;
    let known: Vec<&str> = composition.classes.iter().map(|class| class.as_str()).collect();
    Some(format!(
        "its step {name} is of the class `{}` by now, and it was measured with steps of the class `{}`; \
         build it anew",
        new.as_str(),
        known.join("`, `")
    ))
}

/// Calls the steps in order. An answer of a step that is no success is the answer of the whole, with
/// the name of the step.
pub(super) async fn call(
    executor: &Executor,
    package: &Package,
    composition: &Composition,
    given: &Map<String, Value>,
    policy: &CallPolicy,
    depth: Depth<'_>,
) -> Result<CallAnswer, CallError> {
    if depth.level >= MAX_DEPTH {
        let message = format!("composed skills call each other more than {MAX_DEPTH} levels deep");
        return Err(CallError::InvalidPackage(message));
    }
    let input = check(package, composition, given, policy)?;
    let limit = package.call.timeout_ms.min(policy.timeout_cap_ms.unwrap_or(u64::MAX)).max(1);
    let started = Instant::now();
    let ends = started + Duration::from_millis(limit);
    let mut known = json!({"input": input, "steps": []});
    for (index, step) in composition.steps.iter().enumerate() {
        let failed = |code: &'static str, message: &str| CallError::Step {
            number: index + 1,
            skill: step.skill.clone(),
            code,
            message: message.chars().take(EXCERPT).collect(),
        };
        let part = policy.parts.get(&step.skill);
        let part = part.ok_or_else(|| failed("invalid_package", "it is not active"))?;
        if depth.calls.fetch_add(1, Ordering::Relaxed) >= MAX_CALLS {
            let message = format!("more than {MAX_CALLS} calls of skills in one call");
            return Err(failed("limit_reached", &message));
        }
        let mut input = step.fixed.clone().into_iter().collect::<Map<String, Value>>();
        for (name, pointer) in &step.input {
            match known.pointer(pointer) {
                Some(value) => {
                    input.insert(name.clone(), value.clone());
                }
                // What was not given is not passed on.
                None if is_left_out(package, pointer) => {}
                None => {
                    let message = format!("there is nothing at {pointer} for its input {name}");
                    return Err(failed("step_failed", &message));
                }
            }
        }
        if depth.level == 0 {
            let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            let of = Some(number(composition.steps.len()));
            steps::tell(number(index + 1), of, &step.skill).await;
        }
        let left = ends.saturating_duration_since(Instant::now());
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        let policy = CallPolicy {
            timeout_cap_ms: Some(left_ms),
            parts: policy.parts.clone(),
            ..part.policy.clone()
        };
        let deeper = Depth { level: depth.level + 1, ..depth };
        let work = executor.call_at(&part.package, &input, &policy, deeper);
        let answer = match timeout_at(ends, Box::pin(work)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(CallError::Timeout { .. })) | Err(_) => {
                return Err(failed("timeout", &format!("no complete answer within {limit} ms")));
            }
            // The caller's own input was right.
            Ok(Err(error @ CallError::InvalidInput { .. })) => {
                return Err(failed("step_failed", &error.to_string()));
            }
            Ok(Err(error)) => return Err(failed(error.code(), &error.to_string())),
        };
        if !is_success(&part.package, answer.status) {
            let error = json!({
                "step": index + 1, "skill": step.skill, "status": answer.status,
                "body": answer.body,
            });
            return Ok(answer_of(answer.status, json!({"error": error}), started));
        }
        let steps = known["steps"].as_array_mut().expect("a list was put there");
        steps.push(json!({"status": answer.status, "body": answer.body}));
    }
    let last = format!("/steps/{}/body", composition.steps.len() - 1);
    let pointer = composition.output.as_deref().unwrap_or(&last);
    let Some(body) = known.pointer(pointer).cloned() else {
        let skill = composition.steps.last().map(|step| step.skill.clone()).unwrap_or_default();
        return Err(CallError::Step {
            number: composition.steps.len(),
            skill,
            code: "step_failed",
            message: format!("there is nothing at {pointer}, where the answer should be"),
        });
    };
    Ok(answer_of(200, body, started))
}

fn answer_of(status: u16, body: Value, started: Instant) -> CallAnswer {
    CallAnswer {
        status,
        content_type: Some("application/json".to_owned()),
        bytes: body.to_string().len() as u64,
        body,
        latency: started.elapsed(),
        allow: Vec::new(),
    }
}

/// Whether it refers to an optional input.
fn is_left_out(package: &Package, pointer: &str) -> bool {
    let Some(Reference::Input(name)) = reference(pointer) else { return false };
    package.manifest.inputs.iter().any(|input| !input.required && escaped(&input.name) == name)
}

fn is_success(package: &Package, status: u16) -> bool {
    let declared = &package.call.success;
    if package.kind == Kind::Http && !declared.is_empty() {
        return declared.contains(&status);
    }
    (200..300).contains(&status)
}

#[cfg(test)]
mod tests;
