//! `doc-server search`: results for a person on a terminal, or the API's JSON.

use std::io::IsTerminal;

use super::{App, Error, arguments::SearchFlags, terminal::print};
use crate::{answer::Answer, config::Settings, index::Selection, query::Query, rank};

/// Searches once.
///
/// # Errors
/// For an unknown source or version, and when nothing could be searched.
pub async fn run(settings: Settings, flags: &SearchFlags) -> Result<(), Error> {
    let query = query_from(flags)?;
    let app = App::open(&settings).await?;
    let answer = app.run(async |app| Ok(app.search.answer(&query).await?.0)).await?;
    let text = if flags.json {
        serde_json::to_string_pretty(&answer).map_err(|error| Error::Failed(error.to_string()))?
    } else {
        show(&answer, std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
    };
    print(text.trim_end())?;
    if let (false, Some(reason)) = (flags.json, &answer.degraded_reason) {
        eprintln!("incomplete: {reason}");
    }
    Ok(())
}

/// What the flags ask for.
///
/// # Errors
/// For a value that is not allowed, with its flag.
pub(super) fn query_from(flags: &SearchFlags) -> Result<Query, crate::error::Error> {
    let query = Query {
        text: flags.query.trim().to_owned(),
        match_count: usize::from(flags.match_count),
        selection: Selection { sources: flags.source.clone(), version: flags.version.clone() },
        mode: flags.mode,
        rank: rank::Options { alpha: flags.alpha, fusion: flags.fusion, ..rank::Options::default() },
        exact: flags.exact,
        explain: flags.explain,
        ..Query::default()
    };
    check(&query)?;
    Ok(query)
}

/// Documents may hold anything, and a terminal obeys control characters.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

fn check(query: &Query) -> Result<(), crate::error::Error> {
    let invalid = |field, message: &str| Err(crate::error::Error::Invalid { field, message: message.to_owned() });
    if !(1..=crate::query::MAX_QUERY_CHARS).contains(&query.text.chars().count()) {
        return invalid("query", "must have 1 to 2000 characters");
    }
    if query.rank.alpha.is_some_and(|alpha| !(0.0..=1.0).contains(&alpha)) {
        return invalid("--alpha", "must be a number from 0 to 1");
    }
    Ok(())
}

fn show(answer: &Answer, styled: bool) -> String {
    let bold = |text: &str| if styled { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() };
    let dim = |text: &str| if styled { format!("\u{1b}[2m{text}\u{1b}[0m") } else { text.to_owned() };
    let mut lines = Vec::new();
    if answer.results.is_empty() {
        lines.push(format!("nothing found for {:?}", answer.query));
    }
    for (place, result) in (1..).zip(&answer.results) {
        let headings: Vec<&str> =
            std::iter::once(&result.title).chain(&result.section_path).map(String::as_str).collect();
        lines.push(format!("{place}. {}", bold(&plain(&headings.join(" › ")))));
        let origin = format!("{} {} · {} · score {:.2}", result.source_id, result.version, result.url, result.score);
        lines.push(format!("   {}", dim(&plain(&origin))));
        if let Some(explain) = &result.explain {
            let leg = |rank: Option<usize>, score: Option<f32>| {
                rank.zip(score).map_or_else(|| "not found".to_owned(), |(rank, score)| format!("#{rank} ({score:.3})"))
            };
            let vector = leg(explain.vector_rank, explain.vector_similarity);
            let keyword = leg(explain.keyword_rank, explain.keyword_score);
            lines.push(format!("   {}", dim(&format!("vectors {vector} · words {keyword}"))));
        }
        lines.extend(result.content.as_deref().unwrap_or_default().lines().map(|line| format!("   {}", plain(line))));
        lines.push(String::new());
    }
    lines.join("\n")
}
