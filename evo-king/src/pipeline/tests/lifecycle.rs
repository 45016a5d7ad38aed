//! What becomes of versions after the decision: canaries, what is taken back, what people want.

use evo_common::{
    api::{OverruleFinding, SkillAction, SkillChanged, SkillDetail},
    messages::{AgentSkillReport, SkillCall, SkillResult},
};
use serde_json::Map;

use super::*;
use crate::{
    config::{CanaryConfig, Failing, SkillsConfig},
    skills::people::{self, Deed},
    store::skills::{live, views},
};

/// Shares that last no time, so that reports alone move them.
fn quick() -> SkillsConfig {
    let canary = CanaryConfig { reports: 3, window_ms: 0, ..CanaryConfig::default() };
    SkillsConfig { canary, ..SkillsConfig::default() }
}

struct Lab {
    bench: Bench,
    config: SkillsConfig,
    _silent: mpsc::Receiver<()>,
    calls: std::cell::Cell<u32>,
}

impl Lab {
    async fn start(folder: &TempDir, config: SkillsConfig) -> Self {
        let database = Database::File(folder.path().join("king.db"));
        let skills = config.clone();
        let bench = Bench::with(folder, database, |all| all.skills = skills).await;
        let silent = bench.runners("one", usize::MAX).await;
        Self { bench, config, _silent: silent, calls: std::cell::Cell::new(0) }
    }

    async fn skill(&self, name: &str) -> SkillDetail {
        self.bench.store.skills_get(name, &CanaryConfig::default()).await.unwrap().unwrap()
    }

    /// What stands where: active, canary with its share, previous, by version.
    async fn stands(&self, name: &str) -> String {
        let skill = self.skill(name).await;
        let active: Vec<&str> = skill
            .versions
            .iter()
            .filter(|version| version.active)
            .map(|version| version.version.as_str())
            .collect();
        assert!(active.len() <= 1, "{skill:?}");
        let canary = skill.skill.canary.map(|c| format!("{}@{}", c.version, c.share));
        let previous = skill.previous.map(|previous| previous.version);
        format!(
            "{} {} {}",
            active.first().unwrap_or(&"-"),
            canary.as_deref().unwrap_or("-"),
            previous.as_deref().unwrap_or("-")
        )
    }

    /// Reports a call of a version.
    async fn call(&self, name: &str, version: &str, agent: &str, works: bool) {
        let skill = self.skill(name).await;
        let version = skill.versions.iter().find(|known| known.version == version).unwrap();
        let number = self.calls.get() + 1;
        self.calls.set(number);
        let result =
            if works { SkillResult::Success } else { SkillResult::Failure("HTTP 500".to_owned()) };
        let call = SkillCall {
            report: AgentSkillReport {
                agent_id: agent.to_owned(),
                skill_id: name.to_owned(),
                result,
                score: None,
            },
            req_id: Some(format!("call-{number}")),
            artifact_id: Some(version.artifact_id.clone()),
            latency_ms: Some(5),
            cost_usd: Some(0.5),
            code: (!works).then(|| "skill_failed".to_owned()),
            input: (!works).then(|| Map::from_iter([("n".to_owned(), json!(number % 2))])),
            trace: None,
        };
        assert!(self.bench.pipeline.skill_called(call.clone()).await.unwrap());
        assert!(!self.bench.pipeline.skill_called(call).await.unwrap(), "it counts once");
    }

    async fn act(
        &self,
        name: &str,
        deed: Deed,
        version: Option<&str>,
    ) -> std::result::Result<SkillChanged, people::Error> {
        let action = SkillAction {
            reason: Some("a test".to_owned()),
            by: Some("Ada".to_owned()),
            fence: None,
            version: version.map(str::to_owned),
        };
        people::act(&self.bench.store, &self.config, name, deed, &action, "file:operator").await
    }

    /// Does it twice: the second time nothing changes.
    async fn done(&self, name: &str, deed: Deed, version: Option<&str>) {
        assert!(self.act(name, deed, version).await.unwrap().changed, "{deed:?}");
        assert!(!self.act(name, deed, version).await.unwrap().changed, "{deed:?} again");
    }

