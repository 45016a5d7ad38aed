use serde_json::{Map, Value};

use super::{format, messages, thinking};
use crate::{
    convert::{ConvertError, Notes, custom, hosted},
    model::{ChatRequest, Effort, Instruction, Part, ResponseFormat, Tool, ToolChoice},
    wire::{Content, anthropic as wire},
};

/// Anthropic demands a limit; this one is used when the client names none. Tokens to think come on top.
const DEFAULT_MAX_TOKENS: u64 = 4_096;

/// Fields of Anthropic's own without which an answer is still right.
const HINTS: [&str; 8] = [
    "cache_control",
    "context_management",
    "diagnostics",
    "inference_geo",
    "service_tier",
    "speed",
    "user_profile_id",
    "workspace_id",
];

/// Fields of Anthropic's own that change the answer and that no other protocol has.
const REFUSED: [&str; 2] = ["mcp_servers", "container"];

/// What the neutral model calls otherwise.
pub(super) const NAMES: [(&str, &str); 6] = [
    ("parallel_tool_calls", "tool_choice.disable_parallel_tool_use"),
    ("reasoning", "messages.thinking"),
    ("reasoning_effort", "thinking"),
    ("response_format", "output_config.format"),
    ("stop", "stop_sequences"),
    ("user", "metadata.user_id"),
];

/// Reads a request.
///
/// Dropped, because an answer without them is still right: [`HINTS`], `strict` and other attributes of a
/// tool, `citations` of a document, and tools that run at Anthropic where the model may do without them.
pub(super) fn read(request: wire::Request, notes: &mut Notes) -> Result<ChatRequest, ConvertError> {
    for field in REFUSED {
        let value = request.rest.get(field).unwrap_or(&Value::Null);
        if !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()) {
            let message = "is not something this model's provider can do; leave it out";
            notes.lose(field, message)?;
        }
    }
    notes.drop_hints(&request.rest, &HINTS);
    notes.lose_unknown("", &request.rest, &[&REFUSED, &HINTS])?;
    if request.output_config.as_ref().is_some_and(|config| config.effort.is_some()) {
        notes.call("reasoning_effort", "output_config.effort");
    }
    if request.output_format.is_some() {
        notes.call("response_format", "output_format");
    }
    if request.tools.iter().any(|tool| tool.strict == Some(true)) {
        notes.drop("tools.strict");
    }
    let reasoning_summary =
        matches!(request.thinking, Some(wire::Thinking::Enabled { .. } | wire::Thinking::Adaptive));
    let (mut tools, mut left_out) = (Vec::with_capacity(request.tools.len()), Vec::new());
    for (at, tool) in request.tools.into_iter().enumerate() {
        let name = tool.name.clone();
        match read_tool(at, tool, notes)? {
            Some(tool) => tools.push(tool),
            None => left_out.push(name),
        }
    }
    let mut chat = ChatRequest {
        reasoning_summary,
        model: request.model,
        tools,
        max_tokens: request.max_tokens,
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        stop: request.stop_sequences,
        stream: request.stream.unwrap_or(false),
        user: request.metadata.and_then(|metadata| metadata.user_id),
        reasoning_effort: thinking::read(request.thinking, request.output_config.as_ref()),
        ..ChatRequest::default()
    };
    messages::read(request.system, request.messages, &mut chat)?;
    if let Some(choice) = request.tool_choice {
        chat.parallel_tool_calls = choice.disable_parallel_tool_use.map(|disabled| !disabled);
        chat.tool_choice = Some(read_tool_choice(choice)?);
        hosted::check_choice(&mut chat, &left_out, "tool_choice", notes)?;
    }
    let format = request.output_config.and_then(|config| config.format).or(request.output_format);
    chat.response_format = format.map_or(Ok(ResponseFormat::Text), read_format)?;
    Ok(chat)
}

