//! The stages one after the other, against an API whose operations behave in known ways.

mod http;
mod models;
mod repairs;
mod reuse;

use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering};

use evo_common::{
    artifact,
    clock::Timestamp,
    config::SourceConfig,
    evidence::{Paired, Trials},
    ids::{ArtifactId, Attempt},
    outcome::{Outcome, Verdict},
    skill::files::CONFIG,
    stage::{
        BuildingOutput, CandidateKind, EvaluationOutput, Incumbent, KnownSkill, LearningOutput,
        PastOutcome, PreLoadOutput, SkillManageOutput,
    },
};
use tokio_util::sync::CancellationToken;

use self::http::Api;
use super::*;
use crate::{
    artifacts::ArtifactClient,
    handler::Services,
    skill::execute::{Executor, ExecutorConfig},
};

struct Bed {
    _folder: tempfile::TempDir,
    services: Services,
    source: SourceConfig,
    context: StageContext,
}

impl Bed {
    fn new(source: SourceConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let env = |name: &str| (name == "FAKE_KEY").then(|| "k-1".to_owned());
        let services = Services {
            executor: Executor::new(ExecutorConfig { env: Arc::new(env), ..Default::default() }),
            artifacts: ArtifactClient::local(folder.path().to_owned()),
            gateway: None,
            cancel: CancellationToken::new(),
            skills: crate::skill::in_use::SkillsInUse::none(),
        };
        let mut context = StageContext { sources: vec![source.clone()], ..Default::default() };
        context.plan.sitting_gap_ms = 1;
        Self { _folder: folder, services, source, context }
    }

    fn of(api: &Api) -> Self {
        let mut source = SourceConfig::openapi("fake", format!("{}/openapi.json", api.url()));
        source.allow_origins = vec![api.url()];
        Self::new(source)
    }

    async fn run(
        &self,
        role: AgentRole,
        artifact_id: &str,
        context: &StageContext,
    ) -> Result<StageDone, StageError> {
        let (stage, deadline) = (role.stage().unwrap(), Timestamp::now().plus_ms(600_000));
        let gateway = self.services.gateway.as_ref();
        let gateway = gateway.map(|gateway| gateway.for_attempt("run-1", stage, deadline));
        let job = StageJob {
            run_id: "run-1".to_owned(),
            stage,
            attempt: Attempt::FIRST,
            artifact_id: artifact_id.to_owned(),
            context: context.clone(),
            deadline,
            services: Services { gateway, ..self.services.clone() },
        };
        handler_for(&role).stage(job).await
    }

    async fn learn(&self) -> LearningOutput {
        let done = self.run(AgentRole::Learning, "", &self.context).await.unwrap();
        serde_json::from_value(done.output).unwrap()
    }

    async fn candidate(&self, operation: &str) -> Candidate {
        let name = format!("{}-{operation}", self.source.name);
        let learned = self.learn().await;
        assert_eq!(learned.failed_sources, []);
        learned.candidates.into_iter().find(|candidate| candidate.name == name).unwrap()
    }

    /// Takes one operation through the stages until one of them ends it.
    async fn pipeline(&self, operation: &str) -> Ended {
        let mut candidate = self.candidate(operation).await;
        let mut context = self.context.clone();
        context.sources = vec![self.source.clone()];
        context.train_cases = std::mem::take(&mut candidate.cases);
        context.holdout_cases.clone_from(&context.train_cases);
        context.candidate = Some(candidate);

        let built = self.run(AgentRole::Building, "", &context).await.unwrap();
        let building: BuildingOutput = serde_json::from_value(built.output.clone()).unwrap();
        let mut ended = Ended { artifact_id: built.artifact_id, ..Ended::default() };
        if let Some(outcome) = building.outcome {
            return Ended { outcome: Some(outcome), ..ended };
        }
        context.outputs.insert(PipelineStage::Building, built.output);

        let checked = self.run(AgentRole::PreLoad, &ended.artifact_id, &context).await.unwrap();
        let pre_load: PreLoadOutput = serde_json::from_value(checked.output.clone()).unwrap();
        let outcome = pre_load.outcome.clone();
        ended.pre_load = Some(pre_load);
        if outcome.is_some() {
            return Ended { outcome, ..ended };
        }
        context.outputs.insert(PipelineStage::PreLoad, checked.output);

        let tested = self.run(AgentRole::Evaluation, &ended.artifact_id, &context).await.unwrap();
        ended.evaluation = Some(serde_json::from_value(tested.output.clone()).unwrap());
        context.outputs.insert(PipelineStage::Evaluation, tested.output);

        let managed = self.run(AgentRole::SkillManage, &ended.artifact_id, &context).await.unwrap();
        let managed: SkillManageOutput = serde_json::from_value(managed.output).unwrap();
        Ended { outcome: Some(managed.outcome), ..ended }
    }

