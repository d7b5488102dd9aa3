//! What a transaction, or a batch of them, touches: keys, rows for lookups, whole caches.
//!
//! Memory follows what is distinct, never how many rows there were: a key or a row for a
//! lookup that is already there costs nothing but the look. A cache that is dropped as a
//! whole holds neither.
//!
//! A [`ChangeSet`] only grows: what it is of has been committed. Of a transaction in progress
//! a part may still be taken back, see [`revocable`].

use std::borrow::Borrow;
use std::fmt;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;

use crate::config::model::Operation;

use self::few::{Few, RowCounts};
use super::lookup_rows::LookupRows;
use super::model::{CacheId, RuleId, TableId};
pub use super::origin::{Escalation, Origin};

mod few;
pub mod revocable;

/// A full Redis key, `redis.key_prefix` included.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<[u8]>);

impl Key {
    /// The key as Redis takes it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same, owned.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into()
    }
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Self {
        Key(key.into())
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// As text; what rules render is always UTF-8.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

/// Where the rules put what a row's change reaches.
pub trait ChangeSink {
    /// Whether this cache is dropped as a whole: its keys are no longer needed.
    fn is_whole(&self, cache: CacheId) -> bool;

    /// Counts a change.
    fn count(&mut self, table: TableId, operation: Operation);

    /// Adds a key, rendered by the caller into the given buffer. Nothing happens if its
    /// cache is dropped as a whole; an earlier origin stays.
    fn add_key(&mut self, origin: Origin, render: impl FnOnce(&mut Vec<u8>));

    /// Adds a row of `changed` for a rule's lookup.
    fn add_lookup_row<'v>(&mut self, origin: Origin, values: impl Iterator<Item = Option<&'v str>>);

    /// Drops the origin's cache as a whole; its keys and lookups are no longer needed. The
    /// first reason stays.
    fn escalate(&mut self, reason: Escalation, origin: Origin);
}

/// What is counted of one cache.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    keys: usize,
    rows: usize,
    /// The first thing that reached the cache.
    first: Option<Origin>,
    whole: Option<(Escalation, Origin)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct ChangeSet {
    keys: HashMap<Key, Origin, RandomState>,
    key_bytes: usize,
    lookups: Few<RuleId, LookupRows>,
    /// How many rows these are, all together.
    lookup_rows: usize,
    /// Of the caches that were reached.
    tallies: Few<CacheId, Tally>,
    /// How many of these are dropped as a whole.
    whole: usize,
    counts: RowCounts,
    scratch: Vec<u8>,
}

/// What one transaction leaves for the next, so that each need not grow anew: most are alike.
#[derive(Debug, Default)]
pub struct Room {
    keys: usize,
    scratch: Vec<u8>,
}

/// More keys than this are no habit, and room for them in each transaction that waits would be a
/// waste.
const USUAL_KEYS: usize = 14;

/// What a key costs beside its bytes: its entry in the table and the allocator's share.
const KEY_OVERHEAD: usize = size_of::<(Key, Origin)>() + 24;

impl ChangeSet {
    /// An empty one, with the room that the one before needed.
    #[must_use]
    pub fn with_room(room: &mut Room) -> Self {
        ChangeSet {
            keys: HashMap::with_capacity_and_hasher(room.keys, RandomState::default()),
            scratch: std::mem::take(&mut room.scratch),
            ..ChangeSet::default()
        }
    }

    /// It is complete: what the next one will need.
    pub fn leave_room(&mut self, room: &mut Room) {
        room.keys = self.keys.len().min(USUAL_KEYS);
        room.scratch = std::mem::take(&mut self.scratch);
    }

