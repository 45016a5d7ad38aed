//! The client against a gateway that behaves as a script says.

pub(crate) mod fake;

use std::time::Duration;

use serde_json::json;

use self::fake::{FakeGateway, MODEL, Reply, says, stream_of, stream_with};
use super::*;

const LIMIT: Duration = Duration::from_secs(20);

fn hello() -> ChatRequest {
    ChatRequest::new("Be brief.", "Say hello.").max_tokens(10)
}

fn named(model: &str) -> ModelSettings {
    ModelSettings { model: Some(model.to_owned()), ..ModelSettings::default() }
}

fn usage(calls: u32, cost_usd: f64) -> ModelUsage {
    ModelUsage {
        calls,
        input_tokens: 1_000 * u64::from(calls),
        output_tokens: 500 * u64::from(calls),
        cost_usd: Some(cost_usd),
    }
}

#[tokio::test]
async fn the_first_chat_model_is_asked_with_run_stage_and_token() {
    let gateway = FakeGateway::start(|_, _| says("Hello.")).await;
    let deadline = Timestamp::now().plus_ms(60_000);
    let client = gateway.client().for_attempt("run-7", PipelineStage::PreLoad, deadline);
    let answer = client.chat(&hello(), LIMIT).await.unwrap();
    assert_eq!((answer.text.as_str(), answer.model.as_str()), ("Hello.", MODEL));
    assert_eq!(answer.finish_reason.as_deref(), Some("stop"));
    assert_eq!(answer.usage, usage(1, 0.002));
    assert_eq!(client.usage(), usage(1, 0.002));
    let seen = &gateway.seen()[0];
    let header = |name: &str| seen.headers.get(name).and_then(|value| value.to_str().ok());
    assert_eq!(header("x-evo-run-id"), Some("run-7"));
    assert_eq!(header("x-evo-stage"), Some(PipelineStage::PreLoad.as_str()));
    let expected = json!({
        "model": MODEL, "max_tokens": 10, "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Say hello."},
        ],
    });
    assert_eq!(seen.body, expected);
    assert_eq!(gateway.client().usage(), ModelUsage::default(), "every attempt counts on its own");
}

#[tokio::test]
async fn the_operator_may_name_a_model_or_none() {
    let gateway = FakeGateway::start(|_, _| says("Hello.")).await;
    let client =
        |model: &str| GatewayClient::new(&gateway.url(), Some(fake::TOKEN.into()), named(model));
    let answer = client("other:model").chat(&hello(), LIMIT).await.unwrap();
    assert_eq!((answer.model.as_str(), answer.usage.cost_usd), ("other:model", None));
    assert_eq!(client(MODEL).chat(&hello(), LIMIT).await.unwrap().usage.cost_usd, Some(0.002));
    assert_eq!(client(NO_MODEL).chat(&hello(), LIMIT).await, Err(Error::NoModel));
    let named = ChatRequest { model: Some("x:y".to_owned()), ..hello() };
    assert_eq!(client(NO_MODEL).chat(&named, LIMIT).await.unwrap().model, "x:y");
}

#[tokio::test]
async fn without_a_model_that_is_known_at_once() {
    let only_others =
        json!([{"id": "a:text-embedding-3"}, {"id": "a:whisper-1"}, {"id": "b:tts-1"}]);
    let gateway = FakeGateway::listing(only_others, |_, _| says("no")).await;
    assert_eq!(gateway.client().chat(&hello(), LIMIT).await, Err(Error::NoModel));

    let wrong = GatewayClient::new(&gateway.url(), Some("wrong".into()), ModelSettings::default());
    assert_eq!(wrong.model().await, None);
    assert!(matches!(
        wrong.models(LIMIT).await,
        Err(Error::Refused { status: 401, code, message }) if code == "fake_error" && message == "wrong token"
    ));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = GatewayClient::new(&format!("http://{closed}"), None, ModelSettings::default());
    assert_eq!(nobody.model().await, None);
    let named = ChatRequest { model: Some("x:y".to_owned()), ..hello() };
    let error = nobody.chat(&named, LIMIT).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable { .. }) && error.is_transient(), "{error}");

    // It takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let silent = GatewayClient::new(&format!("http://{address}"), None, ModelSettings::default());
    let started = Instant::now();
    assert_eq!(silent.model().await, None);
    assert!(started.elapsed() < Duration::from_millis(2_500), "{:?}", started.elapsed());
    let started = Instant::now();
    assert_eq!(silent.model().await, None);
    assert!(started.elapsed() < Duration::from_millis(50), "it is not looked up again at once");

    // Nor does looking for a model outlast the call that needs one.
    let address = format!("http://{address}");
    let silent = GatewayClient::new(&address, None, ModelSettings::default());
    let started = Instant::now();
    let short = Duration::from_millis(200);
    assert_eq!(silent.chat(&hello(), short).await, Err(Error::Deadline { ms: 200 }));
    assert!(started.elapsed() < Duration::from_millis(1_500), "{:?}", started.elapsed());
}

