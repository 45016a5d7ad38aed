//! Callers that speak Gemini's and Ollama's protocols, and Gemini as a provider.

use super::*;

const GOOGLE: &str = "google";
const JSON: (&str, &str) = ("content-type", "application/json; charset=UTF-8");
const ANSWER: &str = "{\"candidates\": [ {\"content\": {\"parts\": [{\"text\": \"Hi\"}], \"role\": \"model\"}, \"finishReason\": \"STOP\"} ],\n \"usageMetadata\": {\"promptTokenCount\": 3, \"candidatesTokenCount\": 1, \"totalTokenCount\": 4}}";
const OPENAI: &str = r#"{"id":"1","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;
const CHUNKS: &str = "data: {\"id\":\"1\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\ndata: {\"id\":\"1\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

async fn google(fake: &Fake) -> Bed {
    let mut provider = fake.provider("g", GOOGLE);
    provider["api_key_envs"] = json!(["KEY"]);
    Bed::start(config(&[provider])).await
}

#[tokio::test]
async fn from_gemini_to_gemini_everything_passes_byte_for_byte() {
    let fake = Fake::says(200, &[JSON], ANSWER).await;
    let bed = google(&fake).await;
    let body = "{ \"contents\" : [ {\"parts\":[{\"text\":\"\\u00e4 1.50\"}]} ] , \"x\": 1.0}";
    let got =
        bed.post("/v1beta/models/g:gemini-2.5-flash:generateContent?x=1&key=mine", body).await;
    assert_eq!((got.status, got.text()), (StatusCode::OK, ANSWER));
    let seen = fake.last();
    assert_eq!(seen.body, body);
    assert!(
        seen.uri.to_string().ends_with("/models/gemini-2.5-flash:generateContent?x=1"),
        "{}",
        seen.uri
    );
    assert_eq!(seen.header("x-goog-api-key"), "secret-KEY");
    assert_eq!(seen.header("authorization"), "");
    for query in ["?alt=sse", ""] {
        bed.post(&format!("/v1beta/models/g%3Am:streamGenerateContent{query}"), body).await;
        let uri = fake.last().uri.to_string();
        assert!(uri.ends_with("/models/m:streamGenerateContent?alt=sse"), "{uri}");
    }
    bed.stop().await;
}

#[tokio::test]
async fn a_stream_from_gemini_to_gemini_may_be_an_array() {
    const FIRST: &str = "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"Hi\"}]}}], \"x\": 1.0}\r\n\r\n";
    const LAST: &str = "data: {\"candidates\": [{\"finishReason\": \"STOP\"}]}\r\n\r\n";
    let events = ("content-type", "text/event-stream");
    let ask = async |stream: &str| {
        let fake = Fake::says(200, &[events], stream).await;
        let bed = google(&fake).await;
        let got = bed.post("/v1beta/models/g:m:streamGenerateContent", "{\"contents\":[]}").await;
        bed.stop().await;
        got
    };
    let got = ask(&[FIRST, LAST].concat()).await;
    assert!(got.header("content-type").starts_with("application/json"), "{got:?}");
    let whole = "[{\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"Hi\"}]}}], \"x\": 1.0},\r\n\
                 {\"candidates\": [{\"finishReason\": \"STOP\"}]}]";
    assert_eq!((got.text(), got.whole), (whole, true));
    let got = ask(FIRST).await;
    let array: Value = serde_json::from_str(got.text()).unwrap();
    assert_eq!((&array[0]["x"], got.whole), (&json!(1.0), false));
    assert!(array[1]["error"]["message"].is_string(), "{array}");
    // A server that sends an array whatever it is asked for.
    let fake = Fake::says(200, &[JSON], "[{\"candidates\": []}]").await;
    let bed = google(&fake).await;
    let got = bed.post("/v1beta/models/g:m:streamGenerateContent", "{\"contents\":[]}").await;
    assert_eq!((got.status, got.text()), (StatusCode::OK, "[{\"candidates\": []}]"));
    bed.stop().await;
}

