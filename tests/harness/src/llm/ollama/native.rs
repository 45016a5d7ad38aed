//! Ollama's own API: requests as it reads them, lists, answers and their lines.

use serde_json::{Value, json};

use super::{Checked, MODIFIED, Refusal, arguments, bare, boolean, embedded, format, image, known};
use crate::llm::{
    answer::{self, Answer, End},
    prompt::{Part, Prompt, Role},
};

/// Which of the two routes that answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Chat,
    Generate,
}

/// Checks a request and takes from it what a model sees.
pub(super) fn read(body: &Value, route: Route) -> Checked<Prompt> {
    let name = bare(body["model"].as_str().unwrap_or_default());
    let mut prompt = Prompt { model: name.to_owned(), ..Prompt::default() };
    prompt.stream = boolean(body, "stream")?.unwrap_or(true);
    prompt.format = format(&body["format"])?;
    match &body["think"] {
        Value::Null | Value::Bool(_) => (),
        Value::String(level) if ["high", "medium", "low"].contains(&level.as_str()) => (),
        other => {
            let message = format!(
                "invalid think value: {other} (must be \"high\", \"medium\", \"low\", true, or false)"
            );
            return Err(Refusal::new(message));
        }
    }
    options(&body["options"], &mut prompt)?;
    match route {
        Route::Chat => {
            super::tools(body, &mut prompt)?;
            for message in super::list(body, "messages", "ChatRequest.messages", "[]api.Message")? {
                turn(message, &mut prompt)?;
            }
        }
        Route::Generate => {
            if let Some(system) = body["system"].as_str().filter(|text| !text.is_empty()) {
                prompt.system.push(system.to_owned());
            }
            let mut parts =
                vec![Part::Text(body["prompt"].as_str().unwrap_or_default().to_owned())];
            parts.extend(images(body)?);
            prompt.push(Role::User, parts);
        }
    }
    Ok(prompt)
}

fn options(options: &Value, prompt: &mut Prompt) -> Checked<()> {
    if !options.is_null() && !options.is_object() {
        let kind = "map[string]interface {}";
        return Err(Refusal::kind("ChatRequest.options", kind, options));
    }
    let number = |name: &str| match &options[name] {
        Value::Null => Ok(None),
        Value::Number(number) => Ok(number.as_f64()),
        _ => Err(Refusal::new(format!("option \"{name}\" must be of type float32"))),
    };
    prompt.temperature = number("temperature")?;
    prompt.top_p = number("top_p")?;
    number("seed")?;
    // Negative numbers are no limit.
    number("num_predict")?;
    prompt.max_tokens = options["num_predict"].as_i64().and_then(|most| u64::try_from(most).ok());
    match &options["stop"] {
        Value::Null => (),
        Value::Array(texts) => {
            prompt.stop = texts.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        }
        _ => return Err(Refusal::new("option \"stop\" must be of type array")),
    }
    Ok(())
}

fn turn(message: &Value, prompt: &mut Prompt) -> Checked<()> {
    let text = match &message["content"] {
        Value::Null => "",
        Value::String(text) => text,
        other => return Err(Refusal::kind("ChatRequest.messages.content", "string", other)),
    };
    let mut parts = Vec::new();
    parts.extend((!text.is_empty()).then(|| Part::Text(text.to_owned())));
    parts.extend(images(message)?);
    match message["role"].as_str().unwrap_or_default() {
        "system" => prompt.system.push(text.to_owned()),
        "user" => prompt.push(Role::User, parts),
        "assistant" => {
            for call in message["tool_calls"].as_array().into_iter().flatten() {
                let function = &call["function"];
                let given = &function["arguments"];
                if !given.is_object() {
                    let at = "ToolCallFunction.arguments";
                    return Err(Refusal::kind(at, "api.ToolCallFunctionArguments", given));
                }
                let name = function["name"].as_str().unwrap_or_default().to_owned();
                parts.push(Part::Call { name, arguments: arguments(given) });
            }
            prompt.push(Role::Assistant, parts);
        }
        "tool" => {
            let name = message["tool_name"].as_str().unwrap_or("tool").to_owned();
            prompt.push(Role::User, vec![Part::Result { name, text: text.to_owned() }]);
        }
        role => {
            let message = format!("invalid role: {role:?}");
            return Err(Refusal::new(message));
        }
    }
    Ok(())
}

fn images(holder: &Value) -> Checked<Vec<Part>> {
    let data = holder["images"].as_array().into_iter().flatten();
    data.map(|data| image(data.as_str().unwrap_or_default())).collect()
}

fn details() -> Value {
    json!({
        "parent_model": "", "format": "gguf", "family": "fake", "families": ["fake"],
        "parameter_size": "3.2B", "quantization_level": "Q4_K_M",
    })
}

