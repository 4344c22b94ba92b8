//! The real binary, run as a person would.

use std::{
    ffi::OsStr,
    net::{SocketAddr, TcpListener},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

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

/// Two ports that were free just now. Another process may take one before it is used, which a test would show as a
/// taken port.
pub fn free_addresses() -> (SocketAddr, SocketAddr) {
    let bind = || TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let (first, second) = (bind(), bind());
    (first.local_addr().expect("an address"), second.local_addr().expect("an address"))
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
