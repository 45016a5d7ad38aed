//! Runs code that nobody here wrote, so that it can do nothing but compute an answer.
//!
//! [`policy`] says as data what one execution may do. On Linux two helper processes of the own
//! executable apply it ([`serve_part`]); on macOS the system's own sandbox does. Where too little of
//! it can be put in place nothing runs: see [`Sandbox::probe`].

#[cfg(not(target_os = "linux"))]
mod elsewhere;
mod folder;
pub mod interpreter;
#[cfg(target_os = "linux")]
mod linux;
mod output;
pub mod policy;
mod proxy;
mod report;
#[cfg(any(test, target_os = "macos"))]
mod seatbelt;
mod way;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, OnceLock},
};

use tokio::sync::{Mutex, OnceCell};

#[cfg(not(target_os = "linux"))]
use self::elsewhere as system;
#[cfg(target_os = "linux")]
use self::linux as system;
use self::{
    interpreter::{Interpreter, Language},
    policy::Policy,
};

pub use self::{
    folder::Folder,
    proxy::Egress,
    report::{LayerReport, Report},
    way::{Isolation, Limit},
};

/// The first argument of a helper process.
pub(crate) const PART: &str = "sandbox-part";

/// Whether this executable can be its own helper.
static SERVES: OnceLock<()> = OnceLock::new();

/// Has to be called first thing in `main` of every program that runs skills with code: such a program
/// is started again as the helper of its sandbox. Gives the exit code when this process is one.
pub fn serve_part() -> Option<ExitCode> {
    SERVES.get_or_init(|| ());
    crate::config::sandbox_part().map(|part| system::serve(&part))
}

/// What the operator decides about the sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The program that is the helper: one that calls [`serve_part`]. By default this one.
    pub helper: Option<PathBuf>,
    /// `EVO_SANDBOX_PYTHON`.
    pub python: Option<PathBuf>,
    /// `EVO_SANDBOX_NODE`.
    pub node: Option<PathBuf>,
    /// `PATH`, where interpreters are looked for that are not named.
    pub path: String,
}

impl Settings {
    /// Reads the environment.
    pub fn load(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let program = |language: Language| env(language.variable()).map(PathBuf::from);
        Self {
            helper: None,
            python: program(Language::Python3),
            node: program(Language::Node),
            path: env("PATH").unwrap_or_default(),
        }
    }
}

/// Why code did not run, or was ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no sandbox here.
    #[error("code can't be run safely here: {0}")]
    Unavailable(String),
    /// Network was asked for where it can't be filtered.
    #[error(
        "the code wants network, which can't be filtered without a network namespace; allow user namespaces on this machine (`evo doctor` says what is missing), or take `network` out of the package's [runtime]"
    )]
    NoNetwork,
    /// The interpreter is missing.
    #[error(transparent)]
    Interpreter(#[from] interpreter::Error),
    /// A layer could not be put in place.
    #[error("the sandbox could not be put in place ({0}); nothing was run")]
    Layer(String),
    /// The helper does not work.
    #[error("the sandbox could not be started: {0}")]
    Start(String),
    /// A limit was reached before there was an ending to tell about.
    #[error("a limit was reached")]
    Limit(Limit),
}

/// How an execution ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Exit code, when it was not ended by a signal.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The limit for which it was ended.
    pub limit: Option<Limit>,
    /// Processor time of all its processes.
    pub cpu_ms: u64,
    /// Its whole standard output.
    pub stdout: Vec<u8>,
    /// The end of its standard error.
    pub stderr: String,
    /// What it wanted from the network and did not get.
    pub refused: Vec<String>,
}

/// Runs code. Cheap to clone; clones share what they know of the machine.
#[derive(Debug, Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    interpreters: Mutex<BTreeMap<Language, Result<Interpreter, interpreter::Error>>>,
    probed: OnceCell<Report>,
}

