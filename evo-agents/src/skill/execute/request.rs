//! A package and its input become one HTTP request.

use evo_common::skill::{HttpMethod, SkillEndpoint};
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Map, Value};
use url::Url;

use super::{AuthScheme, CallError, CallPolicy};
use crate::skill::{
    package::{Package, SERVER_PLACEHOLDER},
    template::{self, Part},
};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// Headers that belong to the connection; a package that sets one could smuggle a second request.
const CONNECTION_HEADERS: [&str; 8] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
];

/// What is sent, before the auth token is added.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Vec<u8>>,
    pub(super) auth: Option<(String, AuthScheme)>,
}

/// Fills the templates of a package with checked inputs.
pub(super) fn build(
    package: &Package,
    input: &Map<String, Value>,
    policy: &CallPolicy,
) -> Result<Request, CallError> {
    let endpoint = package
        .config
        .endpoints
        .first()
        .ok_or_else(|| CallError::InvalidPackage("it has no endpoint".to_owned()))?;
    let method = method(endpoint.method);
    let mut url = Url::parse(&address(package, endpoint, input, policy)?).map_err(|error| {
        CallError::InvalidPackage(format!("{:?} is no URL: {error}", endpoint.url))
    })?;
    url.set_fragment(None);

    let extra = unnamed_inputs(package, endpoint, input);
    let sends_query = matches!(method, Method::GET | Method::DELETE);
    let mut query = query(package, endpoint, input);
    if sends_query {
        for (name, value) in &extra {
            push_pairs(&mut query, name, value, style_of(package, name, name));
        }
    }
    if policy.reordered {
        // By name, the last one first; what has the same name keeps its order, which may mean something.
        let name = |pair: &String| pair.split('=').next().unwrap_or_default().to_owned();
        query.sort_by_cached_key(|pair| std::cmp::Reverse(name(pair)));
    }
    url.set_query((!query.is_empty()).then(|| query.join("&")).as_deref());

    let mut headers = headers(package, endpoint, input)?;
    let body = match &package.call.body {
        Some(body) => template::fill_json(body, &|name| package.input(name).is_some(), input),
        None if !sends_query && !extra.is_empty() => Some(Value::Object(extra)),
        None => None,
    };
    let body = match body {
        Some(body) => Some(encode_body(package, &body, &mut headers)?),
        None => None,
    };
    Ok(Request { method, url, headers, body, auth: auth(package)? })
}

fn method(method: HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Delete => Method::DELETE,
        HttpMethod::Patch => Method::PATCH,
    }
}

fn auth(package: &Package) -> Result<Option<(String, AuthScheme)>, CallError> {
    let Some(name) = package.config.auth_ref.as_ref().filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let scheme = match &package.call.auth_scheme {
        None => AuthScheme::Bearer,
        Some(text) => AuthScheme::parse(text).ok_or_else(|| {
            CallError::InvalidPackage(format!("unknown auth_scheme {text:?} in config.toml"))
        })?,
    };
    Ok(Some((name.clone(), scheme)))
}

/// The URL without its query.
fn address(
    package: &Package,
    endpoint: &SkillEndpoint,
    input: &Map<String, Value>,
    policy: &CallPolicy,
) -> Result<String, CallError> {
    let without_query = endpoint.url.split(['?', '#']).next().unwrap_or_default();
    let (base, path) = if let Some(path) = without_query.strip_prefix(SERVER_PLACEHOLDER) {
        let server = package.call.server.as_deref().ok_or_else(|| {
            CallError::InvalidPackage("the URL names `{server}`, `extra.server` none".to_owned())
        })?;
        let base = policy.servers.get(server).ok_or_else(|| {
            CallError::Unreachable(format!(
                "the address of the server {server:?} is not known; is its source still configured?"
            ))
        })?;
        (base.trim_end_matches('/'), path)
    } else {
        let host = without_query.find("://").map_or(0, |at| at + 3);
        let end = without_query[host..].find('/').map_or(without_query.len(), |at| host + at);
        without_query.split_at(end)
    };
    if base.contains('{') {
        return Err(CallError::InvalidPackage(
            "a placeholder in the host would let an input choose where the call goes".to_owned(),
        ));
    }
    let segments: Vec<String> =
        path.split('/').map(|segment| path_segment(segment, input)).collect::<Result<_, _>>()?;
    Ok(format!("{base}{}", segments.join("/")))
}

