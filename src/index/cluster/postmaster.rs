//! Whether the server lives: its pid file is believed only when that process is this cluster's Postgres.
//!
//! A pid file outlives a kill, and its number may belong to another program by then: trusting it would leave the
//! database down for ever, or signal a stranger. Where there is no `/proc` nothing is recognised, and Postgres' own
//! checks decide.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    account::Account,
    create,
    error::{Error, at},
    layout::Layout,
};

/// No process ever has this number: Linux numbers them up to 4,194,304.
const NOBODY: u32 = i32::MAX.unsigned_abs();

/// The process of the server when it lives, whether it answers yet or not.
pub(super) fn find(layout: &Layout, account: &Account) -> Option<u32> {
    let pid = written_pid(&pid_file(layout))?;
    is_ours(pid, layout, account).then_some(pid)
}

/// Corrects the pid files of a server that is gone where somebody else has its number now, or its remains do because
/// nobody has waited for them: Postgres would refuse to start. The caller has found that no server of ours lives.
///
/// Only the number is replaced. From the rest Postgres reads whether processes of the killed server are still at work.
///
/// # Errors
/// [`Error::Io`] when one is there and cannot be replaced.
pub(super) fn clear(layout: &Layout, account: &Account) -> Result<(), Error> {
    for path in [pid_file(layout), layout.socket_lock()] {
        let Some(pid) = written_pid(&path) else { continue };
        if Path::new(&format!("/proc/{pid}")).exists() {
            let text = fs::read_to_string(&path).map_err(at("read", &path))?;
            let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
            create::replace(&path, &format!("{NOBODY}\n{rest}"))?;
            account.own(&path)?;
            tracing::info!(pid, path = %path.display(), "the pid file of a killed Postgres named another process");
        }
    }
    Ok(())
}

/// The processes that a killed server has left behind, still at work in the data directory.
pub(super) fn orphans(layout: &Layout) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .filter(|pid| is_postgres(*pid) && works_in(*pid, &layout.data).unwrap_or_else(|| is_titled(*pid, layout)))
        .collect()
}

fn pid_file(layout: &Layout) -> PathBuf {
    layout.data.join("postmaster.pid")
}

/// The number on the first line of a pid file.
fn written_pid(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.lines().next()?.trim().parse().ok()
}

/// Whether process `pid` is a Postgres of this account in this data directory.
fn is_ours(pid: u32, layout: &Layout, account: &Account) -> bool {
    let of_account = fs::metadata(format!("/proc/{pid}")).is_ok_and(|process| process.uid() == account.uid());
    of_account
        && is_postgres(pid)
        // Root without the right to trace, as in a container, may not see where it works but what it was called with.
        && works_in(pid, &layout.data).unwrap_or_else(|| is_marked(pid, layout))
}

/// Whether the program's name is that of Postgres; a kernel's name, so a link or a newer file beside it does not matter.
fn is_postgres(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres")
}

/// Whether the process's working directory is `data`; nothing where the system does not tell.
fn works_in(pid: u32, data: &Path) -> Option<bool> {
    let place = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    Some(place == data)
}

/// Whether the process is one that the server has started: they write the cluster's name over their command line.
fn is_titled(pid: u32, layout: &Layout) -> bool {
    let title = format!("postgres: {}: ", layout.name);
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(title.as_bytes()))
}

/// Whether the process was started with this cluster's name.
fn is_marked(pid: u32, layout: &Layout) -> bool {
    let mark = layout.mark();
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).any(|argument| argument == mark.as_bytes()))
}
