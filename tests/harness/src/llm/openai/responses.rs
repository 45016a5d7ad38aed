//! The Responses API: what it checks of a request, and what a model sees of it.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};

use super::{
    Checked, Refusal, boolean, chat, function_name, integer, number, responses_events::SEAL, strict,
};
use crate::llm::{
    answer,
    prompt::{Choice, Part, Prompt, Role},
};

/// Parameters that the API knows.
const PARAMETERS: [&str; 32] = [
    "access_programs",
    "background",
    "client_metadata",
    "context_management",
    "conversation",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "moderation",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
];
/// The least that an answer may be kept to.
const LEAST: u64 = 16;

/// Checks a request; `before` are the items of the conversation that it goes on with. With the prompt
/// come all items.
pub(super) fn read(body: &Value, before: Vec<Value>) -> Checked<(Prompt, Vec<Value>)> {
    let name = body["model"].as_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Refusal::missing("model"))?;
    let mut fields = body.as_object().into_iter().flatten();
    let known = |key: &str| PARAMETERS.contains(&key) || key == "user";
    if let Some((unknown, _)) = fields.find(|(key, _)| !known(key)) {
        let message = format!("Unknown parameter: '{unknown}'.");
        return Err(Refusal::new(unknown, "unknown_parameter", message));
    }
    let mut prompt = Prompt { model: name.to_owned(), ..Prompt::default() };
    prompt.parallel = boolean(body, "parallel_tool_calls")?.unwrap_or(true);
    prompt.stream = boolean(body, "stream")?.unwrap_or(false);
    boolean(body, "store")?;
    prompt.temperature = number(body, "temperature", 0.0, 2.0)?;
    prompt.top_p = number(body, "top_p", 0.0, 1.0)?;
    prompt.max_tokens = integer(body, "max_output_tokens")?;
    if let Some(few) = prompt.max_tokens.filter(|most| *most < LEAST) {
        let message = format!(
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= {LEAST}, \
             but got {few} instead."
        );
        return Err(Refusal::new("max_output_tokens", "integer_below_min_value", message));
    }
    for value in body["include"].as_array().into_iter().flatten() {
        if value != "reasoning.encrypted_content" && value != "message.output_text.logprobs" {
            return Err(Refusal::value("include[0]", format!("Invalid value: {value}.")));
        }
    }
    match &body["instructions"] {
        Value::Null => (),
        Value::String(text) => prompt.system.extend((!text.is_empty()).then(|| text.clone())),
        other => return Err(Refusal::kind("instructions", "a string", other)),
    }
    prompt.format = format(&body["text"]["format"])?;
    tools(body, &mut prompt)?;
    let mut all = before;
    match &body["input"] {
        Value::Null => return Err(Refusal::missing("input")),
        Value::String(text) => all.push(json!({ "role": "user", "content": text })),
        Value::Array(items) if items.is_empty() && all.is_empty() => {
            let message = "One of \"input\" or \"previous_response_id\" or 'prompt' or \
                           'conversation_id' must be provided.";
            return Err(Refusal::plain(400, message));
        }
        Value::Array(items) => all.extend(items.iter().cloned()),
        other => return Err(Refusal::kind("input", "one of a string or array of items", other)),
    }
    items(&all, &mut prompt)?;
    if answer::conduct(name) == "signed" && !prompt.results().is_empty() && !prompt.sealed {
        return Err(Refusal::new(
            "input",
            "missing_required_item",
            "Item 'fc_fake' of type 'function_call' was provided without its required 'reasoning' \
             item: 'rs_fake'."
                .to_owned(),
        ));
    }
    Ok((prompt, all))
}

fn format(value: &Value) -> Checked<Option<Value>> {
    match value["type"].as_str() {
        None | Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Value::Null)),
        Some("json_schema") => {
            let name = value["name"].as_str();
            let missing = || Refusal::missing("text.format.name");
            strict(value, name.ok_or_else(missing)?, "text.format")?;
            Ok(Some(value["schema"].clone()))
        }
        Some(other) => {
            Err(Refusal::value("text.format.type", format!("Invalid value: '{other}'.")))
        }
    }
}

fn tools(body: &Value, prompt: &mut Prompt) -> Checked<()> {
    for (index, tool) in body["tools"].as_array().into_iter().flatten().enumerate() {
        tool_of(tool, &format!("tools[{index}]"), prompt)?;
    }
    let choice = &body["tool_choice"];
    prompt.choice = match (choice.as_str(), choice["type"].as_str()) {
        (None, None) if choice.is_null() => Choice::Auto,
        (Some("auto"), _) => Choice::Auto,
        (Some("none"), _) => Choice::Never,
        (Some("required"), _) => Choice::Any,
        (_, Some("function" | "custom")) => {
            let name = function_name(&choice["name"], "tool_choice")?;
            if !prompt.tools.iter().any(|tool| tool == name) {
                let message = format!("Tool choice 'function' not found in 'tools': {name}");
                return Err(Refusal::value("tool_choice", message));
            }
            Choice::Tool(name.to_owned())
        }
        _ => return Err(Refusal::value("tool_choice", format!("Invalid value: {choice}."))),
    };
    Ok(())
}

