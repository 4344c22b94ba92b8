//! What each setting is when nobody says otherwise.

use std::{net::Ipv4Addr, path::PathBuf};

use super::{EmbedProvider, Secret, Settings};
use crate::{
    api::rate_limit::ProxyHeader,
    cache::{self, shared},
    embed, index,
    runtime::{listen, shed, telemetry::LogFormat},
    search,
};

impl Default for Settings {
    #[expect(clippy::too_many_lines, reason = "a line for each setting")]
    fn default() -> Self {
        let (pool, cache) = (index::pool::Config::default(), cache::Config::default());
        let (shed, door) = (shed::Config::default(), listen::Config::default());
        Self {
            bind: (Ipv4Addr::LOCALHOST, 8051).into(),
            admin_bind: (Ipv4Addr::LOCALHOST, 9051).into(),
            listen_max_connections: door.max_connections,
            listen_first_byte_timeout_ms: milliseconds(door.first_byte_timeout),
            listen_header_timeout_ms: milliseconds(door.header_timeout),
            listen_idle_timeout_s: door.idle_timeout.as_secs(),
            listen_body_timeout_s: door.body_timeout.as_secs(),
            listen_write_timeout_s: door.write_timeout.as_secs(),
            listen_max_header_bytes: door.max_header_bytes,
            listen_http2: door.http2.negotiated,
            listen_http2_cleartext: door.http2.cleartext,
            listen_http2_streams: door.http2.max_streams,
            listen_http2_stream_window_bytes: door.http2.stream_window,
            listen_http2_connection_window_bytes: door.http2.connection_window,
            tls_certificate: None,
            tls_key: None,
            tls_handshake_timeout_ms: milliseconds(door.handshake_timeout),
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
            max_searches: shed.most,
            shed_least_searches: shed.least,
            shed_target_ms: 100,
            shed_batch_percent: shed.batch_percent,
            shed_import_percent: shed.import_percent,
            request_timeout_ms: 24_000,
            rate_limit_search_per_minute: 0,
            rate_limit_sources_per_minute: 0,
            rate_limit_documents_per_minute: 0,
            rate_limit_keys_per_minute: 60,
            rate_limit_health_per_minute: 0,
            rate_limit_address_per_minute: 0,
            trusted_proxies: 0,
            trusted_proxy_header: ProxyHeader::default(),
            max_file_bytes: 5 * 1024 * 1024,
            max_body_bytes: 1024 * 1024,
            cors_origins: String::new(),
            insecure_open: false,
            anonymous_scopes: String::new(),
            retention_s: 15 * 60,
            log_level: "info".to_owned(),
            log_format: LogFormat::Pretty,
            drain_delay_s: 5,
            heap_profiling: false,
            otlp_endpoint: String::new(),
            otlp_sample_ratio: 0.1,
        }
    }
}

fn milliseconds(time: std::time::Duration) -> u64 {
    time.as_secs() * 1_000 + u64::from(time.subsec_millis())
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
