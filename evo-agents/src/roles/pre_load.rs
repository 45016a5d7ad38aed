//! Pre-load: what can be known about a package before it is tested. The first gate that does not
//! open ends the candidate.

mod dry_run;
mod tool;

use std::time::Duration;

use evo_common::{
    case::Case,
    config::SourceConfig,
    messages::{HealthCheck, PipelineStage},
    outcome::{Outcome, codes},
    skill::{SkillIO, is_valid_name},
    stage::{Candidate, CandidateKind, Finding, PreLoadOutput, Severity, StageContext},
};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::{
    candidate_of, done, expect_stage, is_operation, operation_of, package_of, policy_of, source_of,
    version_of,
};
use crate::{
    evaluation::trials::{Cancelled, pause},
    handler::{AgentHandler, StageDone, StageError, StageJob},
    scan,
    skill::{
        execute::{CallAnswer, CallError, CallPolicy, GATEWAY_TOKEN, VIEWER_TOKEN},
        package::Package,
    },
    sources::openapi::{operation::Operation, package},
    wording,
};

/// Types that an input or output may have.
const IO_TYPES: [&str; 7] = ["string", "integer", "number", "boolean", "array", "object", "any"];
/// Tries to reach a server, and calls that measure it.
const PROBES: u32 = 3;
/// Pause before another try.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest probe.
const PROBE_TIMEOUT_MS: u64 = 5_000;

/// Handler of the stage Pre-load.
#[derive(Debug, Clone, Copy)]
pub struct PreLoad;

impl AgentHandler for PreLoad {
    fn stage(&self, job: StageJob) -> BoxFuture<'_, Result<StageDone, StageError>> {
        Box::pin(async move {
            expect_stage(&job, PipelineStage::PreLoad)?;
            let mut output = PreLoadOutput::default();
            output.outcome = check(&job, &mut output).await?.err();
            Ok(done(job.artifact_id, &output))
        })
    }
}

/// A gate: open, or how the candidate ends.
type Gate<T = ()> = Result<T, Outcome>;

async fn check(job: &StageJob, output: &mut PreLoadOutput) -> Result<Gate, StageError> {
    let context = &job.context;
    let candidate = candidate_of(context)?;
    let source = source_of(context, candidate)?;
    let package = match package_of(job).await? {
        Ok(package) => package,
        Err(reason) => return Ok(Err(Outcome::discarded(codes::INVALID_PACKAGE, reason))),
    };
    // It takes the processor for long enough to make the probes of others look slow.
    let files = package.files.clone();
    let scanned = tokio::task::spawn_blocking(move || scan::scan_files(&files)).await;
    output.findings =
        scanned.map_err(|error| StageError::transient(format!("the scan ended: {error}")))?;
    if candidate.kind == CandidateKind::Mcp {
        return tool::check(job, candidate, source, &package, output).await;
    }
    if !candidate.kind.is_openapi() || package.manifest.has_code && !is_operation(candidate) {
        return dry_run::check(job, source, candidate, &package, output).await;
    }
    let operation = operation_of(candidate)?;
    let gates = Gates { job, context, candidate, source, package: &package, operation: &operation };
    if let Err(outcome) = gates.before_the_call(output) {
        return Ok(Err(outcome));
    }
    let case = match gates.first_case() {
        Ok(case) => case,
        Err(outcome) => return Ok(Err(outcome)),
    };
    let reached = gates.health(case, output).await;
    Ok(match reached.map_err(|Cancelled| StageError::transient("Pre-load was cancelled"))? {
        Ok(()) => gates.oracle(),
        Err(outcome) => Err(outcome),
    })
}

struct Gates<'a> {
    job: &'a StageJob,
    context: &'a StageContext,
    candidate: &'a Candidate,
    source: &'a SourceConfig,
    package: &'a Package,
    operation: &'a Operation,
}

impl<'a> Gates<'a> {
    fn before_the_call(&self, output: &PreLoadOutput) -> Gate {
        valid(self.package)?;
        self.as_defined()?;
        safe(&output.findings, self.context)?;
        self.operation.streams().map_or(Ok(()), Err)?;
        self.write()?;
        self.auth()
    }

    fn policy(&self) -> CallPolicy {
        CallPolicy {
            timeout_cap_ms: Some(PROBE_TIMEOUT_MS),
            ..policy_of(self.context, self.source)
        }
    }

