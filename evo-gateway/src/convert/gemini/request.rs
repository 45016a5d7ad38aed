use serde_json::{Map, Value};

use super::{format, messages, models, thinking};
use crate::{
    convert::{ConvertError, Notes, custom, hosted},
    model::{ChatRequest, Part, ResponseFormat, Tool, ToolChoice},
    wire::gemini as wire,
};

const JSON: &str = "application/json";
/// The name of a schema, which Google has none for.
const OUTPUT: &str = "output";

/// Fields of Google's own without which an answer is still right.
const HINTS: [&str; 6] =
    ["safetySettings", "safety_settings", "labels", "serviceTier", "service_tier", "store"];
/// The same in `generationConfig`.
const CONFIG_HINTS: [&str; 2] = ["mediaResolution", "media_resolution"];
/// Fields that belong to one provider.
const STORED: [&str; 2] = ["cachedContent", "cached_content"];
/// The model stands in the address; some callers repeat it.
const KNOWN: [&str; 1] = ["model"];
/// Fields of `generationConfig` that ask for something else than text.
const OTHER_THAN_TEXT: [&str; 6] = [
    "responseModalities",
    "response_modalities",
    "speechConfig",
    "speech_config",
    "imageConfig",
    "image_config",
];
/// Tools that run at Google and that a model may do without. Of the others one looks into stored files,
/// and one is run by the caller in Google's way.
const OFFERS: [&str; 10] = [
    "googleSearch",
    "google_search",
    "googleSearchRetrieval",
    "google_search_retrieval",
    "googleMaps",
    "google_maps",
    "codeExecution",
    "code_execution",
    "urlContext",
    "url_context",
];

/// What the neutral model calls otherwise.
pub(super) const NAMES: [(&str, &str); 14] = [
    ("frequency_penalty", "generationConfig.frequencyPenalty"),
    ("logprobs", "generationConfig.responseLogprobs"),
    ("max_tokens", "generationConfig.maxOutputTokens"),
    ("messages", "contents"),
    ("messages[].content", "contents[]"),
    ("n", "generationConfig.candidateCount"),
    ("presence_penalty", "generationConfig.presencePenalty"),
    ("reasoning", "contents.thoughtSignature"),
    ("reasoning_effort", "generationConfig.thinkingConfig"),
    ("seed", "generationConfig.seed"),
    ("stop", "generationConfig.stopSequences"),
    ("temperature", "generationConfig.temperature"),
    ("top_k", "generationConfig.topK"),
    ("top_p", "generationConfig.topP"),
];

/// Reads a request.
///
/// Dropped, because an answer without them is still right: [`HINTS`], [`CONFIG_HINTS`], and [`OFFERS`].
pub(super) fn read(request: wire::Request, notes: &mut Notes) -> Result<ChatRequest, ConvertError> {
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::Array(list) => list.iter().any(|item| item != "TEXT"),
        _ => true,
    };
    for field in STORED {
        if request.rest.get(field).is_some_and(says) {
            notes.lose(field, "belongs to one provider; send its contents")?;
        }
    }
    notes.drop_hints(&request.rest, &HINTS);
    let config = request.generation_config.unwrap_or_default();
    for field in OTHER_THAN_TEXT {
        if config.rest.get(field).is_some_and(says) {
            let message = "can only be text with this model's provider; leave it out";
            notes.lose(format!("generationConfig.{field}"), message)?;
        }
    }
    for hint in CONFIG_HINTS.iter().filter(|hint| config.rest.contains_key(**hint)) {
        notes.drop(format!("generationConfig.{hint}"));
    }
    notes.lose_unknown("", &request.rest, &[&STORED, &HINTS, &KNOWN])?;
    let known: [&[&str]; 2] = [&OTHER_THAN_TEXT, &CONFIG_HINTS];
    notes.lose_unknown("generationConfig.", &config.rest, &known)?;
    notes.call("response_format", name_of_format(&config));
    let (mut tools, left_out) = read_tools(request.tools, notes)?;
    let choice = request.tool_config.and_then(|config| config.function_calling_config);
    let tool_choice = choice.map(|choice| read_tool_choice(choice, &mut tools)).transpose()?;
    let system = request.system_instruction.map_or(Ok(Vec::new()), messages::read_instructions)?;
    let thinking = config.thinking_config.clone().unwrap_or_default();
    notes.context.hides_thoughts = thinking.include_thoughts != Some(true);
    let mut chat = ChatRequest {
        system,
        messages: messages::read(request.contents)?,
        tools,
        tool_choice,
        max_tokens: config.max_output_tokens,
        temperature: config.temperature,
        top_p: config.top_p,
        top_k: config.top_k.map(read_count).transpose()?,
        reasoning_effort: thinking::read(&thinking),
        reasoning_summary: thinking.include_thoughts == Some(true),
        seed: config.seed,
        presence_penalty: config.presence_penalty,
        frequency_penalty: config.frequency_penalty,
        n: config.candidate_count,
        logprobs: config.response_logprobs.unwrap_or(false),
        top_logprobs: config.logprobs,
        response_format: read_format(&config)?,
        stop: config.stop_sequences,
        ..ChatRequest::default()
    };
    hosted::check_choice(&mut chat, &left_out, "toolConfig.functionCallingConfig.mode", notes)?;
    Ok(chat)
}

