//! What jobs do.

use std::{path::PathBuf, time::Duration};

use evo_common::clock::Timestamp;
use serde_json::{Value, json};

use crate::{
    backup::{self, Places},
    error::chain,
    retention,
    skills::retire,
    state::King,
    store::cron::CronJob,
};

/// How long another service may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest version document that is read.
const MAX_DOCUMENT: usize = 64 * 1024;
/// Backups that are kept when a job does not say.
const KEEP: u64 = 7;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// Starts an evolution cycle.
    EvolutionCycle,
    /// Asks the gateway how it is.
    GatewayHealth,
    /// Takes away what is old.
    Retention,
    /// Looks for a newer version.
    UpdateCheck,
    /// Writes a backup.
    Backup,
    /// Puts skills into the archive.
    RetireSkills,
}

impl Job {
    pub(crate) const ALL: [Self; 6] = [
        Self::EvolutionCycle,
        Self::GatewayHealth,
        Self::Retention,
        Self::UpdateCheck,
        Self::Backup,
        Self::RetireSkills,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::EvolutionCycle => "evolution_cycle",
            Self::GatewayHealth => "gateway_health",
            Self::Retention => "retention",
            Self::UpdateCheck => "update_check",
            Self::Backup => "backup",
            Self::RetireSkills => "retire_skills",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|job| job.as_str() == name)
    }

    /// Today's name of a job of the original.
    pub(crate) fn name_of_original(name: &str) -> &str {
        match name {
            "daily_update_check" => "update_check",
            "gateway_health_check" => "gateway_health",
            "purge_socket_events" | "purge_agent_history" => "retention",
            other => other,
        }
    }

    pub(super) fn default_params(self) -> Value {
        match self {
            Self::Backup => json!({"keep": KEEP}),
            _ => json!({}),
        }
    }

    /// What is wrong with a job's parameters.
    pub(super) fn check_params(self, params: &Value) -> Result<(), String> {
        let known: &[&str] = match self {
            Self::EvolutionCycle => &["sources", "sitting_gap_ms"],
            Self::GatewayHealth | Self::Retention | Self::RetireSkills => &[],
            Self::UpdateCheck => &["url"],
            Self::Backup => &["folder", "keep"],
        };
        for (key, value) in params.as_object().into_iter().flatten() {
            if !known.contains(&key.as_str()) {
                return Err(format!(
                    "{key:?} is unknown; {} takes {}",
                    self.as_str(),
                    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
                ));
            }
            let fine = match key.as_str() {
                "url" => value
                    .as_str()
                    .is_some_and(|url| evo_common::config::check_http_url(url).is_ok()),
                "folder" => value.as_str().is_some_and(|folder| folder.starts_with('/')),
                "keep" => value.as_u64().is_some_and(|keep| (1..=10_000).contains(&keep)),
                "sitting_gap_ms" => value.is_u64(),
                _ => value.is_array(),
            };
            if !fine {
                let wanted = match key.as_str() {
                    "url" => "an http or https address",
                    "folder" => "an absolute path",
                    "keep" => "a number from 1 to 10000",
                    "sitting_gap_ms" => "a number of milliseconds",
                    _ => "a list of source names",
                };
                return Err(format!("{key} is {value}; it must be {wanted}"));
            }
        }
        Ok(())
    }
}

/// Does a job's work; gives what it came to, or why it failed.
pub(super) async fn work(king: &King, job: &CronJob) -> Result<Value, String> {
    match Job::parse(&job.job) {
        // Its work is done with the claim.
        Some(Job::EvolutionCycle) => Ok(Value::Null),
        Some(Job::GatewayHealth) => gateway_health(king).await,
        Some(Job::Retention) => retention::sweep(king, Timestamp::now())
            .await
            .map(|gone| json!({"removed": gone}))
            .map_err(|error| chain(&error)),
        Some(Job::RetireSkills) => {
            retire::sweep(&king.store, &king.config.skills, Timestamp::now())
                .await
                .map(|retired| json!({"retired": retired}))
                .map_err(|error| chain(&error))
        }
        Some(Job::UpdateCheck) => update_check(&job.params).await,
        Some(Job::Backup) => back_up(king, &job.params).await,
        #[cfg(test)]
        None if job.job == "panics" => panic!("on purpose"),
        None => Err(format!("this version knows no job {:?}", job.job)),
    }
}

