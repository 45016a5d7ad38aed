//! Evotown over HTTP: requests out, answers told apart.

use std::time::{Duration, SystemTime};

use evo_common::{ids::hex, redact::redact, tokens::Secret};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Method, header::RETRY_AFTER};
use serde_json::Value;
use sha2::Sha256;
use url::Url;

use crate::config::{Config, Signing, is_loopback};

/// Most of an answer that is read: a stored run comes back with its log.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// Idle connections are closed before the server does it (uvicorn: after 5 s): a request that meets
/// the end of its connection may or may not have arrived.
const KEEP_IDLE: Duration = Duration::from_secs(4);
/// Longest pause that is taken from an answer.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3_600);
/// Longest part of an answer that is shown to people, in characters.
const MAX_REASON: usize = 300;

/// When a request was signed, in Unix seconds.
const TIMESTAMP: &str = "x-evotown-timestamp";
/// The signature of a request.
const SIGNATURE: &str = "x-evotown-signature";

/// What a request is allowed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// A token.
    Bearer(Secret),
    /// A signature over the time and the body.
    Signed(Signing),
}

impl Credential {
    /// `body` is exactly what is sent.
    fn apply(&self, request: reqwest::RequestBuilder, body: &str) -> reqwest::RequestBuilder {
        match self {
            Self::Bearer(token) => request.bearer_auth(token.expose()),
            Self::Signed(signing) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let now = now.map_or(0, |since| since.as_secs());
                request.header(TIMESTAMP, now).header(
                    SIGNATURE,
                    format!("{}{}", signing.prefix, signature(signing, now, body)),
                )
            }
        }
    }
}

/// HMAC-SHA256 over `"{timestamp}." + body`, in lower-case hex.
pub(crate) fn signature(signing: &Signing, timestamp: u64, body: &str) -> String {
    let key = signing.secret.expose().as_bytes();
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length is taken");
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body.as_bytes());
    hex(&mac.finalize().into_bytes())
}

/// Evotown.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    status: u16,
    body: Value,
    retry_after: Option<Duration>,
}

/// No answer came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreachable {
    /// Whether the request may have arrived all the same.
    pub(crate) sent: bool,
    /// For people.
    pub(crate) reason: String,
}

/// What an answer means. Evotown says 403 for five different things; the type of `detail` tells.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Meaning {
    /// Taken. The answer is null when it was too large to be read.
    Accepted(Value),
    /// It was there before (the published spec's way to say so).
    Conflict,
    /// The token is not, or no longer, good for this.
    Auth(String),
    /// A policy refuses the content.
    Policy(String),
    /// It is too large.
    TooLarge,
    /// The content can't be taken, now and later.
    Invalid(String),
    /// The server itself says that it has no such route.
    NoRoute(String),
    /// There is no such address, or the answer is none of Evotown's: not an Evotown, something in
    /// front of it, or another version of it.
    Missing(String),
    /// Not now.
    Busy {
        /// What it said.
        reason: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
}

impl Meaning {
    /// Why it was not taken, for people.
    pub(crate) fn reason(self) -> String {
        match self {
            Self::Auth(reason)
            | Self::Policy(reason)
            | Self::Invalid(reason)
            | Self::NoRoute(reason)
            | Self::Missing(reason)
            | Self::Busy { reason, .. } => reason,
            Self::TooLarge => "status 413: it is too large for Evotown".to_owned(),
            Self::Accepted(_) | Self::Conflict => "it was taken".to_owned(),
        }
    }
}

impl Client {
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        evo_common::tls::install();
        let builder = reqwest::Client::builder()
            .timeout(config.timing.request)
            .connect_timeout(config.timing.request.min(Duration::from_secs(10)))
            .pool_idle_timeout(KEEP_IDLE)
            // A redirected POST would become a GET, and a token would go where nobody meant it to.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("evo-evotown-bridge/", env!("CARGO_PKG_VERSION")));
        let builder = if is_loopback(&config.link.url) { builder.no_proxy() } else { builder };
        let http = builder.build().map_err(|error| describe(&error))?;
        Ok(Self { http, base: config.link.url.clone() })
    }

    /// `POST /api/v1/{path}`.
    pub(crate) async fn post(
        &self,
        path: &[&str],
        credential: &Credential,
        body: String,
    ) -> Result<Answer, Unreachable> {
        let request = self
            .http
            .request(Method::POST, self.address(path))
            .header(reqwest::header::CONTENT_TYPE, "application/json");
        answer(credential.apply(request, &body).body(body)).await
    }

    /// `GET /api/v1/{path}?{query}`.
    pub(crate) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        credential: &Credential,
    ) -> Result<Answer, Unreachable> {
        let request = self.http.request(Method::GET, self.address(path)).query(query);
        answer(credential.apply(request, "")).await
    }

    /// Each part of the path is percent-encoded.
    fn address(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("the configuration takes http and https only")
            .pop_if_empty()
            .extend(["api", "v1"])
            .extend(path);
        url
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Answer, Unreachable> {
    let mut response = request.send().await.map_err(|error| Unreachable {
        sent: !error.is_connect() && !error.is_builder(),
        reason: describe(&error.without_url()),
    })?;
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| retry_after(value, SystemTime::now()));
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => break,
            // A refusal is one even when its text is cut off.
            Err(_) if status >= 400 => break,
            Err(error) => {
                let reason = describe(&error.without_url());
                return Err(Unreachable { sent: true, reason });
            }
        }
        if bytes.len() > MAX_ANSWER {
            return Ok(Answer { status, body: Value::Null, retry_after });
        }
    }
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    Ok(Answer { status, body, retry_after })
}