#[tokio::test]
async fn errors_that_pass_are_tried_again() {
    let gateway = FakeGateway::start(|number, _| match number {
        1 => Reply::Error(429, Some("1")),
        2 => Reply::Error(503, None),
        _ => says("Hello."),
    })
    .await;
    let started = Instant::now();
    let client = gateway.client();
    assert_eq!(client.chat(&hello(), LIMIT).await.unwrap().text, "Hello.");
    assert!(started.elapsed() >= Duration::from_secs(1), "Retry-After was obeyed");
    assert_eq!((gateway.seen().len(), client.usage().calls), (3, 1));
}

#[tokio::test]
async fn errors_that_stay_are_told_at_once() {
    let gateway = FakeGateway::start(|_, body| match body["messages"][1]["content"].as_str() {
        Some("later") => Reply::Error(429, Some("3600")),
        Some("down") => Reply::Error(503, None),
        Some("empty") => says(" \n"),
        Some("html") => Reply::Raw("<html>"),
        _ => Reply::Error(400, None),
    })
    .await;
    let client = gateway.client();
    let error =
        async |text: &str| client.chat(&ChatRequest::new("s", text), LIMIT).await.unwrap_err();
    let refused = |status: u16| Error::Refused {
        status,
        code: "fake_error".to_owned(),
        message: format!("fake error {status}"),
    };
    assert_eq!(error("bad").await, refused(400));
    assert_eq!(error("later").await, refused(429), "an hour is not waited for");
    assert_eq!(gateway.seen().len(), 2);
    assert_eq!(error("down").await, refused(503));
    assert_eq!(gateway.seen().len(), 5);
    assert_eq!(error("empty").await, Error::Malformed("it holds no text".to_owned()));
    assert!(
        matches!(error("html").await, Error::Malformed(message) if message.contains("no chat completion"))
    );
}

