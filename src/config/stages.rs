//! What each stage is told: its own small configuration, made of the settings.

use std::{path::Path, time::Duration};

use super::{Settings, addresses};
use crate::{
    cache::{self, shared},
    index::{self, cluster},
    runtime::listen,
    search,
};

impl Settings {
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

    /// The front door's bounds. Its certificate is read when it opens.
    #[must_use]
    pub fn listen(&self) -> listen::Config {
        listen::Config {
            max_connections: self.listen_max_connections,
            first_byte_timeout: Duration::from_millis(self.listen_first_byte_timeout_ms),
            header_timeout: Duration::from_millis(self.listen_header_timeout_ms),
            idle_timeout: Duration::from_secs(self.listen_idle_timeout_s),
            body_timeout: Duration::from_secs(self.listen_body_timeout_s),
            write_timeout: Duration::from_secs(self.listen_write_timeout_s),
            max_header_bytes: self.listen_max_header_bytes,
            http2: listen::Http2 {
                negotiated: self.listen_http2,
                cleartext: self.listen_http2_cleartext,
                max_streams: self.listen_http2_streams,
                stream_window: self.listen_http2_stream_window_bytes,
                connection_window: self.listen_http2_connection_window_bytes,
            },
            handshake_timeout: Duration::from_millis(self.tls_handshake_timeout_ms),
            ..listen::Config::default()
        }
    }

    /// The certificate's file and its key's, when the front door speaks TLS.
    #[must_use]
    pub fn tls_files(&self) -> Option<(&Path, &Path)> {
        self.tls_certificate.as_deref().zip(self.tls_key.as_deref())
    }
}
