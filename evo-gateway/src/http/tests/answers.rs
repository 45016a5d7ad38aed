//! Whole answers: what goes to the provider, and what comes back.

use super::*;

/// With whitespace, numbers and escapes that no JSON library would write again as they are.
const ODD: &str = "{ \"n\" : 1.50, \"big\":12345678901234567890123,\r\n \"model\" : \"p:m\\u0041\",\t\"messages\" : [ {\"content\":\"\\u00e4 \u{2028} 😀\"}], \"model2\":\"p:x\" }";

#[tokio::test]
async fn a_body_passes_byte_for_byte_but_for_the_model() {
    let answer = "{\"b\":1.0,  \"a\":\"\\u00e4\"}\n";
    let kind = ("content-type", "application/json; charset=utf-8");
    let fake = Fake::says(200, &[kind, ("set-cookie", "a=b"), ("openai-x", "y")], answer).await;
    let bed = Bed::before(&fake).await;
    let got = bed.post("/v1/chat/completions", ODD).await;
    assert_eq!((got.status, got.text(), got.whole), (StatusCode::OK, answer, true));
    assert_eq!(fake.last().body, ODD.replace("\"p:m\\u0041\"", "\"mA\""));
    assert_eq!(fake.last().uri, "/v1/chat/completions");
    assert_eq!(got.header("content-type"), kind.1);
    assert_eq!(got.header("x-evo-provider"), "p");
    assert_eq!(got.header("openai-x"), "y");
    assert!(got.headers.get("set-cookie").is_none());
    assert!(got.header("x-request-id").starts_with("req_"));

    // A model that needs no change, in a body of several megabytes.
    let large = format!("{{\"model\":\"bare\",\"x\":\"{}\"}}", "y".repeat(5_000_000));
    let got = bed.post("/v1/chat/completions", large.clone()).await;
    assert_eq!(got.status, 200, "{}", got.text());
    assert!(fake.last().body == large, "the large body was changed");
    let named = large.replace("bare", "p:bare");
    bed.post("/v1/chat/completions", named).await;
    assert!(fake.last().body == large, "the large body was spliced wrongly");
    bed.stop().await;
}

