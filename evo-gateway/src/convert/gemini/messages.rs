use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{models, response::made_up_id, seals};
use crate::{
    convert::{ConvertError, Notes},
    model::{
        Document, Image, Instruction, Media, Message, Part, Reasoning, Role, Seal, SealOrigin,
        ToolCall, ToolResult,
    },
    wire::gemini as wire,
};

/// Google's word for a call in the conversation that it has not made itself.
pub(super) const NOT_SIGNED: &str = "skip_thought_signature_validator";
/// Where the text of a result stands, and where that of a failure.
const OUTPUT: &str = "output";
const ERROR: &str = "error";

/// Reads the instructions.
pub(super) fn read_instructions(turn: wire::Turn) -> Result<Vec<Instruction>, ConvertError> {
    let read = |(at, part): (usize, wire::Part)| {
        part.text.map(Instruction::from).ok_or_else(|| {
            ConvertError::new(format!("systemInstruction.parts[{at}]"), "must be text")
        })
    };
    turn.parts.into_iter().enumerate().map(read).collect()
}

/// Reads the conversation.
pub(super) fn read(turns: Vec<wire::Turn>) -> Result<Vec<Message>, ConvertError> {
    let mut calls = Calls::default();
    let mut messages = Vec::with_capacity(turns.len());
    for (at, turn) in turns.into_iter().enumerate() {
        let role = match turn.role.as_deref() {
            None | Some("" | "user" | "function") => Role::User,
            Some("model") => Role::Assistant,
            Some(role) => {
                let message = format!("must be user or model, not `{role}`");
                return Err(ConvertError::new(format!("contents[{at}].role"), message));
            }
        };
        let mut parts = Vec::with_capacity(turn.parts.len());
        for (part_at, part) in turn.parts.into_iter().enumerate() {
            let field = format!("contents[{at}].parts[{part_at}]");
            read_part(part, &field, &mut calls, &mut parts)?;
        }
        messages.push(Message { role, parts, at });
    }
    Ok(messages)
}

/// The calls that have no result yet. In Google's protocol they need no names of their own.
#[derive(Default)]
struct Calls {
    count: usize,
    open: Vec<(String, String)>,
}

impl Calls {
    fn begin(&mut self, id: Option<String>, name: &str) -> String {
        let id = id.filter(|id| !id.is_empty()).unwrap_or_else(|| made_up_id("", self.count));
        self.count += 1;
        self.open.push((id.clone(), name.to_owned()));
        id
    }

    /// The call of a result: the one with its id, else the first of its name.
    fn end(&mut self, id: Option<&str>, name: &str) -> Option<String> {
        let by_id = self.open.iter().position(|(open, _)| Some(open.as_str()) == id);
        let by_name = || self.open.iter().position(|(_, open)| open == name);
        Some(self.open.remove(by_id.or_else(by_name)?).0)
    }
}

fn read_part(
    mut part: wire::Part,
    field: &str,
    calls: &mut Calls,
    parts: &mut Vec<Part>,
) -> Result<(), ConvertError> {
    let signature = part.thought_signature.take().filter(|text| !seals::is_none(text));
    let mut seal = signature.map(seals::read);
    if part.thought {
        read_thought(part.text.unwrap_or_default(), seal, parts);
        return Ok(());
    }
    let read = if let Some(call) = part.function_call.take() {
        let id = calls.begin(call.id, &call.name);
        if let Some(seal) = seal.as_mut().filter(|seal| seal.origin == SealOrigin::Gemini) {
            seal.id = Some(id.clone());
        }
        Part::ToolCall(ToolCall { id, name: call.name, arguments: call.args })
    } else if let Some(result) = part.function_response.take() {
        let call_id = calls.end(result.id.as_deref(), &result.name).ok_or_else(|| {
            let message = format!("answers no call of the function `{}` before it", result.name);
            ConvertError::new(format!("{field}.functionResponse"), message)
        })?;
        let (text, is_error) = read_result(result.response);
        let mut shown = vec![Part::Text(text)];
        for (at, part) in result.parts.into_iter().enumerate() {
            shown.push(read_media(part, &format!("{field}.functionResponse.parts[{at}]"))?);
        }
        Part::ToolResult(ToolResult { call_id, parts: shown, is_error })
    } else if let Some(text) = part.text.take() {
        Part::Text(text)
    } else {
        read_media(part, field)?
    };
    if let Some(seal) = seal {
        parts.push(Part::Reasoning(Reasoning { text: String::new(), seal: Some(seal) }));
    }
    if read != Part::Text(String::new()) {
        parts.push(read);
    }
    Ok(())
}

/// Pieces of a thought are one until its signature.
fn read_thought(text: String, seal: Option<Seal>, parts: &mut Vec<Part>) {
    if let Some(Part::Reasoning(open)) = parts.last_mut()
        && open.seal.is_none()
    {
        open.text.push_str(&text);
        open.seal = seal;
        return;
    }
    parts.push(Part::Reasoning(Reasoning { text, seal }));
}

