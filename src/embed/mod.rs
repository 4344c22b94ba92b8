//! Texts to vectors: one handle over a local model, a remote provider or a deterministic fake.
//!
//! Every vector has unit length, the identity's dimensions and only finite numbers; whatever prevents that is an error
//! with a reason, never a zero or a silently shortened vector. A text's vector depends on that text alone. Nothing is
//! loaded before its first need, and a failed load is tried again at the next need. Bounded: waiting queries are
//! refused beyond the queue's capacity, passages wait for room, and identical texts wait and run once.
//!
//! On shutdown passages end with [`Error::Stopped`] at once (an import resumes later), queries are served as long as
//! open requests are: until the lifecycle's hard stop.

mod error;
mod fake;
mod hub;
mod lazy;
mod local;
mod model_files;
mod onnx;
mod pool;
mod provider;
mod queue;
mod remote;
mod retry;
mod tokens;
mod vector;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::{BoxFuture, join_all};

pub use self::{
    error::Error,
    fake::{FakeConfig, Probe},
    hub::{Hub, HubFile},
    local::{LocalConfig, Precision},
    remote::{ApiKey, RemoteConfig},
    tokens::TokenCounter,
    vector::{Identity, Vector},
};
use self::{
    queue::{Outcome, Queue, Worker, Workers},
    vector::Embedded,
};
use crate::runtime::lifecycle::Lifecycle;

/// A passage beyond this is refused before it is tokenised, which would hold a session for longer than a query should
/// wait: 64 KiB tokenise in about 20 ms, and 256 tokens of real text are under 2 KiB.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// What makes vectors, and how many texts may wait for it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who computes.
    pub backend: Backend,
    /// Distinct queries that may wait, and as many passages. At 0.75 ms a query on two sessions, 1,024 are under half
    /// a second of work: whoever would wait longer is better told at once.
    pub queue_capacity: usize,
}

/// Who computes vectors.
#[derive(Clone, Debug)]
pub enum Backend {
    /// A model in this process.
    Local(LocalConfig),
    /// A provider that answers `/v1/embeddings` as `OpenAI` does.
    Remote(RemoteConfig),
    /// Hashed words: for tests of everything above this stage.
    Fake(FakeConfig),
}

/// How far the model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not needed yet.
    Idle,
    /// Being loaded for the first callers.
    Loading,
    /// Answering.
    Ready,
    /// The last load, or the last call to the provider, failed; the next need tries again.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A query's vector.
#[derive(Clone, Debug)]
pub struct QueryVector {
    /// Unit length.
    pub vector: Vector,
    /// Whether the query was longer than the model reads: the vector then stands for its first
    /// [`Embedder::max_tokens`] tokens, special ones included.
    pub truncated: bool,
}

/// What a backend gives to the handle.
trait Engine: Send + Sync + 'static {
    /// How many workers may run at once.
    fn workers(&self) -> Workers;
    /// The most tokens one text may have.
    fn max_tokens(&self) -> usize;
    /// Refuses a passage that is known to be too long before any work is spent on it.
    fn admit(&self, _passage: &str) -> Result<(), Error> {
        Ok(())
    }
    /// What is stored beside each vector.
    fn identity(&self) -> BoxFuture<'_, Result<Arc<Identity>, Error>>;
    /// Counts tokens as the model does.
    fn tokens(&self) -> BoxFuture<'_, Result<Arc<TokenCounter>, Error>>;
    /// Returns once texts can be embedded.
    fn ready(&self) -> BoxFuture<'_, Result<(), Error>>;
    /// How far it is, without waiting.
    fn status(&self) -> Status;
    /// Starts one tracked worker that runs until the queue has nothing for it.
    fn start(self: Arc<Self>, worker: Worker);
}

/// The cheap handle to the embedding stage.
#[derive(Clone)]
pub struct Embedder {
    engine: Arc<dyn Engine>,
    queue: Arc<Queue>,
    lifecycle: Lifecycle,
    /// Why the last query got no vector, until one gets one.
    failure: Arc<Mutex<Option<String>>>,
}

impl Embedder {
    /// A handle that has loaded nothing yet.
    ///
    /// # Errors
    /// When the settings cannot work whatever the world does: no sessions, no such address.
    pub fn new(config: Config, lifecycle: &Lifecycle) -> Result<Self, Error> {
        if config.queue_capacity == 0 {
            return Err(Error::setting("embed_queue_capacity", "must be at least 1"));
        }
        let engine: Arc<dyn Engine> = match config.backend {
            Backend::Local(local) => Arc::new(local::Local::new(local, lifecycle)?),
            Backend::Remote(remote) => Arc::new(remote::Remote::new(remote, lifecycle)?),
            Backend::Fake(fake) => Arc::new(fake::Fake::new(fake, lifecycle)),
        };
        let worked = Arc::clone(&engine);
        let queue = Queue::new(config.queue_capacity, engine.workers(), move |worker| {
            Arc::clone(&worked).start(worker);
        });
        Ok(Self { engine, queue, lifecycle: lifecycle.clone(), failure: Arc::default() })
    }

