use chrono::DateTime;
use tokio::time::Instant;

use super::{Route, write_error, write_line};
use crate::{
    convert::{Context, ConvertError, StreamWriter},
    model::{Block, ChatResponse, StopReason, StreamEvent, ToolCall, Usage},
    wire::ollama as wire,
};

/// When the answer was asked for, as Ollama writes times.
fn created_at(context: &Context) -> String {
    let seconds = i64::try_from(context.created).unwrap_or_default();
    DateTime::from_timestamp(seconds, 0)
        .unwrap_or_default()
        .format("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

fn done_reason(stop: &StopReason) -> &'static str {
    match stop {
        StopReason::Length => "length",
        StopReason::Refusal => "content_filter",
        StopReason::End | StopReason::ToolUse | StopReason::StopSequence(_) | StopReason::Pause => {
            "stop"
        }
    }
}

fn figures(usage: Usage, began: Option<Instant>, first: Option<Instant>) -> wire::Figures {
    let nanoseconds = |from: Option<Instant>| {
        let passed = from.map(|from| from.elapsed().as_nanos());
        passed.and_then(|passed| u64::try_from(passed).ok()).unwrap_or_default()
    };
    let total = nanoseconds(began);
    let answering = nanoseconds(first).min(total);
    wire::Figures {
        total_duration: total,
        load_duration: 0,
        prompt_eval_count: usage.prompt_tokens(),
        prompt_eval_duration: total - answering,
        eval_count: usage.output_tokens,
        eval_duration: answering,
    }
}

fn write_call(call: ToolCall) -> wire::ToolCall {
    let ToolCall { id, name, arguments } = call;
    wire::ToolCall { id: Some(id), function: wire::FunctionCall { name, arguments } }
}

/// What a line says.
#[derive(Debug, Default)]
struct Said {
    text: String,
    thought: Option<String>,
    calls: Vec<wire::ToolCall>,
}

fn line(said: Said, route: Route, model: String, created_at: String) -> wire::Response {
    let (message, response, thinking) = match route {
        Route::Chat => {
            let message = wire::Message {
                role: "assistant".to_owned(),
                content: said.text,
                thinking: said.thought,
                tool_calls: said.calls,
                ..wire::Message::default()
            };
            (Some(message), None, None)
        }
        Route::Generate => (None, Some(said.text), said.thought),
    };
    wire::Response {
        model,
        created_at,
        message,
        response,
        thinking,
        done: false,
        done_reason: None,
        figures: None,
    }
}

/// Writes an answer.
pub(super) fn write(answer: ChatResponse, route: Route, context: &Context) -> wire::Response {
    let mut said = Said::default();
    for block in answer.blocks {
        match block {
            Block::Text(text) | Block::Refusal(text) => said.text.push_str(&text),
            Block::Reasoning(reasoning) if !context.hides_thoughts => {
                said.thought.get_or_insert_default().push_str(&reasoning.text);
            }
            Block::Reasoning(_) => {}
            Block::ToolCall(call) => said.calls.push(write_call(call)),
        }
    }
    said.thought = said.thought.filter(|thought| !thought.is_empty());
    wire::Response {
        done: true,
        done_reason: Some(done_reason(&answer.stop)),
        figures: Some(figures(answer.usage.unwrap_or_default(), context.began, context.began)),
        ..line(said, route, answer.model, created_at(context))
    }
}

/// Writes lines.
#[derive(Debug)]
pub(super) struct Writer {
    route: Route,
    context: Context,
    model: String,
    /// Ollama's calls come whole, so these wait until they are.
    calls: Vec<(String, String, String)>,
    stop: StopReason,
    usage: Usage,
    first: Option<Instant>,
}

impl Writer {
    pub(super) fn new(route: Route, context: &Context) -> Self {
        Self {
            route,
            context: context.clone(),
            model: String::new(),
            calls: Vec::new(),
            stop: StopReason::End,
            usage: Usage::default(),
            first: None,
        }
    }

    fn write_said(&mut self, said: Said, out: &mut Vec<u8>) {
        if self.context.began.is_some() {
            self.first.get_or_insert_with(Instant::now);
        }
        write_line(&line(said, self.route, self.model.clone(), created_at(&self.context)), out);
    }

    fn write_calls(&mut self, out: &mut Vec<u8>) -> Result<(), ConvertError> {
        let mut calls = Vec::new();
        for (id, name, arguments) in std::mem::take(&mut self.calls) {
            let text = if arguments.trim().is_empty() { "{}" } else { arguments.as_str() };
            match serde_json::from_str(text) {
                Ok(arguments) => calls.push(write_call(ToolCall { id, name, arguments })),
                // The answer was cut off within this call, which the reason says; half of it is none.
                Err(_) if self.stop == StopReason::Length => {}
                Err(fault) => {
                    let message =
                        format!("the arguments of the call `{name}` are no object: {fault}");
                    return Err(ConvertError::new("tool_calls", message));
                }
            }
        }
        if !calls.is_empty() {
            self.write_said(Said { calls, ..Said::default() }, out);
        }
        Ok(())
    }

    fn write_end(&mut self, out: &mut Vec<u8>) -> Result<(), ConvertError> {
        self.write_calls(out)?;
        let last = wire::Response {
            done: true,
            done_reason: Some(done_reason(&self.stop)),
            figures: Some(figures(self.usage, self.context.began, self.first)),
            ..line(Said::default(), self.route, self.model.clone(), created_at(&self.context))
        };
        write_line(&last, out);
        Ok(())
    }
}

impl StreamWriter for Writer {
    /// The calls and the figures wait for the end.
    fn write(&mut self, event: StreamEvent, out: &mut Vec<u8>) -> Result<(), ConvertError> {
        match event {
            StreamEvent::Start { model, .. } => self.model = model,
            StreamEvent::Text(text) | StreamEvent::Refusal(text) => {
                self.write_said(Said { text, ..Said::default() }, out);
            }
            StreamEvent::Reasoning(thought) => {
                if !self.context.hides_thoughts {
                    self.write_said(Said { thought: Some(thought), ..Said::default() }, out);
                }
            }
            // Ollama's callers give nothing back but texts.
            StreamEvent::ReasoningSeal(_) | StreamEvent::Logprobs(_) => {}
            StreamEvent::ToolCallStart { id, name, .. } => {
                self.calls.push((id, name, String::new()));
            }
            StreamEvent::ToolCallArguments { call, json } => {
                if let Some((.., arguments)) = self.calls.get_mut(call) {
                    arguments.push_str(&json);
                }
            }
            StreamEvent::Stop(stop) => self.stop = stop,
            StreamEvent::Usage(usage) => self.usage = usage,
            StreamEvent::End => self.write_end(out)?,
            StreamEvent::Failed(failure) => write_line(&write_error(failure), out),
        }
        Ok(())
    }
}
