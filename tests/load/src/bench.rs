//! One run: rounds in which each measurement is made on one target after the other, so that what
//! else goes on on the machine falls on all of them.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::time::Instant;

use crate::{
    cli::{self, GatewayArgs},
    load::{self, Plan, Streams},
    machine::{self, Machine},
    proc::{self, Memory},
    report::{Figures, Missing, Report, Settings, TargetReport, goals, ratios},
    stop::Stop,
    targets::{Kind, Program, Target, Upstream, find_gateway, find_nginx},
    upstream::ANSWER,
};

const SATURATION_CONNECTIONS: usize = 64;
const RATE_CONNECTIONS: usize = 32;
const BURST_STREAMS: usize = 50;
const PACED_STREAMS: usize = 500;
const CHUNKS: u32 = 100;
const PACE: Duration = Duration::from_millis(20);
/// Idle memory is read this long after the first answer.
const SETTLE: Duration = Duration::from_millis(500);
/// Bound of the paced streams, which take as long as they take.
const PACED_PATIENCE: Duration = Duration::from_secs(60);

/// Runs the whole benchmark.
pub fn run(args: &GatewayArgs, stop: &Stop) -> Result<Report> {
    allow_many_files()?;
    let mut missing = Vec::new();
    let programs = find(args, &mut missing)?;
    let folder = tempfile::Builder::new().prefix("evo-load-").tempdir()?;
    let length = Duration::from_secs_f64(args.seconds());
    let mut run = Run {
        stop,
        length,
        figures: BTreeMap::new(),
        failures: BTreeMap::new(),
        output: folder.path().to_owned(),
    };
    let machine = Machine::look();
    let started_at_unix = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let rounds = args.rounds();
    let mut load_averages = Vec::new();
    for round in 0..rounds {
        let [load, ..] = machine::load_average();
        load_averages.push(load);
        cli::say(&format!("round {}/{rounds}, load average {load:.2}", round + 1));
        run.round(round, &programs)?;
    }
    let targets: Vec<TargetReport> = run
        .figures
        .into_iter()
        .map(|(kind, rounds)| {
            let version = programs.iter().find(|(known, _)| *known == kind);
            let version = version.and_then(|(_, program)| program.as_ref());
            let version = version.map_or_else(
                || "the mock upstream itself".to_owned(),
                |program| format!("{} ({})", program.version, program.path.display()),
            );
            TargetReport::new(kind, version, rounds)
        })
        .collect();
    let gateway_to_nginx = ratios(&targets);
    Ok(Report {
        benchmark: "gateway",
        started_at_unix,
        machine,
        settings: Settings {
            rounds,
            seconds: args.seconds(),
            saturation_connections: SATURATION_CONNECTIONS,
            rate_connections: RATE_CONNECTIONS,
            burst_streams: BURST_STREAMS,
            paced_streams: PACED_STREAMS,
            chunks_per_stream: CHUNKS,
            pace_ms: u64::try_from(PACE.as_millis())?,
            request_bytes: load::request_bytes(),
            answer_bytes: ANSWER.len(),
        },
        load_average_before_rounds: load_averages,
        goals: goals(&targets, &gateway_to_nginx),
        targets,
        gateway_to_nginx,
        missing,
        failures: run.failures,
    })
}

/// The wanted targets that there are, each with its program.
fn find(args: &GatewayArgs, missing: &mut Vec<Missing>) -> Result<Vec<(Kind, Option<Program>)>> {
    let mut found = Vec::new();
    // `direct` is always measured: the others are told by what they add to it.
    found.push((Kind::Direct, None));
    if args.targets.contains(&Kind::Nginx) {
        match find_nginx() {
            Some(program) => found.push((Kind::Nginx, Some(program))),
            None => {
                let reason = "there is no nginx on this machine; install it with `apt-get install \
                              nginx-light`, `dnf install nginx` or `brew install nginx` (it need \
                              not run as a service: this program starts its own)";
                cli::say(&format!("nginx is left out: {reason}"));
                missing.push(Missing { target: Kind::Nginx, reason: reason.to_owned() });
            }
        }
    }
    if args.targets.contains(&Kind::Gateway) {
        found.push((Kind::Gateway, Some(find_gateway(args.binary.as_deref())?)));
    }
    Ok(found)
}

/// 500 streams need a thousand connections in a proxy; children inherit this.
pub fn allow_many_files() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard).context("the limit of open files")
}

/// Processor time at one moment.
struct Snapshot {
    target: Duration,
    /// What the load generator, the upstream and the target used together.
    own: Duration,
    machine: Duration,
    at: Instant,
}

impl Snapshot {
    fn take(target: &Target, upstream: &Upstream) -> Result<Self> {
        let of_target = target.processor_time()?;
        Ok(Self {
            target: of_target,
            own: of_target + upstream.processor_time()? + proc::own_processor_time()?,
            machine: proc::machine_processor_time()?,
            at: Instant::now(),
        })
    }
}

