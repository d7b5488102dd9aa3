//! What goes to Redis in one go: the keys of many transactions, each once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio::sync::OwnedSemaphorePermit;

use super::lookups::LookupPlans;
use super::transaction::Transaction;
use crate::config::model::Operation;
use crate::lsn::Lsn;
use crate::mapping::Mapping;
use crate::mapping::changes::{ChangeSet, Escalation, Key, Origin};
use crate::mapping::model::{CacheId, TableId};
use crate::metrics::Metrics;
use crate::snapshot::Xid;
use crate::status::heartbeat::Beat;

/// A transaction of which only the trace is left.
#[derive(Debug, Clone, Copy)]
pub struct Trace {
    /// As the stream names it.
    pub xid: Xid,
    /// Where its commit ends.
    pub end_lsn: Lsn,
    /// The server's clock at the commit: microseconds since 2000-01-01 UTC.
    pub committed_at: i64,
    /// How long after that it was sent, by the same clock; in microseconds.
    pub sent_after: i64,
    /// When its commit was read from the stream.
    pub received_at: Instant,
    /// The heartbeat that it carried.
    pub heartbeat: Option<Beat>,
    /// How many keys it reached. What lookups found for several transactions together counts
    /// for the last of them.
    pub reach: u64,
}

impl Trace {
    /// How long ago it was committed; `clock` is what this machine's clock says, in the same
    /// unit.
    ///
    /// Two clocks disagree, and either may be set while the daemon runs. What passed on the
    /// server until it was sent, and here since it was read, needs no comparing of the two: it
    /// is never less than that, and so never negative. Where this machine's clock is ahead of the
    /// server's it is too long by the difference.
    #[must_use]
    pub fn age(&self, clock: i64, now: Instant) -> Duration {
        let across = clock.saturating_sub(self.committed_at);
        let micros = |micros: i64| Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        micros(across).max(self.known_age(now))
    }

    /// For how long it has surely been committed: what passed on the server until it was sent, by
    /// its own clock, and here since it was read.
    #[must_use]
    pub fn known_age(&self, now: Instant) -> Duration {
        let sent_after = Duration::from_micros(u64::try_from(self.sent_after).unwrap_or(0));
        sent_after + now.saturating_duration_since(self.received_at)
    }
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
        if self.keys.is_empty() {
            self.keys.reserve(changes.len());
        }
        let mut reach = 0;
        for (key, origin) in changes.take_keys() {
            reach += 1;
            self.keys.entry(key).or_insert(Cause { origin, transaction });
        }
        if let Some(trace) = self.transactions.get_mut(transaction) {
            trace.reach += reach;
        }
    }

    /// Takes a transaction that has become visible: its trace, its keys, its share. Gives what of
    /// it must be looked up, if anything, and how.
    pub fn take(&mut self, transaction: Transaction) -> Option<(Arc<LookupPlans>, ChangeSet)> {
        let Transaction { mut changes, plans, share, .. } = transaction;
        for (table, operation, rows) in changes.counts() {
            *self.counts.entry((table, operation)).or_default() += rows;
        }
        let index = self.transactions.len();
        self.transactions.push(Trace {
            xid: transaction.xid,
            end_lsn: transaction.end_lsn,
            committed_at: transaction.committed_at,
            sent_after: transaction.sent_after,
            received_at: transaction.received_at,
            heartbeat: transaction.heartbeat,
            reach: 0,
        });
        self.add(&mut changes, index);
        self.shares.extend(share);
        let looks_up = changes.lookups().next().is_some();
        looks_up.then_some((plans, changes))
    }

    /// Counts its transactions and rows.
    pub(crate) fn measure(&self, metrics: &Metrics, mapping: &Mapping) {
        metrics.transactions.inc_by(u64::try_from(self.transactions.len()).unwrap_or(u64::MAX));
        for ((table, operation), rows) in &self.counts {
            let name = mapping.table_name(*table);
            metrics.changes.with_label_values(&[&name, operation.as_str()]).inc_by(*rows);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_never_negative_and_never_less_than_what_surely_passed() {
        const SECOND: i64 = 1_000_000;
        let received_at = Instant::now();
        let now = received_at + Duration::from_secs(2);
        let age = |clock: i64, sent_after: i64| {
            let (xid, end_lsn, committed_at) = (Xid(1), Lsn(1), 100 * SECOND);
            let (reach, heartbeat) = (0, None);
            let trace =
                Trace { xid, end_lsn, committed_at, sent_after, received_at, heartbeat, reach };
            trace.age(clock, now).as_secs()
        };
        assert_eq!(age(105 * SECOND, SECOND), 5, "clocks agree: it lay two seconds unread, too");
        assert_eq!(age(40 * SECOND, SECOND), 3, "this machine's clock is behind");
        assert_eq!(age(40 * SECOND, -50 * SECOND), 2, "the server's was set back");
        assert_eq!(age(i64::MIN, i64::MIN), 2);
    }
}
