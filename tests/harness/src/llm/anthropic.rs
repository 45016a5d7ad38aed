//! A provider that speaks Anthropic's Messages API.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};

use super::{
    answer::{self, Answer, End, MODELS},
    fake::{Fake, Models, Style, asked_before},
    fault::{Fault, Status},
    prompt::{self, Choice, Part, Prompt, Role},
    schema,
    server::{Api, Reply, Request},
};

/// A fake Anthropic.
pub type Anthropic = Fake<Service>;

impl Anthropic {
    /// The keys that it takes.
    pub const KEYS: [&'static str; 2] = ["fake-anthropic-key-1", "fake-anthropic-key-2"];

    /// Starts one on a free port of loopback. Its SDKs are given its origin: they append `/v1`.
    pub fn start() -> Self {
        Self::serve("fake Anthropic", |models| Service { models })
    }

    /// The address that a gateway's configuration names; ends in `/v1`.
    pub fn base_url(&self) -> String {
        format!("{}/v1", self.origin())
    }
}

/// Its API.
#[derive(Debug)]
pub struct Service {
    models: Models,
}

const JSON: &str = "application/json";
const STYLE: Style = Style { json: JSON, stream: "text/event-stream; charset=utf-8", end_marks: 1 };

/// Most bytes of a request.
const MOST: usize = 32 * 1024 * 1024;

/// Why a request gets no answer of a model.
#[derive(Debug)]
struct Refusal {
    status: u16,
    kind: &'static str,
    message: String,
}

impl Refusal {
    fn new(message: impl Into<String>) -> Self {
        Self { status: 400, kind: "invalid_request_error", message: message.into() }
    }

    fn required(at: &str) -> Self {
        Self::new(format!("{at}: Field required"))
    }

    fn should_be(at: &str, what: &str) -> Self {
        Self::new(format!("{at}: Input should be {what}"))
    }

    fn of_status(status: u16, message: &str) -> Self {
        let kind = match status {
            400 => "invalid_request_error",
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            529 => "overloaded_error",
            _ => "api_error",
        };
        Self { status, kind, message: message.to_owned() }
    }

    fn body(&self, number: usize) -> String {
        json!({
            "type": "error", "error": { "type": self.kind, "message": self.message },
            "request_id": request_id(number),
        })
        .to_string()
    }
}

type Checked<T> = Result<T, Refusal>;

fn request_id(number: usize) -> String {
    format!("req_fake_anthropic_{number}")
}

impl Api for Service {
    fn reply(&self, request: &Request, earlier: &[Request]) -> Reply {
        let number = earlier.len();
        self.answer(request, earlier).unwrap_or_else(|refusal| {
            let mut headers = vec![("request-id", request_id(number))];
            // As the service does: clients should not try again what was wrong.
            headers.push(("x-should-retry", "false".to_owned()));
            Reply::whole(refusal.status, headers, JSON, refusal.body(number))
        })
    }
}

impl Service {
    fn answer(&self, request: &Request, earlier: &[Request]) -> Checked<Reply> {
        let number = earlier.len();
        if request.body.len() > MOST {
            let message = "Request exceeds the maximum allowed number of bytes.";
            return Err(Refusal::of_status(413, message));
        }
        authorize(request)?;
        let version = Version::of(request)?;
        let headers = || vec![("request-id", request_id(number))];
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/v1/models") => {
                let body = models(&request.query)?;
                Ok(Reply::whole(200, headers(), JSON, body.to_string()))
            }
            ("GET", path) if path.starts_with("/v1/models/") => {
                let name = path.trim_start_matches("/v1/models/");
                let known = MODELS.iter().find(|known| **known == name);
                let name = known.ok_or_else(|| no_model(name))?;
                Ok(Reply::whole(200, headers(), JSON, model(name).to_string()))
            }
            ("POST", "/v1/messages") => self.complete(request, version, earlier),
            ("POST", "/v1/messages/count_tokens") => {
                let mut body = parse(request)?;
                let mut fields = body.as_object().into_iter().flatten();
                if let Some((extra, _)) = fields.find(|(key, _)| !COUNTED.contains(&key.as_str())) {
                    let message = format!("{extra}: Extra inputs are not permitted");
                    return Err(Refusal::new(message));
                }
                let name = body["model"].as_str().unwrap_or_default();
                if let Some(fault) = Fault::now(name, || asked_before(name, earlier)) {
                    return Ok(fault.reply(|status| refuse(status, number)));
                }
                if !MODELS.contains(&name) {
                    return Err(no_model(name));
                }
                body["max_tokens"] = 1.into();
                let body = json!({ "input_tokens": read(&body, version)?.tokens() });
                Ok(Reply::whole(200, headers(), JSON, body.to_string()))
            }
            (_, "/v1/messages" | "/v1/models") => {
                Err(Refusal { status: 405, ..Refusal::new("Method Not Allowed") })
            }
            _ => Err(Refusal::of_status(404, "Not Found")),
        }
    }

    fn complete(&self, request: &Request, version: Version, earlier: &[Request]) -> Checked<Reply> {
        let number = earlier.len();
        let body = parse(request)?;
        let name = body["model"].as_str().unwrap_or_default();
        if let Some(fault) = Fault::now(name, || asked_before(name, earlier)) {
            return Ok(fault.reply(|status| refuse(status, number)));
        }
        let prompt = read(&body, version)?;
        let answer = self.models.answer(&prompt).ok_or_else(|| no_model(name))?;
        let told = Told { id: format!("msg_fake{number}"), model: name.to_owned() };
        let events = || {
            let error = Refusal::of_status(529, "Overloaded").body(number);
            (told.events(&answer), format!("event: error\ndata: {error}\n\n"))
        };
        Ok(STYLE.send(&prompt, limits(number), || told.whole(&answer).to_string(), events))
    }
}

