//! What a translation between two protocols costs: pure computation on one thread, no network.

use std::time::Duration;

use anyhow::{Result, anyhow};
use evo_gateway::convert::{self, Context, Dialect, StreamConverter, Task, Wanted};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    cli::ConvertArgs,
    machine,
    proc::{self, Memory},
    scenario::Scenario,
    stats::Latencies,
    stop::Stop,
};

/// Protocols, and what they are called here.
const DIALECTS: [(Dialect, &str); 4] = [
    (Dialect::OpenAiChat, "openai_chat"),
    (Dialect::OpenAiResponses, "openai_responses"),
    (Dialect::Anthropic, "anthropic"),
    (Dialect::Gemini, "gemini"),
];

/// How long a request, and a whole answer, is about, in bytes.
const BYTES: usize = 10 * 1024;
/// Events of a stream.
const EVENTS: usize = 100;
/// Runs before it counts.
const WARM_UP: u32 = 100;

/// What is translated.
#[derive(Debug, Clone, Copy)]
enum Part {
    Request,
    Answer,
    Stream,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Answer => "answer",
            Self::Stream => "stream",
        }
    }
}

/// Measures every pair of two protocols; each scenario is given to `tell` when it is done.
pub fn run(
    args: &ConvertArgs,
    stop: &Stop,
    mut tell: impl FnMut(&Scenario) -> Result<()>,
) -> Result<()> {
    for (front, front_name) in DIALECTS {
        for (provider, provider_name) in DIALECTS {
            if front == provider {
                // Such bytes pass as they are.
                continue;
            }
            for part in [Part::Request, Part::Answer, Part::Stream] {
                stop.check()?;
                let name = format!("convert {front_name} to {provider_name}: {}", part.name());
                tell(&measure(name, part, front, provider, args.length())?)?;
            }
        }
    }
    Ok(())
}

fn measure(
    name: String,
    part: Part,
    front: Dialect,
    provider: Dialect,
    length: Duration,
) -> Result<Scenario> {
    // What a caller sends, and what a provider answers to it, each in its own protocol.
    let input = match part {
        Part::Request => request(Dialect::OpenAiChat, front, &question())?,
        Part::Answer => answer(Dialect::OpenAiChat, provider, &whole_answer())?,
        Part::Stream => stream(Dialect::OpenAiChat, provider, &streamed_answer())?,
    };
    let once = || match part {
        Part::Request => request(front, provider, &input),
        Part::Answer => answer(provider, front, &input),
        Part::Stream => stream(provider, front, &input),
    };
    let [load, ..] = machine::load_average();
    let mut scenario = Scenario { scenario: name, load, ..Scenario::default() };
    let output = once()?;
    if !matches!(part, Part::Stream) {
        // A document that is only read into a tree and written again.
        let tree = || {
            let tree: Value = serde_json::from_slice(&input)?;
            Ok(serde_json::to_vec(&tree)?)
        };
        let (mut plain, _) = repeat(tree, length / 4);
        scenario.limits.insert("json_tree_p50_ms", plain.latencies.quantile_ms(0.5));
        scenario.first_failure = plain.first_failure.take();
    }
    let (measured, elapsed) = repeat(once, length);
    let size = measured.latencies.len();
    scenario.size = usize::try_from(size)?;
    scenario.ops_per_s = size as f64 / elapsed.wall.as_secs_f64();
    scenario.p50_ms = measured.latencies.quantile_ms(0.5);
    scenario.p99_ms = measured.latencies.quantile_ms(0.99);
    scenario.cpu_ms_per_op = elapsed.processor.as_secs_f64() * 1_000.0 / size.max(1) as f64;
    scenario.rss_mb = proc::memory(std::process::id(), Memory::Peak)?;
    scenario.failed = measured.failed;
    scenario.first_failure = scenario.first_failure.or(measured.first_failure);
    scenario.more.insert("input_bytes", input.len() as f64);
    scenario.more.insert("output_bytes", output.len() as f64);
    if matches!(part, Part::Stream) {
        scenario.more.insert("cpu_us_per_event", scenario.cpu_ms_per_op * 1e3 / EVENTS as f64);
    }
    Ok(scenario)
}

/// What a number of translations came to.
#[derive(Default)]
struct Measured {
    latencies: Latencies,
    failed: u64,
    first_failure: Option<String>,
}

struct Elapsed {
    wall: Duration,
    processor: Duration,
}

