//! What only shows when a question and its answer, or several turns, are looked at together.

use serde_json::{Value, json};

use super::{
    super::{Context, Converted, Dialect, StreamConverter, Task, Wanted, request, response},
    context,
};

fn ask(front: Dialect, provider: Dialect, question: &Value) -> (Value, Context) {
    let body = question.to_string();
    let wanted = Wanted { model: "m", context: context(), ..Wanted::default() };
    let Converted { body, context, .. } =
        request(Task::Generate, front, provider, body.as_bytes(), wanted).unwrap();
    (serde_json::from_slice(&body).unwrap(), context)
}

fn answer(provider: Dialect, front: Dialect, answer: &Value, context: &Context) -> Value {
    let answer = answer.to_string();
    serde_json::from_slice(
        &response(Task::Generate, provider, front, answer.as_bytes(), context).unwrap().body,
    )
    .unwrap()
}

/// The data of all events.
fn stream(provider: Dialect, front: Dialect, chunks: &[Value], context: &Context) -> Vec<Value> {
    let mut converter = StreamConverter::new(provider, front, context);
    let mut out = Vec::new();
    for chunk in chunks {
        converter.push(format!("data: {chunk}\n\n").as_bytes(), &mut out).unwrap();
    }
    converter.finish(&mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| serde_json::from_str(data).ok()).collect()
}

fn chunk(delta: &Value) -> Value {
    json!({"id": "1", "model": "m", "choices": [{"index": 0, "delta": delta}]})
}

fn call(index: usize, name: &str, arguments: &str) -> Value {
    let function = json!({"name": name, "arguments": arguments});
    chunk(
        &json!({"tool_calls": [{"index": index, "id": format!("call_{index}"), "function": function}]}),
    )
}

fn piece(index: usize, arguments: &str) -> Value {
    chunk(&json!({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}))
}

fn coding_question() -> Value {
    json!({"model": "m", "input": "Fix it.", "tools": [
        {"type": "custom", "name": "apply_patch"},
        {"type": "namespace", "name": "mcp__docs", "tools": [{"type": "function", "name": "search"}]},
    ], "temperature": 0.25, "metadata": {"a": "b"}})
}

#[test]
fn calls_come_back_as_calls_of_the_tools_that_the_caller_has() {
    let (front, provider) = (Dialect::OpenAiResponses, Dialect::OpenAiChat);
    let (asked, context) = ask(front, provider, &coding_question());
    let names: Vec<_> =
        asked["tools"].as_array().unwrap().iter().map(|tool| &tool["function"]["name"]).collect();
    assert_eq!(names, ["apply_patch", "mcp__docs__search"]);

    let patch = json!({"input": "*** Begin\n\"x\"\n"}).to_string();
    let chunks = [
        call(0, "apply_patch", &patch[..12]),
        piece(0, &patch[12..20]),
        piece(0, &patch[20..]),
        call(1, "mcp__docs__search", "{\"q\":1}"),
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}),
    ];
    let events = stream(provider, front, &chunks, &context);
    let deltas = |kind: &str| -> String {
        let of_kind = events.iter().filter(|event| event["type"] == kind);
        of_kind.map(|event| event["delta"].as_str().unwrap()).collect()
    };
    assert_eq!(deltas("response.custom_tool_call_input.delta"), "*** Begin\n\"x\"\n");
    assert_eq!(deltas("response.function_call_arguments.delta"), "{\"q\":1}");
    let output = &events.last().unwrap()["response"]["output"];
    let expected = json!([
        {"type": "custom_tool_call", "id": "ctc_1_0", "status": "completed", "call_id": "call_0",
         "name": "apply_patch", "input": "*** Begin\n\"x\"\n"},
        {"type": "function_call", "id": "fc_1_1", "status": "completed", "call_id": "call_1",
         "namespace": "mcp__docs", "name": "search", "arguments": "{\"q\":1}"},
    ]);
    assert_eq!(output, &expected);

    let calls = json!([
        {"id": "call_0", "type": "function", "function": {"name": "apply_patch", "arguments": patch}},
        {"id": "call_1", "type": "function",
         "function": {"name": "mcp__docs__search", "arguments": "{\"q\":1}"}},
    ]);
    let message = json!({"role": "assistant", "content": null, "tool_calls": calls});
    let whole = json!({"id": "1", "model": "m", "choices": [{"index": 0, "message": message}]});
    let whole = answer(provider, front, &whole, &context);
    assert_eq!(whole["output"], expected);
    // What the question said comes back with the answer.
    assert_eq!((&whole["temperature"], &whole["metadata"]), (&json!(0.25), &json!({"a": "b"})));
    assert_eq!(whole["tools"], coding_question()["tools"]);
}

#[test]
fn a_custom_call_of_a_chat_client_is_bare_text() {
    let (front, provider) = (Dialect::OpenAiChat, Dialect::Anthropic);
    let tool = json!({"type": "custom", "custom": {"name": "run"}});
    let question =
        json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [tool]});
    let (_, context) = ask(front, provider, &question);
    let events = [
        json!({"type": "message_start", "message": {"id": "msg_1", "model": "c", "content": []}}),
        json!({"type": "content_block_start", "index": 0,
               "content_block": {"type": "tool_use", "id": "t", "name": "run", "input": {}}}),
        json!({"type": "content_block_delta", "index": 0,
               "delta": {"type": "input_json_delta", "partial_json": "{\"input\": \"a\\nb"}}),
        json!({"type": "content_block_delta", "index": 0,
               "delta": {"type": "input_json_delta", "partial_json": "\"}"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}}),
        json!({"type": "message_stop"}),
    ];
    let calls: Vec<_> = stream(provider, front, &events, &context)
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].get(0).cloned())
        .collect();
    assert_eq!(
        calls,
        [
            json!({"index": 0, "id": "t", "type": "custom", "custom": {"name": "run", "input": ""}}),
            json!({"index": 0, "custom": {"input": "a\nb"}}),
        ]
    );
}

