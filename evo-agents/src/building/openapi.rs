//! An operation of an OpenAPI document becomes an http skill.

use evo_common::{
    ids::ArtifactId,
    outcome::{Outcome, codes},
    stage::Candidate,
};

use super::{Build, package::Built};
use crate::{
    handler::StageJob,
    roles::operation_of,
    skill::package::Package,
    sources::openapi::{operation::Operation, package},
    wording,
};

/// The package, or how the candidate ends without one.
pub(super) async fn build(candidate: &Candidate, version: &str, job: &StageJob) -> Build {
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

/// Compiles an operation, in the version and with the train cases that the job says.
pub(super) fn compile(
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
