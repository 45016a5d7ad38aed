//! What goes over the wire: requests, answers and the model list of the gateway's OpenAI front.

use evo_common::{config::ModelCost, stage::ModelUsage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Error;

/// Most tools that an answer may call at once.
const MAX_CALLS: usize = 64;
/// Longest arguments of one call.
const MAX_ARGUMENTS: usize = 256 * 1024;

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
    /// How much the model thinks first (`low`, `medium`, `high`, …); [`None`] for its default.
    pub reasoning_effort: Option<String>,
    /// What the model may call instead of answering.
    pub tools: Vec<Tool>,
}

/// Something that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// What it is called by: `[a-zA-Z0-9_-]{1,64}`.
    pub name: String,
    /// What it does.
    pub description: String,
    /// JSON Schema of its arguments: an object.
    pub parameters: Value,
}

impl Serialize for Tool {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Wire<'a> {
            r#type: &'static str,
            function: Function<'a>,
        }
        #[derive(Serialize)]
        struct Function<'a> {
            name: &'a str,
            description: &'a str,
            parameters: &'a Value,
        }
        let Self { name, description, parameters } = self;
        Wire { r#type: "function", function: Function { name, description, parameters } }
            .serialize(serializer)
    }
}

/// A call of a tool that the model wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// What the result is matched by.
    pub id: String,
    /// The tool.
    pub name: String,
    /// JSON, as the model wrote it: it may be anything.
    pub arguments: String,
}

impl Serialize for ToolCall {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Wire<'a> {
            id: &'a str,
            r#type: &'static str,
            function: Function<'a>,
        }
        #[derive(Serialize)]
        struct Function<'a> {
            name: &'a str,
            arguments: &'a str,
        }
        let Self { id, name, arguments } = self;
        Wire { id, r#type: "function", function: Function { name, arguments } }
            .serialize(serializer)
    }
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
    /// A tool that the model called.
    Tool,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// What the model called while it said so.
    pub tool_calls: Vec<ToolCall>,
    /// The call that this is the result of.
    pub tool_call_id: Option<String>,
}

impl Serialize for Message {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Wire<'a> {
            role: Role,
            /// Null beside calls only: some providers refuse an empty text.
            content: Option<&'a str>,
            #[serde(skip_serializing_if = "<[ToolCall]>::is_empty")]
            tool_calls: &'a [ToolCall],
            #[serde(skip_serializing_if = "Option::is_none")]
            tool_call_id: Option<&'a str>,
        }
        let silent = self.content.is_empty() && !self.tool_calls.is_empty();
        Wire {
            role: self.role,
            content: (!silent).then_some(&self.content),
            tool_calls: &self.tool_calls,
            tool_call_id: self.tool_call_id.as_deref(),
        }
        .serialize(serializer)
    }
}

impl Message {
    fn of(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), tool_calls: Vec::new(), tool_call_id: None }
    }

    /// Something that the program says.
    pub fn system(content: impl Into<String>) -> Self {
        Self::of(Role::System, content)
    }

    /// Something that whoever asks says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::of(Role::User, content)
    }

    /// Something that the model said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::of(Role::Assistant, content)
    }

    /// An answer of the model that called tools; their results must follow.
    pub fn calls(content: impl Into<String>, tool_calls: Vec<ToolCall>) -> Self {
        Self { tool_calls, ..Self::of(Role::Assistant, content) }
    }

    /// What a call of a tool came to.
    pub fn result(tool_call_id: impl Into<String>, content: impl Into<String>) -> Self {
        Self { tool_call_id: Some(tool_call_id.into()), ..Self::of(Role::Tool, content) }
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

    pub(super) fn body(&self, model: &str, effort: Option<&str>, stream: bool) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            model: &'a str,
            messages: &'a [Message],
            #[serde(skip_serializing_if = "Option::is_none")]
            temperature: Option<f64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            max_tokens: Option<u32>,
            #[serde(skip_serializing_if = "Option::is_none")]
            reasoning_effort: Option<&'a str>,
            #[serde(skip_serializing_if = "<[Tool]>::is_empty")]
            tools: &'a [Tool],
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
            reasoning_effort: effort,
            tools: &self.tools,
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
    #[serde(default)]
    tool_calls: Option<Vec<CallPart>>,
}

/// A call of a tool, or a piece of one.
#[derive(Debug, Default, Deserialize)]
pub(super) struct CallPart {
    #[serde(default)]
    index: Option<usize>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    function: FunctionPart,
}

