//! `evo gateway auth …`, also as `evo-gateway-cli auth …`: virtual keys.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use comfy_table::Table;
use serde::Serialize;

use super::{print, sign_in, write};
use crate::{
    Error,
    auth::keys::{self, KeyFile},
    config,
};

/// Virtual keys: one per caller, so that one can be taken back without the others.
#[derive(Debug, Clone, clap::Subcommand)]
#[command(
    after_help = "Examples:\n  evo gateway auth generate --name laptop\n  evo gateway auth list --json\n  evo gateway auth revoke --name laptop\n\n`generate` writes the key alone to standard output: KEY=$(evo gateway auth generate --name ci).\nA running gateway takes a new key at once, and refuses a revoked one within two seconds."
)]
pub enum Command {
    /// Make a key. It is shown once; the file keeps its digest only.
    #[command(after_help = "Example: evo gateway auth generate --name laptop")]
    Generate {
        /// Whose key it is.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// List the keys: name, first letters, date.
    #[command(after_help = "Example: evo gateway auth list --json")]
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Take a key back.
    #[command(after_help = "Example: evo gateway auth revoke --name laptop")]
    Revoke {
        /// Whose key it is.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Sign in to a provider.
    #[command(flatten)]
    SignIn(sign_in::Command),
}

/// Where the keys are.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// File of the keys [default: EVO_GATEWAY_AUTH_KEYS, else auth.json in the data folder].
    #[arg(long, value_name = "FILE")]
    pub keys_file: Option<PathBuf>,
    /// Data folder [default: EVO_HOME, else ~/.evo].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

impl Place {
    fn file(self) -> Result<PathBuf, Error> {
        Ok(config::keys_file_of(self.keys_file, self.data)?)
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    prefix: &'a str,
    created_at: String,
}

/// Does it and prints the result.
pub async fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::SignIn(command) => sign_in::run(command).await,
        Command::Generate { name, place } => {
            let file = place.file()?;
            generate(&file, &name, &mut io::stdout().lock(), &mut io::stderr().lock())
        }
        Command::List { json, place } => {
            let file = place.file()?;
            let keys = KeyFile::load(&file)?.keys;
            let listed: Vec<Listed<'_>> = keys
                .iter()
                .map(|key| Listed {
                    name: &key.name,
                    prefix: &key.prefix,
                    created_at: key.created_at.to_rfc3339(),
                })
                .collect();
            if json {
                let text = serde_json::to_string_pretty(&serde_json::json!({ "keys": listed }))
                    .expect("names and dates are plain data");
                return print(&format!("{text}\n"));
            }
            if listed.is_empty() {
                return print(&format!("{} holds no keys.\n", file.display()));
            }
            let mut table = Table::new();
            table.load_style(comfy_table::presets::NOTHING).set_header(["NAME", "KEY", "MADE"]);
            for key in listed {
                table.add_row([key.name, &format!("{}…", key.prefix), &key.created_at]);
            }
            print(&format!("{table}\n"))
        }
        Command::Revoke { name, place } => {
            let file = place.file()?;
            if keys::revoke(&file, &name)? {
                return print(&format!("The key {name:?} is revoked.\n"));
            }
            let message =
                format!("it has no key {name:?}; `evo gateway auth list` shows those it has");
            Err(Error::Keys { path: file, message })
        }
    }
}

/// The key alone goes to `out`, so that a shell can take it; what people should know goes to `notes`.
fn generate(
    file: &Path,
    name: &str,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), Error> {
    let key = keys::generate(file, name)?;
    write(out, &format!("{}\n", key.expose()))?;
    let note = format!(
        "This is the key {name:?}. It is shown this once; {} keeps its digest only.\n",
        file.display()
    );
    write(notes, &note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_gets_the_key_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("auth.json");
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        generate(&file, "ci", &mut out, &mut notes).unwrap();
        let (out, notes) = (String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap());
        let key = out.strip_suffix('\n').unwrap();
        assert!(key.starts_with("evo-") && key.len() == 52 && !key.contains('\n'), "{key}");
        assert!(!notes.contains(key), "{notes}");
        for part in ["\"ci\"", "this once", &*file.to_string_lossy()] {
            assert!(notes.contains(part), "{part}: {notes}");
        }
    }
}
