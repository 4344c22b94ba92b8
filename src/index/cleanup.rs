//! Removing what no search can reach any more, in small steps in the background.
//!
//! A generation's rows stay for a grace period after it was replaced, longer than any search or cursor that may still read
//! them. Deleted sources go at once from search and step by step from the tables.

use std::{convert::Infallible, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Error, Index};

/// Pages removed in one transaction: a few thousand rows, a fraction of a second.
const PAGES_PER_STEP: i64 = 100;

/// Removes at most `$2` of the pages that no generation holds, and of those whose source was deleted `$1` seconds ago.
pub const REMOVE_PAGES: &str = "delete from pages where id in (
    select p.id from pages p
    where p.died < 9223372036854775807
      and not exists (
        select from generations g where g.version_id = p.version_id and p.born <= g.id and g.id < p.died
      )
    union all
    select p.id from pages p join versions v on v.id = p.version_id join sources s on s.id = v.source
    where s.deleted_at < now() - make_interval(secs => $1)
    limit $2
 )";

/// How often to look for work.
const EVERY: Duration = Duration::from_mins(1);

/// Removes old rows until `stopping`.
///
/// # Errors
/// Never; the signature is that of a background task. A failed step is logged and tried again.
pub async fn cleanup_task(index: Index, grace: Duration, stopping: CancellationToken) -> Result<(), Infallible> {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            () = tokio::time::sleep(EVERY) => {}
        }
        let Some(removed) = stopping.run_until_cancelled(index.remove_unreachable(grace)).await else { return Ok(()) };
        match removed {
            Ok(0) => {}
            Ok(pages) => tracing::info!(pages, "removed pages that no search can reach"),
            Err(error) => tracing::warn!(%error, "cannot remove old pages now"),
        }
    }
}

impl Index {
    /// Removes the generations that were replaced, and the sources that were deleted, more than `grace` ago, then the pages that no
    /// remaining generation holds. Returns how many pages.
    ///
    /// # Errors
    /// When the database does not answer; what was removed stays removed.
    pub async fn remove_unreachable(&self, grace: Duration) -> Result<u64, Error> {
        // First the generations: a cursor into one is told that it is gone before any of its pages is.
        let mut write = self.pools.write("remove generations").await?;
        sqlx::query(
            "delete from generations g using versions v join sources s on s.id = v.source
             where v.id = g.version_id
               and (s.deleted_at < now() - make_interval(secs => $1)
                    or (g.status = 'retired' and g.retired_at < now() - make_interval(secs => $1)))",
        )
        .bind(grace.as_secs_f64())
        .execute(&mut *write)
        .await?;
        write.commit().await?;
        let mut removed = 0;
        while let pages @ 1.. = self.remove_some_pages(grace).await? {
            removed += pages;
        }
        let mut write = self.pools.write("remove sources").await?;
        sqlx::query("delete from sources where deleted_at < now() - make_interval(secs => $1)")
            .bind(grace.as_secs_f64())
            .execute(&mut *write)
            .await?;
        write.commit().await?;
        Ok(removed)
    }

    async fn remove_some_pages(&self, grace: Duration) -> Result<u64, Error> {
        let mut write = self.pools.write("remove pages").await?;
        let removed = sqlx::query(REMOVE_PAGES)
            .bind(grace.as_secs_f64())
            .bind(PAGES_PER_STEP)
            .execute(&mut *write)
            .await?
            .rows_affected();
        write.commit().await?;
        Ok(removed)
    }
}
