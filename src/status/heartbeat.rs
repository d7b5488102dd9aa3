//! A heartbeat, from its writing to the WAL until it is applied.

use std::time::Instant;

use super::Status;
use crate::pgoutput::message::LogicalMessage;
use crate::postgres::heartbeat::PREFIX;

/// One heartbeat; no other is like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat(u128);

impl Beat {
    /// A new one.
    #[must_use]
    pub fn fresh() -> Beat {
        Beat(fastrand::u128(..))
    }

    /// As the message says it.
    #[must_use]
    pub fn text(self) -> String {
        format!("{:032x}", self.0)
    }

    /// What a message says, if it may be one of ours.
    #[must_use]
    pub fn read(message: &LogicalMessage<'_>) -> Option<Beat> {
        if !message.transactional || message.prefix != PREFIX || message.content.len() != 32 {
            return None;
        }
        let text = str::from_utf8(message.content).ok()?;
        u128::from_str_radix(text, 16).ok().map(Beat)
    }
}

/// One under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beating {
    pub(super) beat: Beat,
    pub(super) since: Instant,
    /// It is in the WAL for sure: from here on it counts as lag.
    pub(super) committed: bool,
}

impl Status {
    /// A heartbeat is about to be written.
    pub fn heartbeat_begins(&self, beat: Beat, since: Instant) {
        self.lock().beating = Some(Beating { beat, since, committed: false });
    }

    /// It is in the WAL.
    pub fn heartbeat_committed(&self, beat: Beat) {
        if let Some(beating) = self.lock().beating.as_mut().filter(|found| found.beat == beat) {
            beating.committed = true;
        }
    }

    /// It may never come.
    pub fn heartbeat_given_up(&self, beat: Beat) {
        self.lock().beating.take_if(|found| found.beat == beat);
    }

    /// Transactions were applied, with the heartbeats that they carried.
    pub fn came_through(&self, transactions: impl Iterator<Item = Option<Beat>>) {
        let mut inner = self.lock();
        for beat in transactions {
            inner.proven = Some(Instant::now());
            if let Some(came) = inner.beating.take_if(|found| Some(found.beat) == beat) {
                let took = came.since.elapsed();
                inner.last_beat = Some(took);
                self.metrics.heartbeat_seconds.observe(took.as_secs_f64());
                self.metrics.heartbeats.with_label_values(&["applied"]).inc();
            }
        }
    }

    /// When a transaction was last applied in this run, and whether a heartbeat is under way.
    #[must_use]
    pub fn proven(&self) -> (Option<Instant>, bool) {
        let inner = self.lock();
        (inner.proven, inner.beating.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;
    use crate::metrics::Metrics;
    use std::time::Duration;

    #[test]
    fn only_a_transactional_message_of_the_right_form_can_be_one() {
        let beat = Beat::fresh();
        let text = beat.text();
        let message = |transactional, prefix, content| {
            Beat::read(&LogicalMessage { transactional, lsn: Lsn(1), prefix, content })
        };
        assert_eq!(message(true, PREFIX, text.as_bytes()), Some(beat));
        assert_eq!(message(false, PREFIX, text.as_bytes()), None);
        assert_eq!(message(true, "outbox", text.as_bytes()), None);
        for other in [&b""[..], b"hello", &[0xff; 32], &text.as_bytes()[1..]] {
            assert_eq!(message(true, PREFIX, other), None);
        }
    }

    #[test]
    fn a_heartbeat_counts_as_lag_once_it_is_in_the_wal_and_until_it_is_applied() {
        let status = Status::new(Metrics::new().unwrap(), Duration::ZERO, 10);
        status.begin_run(Lsn(7), 0);
        let beat = Beat::fresh();
        status.heartbeat_begins(beat, Instant::now());
        assert!(status.may_certify(), "nobody knows yet whether it will come");
        status.heartbeat_committed(Beat::fresh());
        assert!(status.may_certify(), "another's");
        status.heartbeat_committed(beat);
        assert!(!status.may_certify() && status.readiness().lag_seconds > 0.0);
        status.came_through([None, Some(Beat::fresh())].into_iter());
        assert!(!status.may_certify(), "what came was not it");
        status.came_through([Some(beat)].into_iter());
        assert!(status.may_certify() && status.readiness().heartbeat_seconds.is_some());
        assert_eq!(status.readiness().lag_seconds, 0.0);
    }
}
