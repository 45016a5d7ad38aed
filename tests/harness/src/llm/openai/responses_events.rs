//! The Responses API: its answers, whole and as typed events.

use serde_json::{Value, json};

use crate::llm::answer::{self, Answer, End};

/// Proof that a thought is the model's own.
pub(super) const SEAL: &str = "gAAAAABfake+seal/of-a-thought==";

/// What every part of one answer says about itself.
pub(super) struct Told {
    pub(super) id: String,
    number: usize,
    /// The question, of which the answer repeats a lot.
    body: Value,
}

impl Told {
    pub(super) fn new(number: usize, body: &Value) -> Self {
        Self { id: format!("resp_fake{number}"), number, body: body.clone() }
    }

    pub(super) fn whole(&self, answer: &Answer) -> Value {
        let (status, why) = status(answer);
        let mut response = self.response(status, &self.items(answer));
        response["incomplete_details"] = why.map_or(Value::Null, |why| json!({ "reason": why }));
        response["usage"] = usage(answer);
        response
    }

    fn response(&self, status: &str, output: &[Value]) -> Value {
        let body = &self.body;
        let or = |name: &str, other: Value| match &body[name] {
            Value::Null => other,
            value => value.clone(),
        };
        json!({
            "id": self.id, "object": "response", "created_at": 1_795_305_216_u64, "status": status,
            "background": false, "error": null, "incomplete_details": null,
            "instructions": body["instructions"], "max_output_tokens": body["max_output_tokens"],
            "max_tool_calls": null, "model": body["model"], "output": output,
            "parallel_tool_calls": or("parallel_tool_calls", true.into()),
            "previous_response_id": body["previous_response_id"],
            "reasoning": or("reasoning", json!({ "effort": null, "summary": null })),
            "service_tier": "default", "store": or("store", true.into()),
            "temperature": or("temperature", 1.0.into()),
            "text": or("text", json!({ "format": { "type": "text" } })),
            "tool_choice": or("tool_choice", "auto".into()), "tools": or("tools", json!([])),
            "top_logprobs": 0, "top_p": or("top_p", 1.0.into()), "truncation": "disabled",
            "usage": null, "user": null, "metadata": or("metadata", json!({})),
        })
    }

    fn items(&self, answer: &Answer) -> Vec<Value> {
        let mut items = Vec::new();
        if !answer.thinking.is_empty() {
            let summary = if self.body["reasoning"]["summary"].is_string() {
                json!([{ "type": "summary_text", "text": answer.thinking }])
            } else {
                json!([])
            };
            let mut item = json!({
                "id": format!("rs_{}", self.number), "type": "reasoning", "summary": summary,
            });
            let mut wanted = self.body["include"].as_array().into_iter().flatten();
            if wanted.any(|it| it == "reasoning.encrypted_content") {
                item["encrypted_content"] = SEAL.into();
            }
            items.push(item);
        }
        if !answer.text.is_empty() {
            items.push(json!({
                "id": format!("msg_{}", self.number), "type": "message", "status": "completed",
                "role": "assistant", "content": [text(&answer.text)],
            }));
        }
        for (index, call) in answer.calls.iter().enumerate() {
            let id = format!("{}_{index}", self.number);
            items.push(json!({
                "id": format!("fc_{id}"), "type": "function_call", "status": "completed",
                "call_id": format!("call_{id}"), "name": call.name, "arguments": call.arguments,
            }));
        }
        items
    }

