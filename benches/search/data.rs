//! 50,000 chunks or another number: real passages and their vectors, varied, written by the import's own code, indexed at the end.

use std::{sync::Arc, time::Instant};

use doc_server::{
    app::App,
    config::Settings,
    index::{
        Index,
        documents::{NewChunk, NewPage},
        generations::{Build, ModelIdentity, Target},
        terms,
    },
};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use crate::{Failure, texts::Texts};

/// What is made.
#[derive(Clone, Copy)]
pub struct Size {
    /// Chunks in the database.
    pub chunks: usize,
    /// Whether they have text, and can be found by their words; without is many times faster to make.
    pub words: bool,
}

impl Size {
    fn page(self) -> usize {
        if self.words { PAGE } else { WORDLESS_PAGE }
    }
}

/// What most figures are measured on.
pub const USUAL: Size = Size { chunks: 50_000, words: true };

/// Sources they are spread over.
const SOURCES: usize = 5;

/// Chunks of a page.
const PAGE: usize = 20;

/// Chunks of a page without words: fewer statements.
const WORDLESS_PAGE: usize = 500;

/// Length of the noise added to a vector of length one: cosine to the original about 0.86, so that copies are near each
/// other as passages on one topic are, and none is equal.
const NOISE: f32 = 0.6;

/// Raised when the data would come out differently.
const REVISION: &str = "1";

/// Makes the data unless it is there already.
pub async fn prepare(settings: &Settings, texts: &Texts, size: Size) -> Result<(), Failure> {
    let hash = blake3::hash(texts.passages.concat().as_bytes()).to_hex();
    let Size { chunks, words } = size;
    let wanted = format!("doc-server bench {REVISION} {chunks} {words} {:?} {hash}", settings.embed_provider);
    let mut connection = PgConnection::connect(&settings.database_url).await?;
    let found: Option<String> = sqlx::query_scalar(
        "select shobj_description(oid, 'pg_database') from pg_database where datname = current_database()",
    )
    .fetch_one(&mut connection)
    .await?;
    if found.as_deref() == Some(&*wanted) {
        // It may have been made by an older release.
        let app = App::open(settings).await?;
        app.index.migrate().await?;
        app.close().await;
        return Ok(());
    }
    let started = Instant::now();
    eprintln!("making {chunks} chunks, once …");
    connection.execute("drop schema public cascade; create schema public").await?;
    let app = App::open(settings).await?;
    app.index.migrate().await?;
    fill(&app, size, texts, &mut connection).await?;
    app.close().await;
    let database: String = sqlx::query_scalar("select current_database()").fetch_one(&mut connection).await?;
    // Safe: the text has no quotes, and the name is ours.
    connection.execute(AssertSqlSafe(format!("comment on database \"{database}\" is '{wanted}'"))).await?;
    eprintln!("made in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

async fn fill(app: &App, size: Size, texts: &Texts, connection: &mut PgConnection) -> Result<(), Failure> {
    let (index, embedder) = (&app.index, &app.embedder);
    let tokens = embedder.tokens().await?;
    let short = |text: &String| {
        let mut text = text.clone();
        while tokens.count(&text) > embedder.max_tokens() {
            text.truncate(text.floor_char_boundary(text.len() * 4 / 5));
        }
        text
    };
    let read: Vec<String> = texts.passages.iter().map(short).collect();
    let vectors: Vec<Arc<[f32]>> = embedder.embed_passages(&read).await?.into_iter().collect::<Result<_, _>>()?;
    let identity = embedder.identity().await?;
    let model = index.register_model(&ModelIdentity::from(&*identity)).await?;
    // Building an index at once is many times faster than row by row.
    let indexes = sqlx::query(
        "select indexname, indexdef from pg_indexes
         where indexname in (vector_index_name($1), 'chunk_words_by_term')",
    )
    .bind(model.id)
    .fetch_all(&mut *connection)
    .await?;
    for row in &indexes {
        connection.execute(AssertSqlSafe(format!("drop index {}", row.get::<String, _>(0)))).await?;
    }
    let mut builds = Vec::new();
    for source in 0..SOURCES {
        let source_id = format!("bench-{source}");
        let target = Target { title: source_id.clone(), source_id, version: "1.0.0".into(), url: String::new() };
        let build = index.begin_build(&target, model).await?;
        let pages =
            (0..size.chunks / SOURCES / size.page()).map(|page| make_page((source, page), size, texts, &vectors));
        write(index, &build, pages).await?;
        builds.push(build);
    }
    connection.execute("set maintenance_work_mem = '512MB'; set max_parallel_maintenance_workers = 0").await?;
    for row in &indexes {
        connection.execute(AssertSqlSafe(row.get::<String, _>(1))).await?;
    }
    for build in &mut builds {
        index.publish(build).await?;
    }
    connection.execute("vacuum analyze").await?;
    Ok(())
}

async fn write(index: &Index, build: &Build, pages: impl Iterator<Item = NewPage>) -> Result<(), Failure> {
    stream::iter(pages)
        .map(|page| async move { index.write_page(build, &page, &[]).await })
        .buffer_unordered(4)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

fn make_page((source, page): (usize, usize), size: Size, texts: &Texts, vectors: &[Arc<[f32]>]) -> NewPage {
    let mut random = fastrand::Rng::with_seed((source * 1_000_000 + page) as u64);
    let path = format!("guide/page-{page}.md");
    let title = format!("Page {page} of {source}");
    let chunks: Vec<NewChunk> = (0..size.page())
        .map(|nth| {
            let base = random.usize(..vectors.len());
            let content = if size.words {
                varied(&texts.passages[base], &texts.passages[random.usize(..vectors.len())], &mut random)
            } else {
                format!("{source} {page} {nth}")
            };
            NewChunk {
                section: vec!["Section".to_owned()],
                language: None,
                tokens: 200,
                hash: *blake3::hash(content.as_bytes()).as_bytes(),
                vector: Some(jittered(&vectors[base], &mut random)),
                terms: if size.words { terms::of_chunk(&title, &content) } else { terms::of_chunk("", "") },
                content,
            }
        })
        .collect();
    NewPage {
        url: format!("https://docs.example.org/{source}/{path}"),
        title,
        content: String::new(),
        content_type: "text/markdown",
        content_hash: *blake3::hash(path.as_bytes()).as_bytes(),
        words: 2_000,
        metadata: json!({ "path": path }),
        path,
        chunks,
        code_examples: Vec::new(),
    }
}

/// Most of one text, some of another: words stay as rare as they are.
fn varied(one: &str, other: &str, random: &mut fastrand::Rng) -> String {
    let words = |text: &str, share: usize, random: &mut fastrand::Rng| {
        let words: Vec<String> = text.split(' ').map(ToOwned::to_owned).collect();
        let length = (words.len() * share / 100).max(1);
        let start = random.usize(..=words.len() - length);
        words[start..start + length].join(" ")
    };
    format!("{}\n\n{}", words(one, 70, random), words(other, 30, random))
}

fn jittered(vector: &[f32], random: &mut fastrand::Rng) -> Arc<[f32]> {
    let noise: Vec<f32> = vector.iter().map(|_| (0..4).map(|_| random.f32() - 0.5).sum()).collect();
    let length = |of: &[f32]| of.iter().map(|value| value * value).sum::<f32>().sqrt();
    let scale = NOISE / length(&noise);
    let moved: Vec<f32> = vector.iter().zip(&noise).map(|(value, noise)| value + noise * scale).collect();
    let by = length(&moved);
    moved.into_iter().map(|value| value / by).collect()
}
