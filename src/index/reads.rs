//! Reads that may be repeated: on a replica or the primary, again where a connection broke, and honest about what they saw.
//!
//! A replica that lacks one of the generations a read was for, or that fails, is followed by the primary. A read whose
//! connection broke is tried at most twice more, on connections made after it broke, within a budget; one that took too long is
//! never tried again. So a database that fails everything sees at most 1.2 times the reads, and one that restarts costs
//! nobody an answer.

use std::time::Instant;

use sqlx::{Row, postgres::PgRow};

use super::{Error, parked::Reader, pool::Pools, retry};
use crate::runtime::metrics;

/// What a read brought, and whether it could see all it was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen<T> {
    /// What was found.
    pub value: T,
    /// Whether every generation of the set was there, in the snapshot that was read. If not, something may be missing: say
    /// so, and keep it out of caches.
    pub complete: bool,
}

impl<T> Seen<T> {
    /// All of it.
    pub fn all(value: T) -> Self {
        Self { value, complete: true }
    }
}

/// Joins what `found` selects to a first column, `complete`: whether all the generations in the parameter `ids` are published or
/// were, in the same snapshot. There is a row of nulls when nothing is found. A generation that is still `building` on a
/// replica has not been published there yet.
pub(super) fn with_complete(ids: &str, found: &str) -> String {
    format!(
        "select asked.complete, found.*
         from (select count(*) = cardinality({ids}::bigint[]) as complete
               from generations where id = any({ids}) and status <> 'building') asked
         left join ({found}) found on true"
    )
}

/// The rows of a statement made by [`with_complete`], each read by `read`; `key` is a column that is null only where nothing was found.
pub(super) fn seen<T>(
    rows: &[PgRow],
    key: &str,
    read: impl Fn(&PgRow) -> Result<T, sqlx::Error>,
) -> Result<Seen<Vec<T>>, sqlx::Error> {
    let complete = rows.first().map(|row| row.try_get("complete")).transpose()?.unwrap_or(false);
    let found = rows.iter().filter(|row| row.try_get_raw(key).is_ok_and(|value| !sqlx::ValueRef::is_null(&value)));
    Ok(Seen { value: found.map(read).collect::<Result<_, _>>()?, complete })
}

impl Pools {
    /// Runs a search's `read` on a replica that keeps up, if there is one, else on the primary. `holder` names it in logs.
    /// `read` calls [`Reader::done`] when it has succeeded.
    ///
    /// # Errors
    /// As [`Pools::read`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the statement to its time limit and gives the connection back, or closes it.
    #[tracing::instrument(level = "debug", name = "index", skip_all, fields(what = holder))]
    pub(super) async fn search<T, R>(&self, holder: &'static str, read: impl Fn(Reader) -> R) -> Result<Seen<T>, Error>
    where
        R: Future<Output = Result<Seen<T>, Error>>,
    {
        self.budget.request();
        if let Some(replica) = self.replicas.next() {
            // Waiting for a replica and then for the primary must not take longer than for one of them.
            let patience = self.config.acquire_timeout / 3;
            match replica.read(holder, patience, &read).await {
                Ok(seen) if seen.complete => return Ok(seen),
                Ok(_) => {}
                Err(Error::Timeout) => return Err(Error::Timeout),
                Err(error) => self.may_try_again(error, "replica", holder)?,
            }
        }
        let seen = self.on_primary(holder, &read).await?;
        if !seen.complete {
            // Cleaned up meanwhile, or these connections lead to a server that is the primary no more.
            self.searches.drop_idle_before(Instant::now());
        }
        Ok(seen)
    }

    /// Runs `read` on the primary.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Unavailable`] or [`Error::Timeout`] by the bounds of the pool, else what `read` returns.
    ///
    /// # Cancel safety
    /// As [`Pools::search`].
    pub(super) async fn read<T, R>(&self, holder: &'static str, read: impl Fn(Reader) -> R) -> Result<T, Error>
    where
        R: Future<Output = Result<T, Error>>,
    {
        self.budget.request();
        self.on_primary(holder, &read).await
    }

    async fn on_primary<T, R>(&self, holder: &'static str, read: &impl Fn(Reader) -> R) -> Result<T, Error>
    where
        R: Future<Output = Result<T, Error>>,
    {
        let mut attempt = 0;
        loop {
            let taken = Instant::now();
            let done = match self.acquire(holder).await {
                Ok(reader) => once(reader, read).await,
                Err(error) => Err(error),
            };
            let error = match done {
                Err(error @ Error::Lost(_)) => error,
                done => return done,
            };
            attempt += 1;
            if attempt > retry::MORE_ATTEMPTS {
                return Err(error);
            }
            self.may_try_again(error, "primary", holder)?;
            // What idled meanwhile has most likely died too.
            self.searches.drop_idle_before(taken);
            tokio::time::sleep(retry::pause(attempt)).await;
        }
    }

    /// Takes one retry out of the budget, or returns the error.
    fn may_try_again(&self, error: Error, server: &'static str, holder: &'static str) -> Result<(), Error> {
        if !self.budget.retry() {
            return Err(error);
        }
        metrics::record_pool_retries("postgres", 1);
        tracing::warn!(%error, server, holder, "a read failed; trying again elsewhere");
        Ok(())
    }
}

/// Runs `read` once, until its connection turns out dead.
pub(super) async fn once<T, R>(reader: Reader, read: &impl Fn(Reader) -> R) -> Result<T, Error>
where
    R: Future<Output = Result<T, Error>>,
{
    let (gave_up, alive) = (reader.gave_up(), reader.alive());
    let done = gave_up.run_until_cancelled(read(reader)).await;
    let done = done.unwrap_or_else(|| Err(Error::Lost("it went silent".to_owned())));
    if let Err(Error::Lost(_)) = done {
        alive.hung_up();
    }
    done
}
