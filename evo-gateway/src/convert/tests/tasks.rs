//! Vectors and counts: every `golden/task/WAY/CASE.in.json` must become exactly its `CASE.out.json`.
//!
//! A case is what a caller asks (`asked`, `lenient`) and what the provider answers (`answer`).

use std::fs;

use serde_json::{Value, json};

use super::{
    super::{Dialect, Form, Task, Wanted, request, response},
    context, golden_paths,
};

const WAYS: [(&str, Task, Dialect, Dialect); 12] = [
    embed("embed_openai_to_gemini", Form::OpenAi, Dialect::Gemini),
    embed("embed_ollama_to_openai", Form::Ollama, Dialect::OpenAiChat),
    embed("embed_ollama_to_gemini", Form::Ollama, Dialect::Gemini),
    embed("embed_ollama_single_to_openai", Form::OllamaSingle, Dialect::OpenAiChat),
    embed("embed_gemini_to_openai", Form::Gemini, Dialect::OpenAiChat),
    embed("embed_gemini_batch_to_openai", Form::GeminiBatch, Dialect::OpenAiChat),
    ("count_anthropic_to_gemini", Task::Count, Dialect::Anthropic, Dialect::Gemini),
    ("count_anthropic_to_responses", Task::Count, Dialect::Anthropic, Dialect::OpenAiResponses),
    ("count_gemini_to_anthropic", Task::Count, Dialect::Gemini, Dialect::Anthropic),
    ("count_gemini_to_responses", Task::Count, Dialect::Gemini, Dialect::OpenAiResponses),
    ("count_responses_to_anthropic", Task::Count, Dialect::OpenAiResponses, Dialect::Anthropic),
    ("count_responses_to_gemini", Task::Count, Dialect::OpenAiResponses, Dialect::Gemini),
];

/// The form says all that there is to know of a caller.
const fn embed(
    way: &'static str,
    form: Form,
    provider: Dialect,
) -> (&'static str, Task, Dialect, Dialect) {
    (way, Task::Embed(form), Dialect::OpenAiChat, provider)
}

#[test]
fn questions_and_answers() {
    let mut wrong = Vec::new();
    for (way, task, front, provider) in WAYS {
        let inputs = golden_paths("task", way);
        assert!(!inputs.is_empty(), "{way} has no case");
        for input in inputs {
            let case: Value = serde_json::from_slice(&fs::read(&input).unwrap()).unwrap();
            let name = input.file_name().unwrap().to_str().unwrap();
            let found = convert(task, front, provider, &case);
            assert_eq!(found.get("refused").is_some(), name.starts_with("refused_"), "{found:#}");
            let found = format!("{found:#}\n");
            let output = input.with_file_name(name.replace(".in.", ".out."));
            let expected = fs::read_to_string(&output).unwrap_or_default();
            if found != expected {
                wrong.push(format!("{}: expected\n{expected}\ngot\n{found}", output.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn convert(task: Task, front: Dialect, provider: Dialect, case: &Value) -> Value {
    let lenient = case["lenient"] == true;
    let wanted = Wanted { model: "m", lenient, context: context(), ..Wanted::default() };
    let asked = case["asked"].to_string();
    let converted = match request(task, front, provider, asked.as_bytes(), wanted) {
        Ok(converted) => converted,
        Err(fault) => return json!({"refused": {"field": fault.field, "message": fault.message}}),
    };
    let body: Value = serde_json::from_slice(&converted.body).unwrap();
    let answer = case["answer"].to_string();
    let answered = response(task, provider, front, answer.as_bytes(), &converted.context);
    match answered {
        Ok(answered) => json!({
            "body": body, "dropped": converted.dropped, "estimated": answered.estimated,
            "answer": serde_json::from_slice::<Value>(&answered.body).unwrap(),
        }),
        Err(fault) => json!({
            "body": body, "dropped": converted.dropped,
            "no_answer": {"field": fault.field, "message": fault.message},
        }),
    }
}
