//! Which agents there are.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Either of them makes a folder an agent's.
const MARKS: [&str; 2] = ["soul.md", "agent.toml"];
/// How a folder's own program begins, as the original has it.
const OWN_PROGRAM: &str = "evo-agent-";

/// The agents' folders below this one, in the order of their names.
pub(super) fn find(below: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders: Vec<PathBuf> = fs::read_dir(below)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let hidden =
                path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
            !hidden && MARKS.iter().any(|mark| path.join(mark).is_file())
        })
        .collect();
    folders.sort();
    Ok(folders)
}

/// Whether one of an agent's files says which role it has; the runner reads them for real.
pub(super) fn names_a_role(folder: &Path) -> bool {
    let [soul, configuration] = MARKS.map(|mark| fs::read_to_string(folder.join(mark)));
    let in_soul = soul.is_ok_and(|text| {
        let mut lines = text.lines().map(str::trim);
        let heading = |line: &str| line.to_ascii_lowercase().starts_with("## role");
        lines.any(heading)
            && lines.find(|line| !line.is_empty()).is_some_and(|line| !line.starts_with("## "))
    });
    let in_configuration = configuration.is_ok_and(|text| {
        text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("role"))
    });
    in_soul || in_configuration
}

/// What runs an agent: its folder's own program, else the runner with the folder's path.
pub(super) fn command(folder: &Path, runner: Option<&[OsString]>) -> Option<Vec<OsString>> {
    if let Some(own) = own_program(folder) {
        return Some(vec![own.into()]);
    }
    let mut command = runner?.to_vec();
    command.push(folder.into());
    Some(command)
}

fn own_program(folder: &Path) -> Option<PathBuf> {
    let mut programs: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(OWN_PROGRAM))
                && path
                    .metadata()
                    .is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
        })
        .collect();
    programs.sort();
    programs.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_with_a_soul_or_a_configuration_are_agents() {
        let below = tempfile::tempdir().unwrap();
        let make = |name: &str, file: &str| {
            let folder = below.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(file), "x").unwrap();
            folder
        };
        let kernel = make("evo-kernel-agent-learning", "soul.md");
        let user = make("user", "agent.toml");
        make("docs", "README.md");
        make(".git", "soul.md");
        fs::write(below.path().join("soul.md"), "x").unwrap();
        assert_eq!(find(below.path()).unwrap(), [kernel.clone(), user.clone()]);
        assert!(!names_a_role(&kernel) && !names_a_role(&user));
        fs::write(kernel.join("soul.md"), "# A\n## Role\n\nlearning\n").unwrap();
        fs::write(user.join("agent.toml"), "role = \"user\"\n").unwrap();
        assert!(names_a_role(&kernel) && names_a_role(&user));

        let runner = [OsString::from("/bin/evo"), "runner".into()];
        let expected = [runner[0].clone(), runner[1].clone(), user.clone().into()];
        assert_eq!(command(&user, Some(&runner)).unwrap(), expected);
        assert_eq!(command(&user, None), None);
        // A program that can't be executed is none.
        let own = kernel.join("evo-agent-learning");
        fs::write(&own, "x").unwrap();
        assert_eq!(command(&kernel, None), None);
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(command(&kernel, Some(&runner)).unwrap(), [OsString::from(own)]);
    }
}
