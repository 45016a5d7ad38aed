//! The routes of the proxy as the OpenAPI document shows them: they are no handlers of the router.

use utoipa::ToSchema;

/// A message of a conversation.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands in the document for what passes through")]
struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    role: String,
    /// A text, or a list of parts.
    content: serde_json::Value,
}

/// A request of OpenAI's chat completions. Fields that are not named here pass through.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands in the document for what passes through")]
struct ChatCompletionRequest {
    /// `provider:model`, `hint:purpose`, or a model alone.
    model: String,
    /// The conversation.
    messages: Vec<Message>,
    /// Whether the answer is to come in pieces.
    #[schema(required = false)]
    stream: Option<bool>,
    /// Most tokens of the answer.
    #[schema(required = false)]
    max_tokens: Option<u32>,
    /// How free the answer is to be.
    #[schema(required = false)]
    temperature: Option<f64>,
}

/// A request of Anthropic's Messages. Fields that are not named here pass through.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands in the document for what passes through")]
struct MessagesRequest {
    /// `provider:model`, `hint:purpose`, or a model alone.
    model: String,
    /// Most tokens of the answer.
    max_tokens: u32,
    /// The conversation.
    messages: Vec<Message>,
    /// Whether the answer is to come in pieces.
    #[schema(required = false)]
    stream: Option<bool>,
}

/// A request of OpenAI's Responses. Fields that are not named here pass through.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands in the document for what passes through")]
struct ResponsesRequest {
    /// `provider:model`, `hint:purpose`, or a model alone.
    model: String,
    /// The question.
    input: String,
    /// What stands above the conversation.
    #[schema(required = false)]
    instructions: Option<String>,
    /// Whether the answer is to come in pieces.
    #[schema(required = false)]
    stream: Option<bool>,
}

/// Answer a conversation (OpenAI's Responses).
///
/// OpenAI's Responses, with any provider: the model decides which. A stream comes as server-sent
/// events. `previous_response_id` and whatever else needs stored answers works only where the provider
/// speaks Responses itself.
#[utoipa::path(
    post,
    path = "/v1/responses",
    tag = "generation",
    request_body(
        content = ResponsesRequest,
        example = json!({"model": "openai:gpt-4o-mini", "input": "Hello"}),
    ),
    responses(
        (status = 200, description = "The answer.", body = Object),
    ),
)]
#[expect(dead_code, reason = "stands in the document for what the proxy answers")]
fn create_response() {}

/// Answer a conversation (OpenAI).
///
/// OpenAI's chat completions, with any provider: the model decides which. A stream comes as
/// server-sent events.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    tag = "generation",
    request_body(
        content = ChatCompletionRequest,
        example = json!({
            "model": "openai:gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}],
        }),
    ),
    responses(
        (status = 200, description = "The answer.", body = Object),
    ),
)]
#[expect(dead_code, reason = "stands in the document for what the proxy answers")]
fn create_chat_completion() {}

/// Answer a conversation (Anthropic).
///
/// Anthropic's Messages, with any provider: the model decides which. A stream comes as server-sent
/// events.
#[utoipa::path(
    post,
    path = "/v1/messages",
    tag = "generation",
    request_body(
        content = MessagesRequest,
        example = json!({
            "model": "anthropic:claude-sonnet-4-20250514", "max_tokens": 100,
            "messages": [{"role": "user", "content": "Hello"}],
        }),
    ),
    responses(
        (status = 200, description = "The answer.", body = Object),
    ),
)]
#[expect(dead_code, reason = "stands in the document for what the proxy answers")]
fn create_message() {}

/// Answer a conversation (Gemini).
///
/// Google's `generateContent`, with any provider: the model in the path decides which. Ask
/// `:streamGenerateContent` instead for an answer in pieces, as server-sent events with `?alt=sse`, else
/// as one JSON array.
#[utoipa::path(
    post,
    path = "/v1beta/models/{model}:generateContent",
    tag = "generation",
    params((
        "model" = String, Path, description = "`provider:model`, `hint:purpose`, or a model alone."
    )),
    request_body(
        content = Object,
        example = json!({"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}),
    ),
    responses(
        (status = 200, description = "The answer.", body = Object),
    ),
)]
#[expect(dead_code, reason = "stands in the document for what the proxy answers")]
fn generate_content() {}

