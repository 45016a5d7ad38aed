//! Broken and naive variants of skills that work: where the search begins. Nothing here knows the
//! operators of the search; faults are put into the files of a package.

use evo_agents::{building::search::knowledge::Writes, skill::package::Package};
use evo_common::{artifact::Files, case::Case, skill::files};
use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Map, Value};

use super::skills::Skill;

/// How a start came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One fault.
    One,
    /// Two or three faults.
    More,
    /// Two or three faults, and inputs that are called otherwise than the server's parameters.
    Renamed,
    /// Written from the description and the names of the inputs alone.
    Naive,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::One, Self::More, Self::Renamed, Self::Naive];
}

/// Something that goes wrong with APIs and with who writes down how to call them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A letter of a path is wrong, missing or twice.
    TypoInPath,
    /// A letter of a parameter's name is.
    TypoInName,
    /// A parameter is called as in a version that never was.
    OldName,
    /// A prefix too many: `/v1`, `/rest`.
    NewPrefix,
    /// The first part of the path is missing.
    LostPrefix,
    /// A part of the path is another word.
    OtherWord,
    /// GET instead of what it should be.
    WrongVerb,
    /// A parameter is in the query instead of the path, or in a header instead of the query.
    Elsewhere,
    /// An input is not sent.
    NotSent,
    /// The token is not sent.
    NoToken,
    /// The body has another media type.
    OtherMedia,
    /// The body lies in an object.
    Wrapped,
    /// A part of the answer is taken that is not there.
    OtherOutput,
}

impl Fault {
    pub const ALL: [Self; 13] = [
        Self::TypoInPath,
        Self::TypoInName,
        Self::OldName,
        Self::NewPrefix,
        Self::LostPrefix,
        Self::OtherWord,
        Self::WrongVerb,
        Self::Elsewhere,
        Self::NotSent,
        Self::NoToken,
        Self::OtherMedia,
        Self::Wrapped,
        Self::OtherOutput,
    ];

    /// Whether an operator of the search has a move that takes back just this, with any words that
    /// it needs at hand.
    pub fn has_inverse(self) -> bool {
        !matches!(self, Self::TypoInPath | Self::OtherWord | Self::LostPrefix)
    }
}

/// A package that does not work, and the cases that go with its inputs.
#[derive(Debug)]
pub struct Start {
    /// Which skill.
    pub skill: usize,
    pub kind: Kind,
    pub faults: Vec<Fault>,
    pub package: Package,
    pub train: Vec<Case>,
    pub holdout: Vec<Case>,
}

/// A start of this kind; [`None`] when the skill has no place for such faults.
pub fn make(
    index: usize,
    skill: &Skill,
    kind: Kind,
    writes: &Writes,
    random: &mut StdRng,
) -> Option<Start> {
    let mut start = Start {
        skill: index,
        kind,
        faults: Vec::new(),
        package: skill.package.clone(),
        train: skill.train.clone(),
        holdout: skill.holdout.clone(),
    };
    let wanted = match kind {
        Kind::One => 1,
        Kind::More | Kind::Renamed => random.random_range(2..=3),
        Kind::Naive => {
            start.package = naive(&skill.package)?;
            return writes.permit(&start.package).then_some(start);
        }
    };
    if kind == Kind::Renamed {
        rename_inputs(&mut start)?;
    }
    for _ in 0..40 {
        if start.faults.len() == wanted {
            break;
        }
        let fault = *Fault::ALL.choose(random)?;
        if start.faults.contains(&fault) {
            continue;
        }
        if let Some(package) = broken(&start.package, fault, random).filter(|p| writes.permit(p)) {
            start.package = package;
            start.faults.push(fault);
        }
    }
    (start.faults.len() == wanted).then_some(start)
}

/// The two files that say what is called.
struct Texts {
    manifest: toml::Table,
    config: toml::Table,
}

impl Texts {
    fn of(package: &Package) -> Option<Self> {
        let table = |file: &str| {
            let text = std::str::from_utf8(package.files.get(file)?).ok()?;
            text.parse::<toml::Table>().ok()
        };
        Some(Self { manifest: table(files::MANIFEST)?, config: table(files::CONFIG)? })
    }

    /// The package that they are. Nothing else of the right one is left in it: neither its texts
    /// for people nor its cases.
    fn package(&self, right: &Package) -> Option<Package> {
        let mut all = Files::new();
        for (file, table) in [(files::MANIFEST, &self.manifest), (files::CONFIG, &self.config)] {
            all.insert(file.to_owned(), toml::to_string_pretty(table).ok()?.into_bytes());
        }
        if let Some(text) = right.files.get(files::PROVENANCE) {
            all.insert(files::PROVENANCE.to_owned(), text.clone());
        }
        Package::from_files(all).ok()
    }

    fn endpoint(&mut self) -> Option<&mut toml::Table> {
        self.config.get_mut("endpoints")?.as_array_mut()?.first_mut()?.as_table_mut()
    }