/// What was used between two moments.
struct Usage {
    target: Duration,
    /// Share of all processors that went to programs that are no part of this run, in percent.
    others_percent: f64,
    elapsed: Duration,
}

impl Usage {
    fn between((from, to): (Result<Snapshot>, Result<Snapshot>)) -> Result<Self> {
        let (from, to) = (from?, to?);
        let elapsed = to.at - from.at;
        let own = to.own.saturating_sub(from.own);
        let others = to.machine.saturating_sub(from.machine).saturating_sub(own);
        let all = elapsed.as_secs_f64() * machine::cores() as f64;
        Ok(Self {
            target: to.target.saturating_sub(from.target),
            others_percent: others.as_secs_f64() / all * 100.0,
            elapsed,
        })
    }

    /// Processor time of the target for each of so many things per second. By rates, because the
    /// two moments come late on a busy machine, and the counting does not.
    fn microseconds_per(&self, per_second: f64) -> f64 {
        self.target.as_secs_f64() * 1e6 / self.elapsed.as_secs_f64() / per_second
    }
}

/// The measurements, in order.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Saturation,
    Rate(u32),
    Burst,
    Paced,
}

/// The paced streams come first: what they cost in memory is told of a process that did nothing yet.
const PHASES: [Phase; 5] =
    [Phase::Paced, Phase::Saturation, Phase::Rate(200), Phase::Rate(1_000), Phase::Burst];

/// The figures of a target in one round, and what they are not yet.
#[derive(Debug, Default)]
struct Collected {
    figures: Figures,
    failed: u64,
    answered: u64,
    others: Vec<f64>,
}

struct Run<'a> {
    stop: &'a Stop,
    length: Duration,
    figures: BTreeMap<Kind, Vec<Figures>>,
    failures: BTreeMap<&'static str, String>,
    output: PathBuf,
}

