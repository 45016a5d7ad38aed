//! Connections: one thread accepts them, and as many threads as there are processors serve them,
//! each with an async runtime and a pool of connections to providers of its own.
//!
//! A request, its connection to the provider and the answer stay on one thread. On one runtime over
//! several threads each of them wakes another thread, which costs more than forwarding does.

use std::{
    fmt, io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use evo_common::runtime::{Shutdown, panic_message};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{self, Runtime},
    sync::mpsc,
    task::{JoinError, JoinSet},
};
use tracing::{Dispatch, dispatcher};

use super::service::Service;
use crate::gateway::Gateway;

/// How long a connection may be idle, or take for the head of a request. Longer than clients
/// commonly keep theirs, so that they close and not the gateway.
const IDLE: Duration = Duration::from_secs(120);
/// Pause after a connection could not be accepted, which is when there are too many.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections on their way to a thread that serves them.
const HANDED_OVER: usize = 1_024;

/// How a server is ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ends {
    /// Accept nothing more, and let answers in hand go out.
    pub(crate) stop: Shutdown,
    /// Cut them.
    pub(crate) cut: Shutdown,
}

/// The threads that serve connections.
pub(crate) struct Workers {
    workers: Vec<Worker>,
    /// Closed once all threads have ended.
    ended: mpsc::Receiver<()>,
    ends: Ends,
}

struct Worker {
    streams: mpsc::Sender<(std::net::TcpStream, Open)>,
    open: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

/// Counts as an open connection of its thread as long as it lives.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("threads", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Workers {
    /// Starts the threads. They log to the subscriber of the caller.
    pub(crate) fn start(gateway: &Arc<Gateway>, ends: Ends) -> io::Result<Self> {
        let (alive, ended) = mpsc::channel(1);
        let threads = thread::available_parallelism()?.get();
        let workers = (0..threads)
            .map(|number| {
                let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
                let (streams, received) = mpsc::channel(HANDED_OVER);
                let service = Service::new(gateway.clone());
                let dispatch = dispatcher::get_default(Dispatch::clone);
                let (ends, alive) = (ends.clone(), alive.clone());
                let work = move || {
                    dispatcher::with_default(&dispatch, || work(runtime, received, service, &ends));
                    drop(alive);
                };
                let name = format!("evo-gateway-{number}");
                let thread = thread::Builder::new().name(name).spawn(work)?;
                Ok(Worker { streams, open: Arc::default(), thread })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { workers, ended, ends })
    }

    /// Accepts connections until the stop, then waits until the answers in hand are out or cut.
    pub(crate) async fn serve(mut self, listener: TcpListener) {
        // When nobody waits for them any more, they are cut.
        let _cut = self.ends.cut.clone().drop_guard();
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.ends.stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    failing = false;
                    if let Err(error) = self.give(stream).await {
                        tracing::warn!(%error, "A connection can't be served: {error}");
                    }
                }
                Err(error) if is_about_one_connection(&error) => {
                    tracing::debug!(%error, "A connection ended before it was accepted: {error}");
                }
                Err(error) => {
                    // Once, and not ten times a second.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "No connection can be accepted: {error}");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        let threads = self.workers.into_iter().map(|worker| worker.thread).collect::<Vec<_>>();
        // Nothing is ever sent on it.
        self.ended.recv().await;
        for thread in threads {
            if let Err(panic) = thread.join() {
                let message = panic_message(panic.as_ref());
                tracing::error!("A thread of the gateway was ended by a fault: {message}");
            }
        }
    }

    /// Hands a connection to the thread that has the fewest.
    async fn give(&self, stream: TcpStream) -> io::Result<()> {
        // Small pieces of a stream must not wait for an acknowledgement of earlier ones.
        stream.set_nodelay(true)?;
        let mut stream = stream.into_std()?;
        let mut workers: Vec<&Worker> = self.workers.iter().collect();
        workers.sort_by_key(|worker| worker.open.load(Ordering::Relaxed));
        for worker in workers {
            let open = Open::new(&worker.open);
            match worker.streams.send((stream, open)).await {
                Ok(()) => return Ok(()),
                // This thread was ended by a fault, which its own message told.
                Err(mpsc::error::SendError((back, _))) => stream = back,
            }
        }
        Err(io::Error::other("no thread serves connections"))
    }
}

/// Whether only that connection is lost, where otherwise files or memory are short.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
    )
}

/// Serves the connections of one thread.
fn work(
    runtime: Runtime,
    mut streams: mpsc::Receiver<(std::net::TcpStream, Open)>,
    service: Service,
    ends: &Ends,
) {
    runtime.block_on(async {
        let mut connections = JoinSet::new();
        let serve = async {
            loop {
                tokio::select! {
                    Some(ended) = connections.join_next() => tell_panic(ended),
                    stream = streams.recv() => match stream {
                        Some((stream, open)) => {
                            let (service, stop) = (service.clone(), ends.stop.child_token());
                            connections.spawn(async move {
                                let _open = open;
                                connection(stream, service, stop).await;
                            });
                        }
                        None => break,
                    },
                }
            }
            while let Some(ended) = connections.join_next().await {
                tell_panic(ended);
            }
        };
        tokio::select! {
            () = serve => {}
            () = ends.cut.cancelled() => {}
        }
    });
    // A look-up of a provider's name may be on its way; nobody waits for it any more.
    runtime.shutdown_background();
}

/// A panic costs its connection and nothing else, but somebody should look at it.
fn tell_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        let message = panic_message(panic.as_ref());
        tracing::error!("A connection was dropped by a fault of the gateway: {message}");
    }
}

async fn connection(stream: std::net::TcpStream, service: Service, shutdown: Shutdown) {
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%error, "A connection can't be served: {error}");
            return;
        }
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut cancelled = pin!(shutdown.cancelled());
    let served = tokio::select! {
        biased;
        served = connection.as_mut() => served,
        () = cancelled.as_mut() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        // The caller went away, or an answer was cut on purpose; the request's own line says so.
        tracing::debug!(%error, "A connection ended: {error}");
    }
}
