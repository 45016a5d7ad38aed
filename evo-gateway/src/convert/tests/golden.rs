//! Every `golden/KIND/WAY/CASE.in.*` must become exactly its `CASE.out.*`.
//!
//! A bug in a conversion gets a case of its own here. Inputs are what the real APIs publish, and what
//! servers that speak their protocols were seen to send.

use std::fs;

use serde_json::{Value, json};

use super::{
    super::{
        Context, ConvertError, Dialect, StreamConverter, Task, Wanted, error, request, response,
    },
    context, golden_paths, ways,
};

/// Runs `convert` over all cases of a kind, of which each way has some, and compares what it gives, as
/// text.
fn check(kind: &str, at_least: usize, convert: impl Fn(Dialect, Dialect, &str, &[u8]) -> String) {
    let mut wrong = Vec::new();
    for (way, from, to) in ways(kind) {
        let inputs = golden_paths(kind, &way);
        assert!(inputs.len() >= at_least, "{kind}/{way} has too few cases");
        for input in inputs {
            let name = input.file_name().unwrap().to_str().unwrap();
            let actual = convert(from, to, name, &fs::read(&input).unwrap());
            let output = input.with_file_name(name.replace(".in.", ".out."));
            let expected = fs::read_to_string(&output).unwrap_or_default();
            if actual != expected {
                wrong.push(format!("{}: expected\n{expected}\ngot\n{actual}", output.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn pretty(result: Result<Vec<u8>, ConvertError>) -> String {
    let value: Value = match result {
        Ok(body) => serde_json::from_slice(&body).unwrap(),
        Err(ConvertError { field, message }) => {
            json!({"refused": {"field": field, "message": message}})
        }
    };
    serde_json::to_string_pretty(&value).unwrap() + "\n"
}

/// A request that begins with `lenient_` is of a lenient caller. What is dropped of any stands below
/// its body.
#[test]
fn requests() {
    check("request", 3, |from, to, name, body| {
        let question: Value = serde_json::from_slice(body).unwrap();
        let (_, model) = question["model"].as_str().unwrap().split_once(':').unwrap();
        let stream = question["stream"].as_bool().unwrap_or(false);
        let lenient = name.starts_with("lenient_");
        let wanted = Wanted { model, stream, lenient, context: context(), ..Wanted::default() };
        let result = request(Task::Generate, from, to, body, wanted);
        assert_eq!(result.is_err(), name.starts_with("refused_"), "{name}: {result:?}");
        match result {
            Ok(converted) if !converted.dropped.is_empty() => {
                let dropped = json!({"dropped": converted.dropped}).to_string();
                pretty(Ok(converted.body)) + &pretty(Ok(dropped.into_bytes()))
            }
            result => pretty(result.map(|converted| converted.body)),
        }
    });
}

#[test]
fn responses() {
    check("response", 2, |from, to, name, body| {
        let result = response(Task::Generate, from, to, body, &context()).map(|it| it.body);
        assert_eq!(result.is_err(), name.starts_with("refused_"), "{name}: {result:?}");
        pretty(result)
    });
}

#[test]
fn errors() {
    check("error", 2, |from, to, _, case| {
        let case: Value = serde_json::from_slice(case).unwrap();
        let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
        pretty(Ok(error(from, to, status, case["body"].as_str().unwrap().as_bytes())))
    });
}

#[test]
fn streams() {
    check("stream", 2, |from, to, name, bytes| {
        let include_usage = !name.contains("without_usage");
        let mut converter = StreamConverter::new(from, to, &Context { include_usage, ..context() });
        let mut out = Vec::new();
        let pushed = converter.push(bytes, &mut out);
        let finished = converter.finish(&mut out);
        if let Err(error) = &finished {
            converter.tell(error.clone(), &mut out);
        }
        let text = String::from_utf8(out).unwrap();
        let marks = ["{\"error\":{", "event: error\n", "{\"error\":\""];
        let has_error = marks.iter().any(|mark| text.contains(mark));
        assert_eq!(finished.is_err(), has_error, "{name}: {text}");
        assert!(pushed.is_ok() || finished.is_err(), "{name}");
        text
    });
}
