//! The way to king's `/mcp`.

use std::{collections::VecDeque, time::Duration};

use evo_common::{api::ErrorBody, bundle::Bundle, tokens::Secret};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};

use super::sse;
use crate::{instance::DataFolder, stop::Stop};

const SESSION: &str = "mcp-session-id";
const VERSION: &str = "mcp-protocol-version";
/// From this version of the protocol on, headers repeat what a message is about.
const STANDARD_HEADERS: &str = "2026-07-28";
/// King says something at least every 15 seconds, unless it has yet to begin an answer.
const SILENCE: Duration = Duration::from_secs(100);
/// Pause before king is asked again for what it says by itself; doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Id of the `initialize` that begins a session anew.
const AGAIN: &str = "evo-mcp";

/// Where king is.
#[derive(Debug)]
pub(super) struct Place {
    /// The address that was named.
    pub(super) named: Option<String>,
    /// Else that of the instance on this folder, as long as it runs.
    pub(super) data: DataFolder,
    /// The skills to offer, if not all.
    pub(super) bundle: Option<Bundle>,
}

impl Place {
    async fn url(&self) -> Result<String, Error> {
        let base = match &self.named {
            Some(named) => named.clone(),
            None => {
                let running = self.data.running().await.map_err(|error| match error {
                    Stop::Usage(error) | Stop::Failed(error) => {
                        Error::NotRunning(format!("{error:#}"))
                    }
                    Stop::Told | Stop::Interrupted => Error::NotRunning(String::new()),
                })?;
                let folder = self.data.path().display();
                let none = || {
                    Error::NotRunning(format!(
                        "Evo does not run on {folder}: start it with `evo up`, or name a king with --king"
                    ))
                };
                running.ok_or_else(none)?.king
            }
        };
        let url = format!("{}/mcp", base.trim_end_matches('/'));
        let Some(bundle) = &self.bundle else { return Ok(url) };
        let query = [("bundle", bundle.to_string())];
        let query: String =
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        Ok(format!("{url}?{query}"))
    }
}

/// Why king did not take a message.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// There is no king to ask.
    #[error("{0}")]
    NotRunning(String),
    /// It does not answer.
    #[error("king at {url} does not answer ({reason}); start it with `evo up`")]
    Unreachable {
        /// Its address.
        url: String,
        /// Why.
        reason: String,
    },
    /// It refuses.
    #[error("{code}: {message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The stable code.
        code: String,
        /// For people.
        message: String,
    },
    /// It broke off.
    #[error("king broke off before the answer; ask again")]
    BrokeOff,
}

/// A session with king.
#[derive(Debug, Clone)]
struct Session {
    id: String,
    version: String,
}

/// The way to king. What king says goes to the client, line by line.
pub(super) struct Link {
    http: reqwest::Client,
    place: Place,
    token: Secret,
    out: mpsc::Sender<String>,
    session: Mutex<Option<Session>>,
    /// The client's `initialize`, to begin again with.
    initialize: Mutex<Option<Value>>,
}

impl Link {
    pub(super) fn new(
        place: Place,
        token: Secret,
        out: mpsc::Sender<String>,
    ) -> reqwest::Result<Self> {
        evo_common::tls::install();
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(SILENCE)
            .build()?;
        let (session, initialize) = (Mutex::default(), Mutex::default());
        Ok(Self { http, place, token, out, session, initialize })
    }

    /// Sends a request; its answer, and whatever king says before it, goes to the client.
    pub(super) async fn ask(&self, message: &Value) -> Result<(), Error> {
        let id = message.get("id").cloned().unwrap_or_default();
        let begins = message.get("method").and_then(Value::as_str) == Some("initialize");
        if begins {
            *self.initialize.lock().await = Some(message.clone());
            *self.session.lock().await = None;
        }
        let response = self.post_in_session(message).await?;
        let session = header_of(&response, SESSION);
        let (mut answer, mut messages) = (None, Messages::of(response));
        while let Some(line) = messages.next().await? {
            let said: Value = serde_json::from_str(&line).unwrap_or_default();
            if said.get("method").is_none() && said.get("id") == Some(&id) {
                answer = Some(said);
            }
            self.hand_on(line).await;
        }
        let answer = answer.ok_or(Error::BrokeOff)?;
        if let (true, Some(id)) = (begins, session) {
            let version = version_of(&answer);
            *self.session.lock().await = Some(Session { id, version });
        }
        Ok(())
    }

