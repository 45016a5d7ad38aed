//! Which models callers can ask for.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use chrono::DateTime;
use evo_common::config::ModelMetadata;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    error::{ApiError, dialect_of},
    extract::PathParam,
};
use crate::{
    auth::Caller, catalog::Model, convert::Dialect, gateway::Gateway, provider::type_name,
    proxy::Refused,
};

/// Prices in USD per million tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Cost {
    /// Input tokens.
    input: f64,
    /// Output tokens.
    output: f64,
    /// Input tokens read from the provider's cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_read: Option<f64>,
    /// Input tokens written to the provider's cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_write: Option<f64>,
}

/// One model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelView {
    /// As requests name it: `provider:model`.
    id: String,
    /// Always `model`.
    object: &'static str,
    /// When the provider says it came, in Unix seconds; 0 when it does not say.
    created: i64,
    /// Who made it, as the provider says; else the provider.
    owned_by: String,
    /// The provider that serves it.
    provider: String,
    /// What that provider speaks.
    provider_type: &'static str,
    /// Tokens that fit in.
    #[serde(skip_serializing_if = "Option::is_none")]
    context_window: Option<u32>,
    /// Tokens that may come out.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    /// Whether it reasons.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<bool>,
    /// `text`, `image`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    input_types: Option<Vec<String>>,
    /// What it costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<Cost>,
}

/// Every model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelList {
    /// Always `list`.
    object: &'static str,
    /// In the order of the providers.
    data: Vec<ModelView>,
}

/// One model, or those of one provider.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes an answer; the handler writes the one or the other")]
enum ModelOrList {
    Model(ModelView),
    List(ModelList),
}

/// One model, as Anthropic's clients read it.
#[derive(Debug, Serialize)]
struct AnthropicModel {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    display_name: String,
    created_at: String,
}

/// Every model, as Anthropic's clients read them.
#[derive(Debug, Serialize)]
struct AnthropicList {
    data: Vec<AnthropicModel>,
    has_more: bool,
    first_id: Option<String>,
    last_id: Option<String>,
}

impl From<Model<'_>> for ModelView {
    fn from(model: Model<'_>) -> Self {
        let Model { provider, id, listed, .. } = model;
        let known = provider.known(&id);
        let ModelMetadata { context_window, max_tokens, reasoning, input_types, cost } = known;
        let listed_window =
            listed.as_ref().and_then(|listed| listed.context_length.or(listed.max_model_len));
        Self {
            object: "model",
            created: listed.as_ref().and_then(|listed| listed.created).unwrap_or_default(),
            owned_by: listed
                .and_then(|listed| listed.owned_by)
                .unwrap_or_else(|| provider.name.to_string()),
            provider: provider.name.to_string(),
            provider_type: type_name(provider.kind),
            context_window: context_window.or(listed_window),
            max_tokens,
            reasoning,
            input_types,
            cost: cost.map(|cost| Cost {
                input: cost.input,
                output: cost.output,
                cache_read: cost.cache_read,
                cache_write: cost.cache_write,
            }),
            id: format!("{}:{id}", provider.name),
        }
    }
}

impl From<Model<'_>> for AnthropicModel {
    fn from(model: Model<'_>) -> Self {
        let Model { provider, id, listed, .. } = model;
        let listed = listed.as_ref();
        let of_seconds = |seconds| DateTime::from_timestamp(seconds, 0).map(|at| at.to_rfc3339());
        Self {
            kind: "model",
            display_name: listed
                .and_then(|listed| listed.display_name.clone())
                .unwrap_or_else(|| id.clone()),
            created_at: listed
                .and_then(|listed| listed.created_at.clone())
                .or_else(|| of_seconds(listed?.created?))
                .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned()),
            id: format!("{}:{id}", provider.name),
        }
    }
}

/// List the models.
///
/// Every model that the caller can ask for: those of the configuration at once, and those that providers
/// list as soon as they have answered. A virtual key sees those that it may use. With the header `anthropic-version` the answer has the shape
/// of Anthropic's list.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "models",
    responses((
        status = 200, description = "The models.", body = ModelList,
        example = json!({"object": "list", "data": []}),
    )),
)]
pub(super) async fn list_models(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    answer_list(&gateway, &caller, &headers, None)
}

/// Show one model.
///
/// By `provider:model`, or by the model alone. The name of a provider gives the list of its models.
#[utoipa::path(
    get,
    path = "/v1/models/{model}",
    tag = "models",
    params(("model" = String, Path, description = "The model's id, or a provider's name.")),
    responses(
        (status = 200, description = "The model.", body = ModelOrList),
        (status = 404, description = "There is no such model.", body = super::openapi::ErrorBody),
    ),
)]
pub(super) async fn get_model(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    PathParam(model): PathParam,
    headers: HeaderMap,
) -> Response {
    answer_model(&gateway, &caller, &headers, &model)
}

/// Read the models again.
///
/// Asks every provider that can be called for its list, all at the same time and none longer than
/// five seconds, and answers with the models as they are then.
#[utoipa::path(
    post,
    path = "/v1/models/refresh",
    tag = "models",
    responses((
        status = 200, description = "The models.", body = ModelList,
        example = json!({"object": "list", "data": []}),
    )),
)]
pub(super) async fn refresh_models(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    gateway.live().catalog.refresh(&gateway.client).await;
    answer_list(&gateway, &caller, &headers, None)
}

/// The models, all or those of one provider, in the dialect of who asks.
fn answer_list(
    gateway: &Gateway,
    caller: &Caller,
    headers: &HeaderMap,
    provider: Option<&str>,
) -> Response {
    let live = gateway.live();
    let mut models = live.catalog.models_for(caller);
    if let Some(name) = provider {
        models.retain(|model| &*model.provider.name == name);
    }
    if dialect_of("", headers) == Dialect::Anthropic {
        let data: Vec<AnthropicModel> = models.into_iter().map(Into::into).collect();
        return Json(AnthropicList {
            first_id: data.first().map(|model| model.id.clone()),
            last_id: data.last().map(|model| model.id.clone()),
            has_more: false,
            data,
        })
        .into_response();
    }
    let data = models.into_iter().map(Into::into).collect();
    Json(ModelList { object: "list", data }).into_response()
}

/// The model of this name, in the dialect of who asks.
pub(super) fn answer_model(
    gateway: &Gateway,
    caller: &Caller,
    headers: &HeaderMap,
    name: &str,
) -> Response {
    let dialect = dialect_of("", headers);
    let live = gateway.live();
    match (live.catalog.model(name, caller), dialect) {
        (Some(model), Dialect::Anthropic) => Json(AnthropicModel::from(model)).into_response(),
        (Some(model), _) => Json(ModelView::from(model)).into_response(),
        (None, _) if live.providers.iter().any(|provider| &*provider.name == name) => {
            answer_list(gateway, caller, headers, Some(name))
        }
        (None, dialect) => {
            let message =
                format!("There is no model {name:?}; GET /v1/models lists what there is.");
            ApiError(dialect, Refused::new(404, "model_not_found", message)).into_response()
        }
    }
}
