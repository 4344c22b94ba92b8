//! Search, import and memory against what they are made of, on 50,000 chunks. Each part prints both sides and the ratio.
//!
//! ```text
//! cargo bench --bench search                        all parts
//! cargo bench --bench search -- vector              uncached vector search over HTTP | pgbench, the same statements
//! cargo bench --bench search -- hybrid              a new query over HTTP | embedding it + the slower leg
//! cargo bench --bench search -- import              importing a folder | embedding its chunks
//! cargo bench --bench search -- memory              resident memory of `serve` and of Postgres after load
//! cargo bench --bench search -- statements          every slow statement | its first version, and the slowest of searches
//! cargo bench --bench search -- --texts FOLDER …    chunks from FOLDER/corpus.jsonl instead of this repository's texts
//! ```
//!
//! The database is made beside the configured one (`…_bench`) and kept for the next run. Needs what `scripts/setup run`
//! makes; settings come from the environment as for the server.

mod data;
mod http;
mod hybrid;
mod import;
mod memory;
mod pgbench;
mod statements;
mod texts;
mod vector;

use std::path::PathBuf;

use doc_server::{
    config::Settings,
    index::{cluster::Cluster, database},
};

/// What every part can fail with: a sentence is enough.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the command line asks for.
struct Plan {
    parts: Vec<String>,
    texts: Option<PathBuf>,
}

/// The settings with the benchmark's database, and what keeps it running.
struct Place {
    settings: Settings,
    cluster: Option<Cluster>,
}

fn main() -> Result<(), Failure> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&Plan::from_arguments()))
}

impl Plan {
    fn from_arguments() -> Self {
        let mut plan = Self { parts: Vec::new(), texts: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--texts" => plan.texts = arguments.next().map(PathBuf::from),
                flag if flag.starts_with('-') => {}
                _ => plan.parts.push(argument),
            }
        }
        plan
    }

    fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|wanted| wanted == part)
    }
}

async fn run(plan: &Plan) -> Result<(), Failure> {
    let place = Place::open("_bench").await?;
    let texts = texts::read(plan.texts.as_deref())?;
    let prepared = async {
        if plan.wants("import") {
            import::run(&place.settings, &texts).await?;
        }
        if ["vector", "hybrid", "memory", "statements"].iter().any(|part| plan.wants(part)) {
            data::prepare(&place.settings, &texts).await?;
        }
        if plan.wants("vector") {
            vector::run(&place.settings, &texts).await?;
        }
        if plan.wants("hybrid") {
            hybrid::run(&place.settings, &texts).await?;
        }
        if plan.wants("statements") {
            statements::run(&place.settings, &texts).await?;
        }
        if plan.wants("memory") {
            memory::run(&place.settings, &texts).await?;
        }
        Ok(())
    };
    let result = prepared.await;
    if let Some(cluster) = place.cluster {
        cluster.close().await?;
    }
    result
}

impl Place {
    /// The configured server, or the embedded one, with the database of this suffix.
    async fn open(suffix: &str) -> Result<Self, Failure> {
        let mut settings = Settings::read(None, &[])?;
        let mut cluster = None;
        if settings.database_url.is_empty() {
            let opened = Cluster::open(&settings.cluster()).await?;
            settings.database_url = opened.url();
            cluster = Some(opened);
        }
        database::beside(&settings.database_url.parse()?, suffix).await?;
        let (address, options) = settings.database_url.split_once('?').unwrap_or((&settings.database_url, ""));
        format!("{address}{suffix}?{options}").trim_end_matches('?').clone_into(&mut settings.database_url);
        Ok(Self { settings, cluster })
    }
}

/// One line with both sides and the ratio.
fn print_ratio(what: &str, ours: (f64, &str), theirs: (f64, &str), bounds: &str) {
    let (ratio, unit) = (ours.0 / theirs.0, ours.1);
    println!("{what}: {:.2} {unit} | {}: {:.2} {unit} | ratio {ratio:.2} ({bounds})", ours.0, theirs.1, theirs.0);
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
