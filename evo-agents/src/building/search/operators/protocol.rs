//! How a call is made: media types, tokens, patience, and what counts as its answer.

use evo_common::skill::HttpCall;
use rand::{RngExt as _, rngs::StdRng};

use super::one_of;
use crate::building::search::{genome::Genome, knowledge::Context};

/// Media types that are tried when none is known.
const MEDIA: [&str; 6] = [
    "application/json",
    "application/x-www-form-urlencoded",
    "text/plain",
    "application/xml",
    "text/html",
    "*/*",
];
/// Time limits that are tried, in milliseconds.
const TIMEOUTS: [u64; 5] = [1_000, 2_000, 5_000, 10_000, 30_000];
/// Headers in which APIs take a key.
const KEY_HEADERS: [&str; 3] = ["X-API-Key", "Authorization", "X-Auth-Token"];
/// Query parameters in which APIs take a key.
const KEY_NAMES: [&str; 4] = ["api_key", "token", "key", "access_token"];

pub(super) fn content_type(
    genome: &Genome,
    context: &Context<'_>,
    random: &mut StdRng,
) -> Option<Genome> {
    genome.call.body.as_ref()?;
    let mut changed = genome.clone();
    changed.call.content_type = Some(media(context, random)?);
    Some(changed)
}

pub(super) fn accept(
    genome: &Genome,
    context: &Context<'_>,
    random: &mut StdRng,
) -> Option<Genome> {
    let mut changed = genome.clone();
    let own = || {
        let is_accept = |name: &&String| name.eq_ignore_ascii_case("accept");
        genome.headers.keys().find(is_accept).cloned()
    };
    let name = own().unwrap_or_else(|| "Accept".to_owned());
    match random.random_range(0..4) {
        0 => {
            changed.headers.remove(&name)?;
        }
        1 => {
            changed.headers.insert(name, media(context, random)?);
        }
        _ => {
            changed.headers.insert(name, one_of(&context.expected, random)?.clone());
        }
    }
    Some(changed)
}

/// A media type of another skill, or a usual one.
fn media(context: &Context<'_>, random: &mut StdRng) -> Option<String> {
    let known = &context.knowledge.media;
    if !known.is_empty() && random.random_bool(0.5) {
        return one_of(known, random).cloned();
    }
    one_of(&MEDIA, random).map(|text| (*text).to_owned())
}

pub(super) fn auth(genome: &Genome, context: &Context<'_>, random: &mut StdRng) -> Option<Genome> {
    let mut changed = genome.clone();
    let own = context.seed.config.auth_ref.iter().map(|name| (name.clone(), None));
    let known: Vec<(String, Option<String>)> =
        context.knowledge.auth.iter().cloned().chain(own).collect();
    let (name, scheme) = one_of(&known, random)?.clone();
    changed.auth_ref = Some(name);
    changed.call.auth_scheme = match random.random_range(0..6) {
        0 => None,
        1 => Some("basic".to_owned()),
        2 => Some(format!("header:{}", one_of(&KEY_HEADERS, random)?)),
        3 => Some(format!("query:{}", one_of(&KEY_NAMES, random)?)),
        _ => scheme,
    };
    Some(changed)
}

pub(super) fn timeout(genome: &Genome, random: &mut StdRng) -> Option<Genome> {
    let mut changed = genome.clone();
    changed.call.timeout_ms = *one_of(&TIMEOUTS, random)?;
    Some(changed)
}

pub(super) fn retry(genome: &Genome, random: &mut StdRng) -> Genome {
    let mut changed = genome.clone();
    changed.call.retries = random.random_range(0..=HttpCall::MAX_RETRIES);
    changed
}

pub(super) fn output(
    genome: &Genome,
    context: &Context<'_>,
    random: &mut StdRng,
) -> Option<Genome> {
    let mut changed = genome.clone();
    changed.call.output = match (&genome.call.output, random.random_range(0..3)) {
        (Some(_), 0) => None,
        (Some(pointer), 1) => {
            let shorter = pointer.rsplit_once('/').map_or("", |(shorter, _)| shorter);
            Some(shorter.to_owned()).filter(|shorter| !shorter.is_empty())
        }
        (_, _) => Some(one_of(&context.pointers, random)?.clone()),
    };
    Some(changed)
}

/// A 2xx status that was answered becomes a declared one.
pub(super) fn success(genome: &Genome, context: &Context<'_>) -> Genome {
    let mut changed = genome.clone();
    changed.call.success.extend(context.statuses.iter().copied());
    changed.call.success.sort_unstable();
    changed.call.success.dedup();
    changed
}
