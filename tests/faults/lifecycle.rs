//! King is killed at every step of an activation, of a canary's way, and of a rollback. Each time the
//! skill must end as if nothing had happened: never two versions active, never none where there was one.

use std::collections::BTreeMap;

use evo_harness::faults::{Service, SkillRunners, Tally, faults_of_skills, lines_of};
use futures_util::{StreamExt as _, stream};
use serde_json::Value;

/// Kings at the same time; most of their time they wait.
const ABREAST: usize = 5;
/// Reports of a canary's step: one more than it takes to see that a canary fails.
const REPORTS: u32 = 7;
/// Shares that last no time; version by version.
const SETTINGS: &str = "[skills.canary]\nreports = 7\nwindow_ms = 0\nleast_reports = 7\n";
/// Places that have to do with skills.
const OF_SKILLS: [&str; 6] = ["skill", "version", "pinned", "repair", "request", NOTICE];

/// Where what was committed is about to be told.
const NOTICE: &str = "before a notice";

/// How the skill stands: which versions are active, canary, and before.
fn stands(skill: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    format!(
        "{} {} {}",
        text(&skill["version"]),
        text(&skill["canary"]["version"]),
        text(&skill["previous"]["version"])
    )
}

/// One king and one skill: a first version, a second one that takes over step by step and is taken back
/// since it fails, a third that fails as a canary, a fourth that a person takes back, who then puts the skill
/// away and into use again. Killed at the given place, if one is given.
async fn one_life(place: Option<(String, u64)>) -> (Tally, Vec<String>, Vec<String>) {
    let mut service = Service::new(env!("CARGO_BIN_EXE_evo")).await;
    service.settings(SETTINGS);
    let log = match &place {
        Some((name, nth)) => service.fail_at_named(name, *nth),
        None => service.fail_at(None),
    };
    service.launch();
    let folder = service.folder().join("agents");
    let runners =
        SkillRunners::start(&service.proxy.address(), &service.tokens().runner.clone(), &folder);
    service.agents(5).await;
    let mut faults = Vec::new();
    let mut number = 0;
    let expect = |faults: &mut Vec<String>, skill: &Value, wanted: &str| {
        let found = stands(skill);
        if found != wanted {
            faults.push(format!("stands {found}, not {wanted}"));
        }
    };
    service.learn(1).await;
    expect(&mut faults, &service.skill().await, "0.1.0 - -");
    service.learn(2).await;
    expect(&mut faults, &service.skill().await, "0.1.0 0.1.1 -");
    for wanted in ["0.1.0 0.1.1 -", "0.1.1 - 0.1.0"] {
        for _ in 0..REPORTS {
            number += 1;
            service.report_call("canary", number, true).await;
        }
        expect(&mut faults, &service.skill().await, wanted);
    }
    // It fails: the version before is in use again.
    for _ in 0..8 {
        if stands(&service.skill().await) == "0.1.1 - 0.1.0" {
            number += 1;
            service.report_call("active", number, false).await;
        }
    }
    expect(&mut faults, &service.skill().await, "0.1.0 - 0.1.1");
    service.learn(3).await;
    expect(&mut faults, &service.skill().await, "0.1.0 0.1.2 0.1.1");
    // A canary that fails goes, and changes nothing of what is in use.
    for _ in 0..REPORTS {
        if stands(&service.skill().await) == "0.1.0 0.1.2 0.1.1" {
            number += 1;
            service.report_call("canary", number, false).await;
        }
    }
    expect(&mut faults, &service.skill().await, "0.1.0 - 0.1.1");
    service.learn(4).await;
    expect(&mut faults, &service.skill().await, "0.1.0 0.1.3 0.1.1");
    service.act("pin").await;
    expect(&mut faults, &service.skill().await, "0.1.0 - 0.1.1");
    service.act("archive").await;
    let away = service.skill().await;
    if away["status"] != "archived" {
        faults.push(format!("is {}, not archived", away["status"]));
    }
    service.act("restore").await;
    expect(&mut faults, &service.skill().await, "0.1.0 - 0.1.1");
    let skill = service.skill().await;
    let history = service.history().await;
    faults.extend(faults_of_skills(&history.events, &skill).iter().map(ToString::to_string));
    faults.extend(service.check(None).await);
    service.tally.finished += 1;
    let places = lines_of(&log);
    if let Some((name, nth)) = &place {
        service.tally.steps = 1;
        if service.tally.kills == 0 {
            faults.push("the place was not passed".to_owned());
        }
        for fault in &mut faults {
            *fault = format!("killed at {name}, time {nth}: {fault}");
        }
    }
    runners.stop().await;
    (service.tally, faults, places)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_skill_ends_the_same_wherever_king_is_killed() {
    let (_, faults, places) = one_life(None).await;
    assert_eq!(faults, Vec::<String>::new(), "without any kill");
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut targets = Vec::new();
    for place in &places {
        let (_, name) = place.split_once(' ').unwrap();
        if OF_SKILLS.iter().any(|word| name.contains(word)) {
            let nth = counts.entry(name.to_owned()).or_default();
            *nth += 1;
            // Notices are many, of other things as well, and not always as many: some of them.
            if name != NOTICE || *nth % 7 == 1 && *nth < 50 {
                targets.push((name.to_owned(), *nth));
            }
        }
    }
    assert!(counts.len() >= 6, "{counts:?}");
    let lives = targets.iter().cloned().map(|place| one_life(Some(place)));
    let (sum, faults) = stream::iter(lives)
        .buffer_unordered(ABREAST)
        .fold(
            (Tally::default(), Vec::new()),
            |(mut sum, mut faults), (tally, more, _)| async move {
                sum += tally;
                faults.extend(more);
                (sum, faults)
            },
        )
        .await;
    println!("{sum} at {counts:?}");
    assert_eq!(faults, Vec::<String>::new(), "{sum}");
    assert_eq!(sum.kills, targets.len() as u64, "{sum}");
}
