//! Which pieces make a chunk: sections are filled evenly, then small neighbours share one.

use super::{context::Contexts, piece::Piece, split::balance, weight::Scale};
use crate::work::parse::{Block, BlockKind, Page};

/// Sections lighter than this share a chunk with a neighbour: alone they say too little to be found by meaning.
const SMALL: usize = 100;

/// The pieces of a future chunk.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    pub pieces: Vec<Piece<'a>>,
    /// The section that all pieces stand under.
    pub section: &'a [String],
    /// The weight of pieces and inner headings.
    weight: usize,
    /// It holds whole sections, so that another one may join.
    whole: bool,
}

/// Distributes the blocks of `page` over drafts.
pub fn pack<'a>(page: &'a Page, scale: &Scale, contexts: &mut Contexts) -> Vec<Draft<'a>> {
    let mut drafts: Vec<Draft<'a>> = Vec::new();
    let mut position = 0;
    while position < page.blocks.len() {
        let section = page.blocks[position].section.as_slice();
        let end = position + page.blocks[position..].iter().take_while(|block| block.section == section).count();
        let budget = contexts.budget(section);
        let pieces = (position..end).flat_map(|block| Piece::of_block(page, block, budget, scale)).collect();
        for draft in fill(page, section, pieces, budget) {
            match drafts.last_mut() {
                Some(last) if joins(page, last, &draft, scale, contexts) => join(page, last, draft, scale),
                _ => drafts.push(draft),
            }
        }
        position = end;
    }
    drafts
}

/// Spreads the pieces of one section evenly over as few drafts as the budget allows.
fn fill<'a>(page: &Page, section: &'a [String], pieces: Vec<Piece<'a>>, budget: usize) -> Vec<Draft<'a>> {
    let units = units(page, pieces, budget);
    let weights: Vec<usize> = units.iter().map(|unit| unit.iter().map(|piece| piece.weight).sum()).collect();
    let ranges = balance(&weights, budget);
    let whole = ranges.len() == 1;
    let mut units = units.into_iter();
    let drafts = ranges.into_iter().map(|range| Draft {
        weight: weights[range.clone()].iter().sum(),
        pieces: units.by_ref().take(range.len()).flatten().collect(),
        section,
        whole,
    });
    drafts.collect()
}

/// Pieces that belong together: code or a table and the paragraph that leads to it, a list and what announces it.
fn units<'a>(page: &Page, pieces: Vec<Piece<'a>>, budget: usize) -> Vec<Vec<Piece<'a>>> {
    let mut units: Vec<Vec<Piece<'a>>> = Vec::new();
    for piece in pieces {
        let lead = units.last().and_then(|unit| unit.last().map(|last| (unit.len(), last)));
        let joined = lead.is_some_and(|(length, lead)| {
            length == 1 && leads(page, lead, &piece) && lead.weight + piece.weight <= budget
        });
        match units.last_mut() {
            Some(unit) if joined => unit.push(piece),
            _ => units.push(vec![piece]),
        }
    }
    units
}

fn leads(page: &Page, lead: &Piece, piece: &Piece) -> bool {
    let kind = |piece: &Piece| &page.blocks[piece.block].kind;
    let prose = matches!(kind(lead), BlockKind::Prose(_) | BlockKind::Item(_));
    let shown = matches!(kind(piece), BlockKind::Code { .. } | BlockKind::Table(_));
    prose && lead.block != piece.block && (shown || lead.body.ends_with(':'))
}

/// Whether two neighbouring drafts are better as one.
fn joins(page: &Page, last: &Draft, next: &Draft, scale: &Scale, contexts: &mut Contexts) -> bool {
    if !(last.whole && next.whole) {
        return false;
    }
    let common = common(last.section, next.section);
    let small = match common.len() {
        // Top-level sections are about different things: only when neither has much to say.
        0 => last.weight < SMALL && next.weight < SMALL,
        _ => last.weight < SMALL || next.weight < SMALL,
    };
    let weight = || last.weight + next.weight + headings_weight(page, last, next, scale);
    small && last.weight + next.weight <= scale.room() && weight() <= contexts.budget(common)
}

fn join<'a>(page: &Page, last: &mut Draft<'a>, next: Draft<'a>, scale: &Scale) {
    last.weight += next.weight + headings_weight(page, last, &next, scale);
    last.section = common(last.section, next.section);
    last.pieces.extend(next.pieces);
}

/// What the headings weigh that become part of the content when the drafts are joined.
fn headings_weight(page: &Page, last: &Draft, next: &Draft, scale: &Scale) -> usize {
    let common = common(last.section, next.section).len();
    let above =
        if common < last.section.len() { headings(&page.blocks[last.pieces[0].block], common) } else { String::new() };
    scale.weigh(&above) + scale.weigh(&headings(&page.blocks[next.pieces[0].block], common))
}

/// The section path of `block` from `depth` on, as Markdown headings.
pub fn headings(block: &Block, depth: usize) -> String {
    let lines = block.section.iter().enumerate().skip(depth).map(|(level, text)| {
        // The title is the first level; Markdown knows six.
        format!("{} {text}", "#".repeat((level + 2).min(6)))
    });
    lines.collect::<Vec<_>>().join("\n\n")
}

/// The headings that both sections stand under.
pub fn common<'a>(one: &'a [String], other: &[String]) -> &'a [String] {
    let length = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    &one[..length]
}
