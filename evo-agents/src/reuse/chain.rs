//! Skills in a row, found by what fits together: what the examples give, and what earlier skills have
//! answered, goes into the inputs of the next one by name and type, and is tried. The shortest row that
//! answers all examples is taken.

use std::collections::BTreeMap;

use evo_common::{
    case::Case,
    skill::{Composition, SkillIO, Step},
    tool::is_of_type,
};
use serde_json::{Map, Value, json};

use super::{
    Part,
    trial::{Trial, is_success},
};
use crate::{
    building::search::words::{styles, synonyms},
    evaluation::oracle::Oracle,
    handler::StageError,
    skill::{
        composition::{Reference, escaped, reference},
        execute::CallAnswer,
        snapshot::Chosen,
    },
    sources::openapi::naming::words,
};

/// Most skills in a row.
const MAX_STEPS: usize = 3;
/// Rows of one length that are made longer, the best ones.
const MAX_ROWS: usize = 12;
/// Ways to fill the inputs of one skill that are tried.
const MAX_WAYS: usize = 6;
/// Places that one input may be filled from.
const MAX_PLACES: usize = 3;
/// Places of one answer that are looked at, and how deep they are.
const MAX_POINTERS: usize = 80;
const MAX_DEPTH: usize = 4;
/// Places where the right answer may be that are tried for all examples.
const MAX_OUTPUTS: usize = 4;

/// How well a place fits an input: 0 is best.
type Fit = u32;
const SAME_NAME: Fit = 0;
const SAME_WORDS: Fit = 1;
const LAST_WORD: Fit = 2;
const TYPE_ALONE: Fit = 4;

/// A row of skills, with what came of the first example.
struct Row<'p> {
    parts: Vec<&'p Part>,
    steps: Vec<Step>,
    /// `{"input": …, "steps": […]}`
    known: Value,
    fit: Fit,
}

/// The next step of a row.
struct Next<'p, 'r> {
    row: &'r Row<'p>,
    part: &'p Part,
    input: BTreeMap<String, String>,
    fit: Fit,
}

/// The row that answers all cases with the fewest steps, if one does.
pub(super) async fn find(
    parts: &[&Part],
    cases: &[Case],
    oracles: &[Oracle],
    is_new: &(dyn Fn(&Value) -> bool + Sync),
    trial: &mut Trial<'_>,
) -> Result<Option<Composition>, StageError> {
    let (Some(first), Some(oracle)) = (cases.first(), oracles.first()) else { return Ok(None) };
    let empty = json!({"input": first.input, "steps": []});
    let mut rows = vec![Row { parts: Vec::new(), steps: Vec::new(), known: empty, fit: 0 }];
    for _ in 0..MAX_STEPS {
        let mut nexts: Vec<Next<'_, '_>> = Vec::new();
        for row in &rows {
            for part in
                parts.iter().filter(|part| !row.parts.iter().any(|it| it.name() == part.name()))
            {
                let ways = ways(part, row, cases);
                nexts.extend(ways.into_iter().map(|(input, fit)| Next { row, part, input, fit }));
            }
        }
        // Stable: equals stay in the order of the rows and of the skills.
        nexts.sort_by_key(|next| (next.fit, std::cmp::Reverse(next.part.shared)));
        let mut longer: Vec<Row<'_>> = Vec::new();
        for Next { row, part, input, fit } in nexts {
            if trial.is_over() {
                return Ok(None);
            }
            let step = Step { skill: part.name().to_owned(), input, fixed: BTreeMap::new() };
            let given = given(&step, &row.known);
            let Some(answer) = trial.call(&part.chosen, &given).await? else { continue };
            if !is_success(&part.chosen.package, &answer) {
                continue;
            }
            let mut next = Row {
                parts: row.parts.iter().copied().chain([part]).collect(),
                steps: row.steps.iter().cloned().chain([step]).collect(),
                known: row.known.clone(),
                fit,
            };
            note(&mut next.known, &answer);
            for output in outputs(&answer.body, next.steps.len() - 1, oracle) {
                let composition =
                    Composition { output, classes: Vec::new(), steps: next.steps.clone() };
                if takes_everything(&composition, cases)
                    && is_new(&json!(composition))
                    && passes(&next.parts, &composition, cases, oracles, trial).await?
                {
                    return Ok(Some(composition));
                }
            }
            longer.push(next);
        }
        longer.sort_by_key(|row| row.fit);
        longer.truncate(MAX_ROWS);
        rows = longer;
    }
    Ok(None)
}