fn parse(request: &Request) -> Checked<Value> {
    let content_type = request.header("content-type").unwrap_or_default();
    if !content_type.starts_with(JSON) {
        return Err(Refusal::new("Content-Type must be application/json"));
    }
    serde_json::from_slice(&request.body)
        .map_err(|error| Refusal::new(format!("The request body is not valid JSON: {error}")))
}

/// Versions of the API that differ in what they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    /// 2023-06-01.
    First,
    /// 2026-10-21: without parameters of sampling; citations and documents in fewer places.
    Second,
}

impl Version {
    fn of(request: &Request) -> Checked<Self> {
        match request.header("anthropic-version") {
            None => Err(Refusal::new("anthropic-version: header is required")),
            Some("2023-06-01") => Ok(Self::First),
            Some("2026-10-21") => Ok(Self::Second),
            Some(other) => {
                let message = format!("anthropic-version: \"{other}\" is not a valid version");
                Err(Refusal::new(message))
            }
        }
    }
}

fn authorize(request: &Request) -> Checked<()> {
    let bearer = request.header("authorization").and_then(|it| it.strip_prefix("Bearer "));
    match request.header("x-api-key").or(bearer) {
        None => Err(Refusal::of_status(401, "x-api-key header is required")),
        Some(key) if Anthropic::KEYS.contains(&key) => Ok(()),
        Some(_) => Err(Refusal::of_status(401, "invalid x-api-key")),
    }
}

fn no_model(name: &str) -> Refusal {
    Refusal::of_status(404, &format!("model: {name}"))
}

fn model(name: &str) -> Value {
    json!({
        "type": "model", "id": name, "display_name": format!("Fake {name}"),
        "created_at": "2025-02-19T00:00:00Z", "lifecycle": "active",
        "max_input_tokens": 200_000, "max_tokens": 64_000,
    })
}

/// One page of the list.
fn models(query: &str) -> Checked<Value> {
    let value = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next()
    };
    let limit = match value("limit") {
        None => 20,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=1000).contains(limit))
            .ok_or_else(|| Refusal::should_be("limit", "between 1 and 1000"))?,
    };
    let start = match value("after_id") {
        None => 0,
        Some(id) => {
            let at = MODELS.iter().position(|name| *name == id);
            at.ok_or_else(|| Refusal::new(format!("after_id: unknown id {id}")))? + 1
        }
    };
    let page: Vec<&str> = MODELS.into_iter().skip(start).take(limit).collect();
    Ok(json!({
        "data": page.iter().map(|name| model(name)).collect::<Vec<_>>(),
        "first_id": page.first(), "last_id": page.last(),
        "has_more": start + page.len() < MODELS.len(),
    }))
}

