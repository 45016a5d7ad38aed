//! A provider that speaks OpenAI's Chat Completions API.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};

use super::{
    answer::{self, Answer, End, MODELS, Script},
    fault::{self, Fault},
    prompt::{Choice, Part, Prompt, Role},
    server::{Api, Reply, Request, Sent, Server},
    stream,
};

/// A fake OpenAI.
#[derive(Debug)]
pub struct OpenAi {
    server: Server,
    fixed: Fixed,
}

/// Model → what it does.
type Fixed = Arc<Mutex<HashMap<String, Script>>>;

impl OpenAi {
    /// The keys that it takes.
    pub const KEYS: [&'static str; 2] = ["fake-openai-key-1", "fake-openai-key-2"];

    /// Starts one on a free port of loopback. It has a thread of its own, so that a test may block.
    pub fn start() -> Self {
        let fixed = Fixed::default();
        let server = Server::start("fake OpenAI", Service { fixed: Arc::clone(&fixed) });
        Self { server, fixed }
    }

    /// The address that clients are given; ends in `/v1`.
    pub fn base_url(&self) -> String {
        format!("{}/v1", self.server.origin())
    }

    /// From now on there is a model of this name that always answers with this text.
    pub fn says(&self, model: &str, text: &str) {
        let mut fixed = self.fixed.lock().unwrap_or_else(PoisonError::into_inner);
        fixed.insert(model.to_owned(), Script::Says(text.to_owned()));
    }

    /// From now on there is a model of this name that says this and calls a tool with these
    /// arguments; shown the result, it repeats it.
    pub fn calls(&self, model: &str, says: &str, tool: &str, arguments: &Value) {
        let mut fixed = self.fixed.lock().unwrap_or_else(PoisonError::into_inner);
        let script = Script::Calls(tool.to_owned(), arguments.to_string(), says.to_owned());
        fixed.insert(model.to_owned(), script);
    }

    /// Every request so far, in the order they came.
    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }

    /// The requests that the client gave up before the answer was out.
    pub fn cancelled(&self) -> Vec<Request> {
        self.server.cancelled()
    }
}

struct Service {
    fixed: Fixed,
}

const JSON: &str = "application/json";

/// Why a request gets no answer of a model.
#[derive(Debug)]
struct Refusal {
    status: u16,
    kind: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
    message: String,
}

impl Refusal {
    fn new(param: &str, code: &'static str, message: String) -> Self {
        let param = Some(param.to_owned());
        Self { status: 400, kind: "invalid_request_error", param, code: Some(code), message }
    }

    fn value(param: &str, message: impl Into<String>) -> Self {
        Self::new(param, "invalid_value", message.into())
    }

    fn kind(param: &str, expected: &str, found: &Value) -> Self {
        let message = format!(
            "Invalid type for '{param}': expected {expected}, but got {} instead.",
            kind_of(found)
        );
        Self::new(param, "invalid_type", message)
    }

    fn missing(param: &str) -> Self {
        let message = format!("Missing required parameter: '{param}'.");
        Self::new(param, "missing_required_parameter", message)
    }

    /// Without a parameter and a code.
    fn plain(status: u16, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, kind: "invalid_request_error", param: None, code: None, message }
    }

    fn body(&self) -> Value {
        json!({ "error": {
            "message": self.message, "type": self.kind, "param": self.param, "code": self.code,
        } })
    }
}

type Checked<T> = Result<T, Refusal>;

impl Api for Service {
    fn reply(&self, request: &Request, earlier: &[Request]) -> Reply {
        self.answer(request, earlier).unwrap_or_else(|refusal| {
            let body = format!("{:#}", refusal.body());
            Reply::whole(refusal.status, Vec::new(), JSON, body)
        })
    }
}

