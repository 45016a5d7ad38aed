//! A skill package: its files, read and checked.

use std::{collections::BTreeSet, fmt, path::Path};

use evo_common::{
    api::RiskClass,
    artifact::{self, Files},
    case::{Case, CaseFile},
    skill::{
        CodeRuntime, Composition, HttpCall, HttpMethod, McpCall, Provenance, SkillConfig,
        SkillEndpoint, SkillIO, SkillManifest, files, is_valid_name,
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{composition, template};
use crate::sandbox::{interpreter::Language, policy::HostRule};

/// Text that stands for the base URL of [`HttpCall::server`] at the start of an endpoint's URL.
pub const SERVER_PLACEHOLDER: &str = "{server}";

/// A skill package that was read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Package {
    /// `manifest.toml`.
    pub manifest: SkillManifest,
    /// `config.toml`.
    pub config: SkillConfig,
    /// The `[extra]` table of `config.toml`.
    pub call: HttpCall,
    /// The `[runtime]` table of `config.toml`, for a skill with code.
    pub runtime: Option<CodeRuntime>,
    /// `provenance.toml`, if there is one.
    pub provenance: Option<Provenance>,
    /// What a call of it does.
    pub kind: Kind,
    /// Every file of the package.
    pub files: Files,
}

/// What a call of a skill does.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// It sends [`Package::call`] to its endpoint.
    Http,
    /// It runs the package's code as [`Package::runtime`] says.
    Code,
    /// It calls a tool of its source's MCP server: the table `[mcp]` of `config.toml`.
    Mcp(McpCall),
    /// It calls other skills: the `[[steps]]` of `config.toml`.
    Composed(Composition),
}

/// What `config.toml` holds beside the published keys.
#[derive(Default, Deserialize)]
struct Tables {
    runtime: Option<CodeRuntime>,
    mcp: Option<McpCall>,
    #[serde(flatten)]
    composition: Composition,
}

/// What is wrong with a package: names the file, and the key and line where they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The file, as a path inside the package.
    pub file: String,
    /// The key, with dots (`inputs.1.name`).
    pub key: Option<String>,
    /// The line, from 1.
    pub line: Option<u32>,
    /// For people: what is wrong.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": key `{key}`")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Error {}

impl Error {
    fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), key: None, line: None, message: message.into() }
    }
}

impl From<artifact::Error> for Error {
    fn from(error: artifact::Error) -> Self {
        Self::of_file("archive", error.to_string())
    }
}

impl Package {
    /// Reads and checks the files of a package.
    pub fn from_files(files: Files) -> Result<Self, Error> {
        let manifest: SkillManifest = required(&files, files::MANIFEST)?;
        check_manifest(&manifest, text_of(&files, files::MANIFEST)?.unwrap_or_default())?;
        let config = match parse::<SkillConfig>(&files, files::CONFIG)? {
            Some(config) => config,
            None if manifest.has_code => SkillConfig {
                endpoints: Vec::new(),
                auth_ref: None,
                extra: std::collections::HashMap::new(),
            },
            None => return Err(missing(files::CONFIG)),
        };
        let call = read_call(&config)?;
        let Tables { runtime, mcp, composition } =
            parse(&files, files::CONFIG)?.unwrap_or_default();
        let provenance = parse(&files, files::PROVENANCE)?;
        let kind = match mcp {
            Some(call) => Kind::Mcp(call),
            None if !composition.steps.is_empty() => Kind::Composed(composition),
            None if manifest.has_code => Kind::Code,
            None => Kind::Http,
        };
        let package = Self { manifest, config, call, runtime, provenance, kind, files };
        package.check_call()?;
        package.check_runtime()?;
        package.check_tool()?;
        package.check_steps()?;
        package.train_cases()?;
        Ok(package)
    }

    /// Reads and checks an archive.
    pub fn from_archive(archive: &[u8]) -> Result<Self, Error> {
        Self::from_files(artifact::unpack(archive)?)
    }

