use std::collections::HashMap;

use super::{
    reasoning,
    response::{
        add_details, failure, made_up_id, read_finish_reason, read_logprobs, read_usage,
        write_finish_reason, write_id, write_logprobs, write_usage,
    },
    write_data,
};
use crate::{
    convert::{
        Context, ConvertError, StreamReader, StreamWriter,
        custom::{self, InputDecoder},
        error, parse,
    },
    model::{ApiError, ErrorKind, Reasoning, Seal, StreamEvent, Usage},
    wire::openai as wire,
};

/// Reads chunks.
#[derive(Debug, Default)]
pub(super) struct Reader {
    has_started: bool,
    has_stopped: bool,
    was_refused: bool,
    calls: Vec<OpenCall>,
    /// Reasoning came, and nothing else since.
    is_thinking: bool,
    details: Vec<wire::ReasoningDetail>,
}

/// How the server tells this call from others.
#[derive(Debug)]
struct OpenCall {
    index: Option<u64>,
    id: Option<String>,
    is_custom: bool,
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
            let logprobs = choice.logprobs.map(read_logprobs).unwrap_or_default();
            if !logprobs.is_empty() {
                events.push(StreamEvent::Logprobs(logprobs));
            }
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
                self.end_thinking(events);
                self.end_custom_calls(events);
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
            self.end_thinking(events);
            self.end_custom_calls(events);
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
        let text = reasoning::read_text(delta.reasoning_content, delta.reasoning);
        let thought = reasoning::read_of_provider(text, &delta.reasoning_details);
        if let Some(thought) = thought {
            self.is_thinking = true;
            reasoning::collect(&mut self.details, delta.reasoning_details);
            if !thought.text.is_empty() {
                events.push(StreamEvent::Reasoning(thought.text));
            }
        }
        let is_some = |text: &String| !text.is_empty();
        let (text, refusal) = (delta.content.filter(is_some), delta.refusal.filter(is_some));
        if text.is_some() || refusal.is_some() || !delta.tool_calls.is_empty() {
            self.end_thinking(events);
        }
        self.was_refused |= refusal.is_some();
        events.extend(text.map(StreamEvent::Text));
        events.extend(refusal.map(StreamEvent::Refusal));
        for call in delta.tool_calls {
            self.read_call(call, events)?;
        }
        Ok(())
    }

    /// Seals what was thought, so that it finds back to a provider of this protocol.
    fn end_thinking(&mut self, events: &mut Vec<StreamEvent>) {
        if std::mem::take(&mut self.is_thinking) {
            let details = std::mem::take(&mut self.details);
            events.push(StreamEvent::ReasoningSeal(reasoning::seal(&details)));
        }
    }

    fn end_custom_calls(&mut self, events: &mut Vec<StreamEvent>) {
        let open = self.calls.iter().enumerate().filter(|(_, call)| call.is_custom);
        events.extend(open.map(|(call, _)| StreamEvent::ToolCallArguments {
            call,
            json: custom::AFTER_INPUT.to_owned(),
        }));
    }

    fn read_call(
        &mut self,
        delta: wire::ToolCallDelta,
        events: &mut Vec<StreamEvent>,
    ) -> Result<(), ConvertError> {
        let id = delta.id.filter(|id| !id.is_empty());
        let is_custom = delta.custom.is_some();
        let (name, arguments) = match (delta.function, delta.custom) {
            (_, Some(call)) => (call.name, custom::escape(&call.input)),
            (Some(function), _) => (function.name, function.arguments),
            (None, None) => (None, String::new()),
        };
        let name = name.filter(|name| !name.is_empty());
        let call = match self.find_call(delta.index, id.as_deref(), name.is_some()) {
            Some(call) => call,
            None => {
                let name = name.ok_or_else(|| {
                    let field = "choices[0].delta.tool_calls.function.name";
                    ConvertError::new(field, "is missing in the provider's first piece of a call")
                })?;
                let call = self.calls.len();
                self.calls.push(OpenCall { index: delta.index, id: id.clone(), is_custom });
                let id = id.unwrap_or_else(|| made_up_id(call));
                events.push(StreamEvent::ToolCallStart { call, id, name });
                if is_custom {
                    let json = custom::before_input();
                    events.push(StreamEvent::ToolCallArguments { call, json });
                }
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
    custom_tools: Vec<String>,
    /// Of the calls that are shown as bare text.
    decoders: HashMap<usize, InputDecoder>,
    /// Of the reasoning that is not sealed yet.
    thought: String,
    details: Vec<wire::ReasoningDetail>,
    was_refused: bool,
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
        Self {
            include_usage: context.include_usage,
            usage: None,
            custom_tools: context.custom_tools.clone(),
            decoders: HashMap::new(),
            thought: String::new(),
            details: Vec::new(),
            was_refused: false,
            frame,
        }
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
            StreamEvent::Text(text) => {
                wire::Delta { content: Some(text), ..wire::Delta::default() }
            }
            StreamEvent::Refusal(text) => {
                self.was_refused = true;
                wire::Delta { refusal: Some(text), ..wire::Delta::default() }
            }
            StreamEvent::Reasoning(text) => {
                self.thought.push_str(&text);
                wire::Delta { reasoning_content: Some(text), ..wire::Delta::default() }
            }
            StreamEvent::ReasoningSeal(seal) => match self.write_seal(seal) {
                Some(delta) => delta,
                None => return Ok(()),
            },
            StreamEvent::ToolCallStart { call, id, name } => self.write_call(call, id, name),
            StreamEvent::ToolCallArguments { call, json } => match self.decoders.get_mut(&call) {
                Some(decoder) => match decoder.push(&json) {
                    text if text.is_empty() => return Ok(()),
                    input => custom_delta(call, None, None, input),
                },
                None => call_delta(call, None, None, json),
            },
            StreamEvent::Logprobs(logprobs) => {
                let logprobs = write_logprobs(logprobs);
                self.write_choice(wire::Delta::default(), logprobs, None, out);
                return Ok(());
            }
            StreamEvent::Usage(usage) => {
                self.usage = Some(usage);
                return Ok(());
            }
            StreamEvent::Stop(stop) => {
                let reason = Some(write_finish_reason(&stop, self.was_refused));
                self.write_choice(wire::Delta::default(), None, reason, out);
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
        self.write_choice(delta, None, None, out);
        Ok(())
    }
}

impl Writer {
    fn write_choice(
        &mut self,
        delta: wire::Delta,
        logprobs: Option<wire::Logprobs>,
        finish_reason: Option<String>,
        out: &mut Vec<u8>,
    ) {
        self.frame.choices = vec![wire::ChunkChoice { index: 0, delta, logprobs, finish_reason }];
        write_data(&self.frame, out);
    }

    fn write_call(&mut self, call: usize, id: String, name: String) -> wire::Delta {
        if self.custom_tools.contains(&name) {
            self.decoders.insert(call, InputDecoder::default());
            return custom_delta(call, Some(id), Some(name), String::new());
        }
        call_delta(call, Some(id), Some(name), String::new())
    }

    /// What a caller has to give back of the reasoning that came since the last seal.
    fn write_seal(&mut self, seal: Seal) -> Option<wire::Delta> {
        let before = self.details.len();
        let text = std::mem::take(&mut self.thought);
        add_details(&mut self.details, Reasoning { text, seal: Some(seal) });
        let reasoning_details = self.details[before..].to_vec();
        (!reasoning_details.is_empty())
            .then(|| wire::Delta { reasoning_details, ..wire::Delta::default() })
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
    name: Option<String>,
    arguments: String,
) -> wire::Delta {
    let kind = id.is_some().then(|| wire::FUNCTION.to_owned());
    let function = Some(wire::FunctionDelta { name, arguments });
    let index = Some(call as u64);
    let tool_calls = vec![wire::ToolCallDelta { index, id, kind, function, custom: None }];
    wire::Delta { tool_calls, ..wire::Delta::default() }
}

fn custom_delta(
    call: usize,
    id: Option<String>,
    name: Option<String>,
    input: String,
) -> wire::Delta {
    let kind = id.is_some().then(|| wire::CUSTOM.to_owned());
    let custom = Some(wire::CustomDelta { name, input });
    let index = Some(call as u64);
    let tool_calls = vec![wire::ToolCallDelta { index, id, kind, function: None, custom }];
    wire::Delta { tool_calls, ..wire::Delta::default() }
}
