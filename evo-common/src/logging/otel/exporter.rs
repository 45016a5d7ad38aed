//! One receiver of spans: where it is, and how a batch gets there.

use std::{borrow::Cow, time::Duration};

use http::{HeaderMap, HeaderValue, header};
use opentelemetry::{Array, KeyValue, StringValue, Value, trace::Status};
use opentelemetry_otlp::{Protocol, RetryPolicy, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter as _},
};
use url::{Host, Url};

use crate::{
    redact::{MASK, is_secret_name, redact},
    tokens::Secret,
};

/// How long one request may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    url: Url,
    token: Option<Secret>,
    /// Whether somebody asked for this address: then its failures are told.
    pub(super) explicit: bool,
}

impl Target {
    /// An address that somebody asked for. The SDK's exporter would take an empty or relative one
    /// and fail with every batch.
    pub(super) fn explicit(url: &str) -> Result<Self, String> {
        Self::parse(url).map(|url| Self { url, token: None, explicit: true })
    }

    /// King's own receiver.
    pub(super) fn king(url: &str, token: Option<&Secret>) -> Result<Self, String> {
        Self::parse(url).map(|url| Self { url, token: token.cloned(), explicit: false })
    }

    fn parse(url: &str) -> Result<Url, String> {
        let url = Url::parse(url).map_err(|error| error.to_string())?;
        if matches!(url.scheme(), "http" | "https") && url.has_host() {
            Ok(url)
        } else {
            Err("this is no http or https address".to_owned())
        }
    }

    /// The same address with the other's token, when both name the same server.
    pub(super) fn with_token_of(&self, other: &Self) -> Self {
        let same = self.url.origin() == other.url.origin();
        let token = if same { other.token.clone() } else { self.token.clone() };
        Self { token, ..self.clone() }
    }

    /// The address for messages.
    pub(super) fn shown(&self) -> String {
        redact(self.url.as_str()).into_owned()
    }

    fn is_local(&self) -> bool {
        match self.url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        }
    }
}

/// Sends batches to one receiver. Made and used on the queue's thread only: its HTTP client may
/// neither wait nor be dropped where a runtime runs.
#[derive(Debug)]
pub(super) struct Exporter {
    inner: opentelemetry_otlp::SpanExporter,
    pub(super) target: Target,
}

impl Exporter {
    pub(super) fn new(target: &Target, resource: &Resource) -> Result<Self, String> {
        // The HTTP client is built without a TLS provider of its own.
        crate::tls::install();
        let mut headers = HeaderMap::new();
        if let Some(token) = &target.token {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .map_err(|_| "its token is no text for a header".to_owned())?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let client =
            reqwest::blocking::Client::builder().timeout(EXPORT_TIMEOUT).default_headers(headers);
        // A proxy can't reach what is on this machine.
        let client = if target.is_local() { client.no_proxy() } else { client };
        let mut inner = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_endpoint(target.url.as_str())
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(EXPORT_TIMEOUT)
            .with_http_client(client.build().map_err(|error| error.to_string())?)
            .with_retry_policy(RetryPolicy::disabled())
            .build()
            .map_err(|error| error.to_string())?;
        opentelemetry_sdk::trace::SpanExporter::set_resource(&mut inner, resource);
        Ok(Self { inner, target: target.clone() })
    }

    /// Sends a batch, with secrets masked. Waits.
    pub(super) fn export(&self, mut batch: Vec<SpanData>) -> Result<(), String> {
        batch.iter_mut().for_each(redact_span);
        futures_executor::block_on(self.inner.export(batch)).map_err(|error| error.to_string())
    }
}

/// Masks every text of a span: its name, what went wrong, its attributes, and those of its events,
/// whose names are what was logged.
fn redact_span(span: &mut SpanData) {
    redact_text(&mut span.name);
    if let Status::Error { description } = &mut span.status {
        redact_text(description);
    }
    redact_attributes(&mut span.attributes);
    for event in &mut span.events.events {
        redact_text(&mut event.name);
        redact_attributes(&mut event.attributes);
    }
}

fn redact_text(text: &mut Cow<'static, str>) {
    if let Cow::Owned(masked) = redact(text) {
        *text = Cow::Owned(masked);
    }
}

fn redact_attributes(attributes: &mut [KeyValue]) {
    for KeyValue { key, value, .. } in attributes {
        match value {
            // A value under `password` looks like any other text.
            Value::String(text) if !text.as_str().is_empty() && is_secret_name(key.as_str()) => {
                *text = MASK.into();
            }
            Value::String(text) => redact_value(text),
            Value::Array(Array::String(texts)) => texts.iter_mut().for_each(redact_value),
            _ => {}
        }
    }
}

fn redact_value(text: &mut StringValue) {
    if let Cow::Owned(masked) = redact(text.as_str()) {
        *text = StringValue::from(masked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_no_url_is_an_error() {
        for endpoint in ["", "not a url", "http://", "ftp://127.0.0.1"] {
            assert!(Target::explicit(endpoint).is_err(), "{endpoint:?}");
        }
    }

    #[test]
    fn attributes_are_masked_by_what_they_hold_and_by_their_names() {
        let texts = vec!["Bearer abcdefgh".into(), "plain".into()];
        let mut attributes = [
            KeyValue::new("note", "password=hunter2"),
            KeyValue::new("http.request.header.authorization", "Basic dTpw"),
            KeyValue::new("texts", Value::Array(Array::String(texts))),
            KeyValue::new("gen_ai.usage.input_tokens", 7),
        ];
        redact_attributes(&mut attributes);
        let texts = vec!["Bearer ***".into(), "plain".into()];
        assert_eq!(
            attributes,
            [
                KeyValue::new("note", "password=***"),
                KeyValue::new("http.request.header.authorization", "***"),
                KeyValue::new("texts", Value::Array(Array::String(texts))),
                KeyValue::new("gen_ai.usage.input_tokens", 7),
            ]
        );
    }

    #[test]
    fn a_token_goes_to_its_own_server_only() {
        let token = Secret::new("t");
        let king = Target::king("http://127.0.0.1:3000/v1/traces", Some(&token)).unwrap();
        let same = Target::explicit("http://127.0.0.1:3000/custom").unwrap();
        let same = same.with_token_of(&king);
        assert_eq!((same.token, same.url.path()), (Some(token), "/custom"));
        for other in ["http://127.0.0.1:4318/v1/traces", "https://127.0.0.1:3000/v1/traces"] {
            let other = Target::explicit(other).unwrap().with_token_of(&king);
            assert_eq!((other.token, other.explicit), (None, true), "{}", other.url);
        }
    }

    #[test]
    fn this_machine_is_reached_without_a_proxy() {
        for (url, local) in [
            ("http://127.0.0.1:3000", true),
            ("http://localhost:3000", true),
            ("http://[::1]:3000", true),
            ("http://king:3000", false),
            ("http://10.0.0.1:3000", false),
        ] {
            assert_eq!(Target::explicit(url).unwrap().is_local(), local, "{url}");
        }
    }
}
