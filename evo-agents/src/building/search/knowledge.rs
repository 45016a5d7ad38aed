//! What the search may use, and what it may do: words of the source's other skills, and the writes
//! that the source allows.

use std::collections::BTreeSet;

use evo_common::{
    config::SourceConfig,
    skill::{HttpMethod, SkillIO},
};

use super::{
    genome::{Genome, split_base, verb},
    world::Seen,
};
use crate::{
    skill::{package::Package, template},
    sources::openapi::naming,
};

/// Most words that are kept of the answers.
const MAX_WORDS: usize = 400;
/// Longest word that is kept of an answer.
const MAX_WORD: usize = 40;

/// What is known before the search: of other skills of the same source, never of held-out cases.
#[derive(Debug, Clone, Default)]
pub struct Knowledge {
    /// Addresses without a path (`{server}`, `https://api.example.com`) that may be called.
    pub bases: Vec<String>,
    /// Names of servers that `{server}` may stand for.
    pub servers: Vec<String>,
    /// Path templates.
    pub paths: Vec<String>,
    /// Names of parameters, as they are sent.
    pub names: Vec<String>,
    /// Media types.
    pub media: Vec<String>,
    /// How callers show who they are: the variable and the scheme.
    pub auth: Vec<(String, Option<String>)>,
    /// Skills that steps of a composed skill may call.
    pub skills: Vec<Part>,
    /// What may be executed that is no GET.
    pub writes: Writes,
}

/// A skill that may be a step of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub inputs: Vec<SkillIO>,
    /// What it gives.
    pub outputs: Vec<SkillIO>,
    /// Whether it only reads; others are no steps.
    pub reads: bool,
}

impl Knowledge {
    /// What packages of the same source show.
    pub fn of_packages<'a>(
        packages: impl IntoIterator<Item = &'a Package>,
        writes: Writes,
    ) -> Self {
        let mut all = Self { writes, ..Self::default() };
        for package in packages {
            let Some(genome) = Genome::of(package) else { continue };
            if genome.is_composed() {
                continue;
            }
            all.skills.push(Part {
                name: package.manifest.name.clone(),
                inputs: package.manifest.inputs.clone(),
                outputs: package.manifest.outputs.clone(),
                reads: genome.method == HttpMethod::Get,
            });
            all.names.extend(genome.call.query.keys().cloned());
            all.names.extend(genome.call.headers.keys().cloned());
            if let Some(serde_json::Value::Object(body)) = &genome.call.body {
                all.names.extend(body.keys().cloned());
            }
            all.media.extend(genome.call.content_type.clone());
            all.media.extend(genome.headers.get("Accept").cloned());
            if let Some(name) = genome.auth_ref {
                all.auth.push((name, genome.call.auth_scheme.clone()));
            }
            all.servers.extend(genome.call.server);
            all.bases.push(genome.base);
            all.paths.push(genome.path);
        }
        for list in
            [&mut all.bases, &mut all.servers, &mut all.paths, &mut all.names, &mut all.media]
        {
            list.sort();
            list.dedup();
        }
        all.auth.sort();
        all.auth.dedup();
        all.skills.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

/// The calls that may be made although they are no GET.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Writes(BTreeSet<String>);

impl Writes {
    /// None.
    pub fn none() -> Self {
        Self::default()
    }

    /// The very calls of these packages, as far as the source allows their operations. Anything
    /// else that is no GET, the same address with another verb included, stays forbidden.
    pub fn of_packages<'a>(
        packages: impl IntoIterator<Item = &'a Package>,
        source: &SourceConfig,
    ) -> Self {
        let allowed = packages.into_iter().filter_map(|package| {
            let genome = Genome::of(package).filter(|genome| !genome.is_composed())?;
            let locator = package.provenance.as_ref().map(|made| made.locator.as_str())?;
            let id = package.config.endpoints.first().map(|endpoint| endpoint.name.as_str());
            let listed = |entry: &String| entry == locator || Some(entry.as_str()) == id;
            // The call has to be that of the operation: nobody's word is taken for it.
            let (method, path) = locator.split_once(' ')?;
            let is_own =
                method == verb(genome.method) && blank(&genome.path).ends_with(&blank(path));
            (is_own && source.allow_operations.iter().any(listed)).then(|| call_of(&genome))
        });
        Self(allowed.collect())
    }

    /// Whether a package may be executed: it only reads, or is one of the allowed calls.
    pub fn permit(&self, package: &Package) -> bool {
        Genome::of(package).is_some_and(|genome| self.permit_genome(&genome))
    }

    pub(super) fn permit_genome(&self, genome: &Genome) -> bool {
        genome.is_composed()
            || genome.method == HttpMethod::Get
            || self.0.contains(&call_of(genome))
    }
}

/// Verb, server and address of a call, whatever its inputs are called.
fn call_of(genome: &Genome) -> String {
    let server = genome.call.server.as_deref().unwrap_or_default();
    format!("{} {server} {}{}", verb(genome.method), genome.base, blank(&genome.path))
}

