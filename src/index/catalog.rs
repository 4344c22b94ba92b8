//! What is published (every source, its versions and the generation that search reads) and who may ask, as one snapshot in
//! memory.
//!
//! A snapshot is believed for five seconds after it was read. A background task re-reads it when another process
//! announces a publish, and twice a lease anyway, so that requests hardly ever read it themselves. When the database is
//! away, the lease ends and requests fail rather than answer from a snapshot that may be wrong.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row, postgres::PgRow};
use tokio::time::Instant;

use super::{Error, Index, Resolved, Selection, View, keys::KnownKeys, parked::Reader};

/// The channel on which a publish, a change of a source or its deletion is announced, with the transaction.
pub(super) const CHANNEL: &str = "doc_server_catalog";

/// How long a snapshot is believed: a replica that is cut off from announcements answers from old documents at most this long.
pub(super) const LEASE: Duration = Duration::from_secs(5);

/// A reading takes a few milliseconds; below a lease, so that one that hangs is over before the lease is.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// While the database is away, how often a request asks it again; the others are answered from what is known.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How long such a request waits before it is answered from what is known, too.
const CONFIRM_WITHIN: Duration = Duration::from_millis(300);

/// Selections remembered per reading: callers may send any, and almost all send one of a few.
const REMEMBERED: usize = 256;

/// One consistent reading of all sources, ordered by name.
#[derive(Debug)]
pub struct Catalog {
    /// The sources that are not deleted.
    pub(super) sources: Vec<Source>,
    /// The keys that callers may show.
    pub keys: KnownKeys,
    /// The last change it holds.
    pub(super) epoch: i32,
    read_at: Instant,
    resolved: RwLock<Remembered>,
}

/// What selections were resolved to, by the view of those who asked.
#[derive(Debug, Default)]
struct Remembered {
    by_view: HashMap<View, HashMap<Selection, Arc<Resolved>>>,
    count: usize,
}

impl Catalog {
    pub(super) fn resolved(&self, selection: &Selection, view: &View) -> Option<Arc<Resolved>> {
        let known = self.resolved.read().unwrap_or_else(PoisonError::into_inner);
        known.by_view.get(view)?.get(selection).cloned()
    }

    pub(super) fn remember(&self, selection: &Selection, view: &View, resolved: &Arc<Resolved>) {
        let mut known = self.resolved.write().unwrap_or_else(PoisonError::into_inner);
        if known.count >= REMEMBERED {
            *known = Remembered::default();
        }
        let selections = known.by_view.entry(view.clone()).or_default();
        if selections.insert(selection.clone(), Arc::clone(resolved)).is_none() {
            known.count += 1;
        }
    }
}

/// A documentation set.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its row.
    pub id: i64,
    /// Its name.
    pub source_id: Arc<str>,
    /// For people.
    pub title: String,
    /// What it is about.
    pub summary: String,
    /// Where it comes from.
    pub url: String,
    /// Free labels.
    pub tags: Vec<String>,
    /// What a search without `version` reads; none means `latest`.
    pub default_version: Option<String>,
    /// When it was first imported.
    pub created_at: DateTime<Utc>,
    /// When it last changed, a publish included.
    pub updated_at: DateTime<Utc>,
    /// Its versions, oldest first.
    pub versions: Vec<Version>,
}

/// One version of a source.
#[derive(Clone, Debug)]
pub struct Version {
    /// Its row.
    pub id: i64,
    /// Its name: often a release number.
    pub version: Arc<str>,
    /// What search reads; none while the first import runs.
    pub published: Option<Generation>,
}

/// The published snapshot of a version.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Its row; grows with time.
    pub id: i64,
    /// The embedding model of all its vectors.
    pub model_id: i32,
    /// `name/precision` of that model.
    pub model: String,
    /// Pages in it.
    pub pages: i64,
    /// Chunks in it.
    pub chunks: i64,
    /// Chunks that only words can find.
    pub chunks_without_embedding: i64,
    /// Code examples in it.
    pub code_examples: i64,
    /// Words in its pages.
    pub words: i64,
    /// When it was published.
    pub indexed_at: DateTime<Utc>,
}

/// The snapshot in use, shared by all handles.
#[derive(Debug, Default)]
pub(super) struct Shared {
    current: ArcSwapOption<Catalog>,
    /// Held while reading: readings come one after the other, so a later one never loses to an earlier one.
    reading: tokio::sync::Mutex<()>,
    /// The last reading that failed, and why.
    failed: RwLock<Option<(Instant, String)>>,
    /// What was read before this is believed no longer.
    doubted: ArcSwapOption<Instant>,
}

impl Shared {
    fn current(&self) -> Option<Arc<Catalog>> {
        self.current.load_full()
    }

    fn failed_since(&self, asked: Instant) -> Option<String> {
        let failed = self.failed.read().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().filter(|(at, _)| *at > asked).map(|(_, reason)| reason.clone())
    }

    fn failed_within(&self, time: Duration) -> bool {
        let failed = self.failed.read().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().is_some_and(|(at, _)| at.elapsed() < time)
    }