impl Service {
    fn answer(&self, request: &Request, earlier: &[Request]) -> Checked<Reply> {
        authorize(request)?;
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/v1/models") => {
                let entries: Vec<Value> = MODELS.iter().map(|name| model(name)).collect();
                let body = json!({ "object": "list", "data": entries });
                Ok(Reply::whole(200, Vec::new(), JSON, body.to_string()))
            }
            ("GET", path) if path.starts_with("/v1/models/") => {
                let name = path.trim_start_matches("/v1/models/");
                let known = MODELS.iter().find(|known| **known == name);
                let name = known.ok_or_else(|| no_model(name))?;
                Ok(Reply::whole(200, Vec::new(), JSON, model(name).to_string()))
            }
            ("POST", "/v1/chat/completions") => self.complete(request, earlier),
            (method, path) => Err(Refusal {
                code: Some("unknown_url"),
                ..Refusal::plain(404, format!("Unknown request URL: {method} {path}."))
            }),
        }
    }

    fn complete(&self, request: &Request, earlier: &[Request]) -> Checked<Reply> {
        let content_type = request.header("content-type").unwrap_or_default();
        if !content_type.starts_with("application/json") {
            let message = format!(
                "Unsupported content type: '{content_type}'. This API method only accepts \
                 'application/json' requests."
            );
            let code = Some("unsupported_content_type");
            return Err(Refusal { code, ..Refusal::plain(400, message) });
        }
        let body: Value = serde_json::from_slice(&request.body).map_err(|error| {
            Refusal::plain(
                400,
                format!("We could not parse the JSON body of your request: {error}"),
            )
        })?;
        let name = body["model"].as_str().unwrap_or_default();
        let number = earlier.len();
        if let Some(fault) = fault::of(name) {
            let before = earlier.iter().filter(|it| it.json()["model"] == name).count();
            if let Some(reply) = misbehave(&fault, before, number) {
                return Ok(reply);
            }
        }
        let prompt = read(&body)?;
        let answer = if fault::of(name).is_some() {
            // It has failed as often as it should.
            let echo = Prompt { model: "echo".to_owned(), ..prompt.clone() };
            answer::answer(&echo, &HashMap::new())
        } else {
            let fixed = self.fixed.lock().unwrap_or_else(PoisonError::into_inner);
            answer::answer(&prompt, &fixed)
        };
        let answer = answer.ok_or_else(|| no_model(name))?;
        let n = body["n"].as_u64().unwrap_or(1);
        let told = Told { id: format!("chatcmpl-fake{number}"), model: name.to_owned(), n };
        let mut headers = limits(number);
        let (steps, content_type) = if prompt.stream {
            let usage = body["stream_options"]["include_usage"] == true;
            let events = told.events(&answer, usage);
            let error = json!({ "error": {
                "message": "The server had an error while processing your request. Sorry about that!",
                "type": "server_error", "param": null, "code": null,
            } });
            let error = format!("data: {error}\n\n");
            (stream::events(name, events, 1, error), "text/event-stream; charset=utf-8")
        } else {
            let (steps, length) = stream::whole(name, told.whole(&answer).to_string());
            headers.push(("content-length", length.to_string()));
            (steps, JSON)
        };
        headers.push(("content-type", content_type.to_owned()));
        let delay = fault::delay(name, prompt.stream);
        Ok(Reply::Answer(Sent { status: 200, headers, delay, steps }))
    }
}

fn authorize(request: &Request) -> Checked<()> {
    let Some(header) = request.header("authorization") else {
        let message = "You didn't provide an API key. You need to provide your API key in an \
                       Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).";
        return Err(Refusal::plain(401, message));
    };
    let key = header.strip_prefix("Bearer ").unwrap_or_default();
    if OpenAi::KEYS.contains(&key) {
        return Ok(());
    }
    let message = format!("Incorrect API key provided: {}***.", key.get(..3).unwrap_or_default());
    Err(Refusal { code: Some("invalid_api_key"), ..Refusal::plain(401, message) })
}

fn no_model(name: &str) -> Refusal {
    let message = format!("The model `{name}` does not exist or you do not have access to it.");
    Refusal { code: Some("model_not_found"), ..Refusal::plain(404, message) }
}

fn model(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 1_686_935_002, "owned_by": "openai" })
}

/// Headers of every answer of a model.
fn limits(number: usize) -> Vec<(&'static str, String)> {
    vec![
        ("x-request-id", format!("req_fake_openai_{number}")),
        ("openai-version", "2020-10-01".to_owned()),
        ("openai-processing-ms", "12".to_owned()),
        ("x-ratelimit-limit-requests", "500".to_owned()),
        ("x-ratelimit-remaining-requests", "499".to_owned()),
        ("x-ratelimit-reset-requests", "120ms".to_owned()),
        ("x-ratelimit-limit-tokens", "30000".to_owned()),
        ("x-ratelimit-remaining-tokens", "29000".to_owned()),
        ("x-ratelimit-reset-tokens", "2ms".to_owned()),
    ]
}

