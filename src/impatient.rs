//! A connection that has a place among those of its listener, of which there are only so many, and
//! whose other end must read: one that does not is closed, for it costs the place.
//!
//! One that is to be answered must also ask: [`Pulse`] tells how long it has not. A timer for each
//! request would be set and taken down again with each; so there is one that looks every quarter of
//! the time whether anything has moved, and who stands still is cut off within five quarters of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

/// What moves on a connection: requests that have come, answers that go.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    beats: AtomicU32,
    answering: AtomicBool,
}

impl Pulse {
    /// A request has come as a whole.
    pub(crate) fn asked(&self) {
        self.answering.store(true, Ordering::Relaxed);
    }

    /// It is answered.
    pub(crate) fn answered(&self) {
        self.answering.store(false, Ordering::Relaxed);
        self.beat();
    }

    fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends when for so long nothing was asked, and nothing taken of what was answered.
    pub(crate) async fn stands_still(&self, patience: Duration) {
        let mut looks = Looks::default();
        loop {
            tokio::time::sleep(patience / QUARTERS).await;
            let beats = self.beats.load(Ordering::Relaxed);
            if looks.look(beats, self.answering.load(Ordering::Relaxed)) {
                return;
            }
        }
    }
}

/// So often is looked in the time that one has.
const QUARTERS: u32 = 4;

/// What was seen when it was looked.
#[derive(Default)]
struct Looks {
    beats: u32,
    still: u32,
}

impl Looks {
    /// Whether nothing has moved for the whole time: a request under way is no standing still.
    fn look(&mut self, beats: u32, answering: bool) -> bool {
        let moves = beats != self.beats || answering;
        self.still = if moves { 0 } else { self.still + 1 };
        self.beats = beats;
        self.still >= QUARTERS
    }
}

/// A stream whose reader must take in something within a time.
pub(crate) struct Impatient {
    stream: TcpStream,
    patience: Duration,
    /// Running while nothing can be written.
    since: Option<Pin<Box<Sleep>>>,
    pulse: Arc<Pulse>,
    /// Its place among the listener's connections, until it is closed.
    _place: OwnedSemaphorePermit,
}

impl Impatient {
    /// Whoever takes in nothing for so long is cut off.
    pub(crate) fn new(stream: TcpStream, patience: Duration, place: OwnedSemaphorePermit) -> Self {
        Impatient { stream, patience, since: None, pulse: Arc::default(), _place: place }
    }

    /// What moves on it.
    pub(crate) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.since = None;
            self.pulse.beat();
            return poll;
        }
        let patience = self.patience;
        let since = self.since.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(since.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At which look it is found out, of those that saw so many beats, and whether it was answering.
    fn found_at(seen: impl IntoIterator<Item = (u32, bool)>) -> Option<usize> {
        let mut looks = Looks::default();
        seen.into_iter().position(|(beats, answering)| looks.look(beats, answering))
    }

    #[test]
    fn who_asks_nothing_is_found_out_when_the_time_is_over() {
        assert_eq!(found_at([(0, false); 9]), Some(3), "after four quarters");
        let once = [(0, false), (0, false), (1, false)];
        let then_nothing = [(1, false); 9];
        assert_eq!(found_at(once.into_iter().chain(then_nothing)), Some(6));
    }

    #[test]
    fn who_is_answered_or_takes_the_answer_slowly_is_left_alone() {
        assert_eq!(found_at([(1, true); 100]), None);
        let slow = (0..100).flat_map(|beat| [(beat, false); 3]);
        assert_eq!(found_at(slow), None);
        let done = [(1, true); 9].into_iter().chain([(2, false); 9]);
        assert_eq!(found_at(done), Some(13), "four quarters after the last that moved");
    }
}
