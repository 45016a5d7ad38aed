use std::sync::{
    Mutex as StdMutex,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use chrono::DateTime;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_tungstenite::tungstenite::{
    Message,
    handshake::server::{ErrorResponse, Request as Handshake, Response as Agreed},
};

use super::*;
use crate::{
    config::CodexTransport,
    provider::fake::{Asked, Fake},
    upstream::{Body, Deadlines, Failure, Lenient, Reached, SendBody, Transport as _},
};

const DEADLINES: Deadlines = Deadlines { first_byte: std::time::Duration::from_secs(20) };

fn client() -> Client {
    Client::new([]).unwrap()
}

/// A token that ends after so many seconds.
fn token(name: &str, seconds: i64) -> String {
    jwt::of(&json!({ "exp": Utc::now().timestamp() + seconds, "sub": name }))
}

fn signed_in(name: &str, seconds: i64) -> SignedIn {
    let access_token = token(name, seconds);
    SignedIn {
        expires_at: jwt::claims(&access_token).expires_at,
        access_token,
        refresh_token: Some(format!("refresh-{name}")),
        account_id: Some("acc-1".to_owned()),
        email: Some("me@example.com".to_owned()),
        updated_at: Utc::now(),
    }
}

struct Bed {
    folder: tempfile::TempDir,
    account: Account,
    client: Client,
}

impl Bed {
    /// Somebody who signed in, and whoever refreshes tokens.
    fn new(kept: Option<&SignedIn>, issuer: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials.json");
        if let Some(kept) = kept {
            Store::new(file.clone()).save("codex-auth", kept).unwrap();
        }
        let sign_in =
            SignIn { file: Some(file), codex_issuer: issuer.to_owned(), ..SignIn::default() };
        let account = Account::new("codex-auth", CHATGPT, None, &sign_in);
        Self { folder, account, client: client() }
    }

    fn store(&self) -> Store {
        Store::new(self.folder.path().join("credentials.json"))
    }

    async fn access(&self) -> Result<Access, String> {
        self.account.access(&self.client).await
    }
}

fn bearer(access: &Access) -> String {
    let header = access.headers.iter().find(|(name, _)| *name == header::AUTHORIZATION);
    header.unwrap().1.to_str().unwrap().to_owned()
}

/// Answers each refresh with the next token and the next refresh token.
async fn issuer() -> Fake {
    let count = AtomicUsize::new(0);
    Fake::start(move |asked| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        assert_eq!(asked.path, "/oauth/token");
        let tokens = json!({
            "access_token": token(&format!("new-{number}"), 3_600),
            "refresh_token": format!("next-{number}"),
        });
        (200, tokens.to_string())
    })
    .await
}

#[tokio::test]
async fn a_token_that_is_good_is_used_as_it_is() {
    let kept = signed_in("old", 3_600);
    let bed = Bed::new(Some(&kept), "http://127.0.0.1:9");
    let access = bed.access().await.unwrap();
    assert_eq!(bearer(&access), format!("Bearer {}", kept.access_token));
    let account = access.headers.iter().find(|(name, _)| *name == ACCOUNT).unwrap();
    assert_eq!(account.1, "acc-1");
    let address = access.address.unwrap();
    assert_eq!(address.generate, "https://chatgpt.com/backend-api/codex/responses");
    assert_eq!(address.dialect, Dialect::OpenAiResponses);
    assert!(!format!("{:?}", bed.account).contains(&kept.access_token));

    // Whoever signs in while the gateway runs is taken at once.
    let other = SignedIn { account_id: None, ..signed_in("other", 3_600) };
    std::thread::sleep(std::time::Duration::from_millis(20));
    bed.store().save("codex-auth", &other).unwrap();
    let access = bed.access().await.unwrap();
    assert_eq!(bearer(&access), format!("Bearer {}", other.access_token));
    assert_eq!(access.address.unwrap().generate, "https://api.openai.com/v1/responses");
}