/// Nothing when the fault is over.
fn misbehave(fault: &Fault, before: usize, number: usize) -> Option<Reply> {
    let status = match fault {
        Fault::Silence => return Some(Reply::Silence),
        Fault::Drop => return Some(Reply::Drop),
        Fault::Status(status) => status,
    };
    if status.is_over(before) {
        return None;
    }
    let error = |kind: &'static str, code: Option<&'static str>, message: &str| {
        let message = message.to_owned();
        Refusal { status: status.code, kind, param: None, code, message }.body()
    };
    let request = "invalid_request_error";
    let body = match status.code {
        400 => Refusal::new(
            "messages",
            "context_length_exceeded",
            "This model's maximum context length is 8192 tokens. However, your messages resulted \
             in 9001 tokens. Please reduce the length of the messages."
                .to_owned(),
        )
        .body(),
        401 => error(request, Some("invalid_api_key"), "Incorrect API key provided."),
        403 => {
            error(request, Some("unsupported_country_region_territory"), "Country not supported")
        }
        404 => error(request, Some("model_not_found"), "The model does not exist."),
        429 => error(
            "requests",
            Some("rate_limit_exceeded"),
            "Rate limit reached for requests. Limit: 3 / min. Please try again in 7s.",
        ),
        503 | 529 => error("server_error", None, "The engine is currently overloaded."),
        _ => error("server_error", None, "The server had an error processing your request."),
    };
    let mut headers = limits(number);
    if matches!(status.code, 429 | 503 | 529) && status.retry_after {
        headers.push(("retry-after", "7".to_owned()));
        headers.push(("retry-after-ms", "7000".to_owned()));
    }
    Some(status.reply(headers, body.to_string()))
}

/// Parameters that the API knows.
const PARAMETERS: [&str; 37] = [
    "model",
    "messages",
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "modalities",
    "moderation",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];

/// Checks a request as the API does and takes from it what a model sees.
fn read(body: &Value) -> Checked<Prompt> {
    let fields = body.as_object().ok_or_else(|| {
        Refusal::plain(400, "We could not parse the JSON body of your request: not an object.")
    })?;
    let name = body["model"].as_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Refusal::plain(400, "you must provide a model parameter"))?;
    if let Some(unknown) = fields.keys().find(|key| !PARAMETERS.contains(&key.as_str())) {
        let message = format!("Unknown parameter: '{unknown}'.");
        return Err(Refusal::new(unknown, "unknown_parameter", message));
    }
    let mut prompt = Prompt { model: name.to_owned(), parallel: true, ..Prompt::default() };
    prompt.stream = boolean(body, "stream")?.unwrap_or(false);
    prompt.temperature = number(body, "temperature", 0.0, 2.0)?;
    prompt.top_p = number(body, "top_p", 0.0, 1.0)?;
    number(body, "frequency_penalty", -2.0, 2.0)?;
    number(body, "presence_penalty", -2.0, 2.0)?;
    integer(body, "n")?;
    let tokens = [integer(body, "max_tokens")?, integer(body, "max_completion_tokens")?];
    if tokens.iter().all(Option::is_some) {
        let message =
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.";
        return Err(Refusal::value("max_tokens", message));
    }
    prompt.max_tokens = tokens.into_iter().flatten().next();
    prompt.stop = stops(&body["stop"])?;
    if !body["stream_options"].is_null() && !prompt.stream {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(Refusal::value("stream_options", message));
    }
    let format = &body["response_format"]["type"];
    if !format.is_null() && !["text", "json_object", "json_schema"].iter().any(|it| format == it) {
        return Err(Refusal::value("response_format.type", format!("Invalid value: {format}.")));
    }
    tools(body, &mut prompt)?;
    messages(&body["messages"], &mut prompt)?;
    Ok(prompt)
}

fn boolean(body: &Value, name: &str) -> Checked<Option<bool>> {
    match &body[name] {
        Value::Null => Ok(None),
        Value::Bool(value) => Ok(Some(*value)),
        other => Err(Refusal::kind(name, "a boolean", other)),
    }
}

