//! The command line.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};

use crate::{
    bench, chaos, child, evolve, gate, king, machine, sandbox, scan, scenario::Scenario,
    stop::Stop, targets::Kind, translate, upstream,
};

/// Measures Evo's services under load. Linux only.
#[derive(Debug, Parser)]
#[command(name = "evo-load", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Gateway(GatewayArgs),
    King(KingArgs),
    Chaos(ChaosArgs),
    Convert(ConvertArgs),
    Scan(ScanArgs),
    Sandbox(SandboxArgs),
    Gate(GateArgs),
    Evolve(EvolveArgs),
    Upstream(UpstreamArgs),
    /// Becomes PROGRAM, which ends when its parent ends.
    #[command(hide = true)]
    Child {
        #[arg(last = true, required = true)]
        program: Vec<OsString>,
    },
}

/// Measures evo-gateway beside nginx and beside no proxy at all, on loopback.
///
/// Every round starts a mock provider, nginx (two workers, connections kept open) and evo-gateway
/// (keys with limits and budgets, log and usage on) afresh and measures them one after the other: requests per second
/// at 64 connections, latency at fixed rates of 200 and 1000 per second, chunks per second of 50
/// streams, first chunk and gaps of 500 streams paced at 20 ms, processor time per request, and
/// memory. Nothing is asserted. It ends every process that it starts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo build --release -p evo-gateway && cargo run --release -p evo-load -- gateway
  evo-load gateway --json >figures.json      the table goes to standard error
  evo-load gateway --quick                   does it run at all; the figures mean little
  evo-load gateway --binary target/release/evo --rounds 5 --seconds 10
  evo-load gateway --targets direct,nginx    without the gateway
  evo-load gateway --targets direct,nginx,nginx-log,gateway   nginx with an access log as well

Exit codes: 0 all was measured, 1 it failed, 2 wrong arguments, 3 nginx is not installed and was
left out, 4 some requests failed (the table says what happened first), 130 interrupted.")]
pub struct GatewayArgs {
    /// Writes one JSON object per scenario to standard output; the table goes to standard error.
    #[arg(long)]
    json: bool,
    /// Rounds; figures are the median over them [default: 3].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Counted seconds of each measurement [default: 5].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: Option<u16>,
    /// One round of one second, to see that everything works.
    #[arg(long)]
    quick: bool,
    /// The gateway: evo-gateway or evo [default: beside this program].
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// What to measure; `direct` always is.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "LIST",
        default_value = "direct,nginx,gateway"
    )]
    pub targets: Vec<Kind>,
}

impl GatewayArgs {
    /// How many rounds.
    pub fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 }).into()
    }

    /// How long each measurement counts.
    pub fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 1 } else { 5 }).into()
    }
}

/// Measures evo-king: durable runs of five stages, over real Socket.IO runners that do nothing.
///
/// Every scenario starts king on an empty folder and connects the runners over websockets, the five
/// roles in turn. A run is started with `POST /pipeline/start`, and its end is king's answer to its
/// last stage's result, which king gives after the commit: that time is its latency. Afterwards
/// king's event log is read: each run must have ended once, with five stages applied once. What the
/// machine itself can do (fsync'd commits, loopback websockets) is measured first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo build --release -p evo-king && cargo run --release -p evo-load -- king
  evo-load king --runs 5000 --concurrency 64 --runners 20 --json
  evo-load king --crash                      kill -9 with 400 runs in flight, and start again
  evo-load king --idle 1000                  1000 idle runners, 100 runs a second for a minute
  evo-load king --quick                      does it run at all; the figures mean little

Exit codes: 0 all was measured, 1 it failed, 2 wrong arguments, 4 a run failed, was lost or was
applied twice (the output says how many), 130 interrupted.")]
pub struct KingArgs {
    /// Runs of each scenario [default: 5000].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Runs at the same time, one scenario for each number [default: 1,16,64,256].
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        value_parser = clap::value_parser!(u16).range(1..=4096)
    )]
    concurrency: Vec<u16>,
    /// Connected runners, at least one of each of the five roles.
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = runners)]
    pub runners: usize,
    /// Instead: kills king with 400 runs in flight and starts it again.
    #[arg(long)]
    pub crash: bool,
    /// Instead: so many runners for a minute, with 100 runs a second through them.
    #[arg(long, value_name = "RUNNERS", value_parser = runners)]
    pub idle: Option<usize>,
    /// How long the idle scenario takes; its JSON has king's memory every ten seconds [default: 60].
    #[arg(long, value_name = "SECONDS", requires = "idle",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// Writes one JSON object per scenario to standard output; the text goes to standard error.
    #[arg(long)]
    json: bool,
    /// Few runs and short scenarios, to see that everything works.
    #[arg(long)]
    pub quick: bool,
    /// King: evo-king or evo [default: beside this program].
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
}

