//! Sessions: programs in terminals that an operator runs from afar, such as an assistant of which one
//! wants to see the screen.
//!
//! There are none unless `sessions.toml` turns them on. They run commands that this file names and no
//! others, for bearers of the operator's token only.

pub(crate) mod config;
mod keys;
pub(crate) mod socket;
mod terminal;

use std::{
    collections::HashMap,
    ffi::OsString,
    num::NonZeroU16,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use tokio::{
    sync::{broadcast, mpsc},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use config::SessionsConfig;
use terminal::{End, Screen, Terminal};

/// How many pieces of input may wait for a program.
const INPUT: usize = 64;
/// Largest piece of input.
const INPUT_SIZE: usize = 64 * 1024;
/// How long an ended session can still be looked at.
const KEPT: Duration = Duration::from_secs(60);
/// How many lines may wait to be told.
const TOLD: usize = 4_096;
/// Rows and columns of a terminal unless somebody wants others.
const SIZE: (u16, u16) = (24, 80);
/// How many rows or columns a terminal may have.
const LARGEST: u16 = 500;

/// Why something was not done: a stable code and a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Stable.
    pub(crate) code: &'static str,
    /// What is wrong and what to do.
    pub(crate) message: String,
}

impl Refused {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Something that followers of a session are told.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Whose it is.
    pub(crate) session: Arc<str>,
    /// `session:output` or `session:status`.
    pub(crate) event: &'static str,
    /// What it says.
    pub(crate) payload: Value,
}

/// What somebody asks for who wants a session.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// A command's name.
    pub(crate) command: String,
    /// Rows of its terminal.
    pub(crate) rows: Option<u16>,
    /// Columns of its terminal.
    pub(crate) columns: Option<u16>,
    /// The connection with which it ends, if it is to end with one.
    pub(crate) owner: Option<String>,
}

/// All sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    config: SessionsConfig,
    environment: Vec<(OsString, OsString)>,
    running: Mutex<Running>,
    told: broadcast::Sender<Told>,
}

#[derive(Debug, Default)]
struct Running {
    sessions: HashMap<Arc<str>, Session>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Session {
    command: String,
    owner: Option<String>,
    created_at: DateTime<Utc>,
    screen: Arc<Screen>,
    input: mpsc::Sender<Vec<u8>>,
    end: CancellationToken,
    /// `running`, `exited`, `killed` or `idle`.
    status: &'static str,
}

impl Sessions {
    /// None yet. `environment` is what every program gets.
    pub(crate) fn new(config: SessionsConfig, environment: Vec<(OsString, OsString)>) -> Arc<Self> {
        let running = Mutex::default();
        Arc::new(Self { config, environment, running, told: broadcast::Sender::new(TOLD) })
    }

    /// What followers are told from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Told> {
        self.told.subscribe()
    }

    /// Starts a session and gives its id. `joined` is called with the id before the program starts, so
    /// that whoever follows from then on misses nothing.
    pub(crate) fn create(
        self: &Arc<Self>,
        wanted: Wanted,
        joined: impl FnOnce(&str),
    ) -> Result<String, Refused> {
        let command = self.config.commands.get(&wanted.command).ok_or_else(|| {
            let names: Vec<&str> = self.config.commands.keys().map(String::as_str).collect();
            Refused::new(
                "unknown_command",
                format!(
                    "there is no command {:?}; sessions.toml has {}",
                    wanted.command,
                    names.join(", ")
                ),
            )
        })?;
        let size = (size("rows", wanted.rows, SIZE.0)?, size("cols", wanted.columns, SIZE.1)?);
        let mut environment = self.environment.clone();
        environment.push(("TERM".into(), "xterm-256color".into()));
        let own = command.env.iter().map(|(name, value)| (name.into(), value.into()));
        environment.extend(own);
        let home = self.environment.iter().find(|(name, _)| name == "HOME").map(|(_, home)| home);
        let folder = command.folder.as_deref().or(home.map(AsRef::as_ref));
        let idle = Duration::from_secs(self.config.idle_seconds);

        let mut running = self.running();
        let count = running.sessions.values().filter(|session| session.status == "running").count();
        if count >= self.config.max {
            let most = self.config.max;
            let message = format!("{most} sessions run, and more may not; kill one first");
            return Err(Refused::new("too_many_sessions", message));
        }
        let id = format!("evo-gw-{}-{:08x}", wanted.command, rand::random::<u32>());
        let id: Arc<str> = id.into();
        joined(&id);
        let terminal = Terminal::start(&command.command, environment, folder, size, idle);
        let terminal = terminal.map_err(|error| {
            let message = format!("the command {:?} can't be run: {error}", wanted.command);
            Refused::new("session_not_started", message)
        })?;
        let (input, received) = mpsc::channel(INPUT);
        let session = Session {
            command: wanted.command,
            owner: wanted.owner,
            created_at: Utc::now(),
            screen: Arc::new(Screen::new(size.0, size.1)),
            input,
            end: CancellationToken::new(),
            status: "running",
        };
        let (screen, end) = (session.screen.clone(), session.end.clone());
        running.sessions.insert(id.clone(), session);
        while running.tasks.try_join_next().is_some() {}
        let (sessions, name) = (self.clone(), id.clone());
        running.tasks.spawn(async move {
            let tell = |line: String| sessions.tell_line(&name, &line, false);
            let status = tokio::select! {
                ended = terminal.run(&screen, received, tell) => match ended {
                    End::Exited(how) => {
                        sessions.tell_line(&name, &format!("[ended: {how}]"), true);
                        "exited"
                    }
                    End::Idle => {
                        sessions.tell_line(&name, "[ended: nothing happened for too long]", true);
                        "idle"
                    }
                },
                () = end.cancelled() => {
                    sessions.tell_line(&name, "[killed]", true);
                    "killed"
                }
            };
            sessions.ended(&name, status);
            sleep(KEPT).await;
            sessions.running().sessions.remove(&name);
        });
        drop(running);
        self.tell(&id, "session:status", json!({ "session_id": &*id, "status": "running" }));
        Ok(id.to_string())
    }

