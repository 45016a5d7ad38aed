//! Inputs of a call: where they go, what they are called, what shape they have.

use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Map, Value};

use super::{one_of, one_of_first};
use crate::{
    building::search::{genome::Genome, knowledge::Context, slots::Place, words},
    skill::template,
};

/// Most near names that are looked at.
const NEAR: usize = 8;
/// Names under which APIs wrap a body.
const WRAPPERS: [&str; 6] = ["data", "body", "input", "payload", "item", "attributes"];

pub(super) fn location(
    genome: &Genome,
    context: &Context<'_>,
    random: &mut StdRng,
) -> Option<Genome> {
    let mut changed = genome.clone();
    let places = [Place::Query, Place::Query, Place::Header, Place::Body];
    let unused = context.unused(genome);
    // An input without a place comes first: it can't do anything where it is.
    if let Some(input) = one_of(&unused, random).filter(|_| random.random_bool(0.6)) {
        let place = *one_of(&places, random)?;
        changed.put(place, input, Value::String(format!("{{{input}}}")))?;
        return Some(changed);
    }
    let in_path: Vec<usize> = genome
        .segments()
        .iter()
        .enumerate()
        .filter(|(_, segment)| template::single(segment).is_some())
        .map(|(index, _)| index)
        .collect();
    let slots = genome.slots();
    if !in_path.is_empty() && (slots.is_empty() || random.random_bool(0.25)) {
        let at = *one_of(&in_path, random)?;
        let mut segments: Vec<String> = genome.segments().into_iter().map(str::to_owned).collect();
        let segment = segments.remove(at);
        changed.set_segments(&segments);
        let name = template::single(&segment)?;
        changed.put(*one_of(&places, random)?, name, Value::String(segment.clone()))?;
        return Some(changed);
    }
    let (from, name) = one_of(&slots, random)?;
    let value = changed.take(*from, name)?;
    if let Some(text) = value.as_str().filter(|text| template::single(text).is_some())
        && random.random_bool(0.3)
    {
        let mut segments: Vec<String> = genome.segments().into_iter().map(str::to_owned).collect();
        let at = if random.random_bool(0.7) {
            segments.len()
        } else {
            random.random_range(0..=segments.len())
        };
        segments.insert(at, text.to_owned());
        changed.set_segments(&segments);
        return Some(changed);
    }
    let to = *one_of(&places, random)?;
    changed.put(to, name, value)?;
    Some(changed)
}

pub(super) fn name(genome: &Genome, context: &Context<'_>, random: &mut StdRng) -> Option<Genome> {
    let slots = genome.slots();
    let (place, old) = one_of(&slots, random)?;
    let mut changed = genome.clone();
    let value = changed.take(*place, old)?;
    let input = value.as_str().and_then(template::single);
    let new = match random.random_range(0..10) {
        0 | 1 => input?.to_owned(),
        2 => one_of(&words::styles(old), random)?.clone(),
        3 => one_of(&words::styles(input?), random)?.clone(),
        4 | 5 => {
            let mut other = words::synonyms(old);
            other.extend(input.map(words::synonyms).unwrap_or_default());
            one_of(&other, random)?.clone()
        }
        6..=8 => {
            let from = input.filter(|_| random.random_bool(0.5)).unwrap_or(old);
            let near = words::nearest(from, &context.names);
            (*one_of_first(&near[..near.len().min(NEAR)], random)?).to_owned()
        }
        _ => one_of(&context.names, random)?.clone(),
    };
    changed.put(*place, &new, value)?;
    if let Some(style) = changed.call.list_style.remove(old) {
        changed.call.list_style.insert(new, style);
    }
    Some(changed)
}

