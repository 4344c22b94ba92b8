//! Which account Postgres runs as: the process's own, or an unprivileged one where the process is root.
//!
//! Postgres refuses to run as root, so root lends it an account, its directories and nothing else: the password and the
//! locks stay root's. What that account cannot read is found out before it is tried and named with the way out.

use std::{
    fs::{self, DirBuilder, Metadata, Permissions},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use tokio::process::Command;

use super::error::{Error, at};

/// The accounts root lends, best first: Debian's and Red Hat's packages make the first, every Unix has the second.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// Only the owner may enter.
const PRIVATE: u32 = 0o700;

/// The account that Postgres runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
    name: String,
    /// Whether it is another than the process's own, which only root may arrange.
    lent: bool,
}

impl Account {
    /// The account for the cluster in `data`: the process's own, or as root the owner of `data`, else `postgres`, else
    /// `nobody`.
    ///
    /// # Errors
    /// [`Error::NoAccount`] as root where neither exists.
    pub(super) fn choose(data: &Path) -> Result<Self, Error> {
        // The kernel tells a socket's peer, here ourselves, without any unsafe call.
        let (own, _) = tokio::net::UnixStream::pair().map_err(at("open", Path::new("a socket pair")))?;
        let own = own.peer_cred().map_err(at("read the owner of", Path::new("a socket pair")))?;
        if own.uid() != 0 {
            return Ok(Self { uid: own.uid(), gid: own.gid(), name: String::from("this user"), lent: false });
        }
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        if let Ok(owner) = fs::metadata(data)
            && owner.uid() != 0
        {
            let name = named(&accounts, |account| account.uid == owner.uid())
                .map_or_else(|| String::from("the owner of the data"), |account| account.name);
            return Ok(Self { uid: owner.uid(), gid: owner.gid(), name, lent: true });
        }
        UNPRIVILEGED
            .iter()
            .find_map(|name| named(&accounts, |account| account.name == *name && account.uid != 0))
            .ok_or(Error::NoAccount)
    }

    /// Its number.
    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    /// `program` as this account, with nothing of the caller's environment but where to find libraries, outside the
    /// caller's process group so that an interrupt from the terminal does not reach it.
    pub(super) fn command(&self, program: &Path, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C");
        if let Some(libraries) = std::env::var_os("LD_LIBRARY_PATH") {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        // The caller's own directory may be one that the account cannot enter.
        command.current_dir(directory).process_group(0).stdin(std::process::Stdio::null());
        if self.lent {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Makes `path` a directory that only this account may enter.
    ///
    /// # Errors
    /// [`Error::Foreign`] when it exists and is another's, or is not a directory; [`Error::Io`] otherwise.
    pub(super) fn private_directory(&self, path: &Path) -> Result<(), Error> {
        match DirBuilder::new().mode(PRIVATE).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(at("create", path)(error)),
        }
        // Not followed: in a shared directory a link would lead us to give away somebody else's files.
        let found = fs::symlink_metadata(path).map_err(at("read", path))?;
        // Root's own is one that root has just made, here or before it was interrupted.
        let ours = found.uid() == self.uid || (self.lent && found.uid() == 0);
        if !found.is_dir() || !ours {
            return Err(Error::Foreign { path: path.to_owned(), account: self.to_string(), owner: found.uid() });
        }
        if found.mode() & 0o077 != 0 {
            fs::set_permissions(path, Permissions::from_mode(PRIVATE)).map_err(at("close to others", path))?;
        }
        self.own(path)
    }

    /// Lets this account pass through `path`, a directory of ours whose contents are protected each for itself.
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses.
    pub(super) fn let_through(&self, path: &Path) -> Result<(), Error> {
        let mode = fs::metadata(path).map_err(at("read", path))?.mode();
        if self.lent && mode & 0o1 == 0 {
            fs::set_permissions(path, Permissions::from_mode(mode | 0o11)).map_err(at("open to others", path))?;
        }
        Ok(())
    }

    /// Gives `path` to this account.
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses.
    pub(super) fn own(&self, path: &Path) -> Result<(), Error> {
        if self.lent { chown(path, Some(self.uid), Some(self.gid)).map_err(at("give away", path)) } else { Ok(()) }
    }

    /// Checks that this account can enter every directory above `path` and read `path` itself.
    ///
    /// # Errors
    /// [`Error::Unreachable`] naming the first that refuses.
    pub(super) fn check_reach(&self, path: &Path) -> Result<(), Error> {
        if !self.lent {
            return Ok(());
        }
        let real = path.canonicalize().map_err(at("find", path))?;
        let mut line: Vec<&Path> = real.ancestors().collect();
        line.reverse();
        for step in line {
            let found = fs::metadata(step).map_err(at("read", step))?;
            // Entering a directory takes its x bit, reading a file its r bit.
            let needed = if found.is_dir() { 0o1 } else { 0o4 };
            if self.bits(&found) & needed == 0 {
                let (account, obstacle): (String, PathBuf) = (self.to_string(), step.to_owned());
                return Err(Error::Unreachable { account, obstacle, path: path.to_owned() });
            }
        }
        Ok(())
    }

    /// The three permission bits that count for this account.
    fn bits(&self, found: &Metadata) -> u32 {
        let shift = if found.uid() == self.uid {
            6
        } else if found.gid() == self.gid {
            3
        } else {
            0
        };
        found.mode() >> shift
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} (uid {})", self.name, self.uid)
    }
}

/// The first account of a passwd file that `wanted` accepts.
fn named(accounts: &str, wanted: impl Fn(&Account) -> bool) -> Option<Account> {
    accounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Account { uid, gid, name, lent: true })
        })
        .find(wanted)
}
