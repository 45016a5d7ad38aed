//! The gateway over real sockets, before providers that do what a test says.

mod answers;
mod api;
mod cache;
mod counted;
mod credentials;
mod engine;
mod failover;
mod fronts;
mod gone;
mod health;
mod keys;
mod log;
mod refusals;
mod reload;
mod streams;
mod task_rules;
mod tasks;
mod traces;

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, Response, StatusCode, Uri},
};
use bytes::Bytes;
use evo_common::{
    config::{GatewayConfig, load},
    runtime::Shutdown,
    tokens::Tokens,
};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{App, Config};

const GIVE_UP: Duration = Duration::from_secs(30);

/// A request that a provider got.
#[derive(Debug, Clone)]
struct Seen {
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A provider that answers as a test says, and remembers what it was asked.
struct Fake {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _tasks: JoinSet<()>,
}

impl Fake {
    async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(Seen) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = seen.clone();
        let app = axum::Router::new().fallback(move |request: Request<Body>| {
            let (answer, log) = (answer.clone(), log.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let seen = Seen { uri: parts.uri, headers: parts.headers, body };
                if parts.method == Method::GET {
                    // The list of models that the gateway reads in the background.
                    return Response::new(Body::from(r#"{"data":[{"id":"listed"}]}"#));
                }
                log.lock().unwrap().push(seen.clone());
                answer(seen).await
            }
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, seen, _tasks: tasks }
    }

    /// Always the same answer.
    async fn says(status: u16, headers: &[(&'static str, &str)], body: &str) -> Self {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let body = body.to_owned();
        Self::start(move |_| {
            let mut response = Response::builder().status(status);
            for (name, value) in &headers {
                response = response.header(*name, value);
            }
            let response = response.body(Body::from(body.clone())).unwrap();
            async move { response }
        })
        .await
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn last(&self) -> Seen {
        self.seen().pop().expect("the provider was asked nothing")
    }

    /// As a provider of the configuration.
    fn provider(&self, name: &str, kind: &str) -> Value {
        provider_at(&format!("http://{}/v1", self.address), name, kind)
    }
}

fn provider_at(base_url: &str, name: &str, kind: &str) -> Value {
    json!({"name": name, "base_url": base_url, "enabled": true, "provider_type": kind})
}

const OPENAI: &str = "open_ai_compatible";
const ANTHROPIC: &str = "anthropic";

/// A configuration with these providers. Keys are what the names of their variables say.
fn config(providers: &[Value]) -> Config {
    let text = json!({
        "server": {"host": "127.0.0.1", "port": 0},
        "providers": providers,
        // Each request once, and all of them.
        "reliability": {"max_retries": 0, "rescue": false, "breaker": {"failures": 0}},
    });
    let gateway: GatewayConfig =
        load::parse_valid(&text.to_string(), load::Format::Json, "gateway.json").unwrap();
    let mut config = Config::new(gateway, &Tokens::generate()).unwrap();
    for provider in &config.gateway.providers {
        for name in provider.api_key_envs.iter().filter(|name| !name.contains("UNSET")) {
            config.provider_keys.insert(name.clone(), format!("secret-{name}").into());
        }
    }
    config.listen = "127.0.0.1:0".parse().unwrap();
    config
}

/// A running gateway.
struct Bed {
    address: SocketAddr,
    token: String,
    shutdown: Shutdown,
    tasks: JoinSet<()>,
    client: legacy::Client<HttpConnector, Full<Bytes>>,
}

/// An answer, read whole.
#[derive(Debug)]
struct Got {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    /// Whether the body came to its end.
    whole: bool,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Bed {
    async fn start(config: Config) -> Self {
        let token = config.auth.gateway.as_ref().map_or("", |token| token.expose()).to_owned();
        let app = App::start(config).await.unwrap();
        let (address, shutdown) = (app.address(), Shutdown::new());
        let mut tasks = JoinSet::new();
        let stop = shutdown.clone();
        tasks.spawn(async move { app.run(stop).await.unwrap() });
        let client = legacy::Client::builder(TokioExecutor::new()).build_http();
        Self { address, token, shutdown, tasks, client }
    }

    /// With one provider that speaks OpenAI's protocol.
    async fn before(fake: &Fake) -> Self {
        Self::start(config(&[fake.provider("p", OPENAI)])).await
    }

    /// Ends it and waits for that.
    async fn stop(mut self) {
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("authorization", format!("Bearer {}", self.token))
    }

    async fn open(&self, request: Request<Full<Bytes>>) -> Response<hyper::body::Incoming> {
        tokio::time::timeout(GIVE_UP, self.client.request(request)).await.unwrap().unwrap()
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Got {
        let (parts, mut body) = self.open(request).await.into_parts();
        let (mut bytes, mut whole) = (Vec::new(), true);
        while let Some(frame) = tokio::time::timeout(GIVE_UP, body.frame()).await.unwrap() {
            match frame {
                Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap()),
                Err(_) => {
                    whole = false;
                    break;
                }
            }
        }
        Got { status: parts.status, headers: parts.headers, body: bytes.into(), whole }
    }

    async fn get(&self, path: &str) -> Got {
        self.send(self.request("GET", path).body(Full::default()).unwrap()).await
    }

    async fn post(&self, path: &str, body: impl Into<Bytes>) -> Got {
        self.send(self.request("POST", path).body(Full::new(body.into())).unwrap()).await
    }

    async fn chat(&self, body: &Value) -> Got {
        self.post("/v1/chat/completions", body.to_string()).await
    }

    async fn messages(&self, body: &Value) -> Got {
        self.post("/v1/messages", body.to_string()).await
    }

    /// A request as bytes on a connection of its own.
    async fn raw(&self, path: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {}\r\ncontent-length: {}\r\n\r\n",
            self.token,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        stream
    }
}

/// A chat request for a model.
fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]})
}

/// The same for Anthropic's protocol.
fn message(model: &str) -> Value {
    json!({"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]})
}

fn streamed(mut body: Value) -> Value {
    body["stream"] = true.into();
    body
}

/// Waits until something is so.
async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(GIVE_UP, wait).await.expect("it never happened");
}

/// A provider on a bare socket: `serve` gets each connection after one request has come in.
async fn bare<F, A>(serve: F) -> (SocketAddr, JoinSet<()>)
where
    F: Fn(TcpStream) -> A + Send + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 8192];
            let length = stream.read(&mut request).await.unwrap();
            if request.starts_with(b"GET") || length == 0 {
                continue;
            }
            connections.spawn(serve(stream));
        }
    });
    (address, tasks)
}
