//! Contents in the order in which Anthropic's streams have them: one block at a time.

use super::response::is_redacted;
use crate::{
    convert::{ConvertError, json_progress::JsonProgress, seal, write_json},
    model::{Seal, SealOrigin},
    wire::anthropic as wire,
};

/// The blocks of a streamed answer.
///
/// Only the first block of the queue is open; what belongs to it goes out at once. Other protocols may
/// mix the pieces of parallel calls. A call is done when its arguments are a whole JSON value, so that
/// the pieces of a later call wait until then; usually that is never, because servers write one call
/// after the other.
#[derive(Debug, Default)]
pub(super) struct BlockQueue {
    blocks: std::collections::VecDeque<Block>,
    /// The index, in the answer, of the first block in the queue.
    first: usize,
    is_open: bool,
}

#[derive(Debug)]
struct Block {
    start: wire::Block,
    /// What came for it before its turn.
    waiting: Vec<wire::Delta>,
    /// The number of the call and how far its arguments are, if it is one.
    call: Option<(usize, JsonProgress)>,
    /// It is thinking that is over.
    is_sealed: bool,
}

impl Block {
    fn text() -> Self {
        let start = wire::Block::text(String::new());
        Self { start, waiting: Vec::new(), call: None, is_sealed: false }
    }

    fn thinking() -> Self {
        let start = wire::Block::Thinking { thinking: String::new(), signature: String::new() };
        Self { start, waiting: Vec::new(), call: None, is_sealed: false }
    }

    fn is_open_thinking(&self) -> bool {
        matches!(self.start, wire::Block::Thinking { .. }) && !self.is_sealed
    }

    fn is_done(&self) -> bool {
        self.call.as_ref().is_none_or(|(_, progress)| progress.is_whole())
    }
}

impl BlockQueue {
    pub(super) fn text(&mut self, text: String, out: &mut Vec<u8>) {
        if !self.blocks.back().is_some_and(|last| matches!(last.start, wire::Block::Text { .. })) {
            self.blocks.push_back(Block::text());
        }
        self.add_to_last(wire::Delta::TextDelta { text }, out);
    }

    pub(super) fn thinking(&mut self, thinking: String, out: &mut Vec<u8>) {
        self.continue_thinking();
        self.add_to_last(wire::Delta::ThinkingDelta { thinking }, out);
    }

    /// Ends the thinking that is open; a seal of nothing that could be read is a block of its own.
    pub(super) fn seal(&mut self, seal: Seal, out: &mut Vec<u8>) {
        let is_open = self.blocks.back().is_some_and(Block::is_open_thinking);
        let text = if is_open { "text" } else { "" };
        if is_redacted(text, &seal) {
            let data = seal::write(seal, SealOrigin::AnthropicRedacted);
            let start = wire::Block::RedactedThinking { data };
            self.blocks.push_back(Block {
                start,
                waiting: Vec::new(),
                call: None,
                is_sealed: true,
            });
            return self.advance(out);
        }
        self.continue_thinking();
        let signature = seal::write(seal, SealOrigin::Anthropic);
        self.add_to_last(wire::Delta::SignatureDelta { signature }, out);
        if let Some(last) = self.blocks.back_mut() {
            last.is_sealed = true;
        }
    }

    pub(super) fn tool_use(&mut self, call: usize, id: String, name: String, out: &mut Vec<u8>) {
        let input = serde_json::Map::new();
        let start = wire::Block::ToolUse { id, name, input, cache_control: None };
        let call = Some((call, JsonProgress::default()));
        self.blocks.push_back(Block { start, waiting: Vec::new(), call, is_sealed: false });
        self.advance(out);
    }

    /// Takes a piece of the arguments of a call that has begun.
    pub(super) fn arguments(
        &mut self,
        call: usize,
        json: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), ConvertError> {
        let is_of = |block: &Block| block.call.as_ref().is_some_and(|(number, _)| *number == call);
        let Some(at) = self.blocks.iter().position(is_of) else {
            // Its block is closed: its arguments were whole before another block began.
            if json.trim().is_empty() {
                return Ok(());
            }
            let message = "the provider continued the arguments of a call that were whole already";
            return Err(ConvertError::new("tool_calls", message));
        };
        if let Some((_, progress)) = &mut self.blocks[at].call {
            progress.feed(json);
        }
        self.add(at, wire::Delta::InputJsonDelta { partial_json: json.to_owned() }, out);
        Ok(())
    }

    /// Lets everything out that waits, and closes the last block.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        while !self.blocks.is_empty() {
            self.open_first(out);
            self.close_first(out);
        }
    }

    fn continue_thinking(&mut self) {
        if !self.blocks.back().is_some_and(Block::is_open_thinking) {
            self.blocks.push_back(Block::thinking());
        }
    }

    fn add_to_last(&mut self, delta: wire::Delta, out: &mut Vec<u8>) {
        self.add(self.blocks.len() - 1, delta, out);
    }

    fn add(&mut self, at: usize, delta: wire::Delta, out: &mut Vec<u8>) {
        if at == 0 && self.is_open {
            write_delta(self.first, &delta, out);
        } else {
            self.blocks[at].waiting.push(delta);
        }
        self.advance(out);
    }

    /// Opens the first block, and closes it as soon as it is done and another one waits.
    fn advance(&mut self, out: &mut Vec<u8>) {
        self.open_first(out);
        while self.blocks.len() > 1 && self.blocks[0].is_done() {
            self.close_first(out);
            self.open_first(out);
        }
    }

    fn open_first(&mut self, out: &mut Vec<u8>) {
        if let Some(block) = self.blocks.front_mut()
            && !std::mem::replace(&mut self.is_open, true)
        {
            let (index, content_block) = (self.first, &block.start);
            let start = wire::EventOut::ContentBlockStart { index, content_block };
            write_event("content_block_start", &start, out);
            for delta in std::mem::take(&mut block.waiting) {
                write_delta(index, &delta, out);
            }
        }
    }

    fn close_first(&mut self, out: &mut Vec<u8>) {
        let stop = wire::EventOut::ContentBlockStop { index: self.first };
        write_event("content_block_stop", &stop, out);
        self.blocks.pop_front();
        self.first += 1;
        self.is_open = false;
    }
}

fn write_delta(index: usize, delta: &wire::Delta, out: &mut Vec<u8>) {
    write_event("content_block_delta", &wire::EventOut::ContentBlockDelta { index, delta }, out);
}

pub(super) fn write_event(name: &str, event: &wire::EventOut<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    write_json(out, event);
    out.extend_from_slice(b"\n\n");
}
