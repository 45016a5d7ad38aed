//! Runs the code of a skill in the sandbox: its input as JSON on standard input, its output as JSON
//! on standard output.

use std::time::Duration;

use evo_common::skill::CodeRuntime;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{CallAnswer, CallError, CallPolicy, input};
use crate::{
    sandbox::{
        Egress, Ended, Error, Folder, Limit, Sandbox,
        interpreter::Language,
        policy::{HostRule, Limits, Policy},
    },
    skill::package::Package,
};

/// Longest part of what code wrote that is repeated.
const EXCERPT: usize = 600;

/// The table that says how the code is run, and the checked input.
pub(super) fn check<'a>(
    package: &'a Package,
    given: &Map<String, Value>,
) -> Result<(&'a CodeRuntime, Map<String, Value>), CallError> {
    let runtime = package.runtime.as_ref().ok_or_else(|| {
        CallError::InvalidPackage(
            "it holds code, but config.toml has no table [runtime] with its `entry`".to_owned(),
        )
    })?;
    Ok((runtime, input::check(&package.manifest.inputs, given)?))
}

/// Runs the code once.
pub(super) async fn call(
    sandbox: &Sandbox,
    package: &Package,
    given: &Map<String, Value>,
    call_policy: &CallPolicy,
) -> Result<CallAnswer, CallError> {
    let (runtime, input) = check(package, given)?;
    let invalid = |error: &dyn std::fmt::Display| CallError::InvalidPackage(error.to_string());
    let language = Language::parse(&runtime.interpreter).map_err(|error| invalid(&error))?;
    let interpreter = sandbox
        .interpreter(language)
        .await
        .map_err(|error| CallError::SandboxUnavailable(error.to_string()))?;
    let hosts = runtime.network.iter().map(|host| HostRule::parse(host));
    let hosts: Vec<HostRule> = hosts.collect::<Result<_, _>>().map_err(|error| invalid(&error))?;
    let folder = Folder::new(&package.files).map_err(|error| {
        CallError::SandboxUnavailable(format!("its files can't be written: {error}"))
    })?;

    let mut policy = Policy::new(interpreter, &runtime.entry, folder.path().to_owned());
    policy.limits = Limits::of(runtime);
    if let Some(cap) = call_policy.timeout_cap_ms {
        policy.limits.wall_ms = policy.limits.wall_ms.min(cap).max(1);
    }
    policy.limits.output_bytes = package.call.max_response_bytes;
    let egress = (!hosts.is_empty()).then(|| Egress { hosts, policy: call_policy.clone() });
    let input = if call_policy.reordered { input.into_iter().rev().collect() } else { input };
    let text = Value::Object(input).to_string();
    let started = Instant::now();
    let ended = sandbox.run(&policy, text.as_bytes(), egress.as_ref()).await;
    let latency = started.elapsed();
    answer(ended, &policy.limits, latency)
}

/// What an ending means for the caller.
fn answer(
    ended: Result<Ended, Error>,
    limits: &Limits,
    latency: Duration,
) -> Result<CallAnswer, CallError> {
    let ended = match ended {
        Ok(ended) => ended,
        Err(Error::Limit(limit)) => return Err(reached(limit, limits, "")),
        Err(error) => return Err(CallError::SandboxUnavailable(error.to_string())),
    };
    if let Some(limit) = ended.limit {
        return Err(reached(limit, limits, &ended.stderr));
    }
    let hint = hint(&ended);
    let how = match (ended.code, ended.signal) {
        (Some(0), _) => None,
        // A system call that no skill makes.
        (_, Some(31)) => Some("it made a system call that is not allowed".to_owned()),
        (_, Some(signal)) => Some(format!("it was ended by signal {signal}")),
        (code, None) => Some(format!("exit code {}", code.unwrap_or(-1))),
    };
    if let Some(how) = how {
        let said = excerpt(&ended.stderr);
        let said = if said.is_empty() { said } else { format!(": {said}") };
        return Err(CallError::CodeFailed(format!("{how}{said}{hint}")));
    }
    let bytes = ended.stdout.len() as u64;
    let body = serde_json::from_slice(ended.stdout.trim_ascii()).map_err(|error| {
        let text = excerpt(&String::from_utf8_lossy(&ended.stdout));
        let what = if text.is_empty() { "it wrote nothing".to_owned() } else { text };
        CallError::NotJson(format!("{error}; it wrote: {what}{hint}"))
    })?;
    Ok(CallAnswer {
        status: 200,
        content_type: Some("application/json".to_owned()),
        body,
        bytes,
        latency,
        allow: Vec::new(),
    })
}

