//! What somebody asked for becomes a skill with code.

use evo_common::stage::Candidate;

use super::{
    Build, definition,
    model::{self, Work},
};
use crate::{
    handler::StageJob,
    sources::requests::{BUILDER, Wanted},
};

/// The package, or how the candidate ends without one.
pub(super) async fn build(candidate: &Candidate, version: &str, job: &StageJob) -> Build {
    let wanted: Wanted = definition(candidate)?;
    let work = Work {
        job,
        candidate,
        version,
        builder: BUILDER,
        text: &wanted.request.text,
        inputs: &wanted.inputs,
        outputs: &wanted.outputs,
        present: None,
    };
    model::write(&work).await
}
