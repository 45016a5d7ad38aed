//! A server like Ollama, with its own API and the part of OpenAI's that it has.
//!
//! It passes over fields that it does not know, as Ollama does, and over some of OpenAI's that it does
//! know by name (`tool_choice`, `parallel_tool_calls`, `n`, `logit_bias`).

mod native;
mod openai;

use serde_json::{Map, Value, json};

use super::{
    answer::MODELS,
    fake::{Fake, Models, Style, asked_before},
    fault::{Fault, Status},
    prompt::{self, Part, Prompt},
    server::{Api, Reply, Request},
};

/// A fake Ollama.
pub type Ollama = Fake<Service>;

impl Ollama {
    /// The keys that it takes, as Ollama's cloud does; without one it is a server of the user's own.
    pub const KEYS: [&'static str; 2] = ["fake-ollama-key-1", "fake-ollama-key-2"];

    /// Starts one on a free port of loopback. Its own clients are given its origin.
    pub fn start() -> Self {
        Self::serve("fake Ollama", |models| Service { models })
    }

    /// The address of the part of OpenAI's API that it has; ends in `/v1`.
    pub fn base_url(&self) -> String {
        format!("{}/v1", self.origin())
    }
}

/// Its API.
#[derive(Debug)]
pub struct Service {
    models: Models,
}

const JSON: &str = "application/json; charset=utf-8";
/// What is known of a model, in every list and answer.
const MODIFIED: &str = "2026-10-01T10:11:12.123456789+02:00";

/// Why a request gets no answer of a model.
#[derive(Debug)]
struct Refusal {
    status: u16,
    message: String,
}

impl Refusal {
    fn new(message: impl Into<String>) -> Self {
        Self { status: 400, message: message.into() }
    }

    fn of(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// A field of another type, in the words of Go's JSON reader.
    fn kind(field: &str, wanted: &str, found: &Value) -> Self {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        Self::new(format!(
            "json: cannot unmarshal {found} into Go struct field {field} of type {wanted}"
        ))
    }

    /// Its body in the API that this path belongs to.
    fn body(&self, path: &str) -> String {
        if !path.starts_with("/v1/") {
            return json!({ "error": self.message }).to_string();
        }
        let kind = match self.status {
            400 => "invalid_request_error",
            404 => "not_found_error",
            _ => "api_error",
        };
        let error = json!({ "message": self.message, "type": kind, "param": null, "code": null });
        json!({ "error": error }).to_string()
    }
}

type Checked<T> = Result<T, Refusal>;

impl Api for Service {
    fn reply(&self, request: &Request, earlier: &[Request]) -> Reply {
        self.answer(request, earlier).unwrap_or_else(|refusal| {
            Reply::whole(refusal.status, Vec::new(), JSON, refusal.body(&request.path))
        })
    }
}

impl Service {
    fn answer(&self, request: &Request, earlier: &[Request]) -> Checked<Reply> {
        authorize(request)?;
        let whole = |body: Value| Ok(Reply::whole(200, Vec::new(), JSON, body.to_string()));
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/api/version") => whole(json!({ "version": "0.12.0" })),
            ("GET", "/api/tags") => whole(json!({ "models": MODELS.map(native::tag) })),
            ("GET", "/v1/models") => {
                whole(json!({ "object": "list", "data": MODELS.map(openai::model) }))
            }
            ("GET", path) if path.starts_with("/v1/models/") => {
                let name = path.trim_start_matches("/v1/models/");
                whole(openai::model(known(name)?))
            }
            ("POST", "/api/show") => whole(native::show(&parse(request)?)?),
            ("POST", path @ ("/api/embed" | "/v1/embeddings")) => {
                let body = parse(request)?;
                if let Some(reply) = fail(model_of(&body)?, request, earlier) {
                    return Ok(reply);
                }
                let is_own = path == "/api/embed";
                whole(if is_own { native::embed(&body)? } else { openai::embed(&body)? })
            }
            ("POST", "/api/chat") => self.say(request, earlier, native::Route::Chat),
            ("POST", "/api/generate") => self.say(request, earlier, native::Route::Generate),
            ("POST", "/v1/chat/completions") => self.complete(request, earlier),
            _ => Err(Refusal::of(404, "404 page not found")),
        }
    }

