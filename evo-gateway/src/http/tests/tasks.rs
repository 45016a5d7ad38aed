//! Embeddings and the counting of tokens, from every front to every kind of provider.

use super::*;

const GOOGLE: &str = "google";
const JSON: (&str, &str) = ("content-type", "application/json");
const VECTORS: &str = r#"{"object":"list","model":"m-2026","data":[{"object":"embedding","index":1,"embedding":[0.1,-2]},{"object":"embedding","index":0,"embedding":"AACAPwAAAL8="}],"usage":{"prompt_tokens":7,"total_tokens":7}}"#;
const ONE_VECTOR: &str = r#"{"object":"list", "model":"m","data":[{"object":"embedding","index":0,"embedding":[0.25,1.0]}],"usage":{"prompt_tokens":3,"total_tokens":3}}"#;
const GOOGLES: &str = r#"{"embeddings":[{"values":[1,-0.5]},{"values":[0.1,3e-7]}]}"#;

#[tokio::test]
async fn embeddings_pass_byte_for_byte_where_the_protocol_is_the_same() {
    let fake = Fake::says(200, &[JSON], ONE_VECTOR).await;
    let bed = Bed::before(&fake).await;
    let body = r#"{ "input" : [[1,2],[3]] , "model":"p:m","encoding_format":"base64","stream":true,"x":1.50}"#;
    let got = bed.post("/v1/embeddings?a=b", body).await;
    assert_eq!((got.status, got.text()), (StatusCode::OK, ONE_VECTOR));
    assert_eq!(got.header("x-evo-provider"), "p");
    let seen = fake.last();
    assert_eq!(seen.body, body.replace("p:m", "m"));
    assert_eq!(seen.uri.path_and_query().unwrap(), "/v1/embeddings?a=b");
    bed.stop().await;

    let fake = Fake::says(200, &[JSON], GOOGLES).await;
    let bed = Bed::start(config(&[fake.provider("g", GOOGLE)])).await;
    let body = |name: &str| {
        format!(
            "{{ \"requests\":[{{\"model\":\"models/{name}\" ,\"content\":{{\"parts\":[{{\"text\":\"a\"}}]}}}}]}}"
        )
    };
    let got = bed.post("/v1beta/models/g:m:batchEmbedContents", body("g:m")).await;
    assert_eq!((got.status, got.text()), (StatusCode::OK, GOOGLES));
    assert_eq!(fake.last().body, body("m"));
    assert_eq!(fake.last().uri.path(), "/v1/models/m:batchEmbedContents");
    bed.post("/v1beta/models/g:m:embedContent", r#"{"content":{"parts":[]}}"#).await;
    assert_eq!(fake.last().uri.path(), "/v1/models/m:embedContent");
    bed.stop().await;
}

#[tokio::test]
async fn embeddings_are_translated_between_all_that_have_them() {
    let fake = Fake::says(200, &[JSON], VECTORS).await;
    let google = Fake::says(200, &[JSON], GOOGLES).await;
    let bed = Bed::start(config(&[fake.provider("p", OPENAI), google.provider("g", GOOGLE)])).await;
    for model in ["p:m", "g:m"] {
        let ollama = json!({"model": model, "input": ["one", "two"], "truncate": true}).to_string();
        let got = bed.post("/api/embed", ollama).await;
        let answer = got.json();
        let (first, second) =
            if model == "p:m" { ([1.0, -0.5], [0.1, -2.0]) } else { ([1.0, -0.5], [0.1, 3e-7]) };
        assert_eq!(answer["embeddings"], json!([first, second]), "{model}: {}", got.text());
        assert!(answer["total_duration"].as_u64().unwrap() > 0);
        assert_eq!(got.header("x-evo-dropped"), "truncate");
        assert_eq!(got.header("x-evo-estimated"), if model == "p:m" { "" } else { "true" });
    }
    assert_eq!(fake.last().json(), json!({"model": "m", "input": ["one", "two"]}));
    let content = |text: &str| json!({"model": "models/m", "content": {"parts": [{"text": text}]}});
    assert_eq!(google.last().json(), json!({"requests": [content("one"), content("two")]}));
    // Base64 as OpenAI's SDK wants it.
    let body = json!({"model": "g:m", "input": ["one", "two"], "encoding_format": "base64", "dimensions": 2, "user": "u"});
    let got = bed.post("/v1/embeddings", body.to_string()).await;
    let answer = got.json();
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("m")));
    assert_eq!(
        answer["data"][0],
        json!({"object": "embedding", "index": 0, "embedding": "AACAPwAAAL8="})
    );
    assert_eq!(answer["usage"], json!({"prompt_tokens": 2, "total_tokens": 2}));
    assert_eq!((got.header("x-evo-estimated"), got.header("x-evo-dropped")), ("true", "user"));
    assert_eq!(google.last().json()["requests"][1]["outputDimensionality"], 2);
    // Google's two ways of asking.
    let requests = json!({"requests": [{"content": {"parts": [{"text": "a"}, {"text": "b"}]}}, {"content": {"parts": [{"text": "c"}]}}]});
    let got = bed.post("/v1beta/models/p:m:batchEmbedContents", requests.to_string()).await;
    assert_eq!(
        got.json(),
        json!({"embeddings": [{"values": [1.0, -0.5]}, {"values": [0.1, -2.0]}]})
    );
    assert_eq!(fake.last().json()["input"], json!(["a\nb", "c"]));
    bed.stop().await;

    let fake = Fake::says(200, &[JSON], ONE_VECTOR).await;
    let bed = Bed::before(&fake).await;
    let got = bed
        .post(
            "/v1beta/models/p:m:embedContent",
            r#"{"content":{"parts":[{"text":"a"}]},"outputDimensionality":2}"#,
        )
        .await;
    assert_eq!(got.json(), json!({"embedding": {"values": [0.25, 1.0]}}));
    assert_eq!(fake.last().json(), json!({"model": "m", "input": "a", "dimensions": 2}));
    let got =
        bed.post("/api/embeddings", r#"{"model":"p:m","prompt":"a","keep_alive":"5m"}"#).await;
    assert_eq!(
        (got.json(), got.header("x-evo-dropped")),
        (json!({"embedding": [0.25, 1.0]}), "keep_alive")
    );
    bed.stop().await;
}

