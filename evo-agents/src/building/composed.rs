//! Several skills in a row become a skill of their own.

use std::collections::{BTreeMap, BTreeSet};

use evo_common::{
    api::RiskClass,
    artifact::Files,
    outcome::{Outcome, codes},
    skill::{Composition, SkillIO, SkillManifest},
    stage::Candidate,
};
use serde::Serialize;
use serde_json::json;

use super::{
    Build, definition,
    package::{Draft, Table, provenance},
};
use crate::{
    handler::StageJob,
    skill::{
        composition::{Reference, escaped, reference},
        snapshot::Chosen,
    },
};

/// Who builds composed skills, with the version of what it makes.
const BUILDER: &str = "composed/1";
/// How long a call of all steps may take.
const TIMEOUT_MS: u64 = 30_000;

/// The skills of the steps, by name.
type Parts<'p> = BTreeMap<&'p str, Chosen>;

#[derive(Serialize)]
struct ConfigFile<'c> {
    #[serde(flatten)]
    composition: &'c Composition,
    extra: Table,
}

/// The package, or how the candidate ends without one.
pub(super) async fn build(candidate: &Candidate, version: &str, job: &StageJob) -> Build {
    let wanted: Composition = definition(candidate)?;
    let skills = wanted.skills();
    let in_use = job.services.skills.snapshot(&job.context.servers, &job.run_id).await;
    let mut parts = BTreeMap::new();
    for name in &skills {
        let Some(part) = in_use.choose(name) else {
            let reason = format!("it depends on {name}, which is not active");
            return Ok(Err(Outcome::discarded(codes::INVALID_PACKAGE, reason)));
        };
        parts.insert(*name, part);
    }
    // What the parts could do now is all that the whole may ever do.
    let classes: BTreeSet<RiskClass> =
        parts.values().flat_map(|part| part.package.classes()).collect();
    let composition = Composition { classes: classes.into_iter().collect(), ..wanted.clone() };
    let manifest = SkillManifest {
        name: candidate.name.clone(),
        version: version.to_owned(),
        description: candidate.description.clone(),
        capabilities: candidate.capabilities.clone(),
        inputs: inputs(&composition, &parts),
        outputs: outputs(&composition, &parts),
        dependencies: skills.iter().map(|skill| (*skill).to_owned()).collect(),
        has_code: false,
    };
    let mut provenance = provenance(candidate, BUILDER, job);
    provenance.parents =
        skills.iter().filter_map(|name| parts.get(name)?.artifact_id.clone()).collect();
    provenance.operators = vec!["compose".to_owned()];
    let config = ConfigFile {
        composition: &composition,
        extra: Table::from([("timeout_ms", json!(TIMEOUT_MS))]),
    };
    let draft = Draft {
        manifest,
        config: &config,
        provenance,
        cases: &job.context.train_cases,
        usage: format!("Calls {} in this order.", skills.join(", ")),
        own: Files::new(),
        document: None,
    };
    Ok(draft.write())
}

/// What the steps take of the whole's input, as the first step that takes it declares it.
fn inputs(composition: &Composition, parts: &Parts<'_>) -> Vec<SkillIO> {
    let mut inputs: Vec<SkillIO> = Vec::new();
    for step in &composition.steps {
        for (name, pointer) in &step.input {
            let Some(Reference::Input(own)) = reference(pointer) else { continue };
            let own = own.replace("~1", "/").replace("~0", "~");
            let declared = parts.get(step.skill.as_str()).and_then(|part| part.package.input(name));
            let required = declared.is_some_and(|input| input.required);
            let whole = *pointer == format!("/input/{}", escaped(&own));
            let r#type = declared.filter(|_| whole).map(|input| input.r#type.clone());
            match inputs.iter_mut().find(|input| input.name == own) {
                Some(known) => known.required |= required,
                None => inputs.push(SkillIO {
                    name: own,
                    r#type: r#type.unwrap_or_else(|| "any".to_owned()),
                    required,
                    description: declared.and_then(|input| input.description.clone()),
                }),
            }
        }
    }
    inputs
}

/// What the step gives that the answer is taken from.
fn outputs(composition: &Composition, parts: &Parts<'_>) -> Vec<SkillIO> {
    let last = composition.steps.len().saturating_sub(1);
    let whole = format!("/steps/{last}/body");
    let pointer = composition.output.as_deref().unwrap_or(&whole);
    let Some(Reference::Step(index)) = reference(pointer) else { return Vec::new() };
    let part = composition.steps.get(index).and_then(|step| parts.get(step.skill.as_str()));
    let Some(Chosen { package, .. }) = part else { return Vec::new() };
    match pointer.strip_prefix(&format!("/steps/{index}/body")) {
        Some("") => package.manifest.outputs.clone(),
        // One of its values is the answer, which then has no names of its own.
        _ => Vec::new(),
    }
}
