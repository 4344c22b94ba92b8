//! `doc-server ingest`: imports a folder or file, with progress.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{
    App, Error,
    arguments::IngestFlags,
    terminal::{Meter, counted},
};
use crate::{
    config::Settings,
    index::{View, generations::Target, sources::default_version},
    work::{
        import::{self, Import, Progress, Report},
        material::Material,
    },
};

/// Often enough for a bar to move smoothly.
const SHOW_EVERY: Duration = Duration::from_millis(200);

/// Skipped files named one by one; the rest are counted.
const SHOWN_SKIPPED: usize = 20;

/// Runs the import and says what it did.
///
/// # Errors
/// When nothing could be published.
pub async fn run(settings: Settings, flags: &IngestFlags) -> Result<(), Error> {
    let started = Instant::now();
    let work = Import {
        material: Material::Path { path: flags.path.clone(), max_file_bytes: settings.max_file_bytes },
        target: Target {
            source_id: flags.source.clone(),
            version: flags.version.clone(),
            title: flags.title.clone().unwrap_or_else(|| flags.source.clone()),
            url: flags.url.clone().unwrap_or_default(),
        },
        base_url: String::new(),
    };
    let app = App::open(&settings).await?;
    let (report, default) = app
        .run(async |app| {
            let stored = async || -> Result<_, Error> {
                let catalog = app.index.catalog().await?;
                Ok(catalog
                    .source(&flags.source, &View::everything())
                    .map(|source| source.url.clone())
                    .unwrap_or_default())
            };
            let base_url = match &flags.url {
                Some(url) => url.clone(),
                None => stored().await?,
            };
            let report = import_with_progress(app, &Import { base_url, ..work.clone() }).await?;
            let catalog = app.index.refresh_catalog().await?;
            let default = catalog.source(&flags.source, &View::everything()).and_then(default_version);
            Ok((report, default))
        })
        .await?;
    print_report(&report, flags, started.elapsed());
    if let Some(default) = default.filter(|default| **default != *flags.version) {
        println!(
            "a search that names no version reads {} {default}, the highest release or what PATCH /api/sources/{} set as default_version",
            flags.source, flags.source
        );
    }
    Ok(())
}

/// Runs the import and shows how far it is.
///
/// # Errors
/// As [`import::run`].
pub(super) async fn import_with_progress(app: &App, work: &Import) -> Result<Report, crate::error::Error> {
    let progress = Progress::default();
    let mut meter = Meter::new("pages");
    let mut running = std::pin::pin!(import::run(&app.index, &app.embedder, work, &progress));
    let report = loop {
        tokio::select! {
            report = &mut running => break report,
            () = tokio::time::sleep(SHOW_EVERY) => {
                let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
                let note = format!("{} chunks embedded", read(&progress.chunks_embedded));
                meter.show(read(&progress.pages_done), read(&progress.pages_total), &note);
            }
        }
    };
    meter.clear();
    report
}

fn print_report(report: &Report, flags: &IngestFlags, took: Duration) {
    for skipped in report.skipped.iter().take(SHOWN_SKIPPED) {
        eprintln!("skipped {}: {}", skipped.name, skipped.reason);
    }
    if report.skipped.len() > SHOWN_SKIPPED {
        eprintln!("skipped {} more files", report.skipped.len() - SHOWN_SKIPPED);
    }
    if report.resumed {
        println!("went on with an import that had not finished");
    }
    println!(
        "{} written, {} unchanged, {} removed, {} skipped; {} embedded in {:.1} s",
        counted(report.written, "page"),
        report.unchanged,
        report.removed,
        counted(report.skipped.len(), "file"),
        counted(report.chunks_embedded, "chunk"),
        took.as_secs_f64()
    );
    if report.chunks_without_embedding > 0 {
        println!(
            "{} chunks have no vector and are found by words only; the log says why",
            report.chunks_without_embedding
        );
    }
    match &report.published {
        Some(published) => println!(
            "published {} {}: {}, {}, {}",
            flags.source,
            flags.version,
            counted(published.pages, "page"),
            counted(published.chunks, "chunk"),
            counted(published.code_examples, "code example")
        ),
        None => println!("nothing has changed; {} {} stays as it is", flags.source, flags.version),
    }
}
