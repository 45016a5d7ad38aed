//! `evo gateway service …`: the gateway as a service of its user, kept running by systemd or launchd.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Command as Process,
};

use super::print;
use crate::{Error, config};

/// The unit's name.
const UNIT: &str = "evo-gateway.service";
/// What launchd calls it.
const LABEL: &str = "ai.evo-agents.gateway";
/// How long it may take to stop. It ends by itself after `drain_ms`, and must not be killed before.
const STOP_SECONDS: u32 = 330;

/// The gateway as a service of its user.
#[derive(Debug, Clone, clap::Subcommand)]
#[command(
    after_help = "The service runs `evo gateway` with the data folder that is given here. Keys of providers go into\nDATA/gateway.env as NAME=value lines; only its owner should be able to read that file.\n\nExamples:\n  evo gateway service install\n  evo gateway service status"
)]
pub enum Command {
    /// Write the service's file, and start it now and at each login.
    #[command(after_help = "Example: evo gateway service install --data ~/.evo")]
    Install {
        /// Data folder [default: EVO_HOME, else ~/.evo].
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// gateway.toml or gateway.json [default: as without a service].
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Say whether it runs.
    #[command(after_help = "Example: evo gateway service status")]
    Status,
    /// Start it.
    #[command(after_help = "Example: evo gateway service start")]
    Start,
    /// Stop it until the next login or start.
    #[command(after_help = "Example: evo gateway service stop")]
    Stop,
    /// Stop and start it.
    #[command(after_help = "Example: evo gateway service restart")]
    Restart,
    /// Stop it and remove its file.
    #[command(after_help = "Example: evo gateway service uninstall")]
    Uninstall,
}

/// Who keeps services running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Systemd,
    Launchd,
}

/// What is done with the service's manager.
trait Control {
    /// Runs a program of the system to its end; what it prints is shown.
    fn run(&mut self, program: &str, arguments: &[&str]) -> io::Result<bool>;
}

/// This machine.
struct Machine;

impl Control for Machine {
    fn run(&mut self, program: &str, arguments: &[&str]) -> io::Result<bool> {
        Ok(Process::new(program).args(arguments).status()?.success())
    }
}

/// Where things are.
struct Place {
    manager: Manager,
    home: PathBuf,
    user: u32,
}

/// What the service runs.
struct Service {
    /// The program and its arguments.
    command: Vec<OsString>,
    /// The file with its variables, which need not be there.
    variables: PathBuf,
}

/// Does it.
pub(super) fn run(command: Command) -> Result<(), Error> {
    let manager = if cfg!(target_os = "macos") { Manager::Launchd } else { Manager::Systemd };
    let home = config::home().ok_or_else(|| failed("HOME is not set"))?;
    let place = Place { manager, home, user: nix::unistd::getuid().as_raw() };
    let said = place.execute(command, &mut Machine)?;
    print(&said)
}

fn failed(message: impl Into<String>) -> Error {
    Error::Service(message.into())
}

impl Place {
    fn execute(&self, command: Command, control: &mut dyn Control) -> Result<String, Error> {
        match command {
            Command::Install { data, config } => {
                let service = service(data, config)?;
                self.install(&service, control)
            }
            Command::Status => {
                let target = self.target();
                match self.manager {
                    Manager::Systemd => {
                        self.ask(control, &["status", "--no-pager", UNIT], "does not run")
                    }
                    Manager::Launchd => self.ask(control, &["print", &target], "does not run"),
                }
                .map(|()| String::new())
            }
            Command::Start => self.change(control, "start", &["kickstart", &self.target()]),
            Command::Stop => self.change(control, "stop", &["kill", "SIGTERM", &self.target()]),
            Command::Restart => {
                self.change(control, "restart", &["kickstart", "-k", &self.target()])
            }
            Command::Uninstall => self.uninstall(control),
        }
    }

    /// The file that describes the service.
    fn file(&self) -> PathBuf {
        match self.manager {
            Manager::Systemd => self.home.join(".config/systemd/user").join(UNIT),
            Manager::Launchd => {
                self.home.join("Library/LaunchAgents").join(format!("{LABEL}.plist"))
            }
        }
    }

