//! Results on disk, from the moment they exist until king has answered them.

use std::path::{Path, PathBuf};

use evo_common::{
    ids::sha256_hex,
    messages::{StageReport, TaskReport},
};
use serde_json::Value;

use super::work::{Item, Key, Report};
use crate::skill::cache::write_atomic;

const FOLDER: &str = "outbox";
/// Folder in the outbox for results of another agent, as after a rename.
const FOREIGN: &str = "foreign";

/// The folder of unanswered results, one file per attempt.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    /// `None`: kept in memory only.
    folder: Option<PathBuf>,
}

/// The outbox can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the outbox of unanswered results can't use {}: {source}", path.display())]
pub struct Error {
    path: PathBuf,
    source: std::io::Error,
}

impl Outbox {
    /// The outbox in an agent's folder; without a folder nothing is kept.
    pub(super) fn new(agent_folder: Option<&Path>) -> Self {
        Self { folder: agent_folder.map(|folder| folder.join(FOLDER)) }
    }

    /// Everything that the last process left for `agent_id`. A file that is no result is moved
    /// aside, and so is one of another agent: king takes it from nobody else.
    pub(super) fn load(&self, agent_id: &str) -> Result<Vec<Report>, Error> {
        let Some(folder) = &self.folder else { return Ok(Vec::new()) };
        let failed = |source| Error { path: folder.clone(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let mut reports = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => {}
                // A write that a crash cut short; the result it replaced was never sent.
                Some("tmp") => {
                    std::fs::remove_file(&path).map_err(|source| Error { path, source })?;
                    continue;
                }
                _ => continue,
            }
            let text =
                std::fs::read(&path).map_err(|source| Error { path: path.clone(), source })?;
            match read(&text) {
                Ok(report) if report.agent_id() != agent_id => {
                    set_foreign_aside(&path, report.agent_id(), agent_id)?;
                }
                Ok(report) if report.key().is_some() => reports.push(report),
                Ok(_) => set_aside(&path, "it names no attempt")?,
                Err(error) => set_aside(&path, &error.to_string())?,
            }
        }
        Ok(reports)
    }

    /// Makes a result durable.
    pub(super) async fn keep(&self, report: &Report) -> Result<(), Error> {
        let (Some(folder), Some(key)) = (&self.folder, report.key()) else {
            return Ok(());
        };
        let path = folder.join(file_name(&key));
        let content = match report {
            Report::Stage(report) => serde_json::to_vec(report),
            Report::Task(report) => serde_json::to_vec(report),
        }
        .expect("a report is plain data");
        blocking(path, move |path| write_atomic(path, &content)).await
    }

    /// Removes a result that king has answered.
    pub(super) async fn forget(&self, key: &Key) -> Result<(), Error> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let remove = |path: &Path| match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        blocking(folder.join(file_name(key)), remove).await
    }
}

/// Reads a result; only the one of a task names a task.
fn read(text: &[u8]) -> serde_json::Result<Report> {
    let value: Value = serde_json::from_slice(text)?;
    Ok(if value.get("task_id").is_some() {
        Report::Task(Box::new(serde_json::from_value::<TaskReport>(value)?))
    } else {
        Report::Stage(Box::new(serde_json::from_value::<StageReport>(value)?))
    })
}

/// Ids come over the wire, so the name is made from their digest.
fn file_name(key: &Key) -> String {
    let kind = match &key.item {
        Item::Stage { stage, .. } => stage.as_str(),
        Item::Task { .. } => "task",
    };
    let digest = sha256_hex(key.req_id().as_bytes());
    format!("{kind}-{}-{}.json", key.attempt, &digest[..32])
}

async fn blocking(
    path: PathBuf,
    work: impl FnOnce(&Path) -> std::io::Result<()> + Send + 'static,
) -> Result<(), Error> {
    let target = path.clone();
    tokio::task::spawn_blocking(move || work(&target))
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(|source| Error { path, source })
}

fn set_aside(path: &Path, reason: &str) -> Result<(), Error> {
    let aside = path.with_extension("json.corrupt");
    tracing::error!(
        "The kept result {} can't be read ({reason}) and is moved to {}; king will give the attempt out again",
        path.display(),
        aside.display()
    );
    std::fs::rename(path, &aside).map_err(|source| Error { path: path.to_owned(), source })
}

