//! Runs attacks and controls, in the sandbox and without one.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use evo_agents::{
    sandbox::{
        Egress, Ended, Error, Folder, Isolation, Limit, Sandbox, Settings,
        interpreter::{Interpreter, Language},
        policy::{HostRule, Layer, Policy},
    },
    skill::execute::CallPolicy,
};
use evo_common::artifact::Files;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::{
    attacks::{self, Attack, LEAVES_PROCESSES, PROGRAMS},
    world::{self, VARIABLE, World},
};

/// A program that ends itself by the filter of system calls.
const SIGSYS: i32 = 31;

/// What became of an attack or a control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Blocked(String),
    Succeeded(String),
    DidNotRun(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocked(why) => write!(f, "blocked: {why}"),
            Self::Succeeded(what) => write!(f, "succeeded: {what}"),
            Self::DidNotRun(why) => write!(f, "did not run: {why}"),
        }
    }
}

/// The helper: beside this program when both were copied for another user, else where it was built.
pub(crate) fn helper() -> PathBuf {
    let beside = std::env::current_exe().unwrap().with_file_name("evo-runner");
    if beside.exists() { beside } else { env!("CARGO_BIN_EXE_evo-runner").into() }
}

/// What the attacks run with.
pub(crate) struct Bench {
    sandbox: Sandbox,
    interpreter: Interpreter,
    files: Files,
    package: Folder,
    runs: AtomicUsize,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        // The one that every user can run; those of version managers lie in somebody's home.
        let python = PathBuf::from("/usr/bin/python3");
        let settings = Settings {
            helper: Some(helper()),
            python: python.exists().then_some(python),
            path: "/usr/local/bin:/usr/bin:/bin".to_owned(),
            ..Settings::default()
        };
        let sandbox = Sandbox::new(settings);
        let interpreter = sandbox.interpreter(Language::Python3).await.unwrap();
        let mut files: Files = PROGRAMS
            .iter()
            .map(|(name, text)| (format!("{name}.py"), text.as_bytes().to_vec()))
            .collect();
        files.insert("data.txt".to_owned(), b"data".to_vec());
        let package = Folder::new(&files).unwrap();
        Self { sandbox, interpreter, files, package, runs: AtomicUsize::new(0) }
    }

    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The ways to keep code apart that work on this machine.
    pub(crate) async fn ways(&self) -> Vec<Isolation> {
        let mut ways = Vec::new();
        let all = [Isolation::Privileged, Isolation::UserNamespace, Isolation::Plain];
        for isolation in all {
            if isolation == Isolation::Privileged && !nix::unistd::geteuid().is_root() {
                continue;
            }
            let probe = Attack { module: "files", name: "read_outside" };
            let world = World::new();
            match self.run(isolation, &[], probe, "control", &world).await {
                Outcome::Succeeded(_) => ways.push(isolation),
                other => eprintln!("{} does not work here: {other}", isolation.name()),
            }
        }
        ways
    }

    fn mark(&self) -> String {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number}", std::process::id())
    }

    /// Runs a program in the sandbox, without some of its layers.
    pub(crate) async fn run(
        &self,
        isolation: Isolation,
        off: &[Layer],
        attack: Attack,
        kind: &str,
        world: &World,
    ) -> Outcome {
        let package = self.package.path().to_owned();
        let mut policy = Policy::new(self.interpreter.clone(), "main.py", package);
        let mark = self.mark();
        policy.env.insert("EVO_MARK".to_owned(), mark.clone());
        policy.off = off.to_vec();
        policy.limits = attack.limits(kind);
        let egress = attack.has_network().then(|| egress(world));
        let input = input(attack, kind, world);
        let run = self.sandbox.run_isolated(isolation, &policy, &input, egress.as_ref());
        let outcome = match run.await {
            Ok(ended) => of_ending(&ended),
            Err(Error::Limit(limit)) => of_limit(limit),
            Err(error) => Outcome::DidNotRun(error.to_string()),
        };
        with_survivors(attack, kind, &mark, outcome)
    }

    /// Runs a program as any other program of this user.
    pub(crate) async fn run_bare(&self, attack: Attack, kind: &str, world: &World) -> Outcome {
        let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
        // The one of the others would be changed.
        let package = Folder::new(&self.files).unwrap();
        let file = |name: &str| std::fs::File::create(scratch.path().join(name)).unwrap();
        let mark = self.mark();
        let mut child = tokio::process::Command::new(&self.interpreter.program)
            .args(["-E", "-s", "-B"])
            .arg(package.path().join("main.py"))
            .env_clear()
            .envs([("HOME", scratch.path()), ("TMPDIR", scratch.path())])
            .envs([("EVO_MARK", mark.as_str()), (VARIABLE, "a secret of the runner")])
            .current_dir(package.path())
            .stdin(Stdio::piped())
            .stdout(file(".stdout"))
            .stderr(file(".stderr"))
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let group = nix::unistd::Pid::from_raw(child.id().unwrap().cast_signed());
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&input(attack, kind, world)).await.unwrap();
        drop(stdin);
        let outcome = match tokio::time::timeout(Duration::from_secs(30), child.wait()).await {
            Ok(Ok(status)) => {
                let read = |name: &str| std::fs::read(scratch.path().join(name)).unwrap();
                let stderr = read(".stderr");
                of_output(status.code(), &read(".stdout"), &String::from_utf8_lossy(&stderr))
            }
            Ok(Err(error)) => Outcome::DidNotRun(error.to_string()),
            Err(_) => Outcome::DidNotRun("it did not end".to_owned()),
        };
        let outcome = with_survivors(attack, kind, &mark, outcome);
        nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).ok();
        outcome
    }
}

