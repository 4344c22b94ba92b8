//! Who starts, who stops: two file locks that every process of one data directory shares.
//!
//! `control.lock` is held alone while the server is started or stopped. `users.lock` is held shared by each process that
//! uses the server, as long as it lives: whoever gets it alone is the last. The kernel drops the locks of killed
//! processes, so none is ever stale. Nothing here blocks a thread; waiting ends after [`CONTROL_PATIENCE`].

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::error::{Error, at};

/// A start may recover for five minutes and a stop may write a checkpoint for one; whoever waits longer is told.
const CONTROL_PATIENCE: Duration = Duration::from_mins(6);

/// Unnoticeable beside a start of 100 ms, and only some fifty system calls a second.
const CONTROL_POLL: Duration = Duration::from_millis(20);

/// Shorter waits are the ordinary start of another process; longer ones are told in the log, once a second.
const CONTROL_SILENCE: Duration = Duration::from_secs(1);

/// Held while the server is started or stopped; dropping it lets the next process in.
#[derive(Debug)]
pub(super) struct Control(File);

impl Control {
    /// Waits for the lock in `path`.
    ///
    /// # Errors
    /// [`Error::Busy`] after six minutes, [`Error::Io`] when the file cannot be opened.
    ///
    /// # Cancel safety
    /// A dropped wait takes nothing.
    pub(super) async fn take(path: &Path) -> Result<Self, Error> {
        let file = open(path)?;
        let begun = Instant::now();
        let mut told = begun;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(at("lock", path)(source)),
            }
            if begun.elapsed() > CONTROL_PATIENCE {
                return Err(Error::Busy { path: path.to_owned(), seconds: CONTROL_PATIENCE.as_secs() });
            }
            if told.elapsed() > CONTROL_SILENCE {
                told = Instant::now();
                let waited = begun.elapsed().as_secs();
                tracing::info!(waited, "waiting for another process to start or stop Postgres");
            }
            sleep(CONTROL_POLL).await;
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child that is just between fork and exec.
        let _ = self.0.unlock();
    }
}

/// Says, as long as it lives, that this process uses the server.
#[derive(Debug)]
pub(super) struct Presence(File);

impl Presence {
    /// Counts this process in. The caller holds `_control`, so nobody can be stopping the server.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be opened or locked.
    pub(super) fn enter(path: &Path, _control: &Control) -> Result<Self, Error> {
        let file = open(path)?;
        file.try_lock_shared().map_err(|error| at("lock", path)(error.into()))?;
        Ok(Self(file))
    }

    /// Counts this process out; returns whether it was the last.
    ///
    /// # Errors
    /// [`Error::Io`] when the lock cannot be tried.
    pub(super) fn leave(&self, path: &Path, _control: &Control) -> Result<bool, Error> {
        self.0.unlock().map_err(at("unlock", path))?;
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(source)) => Err(at("lock", path)(source)),
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Opens a lock file, never truncating nor inheriting it to a child.
fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(at("open", path))
}