    /// Whether the package is what its definition compiles to. The gates below look at the
    /// definition, so a package that calls something else would go past them.
    fn as_defined(&self) -> Gate {
        let invalid = |reason: String| Err(Outcome::discarded(codes::INVALID_PACKAGE, reason));
        if let Some(problem) = &self.operation.problem {
            return Err(problem.clone());
        }
        let version = version_of(self.context);
        let built = package::build(self.candidate, self.operation, version, &[], None)
            .map_err(|error| error.to_string())
            .and_then(|built| Package::from_files(built.files).map_err(|error| error.to_string()));
        let mut expected = match built {
            Ok(expected) => expected,
            Err(error) => return invalid(format!("its definition can't be compiled: {error}")),
        };
        if let Some(provenance) = &self.package.provenance {
            let (compiled, built) = (&mut expected.manifest, &self.package.manifest);
            wording::overlay(compiled, built, &provenance.written, self.operation);
        }
        match difference(self.package, &expected) {
            Some((what, is, should)) => invalid(format!(
                "its {what} is {is}, but the definition of {} compiles to {should}",
                self.candidate.name
            )),
            None => Ok(()),
        }
    }

    /// Whether it may be executed at all. If not, its request is still built, so that a package
    /// that is broken does not wait for leave.
    fn write(&self) -> Gate {
        let Some(leave) = self.operation.write(self.source) else { return Ok(()) };
        let input = self.some_input();
        if let Err(CallError::InvalidPackage(reason)) =
            self.job.services.executor.check(self.package, &input, &self.policy())
        {
            return Err(Outcome::discarded(codes::INVALID_PACKAGE, reason));
        }
        Err(leave)
    }

    fn auth(&self) -> Gate {
        if self.operation.auth.is_none() {
            return Ok(());
        }
        self.operation.unusable_auth().map_or(Ok(()), Err)?;
        let checked =
            self.job.services.executor.check(self.package, &self.some_input(), &self.policy());
        match checked {
            Err(error @ (CallError::AuthMissing { .. } | CallError::AuthNotAllowed { .. })) => {
                Err(auth_outcome(self.source, &error))
            }
            _ => Ok(()),
        }
    }

