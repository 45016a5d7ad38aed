//! What a wire protocol has to be able to do, and which ones there are.

use std::sync::Arc;

use tokio::time::Instant;

use super::{ConvertError, Notes, anthropic, error, gemini, ollama, openai, responses};
use crate::{
    model::{ApiError, ChatRequest, ChatResponse, StreamEvent},
    wire::responses::Echo,
};

/// A wire protocol. A further one is a folder with a `Protocol` and a line in
/// `Dialect::protocol`; there are no others but complete ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's chat completions.
    OpenAiChat,
    /// OpenAI's Responses.
    OpenAiResponses,
    /// Anthropic's Messages.
    Anthropic,
    /// Google's Gemini, with streams as server-sent events.
    Gemini,
    /// The same with streams as one JSON array.
    GeminiArray,
    /// Ollama's `/api/chat`. Its servers are asked in OpenAI's protocol.
    OllamaChat,
    /// Ollama's `/api/generate`.
    OllamaGenerate,
}

impl Dialect {
    /// All of them.
    #[cfg(test)]
    pub const ALL: [Self; 7] = [
        Self::OpenAiChat,
        Self::OpenAiResponses,
        Self::Anthropic,
        Self::Gemini,
        Self::GeminiArray,
        Self::OllamaChat,
        Self::OllamaGenerate,
    ];

    /// Whether a conversation is a list of `messages`, and its streams tell what they hold by it.
    pub fn is_chat(self) -> bool {
        matches!(self, Self::OpenAiChat | Self::Anthropic)
    }

    /// The table of dialects.
    pub(super) fn protocol(self) -> &'static dyn Protocol {
        match self {
            Self::OpenAiChat => &openai::Chat,
            Self::OpenAiResponses => &responses::Responses,
            Self::Anthropic => &anthropic::Messages,
            Self::Gemini => &gemini::Generate(gemini::Framing::Events),
            Self::GeminiArray => &gemini::Generate(gemini::Framing::Array),
            Self::OllamaChat => &ollama::Ollama(ollama::Route::Chat),
            Self::OllamaGenerate => &ollama::Ollama(ollama::Route::Generate),
        }
    }

    /// Whether what a caller of this dialect says can go to a provider of that one as it is.
    pub fn passes_to(self, provider: Self) -> bool {
        self == provider || (self, provider) == (Self::GeminiArray, Self::Gemini)
    }

    /// The content type of a streamed answer.
    pub fn stream_type(self) -> &'static str {
        self.protocol().stream_type()
    }

    /// Texts of which one stands at the end of every stream that is whole.
    pub fn end_marks(self) -> &'static [&'static [u8]] {
        self.protocol().end_marks()
    }

    /// The event that ends a stream and says nothing else, if there is one.
    pub fn end_event(self) -> Option<&'static [u8]> {
        self.protocol().end_event()
    }

    /// Whether streams may hold comments, which say nothing and keep a connection alive.
    pub fn takes_comments(self) -> bool {
        self.protocol().takes_comments()
    }

    /// Whether what a model thought is given back by callers, so that it must be as it was.
    pub fn seals_reasoning(self) -> bool {
        self.protocol().seals_reasoning()
    }
}

/// One wire protocol from and to the neutral model, as a caller's and as a provider's.
pub(super) trait Protocol: Sync {
    /// Reads a caller's request. The model and whether the answer is streamed are set afterwards, by
    /// whoever knows them also where the body does not say.
    fn read_request(&self, body: &[u8], notes: &mut Notes) -> Result<ChatRequest, ConvertError>;

    /// What this protocol calls fields that have another name in the neutral model, which is what
    /// writers of other protocols know. `[]` is a place in a list.
    fn names(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Writes a request for a provider.
    fn write_request(&self, chat: ChatRequest, notes: &mut Notes) -> Result<Vec<u8>, ConvertError>;

    /// Reads a provider's whole answer.
    fn read_response(&self, body: &[u8], context: &Context) -> Result<ChatResponse, ConvertError>;

    /// Writes a whole answer for a caller.
    fn write_response(&self, answer: ChatResponse, context: &Context) -> Vec<u8>;

    /// Reads a provider's stream.
    fn reader(&self, context: &Context) -> Box<dyn StreamReader>;

    /// Writes a stream for a caller.
    fn writer(&self, context: &Context) -> Box<dyn StreamWriter>;

    /// Reads a provider's error answer. By its shape, unless a protocol knows better: what stands
    /// before a provider (a proxy, a load balancer) answers in shapes of its own.
    fn read_error(&self, status: u16, body: &[u8]) -> ApiError {
        error::read_any(status, body)
    }

    /// Writes an error answer for a caller.
    fn write_error(&self, error: ApiError) -> Vec<u8>;

    /// The event by which a caller learns inside a stream, between two events, that it broke off.
    /// `begun` says whether anything of the stream went out before.
    fn last_words(&self, error: ApiError, begun: bool) -> Vec<u8>;

    /// See [`Dialect::end_marks`].
    fn end_marks(&self) -> &'static [&'static [u8]];

    /// See [`Dialect::end_event`].
    fn end_event(&self) -> Option<&'static [u8]> {
        None
    }

    /// See [`Dialect::takes_comments`].
    fn takes_comments(&self) -> bool {
        true
    }

    /// See [`Dialect::seals_reasoning`].
    fn seals_reasoning(&self) -> bool {
        true
    }

    /// See [`Dialect::stream_type`].
    fn stream_type(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }
}

/// Reads the events of one stream.
pub(super) trait StreamReader: Send + Sync {
    /// Reads the data of one server-sent event.
    fn read(&mut self, data: &[u8], events: &mut Vec<StreamEvent>) -> Result<(), ConvertError>;

    /// Whether the answer is whole even if the stream ends here without its end mark.
    fn has_stopped(&self) -> bool;
}

/// Writes the events of one stream.
pub(super) trait StreamWriter: Send + Sync {
    /// Appends what says `event`.
    fn write(&mut self, event: StreamEvent, out: &mut Vec<u8>) -> Result<(), ConvertError>;
}

/// What the translation of an answer has to know of its question.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Unix seconds, for answers whose dialect wants a time.
    pub created: u64,
    /// OpenAI's `stream_options.include_usage`; other dialects' streams always tell the usage.
    pub include_usage: bool,
    /// The tools whose calls the caller wants to see as bare text.
    pub custom_tools: Vec<String>,
    /// Tools of a namespace, under the names that they had to be given.
    pub namespaced: Vec<Namespaced>,
    /// What an answer of OpenAI's Responses repeats of its question.
    pub echo: Option<Arc<Echo>>,
    /// The tool that the provider was given to answer with, because it has no other way to keep a
    /// model to a schema. Its arguments are the answer's text.
    pub answer_tool: Option<String>,
    /// The caller does not want to see what the model thought.
    pub hides_thoughts: bool,
    /// What vectors need, if those are asked for.
    pub embedding: Option<Box<super::embed::Echo>>,
    /// How many tokens the question probably has, for answers whose beginning tells that.
    pub question: u64,
    /// When the question came, for answers that tell how long they took.
    pub began: Option<Instant>,
}

/// A tool of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespaced {
    /// Its name where there are no namespaces.
    pub flat: String,
    pub namespace: String,
    /// Its name in there.
    pub name: String,
}
