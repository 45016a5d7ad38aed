use proptest::prelude::*;
use serde_json::json;

use super::*;

/// What an Evotown says to begin with.
fn begun() -> Value {
    json!({"version": 1, "policies": [
        {"policy_id": "artifact-limits", "category": "artifact", "enabled": true, "rules": {
            "max_bytes": 52_428_800,
            "allowed_extensions": [".txt", ".md", ".json", ".zip", ".pdf", ".png"],
            "blocked_extensions": [".exe", ".dll", ".sh"]}},
        {"policy_id": "network-domains", "category": "network", "enabled": true,
         "rules": {"deny_domains": ["x"]}},
        {"policy_id": "secret-redaction", "category": "security", "enabled": true, "rules": {
            "redact_patterns": ["api_key", "bearer", "sk-", "evk_", "evi_"],
            "block_secret_in_artifacts": true}},
    ]})
}

fn refusing(words: &[&str]) -> Policies {
    let rules = json!({"redact_patterns": words});
    let policy = json!({"policy_id": "p", "category": "security", "rules": rules});
    Policies::read(&json!({"policies": [policy]})).unwrap()
}

#[test]
fn what_is_known_without_asking_is_what_an_evotown_begins_with() {
    assert_eq!(Policies::read(&begun()).unwrap(), Policies::default());
    assert_eq!(Policies::read(&json!({"detail": "Not Found"})), None);
    assert_eq!(Policies::read(&json!("<html>")), None);
    let none = Policies::read(&json!({"policies": []})).unwrap();
    assert_eq!(none.refuses("run.exe", u64::MAX), None);
    assert_eq!(none.log("task-1 Bearer"), "task-1 Bearer");
}

#[test]
fn files_are_compared_as_the_server_does() {
    let policies = Policies::default();
    for path in ["SKILL.md", "a/b.JSON", "README", "a.b/readme", ".json", "a.", "deep/.toml", "x/"]
    {
        assert_eq!(policies.refuses(path, 1), None, "{path}");
    }
    for path in ["manifest.toml", "a.tar.gz", "run.SH", "a/b.py/", "..a.toml"] {
        assert!(policies.refuses(path, 1).is_some(), "{path}");
    }
    let reason = policies.refuses("config.toml", 1).unwrap();
    assert_eq!(reason, "artifact-limits takes no .toml");
    let reason = policies.refuses("a.md", 52_428_801).unwrap();
    assert_eq!(reason, "artifact-limits takes at most 52428800 bytes");
}

#[test]
fn a_policy_that_is_off_or_of_another_kind_refuses_nothing() {
    let mut answer = begun();
    answer["policies"][0]["enabled"] = json!(false);
    answer["policies"][2]["rules"] = json!("none");
    let policies = Policies::read(&answer).unwrap();
    assert_eq!(policies.refuses("manifest.toml", 1), None);
    assert_eq!(policies.log("task-1"), "task-1");
}

#[test]
fn words_are_broken_so_that_people_can_still_read_them() {
    let policies = Policies::default();
    let log = policies.log("task-1 failed: no API_KEY, a bEaReR token, evi_ and evk_");
    assert_eq!(
        log,
        "tas\u{2011}1 failed: no API\u{2cd}KEY, a b·EaReR token, evi\u{2cd} and evk\u{2cd}"
            .replace("tas\u{2011}1", "task\u{2011}1")
    );
    // In lower case it is one: the server looks there.
    assert_eq!(policies.log("S\u{212a}-x"), "S\u{212a}\u{2011}x");
    let log = policies.log("Authorization: Bearer sk-abcdefghijklmnop");
    assert!(!log.contains("abcdefgh") && log.contains("***"), "{log}");
}

#[test]
fn rules_that_no_text_meets_give_no_log() {
    assert_eq!(refusing(&["·", "b"]).log("ab"), "");
    assert_eq!(refusing(&["a"]).log("banana"), "b·n·n·");
    assert_eq!(refusing(&["σ"]).log("Σας"), "·ας");
}

#[test]
fn long_logs_keep_head_and_tail_and_end_on_a_character() {
    let text = format!("begin {} end", "漢".repeat(100_000));
    let log = Policies::default().log(&text);
    assert!(log.chars().count() <= MAX_LOG);
    assert!(log.starts_with("begin 漢") && log.ends_with("漢 end"), "head and tail");
    assert!(log.contains(" characters left out]"));
    let exact = "漢".repeat(MAX_LOG);
    assert_eq!(Policies::default().log(&exact), exact);
}

#[test]
fn a_body_is_brought_into_shape_and_says_what_it_leaves_out() {
    let mut body = json!({
        "log_excerpt": "risk-1",
        "artifact_manifest": [
            {"path": "SKILL.md", "bytes": 1}, {"path": "config.toml", "bytes": 1},
            {"path": "manifest.toml", "bytes": 2}, {"path": "big.md", "bytes": 60_000_000},
        ],
        "signals": {"artifacts": [1, 2, 3, 4]},
    });
    let note = Policies::default().shape(&mut body).unwrap();
    assert_eq!(
        note,
        "not in the manifest, since artifact-limits takes at most 52428800 bytes: big.md; \
         artifact-limits takes no .toml: config.toml, manifest.toml"
    );
    assert_eq!(body["artifact_manifest"], json!([{"path": "SKILL.md", "bytes": 1}]));
    assert_eq!(body["log_excerpt"], "risk\u{2011}1");
    assert_eq!(body["signals"], json!({"artifacts": [1, 2, 3, 4]}));
    let once = body.clone();
    assert_eq!(Policies::default().shape(&mut body), None);
    assert_eq!(body, once);
}

/// What the server does with a log.
fn is_taken(words: &[&str], log: &str) -> bool {
    let lower = log.to_lowercase();
    log.chars().count() <= MAX_LOG && !words.iter().any(|word| lower.contains(word))
}

const WORDS: [&str; 5] = ["api_key", "bearer", "sk-", "evk_", "evi_"];

/// Texts around the words and secrets, with letters that change their length in lower case.
fn any_log() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => ".{0,12}",
        2 => prop::sample::select(&[
            "sk-", "task-1", "Bearer", "BEARER ", "api_key", "API_KEY=abcdefgh", "evi_0123456789",
            "evk_", "s\u{212a}-", "SK-abcdefghijkl", "Authorization: Bearer abcdefghijkl", "İ", "Σ", "ẞ",
            "password=hunter2", "\u{2011}", "·", "[1 characters left out]", "\n",
        ][..]).prop_map(str::to_owned),
    ];
    (prop::collection::vec(piece, 0..24), prop_oneof![8 => Just(1_usize), 1 => 2_000..6_000_usize])
        .prop_map(|(pieces, times)| {
            let text = pieces.concat();
            let most = 300_000 / text.len().max(1);
            text.repeat(times.min(most.max(1)))
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    /// Any text gives a log that the policies take, and giving it in again changes nothing.
    #[test]
    fn any_text_becomes_a_log_that_is_taken(text in any_log()) {
        let policies = Policies::default();
        let log = policies.log(&text);
        prop_assert!(is_taken(&WORDS, &log), "{log:?}");
        prop_assert_eq!(policies.log(&log), log);
    }

    /// The same with the words of another operator.
    #[test]
    fn any_words_are_kept_out(text in "[a-c_\\-]{0,60}", words in prop::collection::vec("[a-c_\\-]{1,3}", 0..4)) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let policies = refusing(&words);
        let log = policies.log(&text);
        prop_assert!(is_taken(&words, &log), "{log:?}");
        prop_assert_eq!(policies.log(&log), log);
    }
}