    fn domain(&self) -> String {
        format!("gui/{}", self.user)
    }

    fn target(&self) -> String {
        format!("{}/{LABEL}", self.domain())
    }

    /// Runs the manager's program.
    fn ask(&self, control: &mut dyn Control, arguments: &[&str], else_: &str) -> Result<(), Error> {
        let (program, first): (_, &[&str]) = match self.manager {
            Manager::Systemd => ("systemctl", &["--user"]),
            Manager::Launchd => ("launchctl", &[]),
        };
        let arguments = [first, arguments].concat();
        match control.run(program, &arguments) {
            Ok(true) => Ok(()),
            Ok(false) => Err(failed(format!("the service {else_}"))),
            Err(error) => Err(failed(format!("`{program}` can't be run: {error}"))),
        }
    }

    fn install(&self, service: &Service, control: &mut dyn Control) -> Result<String, Error> {
        let file = self.file();
        let text = match self.manager {
            Manager::Systemd => service.unit()?,
            Manager::Launchd => service.plist()?,
        };
        let write = || {
            fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))?;
            fs::write(&file, text)
        };
        write().map_err(|error| failed(format!("{} can't be written: {error}", file.display())))?;
        let did_not_start = "was written and did not start; `evo gateway service status` says more";
        match self.manager {
            Manager::Systemd => {
                self.ask(control, &["daemon-reload"], "was written, but systemd did not read it")?;
                self.ask(control, &["enable", UNIT], "was written, but can't be enabled")?;
                // Also when an older one runs.
                self.ask(control, &["restart", UNIT], did_not_start)?;
            }
            Manager::Launchd => {
                // An older one, if there is any, makes place.
                if let Err(error) = self.ask(control, &["bootout", &self.target()], "was not there")
                {
                    tracing::debug!(%error, "No older service: {error}");
                }
                let file = file.to_string_lossy();
                self.ask(control, &["bootstrap", &self.domain(), &file], did_not_start)?;
            }
        }
        Ok(format!(
            "The gateway runs as a service, described by {}. Keys of providers go into {}.\n",
            file.display(),
            service.variables.display()
        ))
    }

    fn change(
        &self,
        control: &mut dyn Control,
        verb: &str,
        launchd: &[&str],
    ) -> Result<String, Error> {
        self.must_be_installed()?;
        let did_not = format!("did not {verb}; `evo gateway service status` says more");
        match self.manager {
            Manager::Systemd => self.ask(control, &[verb, UNIT], &did_not)?,
            Manager::Launchd => self.ask(control, launchd, &did_not)?,
        }
        let done = match verb {
            "start" => "started",
            "stop" => "stopped",
            _ => "restarted",
        };
        Ok(format!("The service is {done}.\n"))
    }

    fn uninstall(&self, control: &mut dyn Control) -> Result<String, Error> {
        self.must_be_installed()?;
        let still = "can't be stopped, so its file stays";
        match self.manager {
            Manager::Systemd => self.ask(control, &["disable", "--now", UNIT], still)?,
            Manager::Launchd => self.ask(control, &["bootout", &self.target()], still)?,
        }
        let file = self.file();
        fs::remove_file(&file)
            .map_err(|error| failed(format!("{} can't be removed: {error}", file.display())))?;
        if self.manager == Manager::Systemd {
            self.ask(control, &["daemon-reload"], "is gone, but systemd did not notice")?;
        }
        Ok("The service is gone. The data folder stays as it is.\n".to_owned())
    }

    fn must_be_installed(&self) -> Result<(), Error> {
        let file = self.file();
        if file.exists() {
            return Ok(());
        }
        Err(failed(format!(
            "there is no service: {} does not exist; `evo gateway service install` makes it",
            file.display()
        )))
    }
}