#[test]
fn the_tool_that_stands_for_a_schema_is_not_seen() {
    let (front, provider) = (Dialect::OpenAiChat, Dialect::Anthropic);
    let schema = json!({"name": "thing", "schema": {"type": "object"}});
    let question = json!({"model": "m", "messages": [{"role": "user", "content": "x"}],
        "response_format": {"type": "json_schema", "json_schema": schema}});
    let (asked, context) = ask(front, provider, &question);
    assert_eq!(asked["tool_choice"], json!({"type": "tool", "name": "thing"}));
    let block = json!({"type": "tool_use", "id": "t", "name": "thing", "input": {"a": 1}});
    let whole = json!({"id": "msg_1", "model": "c", "content": [block], "stop_reason": "tool_use"});
    let whole = answer(provider, front, &whole, &context);
    assert_eq!(whole["choices"][0]["message"]["content"], "{\"a\":1}");
    assert_eq!(whole["choices"][0]["message"].get("tool_calls"), None);
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");

    let events = [
        json!({"type": "message_start", "message": {"id": "msg_1", "model": "c", "content": []}}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}}),
        json!({"type": "message_stop"}),
    ];
    let chunks = stream(provider, front, &events, &context);
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, "{\"a\":1}");
    assert!(chunks.iter().any(|chunk| chunk["choices"][0]["finish_reason"] == "stop"));
}

/// A protocol whose provider thinks, and whose callers give back what they got.
struct Side {
    dialect: Dialect,
    /// With what the provider thought, and a call.
    answer: fn() -> Value,
    /// What of an answer, or of a question, is what the provider thought.
    thoughts: fn(&Value) -> Value,
    /// The next question behind an answer, with the call's result.
    next: fn(&Value) -> Value,
}

fn schema() -> Value {
    json!({"type": "object", "properties": {}})
}

const SIDES: [Side; 3] = [
    Side {
        dialect: Dialect::Anthropic,
        answer: || {
            json!({"id": "msg_1", "model": "c", "stop_reason": "tool_use", "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"},
                {"type": "redacted_thinking", "data": "Emw="},
                {"type": "tool_use", "id": "call_1", "name": "f", "input": {}},
            ]})
        },
        thoughts: |value| {
            let content = value.get("content").unwrap_or(&value["messages"][1]["content"]);
            json!(content.as_array().unwrap()[..2])
        },
        next: |answer| {
            let result = json!({"type": "tool_result", "tool_use_id": "call_1", "content": "y"});
            json!({"model": "m", "max_tokens": 9, "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": answer["content"]},
                {"role": "user", "content": [result]},
            ], "tools": [{"name": "f", "input_schema": schema()}]})
        },
    },
    Side {
        dialect: Dialect::OpenAiResponses,
        answer: || {
            let summary = json!([{"type": "summary_text", "text": "Hm."}]);
            json!({"id": "resp_1", "model": "g", "status": "completed", "output": [
                {"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": "gAAA"},
                {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
            ]})
        },
        thoughts: |value| {
            value.get("output").map_or(&value["input"][1], |output| &output[0]).clone()
        },
        next: |answer| {
            let mut input = vec![json!({"role": "user", "content": "x"})];
            input.extend(answer["output"].as_array().unwrap().iter().cloned());
            input.push(json!({"type": "function_call_output", "call_id": "call_1", "output": "y"}));
            let tools = json!([{"type": "function", "name": "f", "parameters": schema()}]);
            json!({"model": "m", "input": input, "tools": tools})
        },
    },
    Side {
        dialect: Dialect::OpenAiChat,
        answer: || {
            let call = json!({"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
            let message = json!({"role": "assistant", "content": null, "reasoning_content": "Hm.", "tool_calls": [call]});
            let choice = json!({"index": 0, "finish_reason": "tool_calls", "message": message});
            json!({"id": "1", "model": "d", "choices": [choice]})
        },
        thoughts: |value| {
            let message = value.get("choices").map(|choices| &choices[0]["message"]);
            message.unwrap_or(&value["messages"][1])["reasoning_content"].clone()
        },
        next: |answer| {
            json!({"model": "m", "messages": [
                {"role": "user", "content": "x"},
                answer["choices"][0]["message"],
                {"role": "tool", "tool_call_id": "call_1", "content": "y"},
            ], "tools": [{"type": "function", "function": {"name": "f", "parameters": schema()}}]})
        },
    },
];

#[test]
fn every_author_gets_its_thoughts_back_through_every_front_and_nobody_else() {
    for provider in &SIDES {
        for front in SIDES.iter().filter(|front| front.dialect != provider.dialect) {
            let given = (provider.answer)();
            let seen = answer(provider.dialect, front.dialect, &given, &context());
            let next = (front.next)(&seen);
            let (asked, _) = ask(front.dialect, provider.dialect, &next);
            assert_eq!((provider.thoughts)(&asked), (provider.thoughts)(&given), "{asked}");
            let is_other =
                |other: &&Side| ![front.dialect, provider.dialect].contains(&other.dialect);
            for other in SIDES.iter().filter(is_other) {
                let (asked, _) = ask(front.dialect, other.dialect, &next);
                let text = asked.to_string();
                let secrets = ["Hm.", "EqQB", "Emw=", "gAAA"];
                assert!(!secrets.iter().any(|secret| text.contains(secret)), "{text}");
            }
        }
    }
}
