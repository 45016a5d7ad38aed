//! Code that a model writes, and repairs from what happens when it runs.
//!
//! A program is scanned before it runs, and runs in the sandbox only. The model sees the train cases
//! and how its program did on them: nothing else is here that it could see. When all of them are
//! answered the program becomes a package, which is then measured on cases that no model has seen.

mod answer;
mod prompt;

use std::time::Duration;

use evo_common::{
    artifact::Files,
    case::Case,
    clock::Timestamp,
    outcome::{Outcome, codes},
    skill::{CodeRuntime, SkillIO, SkillManifest, Written, files},
    stage::{Candidate, ModelUsage, Severity},
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

pub(super) use self::answer::Program;
use self::prompt::Shown;
use super::{
    Build,
    package::{Built, Draft, provenance},
};
use crate::{
    evaluation::{oracle::Oracle, trials::failure_of},
    gateway::{ChatRequest, Error, GatewayClient},
    handler::{StageError, StageJob},
    scan,
    skill::{execute::CallPolicy, package::Package},
    wording,
};

/// Longest run of one case while a program is tried.
const CASE_TIMEOUT_MS: u64 = 5_000;
/// Most cases on which a program is tried.
const MAX_CASES: usize = 60;
/// Failures that a model is shown.
const MAX_FAILURES: usize = 4;
/// Longest answer or error that a model is shown.
const MAX_SHOWN: usize = 1_500;
/// Cases that may run out of time before the rest is left.
const MAX_TIMEOUTS: usize = 2;
/// Longest call of a model.
const CALL_TIME: Duration = Duration::from_secs(180);
/// Longest time that is spent on one candidate.
const BUILD_TIME: Duration = Duration::from_secs(900);
/// Longest program, in tokens.
const MAX_TOKENS: u32 = 8_192;
/// Fewest tokens with which a model is asked at all.
const MIN_TOKENS: u64 = 500;
/// Bytes of a token where the provider counts none.
const BYTES_PER_TOKEN: usize = 4;

/// What a program is to be written for.
pub(super) struct Work<'w> {
    pub(super) job: &'w StageJob,
    pub(super) candidate: &'w Candidate,
    pub(super) version: &'w str,
    /// Who builds it.
    pub(super) builder: &'w str,
    /// What is wanted, in the words of whoever asked.
    pub(super) text: &'w str,
    pub(super) inputs: &'w [SkillIO],
    pub(super) outputs: &'w [SkillIO],
    /// A program that is to be repaired.
    pub(super) present: Option<Present<'w>>,
}

/// A program that fails.
pub(super) struct Present<'w> {
    pub(super) package: &'w Package,
    /// What there is to say about its failures.
    pub(super) cluster: Option<&'w str>,
}

/// What became of one try.
enum Tried {
    Passed(Box<Built>),
    /// What the model is told.
    Failed {
        at: Reached,
        says: String,
        problem: Value,
    },
    /// Nothing that a model could change.
    Ended(Outcome),
}

/// How far the best try came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    /// No program.
    Answer,
    /// A program that the scan does not let run.
    Scan,
    /// A program that ran, and how many cases it answered.
    Run(usize),
}

/// What may still be spent.
struct Budget {
    tokens: u64,
    usd: Option<f64>,
    ends: Instant,
    /// Tokens that nobody counted, by their length.
    uncounted: u64,
}

impl Budget {
    /// The least of what the runner, the cycle and the attempt's deadline allow.
    fn of(job: &StageJob, gateway: &GatewayClient) -> Self {
        let limits = gateway.build_limits();
        let cycle = job.context.budget.unwrap_or_default();
        let usd = [limits.usd, cycle.usd].into_iter().flatten().reduce(f64::min);
        // The stage itself still has to end in time.
        let left = Duration::from_millis(job.deadline.ms_since(Timestamp::now()) / 4 * 3);
        Self {
            tokens: cycle.tokens.map_or(limits.tokens, |tokens| tokens.min(limits.tokens)),
            usd,
            ends: Instant::now() + left.min(BUILD_TIME),
            uncounted: 0,
        }
    }

