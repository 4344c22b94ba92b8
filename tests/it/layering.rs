//! The shape of the source as rules: who may import whom, where each foreign crate lives, how files look.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What each module at the top of `src` may import of the others. `app` puts everything together, so it may import all.
const MAY_IMPORT: [(&str, &[&str]); 17] = [
    ("main", &["app", "config"]),
    ("lib", &[]),
    ("admin", &["search", "health", "index", "work", "error", "runtime"]),
    ("api", &["search", "query", "answer", "health", "index", "work", "error", "runtime"]),
    ("search", &["query", "answer", "cache", "coalesce", "embed", "index", "rank", "error", "runtime"]),
    ("query", &["index", "rank"]),
    ("answer", &["index", "query", "rank"]),
    ("health", &["cache", "embed", "index"]),
    ("work", &["embed", "index", "cache", "error", "runtime"]),
    ("error", &["coalesce", "embed", "index"]),
    ("config", &["api", "cache", "embed", "index", "search", "runtime"]),
    ("cache", &["runtime"]),
    ("coalesce", &["runtime"]),
    ("embed", &["runtime"]),
    ("index", &["runtime"]),
    ("rank", &["runtime"]),
    ("runtime", &[]),
];

/// The one home of each foreign crate that does input or output, or that is heavy: prefixes of paths below `src`.
const HOMES: [(&str, &[&str]); 34] = [
    ("moka", &["cache/local.rs"]),
    ("axum", &["api/", "admin/", "runtime/listen/"]),
    ("hyper", &["runtime/listen/"]),
    ("hyper_util", &["runtime/listen/"]),
    ("socket2", &["runtime/listen/"]),
    ("tokio_rustls", &["runtime/listen/"]),
    ("sqlx", &["index/", "work/queue.rs"]),
    ("pgvector", &["index/"]),
    ("redis", &["cache/", "api/rate_limit/"]),
    ("deadpool_redis", &["cache/", "api/rate_limit/"]),
    ("governor", &["api/rate_limit/"]),
    ("lz4_flex", &["cache/codec.rs"]),
    ("xxhash_rust", &["cache/codec.rs"]),
    ("zstd", &["api/coding.rs"]),
    ("brotli", &["api/coding.rs"]),
    ("fastembed", &["embed/"]),
    ("ort", &["embed/"]),
    ("tokenizers", &["embed/"]),
    ("reqwest", &["embed/", "work/crawl.rs", "app/healthcheck.rs"]),
    ("metrics_exporter_prometheus", &["runtime/metrics.rs", "admin/"]),
    ("metrics_process", &["runtime/metrics.rs"]),
    ("tikv_jemallocator", &["runtime/allocator.rs"]),
    ("tikv_jemalloc_ctl", &["runtime/allocator.rs"]),
    ("jemalloc_pprof", &["runtime/allocator.rs"]),
    ("pprof", &["runtime/cpu.rs"]),
    ("flate2", &["runtime/cpu.rs", "api/coding.rs"]),
    ("backtrace", &["runtime/cpu.rs", "runtime/allocator.rs"]),
    ("opentelemetry", &["runtime/telemetry/"]),
    ("opentelemetry_sdk", &["runtime/telemetry/"]),
    ("opentelemetry_otlp", &["runtime/telemetry/"]),
    ("tracing_opentelemetry", &["runtime/telemetry/"]),
    ("indicatif", &["app/"]),
    ("dom_query", &["work/parse/"]),
    ("pulldown_cmark", &["work/parse/"]),
];

/// Names that say nothing.
const FORBIDDEN_NAMES: [&str; 10] =
    ["util", "utils", "helpers", "common", "misc", "manager", "service", "core", "types", "models"];

/// What a screen and a head can hold.
const MAX_LINES: usize = 500;

/// A source file.
struct File {
    /// Below `src` (or `tests/it`), with slashes.
    path: String,
    /// All of it.
    text: String,
    /// Without comments and inline tests.
    code: String,
}

