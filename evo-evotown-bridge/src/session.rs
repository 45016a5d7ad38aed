//! Who we are at Evotown: the engine's token, how it is got and kept.
//!
//! Every registration replaces the engine's token, and with it whatever the last one set. So the
//! bridge registers only when it has no token, or after Evotown refused the one it had.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use evo_common::tokens::Secret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{sync::Mutex, time::Instant};

use crate::{
    client::{Client, Credential, Meaning, Unreachable},
    config::{Config, Link, Mode},
    payload::{ENGINE_TYPE, ENGINE_VERSION},
};

/// Two bridges with one engine id would take each other's token away in turn; a registration that
/// follows another one sooner than this waits.
const SOON: Duration = Duration::from_secs(600);
/// The first such pause; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(15);

/// The engine's token while it is good.
#[derive(Debug, Clone)]
pub(crate) struct Pass {
    /// What to call Evotown with.
    pub(crate) credential: Credential,
    /// Counts the tokens, so that one refusal is not taken for two.
    generation: u64,
}

/// Why there is no token, and when to ask again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoPass {
    /// For people, with what to do.
    pub(crate) reason: String,
    /// How long to wait; absent when Evotown is just away.
    pub(crate) pause: Option<Duration>,
}

/// Who we are at Evotown.
pub(crate) struct Session {
    client: Arc<Client>,
    link: Link,
    engine_id: String,
    file: PathBuf,
    longest_pause: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    credential: Option<Credential>,
    generation: u64,
    /// The configured token, until it was refused.
    configured: Option<Credential>,
    /// When this process registered last, and how often in a row soon after another time.
    registered: Option<Instant>,
    hurried: u32,
    blocked_until: Option<(Instant, String)>,
}

/// The token file. Without a token it says that the server gave none, so the one to register with is
/// the one to call with.
#[derive(Serialize, Deserialize)]
struct Stored {
    url: String,
    engine_id: String,
    token: Option<String>,
}

impl Session {
    pub(crate) fn new(client: Arc<Client>, config: &Config, engine_id: &str) -> Self {
        let configured = config.link.engine_token.clone().map(Credential::Bearer);
        let mut state = State { configured, ..State::default() };
        let file = config.token_file();
        if let Some(stored) = read(&file, &config.link)
            && stored.engine_id == engine_id
        {
            let given = stored.token.map(|token| Credential::Bearer(Secret::new(token)));
            state.credential = given.or_else(|| own(&config.link));
        }
        if config.link.signing.is_none() && state.credential.is_none() {
            state.credential = state.configured.take();
        }
        Self {
            client,
            link: config.link.clone(),
            engine_id: engine_id.to_owned(),
            file,
            longest_pause: config.timing.longest_pause,
            state: Mutex::new(state),
        }
    }

    /// The token; registers when there is none.
    pub(crate) async fn pass(&self) -> Result<Pass, NoPass> {
        let mut state = self.state.lock().await;
        if let Some(credential) = &state.credential {
            return Ok(Pass { credential: credential.clone(), generation: state.generation });
        }
        self.register(&mut state).await
    }

    /// Registers now, whatever there is. For the command `register`.
    pub(crate) async fn register_now(&self) -> Result<Pass, NoPass> {
        let mut state = self.state.lock().await;
        self.register(&mut state).await
    }

    /// Evotown refused this token. Whoever says so first makes it forgotten; the next call gets
    /// another one.
    pub(crate) async fn refused(&self, pass: &Pass, reason: &str) {
        let mut state = self.state.lock().await;
        if state.generation != pass.generation || state.credential.is_none() {
            return;
        }
        tracing::warn!("Evotown refuses the token of engine {}: {reason}", self.engine_id);
        let refused = state.credential.take();
        state.generation += 1;
        state.credential =
            state.configured.take().filter(|credential| Some(credential) != refused.as_ref());
        if state.credential.is_none() && own(&self.link).is_none() {
            // Nothing else is left to try; perhaps the operator puts it right at the other end.
            state.credential = refused;
            let reason = format!(
                "Evotown refuses the token of engine {} ({reason}): set EVO_EVOTOWN_TOKEN to the \
                 token that engines register with, or to a new evi_ token, and \
                 EVO_EVOTOWN_ENGINE_ID to the id that it belongs to",
                self.engine_id
            );
            block(&mut state, self.longest_pause, reason);
        }
    }

