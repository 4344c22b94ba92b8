//! `doc-server index`: rebuilds the vector index, with progress.

use super::{
    App, Error,
    arguments::{IndexFlags, IndexKind},
    terminal::Meter,
};
use crate::{config::Settings, index::build::VectorIndex};

/// Builds the index and swaps it in.
///
/// # Errors
/// When the build failed; the index in use stays.
pub async fn run(settings: Settings, flags: &IndexFlags) -> Result<(), Error> {
    if flags.lists.is_some() && matches!(flags.kind, IndexKind::Hnsw) {
        return Err(Error::Failed("--lists is for --kind ivfflat; HNSW has --m and --ef-construction".to_owned()));
    }
    let kind = match flags.kind {
        IndexKind::Hnsw => VectorIndex::Hnsw { m: flags.m, ef_construction: flags.ef_construction },
        IndexKind::Ivfflat => VectorIndex::IvfFlat { lists: flags.lists },
    };
    let app = App::open(&settings).await?;
    let built = app
        .run(async |app| {
            let mut meter = Meter::new("rows");
            let built = app
                .index
                .rebuild_vector_index(kind, |model, at| {
                    let number = |count: i64| u64::try_from(count).unwrap_or(0);
                    meter.show(number(at.done), number(at.total), &format!("{model}: {}", at.phase));
                })
                .await;
            meter.clear();
            Ok(built?)
        })
        .await?;
    match built.as_slice() {
        [] => println!("no model has vectors yet; the next import fills the empty HNSW index"),
        models => println!("built and swapped in for {}", models.join(", ")),
    }
    Ok(())
}
