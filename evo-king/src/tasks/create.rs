//! Makes tasks.

use evo_common::{
    clock::Timestamp,
    ids::{AgentId, Attempt, sha256_hex},
    messages::{ModelPreference, TaskLimits, TaskSubtaskSpec},
};
use serde_json::{Value, json};

use super::{
    Error, MAX_PARTS, MAX_PAYLOAD, Result, Tasks,
    lifecycle::{Note, note},
    new_id,
    state::TaskState,
};
use crate::store::{
    self, Connection,
    runs::{self, Run},
    tasks::{self, Once, Task},
};

/// Longest `task_type`.
const MAX_TYPE: usize = 64;
/// Longest `summary`.
const MAX_SUMMARY: usize = 16 * 1024;
/// How deep subtasks may have subtasks.
const MAX_DEPTH: u32 = 5;
/// Longest idempotency key.
const MAX_KEY: usize = 200;
/// Kinds of tasks that any user agent does.
const FOR_ANYBODY: [&str; 2] = ["manual", "user"];

/// A task to be made.
#[derive(Debug, Clone)]
pub(crate) struct NewTask {
    pub(crate) task_type: String,
    pub(crate) summary: String,
    pub(crate) payload: Value,
    pub(crate) agent_id: Option<String>,
    pub(crate) parent_id: Option<String>,
    pub(crate) limits: Option<TaskLimits>,
    pub(crate) model: Option<ModelPreference>,
    pub(crate) idempotency_key: Option<String>,
}

impl NewTask {
    /// A task of this kind about this.
    pub(crate) fn new(task_type: &str, summary: &str, payload: Value) -> Self {
        Self {
            task_type: task_type.to_owned(),
            summary: summary.to_owned(),
            payload,
            agent_id: None,
            parent_id: None,
            limits: None,
            model: None,
            idempotency_key: None,
        }
    }

    fn check(&self) -> Result<()> {
        let invalid = |field, message: String| Err(Error::Invalid { field, message });
        if self.task_type.is_empty() || self.task_type.chars().count() > MAX_TYPE {
            return invalid("task_type", format!("it must have 1 to {MAX_TYPE} characters"));
        }
        if self.task_type.chars().any(char::is_control) {
            return invalid("task_type", "it holds a control character".to_owned());
        }
        if self.task_type == "pipeline" {
            let message =
                "the tasks of runs are made with their runs; POST /pipeline/start starts one";
            return invalid("task_type", message.to_owned());
        }
        check_summary(&self.summary)?;
        check_payload(&self.payload)?;
        if let Some(agent_id) = &self.agent_id
            && let Err(error) = AgentId::parse(agent_id.clone())
        {
            return invalid("agent_id", error.to_string());
        }
        if self.idempotency_key.as_ref().is_some_and(|key| key.is_empty() || key.len() > MAX_KEY) {
            return invalid("idempotency_key", format!("it must have 1 to {MAX_KEY} bytes"));
        }
        if let Some(limits) = &self.limits {
            let fault = if limits.max_steps == 0 || limits.max_steps > 200 {
                "`max_steps` must be from 1 to 200"
            } else if limits.max_tokens == 0 {
                "`max_tokens` must be at least 1"
            } else if limits.max_usd.is_some_and(|usd| !usd.is_finite() || usd <= 0.0) {
                "`max_usd` must be more than 0"
            } else if !(1_000..=86_400_000).contains(&limits.timeout_ms) {
                "`timeout_ms` must be from 1000 to 86400000"
            } else {
                return Ok(());
            };
            return invalid("limits", fault.to_owned());
        }
        Ok(())
    }
}

pub(super) fn check_summary(summary: &str) -> Result<()> {
    if summary.len() > MAX_SUMMARY {
        let message = format!("it has {} bytes; {MAX_SUMMARY} is the most", summary.len());
        return Err(Error::Invalid { field: "summary", message });
    }
    Ok(())
}