fn reached(limit: Limit, limits: &Limits, stderr: &str) -> CallError {
    let said = excerpt(stderr);
    let said = if said.is_empty() { said } else { format!("; it wrote: {said}") };
    let mib = |bytes: u64| bytes / (1024 * 1024);
    match limit {
        Limit::Wall => CallError::Timeout { ms: limits.wall_ms },
        Limit::Output => CallError::TooLarge { limit: limits.output_bytes },
        Limit::Cpu => CallError::LimitReached(format!(
            "it used more than {} s of processor time{said}",
            limits.cpu_seconds
        )),
        Limit::Memory => CallError::LimitReached(format!(
            "it took more than {} MiB of memory; `memory_mb` in [runtime] asks for more{said}",
            mib(limits.memory_bytes)
        )),
        Limit::Scratch => CallError::LimitReached(format!(
            "it wrote more than {} MiB of files{said}",
            mib(limits.scratch_bytes)
        )),
    }
}

/// What the proxy did not let through is the likely reason of a failure.
fn hint(ended: &Ended) -> String {
    match ended.refused.as_slice() {
        [] => String::new(),
        refused => format!("; its requests were refused: {}", refused.join("; ")),
    }
}

/// The end of what code wrote, without secrets: the last line of a traceback says most.
fn excerpt(text: &str) -> String {
    let masked = evo_common::redact::redact(text.trim());
    let count = masked.chars().count();
    masked.chars().skip(count.saturating_sub(EXCERPT)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ended(code: Option<i32>, stdout: &str, stderr: &str) -> Ended {
        Ended {
            code,
            signal: code.is_none().then_some(31),
            limit: None,
            cpu_ms: 1,
            stdout: stdout.as_bytes().to_vec(),
            stderr: stderr.to_owned(),
            refused: Vec::new(),
        }
    }

    fn said(ended: Ended) -> Result<Value, (&'static str, String)> {
        answer(Ok(ended), &Limits::default(), Duration::ZERO)
            .map(|answer| answer.body)
            .map_err(|error| (error.code(), error.to_string()))
    }

    #[test]
    fn an_ending_says_what_went_wrong() {
        assert_eq!(said(ended(Some(0), " {\"a\": 1}\n", "warning")), Ok(json!({"a": 1})));
        let (code, text) = said(ended(Some(3), "{}", "Traceback\nKeyError: 'x'")).unwrap_err();
        assert_eq!(code, "code_failed");
        assert!(text.contains("exit code 3") && text.ends_with("KeyError: 'x'"), "{text}");
        let (code, text) = said(ended(None, "", "")).unwrap_err();
        assert_eq!(code, "code_failed");
        assert!(text.contains("system call"), "{text}");
        let (code, text) = said(ended(Some(0), "hello", "")).unwrap_err();
        assert_eq!(code, "output_not_json");
        assert!(text.contains("hello"), "{text}");

        let refused = vec!["evil.example:443 is not in `network`".to_owned()];
        let (_, text) = said(Ended { refused, ..ended(Some(1), "", "URLError") }).unwrap_err();
        assert!(text.contains("evil.example"), "{text}");
    }

    #[test]
    fn limits_are_told_with_their_number() {
        let told = |limit| {
            let ended = Ended { limit: Some(limit), ..ended(None, "", "") };
            said(ended).unwrap_err()
        };
        assert_eq!(told(Limit::Wall).0, "timeout");
        assert_eq!(told(Limit::Output).0, "too_large");
        let (code, text) = told(Limit::Memory);
        assert_eq!(code, "limit_reached");
        assert!(text.contains("256 MiB"), "{text}");
    }

    #[test]
    fn secrets_in_a_traceback_are_masked() {
        let text = excerpt("RuntimeError: token sk-abcdefghijklmnopqrstuvwxyz0123456789ABCDEF");
        assert!(!text.contains("sk-abcdefghijklmnop"), "{text}");
    }
}
