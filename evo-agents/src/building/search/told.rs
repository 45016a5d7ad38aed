//! A change of a call in words, for whoever reads where a package comes from.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    genome::{Genome, verb},
    slots::Place,
};

/// Longest text of one change.
const MAX_CHARS: usize = 200;

impl Place {
    fn told(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Header => "header",
            Self::Body => "body",
        }
    }
}

/// What was done: the operator's name, and what is called otherwise now.
pub(super) fn told(operator: &str, before: &Genome, after: &Genome) -> String {
    let what = changes(before, after).join("; ");
    let text = if what.is_empty() { operator.to_owned() } else { format!("{operator}: {what}") };
    if text.chars().count() <= MAX_CHARS {
        return text;
    }
    let mut short: String = text.chars().take(MAX_CHARS - 1).collect();
    short.push('…');
    short
}

fn changes(before: &Genome, after: &Genome) -> Vec<String> {
    let mut all = Vec::new();
    let mut add = |what: &str, old: &str, new: &str| match (old, new) {
        _ if old == new => {}
        ("", _) => all.push(format!("{what} {new} instead of none")),
        (_, "") => all.push(format!("no {what} instead of {old}")),
        _ => all.push(format!("{what} {new} instead of {old}")),
    };
    if after.is_composed() {
        let steps = |genome: &Genome| {
            genome.steps.iter().map(|step| step.skill.clone()).collect::<Vec<_>>().join(", ")
        };
        add("steps", &steps(before), &steps(after));
        add("answer", or_none(before.answer.as_deref()), or_none(after.answer.as_deref()));
        return all;
    }
    add("method", verb(before.method), verb(after.method));
    add("server", or_none(before.call.server.as_deref()), or_none(after.call.server.as_deref()));
    add("address", &before.base, &after.base);
    add("path", &before.path, &after.path);
    add("token", or_none(before.auth_ref.as_deref()), or_none(after.auth_ref.as_deref()));
    add(
        "token's scheme",
        or_none(before.call.auth_scheme.as_deref()),
        or_none(after.call.auth_scheme.as_deref()),
    );
    let headers = |genome: &Genome| listed(genome.headers.iter().map(|(k, v)| (k.clone(), v)));
    add("headers", &headers(before), &headers(after));
    for place in [Place::Query, Place::Header, Place::Body] {
        let of = |genome: &Genome| {
            let slots = genome.slots().into_iter().filter(|(other, _)| *other == place);
            slots
                .map(|(_, name)| {
                    let text = genome.slot(place, &name).unwrap_or("…").to_owned();
                    (name, text)
                })
                .collect::<BTreeMap<_, _>>()
        };
        let (old, new) = (of(before), of(after));
        let only = |one: &BTreeMap<String, String>, other: &BTreeMap<String, String>| {
            listed(
                one.iter().filter(|(k, v)| other.get(*k) != Some(*v)).map(|(k, v)| (k.clone(), v)),
            )
        };
        add(place.told(), &only(&old, &new), &only(&new, &old));
    }
    let whole = |genome: &Genome| match &genome.call.body {
        Some(body) if !body.is_object() => body.to_string(),
        Some(Value::Object(_)) => "an object".to_owned(),
        _ => String::new(),
    };
    add("body", &whole(before), &whole(after));
    add(
        "body's type",
        or_none(before.call.content_type.as_deref()),
        or_none(after.call.content_type.as_deref()),
    );
    add("output", or_none(before.call.output.as_deref()), or_none(after.call.output.as_deref()));
    let success = |genome: &Genome| {
        genome.call.success.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
    };
    add("success", &success(before), &success(after));
    let limit = |genome: &Genome| format!("{} ms", genome.call.timeout_ms);
    add("time limit", &limit(before), &limit(after));
    let retries = |genome: &Genome| genome.call.retries.to_string();
    add("repeats", &retries(before), &retries(after));
    let styles =
        |genome: &Genome| listed(genome.call.list_style.iter().map(|(k, v)| (k.clone(), v)));
    add("lists", &styles(before), &styles(after));
    all
}

fn or_none(text: Option<&str>) -> &str {
    text.unwrap_or_default()
}

fn listed<'a>(entries: impl Iterator<Item = (String, &'a String)>) -> String {
    entries.map(|(name, text)| format!("{name}={text}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::building::search::tests::package_of_orders;

    #[test]
    fn changes_are_told_in_words() {
        let before = Genome::of(&package_of_orders()).unwrap();
        let mut after = before.clone();
        assert_eq!(told("retry", &before, &after), "retry");
        after.path = "/orders".to_owned();
        after.auth_ref = None;
        after.put(Place::Query, "size", Value::String("{page_size}".to_owned())).unwrap();
        after.take(Place::Query, "limit");
        let expected = "recombine: path /orders instead of /api/customers/{customer}/orders; no token \
                        instead of SHOP_TOKEN; query size={page_size} instead of limit={page_size}";
        assert_eq!(told("recombine", &before, &after), expected);
        after.path = "/long".repeat(100);
        assert_eq!(told("path", &before, &after).chars().count(), MAX_CHARS);
    }
}
