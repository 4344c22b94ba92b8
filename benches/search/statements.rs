//! The statements of searches, publishes and cleanups by their time on 50,000 chunks, and the two slowest against their first
//! versions, in turns. What a publish counts is counted for one source of 10,000 chunks. Everything is rolled back.

use std::{collections::BTreeMap, time::Instant};

use doc_server::{
    app::App,
    config::Settings,
    index::{
        Selection, cleanup, documents,
        generations::{self, Difference},
    },
    query::{Mode, Query},
};
use futures::TryStreamExt;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, Postgres, Row, Transaction, postgres::PgArguments,
    query::Query as Statement,
};

use crate::{Failure, median, texts::Texts};

/// Searches of each kind that are explained.
const SEARCHES: usize = 40;

/// Each version is measured so many times in turn, and the middle one counts.
const ROUNDS: usize = 7;

/// The first version of counting terms: a group over a row for each word of each chunk.
const FIRST_TERMS: &str = "insert into generation_terms (generation_id, term, chunks)
 select $1, term, count(*)
 from chunk_words, unnest(terms) as term
 where version_id = $2 and born <= $1 and died > $1
 group by term";

/// The first version of the table had this key.
const FIRST_KEY: &str = "alter table generation_terms add constraint generation_terms_generation_id_fkey
    foreign key (generation_id) references generations (id) on delete cascade";

/// The first version of counting contents: every row of the generation, chunks twice.
const FIRST_CONTENTS: &str = "update generations set
    pages = (select count(*) from pages where version_id = $2 and born <= $1 and died > $1),
    words = (select coalesce(sum(words), 0) from pages where version_id = $2 and born <= $1 and died > $1),
    chunks = (select count(*) from chunks where version_id = $2 and born <= $1 and died > $1),
    chunks_without_embedding =
        (select count(*) from chunks c where c.version_id = $2 and c.born <= $1 and c.died > $1
         and not exists (select from chunk_vectors v where v.chunk_id = c.id)),
    code_examples = (select count(*) from code_examples where version_id = $2 and born <= $1 and died > $1)
 where id = $1
 returning pages, chunks, code_examples";

/// What is published: the generation `built` of `version`, as if `base` were what search read before (0: nothing).
#[derive(Clone, Copy)]
struct Publish {
    version: i64,
    base: i64,
    built: i64,
}

pub async fn run(settings: &Settings, texts: &Texts) -> Result<(), Failure> {
    let app = App::open(settings).await?;
    app.index.migrate().await?;
    let mut connection = PgConnection::connect(&settings.database_url).await?;
    sqlx::raw_sql("set jit = off").execute(&mut connection).await?;
    searches(&app, texts).await?;
    let (version, generation) = sqlx::query_as("select id, published_generation from versions order by id limit 1")
        .fetch_one(&mut connection)
        .await?;
    others(&mut connection, version, generation).await?;
    let first = Publish { version, base: 0, built: generation };
    compare(&mut connection, first, "first publish of 10,000 chunks", false).await?;
    let next = Publish { version, base: generation, built: i64::MAX - 1 };
    compare(&mut connection, next, "publish after 5 of its 500 pages went", true).await?;
    app.close().await;
    Ok(())
}

/// The time of each statement of searches, in the order of the slowest.
async fn searches(app: &App, texts: &Texts) -> Result<(), Failure> {
    let mut times: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for text in texts.queries(0, SEARCHES) {
        for (kind, mode, exact, sources) in [
            ("all sources", Mode::Hybrid, false, vec![]),
            ("one source", Mode::Hybrid, false, vec!["bench-1".to_owned()]),
            ("one source, exact", Mode::Vector, true, vec!["bench-1".to_owned()]),
        ] {
            let selection = Selection { sources, version: None };
            let query = Query { text: text.clone(), mode, exact, selection, match_count: 10, ..Query::default() };
            for statement in app.search.explain(&query).await?.statements {
                times.entry((kind, statement.name)).or_default().push(statement.execution_ms);
            }
        }
    }
    println!("statements of searches, ms: median / slowest of {SEARCHES}");
    for ((kind, name), mut values) in times {
        values.sort_by(f64::total_cmp);
        println!("  {name} ({kind}): {:.2} / {:.2}", values[values.len() / 2], values[values.len() - 1]);
    }
    Ok(())
}

