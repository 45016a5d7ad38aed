use serde_json::{Map, Value};

use super::messages;
use crate::{
    convert::{ConvertError, Notes, custom, gpt, hosted, object_schema},
    model::{ChatRequest, CustomFormat, Effort, ResponseFormat, Tool, ToolChoice},
    wire::{Content, openai as wire},
};

/// Fields of OpenAI's own that change the answer and that no other protocol has.
const REFUSED: [(&str, &str); 6] = [
    ("functions", "is not translated; use `tools`"),
    ("function_call", "is not translated; use `tool_choice`"),
    ("logit_bias", "is not something this model's provider can do; leave it out"),
    ("audio", "is not something this model's provider can do; leave it out"),
    ("web_search_options", "is not something this model's provider can do; leave it out"),
    ("modalities", "can only be [\"text\"] with this model's provider"),
];

/// Fields of OpenAI's own without which an answer is still right: book-keeping at OpenAI, and speed.
const HINTS: [&str; 7] = [
    "store",
    "metadata",
    "service_tier",
    "moderation",
    "prompt_cache_options",
    "prompt_cache_retention",
    "prediction",
];

/// Not OpenAI's own, but how callers of its protocol tell other models to think: `OpenRouter`'s words and
/// those that began with Anthropic.
const THINKING: [&str; 2] = ["reasoning", "thinking"];

/// What the neutral model calls otherwise.
pub(super) const NAMES: [(&str, &str); 3] = [
    ("reasoning", "messages.reasoning_content"),
    ("tools.format", "tools.custom.format"),
    ("tools.strict", "tools.function.strict"),
];

