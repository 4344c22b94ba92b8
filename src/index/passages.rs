//! Reading what a search found: the text of chunks, their neighbours, whole pages. Published documents only.

use serde_json::Value;
use sqlx::{FromRow, Row, postgres::PgRow};

use super::{
    Error, Index, Resolved, View,
    parked::Reader,
    reads::{Seen, seen, with_complete},
};

/// A chunk with what an answer shows of it.
#[derive(Clone, Debug, FromRow)]
pub struct Passage {
    /// The chunk's row.
    pub chunk_id: i64,
    /// The page's row.
    pub page_id: i64,
    /// The version's row: which generation of the set it belongs to.
    pub version_id: i64,
    /// Where a reader finds the page.
    pub url: String,
    /// The page's title.
    pub title: String,
    /// Headings from the title down to the passage.
    pub section: Vec<String>,
    /// Position in the page, from 0.
    pub number: i32,
    /// The text.
    pub content: String,
    /// The programming language, where it is mostly code.
    pub language: Option<String>,
    /// Tokens of the embedding model.
    pub tokens: i32,
    /// The page's metadata: front matter and path.
    pub metadata: Value,
}

/// A whole page.
#[derive(Clone, Debug, FromRow)]
pub struct Page {
    /// Its row.
    pub page_id: i64,
    /// The source's name.
    pub source_id: String,
    /// The version's name.
    pub version: String,
    /// Where a reader finds it.
    pub url: String,
    /// Its path in what was imported.
    pub path: String,
    /// Its title.
    pub title: String,
    /// `text/markdown`, `text/html` or `text/plain`.
    pub content_type: String,
    /// The text as imported.
    pub content: String,
    /// Words in it.
    pub words: i32,
    /// Front matter.
    pub metadata: Value,
}

/// The passages with the ids `$1`. Public for the benchmarks, which run the same statement without us.
pub const PASSAGES: &str =
    "select c.id as chunk_id, c.page_id, c.version_id, p.url, p.title, c.section, c.number, c.content,
        c.language, c.tokens, p.metadata
 from chunks c join pages p on p.id = c.page_id
 where c.id = any($1)";

const PAGE: &str = "select p.id as page_id, p.version_id, v.published_generation, s.source_id, v.version, p.url, p.path, p.title, p.content_type, p.content, p.words, p.metadata
 from pages p
 join versions v on v.id = p.version_id
 join sources s on s.id = v.source and s.deleted_at is null
 where p.born <= v.published_generation and p.died > v.published_generation";

impl Index {
    /// The passages with these chunk ids, in any order; ids that are gone are left out.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn passages(&self, chunk_ids: &[i64]) -> Result<Seen<Vec<Passage>>, Error> {
        let read = |mut connection: Reader| async move {
            let rows = self.rows("fetch.passages", sqlx::query(PASSAGES).bind(chunk_ids), &mut connection).await?;
            let value: Vec<Passage> = rows.iter().map(Passage::from_row).collect::<Result<_, _>>()?;
            connection.done().await?;
            // An id is never used again, so what is there is what the leg found: counting is enough.
            let complete = value.len() == chunk_ids.len();
            Ok(Seen { value, complete })
        };
        self.pools.search("passages", read).await
    }

    /// A published chunk with up to `around` (before, after) neighbours of its page, in page order.
    /// Empty when no published generation of a source in `view` has it.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn chunk_with_neighbours(
        &self,
        chunk_id: i64,
        (before, after): (u16, u16),
        view: &View,
    ) -> Result<Vec<(Passage, String, String)>, Error> {
        let read = |mut connection: Reader| async move {
            let query = sqlx::query(
                "select c.id as chunk_id, c.page_id, c.version_id, p.url, p.title, c.section, c.number, c.content,
                    c.language, c.tokens, p.metadata, s.source_id, v.version as version_name, v.published_generation
             from chunks hit
             join versions v on v.id = hit.version_id
             join sources s on s.id = v.source and s.deleted_at is null
             join pages p on p.id = hit.page_id
             join chunks c on c.page_id = hit.page_id and c.number between hit.number - $2 and hit.number + $3
             where hit.id = $1 and hit.born <= v.published_generation and hit.died > v.published_generation
               and ($4::text[] is null or s.source_id like any($4))
             order by c.number",
            )
            .bind(chunk_id)
            .bind(i32::from(before))
            .bind(i32::from(after))
            .bind(view.like());
            let rows = self.rows("chunk.neighbours", query, &mut connection).await?;
            let complete = !connection.on_replica() || self.is_current(rows.first())?;
            connection.done().await?;
            let passage =
                |row: &PgRow| Ok((Passage::from_row(row)?, row.try_get("source_id")?, row.try_get("version_name")?));
            let value = rows.iter().map(passage).collect::<Result<_, sqlx::Error>>()?;
            Ok(Seen { value, complete })
        };
        Ok(self.pools.search("chunk", read).await?.value)
    }

    /// A published page by its id, if its source is in `view`.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn page(&self, page_id: i64, view: &View) -> Result<Option<Page>, Error> {
        let read = |mut connection: Reader| async move {
            let query = sqlx::query(sqlx::AssertSqlSafe(
                PAGE.to_owned() + " and p.id = $1 and ($2::text[] is null or s.source_id like any($2))",
            ));
            let query = query.bind(page_id).bind(view.like());
            let row = self.rows("page.by_id", query, &mut connection).await?.pop();
            let complete = !connection.on_replica() || self.is_current(row.as_ref())?;
            connection.done().await?;
            let value = row.as_ref().map(Page::from_row).transpose()?;
            Ok(Seen { value, complete })
        };
        Ok(self.pools.search("page", read).await?.value)
    }

    /// Whether a row's version has the generation that is known to be published. Otherwise a replica may lag, also when there is
    /// no row.
    fn is_current(&self, row: Option<&PgRow>) -> Result<bool, sqlx::Error> {
        let Some(row) = row else { return Ok(false) };
        Ok(self.is_published(row.try_get("version_id")?, row.try_get("published_generation")?))
    }

    /// The published page at `url` in the generations of `resolved`; the newest where several versions have it.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn page_at(&self, url: &str, resolved: &Resolved) -> Result<Option<Page>, Error> {
        let found = PAGE.to_owned()
            + " and p.url = $1 and v.published_generation = any($2) order by v.published_generation desc limit 1";
        let sql = &with_complete("$2", &found);
        let read = |mut connection: Reader| async move {
            let query = sqlx::query(sqlx::AssertSqlSafe(sql.clone()));
            let query = query.bind(url).bind(resolved.ids());
            let rows = self.rows("page.by_url", query, &mut connection).await?;
            connection.done().await?;
            Ok(seen(&rows, "page_id", |row| Page::from_row(row))?)
        };
        Ok(self.pools.search("page", read).await?.value.pop())
    }
}
