use super::{Reasoning, ToolCall};

/// A whole answer of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatResponse {
    /// The provider's id of this answer; may be empty.
    pub id: String,
    /// The model that answered, as the provider names it.
    pub model: String,
    pub blocks: Vec<Block>,
    pub stop: StopReason,
    /// Absent when the provider counted nothing.
    pub usage: Option<Usage>,
    /// How likely the tokens of the texts were, if that was asked for.
    pub logprobs: Vec<TokenLogprob>,
}

/// A piece of an answer, in the order in which the model wrote them.
#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    Text(String),
    /// A text in which the model says why it does not answer.
    Refusal(String),
    Reasoning(Reasoning),
    ToolCall(ToolCall),
}

/// How likely a token of the answer was.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    pub token: String,
    pub logprob: f64,
    /// The token's bytes, if the provider tells.
    pub bytes: Option<Vec<u8>>,
    /// Tokens that could have stood in its place, itself among them.
    pub top: Vec<TokenLogprob>,
}

/// Why the model stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// It had said what it wanted to say.
    End,
    /// The answer or the context became as long as it may be.
    Length,
    /// It wants tools called.
    ToolUse,
    /// It was about to write one of the stop texts; which one, if the provider tells.
    StopSequence(Option<String>),
    /// It, or a filter, refused.
    Refusal,
    /// The provider paused a long turn; sending the conversation again continues it.
    Pause,
}

/// Tokens of one answer. The four main counts do not overlap, so that each can be priced apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Input tokens that came neither from the provider's prompt cache nor went into it.
    pub input_tokens: u64,
    /// Input tokens read from the provider's prompt cache.
    pub cache_read_tokens: u64,
    /// Input tokens written to the provider's prompt cache.
    pub cache_write_tokens: u64,
    /// How many of `cache_write_tokens` are kept for an hour, which costs more.
    pub cache_write_hour_tokens: u64,
    /// Tokens of the answer, reasoning included.
    pub output_tokens: u64,
    /// How many of `output_tokens` were reasoning, if the provider tells.
    pub reasoning_tokens: Option<u64>,
}

impl Usage {
    /// All tokens of the question, cached or not.
    pub fn prompt_tokens(&self) -> u64 {
        self.input_tokens
            .saturating_add(self.cache_read_tokens)
            .saturating_add(self.cache_write_tokens)
    }
}
