//! Better names and descriptions, written by a model if there is one.
//!
//! A model only ever writes texts for people: descriptions, and the name of a skill that king does
//! not know yet. What is called, how, and how it is tested comes from the document alone. Each
//! text is checked by itself, and whatever does not pass leaves the original in place; so does a
//! model that fails, is slow or is not there.

mod check;
mod prompt;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use evo_common::{
    clock::Timestamp,
    skill::{SkillIO, SkillManifest, Written},
    stage::{Candidate, KnownName, ModelUsage},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

pub(crate) use self::check::{About, description};
use self::prompt::{Prompt, Shown};
use crate::{
    gateway::{Error, GatewayClient, JsonAnswer},
    skill::package::Package,
    sources::openapi::{
        cases,
        naming::{Names, kebab, words},
        operation::Operation,
    },
};

/// [`Written::fields`]: the skill's name.
const NAME: &str = "name";
/// [`Written::fields`]: what the skill does.
const DESCRIPTION: &str = "description";
/// Characters that a description has at least.
const MIN_DESCRIPTION: usize = 20;
/// Characters that a text about an input has at least.
const MIN_INPUT: usize = 8;
/// Most operations in one call.
const MAX_OPERATIONS: usize = 40;
/// Most bytes of data in one call.
const MAX_DATA: usize = 48 * 1024;
/// Most bytes of one operation in it.
const MAX_OPERATION: usize = 6 * 1024;
/// How long all calls of one cycle may take.
const CYCLE_TIME: Duration = Duration::from_secs(20);
/// How long the call for one package may take.
const PACKAGE_TIME: Duration = Duration::from_secs(15);
/// How long models are left alone after a call that brought nothing.
const REST: Duration = Duration::from_secs(60);

/// Whether a description tells nobody what the operation does.
fn is_poor(description: &str, operation: &Operation) -> bool {
    let text = description.trim();
    let same = |other: &str| words(text) == words(other);
    text.chars().count() < MIN_DESCRIPTION
        || is_fallback(text, operation)
        || same(&operation.locator())
        || operation.operation_id.as_deref().is_some_and(same)
}

/// Whether this is what stands in for a description that the document does not have.
fn is_fallback(description: &str, operation: &Operation) -> bool {
    description == format!("Calls {}.", operation.locator())
}

fn is_poor_input(description: Option<&str>, name: &str) -> bool {
    description
        .is_none_or(|text| text.trim().chars().count() < MIN_INPUT || words(text) == words(name))
}

/// What the model's calls came to, if there were any.
pub(crate) fn usage(gateway: Option<&GatewayClient>) -> Option<ModelUsage> {
    gateway.map(GatewayClient::usage).filter(|usage| usage.calls > 0)
}

/// Gives candidates that king knows the texts that a model wrote for them before, so that the same
/// definition keeps the same texts.
pub(crate) fn keep(candidates: &mut [Candidate], known: &[KnownName]) {
    let known: HashMap<&str, &KnownName> =
        known.iter().map(|known| (known.name.as_str(), known)).collect();
    for candidate in candidates {
        let Some(known) = known.get(candidate.name.as_str()) else { continue };
        if (&known.source, &known.locator) != (&candidate.source, &candidate.locator) {
            continue;
        }
        let description =
            known.description.as_ref().filter(|_| known.fingerprint == candidate.fingerprint);
        if let Some(description) = description {
            candidate.description.clone_from(description);
        }
        let holds = |field: &str| field == NAME || (field == DESCRIPTION && description.is_some());
        candidate.written = known
            .written
            .iter()
            .map(|written| Written {
                fields: written.fields.iter().filter(|field| holds(field)).cloned().collect(),
                ..written.clone()
            })
            .filter(|written| !written.fields.is_empty())
            .collect();
    }
}

/// A candidate that a model is asked about.
struct Asked {
    index: usize,
    operation: Operation,
    /// Whether its skill may get another name.
    rename: bool,
}

/// Asks for better descriptions of candidates that are new to king and say too little, and for
/// names of those that the document gives none. `known` is what king said of its skills; without
/// it no name changes.
pub(crate) async fn improve(
    gateway: &GatewayClient,
    candidates: &mut [Candidate],
    known: Option<&[KnownName]>,
    names: &mut Names,
    deadline: Timestamp,
) {
    let mut calls = gateway.calls_per_cycle();
    let asked = asked(candidates, known);
    if calls == 0 || asked.is_empty() || gateway.model().await.is_none() {
        return;
    }
    let ends = Instant::now() + share(deadline, CYCLE_TIME);
    for chunk in chunks(&asked, candidates) {
        if calls == 0 {
            tracing::info!("More descriptions could be improved; the cycle's calls are used up");
            return;
        }
        let shown: Vec<Shown<'_>> =
            chunk.iter().map(|asked| asked.shown(&candidates[asked.index])).collect();
        let prompt = prompt::batch(&shown);
        let left = ends.saturating_duration_since(Instant::now());
        let before = gateway.usage().calls;
        let answer = ask::<Value>(gateway, &prompt, u32::from(calls > 1), left).await;
        let Some(answer) = answer else { return };
        calls = calls.saturating_sub((gateway.usage().calls - before).max(1));
        let entries = entries(answer.value);
        let asked = chunk.len();
        let applied = apply(&answer.model, &prompt, entries, chunk, candidates, names);
        tracing::info!(
            model = %answer.model,
            "The model {} described {applied} of {asked} operations", answer.model
        );
    }
}

/// What half of the time that is left allows, so that the stage itself can still end in time.
fn share(deadline: Timestamp, most: Duration) -> Duration {
    Duration::from_millis(deadline.ms_since(Timestamp::now()) / 2).min(most)
}

/// An answer, or nothing: the work goes on without it.
async fn ask<T: serde::de::DeserializeOwned>(
    gateway: &GatewayClient,
    prompt: &Prompt,
    repairs: u32,
    limit: Duration,
) -> Option<JsonAnswer<T>> {
    match gateway.chat_json(&prompt.request, repairs, limit).await {
        Ok(answer) => Some(answer),
        Err(Error::NoModel) => None,
        Err(error) => {
            gateway.rest(REST);
            tracing::info!(
                %error, bytes = prompt.size,
                "The texts stay as they are, since the model could not be asked: {error}"
            );
            None
        }
    }
}

/// The candidates to ask about: those without any description first, then reading ones.
fn asked(candidates: &[Candidate], known: Option<&[KnownName]>) -> Vec<Asked> {
    let mut places = HashSet::new();
    let mut definitions = HashSet::new();
    for known in known.unwrap_or_default() {
        places.insert((known.source.as_str(), known.locator.as_str()));
        definitions.insert((known.name.as_str(), known.fingerprint.as_str()));
    }
    let mut asked = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        if definitions.contains(&(candidate.name.as_str(), candidate.fingerprint.as_str())) {
            continue;
        }
        let Ok(operation) = serde_json::from_value::<Operation>(candidate.definition.clone())
        else {
            continue;
        };
        let is_new = !places.contains(&(candidate.source.as_str(), candidate.locator.as_str()));
        let rename = known.is_some() && is_new && !has_own_name(candidate, &operation);
        let works = operation.problem.is_none() && !operation.streaming;
        if works && is_poor(&candidate.description, &operation) {
            asked.push(Asked { index, operation, rename });
        }
    }
    asked.sort_by_key(|asked| {
        let Asked { operation, .. } = asked;
        (!is_fallback(&operation.description, operation), !operation.reads() && !operation.safe)
    });
    asked
}

