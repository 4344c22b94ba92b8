//! What the caches, coalescing and pools bring. Each part prints both sides of its figure from one run.
//!
//! ```text
//! cargo bench --bench performance_benchmarks                 all parts but `layout`
//! cargo bench --bench performance_benchmarks -- identical    1,000 callers with one question | the work done for them
//! cargo bench --bench performance_benchmarks -- cached       a cached search | nginx with the same bytes as a file (wrk)
//! cargo bench --bench performance_benchmarks -- layers       a cached search behind ids, metrics, keys, limits | without them
//! cargo bench --bench performance_benchmarks -- shared       an answer from Redis | redis-benchmark GET of the same bytes
//! cargo bench --bench performance_benchmarks -- zipf         database searches of 200,000 requests | caches off
//! cargo bench --bench performance_benchmarks -- caches       throughput and latency with caches | without
//! cargo bench --bench performance_benchmarks -- connections  cached p99 with 1,000 open connections | with 64
//! cargo bench --bench performance_benchmarks -- memory       resident memory of `serve` while 1,000,000 keys pass
//! cargo bench --bench performance_benchmarks -- pools        uncached searches by size of the read pool
//! cargo bench --bench performance_benchmarks -- scrape       one look at the metrics of a full process
//! cargo bench --bench performance_benchmarks -- layout       HNSW and IVFFlat: recall, latency, build, size
//! cargo bench --bench performance_benchmarks -- --texts FOLDER …   chunks from FOLDER/corpus.jsonl
//! ```
//!
//! `layout` makes 260,000 chunks, which takes long, so it runs only when named. nginx, wrk and redis-benchmark come from
//! `scripts/setup bench`; a part that lacks one says so. Databases are made beside the configured one and kept.
//!
//! Under `cargo test` it checks counts instead, never times: the same parts on little data, beside the throw-away Postgres of
//! `DOC_SERVER_TEST_DATABASE_URL`, or beside one it starts. A check that fails ends it with an error.

#[path = "search/data.rs"]
mod data;
#[path = "search/figures.rs"]
mod figures;
#[path = "search/http.rs"]
mod http;
mod performance;
#[path = "search/place.rs"]
mod place;
#[path = "search/texts.rs"]
mod texts;

use std::{path::PathBuf, process::Command};

use doc_server::config::Settings;

use self::{
    performance::{Ground, PARTS},
    place::Place,
};

/// What every part can fail with: a sentence is enough.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The throw-away Postgres of tests.
const TEST_DATABASE: &str = "DOC_SERVER_TEST_DATABASE_URL";

/// What the command line asks for.
struct Plan {
    parts: Vec<&'static str>,
    texts: Option<PathBuf>,
    /// Measure; else check.
    full: bool,
}

fn main() -> Result<(), Failure> {
    let plan = Plan::from_arguments();
    if plan.parts.is_empty() {
        return Ok(());
    }
    if !plan.full && std::env::var_os(TEST_DATABASE).is_none() {
        return beside_postgres();
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&plan))
}

impl Plan {
    /// `cargo bench` passes `--bench`; `cargo test` passes filters that are parts of tests' names, and its own flags.
    fn from_arguments() -> Self {
        let (mut named, mut texts, mut full, mut list) = (Vec::new(), None, false, false);
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--texts" => texts = arguments.next().map(PathBuf::from),
                "--skip" | "--test-threads" | "--format" | "--color" => drop(arguments.next()),
                "--bench" => full = true,
                "--list" => list = true,
                flag if flag.starts_with('-') => {}
                _ => named.push(argument),
            }
        }
        let wanted = |part: &'static str, usual: bool| match named.is_empty() {
            true => usual,
            false if full => named.iter().any(|name| name == part),
            false => named.iter().any(|name| format!("performance_benchmarks::{part}").contains(name)),
        };
        let parts = PARTS.iter().filter(|(_, _, checked)| full || *checked);
        let parts = parts.filter(|(part, measured, checked)| wanted(part, if full { *measured } else { *checked }));
        let parts = parts.map(|(part, ..)| *part).filter(|_| !list).collect();
        Self { parts, texts, full }
    }
}

async fn run(plan: &Plan) -> Result<(), Failure> {
    let mut settings = Settings::read(None, &[])?;
    if !plan.full {
        settings.database_url = std::env::var(TEST_DATABASE)?;
    }
    let place = Place::open(settings).await?;
    let texts = texts::read(plan.texts.as_deref())?;
    let ground = Ground::open(&place, texts, plan.full).await;
    let ran = match ground {
        Ok(ground) => performance::run(&ground, &plan.parts).await,
        Err(error) => Err(error),
    };
    place.close().await?;
    ran
}

/// Runs this program again beside a throw-away Postgres.
fn beside_postgres() -> Result<(), Failure> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/with-postgres");
    let status = Command::new(script).arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).status()?;
    if status.success() { Ok(()) } else { Err(format!("{script}: {status}").into()) }
}
