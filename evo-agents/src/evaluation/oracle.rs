//! Whether an answer is right, as far as the case can tell.

use std::collections::BTreeSet;

use evo_common::{
    case::{Case, Expectation},
    shape::holds_something,
};
use jsonschema::Validator;
use regex::Regex;
use serde_json::Value;

use crate::skill::execute::CallAnswer;

/// Largest difference that still counts as equal without a declared tolerance.
const EPSILON: f64 = 1e-9;
/// Longest detail of a failure.
const MAX_DETAIL: usize = 200;

/// Why an answer is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Stable code: `status`, `content_type`, `exact`, `subset`, `schema`, `regex`, `shape`.
    pub code: &'static str,
    /// For people; holds no value of the answer beyond short scalars.
    pub detail: String,
}

/// The check of one case, compiled once.
#[derive(Debug)]
pub struct Oracle {
    expect: Expectation,
    status: Vec<u16>,
    schema: Option<Validator>,
    regex: Option<Regex>,
    /// Names that the schema gives to an object, and to the objects of a list.
    names: [BTreeSet<String>; 2],
}

/// Why a case can't be checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("case {case_id}: its {part} is not valid: {message}")]
pub struct InvalidCase {
    /// The case.
    pub case_id: String,
    /// `schema`, `declared_schema` or `regex`.
    pub part: &'static str,
    /// Why.
    pub message: String,
}

