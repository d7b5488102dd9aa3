//! When something was, for what is good for a while only: a certificate, a day that ends, a turn.
//!
//! No clock alone will do. The monotonic one cannot be set, but stands still while the machine is
//! suspended, or a virtual one paused. The wall clock goes on meanwhile, but may be set. So what
//! passed is the longer of the two: a clock that is set forwards ends things early, which costs a
//! question; one that is set back changes nothing.

use std::time::{Duration, Instant, SystemTime};

/// A moment, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    /// The present one.
    #[must_use]
    pub fn now() -> Self {
        Moment { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// By the clock that only goes forwards, and may stand still.
    #[must_use]
    pub fn monotonic(self) -> Instant {
        self.monotonic
    }

    /// By the clock that may be set: to be told, and never to be counted with.
    #[must_use]
    pub fn wall(self) -> SystemTime {
        self.wall
    }

    /// How long after `earlier` this is, at the least; zero if it is not later.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        let monotonic = self.monotonic.saturating_duration_since(earlier.monotonic);
        self.wall.duration_since(earlier.wall).map_or(monotonic, |wall| wall.max(monotonic))
    }

    /// How long ago it was.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Moment::now().since(self)
    }
}

#[cfg(test)]
impl Moment {
    /// Of these clocks.
    pub(crate) fn of(monotonic: Instant, wall: SystemTime) -> Self {
        Moment { monotonic, wall }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_is_what_the_clock_says_that_went_further() {
        const HOUR: Duration = Duration::from_secs(3600);
        const SECOND: Duration = Duration::from_secs(1);
        let (instant, time) = (Instant::now(), SystemTime::UNIX_EPOCH + 100 * HOUR);
        let start = Moment::of(instant, time);
        let after = |monotonic, wall| Moment::of(monotonic, wall).since(start);
        assert_eq!(after(instant + SECOND, time + SECOND), SECOND);
        assert_eq!(after(instant + SECOND, time + HOUR), HOUR, "suspended, or set forwards");
        assert_eq!(after(instant + SECOND, time - HOUR), SECOND, "set back");
        assert_eq!(start.since(Moment::of(instant + HOUR, time + HOUR)), Duration::ZERO);
    }
}