impl File {
    /// The first part of its path, without the suffix.
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }
}

fn files(folder: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<PathBuf> = walkdir::WalkDir::new(&root)
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "rs"))
        .collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let own = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code = own
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .fold(String::new(), |code, line| code + line + "\n");
        File { path: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), text, code }
    };
    paths.iter().map(read).collect()
}

/// The modules that `code` names after `crate::`, also within braces.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_members(group)),
            None => drop(found.insert(identifier(rest))),
        }
    }
    found.remove("");
    found
}

/// The first names in `a::b, c::{d, e}, f}`.
fn group_members(group: &str) -> Vec<String> {
    let (mut depth, mut begins, mut members) = (0, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            c if begins && (c.is_alphanumeric() || c == '_') => {
                members.push(identifier(&group[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    members
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn modules_import_only_what_the_rules_allow() {
    let rules: BTreeMap<&str, &[&str]> = MAY_IMPORT.into();
    let mut broken = Vec::new();
    for file in files("src").iter().filter(|file| !file.is_test() && file.module() != "app") {
        let Some(allowed) = rules.get(file.module()) else {
            broken.push(format!("{}: the module {} has no rule here", file.path, file.module()));
            continue;
        };
        for import in imports(&file.code) {
            if import != file.module() && !allowed.contains(&import.as_str()) {
                broken.push(format!("{} imports crate::{import}", file.path));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn only_main_and_tests_know_the_composition_root() {
    for file in files("src") {
        let outside = file.module() != "app" && file.module() != "main" && file.module() != "lib";
        assert!(!(outside && imports(&file.code).contains("app")), "{} imports crate::app", file.path);
    }
}

#[test]
fn each_foreign_crate_has_one_home() {
    let mut broken = Vec::new();
    for file in files("src").iter().filter(|file| !file.is_test()) {
        for (name, homes) in HOMES {
            let at_home = homes.iter().any(|home| file.path.starts_with(home));
            if !at_home && names_crate(&file.code, name) {
                broken.push(format!("{} names {name}, whose home is {homes:?}", file.path));
            }
        }
        // `metrics` is a module here too, so only its import tells the crate.
        if file.path != "runtime/metrics.rs" && file.code.contains("use metrics::") {
            broken.push(format!("{} imports the crate metrics, whose home is runtime/metrics.rs", file.path));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Whether `name::` stands in the code as the beginning of a path.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn every_file_opens_with_its_purpose_and_fits_a_head() {
    let mut broken = Vec::new();
    for folder in ["src", "tests/it"] {
        for file in files(folder) {
            if !file.text.starts_with("//! ") {
                broken.push(format!("{folder}/{} does not open with //!", file.path));
            }
            let own = file.text.split("#[cfg(test)]\nmod tests {").next().unwrap().lines().count();
            if own > MAX_LINES {
                broken.push(format!("{folder}/{} has {own} lines", file.path));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn names_say_what_is_inside() {
    for file in files("src") {
        for part in file.path.trim_end_matches(".rs").split('/') {
            assert!(!FORBIDDEN_NAMES.contains(&part) && part != "base", "{}: {part} says nothing", file.path);
        }
    }
}

#[test]
fn nothing_is_silenced_or_left_for_later() {
    let mut broken = Vec::new();
    for file in files("src") {
        for word in ["#[allow", "#![allow", "todo!(", "unimplemented!(", "dbg!("] {
            if file.code.contains(word) {
                broken.push(format!("{} has {word}", file.path));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_entry_is_small() {
    let main = files("src").into_iter().find(|file| file.path == "main.rs").unwrap();
    assert!(main.text.lines().count() <= 60);
}

#[test]
fn imports_are_read_also_within_braces() {
    let code = "use crate::{\n    embed::{self, Vector},\n    index,\n};\nuse crate::rank::fuse;\nfn f() -> crate::error::Error {}\nmacro $crate::no;";
    assert_eq!(imports(code), ["embed", "error", "index", "rank"].map(str::to_owned).into());
}
