//! Who a token belongs to and what it allows: the five tokens of the token file, and those that were
//! created beside them.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use evo_common::{
    api::{CreateToken, CreatedToken, TokenView},
    clock::Timestamp,
    ids::sha256_hex,
    messages::AgentRole,
    tokens::{Scope, Tokens},
};
use tokio::sync::watch;

use crate::store::{
    self, Store,
    tokens::{self, Owner, StoredToken},
};

/// Any role.
const EVERY_ROLE: &str = "*";
/// What a runner's token may be used for when nothing else was said.
const USER_ROLE: &str = "user";
const MAX_NAME: usize = 64;
const MAX_DAYS: u32 = 3_650;
const MS_PER_DAY: u64 = 24 * 3_600_000;
/// How often whoever waits for the end of a token looks whether it has come.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Where a request or a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remote(pub(crate) SocketAddr);

/// Whoever sent a request or opened a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// A created token's id, `file:operator`, or `open` where king asks for no tokens.
    pub(crate) token_id: String,
    /// What the token is called.
    pub(crate) name: String,
    /// What it allows.
    pub(crate) scope: Scope,
    /// Roles that a runner may take with it.
    roles: Vec<String>,
}

impl Identity {
    /// Everybody, where king asks for no tokens.
    pub(crate) fn open() -> Self {
        let (token_id, roles) = ("open".to_owned(), vec![EVERY_ROLE.to_owned()]);
        Self { name: token_id.clone(), token_id, scope: Scope::Operator, roles }
    }

    fn of_file(scope: Scope) -> Self {
        let token_id = format!("file:{scope}");
        Self { name: token_id.clone(), token_id, scope, roles: vec![EVERY_ROLE.to_owned()] }
    }

    /// Whether a runner with this token may take a role. The names of custom roles don't count.
    pub(crate) fn may_take(&self, role: &AgentRole) -> bool {
        self.scope.allows(Scope::Runner)
            && self.roles.iter().any(|allowed| allowed == EVERY_ROLE || allowed == role.kind())
    }

    /// Whether the token was created beside those of the token file, which are everybody's.
    pub(crate) fn created(&self) -> Option<&str> {
        self.token_id.starts_with("tok-").then_some(self.token_id.as_str())
    }
}