    /// What Evaluation says of an operation's package that declares so many retries.
    async fn evaluated_with_retries(&self, operation: &str, retries: i64) -> EvaluationOutput {
        let mut candidate = self.candidate(operation).await;
        let mut context = self.context.clone();
        context.sources = vec![self.source.clone()];
        context.holdout_cases = std::mem::take(&mut candidate.cases);
        context.candidate = Some(candidate);
        let built = self.run(AgentRole::Building, "", &context).await.unwrap();
        let id = ArtifactId::parse(built.artifact_id).unwrap();
        let mut files = self.services.artifacts.package(&id).await.unwrap().files;
        let config = std::str::from_utf8(&files[CONFIG]).unwrap();
        let mut config: toml::Table = toml::from_str(config).unwrap();
        let extra = config["extra"].as_table_mut().unwrap();
        extra.insert("retries".to_owned(), retries.into());
        files.insert(CONFIG.to_owned(), toml::to_string(&config).unwrap().into_bytes());
        let (_, archive) = artifact::pack(&files).unwrap();
        let id = self.services.artifacts.put(archive).await.unwrap();
        let tested = self.run(AgentRole::Evaluation, id.as_str(), &context).await.unwrap();
        serde_json::from_value(tested.output).unwrap()
    }

    async fn ends(&self, operation: &str) -> String {
        let Outcome { decision, code, reason } = self.pipeline(operation).await.outcome.unwrap();
        format!("{} {code}: {reason}", decision.as_str())
    }
}

#[derive(Default)]
struct Ended {
    artifact_id: String,
    pre_load: Option<PreLoadOutput>,
    evaluation: Option<EvaluationOutput>,
    outcome: Option<Outcome>,
}

#[tokio::test]
async fn a_good_operation_becomes_active_with_measured_scores() {
    let api = Api::start().await;
    let bed = Bed::of(&api);
    let ended = bed.pipeline("good").await;
    let pre_load = ended.pre_load.unwrap();
    assert_eq!((pre_load.findings, pre_load.all_healthy), (vec![], true));
    assert!(pre_load.probe_fastest_ms.unwrap() > 0.0);
    let evaluation = ended.evaluation.unwrap();
    let evidence = evaluation.evidence;
    assert_eq!(evidence.holdout, Trials { passed: 20, total: 20 });
    assert_eq!((evidence.cases_run, evidence.train), (1, Trials { passed: 1, total: 1 }));
    assert_eq!((evidence.gate, evidence.failures), (None, vec![]));
    assert_eq!((evidence.novelty, evidence.nearest), (1.0, None));
    let checks: BTreeMap<String, bool> =
        evidence.integration.into_iter().map(|check| (check.name, check.holds)).collect();
    let expected = [
        ("auth_set", true),
        ("composes", false),
        ("dependencies_active", true),
        ("latency", true),
        ("skill_md_valid", true),
    ];
    assert_eq!(checks, expected.map(|(name, holds)| (name.to_owned(), holds)).into());
    assert_eq!(evaluation.recommendation, "activate");
    assert_eq!(ended.outcome.unwrap().decision.as_str(), "active");
    // The same candidate gives the same package, on every machine and in every run.
    assert_eq!(bed.pipeline("good").await.artifact_id, ended.artifact_id);
}

