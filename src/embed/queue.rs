//! Texts that wait for the model: queries before passages, each text once, nobody for ever.
//!
//! There is no idle worker and no lingering: a text that arrives starts a worker when fewer than allowed run, and a
//! worker leaves when nothing waits for it. A worker takes queries first whenever it is free, and passages may occupy
//! only so many workers, so a query waits for at most one running batch. Identical texts, waiting or running, share one
//! entry. A text whose callers have all left is skipped. Bounded: `capacity` distinct waiting queries (the next is
//! refused at once) and `capacity` waiting passages (the next waits for room).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::Span;

use super::{Error, vector::Embedded};
use crate::runtime::metrics;

/// What becomes of a text.
pub(super) type Outcome = Result<Embedded, Error>;

/// How many workers may run at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workers {
    /// In all.
    pub total: usize,
    /// With passages: fewer than all where one passage batch takes longer than a query should wait.
    pub passages: usize,
}

/// The queue, and the way to start a worker.
pub(super) struct Queue {
    state: Mutex<State>,
    capacity: usize,
    workers: Workers,
    /// Room for waiting passages; an entry holds its permit until it is taken.
    room: Arc<Semaphore>,
    start: Box<dyn Fn(Worker) + Send + Sync>,
}

#[derive(Default)]
struct State {
    /// Every text that waits or runs.
    entries: HashMap<Arc<str>, Entry>,
    /// Waiting queries, oldest first.
    queries: VecDeque<Arc<str>>,
    /// Waiting passages, oldest first. A passage that a query joined is promoted; its place here is stale then.
    passages: VecDeque<Arc<str>>,
    running: usize,
    running_passages: usize,
}

struct Entry {
    stage: Stage,
    callers: Vec<oneshot::Sender<Outcome>>,
    /// Of the first caller: what the text costs is a part of its request.
    span: Span,
}

enum Stage {
    Query,
    /// Holds its room in the queue.
    Passage(#[expect(dead_code, reason = "dropped with the stage, which gives the room back")] OwnedSemaphorePermit),
    Running,
}

impl Queue {
    /// An empty queue. `start` gets a worker that must call [`Worker::next`] until that returns `None`.
    pub fn new(capacity: usize, workers: Workers, start: impl Fn(Worker) + Send + Sync + 'static) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(capacity));
        Arc::new(Self { state: Mutex::default(), capacity, workers, room, start: Box::new(start) })
    }

    /// Puts a query in line.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when as many as the capacity wait.
    pub fn ask(self: &Arc<Self>, text: &str) -> Result<oneshot::Receiver<Outcome>, Error> {
        let (caller, answer) = oneshot::channel();
        let worker = {
            let mut state = self.lock();
            if let Some(entry) = state.entries.get_mut(text) {
                entry.callers.push(caller);
                if matches!(entry.stage, Stage::Passage(_)) {
                    entry.stage = Stage::Query;
                    state.queries.push_back(text.into());
                }
            } else {
                if state.queries.len() >= self.capacity {
                    state.forget_departed_queries();
                }
                if state.queries.len() >= self.capacity {
                    metrics::record_embed_dropped("rejected", 1);
                    return Err(Error::Overloaded { waiting: state.queries.len() });
                }
                let text: Arc<str> = text.into();
                state.entries.insert(Arc::clone(&text), Entry::new(Stage::Query, caller));
                state.queries.push_back(text);
            }
            self.worker_for_query(&mut state)
        };
        self.begin(worker);
        Ok(answer)
    }

    /// Puts a passage in line as soon as there is room.
    ///
    /// # Cancel safety
    /// Safe: nothing is in line before this returns.
    pub async fn ask_when_room(self: &Arc<Self>, text: &str) -> oneshot::Receiver<Outcome> {
        let (caller, answer) = oneshot::channel();
        let Some(caller) = self.lock().join(text, caller) else { return answer };
        // The semaphore is never closed: without a permit there is nothing to do but to let the caller see no answer.
        let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else { return answer };
        let worker = {
            let mut state = self.lock();
            // Somebody else may have asked for it meanwhile.
            let Some(caller) = state.join(text, caller) else { return answer };
            let text: Arc<str> = text.into();
            state.entries.insert(Arc::clone(&text), Entry::new(Stage::Passage(permit), caller));
            state.passages.push_back(text);
            self.worker_for_passage(&mut state)
        };
        self.begin(worker);
        answer
    }

    /// Whether no text waits or runs and every worker has left.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        let state = self.lock();
        state.entries.is_empty() && state.running == 0 && state.running_passages == 0
    }

    fn worker_for_query(self: &Arc<Self>, state: &mut State) -> Option<Worker> {
        metrics::set_embed_queue_depth(state.waiting());
        (state.running < self.workers.total).then(|| {
            state.running += 1;
            Worker { queue: Arc::clone(self), with_passages: false, live: true }
        })
    }

    fn worker_for_passage(self: &Arc<Self>, state: &mut State) -> Option<Worker> {
        // A worker that finds its passages taken by another leaves again, so starting one too many is harmless.
        if state.running_passages < self.workers.passages {
            return self.worker_for_query(state);
        }
        metrics::set_embed_queue_depth(state.waiting());
        None
    }

