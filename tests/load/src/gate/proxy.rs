//! A proxy in front of the real servers, which counts the calls of each candidate and does to their
//! answers what is wrong with some of them.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use evo_agents::evaluation::oracle::has_something;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Incoming,
    header::{
        CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
        LOCATION, TRANSFER_ENCODING,
    },
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Map, Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};

/// What a server that is to become slow takes at least before that.
const QUICK: Duration = Duration::from_millis(80);
/// Calls that Pre-load makes.
pub const PROBES: u32 = 3;

/// What is wrong with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Always 200, and nothing in it: the whole answer from this call on.
    Empty { from: u32 },
    /// From the fourth call on every list and object inside of the answer is empty.
    Hollow,
    /// Three calls in ten fail.
    Flaky,
    /// After the probes it takes ten times as long as their median.
    Slow,
    /// After the probes one name is called otherwise.
    Renamed,
    /// After the probes one value is of another type.
    Retyped,
}

/// One candidate's way to its server.
#[derive(Debug)]
pub struct Route {
    target: String,
    fault: Fault,
    calls: AtomicU32,
    random: Mutex<StdRng>,
    /// How long the probes took.
    probes: Mutex<Vec<Duration>>,
}

impl Route {
    /// How much longer a slow server takes for its call of this number.
    fn pause(&self, number: u32) -> Duration {
        if number < PROBES {
            return QUICK;
        }
        let mut probes = self.probes.lock().expect("no thread panics here").clone();
        probes.sort_unstable();
        probes.get(probes.len() / 2).map_or(QUICK, |median| *median) * 10
    }

    /// Calls that came this way; one that was redirected on the way counts once.
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }
}

/// The proxy. It ends when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    inner: Arc<Inner>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Inner {
    address: String,
    client: reqwest::Client,
    routes: Mutex<HashMap<u64, Arc<Route>>>,
    next: AtomicU64,
}

impl Proxy {
    /// Starts it on a free port.
    pub async fn start() -> Result<Self> {
        evo_common::tls::install();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_gzip()
            .no_deflate()
            .no_brotli()
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build()
            .context("an HTTP client")?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("the proxy's port")?;
        let address = format!("http://{}", listener.local_addr()?);
        let inner = Inner { address, client, routes: Mutex::default(), next: AtomicU64::new(1) };
        let inner = Arc::new(inner);
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&inner).accept(listener));
        Ok(Self { inner, _tasks: tasks })
    }

    /// Where it listens.
    pub fn origin(&self) -> &str {
        &self.inner.address
    }

    /// A way of its own to `target`, and the base URL that leads there.
    pub fn route(&self, target: &str, fault: Fault, seed: u64) -> (Arc<Route>, String) {
        let route = Arc::new(Route {
            target: target.trim_end_matches('/').to_owned(),
            fault,
            calls: AtomicU32::new(0),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            probes: Mutex::default(),
        });
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        self.inner.routes.lock().expect("no thread panics here").insert(id, Arc::clone(&route));
        (route, format!("{}/m/{id}", self.inner.address))
    }
}

impl Inner {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                connection = listener.accept() => match connection {
                    Ok((stream, _)) => drop(open.spawn(Arc::clone(&self).serve(stream))),
                    Err(_) => return,
                },
                Some(_ended) = open.join_next() => {}
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(move |request| {
            let proxy = Arc::clone(&self);
            async move { Ok::<_, Infallible>(proxy.answer(request).await) }
        });
        // A client that goes away in the middle is no matter here.
        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let Some((id, rest)) = split(&path) else {
            return plain(StatusCode::NOT_FOUND, "no route");
        };
        let route = self.routes.lock().expect("no thread panics here").get(&id).cloned();
        let Some(route) = route else { return plain(StatusCode::NOT_FOUND, "no such route") };
        let number = route.calls.fetch_add(1, Ordering::Relaxed);
        if route.fault == Fault::Flaky {
            let fails = route.random.lock().expect("no thread panics here").random_bool(0.3);
            if fails {
                return plain(StatusCode::SERVICE_UNAVAILABLE, "{\"error\": \"try later\"}");
            }
        }
        let started = Instant::now();
        if route.fault == Fault::Slow {
            tokio::time::sleep(route.pause(number)).await;
        }
        let answer = self.forward(&route, id, rest, request).await;
        if number < PROBES {
            route.probes.lock().expect("no thread panics here").push(started.elapsed());
        }
        match answer {
            // The call goes on at another address of this route.
            Ok(answer) if leads_on(&answer) => {
                route.calls.fetch_sub(1, Ordering::Relaxed);
                answer
            }
            Ok(answer) => spoil(route.fault, number, answer),
            Err(error) => plain(StatusCode::BAD_GATEWAY, &format!("{error:#}")),
        }
    }

    async fn forward(
        &self,
        route: &Route,
        id: u64,
        rest: &str,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.context("the request's body")?.to_bytes();
        let mut headers = parts.headers;
        for name in [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
            headers.remove(name);
        }
        // What is changed has to be read.
        headers.remove("accept-encoding");
        let answer = self
            .client
            .request(parts.method, format!("{}{rest}", route.target))
            .headers(headers)
            .body(body)
            .send()
            .await?;
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await?;
        for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
            headers.remove(name);
        }
        self.keep_inside(route, id, &mut headers);
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// Redirects of the server lead back through the same route.
    fn keep_inside(&self, route: &Route, id: u64, headers: &mut HeaderMap) {
        let Some(to) = headers.get(LOCATION).and_then(|value| value.to_str().ok()) else { return };
        let rest = match to.strip_prefix(&route.target) {
            Some(rest) => rest,
            None if to.starts_with('/') => to,
            None => return,
        };
        let to = format!("{}/m/{id}{rest}", self.address);
        if let Ok(to) = HeaderValue::from_str(&to) {
            headers.insert(LOCATION, to);
        }
    }
}

