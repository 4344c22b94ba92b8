//! Where Redis is and how it is used. Settings that contradict each other are refused with both names.

use std::{fmt, time::Duration};

use deadpool_redis::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, io::tcp::TcpSettings};
use serde::Deserialize;

/// What runs at the addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One server, or one address that always leads to the primary.
    #[default]
    Single,
    /// Nodes of a cluster, any of which tells the others.
    Cluster,
    /// Sentinels, which tell the primary.
    Sentinel,
}

/// Where Redis is and how it is used.
#[derive(Clone)]
pub struct Config {
    /// `redis://` or `rediss://` addresses, with commas between several; empty uses no Redis.
    pub urls: String,
    /// What runs there.
    pub mode: Mode,
    /// The name under which sentinels know the primary.
    pub sentinel_master: String,
    /// The password of the sentinels themselves; empty for none.
    pub sentinel_password: String,
    /// Connections that are held open, 2 to 64: all but one for reading, the last for writing.
    pub connections: usize,
    /// The longest a lookup waits, 5 ms to 1 s.
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            urls: String::new(),
            mode: Mode::Single,
            sentinel_master: String::new(),
            sentinel_password: String::new(),
            // Two to read, one to write: a multiplexed connection carries many lookups at once.
            connections: 3,
            timeout: Duration::from_millis(50),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Addresses and passwords are left out: an address may hold a password.
        formatter
            .debug_struct("Config")
            .field("mode", &self.mode)
            .field("connections", &self.connections)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// A setting that cannot be used. Never holds an address, which may hold a password.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {message}")]
pub struct Error {
    /// The key.
    pub setting: &'static str,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl Error {
    pub(super) fn new(setting: &'static str, message: impl Into<String>) -> Self {
        Self { setting, message: message.into() }
    }
}

impl Config {
    /// Whether Redis is used at all.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        !self.urls.trim().is_empty()
    }

    /// Refuses what cannot work whatever the world does.
    ///
    /// # Errors
    /// Names the setting, or both of those that contradict each other.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |setting, message: &str| Err(Error::new(setting, message));
        if self.mode == Mode::Sentinel && self.sentinel_master.is_empty() {
            return refuse("redis_mode", "sentinel needs redis_sentinel_master");
        }
        if self.mode != Mode::Sentinel && !self.sentinel_master.is_empty() {
            return refuse("redis_sentinel_master", "is set, but redis_mode is not sentinel");
        }
        if self.mode != Mode::Sentinel && !self.sentinel_password.is_empty() {
            return refuse("redis_sentinel_password", "is set, but redis_mode is not sentinel");
        }
        if !(2..=64).contains(&self.connections) {
            return refuse("redis_connections", "set 2 to 64");
        }
        if !(5..=1_000).contains(&self.timeout.as_millis()) {
            return refuse("redis_timeout_ms", "set 5 to 1000");
        }
        if !self.is_enabled() {
            return match self.mode {
                Mode::Single => Ok(()),
                _ => refuse("redis_mode", "needs redis_url beside it"),
            };
        }
        let addresses = self.addresses()?;
        if self.mode == Mode::Single && addresses.len() > 1 {
            return refuse("redis_url", "holds several addresses, but redis_mode is single; set cluster or sentinel");
        }
        if self.mode == Mode::Cluster && addresses.iter().any(|address| address.redis_settings().db() != 0) {
            return refuse("redis_url", "names a database, but redis_mode is cluster, which has only database 0");
        }
        Ok(())
    }

    /// The addresses, with the socket options that small questions need.
    pub(super) fn addresses(&self) -> Result<Vec<ConnectionInfo>, Error> {
        let mut addresses = Vec::new();
        for url in self.urls.split(',').map(str::trim) {
            // The parser's own message may repeat parts of the address.
            let unusable =
                || Error::new("redis_url", "an address is not redis://[user:password@]host[:port][/database]");
            let address = url.into_connection_info().map_err(|_| unusable())?;
            if matches!(address.addr(), ConnectionAddr::Unix(_)) && self.mode != Mode::Single {
                return Err(Error::new("redis_url", "is a Unix socket, but redis_mode is not single"));
            }
            addresses.push(address.set_tcp_settings(socket_options()));
        }
        if addresses.windows(2).any(|pair| is_tls(&pair[0]) != is_tls(&pair[1])) {
            return Err(Error::new("redis_url", "mixes redis:// and rediss://"));
        }
        Ok(addresses)
    }
}

/// Without it the kernel holds a small question back until the answer to the one before has come.
pub(super) fn socket_options() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

pub(super) fn is_tls(address: &ConnectionInfo) -> bool {
    matches!(address.addr(), ConnectionAddr::TcpTls { .. })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    fn config(urls: &str, mode: Mode) -> Config {
        let sentinel_master = if mode == Mode::Sentinel { "docs".to_owned() } else { String::new() };
        let timeout = Duration::from_millis(50);
        Config { urls: urls.to_owned(), mode, sentinel_master, connections: 3, timeout, ..Config::default() }
    }

    #[test]
    fn usable_settings_are_accepted() {
        for (urls, mode) in [
            ("", Mode::Single),
            ("redis://127.0.0.1", Mode::Single),
            ("rediss://user:secret@cache:6380/2", Mode::Single),
            ("redis://one:1, redis://two:2", Mode::Cluster),
            ("redis://:secret@one:1/3,redis://two:2", Mode::Sentinel),
        ] {
            config(urls, mode).check().unwrap_or_else(|error| panic!("{urls}: {error}"));
        }
    }

    #[test]
    fn contradictions_are_refused_by_the_names_of_both() {
        let lone_master = Config { sentinel_master: "docs".to_owned(), ..config("redis://one", Mode::Single) };
        let nameless = Config { sentinel_master: String::new(), ..config("redis://one", Mode::Sentinel) };
        for (config, names) in [
            (config("redis://one,redis://two", Mode::Single), ["redis_url", "redis_mode"]),
            (config("redis://one/1", Mode::Cluster), ["redis_url", "redis_mode"]),
            (config("redis+unix:///run/redis", Mode::Cluster), ["redis_url", "redis_mode"]),
            (config("", Mode::Cluster), ["redis_mode", "redis_url"]),
            (lone_master, ["redis_sentinel_master", "redis_mode"]),
            (nameless, ["redis_mode", "redis_sentinel_master"]),
        ] {
            let message = config.check().unwrap_err().to_string();
            assert!(names.iter().all(|name| message.contains(name)), "{message}");
        }
    }

    #[test]
    fn secrets_are_never_printed() {
        let typo = config("redis//user:topsecret@cache", Mode::Single);
        assert!(!typo.check().unwrap_err().to_string().contains("topsecret"));
        let password =
            Config { sentinel_password: "topsecret".to_owned(), ..config("redis://:topsecret@c", Mode::Sentinel) };
        assert!(!format!("{password:?}").contains("topsecret"));
    }
}
