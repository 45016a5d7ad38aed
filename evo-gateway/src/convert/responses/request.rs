use serde_json::{Map, Value};

use super::input;
use crate::{
    convert::{ConvertError, Namespaced, Notes, custom, gpt, hosted, object_schema},
    model::{ChatRequest, CustomFormat, Effort, ResponseFormat, Tool, ToolChoice},
    wire::responses as wire,
};

/// Fields that need what only a provider has. They are refused also to a lenient caller: without them
/// the question is another one.
const NEED_A_STORE: [(&str, &str); 3] = [
    (
        "previous_response_id",
        "is only for providers that speak Responses themselves: the gateway keeps no answers; send \
         the whole conversation as `input`",
    ),
    (
        "conversation",
        "is only for providers that speak Responses themselves: the gateway keeps no conversations; \
         send the whole conversation as `input`",
    ),
    ("prompt", "is stored at OpenAI; send its text as `instructions` or `input`"),
];

/// Fields that change the answer and that no other protocol has.
const REFUSED: [(&str, &str); 4] = [
    (
        "background",
        "can only be false with this model's provider: the gateway keeps no answers to be fetched \
         later",
    ),
    ("context_management", "is not something this model's provider can do; leave it out"),
    ("truncation", "can only be `disabled` with this model's provider"),
    ("modalities", "can only be [\"text\"] with this model's provider"),
];

/// Fields without which an answer is still right: book-keeping at OpenAI, and speed.
const HINTS: [&str; 9] = [
    "metadata",
    "service_tier",
    "max_tool_calls",
    "moderation",
    "prompt_cache_options",
    "prompt_cache_retention",
    "client_metadata",
    "access_programs",
    "background_options",
];

/// Fields that say nothing beyond what is known anyway.
const KNOWN: [&str; 1] = ["stream_options"];

/// What the neutral model calls otherwise.
pub(super) const NAMES: [(&str, &str); 10] = [
    ("cache_control", "input.prompt_cache_breakpoint"),
    ("image_url.detail", "input.detail"),
    ("logprobs", "include.message.output_text.logprobs"),
    ("max_tokens", "max_output_tokens"),
    ("messages", "input"),
    ("messages[].content", "input[]"),
    ("reasoning", "input.reasoning"),
    ("reasoning_effort", "reasoning.effort"),
    ("response_format", "text.format"),
    ("verbosity", "text.verbosity"),
];

/// In which way a caller asks for the sealed form of what was thought, which it gets in any case.
const ENCRYPTED_REASONING: &str = "reasoning.encrypted_content";
/// In which way it asks for token probabilities.
const LOGPROBS: &str = "message.output_text.logprobs";

/// Reads a request.
///
/// Dropped, because an answer without them is still right: [`HINTS`], `store` (nothing is kept; the
/// answer says so), `include` of what only tools that run at OpenAI have, and such tools where the model
/// may do without them.
pub(super) fn read(request: wire::Request, notes: &mut Notes) -> Result<ChatRequest, ConvertError> {
    refuse_untranslatable(&request.rest, notes)?;
    notes.drop_hints(&request.rest, &HINTS);
    let (need_a_store, refused) = (NEED_A_STORE.map(|it| it.0), REFUSED.map(|it| it.0));
    notes.lose_unknown("", &request.rest, &[&need_a_store, &refused, &HINTS, &KNOWN])?;
    if request.safety_identifier.is_some() {
        notes.call("user", "safety_identifier");
    }
    if request.top_logprobs.is_some() {
        notes.call("logprobs", "top_logprobs");
    }
    if request.store == Some(true) {
        notes.drop("store");
    }
    let mut logprobs = request.top_logprobs.is_some_and(|count| count > 0);
    for included in &request.include {
        match included.as_str() {
            ENCRYPTED_REASONING => {}
            LOGPROBS => logprobs = true,
            other => notes.drop(format!("include.{other}")),
        }
    }
    let (mut tools, left_out) = read_tools(request.tools, notes)?;
    let tool_choice = match request.tool_choice {
        Some(choice) => read_tool_choice(choice, &mut tools, notes)?,
        None => None,
    };
    let is_custom = |tool: &&Tool| tool.custom.is_some();
    notes.context.custom_tools =
        tools.iter().filter(is_custom).map(|tool| tool.name.clone()).collect();
    let (system, messages) = input::read(request.instructions, request.input, notes)?;
    let reasoning = request.reasoning.unwrap_or_default();
    let text = request.text.unwrap_or_default();
    let effort = reasoning.effort.as_deref().map(read_effort);
    let mut chat = ChatRequest {
        model: request.model,
        system,
        messages,
        tools,
        tool_choice,
        parallel_tool_calls: request.parallel_tool_calls,
        max_tokens: request.max_output_tokens,
        temperature: request.temperature,
        top_p: request.top_p,
        stream: request.stream.unwrap_or(false),
        user: request.safety_identifier.or(request.user),
        reasoning_effort: effort.transpose()?,
        reasoning_summary: reasoning.summary.is_some_and(|summary| summary != "none"),
        response_format: text.format.map_or(Ok(ResponseFormat::Text), read_format)?,
        logprobs,
        top_logprobs: request.top_logprobs.filter(|count| *count > 0),
        verbosity: text.verbosity,
        prompt_cache_key: request.prompt_cache_key,
        ..ChatRequest::default()
    };
    hosted::check_choice(&mut chat, &left_out, "tool_choice", notes)?;
    Ok(chat)
}

