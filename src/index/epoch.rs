//! When a change of the catalog has been seen by everybody who listens.
//!
//! Each change takes the next epoch, in its own transaction. A listener holds a shared advisory lock named after the epoch that
//! it answers from; its connection is its life, so a listener that dies holds nothing. Whoever changed the catalog waits until no
//! lock of an earlier epoch is held: from then on nobody answers from before. A listener that is cut off without the
//! server's knowing is waited for as long as the catalog's lease, after which it believes its catalog no longer.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection};
use tokio::time::Instant;

use super::{Error, Index, catalog::LEASE};

/// The first of the two numbers of these locks: no other lock of ours has two.
const CLASS: i32 = 1_685_021_537;

/// What a listener answers from before it has read anything: earlier than every change.
const NOTHING_READ: i32 = 0;

/// A listener catches up within a few milliseconds.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Takes the next epoch. The last statement of a change's transaction, since other changes wait for its end.
pub(super) async fn advance(transaction: &mut PgConnection) -> Result<i32, Error> {
    let advanced = sqlx::query_scalar("update catalog_epoch set epoch = epoch + 1 returning epoch");
    Ok(advanced.fetch_one(transaction).await?)
}

/// What a listener tells the others of itself, on its own connection.
#[derive(Debug)]
pub(super) struct Seen(i32);

impl Seen {
    /// Begins: whoever changes the catalog from now on waits for this listener.
    pub async fn nothing(connection: &mut PgConnection) -> Result<Self, Error> {
        lock(connection, "pg_advisory_lock_shared", NOTHING_READ).await?;
        Ok(Self(NOTHING_READ))
    }

    /// Tells that the catalog of `epoch` is the one in use.
    pub async fn advance(&mut self, connection: &mut PgConnection, epoch: i32) -> Result<(), Error> {
        if epoch != self.0 {
            lock(connection, "pg_advisory_lock_shared", epoch).await?;
            lock(connection, "pg_advisory_unlock_shared", self.0).await?;
            self.0 = epoch;
        }
        Ok(())
    }
}

async fn lock(connection: &mut PgConnection, function: &str, epoch: i32) -> Result<(), Error> {
    // Safe: the function's name is one of ours.
    sqlx::query(AssertSqlSafe(format!("select {function}($1, $2)")))
        .bind(CLASS)
        .bind(epoch)
        .execute(connection)
        .await?;
    Ok(())
}

impl Index {
    /// Returns once every listener answers from `epoch` or a later one, or believes its catalog no longer: after five seconds
    /// at most.
    pub(super) async fn until_seen(&self, epoch: i32) {
        let lapsed = Instant::now() + LEASE;
        if let Err(error) = tokio::time::timeout_at(lapsed, self.nobody_is_behind(epoch)).await.unwrap_or(Ok(())) {
            tracing::warn!(%error, "cannot see who has heard of the change; waiting until nobody can believe the old one");
            tokio::time::sleep_until(lapsed).await;
        }
    }

    async fn nobody_is_behind(&self, epoch: i32) -> Result<(), Error> {
        let mut connection = self.pools.write("wait for listeners").await?;
        loop {
            let behind: bool = sqlx::query_scalar(
                "select exists (
                    select from pg_locks
                    where locktype = 'advisory' and objsubid = 2 and classid = $1::bigint::oid and objid < $2::bigint::oid
                      and database = (select oid from pg_database where datname = current_database())
                 )",
            )
            .bind(i64::from(CLASS))
            .bind(i64::from(epoch))
            .fetch_one(&mut *connection)
            .await?;
            if !behind {
                return connection.commit().await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
