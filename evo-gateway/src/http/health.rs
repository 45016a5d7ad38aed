//! How the providers do, as far as is known: nobody is asked for the sake of this answer.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use chrono::SecondsFormat;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    catalog::Discovery,
    gateway::Gateway,
    provider::{Provider, Unusable},
};

/// One provider.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProviderHealth {
    /// Its name.
    name: String,
    /// `ok`, `failing` (a breaker is not closed), `unreachable`, `unknown` (not asked yet), `unusable`
    /// (no key, or not signed in) or `off`.
    status: &'static str,
    /// Breakers that are not closed, by model: `open` or `half_open`.
    breakers: BTreeMap<String, &'static str>,
    /// When it was last asked for its models (RFC 3339).
    checked_at: Option<String>,
    /// How long its answer took.
    latency_ms: Option<f64>,
    /// What is wrong, and what to do.
    problem: Option<String>,
}

/// Every provider.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProvidersHealth {
    /// `ok` when every provider that is on can be reached, else `degraded`; `down` when none can.
    status: &'static str,
    /// In the order of the configuration.
    providers: Vec<ProviderHealth>,
    /// How many.
    count: usize,
}

/// Show how the providers do.
///
/// From what was found in the background: each provider's list of models is read every ten minutes, and
/// every 30 seconds while that fails; breakers follow what requests meet. This answer asks nobody. `/health` says how the gateway itself does.
#[utoipa::path(
    get,
    path = "/health/providers",
    tag = "system",
    responses((
        status = 200, description = "The providers.", body = ProvidersHealth,
        example = json!({"status": "ok", "providers": [], "count": 0}),
    )),
)]
pub(super) async fn get_provider_health(
    State(gateway): State<Arc<Gateway>>,
) -> Json<ProvidersHealth> {
    let live = gateway.live();
    let discovered = live.catalog.discovered();
    let providers: Vec<ProviderHealth> = live
        .providers
        .iter()
        .zip(discovered)
        .map(|(provider, discovery)| health_of(provider, discovery))
        .collect();
    let on = || providers.iter().filter(|provider| provider.status != "off");
    let well = on().filter(|provider| matches!(provider.status, "ok" | "unknown")).count();
    let status = match (well, on().count()) {
        (well, all) if well == all => "ok",
        (0, _) => "down",
        _ => "degraded",
    };
    Json(ProvidersHealth { status, count: providers.len(), providers })
}

fn health_of(provider: &Provider, discovery: Discovery) -> ProviderHealth {
    let breakers: BTreeMap<String, &'static str> = provider
        .health
        .not_closed()
        .into_iter()
        .map(|(model, state)| (model, state.as_str()))
        .collect();
    let status = match provider.address() {
        Err(Unusable::Disabled) => "off",
        Err(_) => "unusable",
        Ok(_) if !breakers.is_empty() => "failing",
        Ok(_) if discovery.error.is_some() => "unreachable",
        Ok(_) if discovery.at.is_none() => "unknown",
        Ok(_) => "ok",
    };
    let problem = provider.problem().or_else(|| {
        let error = discovery.error?;
        Some(format!("The models of the provider `{}` can't be listed: {error}.", provider.name))
    });
    let latency = discovery.took.map(|took| (took.as_secs_f64() * 1e6).round() / 1e3);
    ProviderHealth {
        name: provider.name.to_string(),
        status,
        breakers,
        checked_at: discovery.at.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true)),
        latency_ms: latency,
        problem: problem.filter(|_| status != "off"),
    }
}
