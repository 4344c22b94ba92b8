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
mod figures;
mod http;
mod hybrid;
mod import;
mod memory;
mod pgbench;
mod place;
mod statements;
mod texts;
mod throughput;
mod vector;

use std::path::PathBuf;

use doc_server::config::Settings;

use self::{
    figures::{median, print_ratio},
    place::Place,
};

/// What every part can fail with: a sentence is enough.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the command line asks for.
struct Plan {
    parts: Vec<String>,
    texts: Option<PathBuf>,
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
    let place = Place::open(Settings::read(None, &[])?).await?;
    let settings = place.database("_bench").await?;
    let texts = texts::read(plan.texts.as_deref())?;
    let prepared = async {
        if plan.wants("import") {
            import::run(&settings, &texts).await?;
        }
        if ["vector", "hybrid", "memory", "statements"].iter().any(|part| plan.wants(part)) {
            data::prepare(&settings, &texts, data::USUAL).await?;
        }
        if plan.wants("vector") {
            vector::run(&settings, &texts).await?;
        }
        if plan.wants("hybrid") {
            hybrid::run(&settings, &texts).await?;
        }
        if plan.wants("statements") {
            statements::run(&settings, &texts).await?;
        }
        if plan.wants("memory") {
            memory::run(&settings, &texts).await?;
        }
        Ok(())
    };
    let result = prepared.await;
    place.close().await?;
    result
}
