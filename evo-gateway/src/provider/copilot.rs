//! GitHub Copilot: a token of GitHub is exchanged for one of Copilot that lasts half an hour, together
//! with the address to call.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use chrono::Utc;
use evo_common::tokens::Secret;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use tokio::{sync::Mutex, time::Instant};

use super::{
    Address,
    access::{Access, Credentials},
    address, exchange,
};
use crate::{
    convert::Dialect,
    upstream::{BoxFuture, Client},
};

/// How long before its end a token is exchanged anew.
const AHEAD: Duration = Duration::from_secs(300);
/// How long a token is used at least, whatever the clocks say.
const LEAST: Duration = Duration::from_secs(5);
/// What Copilot wants to know of its editor; it answers to known ones only.
const EDITOR: [(&str, &str); 3] = [
    ("editor-version", "vscode/1.107.0"),
    ("editor-plugin-version", "copilot-chat/0.35.0"),
    ("user-agent", "GitHubCopilotChat/0.35.0"),
];

/// Exchanges tokens, one at a time.
pub(crate) struct Copilot {
    /// GitHub's token.
    token: Secret,
    /// The variable that it came from.
    variable: String,
    /// Where it is exchanged.
    url: String,
    current: ArcSwapOption<Token>,
    exchange: Mutex<()>,
}

/// A token of Copilot.
#[derive(Debug)]
struct Token {
    access: Access,
    /// When another one is to be got.
    until: Instant,
    /// When it is worth nothing any more.
    end: Instant,
}

#[derive(Deserialize)]
struct Exchanged {
    token: String,
    /// Unix seconds.
    expires_at: i64,
    #[serde(default)]
    endpoints: Option<Endpoints>,
}

#[derive(Deserialize)]
struct Endpoints {
    #[serde(default)]
    api: Option<String>,
}

impl Copilot {
    /// Exchanges `token`, which came from the variable of this name, at `url`.
    pub(crate) fn new(variable: &str, token: Secret, url: &str) -> Self {
        Self {
            token,
            variable: variable.to_owned(),
            url: url.to_owned(),
            current: ArcSwapOption::empty(),
            exchange: Mutex::new(()),
        }
    }

    async fn get(&self, client: &Client) -> Result<Access, String> {
        let fresh = || {
            let current = self.current.load_full();
            current.filter(|token| token.until > Instant::now()).map(|token| token.access.clone())
        };
        if let Some(access) = fresh() {
            return Ok(access);
        }
        let _exchange = self.exchange.lock().await;
        // Somebody else may have got one meanwhile.
        if let Some(access) = fresh() {
            return Ok(access);
        }
        match self.exchange(client).await {
            Ok(token) => {
                let access = token.access.clone();
                self.current.store(Some(Arc::new(token)));
                Ok(access)
            }
            Err(why) => {
                // The old one may still do.
                let old = self.current.load_full().filter(|token| token.end > Instant::now());
                old.map(|token| token.access.clone()).ok_or(why)
            }
        }
    }

    async fn exchange(&self, client: &Client) -> Result<Token, String> {
        let fail = |why: String| format!("can't exchange its token: {why}");
        let authorization = format!("token {}", self.token.expose());
        let mut headers = vec![
            ("authorization", authorization.as_str()),
            ("accept", "application/json"),
            ("x-github-api-version", "2025-04-01"),
        ];
        headers.extend(EDITOR);
        let request = exchange::request(Method::GET, &self.url, &headers, String::new());
        let answer = exchange::call(client, request.map_err(fail)?).await.map_err(fail)?;
        match answer.status {
            status if status.is_success() => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                return Err(format!(
                    "is not signed in: GitHub answers {} to the token in {}; put the token of an \
                     account with a Copilot subscription there and restart the gateway",
                    answer.status.as_u16(),
                    self.variable
                ));
            }
            status => return Err(fail(format!("GitHub answers {}", status.as_u16()))),
        }
        let exchanged: Exchanged = answer.json().map_err(fail)?;
        let left = exchanged.expires_at.saturating_sub(Utc::now().timestamp());
        let left = Duration::from_secs(u64::try_from(left).unwrap_or_default()).max(LEAST);
        let now = Instant::now();
        Ok(Token {
            access: access(&exchanged).map_err(fail)?,
            until: now + left.checked_sub(AHEAD).unwrap_or_default().max(LEAST),
            end: now + left,
        })
    }
}

fn access(exchanged: &Exchanged) -> Result<Access, String> {
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", exchanged.token))
        .map_err(|_| "the answer holds no token".to_owned())?;
    bearer.set_sensitive(true);
    let mut headers = vec![
        (header::AUTHORIZATION, bearer),
        (
            HeaderName::from_static("copilot-integration-id"),
            HeaderValue::from_static("vscode-chat"),
        ),
        // Images are refused without it, and texts are not with it.
        (HeaderName::from_static("copilot-vision-request"), HeaderValue::from_static("true")),
        (HeaderName::from_static("openai-intent"), HeaderValue::from_static("conversation-panel")),
    ];
    for (name, value) in EDITOR {
        headers.push((HeaderName::from_static(name), HeaderValue::from_static(value)));
    }
    let api = exchanged.endpoints.as_ref().and_then(|endpoints| endpoints.api.as_deref());
    let told: Option<Result<Address, _>> = api.map(|api| address(Dialect::OpenAiChat, api));
    let address =
        told.transpose().map_err(|(_, why)| format!("the address in the answer: {why}"))?;
    Ok(Access { headers, address })
}

impl Credentials for Copilot {
    fn access<'a>(&'a self, client: &'a Client) -> BoxFuture<'a, Result<Access, String>> {
        Box::pin(self.get(client))
    }

    fn refused(&self, access: &Access) {
        let current = self.current.load();
        if current.as_ref().is_some_and(|token| token.access.headers == access.headers) {
            self.current.store(None);
        }
    }
}

impl fmt::Debug for Copilot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copilot").field("url", &self.url).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "copilot_tests.rs"]
mod tests;
