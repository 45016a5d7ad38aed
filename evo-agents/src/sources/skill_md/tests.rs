use std::{fs, path::Path, process::Command};

use serde_json::json;

use super::*;

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn skill_text(name: &str, more: &str) -> String {
    format!("---\nname: {name}\ndescription: Does {name}.\n{more}---\n\n# {name}\n")
}

fn source() -> SourceConfig {
    let mut source = SourceConfig::openapi("team", "x");
    source.kind = evo_common::config::SourceKind::SkillMd;
    source
}

fn found(root: &Path) -> Found {
    candidates(tree::read(root).unwrap(), &source(), &mut Names::default())
}

fn tree_of_skills() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let at = root.path();
    write(at, "skills/pdf/SKILL.md", &skill_text("pdf", "license: MIT\n"));
    write(at, "skills/pdf/references/a.md", "more");
    write(at, "skills/sums/SKILL.md", &skill_text("sums", "metadata: {evo-runtime: '{}'}\n"));
    write(at, "skills/sums/scripts/main.py", "print('{}')");
    write(
        at,
        "skills/sums/tests.toml",
        "[[cases]]\nid = \"a\"\norigin = \"example\"\ninput = '{\"a\": 1}'\nexpect = '{\"exact\": 1}'\n",
    );
    let claw = "metadata:\n  openclaw:\n    requires: {env: [CLAW_KEY], bins: [ffmpeg]}\n";
    write(at, "claw/SKILL.md", &skill_text("claw", claw));
    write(at, "claw/run.py", "print(1)");
    write(at, "wrong/SKILL.md", &skill_text("other", ""));
    write(at, "empty/SKILL.md", "# nothing\n");
    write(at, ".git/SKILL.md", &skill_text("git", ""));
    root
}

#[test]
fn every_folder_is_a_candidate_or_says_why_not() {
    let root = tree_of_skills();
    #[cfg(unix)]
    {
        write(root.path(), "linked/SKILL.md", &skill_text("linked", ""));
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("linked/a.txt")).unwrap();
    }
    let found = found(root.path());
    let names: Vec<&str> = found.candidates.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["team-claw", "team-pdf", "team-sums"]);
    assert_eq!(found.candidates[1].locator, "SKILL skills/pdf");
    let skipped = found.skipped.join("\n");
    for part in
        ["empty: SKILL.md: it does not begin", "linked: a.txt is a link", "wrong: SKILL.md: `name`"]
    {
        assert!(skipped.contains(part), "{part}: {skipped}");
    }
    let why = |index: usize, source: &SourceConfig| {
        let candidate = &found.candidates[index];
        let outcome = crate::sources::forecast(candidate, source);
        outcome.map(|outcome| format!("{}: {}", outcome.code, outcome.reason))
    };
    let mut source = source();
    assert!(why(1, &source).unwrap().contains("instructions"), "{:?}", why(1, &source));
    assert!(why(1, &source).unwrap().starts_with("no_oracle"));
    assert_eq!(why(2, &source), None, "it brings a script and a test");
    assert_eq!(found.candidates[2].cases.len(), 1);
    assert!(why(0, &source).unwrap().contains("CLAW_KEY"));
    source.allow_env = vec!["CLAW_KEY".to_owned()];
    assert!(why(0, &source).unwrap().contains("ffmpeg"));
}

#[test]
fn a_definition_holds_the_files_and_large_folders_are_refused() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "SKILL.md", &skill_text("one", ""));
    fs::write(root.path().join("b.bin"), [0, 159, 146]).unwrap();
    let found = found(root.path());
    let definition: Definition =
        serde_json::from_value(found.candidates[0].definition.clone()).unwrap();
    assert_eq!(definition.files()["b.bin"], [0, 159, 146]);
    assert_eq!(json!(definition.files["b.bin"]), json!({"base64": "AJ+S"}));
    assert_eq!(found.candidates[0].locator, "SKILL .", "the root may be called anything");
    fs::write(root.path().join("c.bin"), vec![0; 600 * 1024]).unwrap();
    let large = self::found(root.path());
    assert!(
        large.candidates.is_empty() && large.skipped[0].contains("bytes"),
        "{:?}",
        large.skipped
    );
}

#[tokio::test]
async fn a_repository_is_checked_out_without_running_anything_of_it() {
    let root = tree_of_skills();
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(root.path()).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "a").env(format!("GIT_{who}_EMAIL"), "a@b.c");
        }
        assert!(command.output().unwrap().status.success());
    };
    fs::remove_dir_all(root.path().join(".git")).unwrap();
    git(&["init", "--quiet", "--initial-branch", "main"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "a"]);
    git(&["tag", "v1"]);
    let path = crate::config::environment("PATH");
    let at = root.path().display();
    for location in [format!("git+{at}"), format!("git+file://{at}@v1")] {
        let checkout = tree::checkout(&location, path.clone()).await.unwrap().unwrap();
        let names: Vec<String> = found(&tree::tree_of(&checkout))
            .candidates
            .into_iter()
            .map(|candidate| candidate.name)
            .collect();
        assert_eq!(names, ["team-claw", "team-pdf", "team-sums"], "{location}");
    }
    for (location, says) in [
        (format!("git+file://{at}@nowhere"), "nowhere"),
        ("git+ext::sh -c id".to_owned(), "use git+https"),
        ("git+--upload-pack=x/y".to_owned(), "dash"),
        ("git+http://example.com/x".to_owned(), "use git+https"),
    ] {
        let why = tree::checkout(&location, path.clone()).await.unwrap().unwrap_err();
        assert!(why.contains(says), "{location}: {why}");
    }
    assert!(tree::checkout("/srv/skills", path).await.is_none());
}
