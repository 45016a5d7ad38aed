//! What the search may use, and what it may do: words of the source's other skills, and the writes
//! that the source allows.

use std::collections::{BTreeMap, BTreeSet};

use evo_common::{
    config::SourceConfig,
    skill::{HttpMethod, SkillIO},
};

use super::{
    evidence::Evidence,
    genome::{Genome, split_base, verb},
    slots::Place,
    subject::{self, Subject},
    world::Seen,
};
use crate::skill::{package::Package, template};

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
    /// The same with what is known of them, and how many skills send them so.
    pub parameters: BTreeMap<Parameter, u32>,
    /// Words of the skills' descriptions, and in how many of these they are.
    pub said: BTreeMap<String, u32>,
    /// Media types.
    pub media: Vec<String>,
    /// How callers show who they are: the variable and the scheme.
    pub auth: Vec<(String, Option<String>)>,
    /// Skills that steps of a composed skill may call.
    pub skills: Vec<Part>,
    /// What may be executed that is no GET.
    pub writes: Writes,
}

/// A parameter of another skill.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Parameter {
    /// As it is sent.
    pub name: String,
    /// Where it is sent.
    pub place: Place,
    /// Type of the input that fills it.
    pub r#type: String,
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
            for (place, name) in genome.slots() {
                let input = genome.slot(place, &name).and_then(template::single);
                if let Some(input) = input.and_then(|input| package.input(input)) {
                    let r#type = input.r#type.clone();
                    let parameter = Parameter { name: name.clone(), place, r#type };
                    *all.parameters.entry(parameter).or_default() += 1;
                }
                all.names.push(name);
            }
            for word in subject::words(&package.manifest.description) {
                *all.said.entry(word).or_default() += 1;
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
    /// What the train cases tell.
    pub(super) evidence: Evidence,
    /// What the skill is about, in words of paths.
    pub(super) subject: Subject,
    /// Media types that the cases expect.
    pub(super) expected: Vec<String>,
    /// Words in the paths of other skills.
    pub(super) segments: BTreeSet<String>,
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
        let is_literal =
            |segment: &&str| !segment.is_empty() && template::names(segment).next().is_none();
        let segments: BTreeSet<String> = knowledge
            .paths
            .iter()
            .flat_map(|path| path.split('/').filter(is_literal))
            .map(str::to_owned)
            .collect();
        let manifest = &seed.manifest;
        let evidence = Evidence::of(cases);
        let subject = Subject::of(manifest, &evidence, knowledge);
        let mut path_words: Vec<String> = segments.iter().cloned().collect();
        path_words.extend(subject.words().map(str::to_owned));
        path_words.retain(|word| word.len() > 1 && word.len() <= MAX_WORD);
        let first = |path: &'a String| path.split('/').find(|segment| !segment.is_empty());
        let firsts: Vec<&str> =
            knowledge.paths.iter().filter_map(first).filter(is_literal).collect();
        let prefixes: BTreeSet<&str> = firsts
            .iter()
            .filter(|first| firsts.iter().filter(|other| other == first).count() > 1)
            .copied()
            .collect();
        let mut names = knowledge.names.clone();
        names.extend(manifest.inputs.iter().map(|input| input.name.clone()));
        names.extend(evidence.echoes.values().flatten().cloned());
        let mut context = Self {
            seed,
            knowledge,
            expected: evidence.media.iter().cloned().collect(),
            evidence,
            subject,
            segments,
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

    /// How many of the other skills' parameters of this type are called so, of the most frequent
    /// one's share; 0 when none is.
    pub(super) fn usual(&self, name: &str, place: Place, r#type: &str) -> f64 {
        let fits = |parameter: &Parameter| {
            parameter.place == place && (parameter.r#type == r#type || r#type == "any")
        };
        let all = || self.knowledge.parameters.iter().filter(|(parameter, _)| fits(parameter));
        let most = all().map(|(_, count)| *count).max().unwrap_or(1);
        let own = all().filter(|(parameter, _)| parameter.name == name).map(|(_, count)| *count);
        f64::from(own.sum::<u32>()) / f64::from(most)
    }

    /// Whether another skill sends a parameter of this name there.
    pub(super) fn knows(&self, name: &str, place: Place) -> bool {
        let same = |parameter: &Parameter| parameter.name == name && parameter.place == place;
        self.knowledge.parameters.keys().any(same)
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
