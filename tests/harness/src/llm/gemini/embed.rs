//! Google's embeddings: vectors of three numbers, or fewer if that is asked for.

use serde_json::{Value, json};

use super::{
    super::{
        answer::MODELS,
        prompt::{self, Part},
        server::Reply,
    },
    Checked, Refusal, no_model, read, whole,
};

/// What a vector can be for.
const TASKS: [&str; 8] = [
    "RETRIEVAL_QUERY",
    "RETRIEVAL_DOCUMENT",
    "SEMANTIC_SIMILARITY",
    "CLASSIFICATION",
    "CLUSTERING",
    "QUESTION_ANSWERING",
    "FACT_VERIFICATION",
    "CODE_RETRIEVAL_QUERY",
];
/// Most texts of one request.
const MOST: usize = 100;
/// Numbers of a vector.
const LENGTH: u64 = 3;

/// `embedContent`.
pub(super) fn single(model: &str, body: &Value) -> Checked<Reply> {
    is_named(body, model, "EmbedContentRequest.model", false)?;
    Ok(whole(&json!({ "embedding": embedding(model, body)? })))
}

/// `batchEmbedContents`.
pub(super) fn batch(model: &str, body: &Value) -> Checked<Reply> {
    read::known(body, &["requests"], "")?;
    let requests = body["requests"].as_array().map(Vec::as_slice).unwrap_or_default();
    if requests.len() > MOST {
        return Err(Refusal::new(format!(
            "* BatchEmbedContentsRequest.requests: at most {MOST} requests can be in one batch"
        )));
    }
    let one = |(at, request): (usize, &Value)| {
        let place = format!("BatchEmbedContentsRequest.requests[{at}].model");
        is_named(request, model, &place, true)?;
        embedding(model, request)
    };
    let all: Checked<Vec<Value>> = requests.iter().enumerate().map(one).collect();
    Ok(whole(&json!({ "embeddings": all? })))
}

/// Where a body names the model, it must be the one of the address.
pub(super) fn is_named(body: &Value, model: &str, place: &str, needed: bool) -> Checked<()> {
    match body["model"].as_str() {
        None if !needed => Ok(()),
        Some(name) if name == format!("models/{model}") => Ok(()),
        Some("") | None => Err(Refusal::new(format!("* {place}: unexpected model name format\n"))),
        Some(_) => {
            Err(Refusal::new(format!("* {place}: model does not match the one specified in URL\n")))
        }
    }
}

fn embedding(model: &str, body: &Value) -> Checked<Value> {
    let fields = ["model", "content", "taskType", "title", "outputDimensionality"];
    read::known(body, &fields, "requests")?;
    if !MODELS.contains(&model) {
        return Err(no_model(model));
    }
    if let Some(task) = body["taskType"].as_str().filter(|task| !TASKS.contains(task)) {
        return Err(Refusal::new(format!(
            "Invalid value at 'task_type' (type.googleapis.com/google.ai.generativelanguage.v1beta.TaskType), \"{task}\""
        )));
    }
    let length = match &body["outputDimensionality"] {
        Value::Null => LENGTH,
        value => {
            value.as_u64().filter(|length| (1..=LENGTH).contains(length)).ok_or_else(|| {
                Refusal::new(format!(
                    "* EmbedContentRequest.output_dimensionality: at most {LENGTH}"
                ))
            })?
        }
    };
    let (parts, _) = read::parts(&body["content"], "content", &mut Vec::new())?;
    let texts: Vec<&str> = parts.iter().filter_map(Part::text).collect();
    if texts.is_empty() {
        return Err(Refusal::new("* EmbedContentRequest.content: content is empty\n"));
    }
    let mut numbers = prompt::vector(&texts.join("\n")).to_vec();
    numbers.truncate(usize::try_from(length).unwrap_or(numbers.len()));
    Ok(json!({ "values": numbers }))
}
