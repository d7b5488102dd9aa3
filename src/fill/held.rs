//! Entries that this process holds itself, so that reading them costs no round trip: who a
//! user is, and the generations of scopes.
//!
//! What is held must never be older than what Redis would say. The pipeline removes a key from
//! here *first*, then from Redis, and until Redis has acknowledged that, the key is *closed*:
//! nothing is read from here, nothing is put here.
//!
//! # Why nothing stale is put back
//!
//! A reader takes a [`Ticket`], then reads Redis, then puts what it found. Let the ticket be
//! taken at `t0`, Redis answer at `t1`, the put come at `t2`. Let a removal close the key at `d0`,
//! be done in Redis at `d1` and acknowledged at `d2`; closing drops what is held. A put is
//! accepted only if the key is open at `t2` and its count of removals is the ticket's, and
//! a ticket is given only while the key is open; the count moves with each end of a removal. So
//! no part of `[d0, d2]` lies within `[t0, t2]`: either `d2 < t0`, and the answer at `t1` is from
//! after the removal; or `t2 < d0`, and what was put is dropped at `d0`.
//!
//! Without closing (drop at `d0`, count, remove at `d1`) this would fail: `d0 < t0 < t1 < d1 < t2`
//! is an old answer with a good ticket.
//!
//! * *The removal is never acknowledged* (Redis is away): the key stays closed. If the run ends,
//!   everything is closed and forgotten ([`Open`] is dropped), and the next run opens it once
//!   what is cached stands again.
//! * *A whole cache is dropped, or a gap*: all is closed.
//! * *Nobody renews the certificate*: the caller must not ask here then (rule 11). This room has
//!   no clock of its own but for the entries' ends.
//! * *Another daemon writes to this Redis*: then ours has lost the slot, and its run has ended.
//!
//! # What is held
//!
//! Not the bytes, but what their reader made of them, once: to parse a value for each request would
//! cost more than all else here. It follows from the bytes alone.

use std::any::Any;
use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use foldhash::fast::RandomState;

/// How many keys share a count.
const STRIPES: usize = 1024;

/// How many entries are held, at the most twice.
const CAPACITY: usize = 50_000;

/// See the module.
pub struct Held {
    /// How often entries were removed by hand.
    by_hand: Arc<AtomicU64>,
    inner: Mutex<Inner>,
    hasher: RandomState,
}

struct Inner {
    /// Counts the openings; odd while open.
    life: u64,
    /// All is closed, so many times.
    closed: usize,
    stripes: Vec<Stripe>,
    /// What was put or used lately, and what was before that.
    young: HashMap<Box<[u8]>, Entry, RandomState>,
    old: HashMap<Box<[u8]>, Entry, RandomState>,
}

#[derive(Clone, Copy, Default)]
struct Stripe {
    closed: u32,
    removals: u64,
}

#[derive(Clone)]
struct Entry {
    value: Arc<dyn Any + Send + Sync>,
    until: Instant,
}

/// The right to put one key, unless it is removed meanwhile.
#[derive(Debug)]
pub struct Ticket {
    key: Box<[u8]>,
    life: u64,
    removals: u64,
}

/// While it lives, entries are held.
pub struct Open(Arc<Held>);

/// Keys that are closed until [`Held::removed`].
#[must_use]
pub struct Closed {
    stripes: Vec<usize>,
    all: bool,
    life: u64,
}

impl Default for Held {
    fn default() -> Self {
        let hasher = RandomState::default();
        Held {
            by_hand: Arc::default(),
            inner: Mutex::new(Inner {
                life: 0,
                closed: 0,
                stripes: vec![Stripe::default(); STRIPES],
                young: HashMap::default(),
                old: HashMap::default(),
            }),
            hasher,
        }
    }
}

