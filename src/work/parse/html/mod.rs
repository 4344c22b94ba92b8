//! HTML: the main content of a page, or a fragment inside Markdown, read into the same blocks as Markdown.
//!
//! Navigation, scripts and hidden elements are dropped. Markup that would take a browser's parser quadratic time is
//! read as text without its tags.

mod elements;
mod scan;
#[cfg(test)]
mod tests;
mod walk;

use dom_query::{Document, NodeRef};
use serde_json::{Map, Value};

pub use self::elements::is_element;
use self::scan::{Piece, Pieces};
use super::Flow;

/// Reads a whole page; what its head says about it goes to `metadata`.
pub fn read_document(flow: &mut Flow, metadata: &mut Map<String, Value>, text: &str) {
    if !scan::is_tame(text) {
        read_stripped(flow, text);
        return;
    }
    let document = Document::from(text);
    let head = read_head(&document, metadata);
    let content = main_content(&document);
    walk::walk(flow, content);
    if let Some(title) = head {
        flow.fallback_title(&title);
    }
}

/// Reads HTML that stands in another text.
pub fn read_fragment(flow: &mut Flow, text: &str) {
    if !scan::is_tame(text) {
        read_stripped(flow, text);
    } else if !text.trim().is_empty() {
        let document = Document::fragment(text);
        walk::walk(flow, document.root());
    }
}

/// The value of an attribute in the source of a tag, when it is quoted.
pub fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tag.split_once(&format!(" {name}="))?;
    let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    rest[1..].split(quote).next()
}

/// The part of a page that is about its subject: the first of `main`, `[role=main]`, a lone `article` and `body` that
/// has any text.
fn main_content(document: &Document) -> NodeRef<'_> {
    let (mut mains, mut roles, mut articles) = (Vec::new(), Vec::new(), Vec::new());
    for node in document.root().descendants_it() {
        let Some(element) = node.element_ref() else { continue };
        if &*element.name.local == "main" {
            mains.push(node);
        } else if elements::attribute(&element, "role") == Some("main") {
            roles.push(node);
        } else if &*element.name.local == "article" {
            articles.push(node);
        }
    }
    let lone = if articles.len() == 1 { articles.pop() } else { None };
    let candidates = mains.into_iter().take(1).chain(roles.into_iter().take(1)).chain(lone);
    let spoken = |node: &NodeRef<'_>| node.descendants_it().any(|inner| inner.is_nonempty_text());
    candidates.into_iter().find(spoken).or_else(|| document.body()).unwrap_or_else(|| document.root())
}

/// The page's `<title>`; description, keywords and language go to `metadata`.
fn read_head(document: &Document, metadata: &mut Map<String, Value>) -> Option<String> {
    let mut title = None;
    for node in document.root().descendants_it() {
        let Some(element) = node.element_ref() else { continue };
        let said = match &*element.name.local {
            "body" => break,
            "title" if title.is_none() => {
                title = Some(node.text().split_whitespace().collect::<Vec<_>>().join(" "));
                None
            }
            "html" => elements::attribute(&element, "lang").map(|value| ("language", value)),
            "meta" => match elements::attribute(&element, "name") {
                Some(name @ ("description" | "keywords")) => {
                    elements::attribute(&element, "content").map(|value| (name, value))
                }
                _ => None,
            },
            _ => None,
        };
        if let Some((name, value)) = said.filter(|(_, value)| !value.is_empty()) {
            metadata.insert(name.to_owned(), Value::from(value));
        }
    }
    title.filter(|title| !title.is_empty())
}

/// The text without its tags, a paragraph wherever a block begins or ends.
fn read_stripped(flow: &mut Flow, text: &str) {
    for piece in Pieces::new(text) {
        match piece {
            Piece::Text(text) if text.contains('&') => flow.collapsed(&without_entities(text)),
            Piece::Text(text) => flow.collapsed(text),
            Piece::Open { name, .. } | Piece::Close(name) => {
                let name = name.to_ascii_lowercase();
                if elements::is_block(&name) || !elements::nests(&name) || name == "pre" {
                    flow.flush();
                }
            }
        }
    }
    flow.flush();
}

/// The entities that every writer uses; the rest are left as they are.
fn without_entities(text: &str) -> String {
    let pairs = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&nbsp;", " "), ("&amp;", "&")];
    pairs.iter().fold(text.to_owned(), |text, (entity, letter)| text.replace(entity, letter))
}