#[tokio::test]
async fn every_bad_operation_ends_for_its_own_reason() {
    let api = Api::start().await;
    let bed = Bed::of(&api);
    for (operation, expected) in [
        (
            "down",
            "discarded below_threshold: none of 3 smoke trials passed (HTTP 503): status 503, expected 200",
        ),
        (
            "wrong",
            "discarded below_threshold: none of 3 smoke trials passed (HTTP 200): at the root: ",
        ),
        ("empty", "discarded below_threshold: 0 of 20 trials passed"),
        ("text", "held no_oracle: the document declares neither a schema nor an example"),
        (
            "good-too",
            "held no_oracle: what a right answer is can't be read: the reference \"elsewhere.json#/X\" is external",
        ),
        ("login", "held auth_missing: reachable but not usable (HTTP 401): it wants a login"),
        (
            "token",
            "held auth_missing: the token FAKE_TOKEN may not be sent to 127.0.0.1: add \"FAKE_TOKEN\" to allow_env",
        ),
        ("needs", "held no_example_for_parameter: the required parameter \"q\""),
        ("events", "discarded streaming_only: it only answers with a stream"),
        (
            "write",
            "held write_not_allowed: POST /write may change something; to let it be executed, add \"write\" to allow_operations",
        ),
        ("loose", "active passed: 20 of 20"),
        ("pets", "active passed: 20 of 20"),
    ] {
        let ended = bed.ends(operation).await;
        assert!(ended.starts_with(expected), "{operation}: {ended}");
    }
    assert_eq!(api.writes.load(Ordering::Relaxed), 0, "a write that is not allowed is not sent");
}

#[tokio::test]
async fn flaky_and_drifting_operations_are_not_activated() {
    let api = Api::start().await;
    let bed = Bed::of(&api);
    let flaky = bed.pipeline("flaky").await.evaluation.unwrap();
    assert!(flaky.evidence.holdout.failed() >= 6, "{:?}", flaky.evidence.holdout);
    assert_ne!(flaky.recommendation, "activate");
    assert_eq!(flaky.evidence.failures[0].code, "status");
    let drift = bed.pipeline("drift").await.evaluation.unwrap();
    assert!(drift.evidence.holdout.failed() >= 8, "{:?}", drift.evidence.holdout);
    assert_ne!(drift.recommendation, "activate");
    assert_eq!(drift.evidence.failures[0].code, "shape");
}

#[tokio::test]
async fn the_latency_budget_is_a_gate_and_a_timeout_ends_at_once() {
    let api = Api::start().await;
    let mut bed = Bed::of(&api);
    assert!(bed.ends("slow").await.starts_with("active"), "60 ms are within 5 × the fastest probe");
    bed.source.latency_budget_ms = Some(20);
    let ended = bed.ends("slow").await;
    assert!(ended.starts_with("discarded latency: every call takes"), "{ended}");
    assert_eq!(bed.ends("delay").await, "discarded latency: no answer within 5000 ms");
}

#[tokio::test]
async fn a_package_that_declares_retries_must_survive_faults() {
    let api = Api::start().await;
    let mut bed = Bed::of(&api);
    bed.source.allow_operations = vec!["POST /write".to_owned()];
    let survived = |passed, total| Trials { passed, total };
    for (operation, retries, expected) in [
        ("good", 0, survived(0, 0)),
        ("good", 1, survived(5, 5)),
        // A write is never sent twice, whatever its package says.
        ("write", 3, survived(0, 5)),
    ] {
        let evaluated = bed.evaluated_with_retries(operation, retries).await;
        assert_eq!(evaluated.evidence.faults, expected, "{operation}");
        assert_eq!(evaluated.evidence.holdout, survived(20, 20), "{operation}");
    }
}

#[tokio::test]
async fn allowed_writes_and_allowed_tokens_are_used() {
    let api = Api::start().await;
    let mut bed = Bed::of(&api);
    bed.source.allow_operations = vec!["POST /write".to_owned()];
    assert!(bed.ends("write").await.starts_with("active"));
    assert!(api.writes.load(Ordering::Relaxed) > 20);

    bed.source.auth_ref = Some("FAKE_KEY".to_owned());
    bed.source.allow_env = vec!["FAKE_KEY".to_owned(), "FAKE_UNSET".to_owned()];
    bed.context.sources = vec![bed.source.clone()];
    assert!(bed.ends("token").await.starts_with("active"));
    bed.source.auth_ref = Some("FAKE_UNSET".to_owned());
    bed.context.sources = vec![bed.source.clone()];
    assert_eq!(
        bed.ends("token").await,
        "held auth_missing: set the environment variable FAKE_UNSET for the runner of the stages"
    );
}

