//! Chat completions: what the API checks of a request, and the answers it gives.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};

use super::{Checked, Refusal, boolean, function_name, integer, number, strict};
use crate::llm::{
    answer::{self, Answer, End},
    prompt::{self, Choice, Part, Prompt, Role},
};

/// Parameters that the API knows.
const PARAMETERS: [&str; 37] = [
    "model",
    "messages",
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "modalities",
    "moderation",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];

/// Checks a request as the API does and takes from it what a model sees.
pub(super) fn read(body: &Value) -> Checked<Prompt> {
    let fields = body.as_object().ok_or_else(|| {
        Refusal::plain(400, "We could not parse the JSON body of your request: not an object.")
    })?;
    let name = body["model"].as_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Refusal::plain(400, "you must provide a model parameter"))?;
    if let Some(unknown) = fields.keys().find(|key| !PARAMETERS.contains(&key.as_str())) {
        let message = format!("Unknown parameter: '{unknown}'.");
        return Err(Refusal::new(unknown, "unknown_parameter", message));
    }
    let mut prompt = Prompt { model: name.to_owned(), parallel: true, ..Prompt::default() };
    prompt.stream = boolean(body, "stream")?.unwrap_or(false);
    prompt.temperature = number(body, "temperature", 0.0, 2.0)?;
    prompt.top_p = number(body, "top_p", 0.0, 1.0)?;
    number(body, "frequency_penalty", -2.0, 2.0)?;
    number(body, "presence_penalty", -2.0, 2.0)?;
    integer(body, "n")?;
    let tokens = [integer(body, "max_tokens")?, integer(body, "max_completion_tokens")?];
    if tokens.iter().all(Option::is_some) {
        let message =
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.";
        return Err(Refusal::value("max_tokens", message));
    }
    prompt.max_tokens = tokens.into_iter().flatten().next();
    prompt.stop = stops(&body["stop"])?;
    if !body["stream_options"].is_null() && !prompt.stream {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(Refusal::value("stream_options", message));
    }
    prompt.format = format(&body["response_format"])?;
    tools(body, &mut prompt)?;
    messages(&body["messages"], &mut prompt)?;
    Ok(prompt)
}

/// What the answer's text must be like.
fn format(value: &Value) -> Checked<Option<Value>> {
    match value["type"].as_str() {
        None | Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Value::Null)),
        Some("json_schema") => {
            let format = &value["json_schema"];
            let name = format["name"].as_str();
            let missing = || Refusal::missing("response_format.json_schema.name");
            strict(format, name.ok_or_else(missing)?, "response_format")?;
            Ok(Some(format["schema"].clone()))
        }
        Some(other) => {
            let message = format!("Invalid value: '{other}'.");
            Err(Refusal::value("response_format.type", message))
        }
    }
}

fn stops(value: &Value) -> Checked<Vec<String>> {
    let texts = match value {
        Value::Null => return Ok(Vec::new()),
        Value::String(text) => return Ok(vec![text.clone()]),
        Value::Array(texts) => texts,
        other => return Err(Refusal::kind("stop", "a string or an array of strings", other)),
    };
    if texts.len() > 4 {
        let message = format!(
            "Invalid 'stop': array too long. Expected an array with maximum length 4, but got an \
             array with length {} instead.",
            texts.len()
        );
        return Err(Refusal::new("stop", "array_above_max_length", message));
    }
    let text = |text: &Value| text.as_str().map(str::to_owned);
    texts
        .iter()
        .map(|value| text(value).ok_or_else(|| Refusal::kind("stop", "a string", value)))
        .collect()
}

