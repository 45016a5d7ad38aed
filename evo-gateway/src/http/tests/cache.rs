//! Answers that are given again, and what is said in the log.

use super::*;

fn cached(providers: &[Value], settings: Value) -> Config {
    let mut config = config(providers);
    let mut cache = json!({"enabled": true});
    cache.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    config.gateway.cache = Some(serde_json::from_value(cache).unwrap());
    config
}

fn fixed(mut body: Value) -> Value {
    body["temperature"] = 0.into();
    body
}

const WHOLE: &str = r#"{"id":"1","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
const STREAM: &str = "data: {\"choices\":[]}\n\ndata: [DONE]\n\n";

/// Answers in the way that the model's name says, and tells how often it was asked.
async fn fake() -> Fake {
    Fake::start(|seen| async move {
        let asked = seen.json();
        let answer = Response::builder();
        match asked["model"].as_str().unwrap() {
            "error" => answer.body(Body::from(r#"{"error":{"message":"no"}}"#)).unwrap(),
            "busy" => answer.status(503).body(Body::from("{}")).unwrap(),
            _ if asked["stream"] == true => {
                let stream = if asked["model"] == "cut" { "data: {}\n\n" } else { STREAM };
                let answer = answer.header("content-type", "text/event-stream");
                answer.body(Body::from(stream)).unwrap()
            }
            _ => {
                let answer = answer.header("content-type", "application/json");
                answer.header("x-request-id", "req_of_provider").body(Body::from(WHOLE)).unwrap()
            }
        }
    })
    .await
}

#[tokio::test]
async fn the_same_request_of_the_same_caller_is_answered_again() {
    let fake = fake().await;
    let bed = Bed::start(cached(&[fake.provider("p", OPENAI)], json!({}))).await;
    for (body, text) in [(fixed(chat("p:m")), WHOLE), (streamed(fixed(chat("p:m"))), STREAM)] {
        let before = fake.seen().len();
        let mut ids = std::collections::BTreeSet::new();
        for result in ["miss", "hit", "hit"] {
            let got = bed.chat(&body).await;
            assert_eq!((got.status.as_u16(), got.text()), (200, text));
            assert_eq!(got.header("x-evo-cache"), result);
            assert_eq!(got.header("x-evo-provider"), "p");
            ids.insert(got.header("x-request-id").to_owned());
        }
        assert_eq!((fake.seen().len() - before, ids.len()), (1, 3), "{ids:?}");
    }
    // Another model, field, or wish is another request.
    let before = fake.seen().len();
    let mut longer = fixed(chat("p:m"));
    longer["max_tokens"] = 5.into();
    assert_eq!(bed.chat(&longer).await.header("x-evo-cache"), "miss");
    assert_eq!(bed.chat(&chat("p:m")).await.header("x-evo-cache"), "", "it is not fixed");
    let fresh = |wish: &str| {
        let request = bed.request("POST", "/v1/chat/completions").header("cache-control", wish);
        bed.send(request.body(Full::new(fixed(chat("p:m")).to_string().into())).unwrap())
    };
    assert_eq!(fresh("no-cache").await.header("x-evo-cache"), "miss");
    assert_eq!(fresh("no-store").await.header("x-evo-cache"), "");
    assert_eq!(fake.seen().len() - before, 4);
    // What went wrong is not kept, and neither is what came half.
    for body in [fixed(chat("p:error")), fixed(chat("p:busy")), streamed(fixed(chat("p:cut")))] {
        for _ in 0..2 {
            assert_ne!(bed.chat(&body).await.header("x-evo-cache"), "hit", "{body}");
        }
    }
    bed.stop().await;
}

#[tokio::test]
async fn callers_have_caches_of_their_own_and_what_is_too_large_or_too_old_is_not_kept() {
    let fake = fake().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("auth.json");
    let key = |name| {
        let rules = crate::auth::rules::Rules::default();
        crate::auth::keys::generate(&file, name, rules).unwrap().expose().to_owned()
    };
    let (one, two) = (key("one"), key("two"));
    let mut config = cached(&[fake.provider("p", OPENAI)], json!({"only_deterministic": false}));
    config.auth.keys_file = Some(file);
    let bed = Bed::start(config).await;
    for (key, result) in [(&one, "miss"), (&two, "miss"), (&one, "hit")] {
        let request = Request::post(format!("http://{}/v1/chat/completions", bed.address))
            .header("x-api-key", key)
            .body(Full::new(chat("p:m").to_string().into()));
        assert_eq!(bed.send(request.unwrap()).await.header("x-evo-cache"), result);
    }
    bed.stop().await;
    for settings in [json!({"max_entry_bytes": 10}), json!({"ttl_seconds": 1})] {
        let bed = Bed::start(cached(&[fake.provider("p", OPENAI)], settings.clone())).await;
        for _ in 0..2 {
            assert_eq!(bed.chat(&fixed(chat("p:m"))).await.header("x-evo-cache"), "miss");
            if settings["ttl_seconds"] == 1 {
                tokio::time::sleep(Duration::from_millis(1_050)).await;
            }
        }
        bed.stop().await;
    }
}

#[tokio::test]
async fn what_is_said_is_in_the_log_only_if_the_configuration_wants_it() {
    for prompts in [false, true] {
        let (lines, _guard) = super::log::capture();
        let answer = r#"{"choices":[{"message":{"content":"the-answer"}}]}"#;
        let fake = Fake::says(200, &[], answer).await;
        let mut config = config(&[fake.provider("p", OPENAI)]);
        config.gateway.logging = Some(evo_common::config::LoggingConfig { prompts });
        let bed = Bed::start(config).await;
        let mut body = chat("p:m");
        body["messages"][0]["content"] = "the-question with sk-abcdefgh12345".into();
        assert_eq!(bed.chat(&body).await.status, 200);
        bed.stop().await;
        let text = lines.text();
        for words in ["the-question", "the-answer"] {
            assert_eq!(text.contains(words), prompts, "{words}: {text}");
        }
    }
}
