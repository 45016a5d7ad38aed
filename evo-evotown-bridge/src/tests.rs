//! The bridge as a whole, between a king that is made up here and the fake Evotown.

pub(crate) mod king;

use std::{collections::BTreeMap, path::Path, time::Duration};

use evo_common::tokens::Secret;
use evo_harness::{Evotown, Fault, Mode, eventually_async};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{Bridge, Config, Error, Health, Link, Timing, spool};
use king::King;

/// Generous, since tests run beside each other on few processors and slow disks.
const PATIENCE: Duration = Duration::from_secs(120);
const ENGINE: &str = "engine-1";

/// What a bridge reports to, from, and with.
struct World {
    folder: tempfile::TempDir,
    king: King,
    town: Evotown,
}

impl World {
    async fn new() -> Self {
        Self::with(Evotown::start().await).await
    }

    async fn with(town: Evotown) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, king: King::start().await, town }
    }

    fn link(&self, token: &str) -> Link {
        self.link_with(token, &[])
    }

    fn link_with(&self, token: &str, more: &[(&str, &str)]) -> Link {
        let url = self.town.url();
        let more: BTreeMap<&str, &str> = more.iter().copied().collect();
        let env = |name: &str| match name {
            name if more.contains_key(name) => Some(more[name].to_owned()),
            "EVO_EVOTOWN_URL" => Some(url.clone()),
            "EVO_EVOTOWN_TOKEN" => Some(token.to_owned()),
            "EVO_EVOTOWN_ENGINE_ID" => Some(ENGINE.to_owned()),
            "EVO_EVOTOWN_TEAM_ID" => Some("team".to_owned()),
            _ => None,
        };
        Link::from_env(&env).unwrap().unwrap()
    }

    fn config(&self) -> Config {
        self.config_with(&self.town.ingest_token())
    }

    fn config_with(&self, token: &str) -> Config {
        let link = self.link(token);
        let viewer = Some(Secret::new(king::VIEWER));
        let mut config = Config::new(link, self.king.url(), viewer, self.folder.path());
        config.timing = Timing {
            poll: Duration::from_millis(50),
            heartbeat: Duration::from_millis(500),
            first_pause: Duration::from_millis(20),
            longest_pause: Duration::from_millis(200),
            request: Duration::from_secs(2),
            drain: Duration::from_secs(2),
        };
        config
    }

    async fn bridge(&self) -> Running {
        Running::start(self.config()).await
    }

    fn data(&self) -> &Path {
        self.folder.path()
    }

    /// Every run that king has ended was completed once, in order, and nothing is left.
    fn check(&self) {
        let mut applied: BTreeMap<String, u32> = BTreeMap::new();
        for complete in self.town.completes() {
            *applied.entry(complete.run_id).or_default() += u32::from(!complete.idempotent);
        }
        let ended = self.king.ended();
        let expected: BTreeMap<String, u32> = ended.into_iter().map(|run_id| (run_id, 1)).collect();
        assert_eq!(applied, expected, "each run is completed once");
        for run in self.town.runs() {
            assert_ne!(run["status"], "running", "{run}");
        }
        assert_eq!(self.town.disorder(), Vec::<String>::new());
        assert_eq!(self.town.violations(), Vec::<Value>::new());
    }

    /// Everything but the token is gone.
    fn lose_queue(&self) {
        for entry in std::fs::read_dir(self.data()).unwrap() {
            let path = entry.unwrap().path();
            if !path.ends_with("evotown-token") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }

    /// The types of a run's events, in the order they came.
    fn told(&self, run_id: &str) -> Vec<String> {
        let events = self.town.events(run_id);
        events.iter().map(|event| event["event_type"].as_str().unwrap().to_owned()).collect()
    }
}

