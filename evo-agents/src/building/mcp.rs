//! A tool of an MCP server becomes a skill that calls it.

use evo_common::{
    outcome::{Outcome, codes},
    stage::Candidate,
};

use super::Build;
use crate::{
    handler::StageJob,
    skill::package::Package,
    sources::mcp::{Definition, package},
};

/// The package, or how the candidate ends without one.
pub(super) fn build(candidate: &Candidate, version: &str, job: &StageJob) -> Build {
    let definition: Definition = super::definition(candidate)?;
    let parent = job.context.incumbent.as_ref().map(|incumbent| incumbent.artifact_id.as_str());
    let invalid = |reason: String| Outcome::discarded(codes::INVALID_PACKAGE, reason);
    let cases = &job.context.train_cases;
    let built = package::build(candidate, &definition, version, cases, parent)
        .map_err(|error| invalid(error.to_string()))
        .and_then(|built| {
            // A package that could not be loaded again must not get an address.
            Package::from_files(built.files.clone()).map_err(|error| invalid(error.to_string()))?;
            Ok(built)
        });
    Ok(built)
}
