use evo_common::{
    case::{Case, Expectation},
    config::{SourceConfig, sources::KING_LOCATION},
    skill::{SkillIO, is_valid_name},
};
use proptest::prelude::*;
use serde_json::json;

use super::{cases::with_declared_schema, *};
use crate::skill::{package::Package, skill_md};

const V2: &str = include_str!("fixtures/shop-2.0.yaml");
const V30: &str = include_str!("fixtures/shop-3.0.json");
const V31: &str = include_str!("fixtures/shop-3.1.yaml");

fn source(location: &str) -> SourceConfig {
    SourceConfig::openapi("shop", location)
}

fn learned(text: &str, source: &SourceConfig) -> Vec<(Candidate, Operation)> {
    let document = Document::parse(text.as_bytes(), &source.location).unwrap();
    candidates(&document, source, &mut Names::default())
        .into_iter()
        .map(|candidate| {
            let operation = serde_json::from_value(candidate.definition.clone()).unwrap();
            (candidate, operation)
        })
        .collect()
}

fn find(text: &str, locator: &str) -> (Candidate, Operation) {
    let all = learned(text, &source("shop.yaml"));
    all.into_iter().find(|(candidate, _)| candidate.locator == locator).unwrap()
}

fn overview(text: &str, source: &SourceConfig) -> Vec<String> {
    learned(text, source)
        .into_iter()
        .map(|(candidate, operation)| {
            let auth = operation
                .auth
                .map(|auth| format!(" {} {}", auth.kind.as_deref().unwrap_or("-"), auth.auth_ref));
            format!(
                "{} = {} {}{}, {} cases",
                candidate.name,
                operation.method,
                operation.url,
                auth.unwrap_or_default(),
                candidate.cases.len()
            )
        })
        .collect()
}

