//! OpenAI's sign-in, as the Codex programs use it: OAuth with PKCE, and codes for devices without a
//! browser.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{Duration, Utc};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::{Url, form_urlencoded};

use super::jwt;
use crate::{
    provider::{
        credentials::SignedIn,
        exchange::{self, Answer},
    },
    upstream::Client,
};

/// The program that signs in: Codex's own id, the only one that may use a ChatGPT subscription.
const CLIENT: &str = "app_EMoamEEZ73f0CkXaXp7hrann";
const SCOPE: &str = "openid profile email offline_access";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const JSON: (&str, &str) = ("content-type", "application/json");

/// The secret of one sign-in, of which the browser sees a digest only.
#[derive(Clone)]
pub(crate) struct Verifier(String);

impl Verifier {
    /// A new one.
    pub(crate) fn new() -> Self {
        Self(random())
    }

    fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.0.as_bytes()))
    }
}

/// 64 random bytes that an address can hold.
pub(crate) fn random() -> String {
    let bytes: [u8; 64] = std::array::from_fn(|_| rand::random());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Asks a login server.
#[derive(Debug, Clone)]
pub(crate) struct Issuer {
    base: String,
}

/// A code for a device without a browser.
#[derive(Debug, Deserialize)]
pub(crate) struct DeviceCode {
    device_auth_id: String,
    /// What people type.
    #[serde(alias = "usercode")]
    pub(crate) user_code: String,
    /// Seconds between two questions; comes as a number or as a text.
    #[serde(default)]
    interval: Value,
}

impl DeviceCode {
    /// How long to wait between two questions.
    pub(crate) fn interval(&self) -> std::time::Duration {
        let seconds = match &self.interval {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_u64(),
        };
        std::time::Duration::from_secs(seconds.unwrap_or(5).min(60))
    }
}

/// What a login server answers to those who may come in.
#[derive(Deserialize)]
struct Tokens {
    access_token: String,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default)]
    id_token: Option<String>,
    #[serde(default)]
    expires_in: Option<i64>,
}

/// Why tokens were not refreshed.
#[derive(Debug)]
pub(crate) enum NotRefreshed {
    /// Another sign-in is needed.
    Refused,
    /// Another try may help.
    Failed(String),
}

impl Issuer {
    /// The login server at `base`.
    pub(crate) fn new(base: &str) -> Self {
        Self { base: base.trim_end_matches('/').to_owned() }
    }

    /// The page where people sign in with a browser, which then goes to `redirect`.
    pub(crate) fn page(
        &self,
        redirect: &str,
        verifier: &Verifier,
        state: &str,
    ) -> Result<Url, String> {
        let page = format!("{}/oauth/authorize", self.base);
        let mut page = Url::parse(&page).map_err(|error| format!("{page:?}: {error}"))?;
        page.query_pairs_mut().extend_pairs([
            ("response_type", "code"),
            ("client_id", CLIENT),
            ("redirect_uri", redirect),
            ("scope", SCOPE),
            ("code_challenge", &verifier.challenge()),
            ("code_challenge_method", "S256"),
            ("id_token_add_organizations", "true"),
            ("codex_cli_simplified_flow", "true"),
            ("state", state),
        ]);
        Ok(page)
    }