impl Oracle {
    /// Compiles a case whose declared schema has been put in. `success` are the statuses that count when the case names none.
    pub fn new(case: &Case, success: &[u16]) -> Result<Self, InvalidCase> {
        let invalid = |part: &'static str, message: String| InvalidCase {
            case_id: case.case_id.clone(),
            part,
            message,
        };
        if case.expect.declared_schema && case.expect.schema.is_none() {
            let message = "the candidate's definition declares no answer schema".to_owned();
            return Err(invalid("declared_schema", message));
        }
        let schema = case.expect.schema.as_ref();
        let schema = schema
            .map(jsonschema::draft202012::new)
            .transpose()
            .map_err(|error| invalid("schema", error.to_string()))?;
        let regex = case.expect.regex.as_deref().map(Regex::new).transpose();
        let regex = regex.map_err(|error| invalid("regex", error.to_string()))?;
        let status = match (case.expect.status.is_empty(), success.is_empty()) {
            (false, _) => case.expect.status.clone(),
            (true, false) => success.to_vec(),
            (true, true) => (200..300).collect(),
        };
        let declared = case.expect.schema.as_ref();
        let names = declared.map(names_in).unwrap_or_default();
        Ok(Self { expect: case.expect.clone(), status, schema, regex, names })
    }

    /// JSON pointers of what must not be empty in every answer.
    pub fn non_empty(&self) -> &[String] {
        &self.expect.non_empty
    }

    /// Whether answers are to be compared with each other: their values are not known beforehand.
    pub fn compares_answers(&self) -> bool {
        !self.expect.refusal && self.expect.exact.is_none()
    }

    /// Whether a name that was in every answer so far must be in the next one, in the object to which
    /// these names lead. Where the document says of an object which names are required, that counts.
    pub fn keeps_names(&self, path: &[&str]) -> bool {
        let Some(schema) = &self.expect.schema else { return true };
        let root = resolved(schema, schema);
        if root.get("properties").is_none() && root.get("items").is_none() {
            return !mentions(schema, "required");
        }
        let found = path.iter().try_fold(root, |part, name| {
            let inner = match *name {
                "*" => part.get("items"),
                name => part.get("properties").and_then(|names| names.get(name)),
            };
            inner.map(|inner| resolved(schema, inner))
        });
        let decides = ["required", "additionalProperties", "allOf", "anyOf", "oneOf"];
        found.is_some_and(|object| {
            object.get("properties").is_some()
                && !decides.iter().any(|key| object.get(*key).is_some_and(|value| *value != false))
        })
    }

    /// Whether the case itself tells a right answer from one that only holds nothing.
    pub fn knows_values(&self) -> bool {
        let expect = &self.expect;
        expect.refusal
            || expect.exact.is_some()
            || expect.subset.is_some()
            || expect.regex.is_some()
    }

    /// An object that has none of the names that its schema declares is valid where none of them is
    /// required, and still not what is described.
    fn stranger(&self, body: &Value) -> Option<String> {
        let [own, items] = &self.names;
        let strange = |object: &Value, names: &BTreeSet<String>| {
            let object = object.as_object().filter(|object| !object.is_empty());
            let object = object.filter(|_| !names.is_empty());
            object.is_some_and(|object| !object.keys().any(|name| names.contains(name)))
        };
        if strange(body, own) {
            return Some("the answer has none of the declared names".to_owned());
        }
        let list = body.as_array()?;
        let strangers = list.iter().any(|item| strange(item, items));
        strangers.then(|| "an item of the answer has none of the declared names".to_owned())
    }

    /// Whether one answer is right.
    pub fn check(&self, answer: &CallAnswer) -> Result<(), Wrong> {
        let wrong = |code, detail: String| {
            Err(Wrong { code, detail: detail.chars().take(MAX_DETAIL).collect() })
        };
        if self.expect.refusal {
            return match answer.status {
                400..=499 => Ok(()),
                status => wrong("status", format!("bad input was answered with {status}, not 4xx")),
            };
        }
        if !self.status.contains(&answer.status) {
            return wrong(
                "status",
                format!("status {}, expected {}", answer.status, one_of(&self.status)),
            );
        }
        if let Some(expected) = &self.expect.content_type {
            let actual = answer.content_type.as_deref().unwrap_or("none");
            if !same_media_type(expected, actual) {
                return wrong(
                    "content_type",
                    format!("content type {actual}, expected {expected}"),
                );
            }
        }
        let tolerance = self.expect.tolerance.unwrap_or(0.0).abs();
        if let Some(exact) = &self.expect.exact
            && !equal(exact, &answer.body, tolerance)
        {
            return wrong("exact", "the answer is not the expected one".to_owned());
        }
        if let Some(subset) = &self.expect.subset
            && let Some(at) = missing(subset, &answer.body, tolerance, String::new())
        {
            let at = if at.is_empty() { "the root".to_owned() } else { at };
            return wrong("subset", format!("the answer lacks what is expected at {at}"));
        }
        if let Some(schema) = &self.schema
            && let Some(error) = schema.iter_errors(&answer.body).next()
        {
            let at = error.instance_path().to_string();
            let at = if at.is_empty() { "the root".to_owned() } else { at };
            return wrong("schema", format!("at {at}: {}", error.masked()));
        }
        if let Some(detail) = self.stranger(&answer.body) {
            return wrong("schema", detail);
        }
        if let Some(regex) = &self.regex {
            let text = match &answer.body {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            if !regex.is_match(&text) {
                return wrong("regex", format!("the answer does not match {}", regex.as_str()));
            }
        }
        Ok(())
    }
}

