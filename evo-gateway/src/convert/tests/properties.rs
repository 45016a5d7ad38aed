//! What must hold for all inputs.

use proptest::{collection::vec, option, prelude::*, sample::Index};
use serde_json::{Value, json};

use super::{
    super::{Dialect, Task, error, response},
    context, convert_in_pieces, golden_inputs, request,
};

/// A text that Anthropic would take as a block.
fn text() -> impl Strategy<Value = String> {
    "[a-z\u{2028}\u{85}é😀\"\\\\ \n]{0,12}".prop_map(|text| format!("{text}."))
}

fn arguments() -> impl Strategy<Value = String> {
    vec(
        (
            "[a-z]{1,4}",
            prop_oneof![text().prop_map(Value::from), any::<i64>().prop_map(Value::from)],
        ),
        0..3,
    )
    .prop_map(|pairs| Value::Object(pairs.into_iter().collect()).to_string())
}

/// A turn of the user, and the assistant's answer with the results of the tools that it called.
fn turn() -> impl Strategy<Value = Vec<Value>> {
    (text(), option::of(text()), vec((arguments(), text()), 0..3)).prop_map(|(asked, answered, calls)| {
        let mut messages = vec![json!({"role": "user", "content": asked})];
        if calls.is_empty() {
            messages.push(json!({"role": "assistant", "content": answered.unwrap_or("Yes.".to_owned())}));
            return messages;
        }
        let call = |(at, (arguments, _)): (usize, &(String, String))| {
            json!({"id": format!("call_{at}"), "type": "function", "function": {"name": "f", "arguments": arguments}})
        };
        let tool_calls: Vec<_> = calls.iter().enumerate().map(call).collect();
        messages.push(json!({"role": "assistant", "content": answered, "tool_calls": tool_calls}));
        for (at, (_, result)) in calls.iter().enumerate() {
            messages.push(json!({"role": "tool", "content": result, "tool_call_id": format!("call_{at}")}));
        }
        messages
    })
}

fn question() -> impl Strategy<Value = Value> {
    let choice = prop_oneof![
        Just(json!("auto")),
        Just(json!("none")),
        Just(json!("required")),
        Just(json!({"type": "function", "function": {"name": "f"}})),
    ];
    (option::of(text()), vec(turn(), 1..4), option::of(choice), vec(text(), 1..3), 0..=100_u8).prop_map(
        |(system, turns, choice, stop, temperature)| {
            let system = system.map(|text| json!({"role": "system", "content": text}));
            let messages: Vec<_> = system.into_iter().chain(turns.into_iter().flatten()).collect();
            let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
            let mut question = json!({
                "model": "m",
                "messages": messages,
                "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}}],
                "max_tokens": 7,
                "temperature": f64::from(temperature) / 100.0,
                "stop": stop,
            });
            if let Some(choice) = choice {
                question["tool_choice"] = choice;
            }
            question
        },
    )
}

/// What an OpenAI client collects from a stream: the text, and name and arguments of each call.
fn collected(stream: &[u8]) -> (String, Vec<(String, String)>) {
    let mut text = String::new();
    let mut calls: Vec<(String, String)> = Vec::new();
    let lines = std::str::from_utf8(stream).unwrap().split('\n');
    for data in lines.filter_map(|line| line.strip_prefix("data: {")) {
        let chunk: Value = serde_json::from_str(&format!("{{{data}")).unwrap();
        let delta = &chunk["choices"][0]["delta"];
        text += delta["content"].as_str().unwrap_or_default();
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let at = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            calls.resize(calls.len().max(at + 1), Default::default());
            calls[at].0 += call["function"]["name"].as_str().unwrap_or_default();
            calls[at].1 += call["function"]["arguments"].as_str().unwrap_or_default();
        }
    }
    (text, calls)
}

fn openai_stream(texts: &[String], calls: &[String], interleaved: bool) -> Vec<u8> {
    let mut deltas: Vec<Value> = texts.iter().map(|text| json!({"content": text})).collect();
    let piece = |at: usize, text: &str| json!({"tool_calls": [{"index": at, "function": {"arguments": text}}]});
    let begin = |at: usize| json!({"tool_calls": [{"index": at, "id": format!("c{at}"), "function": {"name": format!("f{at}"), "arguments": ""}}]});
    let pieces: Vec<Vec<Value>> = calls
        .iter()
        .enumerate()
        .map(|(at, arguments)| {
            let pieces = arguments.split_inclusive(['{', ' ', '"']).map(|text| piece(at, text));
            std::iter::once(begin(at)).chain(pieces).collect()
        })
        .collect();
    if interleaved {
        let longest = pieces.iter().map(Vec::len).max().unwrap_or(0);
        deltas.extend(
            (0..longest).flat_map(|at| pieces.iter().filter_map(move |call| call.get(at)).cloned()),
        );
    } else {
        deltas.extend(pieces.into_iter().flatten());
    }
    let mut chunks: Vec<_> = deltas
        .into_iter()
        .map(|delta| json!({"choices": [{"index": 0, "delta": delta}]}))
        .collect();
    chunks.push(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}));
    chunks.iter().flat_map(|chunk| format!("data: {chunk}\n\n").into_bytes()).collect()
}

