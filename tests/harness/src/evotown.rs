//! A fake Evotown on loopback that behaves like the real one, with its surprises, or like the
//! published spec. It holds what it was told, notes what the real one would only suffer, and fails
//! on demand.

#[cfg(test)]
mod tests;
mod town;
mod validate;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;

use crate::llm::{
    Request,
    server::{Api, Reply, Server},
};
use town::Town;

/// Which server it behaves like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The real backend.
    Real,
    /// The published spec: one token, 401, 409 for a repeated complete, 413, no own token of an
    /// engine, no signs of life, no status of a run.
    Spec,
}

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This status; nothing was applied.
    Status(u16),
    /// 429 with `Retry-After` in seconds; nothing was applied.
    RetryAfter(u64),
    /// This status, though it was applied.
    LateStatus(u16),
    /// This status with a page of HTML, as of a proxy in front; nothing was applied.
    Page(u16),
    /// The connection is cut before anything was applied.
    CutBefore,
    /// The connection is cut after it was applied.
    CutAfter,
    /// Never an answer; nothing was applied.
    Silence,
}

/// One call of `POST /runs/{run_id}/complete` that was answered with success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complete {
    /// The run.
    pub run_id: String,
    /// Whether the run had been terminal before.
    pub idempotent: bool,
}

/// A fake Evotown. It has a thread of its own, so that a test may block.
pub struct Evotown {
    state: Arc<Mutex<State>>,
    server: Mutex<Option<Server>>,
    port: u16,
}

struct State {
    town: Town,
    requests: Vec<Request>,
    faults: Vec<Planned>,
}

/// A fault for the next requests whose path holds a text.
struct Planned {
    path: String,
    times: u32,
    fault: Fault,
}

/// What answers requests.
struct Front(Arc<Mutex<State>>);

impl Evotown {
    /// Starts one that behaves like the real backend, on a free port.
    #[expect(clippy::unused_async, reason = "callers await the start of every service")]
    pub async fn start() -> Self {
        Self::like(Mode::Real)
    }

