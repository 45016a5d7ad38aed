//! King's configuration: defaults, then `king.toml`, then the environment, then the command line.

mod learning;
mod retention;
mod skills;

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use evo_common::{
    config::{
        SourceConfig, SourcesConfig, check_http_url, env, load,
        sources::{GATEWAY_LOCATION, KING_LOCATION},
    },
    messages::{PipelineStage, TaskLimits},
    stage::EvaluationPlan,
    tokens::Tokens,
};
use serde::Deserialize;

pub use learning::{LearningConfig, TelemetryConfig};
pub use retention::{Retention, WhenFull};
pub use skills::{ApprovalConfig, CanaryConfig, Failing, Leave, SkillsConfig};

use crate::{debug::DebugConfig, store::Database, system_info::Machine};

/// The port of king when nothing says otherwise.
pub const DEFAULT_PORT: u16 = 3000;

/// Everything that king needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where king listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Its data folder: `king.db`, `artifacts/`.
    pub data: PathBuf,
    /// Where the database is; by default `king.db` in the data folder.
    pub database: Database,
    /// Who may do what.
    pub tokens: Tokens,
    /// No tokens; on loopback only.
    pub open: bool,
    /// Where Learning looks.
    pub sources: Vec<SourceConfig>,
    /// How others reach king, when that is not where it listens.
    pub public_url: Option<String>,
    /// Where the gateway is.
    pub gateway_url: Option<String>,
    /// The gateway's configuration file, which king watches.
    pub gateway_config: Option<PathBuf>,
    /// The program that a gateway's configuration is tested with; found by itself when none is named.
    pub gateway_binary: Option<PathBuf>,
    /// Where the tokens are, if they came from a file.
    pub tokens_file: Option<PathBuf>,
    /// The agents whose processes king runs.
    pub supervisor: SupervisorConfig,
    /// How evaluations are run.
    pub plan: EvaluationPlan,
    /// Pause before a held candidate's next look.
    pub retry_look_after_ms: u64,
    /// How long a discarded definition is not tried again.
    pub remember_discarded_ms: u64,
    /// How often runners give a sign of life.
    pub heartbeat_ms: u64,
    /// A runner that is silent for so long has lost its attempts.
    pub lease_ms: u64,
    /// After a start, how long runners have to come back to their attempts.
    pub grace_ms: u64,
    /// How long a runner that is asked how to go on after a failure has for its answer.
    pub recovery_ms: u64,
    /// When king is told to end, how long attempts under way may take.
    pub drain_grace_ms: u64,
    /// How often king pings each connection.
    pub ping_interval_ms: u64,
    /// A connection that leaves a ping unanswered for so long is closed.
    pub ping_timeout_ms: u64,
    /// How long an attempt of each stage may take.
    pub timeouts: Timeouts,
    /// How many attempts of each stage are given out at the same time at most.
    pub concurrency: Concurrency,
    /// How tasks are done.
    pub tasks: TasksConfig,
    /// How many days traces are kept.
    pub traces_keep_days: u32,
    /// How many traces are kept at most.
    pub traces_max: u32,
    /// How many direct runs per second are traced, of many.
    pub traces_direct_per_second: u32,
    /// How long everything else is kept.
    pub retention: Retention,
    /// What becomes of skills after the decision.
    pub skills: SkillsConfig,
    /// What a cycle may use up, and what failing calls ask for.
    pub learning: LearningConfig,
    /// Folder of the log files of this process.
    pub logs: Option<PathBuf>,
    /// Whether king starts a cycle itself when it never had one.
    pub first_cycle: bool,
    /// What one client may take.
    pub limits: Limits,
    /// Origins whose pages may use king from a browser.
    pub cors_origins: Vec<String>,
    /// What operators may try by hand.
    pub debug: DebugConfig,
    /// What this process knows of its machine.
    pub machine: MachineConfig,
}

/// What one client may take. A value of 0 is refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at the same time; more are told to come back later.
    pub connections: u32,
    /// Socket.IO messages per second of a runner's connection; four times as many at once.
    pub runner_messages_per_s: u32,
    /// The same of any other connection.
    pub messages_per_s: u32,
    /// Streams of events at the same time.
    pub streams: u32,
    /// How long a client may take no byte of what is sent to it.
    pub slow_reader_ms: u64,
    /// Calls of skills at the same time, wherever they come from.
    pub calls: u32,
    /// Sessions of MCP clients at the same time, and streams of those that have none.
    pub mcp_sessions: u32,
    /// How long such a session may be without a message.
    pub mcp_idle_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            runner_messages_per_s: 5_000,
            messages_per_s: 100,
            streams: 256,
            slow_reader_ms: 60_000,
            calls: 256,
            mcp_sessions: 256,
            mcp_idle_ms: 1_800_000,
        }
    }
}