    /// What is stored beside each vector. Reads the model's files (or asks the provider once), loads no session.
    ///
    /// # Errors
    /// When the model's files are missing or unreadable, or the provider does not answer.
    ///
    /// # Cancel safety
    /// Safe: the reading goes on for other callers.
    pub async fn identity(&self) -> Result<Arc<Identity>, Error> {
        let identity = self.until_stopped(self.engine.identity()).await;
        if let Err(error) = &identity {
            self.note(Some(error.to_string()));
        }
        identity
    }

    /// The vector of a search text. A text longer than the model reads is cut, and the answer says so.
    ///
    /// # Errors
    /// [`Error::Overloaded`] at once when too many queries wait; an empty text; a model that cannot be loaded or fails.
    ///
    /// # Cancel safety
    /// Safe: a caller that leaves while waiting is skipped, one that leaves while its text runs wastes that run.
    #[tracing::instrument(level = "debug", name = "embed", skip_all)]
    pub async fn embed_query(&self, text: &str) -> Result<QueryVector, Error> {
        check(text)?;
        let work = async {
            self.engine.ready().await?;
            let found = received(self.queue.ask(text)?).await?;
            Ok(QueryVector { truncated: found.cut_from.is_some(), vector: found.vector })
        };
        let embedded = self.until_stopped(work).await;
        let failure = match &embedded {
            Err(Error::Overloaded { .. } | Error::Stopped) => return embedded,
            Err(error) if error.is_of_the_text() => return embedded,
            Err(error) => Some(error.to_string()),
            Ok(_) => None,
        };
        self.note(failure);
        embedded
    }

    fn note(&self, failure: Option<String>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// The vectors of passages, in their order, each with its own error so that one bad text loses no other. Waits for
    /// room in the queue.
    ///
    /// # Errors
    /// When nothing can be embedded: the model cannot be loaded, or the process is stopping.
    ///
    /// # Cancel safety
    /// Safe: passages that still wait are skipped.
    pub async fn embed_passages(&self, texts: &[String]) -> Result<Vec<Result<Vector, Error>>, Error> {
        let stopping = self.lifecycle.stopping();
        tokio::select! {
            biased;
            () = stopping.cancelled() => Err(Error::Stopped),
            vectors = self.passages(texts) => vectors,
        }
    }

    async fn passages(&self, texts: &[String]) -> Result<Vec<Result<Vector, Error>>, Error> {
        self.engine.ready().await?;
        let mut firsts: HashMap<&str, usize> = HashMap::with_capacity(texts.len());
        let mut waiting = Vec::with_capacity(texts.len());
        let mut places = Vec::with_capacity(texts.len());
        for text in texts {
            let place = *firsts.entry(text).or_insert(waiting.len());
            places.push(place);
            if place == waiting.len() {
                waiting.push(match check(text).and_then(|()| self.engine.admit(text)) {
                    Ok(()) => Ok(self.queue.ask_when_room(text).await),
                    Err(error) => Err(error),
                });
            }
        }
        let max = self.max_tokens();
        let found = join_all(waiting.into_iter().map(|asked| async move {
            let found = received(asked?).await?;
            match found.cut_from {
                Some(tokens) => Err(Error::TooLong { tokens, max }),
                None => Ok(found.vector),
            }
        }))
        .await;
        Ok(places.into_iter().map(|place| found[place].clone()).collect())
    }

    /// How far the model is, without waiting.
    pub fn status(&self) -> Status {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (self.engine.status(), failure) {
            (Status::Idle | Status::Ready, Some(reason)) => Status::Failed { reason },
            (status, _) => status,
        }
    }

    /// Loads the model now, so that the first query does not wait for it.
    ///
    /// # Errors
    /// When the model cannot be loaded.
    ///
    /// # Cancel safety
    /// Safe: the load goes on.
    pub async fn warm(&self) -> Result<(), Error> {
        self.until_stopped(self.engine.ready()).await
    }

    /// The most tokens a passage may have, the model's special ones included.
    pub fn max_tokens(&self) -> usize {
        self.engine.max_tokens()
    }

    /// Counts tokens as the model does; loads the tokenizer alone.
    ///
    /// # Errors
    /// When the tokenizer's file is missing or unreadable.
    ///
    /// # Cancel safety
    /// Safe: the reading goes on for other callers.
    pub async fn tokens(&self) -> Result<Arc<TokenCounter>, Error> {
        self.until_stopped(self.engine.tokens()).await
    }

    async fn until_stopped<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let stopped = self.lifecycle.stopped();
        tokio::select! {
            biased;
            () = stopped.cancelled() => Err(Error::Stopped),
            result = work => result,
        }
    }
}

impl fmt::Debug for Embedder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Embedder").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// Refuses what no model can turn into a vector.
fn check(text: &str) -> Result<(), Error> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(Error::TooLarge { bytes: text.len(), max: MAX_TEXT_BYTES });
    }
    if text.chars().all(|c| c.is_whitespace() || c.is_control()) {
        return Err(Error::Empty);
    }
    Ok(())
}

/// A worker answers every text it takes; a channel that closes without an answer means that the process is ending.
async fn received(answer: tokio::sync::oneshot::Receiver<Outcome>) -> Result<Embedded, Error> {
    answer.await.unwrap_or(Err(Error::Stopped))
}

#[cfg(test)]
mod tests;
