//! The whole server in a test: a fresh database, the real router without sockets, and hands on its model and its network.
//!
//! `TestApp::start().await` is the usual one; `TestApp::builder()` changes something first. When the value is dropped, its
//! background tasks must have ended once asked to, and its database goes.

pub mod client;
pub mod collector;
pub mod database;
pub mod faulty;
pub mod fixtures;
pub mod haproxy;
pub mod load;
pub mod pooler;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod served;
pub mod waiting;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Once, OnceLock},
    time::Duration,
};

use doc_server::{
    admin,
    api::{
        self,
        identity::{Access, AdminDoor, Open},
        rate_limit::{self, Limits},
    },
    cache::shared::{self, Shared},
    config::Settings,
    embed::{self, Embedder, FakeConfig, Probe},
    error::Error,
    health::{self, Health},
    index::{
        self, Index, View,
        generations::Target,
        keys::{NewKey, Scopes},
    },
    runtime::{
        lifecycle::Lifecycle,
        listen::{self, Front},
        metrics,
    },
    search::{self, Parts, Search},
    work::{
        import::{self, Import, Progress, Report},
        material::Material,
    },
};
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;

pub use self::{
    client::{Reply, redact},
    waiting::{PATIENCE, Stopwatch, eventually, within},
};
use self::{database::Database, faulty::Proxy, pooler::Pooler};

/// How long a search waits for a connection where no fault is tested: two cores shared by all tests are slow, not faulty.
const UNHURRIED: Duration = Duration::from_secs(5);

/// What is changed of the usual server.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one switch of a test")]
pub struct Builder {
    real_model: bool,
    dimensions: usize,
    proxied: bool,
    background: bool,
    max_body_bytes: usize,
    cors_origins: String,
    index: index::Config,
    pooler: Option<SocketAddr>,
    listens_directly: bool,
    search: search::Config,
    redis: shared::Config,
    open: Open,
    without_key: Scopes,
    admin_on_loopback: bool,
    limits: rate_limit::Config,
}

/// A server in a test.
pub struct TestApp {
    /// The database stage.
    pub index: Index,
    /// The embedding stage.
    pub embedder: Embedder,
    /// The path of a search.
    pub search: Search,
    /// Its tasks.
    pub lifecycle: Lifecycle,
    /// The test's hand on the fake model.
    pub probe: Probe,
    /// The database beside all pools, never through the proxy.
    pub database: Database,
    front: Front,
    admin: Front,
    proxy: Option<Proxy>,
    /// The first server of a database drops it.
    owner: bool,
}

impl Builder {
    /// The int8 model of the data directory instead of hashed words.
    pub fn with_real_model(mut self) -> Self {
        self.real_model = true;
        self
    }

    /// A fake model whose vectors have another length.
    pub fn with_dimensions(mut self, dimensions: usize) -> Self {
        self.dimensions = dimensions;
        self
    }