fn tools(body: &Value, prompt: &mut Prompt) -> Checked<()> {
    let list = match &body["tools"] {
        Value::Null => {
            for name in ["tool_choice", "parallel_tool_calls"] {
                if !body[name].is_null() {
                    let message = format!("'{name}' is only allowed when 'tools' are specified.");
                    let message = format!("Invalid value for '{name}': {message}");
                    return Err(Refusal::value(name, message));
                }
            }
            return Ok(());
        }
        Value::Array(list) => list,
        other => return Err(Refusal::kind("tools", "an array of objects", other)),
    };
    if list.is_empty() {
        let message = "Invalid 'tools': empty array. Expected an array with minimum length 1, but \
                       got an empty array instead.";
        return Err(Refusal::new("tools", "empty_array", message.to_owned()));
    }
    for (index, tool) in list.iter().enumerate() {
        let at = format!("tools[{index}]");
        if tool["type"] != "function" {
            return Err(Refusal::value(
                &format!("{at}.type"),
                format!("Invalid value: {}.", tool["type"]),
            ));
        }
        let function = &tool["function"];
        if !function.is_object() {
            return Err(Refusal::missing(&format!("{at}.function")));
        }
        let name = function_name(&function["name"], &format!("{at}.function"))?;
        let parameters = &function["parameters"];
        if !parameters.is_null() && parameters["type"] != "object" {
            let message = format!(
                "Invalid schema for function '{name}': schema must be a JSON Schema of 'type: \
                 \"object\"', got 'type: {}'.",
                parameters["type"]
            );
            let at = format!("{at}.function.parameters");
            return Err(Refusal::new(&at, "invalid_function_parameters", message));
        }
        prompt.schemas.insert(name.to_owned(), parameters.clone());
        prompt.tools.push(name.to_owned());
    }
    prompt.parallel = boolean(body, "parallel_tool_calls")?.unwrap_or(true);
    prompt.choice = match &body["tool_choice"] {
        Value::Null => Choice::Auto,
        Value::String(text) if text == "auto" => Choice::Auto,
        Value::String(text) if text == "none" => Choice::Never,
        Value::String(text) if text == "required" => Choice::Any,
        choice @ Value::Object(_) if choice["type"] == "function" => {
            let name = function_name(&choice["function"]["name"], "tool_choice.function")?;
            if !prompt.tools.iter().any(|tool| tool == name) {
                let message = format!("Tool choice 'function' not found in 'tools': {name}");
                return Err(Refusal::value("tool_choice", message));
            }
            Choice::Tool(name.to_owned())
        }
        other => return Err(Refusal::value("tool_choice", format!("Invalid value: {other}."))),
    };
    Ok(())
}

fn messages(value: &Value, prompt: &mut Prompt) -> Checked<()> {
    let list = match value {
        Value::Null => return Err(Refusal::missing("messages")),
        Value::Array(list) => list,
        other => return Err(Refusal::kind("messages", "an array of objects", other)),
    };
    if list.is_empty() {
        let message = "Invalid 'messages': empty array. Expected an array with minimum length 1, \
                       but got an empty array instead.";
        return Err(Refusal::new("messages", "empty_array", message.to_owned()));
    }
    // Calls of the last assistant message that have no result yet, and the names of all calls.
    let mut open = BTreeSet::<String>::new();
    let mut names = HashMap::<String, String>::new();
    let unanswered = |open: &BTreeSet<String>, index: usize| {
        let ids: Vec<&str> = open.iter().map(String::as_str).collect();
        let message = format!(
            "An assistant message with 'tool_calls' must be followed by tool messages responding \
             to each 'tool_call_id'. The following tool_call_ids did not have response messages: {}",
            ids.join(", ")
        );
        let param = Some(format!("messages.[{index}].role"));
        Err(Refusal { param, ..Refusal::plain(400, message) })
    };
    for (index, message) in list.iter().enumerate() {
        let at = format!("messages[{index}]");
        let role = message["role"].as_str();
        let role = role.ok_or_else(|| Refusal::missing(&format!("{at}.role")))?;
        if role != "tool" && !open.is_empty() {
            return unanswered(&open, index);
        }
        match role {
            "system" | "developer" => prompt.system.push(plain(&message["content"], &at)?),
            "user" => {
                let parts = content(&message["content"], &at)?;
                prompt.push(Role::User, parts);
            }
            "assistant" => {
                let mut parts = Vec::new();
                let calls = calls(&message["tool_calls"], &at)?;
                if !message["content"].is_null() {
                    let text = plain(&message["content"], &at)?;
                    parts.extend((!text.is_empty()).then_some(Part::Text(text)));
                } else if calls.is_empty() {
                    let message =
                        "Invalid value for 'content': expected a string, got null.".to_owned();
                    return Err(Refusal::value(&format!("{at}.content"), message));
                }
                for (id, name, arguments) in calls {
                    open.insert(id.clone());
                    names.insert(id, name.clone());
                    parts.push(Part::Call { name, arguments });
                }
                prompt.push(Role::Assistant, parts);
            }
            "tool" => {
                let id = message["tool_call_id"].as_str();
                let id = id.ok_or_else(|| Refusal::missing(&format!("{at}.tool_call_id")))?;
                if !open.remove(id) {
                    let message = "Invalid parameter: messages with role 'tool' must be a response \
                                   to a preceeding message with 'tool_calls'.";
                    let param = Some(format!("messages.[{index}].role"));
                    return Err(Refusal { param, ..Refusal::plain(400, message) });
                }
                let text = plain(&message["content"], &at)?;
                prompt.push(Role::User, vec![Part::Result { name: names[id].clone(), text }]);
            }
            other => {
                let message = format!(
                    "Invalid value: '{other}'. Supported values are: 'system', 'assistant', \
                     'user', 'function', 'tool', and 'developer'."
                );
                return Err(Refusal::value(&format!("{at}.role"), message));
            }
        }
    }
    if open.is_empty() { Ok(()) } else { unanswered(&open, list.len()) }
}

