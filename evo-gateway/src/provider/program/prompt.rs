//! What a program is asked, read from a chat completion request.
//!
//! A program takes one text. A conversation becomes a transcript with its instructions first; what no
//! text can say (tools, images, a schema for the answer) is refused. `temperature`, `top_p`,
//! `max_tokens` and other settings of the model's dice, which such a program has no option for, are
//! left out, and the answer's header `x-evo-dropped` names them.

use serde::Deserialize;
use serde_json::{Map, Value};

/// Settings that change how an answer is found and not what is asked.
const HINTS: [&str; 18] = [
    "frequency_penalty",
    "logit_bias",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "safety_identifier",
    "seed",
    "service_tier",
    "store",
    "temperature",
    "top_p",
    "verbosity",
];
/// Fields that say nothing that would have to be done.
const READ: [&str; 5] = ["messages", "model", "stream", "stream_options", "user"];

/// What to ask, and how to answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prompt {
    /// As the program knows it.
    pub(super) model: String,
    /// The whole conversation.
    pub(super) text: String,
    /// Whether the answer is a stream.
    pub(super) stream: bool,
    /// Whether the stream ends with the usage.
    pub(super) include_usage: bool,
    /// Fields that were left out.
    pub(super) dropped: Vec<String>,
}

/// A request that no program can do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The field at fault.
    pub(super) field: String,
    /// What is wrong and what to do.
    pub(super) message: String,
}

impl Wrong {
    fn new(field: impl Into<String>, why: &str) -> Self {
        let field = field.into();
        Self { message: format!("`{field}`: {why}"), field }
    }
}

#[derive(Deserialize)]
struct Chat {
    model: String,
    messages: Vec<Message>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Option<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Reads a chat completion request.
pub(super) fn read(body: &[u8]) -> Result<Prompt, Wrong> {
    let chat: Chat = serde_json::from_slice(body)
        .map_err(|error| Wrong::new("body", &format!("this is no chat request: {error}")))?;
    let mut dropped = Vec::new();
    for (name, value) in &chat.rest {
        if is_unset(name, value) || READ.contains(&name.as_str()) {
            continue;
        }
        if !HINTS.contains(&name.as_str()) {
            let why = "a program that runs as a provider takes a text and nothing else; leave it \
                       out, or ask another provider";
            return Err(Wrong::new(name.as_str(), why));
        }
        dropped.push(name.clone());
    }
    Ok(Prompt {
        text: text(&chat.messages)?,
        model: chat.model,
        stream: chat.stream.unwrap_or_default(),
        include_usage: chat
            .stream_options
            .and_then(|options| options.include_usage)
            .unwrap_or_default(),
        dropped,
    })
}

/// Whether a field asks for what happens anyway.
fn is_unset(name: &str, value: &Value) -> bool {
    let is_default = match name {
        "n" => *value == 1,
        "tool_choice" => value == "none" || value == "auto",
        "response_format" => value.get("type").is_some_and(|kind| kind == "text"),
        "modalities" => *value == serde_json::json!(["text"]),
        _ => false,
    };
    let is_empty = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
    };
    is_default || is_empty
}

fn text(messages: &[Message]) -> Result<String, Wrong> {
    let mut instructions = String::new();
    let mut turns: Vec<(&str, String)> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        for field in ["tool_calls", "function_call", "audio"] {
            if message.rest.get(field).is_some_and(|value| !is_unset(field, value)) {
                let why = "a program that runs as a provider knows no tools of its callers";
                return Err(Wrong::new(format!("messages[{index}].{field}"), why));
            }
        }
        let content = content(index, message.content.as_ref())?;
        match message.role.as_str() {
            "system" | "developer" => {
                if !instructions.is_empty() {
                    instructions.push_str("\n\n");
                }
                instructions.push_str(&content);
            }
            "user" => turns.push(("User", content)),
            "assistant" => turns.push(("Assistant", content)),
            _ => {
                let why = "use system, developer, user or assistant";
                return Err(Wrong::new(format!("messages[{index}].role"), why));
            }
        }
    }
    let conversation = match turns.as_mut_slice() {
        [] => return Err(Wrong::new("messages", "there is no message of the user")),
        [("User", only)] => std::mem::take(only),
        _ => {
            let mut text =
                "This is a conversation. Write only what the assistant says next.".to_owned();
            for (who, said) in &turns {
                text.push_str(&format!("\n\n{who}:\n{said}"));
            }
            text
        }
    };
    if instructions.is_empty() {
        return Ok(conversation);
    }
    Ok(format!("Instructions:\n{instructions}\n\n{conversation}"))
}

