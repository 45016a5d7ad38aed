//! Evaluation: runs the package against its cases and reports what was measured. A cascade, so
//! that a hopeless candidate costs little: three smoke trials, the train cases, the held-out
//! trials.

use std::{collections::BTreeSet, time::Duration};

use evo_common::{
    case::Case,
    config::SourceConfig,
    evidence::{
        CapabilityTrials, Evidence, IntegrationCheck, Latency, MAX_FAILURES, TRAIN_SHARE, Trials,
        latency_budget_ms,
    },
    ids::ArtifactId,
    messages::PipelineStage,
    outcome::{Outcome, Verdict, codes},
    skill::{SkillIO, files},
    stage::{Candidate, EvaluationOutput, PreLoadOutput, StageContext},
};
use futures_util::future::BoxFuture;
use serde::Deserialize;

use super::{
    candidate_of, done, expect_stage, package_of, policy_with_parts, skill_manage, source_of,
};
use crate::{
    advice::{self, Advice, AdviceJob},
    evaluation::{
        compare::{Pairs, Side, percentile},
        novelty::novelty,
        trials::{
            Bench, Cancelled, MANY_CASES, Prepared, Run, Tally, pause, prepare, schedule,
            sitting_of,
        },
    },
    handler::{AgentHandler, StageDone, StageError, StageJob},
    skill::{
        execute::{CallPolicy, Fault},
        package::{Kind, Package},
    },
    sources::{self, openapi::cases::with_declared_schema},
};

/// Smoke trials, all of the first case.
const SMOKE: usize = 3;
/// Longest call, unless the source's own latency budget is larger.
const CALL_TIMEOUT_MS: u64 = 5_000;
/// Calls of a look that are broken on purpose, of a skill that declares retries: as few as can show that
/// it survives none of them.
const FAULTS: usize = 5;
/// Held-out calls without an answer in time after which the rest is not worth waiting for.
const MOST_TIMEOUTS: u32 = 3;
/// Longest description in a SKILL.md.
const MAX_SKILL_DESCRIPTION: usize = 1_024;

/// Handler of the stage Evaluation.
#[derive(Debug, Clone, Copy)]
pub struct Evaluation;

impl AgentHandler for Evaluation {
    fn stage(&self, job: StageJob) -> BoxFuture<'_, Result<StageDone, StageError>> {
        Box::pin(async move {
            expect_stage(&job, PipelineStage::Evaluation)?;
            let evidence = evaluate(&job).await?;
            let scores = evidence.scores();
            let recommendation = match skill_manage::propose(&evidence).decision {
                Verdict::Active => "activate",
                Verdict::Held => "hold",
                Verdict::Discarded | Verdict::Failed => "discard",
            };
            let output = EvaluationOutput {
                evidence,
                overall_score: scores.overall.low,
                scores,
                recommendation: recommendation.to_owned(),
            };
            Ok(done(job.artifact_id, &output))
        })
    }

    fn advice(&self, job: AdviceJob) -> BoxFuture<'_, Option<Advice>> {
        Box::pin(async move { Some(advice::advise(job).await) })
    }

    fn capabilities(&self) -> Vec<String> {
        advice::CAPABILITIES.map(str::to_owned).to_vec()
    }
}

impl From<Cancelled> for StageError {
    fn from(cancelled: Cancelled) -> Self {
        Self::transient(cancelled.to_string())
    }
}

async fn evaluate(job: &StageJob) -> Result<Evidence, StageError> {
    let context = &job.context;
    let candidate = candidate_of(context)?;
    let source = source_of(context, candidate)?;
    let gate = |outcome: Outcome| Evidence { gate: Some(outcome), ..Evidence::default() };
    let package = match package_of(job).await? {
        Ok(package) => package,
        Err(reason) => return Ok(gate(Outcome::discarded(codes::INVALID_PACKAGE, reason))),
    };
    let incumbent = match &context.incumbent {
        Some(incumbent) => {
            let id = ArtifactId::parse(incumbent.artifact_id.as_str()).map_err(|error| {
                StageError::permanent(format!("`metadata.incumbent.artifact_id`: {error}"))
            })?;
            Some(job.services.artifacts.package(&id).await?)
        }
        None => None,
    };
    let [train, holdout] = cases_of(context, candidate)?;
    let (train, holdout) =
        match (prepare(&train, &package.call.success), prepare(&holdout, &package.call.success)) {
            (Ok(train), Ok(holdout)) => (train, holdout),
            (Err(error), _) | (_, Err(error)) => {
                return Ok(gate(Outcome::held(codes::NO_ORACLE, error.to_string())));
            }
        };
    if holdout.iter().all(|prepared| prepared.case.pinned) {
        return Ok(gate(Outcome::held(
            codes::NO_ORACLE,
            "there is no held-out case to judge it by",
        )));
    }
    let policy = call_policy(job, source, &package).await;
    let work = Work { job, context, candidate, source, package: &package, policy: &policy };
    work.cascade(&train, &holdout, incumbent.as_ref()).await
}