    /// Sends a program input as it is; a line break is the key Enter.
    pub(crate) fn input(&self, id: &str, text: &str) -> Result<(), Refused> {
        self.send(id, text.replace("\r\n", "\r").replace('\n', "\r").into_bytes())
    }

    /// Sends a program keys by their names.
    pub(crate) fn keys(&self, id: &str, names: &str) -> Result<(), Refused> {
        let bytes = keys::bytes(names).map_err(|why| Refused::new("invalid_keys", why))?;
        self.send(id, bytes)
    }

    fn send(&self, id: &str, bytes: Vec<u8>) -> Result<(), Refused> {
        if bytes.len() > INPUT_SIZE {
            let message = "`input` has more than 64 KiB; send it in pieces";
            return Err(Refused::new("input_too_large", message));
        }
        let running = self.running();
        let session = running.sessions.get(id).ok_or_else(|| unknown(id))?;
        if session.status != "running" {
            let message = format!("the session {id:?} has ended ({})", session.status);
            return Err(Refused::new("session_ended", message));
        }
        session.input.try_send(bytes).map_err(|_| {
            let message = "the program has not taken its earlier input yet; try again";
            Refused::new("input_full", message)
        })
    }

    /// What stands on a session's screen.
    pub(crate) fn capture(&self, id: &str) -> Result<String, Refused> {
        let screen = self.running().sessions.get(id).map(|session| session.screen.clone());
        Ok(screen.ok_or_else(|| unknown(id))?.contents())
    }

    /// Whether there is such a session.
    pub(crate) fn knows(&self, id: &str) -> Result<(), Refused> {
        if self.running().sessions.contains_key(id) { Ok(()) } else { Err(unknown(id)) }
    }

    /// Ends a session and all that runs in it.
    pub(crate) fn kill(&self, id: &str) -> Result<(), Refused> {
        let running = self.running();
        running.sessions.get(id).ok_or_else(|| unknown(id))?.end.cancel();
        Ok(())
    }

    /// Ends the sessions that were to end with a connection.
    pub(crate) fn left(&self, owner: &str) {
        for session in self.running().sessions.values() {
            if session.owner.as_deref() == Some(owner) {
                session.end.cancel();
            }
        }
    }

    /// All of them, oldest first.
    pub(crate) fn list(&self) -> Value {
        let running = self.running();
        let mut sessions: Vec<_> = running.sessions.iter().collect();
        sessions.sort_by_key(|(id, session)| (session.created_at, id.to_string()));
        let view = |(id, session): (&Arc<str>, &Session)| {
            json!({
                "session_id": &**id,
                "command": session.command,
                "provider": session.command,
                "mode": if session.owner.is_some() { "ephemeral" } else { "persistent" },
                "status": session.status,
                "created_at": session.created_at.to_rfc3339_opts(SecondsFormat::Secs, true),
            })
        };
        sessions.into_iter().map(view).collect()
    }

    fn ended(&self, id: &Arc<str>, status: &'static str) {
        if let Some(session) = self.running().sessions.get_mut(id) {
            session.status = status;
        }
        self.tell(id, "session:status", json!({ "session_id": &**id, "status": status }));
    }

    fn tell_line(&self, id: &Arc<str>, line: &str, is_final: bool) {
        let timestamp = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let payload = json!({
            "session_id": &**id, "line": line, "timestamp": timestamp, "is_final": is_final,
        });
        self.tell(id, "session:output", payload);
    }

    fn tell(&self, id: &Arc<str>, event: &'static str, payload: Value) {
        // Without followers nobody is told.
        self.told.send(Told { session: id.clone(), event, payload }).unwrap_or_default();
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(id: &str) -> Refused {
    let message = format!("there is no session {id:?}; session:list shows those there are");
    Refused::new("session_not_found", message)
}

fn size(field: &str, wanted: Option<u16>, usual: u16) -> Result<NonZeroU16, Refused> {
    let wanted = wanted.unwrap_or(usual);
    NonZeroU16::new(wanted).filter(|size| size.get() <= LARGEST).ok_or_else(|| {
        Refused::new("invalid_size", format!("`{field}`: use a number from 1 to {LARGEST}"))
    })
}

#[cfg(test)]
mod tests;
