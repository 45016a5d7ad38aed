//! What goes over the wire: requests, answers and the model list of the gateway's OpenAI front.

use evo_common::{config::ModelCost, stage::ModelUsage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Error;

/// Parts of the ids of models that do not chat.
const OTHER_KINDS: [&str; 15] = [
    "embed",
    "whisper",
    "tts",
    "image",
    "dall-e",
    "moderation",
    "rerank",
    "audio",
    "realtime",
    "transcri",
    "speech",
    "video",
    "sora",
    "imagen",
    "veo-",
];

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatRequest {
    /// The model (`provider:model`); [`None`] for the one that [`super::GatewayClient::model`]
    /// finds.
    pub model: Option<String>,
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// How much chance there is, from 0; [`None`] for the model's own default.
    pub temperature: Option<f64>,
    /// Most tokens of the answer; [`None`] for the model's own limit.
    pub max_tokens: Option<u32>,
}

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Whoever wrote the program.
    System,
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// Something that the program says.
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: Role::System, content: content.into() }
    }

    /// Something that whoever asks says.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: Role::User, content: content.into() }
    }

    /// Something that the model said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: Role::Assistant, content: content.into() }
    }
}

impl ChatRequest {
    /// A question with instructions.
    pub fn new(system: impl Into<String>, user: impl Into<String>) -> Self {
        Self { messages: vec![Message::system(system), Message::user(user)], ..Self::default() }
    }

    /// Most tokens of the answer.
    #[must_use]
    pub fn max_tokens(mut self, most: u32) -> Self {
        self.max_tokens = Some(most);
        self
    }

    pub(super) fn body(&self, model: &str, stream: bool) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            model: &'a str,
            messages: &'a [Message],
            #[serde(skip_serializing_if = "Option::is_none")]
            temperature: Option<f64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            max_tokens: Option<u32>,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            stream: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            stream_options: Option<StreamOptions>,
        }
        #[derive(Serialize)]
        struct StreamOptions {
            include_usage: bool,
        }
        let body = Body {
            model,
            messages: &self.messages,
            temperature: self.temperature,
            max_tokens: self.max_tokens,
            stream,
            stream_options: stream.then_some(StreamOptions { include_usage: true }),
        };
        serde_json::to_vec(&body).expect("a request is plain data")
    }
}

/// A model that the gateway lists.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ModelInfo {
    /// How it is asked for: `provider:model`.
    pub id: String,
    /// Tokens that fit in, if known.
    #[serde(default)]
    pub context_window: Option<u32>,
    /// Tokens that may come out, if known.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// Prices in USD per million tokens, if known.
    #[serde(default)]
    pub cost: Option<ModelCost>,
}

impl ModelInfo {
    /// A model of which nothing but its name is known.
    pub(super) fn named(id: &str) -> Self {
        Self { id: id.to_owned(), context_window: None, max_tokens: None, cost: None }
    }

    /// Whether its name does not say that it is for something else.
    pub(super) fn is_for_chat(&self) -> bool {
        let id = self.id.to_ascii_lowercase();
        !OTHER_KINDS.iter().any(|kind| id.contains(kind))
    }
}

#[derive(Deserialize)]
struct ModelList {
    data: Vec<Value>,
}

/// Reads the gateway's model list; entries that can't be read are left out.
pub(super) fn models(bytes: &[u8]) -> Result<Vec<ModelInfo>, Error> {
    let list: ModelList = serde_json::from_slice(bytes)
        .map_err(|error| Error::Malformed(format!("the model list is no such list: {error}")))?;
    Ok(list.data.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect())
}

