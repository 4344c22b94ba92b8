//! Where a text matches a query: the snippet around the most of its words, and their places in it.

use std::{collections::HashSet, ops::Range};

use super::{
    stop_words::is_stop_word,
    words::{words, words_like},
};

/// About three lines on a screen.
const SNIPPET_CHARS: usize = 240;

/// Text before the first matching word, so that it does not stand alone.
const LEAD_CHARS: usize = 40;

/// A query's words, to be found in texts.
#[derive(Clone, Debug)]
pub struct Matcher {
    stems: HashSet<String>,
}

/// A matching word.
struct Match {
    stem: String,
    place: Range<usize>,
}

impl Matcher {
    /// Finds what the keyword leg finds for `query`.
    #[must_use]
    pub fn new(query: &str) -> Self {
        let all: Vec<_> = words(query).collect();
        let told: HashSet<String> =
            all.iter().filter(|word| !is_stop_word(&word.lower)).map(|word| word.stem.clone()).collect();
        let stems = if told.is_empty() { all.into_iter().map(|word| word.stem).collect() } else { told };
        Self { stems }
    }

    /// The part of `text` that holds the most different words of the query, at most 240 characters and cut at words, with an
    /// ellipsis where it was cut; and the matching words in it as start and end, counted in characters.
    #[must_use]
    pub fn snippet(&self, text: &str) -> (String, Vec<(usize, usize)>) {
        // A stem begins as its word does, so most words need not be stemmed.
        let begins = |word: &str| self.stems.iter().any(|stem| stem.chars().next() == word.chars().next());
        let matches: Vec<Match> = words_like(text, begins)
            .filter(|word| self.stems.contains(&word.stem))
            .map(|word| Match { stem: word.stem, place: word.place })
            .collect();
        let window = best_window(text, &matches);
        let (before, after) = (window.start > 0, window.end < text.len());
        let mut snippet = String::with_capacity(window.len() + 6);
        if before {
            snippet.push('…');
        }
        snippet.push_str(&text[window.clone()]);
        if after {
            snippet.push('…');
        }
        let shift = usize::from(before);
        let in_snippet = |at: usize| shift + text[window.start..at].chars().count();
        let mut marks: Vec<(usize, usize)> = matches
            .iter()
            .filter(|found| window.start <= found.place.start && found.place.end <= window.end)
            .map(|found| (in_snippet(found.place.start), in_snippet(found.place.end)))
            .collect();
        marks.sort_unstable();
        (snippet, without_overlaps(marks))
    }
}

/// Parts of an identifier lie inside the whole: what overlaps becomes one mark.
fn without_overlaps(marks: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    let mut joined: Vec<(usize, usize)> = Vec::with_capacity(marks.len());
    for (start, end) in marks {
        match joined.last_mut() {
            Some(last) if start < last.1 => last.1 = last.1.max(end),
            _ => joined.push((start, end)),
        }
    }
    joined
}

/// The window with the most different matching words; the first of equals, the beginning when nothing matches.
fn best_window(text: &str, matches: &[Match]) -> Range<usize> {
    let mut best = (0, window_from(text, 0));
    for (nth, first) in matches.iter().enumerate() {
        let window = window_from(text, back(text, first.place.start, LEAD_CHARS));
        let stems: HashSet<&str> = matches[nth..]
            .iter()
            .take_while(|found| found.place.end <= window.end)
            .map(|found| found.stem.as_str())
            .collect();
        if stems.len() > best.0 {
            best = (stems.len(), window);
        }
    }
    best.1
}

/// A window of the snippet's length that begins at or after `start`, cut at white space on both sides.
fn window_from(text: &str, start: usize) -> Range<usize> {
    let end = text[start..].char_indices().nth(SNIPPET_CHARS).map_or(text.len(), |(at, _)| start + at);
    let cut = |at: usize| {
        if at == text.len() { at } else { text[start..at].rfind(char::is_whitespace).map_or(at, |space| start + space) }
    };
    let end = cut(end);
    let trimmed = &text[start..end];
    let lead = trimmed.len() - trimmed.trim_start().len();
    start + lead..start + lead + trimmed.trim().len()
}

/// `chars` characters before `at`, moved forward to the next beginning of a word.
fn back(text: &str, at: usize, chars: usize) -> usize {
    let start = text[..at].char_indices().rev().nth(chars).map_or(0, |(start, _)| start);
    if start == 0 {
        return 0;
    }
    text[start..at].find(char::is_whitespace).map_or(at, |space| start + space)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_part_with_most_words_and_marks_them() {
        let text = format!("{} The connection pool waits. {}", "Nothing here. ".repeat(40), "Nor here. ".repeat(40));
        let (snippet, marks) = Matcher::new("pool connections").snippet(&text);
        assert!(snippet.starts_with('…') && snippet.ends_with('…'), "{snippet}");
        assert!(snippet.chars().count() <= SNIPPET_CHARS + 2);
        let characters: Vec<char> = snippet.chars().collect();
        let marked: Vec<String> = marks.iter().map(|&(start, end)| characters[start..end].iter().collect()).collect();
        assert_eq!(marked, ["connection", "pool"]);
    }

    #[test]
    fn a_short_text_is_its_own_snippet() {
        assert_eq!(Matcher::new("nothing").snippet("Two words."), ("Two words.".to_owned(), Vec::new()));
    }

    proptest::proptest! {
        #[test]
        fn marks_lie_in_the_snippet(text in "[a-zß连. \n_]{0,600}", query in "[a-z连 ]{1,12}") {
            let (snippet, marks) = Matcher::new(&query).snippet(&text);
            let length = snippet.chars().count();
            for pair in marks.windows(2) { proptest::prop_assert!(pair[0].1 <= pair[1].0); }
            for (start, end) in marks { proptest::prop_assert!(start < end && end <= length); }
        }
    }
}
