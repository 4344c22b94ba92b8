//! Progress: a bar with rate and remaining time on a terminal, a plain line every few seconds elsewhere.

use std::{
    fmt::Display,
    io::{ErrorKind, IsTerminal, Write},
    time::{Duration, Instant},
};

use chrono::{DateTime, SecondsFormat, Utc};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Error;

/// Often enough to be sure that it goes on, rarely enough for a log.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// `1 page`, `2 pages`.
#[must_use]
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(count: N, what: &str) -> String {
    let end = if count == N::from(1) { "" } else { "s" };
    format!("{count} {what}{end}")
}

/// Writes what was asked for, and a line end.
///
/// # Errors
/// When it is not taken, as by a full disk. Whoever reads may stop reading (`| head`): that is none.
pub fn print(text: &str) -> Result<(), Error> {
    match writeln!(std::io::stdout(), "{text}").and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::Failed(format!("what was asked for could not be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// To the second, in UTC.
#[must_use]
pub fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Lines whose columns stand below their heads.
#[must_use]
pub fn table<const COLUMNS: usize>(
    heads: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    let rows: Vec<_> = std::iter::once(heads.map(str::to_owned)).chain(rows).collect();
    let widths: Vec<usize> =
        (0..COLUMNS).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Shows how far something is, on standard error.
pub struct Meter {
    bar: Option<ProgressBar>,
    what: &'static str,
    started: Instant,
    last_line: Instant,
}

impl Meter {
    /// Counts `what`, such as `pages`.
    #[must_use]
    pub fn new(what: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = format!("{{bar:30}} {{pos}}/{{len}} {what}  {{per_sec}}  {{eta}} left  {{msg}}");
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, what, started: Instant::now(), last_line: Instant::now() }
    }

    /// Shows `done` of `total`, and `note` beside it.
    pub fn show(&mut self, done: u64, total: u64, note: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(note.to_owned());
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            eprintln!("{done}/{total} {}, {} s so far; {note}", self.what, self.started.elapsed().as_secs());
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
