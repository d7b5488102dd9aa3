//! Whether the stream still brings anything. Pure: whoever asks says what time it is.
//!
//! A connection may look alive and be dead: the machine at the other end froze, a firewall has
//! forgotten it, the server's process hangs on a lock. And a process that answers may decode
//! nothing. Two things are told, and both end in a new connection, which loses nothing: what was
//! not acknowledged is streamed again.
//!
//! * *Silence*: no byte, although the server is asked for a sign of life every status interval.
//! * *Standstill*: it answers, and yet neither a change nor a position further on has come, while
//!   the server's WAL goes on. The position must have been behind all the while: a server where
//!   nothing is written stands still rightly.
//!
//! *A new connection may make it worse.* The server decodes from the slot's `restart_lsn` on,
//! and one that is busy for ten minutes with a transaction that concerns nobody here would
//! never get past it if it were interrupted every five. So each time in a row all is waited for
//! twice as long, until the stream has gone past where it stood ([`Stalls`], which outlives
//! connections).
//!
//! Time in which nobody reads (no room: Redis or the gate is slow) is none of the server's, and does
//! not count: only who waits for bytes asks. Loops of this program that stand still are
//! another matter ([`Status::stuck`]): no wait of theirs is without a bound.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::end::End;
use crate::lsn::Lsn;
use crate::status::Status;
use crate::status::stalls::{Stall, Stalls};

/// How many times as long as for silence a standstill is waited for.
const STANDSTILL: u32 = 5;

/// A page of WAL begins with a header of at most 40 bytes, which one way of asking for the end
/// counts and another does not.
const HEADER: u64 = 64;

/// How often the loops are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Watches one connection.
#[derive(Debug)]
pub struct Watch {
    silence: Duration,
    stalls: Stalls,
    /// When a byte came last.
    heard: Instant,
    /// The greatest position that the stream has told of.
    position: Lsn,
    /// Since when nothing has come although the server's WAL had gone on, and how far.
    behind: Option<(Instant, Lsn)>,
}

impl Watch {
    /// Over a connection that begins now.
    #[must_use]
    pub fn new(silence: Duration, stalls: Stalls, now: Instant) -> Self {
        Watch { silence, stalls, heard: now, position: Lsn::ZERO, behind: None }
    }

    /// A message came that tells of this position. `data`: a change, which is progress
    /// wherever it is from.
    pub fn heard(&mut self, position: Lsn, data: bool, now: Instant) {
        self.heard = now;
        if data || position > self.position {
            self.behind = None;
        }
        self.position = self.position.max(position);
        if self.position > self.stalls.at() {
            self.stalls.over();
        }
    }

    /// Nobody was reading for a while: what was not heard meanwhile says nothing.
    pub fn begins_to_read(&mut self, now: Instant) {
        self.heard = now;
        self.behind = None;
    }

    /// The server's WAL ends there.
    pub fn server_at(&mut self, end: Lsn, now: Instant) {
        if end.bytes_since(self.position) > HEADER {
            self.behind.get_or_insert((now, end));
        } else {
            self.behind = None;
        }
    }

    /// How far it has come, and how often it was given up since it was further.
    #[must_use]
    pub fn stalls(&self) -> Stalls {
        self.stalls
    }

    /// How far it has come.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// How long the next bytes may be waited for.
    #[must_use]
    pub fn patience(&self, now: Instant) -> Duration {
        let silence = self.stalls.patience(self.silence);
        silence.saturating_sub(now.saturating_duration_since(self.heard))
    }

    /// Whether the stream is to be given up.
    #[must_use]
    pub fn stalled(&self, now: Instant) -> Option<Stall> {
        let silent = now.saturating_duration_since(self.heard);
        if silent >= self.stalls.patience(self.silence) {
            return Some(Stall::Silent(silent));
        }
        let (since, server_end) = self.behind?;
        let waited = now.saturating_duration_since(since);
        let patience = self.stalls.patience(self.silence.saturating_mul(STANDSTILL));
        let position = self.position;
        (waited >= patience).then_some(Stall::Standstill { waited, position, server_end })
    }
}

