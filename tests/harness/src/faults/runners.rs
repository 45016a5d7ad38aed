//! Runners of the SDK in this process, whose stages do nothing but remember that they were done.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use evo_agents::{
    RunnerConfig,
    config::ModelSettings,
    handler::{AgentHandler, BoxFuture, StageDone, StageError, StageJob},
    run_with,
};
use evo_common::{
    messages::{AgentRole, PipelineStage},
    runtime::{OnError, Shutdown, TaskGroup},
    tokens::Secret,
};
use serde_json::{Value, json};

/// How long runners have to end.
const GRACE: Duration = Duration::from_secs(5);

/// What stages have done to the world. Doing one again is the same effect, as it must be for whoever
/// may be asked twice.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<(String, PipelineStage), Done>>>);

/// What one stage of one run has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// The effect; the same for every try.
    pub effect: u64,
    /// Tries that a runner has begun.
    pub tries: u32,
}

impl Ledger {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<(String, PipelineStage), Done>> {
        // A panic while holding the lock can't leave a map half-written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, run_id: &str, stage: PipelineStage) -> u64 {
        let mut entries = self.entries();
        let next = entries.len() as u64 + 1;
        let done = entries.entry((run_id.to_owned(), stage)).or_default();
        if done.tries == 0 {
            done.effect = next;
        }
        done.tries += 1;
        done.effect
    }

    /// What was done, by run and stage.
    pub fn done(&self) -> BTreeMap<(String, PipelineStage), Done> {
        self.entries().clone()
    }

    /// What a run's stages must have said: each its effect, and the effects of the stages before
    /// it as king has handed them on.
    pub fn faults(&self, run: &Value) -> Vec<String> {
        let run_id = run["run_id"].as_str().unwrap_or_default();
        let done = self.done();
        let stages = run["stages"].as_array().map_or(&[][..], Vec::as_slice);
        let mut faults = Vec::new();
        for stage in PipelineStage::ALL {
            let said: Vec<&Value> =
                stages.iter().filter(|view| view["stage"] == stage.as_str()).collect();
            let effect = done.get(&(run_id.to_owned(), stage)).map(|done| done.effect);
            match (&said[..], effect) {
                ([view], Some(effect)) if view["result"]["effect"] == effect => {}
                _ => faults.push(format!("stage {stage} did {effect:?}, king has {said:?}")),
            }
        }
        faults
    }
}

struct Worker {
    ledger: Ledger,
    pause: Duration,
}

impl AgentHandler for Worker {
    fn stage(&self, job: StageJob) -> BoxFuture<'_, Result<StageDone, StageError>> {
        Box::pin(async move {
            let earlier = job.context.outputs.len();
            let place = PipelineStage::ALL.into_iter().position(|stage| stage == job.stage);
            if place != Some(earlier) {
                let text = format!("{} was told of {earlier} earlier stages", job.stage);
                return Err(StageError::permanent(text));
            }
            let effect = self.ledger.apply(&job.run_id, job.stage);
            tokio::time::sleep(self.pause).await;
            Ok(StageDone { artifact_id: job.artifact_id, output: json!({"effect": effect}) })
        })
    }
}

/// One runner per stage.
pub struct Runners {
    tasks: TaskGroup,
    /// What their stages have done.
    pub ledger: Ledger,
}

impl Runners {
    /// Starts them. `pause` is how long each stage takes; their outboxes are below `folder`.
    pub fn start(address: &str, token: &Secret, folder: &Path, pause: Duration) -> Self {
        let runners = Self { tasks: TaskGroup::new(Shutdown::new()), ledger: Ledger::default() };
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
                agent_id: format!("faults-{name}"),
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
                capacity: 64,
            };
            let worker = Worker { ledger: runners.ledger.clone(), pause };
            let stop = runners.tasks.token().clone();
            runners.tasks.spawn(name, OnError::Log, async move {
                Ok(run_with(config, Arc::new(worker), stop).await?)
            });
        }
        runners
    }

    /// Ends them.
    pub async fn stop(self) {
        assert!(self.tasks.shutdown(GRACE).await, "the runners end in time");
    }
}
