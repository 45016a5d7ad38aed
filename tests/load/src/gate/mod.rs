//! How often the gate is wrong: skills that work and skills that are wrong in a known way go through
//! the real stages and king's real decision.

mod code;
mod drive;
mod mutants;
mod proxy;
mod report;
mod rollback;
mod same;
pub mod servers;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use evo_agents::{
    sandbox,
    skill::{
        execute::{CallPolicy, ExecutorConfig},
        package::Package,
    },
};
use evo_common::{
    ids::sha256_hex,
    stage::{BuildingOutput, Candidate, Incumbent, KnownSkill},
};
use futures_util::{StreamExt as _, stream};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tokio::{runtime::Runtime, time::Instant};

use self::{
    drive::{Bench, Entrant},
    mutants::{Class, Level, Mutant},
    proxy::Fault,
    report::{Entry, Found, Report, Tally},
    servers::{Group, Served},
};
use crate::{
    cli::{GateArgs, say},
    stop::Stop,
};

/// Most skills of a mocked document, so that no single one decides.
const MOST_OF_A_DOCUMENT: usize = 12;
/// Candidates with code that are judged at the same time.
const CODE_JOBS: usize = 3;
/// Slow candidates that are judged at the same time.
const SLOW_JOBS: usize = 24;
/// How often it is told how far it is.
const PROGRESS: std::time::Duration = std::time::Duration::from_secs(15);
/// How often the monitor is tried.
const MONITORED: u32 = 2_000;

/// Everything that is measured goes through here.
struct Run<'a> {
    args: &'a GateArgs,
    stop: &'a Stop,
    bench: Bench,
    runtime: &'a Runtime,
    tally: Tally,
}

/// A skill that works.
struct Right {
    candidate: Candidate,
    package: Package,
    artifact_id: String,
    known: KnownSkill,
}

/// Measures the gate.
pub fn run(args: &GateArgs, stop: &Stop) -> Result<Report> {
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("an async runtime")?;
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let evo = program(args.binary.as_deref(), &["evo"]);
    let evo = if args.no_evo { None } else { evo };
    let real = servers::Real::start(evo.as_deref(), folder.path(), stop)?;
    let config = ExecutorConfig {
        viewer_token: real.viewer.clone(),
        gateway_token: real.gateway.clone(),
        env: drive::environment(),
        sandbox: sandbox::Settings {
            helper: program(args.binary.as_deref(), &["evo-runner", "evo"]),
            ..sandbox::Settings::load(&evo_agents::config::environment)
        },
    };
    let packages = folder.path().join("packages");
    let bench = runtime.block_on(Bench::new(config, &packages, args.seed))?;
    let tally = Tally::default();
    let mut run = Run { args, stop, bench, runtime: &runtime, tally };
    if evo.is_some() {
        // Its first cycle makes what there is to read.
        runtime.block_on(settled(&real))?;
    }
    for served in real.served.iter().filter(|served| args.wants(&served.source.name)) {
        run.source(served, args.real())?;
    }
    drop(real);
    run.mocked(folder.path())?;
    run.code()?;
    let rollback = rollback::measure(args.seed, MONITORED);
    Ok(Report::new(args.seed, started.elapsed(), run.tally, rollback))
}

/// The program given, else the first of these beside this one.
fn program(given: Option<&Path>, names: &[&str]) -> Option<PathBuf> {
    let this = std::env::current_exe().ok()?;
    // A test lies one folder deeper than the programs.
    let folders = this.ancestors().skip(1).take(2);
    let beside = || folders.flat_map(|folder| names.iter().map(|name| folder.join(name)));
    given.map(Path::to_owned).or_else(|| beside().find(|path| path.is_file()))
}