#[tokio::test]
async fn neither_the_limit_nor_the_attempt_is_outlasted() {
    let gateway = FakeGateway::start(|_, _| Reply::Hangs).await;
    let client = gateway.client();
    let started = Instant::now();
    let short = Duration::from_millis(200);
    assert_eq!(client.chat(&hello(), short).await, Err(Error::Deadline { ms: 200 }));
    let deadline = Timestamp::now().plus_ms(300);
    let attempt = client.for_attempt("run-1", PipelineStage::Building, deadline);
    assert!(matches!(attempt.chat(&hello(), LIMIT).await, Err(Error::Deadline { ms: ..=300 })));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_useless_answer_is_asked_for_once_more() {
    let gateway = FakeGateway::start(|number, _| match number {
        2 => says("Sorry:\n```json\n[1, 2]\n```"),
        _ => says("One and two."),
    })
    .await;
    let client = gateway.client();
    let answer = client.chat_json::<Vec<u8>>(&hello(), 1, LIMIT).await.unwrap();
    assert_eq!((answer.value, answer.usage), (vec![1, 2], usage(2, 0.004)));
    let asked = gateway.seen()[1].body["messages"].clone();
    assert_eq!(asked[2], json!({"role": "assistant", "content": "One and two."}));
    assert!(asked[3]["content"].as_str().unwrap().contains("the answer holds no JSON"));
    let error = client.chat_json::<Vec<u8>>(&hello(), 0, LIMIT).await.unwrap_err();
    assert_eq!(error, Error::Malformed("the answer holds no JSON".to_owned()));
    assert_eq!(client.usage().calls, 3);
}

#[tokio::test]
async fn a_stream_keeps_every_character_however_it_is_cut() {
    let pieces = ["Grüße, ", "日本語 ", "👩‍💻", "\u{2028}."];
    let gateway = FakeGateway::start(move |_, _| {
        Reply::Chunks(stream_of(&pieces).chunks(7).map(<[u8]>::to_vec).collect())
    })
    .await;
    let client = gateway.client();
    let mut stream = client.chat_stream(&hello(), LIMIT).await.unwrap();
    let mut heard = Vec::new();
    while let Some(piece) = stream.next().await {
        heard.push(piece.unwrap());
    }
    assert_eq!(heard, pieces);
    let answer = stream.finish().unwrap();
    assert_eq!((answer.text, answer.finish_reason.as_deref()), (pieces.concat(), Some("stop")));
    let expected =
        ModelUsage { calls: 1, input_tokens: 10, output_tokens: 4, cost_usd: Some(0.000_018) };
    assert_eq!((answer.usage, client.usage()), (expected.clone(), expected));
    let body = &gateway.seen()[0].body;
    assert_eq!(
        (&body["stream"], &body["stream_options"]),
        (&json!(true), &json!({"include_usage": true}))
    );
}

#[tokio::test]
async fn a_stream_that_is_cut_or_silent_is_an_error() {
    let gateway = FakeGateway::start(|_, body| {
        let start = stream_of(&["Hel", "lo"]);
        let start = start[..start.len() / 3].to_vec();
        match body["messages"][1]["content"].as_str() {
            Some("cut") => Reply::Chunks(vec![start]),
            Some("broken") => Reply::Broken(vec![start]),
            Some("error") => Reply::Chunks(vec![
                b"data: {\"error\": {\"message\": \"overloaded\", \"code\": \"busy\"}}\n\n"
                    .to_vec(),
            ]),
            _ => Reply::Hangs,
        }
    })
    .await;
    let client = gateway.client();
    let error = async |text: &str| {
        let stream = client.chat_stream(&ChatRequest::new("s", text), LIMIT).await.unwrap();
        stream.collect().await.unwrap_err()
    };
    assert!(
        matches!(error("cut").await, Error::Unavailable { message, .. } if message.contains("cut after"))
    );
    assert!(matches!(error("broken").await, Error::Unavailable { .. }));
    assert_eq!(
        error("error").await,
        Error::Refused { status: 200, code: "busy".to_owned(), message: "overloaded".to_owned() }
    );
    let short = Duration::from_millis(100);
    let silent = client.chat_stream(&ChatRequest::new("s", "silent"), short).await;
    assert_eq!(silent.unwrap_err(), Error::Deadline { ms: 100 });
}

#[tokio::test]
async fn a_rest_holds_for_all_clones() {
    let gateway = FakeGateway::start(|_, _| says("Hello.")).await;
    let client = gateway.client();
    assert!(client.model().await.is_some());
    client.clone().rest(Duration::from_millis(80));
    assert_eq!(client.model().await, None);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(client.model().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn turns_are_counted_over_all_clones_and_come_back() {
    let (hour, client) =
        (Duration::from_secs(3_600), FakeGateway::start(|_, _| says("")).await.client());
    assert!(client.take_turn(2, hour));
    tokio::time::advance(hour / 2).await;
    assert!(client.clone().take_turn(2, hour));
    assert!(!client.take_turn(2, hour));
    tokio::time::advance(hour / 2).await;
    assert!(client.take_turn(2, hour), "the first one is an hour ago");
    assert!(!client.take_turn(2, hour));
}

fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
    ToolCall { id: id.to_owned(), name: name.to_owned(), arguments: arguments.to_owned() }
}

#[tokio::test]
async fn tools_are_offered_and_their_calls_and_results_go_round() {
    let gateway = FakeGateway::start(|number, _| match number {
        1 => Reply::Raw(
            r#"{"choices": [{"finish_reason": "tool_calls", "message": {"content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{\"at\":1}"}},
                {"type": "function", "function": {"name": "look", "arguments": ""}}]}}]}"#,
        ),
        _ => says("Seen."),
    })
    .await;
    let client = gateway.client();
    let parameters = json!({"type": "object", "properties": {"at": {"type": "integer"}}});
    let look = Tool {
        name: "look".to_owned(),
        description: "Looks.".to_owned(),
        parameters: parameters.clone(),
    };
    let mut request =
        ChatRequest { tools: vec![look], reasoning_effort: Some("low".to_owned()), ..hello() };
    let answer = client.chat(&request, LIMIT).await.unwrap();
    let expected = vec![call("c1", "look", "{\"at\":1}"), call("call_2", "look", "")];
    assert_eq!((answer.text.as_str(), &answer.tool_calls), ("", &expected));
    request.messages.push(Message::calls(answer.text, answer.tool_calls));
    request.messages.push(Message::result("c1", "one"));
    request.messages.push(Message::result("call_2", "two"));
    assert_eq!(client.chat(&request, LIMIT).await.unwrap().text, "Seen.");
    let body = &gateway.seen()[1].body;
    assert_eq!(body["reasoning_effort"], "low");
    assert_eq!(
        body["tools"],
        json!([{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": parameters}}])
    );
    assert_eq!(
        body["messages"].as_array().unwrap()[2..],
        [
            json!({"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{\"at\":1}"}},
                {"id": "call_2", "type": "function", "function": {"name": "look", "arguments": ""}},
            ]}),
            json!({"role": "tool", "content": "one", "tool_call_id": "c1"}),
            json!({"role": "tool", "content": "two", "tool_call_id": "call_2"}),
        ]
    );
}