#[tokio::test]
async fn what_has_no_embeddings_is_told_in_the_callers_words_and_passed_over_in_a_chain() {
    let fake = Fake::says(200, &[JSON], ONE_VECTOR).await;
    let mut config = config(&[fake.provider("a", ANTHROPIC), fake.provider("p", OPENAI)]);
    let asked = |path: &str, model: &str| {
        let body = json!({"model": model, "input": "x", "prompt": "x", "content": {"parts": [{"text": "x"}]}});
        (path.replace("{model}", model), body.to_string())
    };
    let bed = Bed::start(config.clone()).await;
    for (path, place) in [
        ("/v1/embeddings", "/error/message"),
        ("/api/embed", "/error"),
        ("/v1beta/models/{model}:embedContent", "/error/message"),
    ] {
        let (path, body) = asked(path, "a:m");
        let got = bed.post(&path, body).await;
        assert_eq!(got.status, 400, "{path}: {}", got.text());
        let answer = got.json();
        let message = answer.pointer(place).unwrap().as_str().unwrap();
        assert!(
            message.contains("has no embeddings") && message.contains("`a` (anthropic)"),
            "{message}"
        );
        assert!(got.text().contains("embeddings_not_supported"), "{}", got.text());
    }
    assert!(fake.seen().is_empty());
    bed.stop().await;

    config.gateway.reliability.get_or_insert_default().fallback_chain = vec!["p:other".to_owned()];
    let bed = Bed::start(config).await;
    let (path, body) = asked("/v1/embeddings", "a:m");
    let got = bed.post(&path, body).await;
    assert_eq!(
        (got.status.as_u16(), got.header("x-evo-provider"), got.header("x-evo-attempts")),
        (200, "p", "1")
    );
    assert_eq!(fake.last().json()["model"], "other");
    bed.stop().await;
}