impl KingArgs {
    /// How many runs a scenario has.
    pub fn runs(&self) -> usize {
        self.runs.map_or(if self.quick { 200 } else { 5_000 }, |runs| runs as usize)
    }

    /// How many seconds the idle scenario takes.
    pub fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(if self.quick { 3 } else { 60 })
    }

    /// How many runs at the same time, scenario by scenario.
    pub fn concurrency(&self) -> Vec<usize> {
        match self.concurrency.as_slice() {
            [] => vec![1, 16, 64, 256],
            wanted => wanted.iter().map(|number| usize::from(*number)).collect(),
        }
    }
}

/// Kills king at random moments while people start runs and runners of the SDK work, and starts it
/// again each time.
///
/// Afterwards king's whole event log is checked: every run that was confirmed has ended, its stages
/// are in order, and each has one applied result. The latencies told are those of king's starts: from
/// the start of its process until it serves, over a database that was left by kill -9.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo build --release -p evo-king && cargo run --release -p evo-load -- chaos --kills 200 --json
  evo-load chaos --kills 20 --seed 7 --binary target/debug/evo

Exit codes: 0 nothing was lost or doubled, 1 it failed, 2 wrong arguments, 4 a run was lost or
applied twice (the output says how many).")]
pub struct ChaosArgs {
    /// How often king is killed.
    #[arg(long, value_name = "NUMBER", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    pub kills: u64,
    /// Chooses the moments.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Writes one JSON object to standard output; the text goes to standard error.
    #[arg(long)]
    json: bool,
    /// King: evo-king or evo [default: beside this program].
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
}

/// Measures what the gateway's translations between protocols cost, on one thread and without any
/// network.
///
/// For every pair of a caller's and a provider's protocol: a request of 10 kB (turns, tools, calls and
/// their results), a whole answer of 10 kB, and a stream of 100 events. Beside them stands what it takes
/// to read the same document into a tree and write it again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo run --release -p evo-load -- convert --json
  evo-load convert --quick                   does it run at all; the figures mean little

Exit codes: 0 all was measured, 1 it failed, 2 wrong arguments, 4 a translation failed, 130 interrupted.")]
pub struct ConvertArgs {
    /// Seconds of each measurement [default: 1].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: Option<u16>,
    /// Short measurements, to see that everything works.
    #[arg(long)]
    quick: bool,
    /// Writes one JSON object per scenario to standard output; the text goes to standard error.
    #[arg(long)]
    json: bool,
}

impl ConvertArgs {
    /// How long each measurement takes.
    pub fn length(&self) -> Duration {
        let short = Duration::from_millis(if self.quick { 50 } else { 1_000 });
        self.seconds.map_or(short, |seconds| Duration::from_secs(seconds.into()))
    }
}

/// Scans every skill below a folder as Pre-load does, and measures what it costs.
///
/// A skill is a folder with a SKILL.md or a manifest.toml. Counted are the reading of its files and the
/// scan; a skill is flagged when it has a finding of severity high. Links are not followed, nothing is
/// executed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo run --release -p evo-load -- scan ~/.claude/skills --json
  evo-load scan skills --list                every finding, a line each, on standard error
  evo-load scan skills --rounds 10           the same skills ten times, for steadier figures

Exit codes: 0 all was scanned, 1 it failed, 2 wrong arguments, 4 a skill could not be read, 130 interrupted.")]
pub struct ScanArgs {
    /// Where the skills are.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Threads [default: one for each processor].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// How often all skills are scanned [default: 1].
    #[arg(long, value_name = "NUMBER", value_parser = rounds)]
    pub rounds: Option<usize>,
    /// Tells every finding on standard error.
    #[arg(long)]
    pub list: bool,
    /// Writes one JSON object to standard output; the text goes to standard error.
    #[arg(long)]
    json: bool,
}

impl ScanArgs {
    /// How many threads scan.
    pub fn threads(&self) -> usize {
        self.threads.map_or_else(machine::cores, usize::from)
    }
}

fn rounds(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=10_000) => Ok(number),
        _ => Err("use a number from 1 to 10000".to_owned()),
    }
}

/// Measures what the sandbox of skills' code adds to starting Python.
///
/// The same small program is run with and without the sandbox in turn, from writing its files to
/// reading its whole output.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo build --release -p evo-agents && cargo run --release -p evo-load -- sandbox --json
  evo-load sandbox --quick                   does it run at all; the figures mean little

Exit codes: 0 all was measured, 1 it failed, 2 wrong arguments, 130 interrupted.")]
pub struct SandboxArgs {
    /// Runs of each [default: 200].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    runs: Option<u16>,
    /// Few runs, to see that everything works.
    #[arg(long)]
    quick: bool,
    /// The helper: evo-runner or evo [default: beside this program].
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Writes one JSON object per scenario to standard output; the text goes to standard error.
    #[arg(long)]
    json: bool,
}

