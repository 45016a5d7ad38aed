//! What a tool answered, as the body of a call.

use std::time::Duration;

use rmcp::model::{CallToolResult, ContentBlock, ErrorCode, ErrorData};
use serde_json::{Value, json};

use super::{Ended, Error, ToolAnswer};

/// A result: its structured part, else its contents.
pub(super) fn of_result(
    result: CallToolResult,
    latency: Duration,
    limit: u64,
) -> Result<ToolAnswer, Error> {
    let ended = if result.is_error == Some(true) { Ended::Refused } else { Ended::Well };
    let body = match result.structured_content {
        Some(value) => value,
        None => body(result.content),
    };
    answer(ended, body, latency, limit)
}

/// An error of the protocol. Arguments that are refused are the caller's fault, anything else the
/// server's.
pub(super) fn of_error(
    error: &ErrorData,
    latency: Duration,
    limit: u64,
) -> Result<ToolAnswer, Error> {
    let ended = match error.code {
        ErrorCode::INVALID_PARAMS | ErrorCode::INVALID_REQUEST => Ended::Refused,
        _ => Ended::ServerError,
    };
    answer(ended, Value::String(error.message.to_string()), latency, limit)
}

fn answer(ended: Ended, body: Value, latency: Duration, limit: u64) -> Result<ToolAnswer, Error> {
    let bytes = match &body {
        Value::String(text) => text.len() as u64,
        other => other.to_string().len() as u64,
    };
    if bytes > limit {
        return Err(Error::TooLarge { limit });
    }
    let is_json = !body.is_string();
    Ok(ToolAnswer { ended, body, is_json, bytes, latency })
}

/// One content alone is the body, several are a list, none is an empty text.
fn body(content: Vec<ContentBlock>) -> Value {
    let mut values: Vec<Value> = content.into_iter().map(value).collect();
    match values.len() {
        0 => Value::String(String::new()),
        1 => values.remove(0),
        _ => Value::Array(values),
    }
}

/// A text that is a JSON object or list becomes that; anything else stays a text, so that an answer
/// does not change its type with its content.
fn value(content: ContentBlock) -> Value {
    match content {
        ContentBlock::Text(text) => match serde_json::from_str::<Value>(&text.text) {
            Ok(value @ (Value::Object(_) | Value::Array(_))) => value,
            _ => Value::String(text.text),
        },
        other => serde_json::to_value(other).unwrap_or_else(|_| json!({})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_of(result: Value) -> (Ended, Value) {
        let result: CallToolResult = serde_json::from_value(result).unwrap();
        let answer = of_result(result, Duration::ZERO, 1_000).unwrap();
        (answer.ended, answer.body)
    }

    #[test]
    fn the_structured_part_counts_then_json_then_the_text() {
        let text = |text: &str| json!({"type": "text", "text": text});
        for (result, expected) in [
            (json!({"structuredContent": {"a": 1}, "content": [text("x")]}), json!({"a": 1})),
            (json!({"content": [text(" [1, 2]")]}), json!([1, 2])),
            (json!({"content": [text("7")]}), json!("7")),
            (json!({"content": [text("{\"a\": 1}"), text("b")]}), json!([{"a": 1}, "b"])),
            (json!({"content": []}), json!("")),
        ] {
            assert_eq!(body_of(result.clone()), (Ended::Well, expected), "{result}");
        }
        let failed = json!({"isError": true, "content": [text("no such zone")]});
        assert_eq!(body_of(failed), (Ended::Refused, json!("no such zone")));
    }

    #[test]
    fn an_answer_has_a_limit_and_errors_have_a_side() {
        let large = json!({"content": [{"type": "text", "text": "x".repeat(1_001)}]});
        let large: CallToolResult = serde_json::from_value(large).unwrap();
        assert_eq!(of_result(large, Duration::ZERO, 1_000), Err(Error::TooLarge { limit: 1_000 }));
        let side = |error: ErrorData| of_error(&error, Duration::ZERO, 1_000).unwrap().ended;
        assert_eq!(side(ErrorData::invalid_params("bad zone", None)), Ended::Refused);
        assert_eq!(side(ErrorData::internal_error("oops", None)), Ended::ServerError);
    }
}