fn name_of_format(config: &wire::GenerationConfig) -> &'static str {
    if config.response_json_schema.is_some() {
        "generationConfig.responseJsonSchema"
    } else if config.response_schema.is_some() {
        "generationConfig.responseSchema"
    } else {
        "generationConfig.responseMimeType"
    }
}

/// The functions, and the names of tools that are left out.
fn read_tools(
    list: Vec<wire::Tools>,
    notes: &mut Notes,
) -> Result<(Vec<Tool>, Vec<String>), ConvertError> {
    let (mut tools, mut left_out) = (Vec::new(), Vec::new());
    for (at, kind) in list.into_iter().enumerate() {
        tools.extend(kind.function_declarations.into_iter().map(read_tool));
        for (name, _) in kind.rest.into_iter().filter(|(_, value)| !value.is_null()) {
            let is_offer = OFFERS.contains(&name.as_str());
            hosted::leave_out(format!("tools[{at}].{name}"), &name, "Google", is_offer, notes)?;
            left_out.push(name);
        }
    }
    Ok((tools, left_out))
}

fn read_count(count: f64) -> Result<u64, ConvertError> {
    let text = format!("{count:.0}");
    text.parse().map_err(|_| ConvertError::new("generationConfig.topK", "must be a whole number"))
}

fn read_tool(function: wire::Function) -> Tool {
    let schema = function.parameters_json_schema.or_else(|| function.parameters.map(format::read));
    Tool {
        name: function.name,
        description: function.description,
        schema: schema.unwrap_or_default(),
        ..Tool::default()
    }
}

/// Reads a choice. One among some of the tools takes the others away.
fn read_tool_choice(
    choice: wire::FunctionCallingConfig,
    tools: &mut Vec<Tool>,
) -> Result<ToolChoice, ConvertError> {
    let names = choice.allowed_function_names;
    match choice.mode.as_deref() {
        None | Some("AUTO" | "VALIDATED" | "MODE_UNSPECIFIED") => Ok(ToolChoice::Auto),
        Some("NONE") => Ok(ToolChoice::None),
        Some("ANY") => {
            if let [name] = names.as_slice() {
                return Ok(ToolChoice::Named(name.clone()));
            }
            tools.retain(|tool| names.is_empty() || names.contains(&tool.name));
            Ok(ToolChoice::Required)
        }
        Some(mode) => Err(ConvertError::new(
            "toolConfig.functionCallingConfig.mode",
            format!("must be AUTO, ANY, NONE or VALIDATED, not `{mode}`"),
        )),
    }
}

fn read_format(config: &wire::GenerationConfig) -> Result<ResponseFormat, ConvertError> {
    let own = || config.response_schema.clone().map(format::read);
    let schema = config.response_json_schema.clone().or_else(own);
    match (config.response_mime_type.as_deref(), schema) {
        (None | Some("" | "text/plain"), _) => Ok(ResponseFormat::Text),
        (Some(JSON), None) => Ok(ResponseFormat::JsonObject),
        (Some(JSON), Some(schema)) => {
            let name = OUTPUT.to_owned();
            Ok(ResponseFormat::JsonSchema { name, description: None, schema, strict: None })
        }
        (Some(kind), _) => Err(ConvertError::new(
            "generationConfig.responseMimeType",
            format!("must be text/plain or application/json, not `{kind}`"),
        )),
    }
}

