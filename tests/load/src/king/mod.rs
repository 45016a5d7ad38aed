//! King under load: runs of five stages that do nothing, over real Socket.IO runners.

mod books;
pub mod limits;
mod process;
mod runners;
mod socket;

use std::{path::PathBuf, rc::Rc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tokio::{
    task::LocalSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    bench::allow_many_files,
    cli::{self, KingArgs},
    http::Client,
    machine,
    proc::{self, Memory},
    scenario::Scenario,
    stats::Latencies,
    stop::Stop,
};
use books::Books;
use limits::Limits;
use process::King;
pub use process::find as program;
use runners::Fleet;

/// How long one answer, or one run, may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Runs in flight when king is killed.
const CRASH_RUNS: usize = 400;
/// Runs per second through idle runners.
const IDLE_RATE: u32 = 100;

/// Seconds between two looks at king's memory.
const SAMPLE_EVERY_S: usize = 10;

/// What all scenarios share.
struct Bench<'a> {
    program: PathBuf,
    args: &'a KingArgs,
    stop: &'a Stop,
    limits: Limits,
}

/// Runs the wanted scenarios; each is given to `tell` when it is done.
pub fn run(
    args: &KingArgs,
    stop: &Stop,
    mut tell: impl FnMut(&Scenario) -> Result<()>,
) -> Result<()> {
    allow_many_files()?;
    let program = process::find(args.binary.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let folder = tempfile::Builder::new().prefix("evo-load-limits-").tempdir()?;
        let length = Duration::from_millis(if args.quick { 100 } else { 1_000 });
        let limits = limits::measure(folder.path(), length).await.context("the limits")?;
        let bench = Bench { program, args, stop, limits };
        if args.crash {
            tell(&bench.crash().await.context("king --crash")?)?;
        }
        if let Some(idle) = args.idle {
            tell(&bench.idle(idle).await.context("king --idle")?)?;
        }
        if !args.crash && args.idle.is_none() {
            for concurrency in args.concurrency() {
                let scenario = bench.closed(concurrency).await;
                tell(&scenario.with_context(|| format!("king at {concurrency}"))?)?;
            }
        }
        Ok(())
    })
}

/// The answer to a start.
#[derive(Deserialize)]
struct Started {
    run_id: String,
}

/// What a number of runs came to.
#[derive(Default)]
struct Driven {
    run_ids: Vec<String>,
    latencies: Latencies,
    failed: u64,
    first_failure: Option<String>,
}

impl Driven {
    fn add(&mut self, other: Self) {
        self.run_ids.extend(other.run_ids);
        self.latencies.add(&other.latencies);
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }

    fn fail(&mut self, error: &anyhow::Error) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| format!("{error:#}"));
    }
}

/// Starts a run; gives its id.
async fn start(client: &mut Client) -> Result<String> {
    let body = r#"{"trigger":{"kind":"load"},"kind":"direct"}"#;
    Ok(client.post::<Started>("/pipeline/start", body).await?.run_id)
}

/// `count` runs, one after the other: from the request to king's answer to the last result.
async fn drive(king: &King, fleet: &Fleet, stop: &Stop, count: usize) -> Driven {
    let mut driven = Driven::default();
    let mut client = None;
    for _ in 0..count {
        if stop.is_set() {
            break;
        }
        let begun = Instant::now();
        let result = async {
            let client = match &mut client {
                Some(client) => client,
                None => client.insert(Client::open(king.address, &king.tokens.operator).await?),
            };
            let run_id = start(client).await?;
            let end = fleet.ended(&run_id).await;
            driven.run_ids.push(run_id);
            end
        };
        match result.await {
            Ok(end) => driven.latencies.record(end - begun),
            Err(error) => {
                driven.fail(&error);
                client = None;
            }
        }
    }
    driven
}

/// `count` runs in all, so many of them at the same time.
async fn drive_many(
    king: &Rc<King>,
    fleet: &Rc<Fleet>,
    stop: &Stop,
    count: usize,
    concurrency: usize,
) -> Result<Driven> {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..concurrency {
        let share = count / concurrency + usize::from(number < count % concurrency);
        let (king, fleet, stop) = (king.clone(), fleet.clone(), stop.clone());
        tasks.spawn_local(async move { drive(&king, &fleet, &stop, share).await });
    }
    let mut all = Driven::default();
    while let Some(part) = tasks.join_next().await {
        all.add(part?);
    }
    stop.check()?;
    Ok(all)
}

