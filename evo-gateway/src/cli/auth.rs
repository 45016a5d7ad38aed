//! `evo gateway auth …`, also as `evo-gateway-cli auth …`: virtual keys.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use chrono::{DateTime, TimeDelta, Utc};
use comfy_table::Table;
use serde::Serialize;

use super::{print, sign_in, write};
use crate::{
    Error,
    auth::{
        keys::{self, KeyFile},
        rules::Rules,
    },
    config,
};

/// Virtual keys: one per caller, so that one can be taken back without the others.
#[derive(Debug, Clone, clap::Subcommand)]
#[command(
    after_help = "Examples:\n  evo gateway auth generate --name laptop\n  evo gateway auth list --json\n  evo gateway auth revoke --name laptop\n\n`generate` writes the key alone to standard output: KEY=$(evo gateway auth generate --name ci).\nA running gateway takes a new key at once, and refuses a revoked one within two seconds."
)]
pub enum Command {
    /// Make a key. It is shown once; the file keeps its digest only.
    #[command(
        after_help = "Examples:\n  evo gateway auth generate --name laptop\n  evo gateway auth generate --name ci --model 'openai:gpt-4o*' --rpm 60 --budget-day 5 --expires 30d"
    )]
    Generate {
        /// Whose key it is.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        place: Place,
    },
    /// List the keys: name, first letters, date, limits.
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

/// What a key may do; without any of these it may do everything.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Limits {
    /// Models that it may ask for, with * for any text; may be repeated.
    #[arg(long = "model", value_name = "PATTERN")]
    pub models: Vec<String>,
    /// Requests per minute.
    #[arg(long)]
    pub rpm: Option<u32>,
    /// Tokens per minute.
    #[arg(long)]
    pub tpm: Option<u64>,
    /// Requests at the same time.
    #[arg(long)]
    pub concurrency: Option<u32>,
    /// USD that it may spend in a day.
    #[arg(long, value_name = "USD")]
    pub budget_day: Option<f64>,
    /// USD that it may spend in a month.
    #[arg(long, value_name = "USD")]
    pub budget_month: Option<f64>,
    /// Hour (UTC) at which days of budgets begin.
    #[arg(long, value_name = "HOUR")]
    pub reset_hour: Option<u32>,
    /// Day (1 to 28) on which months of budgets begin.
    #[arg(long, value_name = "DAY")]
    pub reset_day: Option<u32>,
    /// When it ends: a time such as 2027-01-31T00:00:00Z, or from now on in minutes, hours or days
    /// such as 90m, 12h or 30d.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub expires: Option<DateTime<Utc>>,
    /// A word that its usage can be grouped by; may be repeated.
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
}

impl Limits {
    fn rules(self) -> Rules {
        Rules {
            models: self.models,
            rpm: self.rpm,
            tpm: self.tpm,
            concurrency: self.concurrency,
            budget_usd_per_day: self.budget_day,
            budget_usd_per_month: self.budget_month,
            reset_hour: self.reset_hour,
            reset_day: self.reset_day,
            expires_at: self.expires,
            tags: self.tags,
        }
    }
}

/// A time, or how long it is until then.
fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    let span = || {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let number: i64 = number.parse().ok()?;
        match unit {
            "m" => TimeDelta::try_minutes(number),
            "h" => TimeDelta::try_hours(number),
            "d" => TimeDelta::try_days(number),
            _ => None,
        }
    };
    if let Some(span) = span() {
        return Utc::now().checked_add_signed(span).ok_or_else(|| "it is too far away".to_owned());
    }
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.to_utc())
        .map_err(|_| "use a time such as 2027-01-31T00:00:00Z, or 90m, 12h, 30d".to_owned())
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
    #[serde(flatten)]
    rules: &'a Rules,
}

impl Listed<'_> {
    /// What it may do, in one cell.
    fn limits(&self) -> String {
        let Rules { rpm, tpm, concurrency, .. } = self.rules;
        let mut limits = Vec::new();
        limits.extend(rpm.map(|most| format!("{most} requests/min")));
        limits.extend(tpm.map(|most| format!("{most} tokens/min")));
        limits.extend(concurrency.map(|most| format!("{most} at once")));
        limits.extend(self.rules.budget_usd_per_day.map(|most| format!("{most} USD/day")));
        limits.extend(self.rules.budget_usd_per_month.map(|most| format!("{most} USD/month")));
        limits.join(", ")
    }
}

/// Does it and prints the result.
pub async fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::SignIn(command) => sign_in::run(command).await,
        Command::Generate { name, limits, place } => {
            let file = place.file()?;
            generate(
                &file,
                &name,
                limits.rules(),
                &mut io::stdout().lock(),
                &mut io::stderr().lock(),
            )
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
                    rules: &key.rules,
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
            let header = ["NAME", "KEY", "MADE", "EXPIRES", "MODELS", "LIMITS", "TAGS"];
            table.load_style(comfy_table::presets::NOTHING).set_header(header);
            for key in listed {
                table.add_row([
                    key.name,
                    &format!("{}…", key.prefix),
                    &key.created_at,
                    &key.rules.expires_at.map(|end| end.to_rfc3339()).unwrap_or_default(),
                    &key.rules.models.join(" "),
                    &key.limits(),
                    &key.rules.tags.join(" "),
                ]);
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
    rules: Rules,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), Error> {
    let key = keys::generate(file, name, rules)?;
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
        generate(&file, "ci", Rules::default(), &mut out, &mut notes).unwrap();
        let (out, notes) = (String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap());
        let key = out.strip_suffix('\n').unwrap();
        assert!(key.starts_with("evo-") && key.len() == 52 && !key.contains('\n'), "{key}");
        assert!(!notes.contains(key), "{notes}");
        for part in ["\"ci\"", "this once", &*file.to_string_lossy()] {
            assert!(notes.contains(part), "{part}: {notes}");
        }
    }

    #[test]
    fn moments_are_times_or_spans() {
        let fixed = moment("2027-01-31T02:00:00+02:00").unwrap();
        assert_eq!(fixed.to_rfc3339(), "2027-01-31T00:00:00+00:00");
        for (text, minutes) in [("90m", 90), ("12h", 720), ("30d", 43_200)] {
            let left = moment(text).unwrap() - Utc::now();
            assert!((left - TimeDelta::minutes(minutes)).abs() < TimeDelta::minutes(1), "{text}");
        }
        for text in ["", "d", "30", "tomorrow", "30w", "9223372036854775807d"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
