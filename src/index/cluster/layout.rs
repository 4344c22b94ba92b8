//! Where everything of the cluster lies.
//!
//! ```text
//! $DATA/cluster/              of the invoking user
//!   password                  of the database's superuser, 0600
//!   control.lock users.lock   who starts and stops, who is there
//!   data.unfinished-*         while initdb makes it, or a leftover that the next start removes
//!   data/                     what initdb made; of the account Postgres runs as, like the next two
//!   log/                      a week of Postgres' own log
//!   socket/                   the only door; in /tmp where its path would be too long
//! ```

use std::path::{Path, PathBuf};

/// The kernel's `sun_path` holds 108 bytes with the closing zero.
const SOCKET_PATH_MAX: usize = 107;

/// The name that libpq and sqlx derive from the port; no TCP port is opened.
pub(super) const PORT: u16 = 5432;

/// The name and the paths of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// What the server is called by `ps` and its settings: tells apart the clusters of one machine.
    pub(super) name: String,
    /// The whole.
    pub(super) root: PathBuf,
    /// What Postgres calls the data directory.
    pub(super) data: PathBuf,
    /// The directory of the logs.
    pub(super) log: PathBuf,
    /// What Postgres says before its log is open.
    pub(super) early_log: PathBuf,
    /// The directory of the socket.
    pub(super) socket: PathBuf,
    /// The superuser's password.
    pub(super) password: PathBuf,
    /// The lock of starting and stopping.
    pub(super) control: PathBuf,
    /// The lock of those who are there.
    pub(super) users: PathBuf,
}

impl Layout {
    /// The paths below `root`, which must be absolute and free of links: the socket's place is derived from it.
    pub(super) fn new(root: &Path) -> Self {
        let log = root.join("log");
        // 64 bits tell apart the few clusters of one machine.
        let name = format!("doc-server-{}", &blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex()[..16]);
        Self {
            data: root.join("data"),
            early_log: log.join("start.log"),
            log,
            socket: socket_directory(root, &name),
            password: root.join("password"),
            control: root.join("control.lock"),
            users: root.join("users.lock"),
            root: root.to_owned(),
            name,
        }
    }

    /// The socket file itself.
    pub(super) fn socket_file(&self) -> PathBuf {
        self.socket.join(format!(".s.PGSQL.{PORT}"))
    }

    /// The setting on the server's command line by which it is known where its working directory is not to be seen.
    pub(super) fn mark(&self) -> String {
        format!("cluster_name={}", self.name)
    }

    /// The pid file that Postgres puts beside the socket.
    pub(super) fn socket_lock(&self) -> PathBuf {
        self.socket.join(format!(".s.PGSQL.{PORT}.lock"))
    }
}

/// `root/socket`, or a short directory named after the cluster where the socket's path would not fit.
fn socket_directory(root: &Path, name: &str) -> PathBuf {
    let near = root.join("socket");
    if near.as_os_str().len() + format!("/.s.PGSQL.{PORT}").len() <= SOCKET_PATH_MAX {
        return near;
    }
    // Not TMPDIR, which may differ between two processes that must find the same socket. The directory's owner is
    // checked before it is used.
    Path::new("/tmp").join(name)
}