/// Content that holds text only.
fn plain(value: &Value, at: &str) -> Checked<String> {
    let parts = content(value, at)?;
    let mut text = String::new();
    for (index, part) in parts.into_iter().enumerate() {
        let Part::Text(part) = part else {
            let at = format!("{at}.content[{index}].type");
            return Err(Refusal::value(
                &at,
                "Invalid value: 'image_url'. Supported values are: 'text'.",
            ));
        };
        text.push_str(&part);
    }
    Ok(text)
}

fn content(value: &Value, at: &str) -> Checked<Vec<Part>> {
    let at = format!("{at}.content");
    let parts = match value {
        Value::String(text) => return Ok(vec![Part::Text(text.clone())]),
        Value::Array(parts) if !parts.is_empty() => parts,
        Value::Array(_) => {
            let message = format!("Invalid '{at}': empty array.");
            return Err(Refusal::new(&at, "empty_array", message));
        }
        Value::Null => {
            let message = "Invalid value for 'content': expected a string, got null.";
            return Err(Refusal::value(&at, message));
        }
        other => {
            return Err(Refusal::kind(&at, "one of a string or array of objects", other));
        }
    };
    let part = |(index, part): (usize, &Value)| {
        let at = format!("{at}[{index}]");
        match part["type"].as_str() {
            Some("text") => match part["text"].as_str() {
                Some(text) => Ok(Part::Text(text.to_owned())),
                None => Err(Refusal::missing(&format!("{at}.text"))),
            },
            Some("image_url") => image(&part["image_url"], &at),
            Some(other) => Err(Refusal::value(
                &format!("{at}.type"),
                format!(
                    "Invalid value: '{other}'. Supported values are: 'text', 'image_url', \
                     'input_audio', 'refusal', 'audio', and 'file'."
                ),
            )),
            None => Err(Refusal::missing(&format!("{at}.type"))),
        }
    };
    parts.iter().enumerate().map(part).collect()
}

pub(super) fn image(value: &Value, at: &str) -> Checked<Part> {
    let at = format!("{at}.image_url");
    if value.is_string() {
        return Err(Refusal::kind(&at, "an object", value));
    }
    let url = value["url"].as_str().ok_or_else(|| Refusal::missing(&format!("{at}.url")))?;
    let detail = &value["detail"];
    if !detail.is_null() && !["auto", "low", "high"].iter().any(|it| detail == it) {
        return Err(Refusal::value(&format!("{at}.detail"), format!("Invalid value: {detail}.")));
    }
    if url.starts_with("https://") || url.starts_with("http://") {
        return Ok(Part::ImageAt(url.to_owned()));
    }
    let inline = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    let image = inline.and_then(|(kind, data)| prompt::image(kind, data));
    image.ok_or_else(|| {
        let message = "Invalid base64 image_url, or not one of image/png, image/jpeg, image/gif, \
                       and image/webp.";
        Refusal::new(&format!("{at}.url"), "invalid_base64", message.to_owned())
    })
}

/// Id, name and arguments of each call.
fn calls(value: &Value, at: &str) -> Checked<Vec<(String, String, Value)>> {
    let at = format!("{at}.tool_calls");
    let calls = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(calls) if !calls.is_empty() => calls,
        Value::Array(_) => {
            let message = format!("Invalid '{at}': empty array.");
            return Err(Refusal::new(&at, "empty_array", message));
        }
        other => return Err(Refusal::kind(&at, "an array of objects", other)),
    };
    let call = |(index, call): (usize, &Value)| {
        let at = format!("{at}[{index}]");
        let id = call["id"].as_str().ok_or_else(|| Refusal::missing(&format!("{at}.id")))?;
        if call["type"] != "function" {
            return Err(Refusal::missing(&format!("{at}.type")));
        }
        let function = format!("{at}.function");
        let name = function_name(&call["function"]["name"], &function)?;
        let at = format!("{function}.arguments");
        let arguments = &call["function"]["arguments"];
        let text = arguments.as_str().ok_or_else(|| Refusal::kind(&at, "a string", arguments))?;
        // Models write what they like here, and the API takes it back as it is.
        let arguments = serde_json::from_str(text).unwrap_or_else(|_| text.into());
        Ok((id.to_owned(), name.to_owned(), arguments))
    };
    calls.iter().enumerate().map(call).collect()
}

