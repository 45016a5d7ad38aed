//! The conversation as items.

use serde_json::Value;

use super::request::flat_name;
use crate::{
    convert::{ConvertError, Notes, custom, media, seal},
    model::{
        CacheFor, Document, Image, Instruction, Media, Message, Part, Reasoning, Role, Seal,
        SealOrigin, ToolCall, ToolResult,
    },
    wire::{Content, openai::CacheBreakpoint, responses as wire},
};

/// Separates texts that were blocks of their own where one text must do.
const BETWEEN_TEXTS: &str = "\n\n";

/// Splits the items into the instructions that stand above the conversation, and the conversation.
pub(super) fn read(
    instructions: Option<String>,
    input: Option<Content<wire::Item>>,
    notes: &mut Notes,
) -> Result<(Vec<Instruction>, Vec<Message>), ConvertError> {
    let mut reader = Reader {
        system: instructions.map(Instruction::from).into_iter().collect(),
        messages: Vec::new(),
    };
    match input {
        None => {
            return Err(ConvertError::new("input", "is missing; give a text or a list of items"));
        }
        Some(Content::Text(text)) => reader.push(Role::User, Part::Text(text), 0),
        Some(Content::Parts(items)) => {
            for (at, item) in items.into_iter().enumerate() {
                reader.read_item(item, at, notes)?;
            }
        }
    }
    Ok((reader.system, reader.messages))
}

struct Reader {
    system: Vec<Instruction>,
    messages: Vec<Message>,
}

impl Reader {
    /// Consecutive items of one side are one message: what was thought, said and called together.
    fn push(&mut self, role: Role, part: Part, at: usize) {
        match self.messages.last_mut().filter(|last| last.role == role) {
            Some(last) => last.parts.push(part),
            None => self.messages.push(Message { role, parts: vec![part], at }),
        }
    }

    fn read_item(
        &mut self,
        item: wire::Item,
        at: usize,
        notes: &mut Notes,
    ) -> Result<(), ConvertError> {
        let field = &format!("input[{at}]");
        match item.kind.as_str() {
            wire::MESSAGE => return self.read_message(item, field, at),
            wire::REASONING => {
                if let Some(reasoning) = read_reasoning(item) {
                    self.push(Role::Assistant, Part::Reasoning(reasoning), at);
                }
            }
            wire::FUNCTION_CALL | wire::CUSTOM_TOOL_CALL => {
                let call = read_call(item, field)?;
                self.push(Role::Assistant, Part::ToolCall(call), at);
            }
            wire::FUNCTION_CALL_OUTPUT | wire::CUSTOM_TOOL_CALL_OUTPUT => {
                let call_id = required(item.call_id, field, "call_id")?;
                let parts = read_content(item.output, &format!("{field}.output"))?;
                let result = ToolResult { call_id, parts, is_error: false };
                self.push(Role::User, Part::ToolResult(result), at);
            }
            "item_reference" => {
                return Err(ConvertError::new(
                    format!("{field}.type"),
                    "`item_reference` is only for providers that speak Responses themselves: the \
                     gateway keeps no items; send the item itself",
                ));
            }
            // Looked for a page or a tool: what was found shows in what was said and called after it.
            "web_search_call" | "tool_search_call" | "tool_search_output" => {
                notes.drop(format!("{field}.type"));
            }
            kind => notes.lose(
                format!("{field}.type"),
                format!(
                    "`{kind}` is not translated; only message, reasoning, function_call, \
                     custom_tool_call and their outputs are"
                ),
            )?,
        }
        Ok(())
    }