fn set_foreign_aside(path: &Path, theirs: &str, ours: &str) -> Result<(), Error> {
    let failed = |source| Error { path: path.to_owned(), source };
    let folder = path.with_file_name(FOREIGN);
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let aside = folder.join(path.file_name().unwrap_or_default());
    tracing::warn!(
        agent.id = %ours,
        "The kept result {} is the agent {theirs:?}'s, not {ours:?}'s, and is moved to {}; move it back and rename the agent to send it",
        path.display(),
        aside.display()
    );
    std::fs::rename(path, &aside).map_err(failed)
}

#[cfg(test)]
mod tests {
    use evo_common::{
        ids::Attempt,
        messages::{PipelineRunStatus, PipelineStage, PipelineStageResult, TaskStatus, TaskUpdate},
    };

    use super::*;

    fn task(task_id: &str) -> Report {
        Report::Task(Box::new(TaskReport {
            update: TaskUpdate {
                task_id: task_id.to_owned(),
                status: Some(TaskStatus::Completed),
                agent_id: Some("a".to_owned()),
                payload: Some(serde_json::json!({"result": "done"})),
            },
            attempt: Attempt(1),
            req_id: "r".to_owned(),
            error: None,
            transient: false,
            steps: 1,
            usage: None,
            latency_ms: 3,
            trace: None,
        }))
    }

    fn report(run_id: &str, attempt: Option<Attempt>) -> Report {
        Report::Stage(Box::new(StageReport {
            result: PipelineStageResult {
                run_id: run_id.to_owned(),
                stage: PipelineStage::PreLoad,
                agent_id: "a".to_owned(),
                status: PipelineRunStatus::Completed,
                artifact_id: String::new(),
                output: serde_json::json!({"a": 1}),
                error: None,
            },
            attempt,
            req_id: None,
            transient: false,
            seq: None,
            trace: None,
        }))
    }

    #[tokio::test]
    async fn results_survive_until_they_are_answered() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::new(Some(folder.path()));
        assert!(outbox.load("a").unwrap().is_empty());
        let (a, b) = (report("../a", Some(Attempt(1))), report("b", Some(Attempt(2))));
        let c = task("../c");
        for kept in [&a, &a, &b, &c] {
            outbox.keep(kept).await.unwrap();
        }
        let mut found = outbox.load("a").unwrap();
        found.sort_by_key(Report::key);
        assert_eq!(found, [a.clone(), b.clone(), c.clone()]);
        for answered in [&a, &a, &c] {
            outbox.forget(&answered.key().unwrap()).await.unwrap();
        }
        assert_eq!(outbox.load("a").unwrap(), [b]);
    }

    #[tokio::test]
    async fn what_can_not_be_read_is_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::new(Some(folder.path()));
        outbox.keep(&report("a", Some(Attempt(1)))).await.unwrap();
        let inside = folder.path().join("outbox");
        std::fs::write(inside.join("half.json"), "{\"run_id\"").unwrap();
        let Report::Stage(legacy) = report("a", None) else { panic!() };
        let legacy = serde_json::to_string(&legacy).unwrap();
        std::fs::write(inside.join("legacy.json"), legacy).unwrap();
        std::fs::write(inside.join(".x.tmp"), "").unwrap();
        assert_eq!(outbox.load("a").unwrap().len(), 1);
        assert_eq!(outbox.load("a").unwrap().len(), 1);
        assert!(inside.join("half.json.corrupt").exists());
        assert!(inside.join("legacy.json.corrupt").exists());
        assert!(!inside.join(".x.tmp").exists());
    }

    #[tokio::test]
    async fn results_of_another_agent_are_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::new(Some(folder.path()));
        outbox.keep(&report("a", Some(Attempt(1)))).await.unwrap();
        assert!(outbox.load("renamed").unwrap().is_empty());
        let foreign = folder.path().join("outbox/foreign");
        assert_eq!(std::fs::read_dir(foreign).unwrap().count(), 1);
        assert!(outbox.load("a").unwrap().is_empty(), "it is not sent by itself");
    }

    #[tokio::test]
    async fn without_a_folder_nothing_is_kept() {
        let outbox = Outbox::new(None);
        outbox.keep(&report("a", Some(Attempt(1)))).await.unwrap();
        assert!(outbox.load("a").unwrap().is_empty());
    }
}
