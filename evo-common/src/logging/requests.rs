//! Lines about single requests, which come by the thousand: they go into the log file as ready JSON,
//! many in one write. They look as the lines that go through tracing's layers, which cost several
//! times as much, and are left out when those would be.

use std::{
    borrow::Cow,
    io::{self, Write as _},
    sync::{Arc, OnceLock},
};

use chrono::{SecondsFormat, Utc};
use serde::Serialize;
use tracing::{
    Callsite, Level, Metadata, callsite::Identifier, field::FieldSet, metadata::Kind,
    subscriber::Interest,
};
use tracing_appender::rolling::RollingFileAppender;
use tracing_subscriber::{EnvFilter, Registry, fmt::MakeWriter as _, layer::Filter};

use super::component::component;
use crate::redact::redact;

/// The target of lines about requests.
pub(super) const TARGET: &str = "evo_gateway::access";

/// The log file, if it takes lines about requests. A process has one.
static FILE: OnceLock<Arc<RollingFileAppender>> = OnceLock::new();

struct Site;

/// Stands for the lines when the filter is asked.
static SITE: Site = Site;
static METADATA: Metadata<'static> = Metadata::new(
    "request",
    TARGET,
    Level::INFO,
    None,
    None,
    None,
    FieldSet::new(&[], Identifier(&SITE)),
    Kind::EVENT,
);

impl Callsite for Site {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        &METADATA
    }
}

/// Lets lines about requests go into this file, if the filter of its lines lets them pass.
pub(super) fn set_up(file: &Arc<RollingFileAppender>, filter: &EnvFilter) {
    if lets_pass(filter) {
        FILE.get_or_init(|| file.clone());
    }
}

fn lets_pass(filter: &EnvFilter) -> bool {
    <EnvFilter as Filter<Registry>>::callsite_enabled(filter, &METADATA).is_always()
}

/// So much comes together before it is written.
const ENOUGH: usize = 32 * 1024;

/// A line as the formatting layer writes it.
#[derive(Serialize)]
struct Line<'a, F> {
    component: &'a str,
    timestamp: &'a str,
    level: &'static str,
    fields: &'a F,
    target: &'static str,
    filename: &'static str,
    line_number: u32,
    #[serde(rename = "threadId")]
    thread_id: &'a str,
}

/// Writes lines about requests into the log file.
#[derive(Debug, Default)]
pub struct RequestLines {
    file: Option<Arc<RollingFileAppender>>,
    component: String,
    thread: String,
    time: String,
    text: Vec<u8>,
    /// What a line holds that others said.
    said: String,
}

impl RequestLines {
    /// Begins a batch, all of whose lines get the same time. `false` when lines about requests do not go
    /// into a file: then they have to take tracing's way, as events with the target of this batch.
    pub fn begin(&mut self) -> bool {
        let Some(file) = FILE.get() else { return false };
        self.begin_in(file.clone());
        true
    }

    fn begin_in(&mut self, file: Arc<RollingFileAppender>) {
        self.file = Some(file);
        self.component = component(TARGET).unwrap_or_default();
        self.thread = format!("{:?}", std::thread::current().id());
        self.time = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
        self.text.clear();
    }

    /// Adds a line with these fields, from this file and line of the source. `said` gives the texts among
    /// the fields that are not the program's own: secrets are looked for only if they may hold one.
    ///
    /// # Errors
    /// When the file can't be written. What was to be written then is lost.
    pub fn add<'a>(
        &mut self,
        fields: &impl Serialize,
        source: (&'static str, u32),
        said: impl IntoIterator<Item = &'a str>,
    ) -> io::Result<()> {
        let (filename, line_number) = source;
        let (component, timestamp, thread_id) = (&*self.component, &*self.time, &*self.thread);
        let (level, target) = (Level::INFO.as_str(), TARGET);
        let line =
            Line { component, timestamp, level, fields, target, filename, line_number, thread_id };
        let start = self.text.len();
        serde_json::to_writer(&mut self.text, &line)?;
        self.said.clear();
        for text in said {
            self.said.push_str(text);
            self.said.push('\n');
        }
        if may_hold_secrets(&self.said) {
            let line = String::from_utf8_lossy(&self.text[start..]);
            if let Cow::Owned(masked) = redact(&line) {
                self.text.truncate(start);
                self.text.extend_from_slice(masked.as_bytes());
            }
        }
        self.text.push(b'\n');
        if self.text.len() >= ENOUGH { self.write() } else { Ok(()) }
    }

