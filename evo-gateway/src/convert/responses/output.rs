//! Whole answers.

use std::sync::Arc;

use super::input::{read_reasoning, summary, write_call};
use crate::{
    convert::{Context, ConvertError, custom, error, json, seal},
    model::{
        Block, ChatResponse, Reasoning, SealOrigin, StopReason, TokenLogprob, ToolCall, Usage,
    },
    wire::{Content, responses as wire},
};

/// Reads an answer. Items of tools that run at OpenAI are left out: nobody asked for one across
/// protocols.
pub(super) fn read(response: wire::Response) -> Result<ChatResponse, ConvertError> {
    if let Some(failure) = failure(&response) {
        return Err(failure);
    }
    let stop = read_stop(&response);
    let mut logprobs = Vec::new();
    let mut blocks = Vec::new();
    for (at, item) in response.output.into_iter().enumerate() {
        read_item(item, at, stop.as_ref(), &mut blocks, &mut logprobs)?;
    }
    let stop = stop.unwrap_or_else(|| stop_of(&blocks));
    let usage = response.usage.as_ref().map(read_usage);
    Ok(ChatResponse { id: response.id, model: response.model, blocks, stop, usage, logprobs })
}

fn failure(response: &wire::Response) -> Option<ConvertError> {
    let status = response.status.as_deref().unwrap_or("completed");
    if matches!(status, "completed" | "incomplete") && response.error.is_none() {
        return None;
    }
    let message = match &response.error {
        Some(failure) => error::read_in_stream(failure).message,
        None => format!("the provider's answer is `{status}`, not completed"),
    };
    Some(ConvertError::new("error", message))
}

fn read_item(
    item: wire::Item,
    at: usize,
    stop: Option<&StopReason>,
    blocks: &mut Vec<Block>,
    logprobs: &mut Vec<TokenLogprob>,
) -> Result<(), ConvertError> {
    match item.kind.as_str() {
        wire::MESSAGE => {
            let parts = match item.content {
                Some(Content::Parts(parts)) => parts,
                Some(Content::Text(text)) => vec![wire::Part::output_text(text)],
                None => Vec::new(),
            };
            for part in parts {
                match part {
                    wire::Part::OutputText { text, logprobs: tokens, .. } => {
                        blocks.push(Block::Text(text));
                        logprobs.extend(tokens.into_iter().map(read_logprob));
                    }
                    wire::Part::Refusal { refusal } => blocks.push(Block::Refusal(refusal)),
                    _ => {}
                }
            }
        }
        wire::REASONING => blocks.extend(read_reasoning(item).map(Block::Reasoning)),
        wire::FUNCTION_CALL | wire::CUSTOM_TOOL_CALL => {
            let field = format!("output[{at}]");
            let name = item
                .name
                .ok_or_else(|| ConvertError::new(format!("{field}.name"), "is missing"))?;
            let id = item.call_id.or(item.id).unwrap_or_else(|| format!("call_{at}"));
            let arguments = match item.input {
                Some(input) => custom::arguments(input),
                None => match serde_json::from_str(item.arguments.as_deref().unwrap_or("{}")) {
                    Ok(arguments) => arguments,
                    // The answer was cut off within this call; half of it is no call.
                    Err(_) if stop == Some(&StopReason::Length) => return Ok(()),
                    Err(error) => {
                        let message = format!("must be the text of a JSON object: {error}");
                        return Err(ConvertError::new(format!("{field}.arguments"), message));
                    }
                },
            };
            blocks.push(Block::ToolCall(ToolCall { id, name, arguments }));
        }
        _ => {}
    }
    Ok(())
}

/// Why an answer is not whole, if it is not.
pub(super) fn read_stop(response: &wire::Response) -> Option<StopReason> {
    let reason = response.incomplete_details.as_ref().and_then(|why| why.reason.as_deref());
    match (response.status.as_deref(), reason) {
        (_, Some("max_output_tokens")) => Some(StopReason::Length),
        (_, Some("content_filter")) => Some(StopReason::Refusal),
        (Some("incomplete"), _) => Some(StopReason::Length),
        _ => None,
    }
}

