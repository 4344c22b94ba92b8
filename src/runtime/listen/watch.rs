//! What one connection waits for, since when, and until when: told by its parts, read by its supervisor and by the registry.
//!
//! One short lock of the connection's own, never shared between connections and never held across anything. No timer is
//! touched here: the supervisor asks for the next deadline and moves its one timer only when that comes earlier.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::task::AtomicWaker;
use tokio::time::Instant;

use super::Config;

/// How long after its last answer a connection is read on whose caller was still sending: closed at once, the system would
/// send a reset, and the caller would lose the answer.
const LINGER: Duration = Duration::from_secs(2);

/// How long a connection without any request yet is waited for when the process leaves: a request may have been sent before, and
/// lie in the system unread.
const LATE: Duration = Duration::from_millis(500);

/// What a connection waits for while no request is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Anything at all.
    FirstByte,
    /// The end of the TLS handshake.
    Handshake,
    /// The end of a request's head.
    Head,
    /// The next request.
    Idle,
    /// The caller, to read its last answer.
    Linger,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// In order: the caller or the protocol closed it.
    Finished,
    /// It broke, or what came was not HTTP.
    Broken,
    /// No first byte in time.
    Silent,
    /// No TLS handshake, or not in time.
    Handshake,
    /// No whole head in time.
    SlowHead,
    /// No further request in time.
    Idle,
    /// The caller took nothing of its answer.
    SlowReader,
    /// More HTTP/2 frames that ask for nothing than any caller needs.
    Flood,
    /// It waited longest when a newcomer needed its place.
    Evicted,
    /// The process is leaving.
    Stopped,
}

impl End {
    /// All of them, so that their series are known before the first.
    pub(super) const ALL: [Self; 10] = [
        Self::Finished,
        Self::Broken,
        Self::Silent,
        Self::Handshake,
        Self::SlowHead,
        Self::Idle,
        Self::SlowReader,
        Self::Flood,
        Self::Evicted,
        Self::Stopped,
    ];

    /// The metric's label.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Broken => "broken",
            Self::Silent => "first_byte",
            Self::Handshake => "handshake",
            Self::SlowHead => "header",
            Self::Idle => "idle",
            Self::SlowReader => "slow_reader",
            Self::Flood => "flood",
            Self::Evicted => "evicted",
            Self::Stopped => "stopped",
        }
    }
}

/// What the connection was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Stay,
    /// Finish what is open, take nothing new; since when and why.
    Leave(Instant, End),
    /// End at once.
    Go(End),
}

/// What is spoken on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Nothing yet.
    Unknown,
    /// One request after the other.
    Http1,
    /// Several at once: bytes between them are frames, not the beginning of a head.
    Http2,
}

#[derive(Debug)]
struct State {
    began: Instant,
    phase: Phase,
    since: Instant,
    /// Requests whose answer is not wholly handed over.
    requests: usize,
    /// Whether there was ever one.
    served: bool,
    /// Since when the socket takes no more of what is written.
    blocked: Option<Instant>,
    protocol: Protocol,
    /// A request body was left unread.
    unread: bool,
    order: Order,
}

/// One connection, as its parts tell it.
#[derive(Debug)]
pub(super) struct Watch {
    state: Mutex<State>,
    encrypted: bool,
    /// The connection's task, to be woken by an order.
    pub(super) waker: AtomicWaker,
}