pub(super) fn check_payload(payload: &Value) -> Result<()> {
    let size = payload.to_string().len();
    if size > MAX_PAYLOAD {
        let message = format!("it has {size} bytes as JSON; {MAX_PAYLOAD} is the most");
        return Err(Error::Invalid { field: "payload", message });
    }
    Ok(())
}

/// A payload is an object: a text that holds one is read, anything else is put into one.
pub(super) fn as_object(payload: Value) -> Value {
    match payload {
        Value::Object(_) => payload,
        Value::Null => json!({}),
        Value::String(text) => {
            match serde_json::from_str::<serde_json::Map<String, Value>>(&text) {
                Ok(object) => Value::Object(object),
                Err(_) if text.trim().is_empty() => json!({}),
                Err(_) => json!({ "text": text }),
            }
        }
        other => json!({ "value": other }),
    }
}

impl Tasks {
    /// Whether these limits are within what king gives every task: whoever is no operator can ask
    /// for less, and for no more.
    pub(crate) fn check_limits(&self, limits: Option<&TaskLimits>) -> Result<()> {
        let Some(limits) = limits else { return Ok(()) };
        let most = self.limits();
        let beyond = if limits.max_steps > most.max_steps {
            format!("`max_steps` is more than {}", most.max_steps)
        } else if limits.max_tokens > most.max_tokens {
            format!("`max_tokens` is more than {}", most.max_tokens)
        } else if limits.timeout_ms > most.timeout_ms {
            format!("`timeout_ms` is more than {}", most.timeout_ms)
        } else if let Some(usd) = most.max_usd
            && limits.max_usd.is_none_or(|wanted| wanted > usd)
        {
            format!("`max_usd` is not within {usd}")
        } else {
            return Ok(());
        };
        let message = format!("{beyond}; only an operator may give a task more than king's limits");
        Err(Error::Invalid { field: "limits", message })
    }

    /// Makes a task. Says whether it is new (false: the idempotency key had been used).
    pub(crate) async fn create(&self, mut new: NewTask) -> Result<(String, bool)> {
        new.payload = as_object(new.payload);
        new.agent_id = new.agent_id.filter(|agent_id| !agent_id.is_empty());
        new.parent_id = new.parent_id.filter(|parent_id| !parent_id.is_empty());
        new.check()?;
        let made = self
            .parts
            .store
            .write(async move |connection: &Connection| {
                insert(connection, Timestamp::now(), new).await
            })
            .await?;
        self.wake();
        Ok(made)
    }
}

/// Whether king gives such a task to an agent; any other one is for whoever made it.
pub(super) fn is_given_out(task_type: &str, wanted: Option<&str>) -> bool {
    wanted.is_some() || FOR_ANYBODY.contains(&task_type)
}

