//! What is in use already may be what somebody asks for: a skill as it is, or several in a row.
//!
//! Before anything is built for a request with examples, the skills in use that fit are called with
//! the examples that builders may see, through the same path and under the same policy as every call.
//! Nothing is called that may change something. What answers all of them is a proposal: it is measured
//! with the examples that nobody here has seen, like everything else. No model takes part, and the same
//! skills and answers give the same proposal.

mod chain;
mod trial;

use std::collections::BTreeSet;

use evo_common::{
    case::Case,
    clock::Timestamp,
    ids::sha256_hex,
    skill::{HttpMethod, SkillManifest},
    stage::{Candidate, CandidateKind},
    tool::is_of_type,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use self::trial::Trial;
use crate::{
    evaluation::oracle::Oracle,
    handler::{StageError, StageJob},
    skill::{
        package::{Kind, Package},
        parts::Parts,
        snapshot::Chosen,
    },
    sources::openapi::{canonical, naming::words},
};

/// Calls of skills in one cycle.
const MAX_CALLS: u32 = 600;
/// Calls for one request.
const MAX_CALLS_OF_ONE: u32 = 200;
/// Examples that a proposal has to answer at most; each costs calls.
const MAX_CASES: usize = 60;
/// Longest time that is spent on it in one cycle.
const MAX_TIME: Duration = Duration::from_secs(300);
/// Proposals for one request that were measured in vain, after which something new is built. Each is a
/// look at examples that should not be looked at often.
const MAX_TRIED: usize = 3;

/// The definition of a candidate of the kind `in_use`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InUse {
    /// The skill.
    pub skill: String,
    /// Digest of the version that was in use.
    pub artifact_id: String,
    /// Its version.
    pub version: String,
}

/// A skill in use that may be called without changing anything.
struct Part {
    chosen: Chosen,
    /// How many words it shares with the request.
    shared: usize,
}

impl Part {
    fn name(&self) -> &str {
        &self.manifest().name
    }

    fn manifest(&self) -> &SkillManifest {
        &self.chosen.package.manifest
    }
}

/// Puts what is in use already in the place of candidates for requests, where it answers their examples.
pub(crate) async fn instead(
    job: &StageJob,
    candidates: &mut [Candidate],
) -> Result<(), StageError> {
    if !candidates.iter().any(|candidate| candidate.kind == CandidateKind::Request) {
        return Ok(());
    }
    let skills = job.services.skills.snapshot(&job.context.servers, &job.run_id).await;
    let skills = skills.settled();
    let harmless: Vec<Chosen> = skills
        .manifests()
        .filter_map(|manifest| skills.choose(&manifest.name))
        .filter(|chosen| is_harmless(&chosen.package, &chosen.policy.parts))
        .collect();
    // Learning itself still has to end in time.
    let left = Duration::from_millis(job.deadline.ms_since(Timestamp::now()) / 2);
    let ends = Instant::now() + left.min(MAX_TIME);
    let mut calls = MAX_CALLS;
    for candidate in candidates.iter_mut().filter(|it| it.kind == CandidateKind::Request) {
        let tried = job.context.requests.iter().find_map(|request| {
            (Some(&request.request_id) == candidate.request_id.as_ref()).then_some(&request.tried)
        });
        let tried = tried.map_or(&[][..], Vec::as_slice);
        if tried.len() >= MAX_TRIED
            || candidate.cases.is_empty()
            || candidate.cases.len() > MAX_CASES
        {
            continue;
        }
        let parts = parts_for(candidate, &harmless);
        let mut trial = Trial::new(job, calls.min(MAX_CALLS_OF_ONE), ends);
        let before = trial.left();
        let found = propose(candidate, &parts, tried, &mut trial).await?;
        calls -= before - trial.left();
        if let Some(found) = found {
            tracing::info!(
                request.id = candidate.request_id.as_deref().unwrap_or_default(), skill = %found.name,
                kind = ?found.kind,
                "What is in use answers the examples of a request: {}", found.name
            );
            *candidate = found;
        }
    }
    Ok(())
}