/// Whether the document itself names the operation, and the skill has that name.
fn has_own_name(candidate: &Candidate, operation: &Operation) -> bool {
    operation.operation_id.as_deref().is_some_and(|id| {
        let own = kebab(id);
        !own.is_empty() && candidate.name == format!("{}-{own}", kebab(&candidate.source))
    })
}

impl Asked {
    fn shown<'a>(&'a self, candidate: &'a Candidate) -> Shown<'a> {
        Shown::of(&self.operation, self.rename.then_some(candidate.name.as_str()))
    }
}

/// Cut by source, by number and by size. An operation that is too large alone is left out.
fn chunks<'a>(asked: &'a [Asked], candidates: &[Candidate]) -> Vec<Vec<&'a Asked>> {
    let mut chunks: Vec<(String, usize, Vec<&Asked>)> = Vec::new();
    for one in asked {
        let candidate = &candidates[one.index];
        let size = one.shown(candidate).size();
        if size > MAX_OPERATION {
            continue;
        }
        let open = chunks.iter_mut().rev().find(|(source, ..)| *source == candidate.source);
        match open {
            Some((_, bytes, chunk))
                if chunk.len() < MAX_OPERATIONS && *bytes + size <= MAX_DATA =>
            {
                *bytes += size;
                chunk.push(one);
            }
            _ => chunks.push((candidate.source.clone(), size, vec![one])),
        }
    }
    chunks.into_iter().map(|(_, _, chunk)| chunk).collect()
}

