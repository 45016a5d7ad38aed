//! What the gateway keeps of those who signed in: one file for its owner only, by the provider's name.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    Error,
    private_file::{self, Lock},
};

/// One who signed in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignedIn {
    /// Shown to the provider.
    pub(crate) access_token: String,
    /// Gets another access token when that one has expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refresh_token: Option<String>,
    /// Which account pays, if the token is one of ChatGPT and no key of the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) account_id: Option<String>,
    /// Who it is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) email: Option<String>,
    /// When the access token ends, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<DateTime<Utc>>,
    /// When it was got.
    pub(crate) updated_at: DateTime<Utc>,
}

/// Shows no token.
impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn")
            .field("account_id", &self.account_id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    path: PathBuf,
}

/// The file, which nobody else changes as long as this is there.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    store: &'a Store,
    _lock: Lock,
}

impl Held<'_> {
    /// [`Store::save`] for whoever holds the file.
    pub(crate) fn save(&self, provider: &str, signed_in: &SignedIn) -> Result<(), Error> {
        let mut contents = self.store.read()?;
        contents.providers.insert(provider.to_owned(), signed_in.clone());
        let text = serde_json::to_vec_pretty(&contents).expect("texts and dates are plain data");
        private_file::write(&self.store.path, &text)
            .map_err(|error| self.store.wrong(format!("it can't be written: {error}")))
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Contents {
    #[serde(default)]
    providers: BTreeMap<String, SignedIn>,
}

impl Store {
    /// The file at `path`, which may come later.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// When it was changed last.
    pub(crate) fn stamp(&self) -> Option<SystemTime> {
        fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok()
    }

    /// Who signed in for this provider.
    pub(crate) fn load(&self, provider: &str) -> Result<Option<SignedIn>, Error> {
        Ok(self.read()?.providers.remove(provider))
    }

    /// Keeps who signed in for this provider, in the place of whoever did before. Waits for others who
    /// hold the file.
    pub(crate) fn save(&self, provider: &str, signed_in: &SignedIn) -> Result<(), Error> {
        self.hold()?.save(provider, signed_in)
    }

    /// Waits until nobody else holds the file, here or in another process, and holds it.
    pub(crate) fn hold(&self) -> Result<Held<'_>, Error> {
        let wrong = |error: io::Error| self.wrong(format!("it can't be written: {error}"));
        let lock = private_file::lock(&self.path).map_err(wrong)?;
        Ok(Held { store: self, _lock: lock })
    }

    fn read(&self) -> Result<Contents, Error> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::default()),
            Err(error) => return Err(self.wrong(format!("it can't be read: {error}"))),
        };
        // Serde's own message may quote what it found.
        serde_json::from_slice(&text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            self.wrong(format!(
                "line {line}, column {column} is not what `evo gateway auth` writes; correct or \
                 remove it and sign in again"
            ))
        })
    }

    fn wrong(&self, message: String) -> Error {
        Error::Credentials { path: self.path.clone(), message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed_in(token: &str) -> SignedIn {
        SignedIn {
            access_token: token.to_owned(),
            refresh_token: Some("refresh-secret".to_owned()),
            account_id: Some("account".to_owned()),
            email: None,
            expires_at: None,
            updated_at: Utc::now(),
        }
    }

    #[test]
    fn what_is_kept_is_for_its_owner_only_and_shown_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data").join("credentials.json");
        let store = Store::new(path.clone());
        assert_eq!(store.load("codex-auth").unwrap(), None);
        let (one, two) = (signed_in("secret-1"), signed_in("secret-2"));
        store.save("codex-auth", &one).unwrap();
        store.save("other", &two).unwrap();
        assert_eq!(store.load("codex-auth").unwrap(), Some(one.clone()));
        store.save("codex-auth", &two).unwrap();
        assert_eq!(store.load("codex-auth").unwrap(), Some(two));
        assert!(!format!("{one:?}").contains("secret"), "{one:?}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let names = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(names, 2, "the file and its lock");

        fs::write(&path, r#"{"providers": {"codex-auth": "secret-3"}}"#).unwrap();
        let error = store.load("codex-auth").unwrap_err().to_string();
        assert!(error.contains("credentials.json") && !error.contains("secret-3"), "{error}");
    }
}
