//! Likely servers, paths and methods.

use std::collections::BTreeMap;

use evo_common::skill::HttpMethod;

use super::List;
use crate::{
    building::search::{genome::Genome, knowledge::Context, words, world::Seen},
    skill::{package::SERVER_PLACEHOLDER, template},
};

/// A word that is nearer than this may be what was meant.
const NEAR: f64 = 0.75;
/// Most words that are tried in one place.
const WORDS: usize = 24;
/// Most words that are tried in pairs.
const PAIRED: usize = 8;
/// Most beginnings of other paths that are continued.
const BEGINNINGS: usize = 16;
/// What an unfamiliar segment of a path is worth to look at, and one that other skills have, too.
const UNFAMILIAR: [f64; 2] = [1.0, 0.25];

pub(super) fn base_url(list: &mut List<'_>, context: &Context<'_>) {
    let genome = list.start;
    for base in &context.knowledge.bases {
        if base != SERVER_PLACEHOLDER {
            list.set(0.4, |new| new.base.clone_from(base));
            continue;
        }
        for server in &context.knowledge.servers {
            list.change(0.4, |new| {
                new.base.clone_from(base);
                new.call.server = Some(server.clone());
                Some(())
            });
        }
    }
    let segments = owned(genome);
    // A beginning that many paths have, and one that is followed by how this path begins.
    let paths = &context.knowledge.paths;
    let total = paths.len().max(1) as f64;
    for length in 1..=2 {
        let mut beginnings: BTreeMap<Vec<&str>, (u32, bool)> = BTreeMap::new();
        for path in paths {
            let other: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
            if other.len() < length || !other[..length].iter().all(|part| is_literal(part)) {
                continue;
            }
            let (count, goes_on) = beginnings.entry(other[..length].to_vec()).or_default();
            *count += 1;
            *goes_on |= other.get(length).copied() == segments.first().map(String::as_str);
        }
        for (beginning, (count, goes_on)) in beginnings {
            if beginning.first().copied() == segments.first().map(String::as_str) {
                continue;
            }
            let share = f64::from(count) / total;
            let weight = if goes_on { 0.95 } else { 0.1 + 0.8 * share };
            let mut longer: Vec<String> = beginning.iter().map(|part| (*part).to_owned()).collect();
            longer.extend(segments.iter().cloned());
            list.set(weight, |new| new.set_segments(&longer));
        }
    }
    for length in 1..=2.min(segments.len().saturating_sub(1)) {
        let (away, rest) = segments.split_at(length);
        if away.iter().all(|part| is_literal(part)) {
            let strange = away.iter().map(|part| unfamiliar(part, context)).fold(1.0, f64::min);
            let known = rest.first().is_some_and(|part| context.segments.contains(part));
            let weight = if known { 0.95 } else { 0.7 } * strange;
            list.set(weight, |new| new.set_segments(rest));
        }
    }
}

pub(super) fn verb(list: &mut List<'_>, seen: &Seen, context: &Context<'_>) {
    let all =
        [HttpMethod::Get, HttpMethod::Post, HttpMethod::Put, HttpMethod::Patch, HttpMethod::Delete];
    for method in all {
        let changed = Genome { method, ..list.start.clone() };
        if context.allows(&changed) {
            list.add(if seen.allow.contains(&method) { 1.0 } else { 0.4 }, changed);
        }
    }
}

pub(super) fn path(list: &mut List<'_>, seen: &Seen, context: &Context<'_>) {
    if let Some(path) = &seen.moved_to {
        list.set(1.0, |new| new.go_to(path));
    }
    for (at, link) in context.evidence.links.iter().enumerate() {
        list.set(0.9 / (1.0 + at as f64), |new| new.go_to(link));
    }
    single_edits(list, context);
    inputs_in_path(list, context);
    from_the_subject(list, context);
}