impl SandboxArgs {
    /// How many runs.
    pub fn runs(&self) -> usize {
        self.runs.unwrap_or(if self.quick { 5 } else { 200 }).into()
    }
}

/// Measures how often the gate is wrong: skills that work, and skills that are wrong in a known way,
/// go through the real stages and king's real decision.
///
/// The skills are those of httpbin, Jupyter and Evo itself (`real`), of the documents of
/// `@readme/oas-examples` behind Prism (`mock`), and code made from examples (`code`). What is needed
/// from PyPI and npm is installed once below the target folder. Mutants that answer as the right skill
/// does are found by calling both, told, and not counted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo build --release -p evo -p evo-agents && cargo run --release -p evo-load -- gate --seed 1 --json
  evo-load gate --quick                      a few skills of each server; the figures mean little
  evo-load gate --mock 0                     without npm

Exit codes: 0 every goal is met, 1 it failed, 2 wrong arguments, 4 a goal is missed (the output says
which), 130 interrupted.")]
pub struct GateArgs {
    /// Chooses the mutants, and the documents of the mock.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Most skills of one real server [default: all].
    #[arg(long, value_name = "NUMBER")]
    real: Option<usize>,
    /// Most skills of mocked documents [default: 180].
    #[arg(long, value_name = "NUMBER")]
    mock: Option<usize>,
    /// Skills with code [default: 20].
    #[arg(long, value_name = "NUMBER")]
    code: Option<usize>,
    /// Candidates that are judged at the same time.
    #[arg(long, value_name = "NUMBER", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// A few skills of each kind, to see that everything works.
    #[arg(long)]
    quick: bool,
    /// Only these real servers: httpbin, jupyter, kinto, evo-king, evo-gateway.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    only: Vec<String>,
    /// Tells every operation that is left out, and why.
    #[arg(long)]
    pub verbose: bool,
    /// Without Evo's own documents.
    #[arg(long)]
    pub no_evo: bool,
    /// The program `evo` [default: beside this program].
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Writes one JSON object to standard output; the text goes to standard error.
    #[arg(long)]
    json: bool,
}

impl GateArgs {
    /// Whether a real server is to be measured.
    pub fn wants(&self, server: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == server)
    }

    /// Most skills of one real server.
    pub fn real(&self) -> usize {
        self.real.unwrap_or(if self.quick { 6 } else { usize::MAX })
    }

    /// Most skills of mocked documents.
    pub fn mock(&self) -> usize {
        self.mock.unwrap_or(if self.quick { 10 } else { 180 })
    }

    /// Skills with code.
    pub fn code(&self) -> usize {
        self.code.unwrap_or(if self.quick { 3 } else { 20 })
    }

    /// Candidates at the same time.
    pub fn jobs(&self) -> usize {
        self.jobs.into()
    }
}

/// Shows whether the search for better variants of skills finds any, without a model.
///
/// Skills that work are made from the documents of running servers (httpbin, Jupyter, Evo itself), and
/// broken: one fault, several, several with renamed inputs, and variants written from the description
/// alone. Each start is searched from by selection and by chance with the same number of calls. What
/// is told is how many held-out cases the best variant passes, which no search has seen.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo build --release -p evo && cargo run --release -p evo-load -- evolve --json
  evo-load evolve --plot docs/evolve.svg     the curves as a picture
  evo-load evolve --quick                    does it run at all; the figures mean little

Exit codes: 0 all was measured, 1 it failed, 2 wrong arguments, 4 a search could not be made, 130 interrupted.")]
pub struct EvolveArgs {
    /// Most skills, as many of each server as there can be [default: 60].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    skills: Option<u16>,
    /// Calls of each search [default: 150].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    calls: Option<u32>,
    /// Searches from each start, each with a seed of its own [default: 3].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    seeds: Option<u16>,
    /// Chooses the faults, and where the searches' seeds begin.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Also searches with operators that failures do not suggest, to see what that is worth.
    #[arg(long)]
    pub blind: bool,
    /// Few skills and calls, to see that everything works.
    #[arg(long)]
    quick: bool,
    /// Writes the curves as an SVG file.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Evo, as a server whose skills are broken [default: beside this program; without it they are left out].
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Writes one JSON object per strategy to standard output; the text goes to standard error.
    #[arg(long)]
    json: bool,
}

impl EvolveArgs {
    /// How many skills at most.
    pub fn skills(&self) -> usize {
        self.skills.unwrap_or(if self.quick { 6 } else { 60 }).into()
    }

    /// How many calls a search may make.
    pub fn calls(&self) -> u32 {
        self.calls.unwrap_or(if self.quick { 40 } else { 150 })
    }

