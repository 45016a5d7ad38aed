//! Laws that hold for every input.

use std::str::FromStr as _;

use evo_common::{
    artifact,
    clock::Timestamp,
    evidence::{Evidence, Trials, Z},
    ids::{AgentId, ArtifactId, RunId},
    messages::{AgentRole, PipelineStage, TaskStatus},
    skill,
};
use proptest::prelude::*;

fn trials() -> impl Strategy<Value = Trials> {
    (0..2_000_u32)
        .prop_flat_map(|total| (0..=total).prop_map(move |passed| Trials { passed, total }))
}

/// Plain relative paths, as packages have them.
fn files() -> impl Strategy<Value = artifact::Files> {
    let path = "[a-z][a-z0-9_]{0,8}(/[a-z][a-z0-9_.]{0,120}){0,4}";
    let content = proptest::collection::vec(any::<u8>(), 0..600);
    proptest::collection::btree_map(path, content, 0..6)
}

proptest! {
    #[test]
    fn wilson_bounds_hold_the_share(trials in trials(), z in 0.1..5.0_f64) {
        let bounds = trials.wilson(z);
        prop_assert!(0.0 <= bounds.low && bounds.low <= bounds.high && bounds.high <= 1.0);
        if trials.total > 0 {
            let share = f64::from(trials.passed) / f64::from(trials.total);
            prop_assert!(bounds.low - 1e-12 <= share && share <= bounds.high + 1e-12);
        }
    }

    #[test]
    fn one_more_success_never_hurts(trials in trials()) {
        let mut better = trials;
        better.add(true);
        let mut worse = trials;
        worse.add(false);
        let [before, better, worse] = [trials, better, worse].map(|trials| trials.wilson(Z));
        prop_assert!(better.low >= before.low - 1e-12);
        prop_assert!(worse.high <= before.high + 1e-12);
        prop_assert!(worse.low <= better.low && worse.high <= better.high);
    }

    #[test]
    fn more_of_the_same_is_more_certain(passed in 0..50_u32, failed in 0..50_u32, times in 2..5_u32) {
        prop_assume!(passed + failed > 0);
        let once = Trials { passed, total: passed + failed };
        let often = Trials { passed: passed * times, total: (passed + failed) * times };
        let width = |trials: Trials| { let b = trials.wilson(Z); b.high - b.low };
        prop_assert!(width(often) < width(once));
    }

    #[test]
    fn scores_are_in_the_unit_interval(holdout in trials(), faults in trials(), novelty in any::<f64>()) {
        let evidence = Evidence { holdout, faults, novelty, ..Evidence::default() };
        let overall = evidence.scores().overall;
        prop_assert!(0.0 <= overall.low && overall.low <= overall.high && overall.high <= 1.0);
    }

    #[test]
    fn archives_come_back_the_same(files in files()) {
        // A path can't be a file and a folder, but an archive in memory does not care.
        let (id, bytes) = artifact::pack(&files).unwrap();
        prop_assert_eq!(&ArtifactId::of(&bytes), &id);
        prop_assert_eq!(artifact::unpack(&bytes).unwrap(), files.clone());
        prop_assert_eq!(artifact::pack(&files).unwrap().0, id);
    }

    #[test]
    fn broken_archives_never_panic(files in files(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let (_, mut bytes) = artifact::pack(&files).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        drop(artifact::unpack(&bytes));
        drop(artifact::unpack(&bytes[..at]));
    }

    #[test]
    fn archived_paths_never_leave_the_package(path in "\\PC{0,40}|[./a\\\\]{0,12}") {
        let files = artifact::Files::from([(path.clone(), Vec::new())]);
        if artifact::pack(&files).is_ok() {
            prop_assert!(!path.starts_with('/') && !path.split('/').any(|part| part == ".." || part.is_empty()));
        }
    }

    #[test]
    fn ids_keep_their_text(text in "\\PC{0,140}") {
        match RunId::parse(text.clone()) {
            Ok(id) => {
                prop_assert_eq!(id.as_str(), &text);
                prop_assert_eq!(RunId::from_str(id.as_str()).unwrap(), id.clone());
                let json = serde_json::to_string(&id).unwrap();
                prop_assert_eq!(serde_json::from_str::<RunId>(&json).unwrap(), id);
            }
            Err(error) => {
                prop_assert!(text.is_empty() || text.len() > 128 || text.contains(['/', '\\']), "{}", error);
                prop_assert!(serde_json::from_value::<AgentId>(text.into()).is_err());
            }
        }
    }

    #[test]
    fn roles_and_stages_never_panic_and_keep_their_text(text in "\\PC{0,30}|(user|User|pre|learning)[:_ -]?\\PC{0,10}|[Ii]n[_-]progress|[Rr]unning|evaluated") {
        if let Ok(role) = text.parse::<AgentRole>() {
            let shown = role.to_string();
            prop_assert_eq!(shown.parse::<AgentRole>().unwrap().to_string(), shown);
        }
        if let Ok(status) = text.parse::<TaskStatus>() {
            prop_assert_eq!(status.as_str().parse::<TaskStatus>().unwrap(), status);
        }
        if let Ok(stage) = text.parse::<PipelineStage>() {
            prop_assert_eq!(stage.as_str().parse::<PipelineStage>().unwrap(), stage);
        }
    }

    #[test]
    fn skill_names_are_safe_in_paths_and_addresses(text in "\\PC{0,70}|[a-z0-9-]{0,70}") {
        if skill::is_valid_name(&text) {
            let url = url::Url::parse("http://a/").unwrap().join(&text).unwrap();
            prop_assert_eq!(url.path(), format!("/{}", text));
        }
    }

    #[test]
    fn times_do_not_overflow(at in any::<i64>(), ms in any::<u64>()) {
        let at = Timestamp(at);
        prop_assert!(at.plus_ms(ms) >= at);
        drop(at.to_rfc3339());
        prop_assert_eq!(at.ms_since(at), 0);
    }
}
