//! `evo sources …`: where Learning looks, what it would find there, and another place to look.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use evo_agents::{
    skill::execute::{Executor, ExecutorConfig},
    sources::{self, look::Looker, openapi::naming::Names},
};
use evo_common::{
    bundle::{Bundle, slug},
    config::{
        SourceConfig, SourceKind, SourcesConfig,
        load::{self, Format},
    },
    outcome::Verdict,
    tokens::Tokens,
};
use serde::Serialize;

use crate::{
    cli::{AddSource, DataArgs, FormatArgs, SourcesCommand},
    config,
    instance::write_whole,
    report::{print, print_json, table},
    stop::{Result, Stop},
};

/// Name of a source that is only looked at.
const TRIED: &str = "tried";

pub(super) async fn run(command: SourcesCommand) -> Result<()> {
    match command {
        SourcesCommand::List { format, data } => list(format, &data),
        SourcesCommand::Add(args) => add(*args),
        SourcesCommand::Test { target, kind, allow_origin, format, data } => {
            test(target.as_deref(), kind.as_deref(), allow_origin, format, &data).await
        }
    }
}

fn configured(data: &DataArgs) -> Result<Vec<SourceConfig>> {
    let data = config::data_folder(data.data.clone(), config::env)?;
    let file = data.config_file("sources.toml");
    if !file.exists() {
        return Ok(Vec::new());
    }
    evo_king::load_sources(&file).map_err(|error| Stop::Usage(error.into()))
}

#[derive(Serialize)]
struct Listed<'a> {
    sources: &'a [SourceConfig],
    count: usize,
}

fn list(format: FormatArgs, data: &DataArgs) -> Result<()> {
    let sources = configured(data)?;
    if format.json {
        return print_json(&Listed { sources: &sources, count: sources.len() });
    }
    if sources.is_empty() {
        return print("No sources are configured here; `evo up` writes config/sources.toml.");
    }
    let row = |source: &SourceConfig| {
        let place = if source.command.is_empty() {
            source.location.clone()
        } else {
            source.command.join(" ")
        };
        let state = if source.enabled { "on" } else { "off" };
        vec![source.name.clone(), kind_name(source.kind), state.to_owned(), place]
    };
    print(&table(&["name", "kind", "", "where"], &[], sources.iter().map(row).collect()))
}

fn kind_name(kind: SourceKind) -> String {
    let name = serde_json::to_value(kind).unwrap_or_default();
    name.as_str().unwrap_or_default().to_owned()
}

/// What a source would yield.
#[derive(Debug, Serialize)]
struct Yield {
    name: String,
    kind: String,
    /// Why it can't be read, if it can't.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// What in it is no candidate, and why.
    skipped: Vec<String>,
    candidates: Vec<Prospect>,
    count: usize,
    /// How many would be measured.
    measured: usize,
}

/// What would become of a candidate, as far as its definition says.
#[derive(Debug, Serialize)]
struct Prospect {
    name: String,
    locator: String,
    description: String,
    /// The tags of its operation, each a bundle of skills.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bundles: Vec<String>,
    cases: usize,
    /// Cases that tell a right answer from a wrong one.
    oracles: usize,
    measured: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    sources: Vec<Yield>,
    count: usize,
    measured: usize,
}

async fn test(
    target: Option<&str>,
    kind: Option<&str>,
    allow_origins: Vec<String>,
    format: FormatArgs,
    data: &DataArgs,
) -> Result<()> {
    let chosen = chosen(target, kind, allow_origins, data)?;
    let folder = config::data_folder(data.data.clone(), config::env)?;
    let mut executor = ExecutorConfig { env: Arc::new(config::env), ..ExecutorConfig::default() };
    let mut servers = BTreeMap::new();
    if let Some(instance) = folder.running().await? {
        let file = config::token_file(Some(&folder), config::env)?;
        let tokens =
            Tokens::load(&file, &config::env).map_err(|error| Stop::Usage(error.into()))?;
        executor.viewer_token = Some(tokens.viewer);
        executor.gateway_token = Some(tokens.gateway);
        servers.insert("evo-king".to_owned(), instance.king);
        servers.insert("evo-gateway".to_owned(), instance.gateway);
    }
    for source in &chosen {
        if let Some(url) = &source.base_url {
            servers.insert(source.name.clone(), url.clone());
        }
    }
    let executor = Executor::new(executor);
    let mut looker = Looker { executor: &executor, servers: &servers, names: Names::default() };
    let mut found = Vec::new();
    for source in &chosen {
        found.push(Box::pin(look(&mut looker, source)).await);
    }
    executor.close().await;
    let report = Report {
        count: found.iter().map(|one| one.count).sum(),
        measured: found.iter().map(|one| one.measured).sum(),
        sources: found,
    };
    if format.json {
        print_json(&report)?;
    } else {
        print(&text(&report))?;
    }
    let failed = report.sources.iter().any(|source| source.error.is_some());
    if failed || report.measured == 0 { Err(Stop::Told) } else { Ok(()) }
}

