//! What the train cases themselves tell about the call: an answer that repeats an input says what
//! the server calls it, its names say what it is about, and its links say where things are.

use std::collections::{BTreeMap, BTreeSet};

use evo_common::case::Case;
use serde_json::{Map, Value};

use crate::skill::template;

/// Deepest part of an expected answer that is looked at.
const MAX_DEPTH: usize = 6;
/// Most names and links that are kept.
const MAX_KEPT: usize = 60;
/// Longest link.
const MAX_LINK: usize = 200;

/// What is expected, seen as a witness.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    /// Names under which expected answers hold the value of an input.
    pub(super) echoes: BTreeMap<String, BTreeSet<String>>,
    /// Names at the top of expected answers, and right below it.
    pub(super) subjects: [BTreeSet<String>; 2],
    /// Paths of links in expected answers, inputs as placeholders; those in most cases first.
    pub(super) links: Vec<String>,
    /// Media types that are expected.
    pub(super) media: BTreeSet<String>,
}

impl Evidence {
    /// What train cases tell.
    pub(super) fn of(cases: &[Case]) -> Self {
        let mut all = Self::default();
        let mut links: BTreeMap<String, usize> = BTreeMap::new();
        for case in cases.iter().filter(|case| !case.expect.refusal) {
            all.media.extend(case.expect.content_type.clone());
            let mut of_case = BTreeSet::new();
            for expected in [&case.expect.exact, &case.expect.subset].into_iter().flatten() {
                all.names(expected, 0);
                all.walk(expected, None, &case.input, 0, &mut of_case);
            }
            if let Some(schema) = &case.expect.schema {
                let properties = [schema.get("properties"), schema.pointer("/items/properties")];
                for properties in properties.into_iter().flatten() {
                    all.names(properties, 0);
                }
            }
            for link in of_case {
                *links.entry(link).or_default() += 1;
            }
        }
        let mut links: Vec<(usize, String)> = links.into_iter().map(|(l, n)| (n, l)).collect();
        links.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        all.links = links.into_iter().take(MAX_KEPT).map(|(_, link)| link).collect();
        all
    }

    fn names(&mut self, value: &Value, depth: usize) {
        let Some(place) = self.subjects.get_mut(depth) else { return };
        match value {
            Value::Object(map) => {
                place.extend(map.keys().take(MAX_KEPT).cloned());
                for inner in map.values().take(MAX_KEPT) {
                    self.names(inner, depth + 1);
                }
            }
            Value::Array(list) => {
                if let Some(first) = list.first() {
                    self.names(first, depth);
                }
            }
            _ => {}
        }
    }

    fn walk(
        &mut self,
        value: &Value,
        name: Option<&str>,
        input: &Map<String, Value>,
        depth: usize,
        links: &mut BTreeSet<String>,
    ) {
        match value {
            Value::Object(map) if depth < MAX_DEPTH => {
                for (name, inner) in map {
                    self.walk(inner, Some(name), input, depth + 1, links);
                }
            }
            Value::Array(list) if depth < MAX_DEPTH => {
                for inner in list {
                    self.walk(inner, name, input, depth + 1, links);
                }
            }
            Value::Object(_) | Value::Array(_) | Value::Null => {}
            single => {
                let text = template::text(single);
                if let Some(name) = name {
                    self.echoed(name, &text, input);
                }
                if let Some((path, query)) = link(&text) {
                    for (name, text) in query.split('&').filter_map(|pair| pair.split_once('=')) {
                        self.echoed(name, text, input);
                    }
                    links.insert(as_template(path, input));
                }
            }
        }
    }

    fn echoed(&mut self, name: &str, text: &str, input: &Map<String, Value>) {
        for (given, value) in input {
            // A flag is found everywhere.
            if !value.is_boolean() && !value.is_null() && template::text(value) == text {
                self.echoes.entry(given.clone()).or_default().insert(name.to_owned());
            }
        }
    }
}

/// Path and query of a link.
fn link(text: &str) -> Option<(&str, &str)> {
    let address = match text.split_once("://") {
        Some(("http" | "https", rest)) => rest.find('/').map(|at| &rest[at..])?,
        Some(_) => return None,
        None => text,
    };
    let plain = |b: u8| b.is_ascii_graphic() && !b"{}<>\"".contains(&b);
    if !address.starts_with('/') || address.len() > MAX_LINK || !address.bytes().all(plain) {
        return None;
    }
    let address = address.split('#').next().unwrap_or_default();
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    (path.len() > 1 && !path.starts_with("//")).then_some((path, query))
}

/// A path with the inputs' names where their values stand.
fn as_template(path: &str, input: &Map<String, Value>) -> String {
    let segments = path.split('/').map(|segment| {
        let given = input.iter().find(|(_, value)| {
            !value.is_boolean() && !segment.is_empty() && template::text(value) == segment
        });
        given.map_or_else(|| segment.to_owned(), |(name, _)| format!("{{{name}}}"))
    });
    segments.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use evo_common::case::Expectation;
    use serde_json::json;

    use super::*;

    fn case(input: Value, subset: Value) -> Case {
        Case {
            case_id: input.to_string(),
            input: input.as_object().cloned().unwrap_or_default(),
            expect: Expectation { subset: Some(subset), ..Expectation::default() },
            origin: "example".to_owned(),
            pinned: false,
        }
    }

    #[test]
    fn expected_answers_name_parameters_and_places() {
        let cases = [("ann", 3), ("bob", 4)].map(|(name, size)| {
            let link = format!("https://shop.example/api/people/{name}?limit={size}");
            let items = [json!({"owner": name}), json!({"owner": "x"})];
            case(json!({"who": name, "size": size}), json!({"self": link, "items": items}))
        });
        let evidence = Evidence::of(&cases);
        assert_eq!(evidence.links, ["/api/people/{who}"]);
        assert_eq!(evidence.echoes["who"], ["owner".to_owned()].into());
        assert_eq!(evidence.echoes["size"], ["limit".to_owned()].into());
        assert!(evidence.subjects[0].contains("items") && evidence.subjects[1].contains("owner"));
    }

    #[test]
    fn what_only_looks_like_a_link_is_none() {
        for text in ["/", "//", "a/b", "ftp://x/y", "/a b", "https://host", "/{x}"] {
            assert_eq!(link(text), None, "{text}");
        }
        assert_eq!(link("http://h/a?b=c#d"), Some(("/a", "b=c")));
    }
}
