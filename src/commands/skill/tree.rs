//! `evo skill export` and `evo skill import`.

use std::{fs, io::Write as _, path::Path};

use anyhow::Context as _;
use evo_common::{
    artifact::Files,
    skill::files::SKILL_MD,
    tree::{self, Writer},
};
use serde_json::json;

use crate::{
    cli::{ExportArgs, ImportArgs},
    commands::session::Session,
    report::{print, print_json},
    stop::{Result, Stop},
    up::Runners,
};

/// Writes the skills in use into a folder that is empty or not there yet.
pub(super) async fn export(args: ExportArgs) -> Result<()> {
    let folder = &args.folder;
    let is_free = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if !is_free {
        let shown = folder.display();
        return Err(Stop::usage(format!(
            "{shown} is not empty; name a folder that is, or a new one"
        )));
    }
    let session = Box::pin(Session::open(&args.data, Runners::None)).await?;
    let archive = session.client.export(args.bundle.as_deref().unwrap_or_default()).await;
    session.close().await;
    let archive = archive.context("exporting the skills")?;
    let files = tree::read(&archive).context("reading what king sent")?;
    // A bundle is one skill, with a page about each that it holds.
    let is_skill = |path: &&String| match args.bundle {
        Some(_) => path.contains("/references/"),
        None => path.ends_with(&format!("/{SKILL_MD}")),
    };
    let skills = files.keys().filter(is_skill).count();
    write(folder, &files).with_context(|| format!("writing {}", folder.display()))?;
    if args.format.json {
        return print_json(&json!({"skills": skills, "files": files.len(), "folder": folder}));
    }
    print(&format!("{skills} skills in {}\n", folder.display()))
}

fn write(folder: &Path, files: &Files) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    for (path, content) in files {
        // Every path is plain and relative: the archive was read so.
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::File::create_new(path)?.write_all(content)?;
    }
    Ok(())
}

/// Brings skills to king as candidates.
pub(super) async fn import(args: ImportArgs) -> Result<()> {
    let archive = packed(&args.from)?;
    let session = Box::pin(Session::open(&args.data, Runners::None)).await?;
    let imported = session.client.import(archive).await;
    session.close().await;
    let imported = imported.context("importing the skills")?;
    if args.format.json {
        return print_json(&imported);
    }
    print(&format!(
        "{} skills are candidates of {}, {} of them have a way to go.\nSee what becomes of them: evo runs show {}\n",
        imported.count, imported.run_id, imported.open, imported.run_id
    ))
}

/// The archive of a folder, or the file as it is.
fn packed(from: &Path) -> Result<Vec<u8>> {
    let shown = from.display();
    let failed = |error: &dyn std::fmt::Display| Stop::usage(format!("{shown}: {error}"));
    let about = fs::metadata(from).map_err(|error| failed(&error))?;
    if about.is_file() {
        if about.len() > tree::MAX_ARCHIVE_BYTES as u64 {
            return Err(failed(&tree::Error::TooLarge));
        }
        let content = fs::read(from).map_err(|error| failed(&error))?;
        let is_skill = from.file_name().is_some_and(|name| name == SKILL_MD);
        if !is_skill {
            tree::read(&content).map_err(|error| failed(&error))?;
            return Ok(content);
        }
        return pack(&[(SKILL_MD.to_owned(), content)].into()).map_err(|error| failed(&error));
    }
    let (mut files, mut bytes) = (Files::new(), 0);
    collect(from, "", &mut files, &mut bytes).map_err(|error| failed(&error))?;
    // King would say the same, later.
    tree::skills(files.clone()).map_err(|error| failed(&error))?;
    pack(&files).map_err(|error| failed(&error))
}

fn pack(files: &Files) -> Result<Vec<u8>, tree::Error> {
    let mut writer = Writer::default();
    writer.add("", files)?;
    writer.finish()
}

/// Every plain file below a folder. Links and hidden entries are left out: a link may lead anywhere.
fn collect(
    folder: &Path,
    prefix: &str,
    files: &mut Files,
    bytes: &mut u64,
) -> Result<(), tree::Error> {
    let mut entries = fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), &path, files, bytes)?;
        } else if kind.is_file() {
            *bytes += entry.metadata()?.len();
            if *bytes > tree::MAX_BYTES || files.len() >= tree::MAX_ENTRIES {
                return Err(tree::Error::TooLarge);
            }
            files.insert(path, fs::read(entry.path())?);
        }
    }
    Ok(())
}
