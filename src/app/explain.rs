//! `doc-server explain`: how the database carries a search out, for a person on a terminal or as JSON.

use std::fmt::Write as _;

use serde_json::Value;

use super::{App, Error, arguments::SearchFlags, search::query_from, terminal::print};
use crate::{config::Settings, index::explain::Explained, search::Explanation};

/// Searches once and prints the statements with their plans.
///
/// # Errors
/// For an unknown source or version, and when nothing could be searched.
pub async fn run(settings: Settings, flags: &SearchFlags) -> Result<(), Error> {
    let query = query_from(flags)?;
    let app = App::open(&settings).await?;
    let explanation = app.run(async |app| Ok(app.search.explain(&query).await?)).await?;
    let text = if flags.json {
        serde_json::to_string_pretty(&explanation).map_err(|error| Error::Failed(error.to_string()))?
    } else {
        show(&explanation)
    };
    print(text.trim_end())?;
    if let (false, Some(reason)) = (flags.json, &explanation.degraded_reason) {
        eprintln!("incomplete: {reason}");
    }
    Ok(())
}

fn show(explanation: &Explanation) -> String {
    let mut text = String::new();
    for statement in &explanation.statements {
        show_statement(&mut text, statement);
    }
    let total: f64 = explanation.statements.iter().map(|statement| statement.execution_ms).sum();
    let counts = (explanation.count, explanation.generations.len(), explanation.statements.len());
    let _ = writeln!(
        text,
        "{} results from {} generations by {} statements, {total:.2} ms in the database",
        counts.0, counts.1, counts.2
    );
    text
}

fn show_statement(text: &mut String, statement: &Explained) {
    let _ = writeln!(
        text,
        "{}: {:.2} ms, {} rows, {} pages from memory, {} read",
        statement.name, statement.execution_ms, statement.rows, statement.buffers.hit, statement.buffers.read
    );
    let indexes: Vec<String> =
        statement.indexes.iter().map(|index| format!("{} ({})", index.name, index.method)).collect();
    let _ = writeln!(text, "  indexes: {}", if indexes.is_empty() { "none".to_owned() } else { indexes.join(", ") });
    if !statement.whole_tables.is_empty() {
        let _ = writeln!(text, "  read whole: {}", statement.whole_tables.join(", "));
    }
    let words: Vec<&str> = statement.sql.split_whitespace().collect();
    let _ = writeln!(text, "  {}", words.join(" "));
    show_node(text, &statement.plan["Plan"], 2);
    text.push('\n');
}

/// One node of a plan and those below it, as `explain` prints them, without costs.
fn show_node(text: &mut String, node: &Value, depth: usize) {
    let word = |name: &str| node[name].as_str().unwrap_or_default();
    let number = |name: &str| node[name].as_f64().unwrap_or_default();
    let indent = "  ".repeat(depth);
    let _ = write!(text, "{indent}-> {}", word("Node Type"));
    if node["Index Name"].is_string() {
        let _ = write!(text, " using {}", word("Index Name"));
    }
    if node["Relation Name"].is_string() {
        let _ = write!(text, " on {}", word("Relation Name"));
    }
    let (rows, loops, time) = (number("Actual Rows"), number("Actual Loops"), number("Actual Total Time"));
    let _ = writeln!(text, ": {rows} rows × {loops}, {time:.3} ms");
    for condition in ["Index Cond", "Order By", "Recheck Cond", "Hash Cond", "Join Filter", "Filter"] {
        if let Some(told) = node[condition].as_str() {
            let _ = writeln!(text, "{indent}   {condition}: {told}");
        }
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        show_node(text, child, depth + 1);
    }
}