fn path_segment(template: &str, input: &Map<String, Value>) -> Result<String, CallError> {
    let mut segment = String::new();
    let mut field = None;
    for part in template::parts(template) {
        match part {
            Part::Text(text) => segment.push_str(text),
            Part::Placeholder(name) => {
                let invalid = |message: &str| CallError::InvalidInput {
                    field: name.to_owned(),
                    message: message.to_owned(),
                };
                let value = input
                    .get(name)
                    .ok_or_else(|| invalid("it is part of the path and must be given"))?;
                let text = match value {
                    Value::Array(items) => items
                        .iter()
                        .map(|item| percent_encode(&template::text(item)))
                        .collect::<Vec<_>>()
                        .join(","),
                    other => percent_encode(&template::text(other)),
                };
                if text.is_empty() {
                    return Err(invalid("it is part of the path and must not be empty"));
                }
                segment.push_str(&text);
                field = Some(name);
            }
        }
    }
    match field {
        Some(field) if segment == "." || segment == ".." => Err(CallError::InvalidInput {
            field: field.to_owned(),
            message: format!("{segment:?} would lead to another path"),
        }),
        _ => Ok(segment),
    }
}

/// Encodes everything but the unreserved characters of RFC 3986.
fn percent_encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a String can't fail");
        }
        encoded
    })
}

/// How a list of this query parameter is joined; `None` repeats the parameter.
fn style_of<'a>(package: &'a Package, parameter: &str, input: &str) -> Option<&'a str> {
    let styles = &package.call.list_style;
    match styles.get(parameter).or_else(|| styles.get(input))?.as_str() {
        "csv" => Some(","),
        "ssv" => Some("%20"),
        "pipes" => Some("%7C"),
        _ => None,
    }
}

fn push_pairs(pairs: &mut Vec<String>, name: &str, value: &Value, separator: Option<&str>) {
    let name = percent_encode(name);
    let encode = |value: &Value| percent_encode(&template::text(value));
    match (value, separator) {
        (Value::Array(items), None) => {
            pairs.extend(items.iter().map(|item| format!("{name}={}", encode(item))));
        }
        (Value::Array(items), Some(separator)) => {
            let joined: Vec<String> = items.iter().map(encode).collect();
            pairs.push(format!("{name}={}", joined.join(separator)));
        }
        (other, _) => pairs.push(format!("{name}={}", encode(other))),
    }
}

fn query(package: &Package, endpoint: &SkillEndpoint, input: &Map<String, Value>) -> Vec<String> {
    let in_url = endpoint.url.split_once('?').map_or("", |(_, query)| query);
    let in_url = in_url.split('#').next().unwrap_or_default();
    let in_url = in_url.split('&').filter(|pair| !pair.is_empty());
    let mut pairs = Vec::new();
    for pair in in_url {
        if template::names(pair).next().is_none() {
            pairs.push(pair.to_owned());
        } else if let Some((name, text)) = pair.split_once('=') {
            push_template(&mut pairs, package, name, text, input);
        }
    }
    for (name, text) in &package.call.query {
        push_template(&mut pairs, package, name, text, input);
    }
    pairs
}

fn push_template(
    pairs: &mut Vec<String>,
    package: &Package,
    name: &str,
    text: &str,
    input: &Map<String, Value>,
) {
    if let Some(placeholder) = template::single(text) {
        if let Some(value) = input.get(placeholder) {
            push_pairs(pairs, name, value, style_of(package, name, placeholder));
        }
    } else if let Some(text) = template::fill(text, input) {
        push_pairs(pairs, name, &Value::String(text), None);
    }
}

