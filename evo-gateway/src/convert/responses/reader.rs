use std::collections::HashMap;

use super::{
    input::{read_reasoning, read_seal},
    output::{read_logprob, read_stop, read_usage},
};
use crate::{
    convert::{ConvertError, StreamReader, custom, error, parse},
    model::{ApiError, ErrorKind, StopReason, StreamEvent},
    wire::{Content, responses as wire},
};

/// Separates the parts of a summary.
const BETWEEN_PARTS: &str = "\n\n";

/// Reads events.
#[derive(Debug, Default)]
pub(super) struct Reader {
    has_started: bool,
    has_stopped: bool,
    was_refused: bool,
    calls: usize,
    /// What is known of the items so far, by their place in the answer.
    items: HashMap<u64, Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// The number of the call, if it is one.
    call: Option<usize>,
    is_custom: bool,
    /// Something of its content came in pieces.
    has_content: bool,
    /// Its reasoning comes as this kind of event; the same comes in others, too.
    kind: Option<String>,
    is_done: bool,
}

impl StreamReader for Reader {
    fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    fn read(&mut self, data: &[u8], events: &mut Vec<StreamEvent>) -> Result<(), ConvertError> {
        // Of servers that end all of their streams so.
        if data.trim_ascii() == b"[DONE]" {
            return Ok(());
        }
        let mut event: wire::Event = parse(data)?;
        let (kind, at) = (std::mem::take(&mut event.kind), event.output_index);
        match kind.as_str() {
            "response.created" | "response.in_progress" | "response.queued" => {
                self.start(event.response.unwrap_or_default(), events);
            }
            "response.output_item.added" => {
                if let Some(item) = event.item {
                    self.begin(at, &item, events);
                }
            }
            "response.output_text.delta" => {
                self.text(at, event.delta, StreamEvent::Text, events);
                let logprobs: Vec<_> = event.logprobs.into_iter().map(read_logprob).collect();
                if !logprobs.is_empty() {
                    events.push(StreamEvent::Logprobs(logprobs));
                }
            }
            "response.refusal.delta" => {
                self.was_refused = true;
                self.text(at, event.delta, StreamEvent::Refusal, events);
            }
            "response.reasoning_summary_part.added" if event.summary_index > 0 => {
                let between = BETWEEN_PARTS.to_owned();
                self.text(at, between, StreamEvent::Reasoning, events);
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                let open = self.items.entry(at).or_default();
                if *open.kind.get_or_insert_with(|| kind.clone()) == kind {
                    self.text(at, event.delta, StreamEvent::Reasoning, events);
                }
            }
            "response.function_call_arguments.delta" => self.arguments(at, event.delta, events),
            "response.custom_tool_call_input.delta" => {
                self.arguments(at, custom::escape(&event.delta), events);
            }
            "response.output_item.done" => {
                if let Some(item) = event.item {
                    self.finish(at, item, events)?;
                }
            }
            "response.completed" | "response.incomplete" | "response.done" => {
                self.end(event.response.unwrap_or_default(), events)?;
            }
            "response.failed" | "response.cancelled" => {
                let failure = event.response.and_then(|response| response.error);
                events.push(StreamEvent::Failed(read_failure(failure, None)));
                self.has_stopped = true;
            }
            "error" => {
                let text = event
                    .message
                    .map(|message| serde_json::json!({"message": message, "code": event.code}));
                events.push(StreamEvent::Failed(read_failure(event.error, text)));
                self.has_stopped = true;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Reader {
    fn start(&mut self, response: wire::Response, events: &mut Vec<StreamEvent>) {
        if !std::mem::replace(&mut self.has_started, true) {
            events.push(StreamEvent::Start { id: response.id, model: response.model });
        }
    }

    /// An item begins; only calls say something by that.
    fn begin(&mut self, at: u64, item: &wire::Item, events: &mut Vec<StreamEvent>) {
        let is_custom = item.kind == wire::CUSTOM_TOOL_CALL;
        if !is_custom && item.kind != wire::FUNCTION_CALL {
            return;
        }
        let call = self.calls;
        self.calls += 1;
        let id = item.call_id.clone().or_else(|| item.id.clone());
        let id = id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("call_{call}"));
        let name = item.name.clone().unwrap_or_default();
        events.push(StreamEvent::ToolCallStart { call, id, name });
        if is_custom {
            let json = custom::before_input();
            events.push(StreamEvent::ToolCallArguments { call, json });
        }
        self.items.insert(at, Open { call: Some(call), is_custom, ..Open::default() });
    }

    fn text(
        &mut self,
        at: u64,
        text: String,
        event: fn(String) -> StreamEvent,
        events: &mut Vec<StreamEvent>,
    ) {
        if !text.is_empty() {
            self.items.entry(at).or_default().has_content = true;
            events.push(event(text));
        }
    }

    fn arguments(&mut self, at: u64, json: String, events: &mut Vec<StreamEvent>) {
        let open = self.items.entry(at).or_default();
        if let Some(call) = open.call
            && !json.is_empty()
        {
            open.has_content = true;
            events.push(StreamEvent::ToolCallArguments { call, json });
        }
    }

    /// An item is done: what of it did not come in pieces comes now.
    fn finish(
        &mut self,
        at: u64,
        item: wire::Item,
        events: &mut Vec<StreamEvent>,
    ) -> Result<(), ConvertError> {
        let is_call = matches!(item.kind.as_str(), wire::FUNCTION_CALL | wire::CUSTOM_TOOL_CALL);
        if is_call && self.items.get(&at).is_none_or(|open| open.call.is_none()) {
            if item.name.is_none() {
                let field = format!("output[{at}].name");
                return Err(ConvertError::new(field, "is missing in the provider's call"));
            }
            self.begin(at, &item, events);
        }
        let open = self.items.entry(at).or_default();
        if std::mem::replace(&mut open.is_done, true) {
            return Ok(());
        }
        let (has_content, is_custom) = (open.has_content, open.is_custom);
        match item.kind.as_str() {
            wire::MESSAGE if !has_content => self.message(at, item, events),
            wire::REASONING => {
                let Some(reasoning) = read_reasoning(item) else { return Ok(()) };
                if !has_content {
                    self.text(at, reasoning.text, StreamEvent::Reasoning, events);
                }
                let seal = reasoning.seal.map(|seal| read_seal(seal.id, seal.data));
                events.extend(seal.map(StreamEvent::ReasoningSeal));
            }
            _ if is_call => {
                if !has_content {
                    let whole = match item.input {
                        Some(input) => custom::escape(&input),
                        None => item.arguments.unwrap_or_else(|| "{}".to_owned()),
                    };
                    self.arguments(at, whole, events);
                }
                if is_custom {
                    self.arguments(at, custom::AFTER_INPUT.to_owned(), events);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn message(&mut self, at: u64, item: wire::Item, events: &mut Vec<StreamEvent>) {
        let Some(Content::Parts(parts)) = item.content else { return };
        for part in parts {
            match part {
                wire::Part::OutputText { text, .. } => {
                    self.text(at, text, StreamEvent::Text, events);
                }
                wire::Part::Refusal { refusal } => {
                    self.was_refused = true;
                    self.text(at, refusal, StreamEvent::Refusal, events);
                }
                _ => {}
            }
        }
    }

    fn end(
        &mut self,
        mut response: wire::Response,
        events: &mut Vec<StreamEvent>,
    ) -> Result<(), ConvertError> {
        // Of servers that say all at once.
        if !self.items.values().any(|open| open.is_done) {
            let (id, model) = (response.id.clone(), response.model.clone());
            self.start(wire::Response { id, model, ..wire::Response::default() }, events);
            for (at, item) in (0..).zip(std::mem::take(&mut response.output)) {
                self.finish(at, item, events)?;
            }
        }
        events.extend(response.usage.as_ref().map(read_usage).map(StreamEvent::Usage));
        let stop = read_stop(&response).unwrap_or(match (self.calls, self.was_refused) {
            (1.., _) => StopReason::ToolUse,
            (0, true) => StopReason::Refusal,
            (0, false) => StopReason::End,
        });
        self.has_stopped = true;
        events.extend([StreamEvent::Stop(stop), StreamEvent::End]);
        Ok(())
    }
}

fn read_failure(
    failure: Option<serde_json::Value>,
    otherwise: Option<serde_json::Value>,
) -> ApiError {
    match failure.filter(serde_json::Value::is_object).or(otherwise) {
        Some(failure) => error::read_in_stream(&failure),
        None => ApiError {
            kind: ErrorKind::Internal,
            message: "the provider failed without saying why".to_owned(),
            code: None,
            param: None,
        },
    }
}