/// Reads a tool; nothing of one that is left out.
fn read_tool(at: usize, tool: wire::Tool, notes: &mut Notes) -> Result<Option<Tool>, ConvertError> {
    match tool.kind.as_deref() {
        None | Some("custom") if tool.name.is_empty() => {
            Err(ConvertError::new(format!("tools[{at}].name"), "is missing"))
        }
        None | Some("custom") => Ok(Some(Tool {
            name: tool.name,
            description: tool.description,
            schema: tool.input_schema,
            ..Tool::default()
        })),
        Some(kind) => {
            let (field, is_offer) = (format!("tools[{at}].type"), hosted::is_offer(kind));
            hosted::leave_out(field, kind, "Anthropic", is_offer, notes)?;
            Ok(None)
        }
    }
}

fn read_tool_choice(choice: wire::ToolChoice) -> Result<ToolChoice, ConvertError> {
    match choice.kind {
        wire::ToolChoiceKind::Auto => Ok(ToolChoice::Auto),
        wire::ToolChoiceKind::Any => Ok(ToolChoice::Required),
        wire::ToolChoiceKind::None => Ok(ToolChoice::None),
        wire::ToolChoiceKind::Tool => choice
            .name
            .map(ToolChoice::Named)
            .ok_or_else(|| ConvertError::new("tool_choice.name", "is missing")),
    }
}

fn read_format(format: wire::OutputFormat) -> Result<ResponseFormat, ConvertError> {
    match format {
        wire::OutputFormat::JsonSchema { schema } => {
            // OpenAI wants a name, and Anthropic always keeps to the schema.
            let name = "output".to_owned();
            Ok(ResponseFormat::JsonSchema { name, description: None, schema, strict: Some(true) })
        }
        wire::OutputFormat::Unknown => {
            Err(ConvertError::new("output_config.format.type", "must be `json_schema`"))
        }
    }
}

/// Writes a request.
///
/// Dropped, because an answer without them is still right: `seed` (a best effort also where it exists),
/// `detail` of an image, `strict` of a function, `verbosity`, `prompt_cache_key`, the grammar of a custom
/// tool, which is put in words, what a model of another protocol thought, and the reasoning effort where
/// Anthropic could not take it ([`thinking::write`]).
pub(super) fn write(
    mut chat: ChatRequest,
    notes: &mut Notes,
) -> Result<wire::Request, ConvertError> {
    refuse_impossible(&chat, notes)?;
    drop_hints(&mut chat, notes);
    let format = format::write(&mut chat, notes)?;
    let mut thinking = thinking::write(&chat);
    if chat.reasoning_effort.is_some_and(|effort| effort != Effort::None) && thinking.is_empty() {
        notes.drop("reasoning_effort");
    }
    if let Some(format) = format {
        thinking.config.get_or_insert_default().format = Some(format);
    }
    let default_max_tokens = DEFAULT_MAX_TOKENS + thinking.room;
    let (system, messages) = messages::write(chat.system, chat.messages, notes)?;
    let has_tools = !chat.tools.is_empty();
    Ok(wire::Request {
        model: chat.model,
        max_tokens: Some(chat.max_tokens.unwrap_or(default_max_tokens)),
        system,
        messages,
        tools: chat.tools.into_iter().map(write_tool).collect(),
        tool_choice: write_tool_choice(chat.tool_choice, chat.parallel_tool_calls, has_tools),
        temperature: chat.temperature,
        top_p: chat.top_p,
        top_k: chat.top_k,
        stop_sequences: chat.stop,
        stream: chat.stream.then_some(true),
        metadata: chat.user.map(|user| wire::Metadata { user_id: Some(user) }),
        thinking: thinking.thinking,
        output_config: thinking.config,
        output_format: None,
        rest: Map::new(),
    })
}