    /// Every connection to the database through a proxy that can fail.
    pub fn behind_a_faulty_network(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// The connection that listens goes past the faulty network.
    pub fn listening_past_it(mut self) -> Self {
        self.listens_directly = true;
        self
    }

    /// With the background tasks of `serve`: the catalog's and the probe's.
    pub fn with_background_tasks(mut self) -> Self {
        self.background = true;
        self
    }

    /// The largest request body.
    pub fn with_max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// Pages of these origins may read answers.
    pub fn with_cors_origins(mut self, origins: &str) -> Self {
        origins.clone_into(&mut self.cors_origins);
        self
    }

    /// The longest a search waits for its vector.
    pub fn with_embed_timeout(mut self, timeout: Duration) -> Self {
        self.search.embed_timeout = timeout;
        self
    }

    /// Other caches.
    pub fn with_search(mut self, change: impl FnOnce(&mut search::Config)) -> Self {
        change(&mut self.search);
        self
    }

    /// A cache that replicas share.
    pub fn with_redis(mut self, redis: shared::Config) -> Self {
        self.redis = redis;
        self
    }

    /// Bound to an address that others reach: callers without a key have these scopes.
    pub fn closed(mut self, without_key: &[&str]) -> Self {
        self.open = Open::Never;
        self.without_key = Scopes::parse(without_key.iter().copied()).expect("scopes");
        self.admin_on_loopback = false;
        self
    }

    /// Callers without a key may do everything, whatever keys there are.
    pub fn insecurely_open(mut self) -> Self {
        self.open = Open::Always;
        self
    }

    /// Limits on how often callers may ask.
    pub fn with_limits(mut self, limits: rate_limit::Config) -> Self {
        self.limits = limits;
        self
    }

    /// Other pools.
    pub fn with_pool(mut self, change: impl FnOnce(&mut index::pool::Config)) -> Self {
        change(&mut self.index.pool);
        self
    }

    /// Through a pooler in transaction mode, with a direct way beside it.
    pub fn through(mut self, direct: &PgConnectOptions, pooler: &Pooler) -> Self {
        self.index.direct = Some(direct.clone());
        self.index.pool.transaction_pooling = true;
        self.pooler = Some(pooler.address());
        self
    }

    /// Replicas to search.
    pub fn with_replica(mut self, options: PgConnectOptions) -> Self {
        self.index.replicas.push(options);
        self
    }

    /// Starts it on a server of the test's own, which must outlive it.
    pub async fn start_at(self, options: PgConnectOptions) -> TestApp {
        let app = self.start_on(Database { name: "postgres".to_owned(), options }, false).await;
        app.index.migrate().await.expect("the migrations");
        app
    }

    /// Starts it on a database of its own.
    pub async fn start(self) -> TestApp {
        self.start_on(Database::migrated().await, true).await
    }

    /// Starts it on the database of another, which must outlive it: a second replica.
    pub async fn start_beside(self, other: &TestApp) -> TestApp {
        self.start_on(other.database.clone(), false).await
    }

    async fn start_on(mut self, database: Database, owner: bool) -> TestApp {
        let recorder = recorder();
        let lifecycle = Lifecycle::new();
        let probe = Probe::default();
        let embedder = Embedder::new(self.embed_config(&probe), &lifecycle).expect("an embedder");
        let proxy = if self.proxied { Some(Proxy::start(database.address())) } else { None };
        let undisturbed = proxy.is_none() && database.is_shared();
        let options = self.way_to(&database, proxy.as_ref());
        let index = Index::connect(options, self.index.clone()).await.expect("the test's database");
        let shared = Shared::new(&self.redis, &lifecycle).expect("settings of redis");
        let search = {
            let parts = Parts { index: index.clone(), embedder: embedder.clone(), shared: shared.clone() };
            Search::new(parts, self.search, &lifecycle)
        };
        let health = Arc::new(Health::new(embedder.clone(), shared.clone()));
        health.probe(&index).await;
        // Where nothing asks again, one late answer would stay.
        if undisturbed && !health.is_ready() {
            let asked_again = async || {
                health.probe(&index).await;
                health.is_ready()
            };
            eventually("the database gives a sign of life", asked_again).await;
        }
        if self.background {
            index.follow(&lifecycle);
            let probing = health::probe_task(Arc::clone(&health), index.clone(), lifecycle.stopping());
            lifecycle.spawn("health", probing);
        }
        let access = Access::new(search.clone(), self.open, self.without_key);
        let state = api::State {
            search: search.clone(),
            index: index.clone(),
            health: Arc::clone(&health),
            cors_origins: self.cors_origins.clone(),
            access: access.clone(),
            max_body_bytes: self.max_body_bytes,
            deadline: self.search.embed_timeout + 2 * self.index.pool.statement_timeout,
            limits: Limits::new(self.limits, shared),
            leaving: lifecycle.leaving(),
        };
        let door = AdminDoor { access, loopback: self.admin_on_loopback };
        let debug = api::debug::router(api::debug::State {
            search: search.clone(),
            max_body_bytes: self.max_body_bytes,
            deadline: self.search.embed_timeout + 2 * self.index.pool.statement_timeout,
            door: door.clone(),
            leaving: lifecycle.leaving(),
        });
        let debug = door.guard(admin::profiles(), lifecycle.leaving()).merge(debug);
        let opened = admin::Opened::default();
        opened.set(Arc::clone(&health), debug);
        let door = admin::State { metrics: recorder, leaving: lifecycle.leaving(), opened };
        let (front, admin) = (api::front(state), admin::router(door).into());
        TestApp { index, embedder, search, lifecycle, probe, database, front, admin, proxy, owner }
    }

    /// How the server reaches the database, and what it has to know of the way.
    fn way_to(&mut self, database: &Database, proxy: Option<&Proxy>) -> PgConnectOptions {
        let at = |port| database.options.clone().host("127.0.0.1").port(port);
        let mut options = proxy.map_or(database.options.clone(), |proxy| at(proxy.address().port()));
        if self.listens_directly {
            self.index.direct = Some(database.options.clone());
        }
        let undisturbed = proxy.is_none() && database.is_shared();
        let patience = &mut self.index.pool.acquire_timeout;
        if !undisturbed && *patience == UNHURRIED {
            *patience = index::pool::Config::default().acquire_timeout;
        }
        let everywhere = std::env::var(pooler::EVERYWHERE).ok().filter(|_| undisturbed);
        if let Some(address) = self.pooler.or(everywhere.map(|address| address.parse().expect("an address"))) {
            self.index.direct = Some(database.options.clone());
            self.index.pool.transaction_pooling = true;
            options = at(address.port());
        }
        options
    }

    fn embed_config(&self, probe: &Probe) -> embed::Config {
        let settings = Settings { data_dir: data_dir(), ..Settings::default() };
        let mut config = settings.embed().expect("embedding settings");
        if !self.real_model {
            config.backend = embed::Backend::Fake(FakeConfig {
                dimensions: self.dimensions,
                probe: probe.clone(),
                ..FakeConfig::default()
            });
        }
        config
    }
}

impl TestApp {
    /// The usual server: fake model, no background tasks.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// To change something before [`Builder::start`].
    pub fn builder() -> Builder {
        let mut index = index::Config::default();
        index.pool.acquire_timeout = UNHURRIED;
        // Tests hold the model; how long a search waits for it is the subject of few.
        let search = search::Config { embed_timeout: PATIENCE, ..search::Config::default() };
        Builder {
            real_model: false,
            dimensions: FakeConfig::default().dimensions,
            proxied: false,
            background: false,
            max_body_bytes: Settings::default().max_body_bytes,
            cors_origins: String::new(),
            index,
            pooler: None,
            listens_directly: false,
            search,
            redis: shared::Config::default(),
            open: Open::UntilFirstKey,
            without_key: Scopes::NONE,
            admin_on_loopback: true,
            limits: rate_limit::Config::default(),
        }
    }

