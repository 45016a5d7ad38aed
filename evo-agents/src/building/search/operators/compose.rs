//! Skills in a row: what the first one gives is what the second one takes.

use std::collections::BTreeMap;

use evo_common::skill::{SkillIO, Step};
use rand::{RngExt as _, rngs::StdRng};

use super::{one_of, one_of_first};
use crate::building::search::{
    genome::Genome,
    knowledge::{Context, Part},
    words,
};

/// Most steps of one skill.
const MAX_STEPS: usize = 4;

/// Two skills of which the first gives what the second needs; or another mapping, a further step,
/// or one less, of a skill that is composed already.
pub(super) fn compose(
    genome: &Genome,
    context: &Context<'_>,
    random: &mut StdRng,
) -> Option<Genome> {
    if !genome.is_composed() {
        let (first, second) = *one_of(&pairs(context), random)?;
        let given = mapped(&first.inputs, context, &[])?;
        let then = mapped(&second.inputs, context, &[first])?;
        let steps = vec![
            Step { skill: first.name.clone(), input: given, fixed: BTreeMap::new() },
            Step { skill: second.name.clone(), input: then, fixed: BTreeMap::new() },
        ];
        return Some(Genome::composed(steps, None));
    }
    let mut changed = genome.clone();
    match random.random_range(0..5) {
        4 => {
            let last = genome.steps.len() - 1;
            let pointers = pointers(context, &parts_of(genome, context)?);
            let pointer = one_of(&pointers, random)?;
            // Without a pointer it is the last answer.
            let is_last = random.random_bool(0.5) || *pointer == format!("/steps/{last}/body");
            changed.answer = (!is_last).then(|| pointer.clone());
        }
        0 if genome.steps.len() > 1 => {
            changed.steps.pop();
        }
        1 if genome.steps.len() < MAX_STEPS => {
            let earlier = parts_of(genome, context)?;
            let readers: Vec<&Part> = readers(context).collect();
            let next = *one_of(&readers, random)?;
            let input = mapped(&next.inputs, context, &earlier)?;
            changed.steps.push(Step { skill: next.name.clone(), input, fixed: BTreeMap::new() });
        }
        2 => {
            // The same step with another skill that is called almost like it.
            let at = random.random_range(0..genome.steps.len());
            let names: Vec<String> = readers(context).map(|part| part.name.clone()).collect();
            let near = words::nearest(&genome.steps[at].skill, &names);
            (*one_of_first(&near, random)?).clone_into(&mut changed.steps[at].skill);
        }
        _ => {
            let at = random.random_range(0..genome.steps.len());
            let earlier = parts_of(genome, context)?;
            let names: Vec<String> = genome.steps[at].input.keys().cloned().collect();
            let name = one_of(&names, random)?;
            let pointers = pointers(context, earlier.get(..at)?);
            let pointer = one_of(&pointers, random)?.clone();
            changed.steps[at].input.insert(name.clone(), pointer);
        }
    }
    Some(changed)
}

fn readers<'a>(context: &'a Context<'_>) -> impl Iterator<Item = &'a Part> {
    let own = context.seed.manifest.name.as_str();
    context.knowledge.skills.iter().filter(move |part| part.reads && part.name != own)
}

/// The skills of a genome's steps.
fn parts_of<'a>(genome: &Genome, context: &'a Context<'_>) -> Option<Vec<&'a Part>> {
    let part = |step: &Step| context.knowledge.skills.iter().find(|part| part.name == step.skill);
    genome.steps.iter().map(part).collect()
}

/// Pairs in which the second skill needs something that the first one gives and nobody else.
fn pairs<'a>(context: &'a Context<'_>) -> Vec<(&'a Part, &'a Part)> {
    let own = &context.seed.manifest.inputs;
    let mut pairs = Vec::new();
    for first in readers(context) {
        if first.inputs.iter().any(|input| input.required && matching(input, own).is_none()) {
            continue;
        }
        for second in readers(context).filter(|second| second.name != first.name) {
            let needs = |input: &&SkillIO| matching(input, &first.outputs).is_some();
            if second.inputs.iter().filter(|input| input.required).any(|input| needs(&input)) {
                pairs.push((first, second));
            }
        }
    }
    pairs
}

/// Where each input comes from: the caller's inputs, else an earlier answer. [`None`] when a
/// required one comes from nowhere.
fn mapped(
    inputs: &[SkillIO],
    context: &Context<'_>,
    earlier: &[&Part],
) -> Option<BTreeMap<String, String>> {
    let mut mapping = BTreeMap::new();
    for input in inputs {
        let given = matching(input, &context.seed.manifest.inputs)
            .map(|own| format!("/input/{}", escaped(&own.name)));
        let answered = || {
            earlier.iter().enumerate().rev().find_map(|(index, part)| {
                let output = matching(input, &part.outputs)?;
                Some(format!("/steps/{index}/body/{}", escaped(&output.name)))
            })
        };
        match given.or_else(answered) {
            Some(pointer) => {
                mapping.insert(input.name.clone(), pointer);
            }
            None if input.required => return None,
            None => {}
        }
    }
    Some(mapping)
}

/// Everything that a step may refer to.
fn pointers(context: &Context<'_>, earlier: &[&Part]) -> Vec<String> {
    let own = context.seed.manifest.inputs.iter();
    let mut all: Vec<String> = own.map(|own| format!("/input/{}", escaped(&own.name))).collect();
    for (index, part) in earlier.iter().enumerate() {
        let outputs = part.outputs.iter();
        all.extend(outputs.map(|output| format!("/steps/{index}/body/{}", escaped(&output.name))));
    }
    all
}

/// The one with the same type that is called the same, as far as styles and synonyms go.
fn matching<'a>(wanted: &SkillIO, among: &'a [SkillIO]) -> Option<&'a SkillIO> {
    let fits = |other: &&SkillIO| {
        other.r#type == wanted.r#type || [&other.r#type, &wanted.r#type].iter().any(|t| *t == "any")
    };
    let same = |other: &&SkillIO| other.name == wanted.name;
    let alike = |other: &&SkillIO| {
        words::styles(&wanted.name).contains(&other.name)
            || words::synonyms(&wanted.name).contains(&other.name)
    };
    among.iter().filter(fits).find(same).or_else(|| among.iter().filter(fits).find(alike))
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
