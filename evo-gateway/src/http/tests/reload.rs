//! The configuration is swapped while requests are under way.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::serve::ListenerExt as _;
use evo_common::ids::sha256_hex;
use futures_util::stream;

use super::*;

const PIECES: usize = 20;

/// A provider that streams slowly, and counts the connections that were made to it.
async fn slow() -> (SocketAddr, Arc<AtomicUsize>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let listener = listener.tap_io(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let app = axum::Router::new().fallback(|request: Request<Body>| async move {
        if request.method() == Method::GET {
            return Response::new(Body::from(r#"{"data":[{"id":"listed"}]}"#));
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let asked: Value = serde_json::from_slice(&body).unwrap();
        if asked["stream"] != true {
            return Response::new(Body::from(r#"{"object":"chat.completion"}"#));
        }
        let pieces = stream::unfold(0, |number| async move {
            if number == PIECES {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, std::io::Error>(format!("data: {number}\n\n")), number + 1))
        });
        let answer = Response::builder().header("content-type", "text/event-stream");
        answer.body(Body::from_stream(pieces)).unwrap()
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (address, connections, tasks)
}

fn text_of(providers: &[Value]) -> String {
    json!({"server": {"host": "127.0.0.1", "port": 0}, "providers": providers}).to_string()
}

impl Bed {
    /// A gateway and its operator's token.
    async fn with_operator(config: Config) -> (Self, String) {
        let operator = config.auth.operator.as_ref().unwrap().expose().to_owned();
        (Self::start(config).await, operator)
    }

    async fn swap(&self, operator: &str, text: &str) -> Got {
        let request = Request::builder()
            .method("PUT")
            .uri(format!("http://{}/admin/config", self.address))
            .header("authorization", format!("Bearer {operator}"));
        self.send(request.body(Full::new(text.to_owned().into())).unwrap()).await
    }
}

#[tokio::test]
async fn no_request_notices_that_the_configuration_is_swapped() {
    let (address, connections, _provider) = slow().await;
    let at = format!("http://{address}/v1");
    let stays = provider_at(&at, "stays", OPENAI);
    let other = |number: usize| provider_at(&at, &format!("other-{number}"), OPENAI);
    let (bed, operator) = Bed::with_operator(config(std::slice::from_ref(&stays))).await;

    let done = AtomicBool::new(false);
    let swaps = async {
        let mut swaps = 0;
        while !done.load(Ordering::Relaxed) {
            swaps += 1;
            // Its place in the list changes too, and so do what surrounds it and the routes.
            let text = text_of(&[other(swaps), stays.clone(), other(swaps + 1)]);
            let got = bed.swap(&operator, &text).await;
            assert_eq!(got.status, 200, "{}", got.text());
            assert_eq!(got.json()["config_hash"], sha256_hex(text.as_bytes()));
        }
        swaps
    };
    let requests = async {
        for _ in 0..8 {
            let streams = (0..8).map(|_| async {
                let got = bed.chat(&streamed(chat("stays:m"))).await;
                assert_eq!((got.status, got.whole), (StatusCode::OK, true));
                assert_eq!(got.text().matches("data: ").count(), PIECES, "{}", got.text());
            });
            let plain = (0..40).map(|_| async {
                let got = bed.chat(&chat("stays:m")).await;
                assert_eq!(got.status, 200, "{}", got.text());
            });
            let streams = futures_util::future::join_all(streams);
            let plain = futures_util::future::join_all(plain);
            tokio::join!(streams, plain);
        }
        done.store(true, Ordering::Relaxed);
    };
    let (swaps, ()) = tokio::join!(swaps, requests);
    assert!(swaps > 20, "only {swaps} swaps");
    // 384 requests and hundreds of swaps later: connections were kept. Each thread has its own, and
    // lists of models are read over those of one more.
    let made = connections.load(Ordering::Relaxed);
    let threads = std::thread::available_parallelism().unwrap().get();
    assert!(made <= 48 * (threads + 1) + 16, "{made} connections after {swaps} swaps");
    bed.stop().await;
}

#[tokio::test]
async fn a_request_ends_with_the_provider_that_it_began_with() {
    let (address, _, _provider) = slow().await;
    let goes = provider_at(&format!("http://{address}/v1"), "goes", OPENAI);
    let new = Fake::says(200, &[], r#"{"from":"new"}"#).await;
    let (bed, operator) = Bed::with_operator(config(&[goes])).await;
    let request = bed.request("POST", "/v1/chat/completions");
    let body = Full::new(streamed(chat("goes:m")).to_string().into());
    let mut open = bed.open(request.body(body).unwrap()).await.into_body();
    open.frame().await.unwrap().unwrap();

    let text = text_of(&[new.provider("new", OPENAI)]);
    let taken = bed.swap(&operator, &text).await.json();
    assert_eq!(taken["providers"], json!(["new"]), "{taken}");
    assert_eq!(taken["restart_needed_for"], json!([]), "{taken}");
    assert_eq!(bed.chat(&chat("goes:m")).await.status, 404);
    assert_eq!(bed.chat(&chat("new:m")).await.json()["from"], "new");
    // New providers are asked for their models at once.
    let listed = async {
        while bed.get("/v1/models").await.json()["data"].as_array().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(GIVE_UP, listed).await.unwrap();

    let mut rest = Vec::new();
    while let Some(frame) = open.frame().await {
        rest.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.contains(&format!("data: {}", PIECES - 1)), "{rest}");
    bed.stop().await;
}

#[tokio::test]
async fn a_wrong_configuration_changes_nothing_and_names_every_key() {
    let fake = Fake::says(200, &[], "{}").await;
    let (bed, operator) = Bed::with_operator(config(&[fake.provider("p", OPENAI)])).await;
    let show = || bed.get("/admin/config");
    let before = show().await.json();
    assert_eq!((&before["providers"], &before["count"]), (&json!(["p"]), &json!(1)));
    assert!(before["since"].is_string() && before["config_hash"].as_str().unwrap().len() == 64);

    let mut wrong = fake.provider("p", OPENAI);
    wrong["base_url"] = "nonsense".into();
    wrong["modles"] = json!([]);
    let mut query = fake.provider("q", OPENAI);
    query["base_url"] = "http://x/v1?key=1".into();
    let table: [(String, &[&str], &str); 4] = [
        (text_of(&[wrong]), &["providers[0].base_url", "providers[0].modles"], "422"),
        (text_of(&[query]), &["providers[0].base_url"], "422"),
        ("providers = []".to_owned(), &["server"], "422"),
        ("{".to_owned(), &["configuration"], "422"),
    ];
    for (text, keys, status) in table {
        let got = bed.swap(&operator, &text).await;
        assert_eq!(got.status.as_str(), status, "{}", got.text());
        assert_eq!(got.json()["error"]["code"], "invalid_config");
        for key in keys {
            assert!(got.text().contains(key), "{key}: {}", got.text());
        }
    }
    assert_eq!(show().await.json(), before);

    // As TOML, for another address: taken, and told that the address stays.
    let toml = "providers = []\n[server]\nhost = \"127.0.0.1\"\nport = 8080\n";
    let taken = bed.swap(&operator, toml).await.json();
    assert_eq!(taken["restart_needed_for"], json!(["server"]), "{taken}");
    assert_eq!(taken["previous_hash"], before["config_hash"], "{taken}");
    assert_eq!(taken["config_hash"], sha256_hex(toml.as_bytes()), "{taken}");
    bed.stop().await;
}

#[tokio::test]
async fn only_the_operator_may_swap() {
    let fake = Fake::says(200, &[], "{}").await;
    let text = text_of(&[fake.provider("p", OPENAI)]);
    let (bed, _) = Bed::with_operator(config(&[])).await;
    let token = bed.token.clone();
    assert_eq!(bed.swap(&token, &text).await.status, 403);
    assert_eq!(bed.swap("nobody", &text).await.status, 401);
    assert_eq!(bed.get("/admin/config").await.json()["count"], 0);
    bed.stop().await;
}

#[tokio::test]
async fn a_rate_limit_is_not_filled_up_by_a_swap() {
    let fake = Fake::says(200, &[], "{}").await;
    let mut provider = fake.provider("p", OPENAI);
    provider["rate_limit"] = json!({"requests_per_minute": 1, "burst_size": 2});
    let (bed, operator) = Bed::with_operator(config(std::slice::from_ref(&provider))).await;
    assert_eq!(bed.chat(&chat("p:m")).await.status, 200);
    // The same limit in another configuration of the provider.
    provider["models"] = json!(["m"]);
    assert_eq!(bed.swap(&operator, &text_of(&[provider.clone()])).await.status, 200);
    assert_eq!(bed.chat(&chat("p:m")).await.status, 200);
    assert_eq!(bed.chat(&chat("p:m")).await.status, 429);
    provider["rate_limit"] = Value::Null;
    assert_eq!(bed.swap(&operator, &text_of(&[provider])).await.status, 200);
    assert_eq!(bed.chat(&chat("p:m")).await.status, 200);
    bed.stop().await;
}

/// A gateway whose file is read again, and who answers in it.
struct Filed {
    bed: Bed,
    folder: tempfile::TempDir,
}

impl Filed {
    async fn start(fake: &Fake, follow: crate::Follow) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = text_of(&[fake.provider("p", OPENAI)]);
        let config = Config {
            file: Some(folder.path().join("gateway.json")),
            follow,
            digest: sha256_hex(text.as_bytes()),
            ..config(&[fake.provider("p", OPENAI)])
        };
        std::fs::write(config.file.as_ref().unwrap(), text).unwrap();
        Self { bed: Bed::start(config).await, folder }
    }

    /// Puts another file in the place of the old one, as editors do.
    fn write(&self, text: &str) {
        let draft = self.folder.path().join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, self.folder.path().join("gateway.json")).unwrap();
    }

    async fn digest(&self) -> Value {
        self.bed.get("/admin/config").await.json()["config_hash"].clone()
    }

    /// Waits until this text runs.
    async fn runs(&self, text: &str) {
        let wanted = json!(sha256_hex(text.as_bytes()));
        let wait = async {
            while self.digest().await != wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(GIVE_UP, wait).await.expect("it was not taken over");
    }
}

async fn first_and_second() -> (Fake, Fake) {
    tokio::join!(
        Fake::says(200, &[], r#"{"from":"first"}"#),
        Fake::says(200, &[], r#"{"from":"second"}"#),
    )
}

#[tokio::test]
async fn the_file_is_read_again_when_it_changes_and_one_that_is_wrong_changes_nothing() {
    let (first, second) = first_and_second().await;
    let filed = Filed::start(&first, crate::Follow::OnChange).await;
    assert_eq!(filed.bed.chat(&chat("p:m")).await.json()["from"], "first");
    filed.write("{");
    let changed = text_of(&[second.provider("p", OPENAI)]);
    filed.write(&changed);
    filed.runs(&changed).await;
    assert_eq!(filed.bed.chat(&chat("p:m")).await.json()["from"], "second");
    filed.bed.stop().await;
}

#[tokio::test]
async fn a_hangup_has_the_file_read_again() {
    // From here on the signal ends no process.
    let kind = tokio::signal::unix::SignalKind::hangup();
    let mut hangup = tokio::signal::unix::signal(kind).unwrap();
    let (first, second) = first_and_second().await;
    let filed = Filed::start(&first, crate::Follow::OnHangup).await;
    let changed = text_of(&[second.provider("p", OPENAI)]);
    filed.write(&changed);
    assert_eq!(filed.bed.chat(&chat("p:m")).await.json()["from"], "first");
    // The first may come before the gateway listens for it.
    let raise = async {
        loop {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).unwrap();
            hangup.recv().await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = raise => {}
        () = filed.runs(&changed) => {}
    }
    assert_eq!(filed.bed.chat(&chat("p:m")).await.json()["from"], "second");
    filed.bed.stop().await;
}
