use serde_json::{Map, Value};

use super::Route;
use crate::{
    convert::{ConvertError, Notes},
    model::{
        ChatRequest, Effort, Image, Instruction, Media, Message, Part, Reasoning, ResponseFormat,
        Role, Tool, ToolCall, ToolResult,
    },
    wire::ollama as wire,
};

/// Fields of Ollama's own that change the answer and that no other protocol has.
const REFUSED: [(&str, &str); 5] = [
    ("logprobs", "can only be false on this route; use /v1/chat/completions"),
    ("suffix", "is not something this model's provider can do; leave it out"),
    ("template", "belongs to Ollama's own models; leave it out"),
    ("raw", "can only be false with this model's provider"),
    ("context", "belongs to one server; send the conversation to /api/chat"),
];
/// Fields of Ollama's own without which an answer is still right.
const HINTS: [&str; 3] = ["keep_alive", "truncate", "shift"];
/// Read elsewhere, or of a field that is refused.
const KNOWN: [&str; 2] = ["model", "top_logprobs"];
/// What the neutral model calls otherwise; the first two only where there are no messages.
const NAMES: [(&str, &str); 13] = [
    ("messages", "prompt"),
    ("messages[].content", "prompt"),
    ("frequency_penalty", "options.frequency_penalty"),
    ("max_tokens", "options.num_predict"),
    ("presence_penalty", "options.presence_penalty"),
    ("reasoning", "messages.thinking"),
    ("reasoning_effort", "think"),
    ("response_format", "format"),
    ("seed", "options.seed"),
    ("stop", "options.stop"),
    ("temperature", "options.temperature"),
    ("top_k", "options.top_k"),
    ("top_p", "options.top_p"),
];
/// The name of a schema, which Ollama has none for.
const OUTPUT: &str = "output";
/// How base64 begins of what Ollama takes for images.
const IMAGES: [(&str, &str); 4] = [
    ("iVBOR", "image/png"),
    ("R0lGOD", "image/gif"),
    ("UklGR", "image/webp"),
    ("/9j/", "image/jpeg"),
];

/// What the neutral model calls otherwise on this route.
pub(super) fn names(route: Route) -> &'static [(&'static str, &'static str)] {
    match route {
        Route::Chat => &NAMES[2..],
        Route::Generate => &NAMES,
    }
}

/// Reads a request.
///
/// Dropped, because an answer without them is still right: [`HINTS`], and all options but those of
/// sampling that other protocols have: they are about how a model runs on its machine.
pub(super) fn read(
    request: wire::Request,
    route: Route,
    notes: &mut Notes,
) -> Result<ChatRequest, ConvertError> {
    for (field, why) in REFUSED {
        let says = match request.rest.get(field) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(list)) => !list.is_empty(),
            Some(_) => true,
        };
        if says {
            notes.lose(field, why)?;
        }
    }
    notes.drop_hints(&request.rest, &HINTS);
    notes.lose_unknown("", &request.rest, &[&REFUSED.map(|it| it.0), &HINTS, &KNOWN])?;
    let mut chat = ChatRequest {
        stream: request.stream.unwrap_or(true),
        response_format: read_format(request.format)?,
        tools: request.tools.into_iter().map(read_tool).collect(),
        ..ChatRequest::default()
    };
    notes.context.hides_thoughts = request.think == Some(Value::Bool(false));
    chat.reasoning_effort = read_think(request.think.as_ref())?;
    chat.reasoning_summary = chat.reasoning_effort.is_some_and(|effort| effort != Effort::None);
    read_options(request.options, &mut chat, notes)?;
    match route {
        Route::Chat => read_messages(request.messages, &mut chat)?,
        Route::Generate => {
            if !request.system.is_empty() {
                chat.system.push(Instruction::from(request.system));
            }
            let mut parts: Vec<Part> = request.images.into_iter().map(read_image).collect();
            parts.insert(0, Part::Text(request.prompt));
            chat.messages.push(Message { role: Role::User, parts, at: 0 });
        }
    }
    Ok(chat)
}

fn read_format(format: Option<Value>) -> Result<ResponseFormat, ConvertError> {
    match format {
        None | Some(Value::Null) => Ok(ResponseFormat::Text),
        Some(Value::String(text)) if text.is_empty() => Ok(ResponseFormat::Text),
        Some(Value::String(text)) if text == "json" => Ok(ResponseFormat::JsonObject),
        Some(Value::Object(schema)) => {
            let name = OUTPUT.to_owned();
            Ok(ResponseFormat::JsonSchema { name, description: None, schema, strict: None })
        }
        Some(_) => Err(ConvertError::new("format", "must be `json` or a JSON schema")),
    }
}

fn read_tool(tool: wire::Tool) -> Tool {
    let wire::Function { name, description, parameters } = tool.function;
    Tool { name, description, schema: parameters, ..Tool::default() }
}

fn read_think(think: Option<&Value>) -> Result<Option<Effort>, ConvertError> {
    match think {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(true)) => Ok(Some(Effort::Medium)),
        Some(Value::Bool(false)) => Ok(Some(Effort::None)),
        Some(Value::String(level)) => Effort::named(level).map(Some).ok_or_else(|| {
            let message = format!("must be true, false, low, medium or high, not `{level}`");
            ConvertError::new("think", message)
        }),
        Some(_) => Err(ConvertError::new("think", "must be true, false, low, medium or high")),
    }
}

