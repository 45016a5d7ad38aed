//! Messages over Socket.IO, written down beside the way they go: whoever sends or answers one never
//! waits for it, and what can't be written down in time is counted and dropped.
//!
//! What comes by the thousand is not kept: heartbeats, pieces of streams, and what the pipeline says,
//! which the event log has as a whole.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use evo_common::{clock::Timestamp, messages::events as wire, redact};
use tokio::sync::mpsc;

use crate::{
    state::King,
    store::{
        self, Connection,
        messages::{self, Message},
    },
};

/// Messages that may wait to be written.
const QUEUE: usize = 1_024;
/// Messages of one transaction.
const BATCH: usize = 256;
/// Between two transactions.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes that are kept of a payload.
const MAX_PAYLOAD: usize = 4_096;

/// Messages to king that are not kept.
const NOT_INBOUND: &[&str] = &[
    wire::AGENT_STATUS,
    wire::PIPELINE_ACCEPTED,
    wire::PIPELINE_STAGE_RESULT,
    wire::TASK_OUTPUT,
    wire::DEBUG_STREAM,
];
/// Messages of king that are kept: what it asks of somebody.
const OUTBOUND: &[&str] = &[
    wire::KING_COMMAND,
    wire::KING_CONFIG_UPDATE,
    wire::TASK_INVITE,
    wire::TASK_EVALUATE,
    wire::TASK_DECOMPOSE,
    wire::ERROR_RECOVERY_REQUEST,
    wire::DEBUG_PROMPT,
];

/// Takes messages. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct MessageLog {
    queue: mpsc::Sender<Message>,
    waiting: Arc<Mutex<Option<mpsc::Receiver<Message>>>>,
    dropped: Arc<AtomicU64>,
}

impl Default for MessageLog {
    fn default() -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        Self { queue, waiting: Arc::new(Mutex::new(Some(waiting))), dropped: Arc::default() }
    }
}

impl MessageLog {
    /// A message came; `text` is the whole of it, `["event", payload]`.
    pub(crate) fn inbound(&self, text: &str, agent_id: Option<String>, socket_id: &str) {
        let Some((event, payload)) = parts(text) else { return };
        if !NOT_INBOUND.contains(&event) {
            self.note("inbound", event, payload, agent_id, socket_id);
        }
    }

    /// A message goes out.
    pub(crate) fn outbound(
        &self,
        event: &str,
        payload: &impl serde::Serialize,
        agent_id: Option<String>,
        socket_id: &str,
    ) {
        if OUTBOUND.contains(&event) {
            let payload = serde_json::to_string(payload).expect("a message is plain data");
            self.note("outbound", event, &payload, agent_id, socket_id);
        }
    }

    fn note(
        &self,
        direction: &'static str,
        event: &str,
        payload: &str,
        agent_id: Option<String>,
        socket_id: &str,
    ) {
        let message = Message {
            at: Timestamp::now(),
            direction,
            event_name: event.to_owned(),
            agent_id,
            socket_id: socket_id.to_owned(),
            payload: bounded(payload),
        };
        if self.queue.try_send(message).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Event and payload of `["event",payload]`.
fn parts(text: &str) -> Option<(&str, &str)> {
    let rest = text.trim().strip_prefix("[\"")?;
    let (event, rest) = rest.split_once('"')?;
    let payload = rest.trim_start().strip_prefix(',').unwrap_or("").trim();
    Some((event, payload.strip_suffix(']').unwrap_or(payload)))
}

/// The beginning of a payload, without secrets.
fn bounded(payload: &str) -> String {
    let cut = &payload[..payload.floor_char_boundary(MAX_PAYLOAD)];
    if cut.len() == payload.len()
        && let Ok(mut value) = serde_json::from_str(cut)
    {
        redact::redact_json(&mut value);
        let text = value.to_string();
        return text[..text.floor_char_boundary(MAX_PAYLOAD)].to_owned();
    }
    let text = redact::redact(cut);
    text[..text.floor_char_boundary(MAX_PAYLOAD)].to_owned()
}

/// Writes what comes until shutdown.
pub(crate) async fn run(king: King) {
    let waiting = king.messages.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut waiting) = waiting else { return };
    let mut batch = Vec::new();
    loop {
        let ends = tokio::select! {
            () = king.shutdown.cancelled() => true,
            count = waiting.recv_many(&mut batch, BATCH) => count == 0,
        };
        if ends {
            while batch.len() < BATCH
                && let Ok(message) = waiting.try_recv()
            {
                batch.push(message);
            }
        }
        if !batch.is_empty() {
            let rows = std::mem::take(&mut batch);
            let work = async move |connection: &Connection| {
                messages::insert(connection, &rows).await?;
                Ok::<_, store::Error>(())
            };
            if let Err(error) = king.store.write(work).await {
                tracing::warn!(%error, "Messages could not be written down: {error}");
            }
        }
        let dropped = king.messages.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(dropped, "{dropped} messages were not written down: too many at once");
        }
        if ends {
            return;
        }
        tokio::select! {
            () = king.shutdown.cancelled() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_apart() {
        assert_eq!(parts(r#"["agent:register",{"a":1}]"#), Some(("agent:register", r#"{"a":1}"#)));
        assert_eq!(parts(r#"["x"]"#), Some(("x", "")));
        assert_eq!(parts("nothing"), None);
    }

    #[test]
    fn payloads_are_cut_at_a_character_and_hold_no_secret() {
        let long = format!("{{\"text\":\"{}\"}}", "ä".repeat(5_000));
        assert!(bounded(&long).len() <= MAX_PAYLOAD);
        let secret = r#"{"password":"hunter2hunter2","task_id":"t"}"#;
        let kept = bounded(secret);
        assert!(!kept.contains("hunter2") && kept.contains("\"task_id\":\"t\""), "{kept}");
    }
}
