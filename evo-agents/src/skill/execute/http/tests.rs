//! Calls against a server on loopback.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request as Received, State},
    http::{HeaderMap as Headers, StatusCode as Status, header},
    response::{IntoResponse, Redirect, Response as Answer},
    routing::{any, get},
};
use evo_common::{skill::files, tokens::Secret};
use futures_util::stream;
use serde_json::{Map, json};

use super::{
    super::{Executor, ExecutorConfig},
    *,
};

type Seen = Arc<Mutex<Vec<(String, Headers)>>>;

/// Remembers what came, then answers by path.
async fn remember(State(seen): State<Seen>, request: Received) -> Answer {
    let path = request.uri().to_string();
    seen.lock().unwrap().push((path, request.headers().clone()));
    "seen".into_response()
}

fn endless(content_type: &'static str) -> Answer {
    let chunks = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok::<_, Infallible>(Bytes::from_static(b"tick\n")), ()))
    });
    ([(header::CONTENT_TYPE, content_type)], Body::from_stream(chunks)).into_response()
}

fn routes(seen: &Seen, other: Option<SocketAddr>) -> Router {
    let elsewhere = other.map(|other| format!("http://{other}/seen")).unwrap_or_default();
    Router::new()
        .route("/json", get(|| async { axum::Json(json!({"a": [1]})) }))
        .route(
            "/problem",
            get(|| async {
                let kind = [(header::CONTENT_TYPE, "Application/Problem+JSON; charset=utf-8")];
                (Status::NOT_FOUND, kind, "{\"title\":\"gone\"}")
            }),
        )
        .route("/text", get(|| async { "123" }))
        .route("/broken", get(|| async { ([(header::CONTENT_TYPE, "application/json")], "{a") }))
        .route(
            "/bytes",
            get(|| async { ([(header::CONTENT_TYPE, "image/png")], vec![0xff_u8, 0, 1]) }),
        )
        .route("/empty", any(|| async { Status::NO_CONTENT }))
        .route("/events", get(|| async { endless("text/event-stream; charset=utf-8") }))
        .route("/endless", get(|| async { endless("text/plain") }))
        .route(
            "/slow",
            get(|| async {
                tokio::time::sleep(Duration::from_secs(30)).await;
                "late"
            }),
        )
        .route("/large", get(|| async { "x".repeat(2_000) }))
        .route(
            "/large-chunked",
            get(|| async {
                let chunks = stream::iter((0..20).map(|_| Ok::<_, Infallible>("x".repeat(100))));
                Body::from_stream(chunks).into_response()
            }),
        )
        .route("/loop", get(|| async { Redirect::temporary("/loop") }))
        .route("/near", any(|| async { Redirect::temporary("/seen?near") }))
        .route("/far", get(move || async move { Redirect::temporary(&elsewhere) }))
        .route("/inside", get(|| async { Redirect::temporary("http://169.254.169.254/meta?k=v") }))
        .fallback(any(remember))
        .with_state(Arc::clone(seen))
}

async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

struct Server {
    address: SocketAddr,
    seen: Seen,
}

async fn server() -> Server {
    let seen = Seen::default();
    let address = serve(routes(&seen, None)).await;
    Server { address, seen }
}

impl Server {
    fn policy(&self) -> CallPolicy {
        CallPolicy {
            allow_origins: vec![format!("http://{}", self.address)],
            token_origins: vec![format!("http://{}", self.address)],
            allow_env: vec!["KEY".to_owned()],
            ..CallPolicy::default()
        }
    }

    fn seen(&self) -> Vec<(String, Headers)> {
        self.seen.lock().unwrap().clone()
    }
}

fn executor() -> Executor {
    Executor::new(ExecutorConfig {
        viewer_token: Some(Secret::new("viewer-secret")),
        gateway_token: None,
        env: Arc::new(|name| (name == "KEY").then(|| "user:key-secret".to_owned())),
        ..ExecutorConfig::default()
    })
}

fn package(method: &str, url: &str, top: &str, extra: &str) -> Package {
    let manifest = "name = \"a\"\nversion = \"0.1.0\"\ndescription = \"\"\ncapabilities = []\ninputs = []\noutputs = []\n";
    let config = format!(
        "{top}\n[[endpoints]]\nname = \"call\"\nurl = \"{url}\"\nmethod = \"{method}\"\n[extra]\n{extra}"
    );
    let files = [
        (files::MANIFEST.to_owned(), manifest.as_bytes().to_vec()),
        (files::CONFIG.to_owned(), config.into_bytes()),
    ];
    Package::from_files(files.into()).unwrap()
}

impl Server {
    async fn call(
        &self,
        method: &str,
        path: &str,
        top: &str,
        extra: &str,
    ) -> Result<CallAnswer, CallError> {
        let package = package(method, &format!("http://{}{path}", self.address), top, extra);
        executor().call(&package, &Map::new(), &self.policy()).await
    }