/// Why a token was not created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    /// A field is wrong.
    #[error("field `{field}`: {message}")]
    Invalid {
        /// Which one.
        field: &'static str,
        /// What is wrong, and what to do.
        message: String,
    },
    /// Another valid token has this name.
    #[error("there is a valid token named {0:?} already; choose another name, or revoke that one")]
    Taken(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Every token that king knows. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Keyring {
    file: Arc<Tokens>,
    open: bool,
    store: Store,
    /// By SHA-256. Looking up a digest tells nothing about the tokens behind the others.
    created: Arc<RwLock<HashMap<String, StoredToken>>>,
    /// Raised with every revocation.
    revoked: watch::Sender<u64>,
}

impl Keyring {
    /// The token file's tokens and the stored ones.
    pub(crate) async fn load(file: Tokens, open: bool, store: Store) -> store::Result<Self> {
        let created = store.tokens_all().await?;
        let created = created.into_iter().map(|token| (token.digest.clone(), token)).collect();
        Ok(Self {
            file: Arc::new(file),
            open,
            store,
            created: Arc::new(RwLock::new(created)),
            revoked: watch::channel(0).0,
        })
    }

    /// Whose token this is; `None` when it is nobody's, or not valid any more.
    pub(crate) fn identify(&self, presented: Option<&str>) -> Option<Identity> {
        if self.open {
            return Some(Identity::open());
        }
        let presented = presented?;
        if let Some(scope) = self.file.scope_of(presented) {
            return Some(Identity::of_file(scope));
        }
        let digest = sha256_hex(presented.as_bytes());
        let created = self.created.read().unwrap_or_else(PoisonError::into_inner);
        let token = created.get(&digest).filter(|token| is_valid(token))?;
        Some(Identity {
            token_id: token.token_id.clone(),
            name: token.name.clone(),
            scope: token.scope,
            roles: token.roles.clone(),
        })
    }

    /// Whether a token that was presented earlier is still good.
    pub(crate) fn is_valid(&self, token_id: &str) -> bool {
        if !token_id.starts_with("tok-") {
            return true;
        }
        let created = self.created.read().unwrap_or_else(PoisonError::into_inner);
        created.values().any(|token| token.token_id == token_id && is_valid(token))
    }

    /// Waits until a token that was presented earlier is not good any more: for ever, when it is one of
    /// the token file.
    pub(crate) async fn ended(&self, token_id: &str) {
        let mut revoked = self.revocations();
        while self.is_valid(token_id) {
            // The clock of the machine may be set meanwhile.
            let pause = self.expires_in(token_id).map_or(LOOK_AGAIN, |end| end.min(LOOK_AGAIN));
            tokio::select! {
                // Fails never: this keyring holds the other end.
                Ok(()) = revoked.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// How long a created token is good by itself.
    fn expires_in(&self, token_id: &str) -> Option<Duration> {
        let created = self.created.read().unwrap_or_else(PoisonError::into_inner);
        let end = created.values().find(|token| token.token_id == token_id)?.expires_at?;
        Some(Duration::from_millis(end.ms_since(Timestamp::now()) + 1))
    }

    /// Changes with every revocation.
    pub(crate) fn revocations(&self) -> watch::Receiver<u64> {
        self.revoked.subscribe()
    }

    /// Makes a token. Its text is in the answer and nowhere else.
    pub(crate) async fn create(
        &self,
        wanted: CreateToken,
        created_by: &str,
    ) -> Result<CreatedToken, CreateError> {
        let now = Timestamp::now();
        let (token, secret) = draw_up(&wanted, created_by, now)?;
        let view = token.view(now);
        let keyring = self.clone();
        let insert = async move |connection: &store::Connection| {
            let inserted = tokens::insert(connection, &token).await?;
            if inserted {
                connection.after_commit(move || keyring.hold(token));
            }
            Ok::<_, store::Error>(inserted)
        };
        if !self.store.write(insert).await? {
            return Err(CreateError::Taken(wanted.name));
        }
        Ok(CreatedToken { success: true, token: secret, view })
    }

    /// Ends a token, named by its id or name. Connections that it opened are closed.
    pub(crate) async fn revoke(&self, which: &str) -> store::Result<Option<TokenView>> {
        let (keyring, which) = (self.clone(), which.to_owned());
        self.store
            .write(async move |connection: &store::Connection| {
                let now = Timestamp::now();
                let Some(token) = tokens::revoke(connection, now, &which).await? else {
                    return Ok(None);
                };
                let view = token.view(now);
                // With the commit, so that it is refused from then on whoever waits for the answer.
                connection.after_commit(move || {
                    keyring.hold(token);
                    keyring.revoked.send_modify(|count| *count += 1);
                });
                Ok(Some(view))
            })
            .await
    }

    /// Forgets tokens that are not valid since before a moment. Says how many.
    pub(crate) async fn forget(&self, before: Timestamp) -> store::Result<u64> {
        let keyring = self.clone();
        self.store
            .write(async move |connection: &store::Connection| {
                let gone = store::retention::tokens(connection, before).await?;
                let count = gone.len() as u64;
                connection.after_commit(move || {
                    let mut created =
                        keyring.created.write().unwrap_or_else(PoisonError::into_inner);
                    created.retain(|_, token| !gone.contains(&token.token_id));
                });
                Ok(count)
            })
            .await
    }

    /// Knows a token as it is stored now. What two commits leave to be done may be done in any order,
    /// and a token that is revoked stays so.
    fn hold(&self, token: StoredToken) {
        let mut created = self.created.write().unwrap_or_else(PoisonError::into_inner);
        let known = created.entry(token.digest.clone()).or_insert_with(|| token.clone());
        if known.revoked_at.is_none() {
            *known = token;
        }
    }

    /// Whether this token may register an agent under this name; if so, the name is its own. The
    /// token file's tokens are the installation's and take every name; a created token takes
    /// names that are new, its own, or left by a token that is not valid any more.
    pub(crate) async fn claim(&self, identity: &Identity, agent_id: &str) -> store::Result<bool> {
        let (keyring, agent_id) = (self.clone(), agent_id.to_owned());
        let mine = identity.created().map(str::to_owned);
        self.store
            .write(async move |connection: &store::Connection| {
                let owner = tokens::owner(connection, &agent_id).await?;
                let granted = match (&mine, &owner) {
                    (None, _) | (_, Owner::Nobody) => true,
                    (Some(_), Owner::File) => false,
                    (Some(mine), Owner::Created(owner)) => {
                        mine == owner || !keyring.is_valid(owner)
                    }
                };
                let kept = match &owner {
                    Owner::Created(owner) => Some(owner) == mine.as_ref(),
                    Owner::File | Owner::Nobody => mine.is_none(),
                };
                if granted && !kept {
                    tokens::set_owner(connection, &agent_id, mine.as_deref()).await?;
                }
                Ok(granted)
            })
            .await
    }

    /// What may be shown of every created token, oldest first.
    pub(crate) fn list(&self) -> Vec<TokenView> {
        let now = Timestamp::now();
        let created = self.created.read().unwrap_or_else(PoisonError::into_inner);
        let mut views: Vec<TokenView> = created.values().map(|token| token.view(now)).collect();
        views.sort_by(|a, b| a.token_id.cmp(&b.token_id));
        views
    }
}

fn is_valid(token: &StoredToken) -> bool {
    token.revoked_at.is_none() && token.expires_at.is_none_or(|end| end > Timestamp::now())
}

/// The token that was asked for, and its text.
fn draw_up(
    wanted: &CreateToken,
    created_by: &str,
    now: Timestamp,
) -> Result<(StoredToken, String), CreateError> {
    let invalid = |field, message: String| CreateError::Invalid { field, message };
    let name = wanted.name.as_str();
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-@ ".contains(c);
    if name.trim().is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
        let message = format!(
            "{name:?} is no name; use 1 to {MAX_NAME} letters, digits, spaces and the signs . _ - @"
        );
        return Err(invalid("name", message));
    }
    let scope: Scope =
        wanted.scope.parse().map_err(|error| invalid("scope", format!("{error}")))?;
    if scope == Scope::Gateway {
        let message = "keys for the gateway are made by `evo-gateway-cli auth generate`".to_owned();
        return Err(invalid("scope", message));
    }
    let roles = roles(scope, &wanted.roles).map_err(|message| invalid("roles", message))?;
    let expires_at = match wanted.expires_in_days {
        None => None,
        Some(days @ 1..=MAX_DAYS) => Some(now.plus_ms(u64::from(days) * MS_PER_DAY)),
        Some(days) => {
            let message = format!("{days} is not between 1 and {MAX_DAYS}");
            return Err(invalid("expires_in_days", message));
        }
    };
    let secret = scope.generate().expose().to_owned();
    let token = StoredToken {
        token_id: format!("tok-{}", uuid::Uuid::now_v7().simple()),
        name: name.to_owned(),
        scope,
        roles,
        digest: sha256_hex(secret.as_bytes()),
        created_by: created_by.to_owned(),
        created_at: now,
        expires_at,
        revoked_at: None,
    };
    Ok((token, secret))
}

fn roles(scope: Scope, wanted: &[String]) -> Result<Vec<String>, String> {
    if !scope.allows(Scope::Runner) {
        return if wanted.is_empty() {
            Ok(Vec::new())
        } else {
            Err(format!("a token of scope {scope} has no roles; only runner tokens do"))
        };
    }
    if scope == Scope::Operator {
        return Ok(vec![EVERY_ROLE.to_owned()]);
    }
    if wanted.is_empty() {
        return Ok(vec![USER_ROLE.to_owned()]);
    }
    let mut roles: Vec<String> = Vec::new();
    for role in wanted {
        let role = if role == EVERY_ROLE {
            role.clone()
        } else {
            let known: AgentRole = role.parse().map_err(|error| format!("{error}, or *"))?;
            known.kind().to_owned()
        };
        if !roles.contains(&role) {
            roles.push(role);
        }
    }
    Ok(roles)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(scope: &str, roles: &[&str]) -> CreateToken {
        CreateToken {
            name: "ci".to_owned(),
            scope: scope.to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            expires_in_days: None,
        }
    }

    fn drawn(wanted: &CreateToken) -> Result<StoredToken, String> {
        draw_up(wanted, "test", Timestamp(0)).map(|(token, _)| token).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_asked_for_is_checked_field_by_field() {
        let name = |name: &str| CreateToken { name: name.to_owned(), ..wanted("viewer", &[]) };
        let days = |days| CreateToken { expires_in_days: Some(days), ..wanted("viewer", &[]) };
        for (field, asked) in [
            ("name", name("")),
            ("name", name("a\nb")),
            ("name", name(&"a".repeat(65))),
            ("scope", wanted("root", &[])),
            ("scope", wanted("gateway", &[])),
            ("roles", wanted("viewer", &["learning"])),
            ("roles", wanted("runner", &["lerning"])),
            ("expires_in_days", days(0)),
            ("expires_in_days", days(4_000)),
        ] {
            let error = drawn(&asked).unwrap_err();
            assert!(error.starts_with(&format!("field `{field}`")), "{error}");
        }
        let end = drawn(&days(1)).unwrap().expires_at;
        assert_eq!(end, Some(Timestamp(24 * 3_600_000)));
    }

    #[tokio::test]
    async fn a_token_ends_when_it_expires_and_when_it_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let database = store::Database::File(folder.path().join("king.db"));
        let store = Store::open(database).await.unwrap();
        let keyring = Keyring::load(Tokens::generate(), false, store).await.unwrap();
        let ends = async |token_id: &str| {
            let patience = Duration::from_secs(20);
            tokio::time::timeout(patience, keyring.ended(token_id)).await.unwrap();
        };
        let short = StoredToken {
            expires_at: Some(Timestamp::now().plus_ms(50)),
            ..drawn(&wanted("viewer", &[])).unwrap()
        };
        let token_id = short.token_id.clone();
        keyring.created.write().unwrap().insert(short.digest.clone(), short);
        assert!(keyring.is_valid(&token_id));
        ends(&token_id).await;

        let long = CreateToken { name: "long".to_owned(), ..wanted("viewer", &[]) };
        let token_id = keyring.create(long, "test").await.unwrap().view.token_id;
        let (revoked, ()) = tokio::join!(keyring.revoke("long"), ends(&token_id));
        assert!(revoked.unwrap().is_some());
        ends("tok-nobodys").await;
        let file = keyring.ended("file:viewer");
        let waited = tokio::time::timeout(Duration::from_millis(20), file).await;
        assert!(waited.is_err(), "a token of the file has no end");
    }

    #[test]
    fn a_runner_token_is_for_the_roles_that_it_names_and_by_default_for_user_agents() {
        let allowed = |scope: &str, roles: &[&str], role: &AgentRole| {
            let token = drawn(&wanted(scope, roles)).unwrap();
            let (token_id, name) = (token.token_id, token.name);
            Identity { token_id, name, scope: token.scope, roles: token.roles }.may_take(role)
        };
        let user = AgentRole::User("translator".to_owned());
        assert!(allowed("runner", &[], &user));
        assert!(!allowed("runner", &[], &AgentRole::Learning));
        assert!(allowed("runner", &["pre-load"], &AgentRole::PreLoad));
        assert!(!allowed("runner", &["pre-load"], &user));
        assert!(allowed("runner", &["*"], &AgentRole::Evaluation));
        assert!(allowed("operator", &[], &AgentRole::Evaluation));
        assert!(!allowed("viewer", &[], &user));
        assert!(Identity::of_file(Scope::Runner).may_take(&AgentRole::Building));
        assert!(!Identity::of_file(Scope::Invoke).may_take(&user));
    }
}