proptest! {
    #[test]
    fn a_request_comes_back_from_anthropic_as_it_was(question in question()) {
        let body = question.to_string();
        let there = request(Dialect::OpenAiChat, Dialect::Anthropic, body.as_bytes(), "m").unwrap();
        let back = request(Dialect::Anthropic, Dialect::OpenAiChat, &there, "m").unwrap();
        let back: Value = serde_json::from_slice(&back).unwrap();
        prop_assert_eq!(back, question);
    }

    #[test]
    fn a_stream_comes_back_from_anthropic_with_its_text_and_calls(
        texts in vec(text(), 0..4),
        calls in vec(arguments(), 0..4),
        interleaved: bool,
    ) {
        let stream = openai_stream(&texts, &calls, interleaved);
        let (there, end) = convert_in_pieces(Dialect::OpenAiChat, Dialect::Anthropic, &stream, &[]);
        prop_assert!(end.is_ok(), "{end:?}");
        let (back, end) = convert_in_pieces(Dialect::Anthropic, Dialect::OpenAiChat, &there, &[]);
        prop_assert!(end.is_ok(), "{end:?}");
        let named = calls.into_iter().enumerate().map(|(at, arguments)| (format!("f{at}"), arguments));
        prop_assert_eq!(collected(&back), (texts.concat(), named.collect::<Vec<_>>()));
    }

    #[test]
    fn pieces_do_not_matter(way: Index, case: Index, cuts in vec(any::<Index>(), 0..8)) {
        let (from, to, inputs) = way.get(golden_inputs("stream"));
        let input = case.get(inputs);
        let cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        let whole = convert_in_pieces(*from, *to, input, &[]);
        prop_assert_eq!(convert_in_pieces(*from, *to, input, &cuts), whole);
    }

    #[test]
    fn an_error_event_and_an_end_mark_exclude_each_other(way: Index, case: Index, length: Index) {
        let (from, to, inputs) = way.get(golden_inputs("stream"));
        let input = case.get(inputs);
        let (out, end) = convert_in_pieces(*from, *to, &input[..length.index(input.len() + 1)], &[]);
        let out = String::from_utf8(out).unwrap();
        let ends = ["data: [DONE]\n\n", "\"finishReason\":", "\"done\":true", "event: message_stop\n", "event: response.completed\n", "event: response.incomplete\n"];
        let has_end = ends.iter().any(|mark| out.contains(mark));
        let has_error = out.contains("\"error\":{") || out.contains("{\"error\":\"");
        prop_assert_eq!((has_end, has_error), (end.is_ok(), end.is_err()), "{}", out);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200), status: u16) {
        for from in Dialect::ALL {
            for to in Dialect::ALL {
                every_conversion(from, to, &bytes, status);
            }
        }
    }

    #[test]
    fn no_change_of_a_byte_makes_it_panic(way: Index, case: Index, at: Index, byte: u8, status: u16) {
        for kind in ["request", "response", "stream", "error"] {
            let (from, to, inputs) = way.get(golden_inputs(kind));
            let mut input = case.get(inputs).clone();
            if !input.is_empty() {
                let at = at.index(input.len());
                input[at] = byte;
                every_conversion(*from, *to, &input, status);
                every_conversion(*from, *to, &input[..at], status);
            }
        }
    }
}

fn every_conversion(from: Dialect, to: Dialect, bytes: &[u8], status: u16) {
    // Either answer will do: what counts is that there is one.
    drop(request(from, to, bytes, "m"));
    drop(response(Task::Generate, from, to, bytes, &context()));
    drop(convert_in_pieces(from, to, bytes, &[bytes.len() / 2]));
    let body: Value = serde_json::from_slice(&error(from, to, status, bytes)).unwrap();
    assert!(body["error"]["message"].is_string() || body["error"].is_string());
}
