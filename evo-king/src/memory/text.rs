//! Text as the full-text index takes it, and queries as it understands them. Pure.
//!
//! The index splits text into words at whatever is neither a letter nor a digit, which Chinese,
//! Japanese and Korean have little of. So each of their characters is made a word of its own, in
//! what is indexed and in what is asked: a query of them is a phrase that is found anywhere.

use std::fmt::Write as _;

use icu_normalizer::ComposingNormalizerBorrowed;

/// Words of a query that are looked for; the rest is ignored.
const MAX_WORDS: usize = 32;

/// A query in the language of the full-text index. Everything that a person typed stands in quotes,
/// so that nothing of it is taken for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expression {
    /// Finds what has every word.
    pub(crate) all: String,
    /// Finds what has any of them; of Chinese, Japanese and Korean, any two neighbours.
    pub(crate) any: String,
}

/// Text for the index: in one form (ＡＢＣ is ABC), with every Chinese, Japanese and Korean
/// character apart.
pub(crate) fn prepare(text: &str) -> String {
    apart(&normal(text))
}

/// What a query looks for; `None` when it has no letter or digit to look for.
pub(crate) fn expression(query: &str) -> Option<Expression> {
    // Before the normal form, in which a Chinese comma is an ASCII one.
    let query: String = query.chars().map(|c| if parts_words(c) { ' ' } else { c }).collect();
    let query = normal(&query);
    let words: Vec<&str> = query
        .split(|c: char| c.is_whitespace() || c.is_control() || c == '"')
        .filter(|word| word.chars().any(char::is_alphanumeric))
        .take(MAX_WORDS)
        .collect();
    let last = words.last()?;
    let mut all = String::new();
    let mut any: Vec<String> = Vec::new();
    for word in &words {
        let phrase = phrase(word);
        if !all.is_empty() {
            all.push(' ');
        }
        all.push_str(&phrase);
        if let [_, _, _, ..] = cjk_of(word).as_slice() {
            let characters = cjk_of(word);
            any.extend(characters.windows(2).map(|two| format!("\"{} {}\"", two[0], two[1])));
        }
        any.push(phrase);
    }
    // What is being typed: the last word may go on.
    if last.chars().next_back().is_some_and(char::is_alphanumeric) {
        all.push('*');
    }
    any.truncate(2 * MAX_WORDS);
    Some(Expression { all, any: any.join(" OR ") })
}

/// Compatibility forms become the usual ones, and accents one character with their letter.
fn normal(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfkc().normalize(text).into_owned()
}

fn phrase(word: &str) -> String {
    format!("\"{}\"", apart(word).trim())
}

fn apart(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 2);
    for c in text.chars() {
        if is_cjk(c) {
            // The index knows the letters of an older Unicode; as a number every one is a word.
            let written = if u32::from(c) > 0xFFFF {
                write!(out, " u{:x} ", u32::from(c))
            } else {
                write!(out, " {c} ")
            };
            written.expect("writing into a text can't fail");
        } else {
            out.push(if c == '\0' { ' ' } else { c });
        }
    }
    out
}

/// The characters of a word that stand apart, as they are indexed.
fn cjk_of(word: &str) -> Vec<String> {
    word.chars().filter(|c| is_cjk(*c)).map(|c| apart(&c.to_string()).trim().to_owned()).collect()
}

/// Whether a character parts words in a query. In ASCII only spaces do: `evo-king` and
/// `write_not_allowed` are looked for as they stand.
fn parts_words(c: char) -> bool {
    let is_accent = ('\u{300}'..='\u{36f}').contains(&c);
    !c.is_ascii() && !c.is_alphanumeric() && !is_accent
}

/// Characters of scripts that don't put spaces between words.
fn is_cjk(c: char) -> bool {
    matches!(u32::from(c),
        0x1100..=0x11FF // Hangul letters
        | 0x3005..=0x3007 | 0x3021..=0x3029 | 0x3031..=0x3035 | 0x3038..=0x303C
        | 0x3041..=0x3096 | 0x309D..=0x309F // Hiragana
        | 0x30A1..=0x30FA | 0x30FC..=0x30FF // Katakana
        | 0x3105..=0x318E // Bopomofo, Hangul letters
        | 0x31A0..=0x31BF | 0x31F0..=0x31FF
        | 0x3400..=0x4DBF | 0x4E00..=0x9FFF // Han
        | 0xA960..=0xA97C | 0xAC00..=0xD7FB // Hangul
        | 0xF900..=0xFAFF
        | 0x1B000..=0x1B16F // old Kana
        | 0x20000..=0x3FFFF // more Han
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_without_spaces_stand_apart() {
        assert_eq!(prepare("API错误 500"), "API 错  误  500");
        assert_eq!(prepare("ＡＰＩ ｴﾗｰ"), "API  エ  ラ  ー ");
        assert_eq!(prepare("plain text"), "plain text");
        assert_eq!(prepare("\u{20bb7}a"), " u20bb7 a");
        // The letters of a syllable are one syllable.
        assert_eq!(prepare("\u{1112}\u{1161}\u{11ab}"), " 한 ");
    }

    #[test]
    fn everything_that_is_asked_stands_in_quotes() {
        let expression = |query: &str| expression(query).map(|e| (e.all, e.any));
        let both = |all: &str, any: &str| Some((all.to_owned(), any.to_owned()));
        assert_eq!(expression("a \"b\" c"), both(r#""a" "b" "c"*"#, r#""a" OR "b" OR "c""#));
        assert_eq!(expression("evo-king (x"), both(r#""evo-king" "(x"*"#, r#""evo-king" OR "(x""#));
        assert_eq!(expression("错误"), both("\"错  误\"*", "\"错  误\""));
        assert_eq!(
            expression("失败了"),
            both("\"失  败  了\"*", "\"失 败\" OR \"败 了\" OR \"失  败  了\"")
        );
        assert_eq!(
            expression("错误，重试！"),
            both("\"错  误\" \"重  试\"*", "\"错  误\" OR \"重  试\"")
        );
        for nothing in ["", "  ", "?!", "\"\"", "* - ( ) :", "，。", "\u{0}"] {
            assert_eq!(expression(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn a_long_query_is_cut() {
        let long = "word ".repeat(1_000);
        let found = expression(&long).unwrap();
        assert_eq!(found.all.matches("word").count(), MAX_WORDS);
        let run = "错".repeat(10_000);
        assert!(expression(&run).unwrap().any.matches(" OR ").count() < 2 * MAX_WORDS);
    }
}