/// Processor time at one moment.
struct Used {
    king: Duration,
    own: Duration,
    machine: Duration,
    at: Instant,
}

impl Used {
    fn now(king: &King) -> Result<Self> {
        Ok(Self {
            king: king.processor_time()?,
            own: proc::own_processor_time()?,
            machine: proc::machine_processor_time()?,
            at: Instant::now(),
        })
    }

    /// What was used since then, per run, and by others.
    fn fill(&self, king: &King, scenario: &mut Scenario, runs: usize) -> Result<()> {
        let now = Self::now(king)?;
        let kings = now.king.saturating_sub(self.king);
        let own = now.own.saturating_sub(self.own);
        let elapsed = now.at - self.at;
        let all = now.machine.saturating_sub(self.machine);
        let others = all.saturating_sub(kings + own);
        let per_run = |time: Duration| time.as_secs_f64() * 1_000.0 / runs as f64;
        scenario.ops_per_s = runs as f64 / elapsed.as_secs_f64();
        scenario.cpu_ms_per_op = per_run(kings);
        scenario.more.insert("client_cpu_ms_per_op", per_run(own));
        let all = elapsed.as_secs_f64() * machine::cores() as f64;
        scenario.more.insert("others_cpu_percent", others.as_secs_f64() / all * 100.0);
        Ok(())
    }
}

