//! Virtual keys and their limits, and the table of usage, over HTTP.

use tempfile::TempDir;

use super::*;

const ANSWER: &str = r#"{"id":"1","model":"m-2026","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":50,"prompt_tokens_details":{"cached_tokens":40}}}"#;

/// A gateway with a data folder, and its operator's token.
pub(super) struct Office {
    pub(super) bed: Bed,
    operator: String,
    folder: TempDir,
}

/// With a price of 1 USD per token, and 2 for those of answers.
pub(super) fn priced(fake: &Fake, name: &str, kind: &str) -> Value {
    let mut provider = fake.provider(name, kind);
    provider["model_metadata"] =
        json!({"m": {"cost": {"input": 1e6, "output": 2e6, "cache_read": 5e5}}});
    provider
}

impl Office {
    pub(super) async fn start(providers: &[Value]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), providers).await
    }

    async fn start_in(folder: TempDir, providers: &[Value]) -> Self {
        Self::with(folder, config(providers)).await
    }

    pub(super) async fn with(folder: TempDir, mut config: Config) -> Self {
        config.auth.keys_file = Some(folder.path().join("auth.json"));
        config.database = Some(folder.path().join("gateway.db"));
        let operator = config.auth.operator.as_ref().unwrap().expose().to_owned();
        Self { bed: Bed::start(config).await, operator, folder }
    }

    pub(super) async fn admin(&self, method: &str, path: &str, body: Value) -> Got {
        self.as_bearer(&self.operator, method, path, body).await
    }

    pub(super) async fn as_bearer(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Value,
    ) -> Got {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.bed.address))
            .header("authorization", format!("Bearer {token}"));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.bed.send(request.body(Full::new(body.into())).unwrap()).await
    }

    /// Makes a key with rules.
    pub(super) async fn key(&self, name: &str, mut rules: Value) -> String {
        rules["name"] = name.into();
        let made = self.admin("POST", "/admin/keys", rules).await;
        assert_eq!(made.status, 201, "{}", made.text());
        made.json()["key"].as_str().unwrap().to_owned()
    }

    pub(super) async fn chat(&self, key: &str, body: &Value) -> Got {
        self.as_bearer(key, "POST", "/v1/chat/completions", body.clone()).await
    }

    pub(super) async fn usage(&self, query: &str) -> Value {
        let got = self.admin("GET", &format!("/usage?{query}"), Value::Null).await;
        assert_eq!(got.status, 200, "{}", got.text());
        got.json()
    }
}

#[tokio::test]
async fn a_key_is_made_changed_and_taken_back_at_once() {
    let fake = Fake::says(200, &[], ANSWER).await;
    let office = Office::start(&[fake.provider("p", OPENAI)]).await;
    let key = office.key("laptop", json!({"models": ["p:m"], "tags": ["t"]})).await;
    assert!(key.starts_with("evo-") && key.len() == 52);
    assert_eq!(office.chat(&key, &chat("m")).await.status, 200);
    let refused = office.chat(&key, &chat("p:other")).await;
    assert_eq!((refused.status.as_u16(), fake.seen().len()), (403, 1));
    assert_eq!(refused.json()["error"]["code"], "model_not_allowed");
    assert_eq!(refused.json()["error"]["param"], "model");
    // Neither the key nor anybody but the operator can change keys.
    for token in [&key, &office.bed.token] {
        let got = office.as_bearer(token, "POST", "/admin/keys", json!({"name": "x"})).await;
        assert_eq!(got.status, 403, "{}", got.text());
    }
    let again = office.admin("POST", "/admin/keys", json!({"name": "laptop"})).await;
    assert_eq!(
        (again.status.as_u16(), &again.json()["error"]["code"]),
        (409, &json!("key_exists"))
    );

    let patch = json!({"models": null, "rpm": 1, "budget_usd_per_month": 3});
    let changed = office.admin("PATCH", "/admin/keys/laptop", patch).await.json();
    assert_eq!((&changed["rpm"], &changed["tags"]), (&json!(1), &json!(["t"])));
    assert_eq!((changed.get("models"), &changed["budgets"][0]["period"]), (None, &json!("month")));
    assert_eq!(office.chat(&key, &chat("p:other")).await.status, 200);
    let second = office.chat(&key, &chat("m")).await;
    assert_eq!(second.status, 429, "{}", second.text());
    let wait: u64 = second.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    for (patch, field) in [
        (json!({"rpm": 0}), "rpm"),
        (json!({"rpm": "x"}), "rpm"),
        (json!({"rmp": 1}), "rmp"),
        (json!({"expires_at": "soon"}), "expires_at"),
        (json!({"name": "y"}), "name"),
    ] {
        let got = office.admin("PATCH", "/admin/keys/laptop", patch.clone()).await;
        assert_eq!(
            (got.status.as_u16(), &got.json()["error"]["param"]),
            (400, &json!(field)),
            "{patch}"
        );
    }
    for name in ["", "a\nb", &"x".repeat(65)] {
        let got = office.admin("POST", "/admin/keys", json!({"name": name})).await;
        assert_eq!((got.status.as_u16(), &got.json()["error"]["param"]), (400, &json!("name")));
    }

    let list = office.admin("GET", "/admin/keys?limit=1", Value::Null).await;
    assert!(!list.text().contains(&key), "{}", list.text());
    assert_eq!(
        (&list.json()["count"], &list.json()["keys"][0]["name"]),
        (&json!(1), &json!("laptop"))
    );
    let gone = office.admin("DELETE", "/admin/keys/laptop", Value::Null).await;
    assert_eq!(gone.json(), json!({"success": true, "name": "laptop"}));
    assert_eq!(office.chat(&key, &chat("m")).await.status, 401);
    assert_eq!(office.admin("DELETE", "/admin/keys/laptop", Value::Null).await.status, 404);
    office.bed.stop().await;
}

