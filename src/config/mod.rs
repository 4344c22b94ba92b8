//! Settings: defaults, then the settings file, then `DOC_SERVER_*` in the environment, then flags; the later wins.
//!
//! Every setting is one key of [`Settings`], with the same name in the file (`data_dir = "…"`), in the environment
//! (`DOC_SERVER_DATA_DIR`) and as a flag where there is one (`--data-dir`). An unknown key or a value that cannot be used
//! is refused at start with the key's name.

mod check;
mod defaults;
mod given;
mod stages;
mod unreadable;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

pub use self::given::Given;

use crate::{api::rate_limit::ProxyHeader, cache::shared, embed, runtime::telemetry::LogFormat};

/// Variables of the same prefix that are not settings: they belong to the tests, to the choice of the file, and to Kubernetes,
/// which describes a Service called `doc-server` to every container beside it.
const OTHER_VARIABLES: [&str; 4] = ["DOC_SERVER_TEST_", "DOC_SERVER_CONFIG", "DOC_SERVER_SERVICE_", "DOC_SERVER_PORT"];

/// Every setting.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct Settings {
    /// Where the API listens.
    pub bind: SocketAddr,
    /// Where metrics and probes listen.
    pub admin_bind: SocketAddr,
    /// Connections that one door serves at once.
    pub listen_max_connections: usize,
    /// The longest a new connection sends nothing.
    pub listen_first_byte_timeout_ms: u64,
    /// The longest the head of a request takes.
    pub listen_header_timeout_ms: u64,
    /// The longest a connection is kept between requests.
    pub listen_idle_timeout_s: u64,
    /// The longest the body of a request takes.
    pub listen_body_timeout_s: u64,
    /// The longest a caller takes nothing of its answer.
    pub listen_write_timeout_s: u64,
    /// The largest head of a request.
    pub listen_max_header_bytes: usize,
    /// HTTP/2 for callers who agree on it over TLS.
    pub listen_http2: bool,
    /// HTTP/2 without TLS for callers who begin with it.
    pub listen_http2_cleartext: bool,
    /// Requests open at once on one HTTP/2 connection.
    pub listen_http2_streams: u32,
    /// Bytes of one HTTP/2 request body on their way.
    pub listen_http2_stream_window_bytes: u32,
    /// Bytes of all bodies of an HTTP/2 connection on their way.
    pub listen_http2_connection_window_bytes: u32,
    /// PEM file of the certificate and its chain: the API then speaks TLS.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub tls_key: Option<PathBuf>,
    /// The longest a TLS handshake takes.
    pub tls_handshake_timeout_ms: u64,
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
    /// Searches that are computed at once: the limit that follows how long they take is never more.
    pub max_searches: usize,
    /// Nor less than this.
    pub shed_least_searches: usize,
    /// While searches take less on average, none is turned away before `max_searches`.
    pub shed_target_ms: u64,
    /// Batch work is let in while less than this share of the limit is in use.
    pub shed_batch_percent: u8,
    /// The same of imports.
    pub shed_import_percent: u8,
    /// The longest a request is worked on.
    pub request_timeout_ms: u64,
    /// Searches a minute for each key, or address without one; 0 sets no limit.
    pub rate_limit_search_per_minute: u32,
    /// The same of `/api/sources`.
    pub rate_limit_sources_per_minute: u32,
    /// The same of pages and chunks together.
    pub rate_limit_documents_per_minute: u32,
    /// Likewise, of requests to keys.
    pub rate_limit_keys_per_minute: u32,
    /// The same of `/api/health`.
    pub rate_limit_health_per_minute: u32,
    /// Requests a minute for each address on all these routes but health, whatever keys it uses; 0 sets no limit.
    pub rate_limit_address_per_minute: u32,
    /// Proxies before this server that say who asked them.
    pub trusted_proxies: usize,
    /// Where they say it: `x-forwarded-for` or `forwarded`.
    pub trusted_proxy_header: ProxyHeader,
    /// The largest file that is imported.
    pub max_file_bytes: u64,
    /// The largest request body.
    pub max_body_bytes: usize,
    /// Origins whose pages may call the API from a browser, with commas; `*` for all, empty for none.
    pub cors_origins: String,
    /// Callers without a key may do everything, on any address.
    pub insecure_open: bool,
    /// Scopes of callers without a key, comma-separated; empty gives them none.
    pub anonymous_scopes: String,
    /// How long replaced documents stay readable for searches and cursors that began before.
    pub retention_s: u64,
    /// `error`, `warn`, `info`, `debug`, `trace`, or `target=level` pairs.
    pub log_level: String,
    /// `json` or `pretty`.
    pub log_format: LogFormat,
    /// How long requests are still served after SIGTERM, while readiness already says no.
    pub drain_delay_s: u64,
    /// Whether allocations are sampled for heap profiles.
    pub heap_profiling: bool,
    /// Where spans go: `http://host:4318`, an OpenTelemetry collector; empty sends none.
    pub otlp_endpoint: String,
    /// The part of the requests that are traced, 0 to 1, where the caller has not decided.
    pub otlp_sample_ratio: f64,
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
/// The parts of a comma-separated list.
fn parts(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty())
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
        Self::read_given(file, flags).map(|(settings, _)| settings)
    }

    /// The same, and what of them was given: to tell later what has changed.
    ///
    /// # Errors
    /// As [`Settings::read`].
    pub fn read_given(file: Option<&Path>, flags: &[(&'static str, String)]) -> Result<(Self, Given), Error> {
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
        let unreadable = |error: config::ConfigError| Error::Unreadable(unreadable::plainly(&error.to_string()));
        let read = builder.build().map_err(unreadable)?;
        let given = Given::of(&read);
        let settings: Self = read.try_deserialize().map_err(unreadable)?;
        settings.check()?;
        Ok((settings, given))
    }
}
