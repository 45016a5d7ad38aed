//! The store over a database file.

pub(crate) mod plans;
#[cfg(feature = "remote")]
mod remote;
#[cfg(feature = "remote")]
pub(crate) mod remote_stub;
mod traces;

use std::{path::Path, pin::pin, sync::Arc};

use evo_common::clock::Timestamp;
use futures_util::{FutureExt, future::join_all};
use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::*;

async fn open(folder: &TempDir) -> Store {
    Store::open(Database::File(folder.path().join("king.db"))).await.unwrap()
}

/// Appends an event of this kind; an answer that begins with `fail` is an error.
async fn append(connection: &Connection, kind: &str) -> Result<i64> {
    let seq = events::append(connection, Timestamp(0), kind, None, None, &serde_json::Value::Null)
        .await?;
    if kind.starts_with("fail") { Err(Error::Corrupt(kind.to_owned())) } else { Ok(seq) }
}

async fn kinds(store: &Store) -> Vec<String> {
    let filter = EventFilter { after: 0, limit: 10_000, run_id: None, kind: None };
    let list = store.events_list(filter).await.unwrap();
    list.events.into_iter().map(|event| event.kind).collect()
}

/// The error of opening a database there.
async fn refusal(path: &Path) -> Error {
    Store::open(Database::File(path.to_owned())).await.err().unwrap()
}

#[tokio::test]
async fn a_failing_job_leaves_nothing_and_the_others_of_its_group_are_committed() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    // The writer is busy until the gate opens, so that what is queued meanwhile is one group.
    let (begun, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let mut first = {
        let (begun, gate) = (begun.clone(), gate.clone());
        pin!(store.write(async move |connection: &Connection| {
            let seq = append(connection, "first").await?;
            begun.add_permits(1);
            gate.acquire().await.unwrap().forget();
            Ok::<_, Error>(seq)
        }))
    };
    assert!(first.as_mut().now_or_never().is_none());
    begun.acquire().await.unwrap().forget();
    let mut jobs: Vec<_> = ["a", "fail b", "c", "panic d", "e"]
        .into_iter()
        .map(|kind| {
            let store = &store;
            Box::pin(store.write(async move |connection: &Connection| {
                let seq = append(connection, kind).await?;
                assert!(!kind.starts_with("panic"), "{kind}");
                Ok::<_, Error>(seq)
            }))
        })
        .collect();
    let seen = store.clone();
    let inside = store.write(async move |connection: &Connection| {
        let inside = row::number(connection, "SELECT COUNT(*) FROM events", ()).await?;
        Ok::<_, Error>((inside, kinds(&seen).await))
    });
    let mut inside = pin!(inside);
    for job in &mut jobs {
        assert!(job.as_mut().now_or_never().is_none());
    }
    assert!(inside.as_mut().now_or_never().is_none());

    gate.add_permits(1);
    assert_eq!(first.await.unwrap(), 1);
    let results = join_all(jobs).await;
    // The last of the group sees what the others wrote before it is committed.
    assert_eq!(inside.await.unwrap(), (4, vec!["first".to_owned()]));
    let texts: Vec<String> = results
        .into_iter()
        .map(|result| result.map_or_else(|error| error.to_string(), |seq| seq.to_string()))
        .collect();
    assert_eq!(
        texts,
        [
            "2",
            "the database holds a value that can't be read: fail b",
            "3",
            "work on the database panicked: panic d",
            "4"
        ]
    );
    assert_eq!(kinds(&store).await, ["first", "a", "c", "e"]);
}

#[tokio::test]
async fn a_panic_ends_neither_the_writer_nor_the_readers() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    for _ in 0..4 {
        let written: Result<()> = store
            .write(async |connection: &Connection| {
                append(connection, "lost").await?;
                panic!("on purpose")
            })
            .await;
        assert!(matches!(written, Err(Error::Panicked(message)) if message == "on purpose"));
        let read: Result<()> = store.read(async |_| panic!("{} purpose", "on")).await;
        assert!(matches!(read, Err(Error::Panicked(message)) if message == "on purpose"));
    }
    store.write(async |connection: &Connection| append(connection, "kept").await).await.unwrap();
    assert_eq!(kinds(&store).await, ["kept"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_announced_as_committed_can_be_read() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let mut committed = store.committed();
    let watch = async {
        let mut announced = 0;
        while announced < 100 {
            committed.changed().await.unwrap();
            let next = *committed.borrow_and_update();
            assert!(next > announced, "{next} after {announced}");
            announced = next;
            let last = store.read(async |connection| events::last_seq(connection).await).await;
            assert!(announced <= last.unwrap());
        }
    };
    let write = join_all((0..150).map(|number| {
        let store = &store;
        async move {
            let kind = if number % 3 == 0 { "fail" } else { "event" };
            let seq = store
                .write(async move |connection: &Connection| append(connection, kind).await)
                .await;
            if let Ok(seq) = seq {
                assert!(seq <= *store.committed().borrow(), "answered before it was announced");
            }
        }
    }));
    tokio::join!(watch, write);
    assert_eq!(kinds(&store).await.len(), 100);
}

#[tokio::test]
async fn opening_again_keeps_what_is_there_and_counts_the_start() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let key = store.split_key().to_vec();
    assert_eq!((store.boots(), key.len()), (1, 64));
    store.write(async |connection: &Connection| append(connection, "kept").await).await.unwrap();
    store.close().await;
    // The last checkpoint has moved everything into the database file.
    let log = folder.path().join("king.db-wal");
    assert_eq!(std::fs::metadata(log).map_or(0, |log| log.len()), 0);
    let closed =
        store.write(async |connection: &Connection| append(connection, "late").await).await;
    assert!(matches!(closed, Err(Error::Closed)), "{closed:?}");

    let store = open(&folder).await;
    assert_eq!((store.boots(), *store.committed().borrow()), (2, 1));
    assert_eq!(store.split_key(), key);
    assert_eq!(kinds(&store).await, ["kept"]);
}

