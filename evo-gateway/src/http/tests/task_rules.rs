//! What holds for answers holds for vectors and counts: keys and limits, books, cache, retries, other
//! providers, and callers that leave.

use super::{
    keys::{Office, priced},
    streams::forsaken,
    *,
};

const VECTOR: &str = r#"{"object":"list","model":"m","data":[{"object":"embedding","index":0,"embedding":[0.25,1.0]}],"usage":{"prompt_tokens":3,"total_tokens":3}}"#;
const GOOGLES: &str = r#"{"embeddings":[{"values":[1,-0.5]}]}"#;

fn embed(model: &str) -> Value {
    json!({"model": model, "input": "one two"})
}

#[tokio::test]
async fn a_key_sees_what_it_may_use_in_every_shape() {
    let fake = Fake::says(200, &[], "{}").await;
    let mut provider = fake.provider("p", OPENAI);
    provider["models"] = json!(["m", "org/chat", "text-embed", "other"]);
    let office = Office::start(&[provider]).await;
    let key = office.key("few", json!({"models": ["p:org/*", "text-embed"]})).await;
    let mine = ["p:org/chat", "p:text-embed"];
    let get = |path: &'static str| office.as_bearer(&key, "GET", path, Value::Null);
    let names = |list: &Value, field: &str, prefix: &str| -> Vec<String> {
        let name = |it: &Value| it[field].as_str().unwrap().trim_start_matches(prefix).to_owned();
        list.as_array().unwrap().iter().map(name).collect()
    };
    for path in ["/v1/models", "/v1/models/p"] {
        assert_eq!(names(&get(path).await.json()["data"], "id", ""), mine, "{path}");
    }
    let refreshed = office.as_bearer(&key, "POST", "/v1/models/refresh", Value::Null).await;
    assert_eq!(names(&refreshed.json()["data"], "id", ""), mine);
    let google = get("/v1beta/models").await.json();
    assert_eq!(names(&google["models"], "name", "models/"), mine);
    let methods = |at: usize| google["models"][at]["supportedGenerationMethods"][0].clone();
    assert_eq!((methods(0), methods(1)), (json!("generateContent"), json!("embedContent")));
    assert_eq!(names(&get("/api/tags").await.json()["models"], "model", ""), mine);
    for (path, status) in [
        ("/v1/models/p:org/chat", 200),
        ("/v1/models/org%2Fchat", 200),
        ("/v1/models/p:m", 404),
        ("/v1/models/other", 404),
        ("/v1beta/models/p:org/chat", 200),
        ("/v1beta/models/org%2Fchat", 200),
        ("/v1beta/models/p:text-embed", 200),
        ("/v1beta/models/p:m", 404),
        ("/v1beta/models/p:org/none", 404),
    ] {
        let got = get(path).await;
        assert_eq!(got.status.as_u16(), status, "{path}: {}", got.text());
    }
    let show = |model: &str| office.as_bearer(&key, "POST", "/api/show", json!({"model": model}));
    assert_eq!(show("p:text-embed").await.json()["capabilities"], json!(["embedding"]));
    assert_eq!(show("p:m").await.status, 404);
    let all = office.admin("GET", "/v1/models", Value::Null).await.json();
    assert_eq!(all["data"].as_array().unwrap().len(), 5);
    // Nor can it ask for others.
    for (path, model) in [("/v1/embeddings", "p:m"), ("/v1/messages/count_tokens", "p:m")] {
        let mut body = message(model);
        body["input"] = json!("x");
        let got = office.as_bearer(&key, "POST", path, body).await;
        assert_eq!(got.status, 403, "{path}");
    }
    assert!(fake.seen().is_empty());
    office.bed.stop().await;
}

