//! What an agent is: `soul.md`, `agent.toml` and the folder that holds them.

use std::path::{Path, PathBuf};

use evo_common::{
    config::load,
    messages::{AgentRole, UnknownRole},
};
use serde::Deserialize;

/// Name of the file that describes an agent in prose.
pub const SOUL_FILE: &str = "soul.md";
/// Name of the file that configures an agent.
pub const AGENT_FILE: &str = "agent.toml";

/// A parsed `soul.md`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Soul {
    /// First line under `## Role`, as it is written there.
    pub role: Option<String>,
    /// Everything under `## Behavior`.
    pub behavior: String,
}

impl Soul {
    /// Reads the two sections; headings are recognised in any case, everything else is left alone.
    pub fn parse(text: &str) -> Self {
        Self {
            role: section(text, "role").and_then(|section| {
                section.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
            }),
            behavior: section(text, "behavior").unwrap_or_default().trim().to_owned(),
        }
    }
}

/// The lines between `## <name>` and the next `## `.
fn section(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().skip_while(|line| {
        !line.strip_prefix("## ").is_some_and(|heading| heading.trim().eq_ignore_ascii_case(name))
    });
    lines.next()?;
    let body: Vec<&str> = lines.take_while(|line| !line.starts_with("## ")).collect();
    Some(body.join("\n"))
}

/// An agent's folder, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentFolder {
    /// The folder, absolute.
    pub path: PathBuf,
    /// The stage it serves.
    pub role: AgentRole,
    /// The whole text of `soul.md`; empty when there is none.
    pub soul: String,
    /// `agent.toml`, if there is one.
    pub config: Option<AgentFile>,
}

/// `agent.toml`, of which every key is optional here: the environment and `soul.md` may say the
/// rest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AgentFile {
    /// The agent's role.
    pub role: Option<String>,
    /// Names of the skills it loads; none for all.
    pub skills: Vec<String>,
    /// Where its king is.
    pub king_address: Option<String>,
}

/// Why a folder holds no agent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder is not there.
    #[error("the agent folder {} can't be opened: {cause}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What happened.
        cause: std::io::Error,
    },
    /// Neither file is there.
    #[error(
        "{} is no agent folder: it has neither soul.md nor agent.toml. Write a soul.md with the lines `## Role`, `user`, or name another folder",
        path.display()
    )]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// A file can't be read.
    #[error("{} can't be read: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        cause: std::io::Error,
    },
    /// `agent.toml` is not what it should be.
    #[error(transparent)]
    Config(#[from] load::ConfigErrors),
    /// Neither file names a role.
    #[error(
        "{} names no role: write `role = \"user\"` into agent.toml, or the lines `## Role` and `user` into soul.md", path.display()
    )]
    NoRole {
        /// The file.
        path: PathBuf,
    },
    /// The role is none.
    #[error("{}: {cause}", path.display())]
    Role {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: UnknownRole,
    },
}

impl AgentFolder {
    /// Reads a folder. Either file alone is enough; what both say, `agent.toml` decides.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder
            .canonicalize()
            .map_err(|cause| Error::Folder { path: folder.to_owned(), cause })?;
        let soul_path = path.join(SOUL_FILE);
        let agent_path = path.join(AGENT_FILE);
        let soul = read_optional(&soul_path)?;
        let config: Option<AgentFile> =
            if agent_path.exists() { Some(load::load_file(&agent_path)?) } else { None };
        let (role, source) = match (&config, &soul) {
            (Some(AgentFile { role: Some(role), .. }), _) => (role.clone(), agent_path),
            (_, Some(text)) => {
                let role = Soul::parse(text)
                    .role
                    .ok_or_else(|| Error::NoRole { path: soul_path.clone() })?;
                (role, soul_path)
            }
            (Some(_), None) => return Err(Error::NoRole { path: agent_path }),
            (None, None) => return Err(Error::Empty { path }),
        };
        let role = role.parse().map_err(|error| Error::Role { path: source, cause: error })?;
        Ok(Self { path, role, soul: soul.unwrap_or_default(), config })
    }

    /// `{folder}-{role}`, the same on every start.
    pub fn agent_id(&self) -> String {
        let folder = self
            .path
            .file_name()
            .map_or_else(|| "agent".to_owned(), |name| name.to_string_lossy().into_owned());
        let role = match &self.role {
            AgentRole::User(name) if !name.is_empty() => name.to_lowercase(),
            other => other.kind().replace('_', "-"),
        };
        let plain = |c: char| if c.is_alphanumeric() || "-.".contains(c) { c } else { '-' };
        format!("{folder}-{role}").chars().map(plain).take(128).collect()
    }

    /// The skills that `agent.toml` wants loaded; `None` for all of them.
    pub fn wanted_skills(&self) -> Option<&[String]> {
        self.config.as_ref().map(|config| config.skills.as_slice()).filter(|list| !list.is_empty())
    }
}

