//! One run: rounds in which each measurement is made on one target after the other, so that what
//! else goes on on the machine falls on all of them.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::time::Instant;

use crate::{
    cli::{self, GatewayArgs},
    load::{self, Plan, Streams, Totals},
    machine::{self, Machine},
    proc::{self, Memory},
    report::{Figures, Phase, Report, Round, TargetReport},
    stop::Stop,
    targets::{Kind, Program, Target, Upstream, find_gateway, find_nginx},
};

const SATURATION_CONNECTIONS: usize = 64;
const RATE_CONNECTIONS: usize = 32;
const BURST_STREAMS: usize = 50;
const PACED_STREAMS: usize = 500;
const CHUNKS: u32 = 100;
const PACE: Duration = Duration::from_millis(20);
/// What a paced stream takes when nobody is late: the first chunk comes at once, the end with the last.
const NOMINAL: Duration = Duration::from_millis(99 * 20);
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
        rounds: BTreeMap::new(),
        failures: BTreeMap::new(),
        output: folder.path().to_owned(),
    };
    let machine = Machine::look();
    let rounds = args.rounds();
    let mut loads = Vec::new();
    for round in 0..rounds {
        let [load, ..] = machine::load_average();
        loads.push(load);
        cli::say(&format!("round {}/{rounds}, load average {load:.2}", round + 1));
        run.round(round, &programs)?;
    }
    let targets = run.rounds.into_iter().map(|(kind, rounds)| {
        let version = programs.iter().find(|(known, _)| *known == kind);
        let version = version.and_then(|(_, program)| program.as_ref());
        let version = version.map_or_else(
            || "the mock upstream itself".to_owned(),
            |program| format!("{} ({})", program.version, program.path.display()),
        );
        TargetReport { name: kind, version, rounds }
    });
    Ok(Report {
        machine,
        seconds: args.seconds(),
        loads,
        targets: targets.collect(),
        missing,
        failures: run.failures,
    })
}

