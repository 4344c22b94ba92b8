//! Keeps the connections open and finds out when Redis is back.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::link::Link;

/// Between measurements of a Redis that is well: health and metrics are at most this old.
const MAINTAIN_EVERY: Duration = Duration::from_secs(1);

/// Between two rounds, so that connections that break as soon as they are made cost little.
const BREATH: Duration = Duration::from_millis(100);

/// Runs until `stopping`.
///
/// # Errors
/// Never; the signature is that of a background task.
pub(super) async fn keeper_task(link: Arc<Link>, stopping: CancellationToken) -> Result<(), Infallible> {
    stopping.run_until_cancelled(keep(&link)).await;
    Ok(())
}

async fn keep(link: &Link) {
    loop {
        if link.probe_in().is_some_and(|wait| wait.is_zero()) {
            link.probe().await;
        }
        if link.probe_in().is_none() {
            link.maintain().await;
        }
        link.observe();
        tokio::time::sleep(BREATH).await;
        let wait = link.probe_in().unwrap_or(MAINTAIN_EVERY);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = link.wake.notified() => {}
        }
    }
}