/// Where the gateway's configuration file is, of older set-ups first.
const GATEWAY_CONFIG: [&str; 3] = ["GATEWAY_CONFIG_PATH", "GATEWAY_CONFIG", "EVO_GATEWAY_CONFIG"];

/// What this process knows of its machine, from the environment.
#[derive(Debug, Clone, Default)]
pub struct MachineConfig {
    home: Option<PathBuf>,
    path: Vec<PathBuf>,
    executable: Option<PathBuf>,
}

impl MachineConfig {
    fn from_env() -> Self {
        let path = env::get("PATH").unwrap_or_default();
        Self {
            home: env::get("HOME").map(PathBuf::from),
            path: std::env::split_paths(&path).collect(),
            executable: std::env::current_exe().ok(),
        }
    }

    /// The variable `PATH`.
    pub(crate) fn path_variable(&self) -> OsString {
        // Folders that can't stand in it came from it.
        std::env::join_paths(&self.path).unwrap_or_default()
    }

    /// This process's own program, which has the helper for children.
    pub(crate) fn executable(&self) -> Option<&Path> {
        self.executable.as_deref()
    }

    /// The program of another component: of `evo` itself the command `role`, so that both are of one
    /// version; else what stands beside this process's own program.
    fn component(&self, alone: &str, role: &str) -> Option<Vec<OsString>> {
        let own = self.executable()?;
        let is_alone =
            own.file_name().is_some_and(|name| name.to_string_lossy().starts_with("evo-"));
        if !is_alone {
            return Some(vec![own.into(), role.into()]);
        }
        let beside = |name: &str| Some(own.parent()?.join(name)).filter(|path| path.is_file());
        match (beside(alone), beside("evo")) {
            (Some(program), _) => Some(vec![program.into()]),
            (None, Some(evo)) => Some(vec![evo.into(), role.into()]),
            (None, None) => None,
        }
    }
}

