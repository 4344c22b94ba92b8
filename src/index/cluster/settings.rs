//! What our Postgres is told, and why: written to `doc-server.conf`, which `postgresql.conf` includes last.
//!
//! It is written anew at each start, so a changed setting counts from the next one. Whatever a person adds to
//! `postgresql.conf` below the include, or sets by `alter system`, wins.

use super::{Config, layout::Layout};

/// The file's name in the data directory.
pub(super) const FILE: &str = "doc-server.conf";

/// The line that `postgresql.conf` ends with.
pub(super) const INCLUDE: &str =
    "\n# Everything doc-server sets; put your own settings below this line.\ninclude 'doc-server.conf'\n";

/// The text of the file.
pub(super) fn render(config: &Config, layout: &Layout) -> String {
    let Config { max_connections, shared_buffers_mb, .. } = config;
    let socket = quote(&layout.socket.to_string_lossy());
    format!(
        "# Written by doc-server at each start: changes belong below the include in postgresql.conf.

# The door: one Unix socket in a directory that only the server's account may enter. Never TCP, not even loopback.
listen_addresses = ''
unix_socket_directories = {socket}
unix_socket_permissions = 0700

# What an acknowledged write survives: the defaults, repeated so that nobody wonders.
fsync = on
synchronous_commit = on
full_page_writes = on

# Size. The pools of serve, a worker and a few command lines share the connections.
max_connections = {max_connections}
shared_buffers = {shared_buffers_mb}MB
# An HNSW graph that outgrows this while it is built is finished on disk, many times slower.
maintenance_work_mem = 256MB

# Searches take a few milliseconds: compiling them, or starting parallel workers, costs more than it saves.
jit = off
max_parallel_workers_per_gather = 0
max_parallel_workers = 2
# A parallel HNSW build puts all of maintenance_work_mem in /dev/shm, of which a container has 64 MB: it would fail.
# Whoever knows that there is room raises this for one session.
max_parallel_maintenance_workers = 0
# Indexes live in memory or on SSD, where another page costs about as much as the next one.
random_page_cost = 1.1

# A statement whose caller has gone ends within a second instead of running to its end.
client_connection_check_interval = '1s'

# After each checkpoint the first change of a page writes all of it; compressed, an import syncs less.
wal_compression = on
# Five minutes at most lie between a crash and the checkpoint that recovery starts from.
checkpoint_timeout = '5min'
max_wal_size = 1GB

# One file a weekday, overwritten after a week, so the log is bounded.
logging_collector = on
log_directory = '../log'
log_filename = 'postgres-%a.log'
log_rotation_age = '1d'
log_rotation_size = 0
log_truncate_on_rotation = on
log_checkpoints = off
log_line_prefix = '%m [%p] '
# Errors are matched and quoted in English, times are in UTC, wherever the machine stands.
lc_messages = 'C'
log_timezone = 'UTC'
timezone = 'UTC'
"
    )
}

/// A value as the configuration file wants it; a path may hold a quote, and a comma would end it in a list.
fn quote(value: &str) -> String {
    format!("'\"{}\"'", value.replace('"', "\"\"").replace('\\', "\\\\").replace('\'', "''"))
}