pub(super) fn pagination(genome: &Genome, random: &mut StdRng) -> Option<Genome> {
    let mut changed = genome.clone();
    let own: Vec<String> =
        genome.call.query.keys().filter(|name| words::is_of_pages(name)).cloned().collect();
    match one_of(&own, random) {
        Some(old) => {
            let others: Vec<&str> = words::of_pages().filter(|name| name != old).collect();
            let text = changed.call.query.remove(old)?;
            let new = *one_of(&others, random)?;
            changed.put(Place::Query, new, Value::String(text))?;
        }
        None => {
            let names: Vec<&str> = words::of_pages().collect();
            let size = *one_of(&["1", "10", "50", "100"], random)?;
            changed.put(Place::Query, one_of(&names, random)?, size.into())?;
        }
    }
    Some(changed)
}

pub(super) fn list_style(
    genome: &Genome,
    context: &Context<'_>,
    random: &mut StdRng,
) -> Option<Genome> {
    let is_list = |text: &str| {
        let input = template::single(text).and_then(|name| context.seed.input(name));
        input.is_some_and(|input| ["array", "any"].contains(&input.r#type.as_str()))
    };
    let lists: Vec<&String> =
        genome.call.query.iter().filter(|(_, text)| is_list(text)).map(|(name, _)| name).collect();
    let name = *one_of(&lists, random)?;
    let style = *one_of(&["csv", "multi", "ssv", "pipes"], random)?;
    let mut changed = genome.clone();
    if style == "multi" {
        changed.call.list_style.remove(name);
    } else {
        changed.call.list_style.insert(name.clone(), style.to_owned());
    }
    Some(changed)
}

/// The body: one input for all of it, an object of its inputs, or either one inside of another
/// object.
pub(super) fn body(genome: &Genome, context: &Context<'_>, random: &mut StdRng) -> Option<Genome> {
    let inputs = &context.seed.manifest.inputs;
    let placeholder = |name: &str| Value::String(format!("{{{name}}}"));
    let mut changed = genome.clone();
    changed.call.body = match (&genome.call.body, random.random_range(0..5)) {
        (Some(Value::Object(body)), 0) if body.len() == 1 => {
            body.values().next().filter(|inner| inner.is_object() || inner.is_string()).cloned()
        }
        (Some(body), 1) => {
            let name = *one_of(&WRAPPERS, random)?;
            Some(Value::Object(Map::from_iter([(name.to_owned(), body.clone())])))
        }
        (Some(_), 2) => None,
        (_, 3) => {
            let whole: Vec<&str> = inputs
                .iter()
                .filter(|input| ["object", "array", "any"].contains(&input.r#type.as_str()))
                .map(|input| input.name.as_str())
                .collect();
            Some(placeholder(one_of(&whole, random)?))
        }
        (_, _) => {
            let in_path: Vec<&str> = template::names(&genome.path).collect();
            let entries: Map<String, Value> = inputs
                .iter()
                .map(|input| input.name.as_str())
                .filter(|name| !in_path.contains(name))
                .map(|name| (name.to_owned(), placeholder(name)))
                .collect();
            if entries.is_empty() {
                return None;
            }
            changed.call.query.retain(|_, text| template::single(text).is_none());
            Some(Value::Object(entries))
        }
    };
    Some(changed)
}

pub(super) fn omit(genome: &Genome, random: &mut StdRng) -> Option<Genome> {
    let mut changed = genome.clone();
    let slots = genome.slots();
    let fixed = |name: &String, place: Place| match place {
        Place::Query => template::names(&genome.call.query[name]).next().is_none(),
        Place::Header => template::names(&genome.call.headers[name]).next().is_none(),
        Place::Body => false,
    };
    // What is always the same is what went out of date.
    let stale: Vec<&(Place, String)> =
        slots.iter().filter(|(place, name)| fixed(name, *place)).collect();
    let (place, name) = match one_of(&stale, random).filter(|_| random.random_bool(0.7)) {
        Some(slot) => *slot,
        None => one_of(&slots, random)?,
    };
    changed.take(*place, name)?;
    Some(changed)
}
