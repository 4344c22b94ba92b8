//! `doc-server serve`: both doors open, until a signal.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{App, Error, arguments::ServeFlags};
use crate::{
    admin,
    api::{
        self,
        identity::{Access, AdminDoor, Open},
        rate_limit::Limits,
    },
    config::{self, EmbedProvider, Settings},
    health::{self, Health},
    index::{Catalog, cleanup},
    runtime::{lifecycle::Signals, listen, metrics},
    search,
};

/// Runs the server until it is told to stop.
///
/// # Errors
/// When it cannot start, or a background task failed.
pub async fn run(settings: Settings, flags: &ServeFlags) -> Result<(), Error> {
    // Before anything slow: a taken port is told at once, and nothing is left half started.
    let public = listen::bind("bind", settings.bind).await?;
    let private = listen::bind("admin_bind", settings.admin_bind).await?;
    let mut signals = Signals::listen().map_err(|error| Error::Failed(format!("cannot handle signals: {error}")))?;
    settings.require_library()?;
    let recorder = metrics::install().map_err(|error| Error::Failed(format!("cannot start metrics: {error}")))?;
    let app = tokio::select! {
        app = App::open(&settings) => app?,
        () = signals.next() => return Err(Error::Interrupted),
    };
    let access = match prepare(&app, &settings, flags).await {
        Ok(access) => access,
        Err(error) => {
            app.close().await;
            return Err(error);
        }
    };
    let health = Arc::new(Health::new(app.embedder.clone(), app.shared.clone()));
    health.probe(&app.index).await;
    start_tasks(&app, &settings, &health);
    let (lifecycle, bounds) = (&app.lifecycle, settings.listen());
    let state = api::State {
        search: app.search.clone(),
        index: app.index.clone(),
        health: Arc::clone(&health),
        access: access.clone(),
        max_body_bytes: settings.max_body_bytes,
        cors_origins: settings.cors_origins.clone(),
        deadline: settings.deadline(),
        limits: Limits::new(settings.rate_limits(), app.shared.clone()),
    };
    let debug = api::debug::router(api::debug::State {
        search: app.search.clone(),
        max_body_bytes: settings.max_body_bytes,
        deadline: settings.deadline(),
        door: AdminDoor { access, loopback: settings.admin_bind.ip().is_loopback() },
    });
    let door = admin::State { metrics: recorder, health, stopping: lifecycle.stopping() };
    tracing::info!("listening on http://{} (metrics and probes on http://{})", settings.bind, settings.admin_bind);
    lifecycle.spawn("metrics", metrics::upkeep_task(door.metrics.clone(), lifecycle.stopping()));
    lifecycle.spawn("api", listen::serve_task(public, api::router(state), bounds, lifecycle.clone()));
    lifecycle.spawn("admin", listen::serve_task(private, admin::router(door, debug), bounds, lifecycle.clone()));
    let well = lifecycle.finish(&mut signals).await;
    app.leave(&mut signals).await;
    if well { Ok(()) } else { Err(Error::Failed("did not stop in order; the log says why".to_owned())) }
}

async fn prepare(app: &App, settings: &Settings, flags: &ServeFlags) -> Result<Access, Error> {
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
    let catalog = app.index.refresh_catalog().await?;
    access(app, settings, &catalog)
}

/// Who may do what. An address that others reach is never open by accident.
fn access(app: &App, settings: &Settings, catalog: &Catalog) -> Result<Access, Error> {
    let invalid = |setting, message| Error::from(config::Error::Invalid { setting, message });
    let without_key = settings.anonymous_scopes().map_err(|message| invalid("anonymous_scopes", message))?;
    let open = match settings.bind.ip().is_loopback() {
        _ if settings.insecure_open => Open::Always,
        true => Open::UntilFirstKey,
        false => Open::Never,
    };
    if open == Open::Never && without_key.is_empty() && !catalog.keys.any_is_valid() {
        return Err(invalid("bind", closed_to_all(settings.bind)));
    }
    if open == Open::Always {
        tracing::warn!(bind = %settings.bind, "insecure_open: whoever reaches this address may do everything, without a key");
    }
    Ok(Access::new(app.search.clone(), open, without_key))
}

fn closed_to_all(bind: SocketAddr) -> String {
    format!(
        "{bind} can be reached from other machines, and there is no valid key, so nobody could use it; make one with \
         `doc-server keys create --name admin --scope admin`, or name what callers without a key may do in \
         anonymous_scopes (search), or let them do everything with --insecure-open"
    )
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
