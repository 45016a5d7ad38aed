//! The tasks that prompts and commands are.

use evo_common::{api::ChangeTask, messages::TaskStatus};
use serde_json::{Value, json};

use crate::{
    store::{Store, tasks::TaskFilter},
    tasks::{Error, NewTask, Tasks, Who},
};

/// Kinds of these tasks.
pub(super) const PROMPT: &str = "debug_prompt";
pub(super) const COMMAND: &str = "debug_bash";
/// Longest text that is kept of an answer or output, as JSON.
const MAX_TEXT: usize = 96 * 1024;
/// Tasks in one page.
const PAGE: u32 = 500;

/// Keeps the tasks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Book {
    tasks: Tasks,
    store: Store,
}

impl Book {
    pub(crate) fn new(tasks: Tasks, store: Store) -> Self {
        Self { tasks, store }
    }

    /// Something begins; gives its task.
    pub(super) async fn begin(
        &self,
        task_type: &str,
        summary: &str,
        about: Value,
    ) -> Result<String, Error> {
        let (task_id, _) = self.tasks.create(NewTask::new(task_type, summary, about)).await?;
        self.change(&task_id, TaskStatus::InProgress, None).await?;
        Ok(task_id)
    }

    /// It ended. The payload holds its `result`, and its `error` when it came to nothing.
    pub(super) async fn end(
        &self,
        task_id: &str,
        failed: bool,
        payload: Value,
    ) -> Result<(), Error> {
        let status = if failed { TaskStatus::Failed } else { TaskStatus::Completed };
        match self.change(task_id, status, Some(payload)).await {
            // Somebody cancelled or removed it meanwhile.
            Err(error @ (Error::Unknown(_) | Error::Rejected(_))) => {
                tracing::debug!(task.id = %task_id, %error, "The end of {task_id} is not wanted: {error}");
                Ok(())
            }
            changed => changed,
        }
    }

    async fn change(
        &self,
        task_id: &str,
        status: TaskStatus,
        payload: Option<Value>,
    ) -> Result<(), Error> {
        let change = ChangeTask { status: Some(status), payload, ..ChangeTask::default() };
        self.tasks.change(task_id, change, Who::Operator).await
    }

    /// Fails what an earlier king left open: nobody answers that any more.
    pub(super) async fn fail_left_over(&self) -> Result<(), Error> {
        let mut cursor = None;
        loop {
            let filter = TaskFilter {
                limit: PAGE,
                cursor,
                status: Some(TaskStatus::InProgress),
                ..TaskFilter::default()
            };
            let page = self.store.tasks_list(filter).await?;
            for task in page.tasks {
                if [PROMPT, COMMAND].contains(&task.task_type.as_str()) {
                    let mut payload = task.payload;
                    payload["error"] = json!("king ended before it did");
                    self.end(&task.id, true, payload).await?;
                }
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// How a task is: its status, its error and its result; waits for its end.
    #[cfg(test)]
    pub(super) async fn ended(&self, task_id: &str) -> (String, String, Value) {
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        let task = self.tasks.result(task_id, until).await.unwrap();
        assert!(task.ended, "{task:?}");
        (task.status.to_string(), task.error.unwrap_or_default(), task.result.unwrap_or_default())
    }
}

/// The beginning of a text that has room in a task, and whether that is all of it.
pub(super) fn kept(text: &str) -> (&str, bool) {
    let mut end = text.floor_char_boundary(MAX_TEXT);
    // What has to be escaped takes up to six times its length.
    while json!(text[..end]).to_string().len() > MAX_TEXT {
        end = text.floor_char_boundary(end / 2);
    }
    (&text[..end], end == text.len())
}
