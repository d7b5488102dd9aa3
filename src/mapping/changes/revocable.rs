//! What a transaction in progress touches, such that a subtransaction's part can be taken
//! back.
//!
//! Everything that is touched is logged once, by whoever touches it first, with a mark where
//! each subtransaction's part begins. Taking a subtransaction back cuts the log off at its
//! mark. So memory follows what is distinct, however many rows and subtransactions there were.
//!
//! # Why the first to touch a key is the only one that counts
//!
//! The stream brings a transaction's changes in the order in which they were written, each
//! with the id of the subtransaction that wrote it, and between them the ids of
//! subtransactions that were rolled back. Not that one was released: that is not even
//! written to the WAL. But subtransactions are nested, and a parent has its id before its
//! children have theirs (`AssignTransactionId`). So when S writes, whatever is open is S and
//! what encloses it, and of a subtransaction R that wrote before and was not rolled back:
//!
//! * R < S. Either R is open, so it encloses S; or it was released, and lives as long as
//!   what it was released into, which is open, has an id below R's, and so encloses S. Either
//!   way *S cannot outlive R*. What R has touched need not be remembered for S.
//! * R > S. R began after S did, and S is the innermost that is open and has an id: R was
//!   released into S and *lives exactly as long as S*. R's part becomes S's.
//!
//! So the parts in the log are in ascending order of ids, and each lives at least as long as
//! all that follow it: what is rolled back is always the log's end. A rollback names the
//! subtransaction and every one that was released into it (they are in its abort record);
//! whichever comes first cuts off no more than belongs to all of them.
//!
//! Should the server not tell of a rollback (it does not where all of a subtransaction had
//! been spilled to disk before the first block was sent), something stays that could
//! have gone: more is dropped than must be, never less.
//!
//! # Past a limit
//!
//! [`RevocableChanges::limit`] forgets a cache's keys and drops it as a whole instead, in the
//! place of the first of its keys: as long as any of them would have lived.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hasher};

use super::few::{Few, RowCounts};
use super::{ChangeSet, ChangeSink, Escalation, Key, LookupRows, Origin};
use crate::config::model::Operation;
use crate::mapping::model::{CacheId, TableId};
use crate::snapshot::Xid;

/// How many parts are kept only to count the rows in them. Past it, the rows of a
/// subtransaction that touched nothing new are counted with the part before, and stay
/// counted if it is rolled back.
const COUNTING_PARTS: usize = 10_000;

/// See the module.
#[derive(Debug)]
pub struct RevocableChanges {
    /// In the order in which they were first touched.
    log: Vec<Entry>,
    /// Where in the log a key or a row is.
    index: HashTable<usize>,
    hasher: RandomState,
    /// In ascending order; the first is the transaction itself.
    parts: Vec<Part>,
    /// Who writes now.
    writer: Xid,
    /// Of the caches that were reached.
    tallies: Few<CacheId, Tally>,
    /// How many keys and rows the log holds.
    held: usize,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    /// A key, an encoded row, or nothing.
    bytes: Box<[u8]>,
    origin: Origin,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Key,
    LookupRow,
    Whole(Escalation),
}

/// What one subtransaction, and all that were released into it, touched first.
#[derive(Debug)]
struct Part {
    xid: Xid,
    /// Where it begins in the log.
    start: usize,
    counts: RowCounts,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    /// Keys and rows in the log.
    held: usize,
    is_whole: bool,
}

impl RevocableChanges {
    /// For the transaction with this id.
    #[must_use]
    pub fn new(xid: Xid) -> Self {
        RevocableChanges {
            log: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::default(),
            parts: vec![Part { xid, start: 0, counts: RowCounts::default() }],
            writer: xid,
            tallies: Few::default(),
            held: 0,
            scratch: Vec::new(),
        }
    }

    /// What comes now was written by this subtransaction, or by the transaction itself.
    pub fn written_by(&mut self, xid: Xid) {
        if xid == self.writer {
            return;
        }
        self.writer = xid;
        let since = self.since();
        let mut released: Option<Part> = None;
        while let Some(part) = self.parts.pop_if(|part| since(part.xid) > since(xid)) {
            released = Some(match released {
                Some(later) => part.followed_by(later),
                None => part,
            });
        }
        if let Some(released) = released {
            match self.parts.pop_if(|part| part.xid == xid) {
                Some(part) => self.parts.push(part.followed_by(released)),
                None => self.parts.push(Part { xid, ..released }),
            }
        }
    }