#[test]
fn swagger_2_is_read() {
    assert_eq!(
        overview(V2, &source("shop.yaml")),
        [
            "shop-list-items = GET https://shop.example.com/v2/items, 7 cases",
            "shop-add-item = POST https://shop.example.com/v2/items header:X-Shop-Key SHOP_TOKEN, 5 cases",
            "shop-post-items-id-photo = POST https://shop.example.com/v2/items/{id}/photo, 0 cases",
        ]
    );
    let (_, photo) = find(V2, "POST /items/{id}/photo");
    assert_eq!(photo.problem.unwrap().code, "invalid_package");
    assert_eq!(photo.parameters[0].r#type, "integer");
}

#[test]
fn openapi_3_0_is_read() {
    let lines = overview(V30, &source("shop.json"));
    assert_eq!(
        lines[0],
        "shop-get-item-by-id = GET https://eu.example.com/v3/items/{item_id} bearer SHOP_TOKEN, 6 cases"
    );
    assert!(lines[1].starts_with("shop-get-item-by-id-"), "{}", lines[1]);
    assert_eq!(
        lines[2..],
        [
            "shop-stream-events = GET https://eu.example.com/v3/events bearer SHOP_TOKEN, 0 cases",
            "shop-get-files-path = GET https://eu.example.com/v3/files/{path} bearer SHOP_TOKEN, 0 cases",
            "shop-search = POST https://eu.example.com/v3/search bearer SHOP_TOKEN, 2 cases",
            "shop-options-options = OPTIONS https://eu.example.com/v3/options bearer SHOP_TOKEN, 0 cases",
        ]
    );
    let (_, events) = find(V30, "GET /events");
    assert!(events.streaming);
    let (_, files) = find(V30, "GET /files/{path:.*}");
    assert_eq!(
        files.answer.unresolved.as_deref(),
        Some("the reference \"files.json#/File\" is external")
    );
    assert_eq!(files.without_sample().unwrap().input, "path");
    assert_eq!(files.answer.schema, None);
    let (_, search) = find(V30, "POST /search");
    let inputs: Vec<&str> = search.parameters.iter().map(|p| p.input.as_str()).collect();
    assert_eq!(inputs, ["q", "page"]);
    assert!(search.is_allowed(&source("x")));
}

#[test]
fn openapi_3_1_without_servers_is_called_where_its_document_is() {
    assert_eq!(
        overview(V31, &source("https://shop.example.com:8443/docs/openapi.yaml?x=1")),
        [
            "shop-health = GET https://shop.example.com:8443/health, 1 cases",
            "shop-items = GET https://shop.example.com:8443/items, 0 cases",
        ]
    );
    assert_eq!(
        overview(V31, &source("shop.yaml"))[0],
        "shop-health = GET {server}/health, 1 cases"
    );
    let (_, items) = find(V31, "GET /items");
    assert_eq!(items.without_sample().unwrap().name, "since");
}

#[test]
fn built_in_sources_get_their_token_where_the_document_asks_for_it() {
    assert_eq!(
        overview(V31, &source(KING_LOCATION)),
        [
            "shop-health = GET {server}/health, 1 cases",
            "shop-items = GET {server}/items bearer EVO_VIEWER_TOKEN, 0 cases",
        ]
    );
}

#[test]
fn a_base_url_replaces_the_documents_own_and_stays_out_of_the_fingerprint() {
    let mut first = source("shop.json");
    first.base_url = Some("http://127.0.0.1:4000".to_owned());
    let mut second = first.clone();
    second.base_url = Some("http://127.0.0.1:4001".to_owned());
    let fingerprints = |source: &SourceConfig| -> Vec<String> {
        learned(V30, source).into_iter().map(|(candidate, _)| candidate.fingerprint).collect()
    };
    assert_eq!(fingerprints(&first), fingerprints(&second));
    assert_ne!(fingerprints(&first), fingerprints(&source("shop.json")));
    let (_, operation) = &learned(V30, &first)[0];
    assert_eq!(
        (operation.url.as_str(), operation.server.as_deref()),
        ("{server}/items/{item_id}", Some("shop"))
    );
}

#[test]
fn a_document_from_an_allowed_origin_is_served_there_unless_the_one_it_names_is_allowed_too() {
    let document = r#"{"swagger": "2.0", "info": {"title": "t", "version": "1"},
        "host": "public.example", "basePath": "/v1", "schemes": ["https"],
        "paths": {"/x": {"get": {"responses": {"200": {"description": "ok"}}}}}}"#;
    let url = |allowed: &[&str]| {
        let mut source = source("http://127.0.0.1:8000/spec.json");
        source.allow_origins = allowed.iter().map(|&origin| origin.to_owned()).collect();
        learned(document, &source)[0].1.url.clone()
    };
    assert_eq!(url(&[]), "https://public.example/v1/x");
    assert_eq!(url(&["http://127.0.0.1:8000"]), "http://127.0.0.1:8000/v1/x");
    let both = ["http://127.0.0.1:8000", "https://public.example"];
    assert_eq!(url(&both), "https://public.example/v1/x");
}

