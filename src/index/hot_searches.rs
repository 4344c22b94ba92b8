//! What was asked most lately: saved now and then, read once at a start. Worth nothing but time, so losing it loses nothing.

use std::time::Duration;

use sqlx::Row;

use super::{Error, Index};

/// Rows kept in all, whatever many replicas save.
const KEPT: i64 = 1_000;

/// What was not asked for so long is not hot.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(24);

/// A question and how often it was asked.
#[derive(Clone, Debug)]
pub struct HotSearch {
    /// JSON, as its owner writes it.
    pub question: String,
    /// How often it was found in a cache.
    pub hits: i64,
}

impl Index {
    /// Saves what is hot, in place of what was saved of the same questions, and drops what is not hot any more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn save_hot_searches(&self, searches: &[HotSearch]) -> Result<(), Error> {
        let ids: Vec<Vec<u8>> =
            searches.iter().map(|search| blake3::hash(search.question.as_bytes()).as_bytes().to_vec()).collect();
        let questions: Vec<&str> = searches.iter().map(|search| search.question.as_str()).collect();
        let hits: Vec<i64> = searches.iter().map(|search| search.hits).collect();
        let mut write = self.pools.write("save hot searches").await?;
        // A question is kept once for each set of documents that it was asked of; it is one row all the same. In one order everywhere: replicas that save at the same time must not wait for each other in a circle.
        sqlx::query(
            "insert into hot_searches (id, question, hits)
             select id, (array_agg(question))[1], sum(hits)::bigint
             from unnest($1::bytea[], $2::jsonb[], $3::bigint[]) as hot (id, question, hits)
             group by id order by id
             on conflict (id) do update set hits = excluded.hits, seen_at = now()",
        )
        .bind(ids)
        .bind(questions)
        .bind(hits)
        .execute(&mut *write)
        .await?;
        sqlx::query(
            "delete from hot_searches where id in (
                select id from hot_searches
                where seen_at < now() - make_interval(secs => $1)
                   or id not in (select id from hot_searches order by hits desc, id limit $2)
                order by id for update skip locked
             )",
        )
        .bind(FORGOTTEN_AFTER.as_secs_f64())
        .bind(KEPT)
        .execute(&mut *write)
        .await?;
        write.commit().await?;
        Ok(())
    }

    /// The questions that were asked most, most first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn hot_searches(&self, most: i64) -> Result<Vec<HotSearch>, Error> {
        let mut read = self.pools.write("read hot searches").await?;
        let rows = sqlx::query("select question::text, hits from hot_searches order by hits desc, id limit $1")
            .bind(most)
            .fetch_all(&mut *read)
            .await?;
        read.commit().await?;
        rows.iter().map(|row| Ok(HotSearch { question: row.try_get(0)?, hits: row.try_get(1)? })).collect()
    }
}
