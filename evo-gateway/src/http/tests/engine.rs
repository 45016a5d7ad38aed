//! Who is asked, when again, and what is said meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const ANSWER: &str =
    r#"{"id":"c","model":"m","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}"#;
const STREAM: &str = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

async fn bed(providers: &[Value], reliability: Value, routing: Value) -> Bed {
    let mut config = config(providers);
    config.gateway.reliability = Some(serde_json::from_value(reliability).unwrap());
    config.gateway.routing = serde_json::from_value(routing).unwrap();
    Bed::start(config).await
}

/// A provider that is busy for the first so many requests.
async fn busy(times: usize, header: &'static str, value: &'static str) -> Fake {
    let count = Arc::new(AtomicUsize::new(0));
    Fake::start(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        async move {
            if number < times {
                let body = r#"{"error":{"message":"Too many.","type":"rate_limit_error"}}"#;
                let response = Response::builder().status(429).header(header, value);
                return response.body(Body::from(body)).unwrap();
            }
            Response::builder()
                .header("content-type", "application/json")
                .body(Body::from(ANSWER))
                .unwrap()
        }
    })
    .await
}

#[tokio::test]
async fn a_hint_is_the_least_that_is_waited_and_too_long_a_one_is_told() {
    let fake = busy(2, "retry-after-ms", "60").await;
    let rules = json!({"base_backoff_ms": 1, "max_backoff_ms": 500});
    let patient = bed(&[fake.provider("p", OPENAI)], rules.clone(), Value::Null).await;
    let started = tokio::time::Instant::now();
    let got = patient.chat(&chat("p:m")).await;
    assert_eq!((got.status.as_u16(), got.header("x-evo-attempts")), (200, "3"));
    assert!(started.elapsed() >= Duration::from_millis(120));
    patient.stop().await;

    let fake = busy(9, "retry-after", "7").await;
    let hasty = bed(&[fake.provider("p", OPENAI)], rules, Value::Null).await;
    let got = hasty.chat(&chat("p:m")).await;
    assert_eq!((got.status.as_u16(), got.header("retry-after")), (429, "7"));
    assert_eq!((got.header("x-evo-attempts"), fake.seen().len()), ("1", 1));
    assert_eq!(got.json()["error"]["message"], "Too many.");
    hasty.stop().await;
}