#[tokio::test]
async fn gemini_answers_callers_of_other_protocols() {
    let fake = Fake::says(200, &[JSON], ANSWER).await;
    let bed = google(&fake).await;
    let got = bed.chat(&chat("g:gemini-2.5-flash")).await;
    assert_eq!(got.json()["choices"][0]["message"]["content"], "Hi", "{}", got.text());
    assert_eq!(got.json()["usage"]["total_tokens"], 4);
    let seen = fake.last();
    assert!(
        seen.uri.to_string().ends_with("/models/gemini-2.5-flash:generateContent"),
        "{}",
        seen.uri
    );
    assert_eq!(seen.json()["contents"][0]["role"], "user");
    let got = bed.messages(&message("g:m")).await;
    assert_eq!(got.json()["content"][0]["text"], "Hi");
    bed.stop().await;

    let events = format!("data: {}\r\n\r\n", ANSWER.replace('\n', ""));
    let fake = Fake::says(200, &[("content-type", "text/event-stream")], &events).await;
    let bed = google(&fake).await;
    let got = bed.chat(&streamed(chat("g:m"))).await;
    assert!(got.text().contains("\"content\":\"Hi\"") && got.text().ends_with("data: [DONE]\n\n"));
    let uri = fake.last().uri.to_string();
    assert!(uri.ends_with("/models/m:streamGenerateContent?alt=sse"), "{uri}");
    bed.stop().await;
}

#[tokio::test]
async fn callers_of_gemini_and_ollama_are_answered_by_any_provider() {
    let fake = Fake::says(200, &[JSON], OPENAI).await;
    let bed = Bed::before(&fake).await;
    let question = r#"{"contents":[{"parts":[{"text":"Hello"}]}]}"#;
    let got = bed.post("/v1beta/models/p:m:generateContent", question).await;
    let candidate = got.json()["candidates"][0].clone();
    assert_eq!(candidate["content"]["parts"][0]["text"], "Hi", "{}", got.text());
    assert_eq!(fake.last().json()["model"], "m");
    let question = r#"{"model":"p:m","prompt":"Hello","stream":false,"keep_alive":"5m"}"#;
    let got = bed.post("/api/generate", question).await;
    assert_eq!((&got.json()["response"], &got.json()["done"]), (&json!("Hi"), &json!(true)));
    assert_eq!(got.header("x-evo-dropped"), "keep_alive");
    let got =
        bed.post("/api/chat", r#"{"model":"p:m","messages":[],"format":"xml","stream":false}"#);
    let got = got.await;
    assert_eq!(got.status, 400);
    assert!(got.json()["error"].as_str().unwrap().starts_with("`format`"), "{}", got.text());
    let got = bed.post("/v1beta/models/nobody:m:generateContent", "{}").await;
    assert_eq!((got.status.as_u16(), &got.json()["error"]["status"]), (404, &json!("NOT_FOUND")));
    bed.stop().await;

    let fake = Fake::says(200, &[("content-type", "text/event-stream")], CHUNKS).await;
    let bed = Bed::before(&fake).await;
    let got =
        bed.post("/api/chat", r#"{"model":"p:m","messages":[{"role":"user","content":"x"}]}"#);
    let got = got.await;
    assert_eq!(got.header("content-type"), "application/x-ndjson");
    let lines: Vec<Value> =
        got.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["message"]["content"], "Hi");
    let last = lines.last().unwrap();
    assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!("stop")));
    assert!(last["total_duration"].as_u64().unwrap() > 0, "{last}");
    let question = r#"{"contents":[{"parts":[{"text":"Hello"}]}]}"#;
    let got = bed.post("/v1beta/models/p:m:streamGenerateContent", question).await;
    let array: Value = serde_json::from_str(got.text()).unwrap();
    assert_eq!(array[0]["candidates"][0]["content"]["parts"][0]["text"], "Hi");
    assert_eq!(array[1]["candidates"][0]["finishReason"], "STOP");
    bed.stop().await;
}
