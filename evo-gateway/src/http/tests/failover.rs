//! What a caller sees of a provider's faults, with a second provider behind it that is well and speaks the
//! other protocol: the faults of the published catalogue, streamed and not, in both protocols, translated
//! and not. The table of `docs/gateway-failover.md` is what this test saw; `EVO_WRITE_FAILOVER=1` writes it
//! anew.

mod provider;

use std::{fmt::Write as _, path::Path, sync::atomic::Ordering};

use super::*;
use provider::{ARGUMENTS, Fault, Provider, Says, TEXT};

/// One fault.
#[derive(Clone, Copy)]
struct Row {
    code: &'static str,
    name: &'static str,
    fault: Fault,
    tool: bool,
    /// The second provider says something else, or goes on when it is given the beginning.
    second: Fault,
}

const fn row(code: &'static str, name: &'static str, fault: Fault) -> Row {
    Row { code, name, fault, tool: false, second: Fault::None }
}

const ROWS: [Row; 19] = [
    row("S01", "429 with `Retry-After: 30`", Fault::Status(429, Some("30"))),
    row("S02", "429 without", Fault::Status(429, None)),
    row("S03", "one 500", Fault::Times(500, 1)),
    row("S04", "503", Fault::Status(503, None)),
    row("S05", "connection dropped", Fault::Drop),
    row("S06", "silent", Fault::Silent),
    row("S07", "slow, but well", Fault::Slow),
    row("S08", "cut in the middle", Fault::Cut),
    Row {
        second: Fault::Differs,
        ..row("S08", "the same, and the other one says something else", Fault::Cut)
    },
    Row {
        second: Fault::GoesOn,
        ..row("S08", "the same, and the other one has `prefill`", Fault::Cut)
    },
    row("S09", "stalls in the middle", Fault::Stall),
    row("S10", "broken in the middle", Fault::BadChunk),
    row("S11", "no end mark", Fault::NoEnd),
    row("S12", "conversation too long", Fault::TooLong),
    row("S12", "the same, with `larger_context`", Fault::TooLong),
    row("S13", "content filter", Fault::Filter),
    Row { tool: true, ..row("S14", "cut in a tool call", Fault::Cut) },
    Row {
        tool: true,
        second: Fault::Differs,
        ..row("S14", "the same, and the other one calls it otherwise", Fault::Cut)
    },
    row("S16", "books: model and usage of who answered", Fault::Status(503, None)),
];

/// A caller's protocol, and the first provider's.
const WAYS: [(&str, &str, &str); 4] = [
    ("OpenAI", OPENAI, OPENAI),
    ("OpenAI, translated", OPENAI, ANTHROPIC),
    ("Anthropic", ANTHROPIC, ANTHROPIC),
    ("Anthropic, translated", ANTHROPIC, OPENAI),
];

/// What an answer came to.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    text: String,
    arguments: String,
    finish: Option<String>,
    model: String,
    output_tokens: u64,
    ended: bool,
    error: Option<String>,
}

/// A gateway before the two.
async fn bed(row: Row, first: &str, second: &str, addresses: [String; 2]) -> Bed {
    let [one, two] = addresses;
    let providers = [provider_at(&one, "first", first), provider_at(&two, "second", second)];
    let mut config = config(&providers);
    let larger =
        if row.name.contains("larger_context") { json!(["second:big"]) } else { json!([]) };
    let reliability = json!({
        "fallback_chain": if row.code == "S12" { json!([]) } else { json!(["second:other"]) },
        "larger_context": larger,
        "rescue": true,
        "providers": {"second": {"prefill": row.second == Fault::GoesOn}},
        "base_backoff_ms": 5,
        "max_backoff_ms": 1000,
        "timeouts": {"first_byte_ms": 1000, "idle_ms": 400},
    });
    config.gateway.reliability = Some(serde_json::from_value(reliability).unwrap());
    Bed::start(config).await
}

fn question(front: &str, stream: bool, tool: bool) -> Value {
    let mut body = json!({
        "model": "first:model", "max_tokens": 500, "stream": stream,
        "messages": [{"role": "user", "content": "Say it."}],
    });
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}});
    if front == OPENAI {
        if stream {
            body["stream_options"] = json!({"include_usage": true});
        }
        if tool {
            body["tools"] = json!([{"type": "function", "function": {"name": "weather", "parameters": schema}}]);
        }
    } else if tool {
        body["tools"] = json!([{"name": "weather", "input_schema": schema}]);
    }
    body
}

