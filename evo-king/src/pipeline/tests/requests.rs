//! Requests on their way through cycles, and what cycles may use up.

use evo_common::{
    api::{NewRequest, RequestExample, RequestStatus, RequestSummary, SkillAction},
    stage::{ModelUsage, RequestKind, SkillRequest, UnansweredRequest},
};

use super::*;
use crate::{
    config::{LearningConfig, SkillsConfig},
    skills::{
        people::{self, Deed},
        requests,
    },
    store::requests::views,
};

/// The scripted Learning makes the candidate that the last word of a request names; of `nothing` it makes
/// none, and of two words with a plus between them two. What a person wants better it
/// repairs.
pub(super) fn answer(wanted: &[SkillRequest], output: &mut LearningOutput) {
    for request in wanted.iter().filter(|request| request.text.starts_with("better")) {
        output.candidates.push(Candidate {
            kind: CandidateKind::Repair,
            request_id: Some(request.request_id.clone()),
            fingerprint: request.request_id.clone(),
            definition: json!({"text": request.text}),
            cases: Vec::new(),
            ..candidate(request.skill.as_deref().unwrap())
        });
    }
    for request in wanted.iter().filter(|request| request.text.starts_with("newer")) {
        let skill = request.skill.as_deref().unwrap();
        let request_id = Some(request.request_id.clone());
        output.candidates.push(Candidate { request_id, ..candidate(&format!("{skill}#bad")) });
    }
    for request in wanted.iter().filter(|request| request.kind == RequestKind::New) {
        let request_id = &request.request_id;
        let name = request.text.split_whitespace().last().unwrap();
        if name == "nothing" {
            let (code, reason) = ("no_model".to_owned(), "no model answers".to_owned());
            let request_id = request_id.clone();
            output.unanswered.push(UnansweredRequest { request_id, code, reason });
            continue;
        }
        // A skill in use that does it: its name and digest. What it was tried for in vain is built anew.
        if let Some((skill, artifact_id)) = name.split_once('@') {
            let is_new = request.tried.is_empty();
            output.candidates.push(Candidate {
                kind: if is_new { CandidateKind::InUse } else { CandidateKind::Request },
                request_id: Some(request_id.clone()),
                fingerprint: format!("{skill} for {request_id}"),
                definition: json!({"skill": skill, "artifact_id": artifact_id, "version": "0.1.0"}),
                cases: Vec::new(),
                ..candidate(if is_new { skill } else { "api-built" })
            });
            continue;
        }
        for name in name.split('+') {
            output.candidates.push(Candidate {
                kind: CandidateKind::Request,
                request_id: Some(request_id.clone()),
                definition: json!(request),
                cases: request.examples.clone(),
                ..candidate(name)
            });
        }
    }
}

fn example(number: i64) -> RequestExample {
    RequestExample {
        input: json!({"n": number}).as_object().unwrap().clone(),
        output: Some(json!(number * 2)),
        expect: None,
    }
}

fn asked(text: &str, examples: i64) -> NewRequest {
    let examples = (0..examples).map(example).collect();
    NewRequest { text: text.to_owned(), examples, ..NewRequest::default() }
}

impl Bench {
    async fn ask(&self, new: NewRequest) -> String {
        let asked = requests::ask(&self.store, &self.pipeline, new, "operator").await.unwrap();
        asked.request.request_id
    }

    async fn request(&self, id: &str) -> RequestSummary {
        let id = id.to_owned();
        let now = Timestamp::now();
        let read = async move |connection: &Connection| views::one(connection, now, &id).await;
        self.store.read(read).await.unwrap().unwrap()
    }