/// Tokens, as a provider counts them.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Tokens {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    #[serde(default)]
    prompt_tokens_details: Option<PromptTokens>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct PromptTokens {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

impl Tokens {
    /// One call with its price.
    pub(super) fn of_call(&self, model: &ModelInfo) -> ModelUsage {
        let cached = self.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens);
        let cached = cached.unwrap_or_default().min(self.prompt_tokens);
        let cost_usd = model.cost.as_ref().map(|cost| {
            let fresh = (self.prompt_tokens - cached) as f64 * cost.input;
            let cached = cached as f64 * cost.cache_read.unwrap_or(cost.input);
            (fresh + cached + self.completion_tokens as f64 * cost.output) / 1_000_000.0
        });
        ModelUsage {
            calls: 1,
            input_tokens: self.prompt_tokens,
            output_tokens: self.completion_tokens,
            cost_usd,
        }
    }
}

/// The usage of a call whose answer says nothing about it: its price is not known.
pub(super) fn uncounted() -> ModelUsage {
    ModelUsage { calls: 1, ..ModelUsage::default() }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct Choice {
    message: Said,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize, Default)]
struct Said {
    #[serde(default)]
    content: Option<Content>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: Option<String>,
}

impl Content {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Parts(parts) => parts.into_iter().filter_map(|part| part.text).collect(),
        }
    }
}

/// The text of an answer and why it ends there, and what the call came to.
type Read = (Result<(String, Option<String>), Error>, ModelUsage);

/// Reads a whole answer.
pub(super) fn answer(bytes: &[u8], model: &ModelInfo) -> Read {
    let answer: Answer = match serde_json::from_slice(bytes) {
        Ok(answer) => answer,
        Err(error) => {
            let error = Error::Malformed(format!("it is no chat completion: {error}"));
            return (Err(error), uncounted());
        }
    };
    let usage = answer.usage.map_or_else(uncounted, |tokens| tokens.of_call(model));
    let choice = answer.choices.into_iter().next();
    let text = choice.and_then(|choice| {
        let text = choice.message.content?.into_text();
        (!text.trim().is_empty()).then_some((text, choice.finish_reason))
    });
    (text.ok_or_else(|| Error::Malformed("it holds no text".to_owned())), usage)
}

/// One event of a stream.
#[derive(Debug, Default)]
pub(super) struct Event {
    /// What is said.
    pub(super) text: Option<String>,
    /// Why the model stopped.
    pub(super) finish_reason: Option<String>,
    /// Tokens, at the end.
    pub(super) tokens: Option<Tokens>,
}

/// Reads one event of a stream.
pub(super) fn event(data: &str) -> Result<Event, Error> {
    #[derive(Deserialize)]
    struct Chunk {
        #[serde(default)]
        choices: Vec<Delta>,
        #[serde(default)]
        usage: Option<Tokens>,
        #[serde(default)]
        error: Option<Value>,
    }
    #[derive(Deserialize)]
    struct Delta {
        #[serde(default)]
        delta: Option<Said>,
        #[serde(default)]
        finish_reason: Option<String>,
    }
    let chunk: Chunk = serde_json::from_str(data).map_err(|error| {
        Error::Malformed(format!("an event of the stream is no chat chunk: {error}"))
    })?;
    if chunk.error.as_ref().is_some_and(|error| !error.is_null()) {
        return Err(refused(200, data.as_bytes()));
    }
    let mut event = Event { tokens: chunk.usage, ..Event::default() };
    if let Some(choice) = chunk.choices.into_iter().next() {
        event.text = choice.delta.and_then(|delta| delta.content).map(Content::into_text);
        event.finish_reason = choice.finish_reason;
    }
    Ok(event)
}

/// An error's body. OpenAI's `{"error": {"message", "type", "code"}}`, Anthropic's without the
/// code, or anything else.
pub(super) fn refused(status: u16, body: &[u8]) -> Error {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = value.get("error").unwrap_or(&value);
    let text = |key: &str| match error.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let message = text("message")
        .or_else(|| error.as_str().map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
    let message: String = message.chars().take(300).collect();
    Error::Refused {
        status,
        code: text("code").or_else(|| text("type")).unwrap_or_else(|| "no code".to_owned()),
        message: evo_common::redact::redact(&message).into_owned(),
    }
}
