//! What tasks write while they are at work: passed on as it comes, kept up to a bound.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use evo_common::{
    clock::Timestamp,
    ids::Attempt,
    messages::{TaskLogEntry, TaskOutput},
};

use tokio::time::Instant;

use super::{
    Error, Result, Tasks, cut,
    lifecycle::{self, Note},
};
use crate::store::{
    Connection,
    tasks::{self},
};

/// Between two looks at a task that somebody waits for.
pub(super) const PAUSE: Duration = Duration::from_millis(20);
/// Most bytes of a task's output that are kept.
const MAX_KEPT: usize = 64 * 1024;
/// Most bytes of one piece.
const MAX_PIECE: usize = 64 * 1024;
/// Most pieces that are kept.
const MAX_PIECES: usize = 16 * 1024;
/// Most tasks whose output is kept in memory.
const MAX_STREAMS: usize = 1_000;

/// How long pieces may follow an attempt's result.
const STRAGGLERS: Duration = Duration::from_secs(10);
/// How long an attempt without a result is expected to write: longer than any may take.
const SILENCE: Duration = Duration::from_secs(25 * 3_600);
/// Longest message and detail of a line that an agent adds to a log.
const MAX_LINE: usize = 4 * 1024;
/// The kind of the event that tells of such a line.
pub(crate) const NOTED: &str = "task.noted";

/// The pieces of one attempt by their place: they may come out of order.
#[derive(Debug, Default)]
struct Stream {
    attempt: Option<Attempt>,
    agent: String,
    pieces: BTreeMap<u32, String>,
    kept: usize,
    is_cut: bool,
    /// Whether there is more than what is stored.
    is_new: bool,
    /// When it is forgotten: a while after the attempt's result, since messages overtake each other
    /// and the last pieces may follow it; else after a long silence.
    until: Option<Instant>,
}

impl Stream {
    fn of(attempt: Option<Attempt>, agent: &str) -> Self {
        let until = Some(Instant::now() + SILENCE);
        Self { attempt, agent: agent.to_owned(), until, ..Self::default() }
    }

    fn add(&mut self, output: &TaskOutput) {
        if self.kept + output.delta.len() > MAX_KEPT || self.pieces.len() >= MAX_PIECES {
            self.is_cut = true;
            return;
        }
        if !self.pieces.contains_key(&output.chunk_index) {
            self.kept += output.delta.len();
            self.pieces.insert(output.chunk_index, output.delta.clone());
            self.is_new = true;
        }
    }

    fn text(&self) -> String {
        let mut text: String = self.pieces.values().map(String::as_str).collect();
        if self.is_cut {
            text.push_str("\n[cut]");
        }
        text
    }
}

/// Every task's output.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<HashMap<String, Stream>>);

impl Streams {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Stream>> {
        // A panic while holding the lock can't leave a map half-written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an attempt has written.
    pub(super) fn text(&self, task_id: &str, attempt: Attempt) -> Option<String> {
        let streams = self.lock();
        let stream = streams.get(task_id).filter(|stream| stream.attempt == Some(attempt))?;
        Some(stream.text())
    }

    /// The attempt's result is there.
    pub(super) fn close(&self, task_id: &str) {
        if let Some(stream) = self.lock().get_mut(task_id) {
            stream.until = Some(Instant::now() + STRAGGLERS);
        }
    }

    /// The task is gone.
    pub(super) fn forget(&self, task_id: &str) {
        self.lock().remove(task_id);
    }

    /// Tasks that have written something since it was asked last. What is over is forgotten.
    fn news(&self) -> Vec<String> {
        let mut streams = self.lock();
        let now = Instant::now();
        streams.retain(|_, stream| stream.until.is_none_or(|until| now < until));
        let fresh = streams.iter_mut().filter(|(_, stream)| stream.is_new);
        fresh
            .map(|(task_id, stream)| {
                stream.is_new = false;
                task_id.clone()
            })
            .collect()
    }

