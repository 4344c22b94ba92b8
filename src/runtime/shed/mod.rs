//! How much is worked on at once: beyond that, callers are told at once to come back, and nobody waits.
//!
//! One gate for the process. Its limit follows how long the work takes (`limit`), between a floor and the configured most. A class
//! is let in while all classes together use less than its share of the limit, so what can wait gives way first, and what people
//! wait for finds room until the whole limit is in use. Entering and leaving cost a short lock; nothing here waits.

mod limit;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use self::limit::{Bounds, Limit, Sample};
use super::metrics;

/// Who gives way to whom, first to last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Class {
    /// Somebody waits for it.
    #[default]
    Interactive,
    /// A program that can come back later: bulk queries, evaluations, answers made ahead.
    Batch,
    /// New documents.
    Import,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Batch, Self::Import];

    /// As metrics call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
            Self::Import => "import",
        }
    }

    /// Why one of it is turned away, as metrics call it.
    fn reason(self) -> &'static str {
        match self {
            Self::Interactive => "limit",
            Self::Batch => "batch_share",
            Self::Import => "import_share",
        }
    }
}

/// Bounds of the gate.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The limit is never more.
    pub most: usize,
    /// Nor less: below it the process would not notice that it got better.
    pub least: usize,
    /// While the work takes less on average, the limit grows however much longer that is than at rest.
    pub target: Duration,
    /// Batch work is let in while less than this share of the limit is in use, in percent.
    pub batch_percent: u8,
    /// The same of imports.
    pub import_percent: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // A search holds a few hundred kilobytes while it runs, and two connections of sixteen.
            most: 256,
            // Envoy's floor is three; four keeps two processor cores busy with two legs each.
            least: 4,
            // What a search at a hundred users may take at most; waiting that long is better than coming back.
            target: Duration::from_millis(100),
            // People keep half of the limit free of programs, and those three quarters free of imports.
            batch_percent: 50,
            import_percent: 25,
        }
    }
}

/// More is being worked on than the class may add to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{in_use} searches are being computed, which leaves no room for {} ones", class.name())]
pub struct Refused {
    /// The class that was turned away.
    pub class: Class,
    /// How many are being worked on.
    pub in_use: usize,
}

/// How a piece of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well: how long it took counts.
    Done,
    /// It ran into a bound: a sign of too much.
    Late,
    /// Otherwise: says nothing about load.
    Failed,
}

/// The gate. Cheap to clone; all clones are one gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    config: Config,
}

#[derive(Debug)]
struct State {
    limit: Limit,
    /// By class.
    in_use: [usize; Class::ALL.len()],
}

impl State {
    fn total(&self) -> usize {
        self.in_use.iter().sum()
    }
}

impl Gate {
    /// An open gate.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let bounds = Bounds { most: config.most.max(1), least: config.least.clamp(1, config.most.max(1)) };
        let limit = Limit::new(bounds, config.target, Instant::now());
        let gate = Self(Arc::new(Inner { state: Mutex::new(State { limit, in_use: [0; 3] }), config }));
        for class in Class::ALL {
            metrics::record_shed(class.reason(), 0);
        }
        gate.0.observe(&gate.0.lock());
        gate
    }

    /// Lets one more in.
    ///
    /// # Errors
    /// At once, when the class's share of the limit is in use.
    pub fn enter(&self, class: Class) -> Result<Permit, Refused> {
        let mut state = self.0.lock();
        let in_use = state.total();
        if in_use >= self.0.share(class, state.limit.now()) {
            state.limit.in_use(in_use);
            drop(state);
            metrics::record_shed(class.reason(), 1);
            return Err(Refused { class, in_use });
        }
        state.in_use[class as usize] += 1;
        state.limit.in_use(in_use + 1);
        metrics::set_shed_in_use(class.name(), state.in_use[class as usize]);
        drop(state);
        Ok(Permit { gate: Arc::clone(&self.0), class, entered: Instant::now(), counted: true, outcome: None })
    }

    /// As [`Gate::enter`], for work whose length says nothing about the others': it takes a place and is not measured.
    ///
    /// # Errors
    /// As [`Gate::enter`].
    pub fn enter_uncounted(&self, class: Class) -> Result<Permit, Refused> {
        self.enter(class).map(|mut permit| {
            permit.counted = false;
            permit
        })
    }

    /// What all classes together may use now.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.0.lock().limit.now()
    }

    /// What they use.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.0.lock().total()
    }
}

impl Inner {
    /// A poisoned lock still holds sound numbers.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all classes together may use for one of `class` to be let in: at least one, so that nothing starves at rest.
    fn share(&self, class: Class, limit: usize) -> usize {
        let percent = match class {
            Class::Interactive => 100,
            Class::Batch => self.config.batch_percent,
            Class::Import => self.config.import_percent,
        };
        (limit * usize::from(percent)).div_ceil(100).max(1)
    }

    fn observe(&self, state: &State) {
        for class in Class::ALL {
            metrics::set_shed_limit(class.name(), self.share(class, state.limit.now()));
            metrics::set_shed_in_use(class.name(), state.in_use[class as usize]);
        }
    }

    fn leave(&self, class: Class, sample: Option<Sample>) {
        let mut state = self.lock();
        state.in_use[class as usize] -= 1;
        metrics::set_shed_in_use(class.name(), state.in_use[class as usize]);
        if let Some(sample) = sample
            && state.limit.left(sample, Instant::now())
        {
            self.observe(&state);
        }
    }
}

/// A place, given back when dropped. Dropped without [`Permit::finish`], the work was given up.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    gate: Arc<Inner>,
    class: Class,
    entered: Instant,
    /// Whether the time it takes counts.
    counted: bool,
    outcome: Option<Outcome>,
}

impl Permit {
    /// Gives the place back and says how the work ended.
    pub fn finish(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let took = self.entered.elapsed();
        let sample = match self.outcome {
            Some(Outcome::Done) => Some(Sample::Took(took)),
            Some(Outcome::Late) => Some(Sample::Late),
            Some(Outcome::Failed) => None,
            // Whoever waited for it left: it would have taken longer.
            None => Some(Sample::MoreThan(took)),
        };
        self.gate.leave(self.class, sample.filter(|_| self.counted));
    }
}

#[cfg(test)]
mod tests;
