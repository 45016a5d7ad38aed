//! Who may use the gateway: the bearers of the operator's and the gateway's token, and of virtual
//! keys. Secrets are compared by digest, so that the duration tells nothing about them.

mod allowance;
pub(crate) mod key;
pub(crate) mod keys;
pub(crate) mod rules;
pub(crate) mod spent;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use evo_common::{runtime::Shutdown, tokens::Secret};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use crate::config::Auth;
use key::Key;
use spent::Ledger;

type Sum = [u8; 32];
/// The keys by their digests.
type Keys = HashMap<Sum, Arc<Key>>;

/// How often the file of virtual keys is looked at.
const KEYS_INTERVAL: Duration = Duration::from_secs(1);
/// How long after one unknown token the file is not looked at for another: whoever guesses can't
/// keep the gateway busy with it.
const UNKNOWN_INTERVAL: Duration = Duration::from_millis(100);

/// Who sent a request.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Nobody was asked.
    Anybody,
    /// The bearer of the operator's token.
    Operator,
    /// The bearer of the gateway's token.
    Gateway,
    /// The bearer of this virtual key.
    Key(Arc<Key>),
}

impl Caller {
    /// For the log.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Anybody => "anybody",
            Self::Operator => "operator",
            Self::Gateway => "gateway",
            Self::Key(key) => &key.name,
        }
    }
}

/// Why somebody is kept out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No token was sent.
    Missing,
    /// The token is none of ours.
    Unknown,
    /// The key's time is over.
    Expired,
}

/// Lets callers in, or not.
#[derive(Debug)]
pub(crate) struct Gate {
    open: bool,
    operator: Option<Sum>,
    gateway: Option<Sum>,
    keys: RwLock<Arc<Keys>>,
    /// Their file.
    file: Option<PathBuf>,
    /// What they have spent.
    ledger: Ledger,
    seen: Mutex<Seen>,
}

/// What was seen of the file of virtual keys.
#[derive(Debug)]
struct Seen {
    /// The state in which it was read.
    stamp: keys::Stamp,
    /// When it was last looked at for the sake of an unknown token.
    asked: Option<Instant>,
}

impl Gate {
    /// A gate for these tokens, and the virtual keys that are there now.
    pub(crate) fn new(auth: &Auth, ledger: Ledger) -> Result<Self, crate::Error> {
        let sum = |secret: &Option<Secret>| secret.as_ref().map(|s| digest(s.expose().as_bytes()));
        // Before the keys: a later change must be seen.
        let stamp = auth.keys_file.as_deref().map(keys::Stamp::of).unwrap_or_default();
        let keys = auth.keys_file.as_deref().map(keys::KeyFile::load).transpose()?;
        Ok(Self {
            open: auth.open,
            operator: sum(&auth.operator),
            gateway: sum(&auth.gateway),
            keys: RwLock::new(Arc::new(
                keys.map(|keys| keys.by_digest(&Keys::default(), &ledger)).unwrap_or_default(),
            )),
            ledger,
            file: auth.keys_file.clone(),
            seen: Mutex::new(Seen { stamp, asked: None }),
        })
    }

    /// Whether nobody is asked.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether there may be virtual keys.
    pub(crate) fn has_keys_file(&self) -> bool {
        self.file.is_some()
    }

    /// Whether this is the operator's token. Also where nobody is asked: some things are not for
    /// everybody on a machine.
    pub(crate) fn is_operator(&self, presented: &[u8]) -> bool {
        let sum = digest(presented);
        self.operator.as_ref().is_some_and(|own| own.ct_eq(&sum).into())
    }

