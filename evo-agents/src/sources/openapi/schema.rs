//! Schemas of a document, as JSON Schema 2020-12 that stands alone.
//!
//! What a schema refers to is bundled into its `$defs`, so that a package needs no document.
//! Keywords that say nothing about an answer (descriptions, examples, vendor fields) are left
//! out. A schema that would become too large is cut: the rest of it then allows anything, which
//! makes a weaker check, never a wrong one.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::{Map, Value, json};

use super::document::{Document, Target, Version, reference_of};

/// Most schema objects in one bundle.
const MAX_NODES: usize = 500;

/// Which way the data goes: `readOnly` and `writeOnly` properties are required only one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the server.
    Request,
    /// From the server.
    Response,
}

/// A schema that stands alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    /// JSON Schema 2020-12; `true` where nothing is known.
    pub schema: Value,
    /// Why the document's schema could not be followed everywhere.
    pub unresolved: Option<String>,
}

/// Bundles a schema of the document.
pub fn bundle(document: &Document, schema: &Value, direction: Direction) -> Bundle {
    let mut bundler = Bundler {
        document,
        direction,
        names: HashMap::new(),
        taken: HashSet::new(),
        queue: VecDeque::new(),
        nodes: 0,
        cut: false,
        unresolved: None,
    };
    let mut root = bundler.convert(schema);
    let mut defs = Map::new();
    while let Some((name, target)) = bundler.queue.pop_front() {
        let converted = bundler.convert(target);
        defs.insert(name, converted);
    }
    if !defs.is_empty()
        && let Value::Object(map) = &mut root
    {
        map.insert("$defs".to_owned(), Value::Object(defs));
    }
    if bundler.cut {
        relax(&mut root);
    }
    let unresolved = bundler.unresolved;
    if compiles(&root) {
        return Bundle { schema: root, unresolved };
    }
    // Regular expressions of other dialects are the usual reason.
    strip_patterns(&mut root);
    if compiles(&root) {
        return Bundle { schema: root, unresolved };
    }
    let unresolved = unresolved.or_else(|| Some("its schema is not valid JSON Schema".to_owned()));
    Bundle { schema: Value::Bool(true), unresolved }
}

/// Whether a schema allows anything at all.
pub fn is_anything(schema: &Value) -> bool {
    match schema {
        Value::Bool(allowed) => *allowed,
        Value::Object(map) => map.is_empty(),
        _ => true,
    }
}

fn compiles(schema: &Value) -> bool {
    jsonschema::draft202012::new(schema).is_ok()
}

struct Bundler<'d> {
    document: &'d Document,
    direction: Direction,
    /// Reference → name in `$defs`.
    names: HashMap<String, String>,
    taken: HashSet<String>,
    queue: VecDeque<(String, &'d Value)>,
    nodes: usize,
    cut: bool,
    unresolved: Option<String>,
}