    fn fail(&self, error: &Error) {
        let failure = Some((Instant::now(), error.to_string()));
        *self.failed.write().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    fn believed(&self) -> Option<Arc<Catalog>> {
        self.with_believed(Arc::clone)
    }

    /// Reads the snapshot that is believed without taking it: what is asked for each request takes no lock, and writes nothing
    /// that other threads read.
    fn with_believed<T>(&self, read: impl FnOnce(&Arc<Catalog>) -> T) -> Option<T> {
        let current = self.current.load();
        let catalog = current.as_ref().filter(|catalog| catalog.read_at.elapsed() < LEASE)?;
        let doubted = self.doubted.load();
        doubted.as_ref().is_none_or(|at| catalog.read_at > **at).then(|| read(catalog))
    }
}

impl Catalog {
    fn published(&self) -> impl Iterator<Item = (i64, i64)> {
        let versions = self.sources.iter().flat_map(|source| &source.versions);
        versions.filter_map(|version| Some((version.id, version.published.as_ref()?.id)))
    }
}

impl Index {
    /// The generations that are published as far as is known now.
    pub(super) fn published_generations(&self) -> Vec<i64> {
        self.catalog
            .current()
            .iter()
            .flat_map(|catalog| catalog.published())
            .map(|(_, generation)| generation)
            .collect()
    }

    /// Whether `generation` is what is published of `version_id`, as far as is known now.
    pub(super) fn is_published(&self, version_id: i64, generation: i64) -> bool {
        self.catalog.current().is_some_and(|catalog| catalog.published().any(|known| known == (version_id, generation)))
    }

    /// How long ago the database was last asked what is published; none before the first time.
    #[must_use]
    pub fn catalog_age(&self) -> Option<Duration> {
        self.catalog.current().map(|catalog| catalog.read_at.elapsed())
    }

    /// What `read` finds in the catalog, if the one in memory is believed: at once, for what each request needs.
    pub fn with_believed_catalog<T>(&self, read: impl FnOnce(&Catalog) -> T) -> Option<T> {
        self.catalog.with_believed(|catalog| read(catalog))
    }

    /// The catalog, at most five seconds old.
    ///
    /// # Errors
    /// When the lease has ended and the database does not answer.
    pub async fn catalog(&self) -> Result<Arc<Catalog>, Error> {
        if let Some(catalog) = self.catalog.believed() {
            return Ok(catalog);
        }
        let asked = Instant::now();
        let reading = self.catalog.reading.lock().await;
        if let Some(catalog) = self.catalog.believed() {
            return Ok(catalog);
        }
        // Whoever waited through a failed reading is answered by it: one after the other they would each wait as long.
        if let Some(reason) = self.catalog.failed_since(asked) {
            return Err(Error::Unavailable(reason));
        }
        let catalog = self.read_catalog(&reading).await;
        if let Err(error) = &catalog {
            self.catalog.fail(error);
        }
        catalog
    }

    /// The catalog, and whether it is at most five seconds old. When the database is away that is the last one read, for `stale`
    /// longer.
    ///
    /// # Errors
    /// When the lease has ended, the database does not answer, and `stale` is over too.
    pub async fn catalog_or_last(&self, stale: Duration) -> Result<(Arc<Catalog>, bool), Error> {
        if let Some(catalog) = self.catalog.believed() {
            return Ok((catalog, true));
        }
        let Some(last) = self.catalog.current().filter(|catalog| catalog.read_at.elapsed() < LEASE + stale) else {
            return Ok((self.catalog().await?, true));
        };
        if self.catalog.failed_within(ASK_AGAIN_AFTER) {
            return Ok((last, false));
        }
        match tokio::time::timeout(CONFIRM_WITHIN, self.catalog()).await {
            Ok(Ok(catalog)) => Ok((catalog, true)),
            Ok(Err(error)) if error.is_transient() => Ok((last, false)),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                self.catalog.fail(&Error::Timeout);
                Ok((last, false))
            }
        }
    }

    /// Ends the lease of what was read so far: the next search asks the database again.
    pub(super) fn doubt_catalog(&self) {
        self.catalog.doubted.store(Some(Arc::new(Instant::now())));
    }