    pub(super) fn events(&self, answer: &Answer) -> Vec<String> {
        let mut events = Events::default();
        let early = self.response("in_progress", &[]);
        events.push("response.created", json!({ "response": early }));
        events.push("response.in_progress", json!({ "response": early }));
        for (at, item) in self.items(answer).iter().enumerate() {
            let id = &item["id"];
            let begun = begun(item);
            events.push("response.output_item.added", json!({ "output_index": at, "item": begun }));
            match item["type"].as_str() {
                Some("reasoning") => thought(&mut events, at, item),
                Some("message") => {
                    let place = json!({ "item_id": id, "output_index": at, "content_index": 0 });
                    let with = |more: Value| merged(&place, more);
                    events.push("response.content_part.added", with(json!({ "part": text("") })));
                    for piece in answer::pieces(&answer.text) {
                        let delta = json!({ "delta": piece, "logprobs": [] });
                        events.push("response.output_text.delta", with(delta));
                    }
                    let done = json!({ "text": answer.text, "logprobs": [] });
                    events.push("response.output_text.done", with(done));
                    let part = json!({ "part": item["content"][0] });
                    events.push("response.content_part.done", with(part));
                }
                _ => {
                    let place = json!({ "item_id": id, "output_index": at });
                    let arguments = item["arguments"].as_str().unwrap_or_default();
                    for piece in answer::pieces(arguments) {
                        let delta = merged(&place, json!({ "delta": piece }));
                        events.push("response.function_call_arguments.delta", delta);
                    }
                    let done = json!({ "arguments": arguments, "name": item["name"] });
                    events.push("response.function_call_arguments.done", merged(&place, done));
                }
            }
            events.push("response.output_item.done", json!({ "output_index": at, "item": item }));
        }
        let (status, _) = status(answer);
        let kind = format!("response.{status}");
        events.push(&kind, json!({ "response": self.whole(answer) }));
        events.all
    }
}

#[derive(Default)]
struct Events {
    all: Vec<String>,
}

impl Events {
    fn push(&mut self, kind: &str, more: Value) {
        let number = self.all.len();
        let event = merged(&json!({ "type": kind, "sequence_number": number }), more);
        self.all.push(format!("event: {kind}\ndata: {event}\n\n"));
    }
}

fn merged(place: &Value, more: Value) -> Value {
    let mut all = place.clone();
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    all
}

/// An item before anything of it was said.
fn begun(item: &Value) -> Value {
    let mut begun = item.clone();
    for (field, empty) in [("content", json!([])), ("summary", json!([])), ("arguments", "".into())]
    {
        if !begun[field].is_null() {
            begun[field] = empty;
        }
    }
    if !begun["status"].is_null() {
        begun["status"] = "in_progress".into();
    }
    if let Some(fields) = begun.as_object_mut() {
        // Only the item that is done has all of it.
        fields.remove("encrypted_content");
        fields.retain(|_, value| !value.is_null());
    }
    begun
}

fn thought(events: &mut Events, at: usize, item: &Value) {
    let Some(whole) = item["summary"][0]["text"].as_str() else { return };
    let place = json!({ "item_id": item["id"], "output_index": at, "summary_index": 0 });
    let with = |more: Value| merged(&place, more);
    let part = |text: &str| json!({ "part": { "type": "summary_text", "text": text } });
    events.push("response.reasoning_summary_part.added", with(part("")));
    for piece in answer::pieces(whole) {
        events.push("response.reasoning_summary_text.delta", with(json!({ "delta": piece })));
    }
    events.push("response.reasoning_summary_text.done", with(json!({ "text": whole })));
    events.push("response.reasoning_summary_part.done", with(part(whole)));
}

fn text(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

/// The status of an answer and why it is not whole.
fn status(answer: &Answer) -> (&'static str, Option<&'static str>) {
    match answer.end {
        End::Stop | End::StopSequence(_) | End::Calls => ("completed", None),
        End::Length => ("incomplete", Some("max_output_tokens")),
        End::Filtered => ("incomplete", Some("content_filter")),
    }
}

fn usage(answer: &Answer) -> Value {
    let input = answer.input_tokens + answer.cached_tokens;
    json!({
        "input_tokens": input,
        "input_tokens_details": { "cached_tokens": answer.cached_tokens, "cache_write_tokens": 0 },
        "output_tokens": answer.output_tokens,
        "output_tokens_details": { "reasoning_tokens": answer::pieces(&answer.thinking).len() },
        "total_tokens": input + answer.output_tokens,
    })
}