/// What the service is to run.
fn service(data: Option<PathBuf>, config: Option<PathBuf>) -> Result<Service, Error> {
    let whole = |path: PathBuf| {
        std::path::absolute(&path).map_err(|error| failed(format!("{}: {error}", path.display())))
    };
    let data = config::data_folder_of(data).ok_or_else(|| failed("HOME is not set"))?;
    let data = whole(data)?;
    let mut command = config::own_command().map_err(|error| failed(error.to_string()))?;
    command.extend(["--data".into(), data.clone().into()]);
    if let Some(config) = config {
        command.extend(["--config".into(), whole(config)?.into()]);
    }
    Ok(Service { command, variables: data.join("gateway.env") })
}

impl Service {
    fn texts(&self) -> Result<(Vec<&str>, &str), Error> {
        let text = |part: &'_ OsString| part.to_str().map(str::len);
        if self.command.iter().any(|part| text(part).is_none()) {
            return Err(failed("a path is not Unicode, and can't stand in the service's file"));
        }
        let command: Vec<&str> = self.command.iter().filter_map(|part| part.to_str()).collect();
        let variables = self.variables.to_str().unwrap_or_default();
        if command.iter().any(|part| part.contains(['\n', '\r'])) {
            return Err(failed("a path has a line break, and can't stand in the service's file"));
        }
        Ok((command, variables))
    }

    fn unit(&self) -> Result<String, Error> {
        let (command, variables) = self.texts()?;
        let command: Vec<String> = command.into_iter().map(quoted).collect();
        Ok(format!(
            "[Unit]\n\
             Description=Evo gateway, the LLM proxy\n\
             \n\
             [Service]\n\
             ExecStart={}\n\
             EnvironmentFile=-{}\n\
             Restart=on-failure\n\
             RestartSec=2\n\
             TimeoutStopSec={STOP_SECONDS}\n\
             NoNewPrivileges=true\n\
             UMask=0077\n\
             \n\
             [Install]\n\
             WantedBy=default.target\n",
            command.join(" "),
            variables.replace('%', "%%")
        ))
    }

    fn plist(&self) -> Result<String, Error> {
        let (command, variables) = self.texts()?;
        // launchd reads no file of variables. The shell gets it, and the command, as arguments.
        let script = "set -a; [ ! -f \"$0\" ] || . \"$0\"; exec \"$@\"";
        let parts = ["/bin/sh", "-c", script, variables].into_iter().chain(command);
        let parts = parts.fold(String::new(), |list, part| {
            list + "    <string>" + &escaped(part) + "</string>\n"
        });
        Ok(format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
             \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
             <plist version=\"1.0\">\n\
             <dict>\n\
             \x20 <key>Label</key>\n\
             \x20 <string>{LABEL}</string>\n\
             \x20 <key>ProgramArguments</key>\n\
             \x20 <array>\n\
             {parts}\
             \x20 </array>\n\
             \x20 <key>RunAtLoad</key>\n\
             \x20 <true/>\n\
             \x20 <key>KeepAlive</key>\n\
             \x20 <dict>\n\
             \x20   <key>SuccessfulExit</key>\n\
             \x20   <false/>\n\
             \x20 </dict>\n\
             \x20 <key>ExitTimeOut</key>\n\
             \x20 <integer>{STOP_SECONDS}</integer>\n\
             \x20 <key>Umask</key>\n\
             \x20 <integer>63</integer>\n\
             </dict>\n\
             </plist>\n"
        ))
    }
}

/// As systemd reads it as one word.
fn quoted(word: &str) -> String {
    let mut text = String::from('"');
    for letter in word.chars() {
        match letter {
            '"' | '\\' => text.extend(['\\', letter]),
            '%' => text.push_str("%%"),
            '$' => text.push_str("$$"),
            letter => text.push(letter),
        }
    }
    text.push('"');
    text
}

