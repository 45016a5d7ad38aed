use super::{
    Framing, error,
    messages::{mark_first_call, signed, write_call},
    response::{
        Piece, block_message, failure, is_shown, read_logprobs, read_part, read_stop, read_usage,
        sealed, write_logprobs, write_stop, write_usage,
    },
    write_event,
};
use crate::{
    convert::{
        Context, ConvertError, StreamReader, StreamWriter, error::read_in_stream, parse, write_json,
    },
    model::{ApiError, ErrorKind, SealOrigin, StopReason, StreamEvent, ToolCall, Usage},
    wire::gemini as wire,
};

/// Reads pieces of an answer. There is no end mark: the reason for the end says that it is whole.
#[derive(Debug)]
pub(super) struct Reader {
    has_started: bool,
    has_stopped: bool,
    calls: usize,
    /// What the ids of calls are made of.
    id: String,
}

impl Reader {
    pub(super) fn new(context: &Context) -> Self {
        let id = context.created.to_string();
        Self { has_started: false, has_stopped: false, calls: 0, id }
    }
}

impl StreamReader for Reader {
    fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    fn read(&mut self, data: &[u8], events: &mut Vec<StreamEvent>) -> Result<(), ConvertError> {
        let chunk: wire::Response = parse(data)?;
        if let Some(failure) = chunk.error.filter(|failure| !failure.is_null()) {
            events.push(StreamEvent::Failed(read_in_stream(&failure)));
            return Ok(());
        }
        if !std::mem::replace(&mut self.has_started, true) {
            if !chunk.response_id.is_empty() {
                self.id.clone_from(&chunk.response_id);
            }
            events.push(StreamEvent::Start { id: chunk.response_id, model: chunk.model_version });
        }
        for candidate in chunk.candidates.into_iter().filter(|candidate| candidate.index == 0) {
            self.read_candidate(candidate, events);
        }
        let feedback = chunk.prompt_feedback.filter(|feedback| feedback.block_reason.is_some());
        if let Some(feedback) = feedback
            && !std::mem::replace(&mut self.has_stopped, true)
        {
            events.push(StreamEvent::Refusal(block_message(&feedback)));
            events.push(StreamEvent::Stop(StopReason::Refusal));
        }
        events.extend(chunk.usage_metadata.map(read_usage).map(StreamEvent::Usage));
        Ok(())
    }
}

impl Reader {
    fn read_candidate(&mut self, candidate: wire::Candidate, events: &mut Vec<StreamEvent>) {
        for part in candidate.content.unwrap_or_default().parts {
            for piece in read_part(part, &self.id, &mut self.calls) {
                match piece {
                    Piece::Text(text) => events.push(StreamEvent::Text(text)),
                    Piece::Thought(text) => events.push(StreamEvent::Reasoning(text)),
                    Piece::Seal(seal) => events.push(StreamEvent::ReasoningSeal(seal)),
                    Piece::Call(ToolCall { id, name, arguments }) => {
                        let call = self.calls - 1;
                        events.push(StreamEvent::ToolCallStart { call, id, name });
                        let json = serde_json::Value::Object(arguments).to_string();
                        events.push(StreamEvent::ToolCallArguments { call, json });
                    }
                }
            }
        }
        let logprobs = candidate.logprobs_result.map(read_logprobs).unwrap_or_default();
        if !logprobs.is_empty() {
            events.push(StreamEvent::Logprobs(logprobs));
        }
        let Some(reason) = candidate.finish_reason else { return };
        if std::mem::replace(&mut self.has_stopped, true) {
            return;
        }
        if let Some(message) = failure(Some(&reason), candidate.finish_message.as_deref()) {
            let (kind, code, param) = (ErrorKind::Internal, None, None);
            events.push(StreamEvent::Failed(ApiError { kind, message, code, param }));
            return;
        }
        let stop = read_stop(Some(&reason), self.calls > 0);
        if stop == StopReason::Refusal {
            events.extend(candidate.finish_message.map(StreamEvent::Refusal));
        }
        events.push(StreamEvent::Stop(stop));
    }
}

/// Writes pieces of an answer.
#[derive(Debug)]
pub(super) struct Writer {
    framing: Framing,
    context: Context,
    id: String,
    model: String,
    /// In an array: whether it has an element.
    has_element: bool,
    /// A signature that belongs to what follows.
    pending: Option<String>,
    /// Google's calls come whole, so these wait until they are.
    calls: Vec<OpenCall>,
    stop: StopReason,
    usage: Option<Usage>,
}

#[derive(Debug)]
struct OpenCall {
    id: String,
    name: String,
    arguments: String,
    signature: Option<String>,
}

impl Writer {
    pub(super) fn new(framing: Framing, context: &Context) -> Self {
        Self {
            framing,
            context: context.clone(),
            id: String::new(),
            model: String::new(),
            has_element: false,
            pending: None,
            calls: Vec::new(),
            stop: StopReason::End,
            usage: None,
        }
    }
}

