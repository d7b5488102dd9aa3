//! Why a key was dropped last: what `unstale why` answers from.

use std::time::SystemTime;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::latest::Latest;
use crate::lsn::Lsn;
use crate::mapping::Mapping;
use crate::mapping::changes::{Escalation, Origin};
use crate::mapping::model::CacheId;
use crate::snapshot::Xid;

/// One removal.
#[derive(Debug, Clone, Copy)]
pub struct Drop {
    /// The first change that asked for it.
    pub origin: Origin,
    /// Its transaction.
    pub xid: Xid,
    /// Where that transaction's commit ends.
    pub lsn: Lsn,
    /// When Redis acknowledged it.
    pub at: SystemTime,
    /// Whether the key was there; of a whole cache, whether anything was.
    pub present: bool,
    /// The old value could stay for a while (`on_change = "refresh"`).
    pub kept: bool,
}

/// The last drops, of a bounded number of keys.
#[derive(Debug)]
pub struct Drops {
    /// The last drop of all of a cache, and why it was not by key.
    whole: HashMap<CacheId, (u64, Escalation, Drop), foldhash::fast::RandomState>,
    by_key: Latest<Drop>,
}

impl Drops {
    /// Remembers at most `capacity` keys.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Drops { whole: HashMap::default(), by_key: Latest::new(capacity) }
    }

    /// Notes that a cache was dropped as a whole.
    pub fn note_whole(&mut self, reason: Escalation, drop: Drop) {
        let number = self.by_key.number();
        self.whole.insert(drop.origin.cache, (number, reason, drop));
    }

    /// The last time that this cache was dropped as a whole.
    #[must_use]
    pub fn last_whole(&self, cache: CacheId) -> Option<(Escalation, Drop)> {
        self.whole.get(&cache).map(|(_, reason, drop)| (*reason, *drop))
    }

    /// Forgets everything: the ids of another mapping mean other rules.
    pub fn forget(&mut self) {
        self.whole.clear();
        self.by_key.forget();
    }

    /// Notes a removal.
    pub fn note(&mut self, key: &[u8], drop: Drop) {
        self.by_key.note(key, drop);
    }

    /// The last removal of this key, if it is remembered.
    #[must_use]
    pub fn last(&self, key: &[u8]) -> Option<Drop> {
        self.by_key.last(key)
    }
}

/// The drops since some moment.
#[derive(Debug, Default)]
pub struct Since {
    /// By key, the last first. A key that was dropped again since is among them once.
    pub keys: Vec<(Box<[u8]>, Drop)>,
    /// Of whole caches.
    pub whole: Vec<(Escalation, Drop)>,
    /// So many were not looked at, because there were too many.
    pub left_out: u64,
    /// What to ask from the next time.
    pub next: u64,
}

impl Drops {
    /// The drops from that number on, of which `at_most` are looked at: the latest. What is
    /// remembered anyway is read from its end, so that nothing more is recorded for those who
    /// watch.
    #[must_use]
    pub fn since(&self, number: u64, at_most: usize) -> Since {
        let (keys, next) = (self.by_key.since(number, at_most), self.by_key.next());
        let mut since = Since { keys, next, ..Since::default() };
        let whole = self.whole.values().filter(|(at, ..)| *at >= number);
        since.whole = whole.map(|(_, reason, drop)| (*reason, *drop)).collect();
        // Numbers are given without a hole.
        let looked_at = u64::try_from(at_most.saturating_add(since.whole.len()));
        let all = next.saturating_sub(number);
        since.left_out = all.saturating_sub(looked_at.unwrap_or(u64::MAX));
        since
    }
}

/// A removal as the admin listener tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Told {
    /// The end of the transaction's commit.
    pub lsn: String,
    /// The transaction.
    pub xid: u32,
    /// The table that changed.
    pub table: String,
    /// What happened to its row.
    pub operation: String,
    /// The rule: its place in the configuration.
    pub rule: String,
    /// The cache.
    pub cache: String,
    /// Seconds since.
    pub age_seconds: f64,
    /// Whether the key was there; of a whole cache, whether anything was.
    pub present: bool,
    /// The old value could stay until it was refreshed, or due.
    pub kept: bool,
}

/// The drop of a whole cache as the admin listener tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ToldWhole {
    /// Why it was not by key.
    pub reason: String,
    /// The first change that led to it.
    #[serde(flatten)]
    pub told: Told,
}

