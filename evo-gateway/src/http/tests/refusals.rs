//! What the gateway answers on its own account.

use super::*;

#[tokio::test]
async fn only_tokens_and_keys_open_the_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("auth.json");
    let key =
        crate::auth::keys::generate(&file, "laptop", crate::auth::rules::Rules::default()).unwrap();
    let fake = Fake::says(200, &[], "{}").await;
    let mut config = config(&[fake.provider("p", OPENAI)]);
    config.auth.keys_file = Some(file);
    let operator = config.auth.operator.clone().unwrap();
    let gateway = config.auth.gateway.clone().unwrap();
    let bed = Bed::start(config).await;
    let send = async |path: &str, header: Option<(&str, String)>| {
        let mut request = Request::builder()
            .method(if path == "/v1/models" { "GET" } else { "POST" })
            .uri(format!("http://{}{path}", bed.address));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        bed.send(request.body(Full::new(chat("p:m").to_string().into())).unwrap()).await
    };
    let paths = ["/v1/models", "/v1/chat/completions", "/v1/messages", "/no/such"];
    for path in paths {
        for token in [operator.expose(), gateway.expose(), key.expose()] {
            for header in [
                ("authorization", format!("Bearer {token}")),
                ("authorization", format!("bearer  {token}")),
                ("x-api-key", token.to_owned()),
                ("x-goog-api-key", token.to_owned()),
            ] {
                let got = send(path, Some(header.clone())).await;
                assert_ne!(got.status, 401, "{path} {header:?}");
            }
        }
        for header in [
            None,
            Some(("authorization", format!("Basic {}", gateway.expose()))),
            Some(("authorization", "Bearer nonsense".to_owned())),
            Some(("x-api-key", String::new())),
            Some(("cookie", gateway.expose().to_owned())),
        ] {
            let got = send(path, header).await;
            assert_eq!(got.status, 401, "{path}");
            assert!(got.header("www-authenticate").starts_with("Bearer"), "{path}");
            let error = got.json();
            if path == "/v1/messages" {
                assert_eq!(error["type"], "error");
                assert!(got.header("request-id").starts_with("req_"));
            }
            assert_eq!(error["error"]["type"], "authentication_error", "{path}");
        }
    }
    assert_eq!(send("/health", None).await.status, 405);
    assert_eq!(fake.seen().iter().filter(|seen| seen.uri.path().contains("chat")).count(), 24);
    bed.stop().await;
}

#[tokio::test]
async fn without_tokens_no_web_page_gets_in() {
    let mut config = config(&[]);
    config.auth = crate::Auth { open: true, ..crate::Auth::default() };
    let bed = Bed::start(config).await;
    let send = async |name: &str, value: &str| {
        let mut request = Request::builder()
            .uri(format!("http://{}/v1/models", bed.address))
            .body(Full::default())
            .unwrap();
        request
            .headers_mut()
            .insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        bed.send(request).await
    };
    assert_eq!(send("accept", "*/*").await.status, 200);
    let got = send("origin", "https://evil.example").await;
    assert_eq!(
        (got.status.as_u16(), &got.json()["error"]["code"]),
        (403, &json!("origin_not_allowed"))
    );
    assert_eq!(send("host", "evil.example").await.json()["error"]["code"], "host_not_allowed");
    bed.stop().await;
}

#[tokio::test]
async fn wrong_requests_are_told_in_the_callers_dialect() {
    let fake = Fake::says(200, &[], "{}").await;
    let mut config = config(&[fake.provider("p", OPENAI)]);
    config.body_limit = 1_000;
    let bed = Bed::start(config).await;
    let long = format!("{{\"model\":\"p:m\",\"x\":\"{}\"}}", "y".repeat(300_000));
    for (body, status, says) in [
        ("{\"model\":", 400, "not valid JSON"),
        ("{\"messages\":[]}", 400, "`model`"),
        ("{\"model\":7}", 400, "`model`"),
        ("{\"model\":\"p:m\",\"stream\":1}", 400, "`stream`"),
        ("{\"model\":\"hint:none\"}", 404, "hint"),
        ("{\"model\":\"p:\"}", 404, "p:MODEL"),
        (&*long, 413, "1000 bytes"),
    ] {
        let openai = bed.post("/v1/chat/completions", body.to_owned()).await;
        assert_eq!(openai.status.as_u16(), status, "{body}");
        let error = openai.json()["error"].clone();
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
        assert!(error["type"].is_string() && error.get("param").is_some(), "{error}");
        if let Some(field) = says.strip_prefix('`') {
            assert_eq!(error["param"], field.trim_end_matches('`'), "{error}");
        }
        assert_eq!(openai.header("content-type"), "application/json");
        assert!(openai.header("x-request-id").starts_with("req_"));
        let anthropic = bed.post("/v1/messages", body.to_owned()).await;
        assert_eq!(anthropic.status.as_u16(), status, "{body}");
        assert_eq!(anthropic.json()["type"], "error");
        let error = anthropic.json()["error"].clone();
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
    }
    assert!(fake.seen().is_empty());
    // A body whose length nobody told.
    let mut stream = TcpStream::connect(bed.address).await.unwrap();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nx-api-key: {}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n",
        bed.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..4 {
        stream.write_all(format!("190\r\n{}\r\n", " ".repeat(400)).as_bytes()).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("request_too_large"), "{answer}");
    bed.stop().await;
}

