//! One flight: what happens once, however many ask the same at the same time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Body, Manner, Outcome, Path, Served, Timings, legs::Ask};
use crate::{
    answer::Answer,
    cache::{self, Away, Held, Key, Turn},
    coalesce::Role,
    error::Error,
    index::{self, Resolved},
    query::{Caching, Query},
    runtime::{
        metrics,
        shed::{self, Permit},
    },
};

/// A kept answer, and the question it answers, from which it can be made anew.
#[derive(Clone, Debug)]
pub(super) struct Answered {
    pub body: Body,
    pub question: Arc<Query>,
}

impl cache::Value for Answered {
    fn bytes(&self) -> usize {
        let question = &self.question;
        let sources: usize = question.selection.sources.iter().map(|source| source.len() + size_of::<String>()).sum();
        // Lists of what callers may see are shared with their keys.
        self.body.weight() + size_of::<Query>() + question.text.len() + sources
    }

    fn encode(&self) -> Bytes {
        self.body.plain()
    }
}

/// What a flight brought to all who wait for it.
#[derive(Clone, Debug)]
pub(super) struct Flown {
    pub body: Body,
    pub from: Source,
    pub age: Duration,
    /// Nothing is missing from it.
    pub complete: bool,
    pub timings: Option<Timings>,
}

/// Where a flight got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Another flight had just kept it.
    Local,
    /// Another replica had kept it.
    Shared,
    /// It was made.
    Made,
}

impl Flown {
    fn kept(held: &Held<Answered>, from: Source) -> Self {
        Self { body: held.value.body.clone(), from, age: held.age(), complete: true, timings: None }
    }

    /// What the caller in `role` is told.
    pub fn served_to(&self, role: Role, caching: Caching) -> Served {
        match (role, self.from) {
            (Role::Follower, _) => Served::Coalesced,
            (Role::Leader, Source::Local) => Served::Local,
            (Role::Leader, Source::Shared) => Served::Shared,
            (Role::Leader, Source::Made) if caching == Caching::Refresh => Served::Bypass,
            (Role::Leader, Source::Made) => Served::Miss,
        }
    }

    /// The stages ran for the leader; a follower's own time has nothing to do with them.
    pub fn for_caller(mut self, role: Role) -> Self {
        self.timings = self.timings.filter(|_| role == Role::Leader);
        self
    }

    pub fn outcome(self, key: Option<Key>, served: Served, started: Instant) -> Outcome {
        Outcome {
            body: self.body,
            key: key.filter(|_| self.complete),
            served,
            unchanged: false,
            age: Some(self.age),
            timings: self.timings,
            total: started.elapsed(),
        }
    }
}

impl Path {
    /// Looks once more here and among all replicas, then makes the answer and keeps it.
    pub(super) async fn fly(
        self: Arc<Self>,
        key: Key,
        question: Arc<Query>,
        resolved: Arc<Resolved>,
        manner: Manner,
    ) -> Result<Flown, Error> {
        if manner.caching == Caching::Refresh {
            return self.make(key, question, &resolved, (manner, true)).await;
        }
        // Whoever looked before this flight began may have missed what the last one kept.
        if let Some(held) = self.results.look_again(&key) {
            return Ok(Flown::kept(&held, Source::Local));
        }
        let decode = |body: Bytes| Some(Answered { body: body.into(), question: Arc::clone(&question) });
        let (token, shared_answers) = match self.results.fetch(&key, decode).await {
            Ok(Some(held)) => return Ok(Flown::kept(&held, Source::Shared)),
            Ok(None) => match self.results.turn(&key, decode).await {
                Turn::Theirs(held) => return Ok(Flown::kept(&held, Source::Shared)),
                Turn::Ours(token) => (token, true),
            },
            Err(Away) => (None, false),
        };
        let made = self.make(key, Arc::clone(&question), &resolved, (manner, shared_answers)).await;
        self.results.done(token);
        made
    }

    /// Makes the answer, and keeps it when nothing is missing from it.
    async fn make(
        &self,
        key: Key,
        question: Arc<Query>,
        resolved: &Resolved,
        how: (Manner, bool),
    ) -> Result<Flown, Error> {
        let flown = self.compute(&question, resolved, how).await?;
        if flown.complete {
            self.results.keep(key, Answered { body: flown.body.clone(), question });
        }
        Ok(flown)
    }

    /// Makes the answer, unless too much is being made. `shared_answers` is false where the shared tier has just failed: asking it for the vector too would cost its
    /// timeout twice.
    pub(super) async fn compute(
        &self,
        query: &Query,
        resolved: &Resolved,
        (Manner { caching, class }, shared_answers): (Manner, bool),
    ) -> Result<Flown, Error> {
        let permit = self.gate.enter(class).map_err(|refused| Error::Overloaded(refused.to_string()))?;
        let answered = self.stages.answer(Ask { query, resolved, caching, shared_answers }).await;
        leave(permit, &answered);
        let (answer, timings) = answered?;
        if let Some(reason) = answer.degraded_reason.as_deref() {
            metrics::record_degraded(reason.split(':').next().unwrap_or_default());
        }
        let mut bytes = serde_json::to_vec(&answer).map_err(|error| Error::Internal(error.to_string()))?;
        // What is kept is weighed by its length.
        bytes.shrink_to_fit();
        Ok(Flown {
            body: Bytes::from(bytes).into(),
            from: Source::Made,
            age: Duration::ZERO,
            complete: !answer.degraded,
            timings: Some(timings),
        })
    }
}

/// What the end of a search says about load. One that lost a leg may have been quick for it.
fn leave(permit: Permit, answered: &Result<(Answer, Timings), Error>) {
    permit.finish(match answered {
        Ok((answer, _)) if !answer.degraded => shed::Outcome::Done,
        Err(Error::Index(index::Error::Busy { .. } | index::Error::Timeout) | Error::EmbedTimeout) => {
            shed::Outcome::Late
        }
        _ => shed::Outcome::Failed,
    });
}