    /// Takes back what a subtransaction touched, and what was released into it.
    pub fn roll_back(&mut self, subxid: Xid) {
        let since = self.since();
        let found = self.parts.binary_search_by_key(&since(subxid), |part| since(part.xid));
        // The first is the transaction itself: who has nothing to take back is not asked.
        let Some(at) = found.ok().filter(|at| *at > 0) else { return };
        let Some(start) = self.parts.get(at).map(|part| part.start) else { return };
        self.parts.truncate(at);
        while self.log.len() > start
            && let Some(entry) = self.log.pop()
        {
            self.forget(&entry);
        }
        if let Some(last) = self.parts.last() {
            self.writer = last.xid;
        }
    }

    /// How many distinct keys and lookup rows there are: what the limit counts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Past `max` keys and lookup rows, drops whole caches instead, the largest first.
    /// Costs nothing worth mentioning while under it.
    pub fn limit(&mut self, max: usize) {
        while self.held > max {
            // Of equals the last: the first by name.
            let largest = self.tallies.iter().rev().max_by_key(|(_, tally)| tally.held);
            let Some((cache, _)) = largest.filter(|(_, tally)| tally.held > 0) else { return };
            self.forget_keys_of(cache);
        }
    }

    /// The transaction has committed: what it touched.
    #[must_use]
    pub fn committed(self) -> ChangeSet {
        let mut out = ChangeSet::default();
        for part in self.parts {
            out.counts.absorb(&part.counts);
        }
        for entry in &self.log {
            if let Kind::Whole(reason) = entry.kind {
                out.escalate(reason, entry.origin);
            }
        }
        out.keys.reserve(self.index.len());
        for Entry { bytes, origin, kind } in self.log {
            if out.is_whole(origin.cache) {
                continue;
            }
            match kind {
                Kind::Key => {
                    out.key_bytes += bytes.len();
                    out.tally(origin.cache).keys += 1;
                    out.keys.insert(Key(bytes), origin);
                }
                Kind::LookupRow => {
                    out.lookup_rows(origin).insert_new(bytes);
                    out.lookup_rows += 1;
                    out.tally(origin.cache).rows += 1;
                }
                Kind::Whole(_) => {}
            }
            out.tally(origin.cache).first.get_or_insert(origin);
        }
        out
    }

    /// How many transactions after the first one of all an id was given.
    fn since(&self) -> impl Fn(Xid) -> u32 + use<> {
        let first = self.parts.first().map_or(self.writer, |part| part.xid);
        move |xid| xid.since(first)
    }

    /// The writer's own part, which begins here if it has none.
    fn own_part(&mut self) -> Option<&mut Part> {
        if self.parts.last().is_none_or(|part| part.xid != self.writer) {
            let part =
                Part { xid: self.writer, start: self.log.len(), counts: RowCounts::default() };
            self.parts.push(part);
        }
        self.parts.last_mut()
    }

    /// Adds the key or the row in `scratch`, unless it is there.
    fn add(&mut self, kind: Kind, origin: Origin) {
        let Self { log, index, hasher, scratch, .. } = self;
        let hash = hash(hasher, kind, origin, scratch);
        let is_there = |at: &usize| {
            log.get(*at).is_some_and(|entry| {
                *entry.bytes == **scratch
                    && entry.kind == kind
                    && (kind == Kind::Key || entry.origin.rule == origin.rule)
            })
        };
        if index.find(hash, is_there).is_some() {
            return;
        }
        let bytes = scratch.as_slice().into();
        index.insert_unique(hash, log.len(), |at| log.get(*at).map_or(0, |e| e.hash(hasher)));
        self.own_part();
        self.log.push(Entry { bytes, origin, kind });
        self.held += 1;
        self.tallies.entry(origin.cache, Tally::default).held += 1;
    }