    /// What happened to a request, in words.
    async fn steps(&self, id: &str) -> Vec<String> {
        let id = id.to_owned();
        let now = Timestamp::now();
        let read = async move |connection: &Connection| views::get(connection, now, &id).await;
        let view = self.store.read(read).await.unwrap().unwrap();
        view.history.into_iter().map(|step| step.action).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_taken_and_answered_and_its_held_out_examples_reach_evaluation_only() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let id = bench.ask(asked("double a number: api-double", 10)).await;
    let _silent = bench.runners("one", usize::MAX).await;
    let before = bench.request(&id).await;
    assert_eq!((before.status, before.examples, before.held_out), (RequestStatus::Open, 10, 4));
    let report = bench.cycle_over(&["api-a"]).await;
    assert_eq!(report.active.len(), 2, "{report:?}");
    let after = bench.request(&id).await;
    assert_eq!(after.status, RequestStatus::Answered);
    let answer = after.answer.unwrap();
    assert_eq!((answer.skill.as_str(), answer.version.as_str()), ("api-double", "0.1.0"));
    assert_eq!(bench.steps(&id).await, ["opened", "taken", "answered"]);
    for (stage, context) in bench.contexts.lock().unwrap().iter() {
        let of_request = context.candidate.as_ref().is_some_and(|c| c.request_id.is_some());
        let text = json!(context).to_string();
        let seen = (0..10).filter(|n| text.contains(&format!("\"input\":{{\"n\":{n}}}"))).count();
        let wanted = match stage {
            PipelineStage::Learning => 6,
            PipelineStage::Evaluation if of_request => 10,
            _ if of_request => 6,
            _ => 0,
        };
        assert_eq!(seen, wanted, "{stage}: {text}");
    }
    // It is not taken a second time.
    bench.cycle_over(&["api-b"]).await;
    assert_eq!(bench.steps(&id).await, ["opened", "taken", "answered"]);
    bench.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_of_a_request_depends_on_what_its_run_says() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let _silent = bench.runners("one", usize::MAX).await;
    // Learning has nothing to make it of.
    let nothing = bench.ask(asked("make nothing", 2)).await;
    let bad = bench.ask(asked("make api-bad", 2)).await;
    // Pre-load can't reach it.
    let away = bench.ask(asked("make api-c", 2)).await;
    let either = bench.ask(asked("make api-d+api-good", 2)).await;
    for _ in 0..2 {
        bench.cycle_over(&[]).await;
    }
    let of = async |id: &str| {
        let request = bench.request(id).await;
        (request.status, request.code.unwrap_or_default(), request.tries)
    };
    assert_eq!(of(&nothing).await, (RequestStatus::Open, "no_model".to_owned(), 0));
    assert_eq!(bench.steps(&nothing).await, ["opened", "passed_over"], "told once");
    assert_eq!(of(&bad).await, (RequestStatus::Rejected, "below_threshold".to_owned(), 1));
    assert_eq!(of(&away).await, (RequestStatus::Open, "unreachable".to_owned(), 2));
    assert_eq!(of(&either).await.0, RequestStatus::Answered);
    bench.cycle_over(&[]).await;
    assert_eq!(of(&away).await, (RequestStatus::Rejected, "unreachable".to_owned(), 3));
    assert!(bench.request(&away).await.reason.unwrap().starts_with("tried 3 times"));
    // What was rejected can be asked for anew.
    assert_ne!(bench.ask(asked("make api-bad", 2)).await, bad);
    bench.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_answers_a_request_by_approving_and_denies_it_by_denying() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let _silent = bench.runners("one", usize::MAX).await;
    let ids = [
        bench.ask(asked("make api-first-write", 2)).await,
        bench.ask(asked("make api-second-write", 2)).await,
    ];
    bench.cycle_over(&[]).await;
    for id in &ids {
        assert_eq!(bench.request(id).await.status, RequestStatus::Taken);
    }
    // While it waits, no cycle takes it again.
    bench.cycle_over(&[]).await;
    let action = SkillAction { reason: Some("read".to_owned()), ..SkillAction::default() };
    let config = SkillsConfig::default();
    for (name, deed) in [("api-first-write", Deed::Approve), ("api-second-write", Deed::Deny)] {
        people::act(&bench.store, &config, name, deed, &action, "operator").await.unwrap();
    }
    assert_eq!(bench.request(&ids[0]).await.status, RequestStatus::Answered);
    assert_eq!(bench.request(&ids[1]).await.status, RequestStatus::Rejected);
    assert_eq!(bench.steps(&ids[1]).await, ["opened", "taken", "rejected"]);
    bench.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_request_ends_its_runs_and_a_cancelled_cycle_loses_none() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let first = bench.ask(asked("make api-one", 2)).await;
    let second = bench.ask(asked("make api-two", 2)).await;
    // Learning answers, and then nobody.
    let mut silent = bench.runners("one", 1).await;
    let request = StartRun { trigger: json!({"names": []}), ..StartRun::default() };
    let cycle = RunId::parse(bench.pipeline.start(request).await.unwrap().run_id).unwrap();
    silent.recv().await.unwrap();
    assert_eq!(bench.request(&first).await.status, RequestStatus::Taken);
    let cancel = evo_common::api::CancelRequest::default();
    let cancelled = |id: String| requests_cancel(&bench, id, cancel.clone());
    assert!(cancelled(first.clone()).await.changed);
    assert!(!cancelled(first.clone()).await.changed);
    bench.pipeline.cancel(&cycle).await.unwrap();
    bench.ended(&cycle).await;
    assert_eq!(bench.request(&first).await.status, RequestStatus::Cancelled);
    let second = bench.request(&second).await;
    assert_eq!((second.status, second.tries), (RequestStatus::Open, 0));
    bench.shutdown.cancel();
}

async fn requests_cancel(
    bench: &Bench,
    id: String,
    cancel: evo_common::api::CancelRequest,
) -> evo_common::api::RequestCancelled {
    requests::cancel(&bench.store, &bench.pipeline, &id, &cancel, "operator").await.unwrap()
}

/// A repair is tested with the cases of the version that it repairs, too, and its builder is told what that
/// was made from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_has_the_cases_and_the_definition_of_what_it_repairs() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let _silent = bench.runners("one", usize::MAX).await;
    bench.cycle_over(&["api-a"]).await;
    let new = NewRequest { skill: Some("api-a".to_owned()), ..asked("better for odd numbers", 5) };
    let id = bench.ask(new).await;
    bench.contexts.lock().unwrap().clear();
    // What is in use as it stands in its source, and comes first, is not in the way.
    bench.cycle_over(&["api-a"]).await;
    assert_eq!(bench.steps(&id).await, ["opened", "taken", "answered"]);
    let contexts = bench.contexts.lock().unwrap();
    let of = |wanted: PipelineStage| {
        let found = contexts.iter().find(|(stage, _)| *stage == wanted);
        found.map(|(_, context)| context.clone()).unwrap()
    };
    let (building, evaluation) = (of(PipelineStage::Building), of(PipelineStage::Evaluation));
    // Three and two of the version, three and two of the request.
    assert_eq!((building.train_cases.len(), building.holdout_cases.len()), (6, 0));
    assert_eq!((evaluation.train_cases.len(), evaluation.holdout_cases.len()), (6, 4));
    let definition = building.candidate.unwrap().definition;
    let fingerprint = candidate("api-a").fingerprint;
    let of = json!({
        "kind": "openapi", "fingerprint": fingerprint, "definition": {"path": "api-a"}
    });
    assert_eq!(definition["of"], of);
    let learning = contexts.iter().find(|(stage, _)| *stage == PipelineStage::Learning);
    let told = &learning.unwrap().1.requests[0];
    assert_eq!(told.fingerprint.as_deref(), Some(fingerprint.as_str()));
    drop(contexts);
    bench.shutdown.cancel();
}