/// A path that means the same from every folder. One without a folder is looked for in `PATH`.
fn absolute(path: &Path) -> PathBuf {
    if path.components().count() < 2 {
        return path.to_owned();
    }
    // It fails for the empty path only.
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The agents whose processes king runs: the table `supervisor` of `king.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupervisorConfig {
    /// The folder that holds the agents' folders; without one king supervises nobody.
    pub agents: Option<PathBuf>,
    /// The program that runs a folder that has none of its own; found by itself when none is named.
    pub runner: Option<PathBuf>,
    /// Variables of king's environment that agents get besides the usual ones.
    pub env: Vec<String>,
    /// Pause before an agent that ended is started again; doubled each time.
    pub restart_ms: u64,
    /// The longest such pause.
    pub restart_max_ms: u64,
    /// An agent that ran for so long begins with the shortest pause again.
    pub stable_ms: u64,
}

impl Default for SupervisorConfig {
    fn default() -> Self {
        Self {
            agents: None,
            runner: None,
            env: Vec::new(),
            restart_ms: 1_000,
            restart_max_ms: 60_000,
            stable_ms: 60_000,
        }
    }
}

/// How tasks are done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TasksConfig {
    /// What the work on a task may use up when the task does not say.
    pub limits: TaskLimits,
}

/// How long an attempt of each stage may take, in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Learning.
    pub learning_ms: u64,
    /// Building.
    pub building_ms: u64,
    /// Pre-load.
    pub pre_load_ms: u64,
    /// Evaluation.
    pub evaluation_ms: u64,
    /// Skill-Manage.
    pub skill_manage_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            learning_ms: 120_000,
            building_ms: 60_000,
            pre_load_ms: 120_000,
            evaluation_ms: 900_000,
            skill_manage_ms: 60_000,
        }
    }
}

/// How many attempts of each stage are given out at the same time at most, over all runners.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Concurrency {
    /// Learning.
    pub learning: Option<u32>,
    /// Building.
    pub building: Option<u32>,
    /// Pre-load.
    pub pre_load: Option<u32>,
    /// Evaluation.
    pub evaluation: Option<u32>,
    /// Skill-Manage.
    pub skill_manage: Option<u32>,
}

impl Concurrency {
    /// The limit of a stage; without one the runners' capacity is the limit.
    pub fn of(&self, stage: PipelineStage) -> Option<u32> {
        match stage {
            PipelineStage::Learning => self.learning,
            PipelineStage::Building => self.building,
            PipelineStage::PreLoad => self.pre_load,
            PipelineStage::Evaluation => self.evaluation,
            PipelineStage::SkillManage => self.skill_manage,
        }
    }
}

/// `[pipeline]` of `king.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PipelineFile {
    /// How many attempts of each stage are given out at the same time at most.
    pub concurrency: Concurrency,
}

/// `king.toml`. Every key is optional.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct KingFile {
    /// Address to listen on, without the port.
    pub host: Option<IpAddr>,
    /// Port to listen on.
    pub port: Option<u16>,
    /// How others reach king.
    pub public_url: Option<String>,
    /// Where the gateway is.
    pub gateway_url: Option<String>,
    /// The gateway's configuration file.
    pub gateway_config: Option<PathBuf>,
    /// The program that a gateway's configuration is tested with.
    pub gateway_binary: Option<PathBuf>,
    /// The agents whose processes king runs.
    pub supervisor: Option<SupervisorConfig>,
    /// Held-out trials of a look.
    pub trials: Option<u32>,
    /// Sittings over which they are spread.
    pub sittings: Option<u32>,
    /// Pause between two sittings.
    pub sitting_gap_ms: Option<u64>,
    /// Pause before a held candidate's next look.
    pub retry_look_after_ms: Option<u64>,
    /// How long a discarded definition is not tried again.
    pub remember_discarded_ms: Option<u64>,
    /// How often runners give a sign of life.
    pub heartbeat_ms: Option<u64>,
    /// A runner that is silent for so long has lost its attempts.
    pub lease_ms: Option<u64>,
    /// After a start, how long runners have to come back.
    pub grace_ms: Option<u64>,
    /// How long a runner that is asked how to go on has for its answer.
    pub recovery_ms: Option<u64>,
    /// When king is told to end, how long attempts under way may take.
    pub drain_grace_ms: Option<u64>,
    /// How long an attempt of each stage may take.
    pub timeouts: Option<Timeouts>,
    /// How work is given out.
    pub pipeline: PipelineFile,
    /// How tasks are done.
    pub tasks: Option<TasksConfig>,
    /// How many days traces are kept.
    pub traces_keep_days: Option<u32>,
    /// How many traces are kept at most.
    pub traces_max: Option<u32>,
    /// How many direct runs per second are traced, of many.
    pub traces_direct_per_second: Option<u32>,
    /// How long everything else is kept.
    pub retention: Option<Retention>,
    /// What becomes of skills after the decision.
    pub skills: Option<SkillsConfig>,
    /// What a cycle may use up, and what failing calls ask for.
    pub learning: Option<LearningConfig>,
    /// Whether king starts a cycle itself when it never had one.
    pub first_cycle: Option<bool>,
    /// What one client may take.
    pub limits: Option<Limits>,
    /// Origins whose pages may use king from a browser.
    pub cors_origins: Option<Vec<String>>,
    /// What operators may try by hand.
    pub debug: Option<DebugConfig>,
}

