//! Structured logging: JSON lines in a daily file, plain text on the console.
//!
//! ```no_run
//! use evo_common::logging;
//!
//! fn main() {
//!     // Hold the guard for the process lifetime to ensure log flushing
//!     let _guard = logging::init_logging("my-component");
//!
//!     tracing::info!("Component started");
//!     // ...
//! }
//! ```
//!
//! With the feature `tracing-otel`, spans go to an OTLP receiver as well:
//!
#![cfg_attr(feature = "tracing-otel", doc = "```no_run")]
#![cfg_attr(not(feature = "tracing-otel"), doc = "```ignore")]
//! use evo_common::logging;
//!
//! fn main() {
//!     // Both guards must be held for the process lifetime
//!     let (_log_guard, _otel_guard) = logging::init_logging_with_otel(
//!         "my-component",
//!         "http://localhost:3300/v1/traces",
//!     );
//!
//!     tracing::info!("Component started");
//!     // Spans are automatically exported to evo-king's OTLP receiver
//! }
//! ```

mod component;
mod console;
#[cfg(feature = "tracing-otel")]
mod otel;
mod requests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use tracing::{Level, Metadata};
use tracing_appender::{
    non_blocking::{NonBlocking, NonBlockingBuilder},
    rolling::{RollingFileAppender, Rotation},
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt as _, filter_fn},
    fmt::MakeWriter as _,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use component::Named;
use console::Redacting;
#[cfg(feature = "tracing-otel")]
pub use otel::{
    OtelGuard, init_logging_with_otel, init_logging_with_otel_to, init_service_logging,
    init_service_logging_to, otlp_traces_url,
};

pub use requests::RequestLines;

use crate::config::env;

/// Lines that may wait for the file; more are dropped and counted. The queue's memory is taken at
/// the start, 40 bytes a line. Those about requests do not wait here.
const LINES: usize = 8_192;

/// Where the log lines for people go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Console {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error, which keeps standard output free for results.
    Stderr,
    /// Standard error, warnings and errors only; the file gets everything.
    StderrWarnings,
    /// Nowhere; only the file is written.
    Off,
}

/// How logging is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Folder of the log files; made when it is missing. The name `off` means no files.
    pub dir: PathBuf,
    /// Where the log lines for people go.
    pub console: Console,
    /// What is logged, in the syntax of `RUST_LOG`. `None` takes `RUST_LOG`, by default `info`.
    pub filter: Option<String>,
}

impl LogOptions {
    /// Files in `dir`, plain text on standard output, filtered by `RUST_LOG`.
    pub fn to(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), console: Console::Stdout, filter: None }
    }

    /// The same with another console.
    #[must_use]
    pub fn console(self, console: Console) -> Self {
        Self { console, ..self }
    }

    /// The same with a filter of its own.
    #[must_use]
    pub fn filter(self, filter: impl Into<String>) -> Self {
        Self { filter: Some(filter.into()), ..self }
    }
}

impl Default for LogOptions {
    /// Files in [`log_dir`], plain text on standard output, filtered by `RUST_LOG`.
    fn default() -> Self {
        Self::to(log_dir())
    }
}

/// Writes what is still buffered when it is dropped; hold it as long as the process logs.
#[must_use = "log lines are lost when the guard is dropped early"]
#[derive(Debug)]
pub struct WorkerGuard {
    file: Option<(tracing_appender::non_blocking::WorkerGuard, NonBlocking)>,
}

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        let Some((worker, writer)) = self.file.take() else { return };
        let lost = writer.error_counter().dropped_lines();
        if lost > 0 {
            tracing::warn!(lost, "{lost} log lines were dropped: the log file could not keep up");
        }
        // This one waits for the writing thread.
        drop(worker);
    }
}

/// The folder that stands for no log files.
const NO_FILES: &str = "off";

/// The folder of the log files: `EVO_LOG_DIR`, by default `./logs`; `off` for none.
pub fn log_dir() -> PathBuf {
    env::get("EVO_LOG_DIR").map_or_else(|| PathBuf::from("./logs"), PathBuf::from)
}

/// The folder of the log files as [`log_dir`] has it; nothing when no files are written.
pub fn log_files_dir() -> Option<PathBuf> {
    Some(log_dir()).filter(|dir| wants_files(dir))
}

/// Sets up logging: JSON lines in `{log_dir}/{component}.YYYY-MM-DD.log`, plain text on standard
/// output, filtered by `RUST_LOG` (default `info`). Call it once at startup and hold the guard.
///
/// When the folder can't be made, it logs to standard output only and says so.
pub fn init_logging(component: &str) -> WorkerGuard {
    init_logging_to(component, LogOptions::default())
}

