//! The tool that a provider was given because it has no other way to keep a model to a schema: its
//! arguments are the answer's text.

use crate::model::{Block, ChatResponse, StopReason, StreamEvent};

/// Makes the answer of the call in it.
pub(super) fn unwrap(answer: &mut ChatResponse, tool: &str) {
    for block in &mut answer.blocks {
        if let Block::ToolCall(call) = block
            && call.name == tool
        {
            let arguments = std::mem::take(&mut call.arguments);
            *block = Block::Text(serde_json::Value::Object(arguments).to_string());
            answer.stop = unwrap_stop(std::mem::replace(&mut answer.stop, StopReason::End));
        }
    }
}

fn unwrap_stop(stop: StopReason) -> StopReason {
    if stop == StopReason::ToolUse { StopReason::End } else { stop }
}

/// The same of a stream.
#[derive(Debug)]
pub(super) struct AnswerTool {
    name: String,
    call: Option<usize>,
}

impl AnswerTool {
    pub(super) fn new(name: String) -> Self {
        Self { name, call: None }
    }

    /// What stands for an event; nothing for some.
    pub(super) fn unwrap(&mut self, event: StreamEvent) -> Option<StreamEvent> {
        match event {
            StreamEvent::ToolCallStart { call, name, .. } if name == self.name => {
                self.call = Some(call);
                None
            }
            StreamEvent::ToolCallArguments { call, json } if self.call == Some(call) => {
                Some(StreamEvent::Text(json))
            }
            StreamEvent::Stop(stop) if self.call.is_some() => {
                Some(StreamEvent::Stop(unwrap_stop(stop)))
            }
            event => Some(event),
        }
    }
}