    fn extra(&mut self, key: &str) -> Option<&mut toml::Table> {
        let extra = self.config.get_mut("extra")?.as_table_mut()?;
        let entry = extra.entry(key.to_owned()).or_insert_with(|| toml::Table::new().into());
        entry.as_table_mut()
    }

    fn path(&mut self) -> Option<Vec<String>> {
        let url = self.endpoint()?.get("url")?.as_str()?;
        let path = url.strip_prefix("{server}")?;
        Some(path.split('/').skip(1).map(str::to_owned).collect())
    }

    fn set_path(&mut self, parts: &[String]) -> Option<()> {
        let url = format!("{{server}}/{}", parts.join("/"));
        self.endpoint()?.insert("url".to_owned(), url.into());
        Some(())
    }
}

fn broken(package: &Package, fault: Fault, random: &mut StdRng) -> Option<Package> {
    let mut texts = Texts::of(package)?;
    let mut parts = texts.path()?;
    let plain: Vec<usize> =
        (0..parts.len()).filter(|at| parts[*at].len() > 2 && !parts[*at].contains('{')).collect();
    match fault {
        Fault::TypoInPath => {
            let at = *plain.choose(random)?;
            parts[at] = typo(&parts[at], random);
            texts.set_path(&parts)?;
        }
        Fault::OtherWord => {
            let at = *plain.choose(random)?;
            let words = ["items", "list", "info", "data", "entries", "all"];
            (*words.choose(random)?).clone_into(&mut parts[at]);
            texts.set_path(&parts)?;
        }
        Fault::NewPrefix => {
            let prefix = *["v1", "rest", "public", "api/v2"].choose(random)?;
            parts.insert(0, prefix.to_owned());
            texts.set_path(&parts)?;
        }
        Fault::LostPrefix => {
            if parts.len() < 2 || parts[0].contains('{') {
                return None;
            }
            parts.remove(0);
            texts.set_path(&parts)?;
        }
        Fault::WrongVerb => {
            let endpoint = texts.endpoint()?;
            if endpoint.get("method")?.as_str()? == "GET" {
                return None;
            }
            endpoint.insert("method".to_owned(), "GET".into());
        }
        Fault::TypoInName | Fault::OldName => {
            let table = *["query", "headers", "body"].choose(random)?;
            let entries = texts.extra(table)?;
            let names: Vec<String> = entries.keys().cloned().collect();
            let old = names.choose(random)?;
            let new = match fault {
                Fault::TypoInName => typo(old, random),
                _ => match random.random_range(0..3) {
                    0 => format!("p_{old}"),
                    1 => format!("{old}Value"),
                    _ => old.chars().take(3).collect(),
                },
            };
            let value = entries.remove(old)?;
            entries.insert(new, value);
        }
        Fault::Elsewhere => {
            let place = parts.iter().position(|part| is_placeholder(part));
            if let Some(at) = place.filter(|_| random.random_bool(0.5)) {
                let part = parts.remove(at);
                texts.set_path(&parts)?;
                let name = part.trim_matches(['{', '}']).to_owned();
                texts.extra("query")?.insert(name, part.into());
            } else {
                let (from, to) =
                    *[("query", "headers"), ("body", "query"), ("query", "body")].choose(random)?;
                let entries = texts.extra(from)?;
                let names: Vec<String> = entries.keys().cloned().collect();
                let name = names.choose(random)?;
                let value = entries.remove(name)?;
                texts.extra(to)?.insert(name.clone(), value);
            }
        }
        Fault::NotSent => {
            let table = *["query", "headers", "body"].choose(random)?;
            let entries = texts.extra(table)?;
            let names: Vec<String> = entries.keys().cloned().collect();
            entries.remove(names.choose(random)?)?;
        }
        Fault::NoToken => {
            texts.config.remove("auth_ref")?;
        }
        Fault::OtherMedia => {
            let extra = texts.config.get_mut("extra")?.as_table_mut()?;
            let old = extra.get("content_type")?.as_str()?.to_owned();
            let new = match old.as_str() {
                "application/json" => "application/x-www-form-urlencoded",
                _ => "application/json",
            };
            extra.insert("content_type".to_owned(), new.into());
        }
        Fault::Wrapped => {
            let extra = texts.config.get_mut("extra")?.as_table_mut()?;
            let body = extra.remove("body")?;
            let wrapped = toml::Table::from_iter([("request".to_owned(), body)]);
            extra.insert("body".to_owned(), wrapped.into());
        }
        Fault::OtherOutput => {
            let extra = texts.config.get_mut("extra")?.as_table_mut()?;
            let pointer = *["/data", "/result", "/0"].choose(random)?;
            extra.insert("output".to_owned(), pointer.into());
        }
    }
    // Tables that were only looked into stay out of the file.
    if let Some(extra) = texts.config.get_mut("extra").and_then(toml::Value::as_table_mut) {
        for key in ["query", "headers", "body"] {
            if extra.get(key).and_then(toml::Value::as_table).is_some_and(toml::Table::is_empty) {
                extra.remove(key);
            }
        }
    }
    texts.package(package).filter(|broken| broken.config != package.config)
}

fn is_placeholder(part: &str) -> bool {
    part.starts_with('{') && part.ends_with('}')
}

