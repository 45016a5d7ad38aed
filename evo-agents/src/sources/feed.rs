//! A feed: a JSON list of sources, kept by somebody else. Its entries can only narrow what the
//! operator allows the feed: they bring no programs, no addresses and no secrets of their own.

use std::path::{Component, Path};

use evo_common::config::{SourceConfig, SourceKind, sources::is_valid_name};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

/// Most entries of a feed.
pub const MAX_ENTRIES: usize = 100;
/// Largest feed.
pub const MAX_BYTES: usize = 1024 * 1024;
/// Longest name of a source.
const MAX_NAME: usize = 32;

/// An entry, as it stands in the list.
#[derive(Debug, Deserialize)]
struct Raw {
    name: String,
    kind: SourceKind,
    #[serde(default)]
    location: String,
    #[serde(default = "full")]
    trust: f64,
    max_candidates: Option<u32>,
    allow_origins: Option<Vec<String>>,
    allow_operations: Option<Vec<String>>,
    allow_env: Option<Vec<String>>,
    #[serde(default)]
    command: Value,
    #[serde(default)]
    base_url: Value,
    #[serde(default)]
    auth_ref: Value,
}

fn full() -> f64 {
    1.0
}

/// An entry that may be looked into.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its own name.
    pub name: String,
    /// How it is looked into: as a source called `<feed>-<entry>` with what is left of the feed's
    /// rights.
    pub source: SourceConfig,
    /// How much the feed thinks of it, from 0 to 1.
    pub trust: f64,
}

/// The entries of a feed; each that can't be used is named with the reason.
pub fn read(
    bytes: &[u8],
    feed: &SourceConfig,
    place: &str,
) -> Result<(Vec<Entry>, Vec<String>), String> {
    if bytes.len() > MAX_BYTES {
        let size = bytes.len();
        return Err(format!("{place}: the feed has {size} bytes; at most {MAX_BYTES} are read"));
    }
    let list: Value = serde_json::from_slice(bytes)
        .map_err(|error| format!("{place}: the feed is not JSON: {error}"))?;
    let list = match list {
        Value::Array(list) => list,
        Value::Object(mut map) => match map.remove("sources") {
            Some(Value::Array(list)) => list,
            _ => return Err(format!("{place}: the feed has no list under `sources`")),
        },
        _ => return Err(format!("{place}: the feed is neither a list nor an object")),
    };
    if list.len() > MAX_ENTRIES {
        let count = list.len();
        return Err(format!(
            "{place}: the feed has {count} entries; at most {MAX_ENTRIES} are read"
        ));
    }
    let (mut entries, mut skipped) = (Vec::<Entry>::new(), Vec::new());
    for (index, value) in list.into_iter().enumerate() {
        let named = value.get("name").and_then(Value::as_str).map(str::to_owned);
        let shown = named.unwrap_or_else(|| format!("entry {index}"));
        let read = serde_json::from_value::<Raw>(value)
            .map_err(|error| error.to_string())
            .and_then(|raw| entry(raw, feed));
        match read {
            Ok(entry) if entries.iter().any(|other| other.source.name == entry.source.name) => {
                skipped.push(format!("{shown}: another entry has this name"));
            }
            Ok(entry) => entries.push(entry),
            Err(reason) => skipped.push(format!("{shown}: {reason}")),
        }
    }
    Ok((entries, skipped))
}

fn entry(raw: Raw, feed: &SourceConfig) -> Result<Entry, String> {
    let Raw { name, kind, location, trust, max_candidates, .. } = raw;
    if !is_valid_name(&name) {
        return Err("`name` has to be 1 to 32 of a-z, 0-9 and dashes".to_owned());
    }
    if !(0.0..=1.0).contains(&trust) {
        return Err(format!("`trust` is {trust}, and has to be from 0 to 1"));
    }
    for (key, value) in
        [("command", &raw.command), ("base_url", &raw.base_url), ("auth_ref", &raw.auth_ref)]
    {
        if !value.is_null() {
            return Err(format!("a feed can't bring a `{key}`: name this source in sources.toml"));
        }
    }
    match kind {
        SourceKind::Openapi | SourceKind::SkillMd => {}
        SourceKind::Feed => return Err("a feed can't lead to another feed".to_owned()),
        SourceKind::Mcp => {
            return Err(
                "a skill of an MCP server names its source, so that the server has to be in sources.toml"
                    .to_owned(),
            );
        }
    }
    let narrowed = |key: &str, asked: Option<Vec<String>>, allowed: &[String]| match asked {
        None => Ok(allowed.to_vec()),
        Some(asked) => match asked.iter().find(|one| !allowed.contains(one)) {
            None => Ok(asked),
            Some(more) => Err(format!(
                "it asks for {more:?} in `{key}`, which the source {:?} does not list",
                feed.name
            )),
        },
    };
    let most = [max_candidates, feed.max_candidates].into_iter().flatten().min();
    let full_name = format!("{}-{name}", feed.name);
    let full_name = full_name[..full_name.len().min(MAX_NAME)].trim_end_matches('-').to_owned();
    let source = SourceConfig {
        kind,
        location: placed(&location, kind, feed)?,
        allow_origins: narrowed("allow_origins", raw.allow_origins, &feed.allow_origins)?,
        allow_operations: narrowed(
            "allow_operations",
            raw.allow_operations,
            &feed.allow_operations,
        )?,
        allow_env: narrowed("allow_env", raw.allow_env, &feed.allow_env)?,
        auth_ref: feed.auth_ref.clone(),
        latency_budget_ms: feed.latency_budget_ms,
        max_candidates: most,
        ..SourceConfig::openapi(full_name, "")
    };
    Ok(Entry { name, source, trust })
}

