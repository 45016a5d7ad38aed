//! OpenAI's Responses.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use super::{Content, nullable, openai::CacheBreakpoint};

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Request {
    #[serde(default)]
    pub model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    pub input: Option<Content<Item>>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<bool>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<ReasoningConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<TextConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safety_identifier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_cache_key: Option<String>,
    /// Everything else, so that a field that changes the answer is refused and not overlooked.
    #[serde(flatten, skip_serializing)]
    pub rest: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ReasoningConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effort: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TextConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<TextFormat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verbosity: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TextFormat {
    Text,
    JsonObject,
    JsonSchema {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        #[serde(default)]
        schema: Map<String, Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        strict: Option<bool>,
    },
    #[serde(other)]
    Unknown,
}

/// A piece of a conversation or of an answer; which fields may be present depends on the type.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Item {
    /// Absent for a message in its short form.
    #[serde(rename = "type", default = "message")]
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Content<Part>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Content<Part>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Vec<Part>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted_content: Option<String>,
}

/// The types of items that are translated.
pub const MESSAGE: &str = "message";
pub const REASONING: &str = "reasoning";
pub const FUNCTION_CALL: &str = "function_call";
pub const FUNCTION_CALL_OUTPUT: &str = "function_call_output";
pub const CUSTOM_TOOL_CALL: &str = "custom_tool_call";
pub const CUSTOM_TOOL_CALL_OUTPUT: &str = "custom_tool_call_output";

fn message() -> String {
    MESSAGE.to_owned()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    InputText {
        text: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        prompt_cache_breakpoint: Option<CacheBreakpoint>,
    },
    OutputText {
        #[serde(default, deserialize_with = "nullable")]
        text: String,
        #[serde(skip_deserializing)]
        annotations: [(); 0],
        #[serde(default, deserialize_with = "nullable")]
        logprobs: Vec<Logprob>,
    },
    Refusal {
        refusal: String,
    },
    InputImage {
        /// An address, or the image itself as a `data:` URI.
        #[serde(skip_serializing_if = "Option::is_none")]
        image_url: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        prompt_cache_breakpoint: Option<CacheBreakpoint>,
    },
    InputFile {
        /// The file itself as a `data:` URI.
        #[serde(skip_serializing_if = "Option::is_none")]
        file_data: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        file_url: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        filename: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        prompt_cache_breakpoint: Option<CacheBreakpoint>,
    },
    SummaryText {
        text: String,
    },
    ReasoningText {
        text: String,
    },
    /// What some callers send instead of `input_text`.
    Text {
        text: String,
    },
    #[serde(other)]
    Unknown,
}

impl Part {
    /// A piece of a caller's text.
    pub fn input_text(text: String) -> Self {
        Self::InputText { text, prompt_cache_breakpoint: None }
    }

    /// A piece of an answer.
    pub fn output_text(text: String) -> Self {
        Self::OutputText { text, annotations: [], logprobs: Vec::new() }
    }

    /// Where a cache mark of this part stands, if it can have one.
    pub fn breakpoint(&mut self) -> Option<&mut Option<CacheBreakpoint>> {
        match self {
            Self::InputText { prompt_cache_breakpoint: mark, .. }
            | Self::InputImage { prompt_cache_breakpoint: mark, .. }
            | Self::InputFile { prompt_cache_breakpoint: mark, .. } => Some(mark),
            _ => None,
        }
    }
}

