//! Sends a request and reads its answer, within the limits of the package.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use evo_common::skill::{HttpCall, HttpMethod};
use futures_util::StreamExt as _;
use reqwest::{
    Method, Response, StatusCode,
    header::{ACCEPT, ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION},
};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::{
    CallAnswer, CallError, CallPolicy, Fault, Inner,
    auth::{self, Auth},
    request::{Request, is_json},
};
use crate::skill::{
    egress::{self, Access},
    package::Package,
};

const MAX_REDIRECTS: usize = 5;
/// Before the first repeat of a call; later ones wait longer.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const DOCUMENT_TIMEOUT_MS: u64 = 30_000;
const MAX_DOCUMENT_BYTES: u64 = 16 * 1024 * 1024;

/// What is read at most.
struct Limits {
    timeout_ms: u64,
    bytes: u64,
}

/// A read answer.
struct Read {
    status: StatusCode,
    content_type: Option<String>,
    body: Vec<u8>,
    latency: Duration,
    allow: Vec<HttpMethod>,
}

impl Inner {
    pub(super) async fn call(
        &self,
        package: &Package,
        request: Request,
        policy: &CallPolicy,
    ) -> Result<CallAnswer, CallError> {
        let limits = Limits {
            timeout_ms: capped(package.call.timeout_ms, policy),
            bytes: package.call.max_response_bytes,
        };
        let access = egress::check(&request.url, policy)?;
        let auth = match &request.auth {
            Some((name, scheme)) => {
                Some(auth::resolve(name, scheme.clone(), &request.url, policy, &self.config)?)
            }
            None => None,
        };
        let retries = match request.method {
            Method::GET => package.call.retries.min(HttpCall::MAX_RETRIES),
            _ => 0,
        };
        let read = self.within(request, auth, access, &limits, policy, retries).await?;
        let bytes = read.body.len() as u64;
        let mut body = parse_body(read.content_type.as_deref(), read.body);
        if let Some(pointer) = package.call.output.as_deref().filter(|_| read.status.is_success()) {
            body = body.pointer_mut(pointer).map(Value::take).unwrap_or_default();
        }
        Ok(CallAnswer {
            status: read.status.as_u16(),
            bytes,
            body,
            content_type: read.content_type,
            latency: read.latency,
            allow: read.allow,
        })
    }

    pub(super) async fn get_document(
        &self,
        url: &str,
        policy: &CallPolicy,
    ) -> Result<Vec<u8>, CallError> {
        let url = Url::parse(url)
            .map_err(|error| CallError::Unreachable(format!("{url:?} is no URL: {error}")))?;
        let access = egress::check(&url, policy)?;
        let auth = auth::for_document(&url, policy, &self.config);
        let place = without_query(&url);
        let limits =
            Limits { timeout_ms: capped(DOCUMENT_TIMEOUT_MS, policy), bytes: MAX_DOCUMENT_BYTES };
        let request =
            Request { method: Method::GET, url, headers: HeaderMap::new(), body: None, auth: None };
        let read = self.within(request, auth, access, &limits, policy, 0).await?;
        if read.status.is_success() {
            Ok(read.body)
        } else {
            Err(CallError::Unreachable(format!("{place} answered HTTP {}", read.status)))
        }
    }

    /// Sends and reads within the time limit. Only an answer that goes on without saying how long
    /// it is counts as endless; anything else that is late is a timeout.
    async fn within(
        &self,
        request: Request,
        auth: Option<Auth>,
        access: Access,
        limits: &Limits,
        policy: &CallPolicy,
        retries: u8,
    ) -> Result<Read, CallError> {
        let unbounded = AtomicBool::new(false);
        let exchange = async {
            let started = Instant::now();
            let mut left = retries;
            let mut fault = policy.fault;
            loop {
                let again = (request.clone(), auth.clone());
                let result = match fault.take() {
                    Some(fault) => broken(fault),
                    None => {
                        self.exchange(again.0, again.1, access, limits, policy, &unbounded).await
                    }
                };
                match result {
                    Err(CallError::Unreachable(_)) if left > 0 => {}
                    Ok(read) if left > 0 && is_passing(read.status) => {}
                    Ok(read) => return Ok(Read { latency: started.elapsed(), ..read }),
                    Err(error) => return Err(error),
                }
                tokio::time::sleep(RETRY_PAUSE * u32::from(retries - left + 1)).await;
                left -= 1;
            }
        };
        let timeout = Duration::from_millis(limits.timeout_ms);
        match tokio::time::timeout(timeout, Box::pin(exchange)).await {
            Ok(result) => result,
            Err(_) if unbounded.load(Ordering::Relaxed) => Err(CallError::Streaming),
            Err(_) => Err(CallError::Timeout { ms: limits.timeout_ms }),
        }
    }

