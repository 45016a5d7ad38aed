//! Learning: looks into the sources and lists what could become a skill.

use std::collections::BTreeMap;

use evo_common::{
    config::{
        SourceConfig, SourceKind,
        sources::{GATEWAY_LOCATION, KING_LOCATION},
    },
    messages::PipelineStage,
    outcome::{Verdict, codes},
    stage::{Candidate, FailedSource, LearningOutput, PastOutcome, StageContext},
};
use futures_util::future::BoxFuture;
use url::Url;

use super::{done, expect_stage, policy_of};
use crate::{
    handler::{AgentHandler, StageDone, StageError, StageJob},
    skill::execute::Executor,
    sources::openapi::{self, document::Document, naming::Names, operation::Operation},
    wording,
};

/// Where the built-in services keep their documents.
const OWN_DOCUMENT: &str = "/openapi.json";

/// Handler of the stage Learning.
#[derive(Debug, Clone, Copy)]
pub struct Learning;

impl AgentHandler for Learning {
    fn stage(&self, job: StageJob) -> BoxFuture<'_, Result<StageDone, StageError>> {
        Box::pin(async move {
            expect_stage(&job, PipelineStage::Learning)?;
            let output = learn(&job).await?;
            Ok(done(job.artifact_id, &output))
        })
    }
}

/// A source that can't be read fails alone: the others go on.
async fn learn(job: &StageJob) -> Result<LearningOutput, StageError> {
    let mut output = LearningOutput::default();
    let known = job.context.names.as_deref();
    let mut names = Names::with_known(known.unwrap_or_default());
    for source in job.context.sources.iter().filter(|source| source.enabled) {
        if job.services.cancel.is_cancelled() {
            return Err(StageError::transient("Learning was cancelled"));
        }
        if source.kind != SourceKind::Openapi {
            let message = format!("sources of kind {:?} are not read", source.kind);
            output.failed_sources.push(FailedSource { name: source.name.clone(), message });
            continue;
        }
        let found = match load(source, &job.context, &job.services.executor).await {
            Ok(bytes) => {
                let past = past_of(source, &job.context);
                let (found, back) = read(source.clone(), bytes, names, past).await?;
                names = back;
                found
            }
            Err(message) => Err(message),
        };
        match found {
            Ok(candidates) => output.candidates.extend(candidates),
            Err(message) => {
                tracing::warn!(source = %source.name, error = %message, "Source {} failed", source.name);
                output.failed_sources.push(FailedSource { name: source.name.clone(), message });
            }
        }
    }
    let candidates = &mut output.candidates;
    wording::keep(candidates, known.unwrap_or_default());
    if let Some(gateway) = &job.services.gateway {
        wording::improve(gateway, candidates, known, &mut names, job.deadline).await;
    }
    output.usage = wording::usage(job.services.gateway.as_ref());
    Ok(output)
}

/// Reads a document off the runtime's threads: a large one takes a while.
async fn read(
    source: SourceConfig,
    bytes: Vec<u8>,
    mut names: Names,
    past: BTreeMap<String, PastOutcome>,
) -> Result<(Result<Vec<Candidate>, String>, Names), StageError> {
    let work = move || {
        let location = match source.location.as_str() {
            KING_LOCATION | GATEWAY_LOCATION => OWN_DOCUMENT,
            location => &shown(location),
        };
        let found = Document::parse(&bytes, location)
            .map(|document| {
                let mut found = openapi::candidates(&document, &source, &mut names);
                recall(&mut found, past);
                ranked(found, &source)
            })
            .map_err(|error| error.to_string());
        (found, names)
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StageError::permanent(format!("reading a document broke off: {error}")))
}

/// What king remembers of a source's operations, by their locators.
fn past_of(source: &SourceConfig, context: &StageContext) -> BTreeMap<String, PastOutcome> {
    let of_source = context.past.iter().filter(|past| past.source == source.name);
    of_source.map(|past| (past.locator.clone(), past.clone())).collect()
}

/// Notes at each candidate how the last try with the same definition ended. Another definition is
/// a new chance.
fn recall(candidates: &mut [Candidate], mut past: BTreeMap<String, PastOutcome>) {
    for candidate in candidates {
        candidate.past = past
            .remove(&candidate.locator)
            .filter(|past| past.fingerprint == candidate.fingerprint);
    }
}

