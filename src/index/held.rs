//! Who holds a connection and since when: a guard that is never given back is told by name.
//!
//! Taking and giving back cost a short lock. A holder over its bound is reported once, at most five seconds after the bound; its
//! connection is not taken from it, since it may be in use.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::runtime::metrics;

/// The longest pause between two looks: a leak is told well within a minute.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Searches, on the primary.
    Read,
    /// Searches, on a replica.
    Replica,
    /// Imports, administration and background work.
    Write,
}

impl Role {
    /// As logs and metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Replica => "replica",
            Self::Write => "write",
        }
    }
}

/// Every connection in use.
#[derive(Clone, Debug)]
pub(super) struct Holders {
    held: Arc<Mutex<Register>>,
    /// The longest a search may hold one; a write twice as long, since it waits for locks.
    bound: Duration,
}

#[derive(Debug, Default)]
struct Register {
    next: u64,
    holders: HashMap<u64, Holder>,
}

#[derive(Debug)]
struct Holder {
    name: &'static str,
    role: Role,
    since: Instant,
    told: bool,
}

/// An entry; gone when dropped.
#[derive(Debug)]
pub(super) struct Held {
    id: u64,
    holders: Holders,
}

/// A connection that has been out too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overdue {
    /// The function that took it.
    pub holder: &'static str,
    /// What it is for.
    pub role: Role,
    /// How long it has been out.
    pub held: Duration,
}

impl Holders {
    /// Nobody holds anything; searches may for `bound`.
    pub fn new(bound: Duration) -> Self {
        Self { held: Arc::default(), bound }
    }

    /// Notes that `name` holds a connection from now on.
    pub fn enter(&self, role: Role, name: &'static str) -> Held {
        let mut register = self.lock();
        let id = register.next;
        register.next += 1;
        register.holders.insert(id, Holder { name, role, since: Instant::now(), told: false });
        drop(register);
        Held { id, holders: self.clone() }
    }

    /// How often to look for those over the bound.
    pub fn look_every(&self) -> Duration {
        LOOK_EVERY.min(self.bound)
    }

    /// Logs and counts each holder that is over its bound, once.
    pub fn report(&self) {
        for Overdue { holder, role, held } in self.overdue() {
            metrics::record_pool_leaked("postgres", 1);
            tracing::error!(holder, pool = role.name(), held_s = held.as_secs(), "a connection was not given back");
        }
    }

    /// Those over their bound that were not told before.
    fn overdue(&self) -> Vec<Overdue> {
        let mut register = self.lock();
        let mut found = Vec::new();
        for Holder { name, role, since, told } in register.holders.values_mut() {
            let (bound, held) = (if *role == Role::Write { self.bound * 2 } else { self.bound }, since.elapsed());
            if !*told && held > bound {
                *told = true;
                found.push(Overdue { holder: name, role: *role, held });
            }
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, Register> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.holders.lock().holders.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_over_its_bound_is_told_once_and_one_that_gave_back_never() {
        let holders = Holders::new(Duration::ZERO);
        drop(holders.enter(Role::Read, "gave back"));
        let _kept = holders.enter(Role::Read, "keeps");
        std::thread::sleep(Duration::from_millis(1));
        let told: Vec<_> = holders.overdue().into_iter().map(|overdue| overdue.holder).collect();
        assert_eq!(told, ["keeps"]);
        assert_eq!(holders.overdue(), []);
    }
}
