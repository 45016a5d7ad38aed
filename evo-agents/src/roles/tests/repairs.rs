//! Repairs of skills whose source has a definition.

use evo_common::{
    config::SourceConfig,
    stage::{KnownName, RequestKind, SkillRequest},
};
use serde_json::json;

use super::*;

const SKILL: &str = "fake-good";

fn wanted(fingerprint: &str) -> SkillRequest {
    SkillRequest {
        request_id: "req-1".to_owned(),
        kind: RequestKind::Repair,
        text: "status 404".to_owned(),
        examples: Vec::new(),
        skill: Some(SKILL.to_owned()),
        artifact_id: Some("ab".repeat(32)),
        cluster: Some("status_404".to_owned()),
        fingerprint: Some(fingerprint.to_owned()),
        demand: 5.0,
        tried: Vec::new(),
    }
}

fn past(of: &Candidate) -> PastOutcome {
    PastOutcome {
        source: of.source.clone(),
        locator: of.locator.clone(),
        name: of.name.clone(),
        fingerprint: of.fingerprint.clone(),
        decision: Verdict::Discarded,
        code: "below_threshold".to_owned(),
        reason: "a reason".to_owned(),
        count: 1,
        first_at: String::new(),
        last_at: String::new(),
    }
}

/// What Learning makes of the skill: kind, whether it is for the request, and demand.
async fn learned(bed: &Bed) -> Vec<(CandidateKind, bool, f64)> {
    let found = bed.learn().await.candidates;
    let of_skill = found.into_iter().filter(|candidate| candidate.name == SKILL);
    let mut of_skill: Vec<_> = of_skill
        .map(|candidate| (candidate.kind, candidate.request_id.is_some(), candidate.demand))
        .collect();
    of_skill.sort_by_key(|(kind, ..)| *kind);
    of_skill
}

#[tokio::test]
async fn a_definition_that_has_changed_is_the_repair() {
    let api = Api::start().await;
    let mut bed = Bed::of(&api);
    let now = bed.candidate("good").await;
    bed.context.names = Some(vec![KnownName {
        name: SKILL.to_owned(),
        source: now.source.clone(),
        locator: now.locator.clone(),
        fingerprint: now.fingerprint.clone(),
        ..KnownName::default()
    }]);
    let (fresh, search) = ((CandidateKind::Openapi, true, 5.0), (CandidateKind::Repair, true, 5.0));
    let plain = (CandidateKind::Openapi, false, 1.0);

    bed.context.requests = vec![wanted("of an older document")];
    assert_eq!(learned(&bed).await, [fresh]);
    // What a limit leaves out answers a request all the same.
    let limited = SourceConfig { max_candidates: Some(1), ..bed.source.clone() };
    bed.context.sources = vec![limited];
    let found = bed.learn().await.candidates;
    assert_eq!((found.len(), learned(&bed).await), (2, vec![fresh]));

    // The same definition is no other one, and one that was no better is no answer.
    bed.context.sources = vec![bed.source.clone()];
    bed.context.requests = vec![wanted(&now.fingerprint)];
    assert_eq!(learned(&bed).await, [plain, search]);
    bed.context.requests = vec![wanted("of an older document")];
    bed.context.past = vec![past(&now)];
    assert_eq!(learned(&bed).await, [plain, search]);

    // A cycle about requests alone looks into the source, and takes nothing else from it.
    bed.context.past.clear();
    bed.context.reread = std::mem::take(&mut bed.context.sources);
    let found = bed.learn().await.candidates;
    assert_eq!((found.len(), learned(&bed).await), (1, vec![fresh]));
}

/// A version that works, and one that does not.
async fn versions(bed: &Bed) -> (String, ArtifactId) {
    let works = bed.pipeline("good").await.artifact_id;
    let package = ArtifactId::parse(works.clone()).unwrap();
    let mut files = bed.services.artifacts.package(&package).await.unwrap().files;
    let config = String::from_utf8(files["config.toml"].clone()).unwrap();
    files.insert("config.toml".to_owned(), config.replace("/good\"", "/v1/good\"").into_bytes());
    let (_, archive) = evo_common::artifact::pack(&files).unwrap();
    (works, bed.services.artifacts.put(archive).await.unwrap())
}

/// How Building ends where it makes no package.
async fn ends(bed: &Bed, context: &StageContext) -> (String, String) {
    let built = bed.run(AgentRole::Building, "", context).await.unwrap();
    let building: BuildingOutput = serde_json::from_value(built.output).unwrap();
    let outcome = building.outcome.unwrap();
    (outcome.code, outcome.reason)
}

