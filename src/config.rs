//! Settings: defaults, then the settings file, then `DOC_SERVER_*` in the environment, then flags; the later wins.
//!
//! Every setting is one key of [`Settings`], with the same name in the file (`data_dir = "…"`), in the environment
//! (`DOC_SERVER_DATA_DIR`) and as a flag where there is one (`--data-dir`). An unknown key or a value that cannot be used
//! is refused at start with the key's name.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    cache::{self, shared},
    embed,
    index::{self, cluster},
    runtime::{listen, telemetry::LogFormat},
    search,
};

/// Variables of the same prefix that are not settings: they belong to the tests, to the choice of the file, and to Kubernetes,
/// which describes a Service called `doc-server` to every container beside it.
const OTHER_VARIABLES: [&str; 4] = ["DOC_SERVER_TEST_", "DOC_SERVER_CONFIG", "DOC_SERVER_SERVICE_", "DOC_SERVER_PORT"];

/// Every setting.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the API listens.
    pub bind: SocketAddr,
    /// Where metrics and probes listen.
    pub admin_bind: SocketAddr,
    /// Holds the embedded database, the model and the libraries. Default: the user's data home, or
    /// `/var/lib/doc-server` as root.
    pub data_dir: PathBuf,
    /// `postgres://…`; empty runs the embedded database.
    pub database_url: String,
    /// The way past a pooler in transaction mode (`PgBouncer`), when `database_url` leads to one: listening, locks, migrations and index
    /// builds take it. Empty when there is no pooler.
    pub database_direct_url: String,
    /// Streaming replicas, comma-separated: searched in turn while they keep up.
    pub database_read_urls: String,
    /// How far a replica may lag and still be searched.
    pub database_replica_max_lag_ms: u64,
    /// Binaries of the embedded database. Default: `runtime/postgres` in the data directory.
    pub postgres_dir: Option<PathBuf>,
    /// Connections for searches.
    pub database_read_connections: u32,
    /// Connections for imports and administration.
    pub database_write_connections: u32,
    /// The longest a request waits for a connection.
    pub database_acquire_timeout_ms: u64,
    /// The longest a search statement runs.
    pub database_statement_timeout_ms: u64,
    /// A search that holds a connection longer is reported as a leak; a write may hold one twice as long.
    pub database_leak_after_ms: u64,
    /// Candidates an HNSW scan keeps.
    pub ef_search: u16,
    /// Lists an `IVFFlat` scan reads.
    pub ivfflat_probes: u16,
    /// `redis://…` or `rediss://…`, with commas between several; empty uses no Redis. May hold a password.
    pub redis_url: Secret,
    /// `single`, `cluster` or `sentinel`.
    pub redis_mode: shared::Mode,
    /// The name under which sentinels know the primary.
    pub redis_sentinel_master: String,
    /// The password of the sentinels themselves.
    pub redis_sentinel_password: Secret,
    /// Connections to Redis that are held open.
    pub redis_connections: usize,
    /// The longest a lookup in Redis takes.
    pub redis_timeout_ms: u64,
    /// `local`, `remote` or `fake` (for tests: no meaning, only words).
    pub embed_provider: EmbedProvider,
    /// `libonnxruntime.so`. Default: `runtime/onnxruntime` in the data directory.
    pub onnxruntime: Option<PathBuf>,
    /// Holds `model.onnx`, `model_int8.onnx` and the tokenizer. Default: `runtime/models/all-MiniLM-L6-v2` in the data
    /// directory.
    pub model_dir: Option<PathBuf>,
    /// Address below which the files of `model_manifest` are fetched when `model_dir` lacks them; empty fetches nothing.
    pub model_hub: String,
    /// Lists the model's files as `sha256sum` does: a checksum, two spaces, a path below `model_hub`.
    pub model_manifest: Option<PathBuf>,
    /// `int8` or `f32`.
    pub model_precision: embed::Precision,
    /// Texts the local model computes at once.
    pub embed_sessions: usize,
    /// Texts that may wait for the model.
    pub embed_queue_capacity: usize,
    /// The longest a search waits for its vector.
    pub embed_timeout_ms: u64,
    /// Base address of an OpenAI-style provider.
    pub embed_url: String,
    /// Its key.
    pub embed_api_key: Secret,
    /// Its model.
    pub embed_model: String,
    /// Numbers in its vectors; 0 takes what the first answer has.
    pub embed_dimensions: usize,
    /// Memory for answers; 0 keeps none.
    pub cache_bytes: u64,
    /// Memory for the vectors of queries; 0 keeps none.
    pub cache_vector_bytes: u64,
    /// How long an answer lives in this process.
    pub cache_ttl_s: u64,
    /// How much longer it is given, marked stale, while it cannot be made anew.
    pub cache_stale_s: u64,
    /// How long an answer lives in Redis.
    pub cache_shared_ttl_s: u64,
    /// Searches of the last run that are asked again at a start; 0 asks none.
    pub cache_warm_searches: usize,
    /// Different searches that are computed at once.
    pub max_searches: usize,
    /// The largest file that is imported.
    pub max_file_bytes: u64,
    /// The largest request body.
    pub max_body_bytes: usize,
    /// How long replaced documents stay readable for searches and cursors that began before.
    pub retention_s: u64,
    /// `error`, `warn`, `info`, `debug`, `trace`, or `target=level` pairs.
    pub log_level: String,
    /// `json` or `pretty`.
    pub log_format: LogFormat,
}

