//! `doc-server serve`: both doors open, until a signal.

use std::{sync::Arc, time::Duration};

use super::{App, Error, arguments::ServeFlags};
use crate::{
    admin, api,
    config::{EmbedProvider, Settings},
    health::{self, Health},
    index::cleanup,
    runtime::{
        lifecycle::Signals,
        listen::{self, tls::Certificates},
        metrics,
    },
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
    let tls = match settings.tls_files() {
        Some((certificate, key)) => Some(Certificates::open(certificate, key, settings.listen_http2).await?),
        None => None,
    };
    let mut signals = Signals::listen().map_err(|error| Error::Failed(format!("cannot handle signals: {error}")))?;
    settings.require_library()?;
    let recorder = metrics::install().map_err(|error| Error::Failed(format!("cannot start metrics: {error}")))?;
    let app = tokio::select! {
        app = App::open(&settings) => app?,
        () = signals.next() => return Err(Error::Interrupted),
    };
    if let Err(error) = prepare(&app, &settings, flags).await {
        app.close().await;
        return Err(error);
    }
    let health = Arc::new(Health::new(app.embedder.clone(), app.shared.clone()));
    health.probe(&app.index).await;
    start_tasks(&app, &settings, &health);
    let lifecycle = &app.lifecycle;
    let state = api::State {
        search: app.search.clone(),
        index: app.index.clone(),
        health: Arc::clone(&health),
        max_body_bytes: settings.max_body_bytes,
        deadline: settings.deadline(),
    };
    let debug = api::debug::router(api::debug::State {
        search: app.search.clone(),
        max_body_bytes: settings.max_body_bytes,
        deadline: settings.deadline(),
        loopback: settings.admin_bind.ip().is_loopback(),
    });
    let door = admin::State { metrics: recorder, health, stopping: lifecycle.stopping() };
    let scheme = if tls.is_some() { "https" } else { "http" };
    tracing::info!("listening on {scheme}://{} (metrics and probes on http://{})", settings.bind, settings.admin_bind);
    if let Some(certificates) = &tls {
        lifecycle.spawn("certificate", Arc::clone(certificates).watch_task(lifecycle.stopping()));
    }
    let front = listen::Config { tls, ..settings.listen() };
    let back = listen::Config {
        door: "admin",
        http2: listen::Http2 { cleartext: false, ..front.http2 },
        tls: None,
        ..front.clone()
    };
    lifecycle.spawn("metrics", metrics::upkeep_task(door.metrics.clone(), lifecycle.stopping()));
    lifecycle.spawn("api", listen::serve_task(public, api::router(state), front, lifecycle.clone()));
    lifecycle.spawn("admin", listen::serve_task(private, admin::router(door, debug), back, lifecycle.clone()));
    let well = lifecycle.finish(&mut signals).await;
    app.leave(&mut signals).await;
    if well { Ok(()) } else { Err(Error::Failed("did not stop in order; the log says why".to_owned())) }
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