fn content(index: usize, content: Option<&Value>) -> Result<String, Wrong> {
    match content {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let mut texts = Vec::new();
            for (number, part) in parts.iter().enumerate() {
                let text = part.get("text").and_then(Value::as_str);
                match (part.get("type").and_then(Value::as_str), text) {
                    (Some("text"), Some(text)) => texts.push(text),
                    _ => {
                        let why = "a program that runs as a provider takes texts only";
                        let field = format!("messages[{index}].content[{number}]");
                        return Err(Wrong::new(field, why));
                    }
                }
            }
            Ok(texts.join("\n\n"))
        }
        Some(_) => Err(Wrong::new(format!("messages[{index}].content"), "use a text")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn prompt(body: &Value) -> Result<Prompt, Wrong> {
        read(body.to_string().as_bytes())
    }

    #[test]
    fn one_question_stays_as_it_is_and_a_conversation_becomes_a_transcript() {
        let asked = prompt(&json!({
            "model": "sonnet", "temperature": 0.5, "max_tokens": null, "n": 1, "stream": true,
            "stream_options": {"include_usage": true}, "tools": [], "user": "me",
            "messages": [{"role": "user", "content": "/help -x; \"$(id)\""}],
        }))
        .unwrap();
        assert_eq!(
            asked,
            Prompt {
                model: "sonnet".to_owned(),
                text: "/help -x; \"$(id)\"".to_owned(),
                stream: true,
                include_usage: true,
                dropped: vec!["temperature".to_owned()],
            }
        );
        let asked = prompt(&json!({"model": "m", "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c", "tool_calls": null},
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": "d"},
        ]}))
        .unwrap();
        assert_eq!(
            asked.text,
            "Instructions:\nBe short.\n\nBe kind.\n\nThis is a conversation. Write only what the \
             assistant says next.\n\nUser:\na\n\nb\n\nAssistant:\nc\n\nUser:\nd"
        );
        assert!(!asked.stream && asked.dropped.is_empty());
    }

    #[test]
    fn what_no_text_can_say_is_refused_by_name() {
        let user = json!({"role": "user", "content": "a"});
        for (field, body) in [
            ("tools", json!({"tools": [{"type": "function"}], "messages": [user]})),
            ("n", json!({"n": 2, "messages": [user]})),
            ("stop", json!({"stop": ["x"], "messages": [user]})),
            ("logprobs", json!({"logprobs": true, "messages": [user]})),
            (
                "response_format",
                json!({"response_format": {"type": "json_object"}, "messages": [user]}),
            ),
            ("messages[0].role", json!({"messages": [{"role": "tool", "content": "a"}]})),
            (
                "messages[0].tool_calls",
                json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}),
            ),
            (
                "messages[1].content[0]",
                json!({"messages": [user, {"role": "user", "content": [{"type": "image_url"}]}]}),
            ),
            ("messages", json!({"messages": []})),
            ("body", json!([])),
        ] {
            let mut body = body;
            if let Some(fields) = body.as_object_mut() {
                fields.insert("model".to_owned(), "m".into());
            }
            let wrong = prompt(&body).unwrap_err();
            assert_eq!(wrong.field, field, "{body}");
            assert!(wrong.message.starts_with(&format!("`{field}`: ")), "{}", wrong.message);
        }
    }
}
