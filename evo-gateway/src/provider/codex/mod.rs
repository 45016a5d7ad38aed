//! OpenAI's Codex with a ChatGPT subscription, or with a key of the API.
//!
//! `evo gateway auth codex-auth` keeps who signed in; here the access token is refreshed before it ends,
//! and once when the provider does not accept it. With ChatGPT the answer comes from ChatGPT's own
//! backend, with a key from the API.

pub(crate) mod browser;
mod events;
pub(crate) mod jwt;
pub(crate) mod oauth;
mod socket;
mod transport;

use std::{sync::Arc, time::SystemTime};

use arc_swap::ArcSwapOption;
use chrono::{TimeDelta, Utc};
use evo_common::tokens::Secret;
use http::{HeaderName, HeaderValue, Uri, header};
use tokio::{runtime, sync::Mutex};

use super::{
    Address,
    access::{Access, Credentials},
    address,
    credentials::{SignedIn, Store},
};
use crate::{
    config::SignIn,
    convert::Dialect,
    upstream::{BoxFuture, Client},
};
use oauth::{Issuer, NotRefreshed};
pub(super) use transport::Codex;

/// How long before its end a token is refreshed.
const AHEAD: TimeDelta = TimeDelta::minutes(5);
/// Where ChatGPT's subscribers are served.
const CHATGPT: &str = "https://chatgpt.com/backend-api/codex";
/// Where keys of the API are.
const API: &str = "https://api.openai.com/v1";
/// Names the account; it is there for subscribers only.
const ACCOUNT: HeaderName = HeaderName::from_static("chatgpt-account-id");
const ORIGINATOR: (HeaderName, HeaderValue) =
    (HeaderName::from_static("originator"), HeaderValue::from_static("codex_cli_rs"));
/// The release of Codex whose list of models is asked for.
const RELEASE: &str = "0.169.0";

/// The one who signed in, refreshed when that is due.
#[derive(Debug)]
pub(super) struct Account {
    state: Arc<State>,
    /// One request here looks for a token, and the others wait for it.
    refresh: Mutex<()>,
}

/// What is known of that one.
#[derive(Debug)]
struct State {
    /// The provider's name, under which the file has it.
    name: String,
    base_url: String,
    store: Option<Store>,
    /// A token from a variable, which the file goes before.
    given: Option<Secret>,
    issuer: Issuer,
    current: ArcSwapOption<Current>,
    /// A token that the provider did not accept.
    refused: ArcSwapOption<String>,
}

#[derive(Debug)]
struct Current {
    signed_in: SignedIn,
    access: Access,
    /// Of the file that it was read from.
    stamp: Option<SystemTime>,
}

impl Account {
    /// Who signed in for the provider of this name.
    pub(super) fn new(name: &str, base_url: &str, given: Option<Secret>, sign_in: &SignIn) -> Self {
        let state = State {
            name: name.to_owned(),
            base_url: base_url.to_owned(),
            store: sign_in.file.clone().map(Store::new),
            given,
            issuer: Issuer::new(&sign_in.codex_issuer),
            current: ArcSwapOption::empty(),
            refused: ArcSwapOption::empty(),
        };
        Self { state: Arc::new(state), refresh: Mutex::new(()) }
    }

    async fn get(&self, client: &Client) -> Result<Access, String> {
        if let Some(access) = self.state.fresh() {
            return Ok(access);
        }
        let _refresh = self.refresh.lock().await;
        // Somebody else may have done it meanwhile.
        if let Some(access) = self.state.fresh() {
            return Ok(access);
        }
        let (signed_in, stamp) = self.state.kept()?;
        if self.state.is_good(&signed_in) {
            return self.state.take(signed_in, stamp);
        }
        // On a thread of its own, which goes on when the caller leaves: a refresh token can be used once,
        // and what came for it must be kept.
        let (state, client) = (self.state.clone(), client.with_own_connections());
        let renewed = tokio::task::spawn_blocking(move || state.renew(&client)).await;
        renewed.unwrap_or_else(|error| Err(format!("can't refresh its token: {error}")))
    }
}

impl State {
    /// The access in hand, if it is still good and the file is the same.
    fn fresh(&self) -> Option<Access> {
        let current = self.current.load_full()?;
        let same_file = current.stamp == self.store.as_ref().and_then(Store::stamp);
        (same_file && self.is_good(&current.signed_in)).then(|| current.access.clone())
    }

    fn is_good(&self, signed_in: &SignedIn) -> bool {
        let refused = self.refused.load();
        let is_refused = refused.as_ref().is_some_and(|it| **it == signed_in.access_token);
        let is_due = signed_in.expires_at.is_some_and(|end| end - AHEAD <= Utc::now());
        !is_refused && !is_due
    }