impl Answer {
    /// The HTTP status.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// A text of the body.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.body.get(name)?.as_str()
    }

    /// Whether a switch of the body is on.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.body.get(name) == Some(&Value::Bool(true))
    }

    /// What it means.
    pub(crate) fn meaning(self) -> Meaning {
        let detail = self.body.get("detail");
        match self.status {
            200..=299 if self.body.is_object() || self.body.is_null() => {
                Meaning::Accepted(self.body)
            }
            401 => Meaning::Auth(self.reason()),
            403 => match detail {
                Some(Value::Object(_)) => Meaning::Policy(self.reason()),
                Some(Value::String(_)) => Meaning::Auth(self.reason()),
                // A proxy's: the token is good, and another one would not help.
                _ => Meaning::Busy { reason: self.reason(), retry_after: self.retry_after },
            },
            409 => Meaning::Conflict,
            413 => Meaning::TooLarge,
            // Of a token for all engines the server says so when it does not know the engine.
            422 if detail
                .and_then(Value::as_str)
                .is_some_and(|text| text.to_lowercase().contains("engine")) =>
            {
                Meaning::Auth(self.reason())
            }
            404 if detail == Some(&Value::from("engine not registered")) => {
                Meaning::Auth(self.reason())
            }
            404 | 405
                if matches!(
                    detail.and_then(Value::as_str),
                    Some("Not Found" | "Method Not Allowed")
                ) =>
            {
                Meaning::NoRoute(self.reason())
            }
            // A page of whatever stands in front of Evotown, or in its place, has taken nothing.
            200..=399 | 404 | 405 => Meaning::Missing(self.reason()),
            408 | 425 | 429 | 500.. => {
                Meaning::Busy { reason: self.reason(), retry_after: self.retry_after }
            }
            _ => Meaning::Invalid(self.reason()),
        }
    }

    /// What went wrong in a line, without secrets.
    fn reason(&self) -> String {
        let said = match self.body.get("detail").unwrap_or(&self.body) {
            Value::String(text) => text.clone(),
            Value::Array(faults) => faults.iter().map(fault).collect::<Vec<_>>().join("; "),
            Value::Object(detail) => {
                let part = |name: &str| detail.get(name).map(plain);
                let parts = [part("policy"), part("message").or_else(|| part("reason"))];
                let known: Vec<String> = parts.into_iter().flatten().collect();
                if known.is_empty() {
                    Value::Object(detail.clone()).to_string()
                } else {
                    known.join(": ")
                }
            }
            other => other.to_string(),
        };
        let said: String = redact(&said).trim().chars().take(MAX_REASON).collect();
        if said.is_empty() {
            format!("status {}", self.status)
        } else {
            format!("status {}: {said}", self.status)
        }
    }
}

/// One entry of a 422: which field, and what is wrong with it.
fn fault(entry: &Value) -> String {
    let place: Vec<String> = entry
        .get("loc")
        .and_then(Value::as_array)
        .map(|loc| loc.iter().skip(1).map(plain).collect())
        .unwrap_or_default();
    let message = entry.get("msg").map_or_else(|| entry.to_string(), plain);
    if place.is_empty() { message } else { format!("field {}: {message}", place.join(".")) }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `Retry-After`, in seconds or as a date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let pause = match value.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value.trim())
            .ok()?
            .duration_since(now)
            .unwrap_or(Duration::ZERO),
    };
    Some(pause.min(LONGEST_RETRY_AFTER))
}