/// `/m/<id>/rest` as id and `/rest`.
fn split(path: &str) -> Option<(u64, &str)> {
    let rest = path.strip_prefix("/m/")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Some((rest[..end].parse().ok()?, &rest[end..]))
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text.to_owned())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Whether an answer is a step on the way to the one that counts.
fn leads_on(answer: &Response<Full<Bytes>>) -> bool {
    answer.status().is_redirection() && answer.headers().contains_key(LOCATION)
}

/// Does to an answer what is wrong with the server.
fn spoil(fault: Fault, number: u32, answer: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let begins = match fault {
        Fault::None | Fault::Flaky | Fault::Slow => return answer,
        Fault::Empty { from } => from,
        Fault::Hollow | Fault::Renamed | Fault::Retyped => PROBES,
    };
    if number < begins {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    // The body of a `Full` is there at once.
    let bytes = futures_util::FutureExt::now_or_never(body.collect())
        .and_then(Result::ok)
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let json = serde_json::from_slice::<Value>(&bytes).ok();
    let spoiled = match json {
        Some(value) => Bytes::from(spoiled(fault, &value).to_string()),
        None if matches!(fault, Fault::Empty { .. }) => Bytes::new(),
        None => bytes,
    };
    if matches!(fault, Fault::Empty { .. }) {
        parts.status = StatusCode::OK;
    }
    parts.headers.remove::<HeaderName>(CONTENT_ENCODING);
    Response::from_parts(parts, Full::new(spoiled))
}

/// What a faulty server answers instead of a value; the value itself when it has nothing that could
/// be wrong in this way.
pub fn spoiled(fault: Fault, value: &Value) -> Value {
    match fault {
        Fault::None | Fault::Flaky | Fault::Slow => value.clone(),
        Fault::Empty { .. } => nothing(value),
        Fault::Hollow => hollow(value),
        Fault::Renamed => drifted(value, rename),
        Fault::Retyped => drifted(value, retype),
    }
}

fn nothing(value: &Value) -> Value {
    match value {
        Value::Array(_) => json!([]),
        Value::String(_) => json!(""),
        _ => json!({}),
    }
}

fn hollow(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let empty = |value: &Value| match value {
                Value::Array(_) => json!([]),
                Value::Object(_) => json!({}),
                other => other.clone(),
            };
            map.iter().map(|(name, value)| (name.clone(), empty(value))).collect()
        }
        Value::Array(_) => json!([]),
        other => other.clone(),
    }
}

/// Changes the first name that stands for something, in the object or in each object of a list.
fn drifted(value: &Value, change: fn(&mut Map<String, Value>, &str)) -> Value {
    match value {
        Value::Object(map) => {
            let name = map.iter().find(|(_, value)| has_something(value, ""));
            let mut changed = map.clone();
            if let Some((name, _)) = name {
                change(&mut changed, name);
            }
            Value::Object(changed)
        }
        Value::Array(list) => list.iter().map(|item| drifted(item, change)).collect(),
        other => other.clone(),
    }
}

fn rename(map: &mut Map<String, Value>, name: &str) {
    if let Some(value) = map.shift_remove(name) {
        map.insert(format!("{name}_v2"), value);
    }
}

fn retype(map: &mut Map<String, Value>, name: &str) {
    let other = match map.get(name) {
        Some(Value::String(_)) => json!({ "value": 1 }),
        _ => json!("changed"),
    };
    map.insert(name.to_owned(), other);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_change_what_they_say() {
        let value = json!({"a": "x", "b": [1], "c": {"d": 1}});
        assert_eq!(spoiled(Fault::Empty { from: 0 }, &value), json!({}));
        assert_eq!(spoiled(Fault::Hollow, &value), json!({"a": "x", "b": [], "c": {}}));
        assert_eq!(spoiled(Fault::Renamed, &value)["a_v2"], "x");
        assert_eq!(spoiled(Fault::Retyped, &value)["a"], json!({"value": 1}));
        let list = json!([{"n": 1}]);
        assert_eq!(spoiled(Fault::Renamed, &list), json!([{"n_v2": 1}]));
        assert_eq!(spoiled(Fault::Retyped, &list), json!([{"n": "changed"}]));
        assert_eq!(spoiled(Fault::Renamed, &json!([])), json!([]), "there is nothing to change");
    }

    #[test]
    fn a_redirect_is_no_answer_of_its_own() {
        let answer = |status, headers: &[(HeaderName, &str)]| {
            let mut answer = plain(status, "");
            for (name, value) in headers {
                answer.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
            }
            leads_on(&answer)
        };
        assert!(answer(StatusCode::FOUND, &[(LOCATION, "/get")]));
        assert!(!answer(StatusCode::FOUND, &[]));
        assert!(!answer(StatusCode::CREATED, &[(LOCATION, "/get")]));
    }

    #[test]
    fn a_route_is_the_first_part_of_the_path() {
        assert_eq!(split("/m/12/a/b?c=1"), Some((12, "/a/b?c=1")));
        assert_eq!(split("/m/12?c"), Some((12, "?c")));
        assert_eq!(split("/other"), None);
    }
}
