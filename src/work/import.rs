//! Importing a folder, a file or documents: read, cut, embed, write, publish.
//!
//! Pages go into a build beside the published generation, each in a transaction of its own; one atomic publish ends the import.
//! A stop at any point leaves what is published as it was, and the next import of the same version goes on from there.
//! Files that cannot be read as text are skipped and reported, never fatal; what was published of them stays.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Map, Value};

use super::{
    chunk::{self, Limits},
    files::{Found, Skipped},
    material::{Document, Item, Material},
    parse::{self, Format},
};
use crate::{
    embed::{Embedder, TokenCounter, Vector},
    error::Error,
    index::{
        Index,
        documents::{KnownPage, NewChunk, NewCodeExample, NewPage},
        generations::{Build, ModelIdentity, Published, Target},
        terms,
    },
};

/// Raised when parsing or chunking changes what a page becomes, so that unchanged files are imported anew.
const PIPELINE: &str = "2";

/// Pages in work at once: enough that the model never waits for the database or the parser.
const PAGES_IN_WORK: usize = 6;

/// What to import.
#[derive(Clone, Debug)]
pub struct Import {
    /// Where its pages come from.
    pub material: Material,
    /// The source and version to build.
    pub target: Target,
    /// Put before each page's path to make its address; empty keeps the path.
    pub base_url: String,
}

/// How far an import is; read while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Pages to look at.
    pub pages_total: AtomicU64,
    /// Pages done, unchanged ones included.
    pub pages_done: AtomicU64,
    /// Chunks embedded.
    pub chunks_embedded: AtomicU64,
}

/// What an import did.
#[derive(Debug, Default)]
pub struct Report {
    /// Pages written because they are new or changed.
    pub written: u64,
    /// Pages that were as published.
    pub unchanged: u64,
    /// Pages that are gone from the folder.
    pub removed: u64,
    /// Chunks embedded, not taken over from an earlier import.
    pub chunks_embedded: u64,
    /// Chunks stored without a vector.
    pub chunks_without_embedding: u64,
    /// Files left out, and why.
    pub skipped: Vec<Skipped>,
    /// Whether it went on with what an interrupted import left.
    pub resumed: bool,
    /// What is published now; none when nothing had changed.
    pub published: Option<Published>,
}

/// What all pages of one import share.
struct Context<'a> {
    index: &'a Index,
    embedder: &'a Embedder,
    tokens: Arc<TokenCounter>,
    import: &'a Import,
    model: String,
    known: HashMap<String, Vec<KnownPage>>,
    progress: &'a Progress,
}

/// What became of one page.
enum Outcome {
    Unchanged,
    Written { embedded: u64, without: u64 },
    Skipped(Skipped),
}

/// Runs an import to its publish.
///
/// # Errors
/// When nothing can be imported from the path, another import of the version runs, or the model or the database fails. What is
/// published stays, and running it again goes on.
///
/// # Cancel safety
/// Dropping the future is such a stop.
pub async fn run(index: &Index, embedder: &Embedder, import: &Import, progress: &Progress) -> Result<Report, Error> {
    let found = import.material.files()?;
    let identity = embedder.identity().await?;
    let model = index.register_model(&ModelIdentity::from(&*identity)).await?;
    let mut build = index.begin_build(&import.target, model).await?;
    let context = async {
        Ok(Context {
            index,
            embedder,
            tokens: embedder.tokens().await?,
            import,
            model: format!("{}/{}/{}", identity.precision, identity.dimensions, identity.revision),
            known: index.known_pages(&build).await?,
            progress,
        })
    };
    let report = match context.await {
        Ok(context) => context.fill_and_publish(&mut build, &found).await,
        Err(error) => Err(error),
    };
    index.release(build).await;
    report
}

