//! Which files an import takes, and what it says of those it leaves out.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::harness::{TestApp, folder_of, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_be_used_are_skipped_with_the_reason() {
    let app = TestApp::start().await;
    let folder = folder_of(&[("good.md", "# Good\n\nA good page.\n")]);
    let path = folder.path();
    write(path, "binary.md", b"# Binary\n\0\x01\x02");
    write(path, "latin1.txt", b"caf\xe9 au lait");
    write(path, "large.md", "x".repeat(6 * 1024 * 1024));
    write(path, "secret.md", "# Secret\n");
    let readable = make_unreadable(&path.join("secret.md"));
    let report = app.try_ingest(path, "guide", "1.0.0").await.unwrap();
    let mut skipped: Vec<_> = report.skipped.iter().map(|file| (file.name.as_str(), file.reason.as_str())).collect();
    skipped.sort_unstable();
    let mut expected = vec![
        ("binary.md", "binary: it holds NUL bytes"),
        ("large.md", "6291456 bytes, more than max_file_bytes = 5242880"),
        ("latin1.txt", "not UTF-8 at byte 3"),
    ];
    if !readable {
        expected.push(("secret.md", "Permission denied (os error 13)"));
    }
    assert_eq!(skipped, expected);
    assert_eq!(report.written, if readable { 2 } else { 1 });
}

/// Takes all rights away; whether the file can be read all the same, as root can.
fn make_unreadable(path: &Path) -> bool {
    fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    fs::read(path).is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hidden_linked_and_foreign_files_are_passed_over() {
    let app = TestApp::start().await;
    let folder = folder_of(&[
        ("good.md", "# Good\n\nText.\n"),
        ("folder.md/inside.md", "# Inside\n\nIn a folder with the name of a page.\n"),
        (".git/hidden.md", "# Hidden\n"),
        (".hidden.md", "# Hidden\n"),
        ("node_modules/pkg/readme.md", "# Package\n"),
        ("main.rs", "fn main() {}\n"),
        ("requirements.txt", "numpy\n"),
        ("README", "A readme without a suffix.\n"),
    ]);
    let outside = folder_of(&[("outside.md", "# Outside\n")]);
    std::os::unix::fs::symlink(outside.path().join("outside.md"), folder.path().join("link.md")).unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("linked")).unwrap();
    std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();
    let report = app.try_ingest(folder.path(), "guide", "1.0.0").await.unwrap();
    assert_eq!((report.written, report.skipped.len()), (3, 0));
    for url in ["good.md", "folder.md/inside.md", "README"] {
        assert_eq!(app.get(&format!("/api/pages?url={url}")).await.status, 200, "{url}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_becomes_unusable_keeps_what_is_published_of_it() {
    let app = TestApp::start().await;
    let folder = folder_of(&[("a.md", "# First\n\nfirstword\n"), ("b.md", "# Second\n\nsecondword\n")]);
    app.try_ingest(folder.path(), "guide", "1.0.0").await.unwrap();
    write(folder.path(), "a.md", b"\0");
    write(folder.path(), "b.md", "# Second\n\nthirdword\n");
    let report = app.try_ingest(folder.path(), "guide", "1.0.0").await.unwrap();
    assert_eq!((report.written, report.removed, report.skipped.len()), (1, 0, 1));
    assert_eq!(app.search("query=firstword&mode=keyword").await["count"], 1);
    assert_eq!(app.search("query=thirdword&mode=keyword").await["count"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_becomes_unreadable_keeps_what_is_published_of_it() {
    let app = TestApp::start().await;
    let folder = folder_of(&[("a/deep/page.md", "# Deep\n\ndeepword\n"), ("ab.md", "# Beside\n\nbesideword\n")]);
    app.try_ingest(folder.path(), "guide", "1.0.0").await.unwrap();
    fs::set_permissions(folder.path().join("a"), fs::Permissions::from_mode(0o000)).unwrap();
    let readable = fs::read_dir(folder.path().join("a")).is_ok();
    fs::remove_file(folder.path().join("ab.md")).unwrap();
    write(folder.path(), "new.md", "# New\n");
    let report = app.try_ingest(folder.path(), "guide", "1.0.0").await.unwrap();
    fs::set_permissions(folder.path().join("a"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!((report.removed, report.skipped.len()), (1, usize::from(!readable)));
    assert_eq!(app.search("query=deepword&mode=keyword").await["count"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unusual_texts_are_pages_all_the_same() {
    let app = TestApp::start().await;
    let folder = folder_of(&[
        ("empty.md", ""),
        ("blank.md", " \n\t\n"),
        ("windows.md", "# Windows\r\n\r\nLines end twice.\r\n"),
        ("broken.md", "# Broken\n\n```rust\nfn main() {\n\n<div><b>never closed\n\n[a](\n"),
        ("deep.html", &format!("<html><body>{}deepword</body></html>", "<div>".repeat(5_000))),
        ("name with spaces & signs?.md", "# Signs\n\nsignword\n"),
    ]);
    write(folder.path(), "bom.md", "\u{feff}# Marked\n\nmarkword\n");
    let report = app.try_ingest(folder.path(), "guide", "1.0.0").await.unwrap();
    assert_eq!((report.written, report.skipped.len(), report.chunks_without_embedding), (7, 0, 0));
    for word in ["twice", "deepword", "signword", "markword", "closed"] {
        assert_eq!(app.search(&format!("query={word}&mode=keyword")).await["count"], 1, "{word}");
    }
    assert_eq!(app.get("/api/pages?url=bom.md").await.json()["title"], "Marked");
    assert_eq!(app.get("/api/pages?url=name+with+spaces+%26+signs%3F.md").await.status, 200);
    let again = app.try_ingest(folder.path(), "guide", "1.0.0").await.unwrap();
    assert_eq!((again.unchanged, again.chunks_embedded), (7, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_file_is_imported_by_its_name() {
    let app = TestApp::start().await;
    let folder = folder_of(&[("docs/guide.md", "# Guide\n\nThe guide.\n"), ("docs/other.md", "# Other\n")]);
    let report = app.try_ingest(&folder.path().join("docs/guide.md"), "guide", "1.0.0").await.unwrap();
    assert_eq!(report.written, 1);
    assert_eq!(app.get("/api/pages?url=guide.md").await.json()["title"], "Guide");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_without_documentation_is_an_error_and_makes_no_source() {
    let app = TestApp::start().await;
    let folder = folder_of(&[("main.rs", "fn main() {}\n")]);
    for (path, said) in
        [(folder.path().to_owned(), "holds no documentation"), (folder.path().join("nothing"), "cannot read")]
    {
        let refused = app.try_ingest(&path, "guide", "1.0.0").await.unwrap_err().to_string();
        assert!(refused.starts_with("path: ") && refused.contains(said), "{refused}");
    }
    assert_eq!(app.get("/api/sources").await.json()["count"], 0);
}
