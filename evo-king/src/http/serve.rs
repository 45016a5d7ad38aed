//! The HTTP server: connections, and what one of them may take.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use evo_common::runtime::Shutdown;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::{error::ApiError, patience::Patient};
use crate::{access::Remote, config::Limits};

/// How long answers under way may take once `stop` is done.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a connection may take for the head of a request, and may be idle before one.
const HEAD: Duration = Duration::from_secs(60);
/// Largest head of a request.
const MAX_HEAD: usize = 64 * 1024;
/// Most headers of a request.
const MAX_HEADERS: usize = 100;
/// How long a connection above the limit is kept to be told so.
const REFUSAL: Duration = Duration::from_secs(2);
/// Connections that are told so at the same time; others are closed at once.
const REFUSALS: usize = 64;
/// Pause after a connection could not be accepted, which is when there are too many files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves at most `connections` at the same time until `stop`, and then until the answers under way
/// are finished.
pub(crate) async fn serve(listener: TcpListener, router: Router, limits: &Limits, stop: Shutdown) {
    let connections = limits.connections;
    let patience = Duration::from_millis(limits.slow_reader_ms);
    let places = Arc::new(Semaphore::new(connections as usize));
    let served = TaskTracker::new();
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let mut full = false;
    loop {
        let (stream, remote) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_about_one_connection(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "No connection can be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        // Small answers must not wait for an acknowledgement of earlier ones.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "A connection has no nodelay: {error}");
        }
        if let Ok(place) = places.clone().try_acquire_owned() {
            full = false;
            let router = router.clone();
            served.spawn(connection(stream, remote, router, stop.clone(), place, patience));
        } else {
            // Once, and not with every connection.
            if !std::mem::replace(&mut full, true) {
                tracing::warn!(connections, "King has {connections} connections; more are refused");
            }
            if let Ok(place) = refusals.clone().try_acquire_owned() {
                served.spawn(refuse(stream, place));
            }
        }
    }
    drop(listener);
    served.close();
    if tokio::time::timeout(DRAIN, served.wait()).await.is_err() {
        tracing::warn!("Some connections did not end in time");
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

fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS);
    http
}

/// The place of a connection among those that are allowed. Rides on every request, so that whatever a
/// connection is upgraded to, such as a WebSocket, keeps it.
#[derive(Clone)]
struct Place(#[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

/// Serves one connection. After `stop` it ends with the answer under way.
async fn connection(
    stream: TcpStream,
    remote: SocketAddr,
    router: Router,
    stop: Shutdown,
    place: OwnedSemaphorePermit,
    patience: Duration,
) {
    let place = Place(Arc::new(place));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(Remote(remote));
        request.extensions_mut().insert(place.clone());
        router.clone().oneshot(request)
    });
    let stream = TokioIo::new(Patient::new(stream, patience));
    let served = http().serve_connection(stream, service).with_upgrades();
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "A connection ended: {error}");
    }
}

/// Tells a client that there is no room.
async fn refuse(stream: TcpStream, place: OwnedSemaphorePermit) {
    let service = service_fn(|_: hyper::Request<Incoming>| async {
        let error = ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_connections",
            "King has as many connections as it may; try again later, or raise limits.connections.",
        );
        let mut response: Response = error.into_response();
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        Ok::<_, Infallible>(response)
    });
    let served = http().serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(REFUSAL, served).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "A refused connection ended: {error}"),
    }
    drop(place);
}
