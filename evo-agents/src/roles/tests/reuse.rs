//! Requests that skills in use answer, as they are or one after the other.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use axum::{
    Json, Router,
    extract::{OriginalUri, Query},
    routing::{get, post},
};
use evo_common::{
    artifact::Files,
    skill::Composition,
    stage::{RequestKind, SkillRequest},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    reuse::InUse,
    skill::{in_use::SkillsInUse, snapshot::Known},
};

type Params = Query<HashMap<String, String>>;

/// Cities, the weather, and what must never be called.
struct Town {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Town {
    async fn start() -> Self {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&asked);
        let city = |Query(query): Params| async move {
            let number = query["name"].len();
            Json(json!({"matches": [{"city": {"id": number, "label": query["name"]}}]}))
        };
        let weather = |Query(query): Params| async move {
            let id: i64 = query["city_id"].parse().unwrap();
            Json(json!({"now": {"degrees": id * 3}, "of": id}))
        };
        let upper = |Query(query): Params| async move { Json(json!(query["text"].to_uppercase())) };
        let router = Router::new()
            .route("/cities", get(city))
            .route("/weather", get(weather))
            .route("/upper", get(upper))
            .route("/wipe", post(|| async { Json(json!("gone")) }))
            .layer(axum::middleware::from_fn(
                move |OriginalUri(uri): OriginalUri, request, next: axum::middleware::Next| {
                    log.lock().unwrap_or_else(PoisonError::into_inner).push(uri.to_string());
                    next.run(request)
                },
            ));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, asked }
    }

    fn known(&self, name: &str, method: &str, path: &str, input: (&str, &str)) -> Known {
        let (input, kind) = input;
        let manifest = format!(
            "name = {name:?}\nversion = \"0.1.0\"\ndescription = \"x\"\ncapabilities = []\noutputs = []\n\
             dependencies = []\n[[inputs]]\nname = {input:?}\ntype = {kind:?}\nrequired = true\n"
        );
        let config = format!(
            "[[endpoints]]\nname = \"call\"\nurl = \"{}{path}\"\nmethod = {method:?}\n\
             [extra.query]\n{input} = \"{{{input}}}\"\n",
            self.url
        );
        let provenance = format!(
            "source = \"fake\"\nlocator = \"{method} {path}\"\nfingerprint = \"f\"\nbuilder = \"openapi/1\"\n"
        );
        let files =
            [("manifest.toml", manifest), ("config.toml", config), ("provenance.toml", provenance)];
        let files = files.map(|(path, text)| (path.to_owned(), text.into_bytes()));
        let package = Package::from_files(Files::from(files)).unwrap();
        let mut source = SourceConfig::openapi("fake", format!("{}/openapi.json", self.url));
        source.allow_origins = vec![self.url.clone()];
        Known {
            package: Arc::new(package),
            artifact_id: Some(format!("id-of-{name}")),
            canary: None,
            source: Some(source),
        }
    }

    fn bed(&self) -> Bed {
        let mut bed = Bed::new(SourceConfig::openapi("fake", "/nowhere"));
        bed.context.sources.clear();
        bed.services.skills = SkillsInUse::of(vec![
            self.known("find-city", "GET", "/cities", ("name", "string")),
            self.known("weather-at", "GET", "/weather", ("city_id", "integer")),
            self.known("upper", "GET", "/upper", ("text", "string")),
            self.known("wipe", "POST", "/wipe", ("text", "string")),
        ]);
        bed
    }
}

fn request(text: &str, examples: &[(Value, Value)]) -> SkillRequest {
    let case = |(number, (input, exact)): (usize, &(Value, Value))| {
        serde_json::from_value(json!({
            "case_id": format!("example-{number}"), "input": input, "expect": {"exact": exact},
            "origin": "example",
        }))
        .unwrap()
    };
    SkillRequest {
        request_id: "req-1".to_owned(),
        kind: RequestKind::New,
        text: text.to_owned(),
        examples: examples.iter().enumerate().map(case).collect(),
        skill: None,
        artifact_id: None,
        cluster: None,
        demand: 1.0,
        fingerprint: None,
        tried: Vec::new(),
    }
}

/// What Learning makes of one request.
async fn one(bed: &mut Bed, request: SkillRequest) -> Candidate {
    bed.context.requests = vec![request];
    let learned = bed.learn().await;
    let [one] = learned.candidates.as_slice() else { panic!("{learned:?}") };
    one.clone()
}

