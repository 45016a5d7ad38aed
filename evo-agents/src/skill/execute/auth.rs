//! Auth tokens: which one, whether it may go there, and how it is sent.

use evo_common::tokens::Secret;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use url::Url;

use super::{
    CallError, CallPolicy, ExecutorConfig, GATEWAY_SERVER, GATEWAY_TOKEN, KING_SERVER, VIEWER_TOKEN,
};
use crate::skill::egress;

/// How a token is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AuthScheme {
    /// `Authorization: Bearer <token>`.
    Bearer,
    /// `Authorization: Basic <base64 of the token>`; the token is `user:password`.
    Basic,
    /// In a header of this name.
    Header(HeaderName),
    /// In a query parameter of this name.
    Query(String),
}

impl AuthScheme {
    /// Reads `bearer`, `basic`, `header:<Name>` and `query:<name>`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text.eq_ignore_ascii_case("bearer") => Some(Self::Bearer),
            None if text.eq_ignore_ascii_case("basic") => Some(Self::Basic),
            Some(("header", name)) => name.parse().ok().map(Self::Header),
            Some(("query", name)) if !name.is_empty() => Some(Self::Query(name.to_owned())),
            _ => None,
        }
    }
}

/// A token on its way into a request.
#[derive(Clone)]
pub(super) struct Auth {
    name: String,
    scheme: AuthScheme,
    token: Secret,
}

/// Finds the token that `name` stands for, if it may be sent to `url`.
pub(super) fn resolve(
    name: &str,
    scheme: AuthScheme,
    url: &Url,
    policy: &CallPolicy,
    config: &ExecutorConfig,
) -> Result<Auth, CallError> {
    let not_allowed = || CallError::AuthNotAllowed {
        name: name.to_owned(),
        host: url.host_str().unwrap_or_default().to_owned(),
    };
    let missing = || CallError::AuthMissing { name: name.to_owned() };
    let own = [
        (VIEWER_TOKEN, KING_SERVER, &config.viewer_token),
        (GATEWAY_TOKEN, GATEWAY_SERVER, &config.gateway_token),
    ];
    let token = match own.into_iter().find(|(own, _, _)| *own == name) {
        Some((_, server, token)) => {
            if !policy.servers.get(server).is_some_and(|base| egress::same_origin(base, url)) {
                return Err(not_allowed());
            }
            token.clone().ok_or_else(missing)?
        }
        None => {
            if !policy.allow_env.iter().any(|allowed| allowed == name) {
                return Err(not_allowed());
            }
            if !policy.token_origins.iter().any(|allowed| egress::same_origin(allowed, url)) {
                return Err(not_allowed());
            }
            let token = (config.env)(name).filter(|token| !token.is_empty()).ok_or_else(missing)?;
            Secret::new(token)
        }
    };
    Ok(Auth { name: name.to_owned(), scheme, token })
}

/// The token for fetching a document from king or the gateway; `None` for any other origin, or
/// when there is no token.
pub(super) fn for_document(
    url: &Url,
    policy: &CallPolicy,
    config: &ExecutorConfig,
) -> Option<Auth> {
    [
        (VIEWER_TOKEN, KING_SERVER, &config.viewer_token),
        (GATEWAY_TOKEN, GATEWAY_SERVER, &config.gateway_token),
    ]
    .into_iter()
    .find(|(_, server, _)| {
        policy.servers.get(*server).is_some_and(|base| egress::same_origin(base, url))
    })
    .and_then(|(name, _, token)| {
        let token = token.clone()?;
        Some(Auth { name: name.to_owned(), scheme: AuthScheme::Bearer, token })
    })
}

impl Auth {
    /// The token alone, for whoever sends it as a bearer token by other means.
    pub(super) fn into_token(self) -> Secret {
        self.token
    }

