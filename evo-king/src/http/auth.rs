//! Who may do what. Authentication is on for every route that is not listed as open, so that a new
//! route can't be left without it by accident.

use std::net::{IpAddr, Ipv4Addr};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use evo_common::tokens::Scope;

use super::{audit, detached::to_its_end, error::ApiError};
use crate::state::King;

/// Routes without a token.
const OPEN_ROUTES: &[&str] = &["/health", "/ready"];

/// Routes whose scope is not the usual one.
const SPECIAL_ROUTES: &[(Method, &str, Scope)] = &[
    // Headers of providers may hold keys.
    (Method::GET, "/gateway/config", Scope::Operator),
    (Method::PUT, "/artifacts/{digest}", Scope::Runner),
    (Method::POST, "/skills/{name}/invoke", Scope::Invoke),
    (Method::POST, "/mcp", Scope::Invoke),
    (Method::GET, "/mcp", Scope::Invoke),
    (Method::DELETE, "/mcp", Scope::Invoke),
    (Method::POST, "/v1/traces", Scope::Runner),
    // Who has which token, and what was done with it, is no business of every reader.
    (Method::GET, "/tokens", Scope::Operator),
    (Method::GET, "/audit", Scope::Operator),
    (Method::POST, "/memories/search", Scope::Viewer),
];

/// Scopes that are enough for a route although they don't include the one that it needs.
const ALSO_ENOUGH: &[(Method, &str, Scope)] = &[(Method::POST, "/v1/traces", Scope::Gateway)];

/// The scope that a route needs: viewer for reading and operator for the rest, unless it is
/// listed. `None` for open routes.
pub(super) fn needed_scope(method: &Method, route: &str) -> Option<Scope> {
    if OPEN_ROUTES.contains(&route) {
        return None;
    }
    let special = SPECIAL_ROUTES.iter().find(|(m, r, _)| m == method && *r == route);
    Some(match special {
        Some((_, _, scope)) => *scope,
        None if matches!(*method, Method::GET | Method::HEAD) => Scope::Viewer,
        None => Scope::Operator,
    })
}

/// Whether a scope is enough for a route that needs `needed`.
pub(super) fn is_enough(scope: Scope, needed: Scope, method: &Method, route: &str) -> bool {
    scope.allows(needed) || ALSO_ENOUGH.contains(&(method.clone(), route, scope))
}

/// Refuses requests without the right token. Handlers find the token's scope as an extension.
pub(super) async fn require_token(
    State(king): State<King>,
    mut request: Request,
    next: Next,
) -> Response {
    // A path that is no route needs a token too: strangers don't learn which routes exist.
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if let Some(needed) = needed_scope(request.method(), route) {
        let presented = presented_token(request.headers());
        let Some(identity) = king.keyring.identify(presented) else {
            return unauthorized(needed, presented.is_some());
        };
        if !is_enough(identity.scope, needed, request.method(), route) {
            let refusal = forbidden(needed, identity.scope);
            // Strangers could fill the audit log; who has a token and tries more than it allows is
            // in there.
            return match audit::row_of(&request, &identity) {
                Some(row) => {
                    let this = king.clone();
                    to_its_end(&king, async move { audit::write(&this, row, refusal).await }).await
                }
                None => refusal,
            };
        }
        request.extensions_mut().insert(identity.scope);
        request.extensions_mut().insert(identity);
    }
    next.run(request).await
}

fn forbidden(needed: Scope, given: Scope) -> Response {
    let message = format!(
        "This needs the {needed} token, and the one sent is the {given} token; `tokens.toml` in \
         king's data folder has all of them."
    );
    ApiError::new(StatusCode::FORBIDDEN, "forbidden", message).into_response()
}

fn unauthorized(needed: Scope, sent: bool) -> Response {
    let fault =
        if sent { "the one sent is unknown, revoked or has expired" } else { "none was sent" };
    let message = format!(
        "This needs the {needed} token and {fault}: send `Authorization: Bearer TOKEN` with the one \
         that `tokens.toml` in king's data folder names `{needed}`."
    );
    let mut response =
        ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message).into_response();
    let challenge = HeaderValue::from_static("Bearer realm=\"evo-king\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// The token of `Authorization: Bearer …`, else of `x-api-key`.
fn presented_token(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        // A header of another scheme is a wrong token, not a missing one.
        let value = value.to_str().unwrap_or_default();
        return Some(match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => "",
        });
    }
    headers.get("x-api-key").map(|value| value.to_str().unwrap_or_default().trim())
}