    /// Reads and checks a folder. Links are refused, hidden files are left out.
    pub fn from_folder(folder: &Path) -> Result<Self, Error> {
        let mut files = Files::new();
        let mut size = 0;
        read_folder(folder, "", &mut files, &mut size)?;
        Self::from_files(files)
    }

    /// The cases in `tests.toml`; none when the package has no such file.
    pub fn train_cases(&self) -> Result<Vec<Case>, Error> {
        let Some(file) = parse::<CaseFile>(&self.files, files::TESTS)? else {
            return Ok(Vec::new());
        };
        let read = |(index, entry): (usize, evo_common::case::CaseEntry)| {
            let wrong = |key: &str, error: serde_json::Error| Error {
                file: files::TESTS.to_owned(),
                key: Some(format!("cases.{index}.{key}")),
                line: None,
                message: format!("not the JSON text that is expected here: {error}"),
            };
            Ok(Case {
                input: serde_json::from_str(&entry.input).map_err(|e| wrong("input", e))?,
                expect: serde_json::from_str(&entry.expect).map_err(|e| wrong("expect", e))?,
                case_id: entry.id,
                origin: entry.origin,
                pinned: false,
            })
        };
        file.cases.into_iter().enumerate().map(read).collect()
    }

    /// The archive of the package and its digest.
    pub fn pack(&self) -> Result<(evo_common::ids::ArtifactId, Vec<u8>), Error> {
        Ok(artifact::pack(&self.files)?)
    }

    /// The input with this name.
    pub fn input(&self, name: &str) -> Option<&SkillIO> {
        self.manifest.inputs.iter().find(|input| input.name == name)
    }

    /// A key of `config.toml` that is wrong.
    fn wrong(&self, key: &str, message: String) -> Error {
        Error {
            file: files::CONFIG.to_owned(),
            line: text_of(&self.files, files::CONFIG)
                .ok()
                .flatten()
                .and_then(|text| line_of(text, key.rsplit('.').next().unwrap_or(key), 0)),
            key: Some(key.to_owned()),
            message,
        }
    }

    /// Checks that the code can be run as the package says. One of the original has no such table:
    /// it can be kept and not executed.
    fn check_runtime(&self) -> Result<(), Error> {
        let Some(runtime) = self.runtime.as_ref().filter(|_| self.manifest.has_code) else {
            return Ok(());
        };
        if !self.files.contains_key(&runtime.entry) {
            let message = format!("the package has no file {:?}", runtime.entry);
            return Err(self.wrong("runtime.entry", message));
        }
        if let Err(error) = Language::parse(&runtime.interpreter) {
            return Err(self.wrong("runtime.interpreter", error.to_string()));
        }
        let (longest, memory) =
            (CodeRuntime::MAX_TIMEOUT_MS, CodeRuntime::MIN_MEMORY_MB..=CodeRuntime::MAX_MEMORY_MB);
        if !(1..=longest).contains(&runtime.timeout_ms) {
            let message = format!("{} is not from 1 to {longest}", runtime.timeout_ms);
            return Err(self.wrong("runtime.timeout_ms", message));
        }
        if !memory.contains(&runtime.memory_mb) {
            let (least, most) = (memory.start(), memory.end());
            let message = format!("{} is not from {least} to {most}", runtime.memory_mb);
            return Err(self.wrong("runtime.memory_mb", message));
        }
        for host in &runtime.network {
            HostRule::parse(host)
                .map_err(|error| self.wrong("runtime.network", error.to_string()))?;
        }
        Ok(())
    }

    /// Checks that a skill that calls a tool does nothing else.
    fn check_tool(&self) -> Result<(), Error> {
        let Kind::Mcp(call) = &self.kind else { return Ok(()) };
        if self.manifest.has_code {
            let message = "a skill that calls a tool has no code".to_owned();
            return Err(self.wrong("mcp", message));
        }
        if !self.config.endpoints.is_empty() {
            let message = "a skill that calls a tool has no endpoints".to_owned();
            return Err(self.wrong("endpoints", message));
        }
        for (key, value) in [("mcp.server", &call.server), ("mcp.tool", &call.tool)] {
            if value.trim().is_empty() {
                return Err(self.wrong(key, "is empty".to_owned()));
            }
        }
        Ok(())
    }

