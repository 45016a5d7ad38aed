//! Figures for Prometheus: how they are written, and a small server for processes that serve no HTTP
//! otherwise (runners, the bridge).

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{config::env, tokens::Secret};

/// The content type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(60);
/// Connections at the same time; whoever scrapes needs one.
const CONNECTIONS: usize = 16;

/// The figures of all parts of this process that have no HTTP server of their own.
pub fn process() -> MutexGuard<'static, Registry> {
    static PROCESS: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);
    // A panic while a figure is registered leaves the others as they are.
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A registry in OpenMetrics' text format.
pub fn text(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).expect("writing to a text can't fail");
    text
}

/// The variable that says where [`beside`] serves.
pub const ADDRESS: &str = "EVO_METRICS_ADDRESS";

/// Does some work and, while it lasts, serves [`process`] where `EVO_METRICS_ADDRESS` says; without
/// that variable nothing is served. Fails before the work begins when the address is wrong, can't be
/// had, or is open to other machines without a token.
pub async fn beside<T>(token: Option<Secret>, work: impl Future<Output = T>) -> io::Result<T> {
    let wrong = |error: env::EnvError| io::Error::new(io::ErrorKind::InvalidInput, error);
    let Some(address) = env::parse(&env::get, ADDRESS).map_err(wrong)? else {
        return Ok(work.await);
    };
    let listener = bind(address, token.is_some())
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("{ADDRESS}={address}: {error}")))?;
    let address = listener.local_addr()?;
    tracing::info!(%address, "Figures are at http://{address}/metrics");
    tokio::select! {
        done = work => Ok(done),
        never = serve(listener, token) => match never {},
    }
}

/// Binds the address of a metrics server. Another address than loopback is refused without tokens.
async fn bind(address: SocketAddr, tokens: bool) -> io::Result<TcpListener> {
    if !address.ip().is_loopback() && !tokens {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{address} can be reached from other machines and there is no viewer token to ask \
                 for; use 127.0.0.1, or set EVO_TOKEN_VIEWER"
            ),
        ));
    }
    TcpListener::bind(address).await
}

/// Serves [`process`] at `GET /metrics`. With a token whoever asks has to send it.
async fn serve(listener: TcpListener, token: Option<Secret>) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "No connection can be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let token = token.clone();
        connections.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let answer = answer(&request, token.as_ref());
                async { Ok::<_, Infallible>(answer) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(IDLE);
            if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "A connection ended: {error}");
            }
        });
    }
}

fn answer<B>(request: &Request<B>, token: Option<&Secret>) -> Response<Full<Bytes>> {
    let plain = |status, text: &'static str| {
        let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = status;
        response
    };
    if (request.method(), request.uri().path()) != (&Method::GET, "/metrics") {
        return plain(StatusCode::NOT_FOUND, "There is GET /metrics and nothing else.\n");
    }
    let sent = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if token.is_some_and(|token| sent.is_none_or(|sent| *token != Secret::from(sent))) {
        return plain(
            StatusCode::UNAUTHORIZED,
            "Send `Authorization: Bearer TOKEN` with the viewer token.\n",
        );
    }
    let mut response = Response::new(Full::new(text(&process()).into()));
    let kind = HeaderValue::from_static(CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_for_whoever_has_the_token() {
        let token = Secret::from("evo_vw_x");
        let ask = |path: &str, sent: Option<&str>, token: Option<&Secret>| {
            let mut request = Request::get(path);
            if let Some(sent) = sent {
                request = request.header(header::AUTHORIZATION, format!("Bearer {sent}"));
            }
            answer(&request.body(()).unwrap(), token).status()
        };
        assert_eq!(ask("/metrics", None, None), StatusCode::OK);
        assert_eq!(ask("/metrics", None, Some(&token)), StatusCode::UNAUTHORIZED);
        assert_eq!(ask("/metrics", Some("evo_vw_y"), Some(&token)), StatusCode::UNAUTHORIZED);
        assert_eq!(ask("/metrics", Some("evo_vw_x"), Some(&token)), StatusCode::OK);
        assert_eq!(ask("/", Some("evo_vw_x"), Some(&token)), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn strangers_on_other_machines_are_not_served() {
        let open = bind(SocketAddr::from(([0, 0, 0, 0], 0)), false).await.unwrap_err();
        assert_eq!(open.kind(), io::ErrorKind::PermissionDenied);
        bind(SocketAddr::from(([127, 0, 0, 1], 0)), false).await.unwrap();
    }
}
