//! Providers that are programs on this machine: `claude`, `codex` and `cursor-agent`, used with the
//! subscription that their owner has signed in to.
//!
//! A request starts one process: the prompt goes to its standard input, so that no list of processes
//! shows it, its options are a vector that no shell reads, and it works in an empty folder of its own
//! with the few variables that such a program needs. It may think and write, but its own tools are
//! switched off, so that whoever may send prompts can't have commands run here. The process leads a
//! group, which is killed as soon as nobody waits for the answer any more.

mod answer;
mod format;
mod process;
mod prompt;

use std::{ffi::OsString, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use evo_common::config::ProviderType;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::timeout};

use super::Address;
use crate::{
    config::Programs,
    convert::Dialect,
    upstream::{
        Body, BoxFuture, Client, Deadlines, Failure, Lenient, Reached, SendBody, Transport,
    },
};
use process::{Process, Step, Task};
use prompt::{Prompt, Takes};

/// How long a request waits for a place, when as many processes run as may.
const QUEUE: Duration = Duration::from_secs(30);
/// After which time a caller who found no place is asked to come back.
const BUSY: HeaderValue = HeaderValue::from_static("5");
/// How long a program may take to list its models.
const LIST: Duration = Duration::from_secs(20);
/// What a program does not do for a caller, and was asked for.
const DROPPED: HeaderName = HeaderName::from_static("x-evo-dropped");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

/// Which program it is: what it is called, and what it prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `claude` in print mode.
    Claude,
    /// `codex exec`.
    Codex,
    /// `cursor-agent` in print mode.
    Cursor,
}

impl Kind {
    /// The program of a provider's type.
    pub(crate) fn of(kind: ProviderType) -> Option<Self> {
        match kind {
            ProviderType::ClaudeCode => Some(Self::Claude),
            ProviderType::CodexCli => Some(Self::Codex),
            ProviderType::Cursor => Some(Self::Cursor),
            ProviderType::OpenAiCompatible
            | ProviderType::Anthropic
            | ProviderType::CodexAuth
            | ProviderType::Google
            | ProviderType::GithubCopilot => None,
        }
    }

    /// How it is called unless the configuration names another one.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Cursor => "cursor-agent",
        }
    }

    /// Where a provider of this kind seems to be, for whatever wants to know an address.
    pub(crate) fn address(self) -> Address {
        let generate = match self {
            Self::Claude => Uri::from_static("program://claude/v1/chat/completions"),
            Self::Codex => Uri::from_static("program://codex/v1/chat/completions"),
            Self::Cursor => Uri::from_static("program://cursor-agent/v1/chat/completions"),
        };
        let models = generate.clone();
        Address { dialect: Dialect::OpenAiChat, generate, embed: None, count: None, models }
    }

    /// How people sign in to it.
    pub(crate) fn sign_in(self) -> &'static [&'static str] {
        match self {
            Self::Claude => &["auth", "login"],
            Self::Codex | Self::Cursor => &["login"],
        }
    }

    /// How it says whether somebody is signed in.
    pub(crate) fn status(self) -> &'static [&'static str] {
        match self {
            Self::Claude => &["auth", "status"],
            Self::Codex => &["login", "status"],
            Self::Cursor => &["status"],
        }
    }

    /// Whether it takes images.
    fn takes_images(self) -> bool {
        matches!(self, Self::Claude | Self::Codex)
    }

    /// What it is given for an answer.
    fn task(self, prompt: Prompt) -> Task {
        let mut options = self.options(&prompt.model);
        let Prompt { text, images, .. } = prompt;
        if images.is_empty() {
            return Task { options, input: text.into_bytes(), files: Vec::new() };
        }
        if self == Self::Claude {
            // Images come with the text, as its own protocol has them.
            options.push("--input-format=stream-json".to_owned());
            let mut content = vec![json!({ "type": "text", "text": text })];
            content.extend(images.iter().map(|image| {
                let data = STANDARD.encode(&image.bytes);
                let source =
                    json!({ "type": "base64", "media_type": image.media_type(), "data": data });
                json!({ "type": "image", "source": source })
            }));
            let message = json!({ "role": "user", "content": content });
            let input = format!("{}\n", json!({ "type": "user", "message": message }));
            return Task { options, input: input.into_bytes(), files: Vec::new() };
        }
        let mut files = Vec::new();
        for (number, image) in (1..).zip(images) {
            let name = format!("image-{number}.{}", image.extension);
            // In front: the option takes what follows it up to the next one.
            options.insert(1, format!("--image={name}"));
            files.push((name, image.bytes));
        }
        options[1..=files.len()].reverse();
        Task { options, input: text.into_bytes(), files }
    }

    /// Its options for one answer of `model`, without its tools. The prompt is not among them.
    fn options(self, model: &str) -> Vec<String> {
        let mut options = match self {
            Self::Claude => vec![
                "--print",
                "--output-format=stream-json",
                "--verbose",
                "--include-partial-messages",
                "--max-turns=1",
                "--tools=",
                "--strict-mcp-config",
                "--disable-slash-commands",
                "--no-session-persistence",
                "--setting-sources=user",
            ],
            Self::Codex => vec![
                "exec",
                "--json",
                "--ephemeral",
                "--skip-git-repo-check",
                "--color=never",
                "--sandbox=read-only",
                "--disable=shell_tool",
                "--disable=unified_exec",
                "--disable=view_image",
                "--config=web_search=\"disabled\"",
            ],
            Self::Cursor => vec![
                "--print",
                "--output-format=stream-json",
                "--stream-partial-output",
                "--mode=ask",
                "--trust",
            ],
        };
        if model != DEFAULT_MODEL {
            options.extend(["--model", model]);
        }
        if self == Self::Codex {
            options.push("-");
        }
        options.into_iter().map(str::to_owned).collect()
    }

    /// How it lists its models, if it can.
    fn list(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Claude => None,
            Self::Codex => Some(&["debug", "models"]),
            Self::Cursor => Some(&["models"]),
        }
    }

    /// Models that it has whatever it lists.
    fn known(self) -> &'static [&'static str] {
        match self {
            Self::Claude => &[DEFAULT_MODEL, "opus", "sonnet", "haiku"],
            Self::Codex | Self::Cursor => &[DEFAULT_MODEL],
        }
    }
}

