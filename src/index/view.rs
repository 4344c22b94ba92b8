//! Which sources a caller may see: all, or those of an allow-list of names and patterns.
//!
//! Whatever leads to documents takes a view: the resolving of a query, so that what the caller may not see is in no set
//! of generations, in no statement and in no key of a cache; and the reading of a page or passage by its id, as a condition in
//! SQL. A source outside the view is the same as one that does not exist.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What a caller may see. Cheap to clone; equal when the lists are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct View(Option<Arc<[String]>>);

impl View {
    /// All sources, also those to come.
    #[must_use]
    pub const fn everything() -> Self {
        Self(None)
    }

    /// Only sources that match one of `patterns`: exact names, or with `*` for any characters. None of them, nothing.
    #[must_use]
    pub fn only(mut patterns: Vec<String>) -> Self {
        patterns.sort_unstable();
        patterns.dedup();
        Self(Some(patterns.into()))
    }

    /// Whether the source is in it.
    #[must_use]
    pub fn allows(&self, source_id: &str) -> bool {
        match &self.0 {
            None => true,
            Some(patterns) => patterns.iter().any(|pattern| matches_pattern(pattern, source_id)),
        }
    }

    /// The allow-list, in order; none means all sources.
    #[must_use]
    pub fn patterns(&self) -> Option<&[String]> {
        self.0.as_deref()
    }

    /// The allow-list as patterns of SQL's `like`; none means all sources.
    pub(super) fn like(&self) -> Option<Vec<String>> {
        self.patterns().map(|patterns| patterns.iter().map(|pattern| like(pattern)).collect())
    }
}

/// Whether `name` matches `pattern`, in which each `*` stands for any run of characters.
pub(super) fn matches_pattern(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

/// The same pattern for `like`, whose own signs are taken literally.
fn like(pattern: &str) -> String {
    let mut sql = String::with_capacity(pattern.len() + 4);
    for c in pattern.chars() {
        match c {
            '*' => sql.push('%'),
            '%' | '_' | '\\' => sql.extend(['\\', c]),
            c => sql.push(c),
        }
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, name, matches) in [
            ("*", "tokio", true),
            ("tok*", "tokio", true),
            ("*io", "tokio", true),
            ("t*k*o", "tokio", true),
            ("t*x*o", "tokio", false),
            ("tokio*io", "tokio", false),
            ("a*a", "a", false),
            ("a_c", "abc", false),
            ("%", "tokio", false),
        ] {
            assert_eq!(matches_pattern(pattern, name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn a_view_allows_what_one_of_its_patterns_matches_and_an_empty_one_nothing() {
        let team = View::only(vec!["team-*".to_owned(), "guide".to_owned(), "guide".to_owned()]);
        for (source, allowed) in [("team-a", true), ("guide", true), ("guides", false), ("my-team-a", false)] {
            assert_eq!(team.allows(source), allowed, "{source}");
        }
        assert!(View::everything().allows("anything") && !View::only(Vec::new()).allows("anything"));
        assert_ne!(View::everything(), View::only(Vec::new()));
        assert_eq!(team, View::only(vec!["guide".to_owned(), "team-*".to_owned()]));
    }

    #[test]
    fn the_signs_of_like_are_taken_literally() {
        assert_eq!(like(r"a_b*%\"), r"a\_b%\%\\");
    }
}
