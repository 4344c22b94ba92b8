//! Text to words: runs of letters and digits, cut where an identifier has seams, in lower case and stemmed.
//!
//! | text | words (`*`: a whole) |
//! |---|---|
//! | `writeBoolean` | write boolean writeboolean* |
//! | `std::collections::HashMap` | std collect hash map stdcollectionshashmap* |
//! | `E0308` | e 0308 e0308* |
//! | `--dry-run` | dri run dryrun* |
//! | `18.4` | 18 4 18.4* |

use std::ops::Range;

use rust_stemmers::{Algorithm, Stemmer};

/// Longer runs are keys, hashes and data: nobody looks for them.
const MAX_WORD: usize = 64;

/// `sha256sum` has three pieces and is cut; a hash has many and is not.
const MAX_NUMBER_PIECES: usize = 3;

/// What English puts behind an apostrophe: no part of the word.
const CONTRACTIONS: [&str; 7] = ["s", "t", "re", "ve", "ll", "d", "m"];

/// A word of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// In lower case.
    pub lower: String,
    /// What it is compared by.
    pub stem: String,
    /// A whole identifier, whose parts come before it.
    pub whole: bool,
    /// Where it stands in the text, in bytes.
    pub place: Range<usize>,
}

/// The words of `text` in order: the parts of each run, then the run as a whole when it has more than one.
pub(super) fn words(text: &str) -> impl Iterator<Item = Word> + '_ {
    words_like(text, |_| true)
}

/// Those of the words that are `wanted` by their lower case form, before the work of stemming is done.
pub(super) fn words_like<'a>(text: &'a str, wanted: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = Word> + 'a {
    let stemmer = Stemmer::create(Algorithm::English);
    runs(text).flat_map(move |run| words_of_run(&stemmer, text, run, &wanted))
}

fn words_of_run(stemmer: &Stemmer, text: &str, run: Range<usize>, wanted: &impl Fn(&str) -> bool) -> Vec<Word> {
    let parts: Vec<Range<usize>> = segments(text, &run)
        .into_iter()
        .flat_map(|segment| pieces(text, segment))
        .filter(|part| part.len() <= MAX_WORD)
        .collect();
    let word = |lower: String, whole: bool, place: Range<usize>| {
        wanted(&lower).then(|| Word { stem: stem(stemmer, &lower), lower, whole, place })
    };
    let mut words: Vec<Word> =
        parts.iter().filter_map(|part| word(text[part.clone()].to_lowercase(), false, part.clone())).collect();
    if parts.len() > 1 && !text[run.clone()].chars().any(is_ideograph) {
        let whole = whole_of(text, &parts);
        if whole.len() <= MAX_WORD {
            words.extend(word(whole.to_lowercase(), true, run));
        }
    }
    words
}

fn stem(stemmer: &Stemmer, lower: &str) -> String {
    stemmer.stem(lower).into_owned()
}

/// The parts without what stood between them; a point between two digits stays, since 1.84 is not 184.
fn whole_of(text: &str, parts: &[Range<usize>]) -> String {
    let mut whole = String::new();
    for part in parts {
        let joined = whole.ends_with(|c: char| c.is_ascii_digit())
            && text[part.clone()].starts_with(|c: char| c.is_ascii_digit());
        if joined && text[..part.start].ends_with('.') {
            whole.push('.');
        }
        whole.push_str(&text[part.clone()]);
    }
    whole
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Written without spaces: each character is a word of its own, and pairs do the rest.
fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}')
}

/// Runs of word characters, joined by one `::`, `.`, `-` or apostrophe, without a contraction at the end.
fn runs(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].find(is_word)?;
        let mut end = word_end(text, start);
        while let Some(next) = joined_at(text, end) {
            end = word_end(text, next);
        }
        at = end;
        Some(start..without_contraction(text, start..end))
    })
}

fn word_end(text: &str, start: usize) -> usize {
    text[start..].find(|c| !is_word(c)).map_or(text.len(), |length| start + length)
}

/// Where the run goes on behind a joining mark at `end`.
fn joined_at(text: &str, end: usize) -> Option<usize> {
    let rest = &text[end..];
    let mark = ["::", ".", "-", "'", "’"].into_iter().find(|mark| rest.starts_with(mark))?;
    rest[mark.len()..].starts_with(is_word).then_some(end + mark.len())
}

fn without_contraction(text: &str, run: Range<usize>) -> usize {
    let shortened = text[run.clone()].rfind(['\'', '’']).filter(|&at| {
        let tail = text[run.start + at..run.end].trim_start_matches(['\'', '’']).to_ascii_lowercase();
        at > 0 && CONTRACTIONS.contains(&tail.as_str())
    });
    shortened.map_or(run.end, |at| run.start + at)
}