    fn say(&self, request: &Request, earlier: &[Request], route: native::Route) -> Checked<Reply> {
        let body = parse(request)?;
        let name = model_of(&body)?;
        if let Some(reply) = fail(name, request, earlier) {
            return Ok(reply);
        }
        let prompt = native::read(&body, route)?;
        let told = native::Told { model: name.to_owned(), route, body: &body };
        if told.only_loads() {
            known(&prompt.model)?;
            return Ok(Reply::whole(200, Vec::new(), JSON, told.loaded().to_string()));
        }
        let answer = self.models.answer(&prompt).ok_or_else(|| no_model(name))?;
        let events = || {
            let error = json!({ "error": "an error was encountered while running the model" });
            (told.lines(&answer), format!("{error}\n"))
        };
        // The last line is its end mark, too: it says why the answer ended.
        let style = Style { json: JSON, stream: "application/x-ndjson", end_marks: 1 };
        Ok(style.send(&prompt, Vec::new(), || told.whole(&answer).to_string(), events))
    }

    fn complete(&self, request: &Request, earlier: &[Request]) -> Checked<Reply> {
        let body = parse(request)?;
        let name = model_of(&body)?;
        if let Some(reply) = fail(name, request, earlier) {
            return Ok(reply);
        }
        let prompt = openai::read(&body)?;
        let answer = self.models.answer(&prompt).ok_or_else(|| no_model(name))?;
        let usage = body["stream_options"]["include_usage"] == true;
        let told =
            openai::Told { id: format!("chatcmpl-{}", earlier.len()), model: name.to_owned() };
        let events = || {
            let refusal = Refusal::of(500, "an error was encountered while running the model");
            (told.events(&answer, usage), format!("data: {}\n\n", refusal.body("/v1/")))
        };
        let style = Style { json: "application/json", stream: "text/event-stream", end_marks: 1 };
        Ok(style.send(&prompt, Vec::new(), || told.whole(&answer).to_string(), events))
    }
}

fn authorize(request: &Request) -> Checked<()> {
    let key = request.header("authorization").and_then(|it| it.strip_prefix("Bearer "));
    match key {
        Some(key) if !Ollama::KEYS.contains(&key) => Err(Refusal::of(401, "unauthorized")),
        Some(_) | None => Ok(()),
    }
}

fn parse(request: &Request) -> Checked<Value> {
    if request.body.is_empty() {
        return Err(Refusal::new("missing request body"));
    }
    serde_json::from_slice(&request.body).map_err(|error| Refusal::new(error.to_string()))
}

fn model_of(body: &Value) -> Checked<&str> {
    let model = &body["model"];
    if model.is_null() || model == "" {
        return Err(Refusal::new("model is required"));
    }
    model.as_str().ok_or_else(|| Refusal::kind("ChatRequest.model", "string", model))
}

/// A name without the tag that stands for itself.
fn bare(model: &str) -> &str {
    model.strip_suffix(":latest").unwrap_or(model)
}

fn known(model: &str) -> Checked<&'static str> {
    MODELS.into_iter().find(|known| *known == bare(model)).ok_or_else(|| no_model(model))
}

fn no_model(name: &str) -> Refusal {
    Refusal::of(404, format!("model '{name}' not found"))
}

/// The fault that the model's name stands for, unless it is over.
fn fail(name: &str, request: &Request, earlier: &[Request]) -> Option<Reply> {
    let fault = Fault::now(bare(name), || asked_before(name, earlier))?;
    Some(fault.reply(|status| refuse(status, request)))
}

