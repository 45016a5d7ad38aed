//! `evo mcp`: king's MCP server for clients that start a program and talk over its standard input and
//! output.
//!
//! Every line from the client goes to king's `/mcp`, and everything that king says comes back as a
//! line. Nothing is understood here but what the way needs: sessions, which are begun anew when king
//! was restarted, and which answers are still missing.

mod link;
mod sse;

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use evo_common::{
    runtime::shutdown_on_signals,
    tokens::{Scope, Secret, Tokens},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use self::link::{Link, Place};
use crate::{
    cli::McpArgs,
    config,
    stop::{Result, Stop},
};

/// Longest line, as king takes it.
const MAX_LINE: u64 = 1024 * 1024;
/// Lines that wait for a client that does not read.
const LINES: usize = 256;
/// JSON-RPC: what was sent is no JSON.
const PARSE_ERROR: i64 = -32_700;
/// JSON-RPC: the server can't be reached, or refuses.
const SERVER_ERROR: i64 = -32_000;

/// Serves until standard input ends.
pub(super) async fn run(args: McpArgs) -> Result<()> {
    let data = config::data_folder(args.data.data.clone(), config::env)?;
    let named = match (&args.king, &args.data.data) {
        (Some(king), _) => Some(king.clone()),
        (None, None) => config::env("KING_ADDRESS"),
        (None, Some(_)) => None,
    };
    let (shutdown, place) = (
        shutdown_on_signals().context("can't listen for signals")?,
        Place { named, data, bundle: args.bundle },
    );
    let token = token(args.token_file, &place)?;
    let (out, lines) = mpsc::channel(LINES);
    let link = Arc::new(Link::new(place, token, out.clone()).context("no HTTP client")?);
    let mut tasks = JoinSet::new();
    let writer = tasks.spawn(write(lines));
    let serve = Bridge { link: Arc::clone(&link), out, tasks, under_way: HashMap::new() }.serve();
    let result = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        result = serve => result.context("standard input can't be read").map_err(Stop::from),
    };
    link.end().await;
    writer.abort();
    result
}

/// The invoke token: its variable, else the file that was named, else that of the data folder.
fn token(file: Option<PathBuf>, place: &Place) -> Result<Secret> {
    if let (None, Some(token)) = (&file, config::env(Scope::Invoke.variable())) {
        return Ok(Secret::new(token));
    }
    let file = match file {
        Some(file) => file,
        None => config::token_file(Some(&place.data), config::env)?,
    };
    let tokens = Tokens::load(&file, &config::env).map_err(|error| Stop::Usage(error.into()))?;
    Ok(tokens.invoke)
}

async fn write(mut lines: mpsc::Receiver<String>) {
    let mut out = tokio::io::stdout();
    while let Some(mut line) = lines.recv().await {
        line.push('\n');
        // A client that has closed its end is gone; standard input ends as well then.
        if out.write_all(line.as_bytes()).await.is_err() || out.flush().await.is_err() {
            return;
        }
    }
}

struct Bridge {
    link: Arc<Link>,
    out: mpsc::Sender<String>,
    tasks: JoinSet<()>,
    /// Requests without a session that are not answered yet: closing one cancels it.
    under_way: HashMap<String, AbortHandle>,
}

impl Bridge {
    async fn serve(mut self) -> std::io::Result<()> {
        let mut input = BufReader::new(tokio::io::stdin());
        loop {
            let mut line = Vec::new();
            let read = (&mut input).take(MAX_LINE + 1).read_until(b'\n', &mut line).await?;
            if read == 0 {
                return Ok(());
            }
            if line.len() as u64 > MAX_LINE {
                // What follows of the line is no message of its own.
                let message = format!("a message may have {MAX_LINE} bytes");
                self.say(&failure(&Value::Null, PARSE_ERROR, &message)).await;
                return Ok(());
            }
            while self.tasks.try_join_next().is_some() {}
            self.under_way.retain(|_, task| !task.is_finished());
            if !line.trim_ascii().is_empty() {
                self.take(&line).await;
            }
        }
    }

    async fn take(&mut self, line: &[u8]) {
        let message: Value = match serde_json::from_slice(line) {
            Ok(message) => message,
            Err(error) => {
                let message = format!("the line is no JSON: {error}");
                self.say(&failure(&Value::Null, PARSE_ERROR, &message)).await;
                return;
            }
        };
        let method = message.get("method").and_then(Value::as_str).unwrap_or_default().to_owned();
        let id = message.get("id").filter(|_| !method.is_empty()).cloned();
        let stateless = link::version_in(&message).is_some();
        if method == "notifications/cancelled"
            && let Some(request) = message.pointer("/params/requestId")
            && let Some(task) = self.under_way.remove(&request.to_string())
        {
            task.abort();
            return;
        }
        let Some(id) = id else {
            // In the order in which they came: what follows may rest on them.
            if let Err(error) = self.link.pass(&message).await {
                tracing::debug!(%error, "A notification did not reach king: {error}");
            }
            if method == "notifications/initialized" {
                let link = Arc::clone(&self.link);
                self.tasks.spawn(async move { link.listen().await });
            }
            return;
        };
        let (link, out) = (Arc::clone(&self.link), self.out.clone());
        let request = id.to_string();
        let ask = async move {
            if let Err(error) = link.ask(&message).await {
                let line = failure(&id, SERVER_ERROR, &error.to_string()).to_string();
                // Fails when the client is gone.
                out.send(line).await.unwrap_or_default();
            }
        };
        if method == "initialize" {
            return ask.await;
        }
        let task = self.tasks.spawn(ask);
        if stateless {
            self.under_way.insert(request, task);
        }
    }

    async fn say(&self, message: &Value) {
        // Fails when the client is gone.
        self.out.send(message.to_string()).await.unwrap_or_default();
    }
}

fn failure(id: &Value, code: i64, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
}
