//! What the API checks of a request, and what a model sees of it.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::{Map, Value, json};

use super::{Checked, Refusal, write::SIGNATURE};
use crate::llm::{
    answer,
    prompt::{self, Choice, Part, Prompt, Role},
};

/// What Google's documents give for calls that no model of theirs has made.
const NO_SIGNATURE: [&str; 2] =
    ["context_engineering_is_the_way_to_go", "skip_thought_signature_validator"];

const FIELDS: [&str; 9] = [
    "contents",
    "systemInstruction",
    "tools",
    "toolConfig",
    "generationConfig",
    "safetySettings",
    "cachedContent",
    "serviceTier",
    "store",
];
const CONFIG: [&str; 24] = [
    "audioTimestamp",
    "candidateCount",
    "enableEnhancedCivicAnswers",
    "frequencyPenalty",
    "imageConfig",
    "logprobs",
    "maxOutputTokens",
    "mediaResolution",
    "presencePenalty",
    "responseFormat",
    "responseJsonSchema",
    "responseLogprobs",
    "responseMimeType",
    "responseModalities",
    "responseSchema",
    "seed",
    "speechConfig",
    "stopSequences",
    "temperature",
    "thinkingConfig",
    "topK",
    "topP",
    "translationConfig",
    "audioTranscriptionConfig",
];
/// What Google's own kind of schema can say.
const SCHEMA: [&str; 23] = [
    "additionalProperties",
    "anyOf",
    "default",
    "defs",
    "description",
    "enum",
    "example",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "nullable",
    "pattern",
    "properties",
    "propertyOrdering",
    "required",
    "type",
];
const FUNCTION: [&str; 7] = [
    "name",
    "description",
    "parameters",
    "parametersJsonSchema",
    "response",
    "responseJsonSchema",
    "behavior",
];
const PART: [&str; 8] = [
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "thought",
    "thoughtSignature",
    "mediaResolution",
];

/// Field names in camel case, which Google takes in snake case as well; its own SDK sends both.
pub(super) fn camel(value: &Value) -> Value {
    match value {
        Value::Array(list) => list.iter().map(camel).collect(),
        Value::Object(fields) => fields.iter().map(camel_field).collect(),
        other => other.clone(),
    }
}

fn camel_field((name, value): (&String, &Value)) -> (String, Value) {
    let mut words = name.split('_');
    let mut camel_name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(word.len().min(1));
        camel_name.push_str(&first.to_ascii_uppercase());
        camel_name.push_str(rest);
    }
    let value = match (camel_name.as_str(), value) {
        // The caller's own names.
        ("args" | "response" | "parametersJsonSchema" | "responseJsonSchema", _) => value.clone(),
        ("properties", Value::Object(named)) => {
            named.iter().map(|(name, schema)| (name.clone(), camel(schema))).collect()
        }
        _ => camel(value),
    };
    (camel_name, value)
}

pub(super) fn known(value: &Value, names: &[&str], at: &str) -> Checked<()> {
    let mut fields = value.as_object().into_iter().flatten();
    let unknown = fields.find(|(key, _)| !names.contains(&key.as_str()));
    unknown.map_or(Ok(()), |(key, _)| Err(Refusal::unknown(key, at)))
}

pub(super) fn prompt(model: &str, body: &Value) -> Checked<Prompt> {
    known(body, &FIELDS, "")?;
    let mut prompt = Prompt { model: model.to_owned(), parallel: true, ..Prompt::default() };
    let system = &body["systemInstruction"];
    if !system.is_null() {
        for part in parts(system, "system_instruction", &mut Vec::new())?.0 {
            let Part::Text(text) = part else {
                return Err(Refusal::new("systemInstruction: only text is supported"));
            };
            prompt.system.push(text);
        }
    }
    config(&body["generationConfig"], &mut prompt)?;
    tools(body, &mut prompt)?;
    contents(&body["contents"], &mut prompt)?;
    if answer::conduct(model) == "signed" && !prompt.results().is_empty() && !prompt.sealed {
        return Err(Refusal::new(
            "Function call is missing a thought_signature in functionCall parts. This is required \
             for tools to work correctly, and missing thought_signature may lead to degraded model \
             performance.",
        ));
    }
    Ok(prompt)
}

