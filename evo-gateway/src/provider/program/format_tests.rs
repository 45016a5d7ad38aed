//! Lines as the programs print them, shortened.

use super::*;

/// Claude Code 2.1.197.
const CLAUDE: &str = r#"
{"type":"system","subtype":"init","cwd":"/tmp/x","session_id":"80da48e4","tools":[],"model":"claude-sonnet-4-5","permissionMode":"default","claude_code_version":"2.1.197"}
{"type":"system","subtype":"status","status":"requesting","uuid":"c41e013f","session_id":"80da48e4"}
{"type":"stream_event","event":{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"usage":{"input_tokens":11,"output_tokens":1}}},"session_id":"80da48e4","parent_tool_use_id":null,"uuid":"5e3039ce","ttft_ms":4}
{"type":"stream_event","event":{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}},"session_id":"80da48e4","parent_tool_use_id":null}
{"type":"system","subtype":"thinking_tokens","estimated_tokens":1,"estimated_tokens_delta":1}
{"type":"stream_event","event":{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hmm"}},"session_id":"80da48e4","parent_tool_use_id":null}
{"type":"stream_event","event":{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"sig"}},"session_id":"80da48e4","parent_tool_use_id":null}
{"type":"assistant","message":{"id":"msg_1","content":[{"type":"thinking","thinking":"hmm","signature":"sig"}]},"parent_tool_use_id":null}
{"type":"stream_event","event":{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Hello"}},"session_id":"80da48e4","parent_tool_use_id":null}
{"type":"stream_event","event":{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"of a helper"}},"session_id":"80da48e4","parent_tool_use_id":"toolu_1"}
{"type":"stream_event","event":{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":" world"}},"session_id":"80da48e4","parent_tool_use_id":null}
{"type":"assistant","message":{"id":"msg_1","content":[{"type":"text","text":"Hello world"}]},"parent_tool_use_id":null}
{"type":"stream_event","event":{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7}},"session_id":"80da48e4","parent_tool_use_id":null}
{"type":"result","subtype":"success","is_error":false,"api_error_status":null,"duration_ms":29,"num_turns":1,"result":"Hello world","stop_reason":"end_turn","total_cost_usd":0.0001395,"usage":{"input_tokens":11,"cache_creation_input_tokens":2,"cache_read_input_tokens":5,"output_tokens":7,"service_tier":"standard"}}
"#;

/// Codex 0.169.0.
const CODEX: &str = r#"
{"type":"thread.started","thread_id":"01a201db"}
{"type":"item.completed","item":{"id":"item_0","type":"error","message":"Model metadata for `gpt-5` not found."}}
{"type":"turn.started"}
{"type":"item.completed","item":{"id":"item_1","type":"reasoning","text":"**Thinking** hm"}}
{"type":"item.updated","item":{"id":"item_2","type":"agent_message","text":"Hello"}}
{"type":"item.completed","item":{"id":"item_2","type":"agent_message","text":"Hello world"}}
{"type":"item.completed","item":{"id":"item_3","type":"agent_message","text":"And more."}}
{"type":"turn.completed","usage":{"input_tokens":20,"cached_input_tokens":4,"cache_write_input_tokens":0,"output_tokens":9,"reasoning_output_tokens":3}}
"#;

/// Cursor's agent, as its documentation and its users show it.
const CURSOR: &str = r#"
{"type":"system","subtype":"init","apiKeySource":"login","cwd":"/tmp/x","session_id":"c6b62c6f","model":"Auto","permissionMode":"default"}
{"type":"user","message":{"role":"user","content":[{"type":"text","text":"Say hello"}]},"session_id":"c6b62c6f"}
{"type":"thinking","subtype":"delta","text":"hmm","session_id":"c6b62c6f","timestamp_ms":1774846267000}
{"type":"thinking","subtype":"completed","session_id":"c6b62c6f","timestamp_ms":1774846267100}
{"type":"assistant","message":{"role":"assistant","content":[{"type":"text","text":"Hello"}]},"session_id":"c6b62c6f","timestamp_ms":1774846267524}
{"type":"assistant","message":{"role":"assistant","content":[{"type":"text","text":" world"}]},"session_id":"c6b62c6f","timestamp_ms":1774846267600}
{"type":"assistant","message":{"role":"assistant","content":[{"type":"text","text":"Hello world"}]},"session_id":"c6b62c6f","model_call_id":"a594","timestamp_ms":1774846267693}
{"type":"assistant","message":{"role":"assistant","content":[{"type":"text","text":"Hello world"}]},"session_id":"c6b62c6f"}
{"type":"result","subtype":"success","duration_ms":5234,"duration_api_ms":5234,"is_error":false,"result":"Hello world","session_id":"c6b62c6f","usage":{"inputTokens":11,"outputTokens":7,"cacheReadTokens":5,"cacheWriteTokens":2}}
"#;

fn read(kind: Kind, lines: &str) -> Vec<Event> {
    let mut reader = Reader::new(kind);
    lines.lines().flat_map(|line| reader.read(line.as_bytes())).collect()
}

fn text(text: &str) -> Event {
    Event::Text(text.to_owned())
}

fn thought(text: &str) -> Event {
    Event::Thought(text.to_owned())
}

fn done(usage: Usage) -> Event {
    Event::Done(Ending { reason: "stop", usage: Some(usage) })
}

#[test]
fn each_program_is_understood_and_nothing_is_said_twice() {
    let usage = Usage { input: 18, cached: 5, output: 7, reasoning: 0 };
    let said = vec![thought("hmm"), text("Hello"), text(" world"), done(usage)];
    assert_eq!(read(Kind::Claude, CLAUDE), said);
    assert_eq!(read(Kind::Cursor, CURSOR), said);
    let usage = Usage { input: 20, cached: 4, output: 9, reasoning: 3 };
    assert_eq!(
        read(Kind::Codex, CODEX),
        [
            thought("**Thinking** hm"),
            text("Hello"),
            text(" world"),
            text("\n\nAnd more."),
            done(usage)
        ]
    );
}

#[test]
fn an_answer_that_comes_with_the_last_line_only_is_an_answer() {
    for (kind, lines) in [(Kind::Claude, CLAUDE), (Kind::Cursor, CURSOR)] {
        let last = lines.lines().last().unwrap();
        let events = read(kind, last);
        assert_eq!(events[0], text("Hello world"));
        assert!(matches!(events[1], Event::Done(_)) && events.len() == 2, "{events:?}");
    }
}

#[test]
fn failures_keep_their_status() {
    let failed = |kind, line: &str| match read(kind, line).remove(0) {
        Event::Failed(failed) => (failed.status.as_u16(), failed.message),
        other => panic!("{other:?}"),
    };
    let line = r#"{"type":"result","subtype":"success","is_error":true,"api_error_status":400,"num_turns":1,"result":"API Error: 400 bad thing","stop_reason":"stop_sequence"}"#;
    assert_eq!(failed(Kind::Claude, line), (400, "API Error: 400 bad thing".to_owned()));
    let line = r#"{"type":"result","subtype":"error_max_turns","is_error":false,"errors":[]}"#;
    assert_eq!(failed(Kind::Claude, line), (502, "error_max_turns".to_owned()));
    let line = r#"{"type":"turn.failed","error":{"message":"{\"error\": {\"type\": \"invalid_request_error\", \"message\": \"bad thing\", \"code\": \"x\"}}"}}"#;
    assert_eq!(failed(Kind::Codex, line), (400, "bad thing".to_owned()));
    let line =
        r#"{"type":"turn.failed","error":{"message":"unexpected status 401 Unauthorized: no"}}"#;
    assert_eq!(failed(Kind::Codex, line).0, 401);
    let line = r#"{"type":"turn.failed","error":{"message":"stream disconnected"}}"#;
    assert_eq!(failed(Kind::Codex, line).0, 502);
}

#[test]
fn what_nobody_knows_is_passed_over() {
    for kind in [Kind::Claude, Kind::Codex, Kind::Cursor] {
        let lines = "WARNING: something\n{\n{}\n[]\n{\"type\":\"new\"}\n{\"type\":7}\n\u{feff}\n";
        assert_eq!(read(kind, lines), []);
    }
}

#[test]
fn models_are_read_from_what_is_printed() {
    let codex = b"WARNING: x\n{\"models\":[{\"slug\":\"gpt-6\",\"visibility\":\"list\"},{\"slug\":\"hidden\",\"visibility\":\"hide\"},{\"slug\":\"old\"}]}\n";
    assert_eq!(models(Kind::Codex, codex), ["gpt-6", "old"]);
    let cursor = b"Available models\n\nauto - Auto (default)\ngpt-6 - GPT-6\n\nTip: use --model <id> - or not\n";
    assert_eq!(models(Kind::Cursor, cursor), ["auto", "gpt-6"]);
    assert!(models(Kind::Codex, b"nothing").is_empty());
}
