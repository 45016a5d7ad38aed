//! Where Learning looks, and where the servers are today.

use std::{collections::BTreeMap, sync::Arc};

use evo_common::config::{
    SourceConfig,
    sources::{GATEWAY_LOCATION, KING_LOCATION},
};

/// The sources in use. Cheap to clone.
#[derive(Clone)]
pub struct Sources {
    sources: Arc<[SourceConfig]>,
    servers: Arc<BTreeMap<String, String>>,
}

impl Sources {
    /// The sources of the configuration, with king's and the gateway's own addresses.
    pub fn new(sources: Vec<SourceConfig>, king_url: &str, gateway_url: Option<&str>) -> Self {
        let servers = sources
            .iter()
            .filter_map(|source| {
                let url = match (source.location.as_str(), &source.base_url) {
                    (_, Some(url)) => url.clone(),
                    (KING_LOCATION, None) => king_url.to_owned(),
                    (GATEWAY_LOCATION, None) => gateway_url?.to_owned(),
                    _ => return None,
                };
                Some((source.name.clone(), url.trim_end_matches('/').to_owned()))
            })
            .collect();
        Self { sources: sources.into(), servers: Arc::new(servers) }
    }

    /// Every source, also those that are switched off.
    pub fn all(&self) -> &[SourceConfig] {
        &self.sources
    }

    /// One source.
    pub fn get(&self, name: &str) -> Option<&SourceConfig> {
        self.sources.iter().find(|source| source.name == name)
    }

    /// Their names.
    pub fn names(&self) -> Vec<&str> {
        self.sources.iter().map(|source| source.name.as_str()).collect()
    }

    /// The base URLs of these sources: what belongs to one source is no business of another's.
    pub fn servers_of(&self, sources: &[SourceConfig]) -> BTreeMap<String, String> {
        let url = |source: &SourceConfig| {
            let known = self.servers.get(&source.name).cloned();
            known.or_else(|| Some(source.base_url.as_ref()?.trim_end_matches('/').to_owned()))
        };
        sources.iter().filter_map(|source| Some((source.name.clone(), url(source)?))).collect()
    }

    /// Source name → base URL, for packages whose endpoints start with `{server}`.
    pub fn servers(&self) -> BTreeMap<String, String> {
        (*self.servers).clone()
    }
}