fn refuse_untranslatable(rest: &Map<String, Value>, notes: &mut Notes) -> Result<(), ConvertError> {
    for (field, why) in NEED_A_STORE {
        if rest.get(field).is_some_and(|value| !value.is_null()) {
            return Err(ConvertError::new(field, why));
        }
    }
    for (field, why) in REFUSED {
        let says_nothing = match rest.get(field) {
            None | Some(Value::Null | Value::Bool(false)) => true,
            Some(Value::Array(list)) => list.iter().all(|item| item == "text"),
            Some(Value::String(text)) => field == "truncation" && text == "disabled",
            Some(_) => false,
        };
        if !says_nothing {
            notes.lose(field, why)?;
        }
    }
    Ok(())
}

fn read_effort(effort: &str) -> Result<Effort, ConvertError> {
    Effort::named(effort).ok_or_else(|| {
        let message =
            format!("must be none, minimal, low, medium, high, xhigh or max, not `{effort}`");
        ConvertError::new("reasoning.effort", message)
    })
}

/// The tools, and the types of those that are left out.
fn read_tools(
    list: Vec<wire::Tool>,
    notes: &mut Notes,
) -> Result<(Vec<Tool>, Vec<String>), ConvertError> {
    let mut tools = Vec::with_capacity(list.len());
    let mut left_out = Vec::new();
    for (at, tool) in list.into_iter().enumerate() {
        let field = format!("tools[{at}]");
        if tool.kind != "namespace" {
            let kind = tool.kind.clone();
            match read_tool(tool, &field, notes)? {
                Some(tool) => tools.push(tool),
                None => left_out.push(kind),
            }
            continue;
        }
        for (at, inner) in tool.tools.into_iter().enumerate() {
            let name = inner.name.clone();
            let field = format!("{field}.tools[{at}]");
            let Some(mut inner) = read_tool(inner, &field, notes)? else { continue };
            inner.name = flat_name(&tool.name, &name);
            notes.context.namespaced.push(Namespaced {
                flat: inner.name.clone(),
                namespace: tool.name.clone(),
                name,
            });
            tools.push(inner);
        }
    }
    Ok((tools, left_out))
}

/// How a tool of a namespace is called where there are none.
pub(super) fn flat_name(namespace: &str, name: &str) -> String {
    let joint = if namespace.ends_with('_') { "" } else { "__" };
    format!("{namespace}{joint}{name}")
}