impl load::Validate for KingFile {
    fn validate(&self, faults: &mut Vec<load::Fault>) {
        let mut at_least = |key: &str, value: Option<u64>, least: u64| {
            if let Some(value) = value.filter(|value| *value < least) {
                faults.push(load::Fault::new(
                    key,
                    format!("it is {value}; it must be at least {least}"),
                ));
            }
        };
        for stage in PipelineStage::ALL {
            let key = format!("pipeline.concurrency.{stage}");
            at_least(&key, self.pipeline.concurrency.of(stage).map(u64::from), 1);
        }
        at_least("trials", self.trials.map(u64::from), u64::from(evo_common::evidence::FIRST_LOOK));
        at_least("sittings", self.sittings.map(u64::from), 1);
        at_least("heartbeat_ms", self.heartbeat_ms, 100);
        at_least("recovery_ms", self.recovery_ms, 1_000);
        at_least("traces_keep_days", self.traces_keep_days.map(u64::from), 1);
        at_least("traces_max", self.traces_max.map(u64::from), 1);
        let heartbeat = self.heartbeat_ms.unwrap_or(HEARTBEAT_MS);
        if let Some(supervisor) = &self.supervisor {
            let SupervisorConfig { restart_ms, restart_max_ms, .. } = supervisor;
            at_least("supervisor.restart_ms", Some(*restart_ms), 10);
            at_least("supervisor.restart_max_ms", Some(*restart_max_ms), *restart_ms);
        }
        at_least("lease_ms", self.lease_ms, heartbeat * 2);
        if let Some(limits) = &self.limits {
            for (key, value) in [
                ("limits.connections", limits.connections),
                ("limits.runner_messages_per_s", limits.runner_messages_per_s),
                ("limits.messages_per_s", limits.messages_per_s),
                ("limits.streams", limits.streams),
            ] {
                at_least(key, Some(u64::from(value)), 1);
            }
        }
        if let Some(skills) = &self.skills {
            skills.check(faults);
        }
        if let Some(learning) = &self.learning {
            learning.check(faults);
        }
        if let Some(debug) = &self.debug {
            debug.check(faults);
        }
        for origin in self.cors_origins.iter().flatten() {
            if let Err(message) = check_origin(origin) {
                faults.push(load::Fault::new("cors_origins", message));
            }
        }
        for (key, url) in [("public_url", &self.public_url), ("gateway_url", &self.gateway_url)] {
            if let Some(Err(message)) = url.as_deref().map(check_http_url) {
                faults.push(load::Fault::new(key, message));
            }
        }
    }
}

const HEARTBEAT_MS: u64 = 5_000;

