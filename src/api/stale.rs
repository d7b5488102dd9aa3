//! What is answered when the database does not answer, for caches with `stale_if_error`
//! (RFC 5861, section 4): copies of what was answered lately.
//!
//! # What this is to the guarantee
//!
//! Nothing stale is ever *stored*: the copies are this process's own, no reader of Redis sees them,
//! and none of them ever becomes a fill. That one is *served* is the configuration's choice, cache
//! by cache, and off by default. Who gets one is told so: `Age`, `Warning`, `Cache-Status` with a
//! life below zero, `Cache-Control: no-store`; and `unstale_cache_reads_total{result="stale"}` counts.
//!
//! # How old one can be
//!
//! A copy carries the moment before its value was read: from the cache with a living certificate,
//! or from the database. At that moment it was as fresh as any answer. It is served for
//! `stale_if_error` from then on, by this process's own monotonic clock. So what it lacks was
//! committed since then, and nothing that is older (of a cache that is refreshed: than that and
//! `max_staleness`).
//!
//! What is still in Redis when the certificate has ended is not served instead. Nobody can say
//! how old that is: Redis may have come back with an old dump, a gap may be about to be declared.
//!
//! # What is never taken from here
//!
//! * *Who a user is.* Whoever was dismissed would keep his access just while nobody can look, and
//!   who can disturb the database could see to it that nobody can. The `identity` cache is refused
//!   the setting; the copies are looked at after access was decided, by an identity that the
//!   certificate or the database vouches for. Without either nobody is known, and only
//!   endpoints for `anyone` have copies to give.
//! * *What is asked for with `Unstale-Min-LSN`.* Who has written must not get less.
//! * *What was removed by hand.* Such a removal voids all that is here, and what was being read
//!   meanwhile does not come in any more ([`Ticket`]). (Any daemon that has copies looks for
//!   notices of it all the time, be it one that stands by, or one whose database is away.)
//! * *What a reload left behind.* The copies belong to the rules that they were computed by.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::fast::RandomState;

use crate::lsn::Lsn;

/// See the module.
pub(super) struct Stale {
    /// Moves when all is to be forgotten.
    epoch: Arc<AtomicU64>,
    inner: Mutex<Inner>,
    /// How many bytes may be kept.
    room: usize,
}

#[derive(Default)]
struct Inner {
    /// What was noted lately, and what was before that.
    young: HashMap<Box<[u8]>, Copied, RandomState>,
    old: HashMap<Box<[u8]>, Copied, RandomState>,
    young_bytes: usize,
}

/// A value that was good once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copied {
    pub(super) value: Bytes,
    /// All that was committed below it is in the value.
    pub(super) watermark: Lsn,
    /// When it was good.
    pub(super) good_at: Instant,
    epoch: u64,
}

/// Taken before a value is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    epoch: u64,
    at: Instant,
}

impl Stale {
    /// What was noted before `epoch` moves is forgotten then.
    pub(super) fn new(room: usize, epoch: Arc<AtomicU64>) -> Stale {
        Stale { epoch, inner: Mutex::default(), room }
    }

    /// Every change under the lock is whole before anything can panic: go on.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ticket(&self, now: Instant) -> Ticket {
        Ticket { epoch: self.epoch(), at: now }
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// What reading gave; `None`: there is nothing (any more).
    pub(super) fn note(&self, ticket: Ticket, key: &[u8], value: Option<&Bytes>, watermark: Lsn) {
        let mut inner = self.lock();
        let known = inner.young.get(key).or_else(|| inner.old.get(key));
        let epoch = self.epoch();
        let known = known.filter(|known| known.epoch == epoch);
        if ticket.epoch != epoch || known.is_some_and(|known| known.good_at > ticket.at) {
            return;
        }
        // Of its own: what was read may be a part of something larger. Mostly it is the same again.
        let kept = known.map(|known| known.value.clone()).filter(|kept| Some(kept) == value);
        inner.remove(key);
        let Some(value) = value else { return };
        let size = size(key, value);
        // Two generations, each of half the room.
        if size > self.room / 2 {
            return;
        }
        if inner.young_bytes + size > self.room / 2 {
            inner.old = std::mem::take(&mut inner.young);
            inner.young_bytes = 0;
        }
        inner.young_bytes += size;
        let value = kept.unwrap_or_else(|| Bytes::copy_from_slice(value));
        let copied = Copied { value, watermark, good_at: ticket.at, epoch };
        inner.young.insert(key.into(), copied);
    }

