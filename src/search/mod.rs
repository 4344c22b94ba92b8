//! The path of one search, free of HTTP: the API, the command line and the evaluation all come through [`Search::run`].
//!
//! ```text
//! resolve   which published generations the query means
//! cache     have we answered this?             keyed by the query and those generations
//! coalesce  is someone already answering it?   one flight per key around the rest
//! embed     text -> vector        \  at the same time,
//! index     words -> candidates   /  each leg on its own connection
//! index     vector -> candidates
//! rank      candidates -> results
//! index     the text of the results
//! ```
//!
//! The last four are in `legs`. The answer is written once, inside the flight; the same bytes go to the cache and to
//! everybody who waits. It is kept only when nothing is missing from it. While the database is away, kept answers are given as
//! stale for a bounded time; then the failure is the answer.

mod absent;
mod body;
mod caches;
mod explain;
mod flight;
mod key;
mod legs;
mod query_vectors;
mod ready;
mod warm;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore};

pub use self::{
    body::{Body, Coding},
    caches::{Caches, Cleared},
    explain::Explanation,
    ready::Ready,
    warm::{upkeep_task, warm_task},
};
pub use crate::cache::{Key, shared::Shared};

use self::{
    absent::Absent,
    flight::{Answered, Flown, Wanted},
    key::Profile,
    legs::{Ask, Stages},
};
use crate::{
    answer::Answer,
    cache::{self, Held, Kind, Tiers},
    coalesce::Flights,
    embed::Embedder,
    error::Error,
    index::{Catalog, Index, Resolved},
    query::{Caching, Mode, Query},
    runtime::{
        lifecycle::Lifecycle,
        metrics,
        shed::{self, Class, Gate},
    },
};

/// Answers that are made anew ahead of their end at the same time: few, since nobody waits for them.
const REFRESHES: usize = 2;

/// Different questions under way at once, most of them at the shared tier: what is computed is bounded by the gate. A thousand wait
/// there when it stalls for its timeout at 20,000 a second.
const MAX_FLIGHTS: usize = 1_024;

/// Nobody waits for such a one, so nobody else ends it: longer than a search takes, its statements included.
const REFRESH_WITHIN: Duration = Duration::from_secs(30);

/// How long each stage took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Text to vector, waiting included.
    pub embed: Option<Duration>,
    /// The vector leg.
    pub vector: Option<Duration>,
    /// The keyword leg.
    pub keyword: Option<Duration>,
    /// Fusion.
    pub rank: Duration,
    /// Reading the results' text.
    pub fetch: Duration,
    /// All of it.
    pub total: Duration,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// This process had it.
    Local,
    /// The shared tier had it.
    Shared,
    /// It was kept, and could not be confirmed or made anew.
    Stale,
    /// Somebody else's search brought it.
    Coalesced,
    /// It was made for this caller.
    Miss,
    /// It was made for this caller, who asked for that.
    Bypass,
}

/// An answer ready to be sent.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The answer as JSON.
    pub body: Body,
    /// Names the body; none for one that is incomplete.
    pub key: Option<Key>,
    /// Where it came from.
    pub served: Served,
    /// The caller has this very body already: it is left out here.
    pub unchanged: bool,
    /// How long ago it was made; none where only the caller has it.
    pub age: Option<Duration>,
    /// How long each stage took, where this caller's search ran them.
    pub timings: Option<Timings>,
    /// How long the caller waited.
    pub total: Duration,
}

/// How a question wants to be treated; no part of what it means.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Whether an answer that was made before will do.
    pub caching: Caching,
    /// Who gives way when too much is asked at once.
    pub class: Class,
}

/// Bounds of a search.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The longest a search waits for its vector before it answers from words alone; covers loading the model on first use.
    pub embed_timeout: Duration,
    /// What is kept, and how long.
    pub cache: cache::Config,
    /// How many searches are computed at once. More are refused: they would wait for connections until their time is over.
    pub shed: shed::Config,
    /// Questions of the last run that are asked again at a start; zero asks none.
    pub warm_searches: usize,
    /// Candidates an index scan keeps when the query does not say; decides answers, so it is part of their keys.
    pub ef_search: u16,
    /// Lists an `IVFFlat` scan reads; likewise.
    pub ivfflat_probes: u16,
}

