//! How many orders one caller may give: pure but for a lock.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// So many callers are remembered at the most.
const CALLERS: usize = 10_000;

/// So many a minute, and so many at once after a quiet minute.
pub(in crate::api) struct Allowance {
    per_minute: f64,
    callers: Mutex<HashMap<Box<str>, Left>>,
}

#[derive(Clone, Copy)]
struct Left {
    orders: f64,
    at: Instant,
}

impl Allowance {
    pub(in crate::api) fn new(per_minute: u32) -> Allowance {
        Allowance { per_minute: per_minute.into(), callers: Mutex::default() }
    }

    /// Takes one; `Err`: after so many seconds there is one.
    pub(super) fn take(&self, caller: &str, now: Instant) -> Result<(), u32> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let grown = |left: &Left| {
            let seconds = now.saturating_duration_since(left.at).as_secs_f64();
            (left.orders + seconds * self.per_minute / 60.0).min(self.per_minute)
        };
        if callers.len() >= CALLERS && !callers.contains_key(caller) {
            callers.retain(|_, left| grown(left) < self.per_minute);
            if callers.len() >= CALLERS {
                return Err(1);
            }
        }
        let orders = callers.get(caller).map_or(self.per_minute, grown);
        if orders < 1.0 {
            // A range of seconds within a minute.
            let seconds = ((1.0 - orders) * 60.0 / self.per_minute).ceil();
            return Err((1..=60).find(|whole| f64::from(*whole) >= seconds).unwrap_or(60));
        }
        callers.insert(caller.into(), Left { orders: orders - 1.0, at: now });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_caller_has_so_many_a_minute() {
        let allowance = Allowance::new(2);
        let start = Instant::now();
        let take = |caller, seconds| allowance.take(caller, start + Duration::from_secs(seconds));
        assert_eq!(take("1", 0), Ok(()));
        assert_eq!(take("1", 0), Ok(()));
        assert_eq!(take("1", 0), Err(30));
        assert_eq!(take("2", 0), Ok(()), "another");
        assert_eq!(take("1", 29), Err(1));
        assert_eq!(take("1", 30), Ok(()));
        assert_eq!(take("1", 30), Err(30));
        assert_eq!([take("1", 1000), take("1", 1000), take("1", 1000)], [Ok(()), Ok(()), Err(30)]);
    }
}
