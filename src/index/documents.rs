//! Writing pages into a build: a page with its chunks, vectors, words and code examples is one transaction.
//!
//! Nothing written here is visible to search before the build is published.

use std::{collections::HashMap, sync::Arc};

use pgvector::{HalfVector, SparseVector};
use serde_json::Value;
use sqlx::{PgConnection, Row};

use super::{
    Error, Index,
    generations::Build,
    terms::{DIMENSIONS, Terms},
};

/// A page as a build finds it.
#[derive(Clone, Debug)]
pub struct KnownPage {
    /// Its row.
    pub page_id: i64,
    /// Of everything that decides its chunks and vectors.
    pub content_hash: Vec<u8>,
    /// Written by this build, which was left and is gone on with.
    pub new: bool,
    /// Replaced or removed by this build.
    pub ended: bool,
    /// Every chunk has its vector.
    pub complete: bool,
}

/// A page to write.
#[derive(Clone, Debug)]
pub struct NewPage {
    /// Its path in what is imported: unique in the version.
    pub path: String,
    /// Where a reader finds it.
    pub url: String,
    /// Its title.
    pub title: String,
    /// The text as imported.
    pub content: String,
    /// `text/markdown`, `text/html` or `text/plain`.
    pub content_type: &'static str,
    /// Of everything that decides its chunks and vectors.
    pub content_hash: [u8; 32],
    /// Words in it.
    pub words: usize,
    /// Front matter.
    pub metadata: Value,
    /// Its passages, in order.
    pub chunks: Vec<NewChunk>,
    /// Its code blocks.
    pub code_examples: Vec<NewCodeExample>,
}

/// A chunk to write.
#[derive(Clone, Debug)]
pub struct NewChunk {
    /// Headings from the title down to it.
    pub section: Vec<String>,
    /// The text.
    pub content: String,
    /// The programming language, where it is mostly code.
    pub language: Option<String>,
    /// Tokens of the embedding model.
    pub tokens: usize,
    /// Of what the model reads.
    pub hash: [u8; 32],
    /// Its vector, of unit length; none says that only words can find it.
    pub vector: Option<Arc<[f32]>>,
    /// Its words.
    pub terms: Terms,
}

/// A code example to write.
#[derive(Clone, Debug)]
pub struct NewCodeExample {
    /// The chunk that holds it, by position.
    pub chunk: usize,
    /// The language its block names.
    pub language: Option<String>,
    /// The code.
    pub code: String,
    /// What introduces it.
    pub context: String,
}

/// No chunk has a section heading with this control character, so it can join a path.
const SECTION_SEPARATOR: &str = "\u{1f}";

/// The pages of the version `$1` that are published or written by the build `$2`.
pub const KNOWN_PAGES: &str = "select path, id, content_hash, born = $2 as new, died = $2 as ended,
        id not in (
            select c.page_id from chunks c where c.version_id = $1
            and not exists (select from chunk_vectors v where v.chunk_id = c.id)
        ) as complete
 from pages where version_id = $1 and died >= $2";

/// Set the generation `$2` from which on the pages `$1` of the version `$3`, and all that hangs on them, are no longer valid.
pub const END_LIVES: [&str; 5] = [
    "update pages set died = $2 where id = any($1) and version_id = $3",
    "update chunks set died = $2 where page_id = any($1) and version_id = $3",
    "update chunk_vectors set died = $2
     where chunk_id in (select id from chunks where page_id = any($1)) and version_id = $3",
    "update chunk_words set died = $2
     where chunk_id in (select id from chunks where page_id = any($1)) and version_id = $3",
    "update code_examples set died = $2
     where chunk_id in (select id from chunks where page_id = any($1)) and version_id = $3",
];