/// Headers of every answer of a model.
fn limits(number: usize) -> Vec<(&'static str, String)> {
    vec![
        ("request-id", request_id(number)),
        ("anthropic-organization-id", "00000000-fake".to_owned()),
        ("anthropic-ratelimit-requests-limit", "50".to_owned()),
        ("anthropic-ratelimit-requests-remaining", "49".to_owned()),
        ("anthropic-ratelimit-requests-reset", "2026-11-22T00:00:00Z".to_owned()),
        ("anthropic-ratelimit-tokens-limit", "30000".to_owned()),
        ("anthropic-ratelimit-tokens-remaining", "29000".to_owned()),
        ("anthropic-ratelimit-tokens-reset", "2026-11-22T00:00:00Z".to_owned()),
    ]
}

/// The error of this status.
fn refuse(status: &Status, number: usize) -> Reply {
    let message = match status.code {
        400 => "prompt is too long: 200251 tokens > 200000 maximum",
        401 => "invalid x-api-key",
        403 => "Your API key does not have permission to use the specified resource.",
        404 => "model: claude-gone",
        413 => "Request exceeds the maximum allowed number of bytes.",
        429 => "This request would exceed your organization's rate limit.",
        529 => "Overloaded",
        _ => "Internal server error",
    };
    let mut headers = limits(number);
    if matches!(status.code, 429 | 503 | 529) && status.retry_after {
        headers.push(("retry-after", "7".to_owned()));
    }
    let again = status.code == 429 || status.code >= 500;
    headers.push(("x-should-retry", again.to_string()));
    status.reply(headers, Refusal::of_status(status.code, message).body(number))
}

/// Parameters whose tokens the API counts.
const COUNTED: [&str; 9] = [
    "cache_control",
    "messages",
    "mcp_servers",
    "model",
    "output_config",
    "system",
    "thinking",
    "tool_choice",
    "tools",
];
/// Parameters that the API knows.
const PARAMETERS: [&str; 19] = [
    "model",
    "messages",
    "max_tokens",
    "cache_control",
    "container",
    "context_management",
    "diagnostics",
    "inference_geo",
    "mcp_servers",
    "metadata",
    "output_config",
    "service_tier",
    "speed",
    "stop_sequences",
    "stream",
    "system",
    "thinking",
    "tool_choice",
    "tools",
];
/// Parameters that only its first version knows.
const SAMPLING: [&str; 3] = ["temperature", "top_k", "top_p"];

