//! One agent's process: started, started again, stopped.

use std::{
    ffi::OsString,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use evo_common::{clock::Timestamp, runtime::Shutdown};
use serde::Serialize;
use tokio::{sync::watch, task::JoinSet, time::Instant};
use utoipa::ToSchema;

use super::{Setup, backoff::Backoff, folders, log::Log};
use crate::child::{self, Child, Program};

/// How long an agent has to end by itself. King's own end waits a little longer.
const GRACE: Duration = Duration::from_secs(4);
/// How long what an agent wrote last is waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How an agent's process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// It is about to be started.
    Starting,
    /// It runs.
    Running,
    /// It ended and is started again after a pause.
    Waiting,
    /// Somebody stopped it.
    Stopped,
}

/// One supervised agent.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SupervisedAgent {
    /// Name of its folder, by which it is told to start and stop.
    pub name: String,
    /// Its folder.
    pub folder: String,
    /// The agent that its process registered as; absent before that.
    pub agent_id: Option<String>,
    /// How its process stands.
    pub state: ProcessState,
    /// Its process, while there is one.
    pub pid: Option<u32>,
    /// When that was started (RFC 3339).
    pub started_at: Option<String>,
    /// How often it was started since king's start.
    pub starts: u64,
    /// How often it ended although nobody had asked for that, since king's start.
    pub crashes: u64,
    /// How it ended last, or why it could not be started.
    pub last_end: Option<String>,
    /// When it is started again (RFC 3339), while it waits for that.
    pub next_start_at: Option<String>,
    /// The file of what it writes; older ones beside it end with a number.
    pub log: String,
}

/// What is wanted of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    /// Whether it should run.
    pub(super) up: bool,
    /// Another number is another process.
    pub(super) restart: u64,
    /// Its folder is not there any more.
    pub(super) gone: bool,
}

/// An agent and what is wanted of it.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) wish: watch::Sender<Wish>,
    folder: PathBuf,
    log: PathBuf,
    view: Mutex<SupervisedAgent>,
}

impl Agent {
    pub(super) fn new(name: &str, folder: PathBuf, log: PathBuf) -> Arc<Self> {
        let view = SupervisedAgent {
            name: name.to_owned(),
            folder: folder.display().to_string(),
            agent_id: None,
            state: ProcessState::Starting,
            pid: None,
            started_at: None,
            starts: 0,
            crashes: 0,
            last_end: None,
            next_start_at: None,
            log: log.display().to_string(),
        };
        let (wish, _) = watch::channel(Wish { up: true, restart: 0, gone: false });
        Arc::new(Self { wish, folder, log, view: Mutex::new(view) })
    }

