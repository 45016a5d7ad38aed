//! Ollama's own protocol: `/api/chat` and `/api/generate`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::nullable;

/// A question: of `/api/chat` with `messages`, of `/api/generate` with `prompt`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Request {
    #[serde(default, deserialize_with = "nullable")]
    pub messages: Vec<Message>,
    #[serde(default, deserialize_with = "nullable")]
    pub prompt: String,
    #[serde(default, deserialize_with = "nullable")]
    pub system: String,
    /// As base64 text.
    #[serde(default, deserialize_with = "nullable")]
    pub images: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub tools: Vec<Tool>,
    /// `json`, or a schema.
    pub format: Option<Value>,
    #[serde(default, deserialize_with = "nullable")]
    pub options: Map<String, Value>,
    pub stream: Option<bool>,
    /// Whether, or how much, the model is to think.
    pub think: Option<Value>,
    /// Everything else, so that a field that changes the answer is refused and not overlooked.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Message {
    pub role: String,
    #[serde(default, deserialize_with = "nullable")]
    pub content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Of which tool this is a result.
    #[serde(alias = "name", skip_serializing_if = "Option::is_none")]
    pub tool_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub function: FunctionCall,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FunctionCall {
    pub name: String,
    #[serde(default, deserialize_with = "nullable")]
    pub arguments: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Tool {
    pub function: Function,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Function {
    pub name: String,
    pub description: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub parameters: Map<String, Value>,
}

/// An answer, or a line of one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Response {
    pub model: String,
    pub created_at: String,
    /// Of `/api/chat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Message>,
    /// Of `/api/generate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    pub done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done_reason: Option<&'static str>,
    #[serde(flatten)]
    pub figures: Option<Figures>,
}

/// What stands in the last line. Durations are nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Figures {
    pub total_duration: u64,
    pub load_duration: u64,
    pub prompt_eval_count: u64,
    pub prompt_eval_duration: u64,
    pub eval_count: u64,
    pub eval_duration: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ErrorBody {
    pub error: String,
    /// Not Ollama's own: the word for programs that the gateway's own errors have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}
