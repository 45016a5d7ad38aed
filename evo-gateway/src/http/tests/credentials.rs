//! A provider whose token is got anew.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;

const ANSWER: &str = r#"{"id":"resp_1","object":"response","status":"completed","model":"m","output":[{"type":"message","id":"msg_1","role":"assistant","status":"completed","content":[{"type":"output_text","text":"Hi","annotations":[]}]}],"usage":{"input_tokens":3,"output_tokens":1,"total_tokens":4}}"#;

/// Gives a new token each time, and counts.
async fn issuer() -> (Fake, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let fake = Fake::start(move |_| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let tokens = json!({"access_token": format!("new-{number}"), "refresh_token": format!("next-{number}"), "expires_in": 3600});
            Response::new(Body::from(tokens.to_string()))
        }
    })
    .await;
    (fake, count)
}

fn kept(file: &Path) -> Value {
    let text = std::fs::read_to_string(file).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    file["providers"]["codex"].clone()
}

/// A gateway whose only provider is asked with a token that can be refreshed.
async fn bed(folder: &tempfile::TempDir, provider: &Fake, issuer: &Fake) -> Bed {
    let file = folder.path().join("credentials.json");
    let signed_in = json!({"access_token": "old", "refresh_token": "first", "updated_at": "2026-01-01T00:00:00Z"});
    std::fs::write(&file, json!({"providers": {"codex": signed_in}}).to_string()).unwrap();
    let mut config = config(&[provider.provider("codex", "codex_auth")]);
    config.sign_in.file = Some(file);
    config.sign_in.codex_issuer = format!("http://{}", issuer.address);
    Bed::start(config).await
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once_for_a_request() {
    let (issuer, renewed) = issuer().await;
    let provider = Fake::start(|seen| async move {
        let status = if seen.header("authorization") == "Bearer old" { 401 } else { 200 };
        let body = if status == 200 { ANSWER } else { r#"{"error":{"message":"expired"}}"# };
        let response =
            Response::builder().status(status).header("content-type", "application/json");
        response.body(Body::from(body)).unwrap()
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(&folder, &provider, &issuer).await;
    let got = bed.chat(&chat("codex:m")).await;
    assert_eq!((got.status.as_u16(), got.header("x-evo-attempts")), (200, "2"), "{got:?}");
    assert_eq!(got.json()["choices"][0]["message"]["content"], "Hi");
    assert_eq!(renewed.load(Ordering::SeqCst), 1);
    assert_eq!(kept(&folder.path().join("credentials.json"))["refresh_token"], "next-0");
    // The next one begins with what is known to be good.
    assert_eq!(bed.chat(&chat("codex:m")).await.header("x-evo-attempts"), "1");
    assert_eq!(renewed.load(Ordering::SeqCst), 1);
    bed.stop().await;
}

#[tokio::test]
async fn who_is_refused_with_any_token_is_told_so() {
    let (issuer, renewed) = issuer().await;
    let provider = Fake::says(401, &[], r#"{"error":{"message":"no such account"}}"#).await;
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(&folder, &provider, &issuer).await;
    for requests in 1..3 {
        let got = bed.chat(&chat("codex:m")).await;
        assert_eq!((got.status.as_u16(), got.header("x-evo-attempts")), (401, "2"), "{got:?}");
        assert!(got.text().contains("no such account"), "{got:?}");
        assert_eq!(renewed.load(Ordering::SeqCst), requests, "once for a request");
    }
    bed.stop().await;
}