    /// Ends the batch.
    ///
    /// # Errors
    /// When the file can't be written. What was to be written then is lost.
    pub fn end(&mut self) -> io::Result<()> {
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        let written = match &self.file {
            Some(file) if !self.text.is_empty() => file.make_writer().write_all(&self.text),
            _ => Ok(()),
        };
        self.text.clear();
        written
    }
}

/// Whether a secret may be found in a line that holds these texts: in one of them, or because one has
/// what is not plain and mixes with what stands around it.
fn may_hold_secrets(said: &str) -> bool {
    let is_plain = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'.' | b'_' | b':' | b'/' | b'-' | b',' | b' ' | b'\n')
    };
    !said.bytes().all(is_plain) || matches!(redact(said), Cow::Owned(_))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use tracing_appender::rolling::Rotation;

    use super::*;

    /// What is in the file after a batch of lines, each with what it holds that others said.
    fn written(batch: &[(&Value, &[&str])]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = RollingFileAppender::builder().rotation(Rotation::NEVER).build(folder.path());
        let file = Arc::new(file.unwrap());
        let mut lines = RequestLines::default();
        lines.begin_in(file);
        for (fields, said) in batch {
            lines.add(fields, ("access.rs", 7), said.iter().copied()).unwrap();
        }
        lines.end().unwrap();
        let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(files.len(), 1);
        let text = std::fs::read_to_string(files[0].as_ref().unwrap().path()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_line_has_what_the_formatting_layer_writes() {
        let fields = json!({"message": "GET / 200", "bytes": 7, "outcome": "answered"});
        let lines = written(&[(&fields, &[]), (&fields, &[])]);
        assert_eq!(lines.len(), 2);
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        let thread = format!("{:?}", std::thread::current().id());
        for (key, value) in [
            ("component", json!("evo-gateway")),
            ("level", json!("INFO")),
            ("fields", fields),
            ("target", json!(TARGET)),
            ("filename", json!("access.rs")),
            ("line_number", json!(7)),
            ("threadId", json!(thread)),
        ] {
            assert_eq!(line[key], value, "{key}");
        }
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.len() == 27, "{time}");
    }

    #[test]
    fn a_long_batch_is_written_whole() {
        let fields: Vec<Value> = (0..2_000).map(|number| json!({ "bytes": number })).collect();
        let batch: Vec<(&Value, &[&str])> = fields.iter().map(|fields| (fields, &[][..])).collect();
        let lines = written(&batch);
        for (number, line) in lines.iter().enumerate() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["fields"]["bytes"], number);
        }
        assert_eq!(lines.len(), 2_000);
    }

    #[test]
    fn only_lines_that_the_filter_wants_go_there() {
        let wants = |filter: &str| lets_pass(&EnvFilter::new(filter));
        for filter in ["info", "debug", "evo_gateway=info", "warn,evo_gateway::access=info"] {
            assert!(wants(filter), "{filter}");
        }
        for filter in [
            "warn",
            "off",
            "info,evo_gateway=warn",
            "info,evo_gateway::access=off",
            "evo_king=info",
        ] {
            assert!(!wants(filter), "{filter}");
        }
    }

    fn said() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            any::<String>(),
            "[a-z0-9./:_-]{0,12}",
            prop::sample::select(vec![
                "sk-",
                "sk-proj-abcdef123456",
                "evo_op_",
                "token",
                "token=",
                "Bearer ",
                "bearer",
                "authorization:",
                "password",
                "'",
                "\"",
                "\\",
                "https://u:",
                "@",
                "api_key:",
                "?key=",
                "=",
            ])
            .prop_map(str::to_owned),
        ];
        prop::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
    }

    proptest! {
        /// Looking at less of a line finds all that looking at the whole of it finds.
        #[test]
        fn no_secret_is_missed(model in said(), caller in said(), id in said()) {
            let fields = json!({
                "http.method": "POST", "model": model, "bytes": 5, "request.id": id, "caller": caller,
            });
            let lines = written(&[(&fields, &[&model, &id, &caller]), (&fields, &["\""])]);
            prop_assert_eq!(&lines[0], &lines[1]);
        }
    }
}