/// Reads an answer as a client does.
fn read(front: &str, stream: bool, got: &Got) -> Seen {
    let mut seen = Seen { ended: !stream && got.whole, ..Seen::default() };
    if got.status != 200 {
        let error = got.json()["error"].clone();
        seen.error = error["code"].as_str().or(error["type"].as_str()).map(str::to_owned);
        return seen;
    }
    if !stream {
        read_whole(front, &got.json(), &mut seen);
        return seen;
    }
    for event in got.text().split("\n\n") {
        let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) else {
            continue;
        };
        if data == "[DONE]" {
            seen.ended = true;
            continue;
        }
        let value: Value =
            serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
        assert!(!seen.ended && seen.error.is_none(), "something follows the end: {data}");
        if !value["error"].is_null() {
            let error = &value["error"];
            seen.error = error["code"].as_str().or(error["type"].as_str()).map(str::to_owned);
        } else if front == OPENAI {
            read_openai(&value, &mut seen);
        } else {
            read_anthropic(&value, &mut seen);
        }
    }
    // A stream that tells of an error is cut.
    assert_eq!(got.whole, seen.error.is_none(), "{got:?}");
    // The reason says it all where only the mark is missing.
    seen.ended |= seen.finish.is_some() && got.whole;
    seen
}

fn read_whole(front: &str, value: &Value, seen: &mut Seen) {
    seen.model = value["model"].as_str().unwrap().to_owned();
    if front == OPENAI {
        let choice = &value["choices"][0];
        choice["message"]["content"].as_str().unwrap_or_default().clone_into(&mut seen.text);
        let call = &choice["message"]["tool_calls"][0]["function"]["arguments"];
        call.as_str().unwrap_or_default().clone_into(&mut seen.arguments);
        seen.finish = choice["finish_reason"].as_str().map(str::to_owned);
        seen.output_tokens = value["usage"]["completion_tokens"].as_u64().unwrap();
    } else {
        for block in value["content"].as_array().unwrap() {
            seen.text.push_str(block["text"].as_str().unwrap_or_default());
            if block["type"] == "tool_use" {
                seen.arguments = block["input"].to_string();
            }
        }
        seen.finish = value["stop_reason"].as_str().map(str::to_owned);
        seen.output_tokens = value["usage"]["output_tokens"].as_u64().unwrap();
    }
}

fn read_openai(value: &Value, seen: &mut Seen) {
    value["model"].as_str().unwrap_or_default().clone_into(&mut seen.model);
    if let Some(tokens) = value["usage"]["completion_tokens"].as_u64() {
        seen.output_tokens = tokens;
    }
    let choice = &value["choices"][0];
    seen.text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
    let call = &choice["delta"]["tool_calls"][0]["function"]["arguments"];
    seen.arguments.push_str(call.as_str().unwrap_or_default());
    if let Some(finish) = choice["finish_reason"].as_str() {
        assert!(seen.finish.is_none(), "it ends twice");
        seen.finish = Some(finish.to_owned());
    }
}

fn read_anthropic(value: &Value, seen: &mut Seen) {
    match value["type"].as_str().unwrap() {
        "message_start" => {
            assert!(seen.model.is_empty(), "it begins twice");
            value["message"]["model"].as_str().unwrap().clone_into(&mut seen.model);
        }
        "content_block_delta" => {
            seen.text.push_str(value["delta"]["text"].as_str().unwrap_or_default());
            seen.arguments.push_str(value["delta"]["partial_json"].as_str().unwrap_or_default());
        }
        "message_delta" => {
            seen.finish = value["delta"]["stop_reason"].as_str().map(str::to_owned);
            seen.output_tokens = value["usage"]["output_tokens"].as_u64().unwrap();
        }
        "message_stop" => seen.ended = true,
        _ => {}
    }
}

/// One cell: asks, checks that the answer is right or a clean error, and says which.
async fn cell(row: Row, way: (&str, &'static str, &'static str), stream: bool) -> String {
    let (_, front, kind) = way;
    let other = if kind == OPENAI { ANTHROPIC } else { OPENAI };
    let says = |usage| Says { tool: row.tool, usage };
    let first = provider::start(kind, row.fault, says(7)).await;
    let second: Provider = provider::start(other, row.second, says(9)).await;
    let hung_up = provider::hangs_up().await;
    let address = if row.fault == Fault::Drop { hung_up.0 } else { first.fake.address };
    let addresses = [address, second.fake.address].map(|it| format!("http://{it}/v1"));
    let bed = bed(row, kind, other, addresses).await;
    let body = question(front, stream, row.tool);
    let got = if front == OPENAI { bed.chat(&body).await } else { bed.messages(&body).await };
    let seen = read(front, stream, &got);
    let (who, attempts) = (got.header("x-evo-provider"), got.header("x-evo-attempts"));
    let at = format!("{} {} {way:?} stream={stream}: {got:?}", row.code, row.name);
    bed.stop().await;

    if let Some(code) = seen.error {
        if got.status != 200 {
            return format!("{} `{code}`", got.status.as_u16());
        }
        // What was said until then is a beginning of the answer.
        assert!(TEXT.starts_with(&seen.text) && ARGUMENTS.starts_with(&seen.arguments), "{at}");
        return format!("error event `{code}`");
    }
    assert!(seen.ended, "cut short as if it were whole: {at}");
    let filtered = row.fault == Fault::Filter;
    let finish = match (front == OPENAI, filtered, row.tool) {
        (true, true, _) => "content_filter",
        (true, _, true) => "tool_calls",
        (true, ..) => "stop",
        (false, true, _) => "refusal",
        (false, _, true) => "tool_use",
        (false, ..) => "end_turn",
    };
    assert_eq!(seen.finish.as_deref(), Some(finish), "{at}");
    let differs = row.second != Fault::None;
    let whole = if differs && who == "second" { "Something else, and more of it." } else { TEXT };
    assert_eq!(seen.text, whole, "{at}");
    if row.tool && !(differs && who == "second") {
        let arguments: Value = serde_json::from_str(&seen.arguments).unwrap();
        assert_eq!(arguments, serde_json::from_str::<Value>(ARGUMENTS).unwrap(), "{at}");
    }
    let asked_second = second.asked.load(Ordering::SeqCst) > 0;
    let continued = stream && who == "first" && asked_second;
    if !continued {
        let (model, tokens) = match who {
            "first" => ("model", 7),
            _ if row.code == "S12" => ("big", 9),
            _ => ("other", 9),
        };
        assert_eq!((seen.model.as_str(), seen.output_tokens), (model, tokens), "{at}");
        assert_eq!(got.header("x-evo-model"), model, "{at}");
    }
    match (continued, who, attempts) {
        (true, ..) => "**continued by second**".to_owned(),
        (false, "first", "1") => "answered".to_owned(),
        (false, "first", _) => "answered by first again".to_owned(),
        (false, who, _) => format!("answered by {who}"),
    }
}