fn stop_of(blocks: &[Block]) -> StopReason {
    if blocks.iter().any(|block| matches!(block, Block::ToolCall(_))) {
        StopReason::ToolUse
    } else if blocks.iter().any(|block| matches!(block, Block::Refusal(_))) {
        StopReason::Refusal
    } else {
        StopReason::End
    }
}

pub(super) fn read_usage(usage: &wire::Usage) -> Usage {
    let cached = usage.input_tokens_details.cached_tokens.min(usage.input_tokens);
    let rest = usage.input_tokens - cached;
    let written = usage.input_tokens_details.cache_write_tokens.min(rest);
    Usage {
        input_tokens: rest - written,
        cache_read_tokens: cached,
        cache_write_tokens: written,
        cache_write_hour_tokens: 0,
        output_tokens: usage.output_tokens,
        reasoning_tokens: usage.output_tokens_details.reasoning_tokens,
    }
}

fn write_usage(usage: &Usage) -> wire::Usage {
    wire::Usage {
        input_tokens: usage.prompt_tokens(),
        input_tokens_details: wire::InputTokensDetails {
            cached_tokens: usage.cache_read_tokens,
            cache_write_tokens: usage.cache_write_tokens,
        },
        output_tokens: usage.output_tokens,
        output_tokens_details: wire::OutputTokensDetails {
            reasoning_tokens: Some(usage.reasoning_tokens.unwrap_or(0)),
        },
        total_tokens: usage.prompt_tokens().saturating_add(usage.output_tokens),
    }
}

pub(super) fn read_logprob(token: wire::Logprob) -> TokenLogprob {
    TokenLogprob {
        token: token.token,
        logprob: token.logprob,
        bytes: Some(token.bytes).filter(|bytes| !bytes.is_empty()),
        top: token.top_logprobs.into_iter().map(read_logprob).collect(),
    }
}

pub(super) fn write_logprob(token: TokenLogprob) -> wire::Logprob {
    let bytes = token.bytes.unwrap_or_else(|| token.token.as_bytes().to_vec());
    let top_logprobs = token.top.into_iter().map(write_logprob).collect();
    wire::Logprob { token: token.token, logprob: token.logprob, bytes, top_logprobs }
}

/// Writes an answer.
pub(super) fn write(answer: ChatResponse, context: &Context) -> Vec<u8> {
    let mut frame = Frame::new(context);
    frame.start(&answer.id, answer.model);
    let mut logprobs: Vec<_> = answer.logprobs.into_iter().map(write_logprob).collect();
    for block in answer.blocks {
        let item = match block {
            // All of them, since which belong to which text is not known.
            Block::Text(text) => message(wire::Part::OutputText {
                text,
                annotations: [],
                logprobs: std::mem::take(&mut logprobs),
            }),
            Block::Refusal(refusal) => message(wire::Part::Refusal { refusal }),
            Block::Reasoning(reasoning) => write_reasoning(reasoning),
            Block::ToolCall(call) => frame.write_call(call),
        };
        frame.add(item);
    }
    frame.stop = answer.stop;
    frame.usage = answer.usage;
    let (status, _) = frame.end();
    json(&frame.response(status, None))
}

fn message(part: wire::Part) -> wire::Item {
    wire::Item {
        kind: wire::MESSAGE.to_owned(),
        role: Some("assistant".to_owned()),
        content: Some(Content::Parts(vec![part])),
        ..wire::Item::default()
    }
}

fn write_reasoning(Reasoning { text, seal }: Reasoning) -> wire::Item {
    let encrypted = |seal| seal::write(seal, SealOrigin::OpenAiResponses);
    wire::Item {
        kind: wire::REASONING.to_owned(),
        summary: Some(summary(text)),
        encrypted_content: seal.map(encrypted),
        ..wire::Item::default()
    }
}