    async fn exchange(
        &self,
        request: Request,
        auth: Option<Auth>,
        access: Access,
        limits: &Limits,
        policy: &CallPolicy,
        unbounded: &AtomicBool,
    ) -> Result<Read, CallError> {
        let started = Instant::now();
        let (mut url, mut auth, mut access) = (request.url, auth, access);
        let (mut kept, mut body) = (request.headers, request.body);
        let mut hops = 0;
        loop {
            let mut target = url.clone();
            let mut headers = kept.clone();
            if let Some(auth) = &auth {
                auth.apply(&mut target, &mut headers)?;
            }
            let mut sending =
                self.clients.of(access).request(request.method.clone(), target).headers(headers);
            if let Some(body) = &body {
                sending = sending.body(body.clone());
            }
            let response = sending.send().await.map_err(|error| failed(&url, &error))?;
            let Some(next) = redirect(&response, &url) else {
                return read(response, &url, limits, unbounded, started).await;
            };
            hops += 1;
            if request.method != Method::GET || hops > MAX_REDIRECTS {
                return Err(CallError::Redirected { to: without_query(&next) });
            }
            access = if next.origin() == url.origin() {
                access
            } else {
                // Headers and body hold inputs that were meant for the first server: cookies, keys.
                auth = None;
                body = None;
                let accept = kept.remove(ACCEPT);
                kept = accept.map(|accept| (ACCEPT, accept)).into_iter().collect();
                egress::check(&next, policy)?
            };
            url = next;
        }
    }
}

/// What a try that is broken on purpose comes to.
fn broken(fault: Fault) -> Result<Read, CallError> {
    match fault {
        Fault::Lost => {
            Err(CallError::Unreachable("the connection was lost, on purpose".to_owned()))
        }
        Fault::Unavailable => Ok(Read {
            allow: Vec::new(),
            status: StatusCode::SERVICE_UNAVAILABLE,
            content_type: None,
            body: Vec::new(),
            latency: Duration::ZERO,
        }),
    }
}

/// Whether another try may be answered better.
fn is_passing(status: StatusCode) -> bool {
    [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ]
    .contains(&status)
}

pub(super) fn capped(timeout_ms: u64, policy: &CallPolicy) -> u64 {
    policy.timeout_cap_ms.map_or(timeout_ms, |cap| cap.min(timeout_ms)).max(1)
}

/// A URL for messages: without its query, which may hold a token.
fn without_query(url: &Url) -> String {
    format!("{}{}", egress::origin(url), url.path())
}

fn failed(url: &Url, error: &reqwest::Error) -> CallError {
    match egress::not_public(error) {
        Some(refused) => {
            CallError::OriginNotAllowed { origin: egress::origin(url), reason: refused.to_string() }
        }
        None => {
            CallError::Unreachable(format!("{}: {}", egress::origin(url), egress::describe(error)))
        }
    }
}

/// Where a response sends the caller.
fn redirect(response: &Response, url: &Url) -> Option<Url> {
    let redirects = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    if !redirects.contains(&response.status()) {
        return None;
    }
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let mut next = url.join(location).ok()?;
    next.set_fragment(None);
    Some(next)
}

async fn read(
    response: Response,
    url: &Url,
    limits: &Limits,
    unbounded: &AtomicBool,
    started: Instant,
) -> Result<Read, CallError> {
    let status = response.status();
    let content_type = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
        .filter(|media_type| !media_type.is_empty());
    if matches!(content_type.as_deref(), Some("text/event-stream" | "multipart/x-mixed-replace")) {
        return Err(CallError::Streaming);
    }
    let too_large = || CallError::TooLarge { limit: limits.bytes };
    if response.content_length().is_some_and(|length| length > limits.bytes) {
        return Err(too_large());
    }
    let allow = allowed(&response);
    unbounded.store(!response.headers().contains_key(CONTENT_LENGTH), Ordering::Relaxed);
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| failed(url, &error))?;
        if (body.len() + chunk.len()) as u64 > limits.bytes {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Read { status, content_type, body, latency: started.elapsed(), allow })
}

/// The methods of the header `Allow` that a skill can have.
fn allowed(response: &Response) -> Vec<HttpMethod> {
    let listed = response.headers().get(ALLOW).and_then(|value| value.to_str().ok());
    let listed = listed.into_iter().flat_map(|list| list.split(','));
    let method = |name: &str| serde_json::from_value(Value::String(name.trim().to_owned())).ok();
    listed.filter_map(method).collect()
}

fn parse_body(content_type: Option<&str>, bytes: Vec<u8>) -> Value {
    let json = content_type.is_none_or(is_json);
    if json && bytes.is_empty() {
        return Value::Null;
    }
    if json && let Ok(value) = serde_json::from_slice(&bytes) {
        return value;
    }
    match String::from_utf8(bytes) {
        Ok(text) => Value::String(text),
        Err(error) => {
            use base64::Engine as _;
            Value::String(base64::engine::general_purpose::STANDARD.encode(error.as_bytes()))
        }
    }
}

#[cfg(test)]
mod tests;
