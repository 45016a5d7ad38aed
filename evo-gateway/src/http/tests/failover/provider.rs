//! A provider that has one fault, in either protocol.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};

use super::super::*;

/// What a model says.
pub(super) const TEXT: &str = "alpha béta gamma δέλτα 🚀 alpha béta gamma δέλτα 🚀";
/// What it thinks a tool should be given.
pub(super) const ARGUMENTS: &str = "{\"city\":\"Zürich\",\"days\":3}";

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Always this status, with `Retry-After` or without.
    Status(u16, Option<&'static str>),
    /// This status for the first so many requests.
    Times(u16, usize),
    /// This status for requests from one to another.
    Between(u16, usize, usize),
    Drop,
    Silent,
    Slow,
    Cut,
    Stall,
    BadChunk,
    NoEnd,
    TooLong,
    Filter,
    /// Says something else than others do.
    Differs,
    /// The same, unless it is given the beginning.
    GoesOn,
}

/// Whether it calls a tool, with which arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Says {
    pub(super) tool: bool,
    pub(super) usage: u64,
}

/// A running provider.
pub(super) struct Provider {
    pub(super) fake: Fake,
    pub(super) asked: Arc<AtomicUsize>,
}

pub(super) async fn start(kind: &'static str, fault: Fault, says: Says) -> Provider {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let fake = Fake::start(move |seen| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        answer(kind, fault, says, number, seen)
    })
    .await;
    Provider { fake, asked }
}

async fn answer(
    kind: &'static str,
    fault: Fault,
    says: Says,
    number: usize,
    seen: Seen,
) -> Response<Body> {
    let failing = match fault {
        Fault::Status(status, wait) => Some((status, wait)),
        Fault::Times(status, times) => (number < times).then_some((status, None)),
        Fault::Between(status, from, to) => (from..to).contains(&number).then_some((status, None)),
        Fault::TooLong => Some((400, None)),
        _ => None,
    };
    if let Some((status, wait)) = failing {
        let mut response =
            Response::builder().status(status).header("content-type", "application/json");
        if let Some(wait) = wait {
            response = response.header("retry-after", wait);
        }
        return response.body(Body::from(error(kind, status).to_string())).unwrap();
    }
    match fault {
        Fault::Silent => std::future::pending().await,
        Fault::Slow => tokio::time::sleep(Duration::from_millis(150)).await,
        _ => {}
    }
    let asked = seen.json();
    let model = asked["model"].as_str().unwrap_or_default().to_owned();
    // A conversation that ends with an answer is gone on with.
    let given = asked["messages"].as_array().and_then(|it| it.last()).cloned().unwrap_or_default();
    let given =
        if given["role"] == "assistant" { text_of(&given["content"]) } else { String::new() };
    let differs = fault == Fault::Differs || (fault == Fault::GoesOn && given.is_empty());
    let text = if differs { "Something else, and more of it." } else { TEXT };
    let text = text.strip_prefix(given.as_str()).unwrap_or(text);
    let arguments = if fault == Fault::Differs { "{\"days\":1}" } else { ARGUMENTS };
    let answer = Answer {
        model,
        text: text.to_owned(),
        arguments: arguments.to_owned(),
        says,
        filtered: fault == Fault::Filter,
    };
    if asked["stream"] == true {
        streamed(kind, fault, &answer)
    } else {
        whole(kind, fault, &answer)
    }
}

struct Answer {
    model: String,
    text: String,
    arguments: String,
    says: Says,
    filtered: bool,
}

fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        other => {
            other.as_array().into_iter().flatten().filter_map(|it| it["text"].as_str()).collect()
        }
    }
}

fn error(kind: &str, status: u16) -> Value {
    let message = match status {
        400 if kind == OPENAI => "This model's maximum context length is 10 tokens.",
        400 => "prompt is too long: 11 tokens > 10 maximum",
        _ => "Not now.",
    };
    if kind == OPENAI {
        let code = if status == 400 { json!("context_length_exceeded") } else { Value::Null };
        json!({"error": {"message": message, "type": "x", "param": null, "code": code}})
    } else {
        let name = if status == 400 { "invalid_request_error" } else { "overloaded_error" };
        json!({"type": "error", "error": {"type": name, "message": message}})
    }
}

fn whole(kind: &str, fault: Fault, answer: &Answer) -> Response<Body> {
    let Answer { model, text, arguments, says, filtered } = answer;
    let input: Value = serde_json::from_str(arguments).unwrap();
    let body = if kind == OPENAI {
        let finish = if *filtered {
            "content_filter"
        } else if says.tool {
            "tool_calls"
        } else {
            "stop"
        };
        let mut message = json!({"role": "assistant", "content": text});
        if says.tool {
            message["tool_calls"] = json!([{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}}]);
        }
        json!({
            "id": "c", "object": "chat.completion", "created": 1, "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": 3, "completion_tokens": says.usage, "total_tokens": 3 + says.usage},
        })
    } else {
        let stop = if *filtered {
            "refusal"
        } else if says.tool {
            "tool_use"
        } else {
            "end_turn"
        };
        let mut content = vec![json!({"type": "text", "text": text})];
        if says.tool {
            content
                .push(json!({"type": "tool_use", "id": "c1", "name": "weather", "input": input}));
        }
        json!({
            "id": "m", "type": "message", "role": "assistant", "model": model, "content": content,
            "stop_reason": stop, "stop_sequence": null,
            "usage": {"input_tokens": 3, "output_tokens": says.usage},
        })
    };
    let body = body.to_string();
    let half = Bytes::copy_from_slice(&body.as_bytes()[..body.len() / 2]);
    let head = Response::builder().header("content-type", "application/json");
    let body = match fault {
        Fault::Cut => ends(vec![half], End::Cut),
        Fault::Stall => ends(vec![half], End::Stall),
        Fault::BadChunk => Body::from(half),
        _ => Body::from(body),
    };
    head.body(body).unwrap()
}