/// The inputs of a step, from what is known.
fn given(step: &Step, known: &Value) -> Map<String, Value> {
    let value =
        |(name, pointer): (&String, &String)| Some((name.clone(), known.pointer(pointer)?.clone()));
    step.input.iter().filter_map(value).collect()
}

fn note(known: &mut Value, answer: &CallAnswer) {
    if let Some(steps) = known["steps"].as_array_mut() {
        steps.push(json!({"status": answer.status, "body": answer.body}));
    }
}

/// Whether nothing of the examples' input is left over: an input that no step takes would be refused.
fn takes_everything(composition: &Composition, cases: &[Case]) -> bool {
    let used = |name: &str| {
        let pointers = composition.steps.iter().flat_map(|step| step.input.values());
        let name = escaped(name);
        pointers.into_iter().any(|it| reference(it) == Some(Reference::Input(&name)))
    };
    cases.iter().flat_map(|case| case.input.keys()).all(|name| used(name))
}

/// Whether a composition answers every case.
async fn passes(
    parts: &[&Part],
    composition: &Composition,
    cases: &[Case],
    oracles: &[Oracle],
    trial: &mut Trial<'_>,
) -> Result<bool, StageError> {
    let skills: Vec<&Chosen> = parts.iter().map(|part| &part.chosen).collect();
    for (case, oracle) in cases.iter().zip(oracles) {
        let mut known = json!({"input": case.input, "steps": []});
        for (step, skill) in composition.steps.iter().zip(&skills) {
            match trial.call(skill, &given(step, &known)).await? {
                Some(answer) if is_success(&skill.package, &answer) => note(&mut known, &answer),
                _ => return Ok(false),
            }
        }
        let last = format!("/steps/{}/body", composition.steps.len() - 1);
        let body = known.pointer(composition.output.as_deref().unwrap_or(&last));
        if body.is_none_or(|body| oracle.check(&answered(body)).is_err()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The answer that a composed skill gives.
fn answered(body: &Value) -> CallAnswer {
    CallAnswer {
        status: 200,
        content_type: Some("application/json".to_owned()),
        bytes: 0,
        body: body.clone(),
        latency: std::time::Duration::ZERO,
        allow: Vec::new(),
    }
}

/// Where the last answer is right: as a whole, or in a part of it.
fn outputs(body: &Value, step: usize, oracle: &Oracle) -> Vec<Option<String>> {
    let fits = |value: &Value| oracle.check(&answered(value)).is_ok();
    let whole = fits(body).then_some(None);
    let inside = places(body)
        .into_iter()
        .filter(|place| !place.pointer.is_empty() && fits(place.value))
        .map(|place| Some(format!("/steps/{step}/body{}", place.pointer)));
    whole.into_iter().chain(inside).take(MAX_OUTPUTS).collect()
}

/// A value in an answer.
struct Place<'v> {
    pointer: String,
    /// The names that lead to it.
    names: Vec<&'v str>,
    value: &'v Value,
}

/// The values in an answer, those at the top first. Of a list the first item stands for all.
fn places(body: &Value) -> Vec<Place<'_>> {
    let mut found = vec![Place { pointer: String::new(), names: Vec::new(), value: body }];
    let mut at = 0;
    while at < found.len() && found.len() < MAX_POINTERS {
        let Place { pointer, names, value } = &found[at];
        let deeper: Vec<Place<'_>> = match value {
            _ if pointer.matches('/').count() >= MAX_DEPTH => Vec::new(),
            Value::Object(map) => map
                .iter()
                .map(|(name, value)| Place {
                    pointer: format!("{pointer}/{}", escaped(name)),
                    names: names.iter().copied().chain([name.as_str()]).collect(),
                    value,
                })
                .collect(),
            Value::Array(list) => list
                .first()
                .map(|value| Place { pointer: format!("{pointer}/0"), names: names.clone(), value })
                .into_iter()
                .collect(),
            _ => Vec::new(),
        };
        found.extend(deeper);
        at += 1;
    }
    found.truncate(MAX_POINTERS);
    found
}

