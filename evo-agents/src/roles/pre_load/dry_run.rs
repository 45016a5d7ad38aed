//! Pre-load of a package that is not compiled from an operation: it is scanned, looked through, and
//! called with its first case.

use std::time::Duration;

use evo_common::{
    config::SourceConfig,
    messages::HealthCheck,
    outcome::{Outcome, codes},
    skill::HttpMethod,
    stage::{Candidate, PreLoadOutput},
};

use super::{
    super::policy_with_parts, Gate, PROBE_TIMEOUT_MS, PROBES, observe, safe, valid, whole_ms,
};
use crate::{
    handler::{StageError, StageJob},
    skill::{
        execute::{CallError, CallPolicy},
        package::{Kind, Package},
    },
};
use serde_json::Value;

/// Pause before a server is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// The gates of a package.
pub(super) async fn check(
    job: &StageJob,
    source: &SourceConfig,
    candidate: &Candidate,
    package: &Package,
    output: &mut PreLoadOutput,
) -> Result<Gate, StageError> {
    let looked_through = valid(package)
        .and_then(|()| as_announced(package, candidate))
        .and_then(|()| safe(&output.findings, &job.context))
        .and_then(|()| allowed(package, candidate, source));
    let endpoint = match looked_through {
        Ok(endpoint) => endpoint,
        Err(outcome) => return Ok(Err(outcome)),
    };
    let Some(case) = job.context.train_cases.iter().find(|case| !case.expect.refusal) else {
        let reason = "there is no case to try it with";
        return Ok(Err(Outcome::held(codes::NO_ORACLE, reason)));
    };
    let policy = CallPolicy {
        timeout_cap_ms: Some(PROBE_TIMEOUT_MS),
        ..policy_with_parts(job, source, package).await
    };
    let gone = package.manifest.dependencies.iter().find(|name| policy.parts.get(name).is_none());
    if let Some(name) = gone {
        let reason = format!("it depends on {name}, which is not active");
        return Ok(Err(Outcome::discarded(codes::INVALID_PACKAGE, reason)));
    }
    let mut health = HealthCheck {
        name: candidate.name.clone(),
        endpoint,
        healthy: false,
        latency_ms: None,
        error: None,
    };
    let mut latencies = Vec::new();
    let mut gate = Ok(());
    for probe in 1..=PROBES {
        let result = tokio::select! {
            () = job.services.cancel.cancelled() => {
                return Err(StageError::transient("Pre-load was cancelled"));
            }
            result = job.services.executor.call(package, &case.input, &policy) => result,
        };
        match result {
            Ok(answer) => {
                health.healthy = true;
                gate = Ok(());
                latencies.push(answer.latency.as_secs_f64() * 1_000.0);
                observe(output, package, &answer);
            }
            Err(error) => {
                health.healthy = false;
                let text = evo_common::redact::redact(&error.to_string()).into_owned();
                health.error = Some(text.clone());
                gate = Err(outcome_of(&error, source, text));
                if error.code() != "unreachable" || probe == PROBES {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    health.latency_ms = latencies.first().map(|ms| whole_ms(*ms));
    output.probe_fastest_ms = latencies.iter().copied().min_by(f64::total_cmp);
    output.all_healthy = health.healthy;
    output.health_results.push(health);
    Ok(gate)
}

/// Whether it is the package of this very candidate.
fn as_announced(package: &Package, candidate: &Candidate) -> Gate {
    let invalid = |what: &str, is: &str, should: &str| {
        let reason = format!("its {what} is {is:?}, but the candidate's is {should:?}");
        Err(Outcome::discarded(codes::INVALID_PACKAGE, reason))
    };
    if package.manifest.name != candidate.name {
        return invalid("name", &package.manifest.name, &candidate.name);
    }
    let source = package.provenance.as_ref().map(|provenance| provenance.source.as_str());
    match source {
        // It says by itself whose rights its calls have.
        Some(source) if source != candidate.source => invalid("source", source, &candidate.source),
        _ => Ok(()),
    }
}

/// Whether it may be executed at all; gives what it executes.
fn allowed(package: &Package, candidate: &Candidate, source: &SourceConfig) -> Gate<String> {
    let invalid = |reason: &str| Err(Outcome::discarded(codes::INVALID_PACKAGE, reason));
    let shown = package.targets().join(", ");
    let (reads, operation) = match &package.kind {
        Kind::Code => {
            return match &package.runtime {
                Some(runtime) => Ok(runtime.entry.clone()),
                None => invalid("config.toml has no table [runtime] with the `entry` of its code"),
            };
        }
        // What its steps may do, their own sources say.
        Kind::Composed(_) => return Ok(shown),
        Kind::Mcp(call) => {
            let hint = candidate.definition.pointer("/tool/annotations/readOnlyHint");
            (hint.and_then(Value::as_bool) == Some(true), call.tool.as_str())
        }
        Kind::Http => {
            let Some(endpoint) = package.config.endpoints.first() else {
                return invalid("config.toml names no endpoint");
            };
            let operation = package.call.operation.as_str();
            // What the operator allows is an operation with its verb.
            let verb = shown.split(' ').next();
            if operation.split(' ').next() != verb && endpoint.method != HttpMethod::Get {
                return invalid("its verb is not that of the operation that it was made from");
            }
            (endpoint.method == HttpMethod::Get, operation)
        }
    };
    if reads || source.allow_operations.iter().any(|entry| entry == operation) {
        return Ok(shown);
    }
    Err(Outcome::held(
        codes::WRITE_NOT_ALLOWED,
        format!(
            "{shown} may change something; to let it be executed, add {operation:?} to allow_operations of the source {:?}",
            source.name
        ),
    ))
}

/// What says something about the machine, the network or the operator's wishes holds the candidate;
/// everything else is about the skill.
fn outcome_of(error: &CallError, source: &SourceConfig, text: String) -> Outcome {
    match error.code() {
        "sandbox_unavailable" => Outcome::held(codes::SANDBOX_UNAVAILABLE, text),
        "unreachable" => {
            Outcome::held(codes::UNREACHABLE, format!("not reached in {PROBES} tries: {text}"))
        }
        "origin_not_allowed" => Outcome::held(
            codes::ORIGIN_NOT_ALLOWED,
            format!(
                "{text}; the operator can list it under allow_origins of the source {:?}",
                source.name
            ),
        ),
        "auth_missing" | "auth_not_allowed" => Outcome::held(codes::AUTH_MISSING, text),
        "invalid_package" => Outcome::discarded(codes::INVALID_PACKAGE, text),
        "streaming_only" => Outcome::discarded(codes::STREAMING_ONLY, text),
        _ => Outcome::discarded(codes::DRY_RUN_FAILED, text),
    }
}