impl Default for Config {
    fn default() -> Self {
        let pool = crate::index::pool::Config::default();
        Self {
            embed_timeout: Duration::from_secs(3),
            cache: cache::Config::default(),
            shed: shed::Config::default(),
            warm_searches: 200,
            ef_search: pool.ef_search,
            ivfflat_probes: pool.ivfflat_probes,
        }
    }
}

/// What a search is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The database.
    pub index: Index,
    /// The model.
    pub embedder: Embedder,
    /// The cache that replicas have in common, where there is one.
    pub shared: Option<Shared>,
}

/// The stages in their order. Cheap to clone.
#[derive(Clone)]
pub struct Search {
    path: Arc<Path>,
}

struct Path {
    stages: Stages,
    results: Tiers<Answered>,
    flights: Flights<Key, Result<Flown, Error>>,
    refreshes: Arc<Semaphore>,
    absent: Absent,
    gate: Gate,
    shared: Option<Shared>,
    /// Known once the model's identity was read.
    profile: OnceCell<Profile>,
    config: Config,
    lifecycle: Lifecycle,
}

impl Search {
    /// Puts the stages together; loads nothing.
    #[must_use]
    pub fn new(parts: Parts, config: Config, lifecycle: &Lifecycle) -> Self {
        let Parts { index, embedder, shared } = parts;
        let cache = config.cache;
        let vectors = query_vectors::QueryVectors::new(
            embedder.clone(),
            Tiers::new(Kind::Vectors, cache.vector_bytes, cache, shared.clone()),
            Flights::new("vectors", MAX_FLIGHTS, lifecycle),
        );
        let path = Path {
            stages: Stages::new(index, embedder, vectors, config),
            results: Tiers::new(Kind::Results, cache.result_bytes, cache, shared.clone()),
            flights: Flights::new("results", MAX_FLIGHTS, lifecycle),
            refreshes: Arc::new(Semaphore::new(REFRESHES)),
            absent: Absent::default(),
            gate: Gate::new(config.shed),
            shared,
            profile: OnceCell::new(),
            config,
            lifecycle: lifecycle.clone(),
        };
        Self { path: Arc::new(path) }
    }

    /// Every source and what of it is published.
    ///
    /// # Errors
    /// When the database has been away for longer than the catalog's lease.
    pub async fn catalog(&self) -> Result<Arc<Catalog>, Error> {
        Ok(self.path.stages.index.catalog().await?)
    }

    /// The catalog, and whether the database has confirmed it: while it is away, the last one read, for the stale window.
    ///
    /// # Errors
    /// When the stale window is over too.
    pub async fn catalog_or_last(&self) -> Result<(Arc<Catalog>, bool), Error> {
        Ok(self.path.stages.index.catalog_or_last(self.path.config.cache.lifetime.stale).await?)
    }

    /// What `read` finds in the catalog, if the one in memory is believed: at once.
    pub fn with_believed_catalog<T>(&self, read: impl FnOnce(&Catalog) -> T) -> Option<T> {
        self.path.stages.index.with_believed_catalog(read)
    }