/// Makes a task in the caller's transaction.
async fn insert(connection: &Connection, now: Timestamp, new: NewTask) -> Result<(String, bool)> {
    let asked = json!([
        new.task_type,
        new.summary,
        new.payload,
        new.agent_id,
        new.parent_id,
        new.limits,
        new.model
    ]);
    let digest = new.idempotency_key.as_ref().map(|_| sha256_hex(asked.to_string().as_bytes()));
    let once = new.idempotency_key.as_deref().zip(digest.as_deref());
    let once = once.map(|(key, digest)| Once { key, digest });
    if let Some(Once { key, digest }) = once
        && let Some((task_id, earlier)) = tasks::by_key(connection, key).await?
    {
        if earlier.as_deref() != Some(digest) {
            return Err(Error::KeyReused { key: key.to_owned(), task_id });
        }
        return Ok((task_id, false));
    }
    let parent = match &new.parent_id {
        None => None,
        Some(parent_id) => {
            let parent = tasks::load(connection, parent_id).await?;
            Some(parent.ok_or_else(|| Error::Invalid {
                field: "parent_id",
                message: format!("there is no task {parent_id:?}"),
            })?)
        }
    };
    let depth = parent.as_ref().map_or(0, |parent| parent.depth + 1);
    if depth > MAX_DEPTH {
        let message = format!("tasks are {MAX_DEPTH} deep at most");
        return Err(Error::Invalid { field: "parent_id", message });
    }
    let is_given_out = is_given_out(&new.task_type, new.agent_id.as_deref());
    let state = if is_given_out { TaskState::waiting(now) } else { TaskState::by_hand() };
    let task = Task {
        task_id: new_id(),
        parent_id: new.parent_id.clone(),
        depth,
        task_type: new.task_type.clone(),
        run_id: parent.and_then(|parent| parent.run_id),
        agent_id: new.agent_id.clone(),
        wanted: new.agent_id.clone(),
        summary: new.summary.clone(),
        payload: new.payload.clone(),
        limits: new.limits,
        model: new.model.clone(),
        state: Some(state),
        current_stage: String::new(),
        question: None,
        applied: None,
    };
    tasks::insert(connection, now, &task, once).await?;
    note(connection, now, &task, Note::info("task.created", "It was created")).await?;
    Ok((task.task_id, true))
}

/// Makes the parts of a task.
pub(super) async fn insert_parts(
    connection: &Connection,
    now: Timestamp,
    parent: &Task,
    parts: &[TaskSubtaskSpec],
) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for part in parts.iter().take(MAX_PARTS) {
        let task_type = if part.task_type.is_empty() || part.task_type == "pipeline" {
            "user"
        } else {
            super::cut(&part.task_type, MAX_TYPE)
        };
        let mut new = NewTask::new(
            task_type,
            super::cut(&part.summary, MAX_SUMMARY),
            as_object(part.payload.clone()),
        );
        check_payload(&new.payload)?;
        new.parent_id = Some(parent.task_id.clone());
        new.agent_id.clone_from(&parent.wanted);
        new.limits = parent.limits;
        new.model.clone_from(&parent.model);
        ids.push(insert(connection, now, new).await?.0);
    }
    Ok(ids)
}

/// A run's task whose run is over gets a state of its own: from now on it is as its subtasks are.
pub(super) async fn stand_alone(connection: &Connection, task: &mut Task) -> store::Result<()> {
    if task.state.is_none()
        && let Some(view) = tasks::get(connection, &task.task_id).await?
    {
        task.payload = view.payload;
        task.summary = view.summary;
        task.state = Some(TaskState::Split { next: Attempt::FIRST });
    }
    Ok(())
}

/// Makes the parts that a run is to be split into, in the caller's transaction: of its own task, which
/// ends when they have, or beside its cycle, which goes on. There are no more of them than a split
/// gives.
pub(crate) async fn create_subtasks_of_run(
    connection: &Connection,
    now: Timestamp,
    run: &Run,
    parts: &[TaskSubtaskSpec],
) -> store::Result<()> {
    let mut task = tasks::load(connection, &tasks::id_of_run(&run.run_id)).await?;
    let is_own = task.is_some();
    if !is_own && let Some(cycle) = runs::cycle_of(connection, run).await? {
        task = tasks::load(connection, &tasks::id_of_run(&cycle)).await?;
    }
    let Some(mut task) = task else { return Ok(()) };
    let ids = match insert_parts(connection, now, &task, parts).await {
        Ok(ids) => ids,
        Err(Error::Store(error)) => return Err(error),
        // What a runner proposed is not what a task can be: there is nothing to make.
        Err(error) => {
            tracing::warn!(run.id = %run.run_id, "Subtasks were proposed that can't be made: {error}");
            return Ok(());
        }
    };
    if is_own {
        stand_alone(connection, &mut task).await?;
        tasks::save(connection, now, &task).await?;
    }
    let message = format!("Run {} was split into {} subtasks", run.run_id, ids.len());
    note(connection, now, &task, Note::info("task.decomposed", message)).await
}
