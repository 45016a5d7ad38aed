//! Where Learning looks.

use axum::{Json, extract::State};
use evo_common::config::SourceConfig;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Result;
use crate::state::King;

/// One source in use.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SourceView {
    /// As it is configured.
    #[serde(flatten)]
    config: SourceConfig,
    /// Where its operations are called today; absent before its document was read.
    resolved_base_url: Option<String>,
}

/// Every source in use.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SourceList {
    /// In the order of the configuration.
    sources: Vec<SourceView>,
    /// How many.
    count: usize,
}

/// List the sources.
///
/// Where Learning looks for candidates, as configured and with the address that is called today.
/// Environment variables are listed by name only.
#[utoipa::path(
    get,
    path = "/sources",
    tag = "pipeline",
    responses((
        status = 200, description = "Every source.", body = SourceList,
        example = json!({"sources": [], "count": 0}),
    )),
)]
pub(super) async fn list_sources(State(king): State<King>) -> Result<Json<SourceList>> {
    let servers = king.sources.servers();
    let sources: Vec<SourceView> = king
        .sources
        .all()
        .iter()
        .map(|source| SourceView {
            resolved_base_url: servers
                .get(&source.name)
                .or(source.base_url.as_ref())
                .map(|url| without_credentials(url)),
            config: SourceConfig {
                location: without_credentials(&source.location),
                base_url: source.base_url.as_deref().map(without_credentials),
                ..source.clone()
            },
        })
        .collect();
    Ok(Json(SourceList { count: sources.len(), sources }))
}

/// A location without the user name, password and query that a URL may carry.
fn without_credentials(location: &str) -> String {
    let Ok(mut url) = url::Url::parse(location) else { return location.to_owned() };
    if !url.has_host() {
        return location.to_owned();
    }
    let clean = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if clean {
        return location.to_owned();
    }
    url.set_query(None);
    // Both can only fail for URLs without a host.
    if url.set_username("").is_err() || url.set_password(None).is_err() {
        return "***".to_owned();
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use super::without_credentials;

    #[test]
    fn secrets_in_addresses_are_not_shown() {
        for (location, shown) in [
            ("king:", "king:"),
            ("specs/petstore.yaml", "specs/petstore.yaml"),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("https://user:pass@example.com/api.json?key=1", "https://example.com/api.json"),
        ] {
            assert_eq!(without_credentials(location), shown);
        }
    }
}
