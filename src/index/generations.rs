//! Building a generation beside the published one, and publishing it in one transaction.
//!
//! Rows carry a validity range (`born <= generation < died`), and a generation's number grows with time. So a build writes its
//! new rows and ends the lives of replaced ones while search, which reads an older number, sees neither; publishing
//! only moves the number that search reads. A build that stops anywhere leaves the published generation as it was, and the
//! next build of the version goes on from there.

use std::collections::HashMap;

use futures::TryStreamExt;
use sqlx::{Connection, PgConnection, Row, postgres::PgRow};

use super::{Error, Index, catalog::CHANNEL, epoch, parked::Reader, vectors::Model};

/// The embedding model that a generation's vectors come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelIdentity {
    /// Such as `all-MiniLM-L6-v2`.
    pub name: String,
    /// `int8`, `f32` or `remote`.
    pub precision: String,
    /// Numbers in a vector.
    pub dimensions: usize,
    /// Which build of the model.
    pub revision: String,
}

/// What is to be built.
#[derive(Clone, Debug)]
pub struct Target {
    /// The source's name.
    pub source_id: String,
    /// The version's name.
    pub version: String,
    /// Title for a new source.
    pub title: String,
    /// Where the source comes from; empty keeps what is known.
    pub url: String,
}

/// A generation under construction. Holds the version's build lock on a connection of its own, so the lock goes with the
/// process.
#[derive(Debug)]
pub struct Build {
    /// The generation's row.
    pub generation: i64,
    /// The version's row.
    pub version_id: i64,
    /// The model of its vectors.
    pub model: Model,
    /// Whether an earlier build left work that this one goes on with.
    pub resumed: bool,
    lock: PgConnection,
}

/// What a publish put in front of search.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// The generation.
    pub generation: i64,
    /// Pages in it.
    pub pages: i64,
    /// Chunks in it.
    pub chunks: i64,
    /// Code examples in it.
    pub code_examples: i64,
}

