//! How a task goes, while it goes: pieces of text, lines of the log, calls of skills.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use evo_common::{
    clock::Timestamp,
    ids::Attempt,
    messages::{TaskLog, TaskLogEntry, TaskOutput},
    redact::redact,
};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;

use super::cut;
use crate::king::ToKing;

/// Hands a message to the runner, which sends it.
pub(crate) type Say = Arc<dyn Fn(ToKing) -> BoxFuture<'static, ()> + Send + Sync>;

/// Longest piece of text in one message.
const MAX_PIECE: usize = 8 * 1024;
/// Most bytes of text that are kept for the report.
const MAX_TEXT: usize = 256 * 1024;
/// Longest message and detail of a line of the log.
const MAX_LINE: usize = 4 * 1024;
/// Most calls in a report.
const MAX_CALLS: usize = 200;

/// Tells king how a task goes. Cheap to clone; clones write the same output.
///
/// None of it is needed for the result, so that what is said while king is away may be lost.
#[derive(Clone)]
pub struct Progress {
    inner: Arc<Inner>,
}

struct Inner {
    agent_id: String,
    task_id: String,
    request_id: String,
    say: Say,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pieces: u32,
    text: String,
    steps: u32,
    calls: Vec<CallRecord>,
}

/// One call of a skill, as the report lists it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct CallRecord {
    pub(crate) step: u32,
    pub(crate) skill: String,
    pub(crate) input: Value,
    /// `success` or `failure`.
    pub(crate) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    pub(crate) latency_ms: u64,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("task_id", &self.inner.task_id).finish_non_exhaustive()
    }
}

impl Progress {
    pub(crate) fn new(agent_id: &str, task_id: &str, attempt: Attempt, say: Say) -> Self {
        Self {
            inner: Arc::new(Inner {
                agent_id: agent_id.to_owned(),
                task_id: task_id.to_owned(),
                request_id: format!("task:{task_id}:{attempt}"),
                say,
                state: Mutex::default(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while holding the lock can't leave it half-written.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a piece of what the task writes.
    pub async fn write(&self, text: &str) {
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.floor_char_boundary(MAX_PIECE));
            rest = later;
            self.piece(piece, false).await;
        }
    }

    async fn piece(&self, text: &str, is_final: bool) {
        let chunk_index = {
            let mut state = self.state();
            if state.text.len() + text.len() <= MAX_TEXT {
                state.text.push_str(text);
            }
            let index = state.pieces;
            state.pieces += 1;
            index
        };
        let output = TaskOutput {
            task_id: self.inner.task_id.clone(),
            request_id: self.inner.request_id.clone(),
            source: "llm".to_owned(),
            delta: text.to_owned(),
            chunk_index,
            is_final,
        };
        (self.inner.say)(ToKing::TaskOutput(Box::new(output))).await;
    }

    /// Ends the output, if there was any.
    pub(crate) async fn finish(&self) {
        let any = self.state().pieces > 0;
        if any {
            self.piece("", true).await;
        }
    }

    /// Adds a line to the task's log.
    pub async fn info(&self, message: &str, detail: &str) {
        self.log("info", message, detail).await;
    }

    /// Adds a line about something unusual to the task's log.
    pub async fn warn(&self, message: &str, detail: &str) {
        self.log("warn", message, detail).await;
    }

    /// Adds a line about something that went wrong to the task's log.
    pub async fn error(&self, message: &str, detail: &str) {
        self.log("error", message, detail).await;
    }

    async fn log(&self, level: &str, message: &str, detail: &str) {
        let log = TaskLogEntry {
            id: 0,
            task_id: self.inner.task_id.clone(),
            level: level.to_owned(),
            message: cut(&redact(message), MAX_LINE),
            detail: cut(&redact(detail), MAX_LINE),
            agent_id: self.inner.agent_id.clone(),
            stage: String::new(),
            created_at: Timestamp::now().to_rfc3339(),
        };
        let task_id = self.inner.task_id.clone();
        (self.inner.say)(ToKing::TaskLog(Box::new(TaskLog { task_id, log }))).await;
    }

    /// Another step begins; gives its number.
    pub(crate) fn step(&self) -> u32 {
        let mut state = self.state();
        state.steps += 1;
        state.steps
    }

    pub(crate) fn steps(&self) -> u32 {
        self.state().steps
    }

    /// What was written so far.
    pub(crate) fn text(&self) -> String {
        self.state().text.clone()
    }

    pub(crate) fn calls(&self) -> Vec<CallRecord> {
        self.state().calls.clone()
    }

    pub(crate) async fn called(&self, call: CallRecord, report: Option<ToKing>) {
        let CallRecord { skill, latency_ms, .. } = &call;
        let input = call.input.to_string();
        match &call.error {
            None => {
                let message = format!("The skill {skill} gave an output after {latency_ms} ms");
                self.info(&message, &input).await;
            }
            Some(error) => {
                let message = format!("The skill {skill} failed: {error}");
                self.warn(&message, &input).await;
            }
        }
        {
            let mut state = self.state();
            if state.calls.len() < MAX_CALLS {
                state.calls.push(call);
            }
        }
        if let Some(report) = report {
            (self.inner.say)(report).await;
        }
    }
}
