//! The models as Google's clients read them.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{error::ApiError, extract::PathParam};
use crate::{auth::Caller, catalog::Model, convert::Dialect, gateway::Gateway, proxy::Refused};

/// A model, as Google's clients read it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct GoogleModel {
    /// `models/provider:model`.
    name: String,
    /// Its name for people.
    display_name: String,
    /// Tokens that fit in.
    #[serde(skip_serializing_if = "Option::is_none")]
    input_token_limit: Option<u32>,
    /// Tokens that may come out.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_token_limit: Option<u32>,
    /// What it can be asked for.
    supported_generation_methods: &'static [&'static str],
}

/// Every model, as Google's clients read them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GoogleModelList {
    /// In the order of the providers.
    models: Vec<GoogleModel>,
}

impl From<Model<'_>> for GoogleModel {
    fn from(model: Model<'_>) -> Self {
        let supported_generation_methods: &[_] = if model.embeds() {
            &["embedContent", "batchEmbedContents"]
        } else {
            &["generateContent", "streamGenerateContent", "countTokens"]
        };
        let Model { provider, id, listed, .. } = model;
        let known = provider.known(&id);
        let listed = listed.as_ref();
        Self {
            name: format!("models/{}:{id}", provider.name),
            display_name: listed
                .and_then(|listed| listed.display_name.clone())
                .unwrap_or_else(|| id.clone()),
            input_token_limit: known
                .context_window
                .or_else(|| listed.and_then(|listed| listed.context_length)),
            output_token_limit: known.max_tokens,
            supported_generation_methods,
        }
    }
}

/// List the models (Gemini).
///
/// The same models as `/v1/models` lists, in the shape of Google's list, all on one page. Those that make
/// vectors say so.
#[utoipa::path(
    get,
    path = "/v1beta/models",
    tag = "models",
    responses((
        status = 200, description = "The models.", body = GoogleModelList,
        example = json!({"models": []}),
    )),
)]
pub(super) async fn list_google_models(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let live = gateway.live();
    let models = live.catalog.models_for(&caller).into_iter().map(GoogleModel::from).collect();
    Json(GoogleModelList { models }).into_response()
}

/// Show one model (Gemini).
///
/// By `provider:model`, or by the model alone.
#[utoipa::path(
    get,
    path = "/v1beta/models/{model}",
    tag = "models",
    params(("model" = String, Path, description = "The model's id.")),
    responses(
        (status = 200, description = "The model.", body = GoogleModel),
        (status = 404, description = "There is no such model.", body = super::openapi::ErrorBody),
    ),
)]
pub(super) async fn get_google_model(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    PathParam(model): PathParam,
) -> Response {
    answer_model(&gateway, &caller, &model)
}

/// The model of this name.
pub(super) fn answer_model(gateway: &Gateway, caller: &Caller, model: &str) -> Response {
    let live = gateway.live();
    match live.catalog.model(model, caller) {
        Some(model) => Json(GoogleModel::from(model)).into_response(),
        None => {
            let message =
                format!("There is no model {model:?}; GET /v1beta/models lists what there is.");
            let refused = Refused::new(404, "model_not_found", message);
            ApiError(Dialect::Gemini, refused).into_response()
        }
    }
}