fn drop_hints(chat: &mut ChatRequest, notes: &mut Notes) {
    let has_detail = |part: &Part| matches!(part, Part::Image(image) if image.detail.is_some());
    let parts = || chat.messages.iter().flat_map(|message| &message.parts);
    let hints = [
        (chat.seed.is_some(), "seed"),
        (chat.verbosity.is_some(), "verbosity"),
        (chat.prompt_cache_key.is_some(), "prompt_cache_key"),
        (chat.tools.iter().any(|tool| tool.strict == Some(true)), "tools.strict"),
        (parts().any(has_detail), "image_url.detail"),
    ];
    for (_, field) in hints.iter().filter(|(is_set, _)| *is_set) {
        notes.drop(*field);
    }
    custom::into_functions(&mut chat.tools, notes);
    // Over 1 with a lenient caller: as much of it as there is.
    chat.temperature = chat.temperature.map(|temperature| temperature.clamp(0.0, 1.0));
}

fn refuse_impossible(chat: &ChatRequest, notes: &mut Notes) -> Result<(), ConvertError> {
    let is_set = |penalty: Option<f64>| penalty.is_some_and(|penalty| penalty != 0.0);
    let refusals = [
        (chat.n.is_some_and(|n| n != 1), "n", "can only be 1 with this model's provider"),
        (chat.logprobs, "logprobs", "is not something this model's provider can do; leave it out"),
        (
            is_set(chat.presence_penalty),
            "presence_penalty",
            "can only be 0 with this model's provider",
        ),
        (
            is_set(chat.frequency_penalty),
            "frequency_penalty",
            "can only be 0 with this model's provider",
        ),
        (
            chat.temperature.is_some_and(|temperature| !(0.0..=1.0).contains(&temperature)),
            "temperature",
            "can only be from 0 to 1 with this model's provider",
        ),
    ];
    refusals
        .into_iter()
        .filter(|(is_refused, ..)| *is_refused)
        .try_for_each(|(_, field, message)| notes.lose(field, message))
}

fn write_tool(tool: Tool) -> wire::Tool {
    let mut input_schema = tool.schema;
    // Anthropic wants it said, where OpenAI takes no schema at all for a tool without arguments.
    if !input_schema.contains_key("type") {
        input_schema.insert("type".to_owned(), Value::from("object"));
    }
    wire::Tool {
        kind: None,
        name: tool.name,
        description: tool.description,
        input_schema,
        strict: None,
        cache_control: tool.cache.map(messages::write_mark),
    }
}

fn write_tool_choice(
    choice: Option<ToolChoice>,
    parallel_tool_calls: Option<bool>,
    has_tools: bool,
) -> Option<wire::ToolChoice> {
    let at_most_one = has_tools && parallel_tool_calls == Some(false);
    let (kind, name) = match choice {
        Some(ToolChoice::None) => {
            let kind = wire::ToolChoiceKind::None;
            return Some(wire::ToolChoice { kind, name: None, disable_parallel_tool_use: None });
        }
        Some(ToolChoice::Auto) => (wire::ToolChoiceKind::Auto, None),
        Some(ToolChoice::Required) => (wire::ToolChoiceKind::Any, None),
        Some(ToolChoice::Named(name)) => (wire::ToolChoiceKind::Tool, Some(name)),
        // The limit to one call is part of the choice, which then has to be said.
        None if at_most_one => (wire::ToolChoiceKind::Auto, None),
        None => return None,
    };
    let disable_parallel_tool_use = at_most_one.then_some(true);
    Some(wire::ToolChoice { kind, name, disable_parallel_tool_use })
}

/// Whether a text is worth a block: Anthropic refuses empty ones.
pub(super) fn is_worth_a_block(text: &str) -> bool {
    !text.trim().is_empty()
}

/// One text as it is, several, or one with a cache mark, as blocks.
pub(super) fn write_instructions(mut texts: Vec<Instruction>) -> Option<Content<wire::Block>> {
    texts.retain(|instruction| is_worth_a_block(&instruction.text));
    if let [Instruction { text, cache: None }] = texts.as_mut_slice() {
        return Some(Content::Text(std::mem::take(text)));
    }
    let block = |Instruction { text, cache }| wire::Block::Text {
        text,
        cache_control: cache.map(messages::write_mark),
    };
    (!texts.is_empty()).then(|| Content::Parts(texts.into_iter().map(block).collect()))
}
