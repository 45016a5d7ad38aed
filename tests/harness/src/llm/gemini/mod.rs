//! A provider that speaks Google's Gemini API.

mod embed;
mod read;
mod write;

use serde_json::{Value, json};

use super::{
    answer::MODELS,
    fake::{Fake, Models, Style},
    fault::{Fault, Status},
    server::{Api, Reply, Request},
};
use write::Told;

/// A fake Gemini.
pub type Gemini = Fake<Service>;

impl Gemini {
    /// The keys that it takes.
    pub const KEYS: [&'static str; 2] = ["fake-gemini-key-1", "fake-gemini-key-2"];

    /// Starts one on a free port of loopback. Its SDKs are given its origin: they append `/v1beta`.
    pub fn start() -> Self {
        Self::serve("fake Gemini", |models| Service { models })
    }

    /// The address that a gateway's configuration names; ends in `/v1beta`.
    pub fn base_url(&self) -> String {
        format!("{}/v1beta", self.origin())
    }
}

impl Request {
    /// The model that the path of a request in Gemini's protocol names.
    pub fn gemini_model(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("/v1beta/models/")?;
        Some(rest.rsplit_once(':').map_or(rest, |(model, _)| model))
    }
}

/// Its API.
#[derive(Debug)]
pub struct Service {
    models: Models,
}

/// Google's servers say so, too.
const JSON: &str = "application/json; charset=UTF-8";
/// There is no end mark: the last event says why the answer ended.
const STYLE: Style = Style { json: JSON, stream: "text/event-stream", end_marks: 0 };

/// Why a request gets no answer of a model.
#[derive(Debug)]
struct Refusal {
    status: u16,
    message: String,
    details: Vec<Value>,
}

impl Refusal {
    fn new(message: impl Into<String>) -> Self {
        Self::of(400, message)
    }

    fn of(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), details: Vec::new() }
    }

    /// A field that the API does not know.
    fn unknown(name: &str, at: &str) -> Self {
        let at = if at.is_empty() { String::new() } else { format!(" at '{at}'") };
        Self::new(format!(
            "Invalid JSON payload received. Unknown name \"{name}\"{at}: Cannot find field."
        ))
    }

    /// A field of another type.
    fn kind(at: &str, expected: &str, found: &Value) -> Self {
        Self::new(format!("Invalid value at '{at}' ({expected}), {found}"))
    }

    fn body(&self) -> Value {
        let status = match self.status {
            400 => "INVALID_ARGUMENT",
            401 => "UNAUTHENTICATED",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            429 => "RESOURCE_EXHAUSTED",
            503 | 529 => "UNAVAILABLE",
            504 => "DEADLINE_EXCEEDED",
            _ => "INTERNAL",
        };
        let mut error = json!({ "code": self.status, "message": self.message, "status": status });
        if !self.details.is_empty() {
            error["details"] = self.details.clone().into();
        }
        json!({ "error": error })
    }
}

type Checked<T> = Result<T, Refusal>;

impl Api for Service {
    fn reply(&self, request: &Request, earlier: &[Request]) -> Reply {
        self.answer(request, earlier).unwrap_or_else(|refusal| {
            Reply::whole(refusal.status, Vec::new(), JSON, format!("{:#}", refusal.body()))
        })
    }
}

impl Service {
    fn answer(&self, request: &Request, earlier: &[Request]) -> Checked<Reply> {
        authorize(request)?;
        let path = request.path.strip_prefix("/v1beta/").unwrap_or_default();
        if request.method == "GET" && path == "models" {
            let models: Vec<Value> = MODELS.iter().map(|name| model(name)).collect();
            return Ok(whole(&json!({ "models": models })));
        }
        let Some(rest) = path.strip_prefix("models/") else {
            return Err(Refusal::of(404, "Not Found"));
        };
        if request.method == "GET" {
            let known = MODELS.iter().find(|known| **known == rest);
            return Ok(whole(&model(known.ok_or_else(|| no_model(rest))?)));
        }
        let (name, method) = rest.rsplit_once(':').ok_or_else(|| no_model(rest))?;
        let body: Value = serde_json::from_slice(&request.body)
            .map_err(|error| Refusal::new(format!("Invalid JSON payload received. {error}")))?;
        let body = read::camel(&body);
        match method {
            "generateContent" => self.generate(request, name, &body, false, earlier),
            "streamGenerateContent" if request.query.split('&').any(|it| it == "alt=sse") => {
                self.generate(request, name, &body, true, earlier)
            }
            "countTokens" | "embedContent" | "batchEmbedContents" => {
                let before = || earlier.iter().filter(|it| it.path == request.path).count();
                if let Some(fault) = Fault::now(name, before) {
                    return Ok(fault.reply(refuse));
                }
                match method {
                    "countTokens" => count(name, &body),
                    "embedContent" => embed::single(name, &body),
                    _ => embed::batch(name, &body),
                }
            }
            _ => Err(no_model(name)),
        }
    }

