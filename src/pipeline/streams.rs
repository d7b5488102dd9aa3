//! Transactions of which blocks come while they are still in progress. Pure.
//!
//! Past its `logical_decoding_work_mem` the server would spill a large transaction to its disk
//! and send all of it after the commit. Asked for it (`streaming`), it sends blocks as it goes;
//! blocks of several transactions alternate, with whole transactions between them. A block is
//! never interrupted. Each row in it names the subtransaction that wrote it, and which of
//! these are rolled back is told between the blocks; at the end comes that all of it is
//! rolled back, or committed.
//!
//! **Nothing of a block leaves this room before the commit.** A committed transaction leaves
//! it in the order of commits, like any other, and goes through the gate like any other, by
//! the id of the transaction itself.
//!
//! **Why positions need no care for what is open.** The watermark is a statement on commits:
//! everything *committed* below it is applied. A transaction in progress commits past
//! everything that has been streamed, however long ago it began. So the slot's
//! `confirmed_flush_lsn` may pass its beginning. The server sends all transactions again whose
//! commit record is at or past that position, and for that keeps the WAL from where the oldest
//! of those that were open then begins (`restart_lsn`, `SnapBuildProcessRunningXacts`; blocks
//! that were sent change nothing of it). On a new connection its memory of what it has sent is
//! gone, too: all blocks come from the first on. So whatever is open when a connection ends
//! is simply forgotten.
//!
//! A keepalive in the midst of a block tells of the position where the record before the one
//! ends that made the server send the block: what committed below it has come.
//!
//! **Memory** follows distinct keys ([`revocable`](crate::mapping::changes::revocable)), each
//! transaction within its limit. All that are open are held to a limit together, too:
//! past it the largest drops whole caches in place of their keys.

use std::sync::Arc;

use hashbrown::HashMap;

use super::lookups::LookupPlans;
use super::relations::Tables;
use crate::mapping::changes::ChangeSet;
use crate::mapping::changes::revocable::RevocableChanges;
use crate::snapshot::Xid;

/// How many keys transactions in progress may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Each.
    pub(super) each: usize,
    /// All together.
    pub(super) all: usize,
}

/// The transactions in progress on one connection.
pub(super) struct Streams {
    limits: Limits,
    /// Whose block is open, and what it is of.
    block: Option<(Xid, Box<Stream>)>,
    /// All others.
    others: HashMap<Xid, Box<Stream>>,
    /// How many keys they hold, all together.
    held: usize,
}

/// A transaction in progress.
pub(super) struct Stream {
    pub(super) changes: RevocableChanges,
    /// As they were described to it.
    pub(super) tables: Tables,
    /// A publication is another one with its commit.
    pub(super) alters_publication: bool,
}

/// What is left of one that has committed.
pub(super) struct Committed {
    /// What it touches.
    pub(super) changes: ChangeSet,
    /// The tables as they were described to it.
    pub(super) tables: Tables,
    /// A publication is another one from here on.
    pub(super) alters_publication: bool,
}

/// A message that no server sends at this point.
pub(super) type OutOfPlace = &'static str;

impl Streams {
    pub(super) fn new(limits: Limits) -> Self {
        Streams { limits, block: None, others: HashMap::new(), held: 0 }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.others.len() + usize::from(self.block.is_some())
    }

    /// How many keys they hold.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Whose block is open.
    pub(super) fn block(&mut self) -> Option<&mut Stream> {
        self.block.as_mut().map(|(_, stream)| &mut **stream)
    }

    /// A block begins; `plans` are those of its time.
    pub(super) fn start(
        &mut self,
        xid: Xid,
        first: bool,
        plans: &Arc<LookupPlans>,
    ) -> Result<(), OutOfPlace> {
        let stream = match self.others.remove(&xid) {
            Some(stream) => stream,
            None if first => Box::new(Stream {
                changes: RevocableChanges::new(xid),
                tables: Tables::beginning_with(Arc::clone(plans)),
                alters_publication: false,
            }),
            None => return Err("a block goes on with a transaction that never began"),
        };
        if self.block.replace((xid, stream)).is_some() {
            return Err("a block begins inside of another");
        }
        Ok(())
    }

    /// It ends, though not the transaction.
    pub(super) fn stop(&mut self) -> Result<(), OutOfPlace> {
        let (xid, stream) = self.block.take().ok_or("a block ends that never began")?;
        self.others.insert(xid, stream);
        Ok(())
    }

    /// Lets the open block's transaction take a change. Keeps the limits.
    pub(super) fn change(
        &mut self,
        take: impl FnOnce(&mut Stream) -> Result<(), OutOfPlace>,
    ) -> Result<(), OutOfPlace> {
        let (_, stream) = self.block.as_mut().ok_or("a row of a block outside of any")?;
        let before = stream.changes.len();
        take(stream)?;
        stream.changes.limit(self.limits.each);
        self.held = self.held - before + stream.changes.len();
        while self.held > self.limits.all {
            let block = self.block.as_mut().map(|(_, stream)| stream);
            let all = self.others.values_mut().chain(block);
            let Some(largest) = all.max_by_key(|stream| stream.changes.len()) else { break };
            let before = largest.changes.len();
            largest.changes.limit(before / 2);
            self.held = self.held - before + largest.changes.len();
        }
        Ok(())
    }

    /// A transaction, or a subtransaction of it, is rolled back. One of which no block came
    /// has left nothing to take back.
    pub(super) fn abort(&mut self, xid: Xid, subxid: Xid) {
        if xid == subxid {
            if let Some(stream) = self.others.remove(&xid) {
                self.held -= stream.changes.len();
            }
        } else if let Some(stream) = self.others.get_mut(&xid) {
            let before = stream.changes.len();
            stream.changes.roll_back(subxid);
            self.held = self.held - before + stream.changes.len();
            // The server tells it of them again.
            stream.tables.forget();
        }
    }

    /// A transaction has committed.
    pub(super) fn commit(&mut self, xid: Xid) -> Result<Committed, OutOfPlace> {
        let stream = self.others.remove(&xid);
        let stream = stream.ok_or("a transaction in blocks is committed that never began")?;
        self.held -= stream.changes.len();
        let Stream { changes, tables, alters_publication } = *stream;
        Ok(Committed { changes: changes.committed(), tables, alters_publication })
    }
}
