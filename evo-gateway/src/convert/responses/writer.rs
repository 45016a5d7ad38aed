use super::output::{Frame, write_logprob};
use crate::{
    convert::{
        Context, ConvertError, StreamWriter, custom::InputDecoder, error,
        json_progress::JsonProgress, seal, write_json,
    },
    model::{ApiError, Seal, SealOrigin, StopReason, StreamEvent, TokenLogprob, ToolCall},
    wire::{Content, responses as wire},
};

/// Writes events. Items are in the answer from their beginning on, so that their places are known.
#[derive(Debug)]
pub(super) struct Writer {
    frame: Frame,
    numbers: Numbers,
    /// The message or the reasoning that is being said.
    said: Option<Said>,
    calls: Vec<Call>,
}

/// Each event has a number.
#[derive(Debug, Default)]
struct Numbers {
    next: u64,
}

impl Numbers {
    fn write(&mut self, kind: &'static str, body: wire::Body<'_>, out: &mut Vec<u8>) {
        let event = wire::EventOut { kind, sequence_number: self.next, body };
        self.next += 1;
        write_event(&event, out);
    }
}

fn write_event(event: &wire::EventOut<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(event.kind.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    write_json(out, event);
    out.extend_from_slice(b"\n\n");
}

/// Appends the event `error`, whose fields clients look for in two places.
pub(super) fn write_error(failure: ApiError, number: u64, out: &mut Vec<u8>) {
    let error = error::write_openai(failure).error;
    let code = code_of(&error);
    let (message, param) = (error.message.as_str(), error.param.as_deref());
    let body = wire::Body::Error { code: &code, message, param, error: &error };
    write_event(&wire::EventOut { kind: "error", sequence_number: number, body }, out);
}

fn code_of(error: &crate::wire::openai::ErrorDetail) -> String {
    error.code.clone().unwrap_or_else(|| error.kind.to_owned())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Refusal,
    Reasoning,
}

#[derive(Debug)]
struct Said {
    kind: Kind,
    /// Its place in the answer.
    at: usize,
    id: String,
    text: String,
    logprobs: Vec<wire::Logprob>,
}

impl Said {
    fn part(&mut self) -> wire::Part {
        let text = self.text.clone();
        match self.kind {
            Kind::Text => wire::Part::OutputText {
                text,
                annotations: [],
                logprobs: std::mem::take(&mut self.logprobs),
            },
            Kind::Refusal => wire::Part::Refusal { refusal: text },
            Kind::Reasoning => wire::Part::SummaryText { text },
        }
    }
}

#[derive(Debug)]
struct Call {
    /// Its number.
    call: usize,
    /// Its place in the answer.
    at: usize,
    id: String,
    /// Of a tool whose calls are bare text.
    decoder: Option<InputDecoder>,
    progress: JsonProgress,
    /// Its arguments or its input.
    text: String,
}

impl Writer {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            frame: Frame::new(context),
            numbers: Numbers::default(),
            said: None,
            calls: Vec::new(),
        }
    }

    /// Puts an item into the answer and says that it begins.
    fn begin(&mut self, mut item: wire::Item, out: &mut Vec<u8>) -> (usize, String) {
        let (at, id) = (self.frame.output.len(), self.frame.item_id(&item.kind));
        item.id = Some(id.clone());
        item.status = Some("in_progress".to_owned());
        let body = wire::Body::Item { output_index: at, item: &item };
        self.numbers.write("response.output_item.added", body, out);
        self.frame.output.push(item);
        (at, id)
    }

    /// Says that an item is done.
    fn done(&mut self, at: usize, status: &str, out: &mut Vec<u8>) {
        let item = &mut self.frame.output[at];
        item.status = Some(status.to_owned());
        let body = wire::Body::Item { output_index: at, item };
        self.numbers.write("response.output_item.done", body, out);
    }

    /// Continues what is being said, or begins something else.
    fn say(&mut self, kind: Kind, text: &str, out: &mut Vec<u8>) {
        if self.said.as_ref().is_none_or(|said| said.kind != kind) {
            self.end_said(out);
            self.end_whole_calls(out);
            self.begin_said(kind, out);
        }
        let Some(said) = &mut self.said else { return };
        said.text.push_str(text);
        let (item_id, output_index) = (said.id.as_str(), said.at);
        let (name, body) = match kind {
            Kind::Text => (
                "response.output_text.delta",
                wire::Body::TextDelta {
                    item_id,
                    output_index,
                    content_index: 0,
                    delta: text,
                    logprobs: &[],
                },
            ),
            Kind::Refusal => (
                "response.refusal.delta",
                wire::Body::RefusalDelta { item_id, output_index, content_index: 0, delta: text },
            ),
            Kind::Reasoning => (
                "response.reasoning_summary_text.delta",
                wire::Body::SummaryDelta { item_id, output_index, summary_index: 0, delta: text },
            ),
        };
        self.numbers.write(name, body, out);
    }

    fn begin_said(&mut self, kind: Kind, out: &mut Vec<u8>) {
        let item = match kind {
            Kind::Reasoning => reasoning_item(),
            Kind::Text | Kind::Refusal => wire::Item {
                kind: wire::MESSAGE.to_owned(),
                role: Some("assistant".to_owned()),
                content: Some(Content::Parts(Vec::new())),
                ..wire::Item::default()
            },
        };
        let (at, id) = self.begin(item, out);
        let mut said = Said { kind, at, id, text: String::new(), logprobs: Vec::new() };
        let part = &said.part();
        let (item_id, output_index) = (said.id.as_str(), at);
        let (name, body) = if kind == Kind::Reasoning {
            let body = wire::Body::SummaryPart { item_id, output_index, summary_index: 0, part };
            ("response.reasoning_summary_part.added", body)
        } else {
            let body = wire::Body::Part { item_id, output_index, content_index: 0, part };
            ("response.content_part.added", body)
        };
        self.numbers.write(name, body, out);
        self.said = Some(said);
    }

    fn logprobs(&mut self, logprobs: Vec<TokenLogprob>, out: &mut Vec<u8>) {
        let Some(said) = self.said.as_mut().filter(|said| said.kind == Kind::Text) else { return };
        let logprobs: Vec<_> = logprobs.into_iter().map(write_logprob).collect();
        let body = wire::Body::TextDelta {
            item_id: &said.id,
            output_index: said.at,
            content_index: 0,
            delta: "",
            logprobs: &logprobs,
        };
        self.numbers.write("response.output_text.delta", body, out);
        said.logprobs.extend(logprobs);
    }

    fn end_said(&mut self, out: &mut Vec<u8>) {
        self.end_said_with("completed", out);
    }

    fn end_said_with(&mut self, status: &str, out: &mut Vec<u8>) {
        let Some(mut said) = self.said.take() else { return };
        let part = said.part();
        let (item_id, output_index) = (said.id.as_str(), said.at);
        let (text, content_index, summary_index) = (said.text.as_str(), 0, 0);
        let logprobs: &[wire::Logprob] = match &part {
            wire::Part::OutputText { logprobs, .. } => logprobs,
            _ => &[],
        };
        let (name, body) = match said.kind {
            Kind::Text => (
                "response.output_text.done",
                wire::Body::Text { item_id, output_index, content_index, text, logprobs },
            ),
            Kind::Refusal => (
                "response.refusal.done",
                wire::Body::Refusal { item_id, output_index, content_index, refusal: text },
            ),
            Kind::Reasoning => (
                "response.reasoning_summary_text.done",
                wire::Body::Summary { item_id, output_index, summary_index, text },
            ),
        };
        self.numbers.write(name, body, out);
        let (name, body) = if said.kind == Kind::Reasoning {
            let body =
                wire::Body::SummaryPart { item_id, output_index, summary_index, part: &part };
            ("response.reasoning_summary_part.done", body)
        } else {
            let body = wire::Body::Part { item_id, output_index, content_index, part: &part };
            ("response.content_part.done", body)
        };
        self.numbers.write(name, body, out);
        let item = &mut self.frame.output[said.at];
        if said.kind == Kind::Reasoning {
            item.summary = Some(vec![part]);
        } else {
            item.content = Some(Content::Parts(vec![part]));
        }
        self.done(said.at, status, out);
    }

    fn seal(&mut self, seal: Seal, out: &mut Vec<u8>) {
        let encrypted = Some(seal::write(seal, SealOrigin::OpenAiResponses));
        if let Some(said) = self.said.as_ref().filter(|said| said.kind == Kind::Reasoning) {
            self.frame.output[said.at].encrypted_content = encrypted;
            return self.end_said(out);
        }
        self.end_said(out);
        self.end_whole_calls(out);
        let (at, _) = self.begin(reasoning_item(), out);
        self.frame.output[at].encrypted_content = encrypted;
        self.done(at, "completed", out);
    }

    fn begin_call(&mut self, call: usize, id: String, name: String, out: &mut Vec<u8>) {
        self.end_said(out);
        self.end_whole_calls(out);
        let arguments = serde_json::Map::new();
        let mut item = self.frame.write_call(ToolCall { id, name, arguments });
        let is_custom = item.input.is_some();
        let beginning = if is_custom { &mut item.input } else { &mut item.arguments };
        *beginning = Some(String::new());
        let (at, id) = self.begin(item, out);
        let decoder = is_custom.then(InputDecoder::default);
        let progress = JsonProgress::default();
        self.calls.push(Call { call, at, id, decoder, progress, text: String::new() });
    }

    fn arguments(
        &mut self,
        call: usize,
        json: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), ConvertError> {
        let Some(open) = self.calls.iter_mut().find(|open| open.call == call) else {
            // Its item is done: its arguments were whole before another one began.
            if json.trim().is_empty() {
                return Ok(());
            }
            let message = "the provider continued the arguments of a call that were whole already";
            return Err(ConvertError::new("tool_calls", message));
        };
        open.progress.feed(json);
        let (name, delta) = match &mut open.decoder {
            Some(decoder) => ("response.custom_tool_call_input.delta", decoder.push(json)),
            None => ("response.function_call_arguments.delta", json.to_owned()),
        };
        if !delta.is_empty() {
            open.text.push_str(&delta);
            let (item_id, output_index) = (open.id.as_str(), open.at);
            let body = wire::Body::CallDelta { item_id, output_index, delta: &delta };
            self.numbers.write(name, body, out);
        }
        Ok(())
    }

    /// Ends the calls whose arguments are whole: pieces of parallel calls may come mixed.
    fn end_whole_calls(&mut self, out: &mut Vec<u8>) {
        let (whole, open) = std::mem::take(&mut self.calls)
            .into_iter()
            .partition::<Vec<_>, _>(|call| call.progress.is_whole());
        self.calls = open;
        for call in whole {
            self.end_call(call, "completed", out);
        }
    }

    fn end_call(&mut self, mut call: Call, status: &str, out: &mut Vec<u8>) {
        let (item_id, output_index) = (call.id.as_str(), call.at);
        let item = &mut self.frame.output[call.at];
        if call.decoder.is_some() {
            let body = wire::Body::Input { item_id, output_index, input: &call.text };
            self.numbers.write("response.custom_tool_call_input.done", body, out);
            item.input = Some(call.text);
        } else {
            if call.text.is_empty() {
                call.text.push_str("{}");
            }
            let name = item.name.as_deref().unwrap_or_default();
            let body = wire::Body::Arguments { item_id, output_index, name, arguments: &call.text };
            self.numbers.write("response.function_call_arguments.done", body, out);
            item.arguments = Some(call.text);
        }
        self.done(call.at, status, out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        // What is open now is what the answer was cut off in, if it was.
        let (status, _) = self.frame.end();
        // A refusal in words is whole, and so is an answer that ends with it.
        let is_refusal = self.said.as_ref().is_some_and(|said| said.kind == Kind::Refusal);
        let whole = is_refusal && self.frame.stop == StopReason::Refusal;
        self.end_said_with(if whole { "completed" } else { status }, out);
        for call in std::mem::take(&mut self.calls) {
            let status = if call.progress.is_whole() { "completed" } else { status };
            self.end_call(call, status, out);
        }
        let (status, _) = self.frame.end();
        let name = match status {
            "incomplete" => "response.incomplete",
            _ => "response.completed",
        };
        let body = wire::Body::Response { response: self.frame.response(status, None) };
        self.numbers.write(name, body, out);
    }

    /// Some clients look only for one of the two events, and those that stop at the second have seen
    /// the first.
    fn fail(&mut self, failure: ApiError, out: &mut Vec<u8>) {
        if !self.frame.has_started() {
            self.frame.start("", String::new());
        }
        let detail = error::write_openai(failure.clone()).error;
        let error = wire::ErrorDetail { code: code_of(&detail), message: detail.message };
        let body = wire::Body::Response { response: self.frame.response("failed", Some(&error)) };
        self.numbers.write("response.failed", body, out);
        write_error(failure, self.numbers.next, out);
    }
}

