//! Running text on its way into blocks: what the Markdown and the HTML reader share.
//!
//! Text collects until [`Flow::flush`] files it as a paragraph, a list item or a table cell, whatever is open.

use super::{Block, BlockKind, outline::Outline};

/// List items are indented by their depth up to here; deeper ones line up, so that hostile nesting stays linear.
const INDENT_LIMIT: usize = 8;

/// A longer code title or language is no such thing; each part of a split code block repeats them.
const INFO_LIMIT: usize = 120;

/// The open paragraph, lists and table.
#[derive(Debug, Default)]
pub struct Flow {
    outline: Outline,
    text: String,
    /// What the next paragraph begins with: a list marker, a footnote's label, a kind of note.
    lead: Option<String>,
    /// The open lists; an ordered one carries its next number.
    lists: Vec<Option<u64>>,
    table: Option<Table>,
    /// The title that the next code block is shown under.
    code_title: Option<String>,
}

/// A table being read, row by row.
#[derive(Debug, Default)]
struct Table {
    rows: Vec<String>,
    cells: Vec<String>,
    columns: usize,
}

impl Flow {
    /// An empty page; `title` is what its front matter says.
    pub fn new(title: Option<String>) -> Self {
        Self { outline: Outline::new(title), ..Self::default() }
    }

    /// The title, when the page told one, and all blocks.
    pub fn finish(mut self) -> (Option<String>, Vec<Block>) {
        self.close_table();
        self.flush();
        self.outline.finish()
    }

    /// The page's title if nothing in its text was one.
    pub fn fallback_title(&mut self, title: &str) {
        self.outline.fallback_title(title);
    }

    /// Appends text as it is.
    pub fn text(&mut self, text: &str) {
        let text =
            if self.text.is_empty() || self.text.ends_with([' ', '\n']) { text.trim_start_matches(' ') } else { text };
        self.text.push_str(text);
    }

    /// Appends text with every run of white space read as one blank, as browsers do.
    pub fn collapsed(&mut self, text: &str) {
        if text.starts_with(|letter: char| letter.is_ascii_whitespace()) {
            self.space();
        }
        for (position, word) in text.split_ascii_whitespace().enumerate() {
            if position > 0 {
                self.text.push(' ');
            }
            self.text.push_str(word);
        }
        if text.ends_with(|letter: char| letter.is_ascii_whitespace()) {
            self.space();
        }
    }

    /// One blank, unless there is one.
    pub fn space(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with([' ', '\n']) {
            self.text.push(' ');
        }
    }

    /// Inline code in backticks, more of them where the code has some.
    pub fn code_span(&mut self, code: &str) {
        let fence = if code.contains('`') { "``" } else { "`" };
        let pad = if code.starts_with('`') || code.ends_with('`') { " " } else { "" };
        for part in [fence, pad, code, pad, fence] {
            self.text.push_str(part);
        }
    }

    /// Begins inline code whose text follows.
    pub fn open_code(&mut self) {
        self.text.push('`');
    }

    /// Ends inline code; without any text in it nothing is left of it.
    pub fn close_code(&mut self) {
        if self.text.ends_with('`') {
            self.text.pop();
        } else if !self.text.is_empty() {
            self.text.push('`');
        }
    }

    /// A line break that the author asked for.
    pub fn line_break(&mut self) {
        if self.table.is_some() {
            self.space();
        } else if !self.text.is_empty() {
            self.text.push('\n');
            let depth = self.lists.len().min(INDENT_LIMIT);
            self.text.push_str(&"  ".repeat(depth));
        }
    }

    /// Appends a line as it is, below the lines before it.
    pub fn line(&mut self, line: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(line);
    }

    /// What the next paragraph begins with.
    pub fn lead(&mut self, lead: String) {
        self.flush();
        self.lead = Some(lead);
    }