/// The other statements of imports and cleanups.
async fn others(connection: &mut PgConnection, version: i64, generation: i64) -> Result<(), Failure> {
    let pages: Vec<i64> = sqlx::query_scalar("select id from pages where version_id = $1 order by id limit 5")
        .bind(version)
        .fetch_all(&mut *connection)
        .await?;
    println!("other statements, ms");
    let known = sqlx::query(documents::KNOWN_PAGES).bind(version).bind(generation + 1);
    println!("  known pages of a source: {:.2}", timed(connection, known, "").await?);
    for sql in documents::END_LIVES {
        let ended = sqlx::query(sql).bind(&pages).bind(generation + 1).bind(version);
        let table = sql.split(' ').nth(1).unwrap_or_default();
        println!("  end the lives of 5 pages in {table}: {:.2}", timed(connection, ended, "").await?);
    }
    let removed = sqlx::query(cleanup::REMOVE_PAGES).bind(0.0).bind(100_i64);
    let deleted = "update sources set deleted_at = now() - interval '1 day' where id = (select min(id) from sources)";
    println!("  remove 100 pages: {:.2}", timed(connection, removed, deleted).await?);
    Ok(())
}

/// Milliseconds of one statement after `before`, rolled back.
async fn timed(
    connection: &mut PgConnection,
    statement: Statement<'_, Postgres, PgArguments>,
    before: &'static str,
) -> Result<f64, Failure> {
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql(before).execute(&mut *transaction).await?;
    let started = Instant::now();
    statement.execute(&mut *transaction).await?;
    let took = started.elapsed().as_secs_f64() * 1_000.0;
    transaction.rollback().await?;
    Ok(took)
}

/// Both versions of both statements in turns, and that they count the same.
async fn compare(connection: &mut PgConnection, publish: Publish, what: &str, remove: bool) -> Result<(), Failure> {
    let mut times: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        let mut counted = Vec::new();
        for now in [false, true] {
            let mut transaction = connection.begin().await?;
            prepare(&mut transaction, publish, remove).await?;
            if !now {
                sqlx::raw_sql(FIRST_KEY).execute(&mut *transaction).await?;
            }
            let started = Instant::now();
            let difference = if now {
                terms(&mut transaction, publish).await?
            } else {
                let query = sqlx::query(FIRST_TERMS).bind(publish.built).bind(publish.version);
                query.execute(&mut *transaction).await?;
                Difference::default()
            };
            times[usize::from(now)].push(started.elapsed().as_secs_f64() * 1_000.0);
            let started = Instant::now();
            let contents = if now {
                sqlx::query(generations::COUNT_CONTENTS)
                    .bind(publish.built)
                    .bind(publish.base)
                    .bind(publish.version)
                    .bind(difference.chunks)
                    .bind(difference.chunks_without_embedding)
            } else {
                sqlx::query(FIRST_CONTENTS).bind(publish.built).bind(publish.version)
            };
            contents.execute(&mut *transaction).await?;
            times[2 + usize::from(now)].push(started.elapsed().as_secs_f64() * 1_000.0);
            counted.push(result(&mut transaction, publish).await?);
            transaction.rollback().await?;
        }
        if counted[0] != counted[1] {
            return Err(format!("{what}: the two versions count differently: {counted:?}").into());
        }
    }
    let [first_terms, terms, first_contents, contents] = times.map(median);
    println!("{what}, ms");
    println!(
        "  count terms: now {terms:.1} | first version {first_terms:.1} | ratio {:.2} (must 0.5)",
        terms / first_terms
    );
    println!(
        "  count contents: now {contents:.1} | first version {first_contents:.1} | ratio {:.2} (must 0.5)",
        contents / first_contents
    );
    plans(connection, publish, remove).await
}