/// A bridge that runs on a task.
struct Running {
    health: Health,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Running {
    async fn start(config: Config) -> Self {
        let bridge = Bridge::open(config).await.unwrap();
        let health = bridge.health();
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "a test ends or kills it itself")]
        let task = tokio::spawn(bridge.run(stop.clone()));
        Self { health, stop, task }
    }

    async fn settled(&self) {
        assert!(self.health.settled(PATIENCE).await, "{:?}", self.health.report());
    }

    /// Ends it in an orderly way, and in time.
    async fn stop(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(4), self.task).await;
        ended.expect("it ends within three seconds").unwrap().unwrap();
    }

    /// As `kill -9` would: whatever it was doing is not finished.
    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    async fn until(&self, what: &str, holds: impl Fn(&crate::Report) -> bool) {
        let report = || async { Some(()).filter(|()| holds(&self.health.report())) };
        eventually_async(what, PATIENCE, report).await;
    }
}

const WHOLE: [&str; 5] =
    ["run.started", "run.progress", "run.progress", "run.progress", "run.completed"];

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_told_as_they_happen() {
    let world = World::new().await;
    world.king.cycle_started("cycle");
    let bridge = world.bridge().await;
    world.king.run("run-a", "cycle", "active");
    bridge.settled().await;
    world.king.run("run-b", "cycle", "held");
    world.king.run("run-c", "cycle", "discarded");
    world.king.run_failed("run-d", "cycle");
    world.king.cycle_ended("cycle");
    bridge.settled().await;
    world.check();
    assert_eq!(world.told("run-a"), WHOLE);
    let a = world.town.run("run-a").unwrap();
    for (name, value) in [
        ("engine_id", ENGINE),
        ("engine_type", "custom"),
        ("team_id", "team"),
        ("task_id", "cycle"),
        ("agent_id", "evo-skill_manage"),
        ("status", "succeeded"),
        ("started_at", king::AT),
    ] {
        assert_eq!(a[name], value, "{a}");
    }
    assert_eq!(a["artifact_manifest"][0]["path"], "SKILL.md", "{a}");
    assert_eq!(a["artifact_manifest"].as_array().unwrap().len(), 1, "no TOML");
    assert_eq!(a["signals"]["artifacts"].as_array().unwrap().len(), 2, "{a}");
    assert_eq!(a["signals"]["decision"], "active");
    assert_eq!(world.town.run("run-d").unwrap()["exit_code"], 1);
    let cycle = world.town.run("cycle").unwrap();
    assert_eq!(cycle["signals"]["active"], 1, "{cycle}");
    assert_eq!(cycle["signals"]["failed"], 1, "{cycle}");
    let report = bridge.health.report();
    assert!(report.king && report.evotown, "{report:?}");
    assert_eq!((report.backlog, report.parked, report.last_error), (0, 0, None));
    bridge.stop().await;
    assert_eq!(world.town.registrations(), 1);
    let engine = &world.town.engines()[0];
    assert_eq!((&engine["owner_team"], &engine["display_name"]), (&json!("team"), &json!("Evo")));
    assert!(!world.town.requests_to("/heartbeat").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_while_evotown_is_down() {
    let world = World::new().await;
    world.town.set_down(true);
    let bridge = world.bridge().await;
    for n in 0..20 {
        world.king.run(&format!("run-{n}"), "cycle", "active");
    }
    bridge.until("the first half is queued", |report| report.backlog >= 120).await;
    assert!(!bridge.health.report().evotown);
    assert!(bridge.health.report().last_error.unwrap().starts_with("Evotown: "));
    assert!(!bridge.health.settled(Duration::from_millis(100)).await);
    world.town.set_down(false);
    for n in 20..40 {
        world.king.run(&format!("run-{n}"), "cycle", "held");
    }
    bridge.settled().await;
    world.check();
    for n in 0..40 {
        assert_eq!(world.told(&format!("run-{n}")), WHOLE);
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_lost_do_not_double_anything_but_the_last_event() {
    let world = World::new().await;
    for fault in [Fault::CutAfter, Fault::CutBefore, Fault::LateStatus(500), Fault::Status(503)] {
        for path in ["/register", "/events", "/complete"] {
            world.town.fault(path, 2, fault);
        }
    }
    let bridge = world.bridge().await;
    world.king.run("run-a", "cycle", "active");
    world.king.run("run-b", "cycle", "active");
    bridge.settled().await;
    world.check();
    for run_id in ["run-a", "run-b"] {
        let told = world.told(run_id);
        assert_eq!(told[..4], WHOLE[..4], "{told:?}");
        assert!(told[4..].iter().all(|kind| kind == "run.completed"), "{told:?}");
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_evotown_can_not_say_what_has_arrived_nothing_is_sent_again() {
    let world = World::new().await;
    let bridge = world.bridge().await;
    bridge.until("it is registered", |report| report.evotown).await;
    world.town.fault("/events", 2, Fault::CutAfter);
    world.town.fault("/status", 2, Fault::Status(503));
    world.town.fault("/status", 1, Fault::CutBefore);
    world.king.run("run-a", "cycle", "active");
    bridge.settled().await;
    assert_eq!(world.told("run-a"), WHOLE);
    world.check();
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_something_in_between_is_no_answer() {
    let world = World::new().await;
    for path in ["/register", "/events", "/complete"] {
        world.town.fault(path, 2, Fault::Page(200));
    }
    let bridge = world.bridge().await;
    world.king.run("run-a", "cycle", "active");
    bridge.settled().await;
    assert_eq!(world.told("run-a"), WHOLE);
    world.check();
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_evotown_does_not_take_hold_up_no_other() {
    let world = World::new().await;
    let stuck = [
        ("stuck-a", Fault::Status(404)),
        ("stuck-b", Fault::Page(403)),
        ("stuck-c", Fault::Status(500)),
        ("stuck-d", Fault::CutBefore),
    ];
    for (run_id, fault) in stuck {
        world.town.fault(&format!("/{run_id}/complete"), u32::MAX, fault);
        world.king.run(run_id, "cycle", "active");
    }
    let bridge = world.bridge().await;
    let tries = || world.town.requests_to("/complete").len();
    eventually_async("the stuck ones are tried", PATIENCE, || async {
        (tries() > 8).then_some(())
    })
    .await;
    for n in 0..40 {
        world.king.run(&format!("run-{n}"), "cycle", "active");
    }
    bridge.until("the others are told", |report| report.backlog == 8).await;
    assert_eq!(world.town.registrations(), 1, "none of it is the token's fault");
    assert_eq!(bridge.health.report().parked, 0);
    world.town.heal();
    bridge.settled().await;
    world.check();
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_as_long_as_evotown_asks() {
    let world = World::new().await;
    let bridge = world.bridge().await;
    bridge.until("it is registered", |report| report.evotown).await;
    world.town.fault("/events", 1, Fault::RetryAfter(1));
    let before = tokio::time::Instant::now();
    world.king.run("run-a", "cycle", "active");
    bridge.settled().await;
    assert!(before.elapsed() >= Duration::from_secs(1));
    let tries = world.town.requests_to("/events").len();
    assert_eq!(tries, WHOLE.len() + 1, "asked once in vain, and not again before the time");
    world.check();
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_request_is_made_good_by_the_next_start() {
    let world = World::new().await;
    for n in 0..4 {
        world.king.run(&format!("run-{n}"), "cycle", "active");
    }
    let mut kills = 0;
    // A request that is never answered stops the bridge in the middle of it.
    for path in ["/register", "/events", "/complete", "/events", "/complete", "/events"] {
        world.town.fault(path, 8, Fault::Silence);
        let before = world.town.requests().len();
        let bridge = world.bridge().await;
        eventually_async("a request that hangs", PATIENCE, || async {
            let requests = world.town.requests();
            requests[before..].iter().any(|request| request.path.contains(path)).then_some(())
        })
        .await;
        bridge.kill().await;
        kills += 1;
        world.town.heal();
        // Some go on a while before the next kill.
        world.town.fault("/status", 1, Fault::CutBefore);
        let bridge = world.bridge().await;
        tokio::time::sleep(Duration::from_millis(40)).await;
        bridge.kill().await;
        kills += 1;
        world.king.run(&format!("run-after-{kills}"), "cycle", "held");
    }
    world.town.heal();
    let bridge = world.bridge().await;
    bridge.settled().await;
    world.check();
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_kept_and_asked_for_again_only_when_it_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;

    let world = World::new().await;
    world.king.run("run-a", "cycle", "active");
    let bridge = world.bridge().await;
    bridge.settled().await;
    bridge.stop().await;
    let file = world.data().join("evotown-token");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let bridge = world.bridge().await;
    world.king.run("run-b", "cycle", "active");
    bridge.settled().await;
    assert_eq!(world.town.registrations(), 1, "the second start had a token");

    world.town.rotate(ENGINE);
    for n in 0..9 {
        world.king.run(&format!("run-c{n}"), "cycle", "active");
    }
    bridge.settled().await;
    assert_eq!(world.town.registrations(), 2, "once more, however many noticed");
    world.check();
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engines_own_token_needs_no_registration() {
    let world = World::new().await;
    // Somebody registers the engine by hand.
    let bridge = Bridge::open(world.config()).await.unwrap();
    bridge.register().await.unwrap();
    drop(bridge);
    let token = world.town.rotate(ENGINE);
    std::fs::remove_file(world.data().join("evotown-token")).unwrap();
    world.king.run("run-a", "cycle", "active");
    let bridge = Running::start(world.config_with(&token)).await;
    bridge.settled().await;
    assert_eq!(world.town.registrations(), 1);
    world.check();

    // Without a token to register with, nothing can be done but to say so.
    world.town.rotate(ENGINE);
    world.king.run("run-b", "cycle", "active");
    bridge
        .until("it says what to do", |report| {
            report.last_error.as_deref().is_some_and(|error| error.contains("EVO_EVOTOWN_TOKEN"))
        })
        .await;
    assert!(bridge.health.report().backlog > 0);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evotown_that_forgot_everything_is_told_anew() {
    let world = World::new().await;
    let bridge = world.bridge().await;
    world.king.run("run-a", "cycle", "active");
    bridge.settled().await;
    world.town.forget();
    world.king.run("run-b", "cycle", "active");
    bridge.settled().await;
    assert_eq!(world.town.run("run-b").unwrap()["status"], "succeeded");
    assert_eq!(world.town.run("run-a"), None, "it was delivered");
    bridge.stop().await;
}

/// The paths in the manifest of a run.
fn listed(world: &World, run_id: &str) -> Vec<String> {
    let run = world.town.run(run_id).unwrap();
    let files = run["artifact_manifest"].as_array().unwrap();
    files.iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_policies_refuse_is_not_sent_and_that_is_noted() {
    let world = World::new().await;
    let bridge = world.bridge().await;
    world.king.run("run-a", "cycle", "active");
    bridge.settled().await;
    assert_eq!(listed(&world, "run-a"), ["SKILL.md"]);
    let run = world.town.run("run-a").unwrap();
    assert_eq!(run["signals"]["artifacts"].as_array().unwrap().len(), 2, "{run}");
    let log = run["log_excerpt"].as_str().unwrap();
    assert!(log.contains("building completed (attempt 1"), "{log}");
    // Fresh rules are not asked for again; only a refusal says that they have changed.
    world.town.set_rule("secret-redaction", "redact_patterns", json!(["completed", "ended"]));
    world.town.allow_files(&["json"]);
    world.king.run("run-b", "cycle", "active");
    bridge.settled().await;
    assert_eq!(world.town.violations().len(), 1, "asked once, not again and again");
    assert_eq!(listed(&world, "run-b"), Vec::<String>::new());
    let run = world.town.run("run-b").unwrap();
    let log = run["log_excerpt"].as_str().unwrap();
    assert!(log.contains("building c·ompleted"), "{log}");
    world.king.run("run-c", "cycle", "active");
    bridge.settled().await;
    assert_eq!(world.town.violations().len(), 1, "the new rules are known");
    assert_eq!(world.town.requests_to("/policies").len(), 2);
    assert_eq!(bridge.health.report().parked, 0);
    bridge.stop().await;
    let found = spool::deliveries(&world.data().join("bridge.db"), "run-a").await.unwrap();
    let complete = found.iter().find(|delivery| delivery.kind == "complete").unwrap();
    assert_eq!(
        complete.left_out.as_deref(),
        Some("not in the manifest, since artifact-limits takes no .toml: manifest.toml")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_nobody_can_read_is_met_by_sending_less_once() {
    let world = World::new().await;
    world.town.fault("/policies", 99, Fault::Status(500));
    world.town.allow_files(&["json"]);
    let bridge = world.bridge().await;
    world.king.run("run-a", "cycle", "active");
    bridge.settled().await;
    let run = world.town.run("run-a").unwrap();
    assert_eq!(run["status"], "succeeded");
    assert_eq!((&run["artifact_manifest"], &run["log_excerpt"]), (&json!([]), &json!("")));
    assert_eq!(run["signals"]["artifacts"].as_array().unwrap().len(), 2, "{run}");
    assert_eq!(world.town.violations().len(), 1, "asked once, not again and again");
    assert_eq!(bridge.health.report().parked, 0);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn toml_files_words_and_secrets_leave_no_violation_and_no_trace() {
    let world = World::new().await;
    let bridge = world.bridge().await;
    let secret = "sk-abcdefghijklmnop1234";
    world.king.run_saying(
        "run-a",
        "task-1 failed: Authorization: Bearer sk-abcdefghijklmnop1234",
        json!({"logs": format!("Authorization: Bearer {secret}"), "note": "risk-2 api_key"}),
    );
    bridge.settled().await;
    world.check();
    let run = world.town.run("run-a").unwrap();
    let log = run["log_excerpt"].as_str().unwrap();
    assert!(log.contains("task\u{2011}1 failed") && log.contains("risk\u{2011}2"), "{log}");
    for request in world.town.requests() {
        let body = String::from_utf8_lossy(&request.body);
        assert!(!body.contains("abcdefghijklmnop"), "{body}");
        assert!(!request.query.contains("abcdefghijklmnop"));
    }
    bridge.stop().await;
}

/// A bridge with one more variable set.
async fn bridge_with(world: &World, name: &'static str, value: &'static str) -> Running {
    let mut config = world.config();
    config.link = world.link_with(&world.town.ingest_token(), &[(name, value)]);
    Running::start(config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_knows_the_required_endpoint_only_is_told_of_each_end() {
    for mode in [Mode::Real, Mode::Spec] {
        let world = World::with(Evotown::like(mode)).await;
        if mode == Mode::Spec {
            world.town.only_complete();
        }
        let bridge = bridge_with(&world, "EVO_EVOTOWN_MODE", "complete-only").await;
        world.king.run("run-a", "cycle", "active");
        world.king.run_failed("run-b", "cycle");
        bridge.settled().await;
        world.check();
        assert_eq!(world.told("run-a"), Vec::<String>::new());
        assert_eq!(world.town.run("run-b").unwrap()["exit_code"], 1);
        assert_eq!(world.town.candidates(), Vec::<Value>::new());
        bridge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runs_of_candidates_can_be_told_as_steps_of_their_cycle() {
    let world = World::new().await;
    let bridge = bridge_with(&world, "EVO_EVOTOWN_CHILD_RUNS", "folded").await;
    world.king.cycle_started("cycle");
    world.king.run("run-a", "cycle", "active");
    world.king.run("run-b", "cycle", "held");
    world.king.cycle_ended("cycle");
    // A later look, after the cycle has ended, has no run that could tell of it.
    world.king.run("run-c", "cycle", "held");
    bridge.settled().await;
    let told: Vec<Value> = world.town.runs().iter().map(|run| run["run_id"].clone()).collect();
    assert_eq!(told, ["cycle", "run-c"]);
    let events = world.town.events("cycle");
    let steps = events.iter().filter(|event| event["event_type"] == "run.progress");
    assert_eq!(steps.count(), 2 * 4, "three stages and an end each: {events:?}");
    let run = world.town.run("cycle").unwrap();
    let signals = &run["signals"];
    assert_eq!((&signals["active"], &signals["held"]), (&json!(1), &json!(1)));
    assert_eq!(signals["new_skill_paths"], json!(["skills/run-a/SKILL.md"]));
    assert!(run["log_excerpt"].as_str().unwrap().contains("run-b: evaluation completed"), "{run}");
    assert_eq!(world.town.candidates()[0]["source_run_id"], "cycle");
    assert_eq!(world.town.disorder(), Vec::<String>::new());
    assert_eq!(world.town.violations(), Vec::<Value>::new());
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_can_be_signed_instead_of_carrying_a_token() {
    for mode in [Mode::Real, Mode::Spec] {
        let world = World::with(Evotown::like(mode)).await;
        world.town.expect_signatures("hush", "sha256=");
        let mut config = world.config();
        let signed = [
            ("EVO_EVOTOWN_AUTH", "hmac"),
            ("EVO_EVOTOWN_HMAC_SECRET", "hush"),
            ("EVO_EVOTOWN_SIGNATURE_PREFIX", "sha256="),
        ];
        config.link = world.link_with("", &signed);
        let bridge = Running::start(config).await;
        world.king.run("run-a", "cycle", "active");
        bridge.settled().await;
        world.check();
        for request in world.town.requests() {
            assert_eq!(request.header("authorization"), None);
            assert!(!String::from_utf8_lossy(&request.body).contains("hush"));
        }
        assert_eq!(world.town.registrations(), 1);
        bridge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skills_that_came_into_use_are_proposed_for_review() {
    let world = World::new().await;
    let bridge = world.bridge().await;
    world.king.run("run-a", "cycle", "active");
    world.king.run("run-b", "cycle", "held");
    bridge.settled().await;
    // A person allows what was held; the run has ended long ago.
    world.king.activate("run-b", "skill-b");
    bridge.settled().await;
    let names: Vec<Value> =
        world.town.candidates().iter().map(|candidate| candidate["name"].clone()).collect();
    assert_eq!(names, ["run-a", "skill-b"]);
    world.check();
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_good_is_parked_and_the_rest_goes_on() {
    let world = World::new().await;
    world.town.fault("/runs/run-a/complete", 1, Fault::Status(422));
    let bridge = world.bridge().await;
    world.king.run("run-a", "cycle", "active");
    world.king.run("run-b", "cycle", "active");
    for run_id in ["x".repeat(200).as_str(), "a/b", ".."] {
        world.king.run(run_id, "cycle", "active");
    }
    bridge.settled().await;
    assert_eq!(world.town.run("run-b").unwrap()["status"], "succeeded");
    assert_eq!(world.town.run("run-a").unwrap()["status"], "succeeded", "by its last event");
    let seen = spool::snapshot(&world.data().join("bridge.db"), 20).await.unwrap().unwrap();
    assert_eq!(seen.counts.parked, 1 + 3 * 7, "{seen:?}");
    let refused = seen.problems.iter().find(|problem| problem.run_id == "run-a").unwrap();
    assert_eq!((refused.kind.as_str(), refused.state.as_str()), ("complete", "parked"));
    assert_eq!(refused.reason, "status 422: on purpose");
    let long = seen.problems.iter().find(|problem| problem.run_id != "run-a").unwrap();
    assert!(long.reason.contains("1 to 128 characters"), "{long:?}");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_end_of_a_run_is_noticed() {
    let world = World::new().await;
    let bridge = world.bridge().await;
    bridge.until("it is registered", |report| report.evotown).await;
    world.town.fault("/complete", 1, Fault::RetryAfter(1));
    world.king.run("run-a", "cycle", "active");
    let asked = || async { world.town.requests_to("/complete").pop() };
    let request = eventually_async("the first try", PATIENCE, asked).await;
    // Somebody else completes it before the second one.
    let mut body = request.json();
    body["status"] = json!("failed");
    let url = format!("{}/api/v1/runs/run-a/complete", world.town.url());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let token = request.header("authorization").unwrap();
    let sent = http.post(url).header("authorization", token).body(body.to_string()).send();
    assert_eq!(sent.await.unwrap().status(), 200);
    bridge.settled().await;
    bridge.stop().await;
    let noted = spool::snapshot(&world.data().join("bridge.db"), 9).await.unwrap().unwrap();
    let conflict =
        "Evotown holds another end of this run: status is \"failed\", sent was \"succeeded\"";
    assert_eq!(noted.problems[0].reason, conflict);
    assert_eq!(noted.problems[0].state, "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_queue_the_bridge_tells_the_whole_log_again() {
    let world = World::new().await;
    let bridge = world.bridge().await;
    world.king.run("run-a", "cycle", "active");
    bridge.settled().await;
    bridge.stop().await;
    world.lose_queue();
    let bridge = world.bridge().await;
    bridge.settled().await;
    assert_eq!(world.town.registrations(), 1, "the token was kept");
    assert_eq!(world.town.run("run-a").unwrap()["status"], "succeeded");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn king_may_go_and_come_back() {
    let world = World::new().await;
    let bridge = world.bridge().await;
    world.king.run("run-a", "cycle", "active");
    bridge.settled().await;
    world.king.set_down(true);
    bridge.until("it notices", |report| !report.king).await;
    world.king.run("run-b", "cycle", "active");
    world.king.set_down(false);
    bridge.settled().await;
    assert!(bridge.health.report().king);
    world.check();
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_king_with_another_database_is_read_from_its_beginning() {
    let world = World::new().await;
    let bridge = world.bridge().await;
    for n in 0..5 {
        world.king.run(&format!("run-{n}"), "cycle", "active");
    }
    world.king.run_started("run-open", "cycle");
    bridge.settled().await;
    world.king.replace_log();
    world.king.run("run-new", "cycle-2", "held");
    bridge.settled().await;
    bridge.until("the open run is ended", |report| report.backlog == 0).await;
    assert_eq!(world.town.run("run-new").unwrap()["status"], "succeeded");
    let lost = world.town.run("run-open").unwrap();
    assert_eq!(lost["status"], "cancelled", "{lost}");
    assert_eq!(lost["signals"]["code"], "log_replaced");
    assert_eq!(world.town.run("run-0").unwrap()["status"], "succeeded");
    assert_eq!(world.town.disorder(), Vec::<String>::new());
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_viewer_token_ends_the_bridge_with_what_to_do() {
    let world = World::new().await;
    let mut config = world.config();
    config.viewer_token = Some("wrong".into());
    let bridge = Bridge::open(config).await.unwrap();
    let health = bridge.health();
    let error = bridge.run(CancellationToken::new()).await.unwrap_err();
    let told = health.report().last_error.unwrap();
    assert!(told.contains("the bridge has ended: king at"), "{told}");
    assert!(!health.settled(PATIENCE).await);
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("EVO_TOKEN_VIEWER"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_spec_is_served_too() {
    let world = World::with(Evotown::like(Mode::Spec)).await;
    world.town.fault("/complete", 1, Fault::CutAfter);
    let bridge = world.bridge().await;
    world.king.run("run-a", "cycle", "active");
    world.king.run("run-b", "cycle", "held");
    bridge.settled().await;
    world.check();
    assert_eq!(world.told("run-a"), WHOLE);
    bridge.stop().await;
    let bridge = world.bridge().await;
    world.king.run("run-c", "cycle", "held");
    bridge.settled().await;
    bridge.stop().await;
    assert_eq!(world.town.registrations(), 1);
    assert_eq!(world.town.requests_to("/heartbeat").len(), 2, "one try per start");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_at_the_shutdown_is_delivered_in_its_time() {
    let world = World::new().await;
    let bridge = world.bridge().await;
    bridge.until("it is registered", |report| report.evotown).await;
    for n in 0..10 {
        world.king.run(&format!("run-{n}"), "cycle", "active");
    }
    bridge.stop().await;
    world.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_made_up_once() {
    let world = World::new().await;
    let mut config = world.config();
    config.link.engine_id = None;
    let name = |config: Config| async move {
        let bridge = Bridge::open(config).await.unwrap();
        bridge.engine_id().to_owned()
    };
    let first = name(config.clone()).await;
    assert!(first.starts_with("evo-"), "{first}");
    assert_eq!(name(config.clone()).await, first);
    let bridge = Bridge::open(config.clone()).await.unwrap();
    bridge.register().await.unwrap();
    bridge.close().await;
    world.lose_queue();
    assert_eq!(name(config).await, first);
}