/// A result is an object. One that holds only a text, where Google says that it should, is that text.
fn read_result(mut response: Map<String, Value>) -> (String, bool) {
    if response.len() == 1 {
        for key in [OUTPUT, ERROR, "result"] {
            if let Some(Value::String(text)) = response.get_mut(key) {
                return (std::mem::take(text), key == ERROR);
            }
        }
    }
    (Value::Object(response).to_string(), false)
}

fn read_media(part: wire::Part, field: &str) -> Result<Part, ConvertError> {
    let (media, kind, name) = if let Some(blob) = part.inline_data {
        // Google's SDKs write the letters of base64 that may stand in a URL; no other protocol
        // takes them.
        let data = blob.data.replace('-', "+").replace('_', "/");
        let media = Media::Inline { media_type: blob.mime_type.clone(), data };
        (media, Some(blob.mime_type), blob.display_name)
    } else if let Some(file) = part.file_data {
        let is_stored = file.file_uri.contains("generativelanguage.googleapis.com/");
        if is_stored || !file.file_uri.starts_with("http") {
            let message = "must be an http(s) address; stored files belong to one provider";
            return Err(ConvertError::new(format!("{field}.fileData.fileUri"), message));
        }
        (Media::Url(file.file_uri), file.mime_type, None)
    } else {
        let kind = part.rest.keys().next().map_or("nothing", String::as_str);
        let message = format!(
            "holds {kind}; only text, inlineData, fileData, functionCall and functionResponse are \
             something this model's provider knows"
        );
        return Err(ConvertError::new(field, message));
    };
    match kind.as_deref() {
        None | Some("") => Ok(Part::Image(Image { media, detail: None })),
        Some(kind) if kind.starts_with("image/") => Ok(Part::Image(Image { media, detail: None })),
        Some(kind) if kind == "application/pdf" || kind.starts_with("text/") => {
            Ok(Part::Document(Document { media, name }))
        }
        Some(kind) => {
            let message = format!("`{kind}` is not something this model's provider can read");
            Err(ConvertError::new(format!("{field}.mimeType"), message))
        }
    }
}

/// Writes instructions and conversation.
///
/// Instructions from within the conversation move to the top. Consecutive messages of one role become
/// one: the results of parallel calls have to stand in one turn, and first in it.
pub(super) fn write(
    mut system: Vec<Instruction>,
    messages: Vec<Message>,
    model: &str,
    notes: &mut Notes,
) -> Result<(Option<wire::Turn>, Vec<wire::Turn>), ConvertError> {
    let mut merged: Vec<Message> = Vec::with_capacity(messages.len());
    for message in messages {
        if message.role == Role::System {
            let text = |part| if let Part::Text(text) = part { Some(text) } else { None };
            system.extend(message.parts.into_iter().filter_map(text).map(Instruction::from));
            continue;
        }
        match merged.last_mut().filter(|last| last.role == message.role) {
            Some(last) => last.parts.extend(message.parts),
            None => merged.push(message),
        }
    }
    let mut names = HashMap::new();
    let mut turns = Vec::with_capacity(merged.len());
    for message in merged {
        let field = format!("messages[{}].content", message.at);
        let (role, parts) = match message.role {
            Role::Assistant => {
                let parts = write_assistant(message.parts, &field, model, &mut names, notes)?;
                ("model", parts)
            }
            _ => ("user", write_user(message.parts, &field, &names)?),
        };
        if !parts.is_empty() {
            turns.push(wire::Turn { role: Some(role.to_owned()), parts });
        }
    }
    if turns.is_empty() {
        let message = "must hold at least one user or assistant message that says something";
        return Err(ConvertError::new("messages", message));
    }
    let texts = system.into_iter().map(|instruction| instruction.text);
    let parts: Vec<_> = texts.filter(|text| !text.is_empty()).map(wire::Part::text).collect();
    let system = (!parts.is_empty()).then_some(wire::Turn { role: None, parts });
    Ok((system, turns))
}

fn write_user(
    parts: Vec<Part>,
    field: &str,
    names: &HashMap<String, String>,
) -> Result<Vec<wire::Part>, ConvertError> {
    let (mut results, mut shown, mut said) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts {
        match part {
            Part::ToolResult(result) => {
                let name = names.get(&result.call_id).ok_or_else(|| {
                    let message = format!("answers no call `{}` before it", result.call_id);
                    ConvertError::new(field, message)
                })?;
                results.push(write_result(result, name, field, &mut shown)?);
            }
            part => said.extend(write_part(part, field)?),
        }
    }
    results.append(&mut shown);
    results.append(&mut said);
    Ok(results)
}

