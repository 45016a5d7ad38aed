//! The store over the remote protocol.

use std::time::Duration;

use tempfile::TempDir;

use super::{super::*, append, kinds, remote_stub::Stub};

async fn write(store: &Store, kind: &'static str) -> Result<i64> {
    store.write(async move |connection: &Connection| append(connection, kind).await).await
}

#[tokio::test]
async fn it_opens_writes_and_reads() {
    let folder = TempDir::new().unwrap();
    let stub = Stub::start(folder.path()).await;
    let store = Store::open(stub.database()).await.unwrap();
    assert_eq!(store.boots(), 1);
    let mut committed = store.committed();
    assert_eq!(write(&store, "a").await.unwrap(), 1);
    assert_eq!(*committed.borrow_and_update(), 1);
    let failed = write(&store, "fail").await;
    assert!(matches!(&failed, Err(Error::Corrupt(_))), "{failed:?}");
    let panicked: Result<()> = store
        .write(async |connection: &Connection| {
            append(connection, "lost").await?;
            panic!("on purpose")
        })
        .await;
    assert!(matches!(&panicked, Err(Error::Panicked(_))), "{panicked:?}");
    assert_eq!(write(&store, "b").await.unwrap(), 2);
    assert_eq!(kinds(&store).await, ["a", "b"]);
    assert_eq!(store.counts().await.unwrap().database_bytes, None);
    store.close().await;
    drop(store);

    let store = Store::open(stub.database()).await.unwrap();
    assert_eq!((store.boots(), *store.committed().borrow()), (2, 2));
    assert_eq!(kinds(&store).await, ["a", "b"]);
    // Streams are a server's connections, and it has few of them.
    assert_eq!(stub.streams(), 0);
}

#[tokio::test]
async fn a_wrong_token_and_a_missing_server_are_said_so() {
    let folder = TempDir::new().unwrap();
    let mut stub = Stub::start(folder.path()).await;
    let error = Store::open(stub.database_with("secret")).await.err().unwrap().to_string();
    assert!(error.contains("refused the token; set KING_DB_TOKEN"), "{error}");
    assert!(!error.contains("secret"), "{error}");
    stub.halt();
    let error = Store::open(stub.database()).await.err().unwrap().to_string();
    assert!(
        error.contains(&stub.database().describe()) && error.contains("KING_DB_URL"),
        "{error}"
    );
    assert!(!format!("{:?}", stub.database()).contains("the token"));
    let url = "libsql://user:secret@host:1/db?authToken=secret";
    assert_eq!(Database::parse(url, None).unwrap().describe(), "libsql://host:1/db");
}

#[tokio::test]
async fn streams_that_the_server_forgot_are_not_used_again() {
    let folder = TempDir::new().unwrap();
    let idle = Duration::from_millis(50);
    let stub = Stub::forgetting_after(folder.path(), idle).await;
    let store = Store::open(stub.database()).await.unwrap();
    for round in 1..4 {
        assert_eq!(write(&store, "a").await.unwrap(), round);
        assert_eq!(kinds(&store).await.len(), usize::try_from(round).unwrap());
        tokio::time::sleep(2 * idle).await;
    }
}

#[tokio::test]
async fn a_commit_that_fails_is_no_success() {
    let folder = TempDir::new().unwrap();
    let stub = Stub::start(folder.path()).await;
    let store = Store::open(stub.database()).await.unwrap();
    for statement in ["INSERT INTO events", "COMMIT"] {
        stub.fail_at(statement);
        let failed = write(&store, "lost").await;
        assert!(failed.is_err(), "{statement}");
        assert_eq!(*store.committed().borrow(), 0);
    }
    assert_eq!(write(&store, "kept").await.unwrap(), 1);
    assert_eq!(kinds(&store).await, ["kept"]);
}

#[tokio::test]
async fn a_server_that_is_away_for_a_moment_is_waited_for() {
    let folder = TempDir::new().unwrap();
    let mut stub = Stub::start(folder.path()).await;
    let store = Store::open(stub.database()).await.unwrap();
    assert_eq!(write(&store, "before").await.unwrap(), 1);
    stub.halt();
    let back = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        stub.resume();
    };
    let (written, read, ()) = tokio::join!(write(&store, "after"), kinds(&store), back);
    assert_eq!(written.unwrap(), 2);
    assert_eq!(read[0], "before");
    assert_eq!(kinds(&store).await, ["before", "after"]);
}
