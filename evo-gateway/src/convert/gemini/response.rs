use super::{
    messages::{mark_first_call, signed, write_call},
    seals,
};
use crate::{
    convert::{Context, ConvertError},
    model::{
        Block, ChatResponse, Reasoning, Seal, SealOrigin, StopReason, TokenLogprob, ToolCall, Usage,
    },
    wire::gemini as wire,
};

/// How much of an answer's id goes into the ids of its calls; other protocols limit those.
const LONGEST_ID: usize = 24;

/// The id of a call that Google gave none.
pub(super) fn made_up_id(answer: &str, call: usize) -> String {
    let answer = &answer[..answer.floor_char_boundary(LONGEST_ID)];
    let joint = if answer.is_empty() { "" } else { "_" };
    format!("call_{answer}{joint}{call}")
}

/// Reads an answer; of several candidates the first.
pub(super) fn read(
    response: wire::Response,
    context: &Context,
) -> Result<ChatResponse, ConvertError> {
    if response.error.is_some_and(|error| !error.is_null()) {
        return Err(ConvertError::new("error", "the provider answered with an error"));
    }
    let mut answer = ChatResponse {
        id: response.response_id,
        model: response.model_version,
        blocks: Vec::new(),
        stop: StopReason::Refusal,
        usage: response.usage_metadata.map(read_usage),
        logprobs: Vec::new(),
    };
    let Some(candidate) = response.candidates.into_iter().next() else {
        let feedback = response.prompt_feedback;
        let blocked = feedback.filter(|feedback| feedback.block_reason.is_some());
        let blocked = blocked
            .ok_or_else(|| ConvertError::new("candidates", "the provider's answer has none"))?;
        answer.blocks.push(Block::Refusal(block_message(&blocked)));
        return Ok(answer);
    };
    let reason = candidate.finish_reason.as_deref();
    if let Some(message) = failure(reason, candidate.finish_message.as_deref()) {
        return Err(ConvertError::new("candidates[0].finishReason", message));
    }
    let made_up =
        if answer.id.is_empty() { context.created.to_string() } else { answer.id.clone() };
    let mut calls = 0;
    for part in candidate.content.unwrap_or_default().parts {
        for piece in read_part(part, &made_up, &mut calls) {
            push(piece, &mut answer.blocks);
        }
    }
    answer.stop = read_stop(reason, calls > 0);
    if answer.stop == StopReason::Refusal {
        answer.blocks.extend(candidate.finish_message.map(Block::Refusal));
    }
    answer.logprobs = candidate.logprobs_result.map(read_logprobs).unwrap_or_default();
    Ok(answer)
}

/// What a part of an answer is.
#[derive(Debug)]
pub(super) enum Piece {
    Text(String),
    Thought(String),
    Seal(Seal),
    Call(ToolCall),
}

/// Reads a part; what else there may be is of tools that run at Google, which nobody asked for across
/// protocols.
pub(super) fn read_part(part: wire::Part, answer: &str, calls: &mut usize) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(2);
    let mut seal = part.thought_signature.filter(|text| !text.is_empty()).map(seals::read);
    if let Some(call) = part.function_call {
        let id = call.id.filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| made_up_id(answer, *calls));
        *calls += 1;
        if let Some(seal) = &mut seal {
            seal.id.get_or_insert_with(|| id.clone());
        }
        pieces.extend(seal.map(Piece::Seal));
        pieces.push(Piece::Call(ToolCall { id, name: call.name, arguments: call.args }));
        return pieces;
    }
    let text = part.text.filter(|text| !text.is_empty());
    if part.thought {
        pieces.extend(text.map(Piece::Thought));
        pieces.extend(seal.map(Piece::Seal));
    } else {
        pieces.extend(seal.map(Piece::Seal));
        pieces.extend(text.map(Piece::Text));
    }
    pieces
}

/// Adds a piece to the blocks. A seal ends the thought before it.
fn push(piece: Piece, blocks: &mut Vec<Block>) {
    match (piece, blocks.last_mut()) {
        (Piece::Text(more), Some(Block::Text(text))) => text.push_str(&more),
        (Piece::Thought(more), Some(Block::Reasoning(open))) if open.seal.is_none() => {
            open.text.push_str(&more);
        }
        (Piece::Seal(seal), Some(Block::Reasoning(open))) if open.seal.is_none() => {
            open.seal = Some(seal);
        }
        (Piece::Text(text), _) => blocks.push(Block::Text(text)),
        (Piece::Thought(text), _) => blocks.push(Block::Reasoning(Reasoning { text, seal: None })),
        (Piece::Seal(seal), _) => {
            blocks.push(Block::Reasoning(Reasoning { text: String::new(), seal: Some(seal) }));
        }
        (Piece::Call(call), _) => blocks.push(Block::ToolCall(call)),
    }
}

/// What Google says of a question that it does not answer.
pub(super) fn block_message(feedback: &wire::PromptFeedback) -> String {
    let reason = feedback.block_reason.as_deref().unwrap_or_default();
    match &feedback.block_reason_message {
        Some(message) => format!("The prompt was blocked ({reason}): {message}"),
        None => format!("The prompt was blocked ({reason})."),
    }
}

/// What went wrong, if the reason for the end is that something did.
pub(super) fn failure(reason: Option<&str>, message: Option<&str>) -> Option<String> {
    let reason = reason?;
    let failed = matches!(
        reason,
        "MALFORMED_FUNCTION_CALL"
            | "MALFORMED_RESPONSE"
            | "UNEXPECTED_TOOL_CALL"
            | "TOO_MANY_TOOL_CALLS"
            | "MISSING_THOUGHT_SIGNATURE"
            | "OTHER"
    );
    failed.then(|| match message {
        Some(message) => format!("the provider failed within its answer ({reason}): {message}"),
        None => format!("the provider failed within its answer ({reason})"),
    })
}

