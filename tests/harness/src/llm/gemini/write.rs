//! Answers as the API gives them, whole and streamed.

use serde_json::{Value, json};

use crate::llm::answer::{self, Answer, End};

/// Proof that a thought is the model's own; in the alphabets of base64 that differ.
pub(super) const SIGNATURE: &str = "c2lnbmF0dXJl+/++";

/// What every part of one answer says about itself.
pub(super) struct Told {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) candidates: u64,
    /// Whether the caller wants to see what the model thinks.
    pub(super) thoughts: bool,
}

impl Told {
    pub(super) fn whole(&self, answer: &Answer) -> Value {
        let mut parts = Vec::new();
        if self.thoughts && !answer.thinking.is_empty() {
            parts.push(json!({ "text": answer.thinking, "thought": true }));
        }
        if !answer.text.is_empty() {
            let mut part = json!({ "text": answer.text });
            if !answer.thinking.is_empty() && answer.calls.is_empty() {
                part["thoughtSignature"] = SIGNATURE.into();
            }
            parts.push(part);
        }
        parts.extend(calls(answer));
        let candidates = (0..self.candidates).map(|index| {
            let mut candidate = json!({
                "content": { "parts": parts, "role": "model" },
                "finishReason": finish_reason(&answer.end), "index": index,
            });
            if parts.is_empty() {
                candidate["content"] = json!({ "role": "model" });
            }
            candidate
        });
        self.response(&candidates.collect::<Vec<_>>(), usage(answer))
    }

    pub(super) fn events(&self, answer: &Answer) -> Vec<String> {
        let end = if self.model == "lf" { "\n\n" } else { "\r\n\r\n" };
        let early = json!({ "promptTokenCount": answer.input_tokens + answer.cached_tokens });
        let mut events = Vec::new();
        let mut event = |parts: Vec<Value>, reason: Option<&str>, usage: &Value| {
            let mut candidate =
                json!({ "content": { "parts": parts, "role": "model" }, "index": 0 });
            if let Some(reason) = reason {
                candidate["finishReason"] = reason.into();
            }
            let response = self.response(&[candidate], usage.clone());
            events.push(format!("data: {response}{end}"));
        };
        if self.thoughts {
            for piece in answer::pieces(&answer.thinking) {
                event(vec![json!({ "text": piece, "thought": true })], None, &early);
            }
        }
        for piece in answer::pieces(&answer.text) {
            event(vec![json!({ "text": piece })], None, &early);
        }
        for call in calls(answer) {
            event(vec![call], None, &early);
        }
        let mut last = json!({ "text": "" });
        if !answer.thinking.is_empty() && answer.calls.is_empty() {
            last["thoughtSignature"] = SIGNATURE.into();
        }
        event(vec![last], Some(finish_reason(&answer.end)), &usage(answer));
        events
    }

    fn response(&self, candidates: &[Value], usage: Value) -> Value {
        json!({
            "candidates": candidates, "usageMetadata": usage, "modelVersion": self.model,
            "responseId": self.id,
        })
    }
}

/// The calls as parts; the seal stands at the first.
fn calls(answer: &Answer) -> Vec<Value> {
    let part = |(index, call): (usize, &answer::Call)| {
        let args: Value = serde_json::from_str(&call.arguments).expect("our own JSON");
        let mut part = json!({ "functionCall": { "name": call.name, "args": args } });
        if index == 0 {
            part["thoughtSignature"] = SIGNATURE.into();
        }
        part
    };
    answer.calls.iter().enumerate().map(part).collect()
}

fn finish_reason(end: &End) -> &'static str {
    match end {
        End::Stop | End::StopSequence(_) | End::Calls => "STOP",
        End::Length => "MAX_TOKENS",
        End::Filtered => "SAFETY",
    }
}

fn usage(answer: &Answer) -> Value {
    let prompt = answer.input_tokens + answer.cached_tokens;
    let thoughts = answer::pieces(&answer.thinking).len() as u64;
    let mut usage = json!({
        "promptTokenCount": prompt, "candidatesTokenCount": answer.output_tokens - thoughts,
        "totalTokenCount": prompt + answer.output_tokens,
        "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": prompt }],
    });
    if answer.cached_tokens > 0 {
        usage["cachedContentTokenCount"] = answer.cached_tokens.into();
    }
    if thoughts > 0 {
        usage["thoughtsTokenCount"] = thoughts.into();
    }
    usage
}
