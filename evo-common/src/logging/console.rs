//! The log lines for people, and the filter that takes secrets out of every line.

use std::io;

use tracing::Metadata;
use tracing_subscriber::{Layer as _, fmt::MakeWriter};

use super::{BoxedLayer, Console};
use crate::redact::redact;

/// Plain text, one event a line.
pub(super) fn layer(console: Console) -> Option<BoxedLayer> {
    // A closed pipe is no reason to write errors about logging itself.
    let plain = tracing_subscriber::fmt::layer().with_ansi(false).log_internal_errors(false);
    match console {
        Console::Stdout => Some(plain.with_writer(Redacting(io::stdout)).boxed()),
        Console::Stderr => Some(plain.with_writer(Redacting(io::stderr)).boxed()),
        Console::StderrWarnings => {
            let warnings = tracing_subscriber::filter::LevelFilter::WARN;
            Some(plain.with_writer(Redacting(io::stderr)).with_filter(warnings).boxed())
        }
        Console::Off => None,
    }
}

/// Masks secrets in every line that passes.
pub(super) struct Redacting<M>(pub(super) M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Redacting<M> {
    type Writer = RedactingWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        RedactingWriter(self.0.make_writer())
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        RedactingWriter(self.0.make_writer_for(metadata))
    }
}

/// Gets whole lines: the formatting layer writes each event at once.
pub(super) struct RedactingWriter<W>(W);

impl<W: io::Write> io::Write for RedactingWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match str::from_utf8(line) {
            Ok(text) => self.0.write_all(redact(text).as_bytes())?,
            Err(_) => self.0.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
