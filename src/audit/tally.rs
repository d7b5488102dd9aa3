//! Counting verdicts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::compare::{Undecided, Verdict};

/// How many keys of a kind are remembered by name.
const NAMED: usize = 1000;

/// What was found, cache by cache.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// By cache.
    pub caches: BTreeMap<String, Counts>,
    /// How long those entries stayed that were inconsistent.
    pub inconsistent_for: Durations,
    /// Entries of generations that have passed: not compared.
    pub unreachable: u64,
    /// The keys that are stale, the first thousand of them.
    pub stale_keys: Vec<String>,
    /// The keys that could not be decided, the first thousand of them.
    pub undecided_keys: Vec<String>,
    /// Why they could not.
    #[serde(skip)]
    pub undecided_because: Vec<Undecided>,
}

/// Verdicts on one cache's entries.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Those that were compared: the five that follow together.
    pub compared: u64,
    /// What is cached is what the database says.
    pub equal: u64,
    /// Differed, and was removed or replaced.
    pub inconsistent: u64,
    /// Differs, and is refreshed or gone within its cache's `max_staleness`.
    pub due: u64,
    /// Differs although everything is applied.
    pub stale: u64,
    /// Differs, and could not be judged.
    pub undecided: u64,
    /// Gone before it was compared.
    pub expired: u64,
    /// The query failed.
    pub failed: u64,
    /// Stale, and removed.
    pub repaired: u64,
}

/// How many inconsistencies were noticed for how long: at most so long, and longer than the one
/// before.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Durations {
    /// At most 100 ms.
    #[serde(rename = "100ms")]
    pub tenth: u64,
    /// At most a second.
    #[serde(rename = "1s")]
    pub second: u64,
    /// At most a minute.
    #[serde(rename = "1m")]
    pub minute: u64,
    /// At most five minutes.
    #[serde(rename = "5m")]
    pub five_minutes: u64,
    /// Longer.
    pub longer: u64,
}

impl Durations {
    fn add(&mut self, duration: Duration) {
        let bucket = match duration.as_millis() {
            0..=100 => &mut self.tenth,
            101..=1000 => &mut self.second,
            1001..=60_000 => &mut self.minute,
            60_001..=300_000 => &mut self.five_minutes,
            _ => &mut self.longer,
        };
        *bucket += 1;
    }
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.compared += other.compared;
        self.equal += other.equal;
        self.inconsistent += other.inconsistent;
        self.due += other.due;
        self.stale += other.stale;
        self.undecided += other.undecided;
        self.expired += other.expired;
        self.failed += other.failed;
        self.repaired += other.repaired;
    }
}

impl Tally {
    /// The counts of a cache.
    pub fn of(&mut self, cache: &str) -> &mut Counts {
        self.caches.entry(cache.to_owned()).or_default()
    }

    /// Counts a verdict.
    pub fn add(&mut self, cache: &str, key: &[u8], verdict: Verdict) {
        let name = || String::from_utf8_lossy(key).into_owned();
        let counts = self.caches.entry(cache.to_owned()).or_default();
        match verdict {
            Verdict::Equal => counts.equal += 1,
            Verdict::Inconsistent(duration) => {
                counts.inconsistent += 1;
                self.inconsistent_for.add(duration);
            }
            Verdict::Due => counts.due += 1,
            Verdict::Stale => {
                counts.stale += 1;
                if self.stale_keys.len() < NAMED {
                    self.stale_keys.push(name());
                }
            }
            Verdict::Undecided(why) => {
                counts.undecided += 1;
                if self.undecided_keys.len() < NAMED {
                    self.undecided_keys.push(name());
                }
                if !self.undecided_because.contains(&why) {
                    self.undecided_because.push(why);
                }
            }
            Verdict::Expired => {
                counts.expired += 1;
                return;
            }
            Verdict::Unreachable => {
                self.unreachable += 1;
                return;
            }
            Verdict::NoEntry => return,
        }
        counts.compared += 1;
    }

    /// All caches together.
    #[must_use]
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in self.caches.values() {
            total.add(*counts);
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compared_is_the_sum_of_what_came_of_it() {
        let mut tally = Tally::default();
        for ms in [0, 100, 101, 1000, 60_000, 300_000, 300_001] {
            tally.add("a", b"k", Verdict::Inconsistent(Duration::from_millis(ms)));
        }
        tally.add("a", b"k", Verdict::Equal);
        tally.add("b", b"s", Verdict::Stale);
        tally.add("b", b"e", Verdict::Expired);
        tally.add("b", b"u", Verdict::Unreachable);
        let expected = Durations { tenth: 2, second: 2, minute: 1, five_minutes: 1, longer: 1 };
        assert_eq!(tally.inconsistent_for, expected);
        let total = tally.total();
        assert_eq!((total.compared, total.equal, total.inconsistent, total.stale), (9, 1, 7, 1));
        assert_eq!((total.expired, tally.unreachable), (1, 1));
        assert_eq!(tally.stale_keys, ["s"]);
    }
}