/// Where an entry is. A file has to be below the folder of a feed that is a file itself: a list from
/// elsewhere must not have this machine's files read.
fn placed(location: &str, kind: SourceKind, feed: &SourceConfig) -> Result<String, String> {
    if location.contains("://") {
        let url = Url::parse(location).map_err(|error| format!("`location` is no URL: {error}"))?;
        let is_web = matches!(url.scheme(), "http" | "https");
        return match (is_web, kind) {
            (true, SourceKind::Openapi) => Ok(location.to_owned()),
            (true, _) => Err("only OpenAPI documents are fetched for a feed".to_owned()),
            (false, _) => Err(format!(
                "the scheme {:?} is not supported in a feed; use http, https or a path beside the feed",
                url.scheme()
            )),
        };
    }
    if feed.location.contains("://") {
        return Err("a feed that was fetched can't name files of this machine".to_owned());
    }
    let path = Path::new(location);
    let below =
        path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if location.is_empty() || !below {
        return Err(
            "`location` has to be an address, or a path below the feed's own folder".to_owned()
        );
    }
    let folder = Path::new(&feed.location).parent().unwrap_or(Path::new("."));
    Ok(folder.join(path).display().to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn feed(location: &str) -> SourceConfig {
        SourceConfig {
            kind: SourceKind::Feed,
            allow_origins: vec!["http://127.0.0.1:8000".to_owned()],
            max_candidates: Some(5),
            ..SourceConfig::openapi("shop", location)
        }
    }

    fn one(entry: Value, location: &str) -> Result<Entry, String> {
        let bytes = json!([entry]).to_string();
        let (mut entries, skipped) = read(bytes.as_bytes(), &feed(location), "feed").unwrap();
        entries.pop().ok_or_else(|| skipped.join(";"))
    }

    #[test]
    fn entries_narrow_what_the_operator_allows() {
        let entry = json!({"name": "pets", "kind": "openapi", "location": "https://x.example/api.json",
            "trust": 0.5, "max_candidates": 9});
        let read = one(entry, "https://x.example/feed.json").unwrap();
        assert_eq!((read.source.name.as_str(), read.trust), ("shop-pets", 0.5));
        assert_eq!(read.source.max_candidates, Some(5));
        assert_eq!(read.source.allow_origins, ["http://127.0.0.1:8000"]);
        let none =
            json!({"name": "pets", "kind": "openapi", "location": "a.json", "allow_origins": []});
        let read = one(none, "/srv/feed.json").unwrap();
        assert_eq!(
            (read.source.allow_origins.len(), read.source.location.as_str()),
            (0, "/srv/a.json")
        );
    }

    #[test]
    fn entries_bring_nothing_of_their_own() {
        let with = |more: Value| {
            let mut entry = json!({"name": "pets", "kind": "openapi", "location": "a.json"});
            for (key, value) in more.as_object().unwrap() {
                entry[key] = value.clone();
            }
            entry
        };
        for (more, says) in [
            (json!({"allow_origins": ["http://10.0.0.1"]}), "does not list"),
            (json!({"allow_env": ["HOME"]}), "does not list"),
            (json!({"allow_operations": ["POST /x"]}), "does not list"),
            (json!({"command": ["sh"]}), "can't bring a `command`"),
            (json!({"base_url": "http://10.0.0.1"}), "can't bring a `base_url`"),
            (json!({"auth_ref": "HOME"}), "can't bring a `auth_ref`"),
            (json!({"kind": "feed"}), "another feed"),
            (json!({"kind": "mcp"}), "sources.toml"),
            (json!({"location": "../a.json"}), "below the feed"),
            (json!({"location": "/etc/passwd"}), "below the feed"),
            (json!({"location": "file:///etc/passwd"}), "not supported"),
            (json!({"location": "king:"}), "below"),
            (json!({"kind": "skill_md", "location": "https://x.example/x"}), "only OpenAPI"),
            (json!({"name": "../x"}), "`name`"),
            (json!({"trust": 2}), "`trust`"),
        ] {
            // `king:` is a legal name of a file; it must not be the built-in source.
            if more["location"] == "king:" {
                assert_eq!(
                    one(with(more), "/srv/feed.json").unwrap().source.location,
                    "/srv/king:"
                );
                continue;
            }
            let why = one(with(more.clone()), "/srv/feed.json").unwrap_err();
            assert!(why.contains(says), "{more}: {why}");
        }
        let why = one(with(json!({})), "https://x.example/feed.json").unwrap_err();
        assert!(why.contains("files of this machine"), "{why}");
        let many: Vec<Value> = (0..=MAX_ENTRIES).map(|_| json!({})).collect();
        assert!(
            read(json!(many).to_string().as_bytes(), &feed("f"), "f").unwrap_err().contains("101")
        );
        assert!(read(b"{}", &feed("f"), "f").unwrap_err().contains("no list"));
    }
}