/// The run between its joining marks and underscores.
fn segments(text: &str, run: &Range<usize>) -> Vec<Range<usize>> {
    let mut segments = Vec::new();
    let mut start = None;
    for (at, c) in text[run.clone()].char_indices() {
        let at = run.start + at;
        match (c.is_alphanumeric(), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                segments.push(from..at);
                start = None;
            }
            _ => {}
        }
    }
    segments.extend(start.map(|from| from..run.end));
    segments
}

/// A segment cut at its seams: `parse|JSON2|Dict`, then at its numbers where those are few: `JSON|2`.
fn pieces(text: &str, segment: Range<usize>) -> Vec<Range<usize>> {
    if segment.len() > MAX_WORD && !text[segment.clone()].chars().any(is_ideograph) {
        return Vec::new();
    }
    cut(text, segment, is_case_seam)
        .into_iter()
        .flat_map(|piece| {
            let numbers = cut(text, piece.clone(), |before, c, _| before.is_numeric() != c.is_numeric());
            if numbers.len() <= MAX_NUMBER_PIECES || text[piece.clone()].chars().any(is_ideograph) {
                numbers
            } else {
                vec![piece]
            }
        })
        .collect()
}

/// `lower|Upper`, `UPPER|Upper-lower`, `digit|Upper-lower`, and around every ideograph.
fn is_case_seam(before: char, c: char, after: Option<char>) -> bool {
    let upper_then_lower = c.is_uppercase() && after.is_some_and(char::is_lowercase);
    (before.is_lowercase() && c.is_uppercase())
        || ((before.is_uppercase() || before.is_numeric()) && upper_then_lower)
        || is_ideograph(before)
        || is_ideograph(c)
}

fn cut(text: &str, range: Range<usize>, is_seam: impl Fn(char, char, Option<char>) -> bool) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut start = range.start;
    let mut before = None;
    let mut characters = text[range.clone()].char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        let after = characters.peek().map(|(_, after)| *after);
        if before.is_some_and(|before| is_seam(before, c, after)) {
            pieces.push(start..range.start + at);
            start = range.start + at;
        }
        before = Some(c);
    }
    pieces.push(start..range.end);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let shown: Vec<String> =
            words(text).map(|word| if word.whole { format!("{}*", word.stem) } else { word.stem }).collect();
        shown.join(" ")
    }

    #[test]
    fn identifiers_count_in_parts_and_whole() {
        for (text, expected) in [
            ("def writeBoolean(self, n):", "def write boolean writeboolean* self n"),
            ("snake_case_name", "snake case name snakecasenam*"),
            ("std::collections::HashMap", "std collect hash map stdcollectionshashmap*"),
            ("os.path.join(a, b)", "os path join ospathjoin* a b"),
            ("git commit --dry-run", "git commit dri run dryrun*"),
            ("error[E0308]: mismatched types", "error e 0308 e0308* mismatch type"),
            ("HTTPServer", "http server httpserver*"),
            ("parseJSON2Dict", "pars json 2 dict parsejson2dict*"),
            ("utf8 decoding", "utf 8 utf8* decod"),
            ("Postgres 18.4 and 16.14", "postgr 18 4 18.4* and 16 14 16.14*"),
            ("don't panic", "don panic"),
            ("the user's files", "the user file"),
            ("readonly read_only readOnly", "readon read onli readon* read onli readon*"),
            ("C++ and C#", "c and c"),
            ("/var/lib/doc-server", "var lib doc server docserv*"),
            ("foo->bar", "foo bar"),
            ("Vec<String>", "vec string"),
            ("__init__", "init"),
            ("sha256sum 9f86d081884c7d65", "sha 256 sum sha256sum* 9f86d081884c7d65"),
            ("DOC_SERVER_DATABASE_URL", "doc server databas url docserverdatabaseurl*"),
            ("x.y.z=1", "x y z xyz* 1"),
            ("slipstream .  the results", "slipstream the result"),
            ("boundary-layer-control", "boundari layer control boundarylayercontrol*"),
            ("running runs ran runner", "run run ran runner"),
            ("tokio::spawn(async move {})", "tokio spawn tokiospawn* async move"),
            ("Über-Größe naïve café", "über größe übergröß* naïv café"),
            ("连接池", "连 接 池"),
            (&"QmFzZTY0Cg".repeat(20), ""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn places_are_those_of_the_text() {
        let text = "say writeBoolean’s name";
        let places: Vec<&str> = words(text).map(|word| &text[word.place]).collect();
        assert_eq!(places, ["say", "write", "Boolean", "writeBoolean", "name"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_words_at_real_places(text in "\\PC{0,80}") {
            for word in words(&text) {
                proptest::prop_assert!(text.get(word.place).is_some_and(|part| !part.is_empty()));
            }
        }
    }
}
