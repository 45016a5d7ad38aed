//! What an attempt's failure means: whether, where and when another one makes sense, and what the caller
//! is told if there is none.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use serde_json::Value;

use super::{JSON, Refused, answer::Answer};
use crate::{
    convert::{self, Dialect},
    model::{ApiError, ErrorKind},
    upstream::headers,
};

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// What a failure means for other attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The same may work in a moment.
    Again,
    /// The provider wants to be left alone for a while.
    Busy,
    /// It does not work there; elsewhere it may.
    Elsewhere,
    /// The provider has no such thing, which is no failure of its; elsewhere there may be.
    Unable,
    /// The keys are not accepted, or have run out of money.
    Keys,
    /// The conversation is too long for the model.
    TooLong,
    /// The caller asked for something wrong.
    Caller,
}

/// An attempt that failed.
#[derive(Debug)]
pub(super) struct Failed {
    /// What it means.
    pub(super) kind: Kind,
    /// How long the provider asks to wait.
    pub(super) wait: Option<Duration>,
    /// What the caller is told.
    pub(super) last: Final,
}

/// What the caller is told when nothing helps.
#[derive(Debug)]
pub(super) enum Final {
    /// An answer of the gateway's own.
    Own(Refused),
    /// The provider's.
    Theirs(Box<Theirs>),
}

/// A provider's error.
#[derive(Debug)]
pub(super) struct Theirs {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    dialect: Dialect,
}

impl Failed {
    /// One that the gateway has words for.
    pub(super) fn own(kind: Kind, refused: Refused) -> Self {
        Self { kind, wait: refused.retry_after, last: Final::Own(refused) }
    }

    /// What a provider answered.
    pub(super) fn theirs(
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
        dialect: Dialect,
    ) -> Self {
        let kind = kind(status, &headers, &body);
        let wait = wait(&headers, &body);
        Self {
            kind,
            wait,
            last: Final::Theirs(Box::new(Theirs { status, headers, body, dialect })),
        }
    }

    /// Whether it is about how much the model is to think: no provider's words are like another's, but all
    /// name the field or the thing.
    pub(super) fn is_about_thinking(&self) -> bool {
        let Final::Theirs(theirs) = &self.last else { return false };
        let text = theirs.body.to_ascii_lowercase();
        ["reasoning", "thinking", "thought"]
            .iter()
            .any(|word| memchr::memmem::find(&text, word.as_bytes()).is_some())
    }

    /// An error that a provider told inside a stream, before there was any content.
    pub(super) fn in_stream(provider: &str, error: ApiError) -> Self {
        let status = match error.kind {
            ErrorKind::InvalidRequest => 400,
            ErrorKind::Authentication => 401,
            ErrorKind::Billing => 402,
            ErrorKind::Permission => 403,
            ErrorKind::NotFound => 404,
            ErrorKind::TooLarge => 413,
            ErrorKind::RateLimit => 429,
            ErrorKind::Overloaded => 529,
            ErrorKind::Timeout => 504,
            ErrorKind::Internal => 502,
        };
        let kind = match status {
            504 => Kind::Elsewhere,
            400 if is_too_long(error.message.as_bytes()) => Kind::TooLong,
            status => kind_of_status(status),
        };
        let code = match error.code.as_deref() {
            Some("upstream_cut") => "upstream_cut",
            Some("upstream_idle_timeout") => "upstream_idle_timeout",
            Some("upstream_content_timeout") => "upstream_content_timeout",
            Some("upstream_timeout") => "upstream_timeout",
            Some("upstream_bad_answer") => "upstream_bad_answer",
            _ => "upstream_error",
        };
        let message = format!("The provider `{provider}`: {}", error.message);
        let wait = wait_in_text(&error.message);
        Self { kind, wait, last: Final::Own(Refused::new(status, code, message)) }
    }

