//! CPU profiles: where the process spends its time, sampled by a timer signal while somebody asks.
//!
//! Costs nothing until then. One profile at a time, since the timer and the signal belong to the whole process. The handler
//! walks the stack by frame pointers and reads each word through a pipe first, so that a stack without them (the C
//! libraries') ends a sample early and nothing else; it allocates nothing and takes no lock that it could wait for.
//! A sample begins with the caller of the function that ran: that one's own frame is not on the stack yet.

use std::{
    io::Write,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use pprof::{Frames, ProfilerGuard, ProfilerGuardBuilder, Report, protos::Message};
use tokio::time::Instant;

/// Samples for each second of processor time. Not 100: work that repeats with the clock would always, or never, be seen.
const HERTZ: i32 = 99;

/// Samples inside these are dropped: the system's libraries keep no frame pointers, and the loader's lock may be held.
const BLOCKLIST: [&str; 4] = ["libc.so", "libgcc", "libpthread", "vdso"];

/// What a recording is made into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Gzipped protobuf, as `go tool pprof` reads it.
    Protobuf,
    /// A picture, as SVG.
    Flamegraph,
}

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else's is being recorded.
    #[error("another CPU profile is being recorded")]
    Busy {
        /// When it will be over.
        free_in: Duration,
    },
    /// The system or the profiler, in its words.
    #[error("no CPU profile can be recorded: {0}")]
    Failed(String),
}

/// When the recording under way will be over.
static ENDS_AT: Mutex<Option<Instant>> = Mutex::new(None);

/// The right to record, until dropped.
struct Turn(());

impl Turn {
    fn take(duration: Duration) -> Result<Self, Error> {
        let mut ends_at = ENDS_AT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = *ends_at {
            return Err(Error::Busy { free_in: end.saturating_duration_since(Instant::now()) });
        }
        *ends_at = Some(Instant::now() + duration);
        Ok(Self(()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *ENDS_AT.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Records for `duration`. A process that used no processor time gives an empty profile.
///
/// # Errors
/// [`Error::Busy`] at once while another is recorded; when there is no temporary folder for the samples.
///
/// # Cancel safety
/// Dropping the future ends the recording.
pub async fn record(duration: Duration, form: Form) -> Result<Vec<u8>, Error> {
    let turn = Turn::take(duration)?;
    // The first call reads the binary's symbols, which takes a while.
    let (guard, turn) = blocking(move || Ok((start()?, turn))).await?;
    tokio::time::sleep(duration).await;
    blocking(move || {
        let report = guard.report().frames_post_processor(with_files).build().map_err(failed);
        drop((guard, turn));
        // What was read of the symbols is more than all else that the process has in memory.
        backtrace::clear_symbol_cache();
        let report = report?;
        match form {
            Form::Protobuf => protobuf(&report),
            Form::Flamegraph => flamegraph(&report),
        }
    })
    .await
}

fn start() -> Result<ProfilerGuard<'static>, Error> {
    ProfilerGuardBuilder::default().frequency(HERTZ).blocklist(&BLOCKLIST).build().map_err(failed)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(failed(panic)))
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Failed(error.to_string())
}

/// Functions that were inlined are known by their last name alone, as `poll` or `{closure#0}<…>`: they get their file in place of
/// their types.
fn with_files(frames: &mut Frames) {
    for symbol in frames.frames.iter_mut().flatten() {
        let name = symbol.name();
        let last = name.split('<').next().unwrap_or_default();
        // `<A as B>::c` and `a::b<c>` say where they are.
        let alone = !last.is_empty() && !last.contains("::");
        if let Some(path) = symbol.filename.as_deref().filter(|_| alone) {
            symbol.name = Some(format!("{last} ({})", short(&path.to_string_lossy())).into_bytes());
        }
    }
}

/// `…/tokio-1.54.1/src/runtime/task.rs` as `tokio-1.54.1/runtime/task.rs`.
fn short(path: &str) -> String {
    let own = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(path).trim_start_matches(['.', '/']);
    match (own.strip_prefix("src/"), own.rsplit_once("/src/")) {
        (Some(file), _) => format!("doc_server/{file}"),
        (None, Some((folder, file))) => format!("{}/{file}", folder.rsplit('/').next().unwrap_or_default()),
        (None, None) => own.to_owned(),
    }
}

fn protobuf(report: &Report) -> Result<Vec<u8>, Error> {
    let profile = report.pprof().map_err(failed)?.encode_to_vec();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&profile).map_err(failed)?;
    gzip.finish().map_err(failed)
}

fn flamegraph(report: &Report) -> Result<Vec<u8>, Error> {
    let mut svg = Vec::new();
    let mut options = pprof::flamegraph::Options::default();
    "doc-server: processor time".clone_into(&mut options.title);
    report.flamegraph_with_options(&mut svg, &mut options).map_err(failed)?;
    if svg.is_empty() {
        svg = b"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"600\" height=\"40\"><text x=\"10\" y=\"25\">\
                no samples: the process was idle</text></svg>"
            .to_vec();
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_its_crate() {
        let own = concat!(env!("CARGO_MANIFEST_DIR"), "/src/search/mod.rs");
        for (path, told) in [
            (own, "doc_server/search/mod.rs"),
            ("src/search/mod.rs", "doc_server/search/mod.rs"),
            ("/home/x/.cargo/registry/src/index/tokio-1.54.1/src/runtime/task.rs", "tokio-1.54.1/runtime/task.rs"),
            ("/rustc/0123/library/core/src/ops/function.rs", "core/ops/function.rs"),
            ("a.c", "a.c"),
        ] {
            assert_eq!(short(path), told);
        }
    }
}