    /// Whether nothing has to be dropped or looked up (changes may still have been counted).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.whole == 0
    }

    /// How many distinct keys and lookup rows there are: what the limit counts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len() + self.lookup_rows
    }

    /// About how much memory it takes.
    #[must_use]
    pub fn approximate_bytes(&self) -> usize {
        let rows: usize = self.lookups.iter().map(|(_, rows)| rows.approximate_bytes()).sum();
        size_of::<Self>() + self.key_bytes + self.keys.len() * KEY_OVERHEAD + rows
    }

    /// The keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = (&Key, Origin)> {
        self.keys.iter().map(|(key, origin)| (key, *origin))
    }

    /// Whether this key is among them.
    #[must_use]
    pub fn contains_key(&self, key: &[u8]) -> bool {
        self.keys.contains_key(key)
    }

    /// The caches that are dropped as a whole.
    pub fn whole(&self) -> impl Iterator<Item = (CacheId, Escalation, Origin)> {
        self.tallies
            .iter()
            .filter_map(|(id, tally)| tally.whole.map(|(reason, origin)| (id, reason, origin)))
    }

    /// The rows to look up, by rule.
    pub fn lookups(&self) -> impl Iterator<Item = (RuleId, &LookupRows)> {
        self.lookups.iter()
    }

    /// How many changes there were, by table and operation.
    pub fn counts(&self) -> impl Iterator<Item = (TableId, Operation, u64)> {
        self.counts.iter()
    }

    /// Takes the keys out.
    pub fn take_keys(&mut self) -> impl Iterator<Item = (Key, Origin)> + use<> {
        self.key_bytes = 0;
        self.tallies.values_mut().for_each(|tally| tally.keys = 0);
        std::mem::take(&mut self.keys).into_iter()
    }

    /// Takes the lookups out. What they find is put back with
    /// [`Mapping::add_lookup_results`](super::Mapping::add_lookup_results).
    pub fn take_lookups(&mut self) -> Vec<(RuleId, LookupRows)> {
        self.tallies.values_mut().for_each(|tally| tally.rows = 0);
        self.lookup_rows = 0;
        std::mem::take(&mut self.lookups).into_vec()
    }

    /// Past `max` keys and lookup rows, drops whole caches instead, the largest first.
    /// Costs nothing worth mentioning while under it.
    pub fn limit(&mut self, max: usize) {
        while self.len() > max {
            let size = |tally: &Tally| tally.keys + tally.rows;
            // Of equals the last: the first by name.
            let largest = self.tallies.iter().rev().max_by_key(|(_, tally)| size(tally));
            let largest = largest.filter(|(_, tally)| size(tally) > 0);
            let Some(origin) = largest.and_then(|(_, tally)| tally.first) else {
                return;
            };
            self.escalate(Escalation::KeyLimit, origin);
        }
    }

    /// Adds what a later transaction touches. Origins of this one stay.
    pub fn merge(&mut self, mut later: ChangeSet) {
        for (_, reason, origin) in later.whole() {
            self.escalate(reason, origin);
        }
        for (cache, reason, origin) in self.whole().collect::<Vec<_>>() {
            debug_assert_eq!(cache, origin.cache);
            later.escalate(reason, origin);
        }
        // Now neither holds anything of a cache that either drops as a whole.
        if self.keys.len() < later.keys.len() {
            std::mem::swap(&mut self.keys, &mut later.keys);
            // The keys swapped in are the later ones: the earlier origin wins.
            self.recount_keys();
            for (key, origin) in std::mem::take(&mut later.keys) {
                let bytes = key.as_bytes().len();
                if self.keys.insert(key, origin).is_none() {
                    self.key_bytes += bytes;
                    self.tally(origin.cache).keys += 1;
                }
            }
        } else {
            for (key, origin) in std::mem::take(&mut later.keys) {
                let bytes = key.as_bytes().len();
                if let hashbrown::hash_map::Entry::Vacant(entry) = self.keys.entry(key) {
                    entry.insert(origin);
                    self.key_bytes += bytes;
                    self.tally(origin.cache).keys += 1;
                }
            }
        }
        for (rule, rows) in std::mem::take(&mut later.lookups).into_vec() {
            self.merge_lookup(rule, rows);
        }
        for (id, theirs) in later.tallies.iter() {
            if let Some(first) = theirs.first {
                self.tally(id).first.get_or_insert(first);
            }
        }
        self.counts.absorb(&later.counts);
    }

    fn merge_lookup(&mut self, rule: RuleId, rows: LookupRows) {
        let (cache, origin) = (rows.origin().cache, rows.origin());
        let added = self.lookups.entry(rule, || LookupRows::new(origin)).merge(rows);
        self.lookup_rows += added;
        self.tally(cache).rows += added;
    }

    /// The rows of the origin's rule.
    fn lookup_rows(&mut self, origin: Origin) -> &mut LookupRows {
        self.lookups.entry(origin.rule, || LookupRows::new(origin))
    }

    fn recount_keys(&mut self) {
        self.key_bytes = 0;
        self.tallies.values_mut().for_each(|tally| tally.keys = 0);
        for (key, origin) in &self.keys {
            self.key_bytes += key.as_bytes().len();
            self.tallies.entry(origin.cache, Tally::default).keys += 1;
        }
    }

    fn tally(&mut self, cache: CacheId) -> &mut Tally {
        self.tallies.entry(cache, Tally::default)
    }
}

impl ChangeSink for ChangeSet {
    fn is_whole(&self, cache: CacheId) -> bool {
        // Asked by every rule that a row comes to, and nearly always of nothing.
        self.whole > 0 && self.tallies.get(cache).is_some_and(|tally| tally.whole.is_some())
    }

    fn count(&mut self, table: TableId, operation: Operation) {
        self.counts.add(table, operation, 1);
    }

    fn add_key(&mut self, origin: Origin, render: impl FnOnce(&mut Vec<u8>)) {
        if self.is_whole(origin.cache) {
            return;
        }
        self.scratch.clear();
        render(&mut self.scratch);
        if let EntryRef::Vacant(entry) = self.keys.entry_ref(self.scratch.as_slice()) {
            entry.insert_with_key(Key::from(self.scratch.as_slice()), origin);
            self.key_bytes += self.scratch.len();
            let tally = self.tally(origin.cache);
            tally.keys += 1;
            tally.first.get_or_insert(origin);
        }
    }

    fn add_lookup_row<'v>(
        &mut self,
        origin: Origin,
        values: impl Iterator<Item = Option<&'v str>>,
    ) {
        if self.is_whole(origin.cache) {
            return;
        }
        self.scratch.clear();
        LookupRows::encode(values, &mut self.scratch);
        let scratch = std::mem::take(&mut self.scratch);
        let added = self.lookup_rows(origin).insert(&scratch);
        self.scratch = scratch;
        if added {
            self.lookup_rows += 1;
            let tally = self.tally(origin.cache);
            tally.rows += 1;
            tally.first.get_or_insert(origin);
        }
    }

    fn escalate(&mut self, reason: Escalation, origin: Origin) {
        let tally = self.tally(origin.cache);
        if tally.whole.is_some() {
            return;
        }
        tally.whole = Some((reason, origin));
        let (keys, rows) = (tally.keys, tally.rows);
        (tally.keys, tally.rows) = (0, 0);
        self.whole += 1;
        self.lookup_rows -= rows;
        if keys > 0 {
            let mut freed = 0;
            self.keys.retain(|key, key_origin| {
                let stays = key_origin.cache != origin.cache;
                freed += if stays { 0 } else { key.as_bytes().len() };
                stays
            });
            self.key_bytes = self.key_bytes.saturating_sub(freed);
        }
        if rows > 0 {
            self.lookups.retain(|rows| rows.origin().cache != origin.cache);
        }
    }
}

#[cfg(test)]
mod tests;
