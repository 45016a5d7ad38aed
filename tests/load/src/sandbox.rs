//! What the sandbox of skills' code adds to starting an interpreter.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use evo_agents::sandbox::{
    Folder, Sandbox, Settings,
    interpreter::{Interpreter, Language},
    policy::Policy,
};
use evo_common::artifact::Files;
use tokio::{io::AsyncWriteExt as _, time::Instant};

use crate::{cli::SandboxArgs, machine, scenario::Scenario, stats::Latencies, stop::Stop};

/// Takes JSON and gives JSON, as every skill does.
const PROGRAM: &str =
    "import json, sys\nprint(json.dumps({'sum': sum(json.load(sys.stdin)['numbers'])}))\n";
const INPUT: &[u8] = b"{\"numbers\": [1, 2, 3]}";
const OUTPUT: &[u8] = b"{\"sum\": 6}";
/// Runs of both before it counts.
const WARM_UP: usize = 5;

/// Measures both in turn, so that whatever else happens on the machine hits both.
pub fn run(
    args: &SandboxArgs,
    stop: &Stop,
    mut tell: impl FnMut(&Scenario) -> Result<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for scenario in runtime.block_on(measure(args, stop))? {
        tell(&scenario)?;
    }
    Ok(())
}

async fn measure(args: &SandboxArgs, stop: &Stop) -> Result<[Scenario; 2]> {
    let helper = find_helper(args.binary.as_deref())?;
    let settings =
        Settings { helper: Some(helper), ..Settings::load(&evo_agents::config::environment) };
    let sandbox = Sandbox::new(settings);
    let report = sandbox.probe().await;
    ensure!(report.usable, "{}", report.summary());
    let interpreter = sandbox.interpreter(Language::Python3).await?;
    let files = Files::from([("main.py".to_owned(), PROGRAM.as_bytes().to_vec())]);

    let [load, ..] = machine::load_average();
    let (mut bare, mut sandboxed) = (Latencies::default(), Latencies::default());
    for round in 0..WARM_UP + args.runs() {
        stop.check()?;
        let plain = spawn(&interpreter, &files).await?;
        let inside = execute(&sandbox, &interpreter, &files).await?;
        if round >= WARM_UP {
            bare.record(plain);
            sandboxed.record(inside);
        }
    }
    let scenario = |name: &str, latencies: &Latencies| -> Result<Scenario> {
        let mut scenario = Scenario { scenario: name.to_owned(), load, ..Scenario::default() };
        scenario.size = usize::try_from(latencies.len())?;
        scenario.p50_ms = latencies.quantile_ms(0.5);
        scenario.p99_ms = latencies.quantile_ms(0.99);
        scenario.ops_per_s = 1_000.0 / scenario.p50_ms;
        scenario.more.insert("p95_ms", latencies.quantile_ms(0.95));
        Ok(scenario)
    };
    let plain = scenario("sandbox: bare spawn", &bare)?;
    let name = report.isolation.map_or("", |isolation| isolation.name());
    let mut inside = scenario(&format!("sandbox: {name}"), &sandboxed)?;
    for (key, quantile) in [("added_p50_ms", 0.5), ("added_p95_ms", 0.95)] {
        let added = sandboxed.quantile_ms(quantile) - bare.quantile_ms(quantile);
        inside.more.insert(key, added);
    }
    inside.more.insert("ratio_to_bare_p50", inside.p50_ms / plain.p50_ms);
    inside.more.insert("ratio_to_bare_p95", inside.more["p95_ms"] / plain.more["p95_ms"]);
    Ok([plain, inside])
}

/// The same program with the same files, without anything around it.
async fn spawn(interpreter: &Interpreter, files: &Files) -> Result<Duration> {
    let started = Instant::now();
    let folder = Folder::new(files)?;
    let mut child = tokio::process::Command::new(&interpreter.program)
        .args(&interpreter.arguments)
        .arg(folder.path().join("main.py"))
        .env_clear()
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("the input is missing")?;
    stdin.write_all(INPUT).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let elapsed = started.elapsed();
    ensure!(output.stdout.trim_ascii() == OUTPUT, "the program answered something else");
    Ok(elapsed)
}

async fn execute(sandbox: &Sandbox, interpreter: &Interpreter, files: &Files) -> Result<Duration> {
    let started = Instant::now();
    let folder = Folder::new(files)?;
    let policy = Policy::new(interpreter.clone(), "main.py", folder.path().to_owned());
    let ended = sandbox.run(&policy, INPUT, None).await?;
    let elapsed = started.elapsed();
    ensure!(ended.stdout.trim_ascii() == OUTPUT, "the code answered something else: {ended:?}");
    Ok(elapsed)
}

/// The program that is its own helper: the one given, else `evo-runner` or `evo` beside this one.
fn find_helper(given: Option<&Path>) -> Result<PathBuf> {
    let this = std::env::current_exe().context("the path of evo-load")?;
    let candidates = match given {
        Some(path) => vec![path.to_owned()],
        None => ["evo-runner", "evo"].map(|name| this.with_file_name(name)).to_vec(),
    };
    let found = candidates.into_iter().find(|path| path.is_file());
    found.context("no evo-runner beside evo-load: build it, or name another with --binary FILE")
}