    fn generate(
        &self,
        request: &Request,
        name: &str,
        body: &Value,
        stream: bool,
        earlier: &[Request],
    ) -> Checked<Reply> {
        let number = earlier.len();
        let before = || earlier.iter().filter(|it| it.path == request.path).count();
        if let Some(fault) = Fault::now(name, before) {
            return Ok(fault.reply(refuse));
        }
        let mut prompt = read::prompt(name, body)?;
        prompt.stream = stream;
        let answer = self.models.answer(&prompt).ok_or_else(|| no_model(name))?;
        let config = &body["generationConfig"];
        let told = Told {
            id: format!("fakeGemini{number}"),
            model: name.to_owned(),
            candidates: config["candidateCount"].as_u64().unwrap_or(1),
            thoughts: config["thinkingConfig"]["includeThoughts"] == true,
        };
        let headers = vec![("server-timing", "gfet4t7; dur=12".to_owned())];
        // Lines end with CR LF anyway, and Google's own SDK takes no comments.
        if name == "crlf" {
            "echo".clone_into(&mut prompt.model);
        }
        let events = || {
            let error = Refusal::of(503, "The model is overloaded. Please try again later.");
            (told.events(&answer), format!("data: {}\r\n\r\n", error.body()))
        };
        Ok(STYLE.send(&prompt, headers, || format!("{:#}", told.whole(&answer)), events))
    }
}

fn whole(body: &Value) -> Reply {
    Reply::whole(200, Vec::new(), JSON, format!("{body:#}"))
}

fn authorize(request: &Request) -> Checked<()> {
    let query = request.query.split('&').find_map(|pair| pair.strip_prefix("key="));
    match request.header("x-goog-api-key").or(query) {
        None => Err(Refusal::of(
            403,
            "Method doesn't allow unregistered callers (callers without established identity). \
             Please use API Key or other form of API consumer identity to call this API.",
        )),
        Some(key) if Gemini::KEYS.contains(&key) => Ok(()),
        Some(_) => {
            let details = vec![json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
                "domain": "googleapis.com",
                "metadata": { "service": "generativelanguage.googleapis.com" },
            })];
            let refusal = Refusal::new("API key not valid. Please pass a valid API key.");
            Err(Refusal { details, ..refusal })
        }
    }
}

fn no_model(name: &str) -> Refusal {
    Refusal::of(
        404,
        format!(
            "models/{name} is not found for API version v1beta, or is not supported for \
             generateContent. Call ListModels to see the list of available models and their \
             supported methods."
        ),
    )
}

fn model(name: &str) -> Value {
    json!({
        "name": format!("models/{name}"), "version": "001", "displayName": format!("Fake {name}"),
        "description": "A model that does as it is told", "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536, "temperature": 1, "topP": 0.95, "topK": 64,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    })
}

fn count(name: &str, body: &Value) -> Checked<Reply> {
    let fields = body.as_object().into_iter().flatten();
    let known = ["contents", "generateContentRequest"];
    if let Some((key, _)) = fields.into_iter().find(|(key, _)| !known.contains(&key.as_str())) {
        return Err(Refusal::unknown(key, ""));
    }
    let nested = &body["generateContentRequest"];
    let mut asked = if nested.is_null() { body.clone() } else { nested.clone() };
    if !nested.is_null() {
        embed::is_named(nested, name, "generateContentRequest.model", true)?;
    }
    if let Some(fields) = asked.as_object_mut() {
        fields.remove("model");
    }
    if !MODELS.contains(&name) {
        return Err(no_model(name));
    }
    let tokens = read::prompt(name, &asked)?.tokens();
    let details = json!([{ "modality": "TEXT", "tokenCount": tokens }]);
    Ok(whole(&json!({ "totalTokens": tokens, "promptTokensDetails": details })))
}

/// The error of this status.
fn refuse(status: &Status) -> Reply {
    let message = match status.code {
        400 => {
            "The input token count (1200251) exceeds the maximum number of tokens allowed (1048576)."
        }
        401 => "Request had invalid authentication credentials.",
        403 => "Permission denied on resource project fake.",
        404 => "models/gemini-gone is not found for API version v1beta.",
        429 => "You exceeded your current quota. Please retry in 7s.",
        503 | 529 => "The model is overloaded. Please try again later.",
        _ => "An internal error has occurred. Please retry or report in the forum.",
    };
    let mut refusal = Refusal::of(status.code, message);
    // No header says so here.
    if status.code == 429 && status.retry_after {
        refusal.details.push(json!({
            "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s",
        }));
    }
    status.reply(Vec::new(), refusal.body().to_string())
}