async fn look(looker: &mut Looker<'_>, source: &SourceConfig) -> Yield {
    let mut told = Yield {
        name: source.name.clone(),
        kind: kind_name(source.kind),
        error: None,
        skipped: Vec::new(),
        candidates: Vec::new(),
        count: 0,
        measured: 0,
    };
    match looker.look(source).await {
        Ok(found) => {
            told.skipped = found.skipped;
            for candidate in found.candidates {
                let outcome = sources::forecast(&candidate, source);
                let oracles = candidate.cases.iter().filter(|case| case.expect.has_oracle());
                told.measured += usize::from(outcome.is_none());
                let tags = candidate.definition["tags"].as_array().into_iter().flatten();
                let tags = tags.filter_map(serde_json::Value::as_str);
                let bundle = |tag| Bundle { source: source.name.clone(), tag: Some(slug(tag)) };
                told.candidates.push(Prospect {
                    bundles: tags.map(bundle).map(|bundle| bundle.to_string()).collect(),
                    oracles: oracles.count(),
                    cases: candidate.cases.len(),
                    name: candidate.name,
                    locator: candidate.locator,
                    description: candidate.description,
                    measured: outcome.is_none(),
                    decision: outcome.as_ref().map(|outcome| outcome.decision),
                    code: outcome.as_ref().map(|outcome| outcome.code.clone()),
                    reason: outcome.map(|outcome| outcome.reason),
                });
            }
            told.count = told.candidates.len();
        }
        Err(error) => told.error = Some(error),
    }
    told
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for source in &report.sources {
        text.push_str(&format!("{} ({})\n", source.name, source.kind));
        if let Some(error) = &source.error {
            text.push_str(&format!("  can't be read: {error}\n\n"));
            continue;
        }
        let row = |one: &Prospect| {
            let end = match (&one.code, &one.reason) {
                (Some(code), Some(reason)) => format!("{code}: {reason}"),
                _ => "would be measured".to_owned(),
            };
            let cases = format!("{}/{}", one.oracles, one.cases);
            vec![one.name.clone(), one.locator.clone(), cases, end]
        };
        let rows = source.candidates.iter().map(row).collect();
        text.push_str(&table(&["candidate", "from", "oracles/cases", ""], &[], rows));
        for skipped in &source.skipped {
            text.push_str(&format!("\nleft out: {skipped}"));
        }
        let mut bundles = BTreeMap::new();
        for bundle in source.candidates.iter().flat_map(|one| &one.bundles) {
            *bundles.entry(bundle).or_insert(0) += 1;
        }
        if !bundles.is_empty() {
            let bundles: Vec<_> =
                bundles.iter().map(|(bundle, count)| format!("{bundle} ({count})")).collect();
            text.push_str(&format!("\nbundles: {}", bundles.join(", ")));
        }
        let (count, measured) = (source.count, source.measured);
        text.push_str(&format!("\n{count} candidates, {measured} of them would be measured\n\n"));
    }
    text.trim_end().to_owned()
}

