//! A fresh database for each test, copied from one migrated template in the throw-away Postgres of `scripts/with-postgres`.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use doc_server::index::{self, Index};
use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::sync::OnceCell;

use super::{PATIENCE, Stopwatch};

/// Tests may run beside others of the same process and of other processes.
static NEXT: AtomicU32 = AtomicU32::new(0);
static TEMPLATE: OnceCell<String> = OnceCell::const_new();

/// One test's database; dropped with this value by [`Database::drop_now`].
#[derive(Clone, Debug)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// How to connect to it directly.
    pub options: PgConnectOptions,
}

/// The throw-away server.
pub fn server() -> PgConnectOptions {
    let url = std::env::var("DOC_SERVER_TEST_DATABASE_URL")
        .expect("DOC_SERVER_TEST_DATABASE_URL is not set: run `make test`, or `scripts/with-postgres cargo test …`");
    url.parse().expect("a postgres:// address in DOC_SERVER_TEST_DATABASE_URL")
}

/// Runs one statement on the server itself.
pub async fn administer(sql: String) {
    try_administer(sql.clone()).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn try_administer(sql: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect_with(&server()).await?;
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
    connection.close().await
}

impl Database {
    /// A migrated one.
    pub async fn migrated() -> Self {
        let template = TEMPLATE.get_or_init(make_template).await;
        Self::create(&format!("template {template}")).await
    }

    /// One without anything in it.
    pub async fn empty() -> Self {
        Self::create("").await
    }

    async fn create(how: &str) -> Self {
        let name = format!("it_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        administer(format!("create database {name} {how}")).await;
        let options = server().database(&name);
        Self { name, options }
    }

    /// Its address for a process of its own.
    pub fn url(&self) -> String {
        let server = server();
        format!("postgres://{}@{}:{}/{}", server.get_username(), server.get_host(), server.get_port(), self.name)
    }

    /// Whether it is one of the throw-away server's.
    pub fn is_shared(&self) -> bool {
        self.options.get_port() == server().get_port()
    }

    /// Where its server listens.
    pub fn address(&self) -> SocketAddr {
        let server = (self.options.get_host(), self.options.get_port());
        server.to_socket_addrs().expect("an address of the server").next().expect("an address of the server")
    }

    /// A connection beside all pools.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect_with(&self.options).await.expect("the test's database")
    }

    /// Removes it, whoever is still connected.
    pub async fn drop_now(&self) {
        let drop = format!("drop database if exists {} with (force)", self.name);
        let began = Stopwatch::start();
        // Postgres gives up when a connection needs more than five seconds to end.
        while let Err(error) = try_administer(drop.clone()).await {
            assert!(began.elapsed() < PATIENCE, "{drop}: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The template of these migrations, made by whoever comes first.
async fn make_template() -> String {
    let name = format!("it_template_{}", migrations_hash());
    let mut connection = PgConnection::connect_with(&server()).await.expect("the throw-away Postgres");
    sqlx::raw_sql("select pg_advisory_lock(4711)").execute(&mut connection).await.expect("the lock");
    let made: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(&name)
        .fetch_one(&mut connection)
        .await
        .expect("the list of databases");
    if !made {
        let unfinished = format!("{name}_unfinished");
        administer(format!("drop database if exists {unfinished} with (force)")).await;
        administer(format!("create database {unfinished}")).await;
        let index =
            Index::connect(server().database(&unfinished), index::Config::default()).await.expect("a connection");
        index.migrate().await.expect("the migrations");
        index.close().await;
        administer(format!("alter database {unfinished} rename to {name}")).await;
    }
    connection.close().await.expect("an orderly end");
    name
}

fn migrations_hash() -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("migrations/").flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut hasher = blake3::Hasher::new();
    for file in files {
        hasher.update(&std::fs::read(file).expect("a migration"));
    }
    hasher.finalize().to_hex()[..16].to_owned()
}