impl Sandbox {
    /// A sandbox with these settings. Nothing is tried yet.
    pub fn new(settings: Settings) -> Self {
        let inner =
            Inner { settings, interpreters: Mutex::new(BTreeMap::new()), probed: OnceCell::new() };
        Self { inner: Arc::new(inner) }
    }

    /// The interpreter of a language. It is looked for once.
    pub async fn interpreter(&self, language: Language) -> Result<Interpreter, interpreter::Error> {
        let mut known = self.inner.interpreters.lock().await;
        if let Some(found) = known.get(&language) {
            return found.clone();
        }
        let settings = &self.inner.settings;
        let named = match language {
            Language::Python3 => settings.python.as_deref(),
            Language::Node => settings.node.as_deref(),
        };
        let found = interpreter::find(language, named, &settings.path).await;
        known.insert(language, found.clone());
        found
    }

    /// What of the sandbox works on this machine: a small program is run in it, the strictest way
    /// first. Tried once, until there is a way that works.
    pub async fn probe(&self) -> Report {
        if let Some(report) = self.inner.probed.get() {
            return report.clone();
        }
        let report = self.try_all().await;
        if report.usable {
            // Another probe may have been faster, with the same result.
            self.inner.probed.set(report.clone()).map_or_else(drop, drop);
        }
        report
    }

    /// Runs the code of a policy with this input. `egress` says what its network is; it has none
    /// without.
    pub async fn run(
        &self,
        policy: &Policy,
        input: &[u8],
        egress: Option<&Egress>,
    ) -> Result<Ended, Error> {
        let report = self.probe().await;
        let Some(isolation) = report.isolation else {
            return Err(Error::Unavailable(report.advice.unwrap_or_default()));
        };
        self.run_as(isolation, policy, input, egress).await.map(|(ended, _)| ended)
    }

    /// Runs the code of a policy in one way, whatever the others are.
    #[cfg(feature = "sandbox-layers")]
    pub async fn run_isolated(
        &self,
        isolation: Isolation,
        policy: &Policy,
        input: &[u8],
        egress: Option<&Egress>,
    ) -> Result<Ended, Error> {
        self.run_as(isolation, policy, input, egress).await.map(|(ended, _)| ended)
    }

    async fn run_as(
        &self,
        isolation: Isolation,
        policy: &Policy,
        input: &[u8],
        egress: Option<&Egress>,
    ) -> Result<(Ended, Vec<way::Active>), Error> {
        let helper = self.helper()?;
        Box::pin(system::run(helper, isolation, policy, input, egress)).await
    }

    fn helper(&self) -> Result<&Path, Error> {
        match &self.inner.settings.helper {
            Some(helper) => Ok(helper),
            None if SERVES.get().is_some() => Ok(Path::new("/proc/self/exe")),
            None => Err(Error::Unavailable(
                "this program is not its own helper; call evo_agents::sandbox::serve_part() first thing in main"
                    .to_owned(),
            )),
        }
    }

    async fn try_all(&self) -> Report {
        let interpreter = match self.interpreter(Language::Python3).await {
            Ok(interpreter) => interpreter,
            Err(error) => return Report::unusable(Vec::new(), error.to_string()),
        };
        let folder = match Folder::new(&report::probe_package()) {
            Ok(folder) => folder,
            Err(error) => return Report::unusable(Vec::new(), error.to_string()),
        };
        let policy = Policy::new(interpreter, report::PROBE, folder.path().to_owned());
        let mut failures = Vec::new();
        for isolation in system::ways() {
            match self.run_as(isolation, &policy, report::PROBE_INPUT, None).await {
                Ok((ended, active)) if report::is_right(&ended) => {
                    return Report::usable(isolation, &policy.interpreter, active, failures);
                }
                Ok((ended, _)) => failures.push((isolation, report::what_went_wrong(&ended))),
                Err(error) => failures.push((isolation, error.to_string())),
            }
        }
        let advice = report::advice(&failures);
        Report::unusable(failures, advice)
    }
}
