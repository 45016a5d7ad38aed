//! Reading a document: bytes to a JSON tree, its version, and references inside it.

use serde_json::{Map, Value};

/// Largest document that is read: 16 MiB.
pub const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;
/// Deepest nesting of a YAML document, since its reader needs much stack for each level. JSON has
/// serde_json's own limit of 128.
const MAX_DEPTH: usize = 64;
/// Most nodes that YAML anchors may stand for in all.
const MAX_ANCHORED: usize = 200_000;
/// Most hops from one reference to the next.
const MAX_HOPS: usize = 32;

/// Why a document can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too large.
    #[error("{location}: the document has {size} bytes; at most {MAX_DOCUMENT_BYTES} are read")]
    TooLarge {
        /// File or URL.
        location: String,
        /// Its size.
        size: usize,
    },
    /// Not text.
    #[error("{location}: the document is not UTF-8 text (byte {at})")]
    Encoding {
        /// File or URL.
        location: String,
        /// Where the first wrong byte is.
        at: usize,
    },
    /// Neither JSON nor YAML.
    #[error("{location}:{line}:{column}: not valid {syntax}: {message}")]
    Syntax {
        /// File or URL.
        location: String,
        /// From 1; 0 when unknown.
        line: usize,
        /// From 1; 0 when unknown.
        column: usize,
        /// `JSON` or `YAML`.
        syntax: &'static str,
        /// What is wrong there.
        message: String,
    },
    /// Something else.
    #[error(
        "{location}: not an OpenAPI document: neither `swagger` nor `openapi` at the top; a list of sources is of the kind `feed`, an MCP server of the kind `mcp`"
    )]
    NotOpenApi {
        /// File or URL.
        location: String,
    },
    /// A version that isn't known.
    #[error(
        "{location}: the version {version:?} is not supported; use Swagger 2.0, OpenAPI 3.0 or 3.1"
    )]
    Version {
        /// File or URL.
        location: String,
        /// What the document says.
        version: String,
    },
    /// No operations at all.
    #[error("{location}: `paths` is missing or is not an object, so there is no operation in it")]
    NoPaths {
        /// File or URL.
        location: String,
    },
}

/// Version of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Swagger 2.0.
    V2,
    /// OpenAPI 3.0.x.
    V30,
    /// OpenAPI 3.1.x.
    V31,
}

/// A document that has been read.
#[derive(Debug, Clone)]
pub struct Document {
    /// File or URL.
    pub location: String,
    /// Its version.
    pub version: Version,
    /// The whole tree; an object.
    pub root: Value,
}

/// What a reference leads to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target<'d> {
    /// A place in the document.
    Here(&'d Value),
    /// Another document.
    External,
    /// Nothing: the pointer is broken or goes in circles.
    Nothing,
}

impl Document {
    /// Reads a document from JSON or YAML.
    pub fn parse(bytes: &[u8], location: &str) -> Result<Self, Error> {
        let location = location.to_owned();
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(Error::TooLarge { location, size: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).map_err(|error| Error::Encoding {
            location: location.clone(),
            at: error.valid_up_to(),
        })?;
        let root = parse_tree(text.trim_start_matches('\u{feff}'), &location)?;
        let version = version_of(&root, &location)?;
        let has_webhooks = version == Version::V31 && root.get("paths").is_none();
        if !has_webhooks && !root.get("paths").is_some_and(Value::is_object) {
            return Err(Error::NoPaths { location });
        }
        Ok(Self { location, version, root })
    }

    /// What is at `#/…`; [`None`] when there is nothing.
    pub fn pointer(&self, reference: &str) -> Option<&Value> {
        let pointer = reference.strip_prefix('#')?;
        self.root.pointer(&percent_decode(pointer))
    }

    /// Follows one reference, and those it leads to, to the first value that is none.
    pub fn follow<'d>(&'d self, reference: &str) -> Target<'d> {
        let mut reference = reference;
        for _ in 0..MAX_HOPS {
            if !reference.starts_with('#') {
                return Target::External;
            }
            let Some(value) = self.pointer(reference) else { return Target::Nothing };
            match reference_of(value) {
                Some(next) => reference = next,
                None => return Target::Here(value),
            }
        }
        Target::Nothing
    }

    /// The value itself, or what its `$ref` leads to.
    pub fn resolve<'d>(&'d self, value: &'d Value) -> Target<'d> {
        match reference_of(value) {
            Some(reference) => self.follow(reference),
            None => Target::Here(value),
        }
    }

    /// The paths in document order.
    pub fn paths(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.root.get("paths").and_then(Value::as_object).into_iter().flatten()
    }
}

/// The `$ref` of an object.
pub fn reference_of(value: &Value) -> Option<&str> {
    value.get("$ref").and_then(Value::as_str)
}

fn parse_tree(text: &str, location: &str) -> Result<Value, Error> {
    if !text.trim_start().starts_with(['{', '[']) {
        return parse_yaml(text, location);
    }
    let error = match serde_json::from_str(text) {
        Ok(tree) => return Ok(tree),
        Err(error) => error,
    };
    // YAML's flow style starts with a brace too.
    parse_yaml(text, location).map_err(|_| Error::Syntax {
        location: location.to_owned(),
        line: error.line(),
        column: error.column(),
        syntax: "JSON",
        message: without_position(&error.to_string()),
    })
}

/// serde_json repeats the position in its message.
fn without_position(message: &str) -> String {
    message.split(" at line ").next().unwrap_or(message).to_owned()
}

