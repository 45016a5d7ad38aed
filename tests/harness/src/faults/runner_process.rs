//! A runner in a process of its own, which can be killed. The test binary starts itself for it: one of
//! its tests calls [`serve`], which does nothing unless the folder that it runs in is a runner's.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use evo_agents::{
    RunnerConfig,
    config::ModelSettings,
    handler::{AgentHandler, BoxFuture, StageDone, StageError, StageJob},
    run_with,
    task::{TaskDone, TaskError, TaskJob},
};
use evo_common::{
    ids::Attempt,
    messages::{AgentRole, PipelineStage},
    runtime::Shutdown,
    tokens::Secret,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Process, eventually};

const FILE: &str = "runner.json";
const PATIENCE: Duration = Duration::from_secs(60);

/// What the process is told.
#[derive(Serialize, Deserialize)]
struct Orders {
    /// Its stage; a user agent has none.
    stage: Option<PipelineStage>,
    king: String,
    token: String,
    pause_ms: u64,
}

/// A runner's process and folder.
pub struct RunnerProcess {
    folder: PathBuf,
    /// The test that calls [`serve`].
    test: &'static str,
    process: Option<Process>,
}

impl RunnerProcess {
    /// A runner of a stage; its process is started by [`Self::start`]. Each of its tries takes
    /// `pause`.
    pub fn new(
        folder: &Path,
        stage: PipelineStage,
        king: &str,
        token: &Secret,
        pause: Duration,
        test: &'static str,
    ) -> Self {
        Self::with(&folder.join(stage.as_str()), Some(stage), king, token, pause, test)
    }

    /// A user agent, which does tasks in the same way.
    pub fn user(
        folder: &Path,
        king: &str,
        token: &Secret,
        pause: Duration,
        test: &'static str,
    ) -> Self {
        Self::with(&folder.join("user"), None, king, token, pause, test)
    }

    fn with(
        folder: &Path,
        stage: Option<PipelineStage>,
        king: &str,
        token: &Secret,
        pause: Duration,
        test: &'static str,
    ) -> Self {
        let folder = folder.to_owned();
        fs::create_dir_all(folder.join("effects")).expect("a folder below a temporary one");
        let orders = Orders {
            stage,
            king: king.to_owned(),
            token: token.expose().to_owned(),
            pause_ms: u64::try_from(pause.as_millis()).expect("a short pause"),
        };
        let orders = serde_json::to_vec(&orders).expect("plain data");
        fs::write(folder.join(FILE), orders).expect("a file in a temporary folder");
        Self { folder, test, process: None }
    }

    /// Starts its process.
    pub fn start(&mut self) {
        let this = std::env::current_exe().expect("the test's own program");
        let mut command = Command::new(this);
        command.args(["--exact", self.test, "--nocapture"]).current_dir(&self.folder);
        self.process = Some(Process::start(command));
    }

    /// Kills its process.
    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Waits until it has begun so many tries in all.
    pub fn has_begun(&self, tries: usize) {
        let what = format!("{tries} tries in {}", self.folder.display());
        eventually(&what, PATIENCE, || (self.tries() >= tries).then_some(()));
    }

    /// Waits until a result is on its disk.
    pub fn owes_a_result(&self) {
        let outbox = self.folder.join("outbox");
        eventually("a result in the outbox", PATIENCE, || {
            let mut entries = fs::read_dir(&outbox).ok()?;
            entries
                .any(|e| e.is_ok_and(|e| e.path().extension().is_some_and(|x| x == "json")))
                .then_some(())
        });
    }

    /// How many tries it has begun, over all its processes.
    pub fn tries(&self) -> usize {
        fs::read_to_string(self.folder.join("tries")).map_or(0, |text| text.lines().count())
    }

    /// How many effects it has made.
    pub fn effects(&self) -> usize {
        fs::read_dir(self.folder.join("effects")).map_or(0, Iterator::count)
    }
}

struct Worker {
    folder: PathBuf,
    pause: Duration,
}

impl Worker {
    /// Makes the effect, unless an earlier try has.
    fn work(&self, id: &str, attempt: Attempt) -> std::io::Result<()> {
        let mut tries =
            fs::File::options().append(true).create(true).open(self.folder.join("tries"))?;
        writeln!(tries, "{id} {attempt}")?;
        let effect = self.folder.join("effects").join(id);
        match fs::File::options().write(true).create_new(true).open(effect) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }
}

impl AgentHandler for Worker {
    fn stage(&self, job: StageJob) -> BoxFuture<'_, Result<StageDone, StageError>> {
        Box::pin(async move {
            let done = self.work(&job.run_id, job.attempt);
            done.map_err(|error| StageError::permanent(error.to_string()))?;
            tokio::time::sleep(self.pause).await;
            let output = json!({"attempt": job.attempt});
            Ok(StageDone { artifact_id: job.artifact_id, output })
        })
    }

    fn task(&self, job: TaskJob) -> BoxFuture<'_, Result<TaskDone, TaskError>> {
        Box::pin(async move {
            let done = self.work(&job.task_id, job.attempt);
            done.map_err(|error| TaskError::permanent("effect", error.to_string()))?;
            tokio::time::sleep(self.pause).await;
            Ok(TaskDone { result: json!({"attempt": job.attempt}) })
        })
    }
}

/// Serves until the process is killed, if this is the folder of a runner.
pub async fn serve() {
    let folder = std::env::current_dir().expect("a working folder");
    let Ok(orders) = fs::read(folder.join(FILE)) else { return };
    let orders: Orders = serde_json::from_slice(&orders).expect("the orders of a runner");
    let role = match orders.stage {
        None => AgentRole::User("user".to_owned()),
        Some(PipelineStage::Learning) => AgentRole::Learning,
        Some(PipelineStage::Building) => AgentRole::Building,
        Some(PipelineStage::PreLoad) => AgentRole::PreLoad,
        Some(PipelineStage::Evaluation) => AgentRole::Evaluation,
        Some(PipelineStage::SkillManage) => AgentRole::SkillManage,
    };
    let config = RunnerConfig {
        agent_id: format!("process-{role}"),
        role,
        soul: String::new(),
        folder: Some(folder.clone()),
        king_address: orders.king,
        gateway_address: None,
        runner_token: Some(orders.token.as_str().into()),
        viewer_token: None,
        gateway_token: None,
        model: ModelSettings::default(),
        cache: folder.join("cache"),
        capacity: 4,
    };
    let worker = Worker { folder, pause: Duration::from_millis(orders.pause_ms) };
    run_with(config, Arc::new(worker), Shutdown::new()).await.expect("a runner");
}
