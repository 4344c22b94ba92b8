//! Who holds a connection and since when: a guard that is never given back is told by name, and a search that waits for an
//! answer which the server is not making is woken.
//!
//! Taking and giving back cost a short lock. A holder over its bound is reported once, at most five seconds after the bound; its
//! connection is not taken from it, since it may be in use. One whose server process was found at rest twice, while the holder
//! waits, sits on a socket that died without a word, and is told to give up.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::runtime::metrics;

/// The longest pause between two looks: a leak is told well within a minute.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A statement that takes longer is worth a look at what the server makes of it; few do.
const QUIET_AFTER: Duration = Duration::from_millis(400);

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
    /// The server process at the other end, once known.
    process: Option<i32>,
    /// It was at rest at the last look.
    suspect: bool,
    gave_up: CancellationToken,
}

/// An entry; gone when dropped.
#[derive(Debug)]
pub(super) struct Held {
    id: u64,
    gave_up: CancellationToken,
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
        let (since, gave_up) = (Instant::now(), CancellationToken::new());
        let holder = Holder { name, role, since, told: false, process: None, suspect: false, gave_up: gave_up.clone() };
        register.holders.insert(id, holder);
        drop(register);
        Held { id, gave_up, holders: self.clone() }
    }

    /// Tells every search on the primary to give up: its connection is as old as one that died.
    pub fn give_up(&self) {
        let register = self.lock();
        for holder in register.holders.values().filter(|holder| holder.role == Role::Read) {
            holder.gave_up.cancel();
        }
    }

    /// The server processes that searches on the primary have waited for a while.
    pub fn quiet(&self) -> Vec<i32> {
        let register = self.lock();
        let waits = |holder: &&Holder| holder.role == Role::Read && holder.since.elapsed() > QUIET_AFTER;
        register.holders.values().filter(waits).filter_map(|holder| holder.process).collect()
    }

    /// Of the processes in `asked`, only those in `busy` are at work. Whoever waits for another one the second time is told
    /// to give up. Returns whether anybody was.
    pub fn looked(&self, asked: &[i32], busy: &[i32]) -> bool {
        let (mut register, mut any) = (self.lock(), false);
        for holder in register.holders.values_mut() {
            let Some(process) = holder.process.filter(|process| holder.role == Role::Read && asked.contains(process))
            else {
                continue;
            };
            let at_rest = !busy.contains(&process);
            if at_rest && holder.suspect {
                tracing::warn!(holder = holder.name, "waits for an answer that the server is not making; giving up");
                holder.gave_up.cancel();
                any = true;
            }
            holder.suspect = at_rest;
        }
        any
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
        for Holder { name, role, since, told, .. } in register.holders.values_mut() {
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

impl Held {
    /// Notes the server process at the other end.
    pub fn on(&self, process: i32) {
        if let Some(holder) = self.holders.lock().holders.get_mut(&self.id) {
            holder.process = Some(process);
        }
    }

    /// Cancelled when the connection is known to be dead.
    pub fn gave_up(&self) -> &CancellationToken {
        &self.gave_up
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

    #[test]
    fn a_search_gives_up_once_its_process_was_found_at_rest_twice_in_a_row() {
        let holders = Holders::new(Duration::from_secs(30));
        let entered = Instant::now();
        let (dead, alive) = (holders.enter(Role::Read, "dead"), holders.enter(Role::Read, "alive"));
        dead.on(1);
        alive.on(2);
        let early = holders.quiet();
        assert!(early.is_empty() || entered.elapsed() >= QUIET_AFTER, "both have just begun");
        std::thread::sleep(QUIET_AFTER + Duration::from_millis(5));
        let mut quiet = holders.quiet();
        quiet.sort_unstable();
        assert_eq!(quiet, [1, 2]);
        for busy in [[2], [1], [2]] {
            holders.looked(&quiet, &busy);
            assert!(!dead.gave_up().is_cancelled() && !alive.gave_up().is_cancelled(), "{busy:?}");
        }
        assert!(holders.looked(&quiet, &[2]));
        assert!(dead.gave_up().is_cancelled() && !alive.gave_up().is_cancelled());
    }
}
