//! The pipeline over a real database, with a runner that answers from a script.

mod by_hand;
mod control;
mod cycle;
mod direct;
mod lifecycle;
mod recovery;
mod requests;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use evo_common::{
    api::{CycleReport, RunKind, StartRun},
    artifact::{self, Files},
    case::{Case, Expectation},
    config::SourceConfig,
    evidence::{Evidence, IntegrationCheck, Paired, Trials},
    ids::{Attempt, RunId},
    messages::{
        AgentRegister, AgentRegistration, AgentRole, AttemptAccepted, PipelineRunStatus,
        PipelineStage, PipelineStageResult, Reply, ReplyStatus, RunnerStatus, StageDispatch,
        StageReport, events,
    },
    outcome::{Outcome, Verdict},
    skill::{SkillManifest, Written},
    stage::{
        BuildingOutput, Candidate, CandidateKind, EvaluationOutput, Finding, KnownName,
        LearningOutput, PreLoadOutput, Severity, SkillManageOutput, StageContext,
    },
    tokens::Tokens,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::{
    registry::{Connected, Outlet},
    store::Database,
};

/// Candidates of the scripted document. The third is held by Pre-load.
const CANDIDATES: [&str; 4] = ["api-a", "api-b", "api-c", "api-d"];

struct Channel(mpsc::Sender<(String, Value)>);

impl Outlet for Channel {
    fn send(&self, event: &'static str, payload: &Value) -> bool {
        self.0.try_send((event.to_owned(), payload.clone())).is_ok()
    }
}

/// A king without network: the pipeline, its loop, and five scripted runners.
struct Bench {
    pipeline: Coordinator,
    store: Store,
    artifacts: ArtifactStore,
    registry: Registry,
    shutdown: evo_common::runtime::Shutdown,
    contexts: Arc<Mutex<Vec<(PipelineStage, StageContext)>>>,
}

fn agent_of(stage: PipelineStage) -> String {
    format!("evo-{stage}")
}

impl Bench {
    async fn start(folder: &TempDir) -> Self {
        Self::on(folder, Database::File(folder.path().join("king.db"))).await
    }

    async fn on(folder: &TempDir, database: Database) -> Self {
        Self::with(folder, database, |_| {}).await
    }

    async fn with(
        folder: &TempDir,
        database: Database,
        configure: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config::new(folder.path(), Tokens::generate());
        config.retry_look_after_ms = 3_600_000;
        configure(&mut config);
        let store = Store::open(database).await.unwrap();
        let artifacts = ArtifactStore::open(&folder.path().join("artifacts")).unwrap();
        let registry = Registry::default();
        let sources = Sources::new(
            vec![SourceConfig::openapi("api", "api.json")],
            "http://127.0.0.1:1",
            None,
        );
        let pipeline = Coordinator::new(
            store.clone(),
            artifacts.clone(),
            registry.clone(),
            sources,
            Arc::new(config),
        );
        pipeline.recover().await.unwrap();
        let shutdown = evo_common::runtime::Shutdown::new();
        Self { pipeline, store, artifacts, registry, shutdown, contexts: Arc::default() }
    }

    /// Registers the five runners under a new session. After `reports` results they fall silent.
    async fn runners(&self, session: &str, reports: usize) -> mpsc::Receiver<()> {
        let (outlet, mut inbox) = mpsc::channel(1_000);
        for stage in PipelineStage::ALL {
            let role: AgentRole = stage.as_str().parse().unwrap();
            let registration = AgentRegistration {
                register: AgentRegister {
                    agent_id: agent_of(stage),
                    role: role.clone(),
                    capabilities: Vec::new(),
                },
                protocol: Some(2),
                req_id: None,
                session_id: Some(session.to_owned()),
                capacity: Some(4),
                in_hand: Vec::new(),
                tasks_in_hand: Vec::new(),
                skills: Vec::new(),
                soul_content: None,
                version: None,
                binary_path: None,
                pid: None,
                extra: serde_json::Map::new(),
            };
            self.pipeline.register(registration, 4).await.unwrap();
            self.registry.connect(
                &agent_of(stage),
                Connected {
                    connection: session.to_owned(),
                    opened: self.registry.next_connection(),
                    outlet: Arc::new(Channel(outlet.clone())),
                    role,
                    capacity: 4,
                    capabilities: Vec::new(),
                    legacy: false,
                    status: RunnerStatus::Ready,
                },
            );
        }
        let (silent, fell_silent) = mpsc::channel(1);
        let (pipeline, artifacts, contexts) =
            (self.pipeline.clone(), self.artifacts.clone(), self.contexts.clone());
        let answer = async move {
            let mut left = reports;
            while let Some((event, payload)) = inbox.recv().await {
                if event != events::PIPELINE_NEXT {
                    continue;
                }
                if left == 0 {
                    silent.send(()).await.unwrap_or_default();
                    continue;
                }
                left -= 1;
                let dispatch: StageDispatch = serde_json::from_value(payload).unwrap();
                let context = StageContext::from_metadata(&dispatch.next.metadata).unwrap();
                let stage = dispatch.next.stage;
                contexts.lock().unwrap().push((stage, context.clone()));
                let accepted = AttemptAccepted {
                    agent_id: agent_of(stage),
                    run_id: dispatch.run_id.clone(),
                    stage,
                    attempt: dispatch.attempt,
                };
                pipeline.accepted(&accepted).unwrap();
                let report = script(&artifacts, &dispatch, &context).await;
                let reply = pipeline.report(report.clone()).await;
                assert_eq!(reply.status, ReplyStatus::Accepted, "{reply:?}");
                let again = pipeline.report(report).await;
                assert_eq!(again.status, ReplyStatus::Duplicate, "{again:?}");
            }
        };
        #[expect(clippy::disallowed_methods, reason = "a test's helper ends with the test")]
        tokio::spawn(answer);
        let (pipeline, shutdown) = (self.pipeline.clone(), self.shutdown.clone());
        #[expect(clippy::disallowed_methods, reason = "a test's helper ends with the test")]
        tokio::spawn(async move { pipeline.reconcile(shutdown).await.unwrap() });
        fell_silent
    }