#[tokio::test]
async fn a_key_may_stand_in_the_query_and_goes_no_further() {
    let fake = Fake::says(200, &[], ANSWER).await;
    let office = Office::start(&[fake.provider("p", OPENAI)]).await;
    let key = office.key("g", json!({})).await;
    for query in [format!("?key={key}&beta=true"), format!("?beta=true&key={key}")] {
        let uri = format!("http://{}/v1/chat/completions{query}", office.bed.address);
        let request = Request::post(uri).body(Full::new(chat("p:m").to_string().into())).unwrap();
        assert_eq!(office.bed.send(request).await.status, 200);
        assert_eq!(fake.last().uri.query(), Some("beta=true"));
    }
    let uri = format!("http://{}/v1/models?key=wrong", office.bed.address);
    let got = office.bed.send(Request::get(uri).body(Full::default()).unwrap()).await;
    assert_eq!(got.status, 401);
    office.bed.stop().await;
}

#[tokio::test]
async fn a_budget_ends_and_is_still_spent_after_a_restart() {
    let fake = Fake::says(200, &[], ANSWER).await;
    let providers = [priced(&fake, "p", OPENAI)];
    let office = Office::start(&providers).await;
    // 60 tokens at 1 USD, 40 cached at half of it, and 50 at 2.
    let key = office.key("ci", json!({"budget_usd_per_day": 250})).await;
    for _ in 0..2 {
        assert_eq!(office.chat(&key, &chat("p:m")).await.status, 200);
    }
    let refused = office.chat(&key, &chat("p:m")).await;
    assert_eq!((refused.status.as_u16(), fake.seen().len()), (429, 2));
    assert_eq!(refused.json()["error"]["code"], "budget_exceeded");
    assert_eq!(refused.header("x-should-retry"), "false");
    let Office { bed, folder, .. } = office;
    bed.stop().await;

    let office = Office::start_in(folder, &providers).await;
    assert_eq!(office.chat(&key, &chat("p:m")).await.status, 429);
    let list = office.admin("GET", "/admin/keys", Value::Null).await.json();
    let budget = &list["keys"][0]["budgets"][0];
    assert_eq!((&budget["spent_usd"], &budget["limit_usd"]), (&json!(360.0), &json!(250.0)));
    let wider = office.admin("PATCH", "/admin/keys/ci", json!({"budget_usd_per_day": 1000})).await;
    assert_eq!(wider.status, 200);
    assert_eq!(office.chat(&key, &chat("p:m")).await.status, 200);
    let sums = office.usage("group_by=key").await;
    let ci = &sums["groups"][0];
    assert_eq!((&ci["group"], &ci["cost_usd"]), (&json!({"key": "ci"}), &json!(540.0)));
    assert_eq!((&ci["requests"], &ci["errors"]), (&json!(5), &json!(2)));
    office.bed.stop().await;
}

#[tokio::test]
async fn tokens_per_minute_and_requests_at_once_are_counted() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let fake = Fake::start(move |_| {
        let mut wait = wait.clone();
        async move {
            wait.wait_for(|go| *go).await.unwrap();
            Response::new(Body::from(ANSWER))
        }
    })
    .await;
    let office = Office::start(&[fake.provider("p", ANTHROPIC)]).await;
    let one = office.key("one", json!({"concurrency": 1})).await;
    let body = message("p:m");
    let ask = |key: String| office.as_bearer_owned(key, "/v1/messages", body.clone());
    let (first, second) = tokio::join!(ask(one.clone()), async {
        until(|| !fake.seen().is_empty()).await;
        let second = ask(one.clone()).await;
        go.send(true).unwrap();
        second
    });
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 429));
    // In the caller's own protocol.
    assert_eq!(second.json()["error"]["type"], "rate_limit_error");
    assert_eq!(second.header("retry-after"), "1");
    let few = office.key("few", json!({"tpm": 140})).await;
    assert_eq!(ask(few.clone()).await.status, 200);
    let refused = ask(few.clone()).await;
    assert_eq!(refused.status, 429, "150 tokens were used");
    assert!(refused.text().contains("140 tokens per minute"), "{}", refused.text());
    office.bed.stop().await;
}