impl Run<'_> {
    /// Starts everything afresh, measures, and ends everything.
    fn round(&mut self, number: usize, programs: &[(Kind, Option<Program>)]) -> Result<()> {
        self.stop.check()?;
        let upstream = Upstream::start(&self.output)?;
        let mut targets = Vec::new();
        for (kind, program) in programs {
            let target = match (kind, program) {
                (Kind::Nginx, Some(program)) => Target::nginx(program, &upstream)?,
                (Kind::Gateway, Some(program)) => Target::gateway(program, &upstream)?,
                _ => Target::direct(&upstream)?,
            };
            targets.push((target, Collected::default()));
        }
        std::thread::sleep(SETTLE);
        for (target, collected) in &mut targets {
            if let Some(pid) = target.pid() {
                collected.figures.insert("memory_idle_mib", proc::memory(pid, Memory::Now)?);
            }
        }
        // Another one begins in each round.
        let first = number % targets.len();
        targets.rotate_left(first);
        for phase in PHASES {
            for (target, collected) in &mut targets {
                let told = self
                    .measure(phase, target, &upstream, collected)
                    .with_context(|| target.name_and_output())?;
                target.check()?;
                // What was measured before a signal is no figure.
                self.stop.check()?;
                cli::say(&format!("  {}: {told}", target.kind.name()));
            }
        }
        self.keep(targets)
    }

    fn keep(&mut self, targets: Vec<(Target, Collected)>) -> Result<()> {
        let mut direct = Figures::new();
        let mut all = BTreeMap::new();
        for (target, collected) in targets {
            let Collected { mut figures, failed, answered, others } = collected;
            figures.insert("failed", failed as f64);
            figures.insert("others_cpu_percent", others.iter().sum::<f64>() / others.len() as f64);
            if let Some(pid) = target.pid() {
                figures.insert("memory_peak_mib", proc::memory(pid, Memory::Peak)?);
            }
            if target.kind == Kind::Gateway {
                let bytes = target.logged_bytes()? as f64;
                figures.insert("log_bytes_per_request", bytes / answered as f64);
            }
            if target.kind == Kind::Direct {
                direct = figures.clone();
            }
            all.insert(target.kind, figures);
        }
        for (kind, mut figures) in all {
            if kind != Kind::Direct {
                compare(&mut figures, &direct);
            }
            self.figures.entry(kind).or_default().push(figures);
        }
        Ok(())
    }

    /// Makes one measurement and says in short what came out.
    fn measure(
        &mut self,
        phase: Phase,
        target: &Target,
        upstream: &Upstream,
        collected: &mut Collected,
    ) -> Result<String> {
        let plan = |connections| Plan { length: self.length, connections, stop: self.stop.clone() };
        let snapshot = || Snapshot::take(target, upstream);
        let figures = &mut collected.figures;
        let (told, totals, others) = match phase {
            Phase::Saturation => {
                let call = target.call("chat", false)?;
                let (totals, ends) = load::closed(&call, &plan(SATURATION_CONNECTIONS), snapshot)?;
                let usage = Usage::between(ends)?;
                let rate = totals.answered as f64 / self.length.as_secs_f64();
                figures.insert("requests_per_second", rate);
                figures.insert("saturation_p50_ms", totals.latencies.quantile_ms(0.5));
                figures.insert("saturation_p99_ms", totals.latencies.quantile_ms(0.99));
                if target.pid().is_some() {
                    figures.insert("cpu_us_per_request", usage.microseconds_per(rate));
                }
                (format!("{rate:.0} requests/s"), totals, usage.others_percent)
            }
            Phase::Rate(rate) => {
                let call = target.call("chat", false)?;
                let (totals, ends) = load::open(&call, &plan(RATE_CONNECTIONS), rate, snapshot)?;
                let usage = Usage::between(ends)?;
                let (p50, p99) = match rate {
                    200 => ("rate_200_p50_ms", "rate_200_p99_ms"),
                    _ => ("rate_1000_p50_ms", "rate_1000_p99_ms"),
                };
                let latencies = &totals.latencies;
                figures.insert(p50, latencies.quantile_ms(0.5));
                figures.insert(p99, latencies.quantile_ms(0.99));
                if target.pid().is_some() && rate == 1_000 {
                    let answered = totals.answered as f64 / self.length.as_secs_f64();
                    let cpu = usage.microseconds_per(answered);
                    figures.insert("rate_1000_cpu_us_per_request", cpu);
                }
                let told = format!(
                    "at {rate}/s p50 {:.3} ms, p99 {:.3} ms",
                    latencies.quantile_ms(0.5),
                    latencies.quantile_ms(0.99)
                );
                (told, totals, usage.others_percent)
            }
            Phase::Burst => {
                let call = target.call(&format!("stream-{CHUNKS}-0"), true)?;
                let plan = plan(BURST_STREAMS);
                let (streams, ends) = load::streams_for(&call, &plan, u64::from(CHUNKS), snapshot)?;
                let usage = Usage::between(ends)?;
                let Streams { totals, chunks, .. } = streams;
                let rate = chunks as f64 / self.length.as_secs_f64();
                figures.insert("chunks_per_second", rate);
                if target.pid().is_some() {
                    figures.insert("stream_cpu_us_per_chunk", usage.microseconds_per(rate));
                }
                (format!("{rate:.0} chunks/s"), totals, usage.others_percent)
            }
            Phase::Paced => {
                let call = target.call(&format!("stream-{CHUNKS}-{}", PACE.as_millis()), true)?;
                let plan = Plan { length: PACED_PATIENCE, ..plan(PACED_STREAMS) };
                let (streams, ends) =
                    load::streams_once(&call, &plan, u64::from(CHUNKS), snapshot)?;
                let usage = Usage::between(ends)?;
                if let Some(pid) = target.pid() {
                    figures.insert("memory_500_streams_mib", proc::memory(pid, Memory::Peak)?);
                    let rate = streams.chunks as f64 / usage.elapsed.as_secs_f64();
                    let cpu = usage.microseconds_per(rate);
                    figures.insert("paced_cpu_us_per_chunk", cpu);
                }
                let Streams { totals, first, gaps, .. } = streams;
                figures.insert("paced_first_p50_ms", first.quantile_ms(0.5));
                figures.insert("paced_first_p99_ms", first.quantile_ms(0.99));
                figures.insert("paced_gap_p50_ms", gaps.quantile_ms(0.5));
                figures.insert("paced_gap_p99_ms", gaps.quantile_ms(0.99));
                figures.insert("paced_stream_p50_ms", totals.latencies.quantile_ms(0.5));
                let told = format!(
                    "first chunk p50 {:.1} ms, gap p99 {:.1} ms",
                    first.quantile_ms(0.5),
                    gaps.quantile_ms(0.99)
                );
                (told, totals, usage.others_percent)
            }
        };
        collected.others.push(others);
        collected.answered += totals.answered;
        collected.failed += totals.failed;
        if let Some(failure) = totals.first_failure {
            self.failures.entry(target.kind.name()).or_insert(failure);
        }
        Ok(told)
    }
}

/// Adds what can only be said beside `direct` of the same round.
fn compare(figures: &mut Figures, direct: &Figures) {
    let differences = [
        ("added_at_200_p50_ms", "rate_200_p50_ms"),
        ("added_at_200_p99_ms", "rate_200_p99_ms"),
        ("added_at_1000_p50_ms", "rate_1000_p50_ms"),
        ("added_at_1000_p99_ms", "rate_1000_p99_ms"),
    ];
    for (added, latency) in differences {
        if let (Some(own), Some(direct)) = (figures.get(latency), direct.get(latency)) {
            figures.insert(added, own - direct);
        }
    }
    let rate = "requests_per_second";
    if let (Some(own), Some(direct)) = (figures.get(rate), direct.get(rate)) {
        figures.insert("requests_per_second_to_direct", own / direct);
    }
}