impl Index {
    /// The row of `identity`, made on first use, with its empty vector index.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn register_model(&self, identity: &ModelIdentity) -> Result<Model, Error> {
        let dimensions = i32::try_from(identity.dimensions).unwrap_or(i32::MAX);
        let mut transaction = self.pools.write("register model").await?;
        // One at a time, so that two processes do not both claim or make a row.
        sqlx::query("lock table models in share row exclusive mode").execute(&mut *transaction).await?;
        let id: i32 = sqlx::query_scalar(
            "with known as (
                -- The same files under another folder's name are the same model.
                select id from models where precision = $2 and dimensions = $3 and revision = $4 order by id limit 1
             ), claimed as (
                update models set revision = $4
                where name = $1 and precision = $2 and dimensions = $3 and revision is null
                  and not exists (select from known)
                returning id
             ), made as (
                insert into models (name, precision, dimensions, revision)
                select $1, $2, $3, $4
                where not exists (select from known)
                  and not exists (select from models where name = $1 and precision = $2 and dimensions = $3 and revision is null)
                returning id
             )
             select id from known union all select id from claimed union all select id from made",
        )
        .bind(&identity.name)
        .bind(&identity.precision)
        .bind(dimensions)
        .bind(&identity.revision)
        .fetch_one(&mut *transaction)
        .await?;
        sqlx::query("select create_vector_index($1)").bind(id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(Model { id, dimensions: identity.dimensions })
    }

    /// The row of `identity`, if it has ever been used here.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find_model(&self, identity: &ModelIdentity) -> Result<Option<Model>, Error> {
        let find = |mut connection: Reader| async move {
            let id: Option<i32> = sqlx::query_scalar(
                "select id from models where precision = $1 and dimensions = $2 and revision = $3 order by id limit 1",
            )
            .bind(&identity.precision)
            .bind(i32::try_from(identity.dimensions).unwrap_or(i32::MAX))
            .bind(&identity.revision)
            .fetch_optional(&mut *connection)
            .await?;
            connection.done().await?;
            Ok(id.map(|id| Model { id, dimensions: identity.dimensions }))
        };
        self.pools.read("find model", find).await
    }

    /// Starts a build of `target`, or goes on with the one that was left.
    ///
    /// # Errors
    /// [`Error::BuildRunning`] while another process builds the same version.
    pub async fn begin_build(&self, target: &Target, model: Model) -> Result<Build, Error> {
        let mut lock = PgConnection::connect_with(&self.direct).await?;
        // It idles while pages are embedded; without a sign of life a firewall on the way would forget it.
        sqlx::raw_sql("set tcp_keepalives_idle = 60").execute(&mut lock).await?;
        let free: bool = sqlx::query_scalar(
            "select pg_try_advisory_lock(hashtextextended('doc-server build ' || $1 || ' ' || $2, 0))",
        )
        .bind(&target.source_id)
        .bind(&target.version)
        .fetch_one(&mut lock)
        .await?;
        if !free {
            return Err(Error::BuildRunning { source_id: target.source_id.clone(), version: target.version.clone() });
        }
        let mut transaction = lock.begin().await?;
        let version_id = make_version(&mut transaction, target).await?;
        let left: Option<(i64, i32)> =
            sqlx::query_as("select id, model_id from generations where version_id = $1 and status = 'building'")
                .bind(version_id)
                .fetch_optional(&mut *transaction)
                .await?;
        let (generation, resumed) = match left {
            Some((generation, model_id)) => {
                if model_id != model.id {
                    forget_other_model(&mut transaction, generation, version_id, model).await?;
                }
                (generation, true)
            }
            None => (make_generation(&mut transaction, version_id, model).await?, false),
        };
        transaction.commit().await?;
        Ok(Build { generation, version_id, model, resumed, lock })
    }

    /// Puts the build in front of search in one transaction, announced to every replica with it. Returns once no replica
    /// answers from before.
    ///
    /// # Errors
    /// When the database fails; then the build stays and can be gone on with.
    ///
    /// # Cancel safety
    /// Dropping the future before the commit publishes nothing.
    pub async fn publish(&self, build: &mut Build) -> Result<Published, Error> {
        let (generation, version_id) = (build.generation, build.version_id);
        let base = published_generation(&mut build.lock, version_id).await?;
        let difference = count_terms(&mut build.lock, generation, base, version_id).await?;
        let mut transaction = build.lock.begin().await?;
        let counts = count_contents(&mut transaction, (base, generation), version_id, &difference).await?;
        sqlx::query("update generations set status = 'retired', retired_at = now() where version_id = $1 and status = 'published'")
            .bind(version_id)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("update generations set status = 'published', published_at = now() where id = $1")
            .bind(generation)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("update versions set published_generation = $2 where id = $1")
            .bind(version_id)
            .bind(generation)
            .execute(&mut *transaction)
            .await?;
        let announced = sqlx::query(
            "with changed as (
                update sources set updated_at = now()
                where id = (select source from versions where id = $1) and deleted_at is null
                returning source_id
             )
             select pg_notify($2, source_id) from changed",
        )
        .bind(version_id)
        .bind(CHANNEL)
        .fetch_optional(&mut *transaction)
        .await?;
        if announced.is_none() {
            return Err(Error::NotFound("the source was deleted while it was imported; import it again".to_owned()));
        }
        let epoch = epoch::advance(&mut transaction).await?;
        transaction.commit().await?;
        self.catch_up().await;
        self.until_seen(epoch).await;
        Ok(counts)
    }

    /// Lets the version go for the next build. A dropped build does so too, but only once the server has noticed.
    pub async fn release(&self, build: Build) {
        let mut lock = build.lock;
        // Told, not left to the end of the session: that comes later than our return, and the next import would find the lock taken.
        let freed = sqlx::raw_sql("select pg_advisory_unlock_all()").execute(&mut lock).await;
        if let Err(error) = freed.and(lock.close().await) {
            tracing::debug!(%error, "the build's connection was gone already");
        }
    }

    /// Whether the build differs from what is published.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn has_changes(&self, build: &Build) -> Result<bool, Error> {
        let mut read = self.pools.write("compare build").await?;
        let changed = sqlx::query_scalar(
            "select (select published_generation is null from versions where id = $1)
                 or exists (select from pages where version_id = $1 and (born = $2 or died = $2))",
        )
        .bind(build.version_id)
        .bind(build.generation)
        .fetch_one(&mut *read)
        .await?;
        read.commit().await?;
        Ok(changed)
    }

    /// Gives up a build that changed nothing: the published generation stays. A version and a source that were made for
    /// this build alone go with it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn discard(&self, build: &mut Build) -> Result<(), Error> {
        let mut transaction = build.lock.begin().await?;
        // Held to the end: a build of another version that begins meanwhile waits, and makes the source anew.
        let source: Option<i64> = sqlx::query_scalar(
            "select id from sources where id = (select source from versions where id = $1) for update",
        )
        .bind(build.version_id)
        .fetch_optional(&mut *transaction)
        .await?;
        sqlx::query("delete from generations where id = $1 and status = 'building'")
            .bind(build.generation)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "delete from versions v where id = $1 and published_generation is null
             and not exists (select from generations where version_id = v.id)
             and not exists (select from pages where version_id = v.id)",
        )
        .bind(build.version_id)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("delete from sources s where id = $1 and not exists (select from versions where source = s.id)")
            .bind(source)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }
}