impl Held {
    /// Every change under the lock is whole before anything can panic: go on.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stripe(&self, key: &[u8]) -> usize {
        usize::try_from(self.hasher.hash_one(key) % STRIPES as u64).unwrap_or_default()
    }

    /// From here on entries are held: what is cached stands, and whatever changes will be
    /// told here.
    #[must_use]
    pub fn open(self: &Arc<Self>) -> Open {
        let mut inner = self.lock();
        inner.forget();
        inner.life += 1 + inner.life % 2;
        Open(Arc::clone(self))
    }

    /// What is held of a key, if it is such a thing.
    #[must_use]
    pub fn get<T: Any + Send + Sync>(&self, key: &[u8], now: Instant) -> Option<Arc<T>> {
        self.any(key, now)?.downcast().ok()
    }

    fn any(&self, key: &[u8], now: Instant) -> Option<Arc<dyn Any + Send + Sync>> {
        let stripe = self.stripe(key);
        let mut inner = self.lock();
        if !inner.is_open(stripe) {
            return None;
        }
        if let Some(entry) = inner.young.get(key) {
            return (entry.until > now).then(|| Arc::clone(&entry.value));
        }
        let (key, entry) = inner.old.remove_entry(key)?;
        let value = (entry.until > now).then(|| Arc::clone(&entry.value));
        inner.insert(key, entry);
        value
    }

    /// Before Redis is asked for a key that shall be held.
    #[must_use]
    pub fn ticket(&self, key: &[u8]) -> Option<Ticket> {
        let stripe = self.stripe(key);
        let inner = self.lock();
        let removals = inner.stripes.get(stripe)?.removals;
        inner.is_open(stripe).then(|| Ticket { key: key.into(), life: inner.life, removals })
    }

    /// Holds what was made of Redis' answer, unless the key was removed since the ticket was taken. Says
    /// whether it is held.
    pub fn put<T: Any + Send + Sync>(&self, ticket: Ticket, value: Arc<T>, until: Instant) -> bool {
        let stripe = self.stripe(&ticket.key);
        let mut inner = self.lock();
        let same = inner.stripes.get(stripe).is_some_and(|s| s.removals == ticket.removals);
        if !same || inner.life != ticket.life || !inner.is_open(stripe) {
            return false;
        }
        inner.insert(ticket.key, Entry { value, until });
        true
    }

    /// Forgets a key of which Redis says something else: what is gone there by its end of life.
    pub fn forget(&self, key: &[u8]) {
        self.lock().drop_held(key);
    }

    /// Entries were removed from Redis, by hand and before this: nothing that was read before is
    /// used any more.
    pub fn forget_all(&self) {
        self.by_hand.fetch_add(1, Ordering::AcqRel);
        self.removed(self.removing(std::iter::empty(), true));
    }

    /// Moves with each [`Held::forget_all`], for others who keep something.
    #[must_use]
    pub fn by_hand(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.by_hand)
    }

    /// Closes these keys, or all, and drops them: they are about to be removed from Redis.
    pub fn removing<'k>(&self, keys: impl Iterator<Item = &'k [u8]>, all: bool) -> Closed {
        let mut inner = self.lock();
        let mut stripes = Vec::new();
        if inner.life % 2 == 1 {
            for key in keys {
                let stripe = self.stripe(key);
                if let Some(stripe) = inner.stripes.get_mut(stripe) {
                    stripe.closed += 1;
                }
                stripes.push(stripe);
                inner.drop_held(key);
            }
        }
        if all {
            inner.closed += 1;
            inner.young.clear();
            inner.old.clear();
        }
        Closed { stripes, all, life: inner.life }
    }

    /// Redis has acknowledged it. (If it never does, [`Closed`] is dropped, and what it closed
    /// stays closed for the rest of the run.)
    pub fn removed(&self, closed: Closed) {
        let mut inner = self.lock();
        if closed.life != inner.life {
            return;
        }
        for stripe in closed.stripes {
            if let Some(stripe) = inner.stripes.get_mut(stripe) {
                stripe.closed = stripe.closed.saturating_sub(1);
                stripe.removals += 1;
            }
        }
        if closed.all {
            inner.closed = inner.closed.saturating_sub(1);
            inner.stripes.iter_mut().for_each(|stripe| stripe.removals += 1);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.forget();
        inner.life += 1;
    }
}

impl Inner {
    /// Where nothing is held, nothing is hashed: that is so wherever nobody reads by the API.
    fn drop_held(&mut self, key: &[u8]) {
        for entries in [&mut self.young, &mut self.old] {
            if !entries.is_empty() {
                entries.remove(key);
            }
        }
    }

    fn is_open(&self, stripe: usize) -> bool {
        let stripe_is_open = self.stripes.get(stripe).is_some_and(|stripe| stripe.closed == 0);
        self.life % 2 == 1 && self.closed == 0 && stripe_is_open
    }

    fn forget(&mut self) {
        self.young.clear();
        self.old.clear();
        self.closed = 0;
        // The count goes on: tickets of the life before are void by their life.
        self.stripes.iter_mut().for_each(|stripe| stripe.closed = 0);
    }

