//! Which published generations a query means, and changes to a source as a whole.
//!
//! A version is never silently substituted: one that does not exist is an error that lists those that do.

use std::{fmt::Write, sync::Arc};

use chrono::{DateTime, Utc};
use semver::Version as Release;
use serde::{Deserialize, Serialize};
use sqlx::{Row, postgres::PgRow};

use super::{
    Error, Index, View,
    catalog::{CHANNEL, Catalog, Source, Version},
    epoch,
    parked::Reader,
    view::matches_pattern,
};

/// What a query says about sources and versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Selection {
    /// Names, or patterns with `*`; empty means all.
    pub sources: Vec<String>,
    /// `latest`, a range such as `5.x`, or an exact version; none means each source's default.
    pub version: Option<String>,
}

/// The published generations that a query names: the one thing all its stages search in.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// In the order of their ids.
    pub generations: Vec<ResolvedGeneration>,
    /// Chunks in all published generations, of the set or not.
    pub total_chunks: i64,
    fingerprint: [u8; 32],
}

/// One generation of the set.
#[derive(Clone, Debug)]
pub struct ResolvedGeneration {
    /// Its row.
    pub id: i64,
    /// The row of its version.
    pub version_id: i64,
    /// The source's name.
    pub source_id: Arc<str>,
    /// The version's name.
    pub version: Arc<str>,
    /// Chunks in it.
    pub chunks: i64,
    /// The embedding model of its vectors.
    pub model_id: i32,
    /// When it was published.
    pub indexed_at: DateTime<Utc>,
}

impl Resolved {
    /// These generations, in the order of their ids.
    #[must_use]
    pub fn new(generations: Vec<ResolvedGeneration>, total_chunks: i64) -> Self {
        let mut hash = blake3::Hasher::new();
        for generation in &generations {
            for number in [generation.id, generation.version_id, generation.indexed_at.timestamp_micros()] {
                hash.update(&number.to_le_bytes());
            }
        }
        Self { generations, total_chunks, fingerprint: *hash.finalize().as_bytes() }
    }

    /// Of the set: other documents have another one. Ids alone would not do: a database that was set back to an earlier time
    /// gives them out again, but not at the same moment.
    #[must_use]
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// The ids, ascending.
    #[must_use]
    pub fn ids(&self) -> Vec<i64> {
        self.generations.iter().map(|generation| generation.id).collect()
    }

    /// The versions' rows, in the same order as [`Resolved::ids`].
    #[must_use]
    pub fn version_ids(&self) -> Vec<i64> {
        self.generations.iter().map(|generation| generation.version_id).collect()
    }

    /// Chunks in the whole set.
    #[must_use]
    pub fn chunks(&self) -> i64 {
        self.generations.iter().map(|generation| generation.chunks).sum()
    }
}

