//! When an entry is refreshed that changes faster than it loads (rule 12). Pure.
//!
//! The first change that the cached value lacks sets its *due*: `max_staleness` later Redis
//! removes it. A refresh must be stored before that, but need not begin at once, for whatever
//! changes until it begins is in it.
//!
//! * *After a calm* it begins when half of `max_staleness` has passed, less what the last
//!   load took: a burst of changes costs one load, and half of the time is left for a load that
//!   is slow. If the key is *still changing* then, and it is known what its cache's loads take, it
//!   waits for more of the burst, or what may be the beginning of a storm: until an eighth of
//!   `max_staleness` is left.
//! * *In a storm* (the last refresh began less than `max_staleness` before this change) it begins
//!   as late as is safe: twice what the last load took, and a 32nd of `max_staleness`, before the
//!   due. The first change that a refresh lacks comes right after it began; so two loads of a
//!   key are nearly `max_staleness` apart, and no schedule that lets no value expire has fewer.
//!
//! A storm of ten seconds on one key with `max_staleness = "1s"` costs eleven loads, if one takes
//! up to 20 ms: the first before the first second is over, nine in step, one after the end. Whatever
//! delays a refresh costs freshness never, only a miss: Redis holds the due.
//!
//! One refresh of a key is under way at a time. A change that comes meanwhile is not in it for
//! sure: what it stores is due again at once, by the time of the first such change. A refreshed
//! entry keeps the life that it had before its first change, or an entry that nobody reads
//! would live for ever on writes. What is known here outlives the runs of the pipeline but not
//! the daemon; an entry that was due then goes at its due, and its next reader fills it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::mapping::model::CacheId;
use crate::store::session::{LEASED, NOT_THERE};

/// The values of the label `outcome` of `unstale_refreshes_total`.
pub const OUTCOMES: [&str; 8] =
    ["refreshed", "expired", "fresh", "absent", "voided", "failed", "busy", "dropped"];

/// What part of `max_staleness` is kept back for what delays a refresh.
const RESERVE: u32 = 32;

/// Within what part of `max_staleness` a key has changed that is still changing; and what part is
/// left to its refresh: what is known of loads may be of a smaller entry.
const STILL: u32 = 8;

/// An entry whose query failed this often is left to its due.
const TRIES: u32 = 5;

/// The entries that changed, and when each is refreshed.
#[derive(Debug)]
pub struct Refreshes {
    keys: HashMap<Vec<u8>, Refresh, RandomState>,
    /// When something is to be done about a key, soonest first.
    timers: BTreeSet<(Instant, Vec<u8>)>,
    /// What the last load of a cache's entry took.
    took: HashMap<CacheId, Duration, RandomState>,
    capacity: usize,
}

#[derive(Debug)]
struct Refresh {
    cache: CacheId,
    max_staleness: Duration,
    /// No later than the first change that the cached value may lack.
    first: Instant,
    /// When it changed last, as far as is known.
    last: Instant,
    /// When its life ends; `None`: with its cache's TTL.
    ends: Option<Instant>,
    /// When the last load began that came to its end.
    begun: Option<Instant>,
    /// What the last load took, of this key or at least of its cache.
    took: Option<Duration>,
    failures: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// For its time.
    Waiting(Instant),
    /// Its time has come; it waits for its turn.
    Queued,
    /// Since then; perhaps a change has come meanwhile.
    Running { since: Instant, again: Option<Instant> },
    /// Refreshed, remembered until then: the next change may be of the same storm.
    Resting(Instant),
}

/// Whether a job is a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// No: nothing is known of the key.
    Other,
    /// It was, but its life has ended meanwhile.
    Over,
    /// Yes, and what is stored may live this long; `None`: its cache's TTL.
    Refresh(Option<Duration>),
}

/// What came of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The new value is stored.
    Stored,
    /// The cached value lacked nothing: somebody else has refreshed it.
    Fresh,
    /// The new value was not accepted: it came past its due, or everything was dropped.
    Voided,
    /// There is nothing to cache any more.
    Absent,
    /// Somebody else computes it, or nothing is accepted just now.
    Busy,
    /// It could not be computed, or not be stored.
    Failed,
}

