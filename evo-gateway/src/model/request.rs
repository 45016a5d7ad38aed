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
    pub system: Vec<Instruction>,
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
    /// Whether a summary of what the model thinks is wanted, where it shows one only then.
    pub reasoning_summary: bool,
    pub response_format: ResponseFormat,
    pub seed: Option<i64>,
    pub presence_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    /// How many answers are wanted; `None` is one.
    pub n: Option<u64>,
    /// Whether the answer is to tell how likely each of its tokens was.
    pub logprobs: bool,
    /// Of how many other tokens in each place; counts only with `logprobs`.
    pub top_logprobs: Option<u64>,
    /// How talkative the answer is to be: OpenAI's `low`, `medium` or `high`.
    pub verbosity: Option<String>,
    /// What OpenAI tells conversations apart by when it looks for a cached beginning.
    pub prompt_cache_key: Option<String>,
}

impl ChatRequest {
    /// Takes all cache marks out, for a protocol that has none. Says whether there were any.
    pub fn take_cache_marks(&mut self) -> bool {
        fn take(parts: &mut Vec<Part>) -> bool {
            let before = parts.len();
            parts.retain(|part| !matches!(part, Part::CacheMark(_)));
            let inner = parts.iter_mut().filter_map(|part| match part {
                Part::ToolResult(result) => Some(take(&mut result.parts)),
                _ => None,
            });
            let had_inner = inner.fold(false, |had, has| had | has);
            had_inner || parts.len() < before
        }
        let mut had = false;
        for text in &mut self.system {
            had |= text.cache.take().is_some();
        }
        for message in &mut self.messages {
            had |= take(&mut message.parts);
        }
        for tool in &mut self.tools {
            had |= tool.cache.take().is_some();
        }
        had
    }
}

/// A text that stands above the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    pub text: String,
    /// The provider is asked to cache everything up to here.
    pub cache: Option<CacheFor>,
}

impl From<String> for Instruction {
    fn from(text: String) -> Self {
        Self { text, cache: None }
    }
}

/// How long a provider is asked to keep what it caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheFor {
    /// As long as the provider does unasked; with Anthropic five minutes.
    Default,
    Hour,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub role: Role,
    pub parts: Vec<Part>,
    /// Where it begins in the caller's own list, for errors.
    pub at: usize,
}

/// Who speaks. The results of tools are the user's, as in Anthropic's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions from within the conversation, as texts.
    System,
    User,
    Assistant,
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    Text(String),
    Image(Image),
    Document(Document),
    /// What the model thought earlier; stands before what it then said.
    Reasoning(Reasoning),
    ToolCall(ToolCall),
    ToolResult(ToolResult),
    /// The provider is asked to cache everything up to here.
    CacheMark(CacheFor),
}

/// What a model thought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reasoning {
    /// What of it can be read; may be nothing.
    pub text: String,
    /// What its author wants to see again, so that it can go on thinking where it stopped.
    pub seal: Option<Seal>,
}

/// Something that only the provider that made it can read: a signature, or thoughts in cipher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    pub origin: SealOrigin,
    /// The name of the sealed thing, where its protocol gives one: the id of a reasoning item, or of
    /// the call that it belongs to.
    pub id: Option<String>,
    pub data: String,
}

/// Which protocol a [`Seal`] comes from, so that nobody else is shown it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealOrigin {
    /// The signature under a thinking block.
    Anthropic,
    /// Thinking that Anthropic does not show. There is no text with it.
    AnthropicRedacted,
    /// The text was `reasoning_content` and goes back as that; `data` is empty, or a list of
    /// `reasoning_details` that came with it.
    OpenAiChat,
    /// The encrypted content of a reasoning item.
    OpenAiResponses,
    /// A thought signature. It belongs to the part that follows.
    Gemini,
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
    /// Of a custom tool, its text as [`CUSTOM_INPUT`].
    pub arguments: Map<String, Value>,
}

/// The only argument of a custom tool where it has to be a function.
pub const CUSTOM_INPUT: &str = "input";

/// What a call gave.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolResult {
    /// The id of the [`ToolCall`] that it answers.
    pub call_id: String,
    /// Texts, images, documents and cache marks.
    pub parts: Vec<Part>,
    pub is_error: bool,
}

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tool {
    pub name: String,
    pub description: Option<String>,
    /// JSON schema of the arguments.
    pub schema: Map<String, Value>,
    /// Whether the provider is to keep the model to the schema.
    pub strict: Option<bool>,
    /// It takes any text and no JSON (OpenAI's custom tools). `schema` is then that of an object with
    /// the text as [`CUSTOM_INPUT`], for protocols that know only functions.
    pub custom: Option<CustomFormat>,
    /// The provider is asked to cache everything up to here.
    pub cache: Option<CacheFor>,
}

/// What a custom tool takes.
#[derive(Debug, Clone, PartialEq)]
pub enum CustomFormat {
    Text,
    /// A text of a grammar, as OpenAI writes it.
    Grammar(Map<String, Value>),
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

impl ToolChoice {
    /// The choice by OpenAI's name.
    pub fn of_mode(mode: &str) -> Option<Self> {
        Some(match mode {
            "auto" => Self::Auto,
            "none" => Self::None,
            "required" => Self::Required,
            _ => return None,
        })
    }

    /// OpenAI's name of the choice, or else the name of the tool.
    pub fn mode(self) -> Result<&'static str, String> {
        match self {
            Self::Auto => Ok("auto"),
            Self::None => Ok("none"),
            Self::Required => Ok("required"),
            Self::Named(name) => Err(name),
        }
    }
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

/// Efforts and the tokens to think that stand for them, smallest first.
const BUDGETS: [(Effort, u64); 5] = [
    (Effort::Minimal, 1_024),
    (Effort::Low, 2_048),
    (Effort::Medium, 8_192),
    (Effort::High, 16_384),
    (Effort::Highest, 32_000),
];

impl Effort {
    /// The effort that so many tokens to think are.
    pub fn of_budget(budget: u64) -> Self {
        let fits = BUDGETS.iter().rev().find(|(_, least)| *least <= budget);
        fits.map_or(Self::Minimal, |(effort, _)| *effort)
    }

    /// How many tokens to think stand for it; none for no thinking.
    pub fn budget(self) -> Option<u64> {
        BUDGETS.iter().find(|(listed, _)| *listed == self).map(|(_, budget)| *budget)
    }

    /// The effort by OpenAI's name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "none" => Self::None,
            "minimal" => Self::Minimal,
            "low" => Self::Low,
            "medium" => Self::Medium,
            "high" => Self::High,
            "xhigh" | "max" => Self::Highest,
            _ => return None,
        })
    }
}

/// The shape that the answer's text must have.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum ResponseFormat {
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that fits a schema.
    JsonSchema {
        name: String,
        description: Option<String>,
        schema: Map<String, Value>,
        strict: Option<bool>,
    },
}