fn config(config: &Value, prompt: &mut Prompt) -> Checked<()> {
    known(config, &CONFIG, "generation_config")?;
    let number = |name: &str, least: f64, most: f64| {
        let value = &config[name];
        if value.is_null() {
            return Ok(None);
        }
        let at = format!("generation_config.{name}");
        let number = value.as_f64().ok_or_else(|| Refusal::kind(&at, "TYPE_FLOAT", value))?;
        if (least..=most).contains(&number) {
            return Ok(Some(number));
        }
        let message = format!("Invalid value at '{at}': must be in the range [{least}, {most}].");
        Err(Refusal::new(message))
    };
    prompt.temperature = number("temperature", 0.0, 2.0)?;
    prompt.top_p = number("topP", 0.0, 1.0)?;
    number("frequencyPenalty", -2.0, 2.0)?;
    number("presencePenalty", -2.0, 2.0)?;
    number("candidateCount", 1.0, 8.0)?;
    let tokens = &config["maxOutputTokens"];
    if !tokens.is_null() {
        let at = "generation_config.max_output_tokens";
        let number = tokens.as_i64().ok_or_else(|| Refusal::kind(at, "TYPE_INT32", tokens))?;
        let positive = u64::try_from(number).ok().filter(|number| *number > 0);
        let message = format!("Unable to submit request because max_output_tokens is {number}");
        prompt.max_tokens = Some(positive.ok_or_else(|| Refusal::new(message))?);
    }
    for value in config["stopSequences"].as_array().into_iter().flatten() {
        let at = "generation_config.stop_sequences";
        let text = value.as_str().ok_or_else(|| Refusal::kind(at, "TYPE_STRING", value))?;
        prompt.stop.push(text.to_owned());
    }
    if prompt.stop.len() > 5 {
        return Err(Refusal::new("The maximum number of stop sequences is 5."));
    }
    let schemas = [&config["responseSchema"], &config["responseJsonSchema"]];
    own_schema(schemas[0], "generation_config.response_schema")?;
    let schema = schemas.into_iter().find(|it| !it.is_null());
    let is_json = config["responseMimeType"] == "application/json";
    if schema.is_some() && !is_json {
        return Err(Refusal::new(
            "Function calling with a response mime type: 'text/plain' is unsupported with a schema",
        ));
    }
    prompt.format = is_json.then(|| schema.cloned().unwrap_or_default());
    Ok(())
}

/// Checks a schema in Google's own words.
fn own_schema(schema: &Value, at: &str) -> Checked<()> {
    known(schema, &[&SCHEMA[..], &["title", "ref"]].concat(), at)?;
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        own_schema(inner, &format!("{at}.properties[{name}]"))?;
    }
    if schema["items"].is_null() { Ok(()) } else { own_schema(&schema["items"], at) }
}