    /// When the young are many, they become the old ones, and the old ones go.
    fn insert(&mut self, key: Box<[u8]>, entry: Entry) {
        if self.young.len() >= CAPACITY {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::iter;
    use std::time::Duration;

    const KEY: &[u8] = b"v1:identity:7";

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn get(held: &Held) -> Option<Vec<u8>> {
        held.get::<Bytes>(KEY, Instant::now()).map(|value| value.to_vec())
    }

    fn one() -> iter::Once<&'static [u8]> {
        iter::once(KEY)
    }

    #[test]
    fn what_was_read_before_a_removal_is_never_held_after_it() {
        // When the ticket is taken, when the answer comes back: 0 before the removal begins,
        // 1 while Redis does it, 2 after it was acknowledged.
        for (ticket_at, put_at, held_at_the_end) in [
            (0, 0, false),
            (0, 1, false),
            (0, 2, false),
            (1, 1, false),
            (1, 2, false),
            (2, 2, true),
        ] {
            let held = Arc::new(Held::default());
            let _open = held.open();
            let (mut ticket, mut closed) = (None, None);
            for moment in 0..3 {
                match moment {
                    1 => closed = Some(held.removing(one(), false)),
                    2 => held.removed(closed.take().unwrap()),
                    _ => {}
                }
                if moment == ticket_at {
                    ticket = held.ticket(KEY);
                }
                if moment == put_at
                    && let Some(ticket) = ticket.take()
                {
                    held.put(ticket, Arc::new(Bytes::from_static(b"value")), later());
                }
            }
            assert_eq!(get(&held).is_some(), held_at_the_end, "ticket {ticket_at}, put {put_at}");
        }
    }

    #[test]
    fn a_key_that_is_being_removed_is_read_from_redis() {
        let held = Arc::new(Held::default());
        let _open = held.open();
        assert!(held.put(
            held.ticket(KEY).unwrap(),
            Arc::new(Bytes::from_static(b"value")),
            later()
        ));
        assert_eq!(get(&held).as_deref(), Some(&b"value"[..]));
        let closed = held.removing(one(), false);
        assert_eq!(get(&held), None);
        assert!(held.ticket(KEY).is_none());
        held.removed(closed);
        assert_eq!(get(&held), None);
        assert!(held.put(held.ticket(KEY).unwrap(), Arc::new(Bytes::from_static(b"new")), later()));
        assert_eq!(get(&held).as_deref(), Some(&b"new"[..]));
        let all = held.removing(iter::empty(), true);
        assert_eq!(get(&held), None);
        assert!(held.ticket(KEY).is_none());
        held.removed(all);
        assert!(held.ticket(KEY).is_some());
    }

    #[test]
    fn a_removal_that_is_not_acknowledged_keeps_its_keys_closed_until_the_next_run() {
        let held = Arc::new(Held::default());
        let open = held.open();
        drop(held.removing(one(), false));
        assert!(held.ticket(KEY).is_none());
        assert!(held.ticket(b"other").is_some());
        drop(open);
        assert!(held.ticket(b"other").is_none(), "no run, nothing held");
        let _open = held.open();
        assert!(held.ticket(KEY).is_some());
    }

    #[test]
    fn a_ticket_of_an_earlier_run_is_void() {
        let held = Arc::new(Held::default());
        let open = held.open();
        let ticket = held.ticket(KEY).unwrap();
        let closed = held.removing(one(), true);
        drop(open);
        let _open = held.open();
        assert!(!held.put(ticket, Arc::new(Bytes::from_static(b"value")), later()));
        held.removed(closed);
        assert!(held.ticket(KEY).is_some());
    }

    #[test]
    fn what_is_used_stays_when_much_is_put() {
        let held = Arc::new(Held::default());
        let _open = held.open();
        held.put(held.ticket(KEY).unwrap(), Arc::new(Bytes::from_static(b"value")), later());
        for number in 0..2 * CAPACITY + 10 {
            let key = number.to_string();
            held.put(
                held.ticket(key.as_bytes()).unwrap(),
                Arc::new(Bytes::from_static(b"x")),
                later(),
            );
            if number % 1000 == 0 {
                assert!(get(&held).is_some());
            }
        }
        assert!(held.get::<Bytes>(b"0", Instant::now()).is_none());
        let inner = held.lock();
        assert!(inner.young.len() + inner.old.len() <= 2 * CAPACITY);
    }

    #[test]
    fn an_entry_ends() {
        let held = Arc::new(Held::default());
        let _open = held.open();
        held.put(held.ticket(KEY).unwrap(), Arc::new(Bytes::from_static(b"value")), Instant::now());
        assert_eq!(get(&held), None);
    }
}
