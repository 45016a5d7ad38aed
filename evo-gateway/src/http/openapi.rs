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

use super::proxied::Proxied;

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
        document.merge(<Proxied as utoipa::OpenApi>::openapi());
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
