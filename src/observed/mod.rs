//! What reports tell beyond the metrics: the hottest keys, the rules by which keys went, how
//! many a transaction reached, whether entries were read before they died. A metric's label takes no
//! row's value and may not be one of thousands; here keys are counted, so what is kept is bounded.
//!
//! | what | bounded by | written by |
//! |---|---|---|
//! | hot keys ([`frequent`]) | 256 counters, and 256 of reads | the applier, of each key that it removed; the API, of each that it read |
//! | rules | their number | the applier |
//! | fan-out ([`fan_out`]) | 10 classes | the applier |
//! | lives ([`lives`]) | 1024 entries, a sample | fills, the applier, the API |
//!
//! # What it costs
//!
//! A removed key costs a hash or two beside the 1.3 µs that it costs Redis; of the lives that are not
//! followed, nothing is kept. The lock is held for 256 keys at a time, so that a reader of the
//! API does not wait for a batch of a hundred thousand. Nothing here waits for anything.
//!
//! Ids are those of one mapping: another one ([`Observed::speak`]) makes all of it begin anew.

pub mod fan_out;
pub mod frequent;
pub mod idle;
pub mod lives;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::fan_out::FanOut;
use self::frequent::Frequent;
use self::lives::{Deaths, Lives, Question};
use crate::lsn::Lsn;
use crate::mapping::Mapping;
use crate::mapping::changes::Origin;
use crate::mapping::model::{CacheId, RuleId};

/// How many keys have a counter.
const HOT: usize = 256;

/// How many keys are counted under one lock.
pub const AT_ONCE: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub struct Observed(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    patterns: Patterns,
    lives: Lives,
    /// Why Redis does not say for how long entries are idle.
    blind: Option<String>,
}

/// What was counted.
#[derive(Debug)]
pub struct Patterns {
    /// In whose ids it is told; `None`: nothing was counted yet.
    pub mapping: Option<Arc<Mapping>>,
    /// Keys that changes reached.
    pub hot: Frequent<Hot>,
    /// Keys that the read API read: so that one that begins to change has the reads that it had.
    pub read: Frequent<()>,
    /// By rule: keys that it reached first, and how many of them were there.
    pub rules: BTreeMap<RuleId, Reached>,
    /// Keys by transaction.
    pub fan_out: FanOut,
    /// What became of entries.
    pub deaths: BTreeMap<CacheId, Deaths>,
    /// When counting began.
    pub since: Instant,
}

/// Of a key that changes reached, since it has a counter.
#[derive(Debug, Clone, Copy)]
pub struct Hot {
    /// What reached it last.
    pub origin: Origin,
    /// How often it was there.
    pub present: u64,
    /// How often the read API read it, cached or not.
    pub reads: u64,
}

/// What a rule reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// Keys.
    pub keys: u64,
    /// Those that were there.
    pub present: u64,
}

impl Default for Patterns {
    fn default() -> Self {
        Patterns {
            mapping: None,
            hot: Frequent::new(HOT),
            read: Frequent::new(HOT),
            rules: BTreeMap::new(),
            fan_out: FanOut::default(),
            deaths: BTreeMap::new(),
            since: Instant::now(),
        }
    }
}

/// A key that the applier has changed.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What reached it.
    pub origin: Origin,
    /// Whether it was there.
    pub present: bool,
    /// The value stays until it is refreshed, or due.
    pub stays: bool,
}

impl Observed {
    /// A panic while it was locked leaves counts at worst: go on.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on ids are those of `mapping`. What was counted is forgotten.
    pub fn speak(&self, mapping: &Arc<Mapping>) {
        let mut inner = self.lock();
        let mapping = Some(Arc::clone(mapping));
        *inner =
            Inner { patterns: Patterns { mapping, ..Patterns::default() }, ..Inner::default() };
    }

