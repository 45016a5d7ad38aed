//! Whether the search for better variants of skills finds any: broken and naive variants of skills
//! that work, of running servers, judged by cases that no search has seen.

mod books;
mod plot;
mod skills;
mod starts;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::{Context as _, Result, ensure};
use evo_agents::{
    building::search::{
        self, Archive, Budget, Ended, Strategy, Task,
        knowledge::Knowledge,
        world::{Evaluate, Live, Seen},
    },
    skill::package::Package,
};
use evo_common::{case::Case, ids::ArtifactId};
use futures_util::{StreamExt as _, future::BoxFuture, stream};
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::{
    books::{Books, Course},
    skills::{Skill, Truth},
    starts::{Kind, Start},
};
use crate::{
    cli::{EvolveArgs, say},
    gate::servers::Real,
    machine,
    proc::{self, Memory},
    scenario::Scenario,
    stats::Latencies,
    stop::Stop,
};

/// Whose skills are broken.
const SERVERS: [&str; 3] = ["httpbin", "jupyter", "evo-king"];
/// Searches at the same time.
const AT_ONCE: usize = 4;
/// How often a start is made anew that turns out to work.
const TRIES: usize = 12;

/// What is compared, in the order of the report.
pub const STRATEGIES: [Strategy; 3] = [Strategy::Evolve, Strategy::EvolveBlind, Strategy::Random];

/// The name of a strategy in the report.
fn name(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Evolve => "evolve",
        Strategy::EvolveBlind => "evolve without hints",
        Strategy::Random => "random search",
    }
}

/// Runs everything; each strategy is given to `tell`.
pub fn run(
    args: &EvolveArgs,
    stop: &Stop,
    mut tell: impl FnMut(&Scenario) -> Result<()>,
) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("evo-load-evolve-").tempdir()?;
    let evo = find_evo(args.binary.as_deref());
    let mut real = Real::start(evo.as_deref(), folder.path(), stop)?;
    real.served.retain(|served| SERVERS.contains(&served.source.name.as_str()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        skills::at_rest(&real.served, real.viewer.as_ref(), stop).await?;
        let truth = skills::record(&real.served, real.viewer.clone(), args.skills(), stop).await?;
        let starts = make_starts(&truth, args.seed, stop).await?;
        say(&counted(&truth, &starts));
        ensure!(!starts.is_empty(), "no skill of any server could be broken: do the servers run?");
        let mut all = Vec::new();
        let wanted = |strategy: &Strategy| args.blind || *strategy != Strategy::EvolveBlind;
        for strategy in STRATEGIES.into_iter().filter(wanted) {
            let (runs, scenario) = compare(args, &truth, &starts, strategy, stop).await?;
            all.push((strategy, runs, scenario));
        }
        // Cases that even the right packages fail by now tell nothing about a search.
        let stable = stable(&truth).await;
        let recorded = stable.iter().flatten().count() as f64;
        let still = stable.iter().flatten().filter(|passes| **passes).count() as f64;
        let right = still / recorded.max(1.0);
        let judged = |(strategy, runs, scenario): (Strategy, Vec<Run>, Scenario)| {
            (
                strategy,
                Books::new(runs.iter().filter_map(|run| run.judged(&stable)).collect()),
                scenario,
            )
        };
        let all: Vec<(Strategy, Books, Scenario)> = all.into_iter().map(judged).collect();
        let baseline = all.iter().find(|(strategy, ..)| *strategy == Strategy::Random);
        let baseline = baseline.map(|(_, books, _)| books).context("the baseline was not run")?;
        for (strategy, books, mut scenario) in all.iter().map(|(s, b, c)| (*s, b, c.clone())) {
            books.describe(args.calls(), &mut scenario);
            if strategy != Strategy::Random {
                books.describe_gain(baseline, &mut scenario);
            }
            scenario.limits.insert("stable_cases", right);
            tell(&scenario)?;
        }
        if let Some(file) = &args.plot {
            let courses: Vec<(&str, &Books)> =
                all.iter().map(|(strategy, books, _)| (name(*strategy), books)).collect();
            plot::write(file, &courses, args.calls())?;
        }
        Ok(())
    })
}

