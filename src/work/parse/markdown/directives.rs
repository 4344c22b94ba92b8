//! Lines that a site generator acts on and no reader sees: containers, includes, tables of contents.
//!
//! Inside fenced code only includes are dropped, since a page may be about the directives themselves.

use std::borrow::Cow;

use super::fence::Fence;

/// What mdBook and its common preprocessors replace: `{{#include …}}` and the like.
const INCLUDES: [&str; 8] =
    ["include", "rustdoc_include", "playground", "playpen", "shiftinclude", "title", "quiz", "template"];

/// Containers whose kind says something when they have no title of their own.
const NOTES: [&str; 8] = ["note", "tip", "info", "warning", "danger", "caution", "important", "example"];

/// Where a file's indented containers stand (`!!! note` of `MkDocs`) while its lines are rewritten.
#[derive(Debug, Default)]
struct Cleaner {
    out: String,
    fence: Option<Fence>,
    /// The indentations that open containers take from their lines, outermost first.
    indents: Vec<usize>,
}

/// `text` without the lines and phrases that only a generator reads; titles of containers are kept.
pub fn clean(text: &str) -> String {
    let mut cleaner = Cleaner { out: String::with_capacity(text.len()), ..Cleaner::default() };
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let line = cleaner.dedent(line);
        if let Some(fence) = cleaner.fence {
            if fence.closed_by(line) {
                cleaner.fence = None;
            }
            cleaner.line(without_includes(line));
        } else if let Some(fence) = Fence::opened_by(line) {
            cleaner.fence = Some(fence);
            cleaner.line(Some(Cow::Borrowed(line)));
        } else if let Some(title) = container(line) {
            cleaner.title(&title);
        } else if let Some(title) = indented_container(line) {
            let own = indentation(line);
            let next = lines.peek().filter(|next| next.trim().is_empty() || indentation(next) >= own + 4);
            if next.is_some() {
                cleaner.indents.push(own + 4);
                cleaner.title(&title);
            } else {
                cleaner.line(Some(Cow::Borrowed(line)));
            }
        } else if !is_directive(line) {
            cleaner.line(without_includes(line));
        }
    }
    cleaner.out
}

impl Cleaner {
    /// Takes the containers' indentation away, and closes those that `line` stands outside of.
    fn dedent<'a>(&mut self, line: &'a str) -> &'a str {
        if self.indents.is_empty() || line.trim().is_empty() {
            return line;
        }
        let own = indentation(line);
        let mut taken: usize = 0;
        for (position, indent) in self.indents.iter().enumerate() {
            if taken + indent > own {
                self.indents.truncate(position);
                self.fence = None;
                break;
            }
            taken += indent;
        }
        &line[taken..]
    }

    fn line(&mut self, line: Option<Cow<'_, str>>) {
        if let Some(line) = line {
            self.out.push_str(&line);
            self.out.push('\n');
        }
    }

    /// A container's title is a paragraph of its own; a container without one still ends the paragraph before it.
    fn title(&mut self, title: &str) {
        self.out.push('\n');
        if !title.is_empty() {
            let end = if title.ends_with([':', '.', '!', '?']) { "" } else { ":" };
            self.out.extend([title, end, "\n\n"]);
        }
    }
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// `::: tip Title` of `VitePress`, `:::tip[Title]` of Docusaurus: the text to show for it, perhaps none.
fn container(line: &str) -> Option<String> {
    let rest = line.trim_start_matches([' ', '>']).strip_prefix(":::")?.trim_start_matches(':').trim();
    let rest = rest.split('{').next().unwrap_or("").trim();
    let kind_end = rest.find([' ', '[']).unwrap_or(rest.len());
    let (kind, title) = rest.split_at(kind_end);
    Some(shown(kind, title.trim().trim_start_matches('[').trim_end_matches(']')))
}

/// `!!! note "Title"`, `??? tip`, `=== "Tab"` of `MkDocs`: the text to show for it, perhaps none.
fn indented_container(line: &str) -> Option<String> {
    let line = line.trim();
    if let Some(tab) = line.strip_prefix("=== \"") {
        return Some(tab.trim_end_matches('"').to_owned());
    }
    let rest = ["!!! ", "???+ ", "??? "].iter().find_map(|mark| line.strip_prefix(mark))?.trim();
    let (kinds, title) = rest.split_once('"').unwrap_or((rest, ""));
    let kind = kinds.split_whitespace().next().unwrap_or("");
    Some(shown(kind, title.trim_end_matches('"')))
}

/// A container's own title, else its kind where that says something.
fn shown(kind: &str, title: &str) -> String {
    let kind = kind.to_lowercase();
    if !title.is_empty() {
        title.to_owned()
    } else if NOTES.contains(&kind.as_str()) {
        kind[..1].to_uppercase() + &kind[1..]
    } else {
        String::new()
    }
}

/// Lines that stand for something else as a whole.
fn is_directive(line: &str) -> bool {
    let line = line.trim();
    let wrapped = |open: &str, close: &str| line.starts_with(open) && line.ends_with(close);
    matches!(line.to_ascii_lowercase().as_str(), "[[toc]]" | "[toc]" | "[[_toc_]]" | "${toc}")
        || wrapped("{:", "}")
        || wrapped("{%", "%}")
        || line.starts_with("<<< ")
        || line.starts_with("--8<-- ")
}

/// The line without `{{#include …}}` and the like; `None` when it was nothing else.
fn without_includes(line: &str) -> Option<Cow<'_, str>> {
    if !line.contains("{{#") {
        return Some(Cow::Borrowed(line));
    }
    let mut kept = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find("{{#") {
        let (before, from) = rest.split_at(start);
        kept.push_str(before);
        let name =
            from[3..].split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').next().unwrap_or("");
        let end = from.find("}}").filter(|_| INCLUDES.contains(&name) && !before.ends_with('\\'));
        match end {
            Some(end) => rest = &from[end + 2..],
            None => {
                kept.push_str("{{#");
                rest = &from[3..];
            }
        }
    }
    kept.push_str(rest);
    (!kept.trim().is_empty()).then_some(Cow::Owned(kept))
}
