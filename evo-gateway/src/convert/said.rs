//! What a caller has been told of an answer, and how another answer goes on from there.

use crate::model::StreamEvent;

/// What a caller has been told so far.
#[derive(Debug, Clone, Default)]
pub struct Said {
    items: Vec<Item>,
    /// The answer has its beginning.
    started: bool,
    /// It has something that no other answer can go on from.
    unlike: bool,
}

#[derive(Debug, Clone)]
enum Item {
    Text(String),
    Refusal(String),
    Reasoning(String),
    Seal,
    Call { call: usize, name: String, arguments: String },
}

impl Item {
    fn length(&self) -> usize {
        match self {
            Self::Text(text) | Self::Refusal(text) | Self::Reasoning(text) => text.len(),
            Self::Seal => 0,
            Self::Call { arguments, .. } => arguments.len(),
        }
    }
}

impl Said {
    /// Adds what an event tells.
    pub(super) fn note(&mut self, event: &StreamEvent) {
        match event {
            StreamEvent::Start { .. } => self.started = true,
            StreamEvent::Text(more) => match self.items.last_mut() {
                Some(Item::Text(text)) => text.push_str(more),
                _ => self.items.push(Item::Text(more.clone())),
            },
            StreamEvent::Refusal(more) => match self.items.last_mut() {
                Some(Item::Refusal(text)) => text.push_str(more),
                _ => self.items.push(Item::Refusal(more.clone())),
            },
            StreamEvent::Reasoning(more) => match self.items.last_mut() {
                Some(Item::Reasoning(text)) => text.push_str(more),
                _ => self.items.push(Item::Reasoning(more.clone())),
            },
            StreamEvent::ReasoningSeal(_) => self.items.push(Item::Seal),
            StreamEvent::ToolCallStart { call, name, .. } => {
                let (call, name) = (*call, name.clone());
                self.items.push(Item::Call { call, name, arguments: String::new() });
            }
            StreamEvent::ToolCallArguments { call: of, json } => {
                let open = self.items.iter_mut().rev().find_map(|item| match item {
                    Item::Call { call, arguments, .. } if call == of => Some(arguments),
                    _ => None,
                });
                match open {
                    Some(arguments) => arguments.push_str(json),
                    None => self.unlike = true,
                }
            }
            // Figures about each piece of a text belong to the answer that had them.
            StreamEvent::Logprobs(_) => self.unlike = true,
            // After these nothing can be added any more.
            StreamEvent::Stop(_) | StreamEvent::End | StreamEvent::Failed(_) => self.unlike = true,
            StreamEvent::Usage(_) => {}
        }
    }

    /// Whether another answer may go on from here.
    pub fn can_go_on(&self) -> bool {
        self.started && !self.unlike
    }

    /// The text, if there is nothing else.
    pub fn text_only(&self) -> Option<&str> {
        match &self.items[..] {
            [Item::Text(text)] if self.can_go_on() => Some(text),
            _ => None,
        }
    }
}

/// Leaves out of another answer what the caller has been told already.
#[derive(Debug)]
pub(super) struct CatchUp {
    expected: Vec<Item>,
    /// How much of each came again.
    done: Vec<usize>,
    /// The first that is not behind us.
    at: usize,
    /// Other reasoning will do: it is shown to people, and nobody checks it.
    free_reasoning: bool,
    /// The answer was asked to go on, and should not repeat anything. If it does so all the same, this
    /// is how much of it is held back.
    goes_on: Option<String>,
}

/// The other answer is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Diverged;

impl CatchUp {
    /// For an answer that begins anew.
    pub(super) fn anew(said: &Said, free_reasoning: bool) -> Self {
        let expected = said.items.clone();
        Self { done: vec![0; expected.len()], expected, at: 0, free_reasoning, goes_on: None }
    }

    /// For an answer that was asked to go on from the text, which it was shown without the white space
    /// at its end.
    pub(super) fn going_on(said: &Said) -> Self {
        Self { goes_on: Some(String::new()), ..Self::anew(said, true) }
    }

