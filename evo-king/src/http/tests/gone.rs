//! Callers that are gone before they are answered.

use std::{fs, future::poll_fn, path::PathBuf, pin::pin, task::Poll, time::Duration};

use evo_common::api::CreateToken;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    access::Identity,
    backup::{Places, WorkFile},
    config::Limits,
    store::AuditFilter,
};

const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Waits until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "never: {what}");
}

impl Server {
    fn operators(&self, method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
        let request = self.request(method, path);
        request.header("x-api-key", self.token(Scope::Operator)).body(body.into()).unwrap()
    }

    /// Sends a request and is gone before it can be answered.
    async fn abandon(&self, request: Request<Body>) {
        let mut sent = pin!(self.router.clone().oneshot(request));
        let answered = poll_fn(|cx| Poll::Ready(sent.as_mut().poll(cx).is_ready())).await;
        assert!(!answered, "it was answered at once");
    }

    async fn made_token(&self, name: &str) -> String {
        let wanted = CreateToken {
            name: name.to_owned(),
            scope: "viewer".to_owned(),
            roles: Vec::new(),
            expires_in_days: None,
        };
        self.king.keyring.create(wanted, "test").await.unwrap().token
    }

    /// What the audit log says was done: to what, and how it was answered.
    async fn audited(&self, action: &str) -> Vec<(String, u32)> {
        let filter = AuditFilter { limit: 100, cursor: None, token_id: None, since: None };
        let entries = self.king.store.audit_list(filter).await.unwrap().entries;
        let wanted = entries.into_iter().filter(|entry| entry.action == action);
        wanted.map(|entry| (entry.target, entry.status)).collect()
    }