/// Reads a request.
///
/// Dropped, because an answer without them is still right: [`HINTS`], `name` of a message, and tools that
/// run at a provider where the model may do without them.
pub(super) fn read(request: wire::Request, notes: &mut Notes) -> Result<ChatRequest, ConvertError> {
    refuse_untranslatable(&request.rest, notes)?;
    notes.drop_hints(&request.rest, &HINTS);
    notes.lose_unknown("", &request.rest, &[&REFUSED.map(|it| it.0), &HINTS, &THINKING])?;
    let (effort, shows_thoughts) =
        read_thinking(request.reasoning_effort.as_deref(), &request.rest)?;
    if request.reasoning_effort.is_none() && effort.is_some() {
        let reasoning = request.rest.contains_key(THINKING[0]);
        notes.call("reasoning_effort", if reasoning { THINKING[0] } else { THINKING[1] });
    }
    if request.safety_identifier.is_some() {
        notes.call("user", "safety_identifier");
    }
    let (system, messages) = messages::read(request.messages)?;
    let (mut tools, mut left_out) = (Vec::with_capacity(request.tools.len()), Vec::new());
    for (at, tool) in request.tools.into_iter().enumerate() {
        let kind = tool.kind.clone();
        match read_tool(at, tool, notes)? {
            Some(tool) => tools.push(tool),
            None => left_out.push(kind),
        }
    }
    let tool_choice = match request.tool_choice {
        Some(choice) => Some(read_tool_choice(choice, &mut tools)?),
        None => None,
    };
    notes.context.custom_tools = custom_names(&tools);
    let mut chat = ChatRequest {
        model: request.model,
        system,
        messages,
        tools,
        tool_choice,
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
        reasoning_effort: effort,
        reasoning_summary: shows_thoughts,
        response_format: request.response_format.map_or(Ok(ResponseFormat::Text), read_format)?,
        seed: request.seed,
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
        n: request.n,
        logprobs: request.logprobs.unwrap_or(false),
        top_logprobs: request.top_logprobs,
        verbosity: request.verbosity,
        prompt_cache_key: request.prompt_cache_key,
    };
    hosted::check_choice(&mut chat, &left_out, "tool_choice", notes)?;
    Ok(chat)
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

/// The tools whose calls a caller wants to see as bare text.
fn custom_names(tools: &[Tool]) -> Vec<String> {
    tools.iter().filter(|tool| tool.custom.is_some()).map(|tool| tool.name.clone()).collect()
}

/// Reads a tool; nothing of one that is left out.
fn read_tool(at: usize, tool: wire::Tool, notes: &mut Notes) -> Result<Option<Tool>, ConvertError> {
    let cache = messages::read_mark(tool.cache_control, None);
    match (tool.function, tool.custom) {
        (Some(function), _) if tool.kind == wire::FUNCTION => Ok(Some(Tool {
            name: function.name,
            description: function.description,
            schema: function.parameters.unwrap_or_default(),
            strict: function.strict,
            custom: None,
            cache,
        })),
        (_, Some(custom)) if tool.kind == wire::CUSTOM => {
            let grammar = custom.format.and_then(|format| format.grammar);
            let format = grammar.map_or(CustomFormat::Text, CustomFormat::Grammar);
            Ok(Some(Tool { cache, ..custom::tool(custom.name, custom.description, format) }))
        }
        _ => {
            let is_offer = hosted::is_offer(&tool.kind);
            let field = format!("tools[{at}].type");
            hosted::leave_out(field, &tool.kind, "one provider", is_offer, notes)?;
            Ok(None)
        }
    }
}

/// Reads a choice. One among some of the tools takes the others away.
fn read_tool_choice(
    choice: wire::ToolChoice,
    tools: &mut Vec<Tool>,
) -> Result<ToolChoice, ConvertError> {
    match choice {
        wire::ToolChoice::Mode(mode) => read_mode(&mode),
        wire::ToolChoice::Named { function: Some(named), .. }
        | wire::ToolChoice::Named { custom: Some(named), .. } => Ok(ToolChoice::Named(named.name)),
        wire::ToolChoice::Named { allowed_tools: Some(allowed), .. } => {
            let named = |tool: wire::AllowedTool| tool.function.or(tool.custom);
            let names: Vec<_> = allowed.tools.into_iter().filter_map(named).collect();
            tools.retain(|tool| names.iter().any(|named| named.name == tool.name));
            read_mode(&allowed.mode)
        }
        wire::ToolChoice::Named { kind, .. } => Err(ConvertError::new(
            "tool_choice.type",
            format!("`{kind}` is not translated; only `function` and `custom` with a name are"),
        )),
    }
}

fn read_mode(mode: &str) -> Result<ToolChoice, ConvertError> {
    ToolChoice::of_mode(mode).ok_or_else(|| {
        let message = format!("must be `auto`, `none`, `required` or a function, not `{mode}`");
        ConvertError::new("tool_choice", message)
    })
}

/// How much the model is to think, and whether its thoughts are asked for by more than that.
fn read_thinking(
    effort: Option<&str>,
    rest: &Map<String, Value>,
) -> Result<(Option<Effort>, bool), ConvertError> {
    if let Some(effort) = effort {
        return Ok((Some(read_effort(effort, "reasoning_effort")?), false));
    }
    if let Some(reasoning) = rest.get(THINKING[0]).filter(|value| !value.is_null()) {
        let effort =
            reasoning["effort"].as_str().map(|effort| read_effort(effort, "reasoning.effort"));
        let effort = effort.transpose()?;
        let effort = effort.or_else(|| reasoning["max_tokens"].as_u64().map(Effort::of_budget));
        let is_off = reasoning["enabled"] == false;
        return Ok(if is_off { (Some(Effort::None), false) } else { (effort, true) });
    }
    let thinking = rest.get(THINKING[1]).unwrap_or(&Value::Null);
    Ok(match thinking["type"].as_str() {
        Some("disabled") => (Some(Effort::None), false),
        Some(_) => (thinking["budget_tokens"].as_u64().map(Effort::of_budget), true),
        None => (None, false),
    })
}

fn read_effort(effort: &str, field: &str) -> Result<Effort, ConvertError> {
    Effort::named(effort).ok_or_else(|| {
        let message =
            format!("must be none, minimal, low, medium, high, xhigh or max, not `{effort}`");
        ConvertError::new(field, message)
    })
}

fn read_format(format: wire::ResponseFormat) -> Result<ResponseFormat, ConvertError> {
    match format {
        wire::ResponseFormat::Text => Ok(ResponseFormat::Text),
        wire::ResponseFormat::JsonObject => Ok(ResponseFormat::JsonObject),
        wire::ResponseFormat::JsonSchema {
            json_schema: wire::JsonSchema { name, description, schema, strict },
        } => Ok(ResponseFormat::JsonSchema { name, description, schema, strict }),
        wire::ResponseFormat::Unknown => Err(ConvertError::new(
            "response_format.type",
            "must be `text`, `json_object` or `json_schema`",
        )),
    }
}

/// Writes a request.
///
/// Dropped, because an answer without them is still right: `user` where it is longer than OpenAI takes,
/// the reasoning effort of models that are known to take none, the verbosity of models that are not known
/// to take one, since others refuse it, cache marks where the model takes none, what a model of another protocol thought, and the
/// grammar of a custom tool, which is put in words.
pub(super) fn write(
    mut chat: ChatRequest,
    notes: &mut Notes,
) -> Result<wire::Request, ConvertError> {
    if !gpt::takes_cache_marks(&chat.model) && chat.take_cache_marks() {
        notes.drop("cache_control");
    }
    let reasons = gpt::reasons(&chat.model);
    let effort = chat.reasoning_effort.map(|effort| gpt::effort(effort, &chat.model));
    let effort = notes.keep_if(gpt::may_take_effort(&chat.model), "reasoning_effort", effort);
    let is_openai = gpt::is_openai(&chat.model);
    let verbosity = notes.keep_if(reasons, "verbosity", chat.verbosity);
    let prompt_cache_key = notes.keep_if(is_openai, "prompt_cache_key", chat.prompt_cache_key);
    let fits = chat.user.as_ref().is_some_and(|user| user.chars().count() <= gpt::MAX_USER_CHARS);
    let user = notes.keep_if(fits, "user", chat.user);
    custom::into_functions(&mut chat.tools, notes);
    let (max_tokens, max_completion_tokens) =
        if reasons { (None, chat.max_tokens) } else { (chat.max_tokens, None) };
    let has_tools = !chat.tools.is_empty();
    Ok(wire::Request {
        messages: messages::write(chat.system, chat.messages, &chat.model, notes)?,
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
        user,
        safety_identifier: None,
        reasoning_effort: effort.map(str::to_owned),
        response_format: write_format(chat.response_format),
        seed: chat.seed,
        presence_penalty: chat.presence_penalty,
        frequency_penalty: chat.frequency_penalty,
        n: chat.n,
        logprobs: chat.logprobs.then_some(true),
        top_logprobs: chat.top_logprobs.filter(|_| chat.logprobs),
        verbosity,
        prompt_cache_key,
        rest: Map::new(),
    })
}

fn write_tool(tool: Tool) -> wire::Tool {
    wire::Tool {
        kind: wire::FUNCTION.to_owned(),
        function: Some(wire::Function {
            name: tool.name,
            description: tool.description,
            parameters: Some(object_schema(tool.schema)),
            strict: tool.strict,
        }),
        custom: None,
        cache_control: None,
    }
}

fn write_tool_choice(choice: ToolChoice) -> wire::ToolChoice {
    match choice.mode() {
        Ok(mode) => wire::ToolChoice::Mode(mode.to_owned()),
        Err(name) => wire::ToolChoice::Named {
            kind: wire::FUNCTION.to_owned(),
            function: Some(wire::FunctionName { name }),
            custom: None,
            allowed_tools: None,
        },
    }
}

fn write_format(format: ResponseFormat) -> Option<wire::ResponseFormat> {
    match format {
        ResponseFormat::Text => None,
        ResponseFormat::JsonObject => Some(wire::ResponseFormat::JsonObject),
        ResponseFormat::JsonSchema { name, description, schema, strict } => {
            let json_schema = wire::JsonSchema { name, description, schema, strict };
            Some(wire::ResponseFormat::JsonSchema { json_schema })
        }
    }
}
