//! How long an entry lives.
//!
//! A little less than its cache's TTL, by chance, so that entries filled together do not end
//! together. An entry whose query asks for today ends at midnight: its value is then
//! another one though no row has changed.

use std::time::Duration;

/// The part of the TTL that chance may take away.
const JITTER: f64 = 0.1;

/// The life of an entry; `chance` is between 0 and 1. `day_left`: for how long the day still lasts
/// of which its value is, if it is of one; it must have been asked about before it was computed.
/// `None`: the day is over, it must not be stored.
#[must_use]
pub fn life(ttl: Duration, day_left: Option<Duration>, chance: f64) -> Option<Duration> {
    let jittered = ttl.mul_f64(1.0 - JITTER * chance.clamp(0.0, 1.0));
    let life = day_left.map_or(jittered, |left| jittered.min(left));
    (life >= Duration::from_millis(1)).then_some(life)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_day_that_ends_ends_its_entries() {
        let soon = Duration::from_secs(5);
        assert_eq!(life(HOUR, Some(soon), 0.0), Some(soon));
        assert_eq!(life(HOUR, Some(Duration::ZERO), 0.0), None);
        assert_eq!(life(HOUR, Some(9 * HOUR), 0.0), Some(HOUR));
    }

    proptest! {
        #[test]
        fn chance_takes_a_tenth_at_the_most(ttl in 1u64..1_000_000, chance in -1.0f64..2.0) {
            let ttl = Duration::from_secs(ttl);
            let life = life(ttl, None, chance).unwrap();
            prop_assert!(life <= ttl && life >= ttl.mul_f64(0.899));
        }
    }
}
