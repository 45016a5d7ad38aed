//! What a version was made from, for whoever is to make a better one.

use evo_common::stage::{Candidate, CandidateKind};
use serde_json::{Value, json};

use crate::store::{self, Connection, runs, skills};

/// Kind, fingerprint and definition of what a version was made from, as a repair's definition has them
/// under `of`. A version that came of a repair was made from what the repaired one was made from.
pub(crate) async fn of_version(
    connection: &Connection,
    skill: &str,
    artifact_id: &str,
) -> store::Result<Option<Value>> {
    let Some(version) = skills::state::version(connection, skill, artifact_id).await? else {
        return Ok(None);
    };
    let made = runs::load(connection, &version.run_id).await?;
    Ok(made.and_then(|made| made.candidate).and_then(of_candidate))
}

fn of_candidate(candidate: Candidate) -> Option<Value> {
    let Candidate { kind, fingerprint, mut definition, .. } = candidate;
    match kind {
        CandidateKind::Repair => definition.get_mut("of").map(Value::take),
        _ => Some(json!({"kind": kind, "fingerprint": fingerprint, "definition": definition})),
    }
}

/// The fingerprint of such an origin.
pub(crate) fn fingerprint(origin: &Value) -> Option<&str> {
    origin.get("fingerprint")?.as_str()
}