    /// Ends the paragraph.
    pub fn flush(&mut self) {
        if self.table.is_some() {
            self.space();
            return;
        }
        let text = std::mem::take(&mut self.text);
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        let lead = self.lead.take();
        let depth = self.lists.len().min(INDENT_LIMIT);
        let kind = match (depth, lead) {
            (0, lead) => BlockKind::Prose(lead.unwrap_or_default() + text),
            (_, Some(lead)) => BlockKind::Item(format!("{}{lead}{text}", "  ".repeat(depth - 1))),
            (_, None) => BlockKind::Item(format!("{}{text}", "  ".repeat(depth))),
        };
        self.outline.push(kind);
    }

    /// Takes the collected text for a heading.
    pub fn heading(&mut self, level: u8) {
        let text = std::mem::take(&mut self.text);
        if self.table.is_some() {
            self.text = text;
            return;
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        self.outline.heading(level, &words.join(" "));
    }

    /// The title that the next code block is shown under.
    pub fn title_code(&mut self, title: &str) {
        self.code_title = Some(title.to_owned());
    }

    /// Files a code block, unless it is blank.
    pub fn code(&mut self, language: Option<String>, title: Option<String>, code: &str) {
        self.flush();
        let title = title.or(self.code_title.take()).filter(|title| title.len() <= INFO_LIMIT);
        let language = language.filter(|language| language.len() <= INFO_LIMIT);
        let code = code.trim_end().trim_start_matches('\n');
        if !code.trim().is_empty() {
            self.outline.push(BlockKind::Code { language, title, code: code.to_owned() });
        }
    }

    /// Opens a list; an ordered one begins with `first`.
    pub fn open_list(&mut self, first: Option<u64>) {
        self.flush();
        self.lists.push(first);
    }

    /// Closes the innermost list.
    pub fn close_list(&mut self) {
        self.flush();
        self.lists.pop();
    }

    /// Begins an item of the innermost list.
    pub fn open_item(&mut self) {
        let marker = match self.lists.last_mut() {
            Some(Some(number)) => {
                let marker = format!("{number}. ");
                *number = number.saturating_add(1);
                marker
            }
            _ => "- ".to_owned(),
        };
        self.lead(marker);
    }

    /// Ends an item; a marker that found no text is forgotten.
    pub fn close_item(&mut self) {
        self.flush();
        self.lead = None;
    }

    /// Begins a table; one inside another is read as part of the outer one's cell.
    pub fn open_table(&mut self) {
        self.flush();
        self.table.get_or_insert_default();
    }

    /// Ends a cell of the table.
    pub fn close_cell(&mut self) {
        if let Some(table) = &mut self.table {
            let text = std::mem::take(&mut self.text);
            table.cells.push(text.trim().replace('\n', " ").replace('|', "\\|"));
        }
    }

    /// Files the collected text as a paragraph before the table.
    pub fn close_caption(&mut self) {
        let text = std::mem::take(&mut self.text);
        if !text.trim().is_empty() {
            self.outline.push(BlockKind::Prose(text.trim().to_owned()));
        }
    }

    /// Ends a row of the table.
    pub fn close_row(&mut self) {
        let Some(table) = &mut self.table else { return };
        let cells = std::mem::take(&mut table.cells);
        if cells.iter().all(String::is_empty) {
            return;
        }
        if table.rows.is_empty() {
            table.columns = cells.len();
        }
        table.rows.push(format!("| {} |", cells.join(" | ")));
    }

    /// Ends the table; text that stood outside its cells becomes a paragraph before it.
    pub fn close_table(&mut self) {
        self.close_row();
        let Some(table) = self.table.take() else { return };
        self.flush();
        let mut rows = table.rows.into_iter();
        if let Some(header) = rows.next() {
            let rule = format!("|{}", "---|".repeat(table.columns));
            let lines: Vec<String> = [header, rule].into_iter().chain(rows).collect();
            self.outline.push(BlockKind::Table(lines.join("\n")));
        }
    }

    /// The headings that are open, for [`Flow::leave_quotation`].
    pub fn enter_quotation(&mut self) -> Vec<(u8, String)> {
        self.flush();
        self.outline.save()
    }

    /// Headings in a quotation end with it.
    pub fn leave_quotation(&mut self, open: Vec<(u8, String)>) {
        self.flush();
        self.outline.restore(open);
    }
}
