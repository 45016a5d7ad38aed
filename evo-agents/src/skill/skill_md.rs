//! `SKILL.md`, the form in which agents hand skills to each other (agentskills.io): front matter in
//! YAML, then a text in Markdown. What is written here is valid there; what is read may be anything.

use std::collections::BTreeMap;

use evo_common::{
    artifact::Files,
    ids::sha256_hex,
    skill::{CodeRuntime, SkillIO, SkillManifest, files},
};
use serde_json::Value;

use super::package::Package;

/// Longest description.
pub const MAX_DESCRIPTION: usize = 1_024;
/// Longest text about what a skill needs.
pub const MAX_COMPATIBILITY: usize = 500;
/// Largest front matter that is read.
const MAX_FRONT_MATTER: usize = 64 * 1024;

/// [`FrontMatter::metadata`]: the version of the skill.
pub const VERSION: &str = "evo-version";
/// [`FrontMatter::metadata`]: SHA-256 over the other files of the folder, see [`digest`].
pub const SHA256: &str = "evo-sha256";
/// [`FrontMatter::metadata`]: what the skill takes, as JSON.
pub const INPUTS: &str = "evo-inputs";
/// [`FrontMatter::metadata`]: what it gives, as JSON.
pub const OUTPUTS: &str = "evo-outputs";
/// [`FrontMatter::metadata`]: how its code is run, as JSON.
pub const RUNTIME: &str = "evo-runtime";

/// What stands above the text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FrontMatter {
    /// Name of the skill, and of its folder.
    pub name: String,
    /// What it does and when it is used.
    pub description: String,
    /// Its licence.
    pub license: Option<String>,
    /// What it needs.
    pub compatibility: Option<String>,
    /// Tools that it may use without asking, as they stand there.
    pub allowed_tools: Option<String>,
    /// Whatever else somebody noted.
    pub metadata: BTreeMap<String, String>,
}

