//! What a new version does otherwise than the one that it is compared with, in words for people.

use std::collections::{BTreeMap, BTreeSet};

use evo_common::{redact::redact, skill::SkillIO};
use serde_json::Value;

use super::genome::{Genome, verb};
use crate::skill::{
    package::{Kind, Package},
    template,
};

/// Most changes that are told.
const MOST: usize = 20;
/// Characters of a value.
const SHOWN: usize = 80;

/// Where a value of a call goes: the kind of place, and its name there.
type Slot = (&'static str, String);

/// Every difference that a caller or a server would notice; none when both do the same.
pub(crate) fn changes(before: &Package, after: &Package) -> Vec<String> {
    let mut told = match (&before.kind, &after.kind) {
        (Kind::Http, Kind::Http) => match (Genome::of(before), Genome::of(after)) {
            (Some(old), Some(new)) => of_calls(before, &old, after, &new),
            _ => Vec::new(),
        },
        (Kind::Composed(old), Kind::Composed(new)) => {
            let skills = |steps: &[evo_common::skill::Step]| {
                steps.iter().map(|step| step.skill.as_str()).collect::<Vec<_>>().join(", then ")
            };
            let (was, is) = (skills(&old.steps), skills(&new.steps));
            match (was == is, old == new) {
                (_, true) => Vec::new(),
                (true, false) => vec![format!("its steps ({is}) get other inputs")],
                (false, false) => vec![format!("it calls {is}, no longer {was}")],
            }
        }
        (Kind::Mcp(old), Kind::Mcp(new)) if old == new => Vec::new(),
        (Kind::Mcp(old), Kind::Mcp(new)) => {
            vec![format!("it calls the tool `{}`, no longer `{}`", new.tool, old.tool)]
        }
        (Kind::Code, Kind::Code) => {
            let entry = |package: &Package| {
                let name = package.runtime.as_ref().map(|runtime| runtime.entry.clone());
                name.and_then(|name| package.files.get(&name).cloned())
            };
            let is_same = entry(before) == entry(after);
            if is_same { Vec::new() } else { vec!["its program is another one".to_owned()] }
        }
        _ => vec![format!("it is {} now, no longer {}", kind(after), kind(before))],
    };
    told.extend(of_inputs(&before.manifest.inputs, &after.manifest.inputs));
    told.truncate(MOST);
    told.into_iter().map(|text| redact(&text).into_owned()).collect()
}

fn kind(package: &Package) -> &'static str {
    match package.kind {
        Kind::Http => "a call over HTTP",
        Kind::Code => "a program",
        Kind::Mcp(_) => "a tool of an MCP server",
        Kind::Composed(_) => "composed of other skills",
    }
}

