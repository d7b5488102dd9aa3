//! Whether the pipeline's own loops go round: what a watchdog goes by.

use std::time::{Duration, Instant};

use super::{Phase, Status};

/// How often a loop beats while it waits.
const BEAT: Duration = Duration::from_secs(1);

/// A loop of the pipeline that has a clock of its own: while changes flow it goes round at
/// least once a second, or waits for something that has a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    /// The gate.
    Gate,
    /// The one that changes Redis.
    Apply,
}

impl Loop {
    pub(super) const ALL: [Loop; 2] = [Loop::Gate, Loop::Apply];

    /// Its name in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Loop::Gate => "gate",
            Loop::Apply => "apply",
        }
    }
}

impl Status {
    /// A loop has gone round, or has had an answer.
    pub fn beat(&self, of: Loop) {
        let mut inner = self.lock();
        for (each, at) in Loop::ALL.into_iter().zip(&mut inner.beats) {
            if each == of {
                *at = Instant::now();
            }
        }
    }

    /// Awaits work of a loop that may take long although each wait in it has a bound of its
    /// own, or is another loop's to answer for. The loop beats meanwhile.
    pub async fn attending<T>(&self, of: Loop, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            match tokio::time::timeout(BEAT, &mut work).await {
                Ok(done) => return done,
                Err(_) => self.beat(of),
            }
        }
    }

    /// The loop that should have gone round within `tolerance` and has not. Judged only
    /// while changes flow: before that the daemon waits for others, as long as it takes, and
    /// a drain has its own bound.
    #[must_use]
    pub fn stuck(&self, tolerance: Duration) -> Option<Loop> {
        let inner = self.lock();
        if inner.phase != Phase::Streaming {
            return None;
        }
        let mut beats = Loop::ALL.into_iter().zip(&inner.beats);
        beats.find(|(_, at)| at.elapsed() > tolerance).map(|(of, _)| of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn who_attends_to_long_work_beats_meanwhile_and_others_do_not() {
        let status = Status::new(Metrics::new().unwrap(), Duration::ZERO, 10);
        status.enter(Phase::Streaming);
        let before = Instant::now();
        status.attending(Loop::Gate, tokio::time::sleep(BEAT * 3 / 2)).await;
        let [gate, apply] = status.lock().beats;
        assert!(gate > before && apply < before);
    }
}
