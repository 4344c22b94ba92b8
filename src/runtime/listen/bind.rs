//! Opening an address, with an error that says who has it.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use super::Error;

/// Connections that the kernel holds for us while the loop is busy. More than its usual limit (`net.core.somaxconn`, 4,096)
/// is cut to that.
pub(super) const BACKLOG: u32 = 4_096;

/// Opens `address`, named by `setting` in errors.
///
/// # Errors
/// When the port is taken (by whom, where the system tells) or the address is not ours.
pub async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    open(address).map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => Error::Taken { setting, address, holder: holder_of(address.port()) },
        _ => Error::Bind { setting, address, source },
    })
}

fn open(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for the last process's closed connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// ` by PROGRAM (process N)` for the process of this machine that listens on `port`, or nothing where `/proc`
/// does not tell (another user's process, another system).
fn holder_of(port: u16) -> String {
    let inodes = listening_inodes(port);
    let Ok(processes) = std::fs::read_dir("/proc") else { return String::new() };
    for process in processes.flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let holds = files
            .flatten()
            .filter_map(|file| std::fs::read_link(file.path()).ok())
            .any(|target| inodes.iter().any(|inode| target.as_os_str() == format!("socket:[{inode}]").as_str()));
        if holds {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return format!(" by {} (process {id})", name.trim());
        }
    }
    String::new()
}

/// The inodes of the sockets that listen on `port`, from the kernel's tables (state 0A is LISTEN).
fn listening_inodes(port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| {
            table
                .lines()
                .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
                .filter(|fields| fields.len() > 9 && fields[1].ends_with(&suffix) && fields[3] == "0A")
                .map(|mut fields| fields.swap_remove(9))
                .collect::<Vec<_>>()
        })
        .collect()
}