#[tokio::test]
async fn a_token_is_refreshed_once_for_all_before_it_ends_and_the_next_one_is_kept() {
    let issuer = issuer().await;
    let bed = Bed::new(Some(&signed_in("old", 60)), &issuer.url(""));
    let all = futures_util::future::join_all((0..20).map(|_| bed.access())).await;
    let first = bearer(all[0].as_ref().unwrap());
    assert!(all.iter().all(|access| bearer(access.as_ref().unwrap()) == first));
    let asked = issuer.asked();
    assert_eq!(asked.len(), 1);
    let body = asked[0].json();
    assert_eq!(
        (&body["grant_type"], &body["refresh_token"]),
        (&json!("refresh_token"), &json!("refresh-old"))
    );
    let kept = bed.store().load("codex-auth").unwrap().unwrap();
    assert_eq!(kept.refresh_token.as_deref(), Some("next-0"));
    assert_eq!(
        (kept.account_id.as_deref(), kept.email.as_deref()),
        (Some("acc-1"), Some("me@example.com"))
    );

    // The provider does not accept it: once more, with the refresh token that came last.
    bed.account.refused(all[0].as_ref().unwrap());
    let second = bed.access().await.unwrap();
    assert_ne!(bearer(&second), first);
    assert_eq!(issuer.asked()[1].json()["refresh_token"], "next-0");
    bed.account.refused(all[0].as_ref().unwrap());
    assert_eq!(bearer(&bed.access().await.unwrap()), bearer(&second));
}