    /// What a task has written so far.
    fn whole(&self, task_id: &str) -> Option<String> {
        self.lock().get(task_id).map(Stream::text)
    }
}

/// Leaves out the stream that would be forgotten first, when there are too many.
fn make_room(streams: &mut HashMap<String, Stream>) {
    if streams.len() < MAX_STREAMS {
        return;
    }
    let first = streams.iter().min_by_key(|(_, stream)| stream.until);
    if let Some(task_id) = first.map(|(task_id, _)| task_id.clone()) {
        streams.remove(&task_id);
    }
}

impl Tasks {
    /// A piece of what a task writes. It is an error when the agent does not have the task.
    pub(crate) async fn output(&self, agent_id: &str, output: &TaskOutput) -> Result<()> {
        if output.delta.len() > MAX_PIECE {
            let message = format!("it has {} bytes; {MAX_PIECE} is the most", output.delta.len());
            return Err(Error::Invalid { field: "delta", message });
        }
        let known = {
            let mut streams = self.parts.streams.lock();
            match streams.get_mut(&output.task_id) {
                Some(stream) if stream.agent == agent_id => {
                    stream.add(output);
                    true
                }
                _ => false,
            }
        };
        if known {
            return Ok(());
        }
        let task_id = output.task_id.clone();
        let load = async move |connection: &Connection| tasks::load(connection, &task_id).await;
        let task = self.parts.store.read(load).await?;
        let task = task.ok_or_else(|| Error::Unknown(output.task_id.clone()))?;
        let lease = task.state.as_ref().and_then(super::state::TaskState::lease);
        let attempt = lease.filter(|(holder, _)| *holder == agent_id).map(|(_, attempt)| attempt);
        let not_yours =
            || Error::NotYours { task_id: output.task_id.clone(), agent: agent_id.to_owned() };
        if attempt.is_none() && task.agent_id.as_deref() != Some(agent_id) {
            return Err(not_yours());
        }
        if task.state.as_ref().is_some_and(|state| state.end().is_some()) {
            // Its output is stored; a single late piece is not worth more than that.
            return Ok(());
        }
        let mut streams = self.parts.streams.lock();
        if !streams.contains_key(&output.task_id) {
            make_room(&mut streams);
        }
        let stream = streams.entry(output.task_id.clone()).or_default();
        if stream.agent != agent_id || stream.attempt != attempt {
            *stream = Stream::of(attempt, agent_id);
        }
        stream.add(output);
        Ok(())
    }

    /// A line that an agent adds to the log of a task that it has.
    pub(crate) async fn noted(&self, agent_id: &str, line: TaskLogEntry) -> Result<()> {
        let level = match line.level.as_str() {
            "info" => "info",
            "warn" => "warn",
            "error" => "error",
            other => {
                let message = format!("{other:?} is none of info, warn and error");
                return Err(Error::Invalid { field: "log.level", message });
            }
        };
        let agent_id = agent_id.to_owned();
        self.parts
            .store
            .write(async move |connection: &Connection| {
                let task_id = line.task_id;
                let task = tasks::load(connection, &task_id)
                    .await?
                    .ok_or_else(|| Error::Unknown(task_id.clone()))?;
                if task.agent_id.as_ref() != Some(&agent_id) {
                    return Err(Error::NotYours { task_id, agent: agent_id });
                }
                let message = cut(&line.message, MAX_LINE).to_owned();
                let detail = cut(&line.detail, MAX_LINE);
                let note = Note { kind: NOTED, level, message, detail };
                Ok(lifecycle::note(connection, Timestamp::now(), &task, note).await?)
            })
            .await
    }

    /// An attempt was given out: what it writes is kept from now on, and what an earlier one wrote
    /// is no part of it.
    pub(super) fn begin_output(&self, task_id: &str, attempt: Attempt, agent: &str) {
        let mut streams = self.parts.streams.lock();
        let known = streams.get(task_id);
        let same = known.is_some_and(|s| s.attempt == Some(attempt) && s.agent == agent);
        if !same {
            make_room(&mut streams);
            streams.insert(task_id.to_owned(), Stream::of(Some(attempt), agent));
        }
    }

    /// Stores what was written lately, for those who look at a task while it is at work.
    pub(super) async fn store_output(&self) -> Result<()> {
        let news = self.parts.streams.news();
        if news.is_empty() {
            return Ok(());
        }
        let this = self.clone();
        self.parts
            .store
            .write(async move |connection: &Connection| {
                for task_id in news {
                    // Read here, in the order of the writes: no older text replaces a newer one.
                    if let Some(text) = this.parts.streams.whole(&task_id) {
                        tasks::save_output(connection, &task_id, &text).await?;
                    }
                }
                Ok::<_, Error>(())
            })
            .await
    }
}
