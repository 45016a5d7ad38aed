use serde_json::{Map, Value};

use super::messages;
use crate::{
    convert::{ConvertError, Notes},
    model::{ChatRequest, Effort, ResponseFormat, Tool, ToolChoice},
    wire::{Content, openai as wire},
};

/// The longest `user` that OpenAI takes.
const MAX_USER_CHARS: usize = 64;

/// Fields of OpenAI's own that change the answer and that no other protocol has.
const REFUSED: [(&str, &str); 6] = [
    ("functions", "is not translated; use `tools`"),
    ("function_call", "is not translated; use `tool_choice`"),
    ("logit_bias", "is not something this model's provider can do; leave it out"),
    ("audio", "is not something this model's provider can do; leave it out"),
    ("web_search_options", "is not something this model's provider can do; leave it out"),
    ("modalities", "can only be [\"text\"] with this model's provider"),
];

/// Reads a request.
///
/// Dropped, because an answer without them is still right: `store`, `metadata`, `service_tier`,
/// `prompt_cache_key` and `prompt_cache_retention` (book-keeping at OpenAI), `prediction` (speed),
/// `verbosity`, `strict` of a function, `name` of a message, `cache_control` of a part, and fields that
/// OpenAI does not have either. `reasoning_content` of earlier answers is dropped as well: it bears no
/// signature that another provider would accept.
pub(super) fn read(request: wire::Request, notes: &mut Notes) -> Result<ChatRequest, ConvertError> {
    refuse_untranslatable(&request.rest, notes)?;
    let (system, messages) = messages::read(request.messages)?;
    Ok(ChatRequest {
        model: request.model,
        system,
        messages,
        tools: request.tools.into_iter().enumerate().map(read_tool).collect::<Result<_, _>>()?,
        tool_choice: request.tool_choice.map(read_tool_choice).transpose()?,
        parallel_tool_calls: request.parallel_tool_calls,
        max_tokens: request.max_completion_tokens.or(request.max_tokens),
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        stop: match request.stop {
            None => Vec::new(),
            Some(Content::Text(text)) => vec![text],
            Some(Content::Parts(texts)) => texts,
        },
        stream: request.stream.unwrap_or(false),
        user: request.safety_identifier.or(request.user),
        reasoning_effort: request.reasoning_effort.as_deref().map(read_effort).transpose()?,
        response_format: request.response_format.map_or(Ok(ResponseFormat::Text), read_format)?,
        seed: request.seed,
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
        n: request.n,
        logprobs: request.logprobs.unwrap_or(false),
        ..ChatRequest::default()
    })
}

fn refuse_untranslatable(rest: &Map<String, Value>, notes: &mut Notes) -> Result<(), ConvertError> {
    for (field, why) in REFUSED {
        let says_nothing = match rest.get(field) {
            None | Some(Value::Null) => true,
            Some(Value::Array(list)) => list.iter().all(|item| item == "text"),
            Some(Value::Object(object)) => field == "logit_bias" && object.is_empty(),
            Some(_) => false,
        };
        if !says_nothing {
            notes.lose(field, why)?;
        }
    }
    Ok(())
}

fn read_tool((at, tool): (usize, wire::Tool)) -> Result<Tool, ConvertError> {
    match tool.function {
        Some(function) if tool.kind == wire::FUNCTION => Ok(Tool {
            name: function.name,
            description: function.description,
            schema: function.parameters.unwrap_or_default(),
            ..Tool::default()
        }),
        _ => Err(ConvertError::new(
            format!("tools[{at}].type"),
            format!("`{}` is not translated; only tools of type `function` are", tool.kind),
        )),
    }
}

fn read_tool_choice(choice: wire::ToolChoice) -> Result<ToolChoice, ConvertError> {
    match choice {
        wire::ToolChoice::Mode(mode) => match mode.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" => Ok(ToolChoice::Required),
            _ => Err(ConvertError::new(
                "tool_choice",
                format!("must be `auto`, `none`, `required` or a function, not `{mode}`"),
            )),
        },
        wire::ToolChoice::Named { function: Some(function), .. } => {
            Ok(ToolChoice::Named(function.name))
        }
        wire::ToolChoice::Named { kind, function: None } => Err(ConvertError::new(
            "tool_choice.type",
            format!("`{kind}` is not translated; only `function` with its name is"),
        )),
    }
}

fn read_effort(effort: &str) -> Result<Effort, ConvertError> {
    match effort {
        "none" => Ok(Effort::None),
        "minimal" => Ok(Effort::Minimal),
        "low" => Ok(Effort::Low),
        "medium" => Ok(Effort::Medium),
        "high" => Ok(Effort::High),
        "xhigh" => Ok(Effort::Highest),
        _ => Err(ConvertError::new(
            "reasoning_effort",
            format!("must be none, minimal, low, medium, high or xhigh, not `{effort}`"),
        )),
    }
}