/// The error of this status; limits and keys are those of a proxy before Ollama, or of its cloud.
fn refuse(status: &Status, request: &Request) -> Reply {
    let message = match status.code {
        400 => "the prompt is too long: it exceeds the context length of the model",
        401 => "unauthorized",
        403 => "this model requires a subscription, upgrade for access",
        404 => "model 'gone' not found",
        413 => "request body too large",
        429 => "you have reached your hourly usage limit",
        503 => "server busy, please try again.  maximum pending requests exceeded",
        _ => "an error was encountered while running the model",
    };
    let mut headers = Vec::new();
    if matches!(status.code, 429 | 503 | 529) && status.retry_after {
        headers.push(("retry-after", "7".to_owned()));
    }
    status.reply(headers, Refusal::of(status.code, message).body(&request.path))
}

/// Names and schemas of the tools.
fn tools(body: &Value, prompt: &mut Prompt) -> Checked<()> {
    for tool in list(body, "tools", "ChatRequest.tools", "api.Tools")? {
        let function = &tool["function"];
        let name = function["name"].as_str();
        let name = name.ok_or_else(|| Refusal::kind("ToolFunction.name", "string", function))?;
        prompt.schemas.insert(name.to_owned(), function["parameters"].clone());
        prompt.tools.push(name.to_owned());
    }
    // One answer may always hold several calls.
    prompt.parallel = true;
    Ok(())
}

/// What the answer's text must be like.
fn format(value: &Value) -> Checked<Option<Value>> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) if text == "json" => Ok(Some(Value::Null)),
        Value::Object(_) => Ok(Some(value.clone())),
        other => Err(Refusal::new(format!(
            "invalid format: {other}; expected \"json\" or a valid JSON Schema object"
        ))),
    }
}

fn image(data: &str) -> Checked<Part> {
    let kinds = [("iVBOR", "image/png"), ("/9j/", "image/jpeg"), ("UklGR", "image/webp")];
    let kind = kinds.iter().find(|(beginning, _)| data.starts_with(beginning));
    let part = kind.and_then(|(_, kind)| prompt::image(kind, data));
    part.ok_or_else(|| Refusal::new("illegal base64 data at input byte 0"))
}

fn list<'a>(body: &'a Value, field: &str, at: &str, kind: &str) -> Checked<&'a [Value]> {
    match &body[field] {
        Value::Null => Ok(&[]),
        Value::Array(list) => Ok(list),
        other => Err(Refusal::kind(at, kind, other)),
    }
}

fn boolean(body: &Value, field: &str) -> Checked<Option<bool>> {
    match &body[field] {
        Value::Null => Ok(None),
        Value::Bool(value) => Ok(Some(*value)),
        other => Err(Refusal::kind(&format!("ChatRequest.{field}"), "bool", other)),
    }
}

/// Arguments of a call as the object that a model is shown.
fn arguments(value: &Value) -> Value {
    match value {
        Value::Object(_) => value.clone(),
        _ => Value::Object(Map::new()),
    }
}

/// The model of a request for embeddings, a vector of each of its texts, and the words of all.
fn embedded(body: &Value) -> Checked<(&str, Vec<Vec<f32>>, usize)> {
    let name = model_of(body)?;
    known(name)?;
    let texts: Vec<&str> = match &body["input"] {
        Value::String(text) => vec![text],
        Value::Array(texts) if texts.iter().all(Value::is_string) => {
            texts.iter().filter_map(Value::as_str).collect()
        }
        _ => return Err(Refusal::new("invalid input type")),
    };
    if texts.is_empty() || texts.contains(&"") {
        return Err(Refusal::new("invalid input"));
    }
    let most = body["dimensions"].as_u64().and_then(|most| usize::try_from(most).ok());
    let vectors = texts.iter().map(|text| {
        let mut vector = prompt::vector(text).to_vec();
        vector.truncate(most.unwrap_or(vector.len()));
        vector
    });
    let words = texts.iter().map(|text| text.split_whitespace().count()).sum();
    Ok((name, vectors.collect(), words))
}