    /// Starts one on a free port.
    pub fn like(mode: Mode) -> Self {
        let state = State { town: Town::new(mode), requests: Vec::new(), faults: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let server = Server::start("fake-evotown", Front(Arc::clone(&state)));
        let port = server.origin().rsplit(':').next().and_then(|port| port.parse().ok());
        let port = port.expect("the origin ends with a port");
        Self { state, server: Mutex::new(Some(server)), port }
    }

    /// Its base URL; it stays the same while it is down.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The administrator's token, for the header `X-Admin-Token`.
    pub fn admin_token(&self) -> String {
        town::ADMIN_TOKEN.to_owned()
    }

    /// The token that engines register with.
    pub fn ingest_token(&self) -> String {
        town::INGEST_TOKEN.to_owned()
    }

    /// Refuses connections, or takes them again. What it holds stays.
    pub fn set_down(&self, down: bool) {
        let mut server = locked(&self.server);
        if down {
            drop(server.take());
        } else if server.is_none() {
            let front = Front(Arc::clone(&self.state));
            *server = Some(Server::start_at(self.port, "fake-evotown", front));
        }
    }

    /// Lets the next `times` requests whose path holds `path` fail.
    pub fn fault(&self, path: &str, times: u32, fault: Fault) {
        self.state().faults.push(Planned { path: path.to_owned(), times, fault });
    }

    /// No more faults.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Gives an engine a new token, as an administrator or another bridge would; its old one is
    /// dead.
    pub fn rotate(&self, engine_id: &str) -> String {
        self.state().town.issue_token(engine_id)
    }

    /// Lets the token that engines register with speak for every engine, or not (the default).
    pub fn allow_global_scope(&self, allow: bool) {
        self.state().town.allow_global_scope = allow;
    }

    /// Lets the artifact policy take files with these extensions only, as an operator may.
    pub fn allow_files(&self, extensions: &[&str]) {
        let dotted: Vec<String> = extensions.iter().map(|name| format!(".{name}")).collect();
        self.set_rule("artifact-limits", "allowed_extensions", dotted.into());
    }

    /// Changes one rule of a policy, as an operator may at any time.
    pub fn set_rule(&self, policy_id: &str, rule: &str, value: Value) {
        let mut state = self.state();
        let policies = &mut state.town.policies;
        let policy = policies.iter_mut().find(|policy| policy["policy_id"] == policy_id);
        policy.expect("a policy of this name")["rules"][rule] = value;
    }

    /// Takes the one call that the published spec requires, and no other.
    pub fn only_complete(&self) {
        self.state().town.only_complete = true;
    }

    /// Takes signed requests (of a body and a moment within five minutes) instead of tokens; `prefix`
    /// stands before a signature.
    pub fn expect_signatures(&self, secret: &str, prefix: &str) {
        self.state().town.signed = Some((secret.to_owned(), prefix.to_owned()));
    }

    /// Forgets everything, as after a start on an empty disk.
    pub fn forget(&self) {
        let mut state = self.state();
        let mode = state.town.mode;
        state.town = Town::new(mode);
    }

    /// Every engine.
    pub fn engines(&self) -> Vec<Value> {
        self.state().town.engines.values().map(|engine| engine.record.clone()).collect()
    }

    /// How often an engine was registered.
    pub fn registrations(&self) -> usize {
        self.requests_to("/engines/register").len()
    }

    /// Every run, in the order of their ids.
    pub fn runs(&self) -> Vec<Value> {
        self.state().town.runs.values().cloned().collect()
    }

    /// One run.
    pub fn run(&self, run_id: &str) -> Option<Value> {
        self.state().town.runs.get(run_id).cloned()
    }

    /// The events of a run, in the order they came.
    pub fn events(&self, run_id: &str) -> Vec<Value> {
        let state = self.state();
        state.town.events.iter().filter(|event| event["run_id"] == run_id).cloned().collect()
    }

    /// Every successful `complete`, in the order they came.
    pub fn completes(&self) -> Vec<Complete> {
        self.state().town.completes.clone()
    }

    /// Skills that were proposed for review, in the order of their ids.
    pub fn candidates(&self) -> Vec<Value> {
        self.state().town.candidates.values().cloned().collect()
    }

    /// Violations of policies: each one is on the operator's risk page.
    pub fn violations(&self) -> Vec<Value> {
        self.state().town.violations.clone()
    }

    /// What an orderly engine does not do, though the real server takes it: events out of order,
    /// or after the end of their run.
    pub fn disorder(&self) -> Vec<String> {
        self.state().town.disorder.clone()
    }

    /// Every request, in the order they came, those that failed too.
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// Every request whose path ends with this.
    pub fn requests_to(&self, path: &str) -> Vec<Request> {
        let requests = self.requests();
        requests.into_iter().filter(|request| request.path.ends_with(path)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

impl fmt::Debug for Evotown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evotown").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl Api for Front {
    fn reply(&self, request: &Request, _: &[Request]) -> Reply {
        let mut state = locked(&self.0);
        state.requests.push(request.clone());
        let planned = state
            .faults
            .iter_mut()
            .find(|planned| planned.times > 0 && request.path.contains(&planned.path));
        let fault = planned.map(|planned| {
            planned.times -= 1;
            planned.fault
        });
        let failed = |status: u16, headers| {
            Reply::whole(status, headers, "application/json", r#"{"detail":"on purpose"}"#)
        };
        match fault {
            Some(Fault::Status(status)) => failed(status, Vec::new()),
            Some(Fault::RetryAfter(seconds)) => {
                failed(429, vec![("retry-after", seconds.to_string())])
            }
            Some(Fault::Page(status)) => {
                Reply::whole(status, Vec::new(), "text/html", "<html>Please sign in</html>")
            }
            Some(Fault::CutBefore) => Reply::Drop,
            Some(Fault::Silence) => Reply::Silence,
            Some(Fault::CutAfter) => {
                state.town.answer(request);
                Reply::Drop
            }
            Some(Fault::LateStatus(status)) => {
                state.town.answer(request);
                failed(status, Vec::new())
            }
            None => {
                let (status, body) = state.town.answer(request);
                Reply::whole(status, Vec::new(), "application/json", body.to_string())
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
