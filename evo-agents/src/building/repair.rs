//! A better version of a skill that fails in use: its program corrected by a model, or its call by
//! the search.

use evo_common::{
    case::Case,
    ids::{ArtifactId, sha256_hex},
    outcome::{Outcome, codes},
    stage::Candidate,
};
use tokio_util::sync::CancellationToken;

use super::{
    Build, definition,
    model::{self, Present, Work, program_of},
    package::Built,
    search::{
        self, Budget, Ended, Task,
        knowledge::{Knowledge, Writes},
        renewed,
        world::{Evaluate as _, Live},
    },
};
use crate::{
    handler::{StageError, StageJob},
    roles::{policy_with_parts, source_of},
    skill::{
        execute::CallPolicy,
        package::{Kind, Package},
    },
    sources::{
        openapi::cases::with_declared_schema,
        requests::{BUILDER, Broken},
    },
};

/// Calls that the search for a better call may make.
const CALLS: u32 = 400;
/// Longest of them.
const CALL_TIMEOUT_MS: u64 = 5_000;

/// The package, or how the candidate ends without one.
pub(super) async fn build(candidate: &Candidate, version: &str, job: &StageJob) -> Build {
    let broken: Broken = definition(candidate)?;
    let incumbent = job.context.incumbent.as_ref().map(|incumbent| &incumbent.artifact_id);
    let Some(id) = broken.artifact_id.as_ref().or(incumbent) else {
        let reason = format!("no version of {} is known that could be repaired", broken.skill);
        return Ok(Err(Outcome::discarded(codes::DUPLICATE, reason)));
    };
    let failing = package(job, id).await?;
    let mut other = None;
    if let Some(incumbent) = incumbent.filter(|incumbent| *incumbent != id) {
        let now = package(job, incumbent).await?;
        let made = now.provenance.as_ref();
        if made.is_some_and(|made| made.parents.contains(id) || made.parent.as_ref() == Some(id)) {
            let reason = "the version that failed has been replaced by a better one already";
            return Ok(Err(Outcome::discarded(codes::DUPLICATE, reason)));
        }
        other = Some(now);
    }
    match &failing.kind {
        Kind::Code => code(candidate, version, job, &broken, &failing).await,
        Kind::Http | Kind::Composed(_) => {
            call(candidate, version, job, &failing, other.as_ref()).await
        }
        Kind::Mcp(call) => {
            let reason = format!(
                "it only calls the tool {} of an MCP server, in which nothing can be changed here",
                call.tool
            );
            Ok(Err(Outcome::held(codes::NO_BUILDER, reason)))
        }
    }
}

async fn package(job: &StageJob, id: &str) -> Result<Package, StageError> {
    let id = ArtifactId::parse(id)
        .map_err(|error| StageError::permanent(format!("`definition.artifact_id`: {error}")))?;
    Ok(job.services.artifacts.package(&id).await?)
}

/// A model corrects the program.
async fn code(
    candidate: &Candidate,
    version: &str,
    job: &StageJob,
    broken: &Broken,
    failing: &Package,
) -> Build {
    let text = format!("{}\n{}", failing.manifest.description, broken.text);
    let work = Work {
        job,
        candidate,
        version,
        builder: BUILDER,
        text: &text,
        inputs: &failing.manifest.inputs,
        outputs: &failing.manifest.outputs,
        present: Some(Present { package: failing, cluster: broken.cluster.as_deref() }),
    };
    let built = match model::write(&work).await? {
        Ok(built) => built,
        Err(outcome) => return Ok(Err(outcome)),
    };
    let code = |package: &Package| program_of(package).map(|program| program.code);
    let new = Package::from_files(built.files.clone());
    if new.is_ok_and(|new| code(&new) == code(failing)) {
        let reason = "the model gave the same program again";
        return Ok(Err(Outcome::discarded(codes::NO_IMPROVEMENT, reason)));
    }
    Ok(Ok(built))
}