/// What every part of one answer says about itself.
pub(super) struct Told {
    pub(super) id: String,
    pub(super) model: String,
    /// Choices.
    pub(super) n: u64,
}

impl Told {
    pub(super) fn whole(&self, answer: &Answer) -> Value {
        let calls: Vec<Value> = answer
            .calls
            .iter()
            .enumerate()
            .map(|(index, call)| {
                json!({
                    "id": self.call_id(index), "type": "function",
                    "function": { "name": call.name, "arguments": call.arguments },
                })
            })
            .collect();
        let mut message = json!({
            "role": "assistant", "content": answer.text, "refusal": null, "annotations": [],
        });
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        if !answer.thinking.is_empty() {
            message["reasoning_content"] = answer.thinking.clone().into();
        }
        let choice = |index: u64| {
            json!({
                "index": index, "message": message, "logprobs": null,
                "finish_reason": finish_reason(&answer.end),
            })
        };
        json!({
            "id": self.id, "object": "chat.completion", "created": 1_795_305_216_u64,
            "model": self.model, "choices": (0..self.n).map(choice).collect::<Vec<_>>(),
            "usage": usage(answer), "service_tier": "default", "system_fingerprint": "fp_fake",
        })
    }

    pub(super) fn events(&self, answer: &Answer, with_usage: bool) -> Vec<String> {
        let mut events = Vec::new();
        for index in 0..self.n {
            let mut delta = |delta: Value, end: Option<&str>| {
                let choice = json!({
                    "index": index, "delta": delta, "logprobs": null, "finish_reason": end,
                });
                events.push(self.chunk(&json!([choice]), with_usage.then_some(Value::Null)));
            };
            delta(json!({ "role": "assistant", "content": "", "refusal": null }), None);
            for piece in answer::pieces(&answer.thinking) {
                delta(json!({ "reasoning_content": piece }), None);
            }
            for piece in answer::pieces(&answer.text) {
                delta(json!({ "content": piece }), None);
            }
            for (at, call) in answer.calls.iter().enumerate() {
                let begin = json!({
                    "index": at, "id": self.call_id(at), "type": "function",
                    "function": { "name": call.name, "arguments": "" },
                });
                delta(json!({ "tool_calls": [begin] }), None);
                for piece in answer::pieces(&call.arguments) {
                    let more = json!({ "index": at, "function": { "arguments": piece } });
                    delta(json!({ "tool_calls": [more] }), None);
                }
            }
            delta(json!({}), Some(finish_reason(&answer.end)));
        }
        if with_usage {
            events.push(self.chunk(&json!([]), Some(usage(answer))));
        }
        events.push("data: [DONE]\n\n".to_owned());
        events
    }

    fn chunk(&self, choices: &Value, usage: Option<Value>) -> String {
        let mut chunk = json!({
            "id": self.id, "object": "chat.completion.chunk", "created": 1_795_305_216_u64,
            "model": self.model, "service_tier": "default", "system_fingerprint": "fp_fake",
            "choices": choices,
        });
        if let Some(usage) = usage {
            chunk["usage"] = usage;
        }
        chunk["obfuscation"] = "qX3".into();
        format!("data: {chunk}\n\n")
    }

    fn call_id(&self, index: usize) -> String {
        format!("call_{}_{index}", self.id.trim_start_matches("chatcmpl-"))
    }
}

fn finish_reason(end: &End) -> &'static str {
    match end {
        End::Stop | End::StopSequence(_) => "stop",
        End::Length => "length",
        End::Calls => "tool_calls",
        End::Filtered => "content_filter",
    }
}

fn usage(answer: &Answer) -> Value {
    let prompt = answer.input_tokens + answer.cached_tokens;
    let thinking = answer::pieces(&answer.thinking).len();
    json!({
        "prompt_tokens": prompt, "completion_tokens": answer.output_tokens,
        "total_tokens": prompt + answer.output_tokens,
        "prompt_tokens_details": { "cached_tokens": answer.cached_tokens, "audio_tokens": 0 },
        "completion_tokens_details": {
            "reasoning_tokens": thinking, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    })
}
