//! The search page in a real browser: `tests/page/test_page.py` drives headless Chromium against a real socket.

use std::path::Path;

use doc_server::work::import;

use crate::harness::{TestApp, import_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_search_page_works_in_a_browser() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (browser, script) = (root.join(".tools/bin/chromium"), root.join("tests/page/test_page.py"));
    for needed in [&browser, &script] {
        if !needed.exists() {
            eprintln!("skipped: {} is missing; `make setup` brings the browser", needed.display());
            return;
        }
    }
    let app = TestApp::builder().with_real_model().with_background_tasks().start().await;
    let mut import = import_of(&root.join("tests/page/corpus"), "guide", "1.0");
    import.base_url = "https://docs.example.org".to_owned();
    import::run(&app.index, &app.embedder, &import, &import::Progress::default()).await.unwrap();
    let address = app.listen().await;
    let output = tokio::process::Command::new("python3")
        .arg(&script)
        .arg(format!("http://{address}"))
        .arg(&browser)
        .kill_on_drop(true)
        .output()
        .await
        .expect("python3");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}{}", said[0], said[1]);
}