fn read_tool(
    tool: wire::Tool,
    field: &str,
    notes: &mut Notes,
) -> Result<Option<Tool>, ConvertError> {
    match tool.kind.as_str() {
        "function" => Ok(Some(Tool {
            name: tool.name,
            description: tool.description,
            schema: tool.parameters.unwrap_or_default(),
            strict: tool.strict,
            ..Tool::default()
        })),
        "custom" => {
            let is_grammar = |format: &Map<String, Value>| {
                format.get("type").is_some_and(|kind| kind == "grammar")
            };
            let grammar = tool.format.filter(is_grammar).map(|mut grammar| {
                grammar.remove("type");
                grammar
            });
            let format = grammar.map_or(CustomFormat::Text, CustomFormat::Grammar);
            Ok(Some(custom::tool(tool.name, tool.description, format)))
        }
        kind => {
            let (field, is_offer) = (format!("{field}.type"), hosted::is_offer(kind));
            hosted::leave_out(field, kind, "OpenAI", is_offer, notes)?;
            Ok(None)
        }
    }
}

fn read_tool_choice(
    choice: wire::ToolChoice,
    tools: &mut Vec<Tool>,
    notes: &mut Notes,
) -> Result<Option<ToolChoice>, ConvertError> {
    match choice {
        wire::ToolChoice::Mode(mode) => read_mode(&mode).map(Some),
        wire::ToolChoice::Named { kind, mode, tools: allowed, .. } if kind == "allowed_tools" => {
            let names: Vec<_> = allowed.into_iter().filter_map(|tool| tool.name).collect();
            tools.retain(|tool| names.contains(&tool.name));
            read_mode(mode.as_deref().unwrap_or("auto")).map(Some)
        }
        wire::ToolChoice::Named { kind, name: Some(name), .. }
            if matches!(kind.as_str(), "function" | "custom") =>
        {
            Ok(Some(ToolChoice::Named(name)))
        }
        wire::ToolChoice::Named { kind, .. } => {
            notes.lose(
                "tool_choice.type",
                format!(
                    "`{kind}` has to be called at OpenAI; with this model's provider only tools that \
                     you describe yourself can be"
                ),
            )?;
            Ok(None)
        }
    }
}

fn read_mode(mode: &str) -> Result<ToolChoice, ConvertError> {
    ToolChoice::of_mode(mode).ok_or_else(|| {
        let message = format!("must be `auto`, `none`, `required` or a function, not `{mode}`");
        ConvertError::new("tool_choice", message)
    })
}

fn read_format(format: wire::TextFormat) -> Result<ResponseFormat, ConvertError> {
    match format {
        wire::TextFormat::Text => Ok(ResponseFormat::Text),
        wire::TextFormat::JsonObject => Ok(ResponseFormat::JsonObject),
        wire::TextFormat::JsonSchema { name, description, schema, strict } => {
            Ok(ResponseFormat::JsonSchema { name, description, schema, strict })
        }
        wire::TextFormat::Unknown => Err(ConvertError::new(
            "text.format.type",
            "must be `text`, `json_object` or `json_schema`",
        )),
    }
}

