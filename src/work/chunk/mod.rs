//! A page becomes chunks: passages that a model reads whole, each with its place in the page.
//!
//! Every chunk has at most [`Limits::max_tokens`] tokens with its context, counted by the model's own tokenizer. No
//! word of the page is lost, code stays whole where it fits, and the same page always gives the same chunks. Each
//! block is counted once, each chunk once more: time grows linearly with the page.

mod context;
mod pack;
mod piece;
mod render;
mod split;
#[cfg(test)]
mod tests;
mod weight;

use self::{context::Contexts, weight::Scale};
use super::parse::{BlockKind, Page};

/// With fewer tokens a context and a word do not fit together; smaller limits are read as this one.
const MIN_TOKENS: usize = 32;

/// How much of the prose before a code example is kept with it, in bytes: two or three sentences.
const EXAMPLE_CONTEXT: usize = 300;

/// How far above a code block its prose may stand: the tabs of one example follow each other.
const EXAMPLE_REACH: usize = 6;

/// The bounds of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of a chunk with its context and the model's special tokens.
    pub max_tokens: usize,
}

impl Default for Limits {
    /// 256 tokens, the length all-MiniLM-L6-v2 was trained for.
    fn default() -> Self {
        Self { max_tokens: 256 }
    }
}

/// A passage of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its place in the page, from 0.
    pub number: usize,
    /// The headings that all of it stands under, outermost first.
    pub section: Vec<String>,
    /// The text to show, as readable Markdown.
    pub content: String,
    /// The page's title, and the section path on a second line; shortened in the middle where it is long.
    pub context: String,
    /// Exactly what the model embeds: context and content.
    pub embed_text: String,
    /// Tokens of `embed_text`.
    pub tokens: usize,
    /// The language of its code, where that is at least half of the content.
    pub language: Option<String>,
    /// BLAKE3 of `embed_text` and `content`: equal hashes need no new embedding.
    pub hash: [u8; 32],
}

/// A code block of a page, whole even when its chunk holds only the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeExample {
    /// The language its fence names.
    pub language: Option<String>,
    /// The code without its fence.
    pub code: String,
    /// The headings above it.
    pub section: Vec<String>,
    /// The prose just before it, short; empty where the section begins with code.
    pub context: String,
    /// The chunk in which it begins.
    pub chunk_number: usize,
}

/// Cuts `page` into chunks and lists its code blocks. `count` is the model's tokenizer, special tokens included; it is
/// never given more than about ten bytes for each token of the limit.
#[must_use]
pub fn chunk(page: &Page, limits: &Limits, count: &dyn Fn(&str) -> usize) -> (Vec<Chunk>, Vec<CodeExample>) {
    let scale = Scale::new(count, limits.max_tokens.max(MIN_TOKENS));
    let mut contexts = Contexts::new(&page.title, &scale);
    let drafts = pack::pack(page, &scale, &mut contexts);
    let mut chunks = Vec::with_capacity(drafts.len());
    // Where each block begins; later parts of a split one find it known.
    let mut begins: Vec<Option<usize>> = vec![None; page.blocks.len()];
    for draft in drafts {
        render::render(draft, page, &scale, &mut contexts, &mut |rendered, blocks| {
            let number = chunks.len();
            for block in blocks {
                begins[block].get_or_insert(number);
            }
            chunks.push(Chunk { number, ..rendered });
        });
    }
    (chunks, examples(page, &begins))
}

fn examples(page: &Page, begins: &[Option<usize>]) -> Vec<CodeExample> {
    let code = page.blocks.iter().enumerate().filter_map(|(position, block)| match &block.kind {
        BlockKind::Code { language, code, .. } => Some((position, block, language, code)),
        _ => None,
    });
    let examples = code.filter_map(|(position, block, language, code)| {
        Some(CodeExample {
            language: language.clone(),
            code: code.clone(),
            section: block.section.clone(),
            context: prose_before(page, position),
            chunk_number: begins[position]?,
        })
    });
    examples.collect()
}

/// The end of the nearest prose above a block in its section.
fn prose_before(page: &Page, position: usize) -> String {
    let section = &page.blocks[position].section;
    let above = page.blocks[..position].iter().rev().take(EXAMPLE_REACH).take_while(|block| block.section == *section);
    let prose = above.into_iter().find_map(|block| match &block.kind {
        BlockKind::Prose(text) | BlockKind::Item(text) => Some(text.trim()),
        _ => None,
    });
    let text = prose.unwrap_or("");
    if text.len() <= EXAMPLE_CONTEXT {
        return text.to_owned();
    }
    let mut start = text.len() - EXAMPLE_CONTEXT;
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let tail = &text[start..];
    tail.split_once(' ').map_or(tail, |(_, words)| words).to_owned()
}