    /// What a call goes to, in words that can be compared: `GET {server}/agents`, `mcp time/now`,
    /// `skill find-city`.
    pub fn targets(&self) -> Vec<String> {
        match &self.kind {
            Kind::Mcp(call) => return vec![format!("mcp {}/{}", call.server, call.tool)],
            Kind::Composed(composition) => {
                return composition.skills().iter().map(|skill| format!("skill {skill}")).collect();
            }
            Kind::Http | Kind::Code => {}
        }
        let target = |endpoint: &SkillEndpoint| {
            let method = serde_json::to_value(endpoint.method).unwrap_or_default();
            format!("{} {}", method.as_str().unwrap_or_default(), endpoint.url)
        };
        self.config.endpoints.iter().map(target).collect()
    }

    /// What calls of it could do, as far as the package itself says. A composed skill that says nothing
    /// of its parts could do anything.
    pub fn classes(&self) -> Vec<RiskClass> {
        match &self.kind {
            Kind::Http => {
                let reads = |endpoint: &SkillEndpoint| endpoint.method == HttpMethod::Get;
                let reads = self.config.endpoints.iter().all(reads);
                vec![if reads { RiskClass::Read } else { RiskClass::Write }]
            }
            Kind::Code => vec![RiskClass::Code],
            // Whether a tool only reads, its server says, and not the package.
            Kind::Mcp(_) => vec![RiskClass::Write],
            Kind::Composed(composition) if composition.classes.is_empty() => {
                vec![RiskClass::Read, RiskClass::Write, RiskClass::Code]
            }
            Kind::Composed(composition) => composition.classes.clone(),
        }
    }

    /// Time limit of one call, by the package itself.
    pub fn timeout_ms(&self) -> u64 {
        match (&self.kind, &self.runtime) {
            (Kind::Mcp(call), _) => call.timeout_ms,
            (Kind::Code, Some(runtime)) => runtime.timeout_ms,
            _ => self.call.timeout_ms,
        }
    }

    /// Checks that the steps can be done.
    fn check_steps(&self) -> Result<(), Error> {
        let Kind::Composed(composed) = &self.kind else { return Ok(()) };
        composition::check(composed, &self.manifest)
            .map_err(|(key, message)| self.wrong(&key, message))
    }

    /// Checks that the call can be made from the declared inputs.
    fn check_call(&self) -> Result<(), Error> {
        let wrong = |key: &str, message: String| Err(self.wrong(key, message));
        if self.config.endpoints.is_empty() && self.kind == Kind::Http {
            return wrong("endpoints", "an http skill needs an endpoint".to_owned());
        }
        for (index, endpoint) in self.config.endpoints.iter().enumerate() {
            let key = format!("endpoints.{index}.url");
            let url = match endpoint.url.strip_prefix(SERVER_PLACEHOLDER) {
                Some(_) if self.call.server.is_none() => {
                    return wrong(
                        &key,
                        "the URL starts with `{server}`, but `extra.server` names none".to_owned(),
                    );
                }
                Some(path) => path,
                None if is_web_url(&endpoint.url) => endpoint.url.as_str(),
                None => {
                    return wrong(
                        &key,
                        format!(
                            "{:?} starts neither with http://, https:// nor `{{server}}`",
                            endpoint.url
                        ),
                    );
                }
            };
            let headers = endpoint.headers.values().map(String::as_str);
            for (key, text) in std::iter::once((key.clone(), url))
                .chain(headers.map(|text| (format!("endpoints.{index}.headers"), text)))
            {
                for name in template::names(text) {
                    if self.input(name).is_none() {
                        return wrong(&key, unknown_placeholder(name));
                    }
                }
            }
        }
        for (table, entries) in [("query", &self.call.query), ("headers", &self.call.headers)] {
            for (name, text) in entries {
                for placeholder in template::names(text) {
                    if self.input(placeholder).is_none() {
                        return wrong(
                            &format!("extra.{table}.{name}"),
                            unknown_placeholder(placeholder),
                        );
                    }
                }
            }
        }
        for (name, style) in &self.call.list_style {
            if !["csv", "multi", "ssv", "pipes"].contains(&style.as_str()) {
                return wrong(
                    &format!("extra.list_style.{name}"),
                    format!("unknown style {style:?}: use csv, multi, ssv or pipes"),
                );
            }
        }
        if self.call.retries > HttpCall::MAX_RETRIES {
            let most = HttpCall::MAX_RETRIES;
            return wrong("extra.retries", format!("{} is more than {most}", self.call.retries));
        }
        if let Some(pointer) = &self.call.output
            && !(pointer.is_empty() || pointer.starts_with('/'))
        {
            return wrong("extra.output", format!("{pointer:?} is no JSON pointer (/data/items)"));
        }
        if let Some(scheme) = &self.call.auth_scheme
            && super::execute::AuthScheme::parse(scheme).is_none()
        {
            return wrong(
                "extra.auth_scheme",
                format!(
                    "unknown scheme {scheme:?}: use bearer, basic, header:<Name> or query:<name>"
                ),
            );
        }
        Ok(())
    }
}