    async fn refused(&self, name: &str, deed: Deed, version: Option<&str>) -> String {
        match self.act(name, deed, version).await.unwrap_err() {
            people::Error::Refused { code, .. } => code.to_owned(),
            people::Error::Invalid { field, .. } => field.to_owned(),
            other => panic!("{other:?}"),
        }
    }

    async fn history(&self, name: &str) -> Vec<String> {
        let name = name.to_owned();
        let read =
            async move |connection: &Connection| views::history(connection, &name, None, 100).await;
        let mut history = self.bench.store.read(read).await.unwrap().history;
        history.reverse();
        history
            .into_iter()
            .map(|row| format!("{} {}@{}", row.action, row.version, row.share))
            .collect()
    }

    async fn events(&self, kind: &str) -> usize {
        let filter =
            store::EventFilter { after: 0, limit: 500, run_id: None, kind: Some(kind.to_owned()) };
        self.bench.store.events_list(filter).await.unwrap().count
    }

    async fn pinned(&self, name: &str) -> usize {
        let name = name.to_owned();
        let read = async move |connection: &Connection| live::pinned_cases(connection, &name).await;
        self.bench.store.read(read).await.unwrap().len()
    }

    fn code(report: &CycleReport) -> Vec<String> {
        let ended = [&report.held, &report.discarded, &report.failed].into_iter().flatten();
        ended.map(|candidate| candidate.code.clone()).collect()
    }
}

#[tokio::test]
async fn a_new_version_takes_over_step_by_step() {
    let folder = TempDir::new().unwrap();
    let lab = Lab::start(&folder, quick()).await;
    lab.bench.cycle_over(&["api-a"]).await;
    assert_eq!(lab.stands("api-a").await, "0.1.0 - -", "a first version has no canary");
    let report = lab.bench.cycle_over(&["api-a#2"]).await;
    assert_eq!((report.active[0].version.as_str(), report.active[0].new), ("0.1.0", false));
    assert_eq!(lab.stands("api-a").await, "0.1.0 0.1.1@10 -");
    // The same definition is not tried beside itself, and calls of the version in use move nothing.
    assert_eq!(Lab::code(&lab.bench.cycle_over(&["api-a#2"]).await), ["duplicate"]);
    for _ in 0..4 {
        lab.call("api-a", "0.1.0", "x", true).await;
    }
    assert_eq!(lab.stands("api-a").await, "0.1.0 0.1.1@10 -");
    for expected in ["0.1.0 0.1.1@50 -", "0.1.1 - 0.1.0"] {
        for _ in 0..3 {
            lab.call("api-a", "0.1.1", "x", true).await;
        }
        assert_eq!(lab.stands("api-a").await, expected);
    }
    assert_eq!(
        lab.history("api-a").await,
        ["activated 0.1.0@100", "canary 0.1.1@10", "advanced 0.1.1@50", "promoted 0.1.1@100"]
    );
    for kind in ["skill.activated", "skill.canary", "skill.advanced", "skill.promoted"] {
        assert_eq!(lab.events(kind).await, 1, "{kind}");
    }
    let skill = lab.skill("api-a").await;
    assert_eq!((skill.cost.calls, skill.cost.runs, skill.fence), (10, 3, 4));
    assert!((skill.cost.calls_usd - 5.0).abs() < 1e-9);
    let live = skill.versions[0].live.as_ref().unwrap();
    assert_eq!((live.reports, live.alarm.abs() < 1e-9), (6, true));
    // A number is never given twice.
    lab.bench.cycle_over(&["api-a#3"]).await;
    assert_eq!(lab.stands("api-a").await, "0.1.1 0.1.2@10 0.1.0");
    lab.bench.shutdown.cancel();
}