/// The search corrects the call, unless the version that is in use now, `now`, has nothing to be
/// corrected. A document that has changed is noticed by Learning itself, which
/// then has a candidate of the new definition.
async fn call(
    candidate: &Candidate,
    version: &str,
    job: &StageJob,
    failing: &Package,
    now: Option<&Package>,
) -> Build {
    let cases = cases(job, failing)?;
    if cases.iter().all(|case| case.expect.refusal) {
        let skill = &candidate.name;
        let reason = format!(
            "there is no case that a search could go by: of one or two, all are kept to judge by; `evo learn \"…\" --skill {skill} --examples FILE` gives more"
        );
        return Ok(Err(Outcome::held(codes::NO_ORACLE, reason)));
    }
    let source = source_of(&job.context, candidate)?;
    let in_use = job.services.skills.snapshot(&job.context.servers, &job.run_id).await;
    let names = in_use.manifests().map(|manifest| manifest.name.as_str());
    let of_source = |package: &Package| {
        package.provenance.as_ref().is_some_and(|made| made.source == candidate.source)
    };
    let siblings: Vec<_> = names
        .filter(|name| *name != candidate.name)
        .filter_map(|name| in_use.resolve(name))
        .filter(|package| of_source(package))
        .collect();
    let all = || siblings.iter().map(AsRef::as_ref).chain([failing]);
    let writes = Writes::of_packages(all(), source);
    // What fails is no example of how the others are called.
    let knowledge = Knowledge::of_packages(siblings.iter().map(AsRef::as_ref), writes.clone());
    let policy = CallPolicy {
        timeout_cap_ms: Some(CALL_TIMEOUT_MS),
        ..policy_with_parts(job, source, failing).await
    };
    let world = Live::new(&job.services.executor, &policy, &writes);
    if let Some(now) = now
        && passes_all(now, &cases, &world).await
    {
        let reason = format!(
            "version {} answers all {} train cases, and it is in use again",
            now.manifest.version,
            cases.len()
        );
        return Ok(Err(Outcome::discarded(codes::DUPLICATE, reason)));
    }
    let cancel: &CancellationToken = &job.services.cancel;
    let archive = search::Archive::default();
    let task =
        Task { seed: failing, cases: &cases, knowledge: &knowledge, archive: &archive, cancel };
    // The same failure is searched in the same way.
    let digest = sha256_hex(candidate.fingerprint.as_bytes());
    let seed = u64::from_str_radix(&digest[..15], 16).unwrap_or_default();
    let found = search::improve(&task, &world, Budget::of_calls(CALLS), seed, None).await;
    let Some(found) = found else {
        let reason = "the version that fails can't be packed again";
        return Ok(Err(Outcome::discarded(codes::INVALID_PACKAGE, reason)));
    };
    match found.ended {
        Ended::Cancelled => return Err(StageError::transient("Building was cancelled")),
        Ended::NotAllowed => {
            let reason = format!(
                "it may change something, so that no variant of it is tried; allow_operations of the source {:?} lets it",
                source.name
            );
            return Ok(Err(Outcome::held(codes::WRITE_NOT_ALLOWED, reason)));
        }
        _ if found.best.score.pass_rate() >= 1.0 && !found.is_better() => {
            let reason = format!(
                "it answers all {} train cases now; what fails is not among them, or the server has been well again since",
                cases.len()
            );
            return Ok(Err(Outcome::discarded(codes::NO_IMPROVEMENT, reason)));
        }
        _ if !found.is_better() => {
            let reason = format!(
                "of {} calls that were tried none does better on the {} train cases",
                found.calls,
                cases.len()
            );
            return Ok(Err(Outcome::discarded(codes::NO_IMPROVEMENT, reason)));
        }
        _ => {}
    }
    let replaces = job.context.incumbent.as_ref().map(|incumbent| incumbent.artifact_id.as_str());
    Ok(match renewed(&found.best.package, version, replaces) {
        Ok(package) => Ok(Built {
            endpoints: package.targets(),
            manifest: package.manifest,
            files: package.files,
        }),
        Err(error) => Err(Outcome::discarded(codes::INVALID_PACKAGE, error.to_string())),
    })
}

/// Whether a package passes all cases, each tried once.
async fn passes_all(package: &Package, cases: &[Case], world: &Live<'_>) -> bool {
    for case in cases {
        if !world.run(package, case).await.passed() {
            return false;
        }
    }
    true
}

/// The train cases, with the schema in them that the failing version's own cases have. These are left
/// aside otherwise: some of what it was built with is held out by now.
fn cases(job: &StageJob, failing: &Package) -> Result<Vec<Case>, StageError> {
    let own = failing.train_cases().map_err(|error| StageError::permanent(error.to_string()))?;
    let declared = own.into_iter().find_map(|case| case.expect.schema);
    let cases = with_declared_schema(&job.context.train_cases, declared.as_ref());
    let is_whole = |case: &Case| !case.expect.declared_schema;
    Ok(cases.into_iter().filter(is_whole).collect())
}
