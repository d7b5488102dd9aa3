//! How long an entry lives.
//!
//! A little less than its cache's TTL, by chance, so that entries filled together do not end
//! together. An entry whose query asks for today ends at midnight: its value is then
//! another one though no row has changed.

use std::time::{Duration, SystemTime};

/// The part of the TTL that chance may take away.
const JITTER: f64 = 0.1;

/// What bounds a life beside the TTL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nothing.
    Open,
    /// The value is of one day, which ends then. It must have been computed before.
    At(SystemTime),
}

impl End {
    /// When the day ends, if the value is of one.
    #[must_use]
    pub fn at(self) -> Option<SystemTime> {
        match self {
            End::Open => None,
            End::At(end) => Some(end),
        }
    }
}

/// The life of an entry stored `now`; `chance` is between 0 and 1. `None`: its day is over,
/// it must not be stored.
#[must_use]
pub fn life(ttl: Duration, end: End, now: SystemTime, chance: f64) -> Option<Duration> {
    let jittered = ttl.mul_f64(1.0 - JITTER * chance.clamp(0.0, 1.0));
    let life = match end {
        End::Open => jittered,
        End::At(end) => jittered.min(end.duration_since(now).ok()?),
    };
    (life >= Duration::from_millis(1)).then_some(life)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_day_that_ends_ends_its_entries() {
        let now = SystemTime::UNIX_EPOCH + 100 * HOUR;
        let soon = End::At(now + Duration::from_secs(5));
        assert_eq!(life(HOUR, soon, now, 0.0), Some(Duration::from_secs(5)));
        assert_eq!(life(HOUR, End::At(now), now, 0.0), None);
        assert_eq!(life(HOUR, End::At(now - HOUR), now, 0.0), None);
        assert_eq!(life(HOUR, End::At(now + 9 * HOUR), now, 0.0), Some(HOUR));
    }

    proptest! {
        #[test]
        fn chance_takes_a_tenth_at_the_most(ttl in 1u64..1_000_000, chance in -1.0f64..2.0) {
            let ttl = Duration::from_secs(ttl);
            let life = life(ttl, End::Open, SystemTime::UNIX_EPOCH, chance).unwrap();
            prop_assert!(life <= ttl && life >= ttl.mul_f64(0.899));
        }
    }
}