/// One segment is another word, is gone, or is written otherwise.
fn single_edits(list: &mut List<'_>, context: &Context<'_>) {
    let segments = owned(list.start);
    for (at, segment) in segments.iter().enumerate().filter(|(_, part)| is_literal(part)) {
        let strange = unfamiliar(segment, context);
        let mut put = |weight: f64, word: &str| {
            let mut new = segments.clone();
            word.clone_into(&mut new[at]);
            list.set(weight * strange, |genome| genome.set_segments(&new));
        };
        let told = context.subject.weighted();
        let known = context.segments.iter().map(|word| (0.15, word));
        let told = told.iter().map(|(weight, word)| (0.6 * weight, word));
        let mut others: Vec<(f64, &String)> = known
            .chain(told)
            .map(|(weight, word)| {
                let near = words::likeness(segment, word);
                (if near >= NEAR { 0.3 + 2.6 * (near - NEAR) } else { weight }, word)
            })
            .collect();
        others.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        others.truncate(WORDS);
        for (weight, word) in others {
            put(weight, word);
        }
        let plural = words::plural(segment);
        let known = context.segments.contains(&plural) || context.subject.weight(&plural) > 0.3;
        put(if known { 0.8 } else { 0.35 }, &plural);
        for style in words::styles(segment) {
            put(0.15, &style);
        }
        if let Some(number) = version(segment) {
            put(0.4, &format!("v{}", number + 1));
            put(0.4, &format!("v{}", number.saturating_sub(1).max(1)));
        }
        if at > 0 && segments.len() > 1 {
            let mut new = segments.clone();
            new.remove(at);
            list.set(0.3 * strange, |genome| genome.set_segments(&new));
        }
    }
    for (weight, word) in context.subject.weighted().iter().take(WORDS) {
        let mut new = segments.clone();
        new.push(word.clone());
        list.set(0.4 * weight, |genome| genome.set_segments(&new));
        for at in 1..segments.len() {
            let mut new = segments.clone();
            new.insert(at, word.clone());
            list.set(0.15 * weight, |genome| genome.set_segments(&new));
        }
    }
    list.change(0.2, |new| {
        new.path = match new.path.strip_suffix('/') {
            Some(shorter) if !shorter.is_empty() => shorter.to_owned(),
            Some(_) => return None,
            None => format!("{}/", new.path),
        };
        Some(())
    });
}

/// An input that is sent elsewhere, or not at all, is part of the path.
fn inputs_in_path(list: &mut List<'_>, context: &Context<'_>) {
    let segments = owned(list.start);
    let unused = context.unused(list.start);
    for input in &context.seed.manifest.inputs {
        if template::names(&list.start.path).any(|name| name == input.name) {
            continue;
        }
        let need = if input.required { 1.0 } else { 0.35 };
        let need = need * if unused.contains(&input.name) { 1.2 } else { 1.0 };
        for at in 1..=segments.len() {
            // Where other paths have a placeholder after the same word.
            let before = &segments[at - 1];
            let usual = is_literal(before)
                && context.knowledge.paths.iter().any(|path| {
                    let parts: Vec<&str> = path.split('/').collect();
                    parts.windows(2).any(|pair| pair[0] == before && !is_literal(pair[1]))
                });
            let weight = match (usual, at == segments.len()) {
                (true, _) => 0.75,
                (false, true) => 0.5,
                (false, false) => 0.2,
            };
            let mut new = segments.clone();
            new.insert(at, format!("{{{}}}", input.name));
            let path = format!("/{}", new.join("/"));
            list.set(weight * need, |genome| genome.go_to(&path));
        }
    }
}

