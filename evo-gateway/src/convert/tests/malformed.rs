//! Streams and answers as no provider should send them, and streams in other pieces and lines than usual.

use serde_json::Value;

use super::{
    super::{Dialect, Task, request, response},
    Wanted, context, convert_in_pieces, golden_inputs, named,
};
use crate::model::ApiError;

/// Those that providers are asked in: each has a reader of its own.
fn providers() -> impl Iterator<Item = Dialect> {
    Dialect::ALL.into_iter().filter(|dialect| named(*dialect).1)
}

/// Whether all that went out is of the front's own form, as far as it goes.
fn is_well_formed(front: Dialect, out: &[u8]) -> bool {
    let text = std::str::from_utf8(out).unwrap();
    let is_json = |text: &str| serde_json::from_str::<Value>(text).is_ok();
    match front {
        Dialect::GeminiArray => is_json(text),
        Dialect::OllamaChat | Dialect::OllamaGenerate => text.lines().all(is_json),
        _ => {
            let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
            data.filter(|data| *data != "[DONE]").all(is_json)
        }
    }
}

#[test]
fn every_reader_takes_streams_byte_by_byte() {
    for (from, to, inputs) in golden_inputs("stream") {
        for input in inputs {
            let cuts: Vec<usize> = (0..input.len()).collect();
            let whole = convert_in_pieces(*from, *to, input, &[]);
            assert_eq!(convert_in_pieces(*from, *to, input, &cuts), whole, "{from:?} to {to:?}");
        }
    }
}

#[test]
fn every_reader_takes_streams_that_are_cut_in_two_at_any_byte() {
    for provider in providers() {
        let mut ways = golden_inputs("stream").iter();
        let (from, to, inputs) = ways.rfind(|way| way.0 == provider).unwrap();
        // With all that there may be, and not long.
        let input = inputs.iter().filter(|input| input.len() < 4_000).max_by_key(|it| it.len());
        let input = input.unwrap();
        let whole = convert_in_pieces(*from, *to, input, &[]);
        for at in 0..=input.len() {
            assert_eq!(convert_in_pieces(*from, *to, input, &[at]), whole, "{from:?} at {at}");
        }
    }
}

#[test]
fn lines_may_end_in_any_way_and_data_may_stand_in_several() {
    let again = |bytes: &[u8], ends: &[&str]| -> Vec<u8> {
        let text = std::str::from_utf8(bytes).unwrap().replace("\r\n", "\n");
        let lines = text.split_inclusive('\n').enumerate();
        lines
            .flat_map(|(at, line)| match line.strip_suffix('\n') {
                Some(line) => format!("{line}{}", ends[at % ends.len()]).into_bytes(),
                None => line.as_bytes().to_vec(),
            })
            .collect()
    };
    // Where JSON has white space, a line may end.
    let in_lines = |bytes: &[u8]| -> Vec<u8> {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.replace("data: {", "data: {\ndata:").replace("data:{", "data:{\ndata: ").into_bytes()
    };
    for (from, to, inputs) in golden_inputs("stream") {
        for input in inputs {
            // A carriage return alone in there would be the end of a line.
            if std::str::from_utf8(input).is_err() {
                continue;
            }
            let whole = convert_in_pieces(*from, *to, input, &[]);
            for ends in [&["\r\n"][..], &["\r"], &["\n", "\r", "\r\n"]] {
                let other = convert_in_pieces(*from, *to, &again(input, ends), &[]);
                assert_eq!(other, whole, "{from:?} to {to:?} with {ends:?}");
            }
            // Errors tell the place in the text.
            if whole.1.is_ok() {
                let other = convert_in_pieces(*from, *to, &in_lines(input), &[]);
                assert_eq!(other, whole, "{from:?} to {to:?}");
            }
        }
    }
}

#[test]
fn no_stream_that_is_none_looks_like_an_answer() {
    let deep = format!("data: {}\n\n", "[".repeat(100_000));
    let deeper = format!("data: {}\n\n", "{\"candidates\":[".repeat(50_000));
    let long =
        [b"data: {\"x\":\"", &vec![b'a'; 3 * 1024 * 1024][..], b"\"}\n\ndata: {\n\n"].concat();
    let streams: [&[u8]; 16] = [
        b"",
        b"\n\n\n",
        b": only a comment\n\n",
        b"data:\n\n",
        b"data: {\n\n",
        b"data: []\n\n",
        b"data: 5\n\n",
        b"data: \"text\"\n\n",
        b"data: \xff\xfe{\xc3\x28}\n\n",
        b"data: {\"choices\":\0}\n\n",
        b"<!doctype html><html><body>502 Bad Gateway</body></html>",
        b"{\"id\":\"1\",\"choices\":[],\"candidates\":[],\"content\":[],\"output\":[]}",
        b"data: {\"type\":\"error\",\"error\":{\"message\":\"m\",\"code\":429}}\n\n",
        deep.as_bytes(),
        deeper.as_bytes(),
        &long,
    ];
    for provider in providers() {
        for front in Dialect::ALL {
            for stream in streams {
                let (out, end) = convert_in_pieces(provider, front, stream, &[stream.len() / 2]);
                let shown = String::from_utf8_lossy(&stream[..stream.len().min(80)]).into_owned();
                let ApiError { message, .. } = end.expect_err(&shown);
                assert!(!message.is_empty() && message.len() < 1_000, "{message}");
                assert!(is_well_formed(front, &out), "{front:?}: {shown}: {out:?}");
            }
        }
    }
}

#[test]
fn an_answer_that_is_none_is_an_error_that_says_what_came() {
    let deep = "[".repeat(100_000);
    for provider in providers() {
        for front in Dialect::ALL {
            let ask =
                |body: &str| response(Task::Generate, provider, front, body.as_bytes(), &context());
            for body in ["", "null", "[]", "5", "{", "\"text\"", "<html></html>", &deep] {
                let error = ask(body).expect_err(body);
                assert!(error.message.len() < 1_000, "{error}");
            }
            for body in [
                r#"{"error":{"message":"no capacity","code":503}}"#,
                r#"{"error":"no capacity"}"#,
                r#"{"type":"error","error":{"type":"overloaded_error","message":"no capacity"}}"#,
            ] {
                let error = ask(body).expect_err(body);
                assert!(error.message.contains("no capacity"), "{provider:?}: {error}");
            }
        }
    }
}

#[test]
fn a_question_that_is_none_is_refused_by_every_front() {
    let deep = "[".repeat(100_000);
    for front in Dialect::ALL {
        for provider in providers() {
            for body in ["", "null", "5", "{", "\"text\"", &deep] {
                let wanted = Wanted { model: "m", context: context(), ..Wanted::default() };
                let error = request(Task::Generate, front, provider, body.as_bytes(), wanted)
                    .expect_err(body);
                assert!(error.message.len() < 1_000, "{error}");
            }
        }
    }
}
