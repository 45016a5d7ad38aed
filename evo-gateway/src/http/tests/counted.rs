//! What failed, and what was used on the way to an answer, in the figures and in the table of usage.

use futures_util::{StreamExt as _, stream};

use super::{
    keys::{Office, priced},
    *,
};

const ANSWER: &str = r#"{"id":"1","model":"m","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;

fn text(text: &str) -> String {
    let delta = json!({"type": "text_delta", "text": text});
    let delta = json!({"type": "content_block_delta", "index": 0, "delta": delta});
    format!("event: content_block_delta\ndata: {delta}\n\n")
}

/// A model of Anthropic that says three words. The stream may be cut after so many.
async fn speaker(input: u64, output: u64, cut_after: Option<usize>) -> Fake {
    Fake::start(move |_| async move {
        let usage = json!({"input_tokens": input, "output_tokens": 1});
        let message = json!({"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage});
        let start = json!({"type": "message_start", "message": message});
        let block = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
        let mut events = vec![
            format!("event: message_start\ndata: {start}\n\n"),
            format!("event: content_block_start\ndata: {block}\n\n"),
        ];
        let words = ["alpha ", "beta ", "gamma"].map(text);
        events.extend(words.into_iter().take(cut_after.unwrap_or(3)));
        if cut_after.is_none() {
            let delta = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": output}});
            events.push("event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n".to_owned());
            events.push(format!("event: message_delta\ndata: {delta}\n\n"));
            events.push("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n".to_owned());
        }
        let mut pieces: Vec<_> = events.into_iter().map(Ok).collect();
        if cut_after.is_some() {
            pieces.push(Err(std::io::Error::other("cut")));
        }
        let pieces = stream::iter(pieces).then(|piece| async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            piece
        });
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(Body::from_stream(pieces))
            .unwrap()
    })
    .await
}

async fn office(providers: &[Value], reliability: Value) -> Office {
    let mut config = config(providers);
    config.gateway.reliability = Some(serde_json::from_value(reliability).unwrap());
    Office::with(tempfile::tempdir().unwrap(), config).await
}

/// The figures, once the books have been brought up to date.
async fn figures(office: &Office) -> String {
    office.usage("group_by=total").await;
    office.bed.get("/metrics").await.text().to_owned()
}

fn is_in(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn what_a_stream_took_before_another_one_went_on_with_it_is_paid_for() {
    let (first, second) = (speaker(10, 0, Some(2)).await, speaker(20, 7, None).await);
    let providers = [priced(&first, "first", ANTHROPIC), priced(&second, "second", ANTHROPIC)];
    let rules = json!({"fallback_chain": ["second"], "max_retries": 0, "base_backoff_ms": 1});
    let office = office(&providers, rules).await;
    let key = office.key("k", json!({"budget_usd_per_day": 1e6})).await;
    let got = office.as_bearer(&key, "POST", "/v1/messages", streamed(message("first:m"))).await;
    assert!(got.whole && got.text().contains("gamma"), "{got:?}");
    assert_eq!(got.header("x-evo-provider"), "first", "{got:?}");

    let rows = office.usage("").await["requests"].clone();
    let row = |who: &str, outcome: &str| {
        let all = rows.as_array().unwrap().iter();
        let mut found = all.filter(|row| row["provider"] == who && row["outcome"] == outcome);
        found.next().cloned().unwrap_or_else(|| panic!("no {outcome} of {who} in {rows}"))
    };
    let (before, answer) = (row("first", "continued"), row("second", "answered"));
    assert_eq!((&before["error"], &before["attempts"]), (&json!("upstream_cut"), &json!(0)));
    assert_eq!(
        (&before["input_tokens"], &before["request_id"]),
        (&json!(10), &answer["request_id"])
    );
    assert_eq!((&answer["input_tokens"], &answer["output_tokens"]), (&json!(20), &json!(7)));
    // Asked again, the first one breaks off once more.
    assert_eq!(answer["attempts"], 3, "{rows}");
    let cost = |row: &Value| row["cost_usd"].as_f64().unwrap();
    let (paid, spent) = (cost(&before), cost(&answer));
    assert!(paid >= 10.0 && (spent - 34.0).abs() < 1e-6, "{paid} {spent}");

    let groups = office.usage("group_by=provider").await["groups"].clone();
    let sums = |name: &str, of: &str| {
        let mut groups = groups.as_array().unwrap().iter();
        groups.find(|it| it["group"]["provider"] == name).unwrap()[of].clone()
    };
    assert_eq!((sums("first", "requests"), sums("second", "requests")), (json!(0), json!(1)));
    assert_eq!((sums("first", "errors"), sums("first", "failed_attempts")), (json!(0), json!(2)));
    let total = office.usage("group_by=total").await["groups"][0].clone();
    assert_eq!((&total["requests"], &total["errors"]), (&json!(1), &json!(0)));
    assert!((total["cost_usd"].as_f64().unwrap() - paid - spent).abs() < 1e-6, "{total}");
    let told = office.admin("GET", "/admin/keys", Value::Null).await.json();
    let told = told["keys"][0]["budgets"][0]["spent_usd"].as_f64().unwrap();
    assert!((told - paid - spent).abs() < 1e-6, "the key has spent {told}");

    is_in(
        &figures(&office).await,
        &[
            "evo_gateway_failed_attempts_total{provider=\"first\",model=\"m\",reason=\"upstream_cut\"} 2",
            "evo_gateway_tokens_total{provider=\"first\",model=\"m\",kind=\"input\"} 10",
            "evo_gateway_tokens_total{provider=\"second\",model=\"m\",kind=\"input\"} 20",
        ],
    );
    office.bed.stop().await;
}

#[tokio::test]
async fn attempts_that_failed_are_counted_by_provider_model_and_reason() {
    let ill = Fake::start(|seen| async move {
        let status = if seen.header("authorization").ends_with("secret-K1") { 401 } else { 503 };
        let body = r#"{"error":{"message":"Oh."}}"#;
        Response::builder().status(status).body(Body::from(body)).unwrap()
    })
    .await;
    let well = Fake::says(200, &[("content-type", "application/json")], ANSWER).await;
    let mut first = priced(&ill, "ill", OPENAI);
    first["api_key_envs"] = json!(["K1", "K2"]);
    let rules = json!({"fallback_chain": ["well"], "max_retries": 0, "breaker": {"failures": 0}});
    let office = office(&[first, priced(&well, "well", OPENAI)], rules).await;
    let got = office.bed.chat(&chat("ill:m")).await;
    assert_eq!((got.status.as_u16(), got.header("x-evo-attempts")), (200, "3"));
    // Names that callers make up are counted together.
    office.bed.chat(&chat("ill:made-up")).await;

    let groups = office.usage("group_by=provider,model,reason").await["groups"].clone();
    let found: Vec<_> = groups
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            let named = ["provider", "model", "reason"].map(|name| it["group"][name].as_str());
            let counts =
                (it["requests"].as_i64().unwrap(), it["failed_attempts"].as_i64().unwrap());
            (named.map(Option::unwrap).join(" "), counts)
        })
        .collect();
    let of = |name: &str, requests, failed| (name.to_owned(), (requests, failed));
    assert_eq!(
        found,
        [
            of("ill m 401", 0, 1),
            of("ill m 503", 0, 1),
            of("ill made-up 503", 0, 1),
            of("well m ", 1, 0),
            of("well made-up ", 1, 0),
        ]
    );
    is_in(
        &figures(&office).await,
        &[
            "evo_gateway_failed_attempts_total{provider=\"ill\",model=\"m\",reason=\"401\"} 1",
            "evo_gateway_failed_attempts_total{provider=\"ill\",model=\"m\",reason=\"503\"} 1",
            "evo_gateway_failed_attempts_total{provider=\"ill\",model=\"other\",reason=\"503\"} 1",
        ],
    );
    office.bed.stop().await;
}

