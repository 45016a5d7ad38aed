//! One gateway: opened first, served after, so that a port in use is known before any work.

use std::{io, net::SocketAddr, time::Duration};

use evo_common::runtime::Shutdown;
use tokio::net::TcpListener;

use crate::{Config, Error, http};

/// How long answers in hand may take after the shutdown began.
const GRACE: Duration = Duration::from_secs(5);

/// A gateway that has its port and serves nothing yet.
#[derive(Debug)]
pub struct App {
    listener: TcpListener,
    address: SocketAddr,
}

impl App {
    /// Checks the configuration and takes the port.
    pub async fn start(config: Config) -> Result<Self, Error> {
        config.validate()?;
        let listen = config.listen;
        let bind = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => Error::PortInUse { listen },
            _ => Error::Bind { listen, source },
        };
        let listener = TcpListener::bind(listen).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the shutdown, then lets answers in hand end within the grace period.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        tracing::info!(address = %self.address, "Gateway serves on http://{}", self.address);
        let draining = shutdown.clone();
        let serve = http::serve(self.listener, shutdown);
        let overdue = async move {
            draining.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            result = serve => result.map_err(Error::Serve),
            () = overdue => {
                tracing::warn!("Gateway: answers in hand were cut after {} s", GRACE.as_secs());
                Ok(())
            }
        }
    }
}
