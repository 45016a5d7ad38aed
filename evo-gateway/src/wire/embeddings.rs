//! Embeddings in all protocols; OpenAI's first.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Content;

/// A question of a caller.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Request {
    #[serde(default)]
    pub model: String,
    /// A text, texts, tokens, or lists of tokens.
    #[serde(default)]
    pub input: Value,
    pub dimensions: Option<u64>,
    pub encoding_format: Option<String>,
    pub user: Option<String>,
    /// Everything else, so that a field that changes the answer is refused and not overlooked.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A question for a provider.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AskOut {
    pub model: String,
    pub input: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A provider's answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Response {
    pub model: Option<String>,
    pub data: Vec<Vector>,
    pub usage: Option<Usage>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Vector {
    #[serde(default)]
    pub index: usize,
    pub embedding: Numbers,
}

/// A vector, as it is or as base64 of its bytes.
pub type Numbers = Content<f32>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub prompt_tokens: Option<u64>,
    pub total_tokens: Option<u64>,
}

/// An answer for a caller.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResponseOut {
    pub object: &'static str,
    pub data: Vec<VectorOut>,
    pub model: String,
    pub usage: Usage,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VectorOut {
    pub object: &'static str,
    pub index: usize,
    pub embedding: Numbers,
}

/// Google's.
pub mod gemini {
    use serde::{Deserialize, Serialize};
    use serde_json::{Map, Value};

    use crate::wire::gemini::Turn;

    /// A question of `embedContent`. The model stands in the address.
    #[derive(Debug, Clone, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub struct Single {
        #[serde(rename = "model")]
        pub _model: Option<String>,
        pub content: Turn,
        #[serde(alias = "task_type")]
        pub task_type: Option<String>,
        pub title: Option<String>,
        #[serde(alias = "output_dimensionality")]
        pub output_dimensionality: Option<u64>,
        /// Everything else, so that a field that changes the answer is refused and not overlooked.
        #[serde(flatten)]
        pub rest: Map<String, Value>,
    }

    #[derive(Debug, Clone, PartialEq, Deserialize)]
    pub struct Batch {
        #[serde(default)]
        pub requests: Vec<Single>,
    }

    #[derive(Debug, Clone, PartialEq, Serialize)]
    #[serde(rename_all = "camelCase")]
    pub struct SingleOut {
        pub model: String,
        pub content: Turn,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub output_dimensionality: Option<u64>,
    }

    #[derive(Debug, Clone, PartialEq, Serialize)]
    pub struct BatchOut {
        pub requests: Vec<SingleOut>,
    }

    #[derive(Debug, Clone, PartialEq, Serialize)]
    pub struct SingleAnswer {
        pub embedding: Values,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub struct BatchAnswer {
        pub embeddings: Vec<Values>,
        #[serde(skip_serializing)]
        pub usage_metadata: Option<Usage>,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct Values {
        pub values: Vec<f32>,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub struct Usage {
        pub prompt_token_count: Option<u64>,
    }
}

/// Ollama's.
pub mod ollama {
    use serde::{Deserialize, Serialize};
    use serde_json::{Map, Value};

    use crate::wire::{Content, nullable};

    /// A question of `/api/embed`.
    #[derive(Debug, Clone, PartialEq, Deserialize)]
    pub struct Embed {
        pub input: Option<Content<String>>,
        pub truncate: Option<bool>,
        pub dimensions: Option<u64>,
        #[serde(default, deserialize_with = "nullable")]
        pub options: Map<String, Value>,
        pub keep_alive: Option<Value>,
    }

    /// A question of `/api/embeddings`.
    #[derive(Debug, Clone, PartialEq, Deserialize)]
    pub struct Embeddings {
        #[serde(default, deserialize_with = "nullable")]
        pub prompt: String,
        #[serde(default, deserialize_with = "nullable")]
        pub options: Map<String, Value>,
        pub keep_alive: Option<Value>,
    }

    /// An answer of `/api/embed`. Durations are nanoseconds.
    #[derive(Debug, Clone, PartialEq, Serialize)]
    pub struct Answer {
        pub model: String,
        pub embeddings: Vec<Vec<f32>>,
        pub total_duration: u64,
        pub load_duration: u64,
        pub prompt_eval_count: u64,
    }

    /// An answer of `/api/embeddings`.
    #[derive(Debug, Clone, PartialEq, Serialize)]
    pub struct SingleAnswer {
        pub embedding: Vec<f32>,
    }
}
