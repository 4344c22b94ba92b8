//! Importing a folder of Markdown, published at the end, against the embedder alone on the same chunk texts.

use std::{fmt::Write, time::Instant};

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

use crate::{Failure, print_ratio, texts::Texts};

/// About eight chunks each: a thousand chunks in all, some ten seconds a side.
const PAGES: usize = 120;

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
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    let count = chunks.len() as f64;
    let half = chunks.len() / 2;
    // Half before, half after: what slows the machine for a while hits both sides.
    let alone = async |texts: &[String]| {
        let started = Instant::now();
        app.embedder.embed_passages(texts).await.map(|_| started.elapsed())
    };
    let before = alone(&chunks[..half]).await?;
    let import = Import {
        material: Material::Path { path: folder.path().to_owned(), max_file_bytes: settings.max_file_bytes },
        target: Target {
            source_id: "bench".to_owned(),
            version: "1".to_owned(),
            title: String::new(),
            url: String::new(),
        },
        base_url: String::new(),
    };
    let started = Instant::now();
    let report = import::run(&app.index, &app.embedder, &import, &Progress::default()).await?;
    let imported = started.elapsed();
    let embedded = before + alone(&chunks[half..]).await?;
    if report.chunks_embedded != chunks.len() as u64 {
        return Err(format!("{} chunks embedded, {count} expected", report.chunks_embedded).into());
    }
    let rate = |time: std::time::Duration| count / time.as_secs_f64();
    print_ratio("import", (rate(imported), "chunks/s"), (rate(embedded), "embedder alone"), "must 0.85");
    app.close().await;
    Ok(())
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
