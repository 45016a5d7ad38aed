//! Pre-load of a skill that calls a tool of an MCP server: the server introduces itself, still lists
//! the tool as it was learned, and answers its first case.

use evo_common::{
    case::Case,
    config::SourceConfig,
    messages::HealthCheck,
    outcome::{Outcome, codes},
    stage::{Candidate, PreLoadOutput},
};

use super::{
    super::policy_of, Gate, PAUSE, PROBE_TIMEOUT_MS, PROBES, difference, ended_by, observe, safe,
    valid, version_of, whole_ms,
};
use crate::{
    evaluation::trials::{Cancelled, pause},
    handler::{StageError, StageJob},
    skill::{
        execute::{CallError, CallPolicy},
        package::Package,
    },
    sources::mcp::{self, Definition},
};

/// The gates of a tool.
pub(super) async fn check(
    job: &StageJob,
    candidate: &Candidate,
    source: &SourceConfig,
    package: &Package,
    output: &mut PreLoadOutput,
) -> Result<Gate, StageError> {
    let definition: Definition =
        serde_json::from_value(candidate.definition.clone()).map_err(|error| {
            StageError::permanent(format!("`metadata.candidate.definition` can't be read: {error}"))
        })?;
    let tool = Tool { job, candidate, source, package, definition: &definition };
    let case = match tool.before_the_call(output) {
        Ok(case) => case,
        Err(outcome) => return Ok(Err(outcome)),
    };
    let reached = async {
        match tool.listed(output).await? {
            Ok(()) => tool.probe(case, output).await,
            closed => Ok(closed),
        }
    };
    reached.await.map_err(|Cancelled| StageError::transient("Pre-load was cancelled"))
}

struct Tool<'a> {
    job: &'a StageJob,
    candidate: &'a Candidate,
    source: &'a SourceConfig,
    package: &'a Package,
    definition: &'a Definition,
}

impl<'a> Tool<'a> {
    fn before_the_call(&self, output: &PreLoadOutput) -> Gate<&'a Case> {
        let context = &self.job.context;
        valid(self.package)?;
        self.as_defined()?;
        safe(&output.findings, context)?;
        self.definition.write(self.source)?;
        self.definition.with_cases()?;
        context.train_cases.iter().find(|case| !case.expect.refusal).ok_or_else(|| {
            Outcome::held(codes::NO_ORACLE, "there is no case to try it with".to_owned())
        })
    }

    fn policy(&self) -> CallPolicy {
        CallPolicy {
            timeout_cap_ms: Some(PROBE_TIMEOUT_MS),
            ..policy_of(&self.job.context, self.source)
        }
    }

    /// Whether the package is what its definition compiles to, and calls its own source's server.
    fn as_defined(&self) -> Gate {
        let invalid = |reason: String| Err(Outcome::discarded(codes::INVALID_PACKAGE, reason));
        if self.definition.server != self.source.name {
            return invalid(format!(
                "its tool is one of {:?}, and its source is {:?}",
                self.definition.server, self.source.name
            ));
        }
        let version = version_of(&self.job.context);
        let built = mcp::package::build(self.candidate, self.definition, version, &[], None)
            .map_err(|error| error.to_string())
            .and_then(|built| Package::from_files(built.files).map_err(|error| error.to_string()));
        match built {
            Err(error) => invalid(format!("its definition can't be compiled: {error}")),
            Ok(expected) => match difference(self.package, &expected) {
                Some((what, is, should)) => invalid(format!(
                    "its {what} is {is}, but the definition of {} compiles to {should}",
                    self.candidate.name
                )),
                None => Ok(()),
            },
        }
    }

    /// Whether the server is there and lists the tool as it was learned.
    async fn listed(&self, output: &mut PreLoadOutput) -> Result<Gate, Cancelled> {
        let name = &self.definition.tool.name;
        let mut health = HealthCheck {
            name: name.clone(),
            endpoint: format!("mcp {}/{name}", self.source.name),
            healthy: false,
            latency_ms: None,
            error: None,
        };
        let policy = self.policy();
        let mut gate = Ok(());
        for probe in 1..=PROBES {
            let listed = tokio::select! {
                () = self.job.services.cancel.cancelled() => return Err(Cancelled),
                listed = self.job.services.executor.list_tools(&policy) => listed,
            };
            match listed {
                Ok(listing) => {
                    gate = match listing.tools.iter().find(|tool| tool.name == *name) {
                        Some(tool) if *tool == self.definition.tool => Ok(()),
                        Some(_) => Err(Outcome::discarded(
                            codes::INVALID_PACKAGE,
                            format!(
                                "the server describes the tool {name:?} differently by now; the next cycle learns it anew"
                            ),
                        )),
                        None => Err(Outcome::held(
                            codes::UNREACHABLE,
                            format!("the server does not list the tool {name:?} any more"),
                        )),
                    };
                    health.healthy = gate.is_ok();
                    health.error = gate.as_ref().err().map(|outcome| outcome.reason.clone());
                    break;
                }
                Err(error) => {
                    let text = evo_common::redact::redact(&error.to_string()).into_owned();
                    gate = Err(ended_by(self.source, &error).unwrap_or_else(|| {
                        Outcome::held(codes::UNREACHABLE, format!("not reached: {text}"))
                    }));
                    health.error = Some(text);
                    let again =
                        matches!(error, CallError::Unreachable(_) | CallError::Timeout { .. });
                    if !again || probe == PROBES {
                        break;
                    }
                    pause(PAUSE, &self.job.services.cancel).await?;
                }
            }
        }
        output.all_healthy = health.healthy;
        output.health_results.push(health);
        Ok(gate)
    }

    /// Calls the first case as often as it takes to know how fast the tool is.
    async fn probe(&self, case: &Case, output: &mut PreLoadOutput) -> Result<Gate, Cancelled> {
        let policy = self.policy();
        let mut latencies = Vec::new();
        let mut gate = Ok(());
        for _ in 0..PROBES {
            let result = tokio::select! {
                () = self.job.services.cancel.cancelled() => return Err(Cancelled),
                result = self.job.services.executor.call(self.package, &case.input, &policy) => result,
            };
            match result {
                Ok(answer) => {
                    latencies.push(answer.latency.as_secs_f64() * 1_000.0);
                    observe(output, self.package, &answer);
                }
                Err(error) => {
                    // Whether it is too slow or breaks, Evaluation says.
                    gate = ended_by(self.source, &error).map_or(Ok(()), Err);
                    break;
                }
            }
        }
        if let Some(health) = output.health_results.last_mut() {
            health.latency_ms = latencies.first().map(|ms| whole_ms(*ms));
        }
        output.probe_fastest_ms = latencies.iter().copied().min_by(f64::total_cmp);
        Ok(gate)
    }
}