/// A value that is never printed.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.0.is_empty() { "unset" } else { "set" })
    }
}

/// Who embeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmbedProvider {
    /// The model of `model_dir`, in this process.
    #[default]
    Local,
    /// The provider at `embed_url`.
    Remote,
    /// Hashed words: for tests.
    Fake,
}

impl Default for Settings {
    fn default() -> Self {
        let (pool, cache) = (index::pool::Config::default(), cache::Config::default());
        Self {
            bind: (Ipv4Addr::LOCALHOST, 8051).into(),
            admin_bind: (Ipv4Addr::LOCALHOST, 9051).into(),
            data_dir: default_data_dir(),
            database_url: String::new(),
            database_direct_url: String::new(),
            database_read_urls: String::new(),
            database_replica_max_lag_ms: 1_000,
            postgres_dir: None,
            database_read_connections: pool.read_connections,
            database_write_connections: pool.write_connections,
            database_acquire_timeout_ms: 250,
            database_statement_timeout_ms: 10_000,
            database_leak_after_ms: 30_000,
            ef_search: pool.ef_search,
            ivfflat_probes: pool.ivfflat_probes,
            redis_url: Secret::default(),
            redis_mode: shared::Mode::Single,
            redis_sentinel_master: String::new(),
            redis_sentinel_password: Secret::default(),
            redis_connections: 3,
            redis_timeout_ms: 50,
            embed_provider: EmbedProvider::Local,
            onnxruntime: None,
            model_dir: None,
            model_hub: String::new(),
            model_manifest: None,
            model_precision: embed::Precision::Int8,
            embed_sessions: 2,
            embed_queue_capacity: 1_024,
            embed_timeout_ms: 3_000,
            embed_url: String::new(),
            embed_api_key: Secret::default(),
            embed_model: String::new(),
            embed_dimensions: 0,
            cache_bytes: cache.result_bytes,
            cache_vector_bytes: cache.vector_bytes,
            cache_ttl_s: cache.lifetime.ttl.as_secs(),
            cache_stale_s: cache.lifetime.stale.as_secs(),
            cache_shared_ttl_s: cache.shared_ttl.as_secs(),
            cache_warm_searches: search::Config::default().warm_searches,
            max_searches: search::Config::default().max_flights,
            max_file_bytes: 5 * 1024 * 1024,
            max_body_bytes: 1024 * 1024,
            retention_s: 15 * 60,
            log_level: "info".to_owned(),
            log_format: LogFormat::Pretty,
        }
    }
}

/// The parts of a comma-separated list.
fn addresses(urls: &str) -> impl Iterator<Item = &str> {
    urls.split(',').map(str::trim).filter(|url| !url.is_empty())
}