/// Train and held-out cases, with the schema that the definition declares.
fn cases_of(context: &StageContext, candidate: &Candidate) -> Result<[Vec<Case>; 2], StageError> {
    let cases = [&context.train_cases, &context.holdout_cases];
    if !cases.iter().any(|cases| cases.iter().any(|case| case.expect.declared_schema)) {
        return Ok(cases.map(Clone::clone));
    }
    let declared = sources::answer_schema(candidate).map_err(|error| {
        StageError::permanent(format!("`metadata.candidate.definition` can't be read: {error}"))
    })?;
    Ok(cases.map(|cases| with_declared_schema(cases, declared.as_ref())))
}

async fn call_policy(job: &StageJob, source: &SourceConfig, package: &Package) -> CallPolicy {
    let own = source.latency_budget_ms.unwrap_or(0).saturating_mul(6) / 5;
    let policy = policy_with_parts(job, source, package).await;
    CallPolicy { timeout_cap_ms: Some(own.max(CALL_TIMEOUT_MS)), ..policy }
}

struct Work<'a> {
    job: &'a StageJob,
    context: &'a StageContext,
    candidate: &'a Candidate,
    source: &'a SourceConfig,
    package: &'a Package,
    policy: &'a CallPolicy,
}

impl Work<'_> {
    async fn cascade(
        &self,
        train: &[Prepared<'_>],
        holdout: &[Prepared<'_>],
        incumbent: Option<&Package>,
    ) -> Result<Evidence, StageError> {
        let executor = &self.job.services.executor;
        let mut bench = Bench::new(executor, self.package, self.policy);
        let before = self.pre_load()?;
        // Pre-load's probes were calls of the first of these cases.
        let probed = train.iter().find(|prepared| !prepared.case.expect.refusal);
        if let Some((probed, observed)) = probed.zip(before.observed.as_ref()) {
            bench.expect_like(&probed.case.case_id, observed);
        }
        let mut evidence = Evidence::default();

        let (smoke, runs) = self.smoke(&mut bench, train, holdout).await?;
        evidence.failures.extend_from_slice(smoke.failures());
        let fastest = before.probe_fastest_ms.unwrap_or_else(|| fastest(smoke.latencies_ms()));
        evidence.latency.budget_ms = latency_budget_ms(fastest, self.source.latency_budget_ms);
        if let Some(outcome) = self.smoke_gate(&runs) {
            self.finish(&mut evidence, &smoke, &Tally::default(), &Tally::default());
            evidence.gate = Some(outcome);
            return Ok(evidence);
        }

        let mut trained = Tally::default();
        for prepared in train {
            let run = self.one(bench.run(prepared)).await?;
            trained.add(&prepared.case.case_id, &run);
        }
        evidence.train = trained.total();
        let share = f64::from(evidence.train.passed) / f64::from(evidence.train.total.max(1));
        if !train.is_empty() && share < TRAIN_SHARE {
            let (passed, total) = (evidence.train.passed, evidence.train.total);
            self.finish(&mut evidence, &smoke, &trained, &Tally::default());
            evidence.gate = Some(Outcome::discarded(
                codes::BELOW_THRESHOLD,
                format!(
                    "passes only {passed} of {total} train cases{}",
                    first_failure(trained.failures())
                ),
            ));
            return Ok(evidence);
        }

        let mut held_out = Tally::default();
        let mut pairs = Pairs::default();
        let mut old = incumbent.map(|old| Bench::new(executor, old, self.policy));
        // What failed in use says nothing of a version by itself: an input may have been wrong. It is
        // compared with the version in use, and counts for nothing else.
        let (pinned, ordinary): (Vec<_>, Vec<_>) =
            holdout.iter().partition(|prepared| prepared.case.pinned);
        if let Some(old) = old.as_mut() {
            self.compare(&mut bench, old, &pinned, &mut pairs).await?;
        }
        let repeats = if many(train, &ordinary) { self.context.plan.repeats.max(1) } else { 1 };
        let timed_out = self
            .held_out(&mut bench, old.as_mut(), &ordinary, repeats, &mut held_out, &mut pairs)
            .await?;
        for (case_id, pointer) in bench.always_empty() {
            let place = if pointer.is_empty() { "the root" } else { pointer.as_str() };
            let detail = format!(
                "nothing at {place} in any answer, where the document's example has something"
            );
            held_out.fail_case(&case_id, "always_empty", &detail);
        }
        evidence.faults = self.faults(&mut bench, &ordinary).await?;
        evidence.paired = incumbent.map(|_| pairs.finish());
        evidence.incumbent =
            self.context.incumbent.as_ref().map(|incumbent| incumbent.artifact_id.clone());
        self.finish(&mut evidence, &smoke, &trained, &held_out);
        evidence.gate = latency_gate(&evidence.latency, timed_out);
        if evidence.gate.is_none() && bench.saw_nothing() {
            evidence.gate = Some(Outcome::held(
                codes::NO_ORACLE,
                "every answer was empty and nothing says that it should be, so nothing was seen of what it does",
            ));
        }
        Ok(evidence)
    }

    /// Waits for a run, unless the work is called off.
    async fn one(&self, run: impl Future<Output = Run>) -> Result<Run, Cancelled> {
        tokio::select! {
            () = self.job.services.cancel.cancelled() => Err(Cancelled),
            run = run => Ok(run),
        }
    }

    async fn smoke(
        &self,
        bench: &mut Bench<'_>,
        train: &[Prepared<'_>],
        holdout: &[Prepared<'_>],
    ) -> Result<(Tally, Vec<Run>), StageError> {
        let all = || train.iter().chain(holdout).filter(|prepared| !prepared.case.pinned);
        let first = all().find(|prepared| !prepared.case.expect.refusal).or_else(|| all().next());
        let mut tally = Tally::default();
        let mut runs = Vec::new();
        let Some(first) = first else { return Ok((tally, runs)) };
        for _ in 0..SMOKE {
            let run = self.one(bench.run(first)).await?;
            tally.add(&first.case.case_id, &run);
            let is_over = run.failed_with("timeout");
            runs.push(run);
            if is_over {
                break;
            }
        }
        Ok((tally, runs))
    }

    fn smoke_gate(&self, runs: &[Run]) -> Option<Outcome> {
        if runs.iter().any(|run| run.failed_with("timeout")) {
            return Some(Outcome::discarded(
                codes::LATENCY,
                format!(
                    "no answer within {} ms",
                    self.policy.timeout_cap_ms.map_or(self.package.timeout_ms(), |cap| cap
                        .min(self.package.timeout_ms()))
                ),
            ));
        }
        if runs.iter().any(Run::passed) {
            return None;
        }
        let failure = runs.iter().find_map(|run| run.failure.as_ref())?;
        let all = |code: &str| runs.iter().all(|run| run.failed_with(code));
        let detail = failure.detail.clone();
        Some(match failure.code.as_str() {
            "connect" if all("connect") => Outcome::held(codes::UNREACHABLE, detail),
            "auth_missing" | "auth_not_allowed" => Outcome::held(codes::AUTH_MISSING, detail),
            "origin_not_allowed" => Outcome::held(codes::ORIGIN_NOT_ALLOWED, detail),
            "streaming_only" => Outcome::discarded(codes::STREAMING_ONLY, detail),
            "invalid_package" | "invalid_input" => {
                Outcome::discarded(codes::INVALID_PACKAGE, detail)
            }
            _ => {
                let seen: BTreeSet<String> = runs
                    .iter()
                    .filter_map(|run| run.status)
                    .map(|status| format!("HTTP {status}"))
                    .collect();
                let seen = seen.into_iter().collect::<Vec<_>>().join(", ");
                Outcome::discarded(
                    codes::BELOW_THRESHOLD,
                    format!("none of {} smoke trials passed ({seen}): {detail}", runs.len()),
                )
            }
        })
    }

    /// The held-out trials, in their sittings. Says whether so many calls ran out of time that
    /// the rest was left.
    async fn held_out(
        &self,
        bench: &mut Bench<'_>,
        mut old: Option<&mut Bench<'_>>,
        cases: &[&Prepared<'_>],
        repeats: u32,
        tally: &mut Tally,
        pairs: &mut Pairs,
    ) -> Result<bool, StageError> {
        let plan = &self.context.plan;
        let order = schedule(cases.len(), plan.trials, plan.look);
        let mut timeouts = 0;
        let mut sitting = 0;
        for (trial, case) in order.iter().enumerate() {
            let now = sitting_of(trial, order.len(), plan.sittings);
            if now != sitting {
                sitting = now;
                pause(Duration::from_millis(plan.sitting_gap_ms), &self.job.services.cancel)
                    .await?;
            }
            let prepared = cases[*case];
            let run = match old.as_deref_mut() {
                None => self.one(bench.trial(prepared, repeats)).await?,
                Some(old) => {
                    // Who goes first alternates, so that a warm cache favours neither.
                    let (new, other) = if trial % 2 == 0 {
                        let new = self.one(bench.trial(prepared, repeats)).await?;
                        (new, self.one(old.trial(prepared, repeats)).await?)
                    } else {
                        let other = self.one(old.trial(prepared, repeats)).await?;
                        (self.one(bench.trial(prepared, repeats)).await?, other)
                    };
                    pairs.add(side(&new), side(&other), false);
                    new
                }
            };
            timeouts += u32::from(run.failed_with("timeout"));
            tally.add(&prepared.case.case_id, &run);
            if timeouts >= MOST_TIMEOUTS {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Calls whose first try is broken, when the package says that it tries again. A skill that says
    /// nothing of the kind owes nothing.
    async fn faults(
        &self,
        bench: &mut Bench<'_>,
        cases: &[&Prepared<'_>],
    ) -> Result<Trials, StageError> {
        let mut survived = Trials::default();
        if self.package.kind != Kind::Http || self.package.call.retries == 0 {
            return Ok(survived);
        }
        let answered = cases.iter().filter(|prepared| !prepared.case.expect.refusal);
        let faults = [Fault::Lost, Fault::Unavailable].into_iter().cycle();
        for (prepared, fault) in answered.cycle().zip(faults).take(FAULTS) {
            let run = self.one(bench.run_broken(prepared, fault)).await?;
            survived.add(run.passed());
        }
        Ok(survived)
    }

    /// Runs every pinned case against both versions. A failure of the new one counts when it fails
    /// again, so that a server's hiccup costs it nothing.
    async fn compare(
        &self,
        bench: &mut Bench<'_>,
        old: &mut Bench<'_>,
        pinned: &[&Prepared<'_>],
        pairs: &mut Pairs,
    ) -> Result<(), StageError> {
        for prepared in pinned {
            let other = self.one(old.run(prepared)).await?;
            let mut new = self.one(bench.run(prepared)).await?;
            if other.passed() && !new.passed() {
                new = self.one(bench.run(prepared)).await?;
            }
            pairs.add(side(&new), side(&other), true);
        }
        Ok(())
    }

    /// What Pre-load found; nothing when it was skipped.
    fn pre_load(&self) -> Result<PreLoadOutput, StageError> {
        match self.context.output(PipelineStage::PreLoad) {
            Some(output) => output.map_err(|error| {
                StageError::permanent(format!("`metadata.outputs.pre_load` can't be read: {error}"))
            }),
            None => Ok(PreLoadOutput::default()),
        }
    }

    /// Fills in what follows from the trials.
    fn finish(&self, evidence: &mut Evidence, smoke: &Tally, train: &Tally, held_out: &Tally) {
        let manifest = &self.package.manifest;
        let ran: BTreeSet<&str> =
            [smoke, train, held_out].into_iter().flat_map(Tally::case_ids).collect();
        evidence.cases_run = u32::try_from(ran.len()).unwrap_or(u32::MAX);
        evidence.holdout = held_out.total();
        evidence.capabilities = manifest
            .capabilities
            .iter()
            .map(|capability| CapabilityTrials {
                capability: capability.clone(),
                demand: self.candidate.demand,
                trials: evidence.holdout,
            })
            .collect();
        let mut latencies = held_out.latencies_ms().to_vec();
        evidence.latency.fastest_ms = fastest(&latencies);
        evidence.latency.p50_ms = percentile(&mut latencies, 50.0);
        evidence.latency.p95_ms = percentile(&mut latencies, 95.0);
        evidence.failures =
            [smoke, train, held_out].into_iter().flat_map(Tally::failures).cloned().collect();
        evidence.failures.truncate(MAX_FAILURES);
        (evidence.novelty, evidence.nearest) =
            novelty(manifest, &self.package.targets(), &self.context.known_skills);
        let answered = !held_out.latencies_ms().is_empty() || !smoke.latencies_ms().is_empty();
        evidence.integration = self.integration(&evidence.latency, answered);
    }

    fn integration(&self, latency: &Latency, answered: bool) -> Vec<IntegrationCheck> {
        let manifest = &self.package.manifest;
        let known = &self.context.known_skills;
        let dependencies_active =
            manifest.dependencies.iter().all(|name| self.policy.parts.get(name).is_some());
        let composes = known.iter().filter(|other| other.name != manifest.name).any(|other| {
            feeds(&manifest.outputs, &other.inputs) || feeds(&other.outputs, &manifest.inputs)
        });
        // A call without its token has no answer at all.
        let auth_set = self.package.config.auth_ref.is_none() || answered;
        [
            ("dependencies_active", dependencies_active),
            ("composes", composes),
            ("auth_set", auth_set),
            ("latency", answered && latency.p95_ms <= latency.budget_ms),
            ("skill_md_valid", skill_md_is_valid(self.package)),
        ]
        .map(|(name, holds)| IntegrationCheck { name: name.to_owned(), holds })
        .into()
    }
}

fn latency_gate(latency: &Latency, timed_out: bool) -> Option<Outcome> {
    if timed_out {
        return Some(Outcome::discarded(
            codes::LATENCY,
            format!("{MOST_TIMEOUTS} held-out calls had no answer in time"),
        ));
    }
    // Calls that are slow now and then are king's to weigh: it may look again.
    (latency.fastest_ms > latency.budget_ms).then(|| {
        Outcome::discarded(
            codes::LATENCY,
            format!(
                "every call takes {:.0} ms or more, 95 % of them may take up to {:.0} ms",
                latency.fastest_ms, latency.budget_ms
            ),
        )
    })
}

/// The least of these latencies; 0 of none.
fn fastest(latencies_ms: &[f64]) -> f64 {
    latencies_ms.iter().copied().min_by(f64::total_cmp).unwrap_or_default()
}

/// Whether the candidate has so many cases that each of them is a trial.
fn many(train: &[Prepared<'_>], holdout: &[&Prepared<'_>]) -> bool {
    let ids = train.iter().chain(holdout.iter().copied()).map(|prepared| &prepared.case.case_id);
    ids.collect::<BTreeSet<_>>().len() >= MANY_CASES
}

fn side(run: &Run) -> Side {
    Side { passed: run.passed(), latency_ms: run.latency_ms() }
}

fn first_failure(failures: &[evo_common::evidence::TrialFailure]) -> String {
    failures.first().map(|failure| format!(": {}", failure.detail)).unwrap_or_default()
}

/// Whether something that one skill gives is of a type that the other one takes.
fn feeds(outputs: &[SkillIO], inputs: &[SkillIO]) -> bool {
    outputs
        .iter()
        .filter(|output| output.r#type != "any")
        .any(|output| inputs.iter().any(|input| input.r#type == output.r#type))
}

/// Whether SKILL.md is what agentskills.io asks for: front matter with the folder's name and a
/// description.
fn skill_md_is_valid(package: &Package) -> bool {
    #[derive(Deserialize)]
    struct FrontMatter {
        name: String,
        description: String,
    }
    let Some(text) = package.files.get(files::SKILL_MD) else { return false };
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let front_matter = text
        .strip_prefix("---\n")
        .and_then(|rest| rest.split_once("\n---\n"))
        .and_then(|(front_matter, _)| serde_saphyr::from_str::<FrontMatter>(front_matter).ok());
    front_matter.is_some_and(|front_matter| {
        front_matter.name == package.manifest.name
            && (1..=MAX_SKILL_DESCRIPTION).contains(&front_matter.description.chars().count())
    })
}
