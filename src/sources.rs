//! Sources named on the command line: checked before anything starts.

use std::{collections::BTreeSet, path::Path};

use evo_common::config::{SourceConfig, sources::is_valid_name};
use url::Url;

use crate::stop::{Result, Stop};

/// Longest name of a source.
const MAX_NAME: usize = 32;

/// Turns `--source` and `--allow-origin` into sources whose names differ from `taken`.
pub(crate) fn from_command_line(
    locations: &[String],
    allow_origins: &[String],
    taken: &[SourceConfig],
) -> Result<Vec<SourceConfig>> {
    let allow_origins =
        allow_origins.iter().map(|text| parse_origin(text)).collect::<Result<Vec<_>>>()?;
    let mut names: BTreeSet<String> = taken.iter().map(|source| source.name.clone()).collect();
    let mut sources = Vec::new();
    for given in locations {
        let (wanted, given) = split_name(given)?;
        let (base, location) = locate(given)?;
        let name = match wanted {
            Some(name) if names.contains(name) => {
                return Err(Stop::usage(format!(
                    "--source {name}={given}: there is a source {name:?} already; give another name"
                )));
            }
            Some(name) => name.to_owned(),
            None => unique(&base, &names),
        };
        names.insert(name.clone());
        let source = SourceConfig::openapi(name, location);
        sources.push(SourceConfig { allow_origins: allow_origins.clone(), ..source });
    }
    Ok(sources)
}

/// `NAME=LOCATION`, or a location alone.
fn split_name(given: &str) -> Result<(Option<&str>, &str)> {
    match given.split_once('=') {
        _ if Path::new(given).exists() => Ok((None, given)),
        Some((name, location)) if is_valid_name(name) => Ok((Some(name), location)),
        // Neither a path nor an address has come before the sign, so it was meant as a name.
        Some((name, _)) if !name.contains(['/', ':', '.']) => Err(Stop::usage(format!(
            "--source {given}: {name:?} can't be the name of a source; use 1 to {MAX_NAME} of a-z, 0-9 and `-`, no `-` at either end"
        ))),
        _ => Ok((None, given)),
    }
}

/// What a name is made of, and where the document is. A file is read and checked here; whether an
/// address answers shows in the cycle, where a failure costs only this one source.
fn locate(given: &str) -> Result<(String, String)> {
    if let Some((scheme, _)) = given.split_once("://") {
        let refuse = |reason: String| {
            Stop::usage(format!("--source {given}: {reason}; use a file or an http(s) address"))
        };
        let url = Url::parse(given).map_err(|error| refuse(error.to_string()))?;
        if !matches!(scheme, "http" | "https") {
            return Err(refuse(format!("{scheme} addresses are not supported")));
        }
        let host = url.host_str().ok_or_else(|| refuse("it names no host".to_owned()))?;
        return Ok((host.to_owned(), url.to_string()));
    }
    let path = std::path::absolute(given)
        .map_err(|error| Stop::usage(format!("--source {given}: {error}")))?;
    check_document(given, &path)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let path = path.into_os_string().into_string().map_err(|path| {
        Stop::usage(format!("--source {}: the path is not UTF-8", path.to_string_lossy()))
    })?;
    Ok((stem, path))
}

/// Refuses a file that can't be read or is no OpenAPI document.
fn check_document(given: &str, path: &Path) -> Result<()> {
    let refuse = |reason: String| Stop::usage(format!("--source {given}: {reason}"));
    let text = std::fs::read_to_string(path).map_err(|error| {
        refuse(match error.kind() {
            std::io::ErrorKind::NotFound => format!("there is no file {}", path.display()),
            _ => format!("{} can't be read: {error}", path.display()),
        })
    })?;
    let document: serde_json::Value = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(|error| refuse(format!("not JSON: {error}")))?
    } else {
        serde_saphyr::from_str(&text).map_err(|error| refuse(format!("not YAML: {error}")))?
    };
    let version = document.get("openapi").or_else(|| document.get("swagger"));
    if version.is_none_or(serde_json::Value::is_null) || document.get("paths").is_none() {
        return Err(refuse(
            "not an OpenAPI document: it needs the keys `openapi` (or `swagger`) and `paths`"
                .to_owned(),
        ));
    }
    Ok(())
}

