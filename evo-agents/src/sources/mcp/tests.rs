use super::*;
use crate::skill::package::{Kind, Package};

fn source(examples: Value) -> SourceConfig {
    let mut source = SourceConfig::openapi("time", "");
    source.kind = evo_common::config::SourceKind::Mcp;
    source.command = vec!["mcp-server-time".to_owned()];
    source.examples = serde_json::from_value(examples).unwrap();
    source
}

fn tool(more: Value) -> Tool {
    let mut tool = json!({
        "name": "get_current_time",
        "description": "Tells the time.\n\nOf one zone.",
        "inputSchema": {
            "type": "object",
            "properties": {"zone": {"$ref": "#/$defs/Zone"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["zone"],
            "$defs": {"Zone": {"type": "string", "enum": ["UTC", "Asia/Tokyo"]}},
        },
        "outputSchema": {
            "type": "object",
            "properties": {"now": {"$ref": "#/$defs/Now"}},
            "required": ["now"],
            "$defs": {"Now": {"type": "string", "minLength": 5}},
        },
        "annotations": {"readOnlyHint": true},
    });
    for (key, value) in more.as_object().unwrap() {
        tool[key] = value.clone();
    }
    serde_json::from_value(tool).unwrap()
}

fn learned(tool: Tool, source: &SourceConfig) -> (Candidate, Definition) {
    let listing = Listing { server: "fake 1".to_owned(), tools: vec![tool.clone(), tool] };
    let mut found = candidates(listing, source, &mut Names::default());
    assert_eq!(found.len(), 1, "a name counts once");
    let candidate = found.remove(0);
    let definition = serde_json::from_value(candidate.definition.clone()).unwrap();
    (candidate, definition)
}

fn why(tool: Tool, source: &SourceConfig) -> String {
    let outcome = learned(tool, source).1.forecast(source).unwrap_err();
    format!("{}: {}", outcome.code, outcome.reason)
}

#[test]
fn declared_values_and_schemas_make_cases_and_a_package() {
    let source = source(json!([]));
    let (candidate, definition) = learned(tool(json!({})), &source);
    assert_eq!(
        (candidate.name.as_str(), candidate.locator.as_str(), candidate.description.as_str()),
        ("time-get-current-time", "TOOL get_current_time", "Tells the time.")
    );
    assert_eq!(candidate.capabilities, ["get-current-time", "current", "time"]);
    assert_eq!(definition.forecast(&source), Ok(()));
    let inputs: Vec<_> = candidate.cases.iter().map(|case| json!(case.input)).collect();
    assert_eq!(
        inputs,
        [json!({"zone": "UTC"}), json!({"zone": "UTC", "days": 1}), json!({"zone": "Asia/Tokyo"})]
    );
    assert!(candidate.cases.iter().all(|case| case.expect.declared_schema));

    let built = package::build(&candidate, &definition, "0.1.0", &candidate.cases, None).unwrap();
    assert_eq!(built.endpoints, ["mcp time/get_current_time"]);
    let package = Package::from_files(built.files.clone()).unwrap();
    let Kind::Mcp(call) = &package.kind else { panic!("{:?}", package.kind) };
    assert_eq!((call.server.as_str(), call.tool.as_str()), ("time", "get_current_time"));
    let schema = package.train_cases().unwrap()[0].expect.schema.clone().unwrap();
    let valid = |value: Value| jsonschema::draft202012::is_valid(&schema, &value);
    assert!(valid(json!({"now": "12:00"})) && !valid(json!({"now": "12"})) && !valid(json!({})));
    let text = String::from_utf8(built.files["SKILL.md"].clone()).unwrap();
    assert!(text.contains("Of one zone.") && text.contains("`zone` (string, required)"), "{text}");
    let again = package::build(&candidate, &definition, "0.1.0", &candidate.cases, None).unwrap();
    assert_eq!(again.files, built.files, "the same definition gives the same bytes");
}

#[test]
fn what_is_missing_is_said_with_what_to_do() {
    let none = source(json!([]));
    let held = why(tool(json!({"annotations": {}})), &none);
    assert!(held.starts_with("write_not_allowed") && held.contains("allow_operations"), "{held}");
    let held = why(tool(json!({"annotations": {"destructiveHint": true}})), &none);
    assert!(held.contains("may destroy"), "{held}");
    let held = why(tool(json!({"outputSchema": null})), &none);
    assert!(held.starts_with("no_oracle") && held.contains("[[sources.examples]]"), "{held}");
    let schema = json!({"properties": {"zone": {"type": "string"}}, "required": ["zone"]});
    let held = why(tool(json!({"inputSchema": schema})), &none);
    assert!(held.starts_with("no_example_for_parameter") && held.contains("\"zone\""), "{held}");
    let mut allowing = source(json!([]));
    allowing.allow_operations = vec!["get_current_time".to_owned()];
    let (_, definition) = learned(tool(json!({"annotations": {}})), &allowing);
    assert_eq!(definition.forecast(&allowing), Ok(()));
}

#[test]
fn examples_of_the_operator_give_oracles_where_the_tool_has_none() {
    let examples = json!([
        {"tool": "get_current_time", "input": {"zone": "UTC"}, "expect": {"regex": "UTC"}},
        {"tool": "get_current_time", "input": {"zone": "Nowhere"}, "expect": {"refusal": true}},
        {"tool": "get_current_time", "input": {"zone": "Asia/Tokyo"}},
        {"tool": "other", "input": {}},
    ]);
    let source = source(examples);
    let (candidate, definition) = learned(tool(json!({"outputSchema": null})), &source);
    assert_eq!(definition.forecast(&source), Ok(()));
    assert_eq!(candidate.cases.len(), 3, "only the operator's: nothing else says what is right");
    let [first, second, third] = candidate.cases.as_slice() else { panic!() };
    assert_eq!(first.expect.regex.as_deref(), Some("UTC"));
    assert!(second.expect.refusal && !second.expect.declared_schema);
    assert!(third.expect.schema.is_some() && third.expect.non_empty == [""]);
    // With a schema the examples have that too, and come first.
    let (with_schema, _) = learned(tool(json!({})), &source);
    assert!(with_schema.cases[0].expect.declared_schema);
    assert!(with_schema.cases.len() > 3);
    assert_ne!(with_schema.fingerprint, candidate.fingerprint);
}
