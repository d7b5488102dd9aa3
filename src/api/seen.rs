//! Since when a value has been there, as far as this process knows: for `Last-Modified` and
//! `Age`.
//!
//! A value in Redis is plain JSON and does not say when it was stored. Equal data gives equal
//! bytes, so the time at which these bytes were first seen under this key is never before the
//! data changed to what it is: a later time costs a 304, it never gives a wrong one.
//! [`super::conditional`] says what is made of it.
//!
//! # Why not when it was stored
//!
//! That would be the better time, and nothing that a hit reads in its one round trip tells it:
//!
//! * *Not the life that remains.* It could come in the same round trip (PTTL beside MGET). But stored
//!   is now less (the whole life less what remains), and the whole life is not known: chance takes
//!   up to a tenth of the TTL, what is rewarmed gets what remained of the life before, a day's end and
//!   a due of `on_change = "refresh"` cut it short. Only a bound is left: *not before* now less (TTL less
//!   what remains). As `Last-Modified` a bound that may be too early is worse than none: of a TTL of
//!   an hour, a value that was stored a minute ago to live for ten would be told as 50 minutes old;
//!   a client that holds the value from before, of half an hour ago, would be told 304. A time that
//!   is too late only costs a 200.
//! * *Lives that can be told* would need every fill to give the whole TTL: entries that were filled
//!   together would end together, and one that nobody reads would live for ever on writes.
//! * *Writing it down*: the value is the cache's contract with those who read by GET, and a second
//!   key for each entry would cost all of them what few ask for.
//!
//! # When the clock is set back
//!
//! Another value of the same key gets a later second than the one before, though the clock says
//! an earlier: a client that holds the former must not be told that it holds this one. Its time is
//! told once the clock has passed it.
//!
//! Who wants to be exact sends `If-None-Match`: the tag is of the bytes, wherever they were stored.
//! `Age` (RFC 9111, section 5.1) is the time since a value was generated *or validated*. Each hit is
//! validated, by the certificate that comes with it; so an age that begins with the first sight
//! here is never too small for what it promises.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use foldhash::fast::RandomState;

use crate::moment::Moment;

/// How many values are remembered, at the most twice.
const CAPACITY: usize = 50_000;

/// What a header's time can tell apart.
const SECOND: Duration = Duration::from_secs(1);

/// What was seen.
#[derive(Default)]
pub(super) struct Seen {
    inner: Mutex<Inner>,
    hasher: RandomState,
}

#[derive(Default)]
struct Inner {
    young: HashMap<u64, Sight, RandomState>,
    old: HashMap<u64, Sight, RandomState>,
}

/// When a value was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    value: u128,
    /// These bytes for the first time.
    pub(super) first: SystemTime,
    /// When it was last computed, or found if another computed it.
    pub(super) stored: Moment,
}

impl Seen {
    /// A number for what is asked about, in this process.
    pub(super) fn place(&self, endpoint: &str, values: &[(&str, &str)]) -> u64 {
        self.hasher.hash_one((endpoint, values))
    }

    /// Notes that these bytes (by their hash) were found under a key (by its hash), and whether
    /// they were in the cache. Two keys of one hash only take each other's place.
    pub(super) fn note(&self, key: u64, value: u128, cached: bool, now: Moment) -> Sight {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let known = inner.young.get(&key).copied().or_else(|| inner.old.get(&key).copied());
        let sight = match known {
            Some(sight) if sight.value == value && cached => sight,
            Some(sight) if sight.value == value => Sight { stored: now, ..sight },
            Some(other) => {
                Sight { value, first: now.wall().max(other.first + SECOND), stored: now }
            }
            None => Sight { value, first: now.wall(), stored: now },
        };
        if inner.young.len() >= CAPACITY {
            inner.old = std::mem::take(&mut inner.young);
        }
        inner.young.insert(key, sight);
        sight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_value_is_as_old_as_its_bytes() {
        let (seen, start) = (Seen::default(), Instant::now());
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let moment = |seconds| Moment::of(start, at(seconds));
        let note = |value, cached, seconds| seen.note(1, value, cached, moment(seconds));
        assert_eq!(note(7, false, 10).first, at(10));
        assert_eq!(note(7, true, 20).stored, moment(10));
        let again = note(7, false, 30);
        assert_eq!(
            (again.first, again.stored),
            (at(10), moment(30)),
            "computed anew, and the same"
        );
        assert_eq!(note(8, true, 40).first, at(40), "another value");
        assert_eq!(note(7, true, 50).first, at(50), "back to the old one is news");
    }

    #[test]
    fn no_two_values_of_a_key_have_the_same_second_though_the_clock_is_set_back() {
        let (seen, start) = (Seen::default(), Instant::now());
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let first =
            |value, seconds| seen.note(1, value, true, Moment::of(start, at(seconds))).first;
        assert_eq!(first(7, 50), at(50));
        assert_eq!(first(7, 45), at(50), "the same bytes");
        assert_eq!([first(8, 45), first(7, 46), first(9, 60)], [at(51), at(52), at(60)]);
    }
}
