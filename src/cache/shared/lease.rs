//! Who of all replicas computes a value: a key beside it that ends by itself.
//!
//! A lease saves work, it guards nothing: two holders at once, after one that was slower than its lease, compute the same
//! value twice. Where Redis cannot be asked everybody computes.

use std::time::Duration;

use deadpool_redis::redis::{Cmd, Value, cmd};

use super::{Name, Shared, connect::Purpose, writer::milliseconds};

/// Deletes the lease if it is still the holder's own.
const RELEASE: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";

/// What asking for a lease brought.
#[derive(Debug)]
pub enum Lease {
    /// The caller computes, and gives the token back.
    Held(Token),
    /// Another computes.
    Busy,
    /// Redis cannot be asked.
    Away,
}

/// A lease that is held. Dropping it leaves the lease to its end.
#[derive(Debug)]
pub struct Token {
    key: String,
    secret: String,
}

impl Token {
    pub(super) fn release(&self) -> Cmd {
        let mut command = cmd("EVAL");
        command.arg(RELEASE).arg(1).arg(&self.key).arg(&self.secret);
        command
    }
}

impl Shared {
    /// Asks for the lease on `name`, for `ttl`. Takes no longer than the timeout.
    ///
    /// # Cancel safety
    /// A caller that leaves before the answer leaves a lease without holder, which ends after `ttl`.
    pub async fn try_lease(&self, name: &Name, ttl: Duration) -> Lease {
        let token = Token { key: name.lease(), secret: format!("{:032x}", fastrand::u128(..)) };
        let mut command = cmd("SET");
        command.arg(&token.key).arg(&token.secret).arg("NX").arg("PX").arg(milliseconds(ttl));
        match self.ask(&command).await {
            Some(Value::Okay) => Lease::Held(token),
            Some(Value::Nil) => Lease::Busy,
            _ => Lease::Away,
        }
    }

    /// Whether somebody holds the lease on `name`. No, where Redis cannot be asked: nobody should wait for what cannot be
    /// seen. Takes no longer than the timeout.
    ///
    /// # Cancel safety
    /// Safe: it only looks.
    pub async fn still_leased(&self, name: &Name) -> bool {
        let mut command = cmd("EXISTS");
        command.arg(name.lease());
        matches!(self.ask(&command).await, Some(Value::Int(1..)))
    }

    /// Gives a lease back, soon, after the writes that were queued before: returns at once.
    pub fn release(&self, token: Token) {
        self.writes.release(token);
    }

    async fn ask(&self, command: &Cmd) -> Option<Value> {
        let mut share = self.link.share(Purpose::Reads)?;
        let answer = share.line.ask(command).await;
        self.link.settle(Purpose::Reads, &share, answer).ok()
    }
}