/// Waits until Evo's own list of skills does not change any more.
async fn settled(real: &servers::Real) -> Result<()> {
    let king = real.served.iter().find(|served| served.source.name == "evo-king");
    let Some((king, viewer)) = king.zip(real.viewer.as_ref()) else { return Ok(()) };
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut before = String::new();
    for _ in 0..30 {
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
        let request = client.get(format!("{}/skills?limit=200", king.base));
        let list = request.bearer_auth(viewer.expose()).send().await?.text().await?;
        if list == before {
            break;
        }
        before = list;
    }
    Ok(())
}

impl Run<'_> {
    /// Judges the skills of one server, and what is made of them.
    fn source(&mut self, served: &Served, most: usize) -> Result<()> {
        self.stop.check()?;
        let runtime = self.runtime;
        let mut served = served.clone();
        served.source.allow_origins = vec![self.bench.proxy.origin().to_owned()];
        let (rights, declared) = runtime.block_on(self.rights(&mut served, most))?;
        let entrants = runtime.block_on(self.entrants(&served, &rights, &declared))?;
        say(&format!(
            "{}: {} skills that work, {} candidates to judge",
            served.source.name,
            rights.len(),
            entrants.len()
        ));
        runtime.block_on(self.judge(entrants, self.args.jobs()))
    }

    fn mocked(&mut self, folder: &Path) -> Result<()> {
        let most = self.args.mock();
        if most == 0 {
            return Ok(());
        }
        let Some((program, mut documents)) = servers::documents()? else { return Ok(()) };
        documents.shuffle(&mut StdRng::seed_from_u64(self.args.seed));
        for document in documents {
            let left = most.saturating_sub(self.tally.right(Group::Mock));
            if left == 0 {
                break;
            }
            let mock = match servers::Mock::start(&program, &document, folder, self.stop) {
                Ok(mock) => mock,
                Err(error) => {
                    self.stop.check()?;
                    say(&format!("{} is not served: {error:#}", document.display()));
                    continue;
                }
            };
            if let Err(error) = self.source(&mock.served, left.min(MOST_OF_A_DOCUMENT)) {
                self.stop.check()?;
                say(&format!("{} was left out: {error:#}", document.display()));
            }
        }
        Ok(())
    }

    /// Candidates of a server that answer as they should, whatever the gate says of them.
    /// Beside them: every operation of the document.
    async fn rights(
        &mut self,
        served: &mut Served,
        most: usize,
    ) -> Result<(Vec<Right>, BTreeSet<String>)> {
        let mut candidates = self.bench.learn(&served.source, &served.base).await?;
        let declared = candidates.iter().map(|candidate| candidate.locator.clone()).collect();
        let (_, base) = self.bench.proxy.route(&served.base, Fault::None, 0);
        let locators = candidates.iter().map(|candidate| candidate.locator.clone());
        served.source.allow_operations = locators.filter(|it| served.may_write(it)).collect();
        let policy =
            CallPolicy::of_source(&served.source, &[(served.source.name.clone(), base)].into());
        let mut random = StdRng::seed_from_u64(self.args.seed);
        candidates.shuffle(&mut random);
        let mut rights: Vec<Right> = Vec::new();
        for candidate in candidates {
            if rights.len() >= most {
                break;
            }
            self.stop.check()?;
            let name = candidate.name.clone();
            match self.right(candidate, served, &policy).await {
                Ok(right) => rights.push(right),
                Err(why) => self.tally.left_out(served.group, &name, &why, self.args.verbose),
            }
        }
        rights.sort_by(|a, b| a.candidate.name.cmp(&b.candidate.name));
        Ok((rights, declared))
    }

    async fn right(
        &self,
        candidate: Candidate,
        served: &Served,
        policy: &CallPolicy,
    ) -> Result<Right, String> {
        let operation: evo_agents::sources::openapi::operation::Operation =
            serde_json::from_value(candidate.definition.clone()).map_err(|e| e.to_string())?;
        if !operation.is_allowed(&served.source) {
            return Err("a write to a server that is only read".to_owned());
        }
        let answers = candidate.cases.iter().filter(|case| !case.expect.refusal).count();
        if answers == 0 {
            return Err("no example to try it with".to_owned());
        }
        let (artifact_id, built) =
            self.bench.build(&candidate, &served.source).await.map_err(|e| format!("{e:#}"))?;
        let BuildingOutput { manifest, endpoints, outcome, .. } = built;
        if let Some(outcome) = outcome {
            return Err(format!("not built: {}", outcome.code));
        }
        let package = self.bench.package(&artifact_id).await.map_err(|e| format!("{e:#}"))?;
        let schema = operation.answer.schema.as_ref();
        same::works(self.bench.executor(), &package, &candidate.cases, schema, policy).await?;
        let known = KnownSkill {
            name: manifest.name,
            active: true,
            fingerprint: candidate.fingerprint.clone(),
            description: manifest.description,
            capabilities: manifest.capabilities,
            endpoints,
            inputs: manifest.inputs,
            outputs: manifest.outputs,
        };
        Ok(Right { candidate, package, artifact_id, known })
    }

    /// Every skill that works, and its mutants.
    async fn entrants(
        &mut self,
        served: &Served,
        rights: &[Right],
        declared: &BTreeSet<String>,
    ) -> Result<Vec<(Entry, Entrant)>> {
        let mut entrants = Vec::new();
        let (_, base) = self.bench.proxy.route(&served.base, Fault::None, 0);
        let policy =
            CallPolicy::of_source(&served.source, &[(served.source.name.clone(), base)].into());
        for (index, right) in rights.iter().enumerate() {
            self.stop.check()?;
            let entrant = Entrant {
                candidate: right.candidate.clone(),
                files: None,
                source: served.source.clone(),
                server: served.base.clone(),
                fault: Fault::None,
                incumbent: None,
                known: rights[..index].iter().map(|other| other.known.clone()).collect(),
                seed: seed_of(self.args.seed, &right.candidate.name, "right"),
            };
            let entry = Entry::right(served.group, &right.candidate.name);
            for class in Class::HTTP {
                let seed = seed_of(self.args.seed, &right.candidate.name, &format!("{class:?}"));
                let mut random = StdRng::seed_from_u64(seed);
                if served.group == Group::Mock && index % 3 > 0 && class.is_costly() {
                    continue;
                }
                let made =
                    mutants::of(class, &right.candidate, &right.package, declared, &mut random);
                if made.is_empty() {
                    self.tally.not_applicable(class);
                }
                // The mutants of one class differ in where the fault is, not in what they do.
                let mut equivalent = None;
                for mutant in made {
                    let entry = Entry::mutant(served.group, &right.candidate.name, &mutant);
                    if mutant.may_be_equivalent && equivalent.is_none() {
                        equivalent = Some(self.is_equivalent(right, &mutant, &policy).await?);
                    }
                    if mutant.may_be_equivalent && equivalent == Some(true) {
                        self.tally.equivalent(entry);
                        continue;
                    }
                    entrants.push((entry, Self::entrant(&entrant, right, mutant, seed)));
                }
            }
            entrants.push((entry, entrant));
        }
        // Not class by class: what is slow would come all at once.
        entrants.shuffle(&mut StdRng::seed_from_u64(self.args.seed));
        Ok(entrants)
    }

    fn entrant(of: &Entrant, right: &Right, mutant: Mutant, seed: u64) -> Entrant {
        let incumbent = (mutant.level == Level::Version).then(|| Incumbent {
            artifact_id: right.artifact_id.clone(),
            version: "0.1.0".to_owned(),
        });
        Entrant {
            candidate: mutant.candidate,
            files: mutant.files,
            fault: mutant.fault,
            incumbent,
            seed,
            ..of.clone()
        }
    }

    /// Whether a mutant answers as the right skill does, which is found out by calling both.
    async fn is_equivalent(
        &self,
        right: &Right,
        mutant: &Mutant,
        policy: &CallPolicy,
    ) -> Result<bool> {
        let executor = self.bench.executor();
        let cases = &right.candidate.cases;
        match &mutant.files {
            Some(files) => {
                let package = Package::from_files(files.clone());
                let package = package.map_err(|error| anyhow!("{}: {error}", mutant.what))?;
                Ok(same::answers_alike(executor, [&right.package, &package], cases, policy).await)
            }
            None => {
                Ok(same::is_unharmed(executor, &right.package, cases, policy, mutant.fault).await)
            }
        }
    }

    async fn judge(&mut self, entrants: Vec<(Entry, Entrant)>, jobs: usize) -> Result<()> {
        let bench = &self.bench;
        let stop = self.stop;
        let all = entrants.len();
        let judging = |entrants: Vec<(Entry, Entrant)>, jobs| {
            let one = move |(entry, entrant): (Entry, Entrant)| async move {
                stop.check()?;
                let judged = bench.judge(&entrant).await;
                let judged =
                    judged.with_context(|| format!("{} {:?}", entry.skill, entry.class))?;
                Ok::<_, anyhow::Error>(Found { entry, judged })
            };
            stream::iter(entrants.into_iter().map(one)).buffer_unordered(jobs)
        };
        // What is slow by design mostly waits, and what waits makes nobody else slow.
        let (slow, quick): (Vec<_>, Vec<_>) =
            entrants.into_iter().partition(|(entry, _)| entry.class == Some(Class::Slow));
        let mut judging = stream::select(judging(quick, jobs), judging(slow, SLOW_JOBS));
        let (mut judged, mut told) = (0, Instant::now());
        while let Some(found) = judging.next().await {
            let found = found?;
            judged += 1;
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                say(&format!("  {judged} of {all} judged"));
            }
            if let Some(text) = found.wrong() {
                say(&text);
            }
            self.tally.add(found);
        }
        Ok(())
    }

    /// Code that does what it should, and code that knows the train cases by heart.
    fn code(&mut self) -> Result<()> {
        let runtime = self.runtime;
        let usable = runtime.block_on(async {
            sandbox::Sandbox::new(sandbox::Settings {
                helper: program(self.args.binary.as_deref(), &["evo-runner", "evo"]),
                ..sandbox::Settings::load(&evo_agents::config::environment)
            })
            .probe()
            .await
        });
        if !usable.usable {
            say(&format!("code is left out, so there are no memorisers: {}", usable.summary()));
            return Ok(());
        }
        let source = evo_common::config::SourceConfig::openapi("requests", "requests");
        let rights = code::right(self.args.code())?;
        let mut entrants = Vec::new();
        for right in &rights {
            let name = right.candidate.name.clone();
            let seed = seed_of(self.args.seed, &name, "code");
            let entrant = Entrant {
                candidate: right.candidate.clone(),
                files: Some(right.files.clone()),
                source: source.clone(),
                server: String::new(),
                fault: Fault::None,
                incumbent: None,
                known: Vec::new(),
                seed,
            };
            let train = self.bench.train_cases(&right.candidate);
            for (what, guess) in code::GUESSES {
                let files = code::memoriser(right, &train, guess)?;
                let entry = Entry {
                    group: Group::Code,
                    skill: name.clone(),
                    class: Some(Class::Memoriser),
                    level: Some(Level::Code),
                    what: what.to_owned(),
                };
                entrants.push((entry, Entrant { files: Some(files), ..entrant.clone() }));
            }
            entrants.push((Entry::right(Group::Code, &name), entrant));
        }
        say(&format!(
            "code: {} skills that work, {} candidates to judge",
            rights.len(),
            entrants.len()
        ));
        runtime.block_on(self.judge(entrants, CODE_JOBS))
    }
}

fn seed_of(seed: u64, skill: &str, what: &str) -> u64 {
    let digest = sha256_hex(format!("{seed}\n{skill}\n{what}").as_bytes());
    u64::from_str_radix(&digest[..16], 16).expect("hexadecimal digits of a digest")
}

/// Counts by name.
type Counts = BTreeMap<String, u32>;