#[tokio::test]
async fn what_vectors_cannot_carry_is_refused_by_name() {
    let fake = Fake::says(200, &[JSON], GOOGLES).await;
    let both = [fake.provider("g", GOOGLE), fake.provider("p", OPENAI)];
    let bed = Bed::start(config(&both)).await;
    for (path, body, says) in [
        (
            "/v1/embeddings",
            r#"{"model":"g:m","input":[[1,2],[3]]}"#,
            "`input`: is a list of tokens",
        ),
        ("/v1/embeddings", r#"{"model":"g:m","input":[1,2]}"#, "`input`: is a list of tokens"),
        ("/v1/embeddings", r#"{"model":"g:m","input":[]}"#, "`input`: holds no text"),
        ("/v1/embeddings", r#"{"model":"g:m","input":{"a":1}}"#, "`input`: must be a text"),
        (
            "/v1/embeddings",
            r#"{"model":"g:m","input":"a","encoding_format":"int8"}"#,
            "`encoding_format`",
        ),
        ("/v1/embeddings", r#"{"model":"g:m","input":"a","input_type":"query"}"#, "`input_type`"),
        ("/api/embed", r#"{"model":"p:m","input":"a","truncate":false}"#, "`truncate`"),
        ("/api/embed", r#"{"model":"p:m"}"#, "`input`"),
        ("/api/embeddings", r#"{"model":"p:m"}"#, "`prompt`"),
        (
            "/v1beta/models/p:m:embedContent",
            r#"{"content":{"parts":[{"text":"a"}]},"taskType":"RETRIEVAL_QUERY"}"#,
            "`taskType`",
        ),
        (
            "/v1beta/models/p:m:batchEmbedContents",
            r#"{"requests":[{"content":{"parts":[{"text":"a"}]}},{"content":{"parts":[{"text":"a"}]},"title":"t"}]}"#,
            "`requests[1].title`",
        ),
        (
            "/v1beta/models/p:m:embedContent",
            r#"{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"AA=="}}]}}"#,
            "`content.parts[0]`",
        ),
    ] {
        let got = bed.post(path, body).await;
        assert_eq!(got.status, 400, "{body}: {}", got.text());
        let answer = got.json();
        let error = &answer["error"];
        let message = error["message"].as_str().or(error.as_str()).unwrap();
        assert!(message.starts_with(says), "{body}: {message}");
    }
    assert!(fake.seen().is_empty());
    // A lenient caller is told what was left out.
    let request =
        bed.request("POST", "/v1beta/models/p:m:embedContent").header("x-evo-lenient", "true");
    let body = r#"{"content":{"parts":[{"text":"a"}]},"taskType":"RETRIEVAL_QUERY","title":"t"}"#;
    let got = bed.send(request.body(Full::new(body.into())).unwrap()).await;
    // The answer is one of Google, and so none of a provider that speaks as OpenAI does.
    assert_eq!((got.status.as_u16(), &got.json()["error"]["code"]), (502, &json!(500)));
    assert_eq!(fake.last().json(), json!({"model": "m", "input": "a"}));
    bed.stop().await;
}

#[tokio::test]
async fn tokens_are_counted_by_whoever_can() {
    let fake = Fake::start(|seen| async move {
        let answer = match seen.uri.path() {
            path if path.ends_with(":countTokens") => r#"{"totalTokens":11}"#,
            "/v1/messages/count_tokens" => r#"{"input_tokens":12}"#,
            "/v1/responses/input_tokens" => {
                r#"{"object":"response.input_tokens","input_tokens":13}"#
            }
            path => panic!("{path}"),
        };
        Response::builder()
            .header("content-type", "application/json")
            .body(Body::from(answer))
            .unwrap()
    })
    .await;
    let mut responses = fake.provider("r", OPENAI);
    responses["wire_api"] = json!("responses");
    let providers = [
        fake.provider("a", ANTHROPIC),
        fake.provider("g", GOOGLE),
        responses,
        fake.provider("p", OPENAI),
    ];
    let bed = Bed::start(config(&providers)).await;
    let messages = |model: &str| {
        json!({"model": model, "system": "Be brief.", "messages": [{"role": "user", "content": "Hi"}]}).to_string()
    };
    let input = |model: &str| {
        json!({"model": model, "instructions": "Be brief.", "input": "Hi"}).to_string()
    };
    let contents = r#"{"generateContentRequest":{"model":"models/x","systemInstruction":{"parts":[{"text":"Be brief."}]},"contents":[{"role":"user","parts":[{"text":"Hi"}]}]}}"#;
    for (model, tokens, estimated) in
        [("a:m", 12, ""), ("g:m", 11, ""), ("r:m", 13, ""), ("p:m", 0, "true")]
    {
        let anthropic = bed.post("/v1/messages/count_tokens?beta=true", messages(model)).await;
        let openai = bed.post("/v1/responses/input_tokens", input(model)).await;
        let gemini = bed.post(&format!("/v1beta/models/{model}:countTokens"), contents).await;
        for (got, field) in
            [(&anthropic, "input_tokens"), (&openai, "input_tokens"), (&gemini, "totalTokens")]
        {
            assert_eq!(got.status, 200, "{model}: {}", got.text());
            assert_eq!(got.header("x-evo-estimated"), estimated, "{model}");
            let found = got.json()[field].as_u64().unwrap();
            // Two texts of three tokens and one, each in its frame.
            assert_eq!(found, if estimated.is_empty() { tokens } else { 12 }, "{model} {field}");
        }
    }
    let asked = |index: usize| (fake.seen()[index].uri.to_string(), fake.seen()[index].json());
    let parts = |text: &str| json!({"parts": [{"text": text}]});
    let path = |uri: &str| {
        uri.strip_prefix("http://")
            .map_or(uri.to_owned(), |rest| rest[rest.find('/').unwrap()..].to_owned())
    };
    let (uri, body) = asked(0);
    assert_eq!(path(&uri), "/v1/messages/count_tokens?beta=true");
    assert_eq!(body, serde_json::from_str::<Value>(&messages("m")).unwrap());
    // Nothing but what Anthropic counts is told.
    for index in [1, 2] {
        let (uri, body) = asked(index);
        assert_eq!(path(&uri), "/v1/messages/count_tokens");
        assert_eq!(
            body,
            json!({"model": "m", "system": "Be brief.", "messages": [{"role": "user", "content": "Hi"}]})
        );
    }
    for index in [3, 4] {
        let whole = asked(index).1["generateContentRequest"].clone();
        assert_eq!(whole["model"], "models/m");
        assert_eq!(whole["systemInstruction"], parts("Be brief."), "{whole}");
    }
    assert_eq!(
        asked(5).1,
        serde_json::from_str::<Value>(&contents.replace("models/x", "models/m")).unwrap()
    );
    assert_eq!(asked(6).1["instructions"], "Be brief.");
    assert_eq!(
        asked(6).1.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["model", "instructions", "input"]
    );
    assert_eq!(fake.seen().len(), 9);
    bed.stop().await;
}

#[tokio::test]
async fn a_provider_without_the_route_does_not_stop_the_count() {
    for (status, body, expected) in [
        (404, r#"{"error":{"message":"Not Found"}}"#, 200),
        (405, "", 200),
        (404, r#"{"type":"error","error":{"type":"not_found_error","message":"model: m-9"}}"#, 404),
        (
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages: no"}}"#,
            400,
        ),
    ] {
        let fake = Fake::says(status, &[JSON], body).await;
        let bed = Bed::start(config(&[fake.provider("a", ANTHROPIC)])).await;
        let got = bed.post("/v1/messages/count_tokens", message("a:m-9").to_string()).await;
        assert_eq!(got.status.as_u16(), expected, "{status} {body}: {}", got.text());
        assert_eq!(got.header("x-evo-estimated"), if expected == 200 { "true" } else { "" });
        bed.stop().await;
    }
}

#[tokio::test]
async fn a_stream_or_half_an_answer_is_none() {
    for (kind, body) in [
        ("text/event-stream", "data: {}\n\n"),
        ("application/json", r#"{"object":"list","data":[]}"#),
        ("application/json", r#"{"error":{"message":"no"}}"#),
        ("application/json", r#"{"data":[{"index":0,"embedding":[]}]}"#),
        ("application/json", r#"{"data":[{"index":0,"embedding":"A"}]}"#),
    ] {
        let fake = Fake::says(200, &[("content-type", kind)], body).await;
        let bed = Bed::before(&fake).await;
        let got = bed.post("/api/embed", r#"{"model":"p:m","input":"a"}"#).await;
        assert_eq!(
            (got.status.as_u16(), &got.json()["code"]),
            (502, &json!("upstream_bad_answer")),
            "{body}: {}",
            got.text()
        );
        bed.stop().await;
    }
}