fn unknown_placeholder(name: &str) -> String {
    format!("the placeholder `{{{name}}}` names no input of the manifest")
}

fn is_web_url(url: &str) -> bool {
    let lower = url.to_ascii_lowercase();
    lower.starts_with("http://") || lower.starts_with("https://")
}

fn missing(file: &str) -> Error {
    Error::of_file(file, "the package has no such file")
}

fn text_of<'a>(files: &'a Files, file: &str) -> Result<Option<&'a str>, Error> {
    files
        .get(file)
        .map(|bytes| {
            std::str::from_utf8(bytes)
                .map_err(|error| Error::of_file(file, format!("not UTF-8 text: {error}")))
        })
        .transpose()
}

fn parse<T: DeserializeOwned>(files: &Files, file: &str) -> Result<Option<T>, Error> {
    let Some(text) = text_of(files, file)? else { return Ok(None) };
    toml::from_str(text).map(Some).map_err(|error| {
        let line = error.span().map(|span| line_at(text, span.start));
        Error {
            file: file.to_owned(),
            key: key_in(error.message()),
            line,
            message: error.message().to_owned(),
        }
    })
}

fn required<T: DeserializeOwned>(files: &Files, file: &str) -> Result<T, Error> {
    parse(files, file)?.ok_or_else(|| missing(file))
}

/// The key that a message of the TOML reader names between backquotes.
fn key_in(message: &str) -> Option<String> {
    let rest = message.strip_prefix("missing field `")?;
    rest.split('`').next().map(str::to_owned)
}

fn line_at(text: &str, offset: usize) -> u32 {
    let before = text.get(..offset).unwrap_or(text);
    u32::try_from(before.matches('\n').count() + 1).unwrap_or(u32::MAX)
}

/// The line of the `nth` place (from 0) where `key` is set.
fn line_of(text: &str, key: &str, nth: usize) -> Option<u32> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| {
            line.trim_start()
                .strip_prefix(key)
                .is_some_and(|rest| rest.trim_start().starts_with('='))
        })
        .nth(nth)
        .and_then(|(index, _)| u32::try_from(index + 1).ok())
}

