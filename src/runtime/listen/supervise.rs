//! One connection under its deadlines, with one timer.
//!
//! The timer is moved only when a deadline comes nearer than what it is set to. The next deadline of a busy connection lies further
//! off with every request, so none of its requests touches the timer; when it fires early, the deadline is read anew.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    Config,
    watch::{End, Watch},
};

/// Runs one connection until it ends or must end.
pub(super) struct Supervised<F> {
    connection: Pin<Box<F>>,
    timer: Pin<Box<Sleep>>,
    watch: Arc<Watch>,
    config: Arc<Config>,
}

impl<F: Future<Output = End>> Supervised<F> {
    pub(super) fn new(connection: F, watch: Arc<Watch>, config: Arc<Config>) -> Self {
        let timer = Box::pin(sleep_until(Instant::now() + config.first_byte_timeout));
        Self { connection: Box::pin(connection), timer, watch, config }
    }

    /// Why it must end now; else the timer is set so that it wakes this task in time.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mut deadline = self.watch.deadline(&self.config);
        if let Some((at, _)) = deadline.filter(|(at, _)| *at < self.timer.deadline()) {
            self.timer.as_mut().reset(at);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            match deadline {
                Some((at, end)) if at <= now => return Poll::Ready(end),
                Some((at, _)) => self.timer.as_mut().reset(at),
                // A request is open. What follows it, follows a poll of this.
                None => self.timer.as_mut().reset(now + self.config.idle_timeout),
            }
            deadline = self.watch.deadline(&self.config);
        }
        Poll::Pending
    }
}

impl<F: Future<Output = End>> Future for Supervised<F> {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = &mut *self;
        this.watch.waker.register(cx.waker());
        loop {
            if let Poll::Ready(end) = this.connection.as_mut().poll(cx) {
                return Poll::Ready(this.watch.reason(end));
            }
            match this.poll_deadline(cx) {
                Poll::Ready(end) if this.watch.deserves_farewell(end) => this.watch.leave(end),
                ended => return ended,
            }
        }
    }
}
