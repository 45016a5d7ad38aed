//! Configured commands: a program by name, without a shell, with nothing of king's environment.

use std::{process::Stdio, time::Duration};

use evo_common::{messages::TaskOutput, runtime::OnError};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::{Instant, timeout_at},
};

use super::{Begun, Debug, Error, Shown, book};
use crate::child::{Child, Program};

/// Where a command finds other programs.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Most bytes of output that are kept and shown.
const MAX_OUTPUT: usize = 64 * 1024;
/// Most bytes that are read at once.
const BUFFER: usize = 8 * 1024;
/// How long what a command left behind may go on writing.
const LINGER: Duration = Duration::from_millis(500);

/// How a command ended.
#[derive(Debug)]
struct Ended {
    exit_code: Option<i32>,
    output: String,
    is_cut: bool,
    failed: Option<String>,
}

impl Debug {
    /// Begins a configured command.
    pub(crate) async fn command(
        &self,
        name: &str,
        request_id: Option<String>,
    ) -> Result<Begun, Error> {
        let commands = &self.parts.config.commands;
        if commands.is_empty() {
            return Err(Error::NotEnabled);
        }
        let Some(argv) = commands.get(name) else {
            let known = commands.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Error::UnknownCommand { name: name.to_owned(), known });
        };
        let Ok(place) = self.parts.places.clone().try_acquire_owned() else {
            return Err(Error::Busy(format!("{} commands", super::COMMANDS)));
        };
        let request_id =
            request_id.unwrap_or_else(|| format!("debug-{}", uuid::Uuid::now_v7().simple()));
        let about = json!({"request_id": request_id, "command": name});
        let summary = format!("The command {name}");
        let task_id = self.parts.book.begin(book::COMMAND, &summary, about.clone()).await?;
        let begun = Begun { request_id, task_id };
        let (this, argv, work) = (self.clone(), argv.clone(), begun.clone());
        self.parts.commands.spawn("debug command", OnError::Log, async move {
            let started = Instant::now();
            let ended = this.execute(&argv, &work).await;
            drop(place);
            let latency_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            let mut payload = about;
            let (output, is_whole) = book::kept(&ended.output);
            payload["result"] = json!({
                "exit_code": ended.exit_code, "output": output,
                "is_cut": ended.is_cut || !is_whole, "latency_ms": latency_ms,
            });
            let failed = ended.failed.or_else(|| match ended.exit_code {
                Some(0) => None,
                Some(code) => Some(format!("it ended with exit code {code}")),
                None => Some("a signal ended it".to_owned()),
            });
            if let Some(failed) = &failed {
                payload["error"] = json!(failed);
            }
            this.end(&work.task_id, failed.is_some(), payload).await;
            Ok(())
        });
        Ok(begun)
    }

    async fn execute(&self, argv: &[String], begun: &Begun) -> Ended {
        let not_begun = |error: std::io::Error| Ended {
            exit_code: None,
            output: String::new(),
            is_cut: false,
            failed: Some(format!("it could not be started: {error}")),
        };
        let program = Program {
            command: argv.iter().map(Into::into).collect(),
            environment: vec![("PATH".into(), PATH.into())],
            folder: "/".into(),
            stdout: Stdio::piped(),
            stderr: Stdio::piped(),
        };
        let mut child = match self.parts.launcher.spawn_plainly(program).await {
            Ok(child) => child,
            Err(error) => return not_begun(error),
        };
        let mut output =
            Output { debug: self, begun, text: String::new(), pieces: 0, is_cut: false };
        let limit = Duration::from_millis(self.parts.config.timeout_ms);
        let watched = self.watch(&mut child, &mut output, Instant::now() + limit).await;
        // And everything that it started.
        drop(child);
        output.piece(String::new(), true);
        let Output { text, is_cut, .. } = output;
        let (exit_code, failed) = match watched {
            Ok(status) => (status.code(), None),
            Err(reason) => (None, Some(reason)),
        };
        Ended { exit_code, output: text, is_cut, failed }
    }

    /// Passes the output on until the command has ended; the error says why it was stopped.
    async fn watch(
        &self,
        child: &mut Child,
        output: &mut Output<'_>,
        until: Instant,
    ) -> Result<std::process::ExitStatus, String> {
        let mut pipes = [
            Pipe::new(child.stdout.take().expect("it was piped")),
            Pipe::new(child.stderr.take().expect("it was piped")),
        ];
        let mut until = until;
        let mut status = None;
        let cancel = self.parts.commands.token().clone();
        loop {
            let [stdout, stderr] = &mut pipes;
            if status.is_some() && stdout.ended && stderr.ended {
                break;
            }
            let step = async {
                tokio::select! {
                    text = stdout.read(), if !stdout.ended => Some(text),
                    text = stderr.read(), if !stderr.ended => Some(text),
                    ended = child.wait(), if status.is_none() => {
                        status = Some(ended);
                        None
                    }
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return Err("king ended before it did".to_owned()),
                step = timeout_at(until, step) => match step {
                    Ok(Some(text)) => output.add(&text),
                    // Whatever it left behind may hold the pipes open.
                    Ok(None) => until = until.min(Instant::now() + LINGER),
                    Err(_) if status.is_some() => break,
                    Err(_) => {
                        let ms = self.parts.config.timeout_ms;
                        return Err(format!("it was stopped after {ms} ms (debug.timeout_ms)"));
                    }
                },
            }
        }
        match status {
            Some(Ok(status)) => Ok(status),
            Some(Err(error)) => Err(format!("how it ended is not known: {error}")),
            None => Err("how it ended is not known".to_owned()),
        }
    }
}