impl Refreshes {
    /// Knows of at most `capacity` entries.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Refreshes {
            keys: HashMap::default(),
            timers: BTreeSet::new(),
            took: HashMap::default(),
            capacity,
        }
    }

    /// A key has changed: not before `asked`, when it had the `life` that a step tells.
    /// Says whether it can be remembered.
    pub fn changed(
        &mut self,
        key: &[u8],
        cache: CacheId,
        max_staleness: Duration,
        life: i64,
        asked: Instant,
    ) -> bool {
        // A life that a due has cut tells nothing of the one before.
        let cut = u64::try_from(life).is_ok_and(|ms| Duration::from_millis(ms) <= max_staleness);
        let ends = u64::try_from(life).ok().map(|ms| asked + Duration::from_millis(ms));
        if let Some(refresh) = self.keys.get_mut(key) {
            refresh.last = asked;
            if !cut && life != NOT_THERE {
                refresh.ends = ends;
            }
            match &mut refresh.state {
                State::Waiting(_) | State::Queued => {}
                State::Running { again, .. } => {
                    again.get_or_insert(asked);
                }
                State::Resting(_) if life == NOT_THERE => {}
                State::Resting(_) => {
                    refresh.first = asked;
                    refresh.failures = 0;
                    let start = refresh.start();
                    self.wait(key, start);
                }
            }
            return true;
        }
        // What ends before its due needs no refresh.
        if cut || life == NOT_THERE {
            return true;
        }
        debug_assert!(life >= LEASED);
        if self.keys.len() >= self.capacity {
            return false;
        }
        let took = self.took.get(&cache).copied();
        let refresh = Refresh {
            cache,
            max_staleness,
            first: asked,
            last: asked,
            ends,
            begun: None,
            took,
            failures: 0,
            state: State::Queued,
        };
        let start = refresh.start();
        self.keys.insert(key.to_vec(), refresh);
        self.wait(key, start);
        true
    }

    /// When there is something to do next.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The keys whose time has come, to be put into the queue.
    pub fn ready(&mut self, now: Instant) -> Vec<(Vec<u8>, CacheId)> {
        let mut ready = Vec::new();
        while let Some((at, key)) = self.timers.pop_first() {
            if at > now {
                self.timers.insert((at, key));
                break;
            }
            let Some(refresh) = self.keys.get_mut(&key) else { continue };
            match refresh.state {
                State::Waiting(_) => match refresh.put_off(now) {
                    Some(until) => {
                        refresh.state = State::Waiting(until);
                        self.timers.insert((until, key));
                    }
                    None => {
                        refresh.state = State::Queued;
                        ready.push((key, refresh.cache));
                    }
                },
                State::Resting(_) => {
                    self.keys.remove(&key);
                }
                State::Queued | State::Running { .. } => {}
            }
        }
        ready
    }

    /// A job of this key is taken up.
    pub fn begin(&mut self, key: &[u8], now: Instant) -> Begin {
        let Some(refresh) = self.keys.get_mut(key) else { return Begin::Other };
        let timer = match refresh.state {
            State::Waiting(at) | State::Resting(at) => Some(at),
            State::Queued => None,
            // Another worker has it: whatever this job is about, that one covers it.
            State::Running { .. } => return Begin::Over,
        };
        let remaining = refresh.ends.map(|ends| ends.saturating_duration_since(now));
        let over = remaining.is_some_and(|remaining| remaining < Duration::from_millis(1));
        refresh.state = State::Running { since: now, again: None };
        if let Some(at) = timer {
            self.timers.remove(&(at, key.to_vec()));
        }
        if over {
            self.keys.remove(key);
            return Begin::Over;
        }
        Begin::Refresh(remaining)
    }

    /// What came of it. Gives the label `outcome` of `unstale_refreshes_total`; `None`: it is
    /// tried again, and this does not count.
    pub fn end(&mut self, key: &[u8], ended: Ended, now: Instant) -> Option<&'static str> {
        let refresh = self.keys.get_mut(key)?;
        let State::Running { since, again } = refresh.state else { return None };
        let expired = now > refresh.first + refresh.max_staleness;
        let mut outcome = match ended {
            Ended::Stored if expired => Some("expired"),
            Ended::Stored => Some("refreshed"),
            Ended::Fresh => Some("fresh"),
            Ended::Voided => Some("voided"),
            Ended::Absent => Some("absent"),
            Ended::Busy => None,
            Ended::Failed => Some("failed"),
        };
        match ended {
            Ended::Stored | Ended::Voided => {
                refresh.begun = Some(since);
                refresh.took = Some(now - since);
                refresh.failures = 0;
                self.took.insert(refresh.cache, now - since);
            }
            Ended::Failed => refresh.failures += 1,
            Ended::Fresh | Ended::Absent | Ended::Busy => {}
        }
        let next = match (ended, again) {
            (Ended::Stored | Ended::Fresh, None) => {
                let until = since + refresh.max_staleness;
                refresh.state = State::Resting(until);
                self.timers.insert((until, key.to_vec()));
                return outcome;
            }
            (Ended::Stored | Ended::Fresh | Ended::Absent, Some(first)) => {
                refresh.first = first;
                Some(refresh.start())
            }
            (Ended::Voided, again) => {
                refresh.first = again.unwrap_or(now);
                Some(refresh.start())
            }
            (Ended::Absent, None) => None,
            (Ended::Busy, again) if expired => {
                outcome = Some("busy");
                // The old value has gone. Whoever was quicker stores what may lack that change.
                again.map(|first| {
                    refresh.first = first;
                    refresh.start()
                })
            }
            (Ended::Busy, _) => Some(now + (refresh.max_staleness / RESERVE).max(RETRY)),
            (Ended::Failed, _) if refresh.failures < TRIES => {
                Some(now + Duration::from_millis(100) * 2_u32.pow(refresh.failures))
            }
            (Ended::Failed, _) => None,
        };
        match next {
            Some(start) => self.wait(key, start),
            None => self.forget(key),
        }
        outcome
    }

    /// Nothing will be done about it: its job was given up.
    pub fn forget(&mut self, key: &[u8]) {
        let Some(refresh) = self.keys.remove(key) else { return };
        if let State::Waiting(at) | State::Resting(at) = refresh.state {
            self.timers.remove(&(at, key.to_vec()));
        }
    }

    fn wait(&mut self, key: &[u8], until: Instant) {
        let Some(refresh) = self.keys.get_mut(key) else { return };
        if let State::Waiting(at) | State::Resting(at) = refresh.state {
            self.timers.remove(&(at, key.to_vec()));
        }
        refresh.state = State::Waiting(until);
        self.timers.insert((until, key.to_vec()));
    }
}