/// How likely a token was. In events of a stream bytes and alternatives may be absent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Logprob {
    #[serde(default, deserialize_with = "nullable")]
    pub token: String,
    #[serde(default, deserialize_with = "nullable")]
    pub logprob: f64,
    #[serde(default, deserialize_with = "nullable")]
    pub bytes: Vec<u8>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub top_logprobs: Vec<Logprob>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Tool {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// Of a custom tool; `type` is `text` or `grammar`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Map<String, Value>>,
    /// Those of a namespace.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ToolChoice {
    Mode(String),
    Named {
        #[serde(rename = "type")]
        kind: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Of a choice among some of the tools.
        #[serde(skip_serializing)]
        mode: Option<String>,
        #[serde(default, deserialize_with = "nullable", skip_serializing)]
        tools: Vec<AllowedTool>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AllowedTool {
    pub name: Option<String>,
}

/// An answer, as it is read.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Response {
    #[serde(default, deserialize_with = "nullable")]
    pub id: String,
    #[serde(default, deserialize_with = "nullable")]
    pub model: String,
    pub status: Option<String>,
    pub error: Option<Value>,
    pub incomplete_details: Option<IncompleteDetails>,
    #[serde(default, deserialize_with = "nullable")]
    pub output: Vec<Item>,
    pub usage: Option<Usage>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncompleteDetails {
    pub reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    #[serde(default, deserialize_with = "nullable")]
    pub input_tokens: u64,
    #[serde(default, deserialize_with = "nullable")]
    pub input_tokens_details: InputTokensDetails,
    #[serde(default, deserialize_with = "nullable")]
    pub output_tokens: u64,
    #[serde(default, deserialize_with = "nullable")]
    pub output_tokens_details: OutputTokensDetails,
    #[serde(default, deserialize_with = "nullable")]
    pub total_tokens: u64,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct InputTokensDetails {
    #[serde(default, deserialize_with = "nullable")]
    pub cached_tokens: u64,
    #[serde(default, deserialize_with = "nullable")]
    pub cache_write_tokens: u64,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct OutputTokensDetails {
    pub reasoning_tokens: Option<u64>,
}

/// An answer, as it is written: clients read most fields without asking whether they are there.
#[derive(Debug, Clone, Serialize)]
pub struct ResponseOut<'a> {
    pub id: &'a str,
    /// `response`.
    pub object: &'static str,
    pub created_at: u64,
    pub status: &'static str,
    pub background: bool,
    pub error: Option<&'a ErrorDetail>,
    pub incomplete_details: Option<IncompleteDetails>,
    pub model: &'a str,
    pub output: &'a [Item],
    pub previous_response_id: (),
    pub store: bool,
    pub usage: Option<Usage>,
    #[serde(flatten)]
    pub echo: &'a Echo,
}

/// What an answer repeats of its question, as it stood there.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Echo {
    pub instructions: Option<Box<RawValue>>,
    pub max_output_tokens: Option<Box<RawValue>>,
    #[serde(serialize_with = "or_object")]
    pub metadata: Option<Box<RawValue>>,
    #[serde(serialize_with = "or_true")]
    pub parallel_tool_calls: Option<Box<RawValue>>,
    pub prompt_cache_key: Option<Box<RawValue>>,
    #[serde(serialize_with = "or_no_reasoning")]
    pub reasoning: Option<Box<RawValue>>,
    pub safety_identifier: Option<Box<RawValue>>,
    #[serde(serialize_with = "or_default_tier")]
    pub service_tier: Option<Box<RawValue>>,
    #[serde(serialize_with = "or_one")]
    pub temperature: Option<Box<RawValue>>,
    #[serde(serialize_with = "or_text")]
    pub text: Option<Box<RawValue>>,
    #[serde(serialize_with = "or_auto")]
    pub tool_choice: Option<Box<RawValue>>,
    #[serde(serialize_with = "or_list")]
    pub tools: Option<Box<RawValue>>,
    #[serde(serialize_with = "or_zero")]
    pub top_logprobs: Option<Box<RawValue>>,
    #[serde(serialize_with = "or_one")]
    pub top_p: Option<Box<RawValue>>,
    #[serde(serialize_with = "or_disabled")]
    pub truncation: Option<Box<RawValue>>,
    pub user: Option<Box<RawValue>>,
}

/// Defines how a value that the question does not name is written.
macro_rules! defaults {
    ($($name:ident: $json:tt),* $(,)?) => {$(
        #[expect(clippy::ref_option, reason = "serde's `serialize_with` passes it so")]
        fn $name<S: serde::Serializer>(
            value: &Option<Box<RawValue>>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match value {
                Some(value) => value.serialize(serializer),
                None => serde_json::json!($json).serialize(serializer),
            }
        }
    )*};
}

defaults! {
    or_object: {},
    or_true: true,
    or_no_reasoning: {"effort": null, "summary": null},
    or_default_tier: "default",
    or_one: 1.0,
    or_text: {"format": {"type": "text"}},
    or_auto: "auto",
    or_list: [],
    or_zero: 0,
    or_disabled: "disabled",
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ErrorDetail {
    pub code: String,
    pub message: String,
}

/// An event of a streamed answer, as it is read; which fields are present depends on the type.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Event {
    #[serde(rename = "type")]
    pub kind: String,
    pub response: Option<Response>,
    pub item: Option<Item>,
    #[serde(default, deserialize_with = "nullable")]
    pub output_index: u64,
    #[serde(default, deserialize_with = "nullable")]
    pub summary_index: u64,
    #[serde(default, deserialize_with = "nullable")]
    pub delta: String,
    #[serde(default, deserialize_with = "nullable")]
    pub logprobs: Vec<Logprob>,
    /// Of the event `error`; some servers put its fields in here, others into the event.
    pub error: Option<Value>,
    pub code: Option<Value>,
    pub message: Option<String>,
}

/// An event of a streamed answer, as it is written.
#[derive(Debug, Clone, Serialize)]
pub struct EventOut<'a> {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub sequence_number: u64,
    #[serde(flatten)]
    pub body: Body<'a>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Body<'a> {
    Response {
        response: ResponseOut<'a>,
    },
    Item {
        output_index: usize,
        item: &'a Item,
    },
    Part {
        item_id: &'a str,
        output_index: usize,
        content_index: usize,
        part: &'a Part,
    },
    SummaryPart {
        item_id: &'a str,
        output_index: usize,
        summary_index: usize,
        part: &'a Part,
    },
    TextDelta {
        item_id: &'a str,
        output_index: usize,
        content_index: usize,
        delta: &'a str,
        logprobs: &'a [Logprob],
    },
    Text {
        item_id: &'a str,
        output_index: usize,
        content_index: usize,
        text: &'a str,
        logprobs: &'a [Logprob],
    },
    RefusalDelta {
        item_id: &'a str,
        output_index: usize,
        content_index: usize,
        delta: &'a str,
    },
    Refusal {
        item_id: &'a str,
        output_index: usize,
        content_index: usize,
        refusal: &'a str,
    },
    SummaryDelta {
        item_id: &'a str,
        output_index: usize,
        summary_index: usize,
        delta: &'a str,
    },
    Summary {
        item_id: &'a str,
        output_index: usize,
        summary_index: usize,
        text: &'a str,
    },
    CallDelta {
        item_id: &'a str,
        output_index: usize,
        delta: &'a str,
    },
    Arguments {
        item_id: &'a str,
        output_index: usize,
        name: &'a str,
        arguments: &'a str,
    },
    Input {
        item_id: &'a str,
        output_index: usize,
        input: &'a str,
    },
    Error {
        code: &'a str,
        message: &'a str,
        param: Option<&'a str>,
        error: &'a super::openai::ErrorDetail,
    },
}
