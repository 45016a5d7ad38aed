//! Calls that fail ask for something by themselves: those that have their error and the shape of their
//! inputs in common are counted together, and when there are many of them within a while, a request is
//! made: a repair of the skill, or a new one where callers want a skill that there is not. Everything is
//! done in the caller's transaction.

use evo_common::{
    clock::Timestamp, ids::sha256_hex, redact::redact, rollout::VersionRef, stage::RequestKind,
};
use serde_json::{Map, Value};

use super::{
    demand, failure,
    repair::{self, Alike},
    requests::{self, Wanted},
};
use crate::{
    config::TelemetryConfig,
    store::{
        self, Connection,
        requests::clusters::{self, Cluster},
    },
};

/// Code of calls of a skill that there is not.
pub(crate) const NOT_FOUND: &str = "skill_not_found";
/// Code of what an agent lacks, in its own words.
pub(crate) const MISSING: &str = "missing_capability";
/// Longest name, and text, that callers give.
const MAX_NAME: usize = 64;
const MAX_TEXT: usize = 500;

/// A call that failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failed<'f> {
    pub(crate) skill: &'f str,
    /// The version that ran; none when there is no such skill.
    pub(crate) version: Option<&'f VersionRef>,
    pub(crate) code: &'f str,
    pub(crate) detail: &'f str,
    pub(crate) input: Option<&'f Map<String, Value>>,
}

/// Counts a failed call of a version in use. When there have been many of its kind, its repair is asked
/// for.
pub(crate) async fn failed(
    connection: &Connection,
    now: Timestamp,
    config: &TelemetryConfig,
    call: Failed<'_>,
) -> store::Result<()> {
    let Some(mut cluster) = count(connection, now, config, call).await? else { return Ok(()) };
    let Some(version) = call.version else { return Ok(()) };
    let common = common(&cluster);
    let text = format!(
        "{} calls failed alike (inputs: {}), with `{common}`.",
        cluster.failures, cluster.shape
    );
    let weight = f64::from(config.failures);
    let alike = Alike { cluster: &common, text: &text, weight, rest_ms: config.rest_ms };
    let artifact_id = &version.artifact_id;
    let asked = repair::ask_for(connection, now, call.skill, artifact_id, alike);
    cluster.request_id = asked.await?;
    clusters::save(connection, &cluster).await
}

/// Somebody wants a skill that there is not. When many do, it is asked for.
pub(crate) async fn missing(
    connection: &Connection,
    now: Timestamp,
    config: &TelemetryConfig,
    code: &str,
    wanted: &str,
    input: Option<&Map<String, Value>>,
) -> store::Result<()> {
    let wanted = wanted.trim();
    let (name, detail) = match code {
        MISSING => (MISSING.to_owned(), cut(&redact(wanted), MAX_TEXT)),
        _ => (cut(&redact(wanted), MAX_NAME), String::new()),
    };
    if wanted.is_empty() || name.chars().chain(detail.chars()).any(char::is_control) {
        return Ok(());
    }
    let call = Failed { skill: &name, version: None, code, detail: &detail, input };
    let Some(mut cluster) = count(connection, now, config, call).await? else { return Ok(()) };
    let times = cluster.failures;
    let text = match code {
        MISSING => format!("Agents lacked this {times} times: {detail}"),
        _ => format!(
            "Callers wanted a skill called {name:?} {times} times, which there is not (inputs: {})",
            cluster.shape
        ),
    };
    let same = format!("missing {}", cluster.cluster_id);
    let common = common(&cluster);
    let wanted = Wanted {
        kind: RequestKind::New,
        origin: "telemetry",
        text: &text,
        skill: None,
        artifact_id: None,
        cluster: Some(&common),
        same: &same,
        weight: f64::from(config.failures),
        rest_ms: config.rest_ms,
    };
    cluster.request_id = requests::want(connection, now, wanted).await?;
    clusters::save(connection, &cluster).await
}

/// What the calls of a cluster have in common, in short.
fn common(cluster: &Cluster) -> String {
    if cluster.error.is_empty() {
        return cluster.code.clone();
    }
    format!("{}: {}", cluster.code, cluster.error)
}

/// Counts a failed call; gives its cluster when there have been so many of it that something has to be
/// asked for. It is counted anew then.
async fn count(
    connection: &Connection,
    now: Timestamp,
    config: &TelemetryConfig,
    call: Failed<'_>,
) -> store::Result<Option<Cluster>> {
    let Failed { skill, version, code, detail, input } = call;
    let (error, shape) = (failure::normalised(detail), failure::shape(input));
    let said = [skill, code, error.as_str(), shape.as_str()].join("\n");
    let cluster_id = sha256_hex(said.as_bytes())[..32].to_owned();
    let artifact_id = version.map(|version| version.artifact_id.clone());
    let mut cluster = match clusters::load(connection, &cluster_id).await? {
        Some(known) => Cluster {
            failures: known.failures.saturating_add(1),
            rank: demand::more(known.rank, 1.0, now),
            ..known
        },
        None => {
            clusters::make_room(connection, config.max_clusters).await?;
            Cluster {
                cluster_id,
                skill: skill.to_owned(),
                artifact_id: artifact_id.clone(),
                code: code.to_owned(),
                error,
                shape,
                failures: 1,
                rank: demand::first(1.0, now),
                recent: Vec::new(),
                request_id: None,
                first_at: now,
                last_at: now,
            }
        }
    };
    if cluster.artifact_id != artifact_id {
        // What another version did says nothing about this one.
        (cluster.recent, cluster.request_id, cluster.failures) = (Vec::new(), None, 1);
        cluster.artifact_id = artifact_id;
    }
    cluster.last_at = now;
    cluster.recent.push(now.0);
    let full = is_full(&mut cluster.recent, config, now);
    clusters::save(connection, &cluster).await?;
    Ok(full.then_some(cluster))
}

/// Whether the newest failures came within the window; they are used up then. Pure.
fn is_full(recent: &mut Vec<i64>, config: &TelemetryConfig, now: Timestamp) -> bool {
    let least = config.failures as usize;
    let extra = recent.len().saturating_sub(least);
    recent.drain(..extra);
    let oldest = recent.first().copied().map(Timestamp);
    let full = recent.len() >= least
        && oldest.is_some_and(|oldest| now.ms_since(oldest) <= config.window_ms);
    if full {
        recent.clear();
    }
    full
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_failures_within_the_window_are_enough_and_count_once() {
        let config = TelemetryConfig {
            failures: 3,
            window_ms: 100,
            max_clusters: 10,
            ..TelemetryConfig::default()
        };
        let mut recent = Vec::new();
        let mut full_at = Vec::new();
        for at in [0, 90, 150, 180, 185, 186, 400, 600, 650, 700] {
            recent.push(at);
            if is_full(&mut recent, &config, Timestamp(at)) {
                full_at.push(at);
            }
        }
        // 90, 150, 180; then 185, 186 and 400 are too far apart; then 600, 650, 700.
        assert_eq!(full_at, [180, 700]);
        assert_eq!(recent, Vec::<i64>::new());
    }
}
