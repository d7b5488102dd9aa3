//! The order of things between the stream and Redis: who waits for the gate, what may be
//! applied, and how far everything is.
//!
//! Rule 1: a transaction's invalidation is held until a fresh snapshot of the primary
//! shows it. What is not visible is *parked*, what comes after it and is visible goes
//! ahead. So transactions leave in gate order, not in stream order, and the *watermark*,
//! below which everything is applied, is not the end of the last one that left: it stays
//! below the oldest that is still here.
//!
//! Why the watermark of a batch is known before the batch is applied: batches are
//! applied in the order in which they are made. When this one has been, everything that
//! left before it has been too, and what is still here has not.

use std::collections::VecDeque;
use std::time::Instant;

use super::transaction::Transaction;
use crate::lsn::Lsn;
use crate::snapshot::Snapshot;

/// What arrives from the stream, in its order.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are transactions; a box would cost an allocation each"
)]
pub enum Arrival {
    /// A committed transaction.
    Transaction(Transaction),
    /// Everything committed before this position has arrived.
    Progress(Lsn),
}

/// The transactions that have arrived and not left, in stream order.
#[derive(Debug)]
pub struct Waiting {
    /// Each with its floor: everything below that arrived before it.
    parked: VecDeque<(Lsn, Transaction)>,
    /// Everything below has arrived.
    passed: Lsn,
}

/// What may be applied now.
#[derive(Debug)]
pub struct Admitted {
    /// The transactions that became visible, in stream order.
    pub transactions: Vec<Transaction>,
    /// The watermark once they are applied.
    pub watermark: Lsn,
}

impl Waiting {
    /// Nothing waits; everything below `watermark` was applied in an earlier life.
    ///
    /// What is streamed again from below it finds itself above its floor: the watermark
    /// never goes back.
    #[must_use]
    pub fn new(watermark: Lsn) -> Self {
        Waiting { parked: VecDeque::new(), passed: watermark }
    }

    /// Takes what the stream brought.
    pub fn arrive(&mut self, arrival: Arrival) {
        let end = match arrival {
            Arrival::Transaction(transaction) => {
                let end = transaction.end_lsn;
                self.parked.push_back((self.passed, transaction));
                end
            }
            Arrival::Progress(position) => position,
        };
        self.passed = self.passed.max(end);
    }

    /// Lets go what `snapshot` shows. The snapshot must have been taken after the
    /// transactions arrived.
    pub fn admit(&mut self, snapshot: &Snapshot) -> Admitted {
        self.admit_where(|transaction| snapshot.shows(transaction.xid))
    }

    /// Lets go what is `visible`.
    pub(super) fn admit_where(&mut self, visible: impl Fn(&Transaction) -> bool) -> Admitted {
        let mut transactions = Vec::new();
        let mut still = VecDeque::new();
        for (floor, transaction) in self.parked.drain(..) {
            if visible(&transaction) {
                transactions.push(transaction);
            } else {
                still.push_back((floor, transaction));
            }
        }
        self.parked = still;
        Admitted { transactions, watermark: self.watermark() }
    }

    /// The watermark, given that everything that left is applied.
    #[must_use]
    pub fn watermark(&self) -> Lsn {
        self.parked.front().map_or(self.passed, |(floor, _)| *floor)
    }

    /// Everything committed before this position has arrived.
    #[must_use]
    pub fn passed(&self) -> Lsn {
        self.passed
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parked.len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parked.is_empty()
    }

    /// When the last one arrived.
    #[must_use]
    pub fn newest(&self) -> Option<Instant> {
        self.parked.back().map(|(_, transaction)| transaction.received_at)
    }

    /// When the first after the `already` oldest arrived.
    #[must_use]
    pub fn oldest_from(&self, already: usize) -> Option<Instant> {
        self.parked.get(already).map(|(_, transaction)| transaction.received_at)
    }

    /// Whether somebody waits who may have altered what is streamed: of what commits after him, part may
    /// not come through, and the catalog does not show it yet.
    #[must_use]
    pub fn hides_an_alteration(&self) -> bool {
        self.parked.iter().any(|(_, transaction)| transaction.alters_publication)
    }

    /// What still waits was not visible: it gives back its share of the room for decoding
    /// ahead, or those behind it could not go ahead of it. To keep the memory bounded all
    /// the same, past `max` keys the largest transactions drop whole caches instead.
    pub fn park(&mut self, max: usize) {
        for (_, transaction) in &mut self.parked {
            transaction.share = None;
        }
        let mut total: usize = self.parked.iter().map(|(_, t)| t.changes.len()).sum();
        while total > max {
            let Some((_, largest)) = self.parked.iter_mut().max_by_key(|(_, t)| t.changes.len())
            else {
                return;
            };
            let before = largest.changes.len();
            largest.changes.limit(before / 2);
            total = total - before + largest.changes.len();
        }
    }
}
