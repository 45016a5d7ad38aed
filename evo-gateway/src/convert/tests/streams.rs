//! What the caller of a stream's converter relies on.

use super::{
    super::{Dialect, StreamConverter, error_event, last_words, own_error, own_event},
    context,
};

const CHUNK: &[u8] = b"data: {\"id\":\"x\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";

fn to_anthropic() -> StreamConverter {
    StreamConverter::new(Dialect::OpenAiChat, Dialect::Anthropic, &context())
}

#[test]
fn every_event_goes_out_as_soon_as_it_is_in() {
    let mut converter = to_anthropic();
    let mut out = Vec::new();
    let (most, last) = CHUNK.split_at(CHUNK.len() - 1);
    converter.push(most, &mut out).unwrap();
    assert_eq!(out, b"");
    converter.push(last, &mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().ends_with("\"text\":\"Hi\"}}\n\n"));
}

#[test]
fn nothing_follows_an_error() {
    let mut converter = to_anthropic();
    let mut out = Vec::new();
    converter.push(CHUNK, &mut out).unwrap();
    let broken = converter.push(b"data: {\n\n", &mut out).unwrap_err();
    let length = out.len();
    assert_eq!(converter.push(CHUNK, &mut out), Ok(()));
    assert_eq!(converter.finish(&mut out), Err(broken));
    assert_eq!(out.len(), length);
}

#[test]
fn an_event_without_end_is_refused() {
    let mut converter = to_anthropic();
    let mut out = Vec::new();
    let piece = vec![b'x'; 1024 * 1024];
    let error = (0..32).find_map(|_| converter.push(&piece, &mut out).err()).unwrap();
    assert_eq!(error.message, "an event of the stream is longer than 16777216 bytes");
    assert!(out.is_empty());
    converter.tell(error, &mut out);
    assert!(String::from_utf8(out).unwrap().starts_with("event: error\n"));
}

#[test]
fn every_end_of_an_array_is_a_whole_array() {
    let front = Dialect::GeminiArray;
    let error = || crate::model::ApiError {
        kind: crate::model::ErrorKind::Internal,
        message: "Oops.".to_owned(),
        code: None,
        param: None,
    };
    let array = |bytes: &[u8]| -> Vec<serde_json::Value> { serde_json::from_slice(bytes).unwrap() };
    // Before anything was said, and after something was.
    assert_eq!(array(&last_words(front, error(), false)).len(), 1);
    let mut said = br#"[{"candidates":[]}"#.to_vec();
    said.extend(last_words(front, error(), true));
    assert_eq!(array(&said)[1]["error"]["message"], "Oops.");
    assert_eq!(array(&own_event(front, 503, "no_provider", "No.")).len(), 1);
    assert_eq!(array(&error_event(Dialect::OpenAiChat, front, 500, b"")).len(), 1);
    // Of a translated stream that is cut after any number of bytes.
    let stream =
        [CHUNK, b"data: {\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"}]}\n\n"].concat();
    for length in 0..=stream.len() {
        let mut converter = StreamConverter::new(Dialect::OpenAiChat, front, &context());
        let mut out = Vec::new();
        converter.push(&stream[..length], &mut out).unwrap();
        let mut end = Vec::new();
        if let Err(error) = converter.finish(&mut end) {
            converter.tell(error, &mut end);
        }
        out.extend(end);
        assert!(!array(&out).is_empty(), "{length}");
    }
}

#[test]
fn own_errors_have_type_and_code_in_both_dialects() {
    let body =
        |front| String::from_utf8(own_error(front, 400, "unknown_model", "No `x`.", None)).unwrap();
    assert_eq!(
        body(Dialect::OpenAiChat),
        r#"{"error":{"message":"No `x`.","type":"invalid_request_error","param":null,"code":"unknown_model"}}"#
    );
    assert_eq!(
        body(Dialect::Anthropic),
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"No `x`.","code":"unknown_model"}}"#
    );
}
