//! What king is made of: the parts that every handler works with.

use std::{collections::BTreeMap, net::SocketAddr, ops::Deref, sync::Arc};

use evo_common::{clock::Timestamp, runtime::Shutdown};
use tokio_util::task::TaskTracker;

use crate::{
    access::Keyring,
    artifacts::ArtifactStore,
    child::Launcher,
    commands::Commands,
    config::Config,
    config_sync::ConfigSync,
    cron,
    debug::{Book, Debug},
    error::Error,
    message_log::MessageLog,
    metrics::Metrics,
    pipeline::Coordinator,
    registry::Registry,
    sources::Sources,
    store::{Store, skills},
    supervisor::Supervisor,
    system_info::SystemInfo,
    tasks::Tasks,
};

/// What handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct King(Arc<Parts>);

/// The parts of king.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// Packages.
    pub artifacts: ArtifactStore,
    /// The pipeline.
    pub pipeline: Coordinator,
    /// Who is connected.
    pub registry: Registry,
    /// Tasks.
    pub tasks: Tasks,
    /// Commands to runners.
    pub commands: Commands,
    /// Prompts through agents, and configured commands.
    pub(crate) debug: Debug,
    /// Who may do what.
    pub(crate) keyring: Keyring,
    /// Figures for Prometheus.
    pub(crate) metrics: Metrics,
    /// Where Learning looks.
    pub sources: Sources,
    /// The gateway's configuration.
    pub config_sync: ConfigSync,
    /// The agents whose processes king runs.
    pub supervisor: Supervisor,
    /// What king knows of its machine.
    pub system_info: SystemInfo,
    /// The configuration.
    pub config: Arc<Config>,
    /// Where king listens.
    pub address: SocketAddr,
    /// When king started.
    pub started_at: Timestamp,
    /// Cancelled when king is about to end: nothing new begins.
    pub draining: Shutdown,
    /// Cancelled when a restored state waits to be put in place: king starts anew.
    pub restart: Shutdown,
    /// Cancelled when king ends.
    pub shutdown: Shutdown,
    /// Jobs by the clock.
    pub crons: cron::Crons,
    /// Room for streams of events.
    pub streams: Arc<tokio::sync::Semaphore>,
    /// What is said over Socket.IO, written down.
    pub(crate) messages: MessageLog,
    /// Held by what must not meet another of its kind: backup, restore, the removal of packages.
    pub maintenance: tokio::sync::Mutex<()>,
    /// Requests under way that go on without their caller.
    pub(crate) requests: TaskTracker,
}

impl Deref for King {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl King {
    /// Opens the stores; nothing is served yet.
    pub(crate) async fn open(
        config: Config,
        address: SocketAddr,
        shutdown: Shutdown,
    ) -> Result<Self, Error> {
        let store = Store::open(config.database.clone()).await?;
        cron::prepare(&store, Timestamp::now()).await?;
        let artifacts = ArtifactStore::open(&config.data.join("artifacts"))?;
        let registry = Registry::default();
        for (agent_id, preference) in store.agents_models().await? {
            registry.set_model(&agent_id, Some(preference));
        }
        let digest = store.read(async |connection| skills::pointers::digest(connection).await);
        registry.set_skills(digest.await?);
        let king_url =
            config.public_url.clone().unwrap_or_else(|| format!("http://{}", reachable(address)));
        let sources =
            Sources::new(config.sources.clone(), &king_url, config.gateway_url.as_deref());
        let config = Arc::new(config);
        let streams = Arc::new(tokio::sync::Semaphore::new(config.limits.streams as usize));
        let pipeline = Coordinator::new(
            store.clone(),
            artifacts.clone(),
            registry.clone(),
            sources.clone(),
            config.clone(),
        );
        pipeline.recover().await?;
        let executable = config.machine.executable().map(ToOwned::to_owned);
        let launcher = Launcher::start(executable).map_err(Error::Children)?;
        let tasks = Tasks::new(store.clone(), registry.clone(), pipeline.clone(), config.clone());
        tasks.recover().await?;
        let keyring = Keyring::load(config.tokens.clone(), config.open, store.clone()).await?;
        let book = Book::new(tasks.clone(), store.clone());
        let debug = Debug::new(
            registry.clone(),
            book,
            config.debug.clone(),
            launcher.clone(),
            shutdown.child_token(),
        );
        debug.recover().await?;
        Ok(Self(Arc::new(Parts {
            debug,
            commands: Commands::new(
                store.clone(),
                registry.clone(),
                sources.clone(),
                config.limits.calls,
                config.learning.telemetry.clone(),
            ),
            config_sync: ConfigSync::new(&config, store.clone(), launcher.clone()),
            supervisor: Supervisor::new(&config, &own_url(address), store.clone(), launcher)
                .map_err(Error::Children)?,
            system_info: SystemInfo::new(config.machine()),
            store,
            keyring,
            metrics: Metrics::new(),
            artifacts,
            pipeline,
            tasks,
            registry,
            sources,
            config,
            address,
            started_at: Timestamp::now(),
            draining: shutdown.child_token(),
            restart: Shutdown::new(),
            shutdown,
            crons: cron::Crons::default(),
            streams,
            messages: MessageLog::default(),
            maintenance: tokio::sync::Mutex::new(()),
            requests: TaskTracker::new(),
        })))
    }

    /// How king reaches itself.
    pub(crate) fn own_url(&self) -> String {
        own_url(self.address)
    }

    /// Source name → base URL.
    pub fn servers(&self) -> BTreeMap<String, String> {
        self.sources.servers()
    }
}

fn own_url(address: SocketAddr) -> String {
    format!("http://{}", reachable(address))
}

/// An address that a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::from(([127, 0, 0, 1], address.port()))
    } else {
        address
    }
}
