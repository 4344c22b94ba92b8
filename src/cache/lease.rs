//! Who of all replicas makes a value: one takes its turn, the others wait until it is there.
//!
//! A lease saves work and guards nothing. Where Redis cannot be asked everybody makes the value. A holder that dies is
//! waited for until its lease ends, two seconds at most; one that brings nothing to keep gives its lease back, and the next takes
//! it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Away, Held, Key, Tiers, Value,
    shared::{Lease, Name, Token},
};

/// Longer than a search takes, shorter than anybody should wait for a holder that died.
const LEASE: Duration = Duration::from_secs(2);

/// The first pause before looking again: about what a search takes.
const FIRST_PAUSE: Duration = Duration::from_millis(3);

/// Pauses double up to this: what a waiter may come late at most.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Whose turn it is to make a value.
#[derive(Debug)]
pub enum Turn<V> {
    /// The caller's. The token, where there is one, is to be given back by [`Tiers::done`].
    Ours(Option<Token>),
    /// Another replica's, and it has made it.
    Theirs(Arc<Held<V>>),
}

impl<V: Value> Tiers<V> {
    /// Waits for the caller's turn to make the value of `key`, or for the value.
    ///
    /// # Cancel safety
    /// A caller that leaves while it asks may leave a lease without holder, which ends by itself.
    pub async fn turn(&self, key: &Key, decode: impl Fn(Bytes) -> Option<V>) -> Turn<V> {
        let Some(shared) = &self.shared else { return Turn::Ours(None) };
        let name = Name::new(self.kind, key.as_bytes());
        let (until, mut pause) = (Instant::now() + LEASE, FIRST_PAUSE);
        loop {
            match shared.try_lease(&name, LEASE).await {
                Lease::Held(token) => return self.unless_made(key, &decode, token).await,
                Lease::Away => return Turn::Ours(None),
                Lease::Busy if Instant::now() >= until => return Turn::Ours(None),
                Lease::Busy => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            match self.fetch(key, &decode).await {
                Ok(Some(held)) => return Turn::Theirs(held),
                Ok(None) => {}
                Err(Away) => return Turn::Ours(None),
            }
        }
    }

    /// The turn that `token` gives, unless the holder before has made the value since the caller looked: it may have been written and
    /// the lease given back between the two.
    async fn unless_made(&self, key: &Key, decode: &impl Fn(Bytes) -> Option<V>, token: Token) -> Turn<V> {
        match self.fetch(key, decode).await {
            Ok(Some(held)) => {
                self.done(Some(token));
                Turn::Theirs(held)
            }
            Ok(None) | Err(Away) => Turn::Ours(Some(token)),
        }
    }

    /// Ends the caller's turn, after what it kept.
    pub fn done(&self, token: Option<Token>) {
        if let (Some(shared), Some(token)) = (&self.shared, token) {
            shared.release(token);
        }
    }
}