fn of_inputs(before: &[SkillIO], after: &[SkillIO]) -> Vec<String> {
    let find = |list: &[SkillIO], name: &str| list.iter().find(|io| io.name == name).cloned();
    let mut told = Vec::new();
    for new in after {
        match find(before, &new.name) {
            None => told.push(format!("it takes `{}` ({}) now", new.name, new.r#type)),
            Some(old) if old.required != new.required => {
                let is = if new.required { "must be given now" } else { "may be left out now" };
                told.push(format!("`{}` {is}", new.name));
            }
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|old| find(after, &old.name).is_none());
    told.extend(gone.map(|old| format!("it takes no `{}` any more", old.name)));
    told
}

fn of_calls(before: &Package, old: &Genome, after: &Package, new: &Genome) -> Vec<String> {
    let mut told = Vec::new();
    let mut differs = |what: &str, old: &str, new: &str| {
        if old != new {
            told.push(format!("{what} is {}, no longer {}", quoted(new), quoted(old)));
        }
    };
    differs("the method", verb(old.method), verb(new.method));
    differs("the address", &old.base, &new.base);
    differs("the path", &old.path, &new.path);
    let (was, is) = (slots(old), slots(new));
    let inputs: BTreeSet<&str> = before
        .manifest
        .inputs
        .iter()
        .chain(&after.manifest.inputs)
        .map(|input| input.name.as_str())
        .collect();
    let mut done: BTreeSet<&Slot> = BTreeSet::new();
    for input in inputs {
        let of = |slots: &'_ BTreeMap<Slot, String>| {
            let found = slots.iter().find(|(_, value)| template::single(value) == Some(input));
            found.map(|(slot, _)| slot.clone())
        };
        let (old, new) = (of(&was), of(&is));
        done.extend(was.keys().filter(|slot| Some(*slot) == old.as_ref()));
        done.extend(is.keys().filter(|slot| Some(*slot) == new.as_ref()));
        match (old, new) {
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) if old.0 == new.0 => told.push(format!(
                "the input `{input}` is sent as {}, no longer as `{}`",
                place(&new),
                old.1
            )),
            (Some(old), Some(new)) => told.push(format!(
                "the input `{input}` is sent as {}, no longer as {}",
                place(&new),
                place(&old)
            )),
            (None, Some(new)) => {
                told.push(format!("the input `{input}` is sent as {}", place(&new)));
            }
            (Some(_), None) => told.push(format!("the input `{input}` is not sent any more")),
            (None, None) => {}
        }
    }
    for (slot, value) in is.iter().filter(|(slot, _)| !done.contains(slot)) {
        match was.get(slot) {
            Some(before) if before == value => {}
            Some(before) => told.push(format!(
                "{} is {}, no longer {}",
                place(slot),
                quoted(value),
                quoted(before)
            )),
            None => told.push(format!("{} is sent, as {}", place(slot), quoted(value))),
        }
    }
    for slot in was.keys().filter(|slot| !done.contains(slot) && !is.contains_key(*slot)) {
        told.push(format!("{} is not sent any more", place(slot)));
    }
    told.extend(of_settings(old, new));
    told
}

/// What belongs to a call beside what is sent.
fn of_settings(old: &Genome, new: &Genome) -> Vec<String> {
    let settings = |genome: &Genome| {
        let mut call = serde_json::to_value(&genome.call).unwrap_or_default();
        call["auth"] = genome.auth_ref.clone().into();
        call
    };
    let (old, new) = (settings(old), settings(new));
    let of = |call: &Value, key: &str| match call.get(key) {
        None | Some(Value::Null) => "none".to_owned(),
        Some(value) => template::text(value),
    };
    [
        ("auth", "the variable of the token"),
        ("auth_scheme", "the way to send the token"),
        ("content_type", "the body's media type"),
        ("success", "the list of right statuses"),
        ("list_style", "the way to join lists"),
        ("output", "the place of the answer"),
        ("timeout_ms", "the time limit (ms)"),
        ("retries", "the number of repeats"),
    ]
    .into_iter()
    .filter_map(|(key, what)| {
        let (old, new) = (of(&old, key), of(&new, key));
        (old != new).then(|| format!("{what} is {}, no longer {}", quoted(&new), quoted(&old)))
    })
    .collect()
}

/// Everything that a call sends beside its path, and the inputs in that.
fn slots(genome: &Genome) -> BTreeMap<Slot, String> {
    let mut slots = BTreeMap::new();
    for name in template::names(&genome.path) {
        slots.insert(("path", name.to_owned()), format!("{{{name}}}"));
    }
    for (name, text) in &genome.call.query {
        slots.insert(("query", name.clone()), text.clone());
    }
    for (name, text) in genome.headers.iter().chain(&genome.call.headers) {
        slots.insert(("header", name.clone()), text.clone());
    }
    match &genome.call.body {
        Some(Value::Object(body)) => {
            for (name, value) in body {
                slots.insert(("body", name.clone()), template::text(value));
            }
        }
        Some(body) => {
            slots.insert(("body", String::new()), template::text(body));
        }
        None => {}
    }
    slots
}

fn place((place, name): &Slot) -> String {
    match *place {
        "path" => "a part of the path".to_owned(),
        "query" => format!("the query parameter `{name}`"),
        "header" => format!("the header `{name}`"),
        _ if name.is_empty() => "the whole body".to_owned(),
        _ => format!("the body's field `{name}`"),
    }
}

fn quoted(text: &str) -> String {
    let short: String = text.chars().take(SHOWN).collect();
    format!("`{short}`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skill::package::tests::files;

    fn package(config: &str, input: &str) -> Package {
        let manifest = format!(
            "name = \"weather-get\"\nversion = \"0.1.0\"\ndescription = \"d\"\ncapabilities = []\ndependencies = []\nhas_code = false\noutputs = []\n[[inputs]]\nname = \"{input}\"\ntype = \"string\"\nrequired = true\n"
        );
        Package::from_files(files(&[("manifest.toml", &manifest), ("config.toml", config)]))
            .unwrap()
    }

    fn call(method: &str, address: &str, more: &str) -> String {
        format!(
            "[[endpoints]]\nname = \"get\"\nurl = \"https://api.example.com{address}\"\nmethod = \"{method}\"\n[extra]\noperation = \"GET /weather\"\nsuccess = [200]\n{more}"
        )
    }

    fn told(before: &str, after: &str) -> Vec<String> {
        changes(&package(before, "city"), &package(after, "city"))
    }

    #[test]
    fn a_change_of_a_call_is_told_in_words() {
        let start = call("GET", "/weather", "query = { city = \"{city}\", units = \"c\" }\n");
        assert_eq!(told(&start, &start), Vec::<String>::new());
        let renamed = call("GET", "/weather", "query = { place = \"{city}\", units = \"c\" }\n");
        assert_eq!(
            told(&start, &renamed),
            ["the input `city` is sent as the query parameter `place`, no longer as `city`"]
        );
        let moved = call("GET", "/v2/weather/{city}", "");
        assert_eq!(
            told(&start, &moved),
            [
                "the path is `/v2/weather/{city}`, no longer `/weather`",
                "the input `city` is sent as a part of the path, no longer as the query parameter `city`",
                "the query parameter `units` is not sent any more",
            ]
        );
        let posted = call(
            "POST",
            "/weather",
            "retries = 2\nbody = { city = \"{city}\" }\nquery = { units = \"k\", v = \"2\" }\n",
        );
        assert_eq!(
            told(&start, &posted),
            [
                "the method is `POST`, no longer `GET`",
                "the input `city` is sent as the body's field `city`, no longer as the query parameter `city`",
                "the query parameter `units` is `k`, no longer `c`",
                "the query parameter `v` is sent, as `2`",
                "the number of repeats is `2`, no longer `none`",
            ]
        );
    }

    #[test]
    fn other_inputs_and_another_kind_are_told() {
        let start = call("GET", "/weather", "query = { city = \"{city}\" }\n");
        let other = call("GET", "/weather", "query = { town = \"{town}\" }\n");
        let found = changes(&package(&start, "city"), &package(&other, "town"));
        assert_eq!(
            found,
            [
                "the input `city` is not sent any more",
                "the input `town` is sent as the query parameter `town`",
                "it takes `town` (string) now",
                "it takes no `city` any more",
            ]
        );
        let tool = "[mcp]\nserver = \"time\"\ntool = \"now\"\n";
        assert_eq!(
            told(&start, tool),
            ["it is a tool of an MCP server now, no longer a call over HTTP"]
        );
    }
}