/// A caller reads the answer only after it has sent everything.
#[tokio::test]
async fn a_refused_caller_hears_why_whatever_it_sends() {
    let bed = Bed::start(config(&[])).await;
    let body = "x".repeat(8_000_000);
    for (method, path, token, status) in [
        ("POST", "/v1/messages", "nonsense", 401),
        ("POST", "/v1/nothing", "nonsense", 401),
        ("PUT", "/v1/messages", &*bed.token, 405),
    ] {
        let mut stream = TcpStream::connect(bed.address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {token}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    bed.stop().await;
}

#[tokio::test]
async fn any_content_type_will_do_but_a_compressed_body() {
    let fake = Fake::says(200, &[], "{}").await;
    let bed = Bed::before(&fake).await;
    let send = async |name: &str, value: &str| {
        let request = bed
            .request("POST", "/v1/chat/completions")
            .header(name, value)
            .body(Full::new(chat("p:m").to_string().into()))
            .unwrap();
        bed.send(request).await.status
    };
    assert_eq!(send("content-type", "text/plain").await, 200);
    assert_eq!(fake.last().header("content-type"), "application/json");
    assert_eq!(send("content-encoding", "gzip").await, 415);
    bed.stop().await;
}

#[tokio::test]
async fn a_provider_that_cannot_be_called_is_named() {
    let mut off = provider_at("http://127.0.0.1:9/v1", "off", OPENAI);
    off["enabled"] = false.into();
    off["models"] = json!(["off-model"]);
    let mut keyless = provider_at("http://127.0.0.1:9/v1", "keyless", ANTHROPIC);
    keyless["api_key_envs"] = json!(["UNSET_A", "UNSET_B"]);
    keyless["models"] = json!(["claude"]);
    let bed = Bed::start(config(&[off, keyless])).await;
    for (model, status, code, says) in [
        ("off:x", 503, "provider_disabled", "enabled = true"),
        ("keyless:x", 503, "provider_has_no_key", "UNSET_A or UNSET_B"),
        ("claude", 503, "provider_has_no_key", "UNSET_A"),
        ("off-model", 503, "no_provider", "/v1/providers"),
        ("anything", 503, "no_provider", "/v1/providers"),
    ] {
        let got = bed.chat(&chat(model)).await;
        assert_eq!(got.status.as_u16(), status, "{model}");
        assert_eq!(got.header("x-should-retry"), "false", "{model}");
        let error = got.json()["error"].clone();
        assert_eq!(error["code"], code, "{model}");
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
        let got = bed.messages(&message(model)).await;
        assert_eq!(got.status.as_u16(), status, "{model}");
    }
    bed.stop().await;
}

#[tokio::test]
async fn a_provider_to_which_nobody_signed_in_says_how() {
    let codex = provider_at("http://127.0.0.1:9/v1", "codex", "codex_auth");
    let bed = Bed::start(config(&[codex])).await;
    let got = bed.chat(&chat("codex:x")).await;
    assert_eq!(got.status.as_u16(), 503);
    let error = got.json()["error"].clone();
    assert_eq!(error["code"], "provider_not_signed_in");
    let says = "run `evo gateway auth codex-auth --provider codex`";
    assert!(error["message"].as_str().unwrap().contains(says), "{error}");
    bed.stop().await;
}

#[tokio::test]
async fn a_provider_that_does_not_answer_is_told_apart() {
    let silent = bare(|stream| async move {
        tokio::time::sleep(GIVE_UP * 2).await;
        drop(stream);
    })
    .await;
    let closing = bare(|stream| async move { drop(stream) }).await;
    let stalls = bare(|mut stream: TcpStream| async move {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{";
        stream.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(GIVE_UP * 2).await;
    })
    .await;
    let switching = bare(|mut stream: TcpStream| async move {
        let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(GIVE_UP * 2).await;
    })
    .await;
    let redirect = Fake::says(307, &[("location", "http://elsewhere.example/")], "").await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let at = |address: SocketAddr, name| provider_at(&format!("http://{address}/v1"), name, OPENAI);
    let mut config = config(&[
        at(silent.0, "silent"),
        at(closing.0, "closing"),
        at(free, "gone"),
        at(stalls.0, "stalls"),
        at(switching.0, "switching"),
        redirect.provider("redirect", OPENAI),
    ]);
    config.timeouts.first_byte_ms = Some(200);
    config.timeouts.idle_ms = Some(200);
    let bed = Bed::start(config).await;
    for (name, status, code) in [
        ("silent", 504, "upstream_timeout"),
        ("closing", 502, "upstream_dropped"),
        ("gone", 502, "upstream_unreachable"),
        ("redirect", 502, "upstream_redirect"),
        ("switching", 502, "upstream_bad_answer"),
    ] {
        let got = bed.chat(&chat(&format!("{name}:m"))).await;
        assert_eq!(got.status.as_u16(), status, "{name}");
        let error = got.json()["error"].clone();
        assert_eq!(error["code"], code, "{name}");
        assert!(error["message"].as_str().unwrap().contains(&format!("`{name}`")), "{error}");
        assert!(got.headers.get("location").is_none());
        assert_eq!(got.header("x-evo-provider"), name);
        assert_eq!(bed.messages(&message(&format!("{name}:m"))).await.status.as_u16(), status);
    }
    let got = bed.chat(&chat("gone:m")).await.json();
    let told = got["error"]["message"].as_str().unwrap();
    assert!(told.contains(&format!("`gone` can't be reached at {free}: ")), "{told}");
    assert!(told.ends_with("check its `base_url`, and that its server runs."), "{told}");
    for got in [bed.chat(&chat("stalls:m")).await, bed.messages(&message("stalls:m")).await] {
        assert_eq!(got.status, 504);
        assert!(got.text().contains("fell silent"), "{got:?}");
    }
    bed.stop().await;
}

/// 200 is not the only status that means an answer, and none of them is one by itself.
#[tokio::test]
async fn a_success_without_an_answer_is_none() {
    let fake = Fake::start(|seen| async move {
        let (status, body) = match seen.json()["model"].as_str().unwrap() {
            "none" => (204, ""),
            "reset" => (205, ""),
            "part" => (206, "{\"choices\":"),
            _ => (201, "{\"choices\":[]}"),
        };
        Response::builder().status(status).body(Body::from(body)).unwrap()
    })
    .await;
    let bed = Bed::before(&fake).await;
    for model in ["none", "reset", "part"] {
        for body in [chat(&format!("p:{model}")), streamed(chat(&format!("p:{model}")))] {
            let got = bed.chat(&body).await;
            let code = &got.json()["error"]["code"];
            assert_eq!(
                (got.status.as_u16(), code),
                (502, &json!("upstream_bad_answer")),
                "{model}"
            );
        }
    }
    let got = bed.chat(&chat("p:made")).await;
    assert_eq!((got.status.as_u16(), got.text()), (201, "{\"choices\":[]}"));
    // Who waits for events would see none in it.
    let got = bed.chat(&streamed(chat("p:made"))).await;
    assert_eq!(got.status, 502);
    assert!(got.text().contains("sent no stream"), "{}", got.text());
    bed.stop().await;
}

#[tokio::test]
async fn a_total_limit_is_for_answers_that_are_no_streams() {
    let fake = Fake::start(|_| async {
        let chunks = futures_util::stream::unfold(0, |count| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            (count < 6).then_some((Ok::<_, std::io::Error>("data: 1\n\n"), count + 1))
        });
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(Body::from_stream(chunks))
            .unwrap()
    })
    .await;
    let mut config = config(&[fake.provider("p", OPENAI)]);
    config.timeouts.total_ms = Some(300);
    let bed = Bed::start(config).await;
    assert!(!bed.chat(&chat("p:m")).await.whole);
    assert!(bed.chat(&streamed(chat("p:m"))).await.whole);
    bed.stop().await;
}

#[tokio::test]
async fn the_rate_limit_of_a_provider_is_kept() {
    let fake = Fake::says(200, &[], "{}").await;
    let mut provider = fake.provider("p", OPENAI);
    provider["rate_limit"] = json!({"requests_per_minute": 6, "burst_size": 2});
    let bed = Bed::start(config(&[provider])).await;
    for _ in 0..2 {
        assert_eq!(bed.chat(&chat("p:m")).await.status, 200);
    }
    let got = bed.chat(&chat("p:m")).await;
    assert_eq!((got.status.as_u16(), got.header("retry-after")), (429, "10"));
    assert_eq!(got.json()["error"]["type"], "rate_limit_error");
    let got = bed.messages(&message("p:m")).await;
    assert_eq!(got.json()["error"]["type"], "rate_limit_error");
    assert_eq!(fake.seen().len(), 2);
    bed.stop().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_in_json() {
    let bed = Bed::start(config(&[])).await;
    let got = bed.get("/v1/nothing").await;
    assert_eq!((got.status.as_u16(), &got.json()["error"]["code"]), (404, &json!("no_such_route")));
    for path in ["/v1/models/%ff", "/v1beta/models/%ff"] {
        let got = bed.get(path).await;
        assert_eq!(got.status, 400, "{path}");
        let told = got.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(told.starts_with("The path can't be read"), "{told}");
    }
    for (method, path) in
        [("GET", "/v1/chat/completions"), ("GET", "/v1/messages"), ("DELETE", "/v1/models")]
    {
        let request = bed.request(method, path).body(Full::default()).unwrap();
        let got = bed.send(request).await;
        assert_eq!(got.status, 405, "{path}");
        assert_eq!(got.json()["error"]["code"], "method_not_allowed", "{path}");
        assert!(!got.header("allow").is_empty(), "{path}");
    }
    bed.stop().await;
}
