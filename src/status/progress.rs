//! How far the stream has come, and what waits between the server's WAL and Redis.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Inner, Phase, Status};
use crate::lsn::Lsn;
use crate::moment::Moment;

impl Status {
    /// The stream was heard: what was received as a whole, how far it says that it is, and the
    /// server's end of WAL. Gives that as far as it is known.
    pub fn heard(&self, received: Lsn, position: Lsn, server_end: Lsn) -> Lsn {
        let mut inner = self.lock();
        inner.received = inner.received.max(received);
        inner.position = inner.position.max(position);
        inner.server_end = inner.server_end.max(server_end);
        inner.heard = Some(Moment::now());
        inner.server_end
    }

    /// The server said on another connection where its WAL ends.
    pub fn heard_of_server(&self, end: Lsn) {
        let mut inner = self.lock();
        inner.server_end = inner.server_end.max(end);
    }

    /// When the stream was last heard.
    #[must_use]
    pub fn last_heard(&self) -> Option<Instant> {
        self.lock().heard.map(Moment::monotonic)
    }

    /// How far the stream was read.
    #[must_use]
    pub fn received(&self) -> Lsn {
        self.lock().received
    }

    /// How much WAL the server has written that the stream has not come past.
    #[must_use]
    pub fn behind_bytes(&self) -> u64 {
        let inner = self.lock();
        inner.server_end.bytes_since(inner.position.max(inner.received))
    }

    /// Notes how many transactions are parked, since when the oldest of them waits, and how
    /// many suspects are watched.
    pub fn parked(&self, parked: usize, oldest: Option<Instant>, suspects: usize) {
        self.metrics.parked_transactions.set(i64::try_from(parked).unwrap_or(i64::MAX));
        let mut inner = self.lock();
        inner.parked = parked;
        inner.parked_since = oldest;
        inner.suspects = suspects;
    }

    /// A run has ended, or begins: what the last one held comes again. Who is suspect stays so until
    /// the next one has found out.
    pub(super) fn nothing_waits(&self) {
        let suspects = self.lock().suspects;
        self.parked(0, None, suspects);
        self.unsure_of_publication(false);
        self.in_progress((0, 0));
    }

    /// Notes whether what is streamed may be something else, and nobody can tell yet: who may have altered
    /// it is parked.
    pub fn unsure_of_publication(&self, unsure: bool) {
        self.lock().unsure_of_publication = unsure;
    }

    /// For how long a transaction has waited that is not visible yet; zero: there is none.
    #[must_use]
    pub fn parked_for(&self) -> Duration {
        self.lock().parked_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Notes how many transactions come while they are in progress, and how many keys they
    /// hold.
    pub fn in_progress(&self, (transactions, keys): (usize, usize)) {
        let gauge = |value| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.streamed_transactions.set(gauge(transactions));
        self.metrics.streamed_keys.set(gauge(keys));
    }

    /// A batch was taken up; its oldest transaction arrived at `since`.
    pub fn taken_up(&self, since: Instant) {
        self.lock().pending.push_back(since);
    }

    /// The batch that was taken up last turned out to have nothing to apply.
    pub fn put_back(&self) {
        self.lock().pending.pop_back();
    }

    /// Redis has acknowledged the batch that was taken up first, and the watermark.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge is a float; 2^53 bytes are 8 PiB of WAL"
    )]
    pub fn applied(&self, watermark: Lsn) {
        self.metrics.applied_lsn.set(watermark.0 as f64);
        let mut inner = self.lock();
        inner.pending.pop_front();
        inner.watermark = watermark;
        drop(inner);
        self.watermarks.send_replace(watermark);
    }

    /// The watermark that Redis has acknowledged.
    #[must_use]
    pub fn watermark(&self) -> Lsn {
        self.lock().watermark
    }

    /// The watermark, as it moves.
    #[must_use]
    pub fn watermarks(&self) -> watch::Receiver<Lsn> {
        self.watermarks.subscribe()
    }

    /// The number of the present run, if its watermark says what is applied of all that was
    /// committed below it: not while there are suspects (rule 8). They only ever become fewer
    /// within a run, so who finds the same number before and after has nothing to fear of them.
    #[must_use]
    pub fn covers(&self) -> Option<u64> {
        let inner = self.lock();
        (inner.phase == Phase::Streaming && inner.suspects == 0).then_some(inner.runs)
    }
}

impl Inner {
    /// WAL that is written and not applied, and the age of the oldest change that waits.
    pub(super) fn lag(&self) -> (u64, f64) {
        let seconds = self.oldest().map_or(0.0, |at| at.elapsed().as_secs_f64());
        (self.server_end.bytes_since(self.watermark), seconds)
    }

    /// Since when the oldest transaction waits that was received, or the heartbeat that was not.
    fn oldest(&self) -> Option<Instant> {
        let beating = self.beating.filter(|beating| beating.committed).map(|beating| beating.since);
        self.pending.front().copied().into_iter().chain(beating).min()
    }

    pub(super) fn is_late(&self, max_lag: Duration) -> bool {
        self.oldest().is_some_and(|at| at.elapsed() > max_lag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn what_waited_in_a_run_waits_no_more_in_the_next() {
        let status = Status::new(Metrics::new().unwrap(), Duration::ZERO, 10);
        status.begin_run(Lsn(7), 0);
        status.parked(3, Some(Instant::now()), 1);
        status.in_progress((2, 9));
        status.unsure_of_publication(true);
        status.enter(Phase::Connecting);
        let metrics = &status.metrics;
        assert_eq!(metrics.parked_transactions.get(), 0);
        assert_eq!((metrics.streamed_transactions.get(), metrics.streamed_keys.get()), (0, 0));
        assert_eq!(status.parked_for(), Duration::ZERO);
        assert!(status.may_certify());
        assert_eq!(status.readiness().suspects, 1);
        status.begin_run(Lsn(8), 4);
        assert_eq!(status.readiness().suspects, 4);
    }
}