pub(super) fn read_stop(reason: Option<&str>, has_calls: bool) -> StopReason {
    match reason {
        Some("MAX_TOKENS") => StopReason::Length,
        None | Some("STOP" | "FINISH_REASON_UNSPECIFIED") if has_calls => StopReason::ToolUse,
        None | Some("STOP" | "FINISH_REASON_UNSPECIFIED") => StopReason::End,
        // SAFETY, RECITATION, LANGUAGE, BLOCKLIST, PROHIBITED_CONTENT, SPII, IMAGE_SAFETY, …
        Some(_) => StopReason::Refusal,
    }
}

pub(super) fn write_stop(stop: &StopReason) -> &'static str {
    match stop {
        StopReason::End | StopReason::ToolUse | StopReason::StopSequence(_) | StopReason::Pause => {
            "STOP"
        }
        StopReason::Length => "MAX_TOKENS",
        StopReason::Refusal => "SAFETY",
    }
}

pub(super) fn read_logprobs(result: wire::LogprobsResult) -> Vec<TokenLogprob> {
    let read = |token: wire::TokenLogprob| TokenLogprob {
        bytes: Some(token.token.as_bytes().to_vec()),
        token: token.token,
        logprob: token.log_probability,
        top: Vec::new(),
    };
    let mut tops = result.top_candidates.into_iter();
    let chosen = result.chosen_candidates.into_iter();
    chosen
        .map(|token| {
            let top = tops.next().unwrap_or_default().candidates;
            TokenLogprob { top: top.into_iter().map(read).collect(), ..read(token) }
        })
        .collect()
}

pub(super) fn write_logprobs(logprobs: Vec<TokenLogprob>) -> Option<wire::LogprobsResult> {
    if logprobs.is_empty() {
        return None;
    }
    let write = |token: TokenLogprob| wire::TokenLogprob {
        token: token.token,
        log_probability: token.logprob,
    };
    let mut result = wire::LogprobsResult::default();
    for mut token in logprobs {
        let candidates = std::mem::take(&mut token.top).into_iter().map(write).collect();
        result.top_candidates.push(wire::TopLogprobs { candidates });
        result.chosen_candidates.push(write(token));
    }
    Some(result)
}

pub(super) fn read_usage(usage: wire::UsageMetadata) -> Usage {
    let prompt =
        usage.prompt_token_count.saturating_add(usage.tool_use_prompt_token_count.unwrap_or(0));
    let cached = usage.cached_content_token_count.unwrap_or(0).min(prompt);
    let thoughts = usage.thoughts_token_count;
    Usage {
        input_tokens: prompt - cached,
        cache_read_tokens: cached,
        output_tokens: usage.candidates_token_count.saturating_add(thoughts.unwrap_or(0)),
        reasoning_tokens: thoughts,
        ..Usage::default()
    }
}

pub(super) fn write_usage(usage: &Usage) -> wire::UsageMetadata {
    let thoughts = usage.reasoning_tokens.map(|thoughts| thoughts.min(usage.output_tokens));
    wire::UsageMetadata {
        prompt_token_count: usage.prompt_tokens(),
        cached_content_token_count: Some(usage.cache_read_tokens).filter(|tokens| *tokens > 0),
        candidates_token_count: usage.output_tokens - thoughts.unwrap_or(0),
        thoughts_token_count: thoughts,
        tool_use_prompt_token_count: None,
        total_token_count: usage.prompt_tokens().saturating_add(usage.output_tokens),
    }
}

/// Writes an answer.
pub(super) fn write(response: ChatResponse, context: &Context) -> wire::Response {
    let mut parts = Vec::with_capacity(response.blocks.len());
    let mut pending = None;
    for block in response.blocks {
        match block {
            Block::Text(text) | Block::Refusal(text) => {
                let thought_signature = pending.take();
                parts.push(wire::Part { thought_signature, ..wire::Part::text(text) });
            }
            Block::Reasoning(Reasoning { text, seal }) => {
                if !text.is_empty() && !context.hides_thoughts {
                    parts.push(wire::Part { thought: true, ..wire::Part::text(text) });
                }
                match seal {
                    Some(seal) if seal.origin == SealOrigin::Gemini => {
                        parts.extend(pending.replace(seal.data).map(signed));
                    }
                    Some(seal) if is_shown(&seal, context) => parts.push(sealed(seal)),
                    _ => {}
                }
            }
            Block::ToolCall(call) => parts.push(write_call(call, pending.take())),
        }
    }
    parts.extend(pending.map(signed));
    mark_first_call(&mut parts);
    let candidate = wire::Candidate {
        content: Some(wire::Turn { role: Some("model".to_owned()), parts }),
        finish_reason: Some(write_stop(&response.stop).to_owned()),
        logprobs_result: write_logprobs(response.logprobs),
        ..wire::Candidate::default()
    };
    wire::Response {
        candidates: vec![candidate],
        usage_metadata: response.usage.as_ref().map(write_usage),
        model_version: response.model,
        response_id: response.id,
        ..wire::Response::default()
    }
}

/// Whether a caller that does not see thoughts can give this one back all the same.
pub(super) fn is_shown(seal: &Seal, context: &Context) -> bool {
    let needs_text = matches!(seal.origin, SealOrigin::Anthropic | SealOrigin::OpenAiChat);
    !(context.hides_thoughts && needs_text)
}

/// The seal of another protocol, as the end of a thought.
pub(super) fn sealed(seal: Seal) -> wire::Part {
    wire::Part { thought: true, ..signed(seals::write(seal)) }
}