/// Checks a request as the API does and takes from it what a model sees.
fn read(body: &Value, version: Version) -> Checked<Prompt> {
    let fields =
        body.as_object().ok_or_else(|| Refusal::should_be("body", "a valid dictionary"))?;
    for name in ["model", "messages", "max_tokens"] {
        if body[name].is_null() {
            return Err(Refusal::required(name));
        }
    }
    let known = |key: &str| {
        PARAMETERS.contains(&key) || (version == Version::First && SAMPLING.contains(&key))
    };
    if let Some(unknown) = fields.keys().find(|key| !known(key)) {
        return Err(Refusal::new(format!("{unknown}: Extra inputs are not permitted")));
    }
    let name = body["model"].as_str();
    let name = name.ok_or_else(|| Refusal::should_be("model", "a valid string"))?;
    let mut prompt = Prompt { model: name.to_owned(), parallel: true, ..Prompt::default() };
    let tokens = body["max_tokens"].as_i64();
    let tokens = tokens.ok_or_else(|| Refusal::should_be("max_tokens", "a valid integer"))?;
    // With 0 the service only fills its cache.
    let not_negative = || Refusal::should_be("max_tokens", "greater than or equal to 0");
    prompt.max_tokens = Some(u64::try_from(tokens).map_err(|_| not_negative())?);
    prompt.stream = match &body["stream"] {
        Value::Null => false,
        value => value.as_bool().ok_or_else(|| Refusal::should_be("stream", "a valid boolean"))?,
    };
    prompt.temperature = share(body, "temperature")?;
    prompt.top_p = share(body, "top_p")?;
    let metadata = body["metadata"].as_object().into_iter().flatten();
    if let Some((other, _)) = metadata.into_iter().find(|(key, _)| *key != "user_id") {
        return Err(Refusal::new(format!("metadata.{other}: Extra inputs are not permitted")));
    }
    if !body["stop_sequences"].is_null() {
        let list = body["stop_sequences"].as_array();
        let list = list.ok_or_else(|| Refusal::should_be("stop_sequences", "a valid list"))?;
        for (index, value) in list.iter().enumerate() {
            let at = format!("stop_sequences.{index}");
            let text = value.as_str().ok_or_else(|| Refusal::should_be(&at, "a valid string"))?;
            if text.trim().is_empty() {
                let message = "each stop sequence must contain non-whitespace";
                return Err(Refusal::new(format!("stop_sequences: {message}")));
            }
            prompt.stop.push(text.to_owned());
        }
    }
    match &body["system"] {
        Value::Null => (),
        Value::String(text) => prompt.system.push(text.clone()),
        Value::Array(blocks) => {
            for (index, block) in blocks.iter().enumerate() {
                let at = format!("system.{index}");
                if block["type"] != "text" {
                    return Err(Refusal::should_be(&format!("{at}.type"), "'text'"));
                }
                prompt.system.push(text(block, &format!("{at}.text"), "system")?);
            }
        }
        _ => return Err(Refusal::should_be("system", "a valid string or list")),
    }
    prompt.format = format(&body["output_config"]["format"])?;
    tools(body, &mut prompt)?;
    messages(&body["messages"], &mut prompt)?;
    if answer::conduct(name) == "signed" && !prompt.results().is_empty() && !prompt.sealed {
        return Err(Refusal::new(
            "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found \
             `tool_use`. When `thinking` is enabled, a final `assistant` message must start with a \
             thinking block.",
        ));
    }
    Ok(prompt)
}

/// The schema of the answer's text.
fn format(value: &Value) -> Checked<Option<Value>> {
    if value.is_null() {
        return Ok(None);
    }
    if value["type"] != "json_schema" || !value["schema"].is_object() {
        return Err(Refusal::should_be("output_config.format.type", "'json_schema'"));
    }
    if schema::open_object(&value["schema"]).is_some() {
        return Err(Refusal::new(
            "output_config.format.schema: For 'object' type, 'additionalProperties' must be \
             explicitly set to false",
        ));
    }
    Ok(Some(value["schema"].clone()))
}

/// A number from 0 to 1.
fn share(body: &Value, name: &str) -> Checked<Option<f64>> {
    let value = &body[name];
    if value.is_null() {
        return Ok(None);
    }
    let number = value.as_f64().ok_or_else(|| Refusal::should_be(name, "a valid number"))?;
    let fine = (0.0..=1.0).contains(&number);
    if fine { Ok(Some(number)) } else { Err(Refusal::new(format!("{name}: range: 0..1"))) }
}

fn text(block: &Value, at: &str, list: &str) -> Checked<String> {
    let text = block["text"].as_str().ok_or_else(|| Refusal::required(at))?;
    if text.is_empty() {
        return Err(Refusal::new(format!("{list}: text content blocks must be non-empty")));
    }
    if text.trim().is_empty() {
        let message = "text content blocks must contain non-whitespace text";
        return Err(Refusal::new(format!("{list}: {message}")));
    }
    Ok(text.to_owned())
}

fn is_name(text: &str, most: usize) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=most).contains(&text.len()) && text.bytes().all(fine)
}