/// A word with one letter wrong, missing or twice.
fn typo(word: &str, random: &mut StdRng) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    let at = random.random_range(0..letters.len());
    match random.random_range(0..3) {
        0 if letters.len() > 2 => {
            letters.remove(at);
        }
        1 => letters.insert(at, letters[at]),
        _ => letters[at] = if letters[at] == 'x' { 'q' } else { 'x' },
    }
    letters.into_iter().collect()
}

/// Other names for all inputs, in manifest, templates and cases: the skill's own are no longer those
/// of the server.
fn rename_inputs(start: &mut Start) -> Option<()> {
    let mut texts = Texts::of(&start.package)?;
    let names: Vec<String> =
        start.package.manifest.inputs.iter().map(|input| input.name.clone()).collect();
    if names.is_empty() {
        return None;
    }
    let new = |index: usize| format!("argument_{}", index + 1);
    for input in texts.manifest.get_mut("inputs")?.as_array_mut()? {
        let input = input.as_table_mut()?;
        let at = names.iter().position(|name| input["name"].as_str() == Some(name))?;
        input.insert("name".to_owned(), new(at).into());
    }
    let mut config = toml::to_string(&texts.config).ok()?;
    for (at, name) in names.iter().enumerate() {
        config = config.replace(&format!("{{{name}}}"), &format!("{{{}}}", new(at)));
    }
    texts.config = config.parse().ok()?;
    start.package = texts.package(&start.package)?;
    for case in start.train.iter_mut().chain(&mut start.holdout) {
        let old: Map<String, Value> = std::mem::take(&mut case.input);
        for (name, value) in old {
            let at = names.iter().position(|other| *other == name)?;
            case.input.insert(new(at), value);
        }
    }
    Some(())
}

/// What somebody writes who has read what the skill is for and what it takes, but no document: a
/// GET of a path from the description's words, with all inputs in the query.
fn naive(right: &Package) -> Option<Package> {
    const SMALL: [&str; 26] = [
        "a", "an", "the", "of", "to", "in", "on", "for", "and", "or", "with", "by", "from", "that",
        "is", "are", "it", "its", "this", "returns", "return", "get", "gets", "shows", "lists",
        "all",
    ];
    let mut texts = Texts::of(right)?;
    let words: Vec<String> = right
        .manifest
        .description
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .map(str::to_ascii_lowercase)
        .filter(|word| word.len() > 1 && !SMALL.contains(&word.as_str()))
        .collect();
    let path: Vec<String> = words.iter().take(2).cloned().collect();
    let name: String = words.iter().take(4).cloned().collect::<Vec<_>>().join("-");
    texts.set_path(&path)?;
    let endpoint = texts.endpoint()?;
    endpoint.insert("method".to_owned(), "GET".into());
    endpoint.insert("name".to_owned(), "call".into());
    endpoint.remove("headers");
    texts.config.remove("auth_ref");
    let extra = texts.config.get_mut("extra")?.as_table_mut()?;
    let server = extra.get("server")?.clone();
    extra.clear();
    extra.insert("server".to_owned(), server);
    let name: String = name.chars().take(60).collect();
    texts.manifest.insert("name".to_owned(), name.trim_matches('-').into());
    texts.manifest.insert("capabilities".to_owned(), toml::Value::Array(Vec::new()));
    texts.package(right)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn package() -> Package {
        let manifest = "name = \"shop-get-pet\"\nversion = \"0.1.0\"\ndescription = \"Returns the \
             details of a pet.\"\ncapabilities = []\noutputs = []\n[[inputs]]\nname = \"id\"\n\
             type = \"integer\"\n[[inputs]]\nname = \"depth\"\ntype = \"integer\"\n";
        let config = "auth_ref = \"TOKEN\"\n[[endpoints]]\nname = \"call\"\nmethod = \"GET\"\n\
             url = \"{server}/shop/pets/{id}\"\n[extra]\nserver = \"shop\"\n[extra.query]\n\
             depth = \"{depth}\"\n";
        let files = [(files::MANIFEST, manifest), (files::CONFIG, config)];
        let files = files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()));
        Package::from_files(files.into()).unwrap()
    }

    #[test]
    fn each_fault_changes_the_call_and_leaves_a_package() {
        let right = package();
        let mut random = StdRng::seed_from_u64(1);
        let mut made = 0;
        for fault in Fault::ALL {
            for _ in 0..20 {
                if let Some(broken) = broken(&right, fault, &mut random) {
                    assert_ne!(broken.config, right.config, "{fault:?}");
                    made += 1;
                    break;
                }
            }
        }
        assert_eq!(made, 10, "without a body three faults have no place");
    }

    #[test]
    fn a_naive_variant_is_made_of_words_for_people() {
        let naive = naive(&package()).unwrap();
        assert_eq!(naive.config.endpoints[0].url, "{server}/details/pet");
        assert_eq!((naive.config.auth_ref, naive.manifest.name.as_str()), (None, "details-pet"));
        assert_eq!(naive.call.query.len(), 0);
    }
}