/// What all that is written of one answer shares, whole or streamed.
#[derive(Debug)]
pub(super) struct Frame {
    context: Context,
    echo: Arc<wire::Echo>,
    /// What all ids of this answer end with.
    base: String,
    id: String,
    model: String,
    pub(super) output: Vec<wire::Item>,
    pub(super) stop: StopReason,
    pub(super) usage: Option<Usage>,
}

impl Frame {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            context: context.clone(),
            echo: context.echo.clone().unwrap_or_default(),
            base: String::new(),
            id: String::new(),
            model: String::new(),
            output: Vec::new(),
            stop: StopReason::End,
            usage: None,
        }
    }

    /// Takes the provider's id and model.
    pub(super) fn start(&mut self, id: &str, model: String) {
        let prefixes = ["resp_", "chatcmpl-", "msg_"];
        let bare = prefixes.iter().find_map(|prefix| id.strip_prefix(prefix)).unwrap_or(id);
        self.base =
            if bare.is_empty() { self.context.created.to_string() } else { bare.to_owned() };
        self.id = format!("resp_{}", self.base);
        self.model = model;
    }

    pub(super) fn has_started(&self) -> bool {
        !self.id.is_empty()
    }

    /// The id of the next item.
    pub(super) fn item_id(&self, kind: &str) -> String {
        let prefix = match kind {
            wire::MESSAGE => "msg",
            wire::REASONING => "rs",
            wire::CUSTOM_TOOL_CALL => "ctc",
            _ => "fc",
        };
        format!("{prefix}_{}_{}", self.base, self.output.len())
    }

    /// Adds an item that is done.
    fn add(&mut self, mut item: wire::Item) {
        item.id = Some(self.item_id(&item.kind));
        item.status = Some("completed".to_owned());
        self.output.push(item);
    }

    /// A call as its caller knows the tool.
    pub(super) fn write_call(&self, call: ToolCall) -> wire::Item {
        let is_custom = self.context.custom_tools.contains(&call.name);
        let mut item = write_call(call, is_custom);
        let flat = item.name.as_deref().unwrap_or_default();
        let known = self.context.namespaced.iter().find(|known| known.flat == flat);
        if let Some(known) = known {
            item.namespace = Some(known.namespace.clone());
            item.name = Some(known.name.clone());
        }
        item
    }

    /// The status of the answer and why it is not whole.
    pub(super) fn end(&self) -> (&'static str, Option<&'static str>) {
        match self.stop {
            StopReason::Length => ("incomplete", Some("max_output_tokens")),
            StopReason::Refusal if !self.is_refused_in_words() => {
                ("incomplete", Some("content_filter"))
            }
            _ => ("completed", None),
        }
    }

    fn is_refused_in_words(&self) -> bool {
        let parts = self.output.iter().filter_map(|item| match &item.content {
            Some(Content::Parts(parts)) => Some(parts),
            _ => None,
        });
        parts.flatten().any(|part| matches!(part, wire::Part::Refusal { .. }))
    }

    /// The answer as far as it is.
    pub(super) fn response<'a>(
        &'a self,
        status: &'static str,
        error: Option<&'a wire::ErrorDetail>,
    ) -> wire::ResponseOut<'a> {
        let (_, reason) = self.end();
        let is_over = status != "in_progress" && error.is_none();
        let reason = reason.filter(|_| is_over).map(str::to_owned);
        wire::ResponseOut {
            id: &self.id,
            object: "response",
            created_at: self.context.created,
            status,
            background: false,
            error,
            incomplete_details: reason
                .map(|reason| wire::IncompleteDetails { reason: Some(reason) }),
            model: &self.model,
            output: &self.output,
            previous_response_id: (),
            store: false,
            usage: self.usage.as_ref().filter(|_| is_over).map(write_usage),
            echo: &self.echo,
        }
    }
}