    /// Whether the provider does not know the route that it was asked at, rather than this model.
    pub(super) fn lacks_route(&self, model: &str) -> bool {
        let Final::Theirs(theirs) = &self.last else { return false };
        match theirs.status.as_u16() {
            404 => !contains(&theirs.body, model.as_bytes()),
            status => matches!(status, 405 | 501),
        }
    }

    /// The status that the log tells, if the provider gave one.
    pub(super) fn status(&self) -> Option<u16> {
        match &self.last {
            Final::Own(_) => None,
            Final::Theirs(theirs) => Some(theirs.status.as_u16()),
        }
    }

    /// The code that the log tells.
    pub(super) fn code(&self) -> &'static str {
        match &self.last {
            Final::Own(refused) => refused.code,
            Final::Theirs(_) => "upstream_status",
        }
    }

    /// How much it tells a caller, compared to others: whoever is told to wait can do something.
    pub(super) fn worth(&self) -> u8 {
        match (self.kind, &self.last) {
            (Kind::Busy, _) => 3,
            (Kind::Again | Kind::Elsewhere, Final::Theirs(_)) => 2,
            (Kind::Again | Kind::Elsewhere, Final::Own(_)) => 1,
            (Kind::Keys | Kind::TooLong | Kind::Caller | Kind::Unable, _) => 0,
        }
    }
}

impl Theirs {
    /// The answer for a caller of this protocol.
    pub(super) fn answer(self, front: Dialect) -> Response<Answer> {
        let translated = self.dialect != front;
        let body = if translated {
            convert::error(self.dialect, front, self.status.as_u16(), &self.body).into()
        } else {
            self.body
        };
        let mut response = Response::new(Answer::whole(body));
        *response.status_mut() = self.status;
        *response.headers_mut() = headers::from_provider(self.headers, translated);
        if translated {
            response.headers_mut().insert(header::CONTENT_TYPE, JSON);
        }
        response
    }

    /// The same as an event inside a stream.
    pub(super) fn event(&self, front: Dialect) -> Vec<u8> {
        convert::error_event(self.dialect, front, self.status.as_u16(), &self.body)
    }
}

fn kind(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Kind {
    let says_no = headers.get(super::SHOULD_RETRY).is_some_and(|value| value == "false");
    match status.as_u16() {
        400 | 413 | 422 if is_too_long(body) => Kind::TooLong,
        // A budget does not come back by waiting.
        429 if contains(body, b"insufficient_quota") => Kind::Keys,
        status => match kind_of_status(status) {
            Kind::Again if says_no => Kind::Elsewhere,
            kind => kind,
        },
    }
}

fn kind_of_status(status: u16) -> Kind {
    match status {
        401..=403 => Kind::Keys,
        429 => Kind::Busy,
        408 | 409 | 425 => Kind::Again,
        501 | 505 => Kind::Elsewhere,
        500.. => Kind::Again,
        _ => Kind::Caller,
    }
}

/// How long a provider asks to wait: in a header, in seconds or as a date, or in the body.
pub(super) fn wait(headers: &HeaderMap, body: &[u8]) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(ms) = text(RETRY_AFTER_MS).and_then(|ms| ms.parse::<f64>().ok()) {
        return seconds(ms / 1_000.0);
    }
    if let Some(text) = text(header::RETRY_AFTER) {
        if let Ok(number) = text.parse::<f64>() {
            return seconds(number);
        }
        if let Ok(date) = httpdate::parse_http_date(text) {
            return date.duration_since(std::time::SystemTime::now()).ok();
        }
    }
    let body: Value = serde_json::from_slice(body).ok()?;
    let error = body.get("error").unwrap_or(&body);
    let number = |value: &Value| value.as_f64().and_then(seconds);
    number(&error["retry_after"])
        .or_else(|| number(&body["retry_after"]))
        .or_else(|| error["retry_after_ms"].as_f64().and_then(|ms| seconds(ms / 1_000.0)))
        .or_else(|| {
            // Google's.
            let details = error["details"].as_array()?;
            let delay = details.iter().find_map(|detail| detail["retryDelay"].as_str())?;
            seconds(delay.strip_suffix('s')?.parse().ok()?)
        })
        .or_else(|| wait_in_text(error["message"].as_str()?))
}

