//! What every request of a gateway shares, and the part of it that can be swapped.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use evo_common::{
    config::{
        GatewayConfig, ReliabilityConfig,
        load::{ConfigErrors, Format},
    },
    ids::sha256_hex,
    runtime::Shutdown,
};
use http::HeaderValue;
use tokio::sync::Notify;

use crate::{
    Config, Error,
    access::AccessLog,
    auth::{Gate, spent::Ledger},
    cache::Cache,
    catalog::Catalog,
    config::{self, ConfigError},
    metrics::Metrics,
    provider::Provider,
    proxy::ending::Ending,
    sessions::{Sessions, socket::Face},
    upstream::Client,
    usage::books::Books,
};

/// How a configuration is called that came over HTTP.
const ORIGIN: &str = "the configuration";

/// A gateway's parts.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Who may use it.
    pub(crate) gate: Arc<Gate>,
    /// Programs in terminals, if they are on.
    pub(crate) sessions: Option<Face>,
    /// Calls providers.
    pub(crate) client: Client,
    /// Gets a line per request.
    pub(crate) log: AccessLog,
    /// Gets what each request took.
    pub(crate) books: Books,
    /// Largest request body in bytes.
    pub(crate) body_limit: usize,
    /// How long answers in hand may take at the end.
    pub(crate) drain: Duration,
    /// Ends it.
    pub(crate) shutdown: Shutdown,
    /// Ends the streams that are left then.
    pub(crate) ending: Arc<Ending>,
    /// Whether the configuration of the start wanted usage to be kept.
    keeps_usage: bool,
    live: ArcSwap<Live>,
    /// What the last swap, or the start, was made from. Held while a swap is made.
    config: Mutex<Config>,
    swapped: Notify,
    ids: Ids,
}

/// Whom a gateway calls, and for which models. It is swapped as a whole: a request takes it once, and
/// keeps it to its end.
#[derive(Debug)]
pub(crate) struct Live {
    /// In the order of the configuration.
    pub(crate) providers: Vec<Arc<Provider>>,
    /// Which models there are.
    pub(crate) catalog: Catalog,
    /// Answers that are given again, if any are.
    pub(crate) cache: Option<Arc<Cache>>,
    /// Whether what is said goes into the log.
    pub(crate) prompts: bool,
    /// What is done when a provider fails.
    pub(crate) reliability: ReliabilityConfig,
    /// Where failures are counted.
    pub(crate) metrics: Arc<Metrics>,
    /// SHA-256 of the configuration's text.
    pub(crate) digest: String,
    /// Since when it is live.
    pub(crate) since: DateTime<Utc>,
}

/// What a swap came to.
#[derive(Debug)]
pub(crate) struct Swap {
    /// The digest before it.
    pub(crate) previous: String,
    /// What is live now.
    pub(crate) live: Arc<Live>,
    /// Keys of the configuration that only a restart takes over.
    pub(crate) restart_needed_for: Vec<&'static str>,
}

impl Gateway {
    /// Puts a gateway together.
    pub(crate) fn new(
        config: Config,
        address: SocketAddr,
        log: AccessLog,
        (books, ledger): (Books, Ledger),
        shutdown: Shutdown,
    ) -> Result<Self, Error> {
        let wrong = |fault| ConfigError::from(config::wrong(ORIGIN, fault));
        let providers = Provider::all(&config, &[]).map_err(wrong)?;
        let gate = Arc::new(Gate::new(&config.auth, ledger)?);
        let metrics = log.metrics().clone();
        let sessions = match &config.sessions {
            None => None,
            Some(_) if config.auth.operator.is_none() => {
                let why = "sessions.toml turns sessions on, and without an operator token nobody \
                           could use them: start king or `evo up` once on this data folder, or set \
                           EVO_TOKEN_OPERATOR";
                return Err(ConfigError::Invalid(why.to_owned()).into());
            }
            Some(sessions) => {
                let environment = config.programs.environment.clone();
                Some(Face::new(Sessions::new(sessions.clone(), environment), gate.clone()))
            }
        };
        Ok(Self {
            address,
            gate,
            sessions,
            client: Client::new(providers.iter().map(Arc::as_ref))?,
            log,
            books,
            body_limit: config.body_limit,
            drain: config.drain(),
            shutdown,
            ending: Arc::default(),
            keeps_usage: config.gateway.usage.clone().unwrap_or_default().enabled,
            live: ArcSwap::from_pointee(Live {
                catalog: Catalog::new(providers.clone(), config.gateway.routing.clone(), None),
                cache: Cache::new(config.gateway.cache.as_ref()),
                prompts: config.gateway.logging.as_ref().is_some_and(|logging| logging.prompts),
                reliability: config.reliability(),
                metrics,
                providers,
                digest: config.digest.clone(),
                since: Utc::now(),
            }),
            config: Mutex::new(config),
            swapped: Notify::new(),
            ids: Ids::new(),
        })
    }

    /// Whom it calls now.
    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Waits for the next swap; one that nobody has waited for counts.
    pub(crate) async fn changed(&self) {
        self.swapped.notified().await;
    }

    /// [`swap_from`](Self::swap_from) for a configuration that came over HTTP.
    pub(crate) fn swap(&self, text: &str, format: Format) -> Result<Swap, SwapError> {
        self.swap_from(text, format, ORIGIN)
    }

    /// Takes over a configuration: checked whole, then swapped at once, or not at all. Requests in
    /// hand go on with what they began with; connections to providers stay. Reads files.
    pub(crate) fn swap_from(
        &self,
        text: &str,
        format: Format,
        origin: &str,
    ) -> Result<Swap, SwapError> {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.live();
        let gateway = config::parse(text, format, origin)?;
        let mut restart_needed_for = Vec::new();
        if gateway.server != config.gateway.server {
            restart_needed_for.push("server");
        }
        let keeps = |gateway: &GatewayConfig| gateway.usage.clone().unwrap_or_default().enabled;
        if keeps(&gateway) != self.keeps_usage {
            restart_needed_for.push("usage.enabled");
        }
        let digest = sha256_hex(text.as_bytes());
        let new = config.with_gateway(gateway, digest.clone());
        let providers =
            Provider::all(&new, &before.providers).map_err(|fault| config::wrong(origin, fault))?;
        self.client.prepare(providers.iter().map(Arc::as_ref))?;
        let routing = new.gateway.routing.clone();
        let live = Arc::new(Live {
            catalog: Catalog::new(providers.clone(), routing, Some(&before.catalog)),
            cache: Cache::or_new(before.cache.as_ref(), new.gateway.cache.as_ref()),
            prompts: new.gateway.logging.as_ref().is_some_and(|logging| logging.prompts),
            reliability: new.reliability(),
            metrics: self.log.metrics().clone(),
            providers,
            digest,
            since: Utc::now(),
        });
        self.live.store(live.clone());
        self.books.keep_for(new.gateway.usage.clone().unwrap_or_default().retention_days);
        // The address that it listens on stays the one of the start.
        let server = config.gateway.server.clone();
        *config = new;
        config.gateway.server = server;
        drop(config);
        self.swapped.notify_one();
        Ok(Swap { previous: before.digest.clone(), live, restart_needed_for })
    }

    /// A new id for a request.
    pub(crate) fn new_id(&self) -> HeaderValue {
        self.ids.next()
    }
}

/// Why a configuration was not taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SwapError {
    /// It is wrong.
    #[error(transparent)]
    Wrong(#[from] ConfigErrors),
    /// It can't be used on this machine.
    #[error(transparent)]
    Unusable(#[from] Error),
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