/// Whole paths: how other paths begin, then words of what the skill is about, then its inputs.
fn from_the_subject(list: &mut List<'_>, context: &Context<'_>) {
    let words = context.subject.weighted();
    let mut tails: Vec<(f64, Vec<String>)> = vec![(0.5, Vec::new())];
    tails.extend(words.iter().take(WORDS).map(|(weight, word)| (*weight, vec![word.clone()])));
    for (first, one) in words.iter().take(PAIRED) {
        for (second, other) in words.iter().take(PAIRED) {
            if one != other && words::plural(one) != *other {
                tails.push((0.45 * first * second, vec![one.clone(), other.clone()]));
            }
        }
    }
    for (share, beginning) in beginnings(context) {
        for (weight, tail) in &tails {
            if beginning.is_empty() && tail.is_empty() {
                continue;
            }
            let mut path = beginning.clone();
            path.extend(tail.iter().cloned());
            let repeats =
                |pair: &[String]| pair[0] == pair[1] || words::plural(&pair[0]) == pair[1];
            if path.windows(2).any(repeats) {
                continue;
            }
            let named: Vec<&str> = path.iter().filter_map(|part| template::single(part)).collect();
            let needed: Vec<String> = context
                .seed
                .manifest
                .inputs
                .iter()
                .filter(|input| input.required && !named.contains(&input.name.as_str()))
                .map(|input| format!("{{{}}}", input.name))
                .collect();
            let weight = share * weight;
            let mut put = |weight: f64, path: &[String]| {
                let path = format!("/{}", path.join("/"));
                list.set(weight, |genome| genome.go_to(&path));
            };
            put(weight * if needed.is_empty() { 1.0 } else { 0.5 }, &path);
            if !needed.is_empty() {
                put(0.8 * weight, &[&path[..], &needed[..]].concat());
            }
            if needed.len() > 1 {
                put(0.5 * weight, &[&path[..], &needed[..1]].concat());
            }
            if let ([.., last], false, 2) = (&path[..], needed.is_empty(), tail.len()) {
                let before = &path[..path.len() - 1];
                put(0.5 * weight, &[before, &needed[..1], std::slice::from_ref(last)].concat());
            }
        }
    }
}

/// How other paths begin, this skill's inputs in them, with how likely each is; the likeliest first.
fn beginnings(context: &Context<'_>) -> Vec<(f64, Vec<String>)> {
    let paths = &context.knowledge.paths;
    let total = paths.len().max(1) as f64;
    let mut counts: BTreeMap<Vec<String>, u32> = BTreeMap::new();
    for path in paths {
        let mut inputs: Vec<String> =
            context.seed.manifest.inputs.iter().map(|input| input.name.clone()).collect();
        let mut parts: Vec<String> = Vec::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let own = match template::single(part) {
                None if is_literal(part) => part.to_owned(),
                None => break,
                Some(name) => {
                    let near = inputs.iter().map(|own| (words::likeness(name, own), own));
                    let nearest = near.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)));
                    let Some((_, own)) = nearest else { break };
                    let own = own.clone();
                    inputs.retain(|input| *input != own);
                    format!("{{{own}}}")
                }
            };
            parts.push(own);
            *counts.entry(parts.clone()).or_default() += 1;
        }
    }
    // Where every path begins with another word, so may this one.
    let alone = counts.iter().filter(|(parts, count)| parts.len() == 1 && **count == 1).count();
    let mut all = vec![(0.3 + 0.6 * alone as f64 / total, Vec::new())];
    all.extend(counts.into_iter().map(|(parts, count)| {
        let literals = || parts.iter().filter(|part| is_literal(part));
        let told: f64 = literals().map(|part| context.subject.weight(part)).sum();
        let told = told / literals().count().max(1) as f64;
        (0.1 + 0.35 * f64::from(count) / total + 0.5 * told.min(1.0), parts)
    }));
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    all.truncate(BEGINNINGS);
    all
}

impl Genome {
    /// Another path. What it holds now is not sent a second time, and what the old one held gets a
    /// place.
    pub(in crate::building::search) fn go_to(&mut self, path: &str) {
        let old = std::mem::replace(&mut self.path, path.to_owned());
        let in_path: Vec<String> = template::names(&self.path).map(str::to_owned).collect();
        let held = |text: &str| {
            template::single(text).is_some_and(|name| in_path.iter().any(|other| other == name))
        };
        self.call.query.retain(|_, text| !held(text));
        for name in template::names(&old) {
            if !self.used().iter().any(|used| used == name) {
                self.call.query.insert(name.to_owned(), format!("{{{name}}}"));
            }
        }
    }
}

fn owned(genome: &Genome) -> Vec<String> {
    genome.segments().into_iter().map(str::to_owned).collect()
}

fn unfamiliar(segment: &str, context: &Context<'_>) -> f64 {
    UNFAMILIAR[usize::from(context.segments.contains(segment))]
}

/// Whether a segment names no input.
pub(in crate::building::search) fn is_literal(segment: &str) -> bool {
    template::names(segment).next().is_none()
}

/// The number of a segment like `v2`.
pub(in crate::building::search) fn version(segment: &str) -> Option<u32> {
    segment.strip_prefix('v')?.parse().ok()
}