/// Changes the table of migrations as no version of this program would.
async fn tamper(folder: &TempDir, sql: &str) {
    let path = folder.path().join("king.db");
    let database = libsql::Builder::new_local(path).build().await.unwrap();
    let connection = database.connect().unwrap();
    // The threads of the store that was closed may still be closing their connections.
    connection.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    connection.execute(sql, ()).await.unwrap();
}

#[tokio::test]
async fn databases_of_other_versions_are_refused() {
    let folder = TempDir::new().unwrap();
    open(&folder).await.close().await;
    tamper(&folder, "INSERT INTO migrations VALUES (99, 'x', 0)").await;
    let path = folder.path().join("king.db");
    let error = refusal(&path).await;
    assert!(matches!(&error, Error::Newer { found: 99, .. }), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");

    tamper(&folder, "DELETE FROM migrations WHERE number = 99").await;
    tamper(&folder, "UPDATE migrations SET checksum = 'x' WHERE number = 1").await;
    let error = refusal(&path).await;
    assert!(matches!(&error, Error::Migration { number: 1, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()) && text.contains("evo-king restore"), "{text}");
}

#[tokio::test]
async fn a_migration_that_is_applied_in_parts_is_refused() {
    // Its record is gone, or that of one before it.
    for (gone, wanted) in [(">= 2", "migration 2 can't be applied"), ("= 2", "migration 2 of")] {
        let folder = TempDir::new().unwrap();
        open(&folder).await.close().await;
        tamper(&folder, &format!("DELETE FROM migrations WHERE number {gone}")).await;
        let error = refusal(&folder.path().join("king.db")).await.to_string();
        assert!(error.contains(wanted) && error.contains("evo-king restore FILE"), "{error}");
    }
}

#[tokio::test]
async fn a_migration_that_fails_leaves_the_database_as_it_was() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    store.write(async |connection: &Connection| append(connection, "kept").await).await.unwrap();
    store.close().await;
    tamper(&folder, "DELETE FROM migrations WHERE number >= 2").await;
    // The first statement of the second migration works, the last one fails.
    tamper(&folder, "DROP TABLE traces").await;
    refusal(&folder.path().join("king.db")).await;
    let path = folder.path().join("king.db");
    let database = libsql::Builder::new_local(path).build().await.unwrap();
    let sql = "SELECT (SELECT COUNT(*) FROM sqlite_schema WHERE name = 'traces'),
        (SELECT MAX(number) FROM migrations), (SELECT COUNT(*) FROM events)";
    let mut rows = database.connect().unwrap().query(sql, ()).await.unwrap();
    let row = rows.next().await.unwrap().unwrap();
    let found: [i64; 3] = std::array::from_fn(|n| row.get(i32::try_from(n).unwrap()).unwrap());
    assert_eq!(found, [0, 1, 1]);
}

#[tokio::test]
async fn a_path_that_is_no_database_is_refused_with_its_name() {
    let folder = TempDir::new().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "no database at all, but long enough to have a header".repeat(9))
        .unwrap();
    let foreign = folder.path().join("foreign.db");
    let database = libsql::Builder::new_local(&foreign).build().await.unwrap();
    database.connect().unwrap().execute("CREATE TABLE runs (x)", ()).await.unwrap();
    let below = text.join("king.db");
    for (path, wanted) in [
        (folder.path(), "is a folder"),
        (text.as_path(), "not a database"),
        (foreign.as_path(), "table runs already exists"),
        (below.as_path(), "folder can't be made"),
        (Path::new("/proc/king.db"), "Unable to open"),
    ] {
        let error = refusal(path).await;
        assert!(matches!(&error, Error::Open { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains(wanted), "{text}");
    }
    assert!(std::fs::read_to_string(&text).unwrap().starts_with("no database"));
}

#[tokio::test]
async fn a_database_that_may_not_be_written_is_refused_with_its_name() {
    let folder = TempDir::new().unwrap();
    open(&folder).await.close().await;
    let path = folder.path().join("king.db");
    let mut permissions = std::fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&path, permissions).unwrap();
    if std::fs::File::options().write(true).open(&path).is_ok() {
        return; // The superuser may write everything.
    }
    let error = refusal(&path).await;
    assert!(
        matches!(&error, Error::Open { reason, .. } if reason.contains("readonly")),
        "{error:?}"
    );
}

#[test]
fn database_urls_are_read_by_scheme() {
    for url in ["file:data/king.db", "file://data/king.db", "data/king.db"] {
        let database = Database::parse(url, None).unwrap();
        assert_eq!(database.describe(), "data/king.db");
    }
    let error = Database::parse("postgres://user:secret@host/db", None).unwrap_err();
    assert!(error.contains("\"postgres\" is unknown") && !error.contains("secret"), "{error}");
}

#[cfg(not(feature = "remote"))]
#[test]
fn a_remote_database_needs_its_feature() {
    let error = Database::parse("libsql://host?authToken=secret", Some("token")).unwrap_err();
    assert!(error.contains("libsql://host") && error.contains("--features remote"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}
