//! Building: makes a package of a candidate.

use evo_common::{
    artifact,
    ids::ArtifactId,
    messages::PipelineStage,
    outcome::{Outcome, codes},
    skill::SkillManifest,
    stage::{BuildingOutput, Candidate},
};
use futures_util::future::BoxFuture;

use super::{candidate_of, done, expect_stage, operation_of, version_of};
use crate::{
    handler::{AgentHandler, StageDone, StageError, StageJob},
    skill::package::Package,
    sources::openapi::{
        operation::Operation,
        package::{self, Built},
    },
    wording,
};

/// Handler of the stage Building.
#[derive(Debug, Clone, Copy)]
pub struct Building;

impl AgentHandler for Building {
    fn stage(&self, job: StageJob) -> BoxFuture<'_, Result<StageDone, StageError>> {
        Box::pin(async move {
            expect_stage(&job, PipelineStage::Building)?;
            let candidate = candidate_of(&job.context)?;
            let version = version_of(&job.context);
            let gateway = job.services.gateway.as_ref();
            let built = match build(candidate, version, &job).await? {
                Ok(built) => built,
                Err(outcome) => {
                    let output = BuildingOutput {
                        manifest: bare_manifest(candidate, version),
                        endpoints: Vec::new(),
                        files: std::collections::BTreeMap::new(),
                        outcome: Some(outcome),
                        usage: wording::usage(gateway),
                    };
                    return Ok(done(job.artifact_id, &output));
                }
            };
            let (_, archive) = artifact::pack(&built.files)
                .map_err(|error| StageError::permanent(format!("{}: {error}", candidate.name)))?;
            let artifact_id = job.services.artifacts.put(archive).await?;
            let output = BuildingOutput {
                manifest: built.manifest,
                endpoints: built.endpoints,
                files: built
                    .files
                    .into_iter()
                    .map(|(name, content)| (name, content.len() as u64))
                    .collect(),
                outcome: None,
                usage: wording::usage(gateway),
            };
            Ok(done(artifact_id.as_str(), &output))
        })
    }
}

/// The package, or how the candidate ends without one.
async fn build(
    candidate: &Candidate,
    version: &str,
    job: &StageJob,
) -> Result<Result<Built, Outcome>, StageError> {
    let operation = operation_of(candidate)?;
    if let Some(problem) = operation.problem {
        return Ok(Err(problem));
    }
    if let Some((candidate, operation)) = worded(candidate, &operation, job).await
        && let Ok(built) = compile(&candidate, &operation, version, job)
    {
        return Ok(Ok(built));
    }
    Ok(compile(candidate, &operation, version, job))
}

/// Candidate and operation with better texts: those of the last package that was made of the same
/// definition, or what a model says now if there is no such package.
async fn worded(
    candidate: &Candidate,
    operation: &Operation,
    job: &StageJob,
) -> Option<(Candidate, Operation)> {
    let Some(earlier) = &job.context.earlier else {
        let gateway = job.services.gateway.as_ref()?;
        return wording::improved(gateway, candidate, operation, job.deadline).await;
    };
    let id = ArtifactId::parse(earlier.as_str()).ok()?;
    match job.services.artifacts.package(&id).await {
        Ok(package) => wording::as_before(&package, candidate, operation),
        Err(error) => {
            tracing::debug!(%error, "The texts of the package {id} can't be read: {error}");
            None
        }
    }
}

fn compile(
    candidate: &Candidate,
    operation: &Operation,
    version: &str,
    job: &StageJob,
) -> Result<Built, Outcome> {
    let parent = job.context.incumbent.as_ref().map(|incumbent| incumbent.artifact_id.as_str());
    let invalid = |reason: String| Outcome::discarded(codes::INVALID_PACKAGE, reason);
    let built = package::build(candidate, operation, version, &job.context.train_cases, parent)
        .map_err(|error| invalid(error.to_string()))?;
    // A package that could not be loaded again must not get an address.
    Package::from_files(built.files.clone()).map_err(|error| invalid(error.to_string()))?;
    Ok(built)
}

fn bare_manifest(candidate: &Candidate, version: &str) -> SkillManifest {
    SkillManifest {
        name: candidate.name.clone(),
        version: version.to_owned(),
        description: candidate.description.clone(),
        capabilities: candidate.capabilities.clone(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        dependencies: Vec::new(),
        has_code: false,
    }
}