impl Told {
    #[cfg(test)]
    pub(crate) fn nothing() -> Told {
        let text = String::new;
        let (lsn, table, operation, rule, cache) = (text(), text(), text(), text(), text());
        let (xid, age_seconds, present, kept) = (0, 0.0, false, false);
        Told { lsn, xid, table, operation, rule, cache, age_seconds, present, kept }
    }

    /// The removal in the words of the configuration as it is now.
    #[must_use]
    pub fn new(drop: &Drop, mapping: &Mapping) -> Self {
        let Origin { rule, cache, operation } = drop.origin;
        Told {
            lsn: drop.lsn.to_string(),
            xid: drop.xid.0,
            table: mapping
                .rule(rule)
                .map(|rule| mapping.table_name(rule.table))
                .unwrap_or_default(),
            operation: operation.as_str().to_owned(),
            rule: mapping.describe(rule),
            cache: mapping.cache(cache).map(|cache| cache.name.to_string()).unwrap_or_default(),
            age_seconds: drop.at.elapsed().map_or(0.0, |age| age.as_secs_f64()),
            present: drop.present,
            kept: drop.kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Operation;
    use crate::mapping::model::RuleId;

    fn drop(lsn: u64) -> Drop {
        let origin = Origin { rule: RuleId(0), cache: CacheId(0), operation: Operation::Update };
        Drop {
            origin,
            xid: Xid(1),
            lsn: Lsn(lsn),
            at: SystemTime::UNIX_EPOCH,
            present: true,
            kept: false,
        }
    }

    #[test]
    fn the_last_drop_of_a_key_is_told() {
        let mut drops = Drops::new(2);
        drops.note(b"a", drop(1));
        drops.note(b"a", drop(2));
        assert_eq!(drops.last(b"a").unwrap().lsn, Lsn(2));
        assert!(drops.last(b"b").is_none());
    }

    #[test]
    fn what_is_forgotten_is_not_told() {
        let mut drops = Drops::new(2);
        drops.note(b"a", drop(1));
        drops.note_whole(Escalation::Truncate, drop(2));
        let (reason, whole) = drops.last_whole(CacheId(0)).unwrap();
        assert_eq!((reason, whole.lsn), (Escalation::Truncate, Lsn(2)));
        assert!(drops.last_whole(CacheId(1)).is_none());
        drops.forget();
        assert!(drops.last(b"a").is_none() && drops.last_whole(CacheId(0)).is_none());
        drops.note(b"a", drop(3));
        assert_eq!(drops.last(b"a").unwrap().lsn, Lsn(3));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_go_first() {
        let mut drops = Drops::new(3);
        for i in 0..1000_u64 {
            drops.note(b"hot", drop(i));
            drops.note(format!("{}", i % 5).as_bytes(), drop(i));
        }
        assert!(drops.by_key.is_within(3));
        assert_eq!(drops.last(b"hot").unwrap().lsn, Lsn(999));
        assert_eq!(drops.last(b"4").unwrap().lsn, Lsn(999));
        assert!(drops.last(b"1").is_none());
    }

    #[test]
    fn what_was_dropped_since_is_told_once_and_the_latest_first() {
        let mut drops = Drops::new(10);
        let told = |since: &Since| -> Vec<(String, u64)> {
            let keys = since.keys.iter();
            keys.map(|(key, drop)| (String::from_utf8_lossy(key).into_owned(), drop.lsn.0))
                .collect()
        };
        drops.note(b"a", drop(1));
        let first = drops.since(0, 10);
        assert_eq!((told(&first), first.left_out), (vec![("a".to_owned(), 1)], 0));
        drops.note(b"b", drop(2));
        drops.note(b"c", drop(3));
        drops.note(b"b", drop(4));
        drops.note_whole(Escalation::Truncate, drop(5));
        let second = drops.since(first.next, 10);
        assert_eq!(told(&second), [("b".to_owned(), 4), ("c".to_owned(), 3)]);
        assert_eq!((second.whole.len(), second.left_out), (1, 0));
        assert!(drops.since(second.next, 10).keys.is_empty());
        let few = drops.since(0, 1);
        assert_eq!((told(&few), few.left_out), (vec![("b".to_owned(), 4)], 3));
    }
}
