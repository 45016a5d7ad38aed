//! Pre-load of a skill with code: it is scanned, and run once in the sandbox with its first case.

use evo_common::{
    config::SourceConfig,
    messages::HealthCheck,
    outcome::{Outcome, codes},
    stage::PreLoadOutput,
};

use super::{super::policy_of, Gate, PROBE_TIMEOUT_MS, PROBES, safe, valid, whole_ms};
use crate::{
    evaluation::compare::percentile,
    handler::{StageError, StageJob},
    skill::{
        execute::{CallError, CallPolicy},
        package::Package,
    },
};

/// The gates of a package with code.
pub(super) async fn check(
    job: &StageJob,
    source: &SourceConfig,
    package: &Package,
    output: &mut PreLoadOutput,
) -> Result<Gate, StageError> {
    if let Err(outcome) =
        valid(package, &job.context).and_then(|()| safe(&output.findings, &job.context))
    {
        return Ok(Err(outcome));
    }
    let entry = match &package.runtime {
        Some(runtime) => runtime.entry.clone(),
        None => {
            let reason = "config.toml has no table [runtime] with the `entry` of its code";
            return Ok(Err(Outcome::discarded(codes::INVALID_PACKAGE, reason)));
        }
    };
    let Some(case) = job.context.train_cases.iter().find(|case| !case.expect.refusal) else {
        let reason = "there is no case to try it with";
        return Ok(Err(Outcome::held(codes::NO_ORACLE, reason)));
    };
    let policy =
        CallPolicy { timeout_cap_ms: Some(PROBE_TIMEOUT_MS), ..policy_of(&job.context, source) };
    let mut health = HealthCheck {
        name: "code".to_owned(),
        endpoint: entry,
        healthy: false,
        latency_ms: None,
        error: None,
    };
    let mut latencies = Vec::new();
    let mut gate = Ok(());
    for _ in 0..PROBES {
        let result = tokio::select! {
            () = job.services.cancel.cancelled() => {
                return Err(StageError::transient("Pre-load was cancelled"));
            }
            result = job.services.executor.call(package, &case.input, &policy) => result,
        };
        match result {
            Ok(answer) => {
                health.healthy = true;
                latencies.push(answer.latency.as_secs_f64() * 1_000.0);
            }
            Err(error) => {
                health.healthy = false;
                let text = evo_common::redact::redact(&error.to_string()).into_owned();
                health.error = Some(text.clone());
                gate = Err(outcome_of(&error, text));
                break;
            }
        }
    }
    health.latency_ms = latencies.first().map(|ms| whole_ms(*ms));
    output.probe_median_ms = (!latencies.is_empty()).then(|| percentile(&mut latencies, 50.0));
    output.all_healthy = health.healthy;
    output.health_results.push(health);
    Ok(gate)
}

/// A machine without a sandbox says nothing about the skill; everything else does.
fn outcome_of(error: &CallError, text: String) -> Outcome {
    match error {
        CallError::SandboxUnavailable(_) => Outcome::held(codes::SANDBOX_UNAVAILABLE, text),
        CallError::InvalidPackage(_) => Outcome::discarded(codes::INVALID_PACKAGE, text),
        _ => Outcome::discarded(codes::DRY_RUN_FAILED, text),
    }
}
