//! Likely media types, tokens, time limits and places of the answer.

use evo_common::skill::HttpCall;

use super::List;
use crate::building::search::{knowledge::Context, world::Seen};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
/// Time limits that are tried, in milliseconds.
const TIMEOUTS: [u64; 3] = [5_000, 10_000, 30_000];
/// Most places of an answer that are looked at.
const PLACES: usize = 12;

pub(super) fn content_type(list: &mut List<'_>, context: &Context<'_>) {
    if list.start.call.body.is_none() {
        return;
    }
    let old = list.start.call.content_type.as_deref().unwrap_or(JSON);
    for (weight, media) in [(0.8, FORM), (0.8, JSON), (0.2, "text/plain"), (0.2, "application/xml")]
    {
        if media != old {
            list.set(weight, |new| new.call.content_type = Some(media.to_owned()));
        }
    }
    for media in context.knowledge.media.iter().filter(|media| *media != old) {
        list.set(0.5, |new| new.call.content_type = Some(media.clone()));
    }
}

pub(super) fn accept(list: &mut List<'_>, context: &Context<'_>) {
    let own = list.start.headers.keys().find(|name| name.eq_ignore_ascii_case("accept")).cloned();
    if let Some(name) = &own {
        list.change(0.6, |new| new.headers.remove(name).map(|_| ()));
    }
    let name = own.unwrap_or_else(|| "Accept".to_owned());
    let mut ask = |weight: f64, media: &str| {
        list.change(weight, |new| {
            new.headers.insert(name.clone(), media.to_owned());
            Some(())
        });
    };
    for media in &context.expected {
        ask(0.9, media);
    }
    for media in context.knowledge.media.iter().map(String::as_str).chain(["*/*"]) {
        ask(0.3, media);
    }
}

pub(super) fn auth(list: &mut List<'_>, context: &Context<'_>) {
    let own = context.seed.config.auth_ref.iter().map(|name| (name.clone(), None));
    for (name, scheme) in context.knowledge.auth.iter().cloned().chain(own) {
        let mut show = |weight: f64, scheme: Option<String>| {
            list.change(weight, |new| {
                new.auth_ref = Some(name.clone());
                new.call.auth_scheme = scheme;
                Some(())
            });
        };
        show(0.9, scheme);
        show(0.5, None);
        show(0.2, Some("basic".to_owned()));
        show(0.2, Some("header:X-API-Key".to_owned()));
        show(0.15, Some("query:api_key".to_owned()));
    }
}

pub(super) fn timeout(list: &mut List<'_>) {
    for limit in TIMEOUTS {
        let longer = limit > list.start.call.timeout_ms;
        let weight = if longer { 0.5 } else { 0.05 };
        list.set(weight, |new| new.call.timeout_ms = limit);
    }
}

pub(super) fn retry(list: &mut List<'_>) {
    list.set(0.5, |new| new.call.retries = HttpCall::MAX_RETRIES);
}

pub(super) fn output(list: &mut List<'_>, seen: &Seen, context: &Context<'_>) {
    if let Some(pointer) = &list.start.call.output {
        list.set(0.95, |new| new.call.output = None);
        if let Some((shorter, _)) = pointer.rsplit_once('/').filter(|(rest, _)| !rest.is_empty()) {
            list.set(0.4, |new| new.call.output = Some(shorter.to_owned()));
        }
        return;
    }
    if let Some(pointer) = &seen.answer_at {
        list.set(1.0, |new| new.call.output = Some(pointer.clone()));
    }
    for pointer in context.pointers.iter().take(PLACES) {
        list.set(0.08, |new| new.call.output = Some(pointer.clone()));
    }
}

/// A 2xx status that was answered becomes a declared one.
pub(super) fn success(list: &mut List<'_>, context: &Context<'_>) {
    list.change(0.8, |new| {
        new.call.success.extend(context.statuses.iter().copied());
        new.call.success.sort_unstable();
        new.call.success.dedup();
        Some(())
    });
}
