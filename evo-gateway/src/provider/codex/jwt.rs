//! What the tokens of OpenAI's sign-in say of themselves. They are read, never checked: the server that
//! gets them does that.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::Deserialize;

/// What a token claims.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    /// The ChatGPT account.
    pub(crate) account_id: Option<String>,
    /// Whose it is.
    pub(crate) email: Option<String>,
    /// When it ends.
    pub(crate) expires_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct Payload {
    #[serde(default)]
    exp: Option<i64>,
    #[serde(default)]
    email: Option<String>,
    #[serde(rename = "https://api.openai.com/auth", default)]
    auth: Option<Auth>,
    #[serde(rename = "https://api.openai.com/profile", default)]
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    chatgpt_account_id: Option<String>,
}

#[derive(Deserialize)]
struct Profile {
    #[serde(default)]
    email: Option<String>,
}

/// The claims of a token; none of one that is no JWT.
pub(crate) fn claims(token: &str) -> Claims {
    let payload = || -> Option<Payload> {
        let mut parts = token.split('.');
        let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next())
        else {
            return None;
        };
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
    };
    payload()
        .map(|payload| Claims {
            account_id: payload.auth.and_then(|auth| auth.chatgpt_account_id),
            email: payload.email.or_else(|| payload.profile.and_then(|profile| profile.email)),
            expires_at: payload.exp.and_then(|exp| DateTime::from_timestamp(exp, 0)),
        })
        .unwrap_or_default()
}

/// A token that claims `claims`, as only a test may make one.
#[cfg(test)]
pub(crate) fn of(claims: &serde_json::Value) -> String {
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(&serde_json::json!({"alg": "none"}));
    format!("{head}.{}.c2lnbmF0dXJl", part(claims))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_read_and_nothing_else_is_believed_to_be_one() {
        let token = of(&json!({
            "exp": 1_900_000_000, "email": "me@example.com",
            "https://api.openai.com/auth": {"chatgpt_account_id": "acc-1", "user_id": "u"},
        }));
        let claims_of = claims(&token);
        assert_eq!(claims_of.account_id.as_deref(), Some("acc-1"));
        assert_eq!(claims_of.email.as_deref(), Some("me@example.com"));
        assert_eq!(claims_of.expires_at.unwrap().timestamp(), 1_900_000_000);
        let profile = of(&json!({"https://api.openai.com/profile": {"email": "you@example.com"}}));
        assert_eq!(claims(&profile).email.as_deref(), Some("you@example.com"));
        for token in ["", "sk-abc", "a.b", "a.b.c", "a.b.c.d", "..", &of(&json!([]))] {
            assert_eq!(claims(token), Claims::default(), "{token}");
        }
    }
}