    /// Sends a notification, or an answer to something that king asked.
    pub(super) async fn pass(&self, message: &Value) -> Result<(), Error> {
        self.post_in_session(message).await.map(drop)
    }

    /// Hands on what king says by itself, for ever.
    pub(super) async fn listen(&self) {
        let mut pause = PAUSE;
        loop {
            let Some(session) = self.session.lock().await.clone() else { return };
            match self.follow(&session).await {
                Ok(()) => pause = PAUSE,
                Err(Error::Refused { status: StatusCode::NOT_FOUND, .. }) => {
                    if self.begin_again(&session).await.is_ok() {
                        pause = PAUSE;
                        let changed =
                            json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
                        self.hand_on(changed.to_string()).await;
                        continue;
                    }
                }
                Err(error) => tracing::debug!(%error, "King can't be followed: {error}"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn follow(&self, session: &Session) -> Result<(), Error> {
        let url = self.place.url().await?;
        let request = self
            .request(Method::GET, &url)
            .header(header::ACCEPT, "text/event-stream")
            .header(SESSION, &session.id)
            .header(VERSION, &session.version);
        let mut messages = Messages::of(sent(request, &url).await?);
        while let Some(line) = messages.next().await? {
            self.hand_on(line).await;
        }
        Ok(())
    }

    /// Ends the session.
    pub(super) async fn end(&self) {
        let Some(session) = self.session.lock().await.take() else { return };
        let Ok(url) = self.place.url().await else { return };
        let request = self
            .request(Method::DELETE, &url)
            .header(SESSION, &session.id)
            .header(VERSION, &session.version)
            .timeout(Duration::from_secs(2));
        if let Err(error) = sent(request, &url).await {
            tracing::debug!(%error, "The session ends by itself: {error}");
        }
    }

    /// Sends a message; in a session that is begun anew when king does not know it any more.
    async fn post_in_session(&self, message: &Value) -> Result<Response, Error> {
        let session = match version_in(message) {
            Some(_) => None,
            None => self.session.lock().await.clone(),
        };
        let sent = self.post(message, session.as_ref()).await;
        let (Err(Error::Refused { status: StatusCode::NOT_FOUND, .. }), Some(lost)) =
            (&sent, &session)
        else {
            return sent;
        };
        let session = self.begin_again(lost).await?;
        self.post(message, Some(&session)).await
    }

    /// Begins a session in place of one that king has forgotten, once for all who find out.
    async fn begin_again(&self, lost: &Session) -> Result<Session, Error> {
        let mut current = self.session.lock().await;
        if let Some(session) = current.as_ref().filter(|session| session.id != lost.id) {
            return Ok(session.clone());
        }
        let initialize = self.initialize.lock().await.clone();
        let mut initialize = initialize.ok_or(Error::BrokeOff)?;
        initialize["id"] = json!(AGAIN);
        let response = self.post(&initialize, None).await?;
        let id = header_of(&response, SESSION).ok_or(Error::BrokeOff)?;
        let (mut answer, mut messages) = (Value::Null, Messages::of(response));
        while let Some(line) = messages.next().await? {
            let said: Value = serde_json::from_str(&line).unwrap_or_default();
            if said.get("id").is_some() {
                answer = said;
            }
        }
        let session = Session { id, version: version_of(&answer) };
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        self.post(&initialized, Some(&session)).await?;
        *current = Some(session.clone());
        Ok(session)
    }

    async fn post(&self, message: &Value, session: Option<&Session>) -> Result<Response, Error> {
        let url = self.place.url().await?;
        let mut request = self
            .request(Method::POST, &url)
            .header(header::ACCEPT, "application/json, text/event-stream")
            .json(message);
        if let Some(session) = session {
            request = request.header(SESSION, &session.id);
        }
        let version = version_in(message).or(session.map(|session| session.version.as_str()));
        if let Some(version) = version {
            request = request.header(VERSION, version);
        }
        if let Some(method) = message.get("method").and_then(Value::as_str)
            && version.is_some_and(|version| version >= STANDARD_HEADERS)
        {
            request = request.header("mcp-method", method);
            let name = message.pointer("/params/name").or(message.pointer("/params/uri"));
            if let Some(name) = name.and_then(Value::as_str) {
                request = request.header("mcp-name", name);
            }
        }
        sent(request, &url).await
    }

    fn request(&self, method: Method, url: &str) -> RequestBuilder {
        self.http.request(method, url).bearer_auth(self.token.expose())
    }

    async fn hand_on(&self, line: String) {
        // Fails when the client is gone.
        self.out.send(line).await.unwrap_or_default();
    }
}

async fn sent(request: RequestBuilder, url: &str) -> Result<Response, Error> {
    let response = request.send().await.map_err(|error| Error::Unreachable {
        url: url.to_owned(),
        reason: crate::client::innermost(&error),
    })?;
    let status = response.status();
    let is_message = header_of(&response, "content-type").is_some_and(|kind| kind.contains("json"));
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.unwrap_or_default();
    Err(match serde_json::from_str::<ErrorBody>(&text) {
        Ok(ErrorBody { error }) => {
            Error::Refused { status, code: error.code, message: error.message }
        }
        // A refusal of the protocol's own.
        Err(_) => {
            let said: Value = serde_json::from_str(&text).unwrap_or_default();
            let message = said.pointer("/error/message").and_then(Value::as_str);
            let message = message.filter(|_| is_message).map_or(text.clone(), str::to_owned);
            Error::Refused { status, code: "refused".to_owned(), message }
        }
    })
}

/// The messages of an answer, each as one line.
struct Messages {
    response: Option<Response>,
    is_stream: bool,
    reader: sse::Reader,
    ready: VecDeque<String>,
}

impl Messages {
    fn of(response: Response) -> Self {
        let kind = header_of(&response, "content-type").unwrap_or_default();
        Self {
            response: Some(response),
            is_stream: kind.starts_with("text/event-stream"),
            reader: sse::Reader::default(),
            ready: VecDeque::new(),
        }
    }

    async fn next(&mut self) -> Result<Option<String>, Error> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(one_line(line)));
            }
            if !self.is_stream {
                let Some(response) = self.response.take() else { return Ok(None) };
                let text = response.text().await.map_err(|_| Error::BrokeOff)?;
                self.ready.extend(Some(text).filter(|text| !text.trim().is_empty()));
                continue;
            }
            let Some(response) = &mut self.response else { return Ok(None) };
            match response.chunk().await.map_err(|_| Error::BrokeOff)? {
                Some(bytes) => {
                    self.ready.extend(self.reader.take(&bytes).map_err(|_| Error::BrokeOff)?);
                }
                None => self.response = None,
            }
        }
    }
}

/// A line ends a message, so none may be inside of one.
fn one_line(text: String) -> String {
    if !text.contains(['\n', '\r']) {
        return text;
    }
    serde_json::from_str::<Value>(&text)
        .map_or_else(|_| text.replace(['\n', '\r'], " "), |v| v.to_string())
}

fn header_of(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn version_of(answer: &Value) -> String {
    let version = answer.pointer("/result/protocolVersion").and_then(Value::as_str);
    version.unwrap_or("2025-03-26").to_owned()
}

/// The protocol's version that a message names itself, as those without a session do.
pub(super) fn version_in(message: &Value) -> Option<&str> {
    let meta = message.pointer("/params/_meta")?;
    meta.get("io.modelcontextprotocol/protocolVersion")?.as_str()
}
