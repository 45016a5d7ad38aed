//! Likely names, places and shapes of what is sent.

use std::collections::BTreeMap;

use evo_common::skill::HttpMethod;
use serde_json::{Map, Value};

use super::List;
use crate::{
    building::search::{knowledge::Context, slots::Place, words, world::Seen},
    skill::template,
    sources::openapi::naming,
};

/// A name that is nearer than this may be what was meant.
const NEAR: f64 = 0.75;
/// Names under which APIs wrap a body.
const WRAPPERS: [&str; 6] = ["data", "body", "input", "payload", "item", "attributes"];

/// Names for an input at a place, with how likely each is.
fn names(
    input: Option<&str>,
    old: Option<&str>,
    place: Place,
    seen: &Seen,
    context: &Context<'_>,
) -> BTreeMap<String, f64> {
    let mut found: BTreeMap<String, f64> = BTreeMap::new();
    let mut add = |weight: f64, name: &str| {
        let known = found.entry(name.to_owned()).or_default();
        *known = known.max(weight);
    };
    let r#type = input.and_then(|input| context.seed.input(input)).map(|input| &input.r#type);
    let r#type = r#type.map_or("any", String::as_str);
    for name in input.and_then(|input| context.evidence.echoes.get(input)).into_iter().flatten() {
        add(1.0, name);
    }
    for (at, name) in seen.named.iter().enumerate() {
        add(0.9 / (1.0 + 0.2 * at as f64), name);
    }
    for from in [input, old].into_iter().flatten() {
        for name in &context.names {
            let near = words::likeness(from, name);
            if near >= NEAR {
                add(0.4 + 1.6 * (near - NEAR), name);
            }
        }
        for style in words::styles(from) {
            add(0.3, &style);
        }
        for other in words::synonyms(from) {
            add(if context.knows(&other, place) { 0.6 } else { 0.2 }, &other);
        }
        // Without what was put before or after it.
        let parts = naming::words(from);
        if parts.len() > 1 {
            for part in [&parts[1..], &parts[..parts.len() - 1]] {
                add(0.45, &part.join("_"));
            }
        }
    }
    for parameter in context.knowledge.parameters.keys().filter(|known| known.place == place) {
        add(0.5 * context.usual(&parameter.name, place, r#type), &parameter.name);
    }
    if let Some(input) = input {
        add(0.7, input);
    }
    found
}

pub(super) fn name(list: &mut List<'_>, seen: &Seen, context: &Context<'_>) {
    let slots = list.start.slots();
    for (place, old) in &slots {
        let Some(text) = list.start.slot(*place, old) else { continue };
        let input = template::single(text);
        let sure = input.is_some_and(|input| {
            let echoes = context.evidence.echoes.get(input);
            echoes.is_some_and(|echoes| echoes.contains(old))
        });
        let doubt = match (sure, context.knows(old, *place)) {
            (true, _) => 0.2,
            (false, true) => 0.4,
            (false, false) => 1.0,
        };
        for (new, weight) in names(input, Some(old), *place, seen, context) {
            if slots.iter().any(|(_, name)| *name == new) {
                continue;
            }
            list.change(weight * doubt, |genome| {
                let value = genome.take(*place, old)?;
                genome.put(*place, &new, value)?;
                if let Some(style) = genome.call.list_style.remove(old) {
                    genome.call.list_style.insert(new.clone(), style);
                }
                Some(())
            });
        }
    }
}

/// How likely a parameter of this name stands there.
fn fits(name: &str, place: Place, method: HttpMethod, context: &Context<'_>) -> f64 {
    if context.knows(name, place) {
        return 1.0;
    }
    let has_body = !matches!(method, HttpMethod::Get | HttpMethod::Delete);
    let is_header = name.contains('-') && name.chars().any(|letter| letter.is_ascii_uppercase());
    match (place, has_body, is_header) {
        (Place::Header, _, true) => 0.8,
        (Place::Header, _, false) => 0.25,
        (Place::Query, false, _) => 0.9,
        (Place::Query, true, _) => 0.5,
        (Place::Body, true, _) => 0.9,
        (Place::Body, false, _) => 0.1,
    }
}

pub(super) fn location(list: &mut List<'_>, seen: &Seen, context: &Context<'_>) {
    let method = list.start.method;
    let slots = list.start.slots();
    // An input without a place can't do anything where it is.
    for input in context.unused(list.start) {
        let needed = context.seed.input(&input).is_some_and(|input| input.required);
        for place in Place::ALL {
            for (name, weight) in names(Some(&input), None, place, seen, context) {
                let weight =
                    weight * fits(&name, place, method, context) * if needed { 1.0 } else { 0.85 };
                list.change(weight, |genome| {
                    genome.put(place, &name, Value::String(format!("{{{input}}}")))
                });
            }
        }
    }
    for (from, name) in &slots {
        let doubt = if context.knows(name, *from) { 0.3 } else { 1.0 };
        for to in Place::ALL.into_iter().filter(|to| to != from) {
            list.change(0.6 * doubt * fits(name, to, method, context), |genome| {
                let value = genome.take(*from, name)?;
                genome.put(to, name, value)
            });
        }
    }
    // All at once: a form that was sent as a query, and the other way round.
    for (from, to) in [(Place::Query, Place::Body), (Place::Body, Place::Query)] {
        let all: Vec<&String> =
            slots.iter().filter(|(place, _)| *place == from).map(|(_, name)| name).collect();
        if all.len() > 1 {
            let weight = all.iter().map(|name| fits(name, to, method, context)).sum::<f64>();
            list.change(0.6 * weight / all.len() as f64, |genome| {
                for name in &all {
                    let value = genome.take(from, name)?;
                    genome.put(to, name, value)?;
                }
                Some(())
            });
        }
    }
    let segments: Vec<String> = list.start.segments().into_iter().map(str::to_owned).collect();
    for (at, segment) in segments.iter().enumerate() {
        let Some(input) = template::single(segment) else { continue };
        let mut rest = segments.clone();
        rest.remove(at);
        for place in Place::ALL {
            list.change(0.25 * fits(input, place, method, context), |genome| {
                genome.set_segments(&rest);
                genome.put(place, input, Value::String(segment.clone()))
            });
        }
    }
}

/// The body: without an object around it, in one, of all inputs, or one input as the whole.
pub(super) fn body(list: &mut List<'_>, seen: &Seen, context: &Context<'_>) {
    let genome = list.start;
    let wrapped =
        |name: &str, body: &Value| Value::Object(Map::from_iter([(name.to_owned(), body.clone())]));
    let reads = matches!(genome.method, HttpMethod::Get | HttpMethod::Delete);
    if let Some(body) = &genome.call.body {
        if let Value::Object(map) = body
            && let (1, Some((name, inner))) = (map.len(), map.iter().next())
        {
            let whole = inner.is_object() || inner.as_str().is_some_and(|t| t.starts_with('{'));
            let weight = if context.knows(name, Place::Body) { 0.4 } else { 0.9 };
            if whole {
                list.set(weight, |new| new.call.body = Some(inner.clone()));
            }
        }
        for name in seen.named.iter().take(3) {
            list.set(0.6, |new| new.call.body = Some(wrapped(name, body)));
        }
        for name in WRAPPERS {
            list.set(0.15, |new| new.call.body = Some(wrapped(name, body)));
        }
        list.set(if reads { 0.8 } else { 0.2 }, |new| new.call.body = None);
    }
    if reads {
        return;
    }
    let in_path: Vec<&str> = template::names(&genome.path).collect();
    let inputs: Vec<_> = context
        .seed
        .manifest
        .inputs
        .iter()
        .filter(|input| !in_path.contains(&input.name.as_str()))
        .collect();
    let placeholder = |name: &str| Value::String(format!("{{{name}}}"));
    let all: Map<String, Value> =
        inputs.iter().map(|input| (input.name.clone(), placeholder(&input.name))).collect();
    let sent = |text: &mut String| template::single(text).is_none();
    if !all.is_empty() {
        list.change(if genome.call.body.is_none() { 0.9 } else { 0.4 }, |new| {
            new.call.query.retain(|_, text| sent(text));
            new.call.body = Some(Value::Object(all));
            Some(())
        });
    }
    for input in inputs {
        let whole = match input.r#type.as_str() {
            "object" | "array" => 0.6,
            "any" => 0.4,
            _ => 0.1,
        };
        list.change(whole, |new| {
            new.call.query.retain(|_, text| template::single(text) != Some(&input.name));
            new.call.body = Some(placeholder(&input.name));
            Some(())
        });
    }
}

pub(super) fn omit(list: &mut List<'_>, seen: &Seen, context: &Context<'_>) {
    for (place, name) in list.start.slots() {
        let fixed = list
            .start
            .slot(place, &name)
            .is_some_and(|text| template::names(text).next().is_none());
        let weight = match (seen.named.contains(&name), fixed, context.knows(&name, place)) {
            (true, ..) => 0.9,
            (_, true, _) => 0.6,
            (_, _, false) => 0.3,
            _ => 0.12,
        };
        list.change(weight, |genome| genome.take(place, &name).map(|_| ()));
    }
    for name in list.start.headers.keys().filter(|name| !name.eq_ignore_ascii_case("accept")) {
        list.change(0.2, |genome| genome.headers.remove(name).map(|_| ()));
    }
}

pub(super) fn list_style(list: &mut List<'_>, context: &Context<'_>) {
    for (name, text) in &list.start.call.query {
        let input = template::single(text).and_then(|input| context.seed.input(input));
        if !input.is_some_and(|input| ["array", "any"].contains(&input.r#type.as_str())) {
            continue;
        }
        list.change(0.5, |genome| genome.call.list_style.remove(name).map(|_| ()));
        for style in ["csv", "ssv", "pipes"] {
            list.change(0.4, |genome| {
                genome.call.list_style.insert(name.clone(), style.to_owned());
                Some(())
            });
        }
    }
}
