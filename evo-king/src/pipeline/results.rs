//! Reads a stage's result: what it says, and what king makes of it. A runner's output is data; a
//! missing or malformed field fails the stage and names the field.

use evo_common::{
    api::{RiskClass, RunKind},
    artifact,
    case::Case,
    clock::Timestamp,
    evidence::{LOOKS, latency_budget_ms},
    ids::ArtifactId,
    messages::{PipelineRunStatus, PipelineStage, PipelineStageResult, decode, events},
    outcome::{Outcome, Verdict, codes},
    skill::{
        Provenance, SkillManifest,
        files::{CONFIG, MANIFEST, PROVENANCE},
    },
    stage::{
        BuildingOutput, CandidateKind, EvaluationOutput, LearningOutput, PreLoadOutput,
        SkillManageOutput,
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Coordinator, ReadResult, direct, fan_out, state::StageEnd};
use crate::{
    artifacts::ArtifactStore,
    skills::{
        lifecycle,
        promotion::{self, PromotionInput},
        risk,
    },
    store::{self, Connection, runs, skills},
};

/// What a package says of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Described {
    /// Where it comes from.
    provenance: Option<Provenance>,
    /// What the skills of its steps may be.
    classes: Vec<RiskClass>,
}

/// What the package that a Building result names says of itself, or why it can't be used.
pub(super) async fn package_of(
    artifacts: &ArtifactStore,
    result: &PipelineStageResult,
) -> Result<Described, String> {
    if result.stage != PipelineStage::Building || result.status != PipelineRunStatus::Completed {
        return Ok(Described::default());
    }
    // A candidate that ends here may have no package.
    if result.artifact_id.is_empty() && result.output.get("outcome").is_some_and(Value::is_object) {
        return Ok(Described::default());
    }
    let id = ArtifactId::parse(result.artifact_id.clone())
        .map_err(|error| format!("field `artifact_id`: {error}"))?;
    let archive = match artifacts.get(&id).await {
        Ok(Some(archive)) => archive,
        Ok(None) => return Err(format!("package {id} was not uploaded before the result")),
        Err(error) => return Err(format!("package {id} can't be read: {error}")),
    };
    // What is decided about is what is in the package, not what is said of it.
    match described_in(&archive) {
        Ok((manifest, described)) if json!(manifest) == result.output["manifest"] => Ok(described),
        Ok(_) => Err(format!("package {id} holds another manifest than the result names")),
        Err(reason) => Err(format!("package {id}: {reason}")),
    }
}

/// The part of `config.toml` that says what the skills of its steps may be.
#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    classes: Vec<RiskClass>,
}

fn described_in(archive: &[u8]) -> Result<(SkillManifest, Described), String> {
    let files = artifact::unpack(archive).map_err(|error| error.to_string())?;
    let text = |name: &str| {
        let text = files.get(name).map(|text| std::str::from_utf8(text));
        text.transpose().map_err(|error| format!("{name}: {error}"))
    };
    let manifest = text(MANIFEST)?.ok_or_else(|| format!("it has no {MANIFEST}"))?;
    let manifest =
        SkillManifest::from_toml(manifest).map_err(|error| format!("{MANIFEST}: {error}"))?;
    let provenance = text(PROVENANCE)?
        .map(toml::from_str)
        .transpose()
        .map_err(|error| format!("{PROVENANCE}: {error}"))?;
    let config = text(CONFIG)?.map(toml::from_str::<Config>).transpose();
    let config = config.map_err(|error| format!("{CONFIG}: {error}"))?.unwrap_or_default();
    Ok((manifest, Described { provenance, classes: config.classes }))
}