/// The ways to fill a skill's inputs at the end of a row, the best first. Each takes something of the
/// answer before, or of the examples when it is the first one.
fn ways(part: &Part, row: &Row<'_>, cases: &[Case]) -> Vec<(BTreeMap<String, String>, Fit)> {
    let mut ways: Vec<(BTreeMap<String, String>, Fit)> = vec![(BTreeMap::new(), row.fit)];
    for input in &part.manifest().inputs {
        let mut from = from_examples(input, cases, part.shared > 0);
        if input.required {
            from.extend(from_answers(input, row));
        } else {
            from.retain(|(_, fit)| *fit <= SAME_WORDS);
        }
        from.sort_by_key(|(_, fit)| *fit);
        from.truncate(MAX_PLACES);
        if from.is_empty() {
            if input.required {
                return Vec::new();
            }
            continue;
        }
        let mut fuller = Vec::new();
        for (way, sum) in &ways {
            for (pointer, fit) in &from {
                // One value for two inputs is no good guess.
                if !way.values().any(|known| known == pointer) {
                    let mut way = way.clone();
                    way.insert(input.name.clone(), pointer.clone());
                    fuller.push((way, sum + fit));
                }
            }
            if !input.required && !fuller.iter().any(|(fuller, _)| fuller.len() > way.len()) {
                fuller.push((way.clone(), *sum));
            }
        }
        fuller.sort_by_key(|(_, fit)| *fit);
        fuller.truncate(MAX_WAYS);
        ways = fuller;
    }
    let needed = match row.steps.len() {
        0 => "/input/".to_owned(),
        done => format!("/steps/{}/", done - 1),
    };
    ways.retain(|(way, _)| way.values().any(|pointer| pointer.starts_with(&needed)));
    ways
}

/// Inputs of the examples that an input may be filled from: always there, if it is required, and of its
/// type. By its type alone only where the request speaks of the skill.
fn from_examples(input: &SkillIO, cases: &[Case], by_type: bool) -> Vec<(String, Fit)> {
    let mut names: Vec<&String> = cases.iter().flat_map(|case| case.input.keys()).collect();
    names.sort();
    names.dedup();
    let mut found = Vec::new();
    for name in names {
        let fits = |case: &Case| match case.input.get(name) {
            Some(value) => is_of_type(value, &input.r#type),
            None => !input.required,
        };
        if !cases.iter().all(fits) {
            continue;
        }
        let fit = by_name(&input.name, &[name]).or(by_type.then_some(TYPE_ALONE));
        found.extend(fit.map(|fit| (format!("/input/{}", escaped(name)), fit)));
    }
    found
}

/// Places in the answers before that an input may be filled from, those of the last one first.
fn from_answers(input: &SkillIO, row: &Row<'_>) -> Vec<(String, Fit)> {
    let steps = row.known["steps"].as_array().map_or(&[][..], Vec::as_slice);
    let mut found = Vec::new();
    for (index, step) in steps.iter().enumerate().rev() {
        for place in places(&step["body"]) {
            if place.value.is_null() || !is_of_type(place.value, &input.r#type) {
                continue;
            }
            // An answer that is one value, or one list, is what there is to pass on.
            let whole = place.names.is_empty() && !place.value.is_object();
            let fit = by_name(&input.name, &place.names).or(whole.then_some(TYPE_ALONE));
            found.extend(fit.map(|fit| (format!("/steps/{index}/body{}", place.pointer), fit)));
        }
    }
    found
}

/// How well the names that lead to a value fit the name of an input.
fn by_name(wanted: &str, names: &[&str]) -> Option<Fit> {
    let last = *names.last()?;
    if last == wanted {
        return Some(SAME_NAME);
    }
    if styles(wanted).iter().any(|style| style == last)
        || synonyms(wanted).iter().any(|other| other == last)
    {
        return Some(SAME_WORDS);
    }
    let (wanted, all) = (words(wanted), names.iter().flat_map(|name| words(name)));
    let all: Vec<String> = all.collect();
    if !wanted.is_empty() && all.ends_with(&wanted) {
        return Some(SAME_WORDS);
    }
    // `city_id` from `id`, and `id` from `city_id`.
    let own = words(last);
    let ends = !own.is_empty() && (wanted.ends_with(&own) || own.ends_with(&wanted));
    (ends && !wanted.is_empty()).then_some(LAST_WORD)
}
