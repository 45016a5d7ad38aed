//! Repairs of skills with code, and folders with a `SKILL.md`, through the stages.

use std::collections::BTreeMap;

use evo_agents::{
    config::BuildLimits,
    skill::{package::Package, skill_md},
};
use evo_common::{
    config::SourceConfig,
    stage::{Candidate, CandidateKind, Incumbent, StageContext},
};
use serde_json::{Value, json};

use crate::written::{Bed, FakeModel, GOOD, NAIVE, code, roman};

/// The context of a repair of a version that fails.
fn repair(context: &StageContext, artifact_id: &str) -> StageContext {
    let mut candidate = context.candidate.clone().unwrap();
    candidate.kind = CandidateKind::Repair;
    candidate.definition = json!({
        "skill": candidate.name, "artifact_id": artifact_id, "cluster": "exact",
        "text": "Its calls give wrong numbers.",
    });
    "repair".clone_into(&mut candidate.fingerprint);
    StageContext {
        candidate: Some(candidate),
        version: "0.1.1".to_owned(),
        incumbent: Some(Incumbent {
            artifact_id: artifact_id.to_owned(),
            version: "0.1.0".to_owned(),
        }),
        ..context.clone()
    }
}

#[tokio::test]
async fn a_model_repairs_the_program_that_fails_and_the_rest_of_the_package_stays() {
    // The version that fails was right on the one case that it was made with.
    let first = FakeModel::start(|_, _| code(NAIVE)).await;
    let bed = Bed::new(Some(&first), BuildLimits::default());
    let context = bed.context(roman(), 4);
    let one = StageContext { train_cases: context.train_cases[..1].to_vec(), ..context.clone() };
    let (output, done) = bed.building(&one).await;
    assert_eq!(output.outcome, None);
    let mut files = bed.package(&done.artifact_id).await.files;
    files.insert("src/notes.txt".to_owned(), b"kept".to_vec());
    let (_, archive) = evo_common::artifact::pack(&files).unwrap();
    let failing = bed.services.artifacts.put(archive).await.unwrap();

    let model = FakeModel::start(|_, _| code(GOOD)).await;
    let mut repairing = Bed::new(Some(&model), BuildLimits::default());
    repairing.services.artifacts = bed.services.artifacts.clone();
    let (output, done) = repairing.building(&repair(&context, failing.as_str())).await;
    assert_eq!(output.outcome, None);
    let package = repairing.package(&done.artifact_id).await;
    let made = package.provenance.clone().unwrap();
    assert_eq!(made.operators, ["model_repair"]);
    assert_eq!((made.parent.as_deref(), made.parents.len()), (Some(failing.as_str()), 1));
    assert_eq!(package.manifest.version, "0.1.1");
    assert_eq!(package.files["src/notes.txt"], b"kept");
    let asked = &model.asked()[0];
    assert!(asked.contains("present_program") && asked.contains("sum(values[c]"), "{asked}");
    assert!(asked.contains("the answer is not the expected one"), "its failures are told: {asked}");

    let same = FakeModel::start(|_, _| code(NAIVE)).await;
    let mut repairing = Bed::new(Some(&same), BuildLimits::default());
    repairing.services.artifacts = bed.services.artifacts.clone();
    let context = repair(&one, failing.as_str());
    let (output, _) = repairing.building(&context).await;
    assert_eq!(output.outcome.unwrap().code, "no_improvement");
}

/// The candidate of a folder, as its source makes it.
fn folder(files: &[(&str, &str)]) -> Candidate {
    let files: BTreeMap<&str, Value> =
        files.iter().map(|(path, text)| (*path, json!({"text": text}))).collect();
    Candidate {
        kind: CandidateKind::SkillMd,
        source: "trees".to_owned(),
        name: "trees-roman".to_owned(),
        locator: "SKILL roman".to_owned(),
        description: "Converts Roman numerals.".to_owned(),
        definition: json!({"folder": "roman", "files": files, "frontmatter": {"name": "roman", "description": "x"}}),
        ..roman()
    }
}

fn skill_md(runtime: &str) -> String {
    let runtime = if runtime.is_empty() {
        String::new()
    } else {
        format!("metadata:\n  evo-runtime: {runtime}\n  author: somebody\n")
    };
    format!(
        "---\nname: roman\ndescription: Converts Roman numerals.\nlicense: MIT\n{runtime}---\n\n# Roman\n\nRun the script.\n"
    )
}