#[tokio::test]
async fn a_server_that_is_gone_or_private_or_unnamed_holds_the_candidate() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("api.json");
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let mut document = http::document();
    document["servers"] = serde_json::json!([{"url": closed}]);
    std::fs::write(&file, document.to_string()).unwrap();

    let mut bed = Bed::new(SourceConfig::openapi("fake", file.to_str().unwrap()));
    let ended = bed.ends("good").await;
    assert!(
        ended.starts_with(&format!("held origin_not_allowed: {closed} may not be called"))
            && ended.contains(&format!("add \"{closed}\" to allow_origins of the source \"fake\"")),
        "{ended}"
    );
    bed.source.allow_origins = vec![closed];
    let ended = bed.ends("good").await;
    assert!(ended.starts_with("held unreachable: not reached in 3 tries: "), "{ended}");

    std::fs::write(&file, http::document().to_string()).unwrap();
    assert_eq!(
        bed.ends("good").await,
        "held unreachable: the document names no server address; set base_url of the source \"fake\""
    );
}

#[tokio::test]
async fn broken_sources_fail_alone() {
    let api = Api::start().await;
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.yaml");
    std::fs::write(&broken, "openapi: 3.0.0\npaths: {\n").unwrap();
    let mut bed = Bed::of(&api);
    let mut disabled = SourceConfig::openapi("off", "/nonexistent");
    disabled.enabled = false;
    bed.source.max_candidates = Some(3);
    bed.context.sources = vec![
        SourceConfig::openapi("broken", broken.to_str().unwrap()),
        SourceConfig::openapi("missing", "/nonexistent/api.yaml"),
        SourceConfig::openapi("gone", "http://127.0.0.1:9/api.json"),
        SourceConfig::openapi("odd", "ftp://example.com/api.json"),
        SourceConfig::openapi("evo-king", "king:"),
        disabled,
        bed.source.clone(),
    ];
    let learned = bed.learn().await;
    let failed: Vec<(&str, String)> = learned
        .failed_sources
        .iter()
        .map(|failed| (failed.name.as_str(), failed.message.chars().take(40).collect()))
        .collect();
    assert_eq!(failed[0].0, "broken");
    assert!(learned.failed_sources[0].message.contains("broken.yaml:"), "{failed:?}");
    assert!(failed[1].1.starts_with("/nonexistent/api.yaml: the document"), "{failed:?}");
    assert!(failed[2].1.starts_with("http://127.0.0.1:9/api.json: unreachable"), "{failed:?}");
    assert!(learned.failed_sources[3].message.contains("use http, https or a file path"));
    assert!(learned.failed_sources[4].message.contains("king: has no address today"));
    assert_eq!((learned.failed_sources.len(), learned.candidates.len()), (5, 3));
}

/// A limited cycle takes what was not tried before, and says of the rest how it ended.
#[tokio::test]
async fn what_was_tried_comes_late_and_carries_its_end() {
    let api = Api::start().await;
    let mut bed = Bed::of(&api);
    let before = bed.learn().await.candidates;
    assert!(before.len() > 4 && before.iter().all(|candidate| candidate.past.is_none()));
    bed.source.max_candidates = Some(u32::try_from(before.len()).unwrap());
    bed.context.sources = vec![bed.source.clone()];
    let before = bed.learn().await.candidates;
    let past = |candidate: &Candidate, decision, code: &str, count| PastOutcome {
        source: candidate.source.clone(),
        locator: candidate.locator.clone(),
        name: candidate.name.clone(),
        fingerprint: candidate.fingerprint.clone(),
        decision,
        code: code.to_owned(),
        reason: "a reason".to_owned(),
        count,
        first_at: String::new(),
        last_at: String::new(),
    };
    let changed = PastOutcome {
        fingerprint: "another".to_owned(),
        ..past(&before[4], Verdict::Discarded, "unsafe", 9)
    };
    bed.context.past = vec![
        past(&before[0], Verdict::Discarded, "below_threshold", 1),
        past(&before[1], Verdict::Held, "unreachable", 3),
        past(&before[2], Verdict::Held, "unreachable", 2),
        past(&before[3], Verdict::Held, "need_more_evidence", 5),
        changed,
        PastOutcome { source: "other".to_owned(), ..past(&before[5], Verdict::Failed, "x", 1) },
    ];
    let after = bed.learn().await.candidates;
    let place = |index: usize| after.iter().position(|c| c.name == before[index].name).unwrap();
    assert!(place(3) < place(4) && place(4) < place(5), "those keep their order");
    assert!(place(5) < place(2) && place(2) < place(1) && place(1) < place(0));
    let told: Vec<_> = (0..6).map(|index| after[place(index)].past.is_some()).collect();
    assert_eq!(told, [true, true, true, true, false, false]);
    assert_eq!(after.len(), before.len());
    bed.source.max_candidates = Some(1);
    bed.context.sources = vec![bed.source.clone()];
    assert_eq!(bed.learn().await.candidates[0].name, before[3].name);
}