impl StreamWriter for Writer {
    /// The calls, the reason for the end and the usage wait for the end.
    fn write(&mut self, event: StreamEvent, out: &mut Vec<u8>) -> Result<(), ConvertError> {
        match event {
            StreamEvent::Start { id, model } => (self.id, self.model) = (id, model),
            StreamEvent::Text(text) | StreamEvent::Refusal(text) => {
                let thought_signature = self.pending.take();
                let part = wire::Part { thought_signature, ..wire::Part::text(text) };
                self.write_part(part, out);
            }
            StreamEvent::Reasoning(text) if !self.context.hides_thoughts => {
                self.write_part(wire::Part { thought: true, ..wire::Part::text(text) }, out);
            }
            StreamEvent::Reasoning(_) => {}
            StreamEvent::ReasoningSeal(seal) => {
                if seal.origin == SealOrigin::Gemini {
                    if let Some(alone) = self.pending.replace(seal.data) {
                        self.write_part(signed(alone), out);
                    }
                } else if is_shown(&seal, &self.context) {
                    self.write_part(sealed(seal), out);
                }
            }
            StreamEvent::ToolCallStart { id, name, .. } => {
                let signature = self.pending.take();
                self.calls.push(OpenCall { id, name, arguments: String::new(), signature });
            }
            StreamEvent::ToolCallArguments { call, json } => {
                if let Some(open) = self.calls.get_mut(call) {
                    open.arguments.push_str(&json);
                }
            }
            StreamEvent::Logprobs(logprobs) => {
                let logprobs_result = write_logprobs(logprobs);
                let candidate = wire::Candidate { logprobs_result, ..wire::Candidate::default() };
                self.write_candidate(candidate, None, out);
            }
            StreamEvent::Stop(stop) => self.stop = stop,
            StreamEvent::Usage(usage) => self.usage = Some(usage),
            StreamEvent::End => self.write_end(out)?,
            StreamEvent::Failed(failure) => self.write_failure(failure, out),
        }
        Ok(())
    }
}

impl Writer {
    fn write_part(&mut self, part: wire::Part, out: &mut Vec<u8>) {
        self.write_candidate(candidate(vec![part]), None, out);
    }

    fn write_candidate(
        &mut self,
        candidate: wire::Candidate,
        usage: Option<&Usage>,
        out: &mut Vec<u8>,
    ) {
        let chunk = wire::Response {
            candidates: vec![candidate],
            usage_metadata: usage.map(write_usage),
            model_version: self.model.clone(),
            response_id: self.id.clone(),
            ..wire::Response::default()
        };
        self.write_element(&chunk, out);
    }

    fn write_element(&mut self, value: &impl serde::Serialize, out: &mut Vec<u8>) {
        match self.framing {
            Framing::Events => write_event(value, out),
            Framing::Array => {
                let before: &[u8] = if self.has_element { b",\r\n" } else { b"[" };
                self.has_element = true;
                out.extend_from_slice(before);
                write_json(out, value);
            }
        }
    }

    fn write_end(&mut self, out: &mut Vec<u8>) -> Result<(), ConvertError> {
        let mut parts = Vec::with_capacity(self.calls.len() + 1);
        for open in std::mem::take(&mut self.calls) {
            let OpenCall { id, name, arguments, signature } = open;
            let text = if arguments.trim().is_empty() { "{}" } else { arguments.as_str() };
            match serde_json::from_str(text) {
                Ok(arguments) => {
                    parts.push(write_call(ToolCall { id, name, arguments }, signature));
                }
                // The answer was cut off within this call, which the reason says; half of it is none.
                Err(_) if self.stop == StopReason::Length => {}
                Err(fault) => {
                    let message =
                        format!("the arguments of the call `{name}` are no object: {fault}");
                    return Err(ConvertError::new("functionCall.args", message));
                }
            }
        }
        parts.extend(self.pending.take().map(signed));
        mark_first_call(&mut parts);
        if parts.is_empty() {
            parts.push(wire::Part::text(""));
        }
        let finish_reason = Some(write_stop(&self.stop).to_owned());
        let usage = self.usage.take();
        let last = wire::Candidate { finish_reason, ..candidate(parts) };
        self.write_candidate(last, usage.as_ref(), out);
        if self.framing == Framing::Array {
            out.push(b']');
        }
        Ok(())
    }

    fn write_failure(&mut self, failure: ApiError, out: &mut Vec<u8>) {
        self.write_element(&error::write(failure), out);
        if self.framing == Framing::Array {
            out.push(b']');
        }
    }
}

fn candidate(parts: Vec<wire::Part>) -> wire::Candidate {
    let content = Some(wire::Turn { role: Some("model".to_owned()), parts });
    wire::Candidate { content, ..wire::Candidate::default() }
}