impl FrontMatter {
    /// Name and description, as far as they are legal.
    pub fn new(name: &str, description: &str) -> Self {
        let line = |text: &str| {
            let visible = text.chars().map(|c| if c.is_control() { ' ' } else { c });
            visible.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let description = line(description);
        let description = if description.is_empty() { name } else { &description };
        Self {
            name: name.to_owned(),
            description: description.chars().take(MAX_DESCRIPTION).collect(),
            ..Self::default()
        }
    }

    /// Whether it is what agentskills.io asks for; if not, why.
    pub fn check(&self) -> Result<(), String> {
        let name = &self.name;
        let plain = evo_common::skill::is_valid_name(name) && !name.contains("--");
        if !plain {
            return Err(format!(
                "`name` is {name:?}: use 1 to 64 of a-z, 0-9 and single dashes, none at either end"
            ));
        }
        let length = self.description.trim().chars().count();
        if !(1..=MAX_DESCRIPTION).contains(&length) {
            return Err(format!(
                "`description` has {length} characters: give 1 to {MAX_DESCRIPTION}"
            ));
        }
        let needs = self.compatibility.as_ref().map_or(0, |text| text.chars().count());
        if needs > MAX_COMPATIBILITY {
            return Err(format!(
                "`compatibility` has {needs} characters: at most {MAX_COMPATIBILITY} are allowed"
            ));
        }
        Ok(())
    }
}

/// A `SKILL.md` with this text. Every value is quoted, so that none is taken for something else.
pub fn write(front: &FrontMatter, text: &str) -> String {
    let mut written = String::from("---\n");
    let mut line = |indent: &str, key: &str, value: &str| {
        let value: String =
            value.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
        written.push_str(&format!("{indent}{key}: {}\n", Value::from(value)));
    };
    line("", "name", &front.name);
    line("", "description", &front.description);
    for (key, value) in [
        ("license", &front.license),
        ("compatibility", &front.compatibility),
        ("allowed-tools", &front.allowed_tools),
    ] {
        if let Some(value) = value {
            line("", key, value);
        }
    }
    if !front.metadata.is_empty() {
        written.push_str("metadata:\n");
        for (key, value) in &front.metadata {
            let value: String =
                value.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
            written.push_str(&format!("  {}: {}\n", Value::from(key.as_str()), Value::from(value)));
        }
    }
    format!("{written}---\n\n{text}")
}

/// Reads a `SKILL.md`: front matter and text. Values that are no texts are taken as JSON writes
/// them; keys that nobody knows are left out.
pub fn read(text: &str) -> Result<(FrontMatter, &str), String> {
    let text = text.trim_start_matches('\u{feff}');
    let rest = text.strip_prefix("---").ok_or("it does not begin with `---`")?;
    let rest = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n'));
    let rest = rest.ok_or("its first line holds more than `---`")?;
    let mut end = None;
    let mut at = 0;
    for line in rest.split_inclusive('\n') {
        if line.trim_end() == "---" {
            end = Some((at, at + line.len()));
            break;
        }
        at += line.len();
    }
    let (end, body) = end.ok_or("its front matter has no end: a line `---` is missing")?;
    if end > MAX_FRONT_MATTER {
        return Err(format!("its front matter is longer than {MAX_FRONT_MATTER} bytes"));
    }
    let table: Value = serde_saphyr::from_str(&rest[..end])
        .map_err(|error| format!("its front matter can't be read: {error}"))?;
    let table = table.as_object().ok_or("its front matter is no table of keys and values")?;
    let text_of = |key: &str| table.get(key).filter(|value| !value.is_null()).map(plain);
    let front = FrontMatter {
        name: text_of("name").unwrap_or_default(),
        description: text_of("description").unwrap_or_default(),
        license: text_of("license"),
        compatibility: text_of("compatibility"),
        allowed_tools: text_of("allowed-tools"),
        metadata: match table.get("metadata") {
            Some(Value::Object(map)) => {
                map.iter().map(|(key, value)| (key.clone(), plain(value))).collect()
            }
            Some(Value::String(text)) => match serde_json::from_str(text) {
                Ok(Value::Object(map)) => {
                    map.iter().map(|(key, value)| (key.clone(), plain(value))).collect()
                }
                _ => BTreeMap::new(),
            },
            _ => BTreeMap::new(),
        },
    };
    Ok((front, rest[body..].trim_start_matches(['\r', '\n'])))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    }
}

/// SHA-256 over the names and digests of all files but `SKILL.md` itself.
pub fn digest(all: &Files) -> String {
    let others = all.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(files::SKILL_MD));
    let mut lines = String::new();
    for (name, content) in others {
        lines.push_str(&sha256_hex(content));
        lines.push_str("  ");
        lines.push_str(name);
        lines.push('\n');
    }
    sha256_hex(lines.as_bytes())
}

/// What the other files of a package say, for whoever reads only its `SKILL.md`.
pub fn metadata(all: &Files) -> Result<BTreeMap<String, String>, super::package::Error> {
    let package = Package::from_files(all.clone())?;
    Ok(metadata_of(&package.manifest, package.runtime.as_ref(), &digest(all)))
}

/// Writes anew what a package's `SKILL.md` says of its other files. One that can't be read stays.
pub fn renew(all: &mut Files) -> Result<(), super::package::Error> {
    let text = all.get(files::SKILL_MD).and_then(|text| String::from_utf8(text.clone()).ok());
    let Some((mut front, body)) = text.as_deref().and_then(|text| read(text).ok()) else {
        return Ok(());
    };
    front.metadata.extend(metadata(all)?);
    let written = write(&front, body);
    all.insert(files::SKILL_MD.to_owned(), written.into_bytes());
    Ok(())
}