fn tools(body: &Value, prompt: &mut Prompt) -> Checked<()> {
    for (index, tool) in body["tools"].as_array().into_iter().flatten().enumerate() {
        let at = format!("tools[{index}]");
        known(tool, &["functionDeclarations"], &at)?;
        let list = tool["functionDeclarations"].as_array().into_iter().flatten();
        for (index, function) in list.enumerate() {
            let at = format!("{at}.function_declarations[{index}]");
            known(function, &FUNCTION, &at)?;
            let name = function["name"].as_str().unwrap_or_default();
            let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
            let starts = name.starts_with(|it: char| it.is_ascii_alphabetic() || it == '_');
            if !starts || name.len() > 64 || !name.bytes().all(fine) {
                return Err(Refusal::new(format!(
                    "Invalid value at '{at}.name': must start with a letter or an underscore. Must \
                     be a-z, A-Z, 0-9, or contain underscores, dots, colons, or dashes, with a \
                     maximum length of 64."
                )));
            }
            own_schema(&function["parameters"], &format!("{at}.parameters"))?;
            let schemas = [&function["parameters"], &function["parametersJsonSchema"]];
            let schema = schemas.into_iter().find(|it| !it.is_null());
            prompt.schemas.insert(name.to_owned(), schema.cloned().unwrap_or_default());
            prompt.tools.push(name.to_owned());
        }
    }
    known(&body["toolConfig"], &["functionCallingConfig"], "tool_config")?;
    let config = &body["toolConfig"]["functionCallingConfig"];
    known(config, &["mode", "allowedFunctionNames"], "tool_config.function_calling_config")?;
    let allowed = config["allowedFunctionNames"].as_array().into_iter().flatten();
    let allowed: Vec<&str> = allowed.filter_map(Value::as_str).collect();
    if let Some(stranger) = allowed.iter().find(|name| !prompt.tools.iter().any(|it| it == *name)) {
        return Err(Refusal::new(format!(
            "Tool config: allowed_function_names contains '{stranger}', which is not among the \
             function declarations."
        )));
    }
    prompt.choice = match (config["mode"].as_str().unwrap_or("AUTO"), allowed.as_slice()) {
        ("AUTO" | "VALIDATED", []) => Choice::Auto,
        ("NONE", []) => Choice::Never,
        ("ANY", []) => Choice::Any,
        ("ANY", [name]) => Choice::Tool((*name).to_owned()),
        ("ANY", _) => Choice::Any,
        (mode, _) => {
            let message = format!("Invalid tool config: mode {mode} with allowed_function_names");
            return Err(Refusal::new(message));
        }
    };
    Ok(())
}

fn contents(value: &Value, prompt: &mut Prompt) -> Checked<()> {
    let list = value.as_array().filter(|list| !list.is_empty()).ok_or_else(|| {
        Refusal::new("* GenerateContentRequest.contents: contents is not specified\n")
    })?;
    // Names of the calls that have no result yet.
    let mut open = Vec::<String>::new();
    for (index, content) in list.iter().enumerate() {
        let at = format!("contents[{index}]");
        known(content, &["role", "parts"], &at)?;
        let role = match content["role"].as_str() {
            None | Some("user" | "function") => Role::User,
            Some("model") => Role::Assistant,
            Some(_) => return Err(Refusal::new("Please use a valid role: user, model.")),
        };
        let mut results = Vec::new();
        let (parts, sealed) = parts(content, &at, &mut results)?;
        if results.len() != open.len() {
            return Err(Refusal::new(
                "Please ensure that the number of function response parts is equal to the number \
                 of function call parts of the function call turn.",
            ));
        }
        if let Some(stranger) = results.iter().find(|name| !open.contains(name)) {
            let message = format!("Function response '{stranger}' answers no function call.");
            return Err(Refusal::new(message));
        }
        let name = |part: &Part| match part {
            Part::Call { name, .. } => Some(name.clone()),
            _ => None,
        };
        open = parts.iter().filter_map(name).collect();
        if !open.is_empty() {
            let after_user = prompt.turns.last().is_some_and(|turn| turn.role == Role::User);
            if role == Role::User || !after_user {
                return Err(Refusal::new(
                    "Please ensure that function call turn comes immediately after a user turn or \
                     after a function response turn.",
                ));
            }
            prompt.sealed = sealed;
        }
        prompt.push(role, parts);
    }
    if open.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(
        "Please ensure that function response turn comes immediately after a function call turn.",
    ))
}

