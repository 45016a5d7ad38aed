//! The models as Ollama's clients read them.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::State,
    response::{IntoResponse as _, Response},
};
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::error::ApiError;
use crate::{auth::Caller, catalog::Model, convert::Dialect, gateway::Gateway, proxy::Refused};

/// The version of Ollama whose routes these are like.
const LIKE: &str = "0.12.0";

/// A model, as Ollama's clients read it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Tag {
    /// As requests name it: `provider:model`.
    name: String,
    /// The same.
    model: String,
    /// When the provider says it came.
    modified_at: String,
    /// In bytes; 0, as it is elsewhere.
    size: u64,
    /// Empty.
    digest: &'static str,
    /// About it.
    details: Details,
}

/// About a model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Details {
    /// Empty.
    parent_model: &'static str,
    /// Empty.
    format: &'static str,
    /// The provider that serves it.
    family: String,
    /// The same.
    families: Vec<String>,
    /// Empty.
    parameter_size: &'static str,
    /// Empty.
    quantization_level: &'static str,
}

/// Every model, as Ollama's clients read them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Tags {
    /// In the order of the providers.
    models: Vec<Tag>,
}

/// Which model to show.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Show {
    /// As `/api/tags` names it.
    #[serde(alias = "name")]
    model: String,
}

/// One model, as Ollama's clients read it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Shown {
    /// Empty.
    modelfile: &'static str,
    /// Empty.
    parameters: &'static str,
    /// Empty.
    template: &'static str,
    /// About it.
    details: Details,
    /// `general.architecture`, and the tokens that fit in, if that is known.
    #[schema(value_type = Object)]
    model_info: Map<String, Value>,
    /// `completion`, `tools`, `vision`, `thinking`, as far as known; `embedding` alone of models that make
    /// vectors.
    capabilities: Vec<&'static str>,
    /// When the provider says it came.
    modified_at: String,
}

/// The models that are loaded, as Ollama's clients read them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Loaded {
    /// None: which models a provider has in memory is its own business.
    models: [Tag; 0],
}

/// A version.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Version {
    /// The version of Ollama whose routes these are like.
    version: &'static str,
}

fn details(family: &str) -> Details {
    Details {
        parent_model: "",
        format: "",
        family: family.to_owned(),
        families: vec![family.to_owned()],
        parameter_size: "",
        quantization_level: "",
    }
}

fn modified_at(model: &Model<'_>) -> String {
    let created = model.listed.as_ref().and_then(|listed| listed.created).unwrap_or_default();
    DateTime::from_timestamp(created, 0).unwrap_or_default().to_rfc3339()
}

/// List the models (Ollama).
///
/// The same models as `/v1/models` lists, in the shape of Ollama's list. What Ollama tells of files on its
/// disk is empty.
#[utoipa::path(
    get,
    path = "/api/tags",
    tag = "models",
    responses((
        status = 200, description = "The models.", body = Tags, example = json!({"models": []}),
    )),
)]
pub(super) async fn list_tags(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let live = gateway.live();
    let tag = |model: Model<'_>| {
        let name = format!("{}:{}", model.provider.name, model.id);
        Tag {
            model: name.clone(),
            name,
            modified_at: modified_at(&model),
            size: 0,
            digest: "",
            details: details(&model.provider.name),
        }
    };
    Json(Tags { models: live.catalog.models_for(&caller).into_iter().map(tag).collect() })
        .into_response()
}

/// Show one model (Ollama).
///
/// What is known of a model, in the shape of Ollama's answer.
#[utoipa::path(
    post,
    path = "/api/show",
    tag = "models",
    request_body(content = Show, example = json!({"model": "ollama:llama3.2:latest"})),
    responses(
        (status = 200, description = "The model.", body = Shown),
        (status = 404, description = "There is no such model.", body = super::openapi::ErrorBody),
    ),
)]
pub(super) async fn show_model(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Response {
    let refuse = |refused| ApiError(Dialect::OllamaChat, refused).into_response();
    // Ollama's clients do not always say that this is JSON.
    let Show { model: name } = match serde_json::from_slice(&body) {
        Ok(show) => show,
        Err(fault) => {
            let message = format!("The body must be {{\"model\": \"NAME\"}}: {fault}.");
            return refuse(Refused::new(400, "invalid_request", message));
        }
    };
    let live = gateway.live();
    let Some(model) = live.catalog.model(&name, &caller) else {
        let message = format!("There is no model {name:?}; GET /api/tags lists what there is.");
        return refuse(Refused::new(404, "model_not_found", message));
    };
    let known = model.provider.known(&model.id);
    let family = &*model.provider.name;
    let mut model_info = Map::new();
    model_info.insert("general.architecture".to_owned(), family.into());
    let listed = model.listed.as_ref();
    let window = known.context_window.or_else(|| listed?.context_length.or(listed?.max_model_len));
    if let Some(window) = window {
        model_info.insert(format!("{family}.context_length"), window.into());
    }
    let capabilities = if model.embeds() {
        vec!["embedding"]
    } else {
        let sees = known.input_types.iter().flatten().any(|kind| kind == "image");
        let vision = sees.then_some("vision");
        let thinking = (known.reasoning == Some(true)).then_some("thinking");
        ["completion", "tools"].into_iter().chain(vision).chain(thinking).collect()
    };
    Json(Shown {
        modelfile: "",
        parameters: "",
        template: "",
        details: details(family),
        model_info,
        capabilities,
        modified_at: modified_at(&model),
    })
    .into_response()
}

/// List the loaded models (Ollama).
///
/// Ollama's clients ask for it to learn what takes up memory. Here nothing does.
#[utoipa::path(
    get,
    path = "/api/ps",
    tag = "models",
    responses((
        status = 200, description = "No model.", body = Loaded, example = json!({"models": []}),
    )),
)]
pub(super) async fn list_loaded() -> Json<Loaded> {
    Json(Loaded { models: [] })
}

/// Show the version (Ollama).
///
/// Ollama's clients ask for it to learn what a server can do.
#[utoipa::path(
    get,
    path = "/api/version",
    tag = "system",
    responses((
        status = 200, description = "The version.", body = Version,
        example = json!({"version": "0.12.0"}),
    )),
)]
pub(super) async fn get_version() -> Json<Version> {
    Json(Version { version: LIKE })
}