/// The same from its parts.
pub fn metadata_of(
    manifest: &SkillManifest,
    runtime: Option<&CodeRuntime>,
    digest: &str,
) -> BTreeMap<String, String> {
    let json = |fields: &[SkillIO]| serde_json::to_string(fields).expect("plain data");
    let mut metadata = BTreeMap::from([
        (VERSION.to_owned(), manifest.version.clone()),
        (SHA256.to_owned(), digest.to_owned()),
        (INPUTS.to_owned(), json(&manifest.inputs)),
        (OUTPUTS.to_owned(), json(&manifest.outputs)),
    ]);
    if let Some(runtime) = runtime {
        let text = serde_json::to_string(runtime).expect("plain data");
        metadata.insert(RUNTIME.to_owned(), text);
    }
    metadata
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_others_write_is_read() {
        let text = "---\r\nname: pdf\r\ndescription: >\r\n  Reads\r\n  PDF files.\r\nlicense: MIT\r\nmetadata:\r\n  version: 1.2\r\n  openclaw: {requires: {bins: [python3]}}\r\nallowed-tools: Bash Read\r\n---\r\n\r\n# PDF\r\n";
        let (front, body) = read(text).unwrap();
        assert_eq!((front.name.as_str(), front.description.as_str()), ("pdf", "Reads PDF files."));
        assert_eq!(front.metadata["version"], "1.2");
        assert!(front.metadata["openclaw"].contains("python3"));
        assert_eq!(front.allowed_tools.as_deref(), Some("Bash Read"));
        assert_eq!(body, "# PDF\r\n");
        assert_eq!(front.check(), Ok(()));
        let (front, _) = read("---\nname: a\nmetadata: '{\"k\": {\"x\": 1}}'\n---\nx").unwrap();
        assert_eq!(front.metadata["k"], "{\"x\":1}");
        assert!(front.check().unwrap_err().contains("`description`"));
        for (text, says) in [
            ("# PDF", "does not begin"),
            ("--- x\nname: a\n---\n", "first line"),
            ("---\nname: a\n", "no end"),
            ("---\n- a\n---\n", "no table"),
            ("---\nname: [a\n---\n", "can't be read"),
        ] {
            assert!(read(text).unwrap_err().contains(says), "{text}");
        }
        for name in ["", "a--b", "-a", "A", "ä", &"a".repeat(65)] {
            assert!(FrontMatter::new(name, "x").check().is_err(), "{name}");
        }
    }

    #[test]
    fn the_digest_covers_every_other_file() {
        let files = |entries: &[(&str, &str)]| -> Files {
            entries.iter().map(|(p, c)| ((*p).to_owned(), c.as_bytes().to_vec())).collect()
        };
        let one = digest(&files(&[("a", "1"), ("SKILL.md", "x")]));
        assert_eq!(one, digest(&files(&[("a", "1"), ("skill.md", "y")])));
        assert_ne!(one, digest(&files(&[("a", "2")])));
        assert_ne!(one, digest(&files(&[("b", "1")])));
    }

    proptest! {
        #[test]
        fn what_is_written_is_valid_and_reads_the_same(
            name in "[a-z0-9]{1,8}(-[a-z0-9]{1,8}){0,4}",
            description in ".{0,1500}",
            license in proptest::option::of("[ -~]{1,30}"),
            metadata in proptest::collection::btree_map("[a-z][a-z0-9-]{0,12}", "[^\u{0}-\u{1f}\u{7f}-\u{9f}]{0,80}", 0..4),
            body in "(# [a-z ]{0,20}\n)?[ -~\n]{0,100}",
        ) {
            let front = FrontMatter {
                license: license.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()),
                metadata: metadata.into_iter().map(|(key, value)| (key, value.trim().to_owned())).collect(),
                ..FrontMatter::new(&name, &description)
            };
            prop_assert_eq!(front.check(), Ok(()));
            let written = write(&front, &body);
            let (again, text) = read(&written).unwrap();
            prop_assert_eq!(again.description.trim(), front.description.trim());
            prop_assert_eq!(FrontMatter { description: String::new(), ..again }, FrontMatter { description: String::new(), ..front });
            prop_assert_eq!(text, body.trim_start_matches(['\r', '\n']));
        }
    }
}