    /// Some value for every required input, to build a request that is not sent.
    fn some_input(&self) -> Map<String, Value> {
        let declared = |name: &str| {
            let parameter = self.operation.parameters.iter().find(|p| p.input == name)?;
            parameter.samples.first().map(|sample| sample.value.clone())
        };
        let required = self.package.manifest.inputs.iter().filter(|input| input.required);
        required
            .map(|input| {
                let value = declared(&input.name).unwrap_or_else(|| match input.r#type.as_str() {
                    "integer" | "number" => json!(1),
                    "boolean" => json!(true),
                    "array" => json!(["x"]),
                    "object" => json!({}),
                    _ => json!("x"),
                });
                (input.name.clone(), value)
            })
            .collect()
    }

    /// The case to probe with.
    fn first_case(&self) -> Gate<&'a Case> {
        self.operation.not_tried().map_or(Ok(()), Err)?;
        self.context.train_cases.iter().find(|case| !case.expect.refusal).ok_or_else(|| {
            Outcome::held(codes::NO_ORACLE, "there is no case to try it with".to_owned())
        })
    }

    /// Calls the first case: up to three tries to reach the server, then as many calls as it takes
    /// to know how fast it is.
    async fn health(&self, case: &Case, output: &mut PreLoadOutput) -> Result<Gate, Cancelled> {
        let policy = self.policy();
        let executor = &self.job.services.executor;
        let endpoint = self.package.config.endpoints.first();
        let mut health = HealthCheck {
            name: endpoint.map_or_else(|| "call".to_owned(), |endpoint| endpoint.name.clone()),
            endpoint: format!("{} {}", self.operation.method, self.operation.url),
            healthy: false,
            latency_ms: None,
            error: None,
        };
        let mut latencies = Vec::new();
        let mut gate = Ok(());
        for probe in 1..=PROBES {
            let result = tokio::select! {
                () = self.job.services.cancel.cancelled() => return Err(Cancelled),
                result = executor.call(self.package, &case.input, &policy) => result,
            };
            match result {
                Ok(answer) => {
                    health.healthy = true;
                    health.error = None;
                    latencies.push(answer.latency.as_secs_f64() * 1_000.0);
                    observe(output, self.package, &answer);
                    if matches!(answer.status, 401 | 403) {
                        gate = Err(self.not_usable(answer.status));
                        break;
                    }
                }
                Err(CallError::Unreachable(reason)) => {
                    health.error = Some(reason.clone());
                    if health.healthy {
                        continue;
                    }
                    gate = Err(self.unreachable(&reason));
                    if probe < PROBES {
                        pause(PAUSE, &self.job.services.cancel).await?;
                    }
                    continue;
                }
                Err(error) => {
                    health.error =
                        Some(evo_common::redact::redact(&error.to_string()).into_owned());
                    match ended_by(self.source, &error) {
                        Some(outcome) => gate = Err(outcome),
                        // There is a server; whether it is too slow, Evaluation says.
                        None => {
                            health.healthy = true;
                            gate = Ok(());
                        }
                    }
                    break;
                }
            }
            gate = Ok(());
        }
        health.latency_ms = latencies.first().map(|ms| whole_ms(*ms));
        output.probe_fastest_ms = latencies.iter().copied().min_by(f64::total_cmp);
        output.all_healthy = health.healthy;
        output.health_results.push(health);
        Ok(gate)
    }

    fn unreachable(&self, reason: &str) -> Outcome {
        let without_address = self
            .operation
            .server
            .as_ref()
            .is_some_and(|server| !self.context.servers.contains_key(server));
        let reason = if without_address {
            format!(
                "the document names no server address; set base_url of the source {:?}",
                self.source.name
            )
        } else {
            format!("not reached in {PROBES} tries: {}", evo_common::redact::redact(reason))
        };
        Outcome::held(codes::UNREACHABLE, reason)
    }

    fn not_usable(&self, status: u16) -> Outcome {
        let what = match &self.operation.auth {
            Some(auth) => format!("the token in {} is not accepted", auth.auth_ref),
            None => format!(
                "it wants a login that the document does not declare; set auth_ref and allow_env of the source {:?} if you have a token",
                self.source.name
            ),
        };
        Outcome::held(
            codes::AUTH_MISSING,
            format!("reachable but not usable (HTTP {status}): {what}"),
        )
    }

    /// Whether anything tells a right answer from a wrong one.
    fn oracle(&self) -> Gate {
        self.operation.without_oracle(&self.context.train_cases).map_or(Ok(()), Err)
    }
}

/// Remembers what a right answer of a probe looked like.
fn observe(output: &mut PreLoadOutput, package: &Package, answer: &CallAnswer) {
    let declared = &package.call.success;
    let right = if declared.is_empty() {
        (200..300).contains(&answer.status)
    } else {
        declared.contains(&answer.status)
    };
    if !right {
        return;
    }
    let observed = output.observed.get_or_insert_default();
    // What contradicts the first answer is no example of the same thing; Evaluation will see it.
    if observed.check(&answer.body, &|_| false).is_ok() {
        observed.note(&answer.body);
    }
}

fn auth_outcome(of: &SourceConfig, error: &CallError) -> Outcome {
    let source = &of.name;
    let reason = match error {
        CallError::AuthMissing { name }
            if [VIEWER_TOKEN, GATEWAY_TOKEN].contains(&name.as_str()) =>
        {
            format!("this runner was given no {name}")
        }
        CallError::AuthMissing { name } => {
            format!("set the environment variable {name} for the runner of the stages")
        }
        CallError::AuthNotAllowed { name, host } if of.allow_env.contains(name) => {
            format!(
                "the token {name} may not be sent to {host}: add its origin to allow_origins of the source {source:?} if the token is meant for it"
            )
        }
        CallError::AuthNotAllowed { name, host } => format!(
            "the token {name} may not be sent to {host}: add {name:?} to allow_env of the source {source:?} and set it for the runner, or name another variable with auth_ref"
        ),
        other => other.to_string(),
    };
    Outcome::held(codes::AUTH_MISSING, reason)
}

