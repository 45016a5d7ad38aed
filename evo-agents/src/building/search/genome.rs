//! What the search changes: the call of a package in one shape, and the package that it makes of
//! it again.

use std::collections::BTreeMap;

use evo_common::{
    api::RiskClass,
    ids::sha256_hex,
    skill::{Composition, HttpCall, HttpMethod, Provenance, Step, files},
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    skill::{
        package::{Error, Kind, Package, SERVER_PLACEHOLDER},
        skill_md, template,
    },
    sources::openapi::canonical,
};

/// Who builds packages by search, with the version of how it does.
pub const BUILDER: &str = "search/1";

/// Keys of `[extra]` that belong to [`HttpCall`]; the others of a package stay as they are.
const CALL_KEYS: [&str; 13] = [
    "server",
    "operation",
    "query",
    "headers",
    "body",
    "content_type",
    "auth_scheme",
    "success",
    "list_style",
    "timeout_ms",
    "max_response_bytes",
    "retries",
    "output",
];

/// The part of a package that decides what is called, and how.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Genome {
    pub(super) method: HttpMethod,
    /// `{server}` or `https://host`, without a path.
    pub(super) base: String,
    /// The path template, with its first slash.
    pub(super) path: String,
    /// Headers of the endpoint.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) auth_ref: Option<String>,
    pub(super) call: HttpCall,
    /// The steps of a composed skill; then the rest means nothing.
    pub(super) steps: Vec<Step>,
    /// Where a composed skill finds its answer.
    pub(super) answer: Option<String>,
}

impl Genome {
    /// The genome of an http or a composed package; [`None`] for one of another kind.
    pub(super) fn of(package: &Package) -> Option<Self> {
        if let Kind::Composed(Composition { output, steps, .. }) = &package.kind {
            return Some(Self::composed(steps.clone(), output.clone()));
        }
        if package.kind != Kind::Http {
            return None;
        }
        let endpoint = package.config.endpoints.first()?;
        let (address, query) = endpoint.url.split_once('?').unwrap_or((&endpoint.url, ""));
        let (base, path) = split_base(address.split('#').next().unwrap_or_default());
        let mut call = package.call.clone();
        for pair in query.split('#').next().unwrap_or_default().split('&') {
            if let Some((name, text)) = pair.split_once('=') {
                call.query.entry(name.to_owned()).or_insert_with(|| text.to_owned());
            }
        }
        let mut genome = Self {
            method: endpoint.method,
            base: base.to_owned(),
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
            headers: endpoint.headers.clone().into_iter().collect(),
            auth_ref: package.config.auth_ref.clone().filter(|name| !name.is_empty()),
            call,
            steps: Vec::new(),
            answer: None,
        };
        genome.name_inputs(package);
        Some(genome)
    }

    /// One that calls skills in a row.
    pub(super) fn composed(steps: Vec<Step>, answer: Option<String>) -> Self {
        let call = HttpCall {
            timeout_ms: HttpCall::default_timeout_ms(),
            max_response_bytes: HttpCall::default_max_response_bytes(),
            ..HttpCall::default()
        };
        Self {
            method: HttpMethod::Get,
            base: String::new(),
            path: String::new(),
            headers: BTreeMap::new(),
            auth_ref: None,
            call,
            steps,
            answer,
        }
    }

    /// Packages of older systems name no input anywhere: all go into the query or the body. Here
    /// each gets its entry, which comes to the same call.
    pub(super) fn name_inputs(&mut self, package: &Package) {
        let call = &self.call;
        if self.is_composed() {
            return;
        }
        if !call.query.is_empty() || !call.headers.is_empty() || call.body.is_some() {
            return;
        }
        let used = self.used();
        let unnamed: Vec<&str> = package
            .manifest
            .inputs
            .iter()
            .map(|input| input.name.as_str())
            .filter(|name| !used.iter().any(|used| used == name))
            .collect();
        if unnamed.is_empty() {
            return;
        }
        let entries = unnamed.into_iter().map(|name| (name.to_owned(), format!("{{{name}}}")));
        if matches!(self.method, HttpMethod::Get | HttpMethod::Delete) {
            self.call.query = entries.collect();
        } else {
            let entries: Map<String, Value> =
                entries.map(|(name, text)| (name, Value::String(text))).collect();
            self.call.body = Some(Value::Object(entries));
        }
    }

    /// Whether it calls other skills instead of a server.
    pub(super) fn is_composed(&self) -> bool {
        !self.steps.is_empty()
    }

