use serde_json::{Map, Value};

use crate::{
    convert::{ConvertError, media},
    model::{Document, Image, Instruction, Media, Message, Part, Role, ToolCall, ToolResult},
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
                let texts = only_text(content, &field)?;
                if conversation.is_empty() {
                    system.extend(texts.into_iter().map(Instruction::from));
                } else {
                    let parts = texts.into_iter().map(Part::Text).collect();
                    conversation.push(Message { role: Role::System, parts });
                }
            }
            "user" => conversation.push(Message { role: Role::User, parts: content }),
            "assistant" => {
                let mut parts = content;
                parts.extend(message.refusal.map(Part::Text));
                for (at, call) in message.tool_calls.into_iter().enumerate() {
                    let field = format!("{field}.tool_calls[{at}]");
                    parts.push(Part::ToolCall(read_tool_call(call, &field)?));
                }
                conversation.push(Message { role: Role::Assistant, parts });
            }
            "tool" => {
                let call_id =
                    message.tool_call_id.filter(|id| !id.is_empty()).ok_or_else(|| {
                        ConvertError::new(format!("{field}.tool_call_id"), "is missing")
                    })?;
                let result = ToolResult { call_id, parts: content, is_error: false };
                let parts = vec![Part::ToolResult(result)];
                conversation.push(Message { role: Role::User, parts });
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
        Some(Content::Parts(parts)) => parts
            .into_iter()
            .enumerate()
            .map(|(at, part)| read_part(part, &format!("{field}[{at}]")))
            .collect(),
    }
}

fn read_part(part: wire::Part, field: &str) -> Result<Part, ConvertError> {
    match part {
        wire::Part::Text { text } | wire::Part::Refusal { refusal: text } => Ok(Part::Text(text)),
        wire::Part::ImageUrl { image_url: wire::ImageUrl { url, detail } } => {
            let media = media::read_uri(url, &format!("{field}.image_url.url"))?;
            Ok(Part::Image(Image { media, detail }))
        }
        wire::Part::File { file: wire::File { filename, file_data: Some(data), .. } } => {
            let media = media::read_uri(data, &format!("{field}.file.file_data"))?;
            Ok(Part::Document(Document { media, name: filename }))
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

fn only_text(parts: Vec<Part>, field: &str) -> Result<Vec<String>, ConvertError> {
    parts
        .into_iter()
        .map(|part| match part {
            Part::Text(text) => Ok(text),
            _ => Err(ConvertError::new(format!("{field}.content"), "must be text in this role")),
        })
        .collect()
}

fn read_tool_call(call: wire::ToolCall, field: &str) -> Result<ToolCall, ConvertError> {
    if call.id.is_empty() {
        return Err(ConvertError::new(format!("{field}.id"), "is missing"));
    }
    let function = call.function.ok_or_else(|| {
        ConvertError::new(format!("{field}.type"), "only calls of type `function` are translated")
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

pub(super) fn write_tool_call(call: ToolCall) -> wire::ToolCall {
    wire::ToolCall {
        id: call.id,
        kind: wire::FUNCTION.to_owned(),
        function: Some(wire::FunctionCall {
            name: call.name,
            arguments: Value::Object(call.arguments).to_string(),
        }),
    }
}

pub(super) fn write(
    system: Vec<Instruction>,
    conversation: Vec<Message>,
) -> Result<Vec<wire::Message>, ConvertError> {
    let mut messages = Vec::with_capacity(conversation.len() + 1);
    if !system.is_empty() {
        let text: Vec<_> = system.into_iter().map(|instruction| instruction.text).collect();
        messages.push(text_message("system", text.join(BETWEEN_TEXTS)));
    }
    for (at, message) in conversation.into_iter().enumerate() {
        let field = format!("messages[{at}].content");
        match message.role {
            Role::System => {
                let content = Some(write_content(message.parts, &field)?);
                let role = "system".to_owned();
                messages.push(wire::Message { role, content, ..wire::Message::default() });
            }
            Role::User => write_user(message.parts, &field, &mut messages)?,
            Role::Assistant => messages.extend(write_assistant(message.parts, &field)?),
        }
    }
    Ok(messages)
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
    if !shown_by_tools.is_empty() {
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
    parts
        .into_iter()
        .map(|part| write_part(part, field))
        .collect::<Result<_, _>>()
        .map(Content::Parts)
}

fn write_part(part: Part, field: &str) -> Result<wire::Part, ConvertError> {
    match part {
        Part::Text(text) => Ok(wire::Part::Text { text }),
        Part::Image(Image { media, detail }) => {
            let image_url = wire::ImageUrl { url: media::write_uri(media), detail };
            Ok(wire::Part::ImageUrl { image_url })
        }
        Part::Document(Document { media: Media::Url(_), .. }) => Err(ConvertError::new(
            field,
            "a document must be given as base64; this model's provider fetches none by its address",
        )),
        Part::Document(Document { media, name }) => {
            let filename = Some(name.unwrap_or_else(|| "document.pdf".to_owned()));
            let file_data = Some(media::write_uri(media));
            Ok(wire::Part::File { file: wire::File { filename, file_data, file_id: None } })
        }
        Part::ToolCall(_) | Part::ToolResult(_) | Part::Reasoning(_) | Part::CacheMark(_) => {
            Err(ConvertError::new(field, "a tool call or a tool result cannot stand here"))
        }
    }
}

/// Nothing, if there is nothing that OpenAI would see in it.
fn write_assistant(parts: Vec<Part>, field: &str) -> Result<Option<wire::Message>, ConvertError> {
    let mut text = String::new();
    let mut tool_calls = Vec::new();
    for part in parts {
        match part {
            Part::Text(more) => text.push_str(&more),
            Part::ToolCall(call) => tool_calls.push(write_tool_call(call)),
            Part::Reasoning(_) | Part::CacheMark(_) => {}
            Part::Image(_) | Part::Document(_) | Part::ToolResult(_) => {
                let message = "an assistant's message can hold only text and tool calls";
                return Err(ConvertError::new(field, message));
            }
        }
    }
    if text.is_empty() && tool_calls.is_empty() {
        return Ok(None);
    }
    Ok(Some(wire::Message {
        role: "assistant".to_owned(),
        content: (!text.is_empty()).then_some(Content::Text(text)),
        tool_calls,
        ..wire::Message::default()
    }))
}
