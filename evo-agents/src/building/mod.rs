//! Makes packages of candidates. Each kind of candidate has a builder of its own; `package` writes
//! the files that all of them have.
//!
//! A builder sees the train cases only. What it makes is measured afterwards like everything else,
//! so that a builder can be as simple as it likes, and a model may be one.

mod composed;
mod mcp;
mod model;
mod openapi;
pub(crate) mod package;
mod repair;
mod request;
pub mod search;
mod skill_md;
#[cfg(test)]
mod tests;

use evo_common::{
    outcome::Outcome,
    stage::{Candidate, CandidateKind},
};
use serde::de::DeserializeOwned;

use self::package::Built;
use crate::handler::{StageError, StageJob};

/// A package, or how the candidate ends without one.
pub(crate) type Build = Result<Result<Built, Outcome>, StageError>;

/// Builds a candidate in a version.
pub(crate) async fn build(candidate: &Candidate, version: &str, job: &StageJob) -> Build {
    match candidate.kind {
        CandidateKind::Openapi => openapi::build(candidate, version, job).await,
        CandidateKind::Composed => composed::build(candidate, version, job).await,
        CandidateKind::Request => request::build(candidate, version, job).await,
        CandidateKind::Repair => repair::build(candidate, version, job).await,
        CandidateKind::SkillMd => skill_md::build(candidate, version, job),
        CandidateKind::Mcp => mcp::build(candidate, version, job),
        CandidateKind::InUse => Err(StageError::permanent(
            "the candidate is a skill in use as it is: there is nothing to build",
        )),
    }
}

/// The candidate's definition, as the builder of its kind understands it.
fn definition<T: DeserializeOwned>(candidate: &Candidate) -> Result<T, StageError> {
    serde_json::from_value(candidate.definition.clone()).map_err(|error| {
        StageError::permanent(format!("`metadata.candidate.definition` can't be read: {error}"))
    })
}
