//! One gateway: opened first, served after, so that a port in use is known before any work.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use evo_common::runtime::{OnError, Shutdown, TaskGroup};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};

use crate::{
    Config, Error, Follow, access, catalog,
    gateway::Gateway,
    http,
    provider::Unusable,
    reload,
    usage::books::{self, Keeper},
};

/// How long streams that are left then have to tell their callers that they are cut.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// How long the gateway's own tasks have to end after that.
const TASK_GRACE: Duration = Duration::from_secs(1);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;
/// Files that may be open at the same time, if the system lets us: an answer in hand needs two, and
/// the usual limit of 1,024 leaves no room for many.
const FILES: u64 = 65_536;

/// A gateway that has its port and serves nothing yet.
#[derive(Debug)]
pub struct App {
    listener: TcpListener,
    gateway: Arc<Gateway>,
    log: access::Writer,
    keeper: Keeper,
    /// Its file, if it is read again, and whether already when it changes.
    file: Option<(PathBuf, Follow)>,
}

impl App {
    /// Checks the configuration and takes the port.
    pub async fn start(config: Config) -> Result<Self, Error> {
        config.validate()?;
        let listen = config.listen;
        let bind = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => Error::PortInUse { listen, hint: "" },
            _ => Error::Bind { listen, source },
        };
        let listener = listener(listen).map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let log = access::start().map_err(|source| Error::Process {
            what: "the thread for log lines can't be started",
            source,
        })?;
        let lines = log.log();
        let follow = config.follow;
        let file = config.file.clone().filter(|_| follow != Follow::Never).map(|it| (it, follow));
        // It reads files: the table of usage, keys, and the machine's certificates.
        let open = move || {
            let usage = config.gateway.usage.clone().unwrap_or_default();
            let table = config.database.as_deref().filter(|_| usage.enabled);
            let (keeper, ledger) =
                books::start(table, usage.retention_days, lines.metrics().clone())?;
            let books = (keeper.books(), ledger);
            let gateway = Gateway::new(config, address, lines, books, Shutdown::new())?;
            Ok::<_, Error>((gateway, keeper))
        };
        let opened = tokio::task::spawn_blocking(open).await;
        let (gateway, keeper) = opened.map_err(|error| Error::Process {
            what: "the gateway can't be opened",
            source: error.into(),
        })??;
        Ok(Self { listener, gateway: Arc::new(gateway), log, keeper, file })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.gateway.address
    }

    /// Serves until the shutdown, then lets answers in hand end within the grace period.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let Self { listener, gateway, log, keeper, file } = self;
        if let Err(error) = raise_file_limit() {
            tracing::debug!(%error, "The limit of open files stays as it is: {error}");
        }
        let address = gateway.address;
        tracing::info!(%address, version = crate::VERSION, "Gateway serves on http://{address}");
        for provider in &gateway.live().providers {
            if let Err(Unusable::NoKey) = provider.address()
                && let Some(problem) = provider.problem()
            {
                tracing::info!(provider.name = %provider.name, "{problem}");
            }
        }
        let (stop, drain) = (gateway.shutdown.clone(), gateway.drain);
        let ending = gateway.ending.clone();
        let cut = Shutdown::new();
        let ends = http::Ends { stop: stop.clone(), cut: cut.clone() };
        let workers = http::Workers::start(&gateway, ends).map_err(|source| Error::Process {
            what: "the threads that serve connections can't be started",
            source,
        })?;
        let tasks = TaskGroup::new(stop.clone());
        {
            let gateway = gateway.clone();
            tasks.spawn("models", OnError::Log, async move {
                catalog::follow(&gateway).await;
                Ok(())
            });
        }
        if let Some((file, follow)) = file {
            let gateway = gateway.clone();
            tasks.spawn("configuration", OnError::Log, async move {
                Ok(reload::follow(gateway, file, follow).await?)
            });
        }
        if gateway.gate.has_keys_file() {
            let (gateway, stop) = (gateway.clone(), stop.clone());
            tasks.spawn("keys", OnError::Log, async move {
                gateway.gate.follow(stop).await;
                Ok(())
            });
        }
        if gateway.sessions.is_some() {
            let (gateway, stop) = (gateway.clone(), stop.clone());
            tasks.spawn("sessions", OnError::Log, async move {
                if let Some(face) = &gateway.sessions {
                    face.relay(&stop).await;
                }
                Ok(())
            });
        }
        let overdue = async {
            shutdown.cancelled().await;
            stop.cancel();
            tokio::time::sleep(drain).await;
            tracing::warn!("Gateway: answers in hand were cut after {} ms", drain.as_millis());
            ending.begin();
            tokio::time::sleep(LAST_WORDS).await;
            cut.cancel();
            tokio::time::sleep(TASK_GRACE).await;
        };
        tokio::select! {
            () = workers.serve(listener) => {}
            () = overdue => tracing::warn!("A thread of the gateway did not end in time"),
        }
        if !tasks.shutdown(TASK_GRACE).await {
            tracing::warn!("Some of the gateway's tasks did not end in time");
        }
        // The last lines, and the last rows.
        drop(log);
        drop(keeper);
        Ok(())
    }
}

fn raise_file_limit() -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.min(FILES);
    if soft < wanted { setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) } else { Ok(()) }
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    fn on(listen: &str) -> Config {
        let text = r#"{"server": {"host": "127.0.0.1", "port": 0}, "providers": []}"#;
        let gateway = evo_common::config::GatewayConfig::from_json(text).unwrap();
        let tokens = evo_common::tokens::Tokens::generate();
        Config { listen: listen.parse().unwrap(), ..Config::new(gateway, &tokens).unwrap() }
    }

    #[tokio::test]
    async fn health_is_answered_and_a_shutdown_ends_it_at_once() {
        let app = App::start(on("127.0.0.1:0")).await.unwrap();
        let (address, shutdown) = (app.address(), Shutdown::new());
        let client = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            // This one stays open and idle; it must not hold up the end.
            let idle = TcpStream::connect(address).await.unwrap();
            shutdown.cancel();
            (answer, idle)
        };
        let started = tokio::time::Instant::now();
        let (result, (answer, _idle)) = tokio::join!(app.run(shutdown.clone()), client);
        result.unwrap();
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains(r#""status":"ok","service":"evo-gateway""#), "{answer}");
    }

    #[tokio::test]
    async fn a_port_in_use_and_an_open_address_are_refused() {
        let first = App::start(on("127.0.0.1:0")).await.unwrap();
        let error = App::start(on(&first.address().to_string())).await.unwrap_err();
        assert!(matches!(error, Error::PortInUse { .. }), "{error}");
        assert_eq!(error.exit_code(), 1);
        let mut open = on("0.0.0.0:0");
        open.auth.open = true;
        let error = App::start(open).await.unwrap_err();
        assert!(matches!(error, Error::OpenToStrangers { .. }), "{error}");
        assert_eq!(error.exit_code(), 2);
        let mut nobody = on("0.0.0.0:0");
        nobody.auth = crate::Auth::default();
        let error = App::start(nobody).await.unwrap_err();
        assert!(matches!(error, Error::NoTokens { .. }), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