fn reasoning_item() -> wire::Item {
    wire::Item {
        kind: wire::REASONING.to_owned(),
        summary: Some(Vec::new()),
        ..wire::Item::default()
    }
}

impl StreamWriter for Writer {
    fn write(&mut self, event: StreamEvent, out: &mut Vec<u8>) -> Result<(), ConvertError> {
        match event {
            StreamEvent::Start { id, model } => {
                self.frame.start(&id, model);
                for name in ["response.created", "response.in_progress"] {
                    let response = self.frame.response("in_progress", None);
                    self.numbers.write(name, wire::Body::Response { response }, out);
                }
            }
            StreamEvent::Text(text) => self.say(Kind::Text, &text, out),
            StreamEvent::Refusal(text) => self.say(Kind::Refusal, &text, out),
            StreamEvent::Reasoning(text) => self.say(Kind::Reasoning, &text, out),
            StreamEvent::ReasoningSeal(seal) => self.seal(seal, out),
            StreamEvent::ToolCallStart { call, id, name } => self.begin_call(call, id, name, out),
            StreamEvent::ToolCallArguments { call, json } => self.arguments(call, &json, out)?,
            StreamEvent::Logprobs(logprobs) => self.logprobs(logprobs, out),
            StreamEvent::Stop(stop) => self.frame.stop = stop,
            StreamEvent::Usage(usage) => self.frame.usage = Some(usage),
            StreamEvent::End => self.end(out),
            StreamEvent::Failed(failure) => self.fail(failure, out),
        }
        Ok(())
    }
}