fn number(body: &Value, name: &str, least: f64, most: f64) -> Checked<Option<f64>> {
    let value = &body[name];
    if value.is_null() {
        return Ok(None);
    }
    let number = value.as_f64().ok_or_else(|| Refusal::kind(name, "a decimal", value))?;
    let (code, bound) = if number < least {
        ("decimal_below_min_value", format!("below minimum value. Expected a value >= {least}"))
    } else if number > most {
        ("decimal_above_max_value", format!("above maximum value. Expected a value <= {most}"))
    } else {
        return Ok(Some(number));
    };
    let message = format!("Invalid '{name}': decimal {bound}, but got {number} instead.");
    Err(Refusal::new(name, code, message))
}

fn integer(body: &Value, name: &str) -> Checked<Option<u64>> {
    let value = &body[name];
    if value.is_null() {
        return Ok(None);
    }
    let number = value.as_i64().ok_or_else(|| Refusal::kind(name, "an integer", value))?;
    u64::try_from(number).ok().filter(|number| *number >= 1).map(Some).ok_or_else(|| {
        let message = format!(
            "Invalid '{name}': integer below minimum value. Expected a value >= 1, but got \
             {number} instead."
        );
        Refusal::new(name, "integer_below_min_value", message)
    })
}

fn stops(value: &Value) -> Checked<Vec<String>> {
    let texts = match value {
        Value::Null => return Ok(Vec::new()),
        Value::String(text) => return Ok(vec![text.clone()]),
        Value::Array(texts) => texts,
        other => return Err(Refusal::kind("stop", "a string or an array of strings", other)),
    };
    if texts.len() > 4 {
        let message = format!(
            "Invalid 'stop': array too long. Expected an array with maximum length 4, but got an \
             array with length {} instead.",
            texts.len()
        );
        return Err(Refusal::new("stop", "array_above_max_length", message));
    }
    let text = |text: &Value| text.as_str().map(str::to_owned);
    texts
        .iter()
        .map(|value| text(value).ok_or_else(|| Refusal::kind("stop", "a string", value)))
        .collect()
}

/// `^[a-zA-Z0-9_-]{1,64}$`
fn is_name(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(fine)
}

fn function_name<'a>(value: &'a Value, at: &str) -> Checked<&'a str> {
    let at = format!("{at}.name");
    let name = match value {
        Value::Null => return Err(Refusal::missing(&at)),
        value => value.as_str().ok_or_else(|| Refusal::kind(&at, "a string", value))?,
    };
    if is_name(name) {
        return Ok(name);
    }
    let message = format!(
        "Invalid '{at}': string does not match pattern. Expected a string that matches the \
         pattern '^[a-zA-Z0-9_-]+$'."
    );
    Err(Refusal::value(&at, message))
}

fn tools(body: &Value, prompt: &mut Prompt) -> Checked<()> {
    let list = match &body["tools"] {
        Value::Null => {
            for name in ["tool_choice", "parallel_tool_calls"] {
                if !body[name].is_null() {
                    let message = format!("'{name}' is only allowed when 'tools' are specified.");
                    let message = format!("Invalid value for '{name}': {message}");
                    return Err(Refusal::value(name, message));
                }
            }
            return Ok(());
        }
        Value::Array(list) => list,
        other => return Err(Refusal::kind("tools", "an array of objects", other)),
    };
    if list.is_empty() {
        let message = "Invalid 'tools': empty array. Expected an array with minimum length 1, but \
                       got an empty array instead.";
        return Err(Refusal::new("tools", "empty_array", message.to_owned()));
    }
    for (index, tool) in list.iter().enumerate() {
        let at = format!("tools[{index}]");
        if tool["type"] != "function" {
            return Err(Refusal::value(
                &format!("{at}.type"),
                format!("Invalid value: {}.", tool["type"]),
            ));
        }
        let function = &tool["function"];
        if !function.is_object() {
            return Err(Refusal::missing(&format!("{at}.function")));
        }
        let name = function_name(&function["name"], &format!("{at}.function"))?;
        let parameters = &function["parameters"];
        if !parameters.is_null() && parameters["type"] != "object" {
            let message = format!(
                "Invalid schema for function '{name}': schema must be a JSON Schema of 'type: \
                 \"object\"', got 'type: {}'.",
                parameters["type"]
            );
            let at = format!("{at}.function.parameters");
            return Err(Refusal::new(&at, "invalid_function_parameters", message));
        }
        prompt.tools.push(name.to_owned());
    }
    prompt.parallel = boolean(body, "parallel_tool_calls")?.unwrap_or(true);
    prompt.choice = match &body["tool_choice"] {
        Value::Null => Choice::Auto,
        Value::String(text) if text == "auto" => Choice::Auto,
        Value::String(text) if text == "none" => Choice::Never,
        Value::String(text) if text == "required" => Choice::Any,
        choice @ Value::Object(_) if choice["type"] == "function" => {
            let name = function_name(&choice["function"]["name"], "tool_choice.function")?;
            if !prompt.tools.iter().any(|tool| tool == name) {
                let message = format!("Tool choice 'function' not found in 'tools': {name}");
                return Err(Refusal::value("tool_choice", message));
            }
            Choice::Tool(name.to_owned())
        }
        other => return Err(Refusal::value("tool_choice", format!("Invalid value: {other}."))),
    };
    Ok(())
}

