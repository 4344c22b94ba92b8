//! Values that cannot be used, and settings that contradict one another: refused at start, both named.

use super::{EmbedProvider, Error, Settings, addresses};
use crate::index;

impl Settings {
    /// Checks every value that has a range, and those that must fit together.
    ///
    /// # Errors
    /// Names the first setting that cannot be used, and what is allowed.
    pub(super) fn check(&self) -> Result<(), Error> {
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
        self.check_listener()
    }

    fn check_listener(&self) -> Result<(), Error> {
        let invalid = |setting, message: String| Err(Error::Invalid { setting, message });
        let ranges = [
            ("listen_max_connections", self.listen_max_connections as u64, 1, 1_000_000),
            ("listen_first_byte_timeout_ms", self.listen_first_byte_timeout_ms, 10, 3_600_000),
            ("listen_header_timeout_ms", self.listen_header_timeout_ms, 10, 3_600_000),
            ("listen_idle_timeout_s", self.listen_idle_timeout_s, 1, 86_400),
            ("listen_body_timeout_s", self.listen_body_timeout_s, 1, 86_400),
            ("listen_write_timeout_s", self.listen_write_timeout_s, 1, 86_400),
            // hyper reads 8 KiB at once, and takes no path beyond 64 KiB.
            ("listen_max_header_bytes", self.listen_max_header_bytes as u64, 8_192, 1 << 20),
            ("listen_http2_streams", self.listen_http2_streams.into(), 1, 100_000),
            // The protocol's own bounds.
            ("listen_http2_stream_window_bytes", self.listen_http2_stream_window_bytes.into(), 1_024, (1 << 31) - 1),
            (
                "listen_http2_connection_window_bytes",
                self.listen_http2_connection_window_bytes.into(),
                65_535,
                (1 << 31) - 1,
            ),
            ("tls_handshake_timeout_ms", self.tls_handshake_timeout_ms, 10, 3_600_000),
        ];
        for (setting, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return invalid(setting, format!("is {value}; set {least} to {most}"));
            }
        }
        if self.tls_certificate.is_some() != self.tls_key.is_some() {
            return invalid("tls_certificate", "needs tls_key beside it, and the other way round".to_owned());
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
}
