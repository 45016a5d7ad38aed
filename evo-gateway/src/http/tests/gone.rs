//! Callers that leave while several providers are asked, and the end of the gateway.

use futures_util::stream;

use super::{streams::forsaken, *};

/// Two words, and then the connection is cut.
const CUT: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n43\r\ndata: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n\r\n";

async fn bed(providers: &[Value], reliability: Value) -> Bed {
    let mut config = config(providers);
    config.gateway.reliability = Some(serde_json::from_value(reliability).unwrap());
    Bed::start(config).await
}

fn at(address: SocketAddr, name: &str) -> Value {
    provider_at(&format!("http://{address}/v1"), name, OPENAI)
}

#[tokio::test]
async fn who_loses_is_told_and_both_are_when_the_caller_leaves() {
    let (slow, _tasks, asked) = forsaken("").await;
    let answer = r#"{"id":"c","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}"#;
    let quick = Fake::says(200, &[("content-type", "application/json")], answer).await;
    let rules = json!({"hedge_after_ms": 30, "fallback_chain": ["other"], "max_retries": 0});
    let won = bed(&[at(slow, "slow"), quick.provider("other", OPENAI)], rules.clone()).await;
    let got = won.chat(&chat("slow:m")).await;
    assert_eq!((got.status.as_u16(), got.header("x-evo-provider")), (200, "other"));
    until(|| asked.lock().unwrap()[1]).await;
    won.stop().await;

    for body in [chat("one:m"), streamed(chat("one:m"))] {
        let (one, _one, first) = forsaken("").await;
        let (two, _two, second) = forsaken("").await;
        let left = bed(&[at(one, "one"), at(two, "other")], rules.clone()).await;
        let caller = left.raw("/v1/chat/completions", &body.to_string()).await;
        until(|| first.lock().unwrap()[0] && second.lock().unwrap()[0]).await;
        assert!(!first.lock().unwrap()[1] && !second.lock().unwrap()[1]);
        drop(caller);
        until(|| first.lock().unwrap()[1] && second.lock().unwrap()[1]).await;
        left.stop().await;
    }
}

#[tokio::test]
async fn a_caller_that_leaves_while_a_stream_is_rescued_takes_the_rescuer_along() {
    for path in ["/v1/chat/completions", "/v1/messages"] {
        // Answers once and then falls silent, also when it is asked to go on.
        let (first, _first) = bare(|mut stream| async move {
            stream.write_all(CUT.as_bytes()).await.unwrap();
        })
        .await;
        let (second, _second, rescuer) = forsaken("").await;
        let rules = json!({"fallback_chain": ["second"], "max_retries": 0});
        let bed = bed(&[at(first, "first"), at(second, "second")], rules).await;
        let mut body = streamed(chat("first:m"));
        body["max_tokens"] = 5.into();
        let mut caller = bed.raw(path, &body.to_string()).await;
        let mut head = [0; 12];
        caller.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        until(|| rescuer.lock().unwrap()[0]).await;
        assert!(!rescuer.lock().unwrap()[1], "{path}");
        drop(caller);
        until(|| rescuer.lock().unwrap()[1]).await;
        bed.stop().await;
    }
}

/// A provider whose stream takes about half a second.
async fn half_a_second() -> Fake {
    Fake::start(|_| async {
        let chunks = stream::unfold(0, |count| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let chunk = if count < 9 {
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n"
            } else {
                "data: [DONE]\n\n"
            };
            (count < 10).then_some((Ok::<_, std::io::Error>(chunk), count + 1))
        });
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(Body::from_stream(chunks))
            .unwrap()
    })
    .await
}

#[tokio::test]
async fn answers_in_hand_have_as_long_as_the_configuration_gives_them() {
    for (drain, whole) in [(20_000, true), (100, false)] {
        let fake = half_a_second().await;
        let mut bed = bed(&[fake.provider("p", OPENAI)], json!({"drain_ms": drain})).await;
        let mut caller = bed.raw("/v1/chat/completions", &streamed(chat("p:m")).to_string()).await;
        let mut first = [0; 12];
        caller.read_exact(&mut first).await.unwrap();
        bed.shutdown.cancel();
        let mut answer = Vec::new();
        let read = caller.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer.ends_with("0\r\n\r\n"), whole, "{drain}: {read:?} {answer}");
        assert_eq!(answer.contains("[DONE]"), whole, "{drain}: {answer}");
        assert_eq!(answer.contains("gateway_stopped"), !whole, "{drain}: {answer}");
        bed.tasks.join_next().await.unwrap().unwrap();
        assert!(TcpStream::connect(bed.address).await.is_err());
    }
}

