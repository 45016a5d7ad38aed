//! Media types.

/// Media type of an HTML form.
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// A media type without parameters, in lower case.
pub(super) fn media_type(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether a media type holds JSON.
pub(super) fn is_json(kind: &str) -> bool {
    kind == "application/json" || kind == "text/json" || kind.ends_with("+json")
}

pub(super) fn is_stream(kind: &str) -> bool {
    kind == "text/event-stream"
}

pub(super) fn is_wildcard(kind: &str) -> bool {
    matches!(media_type(kind).as_str(), "*/*" | "application/*" | "")
}

/// The kind of body to send: JSON, else a form, else a text; [`None`] when none of them is taken.
pub(super) fn pick_request_type<'a>(kinds: impl Iterator<Item = &'a str>) -> Option<String> {
    let kinds: Vec<String> = kinds.map(media_type).collect();
    let find = |test: &dyn Fn(&str) -> bool| kinds.iter().find(|kind| test(kind)).cloned();
    find(&|kind| kind == "application/json")
        .or_else(|| find(&is_json))
        .or_else(|| find(&|kind| kind == FORM))
        .or_else(|| find(&is_text))
        .or_else(|| find(&is_wildcard).map(|_| "application/json".to_owned()))
}

/// Whether a body of this type is one text.
pub(super) fn is_text(kind: &str) -> bool {
    (kind.starts_with("text/") && !kind.contains('*'))
        || kind == "application/xml"
        || kind.ends_with("+xml")
}

/// The kind of answer to ask for: JSON, else the first; [`None`] for any.
pub(super) fn pick_answer_type<'a>(kinds: impl Iterator<Item = &'a str>) -> Option<String> {
    let kinds: Vec<String> = kinds.map(media_type).collect();
    let find = |test: &dyn Fn(&str) -> bool| kinds.iter().find(|kind| test(kind)).cloned();
    find(&|kind| kind == "application/json")
        .or_else(|| find(&is_json))
        .or_else(|| find(&|kind| !kind.contains('*') && kind.contains('/') && !is_stream(kind)))
}