async fn make_version(connection: &mut PgConnection, target: &Target) -> Result<i64, Error> {
    let source: i64 = sqlx::query_scalar(
        "insert into sources (source_id, title, url) values ($1, $2, $3)
         on conflict (source_id) where deleted_at is null
         do update set url = case when $3 = '' then sources.url else $3 end
         returning id",
    )
    .bind(&target.source_id)
    .bind(&target.title)
    .bind(&target.url)
    .fetch_one(&mut *connection)
    .await?;
    let version = sqlx::query_scalar(
        "insert into versions (source, version) values ($1, $2)
         on conflict (source, version) do update set version = excluded.version
         returning id",
    )
    .bind(source)
    .bind(&target.version)
    .fetch_one(connection)
    .await?;
    Ok(version)
}

async fn make_generation(connection: &mut PgConnection, version_id: i64, model: Model) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("insert into generations (version_id, model_id) values ($1, $2) returning id")
        .bind(version_id)
        .bind(model.id)
        .fetch_one(connection)
        .await?)
}

/// What a build with another model left is of no use: its pages go, and they are embedded anew.
async fn forget_other_model(
    connection: &mut PgConnection,
    generation: i64,
    version_id: i64,
    model: Model,
) -> Result<(), Error> {
    sqlx::query("delete from pages where version_id = $1 and born = $2")
        .bind(version_id)
        .bind(generation)
        .execute(&mut *connection)
        .await?;
    sqlx::query("update generations set model_id = $2 where id = $1")
        .bind(generation)
        .bind(model.id)
        .execute(connection)
        .await?;
    Ok(())
}

/// What search reads of the version now; 0 before its first publish. Only this build, which holds the version's lock, changes it.
async fn published_generation(connection: &mut PgConnection, version_id: i64) -> Result<i64, Error> {
    let published = sqlx::query_scalar("select coalesce(published_generation, 0) from versions where id = $1");
    Ok(published.bind(version_id).fetch_one(connection).await?)
}

/// Each chunk by which the generation `$1` of the version `$3` differs from the published one `$2`: whether it is new, whether
/// it has a vector, its words. Pages, chunks and words live and die together, and of those tables only pages has an index on lives.
pub const CHANGED_CHUNKS: &str = "select p.born > $2 as new,
        v.chunk_id is not null as embedded, w.terms
 from pages p join chunks c on c.page_id = p.id join chunk_words w on w.chunk_id = c.id
 left join chunk_vectors v on v.chunk_id = c.id
 where p.version_id = $3
   and ((p.born > $2 and p.born <= $1 and p.died > $1) or (p.born <= $2 and p.died > $2 and p.died <= $1))";

/// Document frequencies of the generation `$1`: those of `$2`, with the changes `$4` of the terms `$3`. In order, because the
/// index grows several times faster at its end.
pub const WRITE_TERMS: &str = "insert into generation_terms (generation_id, term, chunks)
 select $1, term, sum(chunks)
 from (
    select term, chunks from generation_terms where generation_id = $2
    union all
    select term, chunks from unnest($3::int[], $4::int[]) as change (term, chunks)
 ) counted
 group by term having sum(chunks) > 0
 order by term";

