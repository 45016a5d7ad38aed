//! Runs the agents of a folder: one process each, started again when it ends, and never without king.

mod agent;
mod backoff;
mod folders;
mod log;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use evo_common::{config::env, runtime::Shutdown, tokens::Scope};
use tokio::task::JoinSet;

pub use agent::SupervisedAgent;

use self::agent::{Agent, PASSED_ON, Wish, variables};
use crate::{child::Launcher, config::Config, store::Store};

/// The agents below a folder, by name, and whether each names a role.
pub(crate) fn souls(folder: &std::path::Path) -> std::io::Result<Vec<(String, bool)>> {
    let named = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name, folders::names_a_role(&path))
    };
    Ok(folders::find(folder)?.into_iter().map(named).collect())
}

/// How often it is looked whether folders came or went.
const LOOK: Duration = Duration::from_secs(5);

/// What is done with an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Start,
    Stop,
    Restart,
}

/// Supervises the agents of a folder, if there is one. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor(Option<Arc<Inner>>);

struct Inner {
    folder: PathBuf,
    logs: PathBuf,
    setup: Arc<Setup>,
    agents: Mutex<BTreeMap<String, Arc<Agent>>>,
}

/// How agents are run.
struct Setup {
    launcher: Launcher,
    store: Store,
    /// Runs a folder without a program of its own.
    runner: Option<Vec<OsString>>,
    environment: Vec<(OsString, OsString)>,
    pause: Pause,
}

/// How long a program that ended is left alone.
#[derive(Debug)]
struct Pause {
    first: Duration,
    most: Duration,
    stable: Duration,
}

impl Supervisor {
    /// Puts it together; nothing is started yet.
    pub(crate) fn new(
        config: &Config,
        king_url: &str,
        store: Store,
        launcher: Launcher,
    ) -> std::io::Result<Self> {
        let wanted = &config.supervisor;
        let Some(folder) = &wanted.agents else { return Ok(Self(None)) };
        let mut environment = variables(PASSED_ON, env::get);
        environment.extend(variables(wanted.env.iter().map(String::as_str), env::get));
        environment.push(("PATH".into(), config.machine.path_variable()));
        environment.push(("KING_ADDRESS".into(), king_url.into()));
        if let Some(gateway) = &config.gateway_url {
            environment.push(("GATEWAY_ADDRESS".into(), gateway.into()));
        }
        // What it writes is kept here.
        environment.push(("EVO_LOG_DIR".into(), "off".into()));
        if let Some(file) = config.tokens_file.as_ref().filter(|_| !config.open) {
            environment.push(("EVO_TOKENS_FILE".into(), std::path::absolute(file)?.into()));
            // Those that stand over the file's, of the kinds that an agent needs.
            let own = [Scope::Runner, Scope::Viewer, Scope::Gateway].map(Scope::variable);
            environment.extend(variables(own, env::get));
        }
        let ms = Duration::from_millis;
        Ok(Self(Some(Arc::new(Inner {
            folder: std::path::absolute(folder)?,
            logs: std::path::absolute(config.data.join("logs").join("agents"))?,
            setup: Arc::new(Setup {
                launcher,
                store,
                runner: config.runner_command(),
                environment,
                pause: Pause {
                    first: ms(wanted.restart_ms),
                    most: ms(wanted.restart_max_ms),
                    stable: ms(wanted.stable_ms),
                },
            }),
            agents: Mutex::default(),
        }))))
    }

    /// The folder whose agents are supervised; none when nothing is.
    pub(crate) fn folder(&self) -> Option<&PathBuf> {
        self.0.as_ref().map(|inner| &inner.folder)
    }

    /// Runs the agents until shutdown, and ends them then.
    pub(crate) async fn run(&self, shutdown: Shutdown) {
        let Some(inner) = &self.0 else { return };
        let mut attended = JoinSet::new();
        let mut told = false;
        loop {
            match folders::find(&inner.folder) {
                Ok(found) => {
                    told = false;
                    inner.follow(found, &mut attended, &shutdown);
                }
                Err(error) if !told => {
                    let folder = inner.folder.display();
                    tracing::error!(%error, "The agents of {folder} can't be found: {error}");
                    told = true;
                }
                Err(_) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(LOOK) => {}
                Some(ended) = attended.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "An agent is not supervised any more: {error}");
                },
            }
        }
        while attended.join_next().await.is_some() {}
    }

    /// Every agent, by name, with the id that its process registered as.
    pub(crate) async fn list(&self) -> Result<Vec<SupervisedAgent>, crate::store::Error> {
        let Some(inner) = &self.0 else { return Ok(Vec::new()) };
        let mut views: Vec<SupervisedAgent> =
            inner.agents().values().map(|agent| agent.view()).collect();
        let pids = inner.setup.store.agents_by_pid().await?;
        for view in &mut views {
            if let Some(agent_id) = view.pid.and_then(|pid| pids.get(&pid)) {
                view.agent_id = Some(agent_id.clone());
            }
        }
        Ok(views)
    }

    /// Starts, stops or restarts an agent; none when there is no such agent. It has been told when
    /// this returns, and has not necessarily done it.
    pub(crate) fn act(&self, name: &str, action: Action) -> Option<SupervisedAgent> {
        let agent = self.0.as_ref()?.agents().get(name)?.clone();
        agent.wish.send_modify(|wish| match action {
            Action::Start => wish.up = true,
            Action::Stop => wish.up = false,
            Action::Restart => *wish = Wish { up: true, restart: wish.restart + 1, ..*wish },
        });
        Some(agent.view())
    }
}

impl Inner {
    fn agents(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Agent>>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with new folders, and ends those that are gone.
    fn follow(&self, found: Vec<PathBuf>, attended: &mut JoinSet<()>, shutdown: &Shutdown) {
        let mut agents = self.agents();
        let name_of = |folder: &PathBuf| {
            folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
        };
        let names: Vec<String> = found.iter().map(name_of).collect();
        agents.retain(|name, agent| {
            let stays = names.contains(name);
            if !stays {
                agent.wish.send_modify(|wish| wish.gone = true);
            }
            stays
        });
        for (name, folder) in names.into_iter().zip(found) {
            if agents.contains_key(&name) {
                continue;
            }
            let log = self.logs.join(format!("{name}.log"));
            let agent = Agent::new(&name, folder, log);
            attended.spawn(agent.clone().attend(self.setup.clone(), shutdown.clone()));
            agents.insert(name, agent);
        }
    }
}
