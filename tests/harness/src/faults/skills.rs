//! Runners that make versions of one skill as a test wants them, whoever reports its calls, and what
//! must be true of a skill's versions whatever happened to king.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use evo_agents::{
    RunnerConfig,
    config::ModelSettings,
    handler::{AgentHandler, BoxFuture, StageDone, StageError, StageJob},
    run_with,
};
use evo_common::{
    artifact::{self, Files},
    case::{Case, Expectation},
    evidence::{Evidence, IntegrationCheck, Paired, Trials},
    king_socket::{Incoming, Socket},
    messages::{AgentRole, PipelineStage, Reply, ReplyStatus, decode, events},
    outcome::Outcome,
    runtime::{OnError, Shutdown, TaskGroup},
    skill::SkillManifest,
    stage::{
        BuildingOutput, Candidate, CandidateKind, EvaluationOutput, LearningOutput, PreLoadOutput,
        SkillManageOutput,
    },
    tokens::Secret,
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Fault, Service};

/// How long runners have to end.
const GRACE: Duration = Duration::from_secs(5);
/// How long king may take to answer one report.
const ANSWER: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(20);
/// Tries of one report.
const TRIES: u32 = 300;
/// The agent that reports calls.
const REPORTER: &str = "faults-reporter";

/// The skill that they make.
const SKILL: &str = "evo-king-thing";

/// Every definition passes, and is better than what is in use.
struct Maker;