    /// Appends what is new of an event.
    pub(super) fn pass(
        &mut self,
        event: StreamEvent,
        new: &mut Vec<StreamEvent>,
    ) -> Result<(), Diverged> {
        match event {
            StreamEvent::Start { .. } => {}
            StreamEvent::Text(text) => match self.goes_on.take() {
                Some(held) => self.hold(held + &text, new),
                None => self.text(&text, false, new)?,
            },
            StreamEvent::Refusal(text) => self.text(&text, true, new)?,
            StreamEvent::Reasoning(text) => self.reasoning(text, new)?,
            StreamEvent::ReasoningSeal(seal) => {
                self.skip_what_is_done();
                match self.expected.get(self.at) {
                    None if self.expected.is_empty() => new.push(StreamEvent::ReasoningSeal(seal)),
                    Some(Item::Seal) => self.at += 1,
                    // Of reasoning that was left out.
                    _ if self.free_reasoning => {}
                    None => new.push(StreamEvent::ReasoningSeal(seal)),
                    Some(_) => return Err(Diverged),
                }
            }
            StreamEvent::ToolCallStart { call, id, name } => {
                self.release(new);
                self.skip_what_is_done();
                self.skip_reasoning();
                match self.expected.get(self.at) {
                    None => new.push(StreamEvent::ToolCallStart { call, id, name }),
                    Some(Item::Call { call: old, name: known, .. })
                        if *old == call && *known == name =>
                    {
                        self.at += 1;
                    }
                    Some(_) => return Err(Diverged),
                }
            }
            StreamEvent::ToolCallArguments { call, json } => self.arguments(call, json, new)?,
            StreamEvent::Stop(_) => {
                self.release(new);
                self.skip_what_is_done();
                self.skip_reasoning();
                let lengths = self.expected.iter().map(Item::length);
                let is_short = |(item, (done, length)): (&Item, (&usize, usize))| {
                    *done < length && !(self.free_reasoning && matches!(item, Item::Reasoning(_)))
                };
                let mut all = self.expected.iter().zip(self.done.iter().zip(lengths));
                if self.at < self.expected.len() || all.any(is_short) {
                    return Err(Diverged);
                }
                new.push(event);
            }
            StreamEvent::Usage(_)
            | StreamEvent::Logprobs(_)
            | StreamEvent::End
            | StreamEvent::Failed(_) => new.push(event),
        }
        Ok(())
    }

    /// The text so far of an answer that should go on: what repeats the beginning is held back, until it
    /// has repeated all of it or is something else.
    fn hold(&mut self, held: String, new: &mut Vec<StreamEvent>) {
        let Some(Item::Text(said)) = self.expected.first() else { return };
        let unseen = &said[said.trim_end().len()..];
        let may_repeat = |all: &str| all.len() > held.len() && all.starts_with(&held);
        self.goes_on = Some(held.clone());
        if !may_repeat(said) && !may_repeat(unseen) {
            self.release(new);
        }
    }

    /// What is held back is looked at as it is, since it repeats all or something else comes.
    fn release(&mut self, new: &mut Vec<StreamEvent>) {
        let Some(held) = self.goes_on.take() else { return };
        let Some(Item::Text(said)) = self.expected.first() else { return };
        let rest = held.strip_prefix(said.as_str()).unwrap_or_else(|| {
            // It was not shown the white space at the end, so it may begin with it.
            let unseen = said[said.trim_end().len()..].chars();
            let same = unseen.zip(held.chars()).take_while(|(a, b)| a == b);
            &held[same.map(|(a, _)| a.len_utf8()).sum()..]
        });
        if !rest.is_empty() {
            new.push(StreamEvent::Text(rest.to_owned()));
        }
        self.done[0] = said.len();
    }

    fn text(
        &mut self,
        mut text: &str,
        refusal: bool,
        new: &mut Vec<StreamEvent>,
    ) -> Result<(), Diverged> {
        while !text.is_empty() {
            self.skip_what_is_done();
            self.skip_reasoning();
            let known = match self.expected.get(self.at) {
                Some(Item::Text(known)) if !refusal => known,
                Some(Item::Refusal(known)) if refusal => known,
                Some(_) => return Err(Diverged),
                None => {
                    let text = text.to_owned();
                    new.push(if refusal {
                        StreamEvent::Refusal(text)
                    } else {
                        StreamEvent::Text(text)
                    });
                    return Ok(());
                }
            };
            text = common(known, &mut self.done[self.at], text)?;
        }
        Ok(())
    }

