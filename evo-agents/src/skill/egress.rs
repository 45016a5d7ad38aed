//! Where a skill may connect to. Endpoints come from documents that nobody here wrote, so by
//! default only public addresses can be reached; loopback and private ones need an exact origin
//! that the operator listed.
//!
//! What is checked is what is connected: names are resolved by `PublicOnly` inside the HTTP
//! client, so that a name can't show one address to a check and another one to the connection.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::execute::{CallError, CallPolicy};

/// Why an origin may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// The operator listed it under `allow_origins`.
    Listed,
    /// It is the address of a server that the operator configured.
    Server,
    /// Nobody named it: it must be public.
    Public,
}

/// Whether a URL may be called under a policy, before its name is resolved.
pub(crate) fn check(url: &Url, policy: &CallPolicy) -> Result<Access, CallError> {
    let origin = origin(url);
    let denied = |reason: &str| {
        Err(CallError::OriginNotAllowed { origin: origin.clone(), reason: reason.to_owned() })
    };
    if !matches!(url.scheme(), "http" | "https") {
        return denied("only http and https are allowed");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return denied("a user name or password in the URL is not allowed; use auth_ref");
    }
    if policy.allow_origins.iter().any(|listed| same_origin(listed, url)) {
        return Ok(Access::Listed);
    }
    if policy.servers.values().any(|server| same_origin(server, url)) {
        return Ok(Access::Server);
    }
    match url.host() {
        Some(Host::Domain(_)) => Ok(Access::Public),
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => {
            denied("it is a raw IP address and not listed under the source's allow_origins")
        }
        None => denied("the URL has no host"),
    }
}

/// The origin of a URL as text: `http://127.0.0.1:3000`.
pub(crate) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Whether the text names the origin of the URL. A path behind the origin does not count.
pub(crate) fn same_origin(text: &str, url: &Url) -> bool {
    Url::parse(text).is_ok_and(|listed| listed.origin() == url.origin())
}

/// Whether an address belongs to the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0 // this network, unspecified
        || a == 10
        || a == 127
        || (a == 100 && (64..128).contains(&b)) // carrier-grade NAT
        || (a == 169 && b == 254) // link-local, cloud metadata
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 168)
        || (a == 192 && b == 0 && (c == 0 || c == 2)) // protocol assignments, documentation
        || (a == 192 && b == 88 && c == 99) // 6to4 relay
        || (a == 198 && (b == 18 || b == 19)) // benchmarking
        || (a == 198 && b == 51 && c == 100) // documentation
        || (a == 203 && b == 0 && c == 113) // documentation
        || a >= 224; // multicast, reserved, broadcast
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let v4 = |high: u16, low: u16| {
        is_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
    };
    match address.segments() {
        // IPv4 inside IPv6: mapped, translated (NAT64), 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] => v4(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        // Teredo, benchmarking, ORCHID and other protocols; documentation.
        [0x2001, 0..0x0200 | 0x0db8, ..] | [0x3fff, 0..0x1000, ..] => false,
        // Only 2000::/3 is given out for public use: this leaves out unspecified, loopback,
        // IPv4-compatible, discard, unique-local, link-local, site-local and multicast addresses.
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

/// A name that resolves to an address which is not public.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name} resolves to {address}, which is no public address; list the origin under the source's allow_origins if that is intended"
)]
pub(crate) struct NotPublic {
    name: String,
    address: IpAddr,
}

/// Resolves names, and refuses one as soon as any of its addresses is not public.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            public_or_refused(name.as_str(), &found)?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Refuses a name of which any address is not public.
pub(crate) fn public_or_refused(name: &str, found: &[SocketAddr]) -> Result<(), NotPublic> {
    match found.iter().find(|address| !is_public(address.ip())) {
        Some(address) => Err(NotPublic { name: name.to_owned(), address: address.ip() }),
        None => Ok(()),
    }
}

