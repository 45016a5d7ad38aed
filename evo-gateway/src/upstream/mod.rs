//! The HTTP client for providers: keep-alive connections without Nagle's delay, no redirects, no
//! proxies. A connection that is not wanted any more is closed, and the provider learns it.

mod body;
pub(crate) mod headers;
mod transport;

use std::{
    collections::HashMap,
    error::Error as StdError,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{Request, Uri, uri::Authority};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use tokio::{net::TcpStream, time::timeout};
use tower::Service;

use crate::{Error, provider::Provider};
pub(crate) use body::SendBody;
pub(crate) use transport::{Body, BoxFuture, Deadlines, Lenient, Reached, Transport};

/// Idle connections that are kept for each provider.
const POOL: usize = 1_024;
/// How long they are kept. Servers commonly close them after 60 seconds and more.
const POOL_IDLE: Duration = Duration::from_secs(50);
/// How long a connection may take to a place that no provider names.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// When the system asks whether a silent connection still stands.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Any error.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// Sends requests to providers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    client: legacy::Client<Connector, SendBody>,
    connector: Connector,
}

/// Why a provider gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection could be made.
    Unreachable,
    /// No connection stood in time.
    ConnectTimeout,
    /// The connection ended before the answer began.
    Dropped,
    /// The answer did not begin in time.
    FirstByteTimeout,
}

impl Client {
    /// A client for these providers.
    pub(crate) fn new<'a>(
        providers: impl IntoIterator<Item = &'a Provider> + Clone,
    ) -> Result<Self, Error> {
        evo_common::tls::install();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(KEEPALIVE));
        let nobody = ClientConfig::builder()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let connector = Connector(Arc::new(Connecting {
            plain: HttpsConnector::from((http.clone(), nobody)),
            http,
            trusting: OnceLock::new(),
            limits: ArcSwap::default(),
        }));
        let client = Self::over(connector);
        client.prepare(providers)?;
        Ok(client)
    }

    /// Makes ready for calling these providers too. Reading what the machine trusts takes time and
    /// memory, so it is done when a provider first needs it, for this client and all that have their
    /// own connections.
    pub(crate) fn prepare<'a>(
        &self,
        providers: impl IntoIterator<Item = &'a Provider> + Clone,
    ) -> Result<(), Error> {
        let limit = |provider: &'a Provider| {
            let place = provider.address().ok()?.generate.authority()?.clone();
            Some((place, provider.conduct.timeouts.connect))
        };
        let limits = providers.clone().into_iter().filter_map(limit).collect();
        self.0.connector.0.limits.store(Arc::new(limits));
        let needs_tls = providers.into_iter().any(|provider| {
            provider
                .address()
                .is_ok_and(|address| address.generate.scheme() == Some(&http::uri::Scheme::HTTPS))
        });
        if needs_tls { self.trust() } else { Ok(()) }
    }

    /// A client for servers that are no providers, over https as well.
    pub(crate) fn for_https() -> Result<Self, Error> {
        let client = Self::new([])?;
        client.trust()?;
        Ok(client)
    }

    fn trust(&self) -> Result<(), Error> {
        let connecting = &self.0.connector.0;
        if connecting.trusting.get().is_some() {
            return Ok(());
        }
        let trust = ClientConfig::builder()
            .try_with_platform_verifier()
            .map_err(|error| Error::Certificates(error.to_string()))?
            .with_no_client_auth();
        let connector = HttpsConnector::from((connecting.http.clone(), trust));
        connecting.trusting.get_or_init(|| connector);
        Ok(())
    }

    fn over(connector: Connector) -> Self {
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL)
            .build(connector.clone());
        Self(Arc::new(Inner { client, connector }))
    }

    /// The same with connections of its own. A connection lives on the runtime that made it, so
    /// each runtime needs a client.
    pub(crate) fn with_own_connections(&self) -> Self {
        Self::over(self.0.connector.clone())
    }

    /// Sends a request and waits for the head of the answer, at most `limit`. Dropping the future,
    /// or later the answer's body, closes the connection.
    pub(crate) async fn send(&self, request: Request<SendBody>, limit: Duration) -> Reached {
        match timeout(limit, self.0.client.request(request)).await {
            Ok(Ok(response)) => Ok(response.map(Body::Http)),
            Ok(Err(error)) => Err((failure(&error), causes(&error))),
            Err(_) => Err((
                Failure::FirstByteTimeout,
                format!("no answer within {} ms", limit.as_millis()),
            )),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

fn failure(error: &legacy::Error) -> Failure {
    if !error.is_connect() {
        return Failure::Dropped;
    }
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(error) = cause {
        if error.is::<ConnectTimeout>() {
            return Failure::ConnectTimeout;
        }
        cause = error.source();
    }
    Failure::Unreachable
}

/// The last cause, which says what happened ("connection refused") and holds no address.
fn causes(error: &dyn StdError) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

/// Connects, TLS included, within a time. Each request clones it.
#[derive(Clone)]
struct Connector(Arc<Connecting>);

struct Connecting {
    http: HttpConnector,
    /// Trusts no certificate, for as long as no provider needs one.
    plain: HttpsConnector<HttpConnector>,
    /// Trusts what the machine trusts.
    trusting: OnceLock<HttpsConnector<HttpConnector>>,
    /// How long that may take, by host and port.
    limits: ArcSwap<HashMap<Authority, Duration>>,
}

#[derive(Debug)]
struct ConnectTimeout(Duration);

impl fmt::Display for ConnectTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection within {} ms", self.0.as_millis())
    }
}

impl StdError for ConnectTimeout {}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // What is cloned for each connection always is.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Connecting { plain, trusting, limits, .. } = &*self.0;
        let mut connector = trusting.get().unwrap_or(plain).clone();
        let limit = uri.authority().and_then(|place| limits.load().get(place).copied());
        let limit = limit.unwrap_or(CONNECT_LIMIT);
        let connect = connector.call(uri);
        Box::pin(async move {
            // Not in a box of its own: the error would be one of boxes, and `failure` would not know it.
            timeout(limit, connect).await.map_err(|_| ConnectTimeout(limit))?
        })
    }
}
