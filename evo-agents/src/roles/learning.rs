//! Learning: looks into the sources and lists what could become a skill, the most promising first.

mod order;

use evo_common::{
    config::SourceConfig,
    messages::PipelineStage,
    stage::{Candidate, FailedSource, LearningOutput, PastOutcome, StageContext},
};
use futures_util::future::BoxFuture;

use super::{done, expect_stage};
use crate::{
    handler::{AgentHandler, StageDone, StageError, StageJob},
    reuse,
    sources::{look::Looker, openapi::naming::Names, requests},
    wording,
};

/// Most parts of one source that are named as failed.
const MAX_SKIPPED: usize = 20;

/// Handler of the stage Learning.
#[derive(Debug, Clone, Copy)]
pub struct Learning;

impl AgentHandler for Learning {
    fn stage(&self, job: StageJob) -> BoxFuture<'_, Result<StageDone, StageError>> {
        Box::pin(async move {
            expect_stage(&job, PipelineStage::Learning)?;
            let output = learn(&job).await?;
            Ok(done(job.artifact_id, &output))
        })
    }
}

/// A source that can't be read fails alone: the others go on.
async fn learn(job: &StageJob) -> Result<LearningOutput, StageError> {
    let mut output = LearningOutput::default();
    let context = &job.context;
    let known = context.names.as_deref();
    let mut looker = Looker {
        executor: &job.services.executor,
        servers: &context.servers,
        names: Names::with_known(known.unwrap_or_default()),
    };
    // What answers a repair counts for its request, whatever else the source has.
    let mut renewed = Vec::new();
    let in_cycle = context.sources.iter().map(|source| (source, true));
    let all = in_cycle.chain(context.reread.iter().map(|source| (source, false)));
    for (source, in_cycle) in all.filter(|(source, _)| source.enabled) {
        if job.services.cancel.is_cancelled() {
            return Err(StageError::transient("Learning was cancelled"));
        }
        let mut failed = |message: String| {
            tracing::warn!(source = %source.name, error = %message, "Source {} failed", source.name);
            output.failed_sources.push(FailedSource { name: source.name.clone(), message });
        };
        match Box::pin(looker.look(source)).await {
            Ok(found) => {
                let mut candidates = found.candidates;
                recall(&mut candidates, source, context);
                renewed.extend(requests::renewed(context, &mut candidates));
                if in_cycle {
                    let more = found.skipped.len().saturating_sub(MAX_SKIPPED);
                    found.skipped.into_iter().take(MAX_SKIPPED).for_each(&mut failed);
                    if more > 0 {
                        failed(format!("and {more} more"));
                    }
                    output.candidates.extend(order::within_source(candidates, source));
                }
            }
            Err(message) => failed(message),
        }
    }
    output.candidates.extend(requests::candidates(context, &renewed));
    output.candidates.extend(renewed);
    output.unanswered = requests::unanswered(context);
    let candidates = &mut output.candidates;
    wording::keep(candidates, known.unwrap_or_default());
    if let Some(gateway) = &job.services.gateway {
        wording::improve(gateway, candidates, known, &mut looker.names, job.deadline).await;
    }
    output.usage = wording::usage(job.services.gateway.as_ref());
    reuse::instead(job, candidates).await?;
    let candidates = std::mem::take(&mut output.candidates);
    let (sources, known_skills) = (context.sources.clone(), context.known_skills.clone());
    let known = context.names.clone().unwrap_or_default();
    let ordered = tokio::task::spawn_blocking(move || {
        let (candidates, duplicates) = order::without_duplicates(candidates, &sources, &known);
        (order::by_priority(candidates, &sources, &known_skills), duplicates)
    });
    (output.candidates, output.duplicates) = ordered.await.map_err(|error| {
        StageError::permanent(format!("ordering the candidates broke off: {error}"))
    })?;
    Ok(output)
}

/// Notes at each candidate how the last try with the same definition ended. Another definition is
/// a new chance.
fn recall(candidates: &mut [Candidate], source: &SourceConfig, context: &StageContext) {
    let past = |candidate: &Candidate| -> Option<&PastOutcome> {
        context.past.iter().find(|past| {
            past.source == source.name
                && past.locator == candidate.locator
                && past.fingerprint == candidate.fingerprint
        })
    };
    for candidate in candidates {
        candidate.past = past(candidate).cloned();
    }
}