    /// Why nothing should be sent for now, and for how long.
    pub(crate) async fn blocked(&self) -> Option<NoPass> {
        let state = self.state.lock().await;
        let (until, reason) = state.blocked_until.as_ref()?;
        let pause = until.checked_duration_since(Instant::now())?;
        Some(NoPass { reason: reason.clone(), pause: Some(pause) })
    }

    async fn register(&self, state: &mut State) -> Result<Pass, NoPass> {
        let Some(bootstrap) = own(&self.link) else {
            let reason = "there is no token to register with; set EVO_EVOTOWN_TOKEN".to_owned();
            return Err(block(state, self.longest_pause, reason));
        };
        if let Some(wait) = hurry(state) {
            let reason = format!(
                "Evotown has refused the new token of engine {} soon after it gave it; does \
                 another bridge use the same engine id? The next registration is in {} s",
                self.engine_id,
                wait.as_secs()
            );
            return Err(block(state, wait, reason));
        }
        let body = self.registration().to_string();
        let answer = self.client.post(&["engines", "register"], &bootstrap, body).await;
        let refused = |reason: String| format!("Evotown does not register this engine: {reason}");
        let body = match answer.map(crate::client::Answer::meaning) {
            Ok(Meaning::Accepted(body)) if body.get("registered") == Some(&Value::Bool(true)) => {
                body
            }
            Ok(Meaning::Accepted(_)) => {
                let reason = refused("it answers with success and without `registered`".to_owned());
                let reason = format!("{reason}; is {} an Evotown?", self.link.url);
                return Err(block(state, self.longest_pause, reason));
            }
            Ok(Meaning::Conflict) => Value::Null,
            // It may speak the required endpoint only.
            Ok(Meaning::NoRoute(_)) if self.link.mode == Mode::CompleteOnly => Value::Null,
            Ok(Meaning::Busy { reason, retry_after }) => {
                return Err(NoPass { reason: refused(reason), pause: retry_after });
            }
            Ok(Meaning::Auth(reason)) => {
                let reason = format!(
                    "{}; set EVO_EVOTOWN_TOKEN to the token that engines register with",
                    refused(reason)
                );
                return Err(block(state, self.longest_pause, reason));
            }
            Ok(Meaning::Missing(reason) | Meaning::NoRoute(reason)) => {
                let reason = format!("{}; is {} an Evotown?", refused(reason), self.link.url);
                return Err(block(state, self.longest_pause, reason));
            }
            Ok(Meaning::Policy(reason) | Meaning::Invalid(reason)) => {
                return Err(block(state, self.longest_pause, refused(reason)));
            }
            Ok(Meaning::TooLarge) => {
                return Err(block(state, self.longest_pause, refused("status 413".to_owned())));
            }
            Err(Unreachable { reason, .. }) => return Err(NoPass { reason, pause: None }),
        };
        let given = body.get("ingest_token").and_then(Value::as_str).filter(|t| !t.is_empty());
        let stored = Stored {
            url: self.link.url.to_string(),
            engine_id: self.engine_id.clone(),
            token: given.filter(|_| self.link.signing.is_none()).map(str::to_owned),
        };
        let credential = match given.filter(|_| self.link.signing.is_none()) {
            Some(token) => Credential::Bearer(Secret::new(token)),
            None => bootstrap,
        };
        if let Err(error) = write(&self.file, &stored) {
            tracing::error!(
                %error,
                "The engine's token can't be kept in {}: {error}; make the folder writable, or \
                 each start will register again",
                self.file.display()
            );
        }
        tracing::info!(engine.id = %self.engine_id, "Registered at Evotown as {}", self.engine_id);
        state.registered = Some(Instant::now());
        state.blocked_until = None;
        state.generation += 1;
        state.credential = Some(credential.clone());
        Ok(Pass { credential, generation: state.generation })
    }

