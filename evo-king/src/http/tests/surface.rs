//! The whole surface: every operation that the document names is called, without a token, with
//! every wrong one and with the right one, and every answer must be the one that the document
//! promises.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex},
};

use super::*;

/// Made once: it is large.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::to_value(document()).unwrap());

/// One operation of the document.
struct Operation {
    method: Method,
    route: String,
    /// With the examples of its path parameters.
    path: String,
    /// The examples of its query parameters.
    query: Vec<(String, String)>,
    scope: Option<Scope>,
    value: Value,
}

fn operations() -> Vec<Operation> {
    let document = &*DOCUMENT;
    let mut operations = Vec::new();
    for (route, item) in document["paths"].as_object().unwrap() {
        for (method, value) in item.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let (mut path, mut query) = (route.clone(), Vec::new());
            for parameter in value["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap();
                let Some(example) = parameter.get("example") else { continue };
                match parameter["in"].as_str().unwrap() {
                    "path" => path = path.replace(&format!("{{{name}}}"), &plain(example)),
                    _ => query.push((name.to_owned(), plain(example))),
                }
            }
            let scope = auth::needed_scope(&method, route);
            let (route, value) = (route.clone(), value.clone());
            operations.push(Operation { method, route, path, query, scope, value });
        }
    }
    assert!(operations.len() >= 20, "the document lost operations");
    operations
}

impl Operation {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.route)
    }

    fn lets_in(&self, scope: Scope, needed: Scope) -> bool {
        auth::is_enough(scope, needed, &self.method, &self.route)
    }

    fn streams(&self) -> bool {
        self.value["responses"]["200"]["content"].get("text/event-stream").is_some()
    }

    /// Checks that an answer is one that the document promises: its status, its content type and
    /// its shape.
    fn check(&self, answer: &Answer) {
        let name = self.name();
        let response = &self.value["responses"][answer.status.as_str()];
        assert!(response.is_object(), "{name} answers {} without saying so", answer.status);
        let kind = answer.headers[header::CONTENT_TYPE].to_str().unwrap();
        let schema = &response["content"][kind]["schema"];
        assert!(schema.is_object(), "{name} answers {} as {kind}", answer.status);
        if kind != "application/json" {
            return;
        }
        let body = answer.json();
        let faults = faults_of(schema, &body);
        assert!(faults.is_empty(), "{name} answers {} with {faults:?}: {body}", answer.status);
    }
}

/// What is wrong with a value by one of the document's schemas.
fn faults_of(schema: &Value, value: &Value) -> Vec<String> {
    static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<jsonschema::Validator>>>> =
        LazyLock::new(Mutex::default);
    let mut validators = VALIDATORS.lock().unwrap();
    let validator = validators.entry(schema.to_string()).or_insert_with(|| {
        let mut schema = schema.clone();
        schema["components"] = DOCUMENT["components"].clone();
        Arc::new(jsonschema::draft202012::new(&schema).unwrap())
    });
    let validator = validator.clone();
    drop(validators);
    validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

#[test]
fn every_operation_has_an_example_and_the_examples_are_true() {
    for operation in operations() {
        let (name, value) = (operation.name(), &operation.value);
        // Their bodies are files, or nothing is asked for; of MCP, whoever has a session knows its id.
        let bare = ["/admin/restore", "/skills/export", "/skills/import", "/mcp"];
        if bare.contains(&&*operation.route) {
            continue;
        }
        let parameters = value["parameters"].as_array().into_iter().flatten();
        let mut examples = parameters.filter(|p| p.get("example").is_some()).count();
        let answers = &value["responses"]["200"]["content"];
        let (text, answer) =
            (&answers[evo_common::metrics::CONTENT_TYPE], &answers["application/json"]);
        examples += usize::from(text.get("example").is_some());
        for content in [&value["requestBody"]["content"]["application/json"], answer] {
            if let Some(example) = content.get("example") {
                examples += 1;
                let faults = faults_of(&content["schema"], example);
                assert!(faults.is_empty(), "{name}: {faults:?} in {example}");
            }
        }
        assert!(examples > 0, "{name} has no example");
    }
}

#[test]
fn the_document_is_complete() {
    let document = &*DOCUMENT;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document["security"], json!([{"bearer": []}]));
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    let tags: Vec<_> = document["tags"].as_array().unwrap().iter().map(|t| &t["name"]).collect();
    let mut ids = std::collections::BTreeSet::new();
    for operation in operations() {
        let (name, value) = (operation.name(), &operation.value);
        let id = value["operationId"].as_str().unwrap_or_else(|| panic!("{name} has no id"));
        assert!(ids.insert(id.to_owned()), "{id} is there twice");
        assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{id}");
        let own = value["tags"].as_array().unwrap_or_else(|| panic!("{name} has no tag"));
        assert!(own.len() == 1 && tags.contains(&&own[0]), "{name} has the tags {own:?}");
        for text in ["summary", "description"] {
            assert!(!value[text].as_str().unwrap_or_default().is_empty(), "{name} has no {text}");
        }
        for parameter in value["parameters"].as_array().into_iter().flatten() {
            let parameter_name = &parameter["name"];
            assert!(!parameter["description"].as_str().unwrap_or_default().is_empty());
            if parameter["required"] == json!(true) {
                assert!(parameter.get("example").is_some(), "{name} {parameter_name}");
            }
        }
        let responses = value["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{name}");
        for (status, response) in responses {
            let content = response["content"].as_object().unwrap();
            assert!(content.values().all(|c| c["schema"].is_object()), "{name} {status}");
            if !status.starts_with('2') {
                let schema = &content["application/json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/ErrorBody", "{name} {status}");
            }
        }
        match operation.scope {
            Some(scope) => assert_eq!(value["x-evo-scope"], scope.as_str(), "{name}"),
            None => assert_eq!(value["security"], json!([]), "{name}"),
        }
    }
    assert_eq!(
        operations().iter().filter(|o| o.scope.is_none()).count(),
        2,
        "only /health, /ready"
    );
}