/// What is made in the place of a repaired skill stays in the bundle of its operation's tag.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tags_of_a_document_are_bundles() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let _silent = bench.runners("one", usize::MAX).await;
    bench.cycle_over(&["api-pet-a", "api-pet-b", "api-other"]).await;
    let new = NewRequest { skill: Some("api-pet-b".to_owned()), ..asked("better", 5) };
    bench.ask(new).await;
    bench.cycle_over(&[]).await;
    let in_bundle = async |name: &str| {
        let bundle: evo_common::bundle::Bundle = name.parse().unwrap();
        let filter = store::SkillFilter {
            limit: 5,
            cursor: None,
            status: None,
            source: None,
            bundle: Some(bundle.clone()),
        };
        let listed = bench.store.skills_list(filter).await.unwrap().skills;
        let read = async move |connection: &Connection| {
            store::skills::tools::page(connection, Some(&bundle), "", 5).await
        };
        let tools = bench.store.read(read).await.unwrap();
        let names = |names: Vec<String>| names.join(" ");
        let shown = listed.iter().map(|skill| skill.name.clone()).collect();
        assert_eq!(names(tools.into_iter().map(|tool| tool.manifest.name).collect()), names(shown));
        listed
    };
    let pets = in_bundle("api/Pet Store").await;
    let names: Vec<&str> = pets.iter().map(|skill| skill.name.as_str()).collect();
    assert_eq!(names, ["api-pet-a", "api-pet-b"]);
    assert!(pets.iter().all(|skill| skill.bundles == ["api/pet-store"]), "{pets:?}");
    assert_eq!(pets[1].canary.as_ref().map(|canary| canary.version.as_str()), Some("0.1.1"));
    assert_eq!(in_bundle("api").await.len(), 3);
    assert_eq!(
        (in_bundle("api/other").await.len(), in_bundle("other/pet-store").await.len()),
        (0, 0)
    );
    bench.shutdown.cancel();
}

