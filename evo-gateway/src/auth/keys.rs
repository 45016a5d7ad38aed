//! The file of virtual keys, `auth.json`: names and digests, never the keys themselves. Its format
//! is the one of the first gateway.

use std::{collections::HashMap, fs, io, path::Path, sync::Arc, time::SystemTime};

use chrono::{DateTime, SubsecRound as _, Utc};
use evo_common::{ids::hex, tokens::Secret};
use serde::{Deserialize, Serialize};

use super::{Keys, Sum, key::Key, rules::Rules, spent::Ledger};
use crate::{
    Error,
    private_file::{self, Lock},
};

/// How a virtual key begins.
const PREFIX: &str = "evo-";
/// How much of a key is kept for people to recognise it.
const SHOWN: usize = 16;

/// One virtual key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredKey {
    /// Whose it is.
    pub(crate) name: String,
    /// SHA-256 of the key, in hex.
    pub(crate) key_hash: String,
    /// How the key begins.
    pub(crate) prefix: String,
    /// When it was made.
    pub(crate) created_at: DateTime<Utc>,
    /// What it may do.
    #[serde(flatten)]
    pub(crate) rules: Rules,
    /// What other versions keep here.
    #[serde(flatten)]
    extra: serde_json::Map<String, serde_json::Value>,
}

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeyFile {
    /// In the order in which they were made.
    pub(crate) keys: Vec<StoredKey>,
    #[serde(flatten)]
    extra: serde_json::Map<String, serde_json::Value>,
}

impl KeyFile {
    /// Reads the file; one that is not there holds no keys.
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
        let wrong = |message: String| Error::Keys { path: path.to_owned(), message };
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(wrong(format!("it can't be read: {error}"))),
        };
        let file: Self = serde_json::from_slice(&text).map_err(|error| {
            wrong(format!(
                "it is not what `evo gateway auth` writes: {error}; correct or remove it"
            ))
        })?;
        for key in &file.keys {
            let name = &key.name;
            if digest_of(&key.key_hash).is_none() {
                return Err(wrong(format!(
                    "`key_hash` of the key {name:?} is no SHA-256 in hex; revoke the key and make a \
                     new one"
                )));
            }
            key.rules.check().map_err(|(field, message)| {
                wrong(format!("`{field}` of the key {name:?} {message}"))
            })?;
        }
        Ok(file)
    }

    /// Writes it whole or not at all, for its owner only.
    fn save(&self, path: &Path) -> Result<(), Error> {
        let mut text = serde_json::to_vec_pretty(self).expect("texts and numbers are plain data");
        text.push(b'\n');
        private_file::write(path, &text).map_err(|error| Error::Keys {
            path: path.to_owned(),
            message: format!("it can't be written: {error}"),
        })
    }

    /// The keys by digest. What they have in hand stays with those that were there before.
    pub(super) fn by_digest(&self, before: &Keys, ledger: &Ledger) -> Keys {
        let named: HashMap<&str, &Key> = before.values().map(|key| (&*key.name, &**key)).collect();
        let keys = self.keys.iter().filter_map(|stored| {
            let before = named.get(&*stored.name).copied();
            let key = Key::new(&stored.name, stored.rules.clone(), before, ledger);
            Some((digest_of(&stored.key_hash)?, Arc::new(key)))
        });
        keys.collect()
    }
}

/// Keeps other commands from the file until it is dropped.
fn lock(path: &Path) -> Result<Lock, Error> {
    private_file::lock(path).map_err(|error| Error::Keys {
        path: path.to_owned(),
        message: format!("it can't be locked: {error}"),
    })
}

fn digest_of(text: &str) -> Option<Sum> {
    let mut sum = Sum::default();
    if text.len() != 2 * sum.len() || !text.is_ascii() {
        return None;
    }
    for (byte, at) in sum.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(sum)
}

/// Whether a key can be called so.
pub(crate) fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= 64 && !name.chars().any(char::is_control)
}

/// Makes a key, stores its digest and returns the key, which nobody can read again.
pub(crate) fn generate(path: &Path, name: &str, rules: Rules) -> Result<Secret, Error> {
    let wrong = |message: String| Error::Keys { path: path.to_owned(), message };
    rules.check().map_err(|(field, message)| wrong(format!("`{field}` {message}")))?;
    if !is_name(name) {
        return Err(wrong(format!("{name:?} is no name for a key: use 1 to 64 printable bytes")));
    }
    let _lock = lock(path)?;
    let mut file = KeyFile::load(path)?;
    if file.keys.iter().any(|key| key.name == name) {
        return Err(wrong(format!(
            "it has a key {name:?} already; revoke it or take another name"
        )));
    }
    let bytes: [u8; 24] = rand::random();
    let key = format!("{PREFIX}{}", hex(&bytes));
    file.keys.push(StoredKey {
        name: name.to_owned(),
        key_hash: hex(&super::digest(key.as_bytes())),
        prefix: key[..SHOWN].to_owned(),
        created_at: Utc::now().trunc_subsecs(0),
        rules,
        extra: serde_json::Map::default(),
    });
    file.save(path)?;
    Ok(Secret::new(key))
}

/// Gives a key the rules that `change` makes of its own, unless it refuses. `None` when there is no
/// such key.
pub(crate) fn change<E>(
    path: &Path,
    name: &str,
    change: impl FnOnce(&Rules) -> Result<Rules, E>,
) -> Result<Option<Result<(), E>>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let _lock = lock(path)?;
    let mut file = KeyFile::load(path)?;
    let Some(key) = file.keys.iter_mut().find(|key| key.name == name) else { return Ok(None) };
    match change(&key.rules) {
        Ok(rules) => key.rules = rules,
        Err(refusal) => return Ok(Some(Err(refusal))),
    }
    file.save(path)?;
    Ok(Some(Ok(())))
}

