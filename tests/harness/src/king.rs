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

    /// Status and body of any request.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> (StatusCode, Value) {
        let url = format!("{}{path}", self.base);
        let mut request = self.http.request(method, &url);
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response =
            request.send().await.unwrap_or_else(|error| panic!("{url} does not answer: {error}"));
        let status = response.status();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// The body of a GET that must succeed.
    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send(Method::GET, path, None).await;
        assert!(status.is_success(), "GET {path}: {status} {body}");
        body
    }

    /// Every entry of a paged list, by the field that holds them.
    pub async fn list(&self, path: &str, field: &str) -> Vec<Value> {
        let mut entries = Vec::new();
        let mut cursor = String::new();
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let page = self.get(&format!("{path}{joint}limit=200{cursor}")).await;
            let list = page[field].as_array().unwrap_or_else(|| panic!("no {field} in {page}"));
            entries.extend(list.iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return entries,
            }
        }
    }

    /// The whole event log.
    pub async fn events(&self) -> Vec<Value> {
        let mut events = Vec::new();
        let mut after = 0;
        loop {
            let page = self.get(&format!("/events?after={after}&limit=500")).await;
            let list = page["events"].as_array().expect("a list of events");
            let Some(last) = list.last() else { return events };
            after = last["seq"].as_i64().expect("a number");
            events.extend(list.iter().cloned());
        }
    }
}