    /// How many searches are made from each start.
    pub fn seeds(&self) -> u64 {
        self.seeds.unwrap_or(if self.quick { 1 } else { 3 }).into()
    }
}

fn runners(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 5..=10_000) => Ok(number),
        _ => Err("use a number from 5 (one for each role) to 10000".to_owned()),
    }
}

/// Serves the mock provider alone, for measurements by other programs.
///
/// It answers every request at once with the same chat completion; the model `stream-100-20` is
/// answered with 100 chunks, 20 ms apart.
#[derive(Debug, Args)]
#[command(after_help = "Example: evo-load upstream --listen 127.0.0.1:9000")]
struct UpstreamArgs {
    /// Where to listen; port 0 takes a free one. The address is printed.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

/// Does what the command line says.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Gateway(args) => gateway(&args),
        Command::King(args) => king(&args),
        Command::Chaos(args) => chaos(&args),
        Command::Convert(args) => convert(&args),
        Command::Sandbox(args) => sandbox(&args),
        Command::Scan(args) => scan(&args),
        Command::Evolve(args) => evolve(&args),
        Command::Gate(args) => gate(&args),
        Command::Upstream(args) => upstream::serve(args.listen).map(|()| ExitCode::SUCCESS),
        Command::Child { program } => Err(child::become_child(&program)),
    }
}

fn gateway(args: &GatewayArgs) -> Result<ExitCode> {
    let stop = Stop::on_signals().context("can't listen for signals")?;
    let report = bench::run(args, &stop)?;
    if args.json {
        say(&report.table());
        for scenario in report.scenarios() {
            write_json(&scenario)?;
        }
    } else {
        writeln!(io::stdout(), "{}", report.table()).context("standard output")?;
    }
    Ok(if !report.failures.is_empty() {
        ExitCode::from(4)
    } else if report.missing.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(3)
    })
}

fn king(args: &KingArgs) -> Result<ExitCode> {
    let stop = Stop::on_signals().context("can't listen for signals")?;
    let mut clean = true;
    king::run(args, &stop, |scenario| {
        clean &= scenario.is_clean();
        tell(scenario, args.json)
    })?;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::from(4) })
}

fn convert(args: &ConvertArgs) -> Result<ExitCode> {
    let stop = Stop::on_signals().context("can't listen for signals")?;
    let mut clean = true;
    translate::run(args, &stop, |scenario| {
        clean &= scenario.is_clean();
        tell(scenario, args.json)
    })?;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::from(4) })
}

fn scan(args: &ScanArgs) -> Result<ExitCode> {
    let stop = Stop::on_signals().context("can't listen for signals")?;
    let scenario = scan::run(args, &stop)?;
    tell(&scenario, args.json)?;
    Ok(if scenario.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(4) })
}

fn evolve(args: &EvolveArgs) -> Result<ExitCode> {
    let stop = Stop::on_signals().context("can't listen for signals")?;
    let mut clean = true;
    evolve::run(args, &stop, |scenario| {
        clean &= scenario.is_clean();
        tell(scenario, args.json)
    })?;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::from(4) })
}

fn sandbox(args: &SandboxArgs) -> Result<ExitCode> {
    let stop = Stop::on_signals().context("can't listen for signals")?;
    sandbox::run(args, &stop, |scenario| tell(scenario, args.json))?;
    Ok(ExitCode::SUCCESS)
}

fn gate(args: &GateArgs) -> Result<ExitCode> {
    let stop = Stop::on_signals().context("can't listen for signals")?;
    let report = gate::run(args, &stop)?;
    if args.json {
        say(&report.text());
        let mut stdout = io::stdout().lock();
        serde_json::to_writer(&mut stdout, &report).context("standard output")?;
        writeln!(stdout).context("standard output")?;
    } else {
        writeln!(io::stdout(), "{}", report.text()).context("standard output")?;
    }
    Ok(if report.is_met() { ExitCode::SUCCESS } else { ExitCode::from(4) })
}

fn chaos(args: &ChaosArgs) -> Result<ExitCode> {
    let scenario = chaos::run(args)?;
    tell(&scenario, args.json)?;
    Ok(if scenario.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(4) })
}

fn tell(scenario: &Scenario, json: bool) -> Result<()> {
    if json {
        say(&scenario.text());
        write_json(scenario)
    } else {
        writeln!(io::stdout(), "{}", scenario.text()).context("standard output")
    }
}

/// One object, on a line of its own.
fn write_json(scenario: &Scenario) -> Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, scenario).context("standard output")?;
    writeln!(stdout).context("standard output")
}

/// Tells people what goes on.
pub fn say(text: &str) {
    // Nobody is left to tell when standard error is closed.
    writeln!(io::stderr(), "{text}").ok();
}
