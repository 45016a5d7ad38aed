use crate::{
    convert::seal,
    model::{Block, ChatResponse, Reasoning, Seal, SealOrigin, StopReason, ToolCall, Usage},
    wire::anthropic as wire,
};

/// Reads an answer. Blocks of tools that run at Anthropic are left out: nobody asked for one across
/// protocols.
pub(super) fn read(response: wire::Response) -> ChatResponse {
    let mut blocks: Vec<_> = response.content.into_iter().filter_map(read_block).collect();
    blocks.extend(response.stop_details.and_then(|why| why.explanation).map(Block::Refusal));
    ChatResponse {
        id: response.id,
        model: response.model,
        blocks,
        stop: read_stop(response.stop_reason.as_deref(), response.stop_sequence),
        usage: Some(read_usage(response.usage)),
        logprobs: Vec::new(),
    }
}

fn read_block(block: wire::Block) -> Option<Block> {
    match block {
        wire::Block::Text { text, .. } => Some(Block::Text(text)),
        wire::Block::Thinking { thinking, signature } => {
            Some(Block::Reasoning(read_reasoning(thinking, signature)))
        }
        wire::Block::ToolUse { id, name, input, .. } => {
            Some(Block::ToolCall(ToolCall { id, name, arguments: input }))
        }
        wire::Block::RedactedThinking { data } => {
            let seal = Some(read_redacted(data));
            Some(Block::Reasoning(Reasoning { text: String::new(), seal }))
        }
        wire::Block::Image { .. }
        | wire::Block::Document { .. }
        | wire::Block::ToolResult { .. }
        | wire::Block::Unknown => None,
    }
}

pub(super) fn read_reasoning(text: String, signature: String) -> Reasoning {
    let seal = (!signature.is_empty()).then(|| read_seal(signature));
    Reasoning { text, seal }
}

pub(super) fn read_seal(signature: String) -> Seal {
    seal::read(signature, SealOrigin::Anthropic)
}

pub(super) fn read_redacted(data: String) -> Seal {
    seal::read(data, SealOrigin::AnthropicRedacted)
}

/// Whether reasoning with this seal is a block that shows no text.
pub(super) fn is_redacted(text: &str, seal: &Seal) -> bool {
    seal.origin == SealOrigin::AnthropicRedacted
        || (text.is_empty() && seal.origin != SealOrigin::Anthropic)
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
    wire::MessageDelta { stop_reason: Some(reason.to_owned()), stop_sequence, stop_details: None }
}

pub(super) fn read_usage(usage: wire::Usage) -> Usage {
    Usage {
        input_tokens: usage.input_tokens,
        cache_read_tokens: usage.cache_read_input_tokens,
        cache_write_tokens: usage.cache_creation_input_tokens,
        cache_write_hour_tokens: usage
            .cache_creation
            .map_or(0, |creation| creation.ephemeral_1h_input_tokens),
        output_tokens: usage.output_tokens,
        reasoning_tokens: usage.output_tokens_details.map(|details| details.thinking_tokens),
    }
}

pub(super) fn write_usage(usage: Usage) -> wire::Usage {
    let hour = usage.cache_write_hour_tokens;
    wire::Usage {
        input_tokens: usage.input_tokens,
        cache_creation_input_tokens: usage.cache_write_tokens,
        cache_read_input_tokens: usage.cache_read_tokens,
        output_tokens: usage.output_tokens,
        cache_creation: (usage.cache_write_tokens > 0).then(|| wire::CacheCreation {
            ephemeral_5m_input_tokens: usage.cache_write_tokens.saturating_sub(hour),
            ephemeral_1h_input_tokens: hour,
        }),
        output_tokens_details: usage
            .reasoning_tokens
            .map(|thinking_tokens| wire::OutputTokensDetails { thinking_tokens }),
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
        stop_details: None,
        usage: write_usage(response.usage.unwrap_or_default()),
    }
}

fn write_block(block: Block) -> wire::Block {
    match block {
        Block::Text(text) | Block::Refusal(text) => wire::Block::text(text),
        Block::Reasoning(Reasoning { text, seal: Some(seal) }) if is_redacted(&text, &seal) => {
            wire::Block::RedactedThinking { data: seal::write(seal, SealOrigin::AnthropicRedacted) }
        }
        Block::Reasoning(Reasoning { text, seal }) => {
            let write = |seal| seal::write(seal, SealOrigin::Anthropic);
            wire::Block::Thinking { thinking: text, signature: seal.map(write).unwrap_or_default() }
        }
        Block::ToolCall(ToolCall { id, name, arguments }) => {
            wire::Block::ToolUse { id, name, input: arguments, cache_control: None }
        }
    }
}
