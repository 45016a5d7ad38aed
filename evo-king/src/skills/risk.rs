//! What a call of a version could do, with everything that it calls.

use std::collections::{BTreeSet, HashSet};

use evo_common::{api::RiskClass, skill::SkillManifest, stage::Candidate};

use super::promotion;
use crate::store::{
    self, Connection, runs,
    skills::{self, pointers},
};

/// Skills that are looked at; one that is made of more could do anything.
const MAX_SKILLS: usize = 64;

/// Classes of all that a call of a version could do. A composed one has those of the skills that it
/// calls now, and those that its package lets them have later.
pub(crate) async fn classes(
    connection: &Connection,
    skill: &str,
    artifact_id: &str,
    knows_source: impl Fn(&runs::Run, &str) -> bool,
) -> store::Result<BTreeSet<RiskClass>> {
    let mut classes = BTreeSet::new();
    let mut seen = HashSet::from([skill.to_owned()]);
    let mut open = vec![(skill.to_owned(), artifact_id.to_owned())];
    while let Some((skill, artifact_id)) = open.pop() {
        let Some(made) = skills::made(connection, &skill, &artifact_id).await? else {
            // Nobody knows what it does.
            classes.extend([RiskClass::Write, RiskClass::Code]);
            continue;
        };
        if made.manifest.dependencies.is_empty() {
            let run = runs::load(connection, &made.run_id).await?;
            let candidate = run.as_ref().and_then(|run| run.candidate.as_ref());
            let known = |candidate: &&Candidate| {
                run.as_ref().is_some_and(|run| knows_source(run, &candidate.source))
            };
            let reads = candidate.filter(known).is_some_and(promotion::is_read);
            classes.insert(own(&made.manifest, reads));
            continue;
        }
        // An older package does not say what its parts may be; then they may change something.
        let declared = if made.classes.is_empty() { vec![RiskClass::Write] } else { made.classes };
        classes.extend(declared);
        for part in made.manifest.dependencies {
            if seen.len() >= MAX_SKILLS {
                classes.extend([RiskClass::Write, RiskClass::Code]);
                break;
            }
            if !seen.insert(part.clone()) {
                continue;
            }
            match pointers::load(connection, &part).await?.active {
                Some(active) => open.push((part, active.artifact_id)),
                None => classes.extend([RiskClass::Write]),
            }
        }
    }
    Ok(classes)
}

fn own(manifest: &SkillManifest, reads: bool) -> RiskClass {
    if manifest.has_code {
        RiskClass::Code
    } else if reads {
        RiskClass::Read
    } else {
        RiskClass::Write
    }
}