/// Every reference leads somewhere, and every schema is one.
#[test]
fn the_document_refers_to_what_is_there() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    found.push(reference.clone());
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = &*DOCUMENT;
    let mut found = Vec::new();
    references(document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

/// What a call with the operation's examples looks like.
fn example_call(server: &Server, operation: &Operation) -> http::request::Builder {
    let query: Vec<_> = operation.query.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let path = if query.is_empty() {
        operation.path.clone()
    } else {
        format!("{}?{}", operation.path, query.join("&"))
    };
    server.request(operation.method.clone(), &path)
}

fn example_body(operation: &Operation) -> Body {
    match operation.route.as_str() {
        "/artifacts/{digest}" if operation.method == Method::PUT => {
            artifact::pack(&artifact::Files::new()).unwrap().1.into()
        }
        _ => Body::empty(),
    }
}

#[tokio::test]
async fn every_operation_refuses_strangers_and_wrong_tokens() {
    let server = Server::seeded().await;
    for operation in operations() {
        let name = operation.name();
        let Some(needed) = operation.scope else { continue };
        let refused = async |token: Option<&str>| {
            let mut request = example_call(&server, &operation);
            if let Some(token) = token {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let answer = server.send(request.body(example_body(&operation)).unwrap()).await;
            operation.check(&answer);
            (answer.status, answer.code(), answer.headers)
        };
        for token in [None, Some(""), Some("evo_op_0000"), Some("nonsense")] {
            let (status, code, headers) = refused(token).await;
            assert_eq!((status, &*code), (StatusCode::UNAUTHORIZED, "unauthorized"), "{name}");
            assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer realm=\"evo-king\"", "{name}");
        }
        for scope in Scope::ALL.into_iter().filter(|scope| !operation.lets_in(*scope, needed)) {
            let (status, code, _) = refused(Some(&server.token(scope))).await;
            assert_eq!((status, &*code), (StatusCode::FORBIDDEN, "forbidden"), "{name}");
        }
    }
}

/// On an empty king and on one that has something of everything. What only reads shares the two; what
/// may change something has two of its own for every call.
#[tokio::test]
async fn every_operation_lets_the_right_token_in_and_answers_as_documented() {
    let shared = [Server::start().await, Server::seeded().await];
    for operation in operations() {
        let allowed: Vec<Option<Scope>> = match operation.scope {
            Some(needed) => Scope::ALL
                .into_iter()
                .filter(|scope| operation.lets_in(*scope, needed))
                .map(Some)
                .collect(),
            None => [None].into_iter().chain(Scope::ALL.map(Some)).collect(),
        };
        // A stream has no end of its own; it gets one with its king.
        let only_reads = operation.method == Method::GET && !operation.streams();
        for scope in allowed {
            if only_reads {
                for server in &shared {
                    lets_in(server, &operation, scope).await;
                }
                continue;
            }
            let (empty, seeded) = tokio::join!(Server::start(), Server::seeded());
            for server in [empty, seeded] {
                if operation.streams() {
                    server.king.shutdown.cancel();
                }
                lets_in(&server, &operation, scope).await;
            }
        }
    }
}

async fn lets_in(server: &Server, operation: &Operation, scope: Option<Scope>) {
    let mut request = example_call(server, operation);
    if let Some(scope) = scope {
        request = request.header("x-api-key", server.token(scope));
    }
    let answer = server.send(request.body(example_body(operation)).unwrap()).await;
    let refusals = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
    assert!(!refusals.contains(&answer.status), "{}", operation.name());
    assert!(answer.status != StatusCode::INTERNAL_SERVER_ERROR, "{}", operation.name());
    operation.check(&answer);
}

/// Learning runs the examples of operations that only read; each must succeed where a cycle runs.
#[tokio::test]
async fn every_example_of_a_read_works_once_a_cycle_runs() {
    let server = Server::seeded().await;
    for operation in operations() {
        // There is no gateway here.
        let of_gateway = operation.path.starts_with("/gateway/");
        if operation.method != Method::GET || operation.streams() || of_gateway {
            continue;
        }
        for query in [true, false] {
            let request = if query {
                example_call(&server, &operation)
            } else {
                server.request(Method::GET, &operation.path)
            };
            let token = server.token(operation.scope.unwrap_or(Scope::Viewer));
            let request = request.header("x-api-key", token);
            let answer = server.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", operation.name());
            operation.check(&answer);
        }
    }
}