/// What a model says of one operation.
#[derive(Debug, Deserialize)]
struct Entry {
    locator: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    name: Option<String>,
}

/// The entries of an answer: a list, a list inside an object, or one entry alone. Entries that
/// can't be read are left out.
fn entries(answer: Value) -> Vec<Entry> {
    let list = match answer {
        Value::Array(list) => list,
        Value::Object(map) if map.contains_key("locator") => vec![Value::Object(map)],
        Value::Object(map) => map
            .into_iter()
            .find_map(|(_, value)| match value {
                Value::Array(list) => Some(list),
                _ => None,
            })
            .unwrap_or_default(),
        _ => Vec::new(),
    };
    list.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect()
}

/// Takes over what passes the checks; gives how many descriptions that were.
fn apply(
    model: &str,
    prompt: &Prompt,
    entries: Vec<Entry>,
    chunk: Vec<&Asked>,
    candidates: &mut [Candidate],
    names: &mut Names,
) -> usize {
    let mut open: HashMap<String, &Asked> =
        chunk.into_iter().map(|asked| (asked.operation.locator(), asked)).collect();
    let mut applied = 0;
    for entry in entries {
        // The first entry about an operation counts.
        let Some(asked) = open.remove(&entry.locator) else { continue };
        let candidate = &mut candidates[asked.index];
        let about = About::of(&asked.operation);
        let mut fields = Vec::new();
        if let Some(text) = entry.description {
            match check::description(&text, &about) {
                Ok(text) => {
                    candidate.description = text;
                    fields.push(DESCRIPTION.to_owned());
                    applied += 1;
                }
                Err(why) => {
                    // Whoever wrote this is not asked for a name either.
                    refused(&candidate.name, DESCRIPTION, why);
                    continue;
                }
            }
        }
        if let Some(text) = entry.name.filter(|_| asked.rename) {
            match check::name(&text, &candidate.source, &about) {
                Ok(name) if name == candidate.name => {}
                Ok(name) if names.rename(&candidate.name, &name) => {
                    candidate.name = name;
                    candidate.cases = cases::cases(&candidate.name, &asked.operation);
                    fields.push(NAME.to_owned());
                }
                Ok(_) => refused(&candidate.name, NAME, "another skill has it"),
                Err(why) => refused(&candidate.name, NAME, why),
            }
        }
        note(&mut candidate.written, model, &prompt.digest, fields);
    }
    applied
}

fn note(written: &mut Vec<Written>, model: &str, prompt: &str, fields: Vec<String>) {
    if !fields.is_empty() {
        let (model, prompt) = (model.to_owned(), prompt.to_owned());
        written.push(Written { model, prompt, fields });
    }
}

fn refused(skill: &str, field: &str, why: &str) {
    tracing::debug!(skill.name = %skill, field, why, "The model's {field} of {skill} is not used: {why}");
}

/// What a model says of one operation and its inputs.
#[derive(Debug, Default, Deserialize)]
struct PackageTexts {
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    inputs: HashMap<String, Value>,
}

/// Packages per hour and runner that a model is asked about for each call that Learning may make in
/// a cycle: a document of a thousand operations must not become a thousand paid calls.
const PACKAGES_PER_CALL: usize = 10;

