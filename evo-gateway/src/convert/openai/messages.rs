use serde_json::{Map, Value};

use super::reasoning;
use crate::{
    convert::{ConvertError, Notes, custom, gpt, media},
    model::{
        CacheFor, Document, Image, Instruction, Media, Message, Part, Role, ToolCall, ToolResult,
    },
    wire::{Content, openai as wire},
};

/// Separates texts that were blocks of their own where one text must do: many servers that speak
/// OpenAI's protocol take no list of parts.
const BETWEEN_TEXTS: &str = "\n\n";

/// Splits messages into the instructions that stand above the conversation, and the conversation.
pub(super) fn read(
    messages: Vec<wire::Message>,
) -> Result<(Vec<Instruction>, Vec<Message>), ConvertError> {
    let mut system = Vec::new();
    let mut conversation = Vec::with_capacity(messages.len());
    for (at, message) in messages.into_iter().enumerate() {
        let field = format!("messages[{at}]");
        if message.function_call.as_ref().is_some_and(|call| !call.is_null()) {
            let field = format!("{field}.function_call");
            return Err(ConvertError::new(field, "is not translated; use `tool_calls`"));
        }
        let content = read_content(message.content, &format!("{field}.content"))?;
        match message.role.as_str() {
            "system" | "developer" => {
                let parts = only_text(content, &field)?;
                if conversation.is_empty() {
                    read_instructions(parts, &mut system);
                } else {
                    conversation.push(Message { role: Role::System, parts, at });
                }
            }
            "user" => conversation.push(Message { role: Role::User, parts: content, at }),
            "assistant" => {
                let text = reasoning::read_text(message.reasoning_content, message.reasoning);
                let thought = reasoning::read_of_caller(text, message.reasoning_details);
                let mut parts: Vec<_> = thought.into_iter().map(Part::Reasoning).collect();
                parts.extend(content);
                parts.extend(message.refusal.map(Part::Text));
                for (call_at, call) in message.tool_calls.into_iter().enumerate() {
                    let field = format!("{field}.tool_calls[{call_at}]");
                    parts.push(Part::ToolCall(read_tool_call(call, &field)?));
                }
                conversation.push(Message { role: Role::Assistant, parts, at });
            }
            "tool" => {
                let call_id =
                    message.tool_call_id.filter(|id| !id.is_empty()).ok_or_else(|| {
                        ConvertError::new(format!("{field}.tool_call_id"), "is missing")
                    })?;
                let result = ToolResult { call_id, parts: content, is_error: false };
                let parts = vec![Part::ToolResult(result)];
                conversation.push(Message { role: Role::User, parts, at });
            }
            role => {
                return Err(ConvertError::new(
                    format!("{field}.role"),
                    format!("must be system, developer, user, assistant or tool, not `{role}`"),
                ));
            }
        }
    }
    Ok((system, conversation))
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
            for (at, part) in parts.into_iter().enumerate() {
                let (part, mark) = read_part(part, &format!("{field}[{at}]"))?;
                all.push(part);
                all.extend(mark.map(Part::CacheMark));
            }
            Ok(all)
        }
    }
}

fn read_part(part: wire::Part, field: &str) -> Result<(Part, Option<CacheFor>), ConvertError> {
    match part {
        wire::Part::Text { text, cache_control, prompt_cache_breakpoint } => {
            Ok((Part::Text(text), read_mark(cache_control, prompt_cache_breakpoint)))
        }
        wire::Part::Refusal { refusal } => Ok((Part::Text(refusal), None)),
        wire::Part::ImageUrl {
            image_url: wire::ImageUrl { url, detail },
            cache_control,
            prompt_cache_breakpoint,
        } => {
            let media = media::read_uri(url, &format!("{field}.image_url.url"))?;
            let mark = read_mark(cache_control, prompt_cache_breakpoint);
            Ok((Part::Image(Image { media, detail }), mark))
        }
        wire::Part::File {
            file: wire::File { filename, file_data: Some(data), .. },
            cache_control,
            prompt_cache_breakpoint,
        } => {
            let media = media::read_uri(data, &format!("{field}.file.file_data"))?;
            let mark = read_mark(cache_control, prompt_cache_breakpoint);
            Ok((Part::Document(Document { media, name: filename }), mark))
        }
        wire::Part::File { .. } => Err(ConvertError::new(
            format!("{field}.file"),
            "must hold the file in `file_data`; stored files belong to one provider",
        )),
        wire::Part::InputAudio => {
            Err(ConvertError::new(field, "audio is not something this model's provider can read"))
        }
        wire::Part::Unknown => {
            Err(ConvertError::new(field, "must be of type text, image_url, file or refusal"))
        }
    }
}

