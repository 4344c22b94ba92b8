//! The embedding stage as its callers see it: queue, threads, tokenizer, model, pooling, normalising.
//!
//! `python3 benches/embed_onnxruntime.py` runs this beside Python's ONNX Runtime on the same files and prints both
//! sides with their ratio; `cargo bench --bench embed` runs this side alone. Needs what `scripts/setup run` makes.

use std::{path::PathBuf, sync::OnceLock};

use divan::{Bencher, black_box};
use doc_server::{
    embed::{Backend, Config, Embedder, LocalConfig, Precision},
    runtime::lifecycle::Lifecycle,
};
use tokio::runtime::Runtime;

/// Ten tokens with the two special ones; the Python side embeds the same.
const QUERY: &str = "how to set a connection pool timeout";

/// 256 tokens with the two special ones.
fn passage() -> String {
    "word ".repeat(254)
}

fn main() {
    divan::main();
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().expect("a runtime"))
}

fn embedder(precision: Precision, intra_threads: usize) -> Embedder {
    let data = std::env::var_os("DOC_SERVER_DATA_DIR").map_or_else(|| "/var/lib/doc-server".into(), PathBuf::from);
    let (library, model) = ("runtime/onnxruntime/libonnxruntime.so", "runtime/models/all-MiniLM-L6-v2");
    let local = LocalConfig { intra_threads, ..LocalConfig::new(data.join(library), data.join(model), precision) };
    let config = Config { backend: Backend::Local(local), queue_capacity: 1024 };
    let embedder = Embedder::new(config, &Lifecycle::new()).expect("settings that work");
    runtime().block_on(embedder.warm()).expect("a model made by `scripts/setup run`");
    embedder
}

/// Measures `text` asked for as a query: one caller, one text at a time.
fn one(bencher: Bencher, precision: Precision, intra_threads: usize, text: &str) {
    let embedder = embedder(precision, intra_threads);
    bencher.bench_local(|| runtime().block_on(embedder.embed_query(black_box(text))).expect("a vector"));
}

#[divan::bench(sample_count = 400)]
fn query_int8(bencher: Bencher) {
    one(bencher, Precision::Int8, 1, QUERY);
}

#[divan::bench(sample_count = 400)]
fn query_f32(bencher: Bencher) {
    one(bencher, Precision::F32, 1, QUERY);
}

#[divan::bench(sample_count = 400)]
fn query_int8_two_threads(bencher: Bencher) {
    one(bencher, Precision::Int8, 2, QUERY);
}

#[divan::bench(sample_count = 100)]
fn passage_int8(bencher: Bencher) {
    one(bencher, Precision::Int8, 1, &passage());
}

#[divan::bench(sample_count = 100)]
fn passage_f32(bencher: Bencher) {
    one(bencher, Precision::F32, 1, &passage());
}

#[divan::bench(sample_count = 100)]
fn passage_int8_two_threads(bencher: Bencher) {
    one(bencher, Precision::Int8, 2, &passage());
}

/// What counting alone costs; the chunker asks for it many times a passage.
#[divan::bench(args = [QUERY.to_owned(), passage()].iter().map(String::len).collect::<Vec<_>>())]
fn count_bytes_of_text(bencher: Bencher, bytes: usize) {
    let counter = runtime().block_on(embedder(Precision::Int8, 1).tokens()).expect("a tokenizer");
    let text = if bytes == QUERY.len() { QUERY.to_owned() } else { passage() };
    bencher.bench_local(|| counter.count(black_box(&text)));
}

/// An import's work: 64 different passages of about 130 tokens at once.
#[divan::bench(sample_count = 5)]
fn import_of_64_int8(bencher: Bencher) {
    let embedder = embedder(Precision::Int8, 1);
    let texts: Vec<String> = (0..64).map(|n| format!("passage {n} ") + &"some words ".repeat(60)).collect();
    bencher
        .counter(texts.len())
        .bench_local(|| runtime().block_on(embedder.embed_passages(black_box(&texts))).expect("vectors"));
}
