//! Refuses what a web page could make a browser send, when no token is asked for (`--open`): a page
//! may neither reach the gateway under a name of its own (DNS rebinding: `Host`) nor send requests
//! across origins (`Origin`). With tokens there is nothing to refuse: no browser adds one by itself.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::{HeaderMap, Uri, header, uri::Authority};

use crate::proxy::Refused;

/// Which hosts and origins pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    /// No tokens: only loopback with the gateway's own port.
    Open {
        /// The gateway's port.
        port: u16,
    },
    /// Tokens.
    Any,
}

impl Rules {
    /// Checks a request.
    pub(super) fn check(self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
        let Self::Open { port } = self else { return Ok(()) };
        let mut hosts = headers
            .get_all(header::HOST)
            .iter()
            .map(|host| host.to_str().unwrap_or_default())
            .chain(uri.authority().map(Authority::as_str))
            .peekable();
        if hosts.peek().is_none() {
            return Err(wrong_host(""));
        }
        if let Some(wrong) = hosts.find(|host| !is_loopback(host, port)) {
            return Err(wrong_host(wrong));
        }
        let foreign = headers
            .get_all(header::ORIGIN)
            .iter()
            .map(|origin| origin.to_str().unwrap_or_default())
            .find(|origin| {
                !origin.strip_prefix("http://").is_some_and(|host| is_loopback(host, port))
            });
        foreign.map_or(Ok(()), |origin| {
            Err(Refused::new(
                403,
                "origin_not_allowed",
                format!(
                    "The gateway runs with --open, so a page of the origin {origin:?} may not use \
                     it. Start it without --open and send a token."
                ),
            ))
        })
    }
}

fn wrong_host(host: &str) -> Refused {
    Refused::new(
        403,
        "host_not_allowed",
        format!(
            "The gateway runs with --open and the request asks for the host {host:?}; use 127.0.0.1 \
             or localhost with the gateway's port, or start it without --open and send a token."
        ),
    )
}

/// Whether `host[:port]` is this machine, and the port is the one wanted.
fn is_loopback(host: &str, wanted: u16) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => match port.parse() {
            Ok(port) => (name, port),
            Err(_) => return false,
        },
        _ => (host, 80),
    };
    if wanted != port {
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
    use axum::http::HeaderValue;

    use super::*;

    fn check(rules: Rules, headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        rules.check(&Uri::from_static("/v1/models"), &map).is_ok()
    }

    #[test]
    fn without_tokens_host_and_origin_must_be_the_gateways_own() {
        let open = Rules::Open { port: 8080 };
        let table: &[(&[_], bool)] = &[
            (&[("host", "localhost:8080")], true),
            (&[("host", "[::1]:8080")], true),
            (&[("host", "localhost:8080"), ("origin", "http://127.0.0.1:8080")], true),
            (&[("host", "localhost:8080"), ("origin", "http://localhost:3000")], false),
            (&[("host", "localhost:8080"), ("origin", "https://evil.example")], false),
            (&[("host", "localhost:8080"), ("origin", "null")], false),
            (&[("host", "localhost:8080"), ("host", "evil.example")], false),
            (&[("host", "evil.example:8080")], false),
            (&[("host", "127.0.0.1.evil.example:8080")], false),
            (&[("host", "localhost:8081")], false),
            (&[("host", "localhost:")], false),
            (&[], false),
        ];
        for (headers, passes) in table {
            assert_eq!(check(open, headers), *passes, "{headers:?}");
        }
    }

    #[test]
    fn with_tokens_any_name_will_do() {
        assert!(check(Rules::Any, &[("host", "gateway:8080"), ("origin", "https://app.example")]));
    }
}
