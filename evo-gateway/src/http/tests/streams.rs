//! Streams, broken ones, callers that leave, and the end of the gateway.

use futures_util::stream;

use super::*;

fn events(chunks: &[&'static str]) -> Response<Body> {
    let chunks: Vec<Result<Bytes, std::io::Error>> =
        chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect();
    let kind = ("content-type", "text/event-stream; charset=utf-8");
    Response::builder()
        .header(kind.0, kind.1)
        .body(Body::from_stream(stream::iter(chunks)))
        .unwrap()
}

/// Odd but legal: CRLF, no space, comments, Unicode line separators, a chunk that ends in a letter.
const CHUNKS: [&str; 5] =
    [": hi\r\n\r\ndata:{\"a\":\"\u{2028}", "ä\"}\r\n\r", "\n", "data: [DONE]\n", "\n"];

#[tokio::test]
async fn a_stream_passes_byte_for_byte() {
    let fake = Fake::start(|_| async { events(&CHUNKS) }).await;
    let bed = Bed::before(&fake).await;
    let got = bed.chat(&streamed(chat("p:m"))).await;
    assert_eq!((got.text(), got.whole), (&*CHUNKS.concat(), true));
    assert_eq!(got.header("content-type"), "text/event-stream; charset=utf-8");
    bed.stop().await;
}

#[tokio::test]
async fn chunks_do_not_wait_for_one_another() {
    let fake = Fake::start(|_| async {
        let chunks = stream::unfold(0, |count| async move {
            if count > 0 {
                // Longer than the test waits.
                tokio::time::sleep(GIVE_UP * 2).await;
            }
            Some((Ok::<_, std::io::Error>("data: 1\n\n"), count + 1))
        });
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(Body::from_stream(chunks))
            .unwrap()
    })
    .await;
    let bed = Bed::before(&fake).await;
    let body = streamed(chat("p:m")).to_string();
    let request = bed.request("POST", "/v1/chat/completions").body(Full::new(body.into())).unwrap();
    let mut answer = bed.open(request).await.into_body();
    let first = tokio::time::timeout(GIVE_UP / 2, answer.frame()).await.unwrap().unwrap();
    assert_eq!(first.unwrap().into_data().unwrap(), "data: 1\n\n");
}

const ANTHROPIC_STREAM: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello\"}}\n\n";
const ANTHROPIC_END: &str = "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":2}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

#[tokio::test]
async fn a_stream_is_translated() {
    let fake = Fake::start(|_| async { events(&[ANTHROPIC_STREAM, ANTHROPIC_END]) }).await;
    let bed = Bed::start(config(&[fake.provider("a", ANTHROPIC)])).await;
    let mut body = streamed(chat("a:claude"));
    body["stream_options"] = json!({"include_usage": true});
    let got = bed.chat(&body).await;
    assert!(got.header("content-type").starts_with("text/event-stream"), "{got:?}");
    assert!(got.whole && got.text().ends_with("data: [DONE]\n\n"), "{}", got.text());
    assert!(got.text().contains("\"content\":\"Hello\""), "{}", got.text());
    assert!(got.text().contains("\"prompt_tokens\":3"), "{}", got.text());
    assert_eq!(fake.last().json()["stream"], true);
    bed.stop().await;
}

/// A provider whose stream is `text` and then nothing, on a connection that ends, or not.
async fn broken(head: &'static str, text: &'static str, ends: bool) -> (SocketAddr, JoinSet<()>) {
    bare(move |mut stream| async move {
        let chunk = if head.contains("chunked") {
            format!("{:x}\r\n{text}\r\n", text.len())
        } else {
            text.to_owned()
        };
        let answer = format!("{head}content-type: text/event-stream\r\n\r\n{chunk}");
        stream.write_all(answer.as_bytes()).await.unwrap();
        if !ends {
            tokio::time::sleep(GIVE_UP * 2).await;
        }
    })
    .await
}

const CHUNK: &str =
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n";
const UNTIL_CLOSED: &str = "HTTP/1.1 200 OK\r\n";

/// A gateway before that provider, which may be silent for a moment only.
async fn impatient(address: SocketAddr, kind: &str) -> Bed {
    let mut config = config(&[provider_at(&format!("http://{address}/v1"), "p", kind)]);
    config.timeouts.idle_ms = Some(200);
    Bed::start(config).await
}

