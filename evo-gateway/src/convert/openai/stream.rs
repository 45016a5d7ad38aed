use super::{
    response::{
        failure, made_up_id, read_finish_reason, read_reasoning, read_usage, write_finish_reason,
        write_id, write_usage,
    },
    write_data,
};
use crate::{
    convert::{Context, ConvertError, StreamReader, StreamWriter, error, parse},
    model::{ApiError, ErrorKind, StreamEvent, Usage},
    wire::openai as wire,
};

/// Reads chunks.
#[derive(Debug, Default)]
pub(super) struct Reader {
    has_started: bool,
    has_stopped: bool,
    was_refused: bool,
    calls: Vec<OpenCall>,
}

/// How the server tells this call from others.
#[derive(Debug)]
struct OpenCall {
    index: Option<u64>,
    id: Option<String>,
}

impl StreamReader for Reader {
    fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    fn read(&mut self, data: &[u8], events: &mut Vec<StreamEvent>) -> Result<(), ConvertError> {
        if data.trim_ascii() == b"[DONE]" {
            return self.read_done(events);
        }
        let chunk: wire::Chunk = parse(data)?;
        if let Some(failure) = chunk.error.filter(|failure| !failure.is_null()) {
            events.push(StreamEvent::Failed(error::read_in_stream(&failure)));
            return Ok(());
        }
        for choice in chunk.choices.into_iter().filter(|choice| choice.index == 0) {
            if !std::mem::replace(&mut self.has_started, true) {
                let (id, model) = (chunk.id.clone(), chunk.model.clone());
                events.push(StreamEvent::Start { id, model });
            }
            self.read_delta(choice.delta, events)?;
            // Some servers repeat it in the chunk that holds the usage.
            if let Some(reason) = choice.finish_reason
                && !std::mem::replace(&mut self.has_stopped, true)
            {
                if let Some(message) = failure(&reason) {
                    events.push(StreamEvent::Failed(ApiError {
                        kind: ErrorKind::Internal,
                        message: message.to_owned(),
                        code: None,
                        param: None,
                    }));
                    return Ok(());
                }
                let has_calls = !self.calls.is_empty();
                let stop = read_finish_reason(Some(&reason), has_calls, self.was_refused);
                events.push(StreamEvent::Stop(stop));
            }
        }
        if let Some(usage) = chunk.usage {
            events.push(StreamEvent::Usage(read_usage(usage)));
        }
        Ok(())
    }
}

impl Reader {
    fn read_done(&mut self, events: &mut Vec<StreamEvent>) -> Result<(), ConvertError> {
        if !self.has_started {
            let message = "the provider's stream ended without an answer";
            return Err(ConvertError::new("stream", message));
        }
        if !std::mem::replace(&mut self.has_stopped, true) {
            let stop = read_finish_reason(None, !self.calls.is_empty(), self.was_refused);
            events.push(StreamEvent::Stop(stop));
        }
        events.push(StreamEvent::End);
        Ok(())
    }

    fn read_delta(
        &mut self,
        delta: wire::Delta,
        events: &mut Vec<StreamEvent>,
    ) -> Result<(), ConvertError> {
        if let Some(text) = read_reasoning(delta.reasoning_content, delta.reasoning) {
            events.push(StreamEvent::Reasoning(text));
        }
        self.was_refused |= delta.refusal.as_ref().is_some_and(|text| !text.is_empty());
        let texts = delta.content.into_iter().chain(delta.refusal).filter(|text| !text.is_empty());
        events.extend(texts.map(StreamEvent::Text));
        for call in delta.tool_calls {
            self.read_call(call, events)?;
        }
        Ok(())
    }

    fn read_call(
        &mut self,
        delta: wire::ToolCallDelta,
        events: &mut Vec<StreamEvent>,
    ) -> Result<(), ConvertError> {
        let id = delta.id.filter(|id| !id.is_empty());
        let (name, arguments) = match delta.function {
            Some(function) => (function.name.filter(|name| !name.is_empty()), function.arguments),
            None => (None, String::new()),
        };
        let call = match self.find_call(delta.index, id.as_deref(), name.is_some()) {
            Some(call) => call,
            None => {
                let name = name.ok_or_else(|| {
                    let field = "choices[0].delta.tool_calls.function.name";
                    ConvertError::new(field, "is missing in the provider's first piece of a call")
                })?;
                let call = self.calls.len();
                self.calls.push(OpenCall { index: delta.index, id: id.clone() });
                let id = id.unwrap_or_else(|| made_up_id(call));
                events.push(StreamEvent::ToolCallStart { call, id, name });
                call
            }
        };
        if !arguments.is_empty() {
            events.push(StreamEvent::ToolCallArguments { call, json: arguments });
        }
        Ok(())
    }

