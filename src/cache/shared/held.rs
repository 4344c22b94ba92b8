//! The open connections: a fixed number of places, each with a connection or empty.
//!
//! Operations share them. A connection that fails is let go at once, one that times out a few times
//! within a second too; the keeper fills empty places. No lock is held while Redis is asked.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::connect::Line;

/// A socket that went silent times out each of its questions; a slow server does so on all sockets, and the breaker opens.
const STRIKES: u32 = 3;

/// Strikes further apart than this have nothing to do with each other.
const STRIKES_WITHIN: Duration = Duration::from_secs(1);

/// Questions that meet one short stall time out together and count as one.
const STRIKES_APART: Duration = Duration::from_millis(100);

/// Questions on one connection at once before the next is used too: more would wait behind each other's answers.
const TOGETHER: usize = 128;

/// The places for connections of one purpose.
pub(super) struct Held {
    places: RwLock<Vec<Option<Arc<Connection>>>>,
    next: AtomicUsize,
}

/// One open connection.
struct Connection {
    line: Line,
    users: AtomicUsize,
    /// When the last one was counted, and how many there are.
    strikes: Mutex<(Instant, u32)>,
}

/// A share of a connection, for one operation.
pub(super) struct Share {
    /// To ask on.
    pub line: Line,
    connection: Arc<Connection>,
}

impl Connection {
    fn was_struck(&self, now: Instant) -> bool {
        let (at, strikes) = *self.strikes.lock().unwrap_or_else(PoisonError::into_inner);
        strikes > 0 && now.saturating_duration_since(at) < STRIKES_WITHIN
    }
}

impl Share {
    fn of(connection: &Arc<Connection>) -> Self {
        connection.users.fetch_add(1, Ordering::Relaxed);
        Self { line: connection.line.clone(), connection: Arc::clone(connection) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.connection.users.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Held {
    /// Empty places.
    pub fn new(places: usize) -> Self {
        Self { places: RwLock::new(vec![None; places]), next: AtomicUsize::new(0) }
    }

    /// The connection to ask on; none when all places are empty. As many as can ask on one: their commands leave in one write and
    /// come back in one read, which costs both sides half of what two connections do. One that kept somebody waiting within the last
    /// second is passed over.
    pub fn share(&self) -> Option<Share> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let open = || places.iter().flatten();
        let first = open().find(|held| held.users.load(Ordering::Relaxed) < TOGETHER && !held.was_struck(now));
        let connection = first.or_else(|| open().min_by_key(|held| held.users.load(Ordering::Relaxed)))?;
        Some(Share::of(connection))
    }

    /// The next connection in turn, so that each is tried now and then.
    pub fn share_in_turn(&self) -> Option<Share> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut in_turn = (0..places.len()).map(|step| &places[first.wrapping_add(step) % places.len()]);
        Some(Share::of(in_turn.find_map(Option::as_ref)?))
    }

    /// The places without a connection.
    pub fn empty(&self) -> Vec<usize> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        (0..places.len()).filter(|place| places[*place].is_none()).collect()
    }

    /// How many places there are.
    pub fn places(&self) -> usize {
        self.places.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Puts a new connection into a place.
    pub fn fill(&self, place: usize, line: Line) {
        let connection = Connection { line, users: AtomicUsize::new(0), strikes: Mutex::new((Instant::now(), 0)) };
        self.places.write().unwrap_or_else(PoisonError::into_inner)[place] = Some(Arc::new(connection));
    }

    /// Lets a connection go; operations that share it still end on it.
    pub fn remove(&self, share: &Share) {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        for place in places.iter_mut() {
            place.take_if(|held| Arc::ptr_eq(held, &share.connection));
        }
    }

    /// Lets all go.
    pub fn clear(&self) {
        self.places.write().unwrap_or_else(PoisonError::into_inner).fill(None);
    }

    /// Notes a question that got no or a senseless answer. Returns whether the connection was let go for it.
    pub fn strike(&self, share: &Share, now: Instant) -> bool {
        let strikes = {
            let mut strikes = share.connection.strikes.lock().unwrap_or_else(PoisonError::into_inner);
            let apart = now.saturating_duration_since(strikes.0);
            if strikes.1 == 0 || apart > STRIKES_WITHIN {
                *strikes = (now, 1);
            } else if apart > STRIKES_APART {
                *strikes = (now, strikes.1 + 1);
            }
            strikes.1
        };
        if strikes >= STRIKES {
            self.remove(share);
        }
        strikes >= STRIKES
    }

    /// How many connections are idle and in use.
    pub fn count(&self) -> (u32, u32) {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let used = |held: &&Arc<Connection>| held.users.load(Ordering::Relaxed) > 0;
        let (used, idle): (Vec<_>, Vec<_>) = places.iter().flatten().partition(used);
        (u32::try_from(idle.len()).unwrap_or(u32::MAX), u32::try_from(used.len()).unwrap_or(u32::MAX))
    }
}
