//! `doc-server sources`: lists what was imported and deletes it, also where the server asks its callers for a key.

use super::{
    App, Error,
    arguments::SourcesCommand,
    terminal::{print, table, time},
};
use crate::{
    api::SourceBody,
    config::Settings,
    index::{Index, View, catalog::Source, sources::default_version},
};

/// Does what the command says.
///
/// # Errors
/// For a source that is not there, and when the database cannot be used.
pub async fn run(settings: Settings, command: SourcesCommand) -> Result<(), Error> {
    let app = App::open(&settings).await?;
    app.run(async |app| match &command {
        SourcesCommand::List { json } => list(&app.index, *json).await,
        SourcesCommand::Delete { source_id } => delete(&app.index, source_id).await,
    })
    .await
}

async fn list(index: &Index, json: bool) -> Result<(), Error> {
    let catalog = index.refresh_catalog().await?;
    let view = View::everything();
    let text = if json {
        let bodies: Vec<_> = catalog.sources(&view).map(SourceBody::from).collect();
        serde_json::to_string_pretty(&bodies).map_err(|error| Error::Failed(error.to_string()))?
    } else {
        as_table(catalog.sources(&view))
    };
    print(&text)
}

fn as_table<'a>(sources: impl Iterator<Item = &'a Source>) -> String {
    let rows: Vec<_> = sources.map(row).collect();
    if rows.is_empty() {
        return "nothing is imported; begin with doc-server ingest FOLDER --source ID".to_owned();
    }
    table(["source", "default version", "versions", "pages", "chunks", "without vector", "changed"], rows)
}

/// The numbers are those of the default version: the one that a search without `version` reads.
fn row(source: &Source) -> [String; 7] {
    let searched = default_version(source);
    let version = source.versions.iter().find(|version| Some(&version.version) == searched.as_ref());
    let count = |of: fn(&crate::index::catalog::Generation) -> i64| {
        let published = version.and_then(|version| version.published.as_ref());
        published.map_or_else(|| "-".to_owned(), |generation| of(generation).to_string())
    };
    let published = source.versions.iter().filter(|version| version.published.is_some()).count();
    let unfinished = source.versions.len() - published;
    [
        source.source_id.to_string(),
        searched.map_or_else(|| "none".to_owned(), |version| version.to_string()),
        if unfinished == 0 {
            published.to_string()
        } else {
            format!("{published}, {unfinished} not imported to its end")
        },
        count(|generation| generation.pages),
        count(|generation| generation.chunks),
        count(|generation| generation.chunks_without_embedding),
        time(source.updated_at),
    ]
}

async fn delete(index: &Index, source_id: &str) -> Result<(), Error> {
    if index.delete_source(source_id).await? {
        return print(&format!("source {source_id} is deleted; searches no longer find it"));
    }
    Err(Error::Failed(format!("no source is called {source_id:?}; doc-server sources list shows them")))
}
