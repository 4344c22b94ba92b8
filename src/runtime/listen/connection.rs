//! One connection, from its first byte to its last: handshake, protocol, requests, farewell.

use std::{
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{extract::ConnectInfo, routing::future::RouteFuture};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use hyper::{
    Request, Response,
    body::{Body as _, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tower::Service;

use super::{
    Config,
    body::{Answer, Pace, upload},
    front::{Early, Front, Head},
    http2::{Metered, PREFACE, Streams},
    stream::Watched,
    watch::{End, OpenRequest, Phase, Protocol, Watch},
};
use crate::runtime::lifecycle::Lifecycle;

/// Resets that h2 takes of streams it has not handed out yet, and errors of the caller's streams, before it says goodbye: its own
/// defaults, chosen after the attacks on just these.
const PENDING_RESETS: usize = 20;
const ERROR_RESETS: usize = 1_024;

/// What every connection of a listener shares.
pub(super) struct Door {
    pub(super) front: Front,
    pub(super) config: Arc<Config>,
    pub(super) lifecycle: Lifecycle,
}

/// One connection: what is needed to serve it.
pub(super) struct Connection {
    pub(super) door: Arc<Door>,
    pub(super) peer: SocketAddr,
    pub(super) watch: Arc<Watch>,
}

impl Connection {
    /// Serves `stream` until either side ends. Deadlines are kept by who polls this.
    pub(super) async fn serve(self, stream: TcpStream) -> End {
        let mut stream = Watched::new(stream, Arc::clone(&self.watch));
        let config = &self.door.config;
        if let Some(certificates) = &config.tls {
            let Ok(stream) = certificates.acceptor().accept(stream).await else { return End::Handshake };
            self.watch.enter(Phase::Head);
            let negotiated = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            return if negotiated { self.serve_http2(stream).await } else { self.serve_http1(stream).await };
        }
        if !config.http2.cleartext {
            return self.serve_http1(stream).await;
        }
        match begins_http2(&mut stream).await {
            Ok(true) => self.serve_http2(stream).await,
            Ok(false) => self.serve_http1(stream).await,
            Err(_) => End::Broken,
        }
    }

    async fn serve_http1<I: AsyncRead + AsyncWrite + Unpin>(self, stream: I) -> End {
        self.watch.speak(Protocol::Http1);
        let watch = Arc::clone(&self.watch);
        let config = Arc::clone(&self.door.config);
        let service = service_fn(move |request| self.answer(request, None));
        let mut connection = http1::Builder::new()
            // Our own deadlines: hyper's closes connections that are idle too.
            .header_read_timeout(None)
            .max_header_size(config.max_header_bytes)
            .max_buf_size(config.max_header_bytes)
            .serve_connection(TokioIo::new(stream), service);
        let mut told = false;
        let result = poll_fn(|cx| {
            loop {
                let polled = connection.poll_without_shutdown(cx);
                if told || polled.is_ready() || !watch.must_finish() {
                    return polled;
                }
                told = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        })
        .await;
        let stream = connection.into_parts().io.into_inner();
        let refused = result.as_ref().is_err_and(hyper::Error::is_parse);
        farewell(stream, &watch, refused).await;
        if result.is_ok() { End::Finished } else { End::Broken }
    }

    async fn serve_http2<I: AsyncRead + AsyncWrite + Unpin>(self, stream: I) -> End {
        self.watch.speak(Protocol::Http2);
        let (watch, config) = (Arc::clone(&self.watch), Arc::clone(&self.door.config));
        let streams = Streams::new(self.door.lifecycle.clone(), config.write_timeout);
        let paces = streams.clone();
        let service = service_fn(move |request| self.answer(request, Some(paces.pace())));
        let stream = TokioIo::new(Metered::new(stream, Arc::clone(&watch)));
        let connection = http2::Builder::new(streams)
            .timer(TokioTimer::new())
            .max_concurrent_streams(config.http2.max_streams)
            .initial_stream_window_size(config.http2.stream_window)
            .initial_connection_window_size(config.http2.connection_window)
            .max_header_list_size(u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(ERROR_RESETS)
            // A caller that is gone is found out while its answers are open.
            .keep_alive_interval(config.write_timeout)
            .keep_alive_timeout(config.write_timeout)
            .serve_connection(stream, service);
        let mut connection = pin!(connection);
        let mut told = false;
        let result = poll_fn(|cx| {
            if !told && watch.must_finish() {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(cx)
        })
        .await;
        if result.is_ok() { End::Finished } else { End::Broken }
    }

    /// One request; open until its answer is handed over.
    fn answer(&self, request: Request<Incoming>, pace: Option<Arc<Pace>>) -> Answering {
        let open = self.watch.begin();
        match self.early(&request) {
            Some(Early::Ready(response)) => {
                return Answering::Given(Some(response.map(|bytes| Answer::whole(bytes, open, pace))));
            }
            Some(Early::Coming(response)) => return Answering::Coming { response, open: Some((open, pace)) },
            None => {}
        }
        let timeout = self.door.config.body_timeout;
        let mut request = request.map(|body| upload(body, timeout, open.watch()));
        request.extensions_mut().insert(ConnectInfo(self.peer));
        // A router is always ready.
        let route = self.door.front.router().clone().call(request);
        Answering::Routed { route, open: Some(open), pace }
    }

    fn early(&self, request: &Request<Incoming>) -> Option<Early> {
        let (method, uri, version, headers) = (request.method(), request.uri(), request.version(), request.headers());
        let head = Head { method, uri, version, headers, peer: self.peer };
        request.body().is_end_stream().then(|| self.door.front.early(&head))?
    }
}

/// A request on its way to its answer.
enum Answering {
    /// Answered already.
    Given(Option<Response<Answer>>),
    /// On its way without the router.
    Coming { response: BoxFuture<'static, Response<Bytes>>, open: Option<(OpenRequest, Option<Arc<Pace>>)> },
    /// On its way through the router.
    Routed { route: RouteFuture<Infallible>, open: Option<OpenRequest>, pace: Option<Arc<Pace>> },
}

impl Future for Answering {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            // Nobody polls an answered future again.
            Self::Given(response) => response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(response))),
            Self::Coming { response, open } => {
                let response = ready!(response.as_mut().poll(cx));
                let Some((open, pace)) = open.take() else { return Poll::Pending };
                Poll::Ready(Ok(response.map(|bytes| Answer::whole(bytes, open, pace))))
            }
            Self::Routed { route, open, pace } => {
                let response = ready!(Pin::new(route).poll(cx))?;
                let (open, pace) = (open.take(), pace.take());
                Poll::Ready(Ok(response.map(|body| Answer::streamed(body, open, pace))))
            }
        }
    }
}

/// Whether the first bytes are HTTP/2's. They are given back to the next reader.
async fn begins_http2(stream: &mut Watched) -> std::io::Result<bool> {
    let mut bytes = BytesMut::with_capacity(1_024);
    while bytes.len() < PREFACE.len() && PREFACE.starts_with(&bytes) {
        if stream.read_buf(&mut bytes).await? == 0 {
            break;
        }
    }
    let begins = bytes.starts_with(PREFACE);
    stream.unread(bytes.freeze());
    Ok(begins)
}

/// Ends the writing side, and reads on while a caller that was refused is still sending: what lies unread when a socket is closed
/// makes the system send a reset, which can take the answer from the caller.
async fn farewell<I: AsyncRead + AsyncWrite + Unpin>(mut stream: I, watch: &Watch, refused: bool) {
    if stream.shutdown().await.is_err() || !(refused || watch.has_unread()) {
        return;
    }
    watch.enter(Phase::Linger);
    let mut nothing = [0; 8 * 1_024];
    while stream.read(&mut nothing).await.is_ok_and(|read| read > 0) {}
}
