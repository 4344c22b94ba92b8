//! Markdown: generator directives are cleaned away line by line, the rest goes through `pulldown-cmark`.
//!
//! Inline HTML is dropped around its text; an HTML block is read by the HTML reader into the same page.

mod directives;
mod fence;
mod info;
mod mdx;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::HashSet};

use pulldown_cmark::{BlockQuoteKind, CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use self::info::Info;
use super::{Flow, html};

/// Reads `text` into `flow`. Only a file named `.mdx` is read as MDX.
pub fn read(flow: &mut Flow, path: &str, text: &str) {
    let mdx = path.rsplit('.').next().is_some_and(|suffix| suffix.eq_ignore_ascii_case("mdx"));
    let text = if mdx { Cow::Owned(mdx::clean(text)) } else { Cow::Borrowed(text) };
    let text = directives::clean(&text);
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_HEADING_ATTRIBUTES
        | Options::ENABLE_GFM;
    let mut reader =
        Reader { flow, closed: closed_names(&text), quotations: Vec::new(), code: None, html: String::new() };
    for event in Parser::new_ext(&text, options) {
        reader.event(event);
    }
}

/// Where the reader stands in the stream of events.
struct Reader<'a> {
    flow: &'a mut Flow,
    /// Names of the tags that are closed anywhere in the page: `<T>` without a `</T>` is text, not a tag.
    closed: HashSet<String>,
    /// The headings that were open at the start of each open quotation.
    quotations: Vec<Vec<(u8, String)>>,
    code: Option<(Info, String)>,
    html: String,
}

impl Reader<'_> {
    fn event(&mut self, event: Event) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => match &mut self.code {
                Some((_, code)) => code.push_str(&text),
                None => self.flow.text(&text),
            },
            Event::Code(code) => self.flow.code_span(&code),
            Event::Html(html) => self.html.push_str(&html),
            Event::InlineHtml(html) => self.inline_html(&html),
            Event::SoftBreak => self.flow.space(),
            Event::HardBreak => self.flow.line_break(),
            Event::Rule => self.flow.flush(),
            Event::FootnoteReference(label) => self.flow.text(&format!("[^{label}]")),
            Event::TaskListMarker(done) => self.flow.text(if done { "[x] " } else { "[ ] " }),
            Event::InlineMath(math) | Event::DisplayMath(math) => self.flow.text(&math),
        }
    }

    fn start(&mut self, tag: Tag) {
        match tag {
            Tag::Paragraph | Tag::Heading { .. } => self.flow.flush(),
            Tag::BlockQuote(kind) => {
                self.quotations.push(self.flow.enter_quotation());
                if let Some(kind) = kind {
                    self.flow.lead(format!("{}: ", note(kind)));
                }
            }
            Tag::CodeBlock(kind) => {
                let info = match kind {
                    CodeBlockKind::Fenced(info) => Info::parse(&info),
                    CodeBlockKind::Indented => Info::default(),
                };
                self.code = Some((info, String::new()));
            }
            Tag::List(first) => self.flow.open_list(first),
            Tag::Item => self.flow.open_item(),
            Tag::FootnoteDefinition(label) => self.flow.lead(format!("[^{label}]: ")),
            Tag::Table(_) => self.flow.open_table(),
            Tag::Strikethrough => self.flow.text("~~"),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph | TagEnd::FootnoteDefinition => self.flow.flush(),
            TagEnd::Heading(level) => self.flow.heading(level as u8),
            TagEnd::BlockQuote(_) => {
                if let Some(open) = self.quotations.pop() {
                    self.flow.leave_quotation(open);
                }
            }
            TagEnd::CodeBlock => {
                if let Some((info, code)) = self.code.take() {
                    let code = info.visible(&code);
                    self.flow.code(info.language, info.title, &code);
                }
            }
            TagEnd::HtmlBlock => {
                self.flow.flush();
                html::read_fragment(self.flow, &std::mem::take(&mut self.html));
            }
            TagEnd::List(_) => self.flow.close_list(),
            TagEnd::Item => self.flow.close_item(),
            TagEnd::Table => self.flow.close_table(),
            TagEnd::TableHead | TagEnd::TableRow => self.flow.close_row(),
            TagEnd::TableCell => self.flow.close_cell(),
            TagEnd::Strikethrough => self.flow.text("~~"),
            _ => {}
        }
    }

    /// A tag between words is dropped; what a browser shows in its place stays.
    fn inline_html(&mut self, html: &str) {
        let Some(name) = tag_name(html) else { return };
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "br" => self.flow.line_break(),
            "img" => self.flow.text(html::attribute(html, "alt").unwrap_or("")),
            "code" | "tt" => self.flow.text("`"),
            _ => {
                let placeholder = html.len() == name.len() + 2 && html.ends_with('>');
                if placeholder && !html::is_element(&lower) && !self.closed.contains(name) {
                    self.flow.text(html);
                }
            }
        }
    }
}

/// The name in `<name …>` or `</name>`; `None` for comments and the like.
fn tag_name(html: &str) -> Option<&str> {
    let inner = html.strip_prefix('<')?;
    let inner = inner.strip_prefix('/').unwrap_or(inner);
    let end = inner.find(|letter: char| letter.is_whitespace() || matches!(letter, '/' | '>')).unwrap_or(inner.len());
    Some(&inner[..end]).filter(|name| name.starts_with(|letter: char| letter.is_ascii_alphabetic()))
}

/// The names of all end tags in `text`.
fn closed_names(text: &str) -> HashSet<String> {
    text.split("</").skip(1).filter_map(|rest| rest.split(['>', ' ', '\n', '<']).next()).map(str::to_owned).collect()
}

fn note(kind: BlockQuoteKind) -> &'static str {
    match kind {
        BlockQuoteKind::Note => "Note",
        BlockQuoteKind::Tip => "Tip",
        BlockQuoteKind::Important => "Important",
        BlockQuoteKind::Warning => "Warning",
        BlockQuoteKind::Caution => "Caution",
    }
}
