//! King over HTTP, as any client sees it: plain JSON, no types of ours.

use reqwest::{Method, StatusCode};
use serde_json::Value;

/// King over HTTP.
#[derive(Debug, Clone)]
pub struct King {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl King {
    /// King at this base URL, with a token; an empty one sends none.
    pub fn new(base: &str, token: &str) -> Self {
        evo_common::tls::install();
        let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        Self { http, base: base.to_owned(), token: token.to_owned() }
    }

    /// Status and body of a request; `None` when there is no whole answer.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Option<(StatusCode, Value)> {
        let response = self.request(method, path, body).send().await.ok()?;
        let status = response.status();
        let text = response.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Status and body of any request.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> (StatusCode, Value) {
        let url = format!("{}{path}", self.base);
        let request = self.request(method, path, body);
        let response =
            request.send().await.unwrap_or_else(|error| panic!("{url} does not answer: {error}"));
        let status = response.status();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> reqwest::RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        match body {
            Some(body) => request.json(body),
            None => request,
        }
    }

    /// The body of a GET that must succeed.
    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send(Method::GET, path, None).await;
        assert!(status.is_success(), "GET {path}: {status} {body}");
        body
    }

    /// The body of a GET; `None` when there is no good answer.
    pub async fn try_get(&self, path: &str) -> Option<Value> {
        let (status, body) = self.try_send(Method::GET, path, None).await?;
        status.is_success().then_some(body)
    }

    /// Every entry of a paged list, by the field that holds them.
    pub async fn list(&self, path: &str, field: &str) -> Vec<Value> {
        self.try_list(path, field).await.unwrap_or_else(|| panic!("GET {path} fails"))
    }

    /// [`Self::list`], or `None` when king does not answer meanwhile.
    pub async fn try_list(&self, path: &str, field: &str) -> Option<Vec<Value>> {
        let mut entries = Vec::new();
        let mut cursor = String::new();
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let page = self.try_get(&format!("{path}{joint}limit=200{cursor}")).await?;
            let list = page[field].as_array().unwrap_or_else(|| panic!("no {field} in {page}"));
            entries.extend(list.iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Some(entries),
            }
        }
    }

    /// The whole event log.
    pub async fn events(&self) -> Vec<Value> {
        self.try_events().await.expect("GET /events answers")
    }

    /// [`Self::events`], or `None` when king does not answer meanwhile.
    pub async fn try_events(&self) -> Option<Vec<Value>> {
        let mut events = Vec::new();
        let mut after = 0;
        loop {
            let page = self.try_get(&format!("/events?after={after}&limit=500")).await?;
            let list = page["events"].as_array().expect("a list of events");
            let Some(last) = list.last() else { return Some(events) };
            after = last["seq"].as_i64().expect("a number");
            events.extend(list.iter().cloned());
        }
    }
}
