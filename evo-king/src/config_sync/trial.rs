//! A gateway that is started to see whether it runs with a configuration.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read as _, Seek as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use evo_common::{
    config::{GatewayConfig, load::Format},
    redact::redact,
    tokens::Tokens,
};
use serde_json::Value;
use tokio::time::Instant;

use super::{files::Text, live::Live};
use crate::child::{self, Child, Launcher, Program};

/// How long a test gateway may take until it listens.
const START: Duration = Duration::from_secs(15);
/// How long the checks may take then. Lists of models take at most five seconds.
const CHECKS: Duration = Duration::from_secs(12);
/// How long it may take to end.
const END: Duration = Duration::from_secs(2);
/// How often it is looked whether it listens.
const LOOK: Duration = Duration::from_millis(20);
/// How much of what it says is told.
const SAID: u64 = 1_500;
/// How the folders of test gateways begin.
const FOLDER: &str = "gateway-test-";

/// How test gateways are started.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    pub(super) launcher: Launcher,
    /// The gateway's executable with its first arguments.
    pub(super) command: Vec<OsString>,
    /// Gives a variable of king's environment: providers' keys.
    pub(super) environment: fn(&str) -> Option<String>,
    /// King's data folder.
    pub(super) data: PathBuf,
    /// Where programs are found.
    pub(super) path: OsString,
}

/// Why a configuration does not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Stable code.
    pub(super) code: &'static str,
    /// For people.
    pub(super) message: String,
}

/// A folder that is removed with everything in it.
struct Scratch(PathBuf);

impl Scratch {
    fn make(data: &Path) -> io::Result<Self> {
        let path = data.join(format!("{FOLDER}{:08x}", rand::random::<u32>()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "{} can't be removed: {error}", self.0.display());
        }
    }
}

/// What a king that was killed left behind.
pub(super) fn leftovers(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(FOLDER));
    ours.map(|entry| entry.path()).collect()
}

/// Removes what a king that was killed left behind.
pub(super) fn clean_up(data: &Path) {
    leftovers(data).into_iter().map(Scratch).for_each(drop);
}

impl Trial {
    /// Starts a gateway with this configuration on a free port, asks it whether it is well, and ends
    /// it. Gives what is not as it should be but keeps nobody from using it.
    pub(super) async fn run(
        &self,
        text: &Text,
        format: Format,
        gateway: &GatewayConfig,
    ) -> Result<Vec<String>, Failure> {
        let no_start = |error: io::Error| Failure {
            code: "test_gateway_not_started",
            message: format!("no gateway could be started to test it: {error}"),
        };
        let scratch = Scratch::make(&self.data).map_err(no_start)?;
        let tokens = Tokens::generate();
        let output = scratch.0.join("output");
        let program = self.program(&scratch.0, text, format, gateway, &tokens);
        let program = program.map_err(no_start)?;
        let mut child = self.launcher.spawn(program).await.map_err(no_start)?;
        let checked = check(&mut child, &scratch.0, &output, &tokens).await;
        child::end(&mut child, END).await;
        checked
    }

    fn program(
        &self,
        folder: &Path,
        text: &Text,
        format: Format,
        gateway: &GatewayConfig,
        tokens: &Tokens,
    ) -> io::Result<Program> {
        let name = match format {
            Format::Toml => "gateway.toml",
            Format::Json => "gateway.json",
        };
        let file = folder.join(name);
        fs::write(&file, &text.text)?;
        let output = fs::File::create(folder.join("output"))?;
        let mut command = self.command.clone();
        for argument in ["--listen", "127.0.0.1:0", "--config"] {
            command.push(argument.into());
        }
        command.push(file.into());
        command.push("--data".into());
        command.push(folder.into());
        command.push("--address-file".into());
        command.push(folder.join("address").into());
        let mut environment: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), self.path.clone()),
            ("HOME".into(), folder.into()),
            ("EVO_LOG_DIR".into(), "off".into()),
            ("EVO_OTLP_ENDPOINT".into(), "off".into()),
            ("RUST_LOG".into(), "warn".into()),
            ("EVO_TOKEN_GATEWAY".into(), tokens.gateway.expose().into()),
        ];
        // As the gateway has them, where it runs with king's environment.
        let names = gateway.providers.iter().flat_map(|provider| &provider.api_key_envs);
        for name in names {
            if let Some(value) = (self.environment)(name) {
                environment.push((name.into(), value.into()));
            }
        }
        Ok(Program {
            command,
            environment,
            folder: folder.to_owned(),
            stdout: output.try_clone()?.into(),
            stderr: Stdio::from(output),
        })
    }
}

