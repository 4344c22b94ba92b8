//! A TCP proxy that breaks networks on purpose: put in front of a real server, it passes, refuses, resets, swallows, delays,
//! garbles or cuts its connections, or leads them to another server.
//!
//! A connection that was swallowed stays silent for ever, as behind a router that lost its state: only new ones work
//! after [`Proxy::restore`].

use std::{net::SocketAddr, sync::Arc, time::Duration};

use doc_server::runtime::lifecycle::Lifecycle;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
};

use super::{PATIENCE, process::reuse};

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Forwards.
    Pass,
    /// Nobody listens; open connections end.
    Refuse,
    /// Accepts and resets; open connections are reset.
    Reset,
    /// Accepts and forwards nothing, nor anything more on open connections.
    BlackHole,
    /// Forwards late, in both directions.
    Delay(Duration),
    /// Answers with as many bytes as the server, but others.
    Garbage,
}

/// The network's state: the fault, and how many times all connections were cut.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    fault: Fault,
    cuts: u64,
    accepted: u64,
    upstream: SocketAddr,
}

/// The proxy; it ends with this value.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    listening: watch::Receiver<bool>,
    lifecycle: Lifecycle,
}

impl Proxy {
    /// Listens on a free port of loopback and forwards to `upstream`.
    pub fn start(upstream: SocketAddr) -> Self {
        let port = reuse(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = port.local_addr().expect("its address");
        let listener = listen(address).expect("two may have one port while neither listens");
        let state = Arc::new(watch::Sender::new(State { fault: Fault::Pass, cuts: 0, accepted: 0, upstream }));
        let (told, listening) = watch::channel(true);
        let lifecycle = Lifecycle::new();
        let accepting = accept_task((port, listener), Arc::clone(&state), told, lifecycle.clone());
        let stopping = lifecycle.stopping();
        lifecycle.spawn_detached(async move { stopping.run_until_cancelled(accepting).await });
        Self { address, state, listening, lifecycle }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets the network have `fault` from now on; returns once it has.
    pub async fn set(&self, fault: Fault) {
        self.state.send_modify(|state| state.fault = fault);
        let mut listening = self.listening.clone();
        listening.wait_for(|open| *open == (fault != Fault::Refuse)).await.expect("the accept loop runs");
    }

    /// As if the cable were pulled where the other side notices: everything is reset.
    pub async fn break_networking(&self) {
        self.set(Fault::Reset).await;
    }

    /// Ends the fault.
    pub async fn restore(&self) {
        self.set(Fault::Pass).await;
    }

    /// Leads new connections to another server; open ones stay where they are.
    pub fn lead_to(&self, upstream: SocketAddr) {
        self.state.send_modify(|state| state.upstream = upstream);
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.state.borrow().accepted
    }

    /// Ends every open connection once; new ones work.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.lifecycle.stop();
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    reuse(address)?.listen(1024)
}

/// Accepts while it may; closes the listener while connections are refused, and listens on the same port again. `port` is held
/// all the time: otherwise another test's server is given it, and answers.
async fn accept_task(
    (port, listener): (TcpSocket, TcpListener),
    state: Arc<watch::Sender<State>>,
    told: watch::Sender<bool>,
    lifecycle: Lifecycle,
) {
    let address = port.local_addr().expect("its address");
    let mut listener = Some(listener);
    let mut changes = state.subscribe();
    loop {
        if state.borrow().fault == Fault::Refuse {
            listener = None;
            told.send_replace(false);
            let _ = changes.changed().await;
            continue;
        }
        let open = listener.get_or_insert_with(|| listen(address).expect("the port is held"));
        told.send_replace(true);
        tokio::select! {
            accepted = open.accept() => if let Ok((client, _)) = accepted {
                state.send_if_modified(|state| {
                    state.accepted += 1;
                    false
                });
                let connection = forward(client, state.subscribe());
                let stopping = lifecycle.stopping();
                lifecycle.spawn_detached(async move { stopping.run_until_cancelled(connection).await });
            },
            _ = changes.changed() => {}
        }
    }
}

/// One connection, until either side or a fault ends it.
async fn forward(mut client: TcpStream, mut changes: watch::Receiver<State>) {
    let began = *changes.borrow_and_update();
    // One that was accepted in the moment before connections were refused would be forwarded for ever.
    if matches!(began.fault, Fault::Reset | Fault::Refuse) {
        let _ = client.set_zero_linger();
        return;
    }
    if began.fault == Fault::BlackHole {
        return silence(client).await;
    }
    let Ok(mut server) = TcpStream::connect(began.upstream).await else { return };
    let (mut up, mut down) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    loop {
        let fault = changes.borrow().fault;
        let passed = tokio::select! {
            biased;
            _ = changes.changed() => {
                let now = *changes.borrow_and_update();
                if now.fault == Fault::BlackHole {
                    return silence((client, server)).await;
                }
                if now.cuts != began.cuts || matches!(now.fault, Fault::Reset | Fault::Refuse) {
                    let _ = (client.set_zero_linger(), server.set_zero_linger());
                    return;
                }
                true
            }
            read = client.read(&mut up) => pass(read, &up, &mut server, fault).await,
            read = server.read(&mut down) => {
                if fault == Fault::Garbage {
                    fastrand::fill(&mut down);
                }
                pass(read, &down, &mut client, fault).await
            }
        };
        if !passed {
            return;
        }
    }
}

/// Hands on what was read; false at the end of the stream.
async fn pass(read: std::io::Result<usize>, buffer: &[u8], to: &mut TcpStream, fault: Fault) -> bool {
    if let Fault::Delay(time) = fault {
        tokio::time::sleep(time).await;
    }
    match read {
        Ok(bytes) if bytes > 0 => to.write_all(&buffer[..bytes]).await.is_ok(),
        _ => false,
    }
}

/// Keeps sockets open and does nothing with them, until the proxy ends.
async fn silence<T>(sockets: T) {
    std::future::pending::<()>().await;
    drop(sockets);
}

/// A server that sends back what it gets, behind a proxy.
async fn echo() -> (Proxy, Lifecycle) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let lifecycle = Lifecycle::new();
    let (inner, stopping) = (lifecycle.clone(), lifecycle.stopping());
    lifecycle.spawn_detached(stopping.run_until_cancelled_owned(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let stopping = inner.stopping();
            inner.spawn_detached(stopping.run_until_cancelled_owned(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            }));
        }
    }));
    (Proxy::start(address), lifecycle)
}