/// Reads a result for the run.
pub(super) async fn read(
    coordinator: &Coordinator,
    connection: &Connection,
    run: &runs::Run,
    result: &PipelineStageResult,
    transient: bool,
    package: Result<Described, String>,
    now: Timestamp,
) -> store::Result<ReadResult> {
    if run.kind == RunKind::Direct {
        return Ok(direct::read(run, result, transient));
    }
    let failed = |error: String, transient| ReadResult {
        end: StageEnd::Failed { error, transient },
        output: shown_of_failed(result),
        artifact_id: run.artifact_id.clone(),
    };
    match result.status {
        PipelineRunStatus::Completed => {}
        PipelineRunStatus::TimedOut => return Ok(failed("the stage timed out".to_owned(), true)),
        PipelineRunStatus::Failed | PipelineRunStatus::Running => {
            let error = result.error.clone().unwrap_or_else(|| "no reason was given".to_owned());
            return Ok(failed(error, transient));
        }
    }
    let described = match package {
        Ok(described) => described,
        Err(message) => return Ok(failed(message, true)),
    };
    let read = match result.stage {
        PipelineStage::Learning => match typed::<LearningOutput>(&result.output) {
            Ok(output) => learning(coordinator, connection, run, output, now).await?,
            Err(message) => Err(message),
        },
        PipelineStage::Building => match typed::<BuildingOutput>(&result.output) {
            Ok(output) => building(connection, run, result, output, &described, now).await?,
            Err(message) => Err(message),
        },
        PipelineStage::PreLoad => typed::<PreLoadOutput>(&result.output)
            .map(|output| (end_or_advance(output.outcome), Some(result.output.clone()))),
        PipelineStage::Evaluation => match typed::<EvaluationOutput>(&result.output) {
            Ok(output) => evaluation(connection, run, result, &output).await?,
            Err(message) => Err(message),
        },
        PipelineStage::SkillManage => match typed::<SkillManageOutput>(&result.output) {
            Ok(output) => skill_manage(coordinator, connection, run, result, &output, now).await?,
            Err(message) => Err(message),
        },
    };
    Ok(match read {
        Ok((end, output)) => {
            let artifact_id = match result.stage {
                PipelineStage::Building => result.artifact_id.clone(),
                _ => run.artifact_id.clone(),
            };
            ReadResult { end, output, artifact_id }
        }
        Err(message) => failed(message, false),
    })
}

/// What is kept of a failed stage's output: nothing that could hold cases before they are split.
fn shown_of_failed(result: &PipelineStageResult) -> Option<Value> {
    let shown = !matches!(result.stage, PipelineStage::Learning | PipelineStage::Evaluation);
    (shown && !result.output.is_null()).then(|| result.output.clone())
}

/// What a completed stage leads to and what is stored of its output, or what is wrong with it.
type Reading = Result<(StageEnd, Option<Value>), String>;

fn typed<T: DeserializeOwned>(output: &Value) -> Result<T, String> {
    decode(events::PIPELINE_STAGE_RESULT, output.clone()).map_err(|error| {
        format!("the output can't be read: field `{}`: {}", error.path, error.message)
    })
}

/// A runner may end a candidate early, but not activate it.
fn end_or_advance(outcome: Option<Outcome>) -> StageEnd {
    match outcome {
        Some(outcome) if outcome.decision != Verdict::Active => StageEnd::Finish(outcome),
        _ => StageEnd::Advance,
    }
}

async fn learning(
    coordinator: &Coordinator,
    connection: &Connection,
    run: &runs::Run,
    mut output: LearningOutput,
    now: Timestamp,
) -> store::Result<Reading> {
    if let Err(message) = fan_out::check(&output) {
        return Ok(Err(message));
    }
    let open = coordinator.fan_out(connection, now, run, &output).await?;
    // Cases and definitions live with the children; here they would only leak held-out cases.
    for candidate in &mut output.candidates {
        candidate.cases = Vec::<Case>::new();
        candidate.definition = Value::Null;
    }
    let shown = serde_json::to_value(&output).expect("plain data");
    Ok(Ok((StageEnd::FanOut { open }, Some(shown))))
}

async fn building(
    connection: &Connection,
    run: &runs::Run,
    result: &PipelineStageResult,
    output: BuildingOutput,
    described: &Described,
    now: Timestamp,
) -> store::Result<Reading> {
    let Some(candidate) = &run.candidate else {
        return Ok(Err("the run has no candidate".to_owned()));
    };
    if output.manifest.name != candidate.name || output.manifest.version != run.version {
        return Ok(Err(format!(
            "the package is {} {}, asked for was {} {}",
            output.manifest.name, output.manifest.version, candidate.name, run.version
        )));
    }
    let end = end_or_advance(output.outcome);
    if result.artifact_id.is_empty() {
        return Ok(match end {
            StageEnd::Finish(_) => Ok((end, Some(result.output.clone()))),
            _ => Err("the result names no package".to_owned()),
        });
    }
    let parent = skills::known(connection, &candidate.name)
        .await?
        .and_then(|known| known.active)
        .map(|(incumbent, _)| incumbent.artifact_id);
    let version = skills::NewVersion {
        candidate,
        artifact_id: &result.artifact_id,
        parent: parent.as_deref(),
        run_id: &run.run_id,
        manifest: &output.manifest,
        endpoints: &output.endpoints,
        provenance: described.provenance.as_ref(),
        classes: &described.classes,
    };
    skills::insert_version(connection, now, version).await?;
    Ok(Ok((end, Some(result.output.clone()))))
}