    fn read_message(
        &mut self,
        item: wire::Item,
        field: &str,
        at: usize,
    ) -> Result<(), ConvertError> {
        let parts = read_content(item.content, &format!("{field}.content"))?;
        match item.role.as_deref().unwrap_or_default() {
            "system" | "developer" => {
                let is_text = |part: &Part| matches!(part, Part::Text(_) | Part::CacheMark(_));
                if !parts.iter().all(is_text) {
                    let field = format!("{field}.content");
                    return Err(ConvertError::new(field, "must be text in this role"));
                }
                if self.messages.is_empty() {
                    read_instructions(parts, &mut self.system);
                } else {
                    self.messages.push(Message { role: Role::System, parts, at });
                }
            }
            // Not merged with the message before: each stays what its caller sent.
            "user" => self.messages.push(Message { role: Role::User, parts, at }),
            "assistant" => {
                for part in parts {
                    self.push(Role::Assistant, part, at);
                }
            }
            role => {
                return Err(ConvertError::new(
                    format!("{field}.role"),
                    format!("must be system, developer, user or assistant, not `{role}`"),
                ));
            }
        }
        Ok(())
    }
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

fn required(value: Option<String>, field: &str, name: &str) -> Result<String, ConvertError> {
    value
        .filter(|value| !value.is_empty())
        .ok_or_else(|| ConvertError::new(format!("{field}.{name}"), "is missing"))
}

fn read_call(item: wire::Item, field: &str) -> Result<ToolCall, ConvertError> {
    let id = required(item.call_id, field, "call_id")?;
    let mut name = required(item.name, field, "name")?;
    if let Some(namespace) = item.namespace {
        name = flat_name(&namespace, &name);
    }
    let arguments = if item.kind == wire::CUSTOM_TOOL_CALL {
        custom::arguments(item.input.unwrap_or_default())
    } else {
        let text = item.arguments.unwrap_or_default();
        if text.trim().is_empty() {
            serde_json::Map::new()
        } else {
            serde_json::from_str(&text).map_err(|error| {
                let message = format!("must be the text of a JSON object: {error}");
                ConvertError::new(format!("{field}.arguments"), message)
            })?
        }
    };
    Ok(ToolCall { id, name, arguments })
}

/// What was thought, unless there is nothing in it.
pub(super) fn read_reasoning(item: wire::Item) -> Option<Reasoning> {
    let texts = |parts: Vec<wire::Part>| {
        let text = |part| match part {
            wire::Part::SummaryText { text } | wire::Part::ReasoningText { text } => Some(text),
            _ => None,
        };
        parts.into_iter().filter_map(text).collect::<Vec<_>>().join(BETWEEN_TEXTS)
    };
    let mut text = item.summary.map(texts).unwrap_or_default();
    if text.is_empty()
        && let Some(Content::Parts(parts)) = item.content
    {
        text = texts(parts);
    }
    let id = item.id.filter(|id| !id.is_empty());
    let seal = item.encrypted_content.map(|data| read_seal(id, data));
    (!text.is_empty() || seal.is_some()).then_some(Reasoning { text, seal })
}

pub(super) fn read_seal(id: Option<String>, data: String) -> Seal {
    let seal = seal::read(data, SealOrigin::OpenAiResponses);
    if seal.origin == SealOrigin::OpenAiResponses { Seal { id, ..seal } } else { seal }
}

fn read_content(
    content: Option<Content<wire::Part>>,
    field: &str,
) -> Result<Vec<Part>, ConvertError> {
    match content {
        None => Ok(Vec::new()),
        Some(Content::Text(text)) => Ok(vec![Part::Text(text)]),
        Some(Content::Parts(parts)) => {
            let mut all = Vec::with_capacity(parts.len());
            for (at, mut part) in parts.into_iter().enumerate() {
                let mark = part.breakpoint().and_then(Option::take);
                all.push(read_part(part, &format!("{field}[{at}]"))?);
                all.extend(mark.map(|mark| Part::CacheMark(read_mark(&mark))));
            }
            Ok(all)
        }
    }
}

fn read_mark(mark: &CacheBreakpoint) -> CacheFor {
    if mark.ttl.as_deref() == Some("12h") { CacheFor::Hour } else { CacheFor::Default }
}

fn read_part(part: wire::Part, field: &str) -> Result<Part, ConvertError> {
    let stored = "must hold the data itself or an address; stored files belong to one provider";
    match part {
        wire::Part::InputText { text, .. }
        | wire::Part::OutputText { text, .. }
        | wire::Part::Text { text }
        | wire::Part::Refusal { refusal: text } => Ok(Part::Text(text)),
        wire::Part::InputImage { image_url: Some(url), detail, .. } => {
            let media = media::read_uri(url, &format!("{field}.image_url"))?;
            Ok(Part::Image(Image { media, detail: detail.filter(|detail| detail != "auto") }))
        }
        wire::Part::InputImage { .. } => Err(ConvertError::new(field, stored)),
        wire::Part::InputFile { file_data: Some(data), filename, .. } => {
            let media = media::read_uri(data, &format!("{field}.file_data"))?;
            Ok(Part::Document(Document { media, name: filename }))
        }
        wire::Part::InputFile { file_url: Some(url), filename, .. } => {
            Ok(Part::Document(Document { media: Media::Url(url), name: filename }))
        }
        wire::Part::InputFile { .. } => Err(ConvertError::new(field, stored)),
        wire::Part::SummaryText { .. } | wire::Part::ReasoningText { .. } | wire::Part::Unknown => {
            Err(ConvertError::new(
                format!("{field}.type"),
                "must be input_text, output_text, refusal, input_image or input_file",
            ))
        }
    }
}

/// Writes the instructions, and the conversation as items. `custom` are the tools whose calls are
/// bare text.
pub(super) fn write(
    system: Vec<Instruction>,
    messages: Vec<Message>,
    custom: &[String],
    notes: &mut Notes,
) -> Result<(Option<String>, Content<wire::Item>), ConvertError> {
    let mut items = Vec::with_capacity(messages.len() + 1);
    let mut instructions = None;
    if system.iter().any(|instruction| instruction.cache.is_some()) {
        let mut parts = Vec::new();
        for Instruction { text, cache } in system {
            let prompt_cache_breakpoint = cache.map(write_mark);
            parts.push(wire::Part::InputText { text, prompt_cache_breakpoint });
        }
        items.push(message("developer", parts));
    } else if !system.is_empty() {
        let texts: Vec<_> = system.into_iter().map(|instruction| instruction.text).collect();
        instructions = Some(texts.join(BETWEEN_TEXTS));
    }
    let mut custom_calls = Vec::new();
    for message in messages {
        let field = format!("messages[{}].content", message.at);
        match message.role {
            Role::Assistant => {
                write_assistant(
                    message.parts,
                    custom,
                    &mut custom_calls,
                    &field,
                    &mut items,
                    notes,
                )?;
            }
            Role::System => write_said("developer", message.parts, &field, &mut items)?,
            Role::User => {
                let (results, said) = message
                    .parts
                    .into_iter()
                    .partition::<Vec<_>, _>(|part| matches!(part, Part::ToolResult(_)));
                for part in results {
                    if let Part::ToolResult(result) = part {
                        items.push(write_result(result, &custom_calls, &field)?);
                    }
                }
                write_said("user", said, &field, &mut items)?;
            }
        }
    }
    Ok((instructions, Content::Parts(items)))
}

fn message(role: &str, parts: Vec<wire::Part>) -> wire::Item {
    wire::Item {
        kind: wire::MESSAGE.to_owned(),
        role: Some(role.to_owned()),
        content: Some(Content::Parts(parts)),
        ..wire::Item::default()
    }
}

fn write_mark(mark: CacheFor) -> CacheBreakpoint {
    let ttl = (mark == CacheFor::Hour).then(|| "12h".to_owned());
    CacheBreakpoint { mode: "explicit".to_owned(), ttl }
}

fn write_said(
    role: &str,
    parts: Vec<Part>,
    field: &str,
    items: &mut Vec<wire::Item>,
) -> Result<(), ConvertError> {
    let written = write_parts(parts, field)?;
    if !written.is_empty() {
        items.push(message(role, written));
    }
    Ok(())
}

fn write_parts(parts: Vec<Part>, field: &str) -> Result<Vec<wire::Part>, ConvertError> {
    let mut written: Vec<wire::Part> = Vec::with_capacity(parts.len());
    for part in parts {
        let part = match part {
            Part::Text(text) => wire::Part::input_text(text),
            Part::Image(Image { media, detail }) => wire::Part::InputImage {
                image_url: Some(media::write_uri(media)),
                detail: Some(detail.unwrap_or_else(|| "auto".to_owned())),
                prompt_cache_breakpoint: None,
            },
            Part::Document(Document { media, name }) => write_document(media, name),
            Part::CacheMark(mark) => {
                if let Some(last) = written.last_mut().and_then(wire::Part::breakpoint) {
                    *last = Some(write_mark(mark));
                }
                continue;
            }
            Part::Reasoning(_) | Part::ToolCall(_) | Part::ToolResult(_) => {
                let message = "a tool call or a tool result cannot stand here";
                return Err(ConvertError::new(field, message));
            }
        };
        written.push(part);
    }
    Ok(written)
}

fn write_document(media: Media, name: Option<String>) -> wire::Part {
    let (file_data, file_url, filename) = match media {
        Media::Url(url) => (None, Some(url), name),
        inline @ Media::Inline { .. } => {
            let name = name.unwrap_or_else(|| "document.pdf".to_owned());
            (Some(media::write_uri(inline)), None, Some(name))
        }
    };
    wire::Part::InputFile { file_data, file_url, filename, prompt_cache_breakpoint: None }
}

fn write_assistant(
    parts: Vec<Part>,
    custom: &[String],
    custom_calls: &mut Vec<String>,
    field: &str,
    items: &mut Vec<wire::Item>,
    notes: &mut Notes,
) -> Result<(), ConvertError> {
    for part in parts {
        match part {
            Part::Text(text) if text.is_empty() => {}
            Part::Text(text) => {
                items.push(message("assistant", vec![wire::Part::output_text(text)]));
            }
            Part::ToolCall(call) => {
                let is_custom = custom.contains(&call.name);
                if is_custom {
                    custom_calls.push(call.id.clone());
                }
                items.push(write_call(call, is_custom));
            }
            Part::Reasoning(Reasoning {
                text,
                seal: Some(Seal { origin: SealOrigin::OpenAiResponses, id, data }),
            }) => items.push(wire::Item {
                kind: wire::REASONING.to_owned(),
                id,
                summary: Some(summary(text)),
                encrypted_content: Some(data),
                ..wire::Item::default()
            }),
            Part::Reasoning(_) => notes.drop("reasoning"),
            Part::CacheMark(_) => {}
            Part::Image(_) | Part::Document(_) | Part::ToolResult(_) => {
                let message = "an assistant's message can hold only text and tool calls";
                return Err(ConvertError::new(field, message));
            }
        }
    }
    Ok(())
}

pub(super) fn summary(text: String) -> Vec<wire::Part> {
    if text.is_empty() { Vec::new() } else { vec![wire::Part::SummaryText { text }] }
}

pub(super) fn write_call(call: ToolCall, is_custom: bool) -> wire::Item {
    let (kind, arguments, input) = if is_custom {
        (wire::CUSTOM_TOOL_CALL, None, Some(custom::input(call.arguments)))
    } else {
        (wire::FUNCTION_CALL, Some(Value::Object(call.arguments).to_string()), None)
    };
    wire::Item {
        kind: kind.to_owned(),
        call_id: Some(call.id),
        name: Some(call.name),
        arguments,
        input,
        ..wire::Item::default()
    }
}

fn write_result(
    result: ToolResult,
    custom_calls: &[String],
    field: &str,
) -> Result<wire::Item, ConvertError> {
    let is_custom = custom_calls.contains(&result.call_id);
    let kind = if is_custom { wire::CUSTOM_TOOL_CALL_OUTPUT } else { wire::FUNCTION_CALL_OUTPUT };
    let mut parts = result.parts;
    // There is no field for it.
    if result.is_error {
        match parts.first_mut() {
            Some(Part::Text(text)) if !text.to_ascii_lowercase().starts_with("error") => {
                text.insert_str(0, "Error: ");
            }
            Some(Part::Text(_)) => {}
            _ => parts.insert(0, Part::Text("Error.".to_owned())),
        }
    }
    let texts: Option<Vec<&str>> = parts
        .iter()
        .filter(|part| !matches!(part, Part::CacheMark(_)))
        .map(|part| if let Part::Text(text) = part { Some(text.as_str()) } else { None })
        .collect();
    let output = match texts {
        Some(texts) => Content::Text(texts.join(BETWEEN_TEXTS)),
        None => Content::Parts(write_parts(parts, field)?),
    };
    Ok(wire::Item {
        kind: kind.to_owned(),
        call_id: Some(result.call_id),
        output: Some(output),
        ..wire::Item::default()
    })
}
