//! The sending half of a replication stream: what was applied, and the goodbye.
//!
//! A server that is shut down cleanly waits until its walsender has `flushed` confirmed up
//! to *exactly* what it has sent (`WalSndDone`). So a consumer with nothing in flight should
//! answer a keepalive with the keepalive's own `wal_end`; one that lags behind, or names
//! a position of its own beyond it, holds the shutdown up.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, BufMut as _, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncWriteExt as _, WriteHalf};

use super::error::PgError;
use super::socket::Stream;
use super::wire::tag;
use crate::lsn::Lsn;

/// Seconds from 1970 to 2000, where Postgres' clock begins.
const EPOCH_SECONDS: u64 = 946_684_800;

/// This machine's clock as the stream's `clock`: microseconds since 2000-01-01 UTC.
#[must_use]
pub fn clock_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = since.as_micros().saturating_sub(u128::from(EPOCH_SECONDS) * 1_000_000);
    i64::try_from(micros).unwrap_or(i64::MAX)
}

/// The sending half of a replication stream.
///
/// Every method is cancel-safe: bytes of a message that was cut off by a dropped future
/// stay here and go out first with the next call. What is held is bounded by one message,
/// since the next one is not begun before the last is out.
pub struct FeedbackWriter {
    stream: WriteHalf<Stream>,
    unsent: BytesMut,
}

impl FeedbackWriter {
    pub(super) fn new(stream: WriteHalf<Stream>) -> FeedbackWriter {
        FeedbackWriter { stream, unsent: BytesMut::with_capacity(128) }
    }

    /// Tells the server how far the stream has been received, made durable and applied:
    /// it may forget all before `flushed`. Each is the end of what it speaks of.
    pub async fn status(
        &mut self,
        written: Lsn,
        flushed: Lsn,
        applied: Lsn,
        reply_requested: bool,
    ) -> Result<(), PgError> {
        self.send_unsent().await?;
        self.unsent.put_u8(tag::COPY_DATA);
        self.unsent.put_u32(4 + 1 + 8 + 8 + 8 + 8 + 1);
        self.unsent.put_u8(b'r');
        self.unsent.put_u64(written.0);
        self.unsent.put_u64(flushed.0);
        self.unsent.put_u64(applied.0);
        self.unsent.put_i64(clock_now());
        self.unsent.put_u8(u8::from(reply_requested));
        self.send_unsent().await
    }

    /// Says that we are done. The server finishes what it is sending and ends the stream:
    /// [`super::frames::FrameReader::drain`] waits for that.
    pub async fn finish(&mut self) -> Result<(), PgError> {
        self.send_unsent().await?;
        frontend::copy_done(&mut self.unsent);
        self.send_unsent().await
    }

    /// A polite goodbye, after the drain. Dropping this instead does no harm.
    pub async fn terminate(mut self) -> Result<(), PgError> {
        self.send_unsent().await?;
        frontend::terminate(&mut self.unsent);
        self.send_unsent().await?;
        self.stream.shutdown().await.map_err(|error| PgError::io("closing the connection", error))
    }

    async fn send_unsent(&mut self) -> Result<(), PgError> {
        let io = |error| PgError::io("sending feedback", error);
        while self.unsent.has_remaining() {
            let written = self.stream.write_buf(&mut self.unsent).await.map_err(io)?;
            if written == 0 {
                return Err(PgError::lost("the server takes no more feedback"));
            }
        }
        self.stream.flush().await.map_err(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_counts_from_2000() {
        let years = clock_now() / 1_000_000 / 86_400 / 365;
        assert!((20..200).contains(&years), "{years} years since 2000");
    }
}