/// [`init_logging`] with another folder, console or filter.
pub fn init_logging_to(component: &str, options: LogOptions) -> WorkerGuard {
    init(component, &options, Vec::new())
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// The component that set logging up first. A process has one subscriber.
static COMPONENT: OnceLock<String> = OnceLock::new();

/// Whether logging has been set up already; says so in the log.
fn already_set_up(component: &str) -> bool {
    if COMPONENT.set(component.to_owned()).is_ok() {
        return false;
    }
    let first = COMPONENT.get().map_or("", String::as_str);
    tracing::warn!("Logging of {component} joins that of {first}, which was set up before");
    true
}

fn init(component: &str, options: &LogOptions, mut layers: Vec<BoxedLayer>) -> WorkerGuard {
    if already_set_up(component) {
        return WorkerGuard { file: None };
    }
    let (filter, warning) = log_filter(options);
    let mut warnings = Vec::from_iter(warning);
    let console_filter = filter.clone();
    let file = match wants_files(&options.dir).then(|| open(component, &options.dir)) {
        None => None,
        Some(Ok((file, writer, worker))) => {
            requests::set_up(&file, &filter);
            layers.push(json_layer(component, writer.clone()).with_filter(filter).boxed());
            Some((worker, writer))
        }
        Some(Err(error)) => {
            warnings.push(format!(
                "No log file is written: {error}. Make {} writable or set EVO_LOG_DIR",
                options.dir.display()
            ));
            None
        }
    };
    // On each layer of its own: what is logged says nothing about which spans are exported.
    layers.extend(console::layer(options.console).map(|layer| match file {
        Some(_) => layer.with_filter(console_filter.and(filter_fn(is_for_consoles))).boxed(),
        None => layer.with_filter(console_filter).boxed(),
    }));
    if let Err(error) = tracing_subscriber::registry().with(layers).try_init() {
        tracing::warn!("Logging of {component} is not complete: {error}");
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    WorkerGuard { file }
}

/// Whether a line goes to the console although there is a log file. The gateway's lines about
/// single requests do not: they come by the thousand, and each costs as much as the request.
fn is_for_consoles(metadata: &Metadata<'_>) -> bool {
    metadata.target() != requests::TARGET || *metadata.level() <= Level::WARN
}

/// What is logged, and what is wrong with the text that says so.
fn log_filter(options: &LogOptions) -> (EnvFilter, Option<String>) {
    let filter = options.filter.clone().or_else(|| env::get("RUST_LOG"));
    let filter = filter.as_deref().unwrap_or("info");
    match EnvFilter::try_new(filter) {
        Ok(filter) => (filter, None),
        Err(error) => {
            let warning = format!("The log filter {filter:?} is ignored, `info` is used: {error}");
            (EnvFilter::new("info"), Some(warning))
        }
    }
}

fn wants_files(dir: &Path) -> bool {
    dir.as_os_str() != NO_FILES
}

/// `{dir}/{component}.YYYY-MM-DD.log`, a new one each day (UTC), written by a thread of its own.
fn open(component: &str, dir: &Path) -> Result<Opened, String> {
    // The appender makes the folder itself, but its error does not say which one.
    std::fs::create_dir_all(dir)
        .map_err(|error| format!("the folder {} can't be made: {error}", dir.display()))?;
    let appender = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix(component)
        .filename_suffix("log")
        .build(dir)
        .map_err(|error| {
            let cause =
                std::error::Error::source(&error).map_or(String::new(), |e| format!(": {e}"));
            format!("no file can be made in {}{cause}", dir.display())
        })?;
    let file = Arc::new(appender);
    let (writer, worker) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES)
        .thread_name("evo-log")
        .finish(Shared(file.clone()));
    Ok((file, writer, worker))
}

/// The file, who writes into it by way of a thread of its own, and the end of that thread.
type Opened = (Arc<RollingFileAppender>, NonBlocking, tracing_appender::non_blocking::WorkerGuard);

/// A file that others write into as well, each whole lines at once.
struct Shared(Arc<RollingFileAppender>);

impl io::Write for Shared {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.0.make_writer().write(lines)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.make_writer().flush()
    }
}

fn json_layer(component: &str, writer: NonBlocking) -> BoxedLayer {
    tracing_subscriber::fmt::layer()
        .json()
        .with_target(true)
        .with_thread_ids(true)
        .with_file(true)
        .with_line_number(true)
        .with_writer(Redacting(Named { process: component.to_owned(), inner: writer }))
        .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_off_stands_for_no_files() {
        assert!(!wants_files(Path::new("off")));
        assert!(wants_files(Path::new("./off")));
        assert!(wants_files(Path::new("logs")));
    }

    #[test]
    fn a_folder_that_cannot_be_made_costs_the_file_only() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let dir = file.path().join("logs");
        let error = open("test", &dir).err().unwrap();
        assert!(error.starts_with(&format!("the folder {} can't be made: ", dir.display())));
        let guard = init_logging_to("test", LogOptions::to(&dir).console(Console::Off));
        assert!(guard.file.is_none());
    }
}