/// `… try again in 1.2s`, or `in 20ms`.
fn wait_in_text(text: &str) -> Option<Duration> {
    let (_, rest) = text.split_once("try again in ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = rest.split_at(end);
    let number: f64 = number.parse().ok()?;
    let unit = unit.trim_start();
    seconds(if unit.starts_with("ms") {
        number / 1_000.0
    } else if unit.starts_with('s') {
        number
    } else if unit.starts_with('m') {
        number * 60.0
    } else {
        return None;
    })
}

fn seconds(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number).ok()
}

/// Whether an error says that the conversation is too long for the model.
fn is_too_long(body: &[u8]) -> bool {
    [
        &b"context_length_exceeded"[..],
        b"prompt is too long",
        b"maximum context length",
        b"exceed context limit",
        b"exceeds the maximum number of tokens",
        b"exceeds the available context size",
    ]
    .iter()
    .any(|words| contains(body, words))
}

fn contains(body: &[u8], words: &[u8]) -> bool {
    memchr::memmem::find(body, words).is_some()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn hints_are_found_wherever_they_stand() {
        let body = |value: Value| wait(&HeaderMap::new(), value.to_string().as_bytes());
        let of = |name, value| wait(&headers(&[(name, value)]), b"{}");
        let secs = |number| Some(Duration::from_secs_f64(number));
        assert_eq!(of("retry-after", "2"), secs(2.0));
        assert_eq!(of("retry-after-ms", "150"), secs(0.15));
        assert_eq!(of("retry-after", "Fri, 01 Jan 2021 00:00:00 GMT"), None);
        let later = of("retry-after", "Fri, 01 Jan 2100 00:00:00 GMT").unwrap();
        assert!(later > Duration::from_secs(3_600));
        assert_eq!(of("retry-after", "soon"), None);
        assert_eq!(of("retry-after", "-3"), None);
        assert_eq!(body(json!({"error": {"retry_after": 3}})), secs(3.0));
        assert_eq!(body(json!({"retry_after": 0.5})), secs(0.5));
        assert_eq!(body(json!({"error": {"details": [{}, {"retryDelay": "7s"}]}})), secs(7.0));
        let text = |text: &str| body(json!({"error": {"message": text}}));
        assert_eq!(text("Rate limit. Please try again in 1.2s. Visit …"), secs(1.2));
        assert_eq!(text("Please try again in 20ms."), secs(0.02));
        assert_eq!(text("Please try again in 6m0s."), secs(360.0));
        assert_eq!(text("Please try again in a while"), None);
    }

    #[test]
    fn failures_mean_different_things() {
        let of = |status, body: &str| {
            kind(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
        };
        for (status, body, kind) in [
            (500, "", Kind::Again),
            (503, "", Kind::Again),
            (529, "", Kind::Again),
            (501, "", Kind::Elsewhere),
            (429, "", Kind::Busy),
            (429, r#"{"error":{"code":"insufficient_quota"}}"#, Kind::Keys),
            (401, "", Kind::Keys),
            (402, "", Kind::Keys),
            (400, "", Kind::Caller),
            (404, "", Kind::Caller),
            (400, r#"{"error":{"code":"context_length_exceeded"}}"#, Kind::TooLong),
            (400, "prompt is too long: 9 tokens", Kind::TooLong),
        ] {
            assert_eq!(of(status, body), kind, "{status} {body}");
        }
        let no = headers(&[("x-should-retry", "false")]);
        assert_eq!(kind(StatusCode::BAD_GATEWAY, &no, b""), Kind::Elsewhere);
    }
}