async fn propose(
    candidate: &Candidate,
    parts: &[Part],
    tried: &[String],
    trial: &mut Trial<'_>,
) -> Result<Option<Candidate>, StageError> {
    let oracle = |case: &Case| Oracle::new(case, &[]).ok();
    let Some(oracles) = candidate.cases.iter().map(oracle).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    for part in parts.iter().filter(|part| takes(part.manifest(), &candidate.cases)) {
        let Some(answer) = as_it_is(candidate, part) else { continue };
        if !tried.contains(&answer.fingerprint)
            && trial.answers(&part.chosen, &candidate.cases).await?
        {
            return Ok(Some(answer));
        }
    }
    let of_others: Vec<&Part> = parts.iter().filter(|it| it.name() != candidate.name).collect();
    let is_new = |definition: &Value| !tried.contains(&fingerprint(candidate, definition));
    let found = chain::find(&of_others, &candidate.cases, &oracles, &is_new, trial).await?;
    Ok(found.map(|composition| {
        let definition = serde_json::to_value(composition).expect("steps are plain data");
        Candidate {
            kind: CandidateKind::Composed,
            fingerprint: fingerprint(candidate, &definition),
            // Its steps were chosen by what they do with the examples.
            deterministic: false,
            definition,
            ..candidate.clone()
        }
    }))
}

/// A skill in use as the answer to a request. [`None`] when nobody knows where it comes from.
fn as_it_is(candidate: &Candidate, part: &Part) -> Option<Candidate> {
    let package = &part.chosen.package;
    let made = package.provenance.as_ref()?;
    let definition = json!(InUse {
        skill: part.name().to_owned(),
        artifact_id: part.chosen.artifact_id.clone()?,
        version: package.manifest.version.clone(),
    });
    Some(Candidate {
        kind: CandidateKind::InUse,
        name: part.name().to_owned(),
        source: made.source.clone(),
        locator: made.locator.clone(),
        description: package.manifest.description.clone(),
        capabilities: package.manifest.capabilities.clone(),
        fingerprint: fingerprint(candidate, &definition),
        // Nobody builds it, and no model is asked.
        deterministic: true,
        definition,
        cases: Vec::new(),
        ..candidate.clone()
    })
}

/// Digest of a proposal for a request: with other examples it is another chance.
fn fingerprint(candidate: &Candidate, definition: &Value) -> String {
    let said = format!("reuse/1\n{}\n{}", candidate.fingerprint, canonical(definition));
    sha256_hex(said.as_bytes())
}

/// The skills that may be called for a request, those first that its words speak of.
fn parts_for(candidate: &Candidate, harmless: &[Chosen]) -> Vec<Part> {
    let wanted: BTreeSet<String> =
        candidate.capabilities.iter().flat_map(|text| words(text)).collect();
    let shared = |manifest: &SkillManifest| {
        let texts = [&manifest.name, &manifest.description].into_iter();
        let own: BTreeSet<String> =
            texts.chain(&manifest.capabilities).flat_map(|text| words(text)).collect();
        own.intersection(&wanted).count()
    };
    let part =
        |chosen: &Chosen| Part { shared: shared(&chosen.package.manifest), chosen: chosen.clone() };
    let mut parts: Vec<Part> = harmless.iter().map(part).collect();
    parts.sort_by(|a, b| b.shared.cmp(&a.shared).then_with(|| a.name().cmp(b.name())));
    parts
}

/// Whether a skill takes the inputs of all cases as they are.
fn takes(manifest: &SkillManifest, cases: &[Case]) -> bool {
    cases.iter().all(|case| {
        let known = |(name, value): (&String, &Value)| {
            manifest.inputs.iter().any(|io| io.name == *name && is_of_type(value, &io.r#type))
        };
        let given = |name: &str| case.input.contains_key(name);
        case.input.iter().all(known)
            && manifest.inputs.iter().all(|io| !io.required || given(&io.name))
    })
}

/// Whether a call changes nothing anywhere: it reads over HTTP, runs code without network, or calls only
/// such skills. What a tool of an MCP server does, its package does not say.
fn is_harmless(package: &Package, parts: &Parts) -> bool {
    match &package.kind {
        Kind::Http => {
            let endpoints = &package.config.endpoints;
            endpoints.iter().all(|endpoint| endpoint.method == HttpMethod::Get)
        }
        Kind::Code => package.runtime.as_ref().is_none_or(|runtime| runtime.network.is_empty()),
        Kind::Mcp(_) => false,
        Kind::Composed(composition) => composition.skills().into_iter().all(|name| {
            // Composed skills can't be made of each other without end: a part has to be there first.
            parts.get(name).is_some_and(|part| match part.package.kind {
                Kind::Composed(_) => false,
                _ => is_harmless(&part.package, parts),
            })
        }),
    }
}
