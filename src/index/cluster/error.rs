//! Why the embedded Postgres is not there, said so that the reader knows what to do next.
//!
//! No message carries the password. Those about a failed program carry the end of what it wrote.

use std::path::{Path, PathBuf};

/// Why the cluster cannot be opened, kept running or closed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program or an extension file of Postgres is not where it should be.
    #[error(
        "the embedded Postgres is not installed: {path} is missing; run scripts/setup run, or set \
         DOC_SERVER_DATABASE_URL to a Postgres with pgvector"
    )]
    Missing {
        /// What was looked for.
        path: PathBuf,
    },
    /// Postgres is there, pgvector is not.
    #[error(
        "the Postgres in {path} has no pgvector (share/extension/vector.control is missing); run scripts/setup run, \
         or set DOC_SERVER_DATABASE_URL to a Postgres with pgvector"
    )]
    MissingVector {
        /// The directory of Postgres.
        path: PathBuf,
    },
    /// The data were written by another major version.
    #[error(
        "{data} was written by Postgres {found}, but {binaries} is Postgres {ours}; point DOC_SERVER_POSTGRES_DIR to \
         a Postgres {found}, or move the data with pg_upgrade or pg_dump, or set DOC_SERVER_DATA_DIR to a new directory"
    )]
    Version {
        /// The data directory.
        data: PathBuf,
        /// The major version that wrote it.
        found: String,
        /// The directory of the programs.
        binaries: PathBuf,
        /// Their major version.
        ours: String,
    },
    /// Postgres refuses to run as root, and the account it would run as cannot get at a file.
    #[error(
        "Postgres does not run as root and would run as {account}, who may not enter or read {obstacle} (needed for \
         {path}); set DOC_SERVER_DATA_DIR to a directory that every user may enter, such as /var/lib/doc-server"
    )]
    Unreachable {
        /// Name and uid of the account.
        account: String,
        /// The file or folder whose mode refuses it.
        obstacle: PathBuf,
        /// What lies below.
        path: PathBuf,
    },
    /// The process is root and `/etc/passwd` has no unprivileged account to run Postgres as.
    #[error(
        "Postgres does not run as root, and /etc/passwd has neither postgres nor nobody; run doc-server as an \
         ordinary user, or set DOC_SERVER_DATABASE_URL"
    )]
    NoAccount,
    /// A private directory exists already and is not ours.
    #[error("{path} must be a directory of {account}, and is not (it belongs to uid {owner}); remove it")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Who should own it.
        account: String,
        /// Who does.
        owner: u32,
    },
    /// The data exist, their password does not.
    #[error(
        "{path} is missing or empty, and the database beside it cannot be entered without; restore that file, or move \
         the directory away to start with an empty database"
    )]
    PasswordMissing {
        /// The password file.
        path: PathBuf,
    },
    /// The database answers, and will not have us.
    #[error("the embedded Postgres refuses the connection: {0}")]
    Refused(sqlx::Error),
    /// A program of Postgres ended with a failure.
    #[error("{program} failed: {output}")]
    Program {
        /// Which.
        program: &'static str,
        /// The end of its output and of the log.
        output: String,
    },
    /// The server came up and went away, or never came up.
    #[error("the embedded Postgres did not start; its log in {log} ends with: {tail}")]
    Start {
        /// The log directory.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },
    /// The server is still recovering when patience ends.
    #[error(
        "the embedded Postgres has not become ready within {seconds} s and goes on trying (its log is in {log}); start \
         again later, what it has recovered is kept"
    )]
    StillStarting {
        /// How long was waited.
        seconds: u64,
        /// The log directory.
        log: PathBuf,
    },
    /// Another process keeps starting or stopping the cluster.
    #[error("another doc-server has been starting or stopping the embedded Postgres for {seconds} s (it holds {path})")]
    Busy {
        /// The lock.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// The system refused a file or a program.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Turns a system error on `path` into an [`Error::Io`]; `action` is the verb of "cannot …".
pub(super) fn at(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { action, path: path.to_owned(), source }
}