/// A mark of OpenAI's own, or of those who reach Anthropic's models through this protocol.
pub(super) fn read_mark(
    control: Option<wire::CacheControl>,
    breakpoint: Option<wire::CacheBreakpoint>,
) -> Option<CacheFor> {
    let ttl = control.map(|mark| mark.ttl).or(breakpoint.map(|mark| mark.ttl))?;
    // OpenAI's are 30 minutes and 12 hours.
    let long = matches!(ttl.as_deref(), Some("1h" | "12h"));
    Some(if long { CacheFor::Hour } else { CacheFor::Default })
}

/// Texts and marks as instructions.
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

fn only_text(parts: Vec<Part>, field: &str) -> Result<Vec<Part>, ConvertError> {
    let is_text = |part: &Part| matches!(part, Part::Text(_) | Part::CacheMark(_));
    if parts.iter().all(is_text) {
        return Ok(parts);
    }
    Err(ConvertError::new(format!("{field}.content"), "must be text in this role"))
}

fn read_tool_call(call: wire::ToolCall, field: &str) -> Result<ToolCall, ConvertError> {
    if call.id.is_empty() {
        return Err(ConvertError::new(format!("{field}.id"), "is missing"));
    }
    if let Some(call_of_custom) = call.custom {
        let arguments = custom::arguments(call_of_custom.input);
        return Ok(ToolCall { id: call.id, name: call_of_custom.name, arguments });
    }
    let function = call.function.ok_or_else(|| {
        let message = "only calls of type `function` and `custom` are translated";
        ConvertError::new(format!("{field}.type"), message)
    })?;
    let arguments = read_arguments(&function.arguments)
        .map_err(|message| ConvertError::new(format!("{field}.function.arguments"), message))?;
    Ok(ToolCall { id: call.id, name: function.name, arguments })
}

/// The arguments of a call, which OpenAI writes as JSON text and leaves empty when there are none.
pub(super) fn read_arguments(text: &str) -> Result<Map<String, Value>, String> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(text)
        .map_err(|error| format!("must be the text of a JSON object: {error}"))
}

/// Writes a call; one of the tools that are `custom` with its bare text.
pub(super) fn write_tool_call(call: ToolCall, custom: &[String]) -> wire::ToolCall {
    if custom.contains(&call.name) {
        let custom =
            Some(wire::CustomCall { name: call.name, input: custom::input(call.arguments) });
        return wire::ToolCall {
            id: call.id,
            kind: wire::CUSTOM.to_owned(),
            function: None,
            custom,
        };
    }
    wire::ToolCall {
        id: call.id,
        kind: wire::FUNCTION.to_owned(),
        function: Some(wire::FunctionCall {
            name: call.name,
            arguments: Value::Object(call.arguments).to_string(),
        }),
        custom: None,
    }
}

/// Writes the conversation for this model.
pub(super) fn write(
    system: Vec<Instruction>,
    conversation: Vec<Message>,
    model: &str,
    notes: &mut Notes,
) -> Result<Vec<wire::Message>, ConvertError> {
    let mut messages = Vec::with_capacity(conversation.len() + 1);
    if !system.is_empty() {
        messages.push(write_instructions(system));
    }
    for message in conversation {
        let field = format!("messages[{}].content", message.at);
        match message.role {
            Role::System => {
                let content = Some(write_content(message.parts, &field)?);
                let role = "system".to_owned();
                messages.push(wire::Message { role, content, ..wire::Message::default() });
            }
            Role::User => write_user(message.parts, &field, &mut messages)?,
            Role::Assistant => {
                messages.extend(write_assistant(message.parts, &field, model, notes)?);
            }
        }
    }
    Ok(messages)
}

fn write_instructions(system: Vec<Instruction>) -> wire::Message {
    if system.iter().all(|instruction| instruction.cache.is_none()) {
        let texts: Vec<_> = system.into_iter().map(|instruction| instruction.text).collect();
        return text_message("system", texts.join(BETWEEN_TEXTS));
    }
    let part = |Instruction { text, cache }| wire::Part::Text {
        text,
        cache_control: None,
        prompt_cache_breakpoint: cache.map(write_mark),
    };
    let content = Some(Content::Parts(system.into_iter().map(part).collect()));
    wire::Message { role: "system".to_owned(), content, ..wire::Message::default() }
}

fn write_mark(mark: CacheFor) -> wire::CacheBreakpoint {
    let ttl = (mark == CacheFor::Hour).then(|| "12h".to_owned());
    wire::CacheBreakpoint { mode: "explicit".to_owned(), ttl }
}

fn text_message(role: &str, text: String) -> wire::Message {
    let content = Some(Content::Text(text));
    wire::Message { role: role.to_owned(), content, ..wire::Message::default() }
}

