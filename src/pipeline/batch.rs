//! What goes to Redis in one go: the keys of many transactions, each once.

use std::time::Instant;

use hashbrown::HashMap;
use tokio::sync::OwnedSemaphorePermit;

use crate::config::model::Operation;
use crate::lsn::Lsn;
use crate::mapping::changes::{ChangeSet, Escalation, Key, Origin};
use crate::mapping::model::{CacheId, TableId};
use crate::snapshot::Xid;

/// A transaction of which only the trace is left.
#[derive(Debug, Clone, Copy)]
pub struct Trace {
    /// As the stream names it.
    pub xid: Xid,
    /// Where its commit ends.
    pub end_lsn: Lsn,
    /// The server's clock at the commit: microseconds since 2000-01-01 UTC.
    pub committed_at: i64,
}

/// A change of a key, and which of the batch's transactions it was.
#[derive(Debug, Clone, Copy)]
pub struct Cause {
    /// The change.
    pub origin: Origin,
    /// An index into [`Batch::transactions`].
    pub transaction: usize,
}

/// What is applied together.
#[derive(Debug, Default)]
pub struct Batch {
    /// Keys to remove.
    pub keys: HashMap<Key, Cause, foldhash::fast::RandomState>,
    /// Caches to drop as a whole.
    pub whole: HashMap<CacheId, (Escalation, Cause)>,
    /// The transactions in it, in gate order.
    pub transactions: Vec<Trace>,
    /// How many rows changed.
    pub counts: HashMap<(TableId, Operation), u64>,
    /// A WAL position past what led to this without coming through the stream.
    pub seen: Option<Lsn>,
    /// The watermark once this is applied.
    pub watermark: Lsn,
    /// The list of suspects, if it changed.
    pub suspects: Option<String>,
    /// The tables' files, if they changed.
    pub files: Option<String>,
    /// When its oldest transaction arrived.
    pub since: Option<Instant>,
    /// Room for decoding ahead that is given back once this is applied.
    pub shares: Vec<OwnedSemaphorePermit>,
}

impl Batch {
    /// Takes the keys and whole caches of `changes`, on behalf of the transaction with that
    /// index. Its lookups must have been run.
    pub fn add(&mut self, changes: &mut ChangeSet, transaction: usize) {
        for (cache, escalation, origin) in changes.whole() {
            self.whole.entry(cache).or_insert((escalation, Cause { origin, transaction }));
        }
        for (key, origin) in changes.take_keys() {
            self.keys.entry(key).or_insert(Cause { origin, transaction });
        }
    }

    /// Counts the rows of `changes`.
    pub fn count(&mut self, changes: &ChangeSet) {
        for (table, operation, rows) in changes.counts() {
            *self.counts.entry((table, operation)).or_default() += rows;
        }
    }

    /// The keys of a cache that is dropped as a whole need no removal of their own.
    pub fn settle(&mut self) {
        if !self.whole.is_empty() {
            self.keys.retain(|_, cause| !self.whole.contains_key(&cause.origin.cache));
        }
    }

    /// What the frontier must reach: the greatest commit END in it, of transactions without
    /// keys, too, and of those that the stream did not tell of.
    #[must_use]
    pub fn frontier(&self) -> Option<Lsn> {
        self.transactions.iter().map(|trace| trace.end_lsn).chain(self.seen).max()
    }
}