    /// Changes were applied: at most [`AT_ONCE`].
    pub fn changed<'a>(&self, changes: impl Iterator<Item = Change<'a>>) {
        let now = Instant::now();
        let mut inner = self.lock();
        let Inner { patterns, lives, .. } = &mut *inner;
        for Change { key, origin, present, stays } in changes {
            let read = &patterns.read;
            let hot =
                patterns.hot.offer(key, 1, || Hot { origin, present: 0, reads: read.count(key) });
            hot.origin = origin;
            hot.present += u64::from(present);
            let rule = patterns.rules.entry(origin.rule).or_default();
            rule.keys += 1;
            rule.present += u64::from(present);
            match (present, stays) {
                (true, false) => lives.invalidated(key),
                // Its due is its expiry: to set that touches it.
                (true, true) => lives.touched(key, now),
                (false, _) => {}
            }
        }
    }

    /// Transactions were applied: how many keys each reached, its commit's end, its id.
    pub fn reached(&self, transactions: impl Iterator<Item = (u64, Lsn, u32)>) {
        let mut inner = self.lock();
        for (keys, lsn, xid) in transactions {
            inner.patterns.fan_out.count(keys, lsn, xid);
        }
    }

    /// The read API wanted these; `hit`: they were cached.
    pub fn read<'a>(&self, keys: impl Iterator<Item = &'a [u8]>, hit: bool) {
        let mut inner = self.lock();
        for key in keys {
            if let Some(hot) = inner.patterns.hot.get_mut(key) {
                hot.reads += 1;
            }
            inner.patterns.read.offer(key, 1, || ());
            if hit {
                inner.lives.read(key);
            }
        }
    }

    /// This process has just stored an entry, for `life`.
    pub fn stored(&self, key: &[u8], cache: CacheId, life: Duration) {
        self.lock().lives.stored(key, cache, Instant::now(), life);
    }

    /// This process has touched an entry, and that was nobody's read.
    pub fn touched(&self, key: &[u8]) {
        self.lock().lives.touched(key, Instant::now());
    }

    /// All of a cache was dropped; `None`: of every cache.
    pub fn dropped(&self, cache: Option<CacheId>) {
        self.lock().lives.dropped(cache);
    }

    /// What Redis is to be asked about now.
    #[must_use]
    pub fn questions(&self) -> Vec<Question> {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.lives.bury(now);
        inner.lives.due(now)
    }

    /// And what it said.
    pub fn answered<'a>(&self, answers: impl Iterator<Item = (&'a Question, Option<u64>)>) {
        let now = Instant::now();
        let mut inner = self.lock();
        for (question, idle) in answers {
            inner.lives.answered(question, now, idle);
        }
    }

    /// What is to be asked about one entry, before it is touched.
    #[must_use]
    pub fn question(&self, key: &[u8]) -> Option<Question> {
        self.lock().lives.question(key)
    }

    /// Redis does not say for how long entries are idle, for this reason; or it does.
    pub fn blind(&self, reason: Option<String>) {
        self.lock().blind = reason;
    }

    /// Why Redis does not say for how long entries are idle, if it does not.
    #[must_use]
    pub fn why_blind(&self) -> Option<String> {
        self.lock().blind.clone()
    }

    /// Takes what was counted; counting begins anew.
    #[must_use]
    pub fn take(&self) -> Patterns {
        let mut inner = self.lock();
        inner.lives.bury(Instant::now());
        let mapping = inner.patterns.mapping.clone();
        let new = Patterns { mapping, ..Patterns::default() };
        let mut taken = std::mem::replace(&mut inner.patterns, new);
        taken.deaths = inner.lives.take();
        taken
    }

    /// Gives back what was taken and could not be used: as if it had not been. Unless there
    /// are other rules by now.
    pub fn give_back(&self, taken: Patterns) {
        let mut inner = self.lock();
        let same = match (&inner.patterns.mapping, &taken.mapping) {
            (Some(now), Some(then)) => Arc::ptr_eq(now, then),
            (None, None) => true,
            _ => false,
        };
        if !same {
            return;
        }
        let patterns = &mut inner.patterns;
        patterns.hot.absorb(taken.hot, |now, then| {
            now.present += then.present;
            now.reads += then.reads;
        });
        patterns.read.absorb(taken.read, |(), ()| ());
        for (rule, then) in taken.rules {
            let now = patterns.rules.entry(rule).or_default();
            now.keys += then.keys;
            now.present += then.present;
        }
        patterns.fan_out.absorb(taken.fan_out);
        patterns.since = taken.since;
        inner.lives.give_back(taken.deaths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Operation;

    fn change(key: &str, present: bool) -> Change<'_> {
        let origin = Origin { rule: RuleId(3), cache: CacheId(1), operation: Operation::Update };
        Change { key: key.as_bytes(), origin, present, stays: false }
    }

    fn hot(patterns: &Patterns) -> Vec<(String, u64, u64, u64)> {
        let told = patterns.hot.iter().map(|(key, counter)| {
            let Hot { present, reads, .. } = counter.beside;
            (String::from_utf8(key.to_vec()).unwrap(), counter.count, present, reads)
        });
        let mut all: Vec<_> = told.collect();
        all.sort();
        all
    }

    #[test]
    fn reads_count_from_before_the_first_change_on() {
        let observed = Observed::default();
        observed.read([&b"a"[..], b"b"].into_iter(), true);
        observed.changed([change("a", true), change("c", false)].into_iter());
        observed.read([&b"a"[..], b"c"].into_iter(), false);
        observed.changed([change("a", true)].into_iter());
        let taken = observed.take();
        let expected = [("a".to_owned(), 2, 2, 2), ("c".to_owned(), 1, 0, 1)];
        assert_eq!(hot(&taken), expected);
        assert_eq!(taken.rules[&RuleId(3)], Reached { keys: 3, present: 2 });
        assert_eq!(hot(&observed.take()), []);
    }

    #[test]
    fn what_is_given_back_is_as_if_it_had_not_been_taken() {
        let observed = Observed::default();
        let tell = |keys| {
            observed.changed([change("a", true)].into_iter());
            observed.reached([(keys, Lsn(keys), 1)].into_iter());
            observed.stored(b"e", CacheId(1), Duration::ZERO);
        };
        tell(5);
        let taken = observed.take();
        let since = taken.since;
        tell(2);
        observed.give_back(taken);
        let all = observed.take();
        assert_eq!(hot(&all), [("a".to_owned(), 2, 2, 0)]);
        assert_eq!((all.fan_out.transactions(), all.fan_out.largest.unwrap().keys), (2, 5));
        assert_eq!(all.rules[&RuleId(3)], Reached { keys: 2, present: 2 });
        assert_eq!(all.deaths[&CacheId(1)].expired.unknown, 2);
        assert_eq!(all.since, since);
    }
}