/// Writes a request. It asks that nothing be stored, and for reasoning in its sealed form.
///
/// Dropped, because an answer without them is still right: `seed` (a best effort also where it exists),
/// the reasoning effort of models that are known to take none, the verbosity of models that are not known
/// to take one, `prompt_cache_key`
/// and the name of the user of models that are not OpenAI's own, cache marks where the model takes
/// none, and what a model of another protocol thought.
pub(super) fn write(
    mut chat: ChatRequest,
    notes: &mut Notes,
) -> Result<wire::Request, ConvertError> {
    refuse_impossible(&chat, notes)?;
    if chat.seed.is_some() {
        notes.drop("seed");
    }
    if !gpt::takes_cache_marks(&chat.model) && chat.take_cache_marks() {
        notes.drop("cache_control");
    }
    let (reasons, is_openai) = (gpt::reasons(&chat.model), gpt::is_openai(&chat.model));
    let effort = chat.reasoning_effort.map(|effort| gpt::effort(effort, &chat.model));
    let may_think = gpt::may_take_effort(&chat.model);
    let effort = notes.keep_if(may_think, "reasoning_effort", effort);
    let shows = may_think && chat.reasoning_summary;
    let reasoning = (effort.is_some() || shows).then(|| wire::ReasoningConfig {
        effort: effort.map(str::to_owned),
        summary: shows.then(|| "auto".to_owned()),
    });
    let verbosity = notes.keep_if(reasons, "verbosity", chat.verbosity);
    let format = write_format(chat.response_format);
    let text =
        (verbosity.is_some() || format.is_some()).then_some(wire::TextConfig { format, verbosity });
    let mut include = Vec::new();
    if reasons {
        include.push(ENCRYPTED_REASONING.to_owned());
    }
    if chat.logprobs {
        include.push(LOGPROBS.to_owned());
    }
    let fits = |user: &String| is_openai && user.chars().count() <= gpt::MAX_USER_CHARS;
    let fits = chat.user.as_ref().is_some_and(fits);
    let custom: Vec<_> = chat
        .tools
        .iter()
        .filter(|tool| tool.custom.is_some())
        .map(|tool| tool.name.clone())
        .collect();
    let (instructions, input) = input::write(chat.system, chat.messages, &custom, notes)?;
    let has_tools = !chat.tools.is_empty();
    Ok(wire::Request {
        model: chat.model,
        instructions,
        input: Some(input),
        tools: chat.tools.into_iter().map(write_tool).collect(),
        tool_choice: chat.tool_choice.map(|choice| write_tool_choice(choice, &custom)),
        parallel_tool_calls: chat.parallel_tool_calls.filter(|_| has_tools),
        max_output_tokens: chat.max_tokens,
        temperature: chat.temperature,
        top_p: chat.top_p,
        top_logprobs: chat.top_logprobs.filter(|_| chat.logprobs),
        stream: chat.stream.then_some(true),
        store: Some(false),
        include,
        reasoning,
        text,
        user: None,
        safety_identifier: notes.keep_if(fits, "user", chat.user),
        prompt_cache_key: notes.keep_if(is_openai, "prompt_cache_key", chat.prompt_cache_key),
        rest: Map::new(),
    })
}

fn refuse_impossible(chat: &ChatRequest, notes: &mut Notes) -> Result<(), ConvertError> {
    let is_set = |penalty: Option<f64>| penalty.is_some_and(|penalty| penalty != 0.0);
    let cannot = "is not something this model's provider can do; leave it out";
    let only_zero = "can only be 0 with this model's provider";
    let refusals = [
        (!chat.stop.is_empty(), "stop", cannot),
        (chat.top_k.is_some(), "top_k", cannot),
        (chat.n.is_some_and(|n| n != 1), "n", "can only be 1 with this model's provider"),
        (is_set(chat.presence_penalty), "presence_penalty", only_zero),
        (is_set(chat.frequency_penalty), "frequency_penalty", only_zero),
    ];
    refusals
        .into_iter()
        .filter(|(is_refused, ..)| *is_refused)
        .try_for_each(|(_, field, message)| notes.lose(field, message))
}

fn write_tool(tool: Tool) -> wire::Tool {
    let Tool { name, description, schema, strict, custom, .. } = tool;
    match custom {
        Some(format) => {
            let format = match format {
                CustomFormat::Text => None,
                CustomFormat::Grammar(mut grammar) => {
                    grammar.insert("type".to_owned(), Value::from("grammar"));
                    Some(grammar)
                }
            };
            wire::Tool {
                kind: "custom".to_owned(),
                name,
                description,
                format,
                ..Default::default()
            }
        }
        None => wire::Tool {
            kind: "function".to_owned(),
            name,
            description,
            parameters: Some(object_schema(schema)),
            // Unasked, this protocol is strict where others are not.
            strict: Some(strict.unwrap_or(false)),
            ..Default::default()
        },
    }
}

fn write_tool_choice(choice: ToolChoice, custom: &[String]) -> wire::ToolChoice {
    match choice.mode() {
        Ok(mode) => wire::ToolChoice::Mode(mode.to_owned()),
        Err(name) => wire::ToolChoice::Named {
            kind: if custom.contains(&name) { "custom" } else { "function" }.to_owned(),
            name: Some(name),
            mode: None,
            tools: Vec::new(),
        },
    }
}

fn write_format(format: ResponseFormat) -> Option<wire::TextFormat> {
    match format {
        ResponseFormat::Text => None,
        ResponseFormat::JsonObject => Some(wire::TextFormat::JsonObject),
        ResponseFormat::JsonSchema { name, description, schema, strict } => {
            Some(wire::TextFormat::JsonSchema { name, description, schema, strict })
        }
    }
}