enum End {
    Proper,
    Cut,
    Stall,
}

fn ends(pieces: Vec<Bytes>, end: End) -> Body {
    // One by one, as they come from a model.
    let pieces = stream::iter(pieces).then(|piece| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok::<_, std::io::Error>(piece)
    });
    match end {
        End::Proper => Body::from_stream(pieces),
        End::Cut => {
            let cut = stream::once(async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Err(std::io::Error::other("cut"))
            });
            Body::from_stream(pieces.chain(cut))
        }
        End::Stall => {
            let never = stream::once(std::future::pending::<Result<Bytes, std::io::Error>>());
            Body::from_stream(pieces.chain(never))
        }
    }
}

fn streamed(kind: &str, fault: Fault, answer: &Answer) -> Response<Body> {
    let (mut events, marks) =
        if kind == OPENAI { openai_events(answer) } else { anthropic_events(answer) };
    // In the middle of the text; with a call, in the middle of its arguments.
    let half = if answer.says.tool { events.len() - marks - 2 } else { events.len() / 2 };
    let mut end = End::Proper;
    match fault {
        Fault::Cut => {
            events.truncate(half);
            end = End::Cut;
        }
        Fault::Stall => {
            events.truncate(half);
            end = End::Stall;
        }
        Fault::BadChunk => {
            let broken = events[half].trim_end();
            let mut length = broken.len() * 2 / 3;
            while !broken.is_char_boundary(length) {
                length -= 1;
            }
            let broken = format!("{}\n\n", &broken[..length]);
            events.insert(half, broken);
        }
        // All but the mark; what says how it ended is there.
        Fault::NoEnd => events.truncate(events.len() - 1),
        _ => {}
    }
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(ends(events.into_iter().map(Bytes::from).collect(), end))
        .unwrap()
}

/// Pieces of up to four characters.
fn pieces(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(4).map(|piece| piece.iter().collect()).collect()
}

/// The events, and how many of them end the answer.
fn openai_events(answer: &Answer) -> (Vec<String>, usize) {
    let Answer { model, text, arguments, says, filtered } = answer;
    let chunk = |delta: Value, finish: Option<&str>| {
        let chunk = json!({
            "id": "c", "object": "chat.completion.chunk", "created": 1, "model": model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        });
        format!("data: {chunk}\n\n")
    };
    let mut events = vec![chunk(json!({"role": "assistant", "content": ""}), None)];
    events.extend(pieces(text).into_iter().map(|piece| chunk(json!({"content": piece}), None)));
    if says.tool {
        let call = |call: Value| chunk(json!({"tool_calls": [call]}), None);
        events.push(call(json!({"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}})));
        let arguments = pieces(arguments).into_iter();
        events.extend(
            arguments.map(|piece| call(json!({"index": 0, "function": {"arguments": piece}}))),
        );
    }
    let finish = if *filtered {
        "content_filter"
    } else if says.tool {
        "tool_calls"
    } else {
        "stop"
    };
    events.push(chunk(json!({}), Some(finish)));
    let usage = json!({
        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [],
        "usage": {"prompt_tokens": 3, "completion_tokens": says.usage, "total_tokens": 3 + says.usage},
    });
    events.push(format!("data: {usage}\n\n"));
    events.push("data: [DONE]\n\n".to_owned());
    (events, 3)
}

fn anthropic_events(answer: &Answer) -> (Vec<String>, usize) {
    let Answer { model, text, arguments, says, filtered } = answer;
    let event = |value: Value| {
        let name = value["type"].as_str().unwrap();
        format!("event: {name}\ndata: {value}\n\n")
    };
    let mut events = vec![event(json!({"type": "message_start", "message": {
        "id": "m", "type": "message", "role": "assistant", "model": model, "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 3, "output_tokens": 1},
    }}))];
    events.push(event(json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})));
    events.extend(pieces(text).into_iter().map(|piece| {
        event(json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}))
    }));
    events.push(event(json!({"type": "content_block_stop", "index": 0})));
    let mut marks = 3;
    if says.tool {
        events.push(event(json!({"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "c1", "name": "weather", "input": {}}})));
        events.extend(pieces(arguments).into_iter().map(|piece| {
            event(json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": piece}}))
        }));
        events.push(event(json!({"type": "content_block_stop", "index": 1})));
        marks = 3;
    }
    let stop = if *filtered {
        "refusal"
    } else if says.tool {
        "tool_use"
    } else {
        "end_turn"
    };
    events.push(event(json!({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": null}, "usage": {"output_tokens": says.usage}})));
    events.push(event(json!({"type": "message_stop"})));
    (events, marks)
}

/// A provider that takes a connection, reads a request and hangs up.
pub(super) async fn hangs_up() -> (SocketAddr, JoinSet<()>) {
    bare(|stream| async move { drop::<TcpStream>(stream) }).await
}
