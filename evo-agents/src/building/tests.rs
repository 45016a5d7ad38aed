//! Packages of every kind leave Evo and come back as they were.

use evo_common::{
    artifact::{self, Files},
    case::{Case, Expectation},
    config::SourceConfig,
    skill::{Provenance, SkillIO, SkillManifest, files},
    tree,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    package::{Draft, Table},
    search,
};
use crate::{
    mcp::{Listing, Tool},
    skill::{
        package::{Kind, Package},
        skill_md::{self, SHA256},
    },
    sources::{
        mcp::{self, Definition},
        openapi::{self, document::Document, naming::Names},
    },
};

/// What a document or a person says.
#[derive(Debug, Clone)]
struct Said {
    description: String,
    input: String,
    about: String,
    value: String,
}

fn source() -> SourceConfig {
    SourceConfig::openapi("shop", "https://example.com/api.json")
}

fn http(said: &Said) -> Files {
    let parameter = json!({
        "name": said.input, "in": "query", "required": true, "description": said.about,
        "schema": {"type": "string"}, "example": said.value,
    });
    let answer =
        json!({"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}});
    let operation = json!({
        "operationId": "find", "summary": said.description, "description": said.about,
        "parameters": [parameter],
        "responses": {"200": {
            "description": "", "content": {"application/json": {"schema": answer}},
        }},
    });
    let document = json!({
        "openapi": "3.1.0", "info": {"title": "Shop", "version": "1"},
        "servers": [{"url": "https://example.com"}], "paths": {"/items": {"get": operation}},
    });
    let document = Document::parse(document.to_string().as_bytes(), "api.json").unwrap();
    let candidate = openapi::candidates(&document, &source(), &mut Names::default()).remove(0);
    let operation = serde_json::from_value(candidate.definition.clone()).unwrap();
    let cases = &candidate.cases;
    openapi::package::build(&candidate, &operation, "0.1.0", cases, None).unwrap().files
}

fn tool(said: &Said) -> Files {
    let tool: Tool = serde_json::from_value(json!({
        "name": "find", "description": said.description,
        "inputSchema": {"type": "object", "properties": {
            &said.input: {"type": "string", "description": said.about, "default": said.value},
        }},
        "outputSchema": {"type": "object", "properties": {"id": {"type": "string"}}},
        "annotations": {"readOnlyHint": true},
    }))
    .unwrap();
    let listing = Listing { server: "fake 1".to_owned(), tools: vec![tool] };
    let candidate = mcp::candidates(listing, &source(), &mut Names::default()).remove(0);
    let definition: Definition = serde_json::from_value(candidate.definition.clone()).unwrap();
    let cases = &candidate.cases;
    mcp::package::build(&candidate, &definition, "0.1.0", cases, None).unwrap().files
}

fn drafted(said: &Said, config: Value, own: Files) -> Files {
    let field = |name: &str| SkillIO {
        name: name.to_owned(),
        r#type: "string".to_owned(),
        required: true,
        description: Some(said.about.clone()),
    };
    let is_code = !own.is_empty();
    let case = Case {
        case_id: "case-1".to_owned(),
        input: json!({&said.input: said.value}).as_object().unwrap().clone(),
        expect: Expectation { exact: Some(json!({"id": null})), ..Expectation::default() },
        origin: "example".to_owned(),
        pinned: false,
    };
    let config: Table = serde_json::from_value::<std::collections::BTreeMap<String, Value>>(config)
        .unwrap()
        .into_iter()
        .map(|(key, value)| (&*key.leak(), value))
        .collect();
    let draft = Draft {
        manifest: SkillManifest {
            name: "shop-find".to_owned(),
            version: "0.1.0".to_owned(),
            description: said.description.clone(),
            capabilities: Vec::new(),
            inputs: vec![field(&said.input)],
            outputs: vec![field("id")],
            dependencies: if is_code { Vec::new() } else { vec!["shop-list".to_owned()] },
            has_code: is_code,
        },
        config: &config,
        provenance: Provenance {
            source: "requests".to_owned(),
            locator: "request req-1".to_owned(),
            fingerprint: "f".to_owned(),
            builder: "requests/1".to_owned(),
            parent: None,
            model: None,
            written: Vec::new(),
            parents: Vec::new(),
            operators: Vec::new(),
        },
        cases: &[case],
        usage: "Does it.".to_owned(),
        own,
        document: None,
    };
    draft.write().unwrap().files
}

fn code(said: &Said) -> Files {
    let program = format!("# {}\nprint({:?})\n", said.about.escape_default(), said.value);
    let own = Files::from([("main.py".to_owned(), program.into_bytes())]);
    drafted(said, json!({"runtime": {"entry": "main.py", "interpreter": "python3"}}), own)
}

fn composed(said: &Said) -> Files {
    let pointer = format!("/input/{}", said.input);
    let step = json!({"skill": "shop-list", "input": {"q": pointer}});
    drafted(said, json!({"steps": [step], "extra": {"timeout_ms": 1000}}), Files::new())
}

/// The folder of that name in an archive of several.
fn exported(all: &[(&str, &Files)], name: &str) -> Files {
    let mut writer = tree::Writer::default();
    for (name, files) in all {
        writer.add(name, files).unwrap();
    }
    let archive = writer.finish().unwrap();
    tree::skills(tree::read(&archive).unwrap()).unwrap().remove(name).unwrap()
}

fn noted_digest(files: &Files) -> String {
    let text = String::from_utf8(files[files::SKILL_MD].clone()).unwrap();
    let (front, _) = skill_md::read(&text).unwrap();
    assert_eq!(front.check(), Ok(()), "{text}");
    front.metadata[SHA256].clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_package_that_was_exported_is_the_same_one(
        description in ".{0,120}",
        input in "[a-z][a-z_]{0,12}",
        about in "\\PC{0,200}",
        value in ".{1,40}",
    ) {
        let said = Said { description, input, about, value };
        let packages =
            [("a", http(&said)), ("b", tool(&said)), ("c", code(&said)), ("d", composed(&said))];
        let kinds = packages.each_ref().map(|(_, files)| {
            match Package::from_files(files.clone()).unwrap().kind {
                Kind::Http => "http",
                Kind::Mcp(_) => "mcp",
                Kind::Code => "code",
                Kind::Composed(_) => "composed",
            }
        });
        prop_assert_eq!(kinds, ["http", "mcp", "code", "composed"]);
        let all = packages.each_ref().map(|(name, files)| (*name, files));
        for (name, files) in all {
            let (before, _) = artifact::pack(files).unwrap();
            let back = exported(&all, name);
            let (after, _) = artifact::pack(&back).unwrap();
            prop_assert_eq!(before, after);
            prop_assert_eq!(noted_digest(&back), skill_md::digest(&back));
            // A new version of it says so too.
            let package = Package::from_files(back.clone()).unwrap();
            let newer = search::renewed(&package, "0.1.1", None).unwrap().files;
            prop_assert_ne!(noted_digest(&newer), noted_digest(&back));
            prop_assert_eq!(noted_digest(&newer), skill_md::digest(&newer));
        }
    }
}
