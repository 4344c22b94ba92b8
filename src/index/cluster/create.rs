//! A new cluster: its password, its data directory, its empty database.
//!
//! The data directory is made under another name and renamed when it is whole and on disk, so a crash at any point leaves
//! either all of it or a leftover that the next start removes. Nobody but root and the account can read the password.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};

use super::{
    Config,
    account::Account,
    control::Programs,
    error::{Error, at},
    layout::Layout,
    settings,
};

/// 256 bits, as hexadecimal digits: no character that a URL or a shell would have to quote.
const PASSWORD_BYTES: usize = 32;

/// Data directories in the making are named so, each with an end of its own: an initdb that outlived its caller must not
/// write into the next one's.
const UNFINISHED: &str = "data.unfinished-";

/// The superuser's password: the one kept, or a new one when there are no data yet that need the old.
///
/// # Errors
/// [`Error::PasswordMissing`] when there are, [`Error::Io`] when it cannot be read or written.
pub(super) fn password(layout: &Layout) -> Result<String, Error> {
    let kept = match fs::read_to_string(&layout.password) {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(at("read", &layout.password)(error)),
    };
    if !kept.is_empty() {
        return Ok(kept);
    }
    if layout.data.exists() {
        return Err(Error::PasswordMissing { path: layout.password.clone() });
    }
    let new = random(PASSWORD_BYTES)?;
    replace(&layout.password, &new)?;
    Ok(new)
}

/// Makes the data directory.
///
/// # Errors
/// [`Error::Program`] with what initdb said, [`Error::Io`] when the directory cannot be written.
///
/// # Cancel safety
/// Giving up leaves a leftover for [`remove_leftovers`].
pub(super) async fn data_directory(
    programs: &Programs,
    account: &Account,
    layout: &Layout,
    password: &str,
) -> Result<(), Error> {
    let attempt = random(4)?;
    let unfinished = layout.root.join(format!("{UNFINISHED}{attempt}"));
    // The password's own file stays ours, and initdb runs as the account: it gets a copy for as long as it runs.
    let copy = layout.root.join(format!("{UNFINISHED}{attempt}-password"));
    account.private_directory(&unfinished)?;
    replace(&copy, password)?;
    account.own(&copy)?;
    let made = programs.initdb(account, layout, &unfinished, &copy).await;
    fs::remove_file(&copy).map_err(at("remove", &copy))?;
    if made.is_err() {
        remove_leftovers(layout)?;
    }
    made?;
    include_settings(&unfinished)?;
    fs::rename(&unfinished, &layout.data).map_err(at("rename", &unfinished))?;
    sync(&layout.root)
}

/// Writes what Postgres is told, for its next start.
///
/// # Errors
/// [`Error::Io`] when the file cannot be written.
pub(super) fn settings_file(config: &Config, account: &Account, layout: &Layout) -> Result<(), Error> {
    let path = layout.data.join(settings::FILE);
    replace(&path, &settings::render(config, layout))?;
    account.own(&path)
}

/// Creates the empty database; `postgres` leads to the one that every cluster has.
///
/// # Errors
/// [`Error::Refused`] with what the database said.
pub(super) async fn database(postgres: &PgConnectOptions, name: &str) -> Result<(), Error> {
    let mut connection = PgConnection::connect_with(postgres).await.map_err(Error::Refused)?;
    let statement = format!("create database \"{}\"", name.replace('"', "\"\""));
    // A name cannot be a parameter; it is a setting of ours and quoted.
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.map_err(Error::Refused)?;
    connection.close().await.map_err(Error::Refused)
}

/// Removes what interrupted calls of [`data_directory`] have left.
///
/// # Errors
/// [`Error::Io`] when the cluster's directory cannot be read.
pub(super) fn remove_leftovers(layout: &Layout) -> Result<(), Error> {
    for found in fs::read_dir(&layout.root).map_err(at("read", &layout.root))?.flatten() {
        if !found.file_name().to_string_lossy().starts_with(UNFINISHED) {
            continue;
        }
        let path = found.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        // An initdb that is being killed may still write; its directory is then removed the next time.
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "cannot remove what an interrupted start left");
        }
    }
    Ok(())
}

/// Makes `postgresql.conf` end with our file.
fn include_settings(data: &Path) -> Result<(), Error> {
    let path = data.join("postgresql.conf");
    let mut file = OpenOptions::new().append(true).open(&path).map_err(at("open", &path))?;
    file.write_all(settings::INCLUDE.as_bytes()).and_then(|()| file.sync_all()).map_err(at("write", &path))
}

/// Replaces a file by one that only its owner may read, whole or not at all.
///
/// # Errors
/// [`Error::Io`] when the system refuses; the old file is then still there.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    match fs::remove_file(new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(at("remove", new)(error)),
        _ => {}
    }
    // `create_new` follows no link that somebody put there.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new).map_err(at("create", new))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at("write", new))?;
    fs::rename(new, path).map_err(at("rename", new))?;
    sync(path.parent().unwrap_or(path))
}

/// Waits until the names in `directory` are on disk.
fn sync(directory: &Path) -> Result<(), Error> {
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(at("sync", directory))
}

/// `bytes` random bytes as hexadecimal digits.
fn random(bytes: usize) -> Result<String, Error> {
    use std::fmt::Write as _;

    let source = Path::new("/dev/urandom");
    let mut drawn = vec![0; bytes];
    File::open(source).and_then(|mut opened| opened.read_exact(&mut drawn)).map_err(at("read", source))?;
    Ok(drawn.iter().fold(String::with_capacity(bytes * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
