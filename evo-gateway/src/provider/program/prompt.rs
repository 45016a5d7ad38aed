//! What a program is asked, read from a chat completion request.
//!
//! A program takes one text, and some take images with it. A conversation becomes a transcript with its
//! instructions first; what no text can say (tools, a schema for the answer) is refused, or left out for a
//! caller that prefers an answer without it. `temperature`, `top_p`, `max_tokens` and other settings of the
//! model's dice, which such a program has no option for, are left out in any case. The answer's header
//! `x-evo-dropped` names whatever was.

use base64::{Engine as _, engine::general_purpose::STANDARD};
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
    /// Its images, in the order in which the text names them.
    pub(super) images: Vec<Image>,
    /// Whether the answer is a stream.
    pub(super) stream: bool,
    /// Whether the stream ends with the usage.
    pub(super) include_usage: bool,
    /// Fields that were left out.
    pub(super) dropped: Vec<String>,
}

/// An image.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// How files of its kind end.
    pub(super) extension: &'static str,
    /// Its file.
    pub(super) bytes: Vec<u8>,
}

impl Image {
    const KINDS: [(&'static str, &'static str); 4] =
        [("image/png", "png"), ("image/jpeg", "jpg"), ("image/gif", "gif"), ("image/webp", "webp")];

    /// What kind it is, in words of the web.
    pub(super) fn media_type(&self) -> &'static str {
        let kind = Self::KINDS.iter().find(|(_, extension)| *extension == self.extension);
        kind.map_or("", |(name, _)| name)
    }

    /// The image of a `data:` URI.
    fn read(uri: &str) -> Result<Self, &'static str> {
        let wrong = "give it as a `data:` URI with base64: the gateway fetches none";
        let (kind, data) =
            uri.strip_prefix("data:").and_then(|uri| uri.split_once(";base64,")).ok_or(wrong)?;
        let extension = Self::KINDS.iter().find(|(name, _)| *name == kind);
        let (_, extension) = extension.ok_or("use PNG, JPEG, GIF or WebP")?;
        let bytes = STANDARD.decode(data.trim()).map_err(|_| "this is no base64")?;
        Ok(Self { extension, bytes })
    }
}

