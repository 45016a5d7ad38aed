//! Words of names: the ways to write them, what else they are called, and which are near.

use crate::sources::openapi::naming;

/// Names that different APIs have for the same thing.
const SYNONYMS: [&[&str]; 14] = [
    &["limit", "size", "per_page", "page_size", "count", "max_results", "top", "n", "max"],
    &["offset", "skip", "start", "from", "page", "after", "cursor", "since"],
    &["q", "query", "search", "term", "text", "filter", "keyword"],
    &["id", "uid", "uuid", "key", "identifier", "name", "slug"],
    &["sort", "order", "order_by", "sort_by"],
    &["type", "kind", "category", "format"],
    &["value", "val", "data", "content", "body", "payload"],
    &["user", "username", "user_name", "login", "owner"],
    &["password", "passwd", "pass", "secret"],
    &["token", "access_token", "api_key", "apikey", "key"],
    &["url", "uri", "link", "href", "address"],
    &["path", "file", "filename", "location"],
    &["status", "state", "code"],
    &["lang", "language", "locale"],
];

/// A name in every usual way to write it, and without its last `s` or with one.
pub(crate) fn styles(name: &str) -> Vec<String> {
    let words = naming::words(name);
    if words.is_empty() {
        return Vec::new();
    }
    let capital = |word: &String| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| {
            format!("{}{}", first.to_ascii_uppercase(), letters.as_str())
        })
    };
    let pascal: Vec<String> = words.iter().map(capital).collect();
    let camel = format!("{}{}", words[0], pascal[1..].concat());
    let mut all = vec![
        words.join("_"),
        words.join("-"),
        camel,
        pascal.concat(),
        pascal.join("-"),
        words.concat(),
        plural(name),
    ];
    all.retain(|style| style != name);
    all.sort();
    all.dedup();
    all
}

/// The plural of a singular, and the other way round.
pub(super) fn plural(word: &str) -> String {
    match word.strip_suffix("ies") {
        Some(stem) if stem.len() > 1 => return format!("{stem}y"),
        _ => {}
    }
    match word.strip_suffix('s') {
        Some(stem) if stem.len() > 1 && !stem.ends_with('s') => stem.to_owned(),
        _ => match word.strip_suffix('y') {
            Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
            _ => format!("{word}s"),
        },
    }
}

/// What else a name may be called.
pub(crate) fn synonyms(name: &str) -> Vec<String> {
    let plain = naming::words(name).join("_");
    SYNONYMS
        .iter()
        .filter(|group| group.contains(&plain.as_str()))
        .flat_map(|group| group.iter())
        .filter(|other| **other != name)
        .map(|other| (*other).to_owned())
        .collect()
}

/// Whether a name is one that APIs use for parts of long lists.
pub(super) fn is_of_pages(name: &str) -> bool {
    let plain = naming::words(name).join("_");
    SYNONYMS[..2].iter().any(|group| group.contains(&plain.as_str()))
}

/// Names for parts of long lists.
pub(super) fn of_pages() -> impl Iterator<Item = &'static str> {
    SYNONYMS[..2].iter().flat_map(|group| group.iter().copied())
}

/// How alike two names are, from 0 to 1, whatever their case: one letter that is wrong counts little,
/// and so does a beginning that is shared.
pub(super) fn likeness(a: &str, b: &str) -> f64 {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    strsim::jaro_winkler(&a, &b).max(strsim::normalized_damerau_levenshtein(&a, &b))
}

/// The words of a vocabulary, those most like this one first, without itself.
pub(super) fn nearest<'a>(word: &str, vocabulary: &'a [String]) -> Vec<&'a str> {
    let mut near: Vec<(f64, &str)> = vocabulary
        .iter()
        .map(String::as_str)
        .filter(|other| *other != word)
        .map(|other| (likeness(word, other), other))
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.into_iter().map(|(_, word)| word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_in_all_ways() {
        let found = styles("page_size");
        for style in ["pageSize", "page-size", "PageSize", "Page-Size", "pagesize", "page_sizes"] {
            assert!(found.contains(&style.to_owned()), "{style}: {found:?}");
        }
        assert!(!found.contains(&"page_size".to_owned()));
        assert_eq!(styles("--"), Vec::<String>::new());
    }

    #[test]
    fn plurals_go_both_ways() {
        for (one, many) in [("agent", "agents"), ("memory", "memories"), ("key", "keys")] {
            assert_eq!((plural(one).as_str(), plural(many).as_str()), (many, one));
        }
        assert_eq!(plural("class"), "classs", "a guess is a guess");
    }

    #[test]
    fn what_is_near_comes_first() {
        let words = ["status", "limit", "limits"].map(str::to_owned);
        assert_eq!(nearest("limt", &words)[0], "limit");
        assert!(synonyms("pageSize").contains(&"limit".to_owned()));
        assert!(is_of_pages("per_page") && !is_of_pages("q"));
    }
}
