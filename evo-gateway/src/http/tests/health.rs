//! How the providers do.

use super::*;

#[tokio::test]
async fn the_health_of_providers_is_known_without_asking_them() {
    let fake = Fake::says(200, &[], "{}").await;
    let mut off = fake.provider("off", OPENAI);
    off["enabled"] = false.into();
    let mut keyless = fake.provider("keyless", OPENAI);
    keyless["api_key_envs"] = json!(["UNSET_KEY"]);
    let gone = provider_at("http://127.0.0.1:9/v1", "gone", OPENAI);
    let bed = Bed::start(config(&[fake.provider("well", OPENAI), off, keyless, gone])).await;
    bed.post("/v1/models/refresh", "").await;
    let got = bed.get("/health/providers").await.json();
    let rows = got["providers"].as_array().unwrap();
    let states: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| (row["name"].as_str().unwrap(), row["status"].as_str().unwrap()))
        .collect();
    let expected =
        [("well", "ok"), ("off", "off"), ("keyless", "unusable"), ("gone", "unreachable")];
    assert_eq!(states, expected);
    assert_eq!((&got["status"], &got["count"]), (&json!("degraded"), &json!(4)));
    assert!(rows[0]["latency_ms"].is_number() && rows[0]["checked_at"].is_string());
    assert!(rows[3]["problem"].as_str().unwrap().contains("refused"), "{got}");
    // Strangers learn nothing, and the gateway itself is well.
    let uri = format!("http://{}/health", bed.address);
    let own = bed.send(Request::get(&uri).body(Full::default()).unwrap()).await;
    assert_eq!((own.status.as_u16(), &own.json()["status"]), (200, &json!("ok")));
    let strangers = Request::get(format!("{uri}/providers")).body(Full::default()).unwrap();
    assert_eq!(bed.send(strangers).await.status, 401);
    bed.stop().await;
}

#[tokio::test]
async fn a_provider_whose_breaker_is_open_is_failing() {
    let fake = Fake::says(500, &[], "{}").await;
    let mut config = config(&[fake.provider("p", OPENAI)]);
    let rules = json!({"max_retries": 0, "breaker": {"failures": 2, "open_ms": 60_000}});
    config.gateway.reliability = Some(serde_json::from_value(rules).unwrap());
    let bed = Bed::start(config).await;
    for _ in 0..3 {
        assert!(bed.chat(&chat("p:m")).await.status.is_server_error());
    }
    let got = bed.get("/health/providers").await.json();
    let row = &got["providers"][0];
    assert_eq!((&row["status"], &row["breakers"]), (&json!("failing"), &json!({"m": "open"})));
    assert_eq!(got["status"], "down");
    let figures = bed.get("/metrics").await;
    let line = "evo_gateway_breaker_state{provider=\"p\",model=\"m\"} 2";
    assert!(figures.text().contains(line), "{}", figures.text());
    bed.stop().await;
}