#[tokio::test]
async fn vectors_are_in_the_books_and_counts_are_not() {
    let fake = Fake::says(200, &[], VECTOR).await;
    let google = Fake::says(200, &[], GOOGLES).await;
    let providers = [priced(&fake, "p", OPENAI), priced(&google, "g", "google")];
    let office = Office::start(&providers).await;
    let key = office.key("ci", json!({"rpm": 4, "tpm": 1000, "budget_usd_per_day": 1000})).await;
    let send = |path: &'static str, body: Value| office.as_bearer(&key, "POST", path, body);
    for model in ["p:m", "g:m"] {
        assert_eq!(send("/v1/embeddings", embed(model)).await.status, 200, "{model}");
    }
    for _ in 0..2 {
        let got = send("/v1/messages/count_tokens", message("p:m")).await;
        assert_eq!((got.status.as_u16(), got.header("x-evo-estimated")), (200, "true"));
    }
    let refused = send("/v1/messages/count_tokens", message("p:m")).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    assert!(!refused.header("retry-after").is_empty());

    let usage = office.usage("key=ci").await;
    let rows = usage["requests"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{usage}");
    let counts = |row: &Value| {
        ["provider", "input_tokens", "output_tokens", "estimated", "cost_usd"]
            .map(|name| row[name].clone())
    };
    assert_eq!(counts(&rows[1]), [json!("p"), json!(3), json!(0), json!(false), json!(3.0)]);
    let length = embed("g:m").to_string().len().div_ceil(4);
    let cost = json!(f64::from(u32::try_from(length).unwrap()));
    assert_eq!(counts(&rows[0]), [json!("g"), json!(length), json!(0), json!(true), cost]);
    let figures = office.bed.get("/metrics").await;
    let figure = |route: &str| format!("evo_gateway_requests_total{{route=\"{route}\"");
    for route in ["/v1/embeddings", "/v1/messages/count_tokens"] {
        assert!(figures.text().contains(&figure(route)), "{route}: {}", figures.text());
    }
    office.bed.stop().await;
}

#[tokio::test]
async fn vectors_are_kept_and_counts_are_asked_again() {
    let fake = Fake::start(|seen| async move {
        let is_count = seen.uri.path().ends_with("count_tokens");
        Response::new(Body::from(if is_count { r#"{"input_tokens":1}"# } else { VECTOR }))
    })
    .await;
    let mut config = config(&[fake.provider("p", OPENAI), fake.provider("a", ANTHROPIC)]);
    config.gateway.cache = Some(serde_json::from_value(json!({"enabled": true})).unwrap());
    let bed = Bed::start(config).await;
    for expected in ["miss", "hit"] {
        let got = bed.post("/v1/embeddings", embed("p:m").to_string()).await;
        assert_eq!((got.header("x-evo-cache"), got.text()), (expected, VECTOR));
        let got = bed.post("/api/embed", embed("p:m").to_string()).await;
        assert_eq!((got.header("x-evo-cache"), got.status.as_u16()), (expected, 200));
        let got = bed.post("/v1/messages/count_tokens", message("a:m").to_string()).await;
        assert_eq!((got.header("x-evo-cache"), got.status.as_u16()), ("", 200));
    }
    assert_eq!(fake.seen().len(), 4);
    bed.stop().await;
}

#[tokio::test]
async fn vectors_are_asked_again_and_elsewhere_in_its_own_protocol() {
    let sick = Fake::says(503, &[], r#"{"error":{"message":"busy"}}"#).await;
    let google = Fake::says(200, &[], GOOGLES).await;
    let mut config = config(&[sick.provider("sick", OPENAI), google.provider("g", "google")]);
    config.gateway.reliability = Some(
        serde_json::from_value(json!({
            "max_retries": 1, "base_backoff_ms": 1, "fallback_chain": ["g:gemini-embedding-001"],
        }))
        .unwrap(),
    );
    let bed = Bed::start(config).await;
    let got = bed.post("/v1/embeddings", embed("sick:m").to_string()).await;
    assert_eq!((got.status.as_u16(), got.header("x-evo-provider")), (200, "g"), "{}", got.text());
    assert_eq!(got.header("x-evo-attempts"), "3");
    assert_eq!(got.json()["model"], "gemini-embedding-001");
    assert_eq!((sick.seen().len(), google.seen().len()), (2, 1));
    // An error that nobody helps with has the caller's shape.
    let wrong = Fake::says(
        404,
        &[],
        r#"{"error":{"code":404,"message":"models/m is not found","status":"NOT_FOUND"}}"#,
    )
    .await;
    let lonely = Bed::start(super::config(&[wrong.provider("g", "google")])).await;
    let got = lonely.post("/api/embed", embed("g:m").to_string()).await;
    assert_eq!((got.status.as_u16(), &got.json()["error"]), (404, &json!("models/m is not found")));
    lonely.stop().await;
    bed.stop().await;
}

#[tokio::test]
async fn a_caller_that_leaves_takes_its_vectors_along() {
    for (path, kind) in [
        ("/v1/embeddings", OPENAI),
        ("/api/embed", OPENAI),
        ("/v1/embeddings", "google"),
        ("/v1/messages/count_tokens", ANTHROPIC),
    ] {
        let (address, _tasks, state) = forsaken("").await;
        let bed =
            Bed::start(config(&[provider_at(&format!("http://{address}/v1"), "p", kind)])).await;
        let body = if kind == ANTHROPIC { message("p:m") } else { embed("p:m") };
        let caller = bed.raw(path, &body.to_string()).await;
        until(|| state.lock().unwrap()[0]).await;
        assert!(!state.lock().unwrap()[1]);
        drop(caller);
        until(|| state.lock().unwrap()[1]).await;
        bed.stop().await;
    }
}