    /// Who signed in, and of which state of the file that is.
    fn kept(&self) -> Result<(SignedIn, Option<SystemTime>), String> {
        let stamp = self.store.as_ref().and_then(Store::stamp);
        let kept = match &self.store {
            Some(store) => {
                store.load(&self.name).map_err(|error| format!("can't be used: {error}"))?
            }
            None => None,
        };
        let given = || self.given.as_ref().map(|token| oauth::of_token(token.expose(), None));
        let signed_in = kept.or_else(given);
        let signed_in =
            signed_in.ok_or_else(|| format!("is not signed in: run {}", self.command()))?;
        Ok((signed_in, stamp))
    }

    /// Gets another token. Blocks. Of several gateways that share the file one does it, and the others
    /// wait and take what it got: a refresh token that is used a second time may end the sign-in.
    fn renew(&self, client: &Client) -> Result<Access, String> {
        let failed = |why: &dyn std::fmt::Display| format!("can't refresh its token: {why}");
        let held = self.store.as_ref().map(Store::hold).transpose();
        let held = held.map_err(|error| failed(&error))?;
        let (signed_in, stamp) = self.kept()?;
        if self.is_good(&signed_in) {
            return self.take(signed_in, stamp);
        }
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(&error))?;
        match runtime.block_on(self.issuer.refresh(client, &signed_in)) {
            Ok(new) => {
                if let Some(held) = &held
                    && let Err(error) = held.save(&self.name, &new)
                {
                    // It serves until the end of this process, and the old refresh token is spent.
                    tracing::warn!(%error, "A refreshed token can't be kept: {error}");
                }
                let stamp = self.store.as_ref().and_then(Store::stamp);
                self.take(new, stamp)
            }
            Err(NotRefreshed::Refused) => {
                Err(format!("is not signed in any more: run {} --force", self.command()))
            }
            Err(NotRefreshed::Failed(why)) => {
                let refused = self.refused.load();
                let is_refused = refused.as_ref().is_some_and(|it| **it == signed_in.access_token);
                // It may have minutes left.
                if !is_refused && signed_in.expires_at.is_none_or(|end| end > Utc::now()) {
                    return self.take(signed_in, stamp);
                }
                Err(failed(&why))
            }
        }
    }

    fn take(&self, signed_in: SignedIn, stamp: Option<SystemTime>) -> Result<Access, String> {
        let access = self.access_of(&signed_in)?;
        let current = Current { signed_in, access: access.clone(), stamp };
        self.current.store(Some(Arc::new(current)));
        Ok(access)
    }

    fn access_of(&self, signed_in: &SignedIn) -> Result<Access, String> {
        let wrong =
            || format!("has a token that no header can carry: run {} --force", self.command());
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", signed_in.access_token))
            .map_err(|_| wrong())?;
        bearer.set_sensitive(true);
        let mut headers = vec![(header::AUTHORIZATION, bearer)];
        if let Some(account) = &signed_in.account_id {
            headers.push((ACCOUNT, HeaderValue::try_from(account).map_err(|_| wrong())?));
            headers.push(ORIGINATOR);
        }
        let address = place(&self.base_url, signed_in.account_id.is_some());
        let address = address.map_err(|(_, why)| format!("has a wrong `base_url`: {why}"))?;
        Ok(Access { headers, address: Some(address) })
    }

    fn command(&self) -> String {
        match self.name.as_str() {
            "codex-auth" => "`evo gateway auth codex-auth`".to_owned(),
            name => format!("`evo gateway auth codex-auth --provider {name}`"),
        }
    }
}

/// Where to call: each of OpenAI's two places serves one kind of token, any other place both.
pub(super) fn place(base_url: &str, subscriber: bool) -> Result<Address, (String, String)> {
    let base = base_url.trim_end_matches('/');
    let base = match (base, subscriber) {
        (CHATGPT, false) => API,
        (API, true) => CHATGPT,
        (other, _) => other,
    };
    let mut address = address(Dialect::OpenAiResponses, base)?;
    // It is for Codex, which asks for answers only.
    (address.embed, address.count) = (None, None);
    if subscriber {
        let models = format!("{}?client_version={RELEASE}", address.models);
        address.models =
            Uri::try_from(models).map_err(|error| ("base_url".to_owned(), error.to_string()))?;
    }
    Ok(address)
}

impl Credentials for Account {
    fn access<'a>(&'a self, client: &'a Client) -> BoxFuture<'a, Result<Access, String>> {
        Box::pin(self.get(client))
    }

    fn refused(&self, access: &Access) {
        if let Some(current) = self.state.current.load_full()
            && current.access.headers == access.headers
        {
            self.state.refused.store(Some(Arc::new(current.signed_in.access_token.clone())));
        }
    }
}

#[cfg(test)]
mod tests;
