//! `doc-server serve` as a process of its own, on a test's database, with its log; and an embedding provider to hold it by.

use std::{
    net::SocketAddr,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Json, Router, extract::State, http::HeaderMap, routing::post};
use doc_server::runtime::lifecycle::Lifecycle;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::sync::watch;

use super::{
    database::Database,
    fixtures::GUIDE,
    folder_of, install_tls,
    process::{Running, doc_server, free_addresses, run},
    within,
};

/// A debug build on a busy machine takes seconds to start.
const START: Duration = Duration::from_mins(1);

/// A running server; killed when the test ends before it.
pub struct Served {
    /// The front door.
    pub public: SocketAddr,
    /// The private door.
    pub private: SocketAddr,
    /// Keeps no connection, so that each request shows whether the listener lets new ones in.
    pub client: reqwest::Client,
    running: Running,
    log: NamedTempFile,
}

impl Served {
    /// Starts it with the fake model and more settings or flags (those begin with `--`); does not wait.
    pub fn spawn(database_url: &str, settings: &[(&str, &str)]) -> Self {
        let doors = free_addresses();
        Self::run_command(&mut serving(database_url, doors, settings), doors)
    }

    /// Starts `command`, which listens at these addresses; does not wait.
    pub fn run_command(command: &mut Command, (public, private): (SocketAddr, SocketAddr)) -> Self {
        install_tls();
        let log = NamedTempFile::new().expect("a log");
        let running = Running::start_logging(command, log.reopen().expect("the log"));
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).no_proxy().timeout(START);
        Self { public, private, client: client.build().expect("a client"), running, log }
    }

    /// Starts it and waits until it is ready.
    pub async fn start(database: &Database, settings: &[(&str, &str)]) -> Self {
        let mut served = Self::spawn(&database.url(), settings);
        served.ready().await;
        served
    }

    /// Returns once it is ready.
    pub async fn ready(&mut self) {
        let began = Instant::now();
        while self.readiness().await.0 != 200 {
            assert!(self.running.is_running() && began.elapsed() < START, "not ready: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What `/readyz` says; 0 when nobody listens.
    pub async fn readiness(&self) -> (u16, String) {
        self.try_get(self.private, "/readyz").await.unwrap_or_default()
    }

    /// Status and body; none when nobody listens.
    pub async fn try_get(&self, door: SocketAddr, path: &str) -> Option<(u16, String)> {
        let answer = self.client.get(format!("http://{door}{path}")).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// Status and body at the front door.
    pub async fn get(&self, path: &str) -> (u16, String) {
        self.try_get(self.public, path).await.unwrap_or_else(|| panic!("{path}: {}", self.log()))
    }

    /// Status and body at the private door.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        self.try_get(self.private, path).await.unwrap_or_else(|| panic!("{path}: {}", self.log()))
    }

    /// Sends a signal such as `TERM`.
    pub fn signal(&self, name: &str) {
        self.running.signal(name);
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log.path()).expect("the log")).into_owned()
    }

    /// Returns once the log has `text`.
    pub async fn logged(&self, text: &str) {
        within(START, &format!("{text:?} in the log"), async || self.log().contains(text)).await;
    }

    /// Its exit code and log, once it has ended.
    pub async fn ended(self, patience: Duration) -> (Option<i32>, String) {
        let Self { running, log, .. } = self;
        let code = tokio::task::spawn_blocking(move || running.wait(patience)).await.expect("its end");
        (code, String::from_utf8_lossy(&std::fs::read(log.path()).expect("the log")).into_owned())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.running.is_running()
    }
}

/// `serve` at these doors.
pub fn serving(database_url: &str, (public, private): (SocketAddr, SocketAddr), settings: &[(&str, &str)]) -> Command {
    let mut command = role(&["serve"], database_url, settings);
    command.env("DOC_SERVER_BIND", public.to_string()).env("DOC_SERVER_ADMIN_BIND", private.to_string());
    command
}

/// A role of the binary with these settings: in small letters for the environment, `--flag` for the command line, and in
/// capitals for variables that are not ours.
fn role(arguments: &[&str], database_url: &str, settings: &[(&str, &str)]) -> Command {
    let mut command = doc_server(arguments);
    command
        .env("DOC_SERVER_DATABASE_URL", database_url)
        .env("DOC_SERVER_EMBED_PROVIDER", "fake")
        .env("DOC_SERVER_CACHE_WARM_SEARCHES", "0")
        // Two cores shared by all tests are slow, not faulty.
        .env("DOC_SERVER_DATABASE_ACQUIRE_TIMEOUT_MS", "5000");
    for (name, value) in settings {
        if name.starts_with("--") {
            command.args([name, value]);
        } else if name.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
            command.env(name, value);
        } else {
            command.env(format!("DOC_SERVER_{}", name.to_uppercase()), value);
        }
    }
    command
}

/// Imports the usual documents with these settings.
pub async fn ingest(database: &Database, settings: &[(&str, &str)]) {
    let folder = folder_of(&GUIDE);
    let path = folder.path().display().to_string();
    let arguments = ["ingest", &path, "--source", "guide", "--version", "1.0.0"];
    let mut command = role(&arguments, &database.url(), settings);
    let ended = tokio::task::spawn_blocking(move || run(&mut command)).await.expect("its end");
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
}

/// An embedding provider that can be held, and remembers what it was sent.
pub struct Provider {
    /// For `embed_url`.
    pub url: String,
    state: ProviderState,
    _lifecycle: Lifecycle,
}

#[derive(Clone)]
struct ProviderState {
    held: watch::Sender<bool>,
    waiting: Arc<AtomicUsize>,
    headers: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Provider {
    /// Starts it.
    pub async fn start() -> Self {
        let state = ProviderState { held: watch::Sender::new(false), waiting: Arc::default(), headers: Arc::default() };
        let router = Router::new().route("/v1/embeddings", post(embed)).with_state(state.clone());
        let (url, lifecycle) = serve(router).await;
        Self { url, state, _lifecycle: lifecycle }
    }

    /// Answers wait from now on, or no more.
    pub fn hold(&self, held: bool) {
        self.state.held.send_replace(held);
    }

    /// Calls that wait.
    pub fn waiting(&self) -> usize {
        self.state.waiting.load(Ordering::SeqCst)
    }

    /// The settings that lead to it.
    pub fn settings(&self) -> Vec<(&str, &str)> {
        let url = ("embed_url", self.url.as_str());
        vec![("embed_provider", "remote"), url, ("embed_model", "test"), ("embed_dimensions", "4")]
    }

    /// The headers of all calls so far.
    pub fn headers(&self) -> Vec<HeaderMap> {
        self.state.headers.lock().expect("the headers").clone()
    }
}

async fn embed(State(state): State<ProviderState>, headers: HeaderMap, Json(asked): Json<Value>) -> Json<Value> {
    state.headers.lock().expect("the headers").push(headers);
    state.waiting.fetch_add(1, Ordering::SeqCst);
    let _ = state.held.subscribe().wait_for(|held| !held).await;
    state.waiting.fetch_sub(1, Ordering::SeqCst);
    let texts = asked["input"].as_array().map_or(0, Vec::len);
    let data: Vec<Value> = (0..texts).map(|index| json!({"index": index, "embedding": [0.1, 0.2, 0.3, 0.4]})).collect();
    Json(json!({ "data": data }))
}

/// Serves `router` on a free port until the lifecycle is dropped with the test.
pub async fn serve(router: Router) -> (String, Lifecycle) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let lifecycle = Lifecycle::new();
    lifecycle.spawn("stand-in", async move { axum::serve(listener, router).await });
    (url, lifecycle)
}
