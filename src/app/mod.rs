//! The composition root: settings to running parts, and the roles of the binary.
//!
//! The only place that constructs things. Each role is one file: open what it needs, do its work, leave in order.

pub mod arguments;
mod eval;
mod explain;
mod healthcheck;
mod index;
mod ingest;
mod keys;
pub mod reload;
mod search;
mod serve;
mod sources;
mod terminal;

use std::{sync::Arc, time::Duration};

use arguments::{Arguments, Command};
use clap::{CommandFactory, Parser};
use reload::Source;

use crate::{
    cache::shared::Shared,
    config::{self, EmbedProvider, Settings},
    embed::{self, Embedder},
    index::{Error as IndexError, Index, cluster, cluster::Cluster, database},
    runtime::{
        lifecycle::{Lifecycle, Signals},
        listen, telemetry,
    },
    search::{Parts, Search},
};

/// Why a role could not do its work. Printed for a person; the process exits with [`Error::exit_code`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that cannot be used.
    #[error(transparent)]
    Settings(#[from] config::Error),
    /// Logging could not start.
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
    /// The embedded database cannot run.
    #[error("the embedded database cannot be used: {0}")]
    Cluster(#[from] cluster::Error),
    /// The database cannot be used.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The model cannot be used.
    #[error(transparent)]
    Embed(#[from] embed::Error),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] listen::Error),
    /// The work failed.
    #[error(transparent)]
    Work(#[from] crate::error::Error),
    /// Anything else, in a sentence.
    #[error("{0}")]
    Failed(String),
    /// Stopped by a signal before it was done.
    #[error("interrupted; run it again to go on")]
    Interrupted,
}

impl Error {
    /// 64 for a command line or settings that cannot be used (sysexits' `EX_USAGE`), 130 after Ctrl-C, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_) => 64,
            Self::Interrupted => 130,
            _ => 1,
        }
    }
}

/// A person at a terminal rather waits for a busy database than tries again; a server's caller is told to come back.
const PATIENCE_MS: u64 = 5_000;

/// How long a command that was interrupted waits for what it has begun: a batch of the model takes a fraction of it.
const TASKS_END_WITHIN: Duration = Duration::from_secs(2);

/// For closing connections and stopping the embedded database. With the 17 s that tasks have and the doors' second, under 25 s.
const LEAVE_WITHIN: Duration = Duration::from_secs(6);

/// What is left of the 25 s of a stop for the last spans.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// Reads the command line and the settings, and plays the role they name.
///
/// # Errors
/// When the role could not do its work.
pub async fn run() -> Result<(), Error> {
    let arguments = Arguments::parse();
    match &arguments.command {
        Command::Openapi => return print_openapi(),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Arguments::command(), "doc-server", &mut std::io::stdout());
            return Ok(());
        }
        _ => {}
    }
    let flags = arguments.settings.overrides(&arguments.command);
    let source = Source { file: arguments.settings.config.clone(), flags };
    let (mut settings, given) = source.read()?;
    let is_server = matches!(arguments.command, Command::Serve(_));
    if !is_server {
        settings.database_acquire_timeout_ms = settings.database_acquire_timeout_ms.max(PATIENCE_MS);
    }
    let telemetry = telemetry::install(&telemetry::Config {
        format: settings.log_format,
        filter: log_filter(&settings, &arguments.command),
        export: settings.export().filter(|_| is_server),
    })?;
    match arguments.command {
        Command::Serve(flags) => {
            let hooks = reload::usual_hooks(telemetry.clone());
            let served = serve::run(settings, &flags, serve::Reloading { source, given, hooks }).await;
            // Blocks; nothing else is left to run.
            telemetry.close(FLUSH_WITHIN);
            served
        }
        Command::Migrate => migrate(settings).await,
        Command::Ingest(flags) => ingest::run(settings, &flags).await,
        Command::Search(flags) => search::run(settings, &flags).await,
        Command::Explain(flags) => explain::run(settings, &flags).await,
        Command::Index(flags) => index::run(settings, &flags).await,
        Command::Sources(command) => sources::run(settings, command).await,
        Command::Keys(command) => keys::run(settings, command).await,
        Command::Eval(flags) => eval::run(settings, &flags).await,
        Command::Healthcheck => healthcheck::run(&settings).await,
        Command::Openapi | Command::Completions { .. } => Ok(()),
    }
}

