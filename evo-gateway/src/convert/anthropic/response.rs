use crate::{
    model::{Block, ChatResponse, Reasoning, Seal, SealOrigin, StopReason, ToolCall, Usage},
    wire::anthropic as wire,
};

/// Reads an answer. Blocks of tools that run at Anthropic are left out: nobody asked for one across
/// protocols.
pub(super) fn read(response: wire::Response) -> ChatResponse {
    ChatResponse {
        id: response.id,
        model: response.model,
        blocks: response.content.into_iter().filter_map(read_block).collect(),
        stop: read_stop(response.stop_reason.as_deref(), response.stop_sequence),
        usage: Some(read_usage(response.usage)),
        logprobs: Vec::new(),
    }
}

fn read_block(block: wire::Block) -> Option<Block> {
    match block {
        wire::Block::Text { text } => Some(Block::Text(text)),
        wire::Block::Thinking { thinking, signature } => {
            Some(Block::Reasoning(read_reasoning(thinking, signature)))
        }
        wire::Block::ToolUse { id, name, input } => {
            Some(Block::ToolCall(ToolCall { id, name, arguments: input }))
        }
        wire::Block::RedactedThinking
        | wire::Block::Image { .. }
        | wire::Block::Document { .. }
        | wire::Block::ToolResult { .. }
        | wire::Block::Unknown => None,
    }
}

fn read_reasoning(text: String, signature: String) -> Reasoning {
    let seal = (!signature.is_empty()).then(|| read_seal(signature));
    Reasoning { text, seal }
}

pub(super) fn read_seal(signature: String) -> Seal {
    Seal { origin: SealOrigin::Anthropic, id: None, data: signature }
}

pub(super) fn read_stop(reason: Option<&str>, sequence: Option<String>) -> StopReason {
    match reason {
        Some("max_tokens" | "model_context_window_exceeded") => StopReason::Length,
        Some("tool_use") => StopReason::ToolUse,
        Some("stop_sequence") => StopReason::StopSequence(sequence),
        Some("refusal") => StopReason::Refusal,
        Some("pause_turn") => StopReason::Pause,
        _ => StopReason::End,
    }
}

pub(super) fn write_stop(stop: StopReason) -> wire::MessageDelta {
    let (reason, stop_sequence) = match stop {
        StopReason::End => ("end_turn", None),
        StopReason::Length => ("max_tokens", None),
        StopReason::ToolUse => ("tool_use", None),
        StopReason::StopSequence(sequence) => ("stop_sequence", sequence),
        StopReason::Refusal => ("refusal", None),
        StopReason::Pause => ("pause_turn", None),
    };
    wire::MessageDelta { stop_reason: Some(reason.to_owned()), stop_sequence }
}

pub(super) fn read_usage(usage: wire::Usage) -> Usage {
    Usage {
        input_tokens: usage.input_tokens,
        cache_read_tokens: usage.cache_read_input_tokens,
        cache_write_tokens: usage.cache_creation_input_tokens,
        cache_write_hour_tokens: 0,
        output_tokens: usage.output_tokens,
        reasoning_tokens: None,
    }
}

pub(super) fn write_usage(usage: Usage) -> wire::Usage {
    wire::Usage {
        input_tokens: usage.input_tokens,
        cache_creation_input_tokens: usage.cache_write_tokens,
        cache_read_input_tokens: usage.cache_read_tokens,
        output_tokens: usage.output_tokens,
    }
}

/// An id that looks like Anthropic's. Providers that give none have it made of the time.
pub(super) fn write_id(id: &str, created: u64) -> String {
    match id.strip_prefix("chatcmpl-").unwrap_or(id) {
        "" => format!("msg_{created}"),
        id if id.starts_with("msg_") => id.to_owned(),
        id => format!("msg_{id}"),
    }
}

/// Writes an answer.
pub(super) fn write(response: ChatResponse, created: u64) -> wire::Response {
    let stop = write_stop(response.stop);
    wire::Response {
        id: write_id(&response.id, created),
        kind: "message",
        role: "assistant",
        model: response.model,
        content: response.blocks.into_iter().map(write_block).collect(),
        stop_reason: stop.stop_reason,
        stop_sequence: stop.stop_sequence,
        usage: write_usage(response.usage.unwrap_or_default()),
    }
}

fn write_block(block: Block) -> wire::Block {
    match block {
        Block::Text(text) | Block::Refusal(text) => wire::Block::Text { text },
        Block::Reasoning(Reasoning { text, seal }) => {
            let signature = seal.map_or(String::new(), |seal| seal.data);
            wire::Block::Thinking { thinking: text, signature }
        }
        Block::ToolCall(ToolCall { id, name, arguments }) => {
            wire::Block::ToolUse { id, name, input: arguments }
        }
    }
}
