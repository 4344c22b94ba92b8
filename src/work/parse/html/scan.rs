//! HTML as a flat run of tags and text, for what must be known before a tree is built, and when none can be.
//!
//! A browser's tree construction is quadratic in the depth of open elements and in the attributes of a tag, and copies
//! unclosed formatting into every paragraph. [`is_tame`] tells in one pass whether a file stays far from that.

use super::elements;

/// Elements open at once. Real pages stay below 100; unclosed tags count as open here, so there is room for sloppiness.
const DEPTH_LIMIT: usize = 512;
/// Attributes of one tag. Real ones have a few dozen at most.
const ATTRIBUTE_LIMIT: usize = 256;
/// Copies of unclosed formatting elements that a browser might make: what still fits in memory with ease.
const COPY_LIMIT: usize = 1_000_000;
/// Files and fragments up to this size cannot take long whatever they hold.
const SMALL: usize = 2048;

/// A piece of HTML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text, its entities not resolved.
    Text(&'a str),
    /// A start tag.
    Open {
        /// The name as written.
        name: &'a str,
        /// How many attributes it may have.
        attributes: usize,
        /// It ends in `/>`.
        closed: bool,
    },
    /// An end tag.
    Close(&'a str),
}

/// Cuts HTML into pieces; comments, declarations and the content of scripts and styles are skipped.
#[derive(Debug)]
pub struct Pieces<'a> {
    rest: &'a str,
    /// Inside SVG or MathML, where scripts and styles are read like everything else.
    foreign: bool,
}

impl<'a> Pieces<'a> {
    pub fn new(html: &'a str) -> Self {
        Self { rest: html, foreign: false }
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn skip_comment(&mut self) {
        let body = &self.rest[2..];
        let end = body.find("-->").map_or(self.rest.len(), |end| 2 + end + 3);
        let early = self.rest[..end].find("--!>").map_or(end, |early| early + 4);
        self.take(early);
    }

    /// Skips to the end tag of a script or style, or to the end of the file.
    fn skip_raw(&mut self, name: &str) {
        let mut position = 0;
        while let Some(found) = self.rest[position..].find("</") {
            position += found;
            let candidate = self.rest.as_bytes().get(position + 2..position + 2 + name.len());
            if candidate.is_some_and(|candidate| candidate.eq_ignore_ascii_case(name.as_bytes())) {
                self.take(position);
                return;
            }
            position += 2;
        }
        self.take(self.rest.len());
    }

    fn tag(&mut self) -> Piece<'a> {
        let close = self.rest.starts_with("</");
        let tag = self.take(tag_length(self.rest).0);
        let inner = tag[1 + usize::from(close)..].trim_end_matches('>');
        let end = inner.find(|letter: char| letter.is_ascii_whitespace() || letter == '/').unwrap_or(inner.len());
        let name = &inner[..end];
        let is_foreign = name.eq_ignore_ascii_case("svg") || name.eq_ignore_ascii_case("math");
        if close {
            self.foreign &= !is_foreign;
            return Piece::Close(name);
        }
        let lower = name.to_ascii_lowercase();
        if is_foreign {
            self.foreign = true;
        } else if !self.foreign && elements::is_raw(&lower) {
            self.skip_raw(name);
        } else if elements::is_element(&lower) && !matches!(lower.as_str(), "a" | "style" | "script" | "title") {
            self.foreign = false;
        }
        let closed = inner.ends_with('/') && self.foreign;
        Piece::Open { name, attributes: tag_length(tag).1, closed }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        loop {
            let bytes = self.rest.as_bytes();
            let first = *bytes.first()?;
            let (second, third) = (bytes.get(1).copied().unwrap_or(0), bytes.get(2).copied().unwrap_or(0));
            if first != b'<' {
                let length = self.rest.find('<').unwrap_or(self.rest.len());
                return Some(Piece::Text(self.take(length)));
            }
            if self.rest.starts_with("<!--") {
                self.skip_comment();
            } else if second.is_ascii_alphabetic() || (second == b'/' && third.is_ascii_alphabetic()) {
                return Some(self.tag());
            } else if matches!(second, b'!' | b'?' | b'/') {
                let length = self.rest.find('>').map_or(self.rest.len(), |end| end + 1);
                self.take(length);
            } else {
                return Some(Piece::Text(self.take(1)));
            }
        }
    }
}

/// The length of the tag that opens here, quotes respected, and how many attributes it may have.
fn tag_length(text: &str) -> (usize, usize) {
    let (mut quote, mut before, mut attributes) = (None, ' ', 0);
    for (position, letter) in text.char_indices().skip(1) {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (Some(_), _) => {}
            (None, '>') => return (position + 1, attributes),
            (None, '"' | '\'') if before == '=' => quote = Some(letter),
            (None, _) if letter.is_ascii_whitespace() || matches!(letter, '/' | '"' | '\'') => attributes += 1,
            _ => {}
        }
        if !letter.is_ascii_whitespace() {
            before = letter;
        }
    }
    (text.len(), attributes)
}

/// Whether a tree of `html` can be built in time and memory that grow linearly.
pub fn is_tame(html: &str) -> bool {
    if html.len() <= SMALL {
        return true;
    }
    let mut open: Vec<&str> = Vec::new();
    let (mut formatting, mut copies) = (0_usize, 0_usize);
    for piece in Pieces::new(html) {
        copies += formatting;
        match piece {
            Piece::Text(_) => {}
            Piece::Open { attributes, .. } if attributes > ATTRIBUTE_LIMIT => return false,
            Piece::Open { name, closed, .. } => {
                if !closed && elements::nests(&name.to_ascii_lowercase()) {
                    open.push(name);
                    formatting += usize::from(elements::is_formatting(name));
                }
            }
            // An end tag that does not match the innermost element may be ignored by a browser: assume it is.
            Piece::Close(name) => {
                if open.last().is_some_and(|last| last.eq_ignore_ascii_case(name)) {
                    open.pop();
                    formatting -= usize::from(elements::is_formatting(name));
                }
            }
        }
        if open.len() > DEPTH_LIMIT || copies > COPY_LIMIT.max(html.len() / 2) {
            return false;
        }
    }
    true
}