#[tokio::test]
async fn calls_in_a_stream_are_put_together_however_they_are_cut() {
    let arguments = "{\"city\":\"Zürich 日本 👩‍💻\"}";
    let gateway = FakeGateway::start(move |number, _| {
        let calls: Vec<(&str, &str)> =
            if number == 1 { vec![("look", arguments), ("wait", "")] } else { vec![("", "{}")] };
        Reply::Chunks(
            stream_with(&["One ", "moment."], &calls).chunks(11).map(<[u8]>::to_vec).collect(),
        )
    })
    .await;
    let client = gateway.client();
    let answer = client.chat_stream(&hello(), LIMIT).await.unwrap().collect().await.unwrap();
    assert_eq!(answer.text, "One moment.");
    let expected = [call("call-0-look", "look", arguments), call("call-1-wait", "wait", "")];
    assert_eq!(answer.tool_calls, expected);
    assert_eq!(answer.finish_reason.as_deref(), Some("tool_calls"));
    let nameless = client.chat_stream(&hello(), LIMIT).await.unwrap().collect().await;
    assert!(
        matches!(nameless, Err(Error::Malformed(message)) if message.contains("without a name"))
    );
}

#[test]
fn pieces_of_calls_find_their_call_with_and_without_an_index() {
    let read = |parts: serde_json::Value| {
        let mut calls = wire::Calls::default();
        for part in parts.as_array().unwrap() {
            calls.add(serde_json::from_value(part.clone()).unwrap())?;
        }
        calls.finish()
    };
    let expected = vec![call("a", "x", "12"), call("b", "y", "3")];
    let indexed = json!([
        {"index": 0, "id": "a", "function": {"name": "x", "arguments": "1"}},
        {"index": 1, "id": "b", "function": {"name": "y", "arguments": "3"}},
        {"index": 0, "id": "", "function": {"name": "x", "arguments": "2"}},
    ]);
    assert_eq!(read(indexed).unwrap(), expected);
    let bare = json!([
        {"id": "a", "function": {"name": "x", "arguments": "1"}},
        {"function": {"arguments": "2"}},
        {"id": "b", "function": {"name": "y", "arguments": "3"}},
    ]);
    assert_eq!(read(bare).unwrap(), expected);
    let many: Vec<_> = (0..65).map(|i| json!({"index": i, "function": {"name": "x"}})).collect();
    assert!(read(json!(many)).is_err());
    let long = "x".repeat(256 * 1024);
    let part = json!({"index": 0, "function": {"name": "x", "arguments": long}});
    assert!(read(json!([part])).is_ok());
    assert!(read(json!([part, part])).is_err());
}

#[tokio::test]
async fn kings_preference_goes_before_the_environments_and_the_works_before_both() {
    let gateway = FakeGateway::start(|_, _| says("Hello.")).await;
    let client =
        |model: &str| GatewayClient::new(&gateway.url(), Some(fake::TOKEN.into()), named(model));
    let prefers = |model: &str, effort: Option<&str>| {
        let reasoning_effort = effort.map(str::to_owned);
        Some(ModelPreference { model: model.to_owned(), reasoning_effort })
    };
    let agent = client("x:environment");
    agent.clone().set_preferred(prefers("x:king", Some("high")));
    let deadline = Timestamp::now().plus_ms(60_000);
    let work = agent.for_work("task-1", "task", deadline).preferring(prefers(MODEL, None));
    let asked = ChatRequest { model: Some("x:asked".to_owned()), ..hello() };
    for (client, request, model) in
        [(&agent, &hello(), "x:king"), (&work, &hello(), MODEL), (&work, &asked, "x:asked")]
    {
        assert_eq!(client.chat(request, LIMIT).await.unwrap().model, model);
    }
    assert_eq!(work.usage().calls, 2);
    agent.set_preferred(None);
    assert_eq!(agent.chat(&hello(), LIMIT).await.unwrap().model, "x:environment");
    let efforts: Vec<_> =
        gateway.seen().iter().map(|seen| seen.body["reasoning_effort"].clone()).collect();
    assert_eq!(efforts, [json!("high"), json!(null), json!(null), json!(null)]);
    let off = client(NO_MODEL);
    off.set_preferred(prefers(MODEL, None));
    assert_eq!(off.chat(&hello(), LIMIT).await, Err(Error::NoModel));
}