/// What went wrong, with its causes and without secrets.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.ends_with(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    redact(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn meaning(status: u16, body: Value) -> Meaning {
        Answer { status, body, retry_after: None }.meaning()
    }

    #[test]
    fn the_five_kinds_of_403_are_told_apart_by_their_detail() {
        for text in [
            "Invalid or missing bearer token.",
            "ingest token is not authorized for engine_id",
            "global ingest token cannot be used here",
        ] {
            assert!(matches!(meaning(403, json!({"detail": text})), Meaning::Auth(_)), "{text}");
        }
        let policy = json!({"detail": {"policy": "artifact_extension_allowlist",
            "message": "extension .toml is not allowed", "matches": ["a.toml"]}});
        let Meaning::Policy(reason) = meaning(403, policy) else { panic!("a policy refuses") };
        assert_eq!(
            reason,
            "status 403: artifact_extension_allowlist: extension .toml is not allowed"
        );
        assert!(matches!(meaning(401, json!("who are you")), Meaning::Auth(_)));
        assert!(matches!(meaning(403, json!("<html>proxy</html>")), Meaning::Busy { .. }));
    }

    #[test]
    fn refusals_name_the_field() {
        let body = json!({"detail": [
            {"loc": ["body", "exit_code"], "msg": "Input should be a valid integer"},
            {"loc": ["body", "artifact_manifest", 0, "sha256"], "msg": "String should match"},
        ]});
        assert_eq!(
            meaning(422, body),
            Meaning::Invalid(
                "status 422: field exit_code: Input should be a valid integer; field \
                 artifact_manifest.0.sha256: String should match"
                    .to_owned()
            )
        );
        assert!(matches!(meaning(422, json!({"detail": "run not found"})), Meaning::Invalid(_)));
        let unknown = json!({"detail": "unknown engine_id"});
        assert!(matches!(meaning(422, unknown), Meaning::Auth(_)));
        assert!(matches!(meaning(400, json!("bad")), Meaning::Invalid(_)));
        let secret = meaning(422, json!({"detail": "no evi_abcdefgh12345 here"}));
        assert_eq!(secret, Meaning::Invalid("status 422: no evi_*** here".to_owned()));
    }

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        assert!(matches!(meaning(200, json!({})), Meaning::Accepted(_)));
        let page = meaning(200, json!("<html>Sign in</html>"));
        assert_eq!(page, Meaning::Missing("status 200: <html>Sign in</html>".to_owned()));
        assert!(matches!(meaning(204, json!("")), Meaning::Missing(_)));
        assert_eq!(meaning(409, json!({})), Meaning::Conflict);
        assert_eq!(meaning(413, json!("large")), Meaning::TooLarge);
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(matches!(meaning(status, json!("")), Meaning::Busy { .. }), "{status}");
        }
        for status in [301, 307, 404, 405] {
            assert!(matches!(meaning(status, json!("")), Meaning::Missing(_)), "{status}");
        }
        let gone = json!({"detail": "engine not registered"});
        assert!(matches!(meaning(404, gone), Meaning::Auth(_)));
    }

    #[test]
    fn a_route_that_is_not_there_is_told_from_a_page_in_front() {
        let gone = json!({"detail": "Not Found"});
        assert_eq!(meaning(404, gone), Meaning::NoRoute("status 404: Not Found".to_owned()));
        assert!(matches!(
            meaning(405, json!({"detail": "Method Not Allowed"})),
            Meaning::NoRoute(_)
        ));
        assert!(matches!(meaning(404, json!("<html>Not Found</html>")), Meaning::Missing(_)));
    }

    /// The value is what Python's `hmac` gives.
    #[test]
    fn requests_are_signed_over_time_and_body() {
        let signing = Signing { secret: "hush".into(), prefix: String::new() };
        let signed = signature(&signing, 1_700_000_000, r#"{"a":1}"#);
        assert_eq!(signed, "7cfd1df542c33ab7251748ffdc6e7fed278c63b83d4ece95a4534b0ad465571b");
        assert_ne!(signature(&signing, 1_700_000_001, r#"{"a":1}"#), signed);
        assert_ne!(signature(&signing, 1_700_000_000, r#"{"a":2}"#), signed);
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let seconds = |value| retry_after(value, now).map(|pause| pause.as_secs());
        assert_eq!(seconds(" 7 "), Some(7));
        assert_eq!(seconds("999999"), Some(3_600));
        assert_eq!(seconds("Thu, 01 Jan 1970 00:16:50 GMT"), Some(10));
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(seconds("soon"), None);
    }

    #[test]
    fn every_part_of_a_path_is_encoded() {
        let folder = tempfile::tempdir().unwrap();
        let env = |name: &str| match name {
            "EVO_EVOTOWN_URL" => Some("https://h.example/town/api/v1".to_owned()),
            "EVO_EVOTOWN_TOKEN" => Some("t".to_owned()),
            _ => None,
        };
        let link = crate::config::Link::from_env(&env).unwrap().unwrap();
        let config = Config::new(link, "http://127.0.0.1:1", None, folder.path());
        let client = Client::new(&config).unwrap();
        assert_eq!(
            client.address(&["runs", "a b?c", "complete"]).as_str(),
            "https://h.example/town/api/v1/runs/a%20b%3Fc/complete"
        );
    }
}