#[test]
fn an_operation_becomes_a_whole_candidate() {
    let (candidate, operation) = find(V30, "GET /items/{item_id}");
    let schema = json!({
        "$ref": "#/$defs/Item",
        "$defs": {"Item": {
            "type": "object",
            "required": ["id"],
            "properties": {
                "id": {"type": "string"},
                "price": {"type": ["number", "null"], "exclusiveMinimum": 0},
                "secret": {"type": "string"},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
        }},
    });
    assert_eq!(operation.answer.schema, Some(schema));
    let expect = Expectation {
        status: vec![200],
        content_type: Some("application/json".to_owned()),
        declared_schema: true,
        ..Expectation::default()
    };
    let case = |id: &str, input: Value, origin: &str, expect: &Expectation| Case {
        case_id: id.to_owned(),
        input: input.as_object().unwrap().clone(),
        expect: expect.clone(),
        origin: origin.to_owned(),
        pinned: false,
    };
    let first =
        Expectation { non_empty: vec![String::new(), "/tags".to_owned()], ..expect.clone() };
    let refusal = Expectation { refusal: true, ..Expectation::default() };
    let ids: Vec<String> = candidate.cases.iter().map(|case| case.case_id.clone()).collect();
    let definition = candidate.definition.clone();
    let expected = Candidate {
        kind: evo_common::stage::CandidateKind::Openapi,
        request_id: None,
        name: "shop-get-item-by-id".to_owned(),
        source: "shop".to_owned(),
        locator: "GET /items/{item_id}".to_owned(),
        description: "Shows one item.".to_owned(),
        capabilities: ["items", "read"].map(str::to_owned).to_vec(),
        fingerprint: fingerprint(&definition),
        demand: 1.0,
        deterministic: true,
        definition,
        cases: vec![
            case(&ids[0], json!({"item_id": "lamp"}), "example", &first),
            case(&ids[1], json!({"item_id": "lamp", "fields": ["id"]}), "enum", &expect),
            case(&ids[2], json!({"item_id": "lamp", "currency": "EUR"}), "enum", &expect),
            case(&ids[3], json!({"item_id": "lamp", "fields": ["price"]}), "enum", &expect),
            case(&ids[4], json!({"item_id": "lamp", "currency": "USD"}), "enum", &expect),
            case(
                &ids[5],
                json!({"item_id": "lamp", "currency": "evo-no-such-value"}),
                "boundary",
                &refusal,
            ),
        ],
        written: Vec::new(),
        past: None,
    };
    assert_eq!(candidate, expected);
    let again = find(V30, "GET /items/{item_id}").0;
    assert_eq!(again, candidate);
    assert!(ids.iter().all(|id| id.len() == 25 && id.starts_with("case-")), "{ids:?}");
}

#[test]
fn cases_hold_declared_values_and_bounds() {
    let (candidate, _) = find(V2, "GET /items");
    let inputs: Vec<(Value, &str)> = candidate
        .cases
        .iter()
        .map(|case| (Value::Object(case.input.clone()), case.origin.as_str()))
        .collect();
    assert_eq!(
        inputs,
        [
            (json!({}), "none"),
            (json!({"limit": 10}), "default"),
            (json!({"status": ["new"]}), "enum"),
            (json!({"limit": 1}), "boundary"),
            (json!({"status": ["used"]}), "enum"),
            (json!({"limit": 50}), "boundary"),
            (json!({"limit": 0}), "boundary"),
        ]
    );
    assert_eq!(candidate.cases[0].expect.non_empty, [""]);
}

#[test]
fn a_case_refers_to_the_declared_schema_and_a_package_holds_it() {
    let (candidate, operation) = find(V30, "GET /items/{item_id}");
    let (cases, schema) = (&candidate.cases, operation.answer.schema.clone());
    let resolved = with_declared_schema(cases, operation.answer.schema.as_ref());
    assert_eq!((&resolved[0].expect.schema, resolved[0].expect.declared_schema), (&schema, false));
    assert_eq!(resolved.last(), cases.last(), "a refusal has no schema");

    let mut pinned = cases[0].clone();
    pinned.expect.schema = Some(json!({"type": "object"}));
    let resolved = with_declared_schema(&[pinned], operation.answer.schema.as_ref());
    assert_eq!(resolved[0].expect.schema, Some(json!({"type": "object"})), "its own goes first");

    let mut bare = operation;
    bare.answer.schema = None;
    let unresolved = with_declared_schema(&cases[..1], bare.answer.schema.as_ref());
    let error = crate::evaluation::oracle::Oracle::new(&unresolved[0], &[]).unwrap_err();
    assert_eq!(error.part, "declared_schema", "a case that can't be checked never passes");
}

/// 400 operations with the largest schema that is common: what Learning says must fit into one
/// message.
#[test]
fn a_large_document_fits_into_one_report() {
    let properties: serde_json::Map<String, Value> = (0..200)
        .map(|i| (format!("property_{i:03}"), json!({"type": "string", "maxLength": 100, "description": "What this property of the record is for."})))
        .collect();
    let content = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Record"}}});
    let limit = json!([
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}},
        {"name": "order", "in": "query", "schema": {"type": "string", "enum": ["asc", "desc", "none"]}},
    ]);
    let paths: serde_json::Map<String, Value> = (0..400)
        .map(|i| {
            let get = json!({"operationId": format!("getRecord{i}"), "summary": "Gets a record.", "parameters": limit, "responses": {"200": {"description": "It.", "content": content}, "400": {"description": "Wrong."}}});
            (format!("/records{i}"), json!({"get": get}))
        })
        .collect();
    let text = json!({
        "openapi": "3.0.3", "info": {"title": "Records", "version": "1"},
        "servers": [{"url": "https://records.example.com"}], "paths": paths,
        "components": {"schemas": {"Record": {"type": "object", "properties": properties}}},
    })
    .to_string();
    let all = learned(&text, &source("x.json"));
    let size = |candidates: &[Candidate]| serde_json::to_vec(candidates).unwrap().len();
    let candidates: Vec<Candidate> = all.iter().map(|(candidate, _)| candidate.clone()).collect();
    let copied: Vec<Candidate> = all
        .iter()
        .map(|(candidate, operation)| Candidate {
            cases: with_declared_schema(&candidate.cases, operation.answer.schema.as_ref()),
            ..candidate.clone()
        })
        .collect();
    assert_eq!((candidates.len(), candidates[0].cases.len()), (400, 8));
    assert!(size(&copied) > 20_000_000, "with the schema in every case: {}", size(&copied));
    assert!(size(&candidates) < 10_000_000, "{}", size(&candidates));
}