#[tokio::test]
async fn anthropic_is_asked_as_it_wants_to_be() {
    let fake = Fake::says(200, &[("request-id", "req_up")], r#"{"type":"message"}"#).await;
    let mut provider = fake.provider("a", ANTHROPIC);
    provider["api_key_envs"] = json!(["KEY"]);
    provider["extra_headers"] = json!({"X-Title": "evo"});
    let bed = Bed::start(config(&[provider])).await;
    let request = bed
        .request("POST", "/v1/messages?beta=true")
        .header("anthropic-beta", "one")
        .header("anthropic-beta", "two")
        .header("cookie", "a=b")
        .header("x-evo-run-id", "run-1")
        .body(Full::new(message("a:claude").to_string().into()))
        .unwrap();
    let got = bed.send(request).await;
    assert_eq!((got.status, got.header("request-id")), (StatusCode::OK, "req_up"));
    assert_eq!(got.header("x-request-id"), "req_up");
    let seen = fake.last();
    assert_eq!(seen.uri, "/v1/messages?beta=true");
    assert_eq!(seen.header("x-api-key"), "secret-KEY");
    assert_eq!(seen.header("anthropic-version"), "2023-06-01");
    assert_eq!(seen.header("x-title"), "evo");
    assert_eq!(seen.headers.get_all("anthropic-beta").iter().count(), 2);
    for name in ["authorization", "cookie", "x-evo-run-id"] {
        assert_eq!(seen.header(name), "", "{name}");
    }
    assert_eq!(seen.json(), message("claude"));
    bed.stop().await;
}

#[tokio::test]
async fn a_caller_may_give_its_request_an_id() {
    let fake = Fake::says(200, &[("x-request-id", "up-1")], r#"{"a":1}"#).await;
    let bed = Bed::before(&fake).await;
    let send = async |path: &str, id: &str, body: &Value| {
        let request = bed.request("POST", path).header("x-request-id", id);
        bed.send(request.body(Full::new(body.to_string().into())).unwrap()).await
    };
    let openai = "/v1/chat/completions";
    let got = send(openai, "mine-1", &chat("p:m")).await;
    assert_eq!(got.header("x-request-id"), "mine-1");
    assert_eq!(got.header("x-evo-provider-request-id"), "up-1");
    assert_eq!(fake.last().header("x-request-id"), "", "it is the gateway's caller's");
    // Errors of the gateway's own have it as well, in every protocol.
    let got = send("/v1/messages", "mine-2", &message("nobody:m")).await;
    assert_eq!((got.header("x-request-id"), got.header("request-id")), ("mine-2", "mine-2"));
    // What can't stand in a log is none.
    for wrong in ["", "with a space", &"x".repeat(65)] {
        let got = send(openai, wrong, &chat("nobody:m")).await;
        assert!(got.header("x-request-id").starts_with("req_"), "{wrong}: {got:?}");
        assert_eq!(send(openai, wrong, &chat("p:m")).await.header("x-request-id"), "up-1");
    }
    bed.stop().await;
}

/// Status and error class survive, in the same protocol to the byte.
#[tokio::test]
async fn a_providers_errors_are_kept() {
    for status in [400, 401, 404, 422, 429, 500, 529] {
        let body = format!("{{\"error\":{{\"message\":\"m{status}\",\"type\":\"t\"}}}} ");
        let headers = [
            ("retry-after", "7"),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-request-id", "up-1"),
            ("content-type", "application/json"),
        ];
        let fake = Fake::says(status, &headers, &body).await;
        let bed = Bed::before(&fake).await;
        let got = bed.chat(&chat("m")).await;
        assert_eq!((got.status.as_u16(), got.text()), (status, &*body));
        for (name, value) in headers {
            assert_eq!(got.header(name), value);
        }
        // Translated: the same status, and the type that Anthropic's clients know.
        let got = bed.messages(&message("m")).await;
        assert_eq!(got.status.as_u16(), status);
        assert_eq!(got.header("retry-after"), "7");
        assert_eq!(got.header("content-type"), "application/json");
        let error = got.json();
        assert_eq!(error["type"], "error", "{error}");
        let kind = error["error"]["type"].as_str().unwrap();
        let expected = match status {
            400 | 422 => "invalid_request_error",
            401 => "authentication_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            529 => "overloaded_error",
            _ => "api_error",
        };
        assert_eq!(kind, expected, "{status}");
        assert!(error["error"]["message"].as_str().unwrap().contains(&format!("m{status}")));
        bed.stop().await;
    }
}

#[tokio::test]
async fn each_protocol_is_translated_into_the_other() {
    let openai = Fake::says(
        200,
        &[("content-type", "application/json"), ("x-ratelimit-limit-tokens", "9")],
        r#"{"id":"c","object":"chat.completion","created":1,"model":"gpt","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#,
    )
    .await;
    let anthropic = Fake::says(
        200,
        &[("content-type", "application/json")],
        r#"{"id":"msg","type":"message","role":"assistant","model":"claude","content":[{"type":"text","text":"Hello"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":2}}"#,
    )
    .await;
    let bed =
        Bed::start(config(&[openai.provider("o", OPENAI), anthropic.provider("a", ANTHROPIC)]))
            .await;
    let got = bed.messages(&message("o:gpt")).await;
    assert_eq!(got.status, 200, "{}", got.text());
    assert_eq!(got.json()["content"][0]["text"], "Hello");
    assert_eq!(got.json()["usage"]["input_tokens"], 3);
    assert_eq!(got.header("x-ratelimit-limit-tokens"), "9");
    assert_eq!(openai.last().json()["model"], "gpt");
    assert_eq!(openai.last().header("accept-encoding"), "identity");

    let mut impossible = chat("a:claude");
    impossible["n"] = 2.into();
    let got = bed.chat(&impossible).await;
    assert_eq!((got.status.as_u16(), &got.json()["error"]["param"]), (400, &json!("n")));
    let got = bed.chat(&chat("a:claude")).await;
    assert_eq!(got.status, 200, "{}", got.text());
    assert_eq!(got.json()["choices"][0]["message"]["content"], "Hello");
    assert_eq!(anthropic.last().json()["model"], "claude");
    assert_eq!(anthropic.last().header("anthropic-version"), "2023-06-01");
    bed.stop().await;
}

/// Answers by key: one is wrong, one is spent, one is good.
async fn keyed() -> (Fake, Bed) {
    let fake = Fake::start(|seen| async move {
        let (status, wait) = match seen.header("authorization") {
            "Bearer secret-WRONG" => (401, "0"),
            "Bearer secret-SPENT" => (429, "30"),
            _ => (200, "0"),
        };
        let body = Body::from(format!("{{\"status\":{status}}}"));
        Response::builder().status(status).header("retry-after", wait).body(body).unwrap()
    })
    .await;
    let provider = |name: &str, keys: Value| {
        let mut provider = fake.provider(name, OPENAI);
        provider["api_key_envs"] = keys;
        provider
    };
    let bed = Bed::start(config(&[
        provider("mixed", json!(["WRONG", "SPENT", "GOOD"])),
        provider("good", json!(["GOOD", "BETTER", "UNSET"])),
        provider("bad", json!(["SPENT", "WRONG"])),
    ]))
    .await;
    (fake, bed)
}

#[tokio::test]
async fn keys_take_turns_and_another_one_helps_out() {
    let (fake, bed) = keyed().await;
    let keys = |seen: Vec<Seen>| -> Vec<String> {
        let key = |seen: &Seen| seen.header("authorization").replace("Bearer secret-", "");
        seen.iter().map(key).collect()
    };
    for _ in 0..3 {
        assert_eq!(bed.chat(&chat("good:m")).await.status, 200);
    }
    assert_eq!(keys(fake.seen()), ["GOOD", "BETTER", "GOOD"]);

    fake.seen.lock().unwrap().clear();
    for _ in 0..3 {
        assert_eq!(bed.chat(&chat("mixed:m")).await.status, 200);
    }
    // What failed once is left out for a while.
    assert_eq!(keys(fake.seen()), ["WRONG", "SPENT", "GOOD", "GOOD", "GOOD"]);

    // When none helps, the caller hears of the limit, which passes, and not of the wrong key.
    for _ in 0..2 {
        let got = bed.chat(&chat("bad:m")).await;
        assert_eq!((got.status.as_u16(), got.header("retry-after")), (429, "30"));
    }
    bed.stop().await;
}

#[tokio::test]
async fn no_connection_is_used_for_two_callers_at_once() {
    let fake = Fake::start(|seen| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Response::new(Body::from(json!({"n": seen.json()["user"]}).to_string()))
    })
    .await;
    let bed = Arc::new(Bed::before(&fake).await);
    let mut calls = JoinSet::new();
    for number in 0..50 {
        let bed = bed.clone();
        calls.spawn(async move {
            let mut body = chat("p:m");
            body["user"] = number.into();
            assert_eq!(bed.chat(&body).await.json(), json!({"n": number}));
        });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
}

#[tokio::test]
async fn a_model_that_cannot_be_told_how_much_to_think_answers_all_the_same() {
    let fake = Fake::start(|seen: Seen| async move {
        let (status, body) = match seen.json()["reasoning_effort"].as_str() {
            Some(_) => (400, r#"{"error":{"message":"reasoning_effort is not supported with this model"}}"#),
            None if seen.json()["seed"] == 1 => (400, r#"{"error":{"message":"no seed, I thought"}}"#),
            None => (200, r#"{"id":"1","model":"m","choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}]}"#),
        };
        let kind = ("content-type", "application/json");
        Response::builder().status(status).header(kind.0, kind.1).body(Body::from(body)).unwrap()
    })
    .await;
    let bed = Bed::before(&fake).await;
    let mut body = message("p:m");
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 2048});
    for asked in [2, 3] {
        let got = bed.messages(&body).await;
        assert_eq!((got.status.as_u16(), &got.json()["content"][0]["text"]), (200, &json!("Hi")));
        assert_eq!(got.header("x-evo-dropped"), "thinking");
        // The second time it is known.
        assert_eq!(fake.seen.lock().unwrap().len(), asked);
    }
    // Another fault is told as it is.
    let body = r#"{"model":"p:n","messages":[{"role":"user","content":"x"}],"stream":false,"think":true,"options":{"seed":1}}"#;
    let got = bed.post("/api/chat", body).await;
    assert_eq!(
        (got.status.as_u16(), got.json()["error"].as_str().unwrap()),
        (400, "no seed, I thought")
    );
    bed.stop().await;
}
