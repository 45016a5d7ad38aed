//! Example values: what a document says that a parameter or an answer may look like.

use evo_common::skill::SkillIO;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    document::{Document, Target},
    schema::type_name,
};

/// Most values that are kept for one parameter.
const MAX_SAMPLES: usize = 8;
/// Most values that are taken from one `enum`.
const MAX_ENUM: usize = 4;
/// Deepest schema for which an example is put together.
const MAX_DEPTH: usize = 6;
/// Most outputs that a manifest lists.
const MAX_FIELDS: usize = 40;
/// Longest description of one input or output.
const MAX_DESCRIPTION: usize = 200;

/// A value that the document declares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The value.
    pub value: Value,
    /// Where it comes from: `example`, `default`, `enum`, `boundary`.
    pub origin: String,
}

/// The values that the object (a parameter, a media type, a schema) declares for itself and in
/// its schema, best first.
pub fn of_parameter(document: &Document, parameter: &Value, schema: &Value) -> Vec<Sample> {
    let mut samples = Samples { kind: kind_of(document, schema), list: Vec::new() };
    samples.declared(document, parameter);
    samples.of_schema(document, schema, 0);
    samples.list
}

/// One example of a schema: declared, or put together from its required properties' values.
pub fn of_schema(document: &Document, schema: &Value) -> Option<Value> {
    put_together(document, schema, 0)
}

/// The example that a media type or response declares, else its schema's own.
pub fn of_media(document: &Document, media: &Value, schema: Option<&Value>) -> Option<Value> {
    let mut samples = Samples { kind: None, list: Vec::new() };
    samples.declared(document, media);
    if let Some(schema) = schema.and_then(|schema| here(document, schema)) {
        samples.declared(document, schema);
    }
    samples.list.into_iter().next().map(|sample| sample.value)
}

/// The JSON type of a schema, after references: `string`, …, [`None`] when it doesn't say one.
pub fn kind_of(document: &Document, schema: &Value) -> Option<&'static str> {
    kind(document, schema, 0)
}

fn kind(document: &Document, schema: &Value, depth: usize) -> Option<&'static str> {
    if depth > MAX_DEPTH {
        return None;
    }
    let schema = here(document, schema)?;
    let named = match schema.get("type") {
        Some(Value::String(name)) => type_name(name),
        Some(Value::Array(names)) => {
            let mut names = names
                .iter()
                .filter_map(Value::as_str)
                .filter_map(type_name)
                .filter(|n| *n != "null");
            // Several types: no single one is right.
            names.next().filter(|_| names.next().is_none())
        }
        _ => None,
    };
    let by_shape = || {
        if schema.get("properties").is_some() {
            return Some("object");
        }
        if schema.get("items").is_some() {
            return Some("array");
        }
        let parts = schema.get("allOf").and_then(Value::as_array);
        if let Some(found) =
            parts.into_iter().flatten().find_map(|part| kind(document, part, depth + 1))
        {
            return Some(found);
        }
        // `anyOf: [X, null]` is how some generators write an optional X.
        let choices = ["anyOf", "oneOf"].into_iter().find_map(|key| schema.get(key)?.as_array())?;
        let mut kinds = choices
            .iter()
            .map(|choice| kind(document, choice, depth + 1))
            .filter(|kind| *kind != Some("null"));
        let first = kinds.next()??;
        kinds.all(|kind| kind == Some(first)).then_some(first)
    };
    named.or_else(by_shape)
}

/// The value itself or what its reference leads to; [`None`] when that is not in the document.
pub fn here<'d>(document: &'d Document, value: &'d Value) -> Option<&'d Value> {
    match document.resolve(value) {
        Target::Here(value) => Some(value),
        Target::External | Target::Nothing => None,
    }
}

/// A manifest's inputs or outputs from the properties of a schema; [`None`] when it is no plain
/// object.
pub fn fields(document: &Document, schema: &Value) -> Option<Vec<SkillIO>> {
    let schema = here(document, schema)?;
    let mut fields = Vec::new();
    collect_fields(document, schema, &mut fields, 0);
    fields.truncate(MAX_FIELDS);
    (!fields.is_empty()).then_some(fields)
}

fn collect_fields(document: &Document, schema: &Value, fields: &mut Vec<SkillIO>, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        if let Some(part) = here(document, part) {
            collect_fields(document, part, fields, depth + 1);
        }
    }
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, property) in
        schema.get("properties").and_then(Value::as_object).into_iter().flatten()
    {
        let legal = !name.is_empty() && !name.contains(['{', '}']);
        if legal && !fields.iter().any(|field| field.name == *name) {
            fields.push(SkillIO {
                name: name.clone(),
                r#type: kind_of(document, property).unwrap_or("any").to_owned(),
                required: required.contains(&name.as_str()),
                description: here(document, property).and_then(description_of),
            });
        }
    }
}