    fn reasoning(&mut self, text: String, new: &mut Vec<StreamEvent>) -> Result<(), Diverged> {
        if self.free_reasoning && !self.expected.is_empty() {
            return Ok(());
        }
        self.skip_what_is_done();
        match self.expected.get(self.at) {
            Some(Item::Reasoning(known)) => {
                let rest = common(known, &mut self.done[self.at], &text)?;
                if !rest.is_empty() {
                    self.at += 1;
                    if self.at < self.expected.len() {
                        return Err(Diverged);
                    }
                    new.push(StreamEvent::Reasoning(rest.to_owned()));
                }
            }
            None => new.push(StreamEvent::Reasoning(text)),
            Some(_) => return Err(Diverged),
        }
        Ok(())
    }

    fn arguments(
        &mut self,
        of: usize,
        json: String,
        new: &mut Vec<StreamEvent>,
    ) -> Result<(), Diverged> {
        let known = self
            .expected
            .iter()
            .position(|item| matches!(item, Item::Call { call, .. } if *call == of));
        let rest = match known.map(|at| (&self.expected[at], &mut self.done[at])) {
            Some((Item::Call { arguments, .. }, done)) => {
                let rest =
                    if *done < arguments.len() { common(arguments, done, &json)? } else { &json };
                rest.to_owned()
            }
            _ => json,
        };
        if !rest.is_empty() {
            new.push(StreamEvent::ToolCallArguments { call: of, json: rest });
        }
        Ok(())
    }

    /// Texts that came again as a whole are behind us; calls are as soon as they have begun.
    fn skip_what_is_done(&mut self) {
        while let Some(Item::Text(known) | Item::Refusal(known) | Item::Reasoning(known)) =
            self.expected.get(self.at)
            && self.done[self.at] == known.len()
        {
            self.at += 1;
        }
    }

    /// Leaves out reasoning that did not come again, where that will do.
    fn skip_reasoning(&mut self) {
        while self.free_reasoning
            && matches!(self.expected.get(self.at), Some(Item::Reasoning(_) | Item::Seal))
        {
            self.at += 1;
            self.skip_what_is_done();
        }
    }
}