fn tools(body: &Value, prompt: &mut Prompt) -> Checked<()> {
    let none = Vec::new();
    let list = match &body["tools"] {
        Value::Null => &none,
        Value::Array(list) => list,
        _ => return Err(Refusal::should_be("tools", "a valid list")),
    };
    for (index, tool) in list.iter().enumerate() {
        let at = format!("tools.{index}");
        if !tool["type"].is_null() && tool["type"] != "custom" {
            let message =
                format!("Input tag {} found using 'type' is not known here", tool["type"]);
            return Err(Refusal::new(format!("{at}: {message}")));
        }
        let at = format!("{at}.custom");
        let name = tool["name"].as_str();
        let name = name.ok_or_else(|| Refusal::required(&format!("{at}.name")))?;
        if !is_name(name, 128) {
            let message = "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'";
            return Err(Refusal::new(format!("{at}.name: {message}")));
        }
        let schema = &tool["input_schema"];
        if !schema.is_object() {
            return Err(Refusal::required(&format!("{at}.input_schema")));
        }
        if schema["type"] != "object" {
            return Err(Refusal::should_be(&format!("{at}.input_schema.type"), "'object'"));
        }
        let known = [
            "type",
            "name",
            "description",
            "input_schema",
            "allowed_callers",
            "cache_control",
            "defer_loading",
            "eager_input_streaming",
            "input_examples",
            "strict",
        ];
        let fields = tool.as_object().into_iter().flatten();
        if let Some((other, _)) = fields.into_iter().find(|(key, _)| !known.contains(&key.as_str()))
        {
            return Err(Refusal::new(format!("{at}.{other}: Extra inputs are not permitted")));
        }
        prompt.schemas.insert(name.to_owned(), schema.clone());
        if prompt.tools.iter().any(|it| it == name) {
            return Err(Refusal::new("tools: Tool names must be unique."));
        }
        prompt.tools.push(name.to_owned());
    }
    let choice = &body["tool_choice"];
    if choice.is_null() {
        return Ok(());
    }
    if prompt.tools.is_empty() {
        let message = "tool_choice may only be specified while providing tools.";
        return Err(Refusal::new(format!("tool_choice: {message}")));
    }
    prompt.parallel = choice["disable_parallel_tool_use"] != true;
    prompt.choice = match choice["type"].as_str() {
        Some("auto") => Choice::Auto,
        Some("any") => Choice::Any,
        Some("none") => Choice::Never,
        Some("tool") => {
            let name = choice["name"].as_str();
            let name = name.ok_or_else(|| Refusal::required("tool_choice.tool.name"))?;
            if !prompt.tools.iter().any(|tool| tool == name) {
                let message = format!("tool_choice: Tool '{name}' not found in provided tools");
                return Err(Refusal::new(message));
            }
            Choice::Tool(name.to_owned())
        }
        _ => {
            let message = "Input tag does not match any of the expected tags: 'auto', 'any', \
                           'tool', 'none'";
            return Err(Refusal::new(format!("tool_choice: {message}")));
        }
    };
    Ok(())
}

