//! Connections.

use std::{pin::pin, sync::Arc, time::Duration};

use evo_common::runtime::{Shutdown, panic_message};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
};

use super::service::Service;
use crate::gateway::Gateway;

/// How long a connection may be idle, or take for the head of a request. Longer than clients
/// commonly keep theirs, so that they close and not the gateway.
const IDLE: Duration = Duration::from_secs(120);
/// Pause after a connection could not be accepted, which is when there are too many.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until the shutdown, then waits until the answers in hand are out. Dropping
/// the future cuts them.
pub(crate) async fn serve(listener: TcpListener, gateway: Arc<Gateway>, shutdown: Shutdown) {
    let service = Service::new(gateway);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next() => tell_panic(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, service.clone(), shutdown.child_token()));
                }
                Err(error) => {
                    tracing::warn!(%error, "A connection can't be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        tell_panic(ended);
    }
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

async fn connection(stream: TcpStream, service: Service, shutdown: Shutdown) {
    // Small pieces of a stream must not wait for an acknowledgement of earlier ones.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "A connection has no nodelay: {error}");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service);
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
