//! Values that cannot be used, and settings that contradict one another: refused at start, both named.

use super::{EmbedProvider, Error, Settings, parts};
use crate::{
    index::{self, keys::Scope},
    runtime::telemetry::Filter,
};

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
        if let Err(message) = check_origins(&self.cors_origins) {
            return Err(Error::Invalid { setting: "cors_origins", message });
        }
        if self
            .anonymous_scopes()
            .map_err(|message| Error::Invalid { setting: "anonymous_scopes", message })?
            .allow(Scope::Admin)
        {
            return invalid("anonymous_scopes", "admin cannot be given to callers without a key; see insecure_open");
        }
        self.check_load()?;
        if self.embed_provider == EmbedProvider::Remote && (self.embed_url.is_empty() || self.embed_model.is_empty()) {
            return invalid("embed_provider", "remote needs embed_url and embed_model");
        }
        if self.model_hub.is_empty() != self.model_manifest.is_none() {
            return invalid("model_hub", "needs model_manifest beside it, and the other way round");
        }
        self.check_runtime()?;
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

    fn check_runtime(&self) -> Result<(), Error> {
        /// Longer, and too little of what orchestrators wait (30 s) is left for requests and the database.
        const LONGEST_DRAIN_S: u64 = 10;
        let invalid = |setting, message: &str| Err(Error::Invalid { setting, message: message.to_owned() });
        if let Err(error) = Filter::parse(&self.log_level) {
            return invalid("log_level", &error.to_string());
        }
        if self.drain_delay_s > LONGEST_DRAIN_S {
            return invalid("drain_delay_s", "set 0 to 10: the whole stop must fit into 25 seconds");
        }
        if !(0.0..=1.0).contains(&self.otlp_sample_ratio) {
            return invalid("otlp_sample_ratio", "set 0 to 1");
        }
        let endpoint = &self.otlp_endpoint;
        if !endpoint.is_empty() && !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return invalid("otlp_endpoint", "must begin with http:// or https://");
        }
        if endpoint.contains(['@', '?', '#']) {
            return invalid("otlp_endpoint", "is an address alone; keys go into OTEL_EXPORTER_OTLP_HEADERS");
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
        Ok(())
    }

    fn check_load(&self) -> Result<(), Error> {
        let invalid = |setting, message: &str| Err(Error::Invalid { setting, message: message.to_owned() });
        if self.max_searches == 0 {
            return invalid("max_searches", "set at least 1");
        }
        if self.shed_least_searches == 0 {
            return invalid("shed_least_searches", "set at least 1");
        }
        if self.shed_least_searches > self.max_searches {
            let (least, most) = (self.shed_least_searches, self.max_searches);
            let message = format!("is {least}, more than max_searches, which is {most}; set it to that or less");
            return Err(Error::Invalid { setting: "shed_least_searches", message });
        }
        if !(1..=10_000).contains(&self.shed_target_ms) {
            return invalid("shed_target_ms", "set 1 to 10000");
        }
        for (setting, percent) in
            [("shed_batch_percent", self.shed_batch_percent), ("shed_import_percent", self.shed_import_percent)]
        {
            if !(1..=100).contains(&percent) {
                return invalid(setting, "set 1 to 100");
            }
        }
        if !(1..=600_000).contains(&self.request_timeout_ms) {
            return invalid("request_timeout_ms", "set 1 to 600000");
        }
        if self.trusted_proxies > 16 {
            return invalid("trusted_proxies", "is a number of proxies in a row; set 0 to 16");
        }
        Ok(())
    }

    /// The addresses beside `database_url`.
    fn parse_databases(&self) -> Result<(), Error> {
        for (setting, urls) in
            [("database_direct_url", &self.database_direct_url), ("database_read_urls", &self.database_read_urls)]
        {
            for url in parts(urls) {
                if let Err(error) = index::parse_url(url) {
                    return Err(Error::Invalid { setting, message: error });
                }
            }
        }
        Ok(())
    }
}

/// Whether this can be an origin: a scheme, a host and maybe a port, as browsers send it; or `*`, which stands alone.
///
/// # Errors
/// Says which is none.
fn check_origins(origins: &str) -> Result<(), String> {
    let list: Vec<&str> = origins.split(',').map(str::trim).filter(|origin| !origin.is_empty()).collect();
    for origin in &list {
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://")).unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
        let all = *origin == "*" && list.len() == 1;
        if !all && (host.is_empty() || !host.chars().all(plain)) {
            return Err(format!("{origin:?} is no origin; set addresses such as https://docs.example.org, or * alone"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::Secret, *};

    #[test]
    fn what_contradicts_is_refused_and_both_are_named() {
        let usual = Settings::default;
        let redis = || "redis://127.0.0.1".to_owned();
        let cases = [
            (Settings { max_searches: 2, shed_least_searches: 8, ..usual() }, ["shed_least_searches", "max_searches"]),
            (
                Settings { redis_url: Secret(redis()), cache_ttl_s: 7_200, cache_shared_ttl_s: 3_600, ..usual() },
                ["cache_ttl_s", "cache_shared_ttl_s"],
            ),
            (
                Settings { database_leak_after_ms: 900, database_statement_timeout_ms: 1_000, ..usual() },
                ["database_leak_after_ms", "database_statement_timeout_ms"],
            ),
        ];
        for (settings, named) in cases {
            let told = settings.check().expect_err("a contradiction").to_string();
            assert!(named.iter().all(|name| told.contains(name)), "{told}");
        }
        assert!(usual().check().is_ok());
        assert!(Settings { log_level: "dbug".to_owned(), ..usual() }.check().is_err(), "at the door, not on the way");
    }

    #[test]
    fn only_origins_are_taken() {
        for good in ["", "*", "https://a.example", "http://localhost:3000, https://b.example"] {
            assert_eq!(check_origins(good), Ok(()), "{good}");
        }
        for bad in ["a.example", "https://a.example/", "*, https://a.example", "null", "https://"] {
            assert!(check_origins(bad).is_err(), "{bad}");
        }
    }
}
