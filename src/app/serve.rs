//! `doc-server serve`: both doors open, until a signal.

use std::{sync::Arc, time::Duration};

use tokio::net::TcpListener;

use super::{
    App, Error, LEAVE_WITHIN,
    arguments::ServeFlags,
    reload::{Hook, Reload, Source},
};
use crate::{
    admin, api,
    config::{EmbedProvider, Given, Settings},
    health::{self, Health},
    index::cleanup,
    runtime::{
        allocator,
        lifecycle::{Ended, Lifecycle, Signals},
        listen, metrics,
    },
    search,
};

/// For answers of the private door that are under way at the very end.
const DOOR_CLOSES_WITHIN: Duration = Duration::from_millis(500);

/// After a second signal: enough to end sessions and to tell an embedded database to stop.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What SIGHUP reads again, and who takes it.
pub struct Reloading {
    /// Where the settings came from.
    pub source: Source,
    /// What of them was given.
    pub given: Given,
    /// Who takes changes.
    pub hooks: Vec<Hook>,
}

/// The listeners and what they have in common.
struct Doors {
    public: TcpListener,
    lifecycle: Lifecycle,
    opened: admin::Opened,
}

/// Runs the server until it is told to stop.
///
/// # Errors
/// When it cannot start, or a background task failed.
pub async fn run(settings: Settings, flags: &ServeFlags, reloading: Reloading) -> Result<(), Error> {
    // Before anything slow: a taken port is told at once, and nothing is left half started.
    let public = listen::bind("bind", settings.bind).await?;
    let private = listen::bind("admin_bind", settings.admin_bind).await?;
    let failed = |what: &str, error: &dyn std::fmt::Display| Error::Failed(format!("cannot {what}: {error}"));
    let mut signals = Signals::listen().map_err(|error| failed("handle signals", &error))?;
    let Reloading { source, given, hooks } = reloading;
    let reload = Reload::listen(source, given, hooks).map_err(|error| failed("handle signals", &error))?;
    settings.require_library()?;
    let recorder = metrics::install().map_err(|error| failed("start metrics", &error))?;
    if settings.heap_profiling {
        let switched = tokio::task::spawn_blocking(|| allocator::set_heap_profiling(true)).await;
        switched
            .map_err(|error| failed("profile the heap", &error))?
            .map_err(|error| failed("profile the heap", &error))?;
    }
    // The private door outlives all else: it tells how the start and the end go.
    let (lifecycle, opened) = (Lifecycle::new(), admin::Opened::default());
    let outer = lifecycle.outliving();
    let door = admin::State { metrics: recorder.clone(), leaving: lifecycle.leaving(), opened: opened.clone() };
    outer.spawn("admin", listen::serve_task(private, admin::router(door), settings.listen(), outer.clone()));
    outer.spawn("metrics", metrics::upkeep_task(recorder, outer.stopping()));
    lifecycle.spawn("reload", reload.reload_task(lifecycle.stopping()));
    let served = serve(&settings, flags, Doors { public, lifecycle, opened }, &mut signals).await;
    outer.close(DOOR_CLOSES_WITHIN).await;
    served
}

/// Opens the database and the public door, and leaves in order.
async fn serve(settings: &Settings, flags: &ServeFlags, doors: Doors, signals: &mut Signals) -> Result<(), Error> {
    let Doors { public, lifecycle, opened } = doors;
    let app = tokio::select! {
        app = App::open_in(settings, lifecycle.clone()) => app?,
        _ = signals.next() => return Err(Error::Interrupted),
    };
    if let Err(error) = prepare(&app, settings, flags).await {
        app.close().await;
        return Err(error);
    }
    let health = Arc::new(Health::new(app.embedder.clone(), app.shared.clone()));
    health.probe(&app.index).await;
    start_tasks(&app, settings, &health);
    let state = api::State {
        search: app.search.clone(),
        index: app.index.clone(),
        health: Arc::clone(&health),
        max_body_bytes: settings.max_body_bytes,
        deadline: settings.deadline(),
        leaving: lifecycle.leaving(),
    };
    lifecycle.spawn("api", listen::serve_task(public, api::router(state), settings.listen(), lifecycle.clone()));
    open_inside(&opened, health, &app, settings);
    tracing::info!("listening on http://{} (metrics and probes on http://{})", settings.bind, settings.admin_bind);
    let ended = lifecycle.finish(signals, settings.drain_delay()).await;
    app.leave(signals, if ended == Ended::AtOnce { AT_ONCE } else { LEAVE_WITHIN }).await;
    if ended == Ended::Well {
        return Ok(());
    }
    Err(Error::Failed("did not stop in order; the log says why".to_owned()))
}

/// Gives the private door what it has below `/debug`, and readiness.
fn open_inside(opened: &admin::Opened, health: Arc<Health>, app: &App, settings: &Settings) {
    let (loopback, leaving) = (settings.admin_bind.ip().is_loopback(), app.lifecycle.leaving());
    let profiles = api::debug::guarded(admin::profiles(), loopback, leaving.clone());
    let debug = api::debug::State {
        search: app.search.clone(),
        max_body_bytes: settings.max_body_bytes,
        deadline: settings.deadline(),
        loopback,
        leaving,
    };
    opened.set(health, profiles.merge(api::debug::router(debug)));
}

async fn prepare(app: &App, settings: &Settings, flags: &ServeFlags) -> Result<(), Error> {
    // A lazy model must not hide until the first caller that it is missing. A provider may be away for now.
    if settings.embed_provider == EmbedProvider::Local && settings.model_hub.is_empty() {
        app.embedder.identity().await?;
    }
    if flags.no_migrate {
        app.index.require_migrated().await?;
    } else {
        let applied = app.index.migrate().await?;
        if applied > 0 {
            tracing::info!(applied, "applied migrations");
        }
    }
    app.index.refresh_catalog().await?;
    Ok(())
}

fn start_tasks(app: &App, settings: &Settings, health: &Arc<Health>) {
    let lifecycle = &app.lifecycle;
    app.index.follow(lifecycle);
    lifecycle.spawn("warm", search::warm_task(app.search.clone(), lifecycle.stopping()));
    lifecycle.spawn("caches", search::upkeep_task(app.search.clone(), lifecycle.stopping()));
    let retention = Duration::from_secs(settings.retention_s);
    lifecycle.spawn("cleanup", cleanup::cleanup_task(app.index.clone(), retention, lifecycle.stopping()));
    lifecycle.spawn("health", health::probe_task(Arc::clone(health), app.index.clone(), lifecycle.stopping()));
    if let Some(cluster) = &app.cluster {
        lifecycle.spawn("postgres", Arc::clone(cluster).supervise_task(lifecycle.clone()));
    }
}