/// A path without the names of its placeholders.
fn blank(path: &str) -> String {
    template::parts(path)
        .into_iter()
        .map(|part| match part {
            template::Part::Text(text) => text,
            template::Part::Placeholder(_) => "{}",
        })
        .collect()
}

/// Everything that operators look at.
pub(super) struct Context<'a> {
    pub(super) seed: &'a Package,
    pub(super) knowledge: &'a Knowledge,
    /// Media types that the cases expect.
    pub(super) expected: Vec<String>,
    /// Single words for segments of a path.
    pub(super) path_words: Vec<String>,
    /// Names for parameters.
    pub(super) names: Vec<String>,
    /// JSON pointers into answers.
    pub(super) pointers: Vec<String>,
    /// Segments with which several paths begin.
    pub(super) prefixes: Vec<String>,
    /// Statuses that were answered instead of a declared one.
    pub(super) statuses: BTreeSet<u16>,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        seed: &'a Package,
        knowledge: &'a Knowledge,
        cases: &[evo_common::case::Case],
    ) -> Self {
        let segments =
            || {
                knowledge.paths.iter().flat_map(|path| path.split('/')).filter(|segment| {
                    !segment.is_empty() && template::names(segment).next().is_none()
                })
            };
        let manifest = &seed.manifest;
        let mut path_words: Vec<String> = segments().map(str::to_owned).collect();
        path_words.extend(naming::words(&manifest.name));
        path_words.extend(naming::words(&manifest.description));
        path_words.extend(manifest.capabilities.iter().flat_map(|text| naming::words(text)));
        path_words.retain(|word| word.len() > 1 && word.len() <= MAX_WORD);
        let firsts: Vec<&str> = knowledge
            .paths
            .iter()
            .filter_map(|path| path.split('/').find(|segment| !segment.is_empty()))
            .filter(|segment| template::names(segment).next().is_none())
            .collect();
        let prefixes: BTreeSet<&str> = firsts
            .iter()
            .filter(|first| firsts.iter().filter(|other| other == first).count() > 1)
            .copied()
            .collect();
        let mut names = knowledge.names.clone();
        names.extend(manifest.inputs.iter().map(|input| input.name.clone()));
        let expected: BTreeSet<String> =
            cases.iter().filter_map(|case| case.expect.content_type.clone()).collect();
        let mut context = Self {
            seed,
            knowledge,
            expected: expected.into_iter().collect(),
            path_words,
            names,
            pointers: Vec::new(),
            prefixes: prefixes.into_iter().map(str::to_owned).collect(),
            statuses: BTreeSet::new(),
        };
        context.tidy();
        context
    }

    /// Takes up what an answer showed.
    pub(super) fn learn(&mut self, seen: &Seen) {
        let fits = |word: &&String| (2..=MAX_WORD).contains(&word.len());
        if self.names.len() < MAX_WORDS {
            self.names.extend(seen.words.iter().filter(fits).cloned());
        }
        if self.pointers.len() < MAX_WORDS {
            self.pointers.extend(seen.pointers.iter().cloned());
        }
        if let Some(status) = seen.status.filter(|status| (200..300).contains(status)) {
            self.statuses.insert(status);
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        for list in [&mut self.path_words, &mut self.names, &mut self.pointers] {
            list.sort();
            list.dedup();
        }
    }

    /// Inputs that a genome does not send.
    pub(super) fn unused(&self, genome: &Genome) -> Vec<String> {
        let used = genome.used();
        self.seed
            .manifest
            .inputs
            .iter()
            .map(|input| input.name.clone())
            .filter(|name| !used.contains(name))
            .collect()
    }

    /// Whether a genome may be tried at all.
    pub(super) fn allows(&self, genome: &Genome) -> bool {
        let knowledge = self.knowledge;
        if genome.is_composed() {
            let known =
                |skill: &str| knowledge.skills.iter().any(|part| part.name == skill && part.reads);
            return genome.steps.iter().all(|step| known(&step.skill));
        }
        let own = self.seed.config.endpoints.first();
        let own_base = own.map(|endpoint| split_base(&endpoint.url).0);
        let base = own_base == Some(&genome.base) || knowledge.bases.contains(&genome.base);
        let server = genome.call.server == self.seed.call.server
            || genome.call.server.as_ref().is_none_or(|name| knowledge.servers.contains(name));
        let auth = genome.auth_ref.is_none()
            || genome.auth_ref == self.seed.config.auth_ref
            || knowledge.auth.iter().any(|(name, _)| Some(name) == genome.auth_ref.as_ref());
        // What counts as a success may be corrected, but never so that a failure is one.
        let declared = &self.seed.call.success;
        let success = |status: &u16| (200..300).contains(status) || declared.contains(status);
        let success = genome.call.success.iter().all(success);
        base && server && auth && success && knowledge.writes.permit_genome(genome)
    }
}