    /// Who sends this token. For one that is unknown the file of virtual keys is looked at, as it
    /// may have been made a moment ago.
    pub(crate) fn admit(&self, presented: Option<&[u8]>) -> Result<Caller, Refusal> {
        if self.open {
            return Ok(Caller::Anybody);
        }
        let sum = digest(presented.ok_or(Refusal::Missing)?);
        let is = |own: &Option<Sum>| own.as_ref().is_some_and(|own| own.ct_eq(&sum).into());
        if is(&self.gateway) {
            return Ok(Caller::Gateway);
        }
        if is(&self.operator) {
            return Ok(Caller::Operator);
        }
        let known = self.key(&sum).or_else(|| {
            self.look_for_new_keys();
            self.key(&sum)
        });
        let key = known.ok_or(Refusal::Unknown)?;
        if key.has_expired() { Err(Refusal::Expired) } else { Ok(Caller::Key(key)) }
    }

    /// The file of virtual keys.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The virtual key of this name.
    pub(crate) fn key_named(&self, name: &str) -> Option<Arc<Key>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.values().find(|key| &*key.name == name).cloned()
    }

    /// Looks at the file at once, after it was changed on purpose. Reads it.
    pub(crate) fn keys_changed(&self) {
        self.read_again(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn key(&self, sum: &Sum) -> Option<Arc<Key>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).get(sum).cloned()
    }

    /// Looks at the file, unless that was done a moment ago. Returns after the look that another
    /// thread has begun: of many requests that come at once with a new key all shall know it.
    fn look_for_new_keys(&self) {
        if self.file.is_none() {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if seen.asked.is_none_or(|asked| now.duration_since(asked) >= UNKNOWN_INTERVAL) {
            seen.asked = Some(now);
            self.read_again(&mut seen);
        }
    }

    /// Reads the file of virtual keys again whenever it changes, until the shutdown.
    pub(crate) async fn follow(&self, shutdown: Shutdown) {
        let mut timer = tokio::time::interval(KEYS_INTERVAL);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = timer.tick() => {}
            }
            self.read_again(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Reads the file of virtual keys if it has changed. A file that can't be read leaves the keys
    /// as they were; one that is gone takes them all with it.
    fn read_again(&self, seen: &mut Seen) {
        let Some(file) = &self.file else { return };
        let now = keys::Stamp::of(file);
        if now == seen.stamp {
            return;
        }
        seen.stamp = now;
        match keys::KeyFile::load(file) {
            Ok(keys) => {
                let before = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
                let keys = keys.by_digest(&before, &self.ledger);
                tracing::info!(keys = keys.len(), "The virtual keys were read again");
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
            }
            Err(error) => {
                tracing::error!(%error, "The virtual keys stay as they were: {error}");
            }
        }
    }
}

fn digest(secret: &[u8]) -> Sum {
    Sha256::digest(secret).into()
}

#[cfg(test)]
mod tests {
    use super::{rules::Rules, *};

    /// Who is let in with a token.
    fn name(gate: &Gate, token: Option<&str>) -> Result<String, Refusal> {
        gate.admit(token.map(str::as_bytes)).map(|caller| caller.name().to_owned())
    }

    #[test]
    fn callers_are_told_apart_and_strangers_kept_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("auth.json");
        let key = keys::generate(&file, "ci", Rules::default()).unwrap();
        let auth = Auth {
            operator: Some("op".into()),
            gateway: Some("gw".into()),
            keys_file: Some(file),
            open: false,
        };
        let gate = Gate::new(&auth, Ledger::default()).unwrap();
        let who = |token: &str| name(&gate, Some(token));
        assert_eq!(who("op"), Ok("operator".to_owned()));
        assert_eq!(who("gw"), Ok("gateway".to_owned()));
        assert_eq!(who(key.expose()), Ok("ci".to_owned()));
        for stranger in ["", "o", "opp", "evo-", &key.expose()[..51]] {
            assert_eq!(who(stranger), Err(Refusal::Unknown), "{stranger}");
        }
        assert_eq!(name(&gate, None), Err(Refusal::Missing));
        let open = Gate::new(&Auth { open: true, ..Auth::default() }, Ledger::default()).unwrap();
        assert_eq!(name(&open, None), Ok("anybody".to_owned()));
        let shut = Gate::new(&Auth::default(), Ledger::default()).unwrap();
        assert_eq!(name(&shut, Some("")), Err(Refusal::Unknown));
    }

    #[test]
    fn a_key_whose_time_is_over_is_refused_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("auth.json");
        let ends =
            |text: &str| Rules { expires_at: Some(text.parse().unwrap()), ..Rules::default() };
        let old = keys::generate(&file, "old", ends("2026-01-01T00:00:00Z")).unwrap();
        let new = keys::generate(&file, "new", ends("2999-01-01T00:00:00Z")).unwrap();
        let auth = Auth { keys_file: Some(file), ..Auth::default() };
        let gate = Gate::new(&auth, Ledger::default()).unwrap();
        assert_eq!(name(&gate, Some(old.expose())), Err(Refusal::Expired));
        assert_eq!(name(&gate, Some(new.expose())), Ok("new".to_owned()));
    }

    #[test]
    fn of_many_requests_that_come_at_once_with_a_new_key_all_get_in() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("auth.json");
        let auth = Auth { keys_file: Some(file.clone()), ..Auth::default() };
        let gate = Gate::new(&auth, Ledger::default()).unwrap();
        let key = keys::generate(&file, "new", Rules::default()).unwrap();
        std::thread::scope(|scope| {
            let admit = || name(&gate, Some(key.expose()));
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(admit)).collect();
            for thread in threads {
                assert_eq!(thread.join().unwrap(), Ok("new".to_owned()));
            }
        });
    }

    /// Nobody follows the file here: the unknown token alone makes the gate look.
    #[tokio::test(start_paused = true)]
    async fn a_new_key_is_known_at_once_and_guesses_do_not_make_the_gate_look_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("auth.json");
        let auth = Auth { keys_file: Some(file.clone()), ..Auth::default() };
        let gate = Gate::new(&auth, Ledger::default()).unwrap();
        let key = keys::generate(&file, "new", Rules::default()).unwrap();
        let admit = |key: &Secret| name(&gate, Some(key.expose()));
        assert_eq!(admit(&key), Ok("new".to_owned()));
        tokio::time::advance(UNKNOWN_INTERVAL).await;
        assert_eq!(name(&gate, Some("guess")), Err(Refusal::Unknown));
        let later = keys::generate(&file, "later", Rules::default()).unwrap();
        assert_eq!(admit(&later), Err(Refusal::Unknown), "the guess had the look");
        tokio::time::advance(UNKNOWN_INTERVAL).await;
        assert_eq!(admit(&later), Ok("later".to_owned()));
        // A known key makes it look at nothing.
        let asked = gate.seen.lock().unwrap().asked;
        tokio::time::advance(UNKNOWN_INTERVAL).await;
        assert!(admit(&key).is_ok());
        assert_eq!(gate.seen.lock().unwrap().asked, asked);
    }

    #[tokio::test(start_paused = true)]
    async fn a_revoked_key_is_refused_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("auth.json");
        let auth = Auth { keys_file: Some(file.clone()), ..Auth::default() };
        let gate = Arc::new(Gate::new(&auth, Ledger::default()).unwrap());
        // Between the first look and the following.
        let early = keys::generate(&file, "early", Rules::default()).unwrap();
        let shutdown = Shutdown::new();
        let follow = gate.follow(shutdown.clone());
        let steps = async {
            let pause = || tokio::time::sleep(KEYS_INTERVAL * 2);
            pause().await;
            let known = name(&gate, Some(early.expose()));
            assert_eq!(known, Ok("early".to_owned()));
            let key = keys::generate(&file, "one", Rules::default()).unwrap();
            pause().await;
            let admit = || name(&gate, Some(key.expose()));
            assert_eq!(admit(), Ok("one".to_owned()));
            // A file that can't be read changes nothing.
            let good = std::fs::read(&file).unwrap();
            std::fs::write(&file, "{").unwrap();
            pause().await;
            assert!(admit().is_ok());
            std::fs::write(&file, good).unwrap();
            assert!(keys::revoke(&file, "one").unwrap());
            pause().await;
            assert_eq!(admit(), Err(Refusal::Unknown));
            shutdown.cancel();
        };
        tokio::join!(follow, steps);
    }
}