/// The first line of a description, short.
pub fn description_of(value: &Value) -> Option<String> {
    let text = value.get("description")?.as_str()?;
    shorten(text, MAX_DESCRIPTION)
}

/// The first paragraph of a text on one line, at most `max` characters; [`None`] when it is blank.
pub fn shorten(text: &str, max: usize) -> Option<String> {
    let paragraph: Vec<&str> = text
        .trim()
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .flat_map(str::split_whitespace)
        .collect();
    let line = paragraph.join(" ");
    if line.is_empty() {
        return None;
    }
    if line.chars().count() <= max {
        return Some(line);
    }
    let cut: String = line.chars().take(max.saturating_sub(1)).collect();
    let cut = cut.rsplit_once(' ').map_or(cut.as_str(), |(head, _)| head);
    Some(format!("{cut}…"))
}

struct Samples {
    kind: Option<&'static str>,
    list: Vec<Sample>,
}

impl Samples {
    fn push(&mut self, value: &Value, origin: &str) {
        let Some(value) = fitting(value, self.kind) else { return };
        if self.list.len() < MAX_SAMPLES && self.list.iter().all(|sample| sample.value != value) {
            self.list.push(Sample { value, origin: origin.to_owned() });
        }
    }

    /// `example`, `examples` and `x-example`, in every shape in which they are written.
    fn declared(&mut self, document: &Document, object: &Value) {
        for key in ["example", "x-example"] {
            if let Some(value) = object.get(key) {
                self.push(value, "example");
            }
        }
        match object.get("examples").or_else(|| object.get("x-examples")) {
            Some(Value::Array(values)) => {
                for value in values {
                    self.push(value, "example");
                }
            }
            Some(Value::Object(named)) => {
                for example in named.values() {
                    let Some(example) = here(document, example) else { continue };
                    // 2.0 has the values themselves, 3.x has them under `value`.
                    match example.get("value") {
                        Some(value) => self.push(value, "example"),
                        None if example.get("externalValue").is_none() => {
                            self.push(example, "example");
                        }
                        None => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn of_schema(&mut self, document: &Document, schema: &Value, depth: usize) {
        let Some(schema) = here(document, schema).filter(|_| depth <= MAX_DEPTH) else { return };
        self.declared(document, schema);
        if let Some(value) = schema.get("default").filter(|value| !value.is_null()) {
            self.push(value, "default");
        }
        if let Some(value) = schema.get("const") {
            self.push(value, "enum");
        }
        let values = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
        for value in values.filter(|value| !value.is_null()).take(MAX_ENUM) {
            self.push(value, "enum");
        }
        for key in ["allOf", "anyOf", "oneOf"] {
            for part in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
                self.of_schema(document, part, depth + 1);
            }
        }
        if self.list.is_empty()
            && let Some(items) = schema.get("items")
        {
            let mut inner = Samples { kind: kind_of(document, items), list: Vec::new() };
            inner.of_schema(document, items, depth + 1);
            for sample in inner.list {
                self.push(&json!([sample.value]), &sample.origin);
            }
        }
        if self.list.is_empty()
            && let Some(value) = put_together(document, schema, depth).filter(Value::is_object)
        {
            self.push(&value, "example");
        }
    }

    /// The bounds of a whole number, where the document declares them.
    fn bounds(&mut self, schema: &Value) {
        if self.kind != Some("integer") {
            return;
        }
        for key in ["minimum", "maximum"] {
            if let Some(bound) = schema.get(key).and_then(Value::as_i64) {
                self.push(&json!(bound), "boundary");
            }
        }
    }
}

/// Adds the declared bounds of a whole number to a parameter's values.
pub fn add_bounds(document: &Document, schema: &Value, samples: &mut Vec<Sample>) {
    let Some(here) = here(document, schema) else { return };
    let exclusive = ["exclusiveMinimum", "exclusiveMaximum"];
    if exclusive.into_iter().any(|key| here.get(key).is_some_and(|value| *value != false)) {
        return;
    }
    let mut all = Samples { kind: kind_of(document, here), list: std::mem::take(samples) };
    all.bounds(here);
    *samples = all.list;
}

/// The value, written as the type that the schema names: documents quote numbers, and YAML
/// unquotes texts.
fn fitting(value: &Value, kind: Option<&str>) -> Option<Value> {
    let Some(kind) = kind else { return Some(value.clone()) };
    let parsed = || serde_json::from_str::<Value>(value.as_str()?.trim()).ok();
    match (kind, value) {
        ("string", Value::Number(number)) => Some(Value::String(number.to_string())),
        ("string", Value::Bool(flag)) => Some(Value::String(flag.to_string())),
        ("integer", Value::String(_)) => parsed().filter(|v| v.is_i64() || v.is_u64()),
        ("number", Value::String(_)) => parsed().filter(Value::is_number),
        ("boolean", Value::String(_)) => parsed().filter(Value::is_boolean),
        ("array", Value::String(text)) => parsed().filter(Value::is_array).or_else(|| {
            let parts: Vec<&str> = text.split(',').map(str::trim).collect();
            (!text.is_empty()).then(|| json!(parts))
        }),
        ("object", Value::String(_)) => parsed().filter(Value::is_object),
        ("string", value) => value.is_string().then(|| value.clone()),
        ("integer", value) => {
            let whole = value.is_i64() || value.is_u64();
            (whole || value.as_f64().is_some_and(|n| n.fract() == 0.0)).then(|| value.clone())
        }
        ("number", value) => value.is_number().then(|| value.clone()),
        ("boolean", value) => value.is_boolean().then(|| value.clone()),
        ("array", value) => {
            Some(if value.is_array() { value.clone() } else { json!([value.clone()]) })
        }
        ("object", value) => value.is_object().then(|| value.clone()),
        _ => Some(value.clone()),
    }
}

fn put_together(document: &Document, schema: &Value, depth: usize) -> Option<Value> {
    if depth > MAX_DEPTH {
        return None;
    }
    let schema = here(document, schema)?;
    let mut own = Samples { kind: kind_of(document, schema), list: Vec::new() };
    own.declared(document, schema);
    for key in ["default", "const"] {
        if let Some(value) = schema.get(key).filter(|value| !value.is_null()) {
            own.push(value, "default");
        }
    }
    if let Some(value) = schema.get("enum").and_then(|list| list.get(0)) {
        own.push(value, "enum");
    }
    if let Some(sample) = own.list.into_iter().next() {
        return Some(sample.value);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(choices) = schema.get(key).and_then(Value::as_array) {
            return choices.iter().find_map(|choice| put_together(document, choice, depth + 1));
        }
    }
    match kind_of(document, schema)? {
        "object" => {
            let mut object = Map::new();
            gather(document, schema, &mut object, depth).then_some(Value::Object(object))
        }
        "array" => {
            let item = put_together(document, schema.get("items")?, depth + 1)?;
            Some(json!([item]))
        }
        _ => None,
    }
}

/// Fills in the properties that have a value, further down only the required ones; false when a
/// required one has none.
fn gather(
    document: &Document,
    schema: &Value,
    object: &mut Map<String, Value>,
    depth: usize,
) -> bool {
    if depth > MAX_DEPTH {
        return false;
    }
    let parts = schema.get("allOf").and_then(Value::as_array).into_iter().flatten();
    for part in parts {
        let Some(part) = here(document, part) else { return false };
        if !gather(document, part, object, depth + 1) {
            return false;
        }
    }
    let required = || {
        let names = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        names.filter_map(Value::as_str)
    };
    for (name, property) in
        schema.get("properties").and_then(Value::as_object).into_iter().flatten()
    {
        if depth > 0 && !required().any(|required| required == name) {
            continue;
        }
        let read_only = here(document, property)
            .and_then(|property| property.get("readOnly"))
            .is_some_and(|flag| *flag == true);
        if !read_only && let Some(value) = put_together(document, property, depth + 1) {
            object.insert(name.clone(), value);
        }
    }
    let complete = required().all(|name| object.contains_key(name));
    complete && (depth > 0 || !object.is_empty())
}

/// A schema that fits what an example looks like: its types, and the names at its top.
pub fn infer_schema(example: &Value) -> Value {
    infer(example, true)
}

fn infer(value: &Value, top: bool) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(_) => json!({ "type": "boolean" }),
        Value::Number(_) => json!({ "type": "number" }),
        Value::String(_) => json!({ "type": "string" }),
        Value::Array(list) => match list.first() {
            Some(first) => json!({ "type": "array", "items": infer(first, false) }),
            None => json!({ "type": "array" }),
        },
        Value::Object(map) => {
            let properties: Map<String, Value> =
                map.iter().map(|(name, value)| (name.clone(), infer(value, false))).collect();
            let mut schema = json!({ "type": "object", "properties": properties });
            if top && !map.is_empty() {
                schema["required"] = map.keys().cloned().collect();
            }
            schema
        }
    }
}

/// JSON pointers of the lists that are not empty in an example, and its root if that isn't.
pub fn non_empty_places(example: &Value) -> Vec<String> {
    fn collect(value: &Value, at: &str, depth: usize, places: &mut Vec<String>) {
        match value {
            Value::Array(list) if !list.is_empty() => places.push(at.to_owned()),
            Value::Object(map) if depth < 3 => {
                for (name, value) in map {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    collect(value, &format!("{at}/{name}"), depth + 1, places);
                }
            }
            _ => {}
        }
    }
    let mut places = Vec::new();
    if example.as_object().is_some_and(|map| !map.is_empty()) {
        places.push(String::new());
    }
    collect(example, "", 0, &mut places);
    places.truncate(MAX_SAMPLES);
    places
}