/// What was wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file.
    #[error(transparent)]
    File(#[from] load::ConfigErrors),
    /// An environment variable.
    #[error(transparent)]
    Env(#[from] env::EnvError),
    /// The tokens.
    #[error(transparent)]
    Tokens(#[from] evo_common::tokens::Error),
    /// Anything else.
    #[error("{0}")]
    Invalid(String),
}

impl Config {
    /// Defaults for a data folder, with these tokens: loopback, port 3000, no sources.
    pub fn new(data: &Path, tokens: Tokens) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            data: data.to_owned(),
            database: Database::File(data.join("king.db")),
            tokens,
            open: false,
            sources: Vec::new(),
            public_url: None,
            gateway_url: None,
            gateway_config: None,
            gateway_binary: None,
            tokens_file: None,
            supervisor: SupervisorConfig::default(),
            plan: EvaluationPlan { sitting_gap_ms: 120_000, ..EvaluationPlan::default() },
            retry_look_after_ms: 600_000,
            remember_discarded_ms: 24 * 3_600_000,
            heartbeat_ms: HEARTBEAT_MS,
            lease_ms: 20_000,
            grace_ms: 15_000,
            recovery_ms: 30_000,
            drain_grace_ms: 5_000,
            ping_interval_ms: 25_000,
            ping_timeout_ms: 20_000,
            timeouts: Timeouts::default(),
            concurrency: Concurrency::default(),
            tasks: TasksConfig::default(),
            traces_keep_days: 7,
            traces_max: 10_000,
            traces_direct_per_second: 5,
            retention: Retention::default(),
            skills: SkillsConfig::default(),
            learning: LearningConfig::default(),
            logs: None,
            first_cycle: false,
            limits: Limits::default(),
            cors_origins: Vec::new(),
            debug: DebugConfig::default(),
            machine: MachineConfig::from_env(),
        }
    }

    /// Reads a data folder: `tokens.toml` (or the file that `EVO_TOKENS_FILE` names, which is made
    /// when it is missing), `config/king.toml`, `config/sources.toml`, and the environment over
    /// them.
    pub fn load(data: &Path) -> Result<Self, ConfigError> {
        let file =
            env::get("EVO_TOKENS_FILE").map_or_else(|| data.join("tokens.toml"), PathBuf::from);
        let tokens = Tokens::load_or_create(&file, &env::get)?;
        let mut config = Self { tokens_file: Some(file), ..Self::new(data, tokens) };
        config.logs = evo_common::logging::log_files_dir();
        let folder = data.join("config");
        let file = folder.join("king.toml");
        if file.exists() {
            config.apply_file(load::load_valid(&file)?);
        }
        let file = folder.join("sources.toml");
        let sources = if file.exists() { Some(load_sources(&file)?) } else { None };
        config.apply_env(&env::get)?;
        if config.gateway_config.is_none() {
            let usual = ["gateway.toml", "gateway.json"].map(|name| folder.join(name));
            config.gateway_config = usual.into_iter().find(|file| file.exists());
        }
        config.sources = sources.unwrap_or_else(|| own_documents(config.gateway_url.is_some()));
        Ok(config)
    }

    /// Puts the keys of a `king.toml` over what is set.
    pub fn apply_file(&mut self, file: KingFile) {
        fn set<T>(target: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *target = value;
            }
        }
        let host = file.host.unwrap_or(self.listen.ip());
        self.listen = SocketAddr::new(host, file.port.unwrap_or(self.listen.port()));
        self.public_url = file.public_url.or(self.public_url.take());
        self.gateway_url = file.gateway_url.or(self.gateway_url.take());
        self.gateway_config = file.gateway_config.or(self.gateway_config.take());
        self.gateway_binary = file.gateway_binary.or(self.gateway_binary.take());
        set(&mut self.supervisor, file.supervisor);
        set(&mut self.plan.trials, file.trials);
        set(&mut self.plan.sittings, file.sittings);
        set(&mut self.plan.sitting_gap_ms, file.sitting_gap_ms);
        set(&mut self.retry_look_after_ms, file.retry_look_after_ms);
        set(&mut self.remember_discarded_ms, file.remember_discarded_ms);
        set(&mut self.heartbeat_ms, file.heartbeat_ms);
        set(&mut self.lease_ms, file.lease_ms);
        set(&mut self.grace_ms, file.grace_ms);
        set(&mut self.recovery_ms, file.recovery_ms);
        set(&mut self.drain_grace_ms, file.drain_grace_ms);
        set(&mut self.timeouts, file.timeouts);
        self.concurrency = file.pipeline.concurrency;
        set(&mut self.tasks, file.tasks);
        set(&mut self.traces_keep_days, file.traces_keep_days);
        set(&mut self.traces_max, file.traces_max);
        set(&mut self.traces_direct_per_second, file.traces_direct_per_second);
        set(&mut self.retention, file.retention);
        set(&mut self.skills, file.skills);
        set(&mut self.learning, file.learning);
        set(&mut self.first_cycle, file.first_cycle);
        set(&mut self.limits, file.limits);
        set(&mut self.cors_origins, file.cors_origins);
        set(&mut self.debug, file.debug);
    }

    /// Puts the environment over what is set: `KING_PORT`, `KING_HOST`, `KING_DB_PATH`,
    /// `KING_DB_URL` with `KING_DB_TOKEN`, `KING_PUBLIC_URL`, `KING_FIRST_CYCLE`, `GATEWAY_ADDRESS`,
    /// and the names `EVO_KING_PORT` and `EVO_KING_DB_PATH` of older set-ups.
    pub fn apply_env(&mut self, env: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        let port = match env::parse(env, "KING_PORT")? {
            Some(port) => Some(port),
            None => env::parse(env, "EVO_KING_PORT")?,
        };
        let host: Option<IpAddr> = env::parse(env, "KING_HOST")?;
        self.listen =
            SocketAddr::new(host.unwrap_or(self.listen.ip()), port.unwrap_or(self.listen.port()));
        if let Some(path) = env("KING_DB_PATH").or_else(|| env("EVO_KING_DB_PATH")) {
            self.database = Database::File(PathBuf::from(path));
        }
        if let Some(url) = env("KING_DB_URL") {
            self.database = Database::parse(&url, env("KING_DB_TOKEN").as_deref())
                .map_err(ConfigError::Invalid)?;
        }
        let address = |name: &str| -> Result<Option<String>, ConfigError> {
            let value = env(name);
            if let Some(Err(message)) = value.as_deref().map(check_http_url) {
                return Err(ConfigError::Invalid(format!(
                    "environment variable {name}: {message}"
                )));
            }
            Ok(value)
        };
        self.public_url = address("KING_PUBLIC_URL")?.or(self.public_url.take());
        self.gateway_url = address("GATEWAY_ADDRESS")?.or(self.gateway_url.take());
        let file = GATEWAY_CONFIG.into_iter().find_map(env).map(PathBuf::from);
        self.gateway_config = file.or(self.gateway_config.take());
        let agents = env("KERNEL_AGENTS_DIR").map(PathBuf::from);
        self.supervisor.agents = agents.or(self.supervisor.agents.take());
        let runner = env("RUNNER_BINARY").map(PathBuf::from);
        self.supervisor.runner = runner.or(self.supervisor.runner.take());
        let binary = env("EVO_GATEWAY_BINARY").map(PathBuf::from);
        self.gateway_binary = binary.or(self.gateway_binary.take());
        self.first_cycle = env::parse(env, "KING_FIRST_CYCLE")?.unwrap_or(self.first_cycle);
        Ok(())
    }

    /// The runner's program and its first arguments.
    pub(crate) fn runner_command(&self) -> Option<Vec<OsString>> {
        match &self.supervisor.runner {
            Some(binary) => Some(vec![absolute(binary).into()]),
            None => self.machine.component("evo-runner", "runner"),
        }
    }

    /// The gateway's program and its first arguments.
    pub(crate) fn gateway_command(&self) -> Option<Vec<OsString>> {
        match &self.gateway_binary {
            Some(binary) => Some(vec![absolute(binary).into()]),
            None => self.machine.component("evo-gateway", "gateway"),
        }
    }

    /// How long an attempt of a stage may take.
    pub fn timeout_ms(&self, stage: PipelineStage) -> u64 {
        match stage {
            PipelineStage::Learning => self.timeouts.learning_ms,
            PipelineStage::Building => self.timeouts.building_ms,
            PipelineStage::PreLoad => self.timeouts.pre_load_ms,
            PipelineStage::Evaluation => self.timeouts.evaluation_ms,
            PipelineStage::SkillManage => self.timeouts.skill_manage_ms,
        }
    }

    /// What the system discovery needs to know.
    pub(crate) fn machine(&self) -> Machine {
        Machine {
            evo_home: self.data.clone(),
            home: self.machine.home.clone(),
            path: self.machine.path.clone(),
            executable: self.machine.executable.clone(),
        }
    }
}