/// Roles that talk to a person say on the log only what went wrong, unless asked for more.
fn log_filter(settings: &Settings, command: &Command) -> String {
    let quiet = !matches!(command, Command::Serve(_)) && settings.log_level == Settings::default().log_level;
    if quiet { "warn".to_owned() } else { settings.log_level.clone() }
}

/// The parts that every role but the simplest needs.
pub struct App {
    /// Tokens and tracked tasks.
    pub lifecycle: Lifecycle,
    /// The database.
    pub index: Index,
    /// The model.
    pub embedder: Embedder,
    /// The cache that replicas have in common, where there is one.
    pub shared: Option<Shared>,
    /// The path of a search.
    pub search: Search,
    cluster: Option<Arc<Cluster>>,
}

impl App {
    /// Opens the database (the embedded one unless another is configured) and puts the parts together. Loads no model.
    ///
    /// # Errors
    /// Says what is missing and what to do.
    pub async fn open(settings: &Settings) -> Result<Self, Error> {
        Self::open_in(settings, Lifecycle::new()).await
    }

    /// As [`App::open`], in a lifecycle that has begun.
    ///
    /// # Errors
    /// As [`App::open`].
    pub async fn open_in(settings: &Settings, lifecycle: Lifecycle) -> Result<Self, Error> {
        Box::pin(Self::open_database(settings, None, lifecycle)).await
    }

    /// As [`App::open`], on a database beside the configured one: its name has this suffix, and it is made when missing.
    ///
    /// # Errors
    /// As [`App::open`]; also when the database may not be made.
    pub async fn open_beside(settings: &Settings, suffix: &str) -> Result<Self, Error> {
        Box::pin(Self::open_database(settings, Some(suffix), Lifecycle::new())).await
    }

    async fn open_database(settings: &Settings, suffix: Option<&str>, lifecycle: Lifecycle) -> Result<Self, Error> {
        let embedder = Embedder::new(settings.embed()?, &lifecycle)?;
        let (options, cluster) = if settings.database_url.is_empty() {
            let cluster = Cluster::open(&settings.cluster()).await?;
            (cluster.connect_options(), Some(Arc::new(cluster)))
        } else {
            let options = crate::index::parse_url(&settings.database_url)
                .map_err(|message| config::Error::Invalid { setting: "database_url", message })?;
            (options, None)
        };
        let connected = async {
            let mut config = settings.index();
            let options = match suffix {
                Some(suffix) => {
                    // Only the primary has it, and poolers know the databases they were told of.
                    config.replicas.clear();
                    config.pool.transaction_pooling = false;
                    database::beside(&config.direct.take().unwrap_or(options), suffix).await?
                }
                None => options,
            };
            Index::connect(options, config).await
        };
        let index = match connected.await {
            Ok(index) => index,
            Err(error) => {
                leave(cluster).await;
                return Err(error.into());
            }
        };
        let shared = match Shared::new(&settings.redis(), &lifecycle) {
            Ok(shared) => shared,
            Err(error) => {
                index.close().await;
                leave(cluster).await;
                return Err(config::Error::from(error).into());
            }
        };
        let parts = Parts { index: index.clone(), embedder: embedder.clone(), shared: shared.clone() };
        let search = Search::new(parts, settings.search(), &lifecycle);
        Ok(Self { lifecycle, index, embedder, shared, search, cluster })
    }

    /// Does `work` on a schema that is up to date, until it is done or a signal arrives, then leaves in order.
    ///
    /// # Errors
    /// What the work failed with.
    pub async fn run<T>(self, work: impl AsyncFnOnce(&Self) -> Result<T, Error>) -> Result<T, Error> {
        let mut signals =
            Signals::listen().map_err(|error| Error::Failed(format!("cannot handle signals: {error}")))?;
        let done = tokio::select! {
            done = Box::pin(async {
                self.index.migrate().await?;
                work(&self).await
            }) => done,
            _ = signals.next() => Err(Error::Interrupted),
        };
        // A model that computed on while the process ended would complain of what is taken from under it.
        self.lifecycle.close(TASKS_END_WITHIN).await;
        self.leave(&mut signals, LEAVE_WITHIN).await;
        done
    }