fn read_optional(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::Read { path: path.to_owned(), cause }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUL: &str = "# Pre-load\n\n## role\n\nPre-Load\n\n## Behavior\n\nLook twice.\n\n### How\n\nSlowly.\n## Other\nx\n";

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("my agent");
        std::fs::create_dir(&folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        (parent, folder)
    }

    #[test]
    fn sections_end_at_the_next_heading_of_their_level() {
        let soul = Soul::parse(SOUL);
        assert_eq!(soul.role.as_deref(), Some("Pre-Load"));
        assert_eq!(soul.behavior, "Look twice.\n\n### How\n\nSlowly.");
        assert_eq!(Soul::parse("## Role\n## Behavior\n"), Soul::default());
        assert_eq!(Soul::parse("no headings"), Soul::default());
    }

    #[test]
    fn roles_are_read_in_every_spelling() {
        for text in ["pre-load", "pre_load", "Pre Load", "PRE-LOAD "] {
            let (_parent, folder) = folder(&[(SOUL_FILE, &format!("## Role\n{text}\n"))]);
            let agent = AgentFolder::read(&folder).unwrap();
            assert_eq!(agent.role, AgentRole::PreLoad);
            assert_eq!(agent.agent_id(), "my-agent-pre-load");
        }
    }

    #[test]
    fn agent_toml_alone_is_enough_and_decides() {
        let toml = "role = \"user:translator\"\nskills = [\"a\"]\nking_address = \"http://k:1\"\n";
        for files in [&[(AGENT_FILE, toml)][..], &[(AGENT_FILE, toml), (SOUL_FILE, SOUL)][..]] {
            let (_parent, folder) = folder(files);
            let agent = AgentFolder::read(&folder).unwrap();
            assert_eq!(agent.role, AgentRole::User("translator".to_owned()));
            assert_eq!(agent.agent_id(), "my-agent-translator");
            assert_eq!(agent.wanted_skills(), Some(&["a".to_owned()][..]));
        }
    }

    #[test]
    fn every_key_of_agent_toml_is_optional() {
        let (_parent, role_only) = folder(&[(AGENT_FILE, "role = \"user\"\n")]);
        assert_eq!(AgentFolder::read(&role_only).unwrap().wanted_skills(), None);
        let king = [(AGENT_FILE, "king_address = \"http://k:1\"\n"), (SOUL_FILE, SOUL)];
        let (_parent, king_only) = folder(&king);
        assert_eq!(AgentFolder::read(&king_only).unwrap().role, AgentRole::PreLoad);
    }

    #[test]
    fn faults_say_what_to_do() {
        let fault = |files: &[(&str, &str)]| {
            let (_parent, folder) = folder(files);
            AgentFolder::read(&folder).unwrap_err().to_string()
        };
        assert!(fault(&[]).contains("neither soul.md nor agent.toml"), "{}", fault(&[]));
        assert!(fault(&[(SOUL_FILE, "# Me\n")]).contains("names no role"));
        let unknown = fault(&[(SOUL_FILE, "## Role\nwizard\n")]);
        assert!(unknown.contains("\"wizard\"") && unknown.contains("skill_manage"), "{unknown}");
        let broken = fault(&[(AGENT_FILE, "role = \"user\"\nskills = 7\n")]);
        assert!(broken.contains("agent.toml") && broken.contains("skills"), "{broken}");
        let typo = fault(&[(AGENT_FILE, "role = \"user\"\nking_adress = \"x\"\n")]);
        assert!(typo.contains("king_address"), "{typo}");
        assert!(fault(&[(AGENT_FILE, "skills = []\n")]).contains("names no role"));
        let missing = AgentFolder::read(Path::new("/does/not/exist")).unwrap_err().to_string();
        assert!(missing.contains("/does/not/exist"), "{missing}");
    }
}
