//! The part of OpenAI's API that Ollama has.

use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{Checked, Refusal, arguments, bare, boolean, embedded, format, image, list};
use crate::llm::{
    answer::{self, Answer, End},
    prompt::{Part, Prompt, Role},
};

/// Checks a request and takes from it what a model sees.
pub(super) fn read(body: &Value) -> Checked<Prompt> {
    let name = bare(body["model"].as_str().unwrap_or_default());
    let mut prompt = Prompt { model: name.to_owned(), ..Prompt::default() };
    prompt.stream = boolean(body, "stream")?.unwrap_or(false);
    let number = |field: &str| match &body[field] {
        Value::Null => Ok(None),
        Value::Number(number) => Ok(number.as_f64()),
        other => {
            let at = format!("ChatCompletionRequest.{field}");
            Err(Refusal::kind(&at, "float64", other))
        }
    };
    prompt.temperature = number("temperature")?;
    prompt.top_p = number("top_p")?;
    let most = &body["max_tokens"];
    prompt.max_tokens = most.as_i64().and_then(|most| u64::try_from(most).ok());
    match &body["stop"] {
        Value::String(text) => prompt.stop.push(text.clone()),
        Value::Array(texts) => {
            prompt.stop = texts.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        }
        _ => (),
    }
    prompt.format = match body["response_format"]["type"].as_str() {
        Some("json_object") => Some(Value::Null),
        Some("json_schema") => format(&body["response_format"]["json_schema"]["schema"])?,
        _ => None,
    };
    super::tools(body, &mut prompt)?;
    let messages = list(body, "messages", "ChatCompletionRequest.messages", "[]openai.Message")?;
    if messages.is_empty() {
        return Err(Refusal::new("[] is too short - 'messages'"));
    }
    let mut names = HashMap::<String, String>::new();
    for message in messages {
        turn(message, &mut names, &mut prompt)?;
    }
    Ok(prompt)
}

/// `names` are those of the calls before.
fn turn(message: &Value, names: &mut HashMap<String, String>, prompt: &mut Prompt) -> Checked<()> {
    let mut parts = match &message["content"] {
        Value::Null => Vec::new(),
        Value::String(text) => vec![Part::Text(text.clone())],
        Value::Array(parts) => parts.iter().map(part).collect::<Checked<_>>()?,
        other => return Err(Refusal::new(format!("invalid message content type: {other}"))),
    };
    parts.retain(|part| part.text() != Some(""));
    let text = || parts.iter().filter_map(Part::text).collect::<Vec<_>>().join("\n");
    match message["role"].as_str().unwrap_or_default() {
        "system" | "developer" => prompt.system.push(text()),
        "user" => prompt.push(Role::User, parts),
        "tool" => {
            let id = message["tool_call_id"].as_str().unwrap_or_default();
            let name = names.get(id).cloned().unwrap_or_default();
            let text = text();
            prompt.push(Role::User, vec![Part::Result { name, text }]);
        }
        "assistant" => {
            for call in message["tool_calls"].as_array().into_iter().flatten() {
                let name = call["function"]["name"].as_str().unwrap_or_default();
                let given = call["function"]["arguments"].as_str().unwrap_or_default();
                let given: Value = serde_json::from_str(given)
                    .map_err(|_| Refusal::new("invalid tool call arguments"))?;
                names.insert(call["id"].as_str().unwrap_or_default().to_owned(), name.to_owned());
                parts.push(Part::Call { name: name.to_owned(), arguments: arguments(&given) });
            }
            prompt.push(Role::Assistant, parts);
        }
        role => return Err(Refusal::new(format!("invalid role: {role:?}"))),
    }
    Ok(())
}

fn part(part: &Value) -> Checked<Part> {
    match part["type"].as_str() {
        Some("text") => match part["text"].as_str() {
            Some(text) => Ok(Part::Text(text.to_owned())),
            None => Err(Refusal::new("invalid message format")),
        },
        Some("image_url") => {
            let url = part["image_url"]["url"].as_str().or_else(|| part["image_url"].as_str());
            let data = url.and_then(|url| url.strip_prefix("data:image/")?.split_once(";base64,"));
            // It fetches nothing.
            image(data.ok_or_else(|| Refusal::new("invalid image input"))?.1)
        }
        _ => Err(Refusal::new("invalid message format")),
    }
}

