//! What a chat is, whatever wire protocol says it.
//!
//! Each wire protocol converts to and from these types only, so that a further protocol is one more
//! pair of conversions and not one per protocol that exists. Names that several protocols share are
//! OpenAI's, because the field that a refusal names must be one that its reader has seen.

mod error;
mod request;
mod response;
mod stream;

pub use error::{ApiError, ErrorKind};
pub use request::{
    ChatRequest, Document, Effort, Image, Media, Message, Part, ResponseFormat, Role, Tool,
    ToolCall, ToolChoice, ToolResult,
};
pub use response::{Block, ChatResponse, StopReason, Usage};
pub use stream::StreamEvent;
