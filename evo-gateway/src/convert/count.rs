//! How many tokens a conversation has: asked of the provider where it tells, else estimated here.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Context, ConvertError, Converted, Dialect, Notes, Wanted, error, parse};
use crate::{
    model::{ChatRequest, Part, ToolResult},
    usage::estimate::{TOKENS_OF_DATA, tokens_of_text},
};

/// What Anthropic counts of a request; it refuses everything else.
const ANTHROPIC: [&str; 6] =
    ["model", "messages", "system", "tools", "tool_choice", "output_config"];
/// What OpenAI counts.
const RESPONSES: [&str; 6] = ["model", "input", "instructions", "tools", "tool_choice", "text"];
/// Where Google has the request whose tokens it counts, if more than its contents count.
const WHOLE: &str = "generateContentRequest";
/// What frames a message, a tool, or a call, in tokens.
const FRAME: u64 = 4;

/// The body for `provider` that asks for the tokens of `body`.
pub(super) fn request(
    front: Dialect,
    provider: Dialect,
    body: &[u8],
    wanted: Wanted<'_>,
) -> Result<Converted, ConvertError> {
    let mut notes = Notes::new(wanted.lenient, wanted.context);
    let ChatRequest { system, messages, tools, tool_choice, response_format, .. } =
        read(front, body, &mut notes)?;
    // How an answer is to be made is no part of the question's tokens.
    let chat = ChatRequest {
        model: wanted.model.to_owned(),
        system,
        messages,
        tools,
        tool_choice,
        response_format,
        ..ChatRequest::default()
    };
    let name = chat.model.strip_prefix("models/").unwrap_or(&chat.model);
    let name = format!("models/{name}");
    notes.read(front.protocol().names());
    let written = provider.protocol().write_request(chat, &mut notes);
    let body = written.map_err(|error| notes.named(error))?;
    let only = |fields: &[&str]| {
        let mut body: Map<String, Value> = parse(&body)?;
        body.retain(|field, _| fields.contains(&field.as_str()));
        Ok(Value::Object(body))
    };
    let body = match provider {
        Dialect::Gemini | Dialect::GeminiArray => {
            let mut whole: Map<String, Value> = parse(&body)?;
            whole.insert("model".to_owned(), name.into());
            json!({ WHOLE: whole })
        }
        Dialect::OpenAiResponses => only(&RESPONSES)?,
        Dialect::Anthropic
        | Dialect::OpenAiChat
        | Dialect::OllamaChat
        | Dialect::OllamaGenerate => only(&ANTHROPIC)?,
    };
    let (dropped, context) = notes.into_parts();
    Ok(Converted { body: body.to_string().into_bytes(), dropped, asks_to_think: false, context })
}

/// Reads what is to be counted.
fn read(front: Dialect, body: &[u8], notes: &mut Notes) -> Result<ChatRequest, ConvertError> {
    if matches!(front, Dialect::Gemini | Dialect::GeminiArray) {
        let mut asked: Map<String, Value> = parse(body)?;
        let whole = asked.remove(WHOLE).or_else(|| asked.remove("generate_content_request"));
        if let Some(mut whole) = whole {
            if let Some(fields) = whole.as_object_mut() {
                fields.remove("model");
            }
            return front.protocol().read_request(whole.to_string().as_bytes(), notes);
        }
    }
    front.protocol().read_request(body, notes)
}

/// A provider's answer in the words of the dialect `front`.
pub(super) fn response(
    provider: Dialect,
    front: Dialect,
    body: &[u8],
) -> Result<Vec<u8>, ConvertError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Google {
        #[serde(default)]
        total_tokens: u64,
    }

    #[derive(Deserialize)]
    struct Other {
        input_tokens: u64,
    }

    let read = || match provider {
        Dialect::Gemini | Dialect::GeminiArray => parse(body).map(|it: Google| it.total_tokens),
        _ => parse(body).map(|it: Other| it.input_tokens),
    };
    // Some servers answer 200 and mean an error.
    let tokens = read().map_err(|failure| error::in_place_of_answer(body).unwrap_or(failure))?;
    Ok(counted(front, tokens))
}

/// An answer in the dialect `front`.
pub fn counted(front: Dialect, tokens: u64) -> Vec<u8> {
    let answer = match front {
        Dialect::Gemini | Dialect::GeminiArray => json!({ "totalTokens": tokens }),
        Dialect::OpenAiResponses => {
            json!({ "object": "response.input_tokens", "input_tokens": tokens })
        }
        Dialect::Anthropic
        | Dialect::OpenAiChat
        | Dialect::OllamaChat
        | Dialect::OllamaGenerate => {
            json!({ "input_tokens": tokens })
        }
    };
    answer.to_string().into_bytes()
}

/// How many tokens a conversation in the dialect `front` probably has, and which of its fields would not
/// reach a provider of another protocol.
pub fn estimate(
    front: Dialect,
    body: &[u8],
    lenient: bool,
) -> Result<(u64, Vec<String>), ConvertError> {
    let mut notes = Notes::new(lenient, Context::default());
    let chat = read(front, body, &mut notes)?;
    let (dropped, _) = notes.into_parts();
    let system = chat.system.iter().map(|it| FRAME + tokens_of_text(&it.text));
    let messages =
        chat.messages.iter().map(|message| FRAME + message.parts.iter().map(part).sum::<u64>());
    let tools = chat.tools.iter().map(|tool| {
        let schema = Value::Object(tool.schema.clone()).to_string();
        let texts = [tool.name.as_str(), tool.description.as_deref().unwrap_or_default(), &schema];
        FRAME + texts.into_iter().map(tokens_of_text).sum::<u64>()
    });
    Ok((system.chain(messages).chain(tools).sum(), dropped))
}

fn part(part: &Part) -> u64 {
    match part {
        Part::Text(text) => tokens_of_text(text),
        Part::Image(_) | Part::Document(_) => TOKENS_OF_DATA,
        Part::Reasoning(reasoning) => tokens_of_text(&reasoning.text),
        Part::ToolCall(call) => {
            let arguments = Value::Object(call.arguments.clone()).to_string();
            FRAME + tokens_of_text(&call.name) + tokens_of_text(&arguments)
        }
        Part::ToolResult(ToolResult { parts, .. }) => {
            FRAME + parts.iter().map(self::part).sum::<u64>()
        }
        Part::CacheMark(_) => 0,
    }
}
