//! A program's answer as a chat completion of OpenAI: whole, or as a stream of events.

use bytes::Bytes;
use chrono::Utc;
use futures_util::{StreamExt as _, stream};
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};

use super::{
    Failed,
    format::{Ending, Event, Reader, Usage},
    process::{Process, Step},
};
use crate::upstream::{Body, BoxError};

/// The program broke off inside its answer.
#[derive(Debug, thiserror::Error)]
#[error("the program broke off inside its answer: {0}")]
struct Broken(String);

/// Writes one answer.
#[derive(Debug)]
pub(super) struct Writer {
    id: String,
    created: i64,
    model: String,
    include_usage: bool,
}

impl Writer {
    /// An answer of this model.
    pub(super) fn new(model: &str, include_usage: bool) -> Self {
        let id = format!("chatcmpl-{:032x}", rand::random::<u128>());
        Self { id, created: Utc::now().timestamp(), model: model.to_owned(), include_usage }
    }

    /// The answer when it is complete. `first` is what has come of it.
    pub(super) async fn whole(
        &self,
        mut process: Process,
        mut reader: Reader,
        first: Step,
    ) -> Result<Value, Failed> {
        let (mut text, mut thoughts) = (String::new(), String::new());
        let mut step = first;
        let ending = loop {
            match step {
                Step::Event(Event::Text(more)) => text.push_str(&more),
                Step::Event(Event::Thought(more)) => thoughts.push_str(&more),
                Step::Event(Event::Done(ending)) => break ending,
                Step::Event(Event::Failed(failed)) | Step::Failed(failed) => return Err(failed),
            }
            step = process.next(&mut reader).await;
        };
        let mut message = json!({ "role": "assistant", "content": text });
        if !thoughts.is_empty() {
            message["reasoning_content"] = thoughts.into();
        }
        let choice = json!({
            "index": 0, "message": message, "logprobs": null, "finish_reason": ending.reason,
        });
        let mut answer = json!({
            "id": self.id, "object": "chat.completion", "created": self.created,
            "model": self.model, "choices": [choice],
        });
        if let Some(usage) = ending.usage {
            answer["usage"] = counts(usage);
        }
        Ok(answer)
    }

    /// The answer as it comes. Dropping the body ends the process.
    pub(super) fn stream(self, process: Process, reader: Reader, first: Step) -> Response<Body> {
        let head = self.chunk(&json!({ "role": "assistant", "content": "" }), None);
        let work = Work { writer: self, process, reader, first: Some(first) };
        let rest = stream::unfold(Some(work), |work| async {
            let mut work = work?;
            let step = match work.first.take() {
                Some(first) => first,
                None => work.process.next(&mut work.reader).await,
            };
            match step {
                Step::Event(Event::Text(text)) => {
                    let chunk = work.writer.chunk(&json!({ "content": text }), None);
                    Some((Ok(chunk), Some(work)))
                }
                Step::Event(Event::Thought(text)) => {
                    let chunk = work.writer.chunk(&json!({ "reasoning_content": text }), None);
                    Some((Ok(chunk), Some(work)))
                }
                Step::Event(Event::Done(ending)) => Some((Ok(work.writer.last(&ending)), None)),
                Step::Event(Event::Failed(failed)) | Step::Failed(failed) => {
                    Some((Err(Broken(failed.message).into()), None))
                }
            }
        });
        let pieces = stream::iter([Ok::<_, BoxError>(head)]).chain(rest);
        let body =
            StreamBody::new(pieces.map(|piece| piece.map(|text| Frame::data(Bytes::from(text)))));
        Response::new(Body::from(body.boxed_unsync()))
    }

    fn chunk(&self, delta: &Value, reason: Option<&str>) -> String {
        self.event(
            &json!([{
                "index": 0, "delta": delta, "logprobs": null, "finish_reason": reason,
            }]),
            None,
        )
    }

    /// What ends a stream.
    fn last(&self, ending: &Ending) -> String {
        let mut last = self.chunk(&json!({}), Some(ending.reason));
        if let Some(usage) = ending.usage.filter(|_| self.include_usage) {
            last.push_str(&self.event(&json!([]), Some(usage)));
        }
        last.push_str("data: [DONE]\n\n");
        last
    }

    fn event(&self, choices: &Value, usage: Option<Usage>) -> String {
        let mut event = json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created,
            "model": self.model, "choices": choices,
        });
        if let Some(usage) = usage {
            event["usage"] = counts(usage);
        }
        format!("data: {event}\n\n")
    }
}

/// A stream that is being written.
struct Work {
    writer: Writer,
    process: Process,
    reader: Reader,
    first: Option<Step>,
}

fn counts(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": { "cached_tokens": usage.cached },
        "completion_tokens_details": { "reasoning_tokens": usage.reasoning },
    })
}