fn check_manifest(manifest: &SkillManifest, text: &str) -> Result<(), Error> {
    let wrong = |key: String, line: Option<u32>, message: String| {
        Err(Error { file: files::MANIFEST.to_owned(), key: Some(key), line, message })
    };
    if !is_valid_name(&manifest.name) {
        return wrong(
            "name".to_owned(),
            line_of(text, "name", 0),
            format!(
                "{:?} is no skill name: use 1 to 64 of a-z, 0-9 and dashes, no dash at either end",
                manifest.name
            ),
        );
    }
    if let Err(error) = semver::Version::parse(&manifest.version) {
        return wrong(
            "version".to_owned(),
            line_of(text, "version", 0),
            format!("{:?} is no semantic version (1.2.3): {error}", manifest.version),
        );
    }
    for (table, entries) in [("inputs", &manifest.inputs), ("outputs", &manifest.outputs)] {
        let mut seen = BTreeSet::new();
        for (index, entry) in entries.iter().enumerate() {
            let key = format!("{table}.{index}.name");
            if entry.name.is_empty() || entry.name.contains(['{', '}']) {
                let message = format!("{:?} is no name: it is empty or has a brace", entry.name);
                return wrong(key, None, message);
            }
            if !seen.insert(entry.name.as_str()) {
                // The second line that sets this very name, in whichever table.
                let line = text
                    .lines()
                    .enumerate()
                    .filter(|(_, line)| {
                        line.trim_start().starts_with("name")
                            && line.contains(&format!("{:?}", entry.name))
                    })
                    .nth(1)
                    .and_then(|(index, _)| u32::try_from(index + 1).ok());
                return wrong(key, line, format!("{:?} is there twice", entry.name));
            }
        }
    }
    Ok(())
}

fn read_call(config: &SkillConfig) -> Result<HttpCall, Error> {
    let table: serde_json::Map<String, Value> =
        config.extra.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    evo_common::messages::decode(files::CONFIG, Value::Object(table)).map_err(|error| Error {
        file: files::CONFIG.to_owned(),
        key: Some(format!("extra.{}", error.path)),
        line: None,
        message: error.message,
    })
}

