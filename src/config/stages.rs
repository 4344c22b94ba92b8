//! What each stage is told: its own small configuration, made of the settings.

use std::{num::NonZeroU32, path::Path, time::Duration};

use super::{Settings, parts};
use crate::{
    api::rate_limit::{self, Proxies},
    cache::{self, shared},
    index::{self, cluster, keys::Scopes},
    runtime::{listen, shed, telemetry::export},
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
            direct: parts(&self.database_direct_url).find_map(parse),
            replicas: parts(&self.database_read_urls).filter_map(parse).collect(),
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
            shed: self.shed(),
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

    fn shed(&self) -> shed::Config {
        shed::Config {
            most: self.max_searches,
            least: self.shed_least_searches,
            target: Duration::from_millis(self.shed_target_ms),
            batch_percent: self.shed_batch_percent,
            import_percent: self.shed_import_percent,
        }
    }

    /// How often callers may ask.
    #[must_use]
    pub fn rate_limits(&self) -> rate_limit::Config {
        rate_limit::Config {
            // In the order of the groups.
            groups: [
                self.rate_limit_search_per_minute,
                self.rate_limit_sources_per_minute,
                self.rate_limit_documents_per_minute,
                self.rate_limit_keys_per_minute,
                self.rate_limit_health_per_minute,
            ]
            .map(NonZeroU32::new),
            address: NonZeroU32::new(self.rate_limit_address_per_minute),
            proxies: Proxies { trusted: self.trusted_proxies, header: self.trusted_proxy_header },
        }
    }

    /// The longest a request is worked on.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// What callers without a key may do.
    ///
    /// # Errors
    /// Says which name is no scope, and which there are.
    pub fn anonymous_scopes(&self) -> Result<Scopes, String> {
        Scopes::parse(parts(&self.anonymous_scopes))
    }

    /// How long requests are still served once the process is asked to stop.
    #[must_use]
    pub fn drain_delay(&self) -> Duration {
        Duration::from_secs(self.drain_delay_s)
    }

    /// Where spans go; nowhere when none.
    #[must_use]
    pub fn export(&self) -> Option<export::Config> {
        let (endpoint, sample_ratio) = (self.otlp_endpoint.clone(), self.otlp_sample_ratio);
        (!endpoint.is_empty()).then_some(export::Config { endpoint, sample_ratio })
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
