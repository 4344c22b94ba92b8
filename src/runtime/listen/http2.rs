//! What HTTP/2 needs beyond hyper: a deadline for each answer's reader, and a bound on frames that ask for nothing.
//!
//! hyper and h2 bound streams, windows, headers, continuations and resets. They let an answer wait for ever for room in its reader's
//! window, and answer pings and settings without end.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    body::Pace,
    watch::{End, Watch},
};
use crate::runtime::lifecycle::Lifecycle;

/// What a caller begins with that knows that we speak HTTP/2 (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Runs the streams of one connection as tasks of the process.
#[derive(Clone)]
pub(super) struct Streams {
    lifecycle: Lifecycle,
    /// Of the stream that is just being started: hyper calls the service and then this executor, one stream after the other.
    starting: Arc<Mutex<Option<Arc<Pace>>>>,
    patience: Duration,
}

impl Streams {
    pub(super) fn new(lifecycle: Lifecycle, patience: Duration) -> Self {
        Self { lifecycle, starting: Arc::default(), patience }
    }

    /// The pace of the next stream's answer.
    pub(super) fn pace(&self) -> Arc<Pace> {
        let pace = Arc::new(Pace::default());
        *self.starting.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&pace));
        pace
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let pace = self.starting.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        let paced = Paced { stream: Box::pin(stream), pace, patience: self.patience, seen: 0, timer: None };
        drop(self.lifecycle.spawn_detached(paced));
    }
}

/// One stream, given up (and so reset) when its reader takes nothing of a part of its answer for `patience`.
struct Paced<F> {
    stream: Pin<Box<F>>,
    pace: Arc<Pace>,
    patience: Duration,
    seen: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<F: Future<Output = ()>> Future for Paced<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let (now, waits) = this.pace.now();
        if !waits {
            this.timer = None;
        } else if this.timer.is_none() || this.seen != now {
            this.timer = Some(Box::pin(sleep_until(Instant::now() + this.patience)));
        }
        this.seen = now;
        match &mut this.timer {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

/// The length of a frame's head.
const FRAME_HEAD: usize = 9;

/// Frames that ask for nothing and are let through at once. A browser sends about ten when it connects.
const BURST: u64 = 1_000;

/// And then each second.
const EACH_SECOND: u64 = 100;

/// For each so many bytes that we sent, one more: readers acknowledge what they take with such frames.
const BYTES_EACH: u64 = 256;

/// A connection's bytes, whose frames are counted: settings, pings, priorities, window updates, resets, continuations and empty
/// data are free only as long as they belong to requests and answers.
pub(super) struct Metered<I> {
    stream: I,
    watch: Arc<Watch>,
    frames: Frames,
}

impl<I> Metered<I> {
    pub(super) fn new(stream: I, watch: Arc<Watch>) -> Self {
        Self { stream, watch, frames: Frames::new(Instant::now()) }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Metered<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if self.frames.read(&buffer.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        self.watch.go(End::Flood);
        Poll::Ready(Err(io::Error::other("too many frames that ask for nothing")))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Metered<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.frames.sent += written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.frames.sent += written as u64;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Where in the frames the reader is, and how many asked for nothing.
struct Frames {
    began: Instant,
    head: [u8; FRAME_HEAD],
    /// Bytes of `head` that are filled.
    filled: usize,
    /// Bytes of the preface or of a payload still to come.
    skip: usize,
    idle: u64,
    sent: u64,
}

impl Frames {
    fn new(began: Instant) -> Self {
        Self { began, head: [0; FRAME_HEAD], filled: 0, skip: PREFACE.len(), idle: 0, sent: 0 }
    }

    /// Counts the frames in `bytes`; false when there were too many that ask for nothing.
    fn read(&mut self, mut bytes: &[u8]) -> bool {
        let before = self.idle;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (FRAME_HEAD - self.filled).min(bytes.len());
            if self.skip > 0 || taken == 0 {
                continue;
            }
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == FRAME_HEAD {
                self.filled = 0;
                self.count();
            }
        }
        self.idle == before || self.idle <= self.allowed()
    }

    fn count(&mut self) {
        /// RFC 9113, 6.1 and 6.2.
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        let length = u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]) as usize;
        self.skip = length;
        match self.head[3] {
            HEADERS => {}
            DATA if length > 0 => {}
            _ => self.idle += 1,
        }
    }

    fn allowed(&self) -> u64 {
        BURST + EACH_SECOND * self.began.elapsed().as_secs() + self.sent / BYTES_EACH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: u32) -> Vec<u8> {
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([kind, 0, 0, 0, 0, 1]);
        bytes.resize(FRAME_HEAD + length as usize, 0xff);
        bytes
    }

    /// Whether `frames` after the preface pass, read in pieces of `piece` bytes.
    fn pass(frames: &[u8], piece: usize, sent: u64) -> (bool, u64) {
        let mut meter = Frames { sent, ..Frames::new(Instant::now() + Duration::from_mins(1)) };
        let bytes = [&PREFACE[..], frames].concat();
        let passed = bytes.chunks(piece).all(|piece| meter.read(piece));
        (passed, meter.idle)
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let frames = [frame(4, 18), frame(1, 300), frame(0, 0), frame(0, 70), frame(8, 4), frame(6, 8)].concat();
        for piece in [1, 2, 7, 9, 10, 64, 10_000] {
            assert_eq!(pass(&frames, piece, 0), (true, 4), "in pieces of {piece}");
        }
    }

    #[test]
    fn many_that_ask_for_nothing_end_it_and_requests_and_data_do_not() {
        for kind in [2, 3, 4, 6, 8, 9, 200] {
            assert!(pass(&frame(kind, 8).repeat(1_000), 4_096, 0).0, "kind {kind}");
            assert!(!pass(&frame(kind, 8).repeat(1_001), 4_096, 0).0, "kind {kind}");
        }
        assert!(!pass(&frame(0, 0).repeat(1_001), 4_096, 0).0, "empty data");
        assert!(pass(&[frame(1, 40), frame(0, 40)].concat().repeat(5_000), 4_096, 0).0, "requests");
        assert!(pass(&frame(8, 4).repeat(5_000), 4_096, 1_100_000).0, "a reader of a megabyte acknowledges it");
    }

    #[test]
    fn one_more_than_allowed_is_told_once_more_bytes_come() {
        let flood = frame(6, 8).repeat(1_001);
        assert!(!pass(&flood, 17, 0).0);
        assert!(!pass(&flood, flood.len() + PREFACE.len(), 0).0);
    }
}
