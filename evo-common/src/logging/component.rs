//! The field `component` of every line in the log file: which service speaks. In `evo up` several
//! share one file.

use std::{borrow::Cow, io};

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// Puts the component in front of every JSON line that passes.
pub(super) struct Named<M> {
    /// The component of lines that no crate of ours wrote.
    pub(super) process: String,
    pub(super) inner: M,
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Named<M> {
    type Writer = NamedWriter<'a, M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        NamedWriter { component: Cow::Borrowed(&self.process), inner: self.inner.make_writer() }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        let inner = self.inner.make_writer_for(metadata);
        match component(metadata.target()) {
            Some(component) => NamedWriter { component: Cow::Owned(component), inner },
            None => NamedWriter { component: Cow::Borrowed(&self.process), inner },
        }
    }
}

/// `evo_king::socket` → `evo-king`.
pub(super) fn component(target: &str) -> Option<String> {
    let crate_name = target.split("::").next().unwrap_or_default();
    crate_name.starts_with("evo_").then(|| crate_name.replace('_', "-"))
}

/// Gets whole lines: the formatting layer writes each event at once.
pub(super) struct NamedWriter<'a, W> {
    component: Cow<'a, str>,
    inner: W,
}

impl<W: io::Write> io::Write for NamedWriter<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match line.strip_prefix(b"{") {
            Some(rest) => {
                let name = serde_json::Value::from(self.component.as_ref()).to_string();
                let mut named = Vec::with_capacity(line.len() + name.len() + 16);
                named.extend_from_slice(b"{\"component\":");
                named.extend_from_slice(name.as_bytes());
                named.push(b',');
                named.extend_from_slice(rest);
                self.inner.write_all(&named)?;
            }
            None => self.inner.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_component_is_the_crate_that_speaks() {
        assert_eq!(component("evo_king::socket::agent").as_deref(), Some("evo-king"));
        assert_eq!(component("evo_agents").as_deref(), Some("evo-agents"));
        assert_eq!(component("evo"), None);
        assert_eq!(component("hyper::client"), None);
    }

    #[test]
    fn a_line_stays_one_json_object() {
        let mut file = Vec::new();
        let mut writer = NamedWriter { component: "evo \"x\"".into(), inner: &mut file };
        writer.write_all(b"{\"level\":\"INFO\"}\n").unwrap();
        let line: serde_json::Value = serde_json::from_slice(&file).unwrap();
        assert_eq!(line, serde_json::json!({"component": "evo \"x\"", "level": "INFO"}));
    }
}