fn messages(value: &Value, prompt: &mut Prompt) -> Checked<()> {
    let list = value.as_array().ok_or_else(|| Refusal::should_be("messages", "a valid list"))?;
    if list.is_empty() {
        return Err(Refusal::new("messages: at least one message is required"));
    }
    // Calls of the message before this one, and the names of all calls.
    let mut open = BTreeSet::<String>::new();
    let mut names = HashMap::<String, String>::new();
    for (index, message) in list.iter().enumerate() {
        let at = format!("messages.{index}");
        let role = match message["role"].as_str() {
            Some("user") => Role::User,
            Some("assistant") if index == 0 => {
                let message = "first message must use the \"user\" role";
                return Err(Refusal::new(format!("messages: {message}")));
            }
            Some("assistant") => Role::Assistant,
            // Instructions in between stand where they are given; the first ones have their field.
            Some("system") if index > 0 => {
                let missing: Vec<&str> = open.iter().map(String::as_str).collect();
                if !missing.is_empty() {
                    return Err(unanswered(index - 1, &missing));
                }
                for (position, block) in blocks(&message["content"], &at, false)?.iter().enumerate()
                {
                    let at = format!("{at}.content.{position}.text.text");
                    prompt.system.push(text(block, &at, "messages")?);
                }
                continue;
            }
            Some("system") => {
                let message = "Unexpected role \"system\". The Messages API accepts a top-level \
                               `system` parameter, not \"system\" as an input message role.";
                return Err(Refusal::new(format!("messages: {message}")));
            }
            Some(_) => {
                return Err(Refusal::should_be(&format!("{at}.role"), "'user' or 'assistant'"));
            }
            None => return Err(Refusal::required(&format!("{at}.role"))),
        };
        let known = ["role", "content"];
        let fields = message.as_object().into_iter().flatten();
        if let Some((other, _)) = fields.into_iter().find(|(key, _)| !known.contains(&key.as_str()))
        {
            return Err(Refusal::new(format!("{at}.{other}: Extra inputs are not permitted")));
        }
        let last = index + 1 == list.len();
        let blocks = blocks(&message["content"], &at, last && role == Role::Assistant)?;
        let mut results = BTreeSet::new();
        let mut other = false;
        let mut parts = Vec::new();
        let mut calls = BTreeSet::new();
        for (position, block) in blocks.iter().enumerate() {
            let at = format!("{at}.content.{position}");
            if block["type"] == "tool_result" {
                let id = block["tool_use_id"].as_str();
                let id = id.ok_or_else(|| Refusal::required(&format!("{at}.tool_use_id")))?;
                // Results that stand behind something else do not count as given at once.
                if !other {
                    results.insert(id.to_owned());
                }
                if role == Role::Assistant || !open.contains(id) {
                    return Err(Refusal::new(format!(
                        "{at}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each \
                         `tool_result` block must have a corresponding `tool_use` block in the \
                         previous message."
                    )));
                }
                let name = names[id].clone();
                let (text, images) = result(&block["content"], &at)?;
                parts.push(Part::Result { name, text });
                parts.extend(images);
                continue;
            }
            other = true;
            let (part, id) = part(block, role, &at)?;
            if block["type"] == "thinking" {
                prompt.sealed = position == 0;
            }
            if let (Some(id), Part::Call { name, .. }) = (id, &part) {
                names.insert(id.clone(), name.clone());
                calls.insert(id);
            }
            parts.push(part);
        }
        let missing: Vec<&str> = open.difference(&results).map(String::as_str).collect();
        if !missing.is_empty() {
            return Err(unanswered(index - 1, &missing));
        }
        open = calls;
        prompt.push(role, parts);
    }
    let missing: Vec<&str> = open.iter().map(String::as_str).collect();
    if missing.is_empty() { Ok(()) } else { Err(unanswered(list.len() - 1, &missing)) }
}

fn unanswered(index: usize, ids: &[&str]) -> Refusal {
    Refusal::new(format!(
        "messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately \
         after: {}. Each `tool_use` block must have a corresponding `tool_result` block in the \
         next message.",
        ids.join(", ")
    ))
}

/// The blocks of a message; `may_be_empty` when it begins the answer.
fn blocks(content: &Value, at: &str, prefill: bool) -> Checked<Vec<Value>> {
    let blocks = match content {
        Value::Null => return Err(Refusal::required(&format!("{at}.content"))),
        Value::String(text) if text.is_empty() => Vec::new(),
        Value::String(text) => vec![json!({ "type": "text", "text": text })],
        Value::Array(blocks) => blocks.clone(),
        _ => return Err(Refusal::should_be(&format!("{at}.content"), "a valid string or list")),
    };
    if blocks.is_empty() && !prefill {
        return Err(Refusal::new(format!(
            "{at}: all messages must have non-empty content except for the optional final \
             assistant message"
        )));
    }
    let end = blocks.last().and_then(|block| block["text"].as_str()).unwrap_or_default();
    if prefill && end != end.trim_end() {
        let message = "final assistant content cannot end with trailing whitespace";
        return Err(Refusal::new(format!("messages: {message}")));
    }
    Ok(blocks)
}