impl Catalog {
    /// The sources in `view`, in the order of their names.
    pub fn sources(&self, view: &View) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(|source| view.allows(&source.source_id))
    }

    /// The source of this exact name, if it is in `view`.
    #[must_use]
    pub fn source(&self, source_id: &str, view: &View) -> Option<&Source> {
        self.sources.iter().find(|source| &*source.source_id == source_id).filter(|_| view.allows(source_id))
    }

    /// The generations that `selection` names among those in `view`. Remembered, since most searches name the same few.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a source or version that is unknown, or not in the view, with what there is instead.
    pub fn resolve(&self, selection: &Selection, view: &View) -> Result<Arc<Resolved>, Error> {
        if let Some(known) = self.resolved(selection, view) {
            return Ok(known);
        }
        let resolved = Arc::new(self.resolve_anew(selection, view)?);
        self.remember(selection, view, &resolved);
        Ok(resolved)
    }

    /// The generations of these ids, if all of them are published now, and in `view`.
    fn resolve_ids(&self, ids: &[i64], view: &View) -> Option<Resolved> {
        let published = |source: &Source| {
            source.versions.iter().filter_map(|version| resolved(source, version)).collect::<Vec<_>>()
        };
        let mut generations: Vec<_> = self.sources(view).flat_map(published).collect();
        generations.retain(|generation| ids.contains(&generation.id));
        generations.sort_by_key(|generation| generation.id);
        (generations.len() == ids.len()).then(|| Resolved::new(generations, self.chunks()))
    }

    fn resolve_anew(&self, selection: &Selection, view: &View) -> Result<Resolved, Error> {
        let mut generations = Vec::new();
        if selection.sources.is_empty() {
            generations = self.resolve_pattern("*", selection, view)?;
        }
        for name in &selection.sources {
            if name.contains('*') {
                generations.append(&mut self.resolve_pattern(name, selection, view)?);
            } else {
                let source = self.source(name, view).ok_or_else(|| self.unknown_source(name, view))?;
                generations.push(resolve_version(source, selection.version.as_deref())?);
            }
        }
        generations.sort_by_key(|generation| generation.id);
        generations.dedup_by_key(|generation| generation.id);
        Ok(Resolved::new(generations, self.chunks()))
    }

    /// Chunks in all published generations.
    fn chunks(&self) -> i64 {
        let published =
            self.sources.iter().flat_map(|source| &source.versions).filter_map(|version| version.published.as_ref());
        published.map(|generation| generation.chunks).sum()
    }

    /// All sources that match and have what is asked; an error only when a pattern or version matches nothing at all.
    fn resolve_pattern(
        &self,
        pattern: &str,
        selection: &Selection,
        view: &View,
    ) -> Result<Vec<ResolvedGeneration>, Error> {
        let matches = |source: &&Source| matches_pattern(pattern, &source.source_id);
        if pattern != "*" && !self.sources(view).any(|source| matches(&source)) {
            return Err(self.unknown_source(pattern, view));
        }
        let version = selection.version.as_deref();
        let matching = self.sources(view).filter(matches);
        let found: Vec<_> = matching.filter_map(|source| resolve_version(source, version).ok()).collect();
        match version {
            Some(version) if found.is_empty() => Err(Error::NotFound(format!(
                "no source has the version {version:?}; GET /api/sources lists the versions there are"
            ))),
            _ => Ok(found),
        }
    }

    /// Tells only of sources in `view`: one outside it is as unknown as one that does not exist.
    fn unknown_source(&self, name: &str, view: &View) -> Error {
        /// Enough to see a slip of the pen, short enough for one line.
        const LISTED: usize = 10;
        let mut message = format!("no source is called {name:?}");
        let names: Vec<_> = self.sources(view).map(|source| &*source.source_id).collect();
        if names.is_empty() {
            message.push_str("; nothing is imported yet: run doc-server ingest PATH --source ID");
        } else {
            message.push_str("; there are: ");
            message.push_str(&names[..names.len().min(LISTED)].join(", "));
            if names.len() > LISTED {
                let _ = write!(message, " and {} more (GET /api/sources)", names.len() - LISTED);
            }
        }
        Error::NotFound(message)
    }
}

fn resolved(source: &Source, version: &Version) -> Option<ResolvedGeneration> {
    let generation = version.published.as_ref()?;
    Some(ResolvedGeneration {
        id: generation.id,
        version_id: version.id,
        source_id: Arc::clone(&source.source_id),
        version: Arc::clone(&version.version),
        chunks: generation.chunks,
        model_id: generation.model_id,
        indexed_at: generation.indexed_at,
    })
}

fn resolve_version(source: &Source, asked: Option<&str>) -> Result<ResolvedGeneration, Error> {
    let wanted = asked.or(source.default_version.as_deref()).unwrap_or("latest");
    let exact = source.versions.iter().find(|version| &*version.version == wanted);
    let version = match (exact, wanted) {
        (Some(version), _) => Some(version),
        (None, "latest") => latest(source, |_| true).or_else(|| newest(source)),
        (None, range) => release_range(range).and_then(|prefix| latest(source, |release| prefix.holds(release))),
    };
    version.and_then(|version| resolved(source, version)).ok_or_else(|| {
        let published: Vec<_> = source
            .versions
            .iter()
            .filter(|version| version.published.is_some())
            .map(|version| &*version.version)
            .collect();
        Error::NotFound(if published.is_empty() {
            format!("source {:?} has no published version yet; its first import has not finished", source.source_id)
        } else {
            format!("source {:?} has no version {wanted:?}; it has: {}", source.source_id, published.join(", "))
        })
    })
}

/// The name of the version that a search without `version` reads.
#[must_use]
pub fn default_version(source: &Source) -> Option<Arc<str>> {
    resolve_version(source, None).ok().map(|generation| generation.version)
}

