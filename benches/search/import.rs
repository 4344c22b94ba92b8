//! Importing a folder of Markdown, published at the end, against the embedder alone on the same chunk texts.

use std::{fmt::Write, path::Path, time::Instant};

use doc_server::{
    app::App,
    config::Settings,
    index::generations::Target,
    work::{
        chunk::{Limits, chunk},
        import::{self, Import, Progress},
        material::Material,
        parse::{Format, parse},
    },
};
use sqlx::{Connection, Executor, PgConnection};

use crate::{Failure, median, print_ratio, texts::Texts};

/// About nine chunks each: some five seconds a side.
const PAGES: usize = 60;

/// Both sides take turns so many times, and the middle one counts: the machine has neighbours.
const ROUNDS: usize = 3;

/// Passages of a page, under a heading each.
const SECTIONS: usize = 8;

pub async fn run(settings: &Settings, texts: &Texts) -> Result<(), Failure> {
    let mut settings = settings.clone();
    doc_server::index::database::beside(&settings.database_url.parse()?, "_import").await?;
    settings.database_url = settings.database_url.replace("_bench", "_bench_import");
    PgConnection::connect(&settings.database_url)
        .await?
        .execute("drop schema public cascade; create schema public")
        .await?;
    let folder = tempfile::tempdir()?;
    let app = App::open(&settings).await?;
    app.index.migrate().await?;
    app.embedder.warm().await?;
    let tokens = app.embedder.tokens().await?;
    let mut chunks = Vec::new();
    for nth in 0..PAGES {
        let (name, text) = (format!("page-{nth:03}.md"), page(nth, texts));
        std::fs::write(folder.path().join(&name), &text)?;
        let page = parse(Format::Markdown, &name, &text);
        let (cut, _) = chunk(&page, &Limits::default(), &|text| tokens.count(text));
        chunks.extend(cut.into_iter().map(|chunk| chunk.embed_text));
    }
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let count = chunks.len() as f64;
    let (mut imported, mut embedded) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let started = Instant::now();
        app.embedder.embed_passages(&chunks).await?;
        embedded.push(count / started.elapsed().as_secs_f64());
        let started = Instant::now();
        let import = import_of(folder.path(), round, &settings);
        let report = import::run(&app.index, &app.embedder, &import, &Progress::default()).await?;
        imported.push(count / started.elapsed().as_secs_f64());
        if report.chunks_embedded != chunks.len() as u64 {
            return Err(format!("{} chunks embedded, {count} expected", report.chunks_embedded).into());
        }
    }
    print_ratio("import", (median(imported), "chunks/s"), (median(embedded), "embedder alone"), "must 0.85");
    app.close().await;
    Ok(())
}

fn import_of(folder: &Path, round: usize, settings: &Settings) -> Import {
    Import {
        material: Material::Path { path: folder.to_owned(), max_file_bytes: settings.max_file_bytes },
        target: Target {
            // Each a source of its own, or the second would find the vectors of the first.
            source_id: format!("bench-{round}"),
            version: "1".to_owned(),
            title: String::new(),
            url: String::new(),
        },
        base_url: String::new(),
    }
}

fn page(nth: usize, texts: &Texts) -> String {
    let mut text = format!("# Page {nth}\n\n");
    for section in 0..SECTIONS {
        let passage = &texts.passages[(nth * SECTIONS + section) % texts.passages.len()];
        // Its own line breaks and marks would be read as Markdown.
        let plain: Vec<&str> =
            passage.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric)).collect();
        let _ = write!(text, "## Part {section}\n\nOf page {nth}: {}\n\n", plain.join(" "));
    }
    text
}