/// The scheme of a program's address.
pub(crate) const SCHEME: &str = "program";
/// The model that the program takes when it is told none.
const DEFAULT_MODEL: &str = "default";

/// One program as a provider. It takes requests and gives answers as OpenAI's chat completions.
#[derive(Debug)]
pub(crate) struct Program {
    kind: Kind,
    /// The program, by its path or its name.
    program: OsString,
    environment: Vec<(OsString, OsString)>,
    /// How long one answer may take.
    limit: Duration,
    places: Arc<Semaphore>,
}

impl Program {
    /// The program of `kind` at `path`, or found by its usual name if that is empty. Of the process's
    /// environment it gets what `programs` holds and `keys`.
    pub(crate) fn new(
        kind: Kind,
        path: &str,
        programs: &Programs,
        keys: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let program = if path.is_empty() { kind.program() } else { path };
        Self {
            kind,
            program: program.into(),
            environment: programs.environment.iter().cloned().chain(keys).collect(),
            limit: programs.limit,
            places: Arc::new(Semaphore::new(programs.places)),
        }
    }

    async fn answer(&self, request: Request<SendBody>, deadlines: Deadlines) -> Reached {
        let is_list = request.method() == Method::GET;
        if is_list {
            return self.models().await;
        }
        let takes = Takes {
            images: self.kind.takes_images(),
            less: request.extensions().get::<Lenient>().is_some(),
        };
        let body = match request.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(never) => match never {},
        };
        let prompt = match prompt::read(&body, takes) {
            Ok(prompt) => prompt,
            Err(wrong) => {
                let status = StatusCode::BAD_REQUEST;
                return Ok(refusal(
                    status,
                    &wrong.message,
                    "unsupported_field",
                    Some(&wrong.field),
                ));
            }
        };
        let wait = deadlines.first_byte.min(QUEUE);
        let Ok(place) = timeout(wait, self.places.clone().acquire_owned()).await else {
            let message = format!(
                "As many processes of `{}` run as may; try again in a few seconds.",
                self.name()
            );
            let mut busy = refusal(StatusCode::TOO_MANY_REQUESTS, &message, "provider_busy", None);
            busy.headers_mut().insert(header::RETRY_AFTER, BUSY);
            return Ok(busy);
        };
        let place = place.map_err(|closed| (Failure::Unreachable, closed.to_string()))?;
        let answer = answer::Writer::new(&prompt.model, prompt.include_usage);
        let (streams, dropped) = (prompt.stream, prompt.dropped.join(", "));
        let task = self.kind.task(prompt);
        let process = Process::start(&self.program, &self.environment, task, (self.limit, place));
        let mut process = process.map_err(|error| self.no_start(&error))?;
        let mut reader = format::Reader::new(self.kind);
        // The head waits for the first word, so that a program that can't answer is an error and
        // another provider can take its place.
        let begun = timeout(deadlines.first_byte, process.next(&mut reader)).await;
        let Ok(first) = begun else {
            let cause = format!("no answer within {} ms", deadlines.first_byte.as_millis());
            return Err((Failure::FirstByteTimeout, cause));
        };
        let mut response = if streams {
            match first {
                Step::Failed(failed) => return Ok(failed.answer()),
                first @ Step::Event(_) => {
                    let mut response = answer.stream(process, reader, first);
                    response.headers_mut().insert(header::CONTENT_TYPE, EVENTS);
                    response
                }
            }
        } else {
            match answer.whole(process, reader, first).await {
                Err(failed) => return Ok(failed.answer()),
                Ok(whole) => answered(StatusCode::OK, &whole),
            }
        };
        if let Ok(dropped) = HeaderValue::try_from(dropped)
            && !dropped.is_empty()
        {
            response.headers_mut().insert(DROPPED, dropped);
        }
        Ok(response)
    }

    /// Its models, as OpenAI lists them.
    async fn models(&self) -> Reached {
        let mut ids: Vec<String> = self.kind.known().iter().map(|id| (*id).to_owned()).collect();
        if let Some(arguments) = self.kind.list() {
            let environment = &self.environment;
            let listed = process::output(&self.program, arguments, environment, LIST).await;
            let output = listed.map_err(|error| self.no_start(&error))?;
            ids.extend(format::models(self.kind, &output));
        } else {
            // Whether it is there at all.
            let version = process::output(&self.program, &["--version"], &self.environment, LIST);
            version.await.map_err(|error| self.no_start(&error))?;
        }
        let data: Vec<Value> =
            ids.iter().map(|id| json!({ "id": id, "object": "model" })).collect();
        Ok(answered(StatusCode::OK, &json!({ "object": "list", "data": data })))
    }

    fn name(&self) -> std::borrow::Cow<'_, str> {
        self.program.to_string_lossy()
    }

    fn no_start(&self, error: &std::io::Error) -> (Failure, String) {
        let cause = match error.kind() {
            std::io::ErrorKind::NotFound => format!(
                "the program `{}` is not there; install it, or give its path as `base_url`",
                self.name()
            ),
            _ => format!("the program `{}` can't be run: {error}", self.name()),
        };
        (Failure::Unreachable, cause)
    }
}