impl Bundler<'_> {
    fn convert(&mut self, schema: &Value) -> Value {
        let Value::Object(map) = schema else {
            return match schema {
                Value::Bool(allowed) => Value::Bool(*allowed),
                _ => Value::Bool(true),
            };
        };
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            self.cut = true;
            return Value::Bool(true);
        }
        let mut out = Map::new();
        let reference = reference_of(schema);
        // Beside a `$ref`, other keywords count since 3.1 only.
        if reference.is_none() || self.document.version == Version::V31 {
            for (keyword, value) in map {
                self.keyword(&mut out, map, keyword, value);
            }
        }
        if let Some(reference) = reference {
            match self.reference(reference) {
                Some(name) => {
                    out.insert("$ref".to_owned(), json!(format!("#/$defs/{name}")));
                }
                None => return Value::Bool(true),
            }
        }
        let nullable = ["nullable", "x-nullable"]
            .into_iter()
            .any(|key| map.get(key).and_then(Value::as_bool) == Some(true));
        if nullable { allow_null(out) } else { Value::Object(out) }
    }

    /// The name in `$defs` of what a reference leads to; [`None`] when it leads nowhere.
    fn reference(&mut self, reference: &str) -> Option<String> {
        if let Some(name) = self.names.get(reference) {
            return Some(name.clone());
        }
        let Some(target) = self.document.pointer(reference) else {
            let what = if reference.starts_with('#') { "leads nowhere" } else { "is external" };
            self.unresolved.get_or_insert_with(|| format!("the reference {reference:?} {what}"));
            return None;
        };
        // `A: {$ref: B}, B: {$ref: A}` says nothing and could never be evaluated.
        if self.document.follow(reference) == Target::Nothing {
            self.unresolved
                .get_or_insert_with(|| format!("the reference {reference:?} leads to itself"));
            return None;
        }
        let last = reference.rsplit('/').next().unwrap_or_default();
        let base: String = last
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' })
            .take(60)
            .collect();
        let base = if base.is_empty() { "schema".to_owned() } else { base };
        let mut name = base.clone();
        let mut number = 1;
        while !self.taken.insert(name.clone()) {
            number += 1;
            name = format!("{base}_{number}");
        }
        self.names.insert(reference.to_owned(), name.clone());
        self.queue.push_back((name.clone(), target));
        Some(name)
    }

    /// Takes over one keyword if it says something about the data and has the type that it must
    /// have.
    fn keyword(
        &mut self,
        out: &mut Map<String, Value>,
        all: &Map<String, Value>,
        keyword: &str,
        value: &Value,
    ) {
        let converted = match keyword {
            "type" => types(value),
            "enum" => value.as_array().filter(|list| !list.is_empty()).map(|_| value.clone()),
            "const" => Some(value.clone()),
            "format" | "pattern" => value.is_string().then(|| value.clone()),
            "minimum" | "maximum" => {
                let bound = value.is_number().then(|| value.clone());
                let exclusive = exclusive_of(keyword);
                if all.get(exclusive).and_then(Value::as_bool) == Some(true) {
                    if let Some(bound) = bound {
                        out.insert(exclusive.to_owned(), bound);
                    }
                    None
                } else {
                    bound
                }
            }
            "exclusiveMinimum" | "exclusiveMaximum" => value.is_number().then(|| value.clone()),
            "multipleOf" => value.as_f64().filter(|step| *step > 0.0).map(|_| value.clone()),
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties"
            | "maxProperties" | "minContains" | "maxContains" => {
                value.as_u64().map(|count| json!(count))
            }
            "uniqueItems" => value.as_bool().map(Value::Bool),
            "required" => self.required(all, value),
            "properties" | "patternProperties" | "dependentSchemas" => {
                value.as_object().map(|map| self.named(map))
            }
            "items" if value.is_array() => {
                if let Some(list) = self.list(value) {
                    out.insert("prefixItems".to_owned(), list);
                }
                None
            }
            "items"
            | "additionalProperties"
            | "propertyNames"
            | "contains"
            | "not"
            | "if"
            | "then"
            | "else"
            | "unevaluatedItems"
            | "unevaluatedProperties" => {
                (value.is_object() || value.is_boolean()).then(|| self.convert(value))
            }
            "prefixItems" | "allOf" | "anyOf" => self.list(value),
            "oneOf" => {
                let list = self.list(value);
                // A discriminator picks one of them, however much the others resemble it.
                if all.contains_key("discriminator")
                    && let Some(list) = list
                {
                    out.insert("anyOf".to_owned(), list);
                    None
                } else {
                    list
                }
            }
            "dependentRequired" => value.is_object().then(|| value.clone()),
            _ => None,
        };
        if let Some(converted) = converted {
            out.insert(keyword.to_owned(), converted);
        }
    }

    fn named(&mut self, map: &Map<String, Value>) -> Value {
        map.iter().map(|(name, schema)| (name.clone(), self.convert(schema))).collect()
    }

    fn list(&mut self, value: &Value) -> Option<Value> {
        let list = value.as_array().filter(|list| !list.is_empty())?;
        Some(Value::Array(list.iter().map(|schema| self.convert(schema)).collect()))
    }

    /// The names of `required` that the data of this direction has.
    fn required(&self, all: &Map<String, Value>, value: &Value) -> Option<Value> {
        let hidden = match self.direction {
            Direction::Request => "readOnly",
            Direction::Response => "writeOnly",
        };
        let is_hidden = |name: &str| {
            let property = all.get("properties").and_then(|map| map.get(name));
            property.and_then(|property| property.get(hidden)).and_then(Value::as_bool)
                == Some(true)
        };
        let mut seen = HashSet::new();
        let names: Vec<Value> = value
            .as_array()?
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| !is_hidden(name) && seen.insert(*name))
            .map(Value::from)
            .collect();
        (!names.is_empty()).then_some(Value::Array(names))
    }
}

fn exclusive_of(bound: &str) -> &'static str {
    if bound == "minimum" { "exclusiveMinimum" } else { "exclusiveMaximum" }
}

