//! King's own OpenAPI document. It is generated from the handlers; Learning reads it, so what it
//! says is tested by running it.

use std::sync::LazyLock;

use axum::{
    http::{HeaderValue, Method, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use evo_common::api::ErrorBody;
use utoipa::{
    PartialSchema as _, ToSchema,
    openapi::{
        ComponentsBuilder, Content, InfoBuilder, License, OpenApi, OpenApiBuilder, PathItem, Ref,
        RefOr, Response as ResponseDocument, ResponseBuilder, SecurityRequirement,
        extensions::ExtensionsBuilder,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
        tag::TagBuilder,
    },
};

use super::auth::needed_scope;

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

/// Show this document.
///
/// Every route of king's HTTP API, in OpenAPI 3.1. Learning reads it to learn skills that operate
/// Evo itself.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "system",
    responses((
        status = 200, description = "The document.", body = OpenApiDocument,
        example = json!({
            "openapi": "3.1.0", "info": {"title": "evo-king", "version": "0.1.0"}, "paths": {},
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

/// King's OpenAPI document. It has no server: its paths are relative to where it was found.
pub fn document() -> &'static OpenApi {
    static DOCUMENT: LazyLock<OpenApi> = LazyLock::new(|| {
        let mut document = super::routes().into_openapi();
        for (path, item) in &mut document.paths.paths {
            for (method, operation) in operations(item) {
                complete(&method, path, operation);
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
        .description(Some("A token of `tokens.toml` in king's data folder."))
        .build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Evo king")
                .version(crate::VERSION)
                .description(Some("The control plane of Evo: runs, skills, agents and events."))
                .license(Some(License::new("MIT")))
                .build(),
        )
        .components(Some(
            ComponentsBuilder::new()
                .security_scheme(BEARER, SecurityScheme::Http(bearer))
                .schema("ErrorBody", ErrorBody::schema())
                .build(),
        ))
        .security(Some([SecurityRequirement::new(BEARER, Vec::<String>::new())]))
        .tags(Some([
            tag("system", "King itself and its machine."),
            tag("agents", "Who does the work."),
            tag("pipeline", "How candidates become skills."),
            tag("skills", "What was learned."),
            tag("mcp", "Skills as tools of MCP clients."),
            tag("artifacts", "Packages of skills."),
            tag("events", "What happened."),
            tag("tasks", "What people and agents want done."),
            tag("memories", "What was learned from what happened."),
            tag("admin", "What operators do."),
            tag("gateway", "Which models there are, and whom the gateway asks."),
            tag("debug", "What operators try by hand."),
            tag("traces", "Who did what for a run, and how long it took."),
        ]))
        .build()
}

/// Adds what follows from the operation's place: its scope, and the errors that every such
/// operation can answer with.
fn complete(method: &Method, path: &str, operation: &mut Operation) {
    let mut errors = vec![("403", "The token is for something else, or the host is not king's.")];
    if let Some(scope) = needed_scope(method, path) {
        errors.push(("401", "There is no token, or an unknown one."));
        operation.extensions =
            Some(ExtensionsBuilder::new().add("x-evo-scope", scope.as_str()).build());
    } else {
        operation.security = Some(Vec::new());
    }
    if operation.parameters.is_some() || operation.request_body.is_some() {
        errors.push(("400", "A parameter or the body can't be read."));
    }
    if let Some(RefOr::T(body)) = &operation.request_body {
        errors.push(("413", "The body is too large."));
        if body.content.contains_key("application/json") {
            errors.push((
                "415",
                "The body's content type, or its encoding, is not one that is taken.",
            ));
            errors.push(("422", "A field, or an input, is not what it should be."));
        }
    }
    errors.push(("500", "King has a fault; its log has the reason."));
    errors.push(("503", "King is shutting down, or too slow today."));
    for (status, description) in errors {
        operation.responses.responses.insert(status.to_owned(), error(description).into());
    }
}

fn error(description: &str) -> ResponseDocument {
    let content = Content::builder().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
    ResponseBuilder::new().description(description).content("application/json", content).build()
}

/// The operations of a path that has them.
fn operations(item: &mut PathItem) -> Vec<(Method, &mut Operation)> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [
        (Method::GET, get),
        (Method::PUT, put),
        (Method::POST, post),
        (Method::DELETE, delete),
        (Method::PATCH, patch),
    ]
    .into_iter()
    .filter_map(|(method, operation)| operation.as_mut().map(|operation| (method, operation)))
    .collect()
}
