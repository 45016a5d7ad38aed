use super::request::{is_worth_a_block, text_block, write_texts};
use crate::{
    convert::ConvertError,
    model::{
        ChatRequest, Document, Image, Instruction, Media, Message, Part, Role, ToolCall, ToolResult,
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
        let texts = read_system(system, "system")?;
        chat.system = texts.into_iter().map(Instruction::from).collect();
    }
    for (at, message) in messages.into_iter().enumerate() {
        let field = format!("messages[{at}].content");
        let role = match message.role.as_str() {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "system" => {
                let texts = read_system(message.content, &field)?;
                if chat.messages.is_empty() {
                    chat.system.extend(texts.into_iter().map(Instruction::from));
                } else {
                    let parts = texts.into_iter().map(Part::Text).collect();
                    chat.messages.push(Message { role: Role::System, parts });
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
        chat.messages.push(Message { role, parts });
    }
    Ok(())
}

fn read_system(content: Content<wire::Block>, field: &str) -> Result<Vec<String>, ConvertError> {
    read_content(content, field)?
        .into_iter()
        .map(|part| match part {
            Part::Text(text) => Ok(text),
            _ => Err(ConvertError::new(field, "must be text")),
        })
        .collect()
}

fn read_content(content: Content<wire::Block>, field: &str) -> Result<Vec<Part>, ConvertError> {
    match content {
        Content::Text(text) => Ok(vec![Part::Text(text)]),
        Content::Parts(blocks) => blocks
            .into_iter()
            .enumerate()
            .filter_map(|(at, block)| read_block(block, &format!("{field}[{at}]")).transpose())
            .collect(),
    }
}

/// Nothing for thinking.
fn read_block(block: wire::Block, field: &str) -> Result<Option<Part>, ConvertError> {
    Ok(Some(match block {
        wire::Block::Text { text } => Part::Text(text),
        wire::Block::Image { source } => {
            Part::Image(Image { media: read_source(source, field)?, detail: None })
        }
        wire::Block::Document { source: wire::Source::Text { data }, .. } => Part::Text(data),
        wire::Block::Document { source, title } => {
            Part::Document(Document { media: read_source(source, field)?, name: title })
        }
        wire::Block::ToolUse { id, name, input } => {
            Part::ToolCall(ToolCall { id, name, arguments: input })
        }
        wire::Block::ToolResult { tool_use_id, content, is_error } => {
            let field = format!("{field}.content");
            let parts = content.map_or(Ok(Vec::new()), |content| read_content(content, &field))?;
            if parts.iter().any(|part| matches!(part, Part::ToolCall(_) | Part::ToolResult(_))) {
                return Err(ConvertError::new(field, "must be text, images and documents"));
            }
            Part::ToolResult(ToolResult { call_id: tool_use_id, parts, is_error })
        }
        wire::Block::Thinking { .. } | wire::Block::RedactedThinking => return Ok(None),
        wire::Block::Unknown => {
            return Err(ConvertError::new(
                format!("{field}.type"),
                "must be text, image, document, tool_use, tool_result or thinking with this \
                 model's provider",
            ));
        }
    }))
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
    system: Vec<Instruction>,
    messages: Vec<Message>,
) -> Result<(Option<Content<wire::Block>>, Vec<wire::Message>), ConvertError> {
    let mut system: Vec<_> = system.into_iter().map(|instruction| instruction.text).collect();
    let mut merged: Vec<Message> = Vec::with_capacity(messages.len());
    for message in messages {
        if message.role == Role::System {
            let text = |part| if let Part::Text(text) = part { Some(text) } else { None };
            system.extend(message.parts.into_iter().filter_map(text));
            continue;
        }
        match merged.last_mut().filter(|last| last.role == message.role) {
            Some(last) => last.parts.extend(message.parts),
            None => merged.push(message),
        }
    }
    let written: Vec<_> = merged.into_iter().filter_map(write_message).collect();
    if written.is_empty() {
        let message = "must hold at least one user or assistant message that says something";
        return Err(ConvertError::new("messages", message));
    }
    Ok((write_texts(system), written))
}

/// Nothing for a message without content, which Anthropic refuses.
fn write_message(message: Message) -> Option<wire::Message> {
    let mut parts = message.parts;
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    // A stable sort: results first, everything else in its order.
    parts.sort_by_key(|part| !matches!(part, Part::ToolResult(_)));
    let content = write_parts(parts)?;
    Some(wire::Message { role: role.to_owned(), content })
}

fn write_parts(parts: Vec<Part>) -> Option<Content<wire::Block>> {
    let mut blocks: Vec<_> = parts.into_iter().filter_map(write_part).collect();
    match blocks.as_mut_slice() {
        [] => None,
        [wire::Block::Text { text }] => Some(Content::Text(std::mem::take(text))),
        _ => Some(Content::Parts(blocks)),
    }
}

fn write_part(part: Part) -> Option<wire::Block> {
    Some(match part {
        Part::Text(text) if is_worth_a_block(&text) => text_block(text),
        Part::Text(_) | Part::Reasoning(_) | Part::CacheMark(_) => return None,
        Part::Image(image) => wire::Block::Image { source: write_source(image.media) },
        Part::Document(Document { media, name }) => {
            wire::Block::Document { source: write_source(media), title: name }
        }
        Part::ToolCall(call) => wire::Block::ToolUse {
            id: write_call_id(&call.id),
            name: call.name,
            input: call.arguments,
        },
        Part::ToolResult(result) => wire::Block::ToolResult {
            tool_use_id: write_call_id(&result.call_id),
            content: write_parts(result.parts),
            is_error: result.is_error,
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