fn messages(value: &Value, prompt: &mut Prompt) -> Checked<()> {
    let list = match value {
        Value::Null => return Err(Refusal::missing("messages")),
        Value::Array(list) => list,
        other => return Err(Refusal::kind("messages", "an array of objects", other)),
    };
    if list.is_empty() {
        let message = "Invalid 'messages': empty array. Expected an array with minimum length 1, \
                       but got an empty array instead.";
        return Err(Refusal::new("messages", "empty_array", message.to_owned()));
    }
    // Calls of the last assistant message that have no result yet, and the names of all calls.
    let mut open = BTreeSet::<String>::new();
    let mut names = HashMap::<String, String>::new();
    let unanswered = |open: &BTreeSet<String>, index: usize| {
        let ids: Vec<&str> = open.iter().map(String::as_str).collect();
        let message = format!(
            "An assistant message with 'tool_calls' must be followed by tool messages responding \
             to each 'tool_call_id'. The following tool_call_ids did not have response messages: {}",
            ids.join(", ")
        );
        let param = Some(format!("messages.[{index}].role"));
        Err(Refusal { param, ..Refusal::plain(400, message) })
    };
    for (index, message) in list.iter().enumerate() {
        let at = format!("messages[{index}]");
        let role = message["role"].as_str();
        let role = role.ok_or_else(|| Refusal::missing(&format!("{at}.role")))?;
        if role != "tool" && !open.is_empty() {
            return unanswered(&open, index);
        }
        match role {
            "system" | "developer" => prompt.system.push(plain(&message["content"], &at)?),
            "user" => {
                let parts = content(&message["content"], &at)?;
                prompt.push(Role::User, parts);
            }
            "assistant" => {
                let mut parts = Vec::new();
                let calls = calls(&message["tool_calls"], &at)?;
                if !message["content"].is_null() {
                    let text = plain(&message["content"], &at)?;
                    parts.extend((!text.is_empty()).then_some(Part::Text(text)));
                } else if calls.is_empty() {
                    let message =
                        "Invalid value for 'content': expected a string, got null.".to_owned();
                    return Err(Refusal::value(&format!("{at}.content"), message));
                }
                for (id, name, arguments) in calls {
                    open.insert(id.clone());
                    names.insert(id, name.clone());
                    parts.push(Part::Call { name, arguments });
                }
                prompt.push(Role::Assistant, parts);
            }
            "tool" => {
                let id = message["tool_call_id"].as_str();
                let id = id.ok_or_else(|| Refusal::missing(&format!("{at}.tool_call_id")))?;
                if !open.remove(id) {
                    let message = "Invalid parameter: messages with role 'tool' must be a response \
                                   to a preceeding message with 'tool_calls'.";
                    let param = Some(format!("messages.[{index}].role"));
                    return Err(Refusal { param, ..Refusal::plain(400, message) });
                }
                let text = plain(&message["content"], &at)?;
                prompt.push(Role::User, vec![Part::Result { name: names[id].clone(), text }]);
            }
            other => {
                let message = format!(
                    "Invalid value: '{other}'. Supported values are: 'system', 'assistant', \
                     'user', 'function', 'tool', and 'developer'."
                );
                return Err(Refusal::value(&format!("{at}.role"), message));
            }
        }
    }
    if open.is_empty() { Ok(()) } else { unanswered(&open, list.len()) }
}