/// Answer a conversation (Ollama).
///
/// Ollama's chat, with any provider: the model decides which. Unless `stream` is false, the answer comes
/// in lines of JSON.
#[utoipa::path(
    post,
    path = "/api/chat",
    tag = "generation",
    request_body(
        content = ChatCompletionRequest,
        example = json!({
            "model": "ollama:llama3.2:latest", "stream": false,
            "messages": [{"role": "user", "content": "Hello"}],
        }),
    ),
    responses(
        (status = 200, description = "The answer.", body = Object),
    ),
)]
#[expect(dead_code, reason = "stands in the document for what the proxy answers")]
fn create_ollama_chat() {}

/// A request of Ollama's `generate`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands in the document for what the proxy reads")]
struct OllamaGenerateRequest {
    /// `provider:model`, `hint:purpose`, or a model alone.
    model: String,
    /// The question.
    prompt: String,
    /// Whether the answer is to come in pieces; it does unless this is false.
    #[schema(required = false)]
    stream: Option<bool>,
}

/// Answer one question (Ollama).
///
/// Ollama's `generate`, with any provider: the model decides which. Unless `stream` is false, the answer
/// comes in lines of JSON.
#[utoipa::path(
    post,
    path = "/api/generate",
    tag = "generation",
    request_body(
        content = OllamaGenerateRequest,
        example = json!({"model": "ollama:llama3.2:latest", "prompt": "Hello", "stream": false}),
    ),
    responses(
        (status = 200, description = "The answer.", body = Object),
    ),
)]
#[expect(dead_code, reason = "stands in the document for what the proxy answers")]
fn create_ollama_answer() {}

/// A request of OpenAI's embeddings.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands in the document for what the proxy reads")]
struct EmbeddingsRequest {
    /// `provider:model`, `hint:purpose`, or a model alone.
    model: String,
    /// A text, or a list of texts.
    input: serde_json::Value,
    /// How many numbers each vector is to have.
    #[schema(required = false)]
    dimensions: Option<u32>,
    /// `float` or `base64`.
    #[schema(required = false)]
    encoding_format: Option<String>,
}

/// Turn texts into vectors (OpenAI).
///
/// OpenAI's embeddings, with any provider that has them: the model decides which.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "generation",
    request_body(
        content = EmbeddingsRequest,
        example = json!({"model": "openai:text-embedding-3-small", "input": ["Hello", "Good day"]}),
    ),
    responses(
        (status = 200, description = "The vectors.", body = Object),
    ),
)]
#[expect(dead_code, reason = "stands in the document for what the proxy answers")]
fn create_embeddings() {}

/// Turn a text into a vector (Gemini).
///
/// Google's `embedContent`, with any provider that has embeddings: the model in the path decides which.
#[utoipa::path(
    post,
    path = "/v1beta/models/{model}:embedContent",
    tag = "generation",
    params((
        "model" = String, Path, description = "`provider:model`, `hint:purpose`, or a model alone."
    )),
    request_body(
        content = Object,
        example = json!({"content": {"parts": [{"text": "Hello"}]}}),
    ),
    responses(
        (status = 200, description = "The vector.", body = Object),
    ),
)]
#[expect(dead_code, reason = "stands in the document for what the proxy answers")]
fn embed_content() {}

/// Turn texts into vectors (Gemini).
///
/// Google's `batchEmbedContents`, with any provider that has embeddings: the model in the path decides
/// which, and each request is for that one.
#[utoipa::path(
    post,
    path = "/v1beta/models/{model}:batchEmbedContents",
    tag = "generation",
    params((
        "model" = String, Path, description = "`provider:model`, `hint:purpose`, or a model alone."
    )),
    request_body(
        content = Object,
        example = json!({"requests": [{
            "model": "models/google:gemini-embedding-001", "content": {"parts": [{"text": "Hello"}]},
        }]}),
    ),
    responses(
        (status = 200, description = "The vectors.", body = Object),
    ),
)]
#[expect(dead_code, reason = "stands in the document for what the proxy answers")]
fn batch_embed_contents() {}