/// `evo` beside this program, or the one given.
fn find_evo(given: Option<&Path>) -> Option<PathBuf> {
    let beside = || std::env::current_exe().ok().map(|this| this.with_file_name("evo"));
    let path = given.map(Path::to_owned).or_else(beside).filter(|path| path.is_file())?;
    path.canonicalize().ok()
}

fn counted(truth: &Truth, starts: &[Start]) -> String {
    let mut text = format!("{} skills:", truth.skills.len());
    for (index, server) in truth.servers.iter().enumerate() {
        let count = truth.skills.iter().filter(|skill| skill.server == index).count();
        text.push_str(&format!(" {count} of {}", server.name));
    }
    text.push_str(&format!("; {} starts:", starts.len()));
    for kind in Kind::ALL {
        let count = starts.iter().filter(|start| start.kind == kind).count();
        text.push_str(&format!(" {count} {kind:?}"));
    }
    let faults = starts.iter().flat_map(|start| &start.faults);
    let with_inverse = faults.clone().filter(|fault| fault.has_inverse()).count();
    text.push_str(&format!("; {} faults, {with_inverse} with an inverse\n ", faults.count()));
    let mut counts: BTreeMap<starts::Fault, u32> = BTreeMap::new();
    for fault in starts.iter().flat_map(|start| &start.faults) {
        *counts.entry(*fault).or_default() += 1;
    }
    for (fault, count) in counts {
        text.push_str(&format!(" {fault:?} {count}"));
    }
    text
}

/// Which cases pass. They are only measured: no search sees these calls.
async fn passing(truth: &Truth, skill: &Skill, package: &Package, cases: &[Case]) -> Vec<bool> {
    let server = &truth.servers[skill.server];
    let world = Live::new(&truth.executor, &server.policy, &server.writes);
    let mut passed = Vec::new();
    for case in cases {
        passed.push(world.run(package, case).await.passed());
    }
    passed
}

/// One start of each kind for each skill, as far as it has one that fails.
async fn make_starts(truth: &Truth, seed: u64, stop: &Stop) -> Result<Vec<Start>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut starts = Vec::new();
    for (index, skill) in truth.skills.iter().enumerate() {
        stop.check()?;
        let writes = &truth.servers[skill.server].writes;
        for kind in Kind::ALL {
            for _ in 0..TRIES {
                let Some(start) = starts::make(index, skill, kind, writes, &mut random) else {
                    continue;
                };
                // What still does its work, as far as these cases tell, is not broken.
                if passing(truth, skill, &start.package, &start.train).await.contains(&false)
                    && passing(truth, skill, &start.package, &start.holdout).await.contains(&false)
                {
                    starts.push(start);
                    break;
                }
            }
        }
    }
    Ok(starts)
}

/// Which held-out cases of each skill its right package still passes.
async fn stable(truth: &Truth) -> Vec<Vec<bool>> {
    let mut all = Vec::new();
    for skill in &truth.skills {
        all.push(passing(truth, skill, &skill.package, &skill.holdout).await);
    }
    all
}

/// One search, before it is judged.
struct Run {
    /// Generation, calls until its end, and which held-out cases its best variant passes.
    steps: Vec<(u32, u32, Vec<bool>)>,
    course: Course,
}

impl Run {
    /// What it comes to by the cases that are stable; [`None`] when its skill has none.
    fn judged(&self, stable: &[Vec<bool>]) -> Option<Course> {
        let counted = &stable[self.course.skill];
        let total = counted.iter().filter(|counts| **counts).count();
        if total == 0 {
            return None;
        }
        let rate = |passed: &Vec<bool>| {
            let passed = passed.iter().zip(counted).filter(|(passed, counts)| **passed && **counts);
            passed.count() as f64 / total as f64
        };
        let steps = self.steps.iter().map(|(at, calls, passed)| (*at, *calls, rate(passed)));
        Some(Course { steps: steps.collect(), ..self.course.clone() })
    }
}

/// Counts what is called, and how long it takes.
struct Counted<'a> {
    live: Live<'a>,
    latencies: &'a Mutex<Latencies>,
}