/// Sends three bytes and waits for them.
async fn answers(stream: &mut TcpStream) -> Result<(), std::io::Error> {
    answers_within(PATIENCE, stream).await
}

/// The same, where nothing may come: for a quarter of a second.
async fn is_silent(stream: &mut TcpStream) -> bool {
    let answer = answers_within(Duration::from_millis(250), stream).await;
    answer.is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut)
}

async fn answers_within(time: Duration, stream: &mut TcpStream) -> Result<(), std::io::Error> {
    stream.write_all(b"abc").await?;
    let mut back = [0; 3];
    match tokio::time::timeout(time, stream.read_exact(&mut back)).await {
        Ok(read) => read.map(|_| assert_eq!(&back, b"abc")),
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}

#[tokio::test]
async fn a_proxy_passes_resets_and_passes_again() {
    let (proxy, _server) = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    answers(&mut stream).await.unwrap();
    proxy.break_networking().await;
    assert_eq!(answers(&mut stream).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let mut during = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(answers(&mut during).await.is_err());
    proxy.restore().await;
    answers(&mut TcpStream::connect(proxy.address()).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_proxy_refuses_and_cuts_connections() {
    let (proxy, _server) = echo().await;
    proxy.set(Fault::Refuse).await;
    let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let taken = TcpSocket::new_v4().unwrap().bind(proxy.address()).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse, "nobody else is given the port meanwhile");
    proxy.restore().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    answers(&mut stream).await.unwrap();
    proxy.cut();
    assert!(answers(&mut stream).await.is_err());
    answers(&mut TcpStream::connect(proxy.address()).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_black_hole_swallows_old_connections_for_ever_and_new_ones_until_it_ends() {
    let (proxy, _server) = echo().await;
    let mut old = TcpStream::connect(proxy.address()).await.unwrap();
    answers(&mut old).await.unwrap();
    proxy.set(Fault::BlackHole).await;
    assert!(is_silent(&mut old).await);
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(is_silent(&mut new).await);
    proxy.restore().await;
    assert!(is_silent(&mut old).await);
    answers(&mut TcpStream::connect(proxy.address()).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_delay_is_felt_in_both_directions() {
    let (proxy, _server) = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    proxy.set(Fault::Delay(Duration::from_millis(40))).await;
    let began = std::time::Instant::now();
    answers(&mut stream).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(80));
}