/// Asks once for better texts of a package whose description says too little: candidate and
/// operation as they are to be built, or nothing to build them as they are.
pub(crate) async fn improved(
    gateway: &GatewayClient,
    candidate: &Candidate,
    operation: &Operation,
    deadline: Timestamp,
) -> Option<(Candidate, Operation)> {
    let shown = Shown::of(operation, None);
    let wanted = is_poor(&candidate.description, operation) && shown.size() <= MAX_OPERATION;
    let most = gateway.calls_per_cycle() as usize * PACKAGES_PER_CALL;
    if most == 0 || !wanted || gateway.model().await.is_none() {
        return None;
    }
    if !gateway.take_turn(most, Duration::from_secs(3_600)) {
        tracing::debug!(
            skill = %candidate.name,
            "{} keeps its texts: a model was asked about {most} packages within an hour",
            candidate.name
        );
        return None;
    }
    let prompt = prompt::single(&shown);
    let answer = ask::<PackageTexts>(gateway, &prompt, 0, share(deadline, PACKAGE_TIME)).await?;
    let (mut candidate, mut operation) = (candidate.clone(), operation.clone());
    let about = About::of(&operation);
    let mut fields = Vec::new();
    if let Some(text) = answer.value.description {
        match check::description(&text, &about) {
            Ok(text) => {
                candidate.description = text;
                fields.push(DESCRIPTION.to_owned());
            }
            Err(why) => refused(&candidate.name, DESCRIPTION, why),
        }
    }
    for parameter in &mut operation.parameters {
        let text = answer.value.inputs.get(&parameter.input).and_then(Value::as_str);
        let Some(text) = text else { continue };
        if !is_poor_input(parameter.description.as_deref(), &parameter.name) {
            continue;
        }
        let field = input_field(&parameter.input);
        match check::input(text, &about) {
            Ok(text) => {
                parameter.description = Some(text);
                fields.push(field);
            }
            Err(why) => refused(&candidate.name, &field, why),
        }
    }
    note(&mut candidate.written, &answer.model, &prompt.digest, fields);
    Some((candidate, operation))
}

/// Candidate and operation with the texts that a model wrote for an earlier package of the same
/// definition; nothing when it wrote none. The texts are checked again.
pub(crate) fn as_before(
    earlier: &Package,
    candidate: &Candidate,
    operation: &Operation,
) -> Option<(Candidate, Operation)> {
    let provenance = earlier.provenance.as_ref()?;
    if provenance.fingerprint != candidate.fingerprint {
        return None;
    }
    let (mut candidate, mut operation) = (candidate.clone(), operation.clone());
    let about = About::of(&operation);
    let known: Vec<Written> = std::mem::take(&mut candidate.written);
    for written in provenance.written.iter().filter(|written| !known.contains(written)) {
        let mut fields = written.fields.clone();
        fields.retain(|field| {
            if field == DESCRIPTION {
                let text = check::description(&earlier.manifest.description, &about);
                return text.map(|text| candidate.description = text).is_ok();
            }
            let parameter =
                operation.parameters.iter_mut().find(|p| input_field(&p.input) == *field);
            let Some(parameter) = parameter else { return false };
            let text = earlier.input(&parameter.input).and_then(|input| input.description.as_ref());
            let text = text.and_then(|text| check::input(text, &about).ok());
            text.map(|text| parameter.description = Some(text)).is_some()
        });
        note(&mut candidate.written, &written.model, &written.prompt, fields);
    }
    let found = !candidate.written.is_empty();
    candidate.written.splice(0..0, known);
    found.then_some((candidate, operation))
}

/// [`Written::fields`]: what is said of an input.
fn input_field(input: &str) -> String {
    format!("inputs.{input}.description")
}

/// Puts the texts that a model wrote for a package into the manifest that its definition compiles
/// to, each only if it passes the checks again. What then still differs, no model may have written.
pub(crate) fn overlay(
    compiled: &mut SkillManifest,
    built: &SkillManifest,
    written: &[Written],
    operation: &Operation,
) {
    let about = About::of(operation);
    let is_written = |field: &str| {
        written.iter().any(|written| written.fields.iter().any(|other| other == field))
    };
    if is_written(DESCRIPTION) && check::description(&built.description, &about).is_ok() {
        compiled.description.clone_from(&built.description);
    }
    let built_input = |name: &str| built.inputs.iter().find(|input: &&SkillIO| input.name == name);
    for input in &mut compiled.inputs {
        let text = built_input(&input.name).and_then(|input| input.description.as_ref());
        if let Some(text) = text
            && is_written(&input_field(&input.name))
            && check::input(text, &about).is_ok()
        {
            input.description = Some(text.clone());
        }
    }
}