/// A login server that takes each refresh token once, as OpenAI's does, and is slow about it.
async fn strict_issuer() -> Fake {
    let next = AtomicUsize::new(0);
    Fake::start(move |asked| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let number = next.fetch_add(1, Ordering::SeqCst);
        let expected =
            if number == 0 { "refresh-old".to_owned() } else { format!("next-{number}") };
        if asked.json()["refresh_token"] != expected.as_str() {
            return (401, r#"{"error":"refresh_token_reused"}"#.to_owned());
        }
        let tokens = json!({
            "access_token": token(&format!("new-{number}"), 3_600),
            "refresh_token": format!("next-{}", number + 1),
        });
        (200, tokens.to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_gateways_on_one_folder_one_spends_the_refresh_token() {
    let issuer = strict_issuer().await;
    let bed = Bed::new(Some(&signed_in("old", 60)), &issuer.url(""));
    let file = bed.folder.path().join("credentials.json");
    let sign_in = SignIn { file: Some(file), codex_issuer: issuer.url(""), ..SignIn::default() };
    // What two processes have of each other is the file.
    let other = Account::new("codex-auth", CHATGPT, None, &sign_in);
    let (first, second) = tokio::join!(bed.access(), other.access(&bed.client));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(bearer(&first), bearer(&second));
    assert_eq!(issuer.asked().len(), 1);
    // Each of them is refused with it at the same time.
    bed.account.refused(&first);
    other.refused(&second);
    let (first, second) = tokio::join!(bed.access(), other.access(&bed.client));
    assert_eq!(bearer(&first.unwrap()), bearer(&second.unwrap()));
    assert_eq!(issuer.asked().len(), 2);
    assert_eq!(
        bed.store().load("codex-auth").unwrap().unwrap().refresh_token.as_deref(),
        Some("next-2")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_for_a_refresh_token_is_kept_also_when_the_caller_has_left() {
    let issuer = strict_issuer().await;
    let bed = Bed::new(Some(&signed_in("old", 60)), &issuer.url(""));
    let asked = async {
        while issuer.asked().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        _ = bed.access() => panic!("it was answered before it could leave"),
        () = asked => {}
    }
    // The next one goes on with it, and asks nobody again.
    let access = bed.access().await.unwrap();
    assert_eq!(issuer.asked().len(), 1);
    let kept = bed.store().load("codex-auth").unwrap().unwrap();
    assert_eq!(bearer(&access), format!("Bearer {}", kept.access_token));
    assert_eq!(kept.refresh_token.as_deref(), Some("next-1"));
}

#[tokio::test]
async fn who_can_not_come_in_is_told_what_to_do() {
    let bed = Bed::new(None, "http://127.0.0.1:9");
    let error = bed.access().await.unwrap_err();
    assert_eq!(error, "is not signed in: run `evo gateway auth codex-auth`");
    let refusing = Fake::start(|_| (401, r#"{"error":"refresh_token_reused"}"#.to_owned())).await;
    let bed = Bed::new(Some(&signed_in("old", -60)), &refusing.url(""));
    let error = bed.access().await.unwrap_err();
    assert!(error.contains("any more") && error.contains("--force"), "{error}");
    // A login server that is away costs nothing while the token has minutes left.
    let kept = signed_in("old", 60);
    let bed = Bed::new(Some(&kept), "http://127.0.0.1:9");
    assert_eq!(bearer(&bed.access().await.unwrap()), format!("Bearer {}", kept.access_token));
    let ended = SignedIn { expires_at: DateTime::from_timestamp(1, 0), ..kept };
    let bed = Bed::new(Some(&ended), "http://127.0.0.1:9");
    assert!(bed.access().await.unwrap_err().starts_with("can't refresh its token"));
}

fn request(url: &str, subscriber: bool, body: &Value) -> Request<SendBody> {
    let mut request = Request::new(SendBody::from(Bytes::from(body.to_string())));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.parse().unwrap();
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
    if subscriber {
        headers.insert(ACCOUNT, HeaderValue::from_static("acc-1"));
    }
    request
}

const STREAM: [&str; 5] = [
    r#"{"type":"codex.rate_limits","plan_type":"pro"}"#,
    r#"{"type":"response.created","response":{"id":"resp_1","output":[]}}"#,
    r#"{"type":"response.output_text.delta","delta":"Hello"}"#,
    r#"{"type":"response.output_item.done","item":{"type":"message","id":"msg_1"}}"#,
    r#"{"type":"response.completed","response":{"id":"resp_1","output":[],"usage":{"input_tokens":3}}}"#,
];

fn sse() -> String {
    STREAM.iter().fold(String::new(), |text, data| text + "data: " + data + "\n\n")
}

async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn json_of(response: Response<Body>) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

#[tokio::test]
async fn the_backend_of_subscribers_gets_what_it_knows_and_whole_answers_are_collected() {
    let backend = Fake::start(|_| (200, sse())).await;
    let codex = Codex::new(CodexTransport::Auto, Some("high".to_owned()));
    let ask = json!({
        "model": "gpt-6", "input": "hi", "temperature": 1, "max_output_tokens": 5, "top_p": null,
        "metadata": {"a": "b"},
    });
    let client = client();
    let asked = request(&backend.url("/codex/responses"), true, &ask);
    let response = codex.send(&client, asked, DEADLINES).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-evo-dropped"], "max_output_tokens, metadata");
    let whole = json_of(response).await;
    assert_eq!(whole["output"], json!([{"type": "message", "id": "msg_1"}]));
    assert_eq!(whole["usage"]["input_tokens"], 3);
    let sent = backend.asked()[0].json();
    assert_eq!((&sent["stream"], &sent["store"]), (&json!(true), &json!(false)));
    assert_eq!(sent["reasoning"]["effort"], "high");
    assert!(sent["instructions"].as_str().is_some_and(|it| !it.is_empty()));
    assert!(sent.get("temperature").is_none() && sent.get("top_p").is_none(), "{sent}");

    let streaming = json!({"model": "gpt-6", "input": "hi", "stream": true});
    let asked = request(&backend.url("/codex/responses"), true, &streaming);
    let response = codex.send(&client, asked, DEADLINES).await.unwrap();
    assert_eq!(text(response).await, sse(), "a stream passes as it is");

    // A key of the API is for a place that takes everything.
    let api = Fake::start(|_| (200, r#"{"id":"resp_2"}"#.to_owned())).await;
    let asked = request(&api.url("/v1/responses"), false, &ask);
    let response = codex.send(&client, asked, DEADLINES).await.unwrap();
    assert_eq!(json_of(response).await["id"], "resp_2");
    assert_eq!(api.asked()[0].json()["temperature"], 1);
}

#[tokio::test]
async fn what_would_change_an_answer_is_left_out_only_for_lenient_callers() {
    let backend = Fake::start(|_| (200, sse())).await;
    let codex = Codex::new(CodexTransport::Auto, None);
    for (field, value) in [
        ("temperature", json!(0.2)),
        ("top_p", json!(0.5)),
        ("top_logprobs", json!(3)),
        ("truncation", json!("auto")),
    ] {
        let mut ask = json!({"model": "gpt-6", "input": "hi"});
        ask[field] = value;
        let asked = || request(&backend.url("/codex/responses"), true, &ask);
        let response = codex.send(&client(), asked(), DEADLINES).await.unwrap();
        assert_eq!(response.status(), 400);
        let error = json_of(response).await["error"].clone();
        assert_eq!(error["param"], field);
        assert!(error["message"].as_str().unwrap().contains(field), "{error}");
        let mut asked = asked();
        asked.extensions_mut().insert(Lenient);
        let response = codex.send(&client(), asked, DEADLINES).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["x-evo-dropped"]),
            (200, &field.parse().unwrap())
        );
        assert_eq!(backend.asked().last().unwrap().json().get(field), None);
    }
}

#[tokio::test]
async fn errors_inside_a_stream_are_errors_of_a_whole_answer() {
    for (event, status) in [
        (
            r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"m"}}}"#,
            429,
        ),
        (
            r#"{"type":"error","status":400,"error":{"type":"invalid_request_error","message":"m"}}"#,
            400,
        ),
        (r#"{"type":"error","code":"x","message":"m"}"#, 502),
    ] {
        let backend = Fake::start(move |_| (200, format!("data: {event}\n\n"))).await;
        let codex = Codex::new(CodexTransport::Sse, None);
        let asked = request(&backend.url("/responses"), true, &json!({"model": "m", "input": "a"}));
        let response = codex.send(&client(), asked, DEADLINES).await.unwrap();
        assert_eq!(response.status(), status, "{event}");
        assert_eq!(json_of(response).await["error"]["message"], "m", "{event}");
    }
    let cut = Fake::start(|_| (200, "data: {\"type\":\"response.created\"}\n\n".to_owned())).await;
    let codex = Codex::new(CodexTransport::Sse, None);
    let asked = request(&cut.url("/responses"), true, &json!({"model": "m", "input": "a"}));
    let (failure, _) = codex.send(&client(), asked, DEADLINES).await.unwrap_err();
    assert_eq!(failure, Failure::Dropped);
}

#[tokio::test]
async fn models_are_listed_as_openai_lists_them() {
    let backend = Fake::start(|_| {
        let list = json!({"models": [
            {"slug": "gpt-6", "display_name": "GPT-6", "context_window": 400_000, "prefer_websockets": true},
            {"slug": "inner", "visibility": "hide"},
        ]});
        (200, list.to_string())
    });
    let backend = backend.await;
    let codex = Codex::new(CodexTransport::Auto, None);
    let mut ask = request(&backend.url("/models?client_version=1"), true, &json!({}));
    *ask.method_mut() = Method::GET;
    let list = json_of(codex.send(&client(), ask, DEADLINES).await.unwrap()).await;
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&list["data"][0]["id"], &list["data"][0]["context_length"]),
        (&json!("gpt-6"), &json!(400_000))
    );
    // The model prefers a WebSocket; there is none, and the answer comes over HTTP all the same.
    let ask = request(&backend.url("/responses"), false, &json!({"model": "gpt-6", "input": "a"}));
    assert_eq!(codex.send(&client(), ask, DEADLINES).await.unwrap().status(), 200);
    let asked = backend.asked();
    let methods: Vec<&Method> = asked.iter().map(|asked: &Asked| &asked.method).collect();
    assert_eq!(methods, [&Method::GET, &Method::GET, &Method::POST]);
    assert_eq!(asked[1].header("upgrade"), "websocket");
    // It is not tried again.
    let ask = request(&backend.url("/responses"), false, &json!({"model": "gpt-6", "input": "a"}));
    codex.send(&client(), ask, DEADLINES).await.unwrap();
    assert_eq!(backend.asked().len(), 4);
}

/// A server of WebSockets that answers each request with these messages and closes, or waits for the end.
struct Sockets {
    url: String,
    asked: Arc<StdMutex<Vec<Value>>>,
    closed: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

async fn sockets(messages: &'static [&'static str], waits: bool) -> Sockets {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/responses", listener.local_addr().unwrap());
    let asked: Arc<StdMutex<Vec<Value>>> = Arc::default();
    let closed: Arc<AtomicUsize> = Arc::default();
    let (all, ended) = (asked.clone(), closed.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            #[expect(clippy::result_large_err, reason = "the signature is the library's")]
            let check = |handshake: &Handshake, agreed: Agreed| -> Result<Agreed, ErrorResponse> {
                assert_eq!(handshake.headers()["openai-beta"], "responses_websockets=2026-02-06");
                assert_eq!(handshake.headers()["authorization"], "Bearer secret");
                Ok(agreed)
            };
            let mut socket = tokio_tungstenite::accept_hdr_async(stream, check).await.unwrap();
            let ask = socket.next().await.unwrap().unwrap();
            all.lock().unwrap().push(serde_json::from_str(ask.to_text().unwrap()).unwrap());
            for message in messages {
                socket.send(Message::text(*message)).await.unwrap();
            }
            if waits {
                while socket.next().await.is_some_and(|message| message.is_ok()) {}
                ended.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    Sockets { url, asked, closed, _tasks: tasks }
}

async fn over_socket(server: &Sockets, stream: bool) -> Reached {
    let codex = Codex::new(CodexTransport::WebSocket, None);
    let ask = json!({"model": "m", "input": "a", "stream": stream});
    codex.send(&client(), request(&server.url, true, &ask), DEADLINES).await
}

#[tokio::test]
async fn a_web_socket_gives_what_http_would() {
    let server = sockets(&STREAM, true).await;
    let response = over_socket(&server, true).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream; charset=utf-8");
    let text = text(response).await;
    assert!(text.starts_with("event: response.created\ndata: {"), "{text}");
    assert!(text.ends_with("}\n\n") && text.contains("\"delta\":\"Hello\""), "{text}");
    assert!(!text.contains("codex.rate_limits"), "{text}");
    let asked = server.asked.lock().unwrap()[0].clone();
    assert_eq!(asked["type"], "response.create");
    assert!(asked.get("stream").is_none() && asked["store"] == false, "{asked}");
    let whole = json_of(over_socket(&server, false).await.unwrap()).await;
    assert_eq!(whole["output"][0]["id"], "msg_1");
    let refused = sockets(&[r#"{"type":"error","status":429,"error":{"message":"slow"}}"#], true);
    let refused = refused.await;
    assert_eq!(over_socket(&refused, true).await.unwrap().status(), 429);
}

#[tokio::test]
async fn a_web_socket_that_breaks_off_never_ends_as_if_it_were_whole() {
    let server = sockets(&[STREAM[1], STREAM[2]], false).await;
    let mut body = over_socket(&server, true).await.unwrap().into_body();
    let broken = loop {
        match body.frame().await {
            Some(Ok(_)) => {}
            other => break other,
        }
    };
    assert!(broken.unwrap().is_err());
    let (failure, _) = over_socket(&server, false).await.unwrap_err();
    assert_eq!(failure, Failure::Dropped);
}

#[tokio::test]
async fn a_caller_that_goes_closes_the_web_socket() {
    let server = sockets(&[STREAM[1], STREAM[2]], true).await;
    let mut body = over_socket(&server, true).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    for _ in 0..200 {
        if server.closed.load(Ordering::Relaxed) == 1 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the WebSocket is still open");
}
