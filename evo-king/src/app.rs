//! King as a whole: what it is made of, how it starts and ends.

use std::{collections::BTreeMap, net::SocketAddr, ops::Deref, sync::Arc, time::Duration};

use evo_common::{
    clock::Timestamp,
    runtime::{OnError, Shutdown, TaskGroup},
};
use tokio::net::{TcpListener, TcpSocket};

use crate::{
    artifacts::ArtifactStore,
    commands::Commands,
    config::Config,
    http,
    lock::{self, Lock},
    pipeline::Coordinator,
    registry::Registry,
    socket,
    sources::Sources,
    store::{self, Store},
    system_info::SystemInfo,
};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;
/// How long king's own tasks have to end.
const GRACE: Duration = Duration::from_secs(5);

/// Why king can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data folder can't be used.
    #[error("can't use the data folder {path}: {reason}")]
    Folder {
        /// Which folder.
        path: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The address can't be listened on.
    #[error("can't listen on {address}: {reason}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why not, and what to do.
        reason: String,
    },
    /// It would be open to strangers.
    #[error(
        "refusing to start: --open switches the tokens off, and {0} can be reached from other \
         machines; listen on 127.0.0.1, or start without --open"
    )]
    OpenToStrangers(SocketAddr),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The package store.
    #[error(transparent)]
    Artifacts(#[from] crate::artifacts::Error),
    /// The pipeline.
    #[error(transparent)]
    Pipeline(#[from] crate::pipeline::Error),
    /// The server stopped.
    #[error("the server stopped")]
    Serve(#[source] std::io::Error),
}

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
    /// Commands to runners.
    pub commands: Commands,
    /// Where Learning looks.
    pub sources: Sources,
    /// What king knows of its machine.
    pub system_info: SystemInfo,
    /// The configuration.
    pub config: Arc<Config>,
    /// Where king listens.
    pub address: SocketAddr,
    /// When king started.
    pub started_at: Timestamp,
    /// Cancelled when king ends.
    pub shutdown: Shutdown,
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
        let artifacts = ArtifactStore::open(&config.data.join("artifacts"))?;
        let registry = Registry::default();
        let king_url =
            config.public_url.clone().unwrap_or_else(|| format!("http://{}", reachable(address)));
        let sources =
            Sources::new(config.sources.clone(), &king_url, config.gateway_url.as_deref());
        let config = Arc::new(config);
        let pipeline = Coordinator::new(
            store.clone(),
            artifacts.clone(),
            registry.clone(),
            sources.clone(),
            config.clone(),
        );
        pipeline.recover().await?;
        Ok(Self(Arc::new(Parts {
            commands: Commands::new(store.clone(), registry.clone(), sources.clone()),
            system_info: SystemInfo::new(config.machine()),
            store,
            artifacts,
            pipeline,
            registry,
            sources,
            config,
            address,
            started_at: Timestamp::now(),
            shutdown,
        })))
    }

    /// Source name → base URL.
    pub fn servers(&self) -> BTreeMap<String, String> {
        self.sources.servers()
    }
}

/// An address that a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::from(([127, 0, 0, 1], address.port()))
    } else {
        address
    }
}

/// King, ready to serve: the stores are open and the port is bound.
pub struct App {
    king: King,
    listener: TcpListener,
    /// Freed when king has ended.
    lock: Lock,
}

impl App {
    /// Binds the port and opens the stores. Nothing is served yet.
    pub async fn start(config: Config) -> Result<Self, Error> {
        if config.open && !config.listen.ip().is_loopback() {
            return Err(Error::OpenToStrangers(config.listen));
        }
        let lock = lock::take(&config.data)?;
        let listener = listen(config.listen)?;
        let address = listener.local_addr().map_err(Error::Serve)?;
        let king = King::open(config, address, Shutdown::new()).await?;
        Ok(Self { king, listener, lock })
    }

    /// Where king listens.
    pub fn address(&self) -> SocketAddr {
        self.king.address
    }

    /// Serves until shutdown; then nothing new is dispatched, answers under way are finished and
    /// the database is closed.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let Self { king, listener, lock } = self;
        let tasks = TaskGroup::new(king.shutdown.clone());
        let (layer, sockets) = socket::attach(king.clone());
        let router = http::router_around(king.clone(), |routes| routes.layer(layer));
        let reconcile = {
            let king = king.clone();
            async move { Ok(king.pipeline.reconcile(king.shutdown.clone()).await?) }
        };
        tasks.spawn("reconcile", OnError::Shutdown, reconcile);
        let relay = sockets.relay();
        tasks.spawn("relay", OnError::Shutdown, async move { Ok(relay.await?) });
        tracing::info!(address = %king.address, version = crate::VERSION, "King listens on {}", king.address);
        let stop = {
            let king = king.clone();
            async move {
                tokio::select! {
                    () = shutdown.cancelled() => king.shutdown.cancel(),
                    // A task that king can't do without has failed.
                    () = king.shutdown.cancelled() => {}
                }
            }
        };
        let served = http::serve(listener, router, stop).await;
        // The tasks first: they still send over the connections.
        if !tasks.shutdown(GRACE).await {
            tracing::warn!("Some of king's tasks did not end in time");
        }
        sockets.close().await;
        king.store.close().await;
        drop(lock);
        tracing::info!("King has ended");
        served.map_err(Error::Serve)
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|error: std::io::Error| Error::Listen {
        address,
        reason: match error.kind() {
            std::io::ErrorKind::AddrInUse => format!(
                "port {} is in use; stop the other program, or choose another port (0 takes a \
                 free one)",
                address.port()
            ),
            std::io::ErrorKind::PermissionDenied => {
                "not permitted; ports below 1024 need privileges".to_owned()
            }
            _ => error.to_string(),
        },
    })
}
