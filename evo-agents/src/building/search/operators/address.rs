//! Where a call goes: server, path and method.

use evo_common::skill::HttpMethod;
use rand::{RngExt as _, rngs::StdRng};

use super::{one_of, one_of_first};
use crate::{
    building::search::{
        genome::Genome,
        knowledge::Context,
        moves::address::{is_literal, version},
        words,
    },
    skill::{package::SERVER_PLACEHOLDER, template},
    sources::openapi::naming,
};

/// Most near words that are looked at.
const NEAR: usize = 6;
/// Most segments of a path.
const MAX_SEGMENTS: usize = 10;

pub(super) fn base_url(
    genome: &Genome,
    context: &Context<'_>,
    random: &mut StdRng,
) -> Option<Genome> {
    let mut changed = genome.clone();
    let mut segments: Vec<String> = genome.segments().into_iter().map(str::to_owned).collect();
    match random.random_range(0..3) {
        0 => {
            let base = one_of(&context.knowledge.bases, random)?;
            changed.base.clone_from(base);
            if base == SERVER_PLACEHOLDER {
                changed.call.server = one_of(&context.knowledge.servers, random).cloned();
            }
        }
        1 => {
            let prefix = one_of(&context.prefixes, random)?;
            segments.insert(0, prefix.clone());
            changed.set_segments(&segments);
        }
        _ => {
            let first = segments.first().filter(|first| is_literal(first))?;
            segments = segments[1..].iter().filter(|s| *s != first).cloned().collect();
            changed.set_segments(&segments);
        }
    }
    Some(changed)
}

pub(super) fn verb(genome: &Genome, context: &Context<'_>, random: &mut StdRng) -> Option<Genome> {
    let all =
        [HttpMethod::Get, HttpMethod::Post, HttpMethod::Put, HttpMethod::Patch, HttpMethod::Delete];
    let others: Vec<Genome> = all
        .into_iter()
        .filter(|method| *method != genome.method)
        .map(|method| Genome { method, ..genome.clone() })
        .filter(|other| context.allows(other))
        .collect();
    one_of(&others, random).cloned()
}

pub(super) fn path(genome: &Genome, context: &Context<'_>, random: &mut StdRng) -> Option<Genome> {
    let segments: Vec<String> = genome.segments().into_iter().map(str::to_owned).collect();
    let literals: Vec<usize> =
        (0..segments.len()).filter(|index| is_literal(&segments[*index])).collect();
    let mut new = segments.clone();
    match random.random_range(0..20) {
        0..=3 => return adopted(genome, context, random),
        4..=8 => {
            let at = *one_of(&literals, random)?;
            new[at] = similar(&segments[at], context, random)?;
        }
        9 | 10 if segments.len() > 1 => {
            new.remove(random.random_range(0..segments.len()));
        }
        11 | 12 if segments.len() < MAX_SEGMENTS => {
            let word = one_of(&context.path_words, random)?.clone();
            new.insert(random.random_range(0..=segments.len()), word);
        }
        13 => {
            let mut changed = genome.clone();
            changed.path = match genome.path.strip_suffix('/') {
                Some("") => return None,
                Some(shorter) => shorter.to_owned(),
                None => format!("{}/", genome.path),
            };
            return Some(changed);
        }
        14 => {
            let at = *one_of(&literals, random)?;
            new[at] = words::plural(&segments[at]);
        }
        15 if segments.len() > 1 => {
            let at = random.random_range(1..segments.len());
            new.swap(at - 1, at);
        }
        16 => {
            let at = (0..segments.len()).find(|index| version(&segments[*index]).is_some())?;
            let number = version(&segments[at])?;
            let other = if number > 1 && random.random_bool(0.5) { number - 1 } else { number + 1 };
            new[at] = format!("v{other}");
        }
        17 => {
            let at = *one_of(&literals, random)?;
            new[at].clone_from(one_of(&words::styles(&segments[at]), random)?);
        }
        _ => {
            let mut inputs = context.unused(genome);
            if inputs.is_empty() {
                inputs = context.seed.manifest.inputs.iter().map(|i| i.name.clone()).collect();
            }
            let placeholder = format!("{{{}}}", one_of(&inputs, random)?);
            let at = random.random_range(0..=segments.len());
            match new.get_mut(at) {
                Some(place) => *place = placeholder,
                None if at < MAX_SEGMENTS => new.push(placeholder),
                None => return None,
            }
        }
    }
    let mut changed = genome.clone();
    changed.set_segments(&new);
    Some(changed)
}

/// A word that stands in the path of another skill, or says what this one does.
fn similar(segment: &str, context: &Context<'_>, random: &mut StdRng) -> Option<String> {
    if random.random_bool(0.3) {
        return one_of(&context.path_words, random).cloned();
    }
    let near = words::nearest(segment, &context.path_words);
    one_of_first(&near[..near.len().min(NEAR)], random).map(|word| (*word).to_owned())
}

/// The path of another skill, with this one's inputs in it.
fn adopted(genome: &Genome, context: &Context<'_>, random: &mut StdRng) -> Option<Genome> {
    let paths = &context.knowledge.paths;
    let near: Vec<&str> = match random.random_range(0..10) {
        0..=2 => words::nearest(&genome.path, paths),
        3..=6 => telling(context),
        _ => Vec::new(),
    };
    let path = match one_of_first(&near[..near.len().min(2 * NEAR)], random) {
        Some(path) => *path,
        None => one_of(paths, random)?.as_str(),
    };
    let inputs: Vec<String> =
        context.seed.manifest.inputs.iter().map(|input| input.name.clone()).collect();
    let mut left = inputs.clone();
    let mut adopted = String::new();
    for part in template::parts(path) {
        match part {
            template::Part::Text(text) => adopted.push_str(text),
            template::Part::Placeholder(name) => {
                let own = if left.iter().any(|input| input == name) {
                    name.to_owned()
                } else {
                    (*words::nearest(name, &left).first()?).to_owned()
                };
                left.retain(|input| *input != own);
                adopted.push_str(&format!("{{{own}}}"));
            }
        }
    }
    let mut changed = genome.clone();
    changed.go_to(&adopted);
    Some(changed)
}

/// Paths of other skills, those first that share words with what this one is said to do.
fn telling<'a>(context: &'a Context<'_>) -> Vec<&'a str> {
    let manifest = &context.seed.manifest;
    let mut own = naming::words(&manifest.name);
    own.extend(naming::words(&manifest.description));
    let mut paths: Vec<(f64, &str)> = context
        .knowledge
        .paths
        .iter()
        .map(|path| {
            let words = naming::words(path);
            let shared = words.iter().filter(|word| own.contains(word)).count();
            (shared as f64 / (words.len() as f64 + 1.0), path.as_str())
        })
        .collect();
    paths.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    paths.into_iter().map(|(_, path)| path).collect()
}
