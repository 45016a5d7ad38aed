//! The skills in an agent's own folder: `<folder>/skills/*/`.

use std::path::{Path, PathBuf};

use super::package::{self, Package};

/// What was found in the folder.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Skills that can be used, in name order.
    pub skills: Vec<Package>,
    /// Folders that hold no valid skill. The others go on.
    pub broken: Vec<Broken>,
}

/// A folder that holds no valid skill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: package::Error,
}

/// Reads `<folder>/skills/*/`. A broken skill is logged, reported and left out; of two skills with
/// one name the second is left out.
pub fn load_skills(folder: &Path) -> Loaded {
    let mut loaded = Loaded::default();
    let skills = folder.join("skills");
    let entries = match std::fs::read_dir(&skills) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return loaded,
        Err(error) => {
            tracing::error!(%error, "The skills in {} can't be listed", skills.display());
            return loaded;
        }
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| match entry {
            Ok(entry) => Some(entry.path()),
            Err(error) => {
                tracing::error!(%error, "An entry of {} can't be read", skills.display());
                None
            }
        })
        .filter(|path| path.is_dir() && !is_hidden(path))
        .collect();
    paths.sort();
    for path in paths {
        let package = Package::from_folder(&path).and_then(|package| {
            let known =
                loaded.skills.iter().any(|other| other.manifest.name == package.manifest.name);
            if known {
                return Err(package::Error {
                    file: evo_common::skill::files::MANIFEST.to_owned(),
                    key: Some("name".to_owned()),
                    line: None,
                    message: format!("another folder holds the skill {:?}", package.manifest.name),
                });
            }
            Ok(package)
        });
        match package {
            Ok(package) => loaded.skills.push(package),
            Err(error) => {
                tracing::error!(
                    skill.path = %path.display(), %error,
                    "The skill in {} is left out: {error}", path.display()
                );
                loaded.broken.push(Broken { path, error });
            }
        }
    }
    loaded.skills.sort_by(|a, b| a.manifest.name.cmp(&b.manifest.name));
    loaded
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::{
        super::package::tests::{CONFIG, MANIFEST},
        *,
    };

    fn skill(folder: &Path, name: &str, manifest: &str) {
        let path = folder.join("skills").join(name);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("manifest.toml"), manifest).unwrap();
        std::fs::write(path.join("config.toml"), CONFIG).unwrap();
    }

    #[test]
    fn a_broken_skill_does_not_hide_the_others() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load_skills(folder.path()).skills.is_empty());
        skill(folder.path(), "good", MANIFEST);
        skill(folder.path(), "same-name", MANIFEST);
        skill(folder.path(), "broken", "name = 7");
        std::fs::write(folder.path().join("skills/README.md"), "not a skill").unwrap();
        let loaded = load_skills(folder.path());
        assert_eq!(loaded.skills.len(), 1);
        let broken: Vec<_> = loaded.broken.iter().map(|b| b.path.file_name().unwrap()).collect();
        assert_eq!(broken, ["broken", "same-name"]);
    }
}
