use proptest::{collection::vec, prelude::*};

use super::{Decoder, Event, TooLong};

fn decode(pieces: &[&[u8]]) -> Vec<Event> {
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(piece, &mut events).unwrap();
    }
    decoder.finish(&mut events);
    events
}

fn check(stream: &str, expected: &[(&str, &str)]) {
    let event = |(name, data): &(&str, &str)| Event {
        name: name.as_bytes().to_vec(),
        data: data.as_bytes().to_vec(),
    };
    let expected: Vec<_> = expected.iter().map(event).collect();
    assert_eq!(decode(&[stream.as_bytes()]), expected, "{stream:?}");
    let bytes: Vec<_> = stream.as_bytes().chunks(1).collect();
    assert_eq!(decode(&bytes), expected, "{stream:?} byte by byte");
}

#[test]
fn events_of_every_form() {
    check("", &[]);
    check("data: a\n\n", &[("", "a")]);
    check("data:a\n\ndata:  b\n\n", &[("", "a"), ("", " b")]);
    check("event: x\r\ndata: a\r\n\r\nevent: y\rdata: b\r\r", &[("x", "a"), ("y", "b")]);
    check("data: a\ndata\ndata: b\n\n", &[("", "a\n\nb")]);
    check(": comment\n\n:\n\ndata: a\nid: 1\nretry: 5\nunknown: x\n\n", &[("", "a")]);
    check("event: x\n\ndata: a\n\n", &[("", "a")]);
    check("\u{feff}data: a\n\n\u{feff}data: b\n\n", &[("", "a")]);
    check("data: \u{2028}\u{2029}\u{85}é😀\n\n", &[("", "\u{2028}\u{2029}\u{85}é😀")]);
    check("data: {\"a\": \"b: c\"}\n\n", &[("", "{\"a\": \"b: c\"}")]);
    check("data:\n\n", &[("", "")]);
}

#[test]
fn the_last_blank_line_may_lack() {
    check("data: a", &[("", "a")]);
    check("data: a\r\n", &[("", "a")]);
    check("data: a\n\nevent: x\n", &[("", "a")]);
}

#[test]
fn an_event_may_be_as_long_as_the_limit_and_no_longer() {
    let mut decoder = Decoder::with_limit(10);
    let mut events = Vec::new();
    decoder.push(b"data: 4567\n\ndata: 4567\n\n", &mut events).unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(decoder.push(b"data: 45\ndata: 4", &mut events), Ok(()));
    assert_eq!(decoder.push(b"567", &mut events), Err(TooLong { limit: 10 }));
}

proptest! {
    #[test]
    fn pieces_do_not_matter(
        words in vec(
            prop::sample::select(vec![
                "data", "event", ":", " ", "\n", "\r", "\r\n", "\n\n", "data: x\n", "\u{feff}", "\u{2028}", "é", "a",
            ]),
            0..40,
        ),
        size in 1_usize..9,
    ) {
        let stream = words.concat().into_bytes();
        let pieces: Vec<_> = stream.chunks(size).collect();
        prop_assert_eq!(decode(&pieces), decode(&[stream.as_slice()]));
    }

    #[test]
    fn data_comes_out_as_it_went_in(datas in vec("[^\n\r]{0,20}", 0..6)) {
        let stream: Vec<_> =
            datas.iter().flat_map(|data| format!("data: {data}\n\n").into_bytes()).collect();
        let expected: Vec<_> = datas
            .into_iter()
            .map(|data| Event { name: Vec::new(), data: data.into_bytes() })
            .collect();
        prop_assert_eq!(decode(&[stream.as_slice()]), expected);
    }
}