#[test]
fn json_without_a_schema_must_at_least_be_json_with_something_in_it() {
    let text = json!({
        "swagger": "2.0", "host": "h.example.com", "produces": ["application/json"],
        "paths": {
            "/ip": {"get": {"responses": {"200": {"description": "An address."}}}},
            "/html": {"get": {"produces": ["text/html"], "responses": {"200": {"description": "A page."}}}},
            "/gone": {"get": {"responses": {"302": {"description": "Elsewhere."}}}},
        },
    })
    .to_string();
    let all = learned(&text, &source("x.json"));
    let answers: Vec<_> = all
        .iter()
        .map(|(_, operation)| (operation.answer.schema.clone(), operation.answer.non_empty.clone()))
        .collect();
    assert_eq!(
        answers,
        [
            (Some(json!({"type": ["object", "array"]})), vec![String::new()]),
            (None, vec![]),
            (None, vec![]),
        ]
    );
}

#[test]
fn the_package_of_an_operation_is_as_written_here() {
    let (candidate, operation) = find(V30, "GET /items/{item_id}");
    let built =
        package::build(&candidate, &operation, "0.1.0", &candidate.cases[..1], None).unwrap();
    let text = |file: &str| String::from_utf8(built.files[file].clone()).unwrap();
    assert_eq!(
        text("config.toml"),
        r#"auth_ref = "SHOP_TOKEN"

[[endpoints]]
name = "getItemByID"
url = "https://eu.example.com/v3/items/{item_id}"
method = "GET"

[endpoints.headers]
Accept = "application/json"

[extra]
operation = "GET /items/{item_id}"
auth_scheme = "bearer"
success = [200]
timeout_ms = 10000
max_response_bytes = 4194304

[extra.query]
currency = "{currency}"
fields = "{fields}"

[extra.headers]

[extra.list_style]
fields = "csv"
"#
    );
    let skill_md = text("SKILL.md");
    let (front, body) = skill_md::read(&skill_md).unwrap();
    assert_eq!((front.name.as_str(), front.check()), ("shop-get-item-by-id", Ok(())));
    assert_eq!(front.description, "Shows one item. (GET /items/{item_id})");
    assert_eq!(front.metadata, skill_md::metadata(&built.files).unwrap());
    assert_eq!(
        body,
        r#"# shop-get-item-by-id

## Description

Shows one item.

## Inputs

- `item_id` (string, required)
- `fields` (array, optional)
- `currency` (string, optional)

## Usage

Calls `GET https://eu.example.com/v3/items/{item_id}`.
The auth token is read from the environment variable `SHOP_TOKEN`.

With Evo: `evo skill run shop-get-item-by-id`

## Example

```json
{
  "item_id": "lamp"
}
```
"#
    );
    let package = Package::from_files(built.files.clone()).unwrap();
    assert_eq!(package.manifest, built.manifest);
    let own = with_declared_schema(&candidate.cases[..1], operation.answer.schema.as_ref());
    assert_eq!(package.train_cases().unwrap(), own);
    assert_eq!(
        package.manifest.outputs,
        [
            ("id", "string", true),
            ("price", "number", false),
            ("secret", "string", true),
            ("tags", "array", false)
        ]
        .map(|(name, kind, required)| SkillIO {
            name: name.to_owned(),
            r#type: kind.to_owned(),
            required,
            description: (name == "id").then(|| "Its id.".to_owned()),
        })
    );
}

#[test]
fn a_host_with_a_brace_is_no_address() {
    let text = V2.replace("shop.example.com", "'a{b}c'");
    let all = learned(&text, &source("x.yaml"));
    assert_eq!(all[0].1.url, "{server}/items");
    exercise(text.as_bytes());
}