/// A block that is no result; a call comes with its id.
fn part(block: &Value, role: Role, at: &str) -> Checked<(Part, Option<String>)> {
    match (block["type"].as_str(), role) {
        (Some("text"), _) => {
            let text = text(block, &format!("{at}.text.text"), "messages")?;
            Ok((Part::Text(text), None))
        }
        (Some("image"), Role::User) => Ok((image(block, at)?, None)),
        (Some("tool_use"), Role::Assistant) => {
            let at = format!("{at}.tool_use");
            let id = block["id"].as_str();
            let id = id.ok_or_else(|| Refusal::required(&format!("{at}.id")))?;
            if !is_name(id, usize::MAX) {
                let message = "String should match pattern '^[a-zA-Z0-9_-]+$'";
                return Err(Refusal::new(format!("{at}.id: {message}")));
            }
            let name = block["name"].as_str();
            let name = name.ok_or_else(|| Refusal::required(&format!("{at}.name")))?.to_owned();
            let arguments = block["input"].clone();
            if !arguments.is_object() {
                return Err(Refusal::should_be(&format!("{at}.input"), "a valid dictionary"));
            }
            Ok((Part::Call { name, arguments }, Some(id.to_owned())))
        }
        (Some("thinking"), Role::Assistant) => {
            let thinking = block["thinking"].as_str();
            let thinking =
                thinking.ok_or_else(|| Refusal::required(&format!("{at}.thinking.thinking")))?;
            if block["signature"] != SIGNATURE {
                let message = "Invalid `signature` in `thinking` block";
                return Err(Refusal::new(format!("{at}: {message}")));
            }
            Ok((Part::Text(format!("[thought {thinking}]")), None))
        }
        (Some(kind @ ("image" | "tool_use" | "thinking")), _) => {
            Err(Refusal::new(format!("{at}: `{kind}` blocks are not allowed in this role")))
        }
        (Some(other), _) => Err(Refusal::new(format!(
            "{at}: Input tag '{other}' found using 'type' does not match any of the expected tags: \
             'document', 'image', 'redacted_thinking', 'search_result', 'text', 'thinking', \
             'tool_result', 'tool_use'"
        ))),
        (None, _) => Err(Refusal::required(&format!("{at}.type"))),
    }
}

fn image(block: &Value, at: &str) -> Checked<Part> {
    let at = format!("{at}.image.source");
    let source = &block["source"];
    match source["type"].as_str() {
        Some("base64") => {
            let kind = source["media_type"].as_str();
            let kind = kind.ok_or_else(|| Refusal::required(&format!("{at}.base64.media_type")))?;
            let data = source["data"].as_str();
            let data = data.ok_or_else(|| Refusal::required(&format!("{at}.base64.data")))?;
            let message = format!("{at}.base64: invalid base64 data or media type");
            prompt::image(kind, data).ok_or_else(|| Refusal::new(message))
        }
        Some("url") => match source["url"].as_str() {
            Some(url) if url.starts_with("https://") || url.starts_with("http://") => {
                Ok(Part::ImageAt(url.to_owned()))
            }
            Some(_) => Err(Refusal::new(format!("{at}.url.url: Only HTTP(S) URLs are supported."))),
            None => Err(Refusal::required(&format!("{at}.url.url"))),
        },
        _ => Err(Refusal::new(format!(
            "{at}: Input tag does not match any of the expected tags: 'base64', 'url'"
        ))),
    }
}

/// Text and images of a tool's result.
fn result(content: &Value, at: &str) -> Checked<(String, Vec<Part>)> {
    let at = format!("{at}.tool_result.content");
    match content {
        Value::Null => Ok((String::new(), Vec::new())),
        Value::String(text) => Ok((text.clone(), Vec::new())),
        Value::Array(blocks) => {
            let mut all = String::new();
            let mut images = Vec::new();
            for (index, block) in blocks.iter().enumerate() {
                let at = format!("{at}.{index}");
                match block["type"].as_str() {
                    Some("text") => all.push_str(&text(block, &format!("{at}.text"), "messages")?),
                    Some("image") => images.push(image(block, &at)?),
                    _ => {
                        return Err(Refusal::should_be(&format!("{at}.type"), "'text' or 'image'"));
                    }
                }
            }
            Ok((all, images))
        }
        _ => Err(Refusal::should_be(&at, "a valid string or list")),
    }
}

/// What every part of one answer says about itself.
struct Told {
    id: String,
    model: String,
}

/// Proof that a thought is the model's own.
const SIGNATURE: &str = "ZmFrZS1zaWduYXR1cmU=";

