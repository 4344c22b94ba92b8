//! Rebuilding a model's vector index, HNSW or IVFFlat, beside the one in use.
//!
//! The new index is built concurrently (imports and searches go on) and takes the place of the old one in one
//! transaction. One of the two kinds exists at a time, since the planner would use only one. A build that stops leaves
//! the old index in use and an unfinished one, which the next build removes first.

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::{Error, Index};

/// The index to build and its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorIndex {
    /// A navigable graph: best recall for its time.
    Hnsw {
        /// Links of a node, 2 to 100.
        m: u16,
        /// Candidates while building, 4 to 1,000.
        ef_construction: u16,
    },
    /// Lists around centroids: smaller, quicker to build, for rarely changed documents.
    IvfFlat {
        /// Lists, 1 to 32,768; none means rows / 1,000, at least 10.
        lists: Option<u32>,
    },
}

/// How far a build is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Postgres' name of the phase.
    pub phase: String,
    /// Rows done in it.
    pub done: i64,
    /// Rows to do in it; 0 when unknown.
    pub total: i64,
}

/// Parallel workers and memory for one build: the graph must fit the memory, or building it takes many times as long.
const BUILD_SETTINGS: &str = "set maintenance_work_mem = '512MB'; set max_parallel_maintenance_workers = 2;";

impl Index {
    /// Builds `kind` for every model that has vectors, one after the other, and swaps each in. Returns their names.
    /// `progress` is called about twice a second.
    ///
    /// # Errors
    /// When a build fails; the index in use stays.
    pub async fn rebuild_vector_index(
        &self,
        kind: VectorIndex,
        mut progress: impl FnMut(&str, &Progress) + Send,
    ) -> Result<Vec<String>, Error> {
        let mut connection = PgConnection::connect_with(&self.direct).await?;
        // Two rebuilds at once would drop each other's work.
        let free: bool =
            sqlx::query_scalar("select pg_try_advisory_lock(hashtextextended('doc-server vector index', 0))")
                .fetch_one(&mut connection)
                .await?;
        if !free {
            return Err(Error::BuildRunning { source_id: "the vector index".to_owned(), version: String::new() });
        }
        sqlx::raw_sql(BUILD_SETTINGS).execute(&mut connection).await?;
        let models = sqlx::query(
            "select id, name || '/' || precision as model, vector_index_name(id) as index_name
             from models where exists (select from chunk_vectors where model_id = models.id) order by id",
        )
        .fetch_all(&mut connection)
        .await?;
        let mut built = Vec::new();
        for row in &models {
            let (model, name, index): (i32, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let next = format!("{index}_next");
            let statement = build_statement(&mut connection, kind, model, &next).await?;
            drop_index(&mut connection, &next).await?;
            self.watch(&mut connection, statement, |at| progress(&name, at)).await?;
            swap(&mut connection, &index, &next).await?;
            built.push(name);
        }
        Ok(built)
    }

    /// Runs the build while another connection reads how far it is.
    async fn watch(
        &self,
        connection: &mut PgConnection,
        statement: String,
        mut progress: impl FnMut(&Progress) + Send,
    ) -> Result<(), Error> {
        /// Often enough that no second is silent.
        const EVERY: std::time::Duration = std::time::Duration::from_millis(500);
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *connection).await?;
        // Safe: the statement was put together by a function of the schema from numbers and quoted names.
        let mut building = std::pin::pin!(sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection));
        loop {
            tokio::select! {
                done = &mut building => return done.map(drop).map_err(Error::from),
                () = tokio::time::sleep(EVERY) => {
                    if let Some(at) = self.build_progress(backend).await? {
                        progress(&at);
                    }
                }
            }
        }
    }

    async fn build_progress(&self, backend: i32) -> Result<Option<Progress>, Error> {
        let mut read = self.pools.write("build progress").await?;
        let row = sqlx::query(
            "select phase, greatest(tuples_done, blocks_done), greatest(tuples_total, blocks_total)
             from pg_stat_progress_create_index where pid = $1",
        )
        .bind(backend)
        .fetch_optional(&mut *read)
        .await?;
        read.commit().await?;
        Ok(match row {
            Some(row) => Some(Progress { phase: row.try_get(0)?, done: row.try_get(1)?, total: row.try_get(2)? }),
            None => None,
        })
    }
}

async fn build_statement(
    connection: &mut PgConnection,
    kind: VectorIndex,
    model: i32,
    next: &str,
) -> Result<String, Error> {
    let statement = match kind {
        VectorIndex::Hnsw { m, ef_construction } => {
            sqlx::query_scalar("select hnsw_index_statement($1, $2, $3, $4, true)")
                .bind(model)
                .bind(next)
                .bind(i32::from(m))
                .bind(i32::from(ef_construction))
                .fetch_one(connection)
                .await?
        }
        VectorIndex::IvfFlat { lists } => {
            sqlx::query_scalar(
                "select ivfflat_index_statement($1, $2, coalesce($3, greatest(10,
                    (select count(*) / 1000 from chunk_vectors where model_id = $1)))::int, true)",
            )
            .bind(model)
            .bind(next)
            .bind(lists.map(i64::from))
            .fetch_one(connection)
            .await?
        }
    };
    Ok(statement)
}

async fn drop_index(connection: &mut PgConnection, name: &str) -> Result<(), Error> {
    // Safe: the name is made of a fixed prefix and a number.
    sqlx::raw_sql(AssertSqlSafe(format!("drop index if exists {name}"))).execute(connection).await?;
    Ok(())
}

/// Waits for running statements, and while it does new ones wait for it: at most five seconds, then the old index stays.
async fn swap(connection: &mut PgConnection, index: &str, next: &str) -> Result<(), Error> {
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql("set local lock_timeout = '5s'").execute(&mut *transaction).await?;
    drop_index(&mut transaction, index).await?;
    // Safe: as above.
    sqlx::raw_sql(AssertSqlSafe(format!("alter index {next} rename to {index}"))).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}