    /// Answers `query` as JSON. `has` says whether the caller holds the body of this key: then it is not made for nothing.
    ///
    /// # Errors
    /// For an unknown source or version, for a cursor whose documents are gone, and when no leg could answer and nothing is
    /// kept that could.
    ///
    /// # Cancel safety
    /// Dropping the future gives the caller's place up. A search that others wait for goes on; one that nobody waits for ends.
    #[tracing::instrument(level = "debug", name = "search", skip_all)]
    pub async fn run(&self, query: Query, manner: Manner, has: impl Fn(&Key) -> bool) -> Result<Outcome, Error> {
        let (started, path, caching) = (Instant::now(), &self.path, manner.caching);
        let (mut resolved, confirmed) = path.resolve(&query).await?;
        if !confirmed {
            if caching == Caching::Use
                && let Some(stale) = Box::pin(path.stale(&query, &resolved, &has, started)).await
            {
                return Ok(stale);
            }
            // Nothing is kept. What is made must be made from documents that are published.
            resolved = path.resolve_now(&query).await?;
        }
        let key = if caching == Caching::Bypass { None } else { path.key(&query, &resolved).await };
        let Some(key) = key else {
            path.results.record_bypass();
            // In a box, or every request would carry the room that this takes.
            let flown = Box::pin(path.compute(&query, &resolved, (manner, true))).await?;
            let served = if caching == Caching::Use { Served::Miss } else { Served::Bypass };
            return Ok(flown.outcome(None, served, started));
        };
        let kept = if caching == Caching::Use { path.results.look(&key) } else { None };
        if caching == Caching::Use && has(&key) {
            return Ok(unchanged(kept.as_deref(), key, true, started));
        }
        if let Some(held) = kept.as_ref().filter(|held| held.is_fresh()) {
            self.refresh_ahead(held, key, &resolved);
            return Ok(from_kept(held, key, Served::Local, started));
        }
        let wanted = Wanted { key, question: Arc::new(query), resolved, manner };
        let first = async { path.find(&wanted).await.map(Ok) };
        let work = |missing| Arc::clone(path).fly(wanted.clone(), missing);
        let (role, flown) = path.flights.join_after(flight_of(&key, manner), first, work).await;
        match (flown.map_err(Error::from).and_then(|flown| flown), kept) {
            // A whole answer of the same documents is better than one that misses a part.
            (Ok(flown), Some(held)) if !flown.complete => Ok(from_kept(&held, key, Served::Stale, started)),
            (Ok(flown), _) => {
                let served = flown.served_to(role, caching);
                Ok(flown.for_caller(role).outcome(Some(key), served, started))
            }
            (Err(error), Some(held)) if error.is_transient() => {
                tracing::warn!(%error, "answered from what was kept: it could not be made anew");
                Ok(from_kept(&held, key, Served::Stale, started))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Answers `query` without any cache: for the command line and the evaluation.
    ///
    /// # Errors
    /// As [`Search::run`].
    pub async fn answer(&self, query: &Query) -> Result<(Answer, Timings), Error> {
        let resolved = self.path.resolve_now(query).await?;
        self.path
            .stages
            .answer(Ask { query, resolved: &resolved, caching: Caching::Bypass, shared_answers: false })
            .await
    }

    /// What everything that works in the database goes through.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.path.gate
    }

    /// Different searches that are being answered now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.path.flights.in_flight()
    }

    /// Callers that wait for them.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.path.flights.waiting()
    }

    /// Forgets what has ended, and reports what is kept.
    pub fn tidy(&self) {
        self.path.results.tidy();
        self.path.stages.vectors.kept.tidy();
        if let Some(age) = self.path.stages.index.catalog_age() {
            metrics::set_catalog_age(age);
        }
    }

    /// Makes a hot answer anew shortly before it ends, so that nobody waits for it then.
    fn refresh_ahead(&self, held: &Held<Answered>, key: Key, resolved: &Arc<Resolved>) {
        if !self.path.results.is_due(held) {
            return;
        }
        let Ok(permit) = Arc::clone(&self.path.refreshes).try_acquire_owned() else { return };
        if !held.claim() {
            return;
        }
        let (path, question, resolved) =
            (Arc::clone(&self.path), Arc::clone(&held.value.question), Arc::clone(resolved));
        self.path.lifecycle.spawn_detached(async move {
            let flown = Arc::clone(&path);
            // Nobody waits for it: while too much is asked, it is left until somebody does.
            let manner = Manner { caching: Caching::Refresh, class: Class::Batch };
            let wanted = Wanted { key, question, resolved, manner };
            let flying = path.flights.join(flight_of(&key, manner), || flown.fly(wanted, None));
            match tokio::time::timeout(REFRESH_WITHIN, flying).await {
                Ok((_, Ok(Err(error)))) => tracing::warn!(%error, "a hot answer could not be made anew before its end"),
                Ok(_) => {}
                Err(_) => tracing::warn!("a hot answer was not made anew in time"),
            }
            drop(permit);
        });
    }
}

