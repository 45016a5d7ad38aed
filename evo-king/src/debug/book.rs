//! Where prompts and commands are written down.

use serde_json::{Value, json};

use crate::store::{Result, Store};

/// Writes prompts and commands down. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Book {
    store: Store,
}

impl Book {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Something begins; gives its task.
    pub(super) async fn begin(
        &self,
        task_type: &str,
        summary: &str,
        about: Value,
    ) -> Result<String> {
        let task_id = format!("task-{}", uuid::Uuid::now_v7().simple());
        let payload = json!({"task_id": task_id, "task_type": task_type, "summary": summary, "payload": about});
        self.store.events_append("debug.begun", None, payload).await?;
        Ok(task_id)
    }

    /// It ended; `failed` says why it came to nothing.
    pub(super) async fn end(
        &self,
        task_id: &str,
        failed: Option<&str>,
        payload: Value,
    ) -> Result<()> {
        let status = if failed.is_some() { "failed" } else { "completed" };
        let payload =
            json!({"task_id": task_id, "status": status, "error": failed, "payload": payload});
        self.store.events_append("debug.ended", None, payload).await
    }
}

#[cfg(test)]
impl Book {
    /// Waits for the end of a task; gives its status and payload.
    pub(super) async fn ended(&self, task_id: &str) -> (String, Value) {
        for _ in 0..400 {
            let filter = crate::store::EventFilter {
                after: 0,
                limit: 500,
                run_id: None,
                kind: Some("debug.ended".to_owned()),
            };
            let page = self.store.events_list(filter).await.unwrap();
            let found = page.events.iter().find(|event| event.payload["task_id"] == task_id);
            if let Some(event) = found {
                let status = event.payload["status"].as_str().unwrap().to_owned();
                return (status, event.payload["payload"].clone());
            }
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        }
        panic!("{task_id} does not end");
    }
}