    async fn get(&self, path: &str) -> CallAnswer {
        self.call("GET", path, "", "").await.unwrap()
    }

    async fn fault(&self, path: &str, extra: &str) -> CallError {
        self.call("GET", path, "", extra).await.unwrap_err()
    }
}

#[tokio::test]
async fn bodies_are_read_by_their_content_type() {
    let server = server().await;
    let answer = server.get("/json").await;
    assert_eq!((answer.status, answer.bytes), (200, 9));
    assert_eq!(answer.content_type.as_deref(), Some("application/json"));
    assert_eq!(answer.body, json!({"a": [1]}));
    let answer = server.get("/problem").await;
    assert_eq!((answer.status, answer.body), (404, json!({"title": "gone"})));
    assert_eq!(answer.content_type.as_deref(), Some("application/problem+json"));
    assert_eq!(server.get("/text").await.body, json!("123"));
    assert_eq!(server.get("/broken").await.body, json!("{a"));
    assert_eq!(server.get("/bytes").await.body, json!("/wAB"));
    let empty = server.get("/empty").await;
    assert_eq!((empty.status, empty.body, empty.content_type), (204, Value::Null, None));
}

#[tokio::test]
async fn slow_large_and_endless_answers_end_with_their_reason() {
    let server = server().await;
    assert_eq!(server.fault("/slow", "timeout_ms = 100").await, CallError::Timeout { ms: 100 });
    assert_eq!(server.fault("/endless", "timeout_ms = 200").await, CallError::Streaming);
    assert_eq!(server.fault("/events", "").await, CallError::Streaming);
    for path in ["/large", "/large-chunked", "/endless"] {
        assert_eq!(
            server.fault(path, "max_response_bytes = 1000").await,
            CallError::TooLarge { limit: 1000 },
            "{path}"
        );
    }
    let policy = CallPolicy { timeout_cap_ms: Some(50), ..server.policy() };
    let slow = package("GET", &format!("http://{}/slow", server.address), "", "");
    let error = executor().call(&slow, &Map::new(), &policy).await.unwrap_err();
    assert_eq!(error, CallError::Timeout { ms: 50 });
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let policy =
        CallPolicy { allow_origins: vec![format!("http://{address}")], ..CallPolicy::default() };
    let package = package("GET", &format!("http://{address}/"), "", "");
    let error = executor().call(&package, &Map::new(), &policy).await.unwrap_err();
    assert_eq!(error.code(), "unreachable");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn addresses_that_nobody_listed_are_not_called() {
    let server = server().await;
    let port = server.address.port();
    for host in ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]"] {
        let package = package("GET", &format!("http://{host}:{port}/seen"), "", "");
        let error =
            executor().call(&package, &Map::new(), &CallPolicy::default()).await.unwrap_err();
        assert_eq!(error.code(), "origin_not_allowed", "{host}: {error}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn tokens_are_sent_as_declared() {
    let server = server().await;
    for scheme in ["bearer", "basic", "header:X-Key", "query:key"] {
        let extra = format!("auth_scheme = \"{scheme}\"");
        server.call("GET", "/seen?a=1", "auth_ref = \"KEY\"", &extra).await.unwrap();
    }
    let seen = server.seen();
    let header = |index: usize, name: &str| seen[index].1.get(name).unwrap().to_str().unwrap();
    assert_eq!(header(0, "authorization"), "Bearer user:key-secret");
    assert_eq!(header(1, "authorization"), "Basic dXNlcjprZXktc2VjcmV0");
    assert_eq!(header(2, "x-key"), "user:key-secret");
    assert_eq!(seen[3].0, "/seen?a=1&key=user%3Akey-secret");
    let error = server.call("GET", "/seen", "auth_ref = \"HOME\"", "").await.unwrap_err();
    assert_eq!(error.code(), "auth_not_allowed");
    let error =
        server.call("GET", "/seen", "auth_ref = \"EVO_VIEWER_TOKEN\"", "").await.unwrap_err();
    assert_eq!(error.code(), "auth_not_allowed");
}

#[tokio::test]
async fn errors_hold_no_token() {
    let policy = CallPolicy {
        allow_origins: vec!["http://127.0.0.1:9".to_owned()],
        token_origins: vec!["http://127.0.0.1:9".to_owned()],
        allow_env: vec!["KEY".to_owned()],
        ..CallPolicy::default()
    };
    let top = "auth_ref = \"KEY\"";
    let package = package("GET", "http://127.0.0.1:9/p", top, "auth_scheme = \"query:key\"");
    let error = executor().call(&package, &Map::new(), &policy).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("key-secret"), "{error}");
    assert!(!format!("{:?}", executor()).contains("viewer-secret"));
}