    /// The log's last entry was taken off it.
    fn forget(&mut self, entry: &Entry) {
        let tally = self.tallies.entry(entry.origin.cache, Tally::default);
        if matches!(entry.kind, Kind::Whole(_)) {
            tally.is_whole = false;
            return;
        }
        tally.held -= 1;
        self.held -= 1;
        let at = self.log.len();
        if let Ok(found) = self.index.find_entry(entry.hash(&self.hasher), |other| *other == at) {
            found.remove();
        }
    }

    /// Drops a cache as a whole in place of all of its keys and rows.
    fn forget_keys_of(&mut self, cache: CacheId) {
        let mut kept: Vec<Entry> = Vec::new();
        let mut parts = self.parts.iter_mut().peekable();
        let mut is_whole = false;
        for (at, mut entry) in std::mem::take(&mut self.log).into_iter().enumerate() {
            while let Some(part) = parts.next_if(|part| part.start <= at) {
                part.start = kept.len();
            }
            if entry.origin.cache == cache {
                if std::mem::replace(&mut is_whole, true) {
                    continue;
                }
                if !matches!(entry.kind, Kind::Whole(_)) {
                    entry.kind = Kind::Whole(Escalation::KeyLimit);
                    entry.bytes = Box::default();
                }
            }
            kept.push(entry);
        }
        parts.for_each(|part| part.start = kept.len());
        let tally = self.tallies.entry(cache, Tally::default);
        self.held -= tally.held;
        *tally = Tally { held: 0, is_whole };
        self.log = kept;
        self.log.shrink_to_fit();
        let (log, hasher) = (&self.log, &self.hasher);
        let hash_of = |at: &usize| log.get(*at).map_or(0, |entry| entry.hash(hasher));
        self.index = HashTable::with_capacity(self.held);
        for (at, entry) in log.iter().enumerate() {
            if !matches!(entry.kind, Kind::Whole(_)) {
                self.index.insert_unique(entry.hash(hasher), at, hash_of);
            }
        }
    }
}

impl ChangeSink for RevocableChanges {
    fn is_whole(&self, cache: CacheId) -> bool {
        self.tallies.get(cache).is_some_and(|tally| tally.is_whole)
    }

    fn count(&mut self, table: TableId, operation: Operation) {
        // A TRUNCATE explains a table's new file, so one that was rolled back must not count.
        let part = if operation == Operation::Truncate || self.parts.len() < COUNTING_PARTS {
            self.own_part()
        } else {
            self.parts.last_mut()
        };
        if let Some(part) = part {
            part.counts.add(table, operation, 1);
        }
    }

    fn add_key(&mut self, origin: Origin, render: impl FnOnce(&mut Vec<u8>)) {
        if !self.is_whole(origin.cache) {
            self.scratch.clear();
            render(&mut self.scratch);
            self.add(Kind::Key, origin);
        }
    }

    fn add_lookup_row<'v>(
        &mut self,
        origin: Origin,
        values: impl Iterator<Item = Option<&'v str>>,
    ) {
        if !self.is_whole(origin.cache) {
            self.scratch.clear();
            LookupRows::encode(values, &mut self.scratch);
            self.add(Kind::LookupRow, origin);
        }
    }

    /// The cache's keys stay in the log: should this be rolled back, those that others
    /// touched before are needed.
    fn escalate(&mut self, reason: Escalation, origin: Origin) {
        let tally = self.tallies.entry(origin.cache, Tally::default);
        if !std::mem::replace(&mut tally.is_whole, true) {
            self.own_part();
            self.log.push(Entry { bytes: Box::default(), origin, kind: Kind::Whole(reason) });
        }
    }
}

impl Entry {
    fn hash(&self, hasher: &RandomState) -> u64 {
        hash(hasher, self.kind, self.origin, &self.bytes)
    }
}

/// Of the same bytes, a key is one thing, and each rule's row another.
fn hash(hasher: &RandomState, kind: Kind, origin: Origin, bytes: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    if kind == Kind::LookupRow {
        hasher.write_u16(origin.rule.0);
    }
    hasher.write(bytes);
    hasher.finish()
}

impl Part {
    /// Both as one part.
    fn followed_by(mut self, later: Part) -> Part {
        self.counts.absorb(&later.counts);
        self
    }
}

#[cfg(test)]
mod tests;