/// The data home of the user, or the system's for root: Postgres runs as another account there, which cannot enter
/// `/root`.
fn default_data_dir() -> PathBuf {
    let home = || std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if root {
        return PathBuf::from("/var/lib/doc-server");
    }
    let given = std::env::var_os("XDG_DATA_HOME").filter(|folder| !folder.is_empty());
    given.map_or_else(|| home().join(".local/share"), PathBuf::from).join("doc-server")
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file, the environment or a flag does not parse.
    #[error("bad settings: {0}")]
    Unreadable(String),
    /// A value out of its range.
    #[error("{setting}: {message}")]
    Invalid {
        /// The key.
        setting: &'static str,
        /// What is wrong and what is allowed.
        message: String,
    },
}

impl From<shared::Error> for Error {
    fn from(error: shared::Error) -> Self {
        Self::Invalid { setting: error.setting, message: error.message }
    }
}

impl Settings {
    /// Reads them: `file` (it must exist when named), the environment, then `flags`.
    ///
    /// # Errors
    /// Names the key and the reason.
    pub fn read(file: Option<&Path>, flags: &[(&'static str, String)]) -> Result<Self, Error> {
        let mut builder = config::Config::builder();
        if let Some(file) = file {
            builder = builder.add_source(config::File::from(file).format(config::FileFormat::Toml));
        }
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("DOC_SERVER_"))
            .filter(|(name, _)| !OTHER_VARIABLES.iter().any(|other| name.starts_with(other)))
            .collect();
        let environment = config::Environment::with_prefix("DOC_SERVER")
            .prefix_separator("_")
            .try_parsing(true)
            .source(Some(variables));
        builder = builder.add_source(environment);
        for (key, value) in flags {
            builder =
                builder.set_override(*key, value.as_str()).map_err(|error| Error::Unreadable(error.to_string()))?;
        }
        let settings: Self = builder
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|error| Error::Unreadable(error.to_string()))?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), Error> {
        let invalid = |setting, message: &str| Err(Error::Invalid { setting, message: message.to_owned() });
        if self.database_read_connections < 2 {
            return invalid("database_read_connections", "a hybrid search needs two connections; set at least 2");
        }
        if self.database_write_connections < 2 {
            return invalid("database_write_connections", "set at least 2");
        }
        if self.database_leak_after_ms <= self.database_statement_timeout_ms {
            return invalid(
                "database_leak_after_ms",
                "is not above database_statement_timeout_ms: a long search would be reported as a leak",
            );
        }
        for (setting, value) in
            [("database_direct_url", &self.database_direct_url), ("database_read_urls", &self.database_read_urls)]
        {
            if !value.is_empty() && self.database_url.is_empty() {
                return invalid(setting, "needs database_url: the embedded database has neither pooler nor replicas");
            }
        }
        self.parse_databases()?;
        if !(1..=1_000).contains(&self.ef_search) {
            return invalid("ef_search", "set 1 to 1000");
        }
        if !(1..=32_768).contains(&self.ivfflat_probes) {
            return invalid("ivfflat_probes", "set 1 to 32768");
        }
        if self.retention_s < 60 {
            return invalid(
                "retention_s",
                "set at least 60: searches that began before a publish read the replaced documents",
            );
        }
        self.check_caches()?;
        if self.embed_provider == EmbedProvider::Remote && (self.embed_url.is_empty() || self.embed_model.is_empty()) {
            return invalid("embed_provider", "remote needs embed_url and embed_model");
        }
        if self.model_hub.is_empty() != self.model_manifest.is_none() {
            return invalid("model_hub", "needs model_manifest beside it, and the other way round");
        }
        if self.bind == self.admin_bind && self.bind.port() != 0 {
            return invalid("admin_bind", "is the same address as bind; set another port");
        }
        Ok(())
    }

    fn check_caches(&self) -> Result<(), Error> {
        /// A day: an answer that is wrong for a reason nobody thought of is gone by then.
        const LONGEST_S: u64 = 86_400;
        self.redis().check()?;
        let invalid = |setting, message: String| Err(Error::Invalid { setting, message });
        let times = [
            ("cache_ttl_s", self.cache_ttl_s, 1),
            ("cache_stale_s", self.cache_stale_s, 0),
            ("cache_shared_ttl_s", self.cache_shared_ttl_s, 1),
        ];
        for (setting, seconds, least) in times {
            if !(least..=LONGEST_S).contains(&seconds) {
                return invalid(setting, format!("is {seconds}; set {least} to {LONGEST_S} seconds"));
            }
        }
        if self.redis().is_enabled() && self.cache_ttl_s > self.cache_shared_ttl_s {
            let (own, shared) = (self.cache_ttl_s, self.cache_shared_ttl_s);
            let message =
                format!("is {own}, longer than cache_shared_ttl_s, which is {shared}; set it to that or less");
            return invalid("cache_ttl_s", message);
        }
        if self.max_searches == 0 {
            return invalid("max_searches", "set at least 1".to_owned());
        }
        Ok(())
    }

