//! One process of a program: started as the leader of a group, fed on standard input, read line by line,
//! and killed with everything that it started when it is dropped.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{ChildStderr, ChildStdout, Command},
    sync::OwnedSemaphorePermit,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Failed,
    format::{Event, Reader},
};
use crate::process_group::Group;

/// Longest line that is read.
const LINE: usize = 8 * 1024 * 1024;
/// How much a program may print for one answer.
const OUTPUT: usize = 64 * 1024 * 1024;
/// How much of its complaints is kept: the end of it.
const COMPLAINTS: usize = 4 * 1024;
/// How long its last words may take after its end: so often so long. Not in one piece, because after a time
/// in which this thread did not run the clock would be looked at first, and then the pipe.
const LAST_WORDS: (u32, Duration) = (10, Duration::from_millis(50));
/// How long a program may take to end after it closed its output.
const EXIT: Duration = Duration::from_secs(2);

/// A process at work on one answer.
#[derive(Debug)]
pub(super) struct Process {
    output: BufReader<ChildStdout>,
    events: VecDeque<Event>,
    printed: usize,
    complaints: Arc<Mutex<Vec<u8>>>,
    end: Instant,
    limit: Duration,
    /// Feeds it and listens to its complaints; ends with it.
    pipes: JoinSet<()>,
    group: Group,
    /// Its folder, which goes with it.
    _folder: TempDir,
    /// Its place among those that may run.
    _place: OwnedSemaphorePermit,
}

/// What a program is given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Task {
    /// Its options.
    pub(super) options: Vec<String>,
    /// What it reads on standard input.
    pub(super) input: Vec<u8>,
    /// What lies in the folder that it works in.
    pub(super) files: Vec<(String, Vec<u8>)>,
}

/// What comes next of an answer.
#[derive(Debug)]
pub(super) enum Step {
    /// This.
    Event(Event),
    /// Nothing more: it failed.
    Failed(Failed),
}

impl Process {
    /// Starts a program at a task. It has `limit` for its whole answer.
    pub(super) fn start(
        program: &OsStr,
        environment: &[(OsString, OsString)],
        task: Task,
        (limit, place): (Duration, OwnedSemaphorePermit),
    ) -> io::Result<Self> {
        let Task { options, input, files } = task;
        let folder = tempfile::Builder::new().prefix("evo-gateway-").tempdir()?;
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes)?;
        }
        let mut child = command(program, &options, environment, &folder)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let group = Group::of(child);
        let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return Err(io::Error::other("its standard streams are not there"));
        };
        let complaints = Arc::new(Mutex::new(Vec::new()));
        let mut pipes = JoinSet::new();
        pipes.spawn(async move {
            // A program that does not read it all may answer all the same.
            if let Err(error) = stdin.write_all(&input).await {
                tracing::debug!(%error, "A program did not take its whole input: {error}");
            }
        });
        pipes.spawn(listen(stderr, complaints.clone()));
        Ok(Self {
            output: BufReader::new(stdout),
            events: VecDeque::new(),
            printed: 0,
            complaints,
            end: Instant::now() + limit,
            limit,
            pipes,
            group,
            _folder: folder,
            _place: place,
        })
    }

    /// What comes next. After the end of an answer, or a failure, it is not asked again.
    pub(super) async fn next(&mut self, reader: &mut Reader) -> Step {
        let end = self.end;
        timeout_at(end, self.step(reader)).await.unwrap_or_else(|_| {
            let what = format!("it took longer than {} s for its answer", self.limit.as_secs());
            Step::Failed(Failed::new(Some(504), what))
        })
    }

    async fn step(&mut self, reader: &mut Reader) -> Step {
        loop {
            match self.events.pop_front() {
                Some(Event::Failed(failed)) => return Step::Failed(failed),
                Some(event) => return Step::Event(event),
                None => {}
            }
            let mut line = Vec::new();
            match read_line(&mut self.output, &mut line).await {
                Ok(0) => return Step::Failed(self.ended().await),
                Ok(length) => self.printed += length,
                Err(error) => {
                    let what = format!("its output can't be read: {error}");
                    return Step::Failed(Failed::new(None, what));
                }
            }
            if self.printed > OUTPUT {
                return Step::Failed(Failed::new(None, "it printed more than 64 MiB"));
            }
            self.events.extend(reader.read(&line));
        }
    }

    /// Why it ended without an answer.
    async fn ended(&mut self) -> Failed {
        let status = self.group.exit(EXIT).await;
        // Its last words. What it started may keep the pipe open.
        let (mut turns, turn) = LAST_WORDS;
        while turns > 0 {
            match timeout(turn, self.pipes.join_next()).await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => turns -= 1,
            }
        }
        if turns == 0 {
            tracing::debug!("A program ended ({status}) and left its pipes to another one");
        }
        let complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&complaints);
        let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        let what = match last {
            Some(last) => format!("it ended without an answer ({status}): {last}"),
            None => format!("it ended without an answer ({status})"),
        };
        Failed::new(None, what)
    }
}

/// What a program prints for these arguments.
pub(super) async fn output(
    program: &OsStr,
    arguments: &[&str],
    environment: &[(OsString, OsString)],
    limit: Duration,
) -> io::Result<Vec<u8>> {
    let folder = tempfile::Builder::new().prefix("evo-gateway-").tempdir()?;
    let mut child = command(program, arguments, environment, &folder)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = child.stdout.take();
    let mut group = Group::of(child);
    let mut printed = Vec::new();
    let work = async {
        if let Some(stdout) = stdout {
            stdout.take(OUTPUT as u64).read_to_end(&mut printed).await?;
        }
        Ok::<_, io::Error>(group.exit(EXIT).await)
    };
    let status = timeout(limit, work).await??;
    if status == "status 0" {
        Ok(printed)
    } else {
        Err(io::Error::other(format!("it ended with {status}")))
    }
}

fn command(
    program: &OsStr,
    arguments: &[impl AsRef<OsStr>],
    environment: &[(OsString, OsString)],
    folder: &TempDir,
) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().cloned())
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// Reads a line with its end, at most [`LINE`] bytes.
async fn read_line(
    output: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> io::Result<usize> {
    let mut limited = output.take(LINE as u64);
    let length = limited.read_until(b'\n', line).await?;
    if length == LINE && line.last() != Some(&b'\n') {
        return Err(io::Error::other("it has a line of more than 8 MiB"));
    }
    Ok(length)
}

async fn listen(mut stderr: ChildStderr, complaints: Arc<Mutex<Vec<u8>>>) {
    let mut piece = [0; 1024];
    while let Ok(length @ 1..) = stderr.read(&mut piece).await {
        let mut kept = complaints.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&piece[..length]);
        let surplus = kept.len().saturating_sub(COMPLAINTS);
        kept.drain(..surplus);
    }
}
