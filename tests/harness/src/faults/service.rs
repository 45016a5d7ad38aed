//! A king of its own that is killed and started again, behind a proxy that stays where it is.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use evo_common::tokens::Tokens;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    history::{Acknowledged, Expected, Fault, History},
    proxy::Proxy,
    runners::Runners,
    tally::Tally,
};
use crate::{Evo, King, Process, eventually};

/// What king says when it can be reached.
const LISTENS: &str = "King listens on ";
const START: Duration = Duration::from_secs(60);
/// How long a run may take that nothing hinders any more.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Short times, so that what waits for them is seconds.
const SETTINGS: &str = "heartbeat_ms = 1000\nlease_ms = 6000\ngrace_ms = 4000\n";

/// A king's folder, its process when it has one, and the proxy in front of it.
pub struct Service {
    evo: Evo,
    tokens: Tokens,
    process: Option<Process>,
    /// The network between king and everybody.
    pub proxy: Proxy,
    address: Option<SocketAddr>,
    http: Option<King>,
    /// What king has confirmed.
    pub expected: Expected,
    /// What was counted so far.
    pub tally: Tally,
    args: &'static [&'static str],
    fail_points: Option<String>,
    wrapper: Option<(PathBuf, Vec<String>)>,
}

impl Service {
    /// A fresh folder; nothing runs yet. `binary` is the program `evo` or `evo-king`.
    pub async fn new(binary: impl Into<PathBuf>) -> Self {
        let binary = binary.into();
        let alone = binary.file_name().is_some_and(|name| name == "evo-king");
        let evo = Evo::new(binary);
        evo.file("data/config/king.toml", SETTINGS);
        let tokens = Tokens::load_or_create(&evo.data().join("tokens.toml"), &|_| None)
            .expect("tokens in a fresh folder");
        Self {
            evo,
            tokens,
            process: None,
            proxy: Proxy::start().await,
            address: None,
            http: None,
            expected: Expected::default(),
            tally: Tally::default(),
            args: if alone { &["--port", "0"] } else { &["king", "--port", "0"] },
            fail_points: None,
            wrapper: None,
        }
    }

    /// The next start passes king's fail points, and only that one: `FILE` or `NUMBER:FILE`.
    pub fn fail_at(&mut self, number: Option<u64>) -> PathBuf {
        let log = self.evo.folder().join("places");
        let place = number.map(|number| format!("{number}:")).unwrap_or_default();
        self.fail_points = Some(format!("{place}{}", log.display()));
        log
    }

    /// The next start kills king at the so-manieth place of a name.
    pub fn fail_at_named(&mut self, name: &str, nth: u64) -> PathBuf {
        let log = self.evo.folder().join("places");
        self.fail_points = Some(format!("{name}@{nth}:{}", log.display()));
        log
    }

    /// Adds to `king.toml`, before the first start.
    pub fn settings(&self, more: &str) {
        self.evo.file("data/config/king.toml", &format!("{SETTINGS}{more}"));
    }

    /// Starts king by way of another program, which gets king's command line as its last arguments.
    pub fn start_through(&mut self, program: impl Into<PathBuf>, args: &[&str]) {
        self.wrapper = Some((program.into(), args.iter().map(|arg| (*arg).to_owned()).collect()));
    }

    /// Where king's data is.
    pub fn data(&self) -> PathBuf {
        self.evo.data()
    }

    /// A folder for files of the test.
    pub fn folder(&self) -> &Path {
        self.evo.folder()
    }

    /// The tokens of this king.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Starts king's process without waiting for it.
    pub fn launch(&mut self) {
        self.proxy.retarget(None);
        self.address = None;
        let mut command = self.evo.command(self.args);
        if let Some((program, args)) = &self.wrapper {
            let king = command;
            command = std::process::Command::new(program);
            command.args(args).arg(king.get_program()).args(king.get_args()).env_clear();
            for (name, value) in king.get_envs() {
                command.env(name, value.unwrap_or_default());
            }
        }
        command.env("EVO_LOG_DIR", "off").env("EVO_OTLP_ENDPOINT", "off");
        if let Some(fail_points) = self.fail_points.take() {
            command.env("EVO_FAIL_POINTS", fail_points);
        }
        self.process = Some(Process::start(command));
    }

    /// Starts king and waits until it can be reached.
    pub async fn start(&mut self) {
        self.launch();
        self.serves().await;
    }

    /// Waits until king can be reached.
    pub async fn serves(&mut self) {
        let mut rest = START.as_millis() / PAUSE.as_millis();
        while self.address.is_none() {
            self.tend();
            rest = rest.checked_sub(1).unwrap_or_else(|| panic!("no start: {}", self.log()));
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Starts king again when it was killed from inside, and finds out where it listens.
    pub fn tend(&mut self) {
        let Some(process) = &mut self.process else { return };
        if let Some(status) = process.exited() {
            use std::os::unix::process::ExitStatusExt as _;
            assert_eq!(status.signal(), Some(9), "king ended by itself: {}", process.stdout());
            self.tally.kills += 1;
            self.launch();
        } else if self.address.is_none()
            && let Some((_, rest)) = process.stdout().split_once(LISTENS)
            && let Some((address, _)) = rest.split_once(|c: char| c.is_whitespace() || c == '"')
        {
            let address: SocketAddr = address.parse().expect("an address");
            let king = King::new(&format!("http://{address}"), self.tokens.operator.expose());
            (self.address, self.http) = (Some(address), Some(king));
            self.proxy.retarget(Some(address));
        }
    }

    /// Kills king as the system would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
            self.tally.kills += 1;
        }
        self.address = None;
        self.proxy.retarget(None);
    }