    /// The call that a piece continues. Servers differ: some give every call the index 0 and tell them
    /// apart by id, some give no index, some repeat the id in each piece.
    fn find_call(&self, index: Option<u64>, id: Option<&str>, is_named: bool) -> Option<usize> {
        let call = match (index, id) {
            (Some(_), _) => self.calls.iter().rposition(|call| call.index == index)?,
            (None, Some(id)) => {
                return self.calls.iter().rposition(|call| call.id.as_deref() == Some(id));
            }
            (None, None) if is_named => return None,
            (None, None) => self.calls.len().checked_sub(1)?,
        };
        let begins_another = is_named && id.is_some() && self.calls[call].id.as_deref() != id;
        (!begins_another).then_some(call)
    }
}

/// Writes chunks.
#[derive(Debug)]
pub(super) struct Writer {
    include_usage: bool,
    usage: Option<Usage>,
    /// What all chunks share.
    frame: wire::Chunk,
}

impl Writer {
    pub(super) fn new(context: &Context) -> Self {
        let frame = wire::Chunk {
            id: String::new(),
            object: "chat.completion.chunk",
            created: context.created,
            model: String::new(),
            choices: Vec::new(),
            usage: None,
            error: None,
        };
        Self { include_usage: context.include_usage, usage: None, frame }
    }
}

impl StreamWriter for Writer {
    fn write(&mut self, event: StreamEvent, out: &mut Vec<u8>) -> Result<(), ConvertError> {
        let delta = match event {
            StreamEvent::Start { id, model } => {
                self.frame.id = write_id(&id, self.frame.created);
                self.frame.model = model;
                let role = Some("assistant".to_owned());
                wire::Delta { role, content: Some(String::new()), ..wire::Delta::default() }
            }
            StreamEvent::Text(text) | StreamEvent::Refusal(text) => {
                wire::Delta { content: Some(text), ..wire::Delta::default() }
            }
            StreamEvent::Reasoning(text) => {
                wire::Delta { reasoning_content: Some(text), ..wire::Delta::default() }
            }
            StreamEvent::ToolCallStart { call, id, name } => {
                let kind = Some(wire::FUNCTION.to_owned());
                call_delta(call, Some(id), kind, Some(name), String::new())
            }
            StreamEvent::ToolCallArguments { call, json } => {
                call_delta(call, None, None, None, json)
            }
            StreamEvent::ReasoningSeal(_) | StreamEvent::Logprobs(_) => return Ok(()),
            StreamEvent::Usage(usage) => {
                self.usage = Some(usage);
                return Ok(());
            }
            StreamEvent::Stop(stop) => {
                let reason = Some(write_finish_reason(&stop));
                self.write_choice(wire::Delta::default(), reason, out);
                return Ok(());
            }
            StreamEvent::End => {
                self.write_end(out);
                return Ok(());
            }
            StreamEvent::Failed(failure) => {
                write_data(&error::write_openai(failure), out);
                return Ok(());
            }
        };
        self.write_choice(delta, None, out);
        Ok(())
    }
}

impl Writer {
    fn write_choice(
        &mut self,
        delta: wire::Delta,
        finish_reason: Option<String>,
        out: &mut Vec<u8>,
    ) {
        self.frame.choices =
            vec![wire::ChunkChoice { index: 0, delta, logprobs: (), finish_reason }];
        write_data(&self.frame, out);
    }

    fn write_end(&mut self, out: &mut Vec<u8>) {
        if self.include_usage
            && let Some(usage) = &self.usage
        {
            self.frame.choices.clear();
            self.frame.usage = Some(write_usage(usage));
            write_data(&self.frame, out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

fn call_delta(
    call: usize,
    id: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    arguments: String,
) -> wire::Delta {
    let function = Some(wire::FunctionDelta { name, arguments });
    let index = Some(call as u64);
    let tool_calls = vec![wire::ToolCallDelta { index, id, kind, function }];
    wire::Delta { tool_calls, ..wire::Delta::default() }
}
