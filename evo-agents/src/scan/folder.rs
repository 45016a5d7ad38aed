//! Reads a folder to scan: bounded, and without following links.

use std::{fs, io::Read as _, path::Path};

use evo_common::{
    artifact::Files,
    stage::{
        Finding,
        Severity::{self, High, Warning},
    },
};

/// Most files of one folder.
const MAX_FILES: usize = 2_000;
/// Most bytes of one folder.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Deepest folder inside of it.
const MAX_DEPTH: usize = 16;

/// A folder's files, and what is wrong with the folder itself.
#[derive(Debug, Default)]
pub struct Tree {
    /// Path inside the folder → content; of a large file its start.
    pub files: Files,
    /// Links and what was not read.
    pub findings: Vec<Finding>,
}

/// Reads a folder. Links are named and not followed; folders of version control are left out.
pub fn read_tree(folder: &Path) -> std::io::Result<Tree> {
    let mut tree = Tree::default();
    let root = folder.canonicalize()?;
    let mut bytes = 0;
    read(&root, &root, "", 0, &mut tree, &mut bytes)?;
    Ok(tree)
}

fn read(
    root: &Path,
    folder: &Path,
    prefix: &str,
    depth: usize,
    tree: &mut Tree,
    bytes: &mut u64,
) -> std::io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        let mut say = |code: &str, severity: Severity, message: &str| {
            tree.findings.push(Finding {
                code: code.to_owned(),
                severity,
                file: path.clone(),
                line: None,
                message: message.to_owned(),
            });
        };
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            let target = fs::read_link(entry.path())?;
            let inside = entry.path().canonicalize().is_ok_and(|target| target.starts_with(root));
            if inside && !target.is_absolute() {
                say("link", Warning, "it is a link, which is not followed");
            } else {
                say("link", High, "it is a link that leads out of the package");
            }
        } else if kind.is_dir() {
            if [".git", ".hg", ".svn"].contains(&name.as_str()) {
                continue;
            }
            if depth >= MAX_DEPTH {
                say("partly_scanned", Warning, "it lies too deep to be read");
                continue;
            }
            read(root, &entry.path(), &path, depth + 1, tree, bytes)?;
        } else if kind.is_file() {
            if tree.files.len() >= MAX_FILES || *bytes >= MAX_BYTES {
                say("partly_scanned", Warning, "the package has too many files to read them all");
                return Ok(());
            }
            let mut content = Vec::new();
            // One byte more than is scanned shows that there is more.
            let limit = super::MAX_SCANNED as u64 + 1;
            fs::File::open(entry.path())?.take(limit).read_to_end(&mut content)?;
            *bytes += content.len() as u64;
            tree.files.insert(path, content);
        } else {
            say("link", High, "it is neither a file nor a folder");
        }
    }
    Ok(())
}
