use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use serde_json::json;

use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
/// Nothing begins later.
const LATEST: i64 = 1_000_000;

fn read(body: &[u8], encoding: Encoding) -> Result<Received, Unreadable> {
    super::read(body, encoding, LATEST)
}

fn request(spans: &Value) -> Vec<u8> {
    json!({"resourceSpans": [{
        "resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": "a-service"}},
        ]},
        "scopeSpans": [{"scope": {"name": "x"}, "spans": spans}],
    }]})
    .to_string()
    .into_bytes()
}

fn received(spans: &Value) -> Received {
    read(&request(spans), Encoding::Json).unwrap()
}

fn span(more: Value) -> Value {
    let mut span = json!({
        "traceId": TRACE, "spanId": "b7ad6b7169203331", "name": "work", "kind": 2,
        "startTimeUnixNano": "1000", "endTimeUnixNano": "3000",
    });
    span.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    span
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

#[test]
fn json_and_protobuf_say_the_same() {
    let body = request(&json!([span(json!({
        "parentSpanId": "00f067aa0ba902b7",
        "status": {"code": 2, "message": "no such host"},
        "attributes": [
            text("run.id", "run-1"), text("evo.component", "evo-learning"),
            {"key": "n", "value": {"intValue": "7"}}, {"key": "ok", "value": {"boolValue": true}},
            {"key": "ratio", "value": {"doubleValue": 0.5}},
            {"key": "list", "value": {"arrayValue": {"values": [{"intValue": 1}, {}]}}},
            {"key": "map", "value": {"kvlistValue": {"values": [text("a", "b")]}}},
            {"key": "raw", "value": {"bytesValue": "AAEC"}},
        ],
        "events": [{"timeUnixNano": "2000", "name": "tick", "attributes": [text("k", "v")]}],
    }))]));
    let expected = NewSpan {
        trace_id: TRACE.to_owned(),
        span_id: "b7ad6b7169203331".to_owned(),
        parent_span_id: Some("00f067aa0ba902b7".to_owned()),
        name: "work".to_owned(),
        service: "evo-learning".to_owned(),
        kind: "server",
        start_ns: 1_000,
        end_ns: Some(3_000),
        status: "error",
        status_message: Some("no such host".to_owned()),
        attributes: json!({
            "run.id": "run-1", "evo.component": "evo-learning", "n": 7, "ok": true, "ratio": 0.5,
            "list": [1, null], "map": {"a": "b"}, "raw": "3 bytes",
        }),
        events: json!([{
            "name": "tick", "time": "1970-01-01T00:00:00.000002Z", "attributes": {"k": "v"},
        }]),
        run_id: Some("run-1".to_owned()),
    };
    let from_json = read(&body, Encoding::Json).unwrap();
    assert_eq!(from_json, Received { spans: vec![expected], refused: 0 });
    let message: ExportTraceServiceRequest = serde_json::from_slice(&body).unwrap();
    assert_eq!(read(&message.encode_to_vec(), Encoding::Protobuf).unwrap(), from_json);
}

#[test]
fn a_span_without_valid_ids_is_refused_and_counted() {
    let zeros = "0".repeat(32);
    let got = received(&json!([
        span(json!({"traceId": ""})),
        span(json!({"traceId": "0af7"})),
        span(json!({"traceId": zeros})),
        span(json!({"spanId": "0000000000000000"})),
        span(json!({"name": "good"})),
    ]));
    assert_eq!((got.spans.len(), got.refused), (1, 4));
    assert_eq!(got.spans[0].name, "good");
    assert_eq!(got.spans[0].service, "a-service");
    let many: Vec<Value> = (0..=MAX_SPANS).map(|_| span(json!({}))).collect();
    let got = received(&many.into());
    assert_eq!((got.spans.len(), got.refused), (MAX_SPANS, 1));
}

#[test]
fn times_that_make_no_sense_change_nothing_for_others() {
    let far = u64::MAX.to_string();
    let got = received(&json!([
        span(json!({"endTimeUnixNano": "0"})),
        span(json!({"endTimeUnixNano": far})),
        span(json!({"startTimeUnixNano": LATEST.to_string()})),
        span(json!({"startTimeUnixNano": (LATEST + 1).to_string()})),
        span(json!({"startTimeUnixNano": far, "endTimeUnixNano": far})),
    ]));
    let times: Vec<_> = got.spans.iter().map(|span| (span.start_ns, span.end_ns)).collect();
    let expected = [(1_000, Some(1_000)), (1_000, Some(LATEST)), (LATEST, Some(LATEST))];
    assert_eq!((times.as_slice(), got.refused), (expected.as_slice(), 2));
}

#[test]
fn a_small_body_can_not_become_a_huge_one() {
    /// A field of bytes.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        prost::encoding::encode_varint(content.len() as u64, &mut bytes);
        bytes.extend_from_slice(content);
        bytes
    }
    let spans = |empty: usize| field(1, &field(2, &[2 << 3 | 2, 0].repeat(empty)));
    // The resource and the scope count as well.
    let most = read(&spans(MAX_MESSAGES - 2), Encoding::Protobuf).unwrap();
    assert_eq!(most.refused, MAX_MESSAGES as u64 - 2);
    let key_values = |empty: usize| field(1, &field(1, &[1 << 3 | 2, 0].repeat(empty)));
    for body in [
        spans(MAX_MESSAGES - 1),
        spans(MAX_BODY / 2 - 20),
        [2, 0].map(|_| spans(MAX_MESSAGES / 2)).concat(),
        key_values(MAX_MESSAGES),
        // Broken behind all that.
        [spans(MAX_MESSAGES), vec![0xff]].concat(),
    ] {
        assert_eq!(read(&body, Encoding::Protobuf), Err(Unreadable::TooMany), "{}", body.len());
    }
    for one in ["{},", "[],"] {
        let list = one.repeat(MAX_MESSAGES);
        let body = format!(r#"{{"resourceSpans":[{}]}}"#, list.trim_end_matches(','));
        assert_eq!(read(body.as_bytes(), Encoding::Json), Err(Unreadable::TooMany));
    }
    // Nested without end: values in lists.
    let mut value = Vec::new();
    for _ in 0..2_000 {
        value = field(5, &field(1, &value));
    }
    let attribute = field(9, &field(2, &value));
    let body = field(1, &field(2, &field(2, &attribute)));
    assert!(matches!(read(&body, Encoding::Protobuf), Err(Unreadable::Malformed(_))));
}

#[test]
fn secrets_do_not_get_in() {
    let got = received(&json!([span(json!({
        "name": "GET /?api_key=hunter2",
        "status": {"code": 2, "message": "401 for Bearer abc.def.ghi"},
        "attributes": [
            text("password", "hunter2"), text("note", "sk-abcdefgh12345678"),
            {"key": "headers", "value": {"kvlistValue": {"values": [text("token", "hunter2")]}}},
            {"key": "list", "value": {"arrayValue": {"values": [
                {"stringValue": "evo_op_0123456789abcdef"},
            ]}}},
        ],
        "events": [{"name": "password=hunter2", "attributes": [text("secret", "hunter2")]}],
    }))]));
    let all = format!("{:?}", got.spans[0]);
    for secret in ["hunter2", "abcdefgh12345678", "abc.def.ghi", "0123456789abcdef"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
    assert_eq!(got.spans[0].attributes["password"], "***");
    assert_eq!(got.spans[0].attributes["note"], "sk-***");
}

#[test]
fn what_a_span_carries_is_bounded() {
    let long = "ä".repeat(MAX_TEXT * 5);
    let many: Vec<Value> = (0..200).map(|n| text(&format!("k{n}"), "v")).collect();
    let mut deep = json!({"stringValue": "bottom"});
    for _ in 0..20 {
        deep = json!({"arrayValue": {"values": [deep]}});
    }
    let events: Vec<Value> = (0..100).map(|_| json!({"name": long})).collect();
    let got = received(&json!([
        span(json!({"name": long, "attributes": [text("long", &long)]})),
        span(json!({"attributes": many})),
        span(json!({"attributes": [{"key": "deep", "value": deep}]})),
        span(
            json!({"attributes": (0..64).map(|n| text(&n.to_string(), &long)).collect::<Vec<_>>()})
        ),
        span(json!({"events": events})),
    ]));
    let spans = got.spans;
    assert_eq!(spans[0].name.chars().count(), MAX_NAME + 1);
    assert_eq!(spans[0].attributes["long"].as_str().unwrap().chars().count(), MAX_TEXT + 1);
    assert_eq!(spans[1].attributes.as_object().unwrap().len(), MAX_ATTRIBUTES);
    assert_eq!(spans[2].attributes["deep"], json!([[[["…"]]]]));
    assert_eq!(spans[3].attributes, json!({}), "too much altogether");
    assert!(spans[4].events.to_string().len() <= MAX_JSON);
}

#[test]
fn what_is_no_request_is_named() {
    for (body, encoding) in [
        (&b"{"[..], Encoding::Json),
        (b"[]", Encoding::Json),
        (b"", Encoding::Json),
        (br#"{"resourceSpans": 7}"#, Encoding::Json),
        (b"\xff\xff\xff\xff", Encoding::Protobuf),
    ] {
        let error = read(body, encoding).unwrap_err();
        assert!(matches!(error, Unreadable::Malformed(_)), "{error:?}");
    }
    assert_eq!(read(b"", Encoding::Protobuf).unwrap(), Received::default());
    assert_eq!(read(b"{}", Encoding::Json).unwrap(), Received::default());
}

#[test]
fn a_packed_body_can_not_grow_without_end() {
    let pack = |bytes: &[u8]| {
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    };
    assert_eq!(unpack(&pack(b"body")).unwrap(), b"body");
    assert_eq!(unpack(&pack(&vec![0; MAX_BODY])).unwrap().len(), MAX_BODY);
    let bomb = pack(&vec![0; MAX_BODY * 4]);
    assert!(bomb.len() < MAX_BODY / 100);
    assert_eq!(unpack(&bomb), Err(Unreadable::TooLarge));
    assert!(matches!(unpack(b"no gzip"), Err(Unreadable::Malformed(_))));
}

#[test]
fn the_answer_says_how_many_were_refused() {
    assert_eq!(answer(0, Encoding::Json), b"{}");
    assert_eq!(answer(0, Encoding::Protobuf), b"");
    let value: Value = serde_json::from_slice(&answer(3, Encoding::Json)).unwrap();
    assert_eq!(value["partialSuccess"]["rejectedSpans"].to_string().trim_matches('"'), "3");
    let message = ExportTraceServiceResponse::decode(&*answer(3, Encoding::Protobuf)).unwrap();
    assert_eq!(message.partial_success.unwrap().rejected_spans, 3);
}

#[test]
fn content_types_are_read_with_their_parameters() {
    assert_eq!(Encoding::of("application/json; charset=utf-8"), Some(Encoding::Json));
    assert_eq!(Encoding::of("Application/X-Protobuf"), Some(Encoding::Protobuf));
    assert_eq!(Encoding::of("text/plain"), None);
    assert_eq!(Encoding::of(""), None);
}
