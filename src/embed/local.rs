//! The model in this process: ONNX Runtime sessions that run one text at a time on blocking threads.
//!
//! The model's files are fetched (where a hub is set) and loaded on first need. Each session computes on the thread of
//! the worker that borrowed it, so `sessions` texts run at once and a query waits for at most one running passage. A
//! session that panics is rebuilt. Files that change under a running process are refused: their vectors would be
//! stored under the wrong identity.

use std::{path::PathBuf, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use tokio::time::Instant;

use super::{
    Engine, Error, Identity, Status, TokenCounter,
    hub::{self, Hub},
    lazy::Lazy,
    model_files::ModelFiles,
    onnx::Runner,
    pool::Pool,
    queue::{Outcome, Worker, Workers},
    vector::Embedded,
};
use crate::runtime::{lifecycle::Lifecycle, metrics};

/// How exact the model computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Three times faster, a quarter of the memory, a little less exact.
    #[default]
    Int8,
    /// As trained.
    F32,
}

impl Precision {
    /// As identities spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::F32 => "f32",
        }
    }

    /// The graph's file in a model's folder.
    pub fn file(self) -> &'static str {
        match self {
            Self::Int8 => "model_int8.onnx",
            Self::F32 => "model.onnx",
        }
    }
}

/// Where the model is and how it runs.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// `libonnxruntime.so`.
    pub library: PathBuf,
    /// Holds the graph, `tokenizer.json` and `config.json`; its name is the model's name.
    pub model_dir: PathBuf,
    /// Which graph.
    pub precision: Precision,
    /// Texts that run at once; each has its own copy of the model.
    pub sessions: usize,
    /// Threads that compute one text.
    pub intra_threads: usize,
    /// The most tokens of one text, special ones included.
    pub max_tokens: usize,
    /// Where files that the folder lacks are fetched from.
    pub hub: Option<Hub>,
}

impl LocalConfig {
    /// Two sessions of one thread: two cores' work with a passage never ahead of a query on both for long. 256 tokens
    /// is what all-MiniLM-L6-v2 was trained on.
    pub fn new(library: impl Into<PathBuf>, model_dir: impl Into<PathBuf>, precision: Precision) -> Self {
        let (library, model_dir) = (library.into(), model_dir.into());
        Self { library, model_dir, precision, sessions: 2, intra_threads: 1, max_tokens: 256, hub: None }
    }
}

/// The local backend.
pub(super) struct Local {
    config: LocalConfig,
    files: ModelFiles,
    lifecycle: Lifecycle,
    identity: Lazy<Identity>,
    tokens: Lazy<TokenCounter>,
    runners: Lazy<Pool<Runner>>,
}

impl Local {
    /// Loads nothing.
    ///
    /// # Errors
    /// When a number in `config` cannot work.
    pub fn new(config: LocalConfig, lifecycle: &Lifecycle) -> Result<Self, Error> {
        // Three tokens: one of the text between the two special ones.
        for (setting, value, least) in [
            ("embed_sessions", config.sessions, 1),
            ("embed_intra_threads", config.intra_threads, 1),
            ("embed_max_tokens", config.max_tokens, 3),
        ] {
            if value < least {
                return Err(Error::setting(setting, format!("must be at least {least}")));
            }
        }
        let files = ModelFiles::new(&config.model_dir, config.precision);
        let (identity, tokens, runners) = (Lazy::new(), Lazy::new(), Lazy::new());
        Ok(Self { config, files, lifecycle: lifecycle.clone(), identity, tokens, runners })
    }

    async fn known_identity(&self) -> Result<Arc<Identity>, Error> {
        self.identity
            .get(&self.lifecycle, || {
                let (files, config, lifecycle) = (self.files.clone(), self.config.clone(), self.lifecycle.clone());
                async move {
                    fetch_missing(&config, &lifecycle).await?;
                    blocking(move || files.identity(config.max_tokens)).await
                }
            })
            .await
    }

    async fn loaded_tokens(&self) -> Result<Arc<TokenCounter>, Error> {
        self.known_identity().await?;
        let path = self.files.tokenizer();
        self.tokens.get(&self.lifecycle, || blocking(move || TokenCounter::open(&path))).await
    }

