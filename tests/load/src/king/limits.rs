//! What the machine itself can do in the same minute: fsync'd commits through the same libSQL,
//! appends with fdatasync, round trips over a loopback websocket.

use std::{
    collections::BTreeMap, fs::File, io::Write as _, net::Ipv4Addr, path::Path, time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use libsql::params;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};
use tokio_tungstenite::{accept_async, client_async, tungstenite::Message};

use crate::stats::Latencies;

/// The size of a database page, and of what is appended.
const PAGE: usize = 4_096;
/// The length of a message over the websocket.
const MESSAGE: usize = 240;
/// Rows of the commit that shows what a group costs.
const GROUP: usize = 64;

/// What was measured, by name.
pub type Limits = BTreeMap<&'static str, f64>;

/// Measures everything, each for `length`.
pub async fn measure(folder: &Path, length: Duration) -> Result<Limits> {
    let mut limits = Limits::new();
    append(folder, length, &mut limits)?;
    commits(folder, length, 1, &mut limits).await?;
    commits(folder, length, GROUP, &mut limits).await?;
    for connections in [1, 64] {
        round_trips(length, connections, &mut limits).await?;
    }
    Ok(limits)
}

fn append(folder: &Path, length: Duration, limits: &mut Limits) -> Result<()> {
    let path = folder.join("append");
    let mut file = File::create(&path).with_context(|| path.display().to_string())?;
    let page = [7_u8; PAGE];
    let mut latencies = Latencies::default();
    let begun = Instant::now();
    let mut count = 0_u32;
    while begun.elapsed() < length {
        let before = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        latencies.record(before.elapsed());
        count += 1;
    }
    limits.insert("append_fdatasync_per_s", f64::from(count) / begun.elapsed().as_secs_f64());
    limits.insert("append_fdatasync_p50_ms", latencies.quantile_ms(0.5));
    Ok(())
}

/// Commits of so many rows each, as king's database is set up: WAL, `synchronous=FULL`.
async fn commits(folder: &Path, length: Duration, rows: usize, limits: &mut Limits) -> Result<()> {
    let database = libsql::Builder::new_local(folder.join(format!("{rows}.db"))).build().await?;
    let connection = database.connect()?;
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;
             CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT",
        )
        .await?;
    let insert = connection.prepare("INSERT INTO t (body) VALUES (?)").await?;
    let body = "x".repeat(200);
    let mut latencies = Latencies::default();
    let begun = Instant::now();
    let mut count = 0_u32;
    while begun.elapsed() < length {
        let before = Instant::now();
        connection.execute("BEGIN IMMEDIATE", ()).await?;
        for _ in 0..rows {
            insert.execute(params![body.as_str()]).await?;
            insert.reset();
        }
        connection.execute("COMMIT", ()).await?;
        latencies.record(before.elapsed());
        count += 1;
    }
    let rate = f64::from(count) / begun.elapsed().as_secs_f64();
    if rows == 1 {
        limits.insert("sqlite_full_commits_per_s", rate);
        limits.insert("sqlite_full_commit_p50_ms", latencies.quantile_ms(0.5));
    } else {
        limits.insert("sqlite_full_commits_of_64_rows_per_s", rate);
    }
    Ok(())
}

async fn round_trips(length: Duration, connections: usize, limits: &mut Limits) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    // On a thread of its own, as king is a process of its own.
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let listener = listener.into_std()?;
    let server = std::thread::Builder::new().name("echo".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            tokio::select! {
                ended = echo(listener) => ended,
                _ = stopped => Ok(()),
            }
        })
    })?;
    let mut tasks = JoinSet::new();
    let until = Instant::now() + length;
    for _ in 0..connections {
        tasks.spawn(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (mut socket, _) = client_async(format!("ws://{address}/"), stream).await?;
            let mut count = 0_u32;
            let mut latencies = Latencies::default();
            while Instant::now() < until {
                let before = Instant::now();
                socket.send(Message::text("x".repeat(MESSAGE))).await?;
                let answer = socket.next().await.context("the echo ended")??;
                ensure!(answer.is_text(), "not an echo");
                latencies.record(before.elapsed());
                count += 1;
            }
            Ok((count, latencies))
        });
    }
    let mut all = Latencies::default();
    let mut count = 0;
    while let Some(part) = tasks.join_next().await {
        let (part, latencies) = part??;
        count += part;
        all.add(&latencies);
    }
    // It may have ended by an error, which is told below.
    stop.send(()).unwrap_or_default();
    server.join().map_err(|_| anyhow::anyhow!("the echo panicked"))??;
    let rate = f64::from(count) / length.as_secs_f64();
    if connections == 1 {
        limits.insert("websocket_round_trips_per_s", rate);
        limits.insert("websocket_round_trip_p50_ms", all.quantile_ms(0.5));
    } else {
        limits.insert("websocket_round_trips_of_64_per_s", rate);
    }
    Ok(())
}

async fn echo(listener: std::net::TcpListener) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut tasks = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tasks.spawn(async move {
            let Ok(mut socket) = accept_async(stream).await else { return };
            while let Some(Ok(message)) = socket.next().await {
                if !message.is_text() || socket.send(message).await.is_err() {
                    return;
                }
            }
        });
    }
}
