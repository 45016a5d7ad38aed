//! Every message in every variant, pinned as a file under `tests/golden`.
//!
//! A missing file is written and fails the test once, so that a person looks at it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Debug,
    fs,
    path::{Path, PathBuf},
};

use evo_common::{
    case::{Case, Expectation, Split},
    config::{ProviderType, SourceConfig, SourceKind},
    evidence::{
        Bounds, CapabilityTrials, Evidence, IntegrationCheck, Latency, Paired, Scores,
        TrialFailure, Trials,
    },
    ids::Attempt,
    messages::{
        AgentHealth, AgentHeartbeat, AgentRegister, AgentRegistration, AgentRole, AgentSkillReport,
        AgentStatus, AttemptAccepted, AttemptCancel, AttemptRef, ChecklistItem, CommandProgress,
        CommandResult, ComponentFacts, ConfigNotice, HealthCheck, KingCommand, KingConfigUpdate,
        KingWelcome, ObserverSubscribe, PipelineNext, PipelineRunStatus, PipelineStage,
        PipelineStageResult, Reply, ReplyStatus, RunnerStatus, SkillCall, SkillResult,
        StageDispatch, StageReport, SystemDiscovery, SystemFacts, TaskAttemptRef, ToolFacts,
        TraceContext,
    },
    outcome::{Outcome, Verdict, codes},
    rollout::{CanaryRef, SkillInUse, VersionRef},
    skill::{HttpMethod, SkillIO, SkillManifest, Written},
    stage::{
        BuildingOutput, Candidate, CandidateKind, EvaluationOutput, EvaluationPlan, FailedSource,
        Finding, Incumbent, KnownName, KnownSkill, LearningOutput, ModelUsage, PastOutcome,
        PreLoadOutput, RequestKind, Severity, SkillManageOutput, SkillRequest, StageContext,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Collects what is wrong, so that one run shows everything.
#[derive(Default)]
pub(crate) struct Goldens {
    seen: BTreeSet<String>,
    faults: Vec<String>,
}

impl Goldens {
    /// Serialise ↔ parse ↔ compare with the file.
    pub(crate) fn value<T>(&mut self, name: &str, value: &T)
    where
        T: Serialize + DeserializeOwned + PartialEq + Debug,
    {
        assert!(self.seen.insert(name.to_owned()), "{name} is used twice");
        let path = folder().join(format!("{name}.json"));
        let written = serde_json::to_value(value).unwrap();
        let Ok(text) = fs::read_to_string(&path) else {
            fs::write(&path, serde_json::to_string_pretty(&written).unwrap() + "\n").unwrap();
            self.faults.push(format!("{name}: the file was missing; look at what was written"));
            return;
        };
        let golden: Value = serde_json::from_str(&text).unwrap();
        if written != golden {
            self.faults.push(format!("{name}: is written as {written}, not as {golden}"));
        }
        // From a value and from text: serde's paths differ.
        for parsed in [
            serde_json::from_value::<T>(golden.clone()).map_err(|e| e.to_string()),
            serde_json::from_str::<T>(&text).map_err(|e| e.to_string()),
        ] {
            match parsed {
                Ok(parsed) if parsed == *value => {}
                Ok(parsed) => self.faults.push(format!("{name}: is read as {parsed:?}")),
                Err(error) => self.faults.push(format!("{name}: can't be read: {error}")),
            }
        }
    }

    /// A message is also read from a JSON text that holds it.
    pub(crate) fn message<T>(&mut self, name: &str, value: &T)
    where
        T: Serialize + DeserializeOwned + PartialEq + Debug,
    {
        self.value(name, value);
        let text = Value::String(serde_json::to_string(value).unwrap());
        for parsed in [
            serde_json::from_value::<T>(text.clone()),
            serde_json::from_str::<T>(&text.to_string()),
        ] {
            match parsed {
                Ok(parsed) if parsed == *value => {}
                other => self.faults.push(format!("{name}: as a JSON text is read as {other:?}")),
            }
        }
    }
}

fn object(value: Value) -> HashMap<String, Value> {
    serde_json::from_value(value).unwrap()
}

pub(crate) fn text(value: &str) -> String {
    value.to_owned()
}

pub(crate) fn trace() -> TraceContext {
    TraceContext(HashMap::from([(
        text("traceparent"),
        text("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    )]))
}

fn attempt_ref() -> AttemptRef {
    AttemptRef { run_id: text("run-1"), stage: PipelineStage::Building, attempt: Attempt(2) }
}

fn task_attempt_ref() -> TaskAttemptRef {
    TaskAttemptRef { task_id: text("task-1"), attempt: Attempt(2) }
}

fn register() -> AgentRegister {
    AgentRegister {
        agent_id: text("learning-001"),
        role: AgentRole::Learning,
        capabilities: vec![text("discover"), text("evaluate")],
    }
}

fn agent_messages(goldens: &mut Goldens) {
    goldens.message("agent_register", &register());
    goldens.message(
        "agent_register.user",
        &AgentRegister { role: AgentRole::User(text("translator")), ..register() },
    );
    goldens.message(
        "agent_registration.legacy",
        &AgentRegistration {
            register: register(),
            protocol: None,
            req_id: None,
            session_id: None,
            capacity: None,
            in_hand: vec![],
            tasks_in_hand: vec![],
            skills: vec![],
            soul_content: None,
            version: None,
            binary_path: None,
            pid: None,
            extra: serde_json::Map::new(),
        },
    );
    goldens.message(
        "agent_registration",
        &AgentRegistration {
            register: register(),
            protocol: Some(2),
            req_id: Some(text("req-1")),
            session_id: Some(text("session-1")),
            capacity: Some(4),
            in_hand: vec![attempt_ref()],
            tasks_in_hand: vec![task_attempt_ref()],
            skills: vec![text("web-search")],
            soul_content: Some(text("# Learning\n\n## Role\nlearning\n")),
            version: Some(text("0.1.0")),
            binary_path: Some(text("/usr/local/bin/evo-runner")),
            pid: Some(42),
            extra: serde_json::Map::from_iter([(text("preferred_model"), json!("gpt-4o"))]),
        },
    );
    let status = |status| AgentStatus { agent_id: text("a"), status, metrics: HashMap::new() };
    for (name, state) in [
        ("starting", RunnerStatus::Starting),
        ("ready", RunnerStatus::Ready),
        ("busy", RunnerStatus::Busy),
        ("error", RunnerStatus::Error),
        ("shutting", RunnerStatus::Shutting),
    ] {
        goldens.message(&format!("agent_status.{name}"), &status(state));
    }
    goldens.message(
        "agent_status",
        &AgentStatus {
            metrics: object(json!({"load": 0.5, "queue": [1, 2]})),
            ..status(RunnerStatus::Ready)
        },
    );
    goldens.message(
        "agent_heartbeat.legacy",
        &AgentHeartbeat {
            status: status(RunnerStatus::Ready),
            in_hand: None,
            tasks_in_hand: vec![],
            req_id: None,
        },
    );
    goldens.message(
        "agent_heartbeat",
        &AgentHeartbeat {
            status: status(RunnerStatus::Busy),
            in_hand: Some(vec![attempt_ref()]),
            tasks_in_hand: vec![task_attempt_ref()],
            req_id: None,
        },
    );
    let report = |result, score| AgentSkillReport {
        agent_id: text("evaluation-001"),
        skill_id: text("web-search"),
        result,
        score,
    };
    goldens.message("agent_skill_report.success", &report(SkillResult::Success, Some(0.75)));
    goldens.message(
        "agent_skill_report.failure",
        &report(SkillResult::Failure(text("timeout")), None),
    );
    goldens.message(
        "agent_skill_report.partial",
        &report(SkillResult::Partial(text("2 of 3 pages")), Some(0.5)),
    );
    goldens.message(
        "skill_call.minimal",
        &SkillCall {
            report: report(SkillResult::Success, None),
            req_id: None,
            artifact_id: None,
            latency_ms: None,
            cost_usd: None,
            code: None,
            input: None,
            trace: None,
        },
    );
    goldens.message(
        "skill_call",
        &SkillCall {
            report: report(SkillResult::Success, Some(1.0)),
            req_id: Some(text("req-1")),
            artifact_id: Some("ab".repeat(32)),
            latency_ms: Some(12),
            cost_usd: Some(0.25),
            code: None,
            input: None,
            trace: Some(trace()),
        },
    );
    goldens.message(
        "skill_call.failure",
        &SkillCall {
            report: report(SkillResult::Failure(text("HTTP 500")), None),
            req_id: Some(text("req-2")),
            artifact_id: Some("ab".repeat(32)),
            latency_ms: Some(12),
            cost_usd: None,
            code: Some(text("skill_failed")),
            input: Some(serde_json::Map::from_iter([(text("id"), json!(7))])),
            trace: None,
        },
    );
    let check = |healthy, latency_ms, error| HealthCheck {
        name: text("king"),
        endpoint: text("http://localhost:3000/health"),
        healthy,
        latency_ms,
        error,
    };
    goldens.value("health_check.healthy", &check(true, Some(3), None));
    goldens.value("health_check.unhealthy", &check(false, None, Some(text("connection refused"))));
    goldens.message(
        "agent_health",
        &AgentHealth {
            agent_id: text("learning-001"),
            health_checks: vec![
                check(true, Some(3), None),
                check(false, None, Some(text("connection refused"))),
            ],
        },
    );
    goldens.message(
        "command_result.output",
        &CommandResult {
            req_id: text("req-1"),
            agent_id: text("user-001"),
            output: Some(json!({"results": []})),
            code: None,
            error: None,
            latency_ms: 12,
        },
    );
    goldens.message(
        "command_result.error",
        &CommandResult {
            req_id: text("req-1"),
            agent_id: text("user-001"),
            output: None,
            code: Some(text("invalid_input")),
            error: Some(text("input `query` is missing")),
            latency_ms: 0,
        },
    );
    goldens.message(
        "command_progress",
        &CommandProgress {
            req_id: text("req-1"),
            agent_id: text("user-001"),
            step: 1,
            of: Some(2),
            message: text("pets-get"),
        },
    );
}

fn king_messages(goldens: &mut Goldens) {
    goldens.message(
        "king_command",
        &KingCommand {
            command: text("run_skill"),
            target_agent: text("user-001"),
            params: object(
                json!({"req_id": "req-1", "skill": "web-search", "input": {"query": "x"}}),
            ),
        },
    );
    goldens.message(
        "king_config_update",
        &KingConfigUpdate { config_type: text("skills"), new_config_hash: text("abc") },
    );
    goldens.message("config_notice.bare", &ConfigNotice::new("skills", "abc"));
    goldens.message(
        "config_notice.skills",
        &ConfigNotice {
            skills: Some(vec![SkillInUse {
                name: text("petstore-list-pets"),
                active: VersionRef { artifact_id: "ab".repeat(32), version: text("0.1.0") },
                canary: Some(CanaryRef {
                    artifact_id: "cd".repeat(32),
                    version: text("0.1.1"),
                    share: 10,
                }),
            }]),
            ..ConfigNotice::new("skills", "abc")
        },
    );
    goldens.message(
        "config_notice",
        &ConfigNotice {
            trigger: Some(text("config_sync")),
            reason: Some(text("post_dependency_update")),
            ..ConfigNotice::new("skills", "abc")
        },
    );
    goldens.message(
        "king_welcome",
        &KingWelcome {
            king_version: text("0.1.0"),
            protocol: 2,
            heartbeat_ms: 10_000,
            servers: BTreeMap::from([(text("evo-king"), text("http://127.0.0.1:3000"))]),
        },
    );
    goldens.message("reply.accepted", &Reply::accepted("req-1"));
    goldens.message("reply.duplicate", &Reply::duplicate("req-1"));
    goldens.message(
        "reply.rejected",
        &Reply::rejected("req-1", "stale_attempt", "attempt 1 is over, attempt 2 is open"),
    );
    goldens.message("reply.retry", &Reply::retry("", "king is draining"));
    goldens.message(
        "system_discovery",
        &SystemDiscovery {
            discovered_at: text("2026-01-31T12:00:00.000Z"),
            king_version: text("0.1.0"),
            system: SystemFacts {
                os: text("linux"),
                os_version: text("6.1"),
                arch: text("x86_64"),
                hostname: text("host"),
                cpu_count: 2,
                memory_bytes: 8_589_934_592,
                home_dir: text("/root"),
                evo_home: text("/root/.evo"),
            },
            tools: vec![
                ToolFacts {
                    name: text("git"),
                    version: Some(text("2.47")),
                    path: Some(text("/usr/bin/git")),
                    status: text("available"),
                    suggestion_reason: None,
                    category: text("language"),
                },
                ToolFacts {
                    name: text("docker"),
                    version: None,
                    path: None,
                    status: text("suggested"),
                    suggestion_reason: Some(text("runs every service at once")),
                    category: text("container"),
                },
            ],
            evo_components: vec![ComponentFacts {
                name: text("evo-runner"),
                binary_path: None,
                version: None,
                found: false,
            }],
            checklist: vec![ChecklistItem {
                name: text("data folder"),
                status: text("pass"),
                message: text("/root/.evo is writable"),
            }],
        },
    );
}

fn pipeline_messages(goldens: &mut Goldens) {
    for stage in PipelineStage::ALL {
        goldens.message(
            &format!("pipeline_next.{stage}"),
            &PipelineNext { stage, artifact_id: String::new(), metadata: HashMap::new() },
        );
    }
    let next = PipelineNext {
        stage: PipelineStage::PreLoad,
        artifact_id: "ab".repeat(32),
        metadata: object(json!({"trigger": {"source": "petstore"}, "nothing": null})),
    };
    goldens.message("pipeline_next", &next);
    let dispatch = StageDispatch {
        next,
        run_id: text("run-1"),
        attempt: Attempt::FIRST,
        deadline_ms: 1_790_000_000_000,
        model: None,
        trace: None,
    };
    goldens.message("stage_dispatch", &dispatch);
    goldens.message(
        "stage_dispatch.traced",
        &StageDispatch { trace: Some(trace()), model: Some(super::extended::model()), ..dispatch },
    );
    goldens.message(
        "attempt_accepted",
        &AttemptAccepted {
            agent_id: text("building-001"),
            run_id: text("run-1"),
            stage: PipelineStage::Building,
            attempt: Attempt(2),
        },
    );
    goldens.message(
        "attempt_cancel",
        &AttemptCancel {
            run_id: text("run-1"),
            stage: PipelineStage::Building,
            attempt: Attempt(2),
            reason: text("a person cancelled the run"),
        },
    );
    let result = |status, output, error| PipelineStageResult {
        run_id: text("run-1"),
        stage: PipelineStage::Building,
        agent_id: text("building-001"),
        status,
        artifact_id: "ab".repeat(32),
        output,
        error,
    };
    for (name, status, output, error) in [
        ("running", PipelineRunStatus::Running, json!({}), None),
        ("completed", PipelineRunStatus::Completed, json!({"files": {"manifest.toml": 10}}), None),
        ("failed", PipelineRunStatus::Failed, Value::Null, Some(text("no template"))),
        ("timed_out", PipelineRunStatus::TimedOut, Value::Null, Some(text("after 60 s"))),
    ] {
        let result = result(status, output, error);
        goldens.message(&format!("pipeline_stage_result.{name}"), &result);
        goldens.message(
            &format!("stage_report.{name}"),
            &StageReport {
                result,
                attempt: Some(Attempt(2)),
                req_id: Some(text("req-1")),
                transient: status == PipelineRunStatus::TimedOut,
                seq: Some(7),
                trace: Some(trace()),
            },
        );
    }
    goldens.message(
        "stage_report.legacy",
        &StageReport {
            result: result(PipelineRunStatus::Completed, json!({}), None),
            attempt: None,
            req_id: None,
            transient: false,
            seq: None,
            trace: None,
        },
    );
    goldens.message("observer_subscribe", &ObserverSubscribe { after_seq: Some(7) });
    goldens.message("observer_subscribe.from_now", &ObserverSubscribe::default());
}

/// Every variant of every enum on the wire. The matches make a new variant fail to compile here.
fn enums(goldens: &mut Goldens) {
    let user = || AgentRole::User(text("translator"));
    let roles = [
        AgentRole::SkillManage,
        AgentRole::Learning,
        AgentRole::PreLoad,
        AgentRole::Building,
        AgentRole::Evaluation,
        user(),
    ];
    for role in &roles {
        match role {
            AgentRole::SkillManage
            | AgentRole::Learning
            | AgentRole::PreLoad
            | AgentRole::Building
            | AgentRole::Evaluation
            | AgentRole::User(_) => {}
        }
    }
    goldens.value("enum.agent_role", &roles.to_vec());
    let stages = PipelineStage::ALL.to_vec();
    goldens.value("enum.pipeline_stage", &stages);
    let methods =
        [HttpMethod::Get, HttpMethod::Post, HttpMethod::Put, HttpMethod::Delete, HttpMethod::Patch];
    for method in methods {
        match method {
            HttpMethod::Get
            | HttpMethod::Post
            | HttpMethod::Put
            | HttpMethod::Delete
            | HttpMethod::Patch => {}
        }
    }
    goldens.value("enum.http_method", &methods.to_vec());
    let providers = [
        ProviderType::OpenAiCompatible,
        ProviderType::Anthropic,
        ProviderType::Cursor,
        ProviderType::ClaudeCode,
        ProviderType::CodexCli,
        ProviderType::CodexAuth,
        ProviderType::Google,
        ProviderType::GithubCopilot,
    ];
    for provider in providers {
        match provider {
            ProviderType::OpenAiCompatible
            | ProviderType::Anthropic
            | ProviderType::Cursor
            | ProviderType::ClaudeCode
            | ProviderType::CodexCli
            | ProviderType::CodexAuth
            | ProviderType::Google
            | ProviderType::GithubCopilot => {}
        }
    }
    goldens.value("enum.provider_type", &providers.to_vec());
    goldens.value(
        "enum.reply_status",
        &vec![
            ReplyStatus::Accepted,
            ReplyStatus::Duplicate,
            ReplyStatus::Rejected,
            ReplyStatus::Retry,
        ],
    );
    goldens.value(
        "enum.verdict",
        &vec![Verdict::Active, Verdict::Held, Verdict::Discarded, Verdict::Failed],
    );
    goldens.value("enum.severity", &vec![Severity::Info, Severity::Warning, Severity::High]);
    goldens.value("enum.split", &vec![Split::Train, Split::Holdout, Split::Both]);
}

fn case() -> Case {
    Case {
        case_id: text("case-1"),
        input: serde_json::Map::from_iter([(text("query"), json!("x"))]),
        expect: Expectation {
            status: vec![200],
            refusal: false,
            content_type: Some(text("application/json")),
            exact: None,
            subset: Some(json!({"results": []})),
            schema: Some(json!({"type": "object"})),
            declared_schema: false,
            regex: Some(text("results")),
            tolerance: Some(0.5),
            non_empty: vec![text("/results")],
        },
        origin: text("example"),
        pinned: false,
    }
}

fn manifest() -> SkillManifest {
    SkillManifest {
        name: text("petstore-find-pets"),
        version: text("0.1.0"),
        description: text("Finds pets."),
        capabilities: vec![text("find pets")],
        inputs: vec![SkillIO {
            name: text("tag"),
            r#type: text("string"),
            required: true,
            description: None,
        }],
        outputs: vec![],
        dependencies: vec![],
        has_code: false,
    }
}

fn past() -> PastOutcome {
    PastOutcome {
        source: text("petstore"),
        locator: text("GET /pets"),
        name: text("petstore-list-pets"),
        fingerprint: "ef".repeat(32),
        decision: Verdict::Held,
        code: text("unreachable"),
        reason: text("nobody answers"),
        count: 2,
        first_at: text("2026-01-30T12:00:00.000Z"),
        last_at: text("2026-01-31T12:00:00.000Z"),
    }
}

fn candidate() -> Candidate {
    Candidate {
        kind: CandidateKind::Openapi,
        request_id: None,
        name: text("petstore-find-pets"),
        source: text("petstore"),
        locator: text("GET /pets"),
        description: text("Finds pets."),
        capabilities: vec![text("find pets")],
        fingerprint: "cd".repeat(32),
        demand: 1.0,
        deterministic: true,
        definition: json!({"method": "GET", "path": "/pets"}),
        cases: vec![case()],
        written: vec![],
        past: None,
    }
}

fn evidence() -> Evidence {
    Evidence {
        cases_run: 3,
        train: Trials { passed: 2, total: 2 },
        holdout: Trials { passed: 19, total: 20 },
        faults: Trials { passed: 1, total: 1 },
        capabilities: vec![CapabilityTrials {
            capability: text("find pets"),
            demand: 1.0,
            trials: Trials { passed: 19, total: 20 },
        }],
        novelty: 0.5,
        nearest: Some(text("petstore-list-pets")),
        integration: vec![IntegrationCheck { name: text("auth_set"), holds: true }],
        latency: Latency { fastest_ms: 1.0, p50_ms: 2.0, p95_ms: 8.0, budget_ms: 250.0 },
        paired: Some(Paired {
            worse: 0,
            better: 1,
            total: 20,
            pinned: 0,
            pinned_worse: 0,
            latency_ratio_high: Some(1.5),
        }),
        incumbent: None,
        failures: vec![TrialFailure {
            case_id: text("case-1"),
            code: text("status"),
            detail: text("500 instead of 200"),
        }],
        gate: None,
    }
}

/// What travels inside `metadata` and `output`.
fn stage_payloads(goldens: &mut Goldens) {
    goldens.value("stage_context.minimal", &StageContext::default());
    goldens.value(
        "stage_context",
        &StageContext {
            trigger: json!({"sources": ["petstore"]}),
            candidate: Some(candidate()),
            outputs: BTreeMap::from([(PipelineStage::PreLoad, json!({"all_healthy": true}))]),
            train_cases: vec![case()],
            holdout_cases: vec![],
            sources: vec![SourceConfig {
                name: text("petstore"),
                kind: SourceKind::Openapi,
                location: text("petstore.json"),
                base_url: Some(text("http://127.0.0.1:8000")),
                allow_origins: vec![text("http://127.0.0.1:8000")],
                allow_operations: vec![text("POST /pets")],
                allow_env: vec![text("PETSTORE_TOKEN")],
                auth_ref: Some(text("PETSTORE_TOKEN")),
                latency_budget_ms: Some(500),
                max_candidates: Some(10),
                trust: 0.5,
                command: vec![],
                examples: vec![],
                enabled: true,
            }],
            servers: BTreeMap::from([(text("petstore"), text("http://127.0.0.1:8000"))]),
            requests: vec![SkillRequest {
                request_id: text("req-1"),
                kind: RequestKind::Repair,
                text: text("status_500 when the city is missing"),
                examples: vec![case()],
                skill: Some(text("petstore-list-pets")),
                artifact_id: Some("ab".repeat(32)),
                cluster: Some(text("status_500")),
                fingerprint: Some("ef".repeat(32)),
                demand: 2.5,
                tried: Vec::new(),
            }],
            known_skills: vec![KnownSkill {
                name: text("petstore-list-pets"),
                active: true,
                fingerprint: "ef".repeat(32),
                description: text("Lists pets."),
                capabilities: vec![text("list pets")],
                endpoints: vec![text("GET {server}/pets")],
                inputs: vec![],
                outputs: vec![],
            }],
            incumbent: Some(Incumbent { artifact_id: "ab".repeat(32), version: text("0.1.0") }),
            version: text("0.1.1"),
            plan: EvaluationPlan::default(),
            reread: vec![],
            budget: None,
            names: None,
            past: vec![],
            earlier: None,
            overruled: vec![],
        },
    );
    let written = Written {
        model: text("openai:gpt-4o-mini"),
        prompt: "12".repeat(32),
        fields: vec![text("name"), text("description")],
    };
    goldens.value(
        "stage_context.names",
        &StageContext {
            names: Some(vec![KnownName {
                name: text("petstore-list-pets"),
                source: text("petstore"),
                locator: text("GET /pets"),
                fingerprint: "ef".repeat(32),
                description: Some(text("Lists all pets.")),
                written: vec![written.clone()],
            }]),
            earlier: Some("ab".repeat(32)),
            ..StageContext::default()
        },
    );
    goldens.value(
        "stage_context.past",
        &StageContext { past: vec![past()], ..StageContext::default() },
    );
    goldens.value(
        "learning_output.past",
        &LearningOutput {
            candidates: vec![Candidate { past: Some(past()), ..candidate() }],
            ..LearningOutput::default()
        },
    );
    goldens.value(
        "learning_output.with_model",
        &LearningOutput {
            candidates: vec![Candidate { written: vec![written], ..candidate() }],
            usage: Some(ModelUsage {
                calls: 1,
                input_tokens: 900,
                output_tokens: 80,
                cost_usd: Some(0.25),
            }),
            ..LearningOutput::default()
        },
    );
    goldens.value(
        "learning_output",
        &LearningOutput {
            candidates: vec![candidate()],
            failed_sources: vec![FailedSource {
                name: text("broken"),
                message: text("broken.json, line 3: not JSON"),
            }],
            ..LearningOutput::default()
        },
    );
    goldens.value(
        "building_output",
        &BuildingOutput {
            manifest: manifest(),
            endpoints: vec![text("GET {server}/pets")],
            files: BTreeMap::from([(text("manifest.toml"), 120)]),
            changes: Vec::new(),
            outcome: None,
            usage: None,
        },
    );
    goldens.value(
        "building_output.ended",
        &BuildingOutput {
            manifest: manifest(),
            endpoints: vec![],
            files: BTreeMap::new(),
            changes: Vec::new(),
            outcome: Some(Outcome::held(codes::NO_EXAMPLE_FOR_PARAMETER, "give `tag` an example")),
            usage: None,
        },
    );
    goldens.value(
        "pre_load_output",
        &PreLoadOutput {
            findings: vec![Finding {
                code: text("secret"),
                severity: Severity::High,
                file: text("config.toml"),
                line: Some(3),
                message: text("a key stands in the file"),
            }],
            health_results: vec![HealthCheck {
                name: text("find"),
                endpoint: text("http://127.0.0.1:8000/pets"),
                healthy: true,
                latency_ms: Some(2),
                error: None,
            }],
            all_healthy: true,
            probe_fastest_ms: Some(2.5),
            observed: None,
            outcome: None,
        },
    );
    let bounds = |low, high| Bounds { low, high };
    goldens.value(
        "evaluation_output",
        &EvaluationOutput {
            evidence: evidence(),
            scores: Scores {
                utility: bounds(0.75, 1.0),
                reliability: bounds(0.75, 1.0),
                novelty: 0.5,
                integration: 1.0,
                overall: bounds(0.75, 1.0),
            },
            overall_score: 0.75,
            recommendation: text("activate"),
        },
    );
    goldens.value(
        "skill_manage_output",
        &SkillManageOutput {
            action: text("activated"),
            reason: text("passed every gate"),
            outcome: Outcome::active("passed every gate"),
            overall_score: 0.75,
        },
    );
}

#[test]
fn the_wire_shapes_are_pinned() {
    let mut goldens = Goldens::default();
    agent_messages(&mut goldens);
    king_messages(&mut goldens);
    pipeline_messages(&mut goldens);
    super::extended::messages(&mut goldens);
    enums(&mut goldens);
    stage_payloads(&mut goldens);
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_file() && !goldens.seen.contains(&name) {
            goldens.faults.push(format!("{name}: no message has this golden file"));
        }
    }
    assert!(goldens.faults.is_empty(), "{}", goldens.faults.join("\n"));
}