#[tokio::test]
async fn a_cut_stream_never_ends_as_if_it_were_whole() {
    for (head, ends, code) in [
        (CHUNKED, true, "upstream_cut"),
        (UNTIL_CLOSED, true, "upstream_cut"),
        (CHUNKED, false, "upstream_idle_timeout"),
        (UNTIL_CLOSED, false, "upstream_idle_timeout"),
    ] {
        let (address, _tasks) = broken(head, CHUNK, ends).await;
        let bed = impatient(address, OPENAI).await;
        let got = bed.chat(&streamed(chat("p:m"))).await;
        let mut parts = got.text().split_inclusive("\n\n");
        assert_eq!(parts.next(), Some(CHUNK), "{head}");
        let last = parts.next().unwrap_or_default().strip_prefix("data: ").unwrap_or_default();
        let error: Value = serde_json::from_str(last).unwrap();
        assert_eq!(error["error"]["code"], code, "{head}");
        assert!(!got.whole, "{head}: the connection must be cut");
        bed.stop().await;

        let (address, _tasks) = broken(head, ANTHROPIC_STREAM, ends).await;
        let bed = impatient(address, ANTHROPIC).await;
        let got = bed.messages(&streamed(message("p:m"))).await;
        assert!(got.text().starts_with(ANTHROPIC_STREAM), "{got:?}");
        assert!(got.text().contains("\n\nevent: error\ndata: {\"type\":\"error\""), "{got:?}");
        assert!(!got.whole, "{head}");
        bed.stop().await;

        // Translated: the converter says so.
        let bed = impatient(address, ANTHROPIC).await;
        let got = bed.chat(&streamed(chat("p:m"))).await;
        assert!(got.text().contains("Hello") && got.text().contains("\"error\""), "{got:?}");
        assert!(!got.whole && !got.text().contains("[DONE]"), "{head}: {got:?}");
        bed.stop().await;
    }
}

#[tokio::test]
async fn half_an_event_does_not_go_out() {
    const HALF: &str = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\ndata: {\"b";
    let (address, _tasks) = broken(CHUNKED, HALF, true).await;
    let bed = impatient(address, OPENAI).await;
    let got = bed.chat(&streamed(chat("p:m"))).await;
    let rest = got.text().strip_prefix(CHUNK).unwrap();
    assert!(rest.starts_with("data: {\"error\":") && rest.ends_with("}\n\n"), "{rest}");
    assert!(!got.whole);
    bed.stop().await;
}

/// As long as nothing has gone out, an error is told by its status.
#[tokio::test]
async fn a_stream_that_breaks_off_before_it_has_content_is_an_error() {
    const ROLE: &str = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
    for (ends, status, code) in
        [(true, 502, "upstream_cut"), (false, 504, "upstream_content_timeout")]
    {
        let (address, _tasks) = broken(CHUNKED, ROLE, ends).await;
        let mut config = config(&[provider_at(&format!("http://{address}/v1"), "p", OPENAI)]);
        config.timeouts.first_content_ms = Some(200);
        let bed = Bed::start(config).await;
        for got in
            [bed.chat(&streamed(chat("p:m"))).await, bed.messages(&streamed(message("p:m"))).await]
        {
            assert_eq!((got.status.as_u16(), got.whole), (status, true), "{got:?}");
            assert_eq!(got.json()["error"]["code"], code);
        }
        bed.stop().await;
    }
}

#[tokio::test]
async fn a_stream_that_ends_with_its_connection_is_whole_when_it_says_so() {
    let text = "data: {\"a\":1}\n\ndata: [DONE]\n\n";
    let (address, _tasks) = broken(UNTIL_CLOSED, text, true).await;
    let bed = impatient(address, OPENAI).await;
    let got = bed.chat(&streamed(chat("p:m"))).await;
    assert_eq!((got.text(), got.whole), (text, true));
    bed.stop().await;
}

/// The length that was announced is not passed on, so that there is room for an event more.
#[tokio::test]
async fn a_cut_stream_of_known_length_is_told_too() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 200\r\n";
    for ends in [true, false] {
        let (address, _tasks) = broken(HEAD, CHUNK, ends).await;
        let bed = impatient(address, OPENAI).await;
        let got = bed.chat(&streamed(chat("p:m"))).await;
        assert!(got.text().starts_with(CHUNK) && got.text().contains("\"error\""), "{got:?}");
        assert!(!got.whole);
        bed.stop().await;
    }
}

/// Many providers send the head at once, and then think for longer than they may be silent later.
#[tokio::test]
async fn the_first_piece_has_as_long_as_the_first_byte() {
    let slow = |kind: &'static str, body: &'static str| {
        Fake::start(move |_| async move {
            let pieces = stream::once(async move {
                tokio::time::sleep(Duration::from_millis(600)).await;
                Ok::<_, std::io::Error>(body)
            });
            Response::builder()
                .header("content-type", kind)
                .body(Body::from_stream(pieces))
                .unwrap()
        })
    };
    let answer = r#"{"id":"c","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}"#;
    let json = slow("application/json", answer).await;
    let events = slow("text/event-stream", OPENAI_STREAM).await;
    let mut config = config(&[json.provider("json", OPENAI), events.provider("events", OPENAI)]);
    config.timeouts.idle_ms = Some(200);
    let bed = Bed::start(config).await;
    for got in [
        bed.chat(&chat("json:m")).await,
        bed.messages(&message("json:m")).await,
        bed.chat(&streamed(chat("events:m"))).await,
        bed.messages(&streamed(message("events:m"))).await,
    ] {
        assert!(got.status == 200 && got.whole && !got.text().contains("error"), "{got:?}");
    }
    bed.stop().await;
}

