//! Short calls to servers that give tokens.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::upstream::{Client, SendBody};

/// How long one may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Largest answer.
const SIZE: usize = 1024 * 1024;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its status.
    pub(super) status: StatusCode,
    body: Bytes,
}

impl Answer {
    /// What it says. An answer may hold tokens, so it is quoted nowhere.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.body).map_err(|error| {
            format!("the answer has another form than known ({:?})", error.classify())
        })
    }
}

/// A request with these texts as headers.
pub(super) fn request(
    method: http::Method,
    uri: &str,
    headers: &[(&'static str, &str)],
    body: String,
) -> Result<Request<SendBody>, String> {
    let uri: Uri = uri.parse().map_err(|error| format!("{uri:?} is no address: {error}"))?;
    let mut request = Request::new(SendBody::from(Bytes::from(body)));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    for (name, value) in headers {
        let mut value = HeaderValue::try_from(*value).map_err(|_| {
            format!("the header `{name}` would hold a character that none can carry")
        })?;
        value.set_sensitive(*name == header::AUTHORIZATION.as_str());
        request.headers_mut().insert(*name, value);
    }
    Ok(request)
}

/// Makes a call. An error says why there is no answer, without an address that may hold more.
pub(super) async fn call(client: &Client, request: Request<SendBody>) -> Result<Answer, String> {
    let host = request.uri().host().unwrap_or_default().to_owned();
    let work = async {
        let response = client.send(request, LIMIT).await.map_err(|(_, cause)| cause)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), SIZE).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status, body })
    };
    let answer = timeout(LIMIT, work).await;
    answer
        .unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())))
        .map_err(|why| format!("{host} can't be asked: {why}"))
}
