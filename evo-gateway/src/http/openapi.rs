//! The gateway's own OpenAPI document. Learning reads it as it reads king's, so what it says is
//! tested by running it.

use std::sync::LazyLock;

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use utoipa::{
    PartialSchema as _, ToSchema,
    openapi::{
        ComponentsBuilder, Content, InfoBuilder, License, OpenApi, OpenApiBuilder, PathItem, Ref,
        Response as ResponseDocument, ResponseBuilder, SecurityRequirement,
        extensions::ExtensionsBuilder,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
        tag::TagBuilder,
    },
};

/// Name of the security scheme.
const BEARER: &str = "bearer";

/// An OpenAPI document. Its parts are as the OpenAPI specification says.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands in the document for the document itself")]
pub(super) struct OpenApiDocument {
    /// Version of the OpenAPI specification.
    openapi: String,
    /// About this API.
    #[schema(value_type = Object)]
    info: (),
    /// The operations by path and method.
    #[schema(value_type = Object)]
    paths: (),
}

/// An error answer. Anthropic's clients get their own shape of it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands in the document for what the dialects write")]
pub(super) struct ErrorBody {
    /// What went wrong.
    error: ErrorDetail,
}

/// What went wrong.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands in the document for what the dialects write")]
pub(super) struct ErrorDetail {
    /// What is wrong and what to do.
    message: String,
    /// `invalid_request_error`, `authentication_error`, `rate_limit_error`, …
    r#type: String,
    /// The field at fault, if it is one.
    param: Option<String>,
    /// Stable code.
    code: Option<String>,
}

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

#[derive(utoipa::OpenApi)]
#[openapi(paths(
    create_chat_completion,
    create_response,
    create_message,
    generate_content,
    create_ollama_chat,
    create_ollama_answer
))]
struct Generation;

/// Show this document.
///
/// Every route of the gateway, in OpenAPI 3.1.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "system",
    responses((
        status = 200, description = "The document.", body = OpenApiDocument,
        example = json!({
            "openapi": "3.1.0", "info": {"title": "evo-gateway", "version": "0.1.0"}, "paths": {},
        }),
    )),
)]
pub(super) async fn get_openapi() -> Response {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| {
        serde_json::to_vec(document()).expect("an OpenAPI document is plain data").into()
    });
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], TEXT.clone()).into_response()
}

/// The gateway's OpenAPI document. It has no server: its paths are relative to where it was found.
pub fn document() -> &'static OpenApi {
    static DOCUMENT: LazyLock<OpenApi> = LazyLock::new(|| {
        let mut document = super::routes().into_openapi();
        document.merge(<Generation as utoipa::OpenApi>::openapi());
        for (path, item) in &mut document.paths.paths {
            for (reads, operation) in operations(item) {
                complete(path, reads, operation);
            }
        }
        document
    });
    &DOCUMENT
}

/// The document without its operations.
pub(super) fn base() -> OpenApi {
    let tag = |name: &str, description: &str| {
        TagBuilder::new().name(name).description(Some(description)).build()
    };
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "The gateway token of `tokens.toml` in Evo's data folder, or a virtual key.",
        ))
        .build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Evo gateway")
                .version(crate::VERSION)
                .description(Some("One address in front of LLM providers."))
                .license(Some(License::new("MIT")))
                .build(),
        )
        .components(Some(
            ComponentsBuilder::new()
                .security_scheme(BEARER, SecurityScheme::Http(bearer))
                .schema("ErrorBody", ErrorBody::schema())
                .schema("ErrorDetail", ErrorDetail::schema())
                .build(),
        ))
        .security(Some([SecurityRequirement::new(BEARER, Vec::<String>::new())]))
        .tags(Some([
            tag("system", "The gateway itself."),
            tag("models", "What can be asked for."),
            tag("generation", "Asking for it."),
            tag("keys", "Who may ask, and how much."),
            tag("usage", "What it took and cost."),
        ]))
        .build()
}

/// Adds what follows from the operation's place: its scope, and the errors that every such
/// operation can answer with.
fn complete(path: &str, reads: bool, operation: &mut Operation) {
    let for_operator = path.starts_with("/admin/") && !reads;
    let mut errors = vec![(
        "403",
        "The gateway runs with --open and the host or the origin is not its own, or the token may not \
         do this.",
    )];
    if path == "/health" {
        operation.security = Some(Vec::new());
    } else {
        errors.push(("401", "There is no token, or an unknown one."));
        let scope = if for_operator { "operator" } else { "gateway" };
        operation.extensions = Some(ExtensionsBuilder::new().add("x-evo-scope", scope).build());
    }
    if for_operator && operation.request_body.is_some() {
        errors.push(("413", "The body is too large."));
        if path.starts_with("/admin/keys") {
            errors.push(("400", "A field is not what it should be."));
        }
        if path.contains('{') {
            errors.push(("404", "There is no such key."));
        }
    } else if operation.request_body.is_some() {
        errors.extend([
            ("400", "The body can't be read, or a field is not what it should be."),
            ("404", "There is no such model."),
            ("413", "The body is too large."),
            (
                "429",
                "The provider is called too often, by its own word or by its `rate_limit`, or the \
                 virtual key has used what it may use.",
            ),
            ("501", "The provider's type is not supported by this release."),
            ("502", "The provider can't be reached, or its answer is none."),
            ("503", "The provider is off, or has no key."),
            ("504", "The provider took too long."),
        ]);
    }
    for (status, description) in errors {
        operation.responses.responses.insert(status.to_owned(), error(description).into());
    }
}

fn error(description: &str) -> ResponseDocument {
    let content = Content::builder().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
    ResponseBuilder::new().description(description).content("application/json", content).build()
}

/// The operations of a path that has them, each with whether it only reads.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (bool, &mut Operation)> {
    let PathItem { get, post, put, patch, delete, .. } = item;
    let changing = [post, put, patch, delete].into_iter().flatten().map(|it| (false, it));
    get.iter_mut().map(|it| (true, it)).chain(changing)
}
