use super::{
    blocks::{BlockQueue, write_event},
    response::{
        read_redacted, read_seal, read_stop, read_usage, write_id, write_stop, write_usage,
    },
    write_failure,
};
use crate::{
    convert::{Context, ConvertError, StreamReader, StreamWriter, error, parse},
    model::{StopReason, StreamEvent, Usage},
    usage::estimate::tokens_of,
    wire::anthropic as wire,
};

/// Reads events.
#[derive(Debug, Default)]
pub(super) struct Reader {
    has_stopped: bool,
    usage: wire::Usage,
    calls: Vec<OpenCall>,
    /// Of the block of thinking that is open.
    signature: String,
}

#[derive(Debug)]
struct OpenCall {
    /// The index of its block.
    index: u64,
    /// Arguments that came whole with the start of the block; used if no pieces follow.
    given: String,
    has_arguments: bool,
}

impl StreamReader for Reader {
    fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    fn read(&mut self, data: &[u8], events: &mut Vec<StreamEvent>) -> Result<(), ConvertError> {
        match parse(data)? {
            wire::Event::MessageStart { message } => {
                self.usage = message.usage;
                events.push(StreamEvent::Start { id: message.id, model: message.model });
                events.push(StreamEvent::Usage(read_usage(self.usage)));
            }
            wire::Event::ContentBlockStart { index, content_block } => {
                self.read_block_start(index, content_block, events);
            }
            wire::Event::ContentBlockDelta { index, delta } => {
                self.read_delta(index, delta, events);
            }
            wire::Event::ContentBlockStop { index } => self.read_block_stop(index, events),
            wire::Event::MessageDelta { delta, usage } => {
                self.read_message_delta(delta, usage, events);
            }
            wire::Event::MessageStop => events.push(StreamEvent::End),
            wire::Event::Error { error } => {
                events.push(StreamEvent::Failed(error::read_in_stream(&error)));
            }
            wire::Event::Ping | wire::Event::Unknown => {}
        }
        Ok(())
    }
}

impl Reader {
    fn read_block_start(&mut self, index: u64, block: wire::Block, events: &mut Vec<StreamEvent>) {
        match block {
            wire::Block::Text { text, .. } => push_text(text, StreamEvent::Text, events),
            wire::Block::Thinking { thinking, signature } => {
                push_text(thinking, StreamEvent::Reasoning, events);
                self.signature = signature;
            }
            wire::Block::RedactedThinking { data } => {
                push_text(data, |data| StreamEvent::ReasoningSeal(read_redacted(data)), events);
            }
            wire::Block::ToolUse { id, name, input, .. } => {
                let call = self.calls.len();
                let given = serde_json::Value::Object(input).to_string();
                self.calls.push(OpenCall { index, given, has_arguments: false });
                events.push(StreamEvent::ToolCallStart { call, id, name });
            }
            // Of tools that run at Anthropic, which nobody asked for across protocols.
            _ => {}
        }
    }

    fn read_delta(&mut self, index: u64, delta: wire::Delta, events: &mut Vec<StreamEvent>) {
        match delta {
            wire::Delta::TextDelta { text } => push_text(text, StreamEvent::Text, events),
            wire::Delta::ThinkingDelta { thinking } => {
                push_text(thinking, StreamEvent::Reasoning, events);
            }
            wire::Delta::SignatureDelta { signature } => self.signature.push_str(&signature),
            wire::Delta::InputJsonDelta { partial_json } => {
                // Blocks of tools that run at Anthropic have such pieces, too, and are no calls here.
                if let Some(call) = self.calls.iter().position(|call| call.index == index)
                    && !partial_json.is_empty()
                {
                    self.calls[call].has_arguments = true;
                    events.push(StreamEvent::ToolCallArguments { call, json: partial_json });
                }
            }
            wire::Delta::Unknown => {}
        }
    }

    /// A call without arguments has no pieces of them, where other protocols want `{}`.
    fn read_block_stop(&mut self, index: u64, events: &mut Vec<StreamEvent>) {
        let signature = std::mem::take(&mut self.signature);
        push_text(signature, |text| StreamEvent::ReasoningSeal(read_seal(text)), events);
        let Some(call) = self.calls.iter().position(|call| call.index == index) else { return };
        let open = &mut self.calls[call];
        if !std::mem::replace(&mut open.has_arguments, true) {
            let json = std::mem::take(&mut open.given);
            events.push(StreamEvent::ToolCallArguments { call, json });
        }
    }

