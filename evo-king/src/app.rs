//! King as a whole: how it starts and ends.

use std::{net::SocketAddr, time::Duration};

use evo_common::runtime::{OnError, Shutdown, TaskGroup};
use tokio::net::{TcpListener, TcpSocket};

use crate::{
    backup,
    config::Config,
    cron, drain,
    error::Error,
    failpoints, first_cycle, http,
    lock::{self, Lock},
    message_log, retention, search_index, socket,
    state::King,
};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;
/// How long king's own tasks have to end once the answers under way are finished.
const GRACE: Duration = Duration::from_secs(5);
/// How long requests have to end whose caller is gone.
const REQUESTS_GRACE: Duration = Duration::from_secs(2);

/// King, ready to serve: the stores are open and the port is bound.
pub struct App {
    king: King,
    listener: TcpListener,
    /// Cancelled when king shall give out nothing more; it goes on otherwise.
    drain: Shutdown,
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
        finish_restore(&config)?;
        backup::clean_up(&config.data);
        let king = King::open(config, address, Shutdown::new()).await?;
        // Without it the commands on this folder ask for the address.
        if let Err(error) = lock.announce(&king.own_url()) {
            tracing::warn!(%error, "Where king listens can't be written into its lock: {error}");
        }
        Ok(Self { king, listener, drain: Shutdown::new(), lock })
    }

    /// Where king listens.
    pub fn address(&self) -> SocketAddr {
        self.king.address
    }

    /// How king reaches itself.
    pub(crate) fn own_url(&self) -> String {
        self.king.own_url()
    }

    /// When it is cancelled, king is not ready any more and gives out nothing, and goes on until
    /// its shutdown.
    pub fn drain(&self) -> Shutdown {
        self.drain.clone()
    }

    /// Serves until shutdown. From then on nothing new is given out; attempts under way get the
    /// grace period, answers under way are finished and the database is closed. After a restore it
    /// does the same and starts anew.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let Self { mut king, mut listener, drain, lock } = self;
        loop {
            let (config, address, restart) =
                (king.config.clone(), king.address, king.restart.clone());
            serve(king, listener, &shutdown, &drain).await;
            if shutdown.is_cancelled() || !restart.is_cancelled() {
                break;
            }
            let config = Config::clone(&config);
            finish_restore(&config)?;
            listener = listen(address)?;
            king = King::open(config, address, Shutdown::new()).await?;
        }
        drop(lock);
        tracing::info!("King has ended");
        Ok(())
    }
}

/// Ends a restore that was begun; the folder is locked and the database closed.
fn finish_restore(config: &Config) -> Result<(), Error> {
    // A remote database is none that a backup could have been made of.
    let Ok(places) = backup::Places::of(config) else { return Ok(()) };
    if let Some(restored) = backup::finish(&places).map_err(Error::Restore)? {
        tracing::warn!(
            kept = %restored.kept,
            "The backup of {} was restored; what was there before is in {}",
            restored.created_at,
            restored.kept
        );
    }
    Ok(())
}

/// One king, from its first answer to the end of its database.
async fn serve(king: King, listener: TcpListener, shutdown: &Shutdown, drain: &Shutdown) {
    let tasks = TaskGroup::new(king.shutdown.clone());
    let (layer, sockets) = socket::attach(king.clone());
    let router = http::router_around(king.clone(), |routes| routes.layer(layer));
    let reconcile = {
        let king = king.clone();
        async move { Ok(king.pipeline.reconcile(king.shutdown.clone()).await?) }
    };
    tasks.spawn("reconcile", OnError::Shutdown, reconcile);
    let index = search_index::run(king.store.clone(), king.shutdown.clone());
    tasks.spawn("search index", OnError::Log, async move {
        index.await;
        Ok(())
    });
    let give_tasks = {
        let king = king.clone();
        async move { Ok(king.tasks.reconcile(king.shutdown.clone()).await?) }
    };
    tasks.spawn("tasks", OnError::Shutdown, give_tasks);
    let relay = sockets.relay();
    tasks.spawn("relay", OnError::Shutdown, async move { Ok(relay.await?) });
    let shown = sockets.show_debug();
    tasks.spawn("show debug", OnError::Log, async move {
        shown.await;
        Ok(())
    });
    let debug = king.clone();
    tasks.spawn("debug", OnError::Log, async move {
        debug.debug.run(debug.shutdown.clone()).await;
        Ok(())
    });
    let watch = sockets.watch_tokens();
    tasks.spawn("tokens", OnError::Log, async move {
        watch.await;
        Ok(())
    });
    let messages = message_log::run(king.clone());
    tasks.spawn("message log", OnError::Log, async move {
        messages.await;
        Ok(())
    });
    let jobs = cron::run(king.clone());
    tasks.spawn("jobs", OnError::Log, async move { Ok(jobs.await?) });
    let keep = retention::run(king.store.clone(), king.config.clone(), king.shutdown.clone());
    tasks.spawn("retention", OnError::Log, async move {
        keep.await;
        Ok(())
    });
    let (config_sync, stop) = (king.config_sync.clone(), king.shutdown.clone());
    tasks.spawn("gateway configuration", OnError::Log, async move {
        config_sync.run(stop).await;
        Ok(())
    });
    let (supervisor, stop) = (king.supervisor.clone(), king.shutdown.clone());
    tasks.spawn("supervisor", OnError::Log, async move {
        supervisor.run(stop).await;
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
    let limits = &king.config.limits;
    tokio::join!(
        http::serve(listener, router, limits, king.shutdown.clone()),
        end(&king, shutdown, drain),
    );
    king.requests.close();
    // The tasks first: they still send over the connections.
    let (tasks_ended, requests_ended) = tokio::join!(
        tasks.shutdown(GRACE),
        tokio::time::timeout(REQUESTS_GRACE, king.requests.wait()),
    );
    if !tasks_ended {
        tracing::warn!("Some of king's tasks did not end in time");
    }
    if requests_ended.is_err() {
        tracing::warn!("Some requests did not end in time");
    }
    sockets.close().await;
    king.store.close().await;
}

/// Waits for the end and prepares it; afterwards king answers nothing new.
async fn end(king: &King, shutdown: &Shutdown, drain: &Shutdown) {
    let told = async {
        tokio::select! {
            () = shutdown.cancelled() => true,
            // The attempts that are under way are none of the restored state.
            () = king.restart.cancelled() => false,
            // A task that king can't do without has failed.
            () = king.shutdown.cancelled() => false,
        }
    };
    tokio::pin!(told);
    let wait = tokio::select! {
        told = &mut told => told,
        () = drain.cancelled() => {
            drain::begin(king);
            told.await
        }
    };
    drain::begin(king);
    if wait {
        drain::wait(king, Duration::from_millis(king.config.drain_grace_ms)).await;
    }
    king.shutdown.cancel();
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
