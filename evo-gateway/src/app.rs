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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    fn on(listen: &str) -> Config {
        Config { listen: listen.parse().unwrap() }
    }

    #[tokio::test]
    async fn health_is_answered_and_a_shutdown_ends_it_at_once() {
        let app = App::start(on("127.0.0.1:0")).await.unwrap();
        let (address, shutdown) = (app.address(), Shutdown::new());
        let client = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            // This one stays open and idle; it must not hold up the end.
            let idle = TcpStream::connect(address).await.unwrap();
            shutdown.cancel();
            (answer, idle)
        };
        let (result, (answer, _idle)) = tokio::join!(app.run(shutdown.clone()), client);
        result.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains(r#""status":"ok","service":"evo-gateway""#), "{answer}");
    }

    #[tokio::test]
    async fn a_port_in_use_and_an_open_address_are_refused() {
        let first = App::start(on("127.0.0.1:0")).await.unwrap();
        let error = App::start(Config { listen: first.address() }).await.unwrap_err();
        assert!(matches!(error, Error::PortInUse { .. }), "{error}");
        assert_eq!(error.exit_code(), 1);
        let error = App::start(on("0.0.0.0:0")).await.unwrap_err();
        assert!(matches!(error, Error::NotLoopback { .. }), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
