//! The programs of Postgres that we call: `postgres --version`, `initdb`, `pg_ctl`.
//!
//! Each runs as the cluster's account, away from our terminal and our open files. One that fails gives an error with the
//! end of what it wrote. `pg_ctl start` puts the server into a session of its own, so it outlives us.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, SystemTime},
};

use rustix::process::{Pid, Signal, kill_process_group};
use scopeguard::ScopeGuard;
use tokio::process::Child;

use super::{
    account::Account,
    error::{Error, at},
    layout::Layout,
};

/// Recovery after a crash reads at most `max_wal_size`, seconds; five minutes bear a slow disk many times over.
pub(super) const START_PATIENCE: Duration = Duration::from_mins(5);

/// A fast shutdown writes at most `shared_buffers` to disk; orchestrators have killed us long before.
const STOP_SECONDS: &str = "60";

/// Enough of a log to hold the reason, little enough to read in an error.
const TAIL_LINES: usize = 15;

/// The part of the end of a log that is read at all.
const TAIL_BYTES: usize = 16 * 1024;

/// The programs, known to be there and to be readable by the account.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// The programs below `directory`.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::MissingVector`], or [`Error::Unreachable`] when the account cannot read them.
    pub(super) fn find(directory: &Path, account: &Account) -> Result<Self, Error> {
        for program in ["postgres", "initdb", "pg_ctl"] {
            let path = directory.join("bin").join(program);
            if !path.is_file() {
                return Err(Error::Missing { path });
            }
            account.check_reach(&path)?;
        }
        // Where it lies depends on how that Postgres was built.
        let vector = ["share/extension/vector.control", "share/postgresql/extension/vector.control"]
            .iter()
            .map(|place| directory.join(place))
            .find(|path| path.is_file())
            .ok_or_else(|| Error::MissingVector { path: directory.to_owned() })?;
        account.check_reach(&vector)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// Refuses data that another major version wrote.
    ///
    /// # Errors
    /// [`Error::Version`]; [`Error::Program`] when the program does not say its version.
    pub(super) async fn check_version(&self, account: &Account, layout: &Layout) -> Result<(), Error> {
        let path = layout.data.join("PG_VERSION");
        let found = fs::read_to_string(&path).map_err(at("read", &path))?.trim().to_owned();
        let output = self.run("postgres", account, layout, |command| command.arg("--version")).await?;
        let ours = major(&String::from_utf8_lossy(&output.stdout)).unwrap_or_default();
        if found == ours {
            return Ok(());
        }
        Err(Error::Version { data: layout.data.clone(), found, binaries: self.directory.clone(), ours })
    }

    /// Fills the empty directory `into`. `password` must be readable by the account.
    ///
    /// # Errors
    /// [`Error::Program`] with what initdb said.
    pub(super) async fn initdb(
        &self,
        account: &Account,
        layout: &Layout,
        into: &Path,
        password: &Path,
    ) -> Result<(), Error> {
        // The first is the same on every machine and from 17 on; the second is what older ones and other systems have.
        let locales: [&[&str]; 2] = [&["--locale-provider=builtin", "--locale=C.UTF-8"], &["--locale=C"]];
        let mut outcome = Ok(());
        for locale in locales {
            outcome = self
                .run("initdb", account, layout, |command| {
                    command
                        .args([
                            "--encoding=UTF8",
                            "--data-checksums",
                            "--auth=scram-sha-256",
                            "--username",
                            super::USER,
                        ])
                        .arg("--pwfile")
                        .arg(password)
                        .args(locale)
                        .arg("--pgdata")
                        .arg(into)
                })
                .await
                .map(drop);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Begins to start the server and returns the program that waits for it; the server does not end with it.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be run.
    pub(super) fn start(&self, account: &Account, layout: &Layout) -> Result<Child, Error> {
        let path = self.directory.join("bin/pg_ctl");
        account
            .command(&path, &layout.root)
            // pg_ctl hands these to a shell: short names, whatever the directory above them is called.
            .args(["start", "--pgdata=data", "--log=log/start.log", "--options"])
            .arg(format!("-c {}", layout.mark()))
            .args(["--wait", "--silent", "--timeout", &START_PATIENCE.as_secs().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(at("run", &path))
    }

    /// Ends the server: sessions are broken off, what was committed is written, and it is waited for.
    ///
    /// Only for a server that is known to live: `pg_ctl` believes the pid file and would signal whoever has that number.
    ///
    /// # Errors
    /// [`Error::Program`] when it has not ended within a minute.
    pub(super) async fn stop(&self, account: &Account, layout: &Layout) -> Result<(), Error> {
        self.run("pg_ctl", account, layout, |command| {
            command.args(["stop", "--pgdata=data", "--mode=fast", "--wait", "--silent", "--timeout", STOP_SECONDS])
        })
        .await
        .map(drop)
    }

    /// Tells the server's process `pid` to leave at once, as Postgres itself does in an emergency.
    ///
    /// # Errors
    /// [`Error::Program`] when it has left already.
    pub(super) async fn quit(&self, account: &Account, layout: &Layout, pid: u32) -> Result<(), Error> {
        self.run("pg_ctl", account, layout, |command| command.args(["kill", "QUIT", &pid.to_string()])).await.map(drop)
    }

    async fn run(
        &self,
        program: &'static str,
        account: &Account,
        layout: &Layout,
        arguments: impl FnOnce(&mut tokio::process::Command) -> &mut tokio::process::Command,
    ) -> Result<Output, Error> {
        let path = self.directory.join("bin").join(program);
        let mut command = account.command(&path, &layout.root);
        let child = arguments(&mut command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.map_err(at("run", &path))?;
        // A call that is given up must not go on beside the next one.
        let group = scopeguard::guard(child.id(), kill_group);
        let output = child.wait_with_output().await.map_err(at("run", &path))?;
        ScopeGuard::into_inner(group);
        if output.status.success() {
            return Ok(output);
        }
        let said = [output.stdout, output.stderr].concat();
        Err(Error::Program { program, output: last_lines(&String::from_utf8_lossy(&said)) })
    }
}

/// Kills a program and everything it has started, as initdb starts servers. [`Account::command`] has made it the leader of
/// a group of its own.
fn kill_group(leader: Option<u32>) {
    if let Some(leader) = leader.and_then(|id| Pid::from_raw(id.try_into().ok()?)) {
        // It may have ended just now.
        let _ = kill_process_group(leader, Signal::KILL);
    }
}

/// The end of every log written to since `begun`.
pub(super) fn log_tail(layout: &Layout, begun: SystemTime) -> String {
    let Ok(logs) = fs::read_dir(&layout.log) else { return String::new() };
    let mut written: Vec<(SystemTime, PathBuf)> = logs
        .flatten()
        .filter_map(|log| {
            // Not followed: the directory is the account's, and the reader may be root.
            let found = log.metadata().ok().filter(fs::Metadata::is_file)?;
            found.modified().ok().filter(|changed| *changed >= begun).map(|changed| (changed, log.path()))
        })
        .collect();
    written.sort();
    let texts: Vec<String> = written
        .into_iter()
        .filter_map(|(_, path)| fs::read(path).ok())
        .map(|bytes| last_lines(&String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..])))
        .collect();
    texts.join("\n")
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// `18` of `postgres (PostgreSQL) 18.4`; before 10 the first two numbers were the major version.
fn major(version: &str) -> Option<String> {
    let number = version.split(") ").nth(1)?.split_whitespace().next()?;
    let first = number.split(|c: char| !c.is_ascii_digit()).next()?;
    (!first.is_empty()).then(|| first.to_owned())
}
