//! Models, providers and the document.

use super::*;

async fn two() -> (Fake, Bed) {
    let fake = Fake::says(200, &[], "{}").await;
    let mut first = fake.provider("first", OPENAI);
    first["models"] = json!(["configured", "org/slashed"]);
    first["model_metadata"] =
        json!({"configured": {"context_window": 8, "cost": {"input": 1.0, "output": 2.5}}});
    let mut off = fake.provider("off", ANTHROPIC);
    off["enabled"] = false.into();
    off["models"] = json!(["unseen"]);
    let mut keyless = fake.provider("keyless", ANTHROPIC);
    keyless["api_key_envs"] = json!(["UNSET_KEY"]);
    let gone = provider_at("http://127.0.0.1:9/v1", "gone", ANTHROPIC);
    let bed = Bed::start(config(&[first, off, keyless, gone])).await;
    (fake, bed)
}

fn ids(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn models_are_listed_in_both_dialects() {
    let (_fake, bed) = two().await;
    let refreshed = bed.post("/v1/models/refresh", "").await;
    assert_eq!(refreshed.status, 200);
    let all = ["first:configured", "first:org/slashed", "first:listed"];
    assert_eq!(ids(&refreshed.json()), all);
    let list = bed.get("/v1/models").await.json();
    assert_eq!(list["object"], "list");
    assert_eq!(ids(&list), all);
    assert_eq!(
        list["data"][0],
        json!({
            "id": "first:configured", "object": "model", "created": 0, "owned_by": "first",
            "provider": "first", "provider_type": "open_ai_compatible", "context_window": 8,
            "cost": {"input": 1.0, "output": 2.5},
        })
    );
    let anthropic = |path: &str| {
        let request = bed.request("GET", path).header("anthropic-version", "2023-06-01");
        bed.send(request.body(Full::default()).unwrap())
    };
    let list = anthropic("/v1/models?limit=20").await.json();
    assert_eq!(ids(&list), all);
    assert_eq!((&list["has_more"], &list["first_id"]), (&json!(false), &json!(all[0])));
    assert_eq!(list["data"][0]["type"], "model");
    assert_eq!(list["data"][0]["created_at"], "1970-01-01T00:00:00Z");

    for name in ["first:configured", "configured", "listed", "first:org/slashed", "org/slashed"] {
        let model = bed.get(&format!("/v1/models/{name}")).await;
        assert_eq!(model.status, 200, "{name}");
        assert!(model.json()["id"].as_str().unwrap().ends_with(name), "{name}");
        assert_eq!(anthropic(&format!("/v1/models/{name}")).await.json()["type"], "model");
    }
    let of_first = bed.get("/v1/models/first").await.json();
    let first: Vec<&str> = all.iter().copied().filter(|id| id.starts_with("first:")).collect();
    assert_eq!(ids(&of_first), first);
    assert_eq!(ids(&anthropic("/v1/models/first").await.json()), first);
    for name in ["nothing", "first:nothing", "off:unseen", "unseen", "a/b/c"] {
        let got = bed.get(&format!("/v1/models/{name}")).await;
        assert_eq!(got.status, 404, "{name}");
        assert_eq!(got.json()["error"]["code"], "model_not_found", "{name}");
        let got = anthropic(&format!("/v1/models/{name}")).await.json();
        assert_eq!(
            (&got["type"], &got["error"]["type"]),
            (&json!("error"), &json!("not_found_error"))
        );
    }
    bed.stop().await;
}

/// A model of a provider's list is routed there, though the configuration does not know it.
#[tokio::test]
async fn a_listed_model_finds_its_provider() {
    let fake = Fake::says(200, &[], "{}").await;
    let quiet = Fake::start(|_| async { Response::new(Body::from("{}")) }).await;
    let mut preferred = quiet.provider("openai", ANTHROPIC);
    // This one's list can't be read.
    preferred["base_url"] = json!("http://127.0.0.1:9/v1");
    let bed = Bed::start(config(&[preferred, fake.provider("z", OPENAI)])).await;
    bed.post("/v1/models/refresh", "").await;
    assert_eq!(bed.chat(&chat("listed")).await.header("x-evo-provider"), "z");
    assert_eq!(fake.last().json()["model"], "listed");
    bed.stop().await;
}

#[tokio::test]
async fn providers_say_why_they_cannot_be_called() {
    let (_fake, bed) = two().await;
    bed.post("/v1/models/refresh", "").await;
    let list = bed.get("/v1/providers").await;
    assert!(!list.text().contains("secret"), "{}", list.text());
    let list = list.json();
    assert_eq!(list["count"], 4);
    let row = |index: usize| {
        let provider = &list["providers"][index];
        ["name", "enabled", "usable", "code", "models"].map(|key| provider[key].clone())
    };
    assert_eq!(row(0), [json!("first"), json!(true), json!(true), json!(null), json!(3)]);
    assert_eq!(
        row(1),
        [json!("off"), json!(false), json!(false), json!("provider_disabled"), json!(0)]
    );
    assert_eq!(
        row(2),
        [json!("keyless"), json!(true), json!(false), json!("provider_has_no_key"), json!(0)]
    );
    assert_eq!(list["providers"][2]["unset_variables"], json!(["UNSET_KEY"]));
    let gone = &list["providers"][3];
    assert_eq!((&gone["usable"], &gone["models"]), (&json!(true), &json!(0)));
    assert!(gone["discovery_error"].as_str().unwrap().contains("refused"), "{gone}");
    assert!(gone["discovered_at"].is_string());
    bed.stop().await;
}

fn document() -> Value {
    serde_json::to_value(super::super::document()).unwrap()
}

/// What is wrong with a value by one of the document's schemas.
fn faults_of(schema: &Value, value: &Value) -> Vec<String> {
    let mut schema = schema.clone();
    schema["components"] = document()["components"].clone();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

/// Method, path and value of every operation.
fn operations() -> Vec<(String, String, Value)> {
    let document = document();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, value) in item.as_object().unwrap() {
            operations.push((method.to_uppercase(), path.clone(), value.clone()));
        }
    }
    assert_eq!(operations.len(), 36);
    operations
}

