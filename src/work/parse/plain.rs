//! Plain text, reStructuredText and `AsciiDoc`: paragraphs, and what is plainly a heading or code.
//!
//! No full parser: a directive that is not known stays in the text, where its words can be found.

use super::Flow;

/// A line of one repeated mark counts as underlining from this length on, as in Docutils.
const UNDERLINE: usize = 3;
/// Longer lines are sentences, not headings.
const HEADING_LIMIT: usize = 120;

/// Reads `text` into `flow`.
pub fn read(flow: &mut Flow, path: &str, text: &str) {
    let suffix = path.rsplit('.').next().unwrap_or("").to_ascii_lowercase();
    let asciidoc = matches!(suffix.as_str(), "adoc" | "asciidoc");
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let mut reader = Reader { flow, lines: &lines, marks: Vec::new(), language: None };
    let mut at = 0;
    while at < lines.len() {
        at = if asciidoc { reader.asciidoc(at) } else { reader.restructured(at) };
    }
    reader.flow.flush();
}

struct Reader<'a> {
    flow: &'a mut Flow,
    lines: &'a [&'a str],
    /// Underlining marks in the order they appeared: the order is the level.
    marks: Vec<char>,
    /// The language that the next `AsciiDoc` listing was given.
    language: Option<String>,
}

impl Reader<'_> {
    /// Reads the line `at` and what belongs to it; returns the next line to read.
    fn restructured(&mut self, at: usize) -> usize {
        let line = self.lines[at];
        let next = self.lines.get(at + 1).copied().unwrap_or("");
        if line.is_empty() {
            self.flow.flush();
            return at + 1;
        }
        if let Some(mark) = underline(next).filter(|_| is_heading(line, next)) {
            self.heading(mark, line.trim());
            return at + 2;
        }
        if underline(line).is_some() {
            // The line above a heading that is marked on both sides, or a rule.
            self.flow.flush();
            return at + 1;
        }
        if let Some(language) = directive(line) {
            self.flow.flush();
            let end = self.indented_end(at + 1);
            let body =
                self.lines[at + 1..end].iter().skip_while(|line| line.is_empty() || line.trim().starts_with(':'));
            self.flow.code(language, None, &dedented(body));
            return end;
        }
        self.paragraph_line(line);
        at + 1
    }

    fn asciidoc(&mut self, at: usize) -> usize {
        let line = self.lines[at];
        let depth = line.len() - line.trim_start_matches('=').len();
        if let (1..=6, Some(text)) = (depth, line[depth..].strip_prefix(' ')) {
            self.flow.flush();
            self.flow.text(text);
            self.flow.heading(u8::try_from(depth).unwrap_or(6));
        } else if line.is_empty() {
            self.flow.flush();
        } else if let Some(attributes) = line.strip_prefix("[source").and_then(|rest| rest.strip_suffix(']')) {
            let language = attributes.split(',').nth(1).map(|word| word.trim().to_lowercase());
            self.language = language.filter(|word| !word.is_empty());
        } else if line.len() >= 4 && line.chars().all(|letter| letter == '-') {
            let end = self.lines[at + 1..].iter().position(|other| *other == line);
            let end = end.map_or(self.lines.len(), |length| at + 1 + length);
            let code = self.lines[at + 1..end].join("\n");
            self.flow.flush();
            self.flow.code(self.language.take(), None, &code);
            return end + 1;
        } else {
            self.paragraph_line(line);
        }
        at + 1
    }

    fn heading(&mut self, mark: char, text: &str) {
        let level = self.marks.iter().position(|known| *known == mark).unwrap_or_else(|| {
            self.marks.push(mark);
            self.marks.len() - 1
        });
        self.flow.flush();
        self.flow.text(text);
        self.flow.heading(u8::try_from(level + 1).unwrap_or(u8::MAX));
    }

    /// Lines keep their breaks: plain text lines up what belongs together.
    fn paragraph_line(&mut self, line: &str) {
        self.flow.line(line);
    }

    /// Where the indented lines that begin at `from` end.
    fn indented_end(&self, from: usize) -> usize {
        let inside = |line: &&&str| line.is_empty() || line.starts_with([' ', '\t']);
        from + self.lines[from..].iter().take_while(inside).count()
    }
}

/// The mark a line repeats, when it does nothing else.
fn underline(line: &str) -> Option<char> {
    let mark = line.chars().next().filter(|mark| "=-~^\"'`#*+.:_".contains(*mark))?;
    (line.len() >= UNDERLINE && line.chars().all(|letter| letter == mark)).then_some(mark)
}

fn is_heading(line: &str, below: &str) -> bool {
    let length = line.trim().chars().count();
    length <= HEADING_LIMIT.min(below.len()) && underline(line).is_none()
}

/// The language of a `.. code-block::` directive; it may have none.
fn directive(line: &str) -> Option<Option<String>> {
    let name = line.trim_start().strip_prefix(".. ")?;
    let argument = ["code-block::", "code::", "sourcecode::"].iter().find_map(|known| name.strip_prefix(known))?;
    Some(Some(argument.trim().to_lowercase()).filter(|language| !language.is_empty()))
}

/// The lines without the indentation of the first.
fn dedented<'a>(lines: impl Iterator<Item = &'a &'a str>) -> String {
    let mut code = String::new();
    let mut indent = None;
    for line in lines {
        let own = line.len() - line.trim_start().len();
        let taken = (*indent.get_or_insert(own)).min(own);
        code.push_str(&line[taken..]);
        code.push('\n');
    }
    code
}