/// Does the same again and again.
fn repeat(once: impl Fn() -> Result<Vec<u8>>, length: Duration) -> (Measured, Elapsed) {
    for _ in 0..WARM_UP {
        std::hint::black_box(once().is_ok());
    }
    let mut measured = Measured::default();
    let processor = || proc::own_processor_time().unwrap_or_default();
    let (begun, used) = (Instant::now(), processor());
    let mut now = begun;
    while now - begun < length {
        let result = std::hint::black_box(once());
        let then = std::mem::replace(&mut now, Instant::now());
        match result {
            Ok(_) => measured.latencies.record(now - then),
            Err(error) => {
                measured.failed += 1;
                measured.first_failure.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
    let processor = processor().saturating_sub(used);
    (measured, Elapsed { wall: now - begun, processor })
}

fn request(front: Dialect, provider: Dialect, body: &[u8]) -> Result<Vec<u8>> {
    if front == provider {
        return Ok(body.to_vec());
    }
    let wanted = Wanted { model: "model", lenient: true, ..Wanted::default() };
    Ok(convert::request(Task::Generate, front, provider, body, wanted)?.body)
}

fn answer(provider: Dialect, front: Dialect, body: &[u8]) -> Result<Vec<u8>> {
    if front == provider {
        return Ok(body.to_vec());
    }
    let context = context(front, provider)?;
    Ok(convert::response(Task::Generate, provider, front, body, &context)?.body)
}

fn stream(provider: Dialect, front: Dialect, events: &[u8]) -> Result<Vec<u8>> {
    if front == provider {
        return Ok(events.to_vec());
    }
    let mut converter = StreamConverter::new(provider, front, &context(front, provider)?);
    let mut out = Vec::with_capacity(events.len() * 2);
    for event in events.split_inclusive(|byte| *byte == b'\n') {
        converter.push(event, &mut out).map_err(|fault| anyhow!("{fault:?}"))?;
    }
    converter.finish(&mut out).map_err(|fault| anyhow!("{fault:?}"))?;
    Ok(out)
}

/// What is known of the question on the answer's way back: that of a short one.
fn context(front: Dialect, provider: Dialect) -> Result<Context> {
    let body = json!({"model": "model", "messages": [{"role": "user", "content": "hi"}]});
    let body = request(Dialect::OpenAiChat, front, body.to_string().as_bytes())?;
    let wanted = Wanted { model: "model", ..Wanted::default() };
    let converted = convert::request(Task::Generate, front, provider, &body, wanted);
    Ok(converted.map_err(|fault| anyhow!("a short question: {fault}"))?.context)
}

/// A conversation with tools, as agents have them.
fn question() -> Vec<u8> {
    let tool = |name: &str| {
        json!({"type": "function", "function": {
            "name": name, "description": "Looks at a file of the project and gives its lines.",
            "parameters": {"type": "object", "required": ["path"], "properties": {
                "path": {"type": "string", "description": "Where the file is."},
                "lines": {"type": "integer", "description": "How many lines."},
            }},
        }})
    };
    let mut messages = vec![json!({
        "role": "system", "content": "You are a careful reviewer. Answer in one sentence.",
    })];
    let said = "Which of these \"skills\" should be kept,\nand why? ".repeat(12);
    for turn in 0.. {
        let call = format!("call_{turn}");
        let arguments = json!({"path": format!("src/{turn}.rs"), "lines": 20}).to_string();
        messages.extend([
            json!({"role": "user", "content": said}),
            json!({"role": "assistant", "content": "Let me look.", "tool_calls": [{
                "id": call, "type": "function",
                "function": {"name": "read_file", "arguments": arguments},
            }]}),
            json!({"role": "tool", "tool_call_id": call, "content": said}),
            json!({"role": "assistant", "content": "It should be kept, because it helps."}),
        ]);
        let body = json!({
            "model": "model", "messages": messages, "tools": [tool("read_file"), tool("list_files")],
            "tool_choice": "auto", "temperature": 0.7, "max_tokens": 1024,
        });
        let body = body.to_string();
        if body.len() >= BYTES {
            return body.into_bytes();
        }
        messages.pop();
    }
    unreachable!("the conversation grows with each turn")
}

fn whole_answer() -> Vec<u8> {
    let said = "A skill is worth keeping when \"measurements\" say so.\n".repeat(BYTES / 54);
    let body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "model",
        "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": said, "tool_calls": [{
                "id": "call_1", "type": "function",
                "function": {"name": "read_file", "arguments": "{\"path\":\"src/1.rs\"}"},
            }],
        }}],
        "usage": {"prompt_tokens": 211, "completion_tokens": 41, "total_tokens": 252},
    });
    body.to_string().into_bytes()
}

fn streamed_answer() -> Vec<u8> {
    let event = |delta: Value, finish: Option<&str>| {
        let chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "model",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        });
        format!("data: {chunk}\n\n")
    };
    let mut events = event(json!({"role": "assistant", "content": ""}), None);
    for _ in 0..EVENTS {
        events.push_str(&event(json!({"content": " measured"}), None));
    }
    events.push_str(&event(json!({}), Some("stop")));
    events.push_str("data: [DONE]\n\n");
    events.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_is_translated_and_the_request_is_as_long_as_said() {
        assert!((BYTES..BYTES + 2_048).contains(&question().len()), "{}", question().len());
        for (front, _) in DIALECTS {
            for (provider, _) in DIALECTS.into_iter().filter(|(other, _)| *other != front) {
                for part in [Part::Request, Part::Answer, Part::Stream] {
                    let name = part.name().to_owned();
                    let scenario = measure(name, part, front, provider, Duration::ZERO).unwrap();
                    assert_eq!(scenario.failed, 0, "{:?}", scenario.first_failure);
                    assert!(scenario.more["output_bytes"] > 1_000.0, "{scenario:?}");
                }
            }
        }
    }
}