fn read_format(format: wire::ResponseFormat) -> Result<ResponseFormat, ConvertError> {
    match format {
        wire::ResponseFormat::Text => Ok(ResponseFormat::Text),
        wire::ResponseFormat::JsonObject => Ok(ResponseFormat::JsonObject),
        wire::ResponseFormat::JsonSchema {
            json_schema: wire::JsonSchema { name, schema, strict },
        } => Ok(ResponseFormat::JsonSchema { name, description: None, schema, strict }),
        wire::ResponseFormat::Unknown => Err(ConvertError::new(
            "response_format.type",
            "must be `text`, `json_object` or `json_schema`",
        )),
    }
}

/// Writes a request.
///
/// Dropped, because an answer without them is still right: `user` where it is longer than OpenAI takes,
/// and the reasoning effort where the model is not known to take one, since other models refuse it.
pub(super) fn write(
    mut chat: ChatRequest,
    notes: &mut Notes,
) -> Result<wire::Request, ConvertError> {
    if chat.take_cache_marks() {
        notes.drop("cache_control");
    }
    let reasons = is_reasoning_model(&chat.model);
    let (max_tokens, max_completion_tokens) =
        if reasons { (None, chat.max_tokens) } else { (chat.max_tokens, None) };
    let has_tools = !chat.tools.is_empty();
    Ok(wire::Request {
        messages: messages::write(chat.system, chat.messages)?,
        model: chat.model,
        tools: chat.tools.into_iter().map(write_tool).collect(),
        tool_choice: chat.tool_choice.map(write_tool_choice),
        // OpenAI refuses it without tools.
        parallel_tool_calls: chat.parallel_tool_calls.filter(|_| has_tools),
        max_tokens,
        max_completion_tokens,
        temperature: chat.temperature,
        top_p: chat.top_p,
        top_k: chat.top_k,
        stop: (!chat.stop.is_empty()).then_some(Content::Parts(chat.stop)),
        stream: chat.stream.then_some(true),
        // Without it a stream tells no usage at all, which the other fronts have to.
        stream_options: chat.stream.then_some(wire::StreamOptions { include_usage: true }),
        user: chat.user.filter(|user| user.chars().count() <= MAX_USER_CHARS),
        safety_identifier: None,
        reasoning_effort: chat.reasoning_effort.filter(|_| reasons).map(write_effort),
        response_format: write_format(chat.response_format),
        seed: chat.seed,
        presence_penalty: chat.presence_penalty,
        frequency_penalty: chat.frequency_penalty,
        n: chat.n,
        logprobs: chat.logprobs.then_some(true),
        rest: Map::new(),
    })
}

/// Whether OpenAI calls this a reasoning model: those take `reasoning_effort` and want
/// `max_completion_tokens` where all other servers know `max_tokens`. A name is all there is to go by.
fn is_reasoning_model(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let generation = |prefix: &str| {
        let rest = name.strip_prefix(prefix)?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse::<u32>().ok()
    };
    generation("o").is_some()
        || (generation("gpt-").is_some_and(|number| number >= 5) && !name.contains("-chat"))
}

fn write_tool(tool: Tool) -> wire::Tool {
    wire::Tool {
        kind: wire::FUNCTION.to_owned(),
        function: Some(wire::Function {
            name: tool.name,
            description: tool.description,
            parameters: Some(tool.schema),
        }),
    }
}

fn write_tool_choice(choice: ToolChoice) -> wire::ToolChoice {
    let mode = match choice {
        ToolChoice::Auto => "auto",
        ToolChoice::None => "none",
        ToolChoice::Required => "required",
        ToolChoice::Named(name) => {
            return wire::ToolChoice::Named {
                kind: wire::FUNCTION.to_owned(),
                function: Some(wire::FunctionName { name }),
            };
        }
    };
    wire::ToolChoice::Mode(mode.to_owned())
}

fn write_effort(effort: Effort) -> String {
    match effort {
        Effort::None => "none",
        Effort::Minimal => "minimal",
        Effort::Low => "low",
        Effort::Medium => "medium",
        // `xhigh` is refused by most models.
        Effort::High | Effort::Highest => "high",
    }
    .to_owned()
}

fn write_format(format: ResponseFormat) -> Option<wire::ResponseFormat> {
    match format {
        ResponseFormat::Text => None,
        ResponseFormat::JsonObject => Some(wire::ResponseFormat::JsonObject),
        ResponseFormat::JsonSchema { name, schema, strict, .. } => {
            let json_schema = wire::JsonSchema { name, schema, strict };
            Some(wire::ResponseFormat::JsonSchema { json_schema })
        }
    }
}