/// Names that a schema declares for an object, and for the objects of a list. None where it allows
/// others by description.
fn names_in(schema: &Value) -> [BTreeSet<String>; 2] {
    let names = |part: &Value| {
        let open = ["additionalProperties", "patternProperties", "allOf", "anyOf", "oneOf"];
        let described = |key: &&str| part.get(*key).is_some_and(|value| *value != false);
        if open.iter().any(described) {
            return BTreeSet::new();
        }
        let properties = part.get("properties").and_then(Value::as_object);
        properties.into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    let root = resolved(schema, schema);
    let items = root.get("items").map(|items| resolved(schema, items));
    [names(root), items.map(names).unwrap_or_default()]
}

/// A part of a schema, or what it refers to.
fn resolved<'a>(schema: &'a Value, mut part: &'a Value) -> &'a Value {
    for _ in 0..8 {
        let pointer = part.get("$ref").and_then(Value::as_str).and_then(|at| at.strip_prefix('#'));
        let Some(target) = pointer.and_then(|pointer| schema.pointer(pointer)) else { break };
        part = target;
    }
    part
}

/// Whether a keyword stands anywhere in a schema.
fn mentions(schema: &Value, keyword: &str) -> bool {
    match schema {
        Value::Object(map) => {
            map.get(keyword)
                .is_some_and(|value| value.as_array().is_some_and(|list| !list.is_empty()))
                || map.values().any(|part| mentions(part, keyword))
        }
        Value::Array(list) => list.iter().any(|part| mentions(part, keyword)),
        _ => false,
    }
}

fn one_of(statuses: &[u16]) -> String {
    match statuses {
        [200, .., 299] => "2xx".to_owned(),
        list => list.iter().map(u16::to_string).collect::<Vec<_>>().join(" or "),
    }
}

/// Whether an answer of this media type is what is expected: `application/json` is also what
/// `application/hal+json` is.
pub fn same_media_type(expected: &str, actual: &str) -> bool {
    expected == actual
        || (expected == "application/json" && (actual.ends_with("+json") || actual == "text/json"))
        || (expected.ends_with("+json") && actual == "application/json")
}

fn equal(expected: &Value, actual: &Value, tolerance: f64) -> bool {
    match (expected, actual) {
        (Value::Number(a), Value::Number(b)) => {
            a == b
                || match (a.as_f64(), b.as_f64()) {
                    (Some(a), Some(b)) => (a - b).abs() <= tolerance.max(EPSILON * a.abs()),
                    _ => false,
                }
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b, tolerance))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b, tolerance)))
        }
        (a, b) => a == b,
    }
}

/// Where the answer lacks a part of what is expected.
fn missing(expected: &Value, actual: &Value, tolerance: f64, at: String) -> Option<String> {
    match (expected, actual) {
        (Value::Object(a), Value::Object(b)) => a.iter().find_map(|(name, a)| {
            let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
            match b.get(name) {
                Some(b) => missing(a, b, tolerance, at),
                None => Some(at),
            }
        }),
        (Value::Array(a), Value::Array(b)) => a.iter().enumerate().find_map(|(i, a)| {
            let at = format!("{at}/{i}");
            match b.get(i) {
                Some(b) => missing(a, b, tolerance, at),
                None => Some(at),
            }
        }),
        (a, b) => (!equal(a, b, tolerance)).then_some(at),
    }
}

