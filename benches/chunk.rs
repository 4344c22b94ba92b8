//! Parsing and cutting Markdown pages made here: how far the chunker is from being what an import waits for.
//!
//! `cargo bench --bench chunk`. With the model that `scripts/setup run` makes, its tokenizer counts, as in an import;
//! `estimated` counts characters instead, which leaves the chunker's own cost. Items are pages.

use std::{fmt::Write, path::PathBuf, sync::OnceLock};

use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};
use doc_server::{
    embed::{Backend, Config, Embedder, FakeConfig, LocalConfig, Precision, TokenCounter},
    runtime::lifecycle::Lifecycle,
    work::{
        chunk::{Limits, chunk},
        parse::{Format, parse},
    },
};

/// Enough for many kinds of page, small enough for many rounds.
const PAGES: usize = 40;

/// Words of documentation; a tokenizer makes one to three tokens of each.
const WORDS: &[&str] = &[
    "the",
    "connection",
    "pool",
    "waits",
    "until",
    "a",
    "permit",
    "is",
    "free",
    "and",
    "returns",
    "an",
    "error",
    "when",
    "its",
    "timeout",
    "has",
    "passed",
    "configure",
    "it",
    "with",
    "`max_connections`",
    "or",
    "`acquire_timeout`",
    "in",
    "your",
    "settings",
    "each",
    "task",
    "spawned",
    "on",
    "this",
    "runtime",
    "must",
    "be",
    "polled",
    "to",
    "completion",
    "serialisation",
    "of",
    "nested",
    "structures",
    "follows",
    "declaration",
    "order",
];

fn main() {
    divan::main();
}

/// Pages of 6 sections with prose, a list, code and a table: about 9 KB each, the same every time.
fn pages() -> &'static [String] {
    static SET: OnceLock<Vec<String>> = OnceLock::new();
    SET.get_or_init(|| (0..PAGES).map(|seed| page(seed as u64)).collect())
}

fn page(seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut text = format!("---\ntitle: Page {seed}\n---\n\n");
    for section in 0..6 {
        let _ = write!(text, "## Section {section}\n\n");
        for _ in 0..3 {
            let _ = write!(text, "{}\n\n", sentences(&mut random, 5));
        }
        for _ in 0..4 {
            let _ = writeln!(text, "- {}", sentences(&mut random, 1));
        }
        let _ =
            write!(text, "\n```rust\nlet pool = Pool::builder()\n    .max_size({section})\n    .build()?;\n```\n\n");
        let _ = write!(text, "| setting | meaning |\n|---|---|\n| `a` | {} |\n\n", sentences(&mut random, 1));
    }
    text
}

fn sentences(random: &mut fastrand::Rng, count: usize) -> String {
    let mut text = String::new();
    for _ in 0..count {
        for nth in 0..random.usize(8..20) {
            let _ = write!(text, "{}{}", if nth == 0 { "" } else { " " }, WORDS[random.usize(..WORDS.len())]);
        }
        text.push_str(". ");
    }
    text.trim_end().to_owned()
}

fn cut(bencher: Bencher, tokens: &TokenCounter) {
    let bytes: usize = pages().iter().map(String::len).sum();
    bencher.counter(ItemsCount::new(PAGES)).counter(BytesCount::new(bytes)).bench_local(|| {
        let cut = |text: &String| {
            let page = parse(Format::Markdown, "page.md", black_box(text));
            chunk(&page, &Limits::default(), &|text| tokens.count(text)).0.len()
        };
        pages().iter().map(cut).sum::<usize>()
    });
}

fn counter(backend: Backend) -> Option<std::sync::Arc<TokenCounter>> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let embedder = Embedder::new(Config { backend, queue_capacity: 1 }, &Lifecycle::new()).expect("settings that work");
    runtime.block_on(embedder.tokens()).ok()
}

#[divan::bench(sample_count = 20)]
fn estimated(bencher: Bencher) {
    cut(bencher, &counter(Backend::Fake(FakeConfig::default())).expect("the fake's counter"));
}

#[divan::bench(sample_count = 20)]
fn with_tokenizer(bencher: Bencher) {
    let data = std::env::var_os("DOC_SERVER_DATA_DIR").map_or_else(|| "/var/lib/doc-server".into(), PathBuf::from);
    let (library, model) = ("runtime/onnxruntime/libonnxruntime.so", "runtime/models/all-MiniLM-L6-v2");
    let local = LocalConfig::new(data.join(library), data.join(model), Precision::Int8);
    let tokens = counter(Backend::Local(local)).expect("a model made by `scripts/setup run`");
    cut(bencher, &tokens);
}

#[divan::bench(sample_count = 20)]
fn parse_alone(bencher: Bencher) {
    let bytes: usize = pages().iter().map(String::len).sum();
    bencher.counter(ItemsCount::new(PAGES)).counter(BytesCount::new(bytes)).bench_local(|| {
        pages().iter().map(|text| parse(Format::Markdown, "page.md", black_box(text)).blocks.len()).sum::<usize>()
    });
}
