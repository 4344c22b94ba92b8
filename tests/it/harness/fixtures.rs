//! Small documents that tests search in.

/// A guide whose pages are about one thing each.
pub const GUIDE: [(&str, &str); 7] = [
    (
        "pool.md",
        "---\ntitle: Connection pool\ntags: [database, tuning]\n---\n\
         # Connection pool\n\nA pool keeps database connections open and lends them to requests.\n\n\
         ## Timeouts\n\nWhen no connection comes free within the acquire timeout, the caller gets an error. \
         Raise the connection pool timeout only after you have looked for slow queries.\n",
    ),
    (
        "retry.md",
        "# Retries\n\nA failed call is tried again with exponential backoff and jitter.\n\n\
         ## Idempotency\n\nOnly idempotent calls may be repeated without harm.\n",
    ),
    (
        "errors.md",
        "# Compiler errors\n\nThe error E0308 means mismatched types.\n\n```rust\nlet count: usize = \"five\";\n```\n\n\
         Pass `--edition 2024` to the compiler, or call `tokio::task::spawn_blocking` for work that blocks.\n",
    ),
    (
        "install/linux.md",
        "# Installing on Linux\n\nUnpack the archive and copy the binary to a folder of your PATH.\n\n\
         ```bash\ntar xf doc.tar.gz\nsudo install doc /usr/local/bin\n```\n",
    ),
    (
        "unicode.md",
        "# Sprachen und Zeichen\n\nDas Café in Zürich öffnet früh. 東京は日本の首都です。 Emoji such as 🚀 are text too.\n",
    ),
    (
        "changes.html",
        "<html><head><title>Changelog</title></head><body><h1>Changelog</h1><p>The scheduler learned about \
         priorities.</p><p>Fixed a leak in the <b>watcher</b>.</p></body></html>",
    ),
    ("notes.txt", "Release notes\n\nThe garbage collector pauses less often.\n"),
];

/// `count` pages of one chunk each that all hold the word `common` and one of their own.
pub fn many_pages(count: usize) -> Vec<(String, String)> {
    (0..count)
        .map(|nth| {
            let path = format!("page-{nth:04}.md");
            (path, format!("# Page {nth}\n\nThe common part of a page, and its own word own{nth}.\n"))
        })
        .collect()
}

/// Borrows what [`super::TestApp::ingest`] takes.
pub fn borrowed(pages: &[(String, String)]) -> Vec<(&str, &str)> {
    pages.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect()
}