/// The highest release that is published and for which `wanted` holds; pre-releases count only when named exactly.
fn latest(source: &Source, wanted: impl Fn(&Release) -> bool) -> Option<&Version> {
    source
        .versions
        .iter()
        .filter(|version| version.published.is_some())
        .filter_map(|version| Some((release(&version.version)?, version)))
        .filter(|(release, _)| release.pre.is_empty() && wanted(release))
        .max_by(|(a, _), (b, _)| a.cmp(b))
        .map(|(_, version)| version)
}

fn newest(source: &Source) -> Option<&Version> {
    source
        .versions
        .iter()
        .filter_map(|version| Some((version.published.as_ref()?.indexed_at, version)))
        .max_by_key(|(indexed_at, _)| *indexed_at)
        .map(|(_, version)| version)
}

/// `5`, `v5.1` and `5.1.0-rc.1` as releases; none for names such as `main`.
fn release(version: &str) -> Option<Release> {
    let version = version.strip_prefix('v').unwrap_or(version);
    let (numbers, rest) = version.find(['-', '+']).map_or((version, ""), |at| version.split_at(at));
    let padding = match numbers.matches('.').count() {
        0 => ".0.0",
        1 => ".0",
        _ => "",
    };
    Release::parse(&format!("{numbers}{padding}{rest}")).ok()
}

/// What `5.x` or `5.2.x` stands for.
struct Range {
    major: u64,
    minor: Option<u64>,
}

impl Range {
    fn holds(&self, release: &Release) -> bool {
        release.major == self.major && self.minor.is_none_or(|minor| release.minor == minor)
    }
}

fn release_range(range: &str) -> Option<Range> {
    let numbers = range.strip_prefix('v').unwrap_or(range).strip_suffix(".x")?;
    let (major, minor) = numbers.split_once('.').map_or((numbers, None), |(major, minor)| (major, Some(minor)));
    Some(Range { major: major.parse().ok()?, minor: minor.map(str::parse).transpose().ok()? })
}

/// Whether `text` can stand before a page's path: a scheme and something after it.
#[must_use]
pub fn is_address(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let spaced = text.contains(|c: char| c.is_whitespace() || c.is_control());
    !spaced
        && text.split_once("://").is_some_and(|(scheme, rest)| {
            !rest.is_empty() && scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(plain)
        })
}

/// A change to a source's description: what is `Some` is set.
#[derive(Clone, Debug, Default)]
pub struct SourceChange {
    /// For people.
    pub title: Option<String>,
    /// What it is about.
    pub summary: Option<String>,
    /// Where it comes from.
    pub url: Option<String>,
    /// Free labels.
    pub tags: Option<Vec<String>>,
    /// What a search without `version` reads; `latest` restores the rule.
    pub default_version: Option<String>,
}

impl Index {
    /// The generations with these ids, as a cursor pinned them: published ones, and replaced ones as long as they are kept.
    ///
    /// # Errors
    /// [`Error::Gone`] when one was removed, its source deleted, or it is not in `view`: cursors can be forged.
    pub async fn resolve_pinned(&self, catalog: &Catalog, ids: &[i64], view: &View) -> Result<Resolved, Error> {
        if let Some(resolved) = catalog.resolve_ids(ids, view) {
            return Ok(resolved);
        }
        let read = |mut connection: Reader| async move {
            let query = sqlx::query(
                "select g.id, g.version_id, s.source_id, v.version, g.chunks, g.model_id, g.published_at
                 from generations g
                 join versions v on v.id = g.version_id
                 join sources s on s.id = v.source and s.deleted_at is null
                 where g.id = any($1) and g.status <> 'building' and ($2::text[] is null or s.source_id like any($2))
                 order by g.id",
            )
            .bind(ids)
            .bind(view.like());
            let rows = self.rows("resolve.pinned", query, &mut connection).await?;
            connection.done().await?;
            Ok(rows)
        };
        let rows = self.pools.read("cursor", read).await?;
        if rows.len() < ids.len() {
            return Err(Error::Gone);
        }
        let generation = |row: &PgRow| {
            Ok(ResolvedGeneration {
                id: row.try_get("id")?,
                version_id: row.try_get("version_id")?,
                source_id: row.try_get::<String, _>("source_id")?.into(),
                version: row.try_get::<String, _>("version")?.into(),
                chunks: row.try_get("chunks")?,
                model_id: row.try_get("model_id")?,
                indexed_at: row.try_get("published_at")?,
            })
        };
        let generations = rows.iter().map(generation).collect::<Result<_, sqlx::Error>>()?;
        Ok(Resolved::new(generations, catalog.chunks()))
    }

