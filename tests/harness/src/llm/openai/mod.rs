//! A provider that speaks OpenAI's APIs: Chat Completions, Responses and embeddings.

mod chat;
mod embeddings;
mod responses;
mod responses_events;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use serde_json::{Value, json};

use super::{
    answer::{Answer, MODELS},
    fake::{Fake, Models, Style, asked_before},
    fault::{Fault, Status},
    prompt::Prompt,
    schema,
    server::{Api, Reply, Request},
};

/// A fake OpenAI.
pub type OpenAi = Fake<Service>;

impl OpenAi {
    /// The keys that it takes.
    pub const KEYS: [&'static str; 2] = ["fake-openai-key-1", "fake-openai-key-2"];

    /// Starts one on a free port of loopback. It has a thread of its own, so that a test may block.
    pub fn start() -> Self {
        Self::serve("fake OpenAI", |models| Service { models, kept: Mutex::default() })
    }

    /// The address that clients are given; ends in `/v1`.
    pub fn base_url(&self) -> String {
        format!("{}/v1", self.origin())
    }
}

/// Its API.
#[derive(Debug)]
pub struct Service {
    models: Models,
    /// Items of the conversations that answers of the Responses API ended.
    kept: Mutex<HashMap<String, Vec<Value>>>,
}

const JSON: &str = "application/json";
const STYLE: Style = Style { json: JSON, stream: "text/event-stream; charset=utf-8", end_marks: 1 };

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
            ("POST", "/v1/responses") => self.respond(request, earlier),
            ("POST", "/v1/responses/input_tokens") => self.count(request, earlier),
            ("POST", "/v1/embeddings") => embeddings::embed(request, earlier),
            (method, path) => Err(Refusal {
                code: Some("unknown_url"),
                ..Refusal::plain(404, format!("Unknown request URL: {method} {path}."))
            }),
        }
    }

    fn complete(&self, request: &Request, earlier: &[Request]) -> Checked<Reply> {
        let (body, number) = (parse(request)?, earlier.len());
        let name = body["model"].as_str().unwrap_or_default();
        if let Some(reply) = fail(name, earlier) {
            return Ok(reply);
        }
        let prompt = chat::read(&body)?;
        let answer = self.answer_to(&prompt)?;
        let n = body["n"].as_u64().unwrap_or(1);
        let told = chat::Told { id: format!("chatcmpl-fake{number}"), model: name.to_owned(), n };
        let usage = body["stream_options"]["include_usage"] == true;
        let error = format!("data: {}\n\n", json!({ "error": broken() }));
        let events = || (told.events(&answer, usage), error);
        Ok(STYLE.send(&prompt, limits(number), || told.whole(&answer).to_string(), events))
    }

    fn respond(&self, request: &Request, earlier: &[Request]) -> Checked<Reply> {
        let (body, number) = (parse(request)?, earlier.len());
        let name = body["model"].as_str().unwrap_or_default();
        if let Some(reply) = fail(name, earlier) {
            return Ok(reply);
        }
        let before = self.before(&body["previous_response_id"])?;
        let (prompt, mut items) = responses::read(&body, before)?;
        let answer = self.answer_to(&prompt)?;
        let told = responses_events::Told::new(number, &body);
        let whole = told.whole(&answer);
        items.extend(whole["output"].as_array().into_iter().flatten().cloned());
        if body["store"] != false {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.insert(told.id.clone(), items);
        }
        let error = json!({ "type": "error", "sequence_number": 99, "error": broken() });
        let error = format!("event: error\ndata: {error}\n\n");
        let events = || (told.events(&answer), error);
        Ok(STYLE.send(&prompt, limits(number), || whole.to_string(), events))
    }

    /// The tokens of a request of Responses.
    fn count(&self, request: &Request, earlier: &[Request]) -> Checked<Reply> {
        let body = parse(request)?;
        let counted = [
            "conversation",
            "input",
            "instructions",
            "model",
            "parallel_tool_calls",
            "previous_response_id",
            "reasoning",
            "text",
            "tool_choice",
            "tools",
            "truncation",
        ];
        known(&body, &counted)?;
        if let Some(reply) = fail(body["model"].as_str().unwrap_or_default(), earlier) {
            return Ok(reply);
        }
        let before = self.before(&body["previous_response_id"])?;
        let (prompt, _) = responses::read(&body, before)?;
        self.answer_to(&prompt)?;
        let body = json!({ "object": "response.input_tokens", "input_tokens": prompt.tokens() });
        Ok(Reply::whole(200, limits(earlier.len()), JSON, body.to_string()))
    }

    /// The items before those of a request.
    fn before(&self, id: &Value) -> Checked<Vec<Value>> {
        let Some(id) = id.as_str() else { return Ok(Vec::new()) };
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(id).cloned().ok_or_else(|| {
            let message = format!("Previous response with id '{id}' not found.");
            Refusal::new("previous_response_id", "previous_response_not_found", message)
        })
    }

    fn answer_to(&self, prompt: &Prompt) -> Checked<Answer> {
        self.models.answer(prompt).ok_or_else(|| no_model(&prompt.model))
    }
}

/// What an error event in the middle of a stream says.
fn broken() -> Value {
    json!({
        "message": "The server had an error while processing your request. Sorry about that!",
        "type": "server_error", "param": null, "code": "server_error",
    })
}

fn parse(request: &Request) -> Checked<Value> {
    let content_type = request.header("content-type").unwrap_or_default();
    if !content_type.starts_with("application/json") {
        let message = format!(
            "Unsupported content type: '{content_type}'. This API method only accepts \
             'application/json' requests."
        );
        let code = Some("unsupported_content_type");
        return Err(Refusal { code, ..Refusal::plain(400, message) });
    }
    serde_json::from_slice(&request.body).map_err(|error| {
        Refusal::plain(400, format!("We could not parse the JSON body of your request: {error}"))
    })
}

/// A field that is none of these is refused.
fn known(body: &Value, fields: &[&str]) -> Checked<()> {
    let mut all = body.as_object().into_iter().flatten();
    let Some((unknown, _)) = all.find(|(key, _)| !fields.contains(&key.as_str())) else {
        return Ok(());
    };
    let message = format!("Unknown parameter: '{unknown}'.");
    Err(Refusal::new(unknown, "unknown_parameter", message))
}

/// The fault that the model's name stands for, unless it is over.
fn fail(name: &str, earlier: &[Request]) -> Option<Reply> {
    let fault = Fault::now(name, || asked_before(name, earlier))?;
    Some(fault.reply(|status| refuse(status, earlier.len())))
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

/// The error of this status.
fn refuse(status: &Status, number: usize) -> Reply {
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
    status.reply(headers, body.to_string())
}

/// A schema that is to be kept to strictly may leave nothing open.
fn strict(format: &Value, name: &str, at: &str) -> Checked<()> {
    let open = schema::open_object(&format["schema"]).filter(|_| format["strict"] == true);
    open.map_or(Ok(()), |place| {
        let message = format!(
            "Invalid schema for {at} '{name}': In context=('{place}'), 'additionalProperties' is \
             required to be supplied and to be false."
        );
        Err(Refusal::value(at, message))
    })
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