/// The wanted targets that there are, each with its program.
fn find(args: &GatewayArgs, missing: &mut Vec<String>) -> Result<Vec<(Kind, Option<Program>)>> {
    let mut found = Vec::new();
    // `direct` is always measured: the others are told by what they add to it.
    found.push((Kind::Direct, None));
    let nginx =
        [Kind::Nginx, Kind::NginxLog].into_iter().filter(|kind| args.targets.contains(kind));
    let nginx: Vec<Kind> = nginx.collect();
    if !nginx.is_empty() {
        match find_nginx() {
            Some(program) => {
                found.extend(nginx.into_iter().map(|kind| (kind, Some(program.clone()))));
            }
            None => {
                let reason = "nginx is left out, and every ratio to it: it is not on PATH; install it \
                              with `apt-get install nginx-light`, `dnf install nginx` or `brew \
                              install nginx` (it need not run as a service: this program starts its \
                              own)";
                cli::say(reason);
                missing.push(reason.to_owned());
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

/// A target in one round.
struct Measured {
    target: Target,
    round: Round,
}

struct Run<'a> {
    stop: &'a Stop,
    length: Duration,
    rounds: BTreeMap<Kind, Vec<Round>>,
    failures: BTreeMap<(Kind, Phase), String>,
    output: PathBuf,
}

impl Run<'_> {
    /// Starts everything afresh, measures, and ends everything.
    fn round(&mut self, number: usize, programs: &[(Kind, Option<Program>)]) -> Result<()> {
        self.stop.check()?;
        let upstream = Upstream::start(&self.output)?;
        let mut all = Vec::new();
        for (kind, program) in programs {
            let target = match (kind, program) {
                (kind @ (Kind::Nginx | Kind::NginxLog), Some(program)) => {
                    Target::nginx(*kind, program, &upstream)?
                }
                (Kind::Gateway, Some(program)) => Target::gateway(program, &upstream)?,
                _ => Target::direct(&upstream)?,
            };
            all.push(Measured { target, round: Round::new() });
        }
        std::thread::sleep(SETTLE);
        for Measured { target, round } in &mut all {
            if let Some(pid) = target.pid() {
                let idle = proc::memory(pid, Memory::Now)?;
                round.entry(Phase::Paced).or_default().insert("rss_idle_mb", idle);
            }
        }
        // Another one begins in each round.
        let first = number % all.len();
        all.rotate_left(first);
        for phase in Phase::ALL {
            for Measured { target, round } in &mut all {
                let figures = round.entry(phase).or_default();
                self.measure(phase, target, &upstream, figures)
                    .with_context(|| target.name_and_output())?;
                target.check()?;
                // What was measured before a signal is no figure.
                self.stop.check()?;
                let told = ["ops_per_s", "p50_ms", "p99_ms"].map(|name| figures[name]);
                let [rate, p50, p99] = told;
                let (kind, phase) = (target.kind.name(), phase.name());
                cli::say(&format!(
                    "  {kind} {phase}: {rate:.0}/s, p50 {p50:.3} ms, p99 {p99:.3} ms"
                ));
            }
        }
        self.keep(all);
        Ok(())
    }

    /// Adds what can only be said beside others of the same round.
    fn keep(&mut self, all: Vec<Measured>) {
        let mut rounds: BTreeMap<Kind, Round> =
            all.into_iter().map(|measured| (measured.target.kind, measured.round)).collect();
        let direct = rounds.get(&Kind::Direct).cloned().unwrap_or_default();
        let nginx = rounds.get(&Kind::Nginx).cloned().unwrap_or_default();
        for (kind, round) in &mut rounds {
            for (phase, figures) in round {
                if *kind != Kind::Direct {
                    let names = ("ratio_to_direct", "cpu_ratio_to_direct");
                    compare(figures, direct.get(phase), names);
                    add(*phase, figures, direct.get(phase));
                }
                if *kind == Kind::Gateway {
                    compare(figures, nginx.get(phase), ("ratio_to_nginx", "cpu_ratio_to_nginx"));
                }
            }
        }
        for (kind, round) in rounds {
            self.rounds.entry(kind).or_default().push(round);
        }
    }

    /// Makes one measurement.
    fn measure(
        &mut self,
        phase: Phase,
        target: &Target,
        upstream: &Upstream,
        figures: &mut Figures,
    ) -> Result<()> {
        let booked = target.booked()?;
        let logged = target.logged_bytes()?;
        let (totals, usage) = self.load(phase, target, upstream, figures)?;
        if let Some(pid) = target.pid() {
            figures.insert("rss_mb", proc::memory(pid, Memory::Peak)?);
            let cpu = usage.microseconds_per(figures["ops_per_s"]) / 1_000.0;
            figures.insert("cpu_ms_per_op", cpu);
        }
        figures.insert("others_cpu_percent", usage.others_percent);
        figures.insert("failed", totals.failed as f64);
        if let (Some(before), Some(after)) = (booked, target.booked()?) {
            let booked = after - before;
            let whole = totals.whole + totals.failed;
            figures.insert("lost", whole.saturating_sub(booked) as f64);
            figures.insert("doubled", booked.saturating_sub(whole) as f64);
        }
        if target.kind == Kind::Gateway {
            let bytes = (target.logged_bytes()? - logged) as f64;
            figures.insert("log_bytes_per_request", bytes / totals.whole as f64);
        }
        if let Some(failure) = totals.first_failure {
            self.failures.entry((target.kind, phase)).or_insert(failure);
        }
        Ok(())
    }

    /// Puts load on a target.
    fn load(
        &self,
        phase: Phase,
        target: &Target,
        upstream: &Upstream,
        figures: &mut Figures,
    ) -> Result<(Totals, Usage)> {
        let plan = |connections| Plan { length: self.length, connections, stop: self.stop.clone() };
        let snapshot = || Snapshot::take(target, upstream);
        match phase {
            Phase::Saturation | Phase::Rate(_) => {
                let call = target.call("chat", false)?;
                let (totals, ends) = match phase {
                    Phase::Rate(rate) => {
                        load::open(&call, &plan(RATE_CONNECTIONS), rate, snapshot)?
                    }
                    _ => load::closed(&call, &plan(SATURATION_CONNECTIONS), snapshot)?,
                };
                figures.insert("size", totals.answered as f64);
                figures.insert("ops_per_s", totals.answered as f64 / self.length.as_secs_f64());
                figures.insert("p50_ms", totals.latencies.quantile_ms(0.5));
                figures.insert("p99_ms", totals.latencies.quantile_ms(0.99));
                Ok((totals, Usage::between(ends)?))
            }
            Phase::Burst => {
                let call = target.call(&format!("stream-{CHUNKS}-0"), true)?;
                let plan = plan(BURST_STREAMS);
                let (streams, ends) = load::streams_for(&call, &plan, u64::from(CHUNKS), snapshot)?;
                let Streams { totals, chunks, .. } = streams;
                figures.insert("size", chunks as f64);
                figures.insert("ops_per_s", chunks as f64 / self.length.as_secs_f64());
                figures.insert("p50_ms", totals.latencies.quantile_ms(0.5));
                figures.insert("p99_ms", totals.latencies.quantile_ms(0.99));
                Ok((totals, Usage::between(ends)?))
            }
            Phase::Paced => {
                let call = target.call(&format!("stream-{CHUNKS}-{}", PACE.as_millis()), true)?;
                let plan = Plan { length: PACED_PATIENCE, ..plan(PACED_STREAMS) };
                let (streams, ends) =
                    load::streams_once(&call, &plan, u64::from(CHUNKS), snapshot)?;
                let usage = Usage::between(ends)?;
                let Streams { totals, chunks, first, gaps, rest } = streams;
                let whole = totals.latencies.quantile_ms(0.5);
                let nominal = NOMINAL.as_secs_f64() * 1_000.0;
                figures.insert("size", chunks as f64);
                figures.insert("ops_per_s", chunks as f64 / usage.elapsed.as_secs_f64());
                figures.insert("p50_ms", gaps.quantile_ms(0.5));
                figures.insert("p99_ms", gaps.quantile_ms(0.99));
                figures.insert("first_p50_ms", first.quantile_ms(0.5));
                figures.insert("first_p99_ms", first.quantile_ms(0.99));
                figures.insert("stream_p50_ms", whole);
                figures.insert("over_nominal_percent", (whole / nominal - 1.0) * 100.0);
                let rest = rest.quantile_ms(0.5);
                figures.insert("rest_over_nominal_percent", (rest / nominal - 1.0) * 100.0);
                Ok((totals, usage))
            }
        }
    }
}

/// Divides by another target's figures of the same round.
fn compare(
    figures: &mut Figures,
    other: Option<&Figures>,
    (rate, cpu): (&'static str, &'static str),
) {
    for (name, ratio) in [("ops_per_s", rate), ("cpu_ms_per_op", cpu)] {
        if let (Some(own), Some(other)) =
            (figures.get(name).copied(), other.and_then(|other| other.get(name)))
        {
            figures.insert(ratio, own / other);
        }
    }
}

/// What a proxy adds to `direct`.
fn add(phase: Phase, figures: &mut Figures, direct: Option<&Figures>) {
    let differences: &[(&str, &'static str)] = match phase {
        Phase::Rate(_) => &[("p50_ms", "added_p50_ms"), ("p99_ms", "added_p99_ms")],
        Phase::Paced => &[("over_nominal_percent", "over_direct_percent")],
        Phase::Saturation | Phase::Burst => &[],
    };
    for (name, added) in differences {
        if let (Some(own), Some(direct)) =
            (figures.get(name).copied(), direct.and_then(|direct| direct.get(name)))
        {
            figures.insert(added, own - direct);
        }
    }
}
