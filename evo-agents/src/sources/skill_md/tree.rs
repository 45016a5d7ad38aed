//! Reads a tree of skills: a folder, or a git repository that is checked out for it. Nothing of it is
//! executed: no hooks, no filters, no submodules.

use std::{fs, path::Path, process::Stdio, time::Duration};

use evo_common::{artifact::Files, skill::files};
use tokio::{process::Command, time::Instant};

/// Begins the location of a repository: `git+https://example.com/skills.git@v1`.
pub const GIT: &str = "git+";
/// Most files and folders that are looked at.
const MAX_ENTRIES: usize = 50_000;
/// Deepest folder.
const MAX_DEPTH: usize = 12;
/// Most files of one skill.
const MAX_FILES: usize = 200;
/// Most bytes of one skill.
const MAX_BYTES: u64 = 512 * 1024;
/// Largest checkout.
const MAX_CHECKOUT: u64 = 256 * 1024 * 1024;
/// Longest checkout.
const CHECKOUT_TIME: Duration = Duration::from_secs(180);
/// How often its size is looked at.
const WATCH: Duration = Duration::from_millis(300);
/// Longest part of what git says that is repeated.
const MAX_SAID: usize = 300;

/// A folder with a `SKILL.md`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folder {
    /// Its path in the tree; empty for the root.
    pub path: String,
    /// Its files.
    pub files: Files,
    /// Why it can't be used, if it can't.
    pub problem: Option<String>,
}

/// The skills of a folder, in the order of their paths.
pub fn read(root: &Path) -> Result<Vec<Folder>, String> {
    let kind = fs::metadata(root).map_err(|error| format!("{}: {error}", root.display()))?;
    if !kind.is_dir() {
        return Err(format!("{} is not a folder", root.display()));
    }
    let mut found = Vec::new();
    let mut left = MAX_ENTRIES;
    walk(root, "", 0, &mut left, &mut found)?;
    found.sort_by(|a: &Folder, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Entries of a folder without hidden ones, in name order.
fn entries(folder: &Path, left: &mut usize) -> Result<Vec<(String, fs::DirEntry)>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        *left = left.checked_sub(1).ok_or_else(|| {
            format!("the tree has more than {MAX_ENTRIES} files and folders; name a part of it")
        })?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            entries.push((name, entry));
        }
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") }
}

fn walk(
    folder: &Path,
    path: &str,
    depth: usize,
    left: &mut usize,
    found: &mut Vec<Folder>,
) -> Result<(), String> {
    let entries = entries(folder, left)?;
    if entries.iter().any(|(name, _)| name == files::SKILL_MD) {
        let mut skill = Folder { path: path.to_owned(), ..Folder::default() };
        let mut size = 0;
        skill.problem = collect(folder, "", 0, left, &mut skill.files, &mut size).err();
        found.push(skill);
        return Ok(());
    }
    if depth == MAX_DEPTH {
        return Ok(());
    }
    for (name, entry) in entries {
        // A link to a folder is none for `file_type`, so that no tree has circles.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), &join(path, &name), depth + 1, left, found)?;
        }
    }
    Ok(())
}

/// The files of one skill; the error says why it can't be used.
fn collect(
    folder: &Path,
    prefix: &str,
    depth: usize,
    left: &mut usize,
    all: &mut Files,
    size: &mut u64,
) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("{prefix} is deeper than {MAX_DEPTH} folders"));
    }
    for (name, entry) in entries(folder, left)? {
        let path = join(prefix, &name);
        let failed = |error: std::io::Error| format!("{path} can't be read: {error}");
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            collect(&entry.path(), &path, depth + 1, left, all, size)?;
        } else if kind.is_file() {
            *size += entry.metadata().map_err(failed)?.len();
            if all.len() >= MAX_FILES || *size > MAX_BYTES {
                return Err(format!("it has more than {MAX_FILES} files or {MAX_BYTES} bytes"));
            }
            all.insert(path.clone(), fs::read(entry.path()).map_err(failed)?);
        } else {
            return Err(format!("{path} is a link or no plain file, which is not followed"));
        }
    }
    Ok(())
}

/// A repository that a location names.
#[derive(Debug)]
struct Repository {
    url: String,
    /// The only protocol that git may speak.
    protocol: &'static str,
    /// Branch or tag.
    reference: Option<String>,
}