    fn read_message_delta(
        &mut self,
        delta: wire::MessageDelta,
        usage: wire::UsageDelta,
        events: &mut Vec<StreamEvent>,
    ) {
        let update = |count: &mut u64, new: Option<u64>| *count = new.unwrap_or(*count);
        update(&mut self.usage.input_tokens, usage.input_tokens);
        update(&mut self.usage.cache_creation_input_tokens, usage.cache_creation_input_tokens);
        update(&mut self.usage.cache_read_input_tokens, usage.cache_read_input_tokens);
        update(&mut self.usage.output_tokens, usage.output_tokens);
        self.usage.output_tokens_details =
            usage.output_tokens_details.or(self.usage.output_tokens_details);
        events.push(StreamEvent::Usage(read_usage(self.usage)));
        if let Some(reason) = delta.stop_reason
            && !std::mem::replace(&mut self.has_stopped, true)
        {
            let explanation = delta.stop_details.and_then(|why| why.explanation);
            events.extend(explanation.map(StreamEvent::Refusal));
            let stop = read_stop(Some(&reason), delta.stop_sequence);
            events.push(StreamEvent::Stop(stop));
        }
    }
}

fn push_text(text: String, event: fn(String) -> StreamEvent, events: &mut Vec<StreamEvent>) {
    if !text.is_empty() {
        events.push(event(text));
    }
}

/// Writes events.
#[derive(Debug)]
pub(super) struct Writer {
    created: u64,
    blocks: BlockQueue,
    stop: StopReason,
    /// What the provider has counted.
    usage: Option<Usage>,
    /// What probably is in the question, and the bytes of the answer, where it has not.
    question: u64,
    bytes: u64,
}

impl Writer {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            created: context.created,
            blocks: BlockQueue::default(),
            stop: StopReason::End,
            usage: None,
            question: context.question,
            bytes: 0,
        }
    }

    /// The counts; those that nobody has told are estimates. Anthropic tells what the question has at
    /// the beginning, which clients show, where others do at the end; they put what comes then in its
    /// place.
    fn usage(&self) -> wire::Usage {
        write_usage(self.usage.unwrap_or_else(|| Usage {
            input_tokens: self.question,
            output_tokens: tokens_of(self.bytes),
            ..Usage::default()
        }))
    }
}

impl StreamWriter for Writer {
    /// Stop reason and usage wait for the end, since Anthropic
    /// says both in one event.
    fn write(&mut self, event: StreamEvent, out: &mut Vec<u8>) -> Result<(), ConvertError> {
        match &event {
            StreamEvent::Text(text) | StreamEvent::Refusal(text) | StreamEvent::Reasoning(text) => {
                self.bytes += text.len() as u64;
            }
            StreamEvent::ToolCallArguments { json, .. } => self.bytes += json.len() as u64,
            _ => {}
        }
        match event {
            StreamEvent::Start { id, model } => self.write_start(&id, model, out),
            StreamEvent::Text(text) | StreamEvent::Refusal(text) => self.blocks.text(text, out),
            StreamEvent::Reasoning(text) => self.blocks.thinking(text, out),
            StreamEvent::ReasoningSeal(seal) => self.blocks.seal(seal, out),
            StreamEvent::ToolCallStart { call, id, name } => {
                self.blocks.tool_use(call, id, name, out);
            }
            StreamEvent::ToolCallArguments { call, json } => {
                self.blocks.arguments(call, &json, out)?;
            }
            StreamEvent::Logprobs(_) => {}
            StreamEvent::Stop(stop) => self.stop = stop,
            StreamEvent::Usage(usage) => self.usage = Some(usage),
            StreamEvent::End => self.write_end(out),
            StreamEvent::Failed(failure) => write_failure(failure, out),
        }
        Ok(())
    }
}

impl Writer {
    fn write_start(&mut self, id: &str, model: String, out: &mut Vec<u8>) {
        let message = wire::Response {
            id: write_id(id, self.created),
            kind: "message",
            role: "assistant",
            model,
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            stop_details: None,
            usage: self.usage(),
        };
        write_event("message_start", &wire::EventOut::MessageStart { message: &message }, out);
    }

    fn write_end(&mut self, out: &mut Vec<u8>) {
        self.blocks.close(out);
        let delta = write_stop(std::mem::replace(&mut self.stop, StopReason::End));
        let usage = self.usage();
        write_event("message_delta", &wire::EventOut::MessageDelta { delta: &delta, usage }, out);
        write_event("message_stop", &wire::EventOut::MessageStop, out);
    }
}