/// Whatever code says: what it left behind counts.
fn with_survivors(attack: Attack, kind: &str, mark: &str, said: Outcome) -> Outcome {
    let looks = kind == "attack" && LEAVES_PROCESSES.contains(&attack.name);
    if looks && world::lives(&format!("EVO_MARK={mark}")) {
        return Outcome::Succeeded("it left a process behind".to_owned());
    }
    said
}

fn input(attack: Attack, kind: &str, world: &World) -> Vec<u8> {
    let Attack { module, name } = attack;
    let parameters = world.parameters();
    let job = json!({"module": module, "name": name, "kind": kind, "parameters": parameters});
    job.to_string().into_bytes()
}

/// One server is allowed, and a name that leads inside.
fn egress(world: &World) -> Egress {
    let (allowed, named) = (world.allowed(), world.named());
    let hosts = [format!("127.0.0.1:{allowed}"), format!("localhost:{named}")];
    Egress {
        hosts: hosts.iter().map(|host| HostRule::parse(host).unwrap()).collect(),
        policy: CallPolicy {
            allow_origins: ["http", "https"]
                .map(|scheme| format!("{scheme}://127.0.0.1:{allowed}"))
                .to_vec(),
            ..CallPolicy::default()
        },
    }
}

fn of_limit(limit: Limit) -> Outcome {
    Outcome::Blocked(format!("limit {limit:?}"))
}

fn of_ending(ended: &Ended) -> Outcome {
    if let Some(limit) = ended.limit {
        return of_limit(limit);
    }
    if ended.signal == Some(SIGSYS) {
        return Outcome::Blocked("ended for its system call".to_owned());
    }
    of_output(ended.code, &ended.stdout, &ended.stderr)
}

fn of_output(code: Option<i32>, stdout: &[u8], stderr: &str) -> Outcome {
    // An attack may write something itself before it is told what became of it.
    let text = String::from_utf8_lossy(stdout);
    let start = text.rfind("{\"outcome\"").unwrap_or(text.len());
    let said: Option<Value> = serde_json::from_str(&text[start..]).ok();
    let detail = |said: &Value| said["detail"].as_str().unwrap_or_default().to_owned();
    match said.as_ref().map(|said| (said["outcome"].as_str(), detail(said))) {
        Some((Some("blocked"), detail)) => Outcome::Blocked(detail),
        Some((Some("succeeded"), detail)) => Outcome::Succeeded(detail),
        _ => {
            let end: String = stderr.trim().lines().rev().take(3).collect::<Vec<_>>().join(" / ");
            Outcome::DidNotRun(format!("exit code {code:?}: {end}"))
        }
    }
}