async fn imported(files: &[(&str, &str)]) -> Result<Package, String> {
    let bed = Bed::new(None, BuildLimits::default());
    let mut context = bed.context(folder(files), 4);
    context.sources = vec![SourceConfig::openapi("trees", "trees")];
    let (output, done) = bed.building(&context).await;
    match output.outcome {
        Some(outcome) => {
            Err(format!("{} {}: {}", outcome.decision.as_str(), outcome.code, outcome.reason))
        }
        None => Ok(bed.package(&done.artifact_id).await),
    }
}

#[tokio::test]
async fn a_folder_that_says_how_its_script_is_run_becomes_a_skill() {
    let script = ("scripts/roman.py", GOOD);
    for runtime in ["scripts/roman.py", "'{\"entry\": \"scripts/roman.py\", \"timeout_ms\": 3000}'"]
    {
        let text = skill_md(runtime);
        let files = [("SKILL.md", text.as_str()), script, ("references/a.md", "kept")];
        let package = imported(&files).await.unwrap();
        assert_eq!(package.runtime.as_ref().unwrap().entry, "scripts/roman.py");
        assert_eq!(package.runtime.as_ref().unwrap().interpreter, "python3");
        assert_eq!(package.manifest.inputs[0].name, "text", "as its cases have it");
        assert_eq!(package.files["references/a.md"], b"kept");
        let written = String::from_utf8(package.files["SKILL.md"].clone()).unwrap();
        let (front, body) = skill_md::read(&written).unwrap();
        assert_eq!(front.check(), Ok(()));
        assert_eq!((front.name.as_str(), front.license.as_deref()), ("trees-roman", Some("MIT")));
        assert_eq!(front.metadata["author"], "somebody");
        assert!(body.contains("Run the script."));
    }

    let bed = Bed::new(None, BuildLimits::default());
    let text = skill_md("scripts/roman.py");
    let mut context = bed.context(folder(&[("SKILL.md", &text), script]), 4);
    context.sources = vec![SourceConfig::openapi("trees", "trees")];
    let ended = bed.pipeline(&context).await;
    assert_eq!(ended.outcome.decision.as_str(), "active", "{}", ended.says());
}

#[tokio::test]
async fn what_can_not_be_run_is_refused_with_what_to_do() {
    let shell = skill_md("scripts/run.sh");
    let odd = skill_md("scripts/run.rb");
    let gone = skill_md("scripts/gone.py");
    for (files, expected) in [
        (
            vec![("SKILL.md", skill_md("")), ("a.md", String::new())],
            "held no_oracle: it holds instructions",
        ),
        (
            vec![("SKILL.md", skill_md("")), ("scripts/roman.py", GOOD.to_owned())],
            "held no_oracle: it has scripts/roman.py, and does not say how it is called: `metadata.evo-runtime`",
        ),
        (
            vec![("SKILL.md", shell), ("scripts/run.sh", "echo".to_owned())],
            "discarded invalid_package: scripts/run.sh is a shell script, and the sandbox has no shell",
        ),
        (
            vec![("SKILL.md", odd)],
            "discarded invalid_package: SKILL.md: `metadata.evo-runtime` names",
        ),
        (vec![("SKILL.md", gone)], "discarded invalid_package: config.toml"),
        (vec![("a.md", String::new())], "discarded invalid_package: the folder has no SKILL.md"),
    ] {
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let refused = imported(&files).await.unwrap_err();
        assert!(refused.starts_with(expected), "{refused}");
    }
}

#[tokio::test]
async fn what_is_exported_can_be_imported_again() {
    let model = FakeModel::start(|_, _| code(GOOD)).await;
    let bed = Bed::new(Some(&model), BuildLimits::default());
    let (output, done) = bed.building(&bed.context(roman(), 4)).await;
    assert_eq!(output.outcome, None);
    let package = bed.package(&done.artifact_id).await;
    let text = |name: &str| String::from_utf8(package.files[name].clone()).unwrap();
    let (front, _) =
        skill_md::read(&text("SKILL.md")).map(|(front, body)| (front, body.to_owned())).unwrap();
    assert_eq!(front.check(), Ok(()));
    assert_eq!(front.name, package.manifest.name);
    let mut others = package.files.clone();
    others.remove("SKILL.md");
    assert_eq!(front.metadata[skill_md::SHA256], skill_md::digest(&others));

    // Only what any agent of the format knows: SKILL.md and the script.
    let (document, script) = (text("SKILL.md"), text("src/main.py"));
    let again = imported(&[("SKILL.md", &document), ("src/main.py", &script)]).await.unwrap();
    assert_eq!(again.manifest.inputs, package.manifest.inputs);
    assert_eq!(again.manifest.outputs, package.manifest.outputs);
    assert_eq!(again.runtime, package.runtime);
    assert_eq!(again.files["src/main.py"], package.files["src/main.py"]);
}
