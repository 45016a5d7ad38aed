use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::*;
use crate::provider::fake::Fake;

fn client() -> Client {
    Client::new([]).unwrap()
}

fn copilot(fake: &Fake) -> Copilot {
    Copilot::new("A_TOKEN", "ghu_secret".into(), &fake.url("/copilot_internal/v2/token"))
}

fn bearer(access: &Access) -> &str {
    let header = access.headers.iter().find(|(name, _)| *name == header::AUTHORIZATION);
    header.unwrap().1.to_str().unwrap()
}

/// A GitHub whose tokens are numbered and last so long.
async fn github(seconds: i64) -> Fake {
    let count = AtomicUsize::new(0);
    Fake::start(move |_| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let expires_at = Utc::now().timestamp() + seconds;
        let answer = json!({
            "token": format!("tid={number}"), "expires_at": expires_at, "refresh_in": seconds - 60,
            "endpoints": {"api": "https://api.individual.githubcopilot.com", "proxy": "x"},
        });
        (200, answer.to_string())
    })
    .await
}

#[tokio::test]
async fn a_token_is_exchanged_once_for_all_and_again_before_it_ends() {
    let (github, client) = (github(1_800).await, client());
    let copilot = copilot(&github);
    let all = (0..20).map(|_| copilot.access(&client));
    let all = futures_util::future::join_all(all).await;
    assert!(all.iter().all(|access| bearer(access.as_ref().unwrap()) == "Bearer tid=0"));
    let asked = github.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].method, Method::GET);
    assert_eq!(asked[0].path, "/copilot_internal/v2/token");
    assert_eq!(asked[0].header("authorization"), "token ghu_secret");
    assert_eq!(asked[0].header("user-agent"), "GitHubCopilotChat/0.35.0");
    let access = all[0].as_ref().unwrap();
    let address = access.address.as_ref().unwrap();
    let generate = "https://api.individual.githubcopilot.com/chat/completions";
    assert_eq!(address.generate.to_string(), generate);
    let names: Vec<&str> = access.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"copilot-integration-id") && names.contains(&"editor-version"));
    assert!(access.headers[0].1.is_sensitive() && !format!("{copilot:?}").contains("ghu"));

    // Copilot refuses it: another one is got, once.
    copilot.refused(access);
    assert_eq!(bearer(&copilot.access(&client).await.unwrap()), "Bearer tid=1");
    copilot.refused(access);
    assert_eq!(bearer(&copilot.access(&client).await.unwrap()), "Bearer tid=1");

    // Minutes before the end it counts as over, and stays good in case no other can be got.
    let token = copilot.current.load_full().unwrap();
    let left = token.until - Instant::now();
    assert!(left > Duration::from_secs(1_480) && left <= Duration::from_secs(1_500), "{left:?}");
}

#[tokio::test]
async fn an_old_token_does_while_github_is_away() {
    let (github, client) = (github(1_800).await, client());
    let copilot = copilot(&github);
    copilot.access(&client).await.unwrap();
    let token = copilot.current.load_full().unwrap();
    let due = |end: Instant| {
        let access = token.access.clone();
        copilot.current.store(Some(Arc::new(Token { access, until: Instant::now(), end })));
    };
    drop(github);
    due(Instant::now() + Duration::from_secs(60));
    assert_eq!(bearer(&copilot.access(&client).await.unwrap()), "Bearer tid=0");
    due(Instant::now());
    let error = copilot.access(&client).await.unwrap_err();
    assert!(error.starts_with("can't exchange its token: 127.0.0.1 can't be asked"), "{error}");
}

#[tokio::test]
async fn refusals_say_what_to_do_and_show_nothing() {
    let refuse = Fake::start(|_| (401, r#"{"message":"Bad credentials ghu_secret"}"#.to_owned()));
    let refuse = refuse.await;
    let error = copilot(&refuse).access(&client()).await.unwrap_err();
    assert!(
        error.contains("401") && error.contains("A_TOKEN") && !error.contains("ghu"),
        "{error}"
    );
    let odd = Fake::start(|_| (200, r#"{"token":"tid=secret","expires_at":"x"}"#.to_owned())).await;
    let error = copilot(&odd).access(&client()).await.unwrap_err();
    assert!(error.contains("another form") && !error.contains("secret"), "{error}");
}
