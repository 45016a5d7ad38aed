//! The gateway's configuration file and what king keeps beside it.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use evo_common::{
    config::{GatewayConfig, load::Format},
    ids::sha256_hex,
};

/// What runs now, as king knows it.
const RUNNING: &str = "gateway-running.conf";
/// Backups, and rejected files, that are kept of each.
const KEPT: usize = 50;

/// A configuration as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) hash: String,
}

impl Text {
    pub(super) fn new(text: String) -> Self {
        Self { hash: sha256_hex(text.as_bytes()), text }
    }

    /// How it is written.
    pub(super) fn format(&self) -> Format {
        if self.text.trim_start().starts_with('{') { Format::Json } else { Format::Toml }
    }
}

/// Tells two states of a file apart without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u64, u64, i64, i64);

/// The file, and the folder for what is kept beside it.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// `gateway.toml` or `gateway.json`.
    pub(super) path: PathBuf,
    /// Its format, by its name.
    pub(super) format: Format,
    /// Where running, backed up and rejected configurations are: beside the file, or in the data
    /// folder where its own can't be written to.
    folder: PathBuf,
}

impl Files {
    /// Of this file; `spare` is used where the file's folder can't be written to.
    pub(super) fn of(path: &Path, spare: &Path) -> io::Result<Self> {
        let format = Format::of(path).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{}: its extension is neither .toml nor .json", path.display()),
            )
        })?;
        let own = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let own = own.unwrap_or(Path::new("."));
        let folder = if nix::unistd::access(own, nix::unistd::AccessFlags::W_OK).is_ok() {
            own.to_owned()
        } else {
            fs::create_dir_all(spare)?;
            spare.to_owned()
        };
        Ok(Self { path: path.to_owned(), format, folder })
    }

    /// The state of the file; none when it is not there.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        let facts = fs::metadata(&self.path).ok()?;
        Some(Stamp(facts.ino(), facts.len(), facts.mtime(), facts.mtime_nsec()))
    }

    /// The file.
    pub(super) fn read(&self) -> io::Result<Text> {
        Ok(Text::new(read(&self.path)?))
    }

    /// What ran last, if that is known.
    pub(super) fn running(&self) -> Option<Text> {
        Self::saved(&self.folder.join(RUNNING))
    }

    /// Notes what runs now.
    pub(super) fn write_running(&self, text: &Text) -> io::Result<()> {
        write_whole(&self.folder.join(RUNNING), &text.text)
    }

    /// Saves what ran until now.
    pub(super) fn back_up(&self, text: &Text, now: DateTime<Utc>) -> io::Result<PathBuf> {
        self.keep("gateway-backup-", text, now)
    }

    /// Saves what was not taken over.
    pub(super) fn keep_rejected(&self, text: &Text, now: DateTime<Utc>) -> io::Result<PathBuf> {
        self.keep("gateway-rejected-", text, now)
    }

    fn keep(&self, prefix: &str, text: &Text, now: DateTime<Utc>) -> io::Result<PathBuf> {
        let stem = format!("{prefix}{}", now.format("%Y%m%d_%H%M%S"));
        let names = std::iter::once(String::new()).chain((2..).map(|number| format!("_{number}")));
        let mut paths = names.map(|more| self.folder.join(format!("{stem}{more}.config")));
        // Two changes in one second keep two files.
        let path = paths.find(|path| !path.exists()).expect("there is no end of names");
        write_whole(&path, &text.text)?;
        self.prune(prefix)?;
        Ok(path)
    }

    /// Removes the oldest of many.
    fn prune(&self, prefix: &str) -> io::Result<()> {
        let mut names: Vec<OsString> = fs::read_dir(&self.folder)?
            .filter_map(|entry| Some(entry.ok()?.file_name()))
            .filter(|name| {
                let name = name.to_string_lossy();
                name.starts_with(prefix) && name.ends_with(".config")
            })
            .collect();
        names.sort();
        let surplus = names.len().saturating_sub(KEPT);
        names.iter().take(surplus).try_for_each(|name| fs::remove_file(self.folder.join(name)))
    }

    /// A configuration in the file's own format.
    pub(super) fn in_own_format(&self, text: &Text) -> io::Result<Text> {
        Ok(match (text.format(), self.format) {
            (Format::Toml, Format::Toml) | (Format::Json, Format::Json) => text.clone(),
            (Format::Toml, Format::Json) => {
                let config = GatewayConfig::from_toml(&text.text).map_err(io::Error::other)?;
                Text::new(config.to_json().map_err(io::Error::other)?)
            }
            (Format::Json, Format::Toml) => {
                let config = GatewayConfig::from_json(&text.text).map_err(io::Error::other)?;
                Text::new(config.to_toml().map_err(io::Error::other)?)
            }
        })
    }

    /// Puts a configuration into the file.
    pub(super) fn write(&self, text: &Text) -> io::Result<()> {
        write_whole(&self.path, &text.text)
    }

    /// A configuration that was saved.
    pub(super) fn saved(path: &Path) -> Option<Text> {
        read(path).ok().map(Text::new)
    }

    /// Whether the file can be replaced.
    pub(super) fn is_writable(&self) -> bool {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK).is_ok()
    }
}