/// Removes the keys of this name. Says whether there was one.
pub(crate) fn revoke(path: &Path, name: &str) -> Result<bool, Error> {
    if !path.exists() {
        return Ok(false);
    }
    let _lock = lock(path)?;
    let mut file = KeyFile::load(path)?;
    let before = file.keys.len();
    file.keys.retain(|key| key.name != name);
    if file.keys.len() == before {
        return Ok(false);
    }
    file.save(path)?;
    Ok(true)
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stamp(Option<(Option<SystemTime>, u64, u64)>);

impl Stamp {
    /// The file as it is now.
    pub(crate) fn of(path: &Path) -> Self {
        #[cfg(unix)]
        let inode = |metadata: &fs::Metadata| std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let inode = |_: &fs::Metadata| 0;
        let found = fs::metadata(path).ok();
        Self(found.map(|found| (found.modified().ok(), found.len(), inode(&found))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_digests_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/auth.json");
        let key = generate(&path, "laptop", Rules::default()).unwrap();
        assert!(key.expose().starts_with("evo-") && key.expose().len() == 52);
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(key.expose()), "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let stored = value["keys"][0].as_object().unwrap();
        let fields: Vec<&String> = stored.keys().collect();
        assert_eq!(fields, ["name", "key_hash", "prefix", "created_at"]);
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
            assert_eq!(mode & 0o777, 0o600);
        }
        let error = generate(&path, "laptop", Rules::default()).unwrap_err();
        assert!(error.to_string().contains("already"), "{error}");
        assert!(!revoke(&path, "phone").unwrap());
        assert!(revoke(&path, "laptop").unwrap());
        assert_eq!(KeyFile::load(&path).unwrap().keys, []);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("real.json"), folder.path().join("auth.json"));
        generate(&file, "a", Rules::default()).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        generate(&link, "b", Rules::default()).unwrap();
        assert!(revoke(&link, "a").unwrap());
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let names: Vec<_> =
            KeyFile::load(&file).unwrap().keys.into_iter().map(|key| key.name).collect();
        assert_eq!(names, ["b"], "the key was taken back behind the link");
    }

    #[test]
    fn commands_at_the_same_time_do_not_undo_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.json");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    let name = number.to_string();
                    generate(path, &name, Rules::default()).unwrap();
                    assert!(number % 2 == 0 || revoke(path, &name).unwrap());
                });
            }
        });
        let mut names: Vec<_> =
            KeyFile::load(&path).unwrap().keys.into_iter().map(|key| key.name).collect();
        names.sort();
        assert_eq!(names, ["0", "2", "4", "6"]);
    }

    #[test]
    fn what_others_wrote_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.json");
        let hash = "0".repeat(64);
        fs::write(
            &path,
            format!(
                r#"{{"keys":[{{"name":"a","key_hash":"{hash}","prefix":"evo-0",
                "created_at":"2025-03-01T10:20:30.123456789Z","budget":5}}],"version":2}}"#
            ),
        )
        .unwrap();
        generate(&path, "b", Rules::default()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"budget\": 5") && text.contains("\"version\": 2"), "{text}");
    }

    #[test]
    fn rules_are_kept_beside_what_others_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.json");
        let rules: Rules = serde_json::from_str(
            r#"{"models": ["gpt-*"], "rpm": 5, "expires_at": "2999-01-01T00:00:00Z"}"#,
        )
        .unwrap();
        generate(&path, "a", rules.clone()).unwrap();
        let text = fs::read_to_string(&path).unwrap().replace("\"rpm\"", "\"later\": 1, \"rpm\"");
        fs::write(&path, &text).unwrap();
        assert_eq!(KeyFile::load(&path).unwrap().keys[0].rules, rules);
        let wider = Rules { rpm: Some(10), ..rules.clone() };
        let widen = |_: &Rules| Ok::<_, ()>(wider.clone());
        assert_eq!(change(&path, "a", widen).unwrap(), Some(Ok(())));
        assert_eq!(change(&path, "b", widen).unwrap(), None);
        assert_eq!(change(&path, "a", |_| Err(5)).unwrap(), Some(Err(5)));
        assert_eq!(KeyFile::load(&path).unwrap().keys[0].rules, wider);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"later\": 1"), "{text}");
        fs::write(&path, text.replace("\"rpm\": 10", "\"rpm\": 0")).unwrap();
        let error = KeyFile::load(&path).unwrap_err().to_string();
        assert!(error.contains("`rpm` of the key \"a\""), "{error}");
        let wrong = Rules { reset_hour: Some(24), ..rules };
        assert!(generate(&path, "c", wrong).is_err());
    }

    #[test]
    fn a_broken_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.json");
        let hash = "g".repeat(64);
        for text in [
            "{".to_owned(),
            r#"{"keys":[{"name":"a"}]}"#.to_owned(),
            format!(
                r#"{{"keys":[{{"name":"a","key_hash":"{hash}","prefix":"","created_at":"2025-03-01T10:20:30Z"}}]}}"#
            ),
        ] {
            fs::write(&path, &text).unwrap();
            let error = KeyFile::load(&path).unwrap_err();
            assert!(error.to_string().contains("auth.json"), "{error}");
        }
        assert_eq!(KeyFile::load(&folder.path().join("none.json")).unwrap(), KeyFile::default());
    }
}