pub(super) fn model(name: &'static str) -> Value {
    let id = format!("{name}:latest");
    json!({ "id": id, "object": "model", "created": 1_790_842_272, "owned_by": "library" })
}

pub(super) fn embed(body: &Value) -> Checked<Value> {
    let (name, vectors, words) = embedded(body)?;
    let as_base64 = body["encoding_format"] == "base64";
    let data = vectors.into_iter().enumerate().map(|(index, vector)| {
        let vector = if as_base64 {
            let bytes: Vec<u8> = vector.into_iter().flat_map(f32::to_le_bytes).collect();
            BASE64_STANDARD.encode(bytes).into()
        } else {
            json!(vector)
        };
        json!({ "object": "embedding", "index": index, "embedding": vector })
    });
    Ok(json!({
        "object": "list", "data": data.collect::<Vec<_>>(), "model": name,
        "usage": { "prompt_tokens": words, "total_tokens": words },
    }))
}

/// What every part of one answer says about itself.
pub(super) struct Told {
    pub(super) id: String,
    pub(super) model: String,
}

impl Told {
    fn object(&self, kind: &str, choices: &Value) -> Value {
        json!({
            "id": self.id, "object": kind, "created": 1_795_305_216_u64, "model": self.model,
            "system_fingerprint": "fp_ollama", "choices": choices,
        })
    }

    pub(super) fn whole(&self, answer: &Answer) -> Value {
        let mut message = json!({ "role": "assistant", "content": answer.text });
        if !answer.thinking.is_empty() {
            message["reasoning"] = answer.thinking.clone().into();
        }
        if !answer.calls.is_empty() {
            message["tool_calls"] = calls(answer).into();
        }
        let reason = finish_reason(answer);
        let choices = json!([{ "index": 0, "message": message, "finish_reason": reason }]);
        let mut whole = self.object("chat.completion", &choices);
        whole["usage"] = usage(answer);
        whole
    }

    pub(super) fn events(&self, answer: &Answer, with_usage: bool) -> Vec<String> {
        let mut events = Vec::new();
        let mut delta = |mut delta: Value, end: Option<&str>| {
            delta["role"] = "assistant".into();
            let choices = json!([{ "index": 0, "delta": delta, "finish_reason": end }]);
            let chunk = self.object("chat.completion.chunk", &choices);
            events.push(format!("data: {chunk}\n\n"));
        };
        for piece in answer::pieces(&answer.thinking) {
            delta(json!({ "content": "", "reasoning": piece }), None);
        }
        for piece in answer::pieces(&answer.text) {
            delta(json!({ "content": piece }), None);
        }
        for call in calls(answer) {
            delta(json!({ "content": "", "tool_calls": [call] }), None);
        }
        delta(json!({ "content": "" }), Some(finish_reason(answer)));
        if with_usage {
            let mut chunk = self.object("chat.completion.chunk", &json!([]));
            chunk["usage"] = usage(answer);
            events.push(format!("data: {chunk}\n\n"));
        }
        events.push("data: [DONE]\n\n".to_owned());
        events
    }
}

fn calls(answer: &Answer) -> Vec<Value> {
    let call = |(index, call): (usize, &answer::Call)| {
        json!({
            "id": format!("call_fake{index}"), "index": index, "type": "function",
            "function": { "name": call.name, "arguments": call.arguments },
        })
    };
    answer.calls.iter().enumerate().map(call).collect()
}

fn finish_reason(answer: &Answer) -> &'static str {
    match answer.end {
        End::Calls => "tool_calls",
        End::Length => "length",
        End::Stop | End::StopSequence(_) | End::Filtered => "stop",
    }
}

fn usage(answer: &Answer) -> Value {
    let prompt = answer.input_tokens + answer.cached_tokens;
    json!({
        "prompt_tokens": prompt, "completion_tokens": answer.output_tokens,
        "total_tokens": prompt + answer.output_tokens,
    })
}