fn tool_of(tool: &Value, at: &str, prompt: &mut Prompt) -> Checked<()> {
    match tool["type"].as_str() {
        Some("function" | "custom") => {
            let name = function_name(&tool["name"], at)?;
            let parameters = &tool["parameters"];
            if !parameters.is_null() && parameters["type"] != "object" {
                let message = format!("Invalid schema for function '{name}': not an object.");
                let at = format!("{at}.parameters");
                return Err(Refusal::new(&at, "invalid_function_parameters", message));
            }
            prompt.schemas.insert(name.to_owned(), parameters.clone());
            prompt.tools.push(name.to_owned());
            Ok(())
        }
        Some("namespace") => {
            let list = tool["tools"].as_array().into_iter().flatten().enumerate();
            for (index, inner) in list {
                tool_of(inner, &format!("{at}.tools[{index}]"), prompt)?;
            }
            Ok(())
        }
        // They run at OpenAI; no model here calls them.
        Some("web_search" | "image_generation" | "tool_search" | "local_shell") => Ok(()),
        Some(other) => {
            let message = format!("Invalid value: '{other}'.");
            Err(Refusal::value(&format!("{at}.type"), message))
        }
        None => Err(Refusal::missing(&format!("{at}.type"))),
    }
}

fn items(list: &[Value], prompt: &mut Prompt) -> Checked<()> {
    let mut open = BTreeSet::<String>::new();
    let mut names = HashMap::<String, String>::new();
    for (index, item) in list.iter().enumerate() {
        let at = format!("input[{index}]");
        match item["type"].as_str().unwrap_or("message") {
            "message" => message(item, &at, prompt)?,
            "reasoning" => {
                if !item["summary"].is_array() {
                    return Err(Refusal::missing(&format!("{at}.summary")));
                }
                let seal = &item["encrypted_content"];
                if !seal.is_null() && seal != SEAL {
                    let message = "The encrypted content could not be verified.".to_owned();
                    return Err(Refusal::new(&at, "invalid_encrypted_content", message));
                }
                prompt.sealed = !seal.is_null();
            }
            kind @ ("function_call" | "custom_tool_call") => {
                let id = text(item, "call_id", &at)?;
                let name = function_name(&item["name"], &at)?;
                let arguments = if kind == "function_call" {
                    let text = text(item, "arguments", &at)?;
                    serde_json::from_str(text).unwrap_or_else(|_| text.into())
                } else {
                    json!({ "input": text(item, "input", &at)? })
                };
                open.insert(id.to_owned());
                names.insert(id.to_owned(), name.to_owned());
                let call = Part::Call { name: name.to_owned(), arguments };
                prompt.push(Role::Assistant, vec![call]);
            }
            "function_call_output" | "custom_tool_call_output" => {
                let id = text(item, "call_id", &at)?;
                if !open.remove(id) {
                    let message =
                        format!("No tool call found for function call output with call_id {id}.");
                    return Err(Refusal {
                        param: Some("input".to_owned()),
                        ..Refusal::plain(400, message)
                    });
                }
                let (text, images) = output(&item["output"], &format!("{at}.output"))?;
                let mut parts = vec![Part::Result { name: names[id].clone(), text }];
                parts.extend(images);
                prompt.push(Role::User, parts);
            }
            other => {
                let message = format!("Invalid value: '{other}'.");
                return Err(Refusal::value(&format!("{at}.type"), message));
            }
        }
    }
    open.first().map_or(Ok(()), |id| {
        let message = format!("No tool output found for function call {id}.");
        Err(Refusal { param: Some("input".to_owned()), ..Refusal::plain(400, message) })
    })
}

fn text<'a>(item: &'a Value, field: &str, at: &str) -> Checked<&'a str> {
    item[field].as_str().ok_or_else(|| Refusal::missing(&format!("{at}.{field}")))
}

fn message(item: &Value, at: &str, prompt: &mut Prompt) -> Checked<()> {
    let role = item["role"].as_str().ok_or_else(|| Refusal::missing(&format!("{at}.role")))?;
    let content = &item["content"];
    match role {
        "user" => {
            let parts = parts(content, &["input_text", "input_image"], &format!("{at}.content"))?;
            prompt.push(Role::User, parts);
        }
        "assistant" => {
            let parts = parts(content, &["output_text", "refusal"], &format!("{at}.content"))?;
            prompt.push(Role::Assistant, parts);
        }
        "system" | "developer" => {
            let parts = parts(content, &["input_text"], &format!("{at}.content"))?;
            let texts = parts.iter().filter_map(Part::text);
            prompt.system.push(texts.collect());
        }
        other => {
            let message = format!(
                "Invalid value: '{other}'. Supported values are: 'assistant', 'system', \
                 'developer', and 'user'."
            );
            return Err(Refusal::value(&format!("{at}.role"), message));
        }
    }
    Ok(())
}

fn parts(content: &Value, kinds: &[&str], at: &str) -> Checked<Vec<Part>> {
    let list = match content {
        Value::String(text) => return Ok(vec![Part::Text(text.clone())]),
        Value::Array(list) => list,
        Value::Null => return Err(Refusal::missing(at)),
        other => return Err(Refusal::kind(at, "one of a string or array of objects", other)),
    };
    let part = |(index, part): (usize, &Value)| {
        let at = format!("{at}[{index}]");
        let kind = text(part, "type", &at)?;
        if !kinds.contains(&kind) {
            let message = format!("Invalid value: '{kind}'. Supported values are: {kinds:?}.");
            return Err(Refusal::value(&format!("{at}.type"), message));
        }
        match kind {
            "input_image" => {
                let url = json!({ "url": part["image_url"], "detail": part["detail"] });
                chat::image(&url, &at)
            }
            "refusal" => Ok(Part::Text(text(part, "refusal", &at)?.to_owned())),
            _ => Ok(Part::Text(text(part, "text", &at)?.to_owned())),
        }
    };
    list.iter().enumerate().map(part).collect()
}

/// Text and images of a tool's result.
fn output(value: &Value, at: &str) -> Checked<(String, Vec<Part>)> {
    let (texts, images): (Vec<Part>, Vec<Part>) = parts(value, &["input_text", "input_image"], at)?
        .into_iter()
        .partition(|part| part.text().is_some());
    Ok((texts.iter().filter_map(Part::text).collect(), images))
}