#[tokio::test]
async fn a_caller_that_leaves_before_the_answer_has_paid_for_its_question() {
    let (slow, _tasks, asked) = super::streams::forsaken("").await;
    let mut provider = provider_at(&format!("http://{slow}/v1"), "p", OPENAI);
    provider["model_metadata"] = json!({"m": {"cost": {"input": 1e6, "output": 2e6}}});
    let office = office(&[provider], json!({"max_retries": 0})).await;
    for body in [chat("p:m"), streamed(chat("p:m"))] {
        *asked.lock().unwrap() = [false; 2];
        let caller = office.bed.raw("/v1/chat/completions", &body.to_string()).await;
        until(|| asked.lock().unwrap()[0]).await;
        drop(caller);
        until(|| asked.lock().unwrap()[1]).await;
    }
    let mut rows = Vec::new();
    // The connection to the provider is closed first, and the row written then.
    for _ in 0..500 {
        rows = office.usage("").await["requests"].as_array().unwrap().clone();
        if rows.len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!((&row["outcome"], &row["attempts"]), (&json!("cancelled"), &json!(1)), "{row}");
        assert_eq!((&row["estimated"], &row["output_tokens"]), (&json!(true), &json!(0)), "{row}");
        assert!(row["input_tokens"].as_u64() > Some(0) && row["cost_usd"].as_f64() > Some(1.0));
    }
    office.bed.stop().await;
}