#[tokio::test]
async fn redirects_are_followed_with_care() {
    let target = server().await;
    let seen = Seen::default();
    let address = serve(routes(&seen, Some(target.address))).await;
    let server = Server { address, seen };
    let top = "auth_ref = \"KEY\"";

    server.call("GET", "/near", top, "").await.unwrap();
    let near = server.seen();
    assert_eq!(near[0].0, "/seen?near");
    assert!(near[0].1.contains_key("authorization"), "the same origin keeps the token");

    let error = server.call("GET", "/far", top, "").await.unwrap_err();
    assert_eq!(error.code(), "origin_not_allowed", "the next hop is checked too");

    let mut policy = server.policy();
    policy.allow_origins.push(format!("http://{}", target.address));
    let headers = "[extra.headers]\nCookie = \"s=1\"\nX-Api-Key = \"k\"\nAccept = \"text/plain\"";
    let far = package("GET", &format!("http://{address}/far"), top, headers);
    executor().call(&far, &Map::new(), &policy).await.unwrap();
    let seen = &target.seen()[0].1;
    for header in ["authorization", "cookie", "x-api-key"] {
        assert!(!seen.contains_key(header), "another origin never sees {header}");
    }
    assert_eq!(seen["accept"], "text/plain");

    let error = server.fault("/inside", "").await;
    assert_eq!(error.code(), "origin_not_allowed");
    assert_eq!(server.fault("/loop", "").await.code(), "redirect");
    let error = server.call("POST", "/near", "", "").await.unwrap_err();
    assert_eq!(error, CallError::Redirected { to: format!("http://{address}/seen") });
}

#[tokio::test]
async fn documents_are_fetched_with_kings_token_from_king_only() {
    let server = server().await;
    let base = format!("http://{}", server.address);
    let policy = CallPolicy {
        servers: [("evo-king".to_owned(), base.clone())].into(),
        ..CallPolicy::default()
    };
    let document = executor().get_document(&format!("{base}/seen"), &policy).await.unwrap();
    assert_eq!(document, b"seen");
    assert_eq!(server.seen()[0].1["authorization"], "Bearer viewer-secret");
    executor().get_document(&format!("{base}/seen"), &server.policy()).await.unwrap();
    assert!(!server.seen()[1].1.contains_key("authorization"));
    let error = executor().get_document(&format!("{base}/problem"), &policy).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("unreachable: {base}/problem answered HTTP 404 Not Found")
    );
    assert_eq!(
        executor().get_document("http://10.0.0.1/x", &policy).await.unwrap_err().code(),
        "origin_not_allowed"
    );
}

#[tokio::test]
async fn a_read_is_repeated_and_a_write_never() {
    let tries = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let busy = move || {
        let count = counted.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            let status =
                if count.is_multiple_of(3) { Status::OK } else { Status::SERVICE_UNAVAILABLE };
            (status, axum::Json(json!({"data": {"count": count}}))).into_response()
        }
    };
    let address = serve(Router::new().route("/busy", any(busy))).await;
    let server = Server { address, seen: Seen::default() };
    let answer = server.call("GET", "/busy", "", "retries = 2").await.unwrap();
    assert_eq!((answer.status, answer.body), (200, json!({"data": {"count": 3}})));
    let answer = server.call("GET", "/busy", "", "retries = 1").await.unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(server.call("POST", "/busy", "", "retries = 3").await.unwrap().status, 200);
    assert_eq!(server.call("POST", "/busy", "", "retries = 3").await.unwrap().status, 503);
    assert_eq!(tries.load(Ordering::Relaxed), 7);
}

#[tokio::test]
async fn a_try_that_is_broken_on_purpose_is_not_sent_and_a_retry_is() {
    let server = server().await;
    let call = async |method: &str, retries: u8, fault| {
        let url = format!("http://{}/seen", server.address);
        let package = package(method, &url, "", &format!("retries = {retries}"));
        let policy = CallPolicy { fault: Some(fault), ..server.policy() };
        let answer = executor().call(&package, &Map::new(), &policy).await;
        answer.map(|answer| answer.status).map_err(|error| error.code())
    };
    for fault in [Fault::Lost, Fault::Unavailable] {
        assert_eq!(call("GET", 1, fault).await, Ok(200));
    }
    assert_eq!(server.seen().len(), 2);
    assert_eq!(call("GET", 0, Fault::Lost).await, Err("unreachable"));
    assert_eq!(call("GET", 0, Fault::Unavailable).await, Ok(503));
    assert_eq!(call("POST", 3, Fault::Unavailable).await, Ok(503));
    assert_eq!(server.seen().len(), 2, "nothing was sent");
}

#[tokio::test]
async fn what_a_skill_gives_may_lie_inside_of_the_answer() {
    let server = server().await;
    let given = |path: &'static str, pointer: &'static str| {
        let server = &server;
        async move {
            let extra = format!("output = {pointer:?}");
            server.call("GET", path, "", &extra).await.unwrap().body
        }
    };
    assert_eq!(given("/json", "/a/0").await, json!(1));
    assert_eq!(given("/json", "/b").await, Value::Null);
    // What went wrong is told as it is.
    assert_eq!(given("/problem", "/a").await, json!({"title": "gone"}));
}
