//! The certificate: whether it stands, and whether it may be renewed (rule 11).

use std::time::Duration;

use super::Status;
use crate::moment::Moment;
use crate::store::session::CERTIFICATE_LIFE;

/// Past this the stream counts as silent. The server is asked for a sign of life every
/// status interval.
pub const SILENCE: Duration = Duration::from_secs(5);

impl Status {
    /// Redis has taken the certificate, which it was asked to at that moment.
    pub fn certified(&self, asked: Moment) {
        self.lock().certified = Some(asked);
    }

    /// Whether the last certificate of this process still lives.
    #[must_use]
    pub fn is_certified(&self) -> bool {
        self.lock().certified.is_some_and(|asked| asked.elapsed() < CERTIFICATE_LIFE)
    }

    /// Whether the certificate may be renewed (rule 11): the stream is alive, and what it
    /// brought is not left lying. Parked transactions do not count, for nobody can see them; but for one
    /// that may have altered what is streamed: what others commit after it can be seen, and may not
    /// come.
    #[must_use]
    pub fn may_certify(&self) -> bool {
        let inner = self.lock();
        inner.heard.is_some_and(|at| at.elapsed() < SILENCE)
            && !inner.is_late(self.max_lag)
            && !inner.unsure_of_publication
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;
    use crate::metrics::Metrics;
    use std::time::Instant;

    #[test]
    fn what_waits_too_long_is_neither_ready_nor_certified() {
        let status = Status::new(Metrics::new().unwrap(), Duration::ZERO, 10);
        status.begin_run(Lsn(7), 0);
        assert!(status.may_certify());
        status.parked(3, Some(Instant::now()), 0);
        assert!(status.may_certify(), "parked transactions are seen by nobody");
        status.unsure_of_publication(true);
        assert!(!status.may_certify(), "what is committed after one of them may be seen");
        assert!(status.readiness().problems.iter().any(|p| p.contains("publication")));
        status.unsure_of_publication(false);
        status.taken_up(Instant::now());
        assert!(!status.may_certify());
        assert!(status.readiness().problems.iter().any(|p| p.contains("pipeline.max_lag")));
        status.applied(Lsn(8));
        assert!(status.may_certify());
    }
}
