//! What became of entries: did anybody read one before it died, and of what did it die. Pure.
//!
//! Of those that this process stored a sample is followed: keys whose hash is below a bound,
//! which is halved whenever there are too many. So each key has the same chance, and a key is
//! either always followed or never.
//!
//! Whether an entry was read is known in two ways. Reads by the read API are told ([`Lives::read`]).
//! Those of others, straight from Redis, nobody tells; but Redis knows for how many seconds
//! an entry was not touched (`OBJECT IDLETIME`). An entry that is idle for as long as it is
//! there was not read. It is asked for now and then ([`Lives::due`], [`Lives::answered`]), and what is
//! read behind the last question is not seen. An entry that died before it was asked for, and
//! that the API did not read, is counted as *unknown*.
//!
//! Who touches an entry on behalf of this program (the audit, a warm-up that finds it there, a
//! change of a cache that is refreshed) says so ([`Lives::touched`]): from then on Redis' answer
//! says only what happened since.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::mapping::model::CacheId;

/// How many are followed at the most.
const CAPACITY: usize = 1024;

/// Redis' clock for this has steps of a second, and is behind by a tenth; and an entry is there a moment
/// before its storer knows.
const BLUR: Duration = Duration::from_secs(2);

/// What is known of the reads of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    /// When it was asked for last, it was not read.
    Unread,
    Read,
}

#[derive(Debug, Clone, Copy)]
struct Life {
    cache: CacheId,
    since: Instant,
    /// When it was stored, or touched by this program, last.
    quiet: Instant,
    ends: Instant,
    seen: Seen,
}

/// How many entries died so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fates {
    /// Somebody had read them.
    pub read: u64,
    /// Nobody had.
    pub unread: u64,
    /// Nobody can say.
    pub unknown: u64,
}

impl Fates {
    fn count(&mut self, seen: Seen) {
        match seen {
            Seen::Read => self.read += 1,
            Seen::Unread => self.unread += 1,
            Seen::Nothing => self.unknown += 1,
        }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.read + self.unread + self.unknown
    }
}

impl std::ops::AddAssign for Fates {
    fn add_assign(&mut self, other: Fates) {
        self.read += other.read;
        self.unread += other.unread;
        self.unknown += other.unknown;
    }
}

/// Of what entries of a cache died.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deaths {
    /// Their time to live was over.
    pub expired: Fates,
    /// A change removed them.
    pub invalidated: Fates,
    /// A refresh put another value in their place.
    pub replaced: Fates,
    /// They were gone when they were asked for: removed by hand, or evicted.
    pub gone: u64,
}

impl std::ops::AddAssign for Deaths {
    fn add_assign(&mut self, other: Deaths) {
        self.expired += other.expired;
        self.invalidated += other.invalidated;
        self.replaced += other.replaced;
        self.gone += other.gone;
    }
}

impl Deaths {
    /// All of which it is known what they died of.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.expired.all() + self.invalidated.all() + self.replaced.all()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Lives {
    followed: HashMap<Box<[u8]>, Life, RandomState>,
    hasher: RandomState,
    /// Keys of a greater hash are not followed.
    bound: u64,
    deaths: BTreeMap<CacheId, Deaths>,
}

/// A question to Redis.
#[derive(Debug, Clone)]
pub struct Question {
    /// For how long is this key idle?
    pub key: Box<[u8]>,
    since: Instant,
}

impl Default for Lives {
    fn default() -> Self {
        Lives {
            followed: HashMap::default(),
            hasher: RandomState::default(),
            bound: u64::MAX,
            deaths: BTreeMap::new(),
        }
    }
}

impl Lives {
    /// An entry was stored, at `now` or a moment before, for `life`.
    pub fn stored(&mut self, key: &[u8], cache: CacheId, now: Instant, life: Duration) {
        if self.hasher.hash_one(key) > self.bound {
            return;
        }
        let Some(ends) = now.checked_add(life) else { return };
        let new = Life { cache, since: now, quiet: now, ends, seen: Seen::Nothing };
        if let Some(old) = self.followed.insert(key.into(), new) {
            let deaths = self.deaths.entry(old.cache).or_default();
            match old.ends <= now {
                true => deaths.expired.count(old.seen),
                false => deaths.replaced.count(old.seen),
            }
        }
        while self.followed.len() > CAPACITY {
            self.bound /= 2;
            let (hasher, bound) = (&self.hasher, self.bound);
            self.followed.retain(|key, _| hasher.hash_one(&**key) <= bound);
        }
    }

