//! Images and documents as `data:` URIs and as addresses.

use super::ConvertError;
use crate::model::Media;

/// Reads an address or a `data:` URI; `field` is where it stands.
pub(super) fn read_uri(uri: String, field: &str) -> Result<Media, ConvertError> {
    if uri.starts_with("http://") || uri.starts_with("https://") {
        return Ok(Media::Url(uri));
    }
    uri.strip_prefix("data:")
        .and_then(|rest| rest.split_once(','))
        .and_then(|(head, data)| Some((head.strip_suffix(";base64")?, data)))
        .map(|(head, data)| Media::Inline { media_type: media_type(head), data: data.to_owned() })
        .ok_or_else(|| {
            ConvertError::new(field, "must be an http(s) address or a `data:TYPE;base64,DATA` URI")
        })
}

/// The type without its parameters, by its right name.
fn media_type(head: &str) -> String {
    let essence = head.split(';').next().unwrap_or_default();
    // A common slip that OpenAI takes and Anthropic does not.
    if essence == "image/jpg" { "image/jpeg" } else { essence }.to_owned()
}

pub(super) fn write_uri(media: Media) -> String {
    match media {
        Media::Inline { media_type, data } => format!("data:{media_type};base64,{data}"),
        Media::Url(url) => url,
    }
}