/// Content that holds text only.
fn plain(value: &Value, at: &str) -> Checked<String> {
    let parts = content(value, at)?;
    let mut text = String::new();
    for (index, part) in parts.into_iter().enumerate() {
        let Part::Text(part) = part else {
            let at = format!("{at}.content[{index}].type");
            return Err(Refusal::value(
                &at,
                "Invalid value: 'image_url'. Supported values are: 'text'.",
            ));
        };
        text.push_str(&part);
    }
    Ok(text)
}

fn content(value: &Value, at: &str) -> Checked<Vec<Part>> {
    let at = format!("{at}.content");
    let parts = match value {
        Value::String(text) => return Ok(vec![Part::Text(text.clone())]),
        Value::Array(parts) if !parts.is_empty() => parts,
        Value::Array(_) => {
            let message = format!("Invalid '{at}': empty array.");
            return Err(Refusal::new(&at, "empty_array", message));
        }
        Value::Null => {
            let message = "Invalid value for 'content': expected a string, got null.";
            return Err(Refusal::value(&at, message));
        }
        other => {
            return Err(Refusal::kind(&at, "one of a string or array of objects", other));
        }
    };
    let part = |(index, part): (usize, &Value)| {
        let at = format!("{at}[{index}]");
        match part["type"].as_str() {
            Some("text") => match part["text"].as_str() {
                Some(text) => Ok(Part::Text(text.to_owned())),
                None => Err(Refusal::missing(&format!("{at}.text"))),
            },
            Some("image_url") => image(&part["image_url"], &at),
            Some(other) => Err(Refusal::value(
                &format!("{at}.type"),
                format!(
                    "Invalid value: '{other}'. Supported values are: 'text', 'image_url', \
                     'input_audio', 'refusal', 'audio', and 'file'."
                ),
            )),
            None => Err(Refusal::missing(&format!("{at}.type"))),
        }
    };
    parts.iter().enumerate().map(part).collect()
}

fn image(value: &Value, at: &str) -> Checked<Part> {
    let at = format!("{at}.image_url");
    if value.is_string() {
        return Err(Refusal::kind(&at, "an object", value));
    }
    let url = value["url"].as_str().ok_or_else(|| Refusal::missing(&format!("{at}.url")))?;
    let detail = &value["detail"];
    if !detail.is_null() && !["auto", "low", "high"].iter().any(|it| detail == it) {
        return Err(Refusal::value(&format!("{at}.detail"), format!("Invalid value: {detail}.")));
    }
    if url.starts_with("https://") || url.starts_with("http://") {
        return Ok(Part::ImageAt(url.to_owned()));
    }
    let inline = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    let image = inline.and_then(|(kind, data)| super::prompt::image(kind, data));
    image.ok_or_else(|| {
        let message = "Invalid base64 image_url, or not one of image/png, image/jpeg, image/gif, \
                       and image/webp.";
        Refusal::new(&format!("{at}.url"), "invalid_base64", message.to_owned())
    })
}

/// Id, name and arguments of each call.
fn calls(value: &Value, at: &str) -> Checked<Vec<(String, String, Value)>> {
    let at = format!("{at}.tool_calls");
    let calls = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(calls) if !calls.is_empty() => calls,
        Value::Array(_) => {
            let message = format!("Invalid '{at}': empty array.");
            return Err(Refusal::new(&at, "empty_array", message));
        }
        other => return Err(Refusal::kind(&at, "an array of objects", other)),
    };
    let call = |(index, call): (usize, &Value)| {
        let at = format!("{at}[{index}]");
        let id = call["id"].as_str().ok_or_else(|| Refusal::missing(&format!("{at}.id")))?;
        if call["type"] != "function" {
            return Err(Refusal::missing(&format!("{at}.type")));
        }
        let function = format!("{at}.function");
        let name = function_name(&call["function"]["name"], &function)?;
        let at = format!("{function}.arguments");
        let arguments = &call["function"]["arguments"];
        let text = arguments.as_str().ok_or_else(|| Refusal::kind(&at, "a string", arguments))?;
        // Models write what they like here, and the API takes it back as it is.
        let arguments = serde_json::from_str(text).unwrap_or_else(|_| text.into());
        Ok((id.to_owned(), name.to_owned(), arguments))
    };
    calls.iter().enumerate().map(call).collect()
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// What every part of one answer says about itself.
struct Told {
    id: String,
    model: String,
    /// Choices.
    n: u64,
}