#[tokio::test]
async fn a_new_version_is_compared_in_pairs() {
    let api = Api::start().await;
    let mut bed = Bed::of(&api);
    let incumbent = bed.pipeline("good").await.artifact_id;
    bed.context.incumbent = Some(Incumbent { artifact_id: incumbent, version: "0.1.0".to_owned() });
    bed.context.version = "0.1.1".to_owned();
    let evaluation = bed.pipeline("good").await.evaluation.unwrap();
    let paired = evaluation.evidence.paired.unwrap();
    assert_eq!(
        Paired { latency_ratio_high: None, ..paired },
        Paired { total: 20, ..Paired::default() }
    );
    assert!(paired.latency_ratio_high.is_some());
}

#[tokio::test]
async fn known_skills_lower_novelty_and_compose() {
    let api = Api::start().await;
    let mut bed = Bed::of(&api);
    let candidate = bed.candidate("good").await;
    bed.context.known_skills = vec![KnownSkill {
        name: "other-good".to_owned(),
        active: true,
        fingerprint: String::new(),
        description: candidate.description,
        capabilities: candidate.capabilities,
        endpoints: vec![format!("GET {}/good", api.url())],
        inputs: vec![evo_common::skill::SkillIO {
            name: "n".to_owned(),
            r#type: "integer".to_owned(),
            required: true,
            description: None,
        }],
        outputs: Vec::new(),
    }];
    let evidence = bed.pipeline("good").await.evaluation.unwrap().evidence;
    assert!(evidence.novelty < 0.5, "{}", evidence.novelty);
    assert_eq!(evidence.nearest.as_deref(), Some("other-good"));
    assert!(evidence.integration.iter().all(|check| check.holds), "{:?}", evidence.integration);
}

#[tokio::test]
async fn bad_jobs_are_errors_that_say_what_is_missing() {
    let bed = Bed::new(SourceConfig::openapi("fake", "x"));
    let error = |result: Result<StageDone, StageError>| result.unwrap_err();
    let run = |role: AgentRole, id: &'static str| bed.run(role, id, &bed.context);
    let missing = error(run(AgentRole::Building, "").await);
    assert!(missing.message.contains("`metadata.candidate` is missing") && !missing.transient);
    let mut context = bed.context.clone();
    context.candidate = Some(Candidate {
        kind: CandidateKind::Openapi,
        request_id: None,
        name: "fake-x".to_owned(),
        source: "other".to_owned(),
        locator: "GET /x".to_owned(),
        description: String::new(),
        capabilities: Vec::new(),
        fingerprint: String::new(),
        demand: 1.0,
        deterministic: true,
        definition: serde_json::Value::Null,
        cases: Vec::new(),
        written: Vec::new(),
        past: None,
    });
    let gone = error(bed.run(AgentRole::PreLoad, "", &context).await);
    assert!(gone.message.contains("the source \"other\""), "{gone}");
    context.candidate.as_mut().unwrap().source = "fake".to_owned();
    let id = error(bed.run(AgentRole::Evaluation, "nonsense", &context).await);
    assert!(id.message.starts_with("`artifact_id`"), "{id}");
    let output = error(bed.run(AgentRole::SkillManage, "", &context).await);
    assert_eq!(output.message, "`metadata.outputs.evaluation` is missing");
}

