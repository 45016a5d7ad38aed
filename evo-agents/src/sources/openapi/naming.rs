//! Names: of skills, of inputs, and the words that say what an operation can do.

use std::collections::{HashMap, HashSet};

use evo_common::{ids::sha256_hex, stage::KnownName};

/// Longest name of a skill.
const MAX_NAME: usize = 64;
/// Most capabilities of one operation.
const MAX_CAPABILITIES: usize = 8;

/// The words of a name: `getPetById`, `get_pet-by.id` and `GetPETById` have `get pet by id`.
pub fn words(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut words = Vec::new();
    let mut word = String::new();
    for (i, &c) in chars.iter().enumerate() {
        if !c.is_ascii_alphanumeric() {
            words.push(std::mem::take(&mut word));
            continue;
        }
        let before = i.checked_sub(1).map(|i| chars[i]);
        let starts = c.is_ascii_uppercase()
            && match before {
                Some(before) if before.is_ascii_lowercase() || before.is_ascii_digit() => true,
                // The last capital of a row starts the next word: `HTTPStatus`. A plural keeps
                // its `s`: `getIDs`.
                Some(before) if before.is_ascii_uppercase() => {
                    let after = chars.get(i + 1).copied().unwrap_or(' ');
                    let plural =
                        after == 's' && !chars.get(i + 2).is_some_and(char::is_ascii_lowercase);
                    after.is_ascii_lowercase() && !plural
                }
                _ => false,
            };
        if starts {
            words.push(std::mem::take(&mut word));
        }
        word.push(c.to_ascii_lowercase());
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// The words joined by dashes.
pub fn kebab(text: &str) -> String {
    words(text).join("-")
}

/// Gives every operation of a cycle a name that no other one has.
#[derive(Debug, Default)]
pub struct Names {
    taken: HashSet<String>,
    /// What king's skills are called, by where they were found.
    known: HashMap<Place, Vec<String>>,
    /// Names of king's skills whose operations are still there.
    kept: HashMap<String, Place>,
    /// Every name that king has.
    foreign: HashSet<String>,
}

/// Source and locator.
type Place = (String, String);

impl Names {
    /// Names that go on from those of king's skills: an operation keeps the name that its skill
    /// has. Of several names for one operation the first one counts.
    pub fn with_known(known: &[KnownName]) -> Self {
        let mut names = Self::default();
        for skill in known {
            let place = (skill.source.clone(), skill.locator.clone());
            names.known.entry(place).or_default().push(skill.name.clone());
            names.foreign.insert(skill.name.clone());
        }
        names
    }

    /// Says that an operation is in the document, so that no other one gets its skill's name.
    pub fn keep(&mut self, source: &str, operation_id: Option<&str>, method: &str, path: &str) {
        let place = (source.to_owned(), format!("{method} {path}"));
        if let Some(name) = self.known_name(&place, &full(source, operation_id, method, path)) {
            self.kept.insert(name, place);
        }
    }

    /// The name of the skill that was made from this operation; the document's own, if it is one
    /// of several.
    fn known_name(&self, place: &Place, full: &String) -> Option<String> {
        let names = self.known.get(place)?;
        if names.contains(full) { Some(full.clone()) } else { names.first().cloned() }
    }

    /// Gives a candidate another name. Says no when any skill or candidate has it.
    pub fn rename(&mut self, from: &str, to: &str) -> bool {
        let free = !self.foreign.contains(to) && self.taken.insert(to.to_owned());
        if free {
            self.taken.remove(from);
        }
        free
    }

    /// The name of the operation's skill, if king has one, else
    /// `<source>-<operationId or method-path>`. A name that is too long is cut, and one that is
    /// taken is told apart, by a short digest of the locator, so that the same operation gets the
    /// same name again.
    pub fn give(
        &mut self,
        source: &str,
        operation_id: Option<&str>,
        method: &str,
        path: &str,
    ) -> String {
        let full = full(source, operation_id, method, path);
        let place = (source.to_owned(), format!("{method} {path}"));
        if let Some(known) = self.known_name(&place, &full)
            && self.taken.insert(known.clone())
        {
            return known;
        }
        let others = self.kept.get(&full).is_some_and(|owner| *owner != place);
        if full.len() <= MAX_NAME && !others && self.taken.insert(full.clone()) {
            return full;
        }
        let digest = sha256_hex(format!("{source} {method} {path}").as_bytes());
        for length in 6..=digest.len().min(40) {
            let keep = MAX_NAME - length - 1;
            let cut = full.get(..keep.min(full.len())).unwrap_or_default().trim_end_matches('-');
            let name = format!("{cut}-{}", &digest[..length]);
            let name = name.trim_start_matches('-').to_owned();
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
        unreachable!("a locator is listed once, so its digest is unique")
    }
}

/// `<source>-<operationId or method-path>`, however long.
fn full(source: &str, operation_id: Option<&str>, method: &str, path: &str) -> String {
    let own = operation_id.map(kebab).filter(|name| !name.is_empty());
    let own = own.unwrap_or_else(|| kebab(&format!("{method} {path}")));
    let full = [kebab(source), own].into_iter().filter(|part| !part.is_empty());
    full.collect::<Vec<_>>().join("-")
}

/// A legal input name for a parameter: letters, digits and underscores, so that it can stand
/// between braces anywhere.
pub(super) fn input_name(name: &str, taken: &mut HashSet<String>, location: &str) -> String {
    let mut plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(60).collect();
    if plain.trim_matches('_').is_empty() {
        "input".clone_into(&mut plain);
    }
    if !name.starts_with('_') {
        plain = plain.trim_matches('_').to_owned();
    }
    if plain.starts_with(|c: char| c.is_ascii_digit()) {
        plain.insert(0, '_');
    }
    let mut unique = plain.clone();
    let mut number = 1;
    while !taken.insert(unique.clone()) {
        unique = match number {
            1 => format!("{plain}_{location}"),
            _ => format!("{plain}_{location}_{number}"),
        };
        number += 1;
    }
    unique
}

/// What an operation can do: its tags, what it does to what.
pub fn capabilities(tags: &[String], method: &str, path: &str) -> Vec<String> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let ends_in_parameter = segments.last().is_some_and(|segment| segment.contains('{'));
    let verb = match method {
        "GET" | "HEAD" if ends_in_parameter => "read",
        "GET" | "HEAD" => "list",
        "POST" => "create",
        "PUT" => "replace",
        "PATCH" => "update",
        "DELETE" => "delete",
        _ => "inspect",
    };
    let is_version = |word: &str| {
        word.strip_prefix('v')
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let resources = segments
        .iter()
        .filter(|segment| !segment.contains('{'))
        .map(|segment| kebab(segment))
        .filter(|word| word != "api" && word != "rest" && !is_version(word));
    let mut seen = HashSet::new();
    tags.iter()
        .map(|tag| kebab(tag))
        .chain(resources)
        .chain(std::iter::once(verb.to_owned()))
        .filter(|word| !word.is_empty() && word.len() <= MAX_NAME && seen.insert(word.clone()))
        .take(MAX_CAPABILITIES)
        .collect()
}

#[cfg(test)]
mod tests {
    use evo_common::skill::is_valid_name;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_split_where_people_would() {
        for (text, expected) in [
            ("getPetById", "get-pet-by-id"),
            ("get_pet_by_id", "get-pet-by-id"),
            ("getHTTPStatus", "get-http-status"),
            ("listIDs", "list-ids"),
            ("v2Users", "v2-users"),
            ("GET /pets/{petId}", "get-pets-pet-id"),
            ("Ünïcode--x", "n-code-x"),
            ("", ""),
        ] {
            assert_eq!(kebab(text), expected, "{text}");
        }
    }

    #[test]
    fn collisions_and_long_names_get_a_digest() {
        let mut names = Names::default();
        assert_eq!(names.give("shop", Some("getPet"), "GET", "/a"), "shop-get-pet");
        let second = names.give("shop", Some("get_pet"), "GET", "/b");
        assert!(second.starts_with("shop-get-pet-") && second.len() == 19, "{second}");
        assert_eq!(names.give("shop", None, "GET", "/a/{id}"), "shop-get-a-id");
        assert_eq!(names.give("shop", Some("---"), "DELETE", "/"), "shop-delete");
        let long = names.give("shop", Some(&"long".repeat(40)), "GET", "/c");
        assert_eq!(long.len(), 64);
        assert_eq!(Names::default().give("shop", Some(&"long".repeat(40)), "GET", "/c"), long);
    }

    fn known(names: &[(&str, &str)]) -> Names {
        let known: Vec<KnownName> = names
            .iter()
            .map(|(name, locator)| KnownName {
                name: (*name).to_owned(),
                source: "shop".to_owned(),
                locator: (*locator).to_owned(),
                ..KnownName::default()
            })
            .collect();
        Names::with_known(&known)
    }

    /// The names of these operations, in their order.
    fn given(mut names: Names, operations: &[(Option<&str>, &str)]) -> Vec<String> {
        for (id, path) in operations {
            names.keep("shop", *id, "GET", path);
        }
        operations.iter().map(|(id, path)| names.give("shop", *id, "GET", path)).collect()
    }

    #[test]
    fn an_operation_keeps_the_name_of_its_skill() {
        // The document has another id for it now; another one has the old id.
        let names = known(&[("shop-get-a", "GET /a"), ("shop-best", "GET /b")]);
        let found = given(names, &[(Some("getA"), "/c"), (Some("firstA"), "/a"), (None, "/b")]);
        assert_eq!(found[1..], ["shop-get-a", "shop-best"]);
        assert!(found[0].starts_with("shop-get-a-"), "{found:?}");
        // The operation has moved: the skill of this id goes on.
        let names = known(&[("shop-get-a", "GET /v1/a")]);
        assert_eq!(given(names, &[(Some("getA"), "/v2/a")]), ["shop-get-a"]);
        // Of two skills for one operation, the document's own name counts, else the first.
        let two = [("shop-new", "GET /a"), ("shop-old", "GET /a")];
        assert_eq!(given(known(&two), &[(Some("old"), "/a")]), ["shop-old"]);
        assert_eq!(given(known(&two), &[(Some("other"), "/a")]), ["shop-new"]);
    }

    #[test]
    fn another_name_must_be_free_everywhere() {
        let mut names = known(&[("shop-old", "GET /gone")]);
        let first = names.give("shop", None, "GET", "/a");
        let second = names.give("shop", None, "GET", "/b");
        assert!(!names.rename(&first, &second) && !names.rename(&first, "shop-old"));
        assert!(names.rename(&first, "shop-best") && !names.rename(&second, "shop-best"));
        assert!(names.rename(&second, "shop-get-a"), "the name that was given up is free again");
    }

    #[test]
    fn inputs_of_one_name_are_told_apart() {
        let mut taken = HashSet::new();
        for (name, location, expected) in [
            ("id", "path", "id"),
            ("id", "query", "id_query"),
            ("id", "query", "id_query_2"),
            ("filter[name]", "query", "filter_name"),
            ("$top", "query", "top"),
            ("_links", "query", "_links"),
            ("2fa", "query", "_2fa"),
            ("{}", "query", "input"),
        ] {
            assert_eq!(input_name(name, &mut taken, location), expected);
        }
    }

    #[test]
    fn capabilities_are_tags_resources_and_verb() {
        assert_eq!(
            capabilities(&["Pet Store".to_owned()], "GET", "/api/v1/pets/{id}/toys/{toy}"),
            ["pet-store", "pets", "toys", "read"]
        );
        assert_eq!(capabilities(&[], "GET", "/"), ["list"]);
    }

    proptest! {
        #[test]
        fn every_name_is_legal_and_unique(
            operations in prop::collection::vec((prop::option::of(".{0,80}"), "/[a-z/{}.A-Z]{0,80}"), 1..40)
        ) {
            let mut names = Names::default();
            let mut seen = HashSet::new();
            for (i, (id, path)) in operations.into_iter().enumerate() {
                let name = names.give("a-source", id.as_deref(), "GET", &format!("{path}{i}"));
                prop_assert!(is_valid_name(&name), "{name}");
                prop_assert!(seen.insert(name));
            }
        }
    }
}