fn parse_origin(text: &str) -> Result<String> {
    let refuse = |reason: &str| {
        Stop::usage(format!(
            "--allow-origin {text}: {reason}; give scheme, host and port, such as http://127.0.0.1:8000"
        ))
    };
    let url = Url::parse(text).map_err(|error| refuse(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(refuse("it is no http(s) address with a host"));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("an origin has no path"));
    }
    Ok(url.origin().ascii_serialization())
}

/// A valid name of a source that nobody has yet.
fn unique(base: &str, taken: &BTreeSet<String>) -> String {
    let mut name: String = base
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    while name.contains("--") {
        name = name.replace("--", "-");
    }
    let name = name.trim_matches('-');
    let name = if name.is_empty() { "source" } else { name };
    let cut = |name: &str, max: usize| name[..name.len().min(max)].trim_matches('-').to_owned();
    let first = cut(name, MAX_NAME);
    if !taken.contains(&first) {
        return first;
    }
    // One more number than there are names, so that one of them is free.
    (2..taken.len() + 3)
        .map(|number| {
            let suffix = format!("-{number}");
            format!("{}{suffix}", cut(name, MAX_NAME - suffix.len()))
        })
        .find(|name| !taken.contains(name))
        .expect("there are more numbers than names")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) -> String {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn refused(locations: &[&str], origins: &[&str]) -> String {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        match from_command_line(&own(locations), &own(origins), &[]) {
            Err(Stop::Usage(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_come_from_file_or_host_and_are_unique() {
        let temp = tempfile::tempdir().unwrap();
        let text = "openapi: 3.0.0\npaths: {}\n";
        let file = write(temp.path(), "My API (v2).yaml", text);
        let locations =
            [file.clone(), "http://127.0.0.1:8000/spec.json".to_owned(), file.clone(), file];
        let origins = ["http://127.0.0.1:8000/".to_owned()];
        let sources = from_command_line(&locations, &origins, &[]).unwrap();
        let names: Vec<_> = sources.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["my-api-v2", "127-0-0-1", "my-api-v2-2", "my-api-v2-3"]);
        assert!(sources.iter().all(|s| s.allow_origins == ["http://127.0.0.1:8000"]));
        assert_eq!(unique(&"x".repeat(40), &BTreeSet::from(["x".repeat(32)])).len(), 32);
        assert_eq!(unique("_", &BTreeSet::new()), "source");
    }

    #[test]
    fn a_name_can_be_given_and_must_be_free() {
        let given = ["httpbin=http://127.0.0.1:8000/spec.json?a=b".to_owned()];
        let sources = from_command_line(&given, &[], &[]).unwrap();
        assert_eq!(
            (sources[0].name.as_str(), sources[0].location.as_str()),
            ("httpbin", "http://127.0.0.1:8000/spec.json?a=b")
        );
        let twice = ["a=http://x/1", "a=http://x/2"];
        assert!(refused(&twice, &[]).contains("give another name"));
        assert_eq!(split_name("http://x/?a=b").unwrap(), (None, "http://x/?a=b"));
        for wrong in ["My API=http://x/1", "BAD=spec.yaml"] {
            assert!(refused(&[wrong], &[]).contains("can't be the name"), "{wrong}");
        }
    }

    #[test]
    fn a_broken_document_is_refused_with_its_line() {
        let temp = tempfile::tempdir().unwrap();
        let yaml = write(temp.path(), "a.yaml", "openapi: 3.0.0\npaths:\n  /x: [\n");
        assert!(refused(&[&yaml], &[]).contains("line"), "{}", refused(&[&yaml], &[]));
        let json = write(temp.path(), "a.json", "{\n  \"openapi\": \n}");
        assert!(refused(&[&json], &[]).contains("line 3"));
        let other = write(temp.path(), "b.yaml", "name: x\n");
        assert!(refused(&[&other], &[]).contains("not an OpenAPI document"));
        assert!(refused(&["/nowhere/x.yaml"], &[]).contains("there is no file /nowhere/x.yaml"));
    }

    #[test]
    fn an_address_must_be_http_and_an_origin_without_path() {
        assert!(refused(&["ftp://x/y"], &[]).contains("not supported"));
        for origin in ["127.0.0.1:8000", "http://x/y", "file:///x"] {
            assert!(refused(&[], &[origin]).contains("--allow-origin"), "{origin}");
        }
    }
}