/// A text file; one that is not UTF-8 is told as such.
fn read(path: &Path) -> io::Result<String> {
    String::from_utf8(fs::read(path)?).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
    })
}

/// Writes a file so that nobody ever sees half of it, with the rights that it had.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mode = fs::metadata(path).map_or(0o644, |facts| facts.permissions().mode() & 0o777);
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{:08x}.new", rand::random::<u32>()));
    let draft = path.with_file_name(name);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        // So that the new name survives a loss of power too.
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    let written = write();
    if written.is_err() {
        // Nobody needs the half; that it can't be removed adds nothing.
        fs::remove_file(&draft).ok();
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "providers = []\n\n[server]\nhost = \"127.0.0.1\"\nport = 1\n";

    fn text(text: &str) -> Text {
        Text::new(text.to_owned())
    }

    #[test]
    fn the_file_keeps_its_format_and_its_rights() {
        let folder = tempfile::tempdir().unwrap();
        for (name, expected) in [("gateway.toml", Format::Toml), ("gateway.json", Format::Json)] {
            let path = folder.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            let files = Files::of(&path, folder.path()).unwrap();
            let json = GatewayConfig::from_toml(TOML).unwrap().to_json().unwrap();
            for source in [TOML, &json] {
                let own = files.in_own_format(&text(source)).unwrap();
                files.write(&own).unwrap();
                assert_eq!((own.format(), &own), (expected, &files.read().unwrap()));
            }
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        }
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 2, "no draft is left");
        assert!(Files::of(&folder.path().join("gateway.yaml"), folder.path()).is_err());
    }

    #[test]
    fn every_backup_has_a_file_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::of(&folder.path().join("gateway.toml"), folder.path()).unwrap();
        let at = |second: i64| DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap();
        let first = files.back_up(&text("a"), at(0)).unwrap();
        assert!(first.ends_with("gateway-backup-20231114_221320.config"), "{first:?}");
        let second = files.back_up(&text("b"), at(0)).unwrap();
        assert_eq!(fs::read_to_string(&second).unwrap(), "b");
        let rejected = files.keep_rejected(&text("c"), at(0)).unwrap();
        for second in 1..=60 {
            files.back_up(&text("d"), at(second)).unwrap();
        }
        assert!(!first.exists() && rejected.exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), KEPT + 1);
    }

    #[test]
    fn what_runs_is_kept_beside_the_file_or_in_the_spare_folder() {
        let folder = tempfile::tempdir().unwrap();
        let spare = folder.path().join("spare");
        let gone = folder.path().join("not-there").join("gateway.toml");
        let files = Files::of(&gone, &spare).unwrap();
        assert_eq!((files.running(), files.stamp()), (None, None));
        files.write_running(&text(TOML)).unwrap();
        assert_eq!(files.running(), Some(text(TOML)));
        assert!(spare.join(RUNNING).exists() && !files.is_writable());
    }
}