impl Context<'_> {
    async fn fill_and_publish(&self, build: &mut Build, found: &Found) -> Result<Report, Error> {
        let items = self.import.material.items(found);
        self.progress.pages_total.store(items.len() as u64, Ordering::Relaxed);
        let mut report = self.import_all(build, &items, &found.skipped).await?;
        report.resumed = build.resumed;
        if report.written + report.unchanged == 0 && !report.skipped.is_empty() {
            let (files, first) = (report.skipped.len(), &report.skipped[0]);
            let message = format!("none of {files} files can be used; the first: {}: {}", first.name, first.reason);
            self.index.discard(build).await?;
            return Err(Error::Invalid { field: "path", message });
        }
        if self.index.has_changes(build).await? {
            report.published = Some(self.index.publish(build).await?);
        } else {
            self.index.discard(build).await?;
        }
        Ok(report)
    }

    /// `unusable` are files known to be left out.
    async fn import_all(&self, build: &Build, items: &[Item<'_>], unusable: &[Skipped]) -> Result<Report, Error> {
        let mut report = Report { skipped: unusable.to_vec(), ..Report::default() };
        let mut outcomes = stream::iter(items)
            .map(|item| async move {
                let outcome = self.import_item(build, *item).await;
                self.progress.pages_done.fetch_add(1, Ordering::Relaxed);
                outcome
            })
            .buffer_unordered(PAGES_IN_WORK);
        while let Some(outcome) = outcomes.try_next().await? {
            match outcome {
                Outcome::Unchanged => report.unchanged += 1,
                Outcome::Skipped(skipped) => report.skipped.push(skipped),
                Outcome::Written { embedded, without } => {
                    report.written += 1;
                    report.chunks_embedded += embedded;
                    report.chunks_without_embedding += without;
                }
            }
        }
        drop(outcomes);
        report.removed = self.remove_missing(build, items, &report.skipped).await?;
        Ok(report)
    }

    async fn import_item(&self, build: &Build, item: Item<'_>) -> Result<Outcome, Error> {
        let document = match item.read().await {
            Ok(document) => document,
            Err(skipped) => return Ok(Outcome::Skipped(skipped)),
        };
        let url = address(&self.import.base_url, &document.path);
        let hash = self.content_hash(&document, &url);
        let known = self.known.get(item.name()).map_or(&[][..], Vec::as_slice);
        if self.is_up_to_date(build, known, &hash).await? {
            return Ok(Outcome::Unchanged);
        }
        let mut cut = self.cut(document, url, hash).await?;
        let (embedded, without) = self.embed(build, &mut cut).await?;
        self.index.write_page(build, &cut.page, known).await?;
        Ok(Outcome::Written { embedded, without })
    }

    fn content_hash(&self, document: &Document, url: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let title = document.title.as_deref().unwrap_or_default();
        for part in [PIPELINE, &self.model, &document.path, url, title, &document.content] {
            // The length keeps two different splits of the same bytes apart.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// Whether the build already has the page in this form, with all its vectors; takes it back where an interrupted import had ended it.
    async fn is_up_to_date(&self, build: &Build, known: &[KnownPage], hash: &[u8; 32]) -> Result<bool, Error> {
        let Some(same) = known.iter().find(|page| page.complete && page.content_hash == hash) else { return Ok(false) };
        if same.ended {
            self.index.keep_page(build, same).await?;
        }
        let others: Vec<_> = known.iter().filter(|page| page.page_id != same.page_id && !page.ended).cloned().collect();
        if !others.is_empty() {
            self.index.remove_pages(build, &others).await?;
        }
        Ok(true)
    }

    /// Parses and cuts on a thread of its own: a large page takes many milliseconds.
    async fn cut(&self, document: Document, url: String, hash: [u8; 32]) -> Result<Cut, Error> {
        let tokens = Arc::clone(&self.tokens);
        let limits = Limits { max_tokens: self.embedder.max_tokens() };
        tokio::task::spawn_blocking(move || {
            let Document { path, title, format, content: text } = document;
            let page = match title {
                Some(title) => parse::parse_titled(format, &path, &title, &text),
                None => parse::parse(format, &path, &text),
            };
            let (chunks, examples) = chunk::chunk(&page, &limits, &|text| tokens.count(text));
            let page = NewPage {
                url,
                title: page.title,
                content_type: content_type(format),
                content_hash: hash,
                words: text.split_whitespace().count(),
                // Postgres text holds no NUL.
                content: text.replace('\0', ""),
                metadata: Value::Object(with_path(page.metadata, &path)),
                path,
                chunks: Vec::new(),
                code_examples: examples.into_iter().map(new_code_example).collect(),
            };
            Cut::new(page, chunks)
        })
        .await
        .map_err(|error| Error::Internal(format!("cutting a page failed: {error}")))
    }

    /// Fills in the vectors: those an earlier import made, then the model's. Returns how many were embedded, and how many
    /// chunks are left without.
    async fn embed(&self, build: &Build, cut: &mut Cut) -> Result<(u64, u64), Error> {
        let hashes: Vec<[u8; 32]> = cut.page.chunks.iter().map(|chunk| chunk.hash).collect();
        let known =
            if self.known.is_empty() { HashMap::new() } else { self.index.known_vectors(build, &hashes).await? };
        let missing: Vec<usize> = (0..hashes.len()).filter(|&nth| !known.contains_key(&hashes[nth])).collect();
        let texts: Vec<String> = missing.iter().map(|&nth| std::mem::take(&mut cut.texts[nth])).collect();
        let vectors: Vec<Result<Vector, _>> = self.embedder.embed_passages(&texts).await?;
        for (chunk, hash) in cut.page.chunks.iter_mut().zip(&hashes) {
            chunk.vector = known.get(hash).cloned();
        }
        let mut without = 0;
        for (nth, vector) in missing.iter().zip(vectors) {
            match vector {
                Ok(vector) => cut.page.chunks[*nth].vector = Some(vector),
                Err(error) if !error.is_of_the_text() => return Err(error.into()),
                Err(error) => {
                    without += 1;
                    tracing::warn!(page = cut.page.path, chunk = nth, %error, "chunk stored without a vector");
                }
            }
        }
        self.progress.chunks_embedded.fetch_add(missing.len() as u64, Ordering::Relaxed);
        Ok((missing.len() as u64 - without, without))
    }

    /// Ends the pages of what is gone. Files that exist but cannot be read keep what is published of them.
    async fn remove_missing(&self, build: &Build, items: &[Item<'_>], skipped: &[Skipped]) -> Result<u64, Error> {
        let present: HashSet<&str> =
            items.iter().map(|item| item.name()).chain(skipped.iter().map(|skipped| skipped.name.as_str())).collect();
        let missing: Vec<KnownPage> = self
            .known
            .iter()
            .filter(|(path, _)| !present.contains(path.as_str()) && !in_skipped_folder(path, skipped))
            .flat_map(|(_, pages)| pages.clone())
            .collect();
        self.index.remove_pages(build, &missing).await?;
        Ok(missing.iter().filter(|page| !page.ended).count() as u64)
    }
}

/// Whether `path` lies in a folder that could not be entered: nobody knows whether it is gone.
fn in_skipped_folder(path: &str, skipped: &[Skipped]) -> bool {
    skipped.iter().any(|skipped| skipped.name.ends_with('/') && path.starts_with(&skipped.name))
}

/// A page cut into chunks that have no vectors yet, and what the model reads of each.
struct Cut {
    page: NewPage,
    texts: Vec<String>,
}

impl Cut {
    fn new(mut page: NewPage, chunks: Vec<chunk::Chunk>) -> Self {
        let (new, texts) = chunks
            .into_iter()
            .map(|chunk| {
                let terms = terms::of_chunk(&chunk.context, &chunk.content);
                let new = NewChunk {
                    section: chunk.section,
                    content: chunk.content,
                    language: chunk.language,
                    tokens: chunk.tokens,
                    hash: chunk.hash,
                    vector: None,
                    terms,
                };
                (new, chunk.embed_text)
            })
            .unzip();
        page.chunks = new;
        Self { page, texts }
    }
}

fn new_code_example(example: chunk::CodeExample) -> NewCodeExample {
    NewCodeExample {
        chunk: example.chunk_number,
        language: example.language,
        code: example.code,
        context: example.context,
    }
}

fn content_type(format: Format) -> &'static str {
    match format {
        Format::Markdown => "text/markdown",
        Format::Html => "text/html",
        Format::Plain => "text/plain",
    }
}

/// The page's path is found in its metadata also where its address is another.
fn with_path(mut metadata: Map<String, Value>, path: &str) -> Map<String, Value> {
    metadata.entry("path").or_insert_with(|| Value::String(path.to_owned()));
    metadata
}

fn address(base_url: &str, name: &str) -> String {
    if base_url.is_empty() { name.to_owned() } else { format!("{}/{name}", base_url.trim_end_matches('/')) }
}
