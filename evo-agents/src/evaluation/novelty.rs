//! How much a skill is like another one.

use std::collections::BTreeSet;

use evo_common::{
    skill::{SkillIO, SkillManifest},
    stage::KnownSkill,
};

/// Words in one shingle.
const SHINGLE: usize = 2;

/// 1 − the similarity to the nearest other skill, and its name; 1 when there is none. A skill is
/// not compared with earlier versions of itself.
pub fn novelty(
    manifest: &SkillManifest,
    endpoints: &[String],
    known: &[KnownSkill],
) -> (f64, Option<String>) {
    let nearest = known
        .iter()
        .filter(|other| other.name != manifest.name)
        .map(|other| (similarity(manifest, endpoints, other), &other.name))
        // Of equals the first by name, so that the answer does not depend on their order.
        .max_by(|(a, a_name), (b, b_name)| a.total_cmp(b).then_with(|| b_name.cmp(a_name)));
    match nearest {
        Some((similarity, name)) => ((1.0 - similarity).clamp(0.0, 1.0), Some(name.clone())),
        None => (1.0, None),
    }
}

/// Half what it can do and calls, three tenths how it describes itself, two tenths what it gives.
fn similarity(manifest: &SkillManifest, endpoints: &[String], other: &KnownSkill) -> f64 {
    let does = |capabilities: &[String], endpoints: &[String]| -> BTreeSet<String> {
        let capabilities = capabilities.iter().map(|text| format!("capability {text}"));
        capabilities.chain(endpoints.iter().map(|text| format!("endpoint {text}"))).collect()
    };
    let actions = jaccard(
        &does(&manifest.capabilities, endpoints),
        &does(&other.capabilities, &other.endpoints),
    );
    let texts = jaccard(
        &shingles(&manifest.name, &manifest.description, &manifest.inputs, &manifest.outputs),
        &shingles(&other.name, &other.description, &other.inputs, &other.outputs),
    );
    let outputs = jaccard(&fields(&manifest.outputs), &fields(&other.outputs));
    0.5 * actions + 0.3 * texts + 0.2 * outputs
}

/// Shared part of two sets; 0 when both are empty, since nothing then speaks for a likeness.
fn jaccard<T: Ord>(a: &BTreeSet<T>, b: &BTreeSet<T>) -> f64 {
    let shared = a.intersection(b).count();
    let all = a.len() + b.len() - shared;
    if all == 0 { 0.0 } else { shared as f64 / all as f64 }
}

fn fields(fields: &[SkillIO]) -> BTreeSet<(&str, &str)> {
    fields.iter().map(|field| (field.name.as_str(), field.r#type.as_str())).collect()
}

fn shingles(
    name: &str,
    description: &str,
    inputs: &[SkillIO],
    outputs: &[SkillIO],
) -> BTreeSet<String> {
    let mut shingles = BTreeSet::new();
    let mut add = |text: &str| {
        let words: Vec<String> = text
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect();
        if words.len() < SHINGLE {
            shingles.extend(words);
        } else {
            shingles.extend(words.windows(SHINGLE).map(|window| window.join(" ")));
        }
    };
    add(name);
    add(description);
    for field in inputs.iter().chain(outputs) {
        add(&format!("{} {}", field.name, field.r#type));
    }
    shingles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(
        name: &str,
        description: &str,
        capabilities: &[&str],
        outputs: &[&str],
    ) -> SkillManifest {
        SkillManifest {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            description: description.to_owned(),
            capabilities: capabilities.iter().map(|text| (*text).to_owned()).collect(),
            inputs: Vec::new(),
            outputs: outputs
                .iter()
                .map(|name| SkillIO {
                    name: (*name).to_owned(),
                    r#type: "string".to_owned(),
                    required: false,
                    description: None,
                })
                .collect(),
            dependencies: Vec::new(),
            has_code: false,
        }
    }

    fn known(manifest: SkillManifest, endpoint: &str) -> KnownSkill {
        KnownSkill {
            name: manifest.name,
            active: true,
            fingerprint: String::new(),
            description: manifest.description,
            capabilities: manifest.capabilities,
            endpoints: vec![endpoint.to_owned()],
            inputs: manifest.inputs,
            outputs: manifest.outputs,
        }
    }

    #[test]
    fn a_copy_is_not_new_and_a_stranger_is() {
        let pets =
            manifest("a-pets", "Lists the pets of the shop", &["pets", "list"], &["pets", "count"]);
        let endpoint = ["GET {server}/pets".to_owned()];
        assert_eq!(novelty(&pets, &endpoint, &[]), (1.0, None));
        assert_eq!(
            novelty(&pets, &endpoint, &[known(pets.clone(), &endpoint[0])]),
            (1.0, None),
            "not compared with itself"
        );

        let copy = SkillManifest { name: "b-pets".to_owned(), ..pets.clone() };
        let stranger = manifest("weather", "Tells tomorrow's rain", &["weather"], &["mm"]);
        let others = [known(stranger, "GET https://w.example.com/rain"), known(copy, &endpoint[0])];
        let (novelty, nearest) = novelty(&pets, &endpoint, &others);
        assert!(novelty < 0.1, "{novelty}");
        assert_eq!(nearest.as_deref(), Some("b-pets"));
    }

    #[test]
    fn siblings_of_one_document_are_new_enough() {
        let list =
            manifest("shop-list-pets", "Lists the pets.", &["pets", "list"], &["pets", "count"]);
        let one = manifest("shop-get-pet", "Shows one pet.", &["pets", "read"], &["id", "name"]);
        let (novelty, _) = novelty(
            &one,
            &["GET {server}/pets/{id}".to_owned()],
            &[known(list, "GET {server}/pets")],
        );
        assert!(novelty > 0.7, "{novelty}");
    }
}