impl AgentHandler for Maker {
    fn stage(&self, job: StageJob) -> BoxFuture<'_, Result<StageDone, StageError>> {
        Box::pin(async move {
            let mut artifact_id = job.artifact_id.clone();
            let output = match job.stage {
                PipelineStage::Learning => json!(LearningOutput {
                    candidates: vec![candidate(&job.context.trigger["definition"])],
                    ..LearningOutput::default()
                }),
                PipelineStage::Building => {
                    let manifest = manifest(&job.context.version);
                    let text = toml::to_string(&manifest).expect("plain data");
                    let files = Files::from([("manifest.toml".to_owned(), text.into_bytes())]);
                    let (_, bytes) = artifact::pack(&files).expect("a small package");
                    let stored = job.services.artifacts.put(bytes).await?;
                    artifact_id = stored.to_string();
                    json!(BuildingOutput {
                        manifest,
                        endpoints: vec!["GET {server}/thing".to_owned()],
                        files: BTreeMap::new(),
                        changes: Vec::new(),
                        outcome: None,
                        usage: None,
                    })
                }
                PipelineStage::PreLoad => json!(PreLoadOutput::default()),
                PipelineStage::Evaluation => {
                    let incumbent = job.context.incumbent.as_ref();
                    let better = Paired { better: 20, total: 20, ..Paired::default() };
                    let evidence = Evidence {
                        holdout: Trials { passed: 20, total: 20 },
                        novelty: 1.0,
                        integration: vec![IntegrationCheck {
                            name: "composes".to_owned(),
                            holds: true,
                        }],
                        paired: incumbent.map(|_| better),
                        incumbent: incumbent.map(|incumbent| incumbent.artifact_id.clone()),
                        ..Evidence::default()
                    };
                    let scores = evidence.scores();
                    json!(EvaluationOutput {
                        evidence,
                        scores,
                        overall_score: scores.overall.low,
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
            Ok(StageDone { artifact_id, output })
        })
    }
}

fn candidate(definition: &Value) -> Candidate {
    let case = |number: u32| Case {
        case_id: format!("case-{number}"),
        input: serde_json::Map::new(),
        expect: Expectation::default(),
        origin: "example".to_owned(),
        pinned: false,
    };
    Candidate {
        kind: CandidateKind::Openapi,
        request_id: None,
        name: SKILL.to_owned(),
        source: "evo-king".to_owned(),
        locator: "GET /thing".to_owned(),
        description: "Reads a thing.".to_owned(),
        capabilities: vec!["thing".to_owned()],
        fingerprint: format!("definition {definition}"),
        demand: 1.0,
        deterministic: true,
        definition: json!({}),
        cases: (0..3).map(case).collect(),
        written: Vec::new(),
        past: None,
    }
}

fn manifest(version: &str) -> SkillManifest {
    SkillManifest {
        name: SKILL.to_owned(),
        version: version.to_owned(),
        description: "Reads a thing.".to_owned(),
        capabilities: vec!["thing".to_owned()],
        inputs: Vec::new(),
        outputs: Vec::new(),
        dependencies: Vec::new(),
        has_code: false,
    }
}

/// One runner per stage that makes versions of `SKILL`.
pub struct SkillRunners(TaskGroup);

impl SkillRunners {
    /// Starts them; their outboxes are below `folder`.
    pub fn start(address: &str, token: &Secret, folder: &Path) -> Self {
        let tasks = TaskGroup::new(Shutdown::new());
        let roles = [
            AgentRole::Learning,
            AgentRole::Building,
            AgentRole::PreLoad,
            AgentRole::Evaluation,
            AgentRole::SkillManage,
        ];
        for role in roles {
            let name = role.kind();
            let config = RunnerConfig {
                agent_id: format!("skills-{name}"),
                role: role.clone(),
                soul: String::new(),
                folder: Some(folder.join(name)),
                king_address: address.to_owned(),
                gateway_address: None,
                runner_token: Some(token.clone()),
                viewer_token: None,
                gateway_token: None,
                model: ModelSettings::default(),
                cache: folder.join("cache"),
                capacity: 8,
            };
            let stop = tasks.token().clone();
            tasks.spawn(name, OnError::Log, async move {
                Ok(run_with(config, Arc::new(Maker), stop).await?)
            });
        }
        Self(tasks)
    }

    /// Ends them.
    pub async fn stop(self) {
        assert!(self.0.shutdown(GRACE).await, "the runners end in time");
    }
}

impl Service {
    /// A cycle over one definition of `SKILL`, to its end.
    pub async fn learn(&mut self, definition: u32) {
        let key = format!("definition {definition}");
        let body = json!({"idempotency_key": key, "trigger": {"definition": definition}});
        let (status, answer) = self.ask(Method::POST, "/pipeline/start", Some(&body)).await;
        assert!(status.is_success(), "{status} {answer}");
        let run_id = answer["run_id"].as_str().expect("a run's id").to_owned();
        let run = self.ended(&run_id).await;
        assert_eq!(run["status"], "completed", "{run}");
    }

    /// The skill as king tells it, however often king dies meanwhile.
    pub async fn skill(&mut self) -> Value {
        self.ask(Method::GET, &format!("/skills/{SKILL}"), None).await.1
    }

    /// Does something to the skill, for certain.
    pub async fn act(&mut self, deed: &str) -> Value {
        let body = json!({"reason": "a test", "by": "Ada"});
        let path = format!("/skills/{SKILL}/{deed}");
        let (status, answer) = self.ask(Method::POST, &path, Some(&body)).await;
        assert!(status.is_success(), "{deed}: {status} {answer}");
        answer
    }

    /// Reports a call of the version on a channel, for certain and once, however often king dies
    /// meanwhile.
    pub async fn report_call(&mut self, channel: &str, number: u32, works: bool) {
        let skill = self.skill().await;
        let id = match channel {
            "canary" => &skill["canary"]["artifact_id"],
            _ => &skill["artifact_id"],
        };
        // It has moved on: what would be reported is not asked any more.
        let Some(artifact_id) = id.as_str().map(str::to_owned) else { return };
        let result = if works { json!("success") } else { json!({"failure": "HTTP 500"}) };
        let req_id = format!("call-{number}");
        let call = json!({
            "agent_id": REPORTER, "skill_id": SKILL, "result": result, "score": null,
            "req_id": req_id, "artifact_id": artifact_id, "latency_ms": 3,
            "code": if works { Value::Null } else { json!("skill_failed") },
            "input": if works { Value::Null } else { json!({"n": 1}) },
        });
        for _ in 0..TRIES {
            self.tend();
            let told = tokio::time::timeout(ANSWER, self.try_report(&call, &req_id)).await;
            if told == Ok(Some(())) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("the report {call} was not taken: {}", self.log());
    }

    async fn try_report(&self, call: &Value, req_id: &str) -> Option<()> {
        let token = self.tokens().runner.clone();
        let mut socket = Socket::connect(&self.proxy.address(), Some(&token)).await.ok()?;
        loop {
            let (event, payload) = match socket.next().await {
                Incoming::Connected => continue,
                Incoming::Event(event, payload) => (event, payload),
                _ => return None,
            };
            match event.as_str() {
                events::KING_WELCOME => {
                    let registration = json!({
                        "agent_id": REPORTER, "role": "user", "capabilities": [], "protocol": 2,
                        "capacity": 1, "in_hand": [], "req_id": "hello",
                    });
                    socket.emit(events::AGENT_REGISTER, registration).await.ok()?;
                }
                events::KING_REPLY => {
                    let reply: Reply = decode(events::KING_REPLY, payload).ok()?;
                    let taken =
                        matches!(reply.status, ReplyStatus::Accepted | ReplyStatus::Duplicate);
                    if reply.req_id == "hello" && taken {
                        socket.emit(events::AGENT_SKILL_REPORT, call.clone()).await.ok()?;
                    } else if reply.req_id == req_id && taken {
                        socket.close().await;
                        return Some(());
                    }
                }
                _ => {}
            }
        }
    }
}

/// Kinds of events after which something else is in use.
const MOVES: [&str; 9] = [
    "skill.activated",
    "skill.canary",
    "skill.advanced",
    "skill.promoted",
    "skill.dropped",
    "skill.rolled_back",
    "skill.rolled_back_to",
    "skill.archived",
    "skill.restored",
];

/// What must not be of a skill's versions, by the event log and by what king says now: never two
/// active, never none where there was one unless the skill was put away, a share that goes to the one
/// canary, and the last event as things are.
pub fn faults_of_skills(log: &[Value], skill: &Value) -> Vec<Fault> {
    let mut faults = Vec::new();
    let name = skill["name"].as_str().unwrap_or_default();
    let moves: Vec<&Value> = log
        .iter()
        .filter(|event| {
            let kind = event["kind"].as_str().unwrap_or_default();
            MOVES.contains(&kind)
                && event["payload"]["name"] == name
                && !event["payload"]["action"].is_null()
        })
        .collect();
    let mut before: Option<&Value> = None;
    for event in &moves {
        let (payload, kind) = (&event["payload"], event["kind"].as_str().unwrap_or_default());
        if payload["active"].is_null() && before.is_some() && kind != "skill.archived" {
            faults.push(Fault::Lost(format!("no version of {name} is in use after {event}")));
        }
        let share = payload["canary"]["share"].as_i64();
        if share.is_some_and(|share| !(1..100).contains(&share)) {
            faults.push(Fault::Disorder(format!("a share of {share:?} in {event}")));
        }
        if payload["canary"]["artifact_id"] == payload["active"]["artifact_id"]
            && !payload["active"].is_null()
        {
            faults.push(Fault::Doubled(format!("one version of {name} twice in {event}")));
        }
        // A change that was told twice would say the same twice.
        if before.is_some_and(|before| {
            ["action", "active", "canary", "previous"]
                .iter()
                .all(|key| before[*key] == payload[*key])
        }) {
            faults.push(Fault::Doubled(format!("the change {event}")));
        }
        before = Some(payload);
    }
    let versions = skill["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let active: Vec<&Value> = versions.iter().filter(|v| v["active"] == true).collect();
    if active.len() > 1 {
        faults.push(Fault::Doubled(format!("{} active versions of {name}", active.len())));
    }
    if let Some(last) = before {
        let is = active.first().map_or(&Value::Null, |version| &version["artifact_id"]);
        if last["active"]["artifact_id"] != *is {
            faults.push(Fault::Lost(format!("{name}: active is {is}, the log says {last}")));
        }
        if last["canary"]["artifact_id"] != skill["canary"]["artifact_id"] {
            let canary = &skill["canary"];
            faults
                .push(Fault::Lost(format!("{name}: the canary is {canary}, the log says {last}")));
        }
    }
    faults
}