    /// What tells it from other genomes.
    pub(super) fn key(&self) -> String {
        let value = serde_json::to_value(self).expect("a genome is plain data");
        sha256_hex(canonical(&value).as_bytes())
    }

    /// The inputs that its templates name.
    pub(super) fn used(&self) -> Vec<String> {
        let mut used: Vec<String> = Vec::new();
        let mut add = |text: &str| used.extend(template::names(text).map(str::to_owned));
        add(&self.path);
        for text in self.headers.values().chain(self.call.headers.values()) {
            add(text);
        }
        for text in self.call.query.values() {
            add(text);
        }
        if let Some(body) = &self.call.body {
            texts(body, &mut add);
        }
        for pointer in self.steps.iter().flat_map(|step| step.input.values()) {
            if let Some(name) = pointer.strip_prefix("/input/") {
                used.push(name.to_owned());
            }
        }
        used
    }

    /// The path in its parts, without slashes.
    pub(super) fn segments(&self) -> Vec<&str> {
        self.path.split('/').filter(|segment| !segment.is_empty()).collect()
    }

    /// Puts the path together again; a last slash stays.
    pub(super) fn set_segments<S: AsRef<str>>(&mut self, segments: &[S]) {
        let last = self.path.len() > 1 && self.path.ends_with('/') && !segments.is_empty();
        let mut path = String::new();
        for segment in segments {
            path.push('/');
            path.push_str(segment.as_ref());
        }
        if path.is_empty() || last {
            path.push('/');
        }
        self.path = path;
    }

    /// The address as it stands in a package.
    pub(super) fn url(&self) -> String {
        format!("{}{}", self.base, self.path)
    }

    /// How much there is to it: less is easier to read and to keep.
    pub(super) fn size(&self) -> u32 {
        let value = serde_json::to_value(self).expect("a genome is plain data");
        u32::try_from(value.to_string().len()).unwrap_or(u32::MAX)
    }

    /// The package that calls like this: the files of `frame`, with another call.
    pub(super) fn package(
        &self,
        frame: &Package,
        parents: Vec<String>,
        operators: Vec<String>,
    ) -> Result<Package, Error> {
        let mut all = frame.files.clone();
        let mut put = |file: &str, text: String| all.insert(file.to_owned(), text.into_bytes());
        put(files::CONFIG, self.config_text(frame)?);
        if let Some(text) = self.manifest_text(frame)? {
            put(files::MANIFEST, text);
        }
        if let Some(text) = self.skill_md(frame) {
            put(files::SKILL_MD, text);
        }
        let provenance = provenance(frame, parents, operators);
        put(files::PROVENANCE, written(files::PROVENANCE, toml::to_string_pretty(&provenance))?);
        Package::from_files(all)
    }

    fn config_text(&self, frame: &Package) -> Result<String, Error> {
        let mut config = table_of(frame, files::CONFIG)?;
        let mut extra = match config.remove("extra") {
            Some(toml::Value::Table(extra)) => extra,
            _ => toml::Table::new(),
        };
        for key in CALL_KEYS {
            extra.remove(key);
        }
        config.remove("auth_ref");
        if let Some(name) = &self.auth_ref {
            config.insert("auth_ref".to_owned(), name.as_str().into());
        }
        if self.is_composed() {
            config.remove("endpoints");
            // Steps that the search puts together only read.
            config.entry("classes").or_insert_with(|| vec![RiskClass::Read.as_str()].into());
            let steps = written(files::CONFIG, toml::Value::try_from(&self.steps))?;
            config.insert("steps".to_owned(), steps);
            config.remove("output");
            if let Some(pointer) = &self.answer {
                config.insert("output".to_owned(), pointer.as_str().into());
            }
        } else {
            extra.extend(written(files::CONFIG, toml::Table::try_from(&self.call))?);
            let endpoints = self.endpoints(config.remove("endpoints"))?;
            config.insert("endpoints".to_owned(), endpoints);
        }
        if !extra.is_empty() {
            config.insert("extra".to_owned(), extra.into());
        }
        written(files::CONFIG, toml::to_string_pretty(&config))
    }

    /// The endpoints of the frame, the first one with this address.
    fn endpoints(&self, old: Option<toml::Value>) -> Result<toml::Value, Error> {
        let mut list = match old {
            Some(toml::Value::Array(list)) => list,
            _ => Vec::new(),
        };
        let mut first = match list.first().cloned() {
            Some(toml::Value::Table(first)) => first,
            _ => toml::Table::from_iter([("name".to_owned(), "call".into())]),
        };
        first.insert("url".to_owned(), self.url().into());
        let method = written(files::CONFIG, toml::Value::try_from(self.method))?;
        first.insert("method".to_owned(), method);
        let headers = written(files::CONFIG, toml::Value::try_from(&self.headers))?;
        first.insert("headers".to_owned(), headers);
        match list.first_mut() {
            Some(place) => *place = first.into(),
            None => list.push(first.into()),
        }
        Ok(list.into())
    }

