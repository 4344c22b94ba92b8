//! `/debug/pprof/`: what costs processor time and memory, for `go tool pprof` and the browser.
//!
//! Recording is bounded: one CPU profile at a time, a minute at most; the next caller gets 429 and when to come back. Profiles
//! hold names of functions and no data; the command line is shown without the secrets in it. Who may ask is the composition
//! root's affair: it wraps these routes.

use std::{fmt::Write, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::RawQuery,
    http::{HeaderValue, Response, StatusCode, header},
    response::{Html, IntoResponse},
    routing::get,
};

use crate::runtime::{allocator, cpu};

/// What `go tool pprof` asks for when it is told nothing.
const USUAL_SECONDS: u64 = 30;

/// Longer profiles say no more, and nobody else could record meanwhile.
const MAX_SECONDS: u64 = 60;

const INDEX: &str = "<!doctype html><title>/debug/pprof/</title><h1>/debug/pprof/</h1><ul>\
<li><a href=\"/debug/pprof/profile?seconds=10\">profile?seconds=10</a>: processor time, for <code>go tool pprof</code>; 1 to 60 seconds\
<li><a href=\"/debug/pprof/flamegraph?seconds=10\">flamegraph?seconds=10</a>: the same as a picture\
<li><a href=\"/debug/pprof/heap\">heap</a>: memory in use by who asked for it; <code>POST heap?active=true</code> begins, \
<code>?active=false</code> ends\
<li><a href=\"/debug/pprof/cmdline\">cmdline</a>: how the process was started, without secrets</ul>";

/// The routes, open to everybody who reaches them.
pub fn router() -> Router {
    Router::new()
        .route("/debug/pprof", get(show_index))
        .route("/debug/pprof/", get(show_index))
        .route("/debug/pprof/profile", get(record_profile))
        .route("/debug/pprof/flamegraph", get(draw_flamegraph))
        .route("/debug/pprof/heap", get(write_heap).post(switch_heap))
        .route("/debug/pprof/cmdline", get(show_command_line))
}

async fn show_index() -> Html<&'static str> {
    Html(INDEX)
}

async fn record_profile(RawQuery(query): RawQuery) -> Response<Body> {
    match seconds(query.as_deref()) {
        Ok(duration) => match cpu::record(duration, cpu::Form::Protobuf).await {
            Ok(profile) => attachment("profile.pb.gz", profile),
            Err(error) => refuse_cpu(&error),
        },
        Err(told) => told.into_response(),
    }
}

async fn draw_flamegraph(RawQuery(query): RawQuery) -> Response<Body> {
    match seconds(query.as_deref()) {
        Ok(duration) => match cpu::record(duration, cpu::Form::Flamegraph).await {
            Ok(picture) => ([(header::CONTENT_TYPE, "image/svg+xml")], picture).into_response(),
            Err(error) => refuse_cpu(&error),
        },
        Err(told) => told.into_response(),
    }
}

async fn write_heap() -> Response<Body> {
    match blocking(allocator::heap_profile).await {
        Ok(profile) => attachment("heap.pb.gz", profile),
        Err(error) => refuse_heap(&error),
    }
}

async fn switch_heap(RawQuery(query): RawQuery) -> Response<Body> {
    let active = match parameter(query.as_deref(), "active") {
        Some("true") => true,
        Some("false") => false,
        _ => return (StatusCode::BAD_REQUEST, "say ?active=true or ?active=false\n").into_response(),
    };
    match blocking(move || allocator::set_heap_profiling(active)).await {
        Ok(()) => format!("heap profiling is {}\n", if active { "on" } else { "off" }).into_response(),
        Err(error) => refuse_heap(&error),
    }
}

/// The words separated by NUL, as in `/proc/self/cmdline`.
async fn show_command_line() -> String {
    redacted(std::env::args_os().map(|word| word.to_string_lossy().into_owned())).join("\0")
}

/// How long to record, from `seconds`.
fn seconds(query: Option<&str>) -> Result<Duration, (StatusCode, String)> {
    let seconds = match parameter(query, "seconds") {
        None => Some(USUAL_SECONDS),
        Some(text) => text.parse().ok().filter(|seconds| (1..=MAX_SECONDS).contains(seconds)),
    };
    let told = || (StatusCode::BAD_REQUEST, format!("seconds: set 1 to {MAX_SECONDS}\n"));
    seconds.map(Duration::from_secs).ok_or_else(told)
}

fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn attachment(name: &str, bytes: Vec<u8>) -> Response<Body> {
    let mut response = ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response();
    if let Ok(value) = HeaderValue::try_from(format!("attachment; filename=\"{name}\"")) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
    }
    response
}

fn refuse_cpu(error: &cpu::Error) -> Response<Body> {
    match error {
        cpu::Error::Busy { free_in } => {
            // Whole seconds, and one for the writing.
            let retry_after = [(header::RETRY_AFTER, (free_in.as_secs() + 1).to_string())];
            (StatusCode::TOO_MANY_REQUESTS, retry_after, format!("{error}\n")).into_response()
        }
        cpu::Error::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn refuse_heap(error: &allocator::Error) -> Response<Body> {
    let status = match error {
        allocator::Error::Off | allocator::Error::Absent => StatusCode::CONFLICT,
        allocator::Error::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let advice = if matches!(error, allocator::Error::Off) {
        "; POST /debug/pprof/heap?active=true, or set heap_profiling, and come back after some work"
    } else {
        ""
    };
    (status, format!("{error}{advice}\n")).into_response()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, allocator::Error> + Send + 'static,
) -> Result<T, allocator::Error> {
    let failed = |panic: tokio::task::JoinError| Err(allocator::Error::Failed(panic.to_string()));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(failed)
}

/// The words of a command line without what is secret in them: values of flags that are named so, passwords and queries of
/// addresses.
fn redacted(words: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut hide_next = false;
    words
        .into_iter()
        .map(|word| {
            if std::mem::take(&mut hide_next) {
                return HIDDEN.to_owned();
            }
            match word.split_once('=') {
                Some((flag, _)) if is_secret(flag) => format!("{flag}={HIDDEN}"),
                None if is_secret(&word) => {
                    hide_next = true;
                    word
                }
                _ => without_credentials(&word),
            }
        })
        .collect()
}

/// Stands for what is not shown.
const HIDDEN: &str = "***";

fn is_secret(flag: &str) -> bool {
    flag.starts_with('-')
        && ["password", "secret", "token", "key"].iter().any(|word| flag.to_lowercase().contains(word))
}

/// Addresses in `text` without user information and query.
fn without_credentials(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for (place, address) in text.split("://").enumerate() {
        if place == 0 {
            shown.push_str(address);
            continue;
        }
        let authority = address.find(['/', '?', '#', ',']).unwrap_or(address.len());
        let (authority, rest) = address.split_at(authority);
        // A password may hold an unescaped @ or /: everything before the last @ is taken to be one.
        let (authority, rest) = match address.rfind('@') {
            Some(at) => (&address[at + 1..], ""),
            None => (authority, rest),
        };
        let hidden = if address.contains('@') { "***@" } else { "" };
        let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?***"));
        // Writing to a string cannot fail.
        let _ = write!(shown, "://{hidden}{}{rest}{query}", authority.split('?').next().unwrap_or_default());
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_shown_without_its_secrets() {
        let shown = |words: &[&str]| redacted(words.iter().map(|&word| word.to_owned())).join(" ");
        for (given, told) in [
            (&["serve", "--bind", "127.0.0.1:80"][..], "serve --bind 127.0.0.1:80"),
            (&["--database-url", "postgres://u:hunter2@h:5/d"], "--database-url postgres://***@h:5/d"),
            (&["--database-url=postgres://u:hunter2@h/d?password=hunter2"], "--database-url=postgres://***@h/d"),
            (&["postgres://u:hun@ter/2@h/d"], "postgres://***@h/d"),
            (&["redis://:hunter2@a,redis://:hunter2@b"], "redis://***@a,redis://***@b"),
            (&["http://h/p?api_key=hunter2"], "http://h/p?***"),
            (&["--embed-api-key", "hunter2", "serve"], "--embed-api-key *** serve"),
            (&["--admin-token=hunter2"], "--admin-token=***"),
        ] {
            let line = shown(given);
            assert!(!line.contains("hunter2"), "{line}");
            assert_eq!(line, told);
        }
    }

    #[test]
    fn a_recording_lasts_a_minute_at_most() {
        assert_eq!(seconds(None), Ok(Duration::from_secs(30)));
        assert_eq!(seconds(Some("debug=0&seconds=5")), Ok(Duration::from_secs(5)));
        for wrong in ["seconds=0", "seconds=61", "seconds=-1", "seconds=", "seconds=x"] {
            assert!(seconds(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
