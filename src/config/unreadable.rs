//! What the parser of the settings complains of, said so that the reader knows what to do.

/// Names that are less alike than this are not taken for one another's misspelling (Jaro and Winkler's measure, 0 to 1).
const ALIKE: f64 = 0.85;

/// The complaint without what may be secret, and in our words where the parser's speak of its own insides.
pub(super) fn plainly(complaint: &str) -> String {
    let complaint = without_source(complaint);
    unknown_name(&complaint)
        .or_else(|| unknown_word(&complaint))
        .or_else(|| no_address(&complaint))
        .unwrap_or(complaint)
}

/// "unknown field `a`, expected one of `b`, `c`, …", eighty of them.
fn unknown_name(complaint: &str) -> Option<String> {
    let mut quoted = complaint.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let wrong = quoted.next()?;
    let likeness = |known: &&str| strsim::jaro_winkler(wrong, known);
    let nearest = quoted.max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    let meant = nearest.filter(|known| likeness(known) >= ALIKE).map(|known| format!("; is {known} meant?"));
    Some(format!("{wrong} is no setting{} (docs/settings.md has them all)", meant.unwrap_or_default()))
}

/// "enum E does not have variant constructor w for key `k`".
fn unknown_word(complaint: &str) -> Option<String> {
    let (_, rest) = complaint.split_once("does not have variant constructor ")?;
    let (word, rest) = rest.split_once(" for key ")?;
    let key = rest.split('`').nth(1)?;
    Some(format!("{key}: {word:?} is none of its words; docs/settings.md has them"))
}

/// "invalid socket address syntax for key `k`".
fn no_address(complaint: &str) -> Option<String> {
    let key = complaint.strip_prefix("invalid socket address syntax for key ")?.split('`').nth(1)?;
    Some(format!("{key}: set an IP address and a port, such as 127.0.0.1:8051"))
}

/// The parser shows the line that is wrong; it may hold a password.
fn without_source(complaint: &str) -> String {
    let shown = |line: &&str| !line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit()).starts_with('|');
    complaint.lines().filter(shown).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::Settings;

    fn told(key: &'static str, value: &str) -> String {
        Settings::read(None, &[(key, value.to_owned())]).expect_err("no setting").to_string()
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_right() {
        let expected = [
            ("ef_serch", "2", "ef_serch is no setting; is ef_search meant? (docs/settings.md has them all)"),
            ("zzz", "2", "zzz is no setting (docs/settings.md has them all)"),
            ("log_format", "xml", "log_format: \"xml\" is none of its words; docs/settings.md has them"),
            ("bind", "localhost:8051", "bind: set an IP address and a port, such as 127.0.0.1:8051"),
        ];
        for (key, value, words) in expected {
            assert!(told(key, value).contains(words), "{}", told(key, value));
        }
    }
}
