//! Whom the gateway calls, and why not.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use chrono::SecondsFormat;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    gateway::Gateway,
    provider::{Unusable, type_name},
};

/// One provider.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProviderView {
    /// Its name, used as `name:model`.
    name: String,
    /// What it speaks.
    provider_type: &'static str,
    /// Whether the configuration turns it on.
    enabled: bool,
    /// Whether it can be called.
    usable: bool,
    /// Stable code of why it can't be called: `provider_disabled` or
    /// `provider_has_no_key`.
    code: Option<&'static str>,
    /// Why it can't be called, and what to do.
    problem: Option<String>,
    /// Names of its environment variables that are not set.
    unset_variables: Vec<String>,
    /// How many keys it is called with; 0 for providers that need none.
    keys: usize,
    /// How many models of it are known.
    models: usize,
    /// When its own list of models was last asked for (RFC 3339).
    discovered_at: Option<String>,
    /// Why that failed, if it did.
    discovery_error: Option<String>,
    /// Models that are left alone since they failed too often, by their name: `open`, or `half_open`
    /// when the next request tries again.
    breakers: BTreeMap<String, &'static str>,
}

/// Every provider.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProviderList {
    /// In the order of the configuration.
    providers: Vec<ProviderView>,
    /// How many.
    count: usize,
}

/// List the providers.
///
/// Every provider of the configuration: whether it can be called, why not, and how many of its
/// models are known. Names variables, never their values.
#[utoipa::path(
    get,
    path = "/v1/providers",
    tag = "models",
    responses((
        status = 200, description = "The providers.", body = ProviderList,
        example = json!({"providers": [], "count": 0}),
    )),
)]
pub(super) async fn list_providers(State(gateway): State<Arc<Gateway>>) -> Json<ProviderList> {
    let live = gateway.live();
    let discovered = live.catalog.discovered();
    let mut counts = vec![0; live.providers.len()];
    for model in live.catalog.models() {
        counts[model.number] += 1;
    }
    let providers: Vec<ProviderView> = live
        .providers
        .iter()
        .zip(discovered)
        .zip(counts)
        .map(|((provider, discovery), models)| ProviderView {
            name: provider.name.to_string(),
            provider_type: type_name(provider.kind),
            enabled: provider.is_enabled(),
            usable: provider.is_usable(),
            code: provider.address().err().map(Unusable::code),
            problem: provider.problem(),
            unset_variables: provider.unset.clone(),
            keys: provider.keys.len(),
            models,
            discovered_at: discovery.at.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true)),
            discovery_error: discovery.error,
            breakers: provider
                .health
                .not_closed()
                .into_iter()
                .map(|(model, state)| (model, state.as_str()))
                .collect(),
        })
        .collect();
    Json(ProviderList { count: providers.len(), providers })
}