#[tokio::test]
async fn every_attack_is_blocked_and_every_control_works() {
    let bench = Bench::new().await;
    let ways = bench.ways().await;
    assert!(!ways.is_empty(), "no sandbox works here: {}", bench.sandbox().probe().await.summary());
    for isolation in ways {
        let mut world = World::new();
        let failures = failures(&bench, isolation, &world).await;
        assert!(failures.is_empty(), "{}:\n{}", isolation.name(), failures.join("\n"));
        assert_eq!(world.damage(), None, "{}", isolation.name());
    }
}

async fn failures(bench: &Bench, isolation: Isolation, world: &World) -> Vec<String> {
    // An open file of the runner that its children inherit.
    let open = std::fs::File::open(world.secret()).unwrap();
    rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).unwrap();
    let has_network = isolation != Isolation::Plain;
    let attacks = attacks::all().into_iter().filter(|attack| has_network || !attack.has_network());
    let programs = attacks.flat_map(|attack| [(attack, "attack"), (attack, "control")]);
    // Where the user's other processes count too, one bomb would hit its neighbours.
    let at_once = if has_network { 3 } else { 1 };
    stream::iter(programs)
        .map(async |(attack, kind)| {
            let outcome = bench.run(isolation, &[], attack, kind, world).await;
            let is_right = matches!(
                (kind, &outcome),
                ("attack", Outcome::Blocked(_)) | ("control", Outcome::Succeeded(_))
            );
            let Attack { module, name } = attack;
            (!is_right).then(|| format!("{kind} {module}/{name} {outcome}"))
        })
        .buffer_unordered(at_once)
        .filter_map(async |failure| failure)
        .collect()
        .await
}

#[tokio::test]
async fn without_a_sandbox_the_same_attacks_succeed() {
    let bench = Bench::new().await;
    let is_root = nix::unistd::geteuid().is_root();
    let (mut succeeded, mut failures) = (0, Vec::new());
    for attack in attacks::all() {
        if attack.has_network() || ["write_interpreter", "kill_parent"].contains(&attack.name) {
            continue;
        }
        // Each has a world of its own: the others' targets are gone.
        let world = World::new();
        let outcome = bench.run_bare(attack, "attack", &world).await;
        succeeded += usize::from(matches!(outcome, Outcome::Succeeded(_)));
        if attack.succeeds_bare(is_root) && !matches!(outcome, Outcome::Succeeded(_)) {
            failures.push(format!("{}/{} {outcome}", attack.module, attack.name));
        }
    }
    assert!(failures.is_empty(), "these are no attacks:\n{}", failures.join("\n"));
    assert!(succeeded >= 40, "only {succeeded} attacks succeed without a sandbox");
}

#[tokio::test]
async fn without_namespaces_there_is_no_network_at_all() {
    let bench = Bench::new().await;
    let world = World::new();
    let attack = Attack { module: "network", name: "proxy_other_port" };
    let outcome = bench.run(Isolation::Plain, &[], attack, "control", &world).await;
    let Outcome::DidNotRun(reason) = outcome else { panic!("{outcome}") };
    assert!(reason.contains("network namespace"), "{reason}");
}

#[tokio::test]
async fn a_probe_tells_the_layers_and_a_missing_helper_runs_nothing() {
    let bench = Bench::new().await;
    let report = bench.sandbox().probe().await;
    assert!(report.usable, "{report:?}");
    let active = |name: &str| report.layers.iter().any(|layer| layer.name == name && layer.active);
    assert!(active("seccomp") && active("no_new_privileges") && active("resource_limits"));
    assert!(active("landlock") || active("private_root"));

    let sandbox = Sandbox::new(Settings {
        helper: Some(Path::new("/nowhere/evo").to_owned()),
        path: "/usr/bin".to_owned(),
        ..Settings::default()
    });
    let report = sandbox.probe().await;
    assert!(!report.usable);
    assert!(report.summary().contains("refused"), "{}", report.summary());
}
