//! One documentation file becomes a [`Page`]: a title, metadata and a flat list of blocks that know their section.
//!
//! Parsing never fails, never panics and is deterministic: broken markup is read as the text it is. Time and memory
//! grow linearly with the text, and nothing here recurses, so hostile nesting costs no stack.

mod flow;
mod frontmatter;
mod html;
mod markdown;
mod outline;
mod plain;
#[cfg(test)]
pub(super) mod tests;

use std::{borrow::Cow, path::Path};

use serde_json::{Map, Value};

use self::flow::Flow;

/// File names with a documentation suffix that hold no documentation.
const NOT_DOCUMENTATION: [&str; 4] = ["cmakelists.txt", "requirements.txt", "robots.txt", "license.txt"];

/// A parsed file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Front matter `title`, else the first top heading, else a readable form of the file name. Empty only where
    /// a document came with an empty one.
    pub title: String,
    /// Front matter, or what an HTML head says (`description`, `keywords`, `language`).
    pub metadata: Map<String, Value>,
    /// The text in reading order.
    pub blocks: Vec<Block>,
}

/// A piece of text that reads as one: a paragraph, a list item, a code block, a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Headings above the block, outermost first, without the page's title.
    pub section: Vec<String>,
    /// What it is, with its text.
    pub kind: BlockKind,
}

/// The text of a block as readable Markdown: links and images reduced to their text, emphasis dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// A paragraph, or several lines that belong together.
    Prose(String),
    /// One paragraph of a list item, with its marker and indentation.
    Item(String),
    /// A code block, as a reader sees it.
    Code {
        /// The first word of the info string, in lower case.
        language: Option<String>,
        /// The file or tab the page shows it under.
        title: Option<String>,
        /// The code without its fence and without a final line end.
        code: String,
    },
    /// A table: header row, rule, rows, a line each.
    Table(String),
}

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `CommonMark` with the extensions of GitHub, `VitePress`, `MkDocs`, mdBook and MDX.
    Markdown,
    /// A web page.
    Html,
    /// Paragraphs; headings and code of reStructuredText and `AsciiDoc` where they are plain to see.
    Plain,
}

impl Format {
    /// The format a file name promises; `None` when it is not documentation.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        if NOT_DOCUMENTATION.contains(&name.as_str()) {
            return None;
        }
        match name.rsplit_once('.') {
            Some((_, "md" | "markdown" | "mdown" | "mkd" | "mdx")) => Some(Self::Markdown),
            Some((_, "html" | "htm" | "xhtml")) => Some(Self::Html),
            Some((_, "txt" | "text" | "rst" | "adoc" | "asciidoc")) => Some(Self::Plain),
            None if name == "readme" => Some(Self::Plain),
            _ => None,
        }
    }
}

/// Reads `text`, the content of the file at `path` (slashes, relative to the source's root).
#[must_use]
pub fn parse(format: Format, path: &str, text: &str) -> Page {
    let text = cleaned(text);
    let (metadata, body) = match format {
        Format::Markdown | Format::Plain => frontmatter::split(&text),
        Format::Html => (Map::new(), &*text),
    };
    let mut page = read(format, path, frontmatter::title(&metadata), metadata, body);
    if page.title.is_empty() {
        page.title = title_of_path(path);
    }
    page
}

/// Reads `text`, which came with its title; an empty one stays empty. A plain text is taken as it is: without front
/// matter, and without the title where it begins by repeating it.
#[must_use]
pub fn parse_titled(format: Format, path: &str, title: &str, text: &str) -> Page {
    let text = cleaned(text);
    let (metadata, body) = match format {
        Format::Markdown => frontmatter::split(&text),
        Format::Html => (Map::new(), &*text),
        Format::Plain => (Map::new(), without_title(title, &text)),
    };
    let page = read(format, path, Some(title.to_owned()), metadata, body);
    Page { title: title.to_owned(), ..page }
}

/// The page, its title empty where nothing tells one.
fn read(format: Format, path: &str, title: Option<String>, mut metadata: Map<String, Value>, body: &str) -> Page {
    let mut flow = Flow::new(title);
    match format {
        Format::Markdown => markdown::read(&mut flow, path, body),
        Format::Html => html::read_document(&mut flow, &mut metadata, body),
        Format::Plain => plain::read(&mut flow, path, body),
    }
    let (title, blocks) = flow.finish();
    Page { title: title.unwrap_or_default(), metadata, blocks }
}

/// Without NUL, which no database stores and no reader sees, and without a byte order mark.
fn cleaned(text: &str) -> Cow<'_, str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.contains('\0') { Cow::Owned(text.replace('\0', "")) } else { Cow::Borrowed(text) }
}

/// What follows the title in `text`, where that begins with it, whatever its case and white space; all of `text` where nothing
/// follows.
fn without_title<'a>(title: &str, text: &'a str) -> &'a str {
    let mut letters = text.char_indices().filter(|(_, letter)| !letter.is_whitespace());
    for wanted in title.chars().filter(|letter| !letter.is_whitespace()) {
        match letters.next() {
            Some((_, letter)) if letter.to_lowercase().eq(wanted.to_lowercase()) => {}
            _ => return text,
        }
    }
    let Some((rest, _)) = letters.next() else { return text };
    // A title that merely begins the first sentence is part of it.
    let (repeated, below) = (text[..rest].trim_end(), &text[rest..]);
    let apart = text[repeated.len()..rest].contains('\n') || !repeated.ends_with(char::is_alphanumeric);
    if apart { below } else { text }
}

/// `guide/getting-started.md` is `Getting started`, `guide/index.md` is `Guide`, `ch01-02-setup.md` is `Setup`.
fn title_of_path(path: &str) -> String {
    let mut parts = path.rsplit(['/', '\\']).filter(|part| !part.trim().is_empty());
    let file = parts.next().unwrap_or("Untitled");
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let name = match stem.to_ascii_lowercase().as_str() {
        "index" | "readme" | "_index" => parts.next().unwrap_or(stem),
        _ => stem,
    };
    let words: Vec<&str> = name.split(['-', '_', ' ']).filter(|word| !word.is_empty()).collect();
    // Chapter numbers and dates order files; they name nothing unless they are all there is.
    let ordering =
        |word: &&&str| word.trim_start_matches("ch").chars().all(|letter| letter.is_ascii_digit() || letter == '.');
    let named = &words[words.iter().take_while(ordering).count()..];
    let words = if named.is_empty() { words.join(" ") } else { named.join(" ") };
    let mut letters = words.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => "Untitled".to_owned(),
    }
}