/// As XML reads it as text.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes down what is run; every call but those that hold `fails` succeeds.
    struct Recorder {
        calls: Vec<String>,
        fails: &'static str,
    }

    impl Control for Recorder {
        fn run(&mut self, program: &str, arguments: &[&str]) -> io::Result<bool> {
            let call = format!("{program} {}", arguments.join(" "));
            let fails = !self.fails.is_empty() && call.contains(self.fails);
            self.calls.push(call);
            Ok(!fails)
        }
    }

    fn service() -> Service {
        Service {
            command: ["/opt/a b/evo", "gateway", "--data", "/home/me/$x%\"&<"]
                .map(Into::into)
                .into(),
            variables: "/home/me/100%/gateway.env".into(),
        }
    }

    fn place(manager: Manager) -> (tempfile::TempDir, Place) {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_owned();
        (folder, Place { manager, home, user: 501 })
    }

    #[test]
    fn systemd_gets_a_unit_in_which_every_path_is_one_word() {
        let (_folder, place) = place(Manager::Systemd);
        let mut control = Recorder { calls: Vec::new(), fails: "" };
        let said = place.install(&service(), &mut control).unwrap();
        assert!(said.contains(UNIT) && said.contains("gateway.env"), "{said}");
        let unit = fs::read_to_string(place.home.join(".config/systemd/user/evo-gateway.service"));
        let unit = unit.unwrap();
        let start = r#"ExecStart="/opt/a b/evo" "gateway" "--data" "/home/me/$$x%%\"&<""#;
        assert!(unit.contains(&format!("{start}\n")), "{unit}");
        assert!(unit.contains("EnvironmentFile=-/home/me/100%%/gateway.env\n"), "{unit}");
        // Longer than answers in hand are likely to be given.
        assert!(unit.contains("TimeoutStopSec=330\n"), "{unit}");
        for command in [Command::Stop, Command::Start, Command::Restart, Command::Uninstall] {
            place.execute(command, &mut control).unwrap();
        }
        assert!(!place.file().exists());
        assert_eq!(
            control.calls,
            [
                "systemctl --user daemon-reload",
                "systemctl --user enable evo-gateway.service",
                "systemctl --user restart evo-gateway.service",
                "systemctl --user stop evo-gateway.service",
                "systemctl --user start evo-gateway.service",
                "systemctl --user restart evo-gateway.service",
                "systemctl --user disable --now evo-gateway.service",
                "systemctl --user daemon-reload",
            ]
        );
    }

    #[test]
    fn launchd_gets_a_plist() {
        let (_folder, place) = place(Manager::Launchd);
        let mut control = Recorder { calls: Vec::new(), fails: "bootout" };
        place.install(&service(), &mut control).unwrap();
        let file = place.home.join("Library/LaunchAgents/ai.evo-agents.gateway.plist");
        let plist = fs::read_to_string(&file).unwrap();
        assert!(plist.contains("    <string>/home/me/$x%\"&amp;&lt;</string>\n"), "{plist}");
        assert!(plist.contains("    <string>/home/me/100%/gateway.env</string>\n"), "{plist}");
        assert!(plist.contains("<key>ExitTimeOut</key>\n  <integer>330</integer>\n"), "{plist}");
        place.execute(Command::Restart, &mut control).unwrap();
        let error = place.execute(Command::Uninstall, &mut control).unwrap_err().to_string();
        assert!(error.contains("its file stays") && file.exists(), "{error}");
        assert_eq!(
            control.calls,
            [
                "launchctl bootout gui/501/ai.evo-agents.gateway".to_owned(),
                format!("launchctl bootstrap gui/501 {}", file.display()),
                "launchctl kickstart -k gui/501/ai.evo-agents.gateway".to_owned(),
                "launchctl bootout gui/501/ai.evo-agents.gateway".to_owned(),
            ]
        );
    }

    #[test]
    fn what_fails_is_said_with_what_to_do() {
        let (_folder, place) = place(Manager::Systemd);
        let mut control = Recorder { calls: Vec::new(), fails: "restart" };
        let error = place.execute(Command::Start, &mut control).unwrap_err().to_string();
        assert!(error.contains("service install"), "{error}");
        let error = place.install(&service(), &mut control).unwrap_err().to_string();
        assert!(error.contains("did not start"), "{error}");
    }
}