    /// The read API has read it.
    pub fn read(&mut self, key: &[u8]) {
        if let Some(life) = self.followed.get_mut(key) {
            life.seen = Seen::Read;
        }
    }

    /// This program has touched it, and that was no read.
    pub fn touched(&mut self, key: &[u8], now: Instant) {
        if let Some(life) = self.followed.get_mut(key) {
            life.quiet = now;
        }
    }

    /// What is to be asked of Redis before that.
    #[must_use]
    pub fn question(&self, key: &[u8]) -> Option<Question> {
        let life = self.followed.get(key).filter(|life| life.seen != Seen::Read)?;
        Some(Question { key: key.into(), since: life.since })
    }

    /// A change has removed it, and it was there.
    pub fn invalidated(&mut self, key: &[u8]) {
        if self.followed.is_empty() {
            return;
        }
        if let Some(life) = self.followed.remove(key) {
            let deaths = self.deaths.entry(life.cache).or_default();
            deaths.invalidated.count(life.seen);
        }
    }

    /// All of a cache is gone, or of all caches: not for what these entries were.
    pub fn dropped(&mut self, cache: Option<CacheId>) {
        self.followed.retain(|_, life| cache.is_some_and(|cache| life.cache != cache));
    }

    /// Buries those whose time was over by `now`.
    pub fn bury(&mut self, now: Instant) {
        let deaths = &mut self.deaths;
        self.followed.retain(|_, life| {
            let lives = life.ends > now;
            if !lives {
                deaths.entry(life.cache).or_default().expired.count(life.seen);
            }
            lives
        });
    }

    /// What is to be asked of Redis: of those that may have been read, and are old enough for
    /// the answer to say so.
    #[must_use]
    pub fn due(&self, now: Instant) -> Vec<Question> {
        let old = |life: &Life| now.saturating_duration_since(life.quiet) > BLUR;
        let asked = self.followed.iter().filter(|(_, life)| life.seen != Seen::Read && old(life));
        asked.map(|(key, life)| Question { key: key.clone(), since: life.since }).collect()
    }

    /// Redis' answer, which came at `now`: the seconds for which the entry was idle; `None`: it
    /// was not there.
    pub fn answered(&mut self, question: &Question, now: Instant, idle: Option<u64>) {
        let Some(life) = self.followed.get_mut(&question.key) else { return };
        // Stored anew meanwhile.
        if life.since != question.since {
            return;
        }
        match idle {
            Some(seconds) => {
                let quiet = now.saturating_duration_since(life.quiet);
                if quiet > BLUR {
                    let was_read = Duration::from_secs(seconds) + BLUR < quiet;
                    life.seen = if was_read { Seen::Read } else { Seen::Unread };
                }
            }
            None => {
                let deaths = self.deaths.entry(life.cache).or_default();
                // By Redis' clock it ends a moment sooner than by ours.
                match life.ends <= now + BLUR {
                    true => deaths.expired.count(life.seen),
                    false => deaths.gone += 1,
                }
                self.followed.remove(&question.key);
            }
        }
    }

    /// What was counted since it was last taken. Those who live on are followed on.
    pub fn take(&mut self) -> BTreeMap<CacheId, Deaths> {
        if self.followed.len() < CAPACITY / 4 {
            self.bound = self.bound.saturating_mul(2);
        }
        std::mem::take(&mut self.deaths)
    }

    /// What was counted.
    #[must_use]
    pub fn deaths(&self) -> &BTreeMap<CacheId, Deaths> {
        &self.deaths
    }

