//! The HTTP server behind a fake: it records, and does with a connection what it is told.

use std::{
    convert::Infallible,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    Response,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet};

use super::stream::Step;

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `POST`, …
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// What stands behind the `?`; empty without one.
    pub query: String,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// The bytes of the body.
    pub body: Bytes,
}

impl Request {
    /// The first header of this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What the server does about a request.
#[derive(Debug)]
pub(crate) enum Reply {
    Answer(Sent),
    /// Never a byte.
    Silence,
    /// The connection is closed.
    Drop,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    /// Time before the first byte.
    pub(super) delay: Duration,
    pub(super) steps: Vec<Step>,
}

impl Reply {
    /// A whole answer at once.
    pub(crate) fn whole(
        status: u16,
        mut headers: Vec<(&'static str, String)>,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Self {
        let body = body.into();
        headers.push(("content-type", content_type.to_owned()));
        headers.push(("content-length", body.len().to_string()));
        let steps = vec![Step::Send(body)];
        Self::Answer(Sent { status, headers, delay: Duration::ZERO, steps })
    }
}

/// Decides about a request; `earlier` are those that came before it.
pub(crate) trait Api: Send + Sync + 'static {
    fn reply(&self, request: &Request, earlier: &[Request]) -> Reply;
}

/// A running server; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    seen: Arc<Seen>,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    requests: Mutex<Vec<Request>>,
    cancelled: Mutex<Vec<Request>>,
}

impl Server {
    /// Starts one on a free port. It has a thread of its own, so that a test may block.
    pub(crate) fn start(name: &'static str, api: impl Api) -> Self {
        Self::start_at(0, name, api)
    }

    /// [`Self::start`] on a port that was in use before; 0 takes a free one.
    pub(crate) fn start_at(port: u16, name: &'static str, api: impl Api) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = listener.expect("a free port on loopback");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let address = listener.local_addr().expect("the address of a bound socket");
        let seen = Arc::new(Seen::default());
        let (stop, stopped) = oneshot::channel();
        let service = Arc::new(Service { api, seen: Arc::clone(&seen) });
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let serve = async {
                let listener = TcpListener::from_std(listener).expect("a socket for tokio");
                tokio::select! {
                    () = accept(listener, service) => (),
                    // An error says that the server was dropped, which is the only message.
                    Err(_) = stopped => (),
                }
            };
            runtime.expect("a runtime").block_on(serve);
        });
        let thread = Some(thread.expect("a thread"));
        Self { address, seen, stop: Some(stop), thread }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        locked(&self.seen.requests).clone()
    }

    pub(super) fn cancelled(&self) -> Vec<Request> {
        locked(&self.seen.cancelled).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(!matches!(ended, Some(Err(_))), "a fake provider panicked");
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Service<A> {
    api: A,
    seen: Arc<Seen>,
}

async fn accept<A: Api>(listener: TcpListener, service: Arc<Service<A>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, _) = accepted.expect("a connection");
                socket.set_nodelay(true).expect("a socket option");
                let service = Arc::clone(&service);
                let handle = service_fn(move |request| Arc::clone(&service).handle(request));
                let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), handle);
                // How a connection ends is up to the client, or to the fault that was asked for.
                connections.spawn(async move { drop(connection.await) });
            }
            Some(ended) = connections.join_next() => ended.expect("no panic in a fake provider"),
        }
    }
}

/// Ends a connection without an answer, or in the middle of one.
#[derive(Debug)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken on purpose")
    }
}

impl std::error::Error for Broken {}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Broken>;

impl<A: Api> Service<A> {
    async fn handle(
        self: Arc<Self>,
        request: hyper::Request<Incoming>,
    ) -> Result<Response<Body>, Broken> {
        let (parts, body) = request.into_parts();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let headers = parts.headers.iter();
        let request = Request {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: headers
                .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
                .collect(),
            body: body.collect().await.map_err(|_| Broken)?.to_bytes(),
        };
        let mut open = Open(Some((request.clone(), Arc::clone(&self.seen))));
        let reply = {
            let mut requests = locked(&self.seen.requests);
            let reply = self.api.reply(&request, &requests);
            requests.push(request);
            reply
        };
        match reply {
            Reply::Silence => std::future::pending().await,
            Reply::Drop => {
                open.done();
                Err(Broken)
            }
            Reply::Answer(sent) => {
                tokio::time::sleep(sent.delay).await;
                let mut response = Response::builder().status(sent.status);
                for (name, value) in sent.headers {
                    response = response.header(name, value);
                }
                let body = StreamBody::new(send(sent.steps, open)).boxed_unsync();
                Ok(response.body(body).expect("headers of this file's neighbours are valid"))
            }
        }
    }
}

fn send(steps: Vec<Step>, open: Open) -> impl Stream<Item = Result<Frame<Bytes>, Broken>> + Send {
    stream::unfold((steps.into_iter(), open), async |(mut steps, mut open)| {
        loop {
            let step = steps.next();
            let more = steps.as_slice().iter().any(|step| !matches!(step, Step::Pause(_)));
            // Nobody asks again after the last byte that the headers promise.
            if !more && !matches!(step, Some(Step::Stall)) {
                open.done();
            }
            match step? {
                Step::Send(bytes) => return Some((Ok(Frame::data(bytes)), (steps, open))),
                Step::Pause(time) => tokio::time::sleep(time).await,
                Step::Stall => std::future::pending().await,
                Step::Cut => return Some((Err(Broken), (steps, open))),
            }
        }
    })
}

/// A request whose answer is not out yet; dropped like that, it was cancelled.
struct Open(Option<(Request, Arc<Seen>)>);

impl Open {
    fn done(&mut self) {
        self.0 = None;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some((request, seen)) = self.0.take() {
            locked(&seen.cancelled).push(request);
        }
    }
}