/// Whether a location names a repository, and which.
fn repository(location: &str) -> Option<Result<Repository, String>> {
    let url = location.strip_prefix(GIT)?;
    let (base, reference) = match url.rsplit_once('@') {
        // What stands before the last slash belongs to the host: `user@example.com`.
        Some((base, reference)) if !reference.contains('/') && base.contains('/') => {
            (base, Some(reference.to_owned()))
        }
        _ => (url, None),
    };
    let plain = |text: &str| !text.starts_with('-') && !text.chars().any(char::is_control);
    if !plain(base) || !reference.as_deref().is_none_or(plain) {
        return Some(Err("a repository or reference must not begin with a dash".to_owned()));
    }
    let named = |url: String, protocol| Ok(Repository { url, protocol, reference });
    Some(match base.split_once("://") {
        Some(("https", _)) => named(base.to_owned(), "https"),
        Some(("file", _)) => named(base.to_owned(), "file"),
        None if Path::new(base).is_absolute() => named(format!("file://{base}"), "file"),
        _ => Err(format!(
            "{base}: use git+https://…, or git+ and the absolute path of a repository on this machine"
        )),
    })
}

/// Checks out what a location names, if it names a repository: the folder goes when this is dropped.
pub async fn checkout(
    location: &str,
    path: Option<String>,
) -> Option<Result<tempfile::TempDir, String>> {
    Some(match repository(location)? {
        Ok(repository) => clone(&repository, path).await,
        Err(reason) => Err(reason),
    })
}

async fn clone(
    Repository { url, protocol, reference }: &Repository,
    path: Option<String>,
) -> Result<tempfile::TempDir, String> {
    let failed = |error: std::io::Error| format!("no folder for the checkout: {error}");
    let folder = tempfile::tempdir().map_err(failed)?;
    let home = tempfile::tempdir().map_err(failed)?;
    let mut command = Command::new("git");
    for setting in [
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "credential.helper=",
        "filter.lfs.smudge=",
        "filter.lfs.process=",
        "filter.lfs.required=false",
        "http.followRedirects=false",
        "protocol.allow=never",
        "submodule.recurse=false",
    ] {
        command.args(["-c", setting]);
    }
    command.args(["-c", &format!("protocol.{protocol}.allow=always")]);
    command.args(["clone", "--quiet", "--depth", "1", "--single-branch", "--no-tags"]);
    command.args(["--no-recurse-submodules", "--template="]);
    if let Some(reference) = reference {
        command.args(["--branch", reference]);
    }
    command
        .args(["--", url.as_str()])
        .arg(folder.path().join("tree"))
        .env_clear()
        .envs(path.map(|path| ("PATH", path)))
        .env("HOME", home.path())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_LFS_SKIP_SMUDGE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    let child = command
        .spawn()
        .map_err(|error| format!("git can't be started, which checks out the source: {error}"))?;
    watch(child, folder.path()).await?;
    Ok(folder)
}

/// Waits for git, and ends it with its helpers when it takes too long or too much room.
async fn watch(mut child: tokio::process::Child, folder: &Path) -> Result<(), String> {
    use tokio::io::AsyncReadExt as _;
    let started = Instant::now();
    let stderr = child.stderr.take();
    let said = async {
        let mut text = Vec::new();
        if let Some(stderr) = stderr {
            // What can't be read of a complaint does not matter.
            stderr.take(16 * 1024).read_to_end(&mut text).await.map_or_else(drop, drop);
        }
        text
    };
    tokio::pin!(said);
    let mut text = None;
    let reason = loop {
        tokio::select! {
            read = &mut said, if text.is_none() => text = Some(read),
            () = tokio::time::sleep(WATCH) => {}
        }
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(_)) => {
                let text = text.unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                let text = evo_common::redact::redact(text.trim());
                return Err(format!("git: {}", text.chars().take(MAX_SAID).collect::<String>()));
            }
            Ok(None) => {}
            Err(error) => break format!("git: {error}"),
        }
        if started.elapsed() > CHECKOUT_TIME {
            break format!("the checkout takes longer than {} s", CHECKOUT_TIME.as_secs());
        }
        if size(folder) > MAX_CHECKOUT {
            break format!("the checkout has more than {MAX_CHECKOUT} bytes");
        }
    };
    end(&mut child);
    Err(reason)
}

#[cfg(unix)]
fn end(child: &mut tokio::process::Child) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(nix::unistd::Pid::from_raw);
    let killed =
        group.map(|group| nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL));
    if let Some(Err(error)) = killed {
        tracing::debug!(%error, "git can't be ended: {error}");
    }
}

#[cfg(not(unix))]
fn end(child: &mut tokio::process::Child) {
    if let Err(error) = child.start_kill() {
        tracing::debug!(%error, "git can't be ended: {error}");
    }
}

/// Bytes of all files; what is gone in the meantime counts nothing.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => size(&entry.path()),
            Ok(_) => entry.metadata().map_or(0, |metadata| metadata.len()),
            Err(_) => 0,
        })
        .sum()
}

/// Where the tree of a checkout is.
pub fn tree_of(checkout: &tempfile::TempDir) -> std::path::PathBuf {
    checkout.path().join("tree")
}