    /// A value that was good at most so long ago.
    pub(super) fn get(&self, key: &[u8], within: Duration, now: Instant) -> Option<Copied> {
        let inner = self.lock();
        let known = inner.young.get(key).or_else(|| inner.old.get(key))?;
        let good = known.epoch == self.epoch();
        (good && now.saturating_duration_since(known.good_at) <= within).then(|| known.clone())
    }
}

impl Inner {
    fn remove(&mut self, key: &[u8]) {
        if let Some(gone) = self.young.remove(key) {
            self.young_bytes = self.young_bytes.saturating_sub(size(key, &gone.value));
        }
        self.old.remove(key);
    }
}

/// The name of a value here: of the cache, and of all its parameters, since one user must not get
/// what is another's. No parameter has control characters.
pub(super) fn key(cache: &str, values: &[(&str, &str)]) -> Vec<u8> {
    let mut key = cache.as_bytes().to_vec();
    for (name, value) in values {
        for part in [name, value] {
            key.push(0);
            key.extend_from_slice(part.as_bytes());
        }
    }
    key
}

/// What an entry takes, about.
fn size(key: &[u8], value: &Bytes) -> usize {
    key.len() + value.len() + 128
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn text(stale: &Stale, now: Instant) -> Option<Bytes> {
        stale.get(b"k", MINUTE, now).map(|copied| copied.value)
    }

    #[test]
    fn a_copy_is_as_old_as_the_read_that_gave_it() {
        let (stale, start) = (Stale::new(10_000, Arc::default()), Instant::now());
        let (one, two) = (Bytes::from_static(b"1"), Bytes::from_static(b"2"));
        let early = stale.ticket(start);
        let later = stale.ticket(start + MINUTE);
        stale.note(later, b"k", Some(&two), Lsn(2));
        stale.note(early, b"k", Some(&one), Lsn(1));
        assert_eq!(text(&stale, start + MINUTE), Some(two.clone()), "the later read counts");
        assert_eq!(text(&stale, start + 2 * MINUTE), Some(two));
        assert_eq!(text(&stale, start + 2 * MINUTE + Duration::from_millis(1)), None);
        stale.note(stale.ticket(start + 2 * MINUTE), b"k", None, Lsn(3));
        assert_eq!(text(&stale, start + 2 * MINUTE), None, "it is gone from the database");
    }

    #[test]
    fn what_was_being_read_while_all_was_forgotten_does_not_come_back() {
        let (stale, now) = (Stale::new(10_000, Arc::default()), Instant::now());
        let ticket = stale.ticket(now);
        stale.epoch.fetch_add(1, Ordering::AcqRel);
        stale.note(ticket, b"k", Some(&Bytes::from_static(b"1")), Lsn(1));
        assert_eq!(text(&stale, now), None);
        stale.note(stale.ticket(now), b"k", Some(&Bytes::from_static(b"2")), Lsn(1));
        assert!(text(&stale, now).is_some());
    }

    #[test]
    fn there_is_room_for_so_much_and_no_more() {
        let (stale, now) = (Stale::new(10_000, Arc::default()), Instant::now());
        let value = Bytes::from(vec![b'x'; 1_000]);
        for number in 0..100_u32 {
            stale.note(stale.ticket(now), &number.to_be_bytes(), Some(&value), Lsn(1));
            let inner = stale.lock();
            let all = inner.young.iter().chain(&inner.old);
            assert!(all.map(|(key, c)| size(key, &c.value)).sum::<usize>() <= 10_000);
        }
        assert!(stale.get(&99_u32.to_be_bytes(), MINUTE, now).is_some());
        assert!(stale.get(&0_u32.to_be_bytes(), MINUTE, now).is_none());
        let large = Bytes::from(vec![b'x'; 6_000]);
        stale.note(stale.ticket(now), b"k", Some(&large), Lsn(1));
        assert_eq!(text(&stale, now), None);
    }

    #[test]
    fn what_is_one_users_is_not_anothers() {
        let of = |user, org| key("dashboard", &[("user_id", user), ("org_id", org)]);
        assert_ne!(of("1", "2"), of("2", "1"));
        assert_ne!(of("1", "2"), of("12", ""));
        assert_ne!(key("a", &[]), key("b", &[]));
    }
}
