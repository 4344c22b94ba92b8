//! The blocks of a page under construction, each filed under the headings above it.
//!
//! A heading with nothing below it is kept as a paragraph, so that its words are not lost.

use super::{Block, BlockKind};

/// Longer heading texts are cut to this many characters in section paths and repeated in full as a paragraph. A page
/// repeats its path in every block, and no heading a person wrote is longer.
const HEADING_LIMIT: usize = 200;

/// Title, open headings and finished blocks.
#[derive(Debug, Default)]
pub struct Outline {
    title: Option<String>,
    /// A first-level heading was seen.
    topped: bool,
    /// The open headings, their levels rising.
    open: Vec<(u8, String)>,
    /// The last heading has neither a block nor a heading below it yet.
    bare: bool,
    blocks: Vec<Block>,
}

impl Outline {
    /// An empty page; `title` is what its front matter says.
    pub fn new(title: Option<String>) -> Self {
        Self { title, ..Self::default() }
    }

    /// The title if neither front matter nor a top heading told one.
    pub fn fallback_title(&mut self, title: &str) {
        self.title.get_or_insert_with(|| title.to_owned());
    }

    /// Opens a section. The first top heading is the title, or repeats the one that is known.
    pub fn heading(&mut self, level: u8, text: &str) {
        let text = text.trim_matches(|letter: char| letter.is_whitespace() || "#¶§🔗\u{200b}".contains(letter));
        self.leave(level);
        if text.is_empty() {
            return;
        }
        let top = level == 1 && !self.topped;
        self.topped |= level == 1;
        let short: String = text.chars().take(HEADING_LIMIT).collect();
        let known = top
            && match &self.title {
                Some(title) => covers(title, text),
                None => true,
            };
        let cut = short.len() < text.len();
        if known {
            self.title.get_or_insert_with(|| short);
        } else {
            self.open.push((level, short));
            self.bare = !cut;
        }
        if cut {
            self.push(BlockKind::Prose(text.to_owned()));
        }
    }

    /// Appends a block to the open section.
    pub fn push(&mut self, kind: BlockKind) {
        self.bare = false;
        let section = self.open.iter().map(|(_, text)| text.clone()).collect();
        self.blocks.push(Block { section, kind });
    }

    /// The headings that are open, for [`Outline::restore`].
    pub fn save(&self) -> Vec<(u8, String)> {
        self.open.clone()
    }

    /// Closes what was opened since `open` was saved: headings in a quotation end with it.
    pub fn restore(&mut self, open: Vec<(u8, String)>) {
        if self.open != open {
            self.keep_bare();
            self.open = open;
        }
    }

    /// The title, when the page told one, and all blocks.
    pub fn finish(mut self) -> (Option<String>, Vec<Block>) {
        self.keep_bare();
        (self.title, self.blocks)
    }

    /// Closes the headings of `level` and below.
    fn leave(&mut self, level: u8) {
        if self.open.last().is_some_and(|(last, _)| *last >= level) {
            self.keep_bare();
        }
        while self.open.last().is_some_and(|(last, _)| *last >= level) {
            self.open.pop();
        }
    }

    /// Keeps the words of a heading that ends up with nothing below it.
    fn keep_bare(&mut self) {
        if std::mem::take(&mut self.bare)
            && let Some((level, text)) = self.open.pop()
        {
            self.push(BlockKind::Prose(text.clone()));
            self.open.push((level, text));
        }
    }
}

/// Whether a page titled `title` says nothing new with the top heading `heading`.
fn covers(title: &str, heading: &str) -> bool {
    title.to_lowercase().contains(&heading.to_lowercase())
}