/// What the source has now in the place of a skill is tried first; when that is no better, the request
/// stays open, and the next cycle sees how it ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_definition_that_is_no_better_leaves_the_repair_open() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let _silent = bench.runners("one", usize::MAX).await;
    bench.cycle_over(&["api-a"]).await;
    let new = NewRequest { skill: Some("api-a".to_owned()), ..asked("newer than that", 5) };
    let id = bench.ask(new).await;
    let only_requests = async || {
        bench.contexts.lock().unwrap().clear();
        let trigger = json!({"sources": ["requests"], "names": []});
        let start = StartRun { trigger, ..StartRun::default() };
        let cycle = bench.pipeline.start(start).await.unwrap().run_id;
        bench.ended(&RunId::parse(cycle).unwrap()).await;
        let contexts = bench.contexts.lock().unwrap();
        let first = contexts.iter().find(|(stage, _)| *stage == PipelineStage::Learning);
        first.map(|(_, context)| context.clone()).unwrap()
    };
    let told = only_requests().await;
    assert_eq!((told.sources.len(), told.reread[0].name.as_str()), (0, "api"));
    assert_eq!(bench.steps(&id).await, ["opened", "taken", "reopened"]);
    let request = bench.request(&id).await;
    let code = request.code.as_deref();
    assert_eq!((request.status, code), (RequestStatus::Open, Some("below_threshold")));
    let told = only_requests().await;
    let ended: Vec<_> =
        told.past.iter().map(|past| (past.fingerprint.as_str(), past.decision)).collect();
    assert_eq!(ended, [("print of api-a#bad", Verdict::Discarded)]);
    // However often it is tried, not for ever.
    only_requests().await;
    assert_eq!(bench.request(&id).await.status, RequestStatus::Rejected);
    bench.shutdown.cancel();
}

/// A skill in use answers a request when it passes the examples that nobody has seen, and nothing of it
/// changes by that. When it does not, the request goes on by itself with what can be built.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_skill_in_use_answers_a_request_or_leaves_it_to_what_can_be_built() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let _silent = bench.runners("one", usize::MAX).await;
    bench.cycle_over(&["api-a", "api-fails-asked"]).await;
    let skill = async |name: &str| {
        let skill =
            bench.store.skills_get(name, &SkillsConfig::default().canary).await.unwrap().unwrap();
        let of = &skill.versions[0];
        let stands = (skill.versions.len(), of.run_id.clone(), json!(of.scores), skill.fence);
        (skill.skill.artifact_id.clone().unwrap(), stands)
    };
    let (good, before) = skill("api-a").await;
    let (bad, bad_before) = skill("api-fails-asked").await;
    bench.contexts.lock().unwrap().clear();
    let id = bench.ask(asked(&format!("double it: api-a@{good}"), 5)).await;
    let other = bench.ask(asked(&format!("halve it: api-fails-asked@{bad}"), 5)).await;
    let gone = bench.ask(asked("nothing of it: api-a@00", 5)).await;
    let report = bench.cycle_over(&[]).await;
    assert!(report.active.iter().all(|skill| !skill.new), "{report:?}");
    let answer = bench.request(&id).await;
    assert_eq!(answer.status, RequestStatus::Answered);
    assert_eq!(answer.answer.unwrap().artifact_id, good);
    assert_eq!(answer.code.as_deref(), Some("answers"));
    assert_eq!(bench.steps(&id).await, ["opened", "taken", "answered"]);
    assert_eq!(skill("api-a").await.1, before, "nothing of the skill has changed");
    {
        let contexts = bench.contexts.lock().unwrap();
        let of = |wanted: PipelineStage| {
            let is = |(stage, context): &&(PipelineStage, StageContext)| {
                let about = |c: &Candidate| c.request_id.as_ref() == Some(&id);
                *stage == wanted && context.candidate.as_ref().is_some_and(about)
            };
            contexts.iter().filter(is).map(|(_, context)| context.clone()).collect::<Vec<_>>()
        };
        assert!(of(PipelineStage::Building).is_empty(), "nothing is built");
        let [evaluation] = &of(PipelineStage::Evaluation)[..] else { panic!("not evaluated once") };
        assert_eq!((evaluation.train_cases.len(), evaluation.holdout_cases.len()), (3, 2));
        assert_eq!(evaluation.incumbent, None);
    }
    // It passes the train examples only.
    let request = bench.request(&other).await;
    for _ in 0..500 {
        if bench.request(&other).await.status == RequestStatus::Answered {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let steps = bench.steps(&other).await;
    assert_eq!(
        steps,
        ["opened", "taken", "reopened", "goes_on", "taken", "answered"],
        "{request:?}"
    );
    assert_eq!(bench.request(&other).await.answer.unwrap().skill, "api-built");
    assert_eq!(skill("api-fails-asked").await.1, bad_before);
    // A version that is not in use says nothing.
    let gone = bench.request(&gone).await;
    assert_eq!((gone.status, gone.code.as_deref()), (RequestStatus::Open, Some("not_in_use")));
    bench.shutdown.cancel();
}

/// King and its runners die after every number of results that there is; the request is answered once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_survives_a_crash_after_every_step() {
    for reports in 0..5 {
        let folder = TempDir::new().unwrap();
        let database = Database::File(folder.path().join("king.db"));
        let first = Bench::on(&folder, database.clone()).await;
        let new = NewRequest {
            start: true,
            idempotency_key: Some("once".to_owned()),
            ..asked("make api-kept", 4)
        };
        let mut silent = first.runners("one", reports).await;
        let asked =
            requests::ask(&first.store, &first.pipeline, new.clone(), "operator").await.unwrap();
        let cycle = asked.cycle_id.clone().unwrap();
        tokio::time::timeout(Duration::from_secs(20), silent.recv()).await.unwrap();
        first.shutdown.cancel();
        drop(first);

        let second = Bench::on(&folder, database).await;
        let _silent = second.runners("two", usize::MAX).await;
        let again = requests::ask(&second.store, &second.pipeline, new, "operator").await.unwrap();
        assert_eq!((again.created, again.cycle_id), (true, asked.cycle_id), "the same answer");
        second.ended(&RunId::parse(cycle).unwrap()).await;
        let id = &asked.request.request_id;
        assert_eq!(second.steps(id).await, ["opened", "taken", "answered"], "after {reports}");
        second.shutdown.cancel();
    }
}

