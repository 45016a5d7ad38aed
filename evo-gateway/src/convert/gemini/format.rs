//! Schemas in Google's own words, a part of OpenAPI's, as JSON schemas.

use serde_json::{Map, Value, json};

/// Words that say nothing about what is valid.
const NOT_IN_JSON_SCHEMA: [&str; 2] = ["propertyOrdering", "property_ordering"];

/// Reads a schema.
pub(super) fn read(mut schema: Map<String, Value>) -> Map<String, Value> {
    read_into(&mut schema);
    schema
}

fn read_into(schema: &mut Map<String, Value>) {
    for word in NOT_IN_JSON_SCHEMA {
        schema.remove(word);
    }
    // In OpenAPI it names the form of a string; `enum` says nothing beyond the list itself.
    if schema.get("format").is_some_and(|format| format == "enum") {
        schema.remove("format");
    }
    if let Some(any_of) = schema.remove("any_of") {
        schema.insert("anyOf".to_owned(), any_of);
    }
    // Google's clients write some counts as texts.
    for count in
        ["minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"]
    {
        if let Some(Value::String(text)) = schema.get(count)
            && let Ok(number) = text.parse::<u64>()
        {
            schema.insert(count.to_owned(), number.into());
        }
    }
    let nullable = schema.remove("nullable").is_some_and(|value| value == true);
    if let Some(Value::String(kind)) = schema.get("type") {
        let kind = kind.to_ascii_lowercase();
        let kind = if nullable { json!([kind, "null"]) } else { Value::from(kind) };
        schema.insert("type".to_owned(), kind);
    }
    for (word, value) in schema.iter_mut() {
        match (word.as_str(), value) {
            ("properties" | "$defs", Value::Object(named)) => {
                named.values_mut().filter_map(Value::as_object_mut).for_each(read_into);
            }
            ("items" | "additionalProperties", Value::Object(inner)) => read_into(inner),
            ("anyOf" | "prefixItems", Value::Array(list)) => {
                list.iter_mut().filter_map(Value::as_object_mut).for_each(read_into);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn googles_words_become_those_of_json_schema() {
        let google = json!({
            "type": "OBJECT", "propertyOrdering": ["a", "b"],
            "properties": {
                "a": {"type": "STRING", "format": "enum", "enum": ["x"], "nullable": true},
                "b": {"type": "ARRAY", "items": {"type": "INTEGER"}, "maxItems": "3"},
            },
        });
        let Value::Object(google) = google else { unreachable!() };
        assert_eq!(
            Value::Object(read(google)),
            json!({
                "type": "object",
                "properties": {
                    "a": {"type": ["string", "null"], "enum": ["x"]},
                    "b": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
                },
            })
        );
    }
}
