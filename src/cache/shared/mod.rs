//! The tier that replicas have in common: Redis, as one server, a cluster, or the primary that sentinels name.
//!
//! Redis is never needed. A lookup that fails, or takes longer than the timeout (50 ms), is an [`Lookup::Error`] to be
//! treated as a miss; writes are queued and dropped when they cannot be made. The server starts with Redis absent. After a
//! few failures in a row the breaker opens: lookups then fail at once, and the keeper asks once a second whether Redis is
//! back. Bounded: a fixed number of connections, 1,024 queued writes of 16 MiB together.

mod clear;
mod config;
mod connect;
mod held;
mod keeper;
mod lease;
mod link;
mod name;
mod script;
mod writer;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use deadpool_redis::redis::{Cmd, Value};

pub use self::{
    config::{Config, Error, Mode},
    lease::{Lease, Token},
    name::Name,
};
use self::{
    connect::Purpose,
    link::{Failure, Link},
};
pub use super::codec::{Kind, Stored};
use super::codec::{decode, encode};
use crate::runtime::lifecycle::Lifecycle;

/// Names looked up in one round trip: a few hundred kB of answers.
const LOOKUPS_AT_ONCE: usize = 64;

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The value.
    Hit(Stored),
    /// There is none that can be believed.
    Miss,
    /// Redis could not be asked, or did not answer in time.
    Error,
}

/// How Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It answers.
    Healthy {
        /// How long the last probe took.
        latency: Duration,
    },
    /// It is left alone until a probe goes well.
    Away {
        /// Why, for operators; holds no password.
        reason: String,
    },
}

/// Redis could not be asked, or did not answer.
#[derive(Debug, thiserror::Error)]
#[error("redis cannot be used: {0}")]
pub struct Away(pub String);

/// The cheap handle to the shared tier.
#[derive(Clone)]
pub struct Shared {
    link: Arc<Link>,
    writes: writer::Queue,
}

impl Shared {
    /// A handle that is not connected yet, and its two background tasks; none when no address is configured. Needs a
    /// runtime.
    ///
    /// # Errors
    /// When the settings cannot work whatever the world does.
    pub fn new(config: &Config, lifecycle: &Lifecycle) -> Result<Option<Self>, Error> {
        config.check()?;
        if !config.is_enabled() {
            return Ok(None);
        }
        let link = Arc::new(Link::new(config)?);
        let (writes, queued) = writer::queue();
        lifecycle.spawn("redis", keeper::keeper_task(Arc::clone(&link), lifecycle.stopping()));
        lifecycle.spawn("redis writes", writer::writer_task(Arc::clone(&link), queued, lifecycle.stopping()));
        Ok(Some(Self { link, writes }))
    }

    /// What is stored under `name`. Takes no longer than the timeout.
    ///
    /// # Cancel safety
    /// Safe: the answer is thrown away when it comes.
    pub async fn get(&self, name: &Name) -> Lookup {
        let Some(mut share) = self.link.share(Purpose::Reads) else { return Lookup::Error };
        let answer = share.line.ask(&Cmd::get(name.as_str())).await;
        match self.link.settle(Purpose::Reads, &share, answer) {
            Err(Failure) => Lookup::Error,
            Ok(Value::Nil) => Lookup::Miss,
            Ok(value) => believed(name, value).map_or_else(
                || {
                    // A broken value, or a connection on which answers went out of step.
                    self.link.strike(Purpose::Reads, &share);
                    Lookup::Miss
                },
                Lookup::Hit,
            ),
        }
    }

    /// What is stored under each of many names, off the request path: a second for each 64 of them at most. What cannot be
    /// looked up is missing.
    ///
    /// # Cancel safety
    /// Safe: the answers are thrown away when they come.
    pub async fn get_many(&self, names: &[Name]) -> Vec<Option<Stored>> {
        let mut found = Vec::with_capacity(names.len());
        for some in names.chunks(LOOKUPS_AT_ONCE) {
            let Some(mut share) = self.link.share(Purpose::Bulk) else { break };
            let commands: Vec<Cmd> = some.iter().map(|name| Cmd::get(name.as_str())).collect();
            let answers = share.line.ask_all(&commands).await;
            let settled = some.iter().zip(self.link.settle_all(&share, answers));
            found.extend(settled.map(|(name, answer)| believed(name, answer.ok()?)));
        }
        found.resize(names.len(), None);
        found
    }

    /// Stores a value for `ttl`, soon: returns at once. When too much waits, or Redis cannot be used, it is dropped and
    /// counted.
    pub fn put(&self, name: Name, stored: Stored, ttl: Duration) {
        self.writes.put(name, stored, ttl);
    }

    /// How Redis is, from memory.
    #[must_use]
    pub fn status(&self) -> Status {
        self.link.status()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("status", &self.status()).finish_non_exhaustive()
    }
}

fn believed(name: &Name, value: Value) -> Option<Stored> {
    let Value::BulkString(bytes) = value else { return None };
    decode(name.kind(), name.as_str(), &Bytes::from(bytes))
}
