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
//! Who wants to be exact sends `If-None-Match`: the tag is of the bytes, wherever they were stored.
//! `Age` (RFC 9111, section 5.1) is the time since a value was generated *or validated*. Each hit is
//! validated, by the certificate that comes with it; so an age that begins with the first sight
//! here is never too small for what it promises.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use foldhash::fast::RandomState;

/// How many values are remembered, at the most twice.
const CAPACITY: usize = 50_000;

/// What was seen.
#[derive(Default)]
pub(super) struct Seen(Mutex<Inner>);

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
    pub(super) stored: SystemTime,
}

impl Seen {
    /// Notes that these bytes (by their hash) were found under a key (by its hash), and whether
    /// they were in the cache. Two keys of one hash only take each other's place.
    pub(super) fn note(&self, key: u64, value: u128, cached: bool, now: SystemTime) -> Sight {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = inner.young.get(&key).copied().or_else(|| inner.old.get(&key).copied());
        let sight = match known.filter(|sight| sight.value == value && sight.first <= now) {
            Some(sight) if cached => sight,
            Some(sight) => Sight { stored: now, ..sight },
            None => Sight { value, first: now, stored: now },
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
    use std::time::Duration;

    #[test]
    fn a_value_is_as_old_as_its_bytes() {
        let seen = Seen::default();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(seen.note(1, 7, false, at(10)).first, at(10));
        assert_eq!(seen.note(1, 7, true, at(20)).stored, at(10));
        let again = seen.note(1, 7, false, at(30));
        assert_eq!((again.first, again.stored), (at(10), at(30)), "computed anew, and the same");
        assert_eq!(seen.note(1, 8, true, at(40)).first, at(40), "another value");
        assert_eq!(seen.note(1, 7, true, at(50)).first, at(50), "back to the old one is news");
        assert_eq!(seen.note(1, 7, true, at(45)).first, at(45), "the clock was set back");
    }
}