/// Refuses what a web page could make a browser send. Without tokens (`open`) a page may neither
/// reach king under a name of its own (DNS rebinding: `Host`) nor send requests across origins
/// (`Origin`). With tokens, only the name is checked, when king listens on loopback.
pub(super) async fn check_host_and_origin(
    State(king): State<King>,
    request: Request,
    next: Next,
) -> Response {
    let address = king.address;
    let rules = if king.config.open {
        Rules::Open { port: address.port() }
    } else if address.ip().is_loopback() {
        Rules::Loopback { public: king.config.public_url.as_deref().and_then(authority) }
    } else {
        Rules::Any
    };
    match rules.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// Which hosts and origins pass.
#[derive(Debug, Clone, Copy)]
enum Rules<'a> {
    /// No tokens: only loopback with king's own port.
    Open { port: u16 },
    /// Tokens, on loopback: any loopback name, and the one of `public_url` behind a proxy. The
    /// port is free, so that a forwarded one works.
    Loopback { public: Option<&'a str> },
    /// Tokens, reachable from elsewhere.
    Any,
}

impl Rules<'_> {
    fn check(self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let (port, public) = match self {
            Self::Any => return Ok(()),
            Self::Loopback { public } => (None, public),
            Self::Open { port } => (Some(port), None),
        };
        let mut hosts = headers
            .get_all(header::HOST)
            .iter()
            .map(|host| host.to_str().unwrap_or_default())
            .chain(uri.authority().map(http::uri::Authority::as_str))
            .peekable();
        if hosts.peek().is_none() {
            return Err(wrong_host(""));
        }
        let passes = |host: &str| {
            is_loopback(host, port, 80) || public.is_some_and(|own| own.eq_ignore_ascii_case(host))
        };
        if let Some(wrong) = hosts.find(|host| !passes(host)) {
            return Err(wrong_host(wrong));
        }
        if port.is_none() {
            return Ok(());
        }
        let wrong = headers
            .get_all(header::ORIGIN)
            .iter()
            .map(|origin| origin.to_str().unwrap_or_default())
            .find(|origin| {
                !origin.strip_prefix("http://").is_some_and(|host| is_loopback(host, port, 80))
            });
        wrong.map_or(Ok(()), |origin| {
            Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "origin_not_allowed",
                format!(
                    "King runs with --open, so a page of the origin {origin:?} may not use it. \
                     Start king without --open and send a token."
                ),
            ))
        })
    }
}

fn wrong_host(host: &str) -> ApiError {
    ApiError::new(
        StatusCode::FORBIDDEN,
        "host_not_allowed",
        format!(
            "King listens on loopback and the request asks for the host {host:?}; use \
             127.0.0.1 or localhost with king's port, or set public_url to the address under which \
             a proxy serves king."
        ),
    )
}

/// The `host[:port]` of a URL.
fn authority(url: &str) -> Option<&str> {
    url.split_once("://")?.1.split('/').next()
}

/// Whether `host[:port]` is this machine, and the port is the one wanted.
fn is_loopback(host: &str, wanted: Option<u16>, default: u16) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => match port.parse() {
            Ok(port) => (name, port),
            Err(_) => return false,
        },
        _ => (host, default),
    };
    if wanted.is_some_and(|wanted| wanted != port) {
        return false;
    }
    let ip: Option<IpAddr> = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(v6) => v6.parse().ok().map(IpAddr::V6),
        None => name.parse().ok().map(|v4: Ipv4Addr| IpAddr::V4(v4)),
    };
    name.eq_ignore_ascii_case("localhost") || ip.is_some_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in
            ["localhost", "LocalHost:3000", "127.0.0.1:3000", "127.1.2.3:3000", "[::1]:3000"]
        {
            assert!(is_loopback(host, None, 80), "{host}");
            assert_eq!(is_loopback(host, Some(3000), 80), host.contains(':'), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:3000",
            "localhost.evil.example:3000",
            "10.0.0.1:3000",
            "127.0.0.1.evil.example:3000",
            "localhost:",
            "localhost:3000:3000",
            "localhost:x",
            "user@localhost:3000",
            "[::2]:3000",
            "::1",
            "0.0.0.0:3000",
        ] {
            assert!(!is_loopback(host, None, 80), "{host}");
        }
        assert!(!is_loopback("localhost:3001", Some(3000), 80));
    }

    fn check(rules: Rules<'_>, headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        rules.check(&Uri::from_static("/agents"), &map).is_ok()
    }

    #[test]
    fn without_tokens_host_and_origin_must_be_kings_own() {
        let open = Rules::Open { port: 3000 };
        let table: &[(&[_], bool)] = &[
            (&[("host", "localhost:3000")], true),
            (&[("host", "localhost:3000"), ("origin", "http://127.0.0.1:3000")], true),
            (&[("host", "localhost:3000"), ("origin", "http://localhost:8080")], false),
            (&[("host", "localhost:3000"), ("origin", "https://localhost:3000")], false),
            (&[("host", "localhost:3000"), ("origin", "https://evil.example")], false),
            (&[("host", "localhost:3000"), ("origin", "null")], false),
            (&[("host", "localhost:3000"), ("host", "evil.example")], false),
            (&[("host", "evil.example:3000")], false),
            (&[("host", "localhost:3001")], false),
            (&[], false),
        ];
        for (headers, passes) in table {
            assert_eq!(check(open, headers), *passes, "{headers:?}");
        }
    }

    #[test]
    fn with_tokens_only_a_foreign_name_is_refused_and_only_on_loopback() {
        let foreign_page = [("host", "localhost:9000"), ("origin", "https://app.example")];
        let loopback = Rules::Loopback { public: authority("https://evo.example/king") };
        assert!(check(loopback, &foreign_page));
        assert!(check(loopback, &[("host", "Evo.example")]));
        assert!(!check(loopback, &[("host", "rebound.example:3000")]));
        assert!(!check(Rules::Loopback { public: None }, &[("host", "evo.example")]));
        assert!(!check(loopback, &[]));
        assert!(check(Rules::Any, &[("host", "king.example")]));
    }

    #[test]
    fn tokens_come_in_two_headers() {
        let token = |name: &'static str, value: &'static str| {
            let mut map = HeaderMap::new();
            map.insert(name, HeaderValue::from_static(value));
            presented_token(&map).map(str::to_owned)
        };
        assert_eq!(token("authorization", "Bearer a").as_deref(), Some("a"));
        assert_eq!(token("authorization", "bearer  a ").as_deref(), Some("a"));
        assert_eq!(token("authorization", "Basic a").as_deref(), Some(""));
        assert_eq!(token("x-api-key", "a").as_deref(), Some("a"));
        assert_eq!(token("cookie", "a"), None);
    }
}