impl Told {
    fn whole(&self, answer: &Answer) -> Value {
        let calls: Vec<Value> = answer
            .calls
            .iter()
            .enumerate()
            .map(|(index, call)| {
                json!({
                    "id": self.call_id(index), "type": "function",
                    "function": { "name": call.name, "arguments": call.arguments },
                })
            })
            .collect();
        let mut message = json!({
            "role": "assistant", "content": answer.text, "refusal": null, "annotations": [],
        });
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        if !answer.thinking.is_empty() {
            message["reasoning_content"] = answer.thinking.clone().into();
        }
        let choice = |index: u64| {
            json!({
                "index": index, "message": message, "logprobs": null,
                "finish_reason": finish_reason(&answer.end),
            })
        };
        json!({
            "id": self.id, "object": "chat.completion", "created": 1_795_305_216_u64,
            "model": self.model, "choices": (0..self.n).map(choice).collect::<Vec<_>>(),
            "usage": usage(answer), "service_tier": "default", "system_fingerprint": "fp_fake",
        })
    }

    fn events(&self, answer: &Answer, with_usage: bool) -> Vec<String> {
        let mut events = Vec::new();
        for index in 0..self.n {
            let mut delta = |delta: Value, end: Option<&str>| {
                let choice = json!({
                    "index": index, "delta": delta, "logprobs": null, "finish_reason": end,
                });
                events.push(self.chunk(&json!([choice]), with_usage.then_some(Value::Null)));
            };
            delta(json!({ "role": "assistant", "content": "", "refusal": null }), None);
            for piece in answer::pieces(&answer.thinking) {
                delta(json!({ "reasoning_content": piece }), None);
            }
            for piece in answer::pieces(&answer.text) {
                delta(json!({ "content": piece }), None);
            }
            for (at, call) in answer.calls.iter().enumerate() {
                let begin = json!({
                    "index": at, "id": self.call_id(at), "type": "function",
                    "function": { "name": call.name, "arguments": "" },
                });
                delta(json!({ "tool_calls": [begin] }), None);
                for piece in answer::pieces(&call.arguments) {
                    let more = json!({ "index": at, "function": { "arguments": piece } });
                    delta(json!({ "tool_calls": [more] }), None);
                }
            }
            delta(json!({}), Some(finish_reason(&answer.end)));
        }
        if with_usage {
            events.push(self.chunk(&json!([]), Some(usage(answer))));
        }
        events.push("data: [DONE]\n\n".to_owned());
        events
    }

    fn chunk(&self, choices: &Value, usage: Option<Value>) -> String {
        let mut chunk = json!({
            "id": self.id, "object": "chat.completion.chunk", "created": 1_795_305_216_u64,
            "model": self.model, "service_tier": "default", "system_fingerprint": "fp_fake",
            "choices": choices,
        });
        if let Some(usage) = usage {
            chunk["usage"] = usage;
        }
        chunk["obfuscation"] = "qX3".into();
        format!("data: {chunk}\n\n")
    }

    fn call_id(&self, index: usize) -> String {
        format!("call_{}_{index}", self.id.trim_start_matches("chatcmpl-"))
    }
}

fn finish_reason(end: &End) -> &'static str {
    match end {
        End::Stop | End::StopSequence(_) => "stop",
        End::Length => "length",
        End::Calls => "tool_calls",
        End::Filtered => "content_filter",
    }
}

fn usage(answer: &Answer) -> Value {
    let prompt = answer.input_tokens + answer.cached_tokens;
    let thinking = answer::pieces(&answer.thinking).len();
    json!({
        "prompt_tokens": prompt, "completion_tokens": answer.output_tokens,
        "total_tokens": prompt + answer.output_tokens,
        "prompt_tokens_details": { "cached_tokens": answer.cached_tokens, "audio_tokens": 0 },
        "completion_tokens_details": {
            "reasoning_tokens": thinking, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    })
}
