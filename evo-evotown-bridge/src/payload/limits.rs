//! What Evotown can take, and what must not leave this machine.

use evo_common::redact::{redact, redact_json};
use serde_json::{Value, json};

use crate::config::MAX_ID;

/// Longest text of ours, in characters.
const MAX_TEXT: usize = 2_000;
/// Signals stay well below what the console can show: 64 KiB.
const MAX_SIGNALS: usize = 60 * 1024;

/// Cuts the ids that others chose to what Evotown takes. Only when secrets are out: half of one
/// would not be known as one, and a mask may be longer than what it hides.
pub(super) fn fit_ids(body: &mut Value) {
    for name in ["agent_id", "task_id"] {
        if let Some(Value::String(id)) = body.get_mut(name)
            && let Some((end, _)) = id.char_indices().nth(MAX_ID)
        {
            id.truncate(end);
        }
    }
}

/// A text for people without secrets, cut where it gets too long. In this order: half of a secret
/// would not be known as one.
pub(super) fn text(text: &str) -> String {
    let text = redact(text);
    match text.char_indices().nth(MAX_TEXT - 1) {
        // Cut only when at least one more character follows.
        Some((end, last)) if text.len() > end + last.len_utf8() => format!("{}…", &text[..end]),
        _ => text.into_owned(),
    }
}

/// Takes secrets out of every text.
pub(super) fn clean(body: &mut Value) {
    redact_json(body);
}

/// Cuts the longest lists until the signals fit; how much is left out is said.
pub(super) fn fit(body: &mut Value) {
    for list in ["artifacts", "stages"] {
        let Some(signals) = body.get_mut("signals") else { return };
        let size = signals.to_string().len();
        if size <= MAX_SIGNALS {
            return;
        }
        let Some(entries) = signals.get_mut(list).and_then(Value::as_array_mut) else { continue };
        let mut over = size - MAX_SIGNALS;
        let mut omitted = 0;
        while over > 0
            && let Some(entry) = entries.pop()
        {
            over = over.saturating_sub(entry.to_string().len() + 1);
            omitted += 1;
        }
        signals[format!("{list}_omitted")] = json!(omitted);
    }
}