fn parse_yaml(text: &str, location: &str) -> Result<Value, Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_events: 8_000_000,
            max_nodes: 4_000_000,
            max_recorded_anchor_events: MAX_ANCHORED,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), |at| {
            (usize::try_from(at.line()).unwrap_or(0), usize::try_from(at.column()).unwrap_or(0))
        });
        Error::Syntax {
            location: location.to_owned(),
            line,
            column,
            syntax: "YAML",
            message: error
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(300)
                .collect(),
        }
    })
}

fn version_of(root: &Value, location: &str) -> Result<Version, Error> {
    let object = root.as_object();
    let field = |name: &str| object.and_then(|map: &Map<String, Value>| map.get(name));
    let (field, is_swagger) = match (field("swagger"), field("openapi")) {
        (Some(version), _) => (version, true),
        (None, Some(version)) => (version, false),
        (None, None) => return Err(Error::NotOpenApi { location: location.to_owned() }),
    };
    // YAML writers forget the quotes: `swagger: 2.0` is a number.
    let version = match field {
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    let is = |prefix: &str| version == prefix || version.starts_with(&format!("{prefix}."));
    match is_swagger {
        true if is("2") => Ok(Version::V2),
        false if is("3.0") || version == "3" => Ok(Version::V30),
        false if is("3.1") => Ok(Version::V31),
        _ => Err(Error::Version { location: location.to_owned(), version }),
    }
}

/// A reference's fragment without its percent escapes.
fn percent_decode(text: &str) -> String {
    let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if let (b'%', [high, low, tail @ ..]) = (first, tail)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            out.push(high * 16 + low);
            rest = tail;
        } else {
            out.push(first);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn error(text: &str) -> String {
        Document::parse(text.as_bytes(), "api.yaml").unwrap_err().to_string()
    }

    #[test]
    fn every_version_is_known_by_its_field() {
        for (text, version) in [
            ("swagger: 2.0\npaths: {}", Version::V2),
            ("swagger: '2.0'\npaths: {}", Version::V2),
            ("openapi: 3.0.3\npaths: {}", Version::V30),
            ("{\"openapi\": \"3.1.0\", \"paths\": {}}", Version::V31),
            ("openapi: 3.1.1\nwebhooks: {}", Version::V31),
            ("\u{feff}{openapi: 3.0.0, paths: {}}", Version::V30),
        ] {
            assert_eq!(Document::parse(text.as_bytes(), "x").unwrap().version, version, "{text}");
        }
    }

    #[test]
    fn errors_name_place_and_fix() {
        assert_eq!(
            error("title: x"),
            "api.yaml: not an OpenAPI document: neither `swagger` nor `openapi` at the top; a list of sources is of the kind `feed`, an MCP server of the kind `mcp`"
        );
        assert_eq!(
            error("openapi: 4.0.0"),
            "api.yaml: the version \"4.0.0\" is not supported; use Swagger 2.0, OpenAPI 3.0 or 3.1"
        );
        assert_eq!(
            error("{\n  \"openapi\": \"3.0.0\",\n  \"paths\" {}\n}"),
            "api.yaml:3:11: not valid JSON: expected `:`"
        );
        let yaml = error("openapi: 3.0.0\npaths:\n  /a: [1\n  b: }\n");
        assert!(yaml.starts_with("api.yaml:") && yaml.contains("not valid YAML"), "{yaml}");
        assert!(!yaml.starts_with("api.yaml:0"), "{yaml}");
        assert!(error("openapi: 3.0.0\npaths: 7").contains("`paths` is missing"));
        assert!(error("").contains("not an OpenAPI document"), "{}", error(""));
    }

    #[test]
    fn yaml_keys_that_are_numbers_become_text() {
        let text = "swagger: '2.0'\npaths:\n  /a:\n    get:\n      responses:\n        200: {description: ok}\n";
        let document = Document::parse(text.as_bytes(), "x").unwrap();
        assert_eq!(
            document.root["paths"]["/a"]["get"]["responses"],
            json!({"200": {"description": "ok"}})
        );
    }

    #[test]
    fn references_are_followed_with_escapes_and_without_circles() {
        let text = json!({
            "openapi": "3.0.0",
            "paths": {"/a/{b}": {"get": 1}},
            "components": {
                "x": {"$ref": "#/paths/~1a~1%7Bb%7D"},
                "loop": {"$ref": "#/components/loop"},
            },
        });
        let document = Document::parse(text.to_string().as_bytes(), "x").unwrap();
        assert_eq!(document.follow("#/components/x"), Target::Here(&json!({"get": 1})));
        assert_eq!(document.follow("#/components/loop"), Target::Nothing);
        assert_eq!(document.follow("#/components/none"), Target::Nothing);
        assert_eq!(document.follow("other.yaml#/x"), Target::External);
    }

    #[test]
    fn documents_that_grow_without_end_are_refused() {
        let mut bomb = "openapi: 3.0.0\npaths: {}\na: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, inner) in "bcdefghijk".chars().zip("abcdefghij".chars()) {
            let inner = format!("*{inner}, ").repeat(9);
            bomb.push_str(&format!("{name}: &{name} [{inner}]\n"));
        }
        assert!(matches!(Document::parse(bomb.as_bytes(), "x"), Err(Error::Syntax { .. })));
        for open in ["[", "{a: ", "- "] {
            let deep = format!("openapi: 3.0.0\npaths: {}\n", open.repeat(50_000));
            assert!(matches!(Document::parse(deep.as_bytes(), "x"), Err(Error::Syntax { .. })));
        }
        let deep = format!("{{\"openapi\": \"3.0.0\", \"paths\": {}", "[".repeat(50_000));
        assert!(matches!(Document::parse(deep.as_bytes(), "x"), Err(Error::Syntax { .. })));
    }
}