/// What may be in a request.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Takes {
    /// The program takes images.
    pub(super) images: bool,
    /// The caller prefers an answer without what can't be done to none.
    pub(super) less: bool,
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
pub(super) fn read(body: &[u8], takes: Takes) -> Result<Prompt, Wrong> {
    let chat: Chat = serde_json::from_slice(body)
        .map_err(|error| Wrong::new("body", &format!("this is no chat request: {error}")))?;
    let mut reading = Reading { takes, dropped: Vec::new(), images: Vec::new() };
    for (name, value) in &chat.rest {
        if is_unset(name, value) || READ.contains(&name.as_str()) {
            continue;
        }
        if HINTS.contains(&name.as_str()) {
            reading.dropped.push(name.clone());
        } else {
            let why = "a program that runs as a provider takes a text and nothing else; leave it \
                       out, or ask another provider";
            reading.leave_out(name.clone(), why)?;
        }
    }
    let text = reading.text(&chat.messages)?;
    let Reading { dropped, images, .. } = reading;
    Ok(Prompt {
        text,
        images,
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

/// What has been read so far.
struct Reading {
    takes: Takes,
    dropped: Vec<String>,
    images: Vec<Image>,
}

impl Reading {
    /// Leaves something out, if the caller would rather have an answer than it.
    fn leave_out(&mut self, field: String, why: &str) -> Result<(), Wrong> {
        if !self.takes.less {
            return Err(Wrong::new(field, why));
        }
        self.dropped.push(field);
        Ok(())
    }

    fn text(&mut self, messages: &[Message]) -> Result<String, Wrong> {
        let mut instructions = String::new();
        let mut turns: Vec<(&str, String)> = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            let mut calls = String::new();
            for field in ["tool_calls", "function_call", "audio"] {
                if let Some(value) = message.rest.get(field).filter(|it| !is_unset(field, it)) {
                    let why = "a program that runs as a provider knows no tools of its callers";
                    self.leave_out(format!("messages[{index}].{field}"), why)?;
                    calls.push_str(&in_words(value));
                }
            }
            let mut content = self.content(index, message.content.as_ref())?;
            content.push_str(&calls);
            match message.role.as_str() {
                "system" | "developer" => {
                    if !instructions.is_empty() {
                        instructions.push_str("\n\n");
                    }
                    instructions.push_str(&content);
                }
                "user" => turns.push(("User", content)),
                "assistant" => turns.push(("Assistant", content)),
                "tool" | "function" => {
                    let why = "a program that runs as a provider knows no tools of its callers";
                    self.leave_out(format!("messages[{index}]"), why)?;
                    turns.push(("Result of the tool", content));
                }
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

    fn content(&mut self, index: usize, content: Option<&Value>) -> Result<String, Wrong> {
        match content {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Array(parts)) => {
                let mut texts = Vec::new();
                for (number, part) in parts.iter().enumerate() {
                    let field = format!("messages[{index}].content[{number}]");
                    let text = part.get("text").and_then(Value::as_str);
                    match (part.get("type").and_then(Value::as_str), text) {
                        (Some("text"), Some(text)) => texts.push(text.to_owned()),
                        (Some("image_url"), _) if self.takes.images => {
                            let uri = part["image_url"]["url"].as_str().unwrap_or_default();
                            match Image::read(uri) {
                                Ok(image) => {
                                    self.images.push(image);
                                    texts.push(format!("[image {}]", self.images.len()));
                                }
                                Err(why) => self.leave_out(field, why)?,
                            }
                        }
                        (Some("image_url"), _) => {
                            self.leave_out(field, "this program takes no images")?;
                        }
                        _ => {
                            let why =
                                "a program that runs as a provider takes texts and images only";
                            self.leave_out(field, why)?;
                        }
                    }
                }
                Ok(texts.join("\n\n"))
            }
            Some(_) => Err(Wrong::new(format!("messages[{index}].content"), "use a text")),
        }
    }
}

/// Calls of tools as a text, for a model that is to know that they were made.
fn in_words(calls: &Value) -> String {
    let one = |call: &Value| {
        let function = call.get("function").unwrap_or(call);
        let name = function["name"].as_str()?;
        let arguments = function["arguments"].as_str().unwrap_or_default();
        Some(format!("\n[calls the tool {name} with {arguments}]"))
    };
    match calls {
        Value::Array(calls) => calls.iter().filter_map(one).collect(),
        call => one(call).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn prompt(body: &Value) -> Result<Prompt, Wrong> {
        read(body.to_string().as_bytes(), Takes::default())
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
                images: Vec::new(),
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
            ("messages[0].role", json!({"messages": [{"role": "robot", "content": "a"}]})),
            ("messages[0]", json!({"messages": [{"role": "tool", "content": "a"}]})),
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

    #[test]
    fn a_lenient_caller_gets_what_can_be_said_and_hears_what_cannot() {
        let body = json!({
            "model": "m", "tools": [{"type": "function"}], "tool_choice": "required", "stop": ["x"],
            "response_format": {"type": "json_object"}, "seed": 1,
            "messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": "Weather?"}, {"type": "input_audio", "input_audio": {}},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                ]},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Bern\"}"}},
                ]},
                {"role": "tool", "tool_call_id": "1", "content": "Rain."},
            ],
        });
        let takes = |images| Takes { images, less: true };
        for images in [true, false] {
            let asked = read(body.to_string().as_bytes(), takes(images)).unwrap();
            assert_eq!(
                asked.text,
                "This is a conversation. Write only what the assistant says next.\n\nUser:\nWeather?\n\n\
                 Assistant:\n\n[calls the tool weather with {\"city\":\"Bern\"}]\n\nResult of the tool:\nRain."
            );
            let mut dropped = asked.dropped.clone();
            dropped.sort();
            assert_eq!(
                dropped,
                [
                    "messages[0].content[1]",
                    "messages[0].content[2]",
                    "messages[1].tool_calls",
                    "messages[2]",
                    "response_format",
                    "seed",
                    "stop",
                    "tool_choice",
                    "tools",
                ]
            );
            assert!(asked.images.is_empty());
        }
        // What is no request at all stays one that can't be done.
        let body = json!({"model": "m", "messages": [{"role": "robot", "content": "a"}]});
        assert!(read(body.to_string().as_bytes(), takes(true)).is_err());
    }

    #[test]
    fn images_go_along_where_a_program_takes_them() {
        let image = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
        let body = |url: &str| {
            let content = json!([{"type": "text", "text": "What?"}, image(url)]);
            json!({"model": "m", "messages": [{"role": "user", "content": content}]}).to_string()
        };
        let takes = Takes { images: true, less: false };
        let asked = read(body("data:image/jpeg;base64,aGk=").as_bytes(), takes).unwrap();
        assert_eq!(asked.text, "What?\n\n[image 1]");
        assert_eq!(asked.images, [Image { extension: "jpg", bytes: b"hi".to_vec() }]);
        assert_eq!(asked.images[0].media_type(), "image/jpeg");
        for (url, says) in [
            ("https://example.com/a.png", "`data:` URI"),
            ("data:image/tiff;base64,aGk=", "PNG"),
            ("data:image/png;base64,???", "base64"),
        ] {
            let wrong = read(body(url).as_bytes(), takes).unwrap_err();
            assert_eq!(wrong.field, "messages[0].content[1]");
            assert!(wrong.message.contains(says), "{}", wrong.message);
        }
    }
}