/// How an error without an answer ends the candidate; [`None`] when it does not.
fn ended_by(source: &SourceConfig, error: &CallError) -> Option<Outcome> {
    Some(match error {
        CallError::OriginNotAllowed { origin, reason } => Outcome::held(
            codes::ORIGIN_NOT_ALLOWED,
            format!(
                "{origin} may not be called ({reason}); to allow it, add {origin:?} to allow_origins of the source {:?}",
                source.name
            ),
        ),
        CallError::AuthMissing { .. } | CallError::AuthNotAllowed { .. } => {
            auth_outcome(source, error)
        }
        CallError::Streaming => {
            Outcome::discarded(codes::STREAMING_ONLY, "its answer is a stream without end")
        }
        CallError::InvalidInput { .. } | CallError::InvalidPackage(_) => {
            Outcome::discarded(codes::INVALID_PACKAGE, error.to_string())
        }
        CallError::Unreachable(_)
        | CallError::Timeout { .. }
        | CallError::TooLarge { .. }
        | CallError::Redirected { .. }
        | CallError::CodeFailed(_)
        | CallError::NotJson(_)
        | CallError::LimitReached(_)
        | CallError::ServerFailed(_)
        | CallError::Step { .. } => return None,
        CallError::SandboxUnavailable(reason) => {
            Outcome::held(codes::SANDBOX_UNAVAILABLE, reason.clone())
        }
    })
}

/// Whether names, versions and types are in order.
fn valid(package: &Package) -> Gate {
    let manifest = &package.manifest;
    let invalid = |reason: String| Err(Outcome::discarded(codes::INVALID_PACKAGE, reason));
    if !is_valid_name(&manifest.name) {
        return invalid(format!("{:?} is no skill name", manifest.name));
    }
    if let Err(error) = semver::Version::parse(&manifest.version) {
        return invalid(format!("{:?} is no semantic version: {error}", manifest.version));
    }
    let wrong_type = |io: &&SkillIO| !IO_TYPES.contains(&io.r#type.as_str());
    if let Some(io) = manifest.inputs.iter().chain(&manifest.outputs).find(wrong_type) {
        return invalid(format!(
            "{:?} has the type {:?}; use {}",
            io.name,
            io.r#type,
            IO_TYPES.join(", ")
        ));
    }
    Ok(())
}

/// Whether the scan found nothing dangerous. A person can overrule a finding, for this very package.
fn safe(findings: &[Finding], context: &StageContext) -> Gate {
    let overruled = &context.overruled;
    let danger = |f: &&Finding| f.severity == Severity::High && !overruled.contains(&f.code);
    let Some(finding) = findings.iter().find(danger) else { return Ok(()) };
    let line = finding.line.map(|line| format!(":{line}")).unwrap_or_default();
    let reason = format!("{}{line}: {} ({})", finding.file, finding.message, finding.code);
    Err(Outcome::discarded(codes::UNSAFE, reason))
}

/// The first part in which a package is not the expected one: what, is, should be.
fn difference(package: &Package, expected: &Package) -> Option<(&'static str, String, String)> {
    let endpoint = |package: &Package| {
        let endpoint = package.config.endpoints.first();
        endpoint.map_or_else(
            || "none".to_owned(),
            |endpoint| {
                let method = json!(endpoint.method);
                format!("{} {}", method.as_str().unwrap_or_default(), endpoint.url)
            },
        )
    };
    let auth_ref =
        |package: &Package| package.config.auth_ref.clone().unwrap_or_else(|| "none".to_owned());
    let source = |package: &Package| {
        let provenance = package.provenance.as_ref();
        provenance.map_or_else(|| "none".to_owned(), |provenance| provenance.source.clone())
    };
    let text = |of: &dyn Fn(&Package) -> String| (of(package), of(expected));
    let named = [
        ("name", text(&|package| package.manifest.name.clone())),
        ("version", text(&|package| package.manifest.version.clone())),
        ("endpoint", text(&endpoint)),
        ("auth_ref", text(&auth_ref)),
        ("source", text(&source)),
    ];
    if let Some((what, (is, should))) = named.into_iter().find(|(_, (is, should))| is != should) {
        return Some((what, format!("{is:?}"), format!("{should:?}")));
    }
    let whole = |what| Some((what, "different".to_owned(), "another one".to_owned()));
    if package.manifest != expected.manifest {
        return whole("manifest.toml");
    }
    let same = package.config == expected.config && package.kind == expected.kind;
    if same { None } else { whole("config.toml") }
}

fn whole_ms(ms: f64) -> u64 {
    Duration::try_from_secs_f64(ms / 1_000.0)
        .map_or(0, |duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