    /// The embedded database's settings: it has room for three processes with such pools, and for a few people.
    #[must_use]
    pub fn cluster(&self) -> cluster::Config {
        /// Three that Postgres keeps for superusers, and as many for psql and the locks of imports.
        const OTHERS: u32 = 20;
        let postgres = self.postgres_dir.clone().unwrap_or_else(|| self.data_dir.join("runtime/postgres"));
        let mut cluster = cluster::Config::new(self.data_dir.join("cluster"), postgres);
        let wanted = self.index().pool.connections().saturating_mul(3).saturating_add(OTHERS);
        cluster.max_connections = cluster.max_connections.max(wanted);
        cluster
    }

    /// The addresses beside `database_url`.
    fn parse_databases(&self) -> Result<(), Error> {
        for (setting, urls) in
            [("database_direct_url", &self.database_direct_url), ("database_read_urls", &self.database_read_urls)]
        {
            for url in addresses(urls) {
                if let Err(error) = index::parse_url(url) {
                    return Err(Error::Invalid { setting, message: error });
                }
            }
        }
        Ok(())
    }

    /// The index stage's settings.
    #[must_use]
    pub fn index(&self) -> index::Config {
        // Checked before: an address that does not parse is refused at start.
        let parse = |url: &str| index::parse_url(url).ok();
        index::Config {
            direct: addresses(&self.database_direct_url).find_map(parse),
            replicas: addresses(&self.database_read_urls).filter_map(parse).collect(),
            pool: index::pool::Config {
                leak_after: Duration::from_millis(self.database_leak_after_ms),
                transaction_pooling: !self.database_direct_url.is_empty(),
                replica_max_lag: Duration::from_millis(self.database_replica_max_lag_ms),
                read_connections: self.database_read_connections,
                write_connections: self.database_write_connections,
                acquire_timeout: Duration::from_millis(self.database_acquire_timeout_ms),
                statement_timeout: Duration::from_millis(self.database_statement_timeout_ms),
                ef_search: self.ef_search,
                ivfflat_probes: self.ivfflat_probes,
            },
        }
    }

    /// The shared cache tier's settings.
    #[must_use]
    pub fn redis(&self) -> shared::Config {
        shared::Config {
            urls: self.redis_url.0.clone(),
            mode: self.redis_mode,
            sentinel_master: self.redis_sentinel_master.clone(),
            sentinel_password: self.redis_sentinel_password.0.clone(),
            connections: self.redis_connections,
            timeout: Duration::from_millis(self.redis_timeout_ms),
        }
    }

    /// The search path's settings.
    #[must_use]
    pub fn search(&self) -> search::Config {
        search::Config {
            embed_timeout: Duration::from_millis(self.embed_timeout_ms),
            cache: self.cache(),
            max_flights: self.max_searches,
            warm_searches: self.cache_warm_searches,
            ef_search: self.ef_search,
            ivfflat_probes: self.ivfflat_probes,
        }
    }

    fn cache(&self) -> cache::Config {
        cache::Config {
            result_bytes: self.cache_bytes,
            vector_bytes: self.cache_vector_bytes,
            lifetime: cache::Lifetime {
                ttl: Duration::from_secs(self.cache_ttl_s),
                stale: Duration::from_secs(self.cache_stale_s),
            },
            shared_ttl: Duration::from_secs(self.cache_shared_ttl_s),
        }
    }

    /// The longest a request is worked on: its vector, then two statements that each take all they may, with room to answer.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.embed_timeout_ms + 2 * self.database_statement_timeout_ms + 1_000)
    }

    /// The front door's bounds.
    #[must_use]
    pub fn listen(&self) -> listen::Config {
        listen::Config::default()
    }
}
