//! Skills as tools of models and MCP clients: JSON Schemas of what they take and give.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::skill::{SkillIO, SkillManifest};

/// Longest name of a property, as the providers of models take it.
const MAX_NAME: usize = 64;
/// Longest description of an input or output.
const MAX_DESCRIPTION: usize = 300;
/// Name of the one output of a skill whose answer has no fields.
const RESULT: &str = "result";

/// JSON Schema of what a skill takes.
///
/// Providers of models refuse a property such as `filter[name]`, and with it all tools: it is called
/// `filter_name_` then, and [`inputs`] gives it its own name back.
pub fn input_schema(manifest: &SkillManifest) -> Map<String, Value> {
    let names = names(&manifest.inputs);
    let mut properties = Map::new();
    for (input, name) in manifest.inputs.iter().zip(&names) {
        let mut schema = typed(&input.r#type, false);
        let own = input.description.as_deref().unwrap_or_default();
        let text = match (own, *name == input.name) {
            (own, true) => own.to_owned(),
            ("", false) => format!("The input `{}`.", input.name),
            (own, false) => format!("{own} (the input `{}`)", input.name),
        };
        describe(&mut schema, &text);
        properties.insert(name.to_string(), schema);
    }
    let required = manifest.inputs.iter().zip(&names).filter(|(input, _)| input.required);
    let required: Vec<&str> = required.map(|(_, name)| &**name).collect();
    object(json!({
        "type": "object", "properties": properties, "required": required,
        "additionalProperties": false,
    }))
}

/// The inputs that a tool's arguments stand for.
pub fn inputs(manifest: &SkillManifest, arguments: Map<String, Value>) -> Map<String, Value> {
    let names = names(&manifest.inputs);
    let own = |argument: String| {
        let is_own = manifest.inputs.iter().any(|input| input.name == argument);
        let known = names.iter().position(|name| *name == argument).filter(|_| !is_own);
        known.map_or(argument, |index| manifest.inputs[index].name.clone())
    };
    arguments.into_iter().map(|(name, value)| (own(name), value)).collect()
}

/// JSON Schema of what a skill gives, as [`structured`] puts it. Nothing in it is required: what a
/// document declares of an answer is what its server usually sends.
pub fn output_schema(manifest: &SkillManifest) -> Map<String, Value> {
    let mut properties = Map::new();
    for output in &manifest.outputs {
        let mut schema = typed(&output.r#type, true);
        describe(&mut schema, output.description.as_deref().unwrap_or_default());
        properties.insert(output.name.clone(), schema);
    }
    if properties.is_empty() {
        properties.insert(RESULT.to_owned(), json!({}));
    }
    object(json!({"type": "object", "properties": properties}))
}

/// A skill's output as an object that [`output_schema`] describes: a value that is no object becomes
/// `{"result": …}`, and a field of another type than declared is left out.
pub fn structured(manifest: &SkillManifest, output: &Value) -> Map<String, Value> {
    let whole = matches!(manifest.outputs.as_slice(), [one] if one.name == RESULT);
    let fields = match output {
        Value::Object(fields) if !whole || fields.contains_key(RESULT) => fields.clone(),
        other => Map::from_iter([(RESULT.to_owned(), other.clone())]),
    };
    let fits = |name: &str, value: &Value| {
        let declared = manifest.outputs.iter().find(|output| output.name == name);
        declared.is_none_or(|output| value.is_null() || is_of_type(value, &output.r#type))
    };
    fields.into_iter().filter(|(name, value)| fits(name, value)).collect()
}

/// Whether a value is of a type of JSON Schema. A type that is none (older packages have free text
/// there) accepts anything.
pub fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "string" => value.is_string(),
        "integer" => {
            value.is_i64()
                || value.is_u64()
                || value.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    }
}

/// What the inputs are called as properties, in their order.
fn names(inputs: &[SkillIO]) -> Vec<Cow<'_, str>> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let mut names: Vec<Cow<'_, str>> = Vec::new();
    for input in inputs {
        if input.name.len() <= MAX_NAME && input.name.chars().all(legal) {
            names.push(Cow::Borrowed(&input.name));
            continue;
        }
        let plain = |c: char| if legal(c) { c } else { '_' };
        let base: String = input.name.chars().map(plain).take(MAX_NAME - 4).collect();
        let is_free = |name: &String| {
            !inputs.iter().any(|other| other.name == *name) && !names.iter().any(|n| n == name)
        };
        let further = (2..).map(|number| format!("{base}_{number}"));
        let free = std::iter::once(base.clone()).chain(further).find(is_free);
        names.push(Cow::Owned(free.expect("one of endlessly many numbers is free")));
    }
    names
}

fn typed(kind: &str, or_null: bool) -> Value {
    match kind {
        "string" | "integer" | "number" | "boolean" | "array" | "object" => {
            let mut schema =
                if or_null { json!({"type": [kind, "null"]}) } else { json!({"type": kind}) };
            if kind == "array" {
                schema["items"] = json!({});
            }
            schema
        }
        // `any`, and what older packages have there.
        _ => json!({}),
    }
}

fn describe(schema: &mut Value, text: &str) {
    if text.is_empty() {
        return;
    }
    let short: String = text.chars().take(MAX_DESCRIPTION).collect();
    let end = if short.len() < text.len() { "…" } else { "" };
    schema["description"] = json!(format!("{short}{end}"));
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => unreachable!("an object was written, got {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(name: &str, kind: &str, required: bool) -> SkillIO {
        SkillIO { name: name.to_owned(), r#type: kind.to_owned(), required, description: None }
    }

    fn manifest(inputs: Vec<SkillIO>, outputs: Vec<SkillIO>) -> SkillManifest {
        SkillManifest {
            name: "a".to_owned(),
            version: "0.1.0".to_owned(),
            description: String::new(),
            capabilities: Vec::new(),
            inputs,
            outputs,
            dependencies: Vec::new(),
            has_code: false,
        }
    }

    #[test]
    fn a_name_that_providers_refuse_has_another_one_and_comes_back() {
        let inputs_of = vec![
            io("filter[name]", "string", true),
            io("filter_name_", "integer", false),
            io("größe", "any", false),
            io("tags", "array", false),
        ];
        let manifest = manifest(inputs_of, Vec::new());
        let schema = input_schema(&manifest);
        let names: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["filter_name__2", "filter_name_", "gr__e", "tags"]);
        assert_eq!(schema["required"], json!(["filter_name__2"]));
        assert_eq!(schema["properties"]["tags"], json!({"type": "array", "items": {}}));
        assert_eq!(schema["properties"]["gr__e"]["description"], "The input `größe`.");
        let arguments = json!({"filter_name__2": "x", "filter_name_": 1, "gr__e": 2, "other": 3});
        let given = inputs(&manifest, object(arguments));
        let expected = json!({"filter[name]": "x", "filter_name_": 1, "größe": 2, "other": 3});
        assert_eq!(Value::Object(given), expected);
        let own = json!({"filter[name]": "x"});
        assert_eq!(Value::Object(inputs(&manifest, object(own.clone()))), own);
    }

    #[test]
    fn what_is_structured_fits_the_schema_whatever_came_out() {
        let fields =
            manifest(Vec::new(), vec![io("id", "integer", true), io("tag", "string", false)]);
        let whole = manifest(Vec::new(), vec![io("result", "array", false)]);
        let bare = manifest(Vec::new(), Vec::new());
        let table = [
            (&fields, json!({"id": 1, "tag": null, "x": 2}), json!({"id": 1, "tag": null, "x": 2})),
            (&fields, json!({"id": "one", "tag": "t"}), json!({"tag": "t"})),
            (&fields, json!([1]), json!({"result": [1]})),
            (&whole, json!([1]), json!({"result": [1]})),
            (&whole, json!({"a": 1}), json!({})),
            (&whole, json!({"result": [2]}), json!({"result": [2]})),
            (&bare, json!("text"), json!({"result": "text"})),
            (&bare, json!({"a": 1}), json!({"a": 1})),
        ];
        for (manifest, output, expected) in table {
            assert_eq!(Value::Object(structured(manifest, &output)), expected, "{output}");
        }
        let schema = Value::Object(output_schema(&fields));
        assert_eq!(schema["properties"]["id"], json!({"type": ["integer", "null"]}));
        assert_eq!(output_schema(&bare)["properties"], json!({"result": {}}));
    }

    #[test]
    fn long_descriptions_are_cut_at_a_letter() {
        let mut input = io("a", "string", false);
        input.description = Some("ä".repeat(400));
        let schema = input_schema(&manifest(vec![input], Vec::new()));
        let text = schema["properties"]["a"]["description"].as_str().unwrap();
        assert_eq!(text.chars().count(), MAX_DESCRIPTION + 1);
    }
}