impl Watch {
    pub(super) fn new(encrypted: bool) -> Self {
        let now = Instant::now();
        let state = State {
            began: now,
            phase: Phase::FirstByte,
            since: now,
            requests: 0,
            served: false,
            blocked: None,
            protocol: Protocol::Unknown,
            unread: false,
            order: Order::Stay,
        };
        Self { state: Mutex::new(state), encrypted, waker: AtomicWaker::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait for something else.
    pub(super) fn enter(&self, phase: Phase) {
        let mut state = self.state();
        (state.phase, state.since) = (phase, Instant::now());
    }

    /// Bytes arrived: the first ones, or the beginning of the next head.
    pub(super) fn received(&self) {
        let mut state = self.state();
        let next = match state.phase {
            Phase::FirstByte if self.encrypted => Phase::Handshake,
            Phase::FirstByte => Phase::Head,
            Phase::Idle if state.protocol != Protocol::Http2 && state.requests == 0 => Phase::Head,
            _ => return,
        };
        (state.phase, state.since) = (next, Instant::now());
    }

    /// The socket took bytes, or refused them (`false`).
    pub(super) fn wrote(&self, taken: bool) {
        let mut state = self.state();
        if taken {
            state.blocked = None;
        } else if state.blocked.is_none() {
            state.blocked = Some(Instant::now());
        }
    }

    /// From here on this is spoken.
    pub(super) fn speak(&self, protocol: Protocol) {
        self.state().protocol = protocol;
    }

    /// A request whose head is complete; it is open until the value is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> OpenRequest {
        let mut state = self.state();
        state.requests += 1;
        state.served = true;
        OpenRequest(Arc::clone(self))
    }

    /// Notes that the caller may still be sending what nobody reads.
    pub(super) fn leave_unread(&self) {
        self.state().unread = true;
    }

    pub(super) fn has_unread(&self) -> bool {
        self.state().unread
    }

    /// Asks it to finish what is open and to take nothing new.
    pub(super) fn leave(&self, why: End) {
        let mut state = self.state();
        if state.order == Order::Stay {
            state.order = Order::Leave(Instant::now(), why);
        }
        drop(state);
        self.waker.wake();
    }

    /// Ends it at once.
    pub(super) fn go(&self, end: End) {
        self.state().order = Order::Go(end);
        self.waker.wake();
    }

    /// Whether its protocol must be told to finish. One that never had a request is not: hyper would close it with a request that
    /// lies in the system unread.
    pub(super) fn must_finish(&self) -> bool {
        let state = self.state();
        state.order != Order::Stay && !state.is_new()
    }

    /// Why it ended, when its protocol says `end`: an order comes before what came of it.
    pub(super) fn reason(&self, end: End) -> End {
        match self.state().order {
            Order::Stay => end,
            Order::Leave(_, why) | Order::Go(why) => why,
        }
    }

    /// Whether it ever had a request, and since when it waits; nothing while a request is open or it is leaving.
    pub(super) fn waits(&self) -> Option<(bool, Instant)> {
        let state = self.state();
        (state.requests == 0 && state.order == Order::Stay).then_some((state.served, state.since))
    }

    /// When it must end as things are, and why.
    pub(super) fn deadline(&self, config: &Config) -> Option<(Instant, End)> {
        let state = self.state();
        let slow = state.blocked.map(|since| (since + config.write_timeout, End::SlowReader));
        let waiting = match state.order {
            Order::Go(end) => Some((state.began, end)),
            _ if state.requests > 0 => None,
            Order::Leave(since, why) if state.is_new() => Some((since + LATE, why)),
            // HTTP/2 asks the caller whether its farewell arrived. One that does not answer is not waited for.
            Order::Leave(since, why) if state.protocol == Protocol::Http2 => {
                Some((since.max(state.since) + config.header_timeout, why))
            }
            Order::Stay | Order::Leave(..) => Some(state.waiting_deadline(config)),
        };
        [slow, waiting].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Whether an idle HTTP/2 connection met its deadline: it is told before it is closed.
    pub(super) fn deserves_farewell(&self, end: End) -> bool {
        let state = self.state();
        end == End::Idle && state.protocol == Protocol::Http2 && state.order == Order::Stay
    }
}

impl State {
    /// Nothing was asked or said on it.
    fn is_new(&self) -> bool {
        !self.served && self.protocol != Protocol::Http2 && self.phase != Phase::Linger
    }

    fn waiting_deadline(&self, config: &Config) -> (Instant, End) {
        match self.phase {
            Phase::FirstByte => (self.since + config.first_byte_timeout, End::Silent),
            Phase::Handshake => (self.began + config.handshake_timeout, End::Handshake),
            Phase::Head => (self.since + config.header_timeout, End::SlowHead),
            Phase::Idle => (self.since + config.idle_timeout, End::Idle),
            Phase::Linger => (self.since + LINGER, End::Finished),
        }
    }
}

/// Counts one request as open until dropped, also when its caller leaves.
#[derive(Debug)]
pub(super) struct OpenRequest(Arc<Watch>);

impl OpenRequest {
    pub(super) fn watch(&self) -> &Arc<Watch> {
        &self.0
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.requests = state.requests.saturating_sub(1);
        if state.requests > 0 {
            return;
        }
        (state.phase, state.since) = (Phase::Idle, Instant::now());
        let elsewhere = state.protocol == Protocol::Http2;
        drop(state);
        if elsewhere {
            // Not within a poll of the connection, whose timer must learn of it.
            self.0.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            first_byte_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(2),
            header_timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(100),
            write_timeout: Duration::from_secs(20),
            ..Config::default()
        }
    }

    /// In how many seconds, rounded up: the connection began a moment ago.
    fn due(watch: &Watch) -> Option<(u64, End)> {
        let (at, end) = watch.deadline(&config())?;
        let left = at.saturating_duration_since(Instant::now());
        Some((left.as_secs() + u64::from(left.subsec_nanos() > 0), end))
    }

    #[test]
    fn each_phase_has_its_deadline_and_work_has_none() {
        let watch = Arc::new(Watch::new(false));
        assert_eq!(due(&watch), Some((1, End::Silent)));
        watch.received();
        assert_eq!(due(&watch), Some((3, End::SlowHead)));
        watch.speak(Protocol::Http1);
        let request = watch.begin();
        watch.received();
        assert_eq!(due(&watch), None, "bytes of the next request do not matter while one is open");
        drop(request);
        assert_eq!(due(&watch), Some((100, End::Idle)));
        watch.received();
        assert_eq!(due(&watch), Some((3, End::SlowHead)));
    }

    #[test]
    fn tls_has_a_handshake_between() {
        let watch = Watch::new(true);
        assert_eq!(due(&watch), Some((1, End::Silent)));
        watch.received();
        assert_eq!(due(&watch), Some((2, End::Handshake)));
        watch.received();
        assert_eq!(due(&watch), Some((2, End::Handshake)));
        watch.enter(Phase::Head);
        assert_eq!(due(&watch), Some((3, End::SlowHead)));
    }

    #[test]
    fn a_reader_is_slow_from_its_first_refusal_to_its_next_progress() {
        let watch = Arc::new(Watch::new(false));
        let _request = watch.begin();
        watch.wrote(false);
        assert_eq!(due(&watch), Some((20, End::SlowReader)));
        let first = watch.deadline(&config());
        watch.wrote(false);
        assert_eq!(watch.deadline(&config()), first, "a second refusal gives no more time");
        watch.wrote(true);
        assert_eq!(due(&watch), None);
    }

    #[test]
    fn several_requests_at_once_are_idle_only_after_the_last() {
        let watch = Arc::new(Watch::new(false));
        watch.speak(Protocol::Http2);
        let (first, second) = (watch.begin(), watch.begin());
        drop(first);
        assert_eq!(due(&watch), None);
        assert_eq!(watch.waits(), None);
        drop(second);
        assert_eq!(due(&watch), Some((100, End::Idle)));
        watch.received();
        assert_eq!(due(&watch), Some((100, End::Idle)), "frames between requests are no head");
        assert!(watch.deserves_farewell(End::Idle));
        watch.leave(End::Idle);
        assert!(!watch.deserves_farewell(End::Idle));
        assert_eq!(due(&watch), Some((3, End::Idle)), "the farewell is waited for, not for long");
        assert_eq!(watch.reason(End::Finished), End::Idle);
    }

    #[test]
    fn orders_end_what_is_new_soon_and_let_the_rest_finish() {
        let watch = Watch::new(false);
        watch.speak(Protocol::Http1);
        watch.leave(End::Stopped);
        assert_eq!(due(&watch), Some((1, End::Stopped)), "half a second");
        watch.enter(Phase::Linger);
        assert_eq!(due(&watch), Some((2, End::Finished)), "a refusal is still read");
        let watch = Arc::new(Watch::new(false));
        watch.speak(Protocol::Http1);
        let _request = watch.begin();
        watch.leave(End::Stopped);
        assert_eq!(due(&watch), None, "an open request is finished");
        watch.go(End::Evicted);
        assert_eq!(due(&watch), Some((0, End::Evicted)));
    }
}