impl Evaluate for Counted<'_> {
    fn run<'a>(&'a self, package: &'a Package, case: &'a Case) -> BoxFuture<'a, Seen> {
        Box::pin(async move {
            let started = Instant::now();
            let seen = self.live.run(package, case).await;
            if let Ok(mut latencies) = self.latencies.lock() {
                latencies.record(started.elapsed());
            }
            seen
        })
    }
}

/// All searches of one strategy.
async fn compare(
    args: &EvolveArgs,
    truth: &Truth,
    starts: &[Start],
    strategy: Strategy,
    stop: &Stop,
) -> Result<(Vec<Run>, Scenario)> {
    let [load, ..] = machine::load_average();
    let latencies = Mutex::new(Latencies::default());
    let processor = proc::own_processor_time()?;
    let began = Instant::now();
    let seeds = args.seeds();
    let work = starts.iter().flat_map(|start| (0..seeds).map(move |round| (start, round)));
    let runs: Vec<Option<Run>> = stream::iter(work)
        .map(|(start, round)| {
            let latencies = &latencies;
            async move {
                if stop.is_set() {
                    return None;
                }
                let random_seed = args.seed.wrapping_mul(1_000).wrapping_add(round);
                one(args, truth, start, strategy, random_seed, latencies).await
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    stop.check()?;
    let seconds = began.elapsed().as_secs_f64();
    let processor = proc::own_processor_time()?.saturating_sub(processor);
    let failed = runs.iter().filter(|run| run.is_none()).count() as u64;
    let runs: Vec<Run> = runs.into_iter().flatten().collect();
    let latencies = latencies.into_inner().ok().context("a search panicked")?;
    let calls = latencies.len().max(1) as f64;
    let mut scenario = Scenario {
        scenario: format!("{}, {} calls", name(strategy), args.calls()),
        size: runs.len(),
        ops_per_s: latencies.len() as f64 / seconds,
        p50_ms: latencies.quantile_ms(0.5),
        p99_ms: latencies.quantile_ms(0.99),
        cpu_ms_per_op: processor.as_secs_f64() * 1_000.0 / calls,
        rss_mb: proc::memory(std::process::id(), Memory::Peak)?,
        failed,
        load,
        ..Scenario::default()
    };
    scenario.more.extend([
        ("seconds", seconds),
        ("skills", truth.skills.len() as f64),
        ("starts", starts.len() as f64),
        ("seeds", seeds as f64),
    ]);
    Ok((runs, scenario))
}

/// One search, and what its best variants are worth on cases that it has not seen.
async fn one(
    args: &EvolveArgs,
    truth: &Truth,
    start: &Start,
    strategy: Strategy,
    random_seed: u64,
    latencies: &Mutex<Latencies>,
) -> Option<Run> {
    let skill = &truth.skills[start.skill];
    let server = &truth.servers[skill.server];
    // The source's other skills, but none that has the very path that is looked for.
    let others = truth.skills.iter().filter(|other| {
        other.server == skill.server && other.operation.path != skill.operation.path
    });
    let others = others.map(|other| &other.package);
    let knowledge = Knowledge::of_packages(others, server.writes.clone());
    let archive = Archive::default();
    let cancel = CancellationToken::new();
    let task = Task {
        seed: &start.package,
        cases: &start.train,
        knowledge: &knowledge,
        archive: &archive,
        cancel: &cancel,
    };
    let live = Live::new(&truth.executor, &server.policy, &server.writes);
    let world = Counted { live, latencies };
    let budget = Budget::of_calls(args.calls());
    let found = search::run(&task, &world, budget, random_seed, strategy, None).await?;
    let mut known: HashMap<ArtifactId, Vec<bool>> = HashMap::new();
    let mut steps = Vec::new();
    for progress in &found.progress {
        if !known.contains_key(&progress.best) {
            let passed = passing(truth, skill, &progress.package, &start.holdout).await;
            known.insert(progress.best.clone(), passed);
        }
        steps.push((progress.generation, progress.calls, known[&progress.best].clone()));
    }
    let course = Course {
        skill: start.skill,
        kind: start.kind,
        steps: Vec::new(),
        calls: found.calls,
        solved: found.ended == Ended::Solved,
        train: found.best.score.pass_rate(),
    };
    Some(Run { steps, course })
}
