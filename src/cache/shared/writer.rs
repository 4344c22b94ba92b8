//! Writes off the request path: one queue, one task, many writes in one round trip.
//!
//! The queue holds 1,024 writes and 16 MiB; beyond that, and while Redis is away, writes are dropped and counted. On
//! shutdown what is queued is written if that takes no longer than a second.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use deadpool_redis::redis::{Cmd, cmd};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Name, Stored, connect::Purpose, encode, lease::Token, link::Link};
use crate::runtime::metrics;

/// A second of 1,000 new answers a second.
const QUEUED_WRITES: usize = 1_024;

/// Of bodies: a thousand usual answers, or a few of the largest.
const QUEUED_BYTES: usize = 16 * 1024 * 1024;

/// Usual answers make a few hundred kB of these, which Redis takes in a few milliseconds.
const WRITES_AT_ONCE: usize = 64;

/// Values nobody waits for are not worth a longer shutdown.
const LAST_WRITES_TIMEOUT: Duration = Duration::from_secs(1);

/// One write.
enum Write {
    Put { name: Name, stored: Stored, ttl: Duration },
    Release(Token),
}

/// Where writes are queued.
#[derive(Clone)]
pub(super) struct Queue {
    sender: mpsc::Sender<Write>,
    bytes: Arc<AtomicUsize>,
}

/// Where they come out.
pub(super) struct Queued {
    receiver: mpsc::Receiver<Write>,
    bytes: Arc<AtomicUsize>,
}

pub(super) fn queue() -> (Queue, Queued) {
    let (sender, receiver) = mpsc::channel(QUEUED_WRITES);
    let bytes = Arc::new(AtomicUsize::new(0));
    (Queue { sender, bytes: Arc::clone(&bytes) }, Queued { receiver, bytes })
}

impl Queue {
    pub fn put(&self, name: Name, stored: Stored, ttl: Duration) {
        let size = stored.body.len();
        if self.bytes.fetch_add(size, Ordering::Relaxed) + size > QUEUED_BYTES
            || self.sender.try_send(Write::Put { name, stored, ttl }).is_err()
        {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            metrics::record_cache_writes_dropped("full", 1);
        }
    }

    /// After the writes before it, so that whoever sees the lease gone finds the value. A dropped one ends with its time.
    pub fn release(&self, token: Token) {
        if self.sender.try_send(Write::Release(token)).is_err() {
            metrics::record_cache_writes_dropped("full", 1);
        }
    }
}

/// Runs until `stopping`.
///
/// # Errors
/// Never; the signature is that of a background task.
pub(super) async fn writer_task(
    link: Arc<Link>,
    mut queued: Queued,
    stopping: CancellationToken,
) -> Result<(), Infallible> {
    let mut writes = Vec::with_capacity(WRITES_AT_ONCE);
    while let Some(1..) = stopping.run_until_cancelled(queued.receiver.recv_many(&mut writes, WRITES_AT_ONCE)).await {
        write(&link, &queued, &mut writes).await;
    }
    queued.receiver.close();
    let last = async {
        while queued.receiver.recv_many(&mut writes, WRITES_AT_ONCE).await > 0 {
            write(&link, &queued, &mut writes).await;
        }
    };
    let _ = tokio::time::timeout(LAST_WRITES_TIMEOUT, last).await;
    Ok(())
}

async fn write(link: &Link, queued: &Queued, writes: &mut Vec<Write>) {
    let (mut puts, mut releases) = (Vec::with_capacity(writes.len()), Vec::new());
    for write in writes.drain(..) {
        match write {
            Write::Put { name, stored, ttl } => {
                queued.bytes.fetch_sub(stored.body.len(), Ordering::Relaxed);
                match encode(name.kind(), name.as_str(), &stored) {
                    Some(bytes) => puts.push(set(&name, &bytes, ttl)),
                    None => metrics::record_cache_writes_dropped("too_large", 1),
                }
                // Compressing a large body takes a millisecond.
                tokio::task::yield_now().await;
            }
            Write::Release(token) => releases.push(token.release()),
        }
    }
    send(link, &puts).await;
    send(link, &releases).await;
}

async fn send(link: &Link, commands: &[Cmd]) {
    if commands.is_empty() {
        return;
    }
    let failed = match link.share(Purpose::Bulk) {
        Some(mut share) => {
            let answers = share.line.ask_all(commands).await;
            link.settle_all(&share, answers).iter().filter(|answer| answer.is_err()).count()
        }
        None => commands.len(),
    };
    metrics::record_cache_writes_dropped("away", failed as u64);
}

fn set(name: &Name, bytes: &[u8], ttl: Duration) -> Cmd {
    let mut command = cmd("SET");
    command.arg(name.as_str()).arg(bytes).arg("PX").arg(milliseconds(ttl));
    command
}

/// Redis refuses a lifetime of nothing.
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