    /// Exchanges the code that came with the browser.
    pub(crate) async fn exchange(
        &self,
        client: &Client,
        code: &str,
        redirect: &str,
        verifier: &Verifier,
    ) -> Result<SignedIn, String> {
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("grant_type", "authorization_code"),
                ("code", code),
                ("redirect_uri", redirect),
                ("client_id", CLIENT),
                ("code_verifier", &verifier.0),
            ])
            .finish();
        let answer = self.post(client, "/oauth/token", FORM, form).await?;
        if !answer.status.is_success() {
            return Err(format!(
                "the code was refused ({}); sign in again",
                answer.status.as_u16()
            ));
        }
        Ok(signed_in(answer.json()?, None))
    }

    /// Gets another access token.
    pub(crate) async fn refresh(
        &self,
        client: &Client,
        old: &SignedIn,
    ) -> Result<SignedIn, NotRefreshed> {
        let token = old.refresh_token.as_deref().ok_or(NotRefreshed::Refused)?;
        let body = json!({
            "client_id": CLIENT, "grant_type": "refresh_token", "refresh_token": token,
            "scope": "openid profile email",
        });
        let answer = self.post(client, "/oauth/token", JSON, body.to_string()).await;
        let answer = answer.map_err(NotRefreshed::Failed)?;
        match answer.status.as_u16() {
            200..=299 => {
                let tokens = answer.json().map_err(NotRefreshed::Failed)?;
                Ok(signed_in(tokens, Some(old)))
            }
            400 | 401 | 403 => Err(NotRefreshed::Refused),
            status => Err(NotRefreshed::Failed(format!("the login server answers {status}"))),
        }
    }

    /// Asks for a code for this device.
    pub(crate) async fn device_code(&self, client: &Client) -> Result<DeviceCode, String> {
        let body = json!({ "client_id": CLIENT }).to_string();
        let answer = self.post(client, "/api/accounts/deviceauth/usercode", JSON, body).await?;
        match answer.status.as_u16() {
            200..=299 => answer.json(),
            404 => {
                Err("the login server gives no codes for devices; sign in with a browser"
                    .to_owned())
            }
            status => Err(format!("the login server answers {status}")),
        }
    }

    /// Where people type that code.
    pub(crate) fn device_page(&self) -> String {
        format!("{}/codex/device", self.base)
    }

    /// Asks whether somebody has typed the code. `None` while nobody has.
    pub(crate) async fn ask_device(
        &self,
        client: &Client,
        code: &DeviceCode,
    ) -> Result<Option<SignedIn>, String> {
        #[derive(Deserialize)]
        struct Typed {
            authorization_code: String,
            code_verifier: String,
        }
        let body = json!({ "device_auth_id": code.device_auth_id, "user_code": code.user_code });
        let path = "/api/accounts/deviceauth/token";
        let answer = self.post(client, path, JSON, body.to_string()).await?;
        match answer.status.as_u16() {
            200..=299 => {
                let Typed { authorization_code, code_verifier } = answer.json()?;
                let redirect = format!("{}/deviceauth/callback", self.base);
                let verifier = Verifier(code_verifier);
                self.exchange(client, &authorization_code, &redirect, &verifier).await.map(Some)
            }
            403 | 404 => Ok(None),
            status => Err(format!("the login server answers {status}")),
        }
    }

    async fn post(
        &self,
        client: &Client,
        path: &str,
        kind: (&'static str, &str),
        body: String,
    ) -> Result<Answer, String> {
        let headers = [kind, ("accept", "application/json")];
        let uri = format!("{}{path}", self.base);
        exchange::call(client, exchange::request(Method::POST, &uri, &headers, body)?).await
    }
}

/// What is kept of new tokens. What they leave out stays as it was.
fn signed_in(tokens: Tokens, old: Option<&SignedIn>) -> SignedIn {
    let access = jwt::claims(&tokens.access_token);
    let id = tokens.id_token.as_deref().map(jwt::claims).unwrap_or_default();
    let now = Utc::now();
    let lasts =
        tokens.expires_in.and_then(Duration::try_seconds).and_then(|it| now.checked_add_signed(it));
    let before = |part: fn(&SignedIn) -> &Option<String>| old.and_then(|old| part(old).clone());
    SignedIn {
        account_id: id.account_id.or(access.account_id).or_else(|| before(|old| &old.account_id)),
        email: id.email.or(access.email).or_else(|| before(|old| &old.email)),
        expires_at: access.expires_at.or(lasts),
        refresh_token: tokens.refresh_token.or_else(|| before(|old| &old.refresh_token)),
        access_token: tokens.access_token,
        updated_at: now,
    }
}

/// What is kept of a token that somebody has: one of ChatGPT, or a key of the API.
pub(crate) fn of_token(token: &str, account_id: Option<String>) -> SignedIn {
    let claims = jwt::claims(token);
    SignedIn {
        access_token: token.to_owned(),
        refresh_token: None,
        account_id: account_id.or(claims.account_id),
        email: claims.email,
        expires_at: claims.expires_at,
        updated_at: Utc::now(),
    }
}