    /// The catalog as of now: after a change of one's own.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn refresh_catalog(&self) -> Result<Arc<Catalog>, Error> {
        let reading = self.catalog.reading.lock().await;
        self.read_catalog(&reading).await
    }

    /// Reads the catalog after a change of one's own. The change is done, so a failure is not its failure: the next reader
    /// tries again.
    pub(super) async fn catch_up(&self) {
        if let Err(error) = self.refresh_catalog().await {
            tracing::warn!(%error, "changed, but cannot read the catalog again yet");
            self.catalog.current.store(None);
        }
    }

    /// Readers wait for each other, so none may wait for ever: a socket can go silent without an error.
    async fn read_catalog(&self, reading: &tokio::sync::MutexGuard<'_, ()>) -> Result<Arc<Catalog>, Error> {
        if let Ok(catalog) = tokio::time::timeout(READ_TIMEOUT, self.read_catalog_now(reading)).await {
            return catalog;
        }
        self.pools.drop_idle();
        Err(Error::Unavailable("the catalog was not read in time".to_owned()))
    }

    async fn read_catalog_now(&self, reading: &tokio::sync::MutexGuard<'_, ()>) -> Result<Arc<Catalog>, Error> {
        let read = |mut connection: Reader| async move {
            let catalog = self.read_catalog_on(&mut connection, reading).await?;
            connection.done().await?;
            Ok(catalog)
        };
        self.pools.read("catalog", read).await
    }

    /// The same on a connection that is the caller's own, so that it needs none of the pool.
    pub(super) async fn refresh_catalog_on(&self, connection: &mut PgConnection) -> Result<Arc<Catalog>, Error> {
        let reading = self.catalog.reading.lock().await;
        let read = tokio::time::timeout(READ_TIMEOUT, self.read_catalog_on(connection, &reading)).await;
        read.unwrap_or_else(|_| Err(Error::Unavailable("the catalog was not read in time".to_owned())))
    }

    async fn read_catalog_on(
        &self,
        connection: &mut PgConnection,
        _reading: &tokio::sync::MutexGuard<'_, ()>,
    ) -> Result<Arc<Catalog>, Error> {
        // The lease begins before the statement: what is committed later may be missing.
        let read_at = Instant::now();
        let rows = sqlx::query(
            "select e.epoch, pg_is_in_recovery() as standby, exists (select from api_keys) as keyed, s.id, s.source_id, s.title, s.summary, s.url, s.tags, s.default_version, s.created_at, s.updated_at,
                    v.id as version_row, v.version, g.id as generation, g.model_id, m.name || '/' || m.precision as model,
                    g.pages, g.chunks, g.chunks_without_embedding, g.code_examples, g.words, g.published_at
             from catalog_epoch e
             left join sources s on s.deleted_at is null
             left join versions v on v.source = s.id
             left join generations g on g.id = v.published_generation
             left join models m on m.id = g.model_id
             order by s.source_id collate \"C\", v.id",
        )
        .fetch_all(&mut *connection)
        .await?;
        let mut sources: Vec<Source> = Vec::new();
        // After a failover an address may lead to the old primary, where nothing is published any more.
        if rows.first().is_some_and(|row| row.try_get("standby").unwrap_or(false)) {
            return Err(Error::Unavailable("the server at database_url is a standby".to_owned()));
        }
        let epoch = rows.first().map(|row| row.try_get("epoch")).transpose()?.unwrap_or_default();
        for row in &rows {
            // Without any source there is a row of the epoch alone.
            let Some(id) = row.try_get::<Option<i64>, _>("id")? else { continue };
            if sources.last().is_none_or(|last| last.id != id) {
                sources.push(source_of(row)?);
            }
            if let (Some(last), Some(version)) = (sources.last_mut(), version_of(row)?) {
                last.versions.push(version);
            }
        }
        // After the epoch: keys that are newer than it do no harm.
        let keyed = rows.first().map(|row| row.try_get("keyed")).transpose()?.unwrap_or(false);
        let before = self.catalog.current();
        let keys = match (keyed, before.as_ref().map(|catalog| &catalog.keys)) {
            (true, before) => KnownKeys::read(connection, before).await?,
            // Rows of keys are never deleted. Should somebody have, that must not open what was closed.
            (false, before) => KnownKeys::none(before.is_some_and(KnownKeys::any_was_made)),
        };
        let catalog = Arc::new(Catalog { sources, keys, epoch, read_at, resolved: RwLock::default() });
        self.catalog.current.store(Some(Arc::clone(&catalog)));
        Ok(catalog)
    }
}

fn source_of(row: &PgRow) -> Result<Source, sqlx::Error> {
    Ok(Source {
        id: row.try_get("id")?,
        source_id: row.try_get::<String, _>("source_id")?.into(),
        title: row.try_get("title")?,
        summary: row.try_get("summary")?,
        url: row.try_get("url")?,
        tags: row.try_get("tags")?,
        default_version: row.try_get("default_version")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        versions: Vec::new(),
    })
}

fn version_of(row: &PgRow) -> Result<Option<Version>, sqlx::Error> {
    let Some(id) = row.try_get::<Option<i64>, _>("version_row")? else { return Ok(None) };
    let published = match row.try_get::<Option<i64>, _>("generation")? {
        None => None,
        Some(generation) => Some(Generation {
            id: generation,
            model_id: row.try_get("model_id")?,
            model: row.try_get("model")?,
            pages: row.try_get("pages")?,
            chunks: row.try_get("chunks")?,
            chunks_without_embedding: row.try_get("chunks_without_embedding")?,
            code_examples: row.try_get("code_examples")?,
            words: row.try_get("words")?,
            indexed_at: row.try_get("published_at")?,
        }),
    };
    Ok(Some(Version { id, version: row.try_get::<String, _>("version")?.into(), published }))
}