    /// As it stands.
    pub(super) fn view(&self) -> SupervisedAgent {
        self.locked().clone()
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, SupervisedAgent> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the process as it is wanted, until shutdown.
    pub(super) async fn attend(self: Arc<Self>, setup: Arc<Setup>, shutdown: Shutdown) {
        let mut wish = self.wish.subscribe();
        let pause = &setup.pause;
        let mut backoff = Backoff::new(pause.first, pause.most, pause.stable);
        let log = Log::at(self.log.clone());
        loop {
            let wanted = *wish.borrow_and_update();
            if wanted.gone {
                return;
            }
            if !wanted.up {
                self.locked().state = ProcessState::Stopped;
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    changed = wish.changed() => if changed.is_err() { return },
                }
                backoff.reset();
                continue;
            }
            let started = Instant::now();
            let end = match self.start(&setup, &log).await {
                Ok((child, copies)) => {
                    let end = self.run(child, copies, &mut wish, wanted, &setup, &shutdown).await;
                    let Some(end) = end else { return };
                    end
                }
                Err(reason) => End::Broken(format!("it can't be started: {reason}")),
            };
            let reason = match end {
                // As somebody wanted it.
                End::Asked => {
                    backoff.reset();
                    continue;
                }
                End::Broken(reason) => reason,
            };
            let pause = backoff.pause(started.elapsed());
            {
                let mut view = self.locked();
                view.state = ProcessState::Waiting;
                let ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                view.next_start_at = Some(Timestamp::now().plus_ms(ms).to_rfc3339());
                view.last_end = Some(reason);
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                changed = wish.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    backoff.reset();
                }
            }
            self.locked().next_start_at = None;
        }
    }

    async fn start(&self, setup: &Setup, log: &Log) -> Result<(Child, JoinSet<()>), String> {
        let command = folders::command(&self.folder, setup.runner.as_deref())
            .ok_or("there is no runner: set RUNNER_BINARY, or supervisor.runner in king.toml")?;
        {
            let mut view = self.locked();
            view.state = ProcessState::Starting;
            view.starts += 1;
        }
        let program = Program {
            command,
            environment: setup.environment.clone(),
            folder: self.folder.clone(),
            stdout: Stdio::piped(),
            stderr: Stdio::piped(),
        };
        let mut child = setup.launcher.spawn(program).await.map_err(|error| error.to_string())?;
        let mut copies = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            copies.spawn(log.clone().copy(stdout));
        }
        if let Some(stderr) = child.stderr.take() {
            copies.spawn(log.clone().copy(stderr));
        }
        let mut view = self.locked();
        view.state = ProcessState::Running;
        view.pid = child.id();
        view.started_at = Some(Timestamp::now().to_rfc3339());
        let name = &view.name;
        tracing::info!(agent.name = %name, pid = view.pid, "Agent {name} was started");
        drop(view);
        Ok((child, copies))
    }

    /// Waits for the process's end, or for another wish; none for the shutdown.
    async fn run(
        &self,
        mut child: Child,
        mut copies: JoinSet<()>,
        wish: &mut watch::Receiver<Wish>,
        wanted: Wish,
        setup: &Setup,
        shutdown: &Shutdown,
    ) -> Option<End> {
        let pid = child.id();
        let since = Timestamp::now();
        let ended = tokio::select! {
            status = child.wait() => Some(status),
            _ = wish.wait_for(|wish| *wish != wanted) => None,
            () = shutdown.cancelled() => None,
        };
        let end = match ended {
            Some(Ok(status)) => End::Broken(told(status)),
            Some(Err(error)) => End::Broken(format!("it can't be waited for: {error}")),
            None => {
                child::end(&mut child, GRACE).await;
                End::Asked
            }
        };
        // What it has started ends with it.
        drop(child);
        let rest = async { while copies.join_next().await.is_some() {} };
        tokio::time::timeout(LAST_WORDS, rest).await.unwrap_or_default();
        {
            let mut view = self.locked();
            view.pid = None;
            view.started_at = None;
        }
        if let End::Broken(reason) = &end {
            self.broken(reason, pid, since, setup).await;
        }
        (!shutdown.is_cancelled()).then_some(end)
    }

    /// The process ended although nobody had asked for that.
    async fn broken(&self, reason: &str, pid: Option<u32>, since: Timestamp, setup: &Setup) {
        let (name, known) = {
            let mut view = self.locked();
            view.crashes += 1;
            (view.name.clone(), view.agent_id.clone())
        };
        tracing::warn!(agent.name = %name, "Agent {name} ended: {reason}");
        let written = setup.store.supervisor_crashed(name, known, pid, since, reason.to_owned());
        match written.await {
            Ok(agent_id) => {
                let mut view = self.locked();
                view.agent_id = agent_id.or(view.agent_id.take());
            }
            Err(error) => tracing::warn!(%error, "An agent's end can't be recorded: {error}"),
        }
    }
}

/// How a process ended.
enum End {
    /// As it was told to.
    Asked,
    /// By itself, for this reason.
    Broken(String),
}

fn told(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(2), _) => "exit code 2: its configuration is wrong, its log says what".to_owned(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// What a program of an agent sees of king's environment, besides what it is told.
pub(super) const PASSED_ON: [&str; 10] = [
    "HOME",
    "LANG",
    "TZ",
    "RUST_LOG",
    "EVO_MODEL",
    "EVO_MODEL_CALLS",
    "EVO_MODEL_REPAIRS",
    "EVO_MODEL_BUILD_TOKENS",
    "EVO_MODEL_BUILD_USD",
    "EVO_OTLP_ENDPOINT",
];

/// Variables with a value.
pub(super) fn variables<'n>(
    names: impl IntoIterator<Item = &'n str>,
    environment: impl Fn(&str) -> Option<String>,
) -> Vec<(OsString, OsString)> {
    names.into_iter().filter_map(|name| Some((name.into(), environment(name)?.into()))).collect()
}
