//! Fetching a model's files over HTTPS, each checked against a pinned SHA-256.
//!
//! A file appears under its name only whole and right: it is written beside it, checked, flushed and renamed. Whatever
//! goes wrong, also the caller leaving, removes the part. Bounded: [`MAX_FILE_BYTES`] per file, [`SILENCE`] without a
//! byte.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::{fs::File, io::AsyncWriteExt, time::Instant};

use super::{Error, provider::chain};

/// Small sentence models are 20 to 500 MB; anything near this is a wrong address.
const MAX_FILE_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// A hub that sends nothing for so long is not going to.
const SILENCE: Duration = Duration::from_secs(30);

/// A handshake across the world takes under a second; a firewall that swallows packets is noticed within this.
const CONNECT: Duration = Duration::from_secs(10);

/// Often enough to see that it moves, seldom enough not to fill a log.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Where a model's files are published.
#[derive(Clone, Debug)]
pub struct Hub {
    /// What the paths are appended to, such as `https://HUB/OWNER/MODEL/resolve/COMMIT`.
    pub url: String,
    /// What to fetch.
    pub files: Vec<HubFile>,
}

/// One published file.
#[derive(Clone, Debug)]
pub struct HubFile {
    /// Below the hub's address.
    pub path: String,
    /// In the model's folder.
    pub name: String,
    /// Of the whole file, in hexadecimal.
    pub sha256: String,
}

/// Fetches the files that `folder` lacks, one after the other.
///
/// # Errors
/// Names the address and what went wrong: no answer, another status than 200, another checksum, no room.
///
/// # Cancel safety
/// Safe: the part that was being written is removed.
pub(super) async fn fetch_missing(hub: &Hub, folder: &Path) -> Result<(), Error> {
    let missing: Vec<_> = hub.files.iter().filter(|file| !folder.join(&file.name).is_file()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if let Some(file) = missing.iter().find(|file| Path::new(&file.name).file_name() != Some(file.name.as_ref())) {
        return Err(Error::Download(format!("{:?} is not a plain file name", file.name)));
    }
    tokio::fs::create_dir_all(folder).await.map_err(|error| at(&folder.display(), &error))?;
    let client = reqwest::Client::builder().connect_timeout(CONNECT).read_timeout(SILENCE).build();
    let client = client.map_err(|error| Error::Download(error.to_string()))?;
    for file in missing {
        fetch(&client, hub, file, folder).await?;
    }
    Ok(())
}

async fn fetch(client: &reqwest::Client, hub: &Hub, file: &HubFile, folder: &Path) -> Result<(), Error> {
    let url = format!("{}/{}", hub.url.trim_end_matches('/'), file.path.trim_start_matches('/'));
    let sent = client.get(&url).send().await.and_then(reqwest::Response::error_for_status);
    let mut response = sent.map_err(|error| at(&url, &chain(error)))?;
    let part = Part(folder.join(format!(".{}.{}.part", file.name, std::process::id())));
    let on_disk = |error| at(&part.0.display(), &error);
    let mut target = File::create(&part.0).await.map_err(on_disk)?;
    let (mut hasher, mut bytes, mut told) = (Sha256::new(), 0_u64, Instant::now());
    let total = response.content_length();
    while let Some(chunk) = response.chunk().await.map_err(|error| at(&url, &chain(error)))? {
        bytes += chunk.len() as u64;
        if bytes > MAX_FILE_BYTES {
            return Err(at(&url, &format!("more than {MAX_FILE_BYTES} bytes")));
        }
        hasher.update(&chunk);
        target.write_all(&chunk).await.map_err(on_disk)?;
        if told.elapsed() >= PROGRESS_EVERY {
            tracing::info!(file = file.name, bytes, total, "downloading the embedding model");
            told = Instant::now();
        }
    }
    let found = hexadecimal(&hasher.finalize());
    if !found.eq_ignore_ascii_case(&file.sha256) {
        return Err(at(&url, &format!("its SHA-256 is {found}, expected {}", file.sha256)));
    }
    target.sync_all().await.map_err(on_disk)?;
    tokio::fs::rename(&part.0, folder.join(&file.name)).await.map_err(on_disk)?;
    tracing::info!(file = file.name, bytes, "downloaded");
    Ok(())
}

/// As checksums are written.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn at(place: &dyn std::fmt::Display, what: &dyn std::fmt::Display) -> Error {
    Error::Download(format!("{place}: {what}"))
}

/// A file being written, removed when dropped; after the rename there is nothing left to remove.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use axum::{Router, body::Body, routing::get};
    use futures::{StreamExt, stream};

    use super::*;
    use crate::embed::tests::serve;

    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    async fn hub() -> Hub {
        let halves = || stream::iter([Ok::<_, std::io::Error>("hel"), Ok("lo")]);
        let router = Router::new()
            .route("/m/good", get(move || async move { Body::from_stream(halves()) }))
            .route(
                "/m/broken",
                get(|| async { Body::from_stream(stream::iter([Ok("hel"), Err(std::io::Error::other("cable"))])) }),
            )
            .route(
                "/m/endless",
                get(|| async {
                    Body::from_stream(stream::iter([Ok::<_, std::io::Error>("hel")]).chain(stream::pending()))
                }),
            );
        Hub { url: format!("{}/m/", serve(router).await), files: Vec::new() }
    }

    fn file(path: &str) -> HubFile {
        HubFile { path: path.to_owned(), name: "model.onnx".to_owned(), sha256: HELLO.to_owned() }
    }

    fn names(folder: &Path) -> Vec<String> {
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[tokio::test]
    async fn fetches_what_is_missing_and_only_that() {
        let (mut hub, folder) = (hub().await, tempfile::tempdir().unwrap());
        hub.files = vec![file("good")];
        let model = folder.path().join("new");
        fetch_missing(&hub, &model).await.unwrap();
        assert_eq!(std::fs::read_to_string(model.join("model.onnx")).unwrap(), "hello");
        assert_eq!(names(&model), ["model.onnx"]);
        hub.url = "http://127.0.0.1:1".to_owned();
        fetch_missing(&hub, &model).await.unwrap();
    }

    #[tokio::test]
    async fn a_failure_leaves_nothing_half_written() {
        let (mut hub, folder) = (hub().await, tempfile::tempdir().unwrap());
        let wrong = HubFile { sha256: "00".to_owned(), ..file("good") };
        for (file, reason) in [
            (wrong, "its SHA-256 is 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824, expected 00"),
            (file("broken"), "error"),
            (file("absent"), "404 Not Found"),
            (HubFile { name: "../up".to_owned(), ..file("good") }, "not a plain file name"),
        ] {
            hub.files = vec![file];
            let told = fetch_missing(&hub, folder.path()).await.unwrap_err().to_string();
            assert!(told.contains(reason), "{told}");
            assert!(names(folder.path()).is_empty());
        }
    }

    #[tokio::test]
    async fn a_caller_that_leaves_leaves_nothing_half_written() {
        let (mut hub, folder) = (hub().await, tempfile::tempdir().unwrap());
        hub.files = vec![file("endless")];
        let mut fetching = Box::pin(fetch_missing(&hub, folder.path()));
        while names(folder.path()).is_empty() {
            tokio::select! {
                ended = &mut fetching => panic!("ended with {ended:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
        drop(fetching);
        assert!(names(folder.path()).is_empty());
    }
}