#[tokio::test]
async fn cancelling_ends_an_evaluation_between_trials() {
    let api = Api::start().await;
    let bed = Bed::of(&api);
    let mut candidate = bed.candidate("good").await;
    let mut context = bed.context.clone();
    context.train_cases = std::mem::take(&mut candidate.cases);
    context.holdout_cases.clone_from(&context.train_cases);
    context.candidate = Some(candidate);
    context.plan.sitting_gap_ms = 60_000;
    let built = bed.run(AgentRole::Building, "", &context).await.unwrap();
    let cancel = bed.services.cancel.clone();
    let (result, ()) =
        tokio::join!(bed.run(AgentRole::Evaluation, &built.artifact_id, &context), async move {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            cancel.cancel();
        });
    let error = result.unwrap_err();
    assert_eq!((error.message.as_str(), error.transient), ("the evaluation was cancelled", true));
}

/// What the stage says about a package, with the files of `change` put in.
async fn pre_load_of(operation: &str, change: &[(&str, &str, &str)]) -> Option<Outcome> {
    let api = Api::start().await;
    let bed = Bed::of(&api);
    let mut candidate = bed.candidate(operation).await;
    let mut context = bed.context.clone();
    context.train_cases = std::mem::take(&mut candidate.cases);
    context.candidate = Some(candidate);
    let built = bed.run(AgentRole::Building, "", &context).await.unwrap();
    let id = ArtifactId::parse(built.artifact_id.as_str()).unwrap();
    let mut files = bed.services.artifacts.package(&id).await.unwrap().files;
    for (file, from, to) in change {
        let text = String::from_utf8(files[*file].clone()).unwrap();
        assert!(text.contains(from), "{file}: {text}");
        files.insert((*file).to_owned(), text.replace(from, to).into_bytes());
    }
    let (_, archive) = evo_common::artifact::pack(&files).unwrap();
    let id = bed.services.artifacts.put(archive).await.unwrap();
    let done = bed.run(AgentRole::PreLoad, id.as_str(), &context).await.unwrap();
    serde_json::from_value::<PreLoadOutput>(done.output).unwrap().outcome
}

#[tokio::test]
async fn a_package_that_is_not_what_its_definition_says_is_discarded() {
    assert_eq!(pre_load_of("good", &[]).await, None);
    for (change, what) in [
        (("manifest.toml", "fake-good", "fake-best"), "its name is \"fake-best\", but"),
        (("manifest.toml", "0.1.0", "9.9.9"), "its version is \"9.9.9\", but"),
        (("config.toml", "/good\"", "/write\""), "its endpoint is \"GET http://127.0.0.1:"),
        (("config.toml", "method = \"GET\"", "method = \"POST\""), "its endpoint is \"POST "),
        (
            ("config.toml", "[[endpoints]]", "auth_ref = \"HOME\"\n[[endpoints]]"),
            "its auth_ref is \"HOME\", but",
        ),
        (
            ("provenance.toml", "source = \"fake\"", "source = \"evo-king\""),
            "its source is \"evo-king\", but",
        ),
        (("config.toml", "timeout_ms = 10000", "timeout_ms = 9"), "its config.toml is different"),
    ] {
        let outcome = pre_load_of("good", &[change]).await.unwrap();
        assert_eq!(outcome.code, evo_common::outcome::codes::INVALID_PACKAGE, "{what}");
        assert!(outcome.reason.starts_with(what), "{outcome:?}");
    }
}

#[tokio::test]
async fn failed_sources_show_no_secret_of_their_location() {
    let mut bed = Bed::new(SourceConfig::openapi("fake", "x"));
    bed.context.sources = [
        "http://127.0.0.1:9/api.json?sig=s3cret",
        "http://u:s3cret@127.0.0.1:9/api.json",
        "ftp://u:s3cret@example.com/x?s3cret",
        "http://u:s3cret@127.0.0.1:99999/x?s3cret",
    ]
    .iter()
    .enumerate()
    .map(|(i, location)| SourceConfig::openapi(format!("s{i}"), *location))
    .collect();
    let failed = bed.learn().await.failed_sources;
    assert_eq!(failed.len(), 4);
    assert!(!format!("{failed:?}").contains("s3cret"), "{failed:?}");
    let api = Api::start().await;
    let location = format!("{}/good?sig=s3cret", api.url());
    bed.context.sources = vec![SourceConfig::openapi("odd", &location)];
    let failed = bed.learn().await.failed_sources;
    assert!(failed[0].message.contains("/good: not an OpenAPI document"), "{failed:?}");
}
