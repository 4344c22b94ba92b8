//! The two bodies of a request: what the caller sends, under a deadline, and what it gets, which ends the request.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
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

/// How far the reader of one HTTP/2 answer has come: odd while a part of it waits for room in the reader's window.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU64);

impl Pace {
    /// Changes with each part; whether one waits.
    pub(super) fn now(&self) -> (u64, bool) {
        let steps = self.0.load(Ordering::Relaxed);
        (steps, !steps.is_multiple_of(2))
    }

    fn step(&self, waits: bool) {
        let steps = self.0.load(Ordering::Relaxed);
        // Always forward, so that two parts in a row are not taken for one.
        let next = steps + 1 + u64::from(steps.is_multiple_of(2) != waits);
        self.0.store(next, Ordering::Relaxed);
    }
}

/// What the caller gets. The request is open until this is dropped, which the protocol does after the last part.
pub(super) struct Answer {
    body: Body,
    open: Option<(OpenRequest, Option<Arc<Pace>>)>,
}

impl Answer {
    pub(super) fn new(body: Body, open: Option<(OpenRequest, Option<Arc<Pace>>)>) -> Self {
        Self { body, open }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Some((_, Some(pace))) = &self.open {
            pace.step(matches!(frame, Poll::Ready(Some(Ok(_)))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