/// What stands in `new` behind the rest of `known`, of which `done` bytes came already.
fn common<'a>(known: &str, done: &mut usize, new: &'a str) -> Result<&'a str, Diverged> {
    let left = &known.as_bytes()[*done..];
    let length = left.len().min(new.len());
    if left[..length] != new.as_bytes()[..length] {
        return Err(Diverged);
    }
    *done += length;
    // Both end with a whole character there, or both go on alike.
    new.get(length..).ok_or(Diverged)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::StopReason;

    fn start() -> StreamEvent {
        StreamEvent::Start { id: "a".to_owned(), model: "m".to_owned() }
    }

    fn call(call: usize, name: &str) -> StreamEvent {
        StreamEvent::ToolCallStart { call, id: format!("id{call}"), name: name.to_owned() }
    }

    fn arguments(call: usize, json: &str) -> StreamEvent {
        StreamEvent::ToolCallArguments { call, json: json.to_owned() }
    }

    fn text(text: &str) -> StreamEvent {
        StreamEvent::Text(text.to_owned())
    }

    fn reasoning(text: &str) -> StreamEvent {
        StreamEvent::Reasoning(text.to_owned())
    }

    fn said(events: &[StreamEvent]) -> Said {
        let mut said = Said::default();
        for event in events {
            said.note(event);
        }
        said
    }

    /// What is new of another answer.
    fn rest(mut catch_up: CatchUp, events: Vec<StreamEvent>) -> Result<Vec<StreamEvent>, Diverged> {
        let mut new = Vec::new();
        for event in events {
            catch_up.pass(event, &mut new)?;
        }
        Ok(new)
    }

    const STOP: StreamEvent = StreamEvent::Stop(StopReason::End);

    #[test]
    fn another_answer_that_repeats_goes_on() {
        let before =
            said(&[start(), text("Hel"), text("lo"), call(0, "f"), arguments(0, "{\"a\"")]);
        assert!(before.can_go_on() && before.text_only().is_none());
        let again = vec![
            start(),
            text("Hello"),
            call(0, "f"),
            arguments(0, "{"),
            arguments(0, "\"a\": 1}"),
            call(1, "g"),
            STOP,
        ];
        let new = rest(CatchUp::anew(&before, false), again).unwrap();
        assert_eq!(new, [arguments(0, ": 1}"), call(1, "g"), STOP]);
    }

    #[test]
    fn one_that_differs_does_not() {
        let before = said(&[start(), text("Hello"), call(0, "f"), arguments(0, "{\"a\"")]);
        for again in [
            vec![start(), text("Hallo")],
            vec![start(), text("Hell"), STOP],
            vec![start(), text("Hello"), STOP],
            vec![start(), text("Hello!")],
            vec![start(), text("Hello"), call(0, "g")],
            vec![start(), text("Hello"), call(0, "f"), arguments(0, "{\"b")],
            vec![start(), text("Hello"), call(0, "f"), STOP],
            vec![start(), call(0, "f")],
            vec![start(), StreamEvent::Refusal("Hello".to_owned())],
        ] {
            let new = rest(CatchUp::anew(&before, false), again.clone());
            assert_eq!(new, Err(Diverged), "{again:?}");
        }
    }

    #[test]
    fn reasoning_may_differ_where_nobody_checks_it() {
        let before = said(&[start(), reasoning("Hm."), text("Hi")]);
        let again = vec![start(), reasoning("Well."), text("Hi there"), STOP];
        assert_eq!(
            rest(CatchUp::anew(&before, true), again.clone()).unwrap(),
            [text(" there"), STOP]
        );
        assert_eq!(rest(CatchUp::anew(&before, false), again), Err(Diverged));
        let again = vec![start(), reasoning("Hm."), text("Hi!"), STOP];
        assert_eq!(rest(CatchUp::anew(&before, false), again).unwrap(), [text("!"), STOP]);
        // In the middle of it, too.
        let before = said(&[start(), reasoning("Hm, ")]);
        let again = vec![start(), reasoning("Well."), text("Hi"), STOP];
        assert_eq!(rest(CatchUp::anew(&before, true), again).unwrap(), [text("Hi"), STOP]);
    }

    #[test]
    fn one_that_was_asked_to_go_on_does_so() {
        let before = said(&[start(), text("One, two,\n ")]);
        for (again, new) in [
            (vec![text(" three")], vec![text(" three")]),
            (vec![text("\n"), text(" three")], vec![text("three")]),
            // It repeats what it was shown.
            (vec![text("One, "), text("two,\n three")], vec![text("three")]),
            // It only begins alike.
            (vec![text("One"), text(" and")], vec![text("One and")]),
            (vec![text("One")], vec![text("One")]),
        ] {
            let mut events = vec![start()];
            events.extend(again);
            events.push(STOP);
            let mut expected = new;
            expected.push(STOP);
            assert_eq!(
                rest(CatchUp::going_on(&before), events.clone()).unwrap(),
                expected,
                "{events:?}"
            );
        }
    }

    #[test]
    fn some_answers_nobody_can_go_on_from() {
        assert!(!said(&[]).can_go_on());
        assert!(!said(&[start(), text("a"), StreamEvent::Logprobs(Vec::new())]).can_go_on());
        assert!(!said(&[start(), text("a"), STOP]).can_go_on());
    }

    proptest! {
        /// However both are cut into pieces, together they are the answer, each piece once.
        #[test]
        fn nothing_is_lost_and_nothing_comes_twice(
            whole in "[a-cß\n ]{0,40}", cut in 0_usize..40, pieces in prop::collection::vec(1_usize..5, 1..40),
        ) {
            let characters: Vec<char> = whole.chars().collect();
            let before: String = characters.iter().take(cut).collect();
            let mut events = vec![start()];
            let mut left = &characters[..];
            for length in pieces.iter().cycle() {
                if left.is_empty() {
                    break;
                }
                let (piece, rest) = left.split_at((*length).min(left.len()));
                events.push(text(&piece.iter().collect::<String>()));
                left = rest;
            }
            events.push(STOP);
            let said = said(&[start(), text(&before)]);
            let new = rest(CatchUp::anew(&said, false), events).unwrap();
            let new: String = new.iter().map(|event| match event {
                StreamEvent::Text(text) => text.as_str(),
                _ => "",
            }).collect();
            prop_assert_eq!(before + &new, whole);
        }
    }
}