impl Bench<'_> {
    fn scenario(&self, name: String, size: usize) -> Scenario {
        let [load, ..] = machine::load_average();
        Scenario { scenario: name, size, limits: self.limits.clone(), load, ..Scenario::default() }
    }

    async fn king_and_fleet(&self, runners: usize) -> Result<(Rc<King>, Rc<Fleet>)> {
        let king = King::start(&self.program).await?;
        let fleet = Fleet::new(king.address, &king.tokens.runner);
        fleet.connect(runners).await.with_context(|| king.output())?;
        Ok((Rc::new(king), fleet))
    }

    /// Closed loop: so many runs at the same time, always.
    async fn closed(&self, concurrency: usize) -> Result<Scenario> {
        let runs = self.args.runs();
        let mut scenario = self.scenario(format!("king c={concurrency}"), runs);
        let (king, fleet) = self.king_and_fleet(self.args.runners).await?;
        let warm_up = (runs / 10).clamp(concurrency, 500.max(concurrency));
        let warm = drive_many(&king, &fleet, self.stop, warm_up, concurrency).await?;
        let used = Used::now(&king)?;
        let driven = drive_many(&king, &fleet, self.stop, runs, concurrency).await?;
        used.fill(&king, &mut scenario, runs)?;
        scenario.p50_ms = driven.latencies.quantile_ms(0.5);
        scenario.p99_ms = driven.latencies.quantile_ms(0.99);
        scenario.rss_mb = king.memory(Memory::Peak)?;
        scenario.more.insert("rss_now_mb", king.memory(Memory::Now)?);
        let mut all = warm;
        all.add(driven);
        self.close(&king, &fleet, &mut scenario, all).await?;
        Ok(scenario)
    }

    /// Compares what was started with what king's log says.
    async fn close(
        &self,
        king: &King,
        fleet: &Fleet,
        scenario: &mut Scenario,
        driven: Driven,
    ) -> Result<()> {
        let Books { lost, doubled } = books::look(king, &driven.run_ids).await?;
        (scenario.failed, scenario.lost, scenario.doubled) = (driven.failed, lost, doubled);
        scenario.first_failure = driven.first_failure;
        let counts = fleet.counts();
        scenario.more.insert("dispatches", counts.dispatches as f64);
        scenario.more.insert("repeated_dispatches", counts.repeated as f64);
        scenario.more.insert("reconnects", counts.reconnects as f64);
        scenario.more.insert("refused_results", counts.refused.values().sum::<u64>() as f64);
        if let Some((code, times)) = counts.refused.iter().next() {
            cli::say(&format!("  {times} results were answered with {code}"));
        }
        Ok(())
    }

    /// Kills king with 400 runs in flight, spread over the stages, and starts it again.
    async fn crash(&self) -> Result<Scenario> {
        let runs = if self.args.quick { 40 } else { CRASH_RUNS };
        let mut scenario = self.scenario("king crash".to_owned(), runs);
        let (king, fleet) = self.king_and_fleet(self.args.runners).await?;
        let mut king = Rc::into_inner(king).context("king is in use")?;
        fleet.set_gate(false);
        let mut client = Client::open(king.address, &king.tokens.operator).await?;
        let mut run_ids = Vec::with_capacity(runs);
        for _ in 0..runs {
            run_ids.push(start(&mut client).await?);
        }
        let all_held = async {
            while fleet.held() < runs {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, all_held).await.with_context(|| {
            format!("only {} of {runs} runs came to the stage where they are held", fleet.held())
        })?;
        self.stop.check()?;
        let killed = Instant::now();
        king.kill()?;
        let started = Instant::now();
        let serving = king.run().await?;
        scenario.more.insert("serving_ms", millis(serving));
        scenario.more.insert("killing_ms", millis(started - killed));
        fleet.set_gate(true);
        let used = Used::now(&king)?;
        let mut driven = Driven::default();
        for run_id in run_ids {
            self.stop.check()?;
            ensure!(started.elapsed() < PATIENCE, "after {PATIENCE:?} runs are still open");
            match fleet.ended(&run_id).await {
                Ok(end) => driven.latencies.record(end - started),
                Err(error) => driven.fail(&error),
            }
            driven.run_ids.push(run_id);
        }
        scenario.more.insert("all_done_ms", millis(started.elapsed()));
        used.fill(&king, &mut scenario, runs)?;
        scenario.ops_per_s = runs as f64 / started.elapsed().as_secs_f64();
        scenario.p50_ms = driven.latencies.quantile_ms(0.5);
        scenario.p99_ms = driven.latencies.quantile_ms(0.99);
        scenario.rss_mb = king.memory(Memory::Peak)?;
        self.close(&king, &fleet, &mut scenario, driven).await?;
        Ok(scenario)
    }

    /// Many runners that have next to nothing to do, and 100 runs a second through them.
    async fn idle(&self, runners: usize) -> Result<Scenario> {
        let length = Duration::from_secs(self.args.seconds());
        let runs = usize::try_from(length.as_secs())? * IDLE_RATE as usize;
        let mut scenario = self.scenario(format!("king idle={runners}"), runs);
        let (king, fleet) = self.king_and_fleet(runners).await?;
        ensure!(fleet.connected() == runners, "only {} runners came", fleet.connected());
        // The first runs bring buffers to their size.
        drive_many(&king, &fleet, self.stop, 200, 4).await?;
        scenario.more.insert("rss_before_mb", king.memory(Memory::Now)?);
        let used = Used::now(&king)?;
        let mut tasks = tokio::task::JoinSet::new();
        let mut ticks = interval(Duration::from_secs(1) / IDLE_RATE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let lanes = Rc::new(std::cell::RefCell::new(Vec::<Client>::new()));
        for number in 0..runs {
            let due = ticks.tick().await;
            if number % 100 == 0 {
                self.stop.check()?;
            }
            // Something that grows goes on growing; buffers and caches come to their size.
            if number % (SAMPLE_EVERY_S * IDLE_RATE as usize) == 0 {
                scenario
                    .series
                    .entry("rss_mb_every_10_s")
                    .or_default()
                    .push(king.memory(Memory::Now)?);
            }
            let (king, fleet, lanes) = (king.clone(), fleet.clone(), lanes.clone());
            tasks.spawn_local(async move {
                let mut driven = Driven::default();
                let result = async {
                    let free = lanes.borrow_mut().pop();
                    let mut client = match free {
                        Some(client) => client,
                        None => Client::open(king.address, &king.tokens.operator).await?,
                    };
                    let run_id = start(&mut client).await?;
                    lanes.borrow_mut().push(client);
                    let end = fleet.ended(&run_id).await;
                    driven.run_ids.push(run_id);
                    end
                };
                match result.await {
                    // From when it was due: whoever comes late does not shorten it.
                    Ok(end) => driven.latencies.record(end - due),
                    Err(error) => driven.fail(&error),
                }
                driven
            });
        }
        let mut all = Driven::default();
        while let Some(part) = tasks.join_next().await {
            all.add(part?);
        }
        used.fill(&king, &mut scenario, runs)?;
        scenario.p50_ms = all.latencies.quantile_ms(0.5);
        scenario.p99_ms = all.latencies.quantile_ms(0.99);
        scenario.rss_mb = king.memory(Memory::Peak)?;
        scenario.more.insert("rss_after_mb", king.memory(Memory::Now)?);
        scenario.more.insert("connected", fleet.connected() as f64);
        self.close(&king, &fleet, &mut scenario, all).await?;
        Ok(scenario)
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
