use serde_json::{Map, Value};

/// One question to a model: what every protocol of this release can say, and what at least one can.
///
/// A field that a protocol cannot carry is refused by that protocol's writer, unless it is a mere
/// hint; which hints are dropped stands at each writer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChatRequest {
    /// The model's name as the provider knows it.
    pub model: String,
    /// Instructions that stand above the conversation, in order. Later ones are messages.
    pub system: Vec<String>,
    pub messages: Vec<Message>,
    pub tools: Vec<Tool>,
    pub tool_choice: Option<ToolChoice>,
    /// `Some(false)`: at most one tool call per answer.
    pub parallel_tool_calls: Option<bool>,
    /// The most tokens that the answer may have, reasoning included.
    pub max_tokens: Option<u64>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<u64>,
    /// Texts that end the answer when the model is about to write them.
    pub stop: Vec<String>,
    /// Whether the answer comes in pieces.
    pub stream: bool,
    /// Who asks, for the provider's own abuse checks.
    pub user: Option<String>,
    pub reasoning_effort: Option<Effort>,
    pub response_format: ResponseFormat,
    pub seed: Option<i64>,
    pub presence_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    /// How many answers are wanted; `None` is one.
    pub n: Option<u64>,
    pub logprobs: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub role: Role,
    pub parts: Vec<Part>,
}

/// Who speaks. The results of tools are the user's, as in Anthropic's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions from within the conversation, as texts.
    System,
    User,
    Assistant,
}

/// A piece of a message. What the model thought earlier is not among them: only the provider that
/// signed it can read it, and a translated conversation goes to another.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    Text(String),
    Image(Image),
    Document(Document),
    ToolCall(ToolCall),
    ToolResult(ToolResult),
}

/// Where the bytes of an image or a document are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Media {
    /// In the request, as base64 text.
    Inline { media_type: String, data: String },
    /// At an address that the provider fetches.
    Url(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub media: Media,
    /// OpenAI's `low`, `high` or `auto`.
    pub detail: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub media: Media,
    pub name: Option<String>,
}

/// A call that the model wants made.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    pub arguments: Map<String, Value>,
}

/// What a call gave.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolResult {
    /// The id of the [`ToolCall`] that it answers.
    pub call_id: String,
    /// Texts, images and documents.
    pub parts: Vec<Part>,
    pub is_error: bool,
}

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    pub name: String,
    pub description: Option<String>,
    /// JSON schema of the arguments.
    pub schema: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    Auto,
    /// No call.
    None,
    /// At least one call, of any tool.
    Required,
    /// A call of this tool.
    Named(String),
}

/// How much the model should think before it answers, where it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    /// OpenAI's `xhigh` and Anthropic's `xhigh` and `max`.
    Highest,
}

/// The shape that the answer's text must have.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum ResponseFormat {
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that fits a schema.
    JsonSchema { name: String, schema: Map<String, Value>, strict: Option<bool> },
}
