//! What is asked of a model, whatever the protocol.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Dialect, embed::Form};

/// What is asked of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Task {
    /// To answer a conversation.
    #[default]
    Generate,
    /// To turn texts into vectors, asked for in this form.
    Embed(Form),
    /// To say how many tokens a conversation has.
    Count,
}

impl Task {
    /// Whether what a caller of the dialect `front` asks can go to a provider of that one as it is.
    pub fn passes(self, front: Dialect, provider: Dialect) -> bool {
        match self {
            Self::Generate | Self::Count => front.passes_to(provider),
            Self::Embed(form) => form.passes_to(provider),
        }
    }

    /// The body for a provider of the caller's own protocol that knows the model by this name, if the
    /// caller's names it differently, in places that `peek` does not see: Google's bodies may
    /// repeat what stands in the address.
    pub fn renamed(self, front: Dialect, body: &[u8], model: &str) -> Option<Vec<u8>> {
        if self == Self::Generate || front != Dialect::Gemini {
            return None;
        }
        memchr::memmem::find(body, b"\"model\"")?;
        let named: Named<'_> = serde_json::from_slice(body).ok()?;
        let mut places = Vec::new();
        named.collect(&mut places);
        let name = model.strip_prefix("models/").unwrap_or(model);
        let name = serde_json::to_string(&format!("models/{name}")).ok()?;
        let mut renamed = Vec::with_capacity(body.len());
        let mut from = 0;
        // The raw values are parts of the body, so the distance is their place there.
        let at = |raw: &str| raw.as_ptr().addr() - body.as_ptr().addr();
        places.sort_by_key(|raw| at(raw.get()));
        for raw in places.into_iter().map(RawValue::get) {
            renamed.extend_from_slice(&body[from..at(raw)]);
            renamed.extend_from_slice(name.as_bytes());
            from = at(raw) + raw.len();
        }
        renamed.extend_from_slice(&body[from..]);
        Some(renamed)
    }
}

/// The places in a body of Google's where the model may be named.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow, default)]
    requests: Vec<Named<'a>>,
    #[serde(borrow, alias = "generate_content_request")]
    generate_content_request: Option<Box<Named<'a>>>,
}

impl<'a> Named<'a> {
    fn collect(&self, places: &mut Vec<&'a RawValue>) {
        places.extend(self.model.filter(|raw| raw.get() != "null"));
        let inner = self.requests.iter().chain(self.generate_content_request.as_deref());
        inner.for_each(|named| named.collect(places));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn googles_bodies_name_the_model_of_the_provider() {
        let renamed = |task: Task, body: &str| {
            let bytes = task.renamed(Dialect::Gemini, body.as_bytes(), "m/1");
            bytes.map(|bytes| String::from_utf8(bytes).unwrap())
        };
        let batch = r#"{ "requests" : [{"content":{"parts":[{"text":"\"model\":"}]},"model": "models/g:a"},{"model":"models/g:b","x":1.50}]}"#;
        let expected = r#"{ "requests" : [{"content":{"parts":[{"text":"\"model\":"}]},"model": "models/m/1"},{"model":"models/m/1","x":1.50}]}"#;
        let task = Task::Embed(Form::GeminiBatch);
        assert_eq!(renamed(task, batch).as_deref(), Some(expected));
        assert_eq!(
            renamed(Task::Count, r#"{"generateContentRequest":{"contents":[],"model":"g:x"}}"#)
                .as_deref(),
            Some(r#"{"generateContentRequest":{"contents":[],"model":"models/m/1"}}"#)
        );
        assert_eq!(renamed(Task::Count, r#"{"contents":[]}"#), None);
        assert_eq!(renamed(Task::Count, r#"{"model":"#), None);
        assert_eq!(renamed(Task::Generate, r#"{"model":"x"}"#), None);
    }
}
