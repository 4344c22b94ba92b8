//! The schema: brought up to date by one of many, refused when it is behind or ahead.

use doc_server::index::{self, Error, Index, View};
use futures::future::join_all;
use sqlx::postgres::PgConnectOptions;

use crate::harness::{
    database::{Database, server},
    process::{doc_server, run},
};

async fn connect(options: &PgConnectOptions) -> Index {
    Index::connect(options.clone(), index::Config::default()).await.unwrap()
}

/// How many migrations there are.
fn all() -> usize {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let sql = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|suffix| suffix == "sql");
    std::fs::read_dir(folder).unwrap().flatten().filter(sql).count()
}

async fn execute(database: &Database, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&mut database.connect().await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_database_is_migrated_once() {
    let database = Database::empty().await;
    let index = connect(&database.options).await;
    assert_eq!(index.pending_migrations().await.unwrap(), all());
    assert_eq!(index.migrate().await.unwrap(), all());
    assert_eq!(index.migrate().await.unwrap(), 0);
    index.require_migrated().await.unwrap();
    assert!(index.refresh_catalog().await.unwrap().sources(&View::everything()).next().is_none());
    index.close().await;
    database.drop_now().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_together_migrate_once() {
    let database = Database::empty().await;
    let replicas = join_all((0..8).map(|_| connect(&database.options))).await;
    for applied in join_all(replicas.iter().map(Index::migrate)).await {
        applied.unwrap();
    }
    let mut connection = database.connect().await;
    let rows: i64 = sqlx::query_scalar("select count(*) from _sqlx_migrations where success")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(usize::try_from(rows).unwrap(), all());
    join_all(replicas.iter().map(Index::close)).await;
    database.drop_now().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_is_behind_is_refused_where_migrating_is_not_wanted() {
    let database = Database::migrated().await;
    let index = connect(&database.options).await;
    index.require_migrated().await.unwrap();
    execute(&database, "delete from _sqlx_migrations where version = (select max(version) from _sqlx_migrations)")
        .await;
    let refused = index.require_migrated().await.unwrap_err();
    assert!(matches!(refused, Error::MigrationsPending { pending: 1 }), "{refused}");
    index.close().await;

    let url = database.url();
    let ended = run(doc_server(["serve", "--no-migrate", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0"])
        .env("DOC_SERVER_DATABASE_URL", &url));
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("run `doc-server migrate`, or start without --no-migrate"), "{}", ended.stderr);
    database.drop_now().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_of_a_newer_binary_is_refused() {
    let database = Database::migrated().await;
    execute(
        &database,
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'from the future', true, '', 0)",
    )
    .await;
    let index = connect(&database.options).await;
    for refused in [index.migrate().await.unwrap_err(), index.require_migrated().await.unwrap_err()] {
        assert!(matches!(refused, Error::SchemaNewer { version: 9999 }), "{refused}");
    }
    index.close().await;
    database.drop_now().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_migration_is_refused() {
    let database = Database::migrated().await;
    execute(
        &database,
        "update _sqlx_migrations set checksum = 'edited' where version = 1;
         delete from _sqlx_migrations where version = (select max(version) from _sqlx_migrations)",
    )
    .await;
    let index = connect(&database.options).await;
    let refused = index.migrate().await.unwrap_err().to_string();
    assert!(refused.starts_with("migration failed: "), "{refused}");
    index.close().await;
    database.drop_now().await;
}

/// A user who may not create extensions stands for a server without pgvector: the extension cannot be had either way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_without_pgvector_is_told() {
    let database = Database::empty().await;
    let name = &database.name;
    let sql = format!(
        "create role {name} login; alter database {name} owner to {name};
         alter role {name} set search_path = public"
    );
    crate::harness::database::administer(sql).await;
    let index = connect(&server().username(name).database(name)).await;
    let refused = index.migrate().await.unwrap_err().to_string();
    assert!(refused.contains("pgvector") || refused.contains("\"vector\""), "{refused}");
    index.close().await;
    database.drop_now().await;
    crate::harness::database::administer(format!("drop role {name}")).await;
}
