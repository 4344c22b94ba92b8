//! MDX to Markdown: module lines and component tags go, the text between the tags stays.
//!
//! A component's `title`, `label` or `caption` is text that a reader sees, so it is kept. MDX knows no indented code;
//! text and fences that components indent are moved to the left. A tag that does not end is text.

use super::fence::{Fence, is_item};

/// A longer tag is text. Real tags with inline objects stay below 1 KB; the bound keeps the search for `>` linear.
const TAG_LIMIT: usize = 4096;

/// `text` as Markdown.
pub fn clean(text: &str) -> String {
    let moved = move_left(text);
    let mut out = String::with_capacity(moved.len());
    let mut fence: Option<Fence> = None;
    let mut module = false;
    // The text since the last fence or module line, where a tag may span lines.
    let mut start = 0;
    let mut position = 0;
    for line in moved.split_inclusive('\n') {
        let end = position + line.len();
        let fenced = fence.is_some();
        match fence {
            Some(open) if open.closed_by(line) => fence = None,
            Some(_) => {}
            None => fence = Fence::opened_by(line.trim_end()),
        }
        let opens = !fenced && (line.starts_with("import ") || line.starts_with("export "));
        module = !fenced && fence.is_none() && !line.trim().is_empty() && (module || opens);
        if fenced || fence.is_some() || module {
            strip_tags(&moved[start..position], &mut out);
            out.push_str(if module { "" } else { line });
            start = end;
        }
        position = end;
    }
    strip_tags(&moved[start..], &mut out);
    out
}

/// Takes the indentation that is not a list's from text, and a fence's own from its lines.
fn move_left(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut fence: Option<Fence> = None;
    let mut listed = false;
    for line in text.lines() {
        let bare = line.trim_start_matches([' ', '\t']);
        let indent = line.len() - bare.len();
        let mut taken = 0;
        if let Some(open) = fence {
            taken = open.indent.min(indent);
            if open.closed_by(line) {
                fence = None;
            }
        } else if let Some(open) = Fence::opened_by(line) {
            taken = indent;
            fence = Some(open);
        } else if !bare.is_empty() {
            let item = is_item(line);
            taken = if listed && (item || indent < 4) { 0 } else { indent };
            listed = item || (listed && indent > 0);
        }
        out.push_str(&line[taken..]);
        out.push('\n');
    }
    out
}

/// Appends `text` without component tags and comments; inline code is left alone.
fn strip_tags(text: &str, out: &mut String) {
    let mut rest = text;
    let mut comments = true;
    while let Some(found) = rest.find(['<', '{', '`']) {
        let (before, from) = rest.split_at(found);
        out.push_str(before);
        let kept = match from.as_bytes()[0] {
            b'`' => code_span_length(from),
            b'{' if comments && from.starts_with("{/*") => match from.find("*/}") {
                Some(end) => {
                    rest = &from[end + 3..];
                    continue;
                }
                None => {
                    // None further on has an end either: looking again and again would be quadratic.
                    comments = false;
                    1
                }
            },
            b'{' => 1,
            _ => match tag_length(from) {
                Ok(length) => {
                    let tag = &from[..length];
                    if is_component(tag) {
                        keep_label(tag, out);
                        rest = &from[length..];
                        continue;
                    }
                    length
                }
                Err(length) => length,
            },
        };
        out.push_str(&from[..kept]);
        rest = &from[kept..];
    }
    out.push_str(rest);
}

/// The length of the code span that opens here, or of its backticks when nothing closes them on the line.
fn code_span_length(text: &str) -> usize {
    let run = text.len() - text.trim_start_matches('`').len();
    let line = &text[run..text.find('\n').unwrap_or(text.len()).max(run)];
    let close = line.find(&text[..run]);
    close.map_or_else(|| run + line.len(), |close| run + close + run)
}

/// The length of the tag that opens here; as an error, that of the text which turned out to be none.
fn tag_length(text: &str) -> Result<usize, usize> {
    let named = text[1..].starts_with(|letter: char| letter.is_ascii_alphabetic() || matches!(letter, '/' | '>'));
    if !named {
        return Err(1);
    }
    let (mut braces, mut quote, mut blank) = (0_usize, None, false);
    for (position, letter) in text.char_indices().skip(1) {
        let inside = quote.is_some() || braces > 0;
        match letter {
            '\n' if blank => return Err(position),
            '\n' => blank = true,
            ' ' | '\t' | '\r' => {}
            _ => blank = false,
        }
        match letter {
            _ if position > TAG_LIMIT => return Err(position),
            _ if quote == Some(letter) => quote = None,
            '"' | '\'' if !inside => quote = Some(letter),
            '{' if quote.is_none() => braces += 1,
            '}' if quote.is_none() => braces = braces.saturating_sub(1),
            '>' if !inside => return Ok(position + 1),
            '<' if !inside => return Err(position),
            _ => {}
        }
    }
    Err(text.len())
}

/// Components start with a capital; a plain element with an expression in it is no HTML either.
fn is_component(tag: &str) -> bool {
    let name = tag[1..].trim_start_matches('/');
    name.starts_with(|letter: char| letter.is_ascii_uppercase() || letter == '>') || tag.contains('{')
}

/// Keeps what a component shows of its attributes, as a paragraph, when it stands on a line of its own.
fn keep_label(tag: &str, out: &mut String) {
    if !(out.is_empty() || out.ends_with('\n')) {
        return;
    }
    for name in [" title=\"", " label=\"", " caption=\""] {
        let value = tag.split_once(name).and_then(|(_, rest)| rest.split_once('"'));
        if let Some((value, _)) = value.filter(|(value, _)| !value.trim().is_empty()) {
            out.extend(["\n", value, "\n\n"]);
            return;
        }
    }
}