/// Connections of this process with that port at either end which are open, or which the other side has
/// closed and this one has not.
fn connections(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let is_of = |address: &str| {
        let end = address.rsplit(':').next().unwrap_or_default();
        u16::from_str_radix(end, 16).is_ok_and(|found| found == port)
    };
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| (is_of(row[1]) || is_of(row[2])) && matches!(row[3], "01" | "08")).count()
}

/// Asks a hundred times, ten at once, and leaves as soon as the provider has been asked, or has begun to
/// answer. Afterwards no connection is left, at neither side.
async fn leave_a_hundred_times(bed: Bed, provider: SocketAddr, paths: &[&str], body: &Value) {
    for round in 0..10 {
        let path = paths[round % paths.len()];
        let mut callers = Vec::new();
        for _ in 0..10 {
            callers.push(bed.raw(path, &body.to_string()).await);
        }
        // Ten at the gateway, at both ends, and ten at the provider.
        until(|| connections(provider.port()) >= 20).await;
        if body["stream"] == true {
            for caller in &mut callers {
                let mut head = [0; 12];
                caller.read_exact(&mut head).await.unwrap();
                assert_eq!(&head, b"HTTP/1.1 200");
            }
        }
        drop(callers);
        until(|| connections(provider.port()) == 0).await;
    }
    until(|| connections(bed.address.port()) == 0).await;
    let open = bed.get("/metrics").await.text().to_owned();
    assert!(open.contains("evo_gateway_requests_open 1\n"), "more than this one: {open}");
    bed.stop().await;
}

#[tokio::test]
async fn a_hundred_callers_that_left_leave_no_connection_to_a_provider() {
    let stream = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n43\r\ndata: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n\r\n";
    for (answer, mut body) in [(stream, streamed(chat("p:m"))), ("", chat("p:m"))] {
        let (address, _tasks) = bare(move |mut stream| async move {
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut rest = [0; 1024];
            while !matches!(stream.read(&mut rest).await, Ok(0) | Err(_)) {}
        })
        .await;
        body["max_tokens"] = 5.into();
        let bed = bed(&[at(address, "p")], json!({"max_retries": 0})).await;
        // As it is, and translated.
        let paths = ["/v1/chat/completions", "/v1/messages"];
        leave_a_hundred_times(bed, address, &paths, &body).await;
    }
}

/// A provider that opens WebSockets, sends these events to whoever asks and is silent then.
async fn sockets(events: &'static [&'static str]) -> (SocketAddr, JoinSet<()>) {
    use futures_util::{SinkExt as _, StreamExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            open.spawn(async move {
                // The list of models is asked for without one.
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() {
                        for event in events {
                            socket.send((*event).into()).await.unwrap();
                        }
                    }
                }
            });
        }
    });
    (address, tasks)
}

#[tokio::test]
async fn a_hundred_callers_that_left_leave_no_web_socket() {
    const BEGUN: &[&str] = &[
        r#"{"type":"response.created","response":{"id":"resp_1","object":"response","model":"m","output":[]}}"#,
        r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"message","id":"msg_1","role":"assistant","content":[]}}"#,
        r#"{"type":"response.output_text.delta","item_id":"msg_1","output_index":0,"content_index":0,"delta":"Hi"}"#,
    ];
    for (events, body) in [(BEGUN, streamed(chat("codex:m"))), (&[][..], chat("codex:m"))] {
        let (address, _tasks) = sockets(events).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials.json");
        let signed_in = json!({"access_token": "good", "updated_at": "2026-01-01T00:00:00Z"});
        std::fs::write(&file, json!({"providers": {"codex": signed_in}}).to_string()).unwrap();
        let url = format!("http://{address}/v1");
        let mut config = config(&[provider_at(&url, "codex", "codex_auth")]);
        config.sign_in.file = Some(file);
        config.sign_in.codex_transport = crate::config::CodexTransport::WebSocket;
        let bed = Bed::start(config).await;
        leave_a_hundred_times(bed, address, &["/v1/chat/completions"], &body).await;
    }
}