/// Counts what is in the generation `$1` of the version `$3`: what is in the published one `$2`, and by what they differ. `$4` is
/// by how many chunks, `$5` by how many without a vector.
pub const COUNT_CONTENTS: &str = "update generations g set
    pages = coalesce(base.pages, 0) + changed.pages,
    words = coalesce(base.words, 0) + changed.words,
    chunks = coalesce(base.chunks, 0) + $4,
    chunks_without_embedding = coalesce(base.chunks_without_embedding, 0) + $5,
    code_examples = coalesce(base.code_examples, 0) + changed.code_examples
 from (
    select coalesce(sum(p.sign), 0)::bigint as pages,
           coalesce(sum(p.sign * p.words), 0)::bigint as words,
           coalesce(sum(p.sign * held.code_examples), 0)::bigint as code_examples
    from (
        select id, words, case when born > $2 then 1 else -1 end as sign from pages
        where version_id = $3
          and ((born > $2 and born <= $1 and died > $1) or (born <= $2 and died > $2 and died <= $1))
    ) p
    cross join lateral (
        select count(*) as code_examples
        from chunks c join code_examples e on e.chunk_id = c.id
        where c.page_id = p.id
    ) held
 ) changed
 left join generations base on base.id = $2
 where g.id = $1
 returning g.pages, g.chunks, g.code_examples";

/// By what a generation differs from the published one.
#[derive(Debug, Default)]
pub struct Difference {
    terms: HashMap<i32, i32>,
    /// By how many chunks.
    pub chunks: i64,
    /// By how many chunks without a vector.
    pub chunks_without_embedding: i64,
}

impl Difference {
    /// Reads a row of [`CHANGED_CHUNKS`].
    ///
    /// # Errors
    /// When it is not one.
    pub fn count(&mut self, row: &PgRow) -> Result<(), sqlx::Error> {
        let (new, embedded, terms): (bool, bool, Vec<i32>) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let sign = if new { 1 } else { -1 };
        self.chunks += i64::from(sign);
        self.chunks_without_embedding += if embedded { 0 } else { i64::from(sign) };
        for term in terms {
            *self.terms.entry(term).or_default() += sign;
        }
        Ok(())
    }

    /// The terms that are in more or in fewer chunks, and by how many: `$3` and `$4` of [`WRITE_TERMS`].
    #[must_use]
    pub fn terms(&self) -> (Vec<i32>, Vec<i32>) {
        self.terms.iter().filter(|(_, change)| **change != 0).unzip()
    }
}

/// Document frequencies of the generation, outside the publishing transaction because they can take seconds. They are counted
/// here: grouping a row for each word of each chunk takes Postgres several times as long as sending and counting them.
/// Holds a number for each different word.
async fn count_terms(
    connection: &mut PgConnection,
    generation: i64,
    base: i64,
    version_id: i64,
) -> Result<Difference, Error> {
    let mut transaction = connection.begin().await?;
    // Kept from being removed while its terms are written, once for all of them: no foreign key does it for each.
    let kept = sqlx::query("select from generations where id = $1 for key share").bind(generation);
    if kept.fetch_optional(&mut *transaction).await?.is_none() {
        return Err(Error::NotFound("the source was deleted while it was imported; import it again".to_owned()));
    }
    sqlx::query("delete from generation_terms where generation_id = $1")
        .bind(generation)
        .execute(&mut *transaction)
        .await?;
    let mut difference = Difference::default();
    let query = sqlx::query(CHANGED_CHUNKS).bind(generation).bind(base).bind(version_id);
    let mut chunks = query.fetch(&mut *transaction);
    while let Some(row) = chunks.try_next().await? {
        difference.count(&row)?;
    }
    drop(chunks);
    let (terms, changes) = difference.terms();
    let query = sqlx::query(WRITE_TERMS).bind(generation).bind(base).bind(terms).bind(changes);
    query.execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(difference)
}

async fn count_contents(
    connection: &mut PgConnection,
    (base, generation): (i64, i64),
    version_id: i64,
    difference: &Difference,
) -> Result<Published, Error> {
    let row = sqlx::query(COUNT_CONTENTS)
        .bind(generation)
        .bind(base)
        .bind(version_id)
        .bind(difference.chunks)
        .bind(difference.chunks_without_embedding)
        .fetch_one(connection)
        .await?;
    Ok(Published {
        generation,
        pages: row.try_get("pages")?,
        chunks: row.try_get("chunks")?,
        code_examples: row.try_get("code_examples")?,
    })
}