    async fn start_cycle(&self) -> RunId {
        let request = StartRun {
            trigger: json!({"kind": "test"}),
            idempotency_key: Some("the cycle".to_owned()),
            ..StartRun::default()
        };
        RunId::parse(self.pipeline.start(request).await.unwrap().run_id).unwrap()
    }

    /// A cycle over these candidates, to its end.
    async fn cycle_over(&self, names: &[&str]) -> CycleReport {
        let request = StartRun { trigger: json!({"names": names}), ..StartRun::default() };
        let cycle = self.pipeline.start(request).await.unwrap().run_id;
        self.ended(&RunId::parse(cycle).unwrap()).await
    }

    async fn ended(&self, cycle: &RunId) -> CycleReport {
        for _ in 0..2_000 {
            let report = self.store.cycle_report(cycle).await.unwrap().unwrap();
            if report.status != PipelineRunStatus::Running {
                return report;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the cycle did not end");
    }
}

/// A candidate of this name. `name#7` is another definition of it. With `name@operation` a model gave it that name, and described it.
fn candidate(name: &str) -> Candidate {
    if let Some((first, _)) = name.split_once('#') {
        return Candidate { fingerprint: format!("print of {name}"), ..candidate(first) };
    }
    if let Some((name, operation)) = name.split_once('@') {
        let fields = ["description", "name"].map(str::to_owned).to_vec();
        let (model, prompt) = ("fake:model".to_owned(), "12".repeat(32));
        return Candidate {
            name: name.to_owned(),
            description: format!("Better {name}."),
            written: vec![Written { model, prompt, fields }],
            ..candidate(operation)
        };
    }
    Candidate {
        kind: CandidateKind::Openapi,
        request_id: None,
        name: name.to_owned(),
        source: "api".to_owned(),
        locator: format!("{} /{name}", if name.ends_with("-write") { "POST" } else { "GET" }),
        description: format!("Reads {name}."),
        capabilities: vec![name.to_owned()],
        fingerprint: format!("print of {name}"),
        demand: 1.0,
        deterministic: false,
        definition: if name.contains("-pet-") {
            json!({"path": name, "tags": ["Pet Store"]})
        } else {
            json!({"path": name})
        },
        cases: (0..5)
            .map(|number| Case {
                case_id: format!("{name}-{number}"),
                input: serde_json::Map::new(),
                expect: Expectation::default(),
                origin: "example".to_owned(),
                pinned: false,
            })
            .collect(),
        written: Vec::new(),
        past: None,
    }
}

fn finding() -> Finding {
    Finding {
        code: "raw_ip".to_owned(),
        severity: Severity::High,
        file: "SKILL.md".to_owned(),
        line: Some(3),
        message: "it loads a program from a bare address".to_owned(),
    }
}

fn manifest(name: &str, version: &str) -> SkillManifest {
    SkillManifest {
        name: name.to_owned(),
        version: version.to_owned(),
        description: format!("Reads {name}."),
        capabilities: vec![name.to_owned()],
        inputs: Vec::new(),
        outputs: Vec::new(),
        dependencies: Vec::new(),
        has_code: false,
    }
}

async fn script(
    artifacts: &ArtifactStore,
    dispatch: &StageDispatch,
    context: &StageContext,
) -> StageReport {
    let stage = dispatch.next.stage;
    let name = context.candidate.as_ref().map(|candidate| candidate.name.clone());
    let name = name.unwrap_or_default();
    let mut artifact_id = dispatch.next.artifact_id.clone();
    let output = match stage {
        PipelineStage::Learning => {
            let mut output = LearningOutput {
                candidates: match context.trigger["names"].as_array() {
                    Some(names) => {
                        names.iter().map(|name| candidate(name.as_str().unwrap())).collect()
                    }
                    None if context.trigger["requests"].is_array() => Vec::new(),
                    None => CANDIDATES.map(candidate).to_vec(),
                },
                ..LearningOutput::default()
            };
            requests::answer(&context.requests, &mut output);
            json!(output)
        }
        PipelineStage::Building => {
            let manifest = manifest(&name, &context.version);
            let text = toml::to_string(&manifest).unwrap();
            let files = Files::from([("manifest.toml".to_owned(), text.into_bytes())]);
            let (_, bytes) = artifact::pack(&files).unwrap();
            artifact_id = artifacts.put(bytes.into()).await.unwrap().into();
            json!(BuildingOutput {
                manifest,
                endpoints: vec![format!("GET http://api/{name}")],
                files: std::collections::BTreeMap::new(),
                changes: Vec::new(),
                outcome: None,
                usage: serde_json::from_value(context.trigger["usage"].clone()).ok(),
            })
        }
        PipelineStage::PreLoad => json!(PreLoadOutput {
            findings: if name == "api-scanned" { vec![finding()] } else { Vec::new() },
            outcome: (name == "api-c").then(|| Outcome::held("unreachable", "no answer")),
            ..PreLoadOutput::default()
        }),
        PipelineStage::Evaluation => {
            // Five looks of three trials are fewer than the first one needs.
            let total = if name == "api-seldom" { 3 } else { context.plan.trials };
            let fingerprint = context.candidate.as_ref().map(|of| of.fingerprint.as_str());
            let is_asked = context.candidate.as_ref().is_some_and(|c| c.request_id.is_some());
            let passed = match name.as_str() {
                "api-fails-asked" if is_asked => 3,
                _ if fingerprint.is_some_and(|print| print.ends_with("#bad")) => 3,
                "api-d" | "api-bad" => 3,
                // One failure, at the first look.
                "api-flaky" if context.plan.look == 1 => total - 1,
                "api-seldom" => 3,
                _ => total,
            };
            // A new version always answers better than the one in use.
            let incumbent = context.incumbent.as_ref();
            let better = Paired { better: total, total, ..Paired::default() };
            let evidence = Evidence {
                paired: incumbent.map(|_| better),
                incumbent: incumbent.map(|incumbent| incumbent.artifact_id.clone()),
                holdout: Trials { passed, total },
                novelty: 1.0,
                integration: vec![IntegrationCheck { name: "composes".to_owned(), holds: true }],
                ..Evidence::default()
            };
            let scores = evidence.scores();
            // A runner that lies about the score changes nothing: king counts for itself.
            json!(EvaluationOutput {
                evidence,
                scores,
                overall_score: 1.0,
                recommendation: "activate".to_owned(),
            })
        }
        PipelineStage::SkillManage => json!(SkillManageOutput {
            action: "activated".to_owned(),
            reason: "fine".to_owned(),
            outcome: Outcome::active("fine"),
            overall_score: 1.0,
        }),
    };
    StageReport {
        result: PipelineStageResult {
            run_id: dispatch.run_id.clone(),
            stage,
            agent_id: agent_of(stage),
            status: PipelineRunStatus::Completed,
            artifact_id,
            output,
            error: None,
        },
        attempt: Some(dispatch.attempt),
        req_id: Some("1".to_owned()),
        transient: false,
        seq: None,
        trace: None,
    }
}

fn check(report: &CycleReport) {
    let names = |list: &[evo_common::api::InactiveCandidate]| {
        list.iter().map(|c| (c.name.clone(), c.code.clone())).collect::<Vec<_>>()
    };
    assert_eq!(report.candidates, 4);
    let active: Vec<_> = report.active.iter().map(|s| (s.name.as_str(), s.new)).collect();
    assert_eq!(active, [("api-a", true), ("api-b", true)]);
    assert_eq!(names(&report.held), [("api-c".to_owned(), "unreachable".to_owned())]);
    assert_eq!(names(&report.discarded), [("api-d".to_owned(), "below_threshold".to_owned())]);
    assert_eq!(names(&report.failed), []);
}

#[tokio::test]
async fn a_skill_keeps_the_name_that_a_model_gave_it() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let _silent = bench.runners("one", usize::MAX).await;
    let report = bench.cycle_over(&["api-nice@api-a", "api-b"]).await;
    let active = |report: &CycleReport| -> Vec<String> {
        report.active.iter().map(|skill| skill.name.clone()).collect()
    };
    assert_eq!(active(&report), ["api-b", "api-nice"]);

    // A cycle that had begun before that one ended did not know the name yet.
    let report = bench.cycle_over(&["api-other@api-a", "api-b"]).await;
    assert_eq!(report.discarded.len(), 2, "{report:?}");
    assert!(report.discarded.iter().all(|candidate| candidate.code == "duplicate"), "{report:?}");
    assert_eq!(report.discarded[1].name, "api-nice");
    assert_eq!(
        bench.store.skills_get("api-other", &crate::config::CanaryConfig::default()).await.unwrap(),
        None
    );

    let contexts = bench.contexts.lock().unwrap();
    let names: Vec<&Option<Vec<KnownName>>> = contexts
        .iter()
        .filter(|(stage, _)| *stage == PipelineStage::Learning)
        .map(|(_, context)| &context.names)
        .collect();
    let known = |candidate: Candidate| KnownName {
        description: (!candidate.written.is_empty()).then_some(candidate.description),
        name: candidate.name,
        source: candidate.source,
        locator: candidate.locator,
        fingerprint: candidate.fingerprint,
        written: candidate.written,
    };
    let expected = vec![known(candidate("api-b")), known(candidate("api-nice@api-a"))];
    assert_eq!(names, [&Some(Vec::new()), &Some(expected)]);
    let others = contexts.iter().filter(|(stage, _)| *stage != PipelineStage::Learning);
    assert!(others.into_iter().all(|(_, context)| context.names.is_none()));
}

#[tokio::test]
async fn building_is_told_what_was_made_of_the_same_definition() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let _silent = bench.runners("one", usize::MAX).await;
    for _ in 0..2 {
        assert_eq!(bench.cycle_over(&["api-c"]).await.held.len(), 1);
    }
    let skill = bench
        .store
        .skills_get("api-c", &crate::config::CanaryConfig::default())
        .await
        .unwrap()
        .unwrap();
    let contexts = bench.contexts.lock().unwrap();
    let building = contexts.iter().filter(|(stage, _)| *stage == PipelineStage::Building);
    let earlier: Vec<_> = building.map(|(_, context)| context.earlier.clone()).collect();
    assert_eq!(earlier, [None, Some(skill.versions[0].artifact_id.clone())]);
}

#[tokio::test]
async fn strangers_and_stale_answers_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let _silent = bench.runners("one", 0).await;
    let cycle = bench.start_cycle().await;
    let leased = async || {
        for _ in 0..500 {
            let run = bench.store.runs_get(&cycle).await.unwrap().unwrap();
            if run.stages.first().is_some_and(|stage| stage.agent_id.is_some()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the cycle was not dispatched");
    };
    leased().await;
    let report = |agent: &str, attempt: u32, status: PipelineRunStatus| StageReport {
        result: PipelineStageResult {
            run_id: cycle.to_string(),
            stage: PipelineStage::Learning,
            agent_id: agent.to_owned(),
            status,
            artifact_id: String::new(),
            output: json!({"candidates": "many"}),
            error: None,
        },
        attempt: Some(Attempt(attempt)),
        req_id: None,
        transient: false,
        seq: None,
        trace: None,
    };
    let code = async |report: StageReport| -> Option<String> {
        let Reply { code, .. } = bench.pipeline.report(report).await;
        code
    };
    let done = PipelineRunStatus::Completed;
    assert_eq!(code(report("thief", 1, done)).await.as_deref(), Some("not_your_attempt"));
    assert_eq!(code(report("evo-learning", 7, done)).await.as_deref(), Some("stale_attempt"));
    let running = report("evo-learning", 1, PipelineRunStatus::Running);
    assert_eq!(code(running).await.as_deref(), Some("invalid_field"));
    // Output that can't be read ends the stage, and says which field is wrong.
    assert_eq!(code(report("evo-learning", 1, done)).await, None);
    let run = bench.store.runs_get(&cycle).await.unwrap().unwrap();
    assert_eq!(run.run.status, PipelineRunStatus::Failed);
    let error = run.stages[0].error.clone().unwrap();
    assert!(error.contains("field `candidates`"), "{error}");
    assert_eq!(
        code(report("evo-learning", 1, PipelineRunStatus::Failed)).await.as_deref(),
        Some("already_answered")
    );
    bench.shutdown.cancel();
}