impl Path {
    /// The generations that `query` means, and whether the database has confirmed them within the lease.
    async fn resolve(&self, query: &Query) -> Result<(Arc<Resolved>, bool), Error> {
        let (catalog, confirmed) = self.stages.index.catalog_or_last(self.config.cache.lifetime.stale).await?;
        Ok((self.resolve_in(&catalog, query).await?, confirmed))
    }

    /// The same by the word of the database, or its failure.
    async fn resolve_now(&self, query: &Query) -> Result<Arc<Resolved>, Error> {
        let catalog = self.stages.index.catalog().await?;
        self.resolve_in(&catalog, query).await
    }

    async fn resolve_in(&self, catalog: &Catalog, query: &Query) -> Result<Arc<Resolved>, Error> {
        match &query.cursor {
            Some(cursor) => {
                let pinned = self.stages.index.resolve_pinned(catalog, &cursor.generations, &query.view);
                Ok(Arc::new(pinned.await?))
            }
            None => Ok(catalog.resolve(&query.selection, &query.view)?),
        }
    }

    /// What is kept of an answer whose documents the database does not confirm now, here or among all replicas.
    async fn stale(
        &self,
        query: &Query,
        resolved: &Resolved,
        has: &impl Fn(&Key) -> bool,
        started: Instant,
    ) -> Option<Outcome> {
        let key = self.key(query, resolved).await?;
        let kept = self.results.look(&key);
        if has(&key) {
            return Some(unchanged(kept.as_deref(), key, false, started));
        }
        let held = if let Some(held) = kept {
            held
        } else {
            let decode = |body: Bytes| Some(Answered { body: body.into(), question: Arc::new(query.clone()) });
            self.results.fetch(&key, decode).await.ok()??
        };
        Some(from_kept(&held, key, Served::Stale, started))
    }

    /// What the answer is kept under; none while it is not known which model would make it.
    async fn key(&self, query: &Query, resolved: &Resolved) -> Option<Key> {
        let Config { ef_search, ivfflat_probes, embed_timeout, .. } = self.config;
        if let Some(key) = self.known_key(query, resolved) {
            return Some(key);
        }
        let read = || async {
            let model = self.stages.embedder.identity().await?.to_string();
            Ok::<_, crate::embed::Error>(Profile { model, ef_search, ivfflat_probes })
        };
        let profile = tokio::time::timeout(embed_timeout, self.profile.get_or_try_init(read)).await.ok()?.ok()?;
        Some(key::of_answer(profile, query, resolved))
    }
}

impl Path {
    /// The same where nothing has to be asked for it.
    fn known_key(&self, query: &Query, resolved: &Resolved) -> Option<Key> {
        if query.mode == Mode::Keyword {
            let Config { ef_search, ivfflat_probes, .. } = self.config;
            let words = Profile { model: String::new(), ef_search, ivfflat_probes };
            return Some(key::of_answer(&words, query, resolved));
        }
        self.profile.get().map(|profile| key::of_answer(profile, query, resolved))
    }
}

/// The key of the flight. One that makes an answer anew must not join one that only looks whether it is kept, nor may a caller join
/// one that gives way before it has to.
fn flight_of(key: &Key, manner: Manner) -> Key {
    match (manner.caching, manner.class) {
        (Caching::Use, Class::Interactive) => *key,
        (Caching::Use, class) => Key::parts().text(class.name()).bytes(key.as_bytes()).key(),
        (_, class) => Key::parts().text("refresh").text(class.name()).bytes(key.as_bytes()).key(),
    }
}

fn from_kept(held: &Held<Answered>, key: Key, served: Served, started: Instant) -> Outcome {
    Outcome {
        body: held.value.body.clone(),
        key: Some(key),
        served,
        unchanged: false,
        age: Some(held.age()),
        timings: None,
        total: started.elapsed(),
    }
}

/// The caller's own copy is right: its key holds the query and the documents.
fn unchanged(kept: Option<&Held<Answered>>, key: Key, confirmed: bool, started: Instant) -> Outcome {
    let served = match kept {
        _ if !confirmed => Served::Stale,
        Some(_) => Served::Local,
        None => Served::Miss,
    };
    let age = kept.map(Held::age);
    let total = started.elapsed();
    Outcome { body: Body::default(), key: Some(key), served, unchanged: true, age, timings: None, total }
}
