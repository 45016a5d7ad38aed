//! Where tokens come from that are no fixed keys.

use std::path::{Path, PathBuf};

use evo_common::config::{check, env};

use super::{ConfigError, Env};

/// Where tokens come from that are no fixed keys, and where they are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignIn {
    /// The file with those who signed in; it may come later.
    pub file: Option<PathBuf>,
    /// OpenAI's login server.
    pub codex_issuer: String,
    /// Where GitHub exchanges its tokens for those of Copilot.
    pub copilot_token_url: String,
    /// How Codex is reached.
    pub codex_transport: CodexTransport,
    /// How hard Codex thinks about a request that does not say it.
    pub codex_effort: Option<String>,
}

/// How Codex is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CodexTransport {
    /// Over a WebSocket where the model prefers one, else over HTTP.
    #[default]
    Auto,
    /// Over HTTP, in server-sent events.
    Sse,
    /// Over a WebSocket.
    WebSocket,
}

impl std::str::FromStr for CodexTransport {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "sse" => Ok(Self::Sse),
            "websocket" => Ok(Self::WebSocket),
            _ => Err("use auto, sse or websocket"),
        }
    }
}

impl Default for SignIn {
    fn default() -> Self {
        Self {
            file: None,
            codex_issuer: "https://auth.openai.com".to_owned(),
            copilot_token_url: "https://api.github.com/copilot_internal/v2/token".to_owned(),
            codex_transport: CodexTransport::Auto,
            codex_effort: None,
        }
    }
}

impl SignIn {
    pub(super) fn of(data: Option<&Path>, env: Env<'_>) -> Result<Self, ConfigError> {
        let url = |name: &str, default: String| -> Result<String, ConfigError> {
            let Some(url) = env(name) else { return Ok(default) };
            check::http_url(&url).map_err(|why| {
                ConfigError::Invalid(format!("environment variable {name}: {why}"))
            })?;
            Ok(url)
        };
        let default = Self::default();
        let file = env("EVO_GATEWAY_CREDENTIALS").map(PathBuf::from);
        Ok(Self {
            file: file.or_else(|| data.map(|data| data.join("credentials.json"))),
            codex_issuer: url("EVO_CODEX_AUTH_ISSUER", default.codex_issuer)?,
            copilot_token_url: url("EVO_COPILOT_TOKEN_URL", default.copilot_token_url)?,
            codex_transport: env::parse(env, "EVO_CODEX_AUTH_TRANSPORT")?.unwrap_or_default(),
            codex_effort: env("EVO_CODEX_AUTH_REASONING_EFFORT"),
        })
    }
}
