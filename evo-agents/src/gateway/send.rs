//! Sends requests, and sends them again when that may help.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use reqwest::{
    Response,
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{Deadline, Error, GatewayClient, wire};
use crate::skill::egress;

/// Tries of a chat.
pub(super) const TRIES: u32 = 3;
/// For requests that are not worth another try.
pub(super) const ONCE: u32 = 1;
/// First pause between tries; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause that is waited for, whatever the server asks for.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Largest answer.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// Largest error body that is read.
const MAX_ERROR: usize = 64 * 1024;

/// Whether a request that was answered like this may pass later.
pub(super) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// A try that failed.
struct Failed {
    error: Error,
    /// How long the server wants to be left alone.
    retry_after: Option<Duration>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, retry_after: None }
    }
}

/// What is sent.
struct Sent<'a> {
    path: &'a str,
    body: Option<Bytes>,
    /// Whether the whole answer is waited for, or only its head.
    whole: bool,
}

enum Answer {
    Whole(Vec<u8>),
    Open(Response),
}

impl GatewayClient {
    /// Sends a request and reads its whole answer.
    pub(super) async fn send(
        &self,
        path: &str,
        body: Option<Vec<u8>>,
        deadline: Deadline,
        tries: u32,
    ) -> Result<Vec<u8>, Error> {
        let sent = Sent { path, body: body.map(Bytes::from), whole: true };
        match self.retried(&sent, deadline, tries).await? {
            Answer::Whole(body) => Ok(body),
            Answer::Open(_) => unreachable!("the whole answer was asked for"),
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn open(
        &self,
        path: &str,
        body: Vec<u8>,
        deadline: Deadline,
    ) -> Result<Response, Error> {
        let sent = Sent { path, body: Some(body.into()), whole: false };
        match self.retried(&sent, deadline, TRIES).await? {
            Answer::Open(response) => Ok(response),
            Answer::Whole(_) => unreachable!("only the head was asked for"),
        }
    }

    /// Sends until it works, makes no sense any more, or the time is up.
    async fn retried(
        &self,
        sent: &Sent<'_>,
        deadline: Deadline,
        tries: u32,
    ) -> Result<Answer, Error> {
        let mut tried = 0;
        loop {
            let attempt = timeout_at(deadline.at, self.attempt(sent)).await;
            let Failed { error, retry_after } = match attempt {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failed)) => failed,
                Err(_) => return Err(deadline.error()),
            };
            tried += 1;
            let pause = pause(tried, retry_after, rand::random());
            let in_time = pause <= MAX_PAUSE && Instant::now() + pause < deadline.at;
            if tried >= tries || !error.is_transient() || !in_time {
                return Err(error);
            }
            tracing::debug!(%error, pause_ms = pause.as_millis(), "Another try follows: {error}");
            sleep(pause).await;
        }
    }

    async fn attempt(&self, sent: &Sent<'_>) -> Result<Answer, Failed> {
        let url = format!("{}{}", self.inner.address, sent.path);
        let http = &self.inner.http;
        let mut request = match &sent.body {
            Some(body) => {
                http.post(url).header(CONTENT_TYPE, "application/json").body(body.clone())
            }
            None => http.get(url),
        };
        if let Some(token) = &self.inner.token {
            request = request.bearer_auth(token.expose());
        }
        let response = request
            .headers(self.headers())
            .send()
            .await
            .map_err(|error| self.unavailable(egress::describe(&error)))?;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            let retry_after = retry_after(response.headers(), Utc::now());
            // What the error says is worth less than that there is one.
            let body = self.read(response, MAX_ERROR).await.unwrap_or_default();
            return Err(Failed { error: wire::refused(status, &body), retry_after });
        }
        if !sent.whole {
            return Ok(Answer::Open(response));
        }
        Ok(Answer::Whole(self.read(response, MAX_ANSWER).await?))
    }

    async fn read(&self, response: Response, most: usize) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| self.unavailable(egress::describe(&error)))?;
            if body.len() + chunk.len() > most {
                return Err(Error::Malformed(format!("it is larger than {most} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// The pause after a number of tries: it doubles, `chance` takes up to half of it away, and it is
/// never shorter than what the server asked for.
fn pause(tried: u32, retry_after: Option<Duration>, chance: f32) -> Duration {
    let full = FIRST_PAUSE * 2_u32.saturating_pow(tried.saturating_sub(1)).min(64);
    let own = full.mul_f32(1.0 - chance.clamp(0.0, 1.0) / 2.0);
    retry_after.map_or(own, |asked| asked.max(own))
}

/// `Retry-After` in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    Some((date.to_utc() - now).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_obey_the_server() {
        let ms = |tried, asked, chance| pause(tried, asked, chance).as_millis();
        assert_eq!([ms(1, None, 0.0), ms(2, None, 0.0), ms(3, None, 0.0)], [250, 500, 1_000]);
        assert_eq!(ms(1, None, 1.0), 125);
        assert_eq!(ms(1, Some(Duration::from_secs(7)), 0.5), 7_000);
        assert_eq!(ms(3, Some(Duration::from_millis(1)), 0.0), 1_000);
        assert!(ms(40, None, 0.0) <= 16_000);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = DateTime::parse_from_rfc3339("2026-11-21T12:00:00Z").unwrap().to_utc();
        for (text, expected) in [
            ("3", Some(3_000)),
            ("0.25", Some(250)),
            ("Sat, 21 Nov 2026 12:00:09 GMT", Some(9_000)),
            ("Sat, 21 Nov 2026 11:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
        ] {
            let headers: HeaderMap = [(RETRY_AFTER, text.parse().unwrap())].into_iter().collect();
            let found = retry_after(&headers, now).map(|pause| pause.as_millis());
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