    /// How many tokens an answer may have, or what is used up.
    fn answer_tokens(&self, used: &ModelUsage) -> Result<u32, String> {
        let spent = used.input_tokens + used.output_tokens + self.uncounted;
        let left = self.tokens.saturating_sub(spent);
        if left < MIN_TOKENS {
            return Err(format!("{spent} of {} tokens were used", self.tokens));
        }
        if let (Some(most), Some(cost)) = (self.usd, used.cost_usd)
            && cost >= most
        {
            return Err(format!("{cost:.4} of {most:.4} USD were spent"));
        }
        if self.ends <= Instant::now() {
            return Err("the time for it is over".to_owned());
        }
        Ok(u32::try_from(left).unwrap_or(MAX_TOKENS).min(MAX_TOKENS))
    }
}

/// Writes a program that answers every train case, or says why there is none.
pub(super) async fn write(work: &Work<'_>) -> Build {
    let job = work.job;
    if let Err(advice) = job.services.executor.runs_code().await {
        let reason = format!("its code could not be tried: {advice}");
        return Ok(Err(Outcome::held(codes::SANDBOX_UNAVAILABLE, reason)));
    }
    if let Some(built) = work.as_before().await? {
        return Ok(Ok(built));
    }
    let gateway = match asked(job).await {
        Ok(gateway) => gateway,
        Err(outcome) => return Ok(Err(outcome)),
    };
    let shown = Shown {
        wanted: prompt::wanted(work.text),
        inputs: work.inputs,
        outputs: work.outputs,
        examples: prompt::examples(&job.context.train_cases),
        present_program: work.present_program().await?,
    };
    let (first, digest) = prompt::first(&shown);
    let mut budget = Budget::of(job, gateway);
    let mut request = first.clone();
    let mut best = Reached::Answer;
    let mut last = String::new();
    let tries = gateway.build_limits().repairs.saturating_add(1);
    for attempt in 1..=tries {
        request.max_tokens = match budget.answer_tokens(&gateway.usage()) {
            Ok(tokens) => Some(tokens),
            Err(spent) => return Ok(Err(used_up(&spent, attempt - 1, &last))),
        };
        let (text, model) = match ask(gateway, &request, &mut budget).await {
            Ok(answer) => answer,
            Err(Error::Deadline { ms }) => {
                let spent = format!("the model gave no whole answer within {ms} ms");
                return Ok(Err(used_up(&spent, attempt - 1, &last)));
            }
            Err(Error::Malformed(problem)) => {
                last = problem;
                continue;
            }
            Err(error) if error.is_transient() => {
                return Err(StageError::transient(error.to_string()));
            }
            Err(error) => return Ok(Err(Outcome::held(codes::NO_MODEL, error.to_string()))),
        };
        let author = Author { model: &model, prompt: &digest, attempt };
        let (at, says, problem) = match work.attempt(&text, &author).await? {
            Tried::Passed(built) => return Ok(Ok(*built)),
            Tried::Ended(outcome) => return Ok(Err(outcome)),
            Tried::Failed { at, says, problem } => (at, says, problem),
        };
        tracing::info!(
            skill = %work.candidate.name, attempt, tries, problem = %says,
            "Try {attempt} of {tries} at the code of {} failed: {says}", work.candidate.name
        );
        best = best.max(at);
        last = says;
        request = prompt::next(&first, &text, &problem);
    }
    let total = job.context.train_cases.len();
    let (code, what) = match best {
        Reached::Answer => (codes::MODEL_GARBAGE, "no answer held a program".to_owned()),
        Reached::Scan => (codes::UNSAFE, "no program was safe enough to be run".to_owned()),
        Reached::Run(passed) => (
            codes::TRAIN_FAILED,
            format!("the best program answers {passed} of {total} train cases"),
        ),
    };
    let reason = format!("after {tries} tries of the model {what}; the last one: {last}");
    Ok(Err(Outcome::discarded(code, reason)))
}

fn used_up(spent: &str, tries: u32, last: &str) -> Outcome {
    let last = if last.is_empty() { String::new() } else { format!("; the last try: {last}") };
    let reason = format!("{spent} after {tries} finished tries{last}");
    Outcome::held(codes::BUILD_BUDGET, reason)
}