/// A provider that fails for a while: every caller has an answer, and the provider is left alone.
async fn flapping(way: (&str, &'static str, &'static str), stream: bool) -> String {
    let (_, front, kind) = way;
    let other = if kind == OPENAI { ANTHROPIC } else { OPENAI };
    let says = |usage| Says { tool: false, usage };
    let first = provider::start(kind, Fault::Between(500, 3, 9), says(7)).await;
    let second = provider::start(other, Fault::None, says(9)).await;
    let urls = [&first, &second].map(|it| format!("http://{}/v1", it.fake.address));
    let providers = [provider_at(&urls[0], "first", kind), provider_at(&urls[1], "second", other)];
    let mut config = config(&providers);
    let reliability = json!({
        "fallback_chain": ["second:other"], "max_retries": 1, "base_backoff_ms": 1,
        "breaker": {"failures": 4, "open_ms": 60},
    });
    config.gateway.reliability = Some(serde_json::from_value(reliability).unwrap());
    let bed = Bed::start(config).await;
    let mut right = 0;
    for number in 0..20 {
        let body = question(front, stream, false);
        let got = if front == OPENAI { bed.chat(&body).await } else { bed.messages(&body).await };
        let seen = read(front, stream, &got);
        assert_eq!(seen.text, TEXT, "{number}: {got:?}");
        right += 1;
        if number > 8 {
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }
    // Three well, four failures that open it, two probes that fail; after that it is well again.
    let asked = first.asked.load(Ordering::SeqCst);
    assert!(asked > 9, "it came back: {asked}");
    let got = if front == OPENAI {
        bed.chat(&question(front, stream, false)).await
    } else {
        bed.messages(&question(front, stream, false)).await
    };
    assert_eq!(got.header("x-evo-provider"), "first");
    bed.stop().await;
    format!("{right} of 20 answered")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_caller_sees_of_faults_is_what_the_table_says() {
    let mut table = String::from(
        "# What a caller sees of a provider's faults\n\n\
         Two providers: the first has the fault, the second is well, speaks the other protocol and stands in \
         `fallback_chain`. Each cell is what one request in the protocol of its column came to; an answer is \
         right to the last character, with the model and the counts of who gave it. A test makes this table \
         (`http/tests/failover.rs`); it fails when a cell changes.\n\n\
         Answers in one piece:\n\n",
    );
    for stream in [false, true] {
        if stream {
            table.push_str("\nStreams:\n\n");
        }
        table.push_str("| fault of the first |");
        for (name, ..) in WAYS {
            write!(table, " {name} |").unwrap();
        }
        table.push_str("\n|---|---|---|---|---|\n");
        let mut rows = Vec::new();
        for row in ROWS {
            let cells = WAYS.map(|way| cell(row, way, stream));
            rows.push((row.code, row.name, futures_util::future::join_all(cells).await));
        }
        let flapping = futures_util::future::join_all(WAYS.map(|way| flapping(way, stream))).await;
        rows.insert(rows.len() - 1, ("S15", "fails for a while", flapping));
        for (code, name, cells) in rows {
            writeln!(table, "| {code} {name} | {} |", cells.join(" | ")).unwrap();
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gateway-failover.md");
    if evo_common::config::env::get("EVO_WRITE_FAILOVER").is_some() {
        std::fs::write(&file, &table).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == table,
        "docs/gateway-failover.md is out of date; EVO_WRITE_FAILOVER=1 writes:\n{table}"
    );
}
