//! `doc-server eval`: relevance and speed on labelled search sets, through the same path as every search.
//!
//! Sets are indexed into a database of their own, so the user's sources are never touched, and only what has changed is
//! indexed again. A query's ranking is of documents: each stands where its best chunk stands.

mod measure;
mod metrics;
mod report;
mod sets;

use measure::Measurement;
use sets::{Document, Set};

use super::{App, Error, arguments::EvalFlags, ingest::import_with_progress};
use crate::{
    config::Settings,
    index::generations::Target,
    rank,
    work::{
        import::{Import, Report},
        material::{self, Material},
        parse::Format,
    },
};

/// The end of the name of the database the sets go to.
const DATABASE_SUFFIX: &str = "_eval";

/// Measures every set and prints what came out.
///
/// # Errors
/// For a set that cannot be read, and when nothing could be indexed or searched.
pub async fn run(settings: Settings, flags: &EvalFlags) -> Result<(), Error> {
    let alpha = flags.alpha.filter(|alpha| !(0.0..=1.0).contains(alpha));
    if alpha.is_some() {
        let message = "must be a number from 0 to 1".to_owned();
        return Err(crate::error::Error::Invalid { field: "--alpha", message }.into());
    }
    // All of them before the first is measured: a mistake in the last is told at once.
    let sets = flags.sets.iter().map(|folder| Set::read(folder)).collect::<Result<Vec<_>, _>>()?;
    let ranking = rank::Options { alpha: flags.alpha, fusion: flags.fusion, ..rank::Options::default() };
    let app = App::open_beside(&settings, DATABASE_SUFFIX).await?;
    let measured = app
        .run(async |app| {
            let mut measured: Vec<Measurement> = Vec::new();
            for set in sets {
                let set = index_set(app, set).await?;
                let measurement = measure::measure(app, &set, ranking).await?;
                if !flags.json {
                    report::print_table(&measurement);
                }
                measured.push(measurement);
            }
            Ok(measured)
        })
        .await?;
    if flags.json { report::print_json(&measured, ranking) } else { Ok(()) }
}

/// Imports what is new of the set; returns it without its documents.
async fn index_set(app: &App, mut set: Set) -> Result<Set, Error> {
    for (source, documents) in &mut set.sources {
        let import = Import {
            material: Material::Documents(std::mem::take(documents).into_iter().map(document).collect()),
            target: Target {
                source_id: source.clone(),
                version: "unversioned".to_owned(),
                title: source.clone(),
                url: String::new(),
            },
            base_url: String::new(),
        };
        let report = import_with_progress(app, &import).await?;
        tell(source, &report);
    }
    // What earlier forms of the set left would be in the way of the graph.
    app.index.remove_unreachable(std::time::Duration::ZERO).await?;
    Ok(set)
}

fn document(document: Document) -> material::Document {
    // What has only a title is found by it.
    let content = if document.text.trim().is_empty() { document.title.clone() } else { document.text };
    material::Document { path: document.id, title: Some(document.title), format: Format::Plain, content }
}

fn tell(source: &str, report: &Report) {
    if let Some(published) = &report.published {
        eprintln!("indexed {source}: {} documents, {} chunks", published.pages, published.chunks);
    }
    if report.chunks_without_embedding > 0 {
        eprintln!("{source}: {} chunks have no vector", report.chunks_without_embedding);
    }
}