fn headers(
    package: &Package,
    endpoint: &SkillEndpoint,
    input: &Map<String, Value>,
) -> Result<HeaderMap, CallError> {
    let mut headers = HeaderMap::new();
    for (name, text) in endpoint.headers.iter().chain(&package.call.headers) {
        let header: HeaderName = name.parse().map_err(|_| {
            CallError::InvalidPackage(format!("{name:?} in config.toml is no header name"))
        })?;
        if CONNECTION_HEADERS.contains(&header.as_str()) || header.as_str().starts_with("proxy-") {
            return Err(CallError::InvalidPackage(format!(
                "the header {header} belongs to the connection and may not be set"
            )));
        }
        let value = match template::single(text).map(|placeholder| input.get(placeholder)) {
            Some(None) => continue,
            Some(Some(Value::Array(items))) => {
                items.iter().map(template::text).collect::<Vec<_>>().join(",")
            }
            _ => match template::fill(text, input) {
                Some(text) => text,
                None => continue,
            },
        };
        let value = HeaderValue::from_str(&value).map_err(|_| CallError::InvalidInput {
            field: template::names(text).next().unwrap_or(name).to_owned(),
            message: format!("a value of the header {header} may not hold control characters"),
        })?;
        headers.insert(header, value);
    }
    Ok(headers)
}

