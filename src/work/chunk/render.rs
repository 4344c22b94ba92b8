//! From a draft to a chunk: its text is written and counted, and cut once more where the weights promised too much.

use std::collections::BTreeMap;

use super::{
    Chunk,
    context::Contexts,
    pack::{Draft, common, headings},
    piece::Piece,
    weight::Scale,
};
use crate::work::parse::{BlockKind, Page};

/// Writes the chunk of `draft`, or several when it turns out too long; `emit` gets each with the blocks it holds.
pub fn render(
    draft: Draft,
    page: &Page,
    scale: &Scale,
    contexts: &mut Contexts,
    emit: &mut dyn FnMut(Chunk, &mut dyn Iterator<Item = usize>),
) {
    // Each round on the stack holds fewer pieces, or lighter ones: `budget` falls with every further cut.
    let mut waiting = vec![(draft.pieces, usize::MAX)];
    while let Some((pieces, budget)) = waiting.pop() {
        let chunk = write(&pieces, page, scale, contexts);
        if scale.fits(chunk.tokens) || budget <= 1 {
            emit(chunk, &mut pieces.iter().map(|piece| piece.block));
        } else if let [piece] = pieces.as_slice() {
            let budget = piece.weight.min(budget) * 3 / 4;
            let lighter = piece.split(page, budget, scale);
            waiting.extend(lighter.into_iter().rev().map(|piece| (vec![piece], budget)));
        } else {
            let mut first = pieces;
            let second = first.split_off(first.len() / 2);
            waiting.extend([(second, budget), (first, budget)]);
        }
    }
}

fn write(pieces: &[Piece], page: &Page, scale: &Scale, contexts: &mut Contexts) -> Chunk {
    let section = section_of(pieces, page);
    let context = contexts.of(section).text;
    let shown = text_of(pieces, page, section);
    let embed_text = format!("{context}\n\n{shown}");
    let mut hasher = blake3::Hasher::new();
    // A NUL is in neither text, so the pair is hashed without ambiguity.
    hasher.update(embed_text.as_bytes()).update(b"\0").update(shown.as_bytes());
    Chunk {
        number: 0,
        section: section.to_vec(),
        language: language(pieces, page, shown.len()),
        tokens: scale.tokens(&embed_text),
        hash: *hasher.finalize().as_bytes(),
        content: shown,
        context,
        embed_text,
    }
}

fn section_of<'a>(pieces: &[Piece], page: &'a Page) -> &'a [String] {
    let mut sections = pieces.iter().map(|piece| page.blocks[piece.block].section.as_slice());
    let first = sections.next().unwrap_or_default();
    sections.fold(first, |section, other| common(section, other))
}

/// The pieces as Markdown, with the headings below `section` where one begins.
fn text_of(pieces: &[Piece], page: &Page, section: &[String]) -> String {
    let mut text = String::new();
    let mut above = section;
    let mut listed = false;
    for piece in pieces {
        let block = &page.blocks[piece.block];
        let item = matches!(block.kind, BlockKind::Item(_));
        let turned = block.section != above;
        if !text.is_empty() {
            text.push_str(if item && listed && !turned { "\n" } else { "\n\n" });
        }
        if turned {
            let known = common(above, &block.section).len();
            let lines = headings(block, known);
            text.push_str(&lines);
            if !lines.is_empty() {
                text.push_str("\n\n");
            }
            above = &block.section;
        }
        text.push_str(&piece.text(page));
        listed = item;
    }
    text
}

/// The code language that makes up at least half of a content of `length` bytes.
fn language(pieces: &[Piece], page: &Page, length: usize) -> Option<String> {
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for piece in pieces {
        if let BlockKind::Code { language: Some(language), .. } = &page.blocks[piece.block].kind {
            *sizes.entry(language).or_default() += piece.body.len();
        }
    }
    let (language, size) = sizes.into_iter().max_by_key(|(_, size)| *size)?;
    (size * 2 >= length).then(|| language.to_owned())
}