fn read_folder(
    folder: &Path,
    prefix: &str,
    files: &mut Files,
    size: &mut u64,
) -> Result<(), Error> {
    let failed = |path: &str, error: std::io::Error| {
        let name = if path.is_empty() { "." } else { path };
        Error::of_file(name, format!("can't be read in {}: {error}", folder.display()))
    };
    for entry in std::fs::read_dir(folder).map_err(|error| failed(prefix, error))? {
        let entry = entry.map_err(|error| failed(prefix, error))?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            return Err(Error::of_file(
                &entry.file_name().to_string_lossy(),
                "the file's name is not UTF-8",
            ));
        };
        if name.starts_with('.') {
            continue;
        }
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let kind = entry.file_type().map_err(|error| failed(&path, error))?;
        if kind.is_dir() {
            read_folder(&entry.path(), &path, files, size)?;
        } else if kind.is_file() {
            *size += entry.metadata().map_err(|error| failed(&path, error))?.len();
            if *size > artifact::MAX_ARCHIVE_BYTES as u64 || files.len() >= artifact::MAX_FILES {
                return Err(artifact::Error::TooLarge.into());
            }
            let content = std::fs::read(entry.path()).map_err(|error| failed(&path, error))?;
            files.insert(path, content);
        } else {
            return Err(Error::of_file(&path, "neither a plain file nor a folder"));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const MANIFEST: &str = r#"
name = "petstore-get-pet"
version = "0.1.0"
description = "Shows one pet."
capabilities = ["pets"]
outputs = []

[[inputs]]
name = "id"
type = "integer"
required = true

[[inputs]]
name = "fields"
type = "array"
"#;

    pub(crate) const CONFIG: &str = r#"
[[endpoints]]
name = "call"
url = "{server}/pets/{id}"
method = "GET"

[extra]
server = "petstore"

[extra.query]
fields = "{fields}"
"#;

    pub(crate) fn files(entries: &[(&str, &str)]) -> Files {
        entries.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
    }

    fn error(entries: &[(&str, &str)]) -> Error {
        Package::from_files(files(entries)).unwrap_err()
    }

    #[test]
    fn a_package_survives_its_archive() {
        let package =
            Package::from_files(files(&[("manifest.toml", MANIFEST), ("config.toml", CONFIG)]))
                .unwrap();
        assert_eq!(package.call.server.as_deref(), Some("petstore"));
        assert_eq!(package.call.timeout_ms, HttpCall::default_timeout_ms());
        let (_, archive) = package.pack().unwrap();
        assert_eq!(Package::from_archive(&archive).unwrap(), package);
    }

    #[test]
    fn the_published_examples_are_packages() {
        let manifest = MANIFEST.replace("petstore-get-pet", "web-search").replace("id", "query");
        let config = r#"
auth_ref = "SEARCH_API_KEY"
[[endpoints]]
name = "search"
url = "https://api.search.com/v1/search"
method = "GET"
[endpoints.headers]
Accept = "application/json"
"#;
        let files = files(&[("manifest.toml", &manifest), ("config.toml", config)]);
        assert_eq!(
            Package::from_files(files).unwrap().config.auth_ref.as_deref(),
            Some("SEARCH_API_KEY")
        );
    }

    #[test]
    fn faults_name_file_key_and_line() {
        assert_eq!(error(&[]).to_string(), "manifest.toml: the package has no such file");
        let broken = MANIFEST.replace("\"Shows one pet.\"", "7");
        assert_eq!(error(&[("manifest.toml", &broken), ("config.toml", CONFIG)]).line, Some(4));
        let named = MANIFEST.replace("petstore-get-pet", "Pet Store");
        let fault = error(&[("manifest.toml", &named), ("config.toml", CONFIG)]);
        assert_eq!((fault.key.as_deref(), fault.line), (Some("name"), Some(2)));
        let version = MANIFEST.replace("0.1.0", "one");
        let fault = error(&[("manifest.toml", &version), ("config.toml", CONFIG)]);
        assert_eq!((fault.key.as_deref(), fault.line), (Some("version"), Some(3)));
        let twice = MANIFEST.replace("\"fields\"", "\"id\"");
        let fault = error(&[("manifest.toml", &twice), ("config.toml", CONFIG)]);
        assert_eq!((fault.key.as_deref(), fault.line), (Some("inputs.1.name"), Some(14)));
        let fault = error(&[
            ("manifest.toml", MANIFEST),
            ("config.toml", CONFIG),
            (
                "tests.toml",
                "[[cases]]\nid = \"a\"\norigin = \"none\"\ninput = \"{\"\nexpect = \"{}\"",
            ),
        ]);
        assert_eq!(fault.key.as_deref(), Some("cases.0.input"));
    }

    #[test]
    fn a_call_that_can_not_be_made_is_refused() {
        for (from, to, key) in [
            ("{id}", "{pet}", "endpoints.0.url"),
            ("server = \"petstore\"", "", "endpoints.0.url"),
            ("{server}/", "ftp://host/", "endpoints.0.url"),
            ("\"{fields}\"", "\"{colour}\"", "extra.query.fields"),
            (
                "[extra.query]",
                "[extra.list_style]\nfields = \"x\"\n[extra.query]",
                "extra.list_style.fields",
            ),
            (
                "server = \"petstore\"",
                "server = \"petstore\"\nauth_scheme = \"magic\"",
                "extra.auth_scheme",
            ),
            (
                "server = \"petstore\"",
                "server = \"petstore\"\ntimeout_ms = \"soon\"",
                "extra.timeout_ms",
            ),
        ] {
            let config = CONFIG.replace(from, to);
            let fault = error(&[("manifest.toml", MANIFEST), ("config.toml", &config)]);
            assert_eq!(fault.key.as_deref(), Some(key), "{fault}");
            assert_eq!(fault.file, "config.toml");
        }
    }

    #[test]
    fn folders_are_read_without_links() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("manifest.toml"), MANIFEST).unwrap();
        std::fs::write(folder.path().join("config.toml"), CONFIG).unwrap();
        std::fs::create_dir(folder.path().join("docs")).unwrap();
        std::fs::write(folder.path().join("docs/a.md"), "a").unwrap();
        std::fs::write(folder.path().join(".hidden"), "a").unwrap();
        let package = Package::from_folder(folder.path()).unwrap();
        assert_eq!(
            package.files.keys().collect::<Vec<_>>(),
            ["config.toml", "docs/a.md", "manifest.toml"]
        );
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        assert_eq!(Package::from_folder(folder.path()).unwrap_err().file, "link");
    }
}