    /// Leaves in order, at once on a signal, or after `within`: a database that hangs must not hold the process.
    pub async fn leave(self, signals: &mut Signals, within: Duration) {
        tokio::select! {
            closed = tokio::time::timeout(within, self.close()) => if closed.is_err() {
                tracing::warn!("the database did not let go in time; left without it");
            },
            _ = signals.next() => tracing::warn!("asked again; left at once"),
        }
    }

    /// Leaves in order: tasks, connections, then the embedded database.
    pub async fn close(self) {
        self.lifecycle.stop();
        self.index.close().await;
        drop((self.index, self.search, self.embedder));
        leave(self.cluster).await;
    }
}

async fn leave(cluster: Option<Arc<Cluster>>) {
    let Some(cluster) = cluster.and_then(Arc::into_inner) else { return };
    if let Err(error) = cluster.close().await {
        tracing::error!(%error, "the embedded database did not stop in order");
    }
}

async fn migrate(settings: Settings) -> Result<(), Error> {
    let app = App::open(&settings).await?;
    let applied = app.index.migrate().await;
    app.close().await;
    match applied? {
        0 => println!("the schema is up to date"),
        applied => println!("applied {applied} migrations"),
    }
    Ok(())
}

fn print_openapi() -> Result<(), Error> {
    let text = crate::api::openapi().to_pretty_json().map_err(|error| Error::Failed(error.to_string()))?;
    println!("{text}");
    Ok(())
}

impl Settings {
    /// The embedding stage's settings.
    ///
    /// # Errors
    /// When the manifest of the model's files cannot be read.
    pub fn embed(&self) -> Result<embed::Config, config::Error> {
        let backend = match self.embed_provider {
            EmbedProvider::Local => {
                let model = self.data_dir.join("runtime/models/all-MiniLM-L6-v2");
                let mut local = embed::LocalConfig::new(
                    self.library(),
                    self.model_dir.clone().unwrap_or(model),
                    self.model_precision,
                );
                local.sessions = self.embed_sessions;
                local.hub = self.hub()?;
                embed::Backend::Local(local)
            }
            EmbedProvider::Remote => {
                let mut remote = embed::RemoteConfig::new(self.embed_url.clone(), self.embed_model.clone());
                remote.dimensions = (self.embed_dimensions > 0).then_some(self.embed_dimensions);
                remote.api_key =
                    (!self.embed_api_key.0.is_empty()).then(|| embed::ApiKey::new(self.embed_api_key.0.clone()));
                embed::Backend::Remote(remote)
            }
            EmbedProvider::Fake => embed::Backend::Fake(embed::FakeConfig::default()),
        };
        Ok(embed::Config { backend, queue_capacity: self.embed_queue_capacity })
    }

    /// Where missing files of the model are fetched from, if anywhere.
    fn hub(&self) -> Result<Option<embed::Hub>, config::Error> {
        let Some(manifest) = &self.model_manifest else { return Ok(None) };
        let invalid = |message: String| config::Error::Invalid { setting: "model_manifest", message };
        let text = std::fs::read_to_string(manifest)
            .map_err(|error| invalid(format!("cannot read {}: {error}", manifest.display())))?;
        let files = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                let (sha256, path) =
                    line.split_once("  ").filter(|(sha256, _)| sha256.len() == 64).ok_or_else(|| {
                        invalid(format!("{line:?} is not a line of sha256sum: a checksum, two spaces, a path"))
                    })?;
                let name = path.rsplit('/').next().unwrap_or(path).to_owned();
                Ok(embed::HubFile { path: path.to_owned(), name, sha256: sha256.to_owned() })
            })
            .collect::<Result<_, config::Error>>()?;
        Ok(Some(embed::Hub { url: self.model_hub.clone(), files }))
    }

    /// What a search needs of this machine, checked before anything is started: a lazy model must not hide that it is
    /// missing until the first caller.
    ///
    /// # Errors
    /// Names the file, the setting and the command that makes it.
    fn require_library(&self) -> Result<(), config::Error> {
        let library = self.library();
        if self.embed_provider == EmbedProvider::Local && !library.is_file() {
            let message = format!("{} is missing; run `scripts/setup run`, or name the library", library.display());
            return Err(config::Error::Invalid { setting: "onnxruntime", message });
        }
        Ok(())
    }

    fn library(&self) -> std::path::PathBuf {
        let made = || self.data_dir.join("runtime/onnxruntime/libonnxruntime.so");
        self.onnxruntime.clone().unwrap_or_else(made)
    }
}
