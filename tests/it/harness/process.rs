//! The real binary, run as a person would.

use std::{
    ffi::OsStr,
    net::SocketAddr,
    process::{Command, Output, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::net::TcpSocket;

/// The binary without any of the caller's settings.
pub fn doc_server<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doc-server"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DOC_SERVER_") {
            command.env_remove(name);
        }
    }
    // Nobody watches readiness here.
    command.env("DOC_SERVER_DRAIN_DELAY_S", "0");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// How a program ended.
pub struct Ended {
    /// Its exit code; none after a signal.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Runs `command` to its end.
pub fn run(command: &mut Command) -> Ended {
    command.output().expect("the binary runs").into()
}

/// Two ports that no other test is given.
pub fn free_addresses() -> (SocketAddr, SocketAddr) {
    (free_address(), free_address())
}

/// A port that no other test is given: a socket that does not listen holds it until all tests have ended, and leaves it to whoever
/// says, as all servers do, that it may be used again.
pub fn free_address() -> SocketAddr {
    static HELD: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());
    let socket = reuse(([127, 0, 0, 1], 0).into()).expect("a free port");
    let address = socket.local_addr().expect("its address");
    HELD.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
    address
}

/// A socket on `address` that lets others have it too, as long as they say the same.
pub fn reuse(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// A program that runs until it is told to stop; killed when the test ends before it.
pub struct Running {
    child: Option<std::process::Child>,
}

impl Running {
    /// Starts `command`, with its output discarded.
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
        Self { child: Some(child) }
    }

    /// Starts `command`, with what it complains about in `log`.
    pub fn start_logging(command: &mut Command, log: std::fs::File) -> Self {
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("the binary runs");
        Self { child: Some(child) }
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("a running program").id()
    }

    /// Sends a signal such as `TERM`, without waiting.
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("a running program").id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().expect("kill");
        assert!(sent.success(), "kill -s {name} {id}");
    }

    /// Its exit code, once it has ended.
    pub fn wait(mut self, patience: Duration) -> Option<i32> {
        let mut child = self.child.take().expect("a running program");
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = child.try_wait().expect("its state") {
                return status.code();
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("still running after {patience:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = (child.kill(), child.wait());
        }
    }
}
