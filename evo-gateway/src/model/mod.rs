//! What a chat is, whatever wire protocol says it.
//!
//! Each wire protocol converts to and from these types only, so that a further protocol is one more
//! pair of conversions and not one per protocol that exists. Names that several protocols share are
//! OpenAI's, because the field that a refusal names must be one that its reader has seen.

mod embed;
mod error;
mod request;
mod response;
mod stream;

pub use embed::{EmbedRequest, EmbedResponse};
pub use error::{ApiError, ErrorKind};
pub use request::{
    CUSTOM_INPUT, CacheFor, ChatRequest, CustomFormat, Document, Effort, Image, Instruction, Media,
    Message, Part, Reasoning, ResponseFormat, Role, Seal, SealOrigin, Tool, ToolCall, ToolChoice,
    ToolResult,
};
pub use response::{Block, ChatResponse, StopReason, TokenLogprob, Usage};
pub use stream::StreamEvent;
