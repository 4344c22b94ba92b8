//! The connections of one listener: how many there may be, who gives way to a newcomer, and the end of all.
//!
//! The lock is taken when a connection comes or goes, never for a request. It is walked only when the listener is full, and then
//! for many newcomers at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::watch::{End, Watch};

/// A connection that waits for less is not sent away: it had no chance to ask.
const GRACE: Duration = Duration::from_secs(1);

/// At most this part of all is sent away at once, so that a full listener is walked for one newcomer in so many.
const PART: usize = 64;

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Open {
    connections: Mutex<Connections>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    watches: HashMap<u64, Arc<Watch>>,
    /// Set at the end: who comes later is told at once.
    closing: bool,
}

/// One connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    open: Arc<Open>,
    id: u64,
}

impl Open {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for `watch`; nothing when there are `most` already.
    pub(super) fn enter(self: &Arc<Self>, watch: &Arc<Watch>, most: usize) -> Option<Place> {
        let mut connections = self.connections();
        if connections.watches.len() >= most {
            return None;
        }
        let id = connections.next;
        connections.next += 1;
        connections.watches.insert(id, Arc::clone(watch));
        if connections.closing {
            watch.leave(End::Stopped);
        }
        Some(Place { open: Arc::clone(self), id })
    }

    /// Sends away those who wait longest, first those who never asked for anything. Returns how many.
    pub(super) fn make_room(&self) -> usize {
        let now = Instant::now();
        let connections = self.connections();
        let most = connections.watches.len().div_ceil(PART);
        let mut waiting: Vec<(bool, Instant, &Arc<Watch>)> = connections
            .watches
            .values()
            .filter_map(|watch| watch.waits().map(|(served, since)| (served, since, watch)))
            .filter(|(_, since, _)| now.duration_since(*since) >= GRACE)
            .collect();
        if waiting.len() > most {
            waiting.select_nth_unstable_by_key(most, |(served, since, _)| (*served, *since));
            waiting.truncate(most);
        }
        for (_, _, watch) in &waiting {
            watch.go(End::Evicted);
        }
        waiting.len()
    }

    /// Returns once a place was given back, or after `patience`.
    pub(super) async fn wait_for_room(&self, most: usize, patience: Duration) {
        let waiting = async {
            loop {
                let left = self.left.notified();
                if self.connections().watches.len() < most {
                    return;
                }
                left.await;
            }
        };
        let _ = tokio::time::timeout(patience, waiting).await;
    }

    /// Asks all to finish what they have open.
    pub(super) fn close(&self) {
        let mut connections = self.connections();
        connections.closing = true;
        connections.watches.values().for_each(|watch| watch.leave(End::Stopped));
    }

    /// Ends all at once.
    pub(super) fn cut(&self) {
        self.connections().watches.values().for_each(|watch| watch.go(End::Stopped));
    }

    /// Returns once nobody is left.
    pub(super) async fn emptied(&self) {
        loop {
            let left = self.left.notified();
            if self.connections().watches.is_empty() {
                return;
            }
            left.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.connections().watches.remove(&self.id);
        // One waits at most: the accept loop, which keeps its own word when none does yet.
        self.open.left.notify_one();
    }
}
