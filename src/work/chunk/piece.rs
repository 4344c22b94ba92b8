//! Pieces: blocks, or parts of blocks that are too heavy for one chunk.

use std::borrow::Cow;

use super::{
    split::{CODE, PROSE, ROWS, split},
    weight::Scale,
};
use crate::work::parse::{BlockKind, Page};

/// A fence grows with the backticks in its code up to here; beyond, tildes are used.
const FENCE_LIMIT: usize = 10;

/// A block or a part of one.
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    /// The block's place in the page.
    pub block: usize,
    /// The text without a fence.
    pub body: Cow<'a, str>,
    /// The weight of the rendered text.
    pub weight: usize,
}

impl<'a> Piece<'a> {
    /// The block `block` in pieces, none heavier than `budget`.
    pub fn of_block(page: &'a Page, block: usize, budget: usize, scale: &Scale) -> Vec<Self> {
        let body = match &page.blocks[block].kind {
            BlockKind::Prose(text) | BlockKind::Item(text) | BlockKind::Table(text) => text,
            BlockKind::Code { code, .. } => code,
        };
        if body.trim().is_empty() {
            return Vec::new();
        }
        let whole = Piece::new(page, block, Cow::Borrowed(body), scale);
        if whole.weight <= budget { vec![whole] } else { whole.split(page, budget, scale) }
    }

    /// The piece cut into lighter ones; at least one, and never one without text.
    pub fn split(&self, page: &Page, budget: usize, scale: &Scale) -> Vec<Self> {
        let kind = &page.blocks[self.block].kind;
        let (head, body) = match kind {
            BlockKind::Table(_) => header(&self.body, budget, scale),
            _ => ("", &*self.body),
        };
        let cost = match kind {
            BlockKind::Code { .. } => scale.weigh(&fenced(kind, "")),
            _ => scale.weigh(head),
        };
        let boundaries = match kind {
            BlockKind::Code { .. } => CODE,
            BlockKind::Table(_) => ROWS,
            BlockKind::Prose(_) | BlockKind::Item(_) => PROSE,
        };
        let parts = split(body, boundaries, budget.saturating_sub(cost).max(1), scale);
        let bodies = parts.into_iter().filter(|part| !part.trim().is_empty()).map(|part| match kind {
            // Indentation on the first line of a part is kept: it is code.
            BlockKind::Code { .. } => part.trim_matches('\n').to_owned(),
            BlockKind::Table(_) => format!("{head}{}", part.trim()),
            BlockKind::Prose(_) | BlockKind::Item(_) => part.trim_end().to_owned(),
        });
        bodies.map(|body| Piece::new(page, self.block, Cow::Owned(body), scale)).collect()
    }

    fn new<'b>(page: &Page, block: usize, body: Cow<'b, str>, scale: &Scale) -> Piece<'b> {
        let weight = match &page.blocks[block].kind {
            kind @ BlockKind::Code { .. } => scale.weigh(&fenced(kind, &body)),
            _ => scale.weigh(&body),
        };
        Piece { block, body, weight }
    }

    /// The text to show.
    pub fn text(&self, page: &Page) -> Cow<'_, str> {
        match &page.blocks[self.block].kind {
            kind @ BlockKind::Code { .. } => Cow::Owned(fenced(kind, &self.body)),
            _ => Cow::Borrowed(&self.body),
        }
    }
}

/// The first two lines of a table, which each part repeats, and its rows. A header that leaves no room is a row.
fn header<'a>(table: &'a str, budget: usize, scale: &Scale) -> (&'a str, &'a str) {
    let end = table.match_indices('\n').nth(1).map_or(0, |(position, _)| position + 1);
    let (head, rows) = table.split_at(end);
    if rows.trim().is_empty() || scale.weigh(head) > budget / 2 { ("", table) } else { (head, rows) }
}

/// `code` between fences that it does not contain.
fn fenced(kind: &BlockKind, code: &str) -> String {
    let BlockKind::Code { language, title, .. } = kind else { return code.to_owned() };
    let run = code.split(|letter| letter != '`').map(str::len).max().unwrap_or(0);
    let fence = if run > FENCE_LIMIT { "~~~".to_owned() } else { "`".repeat(run.saturating_add(1).max(3)) };
    let language = language.as_deref().unwrap_or("");
    let title = title.as_ref().map(|title| format!(" [{title}]")).unwrap_or_default();
    format!("{fence}{language}{title}\n{code}\n{fence}")
}
