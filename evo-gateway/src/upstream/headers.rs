//! Which headers go on to the provider, and which come back. Both are lists of what passes: a
//! caller's token or cookie can't slip through, nor what a provider sets for itself.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    convert::Dialect,
    provider::{Provider, access::Access},
};

/// Headers of callers that providers understand, for the same protocol on both sides.
const PASSED: [HeaderName; 8] = [
    header::ACCEPT,
    header::USER_AGENT,
    HeaderName::from_static("anthropic-beta"),
    HeaderName::from_static("anthropic-version"),
    HeaderName::from_static("openai-beta"),
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("x-client-request-id"),
    HeaderName::from_static("x-goog-api-client"),
];

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const GOOGLE_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
/// The version of Anthropic's API that the translation speaks, and that callers mean who name none.
const ANTHROPIC_DEFAULT: HeaderValue = HeaderValue::from_static("2023-06-01");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("evo-gateway/", env!("CARGO_PKG_VERSION")));

/// The headers of a request to a provider. `caller` are those of a caller of the same protocol.
pub(crate) fn to_provider(
    provider: &Provider,
    dialect: Dialect,
    caller: Option<&HeaderMap>,
    key: Option<&HeaderValue>,
    access: Option<&Access>,
) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert(header::CONTENT_TYPE, JSON);
    // The answer is read here: to be translated, else for its counts and to see whether it is whole.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(caller) = caller {
        for name in &PASSED {
            for value in caller.get_all(name) {
                headers.append(name, value.clone());
            }
        }
    }
    headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
    if dialect == Dialect::Anthropic {
        headers.entry(ANTHROPIC_VERSION).or_insert(ANTHROPIC_DEFAULT);
    }
    if let Some(key) = key {
        let name = match dialect {
            Dialect::OpenAiChat
            | Dialect::OpenAiResponses
            | Dialect::OllamaChat
            | Dialect::OllamaGenerate => header::AUTHORIZATION,
            Dialect::Anthropic => API_KEY,
            Dialect::Gemini | Dialect::GeminiArray => GOOGLE_API_KEY,
        };
        headers.insert(name, key.clone());
    }
    for (name, value) in &provider.extra_headers {
        headers.insert(name, value.clone());
    }
    for (name, value) in access.iter().flat_map(|access| &access.headers) {
        headers.insert(name, value.clone());
    }
    headers
}

/// What [`to_provider`] needs of a caller's headers, without the buffer that they were read into.
pub(crate) fn settled(caller: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in &PASSED {
        for value in caller.get_all(name) {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                kept.append(name, value);
            }
        }
    }
    kept
}

/// Leaves of a provider's headers those that a caller understands.
pub(crate) fn from_provider(mut headers: HeaderMap, converted: bool) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(headers.len() + 2);
    let mut last = None;
    for (name, value) in headers.drain() {
        // A repeated header comes without its name.
        if let Some(name) = name {
            last = passes(&name, converted).then_some(name);
        }
        if let Some(name) = &last {
            kept.append(name, value);
        }
    }
    kept
}

fn passes(name: &HeaderName, converted: bool) -> bool {
    match name.as_str() {
        // They describe a body that is made anew.
        "content-type" | "content-encoding" => !converted,
        "retry-after" | "retry-after-ms" | "x-should-retry" | "request-id" | "x-request-id"
        | "cache-control" | "x-evo-dropped" | "x-evo-estimated" => true,
        name => ["x-ratelimit-", "anthropic-", "openai-"].iter().any(|own| name.starts_with(own)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn pairs(headers: &HeaderMap) -> HashMap<&str, &str> {
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect()
    }

    #[test]
    fn what_a_caller_shows_stays_here() {
        let config = crate::Config::new(
            evo_common::config::GatewayConfig::from_json(
                r#"{"server": {"host": "127.0.0.1", "port": 0}, "providers": [{
                    "name": "p", "base_url": "http://127.0.0.1:1/v1", "enabled": true,
                    "extra_headers": {"X-Title": "evo"}}]}"#,
            )
            .unwrap(),
            &evo_common::tokens::Tokens::generate(),
        )
        .unwrap();
        let provider = &Provider::all(&config, &[]).unwrap()[0];
        let caller = map(&[
            ("authorization", "Bearer evo_gw_secret"),
            ("x-api-key", "evo_gw_secret"),
            ("x-goog-api-key", "evo_gw_secret"),
            ("cookie", "a=b"),
            ("host", "gateway"),
            ("connection", "keep-alive, x-y"),
            ("x-evo-run-id", "run"),
            ("traceparent", "00-0"),
            ("x-forwarded-for", "10.0.0.1"),
            ("openai-organization", "org"),
            ("accept-encoding", "gzip"),
            ("accept", "text/event-stream"),
            ("anthropic-beta", "tools"),
        ]);
        let key = HeaderValue::from_static("sk-1");
        let same = to_provider(provider, Dialect::Anthropic, Some(&caller), Some(&key), None);
        assert_eq!(
            pairs(&same),
            HashMap::from([
                ("content-type", "application/json"),
                ("accept-encoding", "identity"),
                ("accept", "text/event-stream"),
                ("anthropic-beta", "tools"),
                ("anthropic-version", "2023-06-01"),
                ("user-agent", USER_AGENT.to_str().unwrap()),
                ("x-api-key", "sk-1"),
                ("x-title", "evo"),
            ])
        );
        let other = to_provider(provider, Dialect::OpenAiChat, None, Some(&key), None);
        assert_eq!(
            pairs(&other),
            HashMap::from([
                ("content-type", "application/json"),
                ("accept-encoding", "identity"),
                ("user-agent", USER_AGENT.to_str().unwrap()),
                ("authorization", "sk-1"),
                ("x-title", "evo"),
            ])
        );
    }

    #[test]
    fn what_a_provider_says_to_the_caller_passes() {
        let kept = from_provider(
            map(&[
                ("content-type", "application/json"),
                ("set-cookie", "a=b"),
                ("set-cookie", "c=d"),
                ("connection", "close"),
                ("transfer-encoding", "chunked"),
                ("server", "nginx"),
                ("retry-after", "7"),
                ("x-ratelimit-remaining-tokens", "5"),
                ("anthropic-ratelimit-requests-limit", "50"),
                ("openai-processing-ms", "12"),
                ("x-request-id", "req_1"),
                ("location", "http://elsewhere"),
            ]),
            false,
        );
        let mut names: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "anthropic-ratelimit-requests-limit",
                "content-type",
                "openai-processing-ms",
                "retry-after",
                "x-ratelimit-remaining-tokens",
                "x-request-id"
            ]
        );
        let converted = from_provider(map(&[("content-type", "x"), ("retry-after", "1")]), true);
        assert_eq!(pairs(&converted), HashMap::from([("retry-after", "1")]));
    }
}