/// Everything that can be done with a document: no panic, legal names, packages that load.
fn exercise(text: &[u8]) {
    let Ok(document) = Document::parse(text, "https://x.example.com/api.json") else { return };
    let source = source("https://x.example.com/api.json");
    let mut names = std::collections::HashSet::new();
    for candidate in candidates(&document, &source, &mut Names::default()) {
        assert!(is_valid_name(&candidate.name), "{}", candidate.name);
        assert!(names.insert(candidate.name.clone()), "{}", candidate.name);
        let operation: Operation = serde_json::from_value(candidate.definition.clone()).unwrap();
        for case in &candidate.cases {
            assert_eq!(case.expect.schema, None, "the definition holds it once");
            if case.expect.declared_schema {
                let schema = operation.answer.schema.as_ref().unwrap();
                assert!(jsonschema::draft202012::new(schema).is_ok());
            }
        }
        if operation.problem.is_none() {
            let built =
                package::build(&candidate, &operation, "0.1.0", &candidate.cases, None).unwrap();
            let (_, archive) = evo_common::artifact::pack(&built.files).unwrap();
            let package = Package::from_archive(&archive).unwrap();
            assert_eq!(package.manifest, built.manifest);
            let own = with_declared_schema(&candidate.cases, operation.answer.schema.as_ref());
            assert_eq!(package.train_cases().unwrap(), own, "a package needs no definition");
        }
    }
}

#[test]
fn a_schema_as_deep_as_json_may_be_is_read() {
    for (open, close) in
        [("{\"items\":", "}"), ("{\"properties\":{\"a\":", "}}"), ("{\"allOf\":[", "]}")]
    {
        let levels = 110 / open.matches(['{', '[']).count();
        let schema = format!("{}{{}}{}", open.repeat(levels), close.repeat(levels));
        let text = json!({
            "openapi": "3.1.0",
            "paths": {"/a": {"get": {"responses": {"200": {"content": {"application/json": {
                "schema": {"$ref": "#/s"},
            }}}}}}},
            "s": 0,
        });
        let text = text.to_string().replace("\"s\":0", &format!("\"s\":{schema}"));
        assert!(Document::parse(text.as_bytes(), "x").is_ok(), "{text}");
        exercise(text.as_bytes());
    }
}

/// Replaces the `at`-th node (in walking order) of a tree.
fn replace(tree: &mut Value, at: &mut usize, with: &Value) {
    if *at == 0 {
        *at = usize::MAX;
        *tree = with.clone();
        return;
    }
    *at = at.saturating_sub(1);
    match tree {
        Value::Array(list) => list.iter_mut().for_each(|value| replace(value, at, with)),
        Value::Object(map) => map.values_mut().for_each(|value| replace(value, at, with)),
        _ => {}
    }
}

fn odd_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!({})),
        Just(json!([])),
        Just(json!(-1)),
        Just(json!(1e300)),
        Just(json!(true)),
        Just(json!("")),
        Just(json!("{")),
        Just(json!("a{b}}c{{d")),
        Just(json!({"$ref": "#"})),
        Just(json!({"$ref": "#/paths"})),
        Just(json!({"$ref": "other.yaml"})),
        Just(json!([{"$ref": "#/components/schemas/Item"}])),
        Just(json!({"type": "array", "items": {"$ref": "#/components/schemas/Item"}})),
        ".{0,12}".prop_map(Value::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn broken_text_never_panics(
        which in 0..3_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..12),
    ) {
        let mut bytes = [V2, V30, V31][which].as_bytes().to_vec();
        for (at, byte, kind) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => { bytes.remove(at); }
                _ => bytes.insert(at, byte),
            }
        }
        exercise(&bytes);
    }

    #[test]
    fn odd_values_anywhere_never_panic(
        which in 0..3_usize,
        edits in prop::collection::vec((1..260_usize, odd_value()), 1..5),
    ) {
        let text = [V2, V30, V31][which];
        let mut tree = Document::parse(text.as_bytes(), "x").unwrap().root;
        for (at, value) in edits {
            replace(&mut tree, &mut at.clone(), &value);
        }
        exercise(tree.to_string().as_bytes());
    }
}