#[tokio::test]
async fn a_share_that_has_lasted_its_time_moves_without_a_call() {
    let folder = TempDir::new().unwrap();
    let canary = CanaryConfig { reports: 2, window_ms: 300, ..CanaryConfig::default() };
    let lab = Lab::start(&folder, SkillsConfig { canary, ..SkillsConfig::default() }).await;
    lab.bench.cycle_over(&["api-a"]).await;
    lab.bench.cycle_over(&["api-a#2"]).await;
    for _ in 0..2 {
        lab.call("api-a", "0.1.1", "x", true).await;
    }
    for _ in 0..300 {
        if lab.stands("api-a").await == "0.1.0 0.1.1@50 -" {
            lab.bench.shutdown.cancel();
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the timer moved nothing: {}", lab.stands("api-a").await);
}

#[tokio::test]
async fn what_fails_is_taken_back_and_its_failures_become_cases() {
    let folder = TempDir::new().unwrap();
    let lab = Lab::start(&folder, quick()).await;
    lab.bench.cycle_over(&["api-a"]).await;
    lab.bench.cycle_over(&["api-a#2"]).await;
    // A canary: six failures are enough, and the version in use stays.
    for _ in 0..6 {
        lab.call("api-a", "0.1.1", "x", false).await;
    }
    assert_eq!(lab.stands("api-a").await, "0.1.0 - -");
    assert_eq!(lab.pinned("api-a").await, 2, "two different inputs");
    let skill = lab.skill("api-a").await;
    assert!(skill.versions[0].rolled_back_at.is_some());
    assert_eq!(skill.versions[0].code.as_deref(), Some("rolled_back"));
    // Once because so many failed alike, once because it was taken back; that is one request.
    assert_eq!(lab.events("skill.repair_wanted").await, 2);
    assert_eq!(lab.events("request.opened").await, 1);
    // The next version is compared on them, and no builder sees them.
    lab.bench.cycle_over(&["api-a#3"]).await;
    let contexts = lab.bench.contexts.lock().unwrap().clone();
    let pinned = |stage| {
        let last = contexts.iter().rfind(|(of, _)| *of == stage).unwrap();
        let (train, holdout) = (&last.1.train_cases, &last.1.holdout_cases);
        let count = |cases: &[Case]| cases.iter().filter(|case| case.pinned).count();
        (count(train), count(holdout))
    };
    assert_eq!(pinned(PipelineStage::Evaluation), (0, 2));
    for stage in [PipelineStage::Building, PipelineStage::PreLoad, PipelineStage::SkillManage] {
        assert_eq!(pinned(stage), (0, 0), "{stage}");
    }
    // The version in use: the one before is in use again.
    for _ in 0..6 {
        lab.call("api-a", "0.1.2", "x", true).await;
    }
    assert_eq!(lab.stands("api-a").await, "0.1.2 - 0.1.0");
    for _ in 0..20 {
        lab.call("api-a", "0.1.2", "x", false).await;
    }
    assert_eq!(lab.stands("api-a").await, "0.1.0 - 0.1.2");
    // There is none to go back to any more: it stays, and a person is told.
    for _ in 0..20 {
        lab.call("api-a", "0.1.0", "x", false).await;
    }
    assert_eq!(lab.stands("api-a").await, "0.1.0 - 0.1.2");
    assert_eq!(lab.skill("api-a").await.skill.flag.unwrap().code, "failing");
    for _ in 0..100 {
        lab.call("api-a", "0.1.0", "x", true).await;
    }
    assert_eq!(lab.skill("api-a").await.skill.flag, None);
    assert_eq!((lab.events("skill.flagged").await, lab.events("skill.recovered").await), (1, 1));
    assert_eq!(lab.events("skill.rolled_back").await, 2);
    lab.bench.shutdown.cancel();
}

#[tokio::test]
async fn a_common_outage_takes_nothing_back() {
    let folder = TempDir::new().unwrap();
    let lab = Lab::start(&folder, quick()).await;
    lab.bench.cycle_over(&["api-a", "api-b"]).await;
    lab.bench.cycle_over(&["api-a#2"]).await;
    for _ in 0..6 {
        lab.call("api-a", "0.1.1", "x", true).await;
    }
    assert_eq!(lab.stands("api-a").await, "0.1.1 - 0.1.0");
    for _ in 0..40 {
        lab.call("api-b", "0.1.0", "x", false).await;
        lab.call("api-a", "0.1.1", "x", false).await;
    }
    assert_eq!(lab.stands("api-a").await, "0.1.1 - 0.1.0");
    assert_eq!(lab.skill("api-a").await.skill.flag.unwrap().code, "outage");
    assert_eq!(lab.events("skill.rolled_back").await, 0);
    lab.bench.shutdown.cancel();
}

#[tokio::test]
async fn the_only_version_goes_to_the_archive_where_the_policy_says_so() {
    let folder = TempDir::new().unwrap();
    let config = SkillsConfig { failing: Failing::Retire, ..quick() };
    let lab = Lab::start(&folder, config).await;
    lab.bench.cycle_over(&["api-a"]).await;
    for _ in 0..6 {
        lab.call("api-a", "0.1.0", "x", false).await;
    }
    assert_eq!(lab.skill("api-a").await.skill.status, "archived");
    // A cycle brings nothing of it back; a person does.
    assert_eq!(Lab::code(&lab.bench.cycle_over(&["api-a#2"]).await), ["archived"]);
    lab.done("api-a", Deed::Restore, None).await;
    assert_eq!(lab.stands("api-a").await, "0.1.0 - -");
    assert_eq!(lab.skill("api-a").await.skill.status, "active");
    lab.bench.shutdown.cancel();
}

#[tokio::test]
async fn a_write_waits_for_a_person() {
    let folder = TempDir::new().unwrap();
    let lab = Lab::start(&folder, quick()).await;
    let name = "api-order-write";
    assert_eq!(Lab::code(&lab.bench.cycle_over(&[name]).await), ["needs_approval"]);
    assert_eq!(lab.stands(name).await, "- - -");
    assert_eq!(lab.refused(name, Deed::Activate, Some("0.1.0")).await, "needs_approval");
    // It is not measured once more while it waits.
    assert_eq!(Lab::code(&lab.bench.cycle_over(&[name]).await), ["needs_approval"]);
    let waits = lab.skill(name).await.approval.unwrap();
    assert_eq!((waits.risk.as_str(), waits.status.as_str()), ("write", "pending"));
    lab.done(name, Deed::Approve, None).await;
    assert_eq!(lab.stands(name).await, "0.1.0 - -");
    // The next version begins as every other one, once a person said yes.
    assert_eq!(Lab::code(&lab.bench.cycle_over(&["api-order-write#2"]).await), ["needs_approval"]);
    lab.done(name, Deed::Approve, None).await;
    assert_eq!(lab.stands(name).await, "0.1.0 0.1.1@10 -");
    // What was measured against a version that is not in use any more can't be approved.
    lab.bench.cycle_over(&["api-order-write#3"]).await;
    for _ in 0..6 {
        lab.call(name, "0.1.1", "x", true).await;
    }
    assert_eq!(lab.stands(name).await, "0.1.1 - 0.1.0");
    assert_eq!(lab.refused(name, Deed::Approve, None).await, "stale_approval");
    lab.done(name, Deed::Deny, None).await;
    assert_eq!(lab.refused(name, Deed::Approve, None).await, "nothing_to_approve");
    assert_eq!(Lab::code(&lab.bench.cycle_over(&["api-order-write#3"]).await), ["duplicate"]);
    lab.bench.shutdown.cancel();
}

#[tokio::test]
async fn people_pin_freeze_archive_and_go_back() {
    let folder = TempDir::new().unwrap();
    let lab = Lab::start(&folder, quick()).await;
    lab.bench.cycle_over(&["api-a", "api-d"]).await;
    // Pinned: what passes waits, and the canary that was there is gone.
    lab.bench.cycle_over(&["api-a#2"]).await;
    lab.done("api-a", Deed::Pin, None).await;
    assert_eq!(lab.stands("api-a").await, "0.1.0 - -");
    assert_eq!(Lab::code(&lab.bench.cycle_over(&["api-a#3"]).await), ["pinned"]);
    assert_eq!(lab.refused("api-a", Deed::Activate, Some("0.1.2")).await, "pinned");
    for _ in 0..20 {
        lab.call("api-a", "0.1.0", "x", false).await;
    }
    assert_eq!(lab.stands("api-a").await, "0.1.0 - -", "it stays although it fails");
    lab.done("api-a", Deed::Unpin, None).await;
    lab.done("api-a", Deed::Activate, Some("0.1.2")).await;
    assert_eq!(lab.stands("api-a").await, "0.1.2 - 0.1.0");
    // Frozen: nothing new.
    lab.done("api-a", Deed::Freeze, None).await;
    assert_eq!(Lab::code(&lab.bench.cycle_over(&["api-a#4"]).await), ["frozen"]);
    lab.done("api-a", Deed::Unfreeze, None).await;
    // Back, and to a version by its digest.
    lab.done("api-a", Deed::Rollback, None).await;
    assert_eq!(lab.stands("api-a").await, "0.1.0 - 0.1.2");
    let digest = lab.skill("api-a").await.versions[0].artifact_id.clone();
    lab.done("api-a", Deed::Rollback, Some(&digest[..12])).await;
    assert_eq!(lab.stands("api-a").await, "0.1.2 - 0.1.0");
    // The archive, and back.
    lab.done("api-a", Deed::Archive, None).await;
    assert_eq!(lab.stands("api-a").await, "- - 0.1.0");
    assert_eq!(lab.refused("api-a", Deed::Activate, Some("0.1.2")).await, "archived");
    lab.done("api-a", Deed::Restore, None).await;
    assert_eq!(lab.stands("api-a").await, "0.1.2 - 0.1.0");
    // Only what passed, only what there is.
    assert_eq!(lab.refused("api-d", Deed::Activate, Some("0.1.0")).await, "not_passed");
    assert_eq!(lab.refused("api-a", Deed::Activate, Some("9.9.9")).await, "version");
    assert_eq!(lab.refused("api-d", Deed::Pin, None).await, "not_active");
    let fence = SkillAction { fence: Some(1), ..SkillAction::default() };
    let stale = people::act(&lab.bench.store, &lab.config, "api-a", Deed::Pin, &fence, "t").await;
    assert!(matches!(stale, Err(people::Error::Refused { code: "stale_fence", .. })));
    let nameless = SkillAction::default();
    let deny =
        people::act(&lab.bench.store, &lab.config, "api-a", Deed::Deny, &nameless, "t").await;
    assert!(matches!(deny, Err(people::Error::Invalid { field: "reason", .. })));
    lab.bench.shutdown.cancel();
}

#[tokio::test]
async fn only_a_person_overrules_a_finding_and_only_for_this_package() {
    let folder = TempDir::new().unwrap();
    let lab = Lab::start(&folder, quick()).await;
    // Its runner forgot to stop it; king does not.
    assert_eq!(Lab::code(&lab.bench.cycle_over(&["api-scanned"]).await), ["denied_by_policy"]);
    let overrule = async |code: &str| {
        let finding = OverruleFinding {
            code: code.to_owned(),
            reason: "our own address".to_owned(),
            by: Some("Ada".to_owned()),
            version: None,
        };
        let (store, pipeline) = (&lab.bench.store, &lab.bench.pipeline);
        people::overrule(store, pipeline, "api-scanned", &finding, "file:operator").await
    };
    let unknown = overrule("nothing").await;
    assert!(matches!(unknown, Err(people::Error::Invalid { field: "code", .. })));
    let done = overrule("raw_ip").await.unwrap();
    assert!(done.changed && done.run_id.is_some());
    assert!(!overrule("raw_ip").await.unwrap().changed);
    lab.bench.pipeline.wake();
    for _ in 0..500 {
        if lab.stands("api-scanned").await == "0.1.0 - -" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(lab.stands("api-scanned").await, "0.1.0 - -");
    // Another package is judged anew.
    assert_eq!(Lab::code(&lab.bench.cycle_over(&["api-scanned#2"]).await), ["denied_by_policy"]);
    lab.bench.shutdown.cancel();
}
