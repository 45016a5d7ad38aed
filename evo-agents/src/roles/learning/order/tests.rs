use evo_common::stage::CandidateKind;
use serde_json::json;

use super::*;

fn source(name: &str, trust: f64) -> SourceConfig {
    SourceConfig { trust, ..SourceConfig::openapi(name, format!("{name}.json")) }
}

/// An operation that reads and says what its answer is.
fn candidate(source: &str, path: &str, host: &str) -> Candidate {
    let definition = json!({
        "method": "GET", "path": path, "description": "d", "url": format!("{host}{path}"),
        "answer": {"success": [200], "status": [200], "schema": {"type": "object"},
            "outputs": [{"name": "id", "type": "string"}]},
    });
    Candidate {
        kind: CandidateKind::Openapi,
        request_id: None,
        name: format!("{source}-get{}", path.replace('/', "-")),
        source: source.to_owned(),
        locator: format!("GET {path}"),
        description: "d".to_owned(),
        capabilities: vec![path.trim_matches('/').to_owned()],
        fingerprint: format!("{source}{path}"),
        demand: 1.0,
        deterministic: true,
        cases: serde_json::from_value(json!([
            {"case_id": "c", "input": {}, "expect": {"declared_schema": true}, "origin": "none"}
        ]))
        .unwrap(),
        definition,
        written: Vec::new(),
        past: None,
    }
}

fn names(candidates: &[Candidate]) -> Vec<&str> {
    candidates.iter().map(|candidate| candidate.name.as_str()).collect()
}

const HOST: &str = "https://api.example.com";

#[test]
fn the_same_operation_of_two_sources_is_built_once() {
    let sources = [source("a", 0.5), source("b", 1.0), source("c", 1.0)];
    let all = || {
        vec![
            candidate("a", "/pets", HOST),
            candidate("b", "/pets", HOST),
            candidate("b", "/toys", HOST),
            candidate("c", "/pets", "https://other.example.com"),
        ]
    };
    let (kept, gone) = without_duplicates(all(), &sources, &[]);
    assert_eq!(names(&kept), ["b-get-pets", "b-get-toys", "c-get-pets"], "more trust wins");
    assert_eq!(
        (gone[0].name.as_str(), gone[0].duplicate_of.as_str()),
        ("a-get-pets", "b-get-pets")
    );
    assert!(gone[0].reason.contains("same definition"), "{}", gone[0].reason);

    // What has a skill stays, however little its source is trusted.
    let known = KnownName {
        name: "a-get-pets".to_owned(),
        source: "a".to_owned(),
        locator: "GET /pets".to_owned(),
        ..KnownName::default()
    };
    let (kept, gone) = without_duplicates(all(), &sources, &[known]);
    assert_eq!(names(&kept), ["a-get-pets", "b-get-toys", "c-get-pets"]);
    assert_eq!(gone[0].duplicate_of, "a-get-pets");

    // Another text about the same thing makes it no other thing; another answer does.
    let mut alike = all();
    alike[0].definition["details"] = json!("at length");
    let (_, gone) = without_duplicates(alike.clone(), &sources, &[]);
    assert!(gone[0].reason.contains("100 % alike"), "{}", gone[0].reason);
    alike[0].definition["answer"]["outputs"] = json!([{"name": "list", "type": "array"}]);
    assert_eq!(without_duplicates(alike, &sources, &[]).1, []);
}

#[test]
fn priority_is_demand_times_what_is_missing_times_trust() {
    let sources = [source("a", 0.5), source("b", 1.0)];
    let mut asked = candidate("a", "/asked", HOST);
    asked.demand = 3.0;
    let mut blocked = candidate("b", "/blocked", HOST);
    blocked.definition["method"] = json!("POST");
    blocked.demand = 9.0;
    let plain = candidate("b", "/plain", HOST);
    let covered = candidate("b", "/covered", HOST);
    let mut half = candidate("b", "/half", HOST);
    half.capabilities = vec!["half".to_owned(), "x".to_owned(), "y".to_owned()];
    let known = |name: &str, fingerprint: &str, can: &[&str]| KnownSkill {
        name: name.to_owned(),
        active: true,
        fingerprint: fingerprint.to_owned(),
        description: String::new(),
        capabilities: can.iter().map(|text| (*text).to_owned()).collect(),
        endpoints: Vec::new(),
        inputs: Vec::new(),
        outputs: vec![serde_json::from_value(json!({"name": "id", "type": "string"})).unwrap()],
    };
    let known = [known("b-get-covered", "b/covered", &[]), known("other", "f", &["half", "x"])];
    let all = vec![blocked, covered, half, plain, asked];
    let ordered = by_priority(all, &sources, &known);
    assert_eq!(
        names(&ordered),
        ["a-get-asked", "b-get-plain", "b-get-half", "b-get-covered", "b-get-blocked"]
    );
}

#[test]
fn what_was_discarded_comes_after_what_was_not_tried() {
    let past = |decision: Verdict| {
        Some(PastOutcome {
            source: "a".to_owned(),
            locator: String::new(),
            name: String::new(),
            fingerprint: String::new(),
            decision,
            code: "x".to_owned(),
            reason: String::new(),
            count: 1,
            first_at: String::new(),
            last_at: String::new(),
        })
    };
    let mut all: Vec<Candidate> =
        ["/1", "/2", "/3"].map(|path| candidate("a", path, HOST)).to_vec();
    all[0].past = past(Verdict::Discarded);
    all[1].past = past(Verdict::Held);
    let mut source = source("a", 1.0);
    assert_eq!(names(&within_source(all.clone(), &source)), ["a-get-3", "a-get-2", "a-get-1"]);
    source.max_candidates = Some(1);
    assert_eq!(names(&within_source(all, &source)), ["a-get-3"]);
}
