//! The services' config loader: TOML or JSON, and every fault at once.
//!
//! Unknown keys are faults and name the nearest known key, except under a table named `extra` and
//! for keys that start with `x-`. A fault names its key path (`providers[2].api_key_env`), and its
//! line where the format tells it. Types that use `#[serde(flatten)]` or `#[serde(untagged)]` are
//! read as well, but unknown keys inside them stay unnoticed: serde hides their field names.
//!
//! ```
//! use evo_common::config::{GatewayConfig, load};
//!
//! let text = "[server]\nhost = \"127.0.0.1\"\nprot = 8080\n\nproviders = []\n";
//! let errors = load::parse::<GatewayConfig>(text, load::Format::Toml, "gateway.toml").unwrap_err();
//! assert!(errors.to_string().contains("did you mean `port`?"));
//! ```

mod strict;
mod tree;

use std::{fmt, path::Path};

use serde::de::DeserializeOwned;

use crate::redact::redact;

/// How a configuration is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON.
    Json,
}

impl Format {
    /// The format that a file's extension names.
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?;
        match extension.to_ascii_lowercase().as_str() {
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Key path, `providers[2].name`; empty when it is about the whole file.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
    /// Line and column, from 1, where they are known.
    pub position: Option<(usize, usize)>,
}

impl Fault {
    /// A fault of one key.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), position: None }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.position {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with one configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file, or another name for where the text comes from.
    pub origin: String,
    /// At least one fault, in the order of the file.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.faults.as_slice() {
            [fault] if fault.position.is_some() => write!(f, "{}, {fault}", self.origin),
            [fault] => write!(f, "{}: {fault}", self.origin),
            faults => {
                write!(f, "{} has {} faults:", self.origin, faults.len())?;
                faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
            }
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// What a type can't say by its fields alone.
pub trait Validate {
    /// Adds a fault for everything that is wrong.
    fn validate(&self, faults: &mut Vec<Fault>);
}

/// Reads a file whose extension names its format.
pub fn load_file<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigErrors> {
    let (text, format, origin) = read(path)?;
    parse(&text, format, &origin)
}

/// [`load_file`], and validates.
pub fn load_valid<T: DeserializeOwned + Validate>(path: &Path) -> Result<T, ConfigErrors> {
    let (text, format, origin) = read(path)?;
    parse_valid(&text, format, &origin)
}

/// Reads a text; `origin` names it in errors.
pub fn parse<T: DeserializeOwned>(
    text: &str,
    format: Format,
    origin: &str,
) -> Result<T, ConfigErrors> {
    check(text, format, origin, |_: &T, _| {})
}

/// [`parse`], and validates.
pub fn parse_valid<T: DeserializeOwned + Validate>(
    text: &str,
    format: Format,
    origin: &str,
) -> Result<T, ConfigErrors> {
    check(text, format, origin, T::validate)
}

/// The text of a file, its format by its extension, and its name for errors.
pub fn read(path: &Path) -> Result<(String, Format, String), ConfigErrors> {
    let origin = path.display().to_string();
    let wrong = |message: String| ConfigErrors {
        origin: origin.clone(),
        faults: vec![Fault::new("", message)],
    };
    let format = Format::of(path).ok_or_else(|| {
        wrong("its format is unknown: give it the extension .toml or .json".to_owned())
    })?;
    let bytes = std::fs::read(path).map_err(|error| {
        wrong(match error.kind() {
            std::io::ErrorKind::NotFound => {
                "the file does not exist: create it, or give the path of another one".to_owned()
            }
            std::io::ErrorKind::IsADirectory => {
                "this is a folder: give the path of a file in it".to_owned()
            }
            _ => format!(
                "the file can't be read ({error}): make it readable for the user that runs Evo"
            ),
        })
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        wrong(format!("byte {at} is not UTF-8: save the file as UTF-8"))
    })?;
    Ok((text, format, origin))
}

fn check<T: DeserializeOwned>(
    text: &str,
    format: Format,
    origin: &str,
    validate: impl FnOnce(&T, &mut Vec<Fault>),
) -> Result<T, ConfigErrors> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let errors = |mut faults: Vec<Fault>| {
        faults.sort_by_key(|fault| fault.position.unwrap_or((usize::MAX, 0)));
        for fault in &mut faults {
            fault.message = redact(&fault.message).into_owned();
        }
        Err(ConfigErrors { origin: origin.to_owned(), faults })
    };
    let tree = match tree::parse(text, format) {
        Ok(tree) => tree,
        Err(faults) => return errors(faults),
    };
    let mut found = strict::read::<T>(&tree, text);
    if let Some(value) = &found.value {
        let mut semantic = Vec::new();
        validate(value, &mut semantic);
        for mut fault in semantic {
            // A key that was left out because its type is wrong has its fault already.
            if found.faults.iter().any(|known| known.key == fault.key) {
                continue;
            }
            fault.position =
                fault.position.or_else(|| tree.find(&fault.key).map(|at| tree::position(text, at)));
            found.faults.push(fault);
        }
    }
    match found.value {
        Some(value) if found.faults.is_empty() => Ok(value),
        _ => errors(found.faults),
    }
}