/// The sources to look into: the configured one of that name, what lies there, or all.
fn chosen(
    target: Option<&str>,
    kind: Option<&str>,
    allow_origins: Vec<String>,
    data: &DataArgs,
) -> Result<Vec<SourceConfig>> {
    let configured = configured(data)?;
    let Some(target) = target else {
        let enabled: Vec<_> = configured.into_iter().filter(|source| source.enabled).collect();
        if enabled.is_empty() {
            return Err(Stop::usage(
                "no sources are configured here; name a file, a folder or an address",
            ));
        }
        return Ok(enabled);
    };
    if let Some(source) = configured.iter().find(|source| source.name == target) {
        return Ok(vec![source.clone()]);
    }
    let is_place =
        target.contains("://") || target.starts_with("git+") || Path::new(target).exists();
    if !is_place {
        let names: Vec<&str> = configured.iter().map(|source| source.name.as_str()).collect();
        return Err(Stop::usage(format!(
            "{target}: neither a configured source ({}) nor a file, a folder or an address",
            if names.is_empty() { "there are none".to_owned() } else { names.join(", ") }
        )));
    }
    let kind = kind_of(kind, target)?;
    let location = whole(target)?;
    let source = SourceConfig::openapi(TRIED, location);
    Ok(vec![SourceConfig { kind, allow_origins, ..source }])
}

/// The kind that was named, else what the place looks like.
fn kind_of(named: Option<&str>, target: &str) -> Result<SourceKind> {
    let Some(text) = named else { return Ok(guess(target)) };
    serde_json::from_value(serde_json::Value::from(text))
        .map_err(|_| Stop::usage(format!("--kind {text}: use openapi, skill_md, mcp or feed")))
}

/// A place as it is named from anywhere.
fn whole(target: &str) -> Result<String> {
    if target.contains("://") || target.starts_with("git+") {
        return Ok(target.to_owned());
    }
    let path =
        std::path::absolute(target).map_err(|error| Stop::usage(format!("{target}: {error}")))?;
    Ok(path.display().to_string())
}

#[derive(Serialize)]
struct Entries<'a> {
    sources: [&'a SourceConfig; 1],
}

/// Writes an entry to the end of the file, so that everything in it stays as somebody wrote it.
fn add(args: AddSource) -> Result<()> {
    let folder = config::data_folder(args.data.data.clone(), config::env)?;
    let file = folder.config_file("sources.toml");
    let shown = file.display();
    let place = args.location.as_deref().unwrap_or_default();
    if !place.is_empty() && !place.contains("://") && !place.starts_with("git+") {
        std::fs::metadata(place).map_err(|error| {
            Stop::usage(format!("{place}: {error}; name a file, a folder or an address"))
        })?;
    }
    let kind = match (&args.kind, args.command.is_empty()) {
        (None, false) => SourceKind::Mcp,
        (kind, _) => kind_of(kind.as_deref(), place)?,
    };
    let source = SourceConfig {
        kind,
        base_url: args.base_url,
        allow_origins: args.allow_origin,
        allow_operations: args.allow_operation,
        allow_env: args.allow_env,
        auth_ref: args.auth_ref,
        command: args.command,
        ..SourceConfig::openapi(
            &args.name,
            if place.is_empty() { String::new() } else { whole(place)? },
        )
    };
    let text = std::fs::read_to_string(&file).map_err(|error| {
        Stop::usage(format!("{shown}: {error}; `evo doctor --fix` writes the files that Evo needs"))
    })?;
    let entry = toml::to_string(&Entries { sources: [&source] })
        .map_err(|error| Stop::usage(format!("the source can't be written: {error}")))?;
    let new = format!("{}\n\n{entry}", text.trim_end());
    load::parse_valid::<SourcesConfig>(
        &new,
        Format::Toml,
        &format!("{shown}, with the new source"),
    )
    .map_err(|error| Stop::Usage(error.into()))?;
    write_whole(&file, new.as_bytes(), 0o644)?;
    if args.format.json {
        return print_json(&source);
    }
    let name = &source.name;
    print(&format!(
        "{name} is in {shown}.\nSee what it would yield: evo sources test {name}\nEvo looks there when it is started again.\n"
    ))
}

/// What a place looks like: a folder or repository, a JSON list, else an OpenAPI document.
fn guess(target: &str) -> SourceKind {
    if target.starts_with("git+") || Path::new(target).is_dir() {
        return SourceKind::SkillMd;
    }
    let is_list = std::fs::read_to_string(target).is_ok_and(|text| {
        serde_json::from_str::<serde_json::Value>(&text)
            .is_ok_and(|value| value.is_array() || value.get("sources").is_some())
    });
    if is_list { SourceKind::Feed } else { SourceKind::Openapi }
}