    /// Every registration resets what the last one set, so it always says all of it.
    fn registration(&self) -> Value {
        let mut body = json!({
            "engine_id": self.engine_id,
            "engine_type": ENGINE_TYPE,
            "engine_version": ENGINE_VERSION,
            "display_name": "Evo",
            "deployment_kind": self.link.deployment,
            // The console shows those that are exactly true.
            "capabilities": {"skill_evolution": true, "skill_evaluation": true, "openapi_skills": true},
        });
        if let Some(team) = &self.link.team_id {
            body["owner_team"] = json!(team);
        }
        body
    }
}

/// What this engine registers with, and calls with where it is given no token of its own.
fn own(link: &Link) -> Option<Credential> {
    let signed = link.signing.clone().map(Credential::Signed);
    signed.or_else(|| link.bootstrap.clone().map(Credential::Bearer))
}

/// Sends nothing for a while; a reason that is new is told.
fn block(state: &mut State, pause: Duration, reason: String) -> NoPass {
    if state.blocked_until.as_ref().is_none_or(|(_, known)| *known != reason) {
        tracing::error!("{reason}");
    }
    state.blocked_until = Some((Instant::now() + pause, reason.clone()));
    NoPass { reason, pause: Some(pause) }
}

/// How long a registration has to wait, if it follows too soon on others.
fn hurry(state: &mut State) -> Option<Duration> {
    let since = state.registered?.elapsed();
    if since >= SOON {
        state.hurried = 0;
        return None;
    }
    // The first one in a while is free: somebody may just have made the token anew.
    let needed = match state.hurried {
        0 => Duration::ZERO,
        times => FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(times - 1)).min(SOON),
    };
    let wait = needed.checked_sub(since).filter(|wait| !wait.is_zero());
    if wait.is_none() {
        state.hurried += 1;
    }
    wait
}

/// The engine id that a token file was written for.
pub(crate) fn stored_engine_id(config: &Config) -> Option<String> {
    read(&config.token_file(), &config.link).map(|stored| stored.engine_id)
}

/// What is stored for this Evotown; a token is never shown to another one.
fn read(file: &Path, link: &Link) -> Option<Stored> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(%error, "{} can't be read: {error}; registering anew", file.display());
            return None;
        }
    };
    match serde_json::from_str::<Stored>(&text) {
        Ok(stored) if stored.url == link.url.as_str() => Some(stored),
        Ok(_) => None,
        // The error would quote the text, and with it the token.
        Err(_) => {
            tracing::warn!("{} is not what the bridge wrote; registering anew", file.display());
            None
        }
    }
}

/// Writes the file whole or not at all; only its owner can read it.
fn write(file: &Path, stored: &Stored) -> std::io::Result<()> {
    let draft = file.with_extension("new");
    // One that was left behind may be readable by others.
    if let Err(error) = std::fs::remove_file(&draft)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = options.open(&draft)?;
    out.write_all(serde_json::to_string(stored)?.as_bytes())?;
    out.sync_all()?;
    std::fs::rename(&draft, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_registration_after_another_is_free_and_further_ones_wait() {
        let mut state = State::default();
        assert_eq!(hurry(&mut state), None);
        state.registered = Some(Instant::now());
        assert_eq!(hurry(&mut state), None, "the token was made anew elsewhere");
        state.registered = Some(Instant::now());
        assert_eq!(hurry(&mut state), Some(FIRST_PAUSE));
        tokio::time::advance(FIRST_PAUSE).await;
        assert_eq!(hurry(&mut state), None);
        state.registered = Some(Instant::now());
        assert_eq!(hurry(&mut state), Some(FIRST_PAUSE * 2));
        tokio::time::advance(SOON).await;
        assert_eq!(hurry(&mut state), None, "a long time ago");
        assert_eq!(state.hurried, 0);
    }
}