#[tokio::test]
async fn a_search_sees_train_cases_only_and_leaves_what_works_as_it_is() {
    let api = Api::start().await;
    let bed = Bed::of(&api);
    let (works, failing) = versions(&bed).await;
    let mut made_from = bed.candidate("good").await;
    let mut context = bed.context.clone();
    let cases = std::mem::take(&mut made_from.cases);
    let version = |id: &str| Incumbent { artifact_id: id.to_owned(), version: "0.1.0".to_owned() };
    let repair = |of: &str| Candidate {
        kind: CandidateKind::Repair,
        definition: json!({"skill": SKILL, "artifact_id": of, "text": "status 404"}),
        ..made_from.clone()
    };
    context.version = "0.1.2".to_owned();
    // The package that fails was built with the case that is held out by now.
    context.holdout_cases.clone_from(&cases);
    context.incumbent = Some(version(failing.as_str()));
    context.candidate = Some(repair(failing.as_str()));
    let (code, reason) = ends(&bed, &context).await;
    assert_eq!(code, "no_oracle", "{reason}");

    // What is in use instead of it answers everything.
    context.train_cases = cases;
    context.incumbent = Some(version(&works));
    let (code, reason) = ends(&bed, &context).await;
    assert_eq!(code, "duplicate", "{reason}");
    assert!(reason.contains("answers all 1 train cases"), "{reason}");

    // So does the version that is said to fail.
    context.candidate = Some(repair(&works));
    let (code, reason) = ends(&bed, &context).await;
    assert_eq!(code, "no_improvement", "{reason}");
    assert!(reason.contains("it answers all 1 train cases now"), "{reason}");
}

/// Its cases refer to the schema that the document declares, and the candidate has none of its own.
#[tokio::test]
async fn a_repair_is_judged_by_the_schema_that_its_skill_declares() {
    let api = Api::start().await;
    let bed = Bed::of(&api);
    let (_, failing) = versions(&bed).await;

    let mut made_from = bed.candidate("good").await;
    let mut context = bed.context.clone();
    context.train_cases = std::mem::take(&mut made_from.cases);
    assert!(context.train_cases.iter().any(|case| case.expect.declared_schema));
    context.holdout_cases.clone_from(&context.train_cases);
    context.version = "0.1.1".to_owned();
    context.incumbent =
        Some(Incumbent { artifact_id: failing.to_string(), version: "0.1.0".to_owned() });
    let definition = |of: serde_json::Value| json!({"skill": SKILL, "artifact_id": failing, "text": "status 404", "of": of});
    let repair = Candidate {
        kind: CandidateKind::Repair,
        request_id: Some("req-1".to_owned()),
        deterministic: false,
        definition: definition(json!({"kind": "openapi", "definition": made_from.definition})),
        ..made_from
    };
    context.candidate = Some(repair.clone());
    let built = bed.run(AgentRole::Building, "", &context).await.unwrap();
    let building: BuildingOutput = serde_json::from_value(built.output.clone()).unwrap();
    assert_eq!(building.outcome, None);
    assert_eq!(building.endpoints, [format!("GET {}/good", api.url())]);
    let id = ArtifactId::parse(&built.artifact_id).unwrap();
    let made = bed.services.artifacts.package(&id).await.unwrap().provenance.unwrap();
    assert_eq!(made.operators, ["base_url: path /good instead of /v1/good"]);
    assert_eq!(made.parents, [failing.to_string()]);
    context.outputs.insert(PipelineStage::Building, built.output);
    let checked = bed.run(AgentRole::PreLoad, &built.artifact_id, &context).await.unwrap();
    let pre_load: PreLoadOutput = serde_json::from_value(checked.output.clone()).unwrap();
    assert_eq!(pre_load.outcome, None);
    context.outputs.insert(PipelineStage::PreLoad, checked.output);
    let evaluated = async |context: &StageContext| -> EvaluationOutput {
        let done = bed.run(AgentRole::Evaluation, &built.artifact_id, context).await.unwrap();
        serde_json::from_value(done.output).unwrap()
    };
    let evidence = evaluated(&context).await.evidence;
    assert_eq!((evidence.gate, evidence.holdout), (None, Trials { passed: 20, total: 20 }));
    assert_eq!(evidence.paired.unwrap().better, 20);

    // Without what it was made from nothing tells a right answer.
    context.candidate = Some(Candidate { definition: definition(json!(null)), ..repair });
    let gate = evaluated(&context).await.evidence.gate.unwrap();
    assert_eq!(gate.code, "no_oracle", "{}", gate.reason);
}