/// The plans of both versions, as Postgres prints them.
async fn plans(connection: &mut PgConnection, publish: Publish, remove: bool) -> Result<(), Failure> {
    let Publish { version, base, built } = publish;
    let mut transaction = connection.begin().await?;
    prepare(&mut transaction, publish, remove).await?;
    let query = sqlx::query(generations::CHANGED_CHUNKS).bind(built).bind(base).bind(version);
    let mut difference = Difference::default();
    for row in query.fetch_all(&mut *transaction).await? {
        difference.count(&row)?;
    }
    let (terms, changes) = difference.terms();
    for (name, sql) in [
        ("first version of counting terms", FIRST_TERMS),
        ("first version of counting contents", FIRST_CONTENTS),
        ("now: changed chunks", generations::CHANGED_CHUNKS),
        ("now: writing terms", generations::WRITE_TERMS),
        ("now: counting contents", generations::COUNT_CONTENTS),
    ] {
        let mut savepoint = transaction.begin().await?;
        if name.starts_with("first") {
            sqlx::raw_sql(FIRST_KEY).execute(&mut *savepoint).await?;
        }
        // Safe: the statement is one of ours.
        let sql = AssertSqlSafe(format!("explain (analyze, buffers, costs off) {sql}"));
        let query = sqlx::query(sql).bind(built);
        let query = match name {
            "first version of counting terms" | "first version of counting contents" => query.bind(version),
            "now: writing terms" => query.bind(base).bind(&terms).bind(&changes),
            "now: changed chunks" => query.bind(base).bind(version),
            _ => {
                let counts = (difference.chunks, difference.chunks_without_embedding);
                query.bind(base).bind(version).bind(counts.0).bind(counts.1)
            }
        };
        println!("  {name}:");
        for row in query.fetch_all(&mut *savepoint).await? {
            println!("    {}", row.try_get::<String, _>(0)?);
        }
        savepoint.rollback().await?;
    }
    transaction.rollback().await?;
    Ok(())
}

/// The rows as a build has left them when it publishes.
async fn prepare(transaction: &mut Transaction<'_, Postgres>, publish: Publish, remove: bool) -> Result<(), Failure> {
    sqlx::query("delete from generation_terms where generation_id = $1")
        .bind(publish.built)
        .execute(&mut **transaction)
        .await?;
    if remove {
        sqlx::query(
            "insert into generations (id, version_id, model_id) overriding system value
             select $1, version_id, model_id from generations where id = $2",
        )
        .bind(publish.built)
        .bind(publish.base)
        .execute(&mut **transaction)
        .await?;
        let pages: Vec<i64> = sqlx::query_scalar("select id from pages where version_id = $1 order by id limit 5")
            .bind(publish.version)
            .fetch_all(&mut **transaction)
            .await?;
        for sql in documents::END_LIVES {
            let ended = sqlx::query(sql).bind(&pages).bind(publish.built).bind(publish.version);
            ended.execute(&mut **transaction).await?;
        }
    }
    Ok(())
}

/// As a publish does it: reading, counting, writing.
async fn terms(transaction: &mut Transaction<'_, Postgres>, publish: Publish) -> Result<Difference, Failure> {
    let query = sqlx::query(generations::CHANGED_CHUNKS).bind(publish.built).bind(publish.base).bind(publish.version);
    let mut difference = Difference::default();
    let mut chunks = query.fetch(&mut **transaction);
    while let Some(row) = chunks.try_next().await? {
        difference.count(&row)?;
    }
    drop(chunks);
    let (terms, changes) = difference.terms();
    let query = sqlx::query(generations::WRITE_TERMS).bind(publish.built).bind(publish.base).bind(terms).bind(changes);
    query.execute(&mut **transaction).await?;
    Ok(difference)
}

/// Everything that was counted, as one text.
async fn result(transaction: &mut Transaction<'_, Postgres>, publish: Publish) -> Result<String, Failure> {
    let sql = "select (pages, words, chunks, chunks_without_embedding, code_examples)::text || ' ' ||
        (select md5(string_agg(term || ':' || chunks, ',' order by term)) from generation_terms where generation_id = g.id)
        from generations g where id = $1";
    Ok(sqlx::query_scalar(sql).bind(publish.built).fetch_one(&mut **transaction).await?)
}
