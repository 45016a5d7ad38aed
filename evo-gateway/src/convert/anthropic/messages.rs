use super::{
    request::{is_worth_a_block, write_instructions},
    response::read_reasoning,
};
use crate::{
    convert::{ConvertError, Notes, seal},
    model::{
        CacheFor, ChatRequest, Document, Image, Instruction, Media, Message, Part, Reasoning, Role,
        Seal, SealOrigin, ToolCall, ToolResult,
    },
    wire::{Content, anthropic as wire},
};

/// Reads instructions and conversation into `chat`.
pub(super) fn read(
    system: Option<Content<wire::Block>>,
    messages: Vec<wire::Message>,
    chat: &mut ChatRequest,
) -> Result<(), ConvertError> {
    if let Some(system) = system {
        read_instructions(read_system(system, "system")?, &mut chat.system);
    }
    for (at, message) in messages.into_iter().enumerate() {
        let field = format!("messages[{at}].content");
        let role = match message.role.as_str() {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "system" => {
                let parts = read_system(message.content, &field)?;
                if chat.messages.is_empty() {
                    read_instructions(parts, &mut chat.system);
                } else {
                    chat.messages.push(Message { role: Role::System, parts, at });
                }
                continue;
            }
            role => {
                return Err(ConvertError::new(
                    format!("messages[{at}].role"),
                    format!("must be user or assistant, not `{role}`"),
                ));
            }
        };
        let parts = read_content(message.content, &field)?;
        chat.messages.push(Message { role, parts, at });
    }
    Ok(())
}

fn read_system(content: Content<wire::Block>, field: &str) -> Result<Vec<Part>, ConvertError> {
    let parts = read_content(content, field)?;
    let is_text = |part: &Part| matches!(part, Part::Text(_) | Part::CacheMark(_));
    if parts.iter().all(is_text) {
        return Ok(parts);
    }
    Err(ConvertError::new(field, "must be text"))
}

fn read_instructions(parts: Vec<Part>, system: &mut Vec<Instruction>) {
    for part in parts {
        match part {
            Part::Text(text) => system.push(Instruction::from(text)),
            Part::CacheMark(mark) => {
                if let Some(last) = system.last_mut() {
                    last.cache = Some(mark);
                }
            }
            _ => {}
        }
    }
}

fn read_content(content: Content<wire::Block>, field: &str) -> Result<Vec<Part>, ConvertError> {
    match content {
        Content::Text(text) => Ok(vec![Part::Text(text)]),
        Content::Parts(blocks) => {
            let mut parts = Vec::with_capacity(blocks.len());
            for (at, mut block) in blocks.into_iter().enumerate() {
                let mark = block.cache_control().and_then(Option::take);
                parts.push(read_block(block, &format!("{field}[{at}]"))?);
                parts.extend(mark.map(|mark| Part::CacheMark(read_mark(&mark))));
            }
            Ok(parts)
        }
    }
}

pub(super) fn read_mark(mark: &wire::CacheControl) -> CacheFor {
    if mark.ttl.as_deref() == Some("1h") { CacheFor::Hour } else { CacheFor::Default }
}

pub(super) fn write_mark(mark: CacheFor) -> wire::CacheControl {
    let ttl = (mark == CacheFor::Hour).then(|| "1h".to_owned());
    wire::CacheControl { kind: "ephemeral".to_owned(), ttl }
}

fn read_block(block: wire::Block, field: &str) -> Result<Part, ConvertError> {
    Ok(match block {
        wire::Block::Text { text, .. } => Part::Text(text),
        wire::Block::Image { source, .. } => {
            Part::Image(Image { media: read_source(source, field)?, detail: None })
        }
        wire::Block::Document { source: wire::Source::Text { data }, .. } => Part::Text(data),
        wire::Block::Document { source, title, .. } => {
            Part::Document(Document { media: read_source(source, field)?, name: title })
        }
        wire::Block::ToolUse { id, name, input, .. } => {
            Part::ToolCall(ToolCall { id, name, arguments: input })
        }
        wire::Block::ToolResult { tool_use_id, content, is_error, .. } => {
            let field = format!("{field}.content");
            let parts = content.map_or(Ok(Vec::new()), |content| read_content(content, &field))?;
            let is_shown = |part: &Part| {
                matches!(
                    part,
                    Part::Text(_) | Part::Image(_) | Part::Document(_) | Part::CacheMark(_)
                )
            };
            if !parts.iter().all(is_shown) {
                return Err(ConvertError::new(field, "must be text, images and documents"));
            }
            Part::ToolResult(ToolResult { call_id: tool_use_id, parts, is_error })
        }
        wire::Block::Thinking { thinking, signature } => {
            Part::Reasoning(read_reasoning(thinking, signature))
        }
        wire::Block::RedactedThinking { data } => {
            let seal = Some(seal::read(data, SealOrigin::AnthropicRedacted));
            Part::Reasoning(Reasoning { text: String::new(), seal })
        }
        wire::Block::Unknown => {
            return Err(ConvertError::new(
                format!("{field}.type"),
                "must be text, image, document, tool_use, tool_result or thinking with this \
                 model's provider",
            ));
        }
    })
}

