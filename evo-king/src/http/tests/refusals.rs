//! What is refused, and how every answer is made.

use super::*;

#[tokio::test]
async fn every_refusal_has_the_envelope() {
    let server = Server::seeded().await;
    let json = "application/json";
    let post = |body: &str, kind: &str| {
        server
            .request(Method::POST, "/pipeline/start")
            .header("x-api-key", server.token(Scope::Operator))
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(body.to_owned()))
            .unwrap()
    };
    let get = |path: &str| {
        server
            .request(Method::GET, path)
            .header("x-api-key", server.token(Scope::Viewer))
            .body(Body::empty())
            .unwrap()
    };
    let large = "x".repeat(BODY_LIMIT + 1);
    let long_id = format!("/pipeline/runs/{}", "x".repeat(200));
    let table = [
        (get("/nothing/here"), 404, "no_such_route"),
        (get("/skills/evo-king-nothing"), 404, "not_found"),
        (get("/skills/Not%20a%20name"), 400, "invalid_parameter"),
        (get("/agents/nobody"), 404, "not_found"),
        (get("/pipeline/runs/run-1"), 404, "not_found"),
        (get(&long_id), 400, "invalid_parameter"),
        (get("/pipeline/cycles/run-1/report"), 404, "not_found"),
        (get("/pipeline/runs/a%2Fb"), 400, "invalid_parameter"),
        (get("/pipeline/runs/%ff"), 400, "invalid_parameter"),
        (get("/pipeline/runs?limit=0"), 400, "invalid_parameter"),
        (get("/pipeline/runs?limit=501"), 400, "invalid_parameter"),
        (get("/pipeline/runs?limit=-1"), 400, "invalid_parameter"),
        (get("/pipeline/runs?kind=bird"), 400, "invalid_parameter"),
        (get("/events?after=-1"), 400, "invalid_parameter"),
        (get("/events?after=x"), 400, "invalid_parameter"),
        (get("/skills?status=bird"), 400, "invalid_parameter"),
        (get("/artifacts/abc"), 400, "invalid_parameter"),
        (get(&format!("/artifacts/{}", "0".repeat(64))), 404, "not_found"),
        (get("/pipeline/start"), 405, "method_not_allowed"),
        (post("{", json), 400, "invalid_json"),
        (post("[]", json), 422, "invalid_field"),
        (post("\"{}\"", json), 422, "invalid_field"),
        (post(r#"{"idempotency_key": 7}"#, json), 422, "invalid_field"),
        (post(r#"{"trigger": {"sources": ["nowhere"]}}"#, json), 422, "invalid_field"),
        (post("{}", "text/plain"), 415, "unsupported_media_type"),
        (post(&large, json), 413, "body_too_large"),
    ];
    for (request, status, code) in table {
        let call = format!("{} {}", request.method(), request.uri());
        let answer = server.send(request).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (status, code), "{call}");
    }
    let answer = server.send(post(r#"{"idempotency_key": 7}"#, json)).await;
    assert_eq!(answer.json()["error"]["details"], json!({"field": "idempotency_key"}));
    let answer = server.get("/pipeline/runs?limit=x").await;
    assert_eq!(answer.json()["error"]["details"], json!({"parameter": "limit"}));
    let answer = server.get("/pipeline/start").await;
    assert_eq!(answer.headers[header::ALLOW], "POST");
    let strange = server.request(Method::GET, "/nothing/here").body(Body::empty()).unwrap();
    assert_eq!(server.send(strange).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_panic_becomes_a_fault_without_its_text() {
    async fn broken() -> &'static str {
        panic!("the secret reason")
    }
    let router = Router::new()
        .route("/", axum::routing::get(broken))
        .layer(CatchPanicLayer::custom(error::panicked));
    let response = router.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let body: ErrorBody = serde_json::from_slice(&body).unwrap();
    assert_eq!(body.error.code, "internal");
    assert!(!body.error.message.contains("secret"));
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_timeout() {
    let never = std::future::pending::<axum::response::Response>();
    let response = middleware::within(std::time::Duration::from_millis(1), never).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn without_tokens_no_web_page_gets_in() {
    let server = Server::with(|config| config.open = true).await;
    let port = server.king.address.port();
    let call = async |host: String, origin: Option<String>| {
        let mut request = Request::builder().uri("/agents").header(header::HOST, host);
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        let answer = server.send(request.body(Body::empty()).unwrap()).await;
        assert!(answer.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_none());
        let code = if answer.status == StatusCode::OK { String::new() } else { answer.code() };
        (answer.status.as_u16(), code)
    };
    let own = format!("localhost:{port}");
    let forbidden = |code: &str| (403, code.to_owned());
    assert_eq!(call(own.clone(), None).await, (200, String::new()));
    assert_eq!(call(own.clone(), Some(format!("http://{own}"))).await, (200, String::new()));
    let evil = || Some("https://evil.example".to_owned());
    assert_eq!(call(own, evil()).await, forbidden("origin_not_allowed"));
    let rebound = format!("evil.example:{port}");
    assert_eq!(call(rebound, None).await, forbidden("host_not_allowed"));
}

#[tokio::test]
async fn the_guard_also_covers_what_is_wrapped_around_the_routes() {
    let server = Server::with(|config| config.open = true).await;
    let router = router_around(server.king.clone(), |routes| {
        routes.layer(layer::from_fn(|request: axum::extract::Request, next: layer::Next| async {
            match request.uri().path() {
                "/socket.io/" => axum::response::IntoResponse::into_response("sockets"),
                _ => next.run(request).await,
            }
        }))
    });
    for (host, status) in [(&*server.host, 200), ("evil.example", 403)] {
        let request = Request::builder().uri("/socket.io/").header(header::HOST, host);
        let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
    }
}

#[tokio::test]
async fn requests_keep_their_id_and_answers_are_not_stored() {
    let server = Server::start().await;
    let request = server.request(Method::GET, "/health").header("x-request-id", "abc");
    let answer = server.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.headers["x-request-id"], "abc");
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    let answer = server.get("/nothing").await;
    assert!(answer.headers["x-request-id"].to_str().unwrap().starts_with("req-"));
}

#[tokio::test]
async fn health_says_when_king_drains() {
    let server = Server::start().await;
    assert_eq!(server.get("/health").await.json()["status"], "ok");
    server.king.shutdown.cancel();
    assert_eq!(server.get("/health").await.json()["status"], "draining");
}