impl Office {
    async fn as_bearer_owned(&self, token: String, path: &str, body: Value) -> Got {
        self.as_bearer(&token, "POST", path, body).await
    }
}

#[tokio::test]
async fn every_way_of_an_answer_is_in_the_books() {
    let sse = "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":null}],\"usage\":null}\n\n\
        data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
        data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n\n\
        data: [DONE]\n\n";
    let fake = Fake::start(move |seen| async move {
        let asked = seen.json();
        if asked["model"] == "bad" {
            return Response::builder().status(400).body(Body::from("{}")).unwrap();
        }
        if asked["stream"] != true {
            let answer = json!({
                "id": "1", "object": "chat.completion", "created": 1, "model": "m",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
            });
            return Response::new(Body::from(answer.to_string()));
        }
        let answer = Response::builder().header("content-type", "text/event-stream");
        answer.body(Body::from(sse)).unwrap()
    })
    .await;
    let office = Office::start(&[priced(&fake, "p", OPENAI)]).await;
    let run = |front: &str, body: Value| {
        let request = office.bed.request("POST", front).header("x-evo-run-id", "run-7");
        let request = request.header("x-evo-stage", "building");
        office.bed.send(request.body(Full::new(body.to_string().into())).unwrap())
    };
    let (openai, anthropic) = ("/v1/chat/completions", "/v1/messages");
    for (front, body) in [
        (openai, chat("p:m")),
        (openai, streamed(chat("p:m"))),
        (anthropic, message("p:m")),
        (anthropic, streamed(message("p:m"))),
    ] {
        let got = run(front, body).await;
        assert_eq!((got.status.as_u16(), got.whole), (200, true), "{}", got.text());
    }
    assert_eq!(run(openai, chat("p:bad")).await.status, 400);
    assert_eq!(run(openai, chat("nobody:m")).await.status, 404);

    let usage = office.usage("run_id=run-7").await;
    assert_eq!(usage["count"], 6, "{usage}");
    let rows = usage["requests"].as_array().unwrap();
    for row in &rows[2..] {
        let counts = [&row["input_tokens"], &row["output_tokens"], &row["estimated"]];
        assert_eq!(counts, [&json!(7), &json!(3), &json!(false)], "{row}");
        assert_eq!((&row["cost_usd"], &row["attempts"]), (&json!(13.0), &json!(1)), "{row}");
        assert_eq!((&row["provider"], &row["model"]), (&json!("p"), &json!("m")));
        assert_eq!((&row["key"], &row["stage"]), (&json!("gateway"), &json!("building")));
        assert!(row["first_token_ms"].is_number() && row["request_id"].is_string(), "{row}");
    }
    assert_eq!((&rows[1]["status"], &rows[1]["cost_usd"]), (&json!(400), &json!(null)));
    assert_eq!(rows[0]["error"], "model_not_found");
    assert_eq!(rows[0]["asked"], "nobody:m");

    let by_run = office.usage("run_id=run-7&group_by=run,stage").await;
    let group = &by_run["groups"][0];
    assert_eq!(group["group"], json!({"run": "run-7", "stage": "building"}));
    assert_eq!((&group["cost_usd"], &group["errors"]), (&json!(52.0), &json!(2)));
    // A key sees its own rows only, whatever it asks for.
    let key = office.key("own", json!({})).await;
    office.chat(&key, &chat("p:m")).await;
    let own = office.as_bearer(&key, "GET", "/usage?key=gateway", Value::Null).await.json();
    assert_eq!((&own["count"], &own["requests"][0]["key"]), (&json!(1), &json!("own")));
    for (query, says) in
        [("group_by=colour", "colour"), ("cursor=zz", "cursor"), ("limit=0", "limit")]
    {
        let got = office.admin("GET", &format!("/usage?{query}"), Value::Null).await;
        assert_eq!(got.status, 400, "{query}");
        assert!(got.text().contains(says), "{}", got.text());
    }
    let figures = office.bed.get("/metrics").await;
    for line in [
        "evo_gateway_tokens_total{provider=\"p\",model=\"m\",kind=\"input\"} 35",
        "evo_gateway_cost_usd_total{provider=\"p\",model=\"m\"} 65.0",
        "evo_gateway_model_requests_total{provider=\"p\",model=\"other\",status=\"4xx\"} 1",
        "evo_gateway_first_token_seconds_count{provider=\"p\",model=\"m\"} 5",
    ] {
        assert!(figures.text().contains(line), "{line} is not in\n{}", figures.text());
    }
    office.bed.stop().await;
}