/// Writes a request. The model and whether the answer is streamed stand in the address.
///
/// Dropped, because an answer without them is still right: `user`, `detail` of an image, `strict` of a
/// function, `verbosity`, `prompt_cache_key`, cache marks, the grammar of a custom tool, which is put in
/// words, what a model of another protocol thought, and the reasoning effort where the model has none.
pub(super) fn write(
    mut chat: ChatRequest,
    notes: &mut Notes,
) -> Result<wire::Request, ConvertError> {
    if chat.n.is_some_and(|n| n != 1) {
        notes.lose("n", "can only be 1 with this model's provider")?;
    }
    if chat.parallel_tool_calls == Some(false) && !chat.tools.is_empty() {
        let message = "cannot be kept to with this model, which may ask for several calls at once";
        notes.lose("parallel_tool_calls", message)?;
    }
    drop_hints(&mut chat, notes);
    let thinking = thinking::write(chat.reasoning_effort, chat.reasoning_summary, &chat.model);
    if chat.reasoning_effort.is_some() && thinking.is_none() {
        notes.drop("reasoning_effort");
    }
    let (response_mime_type, response_json_schema) = write_format(&mut chat, notes)?;
    let (system_instruction, contents) =
        messages::write(chat.system, chat.messages, &chat.model, notes)?;
    let config = wire::GenerationConfig {
        temperature: chat.temperature,
        top_p: chat.top_p,
        top_k: chat.top_k.map(|top_k| u32::try_from(top_k).unwrap_or(u32::MAX).into()),
        max_output_tokens: chat.max_tokens,
        stop_sequences: chat.stop,
        seed: chat.seed,
        presence_penalty: chat.presence_penalty,
        frequency_penalty: chat.frequency_penalty,
        response_logprobs: chat.logprobs.then_some(true),
        logprobs: chat.top_logprobs.filter(|_| chat.logprobs),
        response_mime_type,
        response_json_schema,
        thinking_config: thinking,
        ..wire::GenerationConfig::default()
    };
    let has_tools = !chat.tools.is_empty();
    let function_declarations = chat.tools.into_iter().map(write_tool).collect();
    let tools = wire::Tools { function_declarations, rest: Map::new() };
    Ok(wire::Request {
        contents,
        system_instruction,
        tools: has_tools.then_some(tools).into_iter().collect(),
        tool_config: chat.tool_choice.filter(|_| has_tools).map(write_tool_choice),
        generation_config: (config != wire::GenerationConfig::default()).then_some(config),
        rest: Map::new(),
    })
}

fn drop_hints(chat: &mut ChatRequest, notes: &mut Notes) {
    if chat.take_cache_marks() {
        notes.drop("cache_control");
    }
    let has_detail = |part: &Part| matches!(part, Part::Image(image) if image.detail.is_some());
    let mut parts = chat.messages.iter().flat_map(|message| &message.parts);
    let hints = [
        (chat.user.is_some(), "user"),
        (chat.verbosity.is_some(), "verbosity"),
        (chat.prompt_cache_key.is_some(), "prompt_cache_key"),
        (chat.tools.iter().any(|tool| tool.strict == Some(true)), "tools.strict"),
        (parts.any(has_detail), "image_url.detail"),
    ];
    for (_, field) in hints.iter().filter(|(is_set, _)| *is_set) {
        notes.drop(*field);
    }
    custom::into_functions(&mut chat.tools, notes);
}

/// What an answer must be like: its type and its schema.
type Shape = (Option<String>, Option<Map<String, Value>>);

fn write_format(chat: &mut ChatRequest, notes: &mut Notes) -> Result<Shape, ConvertError> {
    let format = std::mem::take(&mut chat.response_format);
    let json = Some(JSON.to_owned());
    let written = match format {
        ResponseFormat::Text => return Ok((None, None)),
        ResponseFormat::JsonObject => (json, None),
        ResponseFormat::JsonSchema { schema, .. } => (json, Some(schema)),
    };
    if !chat.tools.is_empty() && !models::is_third(&chat.model) {
        notes.lose(
            "response_format",
            "cannot stand next to tools with this model; leave one of the two out, or ask for JSON in \
             a message",
        )?;
        return Ok((None, None));
    }
    Ok(written)
}

fn write_tool(tool: Tool) -> wire::Function {
    wire::Function {
        name: tool.name,
        description: tool.description,
        parameters: None,
        // Google takes no empty schema for a function without arguments.
        parameters_json_schema: Some(tool.schema).filter(|schema| !schema.is_empty()),
    }
}

fn write_tool_choice(choice: ToolChoice) -> wire::ToolConfig {
    let (mode, allowed_function_names) = match choice {
        ToolChoice::Auto => ("AUTO", Vec::new()),
        ToolChoice::None => ("NONE", Vec::new()),
        ToolChoice::Required => ("ANY", Vec::new()),
        ToolChoice::Named(name) => ("ANY", vec![name]),
    };
    let mode = Some(mode.to_owned());
    let config = wire::FunctionCallingConfig { mode, allowed_function_names };
    wire::ToolConfig { function_calling_config: Some(config) }
}
