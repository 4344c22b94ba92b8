//! Cutting a text that is too heavy: at the coarsest boundaries that make its parts fit.
//!
//! The parts, put together, are the text again. A part is over the budget only if a single character is.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use super::weight::Scale;

/// Words are weighed in runs of up to this many bytes, half a line: a tokenizer costs mostly per call.
const RUN: usize = 40;
/// A word that is too heavy is cut to pieces of at most this many bytes: short enough for one token each byte.
const SLICE: usize = 24;

/// Where a text may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    BlankLine,
    Line,
    Sentence,
    /// After `.`, `!` or `?` and white space, whatever follows: a point before a small letter looks like an abbreviation's,
    /// but in a text without capitals every sentence ends so.
    Stop,
    Word,
    /// After a mark in a word: `path/to/file`, `f(a,b)`.
    Mark,
    Character,
}

/// Prose is cut between sentences (a line break ends one), else between words.
pub const PROSE: &[Boundary] =
    &[Boundary::Sentence, Boundary::Stop, Boundary::Word, Boundary::Mark, Boundary::Character];
/// Code is cut at blank lines, else between lines, else between words.
pub const CODE: &[Boundary] =
    &[Boundary::BlankLine, Boundary::Line, Boundary::Word, Boundary::Mark, Boundary::Character];
/// Rows are lines.
pub const ROWS: &[Boundary] = &[Boundary::Line, Boundary::Word, Boundary::Mark, Boundary::Character];

/// Cuts `text` into parts of about equal weight, none over `budget`.
pub fn split<'a>(text: &'a str, boundaries: &[Boundary], budget: usize, scale: &Scale) -> Vec<&'a str> {
    let mut segments = Vec::new();
    collect(text, boundaries, budget, scale, &mut segments);
    let weights: Vec<usize> = segments.iter().map(|(_, weight)| *weight).collect();
    let mut parts = Vec::new();
    let mut rest = text;
    for range in balance(&weights, budget) {
        let length = segments[range].iter().map(|(segment, _)| segment.len()).sum();
        let (part, after) = rest.split_at(length);
        parts.push(part);
        rest = after;
    }
    parts
}

/// The segments of `text` with their weights, heavy ones cut again at the next finer boundary.
fn collect<'a>(
    text: &'a str,
    boundaries: &[Boundary],
    budget: usize,
    scale: &Scale,
    segments: &mut Vec<(&'a str, usize)>,
) {
    let Some((boundary, finer)) = boundaries.split_first() else { return };
    for segment in cut(text, *boundary) {
        let weight = scale.weigh(segment);
        if weight <= budget || (finer.is_empty() && segment.chars().nth(1).is_none()) {
            segments.push((segment, weight));
        } else if finer.is_empty() {
            let middle = segment.floor_char_boundary(segment.len() / 2);
            let middle = if middle == 0 { segment.ceil_char_boundary(1) } else { middle };
            let (left, right) = segment.split_at(middle);
            collect(left, boundaries, budget, scale, segments);
            collect(right, boundaries, budget, scale, segments);
        } else {
            collect(segment, finer, budget, scale, segments);
        }
    }
}

/// All of `text` in consecutive segments.
fn cut(text: &str, boundary: Boundary) -> Vec<&str> {
    match boundary {
        Boundary::BlankLine => groups(text.split_inclusive('\n'), text, |group, line| {
            !text[..group.end].ends_with("\n\n") || line.trim().is_empty()
        }),
        Boundary::Line => text.split_inclusive('\n').collect(),
        Boundary::Sentence => text.split_sentence_bounds().collect(),
        Boundary::Stop => groups(text.split_inclusive([' ', '\n', '\t']), text, |group, word| {
            word.trim().is_empty() || !text[..group.end].trim_end().ends_with(['.', '!', '?'])
        }),
        Boundary::Word => {
            groups(text.split_inclusive([' ', '\n', '\t']), text, |group, word| group.len() + word.len() <= RUN)
        }
        Boundary::Mark => {
            let parts = text.split_inclusive(|letter: char| !letter.is_alphanumeric() && letter != '_');
            groups(parts, text, |group, part| group.len() + part.len() <= SLICE)
        }
        Boundary::Character => {
            let letters = text.char_indices().map(|(start, letter)| &text[start..start + letter.len_utf8()]);
            groups(letters, text, |group, letter| group.len() + letter.len() <= SLICE)
        }
    }
}

/// Joins neighbouring segments of `text` while `joins` says so.
fn groups<'a>(
    segments: impl Iterator<Item = &'a str>,
    text: &'a str,
    joins: impl Fn(&Range<usize>, &str) -> bool,
) -> Vec<&'a str> {
    let mut groups = Vec::new();
    let mut open = 0..0;
    for segment in segments {
        if !open.is_empty() && !joins(&open, segment) {
            groups.push(&text[open.clone()]);
            open = open.end..open.end;
        }
        open.end += segment.len();
    }
    if !open.is_empty() {
        groups.push(&text[open]);
    }
    groups
}

/// Ranges of consecutive weights, none heavier than `budget` unless it is a single one, of about equal weight.
pub fn balance(weights: &[usize], budget: usize) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut left: usize = weights.iter().sum();
    let (mut start, mut weight) = (0, 0);
    let mut target = target_of(left, budget);
    for (position, next) in weights.iter().enumerate() {
        // Past the target by less than half of the next weight is nearer to it than short by the rest.
        if position > start && (weight + next > budget || weight + next / 2 > target) {
            ranges.push(start..position);
            left = left.saturating_sub(weight);
            target = target_of(left, budget);
            (start, weight) = (position, 0);
        }
        weight += next;
    }
    if start < weights.len() {
        ranges.push(start..weights.len());
    }
    ranges
}

/// What each part weighs when `total` is spread evenly over as few parts as the budget allows.
fn target_of(total: usize, budget: usize) -> usize {
    let budget = budget.max(1);
    total.div_ceil(total.div_ceil(budget).max(1))
}
