//! `doc-server search`: results for a person on a terminal, or the API's JSON.

use std::io::IsTerminal;

use super::{App, Error, arguments::SearchFlags};
use crate::{answer::Answer, config::Settings, index::Selection, query::Query, rank};

/// Searches once.
///
/// # Errors
/// For an unknown source or version, and when nothing could be searched.
pub async fn run(settings: Settings, flags: &SearchFlags) -> Result<(), Error> {
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
    let app = App::open(&settings).await?;
    let answer = app.run(async |app| Ok(app.search.answer(&query).await?.0)).await?;
    if flags.json {
        let text = serde_json::to_string_pretty(&answer).map_err(|error| Error::Failed(error.to_string()))?;
        println!("{text}");
    } else {
        print_answer(&answer, std::io::stdout().is_terminal());
    }
    Ok(())
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

fn print_answer(answer: &Answer, styled: bool) {
    let bold = |text: &str| if styled { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() };
    let dim = |text: &str| if styled { format!("\u{1b}[2m{text}\u{1b}[0m") } else { text.to_owned() };
    if answer.results.is_empty() {
        println!("nothing found for {:?}", answer.query);
    }
    for (place, result) in (1..).zip(&answer.results) {
        let heading =
            std::iter::once(&result.title).chain(&result.section_path).cloned().collect::<Vec<_>>().join(" › ");
        println!("{place}. {}", bold(&heading));
        println!(
            "   {}",
            dim(&format!("{} {} · {} · score {:.2}", result.source_id, result.version, result.url, result.score))
        );
        if let Some(explain) = &result.explain {
            let leg = |rank: Option<usize>, score: Option<f32>| {
                rank.zip(score).map_or_else(|| "not found".to_owned(), |(rank, score)| format!("#{rank} ({score:.3})"))
            };
            let vector = leg(explain.vector_rank, explain.vector_similarity);
            let keyword = leg(explain.keyword_rank, explain.keyword_score);
            println!("   {}", dim(&format!("vectors {vector} · words {keyword}")));
        }
        for line in result.content.as_deref().unwrap_or_default().lines() {
            println!("   {line}");
        }
        println!();
    }
    if let Some(reason) = &answer.degraded_reason {
        eprintln!("incomplete: {reason}");
    }
}