fn read_options(
    options: Map<String, Value>,
    chat: &mut ChatRequest,
    notes: &mut Notes,
) -> Result<(), ConvertError> {
    for (name, value) in options {
        let wrong = || {
            let message = "has a value of the wrong type; see Ollama's list of options";
            ConvertError::new(format!("options.{name}"), message)
        };
        let number = || value.as_f64().ok_or_else(wrong);
        // Clients write whole numbers as floats.
        let whole = || {
            let float = value.as_f64().map(|float| format!("{float:.0}"));
            float.and_then(|text| text.parse::<i64>().ok()).ok_or_else(wrong)
        };
        match name.as_str() {
            _ if value.is_null() => {}
            "temperature" => chat.temperature = Some(number()?),
            "top_p" => chat.top_p = Some(number()?),
            "presence_penalty" => chat.presence_penalty = Some(number()?),
            "frequency_penalty" => chat.frequency_penalty = Some(number()?),
            "seed" => chat.seed = Some(whole()?),
            "top_k" => chat.top_k = u64::try_from(whole()?).ok(),
            // Negative numbers are no limit.
            "num_predict" => chat.max_tokens = u64::try_from(whole()?).ok(),
            "stop" => {
                chat.stop = match &value {
                    Value::String(text) => vec![text.clone()],
                    value => serde_json::from_value(value.clone()).map_err(|_| wrong())?,
                }
            }
            name => notes.drop(format!("options.{name}")),
        }
    }
    Ok(())
}

fn read_messages(messages: Vec<wire::Message>, chat: &mut ChatRequest) -> Result<(), ConvertError> {
    let mut calls = Calls::default();
    for (at, message) in messages.into_iter().enumerate() {
        let mut parts = Vec::new();
        let role = match message.role.as_str() {
            "system" if chat.messages.is_empty() => {
                chat.system.push(Instruction::from(message.content));
                continue;
            }
            "system" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" => {
                let call_id = calls.end(&message).ok_or_else(|| {
                    let message = "is the result of no call before it";
                    ConvertError::new(format!("messages[{at}]"), message)
                })?;
                let parts = vec![Part::Text(message.content)];
                let result = ToolResult { call_id, parts, is_error: false };
                let parts = vec![Part::ToolResult(result)];
                chat.messages.push(Message { role: Role::User, parts, at });
                continue;
            }
            role => {
                let message = format!("must be system, user, assistant or tool, not `{role}`");
                return Err(ConvertError::new(format!("messages[{at}].role"), message));
            }
        };
        if let Some(text) = message.thinking.filter(|text| !text.is_empty()) {
            parts.push(Part::Reasoning(Reasoning { text, seal: None }));
        }
        parts.push(Part::Text(message.content));
        parts.extend(message.images.into_iter().map(read_image));
        for call in message.tool_calls {
            let wire::FunctionCall { name, arguments } = call.function;
            let id = calls.begin(call.id, &name);
            parts.push(Part::ToolCall(ToolCall { id, name, arguments }));
        }
        chat.messages.push(Message { role, parts, at });
    }
    Ok(())
}

/// The calls that have no result yet. In Ollama's protocol they need no ids.
#[derive(Default)]
struct Calls {
    count: usize,
    open: Vec<Open>,
}

struct Open {
    id: String,
    name: String,
    /// Whether the caller gave it its id.
    is_named: bool,
}

impl Calls {
    fn begin(&mut self, id: Option<String>, name: &str) -> String {
        let given = id.filter(|id| !id.is_empty());
        let is_named = given.is_some();
        let id = given.unwrap_or_else(|| format!("call_{}", self.count));
        self.count += 1;
        self.open.push(Open { id: id.clone(), name: name.to_owned(), is_named });
        id
    }

    /// The call of a result: by its id, else the first of its name, else the first of all; litellm gives
    /// ids to results only.
    fn end(&mut self, result: &wire::Message) -> Option<String> {
        let (id, name) = (result.tool_call_id.as_ref(), result.tool_name.as_ref());
        let by_id = self.open.iter().position(|open| Some(&open.id) == id);
        let by_name = || self.open.iter().position(|open| Some(&open.name) == name);
        let first = || {
            let fits = |open: &Open| name.is_none() && (id.is_none() || !open.is_named);
            self.open.iter().position(fits)
        };
        Some(self.open.remove(by_id.or_else(by_name).or_else(first)?).id)
    }
}

/// Ollama's images do not say what they are.
fn read_image(data: String) -> Part {
    let data = match data.strip_prefix("data:").and_then(|rest| rest.split_once(',')) {
        Some((_, data)) => data.to_owned(),
        None => data,
    };
    let known = IMAGES.iter().find(|(beginning, _)| data.starts_with(beginning));
    let media_type = known.map_or("image/jpeg", |(_, media_type)| *media_type).to_owned();
    Part::Image(Image { media: Media::Inline { media_type, data }, detail: None })
}
