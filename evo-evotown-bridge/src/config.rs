//! Where Evotown is and who we are there. The only place that reads the environment.

use std::fmt;

use url::Url;

/// Address of Evotown; `EVOTOWN_URL` is read when it is not set.
pub const URL: &str = "EVO_EVOTOWN_URL";
/// Token of this engine; `EVOTOWN_ENGINE_INGEST_TOKEN` is read when it is not set.
pub const TOKEN: &str = "EVO_EVOTOWN_TOKEN";

const URL_NAMES: [&str; 2] = [URL, "EVOTOWN_URL"];
const TOKEN_NAMES: [&str; 2] = [TOKEN, "EVOTOWN_ENGINE_INGEST_TOKEN"];

/// The link to one Evotown.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// Its address.
    pub url: Url,
    /// The token to call it with.
    token: String,
}

/// What is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A variable is needed and not set.
    #[error("{name} is not set; {what}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// What belongs there.
        what: &'static str,
    },
    /// The address can't be used.
    #[error("{name}: {value:?} is no http or https address with a host: {reason}")]
    Address {
        /// The variable it came from.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The token would go over the network in clear text.
    #[error("{name}: {value:?} is not encrypted; use https (http is for loopback only)")]
    Plain {
        /// The variable it came from.
        name: &'static str,
        /// Its value.
        value: String,
    },
}

impl Config {
    /// Reads and checks the configuration; `env` looks up a variable.
    pub fn from_env(env: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let first = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| {
                env(name).filter(|value| !value.trim().is_empty()).map(|value| (name, value))
            })
        };
        let (name, value) = first(URL_NAMES)
            .ok_or(Error::Missing { name: URL, what: "set it to Evotown's address" })?;
        let url = parse_address(name, &value)?;
        let (_, token) = first(TOKEN_NAMES)
            .ok_or(Error::Missing { name: TOKEN, what: "set it to this engine's token" })?;
        Ok(Self { url, token })
    }

    /// Reads and checks the configuration of this process.
    pub fn load() -> Result<Self, Error> {
        #[expect(clippy::disallowed_methods, reason = "this is the module that reads it")]
        Self::from_env(|name| std::env::var(name).ok())
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("url", &self.url.as_str()).field("token", &"***").finish()
    }
}

fn parse_address(name: &'static str, value: &str) -> Result<Url, Error> {
    let refuse = |reason: String| Error::Address { name, value: value.to_owned(), reason };
    let url = Url::parse(value.trim()).map_err(|e| refuse(e.to_string()))?;
    let loopback = match url.host() {
        None => return Err(refuse("it has no host".to_owned())),
        Some(url::Host::Domain(domain)) => domain == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        "http" => Err(Error::Plain { name, value: value.to_owned() }),
        other => Err(refuse(format!("its scheme is {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&str, &str)]) -> Result<Config, Error> {
        Config::from_env(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn evotowns_own_names_are_read_too_and_ours_win() {
        let theirs =
            [("EVOTOWN_URL", "http://127.0.0.1:8000"), ("EVOTOWN_ENGINE_INGEST_TOKEN", "evi_1")];
        assert_eq!(check(&theirs).unwrap().url.as_str(), "http://127.0.0.1:8000/");
        let both = [theirs[0], theirs[1], (URL, "https://town.example/")];
        assert_eq!(check(&both).unwrap().url.as_str(), "https://town.example/");
    }

    #[test]
    fn a_fault_names_the_variable() {
        assert!(matches!(check(&[]), Err(Error::Missing { name: URL, .. })));
        assert!(matches!(check(&[(URL, " ")]), Err(Error::Missing { name: URL, .. })));
        let town = (URL, "https://town.example");
        assert!(matches!(check(&[town]), Err(Error::Missing { name: TOKEN, .. })));
        for address in ["town.example", "ftp://town.example", "unix:/run/town"] {
            let result = check(&[(URL, address), (TOKEN, "evi_1")]);
            assert!(matches!(result, Err(Error::Address { name: URL, .. })), "{address}");
        }
        let plain = check(&[(URL, "http://town.example"), (TOKEN, "evi_1")]);
        assert!(matches!(plain, Err(Error::Plain { name: URL, .. })));
    }

    #[test]
    fn the_token_is_never_shown() {
        let config = check(&[(URL, "https://town.example"), (TOKEN, "evi_secret")]).unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }
}