#[derive(Debug, Default, Deserialize)]
struct FunctionPart {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<String>,
}

/// Calls of tools out of their pieces.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<(Option<usize>, ToolCall)>);

impl Calls {
    /// Takes a piece in. Pieces of one call have its index; a server that sends none starts a new
    /// call with each new id.
    pub(super) fn add(&mut self, part: CallPart) -> Result<(), Error> {
        let CallPart { index, id, function } = part;
        let id = id.filter(|id| !id.is_empty());
        let known = match (index, &id) {
            (Some(index), _) => self.0.iter().position(|(at, _)| *at == Some(index)),
            (None, Some(id)) => self.0.iter().position(|(_, call)| call.id == *id),
            (None, None) => self.0.len().checked_sub(1),
        };
        let known = match known {
            Some(known) => known,
            None if self.0.len() >= MAX_CALLS => {
                let message = format!("it calls more than {MAX_CALLS} tools at once");
                return Err(Error::Malformed(message));
            }
            None => {
                let (name, arguments) = Default::default();
                self.0.push((index, ToolCall { id: String::new(), name, arguments }));
                self.0.len() - 1
            }
        };
        let call = &mut self.0[known].1;
        if let Some(id) = id {
            call.id = id;
        }
        // Some servers repeat the whole name with every piece.
        if let Some(name) = function.name.filter(|name| call.name != *name) {
            call.name.push_str(&name);
        }
        let arguments = function.arguments.unwrap_or_default();
        if call.arguments.len() + arguments.len() > MAX_ARGUMENTS {
            let message = format!("the arguments of a call are longer than {MAX_ARGUMENTS} bytes");
            return Err(Error::Malformed(message));
        }
        call.arguments.push_str(&arguments);
        Ok(())
    }

    /// The calls, each with a name and an id.
    pub(super) fn finish(self) -> Result<Vec<ToolCall>, Error> {
        let mut calls: Vec<ToolCall> = self.0.into_iter().map(|(_, call)| call).collect();
        for number in 0..calls.len() {
            if calls[number].name.is_empty() {
                return Err(Error::Malformed("it calls a tool without a name".to_owned()));
            }
            // Results are matched by the id, so that two calls can't share one.
            let id = &calls[number].id;
            if id.is_empty() || calls[..number].iter().any(|earlier| earlier.id == *id) {
                calls[number].id = format!("call_{}", number + 1);
            }
        }
        Ok(calls)
    }
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

/// Reads a whole answer, and what the call came to.
pub(super) fn answer(
    bytes: &[u8],
    model: &ModelInfo,
) -> (Result<super::ChatAnswer, Error>, ModelUsage) {
    let answer: Answer = match serde_json::from_slice(bytes) {
        Ok(answer) => answer,
        Err(error) => {
            let error = Error::Malformed(format!("it is no chat completion: {error}"));
            return (Err(error), uncounted());
        }
    };
    let usage = answer.usage.map_or_else(uncounted, |tokens| tokens.of_call(model));
    let said = answer.choices.into_iter().next().map(|choice| {
        let mut calls = Calls::default();
        for (index, part) in choice.message.tool_calls.unwrap_or_default().into_iter().enumerate() {
            calls.add(CallPart { index: Some(index), ..part })?;
        }
        let text = choice.message.content.map(Content::into_text).unwrap_or_default();
        whole(text, calls.finish()?, model, usage.clone(), choice.finish_reason)
    });
    (said.unwrap_or_else(|| Err(nothing())), usage)
}

/// An answer that says something or calls something.
pub(super) fn whole(
    text: String,
    tool_calls: Vec<ToolCall>,
    model: &ModelInfo,
    usage: ModelUsage,
    finish_reason: Option<String>,
) -> Result<super::ChatAnswer, Error> {
    if text.trim().is_empty() && tool_calls.is_empty() {
        return Err(nothing());
    }
    Ok(super::ChatAnswer { text, tool_calls, model: model.id.clone(), usage, finish_reason })
}

fn nothing() -> Error {
    Error::Malformed("it holds no text".to_owned())
}

/// One event of a stream.
#[derive(Debug, Default)]
pub(super) struct Event {
    /// What is said.
    pub(super) text: Option<String>,
    /// What is called.
    pub(super) calls: Vec<CallPart>,
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
        let delta = choice.delta.unwrap_or_default();
        event.text = delta.content.map(Content::into_text);
        event.calls = delta.tool_calls.unwrap_or_default();
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