/// A model as the list has it.
pub(super) fn tag(name: &str) -> Value {
    let tagged = format!("{name}:latest");
    json!({
        "name": tagged, "model": tagged, "modified_at": MODIFIED, "size": 2_019_393_189_u64,
        "digest": "a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72",
        "details": details(),
    })
}

pub(super) fn show(body: &Value) -> Checked<Value> {
    let name = body["model"].as_str().or_else(|| body["name"].as_str()).unwrap_or_default();
    if name.is_empty() {
        return Err(Refusal::new("model is required"));
    }
    known(name)?;
    Ok(json!({
        "license": "none", "modelfile": "FROM fake", "parameters": "stop \"<|eot_id|>\"",
        "template": "{{ .Prompt }}", "details": details(),
        "model_info": { "general.architecture": "fake", "fake.context_length": 131_072 },
        "capabilities": ["completion", "tools", "vision", "thinking"], "modified_at": MODIFIED,
    }))
}

pub(super) fn embed(body: &Value) -> Checked<Value> {
    let (name, vectors, words) = embedded(body)?;
    Ok(json!({
        "model": name, "embeddings": vectors, "total_duration": 14_143_917,
        "load_duration": 1_019_500, "prompt_eval_count": words,
    }))
}

/// What every line of one answer says about itself.
pub(super) struct Told<'a> {
    pub(super) model: String,
    pub(super) route: Route,
    pub(super) body: &'a Value,
}

impl Told<'_> {
    /// Whether there is nothing to answer: the model is only loaded.
    pub(super) fn only_loads(&self) -> bool {
        match self.route {
            Route::Chat => self.body["messages"].as_array().is_none_or(Vec::is_empty),
            Route::Generate => self.body["prompt"].as_str().is_none_or(str::is_empty),
        }
    }

    pub(super) fn loaded(&self) -> Value {
        let mut line = self.line("", "", &[]);
        line["done_reason"] = "load".into();
        line["done"] = true.into();
        line
    }

    fn line(&self, text: &str, thought: &str, calls: &[Value]) -> Value {
        let mut line =
            json!({ "model": self.model, "created_at": "2026-11-22T09:00:00.123456789Z" });
        match self.route {
            Route::Chat => {
                let mut message = json!({ "role": "assistant", "content": text });
                if !thought.is_empty() {
                    message["thinking"] = thought.into();
                }
                if !calls.is_empty() {
                    message["tool_calls"] = calls.into();
                }
                line["message"] = message;
            }
            Route::Generate => {
                line["response"] = text.into();
                if !thought.is_empty() {
                    line["thinking"] = thought.into();
                }
            }
        }
        line["done"] = false.into();
        line
    }

    /// Without `think: false` a model that can think does.
    fn thinking<'b>(&self, answer: &'b Answer) -> &'b str {
        if self.body["think"] == false { "" } else { &answer.thinking }
    }

    fn end(mut line: Value, answer: &Answer) -> Value {
        let reason = if answer.end == End::Length { "length" } else { "stop" };
        let figures = json!({
            "done": true, "done_reason": reason, "total_duration": 174_560_334,
            "load_duration": 101_397_084,
            "prompt_eval_count": answer.input_tokens + answer.cached_tokens,
            "prompt_eval_duration": 13_074_791, "eval_count": answer.output_tokens,
            "eval_duration": 52_479_709,
        });
        for (name, value) in figures.as_object().into_iter().flatten() {
            line[name] = value.clone();
        }
        line
    }

    pub(super) fn whole(&self, answer: &Answer) -> Value {
        Self::end(self.line(&answer.text, self.thinking(answer), &calls(answer)), answer)
    }

    pub(super) fn lines(&self, answer: &Answer) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in answer::pieces(self.thinking(answer)) {
            lines.push(self.line("", &piece, &[]));
        }
        for piece in answer::pieces(&answer.text) {
            lines.push(self.line(&piece, "", &[]));
        }
        // Each call is whole, in a line of its own.
        for call in calls(answer) {
            lines.push(self.line("", "", &[call]));
        }
        lines.push(Self::end(self.line("", "", &[]), answer));
        // As Go's JSON writer does.
        let escaped = |line: &Value| {
            let line = line.to_string();
            line.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029") + "\n"
        };
        lines.iter().map(escaped).collect()
    }
}

fn calls(answer: &Answer) -> Vec<Value> {
    let call = |(index, call): (usize, &answer::Call)| {
        let arguments: Value = serde_json::from_str(&call.arguments).expect("our own JSON");
        json!({
            "id": format!("call_fake{index}"),
            "function": { "index": index, "name": call.name, "arguments": arguments },
        })
    };
    answer.calls.iter().enumerate().map(call).collect()
}