/// The model to ask, or why none is asked.
async fn asked(job: &StageJob) -> Result<&GatewayClient, Outcome> {
    let none = |why: &str| {
        let reason = format!("it takes code, which a model has to write, and {why}");
        Outcome::held(codes::NO_BUILDER, reason)
    };
    let Some(gateway) = &job.services.gateway else {
        return Err(none("the runner of Building knows no gateway (GATEWAY_ADDRESS)"));
    };
    if gateway.calls_per_cycle() == 0 {
        return Err(none("EVO_MODEL_CALLS is 0"));
    }
    if job.context.budget.is_some_and(|budget| budget.is_used_up()) {
        let reason = "what models may be asked in this cycle is used up; the next one goes on";
        return Err(Outcome::held(codes::BUILD_BUDGET, reason));
    }
    if gateway.model().await.is_none() {
        return Err(none(
            "the gateway lists none (give a provider of gateway.toml its key, or name one with EVO_MODEL)",
        ));
    }
    Ok(gateway)
}

async fn ask(
    gateway: &GatewayClient,
    request: &ChatRequest,
    budget: &mut Budget,
) -> Result<(String, String), Error> {
    let before = gateway.usage();
    let limit = budget.ends.saturating_duration_since(Instant::now()).min(CALL_TIME);
    let answer = gateway.chat(request, limit).await?;
    let used = gateway.usage();
    if used.input_tokens + used.output_tokens == before.input_tokens + before.output_tokens {
        let asked: usize = request.messages.iter().map(|message| message.content.len()).sum();
        let bytes = asked + answer.text.len();
        budget.uncounted += u64::try_from(bytes / BYTES_PER_TOKEN).unwrap_or(u64::MAX);
    }
    if answer.finish_reason.as_deref() == Some("length") {
        return Err(Error::Malformed("the answer was cut off at its longest length".to_owned()));
    }
    Ok((answer.text, answer.model))
}

/// Who wrote a program.
struct Author<'a> {
    model: &'a str,
    prompt: &'a str,
    attempt: u32,
}

#[derive(Serialize)]
struct ConfigFile<'c> {
    runtime: &'c CodeRuntime,
}