impl Transport for Program {
    fn send<'a>(
        &'a self,
        _: &'a Client,
        request: Request<SendBody>,
        deadlines: Deadlines,
    ) -> BoxFuture<'a, Reached> {
        Box::pin(self.answer(request, deadlines))
    }
}

/// Why a program gave no answer, as HTTP would say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    status: StatusCode,
    message: String,
}

impl Failed {
    fn new(status: Option<u16>, message: impl Into<String>) -> Self {
        let status = status
            .and_then(|status| StatusCode::from_u16(status).ok())
            .filter(|status| status.is_client_error() || status.is_server_error())
            .unwrap_or(StatusCode::BAD_GATEWAY);
        let message: String = message.into();
        Self { status, message: evo_common::redact::redact(&message).into_owned() }
    }

    fn answer(&self) -> Response<Body> {
        refusal(self.status, &self.message, "program_failed", None)
    }
}

fn refusal(status: StatusCode, message: &str, code: &str, field: Option<&str>) -> Response<Body> {
    let kind = match status.as_u16() {
        401 => "authentication_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    let error = json!({ "message": message, "type": kind, "param": field, "code": code });
    answered(status, &json!({ "error": error }))
}

fn answered(status: StatusCode, body: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
    let mut response = Response::new(Body::from(body.boxed_unsync()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

#[cfg(test)]
mod tests;