/// The two HTTP clients of an executor: one for origins that the operator named, one for the rest.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
    named: reqwest::Client,
    public: reqwest::Client,
}

impl Clients {
    pub(crate) fn new() -> Self {
        Self {
            named: client(|builder| builder),
            public: client(|builder| builder.dns_resolver(Arc::new(PublicOnly))),
        }
    }

    /// The client for an origin.
    pub(crate) fn of(&self, access: Access) -> &reqwest::Client {
        match access {
            Access::Listed | Access::Server => &self.named,
            Access::Public => &self.public,
        }
    }
}

/// An HTTP client without proxy and without redirects of its own: both would go around the checks.
pub(crate) fn client(
    extend: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> reqwest::Client {
    evo_common::tls::install();
    let builder = || {
        extend(
            reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .tcp_nodelay(true)
                .user_agent(concat!("evo/", env!("CARGO_PKG_VERSION"))),
        )
    };
    builder().build().unwrap_or_else(|error| {
        tracing::warn!(
            error = %describe(&error),
            "No CA certificates could be loaded: http works, https does not"
        );
        builder()
            .tls_certs_only([])
            .build()
            .expect("a client without certificates needs nothing from the machine")
    })
}

/// What went wrong, with its causes and without the URL, which may hold a token.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let part = match error.downcast_ref::<reqwest::Error>() {
            Some(error) => kind(error).to_owned(),
            None => error.to_string(),
        };
        if !text.ends_with(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

/// reqwest's own message without the URL that it appends.
fn kind(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "timed out"
    } else if error.is_connect() {
        "could not connect"
    } else if error.is_body() || error.is_decode() {
        "the body could not be read"
    } else if error.is_builder() {
        "the request could not be built"
    } else {
        "the request failed"
    }
}

/// The refusal of `PublicOnly` inside an error of the HTTP client.
pub(crate) fn not_public(error: &reqwest::Error) -> Option<&NotPublic> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<NotPublic>() {
            return Some(refused);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow_origins: &[&str]) -> CallPolicy {
        CallPolicy {
            allow_origins: allow_origins.iter().map(|&origin| origin.to_owned()).collect(),
            servers: [("evo-king".to_owned(), "http://127.0.0.1:3000".to_owned())].into(),
            ..CallPolicy::default()
        }
    }

    fn access(url: &str) -> Result<Access, CallError> {
        check(&Url::parse(url).unwrap(), &policy(&["http://127.0.0.1:8000", "http://intern:80/x"]))
    }

    #[test]
    fn only_public_addresses_are_public() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "127.0.0.1",
            "127.8.8.8",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a00:1",
            "64:ff9b:1::808:808",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "::8.8.8.8",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "8.8.8.8",
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn one_private_address_spoils_a_name() {
        let found = ["8.8.8.8:0".parse().unwrap(), "10.0.0.1:0".parse().unwrap()];
        assert!(public_or_refused("rebind.example", &found).is_err());
        assert!(public_or_refused("fine.example", &found[..1]).is_ok());
    }

    #[test]
    fn exact_origins_pass_and_nothing_like_them() {
        assert_eq!(access("http://127.0.0.1:8000/a"), Ok(Access::Listed));
        assert_eq!(access("http://intern/a"), Ok(Access::Listed));
        assert_eq!(access("http://127.0.0.1:3000/health"), Ok(Access::Server));
        assert_eq!(access("https://api.example.com/"), Ok(Access::Public));
        for url in [
            "http://127.0.0.1:8001/",
            "https://127.0.0.1:8000/",
            "http://127.1:9/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://[::1]:3000/",
            "http://[::ffff:127.0.0.1]:8000/",
            "http://8.8.8.8/",
            "file:///etc/passwd",
            "ftp://host/",
            "http://a:b@api.example.com/",
        ] {
            assert!(
                matches!(access(url), Err(CallError::OriginNotAllowed { .. })),
                "{url}: {:?}",
                access(url)
            );
        }
    }
}
