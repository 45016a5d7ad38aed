//! Takes a candidate through the real stages and king's real decision, look after look, as a run does.
//! Only the clock is another one: what would be minutes between two sittings and looks is nothing here.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result, anyhow};
use evo_agents::{
    artifacts::ArtifactClient,
    handler::{Services, StageJob},
    roles::handler_for,
    skill::execute::{Executor, ExecutorConfig},
};
use evo_common::{
    artifact::{self, Files},
    case::{Case, Split},
    clock::Timestamp,
    config::SourceConfig,
    evidence::{Evidence, FIRST_LOOK, LOOKS, THRESHOLD, Trials, WEIGHTS, latency_budget_ms},
    ids::{ArtifactId, Attempt},
    messages::{AgentRole, PipelineStage},
    outcome::{Outcome, Verdict, codes},
    stage::{
        BuildingOutput, Candidate, EvaluationOutput, Incumbent, KnownSkill, LearningOutput,
        PreLoadOutput, SkillManageOutput, StageContext,
    },
};
use evo_king::{
    cases,
    promotion::{self, PromotionInput},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::proxy::{Fault, Proxy};

/// The stages and what they work with.
pub struct Bench {
    services: Services,
    pub proxy: Proxy,
    key: Vec<u8>,
}

/// A candidate, and how it meets the stages.
#[derive(Debug, Clone)]
pub struct Entrant {
    /// With its cases.
    pub candidate: Candidate,
    /// The package, when it is not what Building makes.
    pub files: Option<Files>,
    pub source: SourceConfig,
    /// The real server.
    pub server: String,
    pub fault: Fault,
    pub incumbent: Option<Incumbent>,
    pub known: Vec<KnownSkill>,
    pub seed: u64,
}

/// What became of a candidate.
#[derive(Debug, Clone)]
pub struct Judged {
    pub outcome: Outcome,
    /// The stage that ended it.
    pub stage: PipelineStage,
    pub looks: u32,
    /// Calls that reached the proxy.
    pub calls: u32,
    pub evidence: Option<Evidence>,
    /// Whether the plain mean of the first look would have let it in.
    pub mean_accepts: bool,
    pub artifact_id: String,
}

impl Judged {
    pub fn is_active(&self) -> bool {
        self.outcome.decision == Verdict::Active
    }
}

impl Bench {
    /// With packages in `folder`.
    pub async fn new(config: ExecutorConfig, folder: &Path, seed: u64) -> Result<Self> {
        let services = Services {
            executor: Executor::new(config),
            artifacts: ArtifactClient::local(folder.to_owned()),
            gateway: None,
            cancel: CancellationToken::new(),
            skills: evo_agents::skill::in_use::SkillsInUse::none(),
        };
        let key = format!("gate benchmark {seed}").into_bytes();
        Ok(Self { services, proxy: Proxy::start().await?, key })
    }

    pub fn executor(&self) -> &Executor {
        &self.services.executor
    }

    /// Learning, for one source.
    pub async fn learn(&self, source: &SourceConfig, server: &str) -> Result<Vec<Candidate>> {
        let context = StageContext {
            sources: vec![source.clone()],
            servers: [(source.name.clone(), server.to_owned())].into(),
            ..StageContext::default()
        };
        let output = self.stage(AgentRole::Learning, "", &context).await?.1;
        let learned: LearningOutput =
            serde_json::from_value(output).context("Learning's output")?;
        if let Some(failed) = learned.failed_sources.first() {
            return Err(anyhow!("{}: {}", failed.name, failed.message));
        }
        Ok(learned.candidates)
    }

    /// What Building makes of a candidate, and its address.
    pub async fn build(
        &self,
        candidate: &Candidate,
        source: &SourceConfig,
    ) -> Result<(String, BuildingOutput)> {
        let mut context = StageContext {
            sources: vec![source.clone()],
            train_cases: self.split(candidate)[0].clone(),
            ..StageContext::default()
        };
        let mut bare = candidate.clone();
        bare.cases.clear();
        context.candidate = Some(bare);
        let (id, output) = self.stage(AgentRole::Building, "", &context).await?;
        Ok((id, serde_json::from_value(output).context("Building's output")?))
    }

    /// Train and held-out cases, as king splits them.
    fn split(&self, candidate: &Candidate) -> [Vec<Case>; 2] {
        let ids: Vec<&str> = candidate.cases.iter().map(|case| case.case_id.as_str()).collect();
        let parts = cases::split(&ids, candidate.deterministic, &self.key);
        let those = |wanted: Split| {
            let of = |(case, part): (&Case, &Split)| {
                (*part == wanted || *part == Split::Both).then(|| case.clone())
            };
            candidate.cases.iter().zip(&parts).filter_map(of).collect()
        };
        [those(Split::Train), those(Split::Holdout)]
    }

    /// Cases that a builder may see.
    pub fn train_cases(&self, candidate: &Candidate) -> Vec<Case> {
        let [train, _] = self.split(candidate);
        train
    }

    async fn stage(
        &self,
        role: AgentRole,
        artifact_id: &str,
        context: &StageContext,
    ) -> Result<(String, serde_json::Value)> {
        let job = StageJob {
            run_id: "gate".to_owned(),
            stage: role.stage().context("a stage's role")?,
            attempt: Attempt::FIRST,
            artifact_id: artifact_id.to_owned(),
            context: context.clone(),
            deadline: Timestamp::now().plus_ms(3_600_000),
            services: self.services.clone(),
        };
        let stage = job.stage;
        let done = handler_for(&role).stage(job).await;
        let done = done.map_err(|error| anyhow!("{stage}: {}", error.message))?;
        Ok((done.artifact_id, done.output))
    }

    /// Judges a candidate from Building to king's decision.
    pub async fn judge(&self, entrant: &Entrant) -> Result<Judged> {
        let (route, base) = self.proxy.route(&entrant.server, entrant.fault, entrant.seed);
        let mut judged = self.run(entrant, &base).await?;
        judged.calls = route.calls();
        Ok(judged)
    }

    async fn run(&self, entrant: &Entrant, base: &str) -> Result<Judged> {
        let [train_cases, holdout_cases] = self.split(&entrant.candidate);
        let mut candidate = entrant.candidate.clone();
        candidate.cases.clear();
        let mut context = StageContext {
            sources: vec![entrant.source.clone()],
            servers: [(entrant.source.name.clone(), base.to_owned())].into(),
            train_cases,
            version: if entrant.incumbent.is_some() { "0.1.1" } else { "0.1.0" }.to_owned(),
            incumbent: entrant.incumbent.clone(),
            candidate: Some(candidate),
            ..StageContext::default()
        };
        context.plan.sitting_gap_ms = 1;
        let mut judged = Judged {
            outcome: Outcome::failed(codes::STAGE_FAILED, "not judged"),
            stage: PipelineStage::Building,
            looks: 0,
            calls: 0,
            evidence: None,
            mean_accepts: false,
            artifact_id: String::new(),
        };
        judged.artifact_id = match &entrant.files {
            Some(files) => {
                let (_, archive) = artifact::pack(files).map_err(|error| anyhow!("{error}"))?;
                self.services.artifacts.put(archive).await?.as_str().to_owned()
            }
            None => {
                let (id, output) = self.stage(AgentRole::Building, "", &context).await?;
                let built: BuildingOutput = serde_json::from_value(output.clone())?;
                if let Some(outcome) = built.outcome {
                    return Ok(Judged { outcome, ..judged });
                }
                context.outputs.insert(PipelineStage::Building, output);
                id
            }
        };
        judged.stage = PipelineStage::PreLoad;
        let (_, output) = self.stage(AgentRole::PreLoad, &judged.artifact_id, &context).await?;
        let checked: PreLoadOutput = serde_json::from_value(output.clone())?;
        if let Some(outcome) = checked.outcome {
            return Ok(Judged { outcome, ..judged });
        }
        context.outputs.insert(PipelineStage::PreLoad, output);
        context.holdout_cases = holdout_cases;
        context.known_skills.clone_from(&entrant.known);
        self.looks(entrant, &mut context, judged).await
    }

    async fn looks(
        &self,
        entrant: &Entrant,
        context: &mut StageContext,
        mut judged: Judged,
    ) -> Result<Judged> {
        let mut code = String::new();
        let fastest_probe_ms = context
            .output::<PreLoadOutput>(PipelineStage::PreLoad)
            .and_then(Result::ok)
            .and_then(|checked| checked.probe_fastest_ms);
        let own_budget_ms = entrant.source.latency_budget_ms;
        for look in 1..=LOOKS {
            context.plan.look = look;
            context.plan.trials = promotion::trials_of_next_look(&code, FIRST_LOOK);
            let id = judged.artifact_id.clone();
            let (_, output) = self.stage(AgentRole::Evaluation, &id, context).await?;
            let this: EvaluationOutput = serde_json::from_value(output.clone())?;
            let evidence = match &judged.evidence {
                Some(earlier) => earlier.then(&this.evidence),
                None => this.evidence.clone(),
            };
            if look == 1 {
                judged.mean_accepts = mean_of(&this.evidence) >= THRESHOLD;
            }
            let mut output = output;
            output["evidence"] = json!(evidence);
            context.outputs.insert(PipelineStage::Evaluation, output);
            let (_, output) = self.stage(AgentRole::SkillManage, &id, context).await?;
            let managed: SkillManageOutput = serde_json::from_value(output)?;
            let (earlier_failures, passes_since_failure) =
                promotion::since_failure(evidence.holdout, this.evidence.holdout);
            let decision = promotion::decide(&PromotionInput {
                is_answer: false,
                evidence: &evidence,
                has_incumbent: entrant.incumbent.is_some(),
                look,
                proposal: Some(&managed.outcome),
                earlier_failures,
                passes_since_failure,
                nearest_is_rival: evidence.nearest.is_some(),
                latency_budget_ms: fastest_probe_ms.map(|ms| latency_budget_ms(ms, own_budget_ms)),
            });
            judged.stage = PipelineStage::SkillManage;
            judged.looks = look;
            judged.evidence = Some(evidence);
            judged.outcome = decision.outcome;
            code.clone_from(&judged.outcome.code);
            let goes_on =
                judged.outcome.decision == Verdict::Held && promotion::may_look_again(&code);
            if !goes_on {
                break;
            }
        }
        Ok(judged)
    }

    /// The package with this address.
    pub async fn package(&self, id: &str) -> Result<evo_agents::skill::package::Package> {
        let id = ArtifactId::parse(id).map_err(|error| anyhow!("{error}"))?;
        Ok(self.services.artifacts.package(&id).await?)
    }
}

/// The score without intervals, gates and comparisons.
fn mean_of(evidence: &Evidence) -> f64 {
    let share = |trials: Trials| {
        if trials.total == 0 { 0.0 } else { f64::from(trials.passed) / f64::from(trials.total) }
    };
    let [u, r, n, i] = WEIGHTS;
    let passed = share(evidence.holdout);
    let holds = evidence.integration.iter().filter(|check| check.holds).count();
    let integration = holds as f64 / evidence.integration.len().max(1) as f64;
    (u + r) * passed + n * evidence.novelty + i * integration
}

/// The environment of skills: no secret but two that everybody may know.
pub fn environment() -> evo_agents::skill::execute::Env {
    Arc::new(|name| match name {
        "GATE_TOKEN" => Some("gate-benchmark-token".to_owned()),
        "GATE_LOGIN" => Some("gate:benchmark".to_owned()),
        _ => None,
    })
}
