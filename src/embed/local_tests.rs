//! The real model and library: `make test` has put them into the data directory.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::HashMap, os::unix::fs::MetadataExt, path::Path, process::Command};

use axum::{Router, routing::get};
use sha2::{Digest, Sha256};

use super::*;
use crate::embed::{Backend, Config, Embedder, HubFile, Vector, hub::hexadecimal, tests::serve};

/// The runtime folder of the data directory: the one that is set, else root's, else the user's.
fn runtime() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || Some(set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")))?.join("doc-server"));
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let default = if is_root { Some(PathBuf::from("/var/lib/doc-server")) } else { home() };
    let folder = set("DOC_SERVER_DATA_DIR").or(default).expect("DOC_SERVER_DATA_DIR or HOME").join("runtime");
    let model = folder.join("models/all-MiniLM-L6-v2/model_int8.onnx");
    assert!(model.is_file(), "{} is missing: run `make test`, or `scripts/setup run`", model.display());
    folder
}

fn settings(precision: Precision) -> LocalConfig {
    let runtime = runtime();
    let library = runtime.join("onnxruntime/libonnxruntime.so");
    LocalConfig::new(library, runtime.join("models/all-MiniLM-L6-v2"), precision)
}

fn embedder(config: LocalConfig) -> Embedder {
    let config = Config { backend: Backend::Local(config), queue_capacity: 256 };
    Embedder::new(config, &Lifecycle::new()).unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

async fn vectors(embedder: &Embedder, texts: &[String]) -> Vec<Vector> {
    embedder.embed_passages(texts).await.unwrap().into_iter().map(Result::unwrap).collect()
}

#[tokio::test]
async fn computes_the_published_model() {
    // The beginning of this text's vector by the published weights in f64.
    let reference = [0.022_660_5, 0.018_841_5, -0.047_481_0, 0.017_419_6, -0.071_391_4, -0.018_148_0];
    for (precision, limit) in [(Precision::F32, 1e-4), (Precision::Int8, 0.02)] {
        let embedder = embedder(settings(precision));
        assert_eq!(embedder.status(), Status::Idle);
        let found = embedder.embed_query("connection pool timeout").await.unwrap();
        assert!(difference(&found.vector, &reference) < limit, "{precision:?}: {:?}", &found.vector[..6]);
        assert!((cosine(&found.vector, &found.vector) - 1.0).abs() < 1e-5);
        assert_eq!(embedder.status(), Status::Ready);
        let identity = embedder.identity().await.unwrap();
        assert_eq!((identity.name.as_str(), identity.dimensions), ("all-MiniLM-L6-v2", 384));
        assert_eq!((identity.precision, identity.revision.len()), (precision.name(), 12));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_has_one_vector_whatever_is_embedded_beside_it() {
    let texts: Vec<String> = [
        "connection pool timeout".to_owned(),
        "error[E0308]: mismatched types, expected `&str`, found `String`".to_owned(),
        "naïve café — 東京 🚀".to_owned(),
        "Each value in Rust has an owner. ".repeat(25),
        "a".to_owned(),
    ]
    .into();
    for precision in [Precision::Int8, Precision::F32] {
        let embedder = embedder(settings(precision));
        let mut alone = Vec::new();
        for text in &texts {
            alone.push(embedder.embed_query(text).await.unwrap().vector);
        }
        let crowd =
            [texts.clone(), (0..20).map(|n| format!("neighbour number {n} ").repeat(n)).skip(1).collect()].concat();
        let together = vectors(&embedder, &crowd).await;
        for (alone, together) in alone.iter().zip(&together) {
            assert!(difference(alone, together) == 0.0, "{precision:?}: {}", difference(alone, together));
        }
        let other = self::embedder(LocalConfig { sessions: 1, ..settings(precision) });
        assert_eq!(vectors(&other, &texts).await, alone, "another session of the same model");
    }
}

#[tokio::test]
async fn a_passage_over_the_limit_is_refused_and_a_query_is_cut() {
    let embedder = embedder(settings(Precision::Int8));
    let counter = embedder.tokens().await.unwrap();
    assert_eq!(embedder.status(), Status::Idle, "the tokenizer alone needs no session");
    assert_eq!((counter.count("connection pool timeout"), counter.count("")), (6, 2), "special ones included");
    let (fits, over) = ("word ".repeat(254), "word ".repeat(255));
    assert_eq!((counter.count(&fits), counter.count(&over)), (256, 257));
    let found = embedder.embed_passages(&[fits.clone(), over.clone()]).await.unwrap();
    assert_eq!(found[1], Err(Error::TooLong { tokens: 257, max: 256 }));
    let (whole, cut) = (embedder.embed_query(&fits).await.unwrap(), embedder.embed_query(&over).await.unwrap());
    assert!(!whole.truncated && cut.truncated);
    assert_eq!(Some(&whole.vector), found[0].as_ref().ok());
    assert_eq!(cut.vector, whole.vector, "its first 256 tokens are the same");
}

#[tokio::test]
async fn the_model_comes_from_a_hub_where_the_folder_lacks_it() {
    let (good, folder) = (settings(Precision::Int8), tempfile::tempdir().unwrap());
    let mut router = Router::new();
    let mut files = Vec::new();
    for name in ["model_int8.onnx", "tokenizer.json", "config.json"] {
        let bytes = std::fs::read(good.model_dir.join(name)).unwrap();
        let sha256 = hexadecimal(&Sha256::digest(&bytes));
        files.push(HubFile { path: format!("onnx/{name}"), name: name.to_owned(), sha256 });
        router = router.route(&format!("/onnx/{name}"), get(move || async move { bytes }));
    }
    let hub = Some(Hub { url: serve(router).await, files });
    let model_dir = folder.path().join("all-MiniLM-L6-v2");
    let fetched = embedder(LocalConfig { model_dir, hub, ..good.clone() });
    let told = fetched.identity().await.unwrap();
    assert_eq!(*told, *embedder(good).identity().await.unwrap());
    assert!(fetched.embed_query("works").await.is_ok());
}

#[tokio::test]
async fn files_that_change_under_the_process_are_refused() {
    let (good, folder) = (settings(Precision::Int8), tempfile::tempdir().unwrap());
    for name in ["model_int8.onnx", "tokenizer.json", "config.json"] {
        std::fs::copy(good.model_dir.join(name), folder.path().join(name)).unwrap();
    }
    let embedder = embedder(LocalConfig { model_dir: folder.path().to_owned(), ..good });
    embedder.identity().await.unwrap();
    let tokenizer = folder.path().join("tokenizer.json");
    std::fs::write(&tokenizer, std::fs::read_to_string(&tokenizer).unwrap() + "\n").unwrap();
    let told = embedder.warm().await.unwrap_err();
    assert!(told.to_string().contains("its files changed"), "{told}");
    assert_eq!(embedder.status(), Status::Failed { reason: told.to_string() });
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_named_with_what_to_do() {
    let good = settings(Precision::Int8);
    let absent = embedder(LocalConfig { model_dir: "/no/such/folder".into(), ..good.clone() });
    let told = absent.embed_query("a").await.unwrap_err().to_string();
    assert!(told.starts_with("model_dir: /no/such/folder/model_int8.onnx is missing; run `scripts/setup run`"));
    let empty = tempfile::tempdir().unwrap();
    for (name, text) in [("model_int8.onnx", "no graph"), ("tokenizer.json", "{}")] {
        std::fs::write(empty.path().join(name), text).unwrap();
    }
    std::fs::copy(good.model_dir.join("config.json"), empty.path().join("config.json")).unwrap();
    let broken = embedder(LocalConfig { model_dir: empty.path().to_owned(), ..good.clone() });
    let told = broken.tokens().await.unwrap_err().to_string();
    assert!(told.contains("tokenizer.json: "), "{told}");
    std::fs::copy(good.model_dir.join("tokenizer.json"), empty.path().join("tokenizer.json")).unwrap();
    let broken = embedder(LocalConfig { model_dir: empty.path().to_owned(), ..good.clone() });
    let told = broken.warm().await.unwrap_err().to_string();
    assert!(told.contains("model_int8.onnx: ") && told.contains("Protobuf"), "{told}");
    let none = LocalConfig { sessions: 0, ..good };
    let told = Local::new(none, &Lifecycle::new()).err().unwrap().to_string();
    assert_eq!(told, "embed_sessions: must be at least 1");
}

/// A process loads one library, so each wrong one needs a process of its own: this binary again, with one test.
#[test]
fn a_wrong_library_is_named_with_what_to_do() {
    let some_file = settings(Precision::Int8).model_dir.join("config.json");
    let cases = HashMap::from([
        ("/no/such/libonnxruntime.so".into(), "No such file"),
        (some_file, "file too short|invalid ELF header"),
    ]);
    for (library, reason) in cases {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "embed::local::tests::child_with_a_wrong_library", "--ignored", "--nocapture"])
            .env("WRONG_LIBRARY", &library)
            .env("ORT_DYLIB_PATH", &library)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(told.contains(&format!("told: onnxruntime: {}: ", library.display())), "{told}");
        assert!(reason.split('|').any(|reason| told.contains(reason)), "{told}");
        assert!(told.contains("run `scripts/setup run`"), "{told}");
    }
}

#[tokio::test]
#[ignore = "run by a_wrong_library_is_named_with_what_to_do, in a process of its own"]
async fn child_with_a_wrong_library() {
    let library = std::env::var_os("WRONG_LIBRARY").unwrap();
    let embedder = embedder(LocalConfig { library: Path::new(&library).to_owned(), ..settings(Precision::Int8) });
    println!("told: {}", embedder.embed_query("a").await.unwrap_err());
}
