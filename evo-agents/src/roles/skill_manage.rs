//! Skill-Manage: reads the evidence once more and proposes what becomes of the skill. King
//! decides from the counts; this proposal can lower its decision, never raise it.

use evo_common::{
    evidence::{Evidence, THRESHOLD},
    messages::PipelineStage,
    outcome::{Outcome, Verdict, codes},
    stage::{EvaluationOutput, SkillManageOutput},
};
use futures_util::future::BoxFuture;

use super::{candidate_of, done, expect_stage, output_of, package_of};
use crate::handler::{AgentHandler, StageDone, StageError, StageJob};

/// Handler of the stage Skill-Manage.
#[derive(Debug, Clone, Copy)]
pub struct SkillManage;

impl AgentHandler for SkillManage {
    fn stage(&self, job: StageJob) -> BoxFuture<'_, Result<StageDone, StageError>> {
        Box::pin(async move {
            expect_stage(&job, PipelineStage::SkillManage)?;
            let candidate = candidate_of(&job.context)?;
            let evaluation: EvaluationOutput = output_of(&job.context, PipelineStage::Evaluation)?;
            let version = &job.context.version;
            let outcome = match package_of(&job).await? {
                Err(reason) => Outcome::discarded(codes::INVALID_PACKAGE, reason),
                Ok(package) if package.manifest.name != candidate.name => Outcome::discarded(
                    codes::INVALID_PACKAGE,
                    format!(
                        "the package is {:?}, not the candidate {:?}",
                        package.manifest.name, candidate.name
                    ),
                ),
                Ok(package) if !version.is_empty() && package.manifest.version != *version => {
                    Outcome::discarded(
                        codes::INVALID_PACKAGE,
                        format!(
                            "the package has the version {}, expected {version}",
                            package.manifest.version
                        ),
                    )
                }
                Ok(_) => propose(&evaluation.evidence),
            };
            let action = match outcome.decision {
                Verdict::Active => "activated",
                Verdict::Held => "held",
                Verdict::Discarded | Verdict::Failed => "discarded",
            };
            let output = SkillManageOutput {
                action: action.to_owned(),
                reason: outcome.reason.clone(),
                overall_score: evaluation.evidence.scores().overall.low,
                outcome,
            };
            Ok(done(job.artifact_id, &output))
        })
    }
}

/// What follows from the evidence alone.
pub(super) fn propose(evidence: &Evidence) -> Outcome {
    if let Some(gate) = &evidence.gate {
        return gate.clone();
    }
    let latency = evidence.latency;
    if latency.p95_ms > latency.budget_ms {
        return Outcome::held(
            codes::LATENCY,
            format!(
                "95 % of the calls take up to {:.0} ms, its budget is {:.0} ms",
                latency.p95_ms, latency.budget_ms
            ),
        );
    }
    let scores = evidence.scores();
    let (score, reliability) = (scores.overall, scores.reliability);
    let counts = format!("{} of {} trials passed", evidence.holdout.passed, evidence.holdout.total);
    if let Some(paired) = evidence.paired.filter(|paired| paired.pinned_worse > 0) {
        return Outcome::discarded(
            codes::REGRESSION,
            format!("it fails {} pinned cases that the version in use passes", paired.pinned_worse),
        );
    }
    if score.high < THRESHOLD || reliability.high < THRESHOLD {
        return Outcome::discarded(
            codes::BELOW_THRESHOLD,
            format!("{counts}: the score can't reach {THRESHOLD} (at most {:.2})", score.high),
        );
    }
    if score.low >= THRESHOLD && reliability.low >= THRESHOLD {
        return Outcome::active(format!(
            "{counts}: score {:.2}, reliability {:.2}, both at least {THRESHOLD}",
            score.low, reliability.low
        ));
    }
    Outcome::held(
        codes::NEED_MORE_EVIDENCE,
        format!(
            "{counts}: score {:.2} to {:.2}, which is not yet surely {THRESHOLD} or more",
            score.low, score.high
        ),
    )
}