    /// Changes a source's description. Returns whether there is such a source.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn change_source(&self, source_id: &str, change: &SourceChange) -> Result<bool, Error> {
        let mut write = self.pools.write_now("change source").await?;
        let changed = sqlx::query(
            "with changed as (
                update sources set
                    title = coalesce($2, title), summary = coalesce($3, summary), url = coalesce($4, url),
                    tags = coalesce($5, tags), default_version = coalesce($6, default_version), updated_at = now()
                where source_id = $1 and deleted_at is null
                returning source_id
             )
             select pg_notify($7, source_id) from changed",
        )
        .bind(source_id)
        .bind(&change.title)
        .bind(&change.summary)
        .bind(&change.url)
        .bind(&change.tags)
        .bind(&change.default_version)
        .bind(CHANNEL)
        .fetch_optional(&mut *write)
        .await?
        .is_some();
        if !changed {
            return Ok(false);
        }
        let epoch = epoch::advance(&mut write).await?;
        write.commit().await?;
        self.catch_up().await;
        self.until_seen(epoch).await;
        Ok(true)
    }

    /// Takes a source out of search at once; its rows go in the background. Returns whether there was such a source.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delete_source(&self, source_id: &str) -> Result<bool, Error> {
        let mut write = self.pools.write_now("delete source").await?;
        let deleted = sqlx::query(
            "with deleted as (
                update sources set deleted_at = now() where source_id = $1 and deleted_at is null returning source_id
             )
             select pg_notify($2, source_id) from deleted",
        )
        .bind(source_id)
        .bind(CHANNEL)
        .fetch_optional(&mut *write)
        .await?
        .is_some();
        if !deleted {
            return Ok(false);
        }
        let epoch = epoch::advance(&mut write).await?;
        write.commit().await?;
        self.catch_up().await;
        self.until_seen(epoch).await;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme() {
        for good in ["https://docs.example.org", "http://localhost:8080/a", "file:///srv/docs", "git+ssh://host/x"] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["", "docs.example.org", "nope nope", "https://", "://x", "https://a b", "/docs"] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    fn source(versions: &[&str], default_version: Option<&str>) -> Source {
        let versions = versions.iter().zip(1..).map(|(version, id)| Version {
            id,
            version: (*version).into(),
            published: Some(super::super::catalog::Generation {
                id,
                model_id: 1,
                model: String::new(),
                pages: 1,
                chunks: 1,
                chunks_without_embedding: 0,
                code_examples: 0,
                words: 1,
                indexed_at: DateTime::from_timestamp(id, 0).unwrap_or_default(),
            }),
        });
        Source {
            id: 1,
            source_id: "vite".into(),
            title: String::new(),
            summary: String::new(),
            url: String::new(),
            tags: Vec::new(),
            default_version: default_version.map(str::to_owned),
            created_at: DateTime::default(),
            updated_at: DateTime::default(),
            versions: versions.collect(),
        }
    }

    #[test]
    fn a_version_is_found_by_release_range_or_name_and_never_substituted() {
        let vite = source(&["4.9", "v5.1.0", "5.2.0", "6.0.0-beta.1", "main"], None);
        for (asked, found) in [
            (None, Some("5.2.0")),
            (Some("latest"), Some("5.2.0")),
            (Some("5.x"), Some("5.2.0")),
            (Some("5.1.x"), Some("v5.1.0")),
            (Some("6.0.0-beta.1"), Some("6.0.0-beta.1")),
            (Some("main"), Some("main")),
            (Some("6.x"), None),
            (Some("5"), None),
        ] {
            let version = resolve_version(&vite, asked).ok().map(|generation| generation.version.to_string());
            assert_eq!(version.as_deref(), found, "{asked:?}");
        }
        assert_eq!(default_version(&source(&["main", "next"], None)).as_deref(), Some("next"));
        assert_eq!(default_version(&source(&["1.0.0", "2.0.0"], Some("1.x"))).as_deref(), Some("1.0.0"));
    }
}