/// The JSON Schema type that a document's type name means; [`None`] for names that say nothing.
pub fn type_name(name: &str) -> Option<&'static str> {
    Some(match name.to_ascii_lowercase().as_str() {
        "string" | "str" | "date" | "datetime" | "date-time" | "uuid" | "file" => "string",
        "integer" | "int" | "int32" | "int64" | "long" => "integer",
        "number" | "float" | "double" | "decimal" => "number",
        "boolean" | "bool" => "boolean",
        "array" | "list" => "array",
        "object" | "dict" | "map" => "object",
        "null" => "null",
        _ => return None,
    })
}

fn types(value: &Value) -> Option<Value> {
    match value {
        // A 2.0 document says `type: file` where the answer is no JSON at all.
        Value::String(name) if name == "file" => None,
        Value::String(name) => type_name(name).map(Value::from),
        Value::Array(names) => {
            let mut known: Vec<&str> = Vec::new();
            for name in names {
                let name = type_name(name.as_str()?)?;
                if !known.contains(&name) {
                    known.push(name);
                }
            }
            (!known.is_empty()).then(|| json!(known))
        }
        _ => None,
    }
}

/// The schema or null.
fn allow_null(mut schema: Map<String, Value>) -> Value {
    if let Some(Value::Array(values)) = schema.get_mut("enum")
        && !values.contains(&Value::Null)
    {
        values.push(Value::Null);
    }
    let combined = ["$ref", "allOf", "anyOf", "oneOf", "const", "not", "if"]
        .into_iter()
        .any(|keyword| schema.contains_key(keyword));
    if combined {
        return json!({ "anyOf": [Value::Object(schema), { "type": "null" }] });
    }
    match schema.get_mut("type") {
        Some(Value::Array(names)) if !names.contains(&json!("null")) => names.push(json!("null")),
        Some(name @ Value::String(_)) if *name != "null" => *name = json!([name.clone(), "null"]),
        _ => {}
    }
    Value::Object(schema)
}

/// Takes out what could refuse more once a part of the schema allows anything.
fn relax(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    for keyword in
        ["not", "if", "then", "else", "unevaluatedItems", "unevaluatedProperties", "maxContains"]
    {
        map.remove(keyword);
    }
    if let Some(list) = map.remove("oneOf") {
        if map.contains_key("anyOf") {
            map.remove("anyOf");
        } else {
            map.insert("anyOf".to_owned(), list);
        }
    }
    each_subschema(map, &mut relax);
}

fn strip_patterns(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    map.remove("pattern");
    if map.remove("patternProperties").is_some() {
        map.remove("additionalProperties");
    }
    each_subschema(map, &mut strip_patterns);
}

