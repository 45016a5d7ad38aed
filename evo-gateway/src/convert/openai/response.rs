use super::messages::{read_arguments, write_tool_call};
use crate::{
    convert::ConvertError,
    model::{Block, ChatResponse, Reasoning, StopReason, ToolCall, Usage},
    wire::openai as wire,
};

/// Reads an answer; of several choices the first.
pub(super) fn read(response: wire::Response) -> Result<ChatResponse, ConvertError> {
    let choice = response
        .choices
        .into_iter()
        .next()
        .ok_or_else(|| ConvertError::new("choices", "the provider's answer has none"))?;
    let wire::Answer { content, refusal, reasoning_content, reasoning, tool_calls, .. } =
        choice.message;
    if let Some(failure) = choice.finish_reason.as_deref().and_then(failure) {
        return Err(ConvertError::new("choices[0].finish_reason", failure));
    }
    let refused = refusal.is_some();
    let stop = read_finish_reason(choice.finish_reason.as_deref(), !tool_calls.is_empty(), refused);

    let mut blocks = Vec::new();
    if let Some(text) = read_reasoning(reasoning_content, reasoning) {
        blocks.push(Block::Reasoning(Reasoning { text, seal: None }));
    }
    let texts = content.into_iter().chain(refusal).filter(|text| !text.is_empty());
    blocks.extend(texts.map(Block::Text));
    for (at, call) in tool_calls.into_iter().enumerate() {
        let field = format!("choices[0].message.tool_calls[{at}].function");
        let Some(function) = call.function else {
            return Err(ConvertError::new(field, "is missing in the provider's answer"));
        };
        match read_arguments(&function.arguments) {
            Ok(arguments) => {
                let id = if call.id.is_empty() { made_up_id(at) } else { call.id };
                blocks.push(Block::ToolCall(ToolCall { id, name: function.name, arguments }));
            }
            // The answer was cut off within this call, which `Length` says; half of it is no call.
            Err(_) if stop == StopReason::Length => {}
            Err(message) => {
                return Err(ConvertError::new(format!("{field}.arguments"), message));
            }
        }
    }
    Ok(ChatResponse {
        id: response.id,
        model: response.model,
        blocks,
        stop,
        usage: response.usage.map(read_usage),
        logprobs: Vec::new(),
    })
}

/// The id of a call that its server gave none: other protocols need one to match the result to.
pub(super) fn made_up_id(call: usize) -> String {
    format!("call_{call}")
}

pub(super) fn read_reasoning(
    reasoning_content: Option<String>,
    reasoning: Option<serde_json::Value>,
) -> Option<String> {
    reasoning_content
        .or_else(|| reasoning?.as_str().map(str::to_owned))
        .filter(|text| !text.is_empty())
}

/// What went wrong, if the reason for the end is that something did. OpenAI has no such reasons, but
/// servers that speak its protocol do.
pub(super) fn failure(finish_reason: &str) -> Option<&'static str> {
    match finish_reason {
        "error" => Some("the provider failed within its answer"),
        "insufficient_system_resource" => Some("the provider had no capacity to finish its answer"),
        _ => None,
    }
}

/// `stop` together with tool calls means `tool_calls`: some servers say the former and mean the
/// latter, and agents go by it.
pub(super) fn read_finish_reason(
    reason: Option<&str>,
    has_tool_calls: bool,
    refused: bool,
) -> StopReason {
    match reason {
        Some("length") => StopReason::Length,
        Some("content_filter") => StopReason::Refusal,
        Some("tool_calls" | "function_call") => StopReason::ToolUse,
        _ if has_tool_calls => StopReason::ToolUse,
        _ if refused => StopReason::Refusal,
        _ => StopReason::End,
    }
}

pub(super) fn write_finish_reason(stop: &StopReason) -> String {
    match stop {
        StopReason::End | StopReason::StopSequence(_) | StopReason::Pause => "stop",
        StopReason::Length => "length",
        StopReason::ToolUse => "tool_calls",
        StopReason::Refusal => "content_filter",
    }
    .to_owned()
}

/// `prompt_tokens` includes what came from the cache.
pub(super) fn read_usage(usage: wire::Usage) -> Usage {
    let cached = usage.prompt_tokens_details.map_or(0, |details| details.cached_tokens);
    Usage {
        input_tokens: usage.prompt_tokens.saturating_sub(cached),
        cache_read_tokens: cached.min(usage.prompt_tokens),
        cache_write_tokens: 0,
        cache_write_hour_tokens: 0,
        output_tokens: usage.completion_tokens,
        reasoning_tokens: usage.completion_tokens_details.and_then(|d| d.reasoning_tokens),
    }
}

pub(super) fn write_usage(usage: &Usage) -> wire::Usage {
    wire::Usage {
        prompt_tokens: usage.prompt_tokens(),
        completion_tokens: usage.output_tokens,
        total_tokens: usage.prompt_tokens().saturating_add(usage.output_tokens),
        prompt_tokens_details: Some(wire::PromptTokensDetails {
            cached_tokens: usage.cache_read_tokens,
        }),
        completion_tokens_details: usage.reasoning_tokens.map(|reasoning_tokens| {
            wire::CompletionTokensDetails { reasoning_tokens: Some(reasoning_tokens) }
        }),
    }
}

/// An id that looks like OpenAI's, also when the provider's is empty.
pub(super) fn write_id(id: &str, created: u64) -> String {
    match id {
        "" => format!("chatcmpl-{created}"),
        id if id.starts_with("chatcmpl-") => id.to_owned(),
        id => format!("chatcmpl-{id}"),
    }
}

/// Writes an answer. Reasoning becomes `reasoning_content`, without its signature.
pub(super) fn write(response: ChatResponse, created: u64) -> wire::Response {
    let mut content = String::new();
    let mut reasoning = String::new();
    let mut tool_calls = Vec::new();
    for block in response.blocks {
        match block {
            Block::Text(text) | Block::Refusal(text) => content.push_str(&text),
            Block::Reasoning(Reasoning { text, .. }) => reasoning.push_str(&text),
            Block::ToolCall(call) => tool_calls.push(write_tool_call(call)),
        }
    }
    let has_content = !content.is_empty() || tool_calls.is_empty();
    wire::Response {
        id: write_id(&response.id, created),
        object: "chat.completion",
        created,
        model: response.model,
        choices: vec![wire::Choice {
            index: 0,
            message: wire::Answer {
                role: "assistant".to_owned(),
                content: has_content.then_some(content),
                refusal: None,
                reasoning_content: (!reasoning.is_empty()).then_some(reasoning),
                reasoning: None,
                tool_calls,
            },
            logprobs: (),
            finish_reason: Some(write_finish_reason(&response.stop)),
        }],
        usage: response.usage.as_ref().map(write_usage),
    }
}