/// At most as many candidates as the source allows. Those that may be executed come first, and of
/// them those that were not tried as they are; what failed often comes late, so that a limited
/// cycle does not try the same again and again.
fn ranked(mut candidates: Vec<Candidate>, source: &SourceConfig) -> Vec<Candidate> {
    let Some(most) = source.max_candidates else {
        candidates.sort_by_key(|candidate| tried(candidate.past.as_ref()));
        return candidates;
    };
    let executable = |candidate: &Candidate| {
        serde_json::from_value::<Operation>(candidate.definition.clone())
            .is_ok_and(|operation| operation.is_allowed(source) && operation.problem.is_none())
    };
    candidates
        .sort_by_cached_key(|candidate| (!executable(candidate), tried(candidate.past.as_ref())));
    candidates.truncate(most as usize);
    candidates
}

/// How little can be hoped of another try with the same definition.
fn tried(past: Option<&PastOutcome>) -> (u8, u32) {
    let Some(past) = past else { return (0, 0) };
    match past.decision {
        // It waits for more trials, which the next try makes.
        Verdict::Held
            if [codes::NEED_MORE_EVIDENCE, codes::FLAKY, codes::LATENCY].contains(&&*past.code) =>
        {
            (0, 0)
        }
        // What it lacks may be there by now.
        Verdict::Held | Verdict::Failed => (1, past.count),
        // It is in use.
        Verdict::Active => (2, 0),
        Verdict::Discarded => (3, past.count),
    }
}

async fn load(
    source: &SourceConfig,
    context: &StageContext,
    executor: &Executor,
) -> Result<Vec<u8>, String> {
    let location = source.location.as_str();
    let place = shown(location);
    let mut policy = policy_of(context, source);
    let url = if [KING_LOCATION, GATEWAY_LOCATION].contains(&location) {
        let base = context.servers.get(&source.name).ok_or_else(|| {
            format!("{location} has no address today: is the service of {:?} running?", source.name)
        })?;
        format!("{}{OWN_DOCUMENT}", base.trim_end_matches('/'))
    } else {
        match Url::parse(location) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => {
                // Naming the document is the operator's leave to fetch it, from there only.
                policy.allow_origins.push(url.origin().ascii_serialization());
                location.to_owned()
            }
            Ok(url) if url.scheme() == "file" => {
                let path = url
                    .to_file_path()
                    .map_err(|()| format!("{place}: not the URL of a file on this machine"))?;
                return read_file(&path).await;
            }
            // A one-letter scheme is a drive of Windows, anything else with `://` a mistake.
            Ok(url) if location.contains("://") => {
                return Err(format!(
                    "{place}: the scheme {:?} is not supported; use http, https or a file path",
                    url.scheme()
                ));
            }
            Err(error) if location.contains("://") => {
                return Err(format!("{place}: the location is no URL: {error}"));
            }
            _ => return read_file(std::path::Path::new(location)).await,
        }
    };
    let place = shown(&url);
    executor.get_document(&url, &policy).await.map_err(|error| format!("{place}: {error}"))
}

/// A location for messages: of a URL only origin and path, since a query may hold a signature or
/// a key, and the part before the host a password.
fn shown(location: &str) -> String {
    let Some((scheme, _)) = location.split_once("://") else { return location.to_owned() };
    match Url::parse(location) {
        Ok(url) => {
            let host = url.host_str().unwrap_or_default();
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{host}{port}{}", url.scheme(), url.path())
        }
        Err(_) => format!("{scheme}://…"),
    }
}

async fn read_file(path: &std::path::Path) -> Result<Vec<u8>, String> {
    let most = openapi::document::MAX_DOCUMENT_BYTES as u64;
    let failed =
        |error: std::io::Error| format!("{}: the document can't be read: {error}", path.display());
    let size = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if size > most {
        return Err(format!(
            "{}: the document has {size} bytes; at most {most} are read",
            path.display()
        ));
    }
    tokio::fs::read(path).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_shown_without_secrets() {
        for (location, expected) in [
            (
                "https://u:p@example.com:8443/a/api.json?sig=s#f",
                "https://example.com:8443/a/api.json",
            ),
            ("http://[::1]:3000/x?key=s", "http://[::1]:3000/x"),
            ("file:///srv/api.json", "file:///srv/api.json"),
            ("ftp://u:p@example.com/api.json?s", "ftp://example.com/api.json"),
            ("https://u:p@example.com:99999/?sig=s", "https://…"),
            ("docs/what?.json", "docs/what?.json"),
            (KING_LOCATION, KING_LOCATION),
        ] {
            assert_eq!(shown(location), expected);
        }
    }
}
