use super::{
    messages::{read_arguments, write_tool_call},
    reasoning,
};
use crate::{
    convert::{Context, ConvertError, custom},
    model::{Block, ChatResponse, Reasoning, StopReason, TokenLogprob, ToolCall, Usage},
    wire::openai as wire,
};

/// Reads an answer; of several choices the first.
pub(super) fn read(response: wire::Response) -> Result<ChatResponse, ConvertError> {
    let choice = response
        .choices
        .into_iter()
        .next()
        .ok_or_else(|| ConvertError::new("choices", "the provider's answer has none"))?;
    let message = choice.message;
    if let Some(failure) = choice.finish_reason.as_deref().and_then(failure) {
        return Err(ConvertError::new("choices[0].finish_reason", failure));
    }
    let (calls, refusal) = (message.tool_calls, message.refusal.filter(|text| !text.is_empty()));
    let stop =
        read_finish_reason(choice.finish_reason.as_deref(), !calls.is_empty(), refusal.is_some());

    let thought = reasoning::read_text(message.reasoning_content, message.reasoning);
    let thought = reasoning::read_of_provider(thought, &message.reasoning_details);
    let mut blocks: Vec<_> = thought.into_iter().map(Block::Reasoning).collect();
    blocks.extend(message.content.filter(|text| !text.is_empty()).map(Block::Text));
    blocks.extend(refusal.map(Block::Refusal));
    for (at, call) in calls.into_iter().enumerate() {
        let field = format!("choices[0].message.tool_calls[{at}].function");
        let id = if call.id.is_empty() { made_up_id(at) } else { call.id };
        if let Some(wire::CustomCall { name, input }) = call.custom {
            let arguments = custom::arguments(input);
            blocks.push(Block::ToolCall(ToolCall { id, name, arguments }));
            continue;
        }
        let Some(function) = call.function else {
            return Err(ConvertError::new(field, "is missing in the provider's answer"));
        };
        match read_arguments(&function.arguments) {
            Ok(arguments) => {
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
        logprobs: choice.logprobs.map(read_logprobs).unwrap_or_default(),
    })
}

pub(super) fn read_logprobs(logprobs: wire::Logprobs) -> Vec<TokenLogprob> {
    logprobs.content.into_iter().chain(logprobs.refusal).map(read_logprob).collect()
}

fn read_logprob(token: wire::TokenLogprob) -> TokenLogprob {
    let top = |top: wire::TopLogprob| TokenLogprob {
        token: top.token,
        logprob: top.logprob,
        bytes: top.bytes,
        top: Vec::new(),
    };
    TokenLogprob {
        token: token.token,
        logprob: token.logprob,
        bytes: token.bytes,
        top: token.top_logprobs.into_iter().map(top).collect(),
    }
}

pub(super) fn write_logprobs(logprobs: Vec<TokenLogprob>) -> Option<wire::Logprobs> {
    if logprobs.is_empty() {
        return None;
    }
    let content = logprobs.into_iter().map(write_logprob).collect();
    Some(wire::Logprobs { content, refusal: Vec::new() })
}

fn write_logprob(token: TokenLogprob) -> wire::TokenLogprob {
    let top = |top: TokenLogprob| wire::TopLogprob {
        token: top.token,
        logprob: top.logprob,
        bytes: top.bytes,
    };
    wire::TokenLogprob {
        token: token.token,
        logprob: token.logprob,
        bytes: token.bytes,
        top_logprobs: token.top.into_iter().map(top).collect(),
    }
}

/// The id of a call that its server gave none: other protocols need one to match the result to.
pub(super) fn made_up_id(call: usize) -> String {
    format!("call_{call}")
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

/// `explained`: the answer holds a text that refuses, with which OpenAI says `stop`.
pub(super) fn write_finish_reason(stop: &StopReason, explained: bool) -> String {
    match stop {
        StopReason::End | StopReason::StopSequence(_) | StopReason::Pause => "stop",
        StopReason::Refusal if explained => "stop",
        StopReason::Length => "length",
        StopReason::ToolUse => "tool_calls",
        StopReason::Refusal => "content_filter",
    }
    .to_owned()
}

/// `prompt_tokens` includes what came from the cache and what went into it.
pub(super) fn read_usage(usage: wire::Usage) -> Usage {
    let details = usage.prompt_tokens_details.unwrap_or_default();
    let cached = details.cached_tokens.min(usage.prompt_tokens);
    let rest = usage.prompt_tokens - cached;
    let written = details.cache_write_tokens.unwrap_or(0).min(rest);
    Usage {
        input_tokens: rest - written,
        cache_read_tokens: cached,
        cache_write_tokens: written,
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
            cache_write_tokens: Some(usage.cache_write_tokens).filter(|tokens| *tokens > 0),
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

/// Writes an answer. Reasoning becomes `reasoning_content`, and `reasoning_details` where its author
/// wants to see it again.
pub(super) fn write(response: ChatResponse, context: &Context) -> wire::Response {
    let mut content = String::new();
    let mut refusal = String::new();
    let mut reasoning_content = String::new();
    let mut reasoning_details = Vec::new();
    let mut tool_calls = Vec::new();
    for block in response.blocks {
        match block {
            Block::Text(text) => content.push_str(&text),
            Block::Refusal(text) => refusal.push_str(&text),
            Block::Reasoning(reasoning) => {
                reasoning_content.push_str(&reasoning.text);
                add_details(&mut reasoning_details, reasoning);
            }
            Block::ToolCall(call) => tool_calls.push(write_tool_call(call, &context.custom_tools)),
        }
    }
    let explained = !refusal.is_empty();
    let has_content = !content.is_empty() || (tool_calls.is_empty() && !explained);
    wire::Response {
        id: write_id(&response.id, context.created),
        object: "chat.completion",
        created: context.created,
        model: response.model,
        choices: vec![wire::Choice {
            index: 0,
            message: wire::Answer {
                role: "assistant".to_owned(),
                content: has_content.then_some(content),
                refusal: explained.then_some(refusal),
                reasoning_content: (!reasoning_content.is_empty()).then_some(reasoning_content),
                reasoning: None,
                reasoning_details,
                tool_calls,
            },
            logprobs: write_logprobs(response.logprobs),
            finish_reason: Some(write_finish_reason(&response.stop, explained)),
        }],
        usage: response.usage.as_ref().map(write_usage),
    }
}

/// Adds what of a piece of reasoning is to come back.
pub(super) fn add_details(details: &mut Vec<wire::ReasoningDetail>, reasoning: Reasoning) {
    for detail in reasoning::write_to_caller(reasoning) {
        let index = Some(details.len() as u64);
        details.push(wire::ReasoningDetail { index, ..detail });
    }
}