/// A request of Ollama's `embed`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands in the document for what the proxy reads")]
struct OllamaEmbedRequest {
    /// `provider:model`, `hint:purpose`, or a model alone.
    model: String,
    /// A text, or a list of texts.
    input: serde_json::Value,
    /// How many numbers each vector is to have.
    #[schema(required = false)]
    dimensions: Option<u32>,
}

/// Turn texts into vectors (Ollama).
///
/// Ollama's `embed`, with any provider that has embeddings: the model decides which.
#[utoipa::path(
    post,
    path = "/api/embed",
    tag = "generation",
    request_body(
        content = OllamaEmbedRequest,
        example = json!({"model": "ollama:nomic-embed-text", "input": ["Hello", "Good day"]}),
    ),
    responses(
        (status = 200, description = "The vectors.", body = Object),
    ),
)]
#[expect(dead_code, reason = "stands in the document for what the proxy answers")]
fn create_ollama_embed() {}

/// Turn one text into a vector (Ollama).
///
/// What Ollama had before `/api/embed`: one text, and its vector without anything else.
#[utoipa::path(
    post,
    path = "/api/embeddings",
    tag = "generation",
    request_body(
        content = OllamaGenerateRequest,
        example = json!({"model": "ollama:nomic-embed-text", "prompt": "Hello"}),
    ),
    responses(
        (status = 200, description = "The vector.", body = Object),
    ),
)]
#[expect(dead_code, reason = "stands in the document for what the proxy answers")]
fn create_ollama_embeddings() {}

/// A number of tokens.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands in the document for what the proxy answers")]
struct InputTokens {
    /// Tokens of the question.
    input_tokens: u64,
}

/// Count tokens (Anthropic).
///
/// How many tokens the conversation has. The provider is asked if it can count; else the answer is an
/// estimate, and the header `x-evo-estimated` says so. It costs nothing.
#[utoipa::path(
    post,
    path = "/v1/messages/count_tokens",
    tag = "generation",
    request_body(
        content = Object,
        example = json!({
            "model": "anthropic:claude-sonnet-4-20250514",
            "messages": [{"role": "user", "content": "Hello"}],
        }),
    ),
    responses(
        (status = 200, description = "The number.", body = InputTokens),
    ),
)]
#[expect(dead_code, reason = "stands in the document for what the proxy answers")]
fn count_message_tokens() {}

/// Count tokens (OpenAI's Responses).
///
/// The same for a request of Responses.
#[utoipa::path(
    post,
    path = "/v1/responses/input_tokens",
    tag = "generation",
    request_body(
        content = ResponsesRequest,
        example = json!({"model": "openai:gpt-4o-mini", "input": "Hello"}),
    ),
    responses(
        (status = 200, description = "The number.", body = InputTokens),
    ),
)]
#[expect(dead_code, reason = "stands in the document for what the proxy answers")]
fn count_response_tokens() {}

/// Count tokens (Gemini).
///
/// The same for Google's `countTokens`: of `contents` alone, or of a whole `generateContentRequest`.
#[utoipa::path(
    post,
    path = "/v1beta/models/{model}:countTokens",
    tag = "generation",
    params((
        "model" = String, Path, description = "`provider:model`, `hint:purpose`, or a model alone."
    )),
    request_body(
        content = Object,
        example = json!({"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}),
    ),
    responses(
        (status = 200, description = "The number.", body = Object),
    ),
)]
#[expect(dead_code, reason = "stands in the document for what the proxy answers")]
fn count_content_tokens() {}

#[derive(utoipa::OpenApi)]
#[openapi(paths(
    create_chat_completion,
    create_response,
    create_message,
    generate_content,
    create_ollama_chat,
    create_ollama_answer,
    create_embeddings,
    embed_content,
    batch_embed_contents,
    create_ollama_embed,
    create_ollama_embeddings,
    count_message_tokens,
    count_response_tokens,
    count_content_tokens
))]
pub(super) struct Proxied;