    /// Puts the token into the URL or the headers.
    pub(super) fn apply(
        &self,
        url: &mut Url,
        headers: &mut reqwest::header::HeaderMap,
    ) -> Result<(), CallError> {
        let (name, text) = match &self.scheme {
            AuthScheme::Query(name) => {
                url.query_pairs_mut().append_pair(name, self.token.expose());
                return Ok(());
            }
            AuthScheme::Bearer => (AUTHORIZATION, format!("Bearer {}", self.token.expose())),
            AuthScheme::Basic => {
                use base64::Engine as _;
                let encoded = base64::engine::general_purpose::STANDARD.encode(self.token.expose());
                (AUTHORIZATION, format!("Basic {encoded}"))
            }
            AuthScheme::Header(name) => (name.clone(), self.token.expose().to_owned()),
        };
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            CallError::InvalidPackage(format!(
                "the value of {} holds a character that no header may hold",
                self.name
            ))
        })?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn schemes_are_read() {
        assert_eq!(AuthScheme::parse("Bearer"), Some(AuthScheme::Bearer));
        assert_eq!(
            AuthScheme::parse("header:X-Api-Key"),
            Some(AuthScheme::Header(HeaderName::from_static("x-api-key")))
        );
        assert_eq!(AuthScheme::parse("query:key"), Some(AuthScheme::Query("key".to_owned())));
        for wrong in ["", "digest", "header:", "header:a b", "query:", "cookie:x"] {
            assert_eq!(AuthScheme::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn tokens_go_only_where_they_belong() {
        let config = ExecutorConfig {
            viewer_token: Some(Secret::new("v")),
            gateway_token: None,
            env: Arc::new(|name| (name == "PET_KEY").then(|| "k".to_owned())),
            ..ExecutorConfig::default()
        };
        let policy = CallPolicy {
            servers: [
                (KING_SERVER.to_owned(), "http://127.0.0.1:3000".to_owned()),
                (GATEWAY_SERVER.to_owned(), "http://127.0.0.1:8080".to_owned()),
                ("pets".to_owned(), "http://127.0.0.1:9000".to_owned()),
            ]
            .into(),
            allow_origins: vec!["http://127.0.0.1:8000".to_owned()],
            allow_env: vec!["PET_KEY".to_owned(), "UNSET".to_owned()],
            token_origins: vec![
                "http://127.0.0.1:8000".to_owned(),
                "https://pets.example.com".to_owned(),
            ],
            ..CallPolicy::default()
        };
        let code = |name: &str, url: &str| {
            let url = Url::parse(url).unwrap();
            egress::check(&url, &policy).unwrap();
            resolve(name, AuthScheme::Bearer, &url, &policy, &config)
                .map(|auth| auth.token.expose().to_owned())
                .map_err(|error| error.code())
        };
        assert_eq!(code(VIEWER_TOKEN, "http://127.0.0.1:3000/skills"), Ok("v".to_owned()));
        assert_eq!(code(VIEWER_TOKEN, "http://127.0.0.1:8000/"), Err("auth_not_allowed"));
        assert_eq!(code(VIEWER_TOKEN, "https://api.example.com/"), Err("auth_not_allowed"));
        assert_eq!(code(GATEWAY_TOKEN, "http://127.0.0.1:8080/"), Err("auth_missing"));
        assert_eq!(code("PET_KEY", "http://127.0.0.1:8000/"), Ok("k".to_owned()));
        assert_eq!(code("PET_KEY", "https://pets.example.com/"), Ok("k".to_owned()));
        for public in
            ["https://api.example.com/", "http://pets.example.com/", "https://x.pets.example.com/"]
        {
            assert_eq!(code("PET_KEY", public), Err("auth_not_allowed"), "{public}");
        }
        assert_eq!(code("PET_KEY", "http://127.0.0.1:9000/"), Err("auth_not_allowed"));
        assert_eq!(code("UNSET", "http://127.0.0.1:8000/"), Err("auth_missing"));
        assert_eq!(code("HOME", "http://127.0.0.1:8000/"), Err("auth_not_allowed"));
    }
}
