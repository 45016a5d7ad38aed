//! How the bytes of an answer go out: in one piece, in many, or not all of them.

use std::time::Duration;

use bytes::Bytes;

/// One thing that the server does with the connection.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Send(Bytes),
    Pause(Duration),
    /// Nothing more, with the connection open.
    Stall,
    /// The connection breaks.
    Cut,
}

/// Most bytes that leave at once.
const PIECE: usize = 251;
/// A long answer leaves in bigger pieces, so that it does not take minutes.
const LONG: usize = 64 * 1024;
/// Long enough that the pieces leave one by one.
const BETWEEN: Duration = Duration::from_millis(1);
const SLOWLY: Duration = Duration::from_millis(10);

/// A stream of events; the last `end` of them are its end mark, `error` is an error event.
pub(super) fn events(model: &str, mut events: Vec<String>, end: usize, error: String) -> Vec<Step> {
    let half = events.len() / 2;
    let mut after = Vec::new();
    match model {
        "cut-stream" | "cut-tool" => {
            // A tool call comes last: all but its last pieces, but never the end mark.
            let kept = if model == "cut-tool" { events.len() - end - 3 } else { half };
            events.truncate(kept);
            // What was sent must arrive before the break does.
            after = vec![Step::Pause(SLOWLY), Step::Cut];
        }
        "stall" => {
            events.truncate(half);
            after = vec![Step::Stall];
        }
        "no-done" => events.truncate(events.len() - end),
        "bad-chunk" => {
            let mut broken = events[half].trim_end().to_owned();
            broken.truncate(broken.len() * 2 / 3);
            events.insert(half, format!("{broken}\n\n"));
        }
        "error-in-stream" => {
            events.truncate(half);
            events.push(error);
        }
        "crlf" => {
            for event in &mut events {
                *event = event.replace('\n', "\r\n");
            }
            events.insert(0, ": PROCESSING\r\n\r\n".to_owned());
        }
        "slow" => {
            let pause = |event: String| [Step::Send(event.into()), Step::Pause(SLOWLY)];
            return events.into_iter().flat_map(pause).collect();
        }
        _ => (),
    }
    let mut steps = split(&events);
    steps.extend(after);
    steps
}

/// A whole answer; the number is the length that the headers promise.
pub(super) fn whole(model: &str, body: String) -> (Vec<Step>, usize) {
    let length = body.len();
    let half = || Step::Send(Bytes::copy_from_slice(&body.as_bytes()[..length / 2]));
    match model {
        "cut-stream" | "cut-tool" => (vec![half(), Step::Pause(SLOWLY), Step::Cut], length),
        "stall" => (vec![half(), Step::Stall], length),
        "bad-chunk" => (vec![half()], length / 2),
        _ => (vec![Step::Send(body.into())], length),
    }
}

/// Pieces that know nothing of events, nor of characters: one ends within the first character of
/// more than one byte that each event holds.
fn split(events: &[String]) -> Vec<Step> {
    let size: usize = events.iter().map(String::len).sum();
    let most = if size > LONG { LONG / 8 } else { PIECE };
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    for event in events {
        let inside = event.bytes().position(|byte| !byte.is_ascii());
        for (at, byte) in event.bytes().enumerate() {
            piece.push(byte);
            if piece.len() == most || (most == PIECE && Some(at) == inside) {
                pieces.push(std::mem::take(&mut piece));
            }
        }
    }
    pieces.push(piece);
    let step = |piece: Vec<u8>| [Step::Send(piece.into()), Step::Pause(BETWEEN)];
    pieces.into_iter().filter(|piece| !piece.is_empty()).flat_map(step).collect()
}