impl Index {
    /// Every page of the version that is published or written by this build, by path. A path can have two: the one of this
    /// build and the one it replaces.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn known_pages(&self, build: &Build) -> Result<HashMap<String, Vec<KnownPage>>, Error> {
        let mut read = self.pools.write("known pages").await?;
        let rows = sqlx::query(KNOWN_PAGES).bind(build.version_id).bind(build.generation).fetch_all(&mut *read).await?;
        read.commit().await?;
        let mut pages: HashMap<String, Vec<KnownPage>> = HashMap::new();
        for row in rows {
            pages.entry(row.try_get("path")?).or_default().push(KnownPage {
                page_id: row.try_get("id")?,
                content_hash: row.try_get("content_hash")?,
                new: row.try_get("new")?,
                ended: row.try_get("ended")?,
                complete: row.try_get("complete")?,
            });
        }
        Ok(pages)
    }

    /// The vectors that the version's chunks already have, by hash of what the model reads.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn known_vectors(
        &self,
        build: &Build,
        hashes: &[[u8; 32]],
    ) -> Result<HashMap<[u8; 32], Arc<[f32]>>, Error> {
        let hashes: Vec<&[u8]> = hashes.iter().map(<[u8; 32]>::as_slice).collect();
        let mut read = self.pools.write("known vectors").await?;
        let rows = sqlx::query(
            "select c.hash, v.embedding from chunks c join chunk_vectors v on v.chunk_id = c.id
             where c.version_id = $1 and c.hash = any($2) and v.model_id = $3",
        )
        .bind(build.version_id)
        .bind(hashes)
        .bind(build.model.id)
        .fetch_all(&mut *read)
        .await?;
        read.commit().await?;
        let mut vectors = HashMap::new();
        for row in rows {
            let Ok(hash) = row.try_get::<&[u8], _>(0)?.try_into() else { continue };
            let vector: HalfVector = row.try_get(1)?;
            vectors.insert(hash, vector.as_slice().iter().map(|number| number.to_f32()).collect());
        }
        Ok(vectors)
    }

    /// Writes `page`, ending the lives of the pages it replaces.
    ///
    /// # Errors
    /// When the database fails; then nothing of the page is written.
    ///
    /// # Cancel safety
    /// Dropping the future before the commit writes nothing.
    pub async fn write_page(&self, build: &Build, page: &NewPage, replaced: &[KnownPage]) -> Result<(), Error> {
        let mut transaction = self.pools.write("write page").await?;
        end_pages(&mut transaction, build, replaced).await?;
        let page_id: i64 = sqlx::query_scalar(
            "insert into pages (version_id, born, path, url, title, content_hash, content, content_type, words, metadata)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) returning id",
        )
        .bind(build.version_id)
        .bind(build.generation)
        .bind(&page.path)
        .bind(&page.url)
        .bind(&page.title)
        .bind(page.content_hash.as_slice())
        .bind(&page.content)
        .bind(page.content_type)
        .bind(i32::try_from(page.words).unwrap_or(i32::MAX))
        .bind(&page.metadata)
        .fetch_one(&mut *transaction)
        .await?;
        let chunk_ids = write_chunks(&mut transaction, build, page_id, &page.chunks).await?;
        write_vectors(&mut transaction, build, &chunk_ids, &page.chunks).await?;
        write_words(&mut transaction, build, &chunk_ids, &page.chunks).await?;
        write_code_examples(&mut transaction, build, &chunk_ids, &page.code_examples).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Takes pages out of the build: those it wrote are deleted, published ones end with it.
    ///
    /// # Errors
    /// When the database fails; then none is taken out.
    pub async fn remove_pages(&self, build: &Build, pages: &[KnownPage]) -> Result<(), Error> {
        let mut transaction = self.pools.write("remove pages of a build").await?;
        end_pages(&mut transaction, build, pages).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Takes a page back that an earlier run of this build had ended.
    ///
    /// # Errors
    /// When the database fails; then it stays ended.
    pub async fn keep_page(&self, build: &Build, page: &KnownPage) -> Result<(), Error> {
        let mut transaction = self.pools.write("keep page").await?;
        set_death(&mut transaction, build.version_id, &[page.page_id], i64::MAX).await?;
        transaction.commit().await?;
        Ok(())
    }
}

async fn end_pages(connection: &mut PgConnection, build: &Build, pages: &[KnownPage]) -> Result<(), Error> {
    let (new, published): (Vec<_>, Vec<_>) = pages.iter().partition(|page| page.new);
    if !new.is_empty() {
        let ids: Vec<i64> = new.iter().map(|page| page.page_id).collect();
        sqlx::query("delete from pages where id = any($1)").bind(ids).execute(&mut *connection).await?;
    }
    let ids: Vec<i64> = published.iter().filter(|page| !page.ended).map(|page| page.page_id).collect();
    set_death(connection, build.version_id, &ids, build.generation).await
}

/// Sets the generation from which on the pages, and all that hangs on them, are no longer valid.
async fn set_death(connection: &mut PgConnection, version_id: i64, pages: &[i64], died: i64) -> Result<(), Error> {
    if pages.is_empty() {
        return Ok(());
    }
    for statement in END_LIVES {
        sqlx::query(statement).bind(pages).bind(died).bind(version_id).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Returns the new rows' ids in the order of `chunks`.
async fn write_chunks(
    connection: &mut PgConnection,
    build: &Build,
    page_id: i64,
    chunks: &[NewChunk],
) -> Result<Vec<i64>, Error> {
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let mut rows: Vec<(i32, i64)> = sqlx::query_as(
        "insert into chunks (page_id, version_id, born, number, section, content, language, tokens, hash)
         select $1, $2, $3, number, case when section = '' then '{}' else string_to_array(section, $10) end, content, language, tokens, hash
         from unnest($4::int[], $5::text[], $6::text[], $7::text[], $8::int[], $9::bytea[])
              as chunk (number, section, content, language, tokens, hash)
         returning number, id",
    )
    .bind(page_id)
    .bind(build.version_id)
    .bind(build.generation)
    .bind((0..number(chunks.len())).collect::<Vec<_>>())
    .bind(chunks.iter().map(|chunk| chunk.section.join(SECTION_SEPARATOR)).collect::<Vec<_>>())
    .bind(chunks.iter().map(|chunk| chunk.content.as_str()).collect::<Vec<_>>())
    .bind(chunks.iter().map(|chunk| chunk.language.as_deref()).collect::<Vec<_>>())
    .bind(chunks.iter().map(|chunk| number(chunk.tokens)).collect::<Vec<_>>())
    .bind(chunks.iter().map(|chunk| chunk.hash.as_slice()).collect::<Vec<_>>())
    .bind(SECTION_SEPARATOR)
    .fetch_all(connection)
    .await?;
    rows.sort_unstable();
    Ok(rows.into_iter().map(|(_, id)| id).collect())
}

async fn write_vectors(
    connection: &mut PgConnection,
    build: &Build,
    chunk_ids: &[i64],
    chunks: &[NewChunk],
) -> Result<(), Error> {
    let (ids, vectors): (Vec<i64>, Vec<HalfVector>) = chunk_ids
        .iter()
        .zip(chunks)
        .filter_map(|(id, chunk)| Some((*id, HalfVector::from_f32_slice(chunk.vector.as_deref()?))))
        .unzip();
    sqlx::query(
        "insert into chunk_vectors (chunk_id, version_id, born, model_id, embedding)
         select id, $1, $2, $3, embedding from unnest($4::bigint[], $5::halfvec[]) as vector (id, embedding)",
    )
    .bind(build.version_id)
    .bind(build.generation)
    .bind(build.model.id)
    .bind(ids)
    .bind(vectors)
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_words(
    connection: &mut PgConnection,
    build: &Build,
    chunk_ids: &[i64],
    chunks: &[NewChunk],
) -> Result<(), Error> {
    let weights: Vec<SparseVector> =
        chunks.iter().map(|chunk| SparseVector::from_map(chunk.terms.weights(), DIMENSIONS)).collect();
    // Arrays of one length cannot be nested with others', so each chunk's words go as text.
    let terms: Vec<String> = chunks
        .iter()
        .map(|chunk| chunk.terms.words().iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
        .collect();
    sqlx::query(
        "insert into chunk_words (chunk_id, version_id, born, terms, weights)
         select id, $1, $2, string_to_array(terms, ',')::int[], weights
         from unnest($3::bigint[], $4::text[], $5::sparsevec[]) as words (id, terms, weights)",
    )
    .bind(build.version_id)
    .bind(build.generation)
    .bind(chunk_ids)
    .bind(terms)
    .bind(weights)
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_code_examples(
    connection: &mut PgConnection,
    build: &Build,
    chunk_ids: &[i64],
    examples: &[NewCodeExample],
) -> Result<(), Error> {
    if examples.is_empty() {
        return Ok(());
    }
    let chunk_of = |example: &NewCodeExample| chunk_ids.get(example.chunk).copied();
    sqlx::query(
        "insert into code_examples (chunk_id, version_id, born, language, code, context)
         select chunk_id, $1, $2, language, code, context
         from unnest($3::bigint[], $4::text[], $5::text[], $6::text[]) as example (chunk_id, language, code, context)
         where chunk_id is not null",
    )
    .bind(build.version_id)
    .bind(build.generation)
    .bind(examples.iter().map(chunk_of).collect::<Vec<_>>())
    .bind(examples.iter().map(|example| example.language.as_deref()).collect::<Vec<_>>())
    .bind(examples.iter().map(|example| example.code.as_str()).collect::<Vec<_>>())
    .bind(examples.iter().map(|example| example.context.as_str()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