async fn gateway_health(king: &King) -> Result<Value, String> {
    let Some(gateway) = &king.config.gateway_url else {
        return Ok(json!({"status": "none", "detail": "no gateway is configured"}));
    };
    let url = format!("{}/health", gateway.trim_end_matches('/'));
    let answer = client()?.get(&url).send().await.map_err(|error| {
        format!("the gateway at {gateway} does not answer: {}", chain(&error.without_url()))
    })?;
    let status = answer.status();
    let body: Value = answer.json().await.unwrap_or_default();
    if !status.is_success() {
        return Err(format!("the gateway at {gateway} answers {status}"));
    }
    Ok(json!({"status": body["status"]}))
}

async fn update_check(params: &Value) -> Result<Value, String> {
    let url = params["url"].as_str().ok_or(
        "it is not said where to look: PATCH /admin/crons/update_check {\"params\": {\"url\": \"https://…\"}}",
    )?;
    let mut answer = client()?
        .get(url)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|error| format!("{url} does not answer: {}", chain(&error.without_url())))?;
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| chain(&error.without_url()))? {
        text.extend_from_slice(&chunk);
        if text.len() > MAX_DOCUMENT {
            return Err(format!("{url} is larger than {MAX_DOCUMENT} bytes"));
        }
    }
    let document: Value = serde_json::from_slice(&text)
        .map_err(|error| format!("{url} is no JSON document: {error}"))?;
    let latest = document["version"]
        .as_str()
        .and_then(|version| semver::Version::parse(version.trim_start_matches('v')).ok())
        .ok_or_else(|| format!("{url} has no `version` such as \"1.2.3\""))?;
    let current = semver::Version::parse(crate::VERSION).map_err(|error| error.to_string())?;
    let newer = latest > current;
    if newer {
        tracing::info!(%latest, "Version {latest} of Evo is there; this is {current}");
    }
    Ok(json!({"current": current.to_string(), "latest": latest.to_string(), "newer": newer}))
}

fn client() -> Result<reqwest::Client, String> {
    evo_common::tls::install();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .map_err(|error| format!("no HTTP client: {error}"))
}

async fn back_up(king: &King, params: &Value) -> Result<Value, String> {
    let places = Places::of(&king.config).map_err(|error| error.to_string())?;
    let folder =
        params["folder"].as_str().map_or_else(|| king.config.data.join("backups"), PathBuf::from);
    backup::make_private(&folder).map_err(|error| chain(&error))?;
    let moment = chrono::Utc::now().format("%Y%m%d-%H%M%S%.3f");
    let file = folder.join(format!("king-{moment}.backup"));
    let made = {
        let _alone = king.maintenance.lock().await;
        backup::create(&places, &file, false, backup::silent()).await
    };
    let made = made.map_err(|error| chain(&error))?;
    let keep = usize::try_from(params["keep"].as_u64().unwrap_or(KEEP)).unwrap_or(usize::MAX);
    let gone = tokio::task::spawn_blocking(move || keep_newest(&folder, keep))
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("old backups could not be removed: {error}"))?;
    Ok(
        json!({"file": file, "bytes": made.bytes, "packages": made.packages, "left_out": made.left_out, "removed": gone}),
    )
}

/// Removes all but the newest backups that this job has made.
fn keep_newest(folder: &std::path::Path, keep: usize) -> std::io::Result<usize> {
    let mut made: Vec<PathBuf> = std::fs::read_dir(folder)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("king-2") && name.ends_with(".backup")
        })
        .collect();
    // Their names are their dates.
    made.sort();
    let old = made.len().saturating_sub(keep);
    for path in &made[..old] {
        std::fs::remove_file(path)?;
    }
    Ok(old)
}