const OPENAI_STREAM: &str = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
const OPENAI_FAILED: &str = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\ndata: {\"error\":{\"message\":\"Oh.\"}}\n\n";

/// A provider that says everything and then keeps its connection open.
#[tokio::test]
async fn a_translated_stream_ends_with_its_last_event() {
    let (address, _tasks) = broken(CHUNKED, OPENAI_STREAM, false).await;
    // As long as the test waits: only the end mark ends it.
    let bed =
        Bed::start(config(&[provider_at(&format!("http://{address}/v1"), "p", OPENAI)])).await;
    let got = bed.messages(&streamed(message("p:m"))).await;
    assert!(got.whole && got.text().ends_with("{\"type\":\"message_stop\"}\n\n"), "{got:?}");
    bed.stop().await;

    let (address, _tasks) = broken(CHUNKED, OPENAI_FAILED, false).await;
    let bed = impatient(address, OPENAI).await;
    let got = bed.messages(&streamed(message("p:m"))).await;
    // Nothing of it has gone out yet.
    assert!(got.status == 502 && got.text().contains("Oh."), "{got:?}");
    bed.stop().await;

    // All but the end mark, as some servers have it.
    let unmarked = OPENAI_STREAM.strip_suffix("data: [DONE]\n\n").unwrap();
    let (address, _tasks) = broken(CHUNKED, unmarked, false).await;
    let bed = impatient(address, OPENAI).await;
    let got = bed.messages(&streamed(message("p:m"))).await;
    assert!(got.whole && got.text().ends_with("{\"type\":\"message_stop\"}\n\n"), "{got:?}");
    bed.stop().await;
}

/// A provider on a bare socket that tells when its caller has gone.
pub(super) async fn forsaken(
    answer: &'static str,
) -> (SocketAddr, JoinSet<()>, Arc<Mutex<[bool; 2]>>) {
    let state = Arc::new(Mutex::new([false; 2]));
    let told = state.clone();
    let (address, tasks) = bare(move |mut stream| {
        let told = told.clone();
        async move {
            stream.write_all(answer.as_bytes()).await.unwrap();
            told.lock().unwrap()[0] = true;
            let mut rest = [0; 1024];
            while !matches!(stream.read(&mut rest).await, Ok(0) | Err(_)) {}
            told.lock().unwrap()[1] = true;
        }
    })
    .await;
    (address, tasks, state)
}

#[tokio::test]
async fn a_caller_that_leaves_takes_its_request_along() {
    let stream = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n43\r\ndata: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n\r\n";
    for (answer, body) in [
        (stream, streamed(chat("p:m"))),
        // Not even a head.
        ("", chat("p:m")),
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", chat("p:m")),
    ] {
        for path in ["/v1/chat/completions", "/v1/messages"] {
            let mut body = body.clone();
            body["max_tokens"] = 5.into();
            let (address, _tasks, state) = forsaken(answer).await;
            let bed =
                Bed::start(config(&[provider_at(&format!("http://{address}/v1"), "p", OPENAI)]))
                    .await;
            let mut caller = bed.raw(path, &body.to_string()).await;
            until(|| state.lock().unwrap()[0]).await;
            if answer == stream && path == "/v1/chat/completions" {
                let mut head = [0; 12];
                caller.read_exact(&mut head).await.unwrap();
                assert_eq!(&head, b"HTTP/1.1 200");
            }
            assert!(!state.lock().unwrap()[1]);
            drop(caller);
            until(|| state.lock().unwrap()[1]).await;
            bed.stop().await;
        }
    }
}

#[tokio::test]
async fn answers_in_hand_end_before_the_gateway_does() {
    let fake = Fake::start(|_| async {
        let chunks = stream::unfold(0, |count| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let chunk = if count < 4 { "data: 1\n\n" } else { "data: [DONE]\n\n" };
            (count < 5).then_some((Ok::<_, std::io::Error>(chunk), count + 1))
        });
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(Body::from_stream(chunks))
            .unwrap()
    })
    .await;
    let mut bed = Bed::before(&fake).await;
    let mut caller = bed.raw("/v1/chat/completions", &streamed(chat("p:m")).to_string()).await;
    until(|| !fake.seen().is_empty()).await;
    bed.shutdown.cancel();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("data: [DONE]") && answer.ends_with("0\r\n\r\n"), "{answer}");
    bed.tasks.join_next().await.unwrap().unwrap();
    assert!(TcpStream::connect(bed.address).await.is_err());
}