    async fn loaded_runners(&self) -> Result<Arc<Pool<Runner>>, Error> {
        let identity = self.known_identity().await?;
        self.loaded_tokens().await?;
        let (files, config) = (self.files.clone(), self.config.clone());
        self.runners.get(&self.lifecycle, || blocking(move || load(&files, config, &identity))).await
    }

    /// A worker's life, on a blocking thread.
    fn drain(&self, worker: &mut Worker) {
        while let Some(batch) = worker.next(1) {
            let outcomes: Vec<_> = batch.texts().iter().map(|text| self.timed(text)).collect();
            batch.finish(outcomes);
        }
    }

    fn timed(&self, text: &str) -> Outcome {
        let started = Instant::now();
        let outcome = self.embed(text);
        metrics::record_embed_call(if outcome.is_ok() { "ok" } else { "error" }, 1, started.elapsed());
        outcome
    }

    fn embed(&self, text: &str) -> Outcome {
        let (Some(counter), Some(runners)) = (self.tokens.peek(), self.runners.peek()) else {
            return Err(Error::Model("it is not loaded".to_owned()));
        };
        let encoded = counter.encode(text, self.config.max_tokens)?;
        let vector = runners.lend(|runner| runner.run(&encoded.ids))?;
        let cut_from = (encoded.tokens > self.config.max_tokens).then_some(encoded.tokens);
        Ok(Embedded { vector, cut_from })
    }
}

impl Engine for Local {
    fn workers(&self) -> Workers {
        // One passage runs for at most some 10 ms, so no session is kept free for queries.
        Workers { total: self.config.sessions, passages: self.config.sessions }
    }

    fn max_tokens(&self) -> usize {
        self.config.max_tokens
    }

    fn identity(&self) -> BoxFuture<'_, Result<Arc<Identity>, Error>> {
        self.known_identity().boxed()
    }

    fn tokens(&self) -> BoxFuture<'_, Result<Arc<TokenCounter>, Error>> {
        self.loaded_tokens().boxed()
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            // The usual case, without a task or a lock held for long.
            if self.runners.peek().is_none() {
                self.loaded_runners().await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn status(&self) -> Status {
        let parts = [self.identity.status(), self.tokens.status(), self.runners.status()];
        let failed = parts.iter().find(|part| matches!(part, Status::Failed { .. }));
        failed.or_else(|| parts.iter().find(|part| **part == Status::Loading)).unwrap_or(&parts[2]).clone()
    }

    fn start(self: Arc<Self>, mut worker: Worker) {
        let lifecycle = self.lifecycle.clone();
        // Begins at once on a blocking thread; the tracked task only waits for its end.
        lifecycle.spawn_detached(tokio::task::spawn_blocking(move || self.drain(&mut worker)));
    }
}

async fn fetch_missing(config: &LocalConfig, lifecycle: &Lifecycle) -> Result<(), Error> {
    let Some(hub) = &config.hub else { return Ok(()) };
    let stopping = lifecycle.stopping();
    tokio::select! {
        biased;
        () = stopping.cancelled() => Err(Error::Stopped),
        fetched = hub::fetch_missing(hub, &config.model_dir) => fetched,
    }
}

fn load(files: &ModelFiles, config: LocalConfig, identity: &Identity) -> Result<Pool<Runner>, Error> {
    let started = Instant::now();
    let (graph, dimensions) = (files.graph(), identity.dimensions);
    let runners =
        Pool::new(config.sessions, move || Runner::open(&config.library, &graph, config.intra_threads, dimensions))?;
    if files.identity(config.max_tokens)? != *identity {
        return Err(Error::Load("its files changed since this process first read them; restart it".to_owned()));
    }
    tracing::info!(model = %identity, ms = started.elapsed().as_millis(), "embedding model loaded");
    Ok(runners)
}

/// Runs file work where it blocks nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let joined = tokio::task::spawn_blocking(move || super::pool::caught(work)).await;
    joined.unwrap_or(Err(Error::Stopped))
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