/// One end of a pipe, as text.
struct Pipe<R> {
    pipe: R,
    /// The beginning of a character whose rest has not come.
    half: Vec<u8>,
    buffer: Vec<u8>,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Pipe<R> {
    fn new(pipe: R) -> Pipe<Box<dyn AsyncRead + Unpin + Send>>
    where
        R: Send + 'static,
    {
        Pipe { pipe: Box::new(pipe), half: Vec::new(), buffer: vec![0; BUFFER], ended: false }
    }

    async fn read(&mut self) -> String {
        match self.pipe.read(&mut self.buffer).await {
            Ok(0) | Err(_) => {
                self.ended = true;
                String::from_utf8_lossy(&std::mem::take(&mut self.half)).into_owned()
            }
            Ok(read) => {
                self.half.extend_from_slice(&self.buffer[..read]);
                let whole = match std::str::from_utf8(&self.half) {
                    Err(error) if error.error_len().is_none() => error.valid_up_to(),
                    _ => self.half.len(),
                };
                let text = String::from_utf8_lossy(&self.half[..whole]).into_owned();
                self.half.drain(..whole);
                text
            }
        }
    }
}

/// What a command writes.
struct Output<'d> {
    debug: &'d Debug,
    begun: &'d Begun,
    text: String,
    pieces: u32,
    is_cut: bool,
}

impl Output<'_> {
    fn add(&mut self, text: &str) {
        let left = MAX_OUTPUT.saturating_sub(self.text.len());
        let text = if text.len() <= left {
            text
        } else {
            self.is_cut = true;
            &text[..text.floor_char_boundary(left)]
        };
        if !text.is_empty() {
            self.text.push_str(text);
            self.piece(text.to_owned(), false);
        }
    }

    fn piece(&mut self, delta: String, is_final: bool) {
        let piece = TaskOutput {
            task_id: self.begun.task_id.clone(),
            request_id: self.begun.request_id.clone(),
            source: "pty".to_owned(),
            delta,
            chunk_index: self.pieces,
            is_final,
        };
        self.pieces += 1;
        self.debug.show(Shown::Piece(piece.into()));
    }
}
