//! JSON schemas as far as a fake model understands them.

use serde_json::{Map, Value, json};

/// A value that fits; where the schema says nothing, an object with an answer.
pub(super) fn sample(schema: &Value) -> Value {
    fit(schema, schema)
}

fn fit(schema: &Value, root: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#'));
        return target.map_or(Value::Null, |target| fit(target, root));
    }
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.first().and_then(Value::as_str),
        kind => kind.as_str(),
    };
    // Gemini's own schemas shout.
    match kind.unwrap_or_default().to_ascii_lowercase().as_str() {
        "string" => "Zürich".into(),
        "integer" => 3.into(),
        "number" => 1.5.into(),
        "boolean" => true.into(),
        "null" => Value::Null,
        "array" => json!([fit(&schema["items"], root)]),
        "object" => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            let fields = properties.map(|(name, schema)| (name.clone(), fit(schema, root)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        _ => schema["anyOf"].get(0).map_or_else(|| json!({ "answer": 42 }), |one| fit(one, root)),
    }
}

/// Where an object is that allows more than it names, if there is one.
pub(super) fn open_object(schema: &Value) -> Option<String> {
    find_open(schema, "")
}

fn find_open(schema: &Value, at: &str) -> Option<String> {
    if schema["type"] == "object" && schema["additionalProperties"] != false {
        return Some(at.to_owned());
    }
    let below = |key: &str| {
        let named = schema[key].as_object().into_iter().flatten();
        let found = named.filter_map(|(name, it)| find_open(it, &format!("{at}/{key}/{name}")));
        found.into_iter().next()
    };
    let inside = || schema.get("items").and_then(|items| find_open(items, &format!("{at}/items")));
    below("properties").or_else(|| below("$defs")).or_else(inside)
}