    /// The manifest of a composed skill names the skills that it calls; any other stays.
    fn manifest_text(&self, frame: &Package) -> Result<Option<String>, Error> {
        let mut wanted: Vec<String> = Vec::new();
        for step in &self.steps {
            if !wanted.contains(&step.skill) {
                wanted.push(step.skill.clone());
            }
        }
        if wanted == frame.manifest.dependencies {
            return Ok(None);
        }
        let mut manifest = table_of(frame, files::MANIFEST)?;
        manifest.insert("dependencies".to_owned(), wanted.into());
        written(files::MANIFEST, toml::to_string_pretty(&manifest)).map(Some)
    }

    /// The agentskills.io form names the call, when its builder wrote it.
    fn skill_md(&self, frame: &Package) -> Option<String> {
        let endpoint = frame.config.endpoints.first().filter(|_| !self.is_composed())?;
        let text = std::str::from_utf8(frame.files.get(files::SKILL_MD)?).ok()?;
        let before = format!("`{} {}`", verb(endpoint.method), endpoint.url);
        let now = format!("`{} {}`", verb(self.method), self.url());
        text.contains(&before).then(|| text.replace(&before, &now))
    }
}

/// A package with another version, which says what it replaces.
pub fn renewed(package: &Package, version: &str, replaces: Option<&str>) -> Result<Package, Error> {
    let mut all = package.files.clone();
    let mut manifest = table_of(package, files::MANIFEST)?;
    manifest.insert("version".to_owned(), version.into());
    let text = written(files::MANIFEST, toml::to_string_pretty(&manifest))?;
    all.insert(files::MANIFEST.to_owned(), text.into_bytes());
    if let Some(old) = &package.provenance {
        let new = Provenance { parent: replaces.map(str::to_owned), ..old.clone() };
        let text = written(files::PROVENANCE, toml::to_string_pretty(&new))?;
        all.insert(files::PROVENANCE.to_owned(), text.into_bytes());
    }
    skill_md::renew(&mut all)?;
    Package::from_files(all)
}

fn provenance(frame: &Package, parents: Vec<String>, operators: Vec<String>) -> Provenance {
    let old = frame.provenance.clone().unwrap_or_else(|| Provenance {
        source: frame.call.server.clone().unwrap_or_default(),
        locator: frame.call.operation.clone(),
        fingerprint: String::new(),
        builder: String::new(),
        parent: None,
        model: None,
        written: Vec::new(),
        parents: Vec::new(),
        operators: Vec::new(),
    });
    Provenance { builder: BUILDER.to_owned(), parents, operators, ..old }
}

fn table_of(package: &Package, file: &'static str) -> Result<toml::Table, Error> {
    let text = package.files.get(file).map(|text| String::from_utf8_lossy(text));
    written(file, text.unwrap_or_default().parse())
}

fn written<T, E: std::fmt::Display>(file: &str, result: Result<T, E>) -> Result<T, Error> {
    result.map_err(|error| Error {
        file: file.to_owned(),
        key: None,
        line: None,
        message: error.to_string(),
    })
}

/// `https://host:1/a/b` as `https://host:1` and `/a/b`; `{server}/a` as `{server}` and `/a`.
pub(super) fn split_base(address: &str) -> (&str, &str) {
    if let Some(path) = address.strip_prefix(SERVER_PLACEHOLDER) {
        return (SERVER_PLACEHOLDER, path);
    }
    let host = address.find("://").map_or(0, |at| at + 3);
    let end = address[host..].find('/').map_or(address.len(), |at| host + at);
    address.split_at(end)
}

/// The texts in a JSON value.
fn texts(value: &Value, add: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => add(text),
        Value::Array(list) => list.iter().for_each(|entry| texts(entry, add)),
        Value::Object(map) => map.values().for_each(|entry| texts(entry, add)),
        _ => {}
    }
}

/// A method as it is sent.
pub(super) fn verb(method: HttpMethod) -> &'static str {
    match method {
        HttpMethod::Get => "GET",
        HttpMethod::Post => "POST",
        HttpMethod::Put => "PUT",
        HttpMethod::Delete => "DELETE",
        HttpMethod::Patch => "PATCH",
    }
}