    /// Gives back what was taken.
    pub fn give_back(&mut self, deaths: BTreeMap<CacheId, Deaths>) {
        for (cache, deaths) in deaths {
            *self.deaths.entry(cache).or_default() += deaths;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE: CacheId = CacheId(0);
    const LIFE: Duration = Duration::from_secs(100);

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn ask(lives: &mut Lives, now: Instant, idle: Option<u64>) {
        for question in lives.due(now) {
            lives.answered(&question, now, idle);
        }
    }

    fn fates(read: u64, unread: u64, unknown: u64) -> Fates {
        Fates { read, unread, unknown }
    }

    #[test]
    fn how_an_entry_dies_and_whether_it_was_read() {
        type Case = (&'static str, fn(&mut Lives, Instant), Deaths);
        let expired = |fates| Deaths { expired: fates, ..Deaths::default() };
        let invalidated = |fates| Deaths { invalidated: fates, ..Deaths::default() };
        let cases: [Case; 14] = [
            ("nobody asked", |_, _| {}, expired(fates(0, 0, 1))),
            ("the API read it", |lives, _| lives.read(b"k"), expired(fates(1, 0, 0))),
            ("idle since it is there", |l, s| ask(l, at(s, 50), Some(50)), expired(fates(0, 1, 0))),
            ("a second is blur", |l, s| ask(l, at(s, 50), Some(48)), expired(fates(0, 1, 0))),
            ("read by others", |l, s| ask(l, at(s, 50), Some(20)), expired(fates(1, 0, 0))),
            ("too young to say", |l, s| ask(l, at(s, 2), Some(0)), expired(fates(0, 0, 1))),
            (
                "read behind a question",
                |l, s| {
                    ask(l, at(s, 50), Some(50));
                    l.read(b"k");
                },
                expired(fates(1, 0, 0)),
            ),
            (
                "invalidated unread",
                |l, s| {
                    ask(l, at(s, 50), Some(50));
                    l.invalidated(b"k");
                },
                invalidated(fates(0, 1, 0)),
            ),
            (
                "invalidated after a read",
                |l, _| {
                    l.read(b"k");
                    l.invalidated(b"k");
                },
                invalidated(fates(1, 0, 0)),
            ),
            (
                "gone before its time",
                |l, s| ask(l, at(s, 50), None),
                Deaths { gone: 1, ..Deaths::default() },
            ),
            ("gone in time", |l, s| ask(l, at(s, 99), None), expired(fates(0, 0, 1))),
            (
                "touched by ourselves, and not read since",
                |l, s| {
                    l.touched(b"k", at(s, 30));
                    ask(l, at(s, 50), Some(20));
                },
                expired(fates(0, 1, 0)),
            ),
            (
                "read since it was touched by ourselves",
                |l, s| {
                    l.touched(b"k", at(s, 30));
                    ask(l, at(s, 50), Some(5));
                },
                expired(fates(1, 0, 0)),
            ),
            (
                "touched by ourselves all the time",
                |l, s| {
                    for second in 3..50 {
                        let question = l.question(b"k").unwrap();
                        l.touched(b"k", at(s, second));
                        l.answered(&question, at(s, second), Some(0));
                    }
                },
                expired(fates(0, 0, 1)),
            ),
        ];
        for (what, happens, expected) in cases {
            let (mut lives, start) = (Lives::default(), Instant::now());
            lives.stored(b"k", CACHE, start, LIFE);
            happens(&mut lives, start);
            lives.bury(at(start, 200));
            let found = lives.take().remove(&CACHE).unwrap_or_default();
            assert_eq!(found, expected, "{what}");
            assert!(lives.due(at(start, 300)).is_empty(), "{what}");
        }
    }

    #[test]
    fn a_value_that_is_replaced_has_died_and_an_answer_about_it_is_late() {
        let (mut lives, start) = (Lives::default(), Instant::now());
        lives.stored(b"k", CACHE, start, LIFE);
        let late = lives.due(at(start, 10));
        lives.stored(b"k", CACHE, at(start, 10), LIFE);
        assert_eq!(lives.deaths()[&CACHE].replaced, fates(0, 0, 1));
        lives.answered(&late[0], at(start, 11), None);
        assert_eq!(lives.deaths()[&CACHE].gone, 0);
        lives.dropped(Some(CacheId(1)));
        assert_eq!(lives.due(at(start, 20)).len(), 1);
        lives.dropped(Some(CACHE));
        assert!(lives.due(at(start, 20)).is_empty());
    }

    #[test]
    fn few_are_all_followed_and_of_many_a_bounded_share() {
        let (mut lives, start) = (Lives::default(), Instant::now());
        for n in 0..CAPACITY {
            lives.stored(&n.to_be_bytes(), CACHE, start, LIFE);
        }
        assert_eq!(lives.followed.len(), CAPACITY);
        for n in 0..100_000_u32 {
            lives.stored(&n.to_be_bytes(), CACHE, start, LIFE);
        }
        let followed = lives.followed.len();
        assert!((CAPACITY / 4..=CAPACITY).contains(&followed), "{followed}");
        let share = 100_000 / followed;
        assert!((64..=512).contains(&share), "{share}");
        lives.bury(at(start, 100));
        assert_eq!(lives.take()[&CACHE].expired.unknown, followed as u64);
        let bound = lives.bound;
        _ = lives.take();
        assert!(lives.bound > bound, "more are followed once there are few");
    }
}