/// What a result shows follows the results: not all models look for it in there.
fn write_result(
    result: ToolResult,
    name: &str,
    field: &str,
    shown: &mut Vec<wire::Part>,
) -> Result<wire::Part, ConvertError> {
    let mut texts = Vec::new();
    for part in result.parts {
        match part {
            Part::Text(text) => texts.push(text),
            part => shown.extend(write_part(part, field)?),
        }
    }
    let text = texts.join("\n\n");
    let key = if result.is_error { ERROR } else { OUTPUT };
    let response = match serde_json::from_str(&text) {
        Ok(Value::Object(object)) if !result.is_error => object,
        _ => Map::from_iter([(key.to_owned(), Value::from(text))]),
    };
    let function_response = Some(wire::FunctionResponse {
        id: Some(result.call_id),
        name: name.to_owned(),
        response,
        parts: Vec::new(),
    });
    Ok(wire::Part { function_response, ..wire::Part::default() })
}

fn write_part(part: Part, field: &str) -> Result<Option<wire::Part>, ConvertError> {
    Ok(Some(match part {
        Part::Text(text) if !text.is_empty() => wire::Part::text(text),
        Part::Text(_) | Part::CacheMark(_) => return Ok(None),
        Part::Image(image) => write_media(image.media, None, "image/jpeg"),
        Part::Document(Document { media, name }) => write_media(media, name, "application/pdf"),
        Part::ToolCall(_) | Part::ToolResult(_) | Part::Reasoning(_) => {
            let message = "a tool call or a tool result cannot stand here";
            return Err(ConvertError::new(field, message));
        }
    }))
}

/// `usual` is the type of an address whose end does not tell.
fn write_media(media: Media, display_name: Option<String>, usual: &str) -> wire::Part {
    match media {
        Media::Inline { media_type, data } => {
            let inline_data = Some(wire::Blob { mime_type: media_type, data, display_name });
            wire::Part { inline_data, ..wire::Part::default() }
        }
        Media::Url(file_uri) => {
            let mime_type = Some(media_type_of(&file_uri).unwrap_or(usual).to_owned());
            let file_data = Some(wire::FileData { mime_type, file_uri });
            wire::Part { file_data, ..wire::Part::default() }
        }
    }
}

/// Google wants the type of what it fetches.
fn media_type_of(uri: &str) -> Option<&'static str> {
    let path = uri.split(['?', '#']).next().unwrap_or(uri);
    let (_, ending) = path.rsplit_once('.')?;
    Some(match ending.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "heic" => "image/heic",
        "pdf" => "application/pdf",
        "txt" => "text/plain",
        _ => return None,
    })
}

fn write_assistant(
    parts: Vec<Part>,
    field: &str,
    model: &str,
    names: &mut HashMap<String, String>,
    notes: &mut Notes,
) -> Result<Vec<wire::Part>, ConvertError> {
    let mut written = Vec::with_capacity(parts.len());
    // A signature belongs to the call that it names, wherever it stands, else to what follows it.
    let mut of_calls = HashMap::new();
    for part in &parts {
        if let Part::Reasoning(Reasoning { seal: Some(seal), .. }) = part
            && seal.origin == SealOrigin::Gemini
            && let Some(id) = &seal.id
        {
            of_calls.insert(id.clone(), seal.data.clone());
        }
    }
    let mut pending: Option<String> = None;
    for part in parts {
        match part {
            Part::Reasoning(Reasoning { text, seal: Some(seal) })
                if seal.origin == SealOrigin::Gemini =>
            {
                if !text.is_empty() {
                    written.push(wire::Part { thought: true, ..wire::Part::text(text) });
                }
                if seal.id.is_none() {
                    written.extend(pending.replace(seal.data).map(signed));
                }
            }
            Part::Reasoning(_) => notes.drop("reasoning"),
            Part::ToolCall(call) => {
                let of_call = of_calls.remove(&call.id).or_else(|| pending.take());
                names.insert(call.id.clone(), call.name.clone());
                written.push(write_call(call, of_call));
            }
            part => {
                if let Some(mut part) = write_part(part, field)? {
                    part.thought_signature = pending.take();
                    written.push(part);
                }
            }
        }
    }
    written.extend(pending.map(signed));
    if models::is_third(model) {
        mark_first_call(&mut written);
    }
    Ok(written)
}

/// Marks the first call of an answer of another provider, so that a conversation can go on with a model
/// of Google's that wants its calls signed. Of parallel calls only the first is.
pub(super) fn mark_first_call(parts: &mut [wire::Part]) {
    let first = parts.iter_mut().find(|part| part.function_call.is_some());
    if let Some(first) = first.filter(|first| first.thought_signature.is_none()) {
        first.thought_signature = Some(NOT_SIGNED.to_owned());
    }
}

/// A signature that belongs to nothing else.
pub(super) fn signed(signature: String) -> wire::Part {
    wire::Part { thought_signature: Some(signature), ..wire::Part::text("") }
}

/// Writes a call.
pub(super) fn write_call(call: ToolCall, thought_signature: Option<String>) -> wire::Part {
    let function_call =
        Some(wire::FunctionCall { id: Some(call.id), name: call.name, args: call.arguments });
    wire::Part { function_call, thought_signature, ..wire::Part::default() }
}
