//! Fenced code, line by line: directives are read outside of it and shown inside of it.

/// An open fence.
#[derive(Clone, Copy, Debug)]
pub struct Fence {
    mark: char,
    length: usize,
    quoted: bool,
    /// How far the fence was indented, in bytes of white space.
    pub indent: usize,
}

impl Fence {
    /// The fence that `line` opens. Its indentation is not judged: components and tabs indent what they hold.
    pub fn opened_by(line: &str) -> Option<Self> {
        let unquoted = line.trim_start_matches([' ', '\t', '>']);
        let quoted = line[..line.len() - unquoted.len()].contains('>');
        let rest = after_marker(unquoted);
        let mark = rest.chars().next().filter(|mark| matches!(mark, '`' | '~'))?;
        let info = rest.trim_start_matches(mark);
        let length = rest.len() - info.len();
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        (length >= 3 && !(mark == '`' && info.contains('`'))).then_some(Self { mark, length, quoted, indent })
    }

    /// Whether `line` ends the fence; the end of a quotation does too.
    pub fn closed_by(self, line: &str) -> bool {
        let line = line.trim();
        if self.quoted && !line.starts_with('>') {
            return true;
        }
        let run = line.trim_start_matches([' ', '>']);
        run.len() >= self.length && run.chars().all(|letter| letter == self.mark)
    }
}

/// What follows a list marker, or the line itself.
fn after_marker(line: &str) -> &str {
    let digits = line.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let marker =
        if digits.len() < line.len() { digits.strip_prefix(['.', ')']) } else { line.strip_prefix(['-', '*', '+']) };
    match marker {
        Some(rest) if rest.starts_with(' ') => rest.trim_start(),
        _ => line,
    }
}

/// Whether `line` begins a list item.
pub fn is_item(line: &str) -> bool {
    let line = line.trim_start();
    after_marker(line).len() < line.len()
}