async fn evaluation(
    connection: &Connection,
    run: &runs::Run,
    result: &PipelineStageResult,
    output: &EvaluationOutput,
) -> store::Result<Reading> {
    let Some(candidate) = &run.candidate else {
        return Ok(Err("the run has no candidate".to_owned()));
    };
    let (name, artifact_id) = (candidate.name.as_str(), run.artifact_id.as_str());
    let evidence = match &run.evidence {
        Some(earlier) => earlier.then(&output.evidence),
        None => output.evidence.clone(),
    };
    let scores = evidence.scores();
    runs::save_evidence(connection, &run.run_id, &evidence).await?;
    // What the skill is expected to do in use was measured when it was made.
    if candidate.kind != CandidateKind::InUse {
        skills::save_evidence(connection, name, artifact_id, &evidence, &scores).await?;
    }
    Ok(Ok((StageEnd::Advance, Some(result.output.clone()))))
}

async fn skill_manage(
    coordinator: &Coordinator,
    connection: &Connection,
    run: &runs::Run,
    result: &PipelineStageResult,
    output: &SkillManageOutput,
    now: Timestamp,
) -> store::Result<Reading> {
    let Some(candidate) = &run.candidate else {
        return Ok(Err("the run has no candidate".to_owned()));
    };
    let Some(evidence) = &run.evidence else {
        return Ok(Err("there is no evidence about this package".to_owned()));
    };
    let outputs = runs::outputs(connection, &run.run_id).await?;
    let output_of = |wanted: PipelineStage| {
        outputs.iter().find(|(stage, _)| *stage == wanted).map(|(_, output)| output)
    };
    let this_look = output_of(PipelineStage::Evaluation)
        .and_then(|output| typed::<EvaluationOutput>(output).ok())
        .map(|output| output.evidence.holdout)
        .unwrap_or_default();
    let fastest_probe_ms = output_of(PipelineStage::PreLoad)
        .and_then(|output| typed::<PreLoadOutput>(output).ok())
        .and_then(|output| output.probe_fastest_ms);
    let own_budget_ms =
        coordinator.source_of(run, &candidate.source).and_then(|it| it.latency_budget_ms);
    let is_answer = candidate.kind == CandidateKind::InUse;
    let in_use = skills::known(connection, &candidate.name).await?.and_then(|known| known.active);
    let has_incumbent = !is_answer && in_use.is_some();
    let knows_source = |run: &runs::Run, name: &str| coordinator.source_of(run, name).is_some();
    let classes =
        risk::classes(connection, &candidate.name, &run.artifact_id, knows_source).await?;
    let nearest_is_rival = match &evidence.nearest {
        Some(nearest) => skills::known(connection, nearest)
            .await?
            .is_some_and(|known| known.active.is_some() && known.source == candidate.source),
        None => false,
    };
    let (earlier_failures, passes_since_failure) =
        promotion::since_failure(evidence.holdout, this_look);
    let decision = promotion::decide(&PromotionInput {
        evidence,
        has_incumbent,
        look: run.look,
        // A runner says whether to put it into use, where it is already.
        proposal: Some(&output.outcome).filter(|_| !is_answer),
        is_answer,
        earlier_failures,
        passes_since_failure,
        nearest_is_rival,
        latency_budget_ms: fastest_probe_ms.map(|ms| latency_budget_ms(ms, own_budget_ms)),
    });
    let mut outcome = decision.outcome;
    if outcome.decision == Verdict::Active && is_answer {
        let still = in_use.is_some_and(|(in_use, _)| in_use.artifact_id == run.artifact_id);
        outcome = if still {
            Outcome { code: codes::ANSWERS.to_owned(), ..outcome }
        } else {
            let reason = format!("{} is not in use any more in this version", candidate.name);
            Outcome::held(codes::NOT_IN_USE, reason)
        };
    } else if outcome.decision == Verdict::Active {
        let passed = lifecycle::Passed {
            skill: &candidate.name,
            artifact_id: &run.artifact_id,
            version: &run.version,
            run_id: &run.run_id,
            evidence,
            classes: &classes,
            outcome,
        };
        let config = &coordinator.parts.config.skills;
        outcome = lifecycle::may_go_on(connection, now, config, passed).await?;
    }
    if outcome.decision == Verdict::Held
        && run.look >= LOOKS
        && promotion::may_look_again(&outcome.code)
    {
        // There is no further look that a hold could wait for.
        let reason = format!("after {} looks: {}", run.look, outcome.reason);
        outcome = Outcome::discarded(codes::NOT_ENOUGH_EVIDENCE, reason);
    }
    Ok(Ok((StageEnd::Finish(outcome), Some(result.output.clone()))))
}