impl Work<'_> {
    /// One answer of the model: read, scanned, run.
    async fn attempt(&self, text: &str, author: &Author<'_>) -> Result<Tried, StageError> {
        let failed = |at, says: String| {
            let problem = json!({"problem": says});
            Ok(Tried::Failed { at, says, problem })
        };
        let program = match answer::read(text) {
            Ok(program) => program,
            Err(says) => return failed(Reached::Answer, says),
        };
        let built = match self.package(&program, author) {
            Ok(built) => built,
            Err(outcome) => return failed(Reached::Answer, outcome.reason),
        };
        let findings = scan::scan_files(&built.files);
        if let Some(found) = findings.iter().find(|found| found.severity == Severity::High) {
            let says = format!("{}: {} ({})", found.file, found.message, found.code);
            if is_code(&found.file) {
                return failed(Reached::Scan, says);
            }
            // What was asked for holds it.
            return Ok(Tried::Ended(Outcome::discarded(codes::UNSAFE, says)));
        }
        self.run(built).await
    }

    /// Runs a package on the train cases.
    async fn run(&self, built: Built) -> Result<Tried, StageError> {
        let ended = |outcome| Ok(Tried::Ended(outcome));
        let package = match Package::from_files(built.files.clone()) {
            Ok(package) => package,
            Err(error) => {
                return ended(Outcome::discarded(codes::INVALID_PACKAGE, error.to_string()));
            }
        };
        let services = &self.job.services;
        let policy = CallPolicy { timeout_cap_ms: Some(CASE_TIMEOUT_MS), ..CallPolicy::default() };
        let cases: Vec<&Case> = self.job.context.train_cases.iter().take(MAX_CASES).collect();
        let (mut passed, mut timeouts, mut failures) = (0, 0, Vec::new());
        for case in &cases {
            let oracle = match Oracle::new(case, &package.call.success) {
                Ok(oracle) => oracle,
                Err(error) => return ended(Outcome::held(codes::NO_ORACLE, error.to_string())),
            };
            let result = tokio::select! {
                () = services.cancel.cancelled() => {
                    return Err(StageError::transient("Building was cancelled"));
                }
                result = services.executor.call(&package, &case.input, &policy) => result,
            };
            let (key, shown) = match result {
                Ok(answer) => match oracle.check(&answer) {
                    Ok(()) => {
                        passed += 1;
                        continue;
                    }
                    Err(wrong) => {
                        let shown = json!({"answer": answer.body, "why": wrong.detail});
                        ("answered", shown)
                    }
                },
                // An error is how code refuses an input.
                Err(error) if case.expect.refusal && error.code() == "code_failed" => {
                    passed += 1;
                    continue;
                }
                Err(error) if error.code() == "sandbox_unavailable" => {
                    return ended(Outcome::held(codes::SANDBOX_UNAVAILABLE, error.to_string()));
                }
                Err(error) => {
                    timeouts += usize::from(error.code() == "timeout");
                    let failure = failure_of(&error);
                    let text: String = evo_common::redact::redact(&error.to_string())
                        .chars()
                        .take(MAX_SHOWN)
                        .collect();
                    ("failed", json!({"code": failure.code, "error": text}))
                }
            };
            failures.push(json!({"example": prompt::example(case), key: bounded(shown)}));
            if timeouts >= MAX_TIMEOUTS {
                break;
            }
        }
        if failures.is_empty() {
            return Ok(Tried::Passed(Box::new(built)));
        }
        let says = said(&failures[0]);
        failures.truncate(MAX_FAILURES);
        let problem = json!({"passed": passed, "of": cases.len(), "failures": failures});
        let says = format!("{passed} of {} train cases are answered; {says}", cases.len());
        Ok(Tried::Failed { at: Reached::Run(passed), says, problem })
    }

    /// The package of a program.
    fn package(&self, program: &Program, author: &Author<'_>) -> Result<Built, Outcome> {
        // A repair keeps what the package has beside its program.
        let present = self.present.as_ref().map(|present| present.package);
        let same = present
            .and_then(|package| package.runtime.as_ref())
            .filter(|runtime| runtime.interpreter == program.interpreter);
        let runtime = same.cloned().unwrap_or_else(|| CodeRuntime {
            interpreter: program.interpreter.to_owned(),
            ..CodeRuntime::new(entry(program.interpreter))
        });
        let entry = runtime.entry.clone();
        let mut own = present.filter(|_| same.is_some()).map_or_else(Files::new, own_files);
        own.insert(entry.clone(), program.code.clone().into_bytes());
        let mut fields = vec!["code".to_owned()];
        let about = wording::About::of_texts(&[self.text, &self.candidate.description]);
        let described = program.description.as_deref();
        let description = match described.map(|text| wording::description(text, &about)) {
            Some(Ok(text)) => {
                fields.push("description".to_owned());
                text
            }
            _ => self.candidate.description.clone(),
        };
        let mut provenance = provenance(self.candidate, self.builder, self.job);
        provenance.model = Some(author.model.to_owned());
        provenance.written.push(Written {
            model: author.model.to_owned(),
            prompt: author.prompt.to_owned(),
            fields,
        });
        provenance.parents =
            self.job.context.incumbent.iter().map(|i| i.artifact_id.clone()).collect();
        let first = if self.present.is_some() { "model_repair" } else { "model" };
        provenance.operators.push(first.to_owned());
        let repairs = (1..author.attempt).map(|_| "repair_from_train".to_owned());
        provenance.operators.extend(repairs);
        let draft = Draft {
            manifest: SkillManifest {
                name: self.candidate.name.clone(),
                version: self.version.to_owned(),
                description,
                capabilities: self.candidate.capabilities.clone(),
                inputs: self.inputs.to_vec(),
                outputs: self.outputs.to_vec(),
                dependencies: Vec::new(),
                has_code: true,
            },
            config: &ConfigFile { runtime: &runtime },
            provenance,
            cases: &self.job.context.train_cases,
            usage: format!(
                "Run `{} {entry}` with the inputs as one JSON object on standard input; it writes the answer as JSON to standard output.",
                program.interpreter
            ),
            own,
            document: None,
        };
        draft.write()
    }

    /// The program of the last package that was made of the same definition, if it still answers the
    /// train cases: a model is asked about a definition only once.
    async fn as_before(&self) -> Result<Option<Built>, StageError> {
        let Some(earlier) = &self.job.context.earlier else { return Ok(None) };
        let Ok(id) = evo_common::ids::ArtifactId::parse(earlier.as_str()) else { return Ok(None) };
        let package = match self.job.services.artifacts.package(&id).await {
            Ok(package) => package,
            Err(error) => {
                tracing::debug!(%error, "The package {id} can't be read: {error}");
                return Ok(None);
            }
        };
        let (Some(before), Some(runtime)) = (&package.provenance, &package.runtime) else {
            return Ok(None);
        };
        let Some((program, written)) = program_of(&package)
            .zip(before.written.last())
            .filter(|_| before.fingerprint == self.candidate.fingerprint)
        else {
            return Ok(None);
        };
        let attempt = u32::try_from(before.operators.len()).unwrap_or(1);
        let author = Author { model: &written.model, prompt: &written.prompt, attempt };
        let program =
            Program { description: Some(package.manifest.description.clone()), ..program };
        if runtime.entry != entry(program.interpreter) {
            return Ok(None);
        }
        let Ok(built) = self.package(&program, &author) else { return Ok(None) };
        let dangerous = |found: &evo_common::stage::Finding| found.severity == Severity::High;
        if scan::scan_files(&built.files).iter().any(dangerous) {
            return Ok(None);
        }
        Ok(match self.run(built).await? {
            Tried::Passed(built) => Some(*built),
            Tried::Failed { .. } | Tried::Ended(_) => None,
        })
    }

    /// The program that fails, and how: it is run on the train cases first.
    async fn present_program(&self) -> Result<Option<Value>, StageError> {
        let Some(present) = &self.present else { return Ok(None) };
        let Some(program) = program_of(present.package) else { return Ok(None) };
        let built = Built {
            manifest: present.package.manifest.clone(),
            endpoints: Vec::new(),
            files: present.package.files.clone(),
        };
        let problem = match self.run(built).await? {
            Tried::Failed { problem, .. } => problem,
            Tried::Passed(_) => json!("it answers every example, and fails on other inputs in use"),
            Tried::Ended(outcome) => json!(outcome.reason),
        };
        let shown = prompt::program(&program.code, program.interpreter);
        Ok(shown.map(|program| {
            json!({"program": program, "fails_with": present.cluster, "on_examples": problem})
        }))
    }
}

