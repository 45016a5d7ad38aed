//! King as a whole: how it starts and ends.

use std::{net::SocketAddr, time::Duration};

use evo_common::runtime::{OnError, Shutdown, TaskGroup};
use tokio::net::{TcpListener, TcpSocket};

use crate::{
    config::Config,
    error::Error,
    failpoints, first_cycle, http,
    lock::{self, Lock},
    retention, socket,
    state::King,
};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;
/// How long king's own tasks have to end.
const GRACE: Duration = Duration::from_secs(5);

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
        failpoints::arm().map_err(Error::Serve)?;
        if config.open && !config.listen.ip().is_loopback() {
            return Err(Error::OpenToStrangers(config.listen));
        }
        let mut lock = lock::take(&config.data)?;
        let listener = listen(config.listen)?;
        let address = listener.local_addr().map_err(Error::Serve)?;
        let king = King::open(config, address, Shutdown::new()).await?;
        // Without it the commands on this folder ask for the address.
        if let Err(error) = lock.announce(&king.own_url()) {
            tracing::warn!(%error, "Where king listens can't be written into its lock: {error}");
        }
        Ok(Self { king, listener, lock })
    }

    /// Where king listens.
    pub fn address(&self) -> SocketAddr {
        self.king.address
    }

    /// How king reaches itself.
    pub(crate) fn own_url(&self) -> String {
        self.king.own_url()
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
        let watch = sockets.watch_tokens();
        tasks.spawn("tokens", OnError::Log, async move {
            watch.await;
            Ok(())
        });
        let keep = retention::run(king.store.clone(), king.config.clone(), king.shutdown.clone());
        tasks.spawn("retention", OnError::Log, async move {
            keep.await;
            Ok(())
        });
        if king.config.first_cycle {
            let king = king.clone();
            tasks.spawn(
                "first cycle",
                OnError::Log,
                async move { Ok(first_cycle::start(king).await?) },
            );
        }
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
        let connections = king.config.limits.connections;
        tokio::join!(http::serve(listener, router, connections, king.shutdown.clone()), stop,);
        // The tasks first: they still send over the connections.
        if !tasks.shutdown(GRACE).await {
            tracing::warn!("Some of king's tasks did not end in time");
        }
        sockets.close().await;
        king.store.close().await;
        drop(lock);
        tracing::info!("King has ended");
        Ok(())
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
