//! Prompts through an agent, and configured commands.

use axum::{Json, extract::State, http::StatusCode};
use evo_common::{api::ErrorBody, messages::AgentRole};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    error::{ApiError, Result, sentence, shutting_down},
    extract::JsonBody,
};
use crate::{
    debug::{self, Asked},
    state::King,
};

/// Longest prompt.
const MAX_PROMPT: usize = 64 * 1024;
/// Longest name of anything.
const MAX_NAME: usize = 200;
/// How long an answer may take: when the caller does not say, and at most.
const TIMEOUT_MS: u64 = 120_000;
const MAX_TIMEOUT_MS: u64 = 600_000;

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new().routes(routes!(send_prompt)).routes(routes!(run_command))
}

/// A prompt for a model, through an agent.
#[derive(Debug, Deserialize, ToSchema)]
struct SendPrompt {
    /// The role of the agent that asks the model: `user`, `learning`, `evaluation`, …
    #[schema(value_type = String)]
    agent_role: AgentRole,
    /// What to ask.
    prompt: String,
    /// The model; the agent's own when absent.
    model: Option<String>,
    /// The model's provider; it is put before the model's name.
    provider: Option<String>,
    /// How freely the model answers.
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f64>,
    /// Longest answer, in tokens.
    #[schema(minimum = 1)]
    max_tokens: Option<u32>,
    /// How hard the model thinks: `low`, `medium`, `high`.
    reasoning_effort: Option<String>,
    /// How long the answer may take.
    #[schema(minimum = 1_000, maximum = 600_000, default = 120_000)]
    timeout_ms: Option<u64>,
}

/// A configured command.
#[derive(Debug, Deserialize, ToSchema)]
struct RunCommand {
    /// Its name under `debug.commands` in king.toml.
    command: String,
    /// Names the output; made up when absent.
    request_id: Option<String>,
}

/// Something was begun; its task tells how it goes.
#[derive(Debug, Serialize, ToSchema)]
struct Begun {
    /// Always true; kept for clients of the original.
    success: bool,
    /// Names the pieces of the answer.
    request_id: String,
    /// Holds the answer when there is one.
    task_id: String,
}

impl From<debug::Begun> for Json<Begun> {
    fn from(begun: debug::Begun) -> Self {
        let debug::Begun { request_id, task_id } = begun;
        Self(Begun { success: true, request_id, task_id })
    }
}

/// Try a prompt.
///
/// One runner of the role asks the model, with the agent's own instructions. The answer comes in
/// pieces to dashboards and to those who follow the task, and whole into the task's result.
#[utoipa::path(
    post,
    path = "/debug/prompt",
    tag = "debug",
    request_body(
        content = SendPrompt, description = "What to ask, and through whom.",
        example = json!({"agent_role": "user", "prompt": "Say hello."}),
    ),
    responses(
        (status = 200, description = "The runner was asked.", body = Begun),
        (status = 503, description = "No runner of this role is connected.", body = ErrorBody),
    ),
)]
async fn send_prompt(
    State(king): State<King>,
    JsonBody(asked): JsonBody<SendPrompt>,
) -> Result<Json<Begun>> {
    if king.draining.is_cancelled() {
        return Err(shutting_down());
    }
    if asked.prompt.trim().is_empty() || asked.prompt.len() > MAX_PROMPT {
        let message =
            format!("it has {} bytes; 1 to {MAX_PROMPT} are possible", asked.prompt.len());
        return Err(ApiError::field("prompt", message));
    }
    let named = [
        ("model", &asked.model),
        ("provider", &asked.provider),
        ("reasoning_effort", &asked.reasoning_effort),
    ];
    for (field, value) in named {
        check_name(field, value.as_deref())?;
    }
    if asked.temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
        return Err(ApiError::field("temperature", "it must be from 0 to 2"));
    }
    if asked.max_tokens == Some(0) {
        return Err(ApiError::field("max_tokens", "it must be at least 1"));
    }
    let timeout_ms = asked.timeout_ms.unwrap_or(TIMEOUT_MS);
    if !(1_000..=MAX_TIMEOUT_MS).contains(&timeout_ms) {
        let message = format!("it must be from 1000 to {MAX_TIMEOUT_MS}");
        return Err(ApiError::field("timeout_ms", message));
    }
    let given = |text: Option<String>| {
        text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let asked = Asked {
        role: asked.agent_role,
        prompt: asked.prompt,
        model: given(asked.model),
        provider: given(asked.provider),
        temperature: asked.temperature,
        max_tokens: asked.max_tokens,
        reasoning_effort: given(asked.reasoning_effort),
        timeout_ms,
    };
    Ok(king.debug.prompt(asked).await?.into())
}

/// Run a configured command.
///
/// Only commands that king.toml names under `[debug]` can be run, by that name: there is no shell,
/// no argument from outside and nothing of king's environment. Without any, the answer is 404.
#[utoipa::path(
    post,
    path = "/debug/bash",
    tag = "debug",
    request_body(
        content = RunCommand, description = "Which command.",
        example = json!({"command": "uptime"}),
    ),
    responses(
        (status = 200, description = "The command was started.", body = Begun),
        (status = 404, description = "No command of this name is configured.", body = ErrorBody),
        (status = 429, description = "As many commands as possible run.", body = ErrorBody),
    ),
)]
async fn run_command(
    State(king): State<King>,
    JsonBody(asked): JsonBody<RunCommand>,
) -> Result<Json<Begun>> {
    if king.config.open {
        let message = "Commands need the operator token, and king runs with --open; start it \
                       without --open.";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message));
    }
    if king.draining.is_cancelled() {
        return Err(shutting_down());
    }
    check_name("request_id", asked.request_id.as_deref())?;
    Ok(king.debug.command(&asked.command, asked.request_id).await?.into())
}

fn check_name(field: &'static str, value: Option<&str>) -> Result<()> {
    let legal = |value: &str| value.len() <= MAX_NAME && !value.chars().any(char::is_control);
    if value.is_none_or(legal) {
        return Ok(());
    }
    Err(ApiError::field(field, format!("it must be a plain text of at most {MAX_NAME} bytes")))
}

impl From<debug::Error> for ApiError {
    fn from(error: debug::Error) -> Self {
        let message = sentence(&error.to_string());
        let (status, code) = match error {
            debug::Error::NoRunner(_) => (StatusCode::SERVICE_UNAVAILABLE, "no_runner"),
            debug::Error::Busy(_) => (StatusCode::TOO_MANY_REQUESTS, "busy"),
            debug::Error::NotEnabled => (StatusCode::NOT_FOUND, "not_enabled"),
            debug::Error::UnknownCommand { .. } => (StatusCode::NOT_FOUND, "not_found"),
            debug::Error::Task(error) => return error.into(),
        };
        Self::new(status, code, message)
    }
}