/// Callers repeat a request themselves when they are told to wait; a gateway that waits three times for
/// them is worse than one that says so.
#[tokio::test]
async fn all_pauses_of_a_request_together_have_an_end() {
    // With the defaults.
    let fake = busy(9, "retry-after", "7").await;
    let well = Fake::says(200, &[("content-type", "application/json")], ANSWER).await;
    let providers = [fake.provider("p", OPENAI), well.provider("q", OPENAI)];
    let usual = bed(&providers, json!({}), Value::Null).await;
    let started = tokio::time::Instant::now();
    let got = usual.chat(&chat("p:m")).await;
    assert_eq!((got.status.as_u16(), got.header("retry-after")), (429, "7"));
    assert_eq!((got.header("x-evo-attempts"), fake.seen().len()), ("1", 1));
    usual.stop().await;
    let chained = bed(&providers, json!({"fallback_chain": ["q:other"]}), Value::Null).await;
    let got = chained.chat(&chat("p:m")).await;
    assert_eq!((got.status.as_u16(), got.header("x-evo-provider")), (200, "q"));
    assert!(started.elapsed() < Duration::from_secs(7), "it waited for what it was told");
    chained.stop().await;

    // Two pauses of 60 ms have room, the third has not.
    let fake = busy(9, "retry-after-ms", "60").await;
    let rules = json!({"max_retries": 9, "base_backoff_ms": 1, "max_wait_ms": 150});
    let short = bed(&[fake.provider("p", OPENAI)], rules, Value::Null).await;
    let got = short.chat(&chat("p:m")).await;
    assert_eq!((got.status.as_u16(), got.header("retry-after-ms")), (429, "60"));
    assert_eq!((got.header("x-evo-attempts"), fake.seen().len()), ("3", 3));
    short.stop().await;

    // The gateway's own pauses count alike.
    let ill = Fake::says(500, &[], r#"{"error":{"message":"Oh."}}"#).await;
    let rules = json!({"max_retries": 9, "base_backoff_ms": 60, "max_wait_ms": 100});
    let short = bed(&[ill.provider("p", OPENAI)], rules, Value::Null).await;
    let got = short.chat(&chat("p:m")).await;
    assert_eq!(got.status, 500);
    assert!(ill.seen().len() <= 3, "{}", ill.seen().len());
    short.stop().await;
}

#[tokio::test]
async fn a_model_may_have_a_chain_of_its_own() {
    let ill = Fake::says(503, &[], r#"{"error":{"message":"Oh."}}"#).await;
    let json = [("content-type", "application/json")];
    let (usual, own) = (Fake::says(200, &json, ANSWER).await, Fake::says(200, &json, ANSWER).await);
    let providers =
        [ill.provider("ill", OPENAI), usual.provider("usual", OPENAI), own.provider("own", OPENAI)];
    let rules = json!({
        "max_retries": 0, "fallback_chain": ["usual"],
        "fallbacks": {"ill:m": ["own:special"], "hint:none": []},
    });
    let routing = json!({"model_routes": {"none": "ill:m"}});
    let bed = bed(&providers, rules, routing).await;
    for (asked, who, model) in
        [("ill:m", "own", "special"), ("ill:other", "usual", "other"), ("hint:none", "ill", "m")]
    {
        let got = bed.chat(&chat(asked)).await;
        assert_eq!((got.header("x-evo-provider"), got.header("x-evo-model")), (who, model));
        assert_eq!(got.status.is_success(), who != "ill", "{asked}");
    }
    bed.stop().await;
}

/// A port on which connections are made as far as there is room, and no further.
async fn full() -> (SocketAddr, tokio::net::TcpListener, Vec<TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        waiting.push(stream.unwrap());
        assert!(waiting.len() < 100, "there is room for all");
    }
    (address, listener, waiting)
}

#[tokio::test]
async fn a_connection_has_as_long_as_its_provider_is_given() {
    let (address, _listener, _waiting) = full().await;
    let url = format!("http://{address}/v1");
    let quick = Fake::says(200, &[("content-type", "application/json")], ANSWER).await;
    let providers = [provider_at(&url, "p", OPENAI), quick.provider("q", OPENAI)];
    let rules = json!({
        "max_retries": 0, "timeouts": {"connect_ms": 60_000},
        "providers": {"p": {"timeouts": {"connect_ms": 80}}},
    });
    let alone = bed(&providers, rules.clone(), Value::Null).await;
    let got = alone.chat(&chat("p:m")).await;
    assert_eq!(got.status, 504, "{got:?}");
    assert_eq!(got.json()["error"]["code"], "upstream_connect_timeout");
    assert!(got.text().contains("80 ms"), "{got:?}");
    alone.stop().await;
    let mut rules = rules;
    rules["fallback_chain"] = json!(["q"]);
    let chained = bed(&providers, rules, Value::Null).await;
    let got = chained.chat(&chat("p:m")).await;
    assert_eq!((got.status.as_u16(), got.header("x-evo-provider")), (200, "q"));
    chained.stop().await;
}

#[tokio::test]
async fn a_key_that_is_used_too_often_is_passed_over_and_left_alone() {
    let fake = Fake::start(|seen| async move {
        if seen.header("authorization").ends_with("secret-K1") {
            let response = Response::builder().status(429).header("retry-after", "60");
            return response.body(Body::from("{}")).unwrap();
        }
        Response::new(Body::from(ANSWER))
    })
    .await;
    let mut provider = fake.provider("p", OPENAI);
    provider["api_key_envs"] = json!(["K1", "K2"]);
    let bed = bed(&[provider], json!({}), Value::Null).await;
    for attempts in ["2", "1", "1"] {
        let got = bed.chat(&chat("p:m")).await;
        assert_eq!((got.status.as_u16(), got.header("x-evo-attempts")), (200, attempts));
    }
    bed.stop().await;
}

#[tokio::test]
async fn another_one_is_asked_besides_when_it_takes_long() {
    let silent = Fake::start(|_| std::future::pending::<Response<Body>>()).await;
    let quick = Fake::says(200, &[("content-type", "application/json")], ANSWER).await;
    let providers = [silent.provider("silent", OPENAI), quick.provider("quick", OPENAI)];
    let rules = json!({"hedge_after_ms": 30, "fallback_chain": ["quick:other"]});
    let bed = bed(&providers, rules, Value::Null).await;
    let got = bed.chat(&chat("silent:m")).await;
    assert_eq!((got.status.as_u16(), got.header("x-evo-provider")), (200, "quick"));
    assert_eq!((got.header("x-evo-model"), got.header("x-evo-attempts")), ("other", "2"));
    assert_eq!(quick.last().json()["model"], "other");
    bed.stop().await;
}

#[tokio::test]
async fn a_stream_in_which_nothing_is_said_gets_signs_of_life() {
    let slow = |status: u16| {
        Fake::start(move |_| async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let body = if status == 200 { STREAM } else { r#"{"error":{"message":"Oh."}}"# };
            Response::builder()
                .status(status)
                .header("content-type", "text/event-stream")
                .body(Body::from(body))
                .unwrap()
        })
    };
    let (well, ill) = (slow(200).await, slow(400).await);
    let providers = [well.provider("well", OPENAI), ill.provider("ill", OPENAI)];
    let bed = bed(&providers, json!({"heartbeat_ms": 40}), Value::Null).await;
    let got = bed.chat(&streamed(chat("well:m"))).await;
    let text = got.text();
    assert!(got.whole && text.starts_with(": keep-alive\n\n") && text.ends_with(STREAM), "{text}");
    // The head is out, so that an error can only be told inside.
    let got = bed.messages(&streamed(message("ill:m"))).await;
    assert!(got.status == 200 && !got.whole, "{got:?}");
    assert!(got.text().contains("event: error\n") && got.text().contains("Oh."), "{got:?}");
    // Answers in one piece wait.
    assert_eq!(bed.chat(&chat("ill:m")).await.status, 400);
    bed.stop().await;
}

#[tokio::test]
async fn who_fails_too_often_is_left_alone_and_the_fault_of_a_caller_is_none() {
    let fake = Fake::start(|seen| async move {
        let status = if seen.json()["model"] == "bad" { 400 } else { 500 };
        let body = r#"{"error":{"message":"Oh.","type":"x"}}"#;
        Response::builder().status(status).body(Body::from(body)).unwrap()
    })
    .await;
    let rules = json!({"max_retries": 0, "breaker": {"failures": 2, "open_ms": 60000}});
    let bed = bed(&[fake.provider("p", OPENAI)], rules, Value::Null).await;
    for _ in 0..4 {
        assert_eq!(bed.chat(&chat("p:bad")).await.status, 400);
    }
    for _ in 0..2 {
        assert_eq!(bed.chat(&chat("p:m")).await.status, 500);
    }
    let asked = fake.seen().len();
    let got = bed.chat(&chat("p:m")).await;
    assert_eq!((got.status.as_u16(), fake.seen().len()), (503, asked));
    assert_eq!(got.json()["error"]["code"], "provider_failing");
    assert!(got.header("retry-after").parse::<u64>().unwrap() > 50, "{got:?}");
    let told = bed.get("/v1/providers").await.json();
    assert_eq!(told["providers"][0]["breakers"], json!({"m": "open"}));
    bed.stop().await;
}

#[tokio::test]
async fn who_answers_sooner_is_asked_more_often() {
    let slow = Fake::start(|_| async {
        tokio::time::sleep(Duration::from_millis(40)).await;
        Response::builder()
            .header("content-type", "application/json")
            .body(Body::from(ANSWER))
            .unwrap()
    })
    .await;
    let quick = Fake::says(200, &[("content-type", "application/json")], ANSWER).await;
    let providers = [slow.provider("slow", OPENAI), quick.provider("quick", OPENAI)];
    let targets = json!([{"to": "slow:m"}, {"to": "quick:m"}]);
    let routing = json!({"pools": {"both": {"balance": "latency", "targets": targets}}});
    let bed = bed(&providers, json!({}), routing).await;
    for _ in 0..40 {
        assert_eq!(bed.chat(&chat("both")).await.status, 200);
    }
    // Both were tried; after that the slow one is drawn only where it is drawn twice.
    let (slow, quick) = (slow.seen().len(), quick.seen().len());
    assert!(slow >= 1 && quick > 2 * slow, "{slow} {quick}");
    bed.stop().await;
}

#[tokio::test]
async fn a_pool_shares_requests_and_stands_in_for_who_fails() {
    let one = Fake::says(200, &[("content-type", "application/json")], ANSWER).await;
    let two = Fake::says(500, &[], r#"{"error":{"message":"Oh."}}"#).await;
    let providers = [one.provider("one", OPENAI), two.provider("two", OPENAI)];
    let routing = json!({"pools": {"fast": {"targets": [{"to": "one:a"}, {"to": "two:b"}]}}});
    let rules = json!({"max_retries": 0, "breaker": {"failures": 0}});
    let bed = bed(&providers, rules, routing).await;
    for _ in 0..40 {
        let got = bed.chat(&chat("hint:fast")).await;
        assert_eq!((got.status.as_u16(), got.header("x-evo-provider")), (200, "one"));
    }
    // Half of them, more or less: fewer than one in a million runs has none.
    assert!(!two.seen().is_empty() && one.seen().len() == 40);
    assert_eq!(
        (one.last().json()["model"].clone(), two.last().json()["model"].clone()),
        (json!("a"), json!("b"))
    );
    bed.stop().await;
}