/// Tool results become messages of their own and come first, directly behind the calls that they
/// answer. Images in them follow in the user's message, because a tool's message holds only text.
fn write_user(
    parts: Vec<Part>,
    field: &str,
    messages: &mut Vec<wire::Message>,
) -> Result<(), ConvertError> {
    let mut said = Vec::new();
    let mut shown_by_tools = Vec::new();
    for part in parts {
        match part {
            Part::ToolResult(result) => messages.push(write_result(result, &mut shown_by_tools)),
            part => said.push(part),
        }
    }
    shown_by_tools.append(&mut said);
    if shown_by_tools.iter().any(|part| !matches!(part, Part::CacheMark(_))) {
        messages.push(wire::Message {
            role: "user".to_owned(),
            content: Some(write_content(shown_by_tools, field)?),
            ..wire::Message::default()
        });
    }
    Ok(())
}

fn write_result(result: ToolResult, shown: &mut Vec<Part>) -> wire::Message {
    let mut texts = Vec::new();
    let before = shown.len();
    for part in result.parts {
        match part {
            Part::Text(text) => texts.push(text),
            // A tool's message is one text, without a place for it.
            Part::CacheMark(_) => {}
            part => shown.push(part),
        }
    }
    if shown.len() > before {
        texts
            .push("(What this tool returned besides text is in the next user message.)".to_owned());
    }
    let mut text = texts.join(BETWEEN_TEXTS);
    // There is no field for it.
    if result.is_error && !text.to_ascii_lowercase().starts_with("error") {
        text.insert_str(0, "Error: ");
    }
    wire::Message { tool_call_id: Some(result.call_id), ..text_message("tool", text) }
}

fn write_content(parts: Vec<Part>, field: &str) -> Result<Content<wire::Part>, ConvertError> {
    let texts: Option<Vec<&str>> = parts
        .iter()
        .map(|part| if let Part::Text(text) = part { Some(text.as_str()) } else { None })
        .collect();
    if let Some(texts) = texts {
        return Ok(Content::Text(texts.join(BETWEEN_TEXTS)));
    }
    let mut written: Vec<wire::Part> = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            Part::CacheMark(mark) => {
                let last = written.last_mut().and_then(wire::Part::breakpoint);
                if let Some(last) = last {
                    *last = Some(write_mark(mark));
                }
            }
            part => written.push(write_part(part, field)?),
        }
    }
    Ok(Content::Parts(written))
}

fn write_part(part: Part, field: &str) -> Result<wire::Part, ConvertError> {
    match part {
        Part::Text(text) => {
            Ok(wire::Part::Text { text, cache_control: None, prompt_cache_breakpoint: None })
        }
        Part::Image(Image { media, detail }) => {
            let image_url = wire::ImageUrl { url: media::write_uri(media), detail };
            Ok(wire::Part::ImageUrl {
                image_url,
                cache_control: None,
                prompt_cache_breakpoint: None,
            })
        }
        Part::Document(Document { media: Media::Url(_), .. }) => Err(ConvertError::new(
            field,
            "a document must be given as base64; this model's provider fetches none by its address",
        )),
        Part::Document(Document { media, name }) => {
            let filename = Some(name.unwrap_or_else(|| "document.pdf".to_owned()));
            let file_data = Some(media::write_uri(media));
            Ok(wire::Part::File {
                file: wire::File { filename, file_data, file_id: None },
                cache_control: None,
                prompt_cache_breakpoint: None,
            })
        }
        Part::ToolCall(_) | Part::ToolResult(_) | Part::Reasoning(_) | Part::CacheMark(_) => {
            Err(ConvertError::new(field, "a tool call or a tool result cannot stand here"))
        }
    }
}

/// Nothing, if there is nothing that OpenAI would see in it.
fn write_assistant(
    parts: Vec<Part>,
    field: &str,
    model: &str,
    notes: &mut Notes,
) -> Result<Option<wire::Message>, ConvertError> {
    let mut text = String::new();
    let mut tool_calls = Vec::new();
    let mut thought = String::new();
    let mut reasoning_details = Vec::new();
    for part in parts {
        match part {
            Part::Text(more) => text.push_str(&more),
            Part::ToolCall(call) => tool_calls.push(write_tool_call(call, &[])),
            // OpenAI's own models give none over this protocol and take none.
            Part::Reasoning(_) if gpt::is_openai(model) => notes.drop("reasoning"),
            Part::Reasoning(reasoning) => match reasoning::write_to_provider(reasoning) {
                Some((more, details)) => {
                    thought.push_str(&more);
                    reasoning_details.extend(details);
                }
                None => notes.drop("reasoning"),
            },
            Part::CacheMark(_) => {}
            Part::Image(_) | Part::Document(_) | Part::ToolResult(_) => {
                let message = "an assistant's message can hold only text and tool calls";
                return Err(ConvertError::new(field, message));
            }
        }
    }
    if text.is_empty() && tool_calls.is_empty() {
        return Ok(None);
    }
    let is_detailed = !reasoning_details.is_empty();
    Ok(Some(wire::Message {
        role: "assistant".to_owned(),
        content: (!text.is_empty()).then_some(Content::Text(text)),
        tool_calls,
        reasoning_content: Some(thought).filter(|text| !text.is_empty() && !is_detailed),
        reasoning_details,
        ..wire::Message::default()
    }))
}