#[test]
fn the_document_is_complete_and_its_examples_are_true() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document["security"], json!([{"bearer": []}]));
    let tags: Vec<_> = document["tags"].as_array().unwrap().iter().map(|t| &t["name"]).collect();
    let mut ids = std::collections::BTreeSet::new();
    for (method, path, value) in operations() {
        let name = format!("{method} {path}");
        let id = value["operationId"].as_str().unwrap_or_else(|| panic!("{name} has no id"));
        assert!(ids.insert(id.to_owned()), "{id} is there twice");
        assert!(tags.contains(&&value["tags"][0]), "{name}");
        for text in ["summary", "description"] {
            assert!(!value[text].as_str().unwrap_or_default().is_empty(), "{name} has no {text}");
        }
        let mut examples = 0;
        for parameter in value["parameters"].as_array().into_iter().flatten() {
            // No model, provider and key is there for certain, so none can be an example.
            let is_a_name = parameter["in"] == "path";
            assert_eq!(parameter.get("example").is_none(), is_a_name, "{name}");
            examples += 1;
        }
        let answered = value["responses"].get("200").unwrap_or(&value["responses"]["201"]);
        let answers = &answered["content"];
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
        assert!(examples > 0, "{name} has no example and no parameter");
        if path == "/health" {
            assert_eq!(value["security"], json!([]));
        } else {
            let changes = path.starts_with("/admin/") && method != "GET";
            let scope = if changes { "operator" } else { "gateway" };
            assert_eq!(value["x-evo-scope"], scope, "{name}");
        }
        for (status, response) in value["responses"].as_object().unwrap() {
            let is_text = path == "/metrics" && status.as_str() == "200";
            let kind = if is_text { evo_common::metrics::CONTENT_TYPE } else { "application/json" };
            let schema = &response["content"][kind]["schema"];
            assert!(schema.is_object(), "{name} {status}");
            if !status.starts_with('2') {
                assert_eq!(schema["$ref"], "#/components/schemas/ErrorBody", "{name} {status}");
            }
        }
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
}

/// Learning runs the operations that only read, on an installation without providers.
#[tokio::test]
async fn every_operation_answers_as_the_document_says() {
    let folder = tempfile::tempdir().unwrap();
    let database = Some(folder.path().join("gateway.db"));
    let bed = Bed::start(Config { database, ..config(&[]) }).await;
    let mut operations = operations();
    // What the others do is a part of what some of these answer.
    operations.sort_by_key(|(method, ..)| method != "GET");
    for (method, path, value) in operations {
        let name = format!("{method} {path}");
        let real = path.replace("{model}", "openai:gpt-4o-mini").replace("{name}", "none");
        let example = &value["requestBody"]["content"]["application/json"]["example"];
        let body = if example.is_null() { String::new() } else { example.to_string() };
        let request = bed.request(&method, &real).body(Full::new(body.into())).unwrap();
        let got = bed.send(request).await;
        let response = &value["responses"][got.status.as_str()];
        assert!(response.is_object(), "{name} answers {} without saying so", got.status);
        if path == "/metrics" {
            assert_eq!(got.header("content-type"), evo_common::metrics::CONTENT_TYPE);
            continue;
        }
        assert!(got.header("content-type").starts_with("application/json"), "{name}");
        let schema = &response["content"]["application/json"]["schema"];
        // These answer in their callers' shapes.
        let other_shapes = ["/v1/messages", "/v1beta/", "/api/"];
        if !other_shapes.iter().any(|start| path.starts_with(start)) {
            assert_eq!(faults_of(schema, &got.json()), Vec::<String>::new(), "{name}");
        }
        let reads = method == "GET" && !path.contains('{');
        assert!(!reads || got.status == 200, "{name}: {}", got.status);
        if reads && !["/openapi.json", "/admin/config"].contains(&path.as_str()) {
            let example = &response["content"]["application/json"]["example"];
            assert_eq!(got.json(), *example, "{name}");
        }
    }
    bed.stop().await;
}