    /// Ends king as an operator would, and waits for it.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        let mut process = self.process.take().expect("king runs");
        process.signal(nix::sys::signal::Signal::SIGTERM);
        process.wait(START)
    }

    /// What king has logged since its last start.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::stdout).unwrap_or_default()
    }

    /// King's process.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// One runner per stage, connected through the proxy.
    pub fn runners(&self, pause: Duration) -> Runners {
        let folder = self.evo.folder().join("agents");
        Runners::start(&self.proxy.address(), &self.tokens.runner, &folder, pause)
    }

    /// King over HTTP, past the proxy.
    pub fn king(&self) -> King {
        self.http.clone().expect("king has been started")
    }

    /// Asks until there is an answer, however often king dies meanwhile.
    pub async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> (StatusCode, Value) {
        let mut rest = PATIENCE.as_millis() / PAUSE.as_millis();
        loop {
            self.tend();
            if self.address.is_some()
                && let Some(answer) = self.king().try_send(method.clone(), path, body).await
                && !answer.0.is_server_error()
            {
                return answer;
            }
            rest = rest.checked_sub(1).unwrap_or_else(|| {
                panic!("{method} {path}: no answer within {PATIENCE:?}: {}", self.log())
            });
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until this many agents are ready.
    pub async fn agents(&mut self, ready: usize) {
        let mut rest = PATIENCE.as_millis() / PAUSE.as_millis();
        loop {
            let (_, answer) = self.ask(Method::GET, "/agents", None).await;
            let agents = answer["agents"].as_array().map_or(&[][..], Vec::as_slice);
            if agents.iter().filter(|agent| agent["status"] == "ready").count() >= ready {
                return;
            }
            rest = rest.checked_sub(1).unwrap_or_else(|| panic!("{ready} agents: {answer}"));
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until king has noticed that every agent is gone.
    pub async fn agents_gone(&mut self) {
        let mut rest = PATIENCE.as_millis() / PAUSE.as_millis();
        loop {
            let (_, answer) = self.ask(Method::GET, "/agents", None).await;
            let agents = answer["agents"].as_array().map_or(&[][..], Vec::as_slice);
            if agents.iter().all(|agent| agent["status"] == "offline") {
                return;
            }
            rest = rest.checked_sub(1).unwrap_or_else(|| panic!("still there: {answer}"));
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Starts a direct run, for certain once, and gives its id.
    pub async fn start_run(&mut self, key: &str) -> String {
        let body = json!({"kind": "direct", "idempotency_key": key, "trigger": {"key": key}});
        let (status, answer) = self.ask(Method::POST, "/pipeline/start", Some(&body)).await;
        assert!(status.is_success(), "{status} {answer}");
        let run_id = answer["run_id"].as_str().expect("a run's id").to_owned();
        self.expected.runs.insert(run_id.clone());
        run_id
    }

    /// Waits for the end of a run; gives it with its stages.
    pub async fn ended(&mut self, run_id: &str) -> Value {
        let path = format!("/pipeline/runs/{run_id}");
        let mut rest = PATIENCE.as_millis() / PAUSE.as_millis();
        loop {
            let (_, run) = self.ask(Method::GET, &path, None).await;
            if run["status"] != "running" {
                return run;
            }
            rest = rest
                .checked_sub(1)
                .unwrap_or_else(|| panic!("run {run_id} does not end: {run}\n{}", self.log()));
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A result that king has confirmed.
    pub fn confirmed(&mut self, run_id: &str, stage: &str, attempt: u64) {
        let (run_id, stage) = (run_id.to_owned(), stage.to_owned());
        self.expected.results.insert(Acknowledged { run_id, stage, attempt });
    }

    /// The event log and the runs, however often king dies meanwhile.
    pub async fn history(&mut self) -> History {
        loop {
            self.tend();
            if self.address.is_some()
                && let Some(history) = History::read(&self.king()).await
            {
                return history;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Checks the whole history and every run's stages; counts what is wrong and what has ended.
    pub async fn check(&mut self, runners: Option<&Runners>) -> Vec<String> {
        let history = self.history().await;
        let mut told = Vec::new();
        for fault in history.faults(&self.expected) {
            match fault {
                Fault::Lost(_) => self.tally.lost += 1,
                Fault::Doubled(_) => self.tally.doubled += 1,
                Fault::Disorder(_) => self.tally.disorder += 1,
            }
            told.push(fault.to_string());
        }
        for run_id in self.expected.runs.clone() {
            let (_, run) = self.ask(Method::GET, &format!("/pipeline/runs/{run_id}"), None).await;
            if run["status"] != "running" {
                self.tally.finished += 1;
            }
            if run["status"] == "completed"
                && let Some(runners) = runners
            {
                for fault in runners.ledger.faults(&run) {
                    self.tally.lost += 1;
                    told.push(format!("run {run_id}: {fault}"));
                }
            }
        }
        told
    }
}

/// Waits for a file that a process writes.
pub fn lines_of(path: &Path) -> Vec<String> {
    eventually("the file is there", START, || std::fs::read_to_string(path).ok())
        .lines()
        .map(str::to_owned)
        .collect()
}
