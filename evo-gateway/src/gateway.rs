//! What every request of a gateway shares.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use evo_common::runtime::Shutdown;
use http::HeaderValue;

use crate::{
    Config, Error, access::AccessLog, auth::Gate, catalog::Catalog, config::Timeouts,
    provider::Provider, upstream::Client,
};

/// A gateway's parts.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Who may use it.
    pub(crate) gate: Gate,
    /// In the order of the configuration.
    pub(crate) providers: Vec<Arc<Provider>>,
    /// Which models there are.
    pub(crate) catalog: Catalog,
    /// Calls providers.
    pub(crate) client: Client,
    /// Gets a line per request.
    pub(crate) log: AccessLog,
    /// Largest request body in bytes.
    pub(crate) body_limit: usize,
    /// How long providers may take.
    pub(crate) timeouts: Timeouts,
    /// Ends it.
    pub(crate) shutdown: Shutdown,
    ids: Ids,
}

impl Gateway {
    /// Puts a gateway together.
    pub(crate) fn new(
        config: Config,
        address: SocketAddr,
        log: AccessLog,
        shutdown: Shutdown,
    ) -> Result<Self, Error> {
        let providers = Provider::all(&config)?;
        Ok(Self {
            address,
            gate: Gate::new(&config.auth)?,
            client: Client::new(providers.iter().map(Arc::as_ref), &config.timeouts)?,
            catalog: Catalog::new(providers.clone(), config.gateway.routing),
            providers,
            log,
            body_limit: config.body_limit,
            timeouts: config.timeouts,
            shutdown,
            ids: Ids::new(),
        })
    }

    /// A new id for a request.
    pub(crate) fn new_id(&self) -> HeaderValue {
        self.ids.next()
    }
}

/// Ids of requests: unlike any other gateway's, and cheap.
#[derive(Debug)]
struct Ids {
    process: u64,
    count: AtomicU64,
}

impl Ids {
    fn new() -> Self {
        Self { process: rand::random(), count: AtomicU64::new(0) }
    }

    fn next(&self) -> HeaderValue {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        HeaderValue::try_from(format!("req_{:016x}{count:08x}", self.process))
            .expect("hex digits make a header value")
    }
}
