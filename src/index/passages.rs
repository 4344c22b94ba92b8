//! Reading what a search found: the text of chunks, their neighbours, whole pages. Published documents only.

use serde_json::Value;
use sqlx::{FromRow, Row};

use super::{Error, Index, Resolved};

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

const PAGE: &str = "select p.id as page_id, s.source_id, v.version, p.url, p.path, p.title, p.content_type, p.content, p.words, p.metadata
 from pages p
 join versions v on v.id = p.version_id
 join sources s on s.id = v.source and s.deleted_at is null
 where p.born <= v.published_generation and p.died > v.published_generation";

impl Index {
    /// The passages with these chunk ids, in any order; ids that are gone are left out.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn passages(&self, chunk_ids: &[i64]) -> Result<Vec<Passage>, Error> {
        let mut connection = self.pools.read().await?;
        let passages = sqlx::query_as(PASSAGES).bind(chunk_ids).fetch_all(&mut *connection).await?;
        connection.done();
        Ok(passages)
    }

    /// A published chunk with up to `before` and `after` neighbours of its page, in page order.
    /// Empty when no published generation has it.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn chunk_with_neighbours(
        &self,
        chunk_id: i64,
        before: u16,
        after: u16,
    ) -> Result<Vec<(Passage, String, String)>, Error> {
        let mut connection = self.pools.read().await?;
        let rows = sqlx::query(
            "select c.id as chunk_id, c.page_id, c.version_id, p.url, p.title, c.section, c.number, c.content,
                    c.language, c.tokens, p.metadata, s.source_id, v.version as version_name
             from chunks hit
             join versions v on v.id = hit.version_id
             join sources s on s.id = v.source and s.deleted_at is null
             join pages p on p.id = hit.page_id
             join chunks c on c.page_id = hit.page_id and c.number between hit.number - $2 and hit.number + $3
             where hit.id = $1 and hit.born <= v.published_generation and hit.died > v.published_generation
             order by c.number",
        )
        .bind(chunk_id)
        .bind(i32::from(before))
        .bind(i32::from(after))
        .fetch_all(&mut *connection)
        .await?;
        rows.iter()
            .map(|row| Ok((Passage::from_row(row)?, row.try_get("source_id")?, row.try_get("version_name")?)))
            .collect()
    }

    /// A published page by its id.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn page(&self, page_id: i64) -> Result<Option<Page>, Error> {
        let mut connection = self.pools.read().await?;
        let sql = PAGE.to_owned() + " and p.id = $1";
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(page_id).fetch_optional(&mut *connection).await?)
    }

    /// The published page at `url` in the generations of `resolved`; the newest where several versions have it.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn page_at(&self, url: &str, resolved: &Resolved) -> Result<Option<Page>, Error> {
        let mut connection = self.pools.read().await?;
        let sql = PAGE.to_owned()
            + " and p.url = $1 and v.published_generation = any($2) order by v.published_generation desc limit 1";
        let page = sqlx::query_as(sqlx::AssertSqlSafe(sql));
        Ok(page.bind(url).bind(resolved.ids()).fetch_optional(&mut *connection).await?)
    }
}
