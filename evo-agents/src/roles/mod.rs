//! The five stages of the pipeline, and the user agent.

mod building;
mod evaluation;
mod learning;
mod pre_load;
mod skill_manage;
mod user;

#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use evo_common::{
    config::{SourceConfig, sources::REQUESTS},
    ids::ArtifactId,
    messages::{AgentRole, PipelineStage},
    stage::{Candidate, StageContext},
};
use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    building::Building, evaluation::Evaluation, learning::Learning, pre_load::PreLoad,
    skill_manage::SkillManage, user::User,
};
use crate::{
    artifacts,
    handler::{AgentHandler, StageDone, StageError, StageJob},
    skill::{execute::CallPolicy, package::Package},
    sources::openapi::operation::Operation,
};

/// Version of a first package when king names none.
const FIRST_VERSION: &str = "0.1.0";

/// The handler of a role.
pub fn handler_for(role: &AgentRole) -> Arc<dyn AgentHandler> {
    match role {
        AgentRole::Learning => Arc::new(Learning),
        AgentRole::Building => Arc::new(Building),
        AgentRole::PreLoad => Arc::new(PreLoad),
        AgentRole::Evaluation => Arc::new(Evaluation),
        AgentRole::SkillManage => Arc::new(SkillManage),
        AgentRole::User(_) => Arc::new(User),
    }
}

fn done(artifact_id: impl Into<String>, output: &impl Serialize) -> StageDone {
    StageDone {
        artifact_id: artifact_id.into(),
        output: serde_json::to_value(output).expect("an output is plain data"),
    }
}

fn expect_stage(job: &StageJob, stage: PipelineStage) -> Result<(), StageError> {
    if job.stage == stage {
        return Ok(());
    }
    Err(StageError::permanent(format!("this agent serves the stage {stage}, not {}", job.stage)))
}

fn candidate_of(context: &StageContext) -> Result<&Candidate, StageError> {
    context.candidate.as_ref().ok_or_else(|| {
        StageError::permanent("`metadata.candidate` is missing: this stage needs a candidate")
    })
}

/// The candidate's definition, as the OpenAPI source wrote it.
pub(crate) fn operation_of(candidate: &Candidate) -> Result<Operation, StageError> {
    serde_json::from_value(candidate.definition.clone()).map_err(|error| {
        StageError::permanent(format!("`metadata.candidate.definition` can't be read: {error}"))
    })
}

/// Whether the definition is an operation of an API. What it is for other sources, their builders
/// know.
fn is_operation(candidate: &Candidate) -> bool {
    serde_json::from_value::<Operation>(candidate.definition.clone()).is_ok()
}

pub(crate) fn source_of<'a>(
    context: &'a StageContext,
    candidate: &Candidate,
) -> Result<&'a SourceConfig, StageError> {
    static OF_REQUESTS: LazyLock<SourceConfig> = LazyLock::new(SourceConfig::of_requests);
    let known = context.sources.iter().find(|source| source.name == candidate.source);
    known.or_else(|| (candidate.source == REQUESTS).then(|| &*OF_REQUESTS)).ok_or_else(|| {
        StageError::permanent(format!(
            "the source {:?} of the candidate {} is no longer configured; add it to sources.toml again",
            candidate.source, candidate.name
        ))
    })
}

/// The version that the package gets.
fn version_of(context: &StageContext) -> &str {
    match context.version.as_str() {
        "" => FIRST_VERSION,
        version => version,
    }
}

/// What the skills of a source may do.
fn policy_of(context: &StageContext, source: &SourceConfig) -> CallPolicy {
    CallPolicy::of_source(source, &context.servers)
}

/// What a candidate's package may do, with the skills in use that it calls.
pub(crate) async fn policy_with_parts(
    job: &StageJob,
    source: &SourceConfig,
    package: &Package,
) -> CallPolicy {
    let policy = policy_of(&job.context, source);
    if package.manifest.dependencies.is_empty() {
        return policy;
    }
    let skills = job.services.skills.snapshot(&job.context.servers, &job.run_id).await;
    CallPolicy { parts: skills.parts_of(package), ..policy }
}

fn output_of<T: DeserializeOwned>(
    context: &StageContext,
    stage: PipelineStage,
) -> Result<T, StageError> {
    match context.output(stage) {
        Some(Ok(output)) => Ok(output),
        Some(Err(error)) => {
            Err(StageError::permanent(format!("`metadata.outputs.{stage}` can't be read: {error}")))
        }
        None => Err(StageError::permanent(format!("`metadata.outputs.{stage}` is missing"))),
    }
}

/// The package that the job is about; the inner error says what is wrong with the package itself.
async fn package_of(job: &StageJob) -> Result<Result<Package, String>, StageError> {
    let id = ArtifactId::parse(job.artifact_id.as_str())
        .map_err(|error| StageError::permanent(format!("`artifact_id`: {error}")))?;
    match job.services.artifacts.package(&id).await {
        Ok(package) => Ok(Ok(package)),
        Err(artifacts::Error::Package(error)) => Ok(Err(error.to_string())),
        Err(error) => Err(error.into()),
    }
}
