//! SIGHUP: the settings are read again, and those that can change without a restart do.
//!
//! Each part that can change has one [`Hook`]. A file that cannot be used changes nothing. Settings without a hook are named in the log as needing
//! a restart, at each signal until there was one. Values are never logged.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Given, Settings},
    runtime::{allocator, telemetry::Telemetry},
};

/// Where the settings came from, to read them again.
#[derive(Clone, Debug)]
pub struct Source {
    /// The settings file, if one was named.
    pub file: Option<PathBuf>,
    /// Flags of the command line.
    pub flags: Vec<(&'static str, String)>,
}

impl Source {
    /// Reads the settings.
    ///
    /// # Errors
    /// Names the key and the reason.
    pub fn read(&self) -> Result<(Settings, Given), config::Error> {
        Settings::read_given(self.file.as_deref().map(Path::new), &self.flags)
    }
}

/// Takes settings, or says why a part goes on with the old ones. May block.
pub type Apply = dyn Fn(&Settings) -> Result<(), String> + Send + Sync;

/// One part that takes settings while it runs.
pub struct Hook {
    /// The settings it takes.
    pub keys: &'static [&'static str],
    /// Whether it runs only when one of them has changed. A file that a setting names (a certificate) changes while the setting
    /// does not.
    pub only_when_changed: bool,
    /// Takes them.
    pub apply: Box<Apply>,
}

/// Settings that a signal reads again.
pub struct Reload {
    source: Source,
    /// What the process runs with.
    running: Given,
    hooks: Vec<Hook>,
    hangup: Signal,
}

impl Reload {
    /// Takes SIGHUP over from its default, which is to end the process.
    ///
    /// # Errors
    /// When the handler cannot be installed.
    pub fn listen(source: Source, running: Given, hooks: Vec<Hook>) -> std::io::Result<Self> {
        Ok(Self { source, running, hooks, hangup: signal(SignalKind::hangup())? })
    }

    /// Reads and applies the settings at each signal until `stopping`.
    ///
    /// # Errors
    /// Never; the signature is that of a background task.
    pub async fn reload_task(self, stopping: CancellationToken) -> Result<(), Infallible> {
        let Self { source, mut running, hooks, mut hangup } = self;
        let (source, hooks) = (Arc::new(source), Arc::new(hooks));
        while stopping.run_until_cancelled(hangup.recv()).await.is_some() {
            let (source, hooks, before) = (Arc::clone(&source), Arc::clone(&hooks), running.clone());
            // Reads files, and may wait for a heap profile that is being written.
            let applied = tokio::task::spawn_blocking(move || reload(&source, &hooks, before)).await;
            match applied {
                Ok(now) => running = now,
                Err(panic) => tracing::error!(%panic, "reloading the settings panicked; kept the old ones"),
            }
        }
        Ok(())
    }
}

/// What the process runs with from now on.
fn reload(source: &Source, hooks: &[Hook], mut running: Given) -> Given {
    let (settings, given) = match source.read() {
        Ok(read) => read,
        Err(error) => {
            tracing::error!(%error, "the settings cannot be used; kept the old ones");
            return running;
        }
    };
    let changed = running.differing(&given);
    for Hook { keys, only_when_changed, apply } in hooks {
        let own: BTreeSet<String> = changed.iter().filter(|key| keys.contains(&key.as_str())).cloned().collect();
        if *only_when_changed && own.is_empty() {
            continue;
        }
        match apply(&settings) {
            Ok(()) => {
                tracing::info!(settings = ?keys, "reloaded");
                running.take(&given, &own);
            }
            Err(error) => tracing::error!(settings = ?keys, %error, "cannot be reloaded; kept the old ones"),
        }
    }
    let hooked = |key: &str| hooks.iter().any(|hook| hook.keys.contains(&key));
    let later: Vec<String> = changed.into_iter().filter(|key| !hooked(key)).collect();
    if !later.is_empty() {
        tracing::warn!(settings = ?later, "changed settings take effect after a restart only");
    }
    tracing::info!("read the settings again");
    running
}

/// The hooks of what this process always has.
pub fn usual_hooks(telemetry: Telemetry) -> Vec<Hook> {
    let log = move |settings: &Settings| telemetry.set_filter(&settings.log_level).map_err(|error| error.to_string());
    let heap =
        |settings: &Settings| allocator::set_heap_profiling(settings.heap_profiling).map_err(|error| error.to_string());
    vec![
        Hook { keys: &["log_level"], only_when_changed: true, apply: Box::new(log) },
        // What was switched by hand meanwhile stays, unless the setting has changed too.
        Hook { keys: &["heap_profiling"], only_when_changed: true, apply: Box::new(heap) },
    ]
}