/// How soon at the earliest somebody else's lease is looked at again.
const RETRY: Duration = Duration::from_millis(5);

impl Refresh {
    /// See the module.
    fn start(&self) -> Instant {
        let latest = self.latest();
        let storm = self
            .begun
            .is_some_and(|begun| self.first.saturating_duration_since(begun) < self.max_staleness);
        let wait = match storm {
            true => latest,
            false => {
                let took = self.took.unwrap_or_default();
                latest.min((self.max_staleness / 2).saturating_sub(took))
            }
        };
        self.first + wait
    }

    /// How long after the first change it is safe to begin.
    fn latest(&self) -> Duration {
        let reserve = self.max_staleness / RESERVE + 2 * self.took.unwrap_or_default();
        self.max_staleness.saturating_sub(reserve)
    }

    /// Until when a refresh waits whose time has come, if its key is still changing. (In a storm it
    /// has waited for longer than that.)
    fn put_off(&self, now: Instant) -> Option<Instant> {
        let part = self.max_staleness / STILL;
        let changing = now.saturating_duration_since(self.last) < part;
        let until = self.first + self.latest().min(self.max_staleness - part);
        (changing && self.took.is_some() && self.failures == 0 && now < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"k";
    const CACHE: CacheId = CacheId(0);
    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: i64 = 3_600_000;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// One key, a change of it every `every`, loads that take `took`: when loads began, and the
    /// longest that a value that lacked a change stayed.
    fn storm(time: Duration, every: Duration, took: Duration) -> (Vec<Duration>, Duration) {
        storm_on(Refreshes::new(10), time, every, took)
    }

    /// The same, where the cache has been refreshed before.
    fn known_storm(time: Duration, every: Duration, took: Duration) -> (Vec<Duration>, Duration) {
        let mut refreshes = Refreshes::new(10);
        refreshes.took.insert(CACHE, took);
        storm_on(refreshes, time, every, took)
    }

    fn storm_on(
        mut refreshes: Refreshes,
        time: Duration,
        every: Duration,
        took: Duration,
    ) -> (Vec<Duration>, Duration) {
        let zero = Instant::now();
        let (mut loads, mut longest) = (Vec::new(), Duration::ZERO);
        let mut lacks: Option<Instant> = None;
        let mut loading: Option<(Instant, Option<Instant>)> = None;
        let mut now = zero;
        while now < zero + time + 5 * SECOND {
            if now < zero + time && (now - zero).as_micros().is_multiple_of(every.as_micros()) {
                let life = if lacks.is_some() { 900 } else { HOUR };
                assert!(refreshes.changed(KEY, CACHE, SECOND, life, now));
                lacks.get_or_insert(now);
                if let Some((_, lacking)) = &mut loading {
                    lacking.get_or_insert(now);
                }
            }
            if let Some((until, lacking)) = loading
                && now >= until
            {
                longest = longest.max(now - lacks.expect("a change"));
                assert_eq!(refreshes.end(KEY, Ended::Stored, now), Some("refreshed"));
                (loading, lacks) = (None, lacking);
            }
            for (key, _) in refreshes.ready(now) {
                assert!(matches!(refreshes.begin(&key, now), Begin::Refresh(Some(_))));
                loads.push(now - zero);
                loading = Some((now + took, None));
            }
            now += Duration::from_micros(500);
        }
        assert_eq!((lacks, loading), (None, None), "the last change was missed");
        (loads, longest)
    }

    #[test]
    fn a_storm_costs_no_more_loads_than_it_must_and_no_value_expires() {
        let (loads, longest) = storm(10 * SECOND, ms(1), ms(5));
        assert_eq!(loads.len(), 11, "{loads:?}");
        assert!(longest < SECOND, "{longest:?}");
        let (loads, longest) = storm(10 * SECOND, ms(1), ms(200));
        assert!(loads.len() <= 18 && longest < SECOND, "{longest:?} {loads:?}");
    }

    #[test]
    fn a_storm_of_ten_seconds_is_eleven_loads_where_it_is_known_what_they_take() {
        for took in [ms(1), ms(5), ms(20)] {
            let (loads, longest) = known_storm(10 * SECOND + ms(90), ms(1), took);
            assert_eq!(loads.len(), 11, "{loads:?}");
            assert!(longest < SECOND, "{longest:?}");
        }
    }

    #[test]
    fn what_still_changes_is_waited_for_and_an_eighth_of_the_time_is_left() {
        let (loads, longest) = known_storm(ms(800), ms(10), ms(20));
        assert_eq!((loads, longest), (vec![ms(875)], ms(895)), "a long burst is one load");
        let (loads, _) = known_storm(ms(300), ms(10), ms(20));
        assert_eq!(loads, [ms(480)], "a short one is not waited for");
        let (loads, _) = storm(ms(800), ms(10), ms(20));
        assert_eq!(loads[0], ms(500), "a load that nobody knows is given half of the time");
        // A load that needs more than an eighth begins sooner.
        let (loads, longest) = known_storm(ms(800), ms(10), ms(150));
        assert!(loads[0] < ms(700) && longest < SECOND, "{longest:?} {loads:?}");
    }

    #[test]
    fn after_a_calm_half_of_the_time_is_waited() {
        let (loads, longest) = storm(ms(1), ms(1), ms(20));
        assert_eq!((loads, longest), (vec![ms(500)], ms(520)));
        let (loads, _) = storm(ms(300), ms(10), ms(20));
        assert_eq!(loads, [ms(500)], "a burst is one load");
        let (loads, _) = storm(10 * SECOND, 3 * SECOND, ms(20));
        assert_eq!(loads, [ms(500), ms(3480), ms(6480), ms(9480)]);
    }

    #[test]
    fn the_life_before_the_first_change_is_kept() {
        let now = Instant::now();
        let mut refreshes = Refreshes::new(10);
        assert!(refreshes.changed(KEY, CACHE, SECOND, 10_000, now));
        assert!(refreshes.changed(KEY, CACHE, SECOND, 990, now + ms(10)), "cut by the due");
        assert_eq!(refreshes.ready(now + ms(500)).len(), 1);
        assert_eq!(refreshes.begin(KEY, now + ms(500)), Begin::Refresh(Some(ms(9500))));
        assert!(refreshes.changed(KEY, CACHE, SECOND, 400, now + ms(600)));
        refreshes.end(KEY, Ended::Stored, now + ms(700));
        let start = refreshes.next().unwrap();
        refreshes.ready(start);
        assert_eq!(refreshes.begin(KEY, now + ms(1500)), Begin::Refresh(Some(ms(8500))));
        refreshes.end(KEY, Ended::Stored, now + ms(1500));
        assert!(refreshes.changed(KEY, CACHE, SECOND, 700, now + ms(1600)));
        refreshes.ready(refreshes.next().unwrap());
        assert_eq!(refreshes.begin(KEY, now + ms(10_000)), Begin::Over);
        assert_eq!((refreshes.next(), refreshes.keys.len()), (None, 0));
        // A life shorter than the due: nothing would come of a refresh.
        assert!(refreshes.changed(KEY, CACHE, SECOND, 900, now));
        assert!(refreshes.changed(KEY, CACHE, SECOND, NOT_THERE, now));
        assert_eq!(refreshes.keys.len(), 0);
        // Somebody computes it for the first time.
        assert!(refreshes.changed(KEY, CACHE, SECOND, LEASED, now));
        assert_eq!(refreshes.begin(KEY, now), Begin::Refresh(None));
    }

    #[test]
    fn one_refresh_of_a_key_is_under_way_at_a_time() {
        let now = Instant::now();
        let mut refreshes = Refreshes::new(10);
        assert_eq!(refreshes.begin(KEY, now), Begin::Other);
        refreshes.changed(KEY, CACHE, SECOND, HOUR, now);
        assert!(matches!(refreshes.begin(KEY, now), Begin::Refresh(_)));
        assert_eq!(refreshes.begin(KEY, now), Begin::Over);
        refreshes.changed(KEY, CACHE, SECOND, 900, now);
        assert_eq!(refreshes.ready(now + 5 * SECOND), []);
    }

    #[test]
    fn what_fails_is_tried_again_and_then_given_up() {
        let mut now = Instant::now();
        let mut refreshes = Refreshes::new(10);
        refreshes.changed(KEY, CACHE, SECOND, HOUR, now);
        for _ in 0..TRIES {
            now = refreshes.next().expect("another try");
            assert_eq!(refreshes.ready(now).len(), 1);
            refreshes.begin(KEY, now);
            assert_eq!(refreshes.end(KEY, Ended::Failed, now), Some("failed"));
        }
        assert_eq!((refreshes.next(), refreshes.keys.len()), (None, 0));
    }

    #[test]
    fn another_s_lease_is_waited_for_until_the_old_value_has_gone() {
        let first = Instant::now();
        let mut refreshes = Refreshes::new(10);
        refreshes.changed(KEY, CACHE, SECOND, HOUR, first);
        let mut tries = 0;
        let given_up = loop {
            let now = refreshes.next().expect("another try");
            refreshes.ready(now);
            refreshes.begin(KEY, now);
            tries += 1;
            if refreshes.end(KEY, Ended::Busy, now) == Some("busy") {
                break now;
            }
        };
        assert!(given_up > first + SECOND && given_up < first + 2 * SECOND);
        assert!((10..25).contains(&tries), "{tries}");
        assert_eq!(refreshes.keys.len(), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let now = Instant::now();
        let mut refreshes = Refreshes::new(1);
        assert!(refreshes.changed(b"a", CACHE, SECOND, HOUR, now));
        assert!(!refreshes.changed(b"b", CACHE, SECOND, HOUR, now));
        refreshes.ready(now + SECOND);
        refreshes.begin(b"a", now + SECOND);
        refreshes.end(b"a", Ended::Stored, now + SECOND);
        assert_eq!(refreshes.ready(now + 2 * SECOND), [], "what rests is forgotten");
        assert!(refreshes.changed(b"b", CACHE, SECOND, HOUR, now + 2 * SECOND));
        refreshes.forget(b"b");
        assert_eq!((refreshes.next(), refreshes.keys.len()), (None, 0));
    }
}