/// What a package has beside the files that Building writes.
fn own_files(package: &Package) -> Files {
    let written =
        [files::MANIFEST, files::CONFIG, files::TESTS, files::PROVENANCE, files::SKILL_MD];
    let mut own = package.files.clone();
    own.retain(|name, _| !written.contains(&name.as_str()));
    own
}

/// The program that a package runs.
pub(super) fn program_of(package: &Package) -> Option<Program> {
    let runtime = package.runtime.as_ref()?;
    let code = package.files.get(&runtime.entry)?;
    let code = String::from_utf8(code.clone()).ok()?;
    let language = crate::sandbox::interpreter::Language::parse(&runtime.interpreter).ok()?;
    Some(Program { code, interpreter: language.program(), description: None })
}

fn entry(interpreter: &str) -> &'static str {
    if interpreter == "node" { "src/main.js" } else { "src/main.py" }
}

fn is_code(file: &str) -> bool {
    file.starts_with("src/") || file.starts_with("scripts/")
}

/// A value that is short enough for a prompt.
fn bounded(value: Value) -> Value {
    let text = value.to_string();
    if text.len() <= MAX_SHOWN * 2 {
        return value;
    }
    Value::String(text.chars().take(MAX_SHOWN).collect())
}

/// A failure in a sentence, for people.
fn said(failure: &Value) -> String {
    let text = |pointer: &str| failure.pointer(pointer).and_then(Value::as_str);
    let input = failure.pointer("/example/input").map(Value::to_string).unwrap_or_default();
    let input: String = input.chars().take(200).collect();
    let what = text("/failed/error").or_else(|| text("/answered/why")).unwrap_or("it is wrong");
    let what: String = what.chars().take(300).collect();
    format!("with {input}: {what}")
}
