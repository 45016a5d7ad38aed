//! Checks that several configuration types share. An error says what is wrong and what to do.

use url::Url;

/// An `http` or `https` URL with a host.
pub fn http_url(text: &str) -> Result<(), String> {
    let wrong = |why: &str| format!("{text:?} is no address ({why}): use http://host:port/path");
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user or password, which belong into an environment variable: \
                    name that one with `api_key_envs` or `auth_ref`"
            .to_owned());
    }
    match (url.scheme(), url.has_host()) {
        ("http" | "https", true) => Ok(()),
        ("http" | "https", false) => Err(wrong("it has no host")),
        (other, _) => Err(wrong(&format!("its scheme is `{other}`"))),
    }
}

/// Scheme, host and port, and nothing else.
pub(super) fn origin(text: &str) -> Result<(), String> {
    http_url(text)?;
    let origin = Url::parse(text).map(|url| url.origin().ascii_serialization());
    let same = |origin: &String| text.trim_end_matches('/').eq_ignore_ascii_case(origin);
    match origin {
        // A port that the scheme implies may be written all the same.
        Ok(origin) if same(&origin) || same(&with_port(&origin)) => Ok(()),
        Ok(origin) => Err(format!("{text:?} is more than an origin: write {origin:?}")),
        Err(error) => Err(format!("{text:?} is no address ({error})")),
    }
}

fn with_port(origin: &str) -> String {
    let port = if origin.starts_with("https:") { 443 } else { 80 };
    format!("{origin}:{port}")
}

/// The name of an environment variable.
pub(super) fn variable(name: &str) -> Result<(), String> {
    let legal = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if legal {
        return Ok(());
    }
    // Whoever pastes the key itself here should not find it in a log.
    Err("this is no name of an environment variable: use letters, digits and `_`, not the key itself"
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        for good in [
            "http://127.0.0.1:8000",
            "https://api.example",
            "https://api.example/",
            "http://[::1]:80",
            "HTTPS://API.example:443",
        ] {
            assert_eq!(origin(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:8000",
            "ftp://x",
            "http://a/b",
            "http://u:p@a",
            "http://a?x=1",
            "http://a#b",
            "*",
            "http://*.example/*",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
        assert!(origin("http://a:1/b").unwrap_err().ends_with("write \"http://a:1\""));
    }

    #[test]
    fn variables() {
        assert_eq!(variable("OPENAI_API_KEY_2"), Ok(()));
        for bad in ["", "sk-abcdef", "2X", "A=B", "Ä"] {
            assert!(variable(bad).is_err(), "{bad}");
        }
    }
}