async fn check(
    child: &mut Child,
    folder: &Path,
    output: &Path,
    tokens: &Tokens,
) -> Result<Vec<String>, Failure> {
    let address = address(child, &folder.join("address"), output).await?;
    let sick = |what: &str, cause: String| Failure {
        code: "test_gateway_not_well",
        message: format!("a gateway with it started, but {what}: {cause}"),
    };
    let live = Live::new(&format!("http://{address}"), tokens)
        .map_err(|error| sick("could not be asked", error.to_string()))?;
    let checks = async {
        live.health().await.map_err(|error| sick("GET /health failed", error.to_string()))?;
        let models = live.models().await;
        models.map_err(|error| sick("GET /v1/models failed", error.to_string()))?;
        // Whether providers answer is no fault of the configuration.
        if let Err(error) = live.refresh_models().await {
            return Ok(vec![error.to_string()]);
        }
        let providers = live.providers().await;
        let providers =
            providers.map_err(|error| sick("GET /v1/providers failed", error.to_string()))?;
        Ok(warnings(&providers))
    };
    tokio::time::timeout(CHECKS, checks).await.unwrap_or_else(|_| {
        Err(sick("the checks did not end", format!("{} s went by", CHECKS.as_secs())))
    })
}

/// Where it listens.
async fn address(child: &mut Child, file: &Path, output: &Path) -> Result<String, Failure> {
    let started = Instant::now();
    loop {
        if let Ok(text) = fs::read_to_string(file) {
            return Ok(text.trim().to_owned());
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(Failure {
                code: "test_gateway_ended",
                message: format!("a gateway with it ended ({status}): {}", said(output)),
            });
        }
        if started.elapsed() > START {
            return Err(Failure {
                code: "test_gateway_not_started",
                message: format!(
                    "a gateway with it did not listen within {} s: {}",
                    START.as_secs(),
                    said(output)
                ),
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The end of what it said.
fn said(output: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = fs::File::open(output)?;
        let length = file.metadata()?.len();
        file.seek(io::SeekFrom::Start(length.saturating_sub(SAID)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    match read() {
        Ok(text) if text.is_empty() => "it said nothing".to_owned(),
        Ok(text) => redact(&text).into_owned(),
        Err(error) => format!("what it said can't be read: {error}"),
    }
}

/// Providers that could be called and do not answer.
fn warnings(providers: &Value) -> Vec<String> {
    let list = providers["providers"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .filter(|provider| provider["usable"] == true)
        .filter_map(|provider| {
            let error = provider["discovery_error"].as_str()?;
            let name = provider["name"].as_str()?;
            Some(redact(&format!("provider {name}: {error}")).into_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_providers_that_should_answer_are_warned_of() {
        let provider = |name: &str, usable: bool, error: Value| json!({"name": name, "usable": usable, "discovery_error": error});
        let providers = json!({"providers": [
            provider("well", true, Value::Null),
            provider("sick", true, "connection refused".into()),
            provider("off", false, "old".into()),
        ]});
        assert_eq!(warnings(&providers), ["provider sick: connection refused"]);
    }

    #[test]
    fn what_a_killed_king_left_behind_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let left = Scratch::make(folder.path()).unwrap();
        fs::write(left.0.join("gateway.toml"), "x").unwrap();
        std::mem::forget(left);
        fs::write(folder.path().join("king.db"), "x").unwrap();
        clean_up(folder.path());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