impl Told {
    fn whole(&self, answer: &Answer) -> Value {
        let mut content = Vec::new();
        if !answer.thinking.is_empty() {
            content.push(json!({
                "type": "thinking", "thinking": answer.thinking, "signature": SIGNATURE,
            }));
        }
        if !answer.text.is_empty() {
            content.push(json!({ "type": "text", "text": answer.text }));
        }
        for (index, call) in answer.calls.iter().enumerate() {
            let input: Value = serde_json::from_str(&call.arguments).expect("our own JSON");
            content.push(json!({
                "type": "tool_use", "id": self.call_id(index), "name": call.name, "input": input,
            }));
        }
        let (reason, sequence) = stop_reason(&answer.end);
        let mut usage = usage(answer);
        usage["output_tokens"] = answer.output_tokens.into();
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model,
            "content": content, "stop_reason": reason, "stop_sequence": sequence, "usage": usage,
        })
    }

    fn events(&self, answer: &Answer) -> Vec<String> {
        let mut events = Vec::new();
        let mut event = |value: Value| {
            let name = value["type"].as_str().unwrap_or_default();
            events.push(format!("event: {name}\ndata: {value}\n\n"));
        };
        let mut start_usage = usage(answer);
        start_usage["output_tokens"] = 1.into();
        event(json!({ "type": "message_start", "message": {
            "id": self.id, "type": "message", "role": "assistant", "model": self.model,
            "content": [], "stop_reason": null, "stop_sequence": null, "usage": start_usage,
        } }));
        let mut index = 0;
        let mut block = |start: Value, deltas: Vec<Value>| {
            event(json!({ "type": "content_block_start", "index": index, "content_block": start }));
            if index == 0 {
                event(json!({ "type": "ping" }));
            }
            for delta in deltas {
                event(json!({ "type": "content_block_delta", "index": index, "delta": delta }));
            }
            event(json!({ "type": "content_block_stop", "index": index }));
            index += 1;
        };
        if !answer.thinking.is_empty() {
            let thought = |text| json!({ "type": "thinking_delta", "thinking": text });
            let mut deltas: Vec<_> =
                answer::pieces(&answer.thinking).into_iter().map(thought).collect();
            deltas.push(json!({ "type": "signature_delta", "signature": SIGNATURE }));
            block(json!({ "type": "thinking", "thinking": "", "signature": "" }), deltas);
        }
        if !answer.text.is_empty() {
            let said = |text| json!({ "type": "text_delta", "text": text });
            let deltas = answer::pieces(&answer.text).into_iter().map(said).collect();
            block(json!({ "type": "text", "text": "" }), deltas);
        }
        for (at, call) in answer.calls.iter().enumerate() {
            let more = |json: &str| json!({ "type": "input_json_delta", "partial_json": json });
            // The service begins with nothing, and sends nothing else for a call without arguments.
            let mut deltas = vec![more("")];
            if call.arguments != "{}" {
                deltas.extend(answer::pieces(&call.arguments).iter().map(|piece| more(piece)));
            }
            let start = json!({
                "type": "tool_use", "id": self.call_id(at), "name": call.name, "input": {},
            });
            block(start, deltas);
        }
        let (reason, sequence) = stop_reason(&answer.end);
        event(json!({
            "type": "message_delta", "delta": { "stop_reason": reason, "stop_sequence": sequence },
            "usage": { "output_tokens": answer.output_tokens },
        }));
        event(json!({ "type": "message_stop" }));
        events
    }

    fn call_id(&self, index: usize) -> String {
        format!("toolu_{}_{index}", self.id.trim_start_matches("msg_"))
    }
}

fn stop_reason(end: &End) -> (&'static str, Option<&str>) {
    match end {
        End::Stop => ("end_turn", None),
        End::StopSequence(sequence) => ("stop_sequence", Some(sequence)),
        End::Length => ("max_tokens", None),
        End::Calls => ("tool_use", None),
        End::Filtered => ("refusal", None),
    }
}

/// Without the output.
fn usage(answer: &Answer) -> Value {
    json!({
        "input_tokens": answer.input_tokens, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": answer.cached_tokens, "output_tokens": 0,
        "service_tier": "standard",
    })
}
