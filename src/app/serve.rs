//! `doc-server serve`: both doors open, until a signal.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpListener;

use super::{
    App, Error, LEAVE_WITHIN,
    arguments::ServeFlags,
    reload::{Hook, Reload, Source},
};
use crate::{
    admin,
    api::{
        self,
        identity::{Access, AdminDoor, Open},
        rate_limit::Limits,
    },
    config::{self, EmbedProvider, Given, Settings},
    health::{self, Health},
    index::{Catalog, cleanup},
    runtime::{
        allocator,
        lifecycle::{Ended, Lifecycle, Signals},
        listen::{self, tls::Certificates},
        metrics,
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
    front: listen::Config,
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
    let tls = match settings.tls_files() {
        Some((certificate, key)) => Some(Certificates::open(certificate, key, settings.listen_http2).await?),
        None => None,
    };
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
    let front = listen::Config { tls, ..settings.listen() };
    outer.spawn("admin", listen::serve_task(private, admin::router(door), behind(&front), outer.clone()));
    outer.spawn("metrics", metrics::upkeep_task(recorder, outer.stopping()));
    lifecycle.spawn("reload", reload.reload_task(lifecycle.stopping()));
    let served = serve(&settings, flags, Doors { public, front, lifecycle, opened }, &mut signals).await;
    outer.close(DOOR_CLOSES_WITHIN).await;
    served
}

/// Opens the database and the public door, and leaves in order.
async fn serve(settings: &Settings, flags: &ServeFlags, doors: Doors, signals: &mut Signals) -> Result<(), Error> {
    let Doors { public, front, lifecycle, opened } = doors;
    let app = tokio::select! {
        app = App::open_in(settings, lifecycle.clone()) => app?,
        _ = signals.next() => return Err(Error::Interrupted),
    };
    let access = match prepare(&app, settings, flags).await {
        Ok(access) => access,
        Err(error) => {
            app.close().await;
            return Err(error);
        }
    };
    let health = Arc::new(Health::new(app.embedder.clone(), app.shared.clone()));
    health.probe(&app.index).await;
    start_tasks(&app, settings, &health);
    let state = api::State {
        search: app.search.clone(),
        index: app.index.clone(),
        health: Arc::clone(&health),
        access: access.clone(),
        max_body_bytes: settings.max_body_bytes,
        cors_origins: settings.cors_origins.clone(),
        deadline: settings.deadline(),
        limits: Limits::new(settings.rate_limits(), app.shared.clone()),
        leaving: lifecycle.leaving(),
    };
    let scheme = if front.tls.is_some() { "https" } else { "http" };
    if let Some(certificates) = &front.tls {
        lifecycle.spawn("certificate", Arc::clone(certificates).watch_task(lifecycle.stopping()));
    }
    lifecycle.spawn("api", listen::serve_task(public, api::front(state), front, lifecycle.clone()));
    open_inside(
        &opened,
        health,
        &app,
        AdminDoor { access, loopback: settings.admin_bind.ip().is_loopback() },
        settings,
    );
    tracing::info!("listening on {scheme}://{} (metrics and probes on http://{})", settings.bind, settings.admin_bind);
    let ended = lifecycle.finish(signals, settings.drain_delay()).await;
    app.leave(signals, if ended == Ended::AtOnce { AT_ONCE } else { LEAVE_WITHIN }).await;
    if ended == Ended::Well {
        return Ok(());
    }
    Err(Error::Failed("did not stop in order; the log says why".to_owned()))
}

/// The private door has the bounds of the front one, and speaks HTTP/1 without TLS: probes and Prometheus do.
fn behind(front: &listen::Config) -> listen::Config {
    let http2 = listen::Http2 { cleartext: false, ..front.http2 };
    listen::Config { door: "admin", http2, tls: None, ..front.clone() }
}

/// Gives the private door what it has below `/debug`, and readiness.
fn open_inside(opened: &admin::Opened, health: Arc<Health>, app: &App, door: AdminDoor, settings: &Settings) {
    let leaving = app.lifecycle.leaving();
    let profiles = door.clone().guard(admin::profiles(), leaving.clone());
    let debug = api::debug::State {
        search: app.search.clone(),
        max_body_bytes: settings.max_body_bytes,
        deadline: settings.deadline(),
        door,
        leaving,
    };
    opened.set(health, profiles.merge(api::debug::router(debug)));
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
