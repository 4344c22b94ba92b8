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

/// What a flight is for.
#[derive(Clone)]
pub(super) struct Wanted {
    pub key: Key,
    pub question: Arc<Query>,
    pub resolved: Arc<Resolved>,
    pub manner: Manner,
}

impl Wanted {
    fn answered(&self, body: Bytes) -> Answered {
        Answered { body: body.into(), question: Arc::clone(&self.question) }
    }
}

/// Why an answer has to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Nobody has it, or the caller wants it made anew.
    Everywhere,
    /// This process has not, and the shared tier has just failed.
    Here,
}

impl Path {
    /// Looks once more here, and among all replicas.
    pub(super) async fn find(&self, wanted: &Wanted) -> Result<Flown, Missing> {
        if wanted.manner.caching == Caching::Refresh {
            return Err(Missing::Everywhere);
        }
        // Whoever looked before this flight began may have missed what the last one kept.
        if let Some(held) = self.results.look_again(&wanted.key) {
            return Ok(Flown::kept(&held, Source::Local));
        }
        match self.results.fetch(&wanted.key, |body| Some(wanted.answered(body))).await {
            Ok(Some(held)) => Ok(Flown::kept(&held, Source::Shared)),
            Ok(None) => Err(Missing::Everywhere),
            Err(Away) => Err(Missing::Here),
        }
    }

    /// Makes the answer and keeps it, once it is this replica's turn. `missing` is what [`Path::find`] said, where it was asked.
    pub(super) async fn fly(self: Arc<Self>, wanted: Wanted, missing: Option<Missing>) -> Result<Flown, Error> {
        let missing = match missing {
            Some(missing) => missing,
            None => match self.find(&wanted).await {
                Ok(flown) => return Ok(flown),
                Err(missing) => missing,
            },
        };
        if wanted.manner.caching == Caching::Refresh {
            return self.make(&wanted, true).await;
        }
        if missing == Missing::Here {
            return self.make(&wanted, false).await;
        }
        match self.results.turn(&wanted.key, |body| Some(wanted.answered(body))).await {
            Turn::Theirs(held) => Ok(Flown::kept(&held, Source::Shared)),
            Turn::Ours(token) => {
                let made = self.make(&wanted, true).await;
                self.results.done(token);
                made
            }
        }
    }

    /// Makes the answer, and keeps it when nothing is missing from it.
    async fn make(&self, wanted: &Wanted, shared_answers: bool) -> Result<Flown, Error> {
        let Wanted { key, question, resolved, manner } = wanted;
        let flown = self.compute(question, resolved, (*manner, shared_answers)).await?;
        if flown.complete {
            self.results.keep(*key, Answered { body: flown.body.clone(), question: Arc::clone(question) });
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
