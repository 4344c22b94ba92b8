//! The two bodies of a request: what the caller sends, under a deadline, and what it gets, which ends the request.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures::task::AtomicWaker;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::watch::{OpenRequest, Watch};

/// The caller did not send its body in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body did not arrive within {} s", .0.as_secs_f64())]
pub struct BodyTimeout(pub Duration);

/// What the caller sends. The timer is made when the handler first has to wait.
struct Upload {
    body: Incoming,
    began: Instant,
    timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    watch: Arc<Watch>,
}

/// The body of a request as handlers read it: it fails with [`BodyTimeout`] when it is not there in time.
pub(super) fn upload(body: Incoming, timeout: Duration, watch: &Arc<Watch>) -> Body {
    if body.is_end_stream() {
        return Body::empty();
    }
    Body::new(Upload { body, began: Instant::now(), timeout, timer: None, watch: Arc::clone(watch) })
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let (deadline, timeout) = (self.began + self.timeout, self.timeout);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(Box::new(BodyTimeout(timeout)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.body.is_end_stream() {
            self.watch.leave_unread();
        }
    }
}

/// An HTTP/2 answer is handed over in parts of this size at most, so that a slow reader's progress shows: as much as a reader's
/// window usually holds.
const PART: usize = 64 * 1_024;

/// How far the reader of one HTTP/2 answer has come.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Odd while a part waits for room in the reader's window; changes with each part.
    steps: AtomicU64,
    /// Parts that are not written to the socket yet.
    held: AtomicUsize,
    /// The answer, which waits for them at its end.
    waker: AtomicWaker,
}

impl Pace {
    /// Changes with each part; whether one waits.
    pub(super) fn now(&self) -> (u64, bool) {
        let steps = self.steps.load(Ordering::Relaxed);
        (steps, !steps.is_multiple_of(2))
    }

    fn step(&self, waits: bool) {
        let steps = self.steps.load(Ordering::Relaxed);
        // Always forward, so that two parts in a row are not taken for one.
        let next = steps + 1 + u64::from(steps.is_multiple_of(2) != waits);
        self.steps.store(next, Ordering::Relaxed);
    }

    /// Ready once every part is written.
    fn poll_written(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.held.load(Ordering::Acquire) == 0 { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A part of an answer, which knows when the protocol has written it.
struct Part {
    bytes: Bytes,
    pace: Arc<Pace>,
}

impl Part {
    fn frame(bytes: Bytes, pace: &Arc<Pace>) -> Frame<Bytes> {
        pace.held.fetch_add(1, Ordering::AcqRel);
        pace.step(true);
        Frame::data(Bytes::from_owner(Self { bytes, pace: Arc::clone(pace) }))
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.pace.held.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.pace.waker.wake();
        }
    }
}

/// What the caller gets. The request is open until this is dropped, which the protocol does after the last part.
pub(super) struct Answer {
    body: Content,
    _open: Option<OpenRequest>,
    paced: Option<Paced>,
}

/// The bytes of an answer.
enum Content {
    /// All of them, or what is left: nothing.
    Whole(Bytes),
    /// As they come.
    Streamed(Body),
}

impl Content {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Streamed(body) => Pin::new(body).poll_frame(cx),
        }
    }
}

/// An answer whose reader is watched: its end is told only when every part of it is written.
struct Paced {
    pace: Arc<Pace>,
    /// Of the last part of `body`, still to be handed over.
    rest: Bytes,
    begun: bool,
    ended: bool,
}

impl Answer {
    /// One that is complete.
    pub(super) fn whole(bytes: Bytes, open: OpenRequest, pace: Option<Arc<Pace>>) -> Self {
        Self::new(Content::Whole(bytes), Some(open), pace)
    }

    /// One that may still be made while it is sent.
    pub(super) fn streamed(body: Body, open: Option<OpenRequest>, pace: Option<Arc<Pace>>) -> Self {
        Self::new(Content::Streamed(body), open, pace)
    }

    fn new(body: Content, open: Option<OpenRequest>, pace: Option<Arc<Pace>>) -> Self {
        let paced = pace.map(|pace| Paced { pace, rest: Bytes::new(), begun: false, ended: false });
        Self { body, _open: open, paced }
    }
}

impl Paced {
    fn poll_frame(
        &mut self,
        body: &mut Content,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.begun = true;
        while self.rest.is_empty() && !self.ended {
            let Poll::Ready(frame) = body.poll_frame(cx) else {
                self.pace.step(false);
                return Poll::Pending;
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.ended = true,
            }
        }
        if self.rest.is_empty() {
            return self.pace.poll_written(cx).map(|()| None);
        }
        let bytes = self.rest.split_to(self.rest.len().min(PART));
        Poll::Ready(Some(Ok(Part::frame(bytes, &self.pace))))
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        match &mut this.paced {
            Some(paced) => paced.poll_frame(&mut this.body, cx),
            None => this.body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        // A paced answer that has begun says its end itself.
        let ended = match &self.body {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Streamed(body) => body.is_end_stream(),
        };
        ended && !self.paced.as_ref().is_some_and(|paced| paced.begun)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Streamed(body) => body.size_hint(),
        }
    }
}
