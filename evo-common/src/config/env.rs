//! The one place of this crate that reads the environment. Everything else takes a function
//! `Fn(&str) -> Option<String>`, so that tests need not change the process.

use std::str::FromStr;

/// A variable whose value can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {name}: {message}")]
pub struct EnvError {
    /// The variable.
    pub name: String,
    /// What is wrong with it and what to do.
    pub message: String,
}

/// The variable's value. Unset, empty and non-Unicode variables count as not set, which suits
/// switches and addresses; use [`read`] where a broken value must be reported.
pub fn get(name: &str) -> Option<String> {
    read(name).ok().flatten()
}

/// The variable's value; `None` when it is unset or empty.
pub fn read(name: &str) -> Result<Option<String>, EnvError> {
    #[expect(clippy::disallowed_methods, reason = "this is the config module")]
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(EnvError {
            name: name.to_owned(),
            message: "its value is not valid Unicode".to_owned(),
        }),
    }
}

/// Parses the value that `env` gives for `name`; the error names the variable and shows the value,
/// so this is not for secrets.
pub fn parse<T: FromStr>(
    env: &dyn Fn(&str) -> Option<String>,
    name: &str,
) -> Result<Option<T>, EnvError>
where
    T::Err: std::fmt::Display,
{
    let Some(value) = env(name).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    value.trim().parse().map(Some).map_err(|error: T::Err| EnvError {
        name: name.to_owned(),
        message: format!("{value:?} can't be used: {error}; correct it or unset it"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_variable() {
        let env = |name: &str| (name == "KING_PORT").then(|| "many".to_owned());
        let error = parse::<u16>(&env, "KING_PORT").unwrap_err();
        assert_eq!(
            error.to_string(),
            "environment variable KING_PORT: \"many\" can't be used: invalid digit found in string; \
             correct it or unset it"
        );
        assert_eq!(parse::<u16>(&env, "OTHER"), Ok(None));
        assert_eq!(parse::<u16>(&|_: &str| Some(" 80 ".to_owned()), "X"), Ok(Some(80)));
    }

    #[test]
    fn an_unset_variable_is_none() {
        assert_eq!(get("EVO_SURELY_NOT_SET_ANYWHERE"), None);
        assert_eq!(read("EVO_SURELY_NOT_SET_ANYWHERE"), Ok(None));
    }
}