/// The sources of an installation without `sources.toml`: king's own document and, where there is
/// a gateway, that one's.
fn own_documents(has_gateway: bool) -> Vec<SourceConfig> {
    let mut sources = vec![SourceConfig::openapi("evo-king", KING_LOCATION)];
    if has_gateway {
        sources.push(SourceConfig::openapi("evo-gateway", GATEWAY_LOCATION));
    }
    sources
}

/// Checks that a text is an origin as browsers send it: scheme, host and perhaps port.
fn check_origin(origin: &str) -> Result<(), String> {
    match url::Url::parse(origin) {
        Ok(url)
            if matches!(url.scheme(), "http" | "https")
                && url.origin().ascii_serialization() == origin =>
        {
            Ok(())
        }
        _ => Err(format!("{origin:?} is no origin; write one such as https://dashboard.example")),
    }
}

/// Checks a `king.toml` by itself.
pub fn check_file(file: &Path) -> Result<(), ConfigError> {
    load::load_valid::<KingFile>(file)?;
    Ok(())
}

/// What to do at the places of [`crate::failpoints`]: `FILE` writes them there, `NUMBER:FILE` or
/// `NAME@NUMBER:FILE` kills the process at that one besides.
#[cfg(feature = "failpoints")]
pub(crate) fn fail_points() -> Option<String> {
    env::get("EVO_FAIL_POINTS")
}

/// The data folder: the one given, else `~/.evo`.
pub fn data_folder(given: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    given.or_else(|| env::get("HOME").map(|home| PathBuf::from(home).join(".evo"))).ok_or_else(
        || ConfigError::Invalid("HOME is not set; name a data folder with --data DIR".to_owned()),
    )
}

/// Reads `sources.toml`. A relative `location` is taken from the file's folder.
pub fn load_sources(file: &Path) -> Result<Vec<SourceConfig>, ConfigError> {
    let mut config: SourcesConfig = load::load_valid(file)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    for source in &mut config.sources {
        let location = &source.location;
        let names_a_file =
            !location.is_empty() && !location.contains("://") && !location.ends_with(':');
        if names_a_file && Path::new(location).is_relative() {
            source.location = folder.join(location).display().to_string();
        }
    }
    Ok(config.sources)
}
