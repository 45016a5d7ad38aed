//! Building: makes a package of a candidate. How depends on what it is made of.

use evo_common::{
    artifact,
    ids::ArtifactId,
    messages::PipelineStage,
    skill::SkillManifest,
    stage::{BuildingOutput, Candidate},
};
use futures_util::future::BoxFuture;

use super::{candidate_of, done, expect_stage, version_of};
use crate::{
    building::{self, package::Built, search::changes::changes},
    handler::{AgentHandler, StageDone, StageError, StageJob},
    skill::package::Package,
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
            let built = match building::build(candidate, version, &job).await? {
                Ok(built) => built,
                Err(outcome) => {
                    let output = BuildingOutput {
                        manifest: bare_manifest(candidate, version),
                        endpoints: Vec::new(),
                        files: std::collections::BTreeMap::new(),
                        changes: Vec::new(),
                        outcome: Some(outcome),
                        usage: wording::usage(gateway),
                    };
                    return Ok(done(job.artifact_id, &output));
                }
            };
            let (_, archive) = artifact::pack(&built.files)
                .map_err(|error| StageError::permanent(format!("{}: {error}", candidate.name)))?;
            let artifact_id = job.services.artifacts.put(archive).await?;
            let changes = changes_to(&job, &built).await?;
            let output = BuildingOutput {
                manifest: built.manifest,
                endpoints: built.endpoints,
                files: built
                    .files
                    .into_iter()
                    .map(|(name, content)| (name, content.len() as u64))
                    .collect(),
                changes,
                outcome: None,
                usage: wording::usage(gateway),
            };
            Ok(done(artifact_id.as_str(), &output))
        })
    }
}

/// What a package does otherwise than the version in use, if there is one.
async fn changes_to(job: &StageJob, built: &Built) -> Result<Vec<String>, StageError> {
    let Some(incumbent) = &job.context.incumbent else { return Ok(Vec::new()) };
    let id = ArtifactId::parse(incumbent.artifact_id.as_str()).map_err(|error| {
        StageError::permanent(format!("`metadata.incumbent.artifact_id`: {error}"))
    })?;
    let before = job.services.artifacts.package(&id).await?;
    // One that can't be read ends in Pre-load.
    let after = Package::from_files(built.files.clone());
    Ok(after.map(|after| changes(&before, &after)).unwrap_or_default())
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