async fn limited(folder: &TempDir, learning: LearningConfig) -> (Bench, mpsc::Receiver<()>) {
    let database = Database::File(folder.path().join("king.db"));
    let bench = Bench::with(folder, database, |config| config.learning = learning).await;
    let silent = bench.runners("one", usize::MAX).await;
    (bench, silent)
}

fn held(report: &CycleReport) -> Vec<(&str, &str)> {
    report.held.iter().map(|held| (held.name.as_str(), held.code.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_cycle_has_no_room_for_comes_first_in_the_next_one() {
    let folder = TempDir::new().unwrap();
    let learning = LearningConfig { max_candidates: Some(2), ..LearningConfig::default() };
    let (bench, _silent) = limited(&folder, learning).await;
    let id = bench.ask(asked("make api-wanted", 2)).await;
    let report = bench.cycle_over(&["api-a", "api-b", "api-x"]).await;
    assert_eq!(held(&report), [("api-wanted", "over_budget"), ("api-x", "over_budget")]);
    let request = bench.request(&id).await;
    assert_eq!((request.status, request.over_budget), (RequestStatus::Open, true));
    let report = bench.cycle_over(&["api-y", "api-z", "api-x"]).await;
    let active: Vec<_> = report.active.iter().filter(|s| s.new).map(|s| s.name.as_str()).collect();
    assert_eq!(active, ["api-wanted", "api-x"]);
    let request = bench.request(&id).await;
    assert_eq!((request.status, request.over_budget), (RequestStatus::Answered, false));
    bench.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cycle_whose_models_used_up_their_tokens_leaves_the_rest() {
    let folder = TempDir::new().unwrap();
    let database = Database::File(folder.path().join("king.db"));
    let bench = Bench::with(&folder, database, |config| {
        config.learning.max_tokens = Some(150);
        config.concurrency.building = Some(1);
    })
    .await;
    let _silent = bench.runners("one", usize::MAX).await;
    let usage = ModelUsage { calls: 1, input_tokens: 60, output_tokens: 40, cost_usd: None };
    let names = ["api-a", "api-b", "api-x", "api-y"];
    let trigger = json!({"names": names, "usage": usage});
    let start = StartRun { trigger, ..StartRun::default() };
    let cycle = RunId::parse(bench.pipeline.start(start).await.unwrap().run_id).unwrap();
    let report = bench.ended(&cycle).await;
    // Two took 200 tokens; with one builder at a time none was at work any more.
    assert_eq!(report.active.len(), 2, "{report:?}");
    assert_eq!(held(&report).len(), 2, "{report:?}");
    assert!(report.held.iter().all(|held| held.code == "over_budget"), "{report:?}");
    assert!(report.held[0].reason.contains("max_tokens is 150"), "{report:?}");
    let left: Vec<_> = {
        let contexts = bench.contexts.lock().unwrap();
        let building = contexts.iter().filter(|(stage, _)| *stage == PipelineStage::Building);
        building.map(|(_, context)| context.budget.unwrap().tokens.unwrap()).collect()
    };
    assert_eq!(left, [150, 50]);
    bench.shutdown.cancel();
}