/// The parts, and whether a call among them has its seal; names of results go to `results`.
pub(super) fn parts(
    content: &Value,
    at: &str,
    results: &mut Vec<String>,
) -> Checked<(Vec<Part>, bool)> {
    let list = content["parts"].as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| {
        Refusal::new(format!("* GenerateContentRequest.{at}.parts: must not be empty\n"))
    })?;
    let mut sealed = false;
    let mut found = Vec::new();
    for (index, part) in list.iter().enumerate() {
        let at = format!("{at}.parts[{index}]");
        known(part, &PART, &at)?;
        if let Some(text) = part["thoughtSignature"].as_str() {
            let right = NO_SIGNATURE.contains(&text) || decode(text) == decode(SIGNATURE);
            if !right {
                return Err(Refusal::new("Thought signature is not valid."));
            }
            sealed |= !part["functionCall"].is_null();
        }
        if part["thought"] == true {
            // Not shown to the model again.
            continue;
        }
        if let Some(text) = part["text"].as_str() {
            found.extend((!text.is_empty()).then(|| Part::Text(text.to_owned())));
        } else if let Some(data) = part.get("inlineData") {
            found.push(inline(data, &format!("{at}.inline_data"))?);
        } else if let Some(file) = part.get("fileData") {
            known(file, &["fileUri", "mimeType"], &format!("{at}.file_data"))?;
            let uri = file["fileUri"].as_str().filter(|uri| uri.starts_with("http"));
            let uri = uri.ok_or_else(|| Refusal::new("Invalid or unsupported file uri"))?;
            found.push(Part::ImageAt(uri.to_owned()));
        } else if let Some(call) = part.get("functionCall") {
            known(call, &["id", "name", "args"], &format!("{at}.function_call"))?;
            let name = call["name"].as_str().filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| nameless(&at, "function_call"))?.to_owned();
            let args = call.get("args").cloned().unwrap_or_else(|| json!({}));
            let at = format!("{at}.function_call.args");
            if !args.is_object() {
                return Err(Refusal::kind(
                    &at,
                    "type.googleapis.com/google.protobuf.Struct",
                    &args,
                ));
            }
            found.push(Part::Call { name, arguments: args });
        } else if let Some(result) = part.get("functionResponse") {
            let fields = ["id", "name", "response", "parts"];
            known(result, &fields, &format!("{at}.function_response"))?;
            let name = result["name"].as_str().filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| nameless(&at, "function_response"))?.to_owned();
            let response = result["response"].as_object();
            let at = format!("{at}.function_response.response");
            let response = response.ok_or_else(|| {
                Refusal::kind(&at, "type.googleapis.com/google.protobuf.Struct", result)
            })?;
            results.push(name.clone());
            found.push(Part::Result { name, text: said(response) });
            for image in result["parts"].as_array().into_iter().flatten() {
                found.push(inline(&image["inlineData"], &at)?);
            }
        } else {
            return Err(Refusal::new(format!(
                "* GenerateContentRequest.{at}.data: required oneof field 'data' must have one \
                 initialized field\n"
            )));
        }
    }
    Ok((found, sealed))
}

fn nameless(at: &str, what: &str) -> Refusal {
    Refusal::new(format!("* GenerateContentRequest.{at}.{what}.name: Name cannot be empty.\n"))
}

/// What a tool gave, by Google's rule: `output` or `error`, else all of it.
fn said(response: &Map<String, Value>) -> String {
    match response.get("output").or_else(|| response.get("error")) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => Value::Object(response.clone()).to_string(),
    }
}

fn inline(data: &Value, at: &str) -> Checked<Part> {
    known(data, &["mimeType", "data", "displayName"], at)?;
    let kind = data["mimeType"].as_str().unwrap_or_default();
    let text = data["data"].as_str().unwrap_or_default();
    let bytes = decode(text).filter(|bytes| !bytes.is_empty());
    let bytes = bytes.ok_or_else(|| {
        Refusal::new(format!("Invalid value at '{at}.data' (TYPE_BYTES), Base64 decoding failed"))
    })?;
    let image = prompt::image(kind, &base64::prelude::BASE64_STANDARD.encode(bytes));
    image.ok_or_else(|| Refusal::new(format!("Unsupported MIME type: {kind}")))
}

/// Base64 as protocol buffers read it: either alphabet, with padding or without.
fn decode(text: &str) -> Option<Vec<u8>> {
    let padding =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&STANDARD, padding);
    engine.decode(text.replace('-', "+").replace('_', "/")).ok()
}