fn read_source(source: wire::Source, field: &str) -> Result<Media, ConvertError> {
    match source {
        wire::Source::Base64 { media_type, data } => Ok(Media::Inline { media_type, data }),
        wire::Source::Url { url } => Ok(Media::Url(url)),
        wire::Source::Text { .. } | wire::Source::Unknown => Err(ConvertError::new(
            format!("{field}.source.type"),
            "must be base64 or url; stored files belong to one provider",
        )),
    }
}

/// Writes instructions and conversation.
///
/// Instructions from within the conversation move to the top, since not all that speak this protocol
/// have another place for them. Consecutive messages of one role become one: all results of parallel
/// calls have to stand in one message, and first in it.
pub(super) fn write(
    mut system: Vec<Instruction>,
    messages: Vec<Message>,
    notes: &mut Notes,
) -> Result<(Option<Content<wire::Block>>, Vec<wire::Message>), ConvertError> {
    let mut merged: Vec<Message> = Vec::with_capacity(messages.len());
    for message in messages {
        if message.role == Role::System {
            read_instructions(message.parts, &mut system);
            continue;
        }
        match merged.last_mut().filter(|last| last.role == message.role) {
            Some(last) => last.parts.extend(message.parts),
            None => merged.push(message),
        }
    }
    let written: Vec<_> =
        merged.into_iter().filter_map(|message| write_message(message, notes)).collect();
    if written.is_empty() {
        let message = "must hold at least one user or assistant message that says something";
        return Err(ConvertError::new("messages", message));
    }
    Ok((write_instructions(system), written))
}

/// Nothing for a message without content, which Anthropic refuses.
fn write_message(message: Message, notes: &mut Notes) -> Option<wire::Message> {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    let content = write_parts(results_first(message.parts), notes)?;
    Some(wire::Message { role: role.to_owned(), content })
}

/// Everything else stays in its order. A cache mark stays with what it follows.
fn results_first(parts: Vec<Part>) -> Vec<Part> {
    let mut results = Vec::new();
    let mut others = Vec::new();
    let mut is_result = false;
    for part in parts {
        if !matches!(part, Part::CacheMark(_)) {
            is_result = matches!(part, Part::ToolResult(_));
        }
        if is_result { &mut results } else { &mut others }.push(part);
    }
    results.append(&mut others);
    results
}

fn write_parts(parts: Vec<Part>, notes: &mut Notes) -> Option<Content<wire::Block>> {
    let mut blocks: Vec<wire::Block> = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            Part::CacheMark(mark) => {
                if let Some(last) = blocks.last_mut().and_then(wire::Block::cache_control) {
                    *last = Some(write_mark(mark));
                }
            }
            part => blocks.extend(write_part(part, notes)),
        }
    }
    match blocks.as_mut_slice() {
        [] => None,
        [wire::Block::Text { text, cache_control: None }] => {
            Some(Content::Text(std::mem::take(text)))
        }
        _ => Some(Content::Parts(blocks)),
    }
}

fn write_part(part: Part, notes: &mut Notes) -> Option<wire::Block> {
    Some(match part {
        Part::Text(text) if is_worth_a_block(&text) => wire::Block::text(text),
        Part::Text(_) | Part::CacheMark(_) => return None,
        Part::Image(image) => {
            wire::Block::Image { source: write_source(image.media), cache_control: None }
        }
        Part::Document(Document { media, name }) => {
            wire::Block::Document { source: write_source(media), title: name, cache_control: None }
        }
        Part::Reasoning(Reasoning { text, seal }) => match seal {
            Some(Seal { origin: SealOrigin::Anthropic, data, .. }) => {
                wire::Block::Thinking { thinking: text, signature: data }
            }
            Some(Seal { origin: SealOrigin::AnthropicRedacted, data, .. }) => {
                wire::Block::RedactedThinking { data }
            }
            _ => {
                notes.drop("reasoning");
                return None;
            }
        },
        Part::ToolCall(call) => wire::Block::ToolUse {
            id: write_call_id(&call.id),
            name: call.name,
            input: call.arguments,
            cache_control: None,
        },
        Part::ToolResult(result) => wire::Block::ToolResult {
            tool_use_id: write_call_id(&result.call_id),
            content: write_parts(result.parts, notes),
            is_error: result.is_error,
            cache_control: None,
        },
    })
}

fn write_source(media: Media) -> wire::Source {
    match media {
        Media::Inline { media_type, data } => wire::Source::Base64 { media_type, data },
        Media::Url(url) => wire::Source::Url { url },
    }
}

/// Anthropic takes letters, digits, `_` and `-`; other servers number their calls `functions.name:0`.
fn write_call_id(id: &str) -> String {
    id.chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' })
        .collect()
}