    /// The network in front of the database.
    pub fn network(&self) -> &Proxy {
        self.proxy.as_ref().expect("a server built with behind_a_faulty_network")
    }

    /// Imports files, given by path and text.
    pub async fn ingest(&self, files: &[(&str, &str)], source: &str, version: &str) -> Report {
        let folder = folder_of(files);
        self.try_ingest(folder.path(), source, version).await.expect("an import")
    }

    /// Imports a folder.
    pub async fn try_ingest(&self, folder: &Path, source: &str, version: &str) -> Result<Report, Error> {
        let import = import_of(folder, source, version);
        import::run(&self.index, &self.embedder, &import, &Progress::default()).await
    }

    /// A key with these scopes for these sources (none: for all); its id and its secret.
    pub async fn make_key(&self, scopes: &[&str], sources: &[&str]) -> (i64, String) {
        let view = if sources.is_empty() {
            View::everything()
        } else {
            View::only(sources.iter().map(|&pattern| pattern.to_owned()).collect())
        };
        let new = NewKey {
            name: format!("{scopes:?} for {sources:?}"),
            scopes: Scopes::parse(scopes.iter().copied()).expect("scopes"),
            view,
            requests_per_minute: None,
            expires_at: None,
        };
        let (listed, secret) = self.index.create_key(&new).await.expect("a key");
        (listed.key.id, secret.reveal().to_owned())
    }

    /// Whether health says that Redis answers.
    pub async fn redis_is_used(&self) -> bool {
        self.get("/api/health").await.json()["checks"]["redis"]["latency_ms"].is_number()
    }

    /// One number from the database.
    pub async fn count(&self, sql: &'static str) -> i64 {
        let mut connection = self.database.connect().await;
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Statements beside the server.
    pub async fn execute(&self, sql: &'static str) {
        let mut connection = self.database.connect().await;
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The public door on a real socket; it closes with this value.
    pub async fn listen(&self) -> SocketAddr {
        self.listen_with(listen::Config::default()).await
    }

    /// The same with other bounds.
    pub async fn listen_with(&self, config: listen::Config) -> SocketAddr {
        let listener = listen::bind("bind", ([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let serving = listen::serve_task(listener, self.front.clone(), config, self.lifecycle.clone());
        self.lifecycle.spawn("api", serving);
        address
    }

    async fn finish(&self) {
        self.lifecycle.stop();
        self.probe.release();
        eventually("every tracked task has ended", async || self.lifecycle.tasks() == 0).await;
        // A silent network would hold an orderly close for ever.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.index.close()).await;
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                if failing {
                    self.lifecycle.stop();
                } else {
                    self.finish().await;
                }
                if self.owner && !failing {
                    self.database.drop_now().await;
                }
            });
        });
    }
}

/// An import of `folder` as the command line would start it.
pub fn import_of(folder: &Path, source: &str, version: &str) -> Import {
    Import {
        material: Material::Path { path: folder.to_owned(), max_file_bytes: Settings::default().max_file_bytes },
        target: Target {
            source_id: source.to_owned(),
            version: version.to_owned(),
            title: source.to_owned(),
            url: String::new(),
        },
        base_url: String::new(),
    }
}

/// A folder with these files.
pub fn folder_of(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (path, text) in files {
        write(folder.path(), path, text);
    }
    folder
}

/// Writes one file, with the folders above it.
pub fn write(folder: &Path, path: &str, text: impl AsRef<[u8]>) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().expect("a folder above")).expect("a folder");
    std::fs::write(path, text).expect("a file");
}

/// What `make setup` has filled.
pub fn data_dir() -> PathBuf {
    std::env::var_os("DOC_SERVER_DATA_DIR").map_or_else(|| Settings::default().data_dir, PathBuf::from)
}

/// Metrics are of the process, so all servers of a test run share them.
pub fn recorder() -> PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    install_tls();
    RECORDER.get_or_init(|| metrics::install().expect("the only recorder")).clone()
}

/// As the first line of `main` does.
pub fn install_tls() {
    static TLS: Once = Once::new();
    TLS.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