/// Ends the run when a loop of the pipeline has not gone round for longer than any wait of it
/// may take.
///
/// # Errors
/// Then.
pub async fn watch_loops(
    status: Arc<Status>,
    tolerance: Duration,
    stop: CancellationToken,
) -> Result<(), End> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
        if let Some(of) = status.stuck(tolerance) {
            let stall = Stall::Loop(of);
            error!(task = of.as_str(), ?tolerance, "{stall}");
            debug!(stall = stall.as_str(), "stalled");
            status.metrics.stalls.with_label_values(&[stall.as_str()]).inc();
            return Err(End::Again(stall.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::status::Phase;
    use crate::status::stalls::LONGEST;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    fn watch(now: Instant) -> Watch {
        Watch::new(MINUTE, Stalls::default(), now)
    }

    /// Keepalives at this position, once a second; the server's end is asked for as often.
    fn keepalives(watch: &mut Watch, from: Instant, seconds: u32, at: Lsn, end: Lsn) -> Instant {
        for n in 1..=seconds {
            watch.heard(at, false, from + n * SECOND);
            watch.server_at(end, from + n * SECOND);
        }
        from + seconds * SECOND
    }

    #[test]
    fn silence_ends_a_stream_and_a_byte_puts_it_off() {
        let start = Instant::now();
        let mut watch = watch(start);
        assert_eq!(watch.patience(start), MINUTE);
        assert_eq!(watch.stalled(start + 59 * SECOND), None);
        assert_eq!(watch.stalled(start + MINUTE), Some(Stall::Silent(MINUTE)));
        watch.heard(Lsn(1), false, start + 30 * SECOND);
        assert_eq!(watch.stalled(start + MINUTE), None);
        assert_eq!(watch.patience(start + MINUTE), 30 * SECOND);
    }

    #[test]
    fn keepalives_without_progress_end_it_only_where_the_wal_goes_on() {
        let start = Instant::now();
        let mut idle = watch(start);
        let now = keepalives(&mut idle, start, 3600, Lsn(1000), Lsn(1000));
        assert_eq!(idle.stalled(now), None, "nothing is written");
        let now = keepalives(&mut idle, now, 3600, Lsn(1000), Lsn(1040));
        assert_eq!(idle.stalled(now), None, "the header of a page");
        let now = keepalives(&mut idle, now, 299, Lsn(1000), Lsn(5000));
        assert_eq!(idle.stalled(now), None, "not yet");
        let now = keepalives(&mut idle, now, 2, Lsn(1000), Lsn(9000));
        let Some(Stall::Standstill { position, server_end, .. }) = idle.stalled(now) else {
            panic!("it stands still");
        };
        assert_eq!((position, server_end), (Lsn(1000), Lsn(5000)));
    }

    #[test]
    fn who_falls_behind_and_moves_is_not_ended_nor_who_brings_changes_of_one_position() {
        let start = Instant::now();
        let mut moving = watch(start);
        let mut now = start;
        for n in 0..3600 {
            now = keepalives(&mut moving, now, 1, Lsn(1000 + n), Lsn(1 << 40));
            assert_eq!(moving.stalled(now), None);
        }
        // A large transaction that committed long ago: one position, many changes.
        for _ in 0..3600 {
            now += SECOND;
            moving.heard(Lsn(5), true, now);
            moving.server_at(Lsn(1 << 40), now);
            assert_eq!(moving.stalled(now), None);
        }
    }

    #[test]
    fn time_in_which_nobody_reads_does_not_count() {
        let start = Instant::now();
        let mut watch = watch(start);
        let now = keepalives(&mut watch, start, 299, Lsn(1000), Lsn(5000));
        watch.begins_to_read(now + 600 * SECOND);
        watch.server_at(Lsn(9000), now + 600 * SECOND);
        assert_eq!(watch.stalled(now + 601 * SECOND), None);
    }

    #[test]
    fn each_time_in_a_row_it_is_waited_for_longer_until_it_has_come_further() {
        let start = Instant::now();
        let mut stalls = Stalls::default();
        let mut waits = Vec::new();
        for _ in 0..10 {
            let mut watch = Watch::new(MINUTE, stalls, start);
            watch.heard(Lsn(1000), true, start);
            waits.push(watch.patience(start));
            stalls = watch.stalls();
            stalls.another(watch.position());
        }
        assert_eq!(
            (waits[0], waits[1], waits[2], waits[9]),
            (MINUTE, 2 * MINUTE, 4 * MINUTE, LONGEST)
        );
        let mut watch = Watch::new(MINUTE, stalls, start);
        watch.heard(Lsn(1001), true, start);
        assert_eq!(watch.patience(start), MINUTE, "past where it stood");
    }

    #[tokio::test]
    async fn a_loop_that_stands_still_ends_the_run() {
        let status = Arc::new(Status::new(Metrics::new().unwrap(), MINUTE, 1));
        status.enter(Phase::Streaming);
        let stop = CancellationToken::new();
        let ended = watch_loops(Arc::clone(&status), Duration::ZERO, stop.clone()).await;
        assert!(matches!(ended, Err(End::Again(_))), "{ended:?}");
        assert_eq!(status.metrics.stalls.with_label_values(&["loop"]).get(), 1);
        stop.cancel();
        assert!(watch_loops(status, MINUTE, stop).await.is_ok());
    }
}