    /// Outside the lock: the worker may ask for its first batch at once.
    fn begin(&self, worker: Option<Worker>) {
        if let Some(worker) = worker {
            (self.start)(worker);
        }
    }

    /// Nothing that could panic runs under this lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets `caller` share the entry of an identical text, or gives it back.
    fn join(&mut self, text: &str, caller: oneshot::Sender<Outcome>) -> Option<oneshot::Sender<Outcome>> {
        match self.entries.get_mut(text) {
            Some(entry) => {
                entry.callers.push(caller);
                None
            }
            None => Some(caller),
        }
    }

    fn waiting(&self) -> usize {
        self.queries.len() + self.passages.len()
    }

    /// Makes room for a new query, at the price of one walk over a full queue.
    fn forget_departed_queries(&mut self) {
        let before = self.queries.len();
        let entries = &mut self.entries;
        self.queries.retain(|text| {
            let wanted = entries.get(text).is_some_and(Entry::is_wanted);
            if !wanted {
                entries.remove(text);
            }
            wanted
        });
        metrics::record_embed_dropped("abandoned", before - self.queries.len());
    }

    /// Takes up to `most` waiting texts of one line.
    fn take(&mut self, passages: bool, most: usize) -> Vec<Arc<str>> {
        let mut taken = Vec::new();
        while taken.len() < most {
            let line = if passages { &mut self.passages } else { &mut self.queries };
            let Some(text) = line.pop_front() else { break };
            let Some(entry) = self.entries.get_mut(&text) else { continue };
            if matches!(entry.stage, Stage::Passage(_)) != passages || matches!(entry.stage, Stage::Running) {
                continue;
            }
            if entry.is_wanted() {
                entry.stage = Stage::Running;
                taken.push(text);
            } else {
                self.entries.remove(&text);
                metrics::record_embed_dropped("abandoned", 1);
            }
        }
        taken
    }
}

impl Entry {
    fn new(stage: Stage, caller: oneshot::Sender<Outcome>) -> Self {
        Self { stage, callers: vec![caller], span: Span::current() }
    }

    fn is_wanted(&self) -> bool {
        self.callers.iter().any(|caller| !caller.is_closed())
    }
}

/// The right to run texts. Dropping it without having seen the end of the queue fails what nobody else will run.
pub(super) struct Worker {
    queue: Arc<Queue>,
    /// Counted among the workers with passages.
    with_passages: bool,
    /// Counted among the running workers.
    live: bool,
}

impl Worker {
    /// The next batch of at most `most` texts, queries first; `None` when this worker is not needed any more.
    pub fn next(&mut self, most: usize) -> Option<Batch> {
        let queue = Arc::clone(&self.queue);
        let mut state = queue.lock();
        self.leave_passages(&mut state);
        let mut texts = state.take(false, most);
        if texts.is_empty() && state.running_passages < queue.workers.passages {
            texts = state.take(true, most);
            if !texts.is_empty() {
                self.with_passages = true;
                state.running_passages += 1;
            }
        }
        metrics::set_embed_queue_depth(state.waiting());
        if texts.is_empty() {
            state.running -= 1;
            self.live = false;
            return None;
        }
        drop(state);
        Some(Batch { queue, texts })
    }

    fn leave_passages(&mut self, state: &mut State) {
        if std::mem::take(&mut self.with_passages) {
            state.running_passages -= 1;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.live {
            return;
        }
        // Only a panic in a backend, or a runtime that ends, comes here.
        let queue = Arc::clone(&self.queue);
        let mut state = queue.lock();
        self.leave_passages(&mut state);
        state.running -= 1;
        if state.running == 0 {
            let texts = state.take(false, usize::MAX).into_iter().chain(state.take(true, usize::MAX)).collect();
            drop(state);
            drop(Batch { queue: Arc::clone(&queue), texts });
        }
    }
}

/// Texts that run now. Dropping it unfinished tells their callers that the worker ended.
pub(super) struct Batch {
    queue: Arc<Queue>,
    texts: Vec<Arc<str>>,
}

impl Batch {
    /// What to embed.
    pub fn texts(&self) -> &[Arc<str>] {
        &self.texts
    }

    /// Of whoever asked for the first of them: a call for several can be a part of one request only.
    pub fn span(&self) -> Span {
        let state = self.queue.lock();
        let first = self.texts.first().and_then(|text| state.entries.get(text));
        first.map_or_else(Span::none, |entry| entry.span.clone())
    }

    /// Answers the callers, in the order of [`Batch::texts`].
    pub fn finish(mut self, outcomes: impl IntoIterator<Item = Outcome>) {
        let mut outcomes = outcomes.into_iter();
        for text in std::mem::take(&mut self.texts) {
            let missing = || Err(Error::Model("it returned fewer vectors than texts".to_owned()));
            self.answer(&text, &outcomes.next().unwrap_or_else(missing));
        }
    }

    fn answer(&self, text: &str, outcome: &Outcome) {
        let entry = self.queue.lock().entries.remove(text);
        for caller in entry.into_iter().flat_map(|entry| entry.callers) {
            // A caller that left meanwhile needs no answer.
            let _ = caller.send(outcome.clone());
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        for text in std::mem::take(&mut self.texts) {
            self.answer(&text, &Err(Error::Model("its worker ended".to_owned())));
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
