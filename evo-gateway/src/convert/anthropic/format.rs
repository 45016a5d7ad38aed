//! An answer's shape: natively where the model is known to take a schema, else as the arguments of a
//! tool that the model has to call, which come back as the answer's text.

use serde_json::{Map, Value};

use super::thinking::version_of;
use crate::{
    convert::{ConvertError, Notes},
    model::{ChatRequest, ResponseFormat, Tool, ToolChoice},
    wire::anthropic as wire,
};

/// The first version of Claude that takes a schema.
const FIRST_WITH_SCHEMA: (u32, u32) = (4, 5);
const TOOL: &str = "answer";
const TOOL_SAYS: &str = "Gives the answer. Call it exactly once, with the whole answer.";

/// The format for the request, if its shape can be asked for so; else the tool is in `chat` and in the
/// notes.
pub(super) fn write(
    chat: &mut ChatRequest,
    notes: &mut Notes,
) -> Result<Option<wire::OutputFormat>, ConvertError> {
    let (name, description, schema) = match std::mem::take(&mut chat.response_format) {
        ResponseFormat::Text => return Ok(None),
        ResponseFormat::JsonObject => (None, None, Map::new()),
        ResponseFormat::JsonSchema { name, description, schema, .. } => {
            if takes_schema(&chat.model) {
                return Ok(Some(wire::OutputFormat::JsonSchema { schema: closed(schema) }));
            }
            (Some(name), description, schema)
        }
    };
    if !chat.tools.is_empty() {
        notes.lose(
            "response_format",
            "cannot stand next to tools with this model's provider, which keeps a model to JSON by a \
             tool of its own; leave one of the two out, or ask for JSON in a message",
        )?;
        return Ok(None);
    }
    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| TOOL.to_owned());
    let mut schema = schema;
    if !schema.contains_key("type") {
        schema.insert("type".to_owned(), Value::from("object"));
    }
    let description = Some(description.unwrap_or_else(|| TOOL_SAYS.to_owned()));
    chat.tools.push(Tool { name: name.clone(), description, schema, ..Tool::default() });
    chat.tool_choice = Some(ToolChoice::Named(name.clone()));
    chat.parallel_tool_calls = None;
    notes.context.answer_tool = Some(name);
    Ok(None)
}

fn takes_schema(model: &str) -> bool {
    model.contains("claude") && version_of(model).is_none_or(|version| version >= FIRST_WITH_SCHEMA)
}

/// Anthropic wants it said of every object that nothing else may be in it, where OpenAI wants it only
/// of strict schemas.
fn closed(mut schema: Map<String, Value>) -> Map<String, Value> {
    close(&mut schema);
    schema
}

fn close(schema: &mut Map<String, Value>) {
    let is_object = schema.get("type").is_some_and(|kind| match kind {
        Value::String(kind) => kind == "object",
        Value::Array(kinds) => kinds.iter().any(|kind| kind == "object"),
        _ => false,
    });
    if is_object {
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    for (keyword, value) in schema.iter_mut() {
        match (keyword.as_str(), value) {
            ("properties" | "$defs" | "definitions", Value::Object(named)) => {
                named.values_mut().filter_map(Value::as_object_mut).for_each(close);
            }
            ("items", Value::Object(inner)) => close(inner),
            ("anyOf" | "allOf" | "oneOf", Value::Array(list)) => {
                list.iter_mut().filter_map(Value::as_object_mut).for_each(close);
            }
            _ => {}
        }
    }
}