#[tokio::test]
async fn a_skill_in_use_that_answers_all_examples_is_the_answer() {
    let town = Town::start().await;
    let mut bed = town.bed();
    let examples = [(json!({"text": "ab"}), json!("AB")), (json!({"text": "Cd"}), json!("CD"))];
    let found = one(&mut bed, request("Write a text in capitals", &examples)).await;
    assert_eq!((found.kind, found.name.as_str()), (CandidateKind::InUse, "upper"));
    assert_eq!((found.source.as_str(), found.locator.as_str()), ("fake", "GET /upper"));
    assert_eq!(found.request_id.as_deref(), Some("req-1"));
    let said: InUse = serde_json::from_value(found.definition.clone()).unwrap();
    assert_eq!((said.artifact_id.as_str(), said.version.as_str()), ("id-of-upper", "0.1.0"));
    assert_eq!(found.cases, [], "the examples are king's");
    let asked = town.asked.lock().unwrap().clone();
    assert!(!asked.iter().any(|uri| uri.contains("wipe")), "nothing is written: {asked:?}");

    // What was measured in vain is not proposed again.
    let again = SkillRequest {
        tried: vec![found.fingerprint],
        ..request("Write a text in capitals", &examples)
    };
    let other = one(&mut bed, again).await;
    assert_ne!(other.kind, CandidateKind::InUse);
}

#[tokio::test]
async fn skills_whose_types_fit_become_one_that_goes_through_the_stages() {
    let town = Town::start().await;
    let mut bed = town.bed();
    let example = |city: &str| (json!({"city": city}), json!(city.len() * 3));
    let examples = ["Rome", "Oslo", "Berlin", "Ulm", "Lagos"].map(example);
    let asked = request("The degrees in a city", &examples);
    let found = one(&mut bed, asked.clone()).await;
    assert_eq!(found.kind, CandidateKind::Composed);
    let steps: Composition = serde_json::from_value(found.definition.clone()).unwrap();
    assert_eq!(steps.skills(), ["find-city", "weather-at"]);
    assert_eq!(steps.steps[0].input["name"], "/input/city");
    assert_eq!(steps.steps[1].input["city_id"], "/steps/0/body/matches/0/city/id");
    assert_eq!(steps.output.as_deref(), Some("/steps/1/body/now/degrees"));
    assert_eq!(one(&mut bed, asked).await, found, "the same again");

    let mut context = bed.context.clone();
    let mut candidate = found;
    context.train_cases = std::mem::take(&mut candidate.cases);
    context.candidate = Some(candidate);
    let built = bed.run(AgentRole::Building, "", &context).await.unwrap();
    let id = ArtifactId::parse(built.artifact_id.clone()).unwrap();
    let package = bed.services.artifacts.package(&id).await.unwrap();
    assert_eq!(package.classes(), [evo_common::api::RiskClass::Read]);
    assert_eq!(package.manifest.dependencies, ["find-city", "weather-at"]);
    context.outputs.insert(PipelineStage::Building, built.output);
    let checked = bed.run(AgentRole::PreLoad, &built.artifact_id, &context).await.unwrap();
    let pre_load: PreLoadOutput = serde_json::from_value(checked.output.clone()).unwrap();
    assert_eq!((pre_load.outcome, pre_load.all_healthy), (None, true));
    context.outputs.insert(PipelineStage::PreLoad, checked.output);
    let held_out = request("x", &[example("Paris"), example("Accra")]);
    context.holdout_cases = held_out.examples;
    let tested = bed.run(AgentRole::Evaluation, &built.artifact_id, &context).await.unwrap();
    let evaluation: EvaluationOutput = serde_json::from_value(tested.output).unwrap();
    assert_eq!(evaluation.evidence.holdout, Trials { passed: 20, total: 20 });
    assert_eq!(evaluation.recommendation, "activate", "{:?}", evaluation.evidence);
}

#[tokio::test]
async fn what_nothing_in_use_does_is_left_to_a_builder() {
    let town = Town::start().await;
    let mut bed = town.bed();
    let examples = [
        // The first one alone fits the weather of a city.
        (json!({"city": "Rome"}), json!(12)),
        (json!({"city": "Oslo"}), json!(7)),
    ];
    let found = one(&mut bed, request("The degrees in a city", &examples)).await;
    assert_eq!(found.kind, CandidateKind::Request);
    assert!(town.asked.lock().unwrap().len() < 40, "it is bounded: {:?}", town.asked);
}