fn each_subschema(map: &mut Map<String, Value>, apply: &mut dyn FnMut(&mut Value)) {
    for (keyword, value) in map {
        match keyword.as_str() {
            "properties" | "patternProperties" | "dependentSchemas" | "$defs" => {
                if let Value::Object(named) = value {
                    named.values_mut().for_each(&mut *apply);
                }
            }
            "prefixItems" | "allOf" | "anyOf" | "oneOf" => {
                if let Value::Array(list) = value {
                    list.iter_mut().for_each(&mut *apply);
                }
            }
            "items"
            | "additionalProperties"
            | "propertyNames"
            | "contains"
            | "not"
            | "if"
            | "then"
            | "else"
            | "unevaluatedItems"
            | "unevaluatedProperties" => apply(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(version: &str, schemas: Value) -> Document {
        let text = json!({ "openapi": version, "paths": {}, "components": { "schemas": schemas } });
        Document::parse(text.to_string().as_bytes(), "x").unwrap()
    }

    fn converted(schema: Value) -> Value {
        bundle(&document("3.0.3", json!({})), &schema, Direction::Response).schema
    }

    #[test]
    fn old_keywords_become_json_schema() {
        for (old, new) in [
            (json!({"type": "string", "nullable": true}), json!({"type": ["string", "null"]})),
            (
                json!({"type": "string", "enum": ["a"], "nullable": true}),
                json!({"type": ["string", "null"], "enum": ["a", null]}),
            ),
            (
                json!({"allOf": [{"type": "object"}], "nullable": true}),
                json!({"anyOf": [{"allOf": [{"type": "object"}]}, {"type": "null"}]}),
            ),
            (
                json!({"minimum": 1, "exclusiveMinimum": true, "maximum": 5}),
                json!({"exclusiveMinimum": 1, "maximum": 5}),
            ),
            (json!({"minimum": 1, "exclusiveMinimum": false}), json!({"minimum": 1})),
            (
                json!({"type": "int", "format": "int32"}),
                json!({"type": "integer", "format": "int32"}),
            ),
            (json!({"type": "any", "description": "x", "example": 1, "x-y": 1}), json!({})),
            (json!({"type": "file"}), json!({})),
            (
                json!({"properties": {"description": {"type": "string", "title": "t"}}}),
                json!({"properties": {"description": {"type": "string"}}}),
            ),
            (
                json!({"type": "array", "items": [{"type": "string"}]}),
                json!({"type": "array", "prefixItems": [{"type": "string"}]}),
            ),
            (
                json!({"required": ["a", "b", "a"], "properties": {"b": {"writeOnly": true}}}),
                json!({"required": ["a"], "properties": {"b": {}}}),
            ),
            (json!({"required": true, "minLength": "3"}), json!({})),
            (json!({"pattern": "^(?<x>a++)[", "type": "string"}), json!({"type": "string"})),
            (
                json!({"oneOf": [{"type": "string"}], "discriminator": {"propertyName": "k"}}),
                json!({"anyOf": [{"type": "string"}]}),
            ),
        ] {
            assert_eq!(converted(old.clone()), new, "{old}");
        }
    }

    #[test]
    fn references_are_bundled_and_may_go_in_circles() {
        let document = document(
            "3.0.0",
            json!({
                "Node": {"type": "object", "properties": {
                    "next": {"$ref": "#/components/schemas/Node"},
                    "a/b": {"$ref": "#/components/schemas/a~1b"},
                }},
                "a/b": {"type": "string"},
            }),
        );
        let bundle =
            bundle(&document, &json!({"$ref": "#/components/schemas/Node"}), Direction::Response);
        assert_eq!(
            bundle,
            Bundle {
                schema: json!({
                    "$ref": "#/$defs/Node",
                    "$defs": {
                        "Node": {"type": "object", "properties": {
                            "next": {"$ref": "#/$defs/Node"},
                            "a/b": {"$ref": "#/$defs/a_1b"},
                        }},
                        "a_1b": {"type": "string"},
                    },
                }),
                unresolved: None,
            }
        );
        let validator = jsonschema::draft202012::new(&bundle.schema).unwrap();
        assert!(validator.is_valid(&json!({"next": {"next": {"a/b": "x"}}})));
        assert!(!validator.is_valid(&json!({"next": {"next": {"a/b": 1}}})));
    }

    #[test]
    fn what_leads_nowhere_is_named() {
        let document = document("3.0.0", json!({"A": {"$ref": "#/components/schemas/A"}}));
        for (reference, reason) in [
            ("other.json#/X", "the reference \"other.json#/X\" is external"),
            ("#/nothing", "the reference \"#/nothing\" leads nowhere"),
            ("#/components/schemas/A", "the reference \"#/components/schemas/A\" leads to itself"),
        ] {
            let schema = json!({"properties": {"x": {"$ref": reference}}});
            let bundle = bundle(&document, &schema, Direction::Response);
            assert_eq!(bundle.schema, json!({"properties": {"x": true}}));
            assert_eq!(bundle.unresolved.as_deref(), Some(reason));
        }
    }

    #[test]
    fn a_huge_schema_is_cut_and_stays_right() {
        let mut schemas = Map::new();
        for i in 0..2_000 {
            schemas.insert(
                format!("S{i}"),
                json!({"type": "object", "oneOf": [
                    {"properties": {"a": {"$ref": format!("#/components/schemas/S{}", i + 1)}}},
                    {"not": {"required": ["a"]}},
                ]}),
            );
        }
        schemas.insert("S2000".to_owned(), json!({"type": "string"}));
        let document = document("3.0.0", Value::Object(schemas));
        let bundle =
            bundle(&document, &json!({"$ref": "#/components/schemas/S0"}), Direction::Response);
        let text = bundle.schema.to_string();
        assert!(text.len() < 64 * 1024, "{}", text.len());
        assert!(!text.contains("oneOf") && !text.contains("\"not\""));
        assert!(jsonschema::draft202012::is_valid(&bundle.schema, &json!({"a": {"a": {}}})));
        assert!(!jsonschema::draft202012::is_valid(&bundle.schema, &json!([])));
    }
}