/// Inputs that no template names, of a package that has no templates at all, as packages of older
/// systems: they go into the query of a GET or DELETE, and into the JSON body of the others.
fn unnamed_inputs(
    package: &Package,
    endpoint: &SkillEndpoint,
    input: &Map<String, Value>,
) -> Map<String, Value> {
    let call = &package.call;
    if !call.query.is_empty() || !call.headers.is_empty() || call.body.is_some() {
        return Map::new();
    }
    let in_headers = endpoint.headers.values().flat_map(|text| template::names(text));
    let named: Vec<&str> = template::names(&endpoint.url).chain(in_headers).collect();
    input
        .iter()
        .filter(|(name, _)| !named.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn encode_body(
    package: &Package,
    body: &Value,
    headers: &mut HeaderMap,
) -> Result<Vec<u8>, CallError> {
    let declared = match &package.call.content_type {
        Some(declared) => declared.clone(),
        None => headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or(JSON)
            .to_owned(),
    };
    let media_type = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let bytes = if is_json(&media_type) {
        body.to_string().into_bytes()
    } else if media_type == FORM {
        form(body)?
    } else if media_type.starts_with("multipart/") {
        return Err(CallError::InvalidPackage(format!(
            "a body of type {media_type} is not supported"
        )));
    } else {
        template::text(body).into_bytes()
    };
    let value = HeaderValue::from_str(&declared).map_err(|_| {
        CallError::InvalidPackage(format!("{declared:?} in config.toml is no content type"))
    })?;
    headers.insert(CONTENT_TYPE, value);
    Ok(bytes)
}

/// Whether a media type is JSON: `application/json`, `text/json`, `application/problem+json`.
pub(super) fn is_json(media_type: &str) -> bool {
    matches!(media_type, JSON | "text/json") || media_type.ends_with("+json")
}

fn form(body: &Value) -> Result<Vec<u8>, CallError> {
    let Value::Object(fields) = body else {
        return Err(CallError::InvalidPackage(
            "a form body must be an object of its fields".to_owned(),
        ));
    };
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in fields {
        match value {
            Value::Array(items) => {
                for item in items {
                    form.append_pair(name, &template::text(item));
                }
            }
            other => {
                form.append_pair(name, &template::text(other));
            }
        }
    }
    Ok(form.finish().into_bytes())
}

#[cfg(test)]
mod tests {
    use evo_common::{artifact::Files, skill::files};
    use serde_json::json;

    use super::*;

    /// A package with inputs of type `any` and this config.
    fn package(inputs: &[&str], config: &str) -> Package {
        let mut manifest = "name = \"a\"\nversion = \"0.1.0\"\ndescription = \"\"\ncapabilities = []\noutputs = []\n".to_owned();
        if inputs.is_empty() {
            manifest.push_str("inputs = []\n");
        }
        for name in inputs {
            manifest.push_str(&format!("[[inputs]]\nname = \"{name}\"\ntype = \"any\"\n"));
        }
        let files: Files = [
            (files::MANIFEST.to_owned(), manifest.into_bytes()),
            (files::CONFIG.to_owned(), config.as_bytes().to_vec()),
        ]
        .into();
        Package::from_files(files).unwrap()
    }

    fn config(method: &str, url: &str, extra: &str) -> String {
        format!(
            "[[endpoints]]\nname = \"call\"\nurl = \"{url}\"\nmethod = \"{method}\"\n[extra]\nserver = \"pets\"\n{extra}"
        )
    }

    fn policy() -> CallPolicy {
        CallPolicy {
            servers: [("pets".to_owned(), "http://127.0.0.1:9/v1/".to_owned())].into(),
            ..CallPolicy::default()
        }
    }

    fn request(inputs: &[&str], config: &str, input: Value) -> Result<Request, CallError> {
        build(&package(inputs, config), input.as_object().unwrap(), &policy())
    }

    fn url(inputs: &[&str], config: &str, input: Value) -> String {
        request(inputs, config, input).unwrap().url.to_string()
    }

    #[test]
    fn path_values_stay_in_their_segment() {
        let config = config("GET", "{server}/pets/{id}/x-{tag}", "");
        let call = |id: Value| request(&["id", "tag"], &config, json!({"id": id, "tag": "a b"}));
        let path = |id: Value| call(id).unwrap().url.to_string();
        assert_eq!(path(json!(7)), "http://127.0.0.1:9/v1/pets/7/x-a%20b");
        assert_eq!(
            path(json!("a/b?c#d%é")),
            "http://127.0.0.1:9/v1/pets/a%2Fb%3Fc%23d%25%C3%A9/x-a%20b"
        );
        assert_eq!(path(json!(["a", "b,c"])), "http://127.0.0.1:9/v1/pets/a,b%2Cc/x-a%20b");
        assert_eq!(path(json!("../..")), "http://127.0.0.1:9/v1/pets/..%2F../x-a%20b");
        for bad in [json!(""), json!("."), json!("..")] {
            assert_eq!(call(bad.clone()).unwrap_err().code(), "invalid_input", "{bad}");
        }
        let missing = request(&["id", "tag"], &config, json!({"id": 1})).unwrap_err();
        assert!(matches!(missing, CallError::InvalidInput { field, .. } if field == "tag"));
    }

    #[test]
    fn an_input_can_not_choose_the_host() {
        let config = config("GET", "https://{id}.example.com/", "");
        assert_eq!(
            request(&["id"], &config, json!({"id": "a"})).unwrap_err().code(),
            "invalid_package"
        );
    }

    #[test]
    fn lists_are_joined_as_declared() {
        let extra = "[extra.query]\na = \"{a}\"\nb = \"{b}\"\nc = \"{c}\"\nd = \"{d}\"\ne = \"x-{e}\"\nf = \"fixed\"\n[extra.list_style]\nb = \"csv\"\nc = \"ssv\"\nd = \"pipes\"\n";
        let config = config("GET", "{server}/p?z={a}&y=1&n={none}", extra);
        let inputs = ["a", "b", "c", "d", "e", "none"];
        let list = json!(["1 2", "3&4"]);
        assert_eq!(
            url(&inputs, &config, json!({"a": list, "b": list, "c": list, "d": list, "e": true})),
            "http://127.0.0.1:9/v1/p?z=1%202&z=3%264&y=1&a=1%202&a=3%264&b=1%202,3%264&c=1%202%203%264&d=1%202%7C3%264&e=x-true&f=fixed"
        );
        assert_eq!(url(&inputs, &config, json!({})), "http://127.0.0.1:9/v1/p?y=1&f=fixed");
    }

    #[test]
    fn headers_are_filled_and_connection_headers_refused() {
        let extra = "[extra.headers]\nX-Id = \"{id}\"\nX-Tag = \"t-{tag}\"\n";
        let config_text = config("GET", "{server}/p", extra);
        let request_ = request(&["id", "tag"], &config_text, json!({"id": [1, "b"]})).unwrap();
        assert_eq!(request_.headers["x-id"], "1,b");
        assert!(!request_.headers.contains_key("x-tag"));
        let split = request(&["id", "tag"], &config_text, json!({"id": "a\r\nb"})).unwrap_err();
        assert!(matches!(split, CallError::InvalidInput { field, .. } if field == "id"));
        let config_text = config("GET", "{server}/p", "[extra.headers]\nHost = \"{id}\"\n");
        let refused = request(&["id"], &config_text, json!({"id": "a"})).unwrap_err();
        assert_eq!(refused.code(), "invalid_package");
    }

    #[test]
    fn bodies_follow_their_content_type() {
        let inputs = ["body", "n"];
        let body = |extra: &str, input: Value| {
            let request = request(&inputs, &config("POST", "{server}/p", extra), input).unwrap();
            let content_type = request
                .headers
                .get(CONTENT_TYPE)
                .map(|value| value.to_str().unwrap().to_owned())
                .unwrap_or_default();
            (String::from_utf8(request.body.unwrap_or_default()).unwrap(), content_type)
        };
        let pair = |body: &str, kind: &str| (body.to_owned(), kind.to_owned());
        assert_eq!(
            body("body = \"{body}\"\n", json!({"body": {"a": [1]}})),
            pair("{\"a\":[1]}", JSON)
        );
        assert_eq!(body("body = \"{body}\"\n", json!({})), pair("", ""));
        assert_eq!(
            body("[extra.body]\nkeep = 1\nn = \"{n}\"\ngone = \"{body}\"\n", json!({"n": "x"})),
            pair("{\"keep\":1,\"n\":\"x\"}", JSON)
        );
        assert_eq!(
            body(
                "content_type = \"application/x-www-form-urlencoded\"\n[extra.body]\na = \"{n}\"\nb = \"{body}\"\n",
                json!({"n": ["x y", 2], "body": "&"})
            ),
            pair("a=x+y&a=2&b=%26", FORM)
        );
        assert_eq!(
            body("content_type = \"text/plain\"\nbody = \"n is {n}\"\n", json!({"n": 3})),
            pair("n is 3", "text/plain")
        );
    }

    #[test]
    fn packages_without_templates_send_their_inputs() {
        let get = config("GET", "{server}/p/{id}", "");
        assert_eq!(
            url(&["id", "q"], &get, json!({"id": 1, "q": "x"})),
            "http://127.0.0.1:9/v1/p/1?q=x"
        );
        let post = config("POST", "{server}/p/{id}", "");
        let request_ = request(&["id", "q"], &post, json!({"id": 1, "q": "x"})).unwrap();
        assert_eq!(request_.body.as_deref(), Some(&b"{\"q\":\"x\"}"[..]));
    }

    #[test]
    fn a_server_without_address_is_unreachable() {
        let config = config("GET", "{server}/p", "").replace("\"pets\"", "\"cats\"");
        assert_eq!(request(&[], &config, json!({})).unwrap_err().code(), "unreachable");
    }

    proptest::proptest! {
        /// Whatever an input holds, the path keeps its shape.
        #[test]
        fn one_segment_per_placeholder(value in ".{1,30}") {
            let config = config("GET", "{server}/pets/{id}/end", "");
            if let Ok(request) = request(&["id"], &config, json!({"id": value})) {
                let segments: Vec<_> = request.url.path_segments().unwrap().collect();
                proptest::prop_assert_eq!(segments.len(), 4);
                proptest::prop_assert_eq!((segments[0], segments[1], segments[3]), ("v1", "pets", "end"));
                proptest::prop_assert_eq!(request.url.query(), None);
            }
        }
    }
}