/// Whether something is there and not empty.
pub fn has_something(body: &Value, pointer: &str) -> bool {
    body.pointer(pointer).is_some_and(holds_something)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn check(
        expect: Value,
        status: u16,
        kind: &str,
        body: Value,
    ) -> Result<(), (&'static str, String)> {
        let case = Case {
            case_id: "c".to_owned(),
            input: serde_json::Map::new(),
            expect: serde_json::from_value(expect).unwrap(),
            origin: "example".to_owned(),
            pinned: false,
        };
        let answer = CallAnswer {
            status,
            content_type: Some(kind.to_owned()),
            body,
            bytes: 0,
            latency: Duration::ZERO,
            allow: Vec::new(),
        };
        let oracle = Oracle::new(&case, &[200]).unwrap();
        oracle.check(&answer).map_err(|wrong| (wrong.code, wrong.detail))
    }

    #[test]
    fn every_part_of_an_expectation_counts() {
        let json = "application/json";
        assert_eq!(check(json!({}), 200, json, json!(1)), Ok(()));
        assert_eq!(
            check(json!({"status": [200, 201]}), 503, json, json!({})),
            Err(("status", "status 503, expected 200 or 201".to_owned()))
        );
        assert_eq!(
            check(json!({"content_type": "application/json"}), 200, "text/html", json!("<p>")),
            Err(("content_type", "content type text/html, expected application/json".to_owned()))
        );
        assert_eq!(
            check(
                json!({"content_type": "application/json"}),
                200,
                "application/hal+json",
                json!({})
            ),
            Ok(())
        );
        assert_eq!(
            check(
                json!({"schema": {"properties": {"a": {"items": {"type": "integer"}}}}}),
                200,
                json,
                json!({"a": [1, "a long secret"]})
            ),
            Err(("schema", "at /a/1: value is not of type \"integer\"".to_owned()))
        );
        assert_eq!(check(json!({"exact": {"a": [1.0]}}), 200, json, json!({"a": [1]})), Ok(()));
        assert_eq!(
            check(json!({"exact": {"a": 1}, "tolerance": 0.1}), 200, json, json!({"a": 1.05})),
            Ok(())
        );
        assert_eq!(
            check(json!({"exact": {"a": 1}}), 200, json, json!({"a": 1, "b": 2})).unwrap_err().0,
            "exact"
        );
        assert_eq!(
            check(
                json!({"subset": {"a": [{"b": 1}]}}),
                200,
                json,
                json!({"a": [{"b": 2}], "c": 1})
            ),
            Err(("subset", "the answer lacks what is expected at /a/0/b".to_owned()))
        );
        assert_eq!(check(json!({"regex": "^a+$"}), 200, "text/plain", json!("aaa")), Ok(()));
        assert_eq!(
            check(json!({"regex": "^a+$"}), 200, "text/plain", json!("b")).unwrap_err().0,
            "regex"
        );
    }

    #[test]
    fn a_refusal_is_any_4xx() {
        assert_eq!(check(json!({"refusal": true}), 422, "x/y", json!({})), Ok(()));
        assert_eq!(check(json!({"refusal": true}), 404, "x/y", json!({})), Ok(()));
        for status in [200, 302, 500] {
            assert_eq!(
                check(json!({"refusal": true}), status, "x/y", json!({})).unwrap_err().0,
                "status"
            );
        }
    }

    #[test]
    fn a_broken_case_is_an_error_of_its_own() {
        let case = Case {
            case_id: "c".to_owned(),
            input: serde_json::Map::new(),
            expect: Expectation { regex: Some("(".to_owned()), ..Expectation::default() },
            origin: String::new(),
            pinned: false,
        };
        assert_eq!(Oracle::new(&case, &[]).unwrap_err().part, "regex");
    }

    #[test]
    fn an_object_with_none_of_the_declared_names_is_another_one() {
        let json = "application/json";
        let schema = json!({
            "$ref": "#/$defs/Pet",
            "$defs": {"Pet": {"type": "object", "properties": {"id": {}, "name": {}}}},
        });
        let expect = json!({ "schema": schema });
        assert_eq!(check(expect.clone(), 200, json, json!({"id": 1, "x": 2})), Ok(()));
        assert_eq!(check(expect.clone(), 200, json, json!({})), Ok(()));
        assert_eq!(check(expect, 200, json, json!({"error": 1})).unwrap_err().0, "schema");
        let list = json!({"schema": {"type": "array", "items": {"properties": {"id": {}}}}});
        assert_eq!(check(list.clone(), 200, json, json!([{"id": 1}, {}])), Ok(()));
        assert_eq!(check(list, 200, json, json!([{"id": 1}, {"x": 1}])).unwrap_err().0, "schema");
        let open = json!({"schema": {"properties": {"id": {}}, "additionalProperties": true}});
        assert_eq!(check(open, 200, json, json!({"x": 1})), Ok(()));
    }

    #[test]
    fn something_is_a_filled_list_or_object_or_a_value() {
        for (body, pointer, expected) in [
            (json!({"a": [1]}), "/a", true),
            (json!({"a": []}), "/a", false),
            (json!({}), "/a", false),
            (json!({}), "", false),
            (json!({"a": 1}), "", true),
            (json!(null), "", false),
            (json!(""), "", false),
        ] {
            assert_eq!(has_something(&body, pointer), expected, "{body} {pointer}");
        }
    }
}
