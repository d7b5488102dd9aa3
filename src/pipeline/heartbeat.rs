//! A sign of life that goes the whole way: written to the WAL, streamed, gated, applied.
//!
//! On a database where nothing happens, nothing tells how late a change would be. So now and
//! then a logical message is written (`pg_logical_emit_message`) and comes back as a
//! transaction like any other. It needs no table, no publication and no right that PUBLIC does
//! not have. It is *transactional*: what belongs to a transaction is flushed with its commit, the
//! other kind waits for the WAL writer.
//!
//! * *It must not make a busy server busier.* Whatever transaction was applied a moment ago has
//!   proved the same: none is written until nothing has come for a whole interval, and only
//!   one is under way at a time ([`due`], pure).
//! * *It waits for no standby* (`synchronous_commit = local`): a standby that hangs is told of
//!   by what is parked, and must not hold back a heartbeat. For the same reason it is recognised by what it
//!   says, not by the watermark, which stays below the oldest parked.
//! * *It counts as lag* from its writing on, but only once its commit is certain: a
//!   server that does not commit is another matter than a stream that does not bring.
//! * *It is not told apart by its prefix.* Others may write messages with it; ours holds 128
//!   random bits that were drawn for this one.
//! * *The run ends* (or the connection that writes): it is forgotten, the next run writes its
//!   own.
//!
//! Logical messages of others come through the stream, too, once it is asked for any, and are
//! passed over. Where they are many or large, `postgres.heartbeat = "0s"` leaves them out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use crate::postgres::conninfo::ConnectOptions;
use crate::postgres::error::PgError;
use crate::postgres::heartbeat::Emitter;
use crate::status::Status;
use crate::status::heartbeat::Beat;

/// How long until the next one is due; `None`: one is under way. `proven`: when the whole way was
/// last known to work; `written`: when the last one was.
#[must_use]
pub fn due(
    now: Instant,
    interval: Duration,
    proven: Option<Instant>,
    written: Option<Instant>,
    under_way: bool,
) -> Option<Duration> {
    if under_way {
        return None;
    }
    let last = proven.max(written);
    Some(last.map_or(Duration::ZERO, |last| interval.saturating_sub(now.duration_since(last))))
}

/// Writes them.
pub struct Heartbeat {
    /// Where to.
    pub connect: ConnectOptions,
    /// How long that may take.
    pub timeout: Duration,
    /// How often, at the most.
    pub interval: Duration,
    /// Knows what has come through.
    pub status: Arc<Status>,
}

impl Heartbeat {
    /// Goes on for ever; at once nothing if there is no interval.
    pub async fn run(self) {
        if self.interval.is_zero() {
            return;
        }
        let mut emitter = Emitter::new(&self.connect, self.timeout);
        let mut written = None;
        let mut complained = false;
        loop {
            let (proven, under_way) = self.status.proven();
            match due(Instant::now(), self.interval, proven, written, under_way) {
                Some(Duration::ZERO) => {}
                Some(wait) => {
                    tokio::time::sleep(wait).await;
                    continue;
                }
                None => {
                    tokio::time::sleep(self.interval).await;
                    continue;
                }
            }
            written = Some(Instant::now());
            match self.beat(&mut emitter).await {
                Ok(()) => complained = false,
                Err(error) => {
                    self.status.metrics.heartbeats.with_label_values(&["failed"]).inc();
                    if !std::mem::replace(&mut complained, true) {
                        warn!(%error, "no heartbeat could be written to the WAL: while nothing else is written, it is not known how late changes are");
                    }
                }
            }
        }
    }

    async fn beat(&self, emitter: &mut Emitter) -> Result<(), PgError> {
        emitter.ready().await?;
        let beat = Beat::fresh();
        // It may come back before the answer does.
        self.status.heartbeat_begins(beat, Instant::now());
        match emitter.emit(&beat.text()).await {
            Ok(at) => {
                self.status.heartbeat_committed(beat);
                debug!(lsn = at, "a heartbeat was written");
                Ok(())
            }
            Err(error) => {
                // It may have been committed. Whatever it would prove, another will.
                self.status.heartbeat_given_up(beat);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_server_where_something_happens_gets_none_and_one_is_under_way_at_a_time() {
        let start = Instant::now();
        let ten = 10 * SECOND;
        assert_eq!(due(start, ten, None, None, false), Some(Duration::ZERO), "the first");
        assert_eq!(due(start + SECOND, ten, Some(start), None, false), Some(9 * SECOND));
        // Something is applied every second: never.
        for n in 0..100 {
            let now = start + n * SECOND;
            assert_eq!(due(now, ten, Some(now), Some(start), false), Some(ten));
        }
        // Nothing was applied since the last one was written, and it is not under way: lost.
        assert_eq!(due(start + ten, ten, None, Some(start), false), Some(Duration::ZERO));
        assert_eq!(due(start + ten, ten, None, Some(start), true), None);
    }
}