    fn incoming(&self) -> Vec<PathBuf> {
        let folder = self.king.config.data.join("backup-incoming");
        let entries = fs::read_dir(folder).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

#[tokio::test]
async fn what_a_caller_began_is_done_as_a_whole_and_is_in_the_audit_log() {
    let server = Server::seeded().await;
    let token = server.made_token("lost").await;
    assert!(server.king.keyring.identify(Some(&token)).is_some());
    server.abandon(server.operators(Method::DELETE, "/tokens/lost", Body::empty())).await;
    let path = "/agents/evo-learning/model";
    server.abandon(server.operators(Method::PUT, path, r#"{"model": "m"}"#)).await;
    until("the token is refused", async || server.king.keyring.identify(Some(&token)).is_none())
        .await;
    until("the revocation is in the audit log", async || {
        server.audited("DELETE /tokens/{token_id}").await == [("/tokens/lost".to_owned(), 200)]
    })
    .await;
    until("the choice is in the audit log", async || {
        server.audited("PUT /agents/{agent_id}/model").await == [(path.to_owned(), 200)]
    })
    .await;
    let model = server.king.registry.model_of("evo-learning");
    assert_eq!(model.map(|model| model.model).as_deref(), Some("m"));
}

/// Whether a request is begun whose connection is closed at once is open; if it is, it is written down.
#[tokio::test]
async fn what_was_done_over_a_connection_that_was_closed_is_in_the_audit_log() {
    const CALLS: usize = 20;
    let server = Server::start().await;
    let mut tokens = Vec::new();
    for number in 0..CALLS {
        tokens.push(server.made_token(&format!("t{number}")).await);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (limits, stop) = (Limits::default(), Shutdown::new());
    let serve = serve(listener, server.router.clone(), &limits, stop.clone());
    let calls = async {
        for number in 0..CALLS {
            let mut connection = TcpStream::connect(address).await.unwrap();
            let operator = server.token(Scope::Operator);
            let head = format!(
                "DELETE /tokens/t{number} HTTP/1.1\r\nhost: {address}\r\nx-api-key: {operator}\r\n\r\n"
            );
            connection.write_all(head.as_bytes()).await.unwrap();
            if number % 2 == 0 {
                let begun = async || !server.king.requests.is_empty();
                tokio::time::timeout(LOOK_EVERY, until("it is begun", begun)).await.ok();
            }
        }
        stop.cancel();
    };
    tokio::join!(serve, calls);
    server.king.requests.close();
    server.king.requests.wait().await;
    let mut refused = Vec::new();
    for (number, token) in tokens.iter().enumerate() {
        if server.king.keyring.identify(Some(token)).is_none() {
            refused.push((format!("/tokens/t{number}"), 200));
        }
    }
    let mut audited = server.audited("DELETE /tokens/{token_id}").await;
    audited.reverse();
    refused.sort();
    audited.sort();
    assert_eq!(audited, refused);
    assert!(!refused.is_empty());
}

#[tokio::test]
async fn a_call_that_panics_is_in_the_audit_log() {
    async fn broken() -> &'static str {
        panic!("on purpose")
    }
    let server = Server::start().await;
    let router = Router::new()
        .route("/broken", axum::routing::post(broken))
        .layer(layer::from_fn_with_state(server.king.clone(), audit::audit))
        .layer(axum::Extension(Identity::open()));
    let request = Request::post("/broken").body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(server.audited("POST /broken").await, [("/broken".to_owned(), 500)]);
}

/// Random bytes, so that writing them takes a moment.
fn large_package() -> Vec<u8> {
    let content: Vec<u8> = (0..4_u32 << 20).map(|_| rand::random()).collect();
    artifact::pack(&artifact::Files::from([("data.bin".to_owned(), content)])).unwrap().1
}

#[tokio::test]
async fn a_backup_that_nobody_takes_leaves_nothing_and_keeps_the_lock_until_it_is_done() {
    let server = Server::start().await;
    server.king.artifacts.put(large_package().into()).await.unwrap();
    let request = server.operators(Method::POST, "/admin/backup", "{}");
    tokio::select! {
        answer = server.router.clone().oneshot(request) => panic!("{:?}", answer.unwrap().status()),
        () = until("the backup is being made", async || !server.incoming().is_empty()) => {}
    }
    let free = server.king.maintenance.try_lock().is_ok();
    assert!(!free || server.incoming().is_empty(), "the copy goes on without its lock");
    let lock = server.king.maintenance.lock().await;
    until("everything of it is gone", async || server.incoming().is_empty()).await;
    // Nothing comes later.
    drop(lock);
    server.king.requests.close();
    server.king.requests.wait().await;
    assert_eq!(server.incoming(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_restore_that_nobody_waits_for_happens_at_once_or_never() {
    let server = Server::start().await;
    let backup = server.post("/admin/backup", &json!({})).await;
    assert_eq!(backup.status, StatusCode::OK);
    let data = server.king.config.data.clone();
    let mark = data.join("restore/ready.json");
    // Cut in the upload: nothing.
    let (half, rest) = backup.body.split_at(backup.body.len() / 2);
    let half = Ok::<_, std::io::Error>(Bytes::copy_from_slice(half));
    let upload = futures_util::stream::iter([half]).chain(futures_util::stream::pending());
    let request = server.operators(Method::POST, "/admin/restore", Body::from_stream(upload));
    tokio::select! {
        answer = server.router.clone().oneshot(request) => panic!("{:?}", answer.unwrap().status()),
        () = until("half of it is there", async || !server.incoming().is_empty()) => {}
    }
    assert!(!rest.is_empty() && !mark.exists() && !server.king.restart.is_cancelled());
    // Gone after the upload: king starts anew on it, and not at some later time.
    let request = server.operators(Method::POST, "/admin/restore", backup.body.clone());
    tokio::select! {
        answer = server.router.clone().oneshot(request) => panic!("{:?}", answer.unwrap().status()),
        () = until("it is unpacked", async || data.join("restore").exists()) => {}
    }
    until("king starts anew", async || server.king.restart.is_cancelled()).await;
    assert!(mark.exists() && server.king.draining.is_cancelled());
    until("it is in the audit log", async || {
        server.audited("POST /admin/restore").await == [("/admin/restore".to_owned(), 202)]
    })
    .await;
}

#[tokio::test]
async fn a_restore_that_an_ending_king_has_unpacked_does_not_happen_at_the_next_start() {
    let server = Server::start().await;
    let backup = server.post("/admin/backup", &json!({})).await;
    let data = &server.king.config.data;
    let (places, file) = (Places::of(&server.king.config).unwrap(), WorkFile::new(data).unwrap());
    fs::write(&file.path, &backup.body).unwrap();
    server.king.shutdown.cancel();
    assert!(admin::restore(&server.king, &places, &file).await.is_err());
    assert!(data.join("restore").exists() && !server.king.restart.is_cancelled());
    assert_eq!(crate::backup::finish(&places).unwrap(), None);
    crate::backup::clean_up(data);
    assert!(!data.join("restore").exists());
}
