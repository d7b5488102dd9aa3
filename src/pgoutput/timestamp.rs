//! Postgres' times: microseconds since 2000-01-01 00:00 UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// From the Unix epoch to Postgres'.
const UNIX_TO_POSTGRES: Duration = Duration::from_secs(946_684_800);

/// The moment that a message's time (microseconds since 2000-01-01) names.
///
/// `None` if the system cannot express it, which no commit's time is.
#[must_use]
pub fn to_system_time(micros: i64) -> Option<SystemTime> {
    let distance = Duration::from_micros(micros.unsigned_abs());
    let epoch = UNIX_EPOCH.checked_add(UNIX_TO_POSTGRES)?;
    if micros < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) }
}

/// `time` as a message carries it, in microseconds since 2000-01-01, cut down
/// to whole ones; what lies outside of the range is the range's end.
#[must_use]
pub fn from_system_time(time: SystemTime) -> i64 {
    let micros = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH + UNIX_TO_POSTGRES) {
        Ok(after) => micros(after),
        Err(before) => micros(before.duration()).saturating_neg(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_epoch_is_the_year_2000() {
        // `SELECT extract(epoch FROM timestamptz '2024-02-29 12:34:56.789012+00')`
        let time = UNIX_EPOCH + Duration::from_micros(1_709_210_096_789_012);
        assert_eq!(from_system_time(time), 762_525_296_789_012);
        assert_eq!(to_system_time(762_525_296_789_012), Some(time));
        assert_eq!(to_system_time(0), Some(UNIX_EPOCH + UNIX_TO_POSTGRES));
    }

    proptest! {
        #[test]
        fn every_time_survives_the_way_there_and_back(micros: i64) {
            if let Some(time) = to_system_time(micros) {
                // i64::MIN has no positive twin.
                prop_assert_eq!(from_system_time(time), micros.max(-i64::MAX));
            }
        }
    }
}
